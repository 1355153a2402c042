"""Moving blobs from storage to storage: nothing is lost, whoever pushes, deletes, moves or dies meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import make_image, make_index
from tests.support.invariants import assert_invariants
from tests.support.rooms import Rooms, make_body, read_object

from dtr.oci import Digest
from dtr.registry import Lifetimes, Migration, MigrationFailed, Move, migration
from dtr.storage import FileSystem, Memory, ObjectMissing, StorageUnavailable

HOUR = 3_600_000


class Held(Memory):
    """A memory that can be held in the middle of reading, be away, or have no objects."""

    def __init__(self, peer: Held | None = None) -> None:
        super().__init__(peer)
        self.reading = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.away = False

    async def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        if self.away:
            raise StorageUnavailable("it is away")
        async for piece in super().open(location, offset, length):
            self.reading.set()
            await self.may_read.wait()
            yield piece


class Place:
    """Rooms over three storages: `default` and `third` in memory, `files` on a disk."""

    def __init__(self, database_url: str, root: Path) -> None:
        self.memory, self.third = Held(), Held()
        self._root = root
        self.rooms = Rooms(database_url, lambda: self.memory, lifetimes=Lifetimes(delete_delay=HOUR))
        self.storages = self.rooms.storage
        self.told: list[str] = []

    async def open(self) -> None:
        self._root.mkdir()
        await self.storages.put("third", self.third)
        await self.storages.put("files", FileSystem(self._root))

    def move(self, *sources: str, to: str = "files", **how: Any) -> Migration:
        return Migration(
            self.rooms.database,
            self.storages,
            self.rooms.lifetimes,
            Move(sources=sources or ("default",), target=to, **how),
            lambda text, _level: self.told.append(text),
        )

    async def location(self, digest: str) -> str:
        ((location,),) = await self.rooms.query("SELECT location FROM blobs WHERE digest = :d", d=digest)
        return location

    async def storages_of_blobs(self) -> set[str]:
        rows = await self.rooms.query("SELECT DISTINCT location FROM blobs WHERE location IS NOT NULL")
        return {location.partition(":")[0] for (location,) in rows}

    async def tombstones(self) -> list[str]:
        return [row[0] for row in await self.rooms.query("SELECT location FROM gc_objects ORDER BY location")]

    async def sweep(self) -> None:
        await self.rooms.make_due()
        while (swept := await self.rooms.sweeper.sweep()).objects or swept.uploads:
            assert not swept.failures


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(database_url, tmp_path / "files")
    await made.open()
    yield made
    await made.rooms.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(migration, "_WAIT_SECONDS", 0.02)


async def test_everything_moves_and_the_old_objects_go_later(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    images = [make_image(layers=3, size=size) for size in (10, 70_000, 3_000_000)]
    index = make_index(*images)
    await rooms.push(repository, index, "latest")
    before = await rooms.locations()
    moving = place.move()
    await moving.run()
    assert await place.storages_of_blobs() == {"files"}
    assert (moving.progress.blobs, moving.progress.failed) == (len(before), 0)
    assert moving.progress.size == moving.progress.all_size
    for image in images:
        for content in image.blobs:
            assert await rooms.read("acme/app", Digest.of(content)) == content
    assert await place.tombstones() == before  # pulls that began before go on
    for location in before:
        await rooms.storage.stat(location)
    await assert_invariants(rooms)
    await place.sweep()
    assert len(await rooms.locations()) == len(before)
    assert {location.partition(":")[0] for location in await rooms.locations()} == {"files"}
    await assert_invariants(rooms)
    await place.move().run()  # nothing is left to do


async def test_a_pull_goes_on_at_the_old_place(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    content = bytes(3_000_000)
    digest = await rooms.push_blob(repository, content)
    place.memory.may_read.clear()
    blob = await rooms.blobs.get("acme/app", digest)
    pulling = asyncio.create_task(read_object(rooms.storage, blob.location))
    await place.memory.reading.wait()
    place.memory.may_read.set()
    await place.move().run()
    assert await pulling == content
    assert (await rooms.blobs.get("acme/app", digest)).location.startswith("files:")


async def test_pushes_go_on_and_uploads_are_moved_when_they_have_ended(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    await rooms.push_blob(repository, b"old")
    upload = await rooms.uploads.append(await rooms.uploads.start(repository), make_body(b"x" * 100_000))
    place.storages.default = "files"
    moving = place.move()
    running = asyncio.create_task(moving.run())
    fresh = [await rooms.push_blob(repository, f"fresh {number}".encode()) for number in range(5)]
    await asyncio.sleep(0.2)
    assert not running.done()
    upload = await rooms.uploads.append(await rooms.upload_again(upload), make_body(b"y" * 100_000))
    digest = Digest.of(b"x" * 100_000 + b"y" * 100_000)
    await rooms.uploads.finish(upload, digest, make_body())
    await asyncio.wait_for(running, 60)
    assert await place.storages_of_blobs() == {"files"}
    assert await rooms.read("acme/app", digest) == b"x" * 100_000 + b"y" * 100_000
    assert [await rooms.read("acme/app", one) for one in fresh] == [f"fresh {n}".encode() for n in range(5)]
    await assert_invariants(rooms)


async def test_an_upload_that_ends_between_two_looks_is_moved(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Whoever has looked for blobs, and looks for uploads then, finds it nowhere."""
    rooms = place.rooms
    repository = await rooms.make_repository()
    upload = await rooms.uploads.append(await rooms.uploads.start(repository), make_body(b"x" * 100_000))
    place.storages.default = "files"
    walk, has_ended = Migration._work_off, False

    async def work_off(self: Migration, found: Any) -> None:
        nonlocal has_ended
        await walk(self, found)
        if not has_ended:
            has_ended = True
            await rooms.uploads.finish(await rooms.upload_again(upload), Digest.of(b"x" * 100_000), make_body())

    monkeypatch.setattr(Migration, "_work_off", work_off)
    await asyncio.wait_for(place.move().run(), 60)
    assert await place.storages_of_blobs() == {"files"}


