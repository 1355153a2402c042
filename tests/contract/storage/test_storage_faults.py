"""What every driver that talks to a server must do when the server, or the way to it, is not as it should be."""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

import pytest
from tests.support.disk import small_disk
from tests.support.proxy import forward_proxy, proxy
from tests.support.storage import MIB, PART, body, curl, left_of_uploads, locations, read, upload

from dtr.storage import AccessDenied, StorageFull, StorageUnavailable, UploadState, new_location

LIMIT = 2
BOUND = 15
"""Seconds after which everybody knows that a server does not answer, with that time limit."""


@contextmanager
def unavailable_soon():
    """What is done meanwhile ends in StorageUnavailable, in bounded time."""
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        yield
    assert time.monotonic() - started < BOUND


async def at_last(action):
    """What comes of `action` when the server answers in time: it may be busy with those who asked before."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await action()
            except StorageUnavailable:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def way_to(store, **carriers):
    """The address of a way to the server on which `requests` and `answers` carry the bytes."""
    address = urlsplit(store.server.endpoint)
    async with proxy(address.port, **carriers) as port:
        scheme = "https" if "tls" in carriers else "http"
        host = "localhost" if "tls" in carriers else "127.0.0.1"
        yield address._replace(scheme=scheme, netloc=f"{host}:{port}").geturl()


async def each_operation_ends(driver, location, expected):
    """Every operation of the driver, at once, ends as expected."""

    async def ends(operation):
        with expected():
            await operation

    operations = (
        driver.check(),
        driver.put_small(new_location(), b"x"),
        driver.stat(location),
        read(driver, location),
        read(driver, location, 0, 0),
        driver.delete(new_location()),
        driver.abort(UploadState(new_location())),
        locations(driver),
        left_of_uploads(driver),
        upload(driver, bytes(PART), bytes(PART)),
    )
    async with asyncio.TaskGroup() as tasks:
        for operation in operations:
            tasks.create_task(ends(operation))


# --- Places and keys that are wrong -------------------------------------------------------------------------


async def test_wrong_credentials_are_denied_and_nothing_looks_missing(served):
    location = await upload(served.open(), b"there")
    for wrong in served.wrong_keys:
        await each_operation_ends(served.open(**wrong), location, partial(pytest.raises, AccessDenied))


async def test_a_place_that_is_not_there_is_named_and_nothing_looks_missing(served):
    named = partial(pytest.raises, StorageUnavailable, match=served.missing_name)
    await each_operation_ends(served.open(**served.missing_place), new_location(), named)


# --- Servers that stop and die ------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_unavailable(served):
    nowhere = urlsplit(served.server.endpoint)._replace(netloc="127.0.0.1:1").geturl()
    driver = served.open(endpoint=nowhere, time_limit=LIMIT)
    with unavailable_soon():
        await driver.check()


async def test_a_stopped_server_is_unavailable_soon_and_usable_again(served):
    driver = served.open(time_limit=LIMIT)
    location = await at_last(lambda: upload(driver, b"before"))
    served.server.pause()
    try:
        await each_operation_ends(driver, location, unavailable_soon)
    finally:
        served.server.resume()
    assert await at_last(lambda: read(driver, location)) == b"before"


async def test_a_read_ends_soon_when_the_server_stops_or_dies_and_is_never_short(served):
    content = os.urandom(32 * MIB)  # more than the kernel keeps under way
    location = await upload(served.open(), content)

    driver = served.open(time_limit=LIMIT)

    async def read_until(happens):
        await at_last(lambda: read(driver, location, 0, 1))
        received = bytearray()
        async with aclosing(driver.open(location)) as pieces:
            received += await anext(pieces)
            happens()
            with unavailable_soon():
                async for piece in pieces:
                    received += piece
        assert content.startswith(received)

    await read_until(served.server.pause)
    served.server.resume()
    await read_until(served.server.kill)
    served.server.start()
    assert await read(served.open(), location) == content


async def test_a_write_ends_soon_when_the_server_stops_or_dies_and_goes_on_later(served):
    content = os.urandom(4 * PART + MIB)
    driver = served.open(time_limit=LIMIT)
    await at_last(driver.check)
    state = await served.open().create_upload(new_location())
    state = await served.open().write(state, body(content[:PART], content[PART : PART + 1000]))

    async def rest(happens=None):
        yield content[PART + 1000 : 2 * PART]
        if happens:
            happens()
        for start in range(2 * PART, len(content), MIB):
            yield content[start : start + MIB]

    with unavailable_soon():
        await driver.write(state, rest(served.server.pause))
    served.server.resume()
    await at_last(driver.check)
    with unavailable_soon():
        await driver.write(state, rest(served.server.kill))
    with unavailable_soon():
        await driver.complete(state)
    served.server.start()
    state = await served.open().write(state, rest())
    await served.open().complete(state)
    assert await read(served.open(), state.location) == content
    assert await locations(served.open()) == [state.location]


async def test_an_answer_that_breaks_off_is_unavailable_and_never_short(served):
    content = os.urandom(4 * MIB)
    location = await upload(served.open(), content)

    async def halfway(reader, writer):
        left = 2 * MIB
        while left > 0 and (piece := await reader.read(65536)):
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    async with way_to(served, answers=halfway) as address:
        received = bytearray()
        driver = served.open(endpoint=address, time_limit=5)

        async def receive():
            async with aclosing(driver.open(location)) as pieces:
                async for piece in pieces:
                    received.extend(piece)

        with unavailable_soon():
            await receive()
        assert content.startswith(received)
        await driver.close()


# --- Rubbish ------------------------------------------------------------------------------------------------


async def test_a_part_that_arrives_after_the_abort_goes_with_the_second_one(served):
    whole, goes_on, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held(reader, writer):
        """Keep what comes of a large request until it may go on, also when its client is gone."""
        seen, passed = bytearray(), 0
        while piece := await reader.read(65536):
            seen += piece
            if len(seen) <= MIB:
                writer.write(piece)
                passed = len(seen)
                continue
            begins = seen.rfind(b"\r\n\r\n") + 4
            length = int(re.findall(rb"(?i)content-length: *(\d+)", seen[:begins])[-1])
            if length >= PART and len(seen) - begins == length:
                whole.set()
                await goes_on.wait()
                writer.write(seen[passed:])
                await answered.wait()  # then the connection is cut
                return

    async def heard(reader, writer):
        while piece := await reader.read(65536):
            if goes_on.is_set():
                answered.set()
            with suppress(OSError):  # the client is gone
                writer.write(piece)
                await writer.drain()

    driver = served.open()
    state = await driver.write(await driver.create_upload(new_location()), body(bytes(PART), bytes(100_000)))
    async with way_to(served, requests=held, answers=heard) as address:
        slow = served.open(endpoint=address)
        writing = asyncio.create_task(slow.write(state, body(bytes(2 * PART))))
        await asyncio.wait_for(whole.wait(), 60)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await driver.abort(state)
        goes_on.set()
        await asyncio.wait_for(answered.wait(), 60)
        await driver.abort(state)
        assert await left_of_uploads(driver) == set()
        assert await locations(driver) == []
        await slow.close()


async def test_no_room_for_parts_on_their_way_loses_nothing_and_is_given_back(served, tmp_path):
    content = os.urandom(2 * PART + 4 * MIB)
    with small_disk(tmp_path / "disk", mib=12) as disk:
        driver = served.open(spool_directory=str(disk.path))
        state = await driver.write(await driver.create_upload(new_location()), body(content[: 7 * MIB]))
        disk.fill()
        with pytest.raises(StorageFull, match=f"No space left on device.*{disk.path}"):
            await driver.write(state, body(content[7 * MIB :]))
        with pytest.raises(StorageFull, match=re.escape(str(disk.path))):
            await driver.check()
        disk.make_room()
        state = await driver.write(state, body(content[7 * MIB :]))
        await driver.complete(state)
        assert await read(driver, state.location) == content
        await driver.close()
        assert os.statvfs(disk.path).f_bavail == os.statvfs(disk.path).f_blocks


# --- Signed URLs, TLS, proxies ------------------------------------------------------------------------------


async def test_a_signed_url_lets_anyone_read_the_object_and_nothing_else(served):
    driver = served.open()
    content = os.urandom(100_000)
    location, other = await upload(driver, content), await upload(driver, b"other")
    short, url = await driver.sign(location, 1), await driver.sign(location, 600)
    assert short
    assert url
    signed_at = time.monotonic()

    async def fetch(*arguments):
        return await asyncio.to_thread(curl, *arguments)

    assert await fetch(url) == (200, content)
    assert await fetch("--range", "5-14", url) == (206, content[5:15])
    status, _ = await fetch("--head", url)
    assert (status == 200) == ("HEAD" in served.signed_methods)
    for arguments in (("--request", "PUT", "--data", "x", "--header", "x-ms-blob-type: BlockBlob"),
                      ("--request", "POST", "--data", "x"), ("--request", "DELETE")):  # fmt: skip
        status, _ = await fetch(*arguments, url)
        assert status in {400, 401, 403, 405}
    for elsewhere in (url.replace(location, other), url.partition("?")[0]):
        status, _ = await fetch(elsewhere)
        assert status in {400, 401, 403}
    await asyncio.sleep(max(0, signed_at + 2.1 - time.monotonic()))
    status, _ = await fetch(short)
    assert status in {400, 401, 403}
    assert await read(driver, location) == content


async def test_a_server_with_a_certificate_is_checked_unless_told_otherwise(served, tls, own_certificate):
    location = await upload(served.open(), b"over TLS")
    async with way_to(served, tls=tls) as address:
        strict = served.open(endpoint=address, time_limit=5)
        with pytest.raises(StorageUnavailable, match=r"(?i)certificate"):
            await strict.stat(location)
        drivers = [
            strict,
            served.open(endpoint=address, ca_bundle=own_certificate.authority),
            served.open(endpoint=address, verify=False),
        ]
        for driver in drivers[1:]:
            assert await read(driver, location) == b"over TLS"
            await upload(driver, bytes(PART), b"end")
        for driver in drivers:
            await driver.close()


async def test_proxies_of_the_environment_are_used_but_where_they_should_not(
    served, monkeypatch, tls, own_certificate
):
    location = await upload(served.open(), content := os.urandom(MIB))
    server = urlsplit(served.server.endpoint)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name.lower(), raising=False)
    async with forward_proxy() as between, proxy(server.port, tls=tls) as front:
        monkeypatch.setenv("HTTP_PROXY", between.url)
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        plain = served.open(endpoint=server._replace(netloc=f"storage.test:{server.port}").geturl())
        encrypted = served.open(
            endpoint=server._replace(scheme="https", netloc=f"storage.test:{front}").geturl(),
            ca_bundle=own_certificate.authority,
        )
        for driver, line in (
            (plain, f"GET http://storage.test:{server.port}/"),
            (encrypted, f"CONNECT storage.test:{front} "),
        ):
            assert await read(driver, location) == content
            await upload(driver, bytes(PART), b"end")
            assert any(seen.startswith(line) for seen in between.seen), between.seen
            await driver.close()
        before = len(between.seen)
        assert await read(served.open(), location) == content
        assert len(between.seen) == before
