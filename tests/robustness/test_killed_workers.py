"""
Workers are killed while they run jobs: every job ends once all the same, and never runs twice at the same time.

``DTR_TEST_JOBS=20000`` makes it last some minutes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text
from tests.support import job_worker

from dtr.db import Database, Statement, Transaction
from dtr.jobs import JobRequest, submit
from dtr.jobs.worker import _LEASE, _MOST_DEATHS, _SUSPICIOUS_DEATHS

JOBS = int(os.environ.get("DTR_TEST_JOBS", "1000"))
WORKERS = 3
EVERY_SECONDS = 1.5
EVERY_JOBS = 16 * WORKERS
"""So many end between two deaths, however slow the machine is: else workers die faster than they do anything."""
LOOKS = 5
"""
Of a worker, once a second, from the end of a dead one's lease to the next attempt of its jobs: so they are taken
over within 15 seconds, where the machine has the time.
"""
FAILING, RETRIES = 10, 1
"""One job of so many fails, and is tried again so often."""

_STATES = Statement(text("SELECT action, status, retries_left, count(*) FROM jobs GROUP BY 1, 2, 3"))
_WORN = Statement(text(f"SELECT 1 FROM jobs WHERE ended_at IS NULL AND deaths >= {_MOST_DEATHS - 2} LIMIT 1"))
_OPEN = Statement(text("SELECT count(*) FROM jobs WHERE ended_at IS NULL"))
_RETRIED = Statement(text("SELECT count(DISTINCT retry_from) FROM jobs WHERE retry_from <> ''"))
_EFFECTS = Statement(text("SELECT job FROM effects"))
_LOOKS = Statement(text("SELECT pid, began, ended FROM looks"))
_ATTEMPTS = Statement(text("SELECT job, pid, began, ended FROM attempts ORDER BY job, began"))
_IS_AT_WORK = Statement(text("SELECT 1 FROM attempts WHERE pid = :pid LIMIT 1"))
_DEATHS = Statement(text("SELECT id, deaths FROM jobs"))
_DONE = Statement(text("SELECT id FROM jobs WHERE action = 'counts'"))


class Herd:
    """Worker processes, of which one is killed now and then."""

    def __init__(self, url: str) -> None:
        self.killed: dict[int, float] = {}
        """When, by process id."""
        self._url = url
        self._ids = (f"{number:012x}" for number in itertools.count(1))
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        for _ in range(WORKERS):
            self._start(next(self._ids))

    async def kill_one(self, database: Database) -> None:
        """SIGKILL to one that works; it is started again at once, or another replica takes its place."""
        worker, process = self._running.pop(0)
        async with asyncio.timeout(120):
            while await database.fetch_one(_IS_AT_WORK, pid=process.pid) is None:
                await asyncio.sleep(0.02)
        self.killed[process.pid] = time.time()
        process.kill()
        process.wait(10)
        self._start(worker if len(self.killed) % 2 else next(self._ids))

    def close(self) -> None:
        for _, process in self._running:
            process.kill()
            process.wait(10)

    def _start(self, worker: str) -> None:
        command = [sys.executable, "-m", "tests.support.job_worker", self._url, worker]
        self._running.append((worker, subprocess.Popen(command, cwd=Path(__file__).parents[2])))


@contextmanager
def herd(url: str) -> Iterator[Herd]:
    made = Herd(url)
    try:
        yield made
    finally:
        made.close()


async def queue(tx: Transaction, chances: random.Random) -> None:
    for table in job_worker.TABLES:
        await tx.fetch_all(table)
    for number in range(JOBS):
        does = {"action": "fails", "retries": RETRIES} if number % FAILING == 0 else {"action": "counts"}
        await submit(tx, JobRequest(**does, parameters={"milliseconds": str(chances.randrange(10, 150))}))


async def count(database: Database, statement: Statement) -> int:
    row = await database.fetch_one(statement)
    assert row is not None
    return int(row[0])


async def worn(database: Database) -> bool:
    """Whether a job lived through so many deaths that it has to end now: the last one may not be counted yet."""
    return await database.fetch_one(_WORN) is not None


async def test_every_job_ends_once_though_its_workers_are_killed(database: Database, database_url: str):
    seed = int(os.environ.get("DTR_TEST_SEED") or random.randrange(2**32))
    print(f"DTR_TEST_SEED={seed} repeats the choices")
    chances = random.Random(seed)
    await database.unit(lambda tx: queue(tx, chances))
    with herd(database_url) as workers:
        due, enough = time.monotonic() + EVERY_SECONDS, JOBS - EVERY_JOBS
        # The last quarter runs undisturbed: what was killed before has to come back.
        while (left := await count(database, _OPEN)) > 0:
            if left > JOBS / 4 and left <= enough and time.monotonic() > due and not await worn(database):
                await workers.kill_one(database)
                due = time.monotonic() + EVERY_SECONDS * chances.uniform(0.7, 1.3)
                enough = left - EVERY_JOBS
            await asyncio.sleep(0.05)

    failing = JOBS // FAILING
    states = {tuple(row[:3]): row[3] for row in await database.fetch_all(_STATES)}
    assert states == {
        ("counts", "done", 0): JOBS - failing,
        ("fails", "errored", 1): failing,
        ("fails", "errored", 0): failing,
    }
    assert await count(database, _RETRIED) == failing
    effects = await database.fetch_all(_EFFECTS)
    assert sorted(row[0] for row in effects) == sorted(row[0] for row in await database.fetch_all(_DONE))

    taken_over = await interruptions(database, workers.killed)
    print(f"killed {len(workers.killed)} workers, {len(taken_over)} jobs went on elsewhere, ", end="")
    print(f"after {max(taken_over):.1f} s at the latest, {sum(taken_over) / len(taken_over):.1f} s on average")
    assert len(taken_over) >= len(workers.killed)


async def interruptions(database: Database, killed: dict[int, float]) -> list[float]:
    """
    Seconds from the death of a worker to the next attempt of each job that it ran.

    On the way: no two attempts of a job overlap, none follows one that was not interrupted, and no worker looks
    often at one that is dead.
    """
    found, seen = [], Counter[str]()
    looks = [tuple(row) for row in await database.fetch_all(_LOOKS)]
    deaths = {row[0]: row[1] for row in await database.fetch_all(_DEATHS)}
    rows = [tuple(row) for row in await database.fetch_all(_ATTEMPTS)]
    for job, of_job in itertools.groupby(rows, key=lambda row: row[0]):
        attempts = list(of_job)
        seen[job] = len(attempts)
        for (_, pid, _, ended), (_, _, began, _) in itertools.pairwise(attempts):
            assert pid in killed, f"ran again, though nobody killed the worker that ran it: {attempts}"
            assert began >= (ended or killed[pid]), f"ran twice at the same time: {attempts}"
            found.append(began - killed[pid])
            if deaths[job] >= _SUSPICIOUS_DEATHS:
                continue  # it waits for others of the kind, too
            dead = killed[pid] + _LEASE / 1000
            looked = Counter(looker for looker, start, end in looks if dead < start and end < began)
            assert max(looked.values(), default=0) <= LOOKS, f"nobody took it over, in spite of looks: {attempts}"
    assert len(seen) == JOBS + JOBS // FAILING * RETRIES
    return found
