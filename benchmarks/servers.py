"""The registries that are compared: dtr as `dtr serve` starts it, and Debian's docker-registry, on loopback."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = "bench/app"
PASSWORD = "benchmark-password"
_TICKS = os.sysconf("SC_CLK_TCK")
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+)", re.MULTILINE)
_SHARE = re.compile(r"^Pss_Anon:\s+(\d+)", re.MULTILINE)
_READY_SECONDS = 30
_CONNECTIONS = 64
"""Of four processes that share an address, one is left out by all of them once in 10 million times."""
_LATE_SECONDS = 5
"""Before that, a server may not have begun what it does after its first answers."""


class Server:
    """A registry with a plain and a TLS address. Both may be served by several processes."""

    name = ""
    repository = REPOSITORY
    """What tokens are for."""

    def __init__(self, directory: Path) -> None:
        """Everything it keeps goes to `directory`."""
        self.directory = directory
        self.port = free_port()
        self.tls_port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._token = ""
        self._token_until = 0.0

    def commands(self) -> list[list[str]]:
        """The programs to start."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What they find in their environment."""
        return dict(os.environ)

    def start(self) -> float:
        """Start it; seconds until it answered the first request."""
        started = time.perf_counter()
        with (self.directory.with_suffix(".log")).open("ab") as log:
            self.processes = [
                subprocess.Popen(
                    command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
                )
                for command in self.commands()
            ]
        self._wait(f"http://127.0.0.1:{self.port}/v2/", started)
        seconds = time.perf_counter() - started
        self._wait(f"https://127.0.0.1:{self.tls_port}/v2/", started)
        return seconds

    def stop(self) -> None:
        """End it, and wait for that."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(60)
        self.processes = []

    @property
    def url(self) -> str:
        """The plain address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """The TLS address."""
        return f"https://127.0.0.1:{self.tls_port}"

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {}

    def forget_token(self) -> None:
        """Let the next request get a new one."""
        self._token_until = 0.0

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return sum(_cpu_seconds(one) for one in self._tree())

    def memory(self) -> list[float]:
        """Anonymous memory of each of its processes, in MiB, largest first; what several share is in each."""
        return sorted((_mib(one, "status", _ANONYMOUS) for one in self._tree()), reverse=True)

    def whole_memory(self) -> float:
        """Anonymous memory of all its processes, in MiB; what several share is in it once."""
        return sum(_mib(one, "smaps_rollup", _SHARE) for one in self._tree())

    def rest(self) -> None:
        """Wait, a minute at most, until it does nothing by itself: three seconds below 2 % of a processor."""
        time.sleep(_LATE_SECONDS)
        until = time.monotonic() + 60
        quiet, before = 0, self.cpu_seconds()
        while quiet < 3 and time.monotonic() < until:
            time.sleep(1)
            now = self.cpu_seconds()
            quiet = quiet + 1 if now - before < 0.02 else 0
            before = now

    def browse(self) -> None:
        """Ask each of its processes for what is for people and their programs, if it has that."""

    def _tree(self) -> list[int]:
        found = [process.pid for process in self.processes]
        for parent in found:
            for file in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(one) for one in file.read_text().split()]
        return found

    def _wait(self, url: str, started: float) -> None:
        while True:
            try:
                with urllib.request.urlopen(url, context=_trusting() if url.startswith("https") else None):
                    return
            except urllib.error.HTTPError as error:
                error.close()
                return  # it wants a token: it is there
            except OSError:
                if any(process.poll() is not None for process in self.processes):
                    raise SystemExit(f"{self.name} ended: {self.directory.with_suffix('.log')}") from None
                if time.perf_counter() - started > _READY_SECONDS:
                    raise SystemExit(f"{self.name} does not answer") from None
                time.sleep(0.005)


