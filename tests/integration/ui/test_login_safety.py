"""
Log-ins that go wrong, and requests that others would like to make in somebody's name.

The plain ways in and out are in test_login.py.
"""

from __future__ import annotations

import pytest
from tests.support.api import Api
from tests.support.server import PASSWORD
from tests.support.site import Shown, Site, Visitor

PAGES = ("/users", "/account", "/users/ada/settings", "/users/ada/access-tokens?show=auto")


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    site.api.make_users("ada", "bob", "off")
    site.api.admin.patch("/enzi/v0/accounts/off", {"isActive": False}).expect(200)
    return site


def lengthen_pauses(api: Api) -> None:
    """Whoever has to wait waits for most of a minute: longer than a test takes."""
    latest = "(SELECT max(blocked_until) FROM login_failures)"
    api.change(f"UPDATE login_failures SET blocked_until = blocked_until + 50000 WHERE blocked_until = {latest}")


def log_in(visitor: Visitor, name: str, password: str, **fields: str) -> dict[str, str]:
    return {"username": name, "password": password, **fields}


def test_every_cause_of_a_wrong_log_in_looks_the_same(world: Site):
    texts = set()
    for name, password in (
        ("ada", "wrong"),
        ("nobody-here", "x"),
        ("off", PASSWORD),
        ("ada", ""),
        ("\u202eada", "x"),
        ("ada\0", PASSWORD),
        ("ada", f"{PASSWORD}\0"),
    ):
        address = {"X-Forwarded-For": f"198.51.100.{len(texts) + 1}"}
        shown = world.as_(None).post("/login", {"username": name, "password": password}, headers=address)
        assert shown.status == 401
        assert shown.one("#f-password")["value"] == ""
        assert shown.one("#f-username")["value"] == name
        texts.add(shown.one(".alert.bad").get_text(" ", strip=True))
    assert texts == {"You are not logged in. The user name or the password is not right."}


def test_who_guesses_is_told_when_to_try_again_and_the_right_password_waits_as_well(world: Site):
    address = {"X-Forwarded-For": "203.0.113.77"}
    nobody = world.as_(None)

    def guess() -> Shown:
        return nobody.post("/login", {"username": "bob", "password": "guess"}, headers=address)

    while (shown := guess()).status != 429:  # the first pauses are short, and may be over
        assert shown.status == 401
    lengthen_pauses(world.api)
    shown = guess()
    assert shown.status == 429
    seconds = int(shown.answer.headers["retry-after"])
    assert f"Try again in {seconds} second" in shown.text
    shown = nobody.post("/login", {"username": "bob", "password": PASSWORD}, headers=address)
    assert shown.status == 429
    assert "__Host-session" not in nobody.cookies
    elsewhere = nobody.post(
        "/login", {"username": "bob", "password": PASSWORD}, headers={"X-Forwarded-For": "203.0.113.9"}
    )
    assert elsewhere.status == 200
    assert "__Host-session" in nobody.cookies


def test_a_lost_session_leads_to_the_log_in_and_back(world: Site):
    for page in PAGES:
        ada = world.as_("ada")
        world.api.admin.delete("/api/v0/sessions", username="ada").expect(200)
        shown = ada.get(page)
        assert shown.title == "Log in"
        assert "Your session is over." in shown.text
        back = ada.submit(shown, username="ada", password=PASSWORD).expect(200)
        assert back.url.removeprefix(ada.origin).startswith("/users")
        assert back.title != "Log in"


def test_a_form_of_a_lost_session_changes_nothing_and_leads_back_to_its_page(world: Site):
    ada = world.as_("ada")
    page = ada.get("/users/ada/settings")
    world.api.admin.delete("/api/v0/sessions", username="ada").expect(200)
    sent = ada.post(
        "/users/ada/settings/profile",
        {"fullName": "Lost"},
        headers={"Referer": page.url},
        follow=False,
    )
    assert sent.status == 303
    assert sent.answer.headers["location"] == "/login?next=%2Fusers%2Fada%2Fsettings&ended=1"
    assert world.api.admin.get("/enzi/v0/accounts/ada").json["fullName"] == ""


def test_a_form_needs_the_token_of_its_own_session(world: Site):
    ada, again, bob = world.as_("ada"), world.as_("ada"), world.as_("bob")
    for given in (
        None,
        "",
        "0" * 64,
        bob.cookies["csrftoken"],
        again.cookies["csrftoken"],
        "\udcff".encode("utf-8", "replace").decode(),
    ):
        fields = {"fullName": "Forged"} | ({} if given is None else {"csrf_token": given})
        shown = ada.post("/users/ada/settings/profile", fields, csrf=False)
        assert (shown.status, shown.title) == (403, "The form was too old")
    assert world.api.admin.get("/enzi/v0/accounts/ada").json["fullName"] == ""
    ada.post("/users/ada/settings/profile", {"fullName": "Ada"}).expect(200)
    assert world.api.admin.get("/enzi/v0/accounts/ada").json["fullName"] == "Ada"
    ada.post("/users/ada/settings/profile", {"fullName": ""}).expect(200)


