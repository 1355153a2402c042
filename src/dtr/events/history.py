"""
Reading events: pages of them, newest first, by filters; and forgetting old ones.

Events are in the order of their ids, which is the order in which they were written down. Pulls are most of them,
hence each index over events is two: one of the pulls, one of everything else (`dtr.db.schema`). A page is the
union of a page of each, and whatever is asked for, a page walks along an index and reads little more than itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)

from dtr.db import Statement
from dtr.db.schema import events, repositories, repository_redirects
from dtr.events.event import FACTS, Actor, EventType, Kind, Object
from dtr.events.retention import Bounds, Retention

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import ColumnElement, Select

    from dtr.db import Database, Row

MOST_COUNTED = 100_000
"""`Events.count` counts no further."""
_PAGE = 250
_LARGEST_ID = 2**63 - 1
_SKEW_MS = 600_000
"""No event has a higher id than another one and a moment so much earlier: no unit of work takes so long."""
_PULLED = frozenset({"tag", "manifest"})
_CONTENT = ("repository", "tag", "manifest", "blob")
_CHANGES = ("CREATE", "UPDATE", "DELETE", "SCAN")

COLUMNS = (events.c.id, events.c.published_at, *FACTS)
"""What `recorded` reads, in its order."""
# Not a parameter: a planner has to see that this is what the indexes are about.
_is_pull = events.c.type == literal_column("'GET'")
_limit = bindparam("limit", type_=BigInteger)


class Filter(Struct, frozen=True, kw_only=True):
    """
    Which events are asked for; None: whatever it is.

    Moments in milliseconds since 1970 UTC, `after` included, `before` not. `content_only` leaves out what needs
    more than seeing a repository: pulls, and what is done with grants, policies and webhooks.
    """

    repository_id: int | None = None
    actor: str | None = None
    address: str | None = None
    type: EventType | None = None
    object_type: Kind | None = None
    after: int | None = None
    before: int | None = None
    exclude_pulls: bool = False
    content_only: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a type or kind that there is not: they go into statements."""
        if self.type not in {None, *get_args(EventType)} or self.object_type not in {None, *get_args(Kind)}:
            raise ValueError("there are no such events")


class Recorded(Struct, frozen=True):
    """An event as it was written down; `published_at` in milliseconds since 1970 UTC."""

    id: int
    published_at: int
    type: EventType
    actor: Actor
    repository_id: int | None
    repository: str
    object: Object
    target: Object | None
    times: int = 1


