"""``/api/v0/admin``: storages as DTR configured its one, and as many as there are; no tag is lost by any of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.images import make_image
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server

REGISTRY = "/api/v0/admin/settings/registry"
STORAGES = "/api/v0/admin/storages"
MASK = "********"
IMAGE = make_image(layers=2, size=70_000)


@pytest.fixture
def place(api: Api, tmp_path: Path) -> Iterator[Path]:
    """An empty directory; afterwards blobs are where they were, and storages as they were."""
    directory = tmp_path / "blobs"
    directory.mkdir()
    before = {one["name"] for one in api.admin.get(STORAGES).json}
    yield directory
    ended(api, api.admin.post(f"{STORAGES}/default/migration", {"keepSource": True}).expect(202).json["id"])
    api.change("DELETE FROM gc_objects WHERE location NOT LIKE 'default:%'")
    api.change("UPDATE storages SET used_until = 0")
    for one in api.admin.get(STORAGES).json:
        if one["name"] not in before:
            api.admin.delete(f"{STORAGES}/{one['name']}").expect(204)


@pytest.fixture(scope="module", autouse=True)
def image(api: Api) -> None:
    api.make_repository("admin/app")
    api.admin.client.push("admin/app", IMAGE, "v1")


def ended(api: Api, job: str, status: str = "done") -> list[str]:
    """The log of a job that ended so."""
    deadline = time.monotonic() + 60
    while (found := api.admin.get(f"/api/v0/jobs/{job}").expect(200).json["status"]) not in {"done", "errored"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lines = [json.loads(line["data"])["msg"] for line in api.admin.get(f"/api/v0/jobs/{job}/logs").json]
    assert found == status, lines
    return lines


def problems(answer: Any, code: str) -> dict[str, str]:
    (error,) = answer.json["errors"]
    assert error["code"] == code
    return {one["field"]: one["message"] for one in error["detail"]} if isinstance(error["detail"], list) else {}


def storages(api: Api) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in api.admin.get(STORAGES).expect(200).json}


def put_text(api: Api, text: str, kind: str) -> Any:
    client = api.admin.client
    headers = {"Authorization": client.basic(), "Content-Type": kind}
    return client.send("PUT", f"{REGISTRY}/simple", text.encode(), headers)


def s3(server: S3Server, prefix: str, **changes: Any) -> dict[str, Any]:
    """As DTR's scripts said it."""
    return {
        "rootdirectory": prefix,
        "region": "us-east-1",
        "regionendpoint": server.endpoint.removeprefix("http://"),
        "bucket": "blobs",
        "accesskey": ACCESS_KEY,
        "secretkey": SECRET_KEY,
        "secure": False,
        **changes,
    }


def test_what_is_read_can_be_written_back(api: Api):
    for path in (REGISTRY, f"{REGISTRY}/simple"):
        document = api.admin.get(path).expect(200).json
        changed = api.admin.put(path, document).expect(202).json
        assert (changed["storage"], changed["isNew"], changed["jobID"]) == ("default", False, "")
        assert api.admin.get(path).json == document
    assert document["storage"] == {
        "filesystem": {"rootdirectory": str(api.server.directory / "blobs")},
        "delete": {"enabled": True},
        "redirect": {"disable": True},
        "maintenance": {"readonly": {"enabled": False}},
    }
    api.admin.client.assert_whole("admin/app", IMAGE, "v1")


def test_another_place_takes_new_blobs_and_old_ones_stay(api: Api, place: Path):
    """What wiped all tags of a DTR."""
    changed = api.admin.put(REGISTRY, {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(place)}}})
    assert changed.expect(202).json == {"storage": "filesystem", "isNew": True, "jobID": "", "ignored": []}
    assert api.admin.get("/api/v0/meta/settings").json["storageVolume"] == str(place)
    found = storages(api)
    assert (found["default"]["isDefault"], found["filesystem"]["isDefault"]) == (False, True)
    before = found["default"]["blobs"]
    api.admin.client.assert_whole("admin/app", IMAGE, "v1")
    time.sleep(2)  # every worker knows it
    fresh = make_image(layers=1, size=80_000)
    api.admin.client.push("admin/app", fresh, "v2")
    found = storages(api)
    assert (found["default"]["blobs"], found["filesystem"]["blobs"]) == (before, 1)
    for tag, one in (("v1", IMAGE), ("v2", fresh)):
        api.admin.client.assert_whole("admin/app", one, tag)


