"""
How records are printed.

On a terminal: tables that fit, with times as people tell them. Otherwise lines with tabs between the same columns,
for scripts. With ``--json`` the records as the API gives them, one a line; with ``-q`` their names alone.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click
from msgspec import Struct

from dtr.cli._common import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Record: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["text", "time", "size", "number"]

_ROWS_AT_ONCE = 500
"""So many rows of a long list are laid out together: they are shown before the whole list is there."""
_GAP = 2
_NARROWEST = 4
_STEPS = ((60, "second"), (60, "minute"), (24, "hour"), (7, "day"), (52 / 12, "week"), (12, "month"))


class Column(Struct, frozen=True):
    """A column: its title, and what stands in it: a field of the record, or what a function makes of it."""

    title: str
    value: str | Callable[[Record], Any]
    kind: Kind = "text"

    def of(self, record: Record, *, now: dt.datetime | None) -> str:
        """The cell for people who read it `now`, or (None) for scripts."""
        found = record.get(self.value) if isinstance(self.value, str) else self.value(record)
        if found is None or found == "":
            return ""
        if self.kind == "time":
            return told(str(found), now) if now else exact(str(found))
        if self.kind == "size" and now:
            return sized(int(found))
        if isinstance(found, bool):
            return "yes" if found else "no"
        return printable(str(found))


class Output(Struct, frozen=True):
    """What the options of a command say about printing."""

    as_json: bool = False
    names_only: bool = False

    def listing(
        self, records: Iterable[Record], columns: Sequence[Column], *, name: str | Callable[[Record], Any] = "name"
    ) -> None:
        """Print records, those that came first before the others are asked for."""
        if self.as_json:
            for record in records:
                click.echo(json.dumps(record, ensure_ascii=False))
        elif self.names_only:
            for record in records:
                click.echo(printable(str(record[name] if isinstance(name, str) else name(record))))
        elif sys.stdout.isatty():
            _tables(records, columns)
        else:
            for record in records:
                click.echo("\t".join(column.of(record, now=None) for column in columns))

    def record(self, record: Record, columns: Sequence[Column]) -> None:
        """Print one record, a line for each column that has something."""
        if self.as_json:
            click.echo(json.dumps(record, ensure_ascii=False))
            return
        now = dt.datetime.now(dt.UTC) if sys.stdout.isatty() else None
        width = max(len(column.title) for column in columns) + 2
        for column in columns:
            cell = column.of(record, now=now)
            if cell:
                click.echo(f"{column.title.capitalize() + ':':<{width}}{cell}")


def told(text: str, now: dt.datetime) -> str:
    """A moment of the API as people tell it: ``3 hours ago``, ``in 2 days``, ``never``."""
    then = _moment(text)
    if then is None:
        return "never"
    amount = abs((now - then).total_seconds())
    unit = "year"
    for step, name in _STEPS:
        if amount < step:
            unit = name
            break
        amount /= step
    if unit == "second" and amount < 5:
        return "now"
    number = int(amount)
    words = f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{words} ago" if then <= now else f"in {words}"


def exact(text: str) -> str:
    """A moment of the API in UTC, to the second; empty: it has not come."""
    then = _moment(text)
    return "" if then is None else then.astimezone(dt.UTC).isoformat(timespec="seconds")


def sized(number: float) -> str:
    """A number of bytes as people tell it, in decimal units as those of disks."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _moment(text: str) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    return found if found.year > 1 else None


def fitted(widths: list[int], room: int) -> list[int]:
    """Widths of columns that fit into `room`: of the widest ones as much is taken as there is too much."""
    fitting = list(widths)
    while sum(fitting) > room and max(fitting) > _NARROWEST:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def _tables(records: Iterable[Record], columns: Sequence[Column]) -> None:
    """Print a table, in parts when it is long."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    coming = iter(records)
    is_first = True
    while part := list(islice(coming, _ROWS_AT_ONCE)):
        now = dt.datetime.now(dt.UTC)
        rows = [[column.of(record, now=now) for column in columns] for record in part]
        lines = [[column.title for column in columns], *rows]
        widths = [max(cell_len(line[place]) for line in lines) for place in range(len(columns))]
        table = Table(box=None, show_header=is_first, pad_edge=False, padding=(0, _GAP, 0, 0))
        room = console.width - _GAP * (len(columns) - 1)
        for column, width in zip(columns, fitted(widths, room), strict=True):
            justify: Literal["left", "right"] = "right" if column.kind in {"number", "size"} else "left"
            table.add_column(Text(column.title), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        is_first = False
