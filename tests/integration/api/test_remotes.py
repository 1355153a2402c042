"""Remotes through the API; the registry that they lead to is the server itself, on the loopback network."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tests.contract.remotes.conftest import pieces_of
from tests.support.api import Api
from tests.support.images import digest_of, make_artifact, make_image
from tests.support.server import PASSWORD

from dtr.outbound import Addresses, Outside
from dtr.remotes import Permissions, Remote, RemoteDenied, Remotes, RemoteUnknown

SETTINGS = {"mirroring.allowed_networks": "127.0.0.1/32"}
SECRET = "hunter2 of the registry"
HIDDEN = "no address, or none that may be reached from here"


@pytest.fixture(scope="module")
def world(api: Api) -> Api:
    api.make_users("ada", "bob", "eve")
    api.make_organization("acme", owners=("ada",), members=("bob",))
    api.make_team("acme/readers", "bob")
    for path in ("acme/app", "acme/other"):
        api.make_repository(path)
    api.make_repository("acme/public", visibility="public")
    api.grant("acme/readers", "read-only", repository="acme/app")
    return api


def itself(api: Api, **more: Any) -> dict[str, Any]:
    return {"remoteHost": f"https://127.0.0.1:{api.server.port}", "skipTLSVerification": True, **more}


def remote(api: Api, repository: str, **more: Any) -> Remote:
    ca = api.server.ca.read_text()
    return Remote(host=f"https://127.0.0.1:{api.server.port}", repository=repository, ca=ca, **more)


# --- operations -----------------------------------------------------------------------------------------------


def test_a_remote_is_made_changed_and_deleted_and_its_secrets_are_never_shown(world: Api):
    ada = world.as_("ada")
    form = {**itself(world), "name": "hub", "namespace": "acme", "username": "bot", "password": SECRET}
    made = ada.post("/api/v0/remotes", form).expect(201)
    assert made.json["hasPassword"]
    assert not made.json["hasAuthToken"]
    path = f"/api/v0/remotes/{made.json['id']}"
    changed = ada.patch(path, {"name": "hub 2", "authToken": SECRET, "skipTLSVerification": None}).expect(200)
    assert changed.json == {
        **made.json, "name": "hub 2", "hasAuthToken": True, "updatedAt": changed.json["updatedAt"],
    }  # fmt: skip
    assert ada.get(path).expect(200).json == changed.json
    listed = ada.get("/api/v0/remotes", namespace="acme", count=True).expect(200)
    assert (listed.json, listed.headers["x-resource-count"]) == ([changed.json], "1")
    refused = ada.patch(path, {"remoteHost": "https://evil.example"}).expect(400)
    assert refused.codes == ["INVALID_REMOTE"]
    assert ada.post("/api/v0/remotes", {**form, "name": "hub 2"}).expect(400).codes == ["REMOTE_EXISTS"]
    assert ada.post("/api/v0/remotes", {**form, "remoteHost": "no host"}).expect(400).codes == ["INVALID_REMOTE"]
    answers = [made, changed, listed, refused, world.admin.get("/api/v0/events", pageSize=1000).expect(200)]
    assert b'"remote"' in answers[-1].body
    for one in answers:
        assert SECRET.encode() not in one.body
    assert SECRET not in str(world.rows("SELECT * FROM remotes"))
    assert SECRET not in world.server.log
    ada.delete(path).expect(204)
    assert ada.get(path).expect(404).codes == ["NO_SUCH_REMOTE"]


def test_lists_are_paged(world: Api):
    for name in ("c", "a", "b"):
        world.admin.post("/api/v0/remotes", {"name": name, "remoteHost": "docker.io"}).expect(201)
    pages = list(world.admin.pages("/api/v0/remotes", 2))
    assert [[one["name"] for one in page] for page in pages] == [["a", "b"], ["c"]]


def test_the_remote_of_a_policy_is_none_of_the_shared_ones(world: Api):
    number = world.rows("SELECT id FROM repositories WHERE path = 'acme/app'")[0][0]

    async def work(application: Any) -> str:
        from dtr.remotes import Definition, add

        prepared = await application.definitions.prepare(Definition(repository_id=number, host="docker.io"))
        await application.database.unit(lambda tx: add(tx, prepared))
        return str(prepared.id)

    single = world.server.do(work)
    assert world.admin.get(f"/api/v0/remotes/{single}").expect(404).codes == ["NO_SUCH_REMOTE"]
    assert world.admin.delete(f"/api/v0/remotes/{single}").expect(404).codes == ["NO_SUCH_REMOTE"]


@pytest.mark.parametrize(
    ("user", "repository", "expected"),
    [
        ("ada", "acme/app", {"read": True, "write": True}),
        ("bob", "acme/app", {"read": True, "write": False}),
        ("", "acme/public", {"read": True, "write": False}),
        ("eve", "acme/app", None),
        ("", "acme/app", None),
        ("eve", "acme/none", None),
        ("ada", "acme/none", {"read": True, "write": True}),
    ],
)
def test_what_may_be_done_at_a_registry(world: Api, user: str, repository: str, expected: Any):
    """With the rights of the user there; nothing comes of it."""
    before = world.rows("SELECT count(*) FROM uploads")
    secret = {"username": user, "password": PASSWORD} if user else {}
    form = itself(world, remoteRepository=repository, **secret)
    answer = world.as_("eve").post("/api/v0/remote/registry", form)
    if expected is None:
        assert answer.expect(400).codes == ["REMOTE_REGISTRY_INVALID_PERMISSIONS"]
    else:
        assert answer.expect(201).json["registryType"] == "dtr"
        assert answer.json["permissions"] == expected
    shown = world.as_("eve").post("/api/v0/remote/registry", form, explain=True).expect(201).json
    login = {"login": "ok"} if user else {}
    assert {one["name"]: one["state"] for one in shown["steps"]} == {
        "reach": "ok",
        "speak": "ok",
        **login,
        "read": "ok" if expected and expected["read"] else "failed",
        "write": "ok" if expected and expected["write"] else "failed",
    }
    assert world.rows("SELECT count(*) FROM uploads") == before
    assert world.rows("SELECT id FROM repositories WHERE path = 'acme/none'") == []


def test_wrong_passwords_and_tokens(world: Api, elsewhere: dict[str, str]):
    token = world.as_("ada").post("/api/v0/api_tokens", {"tokenLabel": "mirror"}).expect(200).json["token"]
    good = itself(world, remoteRepository="acme/app", username="ada", authToken=token)
    assert world.as_("eve").post("/api/v0/remote/registry", good).expect(201).json["permissions"]["write"]
    for wrong in ({"authToken": "wrong"}, {"authToken": "", "password": SECRET}):
        answer = world.as_("eve").post("/api/v0/remote/registry", {**good, **wrong}).expect(400)
        assert answer.codes == ["REMOTE_REGISTRY_INVALID_PERMISSIONS"]
        assert SECRET not in answer.body.decode()


def test_a_stored_remote_is_tried_with_its_secrets(world: Api):
    form = {**itself(world), "name": "self", "namespace": "acme", "username": "ada", "password": PASSWORD}
    made = world.as_("ada").post("/api/v0/remotes", form).expect(201).json
    path = f"/api/v0/remotes/{made['id']}/check"
    answer = world.as_("ada").post(path, {"remoteRepository": "acme/app"}).expect(200)
    assert answer.json["registryType"] == "dtr"
    assert answer.json["permissions"] == {"read": True, "write": True}
    assert world.as_("ada").post(path, {"remoteRepository": "A/B"}).expect(400).codes == ["INVALID_REMOTE"]
    assert world.as_("bob").post(path, {"remoteRepository": "acme/app"}).expect(404).codes == ["NO_SUCH_REMOTE"]


@pytest.mark.parametrize(
    ("changes", "ends", "reason"),
    [
        ({}, 6, ""),
        ({"remoteHost": "https://127.0.0.2:1"}, 0, "no address"),
        ({"remoteCA": ""}, 1, "certificate"),
        ({"remoteHost": "http"}, 1, "at another address"),
        ({"password": SECRET}, 3, "does not let these credentials in"),
    ],
)
def test_how_far_one_comes_is_told(world: Api, changes: dict[str, str], ends: int, reason: str):
    """Step by step, with the reason where it ends; what may not be reached looks like what is not there."""
    form = {
        **itself(world, remoteRepository="acme/app", skipTLSVerification=False),
        "remoteCA": world.server.ca.read_text(),
        "username": "ada",
        "password": PASSWORD,
        **changes,
    }
    names = ["reach", "trust", "speak", "login", "read", "write"]
    if changes == {"remoteHost": "http"}:
        form["remoteHost"] = f"http://127.0.0.1:{world.server.http_port}"
        names.remove("trust")
    shown = world.as_("eve").post("/api/v0/remote/registry", form, explain=True).expect(201).json
    assert [one["name"] for one in shown["steps"]] == names
    states = ["ok"] * ends + ["failed"] + ["open"] * len(names)
    assert [one["state"] for one in shown["steps"]] == states[: len(names)], shown
    assert shown["registryType"] == ("dtr" if ends > 2 else "")
    if reason:
        assert reason in shown["steps"][ends]["detail"]
        assert SECRET not in str(shown)
        world.as_("eve").post("/api/v0/remote/registry", form).expect(400)


def test_what_is_not_reached(world: Api):
    """Only who may change the settings is told which one it is; nobody is told whether something is there."""
    port = world.server.http_port
    for host in ("127.0.0.2", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "nowhere.invalid"):
        form = itself(world, remoteRepository="acme/app", remoteHost=f"http://{host}:{port}")
        for user, hint in ((world.as_("eve"), False), (world.admin, True)):
            answer = user.post("/api/v0/remote/registry", form).expect(400)
            assert answer.codes == ["REMOTE_REGISTRY_FAILED"]
            detail = answer.json["errors"][0]["detail"]
            assert detail.startswith(f"the remote: the host has {HIDDEN}")
            assert ("mirroring.allowed_networks" in detail) == hint
    closed = itself(world, remoteRepository="acme/app", remoteHost="https://127.0.0.1:1")
    answer = world.as_("eve").post("/api/v0/remote/registry", closed).expect(400)
    assert answer.json["errors"][0]["detail"] == "the remote: the request failed: Connection refused"
    untrusted = {**itself(world), "skipTLSVerification": False, "remoteRepository": "acme/app"}
    answer = world.as_("eve").post("/api/v0/remote/registry", untrusted).expect(400)
    assert "certificate of the host is not trusted" in answer.json["errors"][0]["detail"]
    trusted = {**untrusted, "remoteCA": world.server.ca.read_text(), "username": "ada", "password": PASSWORD}
    world.as_("eve").post("/api/v0/remote/registry", trusted).expect(201)


def test_networks_for_mirrors_are_not_those_for_webhooks(world: Api):
    form = {"type": "TAG_PUSH", "endpoint": f"https://127.0.0.1:{world.server.port}/", "skipTLSVerification": True}
    for user, hint in ((world.as_("eve"), False), (world.admin, True)):
        answer = user.post("/api/v0/webhooks/test", form).expect(400)
        assert answer.codes == ["WEBHOOK_TEST_FAILED"]
        detail = answer.json["errors"][0]["detail"]
        assert HIDDEN in detail
        assert ("webhooks.allowed_networks" in detail) == hint


# --- the client and a server of ours --------------------------------------------------------------------------


@pytest.fixture
def remotes() -> Remotes:
    return Remotes(Outside(Addresses(["127.0.0.1/32"])))


async def test_an_image_with_its_signature_goes_there_and_comes_back(world: Api, remotes: Remotes):
    image = make_image(layers=2, size=400_000)
    signature = make_artifact("application/x.signature", b"signed", subject=image)
    large = os.urandom(3_000_000)
    given = {"username": "ada", "password": PASSWORD}
    async with remotes.connect(remote(world, "acme/app", **given)) as there:
        assert await there.kind() == "dtr"
        await there.write_blob(digest_of(large), len(large), pieces_of(large))
        assert b"".join([one async for one in there.read_blob(digest_of(large), len(large))]) == large
        for one in (image, signature):
            for blob in one.blobs:
                await there.write_blob(digest_of(blob), len(blob), pieces_of(blob))
            await there.put_manifest(one.digest, one.payload, one.media_type)
        await there.put_manifest("v1", image.payload, image.media_type)
        found = await there.head_manifest("v1")
        assert found is not None
        assert (found.digest, found.size) == (image.digest, len(image.payload))
        assert [one.digest for one in await there.referrers(image.digest)] == [signature.digest]
        assert [tag async for tag in there.tags()] == ["v1"]
        assert await there.delete_manifest("v1")
        assert [tag async for tag in there.tags()] == []
        assert await there.head_manifest(image.digest) is not None
    async with remotes.connect(remote(world, "acme/other", **given)) as other:
        assert not await other.has_blob(digest_of(large))
        assert await other.mount_blob(digest_of(large), "acme/app")
        assert await other.has_blob(digest_of(large))


async def test_refresh_tokens_stand_for_a_log_in(world: Api, remotes: Remotes):
    """What `docker login` keeps."""
    query = "service=dtr&offline_token=true&client_id=tests"
    headers = {"Authorization": world.as_("bob").client.basic()}
    answer = world.anonymous.client.send("GET", f"/auth/token?{query}", None, headers).expect(200)
    async with remotes.connect(remote(world, "acme/app", token=answer.json["refresh_token"])) as there:
        assert await there.permissions() == Permissions(read=True, write=False)
        with pytest.raises(RemoteUnknown):
            await there.get_manifest("nothing")
        with pytest.raises(RemoteDenied):
            await there.put_manifest("v1", b"{}", "application/vnd.oci.image.manifest.v1+json")
