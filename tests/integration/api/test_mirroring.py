"""Mirroring between servers: to and from Debian's docker-registry and another dtr, with TLS and users."""

from __future__ import annotations

import base64
import datetime as dt
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.backends import run_server
from tests.support.client import Client
from tests.support.distribution import USER, USER_PASSWORD, DockerRegistry
from tests.support.images import OCI_INDEX, OCI_MANIFEST, Image, make_artifact, make_image, make_index
from tests.support.server import PASSWORD, Server

SETTINGS = {"mirroring.allowed_networks": "127.0.0.0/8"}
IMAGE = make_image(layers=2, size=200_000)
NESTED = make_index(make_index(make_image()), make_image())
SECONDS = 60


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """It has TLS by an authority of its own, and one user."""
    made = DockerRegistry(tmp_path_factory.mktemp("registry") / "docker", tls=True, users=True)
    yield made.start()
    made.kill()


@pytest.fixture(scope="module")
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another dtr."""
    with run_server("sqlite", request, tmp_path_factory, {"registry.create_on_push": "true"}) as server:
        yield server


def at(registry: DockerRegistry, repository: str, **more: Any) -> dict[str, Any]:
    """The fields of a remote at the registry."""
    return {
        "remoteHost": registry.url,
        "remoteRepository": repository,
        "remoteCA": registry.ca,
        "skipTLSVerification": False,
        "username": USER,
        "password": USER_PASSWORD,
        "authToken": "",
        **more,
    }


def at_other(other: Server, repository: str, **more: Any) -> dict[str, Any]:
    """The fields of a remote at the other dtr."""
    return {
        "remoteHost": f"https://{other.address}",
        "remoteRepository": repository,
        "remoteCA": other.ca.read_text(),
        "username": "admin",
        "password": PASSWORD,
        **more,
    }


def fetch(registry: DockerRegistry, path: str) -> bytes | None:
    """What the registry answers; None: it is not there."""
    request = urllib.request.Request(f"{registry.url}/v2/{path}")
    credentials = base64.b64encode(f"{USER}:{USER_PASSWORD}".encode()).decode()
    request.add_header("Authorization", f"Basic {credentials}")
    request.add_header("Accept", f"{OCI_INDEX}, {OCI_MANIFEST}")
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=registry.ca)) as answer:
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def is_whole(registry: DockerRegistry, repository: str, image: Image, reference: str = "") -> bool:
    """Whether the registry has an image, byte for byte."""
    return (
        fetch(registry, f"{repository}/manifests/{reference or image.digest}") == image.payload
        and all(is_whole(registry, repository, child) for child in image.children)
        and all(
            fetch(registry, f"{repository}/blobs/{layer['digest']}") in image.blobs
            for layer in json.loads(image.payload).get("layers", ())
        )
    )


def status_of(api: Api, path: str, policy: str, code: str) -> dict[str, Any]:
    """The policy, when its last work ended so."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = api.admin.get(f"/api/v0/repositories/{path}/mirroringPolicies").expect(200).json
        (shown,) = [one for one in found if one["id"] == policy]
        if shown["lastStatus"]["code"] == code:
            made: dict[str, Any] = shown
            return made
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def wait_for_tag(api: Api, path: str, tag: str) -> dict[str, Any]:
    """The tag's record, when it is there."""
    deadline = time.monotonic() + SECONDS
    while True:
        answer = api.admin.get(f"/api/v0/repositories/{path}/tags/{tag}")
        if answer.status == 200:
            record: dict[str, Any] = answer.json[0]
            return record
        assert time.monotonic() < deadline
        time.sleep(0.1)


def policies(path: str, direction: str) -> str:
    return f"/api/v0/repositories/{path}/{direction}MirroringPolicies"


