"""The commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtr import __version__
from dtr.config import ConfigError, Loaded, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dtr.app import Application


class Failure(click.ClickException):
    """Something that the operator has to know, and no traceback."""

    def show(self, file: Any = None) -> None:
        """Print it."""
        click.echo(f"dtr: {self.message}", file=file or sys.stderr)


def main() -> None:
    """Run the command."""
    cli(prog_name="dtr")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """An open re-implementation of Docker Trusted Registry."""


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command with settings has."""
    config = click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Settings file (TOML or YAML).",
    )
    data = click.option(
        "--data-dir", type=click.Path(file_okay=False), help="Where dtr keeps its data (default: ./data)."
    )
    return config(data(function))


def load_settings(config_file: Path | None, **options: Any) -> Loaded:
    """The settings of a command. Raises Failure."""
    try:
        return load(config_file, os.environ, options)
    except ConfigError as error:
        raise Failure(str(error)) from None


def run_with(
    config_file: Path | None, data_dir: str | None, action: Callable[[Application], Awaitable[None]]
) -> None:
    """Run `action` on the rooms, over tables that are up to date. Raises Failure."""
    from dtr.accounts import AccountError
    from dtr.app import Application
    from dtr.db import DatabaseError
    from dtr.db.migrate import check
    from dtr.oci import OciError
    from dtr.registry import RegistryError
    from dtr.storage import StorageError

    settings = load_settings(config_file, data_dir=data_dir).settings
    if settings.database.url is None and not (settings.data_dir / "metadata.db").exists():
        raise Failure(f"there is no data in {settings.data_dir}: `dtr serve` or `dtr migrate` makes it")

    async def work() -> None:
        application = Application(settings)
        try:
            await check(application.database)
            await action(application)
        finally:
            await application.close()

    try:
        asyncio.run(work())
    except (AccountError, RegistryError, DatabaseError, StorageError, OciError) as error:
        raise Failure(str(error)) from None


@cli.command()
@settings_options
@click.option("--https-address", metavar="HOST:PORT", help="Where TLS is served.")
@click.option("--http-address", metavar="HOST:PORT", help="Where plain HTTP is redirected (or served).")
@click.option("--workers", type=int, help="Worker processes.")
@click.option("--components", metavar="NAME,...", help="Which components run here (default: all).")
def serve(config_file: Path | None, components: str | None, **options: Any) -> None:
    """Run dtr."""
    from dtr.serve import ServeError, serve

    chosen = None if components is None else tuple(part.strip() for part in components.split(",") if part.strip())
    loaded = load_settings(config_file, components=chosen, **options)
    try:
        serve(loaded.settings, os.environ)
    except ServeError as error:
        raise Failure(str(error)) from None


@cli.command()
@settings_options
def migrate(config_file: Path | None, data_dir: str | None) -> None:
    """Bring the tables of the metadata database up to date."""
    from dtr.db import DatabaseError, open_database
    from dtr.db.migrate import HEAD
    from dtr.db.migrate import migrate as bring_up

    settings = load_settings(config_file, data_dir=data_dir).settings
    if settings.database.url is None:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)

    async def work() -> None:
        database = open_database(settings.database_url)
        try:
            before = await database.revision()
            await bring_up(database, settings.database_url)
        finally:
            await database.close()
        click.echo(f"revision {HEAD}" + (" already" if before == HEAD else f", was {before or 'empty'}"))

    try:
        asyncio.run(work())
    except DatabaseError as error:
        raise Failure(str(error)) from None


@cli.command()
@settings_options
def doctor(config_file: Path | None, data_dir: str | None) -> None:
    """Check database, storage, certificates, clock and space, and say what to do."""
    from dtr.doctor import examine

    findings = asyncio.run(examine(load_settings(config_file, data_dir=data_dir).settings))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.good else 'FAIL'}  {finding.subject:<12} {finding.text}")
        if finding.advice:
            click.echo(f"                    -> {finding.advice}")
    if not all(finding.good for finding in findings):
        sys.exit(1)


