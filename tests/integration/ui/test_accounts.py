"""Users: the list, new ones, their repositories and teams, settings, and the end of one."""

from __future__ import annotations

import pytest
from tests.support.server import PASSWORD
from tests.support.site import Site, Visitor

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\u202egnp.exe' + "long" * 60


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    """ada and bob in acme, of whom ada owns repositories; audrey audits; gone is not active."""
    api = site.api
    api.make_users("ada", "bob", "audrey", "gone")
    api.make_organization("acme", owners=("bob",), members=("ada",))
    api.make_team("acme/devs", "ada")
    for path in ("ada/own", "acme/app", "acme/tool"):
        api.make_repository(path)
    api.make_repository("ada/public", visibility="public")
    api.grant("acme/devs", "read-write", repository="acme/app")
    api.admin.patch("/enzi/v0/accounts/audrey", {"isAuditor": True}).expect(200)
    api.admin.patch("/enzi/v0/accounts/gone", {"isActive": False, "fullName": HOSTILE}).expect(200)
    return site


@pytest.fixture
def admin(world: Site) -> Visitor:
    return world.as_("admin")


@pytest.fixture
def ada(world: Site) -> Visitor:
    return world.as_("ada")


def names(visitor: Visitor, query: str = "") -> list[str]:
    return [one.get_text() for one in visitor.get(f"/users{query}").expect(200).all("#list td.lead a")]


# --- the list ---------------------------------------------------------------------------------------------------


def test_users_are_found_filtered_and_counted(admin: Visitor):
    assert {"ada", "bob", "admin", "audrey", "gone"} <= set(names(admin))
    assert "acme" not in names(admin)
    assert names(admin, "?q=AD") == ["ada", "admin"]
    assert names(admin, "?q=ad&sort=-name") == ["admin", "ada"]
    assert names(admin, "?show=auditors") == ["audrey"]
    assert names(admin, "?show=inactive-users") == ["gone"]
    assert "2 users" in admin.get("/users?q=ad").one(".pager").get_text()
    empty = admin.get("/users?q=nobody+of+this+name")
    assert "nobody of this name" in empty.text
    assert "/users/new?name=nobody%20of%20this%20name" in empty.links


def test_a_page_goes_on_where_the_one_before_ended(world: Site, admin: Visitor):
    world.api.make_users(*(f"many{number:02}" for number in range(30)))
    shown = admin.get("/users?q=many")
    found = [one.get_text() for one in shown.all("#list td.lead a")]
    following = admin.get(next(address for address, text in shown.links.items() if text == "Next"))
    found += [one.get_text() for one in following.all("#list td.lead a")]
    assert found == [f"many{number:02}" for number in range(30)]
    assert "30 users" in following.text


def test_who_administers_or_audits_sees_organizations_and_the_last_log_in(admin: Visitor, world: Site):
    for visitor in (admin, world.as_("audrey")):
        shown = visitor.get("/users?q=ada")
        assert shown.links["/orgs/acme/users"] == "acme"
        assert "Last log-in" in shown.text
    plain = world.as_("ada").get("/users")
    assert "/orgs/acme/users" not in plain.links
    assert "Last log-in" not in plain.text
    assert not plain.has("#list form")
    assert "/users/new" not in plain.links


def test_robots_are_for_who_sees_the_system(world: Site, admin: Visitor):
    world.api.admin.post("/api/v0/accounts/acme/robots", {"name": "ci"}).expect(201)
    assert names(admin, "?show=robots") == ["acme+ci"]
    assert "acme+ci" not in names(world.as_("ada"), "?show=robots")
    assert admin.get("/users/acme%2Bci", follow=False).answer.headers["location"] == "/orgs/acme/robots/ci"


def test_organizations_and_ids_lead_to_their_pages(ada: Visitor, world: Site):
    assert ada.get("/users/acme", follow=False).answer.headers["location"] == "/orgs/acme"
    number = world.api.admin.get("/enzi/v0/accounts/bob").json["id"]
    assert ada.get(f"/users/{number}", follow=False).answer.headers["location"] == "/users/bob/repos"
    assert ada.get("/users/nobody").status == 404
    assert world.as_(None).get("/users").title == "Log in"


