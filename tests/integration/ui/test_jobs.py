"""The pages of jobs, schedules, workers and defaults; and the log of a job while it grows."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest
from tests.support.site import Shown, Site, Visitor

SETTINGS = {"drain_seconds": "600"}
JOBS = "/system/settings/jobs"
CRONS = "/system/settings/crons"
HOSTILE = "<script>alert(1)</script>\u202egnp.exe"


@pytest.fixture(scope="module", autouse=True)
def people(site: Site) -> None:
    site.api.make_users("iris", "paul")
    site.api.change("UPDATE accounts SET is_auditor = true WHERE name = 'iris'")
    site.api.stop_schedules()


@pytest.fixture
def admin(site: Site) -> Visitor:
    return site.as_("admin")


def submit(site: Site, action: str, **more: Any) -> str:
    made: str = site.api.admin.post("/api/v0/jobs", {"action": action, **more}).expect(202).json["id"]
    return made


def has(site: Site, job: str, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (found := site.api.admin.get(f"/api/v0/jobs/{job}").expect(200).json)["status"] not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return dict(found)


def ended(site: Site, action: str, **more: Any) -> str:
    job = submit(site, action, **more)
    has(site, job, "done", "errored", "canceled")
    return job


@contextlib.contextmanager
def running(site: Site) -> Iterator[str]:
    """A job that runs until the end of the block, and has written its first line."""
    job = submit(site, "sleep", parameters={"seconds": "600"})
    deadline = time.monotonic() + 60
    while not site.api.admin.get(f"/api/v0/jobs/{job}/logs").expect(200).json:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        yield job
    finally:
        site.api.admin.delete(f"/api/v0/jobs/{job}")


def say(site: Site, job: str, first: int, last: int, level: str = "info", text: str = "line {n}") -> None:
    """Lines of a job's log, as its worker writes them."""
    for number in range(first, last + 1):
        data = {"level": level, "msg": text.replace("{n}", str(number)), "time": "2026-01-01T10:00:00.000Z"}
        site.api.change(
            "INSERT INTO job_logs (job, line, data, level) VALUES (:job, :line, :data, :level)",
            job=job,
            line=number,
            data=json.dumps(data),
            level=level,
        )


def titles(shown: Shown) -> list[str]:
    return [one.get_text(" ").strip() for one in shown.all("#list td.lead a.name")]


# --- lists and rights -----------------------------------------------------------------------------------------


def test_jobs_are_filtered_by_the_address_and_paged(site: Site, admin: Visitor):
    done = ended(site, "sleep", parameters={"seconds": "0"})
    failed = ended(site, "false")
    later = submit(site, "sleep", scheduledAt="2100-01-01T00:00:00Z")
    shown = admin.get(JOBS).expect(200)
    links = shown.links
    assert {f"{JOBS}/{one}" for one in (done, failed, later)} <= links.keys()
    assert titles(admin.get(f"{JOBS}?state=errored")) == ["Fail"]
    assert titles(admin.get(f"{JOBS}?state=waiting")) == ["Sleep"]
    assert titles(admin.get(f"{JOBS}?running=true")) == []
    assert titles(admin.get(f"{JOBS}?action=false")) == ["Fail"]
    worker = has(site, done, "done")["workerID"]
    assert f"{JOBS}/{later}" not in admin.get(f"{JOBS}?worker={worker}").links
    assert f"{JOBS}/{done}" in admin.get(f"{JOBS}?state=nonsense").expect(200).links
    empty = admin.get(f"{JOBS}?state=canceled").expect(200)
    assert "No job is like that" in empty.text
    assert JOBS in empty.links
    for _ in range(25):
        submit(site, "sleep", scheduledAt="2100-01-01T00:00:00Z")
    first = admin.get(f"{JOBS}?state=waiting").expect(200)
    second = admin.get(str(first.one("a[rel=next]")["href"])).expect(200)
    assert (len(titles(first)), len(titles(second))) == (25, 1)
    assert "26 jobs" in first.text
    assert admin.get(f"{JOBS}?start=nonsense").status == 400


def test_how_long_jobs_are_kept_is_told(site: Site, admin: Visitor):
    assert "Jobs that ended are kept, but for those" in admin.get(JOBS).text
    change = {"jobHistoryCompactionEnabled": True, "jobHistoryToKeep": 500, "jobHistoryMaxAge": "48h"}
    site.api.admin.post("/api/v0/meta/settings", change).expect(202)
    assert "Jobs older than 2 days are deleted, and all but the newest 500." in admin.get(JOBS).text
    site.api.admin.post("/api/v0/meta/settings", {"jobHistoryCompactionEnabled": False}).expect(202)


