"""What the commands share: their settings, the rooms that they call, and how they fail."""

from __future__ import annotations

import os
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from dtr.app import Application
    from dtr.config import Loaded, Settings

T = TypeVar("T")


class Failure(click.ClickException):
    """Something that the operator has to know: one line, no traceback, exit status 1."""

    def show(self, file: Any = None) -> None:
        """Print it."""
        click.echo(f"dtr: {printable(' '.join(self.message.split()))}", file=file or sys.stderr)


def printable(text: str) -> str:
    """A text without what would do something to a terminal, or break the line."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "\ufffd" for one in text)


def password(from_stdin: bool, prompt: str = "Password", *, confirm: bool = False) -> str:
    """A password, which is never an argument: others could read it in the list of processes. Raises Failure."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise Failure("there is no terminal to ask for the password; --password-stdin reads it")
    prompted: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm)
    return prompted


def with_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Give a command the options ``--config`` and ``--data-dir``; it gets what is loaded as its first argument.

    `names` are parameters of the command that are settings, too; two underscores stand for a dot.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--config",
            "config_file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Settings file (TOML or YAML).",
        )
        @click.option(
            "--data-dir", type=click.Path(file_okay=False), help="Where dtr keeps its data (default: ./data)."
        )
        @wraps(function)
        def command(config_file: Path | None, data_dir: str | None, **parameters: Any) -> None:
            from dtr.config import ConfigError, load  # what asks a server does without

            options = {"data_dir": data_dir} | {name.replace("__", "."): parameters.pop(name) for name in names}
            try:
                loaded = load(config_file, os.environ, options)
            except ConfigError as error:
                raise Failure(str(error)) from None
            function(loaded, **parameters)

        return command

    return decorate


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; what a room refuses and what the system denies becomes a Failure."""
    import asyncio

    from dtr.accounts import AccountError
    from dtr.backends import BackendError
    from dtr.db import DatabaseError
    from dtr.oci import OciError
    from dtr.registry import RegistryError
    from dtr.signatures import SignaturesError
    from dtr.storage import StorageError
    from dtr.vault import VaultError

    known = (
        AccountError,
        BackendError,
        DatabaseError,
        OciError,
        RegistryError,
        SignaturesError,
        StorageError,
        VaultError,
    )
    try:
        return asyncio.run(work)
    except known as error:
        raise Failure(str(error)) from None
    except BrokenPipeError:  # whoever read what is printed has seen enough
        raise
    except OSError as error:
        raise Failure(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from None


def run_with(loaded: Loaded, action: Callable[[Application], Awaitable[Any]]) -> None:
    """Run `action` on the rooms, over tables that are up to date. Raises Failure."""
    from dtr.app import Application
    from dtr.db.migrate import check

    settings = loaded.settings
    require_database(settings)

    async def work() -> None:
        application = Application(settings)
        try:
            await check(application.database)
            await application.backends.refresh()
            await action(application)
        finally:
            await application.close()

    run(work())


def require_database(settings: Settings) -> None:
    """Raise Failure when the file of the database is not there: opening it would make an empty one."""
    kind, _, path = settings.database_url.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        raise Failure(f"there is no data in {Path(path).parent}: `dtr serve` or `dtr migrate` makes it")
