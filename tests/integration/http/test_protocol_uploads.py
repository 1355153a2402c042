"""Bodies of requests, on their way into files and into the application."""

from __future__ import annotations

import hashlib
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.disk import small_disk
from tests.support.wire import Answer, Peer, Site, answer, chunked, request, wait_until

from dtr.http import steps
from dtr.http.bodies import receive_to_file

Connect = Callable[..., Peer]
BIG = os.urandom(3_000_000)
"""More than one turn of a buffer."""


framings = pytest.mark.parametrize("framing", ["length", "chunked"])


def framed(method: str, path: str, data: bytes, framing: str) -> bytes:
    if framing == "chunked":
        return request(method, path, chunked(data), Transfer_Encoding="chunked")
    return request(method, path, data)


def assert_received(answer: Answer, data: bytes) -> None:
    assert answer.status == 201, answer
    assert answer.json["size"] == len(data)
    assert answer.json["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_body_of_known_length_reaches_its_file(site: Site, connect: Connect) -> None:
    answer = connect(site).ask(request("PUT", "/file", BIG))
    assert_received(answer, BIG)
    assert not answer.closes


@pytest.mark.parametrize("size", [1_500_000, 32768, 4096])
def test_a_chunked_body_reaches_its_file(site: Site, connect: Connect, size: int) -> None:
    answer = connect(site).ask(request("PATCH", "/file", chunked(BIG, size), Transfer_Encoding="chunked"))
    assert_received(answer, BIG)
    assert not answer.closes


def test_a_small_chunked_body_that_comes_with_its_head_reaches_its_file(site: Site, connect: Connect) -> None:
    answer = connect(site).ask(request("PATCH", "/file", chunked(b"small"), Transfer_Encoding="chunked"))
    assert_received(answer, b"small")


def test_an_empty_chunked_body_is_one(site: Site, connect: Connect) -> None:
    answer = connect(site).ask(request("PATCH", "/file", chunked(b""), Transfer_Encoding="chunked"))
    assert_received(answer, b"")


def test_a_small_body_of_known_length_reaches_its_file(site: Site, connect: Connect) -> None:
    assert_received(connect(site).ask(request("PUT", "/file", b"small")), b"small")


def test_a_request_without_a_body_has_an_empty_one(site: Site, connect: Connect) -> None:
    assert_received(connect(site).ask(request("PUT", "/file", Content_Length="0")), b"")
    assert_received(connect(site).ask(request("POST", "/file")), b"")


def test_chunks_of_random_sizes_reach_their_file(site: Site, connect: Connect) -> None:
    random.seed(7)
    wire, position = b"", 0
    while position < len(BIG):
        piece = BIG[position : position + random.choice([1, 2, 100, 5000, 40_000, 300_000])]
        wire += b"%x\r\n%b\r\n" % (len(piece), piece)
        position += len(piece)
    wire += b"0\r\n\r\n"
    assert_received(connect(site).ask(request("PATCH", "/file", wire, Transfer_Encoding="chunked")), BIG)


def test_extensions_and_trailers_of_chunks_are_read_over(site: Site, connect: Connect) -> None:
    wire = (
        b"5;name=value\r\nhello\r\n"
        b'1;name="quoted, value"\r\n \r\n'
        b"00005;x\r\nworld\r\n"
        b"000;last\r\nX-Trailer: value\r\nAuthorization: Bearer x\r\n\r\n"
    )
    peer = connect(site)
    for path in ("/file", "/plain"):
        answer = peer.ask(request("PATCH", path, wire, Transfer_Encoding="chunked"))
        assert_received(answer, b"hello world")


def test_a_trailer_adds_no_header_to_its_request(site: Site, connect: Connect) -> None:
    names: list[bytes] = []

    async def tell(scope, receive, send) -> None:
        await site.routes["/plain"](scope, receive, send)
        names.extend(name for name, _ in scope["headers"])

    site.routes["/tell"] = tell
    wire = b"5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\nHost: elsewhere\r\n\r\n"
    assert_received(connect(site).ask(request("POST", "/tell", wire, Transfer_Encoding="chunked")), b"hello")
    wait_until(lambda: names)
    assert names == [b"host", b"transfer-encoding"]


@given(data=st.data())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_how_the_wire_is_cut_into_packets_makes_no_difference(
    site: Site, connect: Connect, data: st.DataObject
) -> None:
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
    body = b"".join(pieces)
    wire = b"".join(b"%x;e\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nT: x\r\n\r\n"
    path = data.draw(st.sampled_from(["/file", "/plain"]))
    whole = request("PATCH", path, wire, Transfer_Encoding="chunked") + request("GET", "/")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=12)))
    peer = connect(site)
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        peer.send(whole[start:end])
    assert_received(peer.answer(), body)
    assert peer.answer().body == b"hello"
    peer.close()


