"""
Who follows the log of a job: one look at the database for all of them, and so many at a time.

A watch looks every half second how it is with a job and how long its log is, as long as somebody follows. Whoever
does is woken when something changed, and reads the lines that they lack.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from msgspec import Struct

from dtr.http.api import jobs as api
from dtr.jobs import JobUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dtr.http.ui.visit import Visit

_LOOK_SECONDS = 0.5


class Look(Struct, frozen=True):
    """How it was with a job, and then with its log."""

    job: api.JobRecord
    last: int
    """The number of the last line; -1: there was none."""


class Watch:
    """One job, as seen by all who follow it."""

    def __init__(self) -> None:
        self.look: Look | None = None
        """None: nobody looked yet."""
        self.is_over = False
        """Nobody looks any more: the job is gone, or the database."""
        self.is_gone = False
        """The job is."""
        self.followers = 0
        self._changed = asyncio.Event()

    async def wait(self, seen: Look | None, seconds: float) -> None:
        """Wait until there is something else than what was `seen`, but not longer."""
        changed = self._changed
        if self.look is seen and not self.is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await changed.wait()

    async def run(self, visit: Visit, job: str) -> None:
        """Look again and again, in the name of who followed first."""
        try:
            while True:
                record = await visit.call(api.get_job, jobID=job)
                lines = await visit.call(api.get_job_logs, jobID=job, tail=1)
                assert isinstance(lines, list)
                look = Look(record, lines[-1].line_num if lines else -1)
                if look != self.look:
                    self.look = look
                    self._wake()
                await asyncio.sleep(_LOOK_SECONDS)
        except JobUnknown:
            self.is_gone = True
        finally:
            self.is_over = True
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Followers:
    """All who follow, in this process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._watches: dict[str, tuple[Watch, asyncio.Task[None]]] = {}

    @property
    def has_room(self) -> bool:
        """Whether there may be another one."""
        return sum(watch.followers for watch, _ in self._watches.values()) < self._most

    @contextlib.asynccontextmanager
    async def follow(self, visit: Visit, job: str) -> AsyncIterator[Watch]:
        """Follow a job as long as the block goes on."""
        watch, task = self._watches.get(job, (None, None))
        if watch is None or task is None or watch.is_over:
            watch = Watch()
            task = asyncio.create_task(watch.run(visit, job), name=f"watch job {job}")
            self._watches[job] = watch, task
        watch.followers += 1
        try:
            yield watch
        finally:
            watch.followers -= 1
            if not watch.followers:
                if self._watches.get(job, (None, None))[0] is watch:
                    del self._watches[job]
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):  # a lost database ends it, too
                    await task
