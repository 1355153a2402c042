"""HTTP byte by byte: a client that says what no library would, and a server process's inside without the rest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvloop

from dtr.http.bodies import (
    BodyError,
    BodyTooLarge,
    BodyWriteFailed,
    content_length,
    receive_to_file,
    send_from_file,
)
from dtr.http.server import Listener, Server
from dtr.http.transport import Limits

PATIENCE = 30.0
"""Seconds until a test gives up: no behaviour takes so long."""


def wait_until(condition: Callable[[], Any], seconds: float = 2 * PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def chunked(data: bytes, size: int = 32768) -> bytes:
    """`data` in chunks of a size."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """
    A whole request; underscores in header names stand for hyphens.

    A body gets a Content-Length unless `headers` frame it.
    """
    given = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    framed = {name.lower() for name in given} & {"content-length", "transfer-encoding"}
    if body and not framed:
        given["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@dataclass
class Opened:
    """The file of a body, which is open already."""

    descriptor: int
    sizes: list[int] = field(default_factory=list)
    """What arrived, as it was told."""

    def open(self) -> int:
        return self.descriptor

    def arrived(self, size: int) -> None:
        self.sizes.append(size)


@dataclass(frozen=True)
class Answer:
    """A response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool
    """Whether the body came to its end."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Peer:
    """One connection. With `tls` it does TLS itself, so that it can cut anywhere."""

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        shake_hands: bool = True,
        buffer: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost") if tls else None
        self._buffer = b""
        if self._tls is not None and shake_hands:
            self._shake_hands(self._tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- bytes ---

    def send(self, data: bytes) -> Self:
        if self._tls is None:
            self.socket.sendall(data)
            return self
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
            self.socket.sendall(self._outgoing.read())
        return self

    def send_raw(self, data: bytes) -> Self:
        """Bytes as they are, also where there is TLS."""
        self.socket.sendall(data)
        return self

    def encrypted(self, data: bytes) -> bytes:
        """What `send_raw` would have to send for `data`."""
        if self._tls is None:
            return data
        self._tls.write(data)
        return self._outgoing.read()

    def receive(self, size: int = 65536) -> bytes:
        """Some bytes; empty at the end, however it came."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        if self._tls is None:
            return self._receive_raw(size)
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                arrived = self._receive_raw(65536)
                if not arrived:
                    return b""
                self._incoming.write(arrived)
            except ssl.SSLError:  # a goodbye, none, or an alert
                return b""

    def unread(self, data: bytes) -> None:
        """Put back what was received."""
        self._buffer = data + self._buffer

    def _receive_raw(self, size: int) -> bytes:
        try:
            return self.socket.recv(size)
        except ConnectionError:
            return b""

    def read_all(self) -> bytes:
        """Everything until the end."""
        pieces = []
        while piece := self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    # --- answers ---

    def answer(self, *, to: str = "GET") -> Answer:
        """The next response, to a request with the method `to`. Raises ConnectionError: there is none."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.receive()
            if not piece:
                raise ConnectionError(f"the connection ended after {head!r}")
            head += piece
        head, _, self._buffer = head.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        pairs = [line.split(": ", 1) for line in lines[1:]]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header came twice: {head!r}"
        if to == "HEAD" or status < 200 or status in {204, 304}:
            return Answer(status, headers, b"", True)
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, *self._chunks())
        wanted = int(headers["content-length"])
        body = self._exactly(wanted)
        return Answer(status, headers, body, len(body) == wanted)

    def ask(self, data: bytes) -> Answer:
        """Send a request, and read its answer."""
        return self.send(data).answer(to=data.split(b" ", 1)[0].decode())

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size and (piece := self.receive(min(size, 1 << 20))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n") and (piece := self.receive(1)):
            line += piece
        return line

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while line := self._line():
            size = int(line, 16)
            body += self._exactly(size)
            if self._line() != b"\r\n":
                break
            if size == 0:
                return body, True
        return body, False

    # --- ends ---

    def is_ended(self) -> bool:
        """Wait for the server to close; whether it did so without a further byte."""
        return self.receive() == b""

    def finish_writing(self) -> Self:
        """FIN, without a word of TLS before."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def end(self) -> Self:
        """Say that nothing more comes, in TLS, too, and stay for the answers."""
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLWantReadError):  # it does not wait for the server's goodbye
                self._tls.unwrap()
            self.socket.sendall(self._outgoing.read())
        return self.finish_writing()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                arrived = self.socket.recv(65536)
                if not arrived:
                    raise ConnectionError("the server closed in the handshake") from None
                self._incoming.write(arrived)
            else:
                self.socket.sendall(self._outgoing.read())
                return


