"""Repositories in a real browser: filters while one types, the search from every page by keyboard, a new one."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from tests.support.site import NARROW, Site


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    site.api.make_users("ada")
    site.api.make_organization("acme", owners=("ada",))
    for path, description in (("acme/shop", "Sells things"), ("acme/tool", ""), ("ada/notes", "")):
        site.api.make_repository(path, short_description=description)


def test_the_list_follows_what_is_typed_and_chosen(site: Site):
    with site.tab("ada") as tab:
        page = tab.open("/repositories")
        rows = page.locator("#list tbody a.name")
        expect(rows).to_have_count(3)
        field = page.get_by_label("Name or description")
        field.press_sequentially("sells")
        expect(rows).to_have_text(["acme / shop"])
        expect(field).to_be_focused()
        page.wait_for_url("**/repositories?q=sells*")
        field.fill("")
        page.get_by_label("Namespace").select_option("ada")
        expect(rows).to_have_text(["ada / notes"])
        page.get_by_label("Pin ada/notes").click()
        expect(page.get_by_role("region", name="Pinned")).to_have_count(0)  # the list is filtered still
        expect(page.get_by_role("status")).to_contain_text("ada/notes is pinned.")
        tab.open("/repositories")
        expect(page.get_by_role("region", name="Pinned").get_by_role("link")).to_contain_text(["notes"])
        tab.check()
        page.get_by_role("region", name="Pinned").get_by_role("link").click()
        page.get_by_role("button", name="Unpin").click()
        expect(page.get_by_role("status")).to_contain_text("ada/notes is no longer pinned.")
        expect(page.get_by_role("button", name="Pin", exact=True)).to_be_visible()
        tab.check()


def test_the_keyboard_alone_leads_from_page_to_page(site: Site):
    with site.tab("ada") as tab:
        page = tab.open("/orgs")
        heading = page.get_by_role("link", name="Users").first
        heading.focus()
        page.keyboard.press("Control+k")
        field = page.get_by_role("combobox", name="Find repositories, tags, digests")
        # What was typed so far has a list as well, in which nothing is chosen any more when the next one comes.
        whole_list = page.get_by_role("listbox").get_by_role("option").last
        expect(field).to_be_focused()
        expect(page.get_by_role("option", name="New repository")).to_be_visible()
        page.keyboard.type("tool")
        expect(whole_list).to_have_attribute("href", "/search?q=tool")
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("option", name="acme/tool")).to_have_attribute("aria-selected", "true")
        tab.check()
        page.keyboard.press("Escape")
        expect(page.get_by_role("listbox")).to_be_hidden()
        expect(heading).to_be_focused()
        page.keyboard.press("?")
        dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
        expect(dialog).to_be_visible()
        tab.check()
        dialog.get_by_role("switch").press(" ")
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        expect(field).not_to_be_focused()
        page.keyboard.press("Control+k")
        page.keyboard.type("tool")
        expect(whole_list).to_have_attribute("href", "/search?q=tool")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/repositories/acme/tool/info")
        page.keyboard.press("Control+k")
        page.keyboard.type("nothing like it")
        page.keyboard.press("Enter")
        page.wait_for_url("**/search?q=nothing*")


@pytest.mark.parametrize("script", [True, False])
def test_a_repository_is_made_after_a_name_that_it_cannot_have(site: Site, script: bool):
    name = f"new-{script}".lower()
    with site.tab("ada", script=script, size=NARROW) as tab:
        tab.expected = ("422",)
        page = tab.open("/repositories?q=" + name)
        page.get_by_role("link", name=f"Create {name}").click()
        page.locator("#f-name").fill("New One")
        page.get_by_label("Public").check()
        page.get_by_role("button", name="Create repository").click()
        link = page.get_by_role("alert").get_by_role("link")
        assert "small letters" in link.inner_text()
        assert page.get_by_label("Public").is_checked()
        if script:
            expect(page.get_by_role("alert")).to_be_focused()
            tab.check()
        link.click()
        page.locator("#f-name").fill(name)
        page.get_by_role("button", name="Create repository").click()
        page.wait_for_url(f"**/repositories/ada/{name}/tags")
        expect(page.get_by_role("status")).to_contain_text(f"ada/{name} is there now.")
