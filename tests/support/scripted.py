"""A server that answers what a test says, over HTTP or TLS, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from dtr.pki import Certificate

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Scripted:
    """Where it is, and what came: method and path with query, and the header `Authorization`."""

    url: str
    asked: list[tuple[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    handler: Handler | None = None

    def count(self, method: str, part: str) -> int:
        """How many requests there were of a method, with this in the path."""
        return sum(one == method and part in path for one, path in self.asked)


@contextlib.asynccontextmanager
async def scripted(
    handler: Handler | None = None, certificate: Certificate | None = None, *, host: str = "127.0.0.1"
) -> AsyncIterator[Scripted]:
    """A server, until the end of the block; `handler` can be set later, too."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        made.asked.append((request.method, request.raw_path))
        made.authorizations.append(request.headers.get("Authorization"))
        assert made.handler is not None
        return await made.handler(request)  # type: ignore[arg-type]

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=context)
    await site.start()
    server = site._server
    assert server is not None
    port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    made = Scripted(f"{'http' if context is None else 'https'}://{host}:{port}", handler=handler)
    try:
        yield made
    finally:
        await runner.cleanup()


def cut(request: web.BaseRequest) -> None:
    """End the connection, whatever was said on it."""
    assert request.transport is not None
    request.transport.abort()
