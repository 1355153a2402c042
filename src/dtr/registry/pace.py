"""A limit on how fast work beside the requests reads and writes, so that pushes and pulls do not notice it."""

from __future__ import annotations

import asyncio


class Pace:
    """At most so many bytes a second, of all together who share it."""

    def __init__(self, rate: int | None) -> None:
        """`rate` is in bytes a second; None: no limit."""
        self._rate = rate
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until `size` more bytes may move."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        starts_at = max(self._free_at, now)
        self._free_at = starts_at + size / self._rate
        if starts_at > now:
            await asyncio.sleep(starts_at - now)
