"""Work that comes to its end, whatever happens to who waits for it."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dtr.shielded import in_thread, to_its_end


async def test_results_and_errors_come_as_they_are() -> None:
    async def fail() -> None:
        raise ValueError("of the work")

    assert await to_its_end(asyncio.sleep(0, "slept")) == "slept"
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with ThreadPoolExecutor(1, "mine") as threads:
        assert await in_thread(lambda: threading.current_thread().name, threads=threads) == "mine_0"
        with pytest.raises(ZeroDivisionError):
            await in_thread(divmod, 1, 0, threads=threads)
    with pytest.raises(ValueError, match="of the work"):
        await to_its_end(fail())


@pytest.mark.parametrize("own", [True, False])
async def test_a_thread_has_ended_when_the_cancellation_is_raised(own: bool) -> None:
    begun, go, ended, stops = asyncio.Event(), threading.Event(), threading.Event(), 0
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(30)
        ended.set()

    def stop() -> None:
        nonlocal stops
        stops += 1

    with ThreadPoolExecutor(1) as threads:
        caller = asyncio.create_task(in_thread(work, threads=threads if own else None, stop=stop))
        await begun.wait()
        for _ in range(3):  # who is impatient asks more than once
            caller.cancel()
            await asyncio.sleep(0.01)
            assert not caller.done()
        assert stops == 3
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert ended.is_set()


async def test_other_work_has_ended_as_well_and_its_error_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    go = asyncio.Event()

    async def fail() -> None:
        await go.wait()
        raise ValueError("of the work")

    caller = asyncio.create_task(to_its_end(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    del caller
    gc.collect()
    assert not caplog.records  # asyncio tells of errors that nobody looked at


async def test_who_was_cancelled_before_it_waits_has_begun_the_work_and_waits_for_it() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append(True)

    async def call() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await to_its_end(work())

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(call())
    assert done == [True]


async def test_a_time_limit_holds_afterwards() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append(True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await to_its_end(work())
    assert done == [True]


async def test_work_that_is_cancelled_itself_ends_who_waits() -> None:
    running = asyncio.ensure_future(asyncio.sleep(30))
    caller = asyncio.create_task(to_its_end(running))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, 5)