def test_every_page_tells_who_sees_the_system_that_jobs_run(site: Site, admin: Visitor):
    def told(visitor: Visitor) -> str:
        badges = visitor.get("/repositories").expect(200).all(f"nav a[href='{JOBS}'] .badge")
        return badges[0].get_text(" ", strip=True) if badges else ""

    def becomes(visitor: Visitor, text: str) -> None:
        deadline = time.monotonic() + 60
        while (found := told(visitor)) != text:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    becomes(admin, "")
    with running(site):
        becomes(admin, "1 1 is running")
        assert told(site.as_("iris")) == "1 1 is running"
        assert told(site.as_("paul")) == ""
        with running(site):
            becomes(admin, "2 2 are running")
    becomes(admin, "")


def test_auditors_look_and_others_do_not(site: Site):
    failed = ended(site, "false")
    iris, paul = site.as_("iris"), site.as_("paul")
    pages = [
        JOBS,
        f"{JOBS}/{failed}",
        CRONS,
        f"{CRONS}/tag_prune",
        "/system/settings/actions",
        "/system/settings/workers",
    ]
    for path in pages:
        shown = iris.get(path).expect(200)
        assert not shown.has("main form[method=post], main a.btn.primary, main a.danger"), path
        assert not [one for one in shown.links if one.endswith(("/new", "/cancel", "/delete"))], path
        assert paul.get(path).title == "Nothing here, or not for you"
        assert site.as_(None).get(path).title == "Log in"
    for path in (f"{JOBS}/new", f"{CRONS}/new", f"{JOBS}/{failed}/cancel", "/system/settings/actions/fsck"):
        assert iris.get(path).status == 403
    for path in (f"{JOBS}/{failed}/retry", f"{JOBS}/{failed}/delete", f"{JOBS}/new", f"{CRONS}/tag_prune/delete"):
        assert iris.post(path, {"action": "false"}).status == 403
        assert paul.post(path, {"action": "false"}).status == 403


# --- a job ----------------------------------------------------------------------------------------------------


def test_a_job_is_started_with_its_parameters(site: Site, admin: Visitor):
    choice = admin.get(f"{JOBS}/new").expect(200)
    assert f"{JOBS}/new?action=onlinegc" in choice.links
    assert f"{JOBS}/new?action=webhook" not in choice.links
    form = admin.get(f"{JOBS}/new?action=onlinegc").expect(200)
    sent = admin.submit(
        form, "main form", **{"p-grace": "24h", "p-dryRun": "true", "deadline": "10m", "retries": "2"}
    )
    assert sent.title == "Garbage collection"
    job = has(site, sent.url.rpartition("/")[2], "done")
    assert job["parameters"] == {"grace": "24h", "dryRun": "true"}
    assert (job["deadline"], job["retriesTotal"], job["causedBy"]) == ("10m", 2, "admin")
    shown = admin.get(f"{JOBS}/{job['id']}").expect(200)
    assert "this is a dry run: nothing is deleted" in shown.one("#log").get_text()
    assert "by admin" in shown.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deadline", "soon"),
        ("stopTimeout", "1d"),
        ("scheduledAt", "tomorrow"),
        ("retries", "-1"),
        ("retries", "101"),
        ("capacityMap", "scan"),
        ("capacityMap", "scan=-1"),
    ],
)
def test_a_refused_form_keeps_what_was_typed_and_names_the_field(admin: Visitor, field: str, value: str):
    form = admin.get(f"{JOBS}/new?action=sleep")
    shown = admin.submit(form, "main form", **{"p-seconds": "5", field: value}).expect(422)
    assert list(shown.problems) == [field]
    assert shown.one(f"#f-{field}")["value"] == value
    assert shown.one("#f-p-seconds")["value"] == "5"
    assert shown.has("[data-error-summary]")


def test_a_job_is_stopped_tried_again_and_deleted(site: Site, admin: Visitor):
    with running(site) as job:
        shown = admin.get(f"{JOBS}/{job}").expect(200)
        question = admin.get(f"{JOBS}/{job}/cancel").expect(200)
        assert (question.title, shown.title) == ("Stop Sleep?", "Sleep")
        admin.submit(question, "#confirm form").expect(200)
        has(site, job, "canceled")
        shown = admin.get(f"{JOBS}/{job}").expect(200)
        assert "Stopped" in shown.one("#job-state").get_text()
        again = admin.submit(shown, f'form[action="{JOBS}/{job}/retry"]').expect(200)
        second = again.url.rpartition("/")[2]
        assert second != job
        assert "It is tried again: this is the new job." in again.text
        assert {f"{JOBS}/{job}"} <= admin.get(f"{JOBS}/{second}").links.keys()
        refused = admin.post(f"{JOBS}/{second}/retry").expect(200)
        assert "The job did not end yet." in refused.text
        question = admin.get(f"{JOBS}/{second}/delete").expect(200)
        assert "It is stopped first." in question.text
        assert admin.submit(question, "#confirm form").title == "Jobs"
        assert admin.get(f"{JOBS}/{second}").status == 404