class Site:
    """
    A server in a thread of its own, with a small application.

    ``/file`` takes a body into a file and tells its size and digest, ``/plain`` takes it piece by piece,
    ``/early`` never reads it, ``/blob`` sends a file, and further paths are `routes`.
    """

    def __init__(
        self,
        directory: Path,
        tls: ssl.SSLContext,
        *,
        loop: str = "uvloop",
        limits: Limits | None = None,
        drain_seconds: float = 10.0,
    ) -> None:
        self.directory = directory
        self.limits = limits or Limits()
        self.drain_seconds = drain_seconds
        self.blob = directory / "blob"
        self.blob.write_bytes(b"")
        self.failures: list[str] = []
        """Of bodies that did not come as they should, by name."""
        self.gone = 0
        """Requests of which the client went away while it was answered."""
        self.problems: list[dict[str, Any]] = []
        """What the loop's exception handler was told."""
        self.routes: dict[str, Callable[..., Awaitable[None]]] = {
            "/file": self._file,
            "/plain": self._plain,
            "/early": self._early,
            "/blob": self._blob,
            "/stream": self._stream,
            "/": self._hello,
        }
        self.app: Callable[..., Awaitable[None]] = self._serve
        self._tls = tls
        self._loop_factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2)]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.plain_port, self.tls_port = (one.getsockname()[1] for one in self._sockets)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="site")
        self.server: Server

    def start(self) -> Self:
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def begin_stop(self) -> None:
        """What SIGTERM does."""
        if self._thread.is_alive():
            self.call(self._stop.set)

    def stop(self) -> None:
        self.begin_stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the server did not end"

    @property
    def connections(self) -> int:
        return len(self.server._state.connections)

    @property
    def tasks(self) -> int:
        return len(self.server._state.tasks)

    @property
    def unsent(self) -> list[int]:
        """What may wait in the kernel of each large body that is being sent, in bytes."""
        found = []
        for one in list(self.server._state.sending):
            with contextlib.suppress(OSError):  # it was closed in this moment
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT))
        return found

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in the server's thread."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(lambda _, context: self.problems.append(context))
            self._stop = asyncio.Event()
            listeners = [Listener(self._sockets[0]), Listener(self._sockets[1], self._tls)]

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await self.app(scope, receive, send)

            self.server = Server(app, listeners, drain_seconds=self.drain_seconds, limits=self.limits)
            await self.server.run(self._stop, self._started.set)

        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(main())

    # --- the application ---

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await self.routes[scope["path"]](scope, receive, send)

    async def _file(self, scope: Any, receive: Any, send: Any) -> None:
        """To a file; a query ``limit=N`` limits it."""
        query = scope["query_string"].decode()
        limit = int(query.removeprefix("limit=")) if query else None
        digest = hashlib.sha256()
        descriptor = os.open(self.directory, os.O_RDWR | os.O_TMPFILE)
        try:
            file = Opened(descriptor)
            size = await receive_to_file(scope, receive, file, hasher=digest, limit=limit)
            assert file.sizes == [size]
            assert os.fstat(descriptor).st_size == size
            stored = os.pread(descriptor, size, 0) if size <= 1 << 26 else b""
            if stored:
                assert hashlib.sha256(stored).digest() == digest.digest()
            await answer(send, 201, _received(size, digest, scope))
        except BodyError as error:
            self._check_written(descriptor, digest, error.written)
            self.failures.append(type(error).__name__)
            too_large = isinstance(error, BodyTooLarge)
            status = 413 if too_large else 507 if isinstance(error, BodyWriteFailed) else 400
            told = {"error": type(error).__name__, "written": error.written}
            await answer(send, status, json.dumps(told).encode())
        finally:
            os.close(descriptor)

    @staticmethod
    def _check_written(descriptor: int, digest: Any, written: int) -> None:
        """File and hash agree, whatever went wrong."""
        size = os.fstat(descriptor).st_size
        assert size == written
        assert hashlib.sha256(os.pread(descriptor, size, 0)).digest() == digest.digest()

    async def _plain(self, scope: Any, receive: Any, send: Any) -> None:
        digest, size, more = hashlib.sha256(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.failures.append("disconnect")
                return
            digest.update(message["body"])
            size += len(message["body"])
            more = message["more_body"]
        await answer(send, 201, _received(size, digest, scope))

    async def _early(self, scope: Any, _receive: Any, send: Any) -> None:
        status = int(scope["query_string"] or b"401")
        await answer(send, status, b"x" * 1000)

    async def _blob(self, scope: Any, _receive: Any, send: Any) -> None:
        """The query is ``OFFSET-COUNT``, or all of it."""
        query = scope["query_string"].decode()
        with self.blob.open("rb") as file:
            offset, count = map(int, query.split("-")) if query else (0, os.fstat(file.fileno()).st_size)
            await start(send, 200, count)
            try:
                await send_from_file(scope, send, file.fileno(), offset, count)
            except OSError as error:
                self.failures.append(str(error))
                return
        if scope["extensions"]["dtr.is_gone"]():
            self.gone += 1

    async def _stream(self, scope: Any, _receive: Any, send: Any) -> None:
        """As many pieces of 64 KiB as the query says."""
        pieces = int(scope["query_string"])
        await start(send, 200, pieces << 16)
        for _ in range(pieces):
            if scope["extensions"]["dtr.is_gone"]():
                self.gone += 1
                return
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
        await send({"type": "http.response.body"})

    async def _hello(self, scope: Any, _receive: Any, send: Any) -> None:
        await answer(send, 200, b"hello", method=scope["method"])


async def start(send: Any, status: int, length: int) -> None:
    headers = [(b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send: Any, status: int, body: bytes = b"", *, method: str = "GET") -> None:
    await start(send, status, len(body))
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def _received(size: int, digest: Any, scope: Any) -> bytes:
    length = content_length(scope)
    return json.dumps({"size": size, "sha256": digest.hexdigest(), "length": length}).encode()