async def test_uploads_without_news_are_not_waited_for(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    upload = await rooms.uploads.append(await rooms.uploads.start(repository), make_body(b"x" * 100_000))
    await rooms.pass_time(HOUR)
    moving = place.move()
    await asyncio.wait_for(moving.run(), 60)
    assert moving.progress.uploads == 1
    digest = Digest.of(b"x" * 100_000)
    await rooms.uploads.finish(await rooms.upload_again(upload), digest, make_body())
    await place.move().run()
    assert await place.storages_of_blobs() == {"files"}


async def test_what_changes_meanwhile_comes_first(place: Place):
    """A blob that is deleted, moved or healed while it is copied: the copy goes."""
    rooms = place.rooms
    repository = await rooms.make_repository()
    deleted, healed = b"d" * 100_000, b"h" * 100_000
    first, second = await rooms.push_blob(repository, deleted), await rooms.push_blob(repository, healed)
    place.memory.may_read.clear()
    running = asyncio.create_task(place.move(parallel=2).run())
    await place.memory.reading.wait()
    async with asyncio.timeout(60):
        while len(await place.tombstones()) < 2:  # until both copies are written down
            await asyncio.sleep(0.01)
    await rooms.blobs.delete(repository, first)
    blob = await rooms.blobs.get("acme/app", second)
    await rooms.blobs.mark_missing(blob)
    place.storages.default = "third"
    await rooms.push_blob(repository, healed)
    place.memory.may_read.set()
    await asyncio.wait_for(running, 60)
    assert (await place.location(second)).startswith("third:")
    assert await rooms.read("acme/app", second) == healed
    await assert_invariants(rooms)
    await place.sweep()
    assert await rooms.locations() == [await place.location(second)]


async def test_two_at_once_lose_nothing(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    contents = [f"{number}".encode() * 1000 for number in range(30)]
    digests = [await rooms.push_blob(repository, content) for content in contents]
    await asyncio.gather(place.move().run(), place.move().run(), place.move(to="third").run())
    assert await place.storages_of_blobs() <= {"files", "third"}
    assert [await rooms.read("acme/app", digest) for digest in digests] == contents
    await assert_invariants(rooms)
    await place.sweep()
    assert sorted(await rooms.locations()) == sorted([await place.location(digest) for digest in digests])


async def test_damaged_and_missing_objects_are_told_and_left(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    good = await rooms.push_blob(repository, b"good")
    gone = await rooms.push_blob(repository, b"gone")
    rotten = await rooms.push_blob(repository, b"r" * 100_000)
    longer, shorter = await rooms.push_blob(repository, b"long"), await rooms.push_blob(repository, b"short" * 2)
    known = await rooms.push_blob(repository, b"known to be missing")
    places = {digest: await place.location(digest) for digest in (gone, rotten, longer, shorter, known)}
    await rooms.storage.delete(places[gone])
    await rooms.storage.delete(places[known])
    await rooms.blobs.mark_missing(await rooms.blobs.get("acme/app", known))
    await rooms.storage.put_small(places[rotten], b"s" * 100_000)
    await rooms.storage.put_small(places[longer], b"longer")
    await rooms.storage.put_small(places[shorter], b"short")
    moving = place.move()
    await moving.run()
    assert (moving.progress.blobs, moving.progress.failed) == (1, 5)
    assert {digest: await place.location(digest) for digest in places} == places
    assert await rooms.read("acme/app", good) == b"good"
    assert sorted(place.told) == sorted(
        [
            f"{gone} stays at {places[gone]}: nothing is stored at {places[gone]}",
            f"{known} stays at {places[known]}: nothing is stored at {places[known]}, as is known",
            f"{rotten} stays at {places[rotten]}: its object has other content",
            f"{longer} stays at {places[longer]}: its object has more than 4 bytes",
            f"{shorter} stays at {places[shorter]}: its object has less than 10 bytes",
        ]
    )
    assert await rooms.query("SELECT digest FROM blobs WHERE state = 'missing'") == [(known,)]
    await place.sweep()
    assert [one for one in await rooms.locations() if one.startswith("files:")] == [await place.location(good)]


async def test_a_blob_that_is_found_again_is_present_again(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    await rooms.blobs.mark_missing(await rooms.blobs.get("acme/app", digest))
    await place.move().run()
    assert await rooms.read("acme/app", digest) == b"content"


async def test_a_storage_that_is_away_ends_it(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    for number in range(12):
        await rooms.push_blob(repository, f"{number}".encode())
    place.memory.away = True
    with pytest.raises(MigrationFailed, match="10 blobs in a row could not be moved: storage default: it is away"):
        await place.move(parallel=1).run()
    with pytest.raises(MigrationFailed, match="there is no storage called 'nowhere'"):
        await place.move(to="nowhere").run()
    place.memory.away = False
    await place.move().run()
    assert await place.storages_of_blobs() == {"files"}
    await place.sweep()
    await assert_invariants(rooms)


async def test_one_that_is_killed_leaves_nothing_unknown(place: Place):
    """Wherever it stops: what it stored is under a tombstone, and the next one begins where it is."""
    rooms = place.rooms
    repository = await rooms.make_repository()
    contents = [bytes([number]) * 100_000 for number in range(6)]
    digests = [await rooms.push_blob(repository, content) for content in contents]
    for delay in (0, 0.002, 0.01, 0.02, 0.04):
        running = asyncio.create_task(place.move().run())
        await asyncio.sleep(delay)
        running.cancel()
        await asyncio.wait([running])
        await assert_invariants(rooms)
    assert [await rooms.read("acme/app", digest) for digest in digests] == contents
    await place.move().run()
    assert [await rooms.read("acme/app", digest) for digest in digests] == contents
    await place.sweep()
    assert sorted(await rooms.locations()) == sorted([await place.location(digest) for digest in digests])


async def test_a_copy_that_a_sweeper_took_is_no_blob(place: Place, monkeypatch: pytest.MonkeyPatch):
    """Who was stopped for longer than its lease finds its copy gone; the sweeper's tombstone for later stays."""
    rooms = place.rooms
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"c" * 100_000)
    send = Migration._send
    times = 0

    async def slow(self: Migration, blob: Any, location: str) -> None:
        nonlocal times
        await send(self, blob, location)
        times += 1
        if times == 1:
            await rooms.make_due()
            assert (await rooms.sweeper.sweep()).objects == 1
            with pytest.raises(ObjectMissing):
                await rooms.storage.stat(location)

    monkeypatch.setattr(Migration, "_send", slow)
    await place.move().run()
    assert (await place.location(digest)).startswith("default:")
    await place.move().run()
    assert await rooms.read("acme/app", digest) == b"c" * 100_000
    assert await place.storages_of_blobs() == {"files"}
    await assert_invariants(rooms)


async def test_copies_under_way_keep_their_tombstones_from_being_due(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(migration, "_BEAT_SECONDS", 0.02)
    rooms = place.rooms
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"c" * 100_000)
    place.memory.may_read.clear()
    running = asyncio.create_task(place.move().run())
    await place.memory.reading.wait()
    # Asked before: as soon as time has passed it may be renewed.
    ((due,),) = await rooms.query("SELECT delete_after FROM gc_objects")
    await rooms.pass_time(59 * 60_000)
    async with asyncio.timeout(60):
        while await rooms.query(f"SELECT 1 FROM gc_objects WHERE delete_after < {due - 9 * 60_000}"):
            await asyncio.sleep(0.01)
    await rooms.pass_time(59 * 60_000)
    assert (await rooms.sweeper.sweep()).objects == 0
    place.memory.may_read.set()
    await running
    assert (await place.location(digest)).startswith("files:")


async def test_several_sources_a_rate_and_old_objects_that_stay(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    first = await rooms.push_blob(repository, b"f" * 60_000)
    place.storages.default = "third"
    second = await rooms.push_blob(repository, b"s" * 60_000)
    old = [await place.location(first), await place.location(second)]
    began = time.monotonic()
    await place.move("default", "third", rate=200_000, keep_source=True).run()
    assert 0.25 < time.monotonic() - began < 30
    assert await place.storages_of_blobs() == {"files"}
    assert await place.tombstones() == []
    for location in old:
        await rooms.storage.stat(location)


async def test_imported_trees_get_locations_of_ours(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"imported")
    foreign = f"default:docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    await rooms.storage.put_small(foreign, b"imported")
    await rooms.change("UPDATE blobs SET location = :l WHERE digest = :d", l=foreign, d=digest)
    await place.move().run()
    location = await place.location(digest)
    assert location.startswith("files:2")
    assert "docker" not in location
    assert foreign in await place.tombstones()


# --- what was copied by hand ---


async def copy_by_hand(place: Place, *locations: str) -> None:
    for location in locations:
        content = await read_object(place.storages, location)
        await place.storages.put_small(f"third:{location.partition(':')[2]}", content)


async def test_copies_made_by_hand_are_looked_at_and_taken_over(place: Place):
    rooms = place.rooms
    repository = await rooms.make_repository()
    contents = [f"{number}".encode() * 10 for number in range(120)]
    digests = [await rooms.push_blob(repository, content) for content in contents]
    old = [await place.location(digest) for digest in digests]
    await copy_by_hand(place, *old[2:])
    short, rotten = (f"third:{location.partition(':')[2]}" for location in old[1:3])
    await place.storages.put_small(short, b"too short")
    await place.storages.put_small(rotten, b"!" * len(contents[2]))
    moving = place.move(to="third")
    await moving.adopt(verify=True)
    assert (moving.progress.blobs, moving.progress.failed) == (117, 3)
    assert [await place.location(digest) for digest in digests[:3]] == old[:3]
    assert await place.location(digests[3]) == f"third:{old[3].partition(':')[2]}"
    assert sorted(place.told) == sorted(
        [
            f"{digests[0]} stays at {old[0]}: nothing is stored at third:{old[0].partition(':')[2]}",
            f"{digests[1]} stays at {old[1]}: the object at {short} has 9 bytes instead of {len(contents[1])}",
            f"{digests[2]} stays at {old[2]}: its object has other content",
        ]
    )
    assert await place.tombstones() == []  # whoever copied it decides about the old objects
    assert [await rooms.read("acme/app", digest) for digest in digests] == contents
    again = place.move(to="third")
    await again.adopt(verify=False)  # sizes alone
    assert (again.progress.blobs, again.progress.failed) == (1, 2)


async def test_a_copy_that_is_to_be_deleted_is_taken_back_or_left(place: Place):
    """An audit may have left tombstones for copies that nothing named."""
    rooms = place.rooms
    repository = await rooms.make_repository()
    kept, claimed = await rooms.push_blob(repository, b"kept"), await rooms.push_blob(repository, b"claimed")
    old = [await place.location(kept), await place.location(claimed)]
    await copy_by_hand(place, *old)
    for number, location in enumerate(old):
        await rooms.change(
            "INSERT INTO gc_objects (location, size, delete_after, attempts) VALUES (:l, 1, 32503680000000, :a)",
            l=f"third:{location.partition(':')[2]}",
            a=number,
        )
    moving = place.move(to="third")
    await moving.adopt(verify=False)
    assert (moving.progress.blobs, moving.progress.failed) == (1, 1)
    assert (await place.location(kept)).startswith("third:")
    assert await place.location(claimed) == old[1]
    assert await place.tombstones() == [f"third:{old[1].partition(':')[2]}"]
