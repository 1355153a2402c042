"""
The sweeper: gives up uploads that nobody continued, and deletes objects that nothing names any more.

It also forgets ids of uploads that were used and could not be used again by now.

It never waits for a row that somebody else has locked, and works in small batches, so a push does not notice it.
Several may run; a crash anywhere repeats a deletion that does no harm, because a location is never used again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, cast, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import gc_objects, uploads, used_upload_ids
from dtr.registry._links import REPEAT
from dtr.registry._upload_ids import first_id
from dtr.registry.lifetimes import DAY, HOUR
from dtr.storage import StorageUnavailable, UploadState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.db import Database, Transaction
    from dtr.storage import Driver

_log = logging.getLogger("dtr.sweeper")

_BATCH = 200
_AT_ONCE = 4
"""So many objects of a storage are deleted at the same time: half of the threads that a file system has."""
_LEASE_MS = 600_000
_SHORTEST_SLEEP, _LONGEST_SLEEP = 1.0, 60.0
_PATIENCE_SECONDS, _SILENT_SECONDS = 5.0, 60.0
"""A storage that took so long to fail is left alone for so long."""
ALERT_AFTER = 10
"""A deletion that failed so often is worth an alert."""
_MINUTE = 60_000
_IDS_BATCH = 1000
_CLOCKS_MS = HOUR
"""How far the clocks of two hosts may be apart."""

_EXPIRED = Statement(
    lambda: (
        select(uploads.c.id)
        .where(uploads.c.expires_at <= now())
        .order_by(uploads.c.expires_at)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_BURY_UPLOADS = Statement(
    lambda: (
        insert(gc_objects)
        .from_select(
            ["location", "driver_state", "size", "delete_after", "repeat_after"],
            select(uploads.c.location, uploads.c.driver_state, uploads.c.offset, now(), now() + REPEAT).where(
                in_list(uploads.c.id, "ids")
            ),
        )
        .on_conflict_do_nothing()
    )
)
_DELETE_UPLOADS = Statement(lambda: delete(uploads).where(in_list(uploads.c.id, "ids")))
_OLD_IDS = Statement(  # that could not be used again if they were forgotten
    lambda: (
        select(used_upload_ids.c.id)
        .where(used_upload_ids.c.id < bindparam("first"), ~exists().where(uploads.c.id == used_upload_ids.c.id))
        .order_by(used_upload_ids.c.id)
        .limit(_IDS_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_FORGET_IDS = Statement(lambda: delete(used_upload_ids).where(in_list(used_upload_ids.c.id, "ids")))
_DUE = Statement(
    lambda: (
        select(gc_objects.c.location, gc_objects.c.driver_state, gc_objects.c.size, gc_objects.c.attempts)
        .where(gc_objects.c.delete_after <= now())
        .order_by(gc_objects.c.delete_after)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_LEASE = Statement(
    lambda: (
        update(gc_objects)
        .where(in_list(gc_objects.c.location, "locations"))
        .values(delete_after=now() + _LEASE_MS, attempts=gc_objects.c.attempts + 1)
    )
)
_STILL_THERE = Statement(
    lambda: (
        select(gc_objects.c.location)
        .where(in_list(gc_objects.c.location, "locations"))
        .order_by(gc_objects.c.location)
        .with_for_update(skip_locked=True)
    )
)
_DONE = Statement(
    lambda: delete(gc_objects).where(
        in_list(gc_objects.c.location, "locations"), gc_objects.c.repeat_after.is_(None), gc_objects.c.attempts > 0
    )
)
_REPEAT = Statement(
    lambda: (
        update(gc_objects)
        .where(in_list(gc_objects.c.location, "locations"), gc_objects.c.repeat_after.is_not(None))
        .values(delete_after=gc_objects.c.repeat_after, repeat_after=None, attempts=0, last_error=None)
    )
)
_COUNT_DUE = Statement(
    lambda: select(
        select(func.count()).select_from(uploads).where(uploads.c.expires_at <= now()).scalar_subquery(),
        func.count(),
        cast(func.coalesce(func.sum(gc_objects.c.size), 0), BigInteger),
    ).where(gc_objects.c.delete_after <= now())
)
_FAILED = Statement(
    lambda: (
        update(gc_objects)
        .where(gc_objects.c.location == bindparam("which"))
        .values(delete_after=now() + bindparam("pause", type_=BigInteger), last_error=bindparam("error"))
    )
)


class Swept(Struct, frozen=True):
    """What a round did; `size` in bytes of the objects that were deleted, `ids` of uploads that were forgotten."""

    uploads: int = 0
    objects: int = 0
    size: int = 0
    failures: int = 0
    ids: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(*(getattr(self, one) + getattr(other, one) for one in self.__struct_fields__))

    @property
    def is_full(self) -> bool:
        """Whether there is probably more to do at once."""
        return self.uploads == _BATCH or self.objects + self.failures == _BATCH or self.ids == _IDS_BATCH


class _Due(NamedTuple):
    """A tombstone whose time has come."""

    location: str
    driver_state: str | None
    size: int
    attempts: int

    @property
    def storage(self) -> str:
        """The name of the storage that it is in."""
        return self.location.partition(":")[0]


class Sweeper:
    """Works off expired uploads and tombstones."""

    def __init__(self, database: Database, storage: Driver) -> None:
        self._database = database
        self._storage = storage
        self._silent_until: dict[str, float] = {}
        """Until when, by the clock `time.monotonic`, nothing is asked of a storage that did not answer."""

    async def run(self, is_on: Callable[[], bool] = lambda: True) -> None:
        """Sweep until cancelled, while it is on."""
        pause = _SHORTEST_SLEEP
        while True:
            if not is_on():
                await asyncio.sleep(_SHORTEST_SLEEP)
                continue
            try:
                swept = await self.sweep()
            except Exception:  # noqa: BLE001 - it goes on, whatever it was
                _log.exception("sweeping failed")
                swept = Swept()
            if swept.is_full:
                pause = 0
            else:
                pause = min(max(pause * 2, _SHORTEST_SLEEP), _LONGEST_SLEEP)
                if swept.uploads or swept.objects:
                    pause = _SHORTEST_SLEEP
            await asyncio.sleep(pause)

    async def count_due(self) -> Swept:
        """What sweeping would give up and delete now."""
        row = await self._database.fetch_one(_COUNT_DUE)
        return Swept() if row is None else Swept(row[0], row[1], row[2])

    async def sweep(self) -> Swept:
        """One round: a batch of uploads, or of ids when there are none, and a batch of objects."""
        given_up = await self._database.unit(_give_up)
        ids = 0 if given_up else await self._database.unit(_forget_ids, durable=False)  # it may be done again
        by_storage: dict[str, list[_Due]] = {}
        for one in await self._database.unit(_claim):
            by_storage.setdefault(one.storage, []).append(one)
        # No storage waits for another one.
        swept = sum(
            await asyncio.gather(*(self._delete(some) for some in by_storage.values())), Swept(given_up, ids=ids)
        )
        if given_up or swept.objects:
            _log.info("swept", extra={"uploads": given_up, "objects": swept.objects, "bytes": swept.size})
        return swept

    async def _delete(self, due: list[_Due]) -> Swept:
        """Delete objects of one storage: the first tells whether it answers, and then several at once."""
        done: list[_Due] = []
        if await self._delete_one(due[0]):
            done.append(due[0])
        waiting = iter(due[1:])

        async def work() -> None:
            done.extend([one for one in waiting if await self._delete_one(one)])

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
        if done:
            locations = [one.location for one in done]
            # Not durable: whoever finds one of these again deletes what is gone already.
            await self._database.unit(lambda tx: _forget(tx, locations), durable=False)
        return Swept(0, len(done), sum(one.size for one in done), len(due) - len(done))

    async def _delete_one(self, one: _Due) -> bool:
        """Whether that went well; if not, it is noted."""
        storage, began = one.storage, time.monotonic()
        try:
            if began < self._silent_until.get(storage, began):
                raise StorageUnavailable(f"storage {storage} did not answer a moment ago")
            if one.driver_state is not None:
                await self._storage.abort(UploadState.decode(one.driver_state))
            await self._storage.delete(one.location)
        except Exception as error:  # noqa: BLE001 - whatever ails one object, the others go on
            if isinstance(error, StorageUnavailable) and time.monotonic() - began > _PATIENCE_SECONDS:
                self._silent_until[storage] = time.monotonic() + _SILENT_SECONDS
            await self._note_failure(one.location, one.attempts + 1, error)
            return False
        return True

    async def _note_failure(self, location: str, attempts: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:1000]
        level = logging.ERROR if attempts >= ALERT_AFTER else logging.WARNING
        _log.log(level, "deletion failed", extra={"location": location, "attempts": attempts, "reason": reason})
        # Later and later, and not all at the same time.
        pause = min(2 ** min(attempts, 20) * _MINUTE, DAY) * random.uniform(0.75, 1.25)  # noqa: S311

        async def work(tx: Transaction) -> None:
            await tx.execute(_FAILED, which=location, pause=int(pause), error=reason)

        await self._database.unit(work)


async def _give_up(tx: Transaction) -> int:
    ids = [row[0] for row in await tx.fetch_all(_EXPIRED)]
    if ids:
        await tx.execute(_BURY_UPLOADS, ids=ids)
        await tx.execute(_DELETE_UPLOADS, ids=ids)
    return len(ids)


async def _forget_ids(tx: Transaction) -> int:
    ids = [row[0] for row in await tx.fetch_all(_OLD_IDS, first=first_id(time.time() - _CLOCKS_MS / 1000))]
    if ids:
        await tx.execute(_FORGET_IDS, ids=ids)
    return len(ids)


async def _claim(tx: Transaction) -> list[_Due]:
    rows = await tx.fetch_all(_DUE)
    if rows:
        await tx.execute(_LEASE, locations=[row[0] for row in rows])
    return [_Due(*row) for row in rows]


async def _forget(tx: Transaction, locations: list[str]) -> None:
    # What another sweeper has locked, it took over because we were too slow.
    locations = [row[0] for row in await tx.fetch_all(_STILL_THERE, locations=locations)]
    await tx.execute(_DONE, locations=locations)
    await tx.execute(_REPEAT, locations=locations)
