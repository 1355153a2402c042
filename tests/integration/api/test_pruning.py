"""``…/pruningPolicies``: made, tried out, worked off, by those who may."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.images import make_image
from tests.support.rooms import annotated

POLICIES = "/api/v0/repositories/acme/app/pruningPolicies"
IMAGE = make_image()
OLD = {"field": "tag", "operator": "sw", "values": ["dev-"]}


@pytest.fixture
def world(api: Api) -> Api:
    """A repository with tags, new for each test."""
    if not api.rows("SELECT id FROM accounts WHERE name = 'acme'"):
        api.make_users("ada", "rita")
        api.make_organization("acme", owners=("ada",), members=("rita",))
        api.make_team("acme/readers", "rita")
    if api.rows("SELECT id FROM repositories WHERE path = 'acme/app' AND deleted_at IS NULL"):
        api.as_("ada").delete("/api/v0/repositories/acme/app").expect(204)
    api.make_repository("acme/app")
    api.grant("acme/readers", "read-only", repository="acme/app")
    client = api.as_("ada").client
    client.push("acme/app", IMAGE, "latest")
    for tag in ("dev-1", "dev-2", "1.0"):
        client.put_manifest("acme/app", annotated(IMAGE, n=tag), tag).expect(201)
    return api


def tags(api: Api) -> list[str]:
    found: list[str] = api.as_("ada").client.call("GET", "/v2/acme/app/tags/list").expect(200).json["tags"]
    return found


def wait_for_tags(api: Api, *expected: str) -> None:
    deadline = time.monotonic() + 60
    while tags(api) != sorted(expected):
        assert time.monotonic() < deadline, tags(api)
        time.sleep(0.1)


def test_a_policy_is_worked_off_when_it_is_made(world: Api):
    ada = world.as_("ada")
    made = ada.post(POLICIES, {"enabled": True, "rules": [OLD]}).expect(201).json
    assert (made["repository"], made["rules"], made["lastPrunedAt"]) == ("acme/app", [OLD], "0001-01-01T00:00:00Z")
    wait_for_tags(world, "1.0", "latest")
    deadline = time.monotonic() + 60
    while ada.get(f"{POLICIES}/{made['id']}").expect(200).json["lastPrunedAt"].startswith("0001"):
        assert time.monotonic() < deadline
    events = ada.get("/api/v0/repositories/acme/app/events", eventType="DELETE").expect(200).json["events"]
    assert {(one["object"]["id"], one["actorType"], one["actor"]) for one in events} == {
        ("dev-1", "policy", made["id"]),
        ("dev-2", "policy", made["id"]),
    }


def test_saved_for_the_future_it_leaves_what_is_there(world: Api):
    ada = world.as_("ada")
    ada.post(POLICIES, {"rules": [OLD]}, initialEvaluation="false").expect(201)
    ada.client.put_manifest("acme/app", annotated(IMAGE, n="new"), "dev-3").expect(201)
    ada.post(POLICIES, {"rules": [{"field": "tag", "operator": "eq", "values": ["1.0"]}]}).expect(201)  # runs both
    wait_for_tags(world, "dev-1", "dev-2", "latest")


def test_switched_off_and_on_it_means_the_tags_that_it_meant(world: Api):
    ada = world.as_("ada")
    # Off when it is made, so that the job of that moment finds nothing to do, however late it comes.
    made = ada.post(POLICIES, {"enabled": False, "rules": [OLD]}, initialEvaluation="false").expect(201).json
    assert not made["since"].startswith("0001")
    ada.client.put_manifest("acme/app", annotated(IMAGE, n="dev-3"), "dev-3").expect(201)
    trial = {"rules": [OLD], "since": made["since"]}
    (tried,) = ada.post(f"{POLICIES}/test", trial, newest=1, explain="true").expect(200).json
    assert tried["name"] == "dev-3"
    assert [one["name"] for one in ada.post(f"{POLICIES}/test", trial).expect(200).json] == ["dev-3"]
    for enabled in (True, False, True):
        changed = ada.put(f"{POLICIES}/{made['id']}", {"enabled": enabled}, initialEvaluation="false").expect(200)
        assert (changed.json["since"], changed.json["enabled"]) == (made["since"], enabled)
    wait_for_tags(world, "1.0", "dev-1", "dev-2", "latest")
    changed = ada.put(f"{POLICIES}/{made['id']}", {"rules": [OLD]}, initialEvaluation="false").expect(200)
    assert dt.datetime.fromisoformat(changed.json["since"]) > dt.datetime.fromisoformat(made["since"])
    changed = ada.put(f"{POLICIES}/{made['id']}", {"enabled": False}).expect(200)
    assert changed.json["since"].startswith("0001")


def test_trying_out_changes_nothing_and_explains(world: Api):
    ada = world.as_("ada")
    meant = {"rules": [OLD], "keep": 1}
    answer = ada.post(f"{POLICIES}/test", meant, pageSize=1, count="true").expect(200)
    assert [one["name"] for one in answer.json] == ["dev-1"]
    assert (answer.headers["x-resource-count"], "x-next-page-start" in answer.headers) == ("1", False)
    answer = ada.post(f"{POLICIES}/test", {"rules": [OLD]}, pageSize=1).expect(200)
    rest = ada.post(f"{POLICIES}/test", {"rules": [OLD]}, pageStart=answer.headers["x-next-page-start"]).expect(
        200
    )
    assert [one["name"] for one in (*answer.json, *rest.json)] == ["dev-1", "dev-2"]
    explained = ada.post(f"{POLICIES}/test", {"rules": [OLD]}, explain="true", pageSize=100).expect(200).json
    assert {one["name"]: (one["prune"], one["answer"], one["decidedBy"]) for one in explained} == {
        "1.0": (False, "no", 0),
        "dev-1": (True, "yes", None),
        "dev-2": (True, "yes", None),
        "latest": (False, "no", 0),
    }
    explained = ada.post(f"{POLICIES}/test", meant, explain="true", pageSize=100).expect(200).json
    assert [one["name"] for one in explained if one["keptBy"] == "newest"] == ["dev-2"]
    unsure = {"field": "vulnerability_all", "operator": "gt", "values": ["9"]}
    explained = ada.post(f"{POLICIES}/test", {"rules": [OLD, unsure]}, explain="true").expect(200).json
    assert {one["name"]: (one["answer"], one["waitsFor"]) for one in explained} == {
        "1.0": ("no", ""),
        "dev-1": ("waits", "scan"),
        "dev-2": ("waits", "scan"),
        "latest": ("no", ""),
    }
    assert len(tags(world)) == 4


def test_a_policy_works_when_it_is_told_so_also_switched_off(world: Api):
    ada = world.as_("ada")
    made = ada.post(POLICIES, {"enabled": False, "rules": [OLD], "keep": 1}).expect(201).json
    next_run = dt.datetime.fromisoformat(made["nextRun"])
    assert (next_run.minute % 15, next_run.second, made["schedule"]) == (0, 0, "0 */15 * * * *")
    world.as_("rita").post(f"{POLICIES}/{made['id']}/run").expect(403)
    assert ada.post(f"{POLICIES}/none/run").expect(404).codes == ["NO_SUCH_PRUNING_POLICY"]
    ada.post(f"{POLICIES}/{made['id']}/run").expect(202)
    wait_for_tags(world, "1.0", "dev-2", "latest")
    deadline = time.monotonic() + 60
    while (now := ada.get(f"{POLICIES}/{made['id']}").expect(200).json)["deleted"] == 0:
        assert time.monotonic() < deadline
    assert (now["newest"], now["signed"], now["protected"], now["waiting"]) == (1, 0, 0, 0)
    assert world.admin.get(f"/api/v0/jobs/{now['lastJob']}").expect(200).json["action"] == "tag_prune"


def test_the_newest_are_tried_out_first(world: Api):
    ada = world.as_("ada")
    explained = ada.post(f"{POLICIES}/test", {"rules": [OLD], "keep": 1}, explain="true", newest=3).expect(200)
    assert [(one["name"], one["prune"], one["keptBy"], one["found"]) for one in explained.json] == [
        ("1.0", False, "", ["1.0"]),
        ("dev-2", False, "newest", []),
        ("dev-1", True, "", []),
    ]
    assert "x-next-page-start" not in explained.headers
    ada.post(f"{POLICIES}/test", {"rules": [OLD]}, newest=501).expect(400)


def test_policies_are_changed_listed_and_deleted(world: Api):
    ada = world.as_("ada")
    ids = sorted(ada.post(POLICIES, {"enabled": False, "rules": [OLD]}).expect(201).json["id"] for _ in range(3))
    answer = ada.get(POLICIES, pageSize=2, count="true").expect(200)
    assert [one["id"] for one in answer.json] == ids[:2]
    assert (answer.headers["x-next-page-start"], answer.headers["x-resource-count"]) == (ids[2], "3")
    changed = ada.put(f"{POLICIES}/{ids[0]}", {"keep": 5}).expect(200).json
    assert (changed["keep"], changed["rules"], changed["enabled"]) == (5, [OLD], False)
    assert len(tags(world)) == 4  # it is switched off
    ada.put(f"{POLICIES}/{ids[0]}", {"enabled": True, "keep": 0}).expect(200)
    wait_for_tags(world, "1.0", "latest")
    for _ in range(2):
        ada.delete(f"{POLICIES}/{ids[0]}").expect(204)
    for answer in (ada.get(f"{POLICIES}/{ids[0]}"), ada.put(f"{POLICIES}/{ids[0]}", {})):
        assert answer.expect(404).json["errors"][0]["code"] == "NO_SUCH_PRUNING_POLICY"


@pytest.mark.parametrize(
    "form",
    [
        {"rules": []},
        {"rules": [{"field": "colour", "operator": "eq", "values": ["red"]}]},
        {"rules": [OLD], "keep": -1},
        {"rules": [{"any": []}]},
    ],
)
def test_a_policy_that_cannot_be_is_refused(world: Api, form: dict[str, Any]):
    ada = world.as_("ada")
    for address in (POLICIES, f"{POLICIES}/test"):
        error = ada.post(address, form).expect(404).json["errors"][0]
        assert (error["code"], bool(error["detail"])) == ("INVALID_PRUNING_POLICY", True)


def test_readers_look_and_do_nothing(world: Api):
    made = world.as_("ada").post(POLICIES, {"enabled": False, "rules": [OLD]}).expect(201).json
    rita = world.as_("rita")
    assert [one["id"] for one in rita.get(POLICIES).expect(200).json] == [made["id"]]
    rita.post(POLICIES, {"rules": [OLD]}).expect(403)
    rita.put(f"{POLICIES}/{made['id']}", {"enabled": True}).expect(403)
    rita.delete(f"{POLICIES}/{made['id']}").expect(403)