def test_many_are_deactivated_and_let_log_in_again_but_for_the_last_administrator(world: Site, admin: Visitor):
    world.api.make_users("off1", "off2")
    shown = admin.submit(
        admin.get("/users?q=off"), "#list form", button="Deactivate", user=["off1", "off2"]
    ).expect(200)
    assert "2 users are deactivated." in shown.text
    assert names(admin, "?show=inactive-users&q=off") == ["off1", "off2"]
    shown = admin.submit(admin.get("/users"), "#list form", button="Deactivate", user=["off1", "admin"])
    assert (shown.status, shown.title) == (422, "Some users were not changed")
    assert "The last active administrator has to stay one." in shown.text
    shown = admin.submit(admin.get("/users"), "#list form", button="Let log in", user=["off1"])
    assert "1 user can log in now." in shown.text
    assert names(admin, "?show=inactive-users&q=off") == ["off2"]
    for visitor in (world.as_("ada"), world.as_("audrey")):
        assert visitor.post("/users/change", {"do": "deactivate", "user": "bob"}).status == 403


def test_many_are_deleted_when_their_number_is_typed_but_for_oneself(world: Site, admin: Visitor):
    world.api.make_users("end1", "end2", "end3")
    world.api.make_repository("end2/left")
    asked = admin.submit(
        admin.get("/users"), "#list form", button="Delete…", user=["end1", "end2", "admin"]
    ).expect(200)
    assert asked.title == "Delete 2 users?"
    items = [one.get_text(" ", strip=True) for one in asked.all("#confirm li")]
    assert items == ["end2, with 1 repository", "end1"]  # whoever owns something comes first
    assert "You are among those who were picked, and stay." in asked.text
    wrong = admin.submit(asked, "#confirm form", button="Delete 2 users", typed="3").expect(422)
    assert wrong.problems == {"typed": "This is another number."}
    assert names(admin, "?q=end") == ["end1", "end2", "end3"]
    shown = admin.submit(wrong, "#confirm form", button="Delete 2 users", typed="2").expect(422)
    assert shown.title == "Some users were not deleted"
    assert "2 other users are deleted." in shown.text
    assert names(admin, "?q=end") == ["end3"]
    assert "admin" in names(admin)
    world.api.admin.get("/api/v0/repositories/end2/left").expect(404)
    only = {"do": "delete", "user": "admin", "confirmed": "yes", "typed": "1"}
    assert "Only you were picked" in admin.post("/users/change", only).text


def test_who_cannot_be_deleted_stays_and_the_others_go(world: Site, admin: Visitor):
    world.api.make_users("last1")
    fields = {"do": "delete", "user": ["last1", "acme", "nobody"], "confirmed": "yes", "typed": "3"}
    shown = admin.post("/users/change", fields).expect(422)
    assert [one.get_text() for one in shown.all("td.lead")] == ["acme", "nobody"]  # an organization is no user
    assert "1 other user is deleted." in shown.text
    assert names(admin, "?q=last1") == []
    gone = {"do": "delete", "user": "nobody"}
    assert admin.post("/users/change", gone).expect(200).title == "Delete 1 user?"
    for visitor in (world.as_("ada"), world.as_("audrey")):
        assert visitor.post("/users/change", {**fields, "user": "bob", "typed": "1"}).status == 403


# --- new ones ---------------------------------------------------------------------------------------------------


def test_a_user_is_made_and_logs_in(world: Site, admin: Visitor):
    form = admin.get("/users/new")
    shown = admin.submit(form, button="Save user", name="eve", fullName="Eve Ning", password="pass word ")
    assert (shown.status, shown.title) == (200, "eve")
    assert "eve can log in now." in shown.text
    world.as_("eve", "pass word ")
    again = admin.submit(admin.get("/users/new"), button="Save and create another", name="fay", password="x")
    assert again.title == "New user"
    assert "fay can log in now." in again.text


