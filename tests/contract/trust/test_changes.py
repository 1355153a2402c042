"""The changefeed: windows of changes, and who sees which."""

from __future__ import annotations

from tests.contract.trust.conftest import House, digest

from dtr.accounts.visibility import asking
from dtr.trust import Change

WINDOWS = {
    (0, 100): [1, 2, 3, 4, 5],
    (0, 2): [1, 2],
    (2, 2): [3, 4],
    (5, 2): [],
    (4, -2): [2, 3],
    (1, -2): [],
    (0, -2): [4, 5],
    (-1, -2): [4, 5],
    (-1, 2): [4, 5],
    (99, -2): [4, 5],
}
"""By `after` and `records`; changes are numbered as they came. Their ids may have gaps."""


async def test_windows(house: House):
    collection, _ = await house.begin()
    for _ in range(4):
        await house.publish(collection, {})
    ids = [one.id for one in await house.trust.list_changes(after=0, records=100, age=0)]
    assert len(ids) == 5
    assert ids == sorted(ids)
    numbers = dict(enumerate(ids, 1)) | {0: 0, -1: -1, 99: ids[-1] + 94}
    for (after, records), expected in WINDOWS.items():
        found = await house.trust.list_changes(after=numbers[after], records=records, age=0)
        assert [one.id for one in found] == [numbers[one] for one in expected], (after, records)


async def test_what_a_change_says_and_who_sees_it(house: House):
    collection, publisher = await house.begin()
    other, _ = await house.begin("beta/app")
    await house.publish(collection, publisher.sign({"v1": (digest(1), 5)}))
    timestamp = await house.trust.get(collection, "timestamp")
    found = await house.trust.list_changes(after=0, records=100, age=0)
    assert [(one.gun, one.version, one.category) for one in found] == [
        (collection.gun, 1, "update"),
        (other.gun, 1, "update"),
        (collection.gun, 2, "update"),
    ]
    assert found[2] == Change(found[2].id, found[2].created_at, collection.gun, 2, timestamp.sha256, "update")
    its = await house.trust.list_changes(after=0, records=100, collection=collection, age=0)
    assert its == [found[0], found[2]]
    assert await house.trust.list_changes(after=0, records=-1, collection=collection, age=0) == [found[2]]
    # both are private
    assert await house.trust.list_changes(after=0, records=100, readable_by=asking(None), age=0) == []
    await house.rooms.repositories.update("beta/app", visibility="public")
    assert await house.trust.list_changes(after=0, records=100, readable_by=asking(None), age=0) == [found[1]]
    assert await house.trust.list_changes(after=0, records=-9, readable_by=asking(None), age=0) == [found[1]]
    # a change is told a minute later
    assert await house.trust.list_changes(after=0, records=100) == []
    await house.rooms.change(
        "UPDATE trust_changes SET created_at = created_at - 61000 WHERE id <= :id", id=found[1].id
    )
    assert [one.id for one in await house.trust.list_changes(after=0, records=100)] == [found[0].id, found[1].id]
