"""Uploads that are announced and not begun: nothing is written for them, and they are sessions like any other."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, SlowBody, make_body

from dtr.db import DatabaseUnavailable
from dtr.oci import Digest
from dtr.registry import (
    SMALL,
    BlobTooLarge,
    BodyFailed,
    DigestMismatch,
    Lifetimes,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
    _upload_ids,
    sweeper,
)

LIMIT = 16 * 1024
WHOLE = [100, SMALL, SMALL + 1]
"""Sizes of bodies: a row, an object at once, an object by way of a file or of pieces."""


@pytest.fixture(params=["memory", "filesystem", "s3"])
def rooms(request: pytest.FixtureRequest, make_rooms) -> Rooms:
    """Rooms over three storages and both databases, which keep small blobs as rows."""
    return make_rooms(request.param, inline_limit=LIMIT)


async def is_unknown(rooms: Rooms, upload) -> bool:
    """Whether every request is told that there is no such session, also one that looked before it ended."""
    content = os.urandom(10)
    for work in (
        rooms.upload_again(upload),
        rooms.uploads.append(upload, make_body(b"more")),
        rooms.uploads.finish(upload, Digest.of(content), make_body(content)),
        rooms.uploads.finish(upload, Digest.of(content), make_body(content, length=-1)),
        rooms.uploads.cancel(upload),
    ):
        with pytest.raises(UploadUnknown):
            await work
    return True


async def test_announcing_writes_nothing_and_asks_nothing(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.uploads.announce(repository)  # the first one of a process needs the key
    counter = Counter().watch(rooms.database)
    await rooms.uploads.announce(repository)
    assert counter.seen == (0, 0)
    assert await rooms.count("uploads") == await rooms.count("used_upload_ids") == 0
    assert await rooms.locations() == []


async def test_a_small_blob_costs_no_look_and_one_unit_altogether(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.uploads.announce(repository)
    counter = Counter().watch(rooms.database)
    upload = await rooms.uploads.announce(repository)
    await rooms.uploads.finish_named(repository, upload.id, Digest.of(b"content"), make_body(b"content"))
    assert counter.seen == (0, 1)


# --- the last request, by the id alone -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, *WHOLE])
async def test_all_of_a_blob_with_the_last_request(rooms: Rooms, size: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    content = os.urandom(size)
    digest = Digest.of(content)
    assert await rooms.uploads.finish_named(repository, upload.id, digest, make_body(content), start=0) == size
    assert await rooms.read("acme/app", digest) == content
    assert await is_unknown(rooms, upload)
    await assert_invariants(rooms)


@pytest.mark.parametrize("first", [1, 100, SMALL + 1])
@pytest.mark.parametrize("last", WHOLE)
async def test_the_rest_of_a_blob_with_the_last_request(rooms: Rooms, first: int, last: int):
    """A small rest is no small blob, and is read once more when that is seen."""
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    content = os.urandom(first + last)
    await rooms.uploads.append(upload, make_body(content[:first]))
    host = rooms.another(inline_limit=LIMIT)
    body = make_body(content[first:])
    assert await host.uploads.finish_named(repository, upload.id, Digest.of(content), body) == first + last
    assert await rooms.read("acme/app", Digest.of(content)) == content
    await assert_invariants(rooms)


async def test_a_rest_that_is_a_blob_by_itself_is_a_wrong_digest(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.uploads.append(upload, make_body(b"first "))
    with pytest.raises(DigestMismatch):
        await rooms.uploads.finish_named(repository, upload.id, Digest.of(b"last"), make_body(b"last"))
    assert await is_unknown(rooms, upload)
    await rooms.sweeper.sweep()
    assert await rooms.count("blobs") == 0
    assert await rooms.locations() == []


@pytest.mark.parametrize("size", WHOLE)
async def test_a_wrong_digest_with_the_last_request_ends_it(rooms: Rooms, size: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    with pytest.raises(DigestMismatch):
        await rooms.uploads.finish_named(repository, upload.id, Digest.of(b"x"), make_body(os.urandom(size)))
    assert await is_unknown(rooms, upload)
    assert await rooms.count("blobs") == 0


async def test_an_id_that_was_used_stores_nothing(rooms: Rooms):
    """Whoever got no answer may repeat the request; nobody gets another blob with it."""
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    upload = await rooms.uploads.announce(repository)
    digest = Digest.of(b"content")
    for _ in range(2):
        assert await rooms.uploads.finish_named(repository, upload.id, digest, make_body(b"content")) == 7
    cancelled, forged = await rooms.uploads.announce(repository), "00000000-0000-8000-8000-000000000000"
    await rooms.uploads.cancel(cancelled)
    for number in (upload.id, cancelled.id, forged):
        for where, content in ((repository, b"another"), (other, b"content")):
            with pytest.raises(UploadUnknown):
                await rooms.uploads.finish_named(where, number, Digest.of(content), make_body(content))
    assert await rooms.query("SELECT digest FROM blobs") == [(digest,)]


async def test_of_several_last_requests_with_one_id_all_get_the_same_blob_or_none(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    contents = [os.urandom(100) for _ in range(4)]
    found = await asyncio.gather(
        *(
            host.uploads.finish_named(repository, upload.id, Digest.of(content), make_body(content))
            for content in contents
            for host in (rooms, rooms.another(inline_limit=LIMIT))
        ),
        return_exceptions=True,
    )
    stored = [number for number, one in enumerate(found) if one == 100]
    assert 1 <= len(stored) <= 2
    assert len({number // 2 for number in stored}) == 1
    assert all(isinstance(one, UploadUnknown) for one in found if one != 100)
    assert await rooms.count("blobs") == 1
    await assert_invariants(rooms)


async def test_a_deleted_repository_gets_no_blob(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.repositories.delete("acme/app")
    with pytest.raises(UploadUnknown):
        await rooms.uploads.finish_named(repository, upload.id, Digest.of(b"content"), make_body(b"content"))


@pytest.mark.parametrize("is_same", [True, False])
async def test_of_two_last_requests_at_once_one_stores(rooms: Rooms, is_same: bool):
    """And the other one hears that it is stored, when it brought the same."""
    repository = await rooms.make_repository()
    hosts = [rooms, rooms.another(inline_limit=LIMIT)]
    for number in range(10):
        upload = await rooms.uploads.announce(repository)
        contents = [b"%03d" % number, b"%03d" % (number if is_same else number + 500)]
        outcomes = await asyncio.gather(
            *(
                host.uploads.finish_named(repository, upload.id, Digest.of(one), make_body(one))
                for host, one in zip(hosts, contents, strict=True)
            ),
            return_exceptions=True,
        )
        assert sorted(map(str, map(type, outcomes))) == sorted(map(str, [int, int if is_same else UploadUnknown]))
    assert await rooms.count("blobs") == await rooms.count("used_upload_ids") == 10
    assert await rooms.query("SELECT count(*) FROM repository_blobs") == [(10,)]
    await assert_invariants(rooms)


async def test_all_of_a_blob_while_another_request_sends_bytes(rooms: Rooms):
    """Where there are files the other one finds its session gone; elsewhere it has its turn, and goes on."""
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    slow = SlowBody()
    appending = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(b"mine")
    stored = rooms.another(inline_limit=LIMIT).uploads.finish_named(
        repository, upload.id, Digest.of(b"content"), make_body(b"content")
    )
    (location,) = (await rooms.query("SELECT location FROM uploads"))[0]
    if rooms.storage.has_files(location):
        assert await stored == 7
        slow.end()
        with pytest.raises(UploadUnknown):
            await appending
        assert await rooms.read("acme/app", Digest.of(b"content")) == b"content"
        assert await is_unknown(rooms, upload)
        await rooms.sweeper.sweep()
        assert await rooms.locations() == []
    else:
        with pytest.raises(UploadOccupied):
            await stored
        slow.end()
        assert (await appending).offset == 4
        last = rooms.uploads.finish_named(repository, upload.id, Digest.of(b"mine too"), make_body(b" too"))
        assert await last == 8
    await assert_invariants(rooms)


@pytest.mark.parametrize("first", [0, 5])
async def test_a_last_request_that_breaks_off_leaves_it_as_it_was(rooms: Rooms, first: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    content = os.urandom(100)
    if first:
        await rooms.uploads.append(upload, make_body(content[:first]))
    rest = content[first:]
    broken = make_body(rest[:50], length=len(rest), cut=True)
    with pytest.raises(BodyFailed):
        await rooms.uploads.finish_named(repository, upload.id, Digest.of(content), broken)
    seen = await rooms.upload_again(upload)
    assert (seen.offset, seen.is_begun) == (first, first > 0)
    assert await rooms.uploads.finish_named(repository, upload.id, Digest.of(content), make_body(rest)) == 100
    assert await rooms.read("acme/app", Digest.of(content)) == content
    await assert_invariants(rooms)


@pytest.mark.parametrize("first", [0, 5])
async def test_the_last_request_may_name_a_digest_of_another_kind(rooms: Rooms, first: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    content = os.urandom(100)
    digest = Digest.of(content, "sha512")
    if first:
        await rooms.uploads.append(upload, make_body(content[:first]))
    last = make_body(content[first:])
    assert await rooms.uploads.finish_named(repository, upload.id, digest, last) == 100
    assert await rooms.read("acme/app", digest) == content
    await assert_invariants(rooms)


@pytest.mark.parametrize("length", [None, -1])
@pytest.mark.parametrize("start", [None, 0, 5])
async def test_a_place_in_the_last_request_holds(rooms: Rooms, start: int | None, length: int | None):
    """Whether the length was announced or not, and whether or not the body is a blob by itself."""
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    digest = Digest.of(b"content")
    last = rooms.uploads.finish_named(
        repository, upload.id, digest, make_body(b"content", length=length), start=start
    )
    if start:
        with pytest.raises(UploadOutOfOrder):
            await last
        assert (await rooms.upload_again(upload)).offset == 0
    else:
        assert await last == 7
        assert await rooms.read("acme/app", digest) == b"content"
    await assert_invariants(rooms)


async def test_a_limit_below_that_of_rows_holds(make_rooms):
    rooms = make_rooms("filesystem", inline_limit=LIMIT, blob_limit=10)
    repository = await rooms.make_repository()
    for content in (b"0123456789", b"0123456789a"):
        upload = await rooms.uploads.announce(repository)
        stored = rooms.uploads.finish_named(repository, upload.id, Digest.of(content), make_body(content))
        if len(content) > 10:
            with pytest.raises(BlobTooLarge):
                await stored
        else:
            assert await stored == 10


# --- sessions like any other ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", WHOLE)
async def test_another_process_knows_it_and_takes_its_bytes(rooms: Rooms, size: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    content = os.urandom(size)
    digest = Digest.of(content)
    host = rooms.another(inline_limit=LIMIT)
    seen = await host.upload_again(upload)
    assert (seen.offset, seen.algorithm, seen.is_begun) == (0, "sha256", False)
    assert await host.uploads.finish(seen, digest, make_body(content)) == size
    assert await rooms.read("acme/app", digest) == content
    assert await is_unknown(rooms, upload)
    assert await rooms.count("uploads") == 0
    await assert_invariants(rooms)


async def test_the_first_bytes_begin_it_and_another_process_goes_on(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.uploads.append(upload, make_body(b"one "))
    assert await rooms.query("SELECT id FROM uploads") == [(upload.id,)]
    host = rooms.another()
    seen = await host.upload_again(upload)
    assert (seen.offset, seen.is_begun) == (4, True)
    await host.uploads.append(upload, make_body(b"two "), start=4)  # as it was seen before it had begun
    digest = Digest.of(b"one two three")
    await rooms.uploads.finish(await rooms.upload_again(upload), digest, make_body(b"three"))
    assert await rooms.read("acme/app", digest) == b"one two three"
    assert await is_unknown(rooms, upload)
    await assert_invariants(rooms)


async def test_a_first_chunk_that_begins_later_is_refused_and_it_goes_on(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    with pytest.raises(UploadOutOfOrder):
        await rooms.uploads.append(upload, make_body(b"late"), start=5)
    upload = await rooms.uploads.append(await rooms.upload_again(upload), make_body(b"first"), start=0)
    assert upload.offset == 5


@pytest.mark.parametrize("size", WHOLE)
async def test_a_wrong_digest_ends_it_and_leaves_nothing(rooms: Rooms, size: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    with pytest.raises(DigestMismatch):
        await rooms.uploads.finish(upload, Digest.of(b"other"), make_body(os.urandom(size)))
    assert await is_unknown(rooms, upload)
    await rooms.sweeper.sweep()
    assert await rooms.count("blobs") == await rooms.count("uploads") == 0
    assert await rooms.locations() == []


@pytest.mark.parametrize("size", WHOLE)
async def test_a_body_that_breaks_off_does_not_end_it(rooms: Rooms, size: int):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    content = os.urandom(size)
    with pytest.raises(BodyFailed):
        await rooms.uploads.finish(upload, Digest.of(content), make_body(content[:50], length=size, cut=True))
    upload = await rooms.upload_again(upload)
    assert await rooms.uploads.finish(upload, Digest.of(content), make_body(content[upload.offset :])) == size
    assert await rooms.read("acme/app", Digest.of(content)) == content


async def test_one_that_was_cancelled_is_unknown(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.another().uploads.cancel(upload)
    assert await is_unknown(rooms, upload)
    assert await rooms.count("gc_objects") == 0, "there is nothing to delete"
    begun = await rooms.uploads.announce(repository)
    await rooms.uploads.append(begun, make_body(b"bytes"))
    await rooms.uploads.cancel(begun)  # as it was seen before
    assert await is_unknown(rooms, begun)
    await assert_invariants(rooms)


async def test_it_is_good_for_its_repository_alone(rooms: Rooms):
    mine, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    upload = await rooms.uploads.announce(mine)
    with pytest.raises(UploadUnknown):
        await rooms.uploads.get(other, upload.id)
    await rooms.uploads.append(upload, make_body(b"bytes"))
    with pytest.raises(UploadUnknown):
        await rooms.uploads.get(other, upload.id)
    assert (await rooms.uploads.get(mine, upload.id)).offset == 5


async def test_one_that_nobody_announced_is_unknown(rooms: Rooms):
    repository = await rooms.make_repository()
    forged = _upload_ids.make_id(b"another key", repository, int(time.time()) + 3600)
    with pytest.raises(UploadUnknown):
        await rooms.uploads.get(repository, forged)


async def test_it_expires(make_rooms):
    rooms = make_rooms(lifetimes=Lifetimes(upload_ttl=0))
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    with pytest.raises(UploadUnknown):
        await rooms.upload_again(upload)


async def test_a_deleted_repository_takes_none(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.repositories.delete("acme/app")
    again = await rooms.make_repository()
    with pytest.raises(UploadUnknown):
        await rooms.uploads.finish(upload, Digest.of(b"content"), make_body(b"content"))
    with pytest.raises(UploadUnknown):
        await rooms.uploads.append(upload, make_body(b"content"))
    with pytest.raises(UploadUnknown):
        await rooms.uploads.get(again, upload.id)
    assert await rooms.count("blobs") == await rooms.count("uploads") == await rooms.count("used_upload_ids") == 0


async def test_it_begins_in_the_storage_that_its_namespace_has_by_then(make_rooms):
    rooms = make_rooms()
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    await rooms.storage.put("fast", rooms.storage.driver("default"))
    rooms.storage.assigned = {(await rooms.query("SELECT namespace_id FROM repositories"))[0][0]: "fast"}
    upload = await rooms.uploads.append(upload, make_body(b"bytes"))
    assert upload.state.location.startswith("fast:")


async def test_of_two_that_end_it_one_does(rooms: Rooms):
    repository = await rooms.make_repository()
    hosts = [rooms, rooms.another(inline_limit=LIMIT)]
    for _ in range(10):
        upload = await rooms.uploads.announce(repository)
        contents = [os.urandom(10), os.urandom(10)]
        outcomes = await asyncio.gather(
            *(
                host.uploads.finish(upload, Digest.of(one), make_body(one))
                for host, one in zip(hosts, contents, strict=True)
            ),
            return_exceptions=True,
        )
        assert sorted(map(type, outcomes), key=str) == [UploadUnknown, int]
    assert await rooms.count("blobs") == 10
    await assert_invariants(rooms)


async def test_of_two_that_begin_it_one_is_refused_until_the_other_is_done(rooms: Rooms):
    repository = await rooms.make_repository()
    upload = await rooms.uploads.announce(repository)
    slow = SlowBody()
    appending = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(b"mine")
    with pytest.raises(UploadOccupied):
        await rooms.another().uploads.append(upload, make_body(b"yours"))
    slow.end()
    assert (await appending).offset == 4
    assert await rooms.count("uploads") == 1
    await assert_invariants(rooms)


async def test_it_is_begun_and_ended_when_the_database_forgot_that_it_did_so(rooms: Rooms, monkeypatch):
    """A connection that is lost at the commit: the unit runs again, on what it did the first time."""
    repository = await rooms.make_repository()
    unit = rooms.database.unit

    async def twice(work, **how):
        await unit(work, **how)
        return await unit(work, **how)

    begun, small = [await rooms.uploads.announce(repository) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(rooms.database, "unit", twice)
        begun = await rooms.uploads.append(begun, make_body(b"bytes"))
        with pytest.raises(UploadUnknown):  # as for any other: nobody knows who cancelled it before
            await rooms.uploads.cancel(await rooms.uploads.announce(repository))
    assert begun.offset == 5

    async def lost(work, **how):
        await unit(work, **how)
        raise DatabaseUnavailable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(rooms.database, "unit", lost)
        with pytest.raises(DatabaseUnavailable):
            await rooms.uploads.finish(small, Digest.of(b"content"), make_body(b"content"))
    assert await rooms.uploads.finish(small, Digest.of(b"content"), make_body(b"content")) == 7
    await assert_invariants(rooms)


async def test_all_processes_make_one_key(make_rooms):
    rooms = make_rooms()
    repository = await rooms.make_repository()
    hosts = [rooms.another() for _ in range(5)]
    uploads = await asyncio.gather(*(host.uploads.announce(repository) for host in hosts))
    assert await rooms.count("shared_keys") == 1
    for upload in uploads:
        for host in hosts:
            assert await host.upload_again(upload) == upload


async def test_used_ids_are_forgotten_when_they_could_not_be_used_again(make_rooms, monkeypatch):
    monkeypatch.setattr(sweeper, "_IDS_BATCH", 3)
    rooms = make_rooms(inline_limit=LIMIT)
    repository = await rooms.make_repository()
    living = await rooms.uploads.announce(repository)
    await rooms.uploads.append(living, make_body(b"bytes"))
    for _ in range(7):
        await rooms.uploads.cancel(await rooms.uploads.announce(repository))

    async def sweep(ahead: float) -> int:
        then = time.time() + ahead
        with monkeypatch.context() as patch:
            patch.setattr(sweeper.time, "time", lambda: then)
            return (await rooms.sweeper.sweep()).ids

    day = rooms.lifetimes.upload_ttl / 1000
    assert await sweep(day + 3000) == 0, "a clock may be wrong"
    found = []
    while found[-1:] != [0]:
        found.append(await sweep(day + 3700))
    assert sum(found) == 7
    assert await rooms.query("SELECT id FROM used_upload_ids") == [(living.id,)], "it goes on"
    assert (await rooms.upload_again(living)).offset == 5
    await rooms.expire_uploads()
    assert (await rooms.sweeper.sweep()).uploads == 1
    assert await sweep(day + 3700) == 1
    assert await rooms.count("used_upload_ids") == 0
