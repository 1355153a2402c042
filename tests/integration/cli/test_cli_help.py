"""Every command explains itself, and none takes a password as an argument."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from dtr.cli.commands import cli


def every_command(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from every_command(child, (*path, name))


COMMANDS = [pytest.param(path, command, id=" ".join(path) or "dtr") for path, command in every_command(cli)]


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_help_tells_what_the_command_does(path: tuple[str, ...], command: click.Command) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="dtr")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: {' '.join(('dtr', *path))} ")
    assert command.help


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_help_describes_every_option(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (path, parameter.name)


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_no_password_is_given_on_the_command_line(path: tuple[str, ...], command: click.Command) -> None:
    for parameter in command.params:
        secret = any(word in (parameter.name or "") for word in ("password", "secret"))
        assert not secret or (isinstance(parameter, click.Option) and parameter.is_flag), (path, parameter.name)


def test_the_list_of_commands_shows_whole_sentences() -> None:
    for path, command in every_command(cli):
        if isinstance(command, click.Group):
            output = CliRunner().invoke(cli, [*path, "--help"], prog_name="dtr").output
            assert not [line for line in output.splitlines()[1:] if line.endswith("...")]


def test_the_version_is_printed() -> None:
    from dtr import __version__

    assert __version__ in CliRunner().invoke(cli, ["--version"], prog_name="dtr").output
