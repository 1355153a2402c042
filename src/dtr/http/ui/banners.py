"""
What every page says on top: the most serious alerts, for those who see the system.

A page does not wait for them: it shows what was known, and has it looked up again when that is old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from dtr.http.api import meta

if TYPE_CHECKING:
    from dtr.http.ui.visit import Visit

_log = logging.getLogger("dtr.ui")

_GOOD_FOR_SECONDS = 15.0
_FORGOTTEN_SECONDS = 120.0
"""Alerts that could not be looked up again for so long are not shown any more."""
_MOST = 2


class Banners:
    """The alerts that this process knows of."""

    def __init__(self) -> None:
        self._found: list[meta.AlertRecord] = []
        self._looked_at = -_FORGOTTEN_SECONDS
        self._asked_at = -_FORGOTTEN_SECONDS
        self._asking: asyncio.Task[None] | None = None

    def shown(self, visit: Visit) -> list[meta.AlertRecord]:
        """At most two for this visitor, the most serious first; on the overview none: there they all are."""
        if not visit.may("SEE_SYSTEM") or visit.path == "/system":
            return []
        now = time.monotonic()
        is_old = now - max(self._looked_at, self._asked_at) > _GOOD_FOR_SECONDS
        if is_old and (self._asking is None or self._asking.done()):
            self._asked_at = now
            self._asking = asyncio.create_task(self._look(visit))
        if now - self._looked_at > _FORGOTTEN_SECONDS:
            return []
        return self._found[:_MOST]

    @staticmethod
    def is_read_only(visit: Visit) -> bool:
        """Whether to say that nothing can be pushed to somebody who sees no alerts."""
        return (
            visit.account is not None
            and not visit.may("SEE_SYSTEM")
            and visit.rooms.live.current.read_only_registry
        )

    async def _look(self, visit: Visit) -> None:
        try:
            self._found = await visit.call(meta.get_alerts)
            self._looked_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever it was, the page is there without
            _log.warning("alerts not read", extra={"reason": str(error)})
