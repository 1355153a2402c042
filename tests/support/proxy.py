"""A way to a server on which things can happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

Carry: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry the bytes over, as they come."""
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


@asynccontextmanager
async def proxy(port: int, *, requests: Carry = carry, answers: Carry = carry) -> AsyncIterator[int]:
    """
    A loopback port that leads to the server at another one.

    `requests` and `answers` carry the bytes of a connection, each until it returns; then the connection is cut.
    """
    connections = set()
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        writers = [writer]
        carrying = [asyncio.create_task(ended.wait())]
        with suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(up_writer)
            carrying.append(asyncio.create_task(_until_cut(requests(reader, up_writer))))
            carrying.append(asyncio.create_task(_until_cut(answers(up_reader, writer))))
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
        for one in carrying:
            one.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
        for one in writers:
            one.transport.abort()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        ended.set()
        await asyncio.gather(*connections)
        await listening.wait_closed()


async def _until_cut(carrying: Awaitable[object]) -> None:
    with suppress(OSError):
        await carrying
