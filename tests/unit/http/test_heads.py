"""Heads and bodies of answers: at once, and in the messages of ASGI."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dtr.http import exchange

DATE = b"date: today\r\n"


class Exchange(exchange.Exchange):
    """One on a connection that only remembers what is written."""

    def __init__(self, method: str = "GET", *, keep_alive: bool = True, version: str = "1.1") -> None:
        self.written = b""
        self.is_done = self.is_closed = False
        self.connection_is_closing = False
        protocol: Any = SimpleNamespace(
            shared=SimpleNamespace(date=DATE), is_half_closed=False, on_response_complete=self.end
        )
        transport: Any = SimpleNamespace(
            write=self.write,
            write_now=self.write,
            close=self.close,
            is_closing=lambda: self.connection_is_closing,
        )
        self.connection_flow: Any = SimpleNamespace(write_paused=False)
        scope = {"method": method, "http_version": version}
        super().__init__(protocol, transport, self.connection_flow, scope, keep_alive, True)

    def write(self, data: bytes) -> None:
        self.written += data

    def end(self) -> None:
        self.is_done = True

    def close(self) -> None:
        self.is_closed = True

    async def start(self, *headers: tuple[bytes, bytes], status: int = 200) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def piece(self, body: bytes = b"", *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


# --- at once ---


@pytest.mark.parametrize(("keep_alive", "end"), [(True, b""), (False, b"connection: close\r\n")])
def test_a_whole_answer_is_one_write(keep_alive: bool, end: bytes):
    exchange = Exchange(keep_alive=keep_alive)
    assert exchange.answer(404, [(b"etag", b'"1"'), (b"x-a", b"b")], b"nothing", more=b"x-b: c\r\n")
    assert exchange.written == (
        b'HTTP/1.1 404 Not Found\r\ndate: today\r\netag: "1"\r\nx-a: b\r\nx-b: c\r\n'
        b"content-length: 7\r\n%b\r\nnothing" % end
    )
    assert exchange.is_started
    assert exchange.is_complete
    assert exchange.is_done
    assert exchange.is_closed != keep_alive
    assert not exchange.expects


def test_head_gets_the_length_and_no_body():
    for body, length in ((b"12345", None), (b"", 5)):
        exchange = Exchange("HEAD")
        assert exchange.answer(200, [], body, length=length)
        assert exchange.written == b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 5\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int):
    exchange = Exchange()
    assert exchange.answer(status, [], b"never sent")
    assert exchange.written.endswith(b"\r\ndate: today\r\n\r\n")


@pytest.mark.parametrize("value", [b"1\r\nset-cookie: mine", b"1\nset-cookie: mine", b"1\r", b"1\0"], ids=repr)
def test_a_header_that_would_end_early_is_refused(value: bytes):
    exchange = Exchange()
    with pytest.raises(RuntimeError, match="header"):
        exchange.answer(200, [(b"etag", value)], b"")
    assert exchange.written == b""
    assert not exchange.is_started


async def test_not_at_once_when_the_client_has_not_taken_what_was_written():
    exchange = Exchange()
    exchange.connection_flow.write_paused = True
    assert not exchange.answer(200, [], b"")
    assert exchange.written == b""


async def test_not_at_once_when_the_answer_began_or_nobody_takes_it():
    exchange = Exchange()
    await exchange.start((b"content-length", b"2"))
    head = exchange.written
    assert not exchange.answer(500, [], b"")
    assert exchange.written == head
    exchange = Exchange()
    exchange.connection_is_closing = True
    assert exchange.is_gone()
    assert not exchange.answer(200, [], b"")


# --- in messages ---


@pytest.mark.parametrize(("keep_alive", "end"), [(True, b""), (False, b"connection: close\r\n")])
async def test_an_answer_with_a_length(keep_alive: bool, end: bytes):
    exchange = Exchange(keep_alive=keep_alive)
    await exchange.start((b"Etag", b'"1"'), (b"content-length", b"5"))
    assert exchange.written == (
        b'HTTP/1.1 200 OK\r\ndate: today\r\netag: "1"\r\ncontent-length: 5\r\n%b\r\n' % end
    )
    assert not exchange.expects
    exchange.written = b""
    await exchange.piece(b"12", more=True)
    await exchange.piece(b"345")
    assert exchange.written == b"12345"
    assert exchange.is_done
    assert exchange.is_closed != keep_alive


async def test_an_answer_without_a_length_comes_in_chunks():
    for headers in ([], [(b"transfer-encoding", b"chunked")]):
        exchange = Exchange()
        await exchange.start(*headers)
        await exchange.piece(b"hello", more=True)
        await exchange.piece(more=True)
        await exchange.piece(b"x" * 16)
        assert exchange.written == (
            b"HTTP/1.1 200 OK\r\ndate: today\r\ntransfer-encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"
        )
        assert exchange.is_done


async def test_to_http_1_0_it_ends_with_the_connection():
    exchange = Exchange(version="1.0", keep_alive=False)
    await exchange.start()
    await exchange.piece(b"hello")
    assert exchange.written == b"HTTP/1.1 200 OK\r\ndate: today\r\nconnection: close\r\n\r\nhello"
    assert exchange.is_closed


async def test_head_gets_no_body_whatever_is_sent():
    exchange = Exchange("HEAD")
    await exchange.start((b"content-length", b"5"))
    await exchange.piece(b"12345")
    assert exchange.written == b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 5\r\n\r\n"
    assert exchange.is_done


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close"])
async def test_an_application_may_end_the_connection(value: bytes):
    exchange = Exchange()
    await exchange.start((b"content-length", b"0"), (b"connection", value))
    assert exchange.written.endswith(b"connection: close\r\n\r\n")
    assert exchange.written.count(b"connection:") == 1
    await exchange.piece()
    assert exchange.is_closed


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"12"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"12"), (b"content-length", b"12")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"etag", b"1\r\nset-cookie: mine")],
        [(b"etag", b"1\nset-cookie: mine")],
        [(b"etag", b"1\r")],
        [(b"etag", b"1\0")],
        [(b"et ag", b"1")],
        [(b"etag:", b"1")],
        [(b"", b"1")],
    ],
    ids=lambda headers: str(headers[-1]),
)
async def test_what_is_no_head_is_refused(headers: list[tuple[bytes, bytes]]):
    exchange = Exchange()
    with pytest.raises(RuntimeError):
        await exchange.start(*headers)
    assert exchange.written == b""
    assert not exchange.is_started


async def test_what_is_sent_out_of_order_is_refused():
    exchange = Exchange()
    with pytest.raises(RuntimeError):
        await exchange.piece()
    await exchange.start((b"content-length", b"0"))
    with pytest.raises(RuntimeError):
        await exchange.start()
    await exchange.piece()
    with pytest.raises(RuntimeError):
        await exchange.piece()


@pytest.mark.parametrize("pieces", [[b"123"], [b"1", b"23"], [b"1"], [b""]], ids=str)
async def test_a_body_of_another_length_is_refused(pieces: list[bytes]):
    exchange = Exchange()
    await exchange.start((b"content-length", b"2"))

    async def send() -> None:
        for number, piece in enumerate(pieces, 1):
            await exchange.piece(piece, more=number < len(pieces))

    with pytest.raises(RuntimeError):
        await send()
    assert not exchange.is_complete
    assert not exchange.is_done


async def test_to_a_client_that_is_gone_nothing_is_written():
    exchange = Exchange()
    exchange.disconnected = True
    await exchange.start()
    await exchange.piece(b"x")
    assert exchange.written == b""
