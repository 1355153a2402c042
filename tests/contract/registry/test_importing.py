"""Importing the tree of Docker's distribution: what is in it is ours afterwards, where it lies."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.images import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    Image,
    descriptor,
    digest_of,
    make_artifact,
    make_image,
    make_index,
)
from tests.support.invariants import assert_invariants
from tests.support.rooms import Rooms, annotated
from tests.support.trees import ROOT, Tree

from dtr.registry import (
    BlobReferenced,
    BlobUnknown,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryUnknown,
    importing,
)
from dtr.registry.importing import Import, ImportPlan, ImportRefused, parse_names
from dtr.storage import Memory, Storages, Stored


def make_import(rooms: Rooms, *, manifest_limit: int = 4 * 1024 * 1024, **plan: Any) -> Import:
    return Import(
        rooms.database,
        rooms.storage,
        accounts=rooms.accounts,
        repositories=rooms.repositories,
        manifests=rooms.manifests,
        lifetimes=rooms.lifetimes,
        manifest_limit=manifest_limit,
        plan=ImportPlan(**{"create_namespaces": True, **plan}),
    )


async def run(rooms: Rooms, **plan: Any) -> tuple[Import, list[str]]:
    """Import what is there; the import, and what it told."""
    made, told = make_import(rooms, **plan), []
    await made.run(told.append)
    return made, told


def tree_in(rooms: Rooms, prefix: str = "") -> Tree:
    return Tree(rooms.storage.driver("default"), prefix)


async def assert_pullable(rooms: Rooms, path: str, image: Image, *tags: str) -> None:
    for reference in (image.digest, *tags):
        assert (await rooms.manifests.get(path, reference)).payload == image.payload
    for content in image.blobs:
        assert await rooms.read(path, digest_of(content)) == content
    for child in image.children:
        await assert_pullable(rooms, path, child)


async def test_everything_of_a_tree_is_ours_where_it_lies(stored: Rooms):
    tree, base = tree_in(stored), make_image(layers=2)
    index = make_index(make_image(), make_image(docker=True))
    sbom = make_artifact("application/x-sbom", b"parts", subject=base)
    signature = make_artifact("application/x-cosign", b"signed")
    cosign = f"{base.digest.replace(':', '-')}.sig"
    await tree.image("acme/app", base, "latest", "v1")
    await tree.image("acme/app", sbom)
    await tree.image("acme/app", signature, cosign)
    await tree.image("acme/deep/nested/name", index, "list")
    await tree.image("beta/app-x", base, "same")  # its links lie between those of acme/app and acme/app/…
    await tree.write("repositories/acme/app/_uploads/1/data", b"half")
    await tree.write("repositories/acme/app/_uploads/1/startedat", b"2026-01-01T00:00:00Z")
    before = await stored.locations()
    made, told = await run(stored)
    assert told == []
    assert await stored.locations() == before, "nothing was copied"
    await assert_pullable(stored, "acme/app", base, "latest", "v1")
    await assert_pullable(stored, "acme/app", sbom)
    await assert_pullable(stored, "acme/app", signature, cosign)
    await assert_pullable(stored, "acme/deep/nested/name", index, "list")
    await assert_pullable(stored, "beta/app-x", base, "same")
    (referrer,) = await stored.manifests.list_referrers("acme/app", base.digest, limit=10)
    assert (referrer.digest, referrer.artifact_type) == (sbom.digest, "application/x-sbom")
    docker = await stored.manifests.get("acme/deep/nested/name", index.children[1].digest)
    assert docker.media_type == DOCKER_MANIFEST
    assert (await stored.blobs.get("acme/app", digest_of(base.blobs[0]))).location == (
        f"default:{tree.blob_path(digest_of(base.blobs[0]))}"
    )
    await assert_invariants(stored)
    assert await stored.findings(content=True) == []
    assert (made.done, made.total) == (made.done, made.done)
    unique = {content for image in (base, *index.children, sbom, signature) for content in image.blobs}
    expected = {
        "repositories": 3,
        "namespaces": 2,
        "blobs": len(unique),
        "bytes": sum(map(len, unique)),
        "tags": 5,
    }
    assert {name: made.counted[name] for name in expected} == expected
    assert made.counted["manifests"] == 7


async def test_what_is_here_already_is_skipped(rooms: Rooms):
    tree, image = tree_in(rooms), make_image(layers=2)
    await tree.image("acme/app", make_index(image), "latest")
    await run(rooms)
    events = await rooms.count("events")
    made, told = await run(rooms)
    assert told == []
    assert +made.counted == {"present": 3 + 2 + 1}
    assert await rooms.count("events") == events
    await tree.image("acme/app", annotated(image, n="2"), "v2")
    made, told = await run(rooms)
    assert (made.counted["manifests"], made.counted["tags"], made.counted["blobs"]) == (1, 1, 0)
    await assert_pullable(rooms, "acme/app", annotated(image, n="2"), "v2")


async def test_an_import_that_ends_in_the_middle_is_run_again(make_rooms: Callable[..., Rooms]):
    rooms = make_rooms()
    tree = tree_in(rooms)
    images = {f"acme/app{number}": make_image(layers=2) for number in range(12)}
    for path, image in images.items():
        await tree.image(path, make_index(image), "latest")
    for units in (3, 11, 25):
        await run_for(rooms.another(), units)
        await assert_invariants(rooms)
    _, told = await run(rooms)
    assert told == []
    for path, image in images.items():
        await assert_pullable(rooms, path, make_index(image), "latest")
    await assert_invariants(rooms)
    assert await rooms.findings(content=True) == []


async def run_for(rooms: Rooms, units: int) -> None:
    """Import, and end in the middle, when so many units of work were begun."""
    importing = asyncio.create_task(run(rooms))
    unit, left = rooms.database.unit, units

    async def counted(work: Any, **how: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            importing.cancel()
        return await unit(work, **how)

    rooms.database.unit = counted  # type: ignore[method-assign]
    with suppress(asyncio.CancelledError):
        await importing
    assert importing.cancelled()


async def test_pushes_come_first(rooms: Rooms):
    tree, old, new = tree_in(rooms), make_image(), make_image()
    await tree.image("acme/app", old, "latest", "v1")
    repository = await rooms.make_repository()
    await rooms.push(repository, new, "latest")
    made, (told,) = await run(rooms)
    assert "tag latest names something else here, and stays" in told
    await assert_pullable(rooms, "acme/app", new, "latest")
    await assert_pullable(rooms, "acme/app", old, "v1")
    assert made.counted["tags"] == 1


async def test_a_blob_that_is_known_keeps_its_place(rooms: Rooms):
    tree, image = tree_in(rooms), make_image(layers=2)
    repository = await rooms.make_repository("acme/pushed")
    digest = await rooms.push_blob(repository, image.blobs[1])
    location = (await rooms.blobs.get("acme/pushed", digest)).location
    await tree.image("acme/app", image, "latest")
    made, told = await run(rooms)
    assert told == []
    assert (made.counted["blobs"], made.counted["duplicates"]) == (2, 1)
    assert (await rooms.blobs.get("acme/app", digest)).location == location
    await assert_invariants(rooms)


async def test_a_blob_that_lost_its_object_gets_that_of_the_tree(rooms: Rooms):
    tree, image = tree_in(rooms), make_image()
    repository = await rooms.make_repository("acme/pushed")
    digest = await rooms.push_blob(repository, image.blobs[1])
    await rooms.blobs.mark_missing(await rooms.blobs.get("acme/pushed", digest))
    await tree.image("acme/app", image, "latest")
    _, told = await run(rooms)
    assert told == []
    assert await rooms.read("acme/pushed", digest) == image.blobs[1]
    assert (await rooms.blobs.get("acme/pushed", digest)).location == f"default:{tree.blob_path(digest)}"
    await assert_invariants(rooms)


@pytest.mark.parametrize("often", [False, True])
async def test_a_blob_that_changes_while_it_is_looked_at_is_looked_at_again(rooms: Rooms, often: bool):
    tree, image = tree_in(rooms), make_image()
    repository = await rooms.make_repository("acme/pushed")
    digest = await rooms.push_blob(repository, image.blobs[1])
    await tree.image("acme/app", image, "latest")
    made, told = make_import(rooms), []
    link = made._link
    turn = 0

    async def change_first(*given: Any) -> Any:
        nonlocal turn
        turn += 1
        if turn == 1 or often:
            if turn % 2:  # what was known goes
                await rooms.blobs.delete(repository, digest)
            else:  # what was not comes
                await rooms.push_blob(repository, image.blobs[1])
                await rooms.blobs.mark_missing(await rooms.blobs.get("acme/pushed", digest))
        return await link(*given)

    made._link = change_first  # type: ignore[method-assign]
    await made.run(told.append)
    if often:
        assert turn == 3
        assert any("come and go at this moment" in text for text in told)
        _, told = await run(rooms)
    assert told == []
    await assert_pullable(rooms, "acme/app", image, "latest")
    await assert_invariants(rooms)


async def test_what_was_deleted_since_comes_back_unless_it_is_just_being_deleted(rooms: Rooms):
    tree, image = tree_in(rooms), make_image()
    await tree.image("acme/app", image, "latest")
    await run(rooms)
    for sweeping in (False, True):
        await rooms.manifests.delete((await rooms.repositories.get("acme/app")).id, image.digest)
        await rooms.collect_all()
        assert await rooms.count("blobs") == 0
        assert await rooms.count("gc_objects") == 2
        if sweeping:
            await rooms.change(
                "UPDATE gc_objects SET attempts = 1 WHERE location LIKE :l", l=f"%{digest_of(image.blobs[1])[7:]}%"
            )
        _, told = await run(rooms)
        if not sweeping:
            assert told == []
            assert await rooms.count("gc_objects") == 0
            await assert_pullable(rooms, "acme/app", image, "latest")
    assert any("is just being deleted" in text for text in told)
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/app", "latest")
    await rooms.make_due()
    await rooms.sweeper.sweep()
    _, told = await run(rooms)
    assert any(f"blob {digest_of(image.blobs[1])} is not there" in text for text in told)
    await assert_invariants(rooms)


async def test_what_is_in_quarantine_is_taken_only_when_it_is_whole(rooms: Rooms):
    tree, image = tree_in(rooms), make_image()
    await tree.image("acme/app", image, "latest")
    await run(rooms)
    digest, driver = digest_of(image.blobs[1]), rooms.storage.driver("default")
    await driver.put_small(tree.blob_path(digest), image.blobs[1][:-1] + b"x")
    await rooms.findings(content=True, repair=True)
    await rooms.repositories.delete("acme/app")
    await rooms.collect_all()
    _, told = await run(rooms)
    assert any(f"blob {digest} is just being deleted, or in quarantine" in text for text in told)
    _, told = await run(rooms, verify=True)
    assert any(f"blob {digest} has other content" in text for text in told)
    await driver.put_small(tree.blob_path(digest), image.blobs[1])
    _, told = await run(rooms, verify=True)
    assert told == []
    await assert_pullable(rooms, "acme/app", image, "latest")
    await assert_invariants(rooms)


async def test_what_the_tree_has_wrong_is_told_and_harms_nothing_else(rooms: Rooms):
    tree, good = tree_in(rooms), make_image()
    await tree.image("acme/app", good, "good")
    lost = make_image()
    await tree.image("acme/app", lost, "lost")
    await rooms.storage.driver("default").delete(tree.blob_path(digest_of(lost.blobs[1])))
    config = descriptor(DOCKER_CONFIG, b"{}")
    schema1 = json.dumps(
        {"schemaVersion": 1, "name": "acme/app", "tag": "old", "fsLayers": [], "history": []}
    ).encode()
    old = await tree.manifest("acme/app", schema1, "old")
    empty = await tree.link("acme/app", "_layers", digest_of(b"nothing"), "")
    await tree.link("acme/app", "_layers", "tarsum.dev+sha256:00", "x")
    await tree.tag("acme/app", "broken", "")
    await tree.tag("acme/app", "-not-a-tag", good.digest)
    await tree.tag("acme/app", "gone", digest_of(b"gone"))
    layer = await tree.layer("acme/app", b"12345")
    await tree.layer("acme/app", b"{}")
    wrong = {"mediaType": DOCKER_LAYER, "digest": layer, "size": 7}
    payload = json.dumps(
        {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": [wrong]}
    ).encode()
    sizes = await tree.manifest("acme/app", payload, "sizes")
    large = annotated(good, much="x" * 5000)
    await tree.manifest("acme/app", large.payload, "large")
    flipped = annotated(good, n="1")
    await tree.manifest("acme/app", flipped.payload, "flipped")
    await rooms.storage.driver("default").put_small(tree.blob_path(flipped.digest), flipped.payload + b" ")
    missing = await tree.manifest("acme/app", annotated(good, n="2").payload)
    await rooms.storage.driver("default").delete(tree.blob_path(missing))
    for name in ("Upper/case", "alone", "nobody/app"):
        await tree.image(name, good, "latest")
    made = make_import(rooms, manifest_limit=4000, create_namespaces=False)
    await rooms.accounts.create_organization("acme")
    told: list[str] = []
    await made.run(told.append)
    await assert_pullable(rooms, "acme/app", good, "good")
    assert (await rooms.manifests.get("acme/app", "sizes")).digest == sizes
    for reference in ("lost", "old", "broken", "gone", "large", "flipped", old, large.digest, flipped.digest):
        with pytest.raises(ManifestUnknown):
            await rooms.manifests.get("acme/app", reference)
    lines = "\n".join(sorted(told))
    for text in (
        f"acme/app: blob {digest_of(lost.blobs[1])} is not there",
        f"acme/app: manifest {lost.digest}: the repository lacks {digest_of(lost.blobs[1])}",
        f"acme/app: manifest {old}: image manifests of schema 1 are not supported",
        f"acme/app: link layers/{digest_of(b'nothing').replace(':', '/')} is broken",
        "acme/app: link layers/tarsum.dev+sha256/00 is broken",
        "acme/app: tag broken is broken: '' is no digest",
        "acme/app: tag '-not-a-tag': ",
        f"acme/app: tags gone name manifest {digest_of(b'gone')}, which is not imported",
        f"acme/app: manifest {sizes} says that blob {layer} has 7 bytes, and it has 5",
        f"acme/app: manifest {large.digest} has more than 4000 bytes",
        f"acme/app: manifest {flipped.digest}: it has other content",
        f"acme/app: manifest {missing} is not there",
        "Upper/case: ",
        "alone: ",
        "nobody/app: there is no user or organisation nobody",
    ):
        assert text in lines, text
    assert empty in {location.removeprefix("default:") for location in await rooms.locations()}
    assert made.counted["problems"] == len(told)
    await assert_invariants(rooms)


async def test_a_repository_gets_only_what_it_has_links_to(rooms: Rooms):
    """An index or manifest that names the digest of somebody else's does not open it."""
    tree, secret = tree_in(rooms), make_image()
    await tree.image("acme/secret", secret, "latest")
    await tree.manifest("evil/app", make_index(secret).payload, "list")
    await tree.manifest("evil/app", annotated(secret, n="1").payload, "image")
    _, told = await run(rooms)
    assert sum("the repository lacks" in text for text in told) == 2
    for reference in (secret.digest, "list", "image"):
        with pytest.raises(ManifestUnknown):
            await rooms.manifests.get("evil/app", reference)
    for content in secret.blobs:
        with pytest.raises(BlobUnknown):
            await rooms.blobs.get("evil/app", digest_of(content))


