"""Stories of a repository in a real browser: its README, a webhook, its settings, its end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from tests.support.images import make_image
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.site import NARROW, Site

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32"}
HOSTILE = (
    "# <script>alert(1)</script> \u202eevil\n\n<img src=x onerror=alert(1)>"
    + "w" * 400
    + "\n\n| a | b |\n|--|--|\n| `"
    + "c" * 200
    + "` | x |\n"
)


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    api = site.api
    api.make_users("ada", "bob")
    api.make_organization("acme", owners=("ada", "bob"))
    for name in ("app", "told", "doomed"):
        api.make_repository(f"acme/{name}")
        api.as_("ada").client.push(f"acme/{name}", make_image(), "v1")
    api.make_repository(
        "acme/hostile", long_description=HOSTILE, short_description=HOSTILE[:900], visibility="public"
    )
    return site


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_a_readme_is_previewed_and_two_editors_lose_nothing(world: Site):
    with world.tab("ada") as tab:
        page = tab.open("/repositories/acme/app/info")
        tab.check()
        page.get_by_role("link", name="Write a README").click()
        page.get_by_role("textbox", name="README").fill("# The service\n\nIt **runs**.")
        page.get_by_role("button", name="Show a preview").click()
        expect(page.locator("#preview strong")).to_have_text("runs")
        expect(page.get_by_role("textbox", name="README")).to_have_value("# The service\n\nIt **runs**.")
        tab.check()
        world.api.as_("bob").patch("/api/v0/repositories/acme/app", {"longDescription": "Bob's"}).expect(200)
        tab.expected = ("409",)
        page.get_by_role("button", name="Save the README").click()
        expect(page.get_by_role("alert")).to_be_focused()
        expect(page.locator("pre.text-block")).to_have_text("Bob's")
        tab.check()
        page.get_by_role("textbox", name="README").fill("# The service\n\nIt **runs**. Bob's")
        page.get_by_role("button", name="Save the README").click()
        expect(page.get_by_role("heading", name="The service")).to_be_visible()


def test_a_webhook_is_tried_out_delivered_and_told_again(world: Site, receiver: Receiver):
    with world.tab("ada", theme="dark", size=NARROW) as tab:
        page = tab.open("/repositories/acme/told/webhooks")
        tab.check()
        page.get_by_role("link", name="Make the first webhook").click()
        page.get_by_label("Address of the receiver").fill(receiver.url(host="127.0.0.1"))
        page.get_by_label("Name (optional)").fill("Build")
        page.get_by_label("Secret (optional)").fill("open sesame")
        page.get_by_text("TLS of the receiver").click()
        page.get_by_role("switch").check()
        receiver.reply = lambda _: Reply(503, b"no room")
        tab.expected = ("422",)
        page.get_by_role("button", name="Send a sample first").click()
        expect(page.locator("#trial")).to_contain_text("the receiver answered 503")
        receiver.reply = lambda _: Reply()
        page.get_by_role("button", name="Send a sample first").click()
        expect(page.locator("#trial")).to_contain_text("The receiver took the sample.")
        # What was typed stays, also what is never sent back.
        expect(page.get_by_label("Secret (optional)")).to_have_value("open sesame")
        tab.check()
        page.get_by_role("button", name="Make the webhook").click()
        expect(page.get_by_role("heading", name="Build")).to_be_visible()
        world.api.as_("ada").client.push("acme/told", make_image(), "v2")
        receiver.wait(3)
        expect(page.get_by_text("Nothing was sent yet")).to_be_visible()
        page.reload()
        page.get_by_role("button", name=re.compile("^Send once more")).click()
        # It waits for the job that sends it, and then says what came of it.
        expect(page.get_by_text("Delivered", exact=True)).to_be_visible()
        expect(page.locator("[aria-labelledby=answered]")).to_contain_text("thanks")
        receiver.wait(4)
        tab.check()


def test_it_is_deleted_in_a_dialog_that_wants_its_name(world: Site):
    with world.tab("ada") as tab:
        page = tab.open("/repositories/acme/doomed/settings")
        tab.check()
        page.get_by_role("link", name="Delete the repository…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("1 tag goes at once")
        tab.check()
        dialog.get_by_role("link", name="Keep it").click()
        expect(dialog).to_be_hidden()
        page.get_by_role("link", name="Delete the repository…").click()
        dialog.get_by_label("Type acme/doomed to go on").fill("acme/doomed")
        dialog.get_by_role("button", name="Delete the repository").click()
        page.wait_for_url("**/repositories")
        expect(page.get_by_text("acme/doomed is deleted.")).to_be_visible()


def test_without_script_settings_are_refused_kept_and_saved(world: Site):
    with world.tab("ada", script=False) as tab:
        tab.expected = ("422",)
        page = tab.open("/repositories/acme/app/settings")
        page.get_by_label("By pattern").check()
        page.get_by_label("Patterns (optional)").fill("no/pattern")
        tags = page.locator("form[aria-labelledby=s-tags]")
        tags.get_by_role("button", name="Save changes").click()
        expect(page.locator("#e-patterns")).to_contain_text("is no pattern")
        expect(page.get_by_label("Patterns (optional)")).to_have_value("no/pattern")
        page.get_by_label("Patterns (optional)").fill("v*")
        tags.get_by_role("button", name="Save changes").click()
        expect(page.get_by_text("The settings are saved.")).to_be_visible()
        page.get_by_role("link", name="Activity").click()
        expect(page.get_by_text("patterns of immutable tags (v*)")).to_be_visible()
        page.get_by_label("To what").select_option("tag")
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("pushed v1 for the first time")).to_be_visible()
        expect(page.get_by_text("patterns of immutable tags (v*)")).to_be_hidden()


def test_hostile_texts_are_inert_and_stay_in_the_window(world: Site):
    with world.tab(None, size=NARROW) as tab:
        page = tab.open("/repositories/acme/hostile/info")
        tab.check()
        expect(page.locator("main script, main img")).to_have_count(0)
