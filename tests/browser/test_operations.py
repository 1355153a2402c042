"""Jobs watched live, events, sessions and the API in a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from typing import Any

from playwright.sync_api import expect
from tests.support.site import NARROW, Site
from tests.support.wire import wait_until

JOBS = "/system/settings/jobs"


def start(site: Site) -> str:
    """A job that runs, and has written its first line."""
    admin = site.api.admin
    job: str = admin.post("/api/v0/jobs", {"action": "sleep", "parameters": {"seconds": "600"}}).json["id"]
    deadline = time.monotonic() + 60
    while not admin.get(f"/api/v0/jobs/{job}/logs").expect(200).json:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return job


def say(site: Site, job: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        data = json.dumps({"level": "info", "msg": f"line {number}", "time": "2026-01-01T10:00:00.000Z"})
        site.api.change("INSERT INTO job_logs (job, line, data) VALUES (:j, :n, :d)", j=job, n=number, d=data)


class Way:
    """A port that leads to the server, and can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._is_cut = False
        self._changing = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._changing:
                    if self._is_cut:
                        client.close()
                        continue
                    server = socket.create_connection(("127.0.0.1", self._to))
                    self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                other.sendall(piece)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        with self._changing:
            self._is_cut = True
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self._listener.close()
        self.cut()


def numbers(page: Any) -> list[str]:
    found: list[str] = page.locator("#log .ln").all_text_contents()
    return found


def test_a_job_is_watched_live_over_a_dropped_connection_to_its_end(site: Site):
    job = start(site)
    with contextlib.closing(Way(site.server.port)) as way, site.tab("admin") as tab:
        tab.origin = f"https://localhost:{way.port}"
        tab.expected = (f"localhost:{way.port}",)  # what the console says of the cut
        page = tab.open(f"{JOBS}/{job}")
        expect(page.locator("#log li")).to_have_count(1)
        say(site, job, 1, 40)
        expect(page.locator("#log li")).to_have_count(41)
        at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 30"
        wait_until(lambda: page.locator("#log").evaluate(at_end))
        expect(page.get_by_label("of 600 seconds")).to_be_visible()
        expect(page.locator("[data-live]")).to_be_visible()

        page.locator("#log").evaluate("log => { log.scrollTop = 0; }")  # the reader looks back
        way.cut()
        say(site, job, 41, 44)
        expect(page.locator("[data-lost]")).to_be_visible()
        expect(page.locator("[data-live]")).to_be_hidden()
        way.mend()
        expect(page.locator("#log li")).to_have_count(45)
        assert numbers(page) == [str(number) for number in range(1, 46)]
        assert page.locator("#log").evaluate("log => log.scrollTop") == 0
        expect(page.locator("[data-live]")).to_be_visible()

        page.get_by_role("link", name="Stop…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Stop Sleep?")
        expect(dialog.get_by_role("link", name="Keep it")).to_be_focused()
        dialog.get_by_role("button", name="Stop the job").click()
        expect(page.locator("#job-state .badge").first).to_have_text("Stopped")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        expect(page.locator("#log-live .badge")).to_have_count(0)
        tab.check()


def test_who_watches_a_log_or_clicks_after_the_session_ended_logs_in_and_is_back(site: Site):
    site.api.make_users("opal")
    site.api.change("UPDATE accounts SET is_admin = true WHERE name = 'opal'")
    job = start(site)
    with contextlib.closing(Way(site.server.port)) as way, site.tab("opal") as tab:
        tab.origin = f"https://localhost:{way.port}"
        tab.expected = (f"localhost:{way.port}",)
        page = tab.open(f"{JOBS}/{job}")
        expect(page.locator("[data-live]")).to_be_visible()
        site.api.admin.delete("/api/v0/sessions", username="opal").expect(200)
        way.cut()  # the browser asks for the log again, as it does each minute
        way.mend()
        for click in (False, True):
            if click:
                site.api.admin.delete("/api/v0/sessions", username="opal").expect(200)
                page.get_by_role("link", name="Stop…").click()
            page.wait_for_url("**/login?**")
            expect(page.get_by_text("Your session is over.")).to_be_visible()
            page.get_by_label("User name").fill("opal")
            page.get_by_label("Password").fill(site.api.as_("opal").client.password)
            page.get_by_role("button", name="Log in").click()
            page.wait_for_url(f"**{JOBS}/{job}")
            expect(page.get_by_role("heading", level=1)).to_have_text("Sleep")
    site.api.admin.delete(f"/api/v0/jobs/{job}").expect(204)


def test_without_script_a_job_is_started_watched_and_stopped(site: Site):
    with site.tab("admin", script=False, size=NARROW, theme="dark") as tab:
        tab.expected = ("422",)
        page = tab.open(JOBS)
        page.get_by_role("link", name="Start a job").click()
        page.get_by_role("link", name="Sleep").click()
        page.get_by_label("Seconds").fill("600")
        page.get_by_text("Retries and limits").click()
        page.get_by_label("Stop it after").fill("never")
        page.get_by_role("button", name="Start the job").click()
        assert page.get_by_role("alert").inner_text().startswith("The job was not started.")
        assert page.get_by_label("Seconds").input_value() == "600"
        page.get_by_label("Stop it after").fill("1h")
        page.get_by_role("button", name="Start the job").click()
        page.wait_for_selector("#log")
        deadline = time.monotonic() + 60
        while not page.get_by_text("sleeps for 600 seconds").count():
            assert time.monotonic() < deadline
            time.sleep(0.3)
            page.get_by_role("link", name="Reload").click()
        page.get_by_role("link", name="Stop…").click()
        page.get_by_role("button", name="Stop the job").click()
        page.wait_for_url(f"**{JOBS}/*")
        assert page.get_by_role("heading", level=1).inner_text() == "Sleep"


def test_lists_are_filtered_while_one_types_over_a_slow_network(site: Site):
    with site.tab("admin") as tab:
        page = tab.open("/system/settings/events")
        page.route("**/system/settings/events?**", lambda route: (time.sleep(0.4), route.continue_()))
        page.get_by_label("Name of who did it").press_sequentially("nobody-here", delay=20)
        expect(page.get_by_role("heading", name="Nothing like that happened")).to_be_visible()
        expect(page.get_by_label("Name of who did it")).to_be_focused()
        expect(page).to_have_url(re.compile(r"\bactor=nobody-here\b"))
        tab.check()


def test_pages_are_usable_on_a_phone_in_the_dark_and_in_japanese(site: Site):
    job = start(site)
    paths = [
        JOBS,
        f"{JOBS}/new?action=fsck",
        f"{JOBS}/{job}",
        "/system/settings/crons/tag_prune",
        "/system/settings/events",
        "/docs/api/jobs/listJobs",
    ]
    with site.tab("admin", size=NARROW, theme="dark", language="ja") as tab:
        for path in paths:
            tab.open(path)
            tab.check()
    site.api.admin.delete(f"/api/v0/jobs/{job}").expect(204)


def test_an_operation_of_the_api_is_called_from_its_page(site: Site):
    with site.tab("admin") as tab:
        page = tab.open("/docs/api")
        page.get_by_role("searchbox", name="Find an operation").fill("list workers")
        page.get_by_role("link", name="List workers").click()
        page.get_by_role("button", name="Send the request").click()
        expect(page.locator("#answer .badge").nth(1)).to_have_text("200")
        expect(page.locator("#answer pre")).to_contain_text('"workers"')
        page.get_by_label("As whom").select_option("nobody")
        page.get_by_role("button", name="Send the request").click()
        expect(page.locator("#answer pre")).to_contain_text("NOT_AUTHENTICATED")
        tab.check()