async def test_indexes_of_indexes_cost_what_they_are(rooms: Rooms):
    """Also when none of them can be imported: each is looked at once."""
    tree = tree_in(rooms)
    level = [annotated(make_image(), n=str(number)) for number in range(5)]  # without their layers
    for image in level:
        await tree.manifest("acme/app", image.payload)
    for depth in range(12):
        level = [make_index(*level, annotations={"n": f"{depth}/{number}"}) for number in range(5)]
        for index in level:
            await tree.manifest("acme/app", index.payload)
    made, told = await run(rooms)
    assert len(told) == 5 * 13
    assert made.counted["manifests"] == 0


async def test_names_are_mapped(rooms: Rooms):
    image = make_image()
    for name in ("alpine", "team-x/app/web", "team-x", "gamma/app"):
        await tree_in(rooms, "old/").image(name, image, "latest")
    names = parse_names(["team-x/app=acme/x", "team-x=acme/y"])
    _, told = await run(rooms, prefix="/old/", names=names, namespace="library", visibility="public")
    assert told == []
    for path in ("library/alpine", "acme/x/web", "acme/y", "gamma/app"):
        await assert_pullable(rooms, path, image, "latest")
        assert (await rooms.repositories.get(path)).settings.visibility == "public"
    assert len(await rooms.repositories.list_repositories(limit=10)) == 4


