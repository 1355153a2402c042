"""A real S3 server for the contract suite: versitygw over a directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ACCESS_KEY, SECRET_KEY = "contract", "contract-secret"


@dataclass
class S3Server:
    endpoint: str
    directory: Path
    process: subprocess.Popen[bytes]

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def find_versitygw() -> str:
    """The program from PATH, GOPATH/bin or the project's cache; else it is built, or this fails."""
    gopath = subprocess.run(
        ["go", "env", "GOPATH"], capture_output=True, text=True, check=False
    ).stdout.strip()
    folders = [os.environ["PATH"], str(PROJECT / ".cache/bin")] + ([f"{gopath}/bin"] if gopath else [])
    path = os.pathsep.join(folders)
    if found := shutil.which("versitygw", path=path):
        return found
    target = PROJECT / ".cache/bin"
    subprocess.run(
        ["go", "install", "github.com/versity/versitygw/cmd/versitygw@latest"],
        env={**os.environ, "GOBIN": str(target)},
        check=True,
    )
    return str(target / "versitygw")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("versitygw")
    (directory / "blobs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("log") / "versitygw.log").open("wb")
    process = subprocess.Popen(
        [find_versitygw(), "--port", f"127.0.0.1:{port}", "--region", "us-east-1", "posix", str(directory)],
        env={**os.environ, "ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
        cwd=log.name.rpartition("/")[0],
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, "versitygw does not listen"
                time.sleep(0.02)
        yield S3Server(f"http://127.0.0.1:{port}", directory, process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)
        log.close()
