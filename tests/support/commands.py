"""Commands, run in the process of the tests: starting Python for each would take most of the time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner, Result
from tests.support.server import Server

from dtr.accounts import Level
from dtr.cli.main import cli


@dataclass
class Commands:
    """The command ``dtr`` with the settings of a server."""

    server: Server

    def run(self, *arguments: str, stdin: str = "") -> Result:
        """Run a command, whatever comes of it."""
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("DTR_")}
        result = CliRunner().invoke(
            cli, arguments, input=stdin, env=environment | self.server.environment, prog_name="dtr"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that succeeds; what it prints."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    def fail(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that fails, as it should: with one line; this line."""
        result = self.run(*arguments, stdin=stdin)
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
