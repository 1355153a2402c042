"""Debian's docker-registry: another registry, made by others."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.support.ports import free_port

from dtr.pki import Certificate, ensure_certificate

USER, USER_PASSWORD = "mirror", "the password of the mirror"
_HTPASSWD = f"{USER}:$2b$04$SDKU5U6TlKNpdaimOSyGO.D1fNTGWg4Y.GVT4ss.W8Hn5tKC8DkJq\n"


class DockerRegistry:
    """On a free port of loopback, over a directory; `tls`: by an authority of its own, `users`: `USER` alone."""

    def __init__(self, directory: Path, *, tls: bool = False, users: bool = False) -> None:
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
            f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}, delete: {{enabled: true}}}}",
            "".join(http) + "}",
        ]
        if users:
            (directory / "htpasswd").write_text(_HTPASSWD)
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: {directory / 'htpasswd'}}}}}")
        self._file = directory / "config.yml"
        self._file.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> str:
        """The certificate of its authority, in PEM."""
        assert self.certificate is not None
        assert self.certificate.authority is not None
        return self.certificate.authority.read_text()

    def start(self, seconds: float = 20) -> DockerRegistry:
        program = shutil.which("docker-registry")
        assert program is not None, "docker-registry is not installed"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([program, "serve", str(self._file)], stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        """The end of it, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
