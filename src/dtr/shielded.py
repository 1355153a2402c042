"""
Work that comes to its end, although whoever waits for it is cancelled.

A thread cannot be stopped, and no unit of work is half done. They are waited for, and the cancellation is raised
afterwards, however often it came: then nothing uses any more what the caller closes.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def to_its_end(work: Awaitable[T]) -> T:
    """Await it."""
    running = asyncio.ensure_future(work)
    outcome = _Outcome()
    running.add_done_callback(outcome.take)
    result: T = await _of(outcome)
    return result


async def in_thread(
    function: Callable[[*Ts], T],
    *arguments: *Ts,
    threads: concurrent.futures.ThreadPoolExecutor | None = None,
    stop: Callable[[], object] | None = None,
) -> T:
    """
    Call it in one of the `threads`; by default in one of the event loop's.

    `stop` is called when the caller is cancelled: it may make the end come sooner.
    """
    loop = asyncio.get_running_loop()
    outcome = _Outcome(stop)
    if threads is None:
        loop.run_in_executor(None, function, *arguments).add_done_callback(outcome.take)
    else:
        threads.submit(function, *arguments).add_done_callback(partial(_tell, loop, outcome))
    result: T = await _of(outcome)
    return result


class _Outcome(asyncio.Future[Any]):
    """What became of the work. It cannot be cancelled: a task that waits for it is, when it is there."""

    def __init__(self, stop: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._stop = stop

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - the signature of asyncio's
        if self._stop is not None:
            self._stop()
        return False

    def take(self, done: asyncio.Future[Any] | concurrent.futures.Future[Any]) -> None:
        if done.cancelled():
            super().cancel()
        elif (error := done.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(done.result())


async def _of(outcome: _Outcome) -> Any:
    try:
        return await outcome
    except asyncio.CancelledError:
        if not outcome.cancelled():
            outcome.exception()  # nobody hears of it
        raise


def _tell(loop: asyncio.AbstractEventLoop, outcome: _Outcome, done: concurrent.futures.Future[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(outcome.take, done)