@pytest.mark.parametrize("text", ["", "a", "=b", "a=", "a=B", "a=b c", "a=b//c"])
def test_what_is_no_mapping_is_refused(text: str):
    with pytest.raises(ImportRefused):
        parse_names([text])
    with pytest.raises(ImportRefused, match="is to be called"):
        parse_names(["a=b", "a=c"])


@pytest.mark.parametrize("plan", [{"storage": "other"}, {"prefix": "elsewhere"}, {}])
async def test_where_there_is_no_tree_nothing_is_done(rooms: Rooms, plan: dict[str, str]):
    if plan:
        await tree_in(rooms).image("acme/app", make_image(), "latest")
    with pytest.raises(ImportRefused):
        await run(rooms, **plan)
    assert await rooms.count("repositories") == 0


async def test_blobs_of_which_only_a_database_knows_are_left_alone(rooms: Rooms):
    await tree_in(rooms).write("blobs/id/ab/abcdef/data", b"content")  # DTR 2.6
    before = await rooms.locations()
    with pytest.raises(ImportRefused, match=r"DTR 2\.6 and later .* mirroring"):
        await run(rooms)
    assert await rooms.locations() == before


async def test_on_request_every_blob_is_hashed_before_it_is_taken(rooms: Rooms):
    tree, good, bad = tree_in(rooms), make_image(), make_image()
    await tree.image("acme/app", good, "good")
    await tree.image("acme/app", bad, "bad")
    digest = digest_of(bad.blobs[1])
    await rooms.storage.driver("default").put_small(tree.blob_path(digest), bad.blobs[1][:-1] + b"x")
    _, told = await run(rooms, verify=True)
    assert any(f"blob {digest} has other content" in text for text in told)
    await assert_pullable(rooms, "acme/app", good, "good")
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/app", "bad")
    assert await rooms.findings(content=True) == []


