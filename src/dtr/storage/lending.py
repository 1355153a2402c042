"""
What a store on the network answers of an object, and its connection, lent to a thread for the rest of it.

The request is made as any other, by aiohttp: with its pool, proxies, certificates and other attempts. Once the
head of the answer is there, the connection may be lent (`Answer.lend`): the event loop reads nothing from it any
more, and a thread takes the rest of the body from the socket. After the last byte aiohttp is told that the body is
over, and keeps the connection for the next request.

Two methods of aiohttp's that are not of its interface are extended for that (`LendingConnector`). TLS begins on a
transport that is there already: what has to be paused is the one below TLS, and nobody gives that out.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import aiohttp

from dtr.storage.driver import PIECE_SIZE
from dtr.storage.errors import StorageError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from aiohttp.client_proto import ResponseHandler

_LARGEST_RECORD = 17 * 1024
"""More than TLS may hold of a record that is not complete (RFC 8446, section 5.2)."""

_below: WeakKeyDictionary[ResponseHandler, asyncio.Transport] = WeakKeyDictionary()
"""The transports below TLS."""


class LendingConnector(aiohttp.TCPConnector):
    """Makes connections that can be lent."""

    async def _wrap_create_connection(
        self, *args: Any, ssl: ssl.SSLContext | None = None, server_hostname: str | None = None, **kwargs: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, protocol = await super()._wrap_create_connection(*args, **kwargs)
        if ssl is None:
            return transport, protocol
        del server_hostname  # the request has it, too
        rest = {name: kwargs[name] for name in ("req", "timeout", "client_error") if name in kwargs}
        opened, protocol = await self._start_tls_connection(transport, **rest)
        return cast("asyncio.Transport", opened), protocol

    async def _start_tls_connection(
        self, underlying_transport: asyncio.Transport, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        context = self._get_ssl_context(req)
        assert context is not None
        context.sslobject_class = _Opened
        transport, protocol = await super()._start_tls_connection(underlying_transport, req, *args, **kwargs)
        if underlying_transport.get_extra_info("sslcontext") is None:  # else it is TLS to a proxy
            _below[protocol] = underlying_transport
        return transport, protocol


class _Opened(ssl.SSLObject):
    """TLS that gives out where its encrypted bytes go in."""

    incoming: ssl.MemoryBIO

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **kwargs: Any) -> _Opened:
        made: _Opened = super()._create(incoming, outgoing, **kwargs)  # type: ignore[misc]  # unknown to typeshed
        made.incoming = incoming
        return made


class Answer:
    """What a store answers to a request for an object. See `dtr.storage.driver.Fetched`."""

    def __init__(
        self,
        answer: aiohttp.ClientResponse,
        location: str,
        limited: Callable[[], AbstractAsyncContextManager[Any]],
        patience: float,
    ) -> None:
        """
        Of the object at `location`.

        `limited` is what reading must end in, and makes storage's own errors of others; `patience` is how many
        seconds the store may take for the next byte.
        """
        self.size = answer.content_length
        self._answer = answer
        self._location = location
        self._limited = limited
        self._patience = patience
        self._taken: list[bytes] = []
        self._lent: Loan | None = None
        self._below: asyncio.Transport | None = None

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """See `Fetched`."""
        left = self.size
        while left != 0:
            if self._taken:
                piece = self._taken.pop(0)
            else:
                async with self._limited():
                    piece = await self._answer.content.read(PIECE_SIZE)
            if not piece:
                break
            left = None if left is None else left - len(piece)
            yield piece
        if left:  # an answer of unknown length says itself where it ends
            raise StorageUnavailable(f"{self._location} ended {left} bytes too early")

    async def lend(self) -> Loan | None:
        """See `Fetched`."""
        connection, content = self._answer.connection, self._answer.content
        protocol = None if connection is None else connection.protocol
        if protocol is None or self.size is None or not protocol.is_connected():
            return None
        transport = protocol.transport
        assert transport is not None
        tls = transport.get_extra_info("ssl_object")
        below = transport if tls is None else _below.get(protocol)
        if below is None or not (tls is None or isinstance(tls, _Opened)):
            return None
        async with self._limited():
            while piece := content.read_nowait():
                self._taken.append(piece)
        if content.is_eof():
            return None
        protocol.pause_reading()
        below.pause_reading()
        # What TLS has planned for the next turn of the loop may let the transport below go on.
        await asyncio.sleep(0)
        if not protocol.is_connected():
            raise StorageUnavailable(f"the connection broke in {self._location}")
        below.pause_reading()
        taken = b"".join(self._taken)
        self._taken.clear()
        sock = socket.socket(fileno=os.dup(below.get_extra_info("socket").fileno()))
        self._below = below
        self._lent = Loan(self._location, sock, tls, taken, self.size - len(taken), self._patience)
        return self._lent

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Answer, None]:
        """The same; at the end, the connection is taken back that was lent."""
        try:
            yield self
        finally:
            if self._lent is not None:
                self._take_back(self._lent)

    def _take_back(self, lent: Loan) -> None:
        lent.close()
        assert self._below is not None
        if lent.left or self._below.is_closing():
            self._below.abort()  # TLS would take leave at length
            self._answer.close()
        else:
            self._below.resume_reading()
            self._answer.content.feed_eof()  # which gives the connection back


class Loan:
    """The rest of an object, in a socket. See `dtr.storage.driver.Lent`."""

    def __init__(
        self, location: str, sock: socket.socket, tls: _Opened | None, first: bytes, left: int, patience: float
    ) -> None:
        """`sock` is closed with it; `left` bytes come behind the `first` ones."""
        self.first = first
        self.left = left
        self.patience = patience
        self.socket = sock
        self._location = location
        self._tls = tls
        self._expected = 1

    def receive(self, buffer: memoryview) -> int:
        """See `Lent`."""
        try:
            size = self._received(buffer[: self.left])
        except BlockingIOError:
            raise  # nothing is wrong
        except OSError as error:  # of TLS, too
            raise StorageUnavailable(f"{self._location}: {error}") from error
        if size == 0:
            raise StorageUnavailable(f"{self._location} ended {self.left} bytes too early")
        self.left -= size
        return size

    def late(self) -> StorageError:
        """See `Lent`."""
        return StorageUnavailable(f"nothing more came of {self._location} within {self.patience:g} s")

    def expect(self, size: int) -> None:
        """See `Lent` (Linux, SO_RCVLOWAT)."""
        size = max(1, min(size, self.left - _LARGEST_RECORD))
        if size != self._expected:
            self._expected = size
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def close(self) -> None:
        """Let go of the socket."""
        with suppress(OSError):
            self.expect(1)
        self.socket.close()

    def _received(self, buffer: memoryview) -> int:
        if self._tls is None:
            return self.socket.recv_into(buffer)
        read: Any = self._tls.read  # into a buffer it gives a number
        filled = 0
        while filled < len(buffer):
            try:
                size: int = read(len(buffer) - filled, buffer[filled:])
            except ssl.SSLWantReadError:
                if filled:
                    break
                # The buffer is empty: encrypted bytes may pass through it.
                arrived = self.socket.recv_into(buffer)
                if arrived == 0:
                    break
                self._tls.incoming.write(buffer[:arrived])
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if size == 0:
                break
            filled += size
        return filled
