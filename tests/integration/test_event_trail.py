"""The trail of a whole server: what its end and its death leave of pulls, and what a syslog server gets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.server import Server
from tests.support.syslog import SyslogServer, parse

from dtr.db import Statement

IMAGE = make_image()


def count_pulls(server: Server) -> tuple[int, int]:
    """Events, and what the tag counts."""

    async def ask(application) -> tuple[int, int]:
        events = await application.database.fetch_one(
            Statement(text("SELECT coalesce(sum(times), 0) FROM events WHERE type = 'GET'"))
        )
        pulls = await application.database.fetch_one(Statement(text("SELECT coalesce(sum(pulls), 0) FROM pulls")))
        return int(events[0]), int(pulls[0])

    return server.do(ask)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_end_of_a_server_writes_the_pulls_that_wait(make_server: Callable[..., Server]):
    server = make_server(workers=2)
    server.make_repository("admin/app")
    client = Client(server)
    client.push("admin/app", IMAGE, "v1")
    for round_ in range(1, 4):
        for _ in range(5):
            client.get_manifest("admin/app", "v1").expect(200)
        server.stop()  # at once: they have not been written
        assert count_pulls(server) == (5 * round_, 5 * round_)
        server.start()
        client.close()


def test_the_death_of_a_server_loses_the_last_moment_of_pulls_and_no_push(make_server: Callable[..., Server]):
    server = make_server()
    server.make_repository("admin/app")
    client = Client(server)
    client.push("admin/app", IMAGE, "v1")
    client.get_manifest("admin/app", "v1").expect(200)
    until(lambda: count_pulls(server) == (1, 1))
    client.get_manifest("admin/app", "v1").expect(200)
    client.put_manifest("admin/app", IMAGE, "v2").expect(201)
    server.kill()
    events, pulls = count_pulls(server)
    assert events == pulls
    assert events in {1, 2}

    async def pushed(application) -> list[str]:
        rows = await application.database.fetch_all(
            Statement(
                text("SELECT object_name FROM events WHERE object_type = 'tag' AND type = 'CREATE' ORDER BY id")
            )
        )
        return [row[0] for row in rows]

    assert server.do(pushed) == ["v1", "v2"]


def test_a_syslog_server_gets_what_happens(make_server: Callable[..., Server], tmp_path: Path):
    syslog = SyslogServer("tcp", tmp_path).start()
    settings = {"events.syslog_address": syslog.address, "events.syslog_facility": "audit"}
    server = make_server(settings, workers=2)

    async def followed(application) -> bool:
        return bool(await application.database.fetch_all(Statement(text("SELECT 1 FROM event_cursors"))))

    until(lambda: server.do(followed))
    server.make_repository("admin/app")
    client = Client(server)
    client.push("admin/app", IMAGE, "v1")
    client.get_manifest("admin/app", "v1").expect(200)
    labels = ["repository.CREATE", "manifest.CREATE", "tag.CREATE", "tag.GET"]
    until(lambda: set(labels) <= {parse(one)["msgid"] for one in list(syslog.received)})
    (pushed,) = [one for one in map(parse, syslog.received) if one["msgid"] == "tag.CREATE"]
    assert pushed["text"] == "admin CREATE tag admin/app v1"
    assert pushed["pri"] == str(13 * 8 + 5)
    assert pushed["objectContent"] == IMAGE.digest
    assert re.fullmatch(r"[0-9-]+T[0-9:]+\.[0-9]{3}Z", pushed["time"])
    syslog.kill()
    client.put_manifest("admin/app", IMAGE, "v2").expect(201)  # nobody waits for the syslog server
    server.stop()
    syslog.start()
    server.start()
    until(lambda: "v2" in {parse(one).get("objectName") for one in list(syslog.received)})
    syslog.kill()
