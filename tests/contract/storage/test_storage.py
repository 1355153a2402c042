"""What every storage driver must do, and what single drivers promise besides."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import aclosing, suppress

import msgspec
import pytest

from dtr.storage import (
    S3,
    AccessDenied,
    FileSystem,
    Interrupted,
    Memory,
    ObjectMissing,
    S3Settings,
    StorageError,
    StorageUnavailable,
    UploadBusy,
    UploadState,
    new_location,
)

MIB = 1024 * 1024


def s3_settings(server, **changes):
    values = {
        "bucket": "blobs",
        "endpoint": server.endpoint,
        "access_key": "contract",
        "secret_key": "contract-secret",
        "path_style": True,
        "part_size": 5 * MIB,
        "time_limit": 20,
    }
    return S3Settings(**{**values, **changes})


class Setup:
    """One kind of store, and how to open it as another host would."""

    def __init__(self, open_driver):
        self.opened = []
        self._open_driver = open_driver

    def open(self):
        driver = self._open_driver()
        self.opened.append(driver)
        return driver


@pytest.fixture(params=["memory", "filesystem", "s3"])
async def store(request, tmp_path):
    if request.param == "memory":
        shared = Memory()
        setup = Setup(lambda: Memory(shared))
    elif request.param == "filesystem":
        setup = Setup(lambda: FileSystem(tmp_path))
    else:
        settings = s3_settings(request.getfixturevalue("s3_server"), root_directory=f"/test/{tmp_path.name}/")
        setup = Setup(lambda: S3(settings))
    yield setup
    for driver in setup.opened:
        await driver.close()


async def body(*pieces, failure=None):
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece
    if failure is not None:
        raise failure


async def read(driver, location, *window):
    async with aclosing(driver.open(location, *window)) as pieces:
        return b"".join([piece async for piece in pieces])


async def locations(driver, prefix=""):
    async with aclosing(driver.list(prefix)) as found:
        return [stored.location async for stored in found]


async def upload(driver, *bodies):
    state = await driver.create_upload(new_location())
    for content in bodies:
        state = await driver.write(state, body(content))
    await driver.complete(state)
    return state.location


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 + 1, MIB, 5 * MIB, 11 * MIB + 7])
async def test_a_stream_of_unknown_length_is_read_back(store, size):
    driver = store.open()
    content = os.urandom(size)
    pieces = [content[i : i + 300_001] for i in range(0, size, 300_001)]
    state = await driver.write(await driver.create_upload(new_location()), body(*pieces))
    assert state.offset == size
    with pytest.raises(ObjectMissing):
        await driver.stat(state.location)
    await driver.complete(state)
    await driver.complete(state)
    assert await driver.stat(state.location) == size
    assert await read(driver, state.location) == content
    assert await locations(driver) == [state.location]


@pytest.mark.parametrize("sizes", [(10, 20), (100_000, 200_000, 1), (6 * MIB, 3, 100_000, 5 * MIB), (0, 5)])
async def test_an_upload_continues_from_its_encoded_state_in_another_driver(store, sizes):
    bodies = [os.urandom(size) for size in sizes]
    state = await store.open().create_upload(new_location())
    for content in bodies:
        text = (await store.open().write(state, body(content))).encode()
        assert len(text) < 100_000
        state = UploadState.decode(text)
    driver = store.open()
    await driver.complete(state)
    assert await read(driver, state.location) == b"".join(bodies)
    assert await locations(driver) == [state.location]


async def test_an_interrupted_body_keeps_what_came(store):
    driver = store.open()
    first, second = os.urandom(5 * MIB + 100_000), os.urandom(1000)
    state = await driver.create_upload(new_location())
    with pytest.raises(Interrupted) as caught:
        await driver.write(state, body(first, failure=ConnectionResetError("gone")))
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert caught.value.state.offset == len(first)
    state = await store.open().write(caught.value.state, body(second))
    await driver.complete(state)
    assert await read(driver, state.location) == first + second


async def test_an_older_state_drops_what_was_stored_beyond_it(store):
    driver = store.open()
    kept, lost, instead = os.urandom(200_000), os.urandom(300_000), os.urandom(5)
    state = await driver.write(await driver.create_upload(new_location()), body(kept))
    await driver.write(state, body(lost))
    state = await driver.write(state, body(instead))
    await driver.complete(state)
    assert await read(driver, state.location) == kept + instead


async def test_a_cancelled_write_can_be_repeated(store):
    driver = store.open()
    started = asyncio.Event()

    async def endless():
        yield bytes(6 * MIB)
        started.set()
        await asyncio.Event().wait()

    state = await driver.create_upload(new_location())
    task = asyncio.create_task(driver.write(state, endless()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    state = await driver.write(state, body(b"again"))
    await driver.complete(state)
    assert await read(driver, state.location) == b"again"


async def test_abort_leaves_nothing(store, request, tmp_path):
    driver = store.open()
    state = await driver.create_upload(new_location())
    await driver.abort(state)
    # Both states begin a session of their own at the store; only one of them is known to the abort.
    await driver.write(state, body(bytes(5 * MIB)))
    state = await driver.write(state, body(bytes(5 * MIB), bytes(100_000)))
    state = await driver.write(state, body(bytes(100_000)))
    await driver.abort(state)
    await driver.abort(state)
    with pytest.raises(ObjectMissing):
        await driver.complete(state)
    assert await locations(driver) == []
    if isinstance(driver, FileSystem):
        assert list(tmp_path.iterdir()) == []
    if isinstance(driver, S3):
        client = await driver._connect()
        uploads = await client.list_multipart_uploads(Bucket="blobs", Prefix=driver._prefix)
        objects = await client.list_objects_v2(Bucket="blobs", Prefix=driver._prefix)
        assert not uploads.get("Uploads")
        assert objects["KeyCount"] == 0


async def test_ranges(store):
    driver = store.open()
    content = os.urandom(3 * MIB)
    location = await upload(driver, content)
    for offset, length in [(0, None), (5, 10), (MIB - 1, 2), (0, 0), (3 * MIB - 1, None), (3 * MIB - 1, 99)]:
        end = len(content) if length is None else offset + length
        assert await read(driver, location, offset, length) == content[offset:end]
    assert await read(driver, location, 3 * MIB) == b""
    assert await read(driver, location, 9 * MIB, 5) == b""
    async with aclosing(driver.open(location)) as pieces:
        assert 0 < len(await anext(pieces)) <= MIB


async def test_what_is_missing(store):
    driver = store.open()
    location = new_location()
    with pytest.raises(ObjectMissing) as caught:
        await driver.stat(location)
    assert caught.value.location == location
    with pytest.raises(ObjectMissing):
        await read(driver, location)
    with pytest.raises(ObjectMissing):
        await read(driver, location, 0, 0)
    await driver.delete(location)
    with pytest.raises(ObjectMissing):
        await driver.complete(UploadState(location, offset=10, session="unknown"))


@pytest.mark.parametrize("location", ["", "../x", "a//b", "/etc/passwd", "a/./b", "a\0b"])
async def test_no_location_leaves_the_store(store, location):
    driver = store.open()
    with pytest.raises(ValueError):
        await driver.create_upload(location)
    with pytest.raises(ValueError):
        await driver.put_small(location, b"")


async def test_concurrent_writers_of_different_keys(store):
    driver = store.open()
    contents = [os.urandom(400_000 + i) for i in range(8)]
    async with asyncio.TaskGroup() as tasks:
        uploads = [tasks.create_task(upload(driver, c[:1000], c[1000:])) for c in contents]
        small = [tasks.create_task(driver.put_small(f"small/{i}", c[:50])) for i, c in enumerate(contents)]
    assert len(small) == 8
    for i, (task, content) in enumerate(zip(uploads, contents, strict=True)):
        assert await read(driver, task.result()) == content
        assert await read(driver, f"small/{i}") == content[:50]


async def test_a_delete_during_a_read_never_shortens_it_silently(store):
    driver = store.open()
    content = os.urandom(4 * MIB)
    location = await upload(driver, content)
    received = bytearray()
    with suppress(StorageError):
        async with aclosing(driver.open(location)) as pieces:
            received += await anext(pieces)
            await driver.delete(location)
            async for piece in pieces:
                received += piece
        assert bytes(received) == content
    assert received
    with pytest.raises(ObjectMissing):
        await driver.stat(location)


async def test_a_listing_is_in_key_order_and_knows_sizes(store):
    driver = store.open()
    names = ["a/b", "a.b", "a/b.c/d", "b", "a/b0", "ä/x", "c/1/2"]
    for size, name in enumerate(names):
        await driver.put_small(name, bytes(size))
    assert await locations(driver) == sorted(names)
    assert await locations(driver, "a/b") == ["a/b", "a/b.c/d", "a/b0"]
    assert await locations(driver, "a/b.c/") == ["a/b.c/d"]
    assert await locations(driver, "nothing/") == []
    async with aclosing(driver.list("c")) as found:
        [stored] = [entry async for entry in found]
    assert stored.size == 6
    assert abs(stored.modified_at.timestamp() - time.time()) < 60


async def test_a_healthy_store_passes_its_check_and_keeps_no_probe(store):
    driver = store.open()
    await driver.check()
    assert await locations(driver) == []


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
async def test_wrong_credentials_are_denied(s3_server, keys):
    driver = S3(s3_settings(s3_server, **keys))
    with pytest.raises(AccessDenied):
        await driver.check()
    await driver.close()


async def test_a_missing_bucket_is_named(s3_server):
    driver = S3(s3_settings(s3_server, bucket="no-such-bucket"))
    with pytest.raises(StorageError, match="NoSuchBucket"):
        await driver.check()
    await driver.close()


async def test_a_stopped_server_is_unavailable_in_bounded_time_and_usable_again(s3_server):
    driver = S3(s3_settings(s3_server, time_limit=0.5))
    location = await upload(driver, b"before")
    s3_server.pause()
    try:
        started = time.monotonic()
        for action in (driver.stat(location), driver.put_small(new_location(), b""), read(driver, location)):
            with pytest.raises(StorageUnavailable):
                await action
        assert time.monotonic() - started < 3
    finally:
        s3_server.resume()
    assert await read(driver, location) == b"before"
    await driver.close()


async def test_a_server_that_is_not_there_is_unavailable(s3_server):
    driver = S3(s3_settings(s3_server, endpoint="http://127.0.0.1:1", time_limit=5))
    with pytest.raises(StorageUnavailable):
        await driver.check()
    await driver.close()


async def test_a_descriptor_for_threads_is_locked_cut_and_positioned(tmp_path):
    driver = FileSystem(tmp_path)
    state = await driver.write(await driver.create_upload(new_location()), body(b"0123456789"))
    state = msgspec.structs.replace(state, offset=4)
    descriptor = driver.open_writer(state)
    with pytest.raises(UploadBusy):
        await driver.write(state, body(b"x"))
    os.write(descriptor, b"abc")
    os.close(descriptor)
    state = msgspec.structs.replace(state, offset=7)
    await driver.complete(state)
    descriptor = driver.open_reader(state.location)
    assert os.read(descriptor, 100) == b"0123abc"
    os.close(descriptor)
    with pytest.raises(ObjectMissing):
        driver.open_reader(new_location())
    with pytest.raises(ObjectMissing):
        driver.open_writer(UploadState(new_location(), offset=1))
    await driver.close()


async def test_a_missing_root_is_unavailable_and_is_not_made(tmp_path):
    driver = FileSystem(tmp_path / "unmounted")
    for action in (driver.check(), driver.stat(new_location()), locations(driver), upload(driver, b"x")):
        with pytest.raises(StorageUnavailable):
            await action
    assert list(tmp_path.iterdir()) == []
    await driver.close()


async def test_a_system_call_that_hangs_is_unavailable_in_bounded_time(tmp_path):
    driver = FileSystem(tmp_path, time_limit=0.3)
    state = await driver.create_upload(new_location())
    os.mkfifo(tmp_path / "pipe")  # opening it waits for a writer, as a dead NFS server makes one wait
    with pytest.raises(StorageUnavailable):
        await read(driver, "pipe")
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))
    await driver.write(state, body(b"others go on"))
    await driver.close()


FULL_DISK = """
import asyncio, os, resource, sys
from dtr.storage import FileSystem, ObjectMissing, StorageFull, new_location

