"""Commands, run in the process of the tests: starting Python for each would take most of the time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from tests.support.server import PASSWORD, Server

from dtr.accounts import Level
from dtr.cli.commands import cli


@dataclass
class Commands:
    """The command ``dtr`` with the settings of a server."""

    server: Server

    @property
    def environment(self) -> Mapping[str, str]:
        return self.server.environment

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> Result:
        """Run a command, whatever comes of it."""
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("DTR_")}
        result = CliRunner().invoke(
            cli, arguments, input=stdin, env={**environment, **self.environment, **variables}, prog_name="dtr"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def __call__(self, *arguments: str, stdin: str = "", **variables: str) -> str:
        """Run a command that succeeds; what it prints."""
        result = self.run(*arguments, stdin=stdin, **variables)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    def fail(self, *arguments: str, stdin: str = "", **variables: str) -> str:
        """Run a command that fails, as it should: with one line; this line."""
        result = self.run(*arguments, stdin=stdin, **variables)
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("dtr: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("dtr: ").rstrip()

    def level(self, user: str, path: str) -> Level:
        """What `user` may do on a repository."""

        async def ask(application: Any) -> Level:
            account = await application.accounts.get(user)
            level: Level = (await application.accounts.standings.find(account.id, path)).facts.level
            return level

        return self.server.do(ask)


@dataclass
class RemoteCommands(Commands):
    """The command ``dtr`` on another machine: it knows what is in a directory of its own, and no settings."""

    directory: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"XDG_CONFIG_HOME": str(self.directory), **self.variables}

    def log_in(self, user: str = "admin", password: str = PASSWORD) -> RemoteCommands:
        result = self.run(
            "login", self.server.address, "--user", user, "--password-stdin", "--ca", str(self.server.ca),
            stdin=f"{password}\n",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        return self

    def json(self, *arguments: str, stdin: str = "") -> list[Any]:
        """The records that a command prints."""
        return [json.loads(line) for line in self(*arguments, "--json", stdin=stdin).splitlines()]

    def rows(self, *arguments: str) -> list[list[str]]:
        """The cells that a command prints."""
        return [line.split("\t") for line in self(*arguments).splitlines()]
