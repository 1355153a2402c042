"""
Rows that a process may remember, because hardly anything changes what they are read from.

Whoever changes a registry is asked for the rights of this moment, so every push looks at them; and after a commit
of anybody SQLite reads its pages anew. Pushes commit all the time, but nothing that rights depend on. Hence:

* `schema.SELDOM` names the columns that change seldom; a `Statement` that reads no others may be ``remembered``.
* A *stamp* is a number that all processes of a machine share. Whoever commits a change of such a column takes it
  away before the commit, and makes a new one, which nobody has seen before, after it.
* A row is good as long as the stamp is that of before it was read. So a change that was acknowledged is seen at
  once, by everybody.

Without a stamp nothing is remembered: in a new file, and after the death of a writer in between, until the next
turn makes one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from sys import getsizeof
from time import monotonic
from typing import TYPE_CHECKING

from dtr.db.schema import SELDOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dtr.db.statement import Row

_REMEMBERED_SECONDS = 1.0
"""
A row is good for no longer, whatever the stamp says: it may depend on the time, as a token does that comes to its
end, and somebody may have written to the file with other tools.
"""
_REMEMBERED_ROWS = 1024
_LARGEST_VALUES = 4096
"""For values of more bytes altogether no row is remembered: clients send them."""
_BYTES = 8


class Stamp:
    """The number, in the file of the lock by which writers take turns; only who has the turn changes it."""

    def __init__(self, path: Path) -> None:
        """Of the database `path`. Raises OSError."""
        self.descriptor = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        """Of the file."""
        _give_away(self.descriptor, path)
        if os.fstat(self.descriptor).st_size < _BYTES:
            with contextlib.suppress(OSError):  # room now, so that a full disk keeps nobody from a change
                os.posix_fallocate(self.descriptor, 0, _BYTES)

    def read(self) -> int:
        """What it is now; 0: there is none. Raises OSError."""
        return int.from_bytes(os.pread(self.descriptor, _BYTES, 0))

    def begin(self) -> None:
        """Before a change is committed: take it away. Raises OSError."""
        os.pwrite(self.descriptor, bytes(_BYTES), 0)

    def end(self) -> None:
        """When it is committed or rolled back: a new one; or none, if that cannot be written."""
        with contextlib.suppress(OSError):
            os.pwrite(self.descriptor, os.urandom(_BYTES), 0)

    def close(self) -> None:
        """Close the file; it may be closed already."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Memory:
    """What a process remembers."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._rows: dict[tuple[object, ...], tuple[int, float, Row | None]] = {}

    def fetch(self, text: str, values: Sequence[object], read: Callable[[], Row | None]) -> Row | None:
        """
        The row of a statement with these values, which `read` reads if it is not known.

        Raises OSError, and what `read` raises.
        """
        what = (text, *values)
        stamp, at = self._stamp.read(), monotonic()
        known = self._rows.get(what)
        if known is not None and known[0] == stamp and at < known[1]:
            return known[2]
        row = read()
        if stamp and sum(map(getsizeof, values)) <= _LARGEST_VALUES:
            if len(self._rows) >= _REMEMBERED_ROWS:
                self._rows.clear()
            self._rows[what] = (stamp, at + _REMEMBERED_SECONDS, row)
        return row


class Changes:
    """
    Whether statements of a connection change what changes seldom.

    SQLite says so when it prepares one, its cascades included.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.were_made = False
        """Whether one that ran since this was set to False does."""
        self._changing: set[str] = set()
        self._running = ""
        connection.set_authorizer(self._note)

    def run(self, text: str) -> None:
        """A statement is going to run, and is prepared if it was not."""
        self._running = text
        if text in self._changing:
            self.were_made = True

    def _note(self, action: int, table: str | None, column: str | None, *_: str | None) -> int:
        if action in _CHANGES and table in SELDOM and (column is None or column in SELDOM[table]):
            self._changing.add(self._running)
            self.were_made = True
        return sqlite3.SQLITE_OK


_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


def _give_away(descriptor: int, path: Path) -> None:
    """
    Let root's file belong to whom the database `path` belongs, as SQLite does with its own.

    Otherwise a command that root runs would leave a lock to the server that it may not open. A file that has
    another name, too, stays root's, and a symbolic link was not opened: who owns the directory may have put
    either there.
    """
    if os.geteuid():
        return
    with contextlib.suppress(FileNotFoundError):  # a new database is root's, too
        owner, there = path.stat(), os.fstat(descriptor)
        if there.st_nlink == 1 and (there.st_uid, there.st_gid) != (owner.st_uid, owner.st_gid):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
