"""Who can do what on a repository, and why: what the page shows to whom, and what is changed by it."""

from __future__ import annotations

import pytest
from tests.support.site import Shown, Site, Visitor

from dtr.accounts import Level
from dtr.app import Application

PAGE = "/repositories/acme/app/permissions"


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    """
    The organisation acme of olga, with dan in devs, which writes acme/app; rea administers it, ron reads it.

    acme/many was granted to forty users; acme/public is public; eve/own is in a personal namespace.
    """
    api = site.api
    api.make_users("olga", "rea", "dan", "ron", "eve", "audrey", "gone", *(f"user-{n:02}" for n in range(40)))
    api.make_organization("acme", owners=("olga",), members=("dan",))
    for team in ("acme/devs", "acme/all"):
        api.make_team(team, "dan")
    for path in ("acme/app", "acme/many", "eve/own"):
        api.make_repository(path)
    api.make_repository("acme/public", visibility="public")
    api.grant("acme/devs", "read-write", repository="acme/app")
    api.grant("acme/all", "read-only")

    async def fill(application: Application) -> None:
        accounts = application.accounts
        await accounts.update("audrey", is_auditor=True)
        await accounts.robots.create(await accounts.get("acme"), "ci", description="builds")
        grants = accounts.grants
        for user, level in (
            ("rea", Level.ADMIN),
            ("ron", Level.READ),
            ("gone", Level.WRITE),
            ("acme+ci", Level.READ),
        ):
            await grants.set_user(await grants.on("acme/app"), user, level)
        await accounts.update("gone", is_active=False)
        for number in range(40):
            await grants.set_user(await grants.on("acme/many"), f"user-{number:02}", Level.READ)

    site.server.do(fill)


@pytest.fixture
def rea(site: Site) -> Visitor:
    return site.as_("rea")


def level(site: Site, user: str, path: str = "acme/app") -> str:
    answer = site.api.admin.get(f"/api/v0/accounts/{user}/repositoryAccess/{path}").expect(200)
    return str(answer.json["accessLevel"])


def lines(shown: Shown) -> list[str]:
    """Each row of the list: who, the level that is chosen or said, and why."""
    found = []
    for row in shown.all("#list tbody tr"):
        chosen = row.select_one("option[selected]") or row.select("td")[0]
        cells = (row.select_one(".name"), chosen, row.select_one("td.full"))
        found.append(" | ".join(one.get_text(" ", strip=True) for one in cells if one is not None))
    return found


def said(shown: Shown) -> str:
    return shown.one(".toast > span").get_text()


def undo(visitor: Visitor, shown: Shown) -> Shown:
    return visitor.submit(shown, ".toast form").expect(200)


# --- who has access ---------------------------------------------------------------------------------------------


def test_grants_and_all_others_who_have_access_are_listed_with_the_reason(rea: Visitor):
    assert lines(rea.get(PAGE)) == [
        "Owners of acme | Admin | own the organization",
        "all | Read only | granted on all of acme",
        "devs | Read and write | granted here",
        "gone | Read and write | granted here",
        "rea | Admin | granted here",
        "ron | Read only | granted here",
        "acme+ci | Read only | granted here",
        "Administrators of the registry | Admin | manage everything",
        "Auditors | No access | see everything, and pull nothing by that",
        "Everyone else | No access | the repository is private",
    ]
    assert lines(rea.get(f"{PAGE}?q=BUILD")) == ["acme+ci | Read only | granted here"]
    public = site_of(rea, "admin").get("/repositories/acme/public/permissions")
    assert lines(public)[-1] == "Everyone else | Read only | the repository is public"


def site_of(visitor: Visitor, name: str) -> Visitor:
    return Visitor(visitor.server, name)


def test_everyone_with_access_is_listed_with_all_reasons(rea: Visitor):
    assert lines(rea.get(f"{PAGE}?by=person")) == [
        "Administrator | Admin | administrator of the registry",
        "olga | Admin | owner of acme",
        "rea | Admin | own grant",
        "dan | Read and write | team devs; team all, on all of acme",
        "acme+ci | Read only | own grant",
        "ron | Read only | own grant",
        "audrey | No access | auditor: sees everything, changes nothing",
    ]
    assert lines(rea.get(f"{PAGE}?by=person&level=read-only&q=ro")) == ["ron | Read only | own grant"]
    nobody = rea.get(f"{PAGE}?by=person&q=no-such")
    assert nobody.has("#list .empty a")
    public = site_of(rea, "admin").get("/repositories/acme/public/permissions?by=person")
    assert "Everybody else can pull, too" in public.text


