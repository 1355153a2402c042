"""
The side of a transfer that is here: blobs and manifests of repositories, stored by what comes from elsewhere.

Everything goes through the rooms that pushes go through, with their promises: a blob that is here stays for one
lease, as for a client that pushes. A blob is fetched once for each repository, also when another one holds it:
that somebody can name a digest does not say that he may have what it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement
from dtr.db.schema import fetches
from dtr.events import SYSTEM
from dtr.mirrors.errors import BlobShort
from dtr.oci import Digest, parse_manifest
from dtr.registry import (
    SMALL,
    BlobTooLarge,
    BlobUnknown,
    BodyFailed,
    ManifestUnknown,
    RegistryError,
    UploadOccupied,
    UploadUnknown,
)
from dtr.shielded import in_thread
from dtr.storage import StorageError, StorageFull, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import TypeAlias

    from dtr.db import Database, Transaction
    from dtr.events import Actor
    from dtr.oci import Manifest
    from dtr.registry import Blob, Blobs, DeletedTags, File, Hasher, Manifests, StoredManifest, Upload, Uploads
    from dtr.storage import Driver

    Reading: TypeAlias = Callable[[int], AsyncIterator[bytes]]
    """The bytes of a blob from one on, in pieces."""

_STRIDE = 64 * 1024 * 1024
"""Bytes after which it is written down how far a blob came: whoever fetches it again goes on from there."""
_OCCUPIED_SECONDS = 0.5
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_repository = bindparam("repository", type_=BigInteger)
_FIND = Statement(
    lambda: select(fetches.c.upload_id).where(
        fetches.c.repository_id == _repository, fetches.c.digest == bindparam("digest")
    )
)
_new = insert(fetches).values(
    repository_id=_repository, digest=bindparam("digest"), upload_id=bindparam("upload")
)  # fmt: skip
_NOTE = Statement(
    lambda: _new.on_conflict_do_update(
        index_elements=["repository_id", "digest"], set_={"upload_id": _new.excluded.upload_id}
    )
)


class Place(Struct, frozen=True):
    """A repository of ours: its number, and what it is called now."""

    id: int
    path: str


class Local:
    """Stores and reads what repositories of ours hold."""

    def __init__(
        self, database: Database, storage: Driver, *, blobs: Blobs, uploads: Uploads, manifests: Manifests
    ) -> None:
        self._database = database
        self._storage = storage
        self._blobs = blobs
        self._uploads = uploads
        self._manifests = manifests

    # --- blobs ---

    async def find_blob(self, place: Place, digest: str) -> Blob | None:
        """The blob, which stays for one lease; None: the repository does not hold it."""
        try:
            return await self._blobs.get(place.path, digest, promise=True, content=True)
        except BlobUnknown:
            return None

    async def store_blob(
        self, place: Place, digest: str, size: int, read: Reading, *, resume: bool = True
    ) -> None:
        """
        Make `size` bytes that `read` gives the blob `digest` of the repository.

        `read` is asked for the bytes from one on: from the first, or, with `resume`, from where an earlier attempt
        ended, in whatever process. What came stays when it fails. Nothing is read when the blob is there. Raises
        what `read` raises, BlobShort, DigestMismatch, DigestUnsupported, RepositoryUnknown, BlobTooLarge and
        StorageError.
        """
        wanted = Digest.parse(digest)
        while await self.find_blob(place, digest) is None:
            with contextlib.suppress(UploadUnknown):  # it expired meanwhile: from the beginning, then
                try:
                    await self._store(place, wanted, size, read, resume=resume)
                except UploadOccupied:  # another process fetches it
                    await asyncio.sleep(_OCCUPIED_SECONDS)
                except BodyFailed as failed:
                    raise failed.__cause__ or failed from None

    async def _store(self, place: Place, digest: Digest, size: int, read: Reading, *, resume: bool) -> None:
        if size <= SMALL:
            async with _Source(read(0)) as source:
                await self._uploads.store(place.id, digest, source.take(size))
            return
        upload = await (self._resume if resume else self._begin)(place, digest, size)
        try:
            async with _Source(read(upload.offset)) as source:
                while size - upload.offset > _STRIDE:
                    upload = await self._uploads.append(upload, source.take(_STRIDE))
                await self._uploads.finish(upload, digest, source.take(size - upload.offset))
        except BaseException:
            if not resume:  # nobody else knows of it
                with contextlib.suppress(UploadUnknown, UploadOccupied):
                    await asyncio.shield(self._uploads.cancel(upload))
            raise

    async def _begin(self, place: Place, digest: Digest, _size: int) -> Upload:
        return await self._uploads.start(place.id, digest.algorithm)

    async def _resume(self, place: Place, digest: Digest, size: int) -> Upload:
        """The upload of whoever fetched the blob before, or a new one that others will find."""
        row = await self._database.fetch_one(_FIND, repository=place.id, digest=digest)
        if row is not None:
            with contextlib.suppress(UploadUnknown):
                upload = await self._uploads.get(place.id, row[0])
                if upload.offset <= size:
                    return upload
        made = await self._begin(place, digest, size)

        async def work(tx: Transaction) -> None:
            await tx.execute(_NOTE, repository=place.id, digest=digest, upload=made.id)

        await self._database.unit(work)
        return made

    async def read_blob(self, blob: Blob, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a blob from `offset` on. Iterating raises ObjectMissing, StorageError."""
        if blob.location is None:
            yield (blob.content or b"")[offset:]
            return
        async with contextlib.aclosing(self._storage.open(blob.location, offset)) as pieces:
            async for piece in pieces:
                yield piece

    # --- manifests ---

    async def find_manifest(self, place: Place, reference: str) -> StoredManifest | None:
        """What a tag or digest names; by digest it stays for one lease. None: the repository does not hold it."""
        try:
            return await self._manifests.get(place.path, reference)
        except ManifestUnknown:
            return None

    async def store_manifest(
        self,
        place: Place,
        content: bytes,
        media_type: str,
        tags: Sequence[str] = (),
        *,
        chain: Sequence[str] = (),
        by: Actor = SYSTEM,
    ) -> Digest:
        """
        Store a manifest, all of whose blobs and children are here, and let `tags` name it; its digest.

        With tags it is a push, to which the image came through `chain`. Raises ManifestInvalid,
        ManifestUnsupported, RepositoryUnknown, ManifestIncomplete, TagImmutable.
        """
        digest, manifest = await asyncio.to_thread(read_manifest, content, media_type)
        await self._manifests.put(place.id, manifest, content, digest, tuple(tags), chain=tuple(chain), by=by)
        return digest

    async def delete_tags(self, place: Place, named: dict[str, str], *, by: Actor = SYSTEM) -> DeletedTags:
        """Delete those tags that name still what is given for them, and are not signed in content trust."""
        return await self._manifests.delete_tags(place.id, named, by=by, unless_moved=named)


