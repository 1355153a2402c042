"""
Who meets whom in a collection, statement by statement, on PostgreSQL: SQLite lets one come after the other.

In each order there is a whole collection afterwards, as a client verifies it, with the index that belongs to it;
or nothing at all. Without the lock of the repository some order breaks that. `make thorough` has more meetings.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.contract.trust.conftest import House, digest
from tests.support.notary import Key, Publisher, seal
from tests.support.rooms import Rooms
from tests.support.schedules import Actor, Schedules

from dtr.db import Statement
from dtr.registry import RepositorySigned
from dtr.storage import Memory
from dtr.trust import Collection, FileUnknown, RepositoryGone, VersionConflict, store
from dtr.trust.retention import OldFiles
from dtr.tuf import RuleBroken

REFUSALS = (VersionConflict, RuleBroken, RepositoryGone, RepositorySigned, FileUnknown)
"""What somebody may be told when another one was first."""


@dataclass
class World:
    """A collection; who publishes to it, and two processes."""

    collection: Collection
    publisher: Publisher
    houses: tuple[House, House]
    updates: dict[str, dict[str, bytes]]


Work = Callable[[World, House], Awaitable[Any]]


async def sign(world: World, house: House) -> Any:
    await house.publish(world.collection, world.updates["v2"])


async def sign_otherwise(world: World, house: House) -> Any:
    await house.publish(world.collection, world.updates["v2 otherwise"])


async def begin_another(world: World, house: House) -> Any:
    """The first publication under another name of the server."""
    another = Collection(world.collection.repository, f"another.{world.collection.gun}")
    publisher = await house.publisher(another)
    await house.publish(another, publisher.first())


async def sign_as_ada(world: World, house: House) -> Any:
    await house.publish(world.collection, world.updates["ada"])


async def go_back(world: World, house: House) -> Any:
    await house.publish(world.collection, world.updates["old"])


async def delete(world: World, house: House) -> Any:
    await house.trust.delete(world.collection)


async def delete_repository(world: World, house: House) -> Any:
    await house.rooms.repositories.delete(world.collection.gun.partition("/")[2])


async def fetch_late(world: World, house: House) -> Any:
    house.clock.ahead = dt.timedelta(days=15)
    await house.trust.get(world.collection, "timestamp")


async def forget(world: World, house: House) -> Any:
    return [count async for count in OldFiles(house.rooms.database, kept=-60_000).forget()]


MEETINGS: dict[str, tuple[Work, Work, int]] = {
    "the same version": (sign, sign_otherwise, 1),
    "two roles": (sign, sign_as_ada, 2),
    "it is deleted": (sign, delete, 1),
    "its repository is deleted": (sign_as_ada, delete_repository, 1),
    "another one begins while its repository is deleted": (begin_another, delete_repository, 1),
    "its timestamp is made anew": (sign, fetch_late, 2),
    "two make its timestamp anew": (fetch_late, fetch_late, 2),
    "old files go": (sign, forget, 2),
    "an old file goes that becomes current": (go_back, forget, 1),
}
"""Two who do something, and how many of them succeed at least."""
BRIEF = ("the same version", "it is deleted", "an old file goes that becomes current")


class Lab:
    def __init__(self, rooms: Rooms, passphrases: Path, connection: Any) -> None:
        self._rooms = rooms
        self._passphrases = passphrases
        self._schedules = Schedules(rooms.database, connection)
        self._made = 0

    async def explore(self, first: Work, second: Work, least: int) -> int:
        """Let the second run before each statement of the first; how many orders there are."""
        steps = await self._try(first, second, least, [])
        await self._try(first, second, least, [(1, 10_000)])
        for number in range(1, steps + 1):
            await self._try(first, second, least, [(0, number), (1, 10_000)])
        return steps + 2

    async def _try(self, first: Work, second: Work, least: int, turns: list[tuple[int, int]]) -> int:
        world = await self._begin(by_client=go_back in {first, second})
        actors = [
            Actor(lambda: first(world, world.houses[0])),
            Actor(lambda: second(world, world.houses[1])),
        ]
        outcomes = await self._schedules.run(actors, turns)
        for outcome in outcomes:
            if outcome.error is not None and not isinstance(outcome.error, REFUSALS):
                raise AssertionError(f"{turns}: {outcome.error!r}") from outcome.error
        assert sum(outcome.error is None for outcome in outcomes) >= least, (turns, outcomes)
        await self._check(world, turns)
        return outcomes[0].steps

    async def _check(self, world: World, turns: list[tuple[int, int]]) -> None:
        house, collection = world.houses[0], world.collection
        house.clock.ahead = dt.timedelta()
        number = collection.repository
        rows = await self._rooms.query("SELECT gun FROM trust_files WHERE repository_id = :id", id=number)
        index = await house.index(collection)
        live = "SELECT id FROM repositories WHERE id = :id AND deleted_at IS NULL"
        assert not rows or await self._rooms.query(live, id=number), f"{turns}: a deleted repository has files"
        if not rows:
            assert not index, turns
            return
        try:
            found = await house.walk(collection)
        except FileUnknown:  # a snapshot of a client goes back to a file that had gone
            found = {}
            is_by_client = isinstance(world.publisher.snapshot, Key)
            assert is_by_client, turns
        signed = {(role, name): one for role, tags in found.items() for name, one in tags.items()}
        assert index == signed, turns

    async def _begin(self, *, by_client: bool) -> World:
        self._made += 1
        houses = House(self._rooms, self._passphrases), House(self._rooms, self._passphrases)
        collection = await houses[0].collection(f"acme/app{self._made}")
        publisher = await houses[0].publisher(collection, snapshot=Key.make() if by_client else None)
        await houses[0].publish(collection, publisher.first())
        await houses[0].publish(collection, publisher.delegate("targets/ada", [Key.make()]))
        updates = {}
        if by_client:
            old = publisher.sign({"v1": (digest(1), 5)}, "targets/ada")
            await houses[0].publish(collection, old)
            await houses[0].publish(collection, publisher.sign({"v1": (digest(2), 5)}, "targets/ada"))
            files = publisher.files | old
            publisher.snapshot_version += 1
            assert isinstance(publisher.snapshot, Key)
            updates["old"] = {"snapshot": seal(publisher.snapshot_of(files), [publisher.snapshot])}
        else:
            updates["v2"] = publisher.sign({"v2": (digest(2), 5)})
            publisher.roles["targets"]["version"] -= 1
            updates["v2 otherwise"] = publisher.sign({"v2": (digest(3), 5)})
            updates["ada"] = publisher.sign({"v2": (digest(2), 5)}, "targets/ada")
        return World(collection, publisher, houses, updates)


@pytest.fixture
async def lab(make_database_url: Callable[[str], Awaitable[str]], tmp_path: Path) -> AsyncIterator[Lab]:
    url = await make_database_url("postgresql")
    rooms = Rooms(url, Memory)
    connection = await asyncpg.connect(url)
    yield Lab(rooms, tmp_path / "passphrases", connection)
    await connection.close()
    await rooms.close()


@pytest.mark.parametrize("names", [BRIEF, pytest.param(tuple(MEETINGS), marks=pytest.mark.thorough)])
async def test_no_meeting_tears_a_collection(lab: Lab, names: tuple[str, ...]):
    tried = {name: await lab.explore(*MEETINGS[name]) for name in names}
    print(f"{sum(tried.values())} schedules: {tried}")
    assert all(number >= 4 for number in tried.values()), tried


@pytest.mark.thorough
async def test_without_the_lock_something_is_signed_in_a_deleted_repository(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    query = copy.copy(store._LOCK.clause)
    query._for_update_arg = None  # type: ignore[attr-defined]
    monkeypatch.setattr(store, "_LOCK", Statement(query))
    with pytest.raises(AssertionError, match="a deleted repository has files"):
        await lab.explore(*MEETINGS["another one begins while its repository is deleted"])
