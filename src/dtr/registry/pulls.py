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
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from sqlalchemy import BigInteger, and_, case, column, exists, not_, or_, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, each_row, now
from dtr.db.schema import manifest_references, manifests, pulls, tags, usage_deltas
from dtr.events import Event, Object, record
from dtr.registry.usage import of_repository
from dtr.repeating import repeat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.db import Database, Transaction
    from dtr.events import Actor

_log = logging.getLogger("dtr.pulls")

_FLUSH_SECONDS = 1.0
_BATCH = 500
"""Different pulls in a unit: the writer of SQLite is busy with them for some milliseconds."""
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
    lambda: _counted.on_conflict_do_update(
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
    lambda: insert(usage_deltas).from_select(
        ["scope", "pulls", "pulled_at"],
        select(_asked.c.scope, _asked.c.pulls, _moment).where(and_(_is_there, not_(_is_child))),
    )
)


_What: TypeAlias = "tuple[int, str, str, Actor]"
"""Repository, reference, digest, and who pulled: what is one event when it happens again within about a second."""


class _Times(Struct):
    """How often, and when: by this process's clock that is never set, in seconds."""

    count: int
    first: float
    last: float

    def join(self, later: _Times) -> None:
        """Add what happened after that."""
        self.count += later.count
        self.last = later.last


class Pulls:
    """The pulls of one process."""

    def __init__(self, database: Database, *, capacity: int = _CAPACITY) -> None:
        """At most `capacity` different pulls wait to be written."""
        self._database = database
        self._capacity = capacity
        self._waiting: dict[_What, _Times] = {}
        self._writing = asyncio.Lock()
        self._lost = 0

    def add(self, repository: int, reference: str, digest: str, *, by: Actor) -> None:
        """The manifest `digest` was served, which was asked for as `reference`."""
        what, now = (repository, reference, digest, by), time.monotonic()
        times = self._waiting.get(what)
        if times is not None:
            times.count += 1
            times.last = now
        elif len(self._waiting) < self._capacity:
            self._waiting[what] = _Times(1, now, now)
        else:
            self._lost += 1

    async def run(self) -> None:
        """Write what waits, about once a second, until cancelled."""

        def tell(error: Exception) -> None:
            _log.warning("pulls not written", extra={"pulls": self._count(), "reason": str(error)})

        await repeat(self.flush, seconds=_FLUSH_SECONDS, tell=tell)

    async def flush(self) -> int:
        """Write what waits; how many pulls. Raises DatabaseError: what was not written waits again."""
        written = 0
        async with self._writing:
            while self._waiting:
                batch = dict(islice(self._waiting.items(), _BATCH))
                for what in batch:
                    del self._waiting[what]
                count = sum(times.count for times in batch.values())
                try:
                    # Whoever cancels this has it finished all the same.
                    await self._database.unit(partial(_write, batch), durable=False)
                except DatabaseError:
                    self._put_back(batch)
                    raise
                except Exception:
                    self._lost += count  # it would never be written, and everything behind it would wait
                    raise
                written += count
        if self._lost:
            _log.warning("pulls lost", extra={"pulls": self._lost, "reason": "too many waited"})
            self._lost = 0
        return written

    async def close(self) -> None:
        """Write what waits; what cannot be written is lost, and the log says so."""
        try:
            await self.flush()
        except DatabaseError as error:
            _log.warning("pulls lost", extra={"pulls": self._count() + self._lost, "reason": str(error)})

    def _count(self) -> int:
        return sum(times.count for times in self._waiting.values())

    def _put_back(self, batch: dict[_What, _Times]) -> None:
        """Let a batch wait again, before what came since."""
        for what, times in self._waiting.items():
            if what in batch:
                batch[what].join(times)
            else:
                batch[what] = times
        self._waiting = batch


async def _write(batch: Mapping[_What, _Times], tx: Transaction) -> None:
    """Write pulls down: an event of each, and the counts."""
    moment = time.monotonic()
    counts: dict[tuple[int, str], list[int]] = {}
    for (repository, reference, _, _), times in batch.items():
        age = _age(times.last, moment)
        count = counts.setdefault((repository, reference), [0, age])
        count[0] += times.count
        count[1] = min(count[1], age)
    asked = json.dumps(
        [
            (repository, reference, of_repository(repository), times, age)
            for (repository, reference), (times, age) in sorted(counts.items())  # in one order, for all who count
        ]
    )
    await tx.execute(_COUNT, asked=asked)
    await tx.execute(_COUNT_IN_REPOSITORY, asked=asked)
    await record(tx, *(_event(what, times, moment) for what, times in batch.items()))


def _event(what: _What, times: _Times, moment: float) -> Event:
    repository, reference, digest, by = what
    return Event(
        type="GET",
        actor=by,
        object=Object("manifest", digest) if ":" in reference else Object("tag", reference, reference, digest),
        repository_id=repository,
        age=_age(times.first, moment),
        times=times.count,
    )


def _age(since: float, moment: float) -> int:
    """In milliseconds."""
    return max(0, round((moment - since) * 1000))
