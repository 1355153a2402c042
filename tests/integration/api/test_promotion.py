"""``…/promotion``: by those who may, with what belongs to the image, as far as the target allows."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.images import make_artifact, make_image, make_index
from tests.support.rooms import annotated

IMAGE = make_image()
INDEX = make_index(IMAGE, make_image())
SIGNATURE = make_artifact("application/x.signature", b"signed", subject=INDEX)
DEV = "/api/v0/repositories/acme/dev"
PROD = "/api/v0/repositories/acme/prod"


@pytest.fixture
def world(api: Api) -> Api:
    """A repository with an index that is signed, and an empty one; new for each test."""
    if not api.rows("SELECT id FROM accounts WHERE name = 'acme'"):
        api.make_users("ada", "rita", "will")
        api.make_organization("acme", owners=("ada",), members=("rita", "will"))
        api.make_team("acme/readers", "rita", "will")
        api.make_team("acme/writers", "will")
    for path in ("acme/dev", "acme/prod"):
        if api.rows(f"SELECT id FROM repositories WHERE path = '{path}' AND deleted_at IS NULL"):
            api.as_("ada").delete(f"/api/v0/repositories/{path}").expect(204)
        api.make_repository(path)
    api.grant("acme/readers", "read-only", repository="acme/dev")
    api.grant("acme/writers", "read-write", repository="acme/prod")
    client = api.as_("ada").client
    client.push("acme/dev", INDEX, "latest")
    client.push("acme/dev", SIGNATURE)
    return api


def to(tag: str, repository: str = "acme/prod") -> dict[str, str]:
    return {"targetRepository": repository, "targetTag": tag}


def test_who_reads_here_and_writes_there_promotes(world: Api):
    will = world.as_("will")
    made = will.post(f"{DEV}/tags/latest/promotion", to("1.0")).expect(201).json
    assert made == {
        "promotionPolicyID": "",
        "string": "acme/dev:latest",
        "sourceRepository": "acme/dev",
        "sourceTag": "latest",
    }
    records = will.get(f"{PROD}/tags/1.0").expect(200).json
    assert [(one["digest"], one["author"], one["promotion"]) for one in records] == [
        (INDEX.digest, "will", made)
    ] * 2
    assert "promotion" not in world.as_("ada").get(f"{DEV}/tags/latest").expect(200).json[0]
    client = will.client
    assert client.call("GET", "/v2/acme/prod/manifests/1.0").expect(200).body == INDEX.payload
    for child in INDEX.children:
        assert client.call("GET", f"/v2/acme/prod/manifests/{child.digest}").expect(200).body == child.payload
    referrers = client.call("GET", f"/v2/acme/prod/referrers/{INDEX.digest}").expect(200).json["manifests"]
    assert [one["digest"] for one in referrers] == [SIGNATURE.digest]
    events = world.as_("ada").get(f"{PROD}/events").expect(200).json["events"]
    tag = next(one for one in events if one["object"]["type"] == "tag")
    assert (tag["type"], tag["object"]["id"], tag["actorType"]) == ("CREATE", "1.0", "user")


def test_where_a_tag_is_from_is_told_to_those_who_were_granted_something(world: Api):
    """The name of a private repository is not for everybody who pulls from a public one."""
    ada = world.as_("ada")
    ada.post(f"{DEV}/tags/latest/promotion", to("1.0")).expect(201)
    ada.patch(PROD, {"visibility": "public"}).expect(200)
    for user, expected in (
        (ada, True),
        (world.as_("will"), True),
        (world.as_("rita"), False),
        (world.anonymous, False),
    ):
        for path in (f"{PROD}/tags", f"{PROD}/tags/1.0", f"{PROD}/tags/{INDEX.digest}"):
            answer = user.get(path).expect(200)
            assert ("promotion" in answer.json[0], b"acme/dev" in answer.body) == (expected, expected), path


def test_a_push_to_the_tag_ends_its_promotion(world: Api):
    ada = world.as_("ada")
    ada.post(f"{DEV}/tags/latest/promotion", to("1.0")).expect(201)
    ada.client.put_manifest("acme/prod", annotated(IMAGE, n="1"), "1.0").expect(201)
    (record,) = ada.get(f"{PROD}/tags/1.0").expect(200).json
    assert "promotion" not in record


def test_who_may_not_write_there_does_not(world: Api):
    rita = world.as_("rita")
    assert rita.post(f"{DEV}/tags/latest/promotion", to("1.0")).codes == ["NO_SUCH_REPOSITORY"]
    world.grant("acme/readers", "read-only", repository="acme/prod")
    assert rita.post(f"{DEV}/tags/latest/promotion", to("1.0")).codes == ["NOT_AUTHORIZED"]
    assert world.anonymous.post(f"{DEV}/tags/latest/promotion", to("1.0")).codes == ["NOT_AUTHENTICATED"]
    assert world.as_("ada").get(f"{PROD}/tags").expect(200).json == []


@pytest.mark.parametrize(
    ("tag", "target", "status", "code"),
    [
        ("latest", to("-"), 400, "INVALID_TAG_NAME"),
        ("latest", to("x" * 129), 400, "INVALID_TAG_NAME"),
        ("latest", to(INDEX.digest), 400, "INVALID_TAG_NAME"),
        ("none", to("1.0"), 404, "NO_SUCH_TAG"),
        (INDEX.digest, to("1.0"), 404, "NO_SUCH_TAG"),
        ("latest", to("1.0", "acme/none"), 404, "NO_SUCH_REPOSITORY"),
        ("latest", to("1.0", "No Name"), 404, "NO_SUCH_REPOSITORY"),
    ],
    ids=["sign", "long", "digest", "unknown", "of a digest", "no repository", "no name"],  # digests are random
)
def test_what_cannot_be_is_refused(world: Api, tag: str, target: dict[str, str], status: int, code: str):
    answer = world.as_("ada").post(f"{DEV}/tags/{tag}/promotion", target).expect(status)
    assert answer.codes == [code]


def test_an_immutable_tag_stays(world: Api):
    ada = world.as_("ada")
    ada.client.push("acme/prod", IMAGE, "1.0")
    ada.patch(PROD, {"immutableTags": True}).expect(200)
    answer = ada.post(f"{DEV}/tags/latest/promotion", to("1.0")).expect(409)
    assert (answer.codes, "1.0" in answer.json["errors"][0]["detail"]) == (["TAG_IMMUTABLE"], True)
    assert ada.get(f"{PROD}/tags/1.0").expect(200).json[0]["digest"] == IMAGE.digest
    ada.post(f"{DEV}/tags/latest/promotion", to("1.1")).expect(201)


# --- policies -------------------------------------------------------------------------------------------------

POLICIES = f"{DEV}/promotionPolicies"
ANY = {"rules": [], "targetRepository": "acme/prod", "tagTemplate": "%n", "enabled": True}


def wait_for_tags(api: Api, *expected: str) -> None:
    deadline = time.monotonic() + 60
    while (found := [one["name"] for one in api.as_("ada").get(f"{PROD}/tags").expect(200).json]) != [*expected]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_push_is_promoted(world: Api):
    ada = world.as_("ada")
    rule = {"field": "tag", "operator": "sw", "values": ["v"]}
    made = ada.post(POLICIES, {**ANY, "rules": [rule], "tagTemplate": "%n-ok"}).expect(201).json
    assert made == {
        "id": made["id"],
        "enabled": True,
        "rules": [rule],
        "sourceRepository": "acme/dev",
        "targetRepository": "acme/prod",
        "tagTemplate": "%n-ok",
        "lastPromotedAt": "0001-01-01T00:00:00Z",
        "lastFailedAt": "0001-01-01T00:00:00Z",
        "lastFailure": "",
        "lastJob": "",
        "waiting": 0,
    }
    ada.client.put_manifest("acme/dev", IMAGE, "v1").expect(201)
    ada.client.put_manifest("acme/dev", IMAGE, "w1").expect(201)
    wait_for_tags(world, "v1-ok")
    (record,) = ada.get(f"{PROD}/tags/v1-ok").expect(200).json
    assert (record["promotion"]["promotionPolicyID"], record["promotion"]["sourceTag"]) == (made["id"], "v1")


def test_what_is_there_is_promoted_when_that_is_wanted(world: Api):
    ada = world.as_("ada")
    made = ada.post(POLICIES, ANY, initialEvaluation="false").expect(201).json
    ada.client.put_manifest("acme/dev", IMAGE, "v1").expect(201)
    wait_for_tags(world, "v1")
    ada.put(f"{POLICIES}/{made['id']}", {}).expect(200)
    wait_for_tags(world, "latest", "v1")


def test_a_failure_ends_the_job_as_errored(world: Api):
    ada = world.as_("ada")
    ada.client.push("acme/prod", IMAGE, "latest")
    ada.patch(PROD, {"immutableTags": True}).expect(200)
    ada.post(POLICIES, ANY).expect(201)
    deadline = time.monotonic() + 60
    while True:
        job = world.admin.get("/api/v0/jobs", action="promote").expect(200).json["jobs"][0]
        if job["status"] == "errored":
            break
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    logs = world.admin.get(f"/api/v0/jobs/{job['id']}/logs").body.decode()
    assert "tag latest cannot be overwritten" in logs
    events = ada.get(f"{DEV}/events", eventType="FAIL").expect(200).json["events"]
    assert [(one["object"]["type"], one["object"]["name"]) for one in events] == [("promotion", "latest")]


def test_policies_are_listed_on_both_sides_changed_and_deleted(world: Api):
    ada, will = world.as_("ada"), world.as_("will")
    ids = sorted(ada.post(POLICIES, {**ANY, "enabled": False}).expect(201).json["id"] for _ in range(3))
    answer = ada.get(POLICIES, pageSize=2, count="true").expect(200)
    assert [one["id"] for one in answer.json] == ids[:2]
    assert (answer.headers["x-next-page-start"], answer.headers["x-resource-count"]) == (ids[2], "3")
    other = f"{PROD}/promotionPolicies"
    assert will.get(other).expect(200).json == []
    assert [one["id"] for one in will.get(other, source="false").expect(200).json] == ids
    assert will.get(f"{other}/{ids[0]}").expect(200).json["sourceRepository"] == "acme/dev"
    changed = ada.put(f"{other}/{ids[0]}", {"tagTemplate": "new-%n"}).expect(200).json
    assert (changed["tagTemplate"], changed["enabled"], changed["id"]) == ("new-%n", False, ids[0])
    assert will.put(f"{other}/{ids[0]}", {}).codes == ["NOT_AUTHORIZED"]
    assert will.delete(f"{other}/{ids[0]}").codes == ["NOT_AUTHORIZED"]
    world.grant("acme/writers", "admin", repository="acme/prod")
    assert will.put(f"{other}/{ids[0]}", {}).codes == ["NOT_AUTHORIZED"]  # of the source he is no administrator
    assert will.post(POLICIES, ANY).codes == ["NOT_AUTHORIZED"]
    for _ in range(2):
        will.delete(f"{other}/{ids[0]}").expect(204)
    for answer in (ada.get(f"{POLICIES}/{ids[0]}"), ada.put(f"{POLICIES}/{ids[0]}", {})):
        assert answer.expect(404).codes == ["NO_SUCH_PROMOTION_POLICY"]


def test_a_target_has_to_be_administered(world: Api):
    world.grant("acme/writers", "admin", repository="acme/dev")
    will = world.as_("will")
    assert will.post(POLICIES, ANY).codes == ["NOT_AUTHORIZED"]
    assert will.post(POLICIES, {**ANY, "targetRepository": "acme/none"}).codes == ["NO_SUCH_REPOSITORY"]
    world.grant("acme/writers", "admin", repository="acme/prod")  # no owner of the organization, of both no more
    made = will.post(POLICIES, ANY).expect(201).json
    wait_for_tags(world, "latest")
    assert will.put(f"{POLICIES}/{made['id']}", {"tagTemplate": "%n-2"}).expect(200).json["tagTemplate"] == "%n-2"
    wait_for_tags(world, "latest", "latest-2")


@pytest.mark.parametrize(
    "change",
    [
        {"rules": [{"field": "colour", "operator": "eq", "values": ["red"]}]},
        {"tagTemplate": "no name"},
        {"targetRepository": "acme/dev"},
    ],
)
def test_a_policy_that_cannot_be_is_refused(world: Api, change: dict[str, Any]):
    answer = world.as_("ada").post(POLICIES, {**ANY, **change}).expect(400)
    assert (answer.codes, bool(answer.json["errors"][0]["detail"])) == (["INVALID_PROMOTION_POLICY"], True)


def test_trying_out_changes_nothing_and_explains(world: Api):
    ada = world.as_("ada")
    for tag in ("v1", "v2"):
        ada.client.put_manifest("acme/dev", IMAGE, tag).expect(201)
    rule = {"field": "tag", "operator": "sw", "values": ["v"]}
    meant = {**ANY, "rules": [rule], "tagTemplate": "%n-ok"}
    answer = ada.post(f"{POLICIES}/test", meant, pageSize=1, count="true").expect(200)
    assert answer.json == [{"name": "v1", "digest": IMAGE.digest, "targetTag": "v1-ok"}]
    assert (answer.headers["x-resource-count"], answer.headers["x-next-page-start"]) == ("2", "v2")
    explained = ada.post(f"{POLICIES}/test", meant, explain="true").expect(200).json
    assert [(one["name"], one["promote"], one["answer"], one["decidedBy"]) for one in explained] == [
        ("latest", False, "no", 0),
        ("v1", True, "yes", None),
        ("v2", True, "yes", None),
    ]
    assert ada.get(f"{PROD}/tags").expect(200).json == []
    bad = ada.post(f"{POLICIES}/test", {**ANY, "tagTemplate": "no name"}).expect(400)
    assert bad.codes == ["INVALID_PROMOTION_POLICY"]


def test_what_a_policy_waits_for_is_shown_and_the_history_lists_what_it_did(world: Api):
    ada = world.as_("ada")
    signed = {"field": "signed", "operator": "eq", "values": ["true"]}
    made = ada.post(POLICIES, {**ANY, "rules": [signed]}, initialEvaluation="false").expect(201).json
    ada.client.push("acme/dev", IMAGE, "v1")
    deadline = time.monotonic() + 60
    # They are counted first: a tag that comes between is listed, and not counted.
    waiting = ada.get(f"{POLICIES}/{made['id']}/waiting", count="true").expect(200)
    while waiting.headers["x-resource-count"] == "0":
        assert time.monotonic() < deadline
        time.sleep(0.05)
        waiting = ada.get(f"{POLICIES}/{made['id']}/waiting", count="true").expect(200)
    assert waiting.headers["x-resource-count"] == "1"
    (one,) = waiting.json
    assert (one["name"], one["digest"], one["waitsFor"]) == ("v1", IMAGE.digest, "signature")
    assert ada.get(f"{POLICIES}/{made['id']}").expect(200).json["waiting"] == 1
    assert [one["waiting"] for one in ada.get(POLICIES).expect(200).json] == [1]
    assert ada.get(f"{PROD}/promotionPolicies/{made['id']}/waiting").codes == ["NO_SUCH_PROMOTION_POLICY"]
    seal = make_artifact("application/vnd.cncf.notary.signature", b"signed", subject=IMAGE)
    ada.client.push("acme/dev", seal)
    wait_for_tags(world, "v1")
    ada.post(f"{DEV}/tags/latest/promotion", to("by-hand")).expect(201)
    history = ada.get(f"{DEV}/promotions").expect(200).json
    assert [
        (one["promotionPolicyID"], one["tag"], one["target"], one["actorName"], one["error"])
        for one in history[:2]
    ] == [
        ("", "latest", "acme/prod:by-hand", "ada", ""),
        (made["id"], "v1", "acme/prod:v1", "", ""),
    ]
    only = ada.get(f"{DEV}/promotions", policy=made["id"]).expect(200).json
    assert [(one["tag"], one["digest"]) for one in only] == [("v1", IMAGE.digest)]
    assert ada.get(f"{POLICIES}/{made['id']}").expect(200).json["waiting"] == 0
    referrers = ada.client.call("GET", f"/v2/acme/prod/referrers/{IMAGE.digest}").expect(200).json["manifests"]
    assert [one["digest"] for one in referrers] == [seal.digest]


def test_a_failure_is_in_the_history(world: Api):
    ada = world.as_("ada")
    ada.client.push("acme/prod", IMAGE, "latest")
    ada.patch(PROD, {"immutableTags": True}).expect(200)
    made = ada.post(POLICIES, ANY).expect(201).json
    deadline = time.monotonic() + 60
    while not (history := ada.get(f"{DEV}/promotions", policy=made["id"]).expect(200).json):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (one,) = history
    assert (one["tag"], one["target"], "cannot be overwritten" in one["error"]) == ("latest", "acme/prod", True)
    assert world.as_("will").get(f"{DEV}/promotions").codes == ["NOT_AUTHORIZED"]
