"""The notary command of its users, each with keys and a cache of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import PASSWORD, Server
from tests.support.tools import Finished, find_go_program, run

PASSPHRASE = "passphrase of a key"
"""Of every key that tests make."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a collection says about a name: digest in hexadecimal, length in bytes, and the role that says so."""

    digest: str
    length: int
    role: str


class Notary:
    """
    The notary command of a user of dtr, or of nobody in particular (None).

    It trusts the server's authority alone. With `url` it asks another server, which shows the same certificate.
    """

    def __init__(self, server: Server, directory: Path, user: str | None = "admin", *, url: str = "") -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._program = find_go_program("notary")
        assert self._program, "notary is missing: scripts/prepare-tests builds it"
        self._configuration = directory / "configuration.json"
        self._ca = server.ca
        self.ask(url or f"https://{server.address}")
        self.environment = {
            f"NOTARY_{role}_PASSPHRASE": PASSPHRASE for role in ("ROOT", "TARGETS", "SNAPSHOT", "DELEGATION")
        }
        credentials = "" if user is None else base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        self.environment["NOTARY_AUTH"] = credentials

    def ask(self, url: str) -> None:
        """Ask this server from now on."""
        self._configuration.write_text(
            json.dumps({"trust_dir": "trust", "remote_server": {"url": url, "root_ca": str(self._ca)}})
        )

    def __call__(self, *words: str | Path, stdin: str = "", fails: bool = False) -> Finished:
        """Run one command; with `fails` it has to fail."""
        assert self._program is not None
        return run(
            self._program, "--configFile", self._configuration, *words,
            stdin=stdin, environment=self.environment, directory=self.directory, fails=fails,
        )  # fmt: skip

    def list(self, gun: str, *roles: str) -> dict[str, Target]:
        """What `notary list` shows, verified by it: the targets by name; of some roles, or of all."""
        options = [word for role in roles for word in ("--roles", role)]
        # Two lines of heading; without targets a sentence.
        lines = [line.split() for line in self("list", gun, *options).stdout.splitlines()]
        rows = [line for line in lines if len(line) == 4 and len(line[1]) == 64]
        return {name: Target(digest, int(length), role) for name, digest, length, role in rows}

    def init(self, gun: str) -> None:
        """Begin a collection and publish it, empty; its owner keeps the key for snapshots."""
        self("init", gun, "--publish")

    def give_snapshots(self, gun: str) -> None:
        """Let the server make the snapshots from now on, as docker does: others may publish then."""
        self("key", "rotate", gun, "snapshot", "--server-managed")

    def make_key(self, name: str) -> Path:
        """Make a key for delegations of which this user is a holder; the file of its certificate."""
        key, certificate = self.directory / f"{name}.key", self.directory / f"{name}.crt"
        run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
            "-subj", f"/CN={name}", "-days", "400", "-keyout", key, "-out", certificate,
        )  # fmt: skip
        self("key", "import", key, "--role", f"targets/{name}")
        return certificate

    def take_keys(self, other: Notary) -> None:
        """Have all keys that another user has now, as well."""
        shutil.copytree(other.directory / "trust" / "private", self.directory / "trust" / "private")

    def delegate(self, gun: str, role: str, *keys: Path) -> None:
        """Let the holders of these keys sign everything in a role."""
        self("delegation", "add", gun, role, *keys, "--all-paths", "--publish")

    def sign(self, gun: str, name: str, content: bytes, *roles: str) -> str:
        """Sign content as a target, in `targets` or in these roles, and publish it; its digest in hexadecimal."""
        file = self.directory / "content"
        file.write_bytes(content)
        options = [word for role in roles for word in ("--roles", role)]
        self("add", gun, name, file, *options, "--publish")
        return hashlib.sha256(content).hexdigest()

    def rotate_root(self, gun: str) -> None:
        """Make a new root key, publish it with the old one's consent."""
        self("key", "rotate", gun, "root", stdin="yes\n")
