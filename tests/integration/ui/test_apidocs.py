"""The pages of the API: everything that its description says, and the form that calls an operation."""

from __future__ import annotations

import json
import re

import pytest
from tests.support.contract import operations, ours
from tests.support.site import Shown, Site, Visitor

API = "/docs/api"
OPERATIONS = {one.described["operationId"]: one for one in operations(ours())}


def page_of(name: str) -> str:
    return f"{API}/{OPERATIONS[name].described['tags'][0]}/{name}"


@pytest.fixture(scope="module")
def nobody(site: Site) -> Visitor:
    return site.as_(None)


@pytest.fixture
def admin(site: Site) -> Visitor:
    return site.as_("admin")


def answer(shown: Shown) -> str:
    return shown.one("#answer").get_text("\n")


def test_everything_is_found_from_the_first_page_and_no_page_is_large(nobody: Visitor):
    first = nobody.get(API).expect(200)
    pages = {API: first}
    groups = {one for one in first.links if re.fullmatch(rf"{API}/\w+", one)}
    assert groups == {f"{API}/{one.described['tags'][0]}" for one in OPERATIONS.values()} | {f"{API}/records"}
    found = set()
    for group in groups:
        pages[group] = nobody.get(group).expect(200)
        found |= {one for one in pages[group].links if one.startswith(f"{group}/")}
    assert found == {
        *map(page_of, OPERATIONS),
        *(f"{API}/records/{one}" for one in ours()["components"]["schemas"]),
    }
    for path, shown in pages.items():
        assert len(shown.answer.body) < 50_000, path


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_an_operation_tells_all_that_is_described_and_links_to_records(nobody: Visitor, method: str):
    records = {f"{API}/records/{one}" for one in ours()["components"]["schemas"]}
    for name, one in list(OPERATIONS.items())[::4]:
        if one.method != method:
            continue
        shown = nobody.get(page_of(name)).expect(200)
        assert shown.title == one.described["summary"]
        assert len(shown.answer.body) < 50_000
        names = {" ".join(cell.get_text().split()) for cell in shown.all("td.lead code")}
        assert {parameter["name"] for parameter in one.described.get("parameters", ())} <= names
        assert set(one.described["responses"]) <= names
        assert f"{nobody.server.address}{one.path.partition('{')[0]}" in shown.one("pre").get_text()
        assert {link for link in shown.links if link.startswith(f"{API}/records/")} <= records


def test_operations_are_found_by_words(nobody: Visitor):
    shown = nobody.get(f"{API}?q=promotionPolicies+POST").expect(200)
    assert page_of("createPromotionPolicy") in shown.links
    assert page_of("listJobs") not in shown.links
    none = nobody.get(f"{API}?q=%3Cscript%3Enothing").expect(200)
    assert "No operation has these words" in none.text
    assert not none.has("main script")


@pytest.mark.parametrize(
    "path", ["nothing", "jobs/nothing", "enzi/listJobs", "records/Nothing", "jobs/listJobs/more"]
)
def test_what_is_not_there_is_not_found(nobody: Visitor, path: str):
    assert nobody.get(f"{API}/{path}").status == 404


def test_the_old_page_leads_here(nobody: Visitor):
    sent = nobody.get("/api/v0/docs", follow=False)
    assert (sent.status, sent.answer.headers["location"]) == (308, API)


def test_an_operation_is_called_as_who_looks(site: Site, admin: Visitor):
    form = admin.get(page_of("listJobs")).expect(200)
    shown = admin.submit(form, "main section form[method=post]", **{"query.action": "sleep", "query.limit": "3"})
    assert "/api/v0/jobs?action=sleep&limit=3" in answer(shown)
    assert json.loads(shown.one("#answer pre").get_text()) == {"jobs": []}
    assert "x-resource-count" in answer(shown)
    assert shown.one('[id="f-query.action"]')["value"] == "sleep"
    refused = admin.submit(form, "main section form[method=post]", **{"as": "nobody"}).expect(200)
    assert "NOT_AUTHENTICATED" in answer(refused)


def test_something_is_changed_with_the_token_and_refused_without(site: Site, admin: Visitor):
    form = admin.get(page_of("submitJob")).expect(200)
    body = '{"action": "sleep", "scheduledAt": "2100-01-01T00:00:00Z"}'
    without = admin.submit(form, "main section form[method=post]", body=body, **{"as": "no-token"})
    assert "CSRF_TOKEN_INVALID" in answer(without)
    made = admin.submit(form, "main section form[method=post]", body=body)
    job = json.loads(made.one("#answer pre").get_text())["id"]
    assert site.api.admin.get(f"/api/v0/jobs/{job}").expect(200).json["causedBy"] == "admin"
    wrong = admin.submit(form, "main section form[method=post]", body="{")
    assert "INVALID_JSON" in answer(wrong)
    assert wrong.one("#f-body").get_text().strip() == "{"

    form = admin.get(page_of("deleteJob")).expect(200)
    question = admin.submit(form, "main section form[method=post]", **{"path.jobID": job})
    assert question.title == f"Send DELETE /api/v0/jobs/{job}?"
    site.api.admin.get(f"/api/v0/jobs/{job}").expect(200)
    done = admin.submit(question, "#confirm form", button="Send the request")
    assert "204" in answer(done)
    assert "The answer has no body." in answer(done)
    site.api.admin.get(f"/api/v0/jobs/{job}").expect(404)


def test_somebody_without_a_log_in_calls_as_nobody(site: Site, nobody: Visitor):
    form = nobody.get(page_of("listRepositories")).expect(200)
    assert not form.has("#f-as")
    assert '"repositories": []' in answer(nobody.submit(form, "main section form[method=post]"))
    form = nobody.get(page_of("logIn")).expect(200)
    credentials = json.dumps({"username": "admin", "password": site.api.admin.client.password})
    shown = nobody.submit(form, "main section form[method=post]", body=credentials)
    assert "sessionToken" in answer(shown)
    assert "set-cookie" not in answer(shown).lower()
    assert nobody.cookies == {}


def test_what_is_typed_leads_to_no_other_path(admin: Visitor):
    form = admin.get(page_of("getJob")).expect(200)
    for typed in ("../../enzi/v0/accounts", "x?y=1", "%2e%2e/x", "<script>alert(1)</script>", "\u202e"):
        shown = admin.submit(form, "main section form[method=post]", **{"path.jobID": typed}).expect(200)
        assert re.search(r"NO_SUCH_JOB|NO_SUCH_OPERATION", answer(shown)), typed
        assert b"<script>alert" not in shown.answer.body


def test_an_answer_without_an_end_is_cut(site: Site, admin: Visitor):
    site.api.change(
        "INSERT INTO jobs (id, action, status, scheduled_at, updated_at, retries_left, retries_total, ended_at)"
        " VALUES ('long', 'sleep', 'done', 1, 1, 0, 0, 1)"
    )
    for number in range(30):
        data = json.dumps({"level": "info", "msg": "x" * 5_000, "time": "2026-01-01T00:00:00.000Z"})
        site.api.change(
            "INSERT INTO job_logs (job, line, data) VALUES ('long', :line, :data)", line=number, data=data
        )
    form = admin.get(page_of("getJobLogs")).expect(200)
    shown = admin.submit(form, "main section form[method=post]", **{"path.jobID": "long", "query.stream": "true"})
    assert "The answer goes on: this is its beginning." in answer(shown)
    assert len(shown.answer.body) < 200_000
