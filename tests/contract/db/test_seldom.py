"""Rows that may be remembered are as new as if they were read, whoever changes what they are read from."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import bindparam, delete, false, func, insert, select, text, update
from tests.support.disk import small_disk

import dtr.accounts
import dtr.db.seldom
from dtr.db import (
    ConstraintViolated,
    DatabaseError,
    DatabaseFull,
    DatabaseUnavailable,
    Statement,
    Transaction,
    now,
    open_database,
)
from dtr.db.schema import SELDOM, accounts, metadata, organization_members, team_members, teams, usage_deltas
from dtr.db.seldom import Stamp

ADD = Statement(
    insert(accounts).values(
        id=bindparam("id"), name=bindparam("id"), kind=bindparam("kind"), is_admin=False, is_active=True,
        is_imported=False, created_at=now(),
    )
)  # fmt: skip
ADD_TEAM = Statement(
    insert(teams).values(id=bindparam("id"), organization_id=bindparam("organization"), name=bindparam("id"))
)
JOIN = Statement(insert(team_members).values(team_id=bindparam("team"), user_id=bindparam("user"), is_admin=False))
DROP_TEAM = Statement(delete(teams).where(teams.c.id == bindparam("which")))
SWITCH = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(is_admin=accounts.c.is_admin.is_(False))
)
LOGGED_IN = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(last_login_at=bindparam("at"))
)
COUNT = Statement(
    select(func.count())
    .join_from(team_members, accounts, accounts.c.id == team_members.c.user_id)
    .where(team_members.c.user_id == bindparam("user"), accounts.c.is_active.is_(True)),
    remembered=True,
)
IS_ADMIN = Statement(select(accounts.c.is_admin).where(accounts.c.id == bindparam("id")), remembered=True)
WRITE = Statement(insert(usage_deltas).values(scope="*", bytes=1))
ORPHAN = Statement(insert(organization_members).values(organization_id="?", user_id="?", is_admin=False))


@pytest.fixture
async def url(make_database_url) -> str:
    return await make_database_url("sqlite")


class Clock:
    """By which rows are remembered for a second: it stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(dtr.db.seldom, "monotonic", made)
    return made


class Process:
    """A database as a process has it, and what it reads."""

    def __init__(self, url: str) -> None:
        self.database = open_database(url)
        self.reads = 0
        self.database.observe = self._observe

    def _observe(self, kind: str, _seconds: float) -> None:
        self.reads += kind == "read"

    async def run(self, statement: Statement, **parameters) -> None:
        await self.database.unit(lambda tx: tx.execute(statement, **parameters))

    async def is_admin(self, account: str = "ada") -> bool:
        row = await self.database.fetch_one(IS_ADMIN, id=account)
        return bool(row and row[0])

    async def reads_anew(self) -> bool:
        before = self.reads
        await self.is_admin()
        return self.reads > before


@asynccontextmanager
async def two_processes(url: str):
    """On one database, in which ada is."""
    one, other = Process(url), Process(url)
    await one.run(ADD, id="ada", kind="user")
    yield one, other
    await one.database.close()
    await other.database.close()


@pytest.fixture
async def pair(database_url: str):
    async with two_processes(database_url) as both:
        yield both


@pytest.fixture
async def sqlite_pair(url: str):
    async with two_processes(url) as both:
        yield both


# --- on both databases ---------------------------------------------------------------------------------------


async def test_what_another_process_acknowledged_is_seen_at_once(pair):
    one, other = pair
    expected = False
    for number in range(60):
        assert await one.is_admin() is expected
        assert await other.is_admin() is expected
        await (one, other)[number % 2].run(SWITCH, which="ada")
        expected = not expected


