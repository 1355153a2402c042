"""
The audit: whether the database says what the storage has, and whether that is whole.

It streams: pages of rows by key, and the listing of the storage in the order of the blobs' locations, merged;
memory does not grow with what is stored. Pushes go on meanwhile: what looks wrong is looked at again, in an order
that tells a change from damage, before it is told.

It deletes nothing. With `repair` it marks blobs as missing, so that the next push brings them again; leaves
tombstones for what nothing names, which the sweeper deletes; links blobs again that manifests need; sets dates of
review that lack; and corrects counts. What only a push can bring back stays a finding until it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Text,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import (
    blob_contents,
    blobs,
    cached_repositories,
    gc_objects,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
    uploads,
    usage,
    usage_deltas,
)
from dtr.oci import Digest
from dtr.registry._links import bury, link
from dtr.registry.lifetimes import DAY, Lifetimes
from dtr.storage import ObjectMissing, StorageError, UploadState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from dtr.db import Database, Row, Transaction
    from dtr.storage import Driver, Stored

_PAGE = 1000
_PAGE_OF_CONTENTS = 100
_BYTES_AT_ONCE = 4 * 1024 * 1024
_YOUNG = timedelta(days=1)
"""An object that is younger may belong to an import that has not written its row yet."""

_hold = bindparam("hold", type_=BigInteger)
_after = tuple_(bindparam("repository", type_=BigInteger), bindparam("digest", type_=Text))

_BLOBS = Statement(
    select(
        blobs.c.location,
        blobs.c.digest,
        blobs.c.size,
        blobs.c.state,
        exists().where(repository_blobs.c.digest == blobs.c.digest),
    )
    .where(blobs.c.location > bindparam("after"))
    .order_by(blobs.c.location)
    .limit(_PAGE)
)
_CONTENTS = Statement(
    select(
        blobs.c.digest,
        blobs.c.size,
        blobs.c.state,
        exists().where(repository_blobs.c.digest == blobs.c.digest),
        blob_contents.c.content,
    )
    .outerjoin(blob_contents, blob_contents.c.digest == blobs.c.digest)
    .where(blobs.c.location.is_(None), blobs.c.digest > bindparam("after"))
    .order_by(blobs.c.digest)
    .limit(_PAGE_OF_CONTENTS)
)
_STILL_SO = Statement(
    select(blobs.c.digest).where(
        blobs.c.digest == bindparam("digest"),
        blobs.c.location == bindparam("location"),
        blobs.c.state == bindparam("state"),
    )
)
_NAMED = Statement(
    select(blobs.c.location)
    .where(blobs.c.location == bindparam("location"))
    .union(
        select(uploads.c.location).where(uploads.c.location == bindparam("location")),
        select(gc_objects.c.location).where(gc_objects.c.location == bindparam("location")),
    )
)
_parent, _subject = manifest_references.alias("parent"), manifests.alias("subject")
_is_held = or_(
    exists().where(tags.c.repository_id == manifests.c.repository_id, tags.c.manifest == manifests.c.digest),
    exists().where(
        _parent.c.repository_id == manifests.c.repository_id,
        _parent.c.kind == "manifest",
        _parent.c.target == manifests.c.digest,
    ),
    exists().where(
        _subject.c.repository_id == manifests.c.repository_id, _subject.c.digest == manifests.c.subject
    ),
)
_MANIFESTS = Statement(
    select(
        manifests.c.repository_id,
        manifests.c.digest,
        func.length(manifests.c.payload),
        or_(manifests.c.review_at.is_not(None), _is_held),
    )
    .where(tuple_(manifests.c.repository_id, manifests.c.digest) > _after)
    .order_by(manifests.c.repository_id, manifests.c.digest)
    .limit(_PAGE)
)
_PAYLOADS = Statement(
    select(manifests.c.digest, manifests.c.payload).where(
        manifests.c.repository_id == bindparam("repository"),
        manifests.c.digest >= bindparam("first"),
        manifests.c.digest <= bindparam("last"),
    )
)
_is_referenced = exists().where(
    manifest_references.c.repository_id == repository_blobs.c.repository_id,
    manifest_references.c.kind == "blob",
    manifest_references.c.target == repository_blobs.c.digest,
)
_LINKS = Statement(
    select(
        repository_blobs.c.repository_id,
        repository_blobs.c.digest,
        or_(repository_blobs.c.review_at.is_not(None), _is_referenced),
    )
    .where(tuple_(repository_blobs.c.repository_id, repository_blobs.c.digest) > _after)
    .order_by(repository_blobs.c.repository_id, repository_blobs.c.digest)
    .limit(_PAGE)
)
_key = (
    manifest_references.c.repository_id,
    manifest_references.c.manifest,
    manifest_references.c.kind,
    manifest_references.c.target,
)
_REFERENCES = Statement(
    select(
        *_key,
        case(
            (
                manifest_references.c.kind == "blob",
                exists().where(
                    repository_blobs.c.repository_id == manifest_references.c.repository_id,
                    repository_blobs.c.digest == manifest_references.c.target,
                ),
            ),
            else_=exists().where(
                manifests.c.repository_id == manifest_references.c.repository_id,
                manifests.c.digest == manifest_references.c.target,
            ),
        ),
    )
    .where(
        tuple_(*_key)
        > tuple_(
            bindparam("repository", type_=BigInteger),
            bindparam("manifest", type_=Text),
            bindparam("kind", type_=Text),
            bindparam("target", type_=Text),
        ),
        # A cache has what was asked for.
        ~exists().where(cached_repositories.c.repository_id == manifest_references.c.repository_id),
    )
    .order_by(*_key)
    .limit(_PAGE)
)

# What is there less what is counted; in one statement, hence of one moment.
_held_blobs = repository_blobs.join(blobs).join(repositories)
_in_namespaces = (
    select(repositories.c.namespace_id, blobs.c.digest, blobs.c.size)
    .select_from(_held_blobs)
    .distinct()
    .subquery("in_namespaces")
)
_changes = union_all(
    select(
        (literal("repository:") + cast(repository_blobs.c.repository_id, Text)).label("scope"),
        blobs.c.size.label("bytes"),
    ).select_from(_held_blobs),
    select(literal("namespace:") + _in_namespaces.c.namespace_id, _in_namespaces.c.size).where(
        _in_namespaces.c.namespace_id.is_not(None)
    ),
    select(literal("*"), blobs.c.size),
    select(usage.c.scope, -usage.c.bytes),
    select(usage_deltas.c.scope, -usage_deltas.c.bytes),
).subquery("changes")
_difference = cast(func.sum(_changes.c.bytes), BigInteger)
_miscounts = select(_changes.c.scope, _difference).group_by(_changes.c.scope).having(_difference != 0)
_MISCOUNTS = Statement(_miscounts)
_CORRECT_COUNTS = Statement(insert(usage_deltas).from_select(["scope", "bytes"], _miscounts))

# --- repairing ------------------------------------------------------------------------------------------------

_MARK = Statement(
    update(blobs)
    .where(blobs.c.digest == bindparam("which"), blobs.c.location.is_not_distinct_from(bindparam("at_location")))
    .values(state=bindparam("new_state"))
)
_LOCK_BLOB = Statement(
    select(blobs.c.size).where(blobs.c.digest == bindparam("digest")).with_for_update(key_share=True)
)
_IS_NEEDED = Statement(
    select(manifest_references.c.target)
    .where(
        manifest_references.c.repository_id == bindparam("repository"),
        manifest_references.c.kind == "blob",
        manifest_references.c.target == bindparam("digest"),
    )
    .limit(1)
)
_DELETE_UNLINKED = Statement(
    delete(blobs)
    .where(blobs.c.digest == bindparam("digest"), ~exists().where(repository_blobs.c.digest == blobs.c.digest))
    .returning(blobs.c.location, blobs.c.size)
)
_QUEUE_LINK = Statement(
    update(repository_blobs)
    .where(
        repository_blobs.c.repository_id == bindparam("repository"),
        repository_blobs.c.digest == bindparam("which"),
        repository_blobs.c.review_at.is_(None),
    )
    .values(review_at=now() + _hold)
)
_QUEUE_MANIFEST = Statement(
    update(manifests)
    .where(
        manifests.c.repository_id == bindparam("repository"),
        manifests.c.digest == bindparam("which"),
        manifests.c.review_at.is_(None),
    )
    .values(review_at=now() + _hold)
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be; `is_damage`: content is lost."""

    is_damage: bool
    text: str


