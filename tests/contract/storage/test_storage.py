"""What every storage driver must do."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import aclosing, suppress

import pytest
from tests.support.storage import MIB, body, left_of_uploads, locations, read, upload

from dtr.storage import (
    S3,
    FileSystem,
    Interrupted,
    LocalFiles,
    ObjectMissing,
    Part,
    StorageError,
    UploadBusy,
    UploadState,
    new_location,
)


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


async def test_a_body_in_pieces_of_all_sizes_is_read_back(store):
    driver, dice = store.open(), random.Random(3)
    pieces = [dice.randbytes(dice.randrange(dice.choice((2, 100, 8000, 80_000)))) for _ in range(1200)]
    location = (await driver.create_upload(new_location())).location
    state = await driver.write(UploadState(location), body(*pieces))
    await driver.complete(state)
    assert state.offset > 11 * MIB
    assert await read(driver, location) == b"".join(pieces)


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


async def test_an_upload_without_bytes_becomes_an_empty_object(store):
    driver = store.open()
    state = await driver.create_upload(new_location())
    await driver.complete(state)
    assert await driver.stat(state.location) == 0
    assert await read(driver, state.location) == b""


async def test_a_state_never_stands_for_the_bytes_of_another_writer(store):
    driver = store.open()
    if isinstance(driver, LocalFiles):  # its lock keeps the second writer out
        state = await driver.write(await driver.create_upload(new_location()), body(b"before"))
        descriptor = driver.open_writer(state)
        with pytest.raises(UploadBusy):
            await driver.write(state, body(b"other"))
        os.close(descriptor)
        return
    for size in (100, 100_000, 5 * MIB):
        before, mine, other = os.urandom(5 * MIB), os.urandom(size), os.urandom(size)
        state = await driver.write(await driver.create_upload(new_location()), body(before))
        reached = await driver.write(state, body(mine))
        await driver.write(state, body(other))
        with suppress(ObjectMissing):
            await driver.complete(reached)
            assert await read(driver, state.location) == before + mine


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


async def test_abort_leaves_nothing(store, tmp_path):
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
    assert await left_of_uploads(driver) == set()
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
    for unknown in (
        UploadState(location, offset=10, session="unknown"),
        UploadState(location, offset=10, session="unknown", parts=(Part("1", '"0"', 10),)),
        UploadState(location, offset=10, tail_location=new_location()),
    ):
        with pytest.raises(ObjectMissing):
            await driver.complete(unknown)
        with pytest.raises(ObjectMissing):
            await driver.stat(location)


@pytest.mark.parametrize("location", ["", "../x", "a//b", "/etc/passwd", "a/./b", "a\0b"])
async def test_no_location_leaves_the_store(store, location):
    driver = store.open()
    with pytest.raises(ValueError):
        await driver.create_upload(location)
    with pytest.raises(ValueError):
        await driver.put_small(location, b"")


async def test_an_object_that_is_stored_again_is_one_of_both_whole(store):
    driver, location = store.open(), new_location()
    old, new = os.urandom(4 * MIB), os.urandom(4 * MIB + 7)
    await driver.put_small(location, old)
    received = bytearray()
    stored = {old}
    with suppress(StorageError):
        async with aclosing(driver.open(location)) as pieces:
            received += await anext(pieces)
            with suppress(StorageError):  # a location is used once, so a store may refuse it
                await driver.put_small(location, new)
                stored = {new}
            async for piece in pieces:
                received += piece
        assert bytes(received) == old
    assert await read(driver, location) in stored
    assert await driver.stat(location) in {len(content) for content in stored}


async def test_concurrent_writers_of_one_key_never_make_a_mixture(store):
    driver, location = store.open(), new_location()
    if isinstance(driver, LocalFiles):  # its uploads have a file of the same name, and a lock
        contents = [os.urandom(100_000 + i) for i in range(4)]
        done = await asyncio.gather(*(driver.put_small(location, one) for one in contents), return_exceptions=True)
    else:
        contents = [os.urandom(6 * MIB + i) for i in range(4)]
        states = [await driver.write(await driver.create_upload(location), body(one)) for one in contents]
        done = await asyncio.gather(*(driver.complete(state) for state in states), return_exceptions=True)
    assert None in done
    assert all(one is None or isinstance(one, StorageError) for one in done)
    assert await read(driver, location) in contents


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
    driver, began = store.open(), time.time()
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
    assert began - 60 < stored.modified_at.timestamp() < time.time() + 60


async def test_a_healthy_store_passes_its_check_and_keeps_no_probe(store):
    driver = store.open()
    await driver.check()
    assert await locations(driver) == []
