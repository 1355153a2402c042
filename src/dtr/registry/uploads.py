"""
Upload sessions: how the bytes of a blob come in.

A session is a row: where its bytes are, how many came, and their digest as far as it is known. Any worker on
any host goes on from it. The location of the bytes is in the row before the first of them is written, so that
whatever happens, something knows what to clean up. Bytes become a blob in one transaction, after they are
durable and their digest is right; nothing is copied then.

Storage with real files takes the fast path (`LocalFiles`): threads move bytes from the socket to the file and
hash them on the way. Its lock keeps a second request from writing to the same session; with other storage the
offset in the row decides who was first, and what the loser wrote is not part of the upload.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import uuid
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import msgspec
from sqlalchemy import BigInteger, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, now
from dtr.db.schema import blobs, repositories, repository_blobs, uploads
from dtr.oci import Digest
from dtr.registry._links import bury, link
from dtr.registry.errors import (
    BlobTooLarge,
    BodyFailed,
    DigestMismatch,
    RepositoryUnknown,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
)
from dtr.storage import (
    Interrupted,
    LocalFiles,
    ObjectMissing,
    StorageFull,
    UploadBusy,
    UploadState,
    new_location,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dtr.db import Database, Transaction
    from dtr.registry.lifetimes import Lifetimes
    from dtr.storage import Driver

SMALL = 64 * 1024
"""Bodies up to so many bytes are taken in one piece: a thread would cost more than they do."""
_KEPT_HASHERS = 1024
_KEEP_ALIVE_SECONDS = 300

_ttl = bindparam("ttl", type_=BigInteger)
_INSERT = Statement(
    insert(uploads).from_select(
        [
            "id", "repository_id", "account_id", "location", "driver_state",
            "offset", "algorithm", "started_at", "expires_at",
        ],
        select(
            bindparam("id", type_=uploads.c.id.type),
            repositories.c.id,
            bindparam("account", type_=uploads.c.account_id.type),
            bindparam("location", type_=uploads.c.location.type),
            bindparam("driver_state", type_=uploads.c.driver_state.type),
            bindparam("offset", type_=BigInteger),
            bindparam("algorithm", type_=uploads.c.algorithm.type),
            now(),
            now() + _ttl,
        ).where(repositories.c.id == bindparam("repository"), repositories.c.deleted_at.is_(None)),
    )
)  # fmt: skip
_FIND = Statement(
    select(uploads.c.location, uploads.c.driver_state, uploads.c.algorithm, uploads.c.digest).where(
        uploads.c.id == bindparam("id"),
        uploads.c.repository_id == bindparam("repository"),
        uploads.c.expires_at > now(),
    )
)
_ADVANCE = Statement(
    update(uploads)
    .where(uploads.c.id == bindparam("which"), uploads.c.offset == bindparam("expected"))
    .values(
        driver_state=bindparam("driver_state"),
        offset=bindparam("reached"),
        digest=bindparam("digest"),
        expires_at=now() + _ttl,
    )
)
_KEEP = Statement(update(uploads).where(uploads.c.id == bindparam("which")).values(expires_at=now() + _ttl))
_DELETE = Statement(
    delete(uploads)
    .where(uploads.c.id == bindparam("id"), uploads.c.repository_id == bindparam("repository"))
    .returning(uploads.c.location, uploads.c.driver_state, uploads.c.offset)
)
_CLAIM_BLOB = Statement(
    insert(blobs)
    .values(
        digest=bindparam("digest"),
        size=bindparam("size"),
        location=bindparam("location"),
        state="present",
        created_at=now(),
    )
    # The update changes nothing: it locks the row that is there.
    .on_conflict_do_update(index_elements=["digest"], set_={"digest": blobs.c.digest})
    .returning(blobs.c.location, blobs.c.state, blobs.c.size)
)
_HEAL_BLOB = Statement(
    update(blobs)
    .where(blobs.c.digest == bindparam("which"))
    .values(location=bindparam("location"), size=bindparam("size"), state="present")
)
_LINKED = Statement(
    select(repository_blobs.c.digest).where(
        repository_blobs.c.repository_id == bindparam("repository"),
        repository_blobs.c.digest == bindparam("digest"),
    )
)


class Hasher(Protocol):
    """What is told every byte that was kept, in order, maybe in another thread."""

    def update(self, data: bytes | memoryview, /) -> None:
        """The next bytes."""


class Body(Protocol):
    """The bytes that a client sends with one request."""

    length: int | None
    """How many were announced; None: unknown."""

    async def read(self) -> bytes:
        """All of it, for a small one. Raises BodyFailed."""

    async def into_file(self, descriptor: int, hasher: Hasher, limit: int | None) -> int:
        """
        Append it to a file and update `hasher`; how many bytes.

        Raises BodyFailed, BlobTooLarge beyond `limit`, StorageError. Then file and hasher agree on what came.
        """

    def pieces(self) -> AsyncIterator[bytes]:
        """It in pieces. Iterating raises BodyFailed."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A session: `state` is how far it came; `digest` is of these bytes, None when nobody has computed it."""

    id: str
    repository: int
    state: UploadState
    algorithm: str
    digest: str | None

    @property
    def offset(self) -> int:
        """How many bytes came."""
        return self.state.offset


