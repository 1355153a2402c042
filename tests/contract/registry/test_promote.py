"""Promotion on both databases: what comes along, what the target allows, and who gets nothing by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

import pytest
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.rooms import Counter, Rooms, annotated

from dtr.events import Actor
from dtr.registry import (
    ManifestIncomplete,
    ManifestUnknown,
    Origin,
    Promotion,
    RepositoryUnknown,
    TagImmutable,
    TooManyManifests,
    promote,
)

ADA = Actor("user", "id of ada", "ada")
IMAGE = make_image(layers=2)
OTHER = make_image()


def promotion(rooms: Rooms, **options: Any) -> Promotion:
    return Promotion(rooms.database, rooms.lifetimes, **options)


async def copy(rooms: Rooms, source: int, image: Image, target: int, tag: str = "1.0", **more: Any) -> None:
    await promotion(rooms, **more).promote(source, image.digest, target, tag, Origin("acme/dev", "latest"), by=ADA)


async def whole(rooms: Rooms, path: str, image: Image, reference: str) -> None:
    """The image is there, byte for byte."""
    assert (await rooms.manifests.get(path, reference)).payload == image.payload
    for content in image.blobs:
        digest = next(
            one["digest"]
            for one in (json.loads(image.payload)["config"], *json.loads(image.payload)["layers"])
            if one["size"] == len(content)
        )
        assert len(await rooms.read(path, digest)) == len(content)
    for child in image.children:
        await whole(rooms, path, child, child.digest)


async def test_an_image_is_whole_in_the_target_and_no_bytes_are_copied(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("ops/prod")
    await rooms.push(dev, IMAGE, "latest")
    objects = await rooms.locations()
    await copy(rooms, dev, IMAGE, prod)
    assert await rooms.locations() == objects
    await whole(rooms, "ops/prod", IMAGE, "1.0")
    usage = await rooms.usage()
    size = usage["*"]
    assert size == sum(map(len, IMAGE.blobs))
    assert {
        usage[one]
        for one in (f"repository:{dev}", f"repository:{prod}", "namespace:" + (await owner(rooms, prod)))
    } == {size}
    await rooms.manifests.delete(dev, IMAGE.digest)
    await rooms.collect_all()
    await whole(rooms, "ops/prod", IMAGE, "1.0")
    assert await rooms.findings() == []
    await rooms.manifests.delete_tag(prod, "1.0")
    await rooms.collect_all()
    assert (await rooms.count("blobs"), await rooms.usage()) == (0, {})


async def owner(rooms: Rooms, repository: int) -> str:
    ((found,),) = await rooms.query("SELECT namespace_id FROM repositories WHERE id = :id", id=repository)
    return str(found)


async def test_a_namespace_pays_once_for_what_it_has_in_two_repositories(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "latest")
    before = (await rooms.usage())[f"namespace:{await owner(rooms, dev)}"]
    await copy(rooms, dev, IMAGE, prod)
    await copy(rooms, dev, IMAGE, prod, "again")
    usage = await rooms.usage()
    assert usage[f"namespace:{await owner(rooms, dev)}"] == before == usage[f"repository:{prod}"] == usage["*"]
    await rooms.repositories.delete("acme/dev")
    await rooms.collect_all()
    assert (await rooms.usage())[f"namespace:{await owner(rooms, prod)}"] == before


async def test_an_index_comes_with_its_images_and_all_with_what_refers_to_them(rooms: Rooms):
    # The higher number is the source: locks are taken the other way round.
    prod, dev = await rooms.make_repository("acme/prod"), await rooms.make_repository("acme/dev")
    inner = make_index(make_image(), make_image())
    index = make_index(inner, IMAGE)
    signature = make_artifact("application/x.signature", b"signed", subject=index)
    seal = make_artifact("application/x.signature", b"signed, too", subject=signature)
    bill = make_artifact("application/x.bill", b"of materials", subject=inner.children[0])
    unrelated = make_artifact("application/x.bill", b"other", subject=OTHER)
    await rooms.push(dev, index, "latest")
    for one in (signature, seal, bill, unrelated):
        await rooms.push(dev, one)
    await copy(rooms, dev, index, prod)
    await rooms.collect_all()
    await whole(rooms, "acme/prod", index, "1.0")
    for one in (signature, seal, bill):
        await whole(rooms, "acme/prod", one, one.digest)
    assert [one.digest for one in await rooms.manifests.list_referrers(prod, index.digest, limit=9)] == [
        signature.digest
    ]
    assert await rooms.manifests.list_tags("acme/prod", limit=9) == ["1.0"]
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/prod", unrelated.digest)


async def test_what_the_tag_named_before_is_let_go(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "latest")
    await rooms.push(prod, OTHER, "1.0")
    await copy(rooms, dev, IMAGE, prod)
    await whole(rooms, "acme/prod", IMAGE, "1.0")
    await rooms.collect_all()
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/prod", OTHER.digest)
    assert await rooms.findings() == []


async def test_within_a_repository_it_is_another_tag(rooms: Rooms):
    dev = await rooms.make_repository("acme/dev")
    await rooms.push(dev, IMAGE, "latest")
    await copy(rooms, dev, IMAGE, dev)
    await rooms.manifests.delete_tag(dev, "latest")
    await rooms.collect_all()
    await whole(rooms, "acme/dev", IMAGE, "1.0")


async def test_the_settings_of_the_target_are_obeyed(rooms: Rooms):
    dev = await rooms.make_repository("acme/dev")
    fixed = await rooms.make_repository("acme/fixed", immutable_tags=True)
    short = await rooms.make_repository("acme/short", tag_limit=2)
    for image in (IMAGE, OTHER):
        await rooms.push(dev, image)
    await copy(rooms, dev, IMAGE, fixed)
    await copy(rooms, dev, IMAGE, fixed)  # it names this already
    with pytest.raises(TagImmutable):
        await copy(rooms, dev, OTHER, fixed)
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/fixed", OTHER.digest)
    for tag in ("1", "2", "3"):
        await copy(rooms, dev, IMAGE, short, tag)
    assert await rooms.manifests.list_tags("acme/short", limit=9) == ["2", "3"]


async def test_what_is_not_there_is_refused_and_nothing_is_left(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    signature = make_artifact("application/x.signature", b"signed", subject=IMAGE)
    await rooms.push(dev, signature)  # of what is not there
    with pytest.raises(ManifestUnknown):
        await copy(rooms, dev, IMAGE, prod)
    assert await rooms.count("tags") == 0
    with pytest.raises(RepositoryUnknown):
        await copy(rooms, dev, signature, 4711)
    await rooms.repositories.delete("acme/prod")
    with pytest.raises(RepositoryUnknown):
        await copy(rooms, dev, signature, prod)


async def test_nobody_gets_a_blob_that_the_source_only_names(rooms: Rooms):
    """With sparse manifests one may name the digest of somebody else's blob."""
    secret = await rooms.make_repository("other/secret")
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(secret, IMAGE, "latest")
    await rooms.another(sparse_manifests=True).put(dev, IMAGE, "latest")
    with pytest.raises(ManifestIncomplete):
        await copy(rooms, dev, IMAGE, prod)
    await copy(rooms, dev, IMAGE, prod, sparse_manifests=True)
    assert (await rooms.manifests.get("acme/prod", "1.0")).payload == IMAGE.payload
    rows = await rooms.query("SELECT DISTINCT repository_id FROM repository_blobs")
    assert rows == [(secret,)]


