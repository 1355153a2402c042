"""Manifests and tags: byte for byte, complete, and what lets go of something says when to look at it."""

from __future__ import annotations

import asyncio
import json
import os
import random

import pytest
from tests.support.images import (
    OCI_MANIFEST,
    Image,
    descriptor,
    digest_of,
    make_artifact,
    make_image,
    make_index,
)
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, annotated

from dtr.oci import Digest, parse_manifest
from dtr.registry import (
    BlobUnknown,
    Lifetimes,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryUnknown,
    TagImmutable,
)
from dtr.registry.lifetimes import DAY, HOUR

LIFETIMES = Lifetimes(lease=10 * HOUR, slack=2 * HOUR, untagged_after=3 * DAY)


def clock(rooms: Rooms) -> str:
    """The database's clock, as SQL."""
    if rooms.database.dialect == "sqlite":
        return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
    return "CAST(extract(epoch FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)"


async def reviews(rooms: Rooms) -> dict[str, int | None]:
    """Hours until each manifest is reviewed, rounded; None: nobody needs to look."""
    rows = await rooms.query(f"SELECT digest, review_at - {clock(rooms)} FROM manifests")
    return {digest: None if left is None else round(left / HOUR) for digest, left in rows}


async def set_review(rooms: Rooms, digest: str, hours: float) -> None:
    await rooms.change(
        f"UPDATE manifests SET review_at = {clock(rooms)} + :left WHERE digest = :d",
        left=int(hours * HOUR),
        d=digest,
    )


async def forget_reviews(rooms: Rooms) -> None:
    """What a collector does with links that manifests hold."""
    await rooms.change("UPDATE repository_blobs SET review_at = NULL")


async def tags(rooms: Rooms, path: str = "acme/app") -> dict[str, str]:
    names = await rooms.manifests.list_tags(path, limit=10_000)
    return {name: (await rooms.manifests.get(path, name)).digest for name in names}


# --- bytes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        make_image(),
        make_image(docker=True),
        make_index(make_image(), make_image(layers=3)),
        make_index(make_image(docker=True), docker=True),
        make_artifact("application/vnd.example.sbom", b"sbom"),
    ],
    ids=["oci", "docker", "index", "list", "artifact"],
)
async def test_a_manifest_is_served_byte_for_byte_by_tag_and_digest(rooms: Rooms, image: Image):
    payload = b"\n  " + image.payload.replace(b", ", b" ,\t") + b"\r\n\n"
    image = Image(payload, image.media_type, image.blobs, image.children)
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, image, "latest")
    for reference in ("latest", digest):
        found = await rooms.manifests.get("acme/app", reference)
        assert (found.payload, found.media_type, found.digest) == (payload, image.media_type, digest)
    await assert_invariants(rooms)