async def test_what_is_cancelled_does_not_go_on_reading(rooms: Rooms):
    tree = tree_in(rooms)
    for number in range(20):
        await tree.layer("acme/app", b"%d" % number)
    reading, reads = asyncio.Event(), 0

    class Slow(Memory):
        async def open(self, location: str, offset: int = 0, length: int | None = None):
            nonlocal reads
            reads += 1
            reading.set()
            await asyncio.sleep(0.01)
            async for piece in super().open(location, offset, length):
                yield piece

    await rooms.storage.put("default", Slow(rooms.storage.driver("default")))
    importing = asyncio.create_task(run(rooms, verify=True))
    await reading.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    before = reads
    await asyncio.sleep(0.1)
    assert reads == before


async def test_a_dry_run_tells_the_same_and_changes_nothing(rooms: Rooms):
    tree, image = tree_in(rooms), make_image()
    await tree.image("acme/app", make_index(image), "latest")
    await tree.image("acme/other", image, "v1")
    await tree.manifest("acme/other", annotated(make_image(), n="1").payload, "half")
    await tree.image("alone", image, "v1")
    dry, told = await run(rooms, dry_run=True)
    for table in ("accounts", "repositories", "blobs", "manifests", "tags", "events", "gc_objects"):
        assert await rooms.count(table) == 0
    made, wet = await run(rooms)
    assert any("lacks" in text for text in told)
    assert {text.partition(":")[0] for text in told} == {text.partition(":")[0] for text in wet}
    for name in ("repositories", "namespaces", "blobs", "bytes", "links", "manifests"):
        assert dry.counted[name] == made.counted[name], name
    assert "nothing is changed" in dry.report


