"""
SQLite (WAL), the embedded database.

Reads run in the event loop on a connection of their own: a lookup takes 6 us, a thread would cost 55. All
writes of a process go through one thread. It takes every unit that waits, gives each a savepoint, and commits
them together: with 16 units a commit that is ten times the rate of single ones. Several processes take turns
by a lock on a file, because SQLite's own waiting is sleeping and trying again.

What was acknowledged survives a loss of power, unless it needs not (`Database.unit`): the log is synced first.
SQLite would do that within the turn (``synchronous=FULL``); here it is done behind it, and the next process has
its turn meanwhile. What that one builds upon lies before its own in the same log, and is synced with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import sqlite3
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from dtr.db.errors import (
    ConstraintViolated,
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
)
from dtr.db.seldom import Changes, Memory, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from dtr.db.database import Transaction
    from dtr.db.statement import Dialect, Row, Statement

T = TypeVar("T")

_BUSY_MS = 10_000
_LONGEST_WAIT_SECONDS = 30
_LARGEST_BATCH = 128
_WATCH_SECONDS = 0.05
_CACHED_STATEMENTS = 512


class SQLite:
    """A `Database` in the file `path`; the directory must exist."""

    dialect: Dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        """Open the file, creating it when it is not there. Raises DatabaseError."""
        self.observe: Callable[[str, float], None] | None = None
        self._path = path
        with _translated():
            self._reader = _connect(path)
            try:
                self._reader.execute("PRAGMA query_only = ON")
                self._stamp = Stamp(path)
            except BaseException:
                self._reader.close()
                raise
        self._memory = Memory(self._stamp)
        self._waiting: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._closed = False

    async def fetch_one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        """See `Reader`."""
        text, values = statement.prepare("sqlite", parameters)
        if statement.is_remembered:
            with _translated():
                return self._memory.fetch(text, values, lambda: self._read(text, values))
        return self._read(text, values)

    def _read(self, text: str, values: list[Any]) -> Row | None:
        started = perf_counter()
        try:  # not `_translated`, which would cost a tenth of the look-up
            cursor = self._reader.execute(text, values)
            row: Row | None = cursor.fetchone()
            cursor.close()
        except sqlite3.Error as error:
            raise _translate(error) from error
        if self.observe:
            self.observe("read", perf_counter() - started)
        return row

    async def fetch_all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        """See `Reader`."""
        text, values = statement.prepare("sqlite", parameters)
        started = perf_counter()
        with _translated():
            rows: list[Row] = self._reader.execute(text, values).fetchall()
        if self.observe:
            self.observe("read", perf_counter() - started)
        return rows

    async def unit(self, work: Callable[[Transaction], Coroutine[Any, Any, T]], /, *, durable: bool = True) -> T:
        """See `Database`. A unit that the writer has is finished even when its caller is cancelled."""
        if self._closed:
            raise DatabaseUnavailable("the database is closed")
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="sqlite-writer", daemon=True)
            self._writer.start()
        loop = asyncio.get_running_loop()
        unit = _Unit(work, loop, loop.create_future(), durable=durable)
        started = perf_counter()
        self._waiting.put(unit)
        limit = loop.call_later(_LONGEST_WAIT_SECONDS, unit.give_up)
        try:
            result: T = await unit.done
        finally:
            limit.cancel()
        if self.observe:
            self.observe("write", perf_counter() - started)
        return result

    async def watch(self, channel: str, wake: Callable[[], None]) -> None:  # noqa: ARG002 - a file has no channels
        """See `Database`. Asks, twenty times a second, whether anybody committed anything: that costs 3 us."""
        seen = None
        while True:
            with _translated():
                version = self._reader.execute("PRAGMA data_version").fetchone()[0]
            if version != seen:
                seen = version
                wake()
            await asyncio.sleep(_WATCH_SECONDS)

    async def revision(self) -> str | None:
        """See `Database`."""
        with _translated():
            known = self._reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            if not known:
                return None
            row = self._reader.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None

    async def close(self) -> None:
        """See `Database`."""
        self._closed = True
        if self._writer is not None:
            self._waiting.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._writer.join)
        self._reader.close()
        self._stamp.close()

    def _write(self) -> None:
        """The writer thread: whatever happens, each unit gets its answer."""
        writer: _Writer | None = None
        while batch := self._next_batch():
            try:
                writer = writer or _Writer(self._path, self._stamp)
                writer.run(batch)
            except Exception as error:  # noqa: BLE001 - the next batch may succeed
                for unit in batch:
                    unit.error = unit.error or error
            _tell(batch)
        if writer:
            writer.close()

    def _next_batch(self) -> list[_Unit]:
        """Everything that waits, in order; empty: the database is being closed."""
        first = self._waiting.get()
        if first is None:
            return []
        batch = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < _LARGEST_BATCH:
                unit = self._waiting.get_nowait()
                if unit is None:
                    self._waiting.put(None)  # after this batch
                    break
                batch.append(unit)
        return batch


class _Unit:
    """A unit of work that waits for the writer, and what became of it."""

    __slots__ = ("done", "durable", "error", "loop", "result", "work")

    def __init__(
        self,
        work: Callable[[Transaction], Coroutine[Any, Any, Any]],
        loop: asyncio.AbstractEventLoop,
        done: asyncio.Future[Any],
        *,
        durable: bool,
    ) -> None:
        self.work = work
        self.durable = durable
        self.loop = loop
        self.done = done
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        if self.done.done():  # cancelled
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)

    def give_up(self) -> None:
        if not self.done.done():
            self.done.set_exception(
                DatabaseBusy(f"another process writes for longer than {_LONGEST_WAIT_SECONDS} s")
            )


class _Transaction:
    """The `Transaction` of the writer thread: its coroutines never suspend."""

    def __init__(self, connection: sqlite3.Connection, changes: Changes) -> None:
        self._connection = connection
        self._changes = changes
        self.error: DatabaseError | None = None

    async def fetch_one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        # All rows are read: a statement with RETURNING is not finished before.
        rows = await self.fetch_all(statement, **parameters)
        return rows[0] if rows else None

    async def fetch_all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        text, values = statement.prepare("sqlite", parameters)
        self._going_to_run(text)
        try:  # not a context manager, which costs as much as a small statement
            rows: list[Row] = self._connection.execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return rows

    async def execute(self, statement: Statement, /, **parameters: Any) -> int:
        text, values = statement.prepare("sqlite", parameters)
        self._going_to_run(text)
        try:
            cursor = self._connection.execute(text, values)
            count = cursor.rowcount
            cursor.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return count

    async def execute_many(self, statement: Statement, parameters: list[dict[str, Any]], /) -> None:
        if not parameters:
            return
        text = statement.text("sqlite")
        self._going_to_run(text)
        try:
            self._connection.executemany(text, (statement.prepare("sqlite", one)[1] for one in parameters))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    async def notify(self, channel: str) -> None:
        """See `Transaction`. Whoever watches sees the commit itself."""

    def _going_to_run(self, text: str) -> None:
        """Before each statement. Raises the error of an earlier one: that may have ended the transaction."""
        if self.error is not None:
            raise self.error
        self._changes.run(text)

    def _failed(self, error: sqlite3.Error) -> DatabaseError:
        """What an error of a statement means; it ends the unit, even when it is caught."""
        self.error = _translate(error)
        return self.error


class _Writer:
    """The connection that writes, when it is this process's turn, and the log that it writes to."""

    def __init__(self, path: Path, stamp: Stamp) -> None:
        """Raises DatabaseError."""
        self._path = path
        self._stamp = stamp
        self._log: int | None = None
        self._log_may_have_holes = False
        with _translated():
            self._connection = _connect(path)
            try:
                # What a savepoint may have to take back: in a file of its own it is as much to write as the rest.
                self._connection.execute("PRAGMA temp_store = MEMORY").close()
                self._changes = Changes(self._connection)
            except BaseException:
                self._connection.close()
                raise

    def run(self, batch: list[_Unit]) -> None:
        """
        Run the units; what became of each is in it.

        Raises DatabaseError: what no unit says otherwise, may or may not have been committed.
        """
        with _translated():
            fcntl.flock(self._stamp.descriptor, fcntl.LOCK_EX)
            try:
                if self._log_may_have_holes:
                    self._renew_log()
                if not self._stamp.read():  # the file is new, or somebody died in a turn
                    self._stamp.end()
                self._run(batch)
            finally:
                fcntl.flock(self._stamp.descriptor, fcntl.LOCK_UN)
            if any(unit.durable and unit.error is None for unit in batch):
                self._sync_log()

    def _run(self, batch: list[_Unit]) -> None:
        """Run the units of a batch and commit them together; each has its result or its error then."""
        try:
            self._commit(batch)
        except (ConstraintViolated, DatabaseFull) as error:
            # A deferred constraint speaks only at the commit, and for all; and a smaller unit may still fit.
            if len(batch) == 1:
                batch[0].error = error
            else:
                for unit in batch:
                    self._run([unit])
        except BaseException as error:  # noqa: BLE001 - the writer goes on, whatever it is
            for unit in batch:
                unit.error = error

    def _commit(self, batch: list[_Unit]) -> None:
        """Run the units of a batch and commit them together. When it raises, nothing was committed."""
        connection, changes = self._connection, self._changes
        needs_stamp = False
        try:
            with _translated():
                connection.execute("BEGIN IMMEDIATE")
                for unit in batch:
                    unit.error = None
                    changes.were_made = False
                    transaction = _Transaction(connection, changes)
                    connection.execute("SAVEPOINT unit")
                    try:
                        unit.result = _drive(unit.work(transaction))
                        if transaction.error:  # caught; but PostgreSQL would have ended the transaction
                            raise transaction.error
                        connection.execute("RELEASE unit")
                    except BaseException as error:  # noqa: BLE001 - its caller gets it
                        if not connection.in_transaction:  # a full disk may roll everything back
                            raise transaction.error or error  # noqa: B904 - the cause of both is the same
                        connection.execute("ROLLBACK TO unit")
                        connection.execute("RELEASE unit")
                        unit.error = error
                    else:
                        needs_stamp |= changes.were_made
                if needs_stamp:
                    self._stamp.begin()
                connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        finally:
            if needs_stamp:
                self._stamp.end()

    def close(self) -> None:
        self._connection.close()
        if self._log is not None:
            os.close(self._log)

    def _sync_log(self) -> None:
        if self._log is None:  # it is the same file as long as somebody is connected
            self._log = self._open_log()
        try:
            os.fdatasync(self._log)
        except OSError:
            self._log_may_have_holes = True
            raise

    def _open_log(self) -> int:
        """The log, which perhaps came with the last commit: then its name has to be on the disk, too."""
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)

    def _renew_log(self) -> None:
        """
        Move everything from the log to the database, and begin the log anew.

        The kernel tells of a page that it could not write once. What is appended behind such a hole would be lost
        with it, although its own sync succeeds.
        """
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise DatabaseBusy("the log cannot be begun anew while others read it")
        self._log_may_have_holes = False


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a unit of work awaits nothing but its transaction")


