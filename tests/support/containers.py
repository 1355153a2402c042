"""skopeo, podman and buildah, with log-ins, trust and storage of the tests' own."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from tests.support.server import PASSWORD, Server
from tests.support.tools import Finished, run

_ANYTHING = {"default": [{"type": "insecureAcceptAnything"}]}
"""Images without signatures are taken."""
_STORAGE = """
[storage]
driver = "vfs"
runroot = "{0}/run"
graphroot = "{0}/storage"
"""
_CONTAINERS = """
[engine]
tmp_dir = "{0}/libpod"
static_dir = "{0}/static"
volume_path = "{0}/volumes"
events_logger = "file"
cgroup_manager = "cgroupfs"
lock_type = "file"
[network]
network_config_dir = "{0}/networks"
"""


class Containers:
    """
    The three commands, as one user of a server (None: anonymous).

    They check the server's certificate. An image is named by its repository and tag alone: ``at("a/b:v1")``.
    """

    def __init__(
        self, server: Server, directory: Path, user: str | None = "admin", password: str = PASSWORD
    ) -> None:
        self.server = server
        self.directory = directory
        self.certificates = directory / "certificates"
        self.certificates.mkdir(parents=True)
        shutil.copy(server.ca, self.certificates / "ca.crt")
        self._policy = self._write("policy.json", json.dumps(_ANYTHING))
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        auths = {} if user is None else {server.address: {"auth": secret}}
        files = {
            "REGISTRY_AUTH_FILE": self._write("auth.json", json.dumps({"auths": auths})),
            "CONTAINERS_REGISTRIES_CONF": self._write("registries.conf", "unqualified-search-registries = []"),
            "CONTAINERS_STORAGE_CONF": self._write("storage.conf", _STORAGE.format(directory)),
            "CONTAINERS_CONF": self._write("containers.conf", _CONTAINERS.format(directory)),
        }
        self._environment = {
            **dict.fromkeys(("HOME", "XDG_RUNTIME_DIR", "TMPDIR"), str(directory)),
            **{name: str(file) for name, file in files.items()},
        }

    def at(self, image: str) -> str:
        """The image's full name at the server."""
        return f"{self.server.address}/{image}"

    def remote(self, image: str) -> str:
        """The image at the server as skopeo names it."""
        return f"docker://{self.at(image)}"

    def skopeo(self, *words: str, stdin: str = "", fails: bool = False) -> Finished:
        return run(
            "skopeo", "--policy", self._policy, *words, stdin=stdin, environment=self._environment, fails=fails
        )

    def copy(self, source: str, target: str, *options: str, fails: bool = False) -> Finished:
        """Copy an image with skopeo; the server's are given as ``remote(...)``."""
        certificates = [
            f"--{side}-cert-dir={self.certificates}"
            for side, place in (("src", source), ("dest", target))
            if place.startswith("docker://")
        ]
        return self.skopeo("copy", *certificates, *options, source, target, fails=fails)

    def inspect(self, image: str, *options: str, fails: bool = False) -> Finished:
        """Look at an image of the server with skopeo."""
        return self.skopeo("inspect", f"--cert-dir={self.certificates}", *options, self.remote(image), fails=fails)

    def list_tags(self, repository: str, *, fails: bool = False) -> Finished:
        """The tags of a repository of the server, by skopeo."""
        return self.skopeo("list-tags", f"--cert-dir={self.certificates}", self.remote(repository), fails=fails)

    def podman(self, *words: str | Path, stdin: str = "", fails: bool = False) -> Finished:
        return run("podman", *words, stdin=stdin, environment=self._environment, fails=fails)

    def buildah(self, *words: str | Path, stdin: str = "", fails: bool = False) -> Finished:
        return run("buildah", *words, stdin=stdin, environment=self._environment, fails=fails)

    def _write(self, name: str, text: str) -> Path:
        file = self.directory / name
        file.write_text(text)
        return file
