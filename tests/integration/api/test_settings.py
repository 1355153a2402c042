"""``/api/v0/meta/settings``: what can be changed holds for all workers at once, the rest is refused by name."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.client import Client, settle
from tests.support.images import make_image
from tests.support.server import PASSWORD

PATH = "/api/v0/meta/settings"
OBEYED = {
    "dtrHost": "registry.example:8443",
    "createRepositoryOnPush": True,
    "readOnlyRegistry": True,
    "repoEventHistoryCompactionEnabled": True,
    "repoEventHistoryToKeep": 1000,
    "repoEventHistoryMaxAge": "720h",
}


@pytest.fixture(autouse=True)
def as_before(api: Api) -> Iterator[None]:
    before = api.admin.get(PATH).json
    yield
    api.admin.post(PATH, {name: before[name] for name in OBEYED}).expect(202)
    settle(api.server)


def soon(check: Any) -> None:
    """`check` holds for many requests in a row; that it takes two seconds at most, tests/contract proves."""
    deadline = time.monotonic() + 60
    while not all(check() for _ in range(10)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_read_can_be_written_back(api: Api):
    settings = api.admin.get(PATH).expect(200).json
    answer = api.admin.post(PATH, settings).expect(202)
    assert answer.body == b""
    api.admin.post(PATH, settings | {"webTLSKey": "", "unknownToUs": 1}).expect(202)
    assert api.admin.get(PATH).json == settings


def test_two_who_change_the_same_setting_do_not_overwrite_each_other(api: Api):
    seen = {"dtrHost": "", "createRepositoryOnPush": False}
    api.admin.post(PATH, {"dtrHost": "one.example", "expected": seen}).expect(202)
    late = api.admin.post(PATH, {"dtrHost": "two.example", "expected": seen}).expect(409)
    (error,) = late.json["errors"]
    assert error["code"] == "SETTINGS_CHANGED"
    assert error["detail"] == [{"field": "dtrHost", "value": "one.example"}]
    assert api.admin.get(PATH).json["dtrHost"] == "one.example"
    wrong = api.admin.post(PATH, {"expected": {"logLevel": "info"}}).expect(400)
    assert wrong.codes == ["INVALID_SETTINGS"]
    sessions = "/enzi/v0/config/sessions"
    before = api.admin.get(sessions).expect(200).json
    api.admin.put(sessions, {"perUserLimit": 4, "expected": before}).expect(200)
    assert api.admin.put(sessions, {"perUserLimit": 5, "expected": before}).expect(409).codes == [
        "SETTINGS_CHANGED"
    ]
    api.admin.put(sessions, before).expect(200)


def test_every_setting_says_how_things_are(api: Api):
    settings = api.admin.get(PATH).expect(200).json
    assert settings["webTLSCA"] == api.server.ca.read_text()
    assert settings["webTLSCert"].startswith("-----BEGIN CERTIFICATE-----")
    assert settings["storageVolume"] == str(api.server.directory / "blobs")
    assert settings["logLevel"] == "info"
    assert settings["replicaID"] == (api.server.directory / "replica-id").read_text().strip()
    replica = settings["replicaSettings"][settings["replicaID"]]
    assert replica["HTTPSPort"] == api.server.port
    assert replica["HTTPPort"] == api.server.http_port
    assert replica["node"]
    assert settings["scanningEnabled"] is settings["reportAnalytics"] is settings["sso"] is False


def test_what_is_obeyed_is_changed_together_and_audited(api: Api):
    api.admin.post(PATH, OBEYED).expect(202)
    settings = api.admin.get(PATH).json
    assert {name: settings[name] for name in OBEYED} == OBEYED
    rows = api.rows("SELECT object_name, actor_name, target_content FROM events WHERE object_type = 'setting'")
    assert {("dtrHost", "admin", '"registry.example:8443"'), ("readOnlyRegistry", "admin", "true")} <= set(rows)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"scanningEnabled": True}, ["scanningEnabled"]),
        ({"sso": True, "reportAnalytics": True, "dtrHost": "other.example"}, ["sso", "reportAnalytics"]),
        ({"webTLSKey": "-----BEGIN PRIVATE KEY-----"}, ["webTLSKey"]),
        ({"logLevel": "debug"}, ["logLevel"]),
        ({"replicaSettings": {}}, ["replicaSettings"]),
        ({"dtrHost": "https://other.example"}, ["dtrHost"]),
        ({"repoEventHistoryMaxAge": "a week", "readOnlyRegistry": True}, ["repoEventHistoryMaxAge"]),
        ({"repoEventHistoryToKeep": -1}, ["repoEventHistoryToKeep"]),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_whole(api: Api, changes: dict[str, Any], fields: list[str]):
    before = api.admin.get(PATH).json
    answer = api.admin.post(PATH, changes).expect(400)
    assert answer.codes == ["INVALID_SETTINGS"]
    detail = answer.json["errors"][0]["detail"]
    assert sorted(one["field"] for one in detail) == sorted(fields)
    assert all(one["message"] for one in detail)
    assert api.admin.get(PATH).json == before


def test_administrators_change_and_auditors_read(api: Api):
    api.make_users("plain", "looker")
    api.change("UPDATE accounts SET is_auditor = true WHERE name = 'looker'")
    assert api.anonymous.get(PATH).expect(401).codes == ["NOT_AUTHENTICATED"]
    assert api.as_("plain").get(PATH).expect(403).codes == ["NOT_AUTHORIZED"]
    api.as_("looker").get(PATH).expect(200)
    for name in ("plain", "looker"):
        assert api.as_(name).post(PATH, {"readOnlyRegistry": True}).expect(403).codes == ["NOT_AUTHORIZED"]


def test_a_read_only_registry_refuses_what_changes_it_and_pulls_go_on(api: Api):
    api.make_repository("admin/kept", visibility="public")
    client = Client(api.server, "admin", PASSWORD)
    image = make_image()
    client.push("admin/kept", image, "1")
    upload = client.start_upload("admin/kept")
    api.admin.post(PATH, {"readOnlyRegistry": True}).expect(202)
    changes = [
        ("POST", "/v2/admin/kept/blobs/uploads/", b""),
        ("PATCH", upload, b"x"),
        ("PUT", "/v2/admin/kept/manifests/2", image.payload),
        ("DELETE", "/v2/admin/kept/manifests/1", b""),
        ("DELETE", f"/v2/admin/kept/blobs/{'sha256:' + 'a' * 64}", b""),
    ]
    for method, path, body in changes:

        def is_refused(method: str = method, path: str = path, body: bytes = body) -> bool:
            answer = client.call(method, path, body)
            return answer.status == 405 and b"read-only" in answer.body

        soon(is_refused)
    client.call("GET", "/v2/admin/kept/manifests/1").expect(200)
    alerts = api.admin.get("/api/v0/meta/alerts").expect(200).json
    assert [one["class"] for one in alerts if one["id"] == "read-only"] == ["info"]
    api.admin.post(PATH, {"readOnlyRegistry": False}).expect(202)
    soon(lambda: client.call("POST", "/v2/admin/kept/blobs/uploads/").status == 202)


def test_create_on_push_is_switched_on_and_off(api: Api):
    client = Client(api.server, "admin", PASSWORD)

    def push(number: int) -> int:
        return client.call("POST", f"/v2/admin/made{number}/blobs/uploads/").status

    assert push(1) == 404
    api.admin.post(PATH, {"createRepositoryOnPush": True}).expect(202)
    soon(lambda: push(2) == 202)
    api.admin.post(PATH, {"createRepositoryOnPush": False}).expect(202)
    numbers = itertools.count(3)
    soon(lambda: push(next(numbers)) == 404)


def test_the_pages_name_the_address_that_was_set(api: Api):
    api.admin.post(PATH, {"dtrHost": "registry.example:8443"}).expect(202)
    soon(lambda: b"registry.example:8443" in api.anonymous.get("/login").body)
