"""Small blobs are rows: as whole and as shared as those with an object, and the storage never hears of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, SlowBody, make_body

from dtr.oci import Digest
from dtr.registry import BlobUnknown, DigestMismatch, RepositoryUnknown, UploadOccupied, UploadUnknown

LIMIT = 16 * 1024


@pytest.fixture
def rooms(make_rooms: Callable[..., Rooms]) -> Rooms:
    """Rooms over files, on both databases, that keep small blobs as rows."""
    return make_rooms("filesystem", inline_limit=LIMIT)


def chunked(content: bytes):
    """A body of unknown length, which is never taken as a small one."""
    return make_body(content, length=None)


async def push(rooms: Rooms, repository: int, content: bytes, body=None) -> Digest:
    digest = Digest.of(content)
    upload = await rooms.uploads.announce(repository)
    await rooms.uploads.finish(upload, digest, body or make_body(content))
    return digest


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_a_small_blob_needs_no_object(rooms: Rooms, size: int):
    repository = await rooms.make_repository()
    content = os.urandom(size)
    digest = await push(rooms, repository, content)
    assert await rooms.read("acme/app", digest) == content
    assert (await rooms.blobs.get("acme/app", digest)).size == size
    assert await rooms.locations() == []
    assert await rooms.count("uploads") == 0
    await assert_invariants(rooms)


async def test_a_larger_one_and_one_of_unknown_length_have_an_object(rooms: Rooms):
    repository = await rooms.make_repository()
    larger, unknown = os.urandom(LIMIT + 1), os.urandom(10)
    for content, body in ((larger, None), (unknown, chunked(unknown))):
        digest = await push(rooms, repository, content, body)
        assert await rooms.read("acme/app", digest) == content
    assert len(await rooms.locations()) == 2
    assert await rooms.count("blob_contents") == 0
    await assert_invariants(rooms)


async def test_it_is_stored_by_one_unit_of_work(rooms: Rooms):
    repository = await rooms.make_repository()
    content = os.urandom(1000)
    upload = await rooms.uploads.announce(repository)
    counter = Counter().watch(rooms.database)
    await rooms.uploads.finish(upload, Digest.of(content), make_body(content))
    assert counter.seen == (0, 1)
    content = os.urandom(1000)
    await rooms.uploads.store(repository, Digest.of(content), make_body(content))
    assert counter.seen == (0, 1)


async def test_a_wrong_digest_ends_the_session_and_leaves_nothing(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    with pytest.raises(DigestMismatch):
        await rooms.uploads.finish(upload, Digest.of(b"other"), make_body(b"content"))
    with pytest.raises(DigestMismatch):
        await rooms.uploads.store(repository, Digest.of(b"other"), make_body(b"content"))
    assert await rooms.count("blobs") == await rooms.count("blob_contents") == await rooms.count("uploads") == 0


async def test_a_repeated_end_is_a_success_and_an_unknown_session_is_none(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    digest = Digest.of(b"content")
    for _ in range(2):
        assert await rooms.uploads.finish(upload, digest, make_body(b"content")) == 7
    with pytest.raises(UploadUnknown):
        await rooms.uploads.finish(upload, Digest.of(b"other"), make_body(b"other"))


async def test_a_deleted_repository_takes_none(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.repositories.delete("acme/app")
    with pytest.raises(UploadUnknown):
        await rooms.uploads.finish(upload, Digest.of(b"content"), make_body(b"content"))
    with pytest.raises(RepositoryUnknown):
        await rooms.uploads.store(repository, Digest.of(b"content"), make_body(b"content"))
    assert await rooms.count("blobs") == 0


@pytest.mark.parametrize("row_first", [True, False])
async def test_the_same_content_as_row_and_as_object_is_stored_once(rooms: Rooms, row_first: bool):
    first, second = await rooms.make_repository(), await rooms.make_repository("acme/other")
    content = os.urandom(500)
    bodies = [make_body(content), chunked(content)]
    if not row_first:
        bodies.reverse()
    digest = await push(rooms, first, content, bodies[0])
    await push(rooms, second, content, bodies[1])
    assert await rooms.count("blobs") == 1
    assert await rooms.count("blob_contents") == row_first
    for path in ("acme/app", "acme/other"):
        assert await rooms.read(path, digest) == content
    await assert_invariants(rooms)
    assert (await rooms.usage())["*"] == 500


async def test_it_goes_with_its_last_link_and_leaves_no_tombstone(rooms: Rooms):
    first, second = await rooms.make_repository(), await rooms.make_repository("acme/other")
    digest = await push(rooms, first, b"content")
    assert await rooms.blobs.mount(await rooms.blobs.get("acme/app", digest), second)
    await rooms.blobs.delete(first, digest)
    assert await rooms.read("acme/other", digest) == b"content"
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", digest, content=True)
    await rooms.blobs.delete(second, digest)
    assert await rooms.count("blobs") == await rooms.count("blob_contents") == await rooms.count("gc_objects") == 0
    assert await rooms.usage() == {}


async def test_it_heals_a_blob_whose_object_is_missing(rooms: Rooms):
    repository = await rooms.make_repository()
    content = os.urandom(50)
    digest = await push(rooms, repository, content, chunked(content))
    blob = await rooms.blobs.get("acme/app", digest)
    await rooms.storage.delete(blob.location)
    await rooms.blobs.mark_missing(blob)
    await push(rooms, repository, content)
    assert await rooms.read("acme/app", digest) == content
    assert await rooms.query("SELECT location FROM gc_objects") == [(blob.location,)]
    await assert_invariants(rooms)


async def test_many_at_once_all_succeed_and_are_stored_once(rooms: Rooms):
    peers = [rooms, rooms.another(inline_limit=LIMIT), rooms.another(inline_limit=LIMIT)]
    repositories = [await rooms.make_repository(f"acme/r{number}") for number in range(4)]
    content = os.urandom(2000)
    digest = Digest.of(content)
    await asyncio.gather(*(push(peers[number % 3], repositories[number % 4], content) for number in range(24)))
    assert await rooms.count("blobs") == await rooms.count("blob_contents") == 1
    for number in range(4):
        assert await rooms.read(f"acme/r{number}", digest) == content
    await assert_invariants(rooms)


async def test_bytes_of_a_request_that_was_overtaken_are_reclaimed(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    slow = SlowBody()
    appending = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(b"never to be used")
    digest = Digest.of(b"content")
    await rooms.uploads.finish(upload, digest, make_body(b"content"))
    slow.end()
    with pytest.raises(UploadUnknown):
        await appending
    assert await rooms.read("acme/app", digest) == b"content"
    assert await rooms.count("gc_objects") == 1
    await rooms.sweeper.sweep()
    root = rooms.storage.driver("default")._root
    assert [name for _, _, names in os.walk(root) for name in names] == []


async def test_a_session_that_has_bytes_is_not_overtaken(rooms: Rooms):
    repository = await rooms.make_repository()
    empty = await rooms.uploads.announce(repository)
    await rooms.uploads.append(empty, make_body(b"bytes"))
    with pytest.raises(UploadOccupied):
        await rooms.uploads.finish(empty, Digest.of(b"content"), make_body(b"content"))
    assert (await rooms.uploads.get(repository, empty.id)).offset == 5


async def test_the_audit_finds_content_that_is_not_what_it_was_and_a_push_heals_it(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await push(rooms, repository, b"content")
    assert await rooms.findings(content=True) == []
    for damage in ("UPDATE blob_contents SET content = :content", "DELETE FROM blob_contents"):
        await rooms.change(damage, **({"content": b"rotten!"} if ":" in damage else {}))
        ((is_damage, words),) = await rooms.findings(repair=True)
        assert is_damage
        assert digest in words
        assert await rooms.findings() == []
        with pytest.raises(BlobUnknown):
            await rooms.blobs.get("acme/app", digest)
        await push(rooms, repository, b"content")
        assert await rooms.read("acme/app", digest) == b"content"
        await assert_invariants(rooms)
