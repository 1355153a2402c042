"""Logging in and out, without script."""

from __future__ import annotations

from tests.support.server import PASSWORD
from tests.support.site import Site


def test_the_first_page_leads_to_the_log_in(site: Site):
    shown = site.as_(None).get("/").expect(200)
    assert (shown.title, shown.url.rpartition("/")[2]) == ("Log in", "login?next=%2Frepositories")


def test_who_logs_in_gets_cookies_that_no_script_reads_and_no_other_site_sends(site: Site):
    nobody = site.as_(None)
    form = nobody.get("/login?next=/orgs")
    sent = nobody.post("/login", {"username": "admin", "password": PASSWORD, "next": "/orgs"}, follow=False)
    assert form.status == 200
    assert (sent.status, sent.answer.headers["location"]) == (303, "/orgs")
    cookies = {line.partition("=")[0]: line.lower() for line in sent.answer.cookies}
    assert "httponly" in cookies["__Host-session"]
    for line in cookies.values():
        assert "secure" in line
        assert "samesite=lax" in line


def test_a_wrong_password_and_an_unknown_name_get_the_same_page(site: Site):
    texts = set()
    for name, password in (("admin", "wrong"), ("nobody-of-this-name", "wrong")):
        shown = site.as_(None).post("/login", {"username": name, "password": password}).expect(401)
        assert shown.one("#f-username")["value"] == name
        texts.add(shown.text.replace(name, ""))
    assert len(texts) == 1


def test_it_leads_to_no_other_site(site: Site):
    for target in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        sent = site.as_(None).post(
            "/login", {"username": "admin", "password": PASSWORD, "next": target}, follow=False
        )
        assert (sent.status, sent.answer.headers["location"]) == (303, "/repositories")


def test_a_form_of_another_site_is_refused(site: Site):
    admin = site.as_("admin")
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert admin.post("/logout", headers=headers).status == 403
    assert admin.post("/logout", csrf=False).status == 403
    assert admin.post("/logout", {"csrf_token": "0" * 64}).status == 403
    assert admin.post("/logout", follow=False).answer.headers["location"] == "/login"


def test_after_the_log_out_the_session_is_over(site: Site):
    admin = site.as_("admin")
    kept = dict(admin.cookies)
    admin.post("/logout")
    assert "__Host-session" not in admin.cookies
    admin.cookies = kept
    assert "ended=1" in admin.get("/orgs").url


def test_a_form_that_is_too_large_is_refused_on_a_page(site: Site):
    shown = site.as_(None).post("/login", {"username": "x" * 7_000_000}, follow=False)
    assert shown.status == 413
    assert "TOO_LARGE" in shown.text


def test_a_form_that_cannot_be_read_is_refused_on_a_page(site: Site):
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for body, kinds in ((b"--y\r\n", kind), (b"&".join(b"a=1" for _ in range(3_000)), {})):
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://{site.server.address}"}
        shown = site.as_(None).send("POST", "/login", body, {**form, **kinds})
        assert shown.status == 400
        assert "INVALID_PARAMETERS" in shown.text
