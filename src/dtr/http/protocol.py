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
import errno
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
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from dtr.http.bodies import (
    IS_ENDING,
    IS_GONE,
    MISDIRECTED,
    RECEIVE_FILE,
    SEND_FILE,
    BodyCut,
    BodyMalformed,
    BodyTooLarge,
    BodyWriteFailed,
    Hasher,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

_THREADS = 16
_BUFFER = 1024 * 1024
"""What a receiving thread reads at once: with 64 KiB a push costs a third more."""
_CIPHERTEXT = 256 * 1024
_UNSENT = 64 * 1024
"""Of a file in the kernel's buffer, beside what is on its way: more of it is out of the processor's cache when it
is read. What is on its way is as much as ever, so that long lines stay full (Linux, TCP_NOTSENT_LOWAT)."""
_TURN = 64 * 1024 * 1024
_HELD_FROM = 256 * 1024
_LARGEST_HEAD = 64 * 1024
_LONGEST_LINE = 4096
_LARGEST_TRAILER = 8192
_MANY_RUNS = 64
_LINGER_BYTES = 16 * 1024 * 1024
_PATIENCE_SECONDS = 0.05
"""So long in all a step waits for its peer: with this for each byte, a few slow peers would hold all threads."""
_GATHER_SECONDS = 0.002
"""After a pause of the sender: a little more arrives, and is worth one read instead of many."""
_SMALL = 64 * 1024
_MANY_PIPELINED = 64
_CLOCK_TICK = 0.001
_NEVER = float("inf")
_IDLE, _HEAD, _BODY = "between messages", "in a head", "in a body"
_FRAMING = frozenset({b"connection", b"transfer-encoding"})
_SPECIAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"host"})
_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)
_PEER_ERRORS = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})
"""What a connection may die of, beside what Python calls `ConnectionError` and `TimeoutError`."""
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

    def allowance(self, size: int) -> float:
        """How long `size` bytes may take."""
        return self.grace_seconds + size / self.lowest_rate


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

    def is_ready(self, event: int, seconds: float) -> bool:
        """Whether the socket becomes ready in time."""
        self._poll.register(self.socket, event)
        return bool(self._poll.poll(seconds * 1000))

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
        patience = _PATIENCE_SECONDS
        while self.moved < turn:
            if self.stop:
                raise _Stopped
            try:
                if self.go(wire):
                    return True
            except BlockingIOError:
                since = time.monotonic()
                if patience <= 0 or not wire.is_ready(self.event, patience):
                    return False
                self.rest()
                patience -= time.monotonic() - since
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
                raise OSError("the file is shorter than it should be")
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


# --- connections ----------------------------------------------------------------------------------------------


