"""A server that stands for Google Cloud Storage, with its token service: tests/programs/gcs-server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.support.ports import free_port
from tests.support.stopping import stop
from tests.support.tools import find_go_program

if TYPE_CHECKING:
    from dtr.storage import GCSSettings

ACCOUNT, BUCKET = "contract@blobs.iam.gserviceaccount.com", "blobs"
_TOKEN_SECONDS = 3600


@cache
def private_key(_: str) -> rsa.RSAPrivateKey:
    """A key for each name; to make one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class GCSServer:
    """A server over `directory`, with the bucket `blobs`; it keeps its address when it is started again."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._port = free_port()
        self._log_file = directory / "gcs-server.log"
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.key_file = directory / "key.json"
        self.key_file.write_text(self.key())
        public = private_key("usual").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (directory / "public.pem").write_bytes(public)

    @property
    def settings(self) -> dict[str, str]:
        """What a dtr needs to keep its blobs there."""
        return {
            "storage.driver": "gcs",
            "storage.gcs.bucket": BUCKET,
            "storage.gcs.key_file": str(self.key_file),
            "storage.gcs.endpoint": self.endpoint,
        }

    def key(self, name: str = "usual", **changes: object) -> str:
        """A key file as Google gives it out; only of the usual key does the server know the public half."""
        secret = private_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        values = {
            "type": "service_account",
            "project_id": "blobs",
            "private_key_id": "1",
            "private_key": secret,
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": f"{self.endpoint}/token",
        }
        return json.dumps({**values, **changes})

    def start(self) -> None:
        program = find_go_program("gcs-server")
        assert program, "gcs-server is missing: scripts/prepare-tests builds it"
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    str(self._port),
                    self._directory / "buckets",
                    ACCOUNT,
                    self._directory / "public.pem",
                    str(_TOKEN_SECONDS),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                assert self.process.poll() is None, self._log_file.read_text()
                assert time.monotonic() < deadline, "gcs-server does not listen"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def pause(self) -> None:
        stop(self.process.pid)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def fail_next(self, method: str, status: int, reason: str = "", count: int = 1) -> None:
        """Answer the next requests of this method so."""
        self._tell("_fault", method=method, status=status, reason=reason, count=count)

    def revoke(self) -> None:
        """End all access tokens."""
        self._tell("_revoke")

    def count_tokens(self) -> int:
        """How many access tokens were given out."""
        return int(self._tell("_tokens"))

    def _tell(self, what: str, **form: object) -> str:
        with urllib.request.urlopen(f"{self.endpoint}/{what}", urlencode(form).encode(), timeout=60) as answer:
            return str(answer.read().decode())


@contextmanager
def run_gcs_server(directory: Path) -> Iterator[GCSServer]:
    """A running server with the bucket `blobs`, over a directory."""
    server = GCSServer(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def gcs_settings(server: GCSServer, *, key: str | None = None, **changes: Any) -> GCSSettings:
    """Settings for a test server; `key`: another key file's text than the usual one."""
    from tests.support.storage import PART

    from dtr.storage import GCSSettings
    from dtr.storage.gcs_auth import ServiceAccount

    values: dict[str, Any] = {
        "bucket": BUCKET,
        "account": ServiceAccount.parse(server.key() if key is None else key),
        "endpoint": server.endpoint,
        "part_size": PART,
        "time_limit": 20,
    }
    return GCSSettings(**{**values, **changes})
