"""What PostgreSQL promises besides: units survive its restarts, broken connections and lost answers."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from sqlalchemy import BigInteger, Integer, Text, bindparam, cast, column, func, select, table, text, update
from sqlalchemy.dialects.postgresql import insert
from tests.conftest import run_cluster
from tests.support.proxy import carry, proxy

from dtr.db import (
    Database,
    DatabaseBusy,
    DatabaseError,
    DatabaseUnavailable,
    Statement,
    Transaction,
    in_list,
    open_database,
)
from dtr.db.migrate import migrate
from dtr.db.schema import usage

PUT = Statement(insert(usage).values(scope=bindparam("scope"), bytes=0).on_conflict_do_nothing())
COUNT_UP = Statement(update(usage).where(usage.c.scope == bindparam("which")).values(bytes=usage.c.bytes + 1))
GET = Statement(select(usage.c.bytes).where(usage.c.scope == bindparam("scope")))
LOCK = Statement(select(usage.c.bytes).where(usage.c.scope == bindparam("scope")).with_for_update())
BACKEND = Statement(select(func.pg_backend_pid()))


@pytest.fixture
async def postgresql_url(make_database_url) -> str:
    """An empty database with current tables."""
    return await make_database_url("postgresql")


async def migrate_at(url: str) -> None:
    database = open_database(url)
    await migrate(database, url)
    await database.close()


@pytest.fixture(scope="module")
def other_cluster():
    """A server that may be stopped and started; its databases have current tables."""
    with run_cluster() as cluster:
        asyncio.run(migrate_at(cluster.url("template1")))
        yield cluster


@asynccontextmanager
async def opened(url: str):
    database = open_database(url)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def connected(url: str):
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def value(database: Database, scope: str) -> int | None:
    row = await database.fetch_one(GET, scope=scope)
    return None if row is None else row[0]


async def test_a_list_within_a_value_is_looked_for_by_both_in_the_plan_that_is_kept(postgresql_url: str):
    """Of the average value there are few rows, so they would be read all, and compared with the list."""
    things = table("things", column("owner", BigInteger), column("name", Text))
    is_meant = in_list(things.c.name, "names", within=(things.c.owner, bindparam("owner", type_=BigInteger)))
    statement = Statement(select(things.c.name).where(is_meant).order_by(things.c.name))
    names = ["n1", "n4999"]
    sql, values = statement.prepare("postgresql", {"owner": 0, "names": names})
    assert sorted(map(str, values)) == sorted(map(str, [0, names]))
    literals = ", ".join("0" if value == 0 else "ARRAY['n1', 'n4999']" for value in values)
    async with connected(postgresql_url) as connection:
        await connection.execute(
            'CREATE TABLE things (owner BIGINT, name TEXT COLLATE "C", PRIMARY KEY (owner, name))'
        )
        await connection.execute(
            "INSERT INTO things SELECT 0, 'n' || i FROM generate_series(1, 5000) AS i"
            " UNION ALL SELECT o, 'n' || i FROM generate_series(1, 5000) AS o, generate_series(1, 3) AS i"
        )
        await connection.execute("ANALYZE things")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE look AS {sql}")
        lines = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) EXECUTE look ({literals})")
        plan = "\n".join(line[0] for line in lines)
        assert [row[0] for row in await connection.fetch(f"EXECUTE look ({literals})")] == names
    assert "Rows Removed" not in plan, plan
    assert "Index Cond: ((owner = " in plan, plan


# --- what is lost on the way ---------------------------------------------------------------------------------


async def test_a_unit_whose_server_restarts_is_repeated_and_done_once(other_cluster):
    url = other_cluster.create()
    attempts = 0

    async def work(tx: Transaction) -> int:
        nonlocal attempts
        attempts += 1
        await tx.execute(PUT, scope="a")
        if attempts == 1:
            await asyncio.to_thread(other_cluster.stop)
            await asyncio.to_thread(other_cluster.start)
        return await tx.execute(COUNT_UP, which="a")

    async with opened(url) as database:
        assert await database.unit(work) == 1
        assert attempts == 2
        assert await value(database, "a") == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_database_works_again_when_its_server_is_back(other_cluster, mode: str):
    url = other_cluster.create()
    async with opened(url) as database:
        await asyncio.gather(*(value(database, "a") for _ in range(20)))  # several connections
        await asyncio.to_thread(other_cluster.stop, mode)
        with pytest.raises(DatabaseUnavailable):
            await value(database, "a")
        with pytest.raises(DatabaseUnavailable):
            await database.unit(lambda tx: tx.execute(PUT, scope="a"))
        await asyncio.to_thread(other_cluster.start)
        await database.unit(lambda tx: tx.execute(PUT, scope="a"))
        assert await asyncio.gather(*(value(database, "a") for _ in range(20))) == [0] * 20


async def test_a_database_can_be_closed_when_its_server_is_gone(other_cluster):
    url = other_cluster.create()
    database = open_database(url)
    await database.fetch_one(BACKEND)
    await asyncio.to_thread(other_cluster.stop, "immediate")
    try:
        await asyncio.wait_for(database.close(), 60)
    finally:
        await asyncio.to_thread(other_cluster.start)


async def test_a_unit_whose_connection_is_terminated_is_repeated_and_done_once(postgresql_url: str):
    attempts = 0

    async def work(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await tx.execute(PUT, scope="a")
        if attempts < 3:
            await terminate((await tx.fetch_one(BACKEND))[0])  # type: ignore[index]
        await tx.execute(COUNT_UP, which="a")

    async with opened(postgresql_url) as database, connected(postgresql_url) as administrator:

        async def terminate(backend: int) -> None:
            assert await administrator.fetchval("SELECT pg_terminate_backend($1, 10000)", backend)

        await database.unit(work)
        assert attempts == 3
        assert await value(database, "a") == 1


async def test_a_unit_that_never_gets_through_is_unavailable_after_three_attempts(postgresql_url: str):
    attempts = 0

    async def work(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await administrator.fetchval("SELECT pg_terminate_backend($1, 10000)", (await tx.fetch_one(BACKEND))[0])  # type: ignore[index]
        await tx.execute(PUT, scope="a")

    async with opened(postgresql_url) as database, connected(postgresql_url) as administrator:
        with pytest.raises(DatabaseUnavailable):
            await database.unit(work)
        assert attempts == 3
        assert await value(database, "a") is None


async def test_a_read_whose_idle_connection_was_terminated_is_repeated(postgresql_url: str):
    async with opened(postgresql_url) as database, connected(postgresql_url) as administrator:
        [backend] = await database.fetch_one(BACKEND)  # type: ignore[misc]
        assert await administrator.fetchval("SELECT pg_terminate_backend($1, 10000)", backend)
        [another] = await database.fetch_one(BACKEND)  # type: ignore[misc]
        assert another != backend


async def test_a_commit_whose_answer_is_lost_is_repeated_and_done_once(postgresql_cluster, postgresql_url: str):
    attempts = 0
    committing = asyncio.Event()
    lost = False

    async def requests(reader, writer):
        while piece := await reader.read(65536):
            if b"COMMIT" in piece:
                committing.set()
            writer.write(piece)

    async def answers(reader, writer):
        nonlocal lost
        while piece := await reader.read(65536):
            if committing.is_set() and not lost:
                lost = True
                return
            writer.write(piece)

    async def work(tx: Transaction) -> int:
        nonlocal attempts
        attempts += 1
        return await tx.execute(PUT, scope="a")

    async with proxy(postgresql_cluster.port, requests=requests, answers=answers) as port:
        url = postgresql_url.replace(f":{postgresql_cluster.port}/", f":{port}/")
        async with opened(url) as database:
            assert await database.unit(work) == 0  # it was there already
            assert lost
            assert attempts == 2
            assert await value(database, "a") == 0


async def test_a_commit_without_its_standby_is_not_taken_for_done(other_cluster, monkeypatch):
    url = other_cluster.create()
    monkeypatch.setattr("dtr.db.postgresql._COMMIT_SECONDS", 0.5)
    monkeypatch.setattr("dtr.db.postgresql._LOCK_TIMEOUT_MS", 100)
    async with opened(url) as database, connected(url) as administrator:
        await database.fetch_one(BACKEND)

        async def require_standby(name: str) -> None:
            await administrator.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            await administrator.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(60):
                while await administrator.fetchval("SHOW synchronous_standby_names") != name:
                    await asyncio.sleep(0.02)

        await require_standby("nobody")
        # The process of the server that lets commits wait may hear of it a little later than its connections.
        refused = ""

        async def put_until_refused() -> None:
            nonlocal refused
            for refused in map(str, itertools.count()):
                await database.unit(lambda tx, scope=refused: tx.execute(PUT, scope=scope))

        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(put_until_refused(), 60)
        assert await value(database, refused) is None  # nobody sees it before its standby has it
        await require_standby("")
        async with asyncio.timeout(60):
            while await value(database, refused) is None:
                await asyncio.sleep(0.02)


# --- others hold what a unit wants ---------------------------------------------------------------------------


async def test_only_a_unit_that_must_survive_a_loss_of_power_waits_for_the_disk(postgresql_url: str):
    async def look(tx: Transaction) -> str:
        row = await tx.fetch_one(Statement(text("SHOW synchronous_commit")))
        assert row is not None
        return str(row[0])

    async with opened(postgresql_url) as database:
        for _ in range(2):
            assert await database.unit(look) == "on"
            assert await database.unit(look, durable=False) == "off"


async def test_rows_that_others_hold_too_long_are_busy_and_free_later(postgresql_url: str, monkeypatch):
    monkeypatch.setattr("dtr.db.postgresql._LOCK_TIMEOUT_MS", 100)
    async with opened(postgresql_url) as database, connected(postgresql_url) as rival:
        await database.unit(lambda tx: tx.execute(PUT, scope="a"))
        async with rival.transaction():
            await rival.execute("SELECT * FROM usage FOR UPDATE")
            with pytest.raises(DatabaseBusy):
                await database.unit(lambda tx: tx.execute(COUNT_UP, which="a"))
        assert await database.unit(lambda tx: tx.execute(COUNT_UP, which="a")) == 1


async def test_more_units_than_connections_all_get_their_turn(postgresql_url: str):
    async def work(tx: Transaction) -> None:
        await tx.fetch_one(LOCK, scope="a")
        await tx.execute(COUNT_UP, which="a")

    database = open_database(postgresql_url, size=2)
    await database.unit(lambda tx: tx.execute(PUT, scope="a"))
    await asyncio.gather(*(database.unit(work) for _ in range(100)))
    assert await value(database, "a") == 100
    await database.close()


# --- several hosts -------------------------------------------------------------------------------------------


@pytest.fixture
def closed_port():
    """A port on which nothing listens, and nothing else begins to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class SilentHost:
    """It takes connections and never answers, like a machine that hangs."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.port = listening.getsockname()[1]

    def asked(self) -> int:
        """How often it was since the last time."""
        self._listening.setblocking(False)
        count = 0
        with suppress(BlockingIOError):
            while True:
                self._listening.accept()[0].close()
                count += 1
        return count


@pytest.fixture
def silent_host():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield SilentHost(listening)


def several(url: str, *ports: int) -> str:
    head, _, name = url.rpartition("/")
    return f"{head.rpartition('@')[0]}@{','.join(f'127.0.0.1:{port}' for port in ports)}/{name}"


@pytest.mark.parametrize("order", ["first", "last"])
async def test_of_several_hosts_the_one_that_answers_is_used(
    postgresql_cluster, postgresql_url: str, closed_port: int, order: str
):
    ports = (closed_port, postgresql_cluster.port)
    url = several(postgresql_url, *(ports if order == "last" else ports[::-1]))
    await migrate_at(url)
    async with opened(url) as database:
        await database.unit(lambda tx: tx.execute(PUT, scope="a"))
        assert await value(database, "a") == 0


async def test_a_host_that_hangs_does_not_keep_us_from_the_next_and_is_asked_last(
    postgresql_cluster, postgresql_url: str, silent_host: SilentHost, monkeypatch
):
    monkeypatch.setattr("dtr.db.postgresql._CONNECT_SECONDS", 6)
    url = several(postgresql_url, silent_host.port, postgresql_cluster.port)
    async with opened(url) as database:
        await database.unit(lambda tx: tx.execute(PUT, scope="a"))
        assert silent_host.asked() == 1
        assert await asyncio.gather(*(value(database, "a") for _ in range(10))) == [0] * 10
        assert silent_host.asked() == 0


async def test_of_several_hosts_the_one_that_takes_writes_is_used_and_followed(
    postgresql_cluster, other_cluster, postgresql_url: str
):
    name = postgresql_url.rpartition("/")[2]
    async with connected(other_cluster.url("postgres")) as administrator:
        await administrator.execute(f"CREATE DATABASE {name}")
    clusters = {cluster.port: cluster for cluster in (postgresql_cluster, other_cluster)}

    async def lead(leader: int) -> None:
        for port, cluster in clusters.items():
            async with connected(cluster.url("postgres")) as administrator:
                setting = "off" if port == leader else "on"
                await administrator.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}")
                # The old leader's sessions end, as in a fail-over.
                await administrator.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1", name
                )

    port = Statement(select(cast(func.current_setting("port"), Integer)))
    async with opened(several(postgresql_url, *clusters)) as database:
        for leader in (*clusters, *clusters):
            await lead(leader)
            await database.unit(lambda tx: tx.execute(PUT, scope="a"))
            assert (await database.fetch_one(port))[0] == leader  # type: ignore[index]


async def test_one_of_several_hosts_may_be_an_address_in_brackets(
    postgresql_cluster, postgresql_url: str, closed_port: int
):
    # Where it listens on 127.0.0.1, a connection to that as an address of version 6 comes there, too.
    url = several(postgresql_url, closed_port, postgresql_cluster.port).replace(
        ",127.0.0.1:", ",[::ffff:127.0.0.1]:"
    )
    async with opened(url) as database:
        await database.unit(lambda tx: tx.execute(PUT, scope="a"))
        assert await value(database, "a") == 0


async def test_hosts_that_all_refuse_are_unavailable(closed_port: int):
    async with opened(several("postgresql://dtr@x/none", closed_port, closed_port)) as database:
        with pytest.raises(DatabaseUnavailable):
            await value(database, "a")


async def test_a_socket_of_the_machine_itself_may_be_named(postgresql_cluster, postgresql_url: str):
    name = postgresql_url.rpartition("/")[2]
    url = f"postgresql:///{name}?host={postgresql_cluster.directory}&port={postgresql_cluster.port}&user=dtr"
    async with opened(url) as database:
        assert await value(database, "a") is None


@pytest.mark.parametrize("wrong", ["/no_such_database", "?sslmode=nonsense"])
async def test_an_address_that_is_wrong_is_an_error_that_waiting_does_not_heal(postgresql_cluster, wrong: str):
    async with opened(postgresql_cluster.url("").removesuffix("/") + wrong) as database:
        with pytest.raises(DatabaseError) as caught:
            await value(database, "a")
        assert not isinstance(caught.value, DatabaseUnavailable)


# --- costs ---------------------------------------------------------------------------------------------------


async def test_a_read_is_one_round_trip_and_a_unit_of_two_statements_four(postgresql_cluster, postgresql_url: str):
    sent = 0

    async def requests(reader, writer):
        nonlocal sent
        while piece := await reader.read(65536):
            sent += 1
            writer.write(piece)

    async def work(tx: Transaction) -> None:
        await tx.execute(PUT, scope="a")
        await tx.execute(COUNT_UP, which="a")

    async with proxy(postgresql_cluster.port, requests=requests, answers=carry) as port:
        url = postgresql_url.replace(f":{postgresql_cluster.port}/", f":{port}/")
        database = open_database(url, size=1)
        await database.unit(work)
        await value(database, "a")
        sent = 0
        await value(database, "a")
        assert sent == 1
        await database.unit(work)
        assert sent == 1 + 4
        await database.close()


async def test_a_value_that_does_not_fit_is_the_programs_error(postgresql_url: str):
    async with opened(postgresql_url) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.fetch_one(GET, scope=4711)
        assert not isinstance(caught.value, DatabaseUnavailable)
