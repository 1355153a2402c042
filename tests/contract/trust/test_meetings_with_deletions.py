"""
Who signs a tag meets who deletes it, statement by statement, on PostgreSQL: SQLite lets one come after the other.

Whatever the order: what was signed, and was still there when the signer was told so, is not deleted by whoever had
begun before. Without one of the locks some order breaks that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.contract.trust.conftest import House
from tests.support.images import make_image
from tests.support.rooms import Rooms
from tests.support.schedules import Actor, Outcome, Schedules

from dtr.db import Statement
from dtr.registry import TagSigned, manifests
from dtr.storage import Memory
from dtr.trust import Collection, store

IMAGE = make_image()
Work = Callable[[House, Collection], Awaitable[Any]]


class Lab:
    """Lets a publication that signs a tag meet its deletion, one running between two statements of the other."""

    def __init__(self, house: House, connections: tuple[Any, Any]) -> None:
        self.house = house
        self._order = Schedules(house.rooms.database, connections[0])
        self._reader = connections[1]
        self._number = 0

    async def meet(self, delete: Work) -> list[tuple[Outcome, Outcome]]:
        """How it ended, for each order. Raises AssertionError for the first that breaks a rule."""
        outcomes = [await self._try(delete, [])]
        lengths = [one.steps for one in outcomes[0]]
        for number in (0, 1):
            for steps in range(1, lengths[number] + 1):
                outcomes += [await self._try(delete, [(number, steps), (1 - number, 10_000)])]
        return outcomes

    async def _try(self, delete: Work, turns: list[tuple[int, int]]) -> tuple[Outcome, Outcome]:
        self._number += 1
        house = self.house
        collection, publisher = await house.begin(f"acme/app{self._number}")
        number = collection.repository
        await house.rooms.push(number, IMAGE, "v1")
        update = publisher.sign({"v1": (IMAGE.digest, 7)})

        async def publish() -> bool:
            await house.publish(collection, update)
            # As anybody would see it who asks when the signer has been told.
            rows = await self._reader.fetch("SELECT name FROM tags WHERE repository_id = $1", number)
            return bool(rows)

        published, deleted = await self._order.run(
            [Actor(publish), Actor(lambda: delete(house, collection))], turns
        )
        assert published.error is None, f"{turns}: {published.error!r}"
        assert isinstance(deleted.error, TagSigned | None), f"{turns}: {deleted.error!r}"
        assert await house.index(collection) == {("targets", "v1"): IMAGE.digest}
        is_there = await house.rooms.manifests.list_tags(number, limit=9) == ["v1"]
        assert is_there == (deleted.error is not None), turns
        assert is_there or not published.result, f"{turns}: what was signed and there is deleted"
        return published, deleted


async def delete_tag(house: House, collection: Collection) -> Any:
    await house.rooms.manifests.delete_tag(collection.repository, "v1")


async def delete_manifest(house: House, collection: Collection) -> Any:
    await house.rooms.manifests.delete(collection.repository, IMAGE.digest)


@pytest.fixture
async def lab(make_database_url: Callable[[str], Awaitable[str]], tmp_path: Path) -> AsyncIterator[Lab]:
    url = await make_database_url("postgresql")
    rooms = Rooms(url, Memory)
    connections = await asyncpg.connect(url), await asyncpg.connect(url)
    yield Lab(House(rooms, tmp_path / "passphrases"), connections)
    for one in connections:
        await one.close()
    await rooms.close()


async def test_no_order_breaks_a_rule(lab: Lab):
    for delete in (delete_tag, delete_manifest):
        outcomes = await lab.meet(delete)
        print(f"{len(outcomes)} orders")
        refused = sum(deleted.error is not None for _, deleted in outcomes)
        assert 0 < refused < len(outcomes), "each was first at times"
        assert any(one.has_waited for pair in outcomes for one in pair)


@pytest.mark.thorough
@pytest.mark.parametrize(("module", "lock"), [(manifests, "_HOLD"), (store, "_LOCK")])
@pytest.mark.parametrize("delete", [delete_tag, delete_manifest])
async def test_without_a_lock_some_order_deletes_what_is_signed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, module: Any, lock: str, delete: Work
):
    query = getattr(module, lock).clause._clone()
    query._for_update_arg = None
    monkeypatch.setattr(module, lock, Statement(query))
    with pytest.raises(AssertionError, match="what was signed and there is deleted"):
        await lab.meet(delete)
