"""Policies by clicking: a rule tester that answers while one types, and the same form without script."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from tests.support.policies import make_policies
from tests.support.server import PASSWORD
from tests.support.site import NARROW, Site

SETTINGS = {"mirroring.allowed_networks": "127.0.0.0/8"}
HERE = "/repositories/acme/app"


@pytest.fixture(scope="module")
def ids(site: Site) -> dict[str, str]:
    return make_policies(site.api)


def test_the_tester_answers_while_one_types_and_the_policy_is_saved(site: Site, ids: dict[str, str]):
    with site.tab("ada") as tab:
        page = tab.open(f"{HERE}/policies")
        page.get_by_role("link", name="New promotion policy").click()
        page.get_by_role("textbox", name="Value", exact=True).fill("dev-")
        tester = page.locator("#tester")
        expect(tester.get_by_text("3 of 8 tags")).to_be_visible()
        expect(page.get_by_role("button", name="Save and promote 3 existing tags")).to_be_visible()
        page.get_by_label("Tag in the target").fill("%n-%q")
        expect(page.get_by_role("textbox", name="Value", exact=True)).to_have_value("dev-")
        page.get_by_label("Tag in the target").fill("%n-stable")
        expect(tester.get_by_text("dev-1-stable")).to_be_visible()
        # Another field has other comparisons, at once; what was typed elsewhere stays.
        page.get_by_role("button", name="Add a rule").click()
        second = page.get_by_role("group", name="Rule 2")
        second.get_by_label("What", exact=True).select_option("Signature")
        expect(second.get_by_label("Value")).to_have_value("true")
        expect(tester.get_by_text("Not signed yet").first).to_be_visible()
        second.get_by_label("Value").select_option("not signed")
        expect(tester.get_by_text("3 of 8 tags")).to_be_visible()
        page.get_by_role("button", name="Add a group").click()
        expect(page.get_by_label("How the rules of the group go together")).to_be_visible()
        tab.check()
        page.get_by_role("button", name="Remove the group").click()
        expect(page.get_by_label("How the rules of the group go together")).to_have_count(0)
        # Enter tries, and saves nothing.
        page.get_by_label("Target repository").fill("acme/test")
        page.get_by_label("Target repository").press("Enter")
        expect(page).to_have_url(re.compile("/promotions/new$"))
        page.get_by_role("button", name="Save for future tags").click()
        expect(page.get_by_role("heading", name="Promotion policy")).to_be_visible()
        expect(page.get_by_text("If the tag name starts with dev-")).to_be_visible()
        expect(page.get_by_text("The policy is there now.")).to_be_visible()
        tab.check()


def test_a_refused_form_leads_to_its_fields_on_a_phone(site: Site, ids: dict[str, str]):
    with site.tab("ada", size=NARROW, theme="dark", language="ja") as tab:
        tab.expected = ("422",)
        page = tab.open(f"{HERE}/promotions/new")
        page.get_by_role("button", name="今後のタグ用に保存").click()
        summary = page.get_by_role("alert")
        expect(summary).to_be_focused()
        summary.get_by_role("link").last.click()
        expect(page.locator("#f-target")).to_be_focused()
        tab.check()


def test_what_goes_is_named_in_a_dialog_before_it_goes(site: Site, ids: dict[str, str]):
    with site.tab("ada") as tab:
        page = tab.open(f"{HERE}/pruning/{ids['pruning']}")
        page.get_by_role("link", name="Delete…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading", name="Delete the pruning policy")).to_be_visible()
        expect(dialog.get_by_role("link", name="Keep it")).to_be_focused()
        tab.check()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()


def test_a_connection_is_tested_and_the_password_stays_in_its_field(site: Site, ids: dict[str, str]):
    with site.tab("ada") as tab:
        page = tab.open(f"{HERE}/mirrors/new?direction=push")
        page.get_by_label("Address").fill(f"https://127.0.0.1:{site.server.port}")
        page.get_by_label("Repository there").fill("acme/prod")
        page.get_by_label("User name there").fill("ada")
        page.get_by_role("textbox", name="Password").fill(PASSWORD)
        page.get_by_text("TLS", exact=True).click()
        page.get_by_label("Trust whatever certificate it shows").check()
        page.get_by_role("button", name="Test the connection").click()
        expect(page.locator("#checks .good")).to_have_count(5)
        expect(page.get_by_role("textbox", name="Password")).to_have_value(PASSWORD)
        tab.check()


def test_a_long_form_has_all_fields_and_comparisons_in_every_row(site: Site, ids: dict[str, str]):
    with site.tab("ada") as tab:
        page = tab.open(f"{HERE}/pruning/new")
        for number in range(2, 11):
            page.get_by_role("button", name="Add a rule").click()
            expect(page.get_by_role("group", name=f"Rule {number}", exact=True)).to_be_visible()
        third = page.get_by_role("group", name="Rule 3", exact=True)
        third.get_by_label("What", exact=True).select_option("Size")
        expect(third.get_by_label("Unit")).to_be_visible()
        third.get_by_label("Comparison").select_option("is more than")
        third.get_by_label("Value").fill("7")
        page.get_by_role("group", name="Rule 5", exact=True).get_by_role("button", name="Remove rule 5").click()
        expect(page.get_by_role("group", name="Rule 10", exact=True)).to_have_count(0)
        expect(third.get_by_label("Comparison")).to_have_value("gt")
        expect(third.get_by_label("Value")).to_have_value("7")
        tab.check()


def test_without_script_the_form_does_the_same(site: Site, ids: dict[str, str]):
    with site.tab("ada", script=False) as tab:
        page = tab.open(f"{HERE}/pruning/new")
        page.get_by_label("What", exact=True).select_option("Label")
        page.get_by_role("button", name="Update the form").click()
        page.get_by_label("Comparison").select_option("is not one of")
        page.get_by_role("button", name="Update the form").click()
        page.get_by_label("Values, one in each line").fill("stage=production\nstage=test")
        page.get_by_role("button", name="Add a rule").click()
        second = page.get_by_role("group", name="Rule 2")
        second.get_by_label("Value").fill("debug")
        page.get_by_role("button", name="Update the form").click()
        expect(page.locator("#tester").get_by_text("1 of 8 tags")).to_be_visible()
        page.get_by_role("button", name="Save and delete 1 existing tag…").click()
        expect(page.get_by_role("heading", name="Save the policy and delete 1 tag")).to_be_visible()
        page.get_by_role("link", name="Keep it").click()
        expect(page).to_have_url(re.compile("/pruning/new$"))