class _Transport(asyncio.Transport):
    """
    What uvicorn takes for the connection's transport.

    What is written in one turn of the loop goes out together: the head of an answer and its body would be two
    system calls, each of which may wake the client. It encrypts where there is TLS, and closes with care. What is
    written when it closes goes nowhere.
    """

    def __init__(
        self, protocol: _Protocol, raw: asyncio.Transport, tls: _TLS | None, context: ssl.SSLContext | None
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._raw = raw
        self._tls = tls
        self._context = context
        self._closing = False
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self.is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._context if name == "sslcontext" else self._raw.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing() or not data:
            return
        if not self._unsent:
            self._protocol.loop.call_soon(self.flush)
        self._unsent.append(bytes(data))
        self._unsent_size += len(data)
        if self._unsent_size >= _SMALL:
            self.flush()

    def flush(self) -> None:
        """Send what was written."""
        if not self._unsent:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent = []
        self._unsent_size = 0
        if self._raw.is_closing():
            return
        if self._tls is None:
            self._raw.write(data)
            return
        try:
            self._raw.write(self._tls.encrypt(memoryview(data)))
        except ssl.SSLError:
            self._raw.abort()

    def end_tls(self) -> None:
        """It was none."""
        self._tls = self._context = None

    def pause_reading(self) -> None:
        self.is_paused = True
        if not self.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        self.is_paused = False
        if self.is_closing():
            return
        if self._tls is None:
            self._raw.resume_reading()
        else:
            # First what the TLS object still holds: no event of the socket announces that, and more from the
            # socket would only pile up before it.
            self._protocol.loop.call_soon(self._protocol.decrypt)

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def close(self) -> None:
        if not self.is_closing():
            self.flush()
            self._closing = True
            self._protocol.take_leave()

    def abort(self) -> None:
        self._raw.abort()


class _Flow(FlowControl):
    """Waits for a client to take what was written, but not for ever."""

    def __init__(self, protocol: _Protocol, transport: _Transport, raw: asyncio.Transport, limits: Limits) -> None:
        super().__init__(transport)
        self._protocol = protocol
        self._raw = raw
        self._limits = limits

    async def drain(self) -> None:
        try:
            async with asyncio.timeout(self._limits.allowance(self._raw.get_write_buffer_size())):
                await super().drain()
        except TimeoutError:
            self._protocol.reset()


class _Held:
    """The body of a request, which waits for somebody to take it."""

    def __init__(self, framing: _Length | _Chunked, length: int | None, keep_alive: bool) -> None:
        self.data = b""
        """What arrived with the head."""
        self.framing = framing
        self.length = length
        self.keep_alive = keep_alive
        """Whether the connection goes on when the body was read."""
        self.is_taken = False


class _Cycle(RequestResponseCycle):
    """
    A request and its answer, as in uvicorn, with a short way for the usual answer.

    That is one whose head gives the length of its body, and whose body comes in one piece or from a file.
    """

    async def send(self, message: Any) -> None:
        """Write a part of the answer."""
        if not (self._write_head(message) if not self.response_started else self._write_whole_body(message)):
            await super().send(message)  # which knows the other cases, and refuses what is none

    def is_gone(self) -> bool:
        """The extension `IS_GONE`."""
        if self.transport.is_closing():
            self.disconnected = True  # uvicorn does not miss its answer
        return self.disconnected

    def _write_head(self, message: Any) -> bool:
        """
        Whether it was a usual head, and is written.

        Header names are ours and in lower case. Values are checked all at once: none holds the end of a line.
        """
        if message["type"] != "http.response.start" or self.disconnected or self.flow.write_paused:
            return False
        headers = [*self.default_headers, *message.get("headers", ())]
        lines = [STATUS_LINE[message["status"]]]
        length = None
        for name, value in headers:
            if name == b"content-length":
                length = value
                continue  # it comes last
            if name in _FRAMING:
                return False
            lines += (name, b": ", value, b"\r\n")
        head = b"".join(lines)
        is_clean = head.count(b"\n") == head.count(b"\r") == len(headers) and b"\0" not in head
        if length is None or not length.isdigit() or not is_clean:
            return False
        self.response_started = True
        self.waiting_for_100_continue = False
        self.expected_content_length = int(length)
        self.chunked_encoding = False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"%bcontent-length: %b\r\n%b" % (head, length, end))
        return True

    def _write_whole_body(self, message: Any) -> bool:
        """Whether it was the whole body, and is written."""
        body = message.get("body", b"")
        if (
            message.get("more_body")
            or len(body) != self.expected_content_length
            or self.chunked_encoding
            or self.response_complete
            or self.disconnected
            or self.flow.write_paused
            or self.scope["method"] == "HEAD"
            or message["type"] != "http.response.body"
        ):
            return False
        self.transport.write(body)
        self.expected_content_length = 0
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


