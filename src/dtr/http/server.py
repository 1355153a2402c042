"""
The server of one process: listeners, connections, and their orderly end.

Several addresses, with and without TLS, in one event loop; `dtr.http.protocol` is what a connection does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dtr.http.protocol import Shared, protocol_factory
from dtr.http.transport import Limits

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from dtr.http.types import ASGIApp

_log = logging.getLogger("dtr.http")
_CUT_SECONDS = 5.0
"""So long what was cut may take to notice."""
_LOOK_SECONDS = 0.1
_BACKLOG = 2048
_MOST_CONNECTIONS = 10_000
"""Each takes some 40 KiB with TLS."""
_DESCRIPTORS_OF_OURS = 200


class Listener(Struct, frozen=True):
    """A socket that listens, and the context of its TLS; None: plain HTTP."""

    socket: socket.socket
    tls: ssl.SSLContext | None = None


def _room() -> int:
    """For how many connections there are descriptors: each may need a second one of its socket, and a file."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(min(_MOST_CONNECTIONS, (descriptors - _DESCRIPTORS_OF_OURS) // 3), 1)


class Server:
    """Serves an ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        listeners: Sequence[Listener],
        *,
        drain_seconds: float = 30,
        limits: Limits | None = None,
    ) -> None:
        """`drain_seconds` is the time that running requests get when the server is told to end."""
        self._listeners = listeners
        self._drain_seconds = drain_seconds
        self._state = Shared(app, limits or Limits(), _room())

    async def run(self, stop: asyncio.Event, started: Any = None) -> None:
        """
        Serve until `stop` is set, then let running requests end, at most for the drain time.

        `started` is called when all addresses are served.
        """
        loop = asyncio.get_running_loop()
        self._tell_time()
        servers = [
            await loop.create_server(
                protocol_factory(self._state, listener.tls),
                sock=listener.socket,
                backlog=_BACKLOG,
            )
            for listener in self._listeners
        ]
        clock = asyncio.create_task(self._keep_telling_time())
        try:
            if started is not None:
                started()
            await stop.wait()
        finally:
            for server in servers:
                server.close()
            await self._drain()
            clock.cancel()

    async def _drain(self) -> None:
        if self._state.tasks:
            _log.info("draining", extra={"requests": len(self._state.tasks), "seconds": self._drain_seconds})
        if await self._is_quiet_within(self._drain_seconds):
            return
        _log.warning("requests are cut", extra={"requests": len(self._state.tasks)})
        for connection in list(self._state.connections):
            connection.transport.abort()
        # Transfers notice that, and keep what they have. What waits for something else is cancelled.
        if not await self._is_quiet_within(_CUT_SECONDS):
            for task in list(self._state.tasks):
                task.cancel()
            await self._is_quiet_within(_CUT_SECONDS)

    async def _is_quiet_within(self, seconds: float) -> bool:
        """Whether the last answer is written, and the last connection closed, in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause = 0.001
        while self._state.connections or self._state.tasks:
            # Also those that came since; a connection ends when its answer is complete.
            for connection in list(self._state.connections):
                connection.shutdown()
            if loop.time() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS)
        return True

    async def _keep_telling_time(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._tell_time()

    def _tell_time(self) -> None:
        self._state.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