async def test_where_a_tag_is_from_is_said_until_it_is_moved(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "latest")
    await copy(rooms, dev, IMAGE, prod)

    async def origin() -> Origin | None:
        return (await rooms.images.get_tag(prod, "1.0")).origin

    assert await origin() == Origin("acme/dev", "latest", "")
    assert (await rooms.images.get_tag(dev, "latest")).origin is None
    await rooms.put(prod, IMAGE, "1.0")  # moves nothing
    assert await origin() is not None
    await promotion(rooms).promote(dev, IMAGE.digest, prod, "1.0", Origin("acme/dev", "next", "policy"))
    assert await origin() == Origin("acme/dev", "next", "policy")
    await rooms.push(prod, OTHER, "1.0")
    assert await origin() is None
    await asyncio.sleep(0.002)  # moments have a millisecond
    await rooms.put(prod, IMAGE, "1.0")
    assert await origin() is None
    await rooms.manifests.delete_tag(prod, "1.0")
    assert await rooms.count("tag_origins") == 0


async def test_the_events_are_those_of_a_push_and_one_of_the_source(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "latest")
    await rooms.push(prod, OTHER, "1.0")
    last = (await rooms.query("SELECT max(id) FROM events"))[0][0]
    await copy(rooms, dev, IMAGE, prod)
    rows = await rooms.query(
        "SELECT type, actor_name, repository, object_type, object_id, target_content FROM events"
        " WHERE id > :last ORDER BY id",
        last=last,
    )
    assert rows == [
        ("CREATE", "ada", "acme/prod", "manifest", IMAGE.digest, None),
        ("UPDATE", "ada", "acme/prod", "tag", "1.0", IMAGE.digest),
        ("CREATE", "ada", "acme/dev", "promotion", "", IMAGE.digest),
    ]
    assert (await rooms.images.get_tag(prod, "1.0")).author == "ada"
    pushes = await rooms.query(f"SELECT sum(pushes) FROM usage_deltas WHERE scope = 'repository:{prod}'")
    assert pushes == [(2,)]


