"""Collection as jobs: what it frees beside blobs, what a dry run leaves, and how it rests and ends in time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.client import settle
from tests.support.images import make_image

from dtr.app import Application
from dtr.jobs import Run

JOBS = "/api/v0/jobs"
LIVE = "/api/v0/meta/settings"
LONG_AGO = 1_000
PROMPT = {"grace": "1ms", "unsafe": "true"}


@pytest.fixture(scope="module")
def admin(api: Api) -> User:
    api.make_organization("acme")
    api.stop_schedules()
    return api.admin


def done(admin: User, action: str, **parameters: str) -> list[str]:
    """Have it done, and what it said."""
    job = admin.post(JOBS, {"action": action, "parameters": parameters}).expect(202).json["id"]
    deadline = time.monotonic() + 60
    while (status := admin.get(f"{JOBS}/{job}").json["status"]) not in {"done", "errored"}:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    lines = admin.get(f"{JOBS}/{job}/logs").json
    assert status == "done", lines
    return [json.loads(one["data"])["msg"] for one in lines]


def freed(lines: list[str]) -> dict[str, int]:
    """The numbers of the last line."""
    _, _, text = lines[-1].partition("freed: ")
    return {name: int(number) for name, _, number in (one.rpartition(" ") for one in text.split(", "))}


def make_old_things(api: Api, admin: User) -> None:
    """A session, tokens, an upload, an image and objects whose time is over; the collector rests meanwhile."""
    admin.post(LIVE, {"garbageCollection": "off"}).expect(202)
    admin.post(
        LIVE,
        {
            "jobHistoryCompactionEnabled": True,
            "jobHistoryToKeep": 1,
            "repoEventHistoryCompactionEnabled": True,
            "repoEventHistoryToKeep": 1,
        },
    ).expect(202)
    settle(api.server)
    account = api.rows("SELECT id FROM accounts WHERE name = 'admin'")[0][0]
    for number in range(3):
        api.change(
            "INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at)"
            " VALUES (:id, :account, 1, 1, :long_ago)",
            id=f"session{number}",
            account=account,
            long_ago=LONG_AGO,
        )
    now = int(time.time() * 1000)
    day = 86_400_000
    for token, kind, is_active, made, ends in (
        ("expired", "access", "true", 1, now - 31 * day),
        ("just expired", "access", "true", 1, now - 29 * day),
        ("switched off", "access", "false", 1, None),
        ("revoked", "refresh", "false", 1, None),
        ("just revoked", "refresh", "false", now - 2 * day, None),
        ("in use", "refresh", "true", 1, None),
    ):
        api.change(
            "INSERT INTO tokens (id, account_id, kind, label, is_active, created_at, expires_at)"
            f" VALUES (:id, :account, :kind, 'x', {is_active}, :made, :ends)",
            id=token,
            account=account,
            kind=kind,
            made=made,
            ends=ends,
        )
    api.make_repository("acme/old")
    image = make_image(layers=1, size=80_000)
    admin.client.push("acme/old", image, "latest")
    admin.client.call("DELETE", "/v2/acme/old/manifests/latest").expect(202)
    admin.client.call("PATCH", admin.client.start_upload("acme/old"), b"begun").expect(202)
    api.change("UPDATE uploads SET expires_at = 1")
    api.change(
        "INSERT INTO gc_objects (location, size, delete_after, attempts) VALUES ('20260101/0000/gone', 7, 1, 0)"
    )


def contents(api: Api) -> dict[str, Any]:
    """Everything that a collection could delete."""
    queries = {
        table: f"SELECT * FROM {table} ORDER BY 1, 2"
        for table in ("sessions", "tokens", "uploads", "gc_objects", "manifests", "repository_blobs", "blobs")
    }
    queries["events"] = "SELECT id FROM events WHERE object_type <> 'job' ORDER BY id"
    queries["jobs"] = "SELECT count(*) FROM jobs WHERE parameters NOT LIKE '%dryRun%'"
    return {name: api.rows(query) for name, query in queries.items()}


def test_collection_forgets_what_is_old_and_a_dry_run_changes_nothing(api: Api, admin: User):
    make_old_things(api, admin)
    before = contents(api)
    assert "switched off" in done(admin, "onlinegc", dryRun="true")[0]
    assert "switched off" in done(admin, "onlinegc", **PROMPT, off="dryRun")[0]
    after = contents(api)
    assert {name for name in before if before[name] != after[name]} <= {"jobs"}
    admin.post(LIVE, {"garbageCollection": "scheduled"}).expect(202)
    for action in ("onlinegc", "onlinegc_metadata", "onlinegc_blobs", "onlinegc_events", "onlinegc_joblogs"):
        said = "\n".join(done(admin, action, **PROMPT, dryRun="true"))
        assert "dry run" in said
        assert "1 manifests" in said
        assert "1 uploads are over; 1 objects of 7 bytes" in said
        assert "3 sessions and 2 tokens" in said
    assert contents(api) == before | {"jobs": after["jobs"], "events": contents(api)["events"]}
    assert len(contents(api)["events"]) >= len(before["events"])
    time.sleep(2.5)  # scheduled: by itself, nothing happens
    assert contents(api)["uploads"] == before["uploads"]

    numbers = freed(done(admin, "onlinegc", **PROMPT))
    for _ in range(3):  # what the manifest let go, and what the upload left
        api.change("UPDATE gc_objects SET delete_after = 1")
        more = freed(done(admin, "onlinegc", **PROMPT))
        numbers = {name: number + more[name] for name, number in numbers.items()}
    assert (numbers["sessions"], numbers["tokens"], numbers["uploads"], numbers["manifests"]) == (3, 2, 1, 1)
    assert numbers["blobs"] == 2
    assert numbers["objects"] >= 3
    assert numbers["bytes at the storage"] > 80_000
    assert numbers["jobs"] > 0
    assert numbers["events"] > 0
    kept = {row[0] for row in api.rows("SELECT id FROM tokens")}
    assert kept >= {"just expired", "switched off", "just revoked", "in use"}
    assert not kept & {"expired", "revoked"}
    assert api.rows("SELECT count(*) FROM blobs") == [(0,)]
    told = api.rows("SELECT object_id FROM events WHERE object_type = 'token' AND type = 'DELETE' ORDER BY 1")
    assert told == [("expired",), ("revoked",)]
    admin.post(LIVE, {"garbageCollection": "sometimes"}).expect(400)
    admin.post(LIVE, {"garbageCollection": "continuous"}).expect(202)


def test_a_collection_whose_time_is_nearly_over_leaves_the_rest_to_the_next(api: Api, admin: User):
    async def collect(application: Application, deadline: int) -> Run:
        actions = application._worker()._actions
        run = Run("job", "onlinegc_metadata", PROMPT, deadline)
        if deadline:
            time.sleep(deadline / 1000)
        await actions["onlinegc_metadata"](run)
        return run

    admin.post(LIVE, {"garbageCollection": "scheduled"}).expect(202)
    settle(api.server)
    api.make_repository("acme/much")
    admin.client.push_blob("acme/much", b"x" * 10)
    short = api.server.do(lambda application: collect(application, 20))
    assert any("its time is over" in line.data for line in short.lines), short.lines
    assert api.rows("SELECT count(*) FROM repository_blobs") == [(1,)]
    whole = api.server.do(lambda application: collect(application, 0))
    assert not any("its time is over" in line.data for line in whole.lines), whole.lines
    assert api.rows("SELECT count(*) FROM repository_blobs") == [(0,)]
    admin.post(LIVE, {"garbageCollection": "continuous"}).expect(202)
