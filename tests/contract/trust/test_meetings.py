"""Several at once, and what is made anew when it expires: nothing is torn, and nothing is signed in vain."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from tests.contract.trust.conftest import House, digest, signed
from tests.support.notary import Key, moment, now
from tests.support.rooms import Counter

from dtr.signer import SignerUnavailable
from dtr.trust import CannotSign, Collection, FileUnknown, VersionConflict
from dtr.tuf import RuleBroken, StoredBroken

DAY = dt.timedelta(days=1)
YEAR = 365 * DAY


# --- what expires ---------------------------------------------------------------------------------------------


async def test_fetches_sign_when_something_expires_and_then_once(house: House):
    collection, _ = await house.begin(v1=digest(1))
    first = await house.trust.get(collection, "timestamp")
    house.signer.counts.clear()
    house.clock.ahead = 14 * DAY - dt.timedelta(minutes=62)
    await asyncio.gather(*(house.walk(collection) for _ in range(5)))
    assert await house.trust.get(collection, "timestamp") == first
    assert not house.signer.counts

    house.clock.ahead = 14 * DAY - dt.timedelta(minutes=58)  # an hour early
    found = await asyncio.gather(*(house.trust.get(collection, "timestamp") for _ in range(20)))
    assert {one.version for one in found} == {1, 2}  # the first one is good still: nobody waits for the second
    assert house.signer.counts == {"sign": 1}
    second = await house.trust.get(collection, "timestamp")
    assert second.version == 2
    assert await house.version(collection, "snapshot") == 1
    assert signed(second.content)["meta"] == signed(first.content)["meta"]
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}
    assert house.signer.counts == {"sign": 1}
    # who has walked half the way goes on
    assert await house.trust.get_by_version(collection, "timestamp", 1) == first
    changes = await house.trust.list_changes(after=0, records=9, age=0)
    assert [(one.version, one.sha256) for one in changes] == [(1, first.sha256), (2, second.sha256)]
    assert await house.index(collection) == {("targets", "v1"): digest(1)}


async def test_a_snapshot_of_the_server_is_made_anew(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    await house.publish(collection, publisher.rotate_root())
    publisher.roles["targets"]["expires"] = moment(now() + 9 * YEAR)
    await house.publish(collection, publisher.write("targets"))
    house.signer.counts.clear()
    house.clock.ahead = 3 * YEAR
    found = await asyncio.gather(*(house.trust.get(collection, "snapshot") for _ in range(5)))
    assert {one.version for one in found} == {4}
    assert house.signer.counts == {"sign": 2}
    assert await house.version(collection, "timestamp") == 4
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}
    assert house.signer.counts == {"sign": 2}


async def test_a_snapshot_of_clients_is_theirs_to_make_anew(house: House):
    collection = await house.collection()
    publisher = await house.publisher(collection, snapshot=Key.make())
    await house.publish(collection, publisher.first({"v1": (digest(1), 5)}))
    house.clock.ahead = 3 * YEAR - dt.timedelta(minutes=30)
    assert await house.version(collection, "timestamp") == 2  # while it is good
    assert await house.version(collection, "snapshot") == 1
    house.clock.ahead = 3 * YEAR + DAY
    for role in ("timestamp", "snapshot"):
        with pytest.raises(CannotSign):
            await house.trust.get(collection, role)
    assert (await house.trust.get(collection, "targets")).version == 1


async def test_nothing_is_made_anew_under_a_root_that_is_expired(house: House):
    collection, publisher = await house.begin()
    publisher.root["expires"] = moment(now() + DAY)
    await house.publish(collection, publisher.write("root"))
    house.clock.ahead = 2 * DAY
    assert await house.version(collection, "timestamp") == 2  # nothing has to be made
    house.clock.ahead = 15 * DAY
    with pytest.raises(StoredBroken):
        await house.trust.get(collection, "timestamp")


async def test_without_the_signer_what_is_good_is_served(house: House):
    collection, _ = await house.begin()
    first = await house.trust.get(collection, "timestamp")

    async def fails() -> None:
        raise SignerUnavailable("nobody answers")

    house.signer.after_signing = fails
    house.signer.counts.clear()
    house.clock.ahead = 14 * DAY - dt.timedelta(minutes=30)
    for _ in range(5):
        assert await house.trust.get(collection, "timestamp") == first
    assert house.signer.counts == {"sign": 1}  # who fetches does not wait for it each time
    house.clock.ahead = 14 * DAY + dt.timedelta(minutes=1)
    with pytest.raises(SignerUnavailable):
        await house.trust.get(collection, "timestamp")
    house.signer.after_signing = None
    assert await house.version(collection, "timestamp") == 2


async def test_two_replicas_make_anew_at_once(house: House):
    collection, _ = await house.begin(v1=digest(1))
    other = house.another()
    for round_ in range(1, 6):
        house.clock.ahead = other.clock.ahead = round_ * 15 * DAY
        files = await asyncio.gather(
            *(one.trust.get(collection, "timestamp") for one in (house, other) for _ in range(3))
        )
        assert {one.version for one in files} == {round_ + 1}
        assert len({one.content for one in files}) == 1
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}
    assert house.signer.counts["sign"] + other.signer.counts["sign"] <= 2 + 2 * 5


async def test_who_is_overtaken_while_signing_serves_what_is_current(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    other = house.another()
    house.clock.ahead = other.clock.ahead = 15 * DAY

    async def overtaken() -> None:
        house.signer.after_signing = None
        await other.publish(collection, publisher.sign({"v2": (digest(2), 5)}))

    house.signer.after_signing = overtaken
    assert (await house.trust.get(collection, "timestamp")) == await other.trust.get(collection, "timestamp")
    assert await house.version(collection, "timestamp") == 2
    assert await house.walk(collection) == {"targets": {"v1": digest(1), "v2": digest(2)}}

    async def deleted() -> None:
        house.signer.after_signing = None
        await other.trust.delete(collection)

    house.clock.ahead = 30 * DAY
    house.signer.after_signing = deleted
    with pytest.raises(FileUnknown):
        await house.trust.get(collection, "timestamp")
    assert await house.rooms.count("trust_files") == 0


async def test_one_who_dies_after_signing_leaves_nothing(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    before = await house.files(collection)

    async def dies() -> None:
        raise asyncio.CancelledError

    house.signer.after_signing = dies
    update = publisher.sign({"v2": (digest(2), 5)})
    with pytest.raises(asyncio.CancelledError):
        await house.publish(collection, update)
    house.clock.ahead = 15 * DAY
    with pytest.raises(asyncio.CancelledError):
        await house.trust.get(collection, "timestamp")
    house.clock.ahead = dt.timedelta()
    house.signer.after_signing = None
    assert await house.files(collection) == before
    await house.publish(collection, update)
    assert await house.version(collection, "timestamp") == 2
    assert await house.walk(collection) == {"targets": {"v1": digest(1), "v2": digest(2)}}


# --- several at once ------------------------------------------------------------------------------------------


async def test_of_two_who_publish_the_same_version_one_wins(house: House):
    collection, publisher = await house.begin()
    houses = [house, house.another()]
    stop = asyncio.Event()

    async def watch() -> int:
        """Somebody who reads all the time finds whole collections."""
        walks = 0
        while not stop.is_set():
            await house.walk(collection)
            walks += 1
            await asyncio.sleep(0.001)  # reading SQLite lets nobody else have a turn
        return walks

    reader = asyncio.create_task(watch())
    for round_ in range(12):
        updates = []
        for number in range(2):
            updates.append(publisher.sign({"latest": (digest(10 * round_ + number), 5)}))
            publisher.roles["targets"]["version"] -= 1
        publisher.roles["targets"]["version"] += 1
        results = await asyncio.gather(
            *(one.publish(collection, update) for one, update in zip(houses, updates, strict=True)),
            return_exceptions=True,
        )
        (failed,) = (one for one in results if isinstance(one, BaseException))
        assert isinstance(failed, VersionConflict)
        winner = next(number for number, one in enumerate(results) if one is not failed)
        assert await house.walk(collection) == {"targets": {"latest": digest(10 * round_ + winner)}}
        assert await house.index(collection) == {("targets", "latest"): digest(10 * round_ + winner)}
    stop.set()
    assert await reader > 0
    assert await house.version(collection, "timestamp") == 13
    assert await house.rooms.count("trust_changes") == 13


async def test_who_signs_in_roles_of_their_own_do_not_hinder_each_other(house: House):
    collection, publisher = await house.begin()
    roles = {f"targets/{name}": Key.make() for name in ("ada", "bob", "carl")}
    for role, key in roles.items():
        await house.publish(collection, publisher.delegate(role, [key]))
    houses = [house, house.another(), house.another()]
    for round_ in range(4):
        updates = [publisher.sign({"latest": (digest(round_), 5)}, role) for role in roles]
        await asyncio.gather(
            *(one.publish(collection, update) for one, update in zip(houses, updates, strict=True))
        )
    assert await house.walk(collection) == {"targets": {}, **{role: {"latest": digest(3)} for role in roles}}
    assert await house.index(collection) == {(role, "latest"): digest(3) for role in roles}
    assert await house.version(collection, "timestamp") == 1 + 3 + 12


async def test_an_update_and_a_deletion_at_once(house: House):
    """Whoever is first: there is a whole collection, or nothing."""
    other = house.another()
    for round_ in range(6):
        collection, publisher = await house.begin(f"acme/app{round_}", v1=digest(1))
        update = publisher.sign({"v2": (digest(2), 5)})
        results = await asyncio.gather(
            house.publish(collection, update), other.trust.delete(collection), return_exceptions=True
        )
        assert results[1] is True
        assert not isinstance(results[0], BaseException) or isinstance(results[0], RuleBroken)  # no root any more
        for table in ("trust_files", "trust_roles", "trust_targets", "trust_delegations"):
            rows = await house.rooms.query(f"SELECT gun FROM {table} WHERE gun = :gun", gun=collection.gun)
            assert rows == []


async def test_an_update_and_the_deletion_of_its_repository_at_once(house: House):
    other = house.another()
    for round_ in range(6):
        path = f"acme/app{round_}"
        collection, publisher = await house.begin(path)
        results = await asyncio.gather(
            house.publish(collection, publisher.sign({"v1": (digest(1), 5)})),
            other.rooms.repositories.delete(path),
            return_exceptions=True,
        )
        lost = [one for one in results if isinstance(one, BaseException)]
        assert len(lost) == 1, results
        signed_tags = await house.index(collection)
        is_there = await house.rooms.query(
            "SELECT id FROM repositories WHERE id = :id AND deleted_at IS NULL", id=collection.repository
        )
        assert bool(signed_tags) == bool(is_there)


# --- what it costs --------------------------------------------------------------------------------------------


async def test_what_it_costs_does_not_depend_on_how_much_is_signed(house: House):
    costs = []
    for name, size in (("small", 2), ("large", 400)):
        tags = {f"v{number}": digest(number) for number in range(size)}
        collection, publisher = await house.begin(f"acme/{name}", **tags)
        await house.publish(collection, publisher.delegate("targets/ada", [Key.make()]))
        await house.publish(collection, publisher.sign({one: (digest(0), 5) for one in tags}, "targets/ada"))
        root = await house.trust.get(collection, "root")
        counter = Counter().watch(house.rooms.database)
        for read in (
            house.trust.get(collection, "timestamp"),
            house.trust.get(collection, "root"),
            house.trust.get_by_hash(collection, "root", root.sha256),
            house.trust.get_by_version(collection, "root", 1),
        ):
            await read
            assert counter.seen == (1, 0)
        await house.publish(collection, publisher.sign({one: (digest(1), 6) for one in tags}, "targets/ada"))
        costs.append((counter.reads, counter.units, counter.statements))
        assert len(await house.index(collection)) == 2 * size
    assert costs[0] == costs[1]
    reads, units, statements = costs[0]
    assert (reads, units) == (4, 1)  # files and index, and the signer's two keys
    assert statements <= 16


async def test_renewals_and_updates_across_collections_do_not_wait_for_each_other(house: House):
    collections = [await house.begin(f"acme/app{number}") for number in range(2)]
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def held() -> None:
        house.signer.after_signing = None
        entered.set()
        await go_on.wait()

    house.signer.after_signing = held
    slow = asyncio.create_task(house.publish(collections[0][0], {}))
    await entered.wait()
    async with asyncio.timeout(60):
        await house.publish(collections[1][0], {})
        assert await house.version(collections[0][0], "timestamp") == 1
    go_on.set()
    await slow
    assert isinstance(collections[0][0], Collection)
    assert await house.version(collections[0][0], "timestamp") == 2