def test_a_list_has_one_form_with_which_any_job_is_tried_again(site: Site, admin: Visitor):
    failed = [ended(site, "false") for _ in range(2)]
    shown = admin.get(f"{JOBS}?state=errored").expect(200)
    buttons = shown.all("#list form button[name=job]")
    assert set(failed) <= {str(one["value"]) for one in buttons}
    assert len(shown.all("#list form")) == 1
    again = admin.submit(shown, "#list form", job=failed[1])
    assert "It is tried again: this is the new job." in again.text
    assert f"{JOBS}/{failed[1]}" in again.links
    assert not admin.get(f"{JOBS}?state=done").has("#list form")
    assert admin.post(f"{JOBS}/retry").expect(200).title == "Jobs"
    assert admin.post(f"{JOBS}/retry", {"job": "none"}).status == 404
    assert site.as_("iris").post(f"{JOBS}/retry", {"job": failed[0]}).status == 403


def test_what_is_foreign_in_a_job_is_shown_as_text(site: Site, admin: Visitor):
    job = ended(site, "storage_migrate", parameters={"to": HOSTILE})
    shown = admin.get(f"{JOBS}/{job}").expect(200)
    assert HOSTILE in shown.one("dl.kv").get_text()
    assert "there is no storage called" in shown.one("#log li.error .tx").get_text()
    assert not shown.has("main script")
    assert b"<script>alert" not in shown.answer.body


# --- its log --------------------------------------------------------------------------------------------------


def test_a_log_is_cut_at_its_beginning_filtered_and_downloaded(site: Site, admin: Visitor):
    with running(site) as job:
        say(site, job, 1, 120)
        say(site, job, 121, 121, "warning", "careful")
        say(site, job, 122, 122, "error", HOSTILE)
        shown = admin.get(f"{JOBS}/{job}").expect(200)
        lines = shown.all("#log li")
        assert len(lines) == 100
        assert lines[-1].select_one(".tx").get_text() == HOSTILE  # type: ignore[union-attr]
        assert f"{JOBS}/{job}?lines=500" in shown.links
        assert len(admin.get(f"{JOBS}/{job}?lines=500").all("#log li")) == 123
        serious = admin.get(f"{JOBS}/{job}?level=warning")
        assert [one.get_text() for one in serious.all("#log .ln")] == ["122", "123"]
        assert [one.get_text() for one in admin.get(f"{JOBS}/{job}?level=error").all("#log .ln")] == ["123"]
        answer = admin.get(f"{JOBS}/{job}/log.txt").expect(200).answer
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.body.decode().splitlines()
        assert len(text) == 123
        assert text[1] == "2026-01-01T10:00:00.000Z info line 1"


class Stream:
    """The messages of a log, as a browser reads them."""

    def __init__(self, visitor: Visitor, path: str, last: int | None = None) -> None:
        self.connection = visitor.client.connect()
        headers = {
            "Host": visitor.server.address,
            "Accept": "text/html, text/event-stream",
            "Cookie": "; ".join(f"{name}={value}" for name, value in visitor.cookies.items()),
            "HX-Request": "true",
        }
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self.connection.request("GET", path, headers=headers)
        self.answer: HTTPResponse = self.connection.getresponse()

    def message(self) -> dict[str, str]:
        """The next one: its id, event and data. Comments are left out."""
        found: dict[str, list[str]] = {}
        while True:
            line = self.answer.readline().decode()
            assert line, "the stream is over"
            if line == "\n":
                if found:
                    return {name: "\n".join(values) for name, values in found.items()}
                continue
            name, _, value = line.rstrip("\n").partition(":")
            if name:
                found.setdefault(name, []).append(value.removeprefix(" "))

    def numbers(self, until: int) -> list[int]:
        """The numbers of lines that come, up to one."""
        found: list[int] = []
        while not found or found[-1] < until:
            data = self.message().get("data", "")
            found += [int(one.partition("<")[0]) for one in data.split('class="ln">')[1:]]
        return found

    def close(self) -> None:
        self.connection.close()