async def test_an_index_of_many_images_takes_no_more_statements(rooms: Rooms, monkeypatch: pytest.MonkeyPatch):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    statements = []
    for number in (2, 60):
        index = make_index(
            *(annotated(IMAGE, n=str(one)) for one in range(number)), annotations={"n": str(number)}
        )
        for child in index.children:
            await rooms.push(dev, child) if child is index.children[0] else await rooms.put(dev, child)
        await rooms.put(dev, index, "latest")
        counter = Counter().watch(rooms.database)
        await copy(rooms, dev, index, prod, str(number))
        statements.append(counter.statements)
    assert statements[0] >= statements[1]
    monkeypatch.setattr(promote, "_MOST_MANIFESTS", 60)
    with pytest.raises(TooManyManifests):
        await copy(rooms, dev, index, prod, "more")


@pytest.mark.parametrize("seed", [1, 2])
async def test_promotions_to_and_fro_with_deletions_break_nothing(rooms: Rooms, seed: int):
    chance = random.Random(seed)
    repositories = [await rooms.make_repository(path) for path in ("acme/dev", "acme/prod")]
    index = make_index(IMAGE, OTHER)
    images = [index, annotated(IMAGE, n="1"), annotated(OTHER, n="2")]

    async def act() -> None:
        source, target = chance.sample(repositories, 2)
        image = chance.choice(images)
        for _ in range(12):
            match chance.randrange(4):
                case 0:
                    # Collecting ahead of time takes what a push relies on; a promotion relies on no time.
                    with contextlib.suppress(ManifestIncomplete):
                        await rooms.push(source, image, "a")
                case 1:
                    await rooms.manifests.delete_tags(target, ["a", "b"])
                case 2:
                    await rooms.collector.collect(grace=0)
                case _:
                    with contextlib.suppress(ManifestUnknown):
                        await copy(rooms, source, image, target, chance.choice("ab"))

    await asyncio.wait_for(asyncio.gather(*(act() for _ in range(4))), 60)
    for path, number in zip(("acme/dev", "acme/prod"), repositories, strict=True):
        for tag in await rooms.manifests.list_tags(number, limit=9):
            digest = (await rooms.manifests.get(path, tag)).digest
            await whole(rooms, path, next(one for one in images if one.digest == digest), tag)
    assert await rooms.findings() == []
