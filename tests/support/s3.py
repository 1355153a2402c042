"""A real S3 server: versitygw over a directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.tools import find_go_program

ACCESS_KEY, SECRET_KEY = "contract", "contract-secret"


@dataclass
class S3Server:
    endpoint: str
    directory: Path
    process: subprocess.Popen[bytes]

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

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def run_s3_server(directory: Path) -> Iterator[S3Server]:
    """A server with the bucket `blobs`, over a directory."""
    (directory / "buckets" / "blobs").mkdir(parents=True)
    port = free_port()
    program = find_go_program("versitygw")
    assert program, "versitygw is missing: scripts/prepare-tests builds it"
    log_file = directory / "versitygw.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                program, "--port", f"127.0.0.1:{port}", "--region", "us-east-1",
                "posix", str(directory / "buckets"),
            ],
            env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
            cwd=directory,
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log_file.read_text()
                assert time.monotonic() < deadline, "versitygw does not listen"
                time.sleep(0.02)
        yield S3Server(f"http://127.0.0.1:{port}", directory / "buckets", process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)
