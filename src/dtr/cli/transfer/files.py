"""
Files in CSV, one for each kind of item.

They are called ``users.csv``, ``organizations.csv``, ``teams.csv``, ``members.csv``, ``repositories.csv`` and
``grants.csv``. They are in UTF-8, and their first line names the columns, in any order. Columns may be left out,
other than those that say which item it is, and so may files. An empty field is not known, and what is there stays.
"""

from __future__ import annotations

import csv
import difflib
from typing import TYPE_CHECKING, Any

from dtr.cli._common import Failure
from dtr.cli.transfer.content import PLURALS, Content, Grant, Member, Organization, Repository, Team, User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dtr.cli.transfer.content import Item

_LONGEST_FIELD = 10_000_000
_YES_OR_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def _text(value: str) -> str:
    return value


def _flag(value: str) -> bool:
    try:
        return _YES_OR_NO[value.strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither yes nor no") from None


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is no number") from None


def _words(value: str) -> tuple[str, ...]:
    return tuple(value.split())


def _role(value: str) -> bool:
    try:
        return {"member": False, "owner": True, "admin": True}[value.strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is no role: member, owner (of an organization), admin (of a team)") from None


# Column: field of the item, how it is read, and whether it says which item it is.
COLUMNS: dict[type[Item], dict[str, tuple[str, Callable[[str], Any], bool]]] = {
    User: {
        "name": ("name", _text, True),
        "full_name": ("full_name", _text, False),
        "admin": ("is_admin", _flag, False),
        "auditor": ("is_auditor", _flag, False),
        "active": ("is_active", _flag, False),
        "password": ("password", _text, False),
    },
    Organization: {"name": ("name", _text, True), "full_name": ("full_name", _text, False)},
    Team: {
        "organization": ("organization", _text, True),
        "name": ("name", _text, True),
        "description": ("description", _text, False),
    },
    Member: {
        "organization": ("organization", _text, True),
        "team": ("team", _text, False),
        "user": ("user", _text, True),
        "role": ("is_admin", _role, False),
    },
    Repository: {
        "repository": ("path", _text, True),
        "visibility": ("visibility", _text, False),
        "description": ("short_description", _text, False),
        "readme": ("long_description", _text, False),
        "immutable": ("immutable_tags", _flag, False),
        "immutable_patterns": ("immutable_patterns", _words, False),
        "tag_limit": ("tag_limit", _number, False),
        "scan_on_push": ("scan_on_push", _flag, False),
    },
    Grant: {"on": ("on", _text, True), "to": ("who", _text, True), "level": ("level", _text, True)},
}


def read(directory: Path) -> Content:
    """What the files in a directory say. Raises Failure when there is none, or one cannot be read."""
    content = Content()
    found = False
    csv.field_size_limit(_LONGEST_FIELD)
    for kind, columns in COLUMNS.items():
        file = directory / f"{PLURALS[kind]}.csv"
        try:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                found = True
                for place, row in _rows(file.name, lines, columns):
                    _take(content, kind, columns, place, row)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Failure(f"{file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Failure(f"{file} is not in UTF-8") from None
    if not found:
        raise Failure(f"{directory} has none of {', '.join(f'{name}.csv' for name in PLURALS.values())}")
    return content


def write(directory: Path, content: Content) -> None:
    """Write the files into a directory, made when it is missing. Raises Failure, also when one is there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for kind, columns in COLUMNS.items():
            names = [name for name in columns if name != "password"]
            with (directory / f"{PLURALS[kind]}.csv").open("x", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(names)
                for item in content.items[kind].values():
                    writer.writerow([_shown(item, name, columns[name][0]) for name in names])
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None


def _rows(name: str, lines: Any, columns: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row with the place where it begins. Raises Failure when the columns are not those that are expected."""
    reader = csv.reader(lines, strict=True)
    begin = 1
    try:
        titles = [title.strip().lower() for title in next(reader, [])]
        _check_titles(name, titles, columns)
        while True:
            begin = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            if not row:
                continue
            place = f"{name}, line {begin}"
            if len(row) > len(titles):
                raise Failure(f"{place}: {len(row)} fields, but {len(titles)} columns")
            yield place, dict(zip(titles, row, strict=False))
    except csv.Error as error:
        raise Failure(f"{name}, line {begin}: {error}") from None


def _check_titles(name: str, titles: list[str], columns: Any) -> None:
    for title in titles:
        if title not in columns:
            near = difflib.get_close_matches(title, columns, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(columns)}"
            raise Failure(f"{name}, line 1: there is no column {title!r}{hint}")
        if titles.count(title) > 1:
            raise Failure(f"{name}, line 1: the column {title} is there twice")
    missing = [title for title, (_, _, is_needed) in columns.items() if is_needed and title not in titles]
    if missing:
        raise Failure(f"{name}, line 1: the column {missing[0]} is missing")


def _take(content: Content, kind: Any, columns: Any, place: str, row: dict[str, str]) -> None:
    fields: dict[str, Any] = {}
    for title, (attribute, parse, is_needed) in columns.items():
        value = row.get(title, "")
        if is_needed and not value:
            content.problems.append(f"{place}: {title} is empty")
            return
        try:
            if value:
                fields[attribute] = parse(value)
        except ValueError as error:
            content.problems.append(f"{place}: {title}: {error}")
            return
    content.add(kind(**fields), place)


def _shown(item: Item, title: str, attribute: str) -> str:
    value = getattr(item, attribute)
    if title == "role":
        return ("admin" if getattr(item, "team", "") else "owner") if value else "member"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value)
    return "" if value is None else str(value)
