"""The usual head of an answer is made the short way; every other one by uvicorn, which knows them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dtr.http.protocol import _send


class Cycle(SimpleNamespace):
    """As much of uvicorn's as a head needs."""

    def __init__(self) -> None:
        super().__init__(
            default_headers=[(b"date", b"today")],
            response_started=False,
            disconnected=False,
            keep_alive=True,
            waiting_for_100_continue=True,
            flow=SimpleNamespace(write_paused=False),
            transport=SimpleNamespace(write=self.write),
        )
        self.written = b""
        self.passed_on: list[Any] = []

    def write(self, data: bytes) -> None:
        self.written += data

    async def send(self, message: Any) -> None:
        self.passed_on.append(message)

    async def start(self, *headers: tuple[bytes, bytes]) -> None:
        await _send(self, self.send, {"type": "http.response.start", "status": 200, "headers": list(headers)})


@pytest.mark.parametrize(("keep_alive", "end"), [(True, b""), (False, b"connection: close\r\n")])
async def test_a_head_with_a_length_is_made_the_short_way(keep_alive: bool, end: bytes):
    cycle = Cycle()
    cycle.keep_alive = keep_alive
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
    await _send(cycle, cycle.send, {"type": "http.response.body", "body": b"1"})
    cycle.flow.write_paused = True
    await cycle.start((b"content-length", b"12"))
    cycle.flow.write_paused = False
    cycle.disconnected = True
    await cycle.start((b"content-length", b"12"))
    assert len(cycle.passed_on) == 3
    assert cycle.written == b""
