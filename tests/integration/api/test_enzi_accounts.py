"""``/enzi/v0/accounts``: users and organisations."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from tests.support.api import Api, User

from dtr.accounts import AccountQuery
from dtr.app import Application
from dtr.http.api.enzi.records import account_records

ACCOUNTS = "/enzi/v0/accounts"


@pytest.fixture(scope="module")
def world(api: Api) -> Api:
    """ada, Bob without full name, cher who is off, dora who audits; the organisation acme with ada in its team."""
    for name, full_name in (("ada", "Åsa Lovelace"), ("bob", ""), ("cher", "100%_"), ("dora", "asa d.")):
        api.admin.post(ACCOUNTS, {"name": name, "fullName": full_name, "password": "x"}).expect(201)
    api.admin.patch(f"{ACCOUNTS}/cher", {"isActive": False}).expect(200)
    api.admin.patch(f"{ACCOUNTS}/dora", {"isAuditor": True}).expect(200)
    api.make_organization("acme", members=("ada",))
    api.make_team("acme/devs", "ada")
    return api


def names(user: User, **query: Any) -> list[str]:
    return [one["name"] for one in user.get(ACCOUNTS, limit=100, **query).expect(200).json["accounts"]]


# --- lists ----------------------------------------------------------------------------------------------------


def test_lists_are_filtered(world: Api):
    ada = world.as_("ada", "x")
    assert names(ada) == ["acme", "ada", "admin", "bob", "cher", "docker-datacenter", "dora"]
    assert names(ada, filter="all") == names(ada)
    assert names(ada, filter="users") == ["ada", "admin", "bob", "cher", "dora"]
    assert names(ada, filter="orgs") == ["acme", "docker-datacenter"]
    assert names(ada, filter="admins") == ["admin"]
    assert names(ada, filter="non-admins") == ["ada", "bob", "cher", "dora"]
    assert names(ada, filter="active-users") == ["ada", "admin", "bob", "dora"]
    assert names(ada, filter="inactive-users") == ["cher"]
    assert ada.get(ACCOUNTS, filter="robots").expect(403).codes == ["NOT_AUTHORIZED"]
    assert ada.get(ACCOUNTS, filter="admins,users").expect(400).codes == ["INVALID_PARAMETERS"]


def test_a_robot_is_in_no_list_but_its_own(world: Api):
    world.admin.post("/api/v0/accounts/acme/robots", {"name": "ci"}).expect(201)
    assert "acme+ci" not in names(world.admin)
    assert "acme+ci" not in names(world.admin, filter="users", contains="ci")
    assert names(world.admin, filter="robots") == ["acme+ci"]
    assert names(world.as_("dora", "x"), filter="robots") == ["acme+ci"]
    assert world.admin.get(f"{ACCOUNTS}/acme+ci").expect(200).json["isOrg"] is False
    assert world.as_("ada", "x").get(f"{ACCOUNTS}/acme+ci").expect(404).codes == ["NO_SUCH_ACCOUNT"]
    counts = world.admin.get(ACCOUNTS).json
    assert (counts["usersCount"], counts["orgsCount"]) == (5, 2)
    world.admin.delete("/api/v0/accounts/acme/robots/ci").expect(204)


def test_lists_are_ordered_either_way_by_name_or_full_name(world: Api):
    by_name = names(world.admin, filter="users")
    assert names(world.admin, filter="users", order="+name") == by_name
    assert names(world.admin, filter="users", order="-name") == by_name[::-1]
    by_full_name = ["bob", "cher", "admin", "dora", "ada"]  # by bytes
    assert names(world.admin, filter="users", order="fullName") == by_full_name
    assert names(world.admin, filter="users", order="+fullName") == by_full_name
    assert names(world.admin, filter="users", order="-fullName") == by_full_name[::-1]
    assert world.admin.get(ACCOUNTS, order="id").expect(400).codes == ["INVALID_PARAMETERS"]


def test_a_part_of_a_name_is_found_whatever_its_case(world: Api):
    for part in ("åsa", "ÅSA", "Åsa", "love", "LOVELACE", "A\u030asa"):
        assert names(world.admin, contains=part) == ["ada"], part
    assert names(world.admin, contains="DO", filter="users") == ["dora"]
    assert names(world.admin, contains="0%_") == ["cher"]
    assert names(world.admin, contains="%") == ["cher"]
    assert names(world.admin, contains="_") == ["cher"]
    assert names(world.admin, contains="\\") == []
    world.admin.patch(f"{ACCOUNTS}/bob", {"fullName": "Özgür"}).expect(200)
    assert names(world.admin, contains="özgür") == ["bob"]
    world.admin.patch(f"{ACCOUNTS}/bob", {"fullName": ""}).expect(200)
    assert names(world.admin, contains="özgür") == []


@pytest.mark.parametrize("order", ["name", "-name", "fullName", "-fullName"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_follow_each_other_without_holes(world: Api, order: str, size: int):
    wanted = names(world.admin, order=order)
    found: list[str] = []
    start = ""
    while True:
        answer = world.admin.get(ACCOUNTS, order=order, limit=size, start=start or None).expect(200)
        page = answer.json
        assert (page["usersCount"], page["orgsCount"], page["resourceCount"]) == (5, 2, 7)
        assert answer.headers["x-resource-count"] == "7"
        found += [one["name"] for one in page["accounts"]]
        start = page["nextPageStart"]
        assert answer.headers.get("x-next-page-start", "") == start
        if not start:
            break
        assert len(page["accounts"]) == size
    assert found == wanted


def test_a_page_has_ten_records_by_default_and_begins_with_the_one_that_is_named(world: Api):
    assert names(world.admin, start="bob", filter="users") == ["bob", "cher", "dora"]
    assert names(world.admin, start="b", filter="users") == ["bob", "cher", "dora"]
    world.make_users(*(f"z{number}" for number in range(10)))
    page = world.admin.get(ACCOUNTS, contains="z", filter="users").json
    assert len(page["accounts"]) == 10
    for number in range(10):
        world.admin.delete(f"{ACCOUNTS}/z{number}").expect(204)
    for wrong in ({"limit": 0}, {"limit": -1}, {"limit": "x"}):
        assert world.admin.get(ACCOUNTS, **wrong).expect(400).codes == ["INVALID_PARAMETERS"]


# --- one account ----------------------------------------------------------------------------------------------


def test_a_user_and_an_organization_have_their_own_fields(world: Api):
    ada = world.admin.get(f"{ACCOUNTS}/ada").expect(200).json
    assert ada == {
        "name": "ada",
        "id": ada["id"],
        "fullName": "Åsa Lovelace",
        "isOrg": False,
        "isAdmin": False,
        "isActive": True,
        "isImported": False,
        "isAuditor": False,
    }
    acme = world.admin.get(f"{ACCOUNTS}/acme").expect(200).json
    assert acme == {
        "name": "acme",
        "id": acme["id"],
        "fullName": "",
        "isOrg": True,
        "membersCount": 1,
        "teamsCount": 1,
    }
    listed = world.admin.get(ACCOUNTS, limit=100).json["accounts"]
    assert ada in listed
    assert acme in listed


def test_an_id_does_as_well_as_a_name_and_a_slash_at_the_end_does_no_harm(world: Api):
    for account in ("ada", "acme"):
        found = world.admin.get(f"{ACCOUNTS}/{account}").json
        for path in (found["id"], f"{account}/", f"{found['id']}/"):
            assert world.admin.get(f"{ACCOUNTS}/{path}").expect(200).json == found
    assert world.admin.get(f"{ACCOUNTS}/").expect(200)
    ids = {name: world.admin.get(f"{ACCOUNTS}/{name}").json["id"] for name in ("acme", "ada")}
    member = world.admin.get(f"{ACCOUNTS}/{ids['acme']}/members/{ids['ada']}").expect(200).json
    assert member["member"]["name"] == "ada"
    assert world.admin.get(f"{ACCOUNTS}/nobody").expect(404).codes == ["NO_SUCH_ACCOUNT"]
    assert world.admin.get(f"{ACCOUNTS}/00000000-0000-0000-0000-000000000000").status == 404


def test_a_new_user_is_in_the_organization_that_all_are_in(world: Api):
    orgs = world.admin.get(f"{ACCOUNTS}/bob/organizations").expect(200).json["memberOrgs"]
    assert [(one["org"]["name"], one["isAdmin"]) for one in orgs] == [("docker-datacenter", False)]
    assert world.admin.get(f"{ACCOUNTS}/docker-datacenter").json["membersCount"] == 5


def test_what_cannot_be_an_account_is_refused(world: Api):
    for form, code in (
        ({"name": "ada", "password": "x"}, "ACCOUNT_EXISTS"),
        ({"name": "ada", "isOrg": True}, "ACCOUNT_EXISTS"),
        ({"name": "Ada", "password": "x"}, "INVALID_ACCOUNT_NAME"),
        ({"name": "a+b", "password": "x"}, "INVALID_ACCOUNT_NAME"),
        ({"name": "00000000-0000-0000-0000-000000000000", "isOrg": True}, "INVALID_ACCOUNT_NAME"),
        ({"name": "new", "password": ""}, "INVALID_PASSWORD"),
        ({"name": "new"}, "INVALID_PASSWORD"),
        ({"name": "new", "searchLDAP": True}, "NO_DIRECTORY"),
        ({"password": "x"}, "INVALID_JSON"),
        ({"name": "new", "password": 1}, "INVALID_JSON"),
        ({"name": "new", "password": "x", "fullName": "x" * 1001}, "INVALID_JSON"),
        ([], "INVALID_JSON"),
    ):
        assert world.admin.post(ACCOUNTS, form).expect(400).codes == [code], form
    assert world.admin.get(f"{ACCOUNTS}/new").status == 404


def test_a_user_is_made_as_the_form_says(world: Api, elsewhere: dict[str, str]):
    form = {"name": "lena", "fullName": "Lena", "isActive": False, "isAdmin": True, "isAuditor": True}
    made = world.admin.post(ACCOUNTS, form | {"password": "x"}).expect(201).json
    assert made == form | {"id": made["id"], "isOrg": False, "isImported": False}
    assert world.admin.get(f"{ACCOUNTS}/lena").expect(200).json == made
    world.as_("lena", "x").call("GET", ACCOUNTS, None, elsewhere).expect(401)
    world.admin.delete(f"{ACCOUNTS}/lena").expect(204)


def test_a_list_asks_a_bounded_number_of_questions_whatever_is_on_it(world: Api):
    reads: dict[int, int] = {}

    async def count(application: Application) -> None:
        accounts = application.accounts
        for size in (1, 7):
            seen: list[str] = []
            application.database.observe = lambda kind, _, seen=seen: seen.append(kind)
            found = await accounts.list_accounts(AccountQuery(), limit=size)
            await account_records(accounts, found)
            await accounts.count()
            reads[size] = len(seen)

    world.server.do(count)
    assert reads == {1: 3, 7: 3}


def test_flags_are_for_users(world: Api):
    for flag in ("isAdmin", "isAuditor"):
        answer = world.admin.patch(f"{ACCOUNTS}/acme", {flag: True})
        assert answer.expect(400).codes == ["NOT_A_USER"]


def test_a_deactivated_user_is_out_and_can_come_back(world: Api, elsewhere: dict[str, str]):
    world.make_users("frida")
    frida = world.as_("frida")
    frida.get(f"{ACCOUNTS}/ada").expect(200)
    world.admin.patch(f"{ACCOUNTS}/frida", {"isActive": False}).expect(200)
    assert frida.call("GET", f"{ACCOUNTS}/ada", None, elsewhere).expect(401).codes == ["NOT_AUTHENTICATED"]
    world.admin.patch(f"{ACCOUNTS}/frida", {"isActive": True}).expect(200)
    frida.call("GET", f"{ACCOUNTS}/ada", None, elsewhere).expect(200)
    world.admin.delete(f"{ACCOUNTS}/frida").expect(204)
    assert world.admin.delete(f"{ACCOUNTS}/frida").expect(404).codes == ["NO_SUCH_ACCOUNT"]


def test_an_account_with_repositories_is_not_removed(world: Api):
    world.make_repository("acme/app")
    assert world.admin.delete(f"{ACCOUNTS}/acme").expect(409).codes == ["ACCOUNT_IN_USE"]


def test_there_is_always_somebody_who_administers(world: Api):
    for answer in (
        world.admin.patch(f"{ACCOUNTS}/admin", {"isAdmin": False}),
        world.admin.patch(f"{ACCOUNTS}/admin", {"isActive": False}),
        world.admin.delete(f"{ACCOUNTS}/admin"),
    ):
        assert answer.expect(409).codes == ["LAST_ADMINISTRATOR"]


def test_many_changes_at_once_succeed_and_fail_each_for_itself(world: Api):
    world.make_users("u1", "u2", "u3")
    u3 = world.admin.get(f"{ACCOUNTS}/u3").json["id"]
    operations = [
        {"op": "update", "ref": "u1", "value": {"fullName": "First", "isAuditor": True}},
        {"op": "deactivate", "ref": "u2"},
        {"op": "delete", "ref": u3},
        {"op": "delete", "ref": "u3"},
        {"op": "update", "ref": "u1", "value": {"isAdmin": "yes"}},
        {"op": "update", "ref": "acme", "value": {"isAdmin": True}},
        {"op": "deactivate", "ref": "admin"},
        {"op": "paint", "ref": "u1"},
        {"op": "activate", "ref": "u2"},
    ]
    results = world.admin.patch(ACCOUNTS, {"operations": operations}).expect(200).json["results"]
    assert [(one["op"], one["ref"]) for one in results] == [(one["op"], one["ref"]) for one in operations]
    assert [one["success"] for one in results] == [True, True, True, False, False, False, False, False, True]
    codes = [one["error"]["code"] for one in results if not one["success"]]
    assert codes == ["NO_SUCH_ACCOUNT", "INVALID_JSON", "NOT_A_USER", "LAST_ADMINISTRATOR", "INVALID_JSON"]
    assert world.admin.get(f"{ACCOUNTS}/u1").json["fullName"] == "First"
    assert world.admin.get(f"{ACCOUNTS}/u2").json["isActive"] is True
    for name in ("u1", "u2"):
        world.admin.delete(f"{ACCOUNTS}/{name}").expect(204)


# --- passwords ------------------------------------------------------------------------------------------------


def test_a_user_changes_its_password_with_the_old_one(world: Api, elsewhere: dict[str, str]):
    world.make_users("greta")
    greta = world.as_("greta")
    path = f"{ACCOUNTS}/greta/changePassword"
    for form in ({"newPassword": "new"}, {"oldPassword": "wrong", "newPassword": "new"}):
        answer = greta.call("POST", path, form, elsewhere)
        assert answer.expect(403).codes == ["INCORRECT_PASSWORD"]
    too_short = {"oldPassword": greta.client.password, "newPassword": ""}
    assert greta.call("POST", path, too_short, elsewhere).expect(400).codes == ["INVALID_PASSWORD"]
    form = {"oldPassword": greta.client.password, "newPassword": "new"}
    assert greta.call("POST", path, form, elsewhere).expect(200).json["name"] == "greta"
    greta.call("GET", ACCOUNTS, None, elsewhere).expect(401)
    world.as_("greta", "new").get(ACCOUNTS).expect(200)


def test_an_access_token_is_no_old_password(world: Api, elsewhere: dict[str, str]):
    world.make_users("heidi")
    secret = world.server.do(lambda application: application.accounts.tokens.create("heidi", "laptop"))
    form = {"oldPassword": secret, "newPassword": "new"}
    answer = world.as_("heidi", secret).call("POST", f"{ACCOUNTS}/heidi/changePassword", form, elsewhere)
    assert answer.expect(403).codes == ["INCORRECT_PASSWORD"]


def test_guessing_the_old_password_is_slowed_down(world: Api, elsewhere: dict[str, str]):
    world.make_users("ivan")
    secret = world.server.do(lambda application: application.accounts.tokens.create("ivan", "laptop"))
    ivan = world.as_("ivan", secret)
    form = {"oldPassword": "wrong", "newPassword": "new"}
    answers = []
    while not answers or answers[-1].status == 403:  # the first pauses are short, and may be over
        answers.append(ivan.call("POST", f"{ACCOUNTS}/ivan/changePassword", form, elsewhere))
        assert len(answers) < 50
    assert {403, 429} == {one.status for one in answers}
    assert "retry-after" in answers[-1].headers


def test_an_administrator_needs_the_own_old_password_but_not_that_of_others(world: Api):
    world.make_users("judy")
    world.admin.post(f"{ACCOUNTS}/judy/changePassword", {"newPassword": "new"}).expect(200)
    world.as_("judy", "new").get(ACCOUNTS).expect(200)
    answer = world.admin.post(f"{ACCOUNTS}/admin/changePassword", {"newPassword": "new"})
    assert answer.expect(403).codes == ["INCORRECT_PASSWORD"]
    assert world.admin.post(f"{ACCOUNTS}/acme/changePassword", {"newPassword": "new"}).expect(404)


# --- what is written down -------------------------------------------------------------------------------------


def test_changes_are_written_down_with_who_made_them_from_where(world: Api, elsewhere: dict[str, str]):
    def events(kind: str) -> list[tuple[Any, ...]]:
        return world.rows(
            "SELECT type, actor_name, address, object_name, object_content FROM events"
            " WHERE object_type = :kind AND object_name = 'kim' ORDER BY id",
            kind=kind,
        )

    address = elsewhere["X-Forwarded-For"]
    for method, path, body in (
        ("POST", ACCOUNTS, {"name": "kim", "password": "planted-secret"}),
        ("PATCH", f"{ACCOUNTS}/kim", {"isAdmin": True, "fullName": ""}),
        ("PATCH", f"{ACCOUNTS}/kim", {"isAdmin": True}),  # changes nothing
        ("POST", f"{ACCOUNTS}/kim/changePassword", {"newPassword": "planted-secret"}),
        ("PUT", f"{ACCOUNTS}/acme/members/kim", {"isAdmin": True}),
        ("PUT", f"{ACCOUNTS}/acme/members/kim", {}),  # changes nothing
        ("PUT", f"{ACCOUNTS}/acme/members/kim", {"isAdmin": False}),
        ("PUT", f"{ACCOUNTS}/acme/teams/devs/members/kim", {}),
        ("DELETE", f"{ACCOUNTS}/acme/teams/devs/members/kim", None),
        ("DELETE", f"{ACCOUNTS}/acme/members/kim", None),
    ):
        world.admin.call(method, path, body, elsewhere).expect(200, 201, 204)
    world.as_("kim", "wrong").call("GET", ACCOUNTS, None, elsewhere).expect(401)
    world.admin.call("DELETE", f"{ACCOUNTS}/kim", None, elsewhere).expect(204)
    accounts = events("account")
    assert [row[:3] for row in accounts] == [
        ("CREATE", "admin", address),
        ("UPDATE", "admin", address),
        ("UPDATE", "admin", address),
        ("FAIL", "", address),
        ("DELETE", "admin", address),
    ]
    assert accounts[1][4] == '{"is_admin": true}'
    assert [row[0] for row in events("member")] == ["CREATE", "UPDATE", "DELETE"]
    assert [row[0] for row in events("team_member")] == ["CREATE", "DELETE"]
    assert "planted-secret" not in str(world.rows("SELECT * FROM events"))


def test_a_wrong_log_in_with_a_name_that_nobody_has_does_not_tell_the_name(world: Api, elsewhere: dict[str, str]):
    world.as_("my-pass-word", "x").call("GET", ACCOUNTS, None, elsewhere).expect(401)
    ((object_id, name),) = world.rows(
        "SELECT object_id, object_name FROM events WHERE type = 'FAIL' AND address = :address",
        address=elsewhere["X-Forwarded-For"],
    )
    assert (object_id, name) == ("", "")


# --- details ----------------------------------------------------------------------------------------------------


def test_details_are_for_the_user_itself_and_for_who_sees_the_system(world: Api):
    bob, dora = world.as_("bob", "x"), world.as_("dora", "x")
    own = bob.get(f"{ACCOUNTS}/bob", details=True).expect(200).json
    assert dt.datetime.fromisoformat(own["lastLogin"]) > dt.datetime.fromisoformat(own["createdAt"])
    assert own["createdAt"] > "2000"
    assert own["organizations"] == ["docker-datacenter"]
    assert own["passwordIsOwn"] is False
    assert dora.get(f"{ACCOUNTS}/bob", details=True).expect(200).json.keys() == own.keys()
    plain = world.as_("ada", "x").get(f"{ACCOUNTS}/bob").expect(200).json
    assert own.keys() - plain.keys() == {
        "createdAt", "lastLogin", "organizations", "organizationsCount", "passwordIsOwn",
    }  # fmt: skip
    ada = world.as_("ada", "x")
    assert ada.get(f"{ACCOUNTS}/bob", details=True).expect(403).codes == ["NOT_AUTHORIZED"]
    assert bob.get(ACCOUNTS, details=True).expect(403).codes == ["NOT_AUTHORIZED"]
    listed = {one["name"]: one for one in dora.get(ACCOUNTS, details=True, limit=50).expect(200).json["accounts"]}
    assert listed["ada"]["organizations"] == ["acme", "docker-datacenter"]
    assert listed["ada"]["organizationsCount"] == 2
    assert listed["cher"]["lastLogin"].startswith("0001-01-01")
    assert "lastLogin" not in listed["acme"]


def test_a_list_is_counted_and_auditors_are_found(world: Api):
    found = world.admin.get(ACCOUNTS, filter="auditors", contains="D", count=True).expect(200).json
    assert [one["name"] for one in found["accounts"]] == ["dora"]
    assert found["foundCount"] == 1
    found = world.admin.get(ACCOUNTS, contains="åsa", count=True, limit=1).expect(200).json
    assert (len(found["accounts"]), found["foundCount"]) == (1, 1)
    assert "foundCount" not in world.admin.get(ACCOUNTS).expect(200).json


def test_a_password_is_the_users_own_when_nobody_else_set_it(world: Api):
    world.admin.post(ACCOUNTS, {"name": "gina", "password": "given"}).expect(201)
    path = f"{ACCOUNTS}/gina/changePassword"
    forms = ({"oldPassword": "given", "newPassword": "own"}, {"newPassword": "given"})
    world.as_("gina", "given").post(path, forms[0]).expect(200)
    assert world.admin.get(f"{ACCOUNTS}/gina", details=True).json["passwordIsOwn"] is True
    world.admin.post(path, forms[1]).expect(200)
    assert world.admin.get(f"{ACCOUNTS}/gina", details=True).json["passwordIsOwn"] is False
    world.admin.delete(f"{ACCOUNTS}/gina").expect(204)


def test_all_teams_of_a_user_are_one_list(world: Api):
    world.make_users("hugo")
    world.make_organization("zoo")
    for team in ("acme/ops", "zoo/apes", "acme/devs"):
        world.make_team(team, "hugo")
    path = f"{ACCOUNTS}/hugo/memberTeams"
    first = world.admin.get(path, limit=2).expect(200).json
    assert [(one["orgName"], one["team"]["name"]) for one in first["memberTeams"]] == [
        ("acme", "devs"),
        ("acme", "ops"),
    ]
    last = world.as_("hugo").get(path, start=first["nextPageStart"]).expect(200).json
    assert [(one["orgName"], one["team"]["name"], one["isAdmin"]) for one in last["memberTeams"]] == [
        ("zoo", "apes", False)
    ]
    assert last["nextPageStart"] == ""
