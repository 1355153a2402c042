"""
PostgreSQL, for more than one host or more than SQLite can carry.

Units of work run READ COMMITTED; what the server refuses for the sake of others (serialization, deadlock,
lock time-out) and what ends with a lost connection is run again, up to three times. The address may name
several hosts: connections go to the one that accepts writes, and follow it when that changes.

A connection keeps no state between its users (no settings, no listening, no session locks), so none is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from dtr.db.errors import (
    ConstraintViolated,
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseRefused,
    DatabaseUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    import asyncpg

    from dtr.db.database import Transaction
    from dtr.db.statement import Dialect, Row, Statement

T = TypeVar("T")

_ATTEMPTS = 3
_LOCK_TIMEOUT_MS = 5_000
_CONNECT_SECONDS = 10
_WATCH_AGAIN_SECONDS = 1.0
_STATEMENT_SECONDS = 60
_COMMIT_SECONDS = 60
_CACHED_STATEMENTS = 512
_ADDRESS = re.compile(r"(\w+://)([^/?#]*)(.*)", re.DOTALL)
_CONTENTION = frozenset({"40001", "40P01", "55P03"})
# The server says goodbye, is starting, or is no longer the one that accepts writes.
_GONE = frozenset({"57P01", "57P02", "57P03", "25006"})


class PostgreSQL:
    """A `Database` at the address `url`, with at most `size` connections."""

    dialect: Dialect = "postgresql"

    def __init__(self, url: str, *, size: int = 10) -> None:
        """Remember where; the first statement connects."""
        self.observe: Callable[[str, float], None] | None = None
        self._hosts = Hosts(url)
        self._size = size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._connecting = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def fetch_one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        """See `Reader`."""
        text, values = statement.prepare("postgresql", parameters)
        return await self._read(lambda connection: connection.fetchrow(text, *values))

    async def fetch_all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        """See `Reader`."""
        text, values = statement.prepare("postgresql", parameters)
        return await self._read(lambda connection: connection.fetch(text, *values))

    async def unit(self, work: Callable[[Transaction], Coroutine[Any, Any, T]], /, *, durable: bool = True) -> T:
        """See `Database`. A unit that has begun is finished even when its caller is cancelled."""
        # A cancelled commit could report success without having waited for the standby.
        task = asyncio.create_task(self._unit(work, durable=durable))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        started = perf_counter()
        result = await asyncio.shield(task)
        if self.observe:
            self.observe("write", perf_counter() - started)
        return result

    async def watch(self, channel: str, wake: Callable[[], None]) -> None:
        """See `Database`. On a connection of its own, made anew when it is lost."""
        while True:
            lost = asyncio.Event()
            try:
                connection = await self._hosts.connect(command_timeout=_STATEMENT_SECONDS)
            except Exception:  # noqa: BLE001 - whatever keeps us out, it is tried again
                await asyncio.sleep(_WATCH_AGAIN_SECONDS)
                continue
            try:
                connection.add_termination_listener(lambda *_, lost=lost: lost.set())
                await connection.add_listener(channel, lambda *_: wake())
                wake()  # for what was notified before
                await lost.wait()
            except Exception:  # noqa: BLE001 - the same
                await asyncio.sleep(_WATCH_AGAIN_SECONDS)
            finally:
                connection.terminate()

    async def revision(self) -> str | None:
        """See `Database`."""

        async def ask(connection: Any) -> str | None:
            if not await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
                return None
            value: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
            return value

        return await self._read(ask)

    async def close(self) -> None:
        """See `Database`."""
        if self._running:
            await asyncio.wait(self._running)
        if self._pool is not None:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._pool.close()
            except (OSError, TimeoutError):  # the server is no longer there to take leave of
                self._pool.terminate()

    async def _read(self, ask: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        started = perf_counter()
        for attempt in range(_ATTEMPTS):
            try:
                async with self._connection() as connection:
                    with _translated():
                        result = await ask(connection)
            except DatabaseUnavailable:
                if attempt + 1 == _ATTEMPTS:
                    raise
                await _pause(attempt)
            else:
                if self.observe:
                    self.observe("read", perf_counter() - started)
                return result
        raise AssertionError("not reached")

    async def _unit(self, work: Callable[[Transaction], Coroutine[Any, Any, T]], *, durable: bool) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                async with self._connection() as connection:
                    return await _run(connection, work, durable=durable)
            except DatabaseUnavailable:
                if attempt + 1 == _ATTEMPTS:
                    raise
                await _pause(attempt)
        raise AssertionError("not reached")

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            with _translated():
                pool = self._pool or await self._connect()
                connection = await pool.acquire(timeout=_CONNECT_SECONDS)
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:  # whatever keeps us out: a changed password, a database that is gone
            raise DatabaseRefused(str(error)) from error
        try:
            yield connection
        finally:
            with contextlib.suppress(Exception):  # the pool has closed it then; what was done is done
                await pool.release(connection)

    async def _connect(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._connecting:
            if self._pool is None:
                import asyncpg

                self._pool = await asyncpg.create_pool(
                    connect=self._hosts.connect,
                    reset=_nothing,
                    min_size=1,
                    max_size=self._size,
                    command_timeout=_STATEMENT_SECONDS,
                    statement_cache_size=_CACHED_STATEMENTS,
                    server_settings={
                        "lock_timeout": str(_LOCK_TIMEOUT_MS),
                        "application_name": "dtr",
                        "jit": "off",
                    },
                )
            return self._pool


class Hosts:
    """The hosts of an address, ``postgresql://user:password@host:port,host:port/name``."""

    def __init__(self, url: str) -> None:
        """Take the address apart."""
        # Not urllib's: it takes several hosts for one, and refuses them where one is in brackets.
        parts = _ADDRESS.fullmatch(url)
        assert parts is not None
        scheme, authority, rest = parts.groups()
        user, at, hosts = authority.rpartition("@")
        self._urls = [f"{scheme}{user}{at}{host}{rest}" for host in hosts.split(",")]

    async def connect(self, *_: object, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        """
        Connect to the host that accepts writes; `options` are those of `asyncpg.connect`.

        Each host gets its share of the time, lest one that is dead takes all of it. Where the last search ended,
        the next one begins.
        """
        import asyncpg
        from asyncpg.connect_utils import SessionAttribute

        given_up: Exception | None = None
        for url in tuple(self._urls):
            try:
                connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                    url,
                    target_session_attrs=SessionAttribute.read_write,
                    timeout=_CONNECT_SECONDS / len(self._urls),
                    **options,
                )
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched) as error:
                given_up = error
            else:
                self._urls.remove(url)
                self._urls.insert(0, url)
                return connection
        assert given_up is not None
        raise given_up


