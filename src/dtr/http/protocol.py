"""
HTTP/1.1 connections on which large bodies move without the event loop.

The application is one of ASGI 3, and is offered more in ``scope["extensions"]`` (`dtr.http.bodies`): a small
answer at once, the request's body to a file, and the answer's body from a file or from the socket of a store.
Threads of a bounded pool move large bodies in *steps*: a step borrows the socket as long as bytes flow, for at
most one turn, and comes back. When the peer gives or takes nothing, or the store, the event loop waits for it. So
a thread is held only by a transfer that moves.

To take a body over exactly, the parser is fed the head of such a request and nothing more; what arrived with it is
held. The first step begins with these bytes, and a new parser goes on behind the body. A parser in the middle of a
chunk could not tell where it stands.

TLS is done here, too, with memory BIOs: the TLS of asyncio and uvloop hides its buffers, and no thread could
join in. One thread at a time uses a connection's TLS object: while a step runs, reading is paused.

A connection has one task, which runs the application for one request after the other, and goes on in the very call
that brings a request: most are answered before that call returns (`Doorbell`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import select
import socket
import ssl
import struct
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import httptools
from msgspec import Struct, field

from dtr.http.bodies import (
    ANSWER,
    IS_ENDING,
    IS_GONE,
    MISDIRECTED,
    RECEIVE_FILE,
    SEND_FILE,
    SEND_LENT,
    BodyCut,
    BodyTooLarge,
    File,
    Hasher,
)
from dtr.http.exchange import STATUS_LINES, Doorbell, Exchange
from dtr.http.steps import TLS, Chunked, Length, ReceiveStep, RelayStep, SendStep, Step, Stopped, Wire, threads
from dtr.http.transport import Flow, Limits, Transport
from dtr.shielded import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dtr.http.types import ASGIApp, Header
    from dtr.storage.driver import Lent

T = TypeVar("T")

_log = logging.getLogger("dtr.http")

_UNSENT, _UNSENT_OF_MANY = 64 * 1024, 2 * 1024 * 1024
"""
Of a file in the kernel's buffer, beside what is on its way: when one is sent, and when several are.

What does not wait long is still in the processor's cache when the client reads it. With several it is not anyway,
and the less often a thread is woken for one, the better. What is on its way is as much as ever, so that long lines
stay full (Linux, TCP_NOTSENT_LOWAT).
"""
_HELD_FROM = 256 * 1024
_LARGEST_HEAD = 64 * 1024
_LINGER_BYTES = 16 * 1024 * 1024
_SMALL = 64 * 1024
_MANY_PIPELINED = 64
_CLOCK_TICK = 0.001
_COMPLAINT_SECONDS = 60.0
_NEVER = float("inf")
_IDLE, _HEAD, _BODY = "between messages", "in a head", "in a body"
_SPECIAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"host"})
_OF_CONNECTION = frozenset({b"connection", b"proxy-connection", b"upgrade"})
_NOT_REMEMBERED = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
_LONGEST_REMEMBERED = 8192
_PLAIN_LINE = re.compile(rb"(GET|HEAD) (/[!-\"$-~]*) HTTP/1\.1")
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_UPGRADE = re.compile(rb"(?<=\r\n)upgrade(?=[ \t]*:)", re.IGNORECASE)
_PEER_ERRORS = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})
"""What a connection may die of, beside what Python calls `ConnectionError` and `TimeoutError`."""


class _Held:
    """The body of a request, which waits for somebody to take it."""

    def __init__(self, framing: Length | Chunked, length: int | None, keep_alive: bool) -> None:
        self.data = b""
        """What arrived with the head."""
        self.framing = framing
        self.length = length
        self.keep_alive = keep_alive
        """Whether the connection goes on when the body was read."""
        self.is_taken = False


class Shared(Struct):
    """What the connections of a server have in common."""

    app: ASGIApp
    limits: Limits
    most: int = 10_000
    """Connections at a time; for one more, one ends that says nothing."""
    connections: dict[Connection, None] = field(default_factory=dict)
    """In the order in which they came."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Those in which requests are answered at this moment."""
    date: bytes = b""
    """A line of every answer's head."""
    complained_at: float = -_NEVER
    sending: set[socket.socket] = field(default_factory=set)
    """Those to which large bodies are being sent."""

    def admit(self, connection: Connection) -> None:
        """
        One more. If they are too many, the oldest one that has no request ends; if there is none, the new one.

        Without descriptors there would be no files and no database: who only opens connections must not take all.
        """
        self.connections[connection] = None
        if len(self.connections) <= self.most:
            return
        ending = next(one for one in self.connections if one is connection or one.is_quiet())
        del self.connections[ending]
        ending.reset()
        if (moment := connection.loop.time()) > self.complained_at + _COMPLAINT_SECONDS:
            self.complained_at = moment
            _log.warning("too many connections", extra={"connections": self.most})

    @contextlib.contextmanager
    def sends(self, sock: socket.socket) -> Iterator[None]:
        """While a large body is sent: it bounds what waits in the kernel, of the one before, too."""
        self.sending.add(sock)
        try:
            self._bound(sock)
            yield
        finally:
            self.sending.discard(sock)
            self._bound()

    def _bound(self, *new: socket.socket) -> None:
        """Bound it for those that are `new`, and for one that is alone now, or not any more."""
        unsent = _UNSENT if len(self.sending) == 1 else _UNSENT_OF_MANY
        for one in self.sending if len(self.sending) <= 2 else new:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)


