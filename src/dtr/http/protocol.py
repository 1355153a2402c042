"""
HTTP/1.1 connections on which large bodies move without the event loop.

A subclass of uvicorn's protocol. It offers the application two calls in ``scope["extensions"]``
(`dtr.http.bodies`): the request's body to a file, and the answer's body from a file. Threads of a bounded pool
do that in *steps*: a step borrows the socket as long as bytes flow, for at most one turn, and comes back. When
the peer gives or takes nothing, the event loop waits for it. So a thread is held only by a transfer that moves.

To take a body over exactly, uvicorn's parser is fed the head of such a request and nothing more; what arrived
with it is held. The first step begins with these bytes, and a new parser goes on behind the body. A parser in the
middle of a chunk could not tell where it stands.

TLS is done here, too, with memory BIOs: the TLS of asyncio and uvloop hides its buffers, and no thread could
join in. One thread at a time uses a connection's TLS object: while a step runs, reading is paused.

It leans on the inside of uvicorn, whose version is pinned: `RequestResponseCycle`, `FlowControl`, the parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dtr.http.bodies import (
    RECEIVE_FILE,
    SEND_FILE,
    BodyCut,
    BodyError,
    BodyMalformed,
    BodyTooLarge,
    BodyWriteFailed,
    Hasher,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

_log = logging.getLogger("dtr.http")

_THREADS = 16
_BUFFER = 1024 * 1024
"""What a receiving thread reads at once: with 64 KiB a push costs a third more."""
_CIPHERTEXT = 256 * 1024
_TURN = 64 * 1024 * 1024
_HELD_FROM = 256 * 1024
_LARGEST_HEAD = 64 * 1024
_LONGEST_LINE = 4096
_LARGEST_TRAILER = 8192
_MANY_RUNS = 64
_LINGER_BYTES = 16 * 1024 * 1024
_IDLE_SECONDS = 0.05
_GATHER_SECONDS = 0.002
"""After a pause of the sender: a little more arrives, and is worth one read instead of many."""
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may take, in seconds and bytes per second."""

    stall_seconds: float = 60
    """Without a single byte."""
    grace_seconds: float = 30
    """On top of what the lowest rate allows."""
    lowest_rate: float = 1024
    head_seconds: float = 30
    """For the head of a request."""
    handshake_seconds: float = 10
    keep_alive_seconds: float = 75
    linger_seconds: float = 5
    """For a client to read an answer that came before its body was read."""


