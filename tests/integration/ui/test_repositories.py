"""The list of repositories, a new one, pins, the first steps and the search, as they are sent."""

from __future__ import annotations

import time

import pytest
from tests.support.images import Image, make_artifact, make_image
from tests.support.site import Shown, Site

HOSTILE = '<script>alert(1)</script>"\u202egnp.exe ' + "x" * 900


@pytest.fixture(scope="module", autouse=True)
def image(site: Site) -> Image:
    """Three repositories with images, one of them public, and one with nothing; who may see what."""
    api = site.api
    api.make_users("ada", "bob", "carl", "new")
    api.make_organization("acme", members=("bob",))
    api.make_repository("acme/shop", visibility="public", short_description="Sells things")
    api.make_repository("acme/shop-admin", short_description=HOSTILE)
    api.make_repository("ada/workshop")
    api.make_repository("ada/empty")
    api.make_team("acme/devs", "bob")
    api.grant("acme/devs", "read-write", repository="acme/shop-admin")
    made = make_image(layers=2)
    client = api.as_("admin").client
    client.push("acme/shop", made, "1.0")
    client.push("acme/shop-admin", made, "1.0")
    client.push("ada/workshop", make_artifact("application/vnd.cncf.helm.config.v1+json"), "3")
    deadline = time.monotonic() + 60
    while rows(site.as_("admin").get("/repositories?type=helm+chart")) != ["ada / workshop"]:
        assert time.monotonic() < deadline, "usage is added up within seconds"
        time.sleep(0.2)
    return made


def rows(shown: Shown) -> list[str]:
    return [" ".join(one.get_text(" ").split()) for one in shown.expect(200).all("#list tbody a.name")]


def test_everybody_sees_what_they_may(site: Site):
    assert rows(site.as_(None).get("/repositories?sort=name")) == ["acme / shop"]
    assert rows(site.as_("bob").get("/repositories?sort=name")) == ["acme / shop", "acme / shop-admin"]
    everything = ["acme / shop", "acme / shop-admin", "ada / empty", "ada / workshop"]
    assert rows(site.as_("admin").get("/repositories?sort=name")) == everything
    assert "2 repositories" in site.as_("bob").get("/repositories").text


def test_a_row_says_what_is_in_the_repository_and_what_one_can_do(site: Site):
    shown = site.as_("bob").get("/repositories?q=shop-admin")
    text = shown.one("#list tbody tr").get_text(" ")
    assert "1.0" in text
    assert "Push" in text
    assert shown.links["/repositories/acme/shop-admin/info"] == "acme / shop-admin"
    assert shown.links["/repositories/acme/shop-admin/tags/1.0"] == "1.0"
    chart = site.as_("ada").get("/repositories?q=workshop").one("#list tbody tr").get_text(" ")
    assert "Helm chart" in chart
    assert "No tags yet" in site.as_("ada").get("/repositories?q=empty").one("#list tbody tr").get_text(" ")


FILTERED = {
    "q=SELLS": ["acme / shop"],
    "namespace=ada&sort=name": ["ada / empty", "ada / workshop"],
    "visibility=public": ["acme / shop"],
    "visibility=public&visibility=private&namespace=ada&sort=name": ["ada / empty", "ada / workshop"],
    "type=image&sort=name": ["acme / shop", "acme / shop-admin"],
    "signed=yes": [],
    "pushed=7&q=shop&sort=name": ["acme / shop", "acme / shop-admin", "ada / workshop"],
    "pushed=-90": ["ada / empty"],
    "pushed=-91&type=nothing&signed=maybe&sort=no&namespace=acme": ["acme / shop-admin", "acme / shop"],
    "namespace=nobody": [],
    "q=%": [],
}


@pytest.mark.parametrize("query", FILTERED)
def test_filters_are_in_the_address(site: Site, query: str):
    assert rows(site.as_("admin").get(f"/repositories?{query}")) == FILTERED[query]


def test_the_filters_show_what_is_chosen(site: Site):
    shown = site.as_("admin").get("/repositories?q=shop&namespace=acme&type=image&pushed=30&sort=size&signed=no")
    assert shown.one("#f-q")["value"] == "shop"
    chosen = {str(one.parent["name"]): one["value"] for one in shown.all("main select option[selected]")}
    assert chosen == {"namespace": "acme", "type": "image", "pushed": "30", "sort": "size"}
    assert [one["value"] for one in shown.all("main .chip input[checked]")] == ["no"]
    options = [one.get_text() for one in shown.all("main select[name=namespace] option")]
    assert options == ["All", "acme (2)", "ada (2)"]


