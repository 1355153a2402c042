"""
Following the events: each of them at least once, one process at a time, from where the last one was.

On PostgreSQL an event may be committed after one with a higher id. So whoever follows remembers the ids that were
not there, and looks for them again as long as a unit of work may still be under way; and what is stored as done
ends before the first of them. Who takes over begins there, and gets some events twice.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Text, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import event_cursors, events
from dtr.events.history import COLUMNS, recorded

if TYPE_CHECKING:
    from dtr.db import Database, Transaction
    from dtr.events.history import Recorded

LEASE_MS = 30_000
_LATE_SECONDS = 300
"""So long after a later one an event may still be committed."""
_MOST_GAPS = 10_000
BATCH = 500
"""At most so many events are fetched at a time."""

_mine = bindparam("holder", type_=Text)
_claimed = insert(event_cursors).values(
    name=bindparam("name"),
    position=select(func.coalesce(func.max(events.c.id), 0)).scalar_subquery(),
    holder=_mine,
    held_until=now() + LEASE_MS,
)
_CLAIM = Statement(
    lambda: _claimed.on_conflict_do_update(
        index_elements=["name"],
        set_={"holder": _claimed.excluded.holder, "held_until": _claimed.excluded.held_until},
        where=or_(event_cursors.c.holder == _claimed.excluded.holder, event_cursors.c.held_until < now()),
    ).returning(event_cursors.c.position)
)
_ADVANCE = Statement(
    lambda: (
        update(event_cursors)
        .where(and_(event_cursors.c.name == bindparam("which"), event_cursors.c.holder == _mine))
        .values(position=bindparam("position", type_=BigInteger), held_until=now() + LEASE_MS)
    )
)
_RELEASE = Statement(
    lambda: (
        update(event_cursors)
        .where(and_(event_cursors.c.name == bindparam("which"), event_cursors.c.holder == _mine))
        .values(held_until=now() - 1)
    )
)
_FIND = Statement(
    lambda: (
        select(*COLUMNS, (now() - events.c.published_at) / 1000)
        .where(events.c.id > bindparam("after", type_=BigInteger))
        .order_by(events.c.id)
        .limit(BATCH)
    )
)
_FIND_LATE = Statement(
    lambda: select(*COLUMNS).where(in_list(events.c.id, "ids")).order_by(events.c.id).limit(BATCH)
)


class Follower:
    """Somebody who follows the events, called `name` in all processes."""

    def __init__(self, database: Database, name: str, holder: str = "") -> None:
        """`holder`: who that is, when it ends and begins anew, so that it need not wait for its own lease."""
        self._database = database
        self._name = name
        self._holder = holder or uuid.uuid4().hex
        self._seen = self._stored = 0
        self._renewed = 0.0
        self._gaps: dict[int, float] = {}
        """Ids that were not there, and when that was noticed, by this process's clock that is never set."""

    async def claim(self) -> bool:
        """
        Be the one who follows, for `LEASE_MS`; False: another process does.

        Who was it already stays it. The first of all begins with the events to come.
        """
        position = await self._database.unit(self._claim, durable=False)
        if position is None:
            return False
        self._seen, self._gaps = position, {}
        self._stored, self._renewed = position, time.monotonic()
        return True

    async def fetch(self) -> list[Recorded]:
        """The next events, those that are late included; empty: there are none now."""
        late = []
        if self._gaps:
            too_long_ago = time.monotonic() - _LATE_SECONDS
            self._gaps = {one: since for one, since in self._gaps.items() if since > too_long_ago}
            late = [recorded(row) for row in await self._database.fetch_all(_FIND_LATE, ids=list(self._gaps))]
        rows = await self._database.fetch_all(_FIND, after=self._seen)
        noticed = time.monotonic()
        for number, *_, age in rows:
            # What is missing before an old event will never be there.
            if age < _LATE_SECONDS and len(self._gaps) + number - self._seen - 1 <= _MOST_GAPS:
                self._gaps |= dict.fromkeys(range(self._seen + 1, number), noticed)
            self._seen = number
        for one in late:
            del self._gaps[one.id]
        return late + [recorded(row) for row in rows]

    @property
    def position(self) -> int:
        """The id up to which all events were fetched."""
        return min(self._gaps, default=self._seen + 1) - 1

    async def advance(self, position: int) -> bool:
        """
        All events up to an id are done with, and this process wants to go on.

        False: another one follows now, and does them again.
        """
        moment = time.monotonic()
        if position == self._stored and moment < self._renewed + LEASE_MS / 3000:
            return True
        self._stored, self._renewed = position, moment

        return await self._database.unit(lambda tx: self.advance_within(tx, position), durable=False)

    async def advance_within(self, tx: Transaction, position: int) -> bool:
        """The same in the transaction of what is done with the events: both are committed, or neither."""
        return await tx.execute(_ADVANCE, which=self._name, holder=self._holder, position=position) > 0

    async def release(self) -> None:
        """Let another process follow at once."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_RELEASE, which=self._name, holder=self._holder)

        await self._database.unit(work, durable=False)

    async def _claim(self, tx: Transaction) -> int | None:
        row = await tx.fetch_one(_CLAIM, name=self._name, holder=self._holder)
        return int(row[0]) if row else None
