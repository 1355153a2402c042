"""Who may do what at the account service: every operation by every kind of caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.server import PASSWORD

from dtr.accounts import Action, TokenScope
from dtr.app import Application

ANY = frozenset({"eve", "mia", "tim", "olga", "aud", "admin"})
"""An outsider; of the organisation acme a member, one who administers the team devs, an owner; auditor, admin."""
READERS = ANY - {"eve"}
OWNERS = frozenset({"olga", "admin"})
LEADERS = OWNERS | {"tim"}
ADMIN = frozenset({"admin"})
ACME, DEVS = "/accounts/acme", "/accounts/acme/teams/devs"


@dataclass(frozen=True)
class Case:
    method: str
    path: str
    who: frozenset[str]
    status: int
    body: Any = None
    """`CALLER` in it is the name of who calls."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


CASES = (
    Case("GET", "/accounts", ANY, 200),
    Case("POST", "/accounts", ADMIN, 201, {"name": "new-CALLER", "password": "x"}),
    Case("PATCH", "/accounts", ADMIN, 200, {"operations": []}),
    Case("GET", "/accounts/mia", ANY, 200),
    Case("GET", ACME, ANY, 200),
    Case("PATCH", ACME, OWNERS, 200, {"fullName": "Acme of CALLER"}),
    Case("PATCH", "/accounts/mia", ADMIN | {"mia"}, 200, {"fullName": "Mia by CALLER"}),
    Case("PATCH", "/accounts/bob", ADMIN, 200, {"isActive": True, "fullName": "Bob by CALLER"}),
    Case("DELETE", "/accounts/nobody", ADMIN, 404),
    Case("POST", "/accounts/bob/changePassword", ADMIN, 200, {"newPassword": PASSWORD}),
    Case("GET", "/accounts/mia/organizations", frozenset({"mia", "aud", "admin"}), 200),
    Case("GET", "/accounts/mia/publicKeys", ANY, 200),
    Case("GET", "/accounts/mia/publicKeys/none", ANY, 404),
    Case("POST", "/accounts/mia/publicKeys", ADMIN | {"mia"}, 400, {"publicKey": "none"}),
    Case("POST", f"{ACME}/publicKeys", OWNERS, 400, {"publicKey": "none"}),
    Case("PATCH", f"{ACME}/publicKeys/none", OWNERS, 404, {"label": "x"}),
    Case("DELETE", f"{ACME}/publicKeys/none", OWNERS, 404),
    Case("GET", f"{ACME}/members", READERS, 200),
    Case("GET", f"{ACME}/members/mia", READERS, 200),
    Case("GET", f"{ACME}/members/eve", ANY, 404),  # by herself, too, whether she is one
    Case("GET", f"{ACME}/members/tim/teams", READERS, 200),
    Case("PUT", f"{ACME}/members/bob", OWNERS, 200, {}),
    Case("DELETE", f"{ACME}/members/bob", OWNERS, 204),
    Case("GET", f"{ACME}/teams", READERS, 200),
    Case("POST", f"{ACME}/teams", OWNERS, 201, {"name": "of-CALLER"}),
    Case("GET", DEVS, READERS, 200),
    Case("PATCH", DEVS, LEADERS, 200, {"description": "by CALLER"}),
    Case("PATCH", f"{ACME}/teams/ops", OWNERS, 200, {"description": "by CALLER"}),
    Case("DELETE", f"{ACME}/teams/none", OWNERS, 404),
    Case("GET", f"{DEVS}/members", READERS, 200),
    Case("GET", f"{DEVS}/members/tim", READERS, 200),
    Case("PUT", f"{DEVS}/members/bob", LEADERS, 200, {}),
    Case("PUT", f"{ACME}/teams/ops/members/bob", OWNERS, 200, {}),
    Case("DELETE", f"{DEVS}/members/bob", LEADERS, 204),
    Case("DELETE", f"{ACME}/teams/ops/members/bob", OWNERS, 204),
    Case("GET", "/id", ANY, 200),
)


@pytest.fixture(scope="module")
def callers(api: Api) -> dict[str, User]:
    """By their names; `gone` may not log in, `scoped` is the administrator with a token for repositories alone."""
    api.make_users("eve", "mia", "tim", "olga", "aud", "gone", "bob")
    api.make_organization("acme", owners=("olga",), members=("mia", "tim"))
    api.make_team("acme/devs", "tim")
    api.make_team("acme/ops", "tim", "mia")

    async def finish(application: Application) -> str:
        accounts = application.accounts
        await accounts.organizations.put_team_member("acme", "devs", "tim", is_admin=True)
        await accounts.update("aud", is_auditor=True)
        await accounts.update("gone", is_active=False)
        everything = TokenScope(("*",), frozenset(Action))
        return await accounts.tokens.create("admin", "for repositories", scope=everything)

    secret = api.server.do(finish)
    return {
        **{name: api.as_(name) for name in (*ANY, "gone")},
        "scoped": api.as_("admin", secret),
        "nobody": api.anonymous,
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operation_is_for_those_it_is_for(callers: dict[str, User], elsewhere: dict[str, str], case: Case):
    for name, caller in callers.items():
        body = None
        if case.body is not None:
            body = {
                key: value.replace("CALLER", name) if isinstance(value, str) else value
                for key, value in case.body.items()
            }
        answer = caller.call(case.method, f"/enzi/v0{case.path}", body, elsewhere)
        if name in {"nobody", "gone"}:
            expected = 401
        elif name == "scoped":
            expected = 200 if case.path == "/id" else 403
        else:
            expected = case.status if name in case.who else 403
        assert answer.status == expected, (name, answer.body)


def test_nobody_raises_itself(callers: dict[str, User]):
    for name in ("mia", "olga", "aud"):
        for flag in ("isAdmin", "isAuditor"):
            wanted = {flag: not (name == "aud" and flag == "isAuditor")}
            answer = callers[name].patch(f"/enzi/v0/accounts/{name}", wanted)
            assert answer.expect(403).codes == ["NOT_AUTHORIZED"]
        assert callers[name].patch(f"/enzi/v0/accounts/{name}", {"isActive": False}).status == 403
        # What is as it was is no change: clients send whole records back.
        whole = callers[name].get(f"/enzi/v0/accounts/{name}").expect(200).json
        assert callers[name].patch(f"/enzi/v0/accounts/{name}", whole | {"fullName": "New"}).expect(200).json == (
            whole | {"fullName": "New"}
        )


def test_who_administers_a_team_does_not_reach_into_the_organization(callers: dict[str, User]):
    tim = callers["tim"]
    assert tim.put(f"/enzi/v0{ACME}/members/tim", {"isAdmin": True}).expect(403)
    assert tim.delete(f"/enzi/v0{DEVS}").expect(403)
    # But somebody can be put into it who is not in the organization yet.
    tim.put(f"/enzi/v0{DEVS}/members/eve", {"isAdmin": True}).expect(200)
    assert callers["admin"].get(f"/enzi/v0{ACME}/members/eve").expect(200).json["isAdmin"] is False
    callers["admin"].delete(f"/enzi/v0{ACME}/members/eve").expect(204)
    assert callers["eve"].put(f"/enzi/v0{DEVS}/members/bob", {}).expect(403)
