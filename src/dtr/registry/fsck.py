"""
The audit: whether the database says what the storage has, and whether that is whole.

It streams: pages of rows by key, and the listing of the storage in the same order, merged; memory does not grow
with what is stored. It deletes nothing: with `repair` it marks blobs as missing, so that the next push brings them
again, and leaves tombstones for objects that nothing names, which the sweeper deletes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, exists, or_, select, update

from dtr.db import Statement
from dtr.db.schema import blobs, gc_objects, manifest_references, manifests, repository_blobs, uploads
from dtr.oci import Digest
from dtr.registry._links import bury
from dtr.storage import ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from dtr.db import Database, Row, Transaction
    from dtr.storage import Driver, Stored

_PAGE = 1000
_DAY_MS = 86_400_000
_YOUNG = timedelta(days=1)
"""An object that is younger may belong to an upload whose row came after we looked."""

_BLOBS = Statement(
    select(blobs.c.location, blobs.c.digest, blobs.c.size, blobs.c.state)
    .where(blobs.c.location > bindparam("after"))
    .order_by(blobs.c.location)
    .limit(_PAGE)
)
_NAMED = Statement(
    select(blobs.c.location)
    .where(blobs.c.location == bindparam("location"))
    .union(
        select(uploads.c.location).where(uploads.c.location == bindparam("location")),
        select(gc_objects.c.location).where(gc_objects.c.location == bindparam("location")),
    )
)
_MANIFESTS = Statement(
    select(manifests.c.repository_id, manifests.c.digest, manifests.c.payload)
    .where(
        or_(
            manifests.c.repository_id > bindparam("repository"),
            and_(manifests.c.repository_id == bindparam("repository"), manifests.c.digest > bindparam("digest")),
        )
    )
    .order_by(manifests.c.repository_id, manifests.c.digest)
    .limit(_PAGE // 10)
)
_LACKING = Statement(
    select(manifest_references.c.target)
    .where(
        manifest_references.c.repository_id == bindparam("repository"),
        manifest_references.c.manifest == bindparam("digest"),
        manifest_references.c.kind == "blob",
        ~exists().where(
            repository_blobs.c.repository_id == manifest_references.c.repository_id,
            repository_blobs.c.digest == manifest_references.c.target,
        ),
    )
    .limit(10)
)
_MARK = Statement(
    update(blobs)
    .where(blobs.c.digest == bindparam("which"), blobs.c.location == bindparam("at_location"))
    .values(state=bindparam("new_state"))
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be; `is_damage`: content is lost."""

    is_damage: bool
    text: str


class Fsck:
    """One audit."""

    def __init__(self, database: Database, storage: Driver) -> None:
        self._database = database
        self._storage = storage
        self._blobs = 0
        self._objects = 0
        self._manifests = 0

    @property
    def counted(self) -> str:
        """How much was looked at."""
        return f"{self._blobs} blobs, {self._objects} objects, {self._manifests} manifests"

    async def run(self, *, content: bool = False, repair: bool = False) -> AsyncIterator[Finding]:
        """Look at everything; with `content`, read and hash every blob."""
        rows = self._every_blob()
        objects = self._storage.list()
        async with contextlib.aclosing(rows), contextlib.aclosing(objects):
            row: Row | None = await anext(rows, None)
            stored: Stored | None = await anext(objects, None)
            while row is not None or stored is not None:
                if row is not None and (stored is None or row[0] <= stored.location):
                    size = stored.size if stored is not None and stored.location == row[0] else None
                    async for finding in self._blob(row, size, content=content, repair=repair):
                        yield finding
                    if size is not None:
                        stored = await self._next(objects)
                    row = await anext(rows, None)
                elif stored is not None:
                    async for finding in self._stray(stored, repair=repair):
                        yield finding
                    stored = await self._next(objects)
        async for finding in self._every_manifest():
            yield finding

    async def _next(self, objects: Any) -> Stored | None:
        self._objects += 1
        found: Stored | None = await anext(objects, None)
        return found

    async def _every_blob(self) -> AsyncGenerator[Row, None]:
        after = ""
        while page := await self._database.fetch_all(_BLOBS, after=after):
            for row in page:
                yield row
            after = page[-1][0]

    async def _blob(self, row: Row, size: int | None, *, content: bool, repair: bool) -> AsyncIterator[Finding]:
        location, digest, expected, state = row
        self._blobs += 1
        if size is None:
            # The listing began before this row; ask for the object itself.
            with contextlib.suppress(ObjectMissing):
                size = await self._storage.stat(location)
        wrong = None
        if size is None:
            wrong = "has no object"
        elif size != expected:
            wrong = f"has an object of {size} bytes instead of {expected}"
        elif content and await self._digest(location, digest) != digest:
            wrong = "has an object with other content"
        if wrong is None:
            if state == "missing":
                yield Finding(False, f"blob {digest} was marked as missing and is there")
                if repair:
                    await self._mark(digest, location, "present")
            return
        if await self._database.fetch_one(_NAMED, location=location) is None:
            return  # collected meanwhile
        yield Finding(True, f"blob {digest} {wrong} at {location}")
        if repair and state == "present":
            await self._mark(digest, location, "missing")

    async def _stray(self, stored: Stored, *, repair: bool) -> AsyncIterator[Finding]:
        # Looked up after it was listed: a location moves between the tables in one transaction.
        if await self._database.fetch_one(_NAMED, location=stored.location) is not None:
            return
        if datetime.now(UTC) - stored.modified_at < _YOUNG:
            return
        yield Finding(False, f"object {stored.location} of {stored.size} bytes belongs to nothing")
        if repair:
            await self._database.unit(lambda tx: bury(tx, stored.location, size=stored.size, delay=_DAY_MS))

    async def _every_manifest(self) -> AsyncIterator[Finding]:
        repository, digest = 0, ""
        while page := await self._database.fetch_all(_MANIFESTS, repository=repository, digest=digest):
            for repository, digest, payload in page:
                self._manifests += 1
                if Digest.of(payload, digest.partition(":")[0]) != digest:
                    yield Finding(True, f"manifest {digest} in repository {repository} has other content")
                for (target,) in await self._database.fetch_all(_LACKING, repository=repository, digest=digest):
                    yield Finding(True, f"manifest {digest} in repository {repository} lacks blob {target}")

    async def _digest(self, location: str, digest: str) -> str:
        algorithm = digest.partition(":")[0]
        hasher = hashlib.new(algorithm)
        async with contextlib.aclosing(self._storage.open(location)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(hasher.update, piece)
        return f"{algorithm}:{hasher.hexdigest()}"

    async def _mark(self, digest: str, location: str, state: str) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_MARK, which=digest, at_location=location, new_state=state)

        await self._database.unit(work)
