"""
The audit: whether the database says what the storages have, and whether that is whole.

It streams: pages of rows by key, and the listing of each storage in the order of the blobs' locations, merged;
memory does not grow with what is stored. Pushes go on meanwhile: what looks wrong is looked at again, in an order
that tells a change from damage, before it is told. Of a storage that cannot be listed, or has nothing of all that
it should have, nothing is concluded: it may be a mount that is not there.

It deletes nothing. With `repair` it brings lost blobs back, if their content is still somewhere (`Restorer`);
marks as missing what it does not find, so that the next push brings it again; puts damaged objects in quarantine
for a month; leaves tombstones for what nothing names, which the sweeper deletes; links blobs again that manifests
need; sets dates of review that lack; and corrects counts. What only a push can bring back stays a finding until it
came. What another registry left in a storage is counted, and is nobody's business here.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct
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
    audit_positions,
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
from dtr.oci import Digest, OciError, parse_manifest
from dtr.registry._links import bury, link
from dtr.registry._objects import digest_of, put_in_quarantine
from dtr.registry._restoring import Restorer
from dtr.registry.lifetimes import DAY, Lifetimes
from dtr.registry.pace import Pace
from dtr.storage import ObjectMissing, StorageError, StorageUnavailable, UploadState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from dtr.db import Database, Row, Transaction
    from dtr.registry._restoring import Refetch
    from dtr.storage import Storages, Stored

_PAGE = 1000
_PAGE_OF_CONTENTS = 100
_BYTES_AT_ONCE = 4 * 1024 * 1024
_YOUNG = timedelta(days=1)
"""An object that is younger may belong to an import that has not written its row yet."""
QUARANTINE = 30 * DAY
"""Milliseconds for which damaged objects stay."""
_MANY = 10
"""A storage without any object that should have so many blobs is not there."""
_NOTE_SECONDS = 30.0
"""How often it is written down how far the reading came."""
_OURS = re.compile(r"[a-z0-9-]+:[0-9]{8}/[0-9]{4}/[0-9a-f]{32}")
"""Objects that are called so were made here (`new_location`)."""
_CONTENT = "content"
_LAST = "~"
"""No name of a storage comes after it."""

_hold = bindparam("hold", type_=BigInteger)
_after = tuple_(bindparam("repository", type_=BigInteger), bindparam("digest", type_=Text))

_BLOBS = Statement(
    lambda: (
        select(
            blobs.c.location,
            blobs.c.digest,
            blobs.c.size,
            blobs.c.state,
            exists().where(repository_blobs.c.digest == blobs.c.digest),
        )
        .where(blobs.c.location > bindparam("after"), blobs.c.location < bindparam("before"))
        .order_by(blobs.c.location)
        .limit(_PAGE)
    )
)
_FIRST = Statement(
    lambda: (
        select(blobs.c.location).where(blobs.c.location > bindparam("after")).order_by(blobs.c.location).limit(1)
    )
)
_COUNT = Statement(
    lambda: (
        select(func.count())
        .select_from(blobs)
        .where(
            blobs.c.location > bindparam("after"),
            blobs.c.location < bindparam("before"),
            blobs.c.state == "present",
        )
    )
)
_CONTENTS = Statement(
    lambda: (
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
)
_STILL_SO = Statement(
    lambda: select(blobs.c.digest).where(
        blobs.c.digest == bindparam("digest"),
        blobs.c.location == bindparam("location"),
        blobs.c.state == bindparam("state"),
    )
)
_NAMED = Statement(
    lambda: (
        select(blobs.c.location)
        .where(blobs.c.location == bindparam("location"))
        .union(
            select(uploads.c.location).where(uploads.c.location == bindparam("location")),
            select(gc_objects.c.location).where(gc_objects.c.location == bindparam("location")),
        )
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
    lambda: (
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
)
_PAYLOAD = Statement(
    lambda: select(manifests.c.media_type, manifests.c.payload).where(
        manifests.c.repository_id == bindparam("repository"), manifests.c.digest == bindparam("digest")
    )
)
_PAYLOADS = Statement(
    lambda: select(manifests.c.digest, manifests.c.payload).where(
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
    lambda: (
        select(
            repository_blobs.c.repository_id,
            repository_blobs.c.digest,
            or_(repository_blobs.c.review_at.is_not(None), _is_referenced),
        )
        .where(tuple_(repository_blobs.c.repository_id, repository_blobs.c.digest) > _after)
        .order_by(repository_blobs.c.repository_id, repository_blobs.c.digest)
        .limit(_PAGE)
    )
)
_key = (
    manifest_references.c.repository_id,
    manifest_references.c.manifest,
    manifest_references.c.kind,
    manifest_references.c.target,
)
_REFERENCES = Statement(
    lambda: (
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
_CORRECT_COUNTS = Statement(lambda: insert(usage_deltas).from_select(["scope", "bytes"], _miscounts))

# --- repairing ------------------------------------------------------------------------------------------------

_MARK = Statement(
    lambda: (
        update(blobs)
        .where(
            blobs.c.digest == bindparam("which"), blobs.c.location.is_not_distinct_from(bindparam("at_location"))
        )
        .values(state=bindparam("new_state"))
    )
)
_LOCK_BLOB = Statement(
    lambda: select(blobs.c.size).where(blobs.c.digest == bindparam("digest")).with_for_update(key_share=True)
)
_IS_NEEDED = Statement(
    lambda: (
        select(manifest_references.c.target)
        .where(
            manifest_references.c.repository_id == bindparam("repository"),
            manifest_references.c.kind == "blob",
            manifest_references.c.target == bindparam("digest"),
        )
        .limit(1)
    )
)
_DELETE_UNLINKED = Statement(
    lambda: (
        delete(blobs)
        .where(blobs.c.digest == bindparam("digest"), ~exists().where(repository_blobs.c.digest == blobs.c.digest))
        .returning(blobs.c.location, blobs.c.size)
    )
)
_QUEUE_LINK = Statement(
    lambda: (
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == bindparam("repository"),
            repository_blobs.c.digest == bindparam("which"),
            repository_blobs.c.review_at.is_(None),
        )
        .values(review_at=now() + _hold)
    )
)
_QUEUE_MANIFEST = Statement(
    lambda: (
        update(manifests)
        .where(
            manifests.c.repository_id == bindparam("repository"),
            manifests.c.digest == bindparam("which"),
            manifests.c.review_at.is_(None),
        )
        .values(review_at=now() + _hold)
    )
)

# --- what it remembers ------------------------------------------------------------------------------------------

_position = insert(audit_positions).values(
    name=_CONTENT, location=bindparam("location"), updated_at=now()
)  # fmt: skip
_NOTE_POSITION = Statement(
    lambda: _position.on_conflict_do_update(
        index_elements=["name"],
        set_={"location": _position.excluded.location, "updated_at": _position.excluded.updated_at},
    )
)
_FORGET_POSITION = Statement(lambda: delete(audit_positions).where(audit_positions.c.name == _CONTENT))
_POSITION = Statement(lambda: select(audit_positions.c.location).where(audit_positions.c.name == _CONTENT))
_QUARANTINED = Statement(
    lambda: (
        select(gc_objects.c.location, gc_objects.c.size, gc_objects.c.delete_after, gc_objects.c.damage)
        .where(gc_objects.c.damage.is_not(None), gc_objects.c.location > bindparam("after"))
        .order_by(gc_objects.c.location)
        .limit(_PAGE)
    )
)
_COUNT_QUARANTINED = Statement(
    lambda: select(func.count()).select_from(gc_objects).where(gc_objects.c.damage.is_not(None))
)


class Finding(Struct, frozen=True):
    """Something that is not as it should be; `is_damage`: content is lost."""

    is_damage: bool
    text: str


class Quarantined(Struct, frozen=True):
    """A damaged object of `size` bytes; it goes at `until`, milliseconds since 1970 UTC."""

    location: str
    size: int
    until: int
    damage: str


class Audit(Struct, frozen=True, kw_only=True):
    """
    How an audit is done.

    With `content` every blob is read and hashed: at most `rate` bytes a second, those behind the location `after`,
    until `is_over`. With `resume` it begins where the last one that was over left off, and then from the start.
    """

    content: bool = False
    repair: bool = False
    rate: int | None = None
    after: str = ""
    resume: bool = False
    is_over: Callable[[], bool] = lambda: False


class _Wrong(Struct, frozen=True):
    """What is wrong with an object of `size` bytes, None: there is none."""

    text: str
    size: int | None


class Fsck:
    """One audit."""

    def __init__(
        self,
        database: Database,
        storage: Storages,
        lifetimes: Lifetimes | None = None,
        *,
        sparse_manifests: bool = False,
        refetch: Refetch | None = None,
    ) -> None:
        """With `sparse_manifests` a manifest may name what is not there. `refetch` brings what was lost."""
        self.read_until: str | None = None
        """The location of the last blob that was read, when it is not the last of all."""
        self.blobs = 0
        """So many were looked at."""
        self._database = database
        self._storage = storage
        self._lifetimes = lifetimes or Lifetimes()
        self._sparse_manifests = sparse_manifests
        self._refetch = refetch
        self._how = Audit()
        self._pace = Pace(None)
        self._restorer = Restorer(database, storage, self._lifetimes, self._pace, refetch)
        self._after = ""
        self._last_read = ""
        self._noted_at = 0.0
        self._missing = 0
        self._objects = 0
        self._foreign = 0
        self._foreign_size = 0
        self._manifests = 0
        self._quarantined = 0

    @property
    def numbers(self) -> dict[str, int]:
        """The same as `counted`, for programs."""
        return {
            "blobs": self.blobs,
            "missing": self._missing,
            "objects": self._objects,
            "manifests": self._manifests,
            "foreign": self._foreign,
            "foreignBytes": self._foreign_size,
            "quarantined": self._quarantined,
        }

    @property
    def counted(self) -> str:
        """How much was looked at."""
        missing = f" ({self._missing} known to be missing)" if self._missing else ""
        objects = f"{self._objects} objects, {self._manifests} manifests"
        if self._foreign:
            objects += f"; {self._foreign} more objects of {self._foreign_size} bytes are another registry's"
        if self._quarantined:
            objects += f"; {self._quarantined} objects are in quarantine"
        if self.read_until is not None:
            objects += f"; blobs were read up to {self.read_until}"
        return f"{self.blobs} blobs{missing}, {objects}"

    async def run(self, how: Audit | None = None, /, **options: Any) -> AsyncIterator[Finding]:
        """Look at everything, as `how` or the `options` (the fields of `Audit`) say."""
        self._how = how = how or Audit(**options)
        self._pace = Pace(how.rate)
        self._restorer = Restorer(self._database, self._storage, self._lifetimes, self._pace, self._refetch)
        repair = how.repair
        for part in (
            # Before the blobs: some need a link more than a tombstone.
            self._check_references(repair=repair),
            self._check_storages(),
            self._check_uploads(repair=repair),
            self._check_contents(repair=repair),
            self._check_links(repair=repair),
            self._check_manifests(repair=repair),
            self._check_counts(repair=repair),
        ):
            async with contextlib.aclosing(part) as findings:
                async for finding in findings:
                    yield finding
        row = await self._database.fetch_one(_COUNT_QUARANTINED)
        self._quarantined = row[0] if row is not None else 0

    async def quarantined(self) -> AsyncIterator[Quarantined]:
        """The objects that are in quarantine, by location."""
        after = ""
        while page := await self._database.fetch_all(_QUARANTINED, after=after):
            for row in page:
                yield Quarantined(*row)
            after = page[-1][0]

    # --- storage against database ------------------------------------------------------------------------------

    async def _check_storages(self) -> AsyncGenerator[Finding, None]:
        how = self._how
        after = how.after
        if how.resume:
            row = await self._database.fetch_one(_POSITION)
            after = after or (row[0] if row is not None else "")
        self._after = after
        async with contextlib.aclosing(self._names()) as names:
            async for name in names:
                async with contextlib.aclosing(self._check_storage(name)) as findings:
                    async for finding in findings:
                        yield finding
        if how.resume and how.content:
            await self._note_position(self.read_until)

    async def _names(self) -> AsyncGenerator[str, None]:
        """The storages that are there, and those that rows say are there, in the order of locations."""
        after, known = "", deque(self._storage.names)
        while True:
            row = await self._database.fetch_one(_FIRST, after=after)
            named = row[0].partition(":")[0] if row is not None else None
            if named is not None and (not known or f"{named}:" < f"{known[0]}:"):
                name = named
            elif known:
                name = known.popleft()
            else:
                return
            yield name
            after = f"{name};"  # what comes next after all that begins with the name and a colon

    async def _check_storage(self, name: str) -> AsyncGenerator[Finding, None]:
        begin, end = f"{name}:", f"{name};"
        try:
            await self._storage.prepare(begin)
        except StorageUnavailable as error:
            yield Finding(True, f"{error}: {await self._present(begin, end)} blobs are in it")
            return
        rows, objects = self._every_blob(begin, end), self._storage.list(begin)
        async with contextlib.aclosing(rows), contextlib.aclosing(objects):
            row = await anext(rows, None)
            try:
                stored = await anext(objects, None)
                if stored is None and row is not None and (number := await self._present(begin, end)) >= _MANY:
                    yield Finding(True, f"storage {name} has nothing of its {number} blobs: is it the right one?")
                    return
                while row is not None or stored is not None:
                    if row is None or (stored is not None and stored.location < row[0]):
                        assert stored is not None
                        finding = await self._look_at_stray(stored)
                        stored = await anext(objects, None)
                    else:
                        size = None
                        if stored is not None and stored.location == row[0]:
                            size = stored.size
                            self._objects += 1
                            stored = await anext(objects, None)
                        finding = await self._look_at_blob(row, size)
                        self.blobs += 1
                        row = await anext(rows, None)
                    if finding is not None:
                        yield finding
            except StorageError as error:  # of the listing: what reading one blob says is a finding about that one
                reason = str(error).removeprefix(f"storage {name}: ")
                yield Finding(True, f"storage {name} cannot be listed: {reason}")

    async def _present(self, begin: str, end: str) -> int:
        row = await self._database.fetch_one(_COUNT, after=begin, before=end)
        return int(row[0]) if row is not None else 0

    async def _every_blob(self, begin: str = "", end: str = _LAST) -> AsyncGenerator[Row, None]:
        after = begin
        while page := await self._database.fetch_all(_BLOBS, after=after, before=end):
            for row in page:
                yield row
            after = page[-1][0]

    async def _look_at_blob(self, row: Row, size: int | None) -> Finding | None:
        location, digest, expected, state, is_linked = row
        repair = self._how.repair
        if not is_linked:
            return await self._look_at_unlinked(digest, repair=repair)
        try:
            wrong = await self._find_wrong(location, digest, expected, size, is_suspect=state == "missing")
        except StorageError as error:
            return Finding(True, f"blob {digest} at {location} cannot be read: {error}")
        if (wrong is None) == (state == "present"):
            return None if wrong is None else await self._look_at_missing(row, wrong)
        # Objects go only after their rows: if the row is still the same, it was no change that we saw.
        still_so = await self._database.fetch_one(_STILL_SO, digest=digest, location=location, state=state)
        if still_so is None:
            return None
        if wrong is None:
            if repair:
                await self._mark(digest, location, "present")
            return Finding(False, f"blob {digest} was marked as missing and is there")
        if repair:
            await self._give_up(digest, location, wrong)
            restored = await self._restorer.restore(digest, expected, location)
            if restored is not None:
                return Finding(False, f"blob {digest} {wrong.text} at {location}, and {restored}")
        return Finding(True, f"blob {digest} {wrong.text} at {location}")

    async def _look_at_missing(self, row: Row, wrong: _Wrong) -> Finding | None:
        """A blob that is known to be missing: perhaps it can be had by now."""
        location, digest, expected, _, _ = row
        if self._how.repair:
            await self._give_up(digest, location, wrong)
            restored = await self._restorer.restore(digest, expected, location)
            if restored is not None:
                return Finding(False, f"blob {digest} was missing, and {restored}")
        self._missing += 1
        return None

    async def _give_up(self, digest: str, location: str, wrong: _Wrong) -> None:
        """Mark a blob as missing; what is left of it is kept for a while."""
        if wrong.size is None:  # perhaps it comes back, to where it was
            await self._mark(digest, location, "missing")
            return
        size, damage = wrong.size, f"blob {digest} {wrong.text}"
        await self._database.unit(
            lambda tx: put_in_quarantine(tx, digest, location, size, damage, delay=QUARANTINE)
        )

    async def _find_wrong(
        self, location: str, digest: str, expected: int, size: int | None, *, is_suspect: bool
    ) -> _Wrong | None:
        """
        What is wrong with the object, of `size` bytes if it was listed. Raises StorageError.

        One that `is_suspect` is always read: that the size is right does not tell why it was marked.
        """
        try:
            # Perhaps stored after the listing began. And some stores list objects that others made of segments
            # with a size of 0: that must not make damage of what is whole.
            if size != expected:
                size = await self._storage.stat(location)
            if size != expected:
                return _Wrong(f"has an object of {size} bytes instead of {expected}", size)
            if not (await self._is_to_be_read(location) or is_suspect):
                return None
            if await digest_of(self._storage, location, digest.partition(":")[0], self._pace) != digest:
                return _Wrong("has an object with other content", size)
        except ObjectMissing:
            return _Wrong("has no object", None)
        return None

    async def _is_to_be_read(self, location: str) -> bool:
        how = self._how
        if not how.content or location <= self._after or self.read_until is not None:
            return False
        if how.is_over():
            self.read_until = self._last_read or self._after
            return False
        self._last_read = location
        if how.resume and time.monotonic() - self._noted_at > _NOTE_SECONDS:
            self._noted_at = time.monotonic()
            await self._note_position(location)
        return True

    async def _note_position(self, location: str | None) -> None:
        """Write down how far the reading came; None: to the end."""
        if location is None:
            await self._change(_FORGET_POSITION)
        else:
            await self._change(_NOTE_POSITION, location=location)

    async def _look_at_unlinked(self, digest: str, *, repair: bool) -> Finding:
        async def work(tx: Transaction) -> None:
            gone = await tx.fetch_one(_DELETE_UNLINKED, digest=digest)
            if gone is not None and gone[0] is not None:
                await bury(tx, gone[0], size=gone[1], delay=self._lifetimes.delete_delay)

        if repair:
            await self._database.unit(work)
        return Finding(False, f"blob {digest} is in no repository")

    async def _look_at_stray(self, stored: Stored) -> Finding | None:
        location = stored.location
        if _OURS.fullmatch(location) is None:
            self._restorer.note(location)
            self._foreign += 1
            self._foreign_size += stored.size
            return None
        self._objects += 1
        # After it was listed, its name may have moved between the tables, but only in one transaction.
        if await self._is_named(location):
            return None
        if datetime.now(UTC) - stored.modified_at < _YOUNG:
            return None
        try:
            await self._storage.stat(location)
        except ObjectMissing:  # swept since it was listed
            return None
        if self._how.repair:
            await self._database.unit(lambda tx: bury(tx, location, size=stored.size, delay=DAY))
        return Finding(False, f"object {location} of {stored.size} bytes belongs to nothing")

    async def _check_uploads(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        """What is stored of uploads that nothing names: nobody goes on with them, and nobody would delete them."""
        for name in self._storage.names:
            try:
                async with contextlib.aclosing(self._storage.list_uploads(name)) as unfinished:
                    async for stored in unfinished:
                        location = stored.location
                        # After it was listed: a row is there before the first byte.
                        if datetime.now(UTC) - stored.modified_at < _YOUNG or await self._is_named(location):
                            continue
                        if repair:
                            await self._database.unit(partial(_bury_upload, stored))
                        yield Finding(False, f"upload to {location} belongs to nothing")
            except StorageError as error:
                yield Finding(True, f"uploads of storage {name} cannot be listed: {error}")

    async def _is_named(self, location: str) -> bool:
        return await self._database.fetch_one(_NAMED, location=location) is not None

    async def _mark(self, digest: str, location: str | None, state: str) -> None:
        await self._change(_MARK, which=digest, at_location=location, new_state=state)

    # --- inside the database -------------------------------------------------------------------------------------

    async def _check_contents(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        """Blobs without an object; a row and its content change together, so there is nothing to look at again."""
        after = ""
        while page := await self._database.fetch_all(_CONTENTS, after=after):
            for digest, size, state, is_linked, content in page:
                after = digest
                self.blobs += 1
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
                if not is_whole:
                    finding = await self._look_for_content(digest, size, finding)
                if finding is not None:
                    yield finding

    async def _look_for_content(self, digest: str, size: int, finding: Finding | None) -> Finding | None:
        """The `finding` about a blob that has no content in the database, or that it has some again."""
        restored = await self._restorer.restore(digest, size, None) if self._how.repair else None
        if restored is None:
            self._missing += finding is None
            return finding
        return Finding(False, f"blob {digest} was missing, and {restored}")

    async def _check_references(self, *, repair: bool) -> AsyncGenerator[Finding, None]:
        if self._sparse_manifests:
            return
        after = {"repository": 0, "manifest": "", "kind": "", "target": ""}
        while page := await self._database.fetch_all(_REFERENCES, **after):
            for repository, manifest, kind, target, is_there in page:
                if is_there:
                    continue
                text = f"manifest {manifest} in repository {repository} lacks {kind} {target}"
                restored = None
                if kind == "blob" and repair:
                    if await self._link(repository, target):
                        restored = "another one has"
                    else:
                        restored = await self._restore_lacking(repository, manifest, target)
                yield Finding(True, text) if restored is None else Finding(False, f"{text}, which {restored}")
            after = dict(zip(after, page[-1], strict=False))

    async def _link(self, repository: int, digest: str) -> bool:
        """Give a repository its blob back, when another one has it; whether one does."""

        async def work(tx: Transaction) -> bool:
            blob = await tx.fetch_one(_LOCK_BLOB, digest=digest)
            if blob is not None and await tx.fetch_one(_IS_NEEDED, repository=repository, digest=digest):
                await link(tx, repository, digest, size=blob[0], hold=self._lifetimes.hold, is_new=False)
            return blob is not None

        return await self._database.unit(work)

    async def _restore_lacking(self, repository: int, manifest: str, digest: str) -> str | None:
        """Give a repository a blob back that nobody has a row of; from where, or None."""
        row = await self._database.fetch_one(_PAYLOAD, repository=repository, digest=manifest)
        if row is None:
            return None
        with contextlib.suppress(OciError):
            for blob in parse_manifest(row[1], row[0]).blobs:
                if blob.digest == digest:
                    return await self._restorer.restore_row(repository, digest, blob.size)
        return None

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
