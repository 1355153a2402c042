"""
Replicas: the process trees of an installation, as they report themselves.

One process of each reports every few seconds. A replica that ends in order takes its row with it; one that is not
heard of any more stays, as not seen, for a week.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, Integer, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, now
from dtr.db.schema import replicas
from dtr.repeating import repeat

if TYPE_CHECKING:
    from pathlib import Path

    from dtr.db import Database, Row, Transaction

_log = logging.getLogger("dtr.replicas")

_ID = re.compile(r"[0-9a-f]{12}")
_BEAT_SECONDS = 5.0
_SILENT_MS = 30_000
_FORGOTTEN_MS = 7 * 24 * 3_600_000

_which = replicas.c.id == bindparam("which")
_facts = {
    "node": bindparam("node"),
    "version": bindparam("version"),
    "components": bindparam("components"),
    "http_port": bindparam("http_port", type_=Integer),
    "https_port": bindparam("https_port", type_=Integer),
}
_join = insert(replicas).values(id=bindparam("id"), started_at=now(), seen_at=now(), **_facts)
_JOIN = Statement(
    lambda: _join.on_conflict_do_update(
        index_elements=["id"],
        set_={name: _join.excluded[name] for name in (*_facts, "started_at", "seen_at")},
    )
)
_BEAT = Statement(lambda: update(replicas).where(_which).values(seen_at=now()))
_FORGET = Statement(lambda: delete(replicas).where(replicas.c.seen_at < now() - _FORGOTTEN_MS))
_LEAVE = Statement(lambda: delete(replicas).where(_which))
_LIST = Statement(
    lambda: select(
        replicas.c.id,
        replicas.c.node,
        replicas.c.version,
        replicas.c.components,
        replicas.c.http_port,
        replicas.c.https_port,
        replicas.c.started_at,
        replicas.c.seen_at,
        (now() - replicas.c.seen_at).cast(BigInteger),
    ).order_by(replicas.c.id)
)


class Replica(Struct, frozen=True):
    """A process tree: its host, and the ports that it listens on (None: not)."""

    id: str
    node: str
    version: str
    components: tuple[str, ...]
    http_port: int | None
    https_port: int | None


class Seen(Struct, frozen=True):
    """A replica, and when it was heard of last; moments in milliseconds since 1970 UTC."""

    replica: Replica
    started_at: int
    seen_at: int
    is_there: bool


class Replicas:
    """All of an installation; this process belongs to `own`."""

    def __init__(self, database: Database, own: Replica) -> None:
        self._database = database
        self.own = own

    async def list_replicas(self) -> list[Seen]:
        """Those that are there, or were a week ago, by id."""
        return [_seen(row) for row in await self._database.fetch_all(_LIST)]

    async def keep_reporting(self) -> None:
        """Report that this replica is there, until cancelled."""
        joined = False

        async def report() -> None:
            nonlocal joined
            joined = await self._report(joined=joined)

        def tell(error: Exception) -> None:
            _log.warning("replica not reported", extra={"reason": str(error)})

        await repeat(report, seconds=_BEAT_SECONDS, tell=tell, failures=(DatabaseError,), first_after=0)

    async def leave(self) -> None:
        """Say that this replica has ended. Raises DatabaseError."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_LEAVE, which=self.own.id)

        await self._database.unit(work, durable=False)

    async def _report(self, *, joined: bool) -> bool:
        own = self.own

        async def work(tx: Transaction) -> None:
            if joined and await tx.execute(_BEAT, which=own.id):
                return
            await tx.execute(
                _JOIN,
                id=own.id,
                node=own.node,
                version=own.version,
                components=json.dumps(own.components),
                http_port=own.http_port,
                https_port=own.https_port,
            )
            await tx.execute(_FORGET)

        await self._database.unit(work, durable=False)
        return True


def replica_id(directory: Path) -> str:
    """
    Which replica a data directory belongs to: 12 hexadecimal digits, made up when it has none.

    Raises OSError.
    """
    file = directory / "replica-id"
    try:
        known = file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        known = ""
    if _ID.fullmatch(known):
        return known
    made = secrets.token_hex(6)
    draft = directory / f"replica-id.{os.getpid()}"
    draft.write_text(f"{made}\n", encoding="ascii")
    draft.replace(file)
    return made


def _seen(row: Row) -> Seen:
    number, node, version, components, http_port, https_port, started_at, seen_at, age = row
    replica = Replica(number, node, version, tuple(json.loads(components)), http_port, https_port)
    return Seen(replica, started_at, seen_at, is_there=age < _SILENT_MS)