def test_a_wire_of_single_bytes_is_understood(site: Site, connect: Connect) -> None:
    whole = request("PATCH", "/file", chunked(b"hello", 3), Transfer_Encoding="chunked")
    peer = connect(site)
    for position in range(len(whole)):
        peer.send(whole[position : position + 1])
    assert_received(peer.answer(), b"hello")


def test_two_uploads_and_a_get_in_one_write_are_answered_in_order(site: Site, connect: Connect) -> None:
    other = BIG[::-1]
    peer = connect(site).send(
        request("PATCH", "/file", chunked(BIG), Transfer_Encoding="chunked")
        + request("PUT", "/file", other)
        + request("GET", "/")
    )
    assert_received(peer.answer(), BIG)
    assert_received(peer.answer(), other)
    assert peer.answer().body == b"hello"


def test_small_uploads_behind_each_other_are_answered_in_order(site: Site, connect: Connect) -> None:
    bodies = [f"number {number}".encode() for number in range(20)]
    whole = b"".join(
        request("PATCH", "/file", chunked(body), Transfer_Encoding="chunked")
        if number % 2
        else request("POST", "/plain", body)
        for number, body in enumerate(bodies)
    )
    peer = connect(site).send(whole)
    for body in bodies:
        assert_received(peer.answer(), body)


def test_an_upload_behind_an_unfinished_answer_reaches_its_file(site: Site, connect: Connect) -> None:
    site.blob.write_bytes(BIG)
    peer = connect(site).send(request("GET", "/blob") + request("PUT", "/file", BIG) + request("GET", "/"))
    assert peer.answer().body == BIG
    assert_received(peer.answer(), BIG)
    assert peer.answer().body == b"hello"


def test_an_application_may_read_a_large_body_itself(site: Site, connect: Connect) -> None:
    peer = connect(site)
    assert_received(peer.ask(request("PATCH", "/plain", chunked(BIG), Transfer_Encoding="chunked")), BIG)
    assert_received(peer.ask(request("PUT", "/plain", BIG)), BIG)
    assert peer.ask(request("GET", "/")).body == b"hello"


def test_a_connection_carries_many_uploads(site: Site, connect: Connect) -> None:
    peer = connect(site)
    for number in range(20):
        body = BIG[: number * 30_000]
        framing = {"Transfer_Encoding": "chunked"} if number % 2 else {}
        answer = peer.ask(request("PATCH", "/file", chunked(body) if number % 2 else body, **framing))
        assert_received(answer, body)


def test_a_body_that_is_larger_than_a_turn_reaches_its_file(site: Site, connect: Connect) -> None:
    digest, piece = hashlib.sha256(), os.urandom(1 << 20)
    peer = connect(site).send(request("PUT", "/file", Content_Length=str(70 << 20)))
    for _ in range(70):
        peer.send(piece)
        digest.update(piece)
    answer = peer.answer()
    assert answer.json["size"] == 70 << 20
    assert answer.json["sha256"] == digest.hexdigest()


def test_a_head_in_several_packets_is_understood(site: Site, connect: Connect) -> None:
    for whole in (request("PUT", "/file", BIG), request("GET", "/")):
        peer = connect(site)
        for position in range(0, 60, 7):
            peer.send(whole[position : position + 7])
        peer.send(whole[63:])
        assert peer.answer().status in {200, 201}


