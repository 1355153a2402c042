"""Crons: one schedule for an action, whose jobs are queued when it is time. All times in UTC."""

from __future__ import annotations

import json
import logging
import uuid
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import crons
from dtr.events import SYSTEM, Event, Object, record
from dtr.jobs.errors import CronUnknown, JobInvalid
from dtr.jobs.job import JobRequest, canonical
from dtr.jobs.queue import submit
from dtr.jobs.schedules import next_run

if TYPE_CHECKING:
    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor

_log = logging.getLogger("dtr.jobs")

_COLUMNS = (
    crons.c.action,
    crons.c.id,
    crons.c.schedule,
    crons.c.next_run,
    crons.c.retries,
    crons.c.capacity,
    crons.c.parameters,
    crons.c.deadline,
    crons.c.stop_timeout,
)
_NOW = Statement(lambda: select(now()))
_LIST = Statement(lambda: select(*_COLUMNS).order_by(crons.c.action))
_GET = Statement(lambda: select(*_COLUMNS).where(crons.c.action == bindparam("action")))
_new = insert(crons).values(
    action=bindparam("action"),
    id=bindparam("id"),
    schedule=bindparam("schedule"),
    next_run=bindparam("next_run", type_=BigInteger),
    retries=bindparam("retries"),
    capacity=bindparam("capacity"),
    parameters=bindparam("parameters"),
    deadline=bindparam("deadline"),
    stop_timeout=bindparam("stop_timeout"),
)
_PUT = Statement(
    lambda: _new.on_conflict_do_update(
        index_elements=["action"],
        set_={
            name: _new.excluded[name]
            for name in ("schedule", "next_run", "retries", "capacity", "parameters", "deadline", "stop_timeout")
        },
    )
)
_ADD = Statement(_new.on_conflict_do_nothing)
_DELETE = Statement(lambda: delete(crons).where(crons.c.action == bindparam("which")))
_IS_ANY_DUE = Statement(lambda: select(crons.c.id).where(crons.c.next_run <= now()).limit(1))
_DUE = Statement(
    lambda: (
        select(*_COLUMNS, now())
        .where(crons.c.next_run <= now())
        .order_by(crons.c.next_run)
        .limit(20)
        .with_for_update(skip_locked=True)
    )
)
_ADVANCE = Statement(
    lambda: (
        update(crons)
        .where(crons.c.action == bindparam("which"))
        .values(next_run=bindparam("next_run", type_=BigInteger))
    )
)


class Cron(Struct, frozen=True):
    """A schedule; `next_run` in milliseconds since 1970. What it queues is `request`."""

    id: str
    schedule: str
    next_run: int
    request: JobRequest

    @classmethod
    def of(cls, row: Row) -> Cron:
        """The cron of a row of its columns."""
        action, made, schedule, moment, retries, capacity, parameters, deadline, stop_timeout, *_ = row
        return cls(
            made,
            schedule,
            moment,
            JobRequest(
                action=action,
                parameters=json.loads(parameters),
                retries=retries,
                capacity=json.loads(capacity),
                deadline=deadline,
                stop_timeout=stop_timeout,
            ),
        )


class Crons:
    """All schedules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_crons(self) -> list[Cron]:
        """All of them, by action."""
        return [Cron.of(row) for row in await self._database.fetch_all(_LIST)]

    async def get(self, action: str) -> Cron:
        """The schedule of an action. Raises CronUnknown."""
        row = await self._database.fetch_one(_GET, action=action)
        if row is None:
            raise CronUnknown(action)
        return Cron.of(row)

    async def put(self, schedule: str, request: JobRequest, *, by: Actor = SYSTEM) -> Cron:
        """Give an action a schedule, or another one. Raises JobInvalid."""
        request.check()

        async def work(tx: Transaction) -> Cron:
            await tx.execute(_PUT, **_row(schedule, request, await _clock(tx)))
            row = await tx.fetch_one(_GET, action=request.action)
            assert row is not None
            await record(
                tx, Event(type="UPDATE", actor=by, object=Object("cron", row[1], request.action, schedule))
            )
            return Cron.of(row)

        return await self._database.unit(work)

    async def ensure(self, schedule: str, request: JobRequest) -> None:
        """Give an action a schedule if it has none."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_ADD, **_row(schedule, request, await _clock(tx)))

        await self._database.unit(work)

    async def delete(self, action: str, *, by: Actor = SYSTEM) -> None:
        """Take the schedule away; jobs that it queued go on. Raises CronUnknown."""

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_DELETE, which=action):
                raise CronUnknown(action)
            await record(tx, Event(type="DELETE", actor=by, object=Object("cron", action, action)))

        await self._database.unit(work)

    async def queue_due(self) -> int:
        """
        Queue a job for each schedule whose time has come; how many.

        However late it is, it is one: what was missed is not made up for. While one of a schedule's jobs waits, no
        other is queued.
        """
        if await self._database.fetch_one(_IS_ANY_DUE) is None:
            return 0

        async def work(tx: Transaction) -> list[str]:
            queued = []
            for row in await tx.fetch_all(_DUE):
                cron = Cron.of(row)
                try:
                    moment = next_run(cron.schedule, row[-1])
                except JobInvalid:  # there is no next time
                    await tx.execute(_DELETE, which=cron.request.action)
                    continue
                await tx.execute(_ADVANCE, which=cron.request.action, next_run=moment)
                keyed = replace(cron.request, unique_key=f"cron:{cron.request.action}")
                if await submit(tx, keyed, cause="schedule"):
                    queued.append(cron.request.action)
            return queued

        queued = await self._database.unit(work)
        return len(queued)


async def _clock(tx: Transaction) -> int:
    row = await tx.fetch_one(_NOW)
    assert row is not None
    return int(row[0])


def _row(schedule: str, request: JobRequest, moment: int) -> dict[str, object]:
    return {
        "action": request.action,
        "id": str(uuid.uuid4()),
        "schedule": schedule,
        "next_run": next_run(schedule, moment),
        "retries": request.retries,
        "capacity": canonical(request.capacity),
        "parameters": canonical(request.parameters),
        "deadline": request.deadline,
        "stop_timeout": request.stop_timeout,
    }
