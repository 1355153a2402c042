"""Both databases keep the same contract."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from sqlalchemy import BigInteger, Boolean, Text, bindparam, cast, column, delete, func, select, table, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import (
    ConstraintViolated,
    Database,
    DatabaseError,
    DatabaseUnavailable,
    Statement,
    Transaction,
    array_of,
    each,
    each_row,
    in_list,
    now,
    open_database,
    read_array,
)
from dtr.db.schema import accounts, tags, usage, usage_deltas

ADD = Statement(
    insert(accounts).values(
        id=bindparam("id"), name=bindparam("name"), kind="user", is_admin=False, is_active=True,
        is_imported=False, created_at=now(),
    )
)  # fmt: skip
FIND = Statement(select(accounts.c.name, accounts.c.is_active).where(accounts.c.id == bindparam("id")))
LIST = Statement(select(accounts.c.name).where(in_list(accounts.c.id, "ids")).order_by(accounts.c.name))
COUNT = Statement(select(func.count()).select_from(accounts))
RENAME = Statement(update(accounts).where(accounts.c.id == bindparam("which")).values(name=bindparam("name")))


def add(name: str):
    async def work(tx: Transaction) -> str:
        await tx.execute(ADD, id=name, name=name)
        return name

    return work


async def test_a_unit_commits_what_it_wrote_and_gives_its_result(database: Database):
    assert await database.unit(add("ada")) == "ada"
    row = await database.fetch_one(FIND, id="ada")
    assert row is not None
    assert tuple(row) == ("ada", True)
    assert await database.fetch_one(FIND, id="bob") is None


async def test_a_unit_that_raises_leaves_nothing_and_harms_no_other(database: Database):
    async def fail(tx: Transaction) -> None:
        await tx.execute(ADD, id="eve", name="eve")
        raise LookupError("on purpose")

    results = await asyncio.gather(
        *(database.unit(add(f"user{n}")) for n in range(20)), database.unit(fail), return_exceptions=True
    )
    assert isinstance(results.pop(), LookupError)
    assert results == [f"user{n}" for n in range(20)]
    assert await database.fetch_one(FIND, id="eve") is None
    assert (await database.fetch_one(COUNT)) is not None
    assert (await database.fetch_one(COUNT))[0] == 20  # type: ignore[index]


async def test_a_unit_sees_its_own_writes_and_others_do_not_before_the_commit(database: Database):
    async def work(tx: Transaction) -> tuple:
        await tx.execute(ADD, id="ada", name="ada")
        await tx.execute(RENAME, which="ada", name="countess")
        row = await tx.fetch_one(FIND, id="ada")
        assert row is not None
        return tuple(row)

    assert (await database.unit(work))[0] == "countess"


async def test_a_taken_name_is_a_violated_constraint(database: Database):
    await database.unit(add("ada"))
    with pytest.raises(ConstraintViolated):
        await database.unit(add("ada"))
    assert await database.unit(add("bob")) == "bob"


async def test_a_deferred_constraint_fails_its_own_unit_only(database: Database):
    orphan = Statement(
        insert(tags).values(
            repository_id=bindparam("r"),
            name="latest",
            manifest="sha256:0",
            author="",
            created_at=now(),
            updated_at=now(),
        )
    )

    async def bad(tx: Transaction) -> None:
        await tx.execute(orphan, r=4711)

    results = await asyncio.gather(
        database.unit(add("ada")), database.unit(bad), database.unit(add("bob")), return_exceptions=True
    )
    assert results[0] == "ada"
    assert isinstance(results[1], ConstraintViolated)
    assert results[2] == "bob"


async def test_a_list_is_one_parameter(database: Database):
    for name in ("a", "b", "c"):
        await database.unit(add(name))
    assert [row[0] for row in await database.fetch_all(LIST, ids=["a", "c", "x"])] == ["a", "c"]
    assert await database.fetch_all(LIST, ids=[]) == []


async def add_deltas(database: Database, *scopes_and_numbers: tuple[str, int]) -> None:
    put = Statement(
        insert(usage_deltas).values(
            scope=bindparam("scope"), bytes=bindparam("number", type_=BigInteger), pulls=0, pushes=0
        )
    )

    async def work(tx: Transaction) -> None:
        await tx.execute_many(put, [{"scope": scope, "number": number} for scope, number in scopes_and_numbers])

    await database.unit(work)


async def test_a_list_is_looked_for_within_what_another_column_is(database: Database):
    await add_deltas(database, ("a", 1), ("b", 1), ("c", 1), ("b", 2), ("d", 2))
    within = (usage_deltas.c.bytes, bindparam("number", type_=BigInteger))
    is_meant = in_list(usage_deltas.c.scope, "scopes", within=within)
    found = Statement(select(usage_deltas.c.scope).where(is_meant).order_by(usage_deltas.c.scope))
    for number, expected in ((1, ["a", "b"]), (2, ["b"]), (3, [])):
        rows = await database.fetch_all(found, number=number, scopes=["b", "a", "b", "x"])
        assert [row[0] for row in rows] == expected
    assert await database.fetch_all(found, number=1, scopes=[]) == []
    remove = Statement(delete(usage_deltas).where(is_meant))

    async def work(tx: Transaction) -> int:
        return await tx.execute(remove, number=1, scopes=["a", "d"])

    assert await database.unit(work) == 1


async def test_the_first_rows_of_a_query_for_each_row_are_one_value(database: Database):
    await add_deltas(database, ("a", 1), ("a", 7), ("a", 2), ("b", 5), ("c", 3))
    wanted = each("scopes")
    numbers = (
        select(cast(usage_deltas.c.bytes, Text).label("number"))
        .where(usage_deltas.c.scope == wanted.c.value)
        .order_by(usage_deltas.c.bytes.desc())
        .limit(2)
        .correlate(wanted)
    )
    rows = await database.fetch_all(
        Statement(select(wanted.c.value, array_of(numbers)).order_by(wanted.c.value)), scopes=["b", "a", "x"]
    )
    assert [(scope, read_array(found)) for scope, found in rows] == [("a", ["7", "2"]), ("b", ["5"]), ("x", [])]


async def test_execute_counts_rows_and_execute_many_takes_all(database: Database):
    remove = Statement(delete(accounts).where(in_list(accounts.c.id, "ids")))

    async def work(tx: Transaction) -> int:
        await tx.execute_many(ADD, [{"id": str(n), "name": str(n)} for n in range(10)])
        await tx.execute_many(ADD, [])
        return await tx.execute(remove, ids=[str(n) for n in range(4)])

    assert await database.unit(work) == 4
    assert (await database.fetch_one(COUNT))[0] == 6  # type: ignore[index]


async def test_the_clock_is_in_milliseconds_since_1970(database: Database):
    import time

    before = time.time()
    row = await database.fetch_one(Statement(select(now())))
    assert row is not None
    assert before - 1 < row[0] / 1000 < time.time() + 1


async def test_an_upsert_tells_what_is_there(database: Database):
    claim = Statement(
        insert(accounts)
        .values(
            id=bindparam("id"),
            name=bindparam("name"),
            kind="user",
            is_admin=False,
            is_active=True,
            is_imported=False,
            created_at=now(),
        )
        .on_conflict_do_update(index_elements=["name"], set_={"name": accounts.c.name})
        .returning(accounts.c.id)
    )

    async def work(tx: Transaction):
        return (await tx.fetch_one(claim, id="1", name="ada"), await tx.fetch_one(claim, id="2", name="ada"))

    first, second = await database.unit(work)
    assert first[0] == second[0] == "1"


async def test_identities_count_up(database: Database):
    add_delta = Statement(
        insert(usage_deltas).values(scope="*", bytes=bindparam("n")).returning(usage_deltas.c.id)
    )

    async def work(tx: Transaction) -> list[int]:
        return [(await tx.fetch_one(add_delta, n=2**40))[0] for _ in range(3)]  # type: ignore[index]

    ids = await database.unit(work)
    assert ids == sorted(set(ids))


async def test_rivals_on_one_row_all_get_their_turn(database_url: str):
    databases = [open_database(database_url) for _ in range(3)]
    row = Statement(select(accounts.c.full_name).where(accounts.c.id == "ada").with_for_update())
    put = Statement(update(accounts).where(accounts.c.id == "ada").values(full_name=bindparam("value")))

    async def increment(tx: Transaction) -> None:
        found = await tx.fetch_one(row)
        await tx.execute(put, value=str(int(found[0] or 0) + 1))  # type: ignore[index]

    await databases[0].unit(add("ada"))
    await asyncio.gather(*(databases[n % 3].unit(increment) for n in range(60)))
    assert (await databases[1].fetch_one(row))[0] == "60"  # type: ignore[index]
    for one in databases:
        await one.close()


async def test_a_unit_goes_on_when_its_caller_is_cancelled(database: Database):
    called = asyncio.Event()

    async def call() -> None:
        called.set()
        await database.unit(add("ada"))

    task = asyncio.create_task(call())
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await database.unit(add("bob")) == "bob"
    async with asyncio.timeout(60):
        while await database.fetch_one(FIND, id="ada") is None:
            await asyncio.sleep(0.01)


async def test_closing_waits_for_the_units_under_way(database_url: str):
    database = open_database(database_url)
    units = [asyncio.create_task(database.unit(add(f"user{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*units) == [f"user{n}" for n in range(20)]


async def test_nothing_is_written_to_a_closed_database(database: Database):
    await database.unit(add("ada"))
    await database.close()
    with pytest.raises(DatabaseUnavailable):
        await database.unit(add("bob"))


async def test_an_error_of_a_statement_ends_its_unit_even_when_it_is_caught(database: Database):
    await database.unit(add("ada"))

    async def careless(tx: Transaction) -> None:
        await tx.execute(ADD, id="bob", name="bob")
        with suppress(ConstraintViolated):
            await tx.execute(ADD, id="ada", name="ada")

    with pytest.raises(DatabaseError):
        await database.unit(careless)
    assert await database.fetch_one(FIND, id="bob") is None


@pytest.mark.parametrize("way", ["fetch_one", "fetch_all", "execute", "execute_many"])
async def test_whichever_way_a_statement_fails_its_error_is_told_and_none_runs_after_it(
    database: Database, way: str
):
    await database.unit(add("ada"))
    nonsense = Statement(update(table("nowhere", column("a"))).values(a=bindparam("name")))

    async def run(tx: Transaction, statement: Statement, name: str) -> None:
        if way == "execute_many":
            await tx.execute_many(statement, [{"id": "new", "name": "new"}, {"id": "other", "name": name}])
        else:
            await getattr(tx, way)(statement, id="other", name=name)

    async def careless(tx: Transaction, statement: Statement, error: type[DatabaseError]) -> None:
        with pytest.raises(error):
            await run(tx, statement, "ada")
        for _ in range(2):
            with pytest.raises(DatabaseError):
                await run(tx, ADD, "bob")

    for statement, error in ((ADD, ConstraintViolated), (nonsense, DatabaseError)):
        with pytest.raises(error) as caught:
            await database.unit(partial(run, statement=statement, name="ada"))
        assert type(caught.value) is error
        with pytest.raises(DatabaseError):
            await database.unit(partial(careless, statement=statement, error=error))
    assert (await database.fetch_one(COUNT))[0] == 1  # type: ignore[index]


async def test_a_unit_may_raise_what_it_likes_and_the_next_goes_on(database: Database):
    async def leave(error: BaseException, tx: Transaction) -> None:
        await tx.execute(ADD, id="eve", name="eve")
        raise error

    for error in (LookupError("a"), OSError("b"), asyncio.CancelledError("c"), TimeoutError("d")):
        with pytest.raises(type(error)):
            await asyncio.wait_for(database.unit(partial(leave, error)), 60)
    assert await database.unit(add("ada")) == "ada"
    assert (await database.fetch_one(COUNT))[0] == 1  # type: ignore[index]


async def test_two_units_that_lock_in_opposite_order_both_end(database: Database):
    put = Statement(
        update(accounts).where(accounts.c.id == bindparam("which")).values(full_name=bindparam("value"))
    )
    for name in ("a", "b"):
        await database.unit(add(name))
    both_began = asyncio.Barrier(2) if database.dialect == "postgresql" else None

    async def lock(order: str) -> None:
        barrier = both_began  # for the first attempt only

        async def work(tx: Transaction) -> None:
            nonlocal barrier
            await tx.execute(put, which=order[0], value=order)
            if barrier:
                waiting, barrier = barrier, None
                await waiting.wait()
            await tx.execute(put, which=order[1], value=order)

        await database.unit(work)

    await asyncio.gather(lock("ab"), lock("ba"))
    rows = await database.fetch_all(Statement(select(accounts.c.full_name)))
    assert rows[0][0] == rows[1][0] in {"ab", "ba"}


async def test_a_wrong_statement_is_not_an_absent_database(database: Database):
    nonsense = Statement(select(column("nothing")).select_from(table("nowhere")))
    with pytest.raises(DatabaseError) as caught:
        await database.fetch_one(nonsense)
    assert not isinstance(caught.value, DatabaseUnavailable)


async def test_statements_and_units_are_observed(database: Database):
    seen: list[str] = []
    database.observe = lambda kind, seconds: seen.append(kind) if seconds >= 0 else None
    await database.unit(add("ada"))
    await database.fetch_one(FIND, id="ada")
    assert seen == ["write", "read"]


async def test_a_missing_parameter_is_an_error_of_the_program(database: Database):
    with pytest.raises(KeyError):
        await database.fetch_one(FIND)


async def test_booleans_compare(database: Database):
    await database.unit(add("ada"))
    active = Statement(select(accounts.c.id).where(accounts.c.is_active.is_(True)))
    given = Statement(select(accounts.c.id).where(accounts.c.is_active == bindparam("flag", type_=Boolean)))
    assert len(await database.fetch_all(active)) == 1
    assert len(await database.fetch_all(given, flag=True)) == 1


SCOPES = Statement(
    select(usage_deltas.c.bytes).where(usage_deltas.c.scope == bindparam("scope")).order_by(usage_deltas.c.id)
)
TOTAL = Statement(select(usage.c.bytes).where(usage.c.scope == "*"))


@contextmanager
def writer(url: str, name: str):
    command = [sys.executable, "-m", "tests.support.writer", url, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def read_numbers(process, count: int) -> list[int]:
    return [int(process.stdout.readline()) for _ in range(count)]


@pytest.fixture
async def counted(database: Database) -> Database:
    """A database with a row that counts units."""
    start = Statement(insert(usage).values(scope="*", bytes=0))
    await database.unit(lambda tx: tx.execute(start))
    return database


async def test_processes_that_write_at_once_lose_nothing(counted: Database, database_url: str):
    acknowledged = {}
    with writer(database_url, "one") as one, writer(database_url, "two") as two:
        for name, process in (("one", one), ("two", two)):
            acknowledged[name] = read_numbers(process, 1)  # both are at it
        for name, process in (("one", one), ("two", two)):
            acknowledged[name] += read_numbers(process, 100)
        for name, process in (("one", one), ("two", two)):
            process.stdin.close()
            acknowledged[name] += map(int, process.stdout)
            assert process.wait(60) == 0
    for name, numbers in acknowledged.items():
        assert sorted(row[0] for row in await counted.fetch_all(SCOPES, scope=name)) == sorted(numbers)
    assert (await counted.fetch_one(TOTAL))[0] == sum(map(len, acknowledged.values()))  # type: ignore[index]


async def test_what_a_process_acknowledged_is_seen_by_others_at_once(counted: Database, database_url: str):
    with writer(database_url, "other") as process:
        for _ in range(50):
            [number] = read_numbers(process, 1)
            assert number in [row[0] for row in await counted.fetch_all(SCOPES, scope="other")]


async def test_kill_9_of_a_writer_loses_nothing_acknowledged_and_leaves_no_half_unit(
    counted: Database, database_url: str
):
    for name in ("first", "second", "third"):
        with writer(database_url, name) as process:
            acknowledged = read_numbers(process, 40)
            process.kill()
            acknowledged += map(int, process.stdout.read().split("\n")[:-1])
        assert set(acknowledged) <= {row[0] for row in await counted.fetch_all(SCOPES, scope=name)}
    # A server may go on for a moment; what it then commits was not acknowledged, but is whole.
    rows = select(func.count()).select_from(usage_deltas).scalar_subquery()
    counts = await counted.fetch_one(Statement(select(rows, usage.c.bytes).where(usage.c.scope == "*")))
    assert counts is not None
    assert counts[0] == counts[1] >= 120


async def test_an_address_that_does_not_answer_is_unavailable():
    database = open_database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        await database.fetch_one(COUNT)
    await database.close()


async def test_rows_of_a_parameter(database: Database):
    """Texts that look like numbers stay texts, and rows come in their order."""
    given = each_row("rows", column("number", BigInteger), column("word", Text))
    statement = Statement(select(given.c.number, given.c.word, given.c.number + 1))
    rows = [[2**40, "7"], [None, None], [-1, "it's \"ä\\"], [0, ""]]
    found = await database.fetch_all(statement, rows=json.dumps(rows))
    assert [list(row) for row in found] == [[*row, None if row[0] is None else row[0] + 1] for row in rows]
    assert await database.fetch_all(statement, rows="[]") == []
