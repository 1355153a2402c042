"""A server that stands for Microsoft Azure: Azurite over a directory."""

from __future__ import annotations

import base64
import datetime as dt
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.ports import free_port
from tests.support.stopping import stop

if TYPE_CHECKING:
    from dtr.pki import Certificate
    from dtr.storage import AzureSettings

ACCOUNT, CONTAINER = "contract", "blobs"
ACCOUNT_KEY = base64.b64encode(b"the key of the account of the contract").decode()
_PROGRAM = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dtr-tests/azurite/start.js"


class AzureServer:
    """
    A server over `directory`, with the container `blobs`; it keeps its address when it is started again.

    With a certificate for ``localhost`` it speaks TLS, and takes access tokens as well: any that could be Azure's.
    """

    def __init__(self, directory: Path, certificate: Certificate | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory / "azurite"
        self._port = free_port()
        self._log_file = directory / "azurite.log"
        self._certificate = certificate
        self.endpoint = f"https://localhost:{self._port}" if certificate else f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a dtr needs to keep its blobs there."""
        return {
            "storage.driver": "azure",
            "storage.azure.account_name": ACCOUNT,
            "storage.azure.account_key": ACCOUNT_KEY,
            "storage.azure.container": CONTAINER,
            "storage.azure.endpoint": f"{self.endpoint}/{ACCOUNT}",
        }

    def start(self) -> None:
        assert _PROGRAM.exists(), "Azurite is missing: scripts/prepare-tests installs it"
        node = shutil.which("node")
        assert node, "node is missing: Azurite needs Node.js"
        tls: list[str | Path] = []
        if self._certificate:
            tls = ["--oauth", "basic", "--cert", self._certificate.chain, "--key", self._certificate.key]
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    node, _PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(self._port),
                    "--location", self._directory, "--silent", "--disableTelemetry", "--disableProductStyleUrl",
                    *tls,
                ],
                env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"},
                cwd=self._directory.parent,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._has_container():
            assert self.process.poll() is None, self._log_file.read_text()
            assert time.monotonic() < deadline, "Azurite does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """What it confirmed is on its disk, as at Azure."""
        self.process.send_signal(signal.SIGUSR2)
        assert self.process.wait(60) == -signal.SIGKILL, self._log_file.read_text()

    def pause(self) -> None:
        stop(self.process.pid)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _has_container(self) -> bool:
        """Whether it answers; the container is there then."""
        from dtr.storage.azure import SharedKey

        path, query = f"/{ACCOUNT}/{CONTAINER}", {"restype": "container"}
        headers = {
            "x-ms-date": format_datetime(dt.datetime.now(dt.UTC), usegmt=True),
            "x-ms-version": "2021-08-06",
        }
        signature = SharedKey(ACCOUNT, ACCOUNT_KEY).authorize("PUT", path, query, headers, 0)
        request = urllib.request.Request(
            f"{self.endpoint}{path}?restype=container",
            method="PUT",
            headers={**headers, "Authorization": signature},
        )
        try:
            urllib.request.urlopen(request, timeout=5, context=ssl._create_unverified_context()).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code != 409:  # it was there before
                raise
        except OSError:
            return False
        return True


def azure_settings(server: AzureServer, **changes: Any) -> AzureSettings:
    """Settings for a test server; `endpoint` without the account."""
    from dtr.storage import AzureSettings

    endpoint = changes.pop("endpoint", server.endpoint)
    values: dict[str, Any] = {
        "account": ACCOUNT,
        "account_key": ACCOUNT_KEY,
        "container": CONTAINER,
        "endpoint": f"{endpoint}/{ACCOUNT}",
        "time_limit": 20,
    }
    return AzureSettings(**{**values, **changes})


@contextmanager
def run_azure_server(directory: Path, certificate: Certificate | None = None) -> Iterator[AzureServer]:
    """A running server with the container `blobs`, over a directory."""
    server = AzureServer(directory, certificate)
    try:
        server.start()
        yield server
    finally:
        if hasattr(server, "process"):
            server.process.kill()
            server.process.wait(60)
