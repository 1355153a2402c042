"""What happened to collections, in turn: the changefeed (notary-v1, sections 2.6 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, and_, bindparam, exists, or_, select

from dtr.accounts.visibility import VISIBLE
from dtr.db import Statement, now
from dtr.db.schema import repositories, trust_changes
from dtr.trust.files import Change

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from dtr.db import Database
    from dtr.trust.files import Collection

_given = bindparam("given", type_=BigInteger)
_FILTERS: dict[str, tuple[ColumnElement[bool], ...]] = {
    "all": (),
    "one": (
        trust_changes.c.repository_id == bindparam("repository", type_=BigInteger),
        trust_changes.c.gun == bindparam("gun"),
    ),
    "readable": (
        exists().where(
            repositories.c.id == trust_changes.c.repository_id, repositories.c.deleted_at.is_(None), VISIBLE
        ),
    ),
}


def _statement(filters: tuple[ColumnElement[bool], ...], *, backwards: bool) -> Statement:
    bound = or_(_given <= 0, trust_changes.c.id < _given) if backwards else trust_changes.c.id > _given
    order = trust_changes.c.id.desc() if backwards else trust_changes.c.id
    return Statement(
        select(
            trust_changes.c.id,
            trust_changes.c.created_at,
            trust_changes.c.gun,
            trust_changes.c.version,
            trust_changes.c.sha256,
            trust_changes.c.category,
        )
        .where(and_(bound, trust_changes.c.created_at <= now() - bindparam("age", type_=BigInteger), *filters))
        .order_by(order)
        .limit(bindparam("limit", type_=BigInteger))
    )


_LISTS = {
    (name, backwards): _statement(filters, backwards=backwards)
    for name, filters in _FILTERS.items()
    for backwards in (False, True)
}


async def find_changes(
    database: Database,
    *,
    after: int,
    records: int,
    collection: Collection | None,
    readable_by: dict[str, Any] | None,
    age: int,
) -> list[Change]:
    """See `Trust.list_changes`."""
    backwards = records < 0 or after < 0
    parameters: dict[str, Any] = {"given": after, "limit": abs(records), "age": age}
    if collection is not None:
        parameters |= {"repository": collection.repository, "gun": collection.gun}
    which = "one" if collection is not None else "all" if readable_by is None else "readable"
    if which == "readable":
        parameters |= readable_by or {}
    rows = await database.fetch_all(_LISTS[which, backwards], **parameters)
    found = [Change(*row) for row in rows]
    return found[::-1] if backwards else found