def test_contents_that_were_copied_by_hand_are_taken_over_after_a_look(api: Api, place: Path):
    blobs = api.server.directory / "blobs"
    shutil.copytree(blobs, place, dirs_exist_ok=True)
    lost = next(one for one in sorted(place.rglob("*")) if one.is_file())
    lost.unlink()
    total = storages(api)["default"]["blobs"]
    document = api.admin.get(REGISTRY).json | {"keep_metadata": True}
    document["storage"]["filesystem"]["rootdirectory"] = str(place)
    changed = api.admin.put(REGISTRY, document).expect(202).json
    lines = ended(api, changed["jobID"], "errored")
    assert any(f"nothing is stored at filesystem:{lost.relative_to(place)}" in line for line in lines), lines
    found = storages(api)
    assert (found["default"]["blobs"], found["filesystem"]["blobs"]) == (1, total - 1), lines
    api.admin.client.assert_whole("admin/app", IMAGE, "v1")
    shutil.copyfile(blobs / lost.relative_to(place), lost)
    form = {"from": ["default"], "copied": True, "verify": True}
    ended(api, api.admin.post(f"{STORAGES}/filesystem/migration", form).expect(202).json["id"])
    assert storages(api)["default"]["blobs"] == 0
    api.admin.client.assert_whole("admin/app", IMAGE, "v1")


def test_secrets_are_masked_and_kept(api: Api, place: Path, s3_server: S3Server):
    form = {"storage": {"s3": s3(s3_server, "secrets"), "delete": {"enabled": True}}}
    assert api.admin.put(f"{REGISTRY}/simple", form).expect(202).json["storage"] == "s3"
    shown = api.admin.get(f"{REGISTRY}/simple").expect(200)
    assert shown.json["storage"]["s3"]["secretkey"] == MASK
    assert SECRET_KEY.encode() not in shown.body
    changed = shown.json
    changed["storage"]["s3"]["region"] = "eu-west-1"
    changed["storage"]["redirect"]["disable"] = False
    assert api.admin.put(f"{REGISTRY}/simple", changed).expect(202).json["isNew"] is False
    del changed["storage"]["s3"]["secretkey"]
    api.admin.put(f"{REGISTRY}/simple", changed).expect(202)
    record = api.admin.get(f"{STORAGES}/s3").expect(200).json
    assert (record["parameters"]["region"], record["parameters"]["secret_key"]) == ("eu-west-1", MASK)
    assert record["redirectSeconds"] == 300
    api.admin.post(f"{STORAGES}/s3/check").expect(204)
    # Elsewhere it may be somebody else's store, who would get it.
    elsewhere = {"storage": {"s3": shown.json["storage"]["s3"] | {"rootdirectory": "elsewhere"}}}
    refused = problems(api.admin.put(REGISTRY, elsewhere).expect(400), "INVALID_STORAGE")
    assert refused == {"storage.s3.secretkey": "has to be given again for another place"}
    wrong = {"storage": {"s3": s3(s3_server, "secrets", secretkey="wrong-secret")}}
    answer = api.admin.put(REGISTRY, wrong).expect(400)
    problems(answer, "STORAGE_REFUSED")
    assert b"wrong-secret" not in answer.body
    api.admin.post(f"{STORAGES}/s3/check").expect(204)
    ((events,),) = api.rows("SELECT count(*) FROM events WHERE object_type = 'storage'")
    assert events > 0
    for secret in (SECRET_KEY, "wrong-secret"):
        assert api.rows("SELECT count(*) FROM storages WHERE secrets LIKE :s", s=f"%{secret}%") == [(0,)]
    api.admin.put(f"{STORAGES}/default/default").expect(204)


@pytest.mark.parametrize("kind", ["application/yaml", "text/plain", "application/x-www-form-urlencoded"])
def test_a_document_is_yaml_or_json_whatever_its_type(api: Api, kind: str):
    root = api.server.directory / "blobs"
    text = f"storage:\n  filesystem:\n    rootdirectory: {root}\n  cache: {{blobdescriptor: inmemory}}\n"
    changed = put_text(api, text, kind).expect(202).json
    assert (changed["storage"], changed["ignored"]) == ("default", ["storage.cache"])
    put_text(api, f'{{"storage": {{"filesystem": {{"rootdirectory": "{root}"}}}}}}', kind).expect(202)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"storage": {"s3": {"buckett": "b"}}}, {"storage.s3.buckett": "is not known"}),
        ({"storage": {"s3": {"region": "eu-west-1"}}}, {"storage.s3.bucket": "is needed"}),
        ({"storage": {"swift": {"container": "c"}}}, {"storage.swift.authurl": "is needed"}),
        ({"storage": {"rados": {}}}, {"storage.rados"}),
        ({"storage": {"inmemory": {}}, "proxy": {"remoteurl": "https://x"}}, {"proxy"}),
        ({"storage": {"inmemory": {}}, "keep_metadata": "yes"}, {"keep_metadata": "is true or false"}),
        (
            {"storage": {"inmemory": {}, "delete": {"enabled": False}}},
            {"storage.delete.enabled": "cannot be changed here: registry.delete says it"},
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(api: Api, document: dict[str, Any], expected: Any):
    refused = problems(api.admin.put(REGISTRY, document).expect(400), "INVALID_STORAGE")
    if isinstance(expected, dict):
        assert refused.items() >= expected.items()
    else:
        assert refused.keys() == expected
    assert storages(api).keys() == {"default"}


def test_what_is_no_document_is_refused(api: Api, tmp_path: Path):
    for text in ("", "- a", "a: b: c", "[" * 500):
        problems(put_text(api, text, "text/plain").expect(400), "INVALID_JSON")
    problems(
        api.admin.put(f"{REGISTRY}/simple", {"storage": {"inmemory": {}}, "version": "0.1"}), "INVALID_STORAGE"
    )
    missing = {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "not there")}}}
    problems(api.admin.put(REGISTRY, missing).expect(400), "STORAGE_REFUSED")
    assert storages(api).keys() == {"default"}


