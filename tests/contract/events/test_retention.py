"""Forgetting events: by age and by number, without touching the audit trail, in small units."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.events import made
from tests.support.rooms import Counter

from dtr.db import Database, Statement
from dtr.events import Bounds, Events, Filter, Retention, record, retention
from dtr.events.follower import Follower

HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 7)
    for name, builder in (("_PAGE", retention._PAGE),):
        clause: Any = builder.clause
        monkeypatch.setattr(retention, name, Statement(clause.limit(7)))


_AGE = Statement(
    text("UPDATE events SET published_at = published_at - :age WHERE id = (SELECT max(id) FROM events)")
)


async def fill(database: Database, *ages: int, histories: tuple[bool, ...] = (True,)) -> None:
    """Events that are so many days old; of each age one in a repository, and one that is not, as wanted."""

    async def work(tx: Any) -> None:
        for age in ages:
            for is_history in histories:
                await record(tx, made(repository_id=1 if is_history else None))
                await tx.execute(_AGE, age=age * DAY)

    await database.unit(work)


async def ages(database: Database) -> list[tuple[bool, int]]:
    """Of what is left, oldest first: whether in a repository, and how many days old."""
    rows = await database.fetch_all(
        Statement(
            text(
                "SELECT repository_id, (SELECT max(published_at) FROM events) - published_at"
                " FROM events ORDER BY id"
            )
        )
    )
    return [(row[0] is not None, round(row[1] / DAY)) for row in rows]


async def mixed(database: Database) -> None:
    await fill(database, *range(30, 0, -1), histories=(True, False))
    await fill(database, 0, histories=(False,))


async def test_without_bounds_nothing_goes(database: Database):
    await fill(database, 900, 1)
    assert await Retention(database).compact(Bounds()) == 0
    assert len(await ages(database)) == 2


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("bounds", "history", "audit"),
    [
        (Bounds(max_age=10 * DAY + HOUR), 10, 30),
        (Bounds(keep=4), 4, 30),
        (Bounds(keep=4, max_age=10 * DAY + HOUR), 4, 30),
        (Bounds(keep=20, max_age=10 * DAY + HOUR), 10, 30),
        (Bounds(keep=30), 30, 30),
        (Bounds(keep=1000), 30, 30),
        (Bounds(max_age=900 * DAY), 30, 30),
        (Bounds(audit_age=10 * DAY + HOUR), 30, 10),
        (Bounds(audit_age=10 * DAY + HOUR, keep=3), 3, 10),
        (Bounds(max_age=1), 0, 30),
    ],
)
async def test_bounds(database: Database, bounds: Bounds, history: int, audit: int):
    await mixed(database)
    kept = Retention(database)
    assert await kept.compact(bounds) == 60 - history - audit
    left = await ages(database)
    assert [age for is_history, age in left if is_history] == list(range(history, 0, -1))
    assert [age for is_history, age in left if not is_history] == [*range(audit, 0, -1), 0]
    assert await kept.compact(bounds) == 0


@pytest.mark.usefixtures("small_batches")
async def test_other_bounds_later(database: Database):
    await mixed(database)
    kept = Retention(database)
    assert await kept.compact(Bounds(max_age=20 * DAY + HOUR)) == 10
    assert await kept.compact(Bounds(max_age=10 * DAY + HOUR)) == 10
    assert await kept.compact(Bounds(audit_age=25 * DAY + HOUR)) == 5
    assert await kept.compact(Bounds(keep=1, audit_age=1 * DAY + HOUR)) == 9 + 24


@pytest.mark.usefixtures("small_batches")
async def test_what_grows_old_goes_later(database: Database):
    await mixed(database)
    kept, bounds = Retention(database), Bounds(keep=5)
    assert await kept.compact(bounds) == 25
    await fill(database, 0, 0, 0)
    assert await kept.compact(bounds) == 3
    assert [age for is_history, age in await ages(database) if is_history] == [2, 1, 0, 0, 0]


async def test_the_newest_event_stays_so_that_no_id_comes_again(database: Database, events: Events):
    await fill(database, 5, 4, 3)
    (newest, *_) = await events.list_events(Filter(), limit=1)
    await Retention(database).compact(Bounds(max_age=1))
    assert [one.id for one in await events.list_events(Filter(), limit=9)] == [newest.id]
    await fill(database, 0)
    (next_one, *_) = await events.list_events(Filter(), limit=1)
    assert next_one.id > newest.id


@pytest.mark.usefixtures("small_batches")
async def test_several_at_once_delete_each_event_once(database: Database):
    await mixed(database)
    several = [Retention(database) for _ in range(4)]
    deleted = await asyncio.gather(*(one.compact(Bounds(keep=2, audit_age=1)) for one in several))
    assert sum(deleted) == 58
    assert await ages(database) == [(True, 2), (True, 1), (False, 0)]


@pytest.mark.usefixtures("small_batches")
async def test_units_are_small_and_what_is_clear_is_not_looked_at_again(database: Database):
    await mixed(database)
    kept, bounds = Retention(database), Bounds(max_age=10 * DAY + HOUR)
    counter = Counter().watch(database)
    await kept.compact(bounds)
    assert counter.units >= 6
    counter.reset()
    await kept.compact(bounds)
    assert counter.units == 1  # not over twenty old events of the audit trail again


async def test_what_nobody_was_told_yet_stays(database: Database):
    await fill(database, *range(30, 0, -1))
    follower = Follower(database, "webhooks")
    assert await follower.claim()  # at the newest
    change = Statement(text("UPDATE event_cursors SET position = 10"))
    await database.unit(lambda tx: tx.execute(change))
    assert await Retention(database).compact(Bounds(keep=4)) == 10
    await follower.release()  # the process ends, and another one begins
    assert await Retention(database).compact(Bounds(keep=4)) == 0
    end = Statement(text("UPDATE event_cursors SET held_until = held_until - 3600000"))
    await database.unit(lambda tx: tx.execute(end))
    assert await Retention(database).compact(Bounds(keep=4)) == 16
