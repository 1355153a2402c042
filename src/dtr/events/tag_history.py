"""
What a tag named, and when: read from the events, as far back as they are kept.

A push of what a tag names already is an event, too, and moves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, literal_column, select

from dtr.db import Statement
from dtr.db.schema import events
from dtr.events.history import COLUMNS, recorded

if TYPE_CHECKING:
    from dtr.db import Database, Row
    from dtr.events.event import Actor

_LARGEST_ID = 2**63 - 1
_HISTORY = Statement(
    lambda: (
        select(*COLUMNS)
        .where(
            # Not parameters: a planner has to see that this is what the index is about.
            events.c.object_type == literal_column("'tag'"),
            events.c.type != literal_column("'GET'"),
            events.c.repository_id == bindparam("repository", type_=BigInteger),
            events.c.object_name == bindparam("tag"),
            events.c.id <= bindparam("start", type_=BigInteger),
        )
        .order_by(events.c.id.desc())
        .limit(bindparam("limit", type_=BigInteger))
    )
)


class TagChange(Struct, frozen=True, kw_only=True):
    """Something that happened to a tag, at so many milliseconds since 1970 UTC."""

    id: int
    at: int
    digest: str
    """What it named from then on; empty: it was deleted."""
    before: str
    """What it named until then; empty: it was new."""
    actor: Actor


class TagHistory:
    """What the tags of all repositories named."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_changes(
        self, repository: int, tag: str, *, start: int | None = None, limit: int
    ) -> list[TagChange]:
        """At most `limit` changes, the newest first, from the one with the id `start` on."""
        rows = await self._database.fetch_all(
            _HISTORY, repository=repository, tag=tag, start=_LARGEST_ID if start is None else start, limit=limit
        )
        return [_change(row) for row in rows]


def _change(row: Row) -> TagChange:
    event = recorded(row)
    named = event.object.content
    if event.type == "DELETE":
        before, digest = named, ""
    elif event.type == "CREATE":
        before, digest = "", named
    else:
        before, digest = named, event.target.content if event.target else named
    return TagChange(id=event.id, at=event.published_at, digest=digest, before=before, actor=event.actor)
