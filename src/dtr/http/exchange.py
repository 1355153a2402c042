"""A request and its answer, and the rest between two of them."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextvars import Context

    from dtr.http.protocol import Connection
    from dtr.http.transport import Flow, Transport
    from dtr.http.types import Header, Message

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
STATUS_LINES = {number: b"HTTP/1.1 %d \r\n" % number for number in range(100, 600)} | {
    one.value: b"HTTP/1.1 %d %b\r\n" % (one.value, one.phrase.encode()) for one in HTTPStatus
}
_BODILESS = frozenset({204, 304})


class Exchange:
    """A request and its answer: what the application has to do with."""

    __slots__ = (
        "_chunked",
        "_event",
        "_flow",
        "_is_bodiless",
        "_protocol",
        "_received",
        "_transport",
        "_version",
        "_waited",
        "body",
        "disconnected",
        "expects",
        "has_news",
        "is_complete",
        "is_started",
        "keep_alive",
        "left",
        "method",
        "more_body",
        "scope",
    )

    def __init__(
        self, protocol: Connection, transport: Transport, flow: Flow, scope: Any, keep_alive: bool, expects: bool
    ) -> None:
        """`expects`: the client waits for a go-ahead before it sends the body."""
        self._protocol = protocol
        self._transport = transport
        self._flow = flow
        self.scope = scope
        self.method: str = scope["method"]
        self._version: str = scope["http_version"]
        self.keep_alive = keep_alive
        self.expects = expects
        self.body = b""
        """Of the request, what arrived and was not received yet."""
        self.more_body = True
        self.has_news = False
        self._event: asyncio.Event | None = None
        self._received = 0
        self._waited = 0.0
        self.disconnected = False
        self.is_started = False
        self.is_complete = False
        self.left: int | None = None
        """Bytes of the answer's body that were announced and not written; None: it ends with the last piece."""
        self._chunked = False
        self._is_bodiless = False

    def is_gone(self) -> bool:
        """The extension `IS_GONE`."""
        if self._transport.is_closing():
            self.disconnected = True
        return self.disconnected

    def tell(self) -> None:
        """There is something to receive."""
        self.has_news = True
        if self._event is not None:
            self._event.set()

    async def receive(self) -> Message:
        """A part of the request's body; ASGI's way. Bounded in time, and aware of what is held."""
        protocol = self._protocol
        if not self.disconnected and not self.is_complete:
            protocol.let_go(self)
            if self.expects and not self._transport.is_closing():
                self.go_ahead()
            self._flow.resume_reading()
            if not self.has_news:
                await self._wait()
            self.has_news = False
        if self.disconnected or self.is_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        self._received += len(body)
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    def go_ahead(self) -> None:
        """Tell the client to send the body."""
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._transport.flush()  # a thread may have the TLS object next
        self.expects = False

    async def _wait(self) -> None:
        """Wait for news: of a body only as long as the client may take."""
        self._event = event = asyncio.Event()
        if not self.more_body:
            await event.wait()
            return
        clock = self._protocol.loop.time
        started = clock()
        try:
            async with asyncio.timeout(self._protocol.patience(self._received, self._waited)):
                await event.wait()
        except TimeoutError:
            self._protocol.reset()
        self._waited += clock() - started

    def ends_with_connection(self) -> bool:
        """Whether the end of the connection is all that will tell the client that the answer is whole."""
        return self.is_started and self.left is None and not self._chunked

    async def send(self, message: Message) -> None:
        """A part of the answer; ASGI's way. Raises RuntimeError for what is none."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if self._protocol.is_half_closed:
            self._protocol.doubt()
        kind = "http.response.body" if self.is_started else "http.response.start"
        if self.is_complete or message["type"] != kind:
            raise RuntimeError(f"{message['type']} is sent where it does not belong")
        if not self.is_started:
            self._begin(message["status"], message.get("headers", ()))
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        self._write_body(body, last=not more)
        if not more:
            if self.left:
                raise RuntimeError("the body is shorter than announced")
            self._complete()

    def _begin(self, status: int, headers: Iterable[Header]) -> None:
        """Write the head of the answer. Raises RuntimeError when it cannot be one."""
        length: int | None = None
        chunked = closes = False
        lines = [STATUS_LINES[status], self._protocol.shared.date]
        for given, value in headers:
            name = given.lower()
            if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
                raise RuntimeError(f"the header {name!r} cannot be written")
            if name == b"content-length":
                if length is not None:
                    raise RuntimeError("there are two lengths")
                length = int(value)
            elif name == b"transfer-encoding":
                if value != b"chunked":
                    raise RuntimeError(f"{value!r} is not an encoding that is known here")
                chunked = True
                continue
            elif name == b"connection":
                closes = closes or b"close" in [token.strip() for token in value.lower().split(b",")]
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        self._is_bodiless = self.method == "HEAD" or status in _BODILESS
        if chunked and length is not None:
            raise RuntimeError("a body in chunks has no length")
        if length is not None or self._is_bodiless:
            self.left = 0 if self._is_bodiless else length
        elif self._version == "1.1":
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if closes:
            self.keep_alive = False
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self.is_started = True
        self.expects = False
        self._transport.write(b"".join(lines))

    def _write_body(self, body: bytes, *, last: bool) -> None:
        if self._is_bodiless:
            return
        if self.left is not None:
            if len(body) > self.left:
                raise RuntimeError("the body is longer than announced")
            self.left -= len(body)
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                body += b"0\r\n\r\n"
        self._transport.write(body)

    def answer(
        self, status: int, headers: Iterable[Header], body: bytes, *, more: bytes = b"", length: int | None = None
    ) -> bool:
        """The extension `ANSWER`."""
        if self.is_started or self.disconnected or self._flow.write_paused:
            return False
        lines = [b"%b: %b\r\n" % one for one in headers]
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a header cannot be written")
        if status in _BODILESS:
            body = end = b""
        else:
            end = b"content-length: %d\r\n" % (len(body) if length is None else length)
            if self.method == "HEAD":
                body = b""
        if not self.keep_alive:
            end += b"connection: close\r\n"
        self.is_started = True
        self.expects = False
        self._transport.write_now(
            b"%b%b%b%b%b\r\n%b" % (STATUS_LINES[status], self._protocol.shared.date, head, more, end, body)
        )
        self._complete()
        return True

    def _complete(self) -> None:
        self.is_complete = True
        self.tell()
        if not self.keep_alive:
            self._transport.close()
        self._protocol.on_response_complete()


class Doorbell:
    """
    What a connection's task awaits between two requests.

    It is like a future to the task, but `ring` lets the task go on at once, within the call, where a future would
    have the loop do it in its next turn. A task for each request, and that turn, would cost a small one a tenth
    of its time. Nobody rings from within a task.
    """

    _asyncio_future_blocking = False  # asyncio's mark of what a task may await

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._go_on: Callable[[Doorbell], object] | None = None
        self._context: Context
        self._is_cancelled = False

    def __await__(self) -> Generator[Doorbell, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def ring(self) -> None:
        """Let the task go on, if it waits."""
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            self._context.run(go_on, self)

    # --- what a task wants of a future ---

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As futures have it."""
        return self._loop

    def add_done_callback(self, go_on: Callable[[Doorbell], object], *, context: Context) -> None:
        """As futures have it; the only one is the task."""
        self._go_on = go_on
        self._context = context

    def result(self) -> None:
        """As futures have it. Raises CancelledError."""
        if self._is_cancelled:
            self._is_cancelled = False
            raise asyncio.CancelledError

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - as futures have it
        """The task is cancelled while it waits."""
        self._is_cancelled = True
        self._loop.call_soon(self.ring)
        return True
