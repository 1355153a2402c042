"""Pulls: what they count for, their events, and that they are written late but not lost."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from tests.support.images import make_image, make_index
from tests.support.rooms import Rooms, annotated

from dtr.db import DatabaseUnavailable
from dtr.events import Actor
from dtr.registry import Pulls
from dtr.registry.usage import Usage, of_repository

ADA = Actor("user", "id of ada", "ada", "192.0.2.1")


async def counted(rooms: Rooms) -> dict[str, int]:
    return dict(await rooms.query("SELECT reference, pulls FROM pulls"))


async def total(rooms: Rooms, repository: int) -> int:
    scope = of_repository(repository)
    return (await Usage(rooms.database).get([scope]))[scope].pulls


async def test_a_pull_by_tag_counts_for_the_tag_and_the_repository(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest", "other")
    pulls = Pulls(rooms.database)
    for _ in range(3):
        pulls.add(repository, "latest", digest, by=ADA)
    assert await counted(rooms) == {}
    assert await pulls.flush() == 3
    pulls.add(repository, "latest", digest, by=ADA)
    assert await pulls.flush() == 1
    assert await pulls.flush() == 0
    assert await counted(rooms) == {"latest": 4}
    assert await total(rooms, repository) == 4
    rows = await rooms.query(
        "SELECT actor, actor_name, actor_type, address, repository_id, repository, object_type, object_id,"
        " object_content, times FROM events WHERE type = 'GET'"
    )
    who = ("id of ada", "ada", "user", "192.0.2.1")
    assert {row[:-1] for row in rows} == {(*who, repository, "acme/app", "tag", "latest", digest)}
    assert sum(row[-1] for row in rows) == 4


async def test_an_image_of_an_index_does_not_count_for_the_repository(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    index = make_index(image, annotated(image, n="2"))
    child = index.children[0].digest
    digest = await rooms.push(repository, index, "latest")
    alone = await rooms.push(repository, annotated(image, n="3"))
    pulls = Pulls(rooms.database)
    # A client that asks for the tag, one that looks the tag up and asks for its digest, and one without an index.
    for reference in ("latest", child, digest, child, alone):
        pulls.add(repository, reference, digest if reference == "latest" else reference, by=ADA)
    await pulls.flush()
    assert await counted(rooms) == {"latest": 1, child: 2, digest: 1, alone: 1}
    assert await total(rooms, repository) == 3
    assert await rooms.query("SELECT sum(times) FROM events WHERE type = 'GET'") == [(5,)]


async def test_what_is_deleted_meanwhile_is_not_counted(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    pulls = Pulls(rooms.database)
    pulls.add(repository, "latest", digest, by=ADA)
    await rooms.manifests.delete(repository, digest)
    await rooms.repositories.delete("acme/app")
    pulls.add(1_000_000, "latest", digest, by=ADA)
    assert await pulls.flush() == 2
    assert await counted(rooms) == {}
    assert await total(rooms, repository) == 0
    # It happened nevertheless.
    rows = await rooms.query("SELECT repository_id, repository FROM events WHERE type = 'GET' ORDER BY id")
    assert rows == [(repository, "acme/app"), (1_000_000, "")]


async def test_an_event_has_the_moment_of_the_pull(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    pulls = Pulls(rooms.database)
    began = time.monotonic()
    pulls.add(repository, "latest", digest, by=ADA)
    await asyncio.sleep(0.32)
    await pulls.flush()
    await rooms.manifests.delete_tag(repository, "latest")
    (pulled,), (deleted,) = await rooms.query(
        "SELECT published_at FROM events WHERE object_type = 'tag' AND type <> 'CREATE' ORDER BY id"
    )
    assert 300 <= deleted - pulled <= (time.monotonic() - began) * 1000 + 10  # both clocks are rounded


async def test_pulls_of_several_processes_at_once_all_count(rooms: Rooms):
    repository = await rooms.make_repository()
    names = [f"v{n}" for n in range(20)]
    digest = await rooms.push(repository, make_image(), *names)
    hosts = [Pulls(one.database) for one in (rooms, rooms.another(), rooms.another())]

    async def pull(host: Pulls) -> None:
        for _ in range(10):
            for name in names:
                host.add(repository, name, digest, by=ADA)
            await asyncio.gather(host.flush(), host.flush())

    await asyncio.gather(*(pull(host) for host in hosts))
    assert await counted(rooms) == dict.fromkeys(names, 30)
    assert await total(rooms, repository) == 600
    assert await rooms.query("SELECT sum(times) FROM events WHERE type = 'GET'") == [(600,)]


async def test_many_pulls_are_written_in_several_units(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    pulls = Pulls(rooms.database)
    for number in range(1234):
        pulls.add(repository, "latest", digest, by=Actor("user", f"id {number}", "somebody"))
    assert await pulls.flush() == 1234
    assert await counted(rooms) == {"latest": 1234}


async def test_pulls_wait_while_the_database_does_not_answer(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    pulls = Pulls(rooms.database, capacity=10)
    unit = rooms.database.unit

    async def unavailable(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(rooms.database, "unit", unavailable)
    for number in range(13):  # three too many
        pulls.add(repository, "latest", digest, by=Actor("user", f"id {number}", "somebody"))
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await pulls.flush()
        pulls.add(repository, "latest", digest, by=Actor("user", "id 5", "somebody"))  # it is known
    monkeypatch.setattr(rooms.database, "unit", unit)
    with caplog.at_level(logging.WARNING, "dtr.pulls"):
        assert await pulls.flush() == 12
        assert await pulls.flush() == 0
    (line,) = caplog.records  # once
    assert (line.message, line.__dict__["pulls"]) == ("pulls lost", 3)
    assert await counted(rooms) == {"latest": 12}


async def test_pulls_that_come_while_others_are_written_join_those_that_could_not_be(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
):
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    pulls = Pulls(rooms.database)
    unit = rooms.database.unit

    async def slow_and_vain(*_: object, **__: object) -> None:
        pulls.add(repository, "latest", digest, by=ADA)
        pulls.add(repository, digest, digest, by=ADA)
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(rooms.database, "unit", slow_and_vain)
    pulls.add(repository, "latest", digest, by=ADA)
    with pytest.raises(DatabaseUnavailable):
        await pulls.flush()
    monkeypatch.setattr(rooms.database, "unit", unit)
    assert await pulls.flush() == 3
    assert await counted(rooms) == {"latest": 2, digest: 1}


async def test_the_end_writes_what_waits(rooms: Rooms, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dtr.registry.pulls._FLUSH_SECONDS", 0.05)
    repository = await rooms.make_repository()
    digest = await rooms.push(repository, make_image(), "latest")
    process = rooms.another()
    pulls = Pulls(process.database)
    running = asyncio.create_task(pulls.run())
    for number in range(40):
        pulls.add(repository, "latest", digest, by=ADA)
        await asyncio.sleep(0.01 * (number % 3))
    async with asyncio.timeout(60):
        while not await counted(rooms):
            await asyncio.sleep(0.01)
    pulls.add(repository, "latest", digest, by=ADA)
    running.cancel()  # wherever it is
    await asyncio.wait([running])
    await pulls.close()
    await process.close()
    assert await counted(rooms) == {"latest": 41}
    assert await total(rooms, repository) == 41
