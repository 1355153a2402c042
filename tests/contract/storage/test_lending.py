"""What every driver that talks to a server lends of its connections to threads."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
from tests.contract.storage.conftest import SERVED
from tests.support.proxy import carry, forward_proxy, proxy
from tests.support.storage import MIB, PART, Store, read, upload
from tests.support.wire import wait_until

from dtr.storage import ObjectMissing, Storages, StorageUnavailable, new_location
from dtr.storage.driver import Driver, Lent, RemoteObjects
from dtr.storage.memory import Memory


def take(lent: Lent, most: int | None = None) -> bytes:
    """What a thread gets of it, in all or at least so many bytes."""
    taken = bytearray(lent.first)
    buffer = memoryview(bytearray(MIB))
    poll = select.poll()
    poll.register(lent.socket, select.POLLIN)
    while lent.left and (most is None or len(taken) < most):
        try:
            taken += buffer[: lent.receive(buffer)]
        except BlockingIOError:
            lent.expect(MIB // 4)
            if not poll.poll(60_000):
                raise lent.late() from None
    return bytes(taken)


async def borrow(driver: Driver, location: str, *window: int) -> bytes:
    """The object, or a part of it, taken by a thread."""
    assert isinstance(driver, RemoteObjects)
    async with driver.fetch(location, *window) as fetched:
        lent = await fetched.lend()
        assert lent is not None, "nothing was lent"
        assert fetched.size == len(lent.first) + lent.left
        return await asyncio.to_thread(take, lent)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Way:
    """A way to the server of a store that counts connections."""

    def __init__(self) -> None:
        self.address = ""
        self.connections = 0


@asynccontextmanager
async def way_to(served: Store, **more) -> AsyncIterator[Way]:
    way = Way()
    answers = more.pop("answers", carry)

    async def counted(reader, writer) -> None:
        way.connections += 1
        await answers(reader, writer)
        writer.close()  # in peace: what waits to be sent here is not dropped where the server closes
        with suppress(OSError):
            await writer.wait_closed()

    assert served.server is not None
    address = urlsplit(served.server.endpoint)
    async with proxy(address.port, answers=counted, **more) as port:
        scheme, host = ("https", "localhost") if "tls" in more else ("http", "127.0.0.1")
        way.address = address._replace(scheme=scheme, netloc=f"{host}:{port}").geturl()
        yield way


@pytest.mark.parametrize("scheme", ["plain", "tls"])
async def test_a_thread_gets_what_others_get_on_connections_that_are_kept(
    served: Store, scheme: str, tls, own_certificate
) -> None:
    content = os.urandom(8 * MIB + 123)
    location = await upload(served.open(), content)
    options = {} if scheme == "plain" else {"tls": tls}
    async with way_to(served, **options) as way:
        driver = served.open(endpoint=way.address, ca_bundle=own_certificate.authority)
        assert await read(driver, location, 5, 6 * MIB) == content[5 : 6 * MIB + 5]
        for _ in range(3):
            assert await read(driver, location, 1, 1000) == content[1:1001]
        before, way.connections = way.connections, 0
        for _ in range(2):
            assert await borrow(driver, location) == content
            assert await borrow(driver, location, 5, 6 * MIB) == content[5 : 6 * MIB + 5]
        # Some servers end each connection themselves.
        assert way.connections == (0 if before == 1 else 4)
        assert await read(driver, location) == content
        await driver.close()


@pytest.mark.parametrize("scheme", ["plain", "tls"])
async def test_an_answer_that_breaks_off_is_unavailable_and_never_short(
    served: Store, scheme: str, tls, own_certificate
) -> None:
    content = os.urandom(8 * MIB)
    location = await upload(served.open(), content)

    async def halfway(reader, writer) -> None:
        left = 4 * MIB
        while left > 0 and (piece := await reader.read(65536)):
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    options = {} if scheme == "plain" else {"tls": tls}
    async with way_to(served, answers=halfway, **options) as way:
        driver = served.open(endpoint=way.address, ca_bundle=own_certificate.authority, time_limit=5)
        with pytest.raises(StorageUnavailable):
            await borrow(driver, location)
        await driver.close()


@pytest.mark.parametrize("scheme", ["plain", "tls"])
async def test_what_is_not_taken_to_its_end_harms_nobody(served: Store, scheme: str, tls, own_certificate) -> None:
    content = os.urandom(8 * MIB)
    location = await upload(served.open(), content)
    options = {} if scheme == "plain" else {"tls": tls}
    async with way_to(served, **options) as way:
        driver = served.open(endpoint=way.address, ca_bundle=own_certificate.authority)
        assert isinstance(driver, RemoteObjects)
        before = descriptors()
        for most in (0, 3 * MIB):
            async with driver.fetch(location) as fetched:
                lent = await fetched.lend()
                assert lent is not None
                assert content.startswith(await asyncio.to_thread(take, lent, most))
        assert await borrow(driver, location) == content
        await driver.close()
        async with asyncio.timeout(60):
            while descriptors() > before:
                await asyncio.sleep(0.02)


async def test_tunnels_through_proxies_are_lent_too(served: Store, monkeypatch, tls, own_certificate) -> None:
    location = await upload(served.open(), content := os.urandom(4 * MIB))
    server = urlsplit(served.server.endpoint)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv(name, raising=False)
    async with forward_proxy() as between, proxy(server.port, tls=tls) as front:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        driver = served.open(
            endpoint=server._replace(scheme="https", netloc=f"storage.test:{front}").geturl(),
            ca_bundle=own_certificate.authority,
        )
        assert await borrow(driver, location) == content
        assert any(seen.startswith(f"CONNECT storage.test:{front} ") for seen in between.seen), between.seen
        await driver.close()


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("scheme", ["plain", "tls"])
def test_the_same_is_lent_on_the_loop_that_serves(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, scheme: str, tls, own_certificate
) -> None:
    served = SERVED[kind](request, tmp_path)
    content = os.urandom(8 * MIB)

    async def lend() -> None:
        location = await upload(served.open(), content)
        options = {} if scheme == "plain" else {"tls": tls}
        async with way_to(served, **options) as way:
            driver = served.open(endpoint=way.address, ca_bundle=own_certificate.authority)
            for _ in range(3):
                assert await borrow(driver, location) == content
                assert await borrow(driver, location, MIB) == content[MIB:]
                assert await read(driver, location) == content
            several = (borrow(driver, location) for _ in range(8))
            assert await asyncio.gather(*several) == [content] * 8

    async def lend_and_close() -> None:
        try:
            await lend()
        finally:
            await served.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lend_and_close())


async def test_what_has_arrived_is_not_lent(served: Store) -> None:
    driver = served.open()
    location = await upload(driver, b"short")
    assert isinstance(driver, RemoteObjects)
    async with driver.fetch(location) as fetched:
        await asyncio.to_thread(wait_until, fetched._answer.content.is_eof)
        assert await fetched.lend() is None
        assert [piece async for piece in fetched] == [b"short"]
    for window in ((0, 0), (5, 1), (9,)):
        async with driver.fetch(location, *window) as fetched:
            assert fetched.size == 0
            assert await fetched.lend() is None
            assert [piece async for piece in fetched] == []
    with pytest.raises(ObjectMissing):
        async with driver.fetch(new_location()):
            pass


async def test_storages_lend_what_their_drivers_do(served: Store) -> None:
    seen = []
    storages = Storages({"a": served.open(), "b": Memory()}, "a")
    storages.observe = lambda *what: seen.append(what[:2])
    content = os.urandom(PART)
    path = await upload(storages.driver("a"), content)
    await storages.put_small("b:x", b"in memory")
    seen.clear()
    async with storages.fetch(f"a:{path}", 1, PART - 1) as fetched:
        lent = await fetched.lend()
        assert lent is not None
        assert await asyncio.to_thread(take, lent) == content[1:]
    async with storages.fetch("b:x") as fetched:
        assert await fetched.lend() is None
        assert b"".join([piece async for piece in fetched]) == b"in memory"
    for missing in ("a", "b"):
        with pytest.raises(ObjectMissing, match=f"{missing}:nothing"):
            async with storages.fetch(f"{missing}:nothing"):
                pass
    assert seen == [("a", "open"), ("b", "open"), ("a", "open"), ("b", "open")]


async def test_a_storage_that_is_taken_away_is_closed_when_nothing_of_it_is_lent(served: Store) -> None:
    storages = Storages({"a": served.open(), "b": Memory()}, "b")
    path = await upload(storages.driver("a"), content := os.urandom(PART))
    async with storages.fetch(f"a:{path}") as fetched:
        await storages.remove("a")
        lent = await fetched.lend()
        assert lent is not None
        assert await asyncio.to_thread(take, lent) == content