def test_a_password_is_made_up_and_shown_once(world: Site, admin: Visitor):
    shown = admin.submit(admin.get("/users/new"), button="Save user", name="gil", isAuditor="on").expect(200)
    assert shown.answer.headers["cache-control"] == "no-store"
    secret = shown.one(".copy code").get_text()
    assert len(secret) >= 20
    world.as_("gil", secret)
    assert world.api.admin.get("/enzi/v0/accounts/gil").json["isAuditor"] is True
    assert secret not in admin.get("/users/gil/settings").answer.body.decode()


def test_a_refused_form_keeps_what_was_typed_and_names_the_field(admin: Visitor):
    shown = admin.submit(
        admin.get("/users/new"),
        button="Save user",
        name="Not A Name",
        fullName=HOSTILE,
        isAdmin="on",
        password="x",
    )
    assert shown.status == 422
    assert set(shown.problems) == {"name"}
    assert shown.one("#f-fullName")["value"] == HOSTILE
    assert shown.one("#f-isAdmin").has_attr("checked")
    assert shown.one("#f-password")["value"] == ""
    taken = admin.submit(admin.get("/users/new"), button="Save user", name="ada", password="x")
    assert taken.problems["name"] == "There is an account of this name."


def test_many_are_made_and_the_lines_that_failed_come_back(world: Site, admin: Visitor):
    lines = 'hal,"Hal, the computer"\n\nivy, Ivy, given\nada, taken\nx, y, z, too many\nWrong Name'
    shown = admin.submit(admin.get("/users/new/many"), lines=lines)
    assert (shown.status, shown.title) == (200, "2 users were made")
    assert shown.one("textarea").get_text().split("\n")[-3:] == ["ada, taken", "x, y, z, too many", "Wrong Name"]
    (secret,) = [one.get_text() for one in shown.all(".copy code")]
    world.as_("hal", secret)
    world.as_("ivy", "given")
    assert world.api.admin.get("/enzi/v0/accounts/hal").json["fullName"] == "Hal, the computer"
    assert admin.submit(admin.get("/users/new/many"), lines=" ").problems.keys() == {"lines"}
    too_many = admin.submit(admin.get("/users/new/many"), lines="\n".join(f"u{n}" for n in range(201)))
    assert "At most 200 lines." in too_many.problems["lines"]


def test_only_administrators_make_users(ada: Visitor, world: Site):
    for visitor in (ada, world.as_("audrey")):
        for path in ("/users/new", "/users/new/many", "/users/bob/delete"):
            assert visitor.get(path).status == 403
        assert visitor.post("/users/new", {"name": "sly", "password": "x", "isAdmin": "on"}).status == 403
        assert visitor.post("/users/new/many", {"lines": "sly"}).status == 403
        assert visitor.post("/users/bob/delete", {"typed": "bob"}).status == 403
    assert world.api.admin.get("/enzi/v0/accounts/sly").status == 404


# --- one --------------------------------------------------------------------------------------------------------


def test_a_users_repositories_are_shown_with_why(ada: Visitor, admin: Visitor, world: Site):
    for visitor in (ada, admin, world.as_("audrey")):
        shown = visitor.get("/users/ada/repos").expect(200)
        rows = {row.a.get_text(): " ".join(row.get_text(" ").split()) for row in shown.all("#list tbody tr")}
        assert rows.keys() == {"acme/app", "ada/own", "ada/public"}
        assert "Read and write through the team devs" in rows["acme/app"]
        assert "Owner of ada" in rows["ada/own"]
    found = ada.get("/users/ada/repos?q=AP").all("#list tbody tr")
    assert [row.a.get_text() for row in found] == ["acme/app"]
    assert "with “nothing” in its name" in ada.get("/users/ada/repos?q=nothing").text
    assert "/system/settings/events?actor=ada" in admin.get("/users/ada/settings").links
    assert "/system/settings/events?actor=ada" not in ada.get("/users/ada/settings").links
    assert "As an administrator, admin can do everything" in admin.get("/users/admin/repos").text
    others = world.as_("bob").get("/users/ada/repos").expect(200)
    assert [row.a.get_text() for row in others.all("#list tbody tr")] == ["ada/public"]


