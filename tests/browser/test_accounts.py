"""Stories of users in a real browser: with script and without, on a phone, in Japanese."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from tests.support.server import PASSWORD
from tests.support.site import NARROW, Site


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    site.api.make_users("ada", *(f"user{number:02}" for number in range(30)))
    site.api.make_repository("ada/app")
    return site


def test_a_wrong_password_a_right_one_and_a_password_of_ones_own(world: Site):
    world.api.make_users("nina")
    with world.tab(None, size=NARROW, theme="dark") as tab:
        tab.expected = ("401", "422")
        page = tab.open("/users/nina/settings")
        page.get_by_label("User name").fill("nina")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("[data-error-summary]")).to_be_focused()
        expect(page.get_by_label("User name")).to_have_value("nina")
        tab.check()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="nina")).to_be_visible()
        page.get_by_label("Present password").fill(PASSWORD)
        page.get_by_label("New password", exact=True).fill("of my own")
        page.get_by_label("New password again").fill("of my owm")
        page.get_by_role("button", name="Change password").click()
        expect(page.locator("#e-again")).to_have_text("The two are not the same.")
        tab.check()
        page.get_by_label("Present password").fill(PASSWORD)
        page.get_by_label("New password", exact=True).fill("of my own")
        page.get_by_label("New password again").fill("of my own")
        page.get_by_role("button", name="Change password").click()
        expect(page.locator(".toast")).to_contain_text("Your password is changed")
        page.goto(f"{tab.origin}/users")
        expect(page.locator(".banner")).to_have_count(0)


def test_users_are_found_while_one_types_and_picked_ones_deactivated(world: Site):
    with world.tab("admin") as tab:
        page = tab.open("/users")
        page.get_by_label("Name or full name").press_sequentially("user1")
        expect(page.locator("#list tbody tr")).to_have_count(10)
        expect(page.get_by_label("Name or full name")).to_be_focused()
        expect(page).to_have_url(re.compile(r"/users\?q=user1&"))
        page.get_by_label("user10").check()
        page.get_by_label("user11").check()
        expect(page.locator(".bulk")).to_contain_text("2 selected")
        tab.check()
        page.get_by_role("button", name="Deactivate").click()
        expect(page.locator(".toast")).to_contain_text("2 users are deactivated.")
        page.get_by_label("Show").select_option("inactive-users")
        expect(page.locator("#list tbody tr")).to_have_count(2)


def test_how_many_a_filter_leaves_is_spoken(world: Site):
    with world.tab("admin") as tab:
        page = tab.open("/users")
        page.get_by_label("Name or full name").press_sequentially("user1")
        expect(page.locator("#told")).to_have_text("10 users")
        page.get_by_label("Name or full name").press_sequentially("x")
        expect(page.locator("#told")).to_have_text("No user fits")
        expect(page.locator("#told")).to_have_attribute("aria-live", "polite")


def test_all_of_a_page_are_selected_on_a_phone(world: Site):
    with world.tab("admin", size=NARROW) as tab:
        page = tab.open("/users?q=user0")
        tab.check()
        page.get_by_text("Select all on this page").click()
        expect(page.locator("tbody input:checked")).to_have_count(10)
        expect(page.get_by_role("region", name="Selected users").get_by_role("status")).to_have_text("10 selected")


def test_picked_users_are_deleted_in_a_dialog_that_wants_their_number(world: Site):
    with world.tab("admin", size=NARROW, theme="dark") as tab:
        page = tab.open("/users?q=user2")
        page.get_by_label("user20").check()
        page.get_by_label("user21").check()
        page.locator(".bulk").get_by_role("button", name="Delete…").click()
        dialog = page.get_by_role("dialog", name="Delete 2 users?")
        expect(dialog).to_be_visible()
        tab.check()
        dialog.get_by_label("Type 2 to go on").fill("2")
        dialog.get_by_role("button", name="Delete 2 users").click()
        expect(page.locator(".toast")).to_contain_text("2 users are deleted.")
        tab.open("/users?q=user2")
        expect(page.get_by_label("user22")).to_be_visible()
        expect(page.get_by_label("user20")).to_have_count(0)


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_a_token_is_made_copied_stored_and_deleted(world: Site, *, script: bool):
    label = f"laptop {script}"
    with world.tab("ada", script=script) as tab:
        page = tab.open("/users/ada/access-tokens")
        page.get_by_role("link", name="New access token").first.click()
        page.get_by_label("What it is for").fill(label)
        page.get_by_role("radio", name="Pull See and pull images").check()
        page.get_by_label("On which repositories").fill("ada/app")
        page.get_by_role("button", name="Make token").click()
        secret = page.locator(".copy code").first.inner_text()
        world.api.as_("ada", secret).get("/api/v0/repositories/ada/app").expect(200)
        if script:
            page.get_by_role("button", name="Copy the token").click()
            expect(page.get_by_text("Copied")).to_be_visible()
            assert page.evaluate("navigator.clipboard.readText()") == secret
            tab.check()
        page.get_by_role("link", name="I have stored it").click()
        page.get_by_role("link", name=label).click()
        expect(page.get_by_role("heading", name=label)).to_be_visible()
        page.get_by_role("link", name="Delete token…").click()
        if script:
            expect(page.get_by_role("dialog")).to_contain_text(f"Delete the token {label}")
            tab.check()
        page.get_by_role("button", name="Delete token").click()
        expect(page.get_by_text("The token is deleted.")).to_be_visible()
        world.api.as_("ada", secret).get("/api/v0/repositories/ada/app").expect(401)


def test_pages_are_whole_in_japanese(world: Site):
    with world.tab("ada", language="ja", size=NARROW) as tab:
        for path in ("settings", "access-tokens/new", "sessions"):
            page = tab.open(f"/users/ada/{path}")
            assert page.locator("html").get_attribute("lang") == "ja"
            tab.check()
