"""
The server of one process: listeners, connections, and their orderly end.

It runs uvicorn's protocol with what `dtr.http.protocol` adds, without uvicorn's own server: several addresses,
with and without TLS, in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from dtr.http.protocol import Limits, protocol_factory

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from dtr.http.types import ASGIApp

_log = logging.getLogger("dtr.http")
_CUT_SECONDS = 5.0
"""So long what was cut may take to notice."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens, and the context of its TLS; None: plain HTTP."""

    socket: socket.socket
    tls: ssl.SSLContext | None = None


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
        self._limits = limits or Limits()
        self._state = ServerState()
        self._config = Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(self._limits.keep_alive_seconds),
        )
        self._config.load()

    async def run(self, stop: asyncio.Event, started: Any = None) -> None:
        """
        Serve until `stop` is set, then let running requests end, at most for the drain time.

        `started` is called when all addresses are served.
        """
        loop = asyncio.get_running_loop()
        self._tell_time()
        servers = [
            await loop.create_server(
                protocol_factory(self._config, self._state, listener.tls, self._limits), sock=listener.socket
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
        for connection in list(self._state.connections):
            connection.shutdown()
        running = set(self._state.tasks)
        if running:
            _log.info("draining", extra={"requests": len(running), "seconds": self._drain_seconds})
            _, late = await asyncio.wait(running, timeout=self._drain_seconds)
            for task in late:
                task.cancel()
            if late:
                _log.warning("requests were cut", extra={"requests": len(late)})
                await asyncio.wait(late, timeout=_CUT_SECONDS)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    async def _keep_telling_time(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._tell_time()

    def _tell_time(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
