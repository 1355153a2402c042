"""
The queue of jobs: `python -m benchmarks.jobs sqlite:////tmp/x/jobs.db`.

Worker processes share one database, as the replicas of an installation do; jobs do nothing. Three figures:

* **start-up**: from the call that queues a job, in this process, to its first line in another one that is idle;
* **throughput**: jobs queued before, until the last of them ended;
* **rest**: CPU time of a worker that has nothing to do.

The database is emptied of jobs first. PostgreSQL has to run on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import signal
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from sqlalchemy import text

from dtr.db import Statement, open_database
from dtr.db.migrate import migrate
from dtr.jobs import Crons, JobRequest, Jobs, Run, Worker, Workers, submit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

    from dtr.db import Database, Transaction

_BATCH = 500
_EMPTY = tuple(Statement(text(f"DELETE FROM {table}")) for table in ("job_logs", "jobs", "workers"))
_OPEN = Statement(text("SELECT count(*) FROM jobs WHERE ended_at IS NULL"))
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="sqlite:///… or postgresql://…; tables are made when there are none")
    parser.add_argument("--jobs", type=int, default=10_000, help="how many are queued for the throughput")
    parser.add_argument("--workers", type=int, default=8, help="processes that share them")
    parser.add_argument("--starts", type=int, default=200, help="how many are queued for the start-up")
    parser.add_argument("--rest", type=float, default=10, help="seconds of doing nothing")
    parser.add_argument("--profile", type=Path, help="write what the first worker spent its time on here")
    uvloop.run(measure(parser.parse_args()))


async def measure(options: argparse.Namespace) -> None:
    """Everything, one after the other."""
    database = open_database(options.database)
    await migrate(database, options.database)
    await database.unit(empty)
    with processes(options.database, 1) as (worker,):
        await alive(database, 1)
        delays = await starts(database, options.starts)
        before = cpu_seconds(worker)
        await asyncio.sleep(options.rest)
        rest = (cpu_seconds(worker) - before) / options.rest
    print(f"start-up: median {statistics.median(delays) * 1000:.1f} ms, ", end="")
    print(f"p95 {statistics.quantiles(delays, n=20)[-1] * 1000:.1f} ms, longest {max(delays) * 1000:.1f} ms")
    print(f"at rest: {rest * 100:.2f} % of a core")

    await database.unit(empty)
    for first in range(0, options.jobs, _BATCH):
        await database.unit(partial(queue, number=min(_BATCH, options.jobs - first)))
    with processes(options.database, options.workers, options.profile) as workers:
        await alive(database, options.workers)  # they work already: the rate is that of the second half
        await at_most(database, options.jobs // 2)
        started, left = time.monotonic(), await open_jobs(database)
        before = sum(map(cpu_seconds, workers))
        await at_most(database, 0)
        seconds = time.monotonic() - started
        cpu = sum(map(cpu_seconds, workers)) - before
    print(f"throughput: {left / seconds:.0f} jobs/s with {options.workers} workers, ", end="")
    print(f"{cpu / left * 1e6:.0f} µs CPU of the workers each")
    await database.close()


async def starts(database: Database, number: int) -> list[float]:
    """Seconds from queueing to running."""
    jobs, delays = Jobs(database), []
    for _ in range(number):
        await asyncio.sleep(random.uniform(0.02, 0.12))  # not in step with whoever looks now and then
        queued = time.time()
        job = await jobs.submit(JobRequest(action="notes"))
        while not (found := await jobs.logs(job.id, limit=1)):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.005)
        delays.append(float(json.loads(found[0][1])["msg"]) - queued)
    return delays


async def empty(tx: Transaction) -> None:
    """No jobs, no workers."""
    for statement in _EMPTY:
        await tx.execute(statement)


async def queue(tx: Transaction, number: int) -> None:
    """Queue jobs that do nothing."""
    for _ in range(number):
        await submit(tx, JobRequest(action="nothing"))


async def open_jobs(database: Database) -> int:
    """How many did not end."""
    row = await database.fetch_one(_OPEN)
    return int(row[0]) if row else 0


async def at_most(database: Database, number: int) -> None:
    """Wait until no more jobs than that are open."""
    while await open_jobs(database) > number:  # noqa: ASYNC110 - of other processes
        await asyncio.sleep(0.02)


async def alive(database: Database, number: int) -> None:
    """Wait until so many workers reported themselves."""
    while len(await Workers(database).list_workers()) < number:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def processes(url: str, number: int, profile: Path | None = None) -> Iterator[list[BaseProcess]]:
    """Worker processes; a profile is that of the first."""
    spawn = multiprocessing.get_context("spawn")
    made: list[BaseProcess] = [
        spawn.Process(target=work, args=(url, f"{one:012x}", None if one else profile)) for one in range(number)
    ]
    for one in made:
        one.start()
    yield made
    for one in made:
        one.terminate()
    for one in made:
        one.join()


def work(url: str, worker: str, profile: Path | None) -> None:
    """A worker process, until SIGTERM."""

    async def run() -> None:
        database = open_database(url)
        actions = {"nothing": nothing, "notes": notes}
        task = asyncio.create_task(Worker(database, Crons(database), actions, worker=worker, node="bench").run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await database.close()

    if profile is None:
        uvloop.run(run())
        return
    import cProfile

    cProfile.runctx("uvloop.run(run())", {"uvloop": uvloop, "run": run}, {}, str(profile))


async def nothing(_run: Run) -> None:
    """Do it."""


async def notes(run: Run) -> None:
    """Write down when it began."""
    run.log(str(time.time()))


def cpu_seconds(process: BaseProcess) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
