"""Several storages as one: every call reaches the right one, says which it was, and is told how long it took."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing

import pytest
from tests.support.storage import body, locations, read

from dtr.storage import (
    FileSystem,
    Interrupted,
    Memory,
    ObjectMissing,
    StorageError,
    Storages,
    StorageUnavailable,
    UploadBusy,
    UploadState,
)


@pytest.fixture
def seen():
    return []


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
async def storages(tmp_path, memory, seen):
    """Three storages; `a-b` comes before `a` in the order of full locations."""
    made = Storages({"a": FileSystem(tmp_path), "a-b": memory, "z": Memory()}, "a")
    made.observe = lambda *told: seen.append(told)
    yield made
    await made.close()


def told(seen):
    assert all(seconds >= 0 for _, _, seconds in seen)
    return [f"{storage} {operation}" for storage, operation, _ in seen]


@pytest.mark.parametrize("name", ["a", "a-b"])
async def test_each_operation_reaches_its_storage_and_is_told_once(storages, seen, name):
    state = await storages.create_upload(f"{name}:1")
    state = await storages.write(state, body(b"1", b"2"))
    assert state.location == f"{name}:1"
    assert UploadState.decode(state.encode()) == state
    await storages.complete(state)
    await storages.put_small(f"{name}:2", b"3")
    assert await read(storages, f"{name}:1") == b"12"
    assert await read(storages, f"{name}:1", 1, 1) == b"2"
    assert await storages.stat(f"{name}:1") == 2
    assert await read(storages.driver(name), "1") == b"12"
    assert await locations(storages, f"{name}:") == [f"{name}:1", f"{name}:2"]
    assert await storages.sign(f"{name}:1", 60) is None
    await storages.delete(f"{name}:2")
    await storages.abort(state)
    assert await locations(storages, f"{name}:") == []
    assert told(seen) == [
        f"{name} {operation}"
        for operation in (
            "create", "write", "complete", "put_small", "open", "open", "stat", "list", "sign", "delete", "abort",
            "list",
        )
    ]  # fmt: skip
    seen.clear()
    await storages.check()
    assert seen == []


async def test_listings_are_merged_in_the_order_of_full_locations(storages):
    every = [f"{name}:{path}" for name in ("z", "a", "a-b") for path in ("x/2", "x/10", "b")]
    for location in every:
        await storages.put_small(location, b"")
    assert await locations(storages) == sorted(every)
    assert storages.names == ("a-b", "a", "z")
    assert await locations(storages, "a:x/") == ["a:x/10", "a:x/2"]
    assert await locations(storages, "a") == [one for one in sorted(every) if one.startswith("a")]
    assert await locations(storages, "q:") == await locations(storages, "a:q") == []
    for name in ("a", "a-b"):
        await storages.write(await storages.create_upload(f"{name}:u"), body(b"1"))
    assert sorted([one.location async for one in storages.list_uploads()]) == ["a-b:u", "a:u"]
    assert [one.location async for one in storages.list_uploads("a-b")] == ["a-b:u"]


async def test_errors_say_which_storage_it_was(storages, seen, memory, monkeypatch):
    for action in (storages.stat("a-b:x"), read(storages, "a-b:x"), storages.complete(UploadState("a-b:x", 1))):
        with pytest.raises(ObjectMissing) as missing:
            await action
        assert missing.value.location == "a-b:x"
    assert told(seen) == ["a-b stat", "a-b open", "a-b complete"]

    async def broken():
        yield b"1"
        raise ConnectionError

    with pytest.raises(Interrupted) as interrupted:
        await storages.write(await storages.create_upload("a-b:y"), broken())
    assert interrupted.value.state.location == "a-b:y"
    assert interrupted.value.state.offset == 1
    assert isinstance(interrupted.value.__cause__, ConnectionError)

    async def fail(*_):
        raise StorageUnavailable("the host is down")

    monkeypatch.setattr(memory, "stat", fail)
    monkeypatch.setattr(memory, "check", fail)
    with pytest.raises(StorageUnavailable, match=r"^storage a-b: the host is down$"):
        await storages.stat("a-b:x")
    with pytest.raises(StorageUnavailable, match="storage a-b"):
        await storages.check()
    await storages.check("a")


async def test_a_storage_that_nobody_knows_is_asked_for_once_and_is_not_a_missing_object(storages):
    asked = []

    async def refresh():
        asked.append(1)
        if len(asked) == 2:
            await storages.put("new", Memory())

    storages.refresh = refresh
    for action in (
        lambda: storages.stat("new:x"),
        lambda: storages.put_small("new:x", b"late"),
        lambda: read(storages, "other:x"),
    ):
        asked_before = len(asked)
        if asked_before == 1:
            await action()
        else:
            with pytest.raises(StorageUnavailable, match=r"'new'|'other'"):
                await action()
        assert len(asked) == asked_before + 1
    assert await read(storages, "new:x") == b"late"
    for location in ("nowhere:x", "no-name", ""):
        with pytest.raises(StorageUnavailable):
            storages.has_files(location)
        with pytest.raises(StorageUnavailable):
            await storages.prepare(location)
        with pytest.raises(StorageUnavailable):
            storages.open_reader(location)
    assert len(asked) == 6


async def test_an_object_is_lost_only_when_the_storage_of_now_has_it_not(storages):
    other = Memory()
    await other.put_small("x", b"moved")

    async def refresh():
        await storages.put("a-b", other)

    assert await storages.is_missing("a-b:x")
    storages.refresh = refresh
    assert not await storages.is_missing("a-b:x")
    assert await storages.is_missing("a-b:y")


async def test_real_files_are_offered_where_they_are(storages, seen):
    assert storages.has_files("a:x")
    assert not storages.has_files("a-b:x")
    state = await storages.write(await storages.create_upload("a:x"), body(b"12345"))
    descriptor = storages.open_writer(state)
    with pytest.raises(UploadBusy) as busy:
        storages.open_writer(state)
    assert busy.value.location == "a:x"
    storages.position(descriptor, UploadState("a:x", 3))
    os.write(descriptor, b"!")
    os.close(descriptor)
    await storages.complete(UploadState("a:x", 4))
    reader = storages.open_reader("a:x")
    assert os.read(reader, 9) == b"123!"
    os.close(reader)
    with pytest.raises(ObjectMissing) as missing:
        storages.open_reader("a:y")
    assert missing.value.location == "a:y"
    with pytest.raises(StorageError):
        storages.open_reader("a-b:x")


async def test_new_locations_are_in_the_storage_of_the_namespace(storages):
    storages.assigned = {"acme": "z"}
    first, second = storages.new_location(), storages.new_location("acme")
    assert (first[:2], second[:2]) == ("a:", "z:")
    assert storages.new_location("beta").startswith("a:")
    storages.default = "a-b"
    assert storages.new_location().startswith("a-b:")
    assert len({first[2:], second[2:]}) == 2


class Slow(Memory):
    """A storage that says when it was closed, and answers when it is let."""

    def __init__(self):
        super().__init__()
        self.let = asyncio.Event()
        self.closed = 0

    async def stat(self, location):
        await self.let.wait()
        return await super().stat(location)

    async def close(self):
        self.closed += 1


async def test_what_is_replaced_or_taken_away_is_closed_when_nothing_of_it_runs(storages):
    old = Slow()
    await storages.put("slow", old)
    await storages.put_small("slow:x", b"123")
    asking = asyncio.create_task(storages.stat("slow:x"))
    await asyncio.sleep(0)
    reading = storages.open("slow:x")
    assert await anext(reading) == b"123"
    new = Slow()
    await storages.put("slow", new)
    await storages.put("slow", new)
    assert (old.closed, new.closed) == (0, 0)
    old.let.set()
    assert await asking == 3
    assert old.closed == 0
    await reading.aclose()
    assert old.closed == 1
    await storages.remove("slow")
    assert new.closed == 1
    assert "slow" not in storages.names


async def test_reading_is_told_when_its_first_bytes_are_there_however_slow_the_reader(storages, seen):
    await storages.put_small("z:x", bytes(3_000_000))
    seen.clear()
    async with aclosing(storages.open("z:x")) as pieces:
        await anext(pieces)
        assert told(seen) == ["z open"]
        async for _ in pieces:
            pass
    assert told(seen) == ["z open"]


async def test_a_write_that_waits_for_its_body_takes_as_long(storages, seen):
    arrived = asyncio.Event()

    async def late():
        await arrived.wait()
        yield b"at last"

    writing = asyncio.create_task(storages.write(await storages.create_upload("z:x"), late()))
    await asyncio.sleep(0)
    assert told(seen) == ["z create"]
    arrived.set()
    await writing
    assert told(seen) == ["z create", "z write"]
