"""
What each process keeps in memory of the database, read anew when it has changed.

Whoever changes it counts up its revision, a row of `revisions`, in the same unit of work. Every process asks for
that number each second, and reads again when it is another one; the process that changed something asks at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import Text, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db.errors import DatabaseError
from dtr.db.schema import revisions
from dtr.db.statement import Statement
from dtr.repeating import repeat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dtr.db.database import Database, Transaction

_POLL_SECONDS = 1.0

_name = bindparam("name", type_=Text)
_GET = Statement(lambda: select(revisions.c.value).where(revisions.c.name == _name))
_COUNT_UP = Statement(
    lambda: (
        insert(revisions)
        .values(name=_name, value=1)
        .on_conflict_do_update(index_elements=["name"], set_={"value": revisions.c.value + 1})
    )
)


class Revision:
    """The revision of one thing that is kept in memory, as this process follows it."""

    def __init__(
        self,
        database: Database,
        name: str,
        read: Callable[[], Awaitable[None]],
        *,
        is_due: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        `name` is its row. `read` reads what is kept, and keeps it; it is not called before the first change.

        `is_due` tells whether it is to be read although nobody changed it.
        """
        self._database = database
        self._name = name
        self._read = read
        self._is_due = is_due
        self._known = 0
        self._reading = asyncio.Lock()

    async def count_up(self, tx: Transaction) -> None:
        """In a unit of work that changes what is kept. Whoever else does this waits until it is committed."""
        await tx.execute(_COUNT_UP, name=self._name)

    async def refresh(self) -> None:
        """Read, when it is not known yet. Raises DatabaseError, and what `read` raises: then it is not known."""
        async with self._reading:  # one after the other: what was read before replaces nothing that was read later
            row = await self._database.fetch_one(_GET, name=self._name)
            current = int(row[0]) if row else 0
            if current != self._known or self._is_due():
                # Should it change in between, it is newer than the revision, and is read once more.
                await self._read()
                self._known = current

    async def follow(
        self, tell: Callable[[Exception], None], failures: tuple[type[Exception], ...] = (DatabaseError,)
    ) -> None:
        """
        Follow the changes of other processes, until cancelled.

        After a failure (what `refresh` raises of `failures`) what was known goes on to hold; `tell` is told of the
        first one in a row.
        """
        await repeat(self.refresh, seconds=_POLL_SECONDS, tell=tell, failures=failures)
