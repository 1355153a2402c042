"""
Moving blobs from one storage to another, while pushes and pulls go on.

A blob is copied as a stream, and hashed on the way. Where its copy will be is written down before the first byte,
as a tombstone that becomes due when nobody renews it: whatever happens to this process, the sweeper takes away
what it leaves behind. One unit of work lets the blob's row name the copy, takes that tombstone back, and leaves
one for the old object, which goes when no pull reads it any more. The row is changed only if it still names the
object that was copied: whoever deleted the blob, brought it again or moved it meanwhile comes first, and the copy
goes.

Nothing is changed for a blob whose object is not there or has other content: it is told, and stays as it is.

Migrations can be stopped at any moment, and run again: what is left at the source is what is left to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Text, and_, bindparam, case, cast, delete, func, select, update

from dtr.at_once import at_once
from dtr.db import DatabaseError, Statement, in_list, now
from dtr.db.schema import blobs, gc_objects, uploads
from dtr.jobs import JobRequest
from dtr.registry._links import bury
from dtr.registry.errors import RegistryError
from dtr.registry.lifetimes import HOUR
from dtr.registry.pace import Pace
from dtr.registry.uploads import SMALL
from dtr.storage import (
    AccessDenied,
    Interrupted,
    ObjectMissing,
    StorageError,
    StorageFull,
    UploadState,
    new_location,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from sqlalchemy import ColumnElement

    from dtr.db import Transaction
    from dtr.db.database import Database
    from dtr.jobs import Level
    from dtr.registry.lifetimes import Lifetimes
    from dtr.storage import Storages

MIGRATE = "storage_migrate"
"""The action of the job."""
_RETRIES = 5
_PAGE = 500
_PORTION = 100
"""So many rows are switched in one unit: pushes wait for it."""
_LEASE = HOUR
_BEAT_SECONDS = 300.0
"""How often the tombstones of copies under way are renewed, which a lease keeps from being due."""
_PAUSES = (1.0, 3.0)
"""Seconds before a blob is tried again whose storage did not answer."""
_MOST_FAILURES_IN_A_ROW = 10
_MOST_FAILURES = 10_000
_WAIT_SECONDS = 2.0
_ACTIVE = 60_000
"""Uploads with news in the last so many milliseconds are waited for; a transfer under way has some more often."""
_HASHED_IN_LOOP = 64 * 1024

_source: ColumnElement[str] = bindparam("source", type_=Text())
_end: ColumnElement[str] = bindparam("end", type_=Text())


def _lies_in(column: ColumnElement[str]) -> ColumnElement[bool]:
    """The condition that a location is in the storage whose locations are between `source` and `end`."""
    return and_(column >= _source, column < _end)


_BLOBS = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.size, blobs.c.location, blobs.c.state)
        .where(blobs.c.location > bindparam("after"), blobs.c.location < _end)
        .order_by(blobs.c.location)
        .limit(_PAGE)
    )
)
_SIZE = Statement(
    lambda: select(cast(func.coalesce(func.sum(blobs.c.size), 0), BigInteger)).where(_lies_in(blobs.c.location))
)
_UPLOADS = Statement(  # how many have had bytes lately, and how many there are
    lambda: select(
        func.coalesce(
            func.sum(case((uploads.c.expires_at > now() + bindparam("active", type_=BigInteger), 1), else_=0)), 0
        ),
        func.count(),
    ).where(_lies_in(uploads.c.location), uploads.c.expires_at > now())
)
# A sweeper that has done its work once leaves a tombstone that looks untouched, but is not to be repeated.
_is_untouched = and_(gc_objects.c.attempts == 0, gc_objects.c.repeat_after.is_not(None))
_RENEW = Statement(
    lambda: (
        update(gc_objects)
        .where(in_list(gc_objects.c.location, "locations"), _is_untouched)
        .values(delete_after=now() + _LEASE)
    )
)
_LET_GO = Statement(
    lambda: (
        update(gc_objects)
        .where(gc_objects.c.location == bindparam("which"), _is_untouched)
        .values(delete_after=now())
    )
)
_TAKE_BACK = Statement(
    lambda: delete(gc_objects).where(gc_objects.c.location == bindparam("which"), _is_untouched)
)
_LOCK = Statement(
    lambda: select(blobs.c.location).where(blobs.c.digest == bindparam("digest")).with_for_update(key_share=True)
)
_SWITCH = Statement(
    lambda: (
        update(blobs)
        .where(blobs.c.digest == bindparam("which"))
        .values(location=bindparam("new_location"), state=bindparam("new_state"))
    )
)
_LOCK_MANY = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.location, blobs.c.state)
        .where(in_list(blobs.c.digest, "digests"))
        .order_by(blobs.c.digest)
        .with_for_update(key_share=True)
    )
)
_TAKEN = Statement(
    lambda: (
        select(blobs.c.location)
        .where(in_list(blobs.c.location, "locations"))
        .union(
            select(uploads.c.location).where(in_list(uploads.c.location, "locations")),
            select(gc_objects.c.location).where(in_list(gc_objects.c.location, "locations")),
        )
    )
)
_TAKE_ALL_BACK = Statement(  # tombstones of whole objects that no sweeper has
    lambda: delete(gc_objects).where(
        in_list(gc_objects.c.location, "locations"),
        gc_objects.c.attempts == 0,
        gc_objects.c.driver_state.is_(None),
    )
)


class MigrationFailed(RegistryError):
    """A migration cannot go on: a storage does not answer, has no room, or refuses."""


class Move(Struct, frozen=True, kw_only=True):
    """
    What is to be moved: all blobs in the storages `sources`, to the storage `target`.

    `rate` is in bytes a second, of all copies together; `parallel` how many run at a time. With `keep_source` the
    old objects stay where they are, named by nothing.
    """

    sources: tuple[str, ...]
    target: str
    rate: int | None = None
    parallel: int = 4
    keep_source: bool = False


class Progress(Struct):
    """How far a migration is."""

    blobs: int = 0
    size: int = 0
    """In bytes, of what was moved."""
    all_size: int = 0
    """The same of all that was there."""
    failed: int = 0
    """Blobs that stay where they are."""
    uploads: int = 0
    """Uploads to the source that nobody went on with: what becomes of them stays there, too."""


class _Blob(Struct, frozen=True):
    digest: str
    size: int
    location: str
    is_present: bool


class _Unreadable(Exception):
    """The blob cannot be had from the source; `is_passing`: perhaps later."""

    def __init__(self, reason: str, *, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.is_passing = is_passing


def request_of(
    target: str,
    *,
    sources: Sequence[str] = (),
    rate: int | None = None,
    parallel: int = 4,
    keep_source: bool = False,
    copied: bool = False,
    verify: bool = False,
) -> JobRequest:
    """The job that does it: see `Move`. Without sources, all others are; `copied` is for `Migration.adopt`."""
    given = {
        "to": target,
        "from": ",".join(sources),
        "rate": str(rate or ""),
        "parallel": str(parallel),
        "keepSource": str(keep_source).lower(),
        "copied": str(copied).lower(),
        "verify": str(verify).lower(),
    }
    # One that cannot go on is tried again: what was moved is moved.
    return JobRequest(action=MIGRATE, parameters=given, retries=_RETRIES, unique_key=MIGRATE)


class Migration:
    """One migration. Several at once harm nobody, but may copy the same blobs."""

    def __init__(
        self,
        database: Database,
        storages: Storages,
        lifetimes: Lifetimes,
        move: Move,
        tell: Callable[[str, Level], None] = lambda _text, _level: None,
    ) -> None:
        """`tell` is called with a text and ``info``, ``warning`` or ``error`` for what somebody should know."""
        self.progress = Progress()
        self._database = database
        self._storages = storages
        self._lifetimes = lifetimes
        self._move = move
        self._tell = tell
        self._pace = Pace(move.rate)
        self._under_way: set[str] = set()
        self._failed: set[str] = set()
        self._failed_in_a_row = 0

    async def run(self) -> None:
        """
        Move everything, until nothing but what cannot be moved is left; uploads to the source are waited for.

        New blobs must go elsewhere from before it began. Raises MigrationFailed, DatabaseError.
        """
        try:
            await self._storages.prepare(f"{self._move.target}:")
        except StorageError as error:
            raise MigrationFailed(str(error)) from error
        await self._measure()
        beating = asyncio.create_task(self._keep_renewing())
        try:
            while True:
                before = self.progress.blobs
                # Asked first: what ends while blobs are looked at may leave one where they were looked at already.
                may_come_more = await self._is_uploaded_to()
                for source in self._move.sources:
                    await self._work_off(self._every_blob(source))
                if self.progress.blobs > before:
                    continue
                if not may_come_more:
                    break
                await asyncio.sleep(_WAIT_SECONDS)
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def adopt(self, *, verify: bool) -> None:
        """
        Let all blobs name the objects at the same paths in the target, where somebody else has copied them.

        An object that is not there, or has another size, or (with `verify`) other content, is told, and its blob
        stays where it is. No object is deleted. Raises MigrationFailed, DatabaseError.
        """
        await self._measure()
        for source in self._move.sources:
            async with aclosing(self._every_blob(source)) as found:
                portion: list[_Blob] = []
                async for blob in found:
                    portion.append(blob)
                    if len(portion) == _PORTION:
                        await self._adopt(portion, verify=verify)
                        portion = []
                await self._adopt(portion, verify=verify)

    # --- what is to be moved ---

    async def _measure(self) -> None:
        for source in self._move.sources:
            row = await self._database.fetch_one(_SIZE, **_range(source))
            assert row is not None
            self.progress.all_size += row[0]

    async def _every_blob(self, source: str) -> AsyncGenerator[_Blob, None]:
        """All blobs in a storage, those that come meanwhile perhaps, and not those that failed."""
        bounds = _range(source)
        after, end = bounds["source"], bounds["end"]
        while page := await self._database.fetch_all(_BLOBS, after=after, end=end):
            for digest, size, location, state in page:
                if location not in self._failed:
                    yield _Blob(digest, size, location, state == "present")
            after = page[-1][2]

    async def _is_uploaded_to(self) -> bool:
        """Whether uploads to a source are under way; those without news for a while are only counted."""
        is_active, self.progress.uploads = False, 0
        for source in self._move.sources:
            row = await self._database.fetch_one(
                _UPLOADS, active=self._lifetimes.upload_ttl - _ACTIVE, **_range(source)
            )
            assert row is not None
            is_active = is_active or row[0] > 0
            self.progress.uploads += row[1]
        return is_active

    async def _work_off(self, found: AsyncGenerator[_Blob, None]) -> None:
        """Move them, several at a time."""
        async with aclosing(found):
            await at_once(self._move_or_tell, found, self._move.parallel)

    # --- one blob ---

    async def _move_or_tell(self, blob: _Blob) -> None:
        for pause in (*_PAUSES, None):
            try:
                if await self._copy(blob):
                    self.progress.blobs += 1
                    self.progress.size += blob.size
                self._failed_in_a_row = 0
            except _Unreadable as error:
                if pause is None or not error.is_passing:
                    self._fail(blob, str(error), is_passing=error.is_passing)
                    return
            except (StorageFull, AccessDenied) as error:  # it is the same for every other blob
                raise MigrationFailed(str(error)) from error
            except StorageError as error:
                if pause is None:
                    self._fail(blob, str(error), is_passing=True)
                    return
            else:
                return
            await asyncio.sleep(pause)

    def _fail(self, blob: _Blob, reason: str, *, is_passing: bool) -> None:
        self.progress.failed += 1
        self._failed.add(blob.location)
        known = "" if blob.is_present else ", as is known"
        self._tell(f"{blob.digest} stays at {blob.location}: {reason}{known}", "error")
        if len(self._failed) >= _MOST_FAILURES:
            raise MigrationFailed(f"{len(self._failed)} blobs could not be moved")
        self._failed_in_a_row = self._failed_in_a_row + 1 if is_passing else 0
        if self._failed_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise MigrationFailed(f"{self._failed_in_a_row} blobs in a row could not be moved: {reason}")

    async def _copy(self, blob: _Blob) -> bool:
        """Copy the blob, and let its row name the copy. False: it is no longer the blob that it was."""
        location = f"{self._move.target}:{new_location()}"
        state = UploadState(location).encode()

        async def announce(tx: Transaction) -> None:
            await bury(tx, location, size=blob.size, delay=_LEASE, driver_state=state)

        await self._database.unit(announce)
        self._under_way.add(location)
        try:
            await self._send(blob, location)
            return await self._switch(blob, location)
        except Exception:
            with contextlib.suppress(DatabaseError):
                await self._database.unit(lambda tx: tx.execute(_LET_GO, which=location))
            raise
        finally:
            self._under_way.discard(location)

    async def _send(self, blob: _Blob, location: str) -> None:
        """Store a copy at `location`. Raises _Unreadable, StorageError."""
        content = self._read(blob)
        async with aclosing(content):
            if blob.size <= SMALL:
                await self._storages.put_small(location, b"".join([piece async for piece in content]))
                return
            state = await self._storages.create_upload(location)
            try:
                state = await self._storages.write(state, content)
            except Interrupted as error:
                if isinstance(error.__cause__, _Unreadable):
                    raise error.__cause__ from None
                raise
        await self._storages.complete(state)
        if (stored := await self._storages.stat(location)) != blob.size:
            raise StorageError(f"{location} has {stored} bytes instead of {blob.size}")

    async def _read(self, blob: _Blob) -> AsyncGenerator[bytes, None]:
        """The bytes of the blob. Raises _Unreadable, after the last of them when they are not its content."""
        algorithm = blob.digest.partition(":")[0]
        hasher, size = hashlib.new(algorithm), 0
        try:
            async with aclosing(self._storages.open(blob.location)) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > blob.size:
                        break
                    await self._pace.take(len(piece))
                    if len(piece) > _HASHED_IN_LOOP:
                        await asyncio.to_thread(hasher.update, piece)
                    else:
                        hasher.update(piece)
                    yield piece
        except ObjectMissing as error:
            raise _Unreadable(str(error)) from error
        except StorageError as error:
            raise _Unreadable(str(error), is_passing=True) from error
        if size != blob.size:
            raise _Unreadable(f"its object has {'more' if size > blob.size else 'less'} than {blob.size} bytes")
        if f"{algorithm}:{hasher.hexdigest()}" != blob.digest:
            raise _Unreadable("its object has other content")

    async def _switch(self, blob: _Blob, location: str) -> bool:
        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one(_LOCK, digest=blob.digest)
            if row is not None and row[0] == location:
                return True  # this unit ran before, and its answer was lost
            if row is None or row[0] != blob.location or not await tx.execute(_TAKE_BACK, which=location):
                await tx.execute(_LET_GO, which=location)
                return False
            # Its content was looked at: whatever was wrong with the old object is not wrong with this one.
            await tx.execute(_SWITCH, which=blob.digest, new_location=location, new_state="present")
            if not self._move.keep_source:
                await bury(tx, blob.location, size=blob.size, delay=self._lifetimes.delete_delay)
            return True

        return await self._database.unit(work)

    async def _keep_renewing(self) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_RENEW, locations=sorted(self._under_way))

        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            with contextlib.suppress(DatabaseError):  # the lease is long enough for some attempts
                await self._database.unit(work, durable=False)

    # --- what was copied by hand ---

    async def _adopt(self, portion: list[_Blob], *, verify: bool) -> None:
        copies = sorted(self._copied(blob) for blob in portion)

        async def take_back(tx: Transaction) -> set[str]:
            await tx.execute(_TAKE_ALL_BACK, locations=copies)
            return {row[0] for row in await tx.fetch_all(_TAKEN, locations=copies)}

        # Before it is looked at: what nothing names may have been found by an audit.
        taken = await self._database.unit(take_back)
        right: list[_Blob] = []

        async def look_at(blob: _Blob) -> None:
            if self._copied(blob) in taken:
                self._fail(blob, f"{self._copied(blob)} is something else's", is_passing=False)
            elif await self._is_copied(blob, verify=verify):
                right.append(blob)

        await at_once(look_at, portion, self._move.parallel)
        switched = await self._database.unit(lambda tx: self._switch_all(tx, right)) if right else set()
        for blob in right:
            if blob.digest in switched:
                self.progress.blobs += 1
                self.progress.size += blob.size

    async def _is_copied(self, blob: _Blob, *, verify: bool) -> bool:
        for pause in (*_PAUSES, None):
            try:
                await self._look_at_copy(blob, verify=verify)
            except _Unreadable as error:
                if pause is None or not error.is_passing:
                    self._fail(blob, str(error), is_passing=error.is_passing)
                    return False
                await asyncio.sleep(pause)
            else:
                break
        self._failed_in_a_row = 0
        return True

    async def _look_at_copy(self, blob: _Blob, *, verify: bool) -> None:
        """Raise _Unreadable unless the blob is at its path in the target."""
        copy = self._copied(blob)
        try:
            size = await self._storages.stat(copy)
        except ObjectMissing as error:
            raise _Unreadable(str(error)) from error
        except StorageError as error:
            raise _Unreadable(str(error), is_passing=True) from error
        if size != blob.size:
            raise _Unreadable(f"the object at {copy} has {size} bytes instead of {blob.size}")
        if verify:
            async with aclosing(self._read(replace(blob, location=copy))) as content:
                async for _ in content:
                    pass

    async def _switch_all(self, tx: Transaction, portion: list[_Blob]) -> set[str]:
        """Let the rows name the copies; the digests of those that do."""
        by_digest = {blob.digest: blob for blob in portion}
        copies = sorted(self._copied(blob) for blob in portion)
        taken = {row[0] for row in await tx.fetch_all(_TAKEN, locations=copies)}
        switched, changes = set(), []
        for digest, location, state in await tx.fetch_all(_LOCK_MANY, digests=sorted(by_digest)):
            blob = by_digest[digest]
            copy = self._copied(blob)
            if location == copy:  # this unit ran before, and its answer was lost
                switched.add(digest)
            elif location == blob.location and copy not in taken:
                switched.add(digest)
                changes.append({"which": digest, "new_location": copy, "new_state": state})
        await tx.execute_many(_SWITCH, changes)
        return switched

    def _copied(self, blob: _Blob) -> str:
        return f"{self._move.target}:{blob.location.partition(':')[2]}"


def _range(storage: str) -> dict[str, str]:
    """Between what the locations in a storage are: a semicolon comes right after a colon."""
    return {"source": f"{storage}:", "end": f"{storage};"}