class Events:
    """The history of the whole registry."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.retention = Retention(database)

    async def compact(self, *, max_age: int | None = None, to_keep: int | None = None) -> int:
        """
        Delete old events of repositories; how many.

        Old is what happened longer ago than `max_age`, in milliseconds, or before the newest `to_keep`.
        """
        return await self.retention.compact(Bounds(max_age=max_age, keep=to_keep))

    async def list_events(self, wanted: Filter, *, start: int | None = None, limit: int) -> list[Recorded]:
        """At most `limit` events, newest first, from the one with the id `start` (None: the newest) on."""
        statement, parameters = _prepare(wanted, counts=False)
        rows = await self._database.fetch_all(
            statement, **parameters, start=_LARGEST_ID if start is None else start, limit=limit
        )
        return [recorded(row) for row in rows]

    async def count(self, wanted: Filter) -> int:
        """How many there are; who gets `MOST_COUNTED` knows that there may be more."""
        statement, parameters = _prepare(wanted, counts=True)
        row = await self._database.fetch_one(statement, **parameters, start=_LARGEST_ID, limit=MOST_COUNTED)
        return min(int(row[0]), MOST_COUNTED) if row else 0

    async def walk(self, wanted: Filter) -> AsyncIterator[list[Recorded]]:
        """All of them, newest first, in pages; those that come meanwhile are not among them."""
        start = None
        while page := await self.list_events(wanted, start=start, limit=_PAGE):
            yield page
            if len(page) < _PAGE:
                return
            start = page[-1].id - 1

    async def find_account(self, name: str) -> str | None:
        """The id of the account that was called so last, and is gone; None: none ever was."""
        row = await self._database.fetch_one(_FIND_DELETED_ACCOUNT, name=name)
        return str(row[0]) if row else None

    async def find_repository(self, path: str) -> int | None:
        """The id of the repository that is called so, or was called so last; None: nothing ever was."""
        row = await self._database.fetch_one(_FIND_REPOSITORY, path=path)
        if row is None:
            row = await self._database.fetch_one(_FIND_DELETED_REPOSITORY, path=path)
        return int(row[0]) if row else None


# --- pages ----------------------------------------------------------------------------------------------------

_moment = events.c.published_at + literal_column("0", BigInteger)  # no index is over this
_FILTERS = {
    "repository_id": events.c.repository_id == bindparam("repository_id", type_=BigInteger),
    "actor": events.c.actor == bindparam("actor", type_=Text),
    "address": events.c.address == bindparam("address", type_=Text),
    # The moments, and ids between which all such moments are: by these the rows are found, not by the former.
    "after": and_(
        _moment >= bindparam("after", type_=BigInteger),
        events.c.id
        >= func.coalesce(
            select(events.c.id)
            .where(events.c.published_at < bindparam("after", type_=BigInteger) - _SKEW_MS)
            .order_by(events.c.published_at.desc())
            .limit(1)
            .scalar_subquery(),
            literal(0, BigInteger),
        ),
    ),
    "before": and_(
        _moment < bindparam("before", type_=BigInteger),
        events.c.id
        <= func.coalesce(
            select(events.c.id)
            .where(events.c.published_at >= bindparam("before", type_=BigInteger) + _SKEW_MS)
            .order_by(events.c.published_at)
            .limit(1)
            .scalar_subquery(),
            literal(_LARGEST_ID, BigInteger),
        ),
    ),
    "content_only": and_(
        or_(*(events.c.object_type == one for one in _CONTENT)), or_(*(events.c.type == one for one in _CHANGES))
    ),
}
_NARROW = frozenset({"repository_id", "actor", "address"})
"""Each of these has indexes of its own."""


def _prepare(wanted: Filter, *, counts: bool) -> tuple[Statement, dict[str, Any]]:
    given = {
        name: value for name in _FILTERS if (value := getattr(wanted, name)) is not None and value is not False
    }
    pulls = (
        not wanted.exclude_pulls
        and not wanted.content_only
        and wanted.type in {None, "GET"}
        and (wanted.object_type is None or wanted.object_type in _PULLED)
    )
    statement = _statement(frozenset(given), wanted.type, wanted.object_type, pulls=pulls, counts=counts)
    given.pop("content_only", None)
    return statement, given


@lru_cache(maxsize=512)
def _statement(
    filters: frozenset[str], kind: EventType | None, object_kind: Kind | None, *, pulls: bool, counts: bool
) -> Statement:
    """A page of events, or their number, by these filters; whether there may be `pulls` among them."""
    conditions = [_FILTERS[name] for name in sorted(filters)]
    parts = []
    if pulls:
        about = [] if object_kind is None else [_is(events.c.object_type, object_kind)]
        parts.append(_part(_is_pull, *about, *conditions, counts=counts))
    if kind != "GET":
        narrow = bool(filters & _NARROW) or "content_only" in filters
        parts += [
            _part(not_(_is_pull), *ranged, *conditions, counts=counts)
            for ranged in _ranges(kind, object_kind, split=not narrow)
        ]
    if not parts:
        parts = [_part(_is_pull, events.c.id < 0, counts=counts)]
    found = union_all(*(part.subquery().select() for part in parts)).subquery("found")
    if counts:
        return Statement(select(func.count()).select_from(found))
    return Statement(select(found).order_by(found.c.id.desc()).limit(_limit))


def _ranges(kind: EventType | None, object_kind: Kind | None, *, split: bool) -> list[list[ColumnElement[bool]]]:
    """
    Conditions for events that are no pulls, of a type and about some kind of objects; alternatives.

    There is an index over both. When only one of them is given, `split` makes a range of it for each value of
    the other.
    """
    types = [kind] if kind else [one for one in get_args(EventType) if one != "GET"]
    kinds = [object_kind] if object_kind else list(get_args(Kind))
    if (kind or object_kind) and split:
        return [[_is(events.c.object_type, a), _is(events.c.type, b)] for a in kinds for b in types]
    ranged = [_is(events.c.object_type, object_kind)] if object_kind else []
    return [ranged + ([_is(events.c.type, kind)] if kind else [])]


def _is(column: ColumnElement[str], word: str) -> ColumnElement[bool]:
    """Not a parameter: a planner that sees the word knows whether it is a rare one. It is one of our own."""
    return column == literal_column(f"'{word}'")


def _part(*conditions: ColumnElement[bool], counts: bool) -> Select[Any]:
    columns = (literal(1),) if counts else COLUMNS
    return (
        select(*columns)
        .where(*conditions, events.c.id <= bindparam("start", type_=BigInteger))
        .order_by(events.c.id.desc())
        .limit(_limit)
    )


def recorded(row: Row) -> Recorded:
    """The event of a row that begins with `COLUMNS`."""
    number, moment, kind, actor, actor_name, actor_type, address, repository_id, repository, *rest = row[
        : len(COLUMNS)
    ]
    target = Object(*rest[4:8]) if rest[4] is not None else None
    return Recorded(
        number,
        moment,
        kind,
        Actor(actor_type, actor, actor_name, address),
        repository_id,
        repository,
        Object(*rest[:4]),
        target,
        rest[8],
    )


_FIND_REPOSITORY = Statement(
    lambda: union_all(
        select(repositories.c.id).where(
            repositories.c.path == bindparam("path", type_=Text), repositories.c.deleted_at.is_(None)
        ),
        select(repository_redirects.c.repository_id).where(
            repository_redirects.c.path == bindparam("path", type_=Text)
        ),
    ).limit(1)
)
_FIND_DELETED_REPOSITORY = Statement(
    lambda: (
        select(events.c.repository_id)
        .where(
            not_(_is_pull),
            events.c.object_type == "repository",
            events.c.type == "DELETE",
            events.c.object_name == bindparam("path", type_=Text),
        )
        .order_by(events.c.id.desc())
        .limit(1)
    )
)
_FIND_DELETED_ACCOUNT = Statement(
    lambda: (
        select(events.c.object_id)
        .where(
            not_(_is_pull),
            events.c.object_type == "account",
            events.c.type == "DELETE",
            events.c.object_name == bindparam("name", type_=Text),
        )
        .order_by(events.c.id.desc())
        .limit(1)
    )
)
