"""
Two units of work at the same time, statement by statement, in an order that the test chooses.

For PostgreSQL, where transactions run beside each other. An actor stops before each statement and before each
commit, until it is told to take the next step. One that waits for a lock of the other is recognized by what the
server says, not by a clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from dtr.db import Database

_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)
# Whom the other actor keeps waiting, who stands or waits, too; the server's own work is over in a moment.
_WAITING = """
    SELECT count(*) FROM pg_stat_activity AS waiting
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_stat_activity AS other
        WHERE other.pid = ANY(pg_blocking_pids(waiting.pid))
        AND (other.state = 'idle in transaction' OR other.wait_event_type = 'Lock')
    )
"""
_WHO_WAITS = """
    SELECT pid, wait_event, query, pg_blocking_pids(pid) AS blocked_by FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Died(Exception):
    """The process of an actor ended at this moment."""


@dataclass
class Outcome:
    """How it ended with an actor: its result, or what it raised."""

    steps: int
    result: Any = None
    error: BaseException | None = None
    has_waited: bool = False
    """For a lock of the other."""


class Actor:
    """Somebody who does something, one step after the other."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]], *, dies_before: int | None = None) -> None:
        self.steps = 0
        self.has_waited = False
        self._dies_before = dies_before
        self._is_given_up = False
        self._may_go = asyncio.Event()
        self.stands = asyncio.Event()
        """It waits for its next step."""
        self._task = asyncio.create_task(self._act(work))
        self._task.add_done_callback(lambda _: self.stands.set())

    async def _act(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        _acting.set(self)
        return await work()

    async def gate(self) -> None:
        """Stand still before a step."""
        self.stands.set()
        await self._may_go.wait()
        self._may_go.clear()
        if self._is_given_up or self.steps == self._dies_before:
            raise Died
        self.steps += 1

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    def go(self) -> None:
        """Take the next step."""
        self.stands.clear()
        self._may_go.set()

    async def end(self) -> Outcome:
        try:
            return Outcome(self.steps, await self._task, has_waited=self.has_waited)
        except (Exception, asyncio.CancelledError) as error:
            return Outcome(self.steps, error=error, has_waited=self.has_waited)

    def give_up(self) -> None:
        """Take no further step."""
        self._is_given_up = True
        self._may_go.set()


class Schedules:
    """Runs actors over a database whose statements it holds back; `connection` is another one to the same."""

    def __init__(self, database: Database, connection: Any) -> None:
        self._connection = connection
        _hold_back(database)

    async def run(self, actors: list[Actor], turns: list[tuple[int, int]]) -> list[Outcome]:
        """
        Let actors take turns: which one, and how many steps. Then each goes on to its end, in order.

        Whoever waits for a lock loses its turn. When all wait for each other, they are given up.
        """
        for actor in actors:
            await actor.stands.wait()
        for number, steps in turns:
            for _ in range(steps):
                if not await self._step(actors, actors[number]):
                    break
        while left := [one for one in actors if not one.has_ended]:
            moved = [one for one in left if await self._to_its_end(actors, one)]
            if not moved and all(not one.stands.is_set() for one in left):
                waiting = [dict(row) for row in await self._connection.fetch(_WHO_WAITS)]
                for one in left:
                    one.give_up()
                for one in left:
                    await one.end()  # PostgreSQL ends one of them
                raise AssertionError(f"they wait for each other in a circle: {waiting}")
        return [await one.end() for one in actors]

    async def _to_its_end(self, actors: list[Actor], actor: Actor) -> bool:
        """Whether it came any further."""
        before = actor.steps
        while not actor.has_ended and await self._step(actors, actor):
            pass
        return actor.has_ended or actor.steps > before

    async def _step(self, actors: list[Actor], actor: Actor) -> bool:
        """One step; False: it has ended, or waits."""
        if actor.has_ended:
            return False
        if actor.stands.is_set():
            actor.go()
        seconds = 0.02
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await actor.stands.wait()
            except TimeoutError:
                # Counted before: one of them may arrive while the server counts who waits.
                on_their_way = sum(not one.stands.is_set() for one in actors)
                waiting = await self._connection.fetchval(_WAITING)
                if not actor.stands.is_set() and waiting >= on_their_way:
                    actor.has_waited = True
                    return False
                seconds = 0.005
            else:
                return not actor.has_ended


def _hold_back(database: Database) -> None:
    unit, fetch_one, fetch_all = database.unit, database.fetch_one, database.fetch_all

    async def held_unit(work: Any, **how: bool) -> Any:
        actor = _acting.get()
        if actor is None:
            return await unit(work, **how)

        async def slow(tx: Any) -> Any:
            result = await work(_Held(tx, actor))
            await actor.gate()  # before the commit
            return result

        return await unit(slow, **how)

    def held(read: Any) -> Any:
        async def slow(statement: Any, **parameters: Any) -> Any:
            actor = _acting.get()
            if actor is not None:
                await actor.gate()
            return await read(statement, **parameters)

        return slow

    database.unit = held_unit  # type: ignore[method-assign]
    database.fetch_one = held(fetch_one)  # type: ignore[method-assign]
    database.fetch_all = held(fetch_all)  # type: ignore[method-assign]


class _Held:
    """A transaction whose statements wait for their turn."""

    def __init__(self, transaction: Any, actor: Actor) -> None:
        self._transaction = transaction
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._transaction, name)

        async def held(*arguments: Any, **parameters: Any) -> Any:
            await self._actor.gate()
            return await call(*arguments, **parameters)

        return held
