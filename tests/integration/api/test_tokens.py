"""Access tokens: every operation of ``/api/v0/api_tokens``, by role; what scopes and ends do to callers."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.client import Answer
from tests.support.server import PASSWORD

from dtr.app import Application

TOKENS = "/api/v0/api_tokens"
PULL_APP = {"repositories": ["ada/app"], "actions": ["pull"]}
ALL_ADA = {"repositories": ["ada/*"], "actions": ["pull", "push", "delete", "admin"]}
FIELDS = {
    "hashedToken", "tokenLabel", "isActive", "createdAt", "lastUsed", "generatedBy", "creatorUa", "username",
    "expiresAt", "scope", "lastUsedFrom",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    """Users ada (ada/app, ada/lib), bob, eve; the auditor audrey."""
    api.make_users("ada", "bob", "eve", "audrey")
    for path in ("ada/app", "ada/lib"):
        api.make_repository(path)
    api.make_repository("bob/public", visibility="public")
    api.server.do(lambda application: application.accounts.update("audrey", is_auditor=True))


@pytest.fixture
def ada(api: Api) -> User:
    return api.as_("ada")


@pytest.fixture
def make(ada: User) -> Callable[..., dict[str, Any]]:
    """``make(tokenLabel=…, …)``: a token of ada's."""
    return lambda **form: ada.post(TOKENS, form).expect(200).json


def ids(answer: Answer) -> list[str]:
    return [one["hashedToken"] for one in answer.expect(200).json]


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


# --- making -----------------------------------------------------------------------------------------------------


def test_a_token_is_made_and_told_once(api: Api, ada: User, elsewhere: dict[str, str]) -> None:
    made = ada.call("POST", TOKENS, {"tokenLabel": "laptop"}, {"User-Agent": "curl/8.1"}).expect(200).json
    assert made.keys() == FIELDS | {"token"}
    assert (made["tokenLabel"], made["isActive"], made["generatedBy"], made["creatorUa"]) == (
        "laptop", True, "user", "curl/8.1",
    )  # fmt: skip
    assert (made["username"], made["expiresAt"], made["scope"]) == ("ada", None, None)
    assert moment(made["lastUsed"]).year == 1
    assert abs(moment(made["createdAt"]) - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    kept = ada.get(f"{TOKENS}/{made['hashedToken']}").expect(200).json
    assert kept == {name: made[name] for name in FIELDS}
    assert made["token"] not in ada.get(TOKENS).body.decode()
    api.as_("ada", made["token"]).get(f"{TOKENS}/{made['hashedToken']}").expect(200)
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert api.anonymous.call("GET", "/api/v0/repositories/ada/app", headers=bearer).expect(200)
    assert moment(ada.get(f"{TOKENS}/{made['hashedToken']}").json["lastUsed"]).year > 2000
    for name in ("bob", "admin"):
        refused = api.as_(name, made["token"]).call("GET", TOKENS, headers=elsewhere)
        assert refused.expect(401).codes == ["NOT_AUTHENTICATED"]


def test_a_scope_and_an_end_are_kept_as_they_were_given(make: Callable[..., dict[str, Any]]) -> None:
    for given, kept in (
        ("2999-01-02T03:04:05Z", dt.datetime(2999, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        ("2999-01-02T03:04:05+01:00", dt.datetime(2999, 1, 2, 2, 4, 5, tzinfo=dt.UTC)),
    ):
        made = make(tokenLabel="ci", scope=PULL_APP, expiresAt=given)
        assert made["scope"] == PULL_APP
        assert moment(made["expiresAt"]) == kept
    both = make(scope={"repositories": ["b/*", "a/x"], "actions": ["admin", "pull", "pull"]})
    assert both["scope"] == {"repositories": ["b/*", "a/x"], "actions": ["pull", "admin"]}


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"expiresAt": "2001-01-01T00:00:00Z"}, "INVALID_TOKEN"),
        ({"expiresAt": "9999-12-31T23:59:59-01:00"}, "INVALID_TOKEN"),
        ({"expiresAt": "soon"}, "INVALID_JSON"),
        ({"tokenLabel": "a\0b"}, "INVALID_JSON"),
        ({"expiresAt": 32503680000}, "INVALID_JSON"),
        ({"tokenLabel": "x" * 1001}, "INVALID_TOKEN"),
        ({"tokenLabel": 5}, "INVALID_JSON"),
        ({"scope": {"repositories": ["ada/**"], "actions": ["pull"]}}, "INVALID_TOKEN_SCOPE"),
        ({"scope": {"repositories": ["*/app"], "actions": ["pull"]}}, "INVALID_TOKEN_SCOPE"),
        ({"scope": {"repositories": [f"a/{n}" for n in range(101)], "actions": ["pull"]}}, "INVALID_TOKEN_SCOPE"),
        ({"scope": {"repositories": [], "actions": ["pull"]}}, "INVALID_JSON"),
        ({"scope": {"repositories": ["ada/*"], "actions": []}}, "INVALID_JSON"),
        ({"scope": {"repositories": ["ada/*"], "actions": ["fly"]}}, "INVALID_JSON"),
        ({"scope": {"repositories": ["ada/*"]}}, "INVALID_JSON"),
        ({"scope": "ada/*"}, "INVALID_JSON"),
        ([], "INVALID_JSON"),
    ],
)
def test_what_cannot_be_a_token_is_refused(ada: User, form: Any, code: str) -> None:
    before = ada.get(TOKENS, count=True).headers["x-resource-count"]
    assert ada.post(TOKENS, form).expect(400).codes == [code]
    assert ada.get(TOKENS, count=True).headers["x-resource-count"] == before