async def test_nobody_sees_an_older_row_than_before(pair):
    """Reading goes on at every moment of the commits of another process."""
    one, other = pair
    acknowledged, expected = 0, [False]

    async def read() -> None:
        while acknowledged < 150:
            before = acknowledged
            found = await one.is_admin()
            # Of the one that was acknowledged last before the look, or of any after it.
            assert found in expected[before:], (before, found, expected)
            await asyncio.sleep(0)

    reading = [asyncio.create_task(read()) for _ in range(3)]
    while acknowledged < 150:
        expected.append(not expected[-1])
        await other.run(SWITCH, which="ada")
        acknowledged += 1
        if acknowledged % 10 == 0:
            # Nothing changes for a while: now there is only one right answer.
            assert await one.is_admin() is expected[-1]
    await asyncio.gather(*reading)


async def test_what_goes_with_something_else_is_seen_at_once(pair):
    one, other = pair
    database = one.database
    await other.run(ADD, id="org", kind="organization")
    for team in ("a", "b"):
        await other.run(ADD_TEAM, id=team, organization="org")
        await other.run(JOIN, team=team, user="ada")
    assert (await database.fetch_one(COUNT, user="ada"))[0] == 2
    await other.run(DROP_TEAM, which="a")
    assert (await database.fetch_one(COUNT, user="ada"))[0] == 1
    await other.run(Statement(delete(accounts).where(accounts.c.id == "org")))
    assert (await database.fetch_one(COUNT, user="ada"))[0] == 0


async def test_each_statement_that_is_remembered_gives_a_row_for_each_set_of_parameters(pair):
    one, other = pair
    await other.run(ADD, id="bob", kind="user")
    await other.run(SWITCH, which="bob")
    for _ in range(2):
        assert [await one.is_admin(name) for name in ("ada", "bob", "eve")] == [False, True, False]
    await other.run(ADD, id="eve", kind="user")
    await other.run(SWITCH, which="eve")
    assert [await one.is_admin(name) for name in ("ada", "bob", "eve")] == [False, True, True]


# --- SQLite --------------------------------------------------------------------------------------------------


async def test_a_row_is_read_once_while_others_write_something_else(sqlite_pair):
    one, other = sqlite_pair
    assert await one.reads_anew()
    for process in (one, other):
        await process.run(WRITE)
        await process.run(LOGGED_IN, which="ada", at=5)
        assert not await one.reads_anew()
    await other.run(SWITCH, which="ada")
    assert await one.reads_anew()
    assert not await one.reads_anew()


@pytest.mark.parametrize(
    ("table", "column"), sorted((table, column) for table, columns in SELDOM.items() for column in columns)
)
async def test_every_column_that_changes_seldom_counts(sqlite_pair, table: str, column: str):
    one, other = sqlite_pair
    changed = metadata.tables[table]
    await one.is_admin()
    await other.run(Statement(update(changed).where(false()).values({column: changed.c[column]})))
    assert await one.reads_anew()
    assert not await one.reads_anew()
    await other.run(Statement(delete(changed).where(false())))
    assert await one.reads_anew()


async def test_what_was_taken_back_leaves_everything_as_it_was(sqlite_pair):
    one, other = sqlite_pair

    async def refused(tx: Transaction) -> None:
        await tx.execute(SWITCH, which="ada")
        raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            await other.database.unit(refused)
        with pytest.raises(ConstraintViolated):
            await other.run(ORPHAN)
        assert not await one.is_admin()
    await other.run(SWITCH, which="ada")
    assert await one.is_admin()


async def test_units_that_share_a_commit_share_the_stamp(sqlite_pair):
    one, other = sqlite_pair
    await one.is_admin()
    await asyncio.gather(
        *(other.run(WRITE) for _ in range(20)),
        other.run(SWITCH, which="ada"),
        *(other.run(WRITE) for _ in range(20)),
    )
    assert await one.is_admin()