async def test_an_imported_blob_goes_like_any_other(stored: Rooms):
    tree, image = tree_in(stored), make_image()
    await tree.image("acme/app", image, "latest")
    await run(stored)
    await stored.repositories.delete("acme/app")
    await stored.collect_all()
    await stored.make_due()
    await stored.sweeper.sweep()
    left = await stored.locations()
    for content in image.blobs:
        assert f"default:{tree.blob_path(digest_of(content))}" not in left
    repository = await stored.make_repository("acme/again")
    await stored.push(repository, image, "latest")
    assert ROOT not in (await stored.blobs.get("acme/again", digest_of(image.blobs[0]))).location
    await assert_invariants(stored)


async def test_a_repository_that_is_deleted_meanwhile_is_told(rooms: Rooms):
    tree = tree_in(rooms)
    await tree.image("acme/app", make_image(), "latest")
    made = make_import(rooms)
    make = made._make

    async def make_and_delete(name: Any) -> Any:
        place = await make(name)
        await rooms.repositories.delete("acme/app")
        return place

    made._make = make_and_delete  # type: ignore[method-assign]
    told: list[str] = []
    await made.run(told.append)
    assert told == ["acme/app: repository acme/app is not there any more"]
    with pytest.raises(RepositoryUnknown):
        await rooms.repositories.get("acme/app")


