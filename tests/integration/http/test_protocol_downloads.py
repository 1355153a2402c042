"""Answers from files and in pieces, to clients that take them, stop taking them, or go away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from tests.support.wire import Peer, Site, answer, request, start, wait_until

from dtr.http.bodies import send_from_file
from dtr.http.transport import Limits

Connect = Callable[..., Peer]
MakeSite = Callable[..., Site]
on_uvloop = pytest.mark.parametrize("loop_kind", ["uvloop"], indirect=True)
BIG = os.urandom(5_000_000)
IMPATIENT = Limits(stall_seconds=0.3, grace_seconds=0.5, lowest_rate=1 << 20)


def test_a_file_is_sent_whole(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    peer = connect(site)
    for _ in range(3):
        got = peer.ask(request("GET", "/blob"))
        assert got.body == BIG
        assert not got.closes


@pytest.mark.parametrize("part", ["0-1", "17-4000000", "4999999-1", "0-0", "5000000-0"])
def test_a_part_of_a_file_is_sent(site: Site, connect: Connect, part: str) -> None:
    site.blob.write_bytes(BIG)
    offset, count = map(int, part.split("-"))
    peer = connect(site)
    assert peer.ask(request("GET", f"/blob?{part}")).body == BIG[offset : offset + count]
    assert peer.ask(request("GET", "/")).body == b"hello"


def test_a_file_that_is_larger_than_a_turn_is_sent(site: Site, connect: Connect) -> None:
    with site.blob.open("wb") as file:
        file.truncate(70 << 20)
        file.seek(-3, os.SEEK_END)
        file.write(b"end")
    got = connect(site).ask(request("GET", "/blob"))
    assert len(got.body) == 70 << 20
    assert got.body[-4:] == b"\0end"


def test_of_a_file_more_may_wait_in_the_kernel_when_others_are_sent(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    one, other = (connect(site, buffer=4096) for _ in range(2))
    alone, together = [64 << 10], [2 << 20, 2 << 20]
    one.send(request("GET", "/blob"))
    wait_until(lambda: site.unsent == alone)
    other.send(request("GET", "/blob"))
    wait_until(lambda: site.unsent == together)
    other.close()
    wait_until(lambda: site.unsent == alone)
    assert one.answer().body == BIG
    wait_until(lambda: site.unsent == [])


def test_an_empty_file_is_sent(site: Site, connect: Connect) -> None:
    peer = connect(site)
    assert peer.ask(request("GET", "/blob")).body == b""
    assert peer.ask(request("GET", "/")).body == b"hello"


def test_head_tells_the_size_and_sends_nothing(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    peer = connect(site)
    assert peer.ask(request("HEAD", "/blob")).headers["content-length"] == str(len(BIG))
    assert peer.ask(request("GET", "/")).body == b"hello"


def test_files_asked_for_in_one_write_are_sent_in_order(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    asked = [(number * 1000, 300_000 + number) for number in range(8)]
    peer = connect(site).send(b"".join(request("GET", f"/blob?{offset}-{count}") for offset, count in asked))
    for offset, count in asked:
        assert peer.answer().body == BIG[offset : offset + count]


def test_a_file_that_is_shorter_than_announced_cuts_the_connection(
    site: Site, connect: Connect, no_leak: None
) -> None:
    site.blob.write_bytes(BIG)
    peer = connect(site)
    got = peer.ask(request("GET", "/blob?0-5000001"))
    assert not got.is_whole
    assert BIG.startswith(got.body)
    assert peer.is_ended()
    assert site.failures == ["the file is shorter than it should be"]
    peer.close()


def test_a_file_that_cannot_be_read_cuts_the_connection(site: Site, connect: Connect) -> None:
    async def unreadable(scope, receive, send) -> None:
        descriptor = os.open(site.directory, os.O_WRONLY | os.O_TMPFILE)
        try:
            await start(send, 200, 100)
            await send_from_file(scope, send, descriptor, 0, 100)
        except OSError as error:
            site.failures.append(type(error).__name__)
        finally:
            os.close(descriptor)

    site.routes["/unreadable"] = unreadable
    got = connect(site).ask(request("GET", "/unreadable"))
    assert got.body == b""
    assert not got.is_whole
    assert site.failures == ["OSError"]


def test_a_client_that_asks_to_close_is_obeyed(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    for path, body in (("/", b"hello"), ("/blob", BIG)):
        peer = connect(site)
        got = peer.ask(request("GET", path, Connection="close"))
        assert got.closes
        assert got.body == body
        assert peer.is_ended()


def test_http_1_0_is_answered_and_closed(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    for head, body in (
        (b"GET / HTTP/1.0\r\n\r\n", b"hello"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"hello"),
        (b"GET /blob HTTP/1.0\r\n\r\n", BIG),
    ):
        peer = connect(site).send(head)
        got = peer.answer()
        assert got.body == body
        assert got.closes
        assert peer.is_ended()


def test_an_upload_by_http_1_0_is_taken(site: Site, connect: Connect) -> None:
    for extra in (b"", b"Expect: 100-continue\r\n"):  # which HTTP/1.0 does not know
        head = b"PUT /file HTTP/1.0\r\nContent-Length: %d\r\n%b\r\n" % (len(BIG), extra)
        peer = connect(site).send(head + BIG)
        got = peer.answer()
        assert got.status == 201
        assert got.json["size"] == len(BIG)
        assert peer.is_ended()


# --- clients that do not take it ---


@on_uvloop
def test_a_client_that_stops_taking_a_file_is_cut(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(IMPATIENT)
    with site.blob.open("wb") as file:
        file.truncate(1 << 30)
    peer = connect(site, buffer=4096).send(request("GET", "/blob"))
    wait_until(lambda: site.gone == 1)
    assert len(peer.read_all()) < 100 << 20


@on_uvloop
def test_a_client_that_stops_taking_a_stream_is_cut(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(IMPATIENT)
    peer = connect(site, buffer=4096).send(request("GET", "/stream?10000"))
    wait_until(lambda: site.gone == 1)
    assert len(peer.read_all()) < 100 << 20


@on_uvloop
def test_a_client_that_does_not_take_the_end_is_cut(make_site: MakeSite, connect: Connect) -> None:
    written = []

    async def whole(scope, receive, send) -> None:
        await answer(send, 200, b"x" * (32 << 20))
        written.append(scope["path"])

    for headers in ({"Connection": "close"}, {}):
        site = make_site(Limits(grace_seconds=0.3, lowest_rate=1 << 30, keep_alive_seconds=0.3))
        site.routes["/whole"] = whole
        written.clear()
        connect(site, buffer=4096).send(request("GET", "/whole", **headers))
        wait_until(lambda: written)
        wait_until(lambda site=site: site.connections == 0)


@on_uvloop
def test_a_client_that_takes_a_file_slowly_gets_it(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(Limits(stall_seconds=10, grace_seconds=10, lowest_rate=1024))
    site.blob.write_bytes(BIG)
    peer = connect(site, buffer=65536).send(request("GET", "/blob"))
    got = bytearray()
    for goal in range(500_000, len(BIG), 500_000):
        while len(got) < goal:
            got += peer.receive(1 << 16)
        time.sleep(0.06)  # longer than the patience of a step
    while not got.endswith(BIG[-100:]):
        got += peer.receive(1 << 16)
    assert got.partition(b"\r\n\r\n")[2] == BIG


@pytest.mark.parametrize("path", ["/blob", "/stream?100000"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_goes_away_ends_its_answer(
    site: Site, connect: Connect, no_leak: None, path: str, how: str
) -> None:
    with site.blob.open("wb") as file:
        file.truncate(1 << 32)
    peer = connect(site).send(request("GET", path))
    peer.receive(1000)
    getattr(peer, how)()
    wait_until(lambda: site.gone == 1)


def test_a_client_that_goes_away_before_its_answer_begins_is_not_noticed_by_others(
    site: Site, connect: Connect, no_leak: None
) -> None:
    site.blob.write_bytes(BIG)
    for how in ("close", "reset") * 10:
        peer = connect(site).send(request("GET", "/blob"))
        getattr(peer, how)()
    other = connect(site)
    assert other.ask(request("GET", "/blob")).body == BIG
    other.close()
