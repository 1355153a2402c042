"""``dtr search``, ``dtr settings`` and ``dtr status``: a server as a whole."""

from __future__ import annotations

import difflib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure, printable
from dtr.cli.remote.client import Refused
from dtr.cli.remote.options import with_list, with_record, with_remote
from dtr.cli.remote.output import Column
from dtr.cli.remote.repositories import path_of

if TYPE_CHECKING:
    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output

_SETTINGS = "/api/v0/meta/settings"


@click.command()
@with_remote
@with_list
@click.argument("words", metavar="TEXT", nargs=-1, required=True)
def search(remote: Remote, words: tuple[str, ...], output: Output, limit: int | None) -> None:
    """Search repositories on a server, and accounts."""
    query = {
        "query": " ".join(words),
        "includeRepositories": True,
        "includeAccounts": True,
        "limit": limit or 25,
    }
    found = remote.call("GET", "/api/v0/index/autocomplete", query=query)
    repositories, accounts = found.get("repositoryResults") or [], found.get("accountResults") or []
    columns = (
        Column("NAME", lambda record: path_of(record) if "namespace" in record else record["name"]),
        Column(
            "KIND",
            lambda record: (
                "repository" if "namespace" in record else "organization" if record["isOrg"] else "user"
            ),
        ),
        Column("DESCRIPTION", lambda record: record.get("shortDescription") or record.get("fullName")),
    )
    output.listing([*repositories, *accounts], columns, name=columns[0].value)


@click.group()
def settings() -> None:
    """Settings of a server that change while it runs."""


@settings.command("show")
@with_remote
@click.option("--json", "as_json", is_flag=True, help="Print what the API answers.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def show_settings(remote: Remote, names: tuple[str, ...], as_json: bool) -> None:
    """Show the settings, or some of them."""
    found = remote.call("GET", _SETTINGS)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise Failure(f"there is no setting {unknown[0]}")
    chosen = {name: value for name, value in found.items() if name in names or not names}
    if as_json:
        click.echo(json.dumps(chosen, ensure_ascii=False))
        return
    width = max(len(name) for name in chosen)
    for name, value in chosen.items():
        click.echo(
            f"{name:<{width}}  {printable(value if isinstance(value, str) else json.dumps(value))}".rstrip()
        )


@settings.command("set")
@with_remote
@click.argument("changes", metavar="NAME=VALUE...", nargs=-1, required=True)
def set_settings(remote: Remote, changes: tuple[str, ...]) -> None:
    """
    Change settings.

    A VALUE is true, false, a number, a text, or @FILE for what is in a file.
    """
    current = remote.call("GET", _SETTINGS)
    body = dict(_change(one, current) for one in changes)
    remote.call("POST", _SETTINGS, body=body)


def _change(text: str, current: dict[str, Any]) -> tuple[str, Any]:
    """The name and value of a change; texts stay texts where the setting is one. Raises Failure."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Failure(f"{text!r} is no change: NAME=VALUE")
    if name not in current:
        near = difflib.get_close_matches(name, current, 1)
        raise Failure(f"there is no setting {name}" + (f"; did you mean {near[0]}?" if near else ""))
    if value.startswith("@"):
        try:
            with open(value[1:], encoding="utf-8") as file:  # noqa: PTH123 - a name that was given
                return name, file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{value[1:]}: {getattr(error, 'strerror', None) or 'is not in UTF-8'}") from None
    if isinstance(current.get(name), str):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@click.command()
@with_remote
@with_record
def status(remote: Remote, output: Output) -> None:
    """
    Show how a server is.

    Its health, what needs attention, and its replicas. Exit status 1 when it is not well. What only administrators
    may see is left out for others.
    """
    health = remote.health()
    alerts = _permitted(remote, "/api/v0/meta/alerts") or []
    cluster = _permitted(remote, "/api/v0/meta/cluster_status")
    if output.as_json:
        click.echo(json.dumps({"health": health, "alerts": alerts, "cluster": cluster}, ensure_ascii=False))
    else:
        click.echo(f"{remote.access.server}: {'healthy' if health.get('Healthy') else 'NOT HEALTHY'}")
        if health.get("Error"):
            click.echo(f"  {printable(health['Error'])}")
        for alert in alerts:
            click.echo(f"  alert: {printable(alert.get('message', ''))}")
        for replica, how in ((cluster or {}).get("replica_health") or {}).items():
            click.echo(f"  replica {printable(replica)}: {printable(str(how))}")
    if not health.get("Healthy"):
        sys.exit(1)


def _permitted(remote: Remote, path: str) -> Any:
    """What an operation answers, None when the caller may not ask."""
    try:
        return remote.call("GET", path)
    except Refused as error:
        if error.status in {401, 403}:
            return None
        raise
