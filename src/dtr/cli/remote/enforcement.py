"""``dtr enforce``: what has to be signed to be pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtr.cli.remote.moments import Moment
from dtr.cli.remote.options import confirm, with_list, with_record, with_remote, yes_option
from dtr.cli.remote.output import Column

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output, Record


def _joined(name: str) -> Callable[[Record], str]:
    return lambda record: ", ".join(record[name])


_POLICY = (
    Column("MODE", "mode"),
    Column("SIGNERS", _joined("signers")),
    Column("TEAMS", _joined("teams")),
    Column(
        "EXCEPTIONS",
        lambda record: "; ".join(
            f"{one['id']}: {one['kind']} {one['value']} ({one['reason']}, by {one['author']})"
            for one in record["exceptions"]
        ),
    ),
)
_EXCEPTION = (
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("VALUE", "value"),
    Column("REASON", "reason"),
    Column("AUTHOR", "author"),
    Column("CREATED", "createdAt", "time"),
    Column("EXPIRES", "expiresAt", "time"),
)
_TAGS = (
    Column("REPOSITORY", "repository"),
    Column("TAG", "tag"),
    Column("REFUSED", "refused"),
    Column(
        "WHY",
        lambda record: "; ".join(
            f"{one['scope']}: {' and '.join(one['missing'])}" for one in record["objections"]
        ),
    ),
)
_modes = click.Choice(["off", "report", "enforce"])


def _place(where: str | None) -> tuple[str, dict[str, str]]:
    """The path of the operations for a repository, a namespace or the registry, and the names in it."""
    if where is None:
        return "/api/v0/enforcement", {}
    if "/" in where:
        return "/api/v0/repositories/{repository}/enforcement", {"repository": where}
    return "/api/v0/repositoryNamespaces/{account}/enforcement", {"account": where}


where_argument = click.argument("where", required=False, metavar="[NAMESPACE[/NAME]]")


def _with_policy(function: Callable[..., None]) -> Callable[..., None]:
    """Options that say what has to be signed."""
    for option in (
        click.option(
            "--signer",
            "signers",
            multiple=True,
            help="Who may sign: role:targets/NAME, key:SHA256 or identity:NAME; may be repeated: any of them.",
        ),
        click.option(
            "--team",
            "teams",
            metavar="ORGANIZATION/TEAM",
            multiple=True,
            help="A member of it has to sign; may be repeated: of each of them.",
        ),
    ):
        function = option(function)
    return function


@click.group()
def enforce() -> None:
    """What has to be signed to be pulled from a server."""


@enforce.command("show")
@with_remote
@with_record
@where_argument
def show_policy(remote: Remote, where: str | None, output: Output) -> None:
    """
    Show what has to be signed.

    In a repository, in a namespace, or, without an argument, everywhere.
    """
    path, names = _place(where)
    output.record(remote.call("GET", path, names), _POLICY)


@enforce.command("set")
@with_remote
@with_record
@where_argument
@click.option("--mode", type=_modes, required=True, help="Refuse and tell, only tell, or neither.")
@_with_policy
def set_policy(remote: Remote, where: str | None, output: Output, **policy: Any) -> None:
    """
    Say what has to be signed.

    In a repository, in a namespace, or, without an argument, everywhere. Exceptions stay.
    """
    path, names = _place(where)
    output.record(remote.call("PUT", path, names, body=policy), _POLICY)


@enforce.command("delete")
@with_remote
@where_argument
@yes_option
def delete_policy(remote: Remote, where: str | None, yes: bool) -> None:
    """
    Let nothing have to be signed.

    For a repository, a namespace, or, without an argument, the registry; what the others say holds.
    """
    confirm(f"end what {where or 'the registry'} wants signed, with its exceptions", yes=yes)
    path, names = _place(where)
    remote.call("DELETE", path, names)


@enforce.command("report")
@with_remote
@with_list
@where_argument
@_with_policy
def report(
    remote: Remote,
    where: str | None,
    output: Output,
    limit: int | None,
    signers: tuple[str, ...],
    teams: tuple[str, ...],
) -> None:
    """
    List tags, and whether pulling them would be refused.

    Those of a repository, a namespace, or, without an argument, of all. With signers or teams, what a policy that
    names them would say.
    """
    path, names = _place(where)
    body = {"mode": "enforce", "signers": signers, "teams": teams} if signers or teams else None
    found = remote.records(f"{path}/report", names, limit=limit, method="POST", body=body)
    output.listing(found, _TAGS, name=lambda one: f"{one['repository']}:{one['tag']}")


@enforce.command("except")
@with_remote
@with_record
@where_argument
@click.option("--tag", metavar="PATTERN", help="Let pass what tags like this name, such as dev-*.")
@click.option("--digest", metavar="DIGEST", help="Let pass an image.")
@click.option("--account", metavar="NAME", help="Let pass whatever a user or a robot pulls.")
@click.option("--reason", required=True, help="Why, for those who look at it later.")
@click.option("--expires", type=Moment(ahead=True), help="When it ends: after 90d or 12h, or on a date.")
def add_exception(
    remote: Remote, where: str | None, output: Output, reason: str, expires: str | None, **meant: str | None
) -> None:
    """
    Let a policy pass something that is not signed.

    The policy of a repository, of a namespace, or, without an argument, of the registry.
    """
    given = {kind: value for kind, value in meant.items() if value is not None}
    if len(given) != 1:
        raise click.UsageError("one of --tag, --digest and --account says what is let pass")
    ((kind, value),) = given.items()
    path, names = _place(where)
    body = {"kind": kind, "value": value, "reason": reason} | ({"expiresAt": expires} if expires else {})
    output.record(remote.call("POST", f"{path}/exceptions", names, body=body), _EXCEPTION)


@enforce.command("unexcept")
@with_remote
@click.argument("exception", metavar="ID")
@where_argument
def delete_exception(remote: Remote, exception: str, where: str | None) -> None:
    """
    End an exception of a policy, by its ID.

    The policy of a repository, of a namespace, or, without another argument, of the registry.
    """
    path, names = _place(where)
    remote.call("DELETE", f"{path}/exceptions/{{exception}}", {**names, "exception": exception})
