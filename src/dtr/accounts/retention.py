"""
Forgetting what opens no account any more: sessions that ended, and tokens some time after that.

Until then a token that expired is listed, so that who wonders why a script is refused finds the reason. An access
token that was switched off may be switched on again, and stays. A refresh token that was, is of no use to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, and_, bindparam, delete, func, select, union_all

from dtr.db import Statement, in_list, now
from dtr.db.schema import accounts, sessions, tokens
from dtr.events import Actor, Event, Object, record

if TYPE_CHECKING:
    from dtr.db import Database, Row, Transaction

_BATCH = 500
_COLLECTOR = Actor("system", name="collector")

_is_over = sessions.c.expires_at <= now()
_ENDED_SESSIONS = Statement(
    lambda: (
        select(sessions.c.id)
        .where(_is_over)
        .order_by(sessions.c.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    )
)
_DELETE_SESSIONS = Statement(lambda: delete(sessions).where(in_list(sessions.c.id, "ids"), _is_over))

_long_ago = now() - bindparam("kept", type_=BigInteger)
_has_expired = and_(tokens.c.expires_at.is_not(None), tokens.c.expires_at < _long_ago)
_was_revoked = and_(
    tokens.c.is_active.is_(False),
    tokens.c.kind == "refresh",
    tokens.c.created_at < _long_ago,
    func.coalesce(tokens.c.last_used_at, 0) < _long_ago,
)
# Each from its own index; a token may be in both.
_ended = union_all(select(tokens.c.id).where(_has_expired), select(tokens.c.id).where(_was_revoked)).subquery()
_ENDED_TOKENS = Statement(
    lambda: (
        select(tokens.c.id, tokens.c.label, accounts.c.id, accounts.c.name)
        .join_from(tokens, accounts, tokens.c.account_id == accounts.c.id)
        .where(tokens.c.id.in_(select(_ended.c.id).limit(_BATCH)))
        .order_by(tokens.c.id)
        .with_for_update(skip_locked=True, of=tokens)
    )
)
_DELETE_TOKENS = Statement(lambda: delete(tokens).where(in_list(tokens.c.id, "ids")))
_COUNT = Statement(
    lambda: select(
        select(func.count()).select_from(sessions).where(_is_over).scalar_subquery(),
        select(func.count(_ended.c.id.distinct())).scalar_subquery(),
    )
)


class Forgotten(Struct, frozen=True):
    """How many there were."""

    sessions: int = 0
    tokens: int = 0


class Retention:
    """Deletes sessions and tokens that are over."""

    def __init__(self, database: Database, *, kept: int) -> None:
        """`kept` is how many milliseconds after its end a token is still listed."""
        self._database = database
        self._kept = kept

    async def count(self) -> Forgotten:
        """What `forget` would delete now."""
        row = await self._database.fetch_one(_COUNT, kept=self._kept)
        return Forgotten() if row is None else Forgotten(row[0], row[1])

    async def forget(self) -> Forgotten:
        """Delete what is over, in small units, without waiting for anybody; how many."""
        ended_sessions = ended_tokens = 0
        while found := await self._database.unit(_delete_sessions):
            ended_sessions += found
        while found := await self._database.unit(self._delete_tokens):
            ended_tokens += found
        return Forgotten(ended_sessions, ended_tokens)

    async def _delete_tokens(self, tx: Transaction) -> int:
        rows = await tx.fetch_all(_ENDED_TOKENS, kept=self._kept)
        if rows:
            await tx.execute(_DELETE_TOKENS, ids=[row[0] for row in rows])
            await record(tx, *map(_deleted, rows))
        return len(rows)


async def _delete_sessions(tx: Transaction) -> int:
    ids = [row[0] for row in await tx.fetch_all(_ENDED_SESSIONS)]
    return await tx.execute(_DELETE_SESSIONS, ids=ids) if ids else 0


def _deleted(row: Row) -> Event:
    token, label, account_id, account = row
    return Event(
        type="DELETE",
        actor=_COLLECTOR,
        object=Object("token", token, label, "expired"),
        target=Object("account", account_id, account),
    )
