"""A Docker engine of the tests' own, and the docker command of its users."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import Finished, run

GREETER = "tini-static"
"""A static program that every Debian engine comes with: the images' only one. It prints its version."""
_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64}) size: [0-9]+")


class Engine:
    """
    ``dockerd`` with data, socket and containers of its own.

    No bridge, no rules of the packet filter, no forwarding: the host stays as it is. It takes any certificate
    of a registry on the loopback interface.
    """

    def __init__(self, directory: Path, mirrors: tuple[str, ...] = (), prefix: tuple[str, ...] = ()) -> None:
        """`mirrors` are asked before Docker Hub; `prefix` runs it, and the docker command, on another host."""
        self._directory = directory
        self._mirrors = mirrors
        self.prefix = prefix
        self.log_file = directory / "log"
        self.host = f"unix://{directory}/socket"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Engine:
        assert shutil.which("dockerd"), "dockerd is missing: scripts/prepare-tests installs it"
        assert os.getuid() == 0, "the tests with a Docker engine run as root: dockerd needs it"
        # Not the host's.
        (self._directory / "daemon.json").write_text(json.dumps({"registry-mirrors": list(self._mirrors)}))
        # No overlay on an overlay; and its containerd has 15 seconds to begin, which may be too short once.
        for driver in ("overlay2", "vfs", "overlay2", "vfs"):
            if self._try(driver):
                return self
        raise AssertionError(f"dockerd did not start:\n{self.log_file.read_text(errors='replace')[-5000:]}")

    def _try(self, driver: str) -> bool:
        at = self._directory
        with self.log_file.open("a") as log:
            self._process = subprocess.Popen(
                [
                    *self.prefix, "dockerd", "--host", self.host, "--config-file", at / "daemon.json",
                    "--data-root", at / "data", "--exec-root", at / "exec",
                    "--pidfile", at / "pid", "--storage-driver", driver,
                    "--containerd-namespace", f"dtr-tests-{os.getpid()}",
                    "--containerd-plugins-namespace", f"dtr-tests-plugins-{os.getpid()}",
                    "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
                    "--ip-masq=false", "--userland-proxy=false",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while subprocess.run(
            ["docker", "--host", self.host, "version"], capture_output=True, check=False
        ).returncode:
            if self._process.poll() is not None:
                return False
            assert time.monotonic() < deadline, self.log_file.read_text(errors="replace")[-5000:]
            time.sleep(0.1)
        return True

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)


@contextmanager
def run_engine(*mirrors: str, prefix: tuple[str, ...] = ()) -> Iterator[Engine]:
    """A running engine, as `Engine` says. What it made is removed at the end, as it is large."""
    # A short name: the paths of its sockets are limited.
    directory = Path(tempfile.mkdtemp(prefix="dtr-engine-"))
    engine = Engine(directory, mirrors, prefix)
    try:
        yield engine.start()
    finally:
        engine.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Docker:
    """The docker command of somebody with a configuration, and so log-ins, of their own."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._prefix = engine.prefix
        self.environment = {
            "DOCKER_HOST": engine.host,
            "DOCKER_CONFIG": str(directory / "config"),
            # The builder inside the engine: the other one is a plug-in that may not be there.
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CLI_EXPERIMENTAL": "enabled",
            "DOCKER_CONTEXT": "",
        }
        self._built = 0

    def __call__(self, *words: str | Path, stdin: str = "", fails: bool = False) -> Finished:
        """Run one command; with `fails` it has to fail."""
        return run(*self._prefix, "docker", *words, stdin=stdin, environment=self.environment, fails=fails)

    def login(self, address: str, user: str, password: str) -> None:
        self("login", address, "--username", user, "--password-stdin", stdin=password)

    def build(self, *tags: str, files: Mapping[str, bytes] | None = None) -> str:
        """Build an image that greets, with a layer for each of the files; its id."""
        self._built += 1
        context = self.directory / f"context{self._built}"
        context.mkdir()
        program = shutil.which(GREETER)
        assert program, f"{GREETER} is missing: scripts/prepare-tests installs it"
        shutil.copy(program, context / "greeter")
        lines = ["FROM scratch", "COPY greeter /greeter"]
        for name, content in (files or {"file": os.urandom(1000)}).items():
            (context / name).write_bytes(content)
            lines.append(f"COPY {name} /{name}")
        lines.append('CMD ["/greeter", "--version"]')
        (context / "Dockerfile").write_text("\n".join(lines))
        self("build", *(word for tag in tags for word in ("--tag", tag)), context)
        return self.id(tags[0])

    def id(self, image: str) -> str:
        """The digest of the image's configuration."""
        return self("image", "inspect", "--format", "{{.Id}}", image).stdout.strip()

    def push(self, image: str) -> str:
        """Push a tag; the digest that the engine names at the end."""
        pushed = self("push", image).stdout
        match = _PUSHED.search(pushed)
        assert match, pushed
        return match[1]

    def forget(self, *images: str) -> None:
        """Remove images from the engine, so that a pull has to fetch them."""
        self("image", "rm", "--force", *images)

    def holds(self, image: str) -> bool:
        """Whether the engine has the image."""
        return bool(self("image", "ls", "--quiet", "--no-trunc", image).stdout.strip())

    def greeting(self, image: str) -> str:
        """What a container of the image says."""
        return self("run", "--rm", "--network", "none", image).stdout


def expected_greeting() -> str:
    """What a container of every image here says."""
    return run(GREETER, "--version").stdout
