"""What content trust signs: shown with tags, in the way of deletions, and forgotten by administrators."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.api import Api
from tests.support.images import make_image
from tests.support.notary import Key, Publisher

from dtr.app import Application
from dtr.trust import Collection
from dtr.tuf import Envelope

HERE, THERE = "dtr.example.com/acme/app", "old.example.com:8443/acme/app"
WHERE = "/api/v0/repositories/acme/app"
IMAGE, OTHER = make_image(), make_image()
SIGNED_AT = "1970-01-01T00:00:02Z"


@pytest.fixture(scope="module", autouse=True)
def people(api: Api) -> None:
    api.make_users("writer", "manager", "reader", "stranger", "owner")
    api.make_users("root", is_admin=True)
    for organization in ("acme", "leaving"):
        api.make_organization(organization, owners=("owner",))
    for team, level in (("writers", "read-write"), ("managers", "admin"), ("readers", "read-only")):
        api.make_team(f"acme/{team}", team.removesuffix("s"))
        api.grant(f"acme/{team}", level)


@pytest.fixture(autouse=True)
def app(api: Api) -> Iterator[None]:
    """`signed` by two, `moved` since it was signed, `plain`, and `gone`, which is in content trust alone."""
    api.make_repository("acme/app")
    api.admin.client.push("acme/app", IMAGE, "signed")
    for tag in ("moved", "plain"):
        api.admin.client.push("acme/app", OTHER, tag)
    for role in ("targets/alice", "targets/releases"):
        api.sign("acme/app", "signed", IMAGE.digest, role=role, gun=HERE)
    api.sign("acme/app", "moved", IMAGE.digest, gun=THERE)
    api.sign("acme/app", "gone", IMAGE.digest, gun=THERE)
    yield
    api.admin.delete(f"{WHERE}/trustData").expect(204, 404)
    api.admin.delete(WHERE).expect(204, 404)


def states(api: Api, where: str = f"{WHERE}/tags", **query: str) -> dict[str, tuple[bool, bool]]:
    found = api.as_("reader").get(where, **query).expect(200).json
    return {one["name"]: (one["inNotary"], one["hashMismatch"]) for one in found}


def test_tags_tell_who_signed_what(api: Api):
    assert states(api) == {"moved": (True, True), "plain": (False, False), "signed": (True, False)}
    found = {one["name"]: one.get("trust") for one in api.as_("reader").get(f"{WHERE}/tags").json}
    alice = {
        "role": "targets/alice",
        "signer": "alice",
        "gun": HERE,
        "digest": IMAGE.digest,
        "signedAt": SIGNED_AT,
    }
    assert found == {
        "moved": [{**alice, "role": "targets", "signer": "", "gun": THERE}],
        "plain": None,
        "signed": [alice, {**alice, "role": "targets/releases", "signer": ""}],
    }
    (one,) = api.as_("reader").get(f"{WHERE}/tags/signed").expect(200).json
    assert one["trust"] == found["signed"]
    assert states(api, f"{WHERE}/tags/{OTHER.digest}") == {"moved": (True, True), "plain": (False, False)}


def test_an_address_of_the_server_can_be_asked_for(api: Api):
    for where in (f"{WHERE}/tags", f"{WHERE}/tags/{OTHER.digest}"):
        assert states(api, where, domain="old.example.com:8443")["moved"] == (True, True)
        assert states(api, where, domain="dtr.example.com")["moved"] == (False, False)
    assert states(api, domain="") == states(api)
    assert set(states(api, domain="nowhere.example").values()) == {(False, False)}
    api.admin.client.put_manifest("acme/app", OTHER, "signed").expect(201)
    assert states(api)["signed"] == (True, True)


def test_signed_tags_are_not_deleted_in_any_way(api: Api):
    writer = api.as_("writer")
    for tag in ("signed", "moved"):
        for domain in ("", "dtr.example.com"):
            answer = writer.delete(f"{WHERE}/tags/{tag}", domain=domain)
            assert (answer.status, answer.codes) == (409, ["TAG_IN_NOTARY"])
        answer = writer.delete(f"{WHERE}/manifests/{tag}")
        assert (answer.status, answer.codes) == (409, ["TAG_IN_NOTARY"])
        answer = writer.client.call("DELETE", f"/v2/acme/app/manifests/{tag}")
        assert (answer.status, answer.codes) == (409, ["TAG_IN_NOTARY"])
        assert tag in answer.json["errors"][0]["message"]
    answer = writer.client.call("DELETE", f"/v2/acme/app/manifests/{IMAGE.digest}")
    assert (answer.status, answer.codes) == (409, ["TAG_IN_NOTARY"])
    answer = writer.post(f"{WHERE}/tags/delete", {"tags": ["signed", "plain", "gone", "moved"]}).expect(200)
    assert answer.json == [
        {"name": "signed", "deleted": False, "inNotary": True},
        {"name": "plain", "deleted": True, "inNotary": False},
        {"name": "gone", "deleted": False, "inNotary": False},
        {"name": "moved", "deleted": False, "inNotary": True},
    ]
    assert set(states(api)) == {"signed", "moved"}


def test_pruning_tells_why_signed_tags_stay(api: Api):
    always = [{"any": [{"field": "signed", "operator": "eq", "values": [one]} for one in ("true", "false")]}]
    answer = api.as_("manager").post(f"{WHERE}/pruningPolicies/test", {"rules": always}, explain=True).expect(200)
    found = {one["name"]: (one["prune"], one["keptBy"]) for one in answer.json}
    assert found == {"moved": (False, "signed"), "plain": (True, ""), "signed": (False, "signed")}


def test_repositories_with_signed_tags_are_not_deleted_in_any_way(api: Api):
    api.make_repository("acme/plain")
    for who, where in (
        ("manager", WHERE),
        ("owner", "/api/v0/accounts/acme/repositories"),
        ("root", "/api/v0/accounts/acme"),
    ):
        answer = api.as_(who).delete(where)
        assert (answer.status, answer.codes) == (405, ["REPOSITORY_CONTAINS_TAGS_IN_NOTARY"]), where
        assert "acme/app" in answer.json["errors"][0]["detail"]
    api.as_("reader").get("/api/v0/repositories/acme/plain").expect(200)
    api.as_("reader").get(WHERE).expect(200)


def test_a_repository_keeps_its_signatures_when_it_is_renamed(api: Api):
    api.as_("owner").post(f"{WHERE}/rename", {"name": "renamed"}).expect(200)
    renamed = "/api/v0/repositories/acme/renamed"
    assert states(api, f"{renamed}/tags")["signed"] == (True, False)
    assert api.as_("owner").delete(renamed).codes == ["REPOSITORY_CONTAINS_TAGS_IN_NOTARY"]
    api.as_("owner").delete(f"{renamed}/trustData").expect(204)
    api.as_("owner").delete(renamed).expect(204)


def test_a_promotion_goes_on_when_its_tag_is_signed(api: Api):
    """From the publication, as a client makes it, to the job of the policies."""
    source, target = "/api/v0/repositories/acme/source", "/api/v0/repositories/acme/target"
    for path in ("acme/source", "acme/target"):
        api.make_repository(path)
    rule = {"field": "signed", "operator": "eq", "values": ["true"]}
    form = {"rules": [rule], "targetRepository": "acme/target", "tagTemplate": "%n", "enabled": True}
    policy = api.as_("manager").post(f"{source}/promotionPolicies", form).expect(201).json["id"]
    api.admin.client.push("acme/source", IMAGE, "v1")
    manager = api.as_("manager")
    until(lambda: manager.get(f"{source}/promotionPolicies/{policy}/waiting").expect(200).json)
    assert manager.get(f"{target}/tags").json == []

    async def publish(application: Application) -> None:
        number = (await application.repositories.get("acme/source")).id
        collection = Collection(number, "dtr.example.com/acme/source")
        keys = [await application.trust.get_key(collection, role) for role in ("timestamp", "snapshot")]
        publisher, key = Publisher(collection.gun, *(one.to_json() for one in keys)), Key.make()
        for files in (
            publisher.first(),
            publisher.delegate("targets/alice", [key]),
            publisher.delegate("targets/releases", [key]),
            publisher.sign({"v1": (IMAGE.digest, len(IMAGE.payload))}, "targets/alice", "targets/releases"),
        ):
            await application.trust.publish(
                collection, [(role, Envelope.parse(content)) for role, content in files.items()]
            )

    api.server.do(publish)
    found = {one["name"]: (one["inNotary"], one["hashMismatch"]) for one in manager.get(f"{source}/tags").json}
    assert found == {"v1": (True, False)}
    (tag,) = manager.get(f"{source}/tags/v1").json
    assert [(one["role"], one["signer"]) for one in tag["trust"]] == [
        ("targets/alice", "alice"),
        ("targets/releases", ""),
    ]
    until(lambda: manager.get(f"{target}/tags").expect(200).json)
    (promoted,) = manager.get(f"{target}/tags").json
    assert (promoted["name"], promoted["digest"], promoted["inNotary"]) == ("v1", IMAGE.digest, False)
    roles = [one["name"] for one in manager.get(f"{source}/trustData").json[0]["roles"]]
    assert roles == ["root", "snapshot", "targets", "targets/alice", "targets/releases", "timestamp"]
    assert manager.delete(source).codes == ["REPOSITORY_CONTAINS_TAGS_IN_NOTARY"]
    manager.delete(f"{source}/trustData/v1").expect(204)
    manager.delete(source).expect(204)
    assert api.rows("SELECT count(*) FROM trust_files WHERE gun = 'dtr.example.com/acme/source'") == [(0,)]


def until(look: Callable[[], object]) -> None:
    """Wait for what a worker does."""
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_administrators_have_a_tag_forgotten_without_keys(api: Api):
    manager = api.as_("manager")
    assert api.as_("writer").delete(f"{WHERE}/trustData/signed").codes == ["NOT_AUTHORIZED"]
    manager.delete(f"{WHERE}/trustData/signed").expect(204)
    assert manager.delete(f"{WHERE}/trustData/signed").codes == ["NO_SUCH_SIGNATURE"]
    assert manager.delete(f"{WHERE}/trustData/plain").codes == ["NO_SUCH_SIGNATURE"]
    assert manager.delete(f"{WHERE}/trustData/-x").codes == ["NO_SUCH_SIGNATURE"]
    assert states(api)["signed"] == (False, False)
    roles = {
        (one["gun"], role["name"]): (role["tags"], role["forgotten"])
        for one in manager.get(f"{WHERE}/trustData").expect(200).json
        for role in one["roles"]
        if role["name"] != "timestamp"
    }
    assert roles == {
        (HERE, "targets/alice"): (1, 1),
        (HERE, "targets/releases"): (1, 1),
        (THERE, "targets"): (2, 0),
    }
    events = manager.get(f"{WHERE}/events", pageSize=100).expect(200).json["events"]
    (event,) = [one for one in events if one["object"]["type"] == "trust_tag"]
    assert (event["type"], event["actorName"], event["object"]["name"], event["object"]["content"]) == (
        "DELETE",
        "manager",
        "signed",
        IMAGE.digest,
    )
    api.as_("writer").delete(f"{WHERE}/tags/signed").expect(204)


def test_administrators_delete_collections_without_keys(api: Api):
    manager = api.as_("manager")
    for who, codes in (("writer", ["NOT_AUTHORIZED"]), ("stranger", ["NO_SUCH_REPOSITORY"])):
        assert api.as_(who).delete(f"{WHERE}/trustData").codes == codes
    collections = manager.get(f"{WHERE}/trustData", domain="old.example.com:8443").expect(200).json
    assert [one["gun"] for one in collections] == [THERE]
    assert collections[0]["roles"][0]["expiresAt"] == "2096-10-02T07:06:40Z"
    manager.delete(f"{WHERE}/trustData", domain="old.example.com:8443").expect(204)
    assert states(api) == {"moved": (False, False), "plain": (False, False), "signed": (True, False)}
    manager.delete(f"{WHERE}/trustData").expect(204)
    manager.delete(f"{WHERE}/trustData").expect(204)
    assert manager.get(f"{WHERE}/trustData").json == []
    assert set(states(api).values()) == {(False, False)}
    manager.delete(WHERE).expect(204)