# --- Expect ---


def test_a_client_that_waits_for_a_go_ahead_gets_it_when_its_body_is_read(site: Site, connect: Connect) -> None:
    for path, framing in (
        ("/file", {"Content_Length": "5"}),
        ("/file", {"Transfer_Encoding": "chunked"}),
        ("/plain", {"Content_Length": "5"}),
        ("/plain", {"Transfer_Encoding": "chunked"}),
    ):
        peer = connect(site).send(request("PUT", path, Expect="100-continue", **framing))
        assert peer.answer().status == 100
        peer.send(b"hello" if "Content_Length" in framing else chunked(b"hello"))
        answer = peer.answer()
        assert_received(answer, b"hello")
        assert not answer.closes
        assert peer.ask(request("GET", "/")).body == b"hello"


def test_a_client_that_waits_for_a_go_ahead_may_be_refused(site: Site, connect: Connect) -> None:
    for framing in ({"Content_Length": "5000000"}, {"Content_Length": "5"}, {"Transfer_Encoding": "chunked"}):
        peer = connect(site).send(request("PUT", "/early", Expect="100-continue", **framing))
        answer = peer.answer()
        assert answer.status == 401
        assert answer.closes
        assert peer.is_ended()


def test_a_body_that_is_too_large_is_refused_before_the_go_ahead(site: Site, connect: Connect) -> None:
    peer = connect(site).send(request("PUT", "/file?limit=4", Expect="100-continue", Content_Length="5"))
    assert peer.answer().status == 413
    assert peer.is_ended()


def test_a_client_that_does_not_wait_for_the_go_ahead_is_served(site: Site, connect: Connect) -> None:
    peer = connect(site).send(request("PUT", "/file", BIG, Expect="100-continue"))
    assert peer.answer().status == 100
    assert_received(peer.answer(), BIG)


# --- files that cannot be opened ---


class Refused(Exception):
    pass


class Stubborn:
    """A file that can be opened after so many attempts."""

    def __init__(self, site: Site, refusals: int) -> None:
        self.refusals = refusals
        self.threads: set[str] = set()
        self.descriptor = os.open(site.directory, os.O_RDWR | os.O_TMPFILE)

    def open(self) -> int:
        self.threads.add(threading.current_thread().name)
        if self.refusals:
            self.refusals -= 1
            raise Refused
        return self.descriptor

    def arrived(self, size: int) -> None:
        self.threads.add(threading.current_thread().name)
        assert os.fstat(self.descriptor).st_size == size


@framings
@pytest.mark.parametrize("body", [b"hello", BIG])
def test_a_body_whose_file_was_refused_can_still_be_taken(
    site: Site, connect: Connect, framing: str, body: bytes
) -> None:
    async def stubborn(scope, receive, send) -> None:
        file, digest = Stubborn(site, 2), hashlib.sha256()
        for _ in range(2):
            with pytest.raises(Refused):
                await receive_to_file(scope, receive, file, hasher=digest)
        assert digest.digest() == hashlib.sha256().digest()
        size = await receive_to_file(scope, receive, file, hasher=digest)
        stored = os.pread(file.descriptor, size, 0)
        os.close(file.descriptor)
        assert not {"MainThread", "site"} & file.threads, "it would keep the loop from its work"
        assert hashlib.sha256(stored).digest() == digest.digest()
        await answer(send, 201, stored)

    site.routes["/stubborn"] = stubborn
    peer = connect(site)
    for _ in range(2):
        assert peer.ask(framed("PUT", "/stubborn", body, framing)).body == body
    assert peer.ask(request("GET", "/")).body == b"hello"


