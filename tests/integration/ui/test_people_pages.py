"""Organisations, teams, robots and permissions: every page for everybody, without script."""

from __future__ import annotations

import pytest
from tests.support.people import make_people
from tests.support.site import Site

ROLES = {
    "paul": "a user without any grant",
    "rita": "reads acme/private",
    "adam": "administers acme/private",
    "nan": "administers the namespace acme",
    "tom": "administers the team idle",
    "olga": "owns acme",
    "audrey": "an auditor",
    "root": "an administrator",
}
MEMBERS = {"rita", "adam", "nan", "tom", "olga", "audrey", "root"}
OWNERS = {"olga", "root"}
SEE = {"audrey"}
MANAGE = {"nan", "olga", "root"}
ALL = set(ROLES)
PAGES: dict[str, set[str]] = {
    "/orgs": ALL,
    "/orgs?show=mine": ALL,
    "/orgs?q=acm": ALL,
    "/orgs?q=nothing-like-this": ALL,
    "/orgs/new": {"root"},
    "/orgs/acme/repos": ALL,
    "/orgs/acme/repos?q=priv": ALL,
    "/orgs/acme/users": MEMBERS,
    "/orgs/acme/users?show=owners&q=o": MEMBERS,
    "/orgs/acme/users?q=nobody-like-this": MEMBERS,
    "/orgs/acme/users/new": OWNERS,
    "/orgs/acme/teams": MEMBERS,
    "/orgs/acme/teams?q=adm": MEMBERS,
    "/orgs/acme/teams?q=no-team-like-this": MEMBERS,
    "/orgs/acme/teams/new": OWNERS,
    "/orgs/acme/teams/admins/users": MEMBERS,
    "/orgs/acme/teams/admins/users?q=ad": MEMBERS,
    "/orgs/acme/teams/admins/users/new": OWNERS,
    "/orgs/acme/teams/idle/users/new": OWNERS | {"tom"},
    "/orgs/acme/teams/admins/repos": OWNERS | SEE | {"adam"},
    "/orgs/acme/teams/admins/repos?q=private": OWNERS | SEE | {"adam"},
    "/orgs/acme/teams/namespace/repos": OWNERS | SEE | {"nan"},
    "/orgs/acme/teams/admins/repos/new": OWNERS,
    "/orgs/acme/teams/idle/settings": OWNERS | {"tom"},
    "/orgs/acme/teams/idle/delete": OWNERS,
    "/orgs/acme/access": MEMBERS,
    "/orgs/acme/access?q=namesp": MEMBERS,
    "/orgs/acme/access/new": MANAGE,
    "/orgs/acme/robots": OWNERS | SEE,
    "/orgs/acme/robots/new": OWNERS,
    "/orgs/acme/robots/bot": OWNERS | SEE,
    "/orgs/acme/robots/bot/delete": OWNERS,
    "/orgs/acme/robots/bot/access/new": OWNERS,
    "/orgs/acme/robots/bot/tokens/new": OWNERS,
    "/orgs/acme/settings": MEMBERS,
    "/orgs/acme/settings/signing": MEMBERS,
    "/orgs/acme/settings/remotes/new": OWNERS,
    "/orgs/acme/settings/identities/new": OWNERS,
    "/orgs/acme/delete": {"root"},
    "/repositories/acme/private/permissions": ALL - {"paul", "tom"},
    "/repositories/acme/private/permissions?by=person": ALL - {"paul", "tom"},
    "/repositories/acme/private/permissions?by=person&level=read-only&q=r": ALL - {"paul", "tom"},
    "/repositories/acme/private/permissions?who=rita": ALL - {"paul", "tom"},
    "/repositories/acme/private/permissions?who=nobody-like-this": ALL - {"paul", "tom"},
    "/repositories/acme/private/permissions/new": {"adam", *MANAGE},
    "/repositories/acme/public/permissions": ALL,
    "/users/pia/access": {"nan", "audrey", "root"},
    "/users/pia/access/new": {"nan", "root"},
    "/repositories/pia/private/permissions": {"rita", "adam", "nan", "audrey", "root"},
    "/repositories/pia/private/permissions/new": {"adam", "nan", "root"},
}


@pytest.fixture(scope="module", autouse=True)
def people(site: Site) -> None:
    site.server.do(make_people)


@pytest.mark.parametrize("name", ROLES)
def test_everybody_sees_the_pages_that_the_api_lets_see(site: Site, name: str):
    visitor = site.as_(name, "secret")
    wrong = {}
    for path, allowed in PAGES.items():
        shown = visitor.get(path)
        fine = shown.status == 200 if name in allowed else shown.status in {403, 404}
        if not fine or (shown.status == 200 and len(shown.all("h1")) != 1):
            wrong[path] = shown.status
        if shown.status == 200:
            assert len(shown.answer.body) < 50_000
    assert not wrong


def test_nobody_is_led_to_the_log_in(site: Site):
    nobody = site.as_(None)
    for path in PAGES:
        assert nobody.get(path).title == "Log in", path
