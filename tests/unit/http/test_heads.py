"""The usual head of an answer is made the short way; every other one by uvicorn, which knows them all."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from dtr.http.protocol import _Cycle


class Cycle(_Cycle):
    """A cycle on a connection that only remembers what is written."""

    def __init__(self, method: str = "GET", *, keep_alive: bool = True) -> None:
        self.written = b""
        self.passed_on: list[Any] = []
        self.is_done = False
        transport: Any = SimpleNamespace(write=self.write, close=lambda: None, is_closing=lambda: False)
        flow: Any = SimpleNamespace(write_paused=False)
        logger = logging.getLogger()
        scope: Any = {"method": method}
        super().__init__(
            scope, transport, flow, logger, logger, False, [(b"date", b"today")], asyncio.Event(), True,
            keep_alive, self.end,
        )  # fmt: skip

    def write(self, data: bytes) -> None:
        self.written += data

    def end(self) -> None:
        self.is_done = True

    async def start(self, *headers: tuple[bytes, bytes]) -> None:
        await self.send({"type": "http.response.start", "status": 200, "headers": list(headers)})


@pytest.fixture(autouse=True)
def _uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own way remembers what is left to it."""

    async def send(cycle: Cycle, message: Any) -> None:
        cycle.passed_on.append(message)

    monkeypatch.setattr(RequestResponseCycle, "send", send)


@pytest.mark.parametrize(("keep_alive", "end"), [(True, b""), (False, b"connection: close\r\n")])
async def test_a_head_with_a_length_is_made_the_short_way(keep_alive: bool, end: bytes):
    cycle = Cycle(keep_alive=keep_alive)
    await cycle.start((b"etag", b'"1"'), (b"content-length", b"12"), (b"x-frame-options", b"DENY"))
    assert cycle.passed_on == []
    assert cycle.written == (
        b'HTTP/1.1 200 OK\r\ndate: today\r\netag: "1"\r\nx-frame-options: DENY\r\ncontent-length: 12\r\n%b\r\n'
        % end
    )
    assert cycle.response_started
    assert not cycle.waiting_for_100_continue
    assert (cycle.expected_content_length, cycle.chunked_encoding) == (12, False)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"etag", b"1")],
        [(b"content-length", b"12"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"12"), (b"connection", b"close")],
        [(b"content-length", b"12"), (b"content-length", b"13")],
        [(b"content-length", b"12"), (b"etag", b"1\r\nset-cookie: mine")],
        [(b"content-length", b"12"), (b"etag", b"1\nset-cookie: mine")],
        [(b"content-length", b"12"), (b"etag", b"1\r")],
        [(b"content-length", b"12"), (b"etag", b"1\0")],
        [(b"content-length", b"12\r\nset-cookie: mine")],
    ],
    ids=lambda headers: str(headers[-1]),
)
async def test_other_heads_are_left_to_uvicorn(headers: list[tuple[bytes, bytes]]):
    cycle = Cycle()
    await cycle.start(*headers)
    assert cycle.written == b""
    assert len(cycle.passed_on) == 1


async def test_what_is_no_head_or_comes_too_late_is_left_to_uvicorn():
    cycle = Cycle()
    await cycle.send({"type": "http.response.body", "body": b"1"})
    cycle.flow.write_paused = True
    await cycle.start((b"content-length", b"12"))
    cycle.flow.write_paused = False
    cycle.disconnected = True
    await cycle.start((b"content-length", b"12"))
    assert len(cycle.passed_on) == 3
    assert cycle.written == b""


async def test_a_whole_body_ends_the_answer_the_short_way():
    cycle = Cycle()
    await cycle.start((b"content-length", b"2"))
    head = cycle.written
    await cycle.send({"type": "http.response.body", "body": b"ok"})
    assert cycle.written == head + b"ok"
    assert cycle.is_done
    assert cycle.response_complete
    assert cycle.message_event.is_set()
    assert cycle.passed_on == []


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("GET", {"body": b"ok", "more_body": True}),
        ("GET", {"body": b"o"}),
        ("GET", {"body": b"more"}),
        ("HEAD", {"body": b"ok"}),
        ("GET", {"body": b"ok", "type": "http.response.start"}),
    ],
    ids=str,
)
async def test_other_bodies_are_left_to_uvicorn(method: str, message: Any):
    cycle = Cycle(method)
    await cycle.start((b"content-length", b"2"))
    head = cycle.written
    await cycle.send({"type": "http.response.body"} | message)
    assert cycle.written == head
    assert not cycle.is_done
    assert len(cycle.passed_on) == 1


async def test_a_body_that_cannot_be_written_now_is_left_to_uvicorn():
    for name in ("write_paused", "disconnected", "response_complete"):
        cycle = Cycle()
        await cycle.start((b"content-length", b"2"))
        setattr(cycle.flow if name == "write_paused" else cycle, name, True)
        await cycle.send({"type": "http.response.body", "body": b"ok"})
        assert len(cycle.passed_on) == 1