class _Protocol(HttpToolsProtocol):
    """
    A connection.

    - While no request runs, a clock does: each state has a deadline. While one runs, the step, the reading of the
      body, or the writing of the answer has its limit.
    - Reading is paused while a step runs, so that nothing else touches the socket's bytes or the TLS object.
    - Until its body was read, a request closes the connection, however it is answered.
    """

    def __init__(self, config: Config, state: ServerState, context: ssl.SSLContext | None, limits: Limits) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self._context = context
        self._tls = _TLS(context) if context else None
        self._transport: _Transport = None  # type: ignore[assignment]  # until the connection is made
        self._raw: asyncio.Transport = None  # type: ignore[assignment]  # until the connection is made
        self._is_fresh = True  # nothing arrived yet
        self._is_misdirected = False
        self._ends = False
        self._phase = _IDLE
        self._waits = False  # for the first byte of a further request
        self._begun = b""  # the beginning of a head
        self._head_size = 0
        self._length: bytes | None = None
        self._encoding: bytes | None = None
        self._has_host = False
        self._may_hold = False
        self._held: _Held | None = None
        self._behind = b""  # what arrived behind a body that a step read
        self._running: Any = None  # the cycle whose application runs; `cycle` is the newest
        self._step: _Step | None = None
        self._awaited: asyncio.Event | None = None
        self._lingers: int | None = None
        self._deadline = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    # --- bytes come in ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._raw = transport
        self._transport = _Transport(self, transport, self._tls, self._context)
        super().connection_made(self._transport)
        self.flow = _Flow(self, self._transport, transport, self._limits)
        self._set_deadline(self._limits.head_seconds if self._tls is None else self._limits.handshake_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers is not None:
            self._lingers -= len(data)
            if self._lingers < 0:
                self._raw.abort()
            return
        if self._is_fresh:
            self._is_fresh = False
            is_hello = data[:1] == b"\x16"
            if is_hello and self._tls is None:
                self._refuse_hello()
                return
            if not is_hello and self._tls is not None:
                # Docker pushes lists over plain HTTP to whatever is on a loopback address: the application tells
                # it where to go.
                self._tls = None
                self._transport.end_tls()
                self.scheme = "http"
                self._is_misdirected = True
                self._set_deadline(self._limits.head_seconds)
        if self._tls is None:
            self._received(data)
            return
        self._tls.feed(data)
        if self._tls.is_open or self._shake_hands():
            self.decrypt()

    def _refuse_hello(self) -> None:
        text = b"Client sent a TLS hello to an HTTP server.\n"
        self._raw.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(text), text)
        )
        self._phase = _HEAD  # more of it may arrive
        self.transport.close()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; whether it is complete."""
        assert self._tls is not None
        try:
            done = self._tls.handshake()
        except ssl.SSLError:
            self.transport.close()
            return False
        self._raw.write(self._tls.pending())
        if done:
            self._set_deadline(self._limits.head_seconds)
        return done

    def decrypt(self) -> None:
        """Hand on what TLS holds, until reading is paused."""
        assert self._tls is not None
        transport = self.transport
        while not transport.is_closing() and not transport.is_paused:  # type: ignore[attr-defined]  # it is ours
            try:
                data = self._tls.read()
            except ssl.SSLError:
                data = b""
            if data is None:
                self._raw.write(self._tls.pending())  # TLS has words of its own: a warning, a new key
                self._raw.resume_reading()
                return
            if not data:
                transport.close()
                return
            self._received(data)

    def _received(self, data: bytes) -> None:
        if self._behind or self._begun:
            data = self._behind + self._begun + data
            self._behind = self._begun = b""
        if not data or self.transport.is_closing():
            return
        cycle: Any = self.cycle  # None before the first request
        if data[:1] == b"P" and self._phase is _IDLE and (cycle is None or cycle.response_complete):
            self._received_upload(data)
        else:
            self._parse(data)
        if self._waits:  # no head is complete: it has begun, or an unread body goes on
            self._waits = False
            self._set_deadline(self._limits.head_seconds)

    def _received_upload(self, data: bytes) -> None:
        """A request that may have a large body: the parser gets its head alone."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > _LARGEST_HEAD:
                self._phase = _HEAD
                self.send_400_response("The head of the request is too long.")
            else:
                self._begun = data
            return
        self._may_hold = True
        # Nobody has to accept an upgrade (RFC 9110, section 7.8), and the parser would lose the body.
        self._parse(_UPGRADE.sub(b"x-upgrade", data[:end]))
        self._may_hold = False
        if self._held is not None:
            self._held.data = data[end:]
            self.flow.pause_reading()
        elif len(data) > end:
            self._parse(data[end:])

    def _parse(self, data: bytes) -> None:
        """What uvicorn does with bytes, but for its warning: bad requests are daily business."""
        if self.transport.is_closing():
            return
        was_in_head = self._phase is _HEAD
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._encoding is not None or self._length not in {None, b"0"}:
                self._phase = _BODY
                self.send_400_response("Upgrades are not supported.")
            else:
                self._begin_parser()
                self._parse(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if was_in_head and self._phase is _HEAD:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD:
                self.send_400_response("The head of the request is too long.")

    def _begin_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        newest: Any = self.cycle
        if self._phase is _BODY:
            may_answer = not newest.response_started and not self.pipeline
        else:
            self._phase = _HEAD
            may_answer = newest is None or newest.response_complete
        if may_answer:
            super().send_400_response(msg)
        else:  # it would be taken for a part of another answer
            self.transport.close()
        self._disconnect()

    # --- messages ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _HEAD
        self._head_size = 0
        self._length = self._encoding = None
        self._has_host = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not _HEAD:
            return  # a trailer, which must not change what was decided by the head
        name = name.lower()
        if name in _SPECIAL:
            self._note(name, value)
        self.headers.append((name, value))

    def _note(self, name: bytes, value: bytes) -> None:
        """A header that concerns the connection. Two lengths, or both kinds, the parser refuses itself."""
        if name == b"content-length":
            self._length = value
        elif name == b"transfer-encoding":
            # The parser would let "gzip, chunked" pass.
            if value.strip().lower() != b"chunked":
                raise httptools.HttpParserError("transfer-encoding is not chunked")
            self._encoding = value
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        else:
            if self._has_host:
                raise httptools.HttpParserError("there is more than one host")
            self._has_host = True

    def on_headers_complete(self) -> None:
        parser = self.parser
        version = parser.get_http_version()
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1
        elif version != "1.1" or not self._has_host:  # RFC 9112, section 3.2
            raise httptools.HttpParserError("this is not HTTP/1.1")
        if len(self.pipeline) >= _MANY_PIPELINED:
            raise httptools.HttpParserError("there are too many requests at once")
        scope = self._complete_scope(version)  # what it refuses is still a head
        self._phase = _BODY
        self._waits = False
        self._deadline = _NEVER
        before: _Cycle | None = self.cycle  # type: ignore[assignment]  # None before the first
        cycle = self.cycle = _Cycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue,
            version == "1.1" and parser.should_keep_alive(),
            self.on_response_complete,
        )
        extensions: dict[str, Any] = {
            SEND_FILE: partial(self._send_file, cycle),
            IS_GONE: cycle.is_gone,
            IS_ENDING: self._is_ending,
        }
        if self._is_misdirected:
            extensions[MISDIRECTED] = True
        scope["extensions"] = extensions
        if self._encoding is not None:
            self._prepare_body(cycle, None, extensions)
        elif self._length is not None and (length := int(self._length)):
            self._prepare_body(cycle, length, extensions)
        if before is None or before.response_complete:
            self._running = cycle
            self._start_asgi_task(cycle, self.app)
        else:  # it waits for the answers to those before it
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _complete_scope(self, version: str) -> Any:
        """What the application is told of the request."""
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        url = self.url
        if url[:1] == b"/" and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path, parsed.query or b""
        path = raw_path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        return scope

    def _prepare_body(self, cycle: Any, length: int | None, extensions: dict[str, Any]) -> None:
        """Make a request ready whose body is so long; None: it comes in chunks."""
        if self._may_hold and (length is None or length >= _HELD_FROM or self.expect_100_continue):
            self._held = _Held(_Chunked() if length is None else _Length(length), length, cycle.keep_alive)
            # Until the body was read, nothing can come behind it.
            cycle.keep_alive = False
            extensions[RECEIVE_FILE] = partial(self._receive_file, cycle)
        read = cycle.receive
        received = 0
        waited = 0.0

        async def receive() -> Any:
            nonlocal received, waited
            if self._held is not None and cycle is self.cycle:
                self._let_go(cycle)
            if not cycle.more_body:
                return await read()
            started = self.loop.time()
            try:
                async with asyncio.timeout(self._patience(received, waited)):
                    message = await read()
            except TimeoutError:
                self.reset()
                return {"type": "http.disconnect"}
            waited += self.loop.time() - started
            received += len(message.get("body", b""))
            return message

        cycle.receive = receive  # bounded in time, and aware of what is held

    def on_message_complete(self) -> None:
        self._phase = _IDLE
        super().on_message_complete()

    def _let_go(self, cycle: Any) -> None:
        """The application reads the body itself: the parser gets it after all."""
        held = self._held
        assert held is not None
        if held.is_taken:
            raise RuntimeError("the body was taken before")
        self._held = None
        cycle.keep_alive = held.keep_alive
        if held.data:
            self._parse(held.data)

    def on_response_complete(self) -> None:
        """As in uvicorn, but for the clock and what lies behind a body."""
        self.server_state.total_requests += 1
        self._transport.flush()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
        else:
            self._waits = True
            self._set_deadline(self._limits.keep_alive_seconds)
            if self._behind:
                self.loop.call_soon(self._received, b"")
        self.flow.resume_reading()

    # --- bytes to and from files ---

    async def _receive_file(self, cycle: Any, descriptor: int, *, hasher: Hasher, limit: int | None) -> int:
        held = self._held
        if held is None or held.is_taken or cycle is not self.cycle:
            raise RuntimeError("the body was taken before")
        if limit is not None and held.length is not None and held.length > limit:
            raise BodyTooLarge(0, f"more than {limit} bytes")
        held.is_taken = True
        if cycle.waiting_for_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._transport.flush()  # before a thread has the TLS object
            cycle.waiting_for_100_continue = False
        step = _Receive(held.framing, descriptor, hasher, limit)
        try:
            if not await self._take(step, held):
                await self._move(step)
        except _Stopped:
            raise BodyCut(step.written, "the connection was closed") from None
        # Not reached after an error: where the next request would begin, nobody knows.
        self._held = None
        self._phase = _IDLE
        self._behind = step.behind
        self._begin_parser()
        cycle.more_body = False
        cycle.keep_alive = held.keep_alive
        return step.written

    async def _take(self, step: _Receive, held: _Held) -> bool:
        """What arrived with the head; whether that is all."""
        data, held.data = held.data, b""
        if not data:
            return False
        if len(data) <= _SMALL and held.length is None and data.endswith(b"\r\n\r\n"):
            return step.take(data, len(data))  # small and there: no thread
        return bool(await self._in_thread(step, lambda: step.take(data, len(data))))

    async def _send_file(self, cycle: Any, descriptor: int, offset: int, count: int) -> int:
        step = _Send(descriptor, offset, count)
        if count and cycle.scope["method"] != "HEAD":
            if cycle.disconnected or self.transport.is_closing():
                return 0
            self.flow.pause_reading()
            self._transport.flush()
            self._raw.set_write_buffer_limits(0)
            try:
                await self.flow.drain()
                await self._move(step)
            except (ConnectionError, TimeoutError, ssl.SSLError, _Stopped, BodyCut):
                self._raw.abort()
                self._disconnect()
                return step.moved
            except OSError as error:
                self._raw.abort()
                self._disconnect()
                if error.errno in _PEER_ERRORS:
                    return step.moved
                raise
            if not self._raw.is_closing():
                self._raw.set_write_buffer_limits()
            cycle.expected_content_length -= count
        await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})
        return step.moved

    async def _move(self, step: _Step) -> None:
        """Take turns with a step until it is done. Raises BodyCut, _Stopped, and what the step raises."""
        if self.transport.is_closing():
            raise _Stopped
        sock = socket.socket(fileno=os.dup(self._raw.get_extra_info("socket").fileno()))
        wire = _Wire(sock, self._tls)
        started = self.loop.time()
        self._step = step
        try:
            if step.event == select.POLLOUT:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
            while True:
                done = await self._in_thread(step, lambda: step.run(wire))
                if done:
                    return
                if done is None:  # bytes may be in our own buffers: never wait for the socket now
                    continue
                patience = self._patience(step.moved, self.loop.time() - started)
                if not await self._is_ready(sock, step.event, patience):
                    self.reset()
                    raise BodyCut(getattr(step, "written", 0), "the client is too slow")
        finally:
            self._step = None
            sock.close()

    def _patience(self, moved: int, seconds: float) -> float:
        """How long to wait for a peer that moved so much in so many seconds."""
        return min(self._limits.stall_seconds, self._limits.allowance(moved) - seconds)

    async def _in_thread(self, step: _Step, work: Callable[[], bool | None]) -> bool | None:
        running = self.loop.run_in_executor(_threads(), work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # A cancelled wait does not stop the thread, and it uses a socket and a file of ours.
            step.stop = True
            while not running.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            running.exception()
            raise

    async def _is_ready(self, sock: socket.socket, event: int, seconds: float) -> bool:
        """Whether the socket becomes ready in time; also when the connection is lost meanwhile."""
        self._awaited = ready = asyncio.Event()
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
            self._awaited = None
            if event == select.POLLIN:
                self.loop.remove_reader(sock.fileno())
            else:
                self.loop.remove_writer(sock.fileno())
        return True

    # --- ends ---

    def _is_ending(self) -> bool:
        """The extension `IS_ENDING`."""
        return self._ends

    def shutdown(self) -> None:
        self._ends = True
        if self._held is not None:
            self._held.keep_alive = False
        super().shutdown()

    def take_leave(self) -> None:
        """
        Close, after everything was sent.

        To close with unread bytes would reset the connection, and the client might lose the answer: what still
        arrives of a message is read and dropped for a while.
        """
        if self._tls is not None:
            self._raw.write(self._tls.goodbye())
        if self._raw.is_closing():
            return
        if self._phase is _IDLE:
            size = self._raw.get_write_buffer_size()
            self._raw.close()
            if size:
                self._set_deadline(self._limits.allowance(size))
            return
        self._lingers = _LINGER_BYTES
        self._set_deadline(self._limits.linger_seconds)
        try:
            self._raw.write_eof()
            self._raw.resume_reading()
        except OSError:
            self._raw.abort()

    def reset(self) -> None:
        """Close at once: the kernel would go on feeding a peer that takes nothing."""
        if self.parser is not None:  # the connection is not lost yet, and the descriptor ours
            with contextlib.suppress(OSError):
                self._raw.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self._raw.abort()
        self._disconnect()

    def _disconnect(self) -> None:
        """Tell everybody that there is no connection any more."""
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        if self._step is not None:
            self._step.stop = True
        if self._awaited is not None:
            self._awaited.set()

    def _set_deadline(self, seconds: float) -> None:
        """Close the connection after so long. A timer that is set already looks again when it is over."""
        self._deadline = self.loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= self._deadline:
                return
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self.loop.call_at(self._timer_at, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        left = self._deadline - self.loop.time()
        if left <= _CLOCK_TICK:
            if self._phase is _IDLE and not self.transport.is_closing():
                self.transport.close()
            else:
                self.reset()
        elif self._deadline != _NEVER:
            self._set_deadline(left)