@cli.command()
@settings_options
@click.option("--content", is_flag=True, help="Read every blob and compare it with its digest.")
@click.option("--repair", is_flag=True, help="Note what was found: missing blobs, objects that nobody names.")
def fsck(config_file: Path | None, data_dir: str | None, content: bool, repair: bool) -> None:
    """Compare the metadata with the storage."""
    from dtr.registry.fsck import Fsck

    damage = 0

    async def work(application: Application) -> None:
        nonlocal damage
        check = Fsck(application.database, application.storage)
        async for finding in check.run(content=content, repair=repair):
            damage += finding.is_damage
            click.echo(f"{'DAMAGE' if finding.is_damage else 'note  '}  {finding.text}")
        click.echo(f"{check.counted}; {damage} damaged")

    run_with(config_file, data_dir, work)
    if damage:
        sys.exit(1)


@cli.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@settings_options
def show_config(config_file: Path | None, data_dir: str | None) -> None:
    """Print every setting, its value (secrets masked), and where it came from."""
    rows = list(load_settings(config_file, data_dir=data_dir).rows())
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"{name:<{width}}  {value}  ({source})")


@cli.group()
def account() -> None:
    """Manage users, organisations, teams and their access tokens."""


@cli.group()
def repository() -> None:
    """Manage repositories and grants."""


@account.command("create")
@settings_options
@click.argument("name")
@click.option("--organization", is_flag=True, help="Make an organisation instead of a user.")
@click.option("--admin", is_flag=True, help="Make a system administrator.")
@click.option("--full-name", default="", help="The name of the person.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the standard input.")
def create_account(
    config_file: Path | None,
    data_dir: str | None,
    name: str,
    organization: bool,
    admin: bool,
    full_name: str,
    password_stdin: bool,
) -> None:
    """Make a user, or an organisation."""
    password = None if organization else _password(password_stdin)

    async def work(application: Application) -> None:
        if organization:
            await application.accounts.create_organization(name, full_name=full_name)
        else:
            await application.accounts.create_user(name, password, full_name=full_name, is_admin=admin)

    run_with(config_file, data_dir, work)


@account.command("list")
@settings_options
def list_accounts(config_file: Path | None, data_dir: str | None) -> None:
    """List all accounts."""

    async def work(application: Application) -> None:
        after = ""
        while page := await application.accounts.list_accounts(after=after, limit=1000):
            for one in page:
                marks = [one.kind, *(["admin"] if one.is_admin else []), *([] if one.is_active else ["inactive"])]
                click.echo(f"{one.name}\t{','.join(marks)}\t{one.full_name}")
            after = page[-1].name

    run_with(config_file, data_dir, work)


@account.command("passwd")
@settings_options
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the standard input.")
def set_password(config_file: Path | None, data_dir: str | None, name: str, password_stdin: bool) -> None:
    """Give a user a new password."""
    password = _password(password_stdin)
    run_with(config_file, data_dir, lambda application: application.accounts.set_password(name, password))


@account.command("activate")
@settings_options
@click.argument("name")
def activate(config_file: Path | None, data_dir: str | None, name: str) -> None:
    """Let a user log in again."""
    run_with(config_file, data_dir, lambda application: application.accounts.set_active(name, True))


@account.command("deactivate")
@settings_options
@click.argument("name")
def deactivate(config_file: Path | None, data_dir: str | None, name: str) -> None:
    """Let a user no longer log in."""
    run_with(config_file, data_dir, lambda application: application.accounts.set_active(name, False))


@account.command("delete")
@settings_options
@click.argument("name")
def delete_account(config_file: Path | None, data_dir: str | None, name: str) -> None:
    """Remove an account that owns no repositories."""
    run_with(config_file, data_dir, lambda application: application.accounts.delete(name))


@account.command("token")
@settings_options
@click.argument("name")
@click.option("--label", default="made on the command line", help="What it is for.")
def create_token(config_file: Path | None, data_dir: str | None, name: str, label: str) -> None:
    """Make an access token of a user and print it; it is not shown again."""

    async def work(application: Application) -> None:
        click.echo(await application.accounts.create_token(name, label))

    run_with(config_file, data_dir, work)


@account.command("member")
@settings_options
@click.argument("organization")
@click.argument("user")
@click.option("--owner", is_flag=True, help="Make the user an owner of the organisation.")
@click.option("--remove", is_flag=True, help="Take the user out.")
def member(
    config_file: Path | None, data_dir: str | None, organization: str, user: str, owner: bool, remove: bool
) -> None:
    """Put a user into an organisation."""

    async def work(application: Application) -> None:
        if remove:
            await application.accounts.remove_member(organization, user)
        else:
            await application.accounts.put_member(organization, user, is_admin=owner)

    run_with(config_file, data_dir, work)


