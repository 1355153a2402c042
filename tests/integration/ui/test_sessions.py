"""The page with the sessions of everybody."""

from __future__ import annotations

import pytest
from tests.support.site import Site, Visitor

SESSIONS = "/system/settings/sessions"


@pytest.fixture(scope="module", autouse=True)
def people(site: Site) -> None:
    site.api.make_users("ada", "bob", "iris", "paul")
    site.api.change("UPDATE accounts SET is_auditor = true WHERE name = 'iris'")


@pytest.fixture
def admin(site: Site) -> Visitor:
    return site.as_("admin")


def test_a_session_is_found_by_its_user_and_ended(site: Site, admin: Visitor):
    ada, bob = site.as_("ada"), site.as_("bob")
    shown = admin.get(SESSIONS).expect(200)
    assert {"/users/ada/sessions", "/users/bob/sessions", "/users/admin/sessions"} <= shown.links.keys()
    found = admin.get(f"{SESSIONS}?q=ad").expect(200)
    assert "/users/bob/sessions" not in found.links
    row = admin.get(f"{SESSIONS}?q=ada").expect(200)
    assert "1 session" in row.text
    after = admin.submit(row, "#list form").expect(200)
    assert "The session of ada is ended." in after.text
    assert "ended=1" in ada.get("/orgs").url
    bob.get("/orgs").expect(200)
    again = admin.submit(row, "#list form").expect(200)
    assert "There is no such session, or it is over." in again.text
    assert "Nobody with this name is logged in with a password." in admin.get(f"{SESSIONS}?q=ada").text


def test_ones_own_session_is_marked_and_not_to_be_ended_here(admin: Visitor):
    shown = admin.get(f"{SESSIONS}?q=admin").expect(200)
    (own,) = [row for row in shown.all("#list tbody tr") if "This one" in row.get_text()]
    assert own.select("form") == []


def test_what_a_client_calls_itself_is_shown_as_text(site: Site, admin: Visitor):
    agent = "<script>alert(1)</script>" + "x" * 600
    ada = {"username": "ada", "password": "secret of ada"}
    site.api.admin.post("/enzi/v0/accounts/ada/changePassword", {"newPassword": ada["password"]}).expect(200)
    answer = site.api.anonymous.call("POST", "/enzi/v0/id/login", ada, headers={"User-Agent": agent})
    answer.expect(200)
    shown = admin.get(f"{SESSIONS}?q=ada").expect(200)
    assert b"<script>alert" not in shown.answer.body
    assert "<script>alert(1)</script>" in shown.text
    assert "x" * 200 not in shown.text


def test_auditors_look_and_others_do_not(site: Site):
    iris, paul = site.as_("iris"), site.as_("paul")
    shown = iris.get(SESSIONS).expect(200)
    assert not shown.has("#list form")
    assert iris.post(f"{SESSIONS}/end", {"session": "x"}).status == 403
    assert paul.get(SESSIONS).status == 403
    assert site.as_(None).get(SESSIONS).title == "Log in"


def test_sessions_come_in_pages(site: Site, admin: Visitor):
    site.api.admin.put("/enzi/v0/config/sessions", {"perUserLimit": 0}).expect(200)
    for number in range(30):
        site.api.change(
            "INSERT INTO sessions (id, account_id, created_at, last_used_at, expires_at, address, user_agent)"
            " SELECT :id, id, :moment, :moment, 9999999999999, '192.0.2.1', 'curl/8' FROM accounts"
            " WHERE name = 'paul'",
            id=f"{number:064x}",
            moment=number,
        )
    first = admin.get(f"{SESSIONS}?q=paul").expect(200)
    assert len(first.all("#list tbody tr")) == 25
    second = admin.get(str(first.one("a[rel=next]")["href"])).expect(200)
    assert second.has("#list tbody tr")
    assert len(first.answer.body) < 50_000