# --- whose ------------------------------------------------------------------------------------------------------


def test_tokens_are_their_users_and_administrators_business(api: Api, make: Callable[..., dict[str, Any]]) -> None:
    token = make(tokenLabel="private")["hashedToken"]
    one = f"{TOKENS}/{token}"
    for name, looking, changing in (
        ("bob", 404, 404),
        ("audrey", 200, 404),
        ("admin", 200, 200),
        ("ada", 200, 200),
    ):
        user = api.as_(name)
        user.get(one).expect(looking)
        user.patch(one, {"tokenLabel": f"by {name}"}).expect(changing)
        if looking == 404:
            assert user.get(one).codes == ["NO_SUCH_API_TOKEN"]
    assert api.as_("ada").get(one).json["tokenLabel"] == "by ada"
    for name in ("bob", "audrey"):
        assert api.as_(name).delete(one).expect(404).codes == ["NO_SUCH_API_TOKEN"]
        assert api.as_(name).get(TOKENS, username="ada").status == (200 if name == "audrey" else 403)
        api.as_(name).post(TOKENS, {}, username="ada").expect(403)
        api.as_(name).delete(TOKENS, username="ada").expect(403)
    for answer in (
        api.anonymous.get(TOKENS),
        api.anonymous.post(TOKENS, {}),
        api.anonymous.delete(TOKENS),
        api.anonymous.get(one),
        api.anonymous.patch(one, {}),
        api.anonymous.delete(one),
    ):
        assert answer.expect(401).codes == ["NOT_AUTHENTICATED"]
    api.admin.delete(one).expect(200)
    assert api.as_("ada").get(one).expect(404).codes == ["NO_SUCH_API_TOKEN"]


def test_an_administrator_makes_tokens_of_others(api: Api) -> None:
    made = api.admin.post(TOKENS, {"tokenLabel": "for eve"}, username="eve").expect(200).json
    assert made["username"] == "eve"
    assert made["hashedToken"] in ids(api.as_("eve").get(TOKENS))
    assert api.as_("eve", made["token"]).get("/api/v0/repositories/ada/app").status == 404
    for name in ("nobody", "docker-datacenter"):
        assert api.admin.post(TOKENS, {}, username=name).expect(404).codes == ["NO_SUCH_USER"]
        assert api.admin.get(TOKENS, username=name).expect(404).codes == ["NO_SUCH_USER"]
        assert api.admin.delete(TOKENS, username=name).expect(404).codes == ["NO_SUCH_USER"]


