"""
The queue: jobs and their logs, as rows.

Whoever causes a job queues it in the transaction of the cause (`submit`): it is never lost, and never runs without
it. What workers do with the rows is in `worker`.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, get_args

from sqlalchemy import BigInteger, bindparam, case, delete, func, literal_column, select, union_all, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import action_configs, job_logs, jobs
from dtr.events import SYSTEM, Event, Object, record
from dtr.jobs import listing
from dtr.jobs.errors import ActionConfigUnknown, JobOpen, JobUnknown
from dtr.jobs.job import (
    CLAIMABLE,
    JOB_COLUMNS,
    RUNNING,
    Job,
    JobRequest,
    Level,
    canonical,
    is_one_of,
    unindexed,
)
from dtr.jobs.listing import ALL, STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.db import Database, Transaction
    from dtr.events import Actor
    from dtr.jobs.job import Cause
    from dtr.jobs.listing import JobFilter, Place, State

CHANNEL = "dtr_jobs"
"""What workers are woken by."""
_BATCH = 500
_DAY_MS = 86_400_000

_INSERT = Statement(
    lambda: (
        insert(jobs)
        .values(
            id=bindparam("id"),
            action=bindparam("action"),
            status="waiting",
            scheduled_at=func.coalesce(bindparam("scheduled_at", type_=BigInteger), now()),
            updated_at=now(),
            retries_left=bindparam("retries_left"),
            retries_total=bindparam("retries_total"),
            retry_from=bindparam("retry_from"),
            capacity=bindparam("capacity"),
            parameters=bindparam("parameters"),
            deadline=bindparam("deadline"),
            stop_timeout=bindparam("stop_timeout"),
            unique_key=bindparam("unique_key"),
            cause=bindparam("cause"),
            caused_by=bindparam("caused_by"),
        )
        .on_conflict_do_nothing(index_elements=["unique_key"], index_where=jobs.c.unique_key.is_not(None))
    )
)
_GET = Statement(lambda: select(*JOB_COLUMNS).where(jobs.c.id == bindparam("id")))
_CANCEL = Statement(
    lambda: (
        update(jobs)
        .where(jobs.c.id == bindparam("which"), jobs.c.ended_at.is_(None))
        .values(
            status=case((is_one_of(RUNNING), "cancel_request"), else_="canceled"),
            ended_at=case((is_one_of(RUNNING), None), else_=now()),
            unique_key=None,
            updated_at=now(),
        )
    )
)
_DELETE = Statement(lambda: delete(jobs).where(jobs.c.id == bindparam("which")))
_waits = is_one_of(CLAIMABLE) & (jobs.c.scheduled_at <= now())
_STATE = Statement(
    lambda: (
        select(
            unindexed(jobs.c.action),
            func.count(case((_waits, 1))),
            func.coalesce(now() - func.min(case((_waits, jobs.c.scheduled_at))), 0),
            func.count(case((is_one_of(RUNNING), 1))),
        )
        .where(jobs.c.ended_at.is_(None))
        .group_by(unindexed(jobs.c.action))
    )
)
_limit = bindparam("limit", type_=BigInteger)
_of_job = job_logs.c.job == bindparam("job")


def _lines_of(level: Level, *, from_end: bool) -> Statement:
    """
    Lines of a job that are as serious as `level`, or more: from `offset` on, or the last ones, last first.

    What is serious is looked for in an index that has nothing else, a level at a time: SQLite would walk along the
    table's key otherwise.
    """
    order = job_logs.c.line.desc() if from_end else job_logs.c.line
    ranged = [_of_job] if from_end else [_of_job, job_logs.c.line >= bindparam("offset")]
    if level != "info":
        found = [
            select(job_logs.c.line)
            # Not parameters: a planner has to see that this is what the index is about.
            .where(job_logs.c.level != literal_column("'info'"), job_logs.c.level == literal_column(f"'{one}'"))
            .where(*ranged)
            .order_by(order)
            .limit(_limit)
            .subquery()
            for one in _LEVELS[_LEVELS.index(level) :]
        ]
        ranged = [_of_job, job_logs.c.line.in_(union_all(*(select(one.c.line) for one in found)))]
    return Statement(select(job_logs.c.line, job_logs.c.data).where(*ranged).order_by(order).limit(_limit))


_LEVELS = get_args(Level)
_LOGS: dict[Level, Statement] = {level: _lines_of(level, from_end=False) for level in _LEVELS}
_LAST_LINES: dict[Level, Statement] = {level: _lines_of(level, from_end=True) for level in _LEVELS}
_ended = jobs.c.ended_at.is_not(None)
_OLD = Statement(
    lambda: (
        select(jobs.c.id)
        .where(_ended, jobs.c.scheduled_at < now() - bindparam("max_age", type_=BigInteger))
        .order_by(jobs.c.scheduled_at)
        .limit(bindparam("limit", type_=BigInteger))
        .with_for_update(skip_locked=True)
    )
)
_SURPLUS = Statement(
    lambda: (
        select(jobs.c.id)
        .where(_ended)
        .order_by(jobs.c.scheduled_at.desc(), jobs.c.id.desc())
        .offset(bindparam("kept", type_=BigInteger))
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_PASSED = Statement(
    lambda: (
        select(jobs.c.id)
        .where(in_list(jobs.c.action, "actions"), jobs.c.scheduled_at < now() - _DAY_MS, _ended)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_DELETE_ENDED = Statement(lambda: delete(jobs).where(in_list(jobs.c.id, "ids"), _ended))

_CONFIG_COLUMNS = (action_configs.c.action, action_configs.c.id, action_configs.c.parameters)
_LIST_CONFIGS = Statement(lambda: select(*_CONFIG_COLUMNS).order_by(action_configs.c.action))
_GET_CONFIG = Statement(lambda: select(*_CONFIG_COLUMNS).where(action_configs.c.action == bindparam("action")))
_config = insert(action_configs).values(
    action=bindparam("action"), id=bindparam("id"), parameters=bindparam("parameters")
)
_PUT_CONFIG = Statement(
    lambda: _config.on_conflict_do_update(
        index_elements=["action"], set_={"parameters": _config.excluded.parameters}
    ).returning(action_configs.c.id)
)
_DELETE_CONFIG = Statement(lambda: delete(action_configs).where(action_configs.c.action == bindparam("which")))


async def submit(
    tx: Transaction,
    request: JobRequest,
    *,
    retries_left: int | None = None,
    retry_from: str = "",
    cause: Cause = "event",
    caused_by: str = "",
) -> str | None:
    """Queue a job in a transaction; its id, None: one with the same key waits already. Raises JobInvalid."""
    request.check()
    made = str(uuid.uuid4())
    queued = await tx.execute(
        _INSERT,
        id=made,
        action=request.action,
        scheduled_at=request.scheduled_at,
        retries_left=request.retries if retries_left is None else retries_left,
        retries_total=request.retries,
        retry_from=retry_from,
        capacity=canonical(request.capacity),
        parameters=canonical(request.parameters),
        deadline=request.deadline,
        stop_timeout=request.stop_timeout,
        unique_key=request.unique_key,
        cause=cause,
        caused_by=caused_by,
    )
    await tx.notify(CHANNEL)
    return made if queued else None


class Jobs:
    """All jobs, and what the actions have as parameters when a job does not say."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, request: JobRequest, *, by: Actor = SYSTEM) -> Job:
        """Queue a job. Raises JobInvalid, and JobUnknown: one with the same key waits already."""

        async def work(tx: Transaction) -> Job:
            made = await submit(tx, request, cause=_cause(by), caused_by=by.name)
            assert made is not None or request.unique_key is not None
            if made is None:
                raise JobUnknown(request.unique_key)
            await record(tx, Event(type="CREATE", actor=by, object=Object("job", made, request.action)))
            row = await tx.fetch_one(_GET, id=made)
            assert row is not None
            return Job.of(row)

        return await self._database.unit(work)

    async def get(self, job: str) -> Job:
        """A job by its id. Raises JobUnknown."""
        row = await self._database.fetch_one(_GET, id=job)
        if row is None:
            raise JobUnknown(job)
        return Job.of(row)

    async def list_jobs(
        self, wanted: JobFilter = ALL, *, place: Place | None = None, start: int = 0, limit: int = 10
    ) -> list[Job]:
        """At most `limit` jobs from `place` on (None: the latest), behind the first `start`; the latest first."""
        statement, parameters = listing.listing(wanted, place)
        rows = await self._database.fetch_all(statement, **parameters, start=start, limit=limit)
        return [Job.of(row) for row in rows]

    async def count(self, wanted: JobFilter = ALL) -> int:
        """How many `list_jobs` lists in the end."""
        statement, parameters = listing.count(wanted)
        row = await self._database.fetch_one(statement, **parameters)
        return int(row[0]) if row else 0

    async def counts(self, wanted: JobFilter = ALL) -> dict[State, int]:
        """By state, whichever `wanted` names, how many there are; `MOST_COUNTED` may be more."""
        statement, parameters = listing.counts(wanted)
        row = await self._database.fetch_one(statement, **parameters)
        assert row is not None
        return dict(zip(STATES, map(int, row), strict=True))

    async def state(self) -> dict[str, tuple[int, float, int]]:
        """By action: how many jobs wait, for how many seconds the first of them does, how many run."""
        rows = await self._database.fetch_all(_STATE)
        return {row[0]: (row[1], row[2] / 1000, row[3]) for row in rows}

    async def try_again(self, job: str, *, by: Actor = SYSTEM) -> Job:
        """Queue what a job that ended was to do once more. Raises JobUnknown, JobOpen."""

        async def work(tx: Transaction) -> Job:
            row = await tx.fetch_one(_GET, id=job)
            if row is None:
                raise JobUnknown(job)
            before = Job.of(row)
            if before.ended_at is None:
                raise JobOpen(job)
            request = JobRequest(
                action=before.action,
                parameters=before.parameters,
                retries=before.retries_total,
                capacity=before.capacity,
                deadline=before.deadline,
                stop_timeout=before.stop_timeout,
            )
            first = before.retry_from or job
            made = await submit(tx, request, retry_from=first, cause=_cause(by), caused_by=by.name)
            assert made is not None
            await record(tx, Event(type="CREATE", actor=by, object=Object("job", made, before.action, first)))
            row = await tx.fetch_one(_GET, id=made)
            assert row is not None
            return Job.of(row)

        return await self._database.unit(work)

    async def cancel(self, job: str, *, by: Actor = SYSTEM) -> None:
        """Cancel a job; its worker stops it when it runs. One that ended stays as it is. Raises JobUnknown."""

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_GET, id=job)
            if row is None:
                raise JobUnknown(job)
            if await tx.execute(_CANCEL, which=job):
                await tx.notify(CHANNEL)
                await record(tx, Event(type="UPDATE", actor=by, object=Object("job", job, row[1], "canceled")))

        await self._database.unit(work)

    async def delete(self, job: str, *, by: Actor = SYSTEM) -> None:
        """Cancel a job and remove it with its logs; its worker stops it. Raises JobUnknown."""

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_GET, id=job)
            if row is None:
                raise JobUnknown(job)
            await tx.execute(_DELETE, which=job)
            await tx.notify(CHANNEL)
            await record(tx, Event(type="DELETE", actor=by, object=Object("job", job, row[1])))

        await self._database.unit(work)

    async def logs(self, job: str, *, offset: int = 0, limit: int, level: Level = "info") -> list[tuple[int, str]]:
        """
        At most `limit` lines from line `offset` on: their numbers, and each as JSON. Raises JobUnknown.

        Only those that are as serious as `level`, or more.
        """
        rows = await self._database.fetch_all(_LOGS[level], job=job, offset=offset, limit=limit)
        if not rows:
            await self.get(job)
        return [(row[0], row[1]) for row in rows]

    async def last_lines(self, job: str, *, limit: int, level: Level = "info") -> list[tuple[int, str]]:
        """The last `limit` lines, as `logs` gives them, in their order. Raises JobUnknown."""
        rows = await self._database.fetch_all(_LAST_LINES[level], job=job, limit=limit)
        if not rows:
            await self.get(job)
        return [(row[0], row[1]) for row in reversed(rows)]

    async def prune(self, *, max_age: int | None, keep: int | None) -> int:
        """
        Remove jobs that ended, with their logs; how many.

        Those whose time was more than `max_age` milliseconds ago, and those beyond the `keep` latest.
        """
        total = 0
        while True:
            removed = await self._database.unit(lambda tx: _prune(tx, max_age, keep))
            total += removed
            if removed < _BATCH:
                return total

    # --- parameters of actions ---

    async def list_configs(self) -> list[tuple[str, str, dict[str, str]]]:
        """Action, id and parameters of all that were configured."""
        rows = await self._database.fetch_all(_LIST_CONFIGS)
        return [(row[0], row[1], json.loads(row[2])) for row in rows]

    async def get_config(self, action: str) -> tuple[str, dict[str, str]]:
        """Id and parameters of an action. Raises ActionConfigUnknown."""
        row = await self._database.fetch_one(_GET_CONFIG, action=action)
        if row is None:
            raise ActionConfigUnknown(action)
        return row[1], json.loads(row[2])

    async def put_config(self, action: str, parameters: Mapping[str, str], *, by: Actor = SYSTEM) -> str:
        """Configure an action; the id of its configuration. Raises JobInvalid."""
        JobRequest(action=action).check()

        async def work(tx: Transaction) -> str:
            row = await tx.fetch_one(
                _PUT_CONFIG, action=action, id=str(uuid.uuid4()), parameters=canonical(parameters)
            )
            assert row is not None
            await record(tx, Event(type="UPDATE", actor=by, object=Object("action_config", row[0], action)))
            return str(row[0])

        return await self._database.unit(work)

    async def delete_config(self, action: str, *, by: Actor = SYSTEM) -> None:
        """Let an action have its defaults again. Raises ActionConfigUnknown."""

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_DELETE_CONFIG, which=action):
                raise ActionConfigUnknown(action)
            await record(tx, Event(type="DELETE", actor=by, object=Object("action_config", action, action)))

        await self._database.unit(work)


def _cause(by: Actor) -> Cause:
    return "command" if by.type == "system" else "account"


async def forget(database: Database, actions: list[str]) -> int:
    """
    Remove jobs of actions that ended and whose time was more than a day ago; how many.

    For those that events queue, whose results are kept elsewhere: else they would fill the list of jobs, whether
    its history is kept or not.
    """

    async def work(tx: Transaction) -> int:
        ids = [row[0] for row in await tx.fetch_all(_PASSED, actions=actions)]
        return await tx.execute(_DELETE_ENDED, ids=sorted(ids)) if ids else 0

    total = 0
    while True:
        removed = await database.unit(work, durable=False)
        total += removed
        if removed < _BATCH:
            return total


async def _prune(tx: Transaction, max_age: int | None, keep: int | None) -> int:
    ids: list[str] = []
    if max_age is not None:
        ids += [row[0] for row in await tx.fetch_all(_OLD, max_age=max_age, limit=_BATCH)]
    if keep is not None and len(ids) < _BATCH:
        ids += [row[0] for row in await tx.fetch_all(_SURPLUS, kept=keep, limit=_BATCH - len(ids))]
    if not ids:
        return 0
    return await tx.execute(_DELETE_ENDED, ids=sorted(set(ids)))
