"""A real S3 server: versitygw over a directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.stopping import stop
from tests.support.tools import find_go_program

ACCESS_KEY, SECRET_KEY = "contract", "contract-secret"


class S3Server:
    """
    A server over `directory`, with the bucket `blobs`; it keeps its address when it is started again.

    `buckets` is where it keeps them instead; `options` are more of its own.
    """

    def __init__(self, directory: Path, *options: str, buckets: Path | None = None) -> None:
        self.directory = buckets or directory / "buckets"
        (self.directory / "blobs").mkdir(parents=True)
        self._port = free_port()
        self._options = options
        self._log_file = directory / "versitygw.log"
        self.endpoint = f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a dtr needs to keep its blobs there."""
        return {
            "storage.driver": "s3",
            "storage.s3.bucket": "blobs",
            "storage.s3.endpoint": self.endpoint,
            "storage.s3.access_key": ACCESS_KEY,
            "storage.s3.secret_key": SECRET_KEY,
            "storage.s3.path_style": "true",
        }

    def start(self) -> None:
        program = find_go_program("versitygw")
        assert program, "versitygw is missing: scripts/prepare-tests builds it"
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    program, "--port", f"127.0.0.1:{self._port}", "--region", "us-east-1", *self._options,
                    "posix", self.directory,
                ],
                env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                cwd=self._log_file.parent,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                assert self.process.poll() is None, self._log_file.read_text()
                assert time.monotonic() < deadline, "versitygw does not listen"
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


@contextmanager
def run_s3_server(directory: Path, *options: str, buckets: Path | None = None) -> Iterator[S3Server]:
    """A running server with the bucket `blobs`, over a directory."""
    server = S3Server(directory, *options, buckets=buckets)
    server.start()
    try:
        yield server
    finally:
        server.kill()
