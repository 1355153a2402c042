"""
Applications that are built when they are first wanted.

The framework of the API and of the pages takes a while to import, so that happens beside the requests of the
registry, which do not need it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.http.types import ASGIApp, Receive, Scope, Send


class Lazy:
    """An ASGI application that is built, in a thread, when it is first wanted."""

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._built: ASGIApp | None = None
        self._building = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        application = self._built or await self.prepare()
        await application(scope, receive, send)

    async def prepare(self) -> ASGIApp:
        """Build it, if nobody did."""
        async with self._building:
            if self._built is None:
                self._built = await asyncio.to_thread(self._build)
            return self._built
