"""
Workers: they claim jobs, run them, and take over those of workers that are gone.

A worker proves that it lives by its heartbeat: a date in its row, `_LEASE` ahead, renewed every `_BEAT`. When that
date has passed, others take its jobs over. One that cannot renew it stops its jobs itself, before that, so that no
job runs twice at the same time. A worker that starts again is another one: its jobs belong to a `session`, which
is one process. What a job has already done may be done again: actions can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import BigInteger, Text, bindparam, case, exists, func, not_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, in_list, now
from dtr.db.schema import action_configs, job_logs, jobs, workers
from dtr.events import SYSTEM, Event, Object, record
from dtr.jobs.errors import WorkerUnknown
from dtr.jobs.job import CLAIMABLE, RUNNING, JobRequest, canonical, is_one_of
from dtr.jobs.queue import CHANNEL, submit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor
    from dtr.jobs.crons import Crons
    from dtr.jobs.job import Status

_log = logging.getLogger("dtr.jobs")

_LEASE = 10_000
"""Milliseconds from a heartbeat on, after which a worker is dead."""
_BEAT = 2.5
_FENCE = 7.5
"""Seconds without a heartbeat after which a worker stops its own jobs."""
_WATCH = 1.0
_PAGE = 50
_LOG_SECONDS = 0.5
_STOP_MS = 10_000
"""From asking a job to end to leaving it alone, when it does not say."""

_CANCELED = "canceled"
"""The reason when somebody wanted it."""

Action: TypeAlias = "Callable[[Run], Awaitable[None]]"

_registered = insert(workers).values(
    id=bindparam("id"),
    node=bindparam("node"),
    status="alive",
    session=bindparam("session"),
    heartbeat_until=now() + _LEASE,
)
_REGISTER_WORKER = Statement(
    _registered.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "node": _registered.excluded.node,
            "status": "alive",
            "session": _registered.excluded.session,
            "heartbeat_until": _registered.excluded.heartbeat_until,
        },
    )
)
_BEAT_WORKER = Statement(
    update(workers)
    .where(workers.c.id == bindparam("which"), workers.c.session == bindparam("mine"))
    .values(status="alive", heartbeat_until=now() + _LEASE)
)
_LEAVE = Statement(
    update(workers)
    .where(workers.c.id == bindparam("which"), workers.c.session == bindparam("mine"))
    .values(status="shutdown", heartbeat_until=now())
)
_BURY = Statement(
    update(workers).where(workers.c.status == "alive", workers.c.heartbeat_until < now()).values(status="dead")
)
_is_alive = exists().where(workers.c.session == jobs.c.session, workers.c.heartbeat_until >= now())
_RELEASE = Statement(  # what no living process runs
    update(jobs)
    .where(jobs.c.ended_at.is_(None), is_one_of(RUNNING), not_(_is_alive))
    .values(
        status=case((jobs.c.status == "cancel_request", "canceled"), else_="worker_dead"),
        ended_at=case((jobs.c.status == "cancel_request", now()), else_=None),
        updated_at=now(),
    )
)
_CAPACITY = Statement(  # of a worker that the others hold for alive: else they would take over what it claims
    select(workers.c.capacity).where(
        workers.c.id == bindparam("id"),
        workers.c.session == bindparam("mine"),
        workers.c.heartbeat_until >= now(),
    )
)
_CLAIMABLE_JOBS = Statement(
    select(jobs.c.id, jobs.c.action, jobs.c.capacity, jobs.c.parameters, jobs.c.deadline, jobs.c.stop_timeout)
    .where(
        jobs.c.ended_at.is_(None),
        is_one_of(CLAIMABLE),
        jobs.c.scheduled_at <= now(),
        in_list(jobs.c.action, "actions"),
        not_(in_list(jobs.c.capacity, "too_large")),
    )
    .order_by(jobs.c.scheduled_at, jobs.c.id)
    .limit(bindparam("limit", type_=BigInteger))
    .with_for_update(skip_locked=True)
)
_IS_ANY_CLAIMABLE = Statement(
    select(jobs.c.id)
    .where(
        jobs.c.ended_at.is_(None),
        is_one_of(CLAIMABLE),
        jobs.c.scheduled_at <= now(),
        in_list(jobs.c.action, "actions"),
    )
    .limit(1)
)
_CLAIM = Statement(
    update(jobs)
    .where(in_list(jobs.c.id, "ids"))
    .values(
        status="running",
        worker=bindparam("claimed_by"),
        session=bindparam("mine"),
        unique_key=None,
        updated_at=now(),
        done=None,
        total=None,
    )
)
_CONFIGURED = Statement(
    select(action_configs.c.action, action_configs.c.parameters).where(in_list(action_configs.c.action, "actions"))
)
_STATES = Statement(
    select(jobs.c.id, jobs.c.status).where(
        in_list(jobs.c.id, "ids"), jobs.c.session == bindparam("mine"), is_one_of(RUNNING)
    )
)
_END = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("which"))
    .values(
        status=bindparam("ends_as"),
        ended_at=case((bindparam("ends_as", type_=Text) == "worker_shutdown", None), else_=now()),
        updated_at=now(),
    )
)
_RETRY_OF = Statement(
    select(
        jobs.c.action,
        jobs.c.parameters,
        jobs.c.capacity,
        jobs.c.deadline,
        jobs.c.stop_timeout,
        jobs.c.retries_left,
        jobs.c.retries_total,
        jobs.c.retry_from,
        now(),
    ).where(jobs.c.id == bindparam("id"))
)
_PROGRESS = Statement(
    update(jobs)
    .where(jobs.c.id == bindparam("which"))
    .values(
        done=bindparam("done_now", type_=BigInteger),
        total=bindparam("total_now", type_=BigInteger),
        unit=bindparam("unit_now"),
    )
)
_LAST_LINE = Statement(
    select(func.coalesce(func.max(job_logs.c.line), -1)).where(job_logs.c.job == bindparam("job"))
)
_LOCK_MINE = Statement(
    select(jobs.c.id)
    .where(jobs.c.id == bindparam("id"), jobs.c.session == bindparam("mine"), is_one_of(RUNNING))
    .with_for_update()
)
_WRITE_LINE = Statement(
    insert(job_logs)
    .values(job=bindparam("job"), line=bindparam("line"), data=bindparam("data"))
    .on_conflict_do_nothing()
)
_LIST = Statement(
    select(workers.c.id, workers.c.status, workers.c.capacity, workers.c.heartbeat_until, workers.c.node).order_by(
        workers.c.id
    )
)
_SET_CAPACITY = Statement(
    update(workers).where(workers.c.id == bindparam("which")).values(capacity=bindparam("capacity_now"))
)


class JobFailed(Exception):
    """The action could not do what it was asked; the message says why."""


class Run:
    """A job that runs, for its action: what it is to do, and where it says how far it is."""

    def __init__(self, job: str, action: str, parameters: Mapping[str, str]) -> None:
        self.job = job
        self.action = action
        self.parameters = parameters
        self.lines: list[str] = []
        self.state: tuple[int, int | None, str] | None = None

    def log(self, message: str, level: str = "info") -> None:
        """Write a line to the log of the job."""
        moment = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.lines.append(json.dumps({"level": level, "msg": message, "time": moment}))

    def progress(self, done: int, total: int | None, unit: str) -> None:
        """Say how much is done, in `unit`; `total` None: nobody knows."""
        self.state = (done, total, unit)


@dataclass(slots=True)
class _Task:
    """A job in this process. `reason` is why it was told to end."""

    run: Run
    task: asyncio.Task[None]
    capacity: dict[str, int]
    stop_timeout: int
    reason: str = ""
    next_line: int | None = None
    """The number of the next line of its log; None: not known yet."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopping: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as the database knows it; `heartbeat_until` in milliseconds since 1970."""

    id: str
    status: str
    capacity: dict[str, int]
    heartbeat_until: int
    node: str