def test_a_page_ends_where_the_next_begins(site: Site):
    for number in range(28):
        site.api.make_repository(f"new/app-{number:02}")
    for sort in ("name", "pushed"):
        first = site.as_("new").get(f"/repositories?namespace=new&sort={sort}")
        assert len(rows(first)) == 25
        assert len(first.answer.body) < 50_000
        (following,) = [one["href"] for one in first.all(".pager a[rel=next]")]
        second = site.as_("new").get(str(following))
        assert rows(first) + rows(second) == [f"new / app-{number:02}" for number in range(28)]
        assert "First page" in second.links.values()
        assert len(rows(site.as_("new").get(f"/repositories?namespace=new&sort={sort}&size=50"))) == 28


def test_what_is_not_found_is_named_and_can_be_made(site: Site):
    shown = site.as_("ada").get("/repositories?q=tool-9")
    assert "No repository matches “tool-9”" in shown.one("#list").get_text(" ")
    assert shown.links["/repositories/new?name=tool-9"] == "Create tool-9"
    assert "/repositories" in shown.links
    assert "Create" not in site.as_(None).get("/repositories?q=tool-9").one("#list").get_text(" ")
    assert "Create" not in site.as_("ada").get("/repositories?q=Tool+9").one("#list").get_text(" ")


def test_hostile_descriptions_do_nothing(site: Site):
    shown = site.as_("bob").get("/repositories?q=shop-admin")
    assert "<script>alert(1)" not in shown.answer.body.decode()
    assert shown.one("#list tbody small bdi").get_text().startswith("<script>alert(1)</script>")
    shown = site.as_("bob").get("/repositories?q=%3Cscript%3Ealert(1)%3C/script%3Ezz")
    assert "<script>alert" not in shown.answer.body.decode()


# --- pins and what was looked at ------------------------------------------------------------------------------


def test_pinned_repositories_come_first(site: Site):
    bob = site.as_("bob")
    listed = bob.get("/repositories")
    pinned = bob.submit(listed, "#list form", "", pin="acme/shop-admin")
    assert "acme/shop-admin is pinned." in pinned.text
    tile = pinned.one("section[aria-label=Pinned] a.tile")
    assert tile["href"] == "/repositories/acme/shop-admin/info"
    assert pinned.one("button[name=unpin]")["value"] == "acme/shop-admin"
    undone = bob.submit(pinned, ".toast form")
    assert "acme/shop-admin is no longer pinned." in undone.text
    assert not undone.has("section[aria-label=Pinned]")


def test_a_repository_is_pinned_on_its_own_page(site: Site):
    bob, at = site.as_("bob"), "/repositories/acme/shop-admin/info"
    pinned = bob.submit(bob.get(at), "main form[action='/repositories/pin']", "Pin")
    assert pinned.url.endswith("/repositories")  # without an address to go back to
    assert bob.get(at).one("main button[name=unpin]")["value"] == "acme/shop-admin"
    back = bob.post("/repositories/pin", {"unpin": "acme/shop-admin"}, headers={"Referer": f"{bob.origin}{at}"})
    assert back.url.endswith(at)
    assert back.has("main button[name=pin]")
    assert not bob.get("/repositories").has("section[aria-label=Pinned]")
    assert not site.as_(None).get("/repositories/acme/shop/info").expect(200).has("button[name=pin]")


def test_only_what_can_be_seen_is_pinned(site: Site):
    bob = site.as_("bob")
    assert bob.post("/repositories/pin", {"pin": "ada/workshop"}).expect(200).text.count("no such repository") == 1
    assert bob.post("/repositories/pin", {"pin": "no name"}).status == 404
    assert not bob.get("/repositories").has("section[aria-label=Pinned]")
    assert "/login" in site.as_(None).post("/repositories/pin", {"pin": "acme/shop"}).url