async def test_imports_pushes_and_deletions_at_the_same_time(stored: Rooms):
    tree = tree_in(stored)
    images = [make_image(layers=2, size=50) for _ in range(6)]
    for number, image in enumerate(images):
        await tree.image(f"acme/app{number % 3}", make_index(image), f"v{number}")
    hosts = [stored, stored.another(), stored.another()]
    await asyncio.gather(*(run(host) for host in hosts[:2]))
    stop = asyncio.Event()

    async def churn(host: Rooms) -> None:
        while not stop.is_set():
            for number, image in enumerate(images):
                repository = (await host.repositories.get(f"acme/app{number % 3}")).id
                with suppress(ManifestUnknown, ManifestReferenced, BlobUnknown, BlobReferenced):
                    await host.manifests.delete(repository, make_index(image).digest)
                    await host.manifests.delete(repository, image.digest)
                    for content in image.blobs:
                        await host.blobs.delete(repository, digest_of(content))
                await asyncio.sleep(0)

    churning = asyncio.create_task(churn(hosts[2]))
    for _ in range(5):
        await asyncio.gather(*(run(host) for host in hosts[:2]))
    stop.set()
    await churning
    await run(stored)
    for number, image in enumerate(images):
        await assert_pullable(stored, f"acme/app{number % 3}", make_index(image), f"v{number}")
    await assert_invariants(stored)
    assert await stored.findings(content=True) == []


REPOSITORIES = int(os.environ.get("DTR_SCALE_ROWS", "2500"))


class Endless(Memory):
    """A storage with so many repositories that none of them may be kept in memory; none has a name we take."""

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        modified_at = datetime.now(UTC)
        for number in range(REPOSITORIES):
            digest = digest_of(str(number).encode()).replace(":", "/")
            location = f"{ROOT}/repositories/team{number:07}/_layers/{digest}/link"
            if location.startswith(prefix):
                yield Stored(location, 71, modified_at)


async def test_memory_does_not_grow_with_the_tree(
    make_database_url: Callable[[str], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
):
    rooms = Rooms(await make_database_url("sqlite"), Memory)
    monkeypatch.setattr(importing, "_MOST_TOLD", 1000)
    storage = Storages({"default": Endless()}, "default")
    made = Import(
        rooms.database, storage, accounts=rooms.accounts, repositories=rooms.repositories,
        manifests=rooms.manifests, lifetimes=rooms.lifetimes, manifest_limit=1, plan=ImportPlan(),
    )  # fmt: skip
    told = 0

    def tell(_text: str) -> None:
        nonlocal told
        told += 1

    tracemalloc.start()
    try:
        await made.run(tell)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await rooms.close()
    assert made.counted["problems"] == REPOSITORIES == made.done
    assert told == 1001, "those after so many are counted alone"
    assert peak < 4 * 1024 * 1024
