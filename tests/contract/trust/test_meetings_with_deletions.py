"""
Who signs meets who deletes what is signed, statement by statement, on PostgreSQL (SQLite lets one come after the
other). Whatever the order: who deletes sees what was signed before, and nothing is signed in a repository that is
gone. Without the locks some order breaks that.
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
from dtr.registry import RepositorySigned, TagSigned
from dtr.storage import Memory
from dtr.trust import Collection, RepositoryGone, store

IMAGE = make_image()


Work = Callable[[House, Collection], Awaitable[Any]]


class Lab:
    """Lets a publication meet something else, one running between two statements of the other, in every order."""

    def __init__(self, house: House, connection: Any) -> None:
        self.house = house
        self._order = Schedules(house.rooms.database, connection)
        self._number = 0

    async def meet(self, what: Work, *, both_ways: bool, is_first: bool = False) -> list[tuple[Outcome, Outcome]]:
        """
        How it ended, for each order. In the repository is a tag, `v1`, which the publication signs.

        With `is_first` it makes the collection.
        """
        outcomes = [await self._try(what, is_first, [])]
        lengths = [one.steps for one in outcomes[0]]
        for number in (0, 1) if both_ways else (0,):
            for steps in range(1, lengths[number] + 1):
                turns = [(number, steps), (1 - number, 10_000)]
                outcomes += [await self._try(what, is_first, turns)]
        return outcomes

    async def _try(self, what: Work, is_first: bool, turns: list[tuple[int, int]]) -> tuple[Outcome, Outcome]:
        self._number += 1
        house, path, tags = self.house, f"acme/app{self._number}", {"v1": (IMAGE.digest, 7)}
        if is_first:
            collection = await house.collection(path)
            update = (await house.publisher(collection)).first(tags)
        else:
            collection, publisher = await house.begin(path)
            update = publisher.sign(tags)
        await house.rooms.push(collection.repository, IMAGE, "v1")

        async def publish() -> Any:
            return await house.publish(collection, update)

        async def other() -> Any:
            return await what(house, collection)

        published, deleted = await self._order.run([Actor(publish), Actor(other)], turns)
        await self._check(collection, published, deleted, turns)
        return published, deleted

    async def _check(
        self, collection: Collection, published: Outcome, deleted: Outcome, turns: list[tuple[int, int]]
    ) -> None:
        assert isinstance(published.error, RepositoryGone | None), f"{turns}: {published.error!r}"
        assert isinstance(deleted.error, RepositorySigned | TagSigned | None), f"{turns}: {deleted.error!r}"
        rooms, where = self.house.rooms, {"repository": collection.repository}
        signed = await self.house.index(collection)
        lives = await rooms.query(
            "SELECT id FROM repositories WHERE id = :repository AND deleted_at IS NULL", **where
        )
        assert lives or not signed, f"{turns}: something is signed in a repository that is deleted"
        if published.error is None and lives:
            assert signed == {("targets", "v1"): IMAGE.digest}, turns
            assert await self.house.walk(collection) == {"targets": {"v1": IMAGE.digest}}
        if deleted.error is not None:
            tags = await rooms.manifests.list_tags(collection.repository, limit=9)
            assert signed, f"{turns}: refused for the sake of what is not signed"
            assert tags == ["v1"], turns


async def delete_tag(house: House, collection: Collection) -> Any:
    await house.rooms.manifests.delete_tag(collection.repository, "v1")


async def delete_manifest(house: House, collection: Collection) -> Any:
    await house.rooms.manifests.delete(collection.repository, IMAGE.digest)


async def delete_repository(house: House, collection: Collection) -> Any:
    await house.rooms.repositories.delete(collection.gun.partition("/")[2])


@pytest.fixture
async def lab(make_database_url: Callable[[str], Awaitable[str]], tmp_path: Path) -> AsyncIterator[Lab]:
    url = await make_database_url("postgresql")
    rooms = Rooms(url, Memory)
    connection = await asyncpg.connect(url)
    yield Lab(House(rooms, tmp_path / "passphrases"), connection)
    await connection.close()
    await rooms.close()


@pytest.mark.parametrize("what", [delete_tag, delete_manifest, delete_repository])
async def test_no_order_breaks_a_rule(lab: Lab, what: Work):
    outcomes = await lab.meet(what, both_ways=what is delete_repository)
    print(f"{len(outcomes)} orders")
    refused = sum(deleted.error is not None for _, deleted in outcomes)
    assert 0 < refused < len(outcomes), "both were first at times"
    assert any(one.has_waited for pair in outcomes for one in pair)
    if what is delete_repository:
        assert all((published.error is None) != (deleted.error is None) for published, deleted in outcomes)


@pytest.mark.thorough
async def test_without_the_lock_of_who_publishes_some_order_signs_in_what_is_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    query = store._LOCK._clause._clone()  # type: ignore[attr-defined]
    query._for_update_arg = None
    monkeypatch.setattr(store, "_LOCK", Statement(query))
    with pytest.raises(AssertionError, match="in a repository that is deleted"):
        await lab.meet(delete_repository, both_ways=True, is_first=True)
