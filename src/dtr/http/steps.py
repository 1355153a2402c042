"""
Large bodies between socket and file, or two sockets, in steps that threads do: RFC 9112, section 7, and TLS.

A step borrows the socket of a connection (`dtr.http.protocol`) as long as bytes flow, for at most one turn. It
never waits long for its peer, or for a store: that is the event loop's task.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dtr.http.bodies import BodyCut, BodyMalformed, BodyTooLarge, BodyWriteFailed

if TYPE_CHECKING:
    import socket

    from dtr.http.bodies import File, Hasher
    from dtr.storage.driver import Lent

_THREADS = 16
_BUFFER = 1024 * 1024
"""What a thread receives at once: with 64 KiB a push costs a third more, and a pull from a store half more."""
_CIPHERTEXT = 256 * 1024
_STORE_AT_ONCE = 512 * 1024
"""A thread that waits for a store is woken when so much is there: for each packet it would work all the time."""
_TURN = 64 * 1024 * 1024
_LONGEST_LINE = 4096
_LARGEST_TRAILER = 8192
_MANY_RUNS = 64
_MOST_WIRE = 64
"""Bytes of TLS for each one in it, after the first MiB. Records of a single byte have less than 30."""
_MOST_WORDS = 64 * 1024
"""Bytes that TLS itself may have to say while a body arrives: some thousand new keys."""
_PATIENCE_SECONDS = 0.05
"""So long in all a step waits for its peer: with this for each byte, a few slow peers would hold all threads."""
_GATHER_SECONDS = 0.002
"""After a pause of the sender: a little more arrives, and is worth one read instead of many."""
_GATHERED_FROM = 4 * 1024 * 1024
"""But not in the beginning of a body: a small one would take twice its time for a read or two."""
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


_pool: ThreadPoolExecutor | None = None
_buffers = threading.local()


def threads() -> ThreadPoolExecutor:
    """Those that do the steps of this process."""
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


class Stopped(Exception):
    """The request was cancelled, or the connection closed, while a step ran."""


# --- framing --------------------------------------------------------------------------------------------------


class Length:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, buffer: bytes | bytearray, size: int) -> tuple[list[memoryview], int | None]:
        """Runs of payload in the first `size` bytes; where the body ends in them, None: not yet."""
        taken = min(self._left, size)
        self._left -= taken
        return [memoryview(buffer)[:taken]] if taken else [], taken if self._left == 0 else None


class Chunked:
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
        """See `Length.feed`. Raises BodyMalformed."""
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


class Wire:
    """What a step needs of a connection: bytes from and to a socket that does not block, maybe through TLS."""

    def __init__(self, sock: socket.socket, tls: TLS | None) -> None:
        self.socket = sock
        self._tls = tls
        self._unsent = memoryview(b"")

    def receive(self, buffer: bytearray) -> int:
        """Bytes into `buffer`; 0 at the end. Raises BlockingIOError, OSError."""
        if self._tls is None:
            return self.socket.recv_into(buffer)
        return self._tls.receive(self.socket, buffer)

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Some bytes of a file; how many it took. Raises BlockingIOError, OSError."""
        if self._tls is None:
            return os.sendfile(self.socket.fileno(), descriptor, offset, count)
        self.flush()  # before more is read
        data = _buffer("plain", _CIPHERTEXT)
        size = os.preadv(descriptor, [memoryview(data)[: min(count, _CIPHERTEXT)]], offset)
        if size:
            self.send(memoryview(data)[:size])
        return size

    def send(self, data: memoryview) -> int:
        """Some bytes; how many it took. Raises BlockingIOError, OSError."""
        if self._tls is None:
            return self.socket.send(data)
        self.flush()
        data = data[:_CIPHERTEXT]
        self._unsent = memoryview(self._tls.encrypt(data))
        with contextlib.suppress(BlockingIOError):
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Send what was encrypted. Raises BlockingIOError, OSError."""
        while self._unsent:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]


class Step:
    """
    A transfer in turns.

    `run` says how one ended: True: done; None: its time is over; False: the peer is slow, or the store.
    """

    event = select.POLLIN

    def __init__(self) -> None:
        self.stop = False
        self.moved = 0
        self.awaited: Lent | None = None
        """The store that it waits for, instead of its peer."""
        self.waited = 0.0
        """Seconds in which it waited for that."""

    def run(self, wire: Wire) -> bool | None:
        """Move bytes for one turn. Raises Stopped, and what `go` raises."""
        turn = self.moved + _TURN
        patience = _PATIENCE_SECONDS
        while self.moved < turn:
            if self.stop:
                raise Stopped
            try:
                if self.go(wire):
                    return True
            except BlockingIOError:
                since = time.monotonic()
                if patience <= 0 or not self._wait(wire, patience):
                    return False
                self.rest()
                patience -= time.monotonic() - since
        return None

    def end(self) -> None:
        """Raise Stopped, where it runs, as soon as it looks."""
        self.stop = True

    def _wait(self, wire: Wire, seconds: float) -> bool:
        """Whether what blocks becomes ready in time."""
        poll = select.poll()
        if self.awaited is None:
            poll.register(wire.socket, self.event)
            return bool(poll.poll(seconds * 1000))
        since = time.monotonic()
        poll.register(self.awaited.socket, select.POLLIN)
        is_ready = bool(poll.poll(seconds * 1000))
        self.waited += time.monotonic() - since
        return is_ready

    def go(self, wire: Wire) -> bool:
        """Move some bytes; whether these were the last. Raises BlockingIOError."""
        raise NotImplementedError

    def rest(self) -> None:
        """The peer is back."""


class ReceiveStep(Step):
    """The body of a request, to a file. It begins with `arrived`, the bytes that came with the head."""

    def __init__(
        self, framing: Length | Chunked, file: File, hasher: Hasher, limit: int | None, arrived: bytes
    ) -> None:
        super().__init__()
        self._framing = framing
        self._file = file
        self._descriptor: int | None = None
        self._hasher = hasher
        self._limit = limit
        self.arrived = arrived
        self.written = 0
        self.behind = b""
        """What arrived behind the body."""

    @property
    def has_begun(self) -> bool:
        """Whether the file is open; before, nothing is taken."""
        return self._descriptor is not None

    def open(self) -> None:
        """Open the file. Raises what that raises."""
        self._descriptor = self._file.open()

    def run(self, wire: Wire) -> bool | None:
        """See `Step`. Raises BodyError."""
        if not self.has_begun:
            self.open()
        arrived, self.arrived = self.arrived, b""
        if arrived and self.take(arrived, len(arrived)):
            return True
        return super().run(wire)

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
        self._file.arrived(self.written)
        return True

    def go(self, wire: Wire) -> bool:
        """See `Step`. Raises BodyError."""
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
        """See `Step`."""
        if self.written >= _GATHERED_FROM:
            time.sleep(_GATHER_SECONDS)

    def _write(self, runs: list[memoryview]) -> None:
        assert self._descriptor is not None
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


class SendStep(Step):
    """The body of an answer, from a file."""

    event = select.POLLOUT

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._offset = offset
        self._left = count

    def go(self, wire: Wire) -> bool:
        """See `Step`. Raises OSError, also when the file is shorter than it should be."""
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


class RelayStep(Step):
    """The body of an answer, from the socket of a store."""

    event = select.POLLOUT

    def __init__(self, lent: Lent) -> None:
        super().__init__()
        self._lent = lent
        self._unsent = memoryview(lent.first)

    def run(self, wire: Wire) -> bool | None:
        """See `Step`. What was received and not sent is kept: the buffer is the thread's."""
        try:
            done = super().run(wire)
        finally:
            self._unsent = memoryview(bytes(self._unsent))
        if done is False and self.awaited is not None:
            self.awaited.expect(1)  # who waits next hears of each byte: the store may be very slow
        return done

    def go(self, wire: Wire) -> bool:
        """See `Step`. Raises OSError of the client, StorageError of the store."""
        if self._unsent:
            self.awaited = None
            sent = wire.send(self._unsent)
            self._unsent = self._unsent[sent:]
            self.moved += sent
        elif self._lent.left:
            self.awaited = self._lent
            buffer = memoryview(_buffer("received", _BUFFER))
            try:
                self._unsent = buffer[: self._lent.receive(buffer)]
            except BlockingIOError:
                self._lent.expect(_STORE_AT_ONCE)
                raise
        else:
            self.awaited = None
            wire.flush()
            return True
        return False


# --- TLS ------------------------------------------------------------------------------------------------------


class TLS:
    """A connection's TLS, between memory BIOs."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._wire = 0  # bytes that arrived
        self._payload = 0  # what was in them
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_open = False

    def feed(self, data: bytes | memoryview) -> None:
        """Encrypted bytes that arrived. Raises ssl.SSLError: for a long time there is hardly anything in them."""
        self._wire += len(data)
        if self._wire > _BUFFER and self._payload * _MOST_WIRE < self._wire:
            raise ssl.SSLError("the records are too small")
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
            data = self._object.read(65536)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        self._payload += len(data)
        return data

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
                self.feed(memoryview(scratch)[:arrived])
                if self._outgoing.pending > _MOST_WORDS:
                    raise ssl.SSLError("it asks for too many new keys") from None
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if size == 0:
                break
            filled += size
            self._payload += size
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
