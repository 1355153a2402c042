"""Waiting for jobs, and actions to try them with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy import text

from dtr.db import Database, Statement
from dtr.jobs import Job, JobFailed, Jobs, Run

_SQL = {
    "kill": "UPDATE workers SET heartbeat_until = 0 WHERE id = :id",
    "due": "UPDATE crons SET next_run = 1 WHERE action = :id",
    "orphan": "UPDATE jobs SET status = 'running', session = 'gone', worker = 'gone' WHERE id = :id",
    "yesterday": "UPDATE jobs SET scheduled_at = scheduled_at - 86500000 WHERE action = :id",
    "now": "UPDATE jobs SET scheduled_at = 0 WHERE status = :id",
}


ENDS = frozenset({"done", "errored", "canceled"})
"""What becomes of a job in the end. One whose worker lost the database for a while goes on: that is no end."""


async def change(database: Database, name: str, id: str) -> None:  # noqa: A002 - as in the statement
    statement = Statement(text(_SQL[name]))
    await database.unit(lambda tx: tx.execute(statement, id=id))


async def ended(jobs: Jobs, job: str) -> Job:
    """The job, when it ended."""
    async with asyncio.timeout(60):
        while (found := await jobs.get(job)).status not in ENDS:
            await asyncio.sleep(0.02)
    return found


async def has(jobs: Jobs, job: str, *states: str) -> Job:
    async with asyncio.timeout(60):
        while (found := await jobs.get(job)).status not in states:
            await asyncio.sleep(0.02)
    assert (found.ended_at is not None) == (found.status in ENDS)
    return found


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


async def works(run: Run) -> None:
    run.log("working")
    run.progress(1, 2, "steps")
    await asyncio.sleep(0)


async def waits(run: Run) -> None:
    run.log("waiting")
    await asyncio.sleep(600)


async def fails(_run: Run) -> None:
    raise JobFailed("it cannot be done")
