"""A way to a server on which things can happen."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

Carry: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry the bytes over, as they come, all of them: what waits goes with a connection that is cut."""
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def proxy(
    port: int, *, requests: Carry = carry, answers: Carry = carry, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """
    A loopback port that leads to the server at another one; with `tls`, TLS ends here.

    `requests` and `answers` carry the bytes of a connection, each until it returns; then the connection is cut.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: asyncio.Event) -> None:
        await _join(reader, writer, port, requests, answers, ended)

    async with _listening(connected, tls) as listens_at:
        yield listens_at


@dataclass
class ForwardProxy:
    """What ``HTTP_PROXY`` and ``HTTPS_PROXY`` name; it takes every host for this machine."""

    url: str
    seen: list[str] = field(default_factory=list)
    """The first line of each request: ``GET http://host:port/path HTTP/1.1``, ``CONNECT host:port HTTP/1.1``."""


@asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardProxy]:
    """A proxy that clients ask for other servers; each of its connections is for one request or one tunnel."""
    made = ForwardProxy("")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: asyncio.Event) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            line, _, fields = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            made.seen.append(line.decode())
            method, target, version = line.decode().split()
            server, _, path = target.removeprefix("http://").partition("/")
            ahead = b""
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                ahead = f"{method} /{path} {version}\r\nConnection: close\r\n".encode() + fields

            async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(ahead)
                await carry(reader, writer)

            await _join(reader, writer, int(server.rpartition(":")[2]), requests, carry, ended)

    async with _listening(connected, None) as listens_at:
        made.url = f"http://127.0.0.1:{listens_at}"
        yield made


@asynccontextmanager
async def _listening(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event], Awaitable[None]],
    tls: ssl.SSLContext | None,
) -> AsyncIterator[int]:
    """A loopback port whose connections `connected` has until they end, or the event is set."""
    connections = set()
    ended = asyncio.Event()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        try:
            await connected(reader, writer, ended)
        finally:
            _cut(writer)

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        ended.set()
        await asyncio.gather(*connections)
        await listening.wait_closed()


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    requests: Carry,
    answers: Carry,
    ended: asyncio.Event,
) -> None:
    """Carry a connection on to the server at `port`, until one of both sides ends."""
    carrying = [asyncio.create_task(ended.wait())]
    upstream = None
    with suppress(OSError):
        up_reader, upstream = await asyncio.open_connection("127.0.0.1", port)
        carrying.append(asyncio.create_task(_until_cut(requests(reader, upstream))))
        carrying.append(asyncio.create_task(_until_cut(answers(up_reader, writer))))
        await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
    for one in carrying:
        one.cancel()
    await asyncio.gather(*carrying, return_exceptions=True)
    if upstream is not None:
        _cut(upstream)


def _cut(writer: asyncio.StreamWriter) -> None:
    # One that has closed after it had sent what was left has forgotten its loop.
    with suppress(AttributeError):
        writer.transport.abort()


async def _until_cut(carrying: Awaitable[object]) -> None:
    with suppress(OSError):
        await carrying
