"""
Forgetting old events, by age and by number, as DTR does; either is enough.

What happened in repositories is history, and goes when it is told to. What happened elsewhere (log-ins, accounts,
tokens, settings) is the audit trail: a bound on the history does not touch it, it has an age of its own. Whatever
it is, it stays until those who follow the events have seen it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, and_, bindparam, delete, func, literal, or_, select

from dtr.db import Statement, in_list, now
from dtr.db.schema import event_cursors, events

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.db import Database, Transaction

_log = logging.getLogger("dtr.events")

_LARGEST = 2**63 - 1
_BATCH = 500
_PAUSE_SECONDS = 300.0
_AWAITED_MS = 3_600_000
"""So long after it was heard of last, somebody who follows the events is expected to go on."""

_after = bindparam("after", type_=BigInteger)
# Of those who follow, or did a while ago: who is switched off keeps nothing.
_seen_by_all = func.coalesce(
    select(func.min(event_cursors.c.position))
    .where(event_cursors.c.held_until > now() - _AWAITED_MS)
    .scalar_subquery(),
    literal(_LARGEST, BigInteger),
)
_is_history = events.c.repository_id.is_not(None)
_is_too_old = events.c.published_at < now() - bindparam("max_age", type_=BigInteger)
_PAGE = Statement(
    lambda: (
        select(
            events.c.id,
            _is_history,
            or_(
                and_(_is_history, or_(events.c.id <= bindparam("last_surplus", type_=BigInteger), _is_too_old)),
                and_(
                    events.c.repository_id.is_(None),
                    events.c.published_at < now() - bindparam("audit_age", type_=BigInteger),
                ),
            ),
        )
        # The newest stays: SQLite would give its id again, and who follows the events would not see the next one.
        .where(
            events.c.id > _after,
            events.c.id < select(func.max(events.c.id)).scalar_subquery(),
            events.c.id <= _seen_by_all,
        )
        .order_by(events.c.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_DELETE = Statement(lambda: delete(events).where(in_list(events.c.id, "ids")))
_some = (
    select(events.c.id)
    .where(_is_history, events.c.id < bindparam("before", type_=BigInteger))
    .order_by(events.c.id.desc())
    .limit(bindparam("some", type_=BigInteger))
    .subquery()
)
_COUNT = Statement(lambda: select(func.count(), func.min(_some.c.id)).select_from(_some))
_NEVER = 2**52
"""An age, in milliseconds, that nothing has."""


class Bounds(Struct, frozen=True, kw_only=True):
    """What stays; ages in milliseconds, None: whatever it is."""

    max_age: int | None = None
    """Of what happened in repositories."""
    keep: int | None = None
    """So many of the newest events in repositories."""
    audit_age: int | None = None
    """Of everything else."""


class Retention:
    """Deletes events that nobody wants to keep."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bounds = Bounds()
        self._cleared = 0

    async def run(self, bounds: Callable[[], Bounds]) -> None:
        """Compact now and then, by the bounds of the moment, until cancelled."""
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                deleted = await self.compact(bounds())
            except Exception:  # noqa: BLE001 - it goes on, whatever it was
                _log.exception("deleting events failed")
            else:
                if deleted:
                    _log.info("events deleted", extra={"events": deleted})

    async def compact(self, bounds: Bounds) -> int:
        """
        Delete what is out of bounds, oldest first, in small units; how many events.

        Several may do so at the same time.
        """
        if bounds == Bounds():
            return 0
        if bounds != self._bounds:  # up to an id there was nothing to delete; that holds for those bounds only
            self._bounds, self._cleared = bounds, 0
        last_surplus = await self._last_surplus(bounds.keep) if bounds.keep else 0
        after, deleted, cleared = self._cleared, 0, True
        while True:
            # Whatever of this is lost with the power is deleted once more.
            seen, last, kept, gone = await self._database.unit(
                partial(_delete_some, after, bounds, last_surplus), durable=False
            )
            deleted += gone
            # What stays only because it is not old enough has to be looked at again, and all that follows.
            cleared = cleared and not kept
            if cleared:
                self._cleared = last
            if seen < _BATCH or (kept and not gone):  # what follows is newer still
                return deleted
            after = last

    async def _last_surplus(self, keep: int) -> int:
        """The id of the newest event in a repository that is one too many; 0: there is none."""
        before, left = _LARGEST, keep + 1
        while True:
            row = await self._database.fetch_one(_COUNT, before=before, some=min(left, _BATCH))
            if row is None or row[0] < min(left, _BATCH):
                return 0
            before, left = int(row[1]), left - row[0]
            if not left:
                return before
            await asyncio.sleep(0)


async def _delete_some(
    after: int, bounds: Bounds, last_surplus: int, tx: Transaction
) -> tuple[int, int, bool, int]:
    """
    Look at a batch behind the id `after`, and delete what is out of bounds.

    How many there were, the id of the last, whether one stays that may be out of bounds later, how many are gone.
    """
    rows = await tx.fetch_all(
        _PAGE,
        after=after,
        last_surplus=last_surplus,
        max_age=bounds.max_age or _NEVER,
        audit_age=bounds.audit_age or _NEVER,
    )
    ids = [row[0] for row in rows if row[2]]
    if ids:
        await tx.execute(_DELETE, ids=ids)
    kept = any(
        not goes and (bounds.max_age or bounds.keep if is_history else bounds.audit_age)
        for _, is_history, goes in rows
    )
    return len(rows), rows[-1][0] if rows else after, kept, len(ids)
