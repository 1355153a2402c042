"""Blobs as repositories hold them: reached only there, kept as promised, counted exactly."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.support.images import make_image
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, make_body

from dtr.oci import Digest
from dtr.registry import BlobReferenced, BlobUnknown, Lifetimes
from dtr.registry.lifetimes import HOUR

LIFETIMES = Lifetimes(lease=10 * HOUR, slack=2 * HOUR)


async def review_in(rooms: Rooms, repository: int, digest: str) -> int | None:
    """Hours until the link is reviewed, rounded; None: nobody needs to look."""
    ((at, now),) = await rooms.query(
        "SELECT review_at, "
        + (
            "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
            if rooms.database.dialect == "sqlite"
            else "CAST(extract(epoch FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)"
        )
        + " FROM repository_blobs WHERE repository_id = :r AND digest = :d",
        r=repository,
        d=digest,
    )
    return None if at is None else round((at - now) / HOUR)


async def set_review(rooms: Rooms, repository: int, digest: str, hours: float | None) -> None:
    """Let the review be so many hours from now."""
    await rooms.change(
        "UPDATE repository_blobs SET review_at = CASE WHEN :forget THEN NULL ELSE :change + "
        + (
            "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
            if rooms.database.dialect == "sqlite"
            else "CAST(extract(epoch FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)"
        )
        + " END WHERE repository_id = :r AND digest = :d",
        forget=hours is None,
        change=int((hours or 0) * HOUR),
        r=repository,
        d=digest,
    )


# --- reaching ------------------------------------------------------------------------------------------------


async def test_a_blob_is_reached_only_through_a_repository_that_holds_it(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.make_repository("acme/other")
    digest = await rooms.push_blob(repository, b"content")
    blob = await rooms.blobs.get("acme/app", digest)
    assert (blob.repository, blob.digest, blob.size) == (repository, digest, 7)
    for path in ("acme/other", "acme/none", "acme"):
        with pytest.raises(BlobUnknown):
            await rooms.blobs.get(path, digest)
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", Digest.of(b"other"))


async def test_reading_a_blob_is_one_read_and_no_write(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    await set_review(rooms, repository, digest, 0)
    counter = Counter().watch(rooms.database)
    await rooms.blobs.get("acme/app", digest)
    assert counter.seen == (1, 0)


# --- promises ------------------------------------------------------------------------------------------------


async def test_a_promise_on_a_link_without_date_costs_no_write(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push(repository, image := make_image(), "latest")
    digest = Digest.of(image.blobs[0])
    await set_review(rooms, repository, digest, None)
    counter = Counter().watch(rooms.database)
    await rooms.blobs.get("acme/app", digest, promise=True)
    assert counter.seen == (1, 0)
    assert await review_in(rooms, repository, digest) is None


async def test_a_promise_that_the_date_already_keeps_costs_no_write(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    counter = Counter().watch(rooms.database)
    await rooms.blobs.get("acme/app", digest, promise=True)
    assert counter.seen == (1, 0)
    await set_review(rooms, repository, digest, 10.1)
    counter.reset()
    await rooms.blobs.get("acme/app", digest, promise=True)
    assert counter.seen == (1, 0)
    assert await review_in(rooms, repository, digest) == 10


@pytest.mark.parametrize("hours", [9.9, 0, -100])
async def test_a_promise_beyond_the_date_is_kept_by_a_later_one(make_rooms, hours: float):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    await set_review(rooms, repository, digest, hours)
    counter = Counter().watch(rooms.database)
    await rooms.blobs.get("acme/app", digest, promise=True)
    assert counter.seen == (1, 1)
    assert await review_in(rooms, repository, digest) == 12


async def test_a_look_without_promise_keeps_no_garbage_alive(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    await set_review(rooms, repository, digest, 1)
    await rooms.blobs.get("acme/app", digest)
    assert await review_in(rooms, repository, digest) == 1


async def test_a_finished_upload_and_a_mount_are_promises(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    digest = await rooms.push_blob(repository, b"content")
    assert await review_in(rooms, repository, digest) == 12
    await rooms.blobs.mount(await rooms.blobs.get("acme/app", digest), other)
    assert await review_in(rooms, other, digest) == 12
    for number in (repository, other):
        await set_review(rooms, number, digest, 1)
    await rooms.push_blob(repository, b"content")
    await rooms.blobs.mount(await rooms.blobs.get("acme/app", digest), other)
    assert [await review_in(rooms, number, digest) for number in (repository, other)] == [12, 12]


async def test_what_a_manifest_holds_stays_without_date_when_it_is_pushed_again(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push(repository, image := make_image(), "latest")
    digest = Digest.of(image.blobs[0])
    await set_review(rooms, repository, digest, None)
    await rooms.push_blob(repository, image.blobs[0])
    assert await review_in(rooms, repository, digest) is None


async def test_a_promise_never_brings_a_date_forward(make_rooms):
    rooms = make_rooms(lifetimes=LIFETIMES)
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    await set_review(rooms, repository, digest, 500)
    await rooms.push_blob(repository, b"content")
    await rooms.blobs.get("acme/app", digest, promise=True)
    assert await review_in(rooms, repository, digest) == 500


# --- mounting ------------------------------------------------------------------------------------------------


async def test_a_mounted_blob_is_stored_once_and_read_through_both(stored: Rooms):
    repository, other = await stored.make_repository(), await stored.make_repository("beta/other")
    digest = await stored.push_blob(repository, b"content")
    assert await stored.blobs.mount(await stored.blobs.get("acme/app", digest), other)
    assert await stored.read("beta/other", digest) == b"content"
    assert len(await stored.locations()) == 1
    await stored.blobs.delete(repository, digest)
    assert await stored.read("beta/other", digest) == b"content"
    await assert_invariants(stored)


async def test_mounting_twice_is_mounting_once(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    digest = await rooms.push_blob(repository, b"content")
    source = await rooms.blobs.get("acme/app", digest)
    assert await rooms.blobs.mount(source, other)
    assert await rooms.blobs.mount(source, other)
    assert await rooms.blobs.mount(source, repository)
    await assert_invariants(rooms)


async def test_a_mount_of_a_blob_that_goes_away_falls_back_to_an_upload(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    digest = await rooms.push_blob(repository, b"content")
    source = await rooms.blobs.get("acme/app", digest)
    await rooms.blobs.delete(repository, digest)
    assert not await rooms.blobs.mount(source, other)
    assert await rooms.count("repository_blobs") == 0


async def test_a_mount_of_a_blob_whose_object_is_missing_falls_back_to_an_upload(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    digest = await rooms.push_blob(repository, b"content")
    source = await rooms.blobs.get("acme/app", digest)
    await rooms.blobs.mark_missing(source)
    assert not await rooms.blobs.mount(source, other)


async def test_a_mount_and_the_deletion_of_the_last_link_exclude_each_other(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    host = rooms.another()
    for number in range(15):
        content = b"%d" % number
        digest = await rooms.push_blob(repository, content)
        source = await rooms.blobs.get("acme/app", digest)
        mounted, _ = await asyncio.gather(host.blobs.mount(source, other), rooms.blobs.delete(repository, digest))
        if mounted:
            assert await rooms.read("acme/other", digest) == content
        else:
            with pytest.raises(BlobUnknown):
                await rooms.blobs.get("acme/other", digest)
        await assert_invariants(rooms)


# --- deleting ------------------------------------------------------------------------------------------------


async def test_the_last_link_takes_the_blob_along_and_its_object_goes_after_the_delay(make_rooms):
    rooms = make_rooms("filesystem", lifetimes=Lifetimes(delete_delay=HOUR))
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    blob = await rooms.blobs.get("acme/app", digest)
    await rooms.blobs.delete(repository, digest)
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", digest)
    with pytest.raises(BlobUnknown):
        await rooms.blobs.delete(repository, digest)
    assert await rooms.count("blobs") == 0
    await rooms.sweeper.sweep()
    assert await rooms.locations() == [blob.location], "a pull may still read it"
    await rooms.change("UPDATE gc_objects SET delete_after = delete_after - 3600000")
    assert (await rooms.sweeper.sweep()).size == 7
    assert await rooms.locations() == []
    assert await rooms.count("gc_objects") == 0


async def test_a_blob_that_a_manifest_needs_is_not_deleted(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    image = make_image()
    digest = await rooms.push(repository, image, "latest")
    await rooms.push_blob(other, image.blobs[1])
    for content in image.blobs:
        with pytest.raises(BlobReferenced) as refused:
            await rooms.blobs.delete(repository, Digest.of(content))
        assert refused.value.manifest == digest
    await rooms.blobs.delete(other, Digest.of(image.blobs[1]))
    await rooms.manifests.delete(repository, digest)
    for content in image.blobs:
        await rooms.blobs.delete(repository, Digest.of(content))
    assert await rooms.count("blobs") == 0
    await assert_invariants(rooms)


async def test_a_blob_pushed_again_after_its_deletion_gets_a_new_object(stored: Rooms):
    repository = await stored.make_repository()
    digest = await stored.push_blob(repository, b"content")
    before = await stored.blobs.get("acme/app", digest)
    await stored.blobs.delete(repository, digest)
    await stored.push_blob(repository, b"content")
    after = await stored.blobs.get("acme/app", digest)
    assert after.location != before.location
    await stored.make_due()
    await stored.sweeper.sweep()
    assert await stored.read("acme/app", digest) == b"content"
    assert await stored.locations() == [after.location]


async def test_marking_as_missing_concerns_only_the_object_that_was_looked_for(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    seen = await rooms.blobs.get("acme/app", digest)
    await rooms.blobs.mark_missing(seen)
    await rooms.push_blob(repository, b"content")
    await rooms.blobs.mark_missing(seen)
    assert await rooms.read("acme/app", digest) == b"content"


# --- counting ------------------------------------------------------------------------------------------------


async def test_a_blob_counts_once_in_each_repository_each_namespace_and_the_whole(rooms: Rooms):
    repositories = {
        path: await rooms.make_repository(path) for path in ("acme/a", "acme/b", "acme/c", "beta/a", "beta/b")
    }
    ids = {name: number for number, name in await rooms.query("SELECT id, name FROM accounts")}

    async def usage(**expected: int) -> None:
        seen = await rooms.usage()
        names = {f"repository:{number}": path for path, number in repositories.items()}
        names |= {f"namespace:{ids[name]}": name for name in ("acme", "beta")} | {"*": "*"}
        assert {names[scope]: size for scope, size in seen.items()} == expected
        await assert_invariants(rooms)

    digest = await rooms.push_blob(repositories["acme/a"], b"12345")
    await usage(**{"acme/a": 5, "acme": 5, "*": 5})
    await rooms.push_blob(repositories["acme/a"], b"12345")
    await usage(**{"acme/a": 5, "acme": 5, "*": 5})
    await rooms.push_blob(repositories["acme/b"], b"12345")
    await usage(**{"acme/a": 5, "acme/b": 5, "acme": 5, "*": 5})
    source = await rooms.blobs.get("acme/a", digest)
    await rooms.blobs.mount(source, repositories["beta/a"])
    await rooms.push_blob(repositories["beta/b"], b"1234567")
    await usage(**{"acme/a": 5, "acme/b": 5, "acme": 5, "beta/a": 5, "beta/b": 7, "beta": 12, "*": 12})
    await rooms.blobs.delete(repositories["acme/a"], digest)
    await usage(**{"acme/b": 5, "acme": 5, "beta/a": 5, "beta/b": 7, "beta": 12, "*": 12})
    await rooms.blobs.delete(repositories["acme/b"], digest)
    await usage(**{"beta/a": 5, "beta/b": 7, "beta": 12, "*": 12})
    await rooms.blobs.delete(repositories["beta/a"], digest)
    await usage(**{"beta/b": 7, "beta": 7, "*": 7})
    await rooms.blobs.delete(repositories["beta/b"], Digest.of(b"1234567"))
    await usage()


async def test_counts_are_exact_after_many_links_and_unlinks_at_once(rooms: Rooms):
    hosts = [rooms, rooms.another(), rooms.another()]
    paths = [f"{namespace}/{name}" for namespace in ("acme", "beta") for name in "abc"]
    repositories = {path: await rooms.make_repository(path) for path in paths}
    contents = [bytes([number]) * (number + 1) for number in range(5)]

    async def work(seed: int) -> None:
        choose = random.Random(seed)
        host = hosts[seed % len(hosts)]
        for _ in range(12):
            path, content = choose.choice(paths), choose.choice(contents)
            digest = Digest.of(content)
            try:
                match choose.randrange(3):
                    case 0:
                        await host.push_blob(repositories[path], content)
                    case 1:
                        await host.blobs.delete(repositories[path], digest)
                    case 2:
                        source = await host.blobs.get(choose.choice(paths), digest)
                        await host.blobs.mount(source, repositories[path])
            except BlobUnknown:
                pass

    await asyncio.gather(*(work(seed) for seed in range(9)))
    await assert_invariants(rooms)


async def test_the_costs_of_linking_do_not_grow(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.start(repository)
    counter = Counter().watch(rooms.database)
    await rooms.uploads.store(repository, Digest.of(b"other"), make_body(b"other"))
    assert counter.statements <= 1 + 5
    counter.reset()
    await rooms.uploads.finish(upload, Digest.of(b"content"), make_body(b"content"))
    assert counter.statements <= 1 + 5
    other = await rooms.make_repository("acme/other")
    source = await rooms.blobs.get("acme/app", Digest.of(b"content"))
    counter.reset()
    await rooms.blobs.mount(source, other)
    assert counter.seen == (0, 1)