def test_users_list_their_own_and_administrators_all(api: Api, make: Callable[..., dict[str, Any]]) -> None:
    make()
    api.as_("bob").post(TOKENS, {}).expect(200)
    of = {name: ids(api.as_(name).get(TOKENS, pageSize=1000)) for name in ("ada", "bob", "admin", "audrey")}
    assert set(of["ada"]).isdisjoint(of["bob"])
    assert set(of["ada"]) | set(of["bob"]) <= set(of["admin"])
    assert of["admin"] == of["audrey"]
    assert ids(api.admin.get(TOKENS, username="ada", pageSize=1000)) == of["ada"]
    assert ids(api.as_("ada").get(TOKENS, username="ada", pageSize=1000)) == of["ada"]


def test_the_list_comes_in_pages_with_its_count(api: Api) -> None:
    api.make_users("pia")
    pia = api.as_("pia")
    made = sorted(pia.post(TOKENS, {"tokenLabel": str(n)}).expect(200).json["hashedToken"] for n in range(7))
    pages = [[one["hashedToken"] for one in page] for page in pia.pages(TOKENS, 3)]
    assert list(map(len, pages)) == [3, 3, 1]
    assert list(itertools.chain(*pages)) == made
    assert pia.get(TOKENS, count=True).headers["x-resource-count"] == "7"
    assert api.admin.get(TOKENS, username="pia", count=True).headers["x-resource-count"] == "7"


def test_what_a_client_keeps_that_logged_in_is_listed_and_ends_when_it_is_deleted(api: Api, ada: User) -> None:
    query = "service=dtr&offline_token=true&client_id=docker"
    basic = {"Authorization": ada.client.basic()}
    refresh = ada.client.send("GET", f"/auth/token?{query}", headers=basic).expect(200).json["refresh_token"]
    found = [one for one in ada.get(TOKENS, pageSize=1000).json if one["tokenLabel"] == "log-in of docker"]
    assert found[-1]["generatedBy"] == "auto"

    def renew() -> Answer:
        form = f"grant_type=refresh_token&service=dtr&refresh_token={refresh}".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return ada.client.send("POST", "/auth/token", form, headers)

    renew().expect(200)
    for one in found:
        ada.delete(f"{TOKENS}/{one['hashedToken']}").expect(200)
    renew().expect(401)


# --- ends -------------------------------------------------------------------------------------------------------


def test_a_token_that_is_switched_off_expired_or_deleted_opens_nothing_from_the_next_request_on(
    api: Api, ada: User, make: Callable[..., dict[str, Any]], elsewhere: dict[str, str]
) -> None:
    made = make(tokenLabel="ci")
    one, caller = f"{TOKENS}/{made['hashedToken']}", api.as_("ada", made["token"])

    def status() -> int:
        return caller.call("GET", "/api/v0/repositories/ada/app", headers=elsewhere).status

    assert status() == 200
    changed = ada.patch(one, {"isActive": False}).expect(200).json
    assert (changed["isActive"], changed["tokenLabel"]) == (False, "ci")
    assert status() == 401
    ada.patch(one, {"isActive": True, "tokenLabel": "renamed"}).expect(200)
    assert ada.get(one).json["tokenLabel"] == "renamed"
    assert status() == 200
    where = {"id": made["hashedToken"]}
    api.change("UPDATE tokens SET expires_at = 1 WHERE id = :id", **where)
    assert status() == 401
    api.change("UPDATE tokens SET expires_at = NULL WHERE id = :id", **where)
    assert status() == 200
    ada.delete(one).expect(200)
    assert status() == 401
    assert ada.delete(one).expect(404).codes == ["NO_SUCH_API_TOKEN"]
    assert ada.patch(one, {"isActive": True}).expect(404).codes == ["NO_SUCH_API_TOKEN"]