def test_what_was_looked_at_is_shown_to_the_same_one_as_long_as_it_can_be_seen(site: Site):
    carl = site.as_("carl")
    api = site.api
    assert not carl.get("/repositories").has("section[aria-label='Looked at last']")
    carl.get("/repositories/acme/shop/info").expect(200)
    tile = carl.get("/repositories").one("section[aria-label='Looked at last'] a.tile")
    assert tile["href"] == "/repositories/acme/shop/info"
    other = site.as_("ada")
    other.cookies["recent"] = carl.cookies["recent"]
    assert not other.get("/repositories").has("section[aria-label='Looked at last']")
    api.as_("admin").patch("/api/v0/repositories/acme/shop", {"visibility": "private"}).expect(200)
    assert not carl.get("/repositories").has("section[aria-label='Looked at last']")
    api.as_("admin").patch("/api/v0/repositories/acme/shop", {"visibility": "public"}).expect(200)
    for forged in ("", "|", "x" * 5000, f"{carl.cookies['recent']}|::|<script>|../..", "\u00e9|a:b"):
        carl.cookies["recent"] = forged
        carl.get("/repositories").expect(200)


# --- a new one ------------------------------------------------------------------------------------------------


def test_a_repository_is_made_with_all_settings(site: Site):
    ada = site.as_("ada")
    form = ada.get("/repositories/new?name=tool-1")
    assert form.one("#f-name")["value"] == "tool-1"
    assert form.one("#f-namespace option[selected]").get_text() == "ada"
    made = ada.submit(
        form,
        about="What it does",
        visibility="public",
        immutability="some",
        patterns="v*\nrelease-?",
        scan="push",
        readme="# Tool",
    )
    assert made.url.endswith("/repositories/ada/tool-1/tags")
    record = site.api.as_("ada").get("/api/v0/repositories/ada/tool-1").expect(200).json
    assert record["visibility"] == "public"
    assert record["shortDescription"] == "What it does"
    assert record["longDescription"] == "# Tool"
    assert record["immutableTagPatterns"] == ["v*", "release-?"]
    assert (record["scanOnPush"], record["immutableTags"], record["tagLimit"]) == (True, False, 0)


def test_it_is_private_and_plain_unless_told_otherwise(site: Site):
    ada = site.as_("ada")
    ada.submit(ada.get("/repositories/new"), name="ada/tool-2", limit="5")
    record = site.api.as_("ada").get("/api/v0/repositories/ada/tool-2").expect(200).json
    assert (record["visibility"], record["tagLimit"], record["immutableTags"]) == ("private", 5, False)


