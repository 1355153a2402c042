"""``/enzi/v0``: members, teams and public keys over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.api import Api
from tests.support.keys import KeyPair

ACCOUNTS = "/enzi/v0/accounts"
ACME = f"{ACCOUNTS}/acme"


@pytest.fixture(scope="module")
def world(api: Api) -> Api:
    """The organisation acme with three members, of whom ada is an owner, and the team devs."""
    api.make_users("ada", "bob", "cher", "dora")
    api.make_organization("acme", owners=("ada",), members=("bob", "cher"))
    api.make_team("acme/devs", "bob", "cher")
    return api


def collect(api: Api, path: str, key: str, size: int, **query: Any) -> list[Any]:
    """All records of a list, page by page."""
    found: list[Any] = []
    start = None
    while True:
        answer = api.admin.get(path, start=start, limit=size, **query).expect(200)
        found += answer.json[key]
        start = answer.json["nextPageStart"]
        assert answer.headers.get("x-next-page-start", "") == start
        if not start:
            return found
        assert len(answer.json[key]) == size


def test_members_are_put_in_read_and_taken_out(world: Api):
    path = f"{ACME}/members/dora"
    assert world.admin.get(path).expect(404).codes == ["NO_SUCH_MEMBER"]
    assert world.admin.put(path).expect(200).json["isAdmin"] is False
    record = world.admin.put(path, {"isAdmin": True}).expect(200).json
    assert (record["member"]["name"], record["member"]["isOrg"], record["isAdmin"]) == ("dora", False, True)
    assert world.admin.put(path, {}).expect(200).json["isAdmin"] is True
    assert world.admin.get(path).expect(200).json == record
    for _ in range(2):
        world.admin.delete(path).expect(204)
    assert world.admin.put(f"{ACME}/members/nobody", {}).expect(404).codes == ["NO_SUCH_ACCOUNT"]
    assert world.admin.put(f"{ACME}/members/docker-datacenter", {}).expect(404).codes == ["NO_SUCH_ACCOUNT"]
    assert world.admin.put(f"{ACCOUNTS}/ada/members/bob", {}).expect(404).codes == ["NO_SUCH_ACCOUNT"]
    assert world.admin.put(path, {"isAdmin": "yes"}).expect(400).codes == ["INVALID_JSON"]


@pytest.mark.parametrize("size", [1, 2, 10])
def test_lists_of_members_are_whole_page_by_page(world: Api, size: int):
    for path in (f"{ACME}/members", f"{ACME}/teams/devs/members"):
        everybody = collect(world, path, "members", size)
        admins = collect(world, path, "members", size, filter="admins")
        others = collect(world, path, "members", size, filter="non-admins")
        ids = [one["member"]["id"] for one in everybody]
        assert ids == sorted(ids)
        assert sorted(ids) == sorted(one["member"]["id"] for one in admins + others)
        assert all(one["isAdmin"] for one in admins)
        count = world.admin.get(path, filter="admins", limit=1).json["resourceCount"]
        assert count == len(everybody) == (3 if path.endswith("acme/members") else 2)
    orgs = collect(world, f"{ACCOUNTS}/ada/organizations", "memberOrgs", size)
    assert {one["org"]["name"]: one["isAdmin"] for one in orgs} == {"acme": True, "docker-datacenter": False}
    assert {one["org"]["name"]: one["org"]["membersCount"] for one in orgs} == {"acme": 3, "docker-datacenter": 5}
    assert world.admin.get(f"{ACME}/members", filter="owners").expect(400).codes == ["INVALID_PARAMETERS"]


@pytest.mark.parametrize("size", [1, 2, 10])
def test_members_are_listed_by_name_and_searched_page_by_page(world: Api, size: int):
    for path, names in (
        (f"{ACME}/members", ["ada", "bob", "cher"]),
        (f"{ACME}/teams/devs/members", ["bob", "cher"]),
    ):
        found = collect(world, path, "members", size, order="name")
        assert [one["member"]["name"] for one in found] == names
        found = collect(world, path, "members", size, order="name", contains="B")
        assert [one["member"]["name"] for one in found] == ["bob"]
    orgs = collect(world, f"{ACCOUNTS}/ada/organizations", "memberOrgs", size, order="name", contains="C")
    assert [one["org"]["name"] for one in orgs] == ["acme", "docker-datacenter"]
    assert [one["name"] for one in collect(world, f"{ACME}/teams", "teams", size, contains="EV")] == ["devs"]
    assert world.admin.get(f"{ACME}/members", order="age").expect(400).codes == ["INVALID_PARAMETERS"]


def test_members_are_listed_with_their_teams_for_who_asks_for_that(world: Api):
    listed = world.admin.get(f"{ACME}/members", order="name", details=True).expect(200).json["members"]
    assert {one["member"]["name"]: one["teams"] for one in listed} == {
        "ada": [],
        "bob": [{"name": "devs", "isAdmin": False}],
        "cher": [{"name": "devs", "isAdmin": False}],
    }
    assert "teams" not in world.admin.get(f"{ACME}/members", order="name").json["members"][0]


def test_owners_see_when_members_logged_in_last(world: Api):
    world.as_("bob").get(f"{ACCOUNTS}/bob").expect(200)
    for name, sees in (("admin", True), ("ada", True), ("cher", False)):
        listed = world.as_(name).get(f"{ACME}/members", order="name", details=True).expect(200).json["members"]
        assert ("lastLogin" in listed[1]) is sees
    assert "lastLogin" not in world.admin.get(f"{ACME}/members", order="name").json["members"][1]


def test_a_team_is_made_read_changed_and_removed(world: Api):
    made = world.admin.post(f"{ACME}/teams", {"name": "ops", "type": "managed"}).expect(201).json
    acme = world.admin.get(ACME).json
    assert made == {"id": made["id"], "orgID": acme["id"], "name": "ops", "description": "", "membersCount": 0}
    assert world.admin.get(f"{ACME}/teams/{made['id']}").expect(200).json == made
    changed = world.admin.patch(f"{ACME}/teams/ops", {"name": "oncall", "description": "day and night"}).expect(
        200
    )
    assert changed.json == made | {"name": "oncall", "description": "day and night"}
    assert world.admin.get(f"{ACME}/teams/ops").expect(404).codes == ["NO_SUCH_TEAM"]
    for size in (1, 2, 10):
        assert [one["name"] for one in collect(world, f"{ACME}/teams", "teams", size)] == ["devs", "oncall"]
    assert world.admin.get(f"{ACME}/teams").json["resourceCount"] == 2
    assert world.admin.get(ACME).json["teamsCount"] == 2
    for form, code in (
        ({"name": "devs"}, "TEAM_EXISTS"),
        ({"name": "Devs"}, "INVALID_TEAM_NAME"),
        ({"description": "x" * 1001}, "INVALID_JSON"),
    ):
        assert world.admin.patch(f"{ACME}/teams/oncall", form).expect(400).codes == [code]
        assert world.admin.post(f"{ACME}/teams", form).expect(400).codes == [code]
    world.admin.delete(f"{ACME}/teams/oncall").expect(204)
    assert world.admin.delete(f"{ACME}/teams/oncall").expect(404).codes == ["NO_SUCH_TEAM"]


def test_who_is_put_into_a_team_is_in_the_organization_and_leaves_both_apart(world: Api):
    path = f"{ACME}/teams/devs/members/dora"
    assert world.admin.get(path).expect(404).codes == ["NO_SUCH_MEMBER"]
    assert world.admin.put(path, {"isAdmin": True}).expect(200).json["isAdmin"] is True
    assert world.admin.get(f"{ACME}/members/dora").expect(200).json["isAdmin"] is False
    (team,) = collect(world, f"{ACME}/members/dora/teams", "memberTeams", 1)
    assert (team["team"]["name"], team["team"]["membersCount"], team["isAdmin"]) == ("devs", 3, True)
    world.admin.delete(path).expect(204)
    world.admin.get(f"{ACME}/members/dora").expect(200)
    world.admin.put(path).expect(200)
    world.admin.delete(f"{ACME}/members/dora").expect(204)
    assert world.admin.get(path).expect(404).codes == ["NO_SUCH_MEMBER"]


def test_public_keys_are_kept_read_changed_and_forgotten(world: Api):
    key, other = KeyPair(), KeyPair()
    path = f"{ACCOUNTS}/ada/publicKeys"
    ada = world.as_("ada")
    assert world.as_("bob").post(path, {"publicKey": key.pem}).expect(403).codes == ["NOT_AUTHORIZED"]
    certificates = [{"label": "bundle", "cert": key.certificate()}]
    form = {"publicKey": key.pem, "label": "laptop", "certificates": certificates}
    made = ada.post(path, form).expect(201).json
    assert made == form | {"id": key.id, "accountID": ada.get("/enzi/v0/id").json["id"]}
    assert ada.post(path, form).expect(400).codes == ["PUBLIC_KEY_EXISTS"]
    assert ada.post(path, {"publicKey": "x"}).expect(400).codes == ["INVALID_PUBLIC_KEY"]
    wrong = {"publicKey": other.pem, "certificates": certificates}
    assert ada.post(path, wrong).expect(400).codes == ["INVALID_PUBLIC_KEY"]
    ada.post(path, {"publicKey": other.pem}).expect(201)
    for size in (1, 2, 10):
        listed = collect(world, path, "accountPubKeys", size)
        assert [one["id"] for one in listed] == sorted([key.id, other.id])
    changed = ada.patch(f"{path}/{key.id}", {"label": "desk", "certificates": []}).expect(200).json
    assert changed == made | {"label": "desk", "certificates": []}
    assert world.as_("bob").get(f"{path}/{key.id}").expect(200).json == changed
    assert world.as_("bob").delete(f"{path}/{key.id}").expect(403)
    ada.delete(f"{path}/{key.id}").expect(204)
    assert ada.delete(f"{path}/{key.id}").expect(404).codes == ["NO_SUCH_PUBLIC_KEY"]
