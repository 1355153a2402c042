"""crane, oras and regctl: command line clients of three libraries, which Go builds."""

from __future__ import annotations

from pathlib import Path

from tests.support.server import PASSWORD, Server
from tests.support.tools import Finished, find_go_program, run


class GoClients:
    """
    The three commands, with a home of their own; not logged in anywhere until `log_in`.

    They check the server's certificate. An image is named by its repository and tag alone: ``at("a/b:v1")``. With
    `address` they ask for the server there.
    """

    def __init__(self, server: Server, home: Path, *, address: str = "") -> None:
        self.server = server
        self.address = address or server.address
        self.home = home
        home.mkdir(parents=True)
        self.set_regctl()

    def at(self, image: str) -> str:
        """The image's full name at the server."""
        return f"{self.address}/{image}"

    def log_in(self, user: str = "admin", secret: str = PASSWORD) -> GoClients:
        """Each logs in by its own command; crane does not ask the server about it."""
        self.crane("auth", "login", self.address, "--username", user, "--password-stdin", stdin=secret)
        self.oras("login", self.address, "--username", user, "--password-stdin", stdin=secret)
        self.regctl("registry", "login", self.address, "--user", user, "--pass-stdin", stdin=secret)
        return self

    def crane(self, *words: str | Path, stdin: str = "", fails: bool = False) -> Finished:
        # It has no option for an authority: that is Go's own way.
        return self._run("crane", *words, stdin=stdin, fails=fails, SSL_CERT_FILE=str(self.server.ca))

    def oras(
        self, *words: str | Path, stdin: str = "", directory: Path | None = None, fails: bool = False
    ) -> Finished:
        sides = ("from-", "to-") if words[0] == "cp" else ("",)
        # It takes `localhost` for a registry without TLS, unless it is told otherwise.
        options = [
            option
            for side in sides
            for option in (f"--{side}ca-file={self.server.ca}", f"--{side}plain-http=false")
        ]
        return self._run("oras", *words, *options, stdin=stdin, directory=directory, fails=fails)

    def regctl(self, *words: str | Path, stdin: str = "", fails: bool = False) -> Finished:
        return self._run("regctl", *words, stdin=stdin, fails=fails)

    def set_regctl(self, *options: str) -> None:
        """What regctl knows of the server."""
        words = ("registry", "set", self.address, "--skip-check", "--cacert", self.server.ca.read_text())
        self.regctl(*words, *options)

    def _run(
        self,
        name: str,
        *words: str | Path,
        stdin: str,
        directory: Path | None = None,
        fails: bool,
        **variables: str,
    ) -> Finished:
        program = find_go_program(name)
        assert program, f"there is no {name}: scripts/prepare-tests builds it"
        environment = {"HOME": str(self.home), "DOCKER_CONFIG": str(self.home / "docker"), **variables}
        return run(
            program, *words, stdin=stdin, environment=environment, directory=directory, fails=fails, seconds=60
        )
