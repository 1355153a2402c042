"""Reading events: filters, pages, counting, and that no page reads much more than itself."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.events import ADA, BOB, made, write

from dtr.db import Database, Statement
from dtr.events import Events, Filter, Object, Recorded, history
from dtr.events.history import _prepare


def names(found: list[Recorded]) -> list[str]:
    return [f"{one.type} {one.object.kind}" for one in found]


async def change(database: Database, sql: str, **parameters: Any) -> None:
    await database.unit(lambda tx: tx.execute(Statement(text(sql)), **parameters))


async def test_an_event_is_read_as_it_was_written(database: Database, events: Events):
    target = Object("tag", "b", "name of b", "digest of b")
    await write(database, made("UPDATE", target=target, repository="acme/app", repository_id=7), made())
    without, whole = await events.list_events(Filter(), limit=9)
    assert whole.object == Object("tag", "id of tag", "name of tag", "content")
    assert (whole.type, whole.target, whole.actor) == ("UPDATE", target, ADA)
    assert (whole.repository, whole.repository_id) == ("acme/app", 7)
    assert (without.target, without.repository, without.repository_id) == (None, "", None)
    assert whole.id < without.id
    row = await database.fetch_one(Statement(text("SELECT published_at FROM events WHERE id = :id")), id=whole.id)
    assert row is not None
    assert whole.published_at == row[0]


async def test_nothing_is_written_when_the_unit_fails(database: Database, events: Events):
    async def work(tx: Any) -> None:
        from dtr.events import record

        await record(tx, made())
        raise LookupError

    with pytest.raises(LookupError):
        await database.unit(work)
    assert await events.list_events(Filter(), limit=9) == []


EVERYTHING = [
    made("CREATE", "repository", repository_id=1),
    made("CREATE", "manifest", repository_id=1),
    made("UPDATE", "tag", BOB, repository_id=1),
    made("GET", "tag", BOB, repository_id=1),
    made("GET", "manifest", ADA, repository_id=2),
    made("DELETE", "tag", ADA, repository_id=2),
    made("CREATE", "grant", ADA, repository_id=1),
    made("LOGIN", "account", BOB),
    made("FAIL", "account", BOB),
    made("UPDATE", "setting", ADA),
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), range(10)),
        (Filter(exclude_pulls=True), [0, 1, 2, 5, 6, 7, 8, 9]),
        (Filter(repository_id=1), [0, 1, 2, 3, 6]),
        (Filter(repository_id=1, exclude_pulls=True), [0, 1, 2, 6]),
        (Filter(repository_id=1, content_only=True), [0, 1, 2]),
        (Filter(repository_id=1, content_only=True, type="GET"), []),
        (Filter(repository_id=2, type="GET"), [4]),
        (Filter(actor=BOB.id), [2, 3, 7, 8]),
        (Filter(actor=BOB.id, repository_id=1), [2, 3]),
        (Filter(address=ADA.address, exclude_pulls=True), [0, 1, 5, 6, 9]),
        (Filter(type="GET"), [3, 4]),
        (Filter(type="GET", exclude_pulls=True), []),
        (Filter(type="UPDATE"), [2, 9]),
        (Filter(object_type="account"), [7, 8]),
        (Filter(object_type="tag"), [2, 3, 5]),
        (Filter(object_type="tag", type="GET"), [3]),
        (Filter(object_type="account", type="GET"), []),
        (Filter(object_type="account", type="FAIL", actor=BOB.id), [8]),
        (Filter(object_type="account", type="LOGIN"), [7]),
        (Filter(repository_id=3), []),
    ],
)
async def test_filters(database: Database, events: Events, wanted: Filter, expected: list[int]):
    await write(database, *EVERYTHING)
    all_of_them = [f"{one.type} {one.object.kind}" for one in EVERYTHING]
    found = await events.list_events(wanted, limit=20)
    assert names(found) == [all_of_them[number] for number in reversed(expected)]
    assert await events.count(wanted) == len(expected)
    # The same in pages of two.
    pages, start = [], None
    while page := await events.list_events(wanted, start=start, limit=3):
        pages += page[:2]
        if len(page) < 3:
            break
        start = page[2].id
    assert pages == found


async def test_pages_are_stable_while_events_come(database: Database, events: Events):
    await write(database, *(made(f, "tag") for f in ("CREATE", "UPDATE", "GET", "DELETE")))
    first = await events.list_events(Filter(), limit=2)
    await write(database, made("FAIL"), made("GET"))
    rest = await events.list_events(Filter(), start=first[-1].id - 1, limit=9)
    assert names(first + rest) == ["DELETE tag", "GET tag", "UPDATE tag", "CREATE tag"]


async def test_moments(database: Database, events: Events):
    """Fourteen events, eight minutes apart, of which some were written down a bit late."""
    minute = 60_000
    moments = [number * 8 * minute for number in range(1, 15)]
    moments[4:6] = moments[5], moments[4]
    moments[9:11] = moments[10], moments[9]
    await write(database, *(made() for _ in moments))
    ids = [one.id for one in reversed(await events.list_events(Filter(), limit=20))]
    for one, moment in zip(ids, moments, strict=True):
        await change(database, "UPDATE events SET published_at = :moment WHERE id = :id", moment=moment, id=one)
    for low, high in itertools.product([*moments, 0, 999 * minute, moments[3] + 1], repeat=2):
        wanted = Filter(after=low, before=high)
        expected = [one for one, moment in zip(ids, moments, strict=True) if low <= moment < high]
        assert [one.id for one in await events.list_events(wanted, limit=20)] == expected[::-1]
        assert await events.count(wanted) == len(expected)


async def test_walking_reads_everything_in_pages(
    database: Database, events: Events, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history, "_PAGE", 4)
    await write(database, *EVERYTHING)
    pages = [page async for page in events.walk(Filter(exclude_pulls=True))]
    assert [len(page) for page in pages] == [4, 4]
    assert [one for page in pages for one in page] == await events.list_events(
        Filter(exclude_pulls=True), limit=20
    )


# --- scale ----------------------------------------------------------------------------------------------------

_ROWS = 60_000
_SEED = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})",
    "postgresql": "WITH numbers AS (SELECT generate_series(1, {rows}) AS n)",
}
_INSERT = """
INSERT INTO events (published_at, type, actor, actor_name, actor_type, address, repository_id, repository,
                    object_type, object_id, object_name, object_content)
{numbers}
SELECT n * 1000,
       CASE WHEN n > {rows} / 2 OR n % 10 < 8 THEN 'GET' WHEN n % 10 = 8 THEN 'CREATE' ELSE 'UPDATE' END,
       'actor' || n % 500, '', 'user', '10.0.0.' || n % 250, n % 1000, '', 'tag', '', '', ''
