"""What is counted: exact at every moment, while rows are added and folded by many at once."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

from tests.support.images import make_image, make_index
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms

from dtr.registry.usage import DAYS_KEPT, WHOLE, Counts, Day, count, of_namespace, of_repository

DAY_MS = 86_400_000


async def add(rooms: Rooms, **scopes: Counts) -> None:
    await rooms.database.unit(lambda tx: count(tx, scopes))


async def test_what_was_never_counted_is_nothing(rooms: Rooms):
    assert await rooms.usage_counts.get(["a", "b"]) == {"a": Counts(), "b": Counts()}
    assert await rooms.usage_counts.get([]) == {}
    assert await rooms.usage_counts.fold() == 0


async def test_folding_changes_nothing_but_the_number_of_rows(rooms: Rooms):
    expected = Counts(bytes=7, pulls=5, pushes=1, pulled_at=300, pushed_at=50)
    await add(rooms, a=Counts(bytes=10, pulls=2, pulled_at=100), b=Counts(pushes=1))
    await rooms.usage_counts.fold()
    await add(rooms, a=Counts(bytes=-3, pulls=3, pulled_at=300))
    await add(rooms, a=Counts(pulled_at=200, pushes=1, pushed_at=50))
    assert (await rooms.usage_counts.get(["a"]))["a"] == expected
    assert await rooms.usage_counts.fold() == 2
    assert await rooms.count("usage_deltas") == 0
    assert await rooms.usage_counts.get(["a", "b"]) == {"a": expected, "b": Counts(pushes=1)}


async def test_nothing_is_lost_or_counted_twice_while_many_count_fold_and_look(rooms: Rooms):
    hosts = [rooms, rooms.another(), rooms.another()]
    scopes = ["repository:1", "repository:2", "*"]
    looks: list[int] = []

    async def write(host: Rooms) -> None:
        for _ in range(20):
            await add(host, **dict.fromkeys(scopes, Counts(bytes=2, pulls=1)))

    async def fold(host: Rooms) -> None:
        for _ in range(20):
            await host.usage_counts.fold()

    async def look(host: Rooms) -> None:
        for _ in range(30):
            found = (await host.usage_counts.get(scopes))["*"]
            assert found.bytes == 2 * found.pulls
            looks.append(found.pulls)

    await asyncio.gather(*(work(host) for host in hosts for work in (write, fold, look)))
    while await rooms.usage_counts.fold():
        pass
    assert await rooms.usage_counts.get(scopes) == dict.fromkeys(scopes, Counts(bytes=120, pulls=60))
    assert 0 <= min(looks) <= max(looks) <= 60


async def test_a_push_under_a_tag_counts_once_in_its_own_transaction(rooms: Rooms):
    repository = await rooms.make_repository()
    scope = of_repository(repository)
    index = make_index(make_image(), make_image())
    await rooms.push(repository, index, "latest")
    first = (await rooms.usage_counts.get([scope]))[scope]
    assert (first.pushes, first.pulls) == (1, 0)
    assert first.pushed_at is not None
    assert first.pulled_at is None
    await rooms.put(repository, index, "latest", "again")
    second = (await rooms.usage_counts.get([scope]))[scope]
    assert second.pushes == 2
    assert (second.pushed_at or 0) >= first.pushed_at
    assert first.bytes == second.bytes == sum(len(blob) for child in index.children for blob in child.blobs)


async def test_usage_of_many_repositories_is_one_query(rooms: Rooms):
    counter = Counter().watch(rooms.database)
    await rooms.usage_counts.get(of_repository(number) for number in range(100))
    assert counter.seen == (1, 0)


async def test_folding_takes_few_statements_and_leaves_the_audit_content(rooms: Rooms):
    repository = await rooms.make_repository()
    for _ in range(10):
        await rooms.push(repository, make_image(), "latest")
    counter = Counter().watch(rooms.database)
    await rooms.usage_counts.fold()
    # A row for each scope, one for all days; the summary of the repository is read and written.
    assert counter.statements <= 3 + 3 + 2
    assert await rooms.findings() == []
    await assert_invariants(rooms)
    ((namespace,),) = await rooms.query("SELECT id FROM accounts WHERE name = 'acme'")
    found = await rooms.usage_counts.get([of_namespace(namespace), of_repository(repository), "*"])
    assert len({one.bytes for one in found.values()}) == 1


async def test_what_was_counted_of_a_repository_goes_with_it(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push(repository, make_image(), "latest")
    await rooms.usage_counts.fold()
    await rooms.push(repository, make_image(), "latest")
    await rooms.repositories.delete("acme/app")
    await rooms.collect_all()
    assert await rooms.count("repositories") == 0
    assert await rooms.query(f"SELECT scope FROM usage WHERE scope = '{of_repository(repository)}'") == []
    assert await rooms.query(f"SELECT scope FROM usage_deltas WHERE scope = '{of_repository(repository)}'") == []
    assert set(await rooms.usage()) == set()
    await assert_invariants(rooms)


def ago(days: int) -> int:
    """A moment of a day, in milliseconds since 1970 UTC: as far from midnight as now."""
    return round(time.time() * 1000) - days * DAY_MS


def date(days: int) -> dt.date:
    return dt.datetime.fromtimestamp(ago(days) / 1000, dt.UTC).date()


async def test_days_tell_what_came_on_them_and_what_was_held_when_they_ended(rooms: Rooms):
    await add(rooms, a=Counts(bytes=100, pushes=1, pushed_at=ago(3)))
    await add(rooms, a=Counts(pulls=2, pulled_at=ago(3)))
    await add(rooms, a=Counts(bytes=-30, pushed_at=ago(1)))
    expected = [
        Day(date(4), 0, 0, 0),
        Day(date(3), 100, 2, 1),
        Day(date(2), 100, 0, 0),
        Day(date(1), 70, 0, 0),
        Day(date(0), 75, 7, 0),
    ]
    await rooms.usage_counts.fold()
    await add(rooms, a=Counts(bytes=5), b=Counts(pulls=1))
    await add(rooms, a=Counts(pulls=7, pulled_at=ago(0)))
    before = await rooms.usage_counts.history(["a", "b", "c"], days=5)
    assert before["a"] == expected
    assert before["b"][-1] == Day(date(0), 0, 1, 0)
    assert before["c"] == [Day(date(day), 0, 0, 0) for day in (4, 3, 2, 1, 0)]
    await rooms.usage_counts.fold()
    assert await rooms.usage_counts.history(["a", "b", "c"], days=5) == before
    # What came before the days that are asked for is held on the first of them.
    assert (await rooms.usage_counts.history(["a"], days=2))["a"] == expected[-2:]


async def test_days_of_the_whole_registry_have_the_pulls_and_pushes_of_all_repositories(rooms: Rooms):
    await add(rooms, **{"repository:1": Counts(bytes=5, pushes=1, pushed_at=ago(1)), WHOLE: Counts(bytes=5)})
    await add(rooms, **{"repository:2": Counts(pulls=3, pulled_at=ago(1))})
    await rooms.usage_counts.fold()
    whole = (await rooms.usage_counts.history([WHOLE], days=2))[WHOLE]
    assert whole == [Day(date(1), 0, 3, 1), Day(date(0), 5, 0, 0)]


async def test_days_that_are_too_old_are_forgotten_and_what_is_held_stays_right(rooms: Rooms):
    await add(rooms, a=Counts(bytes=9, pushes=1, pushed_at=ago(DAYS_KEPT)))
    await add(rooms, a=Counts(bytes=1, pushes=1, pushed_at=ago(DAYS_KEPT - 1)))
    await rooms.usage_counts.fold()
    assert await rooms.usage_counts.forget_days() == 2  # that of the whole registry, too
    days = (await rooms.usage_counts.history(["a"], days=DAYS_KEPT))["a"]
    assert (days[0], len(days)) == (Day(date(DAYS_KEPT - 1), 10, 0, 1), DAYS_KEPT)
    assert (await rooms.usage_counts.get(["a"]))["a"].pushes == 2


async def test_days_of_many_repositories_are_one_query_and_go_with_them(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push(repository, make_image(), "latest")
    await rooms.usage_counts.fold()
    scope = of_repository(repository)
    counter = Counter().watch(rooms.database)
    others = [of_repository(repository + number) for number in range(1, 26)]
    days = await rooms.usage_counts.history([scope, *others], days=14)
    assert counter.seen == (1, 0)
    assert (days[scope][-1].pushes, len(days), {len(one) for one in days.values()}) == (1, 26, {14})
    await rooms.repositories.delete("acme/app")
    await rooms.collect_all()
    assert await rooms.query(f"SELECT scope FROM usage_days WHERE scope = '{scope}'") == []
