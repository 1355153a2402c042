"""Sessions: logging in and out, cookies and their protection, how long a session lives."""

from __future__ import annotations

import http.cookies
import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.client import Answer, Client, settle
from tests.support.server import PASSWORD

SETTINGS = {"http_serves": "true"}
LOGIN, LOGOUT, ME = "/enzi/v0/id/login", "/enzi/v0/id/logout", "/enzi/v0/id/"
ACCOUNTS = "/enzi/v0/accounts"
SETTINGS_OF_SESSIONS = "/enzi/v0/config/sessions"
MINUTE = 60_000


@pytest.fixture(scope="module")
def world(api: Api) -> Api:
    api.make_users("ada", "bob", "cher", "dora")
    return api


class Browser:
    """Keeps cookies, and sends them with each request, as a browser does."""

    def __init__(self, api: Api, headers: Mapping[str, str]) -> None:
        self.client = Client(api.server, None)
        self.headers = dict(headers)
        self.cookies: dict[str, str] = {}
        self.attributes: dict[str, dict[str, Any]] = {}

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request; underscores in the names of headers are dashes."""
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = self.client.connect()
        connection.request(method, path, content, sent)
        with connection.getresponse() as response:
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
            for header in response.headers.get_all("set-cookie", []):
                for name, morsel in http.cookies.SimpleCookie(header).items():
                    self.attributes[name] = {key: value for key, value in morsel.items() if value != ""}
                    self.cookies[name] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[name]
        connection.close()
        return answer

    def log_in(self, name: str = "ada", password: str = PASSWORD, **headers: str) -> Answer:
        return self.send("POST", LOGIN, {"username": name, "password": password}, **headers)

    @property
    def csrf(self) -> str:
        return self.cookies["csrftoken"]


@pytest.fixture
def browser(world: Api, elsewhere: dict[str, str]) -> Browser:
    return Browser(world, elsewhere)


def sessions(api: Api, name: str) -> list[tuple[Any, ...]]:
    return api.rows(
        "SELECT sessions.id, sessions.last_used_at, sessions.expires_at - sessions.last_used_at FROM sessions"
        " JOIN accounts ON accounts.id = account_id WHERE name = :name ORDER BY sessions.created_at",
        name=name,
    )


def later(api: Api, name: str, minutes: float) -> None:
    """Let time go by for the sessions of a user."""
    api.change(
        "UPDATE sessions SET created_at = created_at - :ms, last_used_at = last_used_at - :ms,"
        " expires_at = expires_at - :ms WHERE account_id = (SELECT id FROM accounts WHERE name = :name)",
        ms=int(minutes * MINUTE),
        name=name,
    )


# --- browsers -------------------------------------------------------------------------------------------------


def test_a_browser_logs_in_and_gets_cookies_that_nobody_else_can_use(browser: Browser):
    answer = browser.log_in().expect(200)
    assert answer.json["account"]["name"] == "ada"
    assert answer.json["sessionToken"].startswith("dtrs_")
    assert set(browser.cookies) == {"__Host-session", "csrftoken"}
    assert browser.cookies["__Host-session"] == answer.json["sessionToken"]
    assert browser.attributes["__Host-session"] == {
        "path": "/",
        "secure": True,
        "httponly": True,
        "samesite": "lax",
    }
    assert browser.attributes["csrftoken"] == {"path": "/", "secure": True, "samesite": "lax"}
    assert browser.send("GET", ME).expect(200).json["name"] == "ada"
    assert browser.send("GET", "/api/v0/meta/features").status == 200


def test_logging_out_ends_the_session_and_takes_the_cookies_back(browser: Browser):
    browser.log_in().expect(200)
    kept = dict(browser.cookies)
    browser.send("POST", LOGOUT, X_CSRF_Token=browser.csrf).expect(204)
    assert browser.cookies == {}
    assert browser.send("GET", ME).expect(401).codes == ["NOT_AUTHENTICATED"]
    browser.cookies = kept
    assert browser.send("GET", ME).expect(401).codes == ["NOT_AUTHENTICATED"]


def test_plain_http_has_its_own_cookie_which_is_not_sent_elsewhere(world: Api, browser: Browser):
    # A proxy in front that did no TLS says so.
    browser.headers["X-Forwarded-Proto"] = "http"
    browser.log_in().expect(200)
    assert set(browser.cookies) == {"session", "csrftoken"}
    assert browser.attributes["session"] == {"path": "/", "httponly": True, "samesite": "lax"}
    browser.send("GET", ME).expect(200)
    # A cookie that plain HTTP can plant is none for TLS.
    del browser.headers["X-Forwarded-Proto"]
    browser.send("GET", ME).expect(401)


def test_what_changes_something_needs_the_token_of_the_session(world: Api, browser: Browser):
    browser.log_in("admin").expect(200)
    other = Browser(world, browser.headers)
    other.log_in("bob").expect(200)
    wanted = {"fullName": "Ada"}
    for token in ("", "x", other.csrf, browser.csrf.upper(), browser.cookies["__Host-session"], "ä"):
        answer = browser.send("PATCH", f"{ACCOUNTS}/ada", wanted, X_CSRF_Token=token)
        assert answer.expect(403).codes == ["CSRF_TOKEN_INVALID"]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        path = LOGOUT if method == "POST" else f"{ACCOUNTS}/docker-datacenter/members/ada"
        path = f"{ACCOUNTS}/ada" if method == "PATCH" else path
        body = {} if method in {"PUT", "PATCH"} else None
        assert browser.send(method, path, body).expect(403).codes == ["CSRF_TOKEN_INVALID"], method
    for method in ("GET", "HEAD"):
        browser.send(method, f"{ACCOUNTS}/ada").expect(200)
    browser.send("PATCH", f"{ACCOUNTS}/ada", wanted, X_CSRF_Token=browser.csrf).expect(200)
    assert browser.send("GET", f"{ACCOUNTS}/ada").json["fullName"] == "Ada"


def test_what_a_foreign_page_sends_is_refused_even_with_the_token(world: Api, browser: Browser):
    browser.log_in("admin").expect(200)
    here = world.server.address
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": f"https://{here}.evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Origin": f"https://{here}"},
    ):
        answer = browser.send("PATCH", f"{ACCOUNTS}/ada", {}, X_CSRF_Token=browser.csrf, **headers)
        assert answer.expect(403).codes == ["CSRF_TOKEN_INVALID"], headers
        # Nor can it log its visitor in as somebody else.
        answer = Browser(world, browser.headers).log_in(**headers)
        assert answer.expect(403).codes == ["CSRF_TOKEN_INVALID"], headers
        assert "set-cookie" not in answer.headers
    for headers in (
        {"Sec_Fetch_Site": "same-origin", "Origin": f"https://{here}"},
        {"Origin": f"https://{here}"},
        {"Sec_Fetch_Site": "none"},
    ):
        browser.send("PATCH", f"{ACCOUNTS}/ada", {}, X_CSRF_Token=browser.csrf, **headers).expect(200)


def test_a_form_cannot_log_in(browser: Browser):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = browser.log_in(Content_Type=kind)
        assert answer.expect(415).codes == ["UNSUPPORTED_MEDIA_TYPE"]


def test_a_header_goes_before_the_cookie_and_needs_no_csrf_token(world: Api, browser: Browser):
    browser.log_in("ada").expect(200)
    bob = world.as_("bob").client.basic()
    assert browser.send("GET", ME, Authorization=bob).expect(200).json["name"] == "bob"
    browser.send("PATCH", f"{ACCOUNTS}/bob", {"fullName": "B"}, Authorization=bob).expect(200)


def test_a_foreign_form_gets_nothing_done_with_the_name_and_password_that_a_browser_remembers(
    world: Api, browser: Browser
):
    """It sends them to where they were asked for, whoever made it send a request (RFC 7617, section 2.2)."""
    cancel = "/api/v0/jobs/00000000-0000-4000-8000-000000000000/cancel"  # a form can send that: it has no body
    basic, here = world.as_("admin").client.basic(), world.server.address
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Content_Type": "application/x-www-form-urlencoded"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        answer = browser.send("POST", cancel, Authorization=basic, **headers)
        assert answer.expect(403).codes == ["CSRF_TOKEN_INVALID"], headers
        browser.send("GET", ME, Authorization=basic, **headers).expect(200)
    for headers in (
        {},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "same-origin", "Origin": f"https://{here}"},
    ):
        browser.send("POST", cancel, Authorization=basic, **headers).expect(404)


def test_a_page_is_not_answered_with_a_challenge_that_makes_the_browser_ask(browser: Browser):
    script = browser.send("GET", ME, Sec_Fetch_Mode="cors").expect(401)
    assert script.headers["www-authenticate"] == 'SessionToken realm="dtr"'
    for headers in ({}, {"Sec_Fetch_Mode": "navigate"}):
        assert browser.send("GET", ME, **headers).headers["www-authenticate"] == 'Basic realm="dtr"'


def test_what_is_no_session_is_refused_and_never_taken_for_nobody(world: Api, browser: Browser):
    world.make_repository("ada/public", visibility="public")
    browser.log_in().expect(200)
    right = browser.cookies["__Host-session"]
    for wrong in (right[:-1], right + "x", "dtrs_"):
        browser.cookies["__Host-session"] = wrong
        assert browser.send("GET", ME).expect(401).codes == ["NOT_AUTHENTICATED"], wrong
        for scheme in ("SessionToken", "Bearer"):
            answer = world.anonymous.call(
                "GET", ME, None, {**browser.headers, "Authorization": f"{scheme} {wrong}"}
            )
            assert answer.expect(401).codes == ["NOT_AUTHENTICATED"]
        assert browser.send("GET", "/api/v0/repositories/ada/public").status == 401
    # What another program on this host calls its session is none of ours.
    browser.cookies["__Host-session"] = "eyJfZnJlc2giOmZhbHNlfQ"
    assert browser.send("GET", "/api/v0/repositories/ada/public").status == 200


# --- scripts --------------------------------------------------------------------------------------------------


def test_a_script_logs_in_as_scripts_always_did(world: Api, elsewhere: dict[str, str]):
    body = json.dumps({"username": "bob", "password": PASSWORD}).encode()
    client = Client(world.server, None)
    for kind in ("application/x-www-form-urlencoded", "application/json", "text/plain"):  # the first one is curl's
        answer = client.send("POST", "/auth/login", body, {"Content-Type": kind, **elsewhere}).expect(200)
        assert set(answer.json) == {"auth_token"}
        assert "set-cookie" not in answer.headers
        bearer = {"Authorization": f"Bearer {answer.json['auth_token']}"}
        assert client.send("GET", ME, headers=bearer).expect(200).json["name"] == "bob"
        session = {"Authorization": f"SessionToken {answer.json['auth_token']}"}
        assert client.send("GET", ME, headers=session).expect(200).json["name"] == "bob"
        # No browser sends such a header by itself.
        client.send("PATCH", f"{ACCOUNTS}/bob", b"{}", {**bearer, "Content-Type": "application/json"}).expect(200)
    for wrong in (b"", b"{}", b"[]", b"x", b'{"username": "bob"}', b'{"username": 1, "password": 2}'):
        answer = client.send("POST", "/auth/login", wrong, elsewhere)
        assert answer.expect(400).codes == ["INVALID_JSON"], wrong
    client.send("GET", "/auth/login").expect(405)
    client.send("GET", "/auth/token").expect(200)
    client.close()


@pytest.mark.parametrize("path", [LOGIN, "/auth/login"])
def test_wrong_credentials_open_no_session(world: Api, path: str, elsewhere: dict[str, str]):
    token = world.server.do(lambda application: application.accounts.tokens.create("cher", "laptop"))
    for name, password in (("cher", "wrong"), ("nobody", PASSWORD), ("cher", token), ("docker-datacenter", "")):
        form = {"username": name, "password": password}
        answer = world.anonymous.call("POST", path, form, elsewhere)
        assert answer.expect(401).codes == ["NOT_AUTHENTICATED"]
        assert "set-cookie" not in answer.headers
    assert sessions(world, "cher") == []


def test_basic_info_says_who_calls_and_how_that_is_known(world: Api, browser: Browser):
    browser.log_in().expect(200)
    info = browser.send("GET", "/basic_info").expect(200).json
    assert set(info) == {"CurrentVersion", "User", "IsAdmin", "AuthnMethod"}
    assert (info["User"]["name"], info["IsAdmin"], info["AuthnMethod"]) == ("ada", False, "Session")
    info = world.admin.get("/basic_info").expect(200).json
    assert (info["User"]["isAdmin"], info["IsAdmin"], info["AuthnMethod"]) == (True, True, "Password")
    token = world.server.do(lambda application: application.accounts.tokens.create("ada", "laptop"))
    assert world.as_("ada", token).get("/basic_info").json["AuthnMethod"] == "AccessToken"
    assert world.anonymous.get("/basic_info").expect(401).codes == ["NOT_AUTHENTICATED"]


# --- how long -------------------------------------------------------------------------------------------------


def test_a_session_ends_after_its_life_unless_it_is_used_shortly_before(world: Api, browser: Browser):
    browser.log_in("dora").expect(200)
    ((_, _, life),) = sessions(world, "dora")
    assert life == 60 * MINUTE
    later(world, "dora", 39)
    browser.send("GET", ME).expect(200)
    ((_, _, life),) = sessions(world, "dora")
    assert 20 * MINUTE <= life <= 21 * MINUTE  # as it was
    later(world, "dora", 2)  # in its last twenty minutes
    browser.send("GET", ME).expect(200)
    ((_, _, life),) = sessions(world, "dora")
    assert life == 60 * MINUTE
    later(world, "dora", 59)
    browser.send("GET", ME).expect(200)
    later(world, "dora", 60.1)
    browser.send("GET", ME).expect(401)
    # The next log-in sweeps it.
    Browser(world, browser.headers).log_in("dora").expect(200)
    assert len(sessions(world, "dora")) == 1


def test_use_is_noted_once_a_minute(world: Api, browser: Browser):
    browser.log_in("cher").expect(200)
    ((_, before, _),) = sessions(world, "cher")
    browser.send("GET", ME).expect(200)
    assert sessions(world, "cher")[0][1] == before
    later(world, "cher", 1.1)
    browser.send("GET", ME).expect(200)
    assert sessions(world, "cher")[0][1] > before - MINUTE
    browser.send("POST", LOGOUT, X_CSRF_Token=browser.csrf).expect(204)


def test_one_session_too_many_ends_the_one_that_was_used_least_recently(world: Api, elsewhere: dict[str, str]):
    world.make_users("erin")
    browsers = []
    for _ in range(10):
        browsers.append(Browser(world, elsewhere))
        browsers[-1].log_in("erin").expect(200)
        later(world, "erin", 2)
    browsers[0].send("GET", ME).expect(200)  # the oldest is in use
    browsers.append(Browser(world, elsewhere))
    browsers[-1].log_in("erin").expect(200)
    assert [one.send("GET", ME).status for one in browsers] == [200, 401, *[200] * 9]


def test_sessions_obey_the_settings_of_the_moment(world: Api, browser: Browser):
    before = {"lifetimeMinutes": 60, "renewalThresholdMinutes": 20, "perUserLimit": 10}
    strict = {"lifetimeMinutes": 10, "renewalThresholdMinutes": 0, "perUserLimit": 1}
    world.make_users("frank")
    assert world.admin.get(SETTINGS_OF_SESSIONS).expect(200).json == before
    assert world.admin.put(SETTINGS_OF_SESSIONS, strict).expect(200).json == strict
    settle(world.server)
    browser.log_in("frank").expect(200)
    ((_, _, life),) = sessions(world, "frank")
    assert life == 10 * MINUTE
    later(world, "frank", 9.1)
    browser.send("GET", ME).expect(200)  # it is not renewed
    assert 0 < sessions(world, "frank")[0][2] < MINUTE
    Browser(world, browser.headers).log_in("frank").expect(200)
    browser.send("GET", ME).expect(401)
    world.admin.put(SETTINGS_OF_SESSIONS, before).expect(200)
    settle(world.server)


def test_settings_of_sessions_are_for_administrators_and_have_bounds(world: Api):
    assert world.as_("ada").get(SETTINGS_OF_SESSIONS).expect(403).codes == ["NOT_AUTHORIZED"]
    assert world.as_("ada").put(SETTINGS_OF_SESSIONS, {}).expect(403).codes == ["NOT_AUTHORIZED"]
    for form in (
        {"lifetimeMinutes": 9, "renewalThresholdMinutes": 0},
        {"renewalThresholdMinutes": 56},
        {"lifetimeMinutes": 24},
        {"perUserLimit": -1},
    ):
        assert world.admin.put(SETTINGS_OF_SESSIONS, form).expect(400).codes == ["INVALID_SETTINGS"], form
    kept = world.admin.put(SETTINGS_OF_SESSIONS, {"renewalThresholdMinutes": 55}).expect(200).json
    assert kept == {"lifetimeMinutes": 60, "renewalThresholdMinutes": 55, "perUserLimit": 10}
    world.admin.put(SETTINGS_OF_SESSIONS, {"renewalThresholdMinutes": 20}).expect(200)


@pytest.mark.parametrize("end", ["password", "deactivated", "deleted"])
def test_sessions_end_with_what_they_rest_on(world: Api, browser: Browser, end: str):
    name = f"user-{end}"
    world.make_users(name)
    browser.log_in(name).expect(200)
    refresh = world.server.do(lambda application: application.accounts.tokens.create(name, "x", kind="refresh"))
    if end == "password":
        form = {"oldPassword": PASSWORD, "newPassword": "new"}
        browser.send("POST", f"{ACCOUNTS}/{name}/changePassword", form, X_CSRF_Token=browser.csrf).expect(200)
    elif end == "deactivated":
        world.admin.patch(f"{ACCOUNTS}/{name}", {"isActive": False}).expect(200)
    else:
        world.admin.delete(f"{ACCOUNTS}/{name}").expect(204)
    assert browser.send("GET", ME).expect(401).codes == ["NOT_AUTHENTICATED"]
    if end == "deactivated":
        world.admin.patch(f"{ACCOUNTS}/{name}", {"isActive": True}).expect(200)
        browser.send("GET", ME).expect(401)
    assert world.rows("SELECT 1 FROM tokens WHERE kind = 'refresh'") == []
    assert refresh.startswith("dtrr_")


# --- what is written down -------------------------------------------------------------------------------------


def test_log_ins_and_log_outs_are_written_down_once_each_without_secrets(world: Api, browser: Browser):
    browser.headers["User-Agent"] = "Tester/1.0"
    secret = browser.log_in("bob").expect(200).json["sessionToken"]
    for _ in range(3):
        browser.send("GET", ME).expect(200)
    csrf = browser.csrf
    browser.send("POST", LOGOUT, X_CSRF_Token=csrf).expect(204)
    address = browser.headers["X-Forwarded-For"]
    found = world.rows(
        "SELECT type, actor_name, object_type, object_name, object_content FROM events"
        " WHERE address = :address ORDER BY id",
        address=address,
    )
    assert found == [
        ("LOGIN", "bob", "session", "bob", "Tester/1.0"),
        ("DELETE", "bob", "session", "bob", ""),
    ]
    everything = str(world.rows("SELECT * FROM events")) + str(world.rows("SELECT * FROM sessions"))
    for hidden in (secret, csrf, PASSWORD):
        assert hidden not in everything
        assert hidden not in world.server.log


# --- lists of sessions ----------------------------------------------------------------------------------------


def test_a_user_sees_and_ends_its_own_sessions_but_the_one_it_uses(world: Api, elsewhere: dict[str, str]):
    world.make_users("lena")
    browsers = [Browser(world, {**elsewhere, "User-Agent": f"Tester/{number}"}) for number in range(3)]
    for one in browsers:
        one.log_in("lena").expect(200)
    found = browsers[0].send("GET", "/api/v0/sessions?count=true").expect(200)
    assert found.headers["x-resource-count"] == "3"
    by_agent = {one["userAgent"]: one for one in found.json}
    assert {agent: one["isCurrent"] for agent, one in by_agent.items()} == {
        "Tester/0": True,
        "Tester/1": False,
        "Tester/2": False,
    }
    first = by_agent["Tester/1"]
    assert first["username"] == "lena"
    assert first["address"] == elsewhere["X-Forwarded-For"]
    assert first["createdAt"] < first["expiresAt"]
    for refused in (
        world.as_("ada").delete(f"/api/v0/sessions/{first['id']}"),
        world.admin.delete("/api/v0/sessions/none"),
    ):
        assert refused.expect(404).codes == ["NO_SUCH_SESSION"]
    world.admin.delete(f"/api/v0/sessions/{first['id']}").expect(200)
    browsers[1].send("GET", ME).expect(401)
    ended = browsers[0].send("DELETE", "/api/v0/sessions", X_CSRF_Token=browsers[0].csrf)
    assert ended.expect(200).json == {"ended": 1}
    browsers[2].send("GET", ME).expect(401)
    browsers[0].send("GET", ME).expect(200)
    assert world.admin.delete("/api/v0/sessions", username="lena").expect(200).json == {"ended": 1}
    browsers[0].send("GET", ME).expect(401)


def test_administrators_list_the_sessions_of_everybody(world: Api, elsewhere: dict[str, str]):
    world.make_users("mara", "marb")
    for name in ("mara", "marb", "marb"):
        Browser(world, elsewhere).log_in(name).expect(200)
    pages = world.admin.pages("/api/v0/sessions", 1, contains="MAR")
    assert sorted(one["username"] for page in pages for one in page) == ["mara", "marb", "marb"]
    assert {one["username"] for one in world.as_("ada").get("/api/v0/sessions").expect(200).json} <= {"ada"}
    assert world.as_("ada").get("/api/v0/sessions", username="mara").expect(403)
    assert world.admin.get("/api/v0/sessions", username="nobody").expect(404).codes == ["NO_SUCH_USER"]