def test_a_push_goes_on_to_a_registry_of_others(api: Api, registry: DockerRegistry):
    api.make_repository("admin/push")
    form = at(registry, "mirror/push", tagTemplate="from-%n", withReferrers=True, rules=[])
    made = api.admin.post(policies("admin/push", "push"), form).expect(201).json
    assert made["localRepository"] == "admin/push"
    assert {"password", "authToken"}.isdisjoint(made)
    api.admin.client.push("admin/push", IMAGE, "1")
    api.admin.client.push("admin/push", NESTED, "2")
    api.admin.client.push("admin/push", make_artifact("text/x-note", b"note", subject=IMAGE))
    done = status_of(api, "admin/push", made["id"], "SUCCESS")
    job = api.admin.get(f"/api/v0/jobs/{done['lastStatus']['job']}").expect(200).json
    assert (job["action"], job["parameters"]["policy"]) == ("push_mirror_tag", made["id"])
    assert dt.datetime.fromisoformat(done["nextRun"]).minute % 30 == 0
    tags = f"/api/v0/repositories/admin/push/mirroringPolicies/{made['id']}/tags"
    deadline = time.monotonic() + SECONDS
    while [one["status"] for one in api.admin.get(tags).expect(200).json] != ["mirrored", "mirrored"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shown = api.admin.get(f"{policies('admin/push', 'push')}/{made['id']}").expect(200).json["tags"]
    assert shown == {"mirrored": 2, "failed": 0, "waiting": 0, "skipped": 0}
    assert api.admin.get(tags, status="failed", count=True).expect(200).headers["x-resource-count"] == "0"
    checked = api.admin.post(f"/api/v0/repositories/admin/push/mirroringPolicies/{made['id']}/check", explain=True)
    assert [(one["name"], one["state"]) for one in checked.expect(200).json["steps"]] == [
        (one, "ok") for one in ("reach", "trust", "speak", "login", "read", "write")
    ]
    newest = api.admin.post(f"{policies('admin/push', 'push')}/test", form, explain=True, newest=1).expect(200)
    assert [(one["name"], one["targetTag"]) for one in newest.json] == [("2", "from-2")]
    assert is_whole(registry, "mirror/push", IMAGE, "from-1")
    assert is_whole(registry, "mirror/push", NESTED, "from-2")
    shown = api.admin.get("/api/v0/repositories/admin/push/tags/1").expect(200).json[0]["mirroring"]
    assert shown == {
        "mirroringPolicyID": made["id"],
        "digest": IMAGE.digest,
        "remoteRepository": f"127.0.0.1:{registry.port}/mirror/push",
        "remoteTag": "from-1",
    }
    # What refers to the image and came later is found by the next run; the registry has only the tag schema.
    api.admin.post(f"/api/v0/repositories/admin/push/mirroringPolicies/{made['id']}/run", everything=True).expect(
        202
    )
    schema = f"mirror/push/manifests/{IMAGE.digest.replace(':', '-')}"
    while (listed := fetch(registry, schema)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [one["artifactType"] for one in json.loads(listed)["manifests"]] == ["text/x-note"]


def test_a_remote_that_is_down_gets_it_when_it_is_up(api: Api, registry: DockerRegistry):
    api.make_repository("admin/down")
    made = api.admin.post(policies("admin/down", "push"), at(registry, "mirror/down")).expect(201).json
    registry.kill()
    try:
        api.admin.client.push("admin/down", IMAGE, "1")
        failed = status_of(api, "admin/down", made["id"], "REMOTE_UNREACHABLE")
        assert failed["lastMirroredAt"].startswith("0001")
    finally:
        registry.start()
    status_of(api, "admin/down", made["id"], "SUCCESS")  # by a retry
    assert is_whole(registry, "mirror/down", IMAGE, "1")


def test_a_poll_is_promoted_and_goes_on(api: Api, registry: DockerRegistry, other: Server):
    for path in ("admin/polled", "admin/promoted"):
        api.make_repository(path)
    other.make_repository("admin/arrived")
    source = Client(other)
    other.make_repository("admin/source")
    source.push("admin/source", NESTED, "1.0")
    source.push("admin/source", IMAGE, "nightly")
    promotion = {"rules": [], "targetRepository": "admin/promoted", "tagTemplate": "stable-%n"}
    api.admin.post("/api/v0/repositories/admin/polled/promotionPolicies", promotion).expect(201)
    push = api.admin.post(policies("admin/promoted", "push"), at_other(other, "admin/arrived")).expect(201)
    back = api.admin.post(policies("admin/promoted", "push"), at_other(other, "admin/source")).expect(201)
    rule = {"field": "tag", "operator": "sw", "values": ["1."]}
    form = at_other(other, "admin/source", rules=[rule])
    (tried,) = api.admin.post(f"{policies('admin/polled', 'poll')}/test", form).expect(200).json
    assert tried == {"name": "1.0", "mirror": True, "targetTag": "1.0"}
    made = api.admin.post(policies("admin/polled", "poll"), form).expect(201).json
    # The credentials that are kept serve for this remote, and for no other.
    again, test = {**form, "password": "", "rules": []}, f"{policies('admin/polled', 'poll')}/test"
    assert len(api.admin.post(test, again, like=made["id"]).expect(200).json) == 2
    for changed in ({"remoteRepository": "admin/arrived"}, {"username": "another"}, {"password": "wrong"}):
        refused = api.admin.post(test, {**again, **changed}, like=made["id"]).expect(400)
        assert refused.codes == ["REMOTE_REGISTRY_INVALID_PERMISSIONS"]
    assert api.admin.post(test, again, like="none").expect(404).codes == ["NO_SUCH_POLL_MIRRORING_POLICY"]
    status_of(api, "admin/polled", made["id"], "SUCCESS")
    record = wait_for_tag(api, "admin/polled", "1.0")
    assert record["author"] == "poll mirroring"
    assert record["mirroring"]["remoteRepository"] == f"{other.address}/admin/source"
    wait_for_tag(api, "admin/promoted", "stable-1.0")
    status_of(api, "admin/promoted", push.json["id"], "SUCCESS")
    Client(other).assert_whole("admin/arrived", NESTED, "stable-1.0")
    # It came from there: it does not go back.
    assert status_of(api, "admin/promoted", back.json["id"], "")
    listed = Client(other).call("GET", "/v2/admin/source/tags/list")
    assert listed.json["tags"] == ["1.0", "nightly"]
    assert api.admin.get("/api/v0/repositories/admin/polled/tags/nightly").status == 404


def test_a_tag_is_mirrored_by_hand(api: Api, registry: DockerRegistry):
    api.make_repository("admin/hand")
    api.admin.client.push("admin/hand", IMAGE, "1")
    path = "/api/v0/repositories/admin/hand/tags/1/pushMirroring"
    form = at(registry, "mirror/hand", remoteTag="by-hand")
    assert api.admin.post(path, {**form, "remoteTag": "-"}).expect(400).codes == ["INVALID_TAG_NAME"]
    answer = api.admin.post(path, form).expect(201).json
    assert (answer["mirroringPolicyID"], answer["digest"], answer["remoteTag"]) == ("", IMAGE.digest, "by-hand")
    deadline = time.monotonic() + SECONDS
    while wait_for_tag(api, "admin/hand", "1").get("mirroring") != answer:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert is_whole(registry, "mirror/hand", IMAGE, "by-hand")
    jobs = json.dumps(api.admin.get("/api/v0/jobs", action="push_mirror_tag").expect(200).json)
    assert USER_PASSWORD not in jobs


def test_credentials_are_checked_kept_and_given_again_for_another_place(api: Api, registry: DockerRegistry):
    api.make_repository("admin/checked")
    where = policies("admin/checked", "push")
    wrong = api.admin.post(where, at(registry, "mirror/checked", password="wrong")).expect(400)
    assert wrong.codes == ["REMOTE_REGISTRY_INVALID_PERMISSIONS"]
    untrusted = api.admin.post(where, at(registry, "mirror/checked", remoteCA="")).expect(400)
    assert untrusted.codes == ["REMOTE_REGISTRY_FAILED"]
    made = api.admin.post(where, at(registry, "mirror/checked", enabled=False)).expect(201).json
    one = f"{where}/{made['id']}"
    assert api.admin.put(one, {"tagTemplate": "x-%n"}).expect(200).json["tagTemplate"] == "x-%n"
    for change in (
        {"remoteRepository": "mirror/elsewhere"},
        {"remoteHost": "https://127.0.0.1:1"},
        {"skipTLSVerification": True},
        {"remoteCA": ""},
    ):
        refused = api.admin.put(one, change).expect(400)
        assert refused.codes == ["INVALID_REMOTE"]
    moved = {"remoteRepository": "mirror/elsewhere", "password": USER_PASSWORD}
    assert api.admin.put(one, moved).expect(200).json["remoteRepository"] == "mirror/elsewhere"
    denied = api.admin.put(one, {"password": "wrong"}).expect(400)
    assert denied.codes == ["REMOTE_REGISTRY_INVALID_PERMISSIONS"]
    api.admin.delete(one).expect(204)
    api.admin.delete(one).expect(204)
    assert api.admin.get(one).expect(404).codes == ["NO_SUCH_PUSH_MIRRORING_POLICY"]


def test_a_shared_remote_serves_several_policies(api: Api, registry: DockerRegistry):
    api.make_users("mia")
    api.make_repository("mia/app")
    api.make_repository("admin/app")
    given = at(registry, "x")
    del given["remoteRepository"]
    shared = api.admin.post("/api/v0/remotes", {**given, "name": "for all"}).expect(201).json["id"]
    own = (
        api.as_("mia")
        .post("/api/v0/remotes", {**given, "name": "hers", "namespace": "mia"})
        .expect(201)
        .json["id"]
    )
    form = {"remoteID": shared, "remoteRepository": "mirror/shared", "enabled": False}
    made = api.admin.post(policies("admin/app", "poll"), form).expect(201).json
    assert (made["remoteID"], made["remoteHost"]) == (shared, registry.url)
    assert api.as_("mia").post(policies("mia/app", "poll"), form).expect(404).codes == ["NO_SUCH_REMOTE"]
    api.as_("mia").post(policies("mia/app", "poll"), {**form, "remoteID": own}).expect(201)
    assert api.admin.delete(f"/api/v0/remotes/{shared}").expect(409).codes == ["REMOTE_IN_USE"]
    api.admin.call("DELETE", "/api/v0/repositories/admin/app/mirroringPolicies", [{"id": made["id"]}]).expect(204)
    api.admin.delete(f"/api/v0/remotes/{shared}").expect(204)


def test_rules_are_tried_out(api: Api):
    api.make_repository("admin/tried")
    for tag in ("1.0", "nightly"):
        api.admin.client.push("admin/tried", IMAGE, tag)
    form = {
        "remoteHost": "https://registry.example",
        "remoteRepository": "a/b",
        "tagTemplate": "to-%n",
        "rules": [{"field": "tag", "operator": "sw", "values": ["1."]}],
    }
    path = f"{policies('admin/tried', 'push')}/test"
    assert [(one["name"], one["targetTag"]) for one in api.admin.post(path, form).expect(200).json] == [
        ("1.0", "to-1.0")
    ]
    explained = api.admin.post(path, form, explain=True).expect(200).json
    assert [(one["name"], one["mirror"]) for one in explained] == [("1.0", True), ("nightly", False)]
    bad = api.admin.post(path, {**form, "tagTemplate": "no name"}).expect(404)
    assert bad.codes == ["INVALID_PUSH_MIRRORING_POLICY"]
