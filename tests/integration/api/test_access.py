"""What teams, users and robots are granted: every operation, by role, and its effect."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
from tests.support.api import Api, User

from dtr.accounts import Level
from dtr.app import Application

REPOSITORY, NAMESPACE, TEAM = (
    "/api/v0/repositories/acme/app",
    "/api/v0/repositoryNamespaces/acme",
    "/api/v0/accounts/acme/teams/devs/repositoryAccess",
)
LEVELS = ("read-only", "read-write", "admin")
ROLES = {
    "nobody": None,
    "plain": "eve",
    "member": "mia",
    "in the team": "dan",
    "reads": "ron",
    "administers": "rea",
    "namespace": "nia",
    "owner": "olga",
    "other owner": "oscar",
    "auditor": "audrey",
    "admin": "admin",
}


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    """
    The organisation acme with olga as its owner, mia and dan as members, dan in the team devs.

    Grants on acme/app: ron reads, rea administers it; nia administers the namespace. Nobody else has any.
    """
    api.make_users("eve", "mia", "dan", "ron", "rea", "nia", "olga", "oscar", "audrey", "liz")
    api.make_organization("acme", owners=("olga",), members=("mia", "dan"))
    api.make_organization("other", owners=("oscar",))
    for team, users in (("acme/devs", ("dan",)), ("acme/ops", ()), ("other/devs", ())):
        api.make_team(team, *users)
    for path in ("acme/app", "acme/deep/er", "acme/lib", "liz/own", "other/app"):
        api.make_repository(path)

    async def fill(application: Application) -> None:
        accounts = application.accounts
        await accounts.update("audrey", is_auditor=True)
        for organization in ("acme", "other"):
            await accounts.robots.create(await accounts.get(organization), "ci")
        for user, where, level in (
            ("ron", "acme/app", Level.READ),
            ("rea", "acme/app", Level.ADMIN),
            ("nia", "acme", Level.ADMIN),
        ):
            await accounts.grants.set_user(await accounts.grants.on(where), user, level)

    api.server.do(fill)


@pytest.fixture
def olga(api: Api) -> User:
    return api.as_("olga")


def level(api: Api, user: str, path: str) -> str:
    """What somebody may do in the end, as an administrator is told."""
    answer = api.admin.get(f"/api/v0/accounts/{user}/repositoryAccess/{path}").expect(200)
    return answer.json["accessLevel"]


# --- rights -----------------------------------------------------------------------------------------------------

ADMINISTER = {"administers": 200, "namespace": 200, "owner": 200, "admin": 200, "reads": 403, "nobody": 401}
MANAGE = {"namespace": 200, "owner": 200, "admin": 200, "nobody": 401}
MATRIX: list[tuple[str, str, Any, dict[str, int], int]] = [
    # method, path, body, statuses by role, status of all others
    ("GET", f"{REPOSITORY}/teamAccess", None, {**ADMINISTER, "auditor": 200}, 404),
    ("PUT", f"{REPOSITORY}/teamAccess/ops", "read-only", {**ADMINISTER, "auditor": 403}, 404),
    ("DELETE", f"{REPOSITORY}/teamAccess/ops", None, {**ADMINISTER, "auditor": 403}, 404),
    ("GET", f"{REPOSITORY}/userAccess", None, {**ADMINISTER, "auditor": 200}, 404),
    ("PUT", f"{REPOSITORY}/userAccess/liz", "read-only", {**ADMINISTER, "auditor": 403}, 404),
    ("DELETE", f"{REPOSITORY}/userAccess/liz", None, {**ADMINISTER, "auditor": 403}, 404),
    ("GET", f"{NAMESPACE}/teamAccess", None, {**MANAGE, "member": 200, "in the team": 200, "auditor": 200}, 403),
    ("PUT", f"{NAMESPACE}/teamAccess/devs", "read-only", MANAGE, 403),
    ("GET", f"{NAMESPACE}/teamAccess/devs", None, {**MANAGE, "in the team": 200, "auditor": 200}, 403),
    ("DELETE", f"{NAMESPACE}/teamAccess/devs", None, MANAGE, 403),
    ("GET", f"{NAMESPACE}/userAccess", None, {**MANAGE, "member": 200, "in the team": 200, "auditor": 200}, 403),
    ("PUT", f"{NAMESPACE}/userAccess/liz", "read-only", MANAGE, 403),
    ("DELETE", f"{NAMESPACE}/userAccess/liz", None, MANAGE, 403),
    ("GET", TEAM, None, {"owner": 200, "admin": 200, "in the team": 200, "auditor": 200, "nobody": 401}, 403),
]


@pytest.mark.parametrize(("method", "path", "body", "expected", "otherwise"), MATRIX)
def test_each_role_may_do_what_it_may_and_nothing_else(
    api: Api, method: str, path: str, body: str | None, expected: dict[str, int], otherwise: int
) -> None:
    if path == f"{NAMESPACE}/teamAccess/devs" and method != "PUT":
        api.admin.put(path, {"accessLevel": "read-only"}).expect(200)
    found, wanted = {}, {}
    for role, name in ROLES.items():
        answer = api.as_(name).call(method, path, {"accessLevel": body} if body else None)
        found[role] = 200 if answer.status == 204 else answer.status
        wanted[role] = expected.get(role, otherwise)
    assert found == wanted
    for grantee in ("teamAccess/ops", "userAccess/liz"):
        api.admin.delete(f"{REPOSITORY}/{grantee}").expect(204)
        api.admin.delete(f"{NAMESPACE}/{grantee}").expect(204)
    api.admin.delete(f"{NAMESPACE}/teamAccess/devs").expect(204)


def test_users_ask_what_they_may_themselves_and_administrators_and_auditors_about_all(api: Api) -> None:
    path = "/api/v0/accounts/ron/repositoryAccess/acme/app"
    answers = {name: api.as_(name).get(path) for name in ("ron", "admin", "audrey", "olga", "rea", "eve")}
    assert {name: answer.status for name, answer in answers.items()} == {
        "ron": 200, "admin": 200, "audrey": 200, "olga": 403, "rea": 403, "eve": 403,
    }  # fmt: skip
    api.anonymous.get(path).expect(401)
    answer = answers["ron"].json
    assert answer["accessLevel"] == "read-only"
    assert (answer["user"]["name"], answer["user"]["isOrg"]) == ("ron", False)
    assert (answer["repository"]["namespace"], answer["repository"]["name"]) == ("acme", "app")
    own = "/api/v0/accounts/eve/repositoryAccess/acme/app"
    assert api.as_("eve").get(own).expect(404).codes == ["NO_SUCH_REPOSITORY"]
    assert level(api, "eve", "acme/app") == "none"
    assert level(api, "olga", "acme/deep/er") == level(api, "admin", "acme/lib") == "admin"
    assert api.as_("audrey").get("/api/v0/accounts/audrey/repositoryAccess/acme/app").json["accessLevel"] == "none"
    for who in ("nobody", "acme"):
        answer = api.admin.get(f"/api/v0/accounts/{who}/repositoryAccess/acme/app")
        assert answer.expect(404).codes == ["NO_SUCH_USER"]
    assert api.admin.get("/api/v0/accounts/ron/repositoryAccess/acme/no").expect(404).codes == [
        "NO_SUCH_REPOSITORY"
    ]


# --- teams ------------------------------------------------------------------------------------------------------


def test_a_grant_to_a_team_is_answered_listed_changed_and_taken(api: Api, olga: User) -> None:
    for wanted in LEVELS:
        answer = olga.put(f"{REPOSITORY}/teamAccess/devs", {"accessLevel": wanted}).expect(200).json
        assert answer["repository"]["name"] == "app"
        assert answer["teamAccessList"] == olga.get(f"{REPOSITORY}/teamAccess").json["teamAccessList"]
        (access,) = answer["teamAccessList"]
        assert access["accessLevel"] == wanted
        assert access["team"]["name"] == "devs"
        assert access["team"]["clientUserIsMember"] is False
        assert level(api, "dan", "acme/app") == wanted
        seen = api.as_("dan").get(TEAM).expect(200).json
        assert seen["team"] == {**access["team"], "clientUserIsMember": True}
        assert [(one["accessLevel"], one["repository"]["name"]) for one in seen["repositoryAccessList"]] == [
            (wanted, "app")
        ]
    for _ in range(2):
        assert olga.delete(f"{REPOSITORY}/teamAccess/devs").expect(204).body == b""
    olga.delete(f"{REPOSITORY}/teamAccess/no-such-team").expect(204)
    assert olga.get(f"{REPOSITORY}/teamAccess").json["teamAccessList"] == []
    assert level(api, "dan", "acme/app") == "none"


def test_a_grant_on_a_namespace_holds_for_all_of_it(api: Api, olga: User) -> None:
    answer = olga.put(f"{NAMESPACE}/teamAccess/devs", {"accessLevel": "read-write"}).expect(200).json
    assert (answer["namespace"], answer["accessLevel"], answer["team"]["name"]) == ("acme", "read-write", "devs")
    assert olga.get(f"{NAMESPACE}/teamAccess/devs").expect(200).json == answer
    listed = olga.get(f"{NAMESPACE}/teamAccess").expect(200).json
    assert listed == {
        "namespace": "acme",
        "teamAccessList": [{"accessLevel": "read-write", "team": answer["team"]}],
    }
    assert {level(api, "dan", path) for path in ("acme/app", "acme/deep/er", "acme/lib")} == {"read-write"}
    assert api.as_("dan").get(TEAM).json["repositoryAccessList"] == []
    for _ in range(2):
        olga.delete(f"{NAMESPACE}/teamAccess/devs").expect(204)
    assert olga.get(f"{NAMESPACE}/teamAccess/devs").expect(404).codes == ["NO_SUCH_NAMESPACE_TEAM_ACCESS"]
    assert olga.get(f"{NAMESPACE}/teamAccess/no").expect(404).codes == ["NO_SUCH_NAMESPACE_TEAM_ACCESS"]


def test_a_name_with_several_parts_is_a_repository_as_any_other(api: Api, olga: User) -> None:
    path = "/api/v0/repositories/acme/deep/er/teamAccess"
    olga.put(f"{path}/devs", {"accessLevel": "read-only"}).expect(200)
    assert level(api, "dan", "acme/deep/er") == "read-only"
    olga.delete(f"{path}/devs").expect(204)


def test_a_team_is_one_of_the_organization(api: Api, olga: User) -> None:
    (foreign,) = api.rows(
        "SELECT teams.id FROM teams JOIN accounts ON accounts.id = teams.organization_id"
        " WHERE accounts.name = 'other'"
    )[0]
    for path in (f"{REPOSITORY}/teamAccess", f"{NAMESPACE}/teamAccess"):
        answer = olga.put(f"{path}/no", {"accessLevel": "admin"})
        assert answer.expect(404).codes == ["NO_SUCH_TEAM"]
        answer = olga.put(f"{path}/{foreign}", {"accessLevel": "admin"})
        assert answer.expect(400).codes == ["TEAM_ELSEWHERE"]
    access = f"/api/v0/accounts/acme/teams/{foreign}/repositoryAccess"
    assert olga.get(access).expect(400).codes == ["TEAM_ELSEWHERE"]
    for team, code in (("acme/teams/no", "NO_SUCH_TEAM"), ("nobody/teams/devs", "NO_SUCH_ACCOUNT")):
        assert api.admin.get(f"/api/v0/accounts/{team}/repositoryAccess").expect(404).codes == [code]


def test_what_a_user_owns_is_granted_to_no_team(api: Api) -> None:
    liz = api.as_("liz")
    for path in ("/api/v0/repositories/liz/own", "/api/v0/repositoryNamespaces/liz"):
        for answer in (
            liz.get(f"{path}/teamAccess"),
            liz.put(f"{path}/teamAccess/devs", {"accessLevel": "admin"}),
            liz.delete(f"{path}/teamAccess/devs"),
        ):
            assert answer.expect(400).codes == ["NOT_AN_ORGANIZATION"]
    answer = api.admin.get("/api/v0/accounts/liz/teams/devs/repositoryAccess")
    assert answer.expect(400).codes == ["NOT_AN_ORGANIZATION"]


@pytest.mark.parametrize("given", [{}, {"accessLevel": "none"}, {"accessLevel": "owner"}, {"accessLevel": 1}, []])
def test_a_level_is_one_of_three(olga: User, given: Any) -> None:
    for path in ("teamAccess/devs", "userAccess/eve"):
        for place in (REPOSITORY, NAMESPACE):
            assert olga.put(f"{place}/{path}", given).expect(400).codes == ["INVALID_JSON"]


def test_lists_come_in_pages_with_their_count(api: Api, olga: User) -> None:
    made = [f"p{number}" for number in range(5)]
    api.make_users(*made)
    for name in made:
        api.make_team(f"acme/{name}")
        olga.put(f"/api/v0/repositories/acme/lib/teamAccess/{name}", {"accessLevel": "read-only"}).expect(200)
        olga.put(f"/api/v0/repositories/acme/lib/userAccess/{name}", {"accessLevel": "read-only"}).expect(200)
    for kind, member in (("team", "team"), ("user", "user")):
        path = f"/api/v0/repositories/acme/lib/{kind}Access"
        pages = [[one[member]["name"] for one in page[f"{kind}AccessList"]] for page in olga.pages(path, 2)]
        assert list(map(len, pages)) == [2, 2, 1]
        assert list(itertools.chain(*pages)) == made
        assert olga.get(path, count=True).headers["x-resource-count"] == "5"
    for name in ("acme/a1", "acme/a2", "acme/a3"):
        api.make_repository(name)
        olga.put(f"/api/v0/repositories/{name}/teamAccess/p0", {"accessLevel": "admin"}).expect(200)
    path = "/api/v0/accounts/acme/teams/p0/repositoryAccess"
    pages = [[one["repository"]["name"] for one in page["repositoryAccessList"]] for page in olga.pages(path, 3)]
    assert pages == [["a1", "a2", "a3"], ["lib"]]
    assert olga.get(path, count=True).headers["x-resource-count"] == "4"


# --- users and robots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "path"), [("olga", "acme/app"), ("liz", "liz/own")])
def test_a_user_is_granted_something_on_a_repository(api: Api, owner: str, path: str) -> None:
    caller, access = api.as_(owner), f"/api/v0/repositories/{path}/userAccess"
    for wanted in LEVELS:
        answer = caller.put(f"{access}/eve", {"accessLevel": wanted}).expect(200).json
        (granted,) = answer["userAccessList"]
        assert (granted["accessLevel"], granted["user"]["name"]) == (wanted, "eve")
        assert granted in caller.get(access).expect(200).json["userAccessList"]
        assert level(api, "eve", path) == wanted
    assert api.as_("eve").get(f"/api/v0/repositories/{path}").expect(200).json["yourAccess"] == "admin"
    for _ in range(2):
        caller.delete(f"{access}/eve").expect(204)
    caller.delete(f"{access}/no-such-user").expect(204)
    api.as_("eve").get(f"/api/v0/repositories/{path}").expect(404)


@pytest.mark.parametrize(("owner", "namespace"), [("olga", "acme"), ("liz", "liz")])
def test_a_user_is_granted_something_on_a_namespace(api: Api, owner: str, namespace: str) -> None:
    caller, access = api.as_(owner), f"/api/v0/repositoryNamespaces/{namespace}/userAccess"
    answer = caller.put(f"{access}/eve", {"accessLevel": "admin"}).expect(200).json
    assert (answer["namespace"], answer["accessLevel"], answer["user"]["name"]) == (namespace, "admin", "eve")
    assert [
        one["user"]["name"] for one in caller.get(access).json["userAccessList"] if one["user"]["name"] == "eve"
    ]
    made = f"r{uuid.uuid4().hex[:8]}"
    api.as_("eve").post(f"/api/v0/repositories/{namespace}", {"name": made}).expect(201)
    caller.delete(f"{access}/eve").expect(204)
    api.as_("eve").get(f"/api/v0/repositories/{namespace}/{made}").expect(404)
    api.as_("eve").post(f"/api/v0/repositories/{namespace}", {"name": "more"}).expect(403)


def test_robots_are_granted_what_is_their_organizations(api: Api, olga: User) -> None:
    for path in (f"{REPOSITORY}/userAccess", f"{NAMESPACE}/userAccess"):
        answer = olga.put(f"{path}/acme+ci", {"accessLevel": "read-write"}).expect(200).json
        user = answer["user"] if "user" in answer else answer["userAccessList"][0]["user"]
        assert (user["name"], user["isOrg"], user["isAdmin"]) == ("acme+ci", False, False)
        assert level(api, "acme+ci", "acme/app") == "read-write"
        olga.delete(f"{path}/acme+ci").expect(204)
        answer = olga.put(f"{path}/other+ci", {"accessLevel": "read-write"})
        assert answer.expect(400).codes == ["NOT_GRANTABLE"]
    for place in ("repositories/liz/own", "repositoryNamespaces/liz"):
        answer = api.as_("liz").put(f"/api/v0/{place}/userAccess/acme+ci", {"accessLevel": "read-only"})
        assert answer.expect(400).codes == ["NOT_GRANTABLE"]


def test_nobody_else_is_granted_anything(olga: User) -> None:
    for path in (f"{REPOSITORY}/userAccess", f"{NAMESPACE}/userAccess"):
        for name in ("no-such-user", "acme", "acme+no", "%F0%9F%90%B3"):
            answer = olga.put(f"{path}/{name}", {"accessLevel": "read-only"})
            assert answer.expect(404).codes == ["NO_SUCH_USER"]


def test_what_is_not_there_is_told_to_those_who_may_know(api: Api, olga: User) -> None:
    for kind in ("teamAccess", "userAccess"):
        assert olga.get(f"/api/v0/repositories/acme/no/{kind}").expect(404).codes == ["NO_SUCH_REPOSITORY"]
        assert olga.get(f"/api/v0/repositoryNamespaces/no/{kind}").expect(404).codes == ["NO_SUCH_ACCOUNT"]
        assert olga.get(f"/api/v0/repositoryNamespaces/acme+ci/{kind}").status == 403
    # Nothing tells a private repository from one that is not there.
    seen = [api.as_("eve").get(f"/api/v0/repositories/acme/{name}/teamAccess") for name in ("app", "no")]
    assert [answer.expect(404).codes for answer in seen] == [["NO_SUCH_REPOSITORY"]] * 2


def test_every_change_of_a_grant_is_an_event_of_who_made_it(api: Api, olga: User) -> None:
    api.make_repository("acme/told")
    path = "/api/v0/repositories/acme/told"
    for grantee, target in (("teamAccess/devs", "acme/devs"), ("userAccess/eve", "eve")):
        olga.put(f"{path}/{grantee}", {"accessLevel": "read-only"}).expect(200)
        olga.put(f"{path}/{grantee}", {"accessLevel": "read-only"}).expect(200)
        olga.put(f"{path}/{grantee}", {"accessLevel": "admin"}).expect(200)
        olga.delete(f"{path}/{grantee}").expect(204)
        olga.delete(f"{path}/{grantee}").expect(204)
        told = api.rows(
            "SELECT type, actor_name, address, object_content FROM events WHERE object_type = 'grant'"
            " AND repository = 'acme/told' AND target_name = :target ORDER BY id",
            target=target,
        )
        assert told == [
            ("CREATE", "olga", "127.0.0.1", "read-only"),
            ("UPDATE", "olga", "127.0.0.1", "admin"),
            ("DELETE", "olga", "127.0.0.1", "admin"),
        ]


def test_what_a_user_has_access_to_is_told_with_its_reasons(api: Api):
    api.make_users("hilda")
    api.make_organization("held", members=("hilda",))
    api.make_team("held/devs", "hilda")
    for path in ("held/app", "held/other", "hilda/own"):
        api.make_repository(path)
    api.grant("held/devs", "read-only", repository="held/app")
    access = "/api/v0/repositories/held/app/userAccess/hilda"
    api.admin.put(access, {"accessLevel": "read-write"}).expect(200)
    path = "/api/v0/accounts/hilda/repositoryAccess"
    pages = api.as_("hilda").pages(path, 1)
    found = [one for page in pages for one in page["repositoryAccessList"]]
    assert [(one["repository"]["name"], one["accessLevel"]) for one in found] == [
        ("app", "read-write"),
        ("own", "admin"),
    ]
    assert [(one["kind"], one["on"], one["team"], one["accessLevel"]) for one in found[0]["reasons"]] == [
        ("user", "repository", "", "read-write"),
        ("team", "repository", "devs", "read-only"),
    ]
    counted = api.admin.get(path, count=True).expect(200)
    assert counted.headers["x-resource-count"] == "2"
    assert counted.json["user"]["name"] == "hilda"
    assert api.admin.get("/api/v0/accounts/held/repositoryAccess").expect(404).codes == ["NO_SUCH_USER"]
