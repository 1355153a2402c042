"""Requests whose framing is broken, or that a proxy might read differently: they are refused, and quietly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.wire import Peer, Site, chunked, request, wait_until

Connect = Callable[..., Peer]
pytestmark = pytest.mark.parametrize("loop_kind", ["uvloop"], indirect=True)  # nothing here depends on it
NO_SECOND = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""Behind every broken request; nobody may ever answer it."""


@pytest.fixture(autouse=True)
def _nothing_is_smuggled(site: Site):
    asked = []

    async def smuggled(scope, receive, send) -> None:
        asked.append(scope["path"])

    site.routes["/smuggled"] = smuggled
    yield
    wait_until(lambda: site.tasks == 0)
    assert asked == []


def assert_refused(peer: Peer) -> None:
    answer = peer.answer()
    assert answer.status == 400, answer
    assert answer.closes
    assert answer.is_whole
    assert peer.is_ended()


CHUNKS = {
    "a size with a prefix": b"0x10\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size of other digits": b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
    "an enormous size": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a size that ends with LF alone": b"5\nhello\r\n0\r\n\r\n",
    "data that ends with LF alone": b"5\r\nhello\n0\r\n\r\n",
    "data that ends with nothing": b"5\r\nhello0\r\n\r\n",
    "a chunk longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "a chunk shorter than its size": b"6\r\nhello\r\n0\r\n\r\n" + b"x" * 20 + b"\r\n",
    "a size with CR inside": b"5\r;x\r\nhello\r\n0\r\n\r\n",
    "a size with NUL behind": b"5\0\r\nhello\r\n0\r\n\r\n",
    "an extension with NUL": b"5;\0\r\nhello\r\n0\r\n\r\n",
    "a last chunk that ends with LF alone": b"5\r\nhello\r\n0\n\n",
    "a line that never ends": b"5;" + b"x" * 50_000,
    "an extension that is too long": b"5;" + b"x" * 50_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a trailer that is too long": b"5\r\nhello\r\n0\r\n" + b"X-Trailer: value\r\n" * 10_000 + b"\r\n",
    "a line of the trailer that is too long": b"5\r\nhello\r\n0\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "a flood of tiny chunks": b"1\r\nx\r\n" * 400_000 + b"0\r\n\r\n",
}


@pytest.mark.parametrize("wire", CHUNKS.values(), ids=CHUNKS)
def test_broken_chunks_on_the_way_to_a_file_are_refused(site: Site, connect: Connect, wire: bytes) -> None:
    peer = connect(site)
    peer.send(request("PATCH", "/file", wire, Transfer_Encoding="chunked") + NO_SECOND)
    assert_refused(peer)
    assert site.failures == ["BodyMalformed"]


PARSED = {name: wire for name, wire in CHUNKS.items() if name not in {
    "a line that never ends", "an extension that is too long", "a trailer that is too long",
    "a line of the trailer that is too long", "a flood of tiny chunks",
}}  # fmt: skip


@pytest.mark.parametrize("wire", PARSED.values(), ids=PARSED)
def test_broken_chunks_on_the_way_to_the_application_are_refused(
    site: Site, connect: Connect, wire: bytes
) -> None:
    peer = connect(site).send(request("POST", "/plain", wire, Transfer_Encoding="chunked") + NO_SECOND)
    assert_refused(peer)
    wait_until(lambda: site.failures == ["disconnect"])


@pytest.mark.parametrize(
    "name", ["Connection", "Proxy-Connection", "Upgrade", "Content-Length", "Transfer-Encoding"]
)
def test_a_trailer_does_not_speak_of_the_connection(site: Site, connect: Connect, name: str) -> None:
    """The parser would obey it: after ``Connection: close`` it passed over all that followed."""
    trailer = b"5\r\nhello\r\n0\r\n%b: close\r\n\r\n" % name.encode()
    peer = connect(site).send(request("GET", "/plain", trailer, Transfer_Encoding="chunked") + NO_SECOND)
    assert_refused(peer)
    wait_until(lambda: site.failures == ["disconnect"])


@pytest.mark.parametrize("endless", [b"0\r\nX-Trailer: ", b"0\r\nX-", b"5;x="], ids=["value", "name", "extension"])
def test_framing_without_end_is_refused(site: Site, connect: Connect, endless: bytes) -> None:
    """A header of the trailer would be kept in memory until its end."""
    peer = connect(site).send(request("POST", "/plain", b"3\r\nabc\r\n" + endless, Transfer_Encoding="chunked"))

    def go_on() -> None:
        for _ in range(1000):
            peer.send(b"x" * 65536)

    with pytest.raises(ConnectionError):
        go_on()
    wait_until(lambda: site.failures == ["disconnect"])


def test_a_long_trailer_is_read_over(site: Site, connect: Connect) -> None:
    trailer = b"3\r\nabc\r\n0\r\n" + b"X-Trailer: value\r\n" * 1000 + b"\r\n"
    peer = connect(site)
    assert peer.ask(request("POST", "/plain", trailer, Transfer_Encoding="chunked")).json["size"] == 3
    assert peer.ask(request("GET", "/")).body == b"hello"


