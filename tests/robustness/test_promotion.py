"""
Promotion while the processes that do it are killed: each push once, through a chain of policies.

``DTR_PROMOTIONS=200`` makes it last some minutes, on both databases.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.api import Api
from tests.support.images import make_image
from tests.support.rooms import annotated
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.app import Application
from dtr.db import Statement

pytestmark = [pytest.mark.alone, pytest.mark.thorough]

PUSHES = int(os.environ.get("DTR_PROMOTIONS", "8"))
DATABASES = ["postgresql", "sqlite"] if "DTR_PROMOTIONS" in os.environ else ["postgresql"]
IMAGE = make_image()
GROWN_UP = 6.0
"""Seconds. A tree whose workers die younger, one after the other, gives up."""


def rows(server: Server, sql: str) -> list[Any]:
    async def ask(application: Application) -> list[Any]:
        return [tuple(row) for row in await application.database.fetch_all(Statement(text(sql)))]

    return server.do(ask)


@pytest.mark.parametrize("database", DATABASES)
def test_every_push_is_promoted_once_though_workers_are_killed(
    make_server: Callable[..., Server], database: str
) -> None:
    server = make_server(database=database, workers=2)
    api = Api(server)
    for name in ("dev", "test", "prod"):
        server.make_repository(f"admin/{name}")
    for source, target in (("dev", "test"), ("test", "prod")):
        policy = {"targetRepository": f"admin/{target}", "tagTemplate": "%n"}
        api.admin.post(f"/api/v0/repositories/admin/{source}/promotionPolicies", policy).expect(201)
    client = api.admin.client
    client.push("admin/dev", IMAGE)
    moments = random.Random(server.pid)
    pushed = []
    born: dict[int, float] = {}

    def are_grown_up() -> bool:
        workers = server.worker_pids
        ages = [time.monotonic() - born.setdefault(one, time.monotonic()) for one in workers]
        return len(ages) == 2 and min(ages) > GROWN_UP

    for number in range(PUSHES):
        if number % 4 == 0:
            wait_until(are_grown_up)
        tag = f"v{number:03}"
        image = annotated(IMAGE, n=tag)
        patience = time.monotonic() + 60
        while True:  # its worker may have been killed; a push that is repeated is another one
            try:
                client.put_manifest("admin/dev", image, tag).expect(201)
            except (OSError, EOFError, ValueError, AssertionError):
                assert time.monotonic() < patience
                client.close()
                client = Api(server).admin.client
            else:
                break
        pushed.append(tag)
        if number % 4 == 3:
            time.sleep(moments.uniform(0, 0.1))  # the moment, not a wait for something
            os.kill(moments.choice(server.worker_pids), signal.SIGKILL)
    deadline = time.monotonic() + 90
    waiting = "SELECT count(*) FROM jobs WHERE action = 'promote' AND ended_at IS NULL"
    while rows(server, waiting)[0][0]:
        assert time.monotonic() < deadline
        time.sleep(1)
    said = "SELECT data FROM job_logs JOIN jobs ON id = job WHERE action = 'promote' AND status <> 'done'"
    assert rows(server, "SELECT status FROM jobs WHERE action = 'promote' AND status <> 'done'") == [], rows(
        server, said
    )
    found = rows(
        server,
        "SELECT repositories.path, tags.name FROM tags JOIN repositories ON repositories.id = tags.repository_id"
        " WHERE repositories.path <> 'admin/dev' ORDER BY 1, 2",
    )
    assert found == [(f"admin/{name}", tag) for name in ("prod", "test") for tag in pushed]
    for source, target in (("dev", "test"), ("test", "prod")):
        ((pushes, promotions),) = rows(
            server,
            f"SELECT (SELECT count(*) FROM events WHERE repository = 'admin/{source}' AND object_type = 'tag'),"
            f" (SELECT count(*) FROM events WHERE repository = 'admin/{source}' AND object_type = 'promotion'"
            f" AND target_name LIKE 'admin/{target}:%')",
        )
        assert promotions == pushes >= PUSHES