@account.command("team")
@settings_options
@click.argument("organization")
@click.argument("team")
@click.argument("users", nargs=-1)
@click.option("--remove", is_flag=True, help="Take the users out; without users, remove the team.")
def team(
    config_file: Path | None,
    data_dir: str | None,
    organization: str,
    team: str,
    users: tuple[str, ...],
    remove: bool,
) -> None:
    """Make a team if it is not there, and put users into it."""
    from dtr.accounts import NameTaken

    async def work(application: Application) -> None:
        accounts = application.accounts
        if remove:
            for user in users:
                await accounts.remove_team_member(organization, team, user)
            if not users:
                await accounts.delete_team(organization, team)
            return
        with contextlib.suppress(NameTaken):
            await accounts.create_team(organization, team)
        for user in users:
            await accounts.put_team_member(organization, team, user)

    run_with(config_file, data_dir, work)


@repository.command("create")
@settings_options
@click.argument("name")
@click.option("--public", is_flag=True, help="Everybody may pull.")
@click.option("--immutable", is_flag=True, help="Tags cannot be overwritten.")
@click.option("--tag-limit", type=int, default=0, help="Keep at most so many tags.")
@click.option("--description", default="", help="A short description.")
def create_repository(
    config_file: Path | None,
    data_dir: str | None,
    name: str,
    public: bool,
    immutable: bool,
    tag_limit: int,
    description: str,
) -> None:
    """Make a repository, private unless told otherwise."""
    from dtr.oci import parse_repository_name
    from dtr.registry import Settings

    async def work(application: Application) -> None:
        await application.repositories.create(
            parse_repository_name(name),
            Settings(
                visibility="public" if public else "private",
                short_description=description,
                immutable_tags=immutable,
                tag_limit=tag_limit,
            ),
        )

    run_with(config_file, data_dir, work)


@repository.command("list")
@settings_options
def list_repositories(config_file: Path | None, data_dir: str | None) -> None:
    """List all repositories."""

    async def work(application: Application) -> None:
        after = ""
        while page := await application.repositories.list_repositories(after=after, limit=1000):
            for one in page:
                click.echo(f"{one.path}\t{one.settings.visibility}\t{one.settings.short_description}")
            after = page[-1].path

    run_with(config_file, data_dir, work)


@repository.command("update")
@settings_options
@click.argument("name")
@click.option("--visibility", type=click.Choice(["public", "private"]), help="Who may pull.")
@click.option("--immutable/--mutable", default=None, help="Whether tags can be overwritten.")
@click.option("--tag-limit", type=int, default=None, help="Keep at most so many tags; 0: all.")
def update_repository(
    config_file: Path | None,
    data_dir: str | None,
    name: str,
    visibility: str | None,
    immutable: bool | None,
    tag_limit: int | None,
) -> None:
    """Change the settings of a repository."""
    given = {"visibility": visibility, "immutable_tags": immutable, "tag_limit": tag_limit}
    changes = {key: value for key, value in given.items() if value is not None}

    async def work(application: Application) -> None:
        await application.repositories.update(name, **changes)

    run_with(config_file, data_dir, work)


@repository.command("delete")
@settings_options
@click.argument("name")
def delete_repository(config_file: Path | None, data_dir: str | None, name: str) -> None:
    """Delete a repository and all that is in it."""
    run_with(config_file, data_dir, lambda application: application.repositories.delete(name))


@repository.command("grant")
@settings_options
@click.argument("name")
@click.argument("team")
@click.argument("level", type=click.Choice(["none", "read-only", "read-write", "admin"]))
def grant(config_file: Path | None, data_dir: str | None, name: str, team: str, level: str) -> None:
    """Give TEAM (ORGANISATION/TEAM) a LEVEL on repository NAME, or on a whole namespace when NAME has one part."""
    from dtr.accounts import Level

    organization, _, team_name = team.partition("/")
    repository_name = name if "/" in name else None
    if not team_name or (repository_name is None and name != organization):
        raise Failure("a team is ORGANISATION/TEAM, and belongs to the organisation that owns what is granted")

    async def work(application: Application) -> None:
        await application.accounts.grant(organization, team_name, Level.of(level), repository=repository_name)

    run_with(config_file, data_dir, work)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    prompted: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return prompted
