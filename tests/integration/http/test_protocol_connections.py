"""Connections: their ends, their clocks, their threads."""

from __future__ import annotations

import _ssl
import asyncio
import contextlib
import ctypes
import logging
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from tests.support.wire import Opened, Peer, Site, answer, chunked, request, wait_until

from dtr.http import steps
from dtr.http.bodies import MISDIRECTED, receive_to_file
from dtr.http.front import Front
from dtr.http.transport import Limits
from dtr.pki import Certificate

Connect = Callable[..., Peer]
MakeSite = Callable[..., Site]
BIG = os.urandom(5_000_000)
LARGE = Limits(stall_seconds=60, grace_seconds=60, head_seconds=60, keep_alive_seconds=60, linger_seconds=60)


def framed(method: str, path: str, data: bytes, framing: str) -> bytes:
    if framing == "chunked":
        return request(method, path, chunked(data), Transfer_Encoding="chunked")
    return request(method, path, data)


framings = pytest.mark.parametrize("framing", ["length", "chunked"])
on_uvloop = pytest.mark.parametrize("loop_kind", ["uvloop"], indirect=True)
targets = pytest.mark.parametrize("path", ["/file", "/plain"])


# --- answers before the body was read ---


@on_uvloop
@framings
@pytest.mark.parametrize("status", [401, 413, 500])
@pytest.mark.parametrize("size", [100_000, 8_000_000])
def test_an_early_answer_is_read_by_a_client_that_sends_everything_first(
    make_site: MakeSite, connect: Connect, framing: str, status: int, size: int
) -> None:
    site = make_site(LARGE)
    peer = connect(site).send(framed("PUT", f"/early?{status}", os.urandom(size), framing))
    got = peer.answer()
    assert got.status == status
    assert got.body == b"x" * 1000
    assert got.closes or size == 100_000


@framings
def test_an_early_answer_is_read_by_a_client_that_never_stops_sending(
    make_site: MakeSite, connect: Connect, framing: str
) -> None:
    site = make_site(LARGE)
    peer = connect(site)
    length = {"Content_Length": str(1 << 40)} if framing == "length" else {"Transfer_Encoding": "chunked"}
    sent = request("PUT", "/early", **length)
    piece = BIG if framing == "length" else b"%x\r\n%b\r\n" % (len(BIG), BIG)
    # Another connection object over the same socket would have its own TLS: encrypt here, send in the thread.
    wire = peer.encrypted(sent + piece * 4)
    got = []
    reader = threading.Thread(target=lambda: got.append(peer.answer()))
    reader.start()
    with pytest.raises(ConnectionError):
        _send_on(peer, wire)
    reader.join()
    assert got[0].status == 401
    assert got[0].is_whole
    assert got[0].closes


def _send_on(peer: Peer, wire: bytes) -> None:
    while True:
        peer.send_raw(wire)


@framings
def test_a_body_over_the_limit_is_refused(site: Site, connect: Connect, framing: str) -> None:
    peer = connect(site).send(framed("PUT", "/file?limit=4999999", BIG, framing))
    got = peer.answer()
    assert got.status == 413
    assert got.closes
    assert peer.is_ended()
    assert (got.json["written"] == 0) == (framing == "length")


@framings
def test_a_body_of_exactly_the_limit_is_taken(site: Site, connect: Connect, framing: str) -> None:
    got = connect(site).ask(framed("PUT", "/file?limit=5000000", BIG, framing))
    assert got.status == 201


def test_behind_a_body_that_nobody_read_no_request_is_taken(site: Site, connect: Connect) -> None:
    peer = connect(site).send(request("PUT", "/early", request("GET", "/") * 10_000) + request("GET", "/"))
    assert peer.answer().status == 401
    assert b"hello" not in peer.read_all()


