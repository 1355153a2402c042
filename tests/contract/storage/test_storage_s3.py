"""What S3 promises besides, and what it answers when the server is not as it should be."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.disk import small_disk
from tests.support.proxy import proxy
from tests.support.s3 import run_s3_server
from tests.support.storage import MIB, body, locations, read, s3_settings, upload

from dtr.storage import (
    S3,
    AccessDenied,
    ObjectMissing,
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
async def way_to(server, answers):
    """The address of a way to the server on which `answers` carries what it sends."""
    async with proxy(urlsplit(server.endpoint).port, answers=answers) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_signed_address_gives_the_object_to_anyone_but_only_by_get(s3_server):
    driver = S3(s3_settings(s3_server))
    location = await upload(driver, b"signed")
    url = await driver.sign(location, 60)
    await driver.close()
    assert url is not None
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
        assert answer.read() == b"signed"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, data=b"x", method="PUT"))
    refused.value.close()
    assert refused.value.code == 403


@pytest.mark.parametrize("keys", [{"secret_key": "wrong"}, {"access_key": "nobody"}])
async def test_wrong_credentials_are_denied(open_driver, keys):
    with pytest.raises(AccessDenied):
        await open_driver(**keys).check()


@pytest.mark.parametrize(
    "wrong", [{"secret_key": "wrong"}, {"access_key": "nobody"}, {"bucket": "no-such-bucket"}]
)
async def test_a_bucket_that_is_not_there_for_us_does_not_look_like_missing_objects(open_driver, wrong):
    driver = open_driver(**wrong)
    for action in (driver.stat(new_location()), read(driver, new_location())):
        with pytest.raises(StorageError) as caught:
            await action
        assert not isinstance(caught.value, ObjectMissing)


async def test_a_missing_bucket_is_named(open_driver):
    with pytest.raises(StorageError, match="NoSuchBucket"):
        await open_driver(bucket="no-such-bucket").check()


async def test_a_server_that_is_not_there_is_unavailable(open_driver):
    with pytest.raises(StorageUnavailable):
        await open_driver(endpoint="http://127.0.0.1:1", time_limit=5).check()


async def test_a_stopped_server_is_unavailable_in_bounded_time_and_usable_again(s3_server, open_driver):
    patient, driver = open_driver(), open_driver(time_limit=0.5)
    location = await upload(patient, b"before")
    s3_server.pause()
    try:
        for action in (driver.stat(location), driver.put_small(new_location(), b""), read(driver, location)):
            started = time.monotonic()
            with pytest.raises(StorageUnavailable):
                await action
            assert time.monotonic() - started < 10
    finally:
        s3_server.resume()
    assert await read(patient, location) == b"before"


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
    monkeypatch.setattr("dtr.storage.s3.SIZES", replace(SIZES, growth=2))
    driver = open_driver()
    content = os.urandom(30 * MIB + 5)
    pieces = [content[start : start + 300_001] for start in range(0, len(content), 300_001)]
    state = await driver.write(await driver.create_upload(new_location()), body(*pieces))
    assert [part.size for part in state.parts] == [5 * MIB, 5 * MIB, 5 * MIB, 15 * MIB // 2, 15 * MIB // 2 + 5]
    await driver.complete(state)
    assert await read(driver, state.location) == content


async def test_an_upload_goes_on_after_its_server_was_away(tmp_path):
    with run_s3_server(tmp_path / "server") as server:
        driver = S3(s3_settings(server))
        content = os.urandom(21 * MIB)
        state = await driver.write(await driver.create_upload(new_location()), body(content[: 6 * MIB]))

        async def rest():
            yield content[6 * MIB : 11 * MIB]
            server.kill()
            yield content[11 * MIB :]

        with pytest.raises(StorageUnavailable):
            await driver.write(state, rest())
        server.start()
        state = await driver.write(state, body(content[6 * MIB :]))
        await driver.complete(state)
        assert await read(driver, state.location) == content
        await driver.close()


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

    async with way_to(s3_server, slowly) as address:
        driver = open_driver(endpoint=address, time_limit=limit)
        started = time.monotonic()
        assert await read(driver, location) == content
        assert time.monotonic() - started > limit
        await driver.close()


@pytest.mark.parametrize("ending", ["stalls", "breaks off"])
async def test_an_answer_that_stops_in_the_middle_is_unavailable_and_never_short(s3_server, open_driver, ending):
    location = await upload(open_driver(), content := os.urandom(4 * MIB))

    async def halfway(reader, writer):
        left = 2 * MIB
        while left > 0 and (piece := await reader.read(65536)):
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
        if ending == "stalls":
            await asyncio.Event().wait()

    async with way_to(s3_server, halfway) as address:
        driver = open_driver(endpoint=address, time_limit=2)
        received = bytearray()

        async def receive():
            async with aclosing(driver.open(location)) as pieces:
                async for piece in pieces:
                    received.extend(piece)

        with pytest.raises(StorageUnavailable):
            await receive()
        assert received
        assert content.startswith(received)
        await driver.close()


async def test_reading_is_one_request(s3_server, open_driver):
    location = await upload(open_driver(), content := os.urandom(3 * MIB))
    requests = []

    async def noted(reader, writer):
        while piece := await reader.read(65536):
            requests.append(piece.partition(b" ")[0])
            writer.write(piece)

    async with proxy(urlsplit(s3_server.endpoint).port, requests=noted) as port:
        driver = open_driver(endpoint=f"http://127.0.0.1:{port}")
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
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"growth: {int(done.stdout) / 1024:.1f} MiB")
    assert int(done.stdout) < 4 * 1024  # KiB, beyond what an upload took that is no part


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", mib=12) as made:
        yield made


async def test_a_full_disk_for_parts_on_their_way_loses_nothing_and_is_given_back(open_driver, disk):
    driver = open_driver(spool_directory=str(disk.path))
    content = os.urandom(14 * MIB)
    state = await driver.write(await driver.create_upload(new_location()), body(content[: 7 * MIB]))
    disk.fill()
    with pytest.raises(StorageFull, match=f"No space left on device.*{disk.path}"):
        await driver.write(state, body(content[7 * MIB :]))
    disk.make_room()
    state = await driver.write(state, body(content[7 * MIB :]))
    await driver.complete(state)
    assert await read(driver, state.location) == content
    await driver.close()
    assert os.statvfs(disk.path).f_bavail == os.statvfs(disk.path).f_blocks


async def test_a_check_finds_that_parts_have_no_place_to_wait(open_driver, disk, tmp_path):
    disk.fill()
    with pytest.raises(StorageFull, match=str(disk.path)):
        await open_driver(spool_directory=str(disk.path)).check()
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

    async with proxy(urlsplit(s3_server.endpoint).port, requests=breaking) as port:
        driver = open_driver(endpoint=f"http://127.0.0.1:{port}")
        location = await upload(driver, content)
        assert breaks == 0
        assert await read(open_driver(), location) == content
        await driver.close()