def test_a_large_body_that_breaks_later_is_refused(site: Site, connect: Connect) -> None:
    peer = connect(site)
    peer.send(request("PATCH", "/file", Transfer_Encoding="chunked") + b"1e8480\r\n" + b"x" * 2_000_000 + b"\r\n")
    wait_until(lambda: site.tasks)
    peer.send(b"zz\r\n" + NO_SECOND)
    assert_refused(peer)


def test_chunks_of_one_byte_are_taken_while_they_are_few(site: Site, connect: Connect) -> None:
    answer = connect(site).ask(request("PATCH", "/file", chunked(b"x" * 50_000, 1), Transfer_Encoding="chunked"))
    assert answer.json["size"] == 50_000


HEADS = {
    "CL.TE": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE.CL": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "TE.TE": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "TE twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": "Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": "Content-Length: +5\r\n\r\nhello",
    "a negative length": "Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": "Content-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": "Content-Length: 0_5\r\n\r\nhello",
    "an empty length": "Content-Length:\r\n\r\nhello",
    "an enormous length": "Content-Length: 99999999999999999999999\r\n\r\nhello",
    "gzip and chunked": "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked and identity": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "another encoding": "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "something like chunked": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a vertical tab": "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded encoding": "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded length": "Content-Length: 1\r\n 0\r\n\r\nhello",
    "a folded header": "X-Header: a\r\n b\r\n\r\n",
    "LF alone behind a header": "X-Header: a\nContent-Length: 5\r\n\r\nhello",
    "CR alone behind a header": "X-Header: a\rContent-Length: 5\r\n\r\nhello",
    "NUL in a value": "X-Header: a\0b\r\n\r\n",
    "NUL in a name": "X-Hea\0der: a\r\n\r\n",
    "a header without a name": ": a\r\n\r\n",
    "a header without a colon": "X-Header\r\n\r\n",
    "two hosts": "Host: elsewhere\r\n\r\n",
}


@pytest.mark.parametrize("rest", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("line", ["POST /file", "GET /"])
def test_a_head_that_can_be_read_in_two_ways_is_refused(
    site: Site, connect: Connect, line: str, rest: str
) -> None:
    head = f"{line} HTTP/1.1\r\nHost: localhost\r\n{rest}".encode("latin-1")
    peer = connect(site).send(head + NO_SECOND)
    assert_refused(peer)
    assert site.failures == []


LINES = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no host, with a body": b"POST /file HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2 without a request": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "LF alone in the head": b"GET / HTTP/1.1\nHost: x\n\n",
    "LF alone in a head with a body": b"PUT /file HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is not ASCII": b"GET /\xff\xc3 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path without a root": b"PUT file HTTP/1.1\r\nHost: x\r\n\r\n",
    "binary": bytes(range(128, 256)) * 10,
}


@pytest.mark.parametrize("head", LINES.values(), ids=LINES)
def test_what_is_not_a_request_is_refused(site: Site, connect: Connect, head: bytes) -> None:
    assert_refused(connect(site).send(head))


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_head_without_end_is_refused(site: Site, connect: Connect, method: str) -> None:
    peer = connect(site).send(f"{method} / HTTP/1.1\r\nHost: localhost\r\n".encode())

    def go_on() -> None:
        for _ in range(1000):
            peer.send(b"X-Header: " + b"x" * 100_000 + b"\r\n")

    with pytest.raises(ConnectionError):  # the server does not listen to all of it
        go_on()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_the_answer_to_a_head_that_is_too_large_can_be_read(site: Site, connect: Connect, method: str) -> None:
    head = request(method, "/", **{f"X-Header-{number}": "x" * 1000 for number in range(300)})
    assert_refused(connect(site).send(head[:-2]))


def test_a_large_head_is_fine(site: Site, connect: Connect) -> None:
    fields = {f"X-Header-{number}": "x" * 1000 for number in range(40)}
    peer = connect(site)
    for method, path, status in (("GET", "/", 200), ("PUT", "/file", 201)):
        assert peer.ask(request(method, path, b"", **fields)).status == status


def test_garbage_behind_a_request_never_mixes_with_its_answer(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(b"x" * 3_000_000)
    peer = connect(site).send(request("GET", "/blob") + b"\0garbage\r\n\r\n")
    # Either the answer, or an end. No second answer within the first.
    assert b"400 Bad Request" not in peer.read_all()


def test_a_flood_of_requests_at_once_is_cut(site: Site, connect: Connect) -> None:
    peer = connect(site).send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
    assert peer.read_all().count(b"hello") < 200
    assert connect(site).ask(request("GET", "/")).status == 200


def test_a_wrong_request_behind_a_good_one_on_a_kept_connection_is_refused(site: Site, connect: Connect) -> None:
    peer = connect(site)
    assert peer.ask(request("GET", "/")).status == 200
    assert_refused(peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"))