def test_a_log_goes_on_after_a_dropped_connection_without_gap_or_double(site: Site, admin: Visitor):
    with running(site) as job:
        shown = admin.get(f"{JOBS}/{job}").expect(200)
        address = str(shown.one("#log")["hx-sse:connect"])
        with contextlib.closing(Stream(admin, address)) as stream:
            assert stream.answer.status == 200
            assert stream.answer.headers["content-type"].startswith("text/event-stream")
            say(site, job, 1, 3)
            assert stream.numbers(4) == [2, 3, 4]
        say(site, job, 4, 6)  # nobody reads
        with contextlib.closing(Stream(admin, address, last=3)) as stream:
            assert stream.numbers(7) == [5, 6, 7]
            say(site, job, 7, 7, text="two\r\nlines\rand <b>three</b>")
            while (message := stream.message())["id"] != "7":
                assert message["id"] == "6"  # how far the job is, once a second
            assert "two\nlines\nand &lt;b&gt;three&lt;/b&gt;" in message["data"]


def test_a_stream_tells_how_it_is_with_the_job_and_ends_with_it(site: Site, admin: Visitor):
    with running(site) as job, contextlib.closing(Stream(admin, f"{JOBS}/{job}/log?after=0")) as stream:
        state = stream.message()["data"]
        assert 'id="job-state" hx-swap-oob="outerMorph"' in state
        assert "Running" in state
        site.api.admin.post(f"/api/v0/jobs/{job}/cancel").expect(204)
        messages = []
        while (message := stream.message()).get("event") != "end":
            messages.append(message)
        assert "Stopped" in messages[-1]["data"]
        assert "data-live" not in messages[-1]["data"]
        assert stream.answer.read() == b""


def test_a_stream_ends_with_a_job_that_is_deleted(site: Site, admin: Visitor):
    with running(site) as job, contextlib.closing(Stream(admin, f"{JOBS}/{job}/log")) as stream:
        stream.message()
        site.api.admin.delete(f"/api/v0/jobs/{job}").expect(204)
        while stream.message().get("event") != "end":
            pass
        assert admin.get(f"{JOBS}/{job}/log").status == 404


def test_who_has_no_session_any_more_is_led_to_the_log_in(site: Site):
    visitor = site.as_("admin")
    with running(site) as job:
        site.api.admin.delete("/api/v0/sessions", username="admin").expect(200)
        with contextlib.closing(Stream(visitor, f"{JOBS}/{job}/log")) as stream:
            assert stream.answer.status == 204
            assert stream.answer.headers["hx-redirect"].startswith("/login?")


def test_when_too_many_follow_logs_the_next_ones_ask_again_and_again(site: Site, admin: Visitor):
    # One that waits: how far one is that runs would be told to all of them each second.
    job = submit(site, "sleep", scheduledAt="2100-01-01T00:00:00Z")
    say(site, job, 0, 0)
    with contextlib.ExitStack() as open_:
        address = f"{JOBS}/{job}/log?after=-1"
        for _ in range(200):
            stream = open_.enter_context(contextlib.closing(Stream(admin, address)))
            assert stream.answer.headers["content-type"].startswith("text/event-stream")
        late = open_.enter_context(contextlib.closing(Stream(admin, address))).answer
        assert late.headers["content-type"].startswith("text/html")
        part = late.read().decode()
        assert 'class="ln">1<' in part
        assert f'hx-get="{JOBS}/{job}/log?after=0&amp;level=info&amp;poll=1" hx-trigger="load delay:3s"' in part
        shown = admin.get(f"{JOBS}/{job}").expect(200)
        assert not shown.one("#log").has_attr("hx-sse:connect")
        assert shown.one("#log-poll")["hx-get"] == f"{JOBS}/{job}/log?after=0&level=info&poll=1"
        say(site, job, 1, 2)
        more = admin.get(str(shown.one("#log-poll")["hx-get"])).expect(200)
        assert [one.get_text() for one in more.all(".ln")] == ["2", "3"]
        site.api.admin.post(f"/api/v0/jobs/{job}/cancel").expect(204)
        has(site, job, "canceled")
        last = admin.get(f"{JOBS}/{job}/log?after=9").expect(200)
        assert not last.one("#log-poll").has_attr("hx-get")


# --- schedules, defaults, workers -----------------------------------------------------------------------------


