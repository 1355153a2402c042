"""The quick start: `make run`, and then what it prints, word for word."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from tests.support.engine import expected_greeting
from tests.support.ports import free_port
from tests.support.tools import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from tests.support.engine import Docker

PROJECT = Path(__file__).parents[2]


class MakeRun:
    """`make run` on a data directory that does not exist yet, as somebody types it into a terminal."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.said = ""
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        self.said = ""
        self._ready.clear()
        # Not as a part of the make that runs the tests, and with no settings of theirs.
        foreign = ("DTR_", "MAKE", "MFLAGS")
        self._process = subprocess.Popen(
            ["make", "run", f"ADDRESS=127.0.0.1:{self.port}", f"DATA={self.data}"],
            cwd=PROJECT,
            env={name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        reader.start()
        assert self._ready.wait(300), self.said
        assert "dtr is ready" in self.said, self.said
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said += line
            if "/ca" in line:  # the last line
                self._ready.set()
        self._ready.set()
        process.stdout.close()

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait(60)

    @property
    def commands(self) -> list[str]:
        """The commands that it says to try."""
        return re.findall(r"^ {4}((?:docker|\S*dtr) .*)$", self.said, re.MULTILINE)

    @property
    def password(self) -> str | None:
        match = re.search(r"^ {4}password +(\S+)$", self.said, re.MULTILINE)
        return match[1] if match else None


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """A running `make run`."""
    quick_start = MakeRun(tmp_path / "data")
    try:
        yield quick_start.start()
    finally:
        quick_start.stop()


def type_password(command: str, password: str, environment: dict[str, str]) -> str:
    """Run a command on a terminal, and type the password when it is asked for; what stood on the terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", command], env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    shown, typed, deadline = b"", False, time.monotonic() + 60
    has_news = select.poll()  # not select, which knows no more than a thousand descriptors
    has_news.register(ours, select.POLLIN)
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        while has_news.poll(1000 * max(deadline - time.monotonic(), 0)):
            try:
                shown += terminal.read(4096)
            except OSError:  # how a terminal ends
                break
            if not typed and b"password:" in shown.lower():
                terminal.write(password.encode() + b"\n")
                typed = True
    text = shown.decode(errors="replace")
    assert process.wait(60) == 0, text
    return text


def follow(make_run: MakeRun, docker: Docker) -> None:
    """Do what it says, with a local image for `hello-world`."""
    environment = {
        **os.environ,
        **docker.environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log_in, *others = [one for one in make_run.commands if one.startswith("docker ")]
    (create,) = [one for one in make_run.commands if not one.startswith("docker ")]
    run("bash", "-c", create, environment=environment, directory=PROJECT)
    assert make_run.password is not None
    assert "Login Succeeded" in type_password(log_in, make_run.password, environment)
    for command in others:
        if command.startswith("docker pull"):
            docker.forget(command.split()[-1], "hello-world")
        run("bash", "-c", command, environment=environment)


def test_what_make_run_prints_works_word_for_word(make_run: MakeRun, docker: Docker) -> None:
    built = docker.build("hello-world")

    follow(make_run, docker)

    image = f"localhost:{make_run.port}/admin/hello"
    assert docker.id(image) == built
    assert docker.greeting(image) == expected_greeting()


def test_an_image_is_still_there_after_a_restart(make_run: MakeRun, docker: Docker) -> None:
    built = docker.build("hello-world")
    follow(make_run, docker)
    image = f"localhost:{make_run.port}/admin/hello"
    docker.forget(image)
    make_run.stop()

    make_run.start()

    assert make_run.password is None
    docker("pull", image)
    assert docker.id(image) == built


def test_the_authority_that_make_run_made_is_served(make_run: MakeRun, tmp_path: Path) -> None:
    address = f"https://localhost:{make_run.port}"
    authority = tmp_path / "ca.pem"
    run("curl", "--silent", "--show-error", "--fail", "--insecure", "--output", authority, f"{address}/ca")
    run("curl", "--silent", "--show-error", "--fail", "--cacert", authority, f"{address}/health")


def test_the_page_that_make_run_names_leads_to_the_first_pull(
    make_run: MakeRun, docker: Docker, chromium: Browser
) -> None:
    """By clicking and by copying what the page says, from the log-in on."""
    built = docker.build("my-app")
    assert make_run.password is not None
    page = chromium.new_page(ignore_https_errors=True)
    page.set_default_timeout(30_000)
    page.goto(f"https://localhost:{make_run.port}/")
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(make_run.password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="New repository").first.click()
    page.get_by_label("Name", exact=True).fill("my-app")
    page.get_by_role("button", name="Create repository").click()
    page.wait_for_url("**/admin/my-app/**")
    page.goto(f"https://localhost:{make_run.port}/welcome")
    commands = [str(one.get_attribute("data-copy")) for one in page.locator("[data-copy]").all()]

    log_in, *others = [one for one in commands if one.startswith("docker ")]
    environment = {**os.environ, **docker.environment}
    assert "Login Succeeded" in type_password(log_in, make_run.password, environment)
    for command in others:
        if command.startswith("docker pull"):
            docker.forget(command.split()[-1], "my-app")
        run("bash", "-c", command, environment=environment)

    assert docker.id(f"localhost:{make_run.port}/admin/my-app:latest") == built
    page.goto(f"https://localhost:{make_run.port}/repositories/admin/my-app/tags")
    assert page.get_by_role("link", name="latest").is_visible()
    page.close()
