"""
Streams of requests, right and wrong, on one connection without a socket.

How a stream is cut into packets, whether headers are remembered, and when the application gets to its requests
make no difference; and nobody who reads the protocol strictly (h11) sees other requests in it. A difference would
be a way to smuggle a request past a proxy.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dtr.http.bodies import ANSWER
from dtr.http.protocol import Connection, Shared
from dtr.http.transport import Limits

_QUIET_TURNS = 12
"""Of the loop; then everything has happened that the bytes bring about."""
Seen = tuple[str, bytes, tuple[tuple[bytes, bytes], ...], bytes]
"""A request: method, target, headers, body."""


class Transport:
    """One that remembers what is written, and hands on nothing while reading is paused."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = self.is_paused = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = write_eof = close

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return None if name == "socket" else ("127.0.0.1", 1)


@dataclass
class Outcome:
    """What came of a stream."""

    seen: list[Seen] = field(default_factory=list)
    """Requests that the application read to their end."""
    written: bytes = b""
    is_closed: bool = False


class Forgetful(Connection):
    """A connection that asks the parser each time."""

    def _remember(self, data: bytes) -> None:
        pass


class Connections:
    """Connections of a loop, one after the other. Bytes come from callbacks, as a loop brings them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._problems: list[Any] = []

    def close(self) -> None:
        self._loop.close()

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something failed that no request can be answered for."""
        self._problems.append(context)
        loop.stop()

    def send(self, packets: Sequence[bytes], *, pauses: int = 0, remembers: bool = True) -> Outcome:
        """`pauses`: how many turns of the loop the application waits before it reads."""
        outcome = Outcome()

        async def app(scope: Any, receive: Any, _send: Any) -> None:
            for _ in range(pauses):
                await asyncio.sleep(0)
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                more = message["more_body"]
            target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            outcome.seen.append((scope["method"], target, tuple(scope["headers"]), body))
            scope["extensions"][ANSWER](200, [], target)

        shared = Shared(app, Limits(), date=b"date: today\r\n")
        transport = Transport()

        async def make() -> Connection:
            return (Connection if remembers else Forgetful)(shared, None)

        protocol = self._loop.run_until_complete(make())
        protocol.connection_made(transport)  # type: ignore[arg-type]  # what it needs of one
        left = deque(packets)
        quiet = heard = 0

        def turn() -> None:
            nonlocal quiet, heard
            quiet = quiet + 1 if heard == len(outcome.seen) else 0
            heard = len(outcome.seen)
            if left and not transport.is_paused and not transport.is_closed:
                protocol.data_received(left.popleft())
                quiet = 0
            if quiet < _QUIET_TURNS:
                self._loop.call_soon(turn)
            elif protocol in shared.connections:
                outcome.is_closed, outcome.written = transport.is_closed, transport.written
                transport.is_closed = True
                protocol.connection_lost(None)
                quiet = 0
                self._loop.call_soon(turn)
            else:
                self._loop.stop()

        self._loop.call_soon(turn)
        self._loop.run_forever()
        problems, self._problems = self._problems, []
        assert problems == []
        assert asyncio.all_tasks(self._loop) == set()  # nothing is left, whatever came
        assert not shared.tasks
        assert not shared.connections
        return outcome


@pytest.fixture(scope="module")
def connections() -> Iterator[Connections]:
    made = Connections()
    yield made
    made.close()


def _as_h11_has_it(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = header
    return name.replace(b"x-upgrade", b"upgrade"), value.lower() if name == b"transfer-encoding" else value


def read_by_h11(stream: bytes) -> list[Seen]:
    """The whole requests in a stream, until the first that is wrong, or the end of the connection."""
    seen: list[Seen] = []
    while True:
        connection = h11.Connection(h11.SERVER)
        # RFC 9112, sections 2.2 and 3: empty lines before a request, and more than one space between the words of
        # its line, may be passed over; and are here.
        connection.receive_data(re.sub(rb"\A[\r\n]*([A-Z]+) +([!-~]+) +(HTTP/1)", rb"\1 \2 \3", stream, count=1))
        try:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                return seen
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
        except h11.RemoteProtocolError:
            return seen
        if not isinstance(event, h11.EndOfMessage):
            return seen
        seen.append((request.method.decode(), request.target, tuple(request.headers), body))
        if connection.their_state is h11.MUST_CLOSE:
            return seen
        stream, _ = connection.trailing_data


# --- streams ---

TARGETS = [
    b"/",
    b"/a/b",
    b"/a?b=c&d",
    b"//h/a",
    b"/%00%2f",
    b'/~"<>\\^`{|}',
    b"http://h/a",
    b"/a#b",
    b"*",
    b"h:80",
]
HEADERS = [
    b"Host: h", b"Accept: a/b", b"X-Empty:", b"X-A: \t b \t", b"X-A:c", b"X-A: \xff\x80", b"Upgrade: h2c",
    b"Connection: keep-alive", b"Connection: close", b"Connection: x, Close", b"Expect: 100-continue",
    b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 03", b"content-length:3 ", b"Content-Length: +3",
    b"Content-Length: 3, 3", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"transfer-encoding:\tChunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding : chunked", b" folded",
    b"\tX: folded", b"X-A: a\rb", b"X-A: a\nB: c", b"X-A: a\0b", b"X-\xff: a", b": a", b"X",
]  # fmt: skip
BODIES = [
    b"", b"abc", b"abcd", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n",
    b"03\r\nabc\r\n000\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3\nabc\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabc\r\n0\r\nConnection: close\r\n\r\n", b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc\r\n0\r\n\r",
]  # fmt: skip
SAME = b"Host: h\r\nAccept: a/b\r\n\r\n"
GOOD = [
    b"GET /1 HTTP/1.1\r\n" + SAME,
    b"GET /2?x HTTP/1.1\r\n" + SAME,
    b"HEAD /3 HTTP/1.1\r\n" + SAME,
    b"POST /4 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT /5 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /6 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
    b"GET /7 HTTP/1.1\r\nHost: other\r\n\r\n",
]
NASTY = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\x0b",
    b"\xff",
    b"\x7f",
    b"0",
    b";",
    b",",
    b"G",
    b"P",
    b"#",
]