def read_manifest(content: bytes, media_type: str) -> tuple[Digest, Manifest]:
    """A manifest and its digest. Raises ManifestInvalid, ManifestUnsupported. For a thread: it may be large."""
    return Digest.of(content), parse_manifest(content, media_type)


class _Source:
    """Bytes in pieces, to be taken in portions."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_failure: object) -> None:
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()

    def take(self, count: int) -> _Portion:
        """The next `count` bytes, as the body of an upload."""
        return _Portion(self, count)

    async def next(self, most: int) -> bytes:
        """Some more, at most `most`. Raises BlobShort at the end."""
        while not self._left:
            try:
                self._left = await anext(self._pieces)
            except StopAsyncIteration:
                raise BlobShort("the blob ended before its size") from None
        piece, self._left = self._left[:most], self._left[most:]
        return piece


class _Portion:
    """A `Body` of bytes that come from elsewhere."""

    def __init__(self, source: _Source, length: int) -> None:
        self._source = source
        self.length: int | None = length
        self._count = length

    async def read(self) -> bytes:
        """See `Body`."""
        return b"".join([piece async for piece in self.pieces()])

    async def into_file(self, file: File, hasher: Hasher, limit: int | None) -> int:
        """See `Body`."""
        descriptor = await in_thread(file.open)
        written = 0
        try:
            async for piece in self.pieces():
                if limit is not None and written + len(piece) > limit:
                    raise BlobTooLarge(limit)
                await in_thread(_write, descriptor, piece, hasher)
                written += len(piece)
        except (RegistryError, StorageError):
            raise
        except Exception as error:
            raise BodyFailed(written) from error
        return written

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `Body`."""
        left = self._count
        while left:
            piece = await self._source.next(left)
            left -= len(piece)
            yield piece


def _write(descriptor: int, data: bytes, hasher: Hasher) -> None:
    try:
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.write(descriptor, view[done:])
    except OSError as error:
        raise (StorageFull if error.errno in _FULL else StorageUnavailable)(str(error)) from error
    hasher.update(data)
