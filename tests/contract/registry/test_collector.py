"""The collector takes what nothing holds, all of it, and nothing else, whatever goes on at the same time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.invariants import find_violations
from tests.support.rooms import Rooms, annotated

from dtr.oci import Digest
from dtr.registry import BlobUnknown, Lifetimes, ManifestIncomplete, ManifestUnknown, RepositoryUnknown
from dtr.registry.collector import Collected

HOUR = 3_600_000
TABLES = ("tags", "manifests", "manifest_references", "repository_blobs", "blobs", "blob_contents")


async def rows(rooms: Rooms, *tables: str) -> dict[str, int]:
    """How many rows there are; tables without any are left out."""
    counts = {table: await rooms.count(table) for table in tables or TABLES}
    return {table: count for table, count in counts.items() if count}


async def holds(rooms: Rooms, path: str, *images: Image) -> bool:
    """Whether the manifests are there, with all their blobs."""
    for image in images:
        try:
            assert (await rooms.manifests.get(path, image.digest)).payload == image.payload
            for content in image.blobs:
                assert await rooms.read(path, Digest.of(content)) == content
        except (ManifestUnknown, BlobUnknown):
            return False
    return True


# --- what is held, and what is not ----------------------------------------------------------------------------


async def test_what_is_tagged_stays_and_is_looked_at_once(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image(layers=2, size=10)
    await rooms.push(repository, image, "latest")
    assert (await rooms.collect_all()).kept == 3  # the links; a tagged manifest never waited
    assert await rooms.collect_all() == Collected()
    assert await holds(rooms, "acme/app", image)
    assert await find_violations(rooms.database, rooms.storage) == []


async def test_nothing_goes_before_its_time(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image(layers=2, size=10)
    await rooms.push(repository, image, "latest")
    await rooms.collect_all()
    await rooms.manifests.delete_tag(repository, "latest")
    assert await rooms.collector.collect() == Collected()
    assert await holds(rooms, "acme/app", image)


async def test_an_image_without_its_last_tag_goes_with_its_blobs(rooms: Rooms):
    repository = await rooms.make_repository()
    image, other = make_image(layers=2, size=10), make_image(layers=1, size=20)
    await rooms.push(repository, image, "1", "2")
    await rooms.push(repository, other, "other")
    await rooms.collect_all()
    await rooms.manifests.delete_tag(repository, "1")
    await rooms.collect_all()
    assert await holds(rooms, "acme/app", image, other)
    await rooms.manifests.delete_tag(repository, "2")
    collected = await rooms.collect_all()
    assert (collected.manifests, collected.blobs) == (1, 3)
    assert collected.size == sum(map(len, image.blobs))
    assert not await holds(rooms, "acme/app", image)
    assert await holds(rooms, "acme/app", other)
    assert await find_violations(rooms.database, rooms.storage) == []


async def test_the_object_goes_with_its_tombstone_and_not_before(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push_blob(repository, b"content")
    await rooms.collect_all()
    assert await rooms.count("blobs") == 0
    assert (await rooms.sweeper.sweep()).objects == 0
    assert len(await rooms.locations()) == 1
    await rooms.make_due()
    assert (await rooms.sweeper.sweep()).objects == 1
    assert await rooms.locations() == []


async def test_a_blob_that_another_image_or_repository_needs_stays(rooms: Rooms):
    one, other = await rooms.make_repository("acme/one"), await rooms.make_repository("acme/other")
    image = make_image(layers=2, size=10)
    twin = annotated(image, twin="yes")
    await rooms.push(one, image, "image")
    await rooms.push(one, twin, "twin")
    await rooms.push(other, image, "image")
    await rooms.collect_all()
    await rooms.manifests.delete_tag(one, "image")
    await rooms.collect_all()
    assert await holds(rooms, "acme/one", twin)
    await rooms.manifests.delete_tag(one, "twin")
    collected = await rooms.collect_all()
    assert (collected.links, collected.blobs) == (3, 0)
    assert await holds(rooms, "acme/other", image)
    assert await find_violations(rooms.database, rooms.storage) == []


async def test_an_index_holds_its_children_and_a_subject_its_referrers(rooms: Rooms):
    repository = await rooms.make_repository()
    children = [make_image(layers=1, size=size) for size in (10, 20)]
    inner = make_index(*children)
    outer = make_index(inner)
    sbom = make_artifact("application/x-sbom", b"sbom", subject=inner)
    signature = make_artifact("application/x-signature", b"signature", subject=sbom)
    everything = (*children, inner, outer, sbom, signature)
    await rooms.push(repository, outer, "latest")
    await rooms.push(repository, sbom)
    await rooms.push(repository, signature)
    await rooms.collect_all()
    assert await holds(rooms, "acme/app", *everything)
    await rooms.manifests.delete_tag(repository, "latest")
    assert (await rooms.collect_all()).manifests == len(everything)
    assert await rows(rooms) == {}
    assert await find_violations(rooms.database, rooms.storage) == []


async def test_a_child_goes_with_its_last_index_or_stays_with_its_own_tag(rooms: Rooms):
    repository = await rooms.make_repository()
    shared, tagged = make_image(layers=1, size=10), make_image(layers=1, size=20)
    first, second = make_index(shared, tagged), make_index(shared)
    await rooms.push(repository, first, "first")
    await rooms.push(repository, second, "second")
    await rooms.put(repository, tagged, "tagged")
    await rooms.manifests.delete_tag(repository, "first")
    await rooms.collect_all()
    assert await holds(rooms, "acme/app", shared, tagged, second)
    assert not await holds(rooms, "acme/app", first)
    await rooms.manifests.delete_tag(repository, "second")
    await rooms.collect_all()
    assert await holds(rooms, "acme/app", tagged)
    assert not await holds(rooms, "acme/app", shared)


async def test_manifests_that_only_hold_each_other_go_together(rooms: Rooms):
    repository = await rooms.make_repository()
    child = make_image(layers=1, size=10)
    await rooms.push(repository, child)
    index = make_index(child)
    payload = json.dumps(json.loads(index.payload) | {"subject": child.descriptor}).encode()
    circle = replace(index, payload=payload)  # it holds the child, and the child holds it
    await rooms.push(repository, circle, "latest")
    await rooms.collect_all()
    assert await holds(rooms, "acme/app", child, circle)
    await rooms.manifests.delete_tag(repository, "latest")
    assert (await rooms.collect_all()).manifests == 2
    assert await rows(rooms) == {}


async def test_a_referrer_whose_subject_never_came_goes(rooms: Rooms):
    repository = await rooms.make_repository()
    lonely = make_artifact("application/x-sbom", b"sbom", subject=make_image(layers=1, size=10))
    await rooms.push(repository, lonely)
    assert (await rooms.collect_all()).manifests == 1
    assert await rows(rooms) == {}


async def test_somebody_who_uploads_postpones_what_is_due_in_the_repository(rooms: Rooms):
    busy, idle = await rooms.make_repository("acme/busy"), await rooms.make_repository("acme/idle")
    for repository in (busy, idle):
        await rooms.push_blob(repository, b"layer")
    upload = await rooms.uploads.start(busy)
    await rooms.make_reviews_due()
    collected = await rooms.collector.collect()
    assert (collected.links, collected.postponed) == (1, 1)
    assert await rooms.read("acme/busy", Digest.of(b"layer")) == b"layer"
    await rooms.uploads.cancel(upload)
    assert (await rooms.collect_all()).blobs == 1


# --- deleted repositories -------------------------------------------------------------------------------------


async def test_a_deleted_repository_is_emptied_and_its_row_goes_last(rooms: Rooms):
    repository = await rooms.make_repository("acme/gone")
    other = await rooms.make_repository("acme/stays")
    image = make_image(layers=3, size=10)
    index = make_index(image, make_image(layers=1, size=30))
    await rooms.push(repository, index, "1", "2", "3")
    await rooms.push(other, image, "1")
    await rooms.push_blob(repository, b"never named")
    await rooms.uploads.start(repository)
    await rooms.repositories.delete("acme/gone")
    for _ in range(50):
        await rooms.collect_all()
        await rooms.sweeper.sweep()  # ends the upload
        if await rooms.count("repositories") == 1:
            break
    assert await rooms.count("repositories") == 1
    assert await holds(rooms, "acme/stays", image)
    assert await rows(rooms, "uploads") == {}
    assert await find_violations(rooms.database, rooms.storage) == []
    with pytest.raises(RepositoryUnknown):
        await rooms.manifests.list_tags("acme/gone", limit=1)


async def test_a_repository_larger_than_a_batch_is_emptied(rooms: Rooms):
    repository = await rooms.make_repository("acme/gone")
    image = make_image(layers=1, size=10)
    await rooms.push(repository, image)
    for number in range(450):
        await rooms.put(repository, annotated(image, n=str(number)), f"tag{number}")
    await rooms.repositories.delete("acme/gone")
    await rooms.collect_all()
    assert await rows(rooms, *TABLES, "repositories") == {}


# --- at the same time -----------------------------------------------------------------------------------------

LEASE = 0.25
"""Seconds. Short enough that much is collected in the time of a test."""


class Client:
    """Somebody who pushes as clients do: looks what is there, uploads or mounts the rest, puts the manifest."""

    def __init__(self, rooms: Rooms, repositories: dict[str, int], images: list[Image], seed: int) -> None:
        self._rooms = rooms
        self._repositories = repositories
        self._images = images
        self._chance = random.Random(seed)
        self.pushed = self.mounted = self.skipped = 0

    async def run(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            path = self._chance.choice(list(self._repositories))
            tag = f"tag{self._chance.randrange(2)}"
            if self._chance.random() < 0.5:
                with suppress(ManifestUnknown):
                    await self._rooms.manifests.delete_tag(self._repositories[path], tag)
            else:
                await self._push(path, self._chance.choice(self._images), tag)

    async def _push(self, path: str, image: Image, *tags: str) -> None:
        began = time.monotonic()
        repository = self._repositories[path]
        for child in image.children:
            if not await self._has_manifest(path, child.digest):
                await self._push(path, child)
        for content in image.blobs:
            await self._bring(path, content)
        # Some are slow, and put the manifest when the promises are nearly over.
        await asyncio.sleep(self._chance.choice([0, 0, LEASE * 0.6]))
        try:
            await self._rooms.put(repository, image, *tags)
        except ManifestIncomplete:
            took = time.monotonic() - began  # with the wait for others until it was looked at
            assert took > LEASE * 0.9, f"refused {took:.2f} s after the first promise"
        else:
            self.pushed += 1

    async def _has_manifest(self, path: str, digest: str) -> bool:
        try:
            await self._rooms.manifests.get(path, digest)
        except ManifestUnknown:
            return False
        self.skipped += 1
        return True

    async def _bring(self, path: str, content: bytes) -> None:
        repository, digest = self._repositories[path], Digest.of(content)
        try:
            await self._rooms.blobs.get(path, digest, promise=True)
        except BlobUnknown:
            pass
        else:
            self.skipped += 1
            return
        other = self._chance.choice(list(self._repositories))
        try:
            found = await self._rooms.blobs.get(other, digest, promise=True)
        except BlobUnknown:
            found = None
        if found is not None and await self._rooms.blobs.mount(found, repository):
            self.mounted += 1
        else:
            await self._rooms.push_blob(repository, content)


async def collect(rooms: Rooms, is_over: Callable[[], bool], total: list[Collected]) -> None:
    rooms.collector._active = 1000 * HOUR
    while not is_over():
        total.append(await rooms.collector.collect())
        await rooms.sweeper.sweep()
        await asyncio.sleep(0)


async def test_no_push_fails_and_no_image_is_lost_while_everything_is_collected_at_once(
    make_rooms: Callable[..., Rooms],
):
    lifetimes = Lifetimes(lease=int(LEASE * 1000), slack=50, untagged_after=0, delete_delay=0, upload_ttl=HOUR)
    rooms = make_rooms(lifetimes=lifetimes)
    repositories = {path: await rooms.make_repository(path) for path in ("acme/a", "acme/b", "beta/a")}
    base = [make_image(layers=2, size=size) for size in range(10, 20)]
    images = [*base, *(annotated(image, n="2") for image in base[:2]), make_index(base[0], base[2])]
    clients = [Client(rooms.another(), repositories, images, seed) for seed in range(4)]
    total: list[Collected] = []
    began = time.monotonic()

    def has_seen_enough() -> bool:
        collected = sum(total, Collected())
        return collected.manifests > 5 and collected.blobs > 5 and any(one.mounted for one in clients)

    def is_over() -> bool:
        """After some seconds; on a machine that is busy, when enough was done to say something."""
        passed = time.monotonic() - began
        return passed > 6 and (has_seen_enough() or passed > 90)

    await asyncio.gather(
        *(client.run(is_over) for client in clients), *(collect(rooms.another(), is_over, total) for _ in range(2))
    )
    assert has_seen_enough(), f"{sum(total, Collected())}, {sum(one.pushed for one in clients)} pushes"
    by_digest = {image.digest: image for image in images}
    for path in repositories:
        for tag in await rooms.manifests.list_tags(path, limit=100):
            image = by_digest[(await rooms.manifests.get(path, tag)).digest]
            assert await holds(rooms, path, image, *image.children), (path, tag)
    await rooms.collect_all()
    assert await find_violations(rooms.database, rooms.storage) == []
    held = await rows(rooms, "manifests", "repository_blobs")
    await rooms.collect_all()
    assert await rows(rooms, "manifests", "repository_blobs") == held
    for path, repository in repositories.items():
        for tag in await rooms.manifests.list_tags(path, limit=100):
            await rooms.manifests.delete_tag(repository, tag)
    await rooms.collect_all()
    assert await rows(rooms) == {}
    assert await rooms.usage() == {}
