"""``python -m tests.support.job_worker URL ID``: a process that is a worker and nothing else, to be killed."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from sqlalchemy import text

from dtr.db import Database, Statement, Transaction, open_database
from dtr.jobs import Action, Crons, JobFailed, Run, Worker

TABLES = (
    Statement(text("CREATE TABLE effects (job TEXT PRIMARY KEY)")),
    Statement(text("CREATE TABLE attempts (job TEXT, pid INTEGER, began FLOAT, ended FLOAT)")),
    Statement(text("CREATE TABLE looks (pid INTEGER, began FLOAT, ended FLOAT)")),
)
"""
What jobs leave behind: an effect each, however often they run, and attempts; and when a worker looked after those
that are dead. In seconds since 1970.
"""
_BEGIN = Statement(text("INSERT INTO attempts VALUES (:job, :pid, :moment, NULL)"))
_END = Statement(text("UPDATE attempts SET ended = :moment WHERE job = :job AND pid = :pid"))
_EFFECT = Statement(text("INSERT INTO effects VALUES (:job) ON CONFLICT DO NOTHING"))
_LOOK = Statement(text("INSERT INTO looks VALUES (:pid, :began, :ended)"))


def actions(database: Database) -> dict[str, Action]:
    """`counts` takes so many milliseconds and leaves an effect; `fails` takes them and fails."""
    pid = os.getpid()

    async def begin(run: Run) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_BEGIN, job=run.job, pid=pid, moment=time.time())

        await database.unit(work)
        run.progress(0, 1, "effects")
        await asyncio.sleep(int(run.parameters["milliseconds"]) / 1000)

    async def counts(run: Run) -> None:
        await begin(run)

        async def work(tx: Transaction) -> None:
            await tx.execute(_EFFECT, job=run.job)
            await tx.execute(_END, job=run.job, pid=pid, moment=time.time())

        await database.unit(work)
        run.log("counted")

    async def fails(run: Run) -> None:
        await begin(run)
        await database.unit(lambda tx: tx.execute(_END, job=run.job, pid=pid, moment=time.time()))
        raise JobFailed("as it was asked to")

    return {"counts": counts, "fails": fails}


async def main(url: str, worker: str) -> None:
    database = open_database(url)
    made = Worker(database, Crons(database), actions(database), worker=worker, node="here")
    look_after, pid = made._look_after, os.getpid()

    async def look() -> None:
        began = time.time()
        await look_after()
        ended = time.time()
        await database.unit(lambda tx: tx.execute(_LOOK, pid=pid, began=began, ended=ended))

    made._look_after = look  # type: ignore[method-assign]
    await made.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