class Fsck:
    """One audit."""

    def __init__(
        self,
        database: Database,
        storage: Driver,
        lifetimes: Lifetimes | None = None,
        *,
        sparse_manifests: bool = False,
    ) -> None:
        """With `sparse_manifests` a manifest may name what is not there."""
        self._database = database
        self._storage = storage
        self._lifetimes = lifetimes or Lifetimes()
        self._sparse_manifests = sparse_manifests
        self._blobs = 0
        self._missing = 0
        self._objects = 0
        self._manifests = 0

    @property
    def counted(self) -> str:
        """How much was looked at."""
        missing = f" ({self._missing} known to be missing)" if self._missing else ""
        return f"{self._blobs} blobs{missing}, {self._objects} objects, {self._manifests} manifests"

    async def run(self, *, content: bool = False, repair: bool = False) -> AsyncIterator[Finding]:
        """Look at everything; with `content`, read and hash every blob."""
        for part in (
            # Before the blobs: some need a link more than a tombstone.
            self._check_references(repair=repair),
            self._check_storage(content=content, repair=repair),
            self._check_uploads(repair=repair),
            self._check_contents(repair=repair),
            self._check_links(repair=repair),
            self._check_manifests(repair=repair),
            self._check_counts(repair=repair),
        ):
            async with contextlib.aclosing(part) as findings:
                async for finding in findings:
                    yield finding

    # --- storage against database ------------------------------------------------------------------------------

    async def _check_storage(self, *, content: bool, repair: bool) -> AsyncGenerator[Finding, None]:
        rows, objects = self._every_blob(), self._storage.list()
        async with contextlib.aclosing(rows), contextlib.aclosing(objects):
            row = await anext(rows, None)
            stored = await anext(objects, None)
            while row is not None or stored is not None:
                if row is None or (stored is not None and stored.location < row[0]):
                    assert stored is not None
                    finding = await self._look_at_stray(stored, repair=repair)
                    self._objects += 1
                    stored = await anext(objects, None)
                else:
                    size = None
                    if stored is not None and stored.location == row[0]:
                        size = stored.size
                        self._objects += 1
                        stored = await anext(objects, None)
                    finding = await self._look_at_blob(row, size, content=content, repair=repair)
                    self._blobs += 1
                    row = await anext(rows, None)
                if finding is not None:
                    yield finding

    async def _every_blob(self) -> AsyncGenerator[Row, None]:
        after = ""
        while page := await self._database.fetch_all(_BLOBS, after=after):
            for row in page:
                yield row
            after = page[-1][0]

    async def _look_at_blob(self, row: Row, size: int | None, *, content: bool, repair: bool) -> Finding | None:
        location, digest, expected, state, is_linked = row
        if not is_linked:
            return await self._look_at_unlinked(digest, repair=repair)
        # That the size is right does not tell why it was marked.
        try:
            wrong = await self._find_wrong(location, digest, expected, size, content=content or state == "missing")
        except StorageError as error:
            return Finding(True, f"blob {digest} at {location} cannot be read: {error}")
        if (wrong is None) == (state == "present"):
            self._missing += wrong is not None
            return None
        # Objects go only after their rows: if the row is still the same, it was no change that we saw.
        still_so = await self._database.fetch_one(_STILL_SO, digest=digest, location=location, state=state)
        if still_so is None:
            return None
        if wrong is None:
            if repair:
                await self._mark(digest, location, "present")
            return Finding(False, f"blob {digest} was marked as missing and is there")
        if repair:
            await self._mark(digest, location, "missing")
        return Finding(True, f"blob {digest} {wrong} at {location}")

    async def _find_wrong(
        self, location: str, digest: str, expected: int, size: int | None, *, content: bool
    ) -> str | None:
        """What is wrong with the object, of `size` bytes if it was listed. Raises StorageError."""
        try:
            if size is None:  # perhaps stored after the listing began
                size = await self._storage.stat(location)
            if size != expected:
                return f"has an object of {size} bytes instead of {expected}"
            if content and await self._digest(location, digest) != digest:
                return "has an object with other content"
        except ObjectMissing:
            return "has no object"
        return None

    async def _look_at_unlinked(self, digest: str, *, repair: bool) -> Finding:
        async def work(tx: Transaction) -> None:
            gone = await tx.fetch_one(_DELETE_UNLINKED, digest=digest)
            if gone is not None and gone[0] is not None:
                await bury(tx, gone[0], size=gone[1], delay=self._lifetimes.delete_delay)

        if repair:
            await self._database.unit(work)
        return Finding(False, f"blob {digest} is in no repository")

    async def _look_at_stray(self, stored: Stored, *, repair: bool) -> Finding | None:
        # After it was listed, its name may have moved between the tables, but only in one transaction.
        if await self._is_named(stored.location):
            return None
        if datetime.now(UTC) - stored.modified_at < _YOUNG:
            return None
        try:
            await self._storage.stat(stored.location)
        except ObjectMissing:  # swept since it was listed
            return None
        if repair:
            await self._database.unit(lambda tx: bury(tx, stored.location, size=stored.size, delay=DAY))
        return Finding(False, f"object {stored.location} of {stored.size} bytes belongs to nothing")

    async def _check_uploads(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        """What is stored of uploads that nothing names: nobody goes on with them, and nobody would delete them."""
        async with contextlib.aclosing(self._storage.list_uploads()) as unfinished:
            async for stored in unfinished:
                location = stored.location
                # After it was listed: a row is there before the first byte.
                if datetime.now(UTC) - stored.modified_at < _YOUNG or await self._is_named(location):
                    continue
                if repair:
                    await self._database.unit(partial(_bury_upload, stored))
                yield Finding(False, f"upload to {location} belongs to nothing")

    async def _is_named(self, location: str) -> bool:
        return await self._database.fetch_one(_NAMED, location=location) is not None

    async def _digest(self, location: str, digest: str) -> str:
        algorithm = digest.partition(":")[0]
        hasher = hashlib.new(algorithm)
        async with contextlib.aclosing(self._storage.open(location)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(hasher.update, piece)
        return f"{algorithm}:{hasher.hexdigest()}"

    async def _mark(self, digest: str, location: str | None, state: str) -> None:
        await self._change(_MARK, which=digest, at_location=location, new_state=state)

    # --- inside the database -------------------------------------------------------------------------------------

    async def _check_contents(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        """Blobs without an object; a row and its content change together, so there is nothing to look at again."""
        after = ""
        while page := await self._database.fetch_all(_CONTENTS, after=after):
            for digest, size, state, is_linked, content in page:
                after = digest
                self._blobs += 1
                finding = None if is_linked else await self._look_at_unlinked(digest, repair=repair)
                is_whole = (
                    content is not None
                    and len(content) == size
                    and Digest.of(content, digest.partition(":")[0]) == digest
                )
                if is_whole != (state == "present"):
                    if repair:
                        await self._mark(digest, None, "present" if is_whole else "missing")
                    if is_whole:
                        finding = Finding(False, f"blob {digest} was marked as missing and is there")
                    else:
                        finding = Finding(True, f"blob {digest} has not its content in the database")
                elif not is_whole:
                    self._missing += 1
                if finding is not None:
                    yield finding

    async def _check_references(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        if self._sparse_manifests:
            return
        after = {"repository": 0, "manifest": "", "kind": "", "target": ""}
        while page := await self._database.fetch_all(_REFERENCES, **after):
            for repository, manifest, kind, target, is_there in page:
                if is_there:
                    continue
                if kind == "blob" and repair:
                    await self._link(repository, target)
                yield Finding(True, f"manifest {manifest} in repository {repository} lacks {kind} {target}")
            after = dict(zip(after, page[-1], strict=False))

    async def _link(self, repository: int, digest: str) -> None:
        """Give a repository its blob back, when another one has it."""

        async def work(tx: Transaction) -> None:
            blob = await tx.fetch_one(_LOCK_BLOB, digest=digest)
            if blob is not None and await tx.fetch_one(_IS_NEEDED, repository=repository, digest=digest):
                await link(tx, repository, digest, size=blob[0], hold=self._lifetimes.hold, is_new=False)

        await self._database.unit(work)

    async def _check_links(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        repository, digest = 0, ""
        while page := await self._database.fetch_all(_LINKS, repository=repository, digest=digest):
            for repository, digest, is_kept in page:
                if is_kept:
                    continue
                if repair:
                    await self._change(_QUEUE_LINK, repository=repository, which=digest, hold=self._lifetimes.hold)
                yield Finding(False, f"blob {digest} in repository {repository} is needed by nothing, for ever")

    async def _check_manifests(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        repository, digest = 0, ""
        while page := await self._database.fetch_all(_MANIFESTS, repository=repository, digest=digest):
            self._manifests += len(page)
            for number, first, last in _in_portions(page):
                for digest, payload in await self._database.fetch_all(
                    _PAYLOADS, repository=number, first=first, last=last
                ):
                    if Digest.of(payload, digest.partition(":")[0]) != digest:
                        yield Finding(True, f"manifest {digest} in repository {number} has other content")
            for repository, digest, _, is_kept in page:
                if is_kept:
                    continue
                if repair:
                    await self._change(
                        _QUEUE_MANIFEST,
                        repository=repository,
                        which=digest,
                        hold=self._lifetimes.hold_manifest,
                    )
                yield Finding(False, f"manifest {digest} in repository {repository} is held by nothing, for ever")

    async def _check_counts(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        for scope, difference in await self._database.fetch_all(_MISCOUNTS):
            yield Finding(False, f"the usage of {scope} is counted wrong, {difference:+} bytes are right")
        if repair:
            await self._change(_CORRECT_COUNTS)

    async def _change(self, statement: Statement, **parameters: Any) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(statement, **parameters)

        await self._database.unit(work)


async def _bury_upload(stored: Stored, tx: Transaction) -> None:
    state = UploadState(stored.location).encode()
    await bury(tx, stored.location, size=stored.size, delay=DAY, driver_state=state)


def _in_portions(page: list[Row]) -> Iterator[tuple[int, str, str]]:
    """
    The manifests of a page, few enough at a time for their bytes: repository, first and last digest.

    A row begins with repository, digest and size in bytes.
    """
    start, total = 0, 0
    for position, row in enumerate(page):
        total += row[2]
        following = page[position + 1] if position + 1 < len(page) else None
        if following is None or following[0] != row[0] or total + following[2] > _BYTES_AT_ONCE:
            yield row[0], page[start][1], row[1]
            start, total = position + 1, 0