REFUSED = {
    "name": ({"name": "Tool"}, "name"),
    "empty": ({"name": ""}, "name"),
    "taken": ({"name": "workshop"}, "name"),
    "limit": ({"name": "x", "limit": "many"}, "limit"),
    "negative": ({"name": "x", "limit": "-1"}, "limit"),
    "both": ({"name": "x", "limit": "3", "immutability": "all"}, "limit"),
    "patterns": ({"name": "x", "immutability": "some"}, "patterns"),
    "elsewhere": ({"name": "x", "namespace": "acme"}, "namespace"),
    "nowhere": ({"name": "x", "namespace": "nobody-there"}, "namespace"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_form_keeps_what_was_typed(site: Site, case: str):
    changes, field = REFUSED[case]
    ada = site.as_("ada")
    shown = ada.submit(ada.get("/repositories/new"), about="Kept <text>", visibility="public", **changes)
    assert shown.status in {403, 422}
    assert list(shown.problems) == [field]
    assert shown.one(f"[data-error-summary] a[href='#f-{field}']")
    assert shown.one("#f-about")["value"] == "Kept <text>"
    assert shown.one("#f-visibility input[checked]")["value"] == "public"
    assert shown.one("#f-name")["value"] == changes["name"]
    if "limit" in changes:
        assert shown.one("#f-limit")["value"] == changes["limit"]
        assert shown.one("details.acc").has_attr("open")


def test_the_namespaces_are_those_where_one_may_make_repositories(site: Site):
    def offered(name: str) -> list[str]:
        return [one["value"] for one in site.as_(name).get("/repositories/new").all("#f-namespace option")]

    assert offered("ada") == ["ada"]
    assert offered("admin")[:2] == ["admin", "acme"]
    site.api.grant("acme/devs", "admin")
    assert offered("bob") == ["bob", "acme"]
    assert "/login" in site.as_(None).get("/repositories/new").url


# --- the first steps ------------------------------------------------------------------------------------------


def test_who_has_nothing_sees_what_to_do_first(site: Site):
    host = site.api.server.address
    site.api.make_users("first")
    site.api.as_("admin").patch("/api/v0/repositories/acme/shop", {"visibility": "private"}).expect(200)
    try:
        site.api.as_("admin").patch("/api/v0/repositories/ada/tool-1", {"visibility": "private"})
        first = site.as_("first")
        assert first.get("/").url.endswith("/welcome")
        for address in ("/repositories", "/welcome"):
            shown = first.get(address)
            commands = [one.get_text() for one in shown.all("main .copy code")]
            assert commands[0] == f"docker login -u first {host}"
            assert commands[2] == f"docker push {host}/first/my-app:latest"
            assert "/repositories/new?name=my-app" in shown.links
        first.submit(first.get("/repositories/new?name=my-thing"))
        assert first.get("/").url.endswith("/repositories")
        shown = first.get("/welcome")
        assert shown.all("main .copy code")[2].get_text() == f"docker push {host}/first/my-thing:latest"
        assert shown.one(".guide li.done")
        nobody = site.as_(None).get("/repositories")
        assert "No repository is public here" in nobody.text
    finally:
        site.api.as_("admin").patch("/api/v0/repositories/acme/shop", {"visibility": "public"}).expect(200)


# --- search ---------------------------------------------------------------------------------------------------


def results(shown: Shown, group: str) -> list[str]:
    return [" ".join(one.get_text(" ").split()) for one in shown.all(f"section[aria-label={group}] a.name")]


def test_search_finds_everything_that_one_may_see(site: Site, image: Image):
    bob, nobody = site.as_("bob"), site.as_(None)
    assert results(bob.get("/search?q=shop"), "Repositories") == ["acme/shop", "acme/shop-admin"]
    assert results(nobody.get("/search?q=shop"), "Repositories") == ["acme/shop"]
    assert results(bob.get("/search?q=acm"), "Organizations") == ["acme"]
    assert results(bob.get("/search?q=ada"), "Users") == ["ada"]
    assert results(nobody.get("/search?q=ada"), "Users") == []
    assert results(bob.get("/search?q=shop:1"), "Images") == ["acme/shop:1.0", "acme/shop-admin:1.0"]
    assert results(bob.get("/search?q=toke"), "Pages") == ["Access tokens"]
    digits = str(image.digest).partition(":")[2]
    for text in (digits[:12], str(image.digest), f"{site.api.server.address}/acme/shop@{image.digest}"):
        assert results(nobody.get(f"/search?q={text}"), "Images") == ["acme/shop:1.0"], text
    pasted = bob.get(f"/search?q={site.api.server.address}/acme/shop:1.0")
    assert results(pasted, "Images") == ["acme/shop:1.0", "acme/shop-admin:1.0"]
    assert "Nothing matches “zzz”" in bob.get("/search?q=zzz").text
    assert "What are you looking for?" in bob.get("/search").text
    assert "<script>alert" not in bob.get("/search?q=<script>alert(1)</script>").answer.body.decode()


def test_the_list_below_the_search_field_is_a_part_of_a_page(site: Site):
    shown = site.as_("bob").get("/search?part=palette&q=shop")
    options = [one["href"] for one in shown.all("a[role=option]")]
    assert options[:2] == ["/repositories/acme/shop/info", "/repositories/acme/shop-admin/info"]
    assert options[-1] == "/search?q=shop"
    assert not shown.has("html")
    places = site.as_("bob").get("/search?part=palette&q=").all("[role=option]")
    assert "/repositories/new" in [one["href"] for one in places]
    assert "/system" not in [one["href"] for one in places]
    admin = site.as_("admin").get("/search?part=palette&q=").all("[role=option]")
    assert "/system/settings/gc" in [one["href"] for one in admin]


def test_the_keys_are_a_page_of_their_own(site: Site):
    shown = site.as_(None).get("/docs/keyboard").expect(200)
    assert shown.title == "Keyboard shortcuts"
    assert "Ctrl K or /" in shown.text


def test_pages_are_in_japanese_too(site: Site):
    bob = site.as_("bob")
    for path in ("/repositories", "/repositories?q=zz9", "/repositories/new", "/welcome", "/search?q=shop"):
        shown = bob.get(path + ("&" if "?" in path else "?") + "lang=ja").expect(200)
        assert shown.one("html")["lang"] == "ja"
    assert "新しいリポジトリ" in bob.get("/repositories?lang=ja").text


def test_of_many_namespaces_one_is_typed(site: Site):
    for number in range(100):
        site.api.make_organization(f"many-{number:02}")
    shown = site.as_("admin").get("/repositories/new")
    assert shown.one("input#f-namespace")["value"] == "admin"
    assert len(shown.all("#namespaces option")) == 100
    assert len(shown.answer.body) < 50_000