def test_tabs_are_those_that_the_visitor_may_open(world: Site):
    def tabs(who: str, whose: str) -> list[str]:
        shown = world.as_(who).get(f"/users/{whose}/repos").expect(200)
        return [" ".join(one.get_text(" ").split()) for one in shown.all(".tabs a")]

    everything = ["Repositories", "Teams", "Access tokens", "Sessions", "Keys"]
    everything += ["Access to everything", "Webhooks", "Settings"]
    assert tabs("ada", "ada") == everything
    assert tabs("admin", "ada") == everything
    assert tabs("audrey", "ada") == everything[:-2]
    assert tabs("bob", "ada") == ["Repositories", "Keys"]
    for path in ("teams", "access-tokens", "sessions", "settings"):
        assert world.as_("bob").get(f"/users/ada/{path}").status == 403
    assert world.as_("audrey").get("/users/ada/settings").status == 403


def test_teams_and_organizations_of_a_user(ada: Visitor):
    shown = ada.get("/users/ada/teams").expect(200)
    assert shown.links["/orgs/acme/teams/devs/users"] == "acme/ devs"
    assert shown.links["/orgs/acme/users"] == "acme"


# --- settings ---------------------------------------------------------------------------------------------------


def test_a_user_changes_its_name_and_language(world: Site):
    world.api.make_users("kim")
    kim = world.as_("kim")
    assert kim.get("/account", follow=False).answer.headers["location"] == "/users/kim/settings"
    form = "form[action$='/profile']"
    assert "Saved." in kim.submit(kim.get("/account"), form, fullName="Kim Chi").text
    assert world.api.admin.get("/enzi/v0/accounts/kim").json["fullName"] == "Kim Chi"
    shown = kim.submit(kim.get("/account"), "form[action$='/language']", language="ja", theme="dark")
    assert shown.one("html")["lang"] == "ja"
    assert shown.one("html")["data-theme"] == "dark"
    assert world.api.as_("kim").get("/api/v0/accounts/kim/settings").json["language"] == "ja"
    elsewhere = world.as_(None)
    elsewhere.post("/login", {"username": "kim", "password": PASSWORD})
    assert elsewhere.get("/users").one("html")["lang"] == "ja"
    shown = kim.submit(kim.get("/account"), "form[action$='/language']", language="", theme="")
    assert shown.one("html")["lang"] == "en"
    assert "data-theme" not in shown.one("html").attrs


def test_a_user_changes_its_password_and_all_other_sessions_end(world: Site):
    world.api.make_users("lou")
    lou, other = world.as_("lou"), world.as_("lou")
    form = "form[action$='/password']"
    refused = lou.submit(lou.get("/account"), form, oldPassword="wrong", newPassword="new", again="new")
    assert (refused.status, set(refused.problems)) == (422, {"oldPassword"})
    refused = lou.submit(lou.get("/account"), form, oldPassword=PASSWORD, newPassword="new", again="now")
    assert (refused.status, set(refused.problems)) == (422, {"again"})
    assert "somebody else" in lou.get("/account").text.lower()
    before = lou.cookies["__Host-session"]
    shown = lou.submit(lou.get("/account"), form, oldPassword=PASSWORD, newPassword="new", again="new").expect(200)
    assert "Your password is changed; all other sessions are over." in shown.text
    assert "somebody else set your password" not in shown.text.lower()
    assert lou.cookies["__Host-session"] != before
    assert other.get("/users").title == "Log in"
    world.as_("lou", "new")


def test_an_administrator_sets_passwords_and_roles_of_others(world: Site, admin: Visitor):
    world.api.make_users("max")
    shown = admin.get("/users/max/settings")
    assert not shown.has("#f-oldPassword")
    assert not shown.has("form[action$='/language']")
    admin.submit(shown, "form[action$='/password']", newPassword="given", again="given").expect(200)
    world.as_("max", "given")
    admin.submit(shown, "form[action$='/roles']", isAdmin="on", isAuditor="on").expect(200)
    made = world.api.admin.get("/enzi/v0/accounts/max").json
    assert (made["isAdmin"], made["isAuditor"], made["isActive"]) == (True, True, True)
    admin.submit(admin.get("/users/max/settings"), "form[action$='/roles']", isActive=None).expect(200)
    assert "Inactive" in admin.get("/users/max/repos").text


