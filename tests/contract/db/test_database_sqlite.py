"""What SQLite promises besides: units share commits, keep their order, and survive a full disk."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import bindparam, insert, select, text
from tests.support.disk import small_disk
from tests.support.stopping import stop

import dtr.db.sqlite
from dtr.db import (
    ConstraintViolated,
    Database,
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
    Statement,
    Transaction,
    now,
    open_database,
)
from dtr.db.migrate import migrate
from dtr.db.schema import tags, usage, usage_deltas

if TYPE_CHECKING:
    from collections.abc import Callable

ADD = Statement(insert(usage_deltas).values(scope=bindparam("scope"), bytes=bindparam("number")))
LIST = Statement(select(usage_deltas.c.scope).order_by(usage_deltas.c.id))
PUT = Statement(insert(usage).values(scope=bindparam("scope"), bytes=0))
ORPHAN = Statement(
    insert(tags).values(
        repository_id=4711,
        name="latest",
        manifest="sha256:0",
        author="",
        created_at=now(),
        updated_at=now(),
    )
)


@pytest.fixture
async def url(make_database_url) -> str:
    return await make_database_url("sqlite")


@pytest.fixture
async def database(url: str):
    opened = open_database(url)
    yield opened
    await opened.close()


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def add(scope: str):
    async def work(tx: Transaction) -> str:
        await tx.execute(ADD, scope=scope, number=0)
        return scope

    return work


async def stored(database: Database) -> list[str]:
    return [row[0] for row in await database.fetch_all(LIST)]


class Turn:
    """The lock that says which process writes."""

    def __init__(self, url: str) -> None:
        self._descriptor = os.open(f"{path_of(url)}-turn", os.O_RDWR | os.O_CREAT, 0o600)

    def take(self, *, wait: bool = True) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def give_back(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def turn(url: str):
    with closing(Turn(url)) as opened:
        yield opened


@pytest.fixture
def statements(monkeypatch) -> list[str]:
    """What connections made from now on run."""
    seen: list[str] = []
    connect = dtr.db.sqlite._connect

    def traced(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(dtr.db.sqlite, "_connect", traced)
    return seen


# --- group commit --------------------------------------------------------------------------------------------


async def at_once(database: Database, turn: Turn, units: list) -> list:
    """The outcomes of units that all wait together."""
    turn.take()
    waiting = [asyncio.create_task(database.unit(unit)) for unit in units]
    await asyncio.sleep(0)  # each is in the queue
    turn.give_back()
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_units_that_wait_share_a_commit_and_keep_their_order(database: Database, turn: Turn, statements):
    names = [str(number) for number in range(100)]
    assert await at_once(database, turn, [add(name) for name in names]) == names
    assert await stored(database) == names
    # The writer may have taken the first before the others came.
    assert statements.count("COMMIT") <= 2


async def test_a_unit_that_fails_does_not_end_the_commit_of_the_others(database: Database, turn: Turn, statements):
    async def fail(tx: Transaction) -> None:
        await tx.execute(ADD, scope="never", number=0)
        raise LookupError

    outcomes = await at_once(database, turn, [add("a"), fail, add("b"), fail, add("c")])
    assert [type(outcome) for outcome in outcomes] == [str, LookupError, str, LookupError, str]
    assert await stored(database) == ["a", "b", "c"]
    assert statements.count("COMMIT") <= 2


async def test_a_constraint_that_speaks_at_the_commit_is_its_units_alone(database: Database, turn: Turn):
    async def bad(tx: Transaction) -> None:
        await tx.execute(ADD, scope="never", number=0)
        await tx.execute(ORPHAN)

    outcomes = await at_once(database, turn, [add("a"), bad, add("b"), bad, add("c")])
    assert [type(outcome) for outcome in outcomes] == [str, ConstraintViolated, str, ConstraintViolated, str]
    assert await stored(database) == ["a", "b", "c"]


async def test_a_unit_that_awaits_something_else_is_an_error_of_the_program(database: Database, turn: Turn):
    async def wrong(tx: Transaction) -> None:
        await tx.execute(ADD, scope="never", number=0)
        await asyncio.sleep(0)
        await tx.execute(ADD, scope="never", number=1)

    outcomes = await at_once(database, turn, [add("a"), wrong, add("b")])
    assert [type(outcome) for outcome in outcomes] == [str, RuntimeError, str]
    assert await stored(database) == ["a", "b"]


async def test_a_reader_in_another_connection_never_sees_half_a_unit(database: Database, url: str):
    async def both(tx: Transaction) -> None:
        await tx.execute(ADD, scope="half", number=0)
        await tx.execute(ADD, scope="half", number=1)

    other = open_database(url)
    waiting = [asyncio.create_task(database.unit(both)) for _ in range(200)]
    while not all(task.done() for task in waiting):
        assert len(await stored(other)) % 2 == 0
        await asyncio.sleep(0)
    assert len(await stored(other)) == 400
    await other.close()


# --- a full disk ---------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path):
    with small_disk(tmp_path / "disk", mib=24) as mounted:
        yield mounted


def large(scope: str, size: int = 4_000_000):
    """A unit that writes so many bytes, after something small."""

    async def work(tx: Transaction) -> str:
        await tx.execute(PUT, scope=scope)
        await tx.execute(ADD, scope=scope + "x" * size, number=0)
        return scope

    return work


@pytest.fixture
def full_url(disk, url: str) -> str:
    """A database on a small disk."""
    path = disk.path / "metadata.db"
    shutil.copyfile(path_of(url), path)
    return f"sqlite:///{path}"


async def test_units_on_a_full_disk_each_get_their_error_and_leave_nothing(disk, full_url: str):
    database = open_database(full_url)
    await database.unit(add("before"))
    disk.fill()
    outcomes = await asyncio.gather(*(database.unit(large(str(n))) for n in range(8)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseFull] * 8
    assert await stored(database) == ["before"]
    disk.make_room()
    assert await database.unit(add("after")) == "after"
    assert await database.unit(large("large")) == "large"
    assert [scope[:6] for scope in await stored(database)] == ["before", "after", "largex"]
    await database.close()
    assert integrity(full_url) == "ok"


async def test_a_unit_that_is_too_large_for_the_disk_takes_no_other_along(disk, full_url: str):
    database = open_database(full_url)
    await database.unit(large("first", 2_000_000))
    with closing(sqlite3.connect(path_of(full_url))) as other:
        other.execute("PRAGMA wal_checkpoint(RESTART)")  # the room of the log can be used again
    disk.fill()
    with closing(Turn(full_url)) as turn:
        outcomes = await at_once(database, turn, [add("a"), large("too large"), add("b")])
    assert [type(outcome) for outcome in outcomes] == [str, DatabaseFull, str]
    assert [scope[:6] for scope in await stored(database)] == ["firstx", "a", "b"]
    await database.close()


async def test_a_unit_that_goes_on_after_a_full_disk_changes_nothing(disk, full_url: str):
    """SQLite ends the transaction then: what came after it would be committed at once, and by itself."""
    database = open_database(full_url)
    ended = []

    async def go_on(tx: Transaction) -> None:
        with pytest.raises(DatabaseFull):
            await tx.execute(ADD, scope="x" * 40_000_000, number=0)
        ended.append(not tx._connection.in_transaction)
        for run in (tx.execute, tx.fetch_all, tx.fetch_one):
            with pytest.raises(DatabaseFull):
                await run(ADD, scope="never", number=0)
        with pytest.raises(DatabaseFull):
            await tx.execute_many(ADD, [{"scope": "never", "number": 0}])

    with pytest.raises(DatabaseFull):
        await database.unit(go_on)
    assert ended == [True]
    assert await stored(database) == []
    await database.close()


async def test_a_database_that_a_full_disk_did_not_let_open_opens_once_there_is_room(disk, full_url: str):
    disk.fill()
    with pytest.raises(DatabaseFull):
        open_database(full_url)
    disk.make_room()
    database = open_database(full_url)
    assert await database.unit(add("a")) == "a"
    await database.close()


# --- other processes -----------------------------------------------------------------------------------------


def integrity(url: str) -> str:
    with closing(sqlite3.connect(path_of(url))) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]


async def test_kill_9_of_a_writer_leaves_an_intact_file(database: Database, url: str):
    await database.unit(lambda tx: tx.execute(PUT, scope="*"))
    for _ in range(3):
        command = [sys.executable, "-m", "tests.support.writer", url, "killed"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for _ in range(30):
                process.stdout.readline()
            process.kill()
        await asyncio.wait_for(database.unit(add("after")), 60)
    assert integrity(url) == "ok"


async def test_a_file_that_others_hold_too_long_is_busy_and_free_later(url: str, monkeypatch):
    monkeypatch.setattr(dtr.db.sqlite, "_BUSY_MS", 100)
    database = open_database(url)
    with closing(sqlite3.connect(path_of(url), isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy):
            await database.unit(add("a"))
        assert await stored(database) == []
        rival.execute("ROLLBACK")
    assert await database.unit(add("b")) == "b"
    assert await stored(database) == ["b"]
    await database.close()


async def test_a_turn_that_a_stopped_process_keeps_is_busy(database: Database, url: str, monkeypatch):
    await database.unit(lambda tx: tx.execute(PUT, scope="*"))
    command = [sys.executable, "-m", "tests.support.writer", url, "stopped"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with closing(Turn(url)) as turn:
            stop(process.pid)
            while turn.take(wait=False):  # until it was stopped in the middle of its own
                turn.give_back()
                process.send_signal(signal.SIGCONT)
                await asyncio.sleep(random.uniform(0, 0.003))
                stop(process.pid)
        with monkeypatch.context() as patched:
            patched.setattr(dtr.db.sqlite, "_LONGEST_WAIT_SECONDS", 0.2)
            with pytest.raises(DatabaseBusy):
                await database.unit(add("a"))
        process.send_signal(signal.SIGCONT)
        assert await database.unit(add("b")) == "b"
        process.kill()


async def test_a_writer_that_could_not_begin_begins_later(database: Database, url: str):
    path = path_of(url)
    kept = path.rename(path.with_name("kept"))
    path.mkdir()
    with pytest.raises(DatabaseUnavailable):
        await database.unit(add("a"))
    path.rmdir()
    kept.rename(path)
    assert await database.unit(add("b")) == "b"


async def test_an_error_that_nobody_foresaw_does_not_end_the_writer(database: Database, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(dtr.db.sqlite._Writer, "run", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(database.unit(add("a")), 20)
    assert await database.unit(add("b")) == "b"


# --- opening and migrating -----------------------------------------------------------------------------------


async def test_a_file_that_is_no_database_is_an_error(tmp_path: Path):
    path = tmp_path / "metadata.db"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(DatabaseError):
        open_database(f"sqlite:///{path}")


@pytest.mark.parametrize("name", ["a b.db", "a?b=c.db", "a%20b.db", "ä#.db"])
async def test_a_path_may_have_any_characters(tmp_path: Path, name: str):
    url = f"sqlite:///{tmp_path / name}"
    database = open_database(url)
    await migrate(database, url)
    assert await database.unit(add("a")) == "a"
    await database.close()
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}-turn"}


MIGRATION = """
import asyncio, os, signal, sys
from alembic import op
from dtr.db import open_database
from dtr.db.migrate import migrate