async def body():
    for _ in range(4):
        yield bytes(1024 * 1024)

async def main():
    driver = FileSystem(sys.argv[1])
    small, state = new_location(), await driver.create_upload(new_location())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
    for action in (driver.write(state, body()), driver.put_small(small, bytes(2_000_000))):
        try:
            await action
        except StorageFull:
            print("full")
    assert [stored async for stored in driver.list()] == []
    await driver.put_small(new_location(), b"small ones still fit")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    state = await driver.write(state, body())
    await driver.complete(state)
    await driver.put_small(small, bytes(2_000_000))
    print(await driver.stat(state.location), await driver.stat(small))
    await driver.close()

asyncio.run(main())
"""


def test_a_full_disk_shows_nothing_half_written_and_works_again_later(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["full", "full", str(4 * MIB), "2000000"]


KILLED = """
import asyncio, sys
from dtr.storage import FileSystem, new_location

async def endless():
    while True:
        yield bytes(65536)

async def main():
    driver = FileSystem(sys.argv[1])
    state = await driver.create_upload(new_location())
    upload = asyncio.create_task(driver.write(state, endless()))
    while True:
        location = new_location()
        await driver.put_small(location, location.encode() * 100)
        print(location, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged_and_shows_nothing_half_written(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [process.stdout.readline().strip() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
    driver = FileSystem(tmp_path)
    found = await locations(driver)
    assert set(acknowledged) <= set(found)
    for location in found:
        assert await read(driver, location) == location.encode() * 100
    await driver.close()


async def test_small_objects_that_arrive_together_share_directory_syncs(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    driver = FileSystem(tmp_path)
    await asyncio.gather(*(driver.put_small(f"day/minute/{i}", b"x" * i) for i in range(200)))
    # Three directories a batch: two batches, when the first had already begun.
    assert 0 < len(synced) <= 30
    assert len(await locations(driver)) == 200
    await driver.close()


async def test_one_failed_small_object_does_not_fail_its_batch(tmp_path):
    driver = FileSystem(tmp_path)
    await driver.put_small("file", b"")
    results = await asyncio.gather(
        driver.put_small("good", b"1"),
        driver.put_small("file/below", b"2"),
        driver.put_small("fine", b"3"),
        return_exceptions=True,
    )
    assert [isinstance(result, StorageError) for result in results] == [False, True, False]
    assert await locations(driver) == ["file", "fine", "good"]
    await driver.close()
