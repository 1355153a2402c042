"""``dtr account import`` and ``dtr account export``."""

from __future__ import annotations

import csv
import dataclasses
import os
import secrets
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dtr.cli._common import Failure, password, printable, run_with, with_settings
from dtr.cli.remote.options import read_ca

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dtr.app import Application
    from dtr.cli.transfer.content import Change, Content
    from dtr.config import Loaded

_SHOWN_PROBLEMS = 50


@click.command("import")
@with_settings()
@click.argument(
    "directory", required=False, type=click.Path(file_okay=False, path_type=Path), metavar="[DIRECTORY]"
)
@click.option("--from-dtr", metavar="HOST[:PORT]", help="Read a running DTR instead, through its API.")
@click.option("--user", metavar="NAME", default="admin", help="An administrator of it (default: admin).")
@click.option("--password-stdin", is_flag=True, help="Read the password for it from the standard input.")
@click.option(
    "--ca", type=click.Path(dir_okay=False, path_type=Path), help="The authority of its certificate (PEM)."
)
@click.option("--insecure", is_flag=True, help="Do not check who it is.")
@click.option(
    "--invite-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Give new users without a password one, and write them to this new file, which only you can read.",
)
@click.option("--skip-invalid", is_flag=True, help="Leave out what cannot be taken, and import the rest.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
def import_accounts(
    loaded: Loaded,
    directory: Path | None,
    from_dtr: str | None,
    user: str,
    password_stdin: bool,
    ca: Path | None,
    insecure: bool,
    invite_file: Path | None,
    skip_invalid: bool,
    dry_run: bool,
) -> None:
    """
    Take over accounts, repositories and grants.

    From files in CSV in DIRECTORY, as `dtr account export` writes them, or from a running DTR. What is missing
    here is made, what differs is changed, nothing is removed: a second run changes nothing. Passwords and tokens
    of a DTR cannot be read, so its users have none here until they get one. Images are not taken.
    """
    if (directory is None) == (from_dtr is None):
        raise click.UsageError("Either a DIRECTORY or --from-dtr says where to read.")
    if invite_file is not None and invite_file.exists():
        raise Failure(f"{invite_file} is there already, and may hold the passwords of another import")

    if from_dtr is not None:
        wanted = _read_dtr(from_dtr, user, password_stdin, ca, insecure)
    else:
        from dtr.cli.transfer import files

        assert directory is not None
        wanted = files.read(directory)

    async def work(application: Application) -> None:
        from dtr.cli.transfer import local
        from dtr.cli.transfer.content import changes

        current = await local.read(application)
        wanted.settle(current)
        _report_problems(wanted.problems, skip_invalid)
        found = list(changes(current, wanted))
        if dry_run:
            for change in found:
                click.echo(f"would {change}")
        elif found:
            if invite_file is not None:
                found = _invited(found, invite_file)
            with _progress("Importing", len(found)) as step:
                await local.apply(application, found, lambda _change: step())
        _report(wanted, found, dry_run)

    run_with(loaded, work)


@click.command("export")
@with_settings()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def export_accounts(loaded: Loaded, directory: Path) -> None:
    """
    Write accounts, repositories and grants into files.

    In CSV, into DIRECTORY, which `dtr account import` reads. Passwords, tokens and robots are not written.
    """

    async def work(application: Application) -> None:
        from dtr.cli.transfer import files, local

        files.write(directory, await local.read(application))

    run_with(loaded, work)


def _read_dtr(server: str, user: str, password_stdin: bool, ca: Path | None, insecure: bool) -> Content:
    from dtr.cli.remote.client import Access, Remote, Trust, server_name
    from dtr.cli.transfer import live

    trust = Trust(read_ca(ca) if ca else None, insecure=insecure)
    name = server_name(server)
    secret = password(password_stdin, f"Password of {user} at {name}")
    remote = Remote(Access(server=name, user=user, secret=secret, trust=trust))
    try:
        with _progress("Reading", None) as step:
            return live.read(remote, lambda _item: step())
    finally:
        remote.close()


def _report_problems(problems: list[str], skip_invalid: bool) -> None:
    """Print what cannot be taken. Raises Failure unless that is to be left out."""
    for problem in problems[:_SHOWN_PROBLEMS]:
        click.echo(f"dtr: {printable(problem)}", err=True)
    if len(problems) > _SHOWN_PROBLEMS:
        click.echo(f"dtr: and {len(problems) - _SHOWN_PROBLEMS} more", err=True)
    if problems and not skip_invalid:
        raise Failure("nothing was imported; --skip-invalid imports the rest")


def _invited(found: list[Change], file: Path) -> list[Change]:
    """The same changes, where every new user has a password; those that were made up are in the file, if any."""
    from dtr.cli.transfer.content import Change, User

    invited: list[Change] = []
    passwords: list[tuple[str, str]] = []
    for change in found:
        after = change.after
        if isinstance(after, User) and change.before is None and after.password is None:
            made = secrets.token_urlsafe(12)
            passwords.append((after.name, made))
            after = dataclasses.replace(after, password=made)
        invited.append(Change(change.before, after))
    if passwords:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as lines:
                csv.writer(lines).writerows([("name", "password"), *passwords])
        except OSError as error:
            raise Failure(f"{file}: {error.strerror}") from None
    return invited


def _report(wanted: Content, found: list[Change], dry_run: bool) -> None:
    """Print how much was done, and which users have no password."""
    from dtr.cli.transfer.content import KINDS, PLURALS, User

    done = Counter((type(change.after), change.action) for change in found)
    for kind in KINDS:
        made, changed = done[kind, "make"], done[kind, "change"]
        same = len(wanted.items[kind]) - made - changed
        click.echo(f"{PLURALS[kind] + ':':<15}{made} new, {changed} changed, {same} as they were")
    without = [
        change.after.name
        for change in found
        if isinstance(change.after, User) and change.before is None and change.after.password is None
    ]
    if without:
        verb = "would have" if dry_run else "have"
        click.echo(f"{len(without)} of the new users {verb} no password, and cannot log in until they get one:")
        for name in without:
            click.echo(f"  {name}")
    if dry_run:
        click.echo("This was a dry run: nothing was changed.")


@contextmanager
def _progress(title: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show on a terminal how far it is; to be called at each step."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
