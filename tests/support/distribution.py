"""Debian's docker-registry: another registry, made by others."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from tests.support.images import Image, digest_of
from tests.support.ports import free_port

from dtr.pki import Certificate, ensure_certificate

USER, USER_PASSWORD = "mirror", "the password of the mirror"
_HTPASSWD = f"{USER}:$2b$04$SDKU5U6TlKNpdaimOSyGO.D1fNTGWg4Y.GVT4ss.W8Hn5tKC8DkJq\n"


class DockerRegistry:
    """
    On a free port of loopback, over a directory; `tls`: by an authority of its own, `users`: `USER` alone.

    `storage` is where it keeps what it has instead, as its configuration says it.
    """

    def __init__(
        self, directory: Path, *, tls: bool = False, users: bool = False, storage: str | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.certificate: Certificate | None = None
        http = [f"http: {{addr: '127.0.0.1:{self.port}', secret: tests"]
        if tls:
            self.certificate = ensure_certificate(directory / "tls", [])
            http.append(f", tls: {{certificate: {self.certificate.chain}, key: {self.certificate.key}}}")
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{{storage or f'filesystem: {{rootdirectory: {self.data}}}'}, delete: {{enabled: true}}}}",
            "".join(http) + "}",
        ]
        if users:
            (directory / "htpasswd").write_text(_HTPASSWD)
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: {directory / 'htpasswd'}}}}}")
        self._file = directory / "config.yml"
        self._file.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Where it keeps what it has."""
        return self.directory / "data"

    @property
    def url(self) -> str:
        return f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> str:
        """The certificate of its authority, in PEM."""
        assert self.certificate is not None
        assert self.certificate.authority is not None
        return self.certificate.authority.read_text()

    def start(self, seconds: float = 60) -> DockerRegistry:
        program = shutil.which("docker-registry")
        assert program is not None, "docker-registry is not installed"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(self._file)],
                stdout=log,
                stderr=log,
                # With this one, its driver for S3 does not start.
                env={name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"},
            )
        deadline = time.monotonic() + seconds
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def push(self, repository: str, image: Image, *tags: str) -> None:
        """Push an image with everything that it names, without TLS and users."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            _push(connection, repository, image, tags)
        finally:
            connection.close()

    def kill(self) -> None:
        """The end of it, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _push(connection: http.client.HTTPConnection, repository: str, image: Image, tags: tuple[str, ...]) -> None:
    for child in image.children:
        _push(connection, repository, child, ())
    for blob in image.blobs:
        started = _ask(connection, "POST", f"/v2/{repository}/blobs/uploads/", 202)
        parts = urlsplit(started)
        where = f"{parts.path}?{parts.query}&digest={quote(digest_of(blob))}"
        _ask(connection, "PUT", where, 201, blob, "application/octet-stream")
    for reference in tags or (image.digest,):
        _ask(connection, "PUT", f"/v2/{repository}/manifests/{reference}", 201, image.payload, image.media_type)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    status: int,
    body: bytes = b"",
    media_type: str = "",
) -> str:
    """One request; the location in its answer."""
    connection.request(method, path, body, {"Content-Type": media_type, "Content-Length": str(len(body))})
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == status, (answer.status, content[:500])
    return answer.getheader("Location", "")
