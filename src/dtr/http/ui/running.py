"""
How many jobs run, for the link to them that is on every page of those who see the system.

A process asks once in a few seconds, when somebody looks at a page; whoever looks meanwhile is told the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from dtr.http.api import jobs

if TYPE_CHECKING:
    from dtr.http.ui.visit import Visit

_log = logging.getLogger("dtr.ui")

_GOOD_FOR_SECONDS = 3.0
_PATIENCE_SECONDS = 0.25
"""A page waits no longer for the number; it is there without, and the next one has it."""


class Running:
    """The jobs that run, as far as this process knows."""

    def __init__(self) -> None:
        self._count = 0
        self._asked_at = -_GOOD_FOR_SECONDS
        self._asking: asyncio.Task[None] | None = None

    async def look(self, visit: Visit) -> None:
        """Ask again before a page is made, if the visitor sees the number and it is old."""
        if not visit.may("SEE_SYSTEM"):
            return
        if visit.request.method not in {"GET", "HEAD"}:  # what is done now may start or stop one
            self._asked_at = -_GOOD_FOR_SECONDS
            return
        if visit.is_partial:  # it shows no links
            return
        now = time.monotonic()
        if now - self._asked_at > _GOOD_FOR_SECONDS and (self._asking is None or self._asking.done()):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask(visit), name="count running jobs")
        if self._asking is not None and not self._asking.done():
            await asyncio.wait({self._asking}, timeout=_PATIENCE_SECONDS)

    @property
    def count(self) -> int:
        """How many there were then."""
        return self._count

    async def _ask(self, visit: Visit) -> None:
        try:
            found = await visit.listing(jobs.list_jobs, state="running", limit=1)
            self._count = found.count or 0
        except Exception as error:  # noqa: BLE001 - whatever it was, the page is there without
            self._count = 0
            _log.warning("running jobs not counted", extra={"reason": str(error)})
