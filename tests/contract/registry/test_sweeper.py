"""The sweeper: everything that is over goes, whatever fails and whoever else sweeps; nothing else does."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.support.invariants import assert_invariants
from tests.support.rooms import Rooms, make_body

from dtr.oci import Digest
from dtr.registry import Sweeper, sweeper
from dtr.storage import Memory, StorageUnavailable

MINUTE, DAY = 60_000, 86_400_000


async def bury(rooms: Rooms, number: int = 1, *, after: int = 0, storage: str = "default") -> list[str]:
    """Objects with tombstones, each of 3 bytes."""
    locations = [rooms.storage.new_location().replace("default", storage) for _ in range(number)]
    for location in locations:
        await rooms.storage.put_small(location, b"old")
        await rooms.change(
            "INSERT INTO gc_objects (location, size, delete_after) VALUES (:l, 3, :a)", l=location, a=after
        )
    return locations


async def start_uploads(rooms: Rooms, number: int, path: str = "acme/app") -> None:
    repository = await rooms.make_repository(path)
    for _ in range(number):
        upload = await rooms.uploads.start(repository)
        await rooms.uploads.append(upload, make_body(b"x" * 100))


async def minutes_left(rooms: Rooms) -> list[int]:
    clock = (
        "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
        if rooms.database.dialect == "sqlite"
        else "CAST(extract(epoch FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)"
    )
    rows = await rooms.query(f"SELECT delete_after - {clock} FROM gc_objects ORDER BY 1")
    return [round(left / MINUTE) for (left,) in rows]


async def sweep_all(rooms: Rooms) -> None:
    while (swept := await rooms.sweeper.sweep()).objects or swept.uploads or swept.failures:
        pass


async def test_nothing_to_do_changes_nothing(stored: Rooms):
    repository = await stored.make_repository()
    digest = await stored.push_blob(repository, b"content")
    upload = await stored.uploads.append(await stored.uploads.start(repository), make_body(b"begun"))
    (later,) = await bury(stored, after=32503680000000)
    swept = await stored.sweeper.sweep()
    assert (swept.uploads, swept.objects, swept.size, swept.failures) == (0, 0, 0, 0)
    assert await stored.read("acme/app", digest) == b"content"
    await stored.uploads.finish(upload, Digest.of(b"begun"), make_body())
    assert later in await stored.locations()


async def test_due_tombstones_go_with_their_objects(stored: Rooms):
    await bury(stored, 3)
    swept = await stored.sweeper.sweep()
    assert (swept.objects, swept.size) == (3, 9)
    assert await stored.locations() == []
    assert await stored.count("gc_objects") == 0


async def test_an_object_that_is_gone_already_is_a_success(stored: Rooms):
    (location,) = await bury(stored)
    await stored.storage.delete(location)
    assert (await stored.sweeper.sweep()).objects == 1
    assert await stored.count("gc_objects") == 0


async def test_more_than_a_batch_goes_round_by_round(stored: Rooms):
    batch = sweeper._BATCH
    await bury(stored, 2 * batch + 20)
    rounds = []
    while (swept := await stored.sweeper.sweep()).objects:
        rounds.append((swept.objects, swept.is_full))
    assert rounds == [(batch, True), (batch, True), (20, False)]
    assert await stored.locations() == []


async def test_an_aborted_upload_is_aborted_once_more_a_day_later(stored: Rooms):
    await start_uploads(stored, 2)
    await stored.expire_uploads()
    swept = await stored.sweeper.sweep()
    assert (swept.uploads, swept.objects, swept.size) == (2, 2, 200)
    assert await minutes_left(stored) == [1440, 1440]
    # What a late request of a dead worker may still bring.
    ((location, _),) = (await stored.query("SELECT location, driver_state FROM gc_objects"))[:1]
    await stored.storage.put_small(location, b"late")
    assert (await stored.sweeper.sweep()).objects == 0
    await stored.make_due()
    assert (await stored.sweeper.sweep()).objects == 2
    assert await stored.count("gc_objects") == 0
    assert await stored.locations() == []


async def test_expired_uploads_of_a_deleted_repository_go(stored: Rooms):
    await start_uploads(stored, 2)
    await stored.repositories.delete("acme/app")
    await stored.expire_uploads()
    assert (await stored.sweeper.sweep()).uploads == 2
    await assert_invariants(stored)


async def test_many_expired_uploads_cost_few_statements(rooms: Rooms):
    from tests.support.rooms import Counter

    await start_uploads(rooms, 40)
    await rooms.expire_uploads()
    counter = Counter().watch(rooms.database)
    await rooms.sweeper.sweep()
    assert counter.statements <= 8


async def test_a_tombstone_is_leased_while_its_object_is_deleted(rooms: Rooms):
    await bury(rooms)
    seen = []
    delete = rooms.storage.delete

    async def look(location: str) -> None:
        seen.extend(await minutes_left(rooms))
        seen.append((await rooms.another().sweeper.sweep()).objects)
        await delete(location)

    rooms.storage.delete = look  # type: ignore[method-assign]
    await rooms.sweeper.sweep()
    assert seen == [10, 0]


# --- what fails ----------------------------------------------------------------------------------------------


async def test_a_storage_that_does_not_work_is_asked_again_later_and_later(make_rooms, disk):
    broken = make_rooms("small disk")
    await bury(broken, 2)
    disk.set_read_only(True)
    for attempt in range(1, 5):
        swept = await broken.sweeper.sweep()
        assert (swept.objects, swept.failures) == (0, 2)
        assert (await broken.sweeper.sweep()).failures == 0, "not at once"
        rows = await broken.query("SELECT attempts, last_error FROM gc_objects")
        assert {attempts for attempts, _ in rows} == {attempt}
        assert all("Read-only" in error for _, error in rows)
        for left in await minutes_left(broken):
            assert 0.7 * 2**attempt - 1 <= left <= 1.3 * 2**attempt + 1
        await broken.make_due()
    disk.set_read_only(False)
    assert (await broken.sweeper.sweep()).objects == 2
    assert await broken.locations() == []


async def test_after_many_failures_the_pause_is_a_day_and_an_error_is_logged(make_rooms, disk, caplog):
    broken = make_rooms("small disk")
    await bury(broken)
    await broken.change("UPDATE gc_objects SET attempts = 30")
    disk.set_read_only(True)
    assert (await broken.sweeper.sweep()).failures == 1
    assert 0.7 * 1440 < (await minutes_left(broken))[0] < 1.3 * 1440
    assert [record.levelname for record in caplog.records if record.name == "dtr.sweeper"] == ["ERROR"]


async def test_one_object_that_cannot_be_deleted_does_not_keep_the_others(rooms: Rooms):
    await bury(rooms, 3)
    await rooms.change(
        "INSERT INTO gc_objects (location, size, delete_after, driver_state)"
        " VALUES ('20200101/x', 1, -1, 'no JSON')"
    )
    swept = await rooms.sweeper.sweep()
    assert (swept.objects, swept.failures) == (3, 1)
    assert await rooms.locations() == []
    ((location, attempts),) = await rooms.query("SELECT location, attempts FROM gc_objects")
    assert (location, attempts) == ("20200101/x", 1)


async def test_the_sweeper_goes_on_after_the_database_failed(make_rooms, monkeypatch):
    monkeypatch.setattr("dtr.registry.sweeper._SHORTEST_SLEEP", 0.01)
    rooms = make_rooms()
    await bury(rooms, 3)
    failing = rooms.another()
    calls = 0
    unit = failing.database.unit

    async def fail_first(work, **how):
        nonlocal calls
        calls += 1
        if calls == 1:
            await rooms.query("SELECT * FROM no_such_table")
        return await unit(work, **how)

    failing.database.unit = fail_first  # type: ignore[method-assign]
    task = asyncio.create_task(failing.sweeper.run())
    async with asyncio.timeout(60):
        while await rooms.count("gc_objects"):
            await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await rooms.locations() == []


async def test_a_running_sweeper_works_off_a_full_queue_without_pauses(rooms: Rooms, monkeypatch):
    monkeypatch.setattr("dtr.registry.sweeper._SHORTEST_SLEEP", 3600.0)
    monkeypatch.setattr("dtr.registry.sweeper._LONGEST_SLEEP", 3600.0)
    await bury(rooms, 2 * sweeper._BATCH + 20)
    task = asyncio.create_task(rooms.sweeper.run())
    async with asyncio.timeout(60):
        while await rooms.count("gc_objects"):
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])


# --- several, and crashes ------------------------------------------------------------------------------------


async def test_several_sweepers_share_the_work_and_do_it_once(stored: Rooms):
    await bury(stored, 100)
    await start_uploads(stored, 60)
    await stored.expire_uploads()
    sweepers = [peer.sweeper for peer in (stored, stored.another(), stored.another())]
    total, freed = 0, 0
    for _ in range(6):
        for swept in await asyncio.gather(*(one.sweep() for one in sweepers)):
            assert swept.failures == 0
            total += swept.objects
            freed += swept.uploads
    assert (total, freed) == (160, 60)
    assert await stored.locations() == []
    assert await stored.count("gc_objects") == 60, "to be aborted once more"
    await assert_invariants(stored)


async def test_a_sweeper_that_dies_at_any_moment_is_repeated_harmlessly(stored: Rooms):
    repository = await stored.make_repository("acme/kept")
    content = os.urandom(100)
    digest = await stored.push_blob(repository, content)
    for moment in range(40):
        await bury(stored, 2)
        await start_uploads(stored, 1, f"acme/app{moment}")
        await stored.change("UPDATE uploads SET expires_at = 0")
        task = asyncio.create_task(Sweeper(stored.database, stored.storage).sweep())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert await stored.read("acme/kept", digest) == content
    # A unit that had begun goes on, and what it has is nobody else's until its commit; then the leases of the dead
    # end.
    async with asyncio.timeout(60):
        while await stored.count("gc_objects") or await stored.count("uploads"):
            await stored.make_due()
            await sweep_all(stored)
    assert len(await stored.locations()) == 1
    assert await stored.read("acme/kept", digest) == content
    await assert_invariants(stored)


async def test_sweeping_during_pushes_takes_nothing_that_is_pushed(stored: Rooms):
    repositories = [await stored.make_repository(f"acme/app{n}") for n in range(3)]
    hosts = [stored, stored.another()]
    contents = [os.urandom(50) for _ in range(10)]
    stop = asyncio.Event()

    async def sweep(host: Rooms) -> None:
        while not stop.is_set():
            await host.sweeper.sweep()
            await asyncio.sleep(0)

    async def push(number: int) -> None:
        host = hosts[number % 2]
        for content in contents:
            await host.push_blob(repositories[number % 3], content)

    sweeping = [asyncio.create_task(sweep(host)) for host in hosts]
    await asyncio.gather(*(push(number) for number in range(6)))
    stop.set()
    await asyncio.gather(*sweeping)
    await sweep_all(stored)
    for path in ("acme/app0", "acme/app1", "acme/app2"):
        for content in contents:
            assert await stored.read(path, Digest.of(content)) == content
    assert len(await stored.locations()) == len(contents)
    await assert_invariants(stored)


async def test_a_storage_that_does_not_answer_keeps_no_other_one(rooms: Rooms, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Silent(Memory):
        async def delete(self, location: str) -> None:
            asked.append(location)
            await asyncio.sleep(0.3)  # longer than the patience
            raise StorageUnavailable("no answer")

    monkeypatch.setattr(sweeper, "_PATIENCE_SECONDS", 0.2)
    await rooms.storage.put("other", Silent())
    await bury(rooms, 2)
    locations = await bury(rooms, 3, storage="other")
    swept = await rooms.sweeper.sweep()
    assert len(asked) == 1, "it is asked once, and nobody waits for it again"
    assert (swept.objects, swept.failures) == (2, 3)
    assert await rooms.locations() == sorted(locations)
    rows = await rooms.query("SELECT attempts, last_error FROM gc_objects")
    assert {attempts for attempts, _ in rows} == {1}
    assert all("storage other" in error for _, error in rows)
    monkeypatch.setattr(sweeper, "_SILENT_SECONDS", 0)
    rooms.sweeper._silent_until.clear()
    await rooms.storage.put("other", Memory(rooms.storage.driver("other")))
    await rooms.make_due()
    assert (await rooms.sweeper.sweep()).objects == 3
