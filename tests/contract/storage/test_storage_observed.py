"""What storage took is told, whatever the driver."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from tests.support.storage import body, locations, read

from dtr.storage import FileSystem, LocalFiles, Memory, ObjectMissing, Observed, new_location


@pytest.fixture
def seen():
    return []


@pytest.fixture
def driver(seen):
    return Observed(Memory(), lambda operation, seconds: seen.append((operation, seconds)))


def names(seen):
    assert all(seconds >= 0 for _, seconds in seen)
    return [operation for operation, _ in seen]


async def test_each_operation_is_told_once(driver, seen):
    state = await driver.write(await driver.create_upload("a"), body(b"1", b"2"))
    await driver.complete(state)
    await driver.put_small("b", b"3")
    assert await read(driver, "a") == b"12"
    assert await driver.stat("a") == 2
    assert await locations(driver) == ["a", "b"]
    assert await driver.sign("a", 60) is None
    await driver.delete("b")
    await driver.abort(state)
    assert await locations(driver) == []
    assert names(seen) == [
        "create", "write", "complete", "put_small", "open", "stat", "list", "sign", "delete", "abort", "list",
    ]  # fmt: skip


async def test_a_failed_operation_is_told_too(driver, seen):
    with pytest.raises(ObjectMissing):
        await driver.stat("missing")
    with pytest.raises(ObjectMissing):
        await read(driver, "missing")
    assert names(seen) == ["stat", "open"]


async def test_reading_is_told_when_its_first_bytes_are_there_however_slow_the_reader(driver, seen):
    await driver.put_small("a", bytes(3_000_000))
    seen.clear()
    async with aclosing(driver.open("a")) as pieces:
        await anext(pieces)
        assert names(seen) == ["open"]
        async for _ in pieces:
            pass
    assert names(seen) == ["open"]


async def test_who_observes_is_told_from_then_on():
    driver = Observed(Memory())
    await driver.put_small("a", b"")
    seen = []
    driver.observe = lambda operation, seconds: seen.append(operation)
    await driver.put_small("b", b"")
    assert seen == ["put_small"]


async def test_a_write_that_waits_for_its_body_takes_as_long(driver, seen):
    arrived = asyncio.Event()

    async def late():
        await arrived.wait()
        yield b"at last"

    writing = asyncio.create_task(driver.write(await driver.create_upload("a"), late()))
    await asyncio.sleep(0)
    assert names(seen) == ["create"]
    arrived.set()
    await writing
    assert names(seen) == ["create", "write"]


async def test_descriptors_are_offered_exactly_when_the_driver_has_them(tmp_path, seen):
    assert not isinstance(Observed(Memory()), LocalFiles)
    inner = FileSystem(tmp_path)
    driver = Observed(inner, lambda operation, seconds: seen.append(operation))
    assert isinstance(driver, LocalFiles)
    assert driver.open_writer == inner.open_writer
    assert driver.open_reader == inner.open_reader
    assert driver.position == inner.position
    await driver.check()
    with pytest.raises(ObjectMissing):
        driver.open_reader(new_location())
    assert seen == []
    await driver.close()
