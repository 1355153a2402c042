"""Organisations, their people, teams, robots and settings, changed through the pages, without script."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tests.support.images import make_image
from tests.support.signing import make_key, public_pem
from tests.support.site import Shown, Site, Visitor

from dtr.app import Application

SETTINGS = {"mirroring.allowed_networks": "127.0.0.1/32"}

_names = (f"team-{number}" for number in itertools.count())


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    """The organisation acme of olga with mia and dan; dan administers the team devs, and is in ops."""
    api = site.api
    api.make_users("olga", "mia", "dan", "eve", "ron")
    api.make_organization("acme", owners=("olga",), members=("mia", "dan"))
    for team in ("acme/devs", "acme/ops"):
        api.make_team(team, "dan")
    for path in ("acme/app", "acme/lib", "eve/own"):
        api.make_repository(path)

    async def fill(application: Application) -> None:
        accounts = application.accounts
        await accounts.organizations.put_team_member("acme", "devs", "dan", is_admin=True)
        await accounts.update("mia", full_name="<b>Mia</b> & \u202eGnirts")

    site.server.do(fill)


@pytest.fixture
def olga(site: Site) -> Visitor:
    return site.as_("olga")


def said(shown: Shown) -> str:
    return shown.one(".toast > span").get_text()


def undo(visitor: Visitor, shown: Shown) -> Shown:
    return visitor.submit(shown, ".toast form").expect(200)


def members(site: Site, path: str = "acme") -> dict[str, bool]:
    where = path.replace("/", "/teams/")
    listed = site.api.admin.get(f"/enzi/v0/accounts/{where}/members", limit=100).expect(200).json["members"]
    return {one["member"]["name"]: one["isAdmin"] for one in listed}


def rows(shown: Shown) -> list[str]:
    """The names of a list, in its order."""
    return [one.get_text(" ", strip=True) for one in shown.all("#list tbody .name")]


# --- the list ---------------------------------------------------------------------------------------------------


def test_organizations_are_listed_with_what_one_is_in_them_and_found(site: Site, olga: Visitor):
    listed = olga.get("/orgs").expect(200)
    assert rows(listed) == ["acme", "docker-datacenter"]
    assert [one.get_text() for one in listed.all("#list .badge")] == ["Owner", "Member"]
    assert "2 organizations" in listed.text
    assert rows(olga.get("/orgs?q=ACM")) == ["acme"]
    assert rows(site.as_("ron").get("/orgs?show=mine")) == ["docker-datacenter"]
    nothing = olga.get("/orgs?q=no+such")
    assert rows(nothing) == []
    assert "/orgs" in nothing.links


def test_an_organization_is_made_with_its_first_owner(site: Site):
    admin = site.as_("admin")
    form = admin.get("/orgs/new")
    refused = admin.submit(form, name="Not A Name", full_name="Kept", owner="ron").expect(422)
    assert list(refused.problems) == ["name"]
    assert refused.one("#f-full_name")["value"] == "Kept"
    refused = admin.submit(form, name="fresh", owner="acme").expect(422)
    assert list(refused.problems) == ["owner"]
    refused = admin.submit(form, name="fresh", owner="nobody-of-this-name").expect(422)
    assert list(refused.problems) == ["owner"]
    made = admin.submit(form, name="fresh", full_name="Fresh & new", owner="ron").expect(200)
    assert (made.title, made.url.rpartition("/orgs")[2]) == ("fresh", "/fresh/users")
    assert members(site, "fresh") == {"ron": True}
    assert list(admin.submit(form, name="fresh").expect(422).problems) == ["name"]
    site.api.admin.delete("/enzi/v0/accounts/fresh").expect(204)


def test_an_address_of_an_organization_leads_to_what_one_may_see(site: Site, olga: Visitor):
    assert olga.get("/orgs/acme").url.endswith("/orgs/acme/users")
    outside = site.as_("eve").get("/orgs/acme")
    assert outside.url.endswith("/orgs/acme/repos")
    assert [one for one in outside.links if one.startswith("/orgs/acme/") and "?" not in one] == [
        "/orgs/acme/repos"
    ]
    assert olga.get("/orgs/none").status == 404
    assert olga.get("/orgs/olga").status == 404


# --- members ----------------------------------------------------------------------------------------------------


def test_members_are_shown_with_their_teams_and_hostile_names_stay_text(site: Site, olga: Visitor):
    listed = olga.get("/orgs/acme/users")
    assert rows(listed) == ["dan", "<b>Mia</b> & \u202eGnirts", "olga"]
    assert not listed.has("#list b")
    assert listed.has("#list bdi")
    assert {"/orgs/acme/teams/devs/users", "/orgs/acme/teams/ops/users"} <= set(listed.links)
    assert "Last log-in" in listed.text
    plain = site.as_("mia").get("/orgs/acme/users").expect(200)
    assert not plain.has("#list form")
    assert "Last log-in" not in plain.text
    assert rows(olga.get("/orgs/acme/users?show=owners")) == ["olga"]
    assert rows(olga.get("/orgs/acme/users?q=gnirts")) == ["<b>Mia</b> & \u202eGnirts"]


def test_people_are_added_and_who_is_refused_stays_in_the_form(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/users/new")
    added = olga.submit(form, name="ron").expect(200)
    assert said(added) == "ron is in acme now."
    mixed = olga.submit(form, name="", names="eve, nobody-1\nron;nobody-2", role="admin").expect(422)
    assert mixed.one("#f-names").get_text().split() == ["nobody-1", "nobody-2"]
    assert "2 names could not be added." in mixed.text
    assert "2 people were added." in mixed.text
    assert {**members(site), "olga": True} == {"olga": True, "mia": False, "dan": False, "ron": True, "eve": True}
    nobody = olga.submit(form, name="nobody-1").expect(422)
    assert list(nobody.problems) == ["name"]
    assert nobody.one("#f-name")["value"] == "nobody-1"
    assert list(olga.submit(form, name=" ").expect(422).problems) == ["name"]
    assert list(olga.submit(form, names=" ".join(f"n{one}" for one in range(501))).expect(422).problems) == [
        "names"
    ]
    kept = olga.submit(form, name="eve", role="member").expect(200)
    assert kept.status == 200
    assert members(site)["eve"] is True, "an owner who is added again stays one"
    for name in ("ron", "eve"):
        site.api.admin.delete(f"/enzi/v0/accounts/acme/members/{name}").expect(204)


def test_a_role_is_changed_and_changed_back(site: Site, olga: Visitor):
    page = "/orgs/acme/users"
    changed = olga.post(
        f"{page}/role", {"name": "mia", "role": "admin"}, headers={"Referer": f"{olga.origin}{page}?q=mi"}
    )
    assert said(changed) == "mia is an owner of acme now."
    assert changed.url.endswith("?q=mi"), "back to the list as it was"
    assert members(site)["mia"] is True
    undo(olga, changed)
    assert members(site)["mia"] is False


def test_who_is_removed_comes_back_with_the_teams(site: Site, olga: Visitor):
    left = olga.post("/orgs/acme/users/remove", {"name": "dan"})
    assert said(left) == "dan left acme and its teams."
    assert "dan" not in members(site)
    assert "dan" not in members(site, "acme/devs")
    undo(olga, left)
    assert members(site)["dan"] is False
    assert members(site, "acme/devs") == {"dan": True}
    assert members(site, "acme/ops") == {"dan": False}


@pytest.mark.parametrize("who", ["mia", "eve"])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("users/new", {"name": "eve"}),
        ("users/role", {"name": "dan", "role": "admin"}),
        ("users/remove", {"name": "dan"}),
        ("teams/new", {"name": "fresh"}),
        ("teams/devs/users/new", {"name": "eve"}),
        ("teams/devs/users/role", {"name": "dan", "role": "member"}),
        ("teams/devs/users/remove", {"name": "dan"}),
        ("teams/devs/repos/new", {"how": "existing", "name": "app", "level": "admin"}),
        ("teams/devs/repos/change", {"name": "acme/app", "level": "admin"}),
        ("teams/devs/settings", {"name": "other"}),
        ("teams/devs/delete", {}),
        ("access/new", {"kind": "user", "name": "eve", "level": "admin"}),
        ("access/change", {"kind": "user", "name": "eve", "level": "admin"}),
        ("robots/new", {"name": "fresh"}),
        ("settings", {"full_name": "Mine"}),
        ("settings/remotes/new", {"name": "x", "remote_host": "registry.example"}),
        ("settings/identities/new", {"name": "x", "kind": "key", "content": "x"}),
        ("settings/signing", {"mode": "enforce"}),
        ("delete", {"typed": "acme"}),
    ],
)
def test_what_no_control_offers_is_refused(site: Site, who: str, path: str, fields: dict[str, Any]):
    before = (members(site), members(site, "acme/devs"))
    assert site.as_(who).post(f"/orgs/acme/{path}", fields).status in {403, 404}
    assert (members(site), members(site, "acme/devs")) == before


# --- teams ------------------------------------------------------------------------------------------------------


def test_a_team_is_made_renamed_and_deleted(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/teams/new")
    refused = olga.submit(form, name="devs", description="again").expect(422)
    assert (list(refused.problems), refused.one("#f-description")["value"]) == (["name"], "again")
    name = next(_names)
    made = olga.submit(form, name=name, description="for a while").expect(200)
    assert (made.title, "for a while" in made.text) == (name, True)
    settings = olga.get(f"/orgs/acme/teams/{name}/settings")
    renamed = olga.submit(settings, "main form", name=f"{name}-2", description="").expect(200)
    assert renamed.url.endswith(f"/orgs/acme/teams/{name}-2/settings")
    assert list(olga.submit(renamed, "main form", name="devs").expect(422).problems) == ["name"]
    olga.post(f"/orgs/acme/teams/{name}-2/repos/new", {"how": "existing", "name": "app", "level": "admin"}).expect(
        200
    )
    asked = olga.get(f"/orgs/acme/teams/{name}-2/delete")
    assert "Its access to 1 repository ends." in asked.text
    gone = olga.submit(asked, "#confirm form").expect(200)
    assert said(gone) == f"The team {name}-2 was deleted."
    assert olga.get(f"/orgs/acme/teams/{name}-2/users").status == 404


@pytest.mark.parametrize("page", ["users", "repos", "settings"])
def test_the_addresses_of_teams_by_their_ids_lead_on(site: Site, olga: Visitor, page: str):
    number = site.api.admin.get("/enzi/v0/accounts/acme/teams/devs").json["id"]
    moved = olga.get(f"/orgs/acme/teams/id:{number}/{page}", follow=False)
    assert (moved.status, moved.answer.headers["location"]) == (308, f"/orgs/acme/teams/devs/{page}")


def test_who_administers_a_team_edits_it_and_no_other(site: Site):
    dan = site.as_("dan")
    page = dan.get("/orgs/acme/teams/devs/users")
    assert "/orgs/acme/teams/devs/users/new" in page.links
    added = dan.submit(dan.get("/orgs/acme/teams/devs/users/new"), name="ron").expect(200)
    assert said(added) == "ron is in devs now."
    assert members(site)["ron"] is False
    changed = dan.post("/orgs/acme/teams/devs/users/role", {"name": "ron", "role": "admin"})
    assert members(site, "acme/devs")["ron"] is True
    undo(dan, changed)
    assert members(site, "acme/devs")["ron"] is False
    left = dan.post("/orgs/acme/teams/devs/users/remove", {"name": "ron"})
    assert said(left) == "ron left the team devs."
    undo(dan, left)
    assert members(site, "acme/devs")["ron"] is False
    settings = dan.get("/orgs/acme/teams/devs/settings").expect(200)
    assert "/orgs/acme/teams/devs/delete" not in settings.links
    assert not dan.get("/orgs/acme/teams/ops/users").has("#list form")
    assert "/orgs/acme/teams/ops/settings" not in dan.get("/orgs/acme/teams/ops/users").links
    site.api.admin.delete("/enzi/v0/accounts/acme/members/ron").expect(204)


def granted(site: Site, team: str) -> dict[str, str]:
    listed = (
        site.api.admin.get(f"/api/v0/accounts/acme/teams/{team}/repositoryAccess", pageSize=100).expect(200).json
    )
    return {one["repository"]["name"]: one["accessLevel"] for one in listed["repositoryAccessList"]}


def test_a_team_is_given_repositories_that_are_there_and_new_ones(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/teams/ops/repos/new")
    refused = olga.submit(form, name="none", level="read-write").expect(422)
    assert (list(refused.problems), refused.one("#f-name")["value"]) == (["name"], "none")
    assert refused.one("input[name=level][checked]")["value"] == "read-write"
    assert list(olga.submit(form, name="", level="admin").expect(422).problems) == ["name"]
    assert list(olga.submit(form, name="lib", level="owner").expect(422).problems) == ["level"]
    given = olga.submit(form, name="acme/lib", level="read-write").expect(200)
    assert said(given) == "ops can push to acme/lib now."
    made = olga.submit(form, how="new", name="deep/made", level="admin", visibility="public").expect(200)
    assert rows(made) == ["acme/ deep/made", "acme/ lib"]
    assert granted(site, "ops") == {"lib": "read-write", "deep/made": "admin"}
    assert rows(olga.get("/orgs/acme/teams/ops/repos?q=DEEP")) == ["acme/ deep/made"]
    changed = olga.post("/orgs/acme/teams/ops/repos/change", {"name": "acme/lib", "level": "read-only"})
    assert granted(site, "ops")["lib"] == "read-only"
    undo(olga, changed)
    taken = olga.post("/orgs/acme/teams/ops/repos/change", {"name": "acme/lib", "level": "none"})
    assert said(taken) == "ops has no grant on acme/lib any more."
    assert "lib" not in granted(site, "ops")
    undo(olga, taken)
    assert granted(site, "ops")["lib"] == "read-write"


# --- access to everything ---------------------------------------------------------------------------------------


def test_access_to_everything_is_given_changed_and_taken(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/access/new")
    assert list(olga.submit(form, kind="team", name="none").expect(422).problems) == ["name"]
    assert list(olga.submit(form, kind="user", name="").expect(422).problems) == ["name"]
    given = olga.submit(form, kind="user", name="ron", level="admin").expect(200)
    assert said(given) == "ron manages acme now."
    olga.submit(form, kind="team", name="ops", level="read-only").expect(200)
    listed = olga.get("/orgs/acme/access")
    assert rows(listed) == ["ops", "ron"]
    assert rows(olga.get("/orgs/acme/access?q=RON")) == ["ron"]
    assert "The team can pull from all repositories of acme" in olga.get("/orgs/acme/teams/ops/repos").text
    ron = site.as_("ron")
    assert {"/orgs/acme/access/new", "/repositories/new?namespace=acme"} <= set(
        ron.get("/orgs/acme/access").links | ron.get("/orgs/acme/repos").links
    )
    taken = olga.post("/orgs/acme/access/change", {"kind": "user", "name": "ron", "level": "none"})
    assert rows(olga.get("/orgs/acme/access")) == ["ops"]
    undo(olga, taken)
    assert rows(olga.get("/orgs/acme/access")) == ["ops", "ron"]
    for kind, name in (("user", "ron"), ("team", "ops")):
        olga.post("/orgs/acme/access/change", {"kind": kind, "name": name, "level": "none"}).expect(200)


# --- robots -----------------------------------------------------------------------------------------------------


def test_a_robot_is_made_given_access_and_a_token_that_is_shown_once(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/robots/new")
    assert list(olga.submit(form, name="No Name").expect(422).problems) == ["name"]
    made = olga.submit(form, name="ci", description="builds").expect(200)
    assert made.title == "acme+ci"
    assert list(olga.submit(form, name="ci").expect(422).problems) == ["name"]
    access = olga.get("/orgs/acme/robots/ci/access/new")
    assert list(olga.submit(access, name="").expect(422).problems) == ["name"]
    assert list(olga.submit(access, name="none").expect(422).problems) == ["name"]
    olga.submit(access, name="app", level="read-write").expect(200)
    whole = olga.submit(access, on="namespace", level="read-only").expect(200)
    assert "All repositories of acme" in whole.text
    taken = olga.post("/orgs/acme/robots/ci/access/change", {"on": "repository", "name": "app", "level": "none"})
    assert said(taken) == "acme+ci has no grant on acme/app any more."
    undo(olga, taken)
    token = olga.get("/orgs/acme/robots/ci/tokens/new")
    refused = olga.submit(token, label="late", until="2001-01-01", repositories="acme/app").expect(422)
    assert list(refused.problems) == ["until"]
    assert (refused.one("#f-label")["value"], refused.one("#f-repositories").get_text(strip=True)) == (
        "late",
        "acme/app",
    )
    assert list(olga.submit(token, repositories="NO!").expect(422).problems) == ["repositories"]
    shown = olga.submit(token, label="build server", until="2099-12-31", repositories="acme/app", actions=["pull"])
    assert shown.status == 201
    assert shown.answer.headers["cache-control"] == "no-store"
    secret = shown.all(".copy code")[0].get_text()
    assert site.api.as_("acme+ci", secret).get("/api/v0/repositories/acme/app").expect(200).json["name"] == "app"
    page = olga.get("/orgs/acme/robots/ci")
    assert secret not in page.text
    assert "build server" in page.text
    assert "acme/app" in page.text
    (delete,) = [one for one in page.links if "/tokens/" in one and one.endswith("/delete")]
    gone = olga.submit(olga.get(delete), "#confirm form").expect(200)
    assert said(gone) == "The token was deleted."
    again = olga.post(delete)
    assert said(again) == "The token was gone already."
    assert site.api.as_("acme+ci", secret).get("/api/v0/repositories/acme/app").status == 401


def test_a_robot_is_described_switched_off_and_deleted(site: Site, olga: Visitor):
    olga.post("/orgs/acme/robots/new", {"name": "old"}).expect(200)
    page = "/orgs/acme/robots/old"
    changed = olga.post(page, {"description": "not used"}).expect(200)
    assert (said(changed), "not used" in changed.text) == ("The description was changed.", True)
    long = "x" * 1001
    refused = olga.post(page, {"description": long}).expect(422)
    assert (list(refused.problems), refused.one("#f-description")["value"]) == (["description"], long)
    off = olga.post(page, {"state": "off"})
    assert off.one(".head .badge").get_text() == "Switched off"
    on = undo(olga, off)
    assert on.one(".head .badge").get_text() == "On"
    asked = olga.get(f"{page}/delete")
    assert "0 grants end." in asked.text
    gone = olga.submit(asked, "#confirm form").expect(200)
    assert gone.url.endswith("/orgs/acme/robots")
    assert olga.get(page).status == 404


# --- settings ---------------------------------------------------------------------------------------------------


def test_the_full_name_is_changed(olga: Visitor):
    settings = olga.get("/orgs/acme/settings")
    changed = olga.submit(settings, "form:has(#f-full_name)", full_name="Acme <Inc>").expect(200)
    assert changed.one(".head .sub").get_text() == "Acme <Inc>"
    long = "x" * 1001
    refused = olga.submit(settings, "form:has(#f-full_name)", full_name=long).expect(422)
    assert (list(refused.problems), refused.one("#f-full_name")["value"]) == (["full_name"], long)


def test_an_identity_is_added_looked_at_and_deleted(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/settings/identities/new")
    refused = olga.submit(form, name="release", content="no key").expect(422)
    assert (list(refused.problems), refused.one("#f-content").get_text(strip=True)) == (["content"], "no key")
    assert list(olga.submit(form, name="/", content=public_pem(make_key())).expect(422).problems) == ["name"]
    assert list(olga.submit(form, name="").expect(422).problems) == ["name"]
    added = olga.submit(form, name="release team", content=public_pem(make_key())).expect(200)
    assert "release team" in added.text
    taken = olga.submit(form, name="release team", content=public_pem(make_key())).expect(422)
    assert list(taken.problems) == ["name"]
    looked = site.as_("mia").get("/orgs/acme/settings/identities/release%20team").expect(200)
    assert not looked.has("main form")
    assert "BEGIN PUBLIC KEY" in looked.text
    other = public_pem(make_key())
    page = olga.get("/orgs/acme/settings/identities/release%20team")
    olga.submit(page, "main form", content=other).expect(200)
    assert (
        olga.get("/orgs/acme/settings/identities/release%20team").one("#f-content").get_text(strip=True)
        == other.strip()
    )
    gone = olga.submit(olga.get("/orgs/acme/settings/identities/release%20team/delete"), "#confirm form").expect(
        200
    )
    assert said(gone) == "The identity release team was deleted."
    assert olga.get("/orgs/acme/settings/identities/release%20team").status == 404


def test_another_registry_is_kept_tried_out_changed_and_deleted(site: Site, olga: Visitor):
    form = olga.get("/orgs/acme/settings/remotes/new")
    refused = olga.submit(form, name="here", remote_host="not a host/", username="olga", password="secret-1")
    assert refused.status == 422
    assert list(refused.problems) == ["remote_host"]
    assert "secret-1" not in refused.answer.body.decode()
    assert refused.answer.headers["cache-control"] == "no-store"
    host = f"https://127.0.0.1:{site.server.port}"
    kept = olga.submit(form, name="here", remote_host=host, username="olga", password="wrong", skip="on").expect(
        200
    )
    assert kept.title == "Try out here"
    failed = olga.submit(kept, "main form", repository="acme/app").expect(422)
    assert failed.one("#f-repository")["value"] == "acme/app"
    (address,) = [one for one in olga.get("/orgs/acme/settings").links if one.endswith("/check")]
    remote = address.removesuffix("/check")
    change = olga.get(remote)
    assert change.one("#f-password")["value"] == ""
    password = site.api.as_("olga").client.password
    refused = olga.submit(change, "main form", remote_host="not a host/", password=password).expect(422)
    assert refused.one("#f-password")["value"] == ""
    assert password not in refused.answer.body.decode()
    # Neither another session nor another form has what is kept; this one has it.
    sealed = str(refused.one("[name=kept_password]")["value"])
    for visitor, address_of_form in ((site.as_("olga"), remote), (olga, "/orgs/acme/settings/remotes/new")):
        blank = visitor.get(address_of_form)
        tried = visitor.submit(blank, "main form", name="x", remote_host="/", kept_password=sealed).expect(422)
        assert not tried.has("[name=kept_password]")
    forgot = olga.submit(refused, "main form", forget_password="on").expect(422)
    assert not forgot.has("[name=kept_password]")
    olga.submit(refused, "main form", name="itself", remote_host=host).expect(200)
    tried = olga.submit(olga.get(address), "main form", repository="acme/app").expect(200)
    assert f"{host} answers." in tried.text
    assert "yes: Push to acme/app" in tried.text
    assert site.as_("mia").get(remote).status in {403, 404}
    gone = olga.submit(olga.get(f"{remote}/delete"), "#confirm form").expect(200)
    assert said(gone) == "itself was deleted."


def test_a_remote_of_another_namespace_is_not_there(site: Site, olga: Visitor):
    site.api.make_organization("beta", owners=("olga",))
    olga.post("/orgs/acme/settings/remotes/new", {"name": "x", "remote_host": "registry.example"}).expect(200)
    (address,) = [one for one in olga.get("/orgs/acme/settings").links if one.endswith("/check")]
    assert olga.get(address.replace("/acme/", "/beta/")).status == 404
    olga.post(f"{address.removesuffix('/check')}/delete").expect(200)


def test_what_has_to_be_signed_is_said_for_the_whole_namespace(olga: Visitor):
    page = olga.get("/orgs/acme/settings/signing").expect(200)
    olga.submit(page, "main form:has([name=mode])", "Save the policy", mode="report").expect(200)
    assert "an event tells of it" in olga.get("/orgs/acme/settings").text
    olga.submit(olga.get("/orgs/acme/settings/signing/delete"), "#confirm form").expect(200)
    assert "wants no image signed" in olga.get("/orgs/acme/settings").text


def test_an_organization_goes_with_all_it_has_once_its_name_was_typed(site: Site):
    site.api.make_organization("gone", members=("ron",))
    site.api.make_team("gone/devs", "ron")
    for number in range(7):
        site.api.make_repository(f"gone/r{number}")
    admin = site.as_("admin")
    assert "/orgs/gone/delete" in admin.get("/orgs/gone/settings").links
    asked = admin.get("/orgs/gone/delete")
    for text in ("7 repositories go", "gone/r0", "and 2 more", "1 team goes", "1 person stays"):
        assert text in asked.text
    wrong = admin.submit(asked, "#confirm form", typed="gon").expect(422)
    assert list(wrong.problems) == ["typed"]
    deleted = admin.submit(asked, "#confirm form", typed="gone").expect(200)
    assert said(deleted) == "gone was deleted."
    assert admin.get("/orgs/gone").status == 404
    assert site.api.admin.get("/api/v0/repositories/gone/r0").status == 404


def test_an_organization_with_signed_tags_stays_and_the_page_says_why(site: Site):
    site.api.make_organization("trusted")
    site.api.make_repository("trusted/app")
    digest = site.api.admin.client.push("trusted/app", make_image(), "v1")
    site.api.sign("trusted/app", "v1", digest)
    admin = site.as_("admin")
    refused = admin.submit(admin.get("/orgs/trusted/delete"), "#confirm form", typed="trusted")
    assert refused.status == 422
    assert "REPOSITORY_CONTAINS_TAGS_IN_NOTARY" in refused.text
    assert "trusted/app" in refused.one("[data-error-summary]").get_text()
    assert admin.get("/orgs/trusted/repos").status == 200


# --- suggestions ------------------------------------------------------------------------------------------------


def test_names_are_suggested_while_one_types(site: Site, olga: Visitor):
    script = {"HX-Request": "true"}

    def options(who: Visitor, query: str) -> list[str]:
        return [str(one["value"]) for one in who.get(f"/search/suggest?{query}", script).expect(200).all("option")]

    assert options(olga, "kind=user&field=name&name=GNIRT") == ["mia"]
    assert options(olga, "kind=user&field=who&who=") == []
    assert options(olga, "kind=team&in=acme&field=name&name=ev") == ["devs"]
    assert options(olga, "kind=any&in=acme&field=name&name=d")[0] == "devs"
    assert options(olga, "kind=repository&in=acme&field=name&name=li") == ["lib"]
    olga.post("/orgs/acme/robots/new", {"name": "hint"}).expect(200)
    assert options(olga, "kind=user&in=acme&field=who&who=hin") == ["acme+hint"]
    outside = site.as_("eve")
    assert options(outside, "kind=team&in=acme&field=name&name=ev") == []
    assert options(outside, "kind=repository&in=acme&field=name&name=li") == []
    assert options(outside, "kind=user&in=acme&field=who&who=hin") == []
    assert olga.get("/search/suggest?kind=user&name=mi").url.endswith("/orgs")
