"""Blobs that were lost come again from where their repository came."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.images import digest_of, make_image
from tests.support.mirrors import ADA, REMOTE, Mirrors
from tests.support.registry_double import RegistryDouble
from tests.support.rooms import Rooms

from dtr.mirrors import Refetch, Upstream, Upstreams
from dtr.registry import BlobUnknown
from dtr.registry.fsck import Fsck
from dtr.remotes import Definition, RemoteUnreachable, add

IMAGE = make_image(layers=2, size=100_000)
LAYER = IMAGE.blobs[1]
DIGEST = digest_of(LAYER)


class Lossy:
    """A repository that lost a layer, and what brings it back."""

    def __init__(self, rooms: Rooms, mirrors: Mirrors, registry: RegistryDouble) -> None:
        self.rooms = rooms
        self.mirrors = mirrors
        self.upstreams = Upstreams(rooms.database)
        self.refetch = Refetch(
            rooms.database,
            self.upstreams,
            definitions=mirrors.definitions,
            remotes=registry,  # type: ignore[arg-type]  # it stands for it
            local=mirrors.local,
        )

    async def lose(self) -> None:
        await self.rooms.push(self.repository, IMAGE)
        blob = await self.rooms.blobs.get("acme/app", DIGEST)
        assert blob.location is not None
        await self.rooms.storage.delete(blob.location)

    async def audit(self) -> list[str]:
        check = Fsck(self.rooms.database, self.rooms.storage, refetch=self.refetch)
        return [one.text async for one in check.run(repair=True) if one.is_damage or "fetched" in one.text]


@pytest.fixture
async def lossy(rooms: Rooms, mirrors: Mirrors, registry: RegistryDouble) -> Lossy:
    made = Lossy(rooms, mirrors, registry)
    made.repository = await rooms.make_repository()
    return made


async def make_cache(lossy: Lossy, path: str) -> None:
    """Let the repository be a cache of one at the remote."""
    definitions = lossy.mirrors.definitions
    prepared = await definitions.prepare(Definition(repository_id=lossy.repository, host=REMOTE), password=None)
    await lossy.rooms.database.unit(lambda tx: add(tx, prepared))
    await lossy.upstreams.put(Upstream(repository=lossy.repository, remote=prepared.id, remote_path=path), by=ADA)


@pytest.mark.parametrize("source", ["poll", "cache"])
async def test_a_lost_blob_is_fetched_from_where_its_repository_came(
    lossy: Lossy, registry: RegistryDouble, source: str
):
    registry.push("registry.example/mirror/app", IMAGE, "v1")
    if source == "poll":
        await lossy.mirrors.make(lossy.repository, "poll", there="nowhere")
        await lossy.mirrors.make(lossy.repository, "poll")
    else:
        await make_cache(lossy, "mirror/app")
    await lossy.lose()
    (text,) = await lossy.audit()
    assert f"blob {DIGEST} has no object at" in text
    assert text.endswith(", and was fetched from registry.example/mirror/app")
    assert await lossy.rooms.read("acme/app", DIGEST) == LAYER
    assert await lossy.rooms.findings(content=True) == []


@pytest.mark.parametrize("how", ["none", "push", "off", "other content", "unreachable", "deleted"])
async def test_a_blob_that_cannot_be_had_stays_lost(
    lossy: Lossy, registry: RegistryDouble, caplog: pytest.LogCaptureFixture, how: str
):
    registry.push("registry.example/mirror/app", IMAGE, "v1")
    await lossy.lose()
    more: dict[str, Any] = {"enabled": False} if how == "off" else {}
    if how != "none":
        await lossy.mirrors.make(lossy.repository, "push" if how == "push" else "poll", **more)
    if how == "other content":
        registry.repositories["registry.example/mirror/app"].blobs[DIGEST] = LAYER[:-1] + b"x"
    if how == "unreachable":
        registry.fails = lambda _call, _argument: RemoteUnreachable("it does not answer")
    if how == "deleted":
        await lossy.rooms.repositories.delete("acme/app")
        assert await lossy.refetch(lossy.repository, DIGEST, len(LAYER)) is None
        return
    (text,) = await lossy.audit()
    assert f"blob {DIGEST} has no object at" in text
    assert "fetched" not in text
    with pytest.raises(BlobUnknown):
        await lossy.rooms.blobs.get("acme/app", DIGEST)
    assert ("blob not fetched again" in caplog.text) == (how in {"other content", "unreachable"})
