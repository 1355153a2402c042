"""Old files go, and nothing that anybody may still walk to."""

from __future__ import annotations

from tests.contract.trust.conftest import House, digest
from tests.support.notary import Key, seal

from dtr.trust.retention import OldFiles

DAY = 86_400_000


async def kept(house: House) -> set[tuple[str, int]]:
    return {(role, version) for role, version in await house.rooms.query("SELECT role, version FROM trust_files")}


async def forget(house: House) -> int:
    return sum([count async for count in OldFiles(house.rooms.database).forget()])


async def age(house: House, days: int, condition: str = "1 = 1") -> None:
    """Let files be so many days older."""
    await house.rooms.change(f"UPDATE trust_files SET created_at = created_at - {days * DAY} WHERE {condition}")


async def test_what_was_replaced_long_ago_goes(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    ada = Key.make()
    await house.publish(collection, publisher.delegate("targets/ada", [ada]))
    await house.publish(collection, publisher.sign({"v2": (digest(2), 5)}, "targets/ada"))
    await house.publish(collection, publisher.rotate_root())
    everything = await kept(house)
    assert await forget(house) == 0
    await age(house, 40)  # all of them: what was replaced, was so long ago
    await house.publish(collection, publisher.sign({"v1": (digest(3), 5)}))
    walked = await house.walk(collection)
    # timestamps and snapshots 1 to 3, and the first targets; those before the last publication are good still
    assert await forget(house) == 7
    new = {("timestamp", 5), ("snapshot", 5), ("targets", 3)}
    gone = {(role, version) for role in ("timestamp", "snapshot") for version in (1, 2, 3)} | {("targets", 1)}
    assert await kept(house) == everything - gone | new
    assert await forget(house) == 0
    assert await house.walk(collection) == walked
    await age(house, 40)
    assert await forget(house) == 3
    assert {one for one in await kept(house) if one[0] == "root"} == {("root", 1), ("root", 2)}
    assert await house.walk(collection) == walked


async def test_what_is_current_stays_however_old(house: House):
    """A snapshot of clients may lead to a file that a newer one took the place of."""
    collection = await house.collection()
    publisher = await house.publisher(collection, snapshot=Key.make())
    assert isinstance(publisher.snapshot, Key)
    await house.publish(collection, publisher.first())
    await house.publish(collection, publisher.delegate("targets/ada", [Key.make()]))
    old = publisher.sign({"v1": (digest(1), 5)}, "targets/ada")
    await house.publish(collection, old)
    await house.publish(collection, publisher.sign({"v1": (digest(2), 5)}, "targets/ada"))
    publisher.files["targets/ada"] = old["targets/ada"]
    publisher.snapshot_version += 1
    again = seal(publisher.snapshot_of(publisher.files), [publisher.snapshot])
    await house.publish(collection, {"snapshot": again})
    await age(house, 40)
    assert await forget(house) > 0
    assert {one for one in await kept(house) if one[0] == "targets/ada"} == {
        ("targets/ada", 1),
        ("targets/ada", 2),
    }
    assert await house.walk(collection) == {"targets": {}, "targets/ada": {"v1": digest(1)}}


async def test_page_by_page(house: House):
    collection, _ = await house.begin()
    await house.rooms.change(
        "INSERT INTO trust_files (repository_id, gun, role, version, sha256, content, created_at)"
        " WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1201)"
        " SELECT repository_id, gun, 'snapshot', n, 'x', CAST('x' AS "
        + ("BLOB" if house.rooms.database.dialect == "sqlite" else "BYTEA")
        + "), 0 FROM trust_files, numbers WHERE role = 'snapshot'"
    )
    # Behind the root and the current snapshot; the newest of a role stays.
    assert [count async for count in OldFiles(house.rooms.database).forget()] == [498, 500, 201]
    assert await house.walk(collection) == {"targets": {}}