def test_another_sites_form_is_refused_with_the_right_token_too(world: Site):
    ada = world.as_("ada")
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        assert ada.post("/users/ada/settings/profile", {"fullName": "Forged"}, headers=headers).status == 403
        # Neither may it log somebody in: what one does then would be done in the attacker's account.
        nobody = world.as_(None)
        sent = nobody.post("/login", {"username": "bob", "password": PASSWORD}, headers=headers)
        assert sent.status == 403
        assert "__Host-session" not in nobody.cookies
    assert world.api.admin.get("/enzi/v0/accounts/ada").json["fullName"] == ""


def test_a_log_in_always_opens_a_new_session_and_ends_the_one_before(world: Site):
    nobody = world.as_(None)
    planted = "dtrs_" + "A" * 43
    nobody.cookies["__Host-session"] = planted
    nobody.post("/login", {"username": "ada", "password": PASSWORD}).expect(200)
    first = dict(nobody.cookies)
    assert first["__Host-session"] != planted
    nobody.post("/login", {"username": "bob", "password": PASSWORD}).expect(200)
    assert nobody.cookies["__Host-session"] != first["__Host-session"]
    assert nobody.get("/account").title == "bob"
    old = world.as_(None)
    old.cookies = first
    assert old.get("/account").title == "Log in"


def test_next_leads_within_this_site_whatever_it_is(world: Site):
    for target in (
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "users",
        "/users\r\nSet-Cookie: a=b",
        "//[",
        "http://[/users",
        "",
    ):
        nobody = world.as_(None)
        fields = {"username": "ada", "password": PASSWORD, "next": target}
        sent = nobody.post("/login", fields, follow=False)
        assert (sent.status, sent.answer.headers["location"]) == (303, "/repositories"), target
        # Who is logged in is led on by the address alone.
        led = nobody.send("GET", "/login?next=" + "".join(f"%{byte:02x}" for byte in target.encode()))
        assert (led.status, led.answer.headers["location"]) == (303, "/repositories"), target


def test_a_browser_that_says_it_comes_from_no_address_is_answered(world: Site):
    ada, wrong = world.as_("ada"), "https://[/users"
    shown = ada.get("/users/nobody-here", headers={"Referer": wrong}).expect(404)
    assert shown.one("main a.btn:not(.quiet)")["href"] == "/repositories"
    for headers in ({"Referer": wrong}, {"HX-Request": "true", "HX-Current-URL": wrong}):
        nobody = world.as_(None)
        sent = nobody.post("/users/ada/settings/profile", {}, headers=headers, follow=False)
        assert sent.status in {204, 303}
        to = sent.answer.headers.get("hx-redirect") or sent.answer.headers["location"]
        assert to == "/login?next=%2Frepositories"


def test_cookies_are_for_this_host_alone_and_for_no_script_but_two(world: Site):
    nobody = world.as_(None)
    sent = nobody.post("/login", {"username": "ada", "password": PASSWORD}, follow=False)
    cookies = {line.partition("=")[0]: line.lower() for line in sent.answer.cookies}
    assert {"__Host-session", "csrftoken", "advice"} <= cookies.keys()
    for name, line in cookies.items():
        assert "secure" in line
        assert "samesite=lax" in line
        assert "domain=" not in line
        assert ("httponly" in line) == (name != "csrftoken")
    assert nobody.get("/users").answer.headers["cache-control"] == "private, no-cache"


def test_who_has_a_given_password_is_advised_until_it_is_changed_or_put_off(world: Site):
    world.api.make_users("nina")
    nina = world.as_(None)
    nina.post("/login", {"username": "nina", "password": PASSWORD})
    shown = nina.get("/users")
    assert "Somebody else set your password" in shown.text
    assert "Somebody else set your password" not in nina.submit(shown, ".banner form").text
    nina.post("/login", {"username": "nina", "password": PASSWORD})
    assert "Somebody else set your password" not in nina.get("/users").text
    del nina.cookies["advice"]
    nina.post("/login", {"username": "nina", "password": PASSWORD})
    shown = nina.submit(
        nina.get("/account"), "form[action$='/password']", oldPassword=PASSWORD, newPassword="own", again="own"
    )
    assert shown.status == 200
    assert "Somebody else set your password" not in nina.get("/users").text
    other = world.as_(None)
    other.post("/login", {"username": "nina", "password": "own"})
    assert "advice" not in other.cookies
