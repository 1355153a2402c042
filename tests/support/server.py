"""A real dtr in processes of its own, on loopback."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.support import stopping
from tests.support.forks import Fork, run_dtr
from tests.support.grants import grant_team
from tests.support.ports import free_port

from dtr.app import Application
from dtr.config import load

T = TypeVar("T")

PASSWORD = "admin-password"
"""Of the user `admin`, and by default of every user that tests make."""
DTR = str(Path(sys.executable).with_name("dtr"))


@cache
def _tables() -> Path:
    """An SQLite database with current tables, and nothing in them."""
    directory = tempfile.mkdtemp(prefix="dtr-tables-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    environment = {**clean_environment(), "DTR_DATA_DIR": directory}
    run_dtr(["migrate"], environment)
    return Path(directory) / "metadata.db"


class Closable(Protocol):
    def close(self) -> None: ...


class Server:
    """
    ``dtr serve`` over a data directory.

    `settings` are given as environment, by their dotted names: ``{"registry.manifest_limit": 2000}``. The
    addresses stay the same when it is started again.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        workers: int = 1,
        makes_tables: bool = False,
        is_forked: bool = True,
    ) -> None:
        """
        It finds its tables when it first starts, unless it `makes_tables` itself, which takes a while.

        `is_forked`: from a process that has imported everything (`tests.support.forks`).
        """
        self.directory = directory
        self._makes_tables = makes_tables
        self._is_forked = is_forked
        self.port = free_port()
        self.http_port = free_port()
        self.log_file = directory.with_name(f"{directory.name}.log")
        self.environment = {
            "DTR_ADMIN_PASSWORD": PASSWORD,
            "DTR_AUTH__HASH_MEMORY_KIB": "64",
            "DTR_AUTH__HASH_PASSES": "1",
            "DTR_DATA_DIR": str(directory),
            "DTR_HTTPS_ADDRESS": f"127.0.0.1:{self.port}",
            "DTR_HTTP_ADDRESS": f"127.0.0.1:{self.http_port}",
            "DTR_WORKERS": str(workers),
            **{f"DTR_{name.upper().replace('.', '__')}": str(value) for name, value in (settings or {}).items()},
        }
        self.process: subprocess.Popen[str] | Fork | None = None
        self._printed: list[str] = []
        self.clients: list[Closable] = []
        """What talks to it, closed with it."""

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def greeting(self) -> str:
        """What it printed since it was started last."""
        return "".join(self._printed)

    @property
    def ca(self) -> Path:
        return self.directory / "tls" / "ca.pem"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(one) for one in children.split()]

    def worker_of(self, client_port: int) -> int:
        """The worker that has the connection from this loopback port, with TLS."""
        ends = [f"0100007F:{self.port:04X}", f"0100007F:{client_port:04X}"]
        deadline = time.monotonic() + 60
        while True:
            # It may be still to be accepted; and while others come and go, the list of the kernel may lack some.
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            sockets = {f"socket:[{line[9]}]" for line in lines if line[1:3] == ends}
            for worker in self.worker_pids:
                with contextlib.suppress(OSError):
                    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
                        with contextlib.suppress(OSError):
                            if os.readlink(descriptor) in sockets:  # noqa: PTH115 - a name, not a path
                                return worker
            assert time.monotonic() < deadline, "no worker has the connection"
            time.sleep(0.005)

    def start(
        self, *, prefix: tuple[str, ...] = (), options: tuple[str, ...] = (), seconds: float = 120
    ) -> Server:
        """
        Start it and wait until it serves.

        `prefix` runs the program through another one (``ip netns exec``).
        """
        if not (self._makes_tables or self.directory.exists() or "DTR_DATABASE__URL" in self.environment):
            self.directory.mkdir(mode=0o700)
            shutil.copyfile(_tables(), self.directory / "metadata.db")
        environment = {**clean_environment(), **self.environment}
        with self.log_file.open("a") as log, Path(os.devnull).open() as nothing:
            if self._is_forked and not prefix:
                self.process = Fork(
                    ["serve", *options], environment, stdin=nothing, stdout=subprocess.PIPE, stderr=log
                )
            else:
                self.process = subprocess.Popen(
                    [*prefix, DTR, "serve", *options],
                    env=environment,
                    stdin=nothing,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    cwd="/",
                )
        lines = self._printed = []
        ready = threading.Event()
        process = self.process

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if line.startswith("    docker pull "):  # the greeting is as good as whole
                    ready.set()
            ready.set()
            process.stdout.close()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(seconds) or not any(line.startswith("dtr is ready") for line in lines):
            self.kill()
            raise AssertionError(f"dtr did not start:\n{''.join(lines)}\n{self.log}")
        return self

    def stop(self, *, seconds: float = 120) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def close(self) -> None:
        """The end: clients are closed, processes killed."""
        for client in self.clients:
            client.close()
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all processes at once, as when the machine fails."""
        if self.process is None or self.process.poll() is not None:
            return
        try:
            stopping.stop(self.process.pid)  # no new worker, and nobody notices the end of another
            victims = [self.process.pid, *self.worker_pids]
        except (FileNotFoundError, ProcessLookupError):  # it has just ended by itself
            self.process.wait(60)
            return
        for victim in victims[1:]:
            os.kill(victim, signal.SIGSTOP)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        self.process.wait(60)
        for victim in victims[1:]:
            wait_for_end(victim)

    def restart(self) -> Server:
        """Stop when it runs, and start again."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        return self.start()

    def requests_of(self, action: Callable[[], object]) -> list[dict[str, Any]]:
        """
        Do something, and give the lines of the log about its requests.

        Such lines may wait a moment: the server is restarted before, and stopped afterwards.
        """
        self.restart()
        before = len(self.log)
        action()
        self.stop()
        lines = [json.loads(line) for line in self.log[before:].splitlines()]
        return [line for line in lines if line["event"] == "request"]

    def cli(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run another ``dtr`` command with the same settings."""
        return run_dtr(arguments, {**clean_environment(), **self.environment}, stdin=stdin, check=check)

    def do(self, action: Callable[[Application], Awaitable[T]]) -> T:
        """Run `action` on the rooms, over the same database and storage, in this process."""
        settings = load(None, self.environment, {}).settings

        async def work() -> T:
            application = Application(settings)
            try:
                await application.backends.refresh()
                return await action(application)
            finally:
                await application.close()

        result: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(asyncio.run(work()))
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run)  # the caller's thread may run a loop already
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def make_user(self, name: str, password: str = PASSWORD, *, is_admin: bool = False) -> None:
        self.do(lambda application: application.accounts.create_user(name, password, is_admin=is_admin))

    def make_organization(self, name: str) -> None:
        self.do(lambda application: application.accounts.create_organization(name))

    def make_repository(self, path: str, **settings: Any) -> int:
        """Make a repository; `settings` are fields of `dtr.registry.Settings`."""
        from dtr.oci import parse_repository_name
        from dtr.registry import Settings

        return self.do(
            lambda application: application.repositories.create(parse_repository_name(path), Settings(**settings))
        )

    def grant(self, team: str, level: str, *, users: tuple[str, ...] = (), repository: str | None = None) -> None:
        """Give the team (``organization/team``, made when it is not there) a level; None: on the namespace."""
        from dtr.accounts import Level, NameTaken

        organization, _, name = team.partition("/")

        async def work(application: Application) -> None:
            with contextlib.suppress(NameTaken):
                await application.accounts.organizations.create_team(organization, name)
            for user in users:
                await application.accounts.organizations.put_team_member(organization, name, user)
            await grant_team(application.accounts, repository or organization, name, Level.of(level))

        self.do(work)


def wait_for_end(pid: int, seconds: float = 60) -> None:
    """Until a process holds no locks, files and sockets any more."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX" and threads <= 1:
            return
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.005)


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DTR_")}
