"""What people see when something is not there, not allowed, or not possible now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from tests.support.site import Site, Visitor

SETTINGS = {"limits.account_rate": 0.01, "limits.account_burst": 150}
PART = {"HX-Request": "true"}


@pytest.fixture(scope="module", autouse=True)
def people(site: Site) -> None:
    site.api.make_users("ada", "busy")
    site.api.make_repository("ada/own")


@contextlib.contextmanager
def without(site: Site, table: str) -> Iterator[None]:
    """As if the database failed, wherever the table is needed."""
    site.api.change(f"ALTER TABLE {table} RENAME TO {table}_gone")
    try:
        yield
    finally:
        site.api.change(f"ALTER TABLE {table}_gone RENAME TO {table}")


def frame(visitor: Visitor, path: str, status: int) -> str:
    """The title of a failure that is shown within the frame of the pages."""
    shown = visitor.get(path).expect(status)
    assert shown.has("nav#side")
    assert shown.has("header.top")
    number = shown.answer.headers["x-request-id"]
    assert number in shown.text
    assert shown.one("head title").text.startswith(f"{shown.title} · ")
    return shown.title


def test_what_is_not_there_and_what_is_not_for_somebody_look_the_same(site: Site):
    title = "Nothing here, or not for you"
    ada, nobody = site.as_("ada"), site.as_(None)
    for path in ("/repositories/ada/none/info", "/orgs/none/users", "/users/none/repos"):
        assert frame(ada, path, 404) == title
    assert frame(ada, "/system/settings/jobs", 403) == title
    assert frame(ada, "/docs/api/nothing", 404) == title
    assert frame(nobody, "/docs/api/nothing", 404) == title
    assert frame(nobody, "/search/nothing", 404) == title


def test_an_address_of_nothing_is_told_to_people_and_to_programs(site: Site):
    people = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for visitor in (site.as_("ada"), site.as_(None)):
        for path in ("/nothing", "/repository/ada/own", "/health/none"):
            shown = visitor.get(path, people).expect(404)
            assert shown.title == "Nothing here, or not for you"
            assert shown.has("nav#side")
            assert "content-security-policy" in shown.answer.headers
            assert visitor.get(path).expect(404).answer.json == {
                "errors": [{"code": "NOT_FOUND", "message": "there is nothing here"}]
            }
            assert (
                visitor.send("POST", path, b"", people).expect(404).answer.headers["content-type"]
                == "application/json"
            )
    assert site.as_(None).get("/health", people).expect(200).answer.json["Healthy"]


def test_a_page_that_takes_no_form_says_so(site: Site):
    shown = site.as_("ada").post("/docs/api").expect(405)
    assert shown.answer.headers["allow"] == "GET"
    assert shown.title == "This did not work"


def test_who_asks_too_often_is_told_when_to_come_back(site: Site):
    busy = site.as_("busy")
    for _ in range(2000):
        shown = busy.send("GET", "/docs/api")
        if shown.status == 429:
            break
    assert shown.status == 429
    assert shown.title == "Too many requests"
    assert f"Try again in {shown.answer.headers['retry-after']} second" in shown.text


def test_what_a_read_only_registry_refuses_is_told(site: Site):
    ada = site.as_("ada")
    policy = {"rules": [{"field": "tag", "operator": "eq", "values": ["old"]}], "enabled": False}
    place = "/repositories/ada/own/pruning"
    made = site.api.admin.post("/api/v0/repositories/ada/own/pruningPolicies", policy).expect(201).json["id"]
    site.api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": True}).expect(202)
    try:
        shown = ada.post(f"{place}/{made}/run").expect(409)
        assert shown.title == "The registry is read-only now"
        assert "READ_ONLY" in shown.text
        assert shown.has("nav#side")
    finally:
        site.api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": False}).expect(202)


def test_a_database_that_fails_for_one_page_is_told_within_the_frame(site: Site):
    admin = site.as_("admin")
    with without(site, "crons"):
        shown = admin.get("/system/settings/crons")
        assert (shown.status, shown.title) == (503, "The registry does not answer now")
        assert shown.has("nav#side")
        assert shown.answer.headers["retry-after"] == "5"
        part = admin.get("/system/settings/crons", PART).expect(503).answer.headers
        assert (part["hx-retarget"], part["hx-reselect"], part["hx-reswap"]) == ("#main", "#main", "outerHTML")
    admin.get("/system/settings/crons").expect(200)


def test_a_database_that_fails_for_every_page_is_told_by_a_page_that_needs_none(site: Site):
    admin = site.as_("admin")
    with without(site, "sessions"):
        shown = admin.get("/system/settings/crons")
        assert (shown.status, shown.title) == (503, "The registry does not answer now")
        assert not shown.has("nav#side")
        stylesheet = str(shown.one("link[rel=stylesheet]")["href"])
        admin.get(stylesheet).expect(200)
    admin.get("/system/settings/crons").expect(200)  # and nobody was logged out


def test_a_failure_of_the_program_is_told_with_the_number_of_its_request(site: Site):
    job = site.api.admin.post("/api/v0/jobs", {"action": "false"}).expect(202).json["id"]
    site.api.change("INSERT INTO job_logs (job, line, data) VALUES (:job, 1000, 'what is no JSON')", job=job)
    shown = site.as_("admin").get(f"/system/settings/jobs/{job}").expect(500)
    assert shown.title == "The registry failed"
    assert shown.has("nav#side")
    assert shown.answer.headers["x-request-id"] in shown.text
    assert "JSON" not in shown.text


def test_a_log_that_cannot_be_read_now_stays_on_its_page(site: Site):
    admin = site.as_("admin")
    job = site.api.admin.post("/api/v0/jobs", {"action": "false"}).expect(202).json["id"]
    with without(site, "job_logs"):
        answer = admin.get(f"/system/settings/jobs/{job}/log?after=0&poll=1", PART).expect(503).answer
        assert answer.headers["hx-reswap"] == "none"
        assert "hx-retarget" not in answer.headers
