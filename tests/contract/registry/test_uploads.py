"""Upload sessions: whatever happens on the way, a blob is whole and visible, or not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import time

import pytest
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, SlowBody, make_body

from dtr.db import DatabaseError
from dtr.oci import Digest
from dtr.registry import (
    SMALL,
    BlobTooLarge,
    BlobUnknown,
    BodyFailed,
    DigestMismatch,
    Lifetimes,
    RepositoryUnknown,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
)
from dtr.storage import ObjectMissing, StorageFull

MIB = 1024 * 1024
SIZES = [0, 1, SMALL, SMALL + 1, 3 * MIB + 7]


@pytest.fixture(params=["memory", "filesystem", "shared files"])
def stored(request: pytest.FixtureRequest, make_rooms) -> Rooms:
    """Rooms over memory, over files, and over files that other hosts have, too, on both databases."""
    return make_rooms(request.param)


async def begin(rooms: Rooms, path: str = "acme/app", **how):
    repository = await rooms.make_repository(path)
    if how:
        return repository, await rooms.uploads.start(repository, **how)
    return repository, await rooms.uploads.announce(repository)  # as clients do


def pieces(content: bytes, size: int = 256 * 1024) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


# --- one after another ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_a_blob_sent_with_the_closing_request_is_read_back(stored: Rooms, size: int):
    _repository, upload = await begin(stored)
    content = os.urandom(size)
    digest = Digest.of(content)
    assert await stored.uploads.finish(upload, digest, make_body(content)) == size
    assert await stored.read("acme/app", digest) == content
    await assert_invariants(stored)


@pytest.mark.parametrize("size", SIZES)
async def test_a_blob_sent_with_a_single_request_is_read_back(stored: Rooms, size: int):
    repository = await stored.make_repository()
    content = os.urandom(size)
    digest = Digest.of(content)
    assert await stored.uploads.store(repository, digest, make_body(content)) == size
    assert await stored.read("acme/app", digest) == content
    await assert_invariants(stored)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("sizes", [(5, 0, 7), (SMALL + 1, 1, 2 * MIB), (1, MIB + 1)])
async def test_a_blob_sent_in_chunks_is_read_back(stored: Rooms, sizes: tuple[int, ...], announced: bool):
    _repository, upload = await begin(stored)
    chunks = [os.urandom(size) for size in sizes]
    for chunk in chunks:
        before = upload.offset
        upload = await stored.uploads.append(
            upload, make_body(chunk, length=-1 if announced else None), start=before
        )
        assert upload.offset == before + len(chunk)
    digest = Digest.of(b"".join(chunks))
    assert await stored.uploads.finish(upload, digest, make_body()) == sum(sizes)
    assert await stored.read("acme/app", digest) == b"".join(chunks)
    await assert_invariants(stored)


async def test_the_last_chunk_may_come_with_the_closing_request(stored: Rooms):
    _repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"begin "))
    digest = Digest.of(b"begin end")
    await stored.uploads.finish(upload, digest, make_body(b"end"), start=6)
    assert await stored.read("acme/app", digest) == b"begin end"


@pytest.mark.parametrize("kind", ["memory", "filesystem", "s3"])
async def test_another_process_goes_on_from_the_saved_offset(make_rooms, kind: str):
    first = make_rooms(kind)
    _repository, upload = await begin(first)
    chunks = [os.urandom(6 * MIB), os.urandom(100), os.urandom(MIB)]
    upload = await first.uploads.append(upload, make_body(chunks[0]))
    for chunk in chunks[1:]:
        host = first.another()
        upload = await host.uploads.append(await host.upload_again(upload), make_body(chunk), start=upload.offset)
        assert upload.digest is None, "it did not see the bytes before"
    host = first.another()
    content = b"".join(chunks)
    digest = Digest.of(content)
    await host.uploads.finish(await host.upload_again(upload), digest, make_body())
    assert await first.read("acme/app", digest) == content
    await assert_invariants(first)


async def test_the_digest_is_kept_with_the_offset(stored: Rooms):
    _repository, upload = await begin(stored)
    await stored.uploads.append(upload, make_body(b"one "))
    upload = await stored.upload_again(upload)
    assert upload.digest == Digest.of(b"one ")
    await stored.uploads.append(upload, make_body(b"two"))
    assert (await stored.upload_again(upload)).digest == Digest.of(b"one two")


async def test_a_closing_request_that_only_compares_does_not_read_the_bytes_again(make_rooms):
    rooms = make_rooms("filesystem")
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"x" * SMALL))
    opened = []
    rooms.storage.open = lambda *where: opened.append(where)
    await rooms.uploads.finish(upload, Digest.of(b"x" * SMALL), make_body())
    assert opened == []


@pytest.mark.parametrize("pieces", [(b"all at once",), (b"first ", b"second")])
async def test_a_sha512_session_ends_in_a_sha512_blob(stored: Rooms, pieces: tuple[bytes, ...]):
    _repository, upload = await begin(stored, algorithm="sha512")
    for piece in pieces:
        upload = await stored.uploads.append(upload, make_body(piece))
    assert upload.digest == f"sha512:{hashlib.sha512(b''.join(pieces)).hexdigest()}"
    digest = Digest.of(b"".join(pieces), "sha512")
    await stored.uploads.finish(upload, digest, make_body())
    assert await stored.read("acme/app", digest) == b"".join(pieces)


@pytest.mark.parametrize(("session", "wanted"), [("sha256", "sha512"), ("sha512", "sha256")])
@pytest.mark.parametrize("sent", ["before", "with"])
async def test_the_closing_digest_may_use_another_algorithm(stored: Rooms, session: str, wanted: str, sent: str):
    _repository, upload = await begin(stored, algorithm=session)
    content = os.urandom(2 * SMALL)
    if sent == "before":
        upload = await stored.uploads.append(upload, make_body(content))
    digest = Digest.of(content, wanted)
    await stored.uploads.finish(upload, digest, make_body(b"" if sent == "before" else content))
    assert await stored.read("acme/app", digest) == content


async def test_a_session_is_of_its_repository_only(rooms: Rooms):
    _repository, upload = await begin(rooms)
    other = await rooms.make_repository("acme/other")
    with pytest.raises(UploadUnknown):
        await rooms.uploads.get(other, upload.id)


async def test_a_session_in_an_unknown_repository_is_refused(rooms: Rooms):
    with pytest.raises(RepositoryUnknown):
        await rooms.uploads.start(4711)
    assert await rooms.count("uploads") == 0


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 3, 5])
async def test_bytes_that_do_not_begin_where_the_session_ends_are_refused(stored: Rooms, start: int):
    _repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"1234"))
    with pytest.raises(UploadOutOfOrder) as refused:
        await stored.uploads.append(upload, make_body(b"56"), start=start)
    assert refused.value.offset == 4
    with pytest.raises(UploadOutOfOrder):
        await stored.uploads.finish(upload, Digest.of(b"123456"), make_body(b"56"), start=start)
    await stored.uploads.finish(upload, Digest.of(b"123456"), make_body(b"56"), start=4)
    assert await stored.read("acme/app", Digest.of(b"123456")) == b"123456"


async def test_a_first_chunk_that_does_not_begin_at_the_start_is_refused(stored: Rooms):
    _repository, upload = await begin(stored)
    with pytest.raises(UploadOutOfOrder) as refused:
        await stored.uploads.append(upload, make_body(b"56"), start=4)
    assert refused.value.offset == 0
    with pytest.raises(UploadOutOfOrder):
        await stored.uploads.finish(upload, Digest.of(b"56"), make_body(b"56"), start=4)
    assert (await stored.upload_again(upload)).offset == 0


@pytest.mark.parametrize("size", [10, SMALL + 1])
@pytest.mark.parametrize("sent", ["before", "with"])
async def test_a_wrong_digest_leaves_nothing_visible_and_ends_the_session(stored: Rooms, size: int, sent: str):
    _repository, upload = await begin(stored)
    content, wrong = os.urandom(size), Digest.of(b"other")
    if sent == "before":
        upload = await stored.uploads.append(upload, make_body(content))
    with pytest.raises(DigestMismatch) as refused:
        await stored.uploads.finish(upload, wrong, make_body(b"" if sent == "before" else content))
    assert (refused.value.expected, refused.value.actual) == (wrong, Digest.of(content))
    for digest in (wrong, Digest.of(content)):
        with pytest.raises(BlobUnknown):
            await stored.blobs.get("acme/app", digest)
    with pytest.raises(UploadUnknown):
        await stored.upload_again(upload)
    await stored.sweeper.sweep()
    assert await stored.locations() == []
    assert await stored.count("blobs") == 0


async def test_a_wrong_digest_that_only_hashing_again_shows_leaves_nothing(stored: Rooms):
    _repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"one "))
    host = stored.another()
    upload = await host.uploads.append(await host.upload_again(upload), make_body(b"two"))
    with pytest.raises(DigestMismatch):
        await host.uploads.finish(upload, Digest.of(b"other"), make_body())
    await stored.sweeper.sweep()
    assert await stored.locations() == []
    await assert_invariants(stored)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_blob_beyond_the_limit_is_refused_and_the_message_names_the_limit(make_rooms, announced: bool):
    rooms = make_rooms("filesystem", blob_limit=SMALL + 10)
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"x" * SMALL))
    length = -1 if announced else None
    with pytest.raises(BlobTooLarge) as refused:
        await rooms.uploads.append(upload, make_body(b"y" * 5, b"y" * 6, length=length))
    assert refused.value.limit == SMALL + 10
    assert (await rooms.upload_again(upload)).offset == SMALL
    upload = await rooms.uploads.append(await rooms.upload_again(upload), make_body(b"z" * 10, length=length))
    content = b"x" * SMALL + b"z" * 10
    await rooms.uploads.finish(upload, Digest.of(content), make_body())
    assert await rooms.read("acme/app", Digest.of(content)) == content


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
@pytest.mark.parametrize("limit", [100, SMALL + 100])
async def test_the_limit_holds_for_a_blob_in_one_piece(make_rooms, kind: str, limit: int):
    rooms = make_rooms(kind, blob_limit=limit)
    repository = await rooms.make_repository()
    for length in (-1, None):
        upload = await rooms.uploads.start(repository)
        with pytest.raises(BlobTooLarge):
            await rooms.uploads.finish(
                upload, Digest.of(b"x" * (limit + 1)), make_body(b"x" * (limit + 1), length=length)
            )
        with pytest.raises(BlobTooLarge):
            await rooms.uploads.store(
                repository, Digest.of(b"x" * (limit + 1)), make_body(b"x" * (limit + 1), length=length)
            )
    fits = b"x" * limit
    await rooms.uploads.store(repository, Digest.of(fits), make_body(fits))
    assert await rooms.read("acme/app", Digest.of(fits)) == fits


async def test_a_single_request_that_fails_leaves_no_session(stored: Rooms):
    repository = await stored.make_repository()
    for body in (make_body(b"short", length=10, cut=True), make_body(b"x" * MIB, length=2 * MIB, cut=True)):
        with pytest.raises(BodyFailed):
            await stored.uploads.store(repository, Digest.of(b"x" * 10), body)
    with pytest.raises(DigestMismatch):
        await stored.uploads.store(repository, Digest.of(b"x"), make_body(b"y"))
    assert await stored.count("uploads") == 0
    await stored.sweeper.sweep()
    assert await stored.locations() == []


# --- bodies that break off -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 2 * MIB + 3])
async def test_what_came_of_a_body_that_breaks_off_is_kept(stored: Rooms, size: int):
    _repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"begin "))
    content = os.urandom(size)
    with pytest.raises(BodyFailed):
        await stored.uploads.append(upload, make_body(content, length=2 * size, cut=True))
    upload = await stored.upload_again(upload)
    assert upload.offset == 6 + size
    assert upload.digest == Digest.of(b"begin " + content)
    upload = await stored.uploads.append(upload, make_body(b" end"), start=6 + size)
    digest = Digest.of(b"begin " + content + b" end")
    assert upload.digest == digest
    await stored.uploads.finish(upload, digest, make_body())
    assert await stored.read("acme/app", digest) == b"begin " + content + b" end"


async def test_a_closing_request_that_breaks_off_may_be_sent_again_from_where_it_broke(stored: Rooms):
    _repository, upload = await begin(stored)
    content = os.urandom(2 * MIB)
    with pytest.raises(BodyFailed):
        await stored.uploads.finish(
            upload, Digest.of(content), make_body(content[:MIB], length=len(content), cut=True)
        )
    upload = await stored.upload_again(upload)
    assert upload.offset == MIB
    await stored.uploads.finish(upload, Digest.of(content), make_body(content[MIB:]), start=MIB)
    assert await stored.read("acme/app", Digest.of(content)) == content


async def test_a_small_closing_request_that_breaks_off_keeps_the_session(stored: Rooms):
    _repository, upload = await begin(stored)
    with pytest.raises(BodyFailed):
        await stored.uploads.finish(upload, Digest.of(b"12345"), make_body(b"123", length=5, cut=True))
    upload = await stored.upload_again(upload)
    rest = b"12345"[upload.offset :]
    await stored.uploads.finish(upload, Digest.of(b"12345"), make_body(rest))
    assert await stored.read("acme/app", Digest.of(b"12345")) == b"12345"


async def test_an_append_that_is_cancelled_leaves_the_session_as_it_was(stored: Rooms):
    _repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"begin "))
    slow = SlowBody()
    task = asyncio.create_task(stored.uploads.append(upload, slow.body))
    await slow.send(b"lost" * MIB)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    upload = await stored.upload_again(upload)
    assert (upload.offset, upload.digest) == (6, Digest.of(b"begin "))
    upload = await stored.uploads.append(upload, make_body(b"end"), start=6)
    await stored.uploads.finish(upload, Digest.of(b"begin end"), make_body())
    assert await stored.read("acme/app", Digest.of(b"begin end")) == b"begin end"


async def test_an_append_that_is_cancelled_at_any_moment_frees_the_session(stored: Rooms):
    _repository, upload = await begin(stored)
    for moment in range(60):
        task = asyncio.create_task(stored.uploads.append(upload, make_body(b"x" * 10)))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        upload = await stored.upload_again(upload)
    upload = await stored.uploads.append(upload, make_body(b"y"))
    digest = Digest.of(b"x" * (upload.offset - 1) + b"y")
    await stored.uploads.finish(upload, digest, make_body())
    await stored.sweeper.sweep()
    assert len(await stored.locations()) == 1


@pytest.mark.parametrize("size", [10, 2 * SMALL])
async def test_a_closing_request_that_is_cancelled_at_any_moment_may_be_repeated(stored: Rooms, size: int):
    repository = await stored.make_repository()
    for moment in range(0, 60, 2):
        upload = await stored.uploads.start(repository)
        content = os.urandom(size)
        digest = Digest.of(content)
        task = asyncio.create_task(stored.uploads.finish(upload, digest, make_body(content)))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        # Whatever came of the large one's bytes is kept; the client asks how many.
        with contextlib.suppress(UploadUnknown):
            upload = await stored.upload_again(upload)
        await stored.uploads.finish(upload, digest, make_body(content[upload.offset :]))
        assert await stored.read("acme/app", digest) == content
    await stored.sweeper.sweep()
    await assert_invariants(stored)


# --- two at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["same process", "another process"])
async def test_a_second_request_during_a_first_is_refused_and_nothing_is_mixed(stored: Rooms, where: str):
    _repository, upload = await begin(stored)
    second = stored if where == "same process" else stored.another()
    slow = SlowBody()
    first = asyncio.create_task(stored.uploads.append(upload, slow.body))
    await slow.send(b"a" * 2 * MIB)
    seen = await second.upload_again(upload)
    with pytest.raises(UploadOccupied):
        await second.uploads.append(seen, make_body(b"b" * 3 * MIB))
    for size in (5, 3 * MIB):
        with pytest.raises(UploadOccupied):
            await second.uploads.finish(seen, Digest.of(b"b" * size), make_body(b"b" * size))
    slow.end()
    upload = await first
    content = b"a" * 2 * MIB + b"c"
    await second.uploads.finish(await second.upload_again(upload), Digest.of(content), make_body(b"c"))
    assert await stored.read("acme/app", Digest.of(content)) == content
    await assert_invariants(stored)


async def test_a_request_with_an_outdated_look_at_the_session_goes_on_from_its_present_end(stored: Rooms):
    _repository, outdated = await begin(stored)
    await stored.uploads.append(outdated, make_body(b"a" * 10))
    with pytest.raises(UploadOutOfOrder):
        await stored.uploads.append(outdated, make_body(b"b"), start=0)
    upload = await stored.uploads.append(outdated, make_body(b"b"))
    assert (upload.offset, upload.digest) == (11, Digest.of(b"a" * 10 + b"b"))


async def test_a_small_closing_request_with_an_outdated_look_appends(stored: Rooms):
    _repository, outdated = await begin(stored)
    await stored.uploads.append(outdated, make_body(b"first "))
    await stored.uploads.finish(outdated, Digest.of(b"first second"), make_body(b"second"))
    assert await stored.read("acme/app", Digest.of(b"first second")) == b"first second"


async def test_a_request_that_looked_before_another_one_finished_does_not_touch_the_blob(stored: Rooms):
    _repository, upload = await begin(stored)
    content = os.urandom(2 * SMALL)
    upload = await stored.uploads.append(upload, make_body(content))
    host = stored.another()
    await host.uploads.finish(await host.upload_again(upload), Digest.of(content), make_body())
    blob = await stored.blobs.get("acme/app", Digest.of(content))
    for work in (
        stored.uploads.append(upload, make_body(b"more")),
        stored.uploads.append(upload, make_body(b"more"), start=upload.offset),
        stored.uploads.finish(upload, Digest.of(content + b"more"), make_body(b"more")),
        stored.uploads.finish(upload, Digest.of(b"other"), make_body()),
    ):
        with pytest.raises(UploadUnknown):
            await work
    assert await stored.storage.stat(blob.location) == len(content)
    assert await stored.read("acme/app", Digest.of(content)) == content
    assert await stored.uploads.finish(upload, Digest.of(content), make_body()) == len(content)
    await assert_invariants(stored)


@pytest.mark.parametrize("looked", ["before the first bytes", "before the last bytes"])
async def test_a_closing_request_that_looked_before_more_bytes_came_takes_all(stored: Rooms, looked: str):
    _repository, upload = await begin(stored)
    content = os.urandom(2 * SMALL)
    if looked == "before the last bytes":
        upload = await stored.uploads.append(upload, make_body(content[:SMALL]))
    host = stored.another()
    seen = await host.upload_again(upload)
    await stored.uploads.append(upload, make_body(content[seen.offset :]))
    assert await host.uploads.finish(seen, Digest.of(content), make_body()) == len(content)
    assert await stored.read("acme/app", Digest.of(content)) == content
    await assert_invariants(stored)


async def test_the_digest_of_what_a_closing_request_saw_is_wrong_when_more_bytes_came(stored: Rooms):
    _repository, upload = await begin(stored)
    seen = await stored.uploads.append(upload, make_body(b"x" * SMALL))
    await stored.another().uploads.append(seen, make_body(b"more"))
    with pytest.raises(DigestMismatch):
        await stored.uploads.finish(seen, Digest.of(b"x" * SMALL), make_body())
    with pytest.raises(UploadUnknown):
        await stored.upload_again(upload)
    await stored.sweeper.sweep()
    assert await stored.locations() == []


async def test_what_somebody_wrote_who_died_is_dropped(make_rooms, tmp_path):
    rooms = make_rooms("filesystem")
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"kept "))
    (part,) = (tmp_path / "disk").rglob("*.part")
    for last in (False, True):
        with part.open("ab") as file:
            file.write(b"written, and not acknowledged")
        if not last:
            upload = await rooms.uploads.append(upload, make_body(b"and more"))
    await rooms.uploads.finish(upload, Digest.of(b"kept and more"), make_body())
    assert await rooms.read("acme/app", Digest.of(b"kept and more")) == b"kept and more"


async def test_many_requests_at_once_on_one_session_never_mix(stored: Rooms):
    _repository, upload = await begin(stored)
    hosts = [stored, stored.another(), stored.another()]
    kept: list[tuple[int, bytes]] = []
    """Where each that was taken ends. Who was first may hear of it last."""

    async def send(number: int) -> None:
        host = hosts[number % len(hosts)]
        content = bytes([number]) * (1000 + 7 * number)
        for _ in range(50):
            current = await host.upload_again(upload)
            try:
                reached = await host.uploads.append(current, make_body(content[:500], content[500:]))
            except (UploadOccupied, UploadOutOfOrder):
                await asyncio.sleep(0.01)
            else:
                kept.append((reached.offset, content))
                return

    await asyncio.gather(*(send(number) for number in range(12)))
    kept.sort()
    assert [end for end, _ in kept] == list(itertools.accumulate(len(content) for _, content in kept))
    whole = b"".join(content for _, content in kept)
    current = await stored.upload_again(upload)
    assert current.offset == len(whole) > 0
    await stored.uploads.finish(current, Digest.of(whole), make_body())
    assert await stored.read("acme/app", Digest.of(whole)) == whole


async def test_of_many_small_closing_requests_with_different_content_exactly_one_succeeds(stored: Rooms):
    repository = await stored.make_repository()
    hosts = [stored, stored.another(), stored.another()]
    for _ in range(10):
        upload = await stored.uploads.start(repository)
        contents = [os.urandom(50) for _ in range(6)]
        outcomes = await asyncio.gather(
            *(
                hosts[number % 3].uploads.finish(upload, Digest.of(content), make_body(content))
                for number, content in enumerate(contents)
            ),
            return_exceptions=True,
        )
        won = [content for content, outcome in zip(contents, outcomes, strict=True) if outcome == 50]
        assert len(won) == 1, outcomes
        assert all(isinstance(one, UploadOccupied | UploadUnknown) for one in outcomes if one != 50), outcomes
        assert await stored.read("acme/app", Digest.of(won[0])) == won[0]
    await assert_invariants(stored)


async def test_a_small_closing_request_cannot_publish_what_another_request_still_writes(stored: Rooms):
    _repository, upload = await begin(stored)
    slow = SlowBody()
    first = asyncio.create_task(stored.uploads.append(upload, slow.body))
    await slow.send(b"a" * MIB)
    with pytest.raises(UploadOccupied):
        await stored.another().uploads.finish(upload, Digest.of(b"small"), make_body(b"small"))
    await slow.send(b"b" * MIB)
    slow.end()
    upload = await first
    content = b"a" * MIB + b"b" * MIB
    await stored.uploads.finish(upload, Digest.of(content), make_body())
    assert await stored.read("acme/app", Digest.of(content)) == content


@pytest.mark.parametrize("size", [100, 2 * SMALL])
async def test_two_uploads_of_one_blob_both_succeed_and_it_is_stored_once(stored: Rooms, size: int):
    content = os.urandom(size)
    digest = Digest.of(content)
    hosts = [stored, stored.another()]
    repositories = [await stored.make_repository(f"acme/{name}") for name in ("one", "two", "three", "four")]
    uploads = [await stored.uploads.start(repository) for repository in repositories]
    await asyncio.gather(
        *(hosts[n % 2].uploads.finish(upload, digest, make_body(content)) for n, upload in enumerate(uploads))
    )
    assert await stored.count("blobs") == 1
    assert await stored.count("repository_blobs") == 4
    assert await stored.count("gc_objects") == 3
    await assert_invariants(stored)
    await stored.sweeper.sweep()
    assert len(await stored.locations()) == 1
    for name in ("one", "two", "three", "four"):
        assert await stored.read(f"acme/{name}", digest) == content


async def test_the_same_blob_again_in_the_same_repository_is_stored_once(stored: Rooms):
    repository = await stored.make_repository()
    for _ in range(3):
        digest = await stored.push_blob(repository, b"content")
    await stored.sweeper.sweep()
    assert len(await stored.locations()) == 1
    assert await stored.read("acme/app", digest) == b"content"
    await assert_invariants(stored)


class Commits:
    """Holds back the commits of finished uploads of a process until they are let go."""

    def __init__(self, rooms: Rooms) -> None:
        self.reached, self._gate = asyncio.Event(), asyncio.Event()
        self._unit = rooms.database.unit
        rooms.database.unit = self._commit  # type: ignore[method-assign]

    async def _commit(self, work, **how):
        if "_commit" in work.__qualname__:
            self.reached.set()
            await self._gate.wait()
        return await self._unit(work, **how)

    async def held(self, task: asyncio.Task) -> None:
        """Until the task waits for its commit, or has ended without."""
        waiting = asyncio.create_task(self.reached.wait())
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def let_go(self) -> None:
        self._gate.set()


@pytest.mark.parametrize("who", ["first", "second"])
@pytest.mark.parametrize("size", [0, 50, 2 * SMALL])
@pytest.mark.parametrize("other", [0, 60, 3 * SMALL])
async def test_nobody_takes_the_place_of_an_object_before_its_row_is_committed(
    stored: Rooms, size: int, other: int, who: str
):
    repository = await stored.make_repository()
    hosts = [stored.another(), stored.another()]
    upload = await stored.uploads.start(repository)
    commits = [Commits(host) for host in hosts]
    contents = [b"a" * size, b"b" * other]
    tasks = []
    for host, commit, content in zip(hosts, commits, contents, strict=True):
        task = asyncio.create_task(host.uploads.finish(upload, Digest.of(content), make_body(content)))
        await commit.held(task)
        tasks.append(task)
    for number in (0, 1) if who == "first" else (1, 0):
        commits[number].let_go()
        await asyncio.wait([tasks[number]])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome, content in zip(outcomes, contents, strict=True):
        if isinstance(outcome, int):
            assert await stored.read("acme/app", Digest.of(content)) == content
        else:
            assert isinstance(outcome, UploadOccupied | UploadUnknown | UploadOutOfOrder | DigestMismatch), outcome
    assert any(isinstance(outcome, int) for outcome in outcomes), outcomes
    assert contents[0] == contents[1] or not all(isinstance(outcome, int) for outcome in outcomes)
    await assert_invariants(stored)


# --- leases --------------------------------------------------------------------------------------------------


async def test_the_turn_of_a_dead_writer_ends_with_its_lease(rooms: Rooms):
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"kept "))
    await rooms.change("UPDATE uploads SET writer = 'dead', writer_until = 32503680000000")
    with pytest.raises(UploadOccupied):
        await rooms.uploads.append(upload, make_body(b"x"))
    with pytest.raises(UploadOccupied):
        await rooms.uploads.finish(upload, Digest.of(b"kept "), make_body())
    await rooms.change("UPDATE uploads SET writer_until = 0")
    await rooms.uploads.finish(upload, Digest.of(b"kept on"), make_body(b"on"))
    assert await rooms.read("acme/app", Digest.of(b"kept on")) == b"kept on"


async def test_a_lease_is_shorter_than_a_minute_and_a_bit(rooms: Rooms):
    _repository, upload = await begin(rooms)
    slow = SlowBody()
    task = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.begun()
    ((left,),) = await rooms.query("SELECT writer_until - started_at FROM uploads")
    assert 0 < left < 90_000
    slow.end()
    await task


async def test_a_writer_whose_lease_went_to_another_cannot_save(rooms: Rooms):
    _repository, upload = await begin(rooms)
    slow = SlowBody()
    task = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(b"stalled")
    await rooms.change("UPDATE uploads SET writer_until = 0")
    upload = await rooms.another().uploads.append(upload, make_body(b"winner"))
    slow.end()
    with pytest.raises(UploadOutOfOrder):
        await task
    await rooms.uploads.finish(upload, Digest.of(b"winner"), make_body())
    assert await rooms.read("acme/app", Digest.of(b"winner")) == b"winner"


async def test_a_writer_whose_lease_went_to_another_cannot_finish(rooms: Rooms):
    _repository, upload = await begin(rooms)
    slow = SlowBody(length=7)
    task = asyncio.create_task(rooms.uploads.finish(upload, Digest.of(b"stalled"), slow.body))
    await slow.begun()
    await rooms.change("UPDATE uploads SET writer = 'another', writer_until = 32503680000000")
    await slow.send(b"stalled")
    slow.end()
    with pytest.raises(UploadUnknown):
        await task
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", Digest.of(b"stalled"))


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
async def test_a_running_upload_is_prolonged_and_does_not_expire(make_rooms, kind: str, monkeypatch):
    monkeypatch.setattr("dtr.registry.uploads._BEAT_SECONDS", 0.02)
    rooms = make_rooms(kind)
    _repository, upload = await begin(rooms)
    slow = SlowBody()
    task = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(b"content")
    await rooms.change("UPDATE uploads SET expires_at = 1, writer_until = 1")
    async with asyncio.timeout(30):
        while await rooms.query("SELECT 1 FROM uploads WHERE expires_at = 1"):
            await asyncio.sleep(0.01)
    slow.end()
    upload = await task
    assert upload.offset == 7


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
async def test_an_upload_that_is_cancelled_stops_writing(make_rooms, kind: str, monkeypatch):
    monkeypatch.setattr("dtr.registry.uploads._BEAT_SECONDS", 0.02)
    rooms = make_rooms(kind)
    _repository, upload = await begin(rooms)
    slow = SlowBody()
    task = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(b"content")
    await rooms.another().uploads.cancel(upload)
    with pytest.raises(UploadUnknown):
        await asyncio.wait_for(task, 30)
    await rooms.sweeper.sweep()
    assert await rooms.locations() == []


async def test_a_writer_that_cannot_prolong_its_turn_stops(rooms: Rooms, monkeypatch):
    monkeypatch.setattr("dtr.registry.uploads._BEAT_SECONDS", 0.05)
    monkeypatch.setattr("dtr.registry.uploads._LEASE_SECONDS", 3)
    _repository, upload = await begin(rooms)
    host = rooms.another()
    slow = SlowBody()
    task = asyncio.create_task(host.uploads.append(upload, slow.body))
    await slow.send(b"content")
    await host.database.close()  # as good as a network that is down
    with pytest.raises(DatabaseError):
        await asyncio.wait_for(task, 30)


# --- S3 ------------------------------------------------------------------------------------------------------


async def test_on_s3_a_second_request_cannot_damage_what_the_first_had_acknowledged(make_rooms):
    rooms = make_rooms("s3")
    _repository, upload = await begin(rooms)
    first, second = os.urandom(6 * MIB), os.urandom(6 * MIB)
    upload = await rooms.uploads.append(upload, make_body(first))
    host = rooms.another()
    seen = await host.upload_again(upload)
    slow = SlowBody()
    running = asyncio.create_task(rooms.uploads.append(upload, slow.body))
    await slow.send(second)
    with pytest.raises(UploadOccupied):
        await host.uploads.append(seen, make_body(os.urandom(6 * MIB)))
    slow.end()
    upload = await running
    with pytest.raises(UploadOutOfOrder):
        await host.uploads.append(seen, make_body(os.urandom(6 * MIB)), start=seen.offset)
    await rooms.uploads.finish(upload, Digest.of(first + second), make_body())
    assert await rooms.read("acme/app", Digest.of(first + second)) == first + second
    await assert_invariants(rooms)


async def test_on_s3_cancelled_and_expired_sessions_leave_nothing(make_rooms, s3_server):
    rooms = make_rooms("s3")
    repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(os.urandom(6 * MIB)))
    other = await rooms.uploads.start(repository)
    await rooms.uploads.append(other, make_body(os.urandom(11 * MIB)))
    await rooms.uploads.cancel(upload)
    await rooms.expire_uploads()
    swept = await rooms.sweeper.sweep()
    assert (swept.uploads, swept.objects, swept.failures) == (1, 2, 0)
    assert await rooms.locations() == []
    with pytest.raises(ObjectMissing):
        await rooms.storage.complete(upload.state)


# --- no room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [-1, None])
async def test_a_full_storage_is_told_and_the_session_goes_on_once_there_is_room(make_rooms, disk, length):
    rooms = make_rooms("small disk")
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"kept "))
    ballast = disk.path / "ballast"
    ballast.write_bytes(bytes(5 * MIB))
    content = os.urandom(4 * MIB)
    with pytest.raises(StorageFull):
        await rooms.uploads.append(upload, make_body(*pieces(content), length=length))
    assert os.statvfs(disk.path).f_bavail * 4096 > 2 * MIB, "the room was given back"
    upload = await rooms.upload_again(upload)
    assert (upload.offset, upload.digest) == (5, Digest.of(b"kept "))
    ballast.unlink()
    upload = await rooms.uploads.append(upload, make_body(*pieces(content), length=length), start=5)
    await rooms.uploads.finish(upload, Digest.of(b"kept " + content), make_body())
    assert await rooms.read("acme/app", Digest.of(b"kept " + content)) == b"kept " + content
    await assert_invariants(rooms)


async def test_a_full_storage_refuses_a_small_blob_and_takes_it_once_there_is_room(make_rooms, disk):
    rooms = make_rooms("small disk")
    repository, upload = await begin(rooms)
    await rooms.push_blob(repository, b"so that the directory is there")
    disk.fill()
    content = os.urandom(SMALL)
    with pytest.raises(StorageFull):
        await rooms.uploads.finish(upload, Digest.of(content), make_body(content))
    assert len(await rooms.locations()) == 1
    disk.make_room()
    await rooms.uploads.finish(await rooms.upload_again(upload), Digest.of(content), make_body(content))
    assert await rooms.read("acme/app", Digest.of(content)) == content


# --- ends ----------------------------------------------------------------------------------------------------


async def test_a_cancelled_session_is_gone_and_its_bytes_go(stored: Rooms):
    repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"x" * MIB))
    await stored.uploads.cancel(upload)
    for attempt in (
        stored.uploads.get(repository, upload.id),
        stored.uploads.cancel(upload),
        stored.uploads.append(upload, make_body(b"x")),
        stored.uploads.finish(upload, Digest.of(b"x" * MIB), make_body()),
    ):
        with pytest.raises(UploadUnknown):
            await attempt
    await assert_invariants(stored)
    swept = await stored.sweeper.sweep()
    assert (swept.objects, swept.size) == (1, MIB)
    with pytest.raises(ObjectMissing):
        await stored.storage.complete(upload.state)


async def test_an_expired_session_is_not_found_and_is_reclaimed(stored: Rooms):
    repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"x" * MIB))
    await stored.expire_uploads()
    for attempt in (
        stored.uploads.get(repository, upload.id),
        stored.uploads.append(upload, make_body(b"x")),
        stored.uploads.finish(upload, Digest.of(b"x" * MIB), make_body()),
    ):
        with pytest.raises(UploadUnknown):
            await attempt
    swept = await stored.sweeper.sweep()
    assert (swept.uploads, swept.objects) == (1, 1)
    assert await stored.count("uploads") == 0
    with pytest.raises(ObjectMissing):
        await stored.storage.complete(upload.state)


async def test_bytes_prolong_a_session(make_rooms):
    rooms = make_rooms(lifetimes=Lifetimes(upload_ttl=3_600_000))
    upload = await rooms.uploads.start(await rooms.make_repository())
    await rooms.change("UPDATE uploads SET expires_at = expires_at - 3000000")
    ((before,),) = await rooms.query("SELECT expires_at FROM uploads")
    await rooms.uploads.append(upload, make_body(b"x"))
    ((after,),) = await rooms.query("SELECT expires_at FROM uploads")
    assert after >= before + 3_000_000


@pytest.mark.parametrize("size", [0, 5, 2 * SMALL])
@pytest.mark.parametrize("sent", ["before", "with"])
async def test_finishing_again_succeeds_when_the_answer_was_lost(stored: Rooms, size: int, sent: str):
    _repository, upload = await begin(stored)
    content = os.urandom(size)
    if sent == "before":
        upload = await stored.uploads.append(upload, make_body(content))
    last = b"" if sent == "before" else content
    for _ in range(3):
        assert await stored.uploads.finish(upload, Digest.of(content), make_body(last)) == size
    assert await stored.another().uploads.finish(upload, Digest.of(content), make_body(last)) == size
    assert await stored.read("acme/app", Digest.of(content)) == content
    assert len(await stored.locations()) == 1
    await assert_invariants(stored)


async def test_finishing_again_with_another_digest_fails_and_changes_nothing(stored: Rooms):
    _repository, upload = await begin(stored)
    await stored.uploads.finish(upload, Digest.of(b"right"), make_body(b"right"))
    with pytest.raises(UploadUnknown):
        await stored.uploads.finish(upload, Digest.of(b"other"), make_body(b"other"))
    assert await stored.read("acme/app", Digest.of(b"right")) == b"right"
    assert len(await stored.locations()) == 1


@pytest.mark.parametrize("size", [5, 2 * SMALL])
async def test_a_push_brings_back_a_blob_that_is_missing(stored: Rooms, size: int):
    repository = await stored.make_repository()
    content = os.urandom(size)
    digest = await stored.push_blob(repository, content)
    blob = await stored.blobs.get("acme/app", digest)
    await stored.storage.delete(blob.location)
    await stored.blobs.mark_missing(blob)
    with pytest.raises(BlobUnknown):
        await stored.blobs.get("acme/app", digest)
    other = await stored.make_repository("acme/other")
    await stored.push_blob(other, content)
    for path in ("acme/app", "acme/other"):
        assert await stored.read(path, digest) == content
    assert (await stored.blobs.get("acme/app", digest)).location != blob.location
    assert await stored.query("SELECT location FROM gc_objects") == [(blob.location,)]
    await assert_invariants(stored)


async def test_a_crash_between_completion_and_commit_leaves_what_expires(stored: Rooms):
    _repository, upload = await begin(stored)
    upload = await stored.uploads.append(upload, make_body(b"x" * MIB))
    await stored.storage.complete(upload.state)  # and here the process dies
    assert len(await stored.locations()) == 1
    with pytest.raises(BlobUnknown):
        await stored.blobs.get("acme/app", Digest.of(b"x" * MIB))
    await stored.expire_uploads()
    await stored.sweeper.sweep()
    assert await stored.locations() == []


async def test_after_a_crash_between_completion_and_commit_the_blob_can_be_pushed_anew(stored: Rooms):
    repository, upload = await begin(stored)
    small = await stored.uploads.start(repository)
    upload = await stored.uploads.append(upload, make_body(b"x" * MIB))
    await stored.storage.complete(upload.state)
    await stored.storage.put_small(small.state.location, b"small")
    host = stored.another()
    await host.push_blob(repository, b"small")
    await host.push_blob(repository, b"x" * MIB)
    assert await host.read("acme/app", Digest.of(b"small")) == b"small"
    assert await host.read("acme/app", Digest.of(b"x" * MIB)) == b"x" * MIB
    await stored.expire_uploads()
    await stored.sweeper.sweep()
    assert len(await stored.locations()) == 2
    await assert_invariants(stored)


async def test_acknowledged_bytes_that_the_storage_lost_end_the_session(make_rooms, tmp_path):
    rooms = make_rooms("filesystem")
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"x" * MIB))
    (part,) = (tmp_path / "disk").rglob("*.part")
    os.truncate(part, MIB - 1)
    with pytest.raises(UploadUnknown):
        await rooms.uploads.append(upload, make_body(b"y"))
    with pytest.raises(UploadUnknown):
        await rooms.upload_again(upload)


# --- what it costs -------------------------------------------------------------------------------------------


async def test_a_chunked_push_costs_few_units(make_rooms):
    for kind, append, finish in (("filesystem", (0, 1), (0, 1)), ("memory", (0, 2), (0, 2))):
        rooms = make_rooms(kind)
        repository = await rooms.make_repository(f"acme/{kind}")
        counter = Counter().watch(rooms.database)
        upload = await rooms.uploads.start(repository)
        assert counter.seen == (0, 1)
        upload = await rooms.uploads.append(upload, make_body(b"x" * 2 * SMALL))
        assert counter.seen == append
        await rooms.uploads.finish(upload, Digest.of(b"x" * 2 * SMALL), make_body())
        assert counter.seen == finish


async def test_an_upload_that_expires_soon_is_prolonged_before_it_is_completed(make_rooms):
    rooms = make_rooms("filesystem")
    _repository, upload = await begin(rooms)
    upload = await rooms.uploads.append(upload, make_body(b"x" * 2 * SMALL))
    soon = time.time() * 1000 + 50_000
    await rooms.change(f"UPDATE uploads SET expires_at = {int(soon)}")
    complete, left = rooms.storage.complete, []

    async def slowly(state):
        left.extend(await rooms.query("SELECT expires_at FROM uploads"))
        await complete(state)

    rooms.storage.complete = slowly  # type: ignore[method-assign]
    upload = await rooms.upload_again(upload)  # as every request begins
    await rooms.uploads.finish(upload, Digest.of(b"x" * 2 * SMALL), make_body())
    assert left[0][0] > soon + 3_600_000


async def test_a_blob_in_one_request_costs_two_units(stored: Rooms):
    repository = await stored.make_repository()
    counter = Counter().watch(stored.database)
    await stored.uploads.store(repository, Digest.of(b"x"), make_body(b"x"))
    assert counter.seen == (0, 2)


@pytest.mark.parametrize("more", [b"", b"and more"])
async def test_an_upload_that_was_completed_by_somebody_who_died_goes_on(make_rooms, more: bytes):
    rooms = make_rooms("filesystem")
    _repository, upload = await begin(rooms)
    content = os.urandom(100_000)
    upload = await rooms.uploads.append(upload, make_body(content))
    await rooms.storage.complete(upload.state)  # what happens before the row goes
    digest = Digest.of(content + more)
    assert await rooms.another().uploads.finish(upload, digest, make_body(more)) == len(content + more)
    assert await rooms.read("acme/app", digest) == content + more
    await assert_invariants(rooms)
