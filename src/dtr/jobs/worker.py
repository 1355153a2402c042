"""
A worker: it claims jobs, runs them, and takes over those of workers that are gone.

A worker proves that it lives by its heartbeat: a date in its row, `_LEASE` ahead, renewed every `_BEAT`. When that
date has passed, others take its jobs over. One that cannot renew it stops its jobs itself, before that, so that no
job runs twice at the same time; one that was stopped for so long itself (a machine that sleeps) does so as soon as
it goes on. A worker that starts again is another one: its jobs belong to a `session`, which is one process. What a
job has already done may be done again: actions can be repeated.

So an action that the database did not answer for a moment begins again, too, where it is.

What jobs say and how they end is written together: while one unit of work is under way, what ends meanwhile waits
for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from msgspec import Struct, field
from sqlalchemy import BigInteger, Text, bindparam, case, exists, func, not_, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, DatabaseUnavailable, Statement, in_list, now
from dtr.db.schema import action_configs, job_logs, jobs, workers
from dtr.jobs.job import CLAIMABLE, RUNNING, JobRequest, is_one_of, unindexed
from dtr.jobs.queue import CHANNEL, forget, submit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.jobs.crons import Crons
    from dtr.jobs.job import Level, Status

_log = logging.getLogger("dtr.jobs")

_LEASE = 10_000
"""Milliseconds from a heartbeat on, after which a worker is dead."""
_BEAT = 2.5
_FENCE = 7.5
"""Seconds without a heartbeat after which a worker stops its own jobs."""
_GUARD = 0.5
_WATCH = 1.0
_PAGE = 50
_LOG_SECONDS = 0.5
_FORGET_SECONDS = 60.0
_CROWDED_SECONDS = 0.2
"""How often to look past the jobs of an action that runs as often as it may: there may be thousands of them."""
_STOP_MS = 10_000
"""From asking a job to end to leaving it alone, when it does not say."""
_MOST_DEATHS = 5
"""A job during which so many workers died may be what kills them: it has failed."""
_SUSPICIOUS_DEATHS = 2
"""Of jobs with so many a worker begins one at a time: those that run beside what kills it shall not fail."""
_PROBATION_SECONDS = 60.0
"""Such a job that has run for so long keeps no other one waiting."""
_AGAIN_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Until an action begins again that the database did not answer; where it is away as long, its worker stops."""

# Why a job was told to end.
_CANCELED = "somebody cancelled it"
_TOO_LONG = "it did not end in its time"
_LOST = "the worker lost its database"
_HELD_FOR_DEAD = "the worker was held for dead"
_TAKEN_OVER = "the job is no longer this worker's"
_LEAVING = "the worker stops"

_OUTCOMES: Mapping[str, Status] = {_CANCELED: "canceled", _TOO_LONG: "errored"}
"""How a job ends that was told to, and did; for another reason, it waits for another worker."""

Action: TypeAlias = "Callable[[Run], Awaitable[None]]"

