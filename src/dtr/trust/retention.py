"""
Forgetting old files of content trust.

All roots stay: a client that was away for long walks from each to the next. Of other roles a file goes when it is
not current, and a newer one has been there for so long that no client can hold a timestamp any more that leads to
it. The newest of a role always stays, current or not: versions never come again.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import BigInteger, Text, and_, bindparam, delete, exists, select, tuple_

from dtr.db import Statement, each_row, in_rows, now
from dtr.db.schema import trust_files, trust_roles
from dtr.tuf import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dtr.db import Database, Transaction

    Key: TypeAlias = tuple[int, str, str, int]
    """A file by its repository, GUN, role and version."""

KEPT = 30 * 86_400_000
"""Milliseconds. Timestamps are good for two weeks, and caches may keep files for thirty days."""
_PAGE = 500

_key = (trust_files.c.repository_id, trust_files.c.gun, trust_files.c.role, trust_files.c.version)
_newer = trust_files.alias("newer")
_is_current = exists().where(
    trust_roles.c.repository_id == trust_files.c.repository_id,
    trust_roles.c.gun == trust_files.c.gun,
    trust_roles.c.role == trust_files.c.role,
    trust_roles.c.version == trust_files.c.version,
)
_was_replaced = exists().where(
    _newer.c.repository_id == trust_files.c.repository_id,
    _newer.c.gun == trust_files.c.gun,
    _newer.c.role == trust_files.c.role,
    _newer.c.version > trust_files.c.version,
    _newer.c.created_at < now() - bindparam("kept", type_=BigInteger),
)
_LIST = Statement(
    lambda: (
        select(*_key, and_(trust_files.c.role != ROOT, _was_replaced, ~_is_current))
        .where(
            tuple_(*_key)
            > tuple_(
                bindparam("repository", type_=BigInteger),
                bindparam("gun", type_=Text),
                bindparam("role", type_=Text),
                bindparam("version", type_=BigInteger),
            )
        )
        .order_by(*_key)
        .limit(_PAGE)
    )
)
_old = each_row("old", *_key)
_is_old = in_rows(_key, _old)
_LOCK = Statement(lambda: select(trust_files.c.version).where(_is_old).order_by(*_key).with_for_update())
_DELETE = Statement(lambda: delete(trust_files).where(_is_old, ~_is_current))


class OldFiles:
    """Files that others took the place of long ago."""

    def __init__(self, database: Database, *, kept: int = KEPT) -> None:
        """`kept`: so many milliseconds after that they stay."""
        self._database = database
        self._kept = kept

    async def forget(self) -> AsyncGenerator[int, None]:
        """Delete them, a page at a time; how many of each page."""
        last: Key = (0, "", "", 0)
        while True:
            names = dict(zip(("repository", "gun", "role", "version"), last, strict=True))
            rows = await self._database.fetch_all(_LIST, **names, kept=self._kept)
            old = [row[:-1] for row in rows if row[-1]]
            yield await self._database.unit(partial(_delete, json.dumps(list(map(list, old))))) if old else 0
            if len(rows) < _PAGE:
                return
            last = (rows[-1][0], rows[-1][1], rows[-1][2], rows[-1][3])


async def _delete(old: str, tx: Transaction) -> int:
    """Clients may make snapshots that lead to an old file: whoever has the locks sees whether one did."""
    await tx.fetch_all(_LOCK, old=old)
    return await tx.execute(_DELETE, old=old)