def _tell(batch: list[_Unit]) -> None:
    """Wake whoever waits: one call a loop."""
    for loop in {unit.loop for unit in batch}:
        units = [unit for unit in batch if unit.loop is loop]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_finish, units)


def _finish(units: list[_Unit]) -> None:
    for unit in units:
        unit.finish()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",  # the writer syncs the log
            "foreign_keys = ON",
            "cache_size = -8000",  # KiB
            "mmap_size = 0",  # each commit of somebody else would map the file anew
            "wal_autocheckpoint = 4000",  # pages
        ):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error) from error
    except OSError as error:
        kind = DatabaseFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else DatabaseUnavailable
        raise kind(str(error)) from error


def _translate(error: sqlite3.Error) -> DatabaseError:
    if isinstance(error, sqlite3.IntegrityError):
        return ConstraintViolated(str(error))
    code: int | None = getattr(error, "sqlite_errorcode", None)
    match code:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR_WRITE | sqlite3.SQLITE_IOERR_SHMSIZE:
            return DatabaseFull(str(error))
        case None:  # the driver's own: a value that it does not take, a closed connection
            return DatabaseError(str(error))
    match code & 0xFF:  # without its details
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseBusy(str(error))
        case sqlite3.SQLITE_ERROR | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_TOOBIG | sqlite3.SQLITE_RANGE:
            return DatabaseError(str(error))
        case _:
            return DatabaseUnavailable(str(error))
