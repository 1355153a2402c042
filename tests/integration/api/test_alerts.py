"""``/api/v0/meta/alerts``: every condition is a real one."""

from __future__ import annotations

import datetime as dt
import shutil
import time

from tests.support.api import Api

PATH = "/api/v0/meta/alerts"


def alerts(api: Api) -> dict[str, dict[str, str]]:
    return {one["id"]: one for one in api.admin.get(PATH).expect(200).json}


def test_where_all_is_well_there_are_none(api: Api):
    assert alerts(api) == {}


def test_they_are_for_administrators_and_auditors(api: Api):
    api.make_users("plain", "looker")
    api.change("UPDATE accounts SET is_auditor = true WHERE name = 'looker'")
    assert api.anonymous.get(PATH).expect(401).codes == ["NOT_AUTHENTICATED"]
    assert api.as_("plain").get(PATH).expect(403).codes == ["NOT_AUTHORIZED"]
    api.as_("looker").get(PATH).expect(200)


def test_a_replica_that_is_silent_and_deletions_that_fail_are_told(api: Api):
    now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    api.change(
        "INSERT INTO replicas (id, node, version, components, started_at, seen_at)"
        " VALUES ('aaaaaaaaaaaa', 'lost.example', '1', '[]', :at, :at)",
        at=now - 60_000,
    )
    api.change(
        "INSERT INTO gc_objects (location, size, delete_after, attempts, last_error)"
        " VALUES ('a', 1, :later, 10, 'StorageError: refused'), ('b', 1, :later, 9, 'StorageError: slow')",
        later=now + 3_600_000,
    )
    try:
        found = alerts(api)
        assert found.keys() == {"replica-aaaaaaaaaaaa", "deletions"}
        assert "lost.example" in found["replica-aaaaaaaaaaaa"]["message"]
        assert found["replica-aaaaaaaaaaaa"]["class"] == "danger"
        message = "1 objects cannot be deleted from the storage: StorageError: refused"
        assert found["deletions"]["message"] == message
        assert (found["deletions"]["kind"], found["deletions"]["facts"]) == (
            "deletions",
            {"count": 1, "error": "StorageError: refused"},
        )
        assert found["replica-aaaaaaaaaaaa"]["facts"]["node"] == "lost.example"
    finally:
        api.change("DELETE FROM replicas WHERE id = 'aaaaaaaaaaaa'")
        api.change("DELETE FROM gc_objects")
    assert alerts(api) == {}


def test_jobs_that_nobody_runs_are_told(api: Api):
    columns = "id, action, status, scheduled_at, updated_at, retries_left, retries_total"
    for number, minutes in ((1, 14), (2, 16)):
        at = int(dt.datetime.now(dt.UTC).timestamp() * 1000) - minutes * 60_000
        api.change(
            f"INSERT INTO jobs ({columns}) VALUES (:id, 'nobody_can', 'waiting', :at, :at, 0, 0)",
            id=str(number),
            at=at,
        )
    try:
        found = alerts(api)
        assert found.keys() == {"jobs"}
        assert found["jobs"]["message"].startswith("1 jobs wait for more than 15 minutes, nobody_can among them")
    finally:
        api.change("DELETE FROM jobs WHERE action = 'nobody_can'")
    assert alerts(api) == {}


def test_a_certificate_that_clients_refuse_is_told(api: Api):
    api.admin.post("/api/v0/meta/settings", {"dtrHost": "elsewhere.example:5443"}).expect(202)
    try:
        found = alerts(api)
        assert [one["class"] for one in found.values()] == ["danger"]
        assert "elsewhere.example" in found["certificate-0"]["message"]
    finally:
        api.admin.post("/api/v0/meta/settings", {"dtrHost": ""}).expect(202)


def test_a_storage_that_is_gone_is_told(api: Api):
    directory = api.server.directory / "blobs"
    away = directory.with_name("away")
    shutil.move(directory, away)
    try:
        deadline = time.monotonic() + 60  # what each worker found last is good for five seconds
        while "unhealthy-storage" not in (found := alerts(api)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert found["unhealthy-storage"]["class"] == "danger"
    finally:
        shutil.move(away, directory)
