"""
Pulls: counted, and written down as events, a moment after they were served.

A pull writes nothing while the client waits. Each process keeps its own in memory and writes them about once a
second, many in one unit of work. What a process has not written yet is lost when it is killed, and what comes
while the database does not answer for long; an orderly end writes everything.

A pull of a tag counts for the tag and for its repository. A pull by digest counts for the manifest, and for the
repository unless an index there names it: clients fetch an index by its tag or digest, and then by digest the
image that is for them, which is still one pull. `HEAD` is none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import BigInteger, and_, case, column, exists, not_, or_, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, each_row, now
from dtr.db.schema import manifest_references, manifests, pulls, tags, usage_deltas
from dtr.events import Event, Object, record
from dtr.registry.usage import of_repository
from dtr.repeating import repeat

if TYPE_CHECKING:
    from dtr.db import Database, Transaction
    from dtr.events import Actor

_log = logging.getLogger("dtr.pulls")

_FLUSH_SECONDS = 1.0
_BATCH = 500
"""Pulls in a unit: the writer of SQLite is busy with them for some milliseconds."""
_CAPACITY = 100_000

_asked = each_row(
    "asked",
    pulls.c.repository_id,
    pulls.c.reference,
    usage_deltas.c.scope,
    pulls.c.pulls,
    column("age", BigInteger),
)
_moment = now() - _asked.c.age
_is_there = or_(
    exists().where(tags.c.repository_id == _asked.c.repository_id, tags.c.name == _asked.c.reference),
    exists().where(manifests.c.repository_id == _asked.c.repository_id, manifests.c.digest == _asked.c.reference),
)
_is_child = exists().where(
    manifest_references.c.repository_id == _asked.c.repository_id,
    manifest_references.c.kind == "manifest",
    manifest_references.c.target == _asked.c.reference,
)
_counted = insert(pulls).from_select(
    ["repository_id", "reference", "pulls", "last_pulled_at"],
    # What was deleted meanwhile begins anew when it comes again.
    select(_asked.c.repository_id, _asked.c.reference, _asked.c.pulls, _moment).where(_is_there),
)
_COUNT = Statement(
    _counted.on_conflict_do_update(
        index_elements=["repository_id", "reference"],
        set_={
            "pulls": pulls.c.pulls + _counted.excluded.pulls,
            "last_pulled_at": case(
                (pulls.c.last_pulled_at < _counted.excluded.last_pulled_at, _counted.excluded.last_pulled_at),
                else_=pulls.c.last_pulled_at,
            ),
        },
    )
)
_COUNT_IN_REPOSITORY = Statement(
    insert(usage_deltas).from_select(
        ["scope", "pulls", "pulled_at"],
        select(_asked.c.scope, _asked.c.pulls, _moment).where(and_(_is_there, not_(_is_child))),
    )
)


class _Pull(NamedTuple):
    repository: int
    reference: str
    digest: str
    by: Actor
    moment: float
    """By this process's clock that is never set, in seconds."""


class Pulls:
    """The pulls of one process."""

    def __init__(self, database: Database, *, capacity: int = _CAPACITY) -> None:
        """At most `capacity` pulls wait to be written."""
        self._database = database
        self._capacity = capacity
        self._waiting: list[_Pull] = []
        self._writing = asyncio.Lock()
        self._lost = 0

    def add(self, repository: int, reference: str, digest: str, *, by: Actor) -> None:
        """The manifest `digest` was served, which was asked for as `reference`."""
        if len(self._waiting) < self._capacity:
            self._waiting.append(_Pull(repository, reference, digest, by, time.monotonic()))
        else:
            self._lost += 1

    async def run(self) -> None:
        """Write what waits, about once a second, until cancelled."""

        def tell(error: Exception) -> None:
            _log.warning("pulls not written", extra={"pulls": len(self._waiting), "reason": str(error)})

        await repeat(self.flush, seconds=_FLUSH_SECONDS, tell=tell)

    async def flush(self) -> int:
        """Write what waits; how many pulls. Raises DatabaseError: what was not written waits again."""
        written = 0
        async with self._writing:
            while self._waiting:
                batch, self._waiting[:_BATCH] = self._waiting[:_BATCH], []
                try:
                    # Whoever cancels this has it finished all the same.
                    await self._database.unit(partial(_write, batch), durable=False)
                except DatabaseError:
                    self._waiting[:0] = batch
                    raise
                except Exception:
                    self._lost += len(batch)  # it would never be written, and everything behind it would wait
                    raise
                written += len(batch)
        if self._lost:
            _log.warning("pulls lost", extra={"pulls": self._lost, "reason": "too many waited"})
            self._lost = 0
        return written

    async def close(self) -> None:
        """Write what waits; what cannot be written is lost, and the log says so."""
        try:
            await self.flush()
        except DatabaseError as error:
            _log.warning("pulls lost", extra={"pulls": len(self._waiting) + self._lost, "reason": str(error)})


async def _write(batch: list[_Pull], tx: Transaction) -> None:
    """Write pulls down: an event of each, and the counts."""
    moment = time.monotonic()
    counts: dict[tuple[int, str], list[int]] = {}
    for pull in batch:
        age = max(0, round((moment - pull.moment) * 1000))
        count = counts.setdefault((pull.repository, pull.reference), [0, age])
        count[0] += 1
        count[1] = min(count[1], age)
    asked = json.dumps(
        [
            (repository, reference, of_repository(repository), times, age)
            for (repository, reference), (times, age) in sorted(counts.items())  # in one order, for all who count
        ]
    )
    await tx.execute(_COUNT, asked=asked)
    await tx.execute(_COUNT_IN_REPOSITORY, asked=asked)
    # The same pulls by the same client, a hundred of a build, are one event.
    same: dict[tuple[int, str, str, Actor], int] = {}
    first: dict[tuple[int, str, str, Actor], _Pull] = {}
    for pull in batch:
        key = pull[:4]
        same[key] = same.get(key, 0) + 1
        first.setdefault(key, pull)
    await record(tx, *(_event(first[key], times, moment) for key, times in same.items()))


def _event(pull: _Pull, times: int, moment: float) -> Event:
    is_tag = ":" not in pull.reference
    return Event(
        type="GET",
        actor=pull.by,
        object=Object("tag", pull.reference, pull.reference, pull.digest)
        if is_tag
        else Object("manifest", pull.digest),
        repository_id=pull.repository,
        age=max(0, round((moment - pull.moment) * 1000)),
        times=times,
    )
