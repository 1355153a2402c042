"""Stories of an administrator in a browser: a storage that is tried, settings that two change, a collection."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.support.site import NARROW, Site


def test_a_storage_is_tried_while_its_form_is_filled_in(site: Site, tmp_path: Path):
    (tmp_path / "blobs").mkdir()
    with site.tab("admin", theme="dark") as tab:
        page = tab.open("/system/settings/storage")
        tab.check()
        page.get_by_role("link", name="Add a storage").click()
        page.get_by_label("Name", exact=True).fill("eu")
        page.get_by_role("textbox", name="Bucket").fill("registry")
        page.get_by_label("Address of the service").fill("http://127.0.0.1:9")
        page.get_by_label("Access key").fill("AKIA")
        page.get_by_label("Secret key").fill("typed once")
        page.get_by_role("button", name="Test the connection").click()
        expect(page.locator("#checks")).to_contain_text("Writing a small object was refused")
        assert page.get_by_label("Secret key").input_value() == "typed once"
        tab.check()
        page.get_by_role("link", name="File system, NFS").click()
        page.get_by_label("Name", exact=True).fill("fast")
        page.get_by_label("Directory").fill(str(tmp_path / "blobs"))
        page.get_by_role("button", name="Test the connection").click()
        expect(page.locator("#checks")).to_contain_text("It works")
        page.get_by_role("radio", name="Nothing yet").check()
        page.get_by_role("button", name="Test and save").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("fast")
        page.get_by_role("button", name="Send new images here").click()
        expect(page.locator(".toast")).to_contain_text("New images go to the storage fast.")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".toast")).to_contain_text("New images go to the storage default.")


@pytest.mark.parametrize("script", [True, False])
def test_two_who_change_the_same_card_see_it(site: Site, script: bool):
    theirs = f"theirs-{script}.example".lower()
    with site.tab("admin", script=script, size=NARROW) as tab:
        tab.expected = ("409", "422")
        page = tab.open("/system/settings/general")
        site.api.admin.post("/api/v0/meta/settings", {"dtrHost": theirs}).expect(202)
        field = page.get_by_label("Address of the registry")
        field.fill("mine.example")
        page.get_by_role("button", name="Save Domain and proxies").click()
        expect(page.get_by_role("alert")).to_contain_text(f"theirs is {theirs}, yours is mine.example")
        assert field.input_value() == "mine.example"
        if script:
            expect(page.get_by_role("alert")).to_be_focused()
            tab.check()
        field.fill("https://")
        page.get_by_role("button", name="Save Domain and proxies").click()
        expect(page.get_by_role("alert")).to_contain_text("Type HOST or HOST:PORT")
        field.fill("")
        page.get_by_role("button", name="Save Domain and proxies").click()
        expect(page.locator(".toast")).to_contain_text("The settings are saved.")


def test_a_collection_asks_in_a_dialog_and_runs(site: Site):
    with site.tab("admin", language="ja") as tab:
        page = tab.open("/system/settings/gc")
        tab.check()
        page.get_by_role("link", name="今すぐ実行…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("今すぐガベージコレクションを実行しますか")
        tab.check()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.get_by_role("link", name="今すぐ実行…").click()
        dialog.get_by_role("button", name="ガベージコレクションを実行").click()
        page.wait_for_url("**/system/settings/jobs/*")
        for path in ("/system", "/system/settings/security", "/system/settings/security/signing"):
            tab.open(path)
            tab.check()