KILLED = """
import asyncio, os, signal, sys
import dtr.db.seldom
from dtr.db import open_database
from tests.contract.db.test_seldom import SWITCH

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = open_database(sys.argv[1])
    if sys.argv[2] == "before":
        begin = dtr.db.seldom.Stamp.begin
        dtr.db.seldom.Stamp.begin = lambda stamp: (begin(stamp), die())
    else:
        dtr.db.seldom.Stamp.end = die
    await database.unit(lambda tx: tx.execute(SWITCH, which="ada"))

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_after_a_death_at_the_commit_nothing_is_remembered_until_the_next_turn(
    sqlite_pair, url: str, moment: str
):
    one, other = sqlite_pair
    assert not await one.is_admin()
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, url, moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    for _ in range(2):
        assert await one.reads_anew()
    assert await one.is_admin() is (moment == "after")
    await other.run(WRITE)
    assert await one.reads_anew()
    assert not await one.reads_anew()
    await other.run(SWITCH, which="ada")
    assert await one.is_admin() is (moment == "before")


async def test_a_row_is_good_for_a_second_at_most(sqlite_pair, url: str, clock: Clock):
    """Others may write to the file with tools of their own."""
    one, _ = sqlite_pair
    assert not await one.is_admin()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as rival, rival:
        rival.execute("UPDATE accounts SET is_admin = 1")
    clock.now += 0.99
    assert not await one.reads_anew()
    assert not await one.is_admin()
    clock.now += 0.01
    assert await one.is_admin()


async def test_what_is_remembered_is_bounded(sqlite_pair, monkeypatch):
    one, _ = sqlite_pair
    monkeypatch.setattr(dtr.db.seldom, "_REMEMBERED_ROWS", 10)
    for number in range(35):
        assert not await one.is_admin(f"nobody{number}")
    assert len(one.database._memory._rows) <= 10
    assert not await one.is_admin()


async def test_a_full_disk_keeps_no_right_that_was_taken(tmp_path: Path, make_database_url):
    """The stamp needs a few bytes of its own, before anything is committed."""
    template = Path((await make_database_url("sqlite")).removeprefix("sqlite:///"))
    with small_disk(tmp_path / "disk") as disk:
        file = disk.path / "metadata.db"
        file.write_bytes(template.read_bytes())
        one, other = (Process(f"sqlite:///{file}") for _ in range(2))
        await one.run(ADD, id="ada", kind="user")
        disk.fill()
        refused = 0
        for _ in range(40):
            before = await one.is_admin()
            try:
                await other.run(SWITCH, which="ada")
            except DatabaseFull:
                refused += 1
                assert await one.is_admin() is before
            else:
                assert await one.is_admin() is not before
        assert refused
        disk.make_room()
        before = await one.is_admin()
        await other.run(SWITCH, which="ada")
        assert await one.is_admin() is not before
        await one.database.close()
        await other.database.close()


def test_statements_that_are_remembered_read_nothing_else(url: str):
    assert dtr.accounts  # those of the product are there
    remembered = [one for one in gc.get_objects() if type(one) is Statement and one.is_remembered]
    assert len(remembered) >= 3
    read: set[tuple[str, str]] = set()

    def note(action: int, table: str | None, column: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ and column:
            read.add((table, column))
        return sqlite3.SQLITE_OK

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.set_authorizer(note)
        for statement in remembered:
            text = statement.text("sqlite")
            connection.execute(f"EXPLAIN {text}", [None] * text.count("?")).fetchall()
    seldom = {(table, column) for table, columns in SELDOM.items() for column in columns}
    assert read == seldom


async def test_what_takes_much_room_is_not_remembered(sqlite_pair):
    """The names that are asked for come from clients."""
    one, other = sqlite_pair
    for name, is_remembered in (("x" * 3000, True), ("x" * 5000, False), ("ä" * 3000, False)):
        assert not await one.is_admin(name)
        before = one.reads
        assert not await one.is_admin(name)
        assert (one.reads == before) is is_remembered
        await other.run(ADD, id=name, kind="user")
        await other.run(SWITCH, which=name)
        assert await one.is_admin(name)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"\xff" * 8, b"\xfe" + b"\xff" * 7, bytes(100), bytes(range(1, 10))],
    ids=["nothing", "a byte", "the largest number", "the largest even number", "zeros", "one byte more"],
)
async def test_whatever_the_stamps_file_holds_every_change_is_seen(sqlite_pair, url: str, content: bytes):
    one, other = sqlite_pair
    file = Path(f"{url.removeprefix('sqlite:///')}-turn")
    assert not await one.is_admin()
    file.write_bytes(content)
    expected = False
    for number in range(4):
        await (one, other)[number % 2].run(SWITCH, which="ada")
        expected = not expected
        assert await one.is_admin() is expected
    assert not await one.reads_anew()


async def test_a_process_sees_its_own_changes_when_the_stamps_file_is_gone(url: str):
    one, file = Process(url), Path(f"{url.removeprefix('sqlite:///')}-turn")
    file.unlink()
    await one.run(ADD, id="ada", kind="user")
    assert not await one.is_admin()
    file.unlink(missing_ok=True)
    await one.run(SWITCH, which="ada")
    assert await one.is_admin()
    await one.database.close()


@pytest.mark.parametrize("moment", ["begin", "end"])
async def test_a_stamp_that_cannot_be_written_keeps_nothing_that_was_changed(
    sqlite_pair, monkeypatch, moment: str
):
    one, other = sqlite_pair
    assert not await one.is_admin()
    write = os.pwrite

    def broken(descriptor: int, data: bytes, offset: int) -> int:
        if any(data) == (moment == "end"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(descriptor, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", broken)
        if moment == "begin":
            with pytest.raises(DatabaseUnavailable):
                await other.run(SWITCH, which="ada")
            assert not await one.is_admin()
            await other.run(WRITE)  # what needs no stamp
        else:
            for expected in (True, False, True):
                await other.run(SWITCH, which="ada")
                assert await one.is_admin() is expected
            assert await one.reads_anew()
            assert await one.reads_anew()
    expected = moment == "end"
    await other.run(WRITE)
    for _ in range(2):
        assert await one.is_admin() is expected
    assert not await one.reads_anew()
    await other.run(SWITCH, which="ada")
    assert await one.is_admin() is not expected


def test_a_stamp_is_taken_away_and_another_one_made(tmp_path: Path):
    with closing(Stamp(tmp_path / "metadata.db")) as stamp:
        assert stamp.read() == 0, "a new file has none"
        seen = {0}
        for _ in range(100):
            stamp.end()
            assert stamp.read() not in seen
            seen.add(stamp.read())
            stamp.begin()
            assert stamp.read() == 0
        stamp.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            stamp.read()
    file = tmp_path / "metadata.db-turn"
    assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, 8)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("was_there", [False, True])
async def test_a_command_of_root_leaves_the_lock_to_the_owner_of_the_database(
    tmp_path: Path, was_there: bool
) -> None:
    path, turn = tmp_path / "metadata.db", tmp_path / "metadata.db-turn"
    database = open_database(f"sqlite:///{path}")
    await database.unit(lambda tx: tx.execute(Statement(text("CREATE TABLE one (number INTEGER)"))))
    await database.close()
    for one in tmp_path.iterdir():
        os.chown(one, 65534, 65534)
    if was_there:
        os.chown(turn, 0, 0)
    else:
        turn.unlink()
    await open_database(f"sqlite:///{path}").close()
    assert {(one.stat().st_uid, one.stat().st_gid) for one in tmp_path.iterdir()} == {(65534, 65534)}
    assert turn.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("link", [os.symlink, os.link])
async def test_who_owns_the_database_gets_no_file_of_root_by_a_link(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    path, turn, secret = tmp_path / "metadata.db", tmp_path / "metadata.db-turn", tmp_path / "secret"
    await open_database(f"sqlite:///{path}").close()
    os.chown(path, 65534, 65534)
    turn.unlink()
    secret.write_bytes(b"of root")
    before = secret.stat()
    link(secret, turn)
    if link is os.symlink:
        with pytest.raises(DatabaseError):
            open_database(f"sqlite:///{path}")
        assert secret.read_bytes() == b"of root"
    else:
        await open_database(f"sqlite:///{path}").close()
    assert (secret.stat().st_uid, secret.stat().st_mode) == (before.st_uid, before.st_mode) == (0, before.st_mode)
