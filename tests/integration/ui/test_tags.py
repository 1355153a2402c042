"""The pages of tags, without script."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.images import make_image
from tests.support.site import Shown, Site
from tests.support.tag_scene import ARM, HOSTILE, IMAGE, INDEX, LONG, NEXT, SBOM, furnish_tags

APP = "/repositories/acme/app"
TAGS = f"{APP}/tags"
SETTINGS = {"mirroring.allowed_networks": "127.0.0.1/32"}


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    furnish_tags(site.api)


def rows(shown: Shown) -> list[str]:
    """The tags of a list, in its order."""
    return [one.get_text() for one in shown.all("#list tbody a.name")]


def row(shown: Shown, tag: str) -> str:
    """What a row says."""
    return " ".join(shown.one(f'#list tr:has(a.name[href="tags/{tag}"])').get_text(" ").split())


def badges(shown: Shown) -> set[str]:
    return {" ".join(one.get_text(" ").split()) for one in shown.all(".head .badge")}


# --- the list -------------------------------------------------------------------------------------------------


def test_a_row_says_what_a_tag_is(site: Site):
    shown = site.as_("reader").get(TAGS).expect(200)
    assert "12 tags" in shown.text
    assert len(shown.answer.body) < 50_000
    latest = row(shown, "latest")
    assert latest.startswith(f"latest 2.14.3 2.14 {INDEX.digest[7:19]} linux/amd64, arm64/v8")
    assert "Unsigned" in latest
    assert "by writer" in latest
    assert "Signed acme/release" in row(shown, "2.14.2")
    assert "Signed hanako" in row(shown, "trusted")
    assert "Mismatch" in row(shown, "moved")
    assert "Unknown signer" in row(shown, "2.14.0-rc.2")
    assert "Helm chart" in row(shown, "chart-2.14")
    commands = {str(one["data-copy"]).partition(" ")[0] for one in shown.all("[data-copy]")}
    assert commands == {"", "helm", "oras"}
    # Of images the table says how the command begins, once; the tag's name completes it.
    assert shown.one("table")["data-pull"] == f"docker pull {site.server.address}/acme/app:"
    chart = shown.one('tr:has(a.name[href="tags/chart-2.14"]) [data-copy]')["data-copy"]
    assert chart == f"helm pull oci://{site.server.address}/acme/app --version chart-2.14"


def test_what_is_attached_is_no_row_unless_it_is_asked_for(site: Site):
    reader = site.as_("reader")
    assert not [one for one in rows(reader.get(TAGS)) if one.startswith("sha256-")]
    assert len([one for one in rows(reader.get(f"{TAGS}?attached=1")) if one.startswith("sha256-")]) == 3


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=2.14.", ["2.14.10", "2.14.2", "2.14.3", "2.14.0-rc.2"]),
        ("show=signed", ["trusted", "2.14.2"]),
        ("show=mismatched", ["moved"]),
        ("show=multiPlatform&q=late", ["latest"]),
        ("show=unpulled&sort=name", ["notes", "old"]),
        (f"q={IMAGE.digest[7:15]}", ["2.14.2", "latest", "2.14", "2.14.3"]),
        (f"q={NEXT.digest}", ["2.14.10"]),
        ("q=nothing-like-it", []),
        ("show=nonsense&sort=nonsense&q=trust", ["trusted"]),
    ],
)
def test_filters_hold_over_all_tags(site: Site, query: str, found: list[str]):
    shown = site.as_("reader").get(f"{TAGS}?{query}").expect(200)
    assert rows(shown) == found
    if not found:
        assert shown.one("#list h2").get_text() == "No tag matches"


def test_the_filters_say_how_many_and_keep_what_was_chosen(site: Site):
    shown = site.as_("reader").get(f"{TAGS}?show=signed&q=2&sort=version").expect(200)
    chips = {
        str(one.select_one("input")["value"]): " ".join(one.get_text(" ").split()) for one in shown.all(".chip")
    }
    assert chips["signed"] == "Signed 2"
    assert chips["unverified"] == "Unknown signer 1"
    assert chips["multiPlatform"] == "Multi-platform 3"
    assert chips["1"] == "Tags of signatures 3"
    assert [str(one["value"]) for one in shown.all(".chip input[checked]")] == ["signed"]
    assert shown.one("#f-q")["value"] == "2"
    assert shown.one("select[name=sort] option[selected]")["value"] == "version"


def test_versions_come_highest_first(site: Site):
    shown = site.as_("reader").get(f"{TAGS}?sort=version&q=2.14")
    assert rows(shown) == ["2.14.10", "2.14.3", "2.14.2", "2.14.0-rc.2", "2.14", "chart-2.14"]


def test_pages_follow_one_another(site: Site):
    client = site.api.as_("writer").client
    site.api.make_repository("acme/many")
    image = make_image()
    names = [f"build-{number:03}" for number in range(60)]
    for name in names:
        client.push("acme/many", image, name)
    for sort in ("newest", "version", "size", "pulled", "name"):
        reader, seen = site.as_("reader"), []
        shown = reader.get(f"/repositories/acme/many/tags?sort={sort}")
        while True:
            seen += rows(shown)
            following = shown.all("a[rel=next]")
            if not following:
                break
            shown = reader.get(str(following[0]["href"])).expect(200)
            assert shown.has(".pager a:-soup-contains('First page')")
        assert sorted(seen) == names
    wide = site.as_("reader").get("/repositories/acme/many/tags?size=50")
    assert len(rows(wide)) == 50
    assert len(wide.answer.body) < 100_000


def test_an_empty_repository_says_how_to_push_to_whoever_may(site: Site):
    shown = site.as_("writer").get("/repositories/acme/empty/tags").expect(200)
    commands = [str(one["data-copy"]) for one in shown.all("[data-copy]")]
    host = site.server.address
    assert commands == [
        f"docker login {host}", f"docker tag empty {host}/acme/empty:1.0", f"docker push {host}/acme/empty:1.0",
    ]  # fmt: skip
    assert not site.as_("reader").get("/repositories/acme/empty/tags").all("[data-copy]")


def test_old_addresses_lead_to_the_list(site: Site):
    moved = site.as_("reader").get(f"{APP}/images?q=1", follow=False)
    assert (moved.status, moved.answer.headers["location"]) == (308, f"{TAGS}?q=1")


def test_who_may_not_see_the_repository_finds_nothing(site: Site):
    for path in (TAGS, f"{TAGS}/2.14.2", f"{TAGS}/2.14.2/compare", f"{TAGS}/2.14.2/history", f"{APP}/images"):
        assert site.as_("stranger").get(path).status == 404
        assert "/login" in site.as_(None).get(path).url
    assert site.as_("reader").get(f"{TAGS}/nothing").status == 404
    assert site.as_("reader").get(f"{TAGS}/-").status == 404


def test_what_somebody_may_not_do_is_not_there_and_refused(site: Site):
    shown = site.as_("reader").get(TAGS)
    assert not shown.has("button.danger")
    site.api.make_repository("acme/open", visibility="public")
    site.api.as_("writer").client.push("acme/open", make_image(), "1.0")
    for name in ("stranger", None):
        public = site.as_(name).get("/repositories/acme/open/tags").expect(200)
        assert rows(public) == ["1.0"]
        assert not public.has("main form[method=post], main input[type=checkbox].pick")
        assert site.as_(name).get("/repositories/acme/open/tags/1.0").expect(200).title == "1.0"
    assert "Delete…" not in site.as_("reader").get(f"{TAGS}/2.14.2").text
    for path in ("delete", "forget-signatures"):
        assert site.as_("reader").get(f"{TAGS}/2.14.2/{path}").status == 403
        assert site.as_("reader").post(f"{TAGS}/2.14.2/{path}").status == 403
    refused = site.as_("reader").post(f"{APP}/delete-tags", {"tag": ["2.14.2"], "confirmed": "yes"})
    assert refused.status == 403
    assert site.as_("writer").post(f"{TAGS}/trusted/forget-signatures").status == 403
    assert "2.14.2" in rows(site.as_("reader").get(TAGS))


# --- several tags ---------------------------------------------------------------------------------------------


def test_several_tags_are_deleted_after_they_were_named(site: Site):
    client = site.api.as_("writer").client
    for name in ("gone-1", "gone-2"):
        client.push("acme/app", make_image(), name)
    writer = site.as_("writer")
    asked = writer.submit(writer.get(TAGS), "#list", "Delete…", tag=["gone-1", "gone-2"])
    assert asked.title == "Delete 2 tags of acme/app?"
    assert "gone-1" in asked.text
    assert "gone-1" in rows(writer.get(TAGS)), "nothing happens before it is confirmed"
    done = writer.submit(asked, "#confirm form")
    assert urlsplit(done.url).path == TAGS
    assert "2 tags are deleted." in done.text
    assert not {"gone-1", "gone-2"} & set(rows(done))


def test_what_was_not_deleted_is_listed_with_why_and_stays_selected(site: Site):
    site.api.as_("writer").client.push("acme/app", make_image(), "gone-3")
    writer = site.as_("writer")
    fields = {"tag": ["gone-3", "trusted", "never-was"], "confirmed": "yes"}
    shown = writer.post(f"{APP}/delete-tags", fields).expect(200)
    assert shown.title == "1 of 3 tags are deleted"
    assert [str(one["value"]) for one in shown.all("input[name=tag][checked]")] == ["trusted", "never-was"]
    assert "It is signed in content trust." in shown.text
    assert "There is no such tag any more." in shown.text
    assert f"{TAGS}/trusted/delete" in shown.links
    again = writer.submit(shown, "main form", "Delete them again…")
    assert again.title == "Delete 2 tags of acme/app?"


def test_nothing_selected_does_nothing(site: Site):
    writer = site.as_("writer")
    for action in ("delete-tags", "copy-tags"):
        assert "Select tags first." in writer.post(f"{APP}/{action}", {}).text
        assert writer.get(f"{APP}/{action}").url.endswith(TAGS)


def test_several_tags_are_copied(site: Site):
    writer = site.as_("writer")
    asked = writer.submit(writer.get(TAGS), "#list", "Copy to…", tag=["2.14.3", "2.14.2"])
    assert asked.title == "Copy 2 tags to another repository"
    assert {str(one["value"]) for one in asked.all("datalist option")} >= {"acme/live", "acme/empty"}
    for target, text in (("", "Fill in this field."), ("acme/nothing", "There is no such repository.")):
        refused = writer.submit(asked, "main form", "Copy 2 tags", target=target).expect(422)
        assert refused.problems == {"target": text}
        assert refused.one("#f-target")["value"] == target
    done = writer.submit(asked, "main form", "Copy 2 tags", target="acme/live")
    assert "2 tags are copied to acme/live." in done.text
    live = rows(writer.get("/repositories/acme/live/tags"))
    assert live == ["2.14.2", "2.14.3"] or live == ["2.14.3", "2.14.2"]
    assert site.as_("reader").get(f"{APP}/copy-tags").status == 200


def test_a_copy_that_partly_fails_says_what_and_why(site: Site):
    site.api.make_repository("acme/fixed", immutable_tags=True)
    client = site.api.as_("writer").client
    client.push("acme/fixed", make_image(), "2.14.2")
    fields = {"tag": ["2.14.2", "2.14.10"], "target": "acme/fixed", "step": "copy"}
    shown = site.as_("writer").post(f"{APP}/copy-tags", fields).expect(200)
    assert shown.title == "1 of 2 tags are copied"
    assert [str(one["value"]) for one in shown.all("input[name=tag][checked]")] == ["2.14.2"]
    assert "The target does not let this tag be overwritten." in shown.text


# --- one tag --------------------------------------------------------------------------------------------------


def test_a_tag_is_shown_with_its_platforms_layers_and_configuration(site: Site):
    shown = site.as_("reader").get(f"{TAGS}/2.14.3").expect(200)
    assert len(shown.answer.body) < 50_000
    assert shown.title == "2.14.3"
    assert {"2.14", "latest"} <= badges(shown)
    assert str(shown.one("main > .copy [data-copy]")["data-copy"]).endswith("/acme/app:2.14.3")
    platforms = [one.get_text() for one in shown.all("nav[aria-label=Platforms] a")]
    assert platforms == ["linux/amd64", "linux/arm64/v8"]
    lines = [" ".join(one.get_text(" ").split()) for one in shown.all("ol.layers li")]
    assert lines[0].startswith("1 ADD file:base in /")
    assert "no files" in lines[1]
    assert len(lines) == 3
    text = shown.text
    for word in (
        "/app",
        "8080/tcp",
        "/data",
        "/srv",
        "1000",
        "PATH",
        "https://code.example/app",
        IMAGE.digest[7:19],
    ):
        assert word in text
    assert shown.has(f"[data-copy='{INDEX.digest}']")


def test_another_platform_is_chosen_also_by_addresses_of_dtr(site: Site):
    reader = site.as_("reader")
    for path in (
        f"{TAGS}/2.14.3?platform=linux/arm64/v8",
        f"{TAGS}/2.14.3?platform={ARM.digest}",
        f"{APP}/2.14.3/linux/arm64/layers",
        f"{APP}/2.14.3/linux/arm64/components/openssl@3.0",
    ):
        shown = reader.get(path).expect(200)
        assert shown.one("nav[aria-label=Platforms] [aria-current]").get_text() == "linux/arm64/v8"
        assert ARM.digest[7:19] in shown.text
    assert reader.get(f"{TAGS}/2.14.3?platform=plan9/mips").one(
        "[aria-label=Platforms] [aria-current]"
    ).get_text() == ("linux/amd64")


def test_what_is_attached_is_a_tree_with_who_signed(site: Site):
    shown = site.as_("reader").get(f"{TAGS}/2.14.2").expect(200)
    tree = " ".join(shown.one(".tree").get_text(" ").split())
    assert "Signature Verified Cosign, acme/release" in tree
    assert "SBOM" in tree
    assert "Attestation" in tree
    assert f"{TAGS}/{SBOM.digest.replace(':', '%3A')}" in shown.links
    index = site.as_("reader").get(f"{TAGS}/2.14.3")
    assert "Build provenance" in index.one(".tree").get_text()
    other = site.as_("reader").get(f"{TAGS}/2.14.3?platform=linux/arm64/v8").one(".tree").get_text(" ")
    assert "4 attached" in " ".join(other.split())
    unknown = site.as_("reader").get(f"{TAGS}/2.14.0-rc.2").one(".tree").get_text(" ")
    assert "Unknown signer" in " ".join(unknown.split())


def test_what_is_attached_has_a_page_of_its_own(site: Site):
    shown = site.as_("reader").get(f"{TAGS}/{SBOM.digest}").expect(200)
    assert shown.has(f"[data-copy$='{SBOM.digest}']")
    assert "SBOM" in shown.text
    assert "Delete…" not in shown.text


def test_why_a_signature_does_not_count_is_said_in_the_visitors_language(site: Site):
    reader = site.as_("reader")
    said = reader.get(f"{TAGS}/2.14.2").one(".tree").get_text(" ")
    assert "payloadType is missing, or is something else than it has to be" in said
    japanese = reader.get(f"{TAGS}/2.14.2?lang=ja").one(".tree").get_text(" ")
    assert "payloadType がないか、正しい内容ではありません" in japanese


def test_what_is_attached_can_be_saved_by_who_may_pull(site: Site):
    reader = site.as_("reader")
    shown = reader.get(f"{TAGS}/2.14.2").expect(200)
    files = [one for one in shown.links if "/files/" in one]
    assert len(files) == 3  # of a signature, an SBOM, an attestation
    sbom = next(one for one in files if SBOM.digest.replace(":", "%3A") in one)
    sent = reader.get(sbom).expect(200).answer
    assert sent.body == SBOM.blobs[-1]
    assert sent.headers["content-type"] == "application/octet-stream"
    assert sent.headers["content-disposition"].startswith("attachment; ")
    own = [one for one in reader.get(f"{TAGS}/{SBOM.digest}").links if "/files/" in one]
    assert [one.rpartition("/")[2] for one in own] == [sbom.rpartition("/")[2]]
    assert not [one for one in reader.get(f"{TAGS}/2.14.10").links if "/files/" in one]  # nor layers of images
    assert site.as_("stranger").get(sbom).expect(404).title == "Nothing here, or not for you"
    assert "/login" in site.as_(None).get(sbom).url


def test_a_file_that_must_not_be_pulled_says_why(site: Site):
    api, reader = site.api, site.as_("reader")
    chart = next(one for one in reader.get(f"{TAGS}/chart-2.14").expect(200).links if "/files/" in one)
    reader.get(chart).expect(200)
    api.admin.put("/api/v0/repositories/acme/app/enforcement", {"mode": "enforce"}).expect(200)
    try:
        refused = reader.get(chart).expect(403)
        assert refused.title == "This must not be pulled"
        assert "The policy of the repository wants: any signature" in refused.text
    finally:
        api.admin.delete("/api/v0/repositories/acme/app/enforcement").expect(204)
    missing = reader.get(chart.rpartition("/")[0] + "/sha256:" + "0" * 64).expect(404)
    assert missing.title == "The file is not here"


def test_tags_whose_pulls_are_refused_say_why_and_are_found(site: Site):
    api, keeper, reader = site.api, site.as_("keeper"), site.as_("reader")
    assert not keeper.get(TAGS).has("input[name=refused]")  # nothing has to be signed anywhere
    policy = {"mode": "enforce", "signers": ["role:targets/hanako"]}
    api.admin.put("/api/v0/repositories/acme/app/enforcement", policy).expect(200)
    try:
        shown = keeper.get(TAGS).expect(200)
        assert "Pulls refused a signature by one of: role:targets/hanako" in row(shown, "2.14.10")
        assert "Pulls refused" not in row(shown, "trusted")
        assert shown.has("input[name=refused]")
        found = keeper.get(f"{TAGS}?refused=1").expect(200)
        assert found.one("input[name=refused]").has_attr("checked")
        assert "2.14.10" in rows(found)
        assert "trusted" not in rows(found)
        assert rows(keeper.get(f"{TAGS}?refused=1&q=trusted")) == []
        one = reader.get(f"{TAGS}/2.14.10").expect(200)
        assert "Pulls of this tag are refused" in one.text
        assert "What has to be signed" not in one.one(".alert.bad").get_text()
        assert "What has to be signed" in keeper.get(f"{TAGS}/2.14.10").one(".alert.bad").get_text()
        japanese = keeper.get(f"{TAGS}/2.14.10?lang=ja").expect(200)
        assert "リポジトリのポリシーの要求: 次のいずれかによる署名: role:targets/hanako" in japanese.text
        keeper.get(f"{TAGS}?lang=en")
    finally:
        api.admin.delete("/api/v0/repositories/acme/app/enforcement").expect(204)


def test_the_manifest_is_shown_and_sent_as_it_was_pushed(site: Site):
    reader = site.as_("reader")
    shown = reader.get(f"{TAGS}/2.14.3")
    assert json.loads(shown.one("pre.source").get_text().replace("\\u202e", "\u202e")) == json.loads(IMAGE.payload)
    index, image = [one for one in shown.links if "manifest.json" in one][::-1]
    assert reader.get(index).answer.body == INDEX.payload
    sent = reader.get(image).answer
    assert (sent.body, sent.headers["content-type"]) == (IMAGE.payload, "application/json")


def test_a_tag_that_content_trust_has_for_another_image_says_so(site: Site):
    shown = site.as_("reader").get(f"{TAGS}/moved").expect(200)
    assert shown.has(".alert.bad")
    assert f"for another image: {IMAGE.digest[7:19]}" in shown.text
    assert "hanako" in site.as_("reader").get(f"{TAGS}/trusted").text


def test_hostile_texts_and_long_names_are_shown_inert(site: Site):
    for path in ("2.14.2", "2.14.3", "notes", LONG, "2.14.2/compare?with=2.14.10"):
        shown = site.as_("reader").get(f"{TAGS}/{path}").expect(200)
        assert not [one for one in shown.all("script") if "alert" in one.get_text()]
        assert not shown.has("img[src=x]")
        assert "\u202e" not in shown.answer.body.decode()
    assert HOSTILE.replace("\u202e", "\\u202e") in site.as_("reader").get(f"{TAGS}/2.14.2").text


def test_the_history_says_what_a_tag_named(site: Site):
    client = site.api.as_("writer").client
    first, second = make_image(), make_image()
    client.push("acme/app", first, "moving")
    client.push("acme/app", second, "moving")
    reader = site.as_("reader")
    shown = reader.get(f"{TAGS}/moving").expect(200)
    assert second.digest[7:19] in shown.text
    compare = next(one for one in shown.links if "compare?with=" in one)
    assert parse_qs(urlsplit(compare).query)["with"] == [first.digest]
    compared = reader.get(compare).expect(200)
    assert "Only in moving" in compared.text
    history = [" ".join(one.get_text(" ").split()) for one in reader.get(f"{TAGS}/moving/history").all("tbody tr")]
    assert second.digest[7:19] in history[0]
    assert first.digest[7:19] in history[1]
    assert "writer" in history[0]
    assert "Nothing is known of this tag" in reader.get(f"{TAGS}/never-was/history").text


def test_images_are_compared(site: Site):
    reader = site.as_("reader")
    shown = reader.get(f"{TAGS}/2.14.2/compare?with=2.14.10").expect(200)
    assert shown.title == "Compare 2.14.2 with 2.14.10"
    assert "1 layer" in shown.one("dl.facts").get_text(" ")
    text = shown.text
    for word in ("MODE", "new", "org.acme.evil", "User", "not set"):
        assert word in text
    assert "Both name the same." in reader.get(f"{TAGS}/latest/compare?with=2.14").text
    refused = reader.get(f"{TAGS}/2.14.2/compare?with=nothing").expect(422)
    assert refused.problems == {"with": "The repository has no such tag or digest."}
    assert refused.one("#f-with")["value"] == "nothing"
    chart = reader.get(f"{TAGS}/2.14.3/compare?with=2.14.2").expect(200)
    assert "Platforms only in 2.14.3" in chart.text or "linux/arm64/v8" in chart.text


# --- doing something with one ---------------------------------------------------------------------------------


def test_a_tag_is_deleted(site: Site):
    image = make_image()
    for name in ("away", "away-too"):
        site.api.as_("writer").client.push("acme/app", image, name)
    writer = site.as_("writer")
    asked = writer.get(f"{TAGS}/away/delete").expect(200)
    assert "The image stays: away-too name it, too." in asked.text
    done = writer.submit(asked, "#confirm form")
    assert "away is deleted." in done.text
    assert "No other tag names the image." in writer.get(f"{TAGS}/away-too/delete").text
    assert "away was deleted before." in writer.post(f"{TAGS}/away/delete").text


def test_a_signed_tag_stays_and_the_page_says_what_helps(site: Site):
    site.api.as_("writer").client.push("acme/app", image := make_image(), "signed-one")
    site.api.sign("acme/app", "signed-one", image.digest)
    shown = site.as_("writer").get(f"{TAGS}/signed-one/delete").expect(200)
    assert shown.title == "signed-one is signed, and stays"
    assert "docker trust revoke" in shown.text
    assert not [one for one in shown.links if "forget" in one]
    assert site.as_("writer").post(f"{TAGS}/signed-one/delete").status == 409
    keeper = site.as_("keeper")
    asked = keeper.get(f"{TAGS}/signed-one/delete")
    forgotten = keeper.submit(keeper.get(next(one for one in asked.links if "forget" in one)), "#confirm form")
    assert "counts no longer" in forgotten.text
    assert "is deleted" in keeper.submit(keeper.get(f"{TAGS}/signed-one/delete"), "#confirm form").text
    assert keeper.post(f"{TAGS}/2.14.2/forget-signatures").expect(422).has(".alert.bad")


def test_a_tag_is_copied_under_another_name(site: Site):
    writer = site.as_("writer")
    asked = writer.get(f"{TAGS}/2.14.2/copy").expect(200)
    refused = writer.submit(asked, "main form", target="acme/live", target_tag="not a tag").expect(422)
    assert refused.problems == {"target_tag": "A tag cannot be called so."}
    assert refused.one("#f-target")["value"] == "acme/live"
    done = writer.submit(asked, "main form", target="acme/live", target_tag="stable")
    assert "2.14.2 is copied to acme/live:stable." in done.text
    target = writer.get("/repositories/acme/live/tags/stable").expect(200)
    assert "acme/app:2.14.2" in target.text
    assert IMAGE.digest[7:19] in target.text
    assert site.as_("reader").post(f"{TAGS}/2.14.2/copy", {"target": "acme/live", "target_tag": "x"}).status == 403


def test_a_tag_is_pushed_to_another_registry(site: Site):
    keeper = site.as_("keeper")
    asked = keeper.get(f"{TAGS}/2.14.2/push").expect(200)
    refused = keeper.submit(asked, "main form", host="not an address", username="bob", password="hush").expect(422)
    assert "host" in refused.problems
    assert refused.one("#f-username")["value"] == "bob"
    assert "hush" not in refused.answer.body.decode()
    assert keeper.submit(asked, "main form", repository="UPPER").status == 422


def test_a_registry_that_is_read_only_says_so_and_keeps_everything(site: Site):
    site.api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": True}).expect(202)
    try:
        writer = site.as_("writer")
        asked = writer.get(f"{TAGS}/old/delete")
        shown = writer.submit(asked, "#confirm form")
        assert shown.expect(422).has(".alert.bad")
        assert "read-only" in shown.text
    finally:
        site.api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": False}).expect(202)
    assert "old" in rows(site.as_("reader").get(f"{TAGS}?q=old"))


def test_the_pages_speak_japanese(site: Site):
    for path in (TAGS, f"{TAGS}/2.14.3", f"{TAGS}/2.14.2/compare?with=2.14.10", f"{TAGS}/2.14.2/copy"):
        shown = site.as_("keeper").get(f"{path}{'&' if '?' in path else '?'}lang=ja").expect(200)
        assert shown.one("html")["lang"] == "ja"
        assert any("\u3040" < one < "\u9fff" for one in shown.text)