def protocol_factory(
    config: Config, state: ServerState, tls: ssl.SSLContext | None, limits: Limits
) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each connection of one listener."""
    return lambda: _Protocol(config, state, tls, limits)


_pool: ThreadPoolExecutor | None = None
_buffers = threading.local()


def _threads() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool a process, made after it was forked
    if _pool is None:
        _pool = ThreadPoolExecutor(_THREADS, "transfer")
    return _pool


def _buffer(name: str, size: int) -> bytearray:
    """The buffer of the calling thread."""
    made: bytearray | None = getattr(_buffers, name, None)
    if made is None:
        made = bytearray(size)
        setattr(_buffers, name, made)
    return made


class _Stopped(Exception):
    """The request was cancelled, or the connection closed, while a step ran."""


# --- framing --------------------------------------------------------------------------------------------------


class _Length:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, buffer: bytes | bytearray, size: int) -> tuple[list[memoryview], int | None]:
        """Runs of payload in the first `size` bytes; where the body ends in them, None: not yet."""
        taken = min(self._left, size)
        self._left -= taken
        return [memoryview(buffer)[:taken]] if taken else [], taken if self._left == 0 else None


class _Chunked:
    """
    A chunked body: RFC 9112, section 7.1.

    Strict, because whoever reads a length differently than a proxy before us can be made to see a request that
    the proxy did not.
    """

    def __init__(self) -> None:
        self._left = 0
        self._state = "size"  # size, data, end of data, trailer
        self._line = b""
        self._trailer = 0
        self._wire = 0
        self._payload = 0

    def feed(self, buffer: bytes | bytearray, size: int) -> tuple[list[memoryview], int | None]:
        """See `_Length.feed`. Raises BodyMalformed."""
        view = memoryview(buffer)
        runs: list[memoryview] = []
        position = 0
        self._wire += size
        while position < size:
            if self._state == "data":
                taken = min(self._left, size - position)
                runs.append(view[position : position + taken])
                position += taken
                self._left -= taken
                self._payload += taken
                if self._left == 0:
                    self._state = "end of data"
                continue
            newline = buffer.find(b"\n", position, size)
            end = size if newline < 0 else newline + 1
            self._line += buffer[position:end]
            position = end
            if len(self._line) > _LONGEST_LINE:
                raise BodyMalformed(0, "a line between chunks is too long")
            if newline < 0:
                break
            line, self._line = self._line, b""
            if self._end_of_line(line):
                return runs, position
        if self._wire > _BUFFER and self._payload * 4 < self._wire:
            raise BodyMalformed(0, "the chunks are too small")
        return runs, None

    def _end_of_line(self, line: bytes) -> bool:
        """Whether the body ends with this line."""
        if not line.endswith(b"\r\n"):
            raise BodyMalformed(0, "a line between chunks does not end with CRLF")
        line = line[:-2]
        if self._state == "size":
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BodyMalformed(0, "a chunk has no size")
            self._left = int(match[1], 16)
            self._state = "data" if self._left else "trailer"
        elif self._state == "end of data":
            if line:
                raise BodyMalformed(0, "a chunk is longer than its size")
            self._state = "size"
        else:
            self._trailer += len(line)
            if self._trailer > _LARGEST_TRAILER:
                raise BodyMalformed(0, "the trailer is too long")
            return not line
        return False


# --- steps ----------------------------------------------------------------------------------------------------


class _Wire:
    """What a step needs of a connection: bytes from and to a socket that does not block, maybe through TLS."""

    def __init__(self, sock: socket.socket, tls: _TLS | None) -> None:
        self.socket = sock
        self._tls = tls
        self._unsent = memoryview(b"")
        self._poll = select.poll()

    def is_ready(self, event: int) -> bool:
        """Whether the socket becomes ready before the peer counts as slow."""
        self._poll.register(self.socket, event)
        return bool(self._poll.poll(_IDLE_SECONDS * 1000))

    def receive(self, buffer: bytearray) -> int:
        """Bytes into `buffer`; 0 at the end. Raises BlockingIOError, OSError."""
        if self._tls is None:
            return self.socket.recv_into(buffer)
        return self._tls.receive(self.socket, buffer)

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Some bytes of a file; how many it took. Raises BlockingIOError, OSError."""
        if self._tls is None:
            return os.sendfile(self.socket.fileno(), descriptor, offset, count)
        self.flush()
        data = _buffer("plain", _CIPHERTEXT)
        size = os.preadv(descriptor, [memoryview(data)[: min(count, _CIPHERTEXT)]], offset)
        if size:
            self._unsent = memoryview(self._tls.encrypt(memoryview(data)[:size]))
            with contextlib.suppress(BlockingIOError):
                self.flush()
        return size

    def flush(self) -> None:
        """Send what was encrypted. Raises BlockingIOError, OSError."""
        while self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]


class _Step:
    """A transfer in turns. `run` says how one ended: True: done; None: its time is over; False: slow peer."""

    event = select.POLLIN

    def __init__(self) -> None:
        self.stop = False
        self.moved = 0

    def run(self, wire: _Wire) -> bool | None:
        turn = self.moved + _TURN
        while self.moved < turn:
            if self.stop:
                raise _Stopped
            try:
                if self.go(wire):
                    return True
            except BlockingIOError:
                if not wire.is_ready(self.event):
                    return False
                self.rest()
        return None

    def go(self, wire: _Wire) -> bool:
        """Move some bytes; whether these were the last. Raises BlockingIOError."""
        raise NotImplementedError

    def rest(self) -> None:
        """The peer is back."""


