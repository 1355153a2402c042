"""Every push is told once to each webhook, whenever all processes are killed."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.receiver import Reply, receiving
from tests.support.rooms import annotated
from tests.support.server import Server
from tests.support.wire import wait_until

pytestmark = pytest.mark.e2e

PATIENCE = 180
IMAGE = make_image()
DELIVERIES = "SELECT id, event_id, status FROM webhook_deliveries"


@pytest.mark.parametrize("database", [pytest.param("sqlite", marks=pytest.mark.thorough), "postgresql"])
def test_each_push_is_one_delivery_whatever_is_killed(make_server: Callable[..., Server], database: str) -> None:
    server = make_server({"webhooks.allowed_networks": "127.0.0.1/32"}, database=database, workers=2)
    server.make_repository("admin/app")
    with receiving() as receiver:
        receiver.reply = lambda _: Reply(seconds=0.05)
        api = Api(server)
        form = {"key": "admin/app", "endpoint": receiver.url(host="127.0.0.1"), "tlsCert": ""}
        for kind in ("TAG_PUSH", "MANIFEST_PUSH"):
            api.admin.post(
                "/api/v0/webhooks", {**form, "type": kind, "skipTLSVerification": True, "secret": "sesame"}
            ).expect(200)
        api.admin.client.push("admin/app", IMAGE, "first")
        for number in range(2):
            pushed: list[str] = []
            pushes = threading.Thread(target=_push, args=(server, f"v{number}-", pushed))
            pushes.start()
            wait_until(lambda: len(pushed) >= 5, PATIENCE)  # noqa: B023
            time.sleep(0.3)  # the moment, not a wait for something: some are told, and some are not
            server.kill()
            pushes.join()
            server.start()
        events = api.rows(
            "SELECT id FROM events WHERE type IN ('CREATE', 'UPDATE') AND object_type IN ('tag', 'manifest')"
        )
        assert len(events) > 10
        deadline = time.monotonic() + PATIENCE
        while len(found := api.rows(DELIVERIES)) < len(events) or {row[2] for row in found} != {"delivered"}:
            assert time.monotonic() < deadline, (len(events), found)
            time.sleep(0.2)
        # One for each event, and never a second first job of one; it may come twice when it was killed in between.
        assert sorted(row[1] for row in found) == sorted(row[0] for row in events)
        jobs = api.rows("SELECT parameters FROM jobs WHERE action = 'webhook' AND retry_from = ''")
        assert len(jobs) == len(set(jobs))
        assert {one.headers["x-dtr-delivery"] for one in receiver.received} == {row[0] for row in found}


def _push(server: Server, prefix: str, pushed: list[str]) -> None:
    client = Client(server)
    try:
        for number in range(15):
            tag = f"{prefix}{number}"
            client.put_manifest("admin/app", annotated(IMAGE, n=tag), tag).expect(201)
            pushed.append(tag)
    except (OSError, http.client.HTTPException):
        pass
    finally:
        client.close()
