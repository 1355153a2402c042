"""What the whole registry has: counted from what is counted of its parts, and what of it could go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, Text, cast, func, literal, select, union_all

from dtr.db import Statement
from dtr.db.schema import gc_objects, repositories, uploads, usage, usage_deltas
from dtr.registry.usage import WHOLE

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from dtr.db import Database
    from dtr.registry.collector import Collector

_FIRST, _BEHIND = "repository:", "repository;"
"""The scopes of all repositories are from the one to before the other."""

_counted = union_all(
    *(
        select(table.c.bytes, table.c.pulls, table.c.pushes).where(
            table.c.scope >= literal(_FIRST, Text), table.c.scope < literal(_BEHIND, Text)
        )
        for table in (usage, usage_deltas)
    )
).subquery("counted")
_stored = union_all(
    *(select(table.c.bytes).where(table.c.scope == literal(WHOLE, Text)) for table in (usage, usage_deltas))
).subquery("stored")


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


_TOTAL = Statement(
    lambda: select(
        select(_sum(_stored.c.bytes)).scalar_subquery(),
        select(func.count())
        .select_from(repositories)
        .where(repositories.c.deleted_at.is_(None))
        .scalar_subquery(),
    )
)
_COUNTED = Statement(lambda: select(_sum(_counted.c.bytes), _sum(_counted.c.pulls), _sum(_counted.c.pushes)))
_WAITING = Statement(
    lambda: select(
        func.count(),
        _sum(gc_objects.c.size),
        select(func.count()).select_from(uploads).scalar_subquery(),
        select(_sum(uploads.c.offset)).scalar_subquery(),
    ).select_from(gc_objects)
)


class Total(Struct, frozen=True):
    """What there is: bytes of all blobs, each once, and repositories."""

    stored: int
    repositories: int


class Counted(Struct, frozen=True):
    """What all repositories count, added up: bytes of their blobs, which they may share, pulls and pushes."""

    bytes: int
    pulls: int
    pushes: int


class Garbage(Struct, frozen=True):
    """
    What nothing holds, or what may be so; sizes in bytes.

    A collection would look at `manifests`, `links` and deleted `repositories`, and find `blobs` that go at once.
    `objects` wait for their deletion at the storage. `uploads` are under way or forgotten, of `upload_bytes`.
    """

    manifests: int
    links: int
    repositories: int
    blobs: int
    blob_bytes: int
    objects: int
    object_bytes: int
    uploads: int
    upload_bytes: int


class Totals:
    """Of the whole registry."""

    def __init__(self, database: Database, collector: Collector) -> None:
        """`collector` is asked what is due."""
        self._database = database
        self._collector = collector

    async def total(self) -> Total:
        """What there is."""
        row = await self._database.fetch_one(_TOTAL)
        assert row is not None
        return Total(*map(int, row))

    async def counted(self) -> Counted:
        """What is counted, in one query over every repository: some 40 ms for 100,000."""
        row = await self._database.fetch_one(_COUNTED)
        assert row is not None
        return Counted(*map(int, row))

    async def garbage(self, grace: int | None = None) -> Garbage:
        """What could go; with `grace`, of what was let go so many milliseconds ago. It is counted, row by row."""
        due = await self._collector.count_due(grace)
        free = await self._collector.count_free(grace)
        row = await self._database.fetch_one(_WAITING)
        assert row is not None
        return Garbage(due.manifests, due.links, due.repositories, free.blobs, free.size, *map(int, row))
