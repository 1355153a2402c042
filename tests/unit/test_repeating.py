"""Doing the same again and again beside everything else."""

from __future__ import annotations

import asyncio
import time

import pytest

from dtr.repeating import repeat


class Work:
    """What is done with the outcomes that are given, one after the other, and then for ever well."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self._outcomes = list(outcomes)
        self.count = 0
        self.all_done = asyncio.Event()

    async def __call__(self) -> None:
        self.count += 1
        if not self._outcomes:
            self.all_done.set()
            return
        outcome = self._outcomes.pop(0)
        if outcome is not None:
            raise outcome


async def test_the_first_of_failures_in_a_row_is_told_and_it_goes_on():
    first, second = LookupError("first"), OSError("second")
    work, told = Work(None, first, ValueError(), None, None, second), []
    running = asyncio.create_task(repeat(work, seconds=0.001, tell=told.append))
    async with asyncio.timeout(60):
        await work.all_done.wait()
    assert told == [first, second]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_failure_of_another_kind_ends_it():
    work, told = Work(LookupError(), OSError("no more")), []
    with pytest.raises(OSError, match="no more"):
        await repeat(work, seconds=0.001, tell=told.append, failures=(LookupError,))
    assert len(told) == 1


@pytest.mark.parametrize(("first_after", "least", "count"), [(None, 0.2, 1), (0, 0.0, 1)])
async def test_there_is_a_pause_before_it_unless_it_is_to_begin_at_once(first_after, least, count):
    work = Work()
    began = time.monotonic()
    running = asyncio.create_task(repeat(work, seconds=0.2, tell=pytest.fail, first_after=first_after))
    async with asyncio.timeout(60):
        await work.all_done.wait()
    assert time.monotonic() - began >= least
    assert work.count == count  # then there is a pause
    running.cancel()
