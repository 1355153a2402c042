"""Following the events: each at least once, by one process at a time, whatever the order of commits."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from tests.support.events import made, write

from dtr.db import Database, Statement
from dtr.events import Events, Filter, follower
from dtr.events.follower import Follower


async def ids(database: Database) -> list[int]:
    return [one.id for one in reversed(await Events(database).list_events(Filter(), limit=100))]


async def position(database: Database) -> int:
    row = await database.fetch_one(Statement(text("SELECT position FROM event_cursors WHERE name = 'test'")))
    assert row is not None
    return int(row[0])


async def expire(database: Database) -> None:
    statement = Statement(text("UPDATE event_cursors SET held_until = 0"))
    await database.unit(lambda tx: tx.execute(statement))


async def test_it_begins_with_the_events_to_come(database: Database):
    await write(database, made())
    following = Follower(database, "test")
    assert await following.claim()
    assert await following.fetch() == []
    await write(database, made("UPDATE"), made("DELETE"))
    assert [one.type for one in await following.fetch()] == ["UPDATE", "DELETE"]
    assert await following.fetch() == []


async def test_what_was_not_done_comes_again(database: Database):
    following = Follower(database, "test")
    assert await following.claim()
    await write(database, made(), made())
    first = await following.fetch()
    assert await following.advance(following.position)
    await write(database, made())
    second = await following.fetch()
    assert await following.claim()  # as after an error
    assert await following.fetch() == second
    await expire(database)
    successor = Follower(database, "test")
    assert await successor.claim()
    assert await successor.fetch() == second
    assert {one.id for one in first}.isdisjoint(one.id for one in second)


async def test_one_process_at_a_time(database: Database):
    one, other = Follower(database, "test"), Follower(database, "test")
    assert await one.claim()
    assert not await other.claim()
    assert await one.claim()
    await expire(database)
    assert await other.claim()
    await write(database, made())
    await one.fetch()
    assert not await one.advance(one.position)  # it was too slow
    assert not await one.claim()
    assert await Follower(database, "another name").claim()


async def test_who_died_and_begins_anew_does_not_wait_for_its_own_lease(database: Database):
    before = Follower(database, "test", "replica")
    assert await before.claim()
    await write(database, made())
    assert len(await before.fetch()) == 1  # and it dies
    after = Follower(database, "test", "replica")
    assert await after.claim()
    assert len(await after.fetch()) == 1
    assert not await Follower(database, "test", "another").claim()


async def test_large_numbers_come_in_batches(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follower, "BATCH", 3)
    clause: Any = follower._FIND.clause
    monkeypatch.setattr(follower, "_FIND", Statement(clause.limit(3)))
    following = Follower(database, "test")
    await following.claim()
    await write(database, *(made() for _ in range(7)))
    assert [len(await following.fetch()) for _ in range(4)] == [3, 3, 1, 0]


# --- PostgreSQL: ids are given before they are committed --------------------------------------------------------

_INSERT = """
INSERT INTO events (published_at, type, actor, actor_name, actor_type, address, repository, object_type,
                    object_id, object_name, object_content)
VALUES (extract(epoch FROM now()) * 1000, 'CREATE', '', '', 'system', '', '', 'tag', '', '', '') RETURNING id
"""


POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
async def slow(database_url: str) -> Any:
    """A connection with a transaction of its own."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@POSTGRESQL
async def test_an_event_that_is_committed_late_is_not_missed(database: Database, slow: asyncpg.Connection):
    following = Follower(database, "test")
    await following.claim()
    await write(database, made())
    transaction = slow.transaction()
    await transaction.start()
    late = await slow.fetchval(_INSERT)
    await write(database, made(), made())
    before, *after = await following.fetch()
    assert [one.id for one in after] == [late + 1, late + 2]
    assert await following.advance(following.position)
    assert await position(database) == before.id  # not beyond the one that is missing
    assert await following.fetch() == []
    await transaction.commit()
    assert [one.id for one in await following.fetch()] == [late]
    assert await following.advance(following.position)
    assert await position(database) == late + 2
    assert await following.fetch() == []


@POSTGRESQL
async def test_a_successor_gets_what_is_late(database: Database, slow: asyncpg.Connection):
    following = Follower(database, "test")
    await following.claim()
    transaction = slow.transaction()
    await transaction.start()
    late = await slow.fetchval(_INSERT)
    await write(database, made())
    await following.fetch()
    await following.advance(following.position)
    await transaction.commit()
    await expire(database)
    successor = Follower(database, "test")
    await successor.claim()
    assert [one.id for one in await successor.fetch()] == [late, late + 1]


@POSTGRESQL
async def test_an_event_that_is_rolled_back_is_waited_for_and_given_up(
    database: Database, slow: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
):
    following = Follower(database, "test")
    await following.claim()
    transaction = slow.transaction()
    await transaction.start()
    await slow.fetchval(_INSERT)
    await transaction.rollback()
    await write(database, made())
    (found,) = await following.fetch()
    assert following.position < found.id - 1
    monkeypatch.setattr(follower, "_LATE_SECONDS", 0)
    assert await following.fetch() == []
    assert following.position == found.id


@POSTGRESQL
async def test_ids_before_old_events_are_not_waited_for(database: Database, slow: asyncpg.Connection):
    """As after deleting old events, or a crash of the database: it skips ids then."""
    following = Follower(database, "test")
    await following.claim()
    await slow.execute("SELECT setval(pg_get_serial_sequence('events', 'id'), 5000000)")
    await write(database, made())
    await following.fetch()
    assert following.position > 5_000_000