def test_the_lists_are_paged_and_the_address_keeps_what_was_chosen(site: Site):
    olga = site.as_("olga")
    first = olga.get("/repositories/acme/many/permissions?q=user")
    assert (len(lines(first)), "40 grants" in first.text) == (25, True)
    second = olga.get(str(first.one("#list .pager a[rel=next]")["href"]))
    assert (len(lines(second)), second.one("#f-q")["value"]) == (15, "user")
    assert not second.has("#list .pager a[rel=next]")
    names = [one.partition(" ")[0] for one in (*lines(first), *lines(second))]
    assert names == [f"user-{number:02}" for number in range(40)]
    people = olga.get("/repositories/acme/many/permissions?by=person&q=user")
    assert "40 people and robots" in people.text
    more = olga.get(str(people.one("#list .pager a[rel=next]")["href"]))
    assert len(lines(more)) == 15
    assert more.one("select[name=level]")


def test_a_page_stays_small_also_with_long_names(site: Site):
    site.api.make_repository("acme/long")

    async def fill(application: Application) -> None:
        accounts = application.accounts
        place = await accounts.grants.on("acme/long")
        for number in range(30):
            name = f"somebody-with-a-long-name-{number:03}"
            await accounts.create_user(name, None, full_name=f"{name.title()} {'of the Long Ones ' * 50}")
            await accounts.grants.set_user(place, name, Level.ADMIN)

    site.server.do(fill)
    olga = site.as_("olga")
    for page in ("", "?by=person"):
        shown = olga.get(f"/repositories/acme/long/permissions{page}").expect(200)
        assert len(lines(shown)) >= 25
        assert len(shown.answer.body) < 50_000


def test_who_only_reads_sees_the_own_reasons_and_who_can_give_more(site: Site):
    shown = site.as_("ron").get(f"{PAGE}?by=person&who=dan")
    assert not shown.has("#list, #verdict, main form")
    assert [one.get_text(" ", strip=True) for one in shown.all(".why li")] == ["Read only own grant"]
    assert "dan" not in shown.text
    assert [one.get_text() for one in shown.all("main p a")] == ["olga", "rea"]
    plain = site.as_("eve").get("/repositories/acme/public/permissions")
    assert [one.get_text(" ", strip=True) for one in plain.all(".why li")] == [
        "Read only the repository is public"
    ]
    assert "olga" not in plain.one("main").get_text()


def test_auditors_look_and_are_offered_nothing_else(site: Site):
    shown = site.as_("audrey").get(PAGE).expect(200)
    assert len(lines(shown)) == 10
    assert not shown.has("main form[method=post]")
    assert f"{PAGE}/new" not in shown.links
    assert site.as_("audrey").get(f"{PAGE}/new").status == 403


# --- one person -------------------------------------------------------------------------------------------------


def test_a_person_is_checked(rea: Visitor):
    shown = rea.get(f"{PAGE}?by=person&q=a&who=dan")
    assert shown.one("#verdict .strong").get_text() == "dan can pull, push and delete tags."
    assert [one.get_text(" ", strip=True) for one in shown.all("#verdict .why li")] == [
        "Read and write team devs",
        "Read only team all, on all of acme",
    ]
    assert shown.all("#verdict .why li.win") == shown.all("#verdict .why li")[:1]
    assert [one.get_text() for one in shown.all("#verdict p.small a")] == ["olga", "rea"]
    assert (shown.one("#f-q")["value"], shown.one("#f-who")["value"]) == ("a", "dan")
    nobody = rea.get(f"{PAGE}?who=%3Cb%3Eno").expect(200)
    assert nobody.one("#verdict .err").get_text(strip=True) == "There is no user or robot called <b>no."
    assert "eve has no access." in rea.get(f"{PAGE}?who=eve").text
    assert "gone cannot log in" in rea.get(f"{PAGE}?who=gone").text
    assert "audrey can look, and not pull." in rea.get(f"{PAGE}?who=audrey").text


# --- what is changed --------------------------------------------------------------------------------------------


