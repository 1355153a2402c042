"""
Looking into a backup of DTR 2.6 and later.

Since 2.6 DTR keeps blobs under random ids, and what these mean in its database, which a backup has as
``dtr-backup-v<version>/rethink/<table>/<n>`` in a tar archive. What the files of a table look like is not
documented. So nothing is imported from a backup: it is read as far as its form is known, and told what was found,
for those who know more. Guesses would make images that are none.

An archive may come from anywhere. Nothing is unpacked and no link followed; headers are read one by one, and
content only of small files in the few places that count, up to bounds.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO

from msgspec import Struct, field

from dtr.registry.importing import ImportRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLES = ("repositories", "manifests", "tags", "blobs", "blob_links")
"""What an import would need."""
_BLOCK = tarfile.BLOCKSIZE
_MOST_MEMBERS = 1_000_000
_MOST_READ = 100
"""Files of a table that are looked into."""
_LARGEST_READ = 1024 * 1024
_MOST_FIELDS = 50
_FILE = re.compile(
    r"(?:\./)?dtr-backup-v(?P<version>[0-9A-Za-z.-]{1,40})/rethink/(?P<table>[a-z_]{1,60})/[^/]{1,100}"
)


class Table(Struct):
    """A table of a backup: its files and their bytes, and what the first of them are."""

    files: int = 0
    size: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    fields: set[str] = field(default_factory=set)
    """Of the documents, when they are such."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.kinds.items()))
        fields = f" with the fields {', '.join(sorted(self.fields))}" if self.fields else ""
        return f"{self.files} files of {self.size} bytes: {kinds}{fields}"


class Backup(Struct):
    """What a backup has: the versions in its paths, its tables by name, and how many files of other kinds."""

    versions: set[str] = field(default_factory=set)
    tables: dict[str, Table] = field(default_factory=dict)
    others: int = 0

    @property
    def lines(self) -> list[str]:
        """What was found, for people."""
        found = [f"a backup of DTR {', '.join(sorted(self.versions))}"]
        found += [f"table {name}: {table}" for name, table in sorted(self.tables.items())]
        missing = sorted(set(TABLES) - self.tables.keys())
        if missing:
            found.append(f"it has no table {', '.join(missing)}")
        return [*found, f"{self.others} other members"]


def look_into(path: Path) -> Backup:
    """What is in the archive at `path`. Raises ImportRefused: it is no backup; OSError."""
    backup = Backup()
    with path.open("rb") as file:
        for member in _members(file):
            match = _FILE.fullmatch(member.name)
            if match is None or not member.isreg():
                backup.others += 1
                continue
            if len(backup.versions) < _MOST_FIELDS:
                backup.versions.add(match["version"])
            if match["table"] not in backup.tables and len(backup.tables) >= _MOST_FIELDS:
                backup.others += 1
                continue
            table = backup.tables.setdefault(match["table"], Table())
            table.files += 1
            table.size += member.size
            if table.files <= _MOST_READ:
                _look_at(table, file, member.size)
    if not backup.tables:
        raise ImportRefused("it has no tables of DTR: they are called dtr-backup-v<version>/rethink/<table>/<n>")
    return backup


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """
    The headers of an archive; at each, the file is where the content begins.

    `tarfile` itself reads extended headers whole, however large they say to be; here they are members like others,
    for no name that counts needs one.
    """
    end = file.seek(0, 2)
    position = 0
    for _ in range(_MOST_MEMBERS):
        file.seek(position)
        block = file.read(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            return
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ImportRefused(f"it is no tar archive, or a broken one: {error} at byte {position}") from None
        size = -(-member.size // _BLOCK) * _BLOCK if member.size > 0 else 0
        if position + _BLOCK + size > end:
            raise ImportRefused(f"the archive ends in the middle of {member.name[:200]!r}")
        yield member
        position += _BLOCK + size
    raise ImportRefused(f"the archive has more than {_MOST_MEMBERS} members")


def _look_at(table: Table, file: BinaryIO, size: int) -> None:
    if size > _LARGEST_READ:
        table.kinds["too large to be looked at"] += 1
        return
    documents = _documents(file.read(size))
    if documents is None:
        table.kinds["no JSON"] += 1
        return
    table.kinds["JSON"] += 1
    for document in documents:
        if isinstance(document, dict):
            table.fields.update(name[:100] for name in list(document)[: _MOST_FIELDS - len(table.fields)])


def _documents(content: bytes) -> list[Any] | None:
    """The JSON documents of a file: one, a list of them, or one a line; None: it is something else."""
    try:
        text = content.decode()
        try:
            document = json.loads(text)
        except ValueError:
            return [json.loads(line) for line in text.splitlines() if line.strip()] or None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, list) else [document]
