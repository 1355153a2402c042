"""
What is counted: bytes, pulls and pushes of repositories and namespaces.

Whoever counts adds a row to `usage_deltas`, in the transaction of what it counts, and waits for nobody;
`Usage.fold` adds them up in `usage` from time to time. What is read is the sum of both in one statement, hence
exact at every moment.

What came in a day is in `usage_days`, for as many days as are kept. The pulls and pushes of the whole registry are
counted there only, when they are added up: some seconds later.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import time
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, each_row, in_list, now
from dtr.db.schema import usage, usage_days, usage_deltas
from dtr.registry.summaries import refresh

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sqlalchemy import ColumnElement

    from dtr.db import Database, Row, Transaction

_log = logging.getLogger("dtr.usage")

_BATCH = 1000
"""Rows in a unit: the writer of SQLite is busy with them for some milliseconds."""
_PAUSE_SECONDS = 5.0
_DAY_MS = 86_400_000
_HOUR_SECONDS = 3600.0
DAYS_KEPT = 400
"""A month can be compared with the same of the year before."""

_EPOCH = dt.date(1970, 1, 1)

WHOLE = "*"
"""The scope of the whole registry."""
_OF_ONE = "repository:"

_COUNT = Statement(
    lambda: insert(usage_deltas).values(
        scope=bindparam("scope"),
        bytes=bindparam("bytes", type_=BigInteger),
        pulls=bindparam("pulls", type_=BigInteger),
        pushes=bindparam("pushes", type_=BigInteger),
        pulled_at=bindparam("pulled_at", type_=BigInteger),
        pushed_at=bindparam("pushed_at", type_=BigInteger),
    )
)
_PUSH = Statement(lambda: insert(usage_deltas).values(scope=bindparam("scope"), pushes=1, pushed_at=now()))
_TOUCH = Statement(lambda: insert(usage_deltas).values(scope=bindparam("scope")))
_counted = union_all(
    *(
        select(
            table.c.scope, table.c.bytes, table.c.pulls, table.c.pushes, table.c.pulled_at, table.c.pushed_at
        ).where(in_list(table.c.scope, "scopes"))
        for table in (usage, usage_deltas)
    )
).subquery("counted")
_TOTALS = Statement(
    lambda: select(
        _counted.c.scope,
        cast(func.sum(_counted.c.bytes), BigInteger),
        cast(func.sum(_counted.c.pulls), BigInteger),
        cast(func.sum(_counted.c.pushes), BigInteger),
        func.max(_counted.c.pulled_at),
        func.max(_counted.c.pushed_at),
    ).group_by(_counted.c.scope)
)

# --- folding --------------------------------------------------------------------------------------------------

_SOME = Statement(
    lambda: (
        select(
            usage_deltas.c.id,
            usage_deltas.c.scope,
            usage_deltas.c.bytes,
            usage_deltas.c.pulls,
            usage_deltas.c.pushes,
            usage_deltas.c.pulled_at,
            usage_deltas.c.pushed_at,
            now(),
        )
        .order_by(usage_deltas.c.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_sum = insert(usage).values(
    scope=bindparam("scope"),
    bytes=bindparam("bytes", type_=BigInteger),
    pulls=bindparam("pulls", type_=BigInteger),
    pushes=bindparam("pushes", type_=BigInteger),
    pulled_at=bindparam("pulled_at", type_=BigInteger),
    pushed_at=bindparam("pushed_at", type_=BigInteger),
)


def _later(before: ColumnElement[Any], after: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((or_(before.is_(None), before < after), after), else_=before)


_ADD = Statement(
    lambda: _sum.on_conflict_do_update(
        index_elements=["scope"],
        set_={
            "bytes": usage.c.bytes + _sum.excluded.bytes,
            "pulls": usage.c.pulls + _sum.excluded.pulls,
            "pushes": usage.c.pushes + _sum.excluded.pushes,
            "pulled_at": _later(usage.c.pulled_at, _sum.excluded.pulled_at),
            "pushed_at": _later(usage.c.pushed_at, _sum.excluded.pushed_at),
        },
    )
)
_DONE = Statement(lambda: delete(usage_deltas).where(in_list(usage_deltas.c.id, "ids")))
_given = each_row(
    "given", usage_days.c.scope, usage_days.c.day, usage_days.c.bytes, usage_days.c.pulls, usage_days.c.pushes
)
_dated = insert(usage_days).from_select(
    ["scope", "day", "bytes", "pulls", "pushes"],
    select(_given.c.scope, _given.c.day, _given.c.bytes, _given.c.pulls, _given.c.pushes)
    .where(true())  # SQLite takes ON CONFLICT for a join otherwise
    .order_by(_given.c.scope, _given.c.day),
)
_ADD_DAYS = Statement(
    lambda: _dated.on_conflict_do_update(
        index_elements=["scope", "day"],
        set_={name: usage_days.c[name] + _dated.excluded[name] for name in ("bytes", "pulls", "pushes")},
    )
)
_END_DAYS = Statement(lambda: delete(usage_days).where(usage_days.c.day <= now() // _DAY_MS - DAYS_KEPT))

_FORGET = tuple(
    Statement(delete(table).where(table.c.scope == bindparam("scope")))
    for table in (usage_deltas, usage, usage_days)
)

# --- days -----------------------------------------------------------------------------------------------------

_today = now() // _DAY_MS
_from = bindparam("days", type_=BigInteger)
_part_of_day = union_all(
    # Beside the days: what there is of each scope in all, hence what there was before any of them.
    select(usage.c.scope, literal(-1, BigInteger).label("day"), usage.c.bytes, literal(0), literal(0)).where(
        in_list(usage.c.scope, "scopes")
    ),
    select(usage_deltas.c.scope, literal(-1, BigInteger), usage_deltas.c.bytes, literal(0), literal(0)).where(
        in_list(usage_deltas.c.scope, "scopes")
    ),
    select(
        usage_days.c.scope, usage_days.c.day, usage_days.c.bytes, usage_days.c.pulls, usage_days.c.pushes
    ).where(in_list(usage_days.c.scope, "scopes"), usage_days.c.day > _today - _from),
    select(
        usage_deltas.c.scope,
        func.coalesce(usage_deltas.c.pulled_at, usage_deltas.c.pushed_at, now()) // _DAY_MS,
        usage_deltas.c.bytes,
        usage_deltas.c.pulls,
        usage_deltas.c.pushes,
    ).where(in_list(usage_deltas.c.scope, "scopes")),
).subquery("part_of_day")
_scope, _day, _bytes, _pulls, _pushes = _part_of_day.c
_HISTORY = Statement(
    lambda: select(
        _scope,
        _day,
        cast(func.sum(_bytes), BigInteger),
        cast(func.sum(_pulls), BigInteger),
        cast(func.sum(_pushes), BigInteger),
        _today,
    ).group_by(_scope, _day)
)
_TODAY = Statement(lambda: select(_today))


class Counts(Struct, frozen=True, kw_only=True):
    """What was counted, or is to be added; moments in milliseconds since 1970 UTC, None: never."""

    bytes: int = 0
    pulls: int = 0
    pushes: int = 0
    pulled_at: int | None = None
    pushed_at: int | None = None

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            bytes=self.bytes + other.bytes,
            pulls=self.pulls + other.pulls,
            pushes=self.pushes + other.pushes,
            pulled_at=_latest(self.pulled_at, other.pulled_at),
            pushed_at=_latest(self.pushed_at, other.pushed_at),
        )


_NOTHING = Counts()


class Day(Struct, frozen=True):
    """What was counted of a scope on a day (UTC); `bytes` are those that it held when the day ended, or now."""

    day: dt.date
    bytes: int
    pulls: int
    pushes: int


def of_repository(repository: int) -> str:
    """The scope of a repository."""
    return f"{_OF_ONE}{repository}"


def of_namespace(account: str) -> str:
    """The scope of all repositories of an account, by its id; it counts a blob once."""
    return f"namespace:{account}"


async def count(tx: Transaction, counts: dict[str, Counts]) -> None:
    """Add something to what is counted of some scopes: one row each, which waits for nobody."""
    await tx.execute_many(_COUNT, [_parameters(scope, one) for scope, one in counts.items()])


async def count_push(tx: Transaction, repository: int) -> None:
    """Count a push to a repository, now."""
    await tx.execute(_PUSH, scope=of_repository(repository))


async def touch(tx: Transaction, repository: int) -> None:
    """Say that something changed in a repository that is not counted: its summary is made anew."""
    await tx.execute(_TOUCH, scope=of_repository(repository))


async def forget(tx: Transaction, scope: str) -> None:
    """Drop what was counted of what is no more."""
    for statement in _FORGET:
        await tx.execute(statement, scope=scope)


class Usage:
    """What was counted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, scopes: Iterable[str]) -> dict[str, Counts]:
        """What was counted of each scope, in one query."""
        wanted = list(scopes)
        rows = await self._database.fetch_all(_TOTALS, scopes=wanted)
        return dict.fromkeys(wanted, _NOTHING) | {row[0]: _counts(row[1:]) for row in rows}

    async def history(self, scopes: Iterable[str], *, days: int) -> dict[str, list[Day]]:
        """The last `days` days of each scope, today last, in one query. Before `DAYS_KEPT` nothing is known."""
        wanted = list(scopes)
        rows = await self._database.fetch_all(_HISTORY, scopes=wanted, days=days)
        if not rows:  # of none of them anything was ever counted
            ((today,),) = await self._database.fetch_all(_TODAY)
        else:
            today = rows[0][5]
        counted = {(scope, day): (size, pulls, pushes) for scope, day, size, pulls, pushes, _ in rows}
        return {scope: _days(scope, counted, today, days) for scope in wanted}

    async def fold(self) -> int:
        """Add up a batch of rows; how many there were. Several may do so at the same time."""

        async def work(tx: Transaction) -> int:
            rows = await tx.fetch_all(_SOME)
            if not rows:
                return 0
            sums: dict[str, Counts] = {}
            days: dict[tuple[str, int], Counts] = {}
            for _, scope, *counted, moment in rows:
                counts = _counts(counted)
                sums[scope] = sums.get(scope, _NOTHING) + counts
                day = (_latest(counts.pulled_at, counts.pushed_at) or moment) // _DAY_MS
                days[scope, day] = days.get((scope, day), _NOTHING) + counts
                if scope != WHOLE and (counts.pulls or counts.pushes):
                    taken = Counts(pulls=counts.pulls, pushes=counts.pushes)
                    days[WHOLE, day] = days.get((WHOLE, day), _NOTHING) + taken
            # In one order, so that two who fold never wait for each other in a circle.
            await tx.execute_many(_ADD, [_parameters(scope, sums[scope]) for scope in sorted(sums)])
            given = [[scope, day, one.bytes, one.pulls, one.pushes] for (scope, day), one in sorted(days.items())]
            await tx.execute(_ADD_DAYS, given=json.dumps(given))
            await refresh(tx, (int(one.removeprefix(_OF_ONE)) for one in sums if one.startswith(_OF_ONE)))
            await tx.execute(_DONE, ids=[row[0] for row in rows])
            return len(rows)

        return await self._database.unit(work)

    async def forget_days(self) -> int:
        """Drop the days that are not kept; how many rows."""
        return await self._database.unit(lambda tx: tx.execute(_END_DAYS))

    async def run(self) -> None:
        """Fold, and forget old days, until cancelled."""
        forgotten = float("-inf")
        while True:
            try:
                folded = await self.fold()
                if time.monotonic() - forgotten > _HOUR_SECONDS:
                    await self.forget_days()
                    forgotten = time.monotonic()
            except Exception:  # noqa: BLE001 - it goes on, whatever it was
                _log.exception("folding of usage failed")
                folded = 0
            await asyncio.sleep(0 if folded == _BATCH else _PAUSE_SECONDS)


def _days(scope: str, counted: dict[tuple[str, int], tuple[int, int, int]], today: int, days: int) -> list[Day]:
    """The days of a scope; day -1 of what was counted is what it has in all."""
    size = counted.get((scope, -1), (0, 0, 0))[0]
    found = []
    for day in range(today, today - days, -1):
        gained, pulls, pushes = counted.get((scope, day), (0, 0, 0))
        found.append(Day(_EPOCH + dt.timedelta(days=day), size, pulls, pushes))
        size -= gained
    return found[::-1]


def _counts(values: Row) -> Counts:
    size, pulls, pushes, pulled_at, pushed_at = values
    return Counts(bytes=size, pulls=pulls, pushes=pushes, pulled_at=pulled_at, pushed_at=pushed_at)


def _parameters(scope: str, counts: Counts) -> dict[str, object]:
    return {
        "scope": scope,
        "bytes": counts.bytes,
        "pulls": counts.pulls,
        "pushes": counts.pushes,
        "pulled_at": counts.pulled_at,
        "pushed_at": counts.pushed_at,
    }


def _latest(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