class Dtr(Server):
    """Ours, on its embedded default, with tokens and permissions."""

    name = "dtr"

    def __init__(self, directory: Path, *, workers: int | None = None, database: str | None = None) -> None:
        """`workers` and `database` as in the settings; by default dtr's own."""
        super().__init__(directory)
        self._workers = workers
        self._database = database
        self.more: dict[str, str] = {}

    def commands(self) -> list[list[str]]:
        """See `Server`."""
        return [[str(Path(sys.executable).with_name("dtr")), "serve"]]

    def environment(self) -> dict[str, str]:
        """See `Server`."""
        given = {
            "DTR_DATA_DIR": str(self.directory),
            "DTR_ADMIN_PASSWORD": PASSWORD,
            "DTR_HTTPS_ADDRESS": f"127.0.0.1:{self.tls_port}",
            "DTR_HTTP_ADDRESS": f"127.0.0.1:{self.port}",
            "DTR_HTTP_SERVES": "true",
            "DTR_REGISTRY__CREATE_ON_PUSH": "true",
            "DTR_REGISTRY__PAGE_SIZE": "10000",  # the peer gives all tags at once
            **({"DTR_WORKERS": str(self._workers)} if self._workers else {}),
            **({"DTR_DATABASE__URL": self._database} if self._database else {}),
            **self.more,
        }
        # An installed program has its bytecode, whatever holds for the one that measures.
        kept = (one for one in os.environ.items() if not one[0].startswith(("DTR_", "PYTHONDONTWRITE")))
        return {**dict(kept), **given}

    def prepare(self) -> None:
        """Make the repository; the data directory exists."""
        for arguments in (
            ["account", "create", "--organization", REPOSITORY.partition("/")[0]],
            ["repository", "create", REPOSITORY],
        ):
            subprocess.run([*self.commands()[0][:1], *arguments], env=self.environment(), check=True, cwd="/")

    def headers(self) -> dict[str, str]:
        """See `Server`; a new token in good time before the last one ends."""
        if time.time() > self._token_until:
            query = urlencode({"service": "dtr", "scope": f"repository:{self.repository}:pull,push,delete"})
            request = urllib.request.Request(
                f"{self.url}/auth/token?{query}", headers={"Authorization": f"Basic {self.basic}"}
            )
            with urllib.request.urlopen(request) as answer:
                self._token = json.load(answer)["token"]
            self._token_until = time.time() + 150
        return {"Authorization": f"Bearer {self._token}"}

    def browse(self) -> None:
        """See `Server`: the API, and a page. Nobody logs in: a password's hash would be in memory, too."""
        for path in ("/api/v0/repositories", "/login"):
            for _ in range(_CONNECTIONS):
                with urllib.request.urlopen(self.url + path) as answer:
                    answer.read()

    @property
    def basic(self) -> str:
        """Name and password as Basic authentication wants them."""
        return base64.b64encode(f"admin:{PASSWORD}".encode()).decode()


class DockerRegistry(Server):
    """The peer, without authentication; a second process of it serves TLS over the same storage."""

    name = "docker-registry"

    def __init__(self, directory: Path, certificate: Path, key: Path, program: str = "docker-registry") -> None:
        """TLS with this certificate; `program` is on the path, or its own path, of version 2 or 3."""
        super().__init__(directory)
        directory.mkdir(parents=True)
        self._program = shutil.which(program) or program
        self._files = [
            self._configuration("plain", self.port, ""),
            self._configuration("tls", self.tls_port, f"  tls: {{certificate: {certificate}, key: {key}}}\n"),
        ]

    def commands(self) -> list[list[str]]:
        """See `Server`."""
        return [[self._program, "serve", str(file)] for file in self._files]

    def environment(self) -> dict[str, str]:
        """See `Server`; an upload that began at one process goes on at the other."""
        return super().environment() | {"REGISTRY_HTTP_SECRET": "benchmark"}

    def prepare(self) -> None:
        """Nothing: pushing makes repositories."""

    def _configuration(self, name: str, port: int, more: str) -> Path:
        file = self.directory / f"{name}.yml"
        file.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.directory / 'data'}}}, delete: {{enabled: true}}}}\n"
            f"http:\n  addr: 127.0.0.1:{port}\n{more}"
        )
        return file


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop_all(servers: Sequence[Server]) -> None:
    """End them all."""
    for server in servers:
        server.stop()


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _mib(process: int, file: str, kib: re.Pattern[str]) -> float:
    try:
        match = kib.search(Path(f"/proc/{process}/{file}").read_text())
    except OSError:
        match = None
    return int(match[1]) / 1024 if match else 0.0
