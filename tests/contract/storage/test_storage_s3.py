"""What S3 promises besides, and what it answers when the server is not as it should be."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from tests.support.disk import small_disk
from tests.support.proxy import forward_proxy, proxy
from tests.support.s3 import run_s3_server
from tests.support.s3_version_2 import store_of_version_2
from tests.support.storage import MIB, body, curl, locations, read, s3_settings, upload

from dtr.storage import (
    S3,
    AccessDenied,
    S3Settings,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UploadState,
    new_location,
)
from dtr.storage.s3 import SIZES


@pytest.fixture
async def open_driver(s3_server, tmp_path):
    """A function that opens a driver with other settings than usual; keys of each test are apart."""
    opened = []

    def make(**changes):
        opened.append(S3(s3_settings(s3_server, **{"root_directory": tmp_path.name, **changes})))
        return opened[-1]

    yield make
    for driver in opened:
        await driver.close()


@asynccontextmanager
async def way_to(server, **carriers):
    """The address of a way to the server on which `requests` and `answers` carry the bytes."""
    async with proxy(urlsplit(server.endpoint).port, **carriers) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_long_upload_has_small_parts_and_a_tail_that_no_part_may_be(open_driver):
    driver = open_driver()
    content = os.urandom(16 * MIB)
    state = await driver.write(await driver.create_upload(new_location()), body(content[:MIB], content[MIB:]))
    assert [part.size for part in state.parts] == [5 * MIB] * 3
    assert state.tail_location
    await driver.complete(state)
    assert await read(driver, state.location) == content
    assert await locations(driver) == [state.location]


def test_the_longest_object_that_s3_takes_has_no_more_parts_than_it_may():
    offset = parts = 0
    while offset < 5 * 1024 * 1024 * MIB:
        offset += SIZES.full(offset)
        parts += 1
    assert parts <= 10_000


async def test_parts_grow_with_the_object_and_hold_what_they_should(open_driver, monkeypatch):
    monkeypatch.setattr("dtr.storage.s3.SIZES", msgspec.structs.replace(SIZES, growth=2))
    driver = open_driver()
    content = os.urandom(30 * MIB + 5)
    pieces = [content[start : start + 300_001] for start in range(0, len(content), 300_001)]
    state = await driver.write(await driver.create_upload(new_location()), body(*pieces))
    assert [part.size for part in state.parts] == [5 * MIB, 5 * MIB, 5 * MIB, 15 * MIB // 2, 15 * MIB // 2 + 5]
    await driver.complete(state)
    assert await read(driver, state.location) == content


KILLED = """
import asyncio, os, sys
from dtr.storage import S3, S3Settings, new_location

MIB = 1024 * 1024

async def body(count):
    for number in range(count):
        yield bytes([number]) * MIB

async def endless():
    while True:
        yield bytes(MIB)

async def main():
    driver = S3(S3Settings("blobs", endpoint=sys.argv[1], access_key="contract", secret_key="contract-secret",
                           path_style=True, root_directory=sys.argv[2]))
    state = await driver.create_upload(new_location())
    for _ in range(2):
        state = await driver.write(state, body(6))
        print(state.encode(), flush=True)
    await driver.write(state, endless())

asyncio.run(main())
"""


async def test_an_upload_goes_on_in_another_process_after_kill_9(s3_server, open_driver, tmp_path):
    command = [sys.executable, "-c", KILLED, s3_server.endpoint, tmp_path.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        state = [UploadState.decode(process.stdout.readline()) for _ in range(2)][-1]
        process.kill()
    driver = open_driver()
    state = await driver.write(state, body(b"end"))
    await driver.complete(state)
    whole = b"".join(bytes([number]) * MIB for number in range(6)) * 2 + b"end"
    assert await read(driver, state.location) == whole
    await driver.abort(state)
    assert await locations(driver) == []


async def test_a_slow_server_may_take_longer_for_all_than_for_one_piece(s3_server, open_driver):
    location = await upload(open_driver(), content := os.urandom(2 * MIB))
    pause, limit = 0.22, 3

    async def slowly(reader, writer):
        while piece := await reader.read(128 * 1024):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    async with way_to(s3_server, answers=slowly) as address:
        driver = open_driver(endpoint=address, time_limit=limit)
        started = time.monotonic()
        assert await read(driver, location) == content
        assert time.monotonic() - started > limit
        await driver.close()


async def test_reading_is_one_request(s3_server, open_driver):
    location = await upload(open_driver(), content := os.urandom(3 * MIB))
    requests = []

    async def noted(reader, writer):
        while piece := await reader.read(65536):
            requests.append(piece.partition(b" ")[0])
            writer.write(piece)

    async with way_to(s3_server, requests=noted) as address:
        driver = open_driver(endpoint=address)
        assert await read(driver, location) == content
        assert await read(driver, location, MIB, 10) == content[MIB : MIB + 10]
        assert requests == [b"GET", b"GET"]
        await driver.close()


async def test_a_listing_of_more_than_a_page_is_whole_and_in_order(s3_server, open_driver, tmp_path):
    driver = open_driver()
    await driver.put_small("0/first", b"")
    made = [f"{number % 7}/{number:04}" for number in range(2100)]
    for name in made:  # the server shows files that it finds
        path = s3_server.directory / "blobs" / tmp_path.name / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert await locations(driver) == sorted(["0/first", *made])
    assert await locations(driver, "3/") == sorted(name for name in made if name.startswith("3/"))


MEMORY = """
import asyncio, resource, sys
from dtr.storage import S3, S3Settings, new_location

