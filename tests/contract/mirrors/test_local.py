"""Our side of a transfer on both databases: blobs from iterators, and where a fetch goes on that broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.images import make_image
from tests.support.rooms import Rooms

from dtr.mirrors import BlobShort, Local, Place
from dtr.oci import Digest
from dtr.registry import DigestMismatch, ManifestIncomplete
from dtr.storage import FileSystem

LARGE = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
async def rooms(database_url: str, tmp_path: Path):
    made = Rooms(database_url, lambda: FileSystem(tmp_path), inline_limit=4096)
    yield made
    await made.close()


@pytest.fixture
def local(rooms: Rooms) -> Local:
    return local_of(rooms)


def local_of(rooms: Rooms) -> Local:
    return Local(
        rooms.database, rooms.storage, blobs=rooms.blobs, uploads=rooms.uploads, manifests=rooms.manifests
    )


class Upstream:
    """A blob elsewhere, which breaks off after `breaks` bytes when it says so."""

    def __init__(self, content: bytes, breaks: int | None = None) -> None:
        self.content = content
        self.breaks = breaks
        self.asked: list[int] = []
        self.sent = 0

    async def read(self, offset: int) -> AsyncIterator[bytes]:
        self.asked.append(offset)
        for start in range(offset, len(self.content), 100_000):
            if self.breaks is not None and start - offset >= self.breaks:
                raise ConnectionError("the other side died")
            piece = self.content[start : start + 100_000]
            self.sent += len(piece)
            yield piece


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 65_536, 65_537, len(LARGE)])
async def test_a_blob_is_stored_from_an_iterator(rooms: Rooms, local: Local, size: int):
    place = Place(await rooms.make_repository(), "acme/app")
    upstream = Upstream(LARGE[:size])
    digest = Digest.of(upstream.content)
    await local.store_blob(place, digest, size, upstream.read)
    assert await rooms.read("acme/app", digest) == upstream.content
    found = await local.find_blob(place, digest)
    assert found is not None
    assert b"".join([piece async for piece in local.read_blob(found, size // 2)]) == upstream.content[size // 2 :]
    await local.store_blob(place, digest, size, upstream.read)
    assert upstream.asked == ([0] if size else [])  # it was there
    assert await rooms.count("uploads") == await rooms.count("fetches") == 0


async def test_a_fetch_goes_on_where_another_process_broke_off(rooms: Rooms, local: Local):
    place = Place(await rooms.make_repository(), "acme/app")
    digest = Digest.of(LARGE)
    dying = Upstream(LARGE, breaks=500_000)
    with pytest.raises(ConnectionError, match="the other side died"):
        await local.store_blob(place, digest, len(LARGE), dying.read)
    assert await local.find_blob(place, digest) is None
    upstream = Upstream(LARGE)
    await local_of(rooms.another()).store_blob(place, digest, len(LARGE), upstream.read)
    assert upstream.asked == [500_000]
    assert dying.sent + upstream.sent == len(LARGE)
    assert await rooms.read("acme/app", digest) == LARGE


async def test_one_that_does_not_resume_leaves_nothing(rooms: Rooms, local: Local):
    place = Place(await rooms.make_repository(), "acme/app")
    dying = Upstream(LARGE, breaks=500_000)
    with pytest.raises(ConnectionError):
        await local.store_blob(place, Digest.of(LARGE), len(LARGE), dying.read, resume=False)
    assert await rooms.count("uploads") == await rooms.count("fetches") == 0


@pytest.mark.parametrize("size", [100, len(LARGE)])
async def test_wrong_bytes_are_no_blob_and_are_not_gone_on_with(rooms: Rooms, local: Local, size: int):
    place = Place(await rooms.make_repository(), "acme/app")
    digest = Digest.of(LARGE[:size])
    with pytest.raises(DigestMismatch):
        await local.store_blob(place, digest, size, Upstream(bytes(size)).read)
    with pytest.raises(BlobShort):
        await local.store_blob(place, digest, size + 1, Upstream(LARGE[:size]).read)
    await rooms.expire_uploads()
    upstream = Upstream(LARGE[:size])
    await local.store_blob(place, digest, size, upstream.read)
    assert upstream.asked == [0]


async def test_two_who_want_the_same_blob_get_it(rooms: Rooms, local: Local):
    place = Place(await rooms.make_repository(), "acme/app")
    digest = Digest.of(LARGE)
    one, two = Upstream(LARGE), Upstream(LARGE)
    await asyncio.gather(
        local.store_blob(place, digest, len(LARGE), one.read),
        local_of(rooms.another()).store_blob(place, digest, len(LARGE), two.read),
    )
    assert await rooms.read("acme/app", digest) == LARGE
    assert (await rooms.findings(content=True)) == []


async def test_a_blob_of_another_repository_is_fetched_all_the_same(rooms: Rooms, local: Local):
    await rooms.push_blob(await rooms.make_repository("acme/secret"), LARGE)
    place = Place(await rooms.make_repository(), "acme/app")
    with pytest.raises(DigestMismatch):
        await local.store_blob(place, Digest.of(LARGE), len(LARGE), Upstream(bytes(len(LARGE))).read)
    assert await local.find_blob(place, Digest.of(LARGE)) is None


async def test_a_manifest_needs_its_blobs(rooms: Rooms, local: Local):
    place = Place(await rooms.make_repository(), "acme/app")
    image = make_image()
    with pytest.raises(ManifestIncomplete):
        await local.store_manifest(place, image.payload, image.media_type, ["1.0"])
    for blob in image.blobs:
        await local.store_blob(place, Digest.of(blob), len(blob), Upstream(blob).read)
    await local.store_manifest(place, image.payload, image.media_type, ["1.0"])
    assert (await rooms.manifests.get("acme/app", "1.0")).payload == image.payload