FROM numbers
"""
"""The last half are pulls, and most of the first."""

QUESTIONS = {
    "everything": Filter(),
    "no pulls": Filter(exclude_pulls=True),
    "a repository": Filter(repository_id=77),
    "a repository without pulls": Filter(repository_id=78, exclude_pulls=True),
    "a repository for readers": Filter(repository_id=78, content_only=True),
    "an actor": Filter(actor="actor77"),
    "an actor without pulls": Filter(actor="actor78", exclude_pulls=True),
    "an address": Filter(address="10.0.0.77"),
    "an address's updates": Filter(address="10.0.0.149", type="UPDATE"),
    "a rare type": Filter(type="FAIL"),
    "updates": Filter(type="UPDATE"),
    "pulls": Filter(type="GET"),
    "rare objects": Filter(object_type="setting"),
    "a while ago": Filter(after=500_000, before=800_000),
    "a while ago without pulls": Filter(after=500_000, before=800_000, exclude_pulls=True),
    "nothing in that time": Filter(after=900_000_000),
    "a repository in a while": Filter(repository_id=77, after=500_000, before=20_000_000),
}


@pytest.fixture
async def seeded(database: Database) -> Database:
    numbers = _SEED[database.dialect].format(rows=_ROWS)
    await change(database, _INSERT.format(numbers=numbers, rows=_ROWS))
    if database.dialect == "postgresql":
        await database.fetch_all(Statement(text("ANALYZE events")))
    return database


async def rows_read(database: Database, wanted: Filter) -> int:
    """How many rows and index entries a page takes."""
    statement, parameters = _prepare(wanted, counts=False)
    given = {**parameters, "start": 2**63 - 1, "limit": 11}
    words, values = statement.prepare(database.dialect, given)
    if database.dialect == "sqlite":
        import sqlite3

        connection: sqlite3.Connection = database._reader
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(step, 100)  # instructions of its machine, a dozen or two for a row
        connection.execute(words, values).fetchall()
        connection.set_progress_handler(None, 0)
        return steps * 100 // 10
    import asyncpg

    pool: asyncpg.Pool = database._pool
    async with pool.acquire() as connection:
        types = (await connection.prepare(words)).get_parameters()
        literals = ", ".join(str(one) if isinstance(one, int) else f"'{one}'" for one in values)
        declared = ", ".join(one.name for one in types)
        await connection.execute(f"PREPARE page ({declared}) AS {words}")
        for plan in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {plan}")
            lines = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE page ({literals})")
            explained = "\n".join(line[0] for line in lines)
            assert "Seq Scan" not in explained, explained
            buffers = explained.partition("Buffers:")[2].partition("\n")[0]  # some may have to be read again
            assert sum(map(int, re.findall(r"(?:hit|read)=([0-9]+)", buffers))) in range(1, 500), explained
        await connection.execute("DEALLOCATE page; RESET plan_cache_mode")
    return 0


async def test_no_page_reads_much_more_than_itself(seeded: Database, monkeypatch: pytest.MonkeyPatch):
    for name, wanted in QUESTIONS.items():
        assert await rows_read(seeded, wanted) < 3000, name
    events = Events(seeded)
    monkeypatch.setattr(history, "MOST_COUNTED", 10_000)
    assert await events.count(Filter()) == 10_000
    assert await events.count(Filter(exclude_pulls=True)) == _ROWS // 10
    assert await events.count(Filter(repository_id=77)) == _ROWS // 1000