class Uploads:
    """The upload sessions of all repositories."""

    def __init__(
        self, database: Database, storage: Driver, lifetimes: Lifetimes, *, blob_limit: int | None = None
    ) -> None:
        """`blob_limit` is the largest size of a blob, in bytes."""
        self._database = database
        self._storage = storage
        self._files: LocalFiles | None = storage if isinstance(storage, LocalFiles) else None
        self._lifetimes = lifetimes
        self._blob_limit = blob_limit
        # Hash contexts cannot be stored. Whoever continues in another process hashes what is there again.
        self._hashers: OrderedDict[str, _Hasher] = OrderedDict()

    async def start(self, repository: int, account: str | None, algorithm: str = "sha256") -> Upload:
        """A new session of `account` (None: anonymous). Raises RepositoryUnknown."""
        state = await self._storage.create_upload(new_location())
        upload = Upload(str(uuid.uuid4()), repository, state, algorithm, None)

        async def work(tx: Transaction) -> bool:
            made = await tx.execute(
                _INSERT,
                id=upload.id,
                repository=repository,
                account=account,
                location=state.location,
                driver_state=state.encode(),
                offset=0,
                algorithm=algorithm,
                ttl=self._lifetimes.upload_ttl,
            )
            return made > 0

        if not await self._database.unit(work):
            raise RepositoryUnknown(str(repository))
        return upload

    async def get(self, repository: int, upload: str) -> Upload:
        """The session. Raises UploadUnknown."""
        row = await self._database.fetch_one(_FIND, id=upload, repository=repository)
        if row is None:
            raise UploadUnknown(upload)
        _, driver_state, algorithm, digest = row
        return Upload(upload, repository, UploadState.decode(driver_state), algorithm, digest)

    async def append(self, upload: Upload, body: Body, *, start: int | None = None) -> Upload:
        """
        Take what a client sends; the session as it is then.

        `start` is the position that the client gave. Raises UploadOutOfOrder, UploadOccupied, UploadUnknown,
        BlobTooLarge, BodyFailed (what came is kept) and StorageError.
        """
        async with self._exclusive(upload) as (current, file):
            return await self._append(current, file, body, start)

    async def finish(self, upload: Upload, digest: Digest, body: Body, *, start: int | None = None) -> int:
        """
        Take the last bytes, and make all of them the blob `digest` of the repository; its size.

        A wrong digest ends the session. Raises DigestMismatch and what `append` raises.
        """
        if upload.offset == 0 and body.length is not None and body.length <= SMALL:
            return await self._finish_small(upload, digest, body, start)
        async with self._exclusive(upload) as (whole, file):
            if body.length != 0 or start is not None:
                whole = await self._append(whole, file, body, start)  # noqa: PLW2901 - it grew
            return await self._finish_large(whole, digest)

    async def cancel(self, upload: Upload) -> None:
        """End the session; its bytes go. Raises UploadUnknown."""

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_DELETE, id=upload.id, repository=upload.repository)
            if row is None:
                raise UploadUnknown(upload.id)
            await bury(tx, row[0], size=row[2], driver_state=row[1])

        await self._database.unit(work)
        self._hashers.pop(upload.id, None)

    async def _append(self, upload: Upload, file: int | None, body: Body, start: int | None) -> Upload:
        if start is not None and start != upload.offset:
            raise UploadOutOfOrder(upload.id, upload.offset)
        limit = None if self._blob_limit is None else self._blob_limit - upload.offset
        if limit is not None and (body.length or 0) > limit:
            raise BlobTooLarge(self._blob_limit or 0)
        hasher = self._hashers.pop(upload.id, None) or _Hasher(upload.algorithm)
        failure: BaseException | None = None
        async with self._kept_alive(upload):
            try:
                reached = await self._receive(upload, file, body, hasher, limit)
            except BodyFailed as failed:
                failure = failed
                reached = msgspec.structs.replace(upload.state, offset=upload.offset + failed.written)
            except Interrupted as interrupted:
                failure = interrupted.__cause__ or interrupted
                reached = interrupted.state
        # Without the bytes before them, or with some that were not kept, the hash of the rest is of no use.
        complete = hasher.size == reached.offset
        advanced = replace(upload, state=reached, digest=hasher.digest() if complete else None)
        await self._save(upload, advanced)
        if complete:
            self._remember(advanced, hasher)
        if failure is not None:
            raise failure
        return advanced

    async def _receive(
        self, upload: Upload, file: int | None, body: Body, hasher: _Hasher, limit: int | None
    ) -> UploadState:
        if file is None:
            return await self._storage.write(
                upload.state, _hashing(body.pieces(), hasher, limit, self._blob_limit)
            )
        try:
            written = await body.into_file(file, hasher, limit)
        except (StorageFull, BlobTooLarge):
            # Give the room back; what was acknowledged before stays.
            await asyncio.to_thread(os.ftruncate, file, upload.offset)
            raise
        return msgspec.structs.replace(upload.state, offset=upload.offset + written)

    async def _finish_small(self, upload: Upload, digest: Digest, body: Body, start: int | None) -> int:
        if start:
            raise UploadOutOfOrder(upload.id, upload.offset)
        data = await body.read()
        if self._blob_limit is not None and len(data) > self._blob_limit:
            raise BlobTooLarge(self._blob_limit)
        actual = Digest.of(data, digest.algorithm)
        if actual != digest:
            await self.cancel(upload)
            raise DigestMismatch(digest, actual)
        await self._storage.put_small(upload.state.location, data)
        await self._commit(upload, digest, len(data))
        return len(data)

    async def _finish_large(self, upload: Upload, digest: Digest) -> int:
        known = upload.digest if upload.algorithm == digest.algorithm else None
        if known is None or known == digest:
            if upload.offset == 0:
                await self._storage.put_small(upload.state.location, b"")
            else:
                await self._keep(upload)
                await self._storage.complete(upload.state)
            if known is None:
                known = await self._hash(upload.state.location, digest.algorithm)
        if known != digest:
            with contextlib.suppress(UploadUnknown):
                await self.cancel(upload)
            raise DigestMismatch(digest, known)
        await self._commit(upload, digest, upload.offset)
        return upload.offset

    async def _commit(self, upload: Upload, digest: str, size: int) -> None:
        hold = self._lifetimes.hold
        location = upload.state.location

        async def work(tx: Transaction) -> None:
            if await tx.fetch_one(_DELETE, id=upload.id, repository=upload.repository) is None:
                # Expired or cancelled; or this unit ran before, and its answer was lost.
                if await tx.fetch_one(_LINKED, repository=upload.repository, digest=digest) is None:
                    raise UploadUnknown(upload.id)
                return
            row = await tx.fetch_one(_CLAIM_BLOB, digest=digest, size=size, location=location)
            assert row is not None
            present, state, known_size = row
            if present != location:
                spare, spare_size = location, size
                if state == "missing":
                    await tx.execute(_HEAL_BLOB, which=digest, location=location, size=size)
                    spare, spare_size = present, known_size
                await bury(tx, spare, size=spare_size)
            await link(tx, upload.repository, digest, size=size, hold=hold, is_new=present == location)

        await self._database.unit(work)
        self._hashers.pop(upload.id, None)

    async def _save(self, before: Upload, after: Upload) -> None:
        async def work(tx: Transaction) -> bool:
            changed = await tx.execute(
                _ADVANCE,
                which=before.id,
                expected=before.offset,
                reached=after.offset,
                driver_state=after.state.encode(),
                digest=after.digest,
                ttl=self._lifetimes.upload_ttl,
            )
            return changed > 0

        if not await self._database.unit(work):
            now_at = await self.get(before.repository, before.id)
            if now_at.state != after.state:  # the same: this unit ran before, and its answer was lost
                raise UploadOutOfOrder(before.id, now_at.offset)

    async def _keep(self, upload: Upload) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_KEEP, which=upload.id, ttl=self._lifetimes.upload_ttl)

        await self._database.unit(work)

    @contextlib.asynccontextmanager
    async def _kept_alive(self, upload: Upload) -> AsyncIterator[None]:
        """While bytes arrive, the session does not expire."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(_KEEP_ALIVE_SECONDS)
                with contextlib.suppress(DatabaseError):  # tried again; saving the offset extends it, too
                    await self._keep(upload)

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()

    @contextlib.asynccontextmanager
    async def _exclusive(self, upload: Upload) -> AsyncIterator[tuple[Upload, int | None]]:
        """
        The session as it is now, and its file, which no other request writes to meanwhile.

        Raises UploadOccupied, UploadUnknown.
        """
        if self._files is None:
            yield upload, None
            return
        try:
            file = await asyncio.to_thread(self._files.open_writer, upload.state)
        except UploadBusy:
            raise UploadOccupied(upload.id) from None
        except ObjectMissing:
            raise UploadUnknown(upload.id) from None
        try:
            # Another request may have gone on between the caller's look and the lock.
            current = await self.get(upload.repository, upload.id)
            try:
                await asyncio.to_thread(self._files.position, file, current.state)
            except ObjectMissing:
                raise UploadUnknown(upload.id) from None
            yield current, file
        finally:
            os.close(file)

    async def _hash(self, location: str, algorithm: str) -> str:
        hasher = hashlib.new(algorithm)
        async with contextlib.aclosing(self._storage.open(location)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(hasher.update, piece)
        return f"{algorithm}:{hasher.hexdigest()}"

    def _remember(self, upload: Upload, hasher: _Hasher) -> None:
        self._hashers[upload.id] = hasher
        while len(self._hashers) > _KEPT_HASHERS:
            self._hashers.popitem(last=False)


class _Hasher:
    """A hash that counts its bytes."""

    __slots__ = ("_algorithm", "_hash", "size")

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.size = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"


async def _hashing(
    pieces: AsyncIterator[bytes], hasher: _Hasher, room: int | None, limit: int | None
) -> AsyncIterator[bytes]:
    total = 0
    async for piece in pieces:
        total += len(piece)
        if room is not None and total > room:
            raise BlobTooLarge(limit or 0)
        hasher.update(piece)
        yield piece