def test_a_schedule_is_added_told_in_words_changed_and_removed(site: Site, admin: Visitor):
    choice = admin.get(f"{CRONS}/new").expect(200)
    assert f"{CRONS}/new?action=tag_prune" not in choice.links  # it has one
    form = admin.get(f"{CRONS}/new?action=onlinegc").expect(200)
    refused = admin.submit(form, "main form", schedule="0 0 1 * *", **{"p-grace": "24h"}).expect(422)
    assert refused.problems["schedule"].startswith("Has six fields")
    assert refused.one("#f-p-grace")["value"] == "24h"
    assert admin.submit(form, "main form", schedule="").expect(422).problems.keys() == {"schedule"}
    assert admin.submit(form, "main form", schedule="0 0 0 31 2 *").expect(422).problems.keys() == {"schedule"}
    shown = admin.submit(refused, "main form", schedule="0 30 1 * * 6", deadline="2h").expect(200)
    assert "Every week on Saturday at 01:30 UTC" in shown.text
    form = admin.get(f"{CRONS}/onlinegc").expect(200)
    assert (form.one("#f-deadline")["value"], form.one("#f-p-grace")["value"]) == ("2h", "24h")
    shown = admin.submit(form, "main form", schedule="@daily").expect(200)
    assert "Every day at 00:00 UTC" in shown.text
    cron = site.api.admin.get("/api/v0/crons/onlinegc").expect(200).json
    assert (cron["schedule"], cron["deadline"], cron["parameters"]) == ("@daily", "2h", {"grace": "24h"})
    question = admin.get(f"{CRONS}/onlinegc/delete").expect(200)
    assert "Every day at 00:00 UTC (@daily)" in question.text
    shown = admin.submit(question, "#confirm form").expect(200)
    assert f"{CRONS}/onlinegc" not in shown.links
    site.api.admin.get("/api/v0/crons/onlinegc").expect(404)


def test_defaults_of_an_action_are_set_and_taken_back(site: Site, admin: Visitor):
    form = admin.get("/system/settings/actions/fsck").expect(200)
    shown = admin.submit(form, "#defaults", **{"p-rate": "1000", "p-content": "true"}).expect(200)
    assert "Bytes a second: 1000" in shown.text
    config = "/api/v0/action_configs/fsck"
    assert site.api.admin.get(config).expect(200).json["parameters"] == {"rate": "1000", "content": "true"}
    form = admin.get("/system/settings/actions/fsck").expect(200)
    shown = admin.submit(form, 'form[action$="/reset"]').expect(200)
    site.api.admin.get(config).expect(404)
    admin.submit(shown, "#toasts form", button="Undo").expect(200)
    assert site.api.admin.get(config).expect(200).json["parameters"] == {"rate": "1000", "content": "true"}
    site.api.admin.delete(config).expect(204)


def test_a_worker_tells_its_load_and_gets_a_capacity(site: Site, admin: Visitor):
    with running(site):
        shown = admin.get("/system/settings/workers").expect(200)
        assert "1 of 16 places" in shown.text
        (address,) = [one for one in shown.links if one.startswith("/system/settings/workers/")]
        form = admin.get(address).expect(200)
        refused = admin.submit(form, "main form", capacityMap="scan=much").expect(422)
        assert refused.problems.keys() == {"capacityMap"}
        shown = admin.submit(form, "main form", capacityMap="scan=2, gc=1").expect(200)
        assert "0 of 2" in shown.text
        assert admin.get(address).one("#f-capacityMap")["value"] == "gc=1, scan=2"
        assert admin.get("/system/settings/workers/nobody").status == 404


def test_pages_are_small_and_tell_everything_in_japanese(admin: Visitor):
    for path in (JOBS, f"{JOBS}/new", CRONS, "/system/settings/actions", "/system/settings/workers"):
        shown = admin.get(path, {"Accept-Language": "ja"}).expect(200)
        assert len(shown.answer.body) < 50_000
        assert shown.soup.html is not None
        assert shown.soup.html["lang"] == "ja"
        assert shown.title not in {"Jobs", "Start a job", "Schedules", "Defaults", "Workers"}


def test_a_server_that_ends_does_not_wait_for_those_who_follow_logs(site: Site, admin: Visitor):
    """The last one: nothing is served after it."""
    job = submit(site, "sleep", parameters={"seconds": "600"})
    with contextlib.closing(Stream(admin, f"{JOBS}/{job}/log")) as stream:
        stream.message()
        began = time.monotonic()
        assert site.server.process is not None
        site.server.process.terminate()
        assert b"event: end" not in stream.answer.read()  # the browser asks the next server
        assert time.monotonic() - began < 45  # by itself, it would be over after a minute
        site.server.process.wait(60)