class _Receive(_Step):
    """The body of a request, to a file."""

    def __init__(self, framing: _Length | _Chunked, descriptor: int, hasher: Hasher, limit: int | None) -> None:
        super().__init__()
        self._framing = framing
        self._descriptor = descriptor
        self._hasher = hasher
        self._limit = limit
        self.written = 0
        self.behind = b""
        """What arrived behind the body."""

    def take(self, buffer: bytes | bytearray, size: int) -> bool:
        """Bytes that arrived; whether the body is complete. Raises BodyError."""
        try:
            runs, end = self._framing.feed(buffer, size)
        except BodyMalformed as error:
            error.written = self.written
            raise
        if runs:
            self._write(runs)
        if end is None:
            return False
        self.behind = bytes(memoryview(buffer)[end:size])
        return True

    def go(self, wire: _Wire) -> bool:
        buffer = _buffer("received", _BUFFER)
        try:
            size = wire.receive(buffer)
        except BlockingIOError:
            raise
        except OSError as error:
            raise BodyCut(self.written, "the connection broke") from error
        if size == 0:
            raise BodyCut(self.written, "the client went away")
        self.moved += size
        return self.take(buffer, size)

    def rest(self) -> None:
        time.sleep(_GATHER_SECONDS)

    def _write(self, runs: list[memoryview]) -> None:
        total = sum(map(len, runs))
        if self._limit is not None and self.written + total > self._limit:
            raise BodyTooLarge(self.written, f"more than {self._limit} bytes")
        if len(runs) > _MANY_RUNS:
            runs = [memoryview(b"".join(runs))]
        for run in _written(self._descriptor, runs, self.written):
            self._hasher.update(run)
            self.written += len(run)


def _written(descriptor: int, runs: list[memoryview], before: int) -> list[memoryview]:
    """Write all runs, and give them back. Raises BodyWriteFailed: none of them is in the file."""
    left = list(runs)
    while left:
        try:
            count = os.writev(descriptor, left)
        except OSError as error:
            # File and hash agree: what the hash has not seen is taken back.
            with contextlib.suppress(OSError):
                done = sum(map(len, runs)) - sum(map(len, left))
                os.ftruncate(descriptor, os.lseek(descriptor, -done, os.SEEK_CUR))
            raise BodyWriteFailed(before, error) from error
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = left[0][count:]
    return runs


class _Send(_Step):
    """The body of an answer, from a file."""

    event = select.POLLOUT

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._offset = offset
        self._left = count

    def go(self, wire: _Wire) -> bool:
        if self._left:
            sent = wire.send_file(self._descriptor, self._offset, min(self._left, _TURN))
            if sent == 0:
                raise EOFError("the file is shorter than it should be")
            self._offset += sent
            self._left -= sent
            self.moved += sent
        if self._left:
            return False
        wire.flush()
        return True


# --- TLS ------------------------------------------------------------------------------------------------------


class _TLS:
    """A connection's TLS, between memory BIOs."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_open = False

    def feed(self, data: bytes) -> None:
        """Encrypted bytes that arrived."""
        self._incoming.write(data)

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete. Raises ssl.SSLError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.is_open = True
        return True

    def read(self) -> bytes | None:
        """Decrypted bytes; empty at the end, None: more has to arrive. Raises ssl.SSLError."""
        try:
            return self._object.read(65536)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def receive(self, sock: socket.socket, buffer: bytearray) -> int:
        """Fill `buffer` as far as bytes are there; 0 at the end. Raises BlockingIOError, OSError."""
        read: Any = self._object.read  # into a buffer it gives a number
        view = memoryview(buffer)
        filled = 0
        while filled < len(view):
            try:
                size = read(len(view) - filled, view[filled:])
            except ssl.SSLWantReadError:
                scratch = _buffer("ciphertext", _CIPHERTEXT)
                try:
                    arrived = sock.recv_into(scratch)
                except BlockingIOError:
                    if filled:
                        break
                    raise
                if arrived == 0:
                    break
                self._incoming.write(memoryview(scratch)[:arrived])
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if size == 0:
                break
            filled += size
        return filled

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """What to send for `data`."""
        view = memoryview(data)
        while view:
            view = view[self._object.write(view) :]
        return self._outgoing.read()

    def pending(self) -> bytes:
        """What TLS itself has to send."""
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """What to send before closing."""
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()
        return self._outgoing.read()


class _TLSTransport(asyncio.Transport):
    """What uvicorn takes for the connection's transport: it encrypts."""

    def __init__(self, protocol: _Protocol, raw: asyncio.Transport, tls: _TLS, context: ssl.SSLContext) -> None:
        super().__init__()
        self._protocol = protocol
        self._raw = raw
        self._tls = tls
        self._context = context
        self.is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._context if name == "sslcontext" else self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._raw.is_closing() and data:
            try:
                self._raw.write(self._tls.encrypt(memoryview(data)))
            except ssl.SSLError:
                self._raw.abort()

    def pause_reading(self) -> None:
        self.is_paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self.is_paused = False
        if not self._raw.is_closing():
            self._raw.resume_reading()
            # No event of the socket announces what the TLS object still holds.
            self._protocol.loop.call_soon(self._protocol.decrypt)

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def close(self) -> None:
        if not self._raw.is_closing():
            self._raw.write(self._tls.goodbye())
            self._raw.close()

    def write_eof(self) -> None:
        if not self._raw.is_closing():
            self._raw.write(self._tls.goodbye())
            self._raw.write_eof()

    def abort(self) -> None:
        self._raw.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()