def test_access_is_given_changed_taken_and_each_of_it_undone(site: Site, rea: Visitor):
    form = rea.get(f"{PAGE}/new?name=eve&kind=user")
    assert form.one("#f-name")["value"] == "eve"
    assert form.one("input[name=kind][checked]")["value"] == "user"
    given = rea.submit(form, level="read-write").expect(200)
    assert (said(given), level(site, "eve")) == ("eve can push to acme/app now.", "read-write")
    listed = rea.get(f"{PAGE}?q=eve")
    changed = rea.submit(listed, "#list form:has(select)", "Save", level="admin")
    assert (said(changed), level(site, "eve")) == ("eve manages acme/app now.", "admin")
    undo(rea, changed)
    assert level(site, "eve") == "read-write"
    back = {"Referer": f"{rea.origin}{PAGE}?q=eve"}
    taken = rea.post(
        f"{PAGE}/change", {"kind": "user", "name": "eve", "level": "admin", "take": "1"}, headers=back
    )
    assert (said(taken), level(site, "eve")) == ("eve has no grant on acme/app any more.", "none")
    assert taken.url.endswith("?q=eve")
    undo(rea, taken)
    assert level(site, "eve") == "read-write"
    rea.post(f"{PAGE}/change", {"kind": "user", "name": "eve", "level": "none"}).expect(200)


def test_a_form_that_is_refused_keeps_what_was_typed(rea: Visitor):
    form = rea.get(f"{PAGE}/new")
    for fields, wrong in (
        ({"kind": "team", "name": "no-team", "level": "admin"}, "name"),
        ({"kind": "user", "name": "nobody-x", "level": "read-write"}, "name"),
        ({"kind": "user", "name": "", "level": "admin"}, "name"),
        ({"kind": "user", "name": "eve", "level": "owner"}, "level"),
    ):
        refused = rea.submit(form, **fields).expect(422)
        assert list(refused.problems) == [wrong]
        assert refused.one("#f-name")["value"] == fields["name"]
        assert refused.one("input[name=kind][checked]")["value"] == fields["kind"]
        assert refused.has("[data-error-summary]")


def test_who_takes_the_own_access_away_is_led_where_it_is_not_needed(site: Site):
    site.api.make_users("self")
    grant = "/api/v0/repositories/acme/app/userAccess/self"
    site.api.admin.put(grant, {"accessLevel": "admin"}).expect(200)
    own = site.as_("self")
    gone = own.post(f"{PAGE}/change", {"kind": "user", "name": "self", "level": "none"}).expect(200)
    assert gone.url.endswith("/repositories")
    assert not gone.has(".toast form"), "what was undone would be refused"


@pytest.mark.parametrize("who", ["ron", "dan", "audrey", "eve"])
def test_what_no_control_offers_is_refused(site: Site, who: str):
    fields = {"kind": "user", "name": "eve", "level": "admin"}
    for place in ("new", "change"):
        assert site.as_(who).post(f"{PAGE}/{place}", fields).status in {403, 404}
    assert level(site, "eve") == "none"


def test_a_personal_namespace_is_shared_with_people_alone(site: Site):
    eve = site.as_("eve")
    page = "/repositories/eve/own/permissions"
    assert lines(eve.get(page))[0] == "eve | Admin | owns the namespace"
    form = eve.get(f"{page}/new")
    assert not form.has("input[type=radio][name=kind]")
    eve.submit(form, name="ron", level="read-only").expect(200)
    assert level(site, "ron", "eve/own") == "read-only"
    refused = eve.post(f"{page}/new", {"kind": "team", "name": "devs", "level": "admin"})
    assert refused.status == 422


def test_a_personal_namespace_is_shared_as_a_whole(site: Site):
    eve, page = site.as_("eve"), "/users/eve/access"
    form = eve.get(f"{page}/new")
    assert list(eve.submit(form, name="nobody-x").expect(422).problems) == ["name"]
    given = eve.submit(form, name="dan", level="admin").expect(200)
    assert (said(given), level(site, "dan", "eve/own")) == ("dan manages eve now.", "admin")
    dan = site.as_("dan")
    assert page in dan.get("/users/eve/repos").links
    changed = dan.post(f"{page}/change", {"name": "dan", "level": "admin", "take": "1"}).expect(200)
    assert changed.url.endswith("/repositories"), "without the access, the page is not there"
    assert level(site, "dan", "eve/own") == "none"
    assert site.as_("audrey").get(page).expect(200).has("#list .empty")
    assert f"{page}/new" not in site.as_("audrey").get(page).links
    for who in ("dan", "audrey", "ron"):
        assert site.as_(who).post(f"{page}/new", {"name": who, "level": "admin"}).status in {403, 404}


def test_a_repository_that_is_called_otherwise_now_is_found(site: Site, rea: Visitor):
    site.api.make_repository("acme/old")
    site.api.admin.post("/api/v0/repositories/acme/old/rename", {"name": "newer"}).expect(200)
    moved = site.as_("admin").get("/repositories/acme/old/permissions")
    assert (moved.status, moved.url.rpartition("/acme/")[2]) == (200, "newer/permissions")
    assert rea.get("/repositories/acme/none/permissions").status == 404
