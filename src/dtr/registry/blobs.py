"""
Blobs as repositories hold them: finding, mounting and deleting.

A blob is reached only through a repository that links it. A yes to "is it there?" is a promise for one lease
(`Lifetimes.lease`); it costs a write only when the link waits for a review that would come earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, and_, bindparam, select, update

from dtr.db import Statement, now
from dtr.db.schema import blob_contents, blobs, manifest_references, repositories, repository_blobs
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.registry._links import link, unlink
from dtr.registry.errors import BlobReferenced, BlobUnknown, RepositoryUnknown

if TYPE_CHECKING:
    from dtr.db import Database, Transaction
    from dtr.registry.lifetimes import Lifetimes

_lease = bindparam("lease", type_=BigInteger)
_hold = bindparam("hold", type_=BigInteger)
_held_by_path = (
    select(
        repositories.c.id,
        blobs.c.size,
        blobs.c.location,
        and_(repository_blobs.c.review_at.is_not(None), repository_blobs.c.review_at < now() + _lease),
    )
    .join_from(repositories, repository_blobs, repository_blobs.c.repository_id == repositories.c.id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(
        repositories.c.path == bindparam("path"),
        repositories.c.deleted_at.is_(None),
        repository_blobs.c.digest == bindparam("digest"),
        blobs.c.state == "present",
    )
)
_FIND = Statement(_held_by_path)
_FIND_CONTENT = Statement(
    lambda: _held_by_path.add_columns(blob_contents.c.content).outerjoin(
        blob_contents, blob_contents.c.digest == blobs.c.digest
    )
)
_RENEW = Statement(
    lambda: (
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == bindparam("repository"),
            repository_blobs.c.digest == bindparam("linked"),
            repository_blobs.c.review_at.is_not(None),
        )
        .values(review_at=now() + _hold)
    )
)
_LOCK_BLOB = Statement(
    lambda: (
        select(blobs.c.size, blobs.c.state, blobs.c.location)
        .where(blobs.c.digest == bindparam("digest"))
        .with_for_update(key_share=True)  # FOR NO KEY UPDATE
    )
)
_LOCK_BLOB_TO_DELETE = Statement(
    lambda: select(blobs.c.size, blobs.c.location).where(blobs.c.digest == bindparam("digest")).with_for_update()
)
_LOCK_LINK_TO_DELETE = Statement(
    lambda: (
        select(repository_blobs.c.digest)
        .where(
            repository_blobs.c.repository_id == bindparam("repository"),
            repository_blobs.c.digest == bindparam("digest"),
        )
        .with_for_update()
    )
)
_REFERENCED_BY = Statement(
    lambda: (
        select(manifest_references.c.manifest)
        .where(
            manifest_references.c.repository_id == bindparam("repository"),
            manifest_references.c.kind == "blob",
            manifest_references.c.target == bindparam("digest"),
        )
        .limit(1)
    )
)
_LIVE = Statement(
    lambda: select(repositories.c.id).where(
        repositories.c.id == bindparam("repository"), repositories.c.deleted_at.is_(None)
    )
)
_MARK_MISSING = Statement(
    lambda: (
        update(blobs)
        .where(blobs.c.digest == bindparam("which"), blobs.c.location == bindparam("at_location"))
        .values(state="missing")
    )
)


class Blob(Struct, frozen=True):
    """
    A blob as a repository holds it: `size` in bytes, `location` in the storage.

    A small one may have no object there; then `content` has its bytes, when they were asked for.
    """

    repository: int
    digest: str
    size: int
    location: str | None
    content: bytes | None = None


class Blobs:
    """The blobs of all repositories."""

    def __init__(self, database: Database, lifetimes: Lifetimes) -> None:
        self._database = database
        self._lifetimes = lifetimes

    async def get(self, path: str, digest: str, *, promise: bool = False, content: bool = False) -> Blob:
        """
        The blob that the repository at `path` holds, with its `content` when it has no object.

        With `promise` it stays there for one lease, for a client that may push and would not send it again.
        Raises BlobUnknown.
        """
        while True:
            row = await self._database.fetch_one(
                _FIND_CONTENT if content else _FIND,
                path=path,
                digest=digest,
                lease=self._lifetimes.lease if promise else 0,
            )
            if row is None:
                raise BlobUnknown(digest)
            repository, size, location, due, *found = row
            if not (promise and due) or await self._renew(repository, digest):
                return Blob(repository, digest, size, location, *found)

    async def mount(self, source: Blob, repository: int) -> bool:
        """
        Make `repository` hold `source` too. False: it has gone meanwhile, and is to be uploaded.

        Raises RepositoryUnknown.
        """

        async def work(tx: Transaction) -> bool:
            if await tx.fetch_one(_LIVE, repository=repository) is None:
                raise RepositoryUnknown(str(repository))
            row = await tx.fetch_one(_LOCK_BLOB, digest=source.digest)
            if row is None or row[1] != "present":
                return False
            await link(tx, repository, source.digest, size=row[0], hold=self._lifetimes.hold, is_new=False)
            return True

        return await self._database.unit(work)

    async def delete(self, repository: int, digest: str, *, by: Actor = SYSTEM) -> None:
        """Take the blob from the repository. Raises BlobUnknown, BlobReferenced."""

        async def work(tx: Transaction) -> None:
            blob = await tx.fetch_one(_LOCK_BLOB_TO_DELETE, digest=digest)
            if blob is None or not await tx.fetch_one(_LOCK_LINK_TO_DELETE, repository=repository, digest=digest):
                raise BlobUnknown(digest)
            holder = await tx.fetch_one(_REFERENCED_BY, repository=repository, digest=digest)
            if holder is not None:
                raise BlobReferenced(digest, holder[0])
            await unlink(tx, repository, digest, size=blob[0], delete_delay=self._lifetimes.delete_delay)
            await record(
                tx, Event(type="DELETE", actor=by, object=Object("blob", digest), repository_id=repository)
            )

        await self._database.unit(work)

    async def mark_missing(self, blob: Blob) -> None:
        """Its object is not in the storage: nobody is told that it is there until a push brings it again."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_MARK_MISSING, which=blob.digest, at_location=blob.location)

        await self._database.unit(work)

    async def _renew(self, repository: int, digest: str) -> bool:
        async def work(tx: Transaction) -> bool:
            changed = await tx.execute(_RENEW, repository=repository, linked=digest, hold=self._lifetimes.hold)
            return changed > 0

        # Not changed: collected or referenced meanwhile; the next look tells which.
        return await self._database.unit(work)
