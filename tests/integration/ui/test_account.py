"""What opens an account: access tokens, sessions, public keys, as its user and others see them."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from tests.support.server import PASSWORD
from tests.support.signing import make_key, public_pem
from tests.support.site import Shown, Site, Visitor

from dtr.http.ui.people import client_name

TOKENS = "/users/ada/access-tokens"
KEY = public_pem(make_key())


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    """ada with a repository, bob, and the auditor audrey."""
    site.api.make_users("ada", "bob", "audrey")
    site.api.make_repository("ada/app")
    site.api.admin.patch("/enzi/v0/accounts/audrey", {"isAuditor": True}).expect(200)
    return site


@pytest.fixture
def ada(world: Site) -> Visitor:
    return world.as_("ada")


def make(visitor: Visitor, label: str, **fields: object) -> Shown:
    return visitor.submit(visitor.get(f"{TOKENS}/new"), label=label, **fields)


def address_of(visitor: Visitor, label: str) -> str:
    found = [address for address, text in visitor.get(TOKENS).links.items() if text == label]
    assert len(found) == 1
    return found[0]


# --- access tokens ----------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_good_for_what_was_chosen(world: Site, ada: Visitor):
    shown = make(ada, "laptop", level="pull", repositories="ada/app\nada/lib-*", end="30").expect(200)
    assert shown.answer.headers["cache-control"] == "no-store"
    secret = shown.all(".copy code")[0].get_text()
    assert secret.startswith("dtra_")
    assert shown.links[TOKENS] == "I have stored it"
    (kept,) = [one for one in world.api.as_("ada").get("/api/v0/api_tokens").json if one["tokenLabel"] == "laptop"]
    assert kept["scope"] == {"repositories": ["ada/app", "ada/lib-*"], "actions": ["pull"]}
    left = dt.datetime.fromisoformat(kept["expiresAt"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=29) < left <= dt.timedelta(days=30)
    world.api.as_("ada", secret).get("/api/v0/repositories/ada/app").expect(200)
    page = ada.get(address_of(ada, "laptop"))
    assert secret not in page.answer.body.decode()
    assert "ada/lib-*" in page.text
    assert "127.0.0.1" in page.text
    listed = ada.get(TOKENS)
    assert secret not in listed.answer.body.decode()
    assert "from 127.0.0.1" in listed.text


def test_a_token_is_for_everything_and_for_ever_when_that_is_chosen(world: Site, ada: Visitor):
    secret = make(ada, "all of it", level="all", end="never").all(".copy code")[0].get_text()
    world.api.as_("ada", secret).get("/api/v0/api_tokens").expect(200)
    tomorrow = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).date()
    make(ada, "for a day", level="delete", end="day", day=tomorrow.isoformat()).expect(200)
    kept = {one["tokenLabel"]: one for one in world.api.as_("ada").get("/api/v0/api_tokens", pageSize=50).json}
    assert (kept["all of it"]["scope"], kept["all of it"]["expiresAt"]) == (None, None)
    assert kept["for a day"]["expiresAt"] == f"{tomorrow}T23:59:59Z"
    assert kept["for a day"]["scope"] == {"repositories": ["*"], "actions": ["pull", "push", "delete"]}


def test_a_refused_token_says_where_it_is_wrong_and_keeps_what_was_typed(ada: Visitor):
    for fields, wrong in (
        ({"label": ""}, "label"),
        ({"label": "x", "repositories": "Not A Path//"}, "repositories"),
        ({"label": "x", "level": "all", "repositories": "ada/app"}, "repositories"),
        ({"label": "x", "level": "everything"}, "level"),
        ({"label": "x", "end": "day", "day": ""}, "day"),
        ({"label": "x", "end": "day", "day": "2020-01-01"}, "day"),
        ({"label": "x", "end": "soon"}, "day"),
    ):
        shown = ada.submit(ada.get(f"{TOKENS}/new"), **fields)
        assert (shown.status, set(shown.problems)) == (422, {wrong}), fields
        assert shown.one("#f-label")["value"] == fields["label"]
        assert shown.one("#f-repositories").get_text().strip() == fields.get("repositories", "")


def test_a_token_is_renamed_switched_off_and_on_and_deleted(world: Site, ada: Visitor):
    secret = make(ada, "old name", level="all").all(".copy code")[0].get_text()
    page = ada.get(address_of(ada, "old name"))
    page = ada.submit(page, "form[aria-labelledby=label]", label="new name").expect(200)
    assert page.title == "new name"
    page = ada.submit(page, "main header form", button="Switch off")
    assert "Switched off" in page.text
    world.api.as_("ada", secret).get("/api/v0/api_tokens").expect(401)
    page = ada.submit(page, ".toast form", button="Undo")
    assert "Works" in page.text
    world.api.as_("ada", secret).get("/api/v0/api_tokens").expect(200)
    asked = ada.get(f"{address_of(ada, 'new name')}/delete")
    assert asked.title == "Delete the token new name"
    assert "The token is deleted." in ada.submit(asked).text
    world.api.as_("ada", secret).get("/api/v0/api_tokens").expect(401)


def test_clients_that_logged_in_are_listed_and_logged_out(world: Site, ada: Visitor):
    secret = make(ada, "for docker").all(".copy code")[0].get_text()
    query = "service=dtr&client_id=docker&offline_token=true&account=ada&scope=repository:ada/app:pull"
    answer = world.api.as_("ada", secret).call(
        "GET", f"/auth/token?{query}", headers={"User-Agent": "docker/27.1"}
    )
    assert answer.expect(200).json["refresh_token"]
    shown = ada.get(f"{TOKENS}?show=auto")
    assert "docker/27.1" in shown.text
    page = ada.get(next(address for address, text in shown.links.items() if text == "docker/27.1"))
    assert not page.has("#f-label")
    asked = ada.get(f"{page.url.removeprefix(ada.origin)}/delete")
    assert "The client is logged out." in ada.submit(asked).text


def test_tokens_that_are_not_used_are_deleted_together(world: Site, ada: Visitor):
    make(ada, "forgotten")
    make(ada, "fresh")
    world.api.change("UPDATE tokens SET created_at = created_at - 8640000000 WHERE label = 'forgotten'")
    asked = ada.submit(ada.get(TOKENS), "form[aria-labelledby=unused]", days="30")
    assert "not used in the last 30 days" in asked.text
    shown = ada.submit(asked)
    assert "1 deleted." in shown.text
    assert "forgotten" not in shown.text
    assert "fresh" in shown.text


def test_others_see_or_change_tokens_as_they_may(world: Site, ada: Visitor):
    make(ada, "hers")
    address = address_of(ada, "hers")
    audrey, bob, admin = (world.as_(name) for name in ("audrey", "bob", "admin"))
    page = audrey.get(address).expect(200)
    assert not page.has("main form")
    assert f"{address}/delete" not in page.links
    assert f"{TOKENS}/new" not in audrey.get(TOKENS).links
    for path in (TOKENS, f"{TOKENS}/new", address, f"{address}/delete", f"{TOKENS}/delete-unused"):
        assert bob.get(path).status in {403, 404}
    for visitor in (audrey, bob):
        assert visitor.post(address, {"active": "off"}).status == 403
        assert visitor.post(f"{address}/delete").status == 403
        assert visitor.post(f"{TOKENS}/new", {"label": "x", "level": "all", "end": "never"}).status == 403
        assert visitor.post(f"{TOKENS}/delete-unused", {"days": "30"}).status == 403
    assert bob.get(address.replace("/users/ada/", "/users/bob/")).status == 404
    assert "It opens the account of ada." in admin.get(f"{TOKENS}/new").text
    assert "The token is deleted." in admin.submit(admin.get(f"{address}/delete")).text


# --- sessions ---------------------------------------------------------------------------------------------------


def test_own_sessions_are_listed_and_others_ended(world: Site):
    world.api.make_users("lena")
    here, there, third = (world.as_("lena") for _ in range(3))
    path = "/users/lena/sessions"
    shown = here.get(path).expect(200)
    rows = [" ".join(one.get_text(" ").split()) for one in shown.all("tbody tr")]
    assert len(rows) == 3
    assert sum("This one" in row for row in rows) == 1
    assert len(shown.all("td.acts form")) == 2
    selector = (
        "tr:nth-of-type(1) td.acts form"
        if not shown.has("tr:nth-of-type(1) .badge")
        else "tr:nth-of-type(2) td.acts form"
    )
    assert "1 session is over." in here.submit(shown, f"tbody {selector}").text
    assert sum(one.get("/users", follow=False).status == 303 for one in (there, third)) == 1
    asked = here.get(f"{path}/end")
    assert "1 session is over." in here.submit(asked).text
    assert all(one.get("/users", follow=False).status == 303 for one in (there, third))
    here.get(path).expect(200)
    for name, status in {"bob": 403, "audrey": 200}.items():
        visitor = world.as_(name)
        assert visitor.get(path).status == status
        assert visitor.post(f"{path}/end").status == 403
    admin = world.as_("admin")
    assert "1 session is over." in admin.submit(admin.get(f"{path}/end")).text
    assert here.get("/users").title == "Log in"


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", ("Firefox", "Linux")),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126 Safari/537 Edg/126",
            ("Edge", "Windows"),
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605 Version/17.5 Safari/604.1",
            ("Safari", "iPhone"),
        ),
        ("docker/27.1.1 go/go1.21 kernel/6.1 os/linux arch/amd64", ("docker/27.1.1", "")),
        ("curl/8.5.0", ("curl/8.5.0", "")),
        ("", ("", "")),
        ("\u202egnp.exe <b>", ("\u202egnp.exe <b>", "")),
    ],
)
def test_clients_are_named_by_what_they_call_themselves(told: str, client: tuple[str, str]):
    assert client_name(told) == client


# --- public keys ------------------------------------------------------------------------------------------------


def test_a_key_is_added_renamed_and_removed(world: Site, ada: Visitor):
    refused = ada.submit(ada.get("/users/ada/keys/new"), label="work", publicKey="none")
    assert (refused.status, set(refused.problems)) == (422, {"publicKey"})
    assert refused.one("#f-label")["value"] == "work"
    shown = ada.submit(ada.get("/users/ada/keys/new"), label="work", publicKey=KEY).expect(200)
    address = next(address for address, text in shown.links.items() if text == "work")
    assert re.search(r"EC \w+|RSA \d+|Ed25519", shown.text)
    again = ada.submit(ada.get("/users/ada/keys/new"), publicKey=KEY)
    assert again.problems["publicKey"] == "The account has this key."
    for name in ("bob", "audrey"):
        visitor = world.as_(name)
        page = visitor.get(address).expect(200)
        assert not page.has("main form")
        assert visitor.get("/users/ada/keys/new").status == 403
        assert visitor.post(address, {"label": "x"}).status == 403
        assert visitor.post(f"{address}/delete").status == 403
    refused = ada.submit(ada.get(address), "form[aria-labelledby=about]", certificates="none", label="other")
    assert (refused.status, set(refused.problems)) == (422, {"certificates"})
    assert "Saved." in ada.submit(ada.get(address), "form[aria-labelledby=about]", label="home").text
    asked = ada.get(f"{address}/delete")
    assert asked.title == "Remove the key home"
    assert "The key is removed." in ada.submit(asked).text
    assert ada.get(address).status == 404


def test_the_secret_of_a_form_is_never_echoed(ada: Visitor):
    shown = ada.post(
        "/users/ada/settings/password", {"oldPassword": "wr0ng-one", "newPassword": "n", "again": "m"}
    )
    assert shown.status == 422
    assert "wr0ng-one" not in shown.answer.body.decode()
    assert PASSWORD not in shown.answer.body.decode()
