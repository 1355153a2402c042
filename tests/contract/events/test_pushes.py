"""Events of pushes and deletions: which, by whom, and none when nothing happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.events import ADA, BOB
from tests.support.images import Image, make_image, make_index
from tests.support.rooms import Rooms, annotated

from dtr.events import Actor, Events, Filter, Recorded
from dtr.oci import Digest, parse_manifest
from dtr.registry import ManifestIncomplete, ManifestUnknown, TagImmutable
from dtr.storage import Memory

IMAGE = make_image()
OTHER = annotated(IMAGE, n="2")


@pytest.fixture
async def rooms(database_url: str) -> AsyncIterator[Rooms]:
    made = Rooms(database_url, Memory)
    yield made
    await made.close()


@pytest.fixture
async def repository(rooms: Rooms) -> int:
    number = await rooms.make_repository()
    for content in IMAGE.blobs:
        await rooms.push_blob(number, content)
    return number


async def put(rooms: Rooms, repository: int, image: Image, *tags: str, by: Actor = ADA) -> None:
    manifest = parse_manifest(image.payload, image.media_type)
    await rooms.manifests.put(repository, manifest, image.payload, Digest.of(image.payload), tags, by=by)


async def happened(rooms: Rooms) -> list[Recorded]:
    """What happened to tags, manifests and blobs, in order."""
    found = await Events(rooms.database).list_events(Filter(), limit=1000)
    return [one for one in reversed(found) if one.object.kind in {"tag", "manifest", "blob"}]


def told(found: list[Recorded]) -> list[tuple[str, str, str]]:
    return [(one.type, one.object.kind, one.object.name or one.object.id) for one in found]


async def test_a_push(rooms: Rooms, repository: int):
    await put(rooms, repository, IMAGE, "v1")
    manifest, tag = await happened(rooms)
    assert told([manifest, tag]) == [("CREATE", "manifest", IMAGE.digest), ("CREATE", "tag", "v1")]
    assert {one.actor for one in (manifest, tag)} == {ADA}
    assert {(one.repository, one.repository_id) for one in (manifest, tag)} == {("acme/app", repository)}
    assert (manifest.object.content, tag.object.content) == (IMAGE.media_type, IMAGE.digest)
    assert (manifest.target, tag.target) == (None, None)
    rows = await rooms.query("SELECT DISTINCT author FROM tags UNION SELECT author FROM manifests")
    assert rows == [("ada",)]


async def test_a_push_of_the_same_and_of_another_image(rooms: Rooms, repository: int):
    await put(rooms, repository, IMAGE, "v1")
    await asyncio.sleep(0.005)
    await put(rooms, repository, IMAGE, "v1", by=BOB)
    await put(rooms, repository, OTHER, "v1")
    await asyncio.sleep(0.005)
    await put(rooms, repository, IMAGE, "v1", "v2")
    *_, again, made, moved, back, second = await happened(rooms)
    assert told([again, made, moved, back, second]) == [
        ("UPDATE", "tag", "v1"),
        ("CREATE", "manifest", OTHER.digest),
        ("UPDATE", "tag", "v1"),
        ("UPDATE", "tag", "v1"),
        ("CREATE", "tag", "v2"),
    ]
    assert (again.object.content, again.target, again.actor) == (IMAGE.digest, None, BOB)
    assert moved.target is not None
    assert (moved.object.content, moved.target.content) == (IMAGE.digest, OTHER.digest)
    assert back.target is not None
    assert (back.object.content, back.target.content) == (OTHER.digest, IMAGE.digest)


async def test_an_image_by_digest_again_is_no_event(rooms: Rooms, repository: int):
    await put(rooms, repository, IMAGE)
    await asyncio.sleep(0.005)
    await put(rooms, repository, IMAGE)
    assert told(await happened(rooms)) == [("CREATE", "manifest", IMAGE.digest)]


async def test_an_index(rooms: Rooms, repository: int):
    index = make_index(IMAGE, OTHER)
    for child in index.children:
        await put(rooms, repository, child)
    await put(rooms, repository, index, "all")
    assert told(await happened(rooms)) == [
        *(("CREATE", "manifest", one.digest) for one in (IMAGE, OTHER, index)),
        ("CREATE", "tag", "all"),
    ]


async def test_a_push_that_fails_leaves_none(rooms: Rooms, repository: int):
    await put(rooms, repository, IMAGE, "v1")
    before = await happened(rooms)
    with pytest.raises(ManifestIncomplete):
        await put(rooms, repository, make_image(), "v1", "v2")
    await rooms.repositories.update("acme/app", immutable_tags=True)
    with pytest.raises(TagImmutable):
        await put(rooms, repository, OTHER, "v1", "v3")
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.delete_tag(repository, "none")
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.delete(repository, OTHER.digest)
    assert await happened(rooms) == before


async def test_what_the_tag_limit_takes(rooms: Rooms, repository: int):
    for tag in ("v1", "v2", "v3"):
        await put(rooms, repository, IMAGE, tag)
        await asyncio.sleep(0.005)
    await rooms.repositories.update("acme/app", tag_limit=2)
    await put(rooms, repository, OTHER, "v4", by=BOB)
    *_, pushed, first, second = await happened(rooms)
    assert told([pushed, first, second]) == [
        ("CREATE", "tag", "v4"),
        ("DELETE", "tag", "v1"),
        ("DELETE", "tag", "v2"),
    ]
    for one in (first, second):
        assert one.actor == Actor("policy", "tag-limit", "tag limit", BOB.address)
        assert one.target is not None
        assert (one.target.name, one.target.content) == ("v4", OTHER.digest)
        assert one.object.content == IMAGE.digest


async def test_deletions(rooms: Rooms, repository: int):
    await put(rooms, repository, IMAGE, "v1", "v2", "v3")
    spare = await rooms.push_blob(repository, b"spare")
    start = len(await happened(rooms))
    await rooms.manifests.delete_tag(repository, "v3", by=BOB)
    await rooms.manifests.delete(repository, IMAGE.digest, by=BOB)
    await rooms.blobs.delete(repository, spare, by=BOB)
    found = (await happened(rooms))[start:]
    assert told(found) == [
        ("DELETE", "tag", "v3"),
        ("DELETE", "tag", "v1"),
        ("DELETE", "tag", "v2"),
        ("DELETE", "manifest", IMAGE.digest),
        ("DELETE", "blob", spare),
    ]
    assert {one.actor for one in found} == {BOB}
    assert [one.object.content for one in found[:3]] == [IMAGE.digest] * 3


async def test_pushes_at_once_leave_an_event_each(rooms: Rooms, repository: int):
    hosts = [rooms, rooms.another(), rooms.another()]
    images = [annotated(IMAGE, n=str(number)) for number in range(12)]
    await asyncio.gather(
        *(put(hosts[number % 3], repository, image, "latest") for number, image in enumerate(images))
    )
    found = await happened(rooms)
    tags = [one for one in found if one.object.kind == "tag"]
    assert sorted(one.type for one in tags) == ["CREATE"] + ["UPDATE"] * 11
    assert len(found) == 24
    # The events are a chain: each push found what the one before it left.
    left = {(one.target or one.object).content for one in tags}
    found_there = {one.object.content for one in tags if one.type == "UPDATE"}
    (now,) = await rooms.query("SELECT manifest FROM tags")
    assert left == {image.digest for image in images}
    assert left - found_there == {now[0]}


async def test_what_the_collector_removes(rooms: Rooms, repository: int):
    await put(rooms, repository, IMAGE, "v1")
    await put(rooms, repository, OTHER, "v1")
    start = len(await happened(rooms))
    await rooms.collect_all()
    (found,) = (await happened(rooms))[start:]
    assert told([found]) == [("DELETE", "manifest", IMAGE.digest)]
    assert (found.actor, found.repository) == (Actor("system", name="collector"), "acme/app")