# --- connections ----------------------------------------------------------------------------------------------


class _Held:
    """The body of a request that waits for somebody to take it."""

    def __init__(self, data: bytes, framing: _Length | _Chunked, length: int | None, keep_alive: bool) -> None:
        self.data = data
        self.framing = framing
        self.length = length
        self.keep_alive = keep_alive


class _LingeringTransport:
    """
    The transport of a request whose body nobody has read yet.

    Closing with unread bytes would reset the connection, and the client might lose the answer.
    """

    def __init__(self, protocol: _Protocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._protocol.linger()


class _Protocol(HttpToolsProtocol):
    def __init__(self, config: Config, state: ServerState, context: ssl.SSLContext | None, limits: Limits) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self._context = context
        self._tls = _TLS(context) if context else None
        self._raw: asyncio.Transport = None  # type: ignore[assignment]  # until the connection is made
        self._head: bytes | None = None  # the beginning of a request's head
        self._in_message = False
        self._length: bytes | None = None
        self._encoding: bytes | None = None
        self._may_hold = False
        self._holding: _Held | None = None
        self._behind = b""
        self._lingers: int | None = None
        self._step: _Step | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- bytes come in ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._raw = transport
        if self._tls is not None and self._context is not None:
            super().connection_made(_TLSTransport(self, transport, self._tls, self._context))
            self._set_timer(self._limits.handshake_seconds)
        else:
            super().connection_made(transport)
            self._set_timer(self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        if self._step is not None:
            self._step.stop = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._tls is None:
            self._received(data)
            return
        if not self._tls.is_open and not self._shake_hands(data):
            return
        if self._tls.is_open and data:
            self._tls.feed(data)
        self.decrypt()

    def _shake_hands(self, data: bytes) -> bool:
        """Take bytes of a handshake; whether it is complete."""
        assert self._tls is not None
        if self._head is None and data[:1] != b"\x16":
            self._say_plainly(b"Client sent an HTTP request to an HTTPS server.\n")
            return False
        self._head = b""  # the first byte was looked at
        self._tls.feed(data)
        try:
            done = self._tls.handshake()
        except ssl.SSLError:
            self._raw.write(self._tls.pending())
            self._raw.close()
            return False
        self._raw.write(self._tls.pending())
        if not done:
            return False
        self._head = None
        self._set_timer(self._limits.head_seconds)
        self.decrypt()
        return False

    def decrypt(self) -> None:
        """Hand on what TLS holds, until reading is paused."""
        assert self._tls is not None
        transport = self.transport
        while not transport.is_closing() and not transport.is_paused:  # type: ignore[attr-defined]  # it is ours
            try:
                data = self._tls.read()
            except ssl.SSLError:
                self._raw.abort()
                return
            if data is None:
                return
            if not data:
                transport.close()
                return
            self._received(data)

    def _say_plainly(self, text: bytes) -> None:
        self._raw.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(text), text)
        )
        self._raw.close()

    def _received(self, data: bytes) -> None:
        if self._lingers is not None:
            self._lingers -= len(data)
            if self._lingers < 0:
                self._raw.abort()
            return
        if self._head is not None:
            data, self._head = self._head + data, None
        cycle: Any = self.cycle  # None before the first request
        idle = not self._in_message and (cycle is None or cycle.response_complete)
        if not (idle and data[:1] == b"P"):
            if data[:1] == b"\x16" and not self._in_message:
                self._say_plainly(b"Client sent a TLS hello to an HTTP server.\n")
                return
            self._parse(data)
            return
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > _LARGEST_HEAD:
                self.send_400_response("The head of the request is too long.")
                return
            self._head = data
            self._unset_keepalive_if_required()
            if self._timer is None:
                self._set_timer(self._limits.head_seconds)
            return
        self._may_hold = True
        self._parse(data[: end + 4])
        self._may_hold = False
        if self._holding is not None:
            self._holding.data = data[end + 4 :]
            self.flow.pause_reading()
        elif len(data) > end + 4 and self.parser is not None:
            self._parse(data[end + 4 :])

    def _parse(self, data: bytes) -> None:
        """What uvicorn does with bytes, but for its warning: bad requests are daily business."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.send_400_response("Upgrades are not supported.")
        except (httptools.HttpParserError, UnicodeDecodeError):
            if not self.transport.is_closing():
                self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self._length = self._encoding = None

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._length = value
        elif name == b"transfer-encoding":
            # The parser would let "gzip, chunked" pass.
            if self._encoding is not None or value.strip().lower() != b"chunked":
                raise httptools.HttpParserError("transfer-encoding is not chunked")
            self._encoding = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._timer is not None:
            self._set_timer(None)
        super().on_headers_complete()
        cycle = self.cycle
        extensions: dict[str, Any] = {SEND_FILE: lambda *what: self._send_file(cycle, *what)}
        self.scope["extensions"] = extensions
        length = int(self._length) if self._length else 0
        has_body = self._encoding is not None or length > 0
        if not has_body:
            return
        original = cycle.receive
        if self._may_hold and (self._encoding is not None or length >= _HELD_FROM or self.expect_100_continue):
            framing = _Length(length) if self._encoding is None else _Chunked()
            self._holding = _Held(b"", framing, length if self._encoding is None else None, cycle.keep_alive)
            # Until the body was read, nothing can come behind it.
            cycle.keep_alive = False
            cycle.transport = _LingeringTransport(self, self.transport)  # type: ignore[assignment]  # all that is used
            extensions[RECEIVE_FILE] = lambda descriptor, **how: self._receive_file(cycle, descriptor, **how)

        async def receive() -> Any:
            if self._holding is not None and cycle is self.cycle:
                self._let_go(cycle)
            if not cycle.more_body or cycle.body:
                return await original()
            try:
                async with asyncio.timeout(self._limits.stall_seconds):
                    return await original()
            except TimeoutError:
                return {"type": "http.disconnect"}

        cycle.receive = receive  # type: ignore[method-assign]  # bounded in time, and aware of what is held

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def _let_go(self, cycle: Any) -> None:
        """The application reads the body itself: the parser gets it after all."""
        held, self._holding = self._holding, None
        assert held is not None
        cycle.keep_alive = held.keep_alive
        cycle.transport = self.transport
        if held.data:
            self._parse(held.data)

    # --- bytes to and from files ---

    async def _receive_file(self, cycle: Any, descriptor: int, *, hasher: Hasher, limit: int | None) -> int:
        held, self._holding = self._holding, None
        if held is None or cycle is not self.cycle:
            raise RuntimeError("the body was taken before")
        if limit is not None and held.length is not None and held.length > limit:
            self._holding = held
            raise BodyTooLarge(0, f"more than {limit} bytes")
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        step = _Receive(held.framing, descriptor, hasher, limit)
        try:
            done: bool | None = False
            if held.data:
                if len(held.data) <= 65536 and held.length is None and held.data.endswith(b"\r\n\r\n"):
                    done = step.take(held.data, len(held.data))  # small and there: no thread
                else:
                    done = await self._in_thread(step, lambda: step.take(held.data, len(held.data)))
            if not done:
                await self._move(step)
        except BodyError:
            # The answer closes the connection: where the next request would begin, nobody knows.
            raise
        except _Stopped:
            raise BodyCut(step.written, "the connection was closed") from None
        self._behind = step.behind
        self._in_message = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        cycle.more_body = False
        cycle.keep_alive = held.keep_alive
        cycle.transport = self.transport
        return step.written

    async def _send_file(self, cycle: Any, descriptor: int, offset: int, count: int) -> None:
        if cycle.disconnected:
            return
        if cycle.scope["method"] != "HEAD":
            self.flow.pause_reading()  # the TLS object is for the step alone
            self._raw.set_write_buffer_limits(0)
            if self._raw.get_write_buffer_size():
                await self.flow.drain()
            try:
                await self._move(_Send(descriptor, offset, count))
            except (OSError, ssl.SSLError, _Stopped, BodyCut):
                cycle.disconnected = True
                self._raw.abort()
                return
            except EOFError as error:
                self._raw.abort()
                raise OSError(str(error)) from error
            finally:
                self._raw.set_write_buffer_limits()
            cycle.expected_content_length -= count
        await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _move(self, step: _Step) -> None:
        """Take turns with a step until it is done."""
        sock = socket.socket(fileno=os.dup(self._raw.get_extra_info("socket").fileno()))
        wire = _Wire(sock, self._tls)
        started = self.loop.time()
        self._step = step
        try:
            while True:
                done = await self._in_thread(step, lambda: step.run(wire))
                if done:
                    return
                if done is None:  # bytes may be in our own buffers: never wait for the socket now
                    continue
                allowed = self._limits.grace_seconds + step.moved / self._limits.lowest_rate
                left = min(self._limits.stall_seconds, allowed - (self.loop.time() - started))
                if left <= 0 or not await self._is_ready(sock, step.event, left):
                    # Otherwise the kernel would go on feeding a peer that takes nothing.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._raw.abort()
                    raise BodyCut(getattr(step, "written", 0), "the client is too slow")
        finally:
            self._step = None
            sock.close()

    async def _in_thread(self, step: _Step, work: Callable[[], bool | None]) -> bool | None:
        running = self.loop.run_in_executor(_threads(), work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # A cancelled wait does not stop the thread, and it uses a socket and a file of ours.
            step.stop = True
            await asyncio.wait([running])
            running.exception()
            raise

    async def _is_ready(self, sock: socket.socket, event: int, seconds: float) -> bool:
        ready = asyncio.Event()
        if event == select.POLLIN:
            self.loop.add_reader(sock.fileno(), ready.set)
        else:
            self.loop.add_writer(sock.fileno(), ready.set)
        try:
            async with asyncio.timeout(seconds):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            if event == select.POLLIN:
                self.loop.remove_reader(sock.fileno())
            else:
                self.loop.remove_writer(sock.fileno())
        return True

    # --- ends ---

    def on_response_complete(self) -> None:
        if self._behind and not self.transport.is_closing():
            # Before what arrives when reading goes on.
            data, self._behind = self._behind, b""
            self.loop.call_soon(self._received, data)
        super().on_response_complete()

    def linger(self) -> None:
        """Close, but let the client read the answer although its body was not read."""
        if self._raw.is_closing() or self._lingers is not None:
            return
        self._lingers = _LINGER_BYTES
        self._holding = None
        with contextlib.suppress(OSError, NotImplementedError):
            self.transport.write_eof()
        self.flow.resume_reading()
        self._set_timer(self._limits.linger_seconds)

    def shutdown(self) -> None:
        if self._holding is not None:
            self._holding.keep_alive = False
        super().shutdown()

    def _set_timer(self, seconds: float | None) -> None:
        """Close the connection after so long; None: no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        if not self._raw.is_closing():
            self._raw.close()
