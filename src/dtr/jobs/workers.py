"""All workers, as the database knows them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import bindparam, select, update

from dtr.db import Statement
from dtr.db.schema import jobs, workers
from dtr.events import SYSTEM, Event, Object, record
from dtr.jobs.errors import WorkerUnknown
from dtr.jobs.job import RUNNING, JobRequest, canonical, is_one_of
from dtr.jobs.queue import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.db import Database, Transaction
    from dtr.events import Actor

_LIST = Statement(
    lambda: select(
        workers.c.id,
        workers.c.status,
        workers.c.capacity,
        workers.c.heartbeat_until,
        workers.c.node,
        workers.c.places,
    ).order_by(workers.c.id)
)
_RUNNING = Statement(
    lambda: select(jobs.c.worker, jobs.c.action, jobs.c.capacity).where(
        jobs.c.ended_at.is_(None), is_one_of(RUNNING)
    )
)
_SET_CAPACITY = Statement(
    lambda: update(workers).where(workers.c.id == bindparam("which")).values(capacity=bindparam("capacity_now"))
)


class WorkerRecord(Struct, frozen=True):
    """A worker as the database knows it; `heartbeat_until` in milliseconds since 1970."""

    id: str
    status: str
    capacity: dict[str, int]
    heartbeat_until: int
    node: str
    places: int
    """How many jobs it runs at a time."""
    running: dict[str, int]
    """How many it runs now, by action."""
    used: dict[str, int]
    """What of its capacity they need."""


class Workers:
    """All workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_workers(self) -> list[WorkerRecord]:
        """All that ever reported themselves, by id."""
        rows = await self._database.fetch_all(_LIST)
        running: defaultdict[str, Counter[str]] = defaultdict(Counter)
        used: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for worker, action, capacity in await self._database.fetch_all(_RUNNING):
            running[worker][action] += 1
            used[worker].update(json.loads(capacity))
        return [
            WorkerRecord(row[0], row[1], json.loads(row[2]), row[3], row[4], row[5], running[row[0]], used[row[0]])
            for row in rows
        ]

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
