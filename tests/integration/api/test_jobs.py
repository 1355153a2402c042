"""``/api/v0/jobs``, ``crons``, ``action_configs``, ``workers``: what administrators have done for them."""

from __future__ import annotations

import datetime as dt
import json
import time
from contextlib import closing
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.images import digest_of, make_image

JOBS = "/api/v0/jobs"
FUTURE = "2100-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def admin(api: Api) -> User:
    return api.admin


def submit(admin: User, action: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = admin.post(JOBS, {"action": action, **more}).expect(202).json
    return made


def ended(admin: User, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (found := admin.get(f"{JOBS}/{job}").expect(200).json)["status"] not in {"done", "errored", "canceled"}:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def log(admin: User, job: str, **query: Any) -> list[str]:
    lines = admin.get(f"{JOBS}/{job}/logs", **query).expect(200).json
    assert [one["lineNum"] for one in lines] == list(range(query.get("offset", 0), len(lines)))
    return [json.loads(one["data"])["msg"] for one in lines]


def problem(answer: Any, code: str) -> str:
    (error,) = answer.json["errors"]
    assert error["code"] == code
    return str(error["detail"])


def test_a_job_is_queued_runs_and_is_listed_with_its_log(admin: User):
    made = submit(admin, "sleep", parameters={"seconds": "0"}, retries=1, deadline="1h30m", stopTimeout="5s")
    assert (made["status"], made["retriesTotal"], made["deadline"], made["stopTimeout"]) == (
        "waiting", 1, "1h30m", "5s",
    )  # fmt: skip
    found = ended(admin, made["id"])
    assert (found["status"], found["retryFromID"]) == ("done", "")
    (worker,) = admin.get("/api/v0/workers").expect(200).json["workers"]
    assert (found["workerID"], worker["status"]) == (worker["id"], "alive")
    listed = admin.get(JOBS, action="sleep", worker=worker["id"], limit=1000).expect(200).json["jobs"]
    assert made["id"] in {one["id"] for one in listed}
    assert admin.get(JOBS, action="sleep", worker="nobody").expect(200).json == {"jobs": []}


def test_lists_are_paged_by_offset_latest_first(admin: User):
    made = [submit(admin, "false", scheduledAt=f"2100-01-0{day}T00:00:00Z")["id"] for day in (1, 3, 2)]
    answer = admin.get(JOBS, action="false", limit=2).expect(200)
    assert [one["id"] for one in answer.json["jobs"]] == [made[1], made[2]]
    assert int(answer.headers["x-resource-count"]) >= 3
    answer = admin.get(JOBS, action="false", start=2, limit=1).expect(200)
    assert [one["id"] for one in answer.json["jobs"]] == [made[0]]
    assert admin.get(JOBS, action="false", running="true").expect(200).json == {"jobs": []}
    for job in made:
        admin.delete(f"{JOBS}/{job}").expect(204)


def test_a_job_that_fails_says_why_and_one_that_is_cancelled_stops(admin: User):
    failed = ended(admin, submit(admin, "false")["id"])
    assert failed["status"] == "errored"
    assert log(admin, failed["id"]) == ["this action fails always"]
    running = submit(admin, "sleep", parameters={"seconds": "600"})["id"]
    deadline = time.monotonic() + 60
    while admin.get(f"{JOBS}/{running}").json["progress"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert running in {one["id"] for one in admin.get(JOBS, running="true", limit=1000).json["jobs"]}
    admin.post(f"{JOBS}/{running}/cancel").expect(204)
    assert ended(admin, running)["status"] == "canceled"
    admin.delete(f"{JOBS}/{running}").expect(204)
    assert problem(admin.get(f"{JOBS}/{running}").expect(404), "NO_SUCH_JOB") == running
    gone = f"{JOBS}/{running}"
    for call in (admin.delete(gone), admin.post(f"{gone}/cancel"), admin.get(f"{gone}/logs")):
        problem(call.expect(404), "NO_SUCH_JOB")
    problem(admin.get(f"{gone}/logs", stream="true").expect(404), "NO_SUCH_JOB")


def test_a_log_is_streamed_until_the_job_ends(admin: User):
    job = submit(admin, "onlinegc")["id"]
    answer = admin.get(f"{JOBS}/{job}/logs", stream="true").expect(200)
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [one["lineNum"] for one in lines] == list(range(len(lines)))
    assert [json.loads(one["data"])["msg"] for one in lines] == log(admin, job)
    assert len(lines) >= 4
    assert log(admin, job, limit=1) == log(admin, job)[:1]


def test_a_log_that_is_streamed_ends_with_a_job_that_is_deleted(api: Api, admin: User):
    job = submit(admin, "sleep", parameters={"seconds": "600"})["id"]
    with closing(admin.client.connect()) as connection:
        headers = {"Authorization": admin.client.basic()}
        connection.request("GET", f"{JOBS}/{job}/logs?stream=true", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.readline())["lineNum"]) == (200, 0)
        admin.delete(f"{JOBS}/{job}").expect(204)
        assert answer.read() == b""
    assert "Traceback" not in api.server.log


def test_a_log_is_streamed_while_the_job_runs(admin: User):
    job = submit(admin, "sleep", parameters={"seconds": "600"})["id"]
    path = f"{JOBS}/{job}/logs?stream=true"
    with closing(admin.client.connect()) as connection:
        connection.request("GET", path, headers={"Authorization": admin.client.basic()})
        answer = connection.getresponse()
        first = json.loads(answer.readline())
        assert (first["lineNum"], json.loads(first["data"])["msg"]) == (0, "sleeps for 600 seconds")
        assert admin.get(f"{JOBS}/{job}").json["status"] == "running"
        admin.post(f"{JOBS}/{job}/cancel").expect(204)
        (last,) = map(json.loads, answer.read().splitlines())
        assert (last["lineNum"], json.loads(last["data"])["level"]) == (1, "warning")


def test_maps_without_entries_may_be_null(admin: User):
    made = submit(admin, "sleep", parameters=None, capacityMap=None, scheduledAt=FUTURE)
    assert (made["parameters"], made["capacityMap"]) == ({}, {})
    admin.delete(f"{JOBS}/{made['id']}").expect(204)


@pytest.mark.parametrize(
    "form",
    [
        {"action": "no_such_action"},
        {"action": "sleep", "retries": -1},
        {"action": "sleep", "deadline": "soon"},
        {"action": "sleep", "stopTimeout": "1d"},
        {"action": "sleep", "scheduledAt": "tomorrow"},
        {"action": "sleep", "scheduledAt": "9999-12-31T23:59:59-12:00"},
        {"action": "sleep", "scheduledAt": "0001-01-01T00:00:00+12:00"},
        {"action": "sleep", "capacityMap": {"scan": -1}},
    ],
)
def test_a_job_that_cannot_be_is_refused(admin: User, form: dict[str, Any]):
    assert problem(admin.post(JOBS, form).expect(400), "INVALID_JOB")
    admin.get(JOBS).expect(200)


def test_an_action_has_one_schedule(admin: User):
    crons = "/api/v0/crons"
    form = {"action": "onlinegc", "schedule": "0 0 1 * * 6", "deadline": "2h", "parameters": {"dryRun": "true"}}
    made = admin.post(crons, form).expect(202).json
    moment = time.strptime(made["nextRun"], "%Y-%m-%dT%H:%M:%SZ")
    assert (moment.tm_hour, moment.tm_min, moment.tm_wday) == (1, 0, 5)
    again = admin.post(crons, form | {"schedule": "@daily"}).expect(202).json
    assert (again["id"], again["schedule"], again["parameters"]) == (made["id"], "@daily", {"dryRun": "true"})
    assert admin.get(f"{crons}/onlinegc").expect(200).json == again
    assert again in admin.get(crons).expect(200).json["crons"]
    assert len([one for one in admin.get(crons).json["crons"] if one["action"] == "onlinegc"]) == 1
    problem(admin.post(crons, form | {"schedule": "* * *"}).expect(400), "INVALID_JOB")
    problem(admin.post(crons, form | {"action": "nothing"}).expect(400), "INVALID_JOB")
    admin.delete(f"{crons}/onlinegc").expect(204)
    for call in (admin.get(f"{crons}/onlinegc"), admin.delete(f"{crons}/onlinegc")):
        problem(call.expect(404), "NO_SUCH_CRON")


def test_an_action_can_be_configured(admin: User):
    configs = "/api/v0/action_configs"
    made = admin.post(configs, {"action": "sleep", "parameters": {"seconds": "0"}}).expect(202).json
    assert admin.get(configs).expect(200).json == {"actionConfigs": [made]}
    assert admin.get(f"{configs}/sleep").expect(200).json == made
    assert ended(admin, submit(admin, "sleep")["id"])["status"] == "done"  # else it would sleep a minute
    problem(admin.post(configs, {"action": "nothing"}).expect(400), "INVALID_JOB")
    admin.delete(f"{configs}/sleep").expect(204)
    for call in (admin.get(f"{configs}/sleep"), admin.delete(f"{configs}/sleep")):
        problem(call.expect(404), "NO_SUCH_ACTION_CONFIG")


def test_a_worker_has_the_capacity_that_it_is_given(admin: User):
    (worker,) = admin.get("/api/v0/workers").expect(200).json["workers"]
    waiting = submit(admin, "sleep", parameters={"seconds": "0"}, capacityMap={"scan": 1})["id"]
    assert ended(admin, submit(admin, "sleep", parameters={"seconds": "0"})["id"])["status"] == "done"
    assert admin.get(f"{JOBS}/{waiting}").json["status"] == "waiting"
    admin.post(f"/api/v0/workers/{worker['id']}/capacity", {"capacityMap": {"scan": 1}}).expect(202)
    assert ended(admin, waiting)["status"] == "done"
    problem(admin.post("/api/v0/workers/nobody/capacity", {"capacityMap": {}}).expect(404), "NO_SUCH_WORKER")


# --- collecting -----------------------------------------------------------------------------------------------


def test_collection_frees_what_nothing_names_and_says_so(api: Api, admin: User):
    api.make_organization("acme")
    api.make_repository("acme/app")
    image, kept = make_image(layers=2, size=30_000), make_image(layers=1, size=20_000)
    admin.client.push("acme/app", image, "old")
    admin.client.push("acme/app", kept, "new")
    admin.client.call("DELETE", "/v2/acme/app/manifests/old").expect(202)
    # Before its time, only with the word for it: a push under way may have been told that it is there.
    hasty = ended(admin, submit(admin, "onlinegc", parameters={"grace": "1s"})["id"])
    assert hasty["status"] == "errored"
    assert "10m" in log(admin, hasty["id"])[-1]
    unsafe = {"grace": "1ms", "unsafe": "true"}
    dry = ended(admin, submit(admin, "onlinegc", parameters=unsafe | {"dryRun": "true"})["id"])
    assert any("are due" in line for line in log(admin, dry["id"]))
    assert dry["result"]["manifests"] == 1
    assert hasty["result"] == {}
    admin.client.call("GET", f"/v2/acme/app/manifests/{image.digest}").expect(200)
    api.change("UPDATE manifests SET review_at = 1 WHERE review_at IS NOT NULL")
    for _ in range(3):  # manifests first, then what they let go
        api.change("UPDATE repository_blobs SET review_at = 1 WHERE review_at IS NOT NULL")
        done = ended(admin, submit(admin, "onlinegc", parameters=unsafe)["id"])
        assert done["status"] == "done", log(admin, done["id"])
        assert f"bytes of blobs {done['result']['blobBytes']}," in log(admin, done["id"])[-1]
    admin.client.call("GET", f"/v2/acme/app/manifests/{image.digest}").expect(404)
    admin.client.get_manifest("acme/app", "new").expect(200)
    for content in kept.blobs:
        assert admin.client.call("GET", f"/v2/acme/app/blobs/{digest_of(content)}").expect(200).body == content
    assert api.rows("SELECT count(*) FROM manifests") == [(1,)]


def test_an_audit_as_a_job_finds_what_is_damaged(api: Api, admin: User):
    whole = ended(admin, submit(admin, "fsck", parameters={"content": "true"})["id"])
    assert whole["status"] == "done"
    assert "blobs" in log(admin, whole["id"])[-1]
    assert whole["result"]["damage"] == 0
    assert whole["result"]["blobs"] > 0
    api.change("DELETE FROM blob_contents")
    damaged = ended(admin, submit(admin, "fsck")["id"])
    assert damaged["status"] == "errored"
    assert damaged["result"]["damage"] > 0
    limits = {"content": "true", "repair": "true", "rate": "1000000", "time": "1h", "resume": "true", "after": "d"}
    assert ended(admin, submit(admin, "fsck", parameters=limits)["id"])["status"] == "errored"
    marked = ended(admin, submit(admin, "fsck", parameters=limits)["id"])
    assert marked["status"] == "done"
    assert "known to be missing" in log(admin, marked["id"])[-1]
    for wrong in ({"rate": "0"}, {"rate": "-1"}, {"rate": "1" * 20}, {"time": "soon"}):
        refused = ended(admin, submit(admin, "fsck", parameters=wrong)["id"])
        assert refused["status"] == "errored"
        assert f"{next(iter(wrong))} is" in log(admin, refused["id"])[-1]


def test_an_import_as_a_job_refuses_what_it_cannot_do(admin: User):
    for parameters, text in (
        ({}, "there is no tree of a registry at default:"),
        ({"storage": "other"}, "there is no storage called 'other'"),
        ({"names": "a=b,c"}, "'c' is not OLD=NEW"),
        ({"visibility": "secret"}, "the visibility is public or private"),
    ):
        refused = ended(admin, submit(admin, "import_storage", parameters=parameters)["id"])
        assert refused["status"] == "errored"
        assert text in log(admin, refused["id"])[-1]


def test_old_jobs_are_forgotten_when_that_is_switched_on(admin: User):
    settings = "/api/v0/meta/settings"
    for _ in range(3):
        ended(admin, submit(admin, "sleep", parameters={"seconds": "0"})["id"])
    admin.post(settings, {"jobHistoryCompactionEnabled": True, "jobHistoryToKeep": 2}).expect(202)
    assert admin.get(settings).json["jobHistoryToKeep"] == 2
    ended(admin, submit(admin, "onlinegc_joblogs")["id"])
    listed = admin.get(JOBS, limit=1000).json["jobs"]
    finished = [one for one in listed if one["status"] != "waiting" and one["cause"] == "account"]
    assert len(finished) <= 3  # two, and the one that deleted the others
    problem(admin.post(settings, {"jobHistoryMaxAge": "3 days"}).expect(400), "INVALID_SETTINGS")


def test_who_does_not_administer_does_nothing_here(api: Api):
    api.make_users("plain")
    plain = api.as_("plain")
    for answer in (plain.get(JOBS), plain.post(JOBS, {"action": "sleep"}), plain.get("/api/v0/workers")):
        problem(answer.expect(403), "NOT_AUTHORIZED")


# --- what people look for -------------------------------------------------------------------------------------


def test_what_jobs_can_do_is_listed_with_its_parameters(admin: User):
    actions = {one["action"]: one for one in admin.get("/api/v0/actions").expect(200).json["actions"]}
    assert actions["sleep"] == {
        "action": "sleep",
        "description": "sleeps for `seconds` (60), to try the queue",
        "parameters": [{"name": "seconds", "kind": "number"}],
    }
    assert {"name": "dryRun", "kind": "flag"} in actions["onlinegc"]["parameters"]
    refused = admin.post(JOBS, {"action": "nothing"}).expect(400)
    assert all(name in problem(refused, "INVALID_JOB") for name in actions)


def test_jobs_are_counted_and_listed_by_state_in_pages(admin: User):
    failed = [ended(admin, submit(admin, "false")["id"])["id"] for _ in range(3)]
    waiting = submit(admin, "false", scheduledAt=FUTURE)["id"]
    counts = admin.get(f"{JOBS}/counts", action="false").expect(200).json
    assert (counts["waiting"], counts["running"]) == (1, 0)
    assert counts["errored"] >= 3
    (listed,) = admin.get(JOBS, state="waiting", action="false").expect(200).json["jobs"]
    assert listed["id"] == waiting
    found, start = [], None
    while True:
        answer = admin.get(JOBS, state="errored", action="false", limit=2, pageStart=start).expect(200)
        assert int(answer.headers["x-resource-count"]) == counts["errored"]
        found += [one["id"] for one in answer.json["jobs"]]
        start = answer.headers.get("x-next-page-start")
        if not start:
            break
        assert len(answer.json["jobs"]) == 2
    assert len(found) == len(set(found)) == counts["errored"]
    assert set(failed) <= set(found)
    assert admin.get(JOBS, pageStart="yesterday").expect(400).json["errors"][0]["code"] == "INVALID_PARAMETERS"
    assert admin.get(JOBS, state="gone").expect(400).json["errors"][0]["code"] == "INVALID_PARAMETERS"
    admin.delete(f"{JOBS}/{waiting}").expect(204)


def test_what_ended_is_tried_again_and_points_to_the_first(admin: User):
    made = submit(admin, "false", parameters={"why": "to see it"})
    assert (made["cause"], made["causedBy"], made["startedAt"], made["endedAt"]) == (
        "account",
        "admin",
        None,
        None,
    )
    over = ended(admin, made["id"])
    moments = [made["scheduledAt"], over["startedAt"], over["endedAt"]]
    assert moments == sorted(moments, key=dt.datetime.fromisoformat)
    again = admin.post(f"{JOBS}/{made['id']}/retry").expect(202).json
    assert (again["retryFromID"], again["parameters"]) == (made["id"], {"why": "to see it"})
    ended(admin, again["id"])
    third = admin.post(f"{JOBS}/{again['id']}/retry").expect(202).json
    tries = admin.get(JOBS, triesOf=made["id"]).expect(200).json["jobs"]
    assert {one["id"] for one in tries} == {made["id"], again["id"], third["id"]}
    waits = submit(admin, "false", scheduledAt=FUTURE)["id"]
    problem(admin.post(f"{JOBS}/{waits}/retry").expect(409), "JOB_NOT_ENDED")
    admin.delete(f"{JOBS}/{waits}").expect(204)
    problem(admin.post(f"{JOBS}/{waits}/retry").expect(404), "NO_SUCH_JOB")


def test_a_log_is_read_from_its_end_and_by_what_is_serious(admin: User):
    job = ended(admin, submit(admin, "sleep", parameters={"seconds": "0"})["id"])["id"]
    failed = ended(admin, submit(admin, "false")["id"])["id"]
    logs = f"{JOBS}/{job}/logs"
    assert [one["lineNum"] for one in admin.get(logs, tail=1).expect(200).json] == [0]
    assert admin.get(logs, level="warning").expect(200).json == []
    assert admin.get(f"{JOBS}/{failed}/logs", level="error", tail=5).expect(200).json
    assert admin.get(f"{JOBS}/{failed}/logs", level="error", stream=True).expect(200).body.count(b"\n") == 1


def test_a_worker_says_how_much_it_does(admin: User):
    running = submit(admin, "sleep", parameters={"seconds": "600"})["id"]
    deadline = time.monotonic() + 60
    while (worker := admin.get("/api/v0/workers").expect(200).json["workers"][0])["running"].get("sleep") != 1:
        assert time.monotonic() < deadline, worker
        time.sleep(0.05)
    assert worker["places"] >= 1
    assert worker["usedCapacity"] == {}
    admin.delete(f"{JOBS}/{running}").expect(204)
