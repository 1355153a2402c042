"""``dtr token``: access tokens of a server's accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure, printable
from dtr.cli.remote.moments import Moment
from dtr.cli.remote.options import changes, confirm, with_list, with_record, with_remote, yes_option
from dtr.cli.remote.output import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output, Record

_TOKENS = "/api/v0/api_tokens"
_TOKEN = "/api/v0/api_tokens/{token}"  # noqa: S105 - a path
_SHORT = 12

ACTIONS = click.Choice(["pull", "push", "delete", "admin"])

_user_option = click.option("--user", metavar="NAME", help="Whose; by default your own.")


def _scope(record: Record) -> str:
    scope = record.get("scope")
    return f"{','.join(scope['actions'])} on {' '.join(scope['repositories'])}" if scope else ""


COLUMNS = (
    Column("TOKEN", lambda record: str(record["hashedToken"])[:_SHORT]),
    Column("LABEL", "tokenLabel"),
    Column("ACTIVE", "isActive"),
    Column("MADE", "createdAt", "time"),
    Column("LAST USED", "lastUsed", "time"),
    Column("EXPIRES", "expiresAt", "time"),
    Column("GOOD FOR", _scope),
)


def scope_options(function: Callable[..., None]) -> Callable[..., None]:
    """Options for what a token is good for, and until when; `form` makes of them what the API takes."""
    for option in (
        click.option("--expires", type=Moment(ahead=True), help="When it ends: after 90d or 12h, or on a date."),
        click.option(
            "--on", "repositories", metavar="PATTERN", multiple=True, help="Good only there: acme/app, acme/*."
        ),
        click.option("--for", "actions", type=ACTIONS, multiple=True, help="Good only for this; may be repeated."),
    ):
        function = option(function)
    return function


def form(label: str | None, *, expires: str | None, repositories: Iterable[str], actions: Iterable[str]) -> Record:
    """The API's form of a token."""
    body: Record = {} if label is None else {"tokenLabel": label}
    patterns, allowed = list(repositories), list(actions)
    if patterns or allowed:
        body["scope"] = {"repositories": patterns or ["*"], "actions": allowed or ["pull"]}
    if expires is not None:
        body["expiresAt"] = expires
    return body


@click.group()
def token() -> None:
    """Access tokens of a server, over its API."""


@token.command("list")
@with_remote
@with_list
@_user_option
@click.option("--all", "everybodys", is_flag=True, help="Those of all accounts. For administrators.")
def list_tokens(remote: Remote, user: str | None, everybodys: bool, output: Output, limit: int | None) -> None:
    """List your access tokens, or those of another user."""
    if everybodys:
        columns = (COLUMNS[0], Column("USER", "username"), *COLUMNS[1:])
        output.listing(remote.records(_TOKENS, limit=limit), columns, name="hashedToken")
    else:
        output.listing(_tokens_of(remote, user, limit), COLUMNS, name="hashedToken")


@token.command("create")
@with_remote
@with_record
@click.argument("label")
@_user_option
@scope_options
def create_token(remote: Remote, label: str, user: str | None, output: Output, **scope: Any) -> None:
    """
    Make an access token, which works wherever the password does.

    It is printed now and never again. LABEL says what it is for. With --on or --for it is good for less than its
    owner: without --on for all repositories, without --for for pulling alone.
    """
    made = remote.call("POST", _TOKENS, body=form(label, **scope), query={"username": user})
    show_new(made, output)


@token.command("edit")
@with_remote
@with_record
@click.argument("token", metavar="ID")
@_user_option
@click.option("--label", help="What it is for.")
@click.option("--active/--inactive", default=None, help="Whether it works.")
def edit_token(
    remote: Remote, token: str, user: str | None, label: str | None, active: bool | None, output: Output
) -> None:
    """Change an access token. ID is its beginning in `dtr token list`."""
    body = changes({"tokenLabel": label, "isActive": active})
    found = find(_tokens_of(remote, user), token)
    changed = remote.call("PATCH", _TOKEN, {"token": found["hashedToken"]}, body=body)
    if output.as_json:
        output.record(changed, COLUMNS)


@token.command("delete")
@with_remote
@click.argument("token", metavar="ID")
@_user_option
@yes_option
def delete_token(remote: Remote, token: str, user: str | None, yes: bool) -> None:
    """End an access token. ID is its beginning in `dtr token list`."""
    found = find(_tokens_of(remote, user), token)
    confirm(f"end the token {named(found)}", yes=yes)
    remote.call("DELETE", _TOKEN, {"token": found["hashedToken"]})


def _tokens_of(remote: Remote, user: str | None, limit: int | None = None) -> Iterator[Record]:
    """The tokens of a user, by default of whoever asks: to administrators the API gives those of all, else."""
    return remote.records(_TOKENS, limit=limit, query={"username": user or remote.whoami()})


def find(records: Iterable[Record], beginning: str) -> Record:
    """The token whose id begins so. Raises Failure when there is none, or more than one."""
    found = [one for one in records if beginning and one["hashedToken"].startswith(beginning)]
    if not found:
        raise Failure(f"there is no token whose id begins with {beginning!r}")
    if len(found) > 1:
        raise Failure(f"the ids of {len(found)} tokens begin with {beginning!r}: give more of it")
    return found[0]


def named(record: Record) -> str:
    """What people know a token by."""
    return printable(f"{record['hashedToken'][:_SHORT]} ({record['tokenLabel']})")


def show_new(made: Record, output: Output) -> None:
    """Print a token that was just made: its secret, which nobody sees again."""
    if output.as_json:
        output.record(made, COLUMNS)
    else:
        click.echo(made["token"])