def test_a_small_body_that_nobody_read_does_not_cost_the_connection(site: Site, connect: Connect) -> None:
    peer = connect(site)
    for framing in ("length", "chunked"):
        peer = connect(site)
        got = peer.ask(framed("POST", "/early", b"small", framing))
        assert got.status == 401
        if not got.closes:
            assert peer.ask(request("GET", "/")).body == b"hello"


# --- clients that go away ---


@framings
@targets
def test_a_client_that_goes_away_in_its_request_leaves_nothing_behind(
    site: Site, connect: Connect, no_leak: None, framing: str, path: str
) -> None:
    wire = framed("PUT", path, BIG, framing)
    for sent in (3, 40, 200, 20_000, 4_000_000):
        for how in ("close", "reset"):
            site.failures.clear()
            peer = connect(site).send(wire[:sent])
            wait_until(lambda sent=sent: site.tasks if sent > 1000 else site.connections)
            getattr(peer, how)()
            wait_until(lambda: site.connections == 0 and site.tasks == 0)
            assert site.failures in (["BodyCut"], ["disconnect"]) or sent < 1000


@framings
@targets
def test_a_client_that_ends_in_its_body_may_read_the_answer(
    site: Site, connect: Connect, no_leak: None, framing: str, path: str
) -> None:
    wire = framed("PUT", path, BIG, framing)
    peer = connect(site).send(wire[:-1000]).finish_writing()
    data = peer.read_all()
    assert data == b"" or b"BodyCut" in data
    peer.close()


@framings
def test_a_client_that_ends_behind_its_body_gets_its_answer(site: Site, connect: Connect, framing: str) -> None:
    got = connect(site).send(framed("PUT", "/file", BIG, framing)).finish_writing().answer()
    assert got.json["size"] == len(BIG)


@targets
def test_a_client_that_goes_away_before_its_body_is_read_is_noticed(
    site: Site, connect: Connect, no_leak: None, path: str
) -> None:
    gate = asyncio.Event()

    async def late(scope, receive, send) -> None:
        await gate.wait()
        await site.routes[path](scope, receive, send)

    site.routes["/late"] = late
    peers = [connect(site).send(framed("PUT", "/late", BIG, one)[:300_000]) for one in ("length", "chunked")]
    wait_until(lambda: site.tasks == 2)
    for peer in peers:
        peer.reset()
    site.call(gate.set)
    wait_until(lambda: len(site.failures) == 2)


# --- clients that send no more ---


def _gate(site: Site) -> asyncio.Event:
    """A route ``/late`` that answers when the event is set, or notices that nobody waits any more."""
    gate = asyncio.Event()

    async def late(scope, receive, send) -> None:
        gone = asyncio.create_task(receive())
        while not gate.is_set():
            await asyncio.sleep(0.005)
            if scope["extensions"]["dtr.is_gone"]():
                site.gone += 1
                gone.cancel()
                return
        gone.cancel()
        await answer(send, 200, b"late")

    site.routes["/late"] = late
    return gate


def _half_closed(site: Site) -> int:
    return sum(one.is_half_closed for one in list(site.server._state.connections))  # its thread changes them


def test_a_client_that_sends_no_more_gets_the_answers_to_what_it_sent(
    site: Site, connect: Connect, no_leak: None
) -> None:
    gate = _gate(site)
    site.blob.write_bytes(BIG)
    for whole in (
        request("GET", "/late"),
        request("GET", "/late", Connection="close"),
        request("POST", "/late", b"small"),
        request("GET", "/late") + request("GET", "/"),
        request("GET", "/late") + request("GET", "/stream?20"),
        request("GET", "/late") + request("GET", "/blob"),
    ):
        gate.clear()
        peer = connect(site).send(whole).end()
        if whole.count(b"HTTP/1.1") == 1:
            wait_until(lambda: _half_closed(site))
        site.call(gate.set)
        got = peer.answer()
        assert got.body == b"late"
        if whole.count(b"HTTP/1.1") == 1:
            assert got.closes
        else:
            further = peer.answer()
            assert further.is_whole
            assert len(further.body) in {5, 20 << 16, len(BIG)}
        assert peer.is_ended()
        peer.close()
        wait_until(lambda: site.connections == 0)  # the next one is not taken for this one