@framings
def test_nothing_is_read_of_a_body_whose_file_is_refused(site: Site, connect: Connect, framing: str) -> None:
    async def refusing(scope, receive, send) -> None:
        file = Stubborn(site, 1)
        try:
            await receive_to_file(scope, receive, file, hasher=hashlib.sha256())
        except Refused:
            await answer(send, 409)
        os.close(file.descriptor)

    site.routes["/refusing"] = refusing
    got = connect(site).send(framed("PUT", "/refusing", BIG, framing)).answer()
    assert (got.status, got.closes) == (409, True)
    waiting = {"Transfer_Encoding": "chunked"} if framing == "chunked" else {"Content_Length": str(len(BIG))}
    peer = connect(site).send(request("PUT", "/refusing", Expect="100-continue", **waiting))
    assert peer.answer().status == 409, "before the go-ahead"
    assert peer.is_ended()


@pytest.mark.parametrize(("size", "rests"), [(1_000_000, False), (10_000_000, True)])
def test_only_a_large_body_is_gathered_after_a_pause(
    site: Site, connect: Connect, monkeypatch: pytest.MonkeyPatch, size: int, rests: bool
) -> None:
    slept: list[float] = []
    waits: queue.SimpleQueue[int] = queue.SimpleQueue()
    wait = steps.Step._wait

    def noted(step: steps.ReceiveStep, wire: steps.Wire, seconds: float) -> bool:
        waits.put(step.written)
        return wait(step, wire, seconds)

    monkeypatch.setattr(steps, "_GATHER_SECONDS", 0.00077)
    monkeypatch.setattr(steps, "_PATIENCE_SECONDS", 60)
    monkeypatch.setattr(steps.ReceiveStep, "_wait", noted)
    monkeypatch.setattr(time, "sleep", slept.append)
    body = os.urandom(size)
    peer = connect(site).send(request("PUT", "/file", Content_Length=str(size)))
    for start in range(0, size, 500_000):
        while waits.get(timeout=60) < start:  # it waits, and has all that was sent
            pass
        peer.send(body[start : start + 500_000])
    assert_received(peer.answer(), body)
    assert (0.00077 in slept) is rests


# --- upgrades ---


@pytest.mark.parametrize("path", ["/file", "/plain"])
@pytest.mark.parametrize("name", ["Upgrade", "UPGRADE", "upgrade"])
def test_an_offered_upgrade_does_not_cost_the_body(site: Site, connect: Connect, path: str, name: str) -> None:
    offer = {"Connection": "Upgrade, HTTP2-Settings", name: "h2c", "HTTP2_Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    peer = connect(site)
    assert_received(peer.ask(request("POST", path, b"hello", **offer)), b"hello")
    assert_received(peer.ask(request("POST", path, BIG, **offer)), BIG)
    wire = chunked(BIG)
    assert_received(peer.ask(request("POST", path, wire, Transfer_Encoding="chunked", **offer)), BIG)


def test_an_offered_upgrade_is_passed_over(site: Site, connect: Connect) -> None:
    offer = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2_Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
    }
    peer = connect(site).send(request("GET", "/", **offer) + request("GET", "/"))
    for _ in range(2):
        answer = peer.answer()
        assert answer.status == 200
        assert answer.body == b"hello"
    assert peer.ask(request("GET", "/", Connection="Upgrade", Upgrade="websocket")).body == b"hello"


def test_an_upgrade_with_a_body_where_none_is_expected_is_refused(site: Site, connect: Connect) -> None:
    peer = connect(site).send(request("DELETE", "/", b"hello", Connection="Upgrade", Upgrade="h2c"))
    answer = peer.answer()
    assert answer.status in {200, 400}
    assert answer.closes
    assert peer.is_ended()


# --- disks ---


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_the_disk_has_no_room_for_is_refused(
    site: Site, connect: Connect, tmp_path: Path, framing: str
) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        site.directory = disk.path
        peer = connect(site)
        if framing == "length":
            peer.send(request("PUT", "/file", BIG))
        else:
            peer.send(request("PUT", "/file", chunked(BIG), Transfer_Encoding="chunked"))
        answer = peer.answer()
        assert answer.status == 507
        assert answer.closes
        assert 0 < answer.json["written"] < len(BIG)
        assert peer.is_ended()
        assert_received(connect(site).ask(request("PUT", "/file", BIG[:1_000_000])), BIG[:1_000_000])
    site.directory = tmp_path
