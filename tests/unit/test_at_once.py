"""Doing the same for many things, some at a time."""

from __future__ import annotations

import asyncio

import pytest

from dtr.at_once import at_once, first_failure


async def slowly(things):
    for one in things:
        await asyncio.sleep(0)
        yield one


@pytest.mark.parametrize("given", [iter, slowly])
@pytest.mark.parametrize(("count", "number"), [(0, 3), (2, 3), (10, 3), (10, 1)])
async def test_it_is_done_once_for_each_and_for_no_more_at_a_time(count, number, given):
    running, most, done = 0, 0, []
    as_many_as_may = asyncio.Event()

    async def work(thing: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == min(count, number):
            as_many_as_may.set()
        await as_many_as_may.wait()
        await asyncio.sleep(0.001)  # one too many would come now
        running -= 1
        done.append(thing)

    async with asyncio.timeout(60):
        await at_once(work, given(range(count)), number)
    assert sorted(done) == list(range(count))
    assert most == min(count, number)


async def test_the_first_failure_stops_the_others_and_is_raised():
    begun, ended = [], []

    async def work(thing: int) -> None:
        begun.append(thing)
        if thing == 1:
            raise LookupError(thing)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(thing)

    with pytest.raises(LookupError, match="1"):
        await at_once(work, range(10), 3)
    assert begun == [0, 1, 2]
    assert sorted(ended) == [0, 2]


def test_the_first_failure_is_found_in_groups_of_groups():
    failure = LookupError()
    group = ExceptionGroup("all", [ExceptionGroup("some", [failure, ValueError()]), ValueError()])
    assert first_failure(group) is failure
    assert first_failure(failure) is failure


async def test_things_that_cannot_be_told_stop_the_others_as_well():
    async def broken():
        yield 0
        raise LookupError("no more")

    begun = []

    async def work(thing: int) -> None:
        begun.append(thing)
        await asyncio.Event().wait()

    with pytest.raises(LookupError, match="no more"):
        await at_once(work, broken(), 2)
    assert begun == [0]