class _Transaction:
    """The `Transaction` on a connection of the pool."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch_one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        text, values = statement.prepare("postgresql", parameters)
        with _translated():
            row: Row | None = await self._connection.fetchrow(text, *values)
        return row

    async def fetch_all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        text, values = statement.prepare("postgresql", parameters)
        with _translated():
            rows: list[Row] = await self._connection.fetch(text, *values)
        return rows

    async def execute(self, statement: Statement, /, **parameters: Any) -> int:
        text, values = statement.prepare("postgresql", parameters)
        with _translated():
            status: str = await self._connection.execute(text, *values)
        return int(status.rpartition(" ")[2])  # "UPDATE 3", "INSERT 0 1"

    async def execute_many(self, statement: Statement, parameters: list[dict[str, Any]], /) -> None:
        if not parameters:
            return
        rows = [statement.prepare("postgresql", one)[1] for one in parameters]
        with _translated():
            await self._connection.executemany(statement.text("postgresql"), rows)

    async def notify(self, channel: str) -> None:
        with _translated():
            await self._connection.execute("SELECT pg_notify($1, '')", channel)


async def _run(connection: Any, work: Callable[[Transaction], Coroutine[Any, Any, T]], *, durable: bool) -> T:
    """Run a unit of work on a connection, and commit it."""
    with _translated():
        await connection.execute("BEGIN" if durable else "BEGIN; SET LOCAL synchronous_commit = off")
    try:
        result = await work(_Transaction(connection))
    except BaseException:
        await _roll_back(connection)
        raise
    with _translated():
        await _commit(connection)
    return result


async def _roll_back(connection: Any) -> None:
    try:
        await connection.execute("ROLLBACK")
    except Exception:  # noqa: BLE001 - what went wrong before is what counts
        with contextlib.suppress(Exception):  # the pool has noticed, too
            connection.terminate()


async def _commit(connection: Any) -> None:
    """
    Commit; when that takes too long, close the connection.

    A commit that is cancelled at the server counts as done, though its standby does not have it.
    """
    too_long = asyncio.get_running_loop().call_later(_COMMIT_SECONDS, connection.terminate)
    try:
        status = await connection.execute("COMMIT", timeout=2 * _COMMIT_SECONDS)
    finally:
        too_long.cancel()
    if status != "COMMIT":  # the server rolls back, and says so in passing
        raise DatabaseError("a unit of work went on after an error of the database")


async def _nothing(_connection: Any) -> None:
    pass


async def _pause(attempt: int) -> None:
    await asyncio.sleep(0.05 * 4**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - spreads rivals, no secret


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DatabaseError:
        raise
    except (OSError, TimeoutError) as error:
        raise DatabaseUnavailable(f"the database does not answer: {type(error).__name__} {error}") from error
    except Exception as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception) -> DatabaseError | None:
    """What an error of asyncpg means; None: it is none of the database's own."""
    import asyncpg

    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return ConstraintViolated(str(error))
    if isinstance(error, asyncpg.DiskFullError):
        return DatabaseFull(str(error))
    if isinstance(error, asyncpg.PostgresError):
        if error.sqlstate in _CONTENTION:
            return DatabaseBusy(str(error))
        if error.sqlstate in _GONE or isinstance(
            error, asyncpg.PostgresConnectionError | asyncpg.InsufficientResourcesError
        ):
            return DatabaseUnavailable(str(error))
        return DatabaseError(str(error))
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):  # no such value, or address
        return DatabaseError(str(error))
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return DatabaseUnavailable(str(error))
    return None