async def test_a_manifest_named_by_a_sha512_digest_is_stored_under_it(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    await rooms.push(repository, image)
    digest = Digest.of(image.payload, "sha512")
    await rooms.manifests.put(repository, parse_manifest(image.payload), image.payload, digest, ())
    assert (await rooms.manifests.get("acme/app", digest)).payload == image.payload
    await assert_invariants(rooms)


async def test_a_manifest_is_found_only_in_its_repository(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.make_repository("acme/other")
    digest = await rooms.push(repository, make_image(), "latest")
    for path in ("acme/other", "acme/none"):
        for reference in ("latest", digest):
            with pytest.raises(ManifestUnknown):
                await rooms.manifests.get(path, reference)
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/app", "other")


async def test_a_push_brings_back_the_bytes_of_a_manifest_that_were_damaged(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, "latest")
    await rooms.change("UPDATE manifests SET payload = :wrong", wrong=b"{}")
    await rooms.put(repository, image, "latest")
    assert (await rooms.manifests.get("acme/app", digest)).payload == image.payload
    assert await reviews(rooms) == {digest: None}


# --- what a manifest names -----------------------------------------------------------------------------------


async def test_everything_that_is_missing_is_listed_at_once(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image(layers=4)
    await rooms.push_blob(repository, image.blobs[2])
    with pytest.raises(ManifestIncomplete) as refused:
        await rooms.put(repository, image, "latest")
    lacking = {digest_of(one) for number, one in enumerate(image.blobs) if number != 2}
    assert set(refused.value.blobs) == lacking
    assert refused.value.manifests == ()
    children = [make_image(), make_image(), make_image()]
    there = await rooms.push(repository, children[1])
    with pytest.raises(ManifestIncomplete) as refused:
        await rooms.put(repository, make_index(*children), "latest")
    assert set(refused.value.manifests) == {children[0].digest, children[2].digest}
    assert await tags(rooms) == {}
    assert list(await reviews(rooms)) == [there]
    await assert_invariants(rooms)


async def test_a_blob_in_another_repository_only_is_missing_here(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    image = make_image()
    await rooms.push(other, image)
    with pytest.raises(ManifestIncomplete):
        await rooms.put(repository, image, "latest")
    with pytest.raises(ManifestIncomplete):
        await rooms.put(repository, make_index(image), "latest")


async def test_a_blob_whose_object_is_missing_is_missing(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    await rooms.push(repository, image)
    await rooms.blobs.mark_missing(await rooms.blobs.get("acme/app", digest_of(image.blobs[1])))
    with pytest.raises(ManifestIncomplete) as refused:
        await rooms.put(repository, image, "latest")
    assert refused.value.blobs == (digest_of(image.blobs[1]),)


async def test_with_sparse_manifests_what_they_name_may_be_missing_and_come_later(make_rooms):
    rooms = make_rooms(sparse_manifests=True)
    repository = await rooms.make_repository()
    child = make_image()
    index = make_index(child, make_image())
    await rooms.put(repository, index, "latest")
    await rooms.put(repository, child)
    await assert_invariants(rooms, sparse=True)
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", digest_of(child.blobs[0]))
    with pytest.raises(ManifestReferenced):
        await rooms.manifests.delete(repository, child.digest)


async def test_foreign_layers_need_not_be_here(rooms: Rooms):
    repository = await rooms.make_repository()
    foreign = descriptor(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"far away", urls=["https://example.com/x"]
    )
    plain = make_image(docker=True)
    manifest = json.loads(plain.payload)
    manifest["layers"].insert(0, foreign)
    image = Image(json.dumps(manifest).encode(), plain.media_type, plain.blobs)
    await rooms.push(repository, image, "latest")
    assert (await rooms.manifests.get("acme/app", "latest")).payload == image.payload
    await assert_invariants(rooms)


async def test_a_layer_named_twice_is_one_reference(rooms: Rooms):
    repository = await rooms.make_repository()
    plain = make_image()
    manifest = json.loads(plain.payload)
    manifest["layers"] *= 3
    await rooms.push(repository, Image(json.dumps(manifest).encode(), OCI_MANIFEST, plain.blobs), "latest")
    assert await rooms.count("manifest_references") == 2


# --- tags ----------------------------------------------------------------------------------------------------


async def test_a_tag_moves_and_queues_what_it_left(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    first = await rooms.push(repository, make_image(), "latest")
    assert await reviews(rooms) == {first: None}
    second = await rooms.push(repository, make_image(), "latest")
    assert await tags(rooms) == {"latest": second}
    assert await reviews(rooms) == {first: 72, second: None}
    await assert_invariants(rooms)


async def test_pushing_a_manifest_again_under_its_tag_changes_nothing(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, "latest")
    before = await rooms.query("SELECT * FROM tags"), await rooms.query("SELECT * FROM manifests")
    await rooms.put(repository, image, "latest", author="bob")
    assert (await rooms.query("SELECT * FROM tags"), await rooms.query("SELECT * FROM manifests")) == before
    assert await reviews(rooms) == {digest: None}


async def test_several_tags_come_with_one_push(rooms: Rooms):
    repository = await rooms.make_repository()
    old = await rooms.push(repository, make_image(), "b", "c")
    new = await rooms.push(repository, make_image(), "c", "a", "d", "a")
    assert await tags(rooms) == {"a": new, "b": old, "c": new, "d": new}
    assert await reviews(rooms) == {old: 168, new: None}
    await assert_invariants(rooms)


async def test_what_a_tag_left_is_queued_even_if_another_tag_holds_it(rooms: Rooms):
    # A collector looks, and sees that it is held: nothing else knows without counting.
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, "a", "b")
    await rooms.manifests.delete_tag(repository, "a")
    assert (await reviews(rooms))[digest] == 168
    assert await tags(rooms) == {"b": digest}


async def test_a_moved_tag_has_a_new_author_and_time_and_keeps_when_it_was_made(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push(repository, make_image(), "latest", author="ada")
    await rooms.change("UPDATE tags SET created_at = 1, updated_at = 1")
    await rooms.push(repository, make_image(), "latest", author="bob")
    ((author, created_at, updated_at),) = await rooms.query("SELECT author, created_at, updated_at FROM tags")
    assert (author, created_at) == ("bob", 1)
    assert updated_at > 1


async def test_an_immutable_tag_takes_its_own_manifest_and_no_other(rooms: Rooms):
    repository = await rooms.make_repository(immutable_tags=True)
    image, other = make_image(), make_image()
    digest = await rooms.push(repository, image, "v1", "v2")
    await rooms.put(repository, image, "v1")
    await rooms.put(repository, image, "v3")
    with pytest.raises(TagImmutable) as refused:
        await rooms.push(repository, other, "v0", "v2")
    assert refused.value.tag == "v2"
    assert await tags(rooms) == {"v1": digest, "v2": digest, "v3": digest}
    assert other.digest not in await reviews(rooms)
    await rooms.manifests.delete_tag(repository, "v2")
    await rooms.put(repository, other, "v2")
    await assert_invariants(rooms)


async def test_a_tag_limit_pushes_out_the_oldest(rooms: Rooms):
    repository = await rooms.make_repository(tag_limit=2)
    images = [make_image() for _ in range(4)]
    for number, image in enumerate(images):
        await rooms.push(repository, image, f"v{9 - number}")
        await rooms.change("UPDATE tags SET created_at = created_at - 1000")
    assert set(await tags(rooms)) == {"v7", "v6"}
    assert await reviews(rooms) == {
        images[0].digest: 168, images[1].digest: 168, images[2].digest: None, images[3].digest: None
    }  # fmt: skip
    await assert_invariants(rooms)


async def test_a_tag_limit_counts_several_tags_of_one_push(rooms: Rooms):
    repository = await rooms.make_repository(tag_limit=3)
    for number in range(3):
        await rooms.push(repository, make_image(), f"old{number}")
        await rooms.change("UPDATE tags SET created_at = created_at - 1000")
    await rooms.push(repository, make_image(), "a", "b")
    assert set(await tags(rooms)) == {"a", "b", "old2"}
    await rooms.push(repository, make_image(), "a", "old2")
    assert set(await tags(rooms)) == {"a", "b", "old2"}


async def test_a_tag_that_moves_does_not_push_out_another(rooms: Rooms):
    repository = await rooms.make_repository(tag_limit=2)
    for tag in ("a", "b", "a", "b", "a"):
        await rooms.push(repository, make_image(), tag)
    assert set(await tags(rooms)) == {"a", "b"}


async def test_a_tag_limit_set_later_holds_from_the_next_push(rooms: Rooms):
    repository = await rooms.make_repository()
    for number in range(6):
        await rooms.push(repository, make_image(), f"v{number}")
        await rooms.change("UPDATE tags SET created_at = created_at - 1000")
    await rooms.repositories.update("acme/app", tag_limit=2)
    assert len(await tags(rooms)) == 6
    await rooms.push(repository, make_image(), "v6")
    assert set(await tags(rooms)) == {"v5", "v6"}
    await assert_invariants(rooms)


async def test_a_tag_limit_holds_for_pushes_at_once(rooms: Rooms):
    repository = await rooms.make_repository(tag_limit=3)
    hosts = [rooms, rooms.another(), rooms.another()]
    images = [make_image() for _ in range(12)]
    for image in images:
        await rooms.push(repository, image)
    await asyncio.gather(
        *(hosts[n % 3].put(repository, image, f"v{n}", f"w{n}") for n, image in enumerate(images))
    )
    assert len(await tags(rooms)) == 3
    await assert_invariants(rooms)


# --- keeping -------------------------------------------------------------------------------------------------


async def test_an_untagged_manifest_has_a_date_and_a_push_of_it_makes_that_later(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image)
    assert await reviews(rooms) == {digest: 72}
    await set_review(rooms, digest, 5)
    await rooms.put(repository, image)
    assert await reviews(rooms) == {digest: 72}
    await set_review(rooms, digest, 500)
    await rooms.put(repository, image)
    assert await reviews(rooms) == {digest: 500}


async def test_untagged_manifests_stay_at_least_as_long_as_a_promise(make_rooms):
    rooms = make_rooms(lifetimes=Lifetimes(lease=10 * HOUR, slack=2 * HOUR, untagged_after=HOUR))
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image())
    assert await reviews(rooms) == {digest: 12}


@pytest.mark.parametrize(("hours", "cost", "after"), [(10.1, (1, 0), 10), (9.9, (1, 1), 72), (-5, (1, 1), 72)])
async def test_reading_by_digest_promises_one_lease(make_rooms, hours: float, cost, after: int):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image())
    await set_review(rooms, digest, hours)
    counter = Counter().watch(rooms.database)
    await rooms.manifests.get("acme/app", digest)
    assert counter.seen == cost
    assert await reviews(rooms) == {digest: after}


async def test_reading_a_tagged_manifest_is_one_read_and_no_write(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    counter = Counter().watch(rooms.database)
    await rooms.manifests.get("acme/app", "latest")
    assert counter.seen == (1, 0)
    await rooms.manifests.get("acme/app", digest)
    assert counter.seen == (1, 0)
    await set_review(rooms, digest, -5)
    counter.reset()
    await rooms.manifests.get("acme/app", "latest")
    assert counter.seen == (1, 0)


# --- deleting ------------------------------------------------------------------------------------------------


async def test_deleting_a_tag_leaves_the_manifest_to_be_looked_at(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    await rooms.manifests.delete_tag(repository, "latest")
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/app", "latest")
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.delete_tag(repository, "latest")
    assert await reviews(rooms) == {digest: 72}
    await assert_invariants(rooms)


async def test_deleting_a_manifest_takes_its_tags_and_lets_its_blobs_go(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    image = make_image(layers=2)
    digest = await rooms.push(repository, image, "a", "b")
    await forget_reviews(rooms)
    await rooms.manifests.delete(repository, digest)
    assert await tags(rooms) == {}
    for reference in ("a", digest):
        with pytest.raises(ManifestUnknown):
            await rooms.manifests.get("acme/app", reference)
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.delete(repository, digest)
    left = await rooms.query(f"SELECT review_at - {clock(rooms)} FROM repository_blobs")
    assert [round(one / HOUR) for (one,) in left] == [12, 12, 12]
    assert await rooms.count("manifest_references") == 0
    await assert_invariants(rooms)


async def test_deleting_an_index_lets_its_children_and_referrers_go(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    child = make_image()
    index = make_index(child)
    await rooms.push(repository, index, "latest")
    artifact = make_artifact("application/x-sbom", subject=index)
    await rooms.push(repository, artifact)
    await rooms.change("UPDATE manifests SET review_at = NULL")
    with pytest.raises(ManifestReferenced) as refused:
        await rooms.manifests.delete(repository, child.digest)
    assert refused.value.index == index.digest
    await rooms.manifests.delete(repository, index.digest)
    assert await reviews(rooms) == {child.digest: 72, artifact.digest: 72}
    await rooms.manifests.delete(repository, child.digest)
    await assert_invariants(rooms)


async def test_letting_go_never_brings_a_date_forward(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    child = make_image()
    index = make_index(child)
    await rooms.push(repository, index, "latest")
    await set_review(rooms, child.digest, 500)
    await rooms.manifests.delete(repository, index.digest)
    assert await reviews(rooms) == {child.digest: 500}


async def test_a_deleted_manifest_can_be_pushed_again(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, "latest")
    await rooms.manifests.delete(repository, digest)
    await rooms.put(repository, image, "latest")
    assert await tags(rooms) == {"latest": digest}
    assert await rooms.count("manifest_references") == 2
    await assert_invariants(rooms)


async def test_deleting_in_one_repository_leaves_the_others_alone(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    image = make_image()
    digest = await rooms.push(repository, image, "latest")
    await rooms.push(other, image, "latest")
    await rooms.manifests.delete(repository, digest)
    assert (await rooms.manifests.get("acme/other", "latest")).payload == image.payload


# --- lists ---------------------------------------------------------------------------------------------------


async def test_tags_are_listed_in_the_order_of_their_bytes_in_pages(rooms: Rooms):
    repository = await rooms.make_repository()
    names = ["1.0", "1.10", "1.9", "A", "Z", "_x", "a", "a-b", "a.b", "a_b", "ab", "z"]
    random.shuffle(names)
    await rooms.push(repository, make_image(), *names)
    seen: list[str] = []
    while page := await rooms.manifests.list_tags("acme/app", after=seen[-1] if seen else "", limit=5):
        assert len(page) <= 5
        seen += page
    assert seen == sorted(names)
    assert await rooms.manifests.list_tags("acme/app", after="between", limit=2) == ["z"]


async def test_an_empty_list_differs_from_none(rooms: Rooms):
    await rooms.make_repository()
    assert await rooms.manifests.list_tags("acme/app", limit=5) == []
    assert await rooms.manifests.list_referrers("acme/app", digest_of(b"none"), limit=5) == []
    with pytest.raises(RepositoryUnknown):
        await rooms.manifests.list_tags("acme/none", limit=5)
    with pytest.raises(RepositoryUnknown):
        await rooms.manifests.list_referrers("acme/none", digest_of(b"none"), limit=5)


async def test_a_page_of_tags_or_referrers_is_two_reads(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    await rooms.push(repository, image, "latest")
    await rooms.push(repository, make_artifact("application/x-sbom", subject=image))
    counter = Counter().watch(rooms.database)
    await rooms.manifests.list_tags("acme/app", limit=5)
    assert counter.seen == (2, 0)
    await rooms.manifests.list_referrers("acme/app", image.digest, limit=5)
    assert counter.seen == (2, 0)
    await rooms.manifests.list_referrers("acme/app", image.digest, artifact_type="application/x-sbom", limit=5)
    assert counter.seen == (2, 0)


async def test_referrers_are_listed_with_what_an_index_says_of_them(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    await rooms.push(repository, image, "latest")
    artifact = make_artifact("application/x-sbom", b"x", subject=image, annotations={"k": "v", "é": "日本"})
    plain = make_image(subject=image)
    index = make_index(image, subject=image.descriptor, artifactType="application/x-bundle")
    for one in (artifact, plain, index):
        await rooms.push(repository, one)
    await rooms.push(repository, make_artifact("application/x-sbom", subject=plain))
    found = {one.digest: one for one in await rooms.manifests.list_referrers("acme/app", image.digest, limit=10)}
    assert list(found) == sorted(one.digest for one in (artifact, plain, index))
    assert found[artifact.digest].annotations == {"k": "v", "é": "日本"}
    assert found[artifact.digest].size == len(artifact.payload)
    assert {one.artifact_type for one in found.values()} == {
        "application/x-sbom", "application/vnd.oci.image.config.v1+json", "application/x-bundle"
    }  # fmt: skip
    assert found[index.digest].media_type == index.media_type


async def test_referrers_are_filtered_and_paged(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    wanted = {"application/x-a": set(), "application/x-b": set()}
    for number in range(14):
        kind = f"application/x-{'ab'[number % 2]}"
        wanted[kind].add(await rooms.push(repository, make_artifact(kind, os.urandom(8), subject=image)))
    for kind, digests in (*wanted.items(), (None, set.union(*wanted.values())), ("application/x-c", set())):
        seen: list[str] = []
        while page := await rooms.manifests.list_referrers(
            "acme/app", image.digest, artifact_type=kind, after=seen[-1] if seen else "", limit=3
        ):
            assert len(page) <= 3
            seen += [one.digest for one in page]
        assert seen == sorted(digests)


async def test_a_referrer_may_come_before_its_subject(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    early = make_artifact("application/x-sbom", subject=image)
    await rooms.push(repository, early)
    assert [one.digest for one in await rooms.manifests.list_referrers("acme/app", image.digest, limit=9)] == [
        early.digest
    ]
    await rooms.push(repository, image, "latest")
    await assert_invariants(rooms)


# --- what it costs -------------------------------------------------------------------------------------------


async def test_a_push_costs_the_same_whatever_the_number_of_layers_and_tags(rooms: Rooms):
    repository = await rooms.make_repository()
    small, large = make_image(layers=1), make_image(layers=100)
    for image in (small, large):
        await rooms.push(repository, image)
        await rooms.manifests.delete(repository, image.digest)
    counter = Counter().watch(rooms.database)

    async def cost(image: Image, *names: str) -> int:
        """The statements of a push, which is one unit."""
        counter.reset()
        await rooms.put(repository, image, *names)
        statements = counter.statements
        assert counter.seen == (0, 1)
        return statements

    usual = await cost(small, "small")
    assert usual <= 7  # one is for its events, one counts the push
    names = [f"v{n}" for n in range(50)]
    assert await cost(large, *names) == usual
    assert await cost(annotated(large, again="yes"), *names) <= usual + 3
    index = make_index(*(annotated(small, n=str(n)) for n in range(30)))
    for child in index.children:
        await rooms.put(repository, child)
    assert await cost(index, "index") <= usual + 1
    await assert_invariants(rooms)


async def test_deleting_costs_the_same_whatever_the_number_of_layers_and_tags(rooms: Rooms):
    repository = await rooms.make_repository()
    costs = []
    counter = Counter().watch(rooms.database)
    for image, names in ((make_image(), ["a"]), (make_image(layers=60), [f"v{n}" for n in range(40)])):
        digest = await rooms.push(repository, image, *names)
        counter.reset()
        await rooms.manifests.delete(repository, digest)
        costs.append(counter.statements)
    assert costs[0] == costs[1] <= 12  # one says that the summary is another
    assert await rooms.count("tags") == 0


# --- at once -------------------------------------------------------------------------------------------------


async def test_pushes_to_one_tag_at_once_leave_no_manifest_that_nobody_looks_at(rooms: Rooms):
    repository = await rooms.make_repository()
    hosts = [rooms, rooms.another(), rooms.another()]
    for number in range(8):
        plain = make_image()
        images = [annotated(plain, n=str(n)) for n in range(6)]
        for content in plain.blobs:
            await rooms.push_blob(repository, content)
        await asyncio.gather(*(hosts[n % 3].put(repository, one, f"v{number}") for n, one in enumerate(images)))
        held = (await rooms.manifests.get("acme/app", f"v{number}")).digest
        dates = await reviews(rooms)
        assert {one.digest for one in images if dates[one.digest] is None} == {held}
    await assert_invariants(rooms)


async def test_pushing_and_deleting_one_manifest_at_once_leaves_all_of_it_or_nothing(rooms: Rooms):
    repository = await rooms.make_repository()
    host = rooms.another()
    image = make_image(layers=3)
    await rooms.push(repository, image, "latest")
    for _ in range(15):
        outcomes = await asyncio.gather(
            rooms.put(repository, image, "latest"),
            host.manifests.delete(repository, image.digest),
            host.put(repository, image, "other"),
            return_exceptions=True,
        )
        assert [one for one in outcomes if isinstance(one, Exception)] == []
        await assert_invariants(rooms)
        await rooms.put(repository, image, "latest")
        assert await rooms.count("manifest_references") == 4


async def test_an_index_and_the_deletion_of_its_child_exclude_each_other(rooms: Rooms):
    repository = await rooms.make_repository()
    host = rooms.another()
    plain = make_image()
    for number in range(15):
        child = annotated(plain, n=str(number))
        await rooms.push(repository, child)
        index = make_index(child)
        put, deleted = await asyncio.gather(
            rooms.put(repository, index, f"v{number}"),
            host.manifests.delete(repository, child.digest),
            return_exceptions=True,
        )
        assert (isinstance(put, ManifestIncomplete), isinstance(deleted, ManifestReferenced)) in {
            (True, False), (False, True)
        }  # fmt: skip
        await assert_invariants(rooms)


async def test_a_manifest_and_the_deletion_of_its_blob_exclude_each_other(rooms: Rooms):
    repository = await rooms.make_repository()
    host = rooms.another()
    for number in range(15):
        image = make_image()
        for content in image.blobs:
            await rooms.push_blob(repository, content)
        put, deleted = await asyncio.gather(
            rooms.put(repository, image, f"v{number}"),
            host.blobs.delete(repository, digest_of(image.blobs[1])),
            return_exceptions=True,
        )
        assert isinstance(put, ManifestIncomplete) != (deleted is not None), (put, deleted)
        await assert_invariants(rooms)


async def test_an_immutable_tag_that_two_push_at_once_names_the_first(rooms: Rooms):
    repository = await rooms.make_repository(immutable_tags=True)
    host = rooms.another()
    for number in range(10):
        plain = make_image()
        images = [annotated(plain, n=str(n)) for n in range(2)]
        for content in plain.blobs:
            await rooms.push_blob(repository, content)
        outcomes = await asyncio.gather(
            rooms.put(repository, images[0], f"v{number}"),
            host.put(repository, images[1], f"v{number}"),
            return_exceptions=True,
        )
        assert sum(isinstance(one, TagImmutable) for one in outcomes) == 1
        won = images[0 if isinstance(outcomes[1], TagImmutable) else 1]
        assert (await tags(rooms))[f"v{number}"] == won.digest
    await assert_invariants(rooms)
