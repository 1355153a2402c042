"""What processes keep in memory of the database: read when it changed, once, in order, and despite failures."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from sqlalchemy import text

from dtr.db import Database, DatabaseError, Statement, Transaction, open_database
from dtr.db import revisions as module
from dtr.db.revisions import Revision

_VALUE = Statement(text("SELECT value FROM settings WHERE name = 'x'"))
_SET = Statement(
    text(
        "INSERT INTO settings (name, value, updated_at) VALUES ('x', :value, 0)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )
)


class Kept:
    """One process, with a value of the database in memory."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.value: str | None = None
        self.reads = 0
        self.is_due = False
        self.failure: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.revision = Revision(database, "x", self.read, is_due=lambda: self.is_due)

    async def read(self) -> None:
        self.reads += 1
        row = await self.database.fetch_one(_VALUE)
        await self.may_go_on.wait()
        if self.failure is not None:
            raise self.failure
        self.value = row[0] if row else None

    async def set(self, value: str) -> None:
        async def work(tx: Transaction) -> None:
            await self.revision.count_up(tx)
            await tx.execute(_SET, value=value)

        await self.database.unit(work)


@contextlib.asynccontextmanager
async def following(kept: Kept, told: list[Exception], failures: tuple[type[Exception], ...] = (DatabaseError,)):
    follower = asyncio.create_task(kept.revision.follow(told.append, failures))
    try:
        yield follower
    finally:
        follower.cancel()
        await asyncio.wait([follower])


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_is_read_after_a_change_and_only_then(database):
    here, there = Kept(database), Kept(database)
    await here.revision.refresh()
    assert here.reads == 0
    for number, value in enumerate(("a", "b"), start=1):
        await here.set(value)
        for kept in (here, there):
            await kept.revision.refresh()
            await kept.revision.refresh()
            assert (kept.value, kept.reads) == (value, number)


async def test_another_one_is_no_change(database):
    here, other = Kept(database), Revision(database, "y", pytest.fail)
    await here.set("a")
    await other.refresh()


async def test_what_is_not_committed_is_no_change(database):
    here = Kept(database)

    async def work(tx: Transaction) -> None:
        await here.revision.count_up(tx)
        raise LookupError

    with pytest.raises(LookupError):
        await database.unit(work)
    await here.revision.refresh()
    assert here.reads == 0


async def test_other_processes_follow_within_two_seconds(database, database_url):
    here, other = Kept(database), open_database(database_url)
    there = Kept(other)
    try:
        async with following(there, []):
            took = []
            for value in ("a", "b", "c", "d"):
                await here.set(value)
                began = time.monotonic()
                await until(lambda value=value: there.value == value)
                took.append(time.monotonic() - began)
            # Each but the first waits for a whole turn; on a machine that is busy one or another may take longer.
            assert min(took[1:]) < 2
    finally:
        await other.close()


async def test_what_changes_while_it_is_read_is_read_again(database):
    here, rival = Kept(database), Kept(database)
    await here.set("a")
    here.may_go_on.clear()
    first = asyncio.create_task(here.revision.refresh())
    await until(lambda: here.reads == 1)
    await rival.set("b")
    second = asyncio.create_task(here.revision.refresh())
    await asyncio.sleep(0.05)
    assert here.reads == 1  # the second one waits: what it reads is not overwritten by the first
    here.may_go_on.set()
    await asyncio.gather(first, second)
    assert (here.value, here.reads) == ("b", 2)


async def test_what_could_not_be_read_is_read_the_next_time(database):
    here = Kept(database)
    await here.set("a")
    here.failure = LookupError("not now")
    with pytest.raises(LookupError):
        await here.revision.refresh()
    here.failure = None
    await here.revision.refresh()
    assert (here.value, here.reads) == ("a", 2)


async def test_what_is_due_is_read_without_a_change(database):
    here = Kept(database)
    here.is_due = True
    await here.revision.refresh()
    assert here.reads == 1
    here.is_due = False
    await here.revision.refresh()
    assert here.reads == 1


async def test_a_row_of_failures_is_told_once_and_what_was_known_holds(database, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    good = module._GET
    here = Kept(database)
    await here.set("a")
    await here.revision.refresh()
    told: list[Exception] = []
    async with following(here, told):
        for times in (1, 2):
            monkeypatch.setattr(module, "_GET", Statement(text("SELECT value FROM there_is_no_such_table")))
            await until(lambda times=times: len(told) == times)
            await asyncio.sleep(0.2)
            assert len(told) == times
            assert here.value == "a"
            monkeypatch.setattr(module, "_GET", good)
            await here.set(str(times))
            await until(lambda times=times: here.value == str(times))
            await here.set("a")
            await until(lambda: here.value == "a")
    assert all(isinstance(error, DatabaseError) for error in told)


async def test_only_failures_that_are_named_are_outlived(database, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    here = Kept(database)
    await here.set("a")
    here.failure = LookupError("not now")
    told: list[Exception] = []
    async with following(here, told, (DatabaseError, LookupError)):
        await until(lambda: here.reads > 3)
    assert told == [here.failure]
    async with following(here, told) as follower:
        await until(follower.done)
        assert follower.exception() is here.failure
