"""``dtr event``: what happened on a server."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from dtr.cli.remote.moments import Moment
from dtr.cli.remote.options import with_list, with_remote
from dtr.cli.remote.output import Column, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Record

_EVENTS = "/api/v0/events"
_POLL_SECONDS = 2.0
_POLLED = 100


def _thing(field: str) -> Callable[[Record], Any]:
    def value(record: Record) -> str:
        found = record.get(field) or {}
        return f"{found.get('type', '')} {found.get('name') or found.get('id', '')}".strip()

    return value


_COLUMNS = (
    Column("TIME", "publishedAt", "time"),
    Column("TYPE", "type"),
    Column("OBJECT", _thing("object")),
    Column("REPOSITORY", "repository"),
    Column("BY", lambda record: record.get("actorName") or record.get("actor") or record.get("actorType")),
)


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--before", "publishedBefore", type=Moment(ahead=False), help="Only earlier ones."),
        click.option(
            "--after", "publishedAfter", type=Moment(ahead=False), help="Only later ones: 2h, 2026-11-27."
        ),
        click.option(
            "--type", "eventType", metavar="TYPE", help="Only of this type: CREATE, GET, UPDATE, DELETE, …"
        ),
        click.option("--kind", "objectType", metavar="KIND", help="Only about things of this kind: tag, grant, …"),
        click.option("--actor", "actorId", metavar="ID", help="Only what this account did, by its id."),
        click.option("--no-pulls", "excludePull", is_flag=True, help="Without pulls."),
    ):
        function = option(function)
    return function


@click.group()
def event() -> None:
    """Events of a server, over its API."""


@event.command("list")
@with_remote
@with_list
@click.argument("repository", required=False)
@_filters
def list_events(remote: Remote, repository: str | None, output: Output, limit: int | None, **filters: Any) -> None:
    """
    List what happened, the latest first.

    In one REPOSITORY, or everywhere, which only administrators and auditors may see.
    """
    path, names = _place(repository)
    records = remote.records(path, names, key="events", limit=limit, query=_query(filters))
    output.listing(records, _COLUMNS, name="id")


@event.command("export")
@with_remote
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", help="Lines of JSON, or CSV."
)
@click.argument("repository", required=False)
@_filters
def export_events(remote: Remote, repository: str | None, form: str, **filters: Any) -> None:
    """
    Print all events for other programs, the latest first.

    For administrators and auditors.
    """
    query = {"format": form, "repository": repository, **_query(filters)}
    for line in remote.lines("/api/v0/events/export", query=query):
        click.echo(line)


@event.command("follow")
@with_remote
@click.option("--json", "as_json", is_flag=True, help="Print the API's records, one a line.")
@click.argument("repository", required=False)
@_filters
def follow_events(remote: Remote, repository: str | None, as_json: bool, **filters: Any) -> None:
    """Print what happens from now on, until it is interrupted."""
    path, names = _place(repository)
    output = Output(as_json)
    with suppress(KeyboardInterrupt):
        for new in _follow(remote, path, names, _query(filters)):
            output.listing(new, _COLUMNS)


def _follow(remote: Remote, path: str, names: dict[str, str], query: dict[str, Any]) -> Iterator[list[Record]]:
    """What happened since the last time, the earliest first; it does not end."""
    seen = next((one["id"] for one in remote.records(path, names, key="events", limit=1, query=query)), None)
    while True:
        time.sleep(_POLL_SECONDS)
        new = list(_until(remote.records(path, names, key="events", query=query, page_size=_POLLED), seen))
        if new:
            seen = new[0]["id"]
            yield new[::-1]


def _until(records: Iterator[Record], last: str | None) -> Iterator[Record]:
    for record in records:
        if record["id"] == last:
            return
        yield record


def _place(repository: str | None) -> tuple[str, dict[str, str]]:
    if repository is None:
        return _EVENTS, {}
    return "/api/v0/repositories/{repository}/events", {"repository": repository}


def _query(filters: dict[str, Any]) -> dict[str, Any]:
    wanted = {name: value for name, value in filters.items() if value not in {None, False}}
    if "eventType" in wanted:
        wanted["eventType"] = wanted["eventType"].upper()
    return wanted
