"""Organisations, teams and permissions in a real browser: an owner's day, with script and without."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect
from tests.support.site import MIDDLE, NARROW, Site

from dtr.accounts import Level
from dtr.app import Application


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    """The organisation acme of olga with two repositories; ron reads acme/app."""
    site.api.make_users("olga", "mia", "dan", "ron")
    site.api.make_organization("acme", owners=("olga",), members=("mia",))
    for path in ("acme/app", "acme/lib"):
        site.api.make_repository(path)

    async def fill(application: Application) -> None:
        grants = application.accounts.grants
        await grants.set_user(await grants.on("acme/app"), "ron", Level.READ)

    site.server.do(fill)


def level(site: Site, user: str, path: str = "acme/app") -> str:
    answer = site.api.admin.get(f"/api/v0/accounts/{user}/repositoryAccess/{path}").expect(200)
    return str(answer.json["accessLevel"])


def press(page: Page, name: str) -> None:
    page.get_by_role("main").get_by_role("button", name=name, exact=True).click()


def follow(page: Page, name: str) -> None:
    page.get_by_role("main").get_by_role("link", name=name, exact=True).first.click()


@pytest.mark.parametrize("script", [True, False])
def test_an_owner_sets_up_a_team_and_gives_it_a_repository(site: Site, script: bool):
    team = f"team-{script}".lower()
    with site.tab("olga", script=script) as tab:
        page = tab.open("/orgs")
        follow(page, "acme")
        follow(page, "Teams 1" if not script else "Teams 0")
        follow(page, "New team")
        page.get_by_label("Name").fill(team)
        press(page, "Create team")
        expect(page.get_by_role("heading", level=1)).to_have_text(team)
        follow(page, "Add people")
        name = page.get_by_label("User name")
        name.press_sequentially("da")
        if script:
            expect(page.locator("datalist option[value=dan]")).to_be_attached()
            tab.check()
        name.fill("dan")
        press(page, "Add people")
        expect(page.get_by_role("link", name="dan", exact=True)).to_be_visible()
        follow(page, "Repositories")
        follow(page, "Add a repository")
        page.get_by_label("Name").fill("lib")
        page.get_by_label("Read and write").check()
        press(page, "Add the repository")
        expect(page.get_by_role("link", name="acme/lib")).to_be_visible()
        if script:
            tab.check()
    assert level(site, "dan", "acme/lib") == "read-write"


def test_a_level_is_changed_where_it_stands_and_changed_back(site: Site):
    with site.tab("olga") as tab:
        page = tab.open("/repositories/acme/app/permissions")
        chosen = page.get_by_label("Level of ron")
        with page.expect_navigation():
            chosen.select_option(label="Admin")
        said = page.get_by_role("status").get_by_text("ron manages acme/app now.")
        said.hover()  # it stays for as long as somebody reads it
        tab.check()
        with page.expect_navigation():
            page.get_by_role("button", name="Undo").click()
        expect(page.get_by_label("Level of ron")).to_have_value("read-only")
        page.get_by_role("button", name="Take access from ron").click()
        expect(page.get_by_label("Level of ron")).to_have_count(0)
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_label("Level of ron")).to_have_value("read-only")
    assert level(site, "ron") == "read-only"


def test_a_person_is_checked_and_found_without_leaving_the_page(site: Site):
    with site.tab("olga", size=NARROW, theme="dark") as tab:
        page = tab.open("/repositories/acme/app/permissions?by=person")
        find = page.get_by_label("Find a person")
        find.press_sequentially("ron")
        expect(page.locator("#list tbody tr")).to_have_count(1)
        expect(find).to_be_focused()
        expect(page).to_have_url(re.compile(r"\bq=ron\b"))
        page.get_by_label("Name of a user or robot").fill("mia")
        page.get_by_label("Name of a user or robot").press("Enter")
        expect(page.locator("#verdict")).to_contain_text("mia has no access.")
        tab.check()
        page.get_by_label("Name of a user or robot").fill("nobody")
        page.get_by_role("button", name="Check access").click()
        expect(page.locator("#verdict")).to_contain_text("There is no user or robot called nobody.")
        page.reload()
        expect(page.get_by_label("Name of a user or robot")).to_have_value("nobody")
        expect(page.locator("#list tbody tr")).to_have_count(1)


def test_a_team_is_deleted_in_a_dialog_that_says_what_goes(site: Site):
    site.api.make_team("acme/old", "mia")
    with site.tab("olga") as tab:
        page = tab.open("/orgs/acme/teams/old/settings")
        page.get_by_role("link", name="Delete the team…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("1 person is in it, and stays in acme.")
        expect(dialog.get_by_role("link", name="Keep it")).to_be_focused()
        tab.check()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.get_by_role("link", name="Delete the team…").click()
        dialog.get_by_role("button", name="Delete the team").click()
        expect(page.get_by_role("status").get_by_text("The team old was deleted.")).to_be_visible()


def test_many_people_are_added_and_the_refused_ones_are_named(site: Site):
    with site.tab("olga", language="ja") as tab:
        tab.expected = ("422",)
        page = tab.open("/orgs/acme/users/new")
        page.locator("#f-names").fill("ron\nnobody-1\nmia")
        page.locator("main form button").click()
        expect(page.get_by_role("alert")).to_be_focused()
        expect(page.locator("#f-names")).to_have_value("nobody-1")
        tab.check()


def test_after_a_change_one_is_where_one_was(site: Site):
    site.api.make_users(*(f"many{number:02}" for number in range(20)))
    site.api.make_organization("many", owners=("olga",), members=tuple(f"many{number:02}" for number in range(20)))
    with site.tab("olga") as tab:
        page = tab.open("/orgs/many/users")
        role = page.get_by_label("Role of many19")
        role.select_option("admin")
        expect(page.locator(".toast")).to_be_visible()
        expect(role).to_have_value("admin")
        expect(role).to_be_focused()
        expect(role).to_be_in_viewport()
        page.locator("tr", has_text="many18").get_by_role("button").click()
        expect(page.locator("tr", has_text="many18")).to_have_count(0)
        expect(role).to_be_in_viewport()


def test_who_walks_through_a_select_with_the_keyboard_says_when_it_is_sent(site: Site):
    with site.tab("olga") as tab:
        page = tab.open("/repositories/acme/app/permissions")
        chosen = page.get_by_label("Level of ron")
        chosen.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(chosen).to_have_value("admin")
        assert level(site, "ron") == "read-only"
        page.keyboard.press("Enter")
        expect(page.locator(".toast")).to_be_visible()
        assert level(site, "ron") == "admin"
        expect(chosen).to_be_focused()
        page.keyboard.press("ArrowUp")
        assert level(site, "ron") == "admin"
        page.keyboard.press("Tab")
        expect(page.locator(".toast")).to_contain_text("ron")
        page.wait_for_function("() => document.activeElement.name === 'level'")
        assert level(site, "ron") == "read-write"
        tab.check()


def test_the_menu_of_half_a_screen_takes_the_focus_and_gives_it_back(site: Site):
    with site.tab("olga", size=MIDDLE) as tab:
        page = tab.open("/orgs")
        menu = page.get_by_role("link", name="Menu")
        menu.focus()
        page.keyboard.press("Enter")
        expect(menu).to_have_attribute("aria-expanded", "true")
        expect(page.get_by_role("link", name="Registry")).to_be_focused()
        tab.check()
        page.keyboard.press("Escape")
        expect(menu).to_be_focused()
        expect(menu).to_have_attribute("aria-expanded", "false")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="API", exact=True).focus()
        page.keyboard.press("Tab")
        expect(menu).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Registry")).to_be_hidden()