_registered = insert(workers).values(
    id=bindparam("id"),
    node=bindparam("node"),
    status="alive",
    session=bindparam("session"),
    heartbeat_until=now() + _LEASE,
    places=bindparam("places"),
)
_REGISTER_WORKER = Statement(
    lambda: _registered.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "node": _registered.excluded.node,
            "status": "alive",
            "session": _registered.excluded.session,
            "heartbeat_until": _registered.excluded.heartbeat_until,
            "places": _registered.excluded.places,
        },
    )
)
_LOCK_WORKER = Statement(
    lambda: (
        select(workers.c.status)
        .where(workers.c.id == bindparam("id"), workers.c.session == bindparam("mine"))
        .with_for_update()
    )
)
_BEAT_WORKER = Statement(
    lambda: (
        update(workers)
        .where(workers.c.id == bindparam("which"), workers.c.session == bindparam("mine"))
        .values(status="alive", heartbeat_until=now() + _LEASE)
    )
)
_LEAVE = Statement(
    lambda: (
        update(workers)
        .where(workers.c.id == bindparam("which"), workers.c.session == bindparam("mine"))
        .values(status="shutdown", heartbeat_until=now())
    )
)
_is_dead = (workers.c.status == "alive") & (workers.c.heartbeat_until < now())
_BURY = Statement(lambda: update(workers).where(_is_dead).values(status="dead"))
_is_alive = exists().where(workers.c.session == jobs.c.session, workers.c.heartbeat_until >= now())
_is_orphan = jobs.c.ended_at.is_(None) & is_one_of(RUNNING) & not_(_is_alive)
_IS_ANY_DEAD = Statement(lambda: select(workers.c.id).where(_is_dead).limit(1))
_IS_ANYTHING_LEFT = Statement(
    lambda: select(workers.c.id).where(_is_dead).union_all(select(jobs.c.id).where(_is_orphan)).limit(1)
)
_RELEASE = Statement(  # what no living process runs
    lambda: (
        update(jobs)
        .where(
            jobs.c.id.in_(select(jobs.c.id).where(_is_orphan).correlate(None).with_for_update(skip_locked=True))
        )
        .values(
            status=case(
                (jobs.c.status == "cancel_request", "canceled"),
                (jobs.c.deaths >= _MOST_DEATHS - 1, "errored"),
                else_="worker_dead",
            ),
            ended_at=case((or_(jobs.c.status == "cancel_request", jobs.c.deaths >= _MOST_DEATHS - 1), now())),
            deaths=jobs.c.deaths + 1,
            updated_at=now(),
        )
        .returning(jobs.c.id, jobs.c.status)
    )
)
_RESURRECT = Statement(  # what a worker runs that was held for dead, and nobody took over
    lambda: (
        update(jobs)
        .where(
            in_list(jobs.c.id, "ids"),
            jobs.c.session == bindparam("mine"),
            jobs.c.status == "worker_dead",
        )
        .values(status="worker_resurrection", updated_at=now())
    )
)
_CAPACITY = Statement(  # of a worker that the others hold for alive: else they would take over what it claims
    lambda: select(workers.c.capacity).where(
        workers.c.id == bindparam("id"),
        workers.c.session == bindparam("mine"),
        workers.c.heartbeat_until >= now(),
    )
)
_is_claimable = (
    jobs.c.ended_at.is_(None)
    & is_one_of(CLAIMABLE)
    & (jobs.c.scheduled_at <= now())
    & in_list(unindexed(jobs.c.action), "actions")
)
_CLAIMABLE_JOBS = Statement(
    lambda: (
        select(
            jobs.c.id,
            jobs.c.action,
            jobs.c.capacity,
            jobs.c.parameters,
            func.coalesce(action_configs.c.parameters, "{}"),
            jobs.c.deadline,
            jobs.c.stop_timeout,
            jobs.c.worker,
            jobs.c.deaths,
        )
        .outerjoin(action_configs, action_configs.c.action == jobs.c.action)
        .where(
            _is_claimable,
            not_(in_list(jobs.c.capacity, "too_large")),
            jobs.c.deaths <= bindparam("most_deaths", type_=BigInteger),
        )
        .order_by(jobs.c.scheduled_at, jobs.c.id)
        .limit(bindparam("limit", type_=BigInteger))
        .with_for_update(skip_locked=True, of=jobs)
    )
)
_IS_ANY_CLAIMABLE = Statement(lambda: select(jobs.c.id).where(_is_claimable).limit(1))
_CLAIM = Statement(
    lambda: (
        update(jobs)
        .where(in_list(jobs.c.id, "ids"))
        .values(
            status="running",
            worker=bindparam("claimed_by"),
            session=bindparam("mine"),
            unique_key=None,
            started_at=now(),
            updated_at=now(),
            done=None,
            total=None,
            result="{}",
        )
    )
)
_STATES = Statement(
    lambda: select(jobs.c.id, jobs.c.status).where(
        in_list(jobs.c.id, "ids"), jobs.c.session == bindparam("mine"), is_one_of(RUNNING)
    )
)
_END = Statement(
    lambda: (
        update(jobs)
        .where(in_list(jobs.c.id, "ids"))
        .values(
            status=bindparam("ends_as"),
            ended_at=case((bindparam("ends_as", type_=Text) == "worker_shutdown", None), else_=now()),
            updated_at=now(),
        )
    )
)
_RETRY_OF = Statement(
    lambda: select(
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
    lambda: (
        update(jobs)
        .where(jobs.c.id == bindparam("which"))
        .values(
            done=bindparam("done_now", type_=BigInteger),
            total=bindparam("total_now", type_=BigInteger),
            unit=bindparam("unit_now"),
            updated_at=now(),
        )
    )
)
_RESULT = Statement(
    lambda: update(jobs).where(jobs.c.id == bindparam("which")).values(result=bindparam("came_to"))
)
_LAST_LINE = Statement(
    lambda: select(func.coalesce(func.max(job_logs.c.line), -1)).where(job_logs.c.job == bindparam("job"))
)
_LOCK_MINE = Statement(
    lambda: (
        select(jobs.c.id, jobs.c.status)
        .where(in_list(jobs.c.id, "ids"), jobs.c.session == bindparam("mine"), is_one_of(RUNNING))
        .order_by(jobs.c.id)
        .with_for_update()
    )
)
_WRITE_LINE = Statement(
    lambda: (
        insert(job_logs)
        .values(job=bindparam("job"), line=bindparam("line"), data=bindparam("data"), level=bindparam("level"))
        .on_conflict_do_nothing()
    )
)


class JobFailed(Exception):
    """
    The action could not do what it was asked; the message says why.

    `retry_after`: seconds before which it is not tried again; `is_lasting`: another attempt would fail, too.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_lasting = is_lasting


class Line(NamedTuple):
    """A line of a job's log, with its `data` as it is kept: JSON."""

    level: Level
    data: str


class Run:
    """A job that runs, for its action: what it is to do, and where it says how far it is."""

    def __init__(self, job: str, action: str, parameters: Mapping[str, str], deadline: int = 0) -> None:
        """`deadline` is how many milliseconds it may take; 0: as long as it wants."""
        self.job = job
        self.action = action
        self.parameters = parameters
        self._leaves_at = time.monotonic() + 0.9 * deadline / 1000 if deadline else None
        self.lines: list[Line] = []
        self.state: tuple[int, int | None, str] | None = None
        self.result: dict[str, int] | None = None

    def log(self, message: str, level: Level = "info") -> None:
        """Write a line to the log of the job."""
        self.lines.append(_line(message, level))

    def progress(self, done: int, total: int | None, unit: str) -> None:
        """Say how much is done, in `unit`; `total` None: nobody knows."""
        self.state = (done, total, unit)

    def report(self, result: Mapping[str, int]) -> None:
        """Say what it came to, in numbers by name; the last that is said before it ends stays."""
        self.result = dict(result)

    @property
    def is_nearly_over(self) -> bool:
        """Nine tenths of its time are over: an action that can go on another time leaves off by itself."""
        return self._leaves_at is not None and time.monotonic() > self._leaves_at


class _Task(Struct):
    """A job in this process. `reason` is why it was told to end."""

    run: Run
    task: asyncio.Task[None]
    capacity: dict[str, int]
    stop_timeout: int
    is_suspect: bool
    """Workers died while they ran it."""
    next_line: int | None
    """The number of the next line of its log; None: not known yet."""
    reason: str = ""
    outcome: Status | None = None
    """How it ended, as long as that is not written down."""
    failure: JobFailed | None = None
    """What its action said when it failed, and did say something."""
    stopping: asyncio.Task[None] | None = None
    started: float = field(default_factory=time.monotonic)

    def cancel(self) -> None:
        """Cancel what it does, unless that has ended meanwhile: how is being written down."""
        if self.outcome is None:
            self.task.cancel()


class _Report(Struct, frozen=True):
    """What is to be written down of a job."""

    one: _Task
    lines: list[Line]
    state: tuple[int, int | None, str] | None
    outcome: Status | None


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
        concurrency: int = 16,
        at_most: Mapping[str, int] | None = None,
        passing: Collection[str] = (),
        observe: Callable[[str, str, float], None] | None = None,
    ) -> None:
        """
        `actions` by name are what it can do, `concurrency` how much at once.

        `at_most` is how much of an action: those that wait for others, who may be slow, do not take all places.
        Jobs of the actions `passing` are forgotten a day later (`forget`). `observe` is called for each job that
        ended: action, status, seconds.
        """
        self._database = database
        self._crons = crons
        self._actions = dict(actions)
        self._id = worker
        self._node = node
        self._session = uuid.uuid4().hex
        self._concurrency = concurrency
        self._at_most = dict(at_most or {})
        self._passing = sorted(passing)
        self._observe = observe
        self._running: dict[str, _Task] = {}
        self._wake = asyncio.Event()
        self._claiming: asyncio.Task[int] | None = None
        self._writing = asyncio.Lock()
        self._beaten = 0.0
        self._looked_past = 0.0

    async def run(self) -> None:
        """Work until cancelled; then the jobs that run are stopped, and left to others."""
        await self._keep_trying(self._register)
        loops = [
            asyncio.create_task(loop)
            for loop in (
                self._database.watch(CHANNEL, self._wake.set),
                self._every(_BEAT, self._beat),
                self._every(_GUARD, self._guard),
                self._every(_WATCH, self._look_after),
                self._every(_BEAT, self._take_over),
                self._every(_LOG_SECONDS, self._write_down),
                self._every(_FORGET_SECONDS, self._forget),
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
            await tx.execute(
                _REGISTER_WORKER, id=self._id, node=self._node, session=self._session, places=self._concurrency
            )

        started = time.monotonic()
        await self._database.unit(work)
        self._beaten = started

    async def _beat(self) -> None:
        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one(_LOCK_WORKER, id=self._id, mine=self._session)
            if row is None:
                return False
            if row[0] == "dead":
                await tx.execute(_RESURRECT, ids=sorted(self._running), mine=self._session)
            await tx.execute(_BEAT_WORKER, which=self._id, mine=self._session)
            return True

        started = time.monotonic()
        if await self._database.unit(work):
            self._beaten = started
        else:
            await self._register()

    async def _guard(self) -> None:
        """Stop the jobs in time, when no heartbeat succeeds: others take them over soon."""
        if self._is_fenced:
            self._stop_all(_LOST)

    @property
    def _is_fenced(self) -> bool:
        return time.monotonic() - self._beaten > _FENCE

    async def _shut_down(self) -> None:
        if self._claiming is not None:  # what it claims in this moment is stopped and left to others, too
            await asyncio.wait([self._claiming], timeout=_STOP_MS / 1000)
        self._stop_all(_LEAVING)
        if self._running:
            await asyncio.wait([one.task for one in self._running.values()], timeout=_STOP_MS / 1000)

        async def work(tx: Transaction) -> None:
            await tx.execute(_LEAVE, which=self._id, mine=self._session)
            await tx.notify(CHANNEL)

        with contextlib.suppress(DatabaseError):
            await self._database.unit(work)

    def _stop_all(self, reason: str) -> None:
        for one in self._running.values():
            self._stop(one, reason)

    # --- looking after ---

    async def _look_after(self) -> None:
        """Stop what has to stop here, bury who died, queue what is due by schedule."""
        if asked := dict(self._running):  # more may begin, while the database answers
            rows = await self._database.fetch_all(_STATES, ids=sorted(asked), mine=self._session)
            states = {row[0]: row[1] for row in rows}
            for job, one in asked.items():
                if states.get(job) == "cancel_request":
                    self._stop(one, _CANCELED)
                elif states.get(job) == "worker_resurrection":
                    self._stop(one, _HELD_FOR_DEAD)
                elif job not in states:
                    self._stop(one, _TAKEN_OVER)
        if await self._database.fetch_one(_IS_ANY_DEAD) is not None:
            await self._take_over()
        if await self._crons.queue_due():
            self._wake.set()

    async def _take_over(self) -> None:
        """Bury workers that are dead, and release what no living process runs."""
        if await self._database.fetch_one(_IS_ANYTHING_LEFT) is None:
            return

        async def work(tx: Transaction) -> tuple[int, int]:
            buried = await tx.execute(_BURY)
            released = await tx.fetch_all(_RELEASE)
            for job, status in released:
                if status == "errored":
                    line = _line(f"{_MOST_DEATHS} workers died while they ran this job", "error")
                    await _write_lines(tx, job, await _next_line(tx, job), [line])
                    await _retry(tx, job)
            if released:
                await tx.notify(CHANNEL)
            return buried, len(released)

        buried, released = await self._database.unit(work)
        if buried or released:
            _log.warning("worker is gone", extra={"workers": buried, "jobs": released})
            self._wake.set()

    async def _forget(self) -> None:
        await forget(self._database, self._passing)

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
        if free <= 0 or self._is_fenced:
            return 0
        actions = _with_room(self._actions, self._room())
        if len(actions) < len(self._actions):
            if time.monotonic() - self._looked_past < _CROWDED_SECONDS:
                return 0
            self._looked_past = time.monotonic()
        if await self._database.fetch_one(_IS_ANY_CLAIMABLE, actions=actions) is None:
            return 0

        async def work(tx: Transaction) -> list[Row]:
            row = await tx.fetch_one(_CAPACITY, id=self._id, mine=self._session)
            if row is None:
                return []
            chosen = await self._choose(tx, free, self._free_capacity(json.loads(row[0])))
            if chosen:
                await tx.execute(
                    _CLAIM, ids=sorted(one[0] for one in chosen), claimed_by=self._id, mine=self._session
                )
            return chosen

        async def claim() -> int:
            claimed = await self._database.unit(work)
            for row in claimed:
                self._start(row)
            return len(claimed)

        # What the database has given to this worker is started here, even when somebody cancels meanwhile.
        self._claiming = asyncio.create_task(claim())
        return await asyncio.shield(self._claiming)

    async def _choose(self, tx: Transaction, free: int, left: dict[str, int]) -> list[Row]:
        """The first jobs that wait, at most `free`, that fit together into the capacity that is `left`."""
        chosen: list[Row] = []
        too_large: list[str] = []
        room = self._room()
        limit = free  # whatever is looked at is locked, and nobody else can claim it meanwhile
        most_deaths = _SUSPICIOUS_DEATHS - 1 if self._is_on_probation else _MOST_DEATHS
        while len(chosen) < free:
            actions = _with_room(self._actions, room)
            found = await tx.fetch_all(
                _CLAIMABLE_JOBS, actions=actions, too_large=too_large, most_deaths=most_deaths, limit=limit
            )
            # One that still runs here was taken from this worker, and has to stop first.
            known = {*self._running, *(one[0] for one in chosen)}
            refused, waits = set(), False
            for one in found:
                if one[0] in known:
                    continue
                if one[8] > most_deaths:
                    waits = True
                    continue
                if room.get(one[1], 1) == 0:
                    continue  # the next look leaves its action out
                needed = json.loads(one[2])
                if len(chosen) == free or any(left.get(name, 0) < number for name, number in needed.items()):
                    refused.add(one[2])
                    continue
                for name, number in needed.items():
                    left[name] = left.get(name, 0) - number
                if one[1] in room:
                    room[one[1]] -= 1
                if one[8] >= _SUSPICIOUS_DEATHS:
                    most_deaths = _SUSPICIOUS_DEATHS - 1
                chosen.append(one)
            left_out = refused or waits or len(_with_room(actions, room)) < len(actions)
            if len(found) < limit or not left_out:
                break
            too_large = sorted({*too_large, *refused})
            limit = _PAGE
        return chosen

    @property
    def _is_on_probation(self) -> bool:
        """Whether what runs here may kill this worker soon."""
        since = time.monotonic() - _PROBATION_SECONDS
        return any(one.is_suspect and one.started > since for one in self._running.values())

    def _free_capacity(self, capacity: dict[str, int]) -> dict[str, int]:
        left = dict(capacity)
        for one in self._running.values():
            for name, number in one.capacity.items():
                left[name] = left.get(name, 0) - number
        return left

    def _room(self) -> dict[str, int]:
        """How many more jobs may run, by the actions that are bounded."""
        room = dict(self._at_most)
        for one in self._running.values():
            if one.run.action in room:
                room[one.run.action] -= 1
        return room

    # --- running ---

    def _start(self, row: Row) -> None:
        job, action, capacity, parameters, configured, deadline, stop_timeout, before, deaths = row
        run = Run(job, action, json.loads(configured) | json.loads(parameters), deadline)
        if before:
            run.log(f"goes on after worker {before}", "warning")
        task = asyncio.create_task(self._perform(run, deadline), name=f"job {action} {job}")
        next_line = None if before else 0
        is_suspect = deaths >= _SUSPICIOUS_DEATHS
        self._running[job] = _Task(
            run, task, json.loads(capacity), stop_timeout or _STOP_MS, is_suspect, next_line
        )

    async def _perform(self, run: Run, deadline: int) -> None:
        one = self._running[run.job]
        started = time.monotonic()
        status: Status = "done"
        limit = None
        if deadline:
            limit = asyncio.get_running_loop().call_later(deadline / 1000, self._stop, one, _TOO_LONG)
        try:
            await self._act(run)
        except asyncio.CancelledError:
            status = "errored"
            if not one.reason and not one.task.cancelling():
                run.log("the action was cancelled from within", "error")
        except JobFailed as error:
            status = "errored"
            one.failure = error
            run.log(str(error), "error")
        except Exception as error:  # noqa: BLE001 - whatever an action raises ends its job, not the worker
            status = "errored"
            run.log(f"{type(error).__name__}: {error}", "error")
            if not one.reason:
                _log.exception("job failed", extra={"job": run.job, "action": run.action})
        if limit is not None:
            limit.cancel()
        if status == "errored" and (one.reason or one.task.cancelling()):
            run.log(f"stopped: {one.reason or _LEAVING}", "warning")
            status = _OUTCOMES.get(one.reason, "worker_shutdown")
        seconds = round(time.monotonic() - started, 3)
        # Whatever cancels this task now comes too late: how the job ended is written down.
        one.outcome = status
        await asyncio.shield(asyncio.ensure_future(self._end(one, status)))
        _log.info(
            "job ended",
            extra={"job": run.job, "action": run.action, "outcome": status, "seconds": seconds},
        )
        if self._observe is not None:
            self._observe(run.action, status, seconds)

    async def _act(self, run: Run) -> None:
        """Do what the job is for; from its beginning again, when the database does not answer for a moment."""
        for pause in _AGAIN_SECONDS:
            try:
                return await self._actions[run.action](run)
            except DatabaseUnavailable as error:
                run.log(f"{type(error).__name__}: {error}; it begins again in {pause:g} s", "warning")
            await asyncio.sleep(pause)
        return await self._actions[run.action](run)

    def _stop(self, one: _Task, reason: str) -> None:
        if not one.reason and one.outcome is None:
            one.reason = reason
            # After its first step: what is cancelled before that never runs, and its end is not written down.
            asyncio.get_running_loop().call_soon(one.cancel)
            one.stopping = asyncio.create_task(self._give_up(one))

    async def _give_up(self, one: _Task) -> None:
        """
        Wait for a job that was told to stop; one that does not is written down as failed, and left alone.

        But for one that others may have when this worker is gone, or have already.
        """
        done, _ = await asyncio.wait([one.task], timeout=one.stop_timeout / 1000)
        if done or one.outcome is not None:
            return
        _log.error("job does not stop", extra={"job": one.run.job, "action": one.run.action})
        if one.reason in _OUTCOMES:
            one.run.log("the job does not stop", "error")
            await self._end(one, "errored")

    # --- writing down ---

    async def _end(self, one: _Task, status: Status) -> None:
        one.outcome = status
        try:
            await self._write_down()
        except DatabaseError as error:
            _log.warning("job not ended", extra={"job": one.run.job, "reason": str(error)})

    async def _write_down(self) -> None:
        """Write what jobs said since the last time, and how they ended. Raises DatabaseError."""
        async with self._writing:
            reports = [
                _Report(one, list(one.run.lines), one.run.state, one.outcome)
                for one in self._running.values()
                if one.run.lines or one.run.state or one.outcome
            ]
            if not reports:
                return
            durable = any(report.outcome for report in reports)
            await self._database.unit(lambda tx: self._report(tx, reports), durable=durable)
            for report in reports:
                one, run = report.one, report.one.run
                del run.lines[: len(report.lines)]
                if one.next_line is not None:
                    one.next_line += len(report.lines)
                if run.state is report.state:
                    run.state = None
                if report.outcome is not None and self._running.get(run.job) is one:
                    del self._running[run.job]
                    self._wake.set()

    async def _report(self, tx: Transaction, reports: list[_Report]) -> None:
        ids = sorted(report.one.run.job for report in reports)
        mine = {row[0]: row[1] for row in await tx.fetch_all(_LOCK_MINE, ids=ids, mine=self._session)}
        ended: dict[str, list[str]] = {}
        failed: list[tuple[str, JobFailed | None]] = []
        for report in reports:
            one, job = report.one, report.one.run.job
            if job not in mine:  # it was deleted, or is another's
                continue
            if report.state is not None:
                done, total, unit = report.state
                await tx.execute(_PROGRESS, which=job, done_now=done, total_now=total, unit_now=unit)
            if report.lines:
                if one.next_line is None:
                    one.next_line = await _next_line(tx, job)
                await _write_lines(tx, job, one.next_line, report.lines)
            if report.outcome is not None:
                if one.run.result is not None:
                    await tx.execute(_RESULT, which=job, came_to=json.dumps(one.run.result))
                wanted_gone = mine[job] == "cancel_request"
                if report.outcome == "errored" and not wanted_gone:
                    failed.append((job, one.failure))
                is_canceled = wanted_gone and report.outcome == "worker_shutdown"
                ended.setdefault("canceled" if is_canceled else report.outcome, []).append(job)
        for status, those in ended.items():
            await tx.execute(_END, ids=sorted(those), ends_as=status)
        for job, failure in failed:
            await _retry(tx, job, failure)
        if "worker_shutdown" in ended:
            await tx.notify(CHANNEL)


def _with_room(actions: Collection[str], room: Mapping[str, int]) -> list[str]:
    """Those of which more may run, in order."""
    return sorted(action for action in actions if room.get(action, 1) > 0)


def _line(message: str, level: Level) -> Line:
    moment = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Line(level, json.dumps({"level": level, "msg": message, "time": moment}))


async def _next_line(tx: Transaction, job: str) -> int:
    row = await tx.fetch_one(_LAST_LINE, job=job)
    return int(row[0]) + 1 if row else 0


async def _write_lines(tx: Transaction, job: str, first: int, lines: list[Line]) -> None:
    rows = [
        {"job": job, "line": first + number, "data": line.data, "level": line.level}
        for number, line in enumerate(lines)
    ]
    await tx.execute_many(_WRITE_LINE, rows)


async def _retry(tx: Transaction, job: str, failure: JobFailed | None = None) -> None:
    """Queue a job that failed once more, if it has retries left: later each time, and as late as it wants."""
    if failure is not None and failure.is_lasting:
        return
    row = await tx.fetch_one(_RETRY_OF, id=job)
    if row is None or row[5] <= 0:
        return
    action, parameters, capacity, deadline, stop_timeout, left, total, retry_from, moment = row
    pause = min(2 ** min(total - left, 10), 600) * 1000
    if failure is not None and failure.retry_after is not None:
        pause = max(pause, round(failure.retry_after * 1000))
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
        cause="retry",
    )