def test_the_read_only_mode_is_part_of_the_document(api: Api):
    document = api.admin.get(REGISTRY).json
    document["storage"]["maintenance"]["readonly"]["enabled"] = True
    api.admin.put(REGISTRY, document).expect(202)
    assert api.admin.get("/api/v0/meta/settings").json["readOnlyRegistry"] is True
    document["storage"]["maintenance"]["readonly"]["enabled"] = False
    api.admin.put(REGISTRY, document).expect(202)
    assert api.admin.get("/api/v0/meta/settings").json["readOnlyRegistry"] is False


def test_storages_are_made_used_emptied_and_removed(api: Api, place: Path):
    form = {"driver": "filesystem", "parameters": {"root": str(place)}, "redirectExcept": ["10.0.0.0/8"]}
    made = api.admin.put(f"{STORAGES}/fast", form).expect(200).json
    assert made.pop("createdAt") == made.pop("changedAt")
    assert made.pop("isOpen") is True
    assert made == {
        "name": "fast",
        "driver": "filesystem",
        "place": place.as_uri(),
        "parameters": {"root": str(place)},
        "isDefault": False,
        "isFromSettings": False,
        "redirectSeconds": None,
        "redirectExcept": ["10.0.0.0/8"],
        "namespaces": [],
        "blobs": 0,
        "bytes": 0,
        "uploads": 0,
        "deletions": 0,
    }
    api.make_organization("quick")
    api.make_repository("quick/app")
    api.admin.put(f"{STORAGES}/fast/namespaces/quick").expect(204)
    assert storages(api)["fast"]["namespaces"] == ["quick"]
    time.sleep(2)
    image = make_image(layers=1, size=90_000)
    api.admin.client.push("quick/app", image, "v1")
    assert storages(api)["fast"]["blobs"] == 1
    problems(api.admin.delete(f"{STORAGES}/fast").expect(409), "STORAGE_IN_USE")
    moved = form | {"parameters": {"root": str(place.parent)}}
    problems(api.admin.put(f"{STORAGES}/fast", moved).expect(409), "STORAGE_IN_USE")
    api.admin.delete(f"{STORAGES}/default/namespaces/quick").expect(204)  # it is not assigned to that one
    assert storages(api)["fast"]["namespaces"] == ["quick"]
    job = api.admin.post(f"{STORAGES}/default/migration", {"from": ["fast"]}).expect(202).json
    assert job["action"] == "storage_migrate"
    assert ended(api, job["id"])[-1].startswith("moved 1 blobs of 9")
    found = storages(api)["fast"]
    assert (found["blobs"], found["deletions"], found["namespaces"]) == (
        0,
        1,
        [],
    )  # new ones go where old ones went
    api.admin.client.assert_whole("quick/app", image, "v1")
    problems(api.admin.delete(f"{STORAGES}/fast").expect(409), "STORAGE_IN_USE")  # a pull may still read there