class Workers:
    """All workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_workers(self) -> list[WorkerRecord]:
        """All that ever reported themselves, by id."""
        rows = await self._database.fetch_all(_LIST)
        return [WorkerRecord(row[0], row[1], json.loads(row[2]), row[3], row[4]) for row in rows]

    async def set_capacity(self, worker: str, capacity: Mapping[str, int], *, by: Actor = SYSTEM) -> None:
        """Say how much of what a worker may use at once. Raises WorkerUnknown, JobInvalid."""
        JobRequest(action="capacity", capacity=capacity).check()

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_SET_CAPACITY, which=worker, capacity_now=canonical(capacity)):
                raise WorkerUnknown(worker)
            await record(
                tx, Event(type="UPDATE", actor=by, object=Object("worker", worker, worker, canonical(capacity)))
            )
            await tx.notify(CHANNEL)

        await self._database.unit(work)


class Worker:
    """The worker of this process."""

    def __init__(
        self,
        database: Database,
        crons: Crons,
        actions: Mapping[str, Action],
        *,
        worker: str,
        node: str,
        concurrency: int = 8,
    ) -> None:
        """`actions` by name are what it can do, `concurrency` how much at once."""
        self._database = database
        self._crons = crons
        self._actions = dict(actions)
        self._id = worker
        self._node = node
        self._session = uuid.uuid4().hex
        self._concurrency = concurrency
        self._running: dict[str, _Task] = {}
        self._wake = asyncio.Event()
        self._beaten = 0.0

    async def run(self) -> None:
        """Work until cancelled; then the jobs that run are stopped, and left to others."""
        await self._keep_trying(self._register)
        loops = [
            asyncio.create_task(loop)
            for loop in (
                self._database.watch(CHANNEL, self._wake.set),
                self._every(_BEAT, self._beat),
                self._every(_WATCH, self._look_after),
                self._every(_LOG_SECONDS, self._write_down),
                self._claim_on_and_on(),
            )
        ]
        try:
            await asyncio.gather(*loops)
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)
            await self._shut_down()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except DatabaseError as error:
                _log.warning("worker has no database", extra={"reason": str(error)})

    async def _keep_trying(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await work()
            except DatabaseError as error:
                _log.warning("worker has no database", extra={"reason": str(error)})
                await asyncio.sleep(_BEAT)

    # --- being alive ---

    async def _register(self) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_REGISTER_WORKER, id=self._id, node=self._node, session=self._session)

        started = time.monotonic()
        await self._database.unit(work)
        self._beaten = started

    async def _beat(self) -> None:
        async def work(tx: Transaction) -> int:
            return await tx.execute(_BEAT_WORKER, which=self._id, mine=self._session)

        started = time.monotonic()
        try:
            if not await self._database.unit(work):
                await self._register()
            self._beaten = started
        except DatabaseError:
            if started - self._beaten > _FENCE:
                self._stop_all("the worker lost its database")
            raise

    async def _shut_down(self) -> None:
        self._stop_all("the worker stops")
        if self._running:
            await asyncio.wait([one.task for one in self._running.values()], timeout=_STOP_MS / 1000)

        async def work(tx: Transaction) -> None:
            await tx.execute(_LEAVE, which=self._id, mine=self._session)

        with contextlib.suppress(DatabaseError):
            await self._database.unit(work)

    def _stop_all(self, reason: str) -> None:
        for one in self._running.values():
            self._stop(one, reason)

    # --- looking after ---

    async def _look_after(self) -> None:
        """Stop what was cancelled here, release what others left, queue what is due by schedule."""
        if self._running:
            rows = await self._database.fetch_all(_STATES, ids=sorted(self._running), mine=self._session)
            states = {row[0]: row[1] for row in rows}
            for job, one in list(self._running.items()):
                if states.get(job) == "cancel_request":
                    self._stop(one, _CANCELED)
                elif job not in states:
                    self._stop(one, "the job is no longer this worker's")

        async def work(tx: Transaction) -> tuple[int, int]:
            return await tx.execute(_BURY), await tx.execute(_RELEASE)

        buried, released = await self._database.unit(work)
        if buried or released:
            _log.warning("worker is gone", extra={"workers": buried, "jobs": released})
        if await self._crons.queue_due() or released:
            self._wake.set()

    # --- claiming ---

    async def _claim_on_and_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH):
                    await self._wake.wait()
            self._wake.clear()
            try:
                while await self._claim():
                    pass
            except DatabaseError as error:
                _log.warning("worker has no database", extra={"reason": str(error)})

    async def _claim(self) -> int:
        """Claim and start what fits; how many jobs."""
        free = self._concurrency - len(self._running)
        if free <= 0 or time.monotonic() - self._beaten > _FENCE:
            return 0
        if await self._database.fetch_one(_IS_ANY_CLAIMABLE, actions=sorted(self._actions)) is None:
            return 0

        async def work(tx: Transaction) -> list[tuple[Row, dict[str, str]]]:
            row = await tx.fetch_one(_CAPACITY, id=self._id, mine=self._session)
            if row is None:
                return []
            left = self._free_capacity(json.loads(row[0]))
            chosen: list[Row] = []
            too_large: list[str] = []
            while len(chosen) < free:
                found = await tx.fetch_all(
                    _CLAIMABLE_JOBS, actions=sorted(self._actions), too_large=too_large, limit=_PAGE
                )
                # One that still runs here was taken from this worker, and has to stop first.
                known = {*self._running, *(one[0] for one in chosen)}
                fresh = [one for one in found if one[0] not in known]
                refused = set()
                for one in fresh:
                    needed = json.loads(one[2])
                    if len(chosen) == free or any(left.get(name, 0) < number for name, number in needed.items()):
                        refused.add(one[2])
                        continue
                    for name, number in needed.items():
                        left[name] -= number
                    chosen.append(one)
                if len(found) < _PAGE or not refused:
                    break
                too_large = sorted({*too_large, *refused})
            if not chosen:
                return []
            await tx.execute(_CLAIM, ids=[one[0] for one in chosen], claimed_by=self._id, mine=self._session)
            rows = await tx.fetch_all(_CONFIGURED, actions=sorted({one[1] for one in chosen}))
            configured = {one[0]: json.loads(one[1]) for one in rows}
            return [(one, configured.get(one[1], {}) | json.loads(one[3])) for one in chosen]

        claimed = await self._database.unit(work)
        for row, parameters in claimed:
            self._start(row, parameters)
        return len(claimed)

    def _free_capacity(self, capacity: dict[str, int]) -> dict[str, int]:
        left = dict(capacity)
        for one in self._running.values():
            for name, number in one.capacity.items():
                left[name] = left.get(name, 0) - number
        return left

    # --- running ---

    def _start(self, row: Row, parameters: dict[str, str]) -> None:
        job, action, capacity, _, deadline, stop_timeout = row
        run = Run(job, action, parameters)
        task = asyncio.create_task(self._perform(run, deadline), name=f"job {action} {job}")
        self._running[job] = _Task(run, task, json.loads(capacity), stop_timeout or _STOP_MS)

    async def _perform(self, run: Run, deadline: int) -> None:
        one = self._running[run.job]
        started = time.monotonic()
        status: Status = "done"
        limit = asyncio.timeout(deadline / 1000 if deadline else None)
        try:
            async with limit:
                await self._actions[run.action](run)
        except asyncio.CancelledError:
            run.log(f"stopped: {one.reason}", "warning")
            status = "canceled" if one.reason == _CANCELED else "worker_shutdown"
        except JobFailed as error:
            status = "errored"
            run.log(str(error), "error")
        except Exception as error:  # noqa: BLE001 - whatever an action raises ends its job, not the worker
            status = "errored"
            if limit.expired():
                run.log("the job did not end in its time", "error")
            else:
                run.log(f"{type(error).__name__}: {error}", "error")
                _log.exception("job failed", extra={"job": run.job, "action": run.action})
        # Whatever cancels this task now comes too late: how the job ended is written down.
        await asyncio.shield(asyncio.ensure_future(self._end(one, status)))
        seconds = round(time.monotonic() - started, 3)
        _log.info(
            "job ended",
            extra={"job": run.job, "action": run.action, "outcome": status, "seconds": seconds},
        )

    def _stop(self, one: _Task, reason: str) -> None:
        if not one.reason:
            one.reason = reason
            one.task.cancel()
            one.stopping = asyncio.create_task(self._give_up(one))

    async def _give_up(self, one: _Task) -> None:
        """Wait for a job that was told to stop; one that does not is written down as failed, and left alone."""
        done, _ = await asyncio.wait([one.task], timeout=one.stop_timeout / 1000)
        if not done:
            one.run.log("the job does not stop", "error")
            await self._end(one, "errored")

    async def _end(self, one: _Task, status: Status) -> None:
        try:
            await self._write(one, status)
        except DatabaseError as error:  # its session will be found dead, or another look ends it
            _log.warning("job not ended", extra={"job": one.run.job, "reason": str(error)})
        finally:
            self._running.pop(one.run.job, None)
            self._wake.set()

    async def _write_down(self) -> None:
        for one in list(self._running.values()):
            if one.run.lines or one.run.state:
                await self._write(one, None)

    async def _write(self, one: _Task, status: Status | None) -> None:
        """Write what a job said since the last time, and how it ended (None: it did not)."""
        async with one.writing:
            run = one.run
            lines, state = list(run.lines), run.state

            async def work(tx: Transaction) -> int | None:
                if await tx.fetch_one(_LOCK_MINE, id=run.job, mine=self._session) is None:
                    return None  # it was deleted, or is another's
                if state is not None:
                    done, total, unit = state
                    await tx.execute(_PROGRESS, which=run.job, done_now=done, total_now=total, unit_now=unit)
                first = one.next_line
                if first is None:
                    row = await tx.fetch_one(_LAST_LINE, job=run.job)
                    first = int(row[0]) + 1 if row else 0
                rows = [
                    {"job": run.job, "line": first + number, "data": line} for number, line in enumerate(lines)
                ]
                await tx.execute_many(_WRITE_LINE, rows)
                if status is not None:
                    await tx.execute(_END, which=run.job, ends_as=status)
                    if status == "errored":
                        await _retry(tx, run.job)
                    elif status == "worker_shutdown":
                        await tx.notify(CHANNEL)
                return first

            first = await self._database.unit(work, durable=status is not None)
            if first is not None:
                one.next_line = first + len(lines)
                del run.lines[: len(lines)]


async def _retry(tx: Transaction, job: str) -> None:
    """Queue a job that failed once more, if it has retries left: later each time."""
    row = await tx.fetch_one(_RETRY_OF, id=job)
    if row is None or row[5] <= 0:
        return
    action, parameters, capacity, deadline, stop_timeout, left, total, retry_from, moment = row
    pause = min(2 ** min(total - left, 10), 600) * 1000
    await submit(
        tx,
        JobRequest(
            action=action,
            parameters=json.loads(parameters),
            capacity=json.loads(capacity),
            deadline=deadline,
            stop_timeout=stop_timeout,
            retries=total,
            scheduled_at=moment + pause,
        ),
        retries_left=left - 1,
        retry_from=retry_from or job,
    )
