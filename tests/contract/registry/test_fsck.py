"""The audit: every kind of damage is found, what can be repaired is, and a healthy store is told nothing."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import make_artifact, make_image, make_index
from tests.support.invariants import assert_invariants
from tests.support.rooms import Rooms, annotated, make_body
from tests.support.trees import Tree

from dtr.oci import Digest
from dtr.registry import BlobUnknown, ManifestUnknown, fsck
from dtr.registry.fsck import Audit, Fsck
from dtr.storage import Memory, ObjectMissing, Storages, StorageUnavailable, Stored


class Store:
    """Rooms over files with an image in them, and how to damage it."""

    def __init__(self, rooms: Rooms, root: Path) -> None:
        self.rooms = rooms
        self._root = root
        self.image = make_image(layers=2, size=1000)
        self.layer = self.image.blobs[1]
        self.digest = Digest.of(self.layer)

    async def fill(self) -> None:
        self.repository = await self.rooms.make_repository()
        await self.rooms.push(self.repository, make_index(self.image), "latest")
        await self.rooms.push(self.repository, make_artifact("application/x-sbom", subject=self.image))
        other = await self.rooms.make_repository("beta/other")
        await self.rooms.push(other, self.image, "v1")
        await self.rooms.make_due()  # what came twice
        await self.rooms.sweeper.sweep()

    async def path(self) -> Path:
        return self.path_of((await self.rooms.blobs.get("acme/app", self.digest)).location)

    def path_of(self, location: str) -> Path:
        """The file of an object."""
        return self._root / location.removeprefix("default:")

    async def find(self, **how: bool) -> list[tuple[bool, str]]:
        return await self.rooms.findings(**how)

    async def one(self, **how: bool) -> tuple[bool, str]:
        """The only finding."""
        (finding,) = await self.find(**how)
        return finding

    async def heal(self) -> None:
        """What a client does that pushes the image."""
        await self.rooms.push(self.repository, make_index(self.image), "latest")


@pytest.fixture
async def store(make_rooms, tmp_path: Path) -> Store:
    made = Store(make_rooms("filesystem"), tmp_path / "disk" / "blobs")
    await made.fill()
    return made


async def test_a_healthy_store_has_no_findings(store: Store):
    assert await store.find(content=True) == []
    assert await store.find(content=True, repair=True) == []
    await assert_invariants(store.rooms)


async def test_what_was_looked_at_is_counted(store: Store):
    await store.rooms.sweeper.sweep()
    check = Fsck(store.rooms.database, store.rooms.storage)
    assert [finding async for finding in check.run()] == []
    assert check.counted == "5 blobs, 5 objects, 4 manifests"


async def test_an_empty_store_has_no_findings(rooms: Rooms):
    check = Fsck(rooms.database, rooms.storage)
    assert [finding async for finding in check.run(content=True, repair=True)] == []
    assert check.counted == "0 blobs, 0 objects, 0 manifests"


@pytest.mark.parametrize("damage", ["removed", "truncated", "longer", "flipped"])
async def test_a_damaged_object_is_found_marked_and_healed_by_a_push(store: Store, damage: str):
    path = await store.path()
    if damage == "removed":
        path.unlink()
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[500] ^= 1
        path.write_bytes(content)
        assert await store.find() == [], "only reading tells"
    else:
        os.truncate(path, path.stat().st_size + (1 if damage == "longer" else -1))
    is_damage, text = await store.one(content=True)
    assert is_damage
    assert str(store.digest) in text
    assert await store.one(content=True, repair=True) == (is_damage, text)
    for where in ("acme/app", "beta/other"):
        with pytest.raises(BlobUnknown):
            await store.rooms.blobs.get(where, store.digest)
    check = Fsck(store.rooms.database, store.rooms.storage)
    assert [finding async for finding in check.run(repair=True)] == []
    assert "5 blobs (1 known to be missing)" in check.counted
    await store.heal()
    for where in ("acme/app", "beta/other"):
        assert await store.rooms.read(where, store.digest) == store.layer
    assert await store.find(content=True) == []
    await store.rooms.make_due()
    await store.rooms.sweeper.sweep()
    assert not path.exists()
    await assert_invariants(store.rooms)


async def test_a_blob_that_was_marked_and_is_there_is_present_again(store: Store):
    await store.rooms.blobs.mark_missing(await store.rooms.blobs.get("acme/app", store.digest))
    is_damage, text = await store.one()
    assert not is_damage
    assert "marked as missing" in text
    await store.one(repair=True)
    assert await store.rooms.read("acme/app", store.digest) == store.layer
    assert await store.find() == []


async def test_an_object_that_cannot_be_read_is_told_and_not_marked(store: Store):
    path = await store.path()
    content = path.read_bytes()
    path.unlink()
    path.mkdir()  # reading it fails, and it is not missing
    (path / "x").write_bytes(content)
    findings = await store.find(content=True, repair=True)
    assert any(is_damage and str(store.digest) in text for is_damage, text in findings)


@pytest.mark.parametrize("kind", ["memory", "filesystem", "s3"])
async def test_an_upload_without_a_row_is_found_and_given_up(
    make_rooms: Callable[..., Rooms], kind: str, monkeypatch: pytest.MonkeyPatch
):
    rooms = make_rooms(kind)
    repository = await rooms.make_repository()
    upload = await rooms.uploads.start(repository)
    upload = await rooms.uploads.append(upload, make_body(os.urandom(6 * 1024 * 1024)))
    location = upload.state.location
    assert await uploads_of(rooms) == {location}
    await rooms.change("UPDATE uploads SET id = 'gone'")
    monkeypatch.setattr(fsck, "_YOUNG", timedelta(0))
    assert await rooms.findings() == [], "its row is there"
    await rooms.change("DELETE FROM uploads")
    monkeypatch.undo()
    assert await rooms.findings() == [], "an import may be about to write its row"
    monkeypatch.setattr(fsck, "_YOUNG", timedelta(0))
    assert set(await rooms.findings()) == {(False, f"upload to {location} belongs to nothing")}
    assert set(await rooms.findings(repair=True)) == {(False, f"upload to {location} belongs to nothing")}
    assert await rooms.findings() == []
    await rooms.make_due()
    assert (await rooms.sweeper.sweep()).objects == 1
    assert await uploads_of(rooms) == set()


async def uploads_of(rooms: Rooms) -> set[str]:
    async with aclosing(rooms.storage.list_uploads()) as unfinished:
        return {one.location async for one in unfinished}


async def test_a_stray_object_is_found_when_it_is_old_and_buried(store: Store):
    location = store.rooms.storage.new_location()
    await store.rooms.storage.put_small(location, b"stray")
    assert await store.find() == [], "an import may be about to write its row"
    path = store.path_of(location)
    os.utime(path, (0, 0))
    assert await store.one() == (False, f"object {location} of 5 bytes belongs to nothing")
    await store.one(repair=True)
    assert await store.find() == []
    await store.rooms.sweeper.sweep()
    assert path.exists(), "for a day"
    await store.rooms.make_due()
    await store.rooms.sweeper.sweep()
    assert not path.exists()
    assert await store.find() == []


async def test_changed_bytes_of_a_manifest_are_found_until_a_push_heals_them(store: Store):
    digest = store.image.digest
    await store.rooms.change(
        "UPDATE manifests SET payload = :p WHERE digest = :d AND repository_id = :r",
        p=store.image.payload.replace(b"amd64", b"arm64") + b" ",
        d=digest,
        r=store.repository,
    )
    for repair in (False, True):
        is_damage, text = await store.one(repair=repair)
        assert is_damage
        assert digest in text
    await store.heal()
    assert await store.find() == []
    assert (await store.rooms.manifests.get("acme/app", digest)).payload == store.image.payload


async def test_a_lost_link_is_found_and_made_again_where_the_blob_is_known(store: Store):
    await store.rooms.change(
        "DELETE FROM repository_blobs WHERE digest = :d AND repository_id = :r", d=store.digest, r=store.repository
    )
    findings = await store.find()
    lacking = [text for is_damage, text in findings if is_damage]
    assert len(lacking) == 1
    assert "lacks blob" in lacking[0]
    assert store.image.digest in lacking[0]
    assert all("usage" in text for is_damage, text in findings if not is_damage)
    await store.find(repair=True)
    assert await store.find(content=True) == []
    assert await store.rooms.read("acme/app", store.digest) == store.layer
    await assert_invariants(store.rooms)


async def test_a_lost_link_to_a_lost_blob_is_found_until_a_push_heals_it(store: Store):
    await store.rooms.change("DELETE FROM repository_blobs WHERE digest = :d", d=store.digest)
    await store.rooms.change("DELETE FROM blobs WHERE digest = :d", d=store.digest)
    for _ in range(2):
        damage = [text for is_damage, text in await store.find(repair=True) if is_damage]
        assert len(damage) == 2
        assert all(f"lacks blob {store.digest}" in text for text in damage)
    await store.heal()
    await store.rooms.push((await store.rooms.repositories.get("beta/other")).id, store.image, "v1")
    assert await store.find(content=True) == []


async def test_a_lost_child_of_an_index_is_found_until_a_push_heals_it(store: Store):
    await store.rooms.change(
        "DELETE FROM manifests WHERE digest = :d AND repository_id = :r", d=store.image.digest, r=store.repository
    )
    is_damage, text = await store.one(repair=True)
    assert is_damage
    assert f"lacks manifest {store.image.digest}" in text
    await store.heal()
    assert await store.find() == []


async def test_with_sparse_manifests_what_they_name_may_be_missing(make_rooms):
    rooms = make_rooms(sparse_manifests=True)
    repository = await rooms.make_repository()
    await rooms.put(repository, make_index(make_image()), "latest")
    await rooms.put(repository, make_image(), "other")
    check = Fsck(rooms.database, rooms.storage, sparse_manifests=True)
    assert [finding async for finding in check.run(repair=True)] == []
    assert all(is_damage and "lacks" in text for is_damage, text in await rooms.findings())


async def test_a_blob_in_no_repository_is_found_and_buried(store: Store):
    digest = await store.rooms.push_blob(store.repository, b"unlinked")
    await store.rooms.change("DELETE FROM repository_blobs WHERE digest = :d", d=digest)
    findings = await store.find(repair=True)
    assert (False, f"blob {digest} is in no repository") in findings
    assert await store.find() == []
    await assert_invariants(store.rooms)


async def test_what_nothing_holds_and_nobody_would_look_at_gets_a_date(store: Store):
    loose = make_image()
    await store.rooms.push(store.repository, loose)
    digest = await store.rooms.push_blob(store.repository, b"loose")
    await store.rooms.change("UPDATE manifests SET review_at = NULL")
    await store.rooms.change("UPDATE repository_blobs SET review_at = NULL")
    findings = await store.find()
    assert sorted(text.partition(" in ")[0] for _, text in findings) == sorted(
        [f"manifest {loose.digest}", f"blob {digest}"]
    )
    assert not any(is_damage for is_damage, _ in findings)
    await store.find(repair=True)
    assert await store.find() == []
    rows = await store.rooms.query("SELECT digest FROM manifests WHERE review_at IS NOT NULL")
    assert rows == [(loose.digest,)]
    rows = await store.rooms.query("SELECT digest FROM repository_blobs WHERE review_at IS NOT NULL")
    assert rows == [(digest,)]
    await assert_invariants(store.rooms)


async def test_wrong_counts_are_found_and_corrected(store: Store):
    right = await store.rooms.usage()
    await store.rooms.change("INSERT INTO usage_deltas (scope, bytes) VALUES ('*', 7), ('repository:99', 5)")
    await store.rooms.change("INSERT INTO usage (scope, bytes) VALUES ('*', 1)")
    assert sorted(await store.find()) == [
        (False, "the usage of * is counted wrong, -8 bytes are right"),
        (False, "the usage of repository:99 is counted wrong, -5 bytes are right"),
    ]
    await store.find(repair=True)
    assert await store.find() == []
    assert await store.rooms.usage() == right


async def test_unfinished_uploads_and_tombstones_are_no_findings(store: Store):
    upload = await store.rooms.uploads.start(store.repository)
    await store.rooms.uploads.append(upload, make_body(b"x" * 1000))
    small = await store.rooms.uploads.start(store.repository)
    await store.rooms.storage.put_small(small.state.location, b"a crash before the commit")
    digest = await store.rooms.push_blob(store.repository, b"gone")
    blob = await store.rooms.blobs.get("acme/app", digest)
    await store.rooms.blobs.delete(store.repository, digest)
    for location in (small.state.location, blob.location):
        os.utime(store.path_of(location), (0, 0))
    assert await store.find(content=True) == []


# --- bringing back ---------------------------------------------------------------------------------------------


async def damage(store: Store) -> str:
    """Flip a bit of the layer; its location."""
    path = await store.path()
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    return f"default:{path.relative_to(store._root)}"


async def test_a_damaged_object_is_kept_for_a_month_and_comes_back_when_it_is_whole_again(store: Store):
    location = await damage(store)
    path = store._root / location.partition(":")[2]
    assert await store.one(content=True, repair=True) == (
        True,
        f"blob {store.digest} has an object with other content at {location}",
    )
    ((until, text),) = await store.rooms.query("SELECT delete_after, damage FROM gc_objects")
    assert datetime.fromtimestamp(until / 1000, UTC) - datetime.now(UTC) > timedelta(days=29)
    (kept,) = [one async for one in store.rooms.fsck.quarantined()]
    assert (kept.location, kept.damage) == (location, f"blob {store.digest} has an object with other content")
    assert text == kept.damage
    check = Fsck(store.rooms.database, store.rooms.storage)
    assert [finding async for finding in check.run(repair=True)] == []
    assert "(1 known to be missing)" in check.counted
    assert check.counted.endswith("1 objects are in quarantine")
    await store.rooms.pass_time(29 * 86_400_000)
    assert (await store.rooms.sweeper.sweep()).objects == 0
    path.write_bytes(store.layer)  # it was the memory or the cable
    assert await store.one(repair=True) == (False, f"blob {store.digest} was missing, and was found at {location}")
    assert await store.rooms.read("acme/app", store.digest) == store.layer
    assert await store.rooms.count("gc_objects") == 0
    await assert_invariants(store.rooms)
    assert await store.find(content=True) == []


@pytest.mark.parametrize(
    ("where", "lost"),
    [
        ("tombstone", "object"),
        ("tree", "known"),
        ("storage", "object"),
        ("database", "known"),
        ("mirror", "object"),
        ("tombstone", "row"),
        ("mirror", "row"),
    ],
)
async def test_what_is_lost_is_brought_back_from_wherever_it_is(store: Store, where: str, lost: str):
    rooms, path = store.rooms, await store.path()
    location = str(path.relative_to(store._root))
    fetched: list[tuple[int, str, int]] = []

    async def refetch(repository: int, digest: str, size: int) -> str | None:
        fetched.append((repository, digest, size))
        if where != "mirror":
            return None
        await rooms.push_blob(repository, store.layer)
        return "mirror.test/app"

    if where == "tombstone":
        found = rooms.storage.new_location()
        await rooms.storage.put_small(found, store.layer)
        other = rooms.storage.new_location()
        await rooms.storage.put_small(other, b"x" * len(store.layer))
        for one in (found, other):
            await rooms.change(
                "INSERT INTO gc_objects (location, size, delete_after) VALUES (:l, :s, 9000000000000)",
                l=one, s=len(store.layer),
            )  # fmt: skip
    elif where == "tree":
        await rooms.storage.put("old", Memory())
        tree = Tree(rooms.storage.driver("old"), "some/where/")
        found = f"old:{tree.blob_path(await tree.blob(store.layer))}"
        # That there is a tree is known from what was taken over of it, or seen in it.
        digest = await tree.blob(b"taken over")
        await rooms.push_blob(store.repository, b"taken over")
        await rooms.change(
            "UPDATE blobs SET location = :l WHERE digest = :d", l=f"old:{tree.blob_path(digest)}", d=digest
        )
    elif where == "storage":
        await rooms.storage.put("copy", Memory())
        found = f"copy:{location}"
        await rooms.storage.put_small(found, store.layer)
    elif where == "database":
        await rooms.change(
            "INSERT INTO blob_contents (digest, content) VALUES (:d, :c)", d=store.digest, c=store.layer
        )
    path.unlink()
    if lost == "known":
        await rooms.blobs.mark_missing(await rooms.blobs.get("acme/app", store.digest))
    elif lost == "row":
        await rooms.change("DELETE FROM repository_blobs WHERE digest = :d", d=store.digest)
        await rooms.change("DELETE FROM blobs WHERE digest = :d", d=store.digest)
    check = Fsck(rooms.database, rooms.storage, refetch=refetch)
    findings = [one async for one in check.run(repair=True)]
    assert not any(one.is_damage for one in findings), findings
    text = next(one.text for one in findings if store.digest in one.text)
    assert text.endswith(
        {"mirror": "was fetched from mirror.test/app", "database": "is whole in the database"}.get(where)
        or f"was found at {found}"
    )
    assert bool(fetched) == (where == "mirror")
    for path_of_repository in ("acme/app", "beta/other"):
        assert await rooms.read(path_of_repository, store.digest) == store.layer
    findings = [one async for one in check.run(content=True)]
    assert not any(one.is_damage for one in findings), findings


async def test_what_is_being_deleted_is_not_brought_back(store: Store):
    rooms, path = store.rooms, await store.path()
    found = rooms.storage.new_location()
    await rooms.storage.put_small(found, store.layer)
    for column, value in (("attempts", 1), ("driver_state", "'{}'")):
        await rooms.change(
            f"INSERT INTO gc_objects (location, size, delete_after, {column}) VALUES (:l, :s, :a, {value})",
            l=found,
            s=len(store.layer),
            a=9_000_000_000_000,
        )
        path.unlink(missing_ok=True)
        await store.find(repair=True)
        with pytest.raises(BlobUnknown):
            await rooms.blobs.get("acme/app", store.digest)
        await rooms.change("DELETE FROM gc_objects")


# --- several storages -------------------------------------------------------------------------------------------


class Broken(Memory):
    """A storage that cannot be listed, and says that everything is missing."""

    async def list(self, prefix: str = ""):
        raise StorageUnavailable("it does not answer")
        yield


async def test_of_a_storage_that_is_not_there_nothing_is_concluded(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.storage.put("other", Memory())
    rooms.storage.default = "other"
    elsewhere = [await rooms.push_blob(repository, b"%d" % number) for number in range(12)]
    rooms.storage.default = "default"
    here = await rooms.push_blob(repository, b"here")
    await rooms.storage.delete((await rooms.blobs.get("acme/app", here)).location)
    before = await rooms.query("SELECT digest, state FROM blobs ORDER BY digest")
    for driver, text in (
        (Memory(), "storage other has nothing of its 12 blobs: is it the right one?"),
        (Broken(), "storage other cannot be listed: it does not answer"),
        (None, "there is no storage called 'other': 12 blobs are in it"),
    ):
        if driver is None:
            await rooms.storage.remove("other")
        else:
            await rooms.storage.put("other", driver)
        findings = await rooms.findings(content=True, repair=True)
        assert (True, text) in findings
        if driver is not None and isinstance(driver, Broken) is False:
            assert len(findings) == 2, "and what is lost in the one that is there"
    after = await rooms.query("SELECT digest, state FROM blobs ORDER BY digest")
    assert set(before) - set(after) == {(here, "present")}
    assert {one for one, state in after if state == "present"} == set(elsewhere)


async def test_what_another_registry_left_is_counted_and_left_alone(store: Store):
    tree = Tree(store.rooms.storage.driver("default"))
    await tree.image("acme/old", make_image(), "latest")
    await tree.write("repositories/acme/old/_uploads/1/data", b"half")
    os.utime(store._root / tree.root / "repositories/acme/old/_uploads/1/data", (0, 0))
    before = await store.rooms.locations()
    check = Fsck(store.rooms.database, store.rooms.storage)
    assert [finding async for finding in check.run(content=True, repair=True)] == []
    assert "; 9 more objects of " in check.counted
    assert await store.rooms.locations() == before
    assert await store.rooms.count("gc_objects") == 0


async def test_a_listing_need_not_know_the_sizes_of_what_others_stored(rooms: Rooms):
    """Some stores say 0 of objects of segments, as docker-registry writes large ones."""

    class Sizeless(Memory):
        async def list(self, prefix: str = ""):
            async for stored in super().list(prefix):
                yield Stored(stored.location, 0, stored.modified_at)

    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    assert await audit(rooms, Sizeless(rooms.storage.driver("default"))) == []
    assert await rooms.read("acme/app", digest) == b"content"


# --- reading everything, a part at a time ----------------------------------------------------------------------


async def test_reading_stops_when_its_time_is_over_and_goes_on_the_next_time(rooms: Rooms):
    repository = await rooms.make_repository()
    for number in range(6):
        await rooms.push_blob(repository, b"%d" % number)
    read: list[str] = []

    class Watched(Memory):
        async def open(self, location: str, offset: int = 0, length: int | None = None):
            read.append(f"default:{location}")
            async for piece in super().open(location, offset, length):
                yield piece

    storage = Storages({"default": Watched(rooms.storage.driver("default"))}, "default")
    every = [row[0] for row in await rooms.query("SELECT location FROM blobs ORDER BY location")]

    async def audit_for(blobs: int, **how: Any) -> Fsck:
        read.clear()
        check = Fsck(rooms.database, storage)
        audit = Audit(content=True, is_over=lambda: len(read) == blobs, **how)
        assert [finding async for finding in check.run(audit)] == []
        return check

    check = await audit_for(2, resume=True)
    assert (read, check.read_until) == (every[:2], every[1])
    assert check.counted == f"6 blobs, 6 objects, 0 manifests; blobs were read up to {every[1]}"
    await audit_for(9)
    assert read == every, "who does not resume begins at the beginning"
    check = await audit_for(3, resume=True)
    assert (read, check.read_until) == (every[2:5], every[4])
    check = await audit_for(9, resume=True)
    assert (read, check.read_until) == (every[5:], None)
    await audit_for(9, resume=True)
    assert read == every, "and then from the beginning"
    await audit_for(9, after=every[3])
    assert read == every[4:]


async def test_reading_takes_its_time(rooms: Rooms):
    repository = await rooms.make_repository()
    for number in range(4):
        await rooms.push_blob(repository, b"%d" % number * 1000)
    started = time.monotonic()
    assert await rooms.findings(content=True, rate=10_000) == []
    assert time.monotonic() - started > 0.25


# --- while others work ---------------------------------------------------------------------------------------


async def test_an_audit_during_pushes_deletions_and_sweeping_finds_nothing(stored: Rooms):
    hosts = [stored, stored.another(), stored.another()]
    repositories = {path: await stored.make_repository(path) for path in ("acme/a", "acme/b", "beta/a")}
    stop = asyncio.Event()

    async def work(host: Rooms, path: str) -> None:
        plain = make_image(layers=2, size=50)
        number = 0
        while not stop.is_set():
            number += 1
            image = annotated(plain, n=str(number % 3))
            await host.push(repositories[path], make_index(image), "latest", f"v{number % 5}")
            await host.push_blob(repositories[path], os.urandom(20))
            try:
                await host.manifests.delete(repositories[path], make_index(image).digest)
                await host.manifests.delete(repositories[path], image.digest)
                for content in image.blobs:
                    await host.blobs.delete(repositories[path], Digest.of(content))
            except (ManifestUnknown, BlobUnknown):
                pass
            await host.make_due()
            await host.sweeper.sweep()

    working = [asyncio.create_task(work(host, path)) for host, path in zip(hosts, repositories, strict=True)]
    auditor = stored.another()
    findings = []
    for _ in range(12):
        findings += await auditor.findings(content=True, repair=True)
        await asyncio.sleep(0)
    stop.set()
    await asyncio.gather(*working)
    assert findings == []
    await assert_invariants(stored)


class Moving(Memory):
    """A storage during whose listing or reading something else happens, at just that moment."""

    def __init__(self, peer: Memory, before_list=None, during_list=None, during_stat=None) -> None:
        super().__init__(peer)
        self._before_list = before_list
        self._during_list = during_list
        self._during_stat = during_stat

    async def list(self, prefix: str = ""):
        if self._before_list:
            await self._before_list()
        every = [stored async for stored in super().list(prefix)]
        if self._during_list:
            await self._during_list()
        for stored in every:
            yield Stored(stored.location, stored.size, stored.modified_at.replace(year=2000))

    async def stat(self, location: str) -> int:
        if self._during_stat:
            await self._during_stat(location)
        return await super().stat(location)


async def audit(rooms: Rooms, storage: Memory) -> list[str]:
    storages = Storages({"default": storage}, "default")
    return [finding.text async for finding in Fsck(rooms.database, storages).run(content=True, repair=True)]


async def test_an_object_that_is_swept_after_it_was_listed_is_no_stray(rooms: Rooms):
    repository = await rooms.make_repository()

    async def push() -> None:  # after the rows were read, so that the object alone is seen
        await rooms.push_blob(repository, b"content")

    async def delete_and_sweep() -> None:
        await rooms.blobs.delete(repository, Digest.of(b"content"))
        await rooms.make_due()
        assert (await rooms.sweeper.sweep()).objects == 1

    storage = Moving(rooms.storage.driver("default"), before_list=push, during_list=delete_and_sweep)
    assert await audit(rooms, storage) == []


async def test_a_blob_that_is_deleted_while_it_is_looked_at_is_no_damage(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    location = (await rooms.blobs.get("acme/app", digest)).location

    async def delete_and_sweep() -> None:
        await rooms.blobs.delete(repository, digest)
        await rooms.make_due()
        await rooms.sweeper.sweep()
        with pytest.raises(ObjectMissing):
            await rooms.storage.stat(location)

    check = Fsck(rooms.database, rooms.storage)
    rows = check._every_blob()
    row = await anext(rows)
    await rows.aclose()
    await delete_and_sweep()
    check._how = Audit(content=True, repair=True)
    assert await check._look_at_blob(row, None) is None


async def test_a_blob_that_a_push_heals_while_it_is_looked_at_is_no_damage(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    blob = await rooms.blobs.get("acme/app", digest)
    await rooms.storage.delete(blob.location)
    healed = False

    async def heal(_location: str) -> None:
        nonlocal healed
        if not healed:
            healed = True
            await rooms.blobs.mark_missing(blob)
            await rooms.push_blob(repository, b"content")

    assert await audit(rooms, Moving(rooms.storage.driver("default"), during_stat=heal)) == []
    assert healed
    assert await rooms.read("acme/app", digest) == b"content"
    assert (await rooms.blobs.get("acme/app", digest)).location != blob.location


async def test_an_upload_that_finishes_after_the_rows_were_read_is_no_stray(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.append(await rooms.uploads.start(repository), make_body(b"x" * 100))
    await rooms.storage.complete(upload.state)

    async def finish() -> None:
        await rooms.uploads.finish(upload, Digest.of(b"x" * 100), make_body())

    assert await audit(rooms, Moving(rooms.storage.driver("default"), during_list=finish)) == []


# --- much of it ----------------------------------------------------------------------------------------------

ROWS = int(os.environ.get("DTR_SCALE_ROWS", "50000"))


class Seeded(Memory):
    """A storage with an object for each seeded row, none of which is in memory."""

    async def list(self, prefix: str = ""):
        modified_at = datetime.now(UTC)
        for number in range(1, ROWS + 1):
            yield Stored(f"20200101/{number:07}", 10, modified_at)


async def seed(rooms: Rooms) -> None:
    repository = await rooms.make_repository()
    if rooms.database.dialect == "sqlite":
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
        source, digest, location = "n", "printf('sha256:%064d', i)", "printf('default:20200101/%07d', i)"
        bytes_of_x = "X'78'"
    else:
        numbers, source = "", f"generate_series(1, {ROWS}) AS n(i)"
        digest, location = "'sha256:' || lpad(i::text, 64, '0')", "'default:20200101/' || lpad(i::text, 7, '0')"
        bytes_of_x = "'x'"
    for table, columns, values in (
        ("blobs", "digest, size, location, state, created_at", f"{digest}, 10, {location}, 'present', 1"),
        ("repository_blobs", "repository_id, digest", f"{repository}, {digest}"),
        (
            "manifests",
            "repository_id, digest, media_type, content_size, payload, author, created_at, review_at",
            f"{repository}, {digest}, 't', 1, {bytes_of_x}, 'ada', 1, 1",
        ),
        (
            "manifest_references",
            "repository_id, manifest, kind, target",
            f"{repository}, {digest}, 'blob', {digest}",
        ),
    ):
        await rooms.change(f"INSERT INTO {table} ({columns}) {numbers} SELECT {values} FROM {source}")


async def test_memory_does_not_grow_with_what_is_stored(rooms: Rooms):
    await seed(rooms)
    check = Fsck(rooms.database, Storages({"default": Seeded()}, "default"))
    damaged, other = 0, []
    tracemalloc.start()
    try:
        async for finding in check.run():
            if "has other content" in finding.text:
                damaged += 1
            else:
                other.append(finding.text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert damaged == ROWS, "as seeded"
    assert len(other) == 3, "the counts"
    assert check.counted == f"{ROWS} blobs, {ROWS} objects, {ROWS} manifests"
    assert peak < 8 * 1024 * 1024


async def test_large_manifests_are_read_a_few_at_a_time(rooms: Rooms):
    repository = await rooms.make_repository()
    plain = make_image()
    for number in range(12):
        await rooms.push(repository, annotated(plain, n=str(number), much="x" * 2 * 1024 * 1024))
    check = Fsck(rooms.database, rooms.storage)
    tracemalloc.start()
    try:
        assert [finding async for finding in check.run()] == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert check.counted.endswith("12 manifests")
    assert peak < 12 * 1024 * 1024