def test_tokens_that_are_not_used_are_deleted_together(api: Api) -> None:
    api.make_users("max", "moe")

    async def fill(application: Application) -> None:
        for name in ("max", "moe"):
            for label, kind in (("old", "access"), ("new", "access"), ("left", "refresh"), ("late", "refresh")):
                await application.accounts.tokens.create(name, label, kind=kind)

    def labels(name: str) -> set[str]:
        return {one["tokenLabel"] for one in api.as_(name).get(TOKENS).expect(200).json}

    api.server.do(fill)
    api.change("UPDATE tokens SET last_used_at = 1000000000000 WHERE label IN ('old', 'left')")  # 2001
    mine = api.as_("max")
    for bad in ({"usedbefore": "soon"}, {"usedbefore": "2001-99-99"}, {"generatedby": "magic"}):
        assert mine.delete(TOKENS, **bad).expect(400).codes == ["INVALID_PARAMETERS"]
    assert mine.delete(TOKENS, usedbefore="2001-01-01").expect(200).json == {"deleted": 0}
    assert mine.delete(TOKENS, usedbefore="2010-01-01").expect(200).json == {"deleted": 1}
    assert labels("max") == {"old", "new", "late"}
    mine.delete(TOKENS, usedbefore="2010-01-01T00:00:00Z", generatedby="user").expect(200)
    assert labels("max") == {"new", "late"}
    assert labels("moe") == {"old", "new", "left", "late"}
    api.admin.delete(TOKENS, username="moe").expect(200)
    assert labels("moe") == {"old", "new"}
    api.admin.delete(TOKENS, usedbefore="2010-01-01", generatedby="").expect(200)
    assert labels("moe") == {"new"}
    mine.delete(TOKENS, generatedby="").expect(200)
    assert labels("max") == set()


# --- what a scope bounds ----------------------------------------------------------------------------------------


def test_a_token_with_a_scope_is_good_for_what_it_says(api: Api, make: Callable[..., dict[str, Any]]) -> None:
    pulls, all_of_ada = (api.as_("ada", make(scope=scope)["token"]) for scope in (PULL_APP, ALL_ADA))
    app, lib, public = (f"/api/v0/repositories/{path}" for path in ("ada/app", "ada/lib", "bob/public"))
    for caller, expected in ((pulls, [200, 404, 200]), (all_of_ada, [200, 200, 200])):
        assert [caller.get(path).status for path in (app, lib, public)] == expected
    assert pulls.patch(app, {"shortDescription": "x"}).expect(403).codes == ["NOT_AUTHORIZED"]
    all_of_ada.patch(app, {"shortDescription": "x"}).expect(200)
    pulls.put(f"{app}/userAccess/eve", {"accessLevel": "admin"}).expect(403)
    all_of_ada.put(f"{app}/userAccess/eve", {"accessLevel": "read-only"}).expect(200)
    all_of_ada.delete(f"{app}/userAccess/eve").expect(204)
    listed = [
        {f"{one['namespace']}/{one['name']}" for one in caller.get("/api/v0/repositories").json["repositories"]}
        for caller in (pulls, all_of_ada)
    ]
    assert listed == [{"ada/app", "bob/public"}, {"ada/app", "ada/lib", "bob/public"}]


def test_a_token_with_a_scope_makes_and_sees_no_tokens_and_manages_no_account(
    api: Api, make: Callable[..., dict[str, Any]]
) -> None:
    """Else it could make itself one without."""
    made = make(scope={"repositories": ["*"], "actions": ["pull", "push", "delete", "admin"]})
    caller, one = api.as_("ada", made["token"]), f"{TOKENS}/{made['hashedToken']}"
    for answer in (
        caller.get(TOKENS),
        caller.post(TOKENS, {}),
        caller.delete(TOKENS),
        caller.get(one),
        caller.patch(one, {"isActive": True}),
        caller.delete(one),
        caller.get("/api/v0/accounts/ada/settings"),
        caller.patch("/api/v0/accounts/ada/settings", {"language": "en"}),
        caller.post(
            "/enzi/v0/accounts/ada/changePassword", {"oldPassword": PASSWORD, "newPassword": "new-one-123"}
        ),
    ):
        assert answer.expect(403).codes == ["NOT_AUTHORIZED"]


