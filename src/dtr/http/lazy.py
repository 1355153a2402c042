"""
Applications that are built when they are first wanted.

What the API and the pages need is half as much again as all else that a worker has in memory, and no client that
pushes and pulls needs it. It is imported in a thread, beside the requests of the registry.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dtr import cycles

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.http.types import ASGIApp, Receive, Scope, Send


class Lazy:
    """An ASGI application that is built, in a thread, by its first request."""

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        """What `build` raises, the request raises; the next one tries again."""
        self._build = build
        self._built: ASGIApp | None = None
        self._building = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        application = self._built or await self._prepared()
        await application(scope, receive, send)

    async def _prepared(self) -> ASGIApp:
        """Build it, if nobody did."""
        async with self._building:
            if self._built is None:
                cycles.put_off()
                try:
                    self._built = await asyncio.to_thread(self._build)
                finally:
                    cycles.settle()
            return self._built
