"""nginx in front of a server of the tests, as `dtr nginx` runs it."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.forks import Fork
from tests.support.ports import free_port
from tests.support.server import clean_environment

if TYPE_CHECKING:
    from tests.support.server import Closable, Server

BEHIND = {"http_serves": True, "https_address": "", "trusted_proxies": "127.0.0.0/8"}
"""The settings of a server that serves plain HTTP to it."""


class Nginx:
    """
    ``dtr nginx`` in front of servers that have the settings `BEHIND`.

    It is in the data directory of the first server, or in another `directory`, with the settings of that server.
    It is where a client expects a server: it has `address`, `port`, `ca` and `tls`.
    """

    def __init__(
        self, *servers: Server, settings: Mapping[str, Any] | None = None, directory: Path | None = None
    ) -> None:
        self.server = servers[0]
        self.directory = directory or self.server.directory
        self.port = free_port()
        self.http_port = free_port()
        self.log_file = self.directory.with_name(f"{self.directory.name}-nginx.log")
        self.clients: list[Closable] = []
        self._settings = {
            "nginx.https_address": f"127.0.0.1:{self.port}",
            "nginx.http_address": f"127.0.0.1:{self.http_port}",
            "nginx.upstreams": ",".join(f"127.0.0.1:{one.http_port}" for one in servers),
            **(settings or {}),
        }
        if directory is not None:
            self._settings |= {
                "data_dir": directory,
                "database.url": f"sqlite:///{self.server.directory / 'metadata.db'}",
                "storage.filesystem.root": self.server.directory / "blobs",
            }

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def ca(self) -> Path:
        return self.directory / "tls" / "ca.pem"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        own = {f"DTR_{name.upper().replace('.', '__')}": str(value) for name, value in self._settings.items()}
        return {**clean_environment(), **self.server.environment, **own}

    @property
    def pid(self) -> int:
        """Of nginx's master."""
        return int((self.directory / "nginx" / "nginx.pid").read_text())

    def start(self, *options: str, seconds: float = 120) -> Nginx:
        with self.log_file.open("a") as log, Path(os.devnull).open() as nothing:
            self.process = Fork(
                ["nginx", *options], self.environment, stdin=nothing, stdout=subprocess.PIPE, stderr=log
            )
        stdout = self.process.stdout
        assert stdout is not None
        late = threading.Timer(seconds, self.process.kill)
        late.start()
        line = stdout.readline()
        late.cancel()
        stdout.close()
        assert line.startswith("dtr is ready: nginx"), f"nginx did not start: {line}\n{self.log}"
        return self

    def reload(self) -> None:
        """Have it look for changes, and wait until it has taken them over."""
        before = self.log.count("nginx reloaded")
        self.process.send_signal(signal.SIGHUP)
        self.wait_for_log("nginx reloaded", before + 1)

    def wait_for_log(self, text: str, times: int = 1, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.log.count(text) < times:
            assert time.monotonic() < deadline, f"not logged: {text}\n{self.log}"
            time.sleep(0.02)

    def stop(self, *, seconds: float = 120) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(seconds)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()  # nginx ends with it
            self.process.wait(60)


@contextmanager
def run_nginx(
    *servers: Server, settings: Mapping[str, Any] | None = None, directory: Path | None = None
) -> Iterator[Nginx]:
    """nginx in front of running servers; see `Nginx`."""
    nginx = Nginx(*servers, settings=settings, directory=directory)
    try:
        yield nginx.start()
    finally:
        nginx.close()
