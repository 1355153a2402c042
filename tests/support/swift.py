"""A real Swift: its own servers, in one process, over a directory."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.ports import free_port
from tests.support.stopping import stop

if TYPE_CHECKING:
    from dtr.storage.swift import SwiftSettings

CONTAINER = "blobs"
USER, PASSWORD, PROJECT = "tester", "testing", "contract"
TEMP_URL_KEY = "the key of the account of the contract"
_PYTHON = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dtr-tests/swift/bin/python"
_PROGRAM = Path(__file__).parents[1] / "programs/swift/serve.py"


class SwiftServer:
    """A server over `directory`, with the container `blobs`; it keeps its address when it is started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "swift"
        self.directory.mkdir(parents=True)
        self._port = free_port()
        self._log_file = directory / "swift.log"
        self.endpoint = f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a dtr needs to keep its blobs there."""
        return {
            "storage.driver": "swift",
            "storage.swift.auth_url": f"{self.endpoint}/identity/http/v3",
            "storage.swift.username": USER,
            "storage.swift.password": PASSWORD,
            "storage.swift.project": PROJECT,
            "storage.swift.project_domain": "Projects",
            "storage.swift.region": "north",
            "storage.swift.container": CONTAINER,
        }

    def start(self) -> None:
        assert _PYTHON.exists(), "Swift is missing: scripts/prepare-tests installs it"
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                # Its libraries warn of their own age, and one of them would load a resolver.
                [_PYTHON, "-W", "ignore", _PROGRAM, self.directory, str(self._port)],
                env={**os.environ, "EVENTLET_NO_GREENDNS": "yes"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self._log_file.read_text()
        for method, path, headers in (
            ("POST", "", {"X-Account-Meta-Temp-URL-Key": TEMP_URL_KEY}),
            ("PUT", f"/{CONTAINER}", {}),
        ):
            status, _ = self.ask(method, path, headers)
            assert status in {201, 202, 204}, status

    def ask(
        self, method: str, path: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """What Swift itself answers about the account, in the name of its administrator; status and body."""
        user = {"X-Auth-User": f"{PROJECT}:{USER}", "X-Auth-Key": PASSWORD}
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/auth/v1.0", headers=user)) as answer:
            token = answer.headers["X-Auth-Token"]
        request = urllib.request.Request(
            f"{self.endpoint}/v1/AUTH_{PROJECT}{path}",
            method=method,
            headers={"X-Auth-Token": token, **(headers or {})},
            data=body if method in {"PUT", "POST"} else None,
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def end_tokens(self) -> None:
        """End those of versions 2 and 3, though they said that they would last."""
        urllib.request.urlopen(f"{self.endpoint}/identity/end", data=b"").close()

    def names(self, prefix: str = "") -> list[str]:
        """The names of all objects in the container."""
        status, text = self.ask("GET", f"/{CONTAINER}?prefix={prefix}")
        assert status in {200, 204}, status
        return text.decode().splitlines()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def pause(self) -> None:
        stop(self.process.pid)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def swift_settings(server: SwiftServer, **changes: Any) -> SwiftSettings:
    """Settings for a test server; `endpoint` is the address by which it is reached, the rest the driver's own."""
    from dtr.storage.swift import SwiftSettings
    from dtr.storage.swift_auth import Credentials

    endpoint = changes.pop("endpoint", server.endpoint)
    credentials = {
        "auth_url": f"{endpoint}/identity/{endpoint.partition(':')[0]}/v3",
        "username": USER,
        "password": PASSWORD,
        "project": PROJECT,
        "project_domain": "Projects",
        "region": "north",
    }
    for name in Credentials.__dataclass_fields__:
        if name in changes:
            credentials[name] = changes.pop(name)
    return SwiftSettings(
        **{
            "credentials": Credentials(**credentials),
            "container": CONTAINER,
            "segment_size": 5 * 1024 * 1024,
            "time_limit": 20,
            **changes,
        }
    )


@contextmanager
def run_swift_server(directory: Path) -> Iterator[SwiftServer]:
    """A running server with the container `blobs`; over a directory, if that can keep what Swift has to keep."""
    with tempfile.TemporaryDirectory(dir=_directory_with_attributes(directory)) as chosen:
        server = SwiftServer(Path(chosen))
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _directory_with_attributes(directory: Path) -> Path:
    """
    The directory, or else the system's in memory.

    Swift keeps what it knows of an object in extended attributes of its file, which not every file system has.
    """
    for one in (directory, Path("/dev/shm")):
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=one) as probe:
            os.setxattr(probe.fileno(), "user.swift", b"x")
            return one
    raise AssertionError(f"neither {directory} nor /dev/shm has extended attributes, which Swift needs")