def test_what_two_administrators_change_at_once_is_both_kept(world: Site):
    world.api.make_users("two")
    first, second = world.as_("admin"), world.as_("admin")
    form = "form[action$='/roles']"
    seen = first.get("/users/two/settings"), second.get("/users/two/settings")
    first.submit(seen[0], form, isAuditor="on").expect(200)
    second.submit(seen[1], form, isActive=None).expect(200)
    found = world.api.admin.get("/enzi/v0/accounts/two").json
    assert (found["isAuditor"], found["isActive"], found["isAdmin"]) == (True, False, False)


def test_nobody_raises_itself_nor_changes_others(ada: Visitor, world: Site):
    assert ada.post("/users/ada/settings/roles", {"isActive": "on", "isAdmin": "on"}).status == 403
    for part, fields in {
        "profile": {"fullName": "x"},
        "password": {"newPassword": "x", "again": "x"},
        "roles": {"isActive": "on"},
        "language": {"language": "ja"},
    }.items():
        assert ada.post(f"/users/bob/settings/{part}", fields).status == 403
    assert world.as_("admin").post("/users/bob/settings/language", {"language": "ja"}).status == 403
    assert world.api.admin.get("/enzi/v0/accounts/ada").json["isAdmin"] is False
    world.as_("bob")


def test_the_last_administrator_stays_one(admin: Visitor):
    shown = admin.submit(admin.get("/users/admin/settings"), "form[action$='/roles']", isAdmin=None)
    assert shown.status == 409
    assert "The last active administrator has to stay one." in shown.one(".alert.bad").get_text(" ")
    assert admin.get("/users/admin/settings").one("#f-isAdmin").has_attr("checked")


def test_a_user_is_deleted_with_what_belongs_to_it_when_its_name_is_typed(world: Site, admin: Visitor):
    world.api.make_users("ned")
    world.api.make_repository("ned/app")
    world.api.as_("ned").post("/api/v0/api_tokens", {"tokenLabel": "x"}).expect(200)
    world.as_("ned")
    asked = admin.get("/users/ned/delete").expect(200)
    assert "1 repository of ned, with its tags and images, is deleted." in asked.text
    assert "1 access token or logged-in client stops working." in asked.text
    assert "1 session ends." in asked.text
    refused = admin.submit(asked, typed="max")
    assert (refused.status, set(refused.problems)) == (422, {"typed"})
    shown = admin.submit(asked, typed="ned").expect(200)
    assert (shown.title, "The user ned is deleted." in shown.text) == ("Users", True)
    assert world.api.admin.get("/api/v0/repositories/ned/app").status == 404
    refused = admin.submit(admin.get("/users/admin/delete"), typed="admin")
    assert refused.status == 422
    assert "The last active administrator has to stay one." in refused.text


def test_hostile_names_are_shown_inert(admin: Visitor):
    for path in ("/users?q=gone", "/users/gone/repos", "/users/gone/settings", "/users/gone/delete"):
        shown = admin.get(path).expect(200)
        assert not shown.has("main script")
        assert not shown.has("img[src=x]")
    assert any(HOSTILE in one.get_text() for one in admin.get("/users/gone/repos").all("bdi"))


def test_what_is_no_text_is_refused_and_breaks_nothing(admin: Visitor):
    for path, fields in {
        "/users/new": {"name": "nul\0", "password": "x"},
        "/users/new/many": {"lines": "nul\0, x\n\0"},
        "/users/gone/settings/profile": {"fullName": "\0"},
        "/users/gone/settings/password": {"newPassword": "\0", "again": "\0"},
        "/users/gone/access-tokens/new": {"label": "\0", "level": "pull", "end": "never"},
        "/users/gone/keys/new": {"publicKey": "\0", "label": "\0"},
        "/users/change": {"do": "activate", "user": "\0"},
        "/users/gone/sessions/end": {"session": "\0"},
    }.items():
        assert admin.post(path, fields).status < 500, path
    assert admin.get("/users?q=%00").status == 400
