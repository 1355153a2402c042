"""Robots of organizations and their tokens: every operation, by role, and what a robot may do itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.api import Api, User

ROBOTS = "/api/v0/accounts/acme/robots"
ROLES = {
    "nobody": None,
    "plain": "eve",
    "member": "mia",
    "namespace": "nia",
    "owner": "olga",
    "other owner": "oscar",
    "auditor": "audrey",
    "admin": "admin",
}
OWNERS = {"owner": 200, "admin": 200, "nobody": 401}


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    """The organisation acme of olga, with the member mia; nia administers its namespace."""
    api.make_users("eve", "mia", "nia", "olga", "oscar", "audrey")
    api.make_organization("acme", owners=("olga",), members=("mia",))
    api.make_organization("other", owners=("oscar",))
    for path in ("acme/app", "acme/lib"):
        api.make_repository(path)
    api.make_repository("other/public", visibility="public")
    api.server.do(lambda application: application.accounts.update("audrey", is_auditor=True))
    api.admin.put("/api/v0/repositoryNamespaces/acme/userAccess/nia", {"accessLevel": "admin"}).expect(200)


@pytest.fixture
def olga(api: Api) -> User:
    return api.as_("olga")


_names = (f"r{number}" for number in itertools.count())


@pytest.fixture
def robot(olga: User) -> str:
    """The short name of a new robot of acme."""
    name = next(_names)
    olga.post(ROBOTS, {"name": name, "description": "Builds"}).expect(201)
    return name


@pytest.fixture
def as_robot(api: Api, olga: User, robot: str) -> Callable[..., User]:
    """``as_robot(**form)``: the robot, with a new token."""

    def make(**form: Any) -> User:
        secret = olga.post(f"{ROBOTS}/{robot}/tokens", form).expect(201).json["token"]
        return api.as_(f"acme+{robot}", secret)

    return make


# --- making and changing ----------------------------------------------------------------------------------------


def test_a_robot_is_made_shown_changed_and_deleted(api: Api, olga: User) -> None:
    made = olga.post(ROBOTS, {"name": "ci", "description": "Builds"}).expect(201).json
    assert made["id"]
    assert made["createdAt"] > "2020"
    assert {name: made[name] for name in ("name", "shortName", "organization", "description", "isActive")} == {
        "name": "acme+ci", "shortName": "ci", "organization": "acme", "description": "Builds", "isActive": True,
    }  # fmt: skip
    assert olga.get(f"{ROBOTS}/ci").expect(200).json == made
    assert made in olga.get(ROBOTS, pageSize=1000).expect(200).json
    changed = olga.patch(f"{ROBOTS}/ci", {"isActive": False}).expect(200).json
    assert changed == {**made, "isActive": False}
    assert olga.patch(f"{ROBOTS}/ci", {"description": ""}).expect(200).json == {**changed, "description": ""}
    assert olga.delete(f"{ROBOTS}/ci").expect(204).body == b""
    for method in ("GET", "PATCH", "DELETE"):
        answer = olga.call(method, f"{ROBOTS}/ci", {} if method == "PATCH" else None)
        assert answer.expect(404).codes == ["NO_SUCH_ROBOT"]


def test_a_name_is_taken_once_in_the_organization_and_is_a_name(api: Api, olga: User, robot: str) -> None:
    assert olga.post(ROBOTS, {"name": robot}).expect(400).codes == ["ACCOUNT_EXISTS"]
    api.as_("oscar").post("/api/v0/accounts/other/robots", {"name": robot}).expect(201)
    for name in ("", "CI", "a+b", "a/b", "a b", "x" * 101):
        assert olga.post(ROBOTS, {"name": name}).expect(400).codes == ["INVALID_ACCOUNT_NAME"]
    for form in ({}, {"name": 5}, {"name": "x", "description": 5}, []):
        assert olga.post(ROBOTS, form).expect(400).codes == ["INVALID_JSON"]


def test_only_organizations_have_robots(api: Api) -> None:
    for path in ("", "/ci", "/ci/tokens"):
        for name, code in (("olga", "NOT_AN_ORGANIZATION"), ("nobody", "NO_SUCH_ACCOUNT")):
            assert api.admin.get(f"/api/v0/accounts/{name}/robots{path}").codes == [code]
    assert api.as_("olga").post("/api/v0/accounts/olga/robots", {"name": "x"}).codes == ["NOT_AN_ORGANIZATION"]


def test_the_list_comes_in_pages_with_its_count(api: Api) -> None:
    oscar, path = api.as_("oscar"), "/api/v0/accounts/other/robots"
    for number in range(5):
        oscar.post(path, {"name": f"p{number}"}).expect(201)
    count = int(oscar.get(path, count=True).headers["x-resource-count"])
    pages = [[one["shortName"] for one in page] for page in oscar.pages(path, 2)]
    names = list(itertools.chain(*pages))
    assert len(names) == count >= 5
    assert names == sorted(names)
    assert all(len(page) == 2 for page in pages[:-1])


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "", None, {**OWNERS, "auditor": 200}),
        ("POST", "", {"name": "{new}"}, OWNERS),
        ("GET", "/{robot}", None, {**OWNERS, "auditor": 200}),
        ("PATCH", "/{robot}", {"description": "x"}, OWNERS),
        ("GET", "/{robot}/tokens", None, {**OWNERS, "auditor": 200}),
        ("POST", "/{robot}/tokens", {"tokenLabel": "x"}, OWNERS),
        ("DELETE", "/{robot}/tokens/{token}", None, OWNERS),
        ("DELETE", "/{robot}", None, OWNERS),
    ],
)
def test_robots_are_the_business_of_owners_and_administrators(
    api: Api, olga: User, method: str, path: str, body: dict[str, str] | None, expected: dict[str, int]
) -> None:
    found = {}
    for role, name in ROLES.items():
        robot = next(_names)
        olga.post(ROBOTS, {"name": robot}).expect(201)
        token = olga.post(f"{ROBOTS}/{robot}/tokens", {}).expect(201).json["hashedToken"]
        given = {key: value.format(new=next(_names)) for key, value in body.items()} if body else None
        answer = api.as_(name).call(method, ROBOTS + path.format(robot=robot, token=token), given)
        found[role] = 200 if answer.status in {201, 204} else answer.status
    assert found == {role: expected.get(role, 403) for role in ROLES}


# --- tokens -----------------------------------------------------------------------------------------------------


def test_a_robots_tokens_are_made_listed_and_deleted(api: Api, olga: User, robot: str) -> None:
    path, scope = f"{ROBOTS}/{robot}/tokens", {"repositories": ["acme/app"], "actions": ["pull"]}
    form = {"tokenLabel": "build", "scope": scope, "expiresAt": "2999-01-01T00:00:00Z"}
    made = olga.post(path, form).expect(201).json
    assert (made["username"], made["tokenLabel"], made["scope"]) == (f"acme+{robot}", "build", scope)
    assert made["expiresAt"] == "2999-01-01T00:00:00Z"
    secret = made.pop("token")
    assert olga.get(path).expect(200).json == [made]
    assert olga.get(path, count=True).headers["x-resource-count"] == "1"
    assert olga.get("/api/v0/api_tokens").json == []
    caller = api.as_(f"acme+{robot}", secret)
    caller.get("/api/v0/repositories/other/public").expect(200)
    other = olga.post(ROBOTS, {"name": next(_names)}).expect(201).json["shortName"]
    elsewhere = olga.delete(f"{ROBOTS}/{other}/tokens/{made['hashedToken']}")
    assert elsewhere.expect(404).codes == ["NO_SUCH_API_TOKEN"]
    olga.delete(f"{path}/{made['hashedToken']}").expect(204)
    assert olga.delete(f"{path}/{made['hashedToken']}").expect(404).codes == ["NO_SUCH_API_TOKEN"]
    caller.get("/api/v0/repositories/other/public").expect(401)
    for bad, code in (
        ({"expiresAt": "2001-01-01T00:00:00Z"}, "INVALID_TOKEN"),
        ({"scope": {"repositories": ["**"], "actions": ["pull"]}}, "INVALID_TOKEN_SCOPE"),
    ):
        assert olga.post(path, bad).expect(400).codes == [code]
    for method in ("GET", "POST"):
        answer = olga.call(method, f"{ROBOTS}/no-such/tokens", {} if method == "POST" else None)
        assert answer.expect(404).codes == ["NO_SUCH_ROBOT"]


def test_an_administrator_finds_a_robots_tokens_among_all(api: Api, olga: User, robot: str) -> None:
    made = olga.post(f"{ROBOTS}/{robot}/tokens", {}).expect(201).json
    (found,) = api.admin.get("/api/v0/api_tokens", username=f"acme+{robot}").expect(200).json
    assert found["hashedToken"] == made["hashedToken"]
    api.admin.patch(f"/api/v0/api_tokens/{made['hashedToken']}", {"isActive": False}).expect(200)


# --- what a robot may do ----------------------------------------------------------------------------------------


def test_a_robot_has_what_it_was_granted(olga: User, robot: str, as_robot: Callable[..., User]) -> None:
    caller = as_robot()
    app, lib = "/api/v0/repositories/acme/app", "/api/v0/repositories/acme/lib"
    assert [caller.get(path).status for path in (app, lib, "/api/v0/repositories/other/public")] == [404, 404, 200]
    grant = f"{app}/userAccess/acme+{robot}"
    for level, seen, changed in (("read-only", 200, 403), ("admin", 200, 200)):
        olga.put(grant, {"accessLevel": level}).expect(200)
        assert caller.get(app).expect(seen).json["yourAccess"] == level
        caller.patch(app, {"shortDescription": "by a robot"}).expect(changed)
        caller.get(lib).expect(404)
    olga.delete(grant).expect(204)
    caller.get(app).expect(404)


def test_a_robot_manages_nothing_but_what_it_was_granted(
    api: Api, olga: User, robot: str, as_robot: Callable[..., User]
) -> None:
    name, path = f"acme+{robot}", "/api/v0/repositoryNamespaces/acme/userAccess"
    olga.put(f"{path}/{name}", {"accessLevel": "admin"}).expect(200)
    caller = as_robot()
    made = next(_names)
    caller.post("/api/v0/repositories/acme", {"name": made}).expect(201)
    caller.delete(f"/api/v0/repositories/acme/{made}").expect(204)
    for answer in (
        caller.get("/api/v0/api_tokens"),
        caller.post("/api/v0/api_tokens", {}),
        caller.get(ROBOTS),
        caller.post(ROBOTS, {"name": "more"}),
        caller.post(f"{ROBOTS}/{robot}/tokens", {}),
        caller.patch(f"{ROBOTS}/{robot}", {"isActive": True}),
        caller.get(f"/api/v0/accounts/{name}/settings"),
        caller.post("/api/v0/repositories/other", {"name": "x"}),
        caller.post(f"/api/v0/repositories/{name}", {"name": "x"}),
        caller.get("/api/v0/meta/settings"),
    ):
        assert answer.expect(403).codes == ["NOT_AUTHORIZED"]
    answer = caller.post(f"/enzi/v0/accounts/{name}/changePassword", {"newPassword": "a-new-password-1"})
    assert answer.status in {400, 403, 404}
    answer = api.admin.post(f"/enzi/v0/accounts/{name}/changePassword", {"newPassword": "a-new-password-1"})
    assert answer.status in {400, 404}
    assert api.rows("SELECT password_hash FROM accounts WHERE name = :name", name=name) == [(None,)]


def test_a_robot_that_is_switched_off_or_deleted_opens_nothing(
    olga: User, robot: str, as_robot: Callable[..., User], elsewhere: dict[str, str]
) -> None:
    caller = as_robot()

    def status() -> int:
        return caller.call("GET", "/api/v0/repositories/other/public", headers=elsewhere).status

    assert status() == 200
    olga.patch(f"{ROBOTS}/{robot}", {"isActive": False}).expect(200)
    assert status() == 401
    olga.patch(f"{ROBOTS}/{robot}", {"isActive": True}).expect(200)
    assert status() == 200
    olga.delete(f"{ROBOTS}/{robot}").expect(204)
    assert status() == 401


def test_a_robot_is_no_user_of_the_account_service(api: Api, robot: str) -> None:
    listed = api.admin.get("/enzi/v0/accounts/", limit=100).expect(200).json["accounts"]
    names = {one["name"] for one in listed}
    assert "acme" in names
    assert f"acme+{robot}" not in names
    for path in ("/enzi/v0/accounts/acme/members", "/enzi/v0/accounts/other/members"):
        assert api.admin.put(f"{path}/acme+{robot}", {"isAdmin": True}).status in {400, 404}


def test_every_change_is_an_event_of_who_made_it(api: Api, olga: User) -> None:
    name = next(_names)
    olga.post(ROBOTS, {"name": name}).expect(201)
    olga.patch(f"{ROBOTS}/{name}", {"isActive": False}).expect(200)
    olga.delete(f"{ROBOTS}/{name}").expect(204)
    told = api.rows(
        "SELECT type, actor_name, address FROM events WHERE object_name = :name ORDER BY id", name=f"acme+{name}"
    )
    assert told == [(kind, "olga", "127.0.0.1") for kind in ("CREATE", "UPDATE", "DELETE")]


def test_what_a_robot_was_granted_is_listed(api: Api, olga: User, robot: str) -> None:
    path = f"{ROBOTS}/{robot}/access"
    assert olga.get(path).expect(200).json == []
    for where in ("repositories/acme/lib", "repositoryNamespaces/acme"):
        grant = f"/api/v0/{where}/userAccess/acme+{robot}"
        olga.put(grant, {"accessLevel": "read-write"}).expect(200)
    listed = [
        {"path": "acme", "accessLevel": "read-write"},
        {"path": "acme/lib", "accessLevel": "read-write"},
    ]
    answer = olga.get(path, count=True).expect(200)
    assert (answer.json, answer.headers["x-resource-count"]) == (listed, "2")
    assert [one for page in api.as_("audrey").pages(path, 1) for one in page] == listed
    assert olga.get(f"{ROBOTS}/none/access").expect(404).codes == ["NO_SUCH_ROBOT"]
