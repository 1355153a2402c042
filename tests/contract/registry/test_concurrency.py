"""Many clients at once on few things: all invariants hold afterwards, and nobody waits for others in a circle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.support.images import make_artifact, make_image, make_index
from tests.support.invariants import assert_invariants
from tests.support.rooms import Rooms, annotated, make_body

from dtr.oci import Digest
from dtr.registry import (
    BlobReferenced,
    BlobUnknown,
    DigestMismatch,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryExists,
    RepositoryUnknown,
    TagImmutable,
    Upload,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
)

EXPECTED = (
    BlobReferenced,
    BlobUnknown,
    DigestMismatch,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryExists,
    RepositoryUnknown,
    TagImmutable,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
)
"""What a client may be told when others do something else at the same time. A busy database is not among it."""

PATHS = ("acme/a", "acme/b", "beta/a")
TAGS = ("1", "2", "3", "latest")


@dataclass
class World:
    """What the clients quarrel about."""

    images: list = field(default_factory=list)

    def __post_init__(self) -> None:
        base, other = make_image(layers=2, size=20), make_image(layers=1, size=20)
        singles = [annotated(base, n="1"), annotated(base, n="2"), annotated(other, n="1")]
        self.images = [
            *singles,
            make_index(singles[0], singles[1]),
            make_index(singles[1], singles[2], annotations={"n": "2"}),
            make_artifact("application/x-sbom", b"sbom", subject=singles[0]),
            make_artifact("application/x-signature", b"sbom", subject=make_index(singles[0], singles[1])),
        ]

    @property
    def contents(self) -> list[bytes]:
        return sorted({content for image in self.images for content in image.blobs})


class Client:
    """Does one thing after another, whatever comes."""

    def __init__(self, host: Rooms, world: World, seed: int) -> None:
        self._host = host
        self._world = world
        self._choose = random.Random(seed)
        self.done: dict[str, int] = {}

    async def run(self, is_over: Callable[[], bool]) -> None:
        actions = [
            self.push, self.push, self.push, self.put, self.put, self.put_several_tags, self.mount, self.upload,
            self.delete_tag, self.delete_manifest, self.delete_blob, self.read, self.abandon, self.wrong,
            self.sweep, self.change_settings, self.replace_repository, self.quarrel,
        ]  # fmt: skip
        while not is_over():
            action = self._choose.choice(actions)
            if action == self.replace_repository and self._choose.random() > 0.2:
                continue
            try:
                repository = (await self._host.repositories.get(self._choose.choice(PATHS))).id
                await action(repository)
                self.done[action.__name__] = self.done.get(action.__name__, 0) + 1
            except EXPECTED:
                pass

    def _image(self):
        return self._choose.choice(self._world.images)

    async def push(self, repository: int) -> None:
        await self._host.push(repository, self._image(), self._choose.choice(TAGS))

    async def put(self, repository: int) -> None:
        await self._host.put(repository, self._image(), *self._choose.sample(TAGS, self._choose.randrange(2)))

    async def put_several_tags(self, repository: int) -> None:
        await self._host.put(repository, self._image(), *self._choose.sample(TAGS, 3))

    async def mount(self, repository: int) -> None:
        digest = Digest.of(self._choose.choice(self._world.contents))
        source = await self._host.blobs.get(self._choose.choice(PATHS), digest, promise=True)
        await self._host.blobs.mount(source, repository)

    async def upload(self, repository: int) -> None:
        content = self._choose.choice(self._world.contents)
        upload = await self._begin(repository)
        upload = await self._host.uploads.append(upload, make_body(content[:10]))
        await self._host.uploads.finish(upload, Digest.of(content), make_body(content[10:]))

    async def _begin(self, repository: int) -> Upload:
        uploads = self._host.uploads
        if self._choose.random() < 0.7:  # most as clients do
            return await uploads.announce(repository)
        return await uploads.start(repository)

    async def quarrel(self, repository: int) -> None:
        """Several requests at once on one session."""
        content = self._choose.choice(self._world.contents)
        upload = await self._begin(repository)
        outcomes = await asyncio.gather(
            self._host.uploads.append(upload, make_body(content[:20])),
            self._host.uploads.finish(upload, Digest.of(content), make_body(content)),
            self._host.uploads.finish(upload, Digest.of(content), make_body(content)),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, EXPECTED):
                raise outcome

    async def delete_tag(self, repository: int) -> None:
        await self._host.manifests.delete_tag(repository, self._choose.choice(TAGS))

    async def delete_manifest(self, repository: int) -> None:
        await self._host.manifests.delete(repository, self._image().digest)

    async def delete_blob(self, repository: int) -> None:
        await self._host.blobs.delete(repository, Digest.of(self._choose.choice(self._world.contents)))

    async def read(self, _repository: int) -> None:
        path = self._choose.choice(PATHS)
        found = await self._host.manifests.get(path, self._choose.choice(TAGS))
        assert Digest.of(found.payload) == found.digest
        await self._host.manifests.get(path, found.digest)
        await self._host.manifests.list_referrers(path, found.digest, limit=5)

    async def abandon(self, repository: int) -> None:
        upload = await self._begin(repository)
        await self._host.uploads.append(upload, make_body(b"abandoned"))
        if self._choose.random() < 0.5:
            await self._host.uploads.cancel(upload)
        elif self._choose.random() < 0.5:
            await self._host.change("UPDATE uploads SET expires_at = 0 WHERE id = :id", id=upload.id)

    async def wrong(self, repository: int) -> None:
        await self._host.uploads.store(repository, Digest.of(b"right"), make_body(b"wrong"))

    async def sweep(self, _repository: int) -> None:
        await self._host.make_due()
        await self._host.sweeper.sweep()

    async def change_settings(self, _repository: int) -> None:
        limit = self._choose.choice((0, 0, 2))
        await self._host.repositories.update(
            self._choose.choice(PATHS), tag_limit=limit, immutable_tags=limit == 0 and self._choose.random() < 0.2
        )

    async def replace_repository(self, _repository: int) -> None:
        path = self._choose.choice(PATHS)
        await self._host.repositories.delete(path)
        await self._host.make_repository(path)


async def deadlocks(rooms: Rooms) -> int:
    """How many circles of waiting PostgreSQL had to break; it tells those of connections that were closed."""
    if rooms.database.dialect == "sqlite":
        return 0
    ((number,),) = await rooms.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(number)


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
async def test_random_clients_at_once_break_no_invariant(make_rooms, kind: str, tmp_path):
    rooms = make_rooms(kind)
    for path in PATHS:
        await rooms.make_repository(path)
    before = await deadlocks(rooms)
    hosts = [rooms.another(), rooms.another(inline_limit=16384), rooms.another(inline_limit=16384)]
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    world = World()
    clients = [Client(hosts[number % 3], world, seed + number) for number in range(9)]
    began = time.monotonic()

    def missing() -> set[str]:
        done = {name for client in clients for name in client.done}
        return {"push", "put", "put_several_tags", "mount", "delete_manifest", "sweep"} - done

    def is_over() -> bool:
        """After some seconds; on a machine that is busy, when everything was done."""
        passed = time.monotonic() - began
        return passed > 3 and (not missing() or passed > 90)

    await asyncio.gather(*(client.run(is_over) for client in clients))
    assert not missing()
    await assert_invariants(rooms)
    await rooms.make_due()
    while (await rooms.sweeper.sweep()).objects:
        pass
    await rooms.expire_uploads()
    for _ in range(20):
        await rooms.sweeper.sweep()
    await rooms.make_due()
    while (await rooms.sweeper.sweep()).objects:
        pass
    await assert_invariants(rooms)
    assert sorted(await rooms.locations()) == sorted(
        location for (location,) in await rooms.query("SELECT location FROM blobs WHERE location IS NOT NULL")
    )
    assert list(tmp_path.rglob("*.part")) == []
    for host in hosts:
        await host.database.close()
    assert await deadlocks(rooms) == before


async def test_opposite_operations_never_wait_in_a_circle(rooms: Rooms):
    repository, other = await rooms.make_repository("acme/a"), await rooms.make_repository("acme/b")
    limited = await rooms.make_repository("acme/limited", tag_limit=2)
    base = make_image(layers=3, size=20)
    images = [annotated(base, n=str(n)) for n in range(3)]
    indexes = [make_index(*images), make_index(*reversed(images), annotations={"n": "2"})]
    for number in (repository, other, limited):
        for image in (*images, *indexes):
            await rooms.push(number, image)
    before = await deadlocks(rooms)
    hosts = [rooms.another() for _ in range(4)]
    contents = list(base.blobs)

    async def tag(host: Rooms, number: int, image, *names: str) -> None:
        await host.put(number, image, *names)

    async def delete(host: Rooms, number: int, image) -> None:
        with contextlib.suppress(ManifestUnknown, ManifestReferenced):
            await host.manifests.delete(number, image.digest)
        with contextlib.suppress(ManifestIncomplete):
            await host.put(number, image)

    async def untag(host: Rooms, number: int, name: str) -> None:
        with contextlib.suppress(ManifestUnknown):
            await host.manifests.delete_tag(number, name)

    async def move_blobs(host: Rooms, *order: bytes) -> None:
        for content in order:
            source = await host.blobs.get("acme/limited", Digest.of(content))
            await host.blobs.mount(source, other)
            with contextlib.suppress(BlobUnknown, BlobReferenced):
                await host.blobs.delete(other, Digest.of(content))

    works = [
        lambda host: tag(host, repository, images[0], "a", "b", "c"),
        lambda host: tag(host, repository, images[1], "c", "b", "a"),
        lambda host: tag(host, repository, indexes[0], "b", "a"),
        lambda host: tag(host, repository, indexes[1], "a", "c"),
        lambda host: delete(host, repository, images[2]),
        lambda host: delete(host, repository, indexes[0]),
        lambda host: delete(host, repository, indexes[1]),
        lambda host: untag(host, repository, "a"),
        lambda host: untag(host, limited, "y"),
        lambda host: tag(host, limited, images[0], "z", "y"),
        lambda host: tag(host, limited, images[1], "x", "w"),
        lambda host: tag(host, limited, images[2], "y", "z"),
        lambda host: delete(host, limited, images[1]),
        lambda host: move_blobs(host, *contents),
        lambda host: move_blobs(host, *reversed(contents)),
        lambda host: host.push(other, images[0], "t"),
    ]

    async def repeat(number: int) -> None:
        choose = random.Random(number)
        for _ in range(20):
            with contextlib.suppress(ManifestIncomplete, BlobUnknown):
                await choose.choice(works)(hosts[number % len(hosts)])

    await asyncio.gather(*(repeat(number) for number in range(12)))
    await assert_invariants(rooms)
    for host in hosts:
        await host.database.close()
    assert await deadlocks(rooms) == before