MIB = 1024 * 1024
PIECE = bytes(65536)

async def body(mib):
    for _ in range(mib * 16):
        yield PIECE

async def move(driver, mib):
    state = await driver.write(await driver.create_upload(new_location()), body(mib))
    await driver.complete(state)
    read = 0
    async for piece in driver.open(state.location):
        read += len(piece)
    assert read == mib * MIB
    await driver.delete(state.location)

async def main():
    driver = S3(S3Settings("blobs", endpoint=sys.argv[1], access_key="contract", secret_key="contract-secret",
                           path_style=True))
    await move(driver, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await move(driver, 160)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await driver.close()

asyncio.run(main())
"""


def test_streaming_takes_less_memory_than_a_part(s3_server):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, s3_server.endpoint],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"growth: {int(done.stdout) / 1024:.1f} MiB")
    assert int(done.stdout) < 4 * 1024  # KiB, beyond what an upload took that is no part


async def test_a_check_finds_that_parts_have_no_place_to_wait(open_driver, tmp_path):
    with pytest.raises(StorageUnavailable, match=f"No such file or directory.*{tmp_path}/missing"):
        await open_driver(spool_directory=str(tmp_path / "missing")).check()


async def test_parts_on_their_way_have_no_name_and_go_with_a_write_that_is_cancelled(open_driver, tmp_path):
    driver = open_driver(spool_directory=str(tmp_path))
    state = await driver.create_upload(new_location())
    came = asyncio.Event()

    async def hangs():
        yield os.urandom(3 * MIB)
        came.set()
        await asyncio.Event().wait()

    def waiting():
        return [one for one in Path("/proc/self/fd").iterdir() if str(one.resolve()).startswith(str(tmp_path))]

    writing = asyncio.create_task(driver.write(state, hangs()))
    await came.wait()
    assert len(waiting()) == 1
    assert list(tmp_path.iterdir()) == []
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert waiting() == []


async def test_a_part_that_the_store_did_not_take_is_sent_again_whole(s3_server, open_driver):
    content, breaks = os.urandom(12 * MIB), 2

    async def breaking(reader, writer):
        nonlocal breaks
        passed = 0
        while piece := await reader.read(65536):
            passed += len(piece)
            if breaks and passed > 2 * MIB:
                breaks -= 1
                return
            writer.write(piece)
            await writer.drain()

    async with way_to(s3_server, requests=breaking) as address:
        driver = open_driver(endpoint=address)
        location = await upload(driver, content)
        assert breaks == 0
        assert await read(open_driver(), location) == content
        await driver.close()


# --- Parameters ---------------------------------------------------------------------------------------------


async def test_what_the_store_is_to_do_with_objects_is_said_when_they_are_stored(s3_server, open_driver):
    sent = bytearray()

    async def noted(reader, writer):
        while piece := await reader.read(65536):
            sent.extend(piece)
            writer.write(piece)
            await writer.drain()

    async with way_to(s3_server, requests=noted) as address:
        driver = open_driver(
            endpoint=address,
            storage_class="STANDARD_IA",
            kms_key="key-1",
            session_token="token-1",
            part_size=6 * MIB,
            time_limit=5,
        )
        state = await driver.create_upload(new_location())
        with suppress(StorageError):  # the server does not know the token
            await driver.write(state, body(bytes(6 * MIB)))
        with suppress(StorageError):
            await driver.put_small(new_location(), b"")
        with suppress(StorageError):
            await driver.write(state, body(bytes(MIB)))
        await driver.close()
    heads = [one.partition(b"\r\n\r\n")[0].decode("latin-1").lower() for one in re.split(b"(?=PO?S?U?T /)", sent)]
    begun, small, tail = (
        next(one for one in heads if re.match(first, one))
        for first in (r"post /\S+\?uploads", r"put /\S+[0-9a-f]{32} ", r"put /\S+\.tail\.")
    )
    for head in (begun, small, tail):
        assert "x-amz-server-side-encryption: aws:kms\r\n" in head
        assert "x-amz-server-side-encryption-aws-kms-key-id: key-1" in head
        assert "x-amz-security-token: token-1" in head
        assert ("x-amz-storage-class: standard_ia" in head) == (head is not tail)
    # In chunks with sums of their own: few stores of others know that.
    assert b"aws-chunked" not in sent


async def test_parts_may_be_longer(open_driver):
    driver = open_driver(part_size=7 * MIB)
    content = os.urandom(20 * MIB)
    state = await driver.write(await driver.create_upload(new_location()), body(content))
    assert [part.size for part in state.parts] == [7 * MIB, 7 * MIB, 6 * MIB]
    await driver.complete(state)
    assert await read(driver, state.location) == content


async def test_authorities_may_be_given_as_they_are(s3_server, open_driver, tls, own_certificate):
    async with way_to(s3_server, tls=tls) as address:
        endpoint = address.replace("http://127.0.0.1", "https://localhost")
        driver = open_driver(endpoint=endpoint, verify=own_certificate.authority.read_text())
        await driver.check()
        await driver.close()


async def test_clocks_that_differ_are_the_reason_that_is_told(open_driver, monkeypatch):
    from botocore import auth

    now = auth.get_current_datetime
    monkeypatch.setattr(auth, "get_current_datetime", lambda *args, **kw: now(*args, **kw) - timedelta(hours=1))
    with pytest.raises(AccessDenied, match="clock"):
        await open_driver().check()


async def test_parts_may_take_the_store_longer_to_join_than_anything_else(s3_server, open_driver):
    async def slowly(reader, writer):
        while piece := await reader.read(65536):
            await asyncio.sleep(2.5)
            writer.write(piece)

    patient = open_driver()
    state = await patient.write(await patient.create_upload(new_location()), body(bytes(5 * MIB)))
    async with way_to(s3_server, answers=slowly) as address:
        driver = open_driver(endpoint=address, time_limit=2)
        with pytest.raises(StorageUnavailable):
            await driver.stat(state.location)
        await driver.complete(state)
        await driver.close()
    assert await patient.stat(state.location) == 5 * MIB


async def test_a_bucket_may_be_part_of_the_host_name(tmp_path, monkeypatch):
    for name in ("http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with run_s3_server(tmp_path / "server", "--virtual-domain", "storage.test") as server:
        port = urlsplit(server.endpoint).port
        async with forward_proxy() as names:  # no name server knows these
            monkeypatch.setenv("HTTP_PROXY", names.url)
            driver = S3(s3_settings(server, endpoint=f"http://storage.test:{port}", path_style=False))
            content = os.urandom(6 * MIB)
            location = await upload(driver, content)
            assert await read(driver, location) == content
            assert await locations(driver) == [location]
            url = await driver.sign(location, 60)
            await driver.close()
        assert {urlsplit(one.split()[1]).netloc for one in names.seen} == {f"blobs.storage.test:{port}"}
        assert urlsplit(url).netloc == f"blobs.storage.test:{port}"


async def test_old_stores_get_signatures_of_version_2():
    async with store_of_version_2() as endpoint:
        settings = S3Settings(
            "blobs", endpoint=endpoint, access_key="AKIA", secret_key="secret", path_style=True, v4auth=False
        )
        driver = S3(settings)
        location = new_location()
        await driver.put_small(location, b"old")
        assert await read(driver, location, 1, 2) == b"ld"
        assert await locations(driver) == [location]
        status, content = await asyncio.to_thread(curl, await driver.sign(location, 60))
        assert (status, content) == (200, b"old")
        status, _ = await asyncio.to_thread(curl, "-X", "DELETE", await driver.sign(location, 60))
        assert status == 403
        await driver.delete(location)
        await driver.close()
        driver = S3(replace(settings, secret_key="wrong"))
        with pytest.raises(AccessDenied):
            await driver.put_small(location, b"")
        await driver.close()


async def test_a_full_disk_at_the_store_is_told_and_loses_nothing(tmp_path):
    (tmp_path / "server").mkdir()
    with (
        small_disk(tmp_path / "disk", mib=24) as disk,
        run_s3_server(tmp_path / "server", buckets=disk.path / "buckets") as server,
    ):
        driver = S3(s3_settings(server, time_limit=10))
        content = os.urandom(6 * MIB)
        state = await driver.write(await driver.create_upload(new_location()), body(content))
        for failing in (driver.write(state, body(bytes(30 * MIB))), driver.put_small("small", bytes(20 * MIB))):
            with pytest.raises(StorageError) as caught:
                await failing
            assert isinstance(caught.value, (StorageFull, StorageUnavailable))
        await driver.complete(state)
        assert await read(driver, state.location) == content
        assert await locations(driver) == [state.location]
        await driver.close()


async def test_readers_beyond_the_connections_wait_for_one(open_driver):
    driver = open_driver(connections=2)
    location = await upload(driver, os.urandom(16 * MIB))
    usual = driver._settings
    async with AsyncExitStack() as readers:
        for _ in range(2):
            await anext(await readers.enter_async_context(aclosing(driver.open(location))))
        driver._settings = replace(usual, time_limit=1)
        with pytest.raises(StorageUnavailable, match="within 1 s"):
            await driver.stat(location)
        driver._settings = usual
    assert await driver.stat(location) == 16 * MIB
