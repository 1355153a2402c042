"""Answers from the socket of a store, to clients of every kind, by stores that are slow, or die."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.support.wire import Peer, Site, request, start, wait_until

from dtr.http.bodies import send_fetched
from dtr.http.transport import Limits
from dtr.storage import StorageError
from dtr.storage.driver import Pieces
from dtr.storage.lending import Loan

Connect = Callable[..., Peer]
MakeSite = Callable[..., Site]
Stores = Callable[..., "Store"]
on_uvloop = pytest.mark.parametrize("loop_kind", ["uvloop"], indirect=True)
BIG = os.urandom(5_000_000)
IMPATIENT = Limits(stall_seconds=0.3, grace_seconds=0.5, lowest_rate=1 << 20)


class Store:
    """Objects that come from sockets: what the tests write at the other end, behind what had arrived already."""

    def __init__(self, size: int, first: bytes = b"", patience: float = 30) -> None:
        self.first = first
        self.size = size
        self.patience = patience
        self.ends: list[socket.socket] = []
        """The store's side of each request."""
        self.sent: list[int] = []
        self._listening = socket.create_server(("127.0.0.1", 0))

    def serve(self, site: Site) -> None:
        """Answer the path ``/stored`` from here."""

        async def stored(scope: Any, receive: Any, send: Any) -> None:
            ours = socket.create_connection(self._listening.getsockname())
            self.ends.append(self._listening.accept()[0])
            ours.setblocking(False)
            lent = Loan("there", ours, None, self.first, self.size - len(self.first), self.patience)
            await start(send, 200, self.size)
            try:
                await send_fetched(scope, send, _Fetched(self.size, lent), self.size)
            except StorageError as error:
                site.failures.append(str(error))
            finally:
                self.sent.append(self.size - lent.left)
                lent.close()
            if scope["extensions"]["dtr.is_gone"]():
                site.gone += 1

        site.routes["/stored"] = stored

    def write(self, *pieces: bytes, pause: float = 0, cut: bool = False) -> threading.Thread:
        """Give out these pieces at the newest request, from a thread."""
        wait_until(lambda: self.ends)
        end = self.ends.pop()

        def work() -> None:
            with end:
                try:
                    for piece in pieces:
                        end.sendall(piece)
                        time.sleep(pause)
                    while not cut and end.recv(1):
                        pass
                except OSError:
                    pass

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def close(self) -> None:
        self._listening.close()
        for end in self.ends:
            end.close()


class _Fetched:
    """See `dtr.storage.driver.Fetched`."""

    def __init__(self, size: int, lent: Loan) -> None:
        self.size = size
        self._lent = lent

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise AssertionError("it was to be lent")

    async def lend(self) -> Loan:
        return self._lent


@pytest.fixture
def make_store() -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(*args: Any, **kwargs: Any) -> Store:
        made.append(Store(*args, **kwargs))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_what_a_store_gives_is_sent_whole_and_the_connection_goes_on(
    site: Site, connect: Connect, make_store
) -> None:
    peer = connect(site)
    for first in (b"", BIG[:100_000], BIG):
        store = make_store(len(BIG), first)
        store.serve(site)
        peer.send(request("GET", "/stored"))
        writing = store.write(BIG[len(first) :])
        got = peer.answer()
        assert got.body == BIG
        assert not got.closes
        writing.join()
        assert peer.ask(request("GET", "/")).body == b"hello"
    assert store.sent == [len(BIG)]


def test_more_than_a_turn_is_sent(site: Site, connect: Connect, make_store: Stores) -> None:
    store = make_store(70 << 20)
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    writing = store.write(bytes((70 << 20) - 3), b"end")
    got = peer.answer()
    assert len(got.body) == 70 << 20
    assert got.body[-4:] == b"\0end"
    writing.join()


def test_a_store_that_dies_cuts_the_connection(
    site: Site, connect: Connect, no_leak: None, make_store: Stores
) -> None:
    store = make_store(len(BIG))
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    store.write(BIG[:4_000_000], cut=True).join()
    got = peer.answer()
    assert not got.is_whole
    assert BIG.startswith(got.body)
    peer.close()
    wait_until(lambda: store.sent == [4_000_000])
    assert site.failures == ["there ended 1000000 bytes too early"]
    store.close()


def test_a_store_that_stops_is_given_up_and_cuts_the_connection(
    site: Site, connect: Connect, no_leak: None, make_store
) -> None:
    store = make_store(len(BIG), patience=5)
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    writing = store.write(BIG[:1_000_000])
    got = peer.answer()
    assert got.body == BIG[:1_000_000]
    assert not got.is_whole
    peer.close()
    writing.join()
    wait_until(lambda: site.failures == ["nothing more came of there within 5 s"])
    store.close()


