"""The pages of a repository: overview, README, settings, its other name, its end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.images import make_image
from tests.support.site import Shown, Site

AT = "/repositories/acme/app"
README = "# Our service\n\nIt *does* things. ![logo](https://img.example/l.png)\n"


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    api = site.api
    api.make_users("ada", "rita", "will", "adam", "stan")
    api.make_organization("acme", owners=("ada",))
    api.make_organization("other", owners=("ada",))
    for team, user in (
        ("readers", "rita"),
        ("writers", "will"),
        ("admins", "adam"),
    ):
        api.make_team(f"acme/{team}", user)
    api.make_repository("acme/app", long_description=README, short_description="An application")
    api.make_repository("acme/open", visibility="public")
    for team, level in (("readers", "read-only"), ("writers", "read-write"), ("admins", "admin")):
        for name in ("acme/app", "acme/open"):
            api.grant(f"acme/{team}", level, repository=name)
    api.as_("ada").client.push("acme/app", make_image(), "v1")
    return site


def fresh(world: Site, name: str, **settings: Any) -> str:
    """A repository of its own, by its address; adam administers it."""
    world.api.make_repository(f"acme/{name}", **settings)
    world.api.grant("acme/admins", "admin", repository=f"acme/{name}")
    return f"/repositories/acme/{name}"


# --- overview -------------------------------------------------------------------------------------------------


def test_the_address_of_the_repository_and_old_ones_lead_to_the_overview(world: Site):
    rita = world.as_("rita")
    for old in (AT, f"{AT}/", f"{AT}/info/"):
        assert rita.get(old).expect(200).url.endswith(f"{AT}/info")
    # A name with a slash is one name, not a repository and its page.
    world.api.make_repository("acme/app2/info")
    assert world.as_("ada").get("/repositories/acme/app2/info").expect(200).title == "app2/info"


def test_the_overview_says_what_it_is_how_to_pull_and_how_much_it_is_used(world: Site):
    shown = world.as_("rita").get(f"{AT}/info").expect(200)
    assert shown.title == "app"
    assert shown.one(".markdown h3").get_text() == "Our service"
    assert shown.one(".markdown a")["href"] == "https://img.example/l.png"
    commands = [one.get_text() for one in shown.all(".copy code")]
    host = world.server.address
    assert commands == [f"docker pull {host}/acme/app:v1"]
    facts = {one.dt.get_text(): one.dd.get_text(" ").strip() for one in shown.all(".facts > div")}  # type: ignore[union-attr]
    assert (facts["Tags"], facts["Pushes"], facts["Pulls"]) == ("1", "1", "0")
    assert facts["Last pull"] == "never"
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in shown.all("details tbody tr")]
    assert (len(rows), rows[0][1:3]) == (30, ["0", "1"])
    assert shown.has("svg[aria-label='1 push in this period']")
    weeks = world.as_("rita").get(f"{AT}/info?days=364").expect(200)
    assert len(weeks.all("details tbody tr")) == 52


@pytest.mark.parametrize(
    ("name", "last", "edits", "pushes"),
    [
        ("rita", "Pull", False, False),
        ("will", "Push and delete tags", False, True),
        ("adam", "Delete the repository", True, True),
        ("ada", "Delete the repository", True, True),
        ("admin", "Delete the repository", True, True),
    ],
)
def test_everybody_is_told_what_they_can_do_and_who_can_give_more(
    world: Site, name: str, last: str, edits: bool, pushes: bool
):
    shown = world.as_(name).get(f"{AT}/info").expect(200)
    assert [one.get_text() for one in shown.all("[aria-labelledby=yours] li")][-1].strip() == last
    assert shown.has(f"a[href='{AT}/info/edit']") is edits
    assert ("docker push" in shown.text) is pushes
    assert ("Who can give you more" in shown.text) is not edits
    if not edits:
        assert {"/users/ada", "/users/adam"} <= set(shown.links)
    tabs = [one.get_text() for one in shown.all(".tabs a")]
    assert ("Settings" in tabs) is edits


def test_an_anonymous_visitor_sees_what_is_public_and_is_led_to_the_log_in_for_the_rest(world: Site):
    nobody = world.as_(None)
    shown = nobody.get("/repositories/acme/open/info").expect(200)
    assert "You are not logged in." in shown.text
    assert not any("/permissions" in link or "/activity" in link for link in shown.links)
    assert nobody.get(f"{AT}/info").expect(200).title == "Log in"
    world.as_("stan").get(f"{AT}/info").expect(404)
    world.as_("stan").get("/repositories/acme/never/info").expect(404)


def test_an_empty_repository_tells_who_may_push_how(world: Site):
    at = fresh(world, "empty")
    commands = [one.get_text() for one in world.as_("adam").get(f"{at}/info").all(".copy code")]
    assert [one.split()[1] for one in commands] == ["login", "tag", "push"]
    assert commands[2].endswith("/acme/empty:latest")


def test_a_long_readme_begins_and_goes_on_and_the_page_stays_small(world: Site):
    at = fresh(world, "long", long_description="\n\n".join(f"Paragraph {n}." for n in range(4000)))
    adam = world.as_("adam")
    shown = adam.get(f"{at}/info").expect(200)
    assert len(shown.answer.body) < 50_000
    assert "Paragraph 3999." not in shown.text
    assert "Paragraph 3999." in adam.get(shown.one("a[href*='readme=all']")["href"]).expect(200).text  # type: ignore[arg-type]
    source = adam.get(f"{at}/info/source").expect(200).answer
    assert source.headers["content-type"] == "text/plain; charset=utf-8"
    assert source.body.decode().endswith("Paragraph 3999.")


# --- README ---------------------------------------------------------------------------------------------------


def test_the_longest_readme_is_saved_and_a_longer_one_is_refused_as_typed(world: Site):
    at = fresh(world, "longest")
    adam = world.as_("adam")
    seen = adam.get(f"{at}/info/edit").expect(200).one("[name=seen]")["value"]
    longest = "あ" * 500_000
    refused = adam.post(f"{at}/info/edit", {"readme": longest + "い", "seen": seen})
    assert refused.status == 422
    assert refused.one("#f-readme").get_text().removeprefix("\n") == longest + "い"
    adam.post(f"{at}/info/edit", {"readme": longest, "seen": seen}).expect(200)
    assert world.api.admin.get("/api/v0/repositories/acme/longest").json["longDescription"] == longest


def test_the_readme_is_previewed_and_saved(world: Site):
    at = fresh(world, "readme")
    adam = world.as_("adam")
    shown = adam.get(f"{at}/info/edit").expect(200)
    form = {"readme": "# Hi\r\n\r\n<script>x</script>\r\n\r\n**b**", "seen": shown.one("[name=seen]")["value"]}
    preview = adam.post(f"{at}/info/edit", {**form, "preview": "1"}).expect(200)
    assert preview.one("#preview .markdown").get_text(" ").split() == ["Hi", "b"]
    assert preview.one("#f-readme").get_text().removeprefix("\n").startswith("# Hi")
    assert world.api.admin.get("/api/v0/repositories/acme/readme").json["longDescription"] == ""
    saved = adam.post(f"{at}/info/edit", form)
    assert "The README is saved." in saved.text
    stored = world.api.admin.get("/api/v0/repositories/acme/readme").json["longDescription"]
    assert stored == "# Hi\n\n<script>x</script>\n\n**b**"
    assert not saved.has(".markdown script")


def test_of_two_editors_the_second_one_gets_both_texts(world: Site):
    at = fresh(world, "two", long_description="first")
    adam, ada = world.as_("adam"), world.as_("ada")
    hers, his = ada.get(f"{at}/info/edit"), adam.get(f"{at}/info/edit")
    adam.submit(his, "#editor", "Save the README", readme="his text").expect(200)
    conflict = ada.submit(hers, "#editor", "Save the README", readme="her text").expect(409)
    assert conflict.one("#f-readme").get_text().strip() == "her text"
    assert conflict.one("pre.text-block").get_text() == "his text"
    assert "Somebody else changed the README" in conflict.problems["readme"]
    assert world.api.admin.get("/api/v0/repositories/acme/two").json["longDescription"] == "his text"
    # Who has seen the other text and saves again means it.
    ada.submit(conflict, "#editor", "Save the README", readme="both texts").expect(200)
    assert world.api.admin.get("/api/v0/repositories/acme/two").json["longDescription"] == "both texts"


def test_a_readme_that_cannot_be_kept_comes_back_as_typed(world: Site):
    at = fresh(world, "large")
    adam = world.as_("adam")
    shown = adam.get(f"{at}/info/edit")
    refused = adam.submit(shown, "#editor", "Save the README", readme="x" * 500_001).expect(422)
    assert refused.one("#f-readme").get_text().strip() == "x" * 500_001
    assert "readme" in refused.problems


# --- settings -------------------------------------------------------------------------------------------------


def settings(world: Site, path: str) -> dict[str, Any]:
    return dict(world.api.admin.get(f"/api/v0{path}").expect(200).json)


def form_of(section: str) -> str:
    return f"form[aria-labelledby=s-{section}]"


def test_settings_are_saved_form_by_form(world: Site):
    at = fresh(world, "set")
    adam = world.as_("adam")
    shown = adam.get(f"{at}/settings").expect(200)
    shown = adam.submit(shown, form_of("general"), short="A <b>line</b> & more", visibility="public")
    assert "The settings are saved." in shown.text
    assert "A <b>line</b> & more" in shown.text
    adam.submit(shown, form_of("tags"), immutability="some", patterns="v*\nrelease-?", limit="7").expect(200)
    found = settings(world, at)
    assert (found["shortDescription"], found["visibility"]) == ("A <b>line</b> & more", "public")
    # A limit needs tags that may go: with another protection it is none.
    assert (found["immutableTagPatterns"], found["tagLimit"]) == (["v*", "release-?"], 0)
    adam.submit(adam.get(f"{at}/settings"), form_of("tags"), immutability="none", limit="7").expect(200)
    adam.submit(adam.get(f"{at}/settings"), form_of("scanning"), scan="push").expect(200)
    found = settings(world, at)
    assert (found["immutableTagPatterns"], found["tagLimit"], found["scanOnPush"]) == ([], 7, True)
    assert found["visibility"] == "public"


@pytest.mark.parametrize(
    ("section", "typed", "field"),
    [
        ("tags", {"immutability": "some", "patterns": " "}, "patterns"),
        ("tags", {"immutability": "some", "patterns": "no/pattern"}, "patterns"),
        ("tags", {"immutability": "none", "limit": "many"}, "limit"),
        ("tags", {"immutability": "none", "limit": "9999999999"}, "limit"),
        ("general", {"short": "x" * 1001}, "short"),
        ("general", {"visibility": "secret"}, "visibility"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_stay_typed(
    world: Site, section: str, typed: dict[str, str], field: str
):
    adam = world.as_("adam")
    before = settings(world, AT)
    refused = adam.submit(adam.get(f"{AT}/settings"), form_of(section), **typed).expect(422)
    assert refused.has(f"{form_of(section)} [data-error-summary]")
    assert len(refused.all("[data-error-summary]")) == 1
    assert field in refused.problems
    for name, value in typed.items():
        for one in refused.all(f"input[name={name}]:not([type=radio]), textarea[name={name}]"):
            assert str(one.get("value", one.get_text())).strip() == value.strip()
    assert settings(world, AT) == before


def test_of_two_who_change_settings_the_second_one_is_told_what_they_are_now(world: Site):
    at = fresh(world, "contested")
    adam = world.as_("adam")
    mine, theirs = adam.get(f"{at}/settings"), adam.get(f"{at}/settings")
    adam.submit(theirs, form_of("general"), short="theirs").expect(200)
    # What others changed in another form is no conflict.
    adam.submit(mine, form_of("tags"), limit="5").expect(200)
    refused = adam.submit(mine, form_of("general"), short="mine").expect(409)
    assert "Description: theirs" in refused.text
    assert refused.one("#f-short")["value"] == "mine"
    adam.submit(refused, form_of("general")).expect(200)
    assert settings(world, at)["shortDescription"] == "mine"


def test_a_form_that_is_none_is_refused(world: Site):
    adam = world.as_("adam")
    adam.post(f"{AT}/settings", {"section": "all"}).expect(400)
    adam.post(f"{AT}/settings", {"section": "general", "seen": "{"}).expect(400)
    adam.post(
        f"{AT}/settings", {"section": "general", "visibility": "private", "seen": json.dumps({"tagLimit": "x"})}
    ).expect(422)


@pytest.mark.parametrize("name", [None, "stan", "rita", "will"])
@pytest.mark.parametrize(
    "path", ["info/edit", "settings", "settings/rename", "settings/delete", "settings/forget-signatures"]
)
def test_who_does_not_administer_it_neither_sees_nor_sends_these_forms(world: Site, name: str | None, path: str):
    visitor = world.as_(name)
    refused = {303} if name is None else {404} if name == "stan" else {403}
    if path != "settings/rename":
        assert visitor.get(f"{AT}/{path}", follow=False).status in refused
    fields = {"section": "general", "readme": "mine", "typed": "acme/app", "name": "mine", "namespace": "acme"}
    assert visitor.post(f"{AT}/{path}", fields, follow=False).status in refused
    found = settings(world, AT)
    assert found["longDescription"] == README


def test_what_must_be_signed_is_said_on_a_page_of_the_settings(world: Site):
    at = fresh(world, "to-sign")
    adam = world.as_("adam")
    assert "Nothing of its own" in adam.get(f"{at}/settings").text
    world.api.as_("adam").put("/api/v0/repositories/acme/to-sign/enforcement", {"mode": "report"}).expect(200)
    shown = adam.get(f"{at}/settings")
    assert "Only reported" in shown.text
    assert adam.get(f"{at}/settings/signing").expect(200).title == "to-sign"


# --- another name ---------------------------------------------------------------------------------------------


def test_an_owner_renames_and_the_old_address_leads_on(world: Site):
    at = fresh(world, "old-name")
    ada = world.as_("ada")
    shown = ada.submit(ada.get(f"{at}/settings"), form_of("rename"), name="new-name").expect(200)
    assert (shown.title, "acme/old-name is called acme/new-name now." in shown.text) == ("new-name", True)
    assert ada.get(f"{at}/info?days=90").expect(200).url.endswith("/repositories/acme/new-name/info?days=90")
    refused = ada.submit(shown, form_of("rename"), name="app").expect(422)
    assert "name" in refused.problems
    refused = ada.submit(shown, form_of("rename"), name="No Name").expect(422)
    assert refused.one("#f-name")["value"] == "No Name"


def test_to_leave_a_namespace_is_asked_about_first(world: Site):
    at = fresh(world, "moving")
    ada = world.as_("ada")
    shown = ada.get(f"{at}/settings")
    assert [one["value"] for one in shown.all("#f-namespace option")] == ["ada", "acme", "other"]
    asked = ada.submit(shown, form_of("rename"), namespace="other")
    assert asked.title == "Move acme/moving to other?"
    assert "What teams and robots of acme may do here ends." in asked.text
    moved = ada.submit(asked, "#confirm form").expect(200)
    assert moved.url.endswith("/repositories/other/moving/settings")


def test_who_may_not_make_repositories_is_not_offered_another_name(world: Site):
    assert not world.as_("adam").get(f"{AT}/settings").has(form_of("rename"))


# --- its end --------------------------------------------------------------------------------------------------


def test_it_is_deleted_when_its_name_is_typed(world: Site):
    at = fresh(world, "doomed")
    world.api.as_("ada").client.push("acme/doomed", make_image(), "v1")
    adam = world.as_("adam")
    asked = adam.get(f"{at}/settings/delete").expect(200)
    assert "1 tag goes at once" in asked.text
    again = adam.submit(asked, "#confirm form", typed="acme/other").expect(422)
    assert "typed" in again.problems
    gone = adam.submit(again, "#confirm form", typed="acme/doomed").expect(200)
    assert "acme/doomed is deleted." in gone.text
    adam.get(f"{at}/info").expect(404)


def test_signed_tags_block_it_and_the_page_names_the_way_out(world: Site):
    at = fresh(world, "signed")
    image = make_image()
    world.api.as_("ada").client.push("acme/signed", image, "v1")
    world.api.sign("acme/signed", "v1", image.digest)
    adam = world.as_("adam")
    shown = adam.get(f"{at}/settings").expect(200)
    assert not shown.has(f"a[href='{at}/settings/delete']")
    assert any(one.get_text().startswith("notary delete ") for one in shown.all(".copy code"))
    assert [one.get_text() for one in shown.all("[aria-labelledby=s-delete] .badge")] == ["v1"]
    # Who asks all the same is told why not.
    refused = adam.post(f"{at}/settings/delete", {"typed": "acme/signed"}).expect(405, 409, 422)
    assert "signed in content trust" in refused.text
    asked = adam.get(f"{at}/settings/forget-signatures").expect(200)
    assert "1 signed tag" in asked.text
    after = adam.submit(asked, "#confirm form").expect(200)
    assert after.has(f"a[href='{at}/settings/delete']")
    deleted = adam.submit(adam.get(f"{at}/settings/delete"), "#confirm form", typed="acme/signed")
    assert "acme/signed is deleted." in deleted.text


# --- whatever is written --------------------------------------------------------------------------------------

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202eevil {{7*7}} %(x)s {0} " + "w" * 300


def test_what_people_wrote_is_shown_and_does_nothing(world: Site):
    at = fresh(world, "nasty", short_description=NASTY, long_description=NASTY)
    adam = world.as_("adam")
    for path in ("info", "info/edit", "settings", "activity"):
        shown: Shown = adam.get(f"{at}/{path}").expect(200)
        assert not shown.has("main script, main img, main [onerror]")
        assert "{{7*7}}" in shown.text
    assert adam.get(f"{at}/settings").one("#f-short")["value"] == NASTY
