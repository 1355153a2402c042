"""
Pulls that policies object to, written down as events a moment later.

As with the pulls themselves (`dtr.registry.pulls`), nothing is written while the client waits; each process writes
its own about once a second, the same by the same client as one event. So whoever tries again and again fills
neither the memory nor the history. What a process has not written yet is lost when it is killed.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from dtr.db import DatabaseError
from dtr.events import Event, Object, record
from dtr.repeating import repeat

if TYPE_CHECKING:
    from dtr.db import Database, Transaction
    from dtr.enforcement.rules import Verdict
    from dtr.events import Actor

_log = logging.getLogger("dtr.enforcement")

_FLUSH_SECONDS = 1.0
_CAPACITY = 10_000
"""Different ones that wait to be written."""
_BATCH = 500


class _Refusal(NamedTuple):
    """What is told once, however often it happens within a second."""

    repository: int
    reference: str
    digest: str
    by: Actor
    scope: str
    content: str


class Refusals:
    """Those of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[_Refusal, tuple[int, float]] = {}
        self._lost = 0

    def add(self, repository: int, reference: str, digest: str, verdict: Verdict, *, by: Actor) -> None:
        """A pull met objections, and was refused or not, as the verdict says."""
        for objection in verdict.objections:
            policy = objection.policy
            content = json.dumps({"mode": policy.mode, "missing": objection.missing})
            one = _Refusal(repository, reference, digest, by, policy.scope.key, content)
            if one in self._waiting:
                times, moment = self._waiting[one]
                self._waiting[one] = (times + 1, moment)
            elif len(self._waiting) < _CAPACITY:
                self._waiting[one] = (1, time.monotonic())
            else:
                self._lost += 1

    async def run(self) -> None:
        """Write what waits, about once a second, until cancelled."""

        def tell(error: Exception) -> None:
            _log.warning("refusals not written", extra={"pulls": _count(self._waiting), "reason": str(error)})

        await repeat(self.flush, seconds=_FLUSH_SECONDS, tell=tell)

    async def flush(self) -> None:
        """Write what waits. Raises DatabaseError: what was not written waits again."""
        while self._waiting:
            batch = dict(list(self._waiting.items())[:_BATCH])
            for one in batch:
                del self._waiting[one]

            async def work(tx: Transaction, batch: dict[_Refusal, tuple[int, float]] = batch) -> None:
                moment = time.monotonic()
                await record(tx, *(_event(one, *told, moment) for one, told in batch.items()))

            try:
                await self._database.unit(work, durable=False)
            except DatabaseError:
                for one, (times, moment) in batch.items():
                    self._waiting[one] = (times + self._waiting.get(one, (0, 0.0))[0], moment)
                raise
            except Exception:
                self._lost += _count(batch)  # it would never be written, and everything behind it would wait
                raise
        if self._lost:
            _log.warning("refusals lost", extra={"pulls": self._lost, "reason": "too many waited"})
            self._lost = 0

    async def close(self) -> None:
        """Write what waits; what cannot be written is lost, and the log says so."""
        try:
            await self.flush()
        except DatabaseError as error:
            lost = _count(self._waiting) + self._lost
            _log.warning("refusals lost", extra={"pulls": lost, "reason": str(error)})


def _count(waiting: dict[_Refusal, tuple[int, float]]) -> int:
    return sum(times for times, _ in waiting.values())


def _event(one: _Refusal, times: int, happened: float, moment: float) -> Event:
    return Event(
        type="FAIL",
        actor=one.by,
        object=Object("pull", one.digest, one.reference, one.content),
        target=Object("enforcement_policy", one.scope),
        repository_id=one.repository,
        age=max(0, round((moment - happened) * 1000)),
        times=times,
    )