@pytest.mark.parametrize("how", ["half a head", "half a body", "between requests"])
def test_a_client_that_sends_no_more_and_is_owed_nothing_is_let_go(
    site: Site, connect: Connect, no_leak: None, how: str
) -> None:
    peer = connect(site)
    assert peer.ask(request("GET", "/")).body == b"hello"
    if how != "between requests":
        peer.send(request("GET", "/")[:-2] if how == "half a head" else request("PUT", "/plain", b"small")[:-1])
    peer.end()
    assert peer.is_ended()
    peer.close()


def test_a_client_that_went_away_is_noticed_when_nothing_was_sent_to_it_for_a_while(
    make_site: MakeSite, connect: Connect
) -> None:
    site = make_site(Limits(stall_seconds=0.3))
    _gate(site)
    connect(site).send(request("GET", "/late")).end().close()
    wait_until(lambda: site.gone == 1)
    wait_until(lambda: site.connections == 0 and site.tasks == 0)


def test_a_client_that_went_away_is_noticed_when_something_is_sent_to_it(
    make_site: MakeSite, connect: Connect
) -> None:
    site = make_site(LARGE)

    async def drips(scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not scope["extensions"]["dtr.is_gone"]():
            await send({"type": "http.response.body", "body": b"drop", "more_body": True})
            await asyncio.sleep(0.01)
        site.gone += 1

    site.routes["/drips"] = drips
    peer = connect(site).send(request("GET", "/drips")).end()
    wait_until(lambda: _half_closed(site))
    peer.close()
    wait_until(lambda: site.gone == 1)


@on_uvloop
def test_an_answer_goes_on_as_long_as_something_is_sent(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(Limits(stall_seconds=2))

    async def drips(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(6):
            await asyncio.sleep(0.5)
            await send({"type": "http.response.body", "body": b"drop", "more_body": True})
        await send({"type": "http.response.body"})

    site.routes["/drips"] = drips
    assert connect(site).send(request("GET", "/drips")).end().answer().body == b"drop" * 6


def test_tls_that_is_cut_leaves_nobody_to_answer(site: Site, certificate: Certificate, no_leak: None) -> None:
    _gate(site)
    context = ssl.create_default_context(cafile=certificate.authority)
    with Peer(site.tls_port, context) as peer:
        peer.send(request("GET", "/late"))
        wait_until(lambda: site.tasks)
        peer.finish_writing()
        wait_until(lambda: site.gone == 1)


# --- slow clients ---

SLOW = Limits(stall_seconds=5, grace_seconds=0.2, lowest_rate=1024)
STALLED = Limits(stall_seconds=0.3, grace_seconds=60)


@on_uvloop
@targets
@pytest.mark.parametrize(("framing", "pause"), [("length", 0.01), ("chunked", 0.08)])
def test_a_body_that_drips_is_cut(
    make_site: MakeSite, connect: Connect, framing: str, path: str, pause: float
) -> None:
    site = make_site(SLOW)
    peer = connect(site).send(framed("PUT", path, BIG, framing)[:400])
    with pytest.raises(ConnectionError):
        _drip(peer, pause)
    wait_until(lambda: site.failures)
    assert site.failures[0] in {"BodyCut", "disconnect"}


def _drip(peer: Peer, pause: float) -> None:
    for _ in range(int(30 / pause)):
        peer.send(b"x")
        time.sleep(pause)


@on_uvloop
@targets
@framings
def test_a_body_that_stalls_is_cut(make_site: MakeSite, connect: Connect, framing: str, path: str) -> None:
    site = make_site(STALLED)
    peer = connect(site).send(framed("PUT", path, BIG, framing)[:300_000])
    assert peer.is_ended()
    wait_until(lambda: site.failures)
    assert site.failures[0] in {"BodyCut", "disconnect"}


@on_uvloop
@targets
def test_a_small_body_that_stalls_is_cut(make_site: MakeSite, connect: Connect, path: str) -> None:
    site = make_site(STALLED)
    peer = connect(site).send(request("PUT", path, b"hello", Content_Length="6"))
    assert peer.is_ended()
    wait_until(lambda: site.failures)


@on_uvloop
def test_a_body_with_pauses_arrives(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(LARGE)
    peer = connect(site)
    for framing in ("length", "chunked"):
        wire = framed("PUT", "/file", BIG, framing)
        for start in range(0, len(wire), 500_000):
            peer.send(wire[start : start + 500_000])
            time.sleep(0.06)  # longer than the patience of a step
        assert peer.answer().json["size"] == len(BIG)


@pytest.mark.parametrize("kind", ["stalled", "steady"])
def test_many_slow_transfers_do_not_hold_up_a_fast_one(make_site: MakeSite, connect: Connect, kind: str) -> None:
    site = make_site(LARGE)
    with site.blob.open("wb") as file:
        file.truncate(1 << 30)
    slow = []
    for number in range(2 * steps._THREADS):
        if number % 4 == 3:
            slow.append(connect(site, buffer=4096).send(request("GET", "/blob")))
        else:
            slow.append(connect(site).send(request("PUT", "/file", BIG, Content_Length=str(1 << 30))[:300_000]))
    wait_until(lambda: site.tasks == len(slow))
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.005):
            for number, peer in enumerate(slow):
                if number % 4 != 3:
                    peer.send(b"x" * 100)

    steady = threading.Thread(target=go_on)
    if kind == "steady":
        steady.start()
    try:
        for _ in range(3):
            peer = connect(site)
            assert peer.ask(framed("PUT", "/file", BIG, "chunked")).json["size"] == len(BIG)
            assert len(peer.ask(request("GET", "/blob?0-20000000")).body) == 20_000_000
        assert site.tasks >= len(slow)
    finally:
        over.set()
        if kind == "steady":
            steady.join()
        for peer in slow:
            peer.reset()


# --- clocks ---


def test_of_too_many_connections_the_oldest_without_a_request_ends(
    site: Site, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    site.server._state.most = 10
    at_work = connect(site).send(request("PUT", "/file", BIG)[:-1])
    wait_until(lambda: site.tasks)
    peers = [connect(site) for _ in range(5)]
    for peer in peers:
        assert peer.ask(request("GET", "/")).body == b"hello"
    begun = connect(site).send(b"GET / HTTP/1.1\r\n")
    wait_until(lambda: site.tasks == 1)
    fresh = [connect(site) for _ in range(9)]
    assert [peer.ask(request("GET", "/")).status for peer in fresh] == 9 * [200]
    for peer in (*peers, begun):
        assert peer.is_ended()
    assert at_work.send(BIG[-1:]).answer(to="PUT").json["size"] == len(BIG)
    wait_until(lambda: site.connections == 10)
    assert [one.getMessage() for one in caplog.records].count("too many connections") == 1


def test_if_every_connection_is_at_work_no_further_one_is_taken(site: Site, connect: Connect) -> None:
    site.server._state.most = 3
    at_work = [connect(site).send(request("PUT", "/file", BIG)[:-1]) for _ in range(3)]
    wait_until(lambda: site.tasks == 3)
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", site.plain_port)) as further:
        further.recv(1)
    for peer in at_work:
        assert peer.send(BIG[-1:]).answer(to="PUT").status == 201
    wait_until(lambda: site.tasks == 0)
    assert connect(site).ask(request("GET", "/")).status == 200


def test_a_connection_that_says_nothing_is_closed(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(Limits(head_seconds=0.3, handshake_seconds=60, keep_alive_seconds=60))
    assert connect(site).is_ended()


@on_uvloop
def test_an_idle_connection_is_closed_after_its_time(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(Limits(keep_alive_seconds=2, head_seconds=60))
    peer = connect(site)
    for _ in range(2):
        assert peer.ask(request("GET", "/")).body == b"hello"
    assert peer.ask(request("PUT", "/file", BIG)).status == 201
    assert peer.is_ended()


@on_uvloop
def test_a_connection_that_is_used_again_and_again_stays(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(Limits(keep_alive_seconds=4, head_seconds=2))
    peer = connect(site)
    for _ in range(18):  # for longer than either
        assert peer.ask(request("GET", "/")).body == b"hello"
        time.sleep(0.25)


@on_uvloop
def test_a_request_may_take_longer_than_every_limit_of_idleness(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(
        Limits(keep_alive_seconds=1, head_seconds=1, stall_seconds=1, grace_seconds=1, linger_seconds=1)
    )

    async def thoughtful(scope, receive, send) -> None:
        await asyncio.sleep(2)
        await answer(send, 200, b"at last")

    site.routes["/thoughtful"] = thoughtful
    assert connect(site).ask(request("GET", "/thoughtful")).body == b"at last"
    assert connect(site).ask(request("PUT", "/thoughtful", b"x" * 10)).body == b"at last"
    assert connect(site).ask(request("PUT", "/thoughtful", BIG)).body == b"at last"


@on_uvloop
@pytest.mark.parametrize("before", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_head_that_drips_is_cut(make_site: MakeSite, connect: Connect, before: bool, method: str) -> None:
    site = make_site(Limits(head_seconds=2, keep_alive_seconds=60))
    peer = connect(site)
    if before:
        assert peer.ask(request("GET", "/")).body == b"hello"
    peer.send(f"{method} /file HTTP/1.1\r\nHost: localhost\r\nX-Header: ".encode())
    with pytest.raises(ConnectionError):
        _drip(peer, 0.05)
    assert site.tasks == 0


@on_uvloop
def test_the_rest_of_a_body_that_nobody_read_does_not_keep_a_connection(
    make_site: MakeSite, connect: Connect
) -> None:
    site = make_site(Limits(head_seconds=2, keep_alive_seconds=60))
    peer = connect(site)
    assert peer.ask(request("POST", "/early", b"x", Content_Length="10000")).status == 401
    with pytest.raises(ConnectionError):
        _drip(peer, 0.05)


@on_uvloop
def test_who_does_not_read_the_early_answer_is_cut_after_a_while(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(Limits(linger_seconds=0.3))
    peer = connect(site).send(request("PUT", "/early", BIG[:1000], Content_Length="5000000"))
    with pytest.raises(ConnectionError):
        _drip(peer, 0.02)


# --- threads and cancellation ---


@on_uvloop
@framings
def test_a_cancelled_upload_lets_go_of_everything(
    site: Site, connect: Connect, no_leak: None, framing: str
) -> None:
    async def hasty(scope, receive, send) -> None:
        class Hasher:
            def update(self, data) -> None:
                if not seen:  # the time begins with the first bytes
                    site.call(lambda: limit.reschedule(loop.time() + 0.2))
                seen.append(len(data))

        seen: list[int] = []
        loop = asyncio.get_running_loop()
        descriptor = os.open(site.directory, os.O_RDWR | os.O_TMPFILE)
        try:
            async with asyncio.timeout(None) as limit:
                await receive_to_file(scope, receive, Opened(descriptor), hasher=Hasher())
        except TimeoutError:
            assert os.fstat(descriptor).st_size == sum(seen) > 0
            site.failures.append("too late")
            await answer(send, 503)
        finally:
            os.close(descriptor)

    site.routes["/hasty"] = hasty
    for _ in range(2):
        peer = connect(site).send(framed("PUT", "/hasty", BIG, framing)[:-1000])
        got = peer.answer()
        assert got.status == 503
        assert got.closes
        peer.close()
    assert site.failures == ["too late"] * 2


def test_a_cancelled_download_lets_go_of_everything(site: Site, connect: Connect, no_leak: None) -> None:
    with site.blob.open("wb") as file:
        file.truncate(1 << 32)

    async def hasty(scope, receive, send) -> None:
        try:
            async with asyncio.timeout(0.2):
                await site.routes["/blob"](scope, receive, send)
        except TimeoutError:
            site.failures.append("too late")
            raise

    site.routes["/hasty"] = hasty
    site.app = Front({}, site._serve, finished=lambda *_: None, started=lambda: None)
    peer = connect(site).send(request("GET", "/hasty"))
    wait_until(lambda: site.failures)
    assert len(peer.read_all()) < 1 << 32
    peer.close()


# --- the end of the server ---


def test_running_transfers_are_finished_when_the_server_ends(
    make_site: MakeSite, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(LARGE, drain_seconds=60)
    with site.blob.open("wb") as file:
        file.truncate(60_000_000)
    uploads = [connect(site) for _ in range(3)]
    wires = [
        framed("PUT", "/file", BIG, "length"),
        framed("PUT", "/file", BIG, "chunked"),
        request("PUT", "/plain", BIG),
    ]
    for peer, wire in zip(uploads, wires, strict=True):
        peer.send(wire[:-2_000_000])
    download = connect(site, buffer=65536).send(request("GET", "/blob"))
    stream = connect(site, buffer=65536).send(request("GET", "/stream?300"))
    wait_until(lambda: site.tasks == 5)
    site.begin_stop()
    wait_until(lambda: "draining" in caplog.messages)
    assert not _accepts(site.plain_port)
    assert not _accepts(site.tls_port)
    for peer, wire in zip(uploads, wires, strict=True):
        peer.send(wire[-2_000_000:])
        got = peer.answer()
        assert got.json["size"] == len(BIG)
        assert got.closes
        assert peer.is_ended()
    assert len(download.answer().body) == 60_000_000
    assert download.is_ended()
    got = stream.answer()
    assert len(got.body) == 300 << 16
    assert stream.is_ended()
    site.stop()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_answer_that_is_on_its_way_arrives_when_the_server_ends(make_site: MakeSite, connect: Connect) -> None:
    written = []

    async def whole(scope, receive, send) -> None:
        await answer(send, 200, b"x" * (32 << 20))
        written.append(scope["path"])

    site = make_site(LARGE, drain_seconds=60)
    site.routes["/whole"] = whole
    peer = connect(site, buffer=4096).send(request("GET", "/whole"))
    wait_until(lambda: written)
    site.begin_stop()
    got = peer.answer()
    assert len(got.body) == 32 << 20
    assert peer.is_ended()


def test_idle_connections_end_at_once_with_the_server(make_site: MakeSite, connect: Connect) -> None:
    site = make_site(LARGE, drain_seconds=60)
    peers = [connect(site) for _ in range(4)]
    peers[1].ask(request("GET", "/"))
    peers[2].send(request("GET", "/")[:-2])
    peers[3].send(request("PUT", "/")[:-2])
    wait_until(lambda: site.connections == 4)
    site.begin_stop()
    for peer in peers:
        assert peer.is_ended()
    peers[2].close()
    site.stop()


@on_uvloop
@framings
@targets
def test_what_is_not_finished_in_time_is_cut(
    make_site: MakeSite, connect: Connect, framing: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(LARGE, drain_seconds=0.3)
    with site.blob.open("wb") as file:
        file.truncate(1 << 30)
    upload = connect(site).send(framed("PUT", path, BIG, framing)[:-1000])
    download = connect(site, buffer=4096).send(request("GET", "/blob"))
    wait_until(lambda: site.tasks == 2)
    site.stop()
    assert site.failures[0] in {"BodyCut", "disconnect"}
    assert site.gone == 1
    assert upload.read_all() == b""
    assert len(download.read_all()) < 1 << 30
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "requests are cut"
    ]


def test_an_application_that_does_not_end_is_cancelled(
    make_site: MakeSite, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dtr.http.server._CUT_SECONDS", 0.2)
    site = make_site(LARGE, drain_seconds=0.2)
    finished = []

    async def stuck(scope, receive, send) -> None:
        await asyncio.Event().wait()

    site.app = Front({}, stuck, finished=lambda scope, facts: finished.append(facts.status), started=lambda: None)
    peer = connect(site).send(request("GET", "/"))
    wait_until(lambda: site.tasks)
    site.stop()
    assert peer.read_all() == b""
    assert finished == [0]
    assert "request was cut" in [record.message for record in caplog.records]


# --- TLS and its absence ---


def test_a_tls_hello_on_a_plain_port_is_answered_in_words(site: Site, certificate: Certificate) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    with Peer(site.plain_port, context, shake_hands=False) as peer, pytest.raises(ssl.SSLError):
        peer._shake_hands(peer._tls)
    with Peer(site.plain_port) as peer:
        got = peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)).answer()
        assert got.status == 400
        assert got.closes
        assert b"TLS" in got.body
        assert peer.is_ended()


def test_plain_http_on_a_tls_port_is_served_and_marked(site: Site) -> None:
    with Peer(site.tls_port) as peer:
        assert peer.ask(request("PUT", "/file", BIG)).status == 201
    with Peer(site.tls_port) as peer:
        got = peer.send(b"neither TLS nor HTTP\r\n\r\n").answer()
        assert got.status == 400
        assert got.closes

    async def tell(scope, receive, send) -> None:
        await answer(send, 200, f"{scope['scheme']} {MISDIRECTED in scope['extensions']}".encode())

    site.app = tell
    with Peer(site.tls_port) as peer:
        for _ in range(2):
            assert peer.ask(request("GET", "/")).body == b"http True"
    with Peer(site.plain_port) as peer:
        assert peer.ask(request("GET", "/")).body == b"http False"


@on_uvloop
def test_half_a_handshake_is_closed_after_its_time(make_site: MakeSite, certificate: Certificate) -> None:
    site = make_site(Limits(handshake_seconds=0.3, head_seconds=60))
    hello = _hello(certificate)
    for part in (b"", hello[:1], hello[:50], hello):
        with Peer(site.tls_port) as peer:
            peer.send(part)
            peer.read_all()
    wait_until(lambda: site.connections == 0)


def _hello(certificate: Certificate) -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=certificate.authority)
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def test_a_client_that_does_not_trust_the_certificate_is_let_go(site: Site, no_leak: None) -> None:
    with Peer(site.tls_port, ssl.create_default_context(), shake_hands=False) as peer:
        with pytest.raises(ssl.SSLCertVerificationError):
            peer._shake_hands(peer._tls)
        peer.send_raw(peer._outgoing.read())
        assert peer._receive_raw(1) == b""


def test_old_tls_is_refused(site: Site, certificate: Certificate) -> None:
    hello = bytearray(_hello(certificate))
    for garbage in (
        bytes(hello[:9]) + b"\x02\x00" + bytes(hello[11:]),
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01",
    ):
        with Peer(site.tls_port) as peer:
            peer.send(garbage)
            peer.finish_writing()
            peer.read_all()


@pytest.mark.parametrize("path", ["/", "/file", "/plain"])
def test_garbage_within_tls_ends_the_connection(
    site: Site, certificate: Certificate, no_leak: None, path: str
) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    with Peer(site.tls_port, context) as peer:
        if path == "/":
            assert peer.ask(request("GET", "/")).body == b"hello"
        else:
            peer.send(request("PUT", path, BIG)[:400_000])
            wait_until(lambda: site.tasks)
        peer.send_raw(b"\x17\x03\x03\x00\x20" + os.urandom(32) + os.urandom(1000))
        data = peer.read_all()
        assert data == b"" or b"400 Bad Request" in data
    wait_until(lambda: site.connections == 0)


def test_a_goodbye_of_tls_ends_the_connection(site: Site, certificate: Certificate, no_leak: None) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    with Peer(site.tls_port, context) as peer:
        assert peer.ask(request("GET", "/")).body == b"hello"
        with pytest.raises(ssl.SSLWantReadError):
            peer._tls.unwrap()
        peer.send_raw(peer._outgoing.read())
        assert peer.is_ended()


def test_a_closing_server_says_goodbye_in_tls(site: Site, certificate: Certificate) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    for whole in (request("GET", "/", Connection="close"), request("PUT", "/early", BIG[:400_000])):
        with Peer(site.tls_port, context) as peer:
            assert peer.ask(whole).closes
            peer.socket.shutdown(socket.SHUT_WR)
            while arrived := peer.socket.recv(65536):
                peer._incoming.write(arrived)
            assert peer._tls.read(1) == b""  # without a goodbye it would want more


def test_only_http_1_1_is_offered(site: Site, certificate: Certificate) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Peer(site.tls_port, context) as peer:
        assert peer._tls.selected_alpn_protocol() == "http/1.1"
        assert peer.ask(request("GET", "/")).body == b"hello"


def test_new_keys_in_the_middle_are_taken(site: Site, certificate: Certificate) -> None:
    with _openssl(site, certificate, "-tls1_3") as client:
        _command(client, "K", "KEYUPDATE")
        client.stdin.write("GET / HTTP/1.1\nHost: localhost\nConnection: close\n\n")
        client.stdin.flush()
        assert "hello" in client.stdout.read()


@pytest.mark.parametrize("path", ["/", "/file"])
def test_new_keys_without_end_are_not_taken(
    site: Site, certificate: Certificate, path: str, no_leak: None
) -> None:
    context = ssl.create_default_context(cafile=certificate.authority)
    with Peer(site.tls_port, context) as peer:
        if path == "/":
            assert peer.ask(request("GET", "/")).body == b"hello"
        else:
            peer.send(request("PUT", path, BIG)[:400_000])
            wait_until(lambda: site.tasks)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                peer.send_raw(_new_keys(peer))
        wait_until(lambda: site.connections == 0, 20)  # nobody waits for the body, or for a further request
    with Peer(site.tls_port, context) as peer:
        assert peer.ask(request("GET", "/")).body == b"hello"


def _new_keys(peer: Peer) -> bytes:
    """A hundred times the wish for new keys (RFC 8446, section 4.6.3), for which Python has no call."""
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    # OpenSSL's object is the second member of Python's, behind its head.
    second = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    ours = ctypes.c_void_p.from_address(id(peer._tls._sslobj) + second)
    for _ in range(100):
        assert library.SSL_key_update(ours, 1) == 1
        library.SSL_do_handshake(ours)
    return peer._outgoing.read()


def test_a_renegotiation_is_refused(site: Site, certificate: Certificate) -> None:
    with _openssl(site, certificate, "-tls1_2") as client:
        _command(client, "R", "RENEGOTIATING")
        client.stdout.read()  # the client gives up
        assert client.wait(30) != 0
    with Peer(site.tls_port, ssl.create_default_context(cafile=certificate.authority)) as peer:
        assert peer.ask(request("GET", "/")).body == b"hello"


def _openssl(site: Site, certificate: Certificate, version: str) -> subprocess.Popen[str]:
    address = f"127.0.0.1:{site.tls_port}"
    return subprocess.Popen(
        ["openssl", "s_client", version, "-crlf", "-connect", address, "-CAfile", str(certificate.authority)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _command(client: subprocess.Popen[str], letter: str, echo: str) -> None:
    """One of the commands of s_client, which are single letters on their own."""
    assert client.stdin is not None
    assert client.stdout is not None
    while client.stdout.readline() != "---\n":
        pass
    client.stdin.write(f"{letter}\n")
    client.stdin.flush()
    while echo not in (line := client.stdout.readline()):
        assert line