class Connection(asyncio.Protocol):
    """
    A connection.

    - While no request runs, a clock does: each state has a deadline. While one runs, the step, the reading of the
      body, or the writing of the answer has its limit.
    - Reading is paused while a step runs, so that nothing else touches the socket's bytes or the TLS object.
    - Until its body was read, a request closes the connection, however it is answered.
    """

    def __init__(self, shared: Shared, context: ssl.SSLContext | None) -> None:
        self.shared = shared
        self.loop = asyncio.get_running_loop()
        self._limits = shared.limits
        self._context = context
        self._tls = TLS(context) if context else None
        self.transport: Transport = None  # type: ignore[assignment]  # until the connection is made
        self.flow: Flow = None  # type: ignore[assignment]  # until the connection is made
        self._raw: asyncio.Transport = None  # type: ignore[assignment]  # until the connection is made
        self._is_lost = False
        self.is_half_closed = False  # the peer sends no more, and may wait for answers
        self._is_fresh = True  # nothing arrived yet
        self._is_misdirected = False
        self._ends = False
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._scheme = "http" if context is None else "https"
        # The message that arrives:
        self._parser: Any
        self._begin_parser()
        self._phase = _IDLE
        self._waits = False  # for the first byte of a further request
        self._begun = b""  # the beginning of a head
        self._barren = 0  # bytes of this head, or of its body's framing since the last piece of that
        self._has_payload = False
        self._url = b""
        self._headers: list[Header] = []
        self._length: bytes | None = None
        self._encoding: bytes | None = None
        self._has_host = False
        self._expects = False
        self._known_block: bytes | None = None
        self._known_headers: list[Header] = []
        self._may_hold = False
        self._held: _Held | None = None
        self._behind = b""  # what arrived behind a body that a step read
        # The requests, and what runs for them:
        self._newest: Exchange | None = None
        self._running: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._doorbell = Doorbell(self.loop)
        self._step: Step | None = None
        self._awaited: asyncio.Event | None = None
        self._lingers: int | None = None
        self._deadline = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    # --- bytes come in ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is no datagram's
        """A client has connected."""
        self._raw = transport
        self.transport = Transport(self, transport, self._tls)
        self.flow = Flow(self, self.transport, transport, self._limits)
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self.shared.admit(self)
        self._set_deadline(self._limits.head_seconds if self._tls is None else self._limits.handshake_seconds)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why, nobody has to know
        """It is gone."""
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.shared.connections.pop(self, None)
        self._disconnect()
        self.flow.resume_writing()
        self._doorbell.ring()  # the task ends

    def pause_writing(self) -> None:
        """It takes less than is written."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self.flow.resume_writing()

    def eof_received(self) -> bool:
        """It sends no more; whether the connection stays, for answers."""
        # With TLS it said so before (`decrypt`), or somebody cut the connection.
        return (self._tls is None or self.is_half_closed) and self._end_requests()

    def _end_requests(self) -> bool:
        """
        The peer sends no more; whether the connection stays, for answers to what it sent whole.

        It may end its side and wait for them (RFC 9112, section 9.6). One that is gone looks the same until
        something is sent to it.
        """
        newest = self._newest
        if newest is None or newest.is_complete or self._phase is not _IDLE or self.transport.is_closing():
            return False
        self.is_half_closed = True
        newest.keep_alive = False
        self.doubt()
        return True

    def doubt(self) -> None:
        """The peer may be gone: if nothing is sent to it for a while, nobody waits any more."""
        self._set_deadline(self._limits.stall_seconds)

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        if self._lingers is not None:
            self._lingers -= len(data)
            if self._lingers < 0:
                self._raw.abort()
            return
        if self.is_half_closed:  # behind the goodbye of TLS comes nothing
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
                self.transport.end_tls()
                self._scheme = "http"
                self._is_misdirected = True
                self._set_deadline(self._limits.head_seconds)
        if self._tls is None:
            self._received(data)
            return
        try:
            self._tls.feed(data)
        except ssl.SSLError:
            self.reset()
            return
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
        while not transport.is_closing() and not transport.is_paused:
            try:
                data = self._tls.read()
            except ssl.SSLError:
                transport.close()
                return
            if data is None:
                self._raw.write(self._tls.pending())  # TLS has words of its own: a warning, a new key
                self._raw.resume_reading()
                return
            if not data:
                if not self._end_requests():
                    transport.close()
                return
            self._received(data)

    def _received(self, data: bytes) -> None:
        if self._behind or self._begun:
            data = self._behind + self._begun + data
            self._behind = self._begun = b""
        if not data or self.transport.is_closing():
            return
        if self._phase is not _IDLE:
            self._parse(data)
        elif data[:1] == b"P" and (self._newest is None or self._newest.is_complete):
            self._received_upload(data)
        elif not self._received_known(data):
            self._parse(data)
            self._remember(data)
        if self._waits:  # no head is complete: it has begun, or an unread body goes on
            self._waits = False
            self._set_deadline(self._limits.head_seconds)
        if self._waiting and self._running is None:
            if self._task is None or self._task.done():
                self._task = self.loop.create_task(self._work())
            else:
                self._doorbell.ring()

    def _received_known(self, data: bytes) -> bool:
        """
        Whether it was a GET or HEAD with the very headers of the one before, and was taken.

        On one connection they seldom differ. What they say is known since the parser read them (`_remember`): what
        is new is the line above them.
        """
        line, _, block = data.partition(b"\r\n")
        if block != self._known_block or len(self._waiting) >= _MANY_PIPELINED:
            return False
        match = _PLAIN_LINE.fullmatch(line)
        if match is None:
            return False
        self._begin_exchange(match[1].decode("ascii"), match[2], "1.1", self._known_headers, True, False)
        self.on_message_complete()
        return True

    def _remember(self, data: bytes) -> None:
        """
        Remember the headers of `data`, if it was one such request and nothing else.

        Not when they say of the message or the connection what the next one would have to be asked for again.
        """
        if (
            self._phase is not _IDLE
            or self._newest is None
            or not self._newest.keep_alive
            or len(data) > _LONGEST_REMEMBERED
            or data.find(b"\r\n\r\n") != len(data) - 4
            or any(name in _NOT_REMEMBERED for name, _ in self._headers)
        ):
            return
        line, _, block = data.partition(b"\r\n")
        if _PLAIN_LINE.fullmatch(line) is not None:
            self._known_block, self._known_headers = block, self._headers

    def _received_upload(self, data: bytes) -> None:
        """A request that may have a large body: the parser gets its head alone."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > _LARGEST_HEAD:
                self._phase = _HEAD
                self._refuse("The head of the request is too long.")
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
        """Give bytes to the parser. Bad requests are daily business, and no reason for a line in the log."""
        if self.transport.is_closing():
            return
        phase, headers = self._phase, self._headers
        self._has_payload = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._encoding is not None or self._length not in {None, b"0"}:
                self._phase = _BODY
                self._refuse("Upgrades are not supported.")
            else:
                self._begin_parser()
                self._parse(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse("Invalid HTTP request received.")
        if self._phase is phase and self._headers is headers and phase is not _IDLE:
            # Only more of one head, of a chunk's line or of a trailer: the parser keeps a header until it ends.
            self._barren = 0 if self._has_payload else self._barren + len(data)
            if self._barren > _LARGEST_HEAD:
                what = "head" if phase is _HEAD else "framing"
                self._refuse(f"The {what} of the request is too long.")

    def _begin_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # A client may ask for the end of the connection and send a request behind that.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _refuse(self, words: str) -> None:
        """Answer 400, where an answer can be understood, and close."""
        if self.transport.is_closing():
            return
        newest = self._newest
        if self._phase is _BODY:
            before = [one for one in (self._running, *self._waiting) if one is not None and one is not newest]
            assert newest is not None
            may_answer = not newest.is_started and all(one.is_complete for one in before)
        else:
            self._phase = _HEAD
            may_answer = newest is None or newest.is_complete
        if may_answer:  # else it would be taken for a part of another answer
            self.transport.write(
                b"%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (STATUS_LINES[400], self.shared.date, len(words), words.encode("ascii"))
            )
        self.transport.close()
        self._disconnect()

    # --- messages ---

    def on_message_begin(self) -> None:
        """The parser: a request begins."""
        self._phase = _HEAD
        self._barren = 0
        self._url = b""
        self._headers = []
        self._length = self._encoding = None
        self._has_host = self._expects = False

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or of its trailer."""
        name, value = name.lower(), value.rstrip(b" \t")  # the parser leaves the space behind a value
        if self._phase is not _HEAD:  # a trailer, which must not change what was decided by the head
            if name in _OF_CONNECTION:  # the parser would obey, and read no further request
                raise httptools.HttpParserError("a trailer speaks of the connection")
            return
        if name in _SPECIAL:
            self._note(name, value)
        self._headers.append((name, value))

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
            self._expects = value.lower() == b"100-continue"
        else:
            if self._has_host:
                raise httptools.HttpParserError("there is more than one host")
            self._has_host = True

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        parser = self._parser
        version = parser.get_http_version()
        if version == "1.0":
            self._expects = False  # RFC 9110, section 10.1.1
        elif version != "1.1" or not self._has_host:  # RFC 9112, section 3.2
            raise httptools.HttpParserError("this is not HTTP/1.1")
        self._begin_exchange(
            parser.get_method().decode("ascii"),
            self._url,
            version,
            self._headers,
            version == "1.1" and parser.should_keep_alive(),
            self._expects,
        )
        if self._encoding is not None:
            self._hold(None)
        elif self._length is not None and (length := int(self._length)):
            self._hold(length)

    def _begin_exchange(
        self, method: str, url: bytes, version: str, headers: list[Header], keep_alive: bool, expects: bool
    ) -> None:
        """A head is complete. What this refuses is still a head. Raises HttpParserError."""
        if len(self._waiting) >= _MANY_PIPELINED:
            raise httptools.HttpParserError("there are too many requests at once")
        if url[:1] == b"/" and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path or b"/", parsed.query or b""  # RFC 9112, section 3.2.2
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "scheme": self._scheme,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [*headers],
            "client": self._client,
            "server": self._server,
        }
        self._phase = _BODY
        self._barren = 0
        self._waits = False
        self._deadline = _NEVER
        exchange = Exchange(self, self.transport, self.flow, scope, keep_alive, expects)
        scope["extensions"] = extensions = {
            ANSWER: exchange.answer,
            SEND_FILE: partial(self._send_file, exchange),
            SEND_LENT: partial(self._send_lent, exchange),
            IS_GONE: exchange.is_gone,
            IS_ENDING: self._is_ending,
        }
        if self._is_misdirected:
            extensions[MISDIRECTED] = True
        if self._newest is not None and not self._newest.is_complete:
            self.flow.pause_reading()  # it waits for the answers to those before it
        self._newest = exchange
        self._waiting.append(exchange)

    def _hold(self, length: int | None) -> None:
        """Let the body of the newest request wait to be taken, if it may be large; None: it comes in chunks."""
        exchange = self._newest
        assert exchange is not None
        if self._may_hold and (length is None or length >= _HELD_FROM or exchange.expects):
            self._held = _Held(Chunked() if length is None else Length(length), length, exchange.keep_alive)
            # Until the body was read, nothing can come behind it.
            exchange.keep_alive = False
            exchange.scope["extensions"][RECEIVE_FILE] = partial(self._receive_file, exchange)

    def let_go(self, exchange: Exchange) -> None:
        """The application reads the body itself: the parser gets it after all. Raises RuntimeError: too late."""
        held = self._held
        if held is None or exchange is not self._newest:
            return
        if held.is_taken:
            raise RuntimeError("the body was taken before")
        self._held = None
        exchange.keep_alive = held.keep_alive
        if held.data:
            self._parse(held.data)

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._has_payload = True
        exchange = self._newest
        assert exchange is not None
        if exchange.is_complete:
            return
        exchange.body += body
        if len(exchange.body) > _SMALL:
            self.flow.pause_reading()
        exchange.tell()

    def on_message_complete(self) -> None:
        """It is whole."""
        self._phase = _IDLE
        assert self._newest is not None
        self._newest.more_body = False
        self._newest.tell()

    # --- requests are answered ---

    async def _work(self) -> None:
        """The task of the connection: one request after the other, until the connection ends."""
        task = asyncio.current_task()
        assert task is not None
        while True:
            if self._waiting:
                self._running = self._waiting.popleft()
                self.shared.tasks.add(task)
                try:
                    await self._run(self._running)
                finally:
                    self.shared.tasks.discard(task)
                    self._running = None
                if self.transport.is_closing():
                    self._waiting.clear()
            elif self._is_lost or task.cancelling():
                return
            else:
                await self._doorbell

    async def _run(self, exchange: Exchange) -> None:
        """Let the application answer a request; where it does not, say so."""
        # It has calls of the exchange: nothing may hold both in a circle, which only the collector would end.
        scope, exchange.scope = exchange.scope, None
        try:
            await self.shared.app(scope, exchange.receive, exchange.send)
        except Exception:  # noqa: BLE001 - whatever it was, others are served
            _log.exception("answer failed")
        except BaseException:
            self.transport.close()
            raise
        else:
            if exchange.is_complete or exchange.is_gone():
                return
            _log.error("answer without an end")
        exchange.keep_alive = False
        if exchange.ends_with_connection():
            self.reset()  # an end in peace would make it whole
        elif not exchange.answer(500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error"):
            self.transport.close()

    def on_response_complete(self) -> None:
        """An answer was written: set the clock, and go on with what lies behind a body."""
        self.transport.flush()
        if self.transport.is_closing():
            return
        if not self._waiting:
            self._waits = True
            self._set_deadline(self._limits.keep_alive_seconds)
            if self._behind:
                self.loop.call_soon(self._received, b"")
        self.flow.resume_reading()

    # --- bytes to and from files, and from stores ---

    async def _receive_file(self, exchange: Exchange, file: File, *, hasher: Hasher, limit: int | None) -> int:
        held = self._held
        if held is None or held.is_taken or exchange is not self._newest:
            raise RuntimeError("the body was taken before")
        if limit is not None and held.length is not None and held.length > limit:
            raise BodyTooLarge(0, f"more than {limit} bytes")
        held.is_taken = True
        step = ReceiveStep(held.framing, file, hasher, limit, held.data)
        held.data = b""
        try:
            if exchange.expects:  # it need not send what would be refused
                await self._in_thread(step, step.open)
                exchange.go_ahead()
            await self._move(step)
        except Stopped:
            raise BodyCut(step.written, "the connection was closed") from None
        finally:
            if not step.has_begun:
                held.data, held.is_taken = step.arrived, False
        # Not reached after an error: where the next request would begin, nobody knows.
        self._held = None
        self._phase = _IDLE
        self._behind = step.behind
        self._begin_parser()
        exchange.more_body = False
        exchange.keep_alive = held.keep_alive
        return step.written

    async def _send_file(self, exchange: Exchange, descriptor: int, offset: int, count: int) -> int:
        return await self._send(exchange, SendStep(descriptor, offset, count), count)

    async def _send_lent(self, exchange: Exchange, lent: Lent) -> int:
        return await self._send(exchange, RelayStep(lent), len(lent.first) + lent.left)

    async def _send(self, exchange: Exchange, step: Step, count: int) -> int:
        """Let a step send the answer's body of `count` bytes. Raises what is wrong with where they come from."""
        if count and exchange.method != "HEAD":
            if exchange.disconnected or self.transport.is_closing():
                return 0
            self.flow.pause_reading()
            self.transport.flush()
            self._raw.set_write_buffer_limits(0)
            try:
                await self.flow.drain()
                await self._move(step)
            except (ConnectionError, TimeoutError, ssl.SSLError, Stopped, BodyCut):
                self._raw.abort()
                self._disconnect()
                return step.moved
            except Exception as error:
                self._raw.abort()
                self._disconnect()
                if isinstance(error, OSError) and error.errno in _PEER_ERRORS:
                    return step.moved
                raise
            if not self._raw.is_closing():
                self._raw.set_write_buffer_limits()
            if exchange.left is not None:
                exchange.left -= count
        await exchange.send({"type": "http.response.body"})
        return step.moved

    async def _move(self, step: Step) -> None:
        """Take turns with a step until it is done. Raises BodyCut, Stopped, and what the step raises."""
        if self.transport.is_closing():
            raise Stopped
        sock = socket.socket(fileno=os.dup(self._raw.get_extra_info("socket").fileno()))
        wire = Wire(sock, self._tls)
        started = self.loop.time()
        self._step = step
        sends = self.shared.sends(sock) if step.event == select.POLLOUT else contextlib.nullcontext()
        try:
            with sends:
                while True:
                    done = await self._in_thread(step, lambda: step.run(wire))
                    if done:
                        return
                    if done is None:  # bytes may be in our own buffers: never wait for the socket now
                        continue
                    if (store := step.awaited) is not None:
                        since = self.loop.time()
                        if not await self._is_ready(store.socket, select.POLLIN, store.patience):
                            raise store.late()
                        step.waited += self.loop.time() - since
                        continue
                    patience = self.patience(step.moved, self.loop.time() - started - step.waited)
                    if not await self._is_ready(sock, step.event, patience):
                        self.reset()
                        raise BodyCut(getattr(step, "written", 0), "the client is too slow")
        finally:
            self._step = None
            sock.close()

    def patience(self, moved: int, seconds: float) -> float:
        """How long to wait for a peer that moved so much in so many seconds."""
        return min(self._limits.stall_seconds, self._limits.allowance(moved) - seconds)

    async def _in_thread(self, step: Step, work: Callable[[], T]) -> T:
        """Let a step work. When it returns, cancelled or not, no thread uses the socket and the file any more."""
        return await in_thread(work, threads=threads(), stop=step.end)

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

    def is_quiet(self) -> bool:
        """Whether no request runs, or waits to."""
        return self._running is None and not self._waiting

    def shutdown(self) -> None:
        """The server ends: close when the answers are written."""
        self._ends = True
        if self._held is not None:
            self._held.keep_alive = False
        if self._newest is None or self._newest.is_complete:
            self.transport.close()
        else:
            self._newest.keep_alive = False

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
        if not self._is_lost:  # the descriptor is ours
            with contextlib.suppress(OSError):
                self._raw.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self._raw.abort()
        self._disconnect()

    def _disconnect(self) -> None:
        """Tell everybody that there is no connection any more."""
        for exchange in (self._running, self._newest):
            if exchange is not None and not exchange.is_complete:
                exchange.disconnected = True
                exchange.tell()
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
            if self.is_half_closed and self._step is not None:  # that has a limit of its own
                self.doubt()
            elif self._phase is _IDLE and not self.is_half_closed and not self.transport.is_closing():
                self.transport.close()
            else:
                self.reset()
        elif self._deadline != _NEVER:
            self._set_deadline(left)


def protocol_factory(shared: Shared, tls: ssl.SSLContext | None) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each connection of one listener."""
    return lambda: Connection(shared, tls)


def _address(name: Any) -> tuple[str, int] | None:
    """Host and port of a socket's name; None: it has none."""
    return (name[0], name[1]) if isinstance(name, tuple) else None
