"""
Rows that a process may remember, because hardly anything changes what they are read from.

Whoever changes a registry is asked for the rights of this moment, so every push looks at them; and after a commit
of anybody SQLite reads its pages anew. Pushes commit all the time, but nothing that rights depend on. Hence:

* `schema.SELDOM` names the columns that change seldom; a `Statement` that reads no others may be ``remembered``.
* A *stamp* is a number that all processes of a machine share. Whoever commits a change of such a column makes it
  odd before the commit and even, and larger, after it.
* A row is good as long as the stamp is the even one of before it was read. So a change that was acknowledged is
  seen at once, by everybody.

A writer that is killed in between leaves the stamp odd: nothing is remembered until the next turn makes it even.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from time import monotonic
from typing import TYPE_CHECKING

from dtr.db.schema import SELDOM

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dtr.db.statement import Row

_REMEMBERED_SECONDS = 1.0
"""
A row is good for no longer, whatever the stamp says: it may depend on the time, as a token does that comes to its
end, and somebody may have written to the file with other tools.
"""
_REMEMBERED_ROWS = 1024
_BYTES = 8


class Stamp:
    """The number, in the file of the lock by which writers take turns; only who has the turn changes it."""

    def __init__(self, path: Path) -> None:
        """Of the database `path`. Raises OSError."""
        self.descriptor = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        """Of the file."""
        if os.fstat(self.descriptor).st_size < _BYTES:
            with contextlib.suppress(OSError):  # room now, so that a full disk keeps nobody from a change
                os.posix_fallocate(self.descriptor, 0, _BYTES)

    def read(self) -> int:
        """What it is now. Raises OSError."""
        return int.from_bytes(os.pread(self.descriptor, _BYTES, 0), "little")

    def begin(self) -> None:
        """Before a change is committed. Raises OSError."""
        self._write(self.read() | 1)

    def end(self) -> None:
        """When it is committed or rolled back. Raises OSError."""
        self._write((self.read() | 1) + 1)

    def close(self) -> None:
        """Close the file; it may be closed already."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, number: int) -> None:
        os.pwrite(self.descriptor, number.to_bytes(_BYTES, "little"), 0)


class Memory:
    """What a process remembers."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._rows: dict[tuple[object, ...], tuple[int, float, Row | None]] = {}

    def fetch(self, what: tuple[object, ...], read: Callable[[], Row | None]) -> Row | None:
        """The row that `read` reads, or read before. Raises OSError, and what `read` raises."""
        stamp, at = self._stamp.read(), monotonic()
        known = self._rows.get(what)
        if known is not None and known[0] == stamp and at < known[1]:
            return known[2]
        row = read()
        if not stamp & 1:
            if len(self._rows) >= _REMEMBERED_ROWS:
                self._rows.clear()
            self._rows[what] = (stamp, at + _REMEMBERED_SECONDS, row)
        return row


class Changes:
    """
    Which statements of a connection change what changes seldom.

    SQLite says so when it prepares one, its cascades included.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._changing: set[str] = set()
        self._running = ""
        connection.set_authorizer(self._note)

    def run(self, text: str) -> None:
        """A statement is going to run, and is prepared if it was not."""
        self._running = text

    def made_by(self, text: str) -> bool:
        """Whether a statement that ran makes such changes."""
        return text in self._changing

    def _note(self, action: int, table: str | None, column: str | None, *_: str | None) -> int:
        if action in _CHANGES and table in SELDOM and (column is None or column in SELDOM[table]):
            self._changing.add(self._running)
        return sqlite3.SQLITE_OK


_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