@st.composite
def _request(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get"]))
    target = draw(st.sampled_from(TARGETS))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 "]))
    headers = draw(st.lists(st.sampled_from(HEADERS), max_size=3))
    if draw(st.integers(0, 9)):
        headers.insert(draw(st.integers(0, len(headers))), b"Host: h")
    return b"\r\n".join([b" ".join([method, target, version]), *headers, b"", draw(st.sampled_from(BODIES))])


@st.composite
def _changed(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> bytes:
    stream = draw(streams)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(st.sampled_from(NASTY)) + stream[at + draw(st.integers(0, 2)) :]
    return stream


good = st.lists(st.sampled_from(GOOD), min_size=1, max_size=6).map(b"".join)
wrong = st.lists(st.sampled_from(GOOD) | _request(), min_size=1, max_size=4).map(b"".join)
streams = good | _changed(good) | _changed(wrong)
fuzz = settings(deadline=None, max_examples=250, suppress_health_check=list(HealthCheck))


def packets_of(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(stream)}), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def cuts_of(stream: bytes) -> list[int]:
    """Where requests seem to begin: there remembered headers are looked at."""
    return [at for at in range(1, len(stream)) if stream.startswith((b"GET ", b"HEAD ", b"POST ", b"PUT "), at)]


def begins_with(longer: Sequence[Any], shorter: Sequence[Any]) -> bool:
    return longer[: len(shorter)] == shorter


@fuzz
@given(streams, st.lists(st.integers(1, 400), max_size=6), st.integers(0, 3))
@example(GOOD[0] + b"GET / HTTP/1.1\r\n\r\n" + SAME, [], 0)
@example((b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n" + SAME) * 2, [], 0)
@example(GOOD[0] * 2 + b"GET /\x7f HTTP/1.1\r\n" + SAME, [], 0)
@example(GOOD[0] * 2 + b"GET /x HTTP/1.1\r\nGET /y HTTP/1.1\r\n" + SAME, [], 0)
def test_how_a_stream_comes_makes_no_difference(
    connections: Connections, stream: bytes, cuts: list[int], pauses: int
) -> None:
    end = len(stream)
    stream += b"\r\n\r\n"  # else half a head may wait for its end in one way, and be wrong already in the other
    packets = packets_of(stream, [*cuts_of(stream), *cuts, end])
    usual = connections.send(packets, pauses=pauses)
    assert usual == connections.send(packets, pauses=pauses, remembers=False)
    ways = [
        connections.send([stream], pauses=pauses),
        connections.send(packets_of(stream, cuts), pauses=3 - pauses),
        connections.send(packets_of(stream, range(len(stream)))),
    ]
    for other in ways:
        # What is wrong ends the connection at once, with answers that are still on their way.
        longer, shorter = sorted((usual.seen, other.seen), key=len, reverse=True)
        assert begins_with(longer, shorter)
        assert usual.is_closed == other.is_closed
        if not usual.is_closed:
            assert usual == other


@fuzz
@given(streams, st.lists(st.integers(1, 400), max_size=6))
@example(GOOD[0] + b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [])
@example(b"GET / HTTP/1.1\r\nHost: h \r\nX-A: \t a b \t \r\n\r\n", [])
def test_a_strict_reader_sees_the_same_requests(connections: Connections, stream: bytes, cuts: list[int]) -> None:
    ours = [
        (method, target, tuple(map(_as_h11_has_it, headers)), body)
        for method, target, headers, body in connections.send(packets_of(stream, [*cuts_of(stream), *cuts])).seen
    ]
    theirs = read_by_h11(stream)
    for one, other in zip(ours, theirs, strict=False):
        assert (one[0], one[2], one[3]) == (other[0], other[2], other[3])
        if other[1].startswith(b"/") and b"#" not in other[1]:
            assert one[1] == other[1].removesuffix(b"?")
    assert len(ours) <= len(theirs)
