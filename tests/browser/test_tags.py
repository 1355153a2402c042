"""Tags as somebody with a browser works with them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from tests.support.images import make_image
from tests.support.site import NARROW, Site
from tests.support.tag_scene import SBOM, furnish_tags

TAGS = "/repositories/acme/app/tags"


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    furnish_tags(site.api)


def test_tags_are_found_while_one_types_and_deleted_in_a_dialog(site: Site):
    client = site.api.as_("writer").client
    for name in ("spare-1", "spare-2"):
        client.push("acme/app", make_image(), name)
    with site.tab("writer") as tab:
        page = tab.open(TAGS)
        page.get_by_label("Find a tag or digest").press_sequentially("spare")
        names = page.locator("#list tbody a.name")
        expect(names).to_have_count(2)
        expect(page.get_by_label("Find a tag or digest")).to_be_focused()
        expect(page).to_have_url(f"{tab.origin}{TAGS}?q=spare&sort=newest")
        tab.check()
        page.get_by_label("Select all on this page").check()
        expect(page.get_by_role("region", name="Selected tags")).to_contain_text("2 selected")
        page.get_by_role("button", name="Delete…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Delete 2 tags of acme/app?")
        expect(dialog.get_by_role("link", name="Keep it")).to_be_focused()
        tab.check()
        dialog.get_by_role("link", name="Keep it").click()
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Delete…").click()
        dialog.get_by_role("button", name="Delete 2 tags").click()
        expect(page.get_by_text("2 tags are deleted.")).to_be_visible()
        expect(page.locator("a.name", has_text="spare")).to_have_count(0)


def test_what_is_attached_is_saved_and_what_cannot_be_pulled_is_found(site: Site):
    policy = {"mode": "enforce", "signers": ["role:targets/hanako"]}
    site.api.admin.put("/api/v0/repositories/acme/app/enforcement", policy).expect(200)
    try:
        with site.tab("keeper", size=NARROW, theme="dark") as tab:
            page = tab.open(TAGS)
            page.get_by_text("Pulls refused", exact=True).first.click()
            expect(page).to_have_url(re.compile(r"refused=1"))
            names = page.locator("#list tbody a.name")
            expect(names.filter(has_text="trusted")).to_have_count(0)
            expect(names.filter(has_text="2.14.10")).to_have_count(1)
            tab.check()
            tab.open(f"{TAGS}/2.14.2")
            expect(page.get_by_text("Pulls of this tag are refused")).to_be_visible()
            tab.check()
            sbom = page.locator(".tree li", has_text="SBOM").get_by_role("link", name="Download")
            with page.expect_download() as saved:  # what describes an image needs no signature
                sbom.click()
            assert saved.value.path().read_bytes() == SBOM.blobs[-1]
            expect(page).to_have_url(re.compile(r"/tags/2\.14\.2$"))
    finally:
        site.api.admin.delete("/api/v0/repositories/acme/app/enforcement").expect(204)


def test_a_command_is_copied_and_a_filter_chosen(site: Site):
    with site.tab("reader") as tab:
        page = tab.open(TAGS)
        page.get_by_role("button", name="Copy the pull command 2.14.2", exact=True).click()
        expect(page.get_by_text("Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == f"docker pull {site.server.address}/acme/app:2.14.2"
        page.get_by_role("checkbox", name="Signed 2").check()
        expect(page.locator("#list tbody a.name")).to_have_text(["trusted", "2.14.2"])
        page.get_by_label("Sort").select_option("version")
        expect(page.locator("#list tbody a.name")).to_have_text(["2.14.2", "trusted"])
        page.reload()
        expect(page.locator("#list tbody a.name")).to_have_text(["2.14.2", "trusted"])


def test_the_numbers_on_the_filters_of_a_large_repository_come_later(site: Site):
    number = site.api.make_repository("acme/large")
    image = make_image()
    site.api.as_("writer").client.push("acme/large", image, "seed")
    site.api.change(
        "INSERT INTO tags (repository_id, name, manifest, author, created_at, updated_at, version_key)"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)"
        " SELECT :number, 'build-' || i, :digest, 'ada', i, i, 'build-' || i FROM n",
        number=number, digest=image.digest,
    )  # fmt: skip
    without_script = site.as_("reader").get("/repositories/acme/large/tags").expect(200)
    assert [one.get_text().strip() for one in without_script.all("#chips .chip")][:2] == ["Signed", "Unsigned"]
    with site.tab("reader") as tab:
        page = tab.open("/repositories/acme/large/tags")
        expect(page.locator("#chips .chip").first).to_have_text("Signed 0")
        expect(page.locator("#chips")).to_contain_text("Unsigned 2,501")
        page.get_by_label("Unsigned").check()
        expect(page).to_have_url(f"{tab.origin}/repositories/acme/large/tags?q=&show=unsigned&sort=newest")
        expect(page.locator("#chips")).to_contain_text("Unsigned 2,501")
        tab.check()


def test_a_tag_is_looked_at_and_deleted_without_script(site: Site):
    site.api.as_("writer").client.push("acme/app", make_image(), "spare-3")
    with site.tab("writer", script=False, size=NARROW, theme="dark") as tab:
        page = tab.open(TAGS)
        page.get_by_label("Find a tag or digest").fill("spare-3")
        page.get_by_role("button", name="Apply").click()
        page.get_by_role("link", name="spare-3").click()
        page.get_by_role("link", name="Delete…").click()
        page.get_by_role("button", name="Delete the tag").click()
        expect(page.get_by_text("spare-3 is deleted.")).to_be_visible()
        expect(page.locator("a.name", has_text="spare-3")).to_have_count(0)


@pytest.mark.parametrize("path", ["2.14.3", "2.14.2/compare?with=2.14.10", "trusted/delete"])
def test_pages_of_a_tag_are_for_everybody_in_every_way(site: Site, path: str):
    with site.tab("keeper", size=NARROW, theme="dark", language="ja") as tab:
        tab.open(f"{TAGS}/{path}")
        tab.check()