left = int(sys.argv[2])
create_table = op.create_table

def killed(*args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return create_table(*args, **kwargs)

op.create_table = killed
asyncio.run(migrate(open_database(sys.argv[1]), sys.argv[1]))
"""


@pytest.mark.parametrize("tables", [2, 15])
async def test_a_migration_that_was_killed_begins_again(tmp_path: Path, tables: int):
    url = f"sqlite:///{tmp_path}/metadata.db"
    done = subprocess.run([sys.executable, "-c", MIGRATION, url, str(tables)], check=False)
    assert done.returncode == -signal.SIGKILL
    database = open_database(url)
    assert await database.revision() is None
    await migrate(database, url)
    assert await database.unit(add("a")) == "a"
    await database.close()


class Syncs:
    """What dtr syncs to the disk: it can be told to fail, and runs `meanwhile` before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logs: list[bytes] = []
        """The log, as it was after each."""
        self.error: OSError | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.meanwhile()
        if self.error is not None:
            raise self.error
        self._real(descriptor)
        self.logs.append(Path(f"/proc/self/fd/{descriptor}").read_bytes())


@pytest.fixture
def syncs(monkeypatch) -> Syncs:
    return Syncs(monkeypatch)


def after_a_loss_of_power(url: str, log: bytes, directory: Path) -> list[str]:
    """What the database has, when of its log nothing but this reached the disk."""
    copy = directory / "after.db"
    copy.write_bytes(path_of(url).read_bytes())
    copy.with_name("after.db-wal").write_bytes(log)
    with closing(sqlite3.connect(copy)) as connection:
        return [row[0] for row in connection.execute("SELECT scope FROM usage_deltas ORDER BY id")]


async def test_what_was_acknowledged_is_on_the_disk(database: Database, url: str, syncs: Syncs, tmp_path: Path):
    for number in range(3):
        await database.unit(add(str(number)))
        assert after_a_loss_of_power(url, syncs.logs[-1], tmp_path)[-1] == str(number)
    assert len(syncs.logs) == 3


async def test_only_a_unit_that_must_survive_a_loss_of_power_waits_for_the_disk(
    database: Database, url: str, syncs: Syncs, tmp_path: Path
):
    await database.unit(add("a"), durable=False)
    assert syncs.logs == []
    await database.unit(add("b"))
    assert after_a_loss_of_power(url, syncs.logs[-1], tmp_path) == ["a", "b"]
    await database.unit(add("c"), durable=False)
    assert len(syncs.logs) == 1


async def test_a_unit_that_changes_nothing_waits_for_what_it_may_have_seen(
    database: Database, url: str, syncs: Syncs, tmp_path: Path
):
    """Another process has committed it, and did not get so far as to sync it."""
    await database.unit(add("theirs"), durable=False)

    async def look(tx: Transaction) -> int:
        return len(await tx.fetch_all(LIST))

    assert await database.unit(look) == 1
    assert after_a_loss_of_power(url, syncs.logs[-1], tmp_path) == ["theirs"]


async def test_a_commit_waits_for_the_disk_when_one_of_its_units_must(database: Database, syncs: Syncs):
    entered, go = threading.Event(), threading.Event()

    async def block(tx: Transaction) -> None:
        entered.set()
        go.wait(30)

    blocked = asyncio.create_task(database.unit(block, durable=False))
    await asyncio.to_thread(entered.wait, 30)
    waiting = [
        asyncio.create_task(database.unit(add(str(durable)), durable=durable)) for durable in (False, True, False)
    ]
    await asyncio.sleep(0)
    go.set()
    await blocked
    await asyncio.gather(*waiting)
    assert len(syncs.logs) == 1


async def test_while_the_log_is_synced_another_process_has_its_turn(database: Database, syncs: Syncs, turn: Turn):
    taken: list[bool] = []
    syncs.meanwhile = lambda: taken.append(turn.take(wait=False))
    await database.unit(add("a"))
    assert taken == [True]


async def test_a_log_that_cannot_be_synced_is_given_up(database: Database, url: str, syncs: Syncs, tmp_path: Path):
    """The kernel tells of a lost page once: nothing may be appended behind the hole."""
    await database.unit(add("before"))
    syncs.error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(DatabaseUnavailable):
        await database.unit(add("unknown"))
    syncs.error = None
    await database.unit(add("after"))
    assert await stored(database) == ["before", "unknown", "after"]
    assert after_a_loss_of_power(url, syncs.logs[-1], tmp_path) == ["before", "unknown", "after"]
    assert after_a_loss_of_power(url, b"", tmp_path) == ["before", "unknown"]


async def test_a_log_that_others_read_is_given_up_when_they_have_read(
    database: Database, url: str, syncs: Syncs, monkeypatch
):
    monkeypatch.setattr(dtr.db.sqlite, "_BUSY_MS", 50)
    syncs.error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(DatabaseUnavailable):
        await database.unit(add("a"))
    syncs.error = None
    with closing(sqlite3.connect(path_of(url), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM usage_deltas").fetchall()
        with pytest.raises(DatabaseBusy):
            await database.unit(add("b"))
    await database.unit(add("c"))
    assert await stored(database) == ["a", "c"]


async def test_what_a_unit_may_have_to_take_back_is_written_nowhere(database: Database):
    counted = {"scope": "x" * 2000, "number": 1}
    await database.unit(lambda tx: tx.execute_many(ADD, [counted] * 200))  # 400 KiB, which fill whole pages
    change = Statement(text("UPDATE usage_deltas SET bytes = bytes + 1"))

    async def work(tx: Transaction) -> list[str]:
        await tx.execute(change)
        opened = Path("/proc/self/fd").iterdir()
        return [name for one in opened if one.is_symlink() and "etilqs" in (name := str(one.readlink()))]

    assert await database.unit(work) == []
