"""
The sweeper: gives up uploads that nobody continued, and deletes objects that nothing names any more.

It never waits for a row that somebody else has locked, and works in small batches, so a push does not notice it.
Several may run; a crash anywhere repeats a deletion that does no harm, because a location is never used again.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, case, delete, select, update

from dtr.db import DatabaseError, Statement, in_list, now
from dtr.db.schema import gc_objects, uploads
from dtr.registry._links import bury
from dtr.storage import StorageError, UploadState

if TYPE_CHECKING:
    from dtr.db import Database, Transaction
    from dtr.storage import Driver

_log = logging.getLogger("dtr.sweeper")

_BATCH = 50
_LEASE_MS = 600_000
_SHORTEST_SLEEP, _LONGEST_SLEEP = 1.0, 60.0
_ALERT_AFTER = 10

_EXPIRED = Statement(
    select(uploads.c.id, uploads.c.location, uploads.c.driver_state, uploads.c.offset)
    .where(uploads.c.expires_at <= now())
    .order_by(uploads.c.expires_at)
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
)
_DELETE_UPLOADS = Statement(delete(uploads).where(in_list(uploads.c.id, "ids")))
_DUE = Statement(
    select(gc_objects.c.location, gc_objects.c.driver_state, gc_objects.c.size, gc_objects.c.attempts)
    .where(gc_objects.c.delete_after <= now())
    .order_by(gc_objects.c.delete_after)
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
)
_LEASE = Statement(
    update(gc_objects)
    .where(in_list(gc_objects.c.location, "locations"))
    .values(delete_after=now() + _LEASE_MS, attempts=gc_objects.c.attempts + 1)
)
_repeats = gc_objects.c.repeat_after.is_not(None)
_REPEAT = Statement(
    update(gc_objects)
    .where(in_list(gc_objects.c.location, "locations"), _repeats)
    .values(delete_after=gc_objects.c.repeat_after, repeat_after=None, attempts=0, last_error=None)
)
_DONE = Statement(
    delete(gc_objects).where(
        in_list(gc_objects.c.location, "locations"), gc_objects.c.repeat_after.is_(None), gc_objects.c.attempts > 0
    )
)
_FAILED = Statement(
    update(gc_objects)
    .where(gc_objects.c.location == bindparam("which"))
    .values(
        delete_after=now()
        + case((gc_objects.c.attempts < 11, 60_000 * bindparam("factor", type_=BigInteger)), else_=24 * 3_600_000),
        last_error=bindparam("error"),
    )
)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a round did; `size` in bytes of the objects that were deleted."""

    uploads: int = 0
    objects: int = 0
    size: int = 0
    failures: int = 0


class Sweeper:
    """Works off expired uploads and tombstones."""

    def __init__(self, database: Database, storage: Driver) -> None:
        self._database = database
        self._storage = storage

    async def run(self) -> None:
        """Sweep until cancelled."""
        pause = _SHORTEST_SLEEP
        while True:
            try:
                swept = await self.sweep()
            except (DatabaseError, StorageError):
                _log.exception("sweeping failed")
                swept = Swept()
            pause = _SHORTEST_SLEEP if swept.uploads or swept.objects else min(pause * 2, _LONGEST_SLEEP)
            await asyncio.sleep(pause)

    async def sweep(self) -> Swept:
        """One round: a batch of uploads, a batch of objects."""
        given_up = await self._database.unit(_give_up)
        due = await self._database.unit(_claim)
        done, size, failures = [], 0, 0
        for location, driver_state, object_size, attempts in due:
            try:
                if driver_state is not None:
                    await self._storage.abort(UploadState.decode(driver_state))
                await self._storage.delete(location)
            except StorageError as error:
                failures += 1
                await self._note_failure(location, attempts + 1, error)
            else:
                done.append(location)
                size += object_size
        if done:
            await self._database.unit(lambda tx: _forget(tx, done))
            _log.info("swept", extra={"uploads": given_up, "objects": len(done), "bytes": size})
        return Swept(given_up, len(done), size, failures)

    async def _note_failure(self, location: str, attempts: int, error: StorageError) -> None:
        level = logging.ERROR if attempts >= _ALERT_AFTER else logging.WARNING
        _log.log(
            level, "deletion failed", extra={"location": location, "attempts": attempts, "reason": str(error)}
        )

        async def work(tx: Transaction) -> None:
            await tx.execute(_FAILED, which=location, factor=2 ** min(attempts, 10), error=str(error)[:1000])

        await self._database.unit(work)


async def _give_up(tx: Transaction) -> int:
    rows = await tx.fetch_all(_EXPIRED)
    if rows:
        await tx.execute(_DELETE_UPLOADS, ids=[row[0] for row in rows])
        for _, location, driver_state, offset in rows:
            await bury(tx, location, size=offset, driver_state=driver_state)
    return len(rows)


async def _claim(tx: Transaction) -> list[tuple[str, str | None, int, int]]:
    rows = await tx.fetch_all(_DUE)
    if rows:
        await tx.execute(_LEASE, locations=[row[0] for row in rows])
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def _forget(tx: Transaction, locations: list[str]) -> None:
    await tx.execute(_DONE, locations=locations)
    await tx.execute(_REPEAT, locations=locations)