@on_uvloop
def test_a_slow_store_is_no_fault_of_the_client(make_site: MakeSite, connect: Connect, make_store: Stores) -> None:
    site = make_site(IMPATIENT)
    pieces = [bytes([number]) * 10_000 for number in range(40)]
    store = make_store(400_000)
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    writing = store.write(*pieces, pause=0.06)  # 2.4 seconds
    assert peer.answer().body == b"".join(pieces)
    writing.join()


@on_uvloop
def test_what_a_slow_store_gives_does_not_wait_for_more(site: Site, connect: Connect, make_store: Stores) -> None:
    store = make_store(10_000_000)
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    wait_until(lambda: store.ends)
    got = b""
    for piece in (b"a" * 1000, b"b" * 1000):  # the second one when the first has come
        store.ends[0].sendall(piece)
        while not got.endswith(piece):
            more = peer.receive(65536)
            assert more
            got += more
    peer.close()


@on_uvloop
def test_a_client_that_takes_it_slowly_gets_it(make_site: MakeSite, connect: Connect, make_store: Stores) -> None:
    site = make_site(Limits(stall_seconds=10, grace_seconds=10, lowest_rate=1024))
    store = make_store(len(BIG))
    store.serve(site)
    peer = connect(site, buffer=65536).send(request("GET", "/stored"))
    writing = store.write(BIG)
    got = bytearray()
    for goal in range(500_000, len(BIG), 500_000):
        while len(got) < goal:
            got += peer.receive(1 << 16)
        time.sleep(0.06)  # longer than the patience of a step
    while not got.endswith(BIG[-100:]):
        got += peer.receive(1 << 16)
    assert got.partition(b"\r\n\r\n")[2] == BIG
    writing.join()


@on_uvloop
def test_a_client_that_stops_taking_it_is_cut(make_site: MakeSite, connect: Connect, make_store: Stores) -> None:
    site = make_site(IMPATIENT)
    store = make_store(100 << 20)
    store.serve(site)
    peer = connect(site, buffer=4096).send(request("GET", "/stored"))
    writing = store.write(bytes(100 << 20))
    wait_until(lambda: site.gone == 1)
    assert len(peer.read_all()) < 100 << 20
    assert site.failures == []
    writing.join()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_goes_away_ends_its_answer(
    site: Site, connect: Connect, no_leak: None, make_store: Stores, how: str
) -> None:
    store = make_store(100 << 20)
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    writing = store.write(bytes(100 << 20))
    peer.receive(1000)
    getattr(peer, how)()
    wait_until(lambda: site.gone == 1)
    writing.join()
    assert site.failures == []
    store.close()


@on_uvloop
def test_neither_slow_clients_nor_slow_stores_hold_threads(
    make_site: MakeSite, connect: Connect, make_store: Stores
) -> None:
    site = make_site(Limits(stall_seconds=600, grace_seconds=600))
    stuck = make_store(1 << 30)
    stuck.serve(site)
    peers = [connect(site, buffer=4096).send(request("GET", "/stored")) for _ in range(40)]
    wait_until(lambda: len(stuck.ends) == 40)
    writing = [stuck.write(bytes(20 << 20)) for _ in range(20)]  # half of them by clients that take nothing
    store = make_store(len(BIG))
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    writing.append(store.write(BIG))
    assert peer.answer().body == BIG
    assert site.tasks >= len(peers)
    for one in peers:
        one.reset()
    stuck.close()
    for thread in writing:
        thread.join()


@on_uvloop
def test_a_server_that_ends_gives_up_what_does_not(
    make_site: MakeSite, connect: Connect, make_store: Stores
) -> None:
    site = make_site(drain_seconds=0.2)
    store = make_store(1 << 30)
    store.serve(site)
    peer = connect(site).send(request("GET", "/stored"))
    writing = store.write(BIG)
    peer.receive(1000)
    site.stop()
    writing.join()
    assert len(peer.read_all()) <= len(BIG)


async def test_a_server_that_lends_no_threads_gets_pieces() -> None:
    async def give(*pieces: bytes) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_fetched({}, send, Pieces(b"one", give(b"two", b"three")), 11)
    assert [message.get("body", b"") for message in sent] == [b"one", b"two", b"three", b""]
    assert [message.get("more_body", False) for message in sent] == [True, True, True, False]
    with pytest.raises(OSError, match="shorter"):
        await send_fetched({}, send, Pieces(b"one"), 11)