def test_a_storage_is_tried_step_by_step_before_it_is_saved(api: Api, place: Path, s3_server: S3Server):
    parameters = {
        "bucket": "blobs",
        "endpoint": s3_server.endpoint,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "path_style": True,
        "verify": False,
    }
    form = {"driver": "s3", "parameters": parameters}
    tried = api.admin.post(f"{STORAGES}/cloud/test", form).expect(200)
    assert tried.json["works"] is True
    assert tried.json["place"].endswith("/blobs")
    assert [one["step"] for one in tried.json["steps"]] == [
        "open",
        "write",
        "read",
        "list",
        "sign",
        "delete",
        "rest",
    ]
    assert {one["state"] for one in tried.json["steps"]} == {"good"}
    wrong = api.admin.post(f"{STORAGES}/cloud/test", form | {"parameters": parameters | {"secret_key": "wr0ng"}})
    steps = {one["step"]: one for one in wrong.expect(200).json["steps"]}
    assert wrong.json["works"] is False
    assert [name for name, one in steps.items() if one["state"] == "skipped"] == [*list(steps)[2:]]
    assert steps["write"]["message"]
    assert b"wr0ng" not in wrong.body
    bad = form | {"parameters": parameters | {"part_size": 1}}
    assert problems(api.admin.post(f"{STORAGES}/cloud/test", bad).expect(400), "INVALID_STORAGE").keys() == {
        "parameters.part_size"
    }
    assert storages(api).keys() == {"default"}
    assert api.admin.post(f"{STORAGES}/default/test").expect(200).json["works"] is True


def test_who_changes_a_storage_says_how_it_was(api: Api, place: Path):
    form = {"driver": "filesystem", "parameters": {"root": str(place)}, "changedAt": "0001-01-01T00:00:00Z"}
    made = api.admin.put(f"{STORAGES}/second", form).expect(200).json
    problems(api.admin.put(f"{STORAGES}/second", form).expect(409), "STORAGE_CHANGED")
    again = api.admin.put(f"{STORAGES}/second", form | {"changedAt": made["changedAt"]}).expect(200).json
    problems(api.admin.put(f"{STORAGES}/second", form | {"changedAt": made["changedAt"]}), "STORAGE_CHANGED")
    assert again["createdAt"] == made["createdAt"]
    assert again["isOpen"] is True
    quick = {one["name"]: one for one in api.admin.get(STORAGES, usage="false").expect(200).json}
    assert (quick["default"]["blobs"], quick["default"]["bytes"]) == (None, None)
    assert storages(api)["default"]["bytes"] > 70_000


def test_a_job_that_cannot_be_done_says_why(api: Api):
    for parameters, reason in (
        ({}, "there is no storage called ''"),
        ({"to": "nowhere"}, "there is no storage called 'nowhere'"),
        ({"to": "default", "from": "default"}, "default is where the blobs go"),
        ({"to": "default", "rate": "fast"}, "rate is a whole number above 0"),
    ):
        job = api.admin.post("/api/v0/jobs", {"action": "storage_migrate", "parameters": parameters}).expect(202)
        assert any(reason in line for line in ended(api, job.json["id"], "errored"))


def test_refusals(api: Api, place: Path):
    for method, path in (
        ("GET", "nowhere"),
        ("DELETE", "nowhere"),
        ("POST", "nowhere/check"),
        ("POST", "nowhere/test"),
        ("PUT", "nowhere/default"),
        ("PUT", "nowhere/namespaces/admin"),
        ("DELETE", "nowhere/namespaces/admin"),
    ):
        problems(api.admin.call(method, f"{STORAGES}/{path}").expect(404), "NO_SUCH_STORAGE")
    problems(api.admin.post(f"{STORAGES}/nowhere/migration", {}).expect(404), "NO_SUCH_STORAGE")
    problems(api.admin.post(f"{STORAGES}/default/migration", {"from": ["nowhere"]}).expect(404), "NO_SUCH_STORAGE")
    problems(api.admin.post(f"{STORAGES}/default/migration", {"from": ["default"]}).expect(400), "INVALID_STORAGE")
    problems(api.admin.put(f"{STORAGES}/default/namespaces/nobody").expect(404), "NO_SUCH_ACCOUNT")
    problems(api.admin.delete(f"{STORAGES}/default").expect(409), "STORAGE_IN_USE")
    for form, field in (
        ({"driver": "tape"}, "driver"),
        ({"driver": "s3", "parameters": {"bucket": ["a"]}}, "parameters.bucket"),
        ({"driver": "filesystem", "parameters": {"path": "/srv"}}, "parameters.path"),
        ({"driver": "filesystem"}, "parameters.root"),
    ):
        assert problems(api.admin.put(f"{STORAGES}/odd", form).expect(400), "INVALID_STORAGE").keys() == {field}
    files = {"driver": "filesystem", "parameters": {"root": str(place)}}
    problems(api.admin.put(f"{STORAGES}/Odd_Name", files).expect(400), "STORAGE_REFUSED")
    problems(api.admin.put(f"{STORAGES}/odd", files | {"redirectExcept": ["x"]}).expect(400), "STORAGE_REFUSED")
    problems(api.admin.put(f"{STORAGES}/odd", files | {"redirectSeconds": 1}).expect(400), "STORAGE_REFUSED")
    assert storages(api).keys() == {"default"}