def test_an_administrators_token_with_a_scope_administers_nothing_else(api: Api) -> None:
    secret = api.admin.post(TOKENS, {"scope": ALL_ADA}).expect(200).json["token"]
    caller = api.as_("admin", secret)
    caller.patch("/api/v0/repositories/ada/app", {"shortDescription": "y"}).expect(200)
    caller.patch("/api/v0/repositories/bob/public", {"shortDescription": "y"}).expect(403)
    for answer in (
        caller.get(TOKENS, username="ada"),
        caller.get("/api/v0/meta/settings"),
        caller.post("/enzi/v0/accounts", {"name": "zoe", "password": PASSWORD}),
        caller.post("/enzi/v0/accounts/", {"name": "zoe", "password": PASSWORD}),
        caller.get("/api/v0/events"),
    ):
        assert answer.status in {403, 404, 307}, answer.body
    assert api.rows("SELECT name FROM accounts WHERE name = 'zoe'") == []


def test_a_token_opens_no_session(
    api: Api, make: Callable[..., dict[str, Any]], elsewhere: dict[str, str]
) -> None:
    """A session has all rights of its account, and no scope."""
    for form in ({"scope": PULL_APP}, {}):
        secret = make(**form)["token"]
        body = {"username": "ada", "password": secret}
        assert api.anonymous.call("POST", "/enzi/v0/id/login", body, elsewhere).status == 401


# --- events -----------------------------------------------------------------------------------------------------


def test_every_change_is_an_event_of_who_made_it_without_the_secret(api: Api) -> None:
    api.make_users("tia")
    made = api.admin.post(TOKENS, {"tokenLabel": "told"}, username="tia").expect(200).json
    one = f"{TOKENS}/{made['hashedToken']}"
    api.as_("tia").patch(one, {"isActive": False}).expect(200)
    api.as_("tia").delete(TOKENS, generatedby="user").expect(200)
    told = api.rows(
        "SELECT type, actor_name, address, object_id, object_name, target_name FROM events"
        " WHERE object_type = 'token' AND target_name = 'tia' ORDER BY id"
    )
    assert told == [
        (kind, who, "127.0.0.1", made["hashedToken"], "told", "tia")
        for kind, who in (("CREATE", "admin"), ("UPDATE", "tia"), ("DELETE", "tia"))
    ]
    assert all(made["token"] not in str(row) for row in api.rows("SELECT * FROM events"))
    assert made["token"] not in api.server.log


def test_the_newest_tokens_come_first_when_they_are_asked_for(api: Api) -> None:
    api.make_users("nora")
    nora = api.as_("nora")
    made = [nora.post(TOKENS, {"tokenLabel": str(number)}).expect(200).json for number in range(5)]
    newest = [one for page in nora.pages(TOKENS, 2, order="newest", generatedby="user") for one in page]
    assert sorted(one["tokenLabel"] for one in newest) == ["0", "1", "2", "3", "4"]
    moments = [moment(one["createdAt"]) for one in newest]
    assert moments == sorted(moments, reverse=True)
    assert nora.get(TOKENS, generatedby="auto").expect(200).json == []
    counted = nora.get(TOKENS, generatedby="user", count=True, pageSize=1).expect(200)
    assert counted.headers["x-resource-count"] == "5"
    assert made[0]["lastUsedFrom"] == ""
    api.as_("nora", made[0]["token"]).get(TOKENS).expect(200)
    assert nora.get(f"{TOKENS}/{made[0]['hashedToken']}").json["lastUsedFrom"].startswith("127.")
    api.admin.get(TOKENS, order="newest", username="nora").expect(200)
