"""``/api/v0/webhooks``: made, told, looked at, by those who may."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.images import make_image
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.rooms import annotated

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32", "external_address": "registry.example:5443"}
WEBHOOKS = "/api/v0/webhooks"
IMAGE = make_image()


@pytest.fixture(scope="module")
def world(api: Api) -> Api:
    api.make_users("ada", "rita", "stan")
    api.make_organization("acme", owners=("ada",), members=("rita",))
    api.make_team("acme/admins", "rita")
    api.make_repository("acme/app")
    api.make_repository("acme/other")
    api.grant("acme/admins", "admin", repository="acme/app")
    return api


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def form(receiver: Receiver, kind: str = "TAG_PUSH", key: str = "acme/app", **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "key": key,
        "endpoint": receiver.url(host="127.0.0.1"),
        "tlsCert": "",
        "skipTLSVerification": True,
        **more,
    }


def make(user: Any, *given: Any, **more: Any) -> dict[str, Any]:
    (made,) = user.post(WEBHOOKS, form(*given, **more)).expect(200).json
    return dict(made)


def deliveries(user: Any, webhook: str, status: str) -> list[dict[str, Any]]:
    """The deliveries, when the latest ended so."""
    deadline = time.monotonic() + 60
    while True:
        found = user.get(f"{WEBHOOKS}/{webhook}/deliveries").expect(200).json
        if found and found[0]["status"] == status:
            return list(found)
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_from_a_push_to_the_receiver(world: Api, receiver: Receiver):
    rita, ada = world.as_("rita"), world.as_("ada")
    made = make(rita, receiver, secret="open sesame", name="builds")
    assert {
        name: made[name] for name in ("type", "key", "inactive", "hasSecret", "name", "format", "tlsCert")
    } == {
        "type": "TAG_PUSH",
        "key": "acme/app",
        "inactive": False,
        "hasSecret": True,
        "name": "builds",
        "format": "dtr",
        "tlsCert": "",
    }
    assert made["lastSuccessfulAt"] == "0001-01-01T00:00:00Z"
    assert "secret" not in made
    assert len(made["id"]) == 64
    ada.client.push("acme/app", IMAGE, "latest")
    (received,) = receiver.wait(1)
    contents = received.json["contents"]
    assert (contents["imageName"], contents["author"]) == ("registry.example:5443/acme/app:latest", "ada")
    signature = hmac.new(b"open sesame", received.body, hashlib.sha256).hexdigest()
    assert received.headers["x-dtr-signature-256"] == f"sha256={signature}"
    (delivery,) = deliveries(rita, made["id"], "delivered")
    assert (delivery["body"], delivery["statusCode"], delivery["attempts"]) == (received.body.decode(), 200, 1)
    assert (delivery["answer"], delivery["error"]) == ("thanks", "")
    again = rita.post(f"{WEBHOOKS}/{made['id']}/deliveries/{delivery['id']}/redeliver").expect(202).json
    assert again["redeliveryOf"] == delivery["id"]
    assert receiver.wait(2)[1].body == received.body
    (seen,) = (one for one in rita.get(WEBHOOKS).expect(200).json if one["id"] == made["id"])
    assert not seen["lastSuccessfulAt"].startswith("0001")
    events = world.admin.get("/api/v0/events", objectType="webhook").expect(200)
    assert b"sesame" not in events.body
    assert receiver.url(host="127.0.0.1").encode() not in events.body
    rita.delete(f"{WEBHOOKS}/{made['id']}").expect(200)
    rita.delete(f"{WEBHOOKS}/{made['id']}").expect(404)


def test_a_receiver_that_fails_first_is_tried_again(world: Api, receiver: Receiver):
    rita = world.as_("rita")
    receiver.reply = lambda _: Reply(500 if len(receiver.received) == 1 else 200)
    made = make(rita, receiver, "MANIFEST_PUSH")
    world.as_("ada").client.push("acme/app", annotated(IMAGE, n="retry"), "retry")
    first, second = receiver.wait(2)
    assert first.headers["x-dtr-delivery"] == second.headers["x-dtr-delivery"]
    (delivery,) = deliveries(rita, made["id"], "delivered")
    assert delivery["attempts"] == 2


def test_this_host_is_no_receiver_unless_the_administrator_says_so(world: Api, receiver: Receiver):
    """What is allowed here is 127.0.0.1 alone."""
    rita = world.as_("rita")
    body = form(receiver, endpoint="http://127.0.0.2:1/")
    answer = rita.post(f"{WEBHOOKS}/test", {**body}).expect(400)
    assert answer.json["errors"][0]["code"] == "WEBHOOK_TEST_FAILED"
    made = make(rita, receiver, "TAG_PULL", endpoint="http://127.0.0.2:1/")
    world.as_("ada").client.push("acme/app", IMAGE, "pulled")
    world.as_("ada").client.call("GET", "/v2/acme/app/manifests/pulled").expect(200)
    (delivery,) = deliveries(rita, made["id"], "failed")
    assert (delivery["statusCode"], delivery["answer"]) == (0, "")
    assert "none that may be reached from here" in delivery["error"]


def test_trying_out(world: Api, receiver: Receiver):
    stan = world.as_("stan")
    answer = stan.post(f"{WEBHOOKS}/test", form(receiver, "SCAN_COMPLETED")).expect(200).json
    assert (answer["statusCode"], answer["body"]) == (200, "thanks")
    (received,) = receiver.received
    assert (received.json["type"], received.json["contents"]["tag"]) == ("SCAN_COMPLETED", "latest")
    (error,) = stan.post(f"{WEBHOOKS}/test", form(receiver, "NOTHING")).expect(400).json["errors"]
    assert error["code"] == "INVALID_WEBHOOK"
    receiver.reply = lambda _: Reply(418)
    (error,) = stan.post(f"{WEBHOOKS}/test", form(receiver)).expect(400).json["errors"]
    assert (error["code"], error["detail"]) == ("WEBHOOK_TEST_FAILED", "the receiver answered 418")


def test_trying_out_one_that_is_there_sends_what_a_delivery_would_send(world: Api, receiver: Receiver):
    rita = world.as_("rita")
    made = make(rita, receiver, secret="open sesame", format="cloudevents")
    rita.post(f"{WEBHOOKS}/update", {"id": made["id"], "inactive": True}).expect(200)
    trial = rita.post(f"{WEBHOOKS}/{made['id']}/test").expect(200).json
    assert (trial["delivered"], trial["statusCode"], trial["body"], trial["error"]) == (True, 200, "thanks", "")
    (received,) = receiver.received
    signature = hmac.new(b"open sesame", received.body, hashlib.sha256).hexdigest()
    assert received.headers["x-dtr-signature-256"] == f"sha256={signature}"
    assert received.json["specversion"] == "1.0"
    receiver.reply = lambda _: Reply(503, b"full")
    trial = rita.post(f"{WEBHOOKS}/{made['id']}/test").expect(200).json
    assert (trial["delivered"], trial["statusCode"], trial["body"], trial["error"]) == (
        False,
        503,
        "full",
        "the receiver answered 503",
    )
    assert rita.get(f"{WEBHOOKS}/{made['id']}").expect(200).json["lastError"] == ""
    assert rita.get(f"{WEBHOOKS}/{made['id']}/deliveries").expect(200).json == []
    rita.delete(f"{WEBHOOKS}/{made['id']}").expect(200)
    rita.post(f"{WEBHOOKS}/{made['id']}/test").expect(404)


def test_one_and_its_deliveries_one_by_one(world: Api, receiver: Receiver):
    rita, ada, stan = (world.as_(name) for name in ("rita", "ada", "stan"))
    made = make(rita, receiver, name="builds")
    assert ada.get(f"{WEBHOOKS}/{made['id']}").expect(200).json == made
    stan.get(f"{WEBHOOKS}/{made['id']}").expect(404)
    ada.client.push("acme/app", IMAGE, "one-by-one")
    (listed,) = deliveries(rita, made["id"], "delivered")
    path = f"{WEBHOOKS}/{made['id']}/deliveries"
    assert rita.get(f"{path}/{listed['id']}").expect(200).json == listed
    (error,) = rita.get(f"{path}/none").expect(404).json["errors"]
    assert error["code"] == "NO_SUCH_WEBHOOK_DELIVERY"
    stan.get(f"{path}/{listed['id']}").expect(404)
    rita.delete(f"{WEBHOOKS}/{made['id']}").expect(200)


def test_the_oldest_comes_first_and_those_without_a_key_are_asked_for_alone(world: Api, receiver: Receiver):
    rita, admin = world.as_("rita"), world.as_("admin")
    made = [make(rita, receiver, "TAG_DELETE", name=str(number)) for number in range(5)]
    of_all = make(admin, receiver, "TAG_DELETE", "")
    path = "/api/v0/repositories/acme/app/webhooks"
    found: list[str] = []
    start = ""
    while True:
        answer = rita.get(path, pageSize=2, pageStart=start).expect(200)
        found += [one["id"] for one in answer.json]
        start = answer.headers.get("x-next-page-start", "")
        if not start:
            break
    found = [one for one in found if one in {made_one["id"] for made_one in made}]  # others left theirs
    made.sort(key=lambda one: (dt.datetime.fromisoformat(one["createdAt"]), one["id"]))
    assert found == [one["id"] for one in made]
    answer = admin.get(WEBHOOKS, everywhere="true", count="true").expect(200)
    assert [one["id"] for one in answer.json] == [of_all["id"]]
    assert answer.headers["x-resource-count"] == "1"
    rita.get(WEBHOOKS, everywhere="true").expect(403)
    for one in (*made, of_all):
        admin.delete(f"{WEBHOOKS}/{one['id']}").expect(200)


def test_keys_and_rights(world: Api, receiver: Receiver):
    ada, rita, stan, admin = (world.as_(name) for name in ("ada", "rita", "stan", "admin"))
    of_repository = make(rita, receiver)
    of_namespace = make(ada, receiver, "REPO_EVENT", "acme")
    of_all = make(admin, receiver, "REPO_EVENT", "")
    for user, key, status in (
        (rita, "acme/other", 404),
        (rita, "acme", 403),
        (rita, "", 403),
        (ada, "", 403),
        (stan, "acme/app", 404),
        (stan, "nobody", 404),
        (stan, "No Name/x", 404),
        (world.anonymous, "acme/app", 401),
    ):
        user.post(WEBHOOKS, form(receiver, key=key)).expect(status)

    def ids(user: Any, path: str = WEBHOOKS, **query: Any) -> set[str]:
        return {one["id"] for one in user.get(path, **query).expect(200).json}

    assert of_repository["id"] in ids(rita)
    assert ids(stan) == set()
    assert ids(admin) >= {of_repository["id"], of_namespace["id"], of_all["id"]}
    assert ids(admin, webhookType="REPO_EVENT") == {of_namespace["id"], of_all["id"]}
    assert of_repository["id"] in ids(ada, "/api/v0/repositories/acme/app/webhooks")
    assert ids(ada, "/api/v0/accounts/acme/webhooks") == {of_namespace["id"]}
    answer = admin.get(WEBHOOKS, pageSize=1, count="true").expect(200)
    assert (len(answer.json), int(answer.headers["x-resource-count"])) == (1, len(ids(admin)))
    assert "x-next-page-start" in answer.headers
    # Who must not know of the repository does not find it; who made one loses the right to change it alone.
    for one in (of_namespace, of_all):
        rita.post(f"{WEBHOOKS}/update", {"id": one["id"], "inactive": True}).expect(403)
        rita.get(f"{WEBHOOKS}/{one['id']}/deliveries").expect(403)
        rita.delete(f"{WEBHOOKS}/{one['id']}").expect(403)
    stan.delete(f"{WEBHOOKS}/{of_repository['id']}").expect(404)
    (changed,) = ada.post(f"{WEBHOOKS}/update", {"id": of_repository["id"], "inactive": True}).expect(200).json
    assert changed["inactive"]
    assert changed["authorID"] == of_repository["authorID"]
    world.grant("acme/admins", "read-only", repository="acme/app")
    try:
        rita.post(f"{WEBHOOKS}/update", {"id": of_repository["id"], "inactive": False}).expect(403)
        rita.get(f"{WEBHOOKS}/{of_repository['id']}/deliveries").expect(403)
        assert of_repository["id"] in ids(rita)
        # Who sees nothing of the repository any more does not learn what it is called now, nor whether it is used.
        world.admin.delete("/api/v0/repositories/acme/app/teamAccess/admins").expect(204)
        assert ids(rita) == set()
        assert int(rita.get(WEBHOOKS, count="true").headers["x-resource-count"]) == 0
        rita.delete(f"{WEBHOOKS}/{of_repository['id']}").expect(200)
    finally:
        world.grant("acme/admins", "admin", repository="acme/app")
    for one in (of_namespace, of_all):
        admin.delete(f"{WEBHOOKS}/{one['id']}").expect(200)


def test_one_that_was_given_up_is_an_alert(world: Api, receiver: Receiver):
    made = make(world.as_("rita"), receiver)
    world.change(
        "UPDATE webhooks SET is_active = :no, failing_since = 1, last_error = 'gone' WHERE id = :id",
        no=False,
        id=made["id"],
    )
    alerts = world.admin.get("/api/v0/meta/alerts").expect(200).json
    (alert,) = (one for one in alerts if one["id"] == "webhooks")
    assert "1 webhooks are switched off" in alert["message"]
    world.as_("rita").delete(f"{WEBHOOKS}/{made['id']}").expect(200)


@pytest.mark.parametrize(
    "more",
    [{"type": "NOTHING"}, {"endpoint": "ftp://x/"}, {"tlsCert": "none"}, {"format": "xml"}, {"name": "n" * 201}],
)
def test_what_no_webhook_can_be(world: Api, receiver: Receiver, more: dict[str, Any]):
    assert (
        world.as_("rita").post(WEBHOOKS, {**form(receiver), **more}).expect(400).json["errors"][0]["code"]
        == "INVALID_WEBHOOK"
    )
