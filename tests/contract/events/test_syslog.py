"""Events at a syslog server: messages, framing, and servers that die."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.support.events import ADA, made, write
from tests.support.ports import free_port
from tests.support.syslog import SyslogServer, parse

from dtr.config import Events as Settings
from dtr.db import Database
from dtr.events import SYSTEM, Event, Events, Filter, Object, Recorded, follower, syslog
from dtr.events.syslog import FACILITIES, Syslog, message


def recorded(event: Event) -> Recorded:
    return Recorded(
        7, 1_700_000_000_123, event.type, event.actor, None, event.repository, event.object, event.target
    )


def test_a_message():
    moved = made("UPDATE", target=Object("tag", "id of tag", "name of tag", "later"), repository="acme/app")
    assert message(recorded(moved), FACILITIES["local0"], "host.example.org").decode() == (
        "<133>1 2023-11-14T22:13:20.123Z host.example.org dtr - tag.UPDATE "
        '[dtr@32473 id="7" type="UPDATE" actor="id of ada" actorName="ada" actorType="user"'
        ' remoteAddress="192.0.2.1" repository="acme/app" objectType="tag" objectId="id of tag"'
        ' objectName="name of tag" objectContent="content" targetType="tag" targetId="id of tag"'
        ' targetName="name of tag" targetContent="later"] ada UPDATE tag acme/app name of tag'
    )


def test_severity_and_what_is_left_out():
    text = message(recorded(Event(type="FAIL", actor=SYSTEM, object=Object("account", "x"))), 4, "h").decode()
    assert text.startswith("<36>1 ")  # auth.warning
    assert text.endswith('h dtr - account.FAIL [dtr@32473 id="7" type="FAIL" actorType="system" objectType="account" objectId="x"] system FAIL account x')  # fmt: skip # noqa: E501
    assert message(recorded(made("GET")), 4, "h").startswith(b"<38>1 ")  # informational


def test_nobody_makes_up_messages_or_data():
    nasty = 'a"] <0>1 - - - - - -\n<0>1 \\"x" \u2028 \x1b[31m \ud800 é'
    raw = message(recorded(made(what="tag", by=ADA, repository="acme/app")), 16, "h")
    event = Event(type="CREATE", actor=ADA, object=Object("setting", nasty, nasty, "x" * 5000))
    found = message(recorded(event), 16, "h")
    assert b"\n" not in found
    assert b"\x1b" not in found
    assert parse(found)["objectId"] == 'a"] <0>1 - - - - - -?<0>1 \\"x" ? ?[31m ? é'
    assert parse(found)["objectContent"] == "x" * 1000
    assert parse(raw)["repository"] == "acme/app"


def test_facilities_are_those_of_the_settings():
    schema = Settings.model_json_schema()["properties"]["syslog_facility"]
    assert schema["enum"] == list(FACILITIES)


# --- servers --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("_POLL_SECONDS", 0.05),
        ("_SETTLE_SECONDS", 0.04),
        ("_SHORTEST_PAUSE", 0.05),
        ("_LONGEST_PAUSE", 0.1),
        ("_SEND_SECONDS", 60.0),  # what takes longer would be sent again
    ):
        monkeypatch.setattr(syslog, name, seconds)


@pytest.fixture(params=["tcp", "udp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SyslogServer]:
    started = SyslogServer(request.param, tmp_path).start()
    yield started
    started.kill()


@pytest.fixture
async def run() -> AsyncIterator[Callable[..., asyncio.Task[None]]]:
    """A function that runs the sink of a process."""
    running: list[asyncio.Task[None]] = []

    def start(database: Database, address: str) -> asyncio.Task[None]:
        running.append(asyncio.create_task(Syslog(database, address, "local3").run()))
        return running[-1]

    yield start
    for one in running:
        one.cancel()
    if running:
        await asyncio.wait(running)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def following(database: Database) -> None:
    """Until somebody does: then the next events are not too early."""
    from sqlalchemy import text

    from dtr.db import Statement

    async with asyncio.timeout(60):
        while not await database.fetch_all(Statement(text("SELECT 1 FROM event_cursors"))):
            await asyncio.sleep(0.01)


async def all_ids(database: Database) -> set[int]:
    return {one.id for one in await Events(database).list_events(Filter(), limit=10_000)}


async def test_events_arrive(database: Database, server: SyslogServer, run: Callable[..., object]):
    run(database, server.address)
    await following(database)
    await write(database, *(made(object_type) for object_type in ("CREATE", "UPDATE", "GET", "DELETE")))
    await until(lambda: len(server.received) >= 4)
    assert [parse(one)["type"] for one in server.received] == ["CREATE", "UPDATE", "GET", "DELETE"]
    assert {parse(one)["pri"] for one in server.received} == {str(19 * 8 + 5), str(19 * 8 + 6)}
    await asyncio.sleep(0.3)
    assert len(server.received) == 4  # once, when nothing happens


async def test_a_server_that_dies_gets_everything_when_it_is_back(
    database: Database, server: SyslogServer, run: Callable[..., object], caplog: pytest.LogCaptureFixture
):
    run(database, server.address)
    await following(database)
    with caplog.at_level(logging.INFO, "dtr.events"):
        await write(database, *(made() for _ in range(3)))
        await until(lambda: len(server.received) >= 3)
        await asyncio.sleep(0.2)  # settled
        server.kill()
        # A datagram that nobody takes is noticed with the next one: such a loss is in the nature of UDP.
        lost = 1 if server.kind == "udp" else 0
        for _ in range(lost):
            await write(database, made())
            await asyncio.sleep(0.3)
        await write(database, *(made() for _ in range(5)))
        await until(lambda: "events not forwarded" in [one.message for one in caplog.records])
        server.start()
        await write(database, made())
        await until(lambda: len(set(server.ids)) >= 9)
        await until(lambda: caplog.records[-1].message == "events forwarded again")
    missing = await all_ids(database) - set(server.ids)
    assert len(missing) <= lost
    # Once, however often it was tried.
    assert [one.message for one in caplog.records] == ["events not forwarded", "events forwarded again"]


async def test_what_a_dying_server_had_not_read_is_sent_again(
    database: Database, tmp_path: Path, run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(syslog, "_SETTLE_SECONDS", 60.0)  # however long it takes to kill it
    server = SyslogServer("tcp", tmp_path)
    reading = server._read
    taken: list[socket.socket] = []
    monkeypatch.setattr(server, "_read", taken.append)  # takes connections, and never reads
    server.start()
    run(database, server.address)
    await following(database)
    await write(database, *(made() for _ in range(20)))
    await until(lambda: any(select.select(taken, [], [], 0)[0]))  # at the host, not read by the server
    server.kill()
    assert server.received == []
    monkeypatch.setattr(server, "_read", reading)
    server.start()
    await until(lambda: len(server.received) >= 20)
    assert set(server.ids) == await all_ids(database)
    server.kill()


async def test_another_process_takes_over(
    database: Database, database_url: str, tmp_path: Path, run: Callable[..., asyncio.Task[None]],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    from dtr.db import open_database

    server = SyslogServer("tcp", tmp_path).start()
    first = run(database, server.address)
    await following(database)
    other = open_database(database_url)
    run(other, server.address)
    await write(database, made(), made())
    await until(lambda: len(server.received) >= 2)
    await asyncio.sleep(0.3)
    assert len(server.received) == 2  # one process at a time
    first.cancel()
    await asyncio.wait([first])
    await write(database, made())
    await until(lambda: len(set(server.ids)) >= 3)
    assert set(server.ids) == await all_ids(database)
    server.kill()
    await other.close()


async def test_many_events_do_not_wait_for_each_other(
    database: Database, tmp_path: Path, run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
):
    server = SyslogServer("tcp", tmp_path).start()
    run(database, server.address)
    await following(database)
    many = 10 * follower.BATCH + 1
    await write(database, *(made() for _ in range(many)))
    await until(lambda: bool(server.received))
    monkeypatch.setattr(syslog, "_POLL_SECONDS", 600.0)  # whoever waits between two batches does not end
    await until(lambda: len(server.received) >= many)
    assert sorted(server.ids) == sorted(await all_ids(database))
    server.kill()


async def test_a_server_that_was_never_there_delays_nothing(database: Database, run: Callable[..., object]):
    run(database, f"tcp://127.0.0.1:{free_port()}")
    await following(database)
    async with asyncio.timeout(60):
        await write(database, *(made() for _ in range(100)))
