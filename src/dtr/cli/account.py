"""``dtr account``: users, organisations, teams and access tokens."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING

import click

from dtr.cli._common import Failure, password, run_with, with_settings
from dtr.cli.transfer.commands import export_accounts, import_accounts

if TYPE_CHECKING:
    from dtr.app import Application
    from dtr.config import Loaded

_PAGE = 1000


@click.group()
def account() -> None:
    """Accounts and access tokens, in the data on this machine."""


account.add_command(import_accounts)
account.add_command(export_accounts)

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the standard input instead of asking for it."
)


@account.command("create")
@with_settings()
@click.argument("name")
@click.option("--organization", is_flag=True, help="Make an organisation instead of a user.")
@click.option("--admin", is_flag=True, help="Make a system administrator.")
@click.option("--full-name", default="", help="The name of the person or organisation.")
@_password_option
def create(
    loaded: Loaded, name: str, organization: bool, admin: bool, full_name: str, password_stdin: bool
) -> None:
    """Make a user, or an organisation."""
    if organization and (admin or password_stdin):
        raise Failure("an organisation has no password and is no administrator")
    secret = None if organization else password(password_stdin, confirm=True)

    async def work(application: Application) -> None:
        if organization:
            await application.accounts.create_organization(name, full_name=full_name)
        else:
            await application.accounts.create_user(name, secret, full_name=full_name, is_admin=admin)

    run_with(loaded, work)


@account.command("list")
@with_settings()
def list_accounts(loaded: Loaded) -> None:
    """
    List all accounts.

    A line each: name, kind and marks, full name, with tabs between.
    """
    from dtr.accounts import AccountQuery

    async def work(application: Application) -> None:
        start: str | None = ""
        while start is not None:
            page = await application.accounts.list_accounts(AccountQuery(start=start), limit=_PAGE + 1)
            for one in page[:_PAGE]:
                marks = [one.kind, *(["admin"] if one.is_admin else []), *([] if one.is_active else ["inactive"])]
                click.echo(f"{one.name}\t{','.join(marks)}\t{one.full_name}")
            start = page[_PAGE].name if len(page) > _PAGE else None

    run_with(loaded, work)


@account.command("passwd")
@with_settings()
@click.argument("name")
@_password_option
def set_password(loaded: Loaded, name: str, password_stdin: bool) -> None:
    """
    Give a user a new password.

    Clients that are logged in have to log in again; access tokens stay.
    """
    secret = password(password_stdin, confirm=True)
    run_with(loaded, lambda application: application.accounts.set_password(name, secret))


@account.command("admin")
@with_settings()
@click.argument("name")
@click.option("--remove", is_flag=True, help="Take the right away.")
def set_admin(loaded: Loaded, name: str, remove: bool) -> None:
    """Make a user a system administrator."""
    run_with(loaded, lambda application: application.accounts.update(name, is_admin=not remove))


@account.command("activate")
@with_settings()
@click.argument("name")
def activate(loaded: Loaded, name: str) -> None:
    """Let a user log in again."""
    run_with(loaded, lambda application: application.accounts.update(name, is_active=True))


@account.command("deactivate")
@with_settings()
@click.argument("name")
def deactivate(loaded: Loaded, name: str) -> None:
    """Let a user no longer log in."""
    run_with(loaded, lambda application: application.accounts.update(name, is_active=False))


@account.command("delete")
@with_settings()
@click.argument("name")
def delete(loaded: Loaded, name: str) -> None:
    """Remove an account that owns no repositories."""
    run_with(loaded, lambda application: application.accounts.delete(name))


@account.command("token")
@with_settings()
@click.argument("name")
@click.option("--label", default="made on the command line", help="What it is for.")
def create_token(loaded: Loaded, name: str, label: str) -> None:
    """
    Make an access token of a user or robot.

    It works wherever the password does. It is printed now and never again.
    """

    async def work(application: Application) -> None:
        click.echo(await application.accounts.tokens.create(name, label))

    run_with(loaded, work)


@account.command("tokens")
@with_settings()
@click.argument("name")
def list_tokens(loaded: Loaded, name: str) -> None:
    """
    List the access tokens of a user or robot, oldest first.

    A line each: id, when it was made, when it was last used, label, with tabs between.
    """

    async def work(application: Application) -> None:
        found = await application.accounts.tokens.list_tokens(name)
        for one in sorted(found, key=lambda one: (one.created_at, one.id)):
            used = "never" if one.last_used_at is None else _time(one.last_used_at)
            click.echo(f"{one.id}\t{_time(one.created_at)}\t{used}\t{one.label}")

    run_with(loaded, work)


@account.command("revoke")
@with_settings()
@click.argument("name")
@click.argument("token_id", metavar="ID")
def revoke_token(loaded: Loaded, name: str, token_id: str) -> None:
    """
    End an access token of a user or robot.

    `dtr account tokens` prints the ID.
    """

    async def work(application: Application) -> None:
        if not await application.accounts.tokens.delete(name, token_id):
            raise Failure(f"{name} has no token of this id")

    run_with(loaded, work)


@account.command("member")
@with_settings()
@click.argument("organization")
@click.argument("user")
@click.option("--owner", is_flag=True, help="Make the user an owner of the organisation.")
@click.option("--remove", is_flag=True, help="Take the user out of the organisation and its teams.")
def member(loaded: Loaded, organization: str, user: str, owner: bool, remove: bool) -> None:
    """Put a user into an organisation."""
    if owner and remove:
        raise Failure("--owner and --remove exclude each other")

    async def work(application: Application) -> None:
        if remove:
            await application.accounts.organizations.remove_member(organization, user)
        else:
            await application.accounts.organizations.put_member(organization, user, is_admin=owner)

    run_with(loaded, work)


@account.command("team")
@with_settings()
@click.argument("organization")
@click.argument("team")
@click.argument("users", nargs=-1)
@click.option("--remove", is_flag=True, help="Take the users out; without users, remove the team.")
def change_team(loaded: Loaded, organization: str, team: str, users: tuple[str, ...], remove: bool) -> None:
    """Make a team if it is not there, and put users into it."""
    from dtr.accounts import NameTaken

    async def work(application: Application) -> None:
        accounts = application.accounts
        if remove:
            for user in users:
                await accounts.organizations.remove_team_member(organization, team, user)
            if not users:
                await accounts.organizations.delete_team(organization, team)
            return
        with contextlib.suppress(NameTaken):
            await accounts.organizations.create_team(organization, team)
        for user in users:
            await accounts.organizations.put_team_member(organization, team, user)

    run_with(loaded, work)


def _time(milliseconds: int) -> str:
    return dt.datetime.fromtimestamp(milliseconds // 1000, dt.UTC).isoformat()
