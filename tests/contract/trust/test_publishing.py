"""Publications of collections: what is stored and served, and what is signed according to the index."""

from __future__ import annotations

import hashlib
import json

import pytest
from tests.contract.trust.conftest import HOST, House, digest, sha256_of, signed
from tests.support.notary import Key, seal

from dtr.events import Actor, Events, Filter
from dtr.oci import parse_repository_name
from dtr.trust import Collection, FileUnknown, RepositoryGone, VersionConflict
from dtr.tuf import Envelope, RuleBroken

ADA = Actor("user", "id of ada", "ada", "192.0.2.7")


async def test_what_is_published_is_served_byte_for_byte(house: House):
    collection = await house.collection()
    publisher = await house.publisher(collection)
    files = publisher.first({"v1": (digest(1), 5)})
    told = await house.publish(collection, files)
    assert (told.version, told.roles, told.signed) == (1, ("root", "snapshot", "targets"), ("v1",))
    for role, content in files.items():
        found = await house.trust.get(collection, role)
        assert found.content == content
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert (await house.trust.get_by_hash(collection, role, found.sha256)) == found
        assert (await house.trust.get_by_version(collection, role, found.version)) == found
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}
    (row,) = await house.rooms.query("SELECT min(created_at), max(created_at) FROM trust_files")
    assert row[0] <= (await house.trust.get(collection, "root")).created_at <= row[1]


async def test_there_is_nothing_before_the_first_publication(house: House):
    collection = await house.collection()
    for role in ("root", "timestamp", "snapshot", "targets", "targets/ada"):
        with pytest.raises(FileUnknown):
            await house.trust.get(collection, role)
    await house.publish(collection, (await house.publisher(collection)).first())
    for role in ("targets/ada", "targets/releases"):
        with pytest.raises(FileUnknown):  # absent from the snapshot
            await house.trust.get(collection, role)
    for version in (0, 2, 2**40, 10**30):
        with pytest.raises(FileUnknown):
            await house.trust.get_by_version(collection, "root", version)
    root = await house.trust.get(collection, "root")
    with pytest.raises(FileUnknown):
        await house.trust.get_by_hash(collection, "targets", root.sha256)
    other = Collection(await house.rooms.make_repository("acme/other"), f"{HOST}/acme/other")
    with pytest.raises(FileUnknown):
        await house.trust.get_by_hash(other, "root", root.sha256)


async def test_docker_signs_in_two_roles(house: House):
    collection, publisher = await house.begin()
    ada = Key.make()
    await house.publish(collection, publisher.delegate("targets/ada", [ada]))
    await house.publish(collection, publisher.delegate("targets/releases", [ada]))
    told = await house.publish(
        collection, publisher.sign({"v1": (digest(1), 5)}, "targets/ada", "targets/releases"), by=ADA
    )
    assert told.roles == ("snapshot", "targets/ada", "targets/releases")
    assert told.signed == ("v1",)
    by_role = {"v1": digest(1)}
    assert await house.walk(collection) == {"targets": {}, "targets/ada": by_role, "targets/releases": by_role}
    assert await house.index(collection) == {
        ("targets/ada", "v1"): digest(1),
        ("targets/releases", "v1"): digest(1),
    }
    # the keys, as accounts know them
    assert await house.rooms.query(
        "SELECT role, key_id, public_key_id, has_signed FROM trust_delegations WHERE role LIKE 'targets/%'"
        " ORDER BY role"
    ) == [
        (role, ada.id, hashlib.sha256(ada.public).hexdigest(), True)
        for role in ("targets/ada", "targets/releases")
    ]
    (event,) = await Events(house.rooms.database).list_events(Filter(actor=ADA.id), limit=10)
    assert (event.type, event.object.kind, event.object.name) == ("UPDATE", "trust_collection", collection.gun)
    assert json.loads(event.object.content) == {
        "roles": ["snapshot", "targets/ada", "targets/releases"],
        "signed": ["v1"],
        "revoked": [],
        "more": 0,
    }
    # taken back in one of the roles it is still signed, in both it is not
    told = await house.publish(collection, publisher.revoke("v1", "targets/ada"))
    assert (told.signed, told.revoked) == ((), ())
    told = await house.publish(collection, publisher.revoke("v1", "targets/releases"))
    assert (told.signed, told.revoked) == ((), ("v1",))
    assert await house.index(collection) == {}


async def test_an_update_without_parts_makes_a_snapshot_and_a_timestamp(house: House):
    collection, _ = await house.begin(v1=digest(1))
    before = await house.files(collection)
    told = await house.publish(collection, {})
    after = await house.files(collection)
    assert told.version == 2
    assert signed(after["snapshot"])["version"] == 2
    assert {role for role in before if before[role] != after[role]} == {"timestamp", "snapshot"}
    assert await house.index(collection) == {("targets", "v1"): digest(1)}


async def test_clients_may_make_snapshots(house: House):
    collection = await house.collection()
    publisher = await house.publisher(collection, snapshot=Key.make())
    await house.publish(collection, publisher.first({"v1": (digest(1), 5)}))
    assert house.signer.counts["sign"] == 1
    assert (await house.trust.get(collection, "snapshot")).content == publisher.files["snapshot"]
    # from now on the server does
    key = await house.trust.rotate_key(collection, "snapshot", by=ADA)
    assert await house.trust.rotate_key(collection, "snapshot") == key  # it signed nothing yet
    await house.publish(collection, publisher.rotate_server_key("snapshot", key.to_json()))
    assert await house.version(collection, "snapshot") == 2
    assert await house.trust.get_key(collection, "snapshot") == key
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}
    # and clients again
    publisher.snapshot_version = 2
    await house.publish(collection, publisher.rotate_server_key("snapshot", Key.make()))
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}


async def test_a_snapshot_that_names_an_older_file_leads_to_that(house: House):
    collection = await house.collection()
    publisher = await house.publisher(collection, snapshot=Key.make())
    ada, snapshot = Key.make(), publisher.snapshot
    assert isinstance(snapshot, Key)
    await house.publish(collection, publisher.first())
    await house.publish(collection, publisher.delegate("targets/ada", [ada]))
    old = publisher.sign({"v1": (digest(1), 5)}, "targets/ada")
    await house.publish(collection, old)
    await house.publish(collection, publisher.sign({"v1": (digest(2), 5)}, "targets/ada"))
    assert await house.index(collection) == {("targets/ada", "v1"): digest(2)}
    publisher.files["targets/ada"] = old["targets/ada"]
    publisher.snapshot_version += 1
    again = seal(publisher.snapshot_of(publisher.files), [snapshot])
    told = await house.publish(collection, {"snapshot": again})
    assert told.signed == ("v1",)
    assert (await house.trust.get(collection, "targets/ada")).content == old["targets/ada"]
    assert await house.index(collection) == {("targets/ada", "v1"): digest(1)}
    # one that names a file that nobody has
    del publisher.files["targets/ada"]
    publisher.snapshot_version += 1
    told = await house.publish(collection, {"snapshot": seal(publisher.snapshot_of(publisher.files), [snapshot])})
    assert told.revoked == ("v1",)
    with pytest.raises(FileUnknown):
        await house.trust.get(collection, "targets/ada")
    assert await house.index(collection) == {}


async def test_keys(house: House):
    collection = await house.collection()
    key = await house.trust.get_key(collection, "timestamp")
    assert await house.trust.get_key(collection, "timestamp") == key  # who asks twice gets one
    assert await house.trust.get_key(collection, "snapshot") != key
    publisher = await house.publisher(collection)
    await house.publish(collection, publisher.first())
    assert await house.trust.get_key(collection, "timestamp") == key
    new = await house.trust.rotate_key(collection, "timestamp", by=ADA)
    assert new != key
    assert await house.trust.get_key(collection, "timestamp") == key  # until the root lists the other
    (event,) = await Events(house.rooms.database).list_events(Filter(actor=ADA.id), limit=10)
    assert json.loads(event.object.content) == {"role": "timestamp", "key": new.id}
    await house.publish(collection, publisher.sign({"v1": (digest(1), 5)}))
    signature = json.loads((await house.trust.get(collection, "timestamp")).content)["signatures"]
    assert [one["keyid"] for one in signature] == [key.id]
    await house.publish(collection, publisher.rotate_server_key("timestamp", new.to_json()))
    assert await house.trust.get_key(collection, "timestamp") == new
    assert await house.version(collection, "timestamp") == 3
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}


async def test_all_roots_stay(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    roots = [publisher.files["root"]]
    for _ in range(3):
        await house.publish(collection, publisher.rotate_root())
        roots.append(publisher.files["root"])
    for version, content in enumerate(roots, 1):
        assert (await house.trust.get_by_version(collection, "root", version)).content == content
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}


async def test_what_breaks_a_rule_changes_nothing(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    before = await house.files(collection)
    good = publisher.sign({"v2": (digest(2), 5)})
    publisher.targets_keys = [Key.make()]
    with pytest.raises(RuleBroken) as caught:
        await house.publish(collection, publisher.sign({"v3": (digest(3), 5)}))
    assert caught.value.name == "ErrBadTargets"
    for files in (good, {}):  # an older version is no matter of the rules
        publisher_root = {"root": publisher.files["root"], **files}
        with pytest.raises(VersionConflict):
            await house.publish(collection, publisher_root)
    assert await house.files(collection) == before
    assert await house.index(collection) == {("targets", "v1"): digest(1)}
    assert await house.rooms.count("trust_changes") == 1


async def test_a_collection_has_bounds(house: House, monkeypatch: pytest.MonkeyPatch):
    collection, publisher = await house.begin(v1=digest(1))
    now = sum(map(len, (await house.files(collection)).values()))
    monkeypatch.setattr("dtr.trust.room._LARGEST_COLLECTION", now + 500)
    update = publisher.sign({f"v{number}": (digest(1), 5) for number in range(9)})
    with pytest.raises(RuleBroken) as caught:
        await house.publish(collection, update)
    assert caught.value.name == "ErrValidation"
    monkeypatch.undo()
    await house.publish(collection, update)
    monkeypatch.setattr("dtr.trust.room._MOST_ROLES", 4)
    ada = Key.make()
    await house.publish(collection, publisher.delegate("targets/ada", [ada]))
    with pytest.raises(RuleBroken):
        await house.publish(collection, publisher.sign({"v1": (digest(1), 5)}, "targets/ada"))


async def test_a_role_is_given_once(house: House):
    collection, publisher = await house.begin()
    part = Envelope.parse(publisher.sign({"v1": (digest(1), 5)})["targets"])
    with pytest.raises(VersionConflict):
        await house.trust.publish(collection, [("targets", part), ("targets", part)])


async def test_timestamps_of_clients_are_dropped(house: House):
    collection, publisher = await house.begin()
    files = publisher.sign({"v1": (digest(1), 5)}) | {"timestamp": b'{"signed":{"version":9},"signatures":[]}'}
    assert (await house.publish(collection, files)).version == 2


async def test_the_repository_has_to_be_there(house: House):
    collection = await house.collection()
    publisher = await house.publisher(collection)
    await house.rooms.repositories.delete("acme/app")
    with pytest.raises(RepositoryGone):
        await house.publish(collection, publisher.first())
    assert await house.rooms.count("trust_files") == 0


async def test_with_a_repository_goes_its_trust_data(house: House):
    collection, _ = await house.begin()
    await house.rooms.repositories.delete("acme/app")
    assert await house.rooms.count("trust_files") == 0
    assert [one.category for one in await house.trust.list_changes(after=0, records=9, age=0)] == [
        "update",
        "deletion",
    ]
    with pytest.raises(FileUnknown):
        await house.trust.get(collection, "timestamp")


# --- what is signed -------------------------------------------------------------------------------------------


async def test_the_index_has_what_a_client_finds(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    ada, bob = Key.make(), Key.make("ed25519")
    await house.publish(collection, publisher.delegate("targets/ada", [ada], paths=["dev-", "v"]))
    await house.publish(collection, publisher.delegate("targets/releases", [ada, bob], threshold=2))
    tags = {name: (digest(4), 5) for name in ("dev-1", "v2", "latest", "not a tag", "x" * 200, "a/b")}
    await house.publish(collection, publisher.sign(tags, "targets/ada", "targets/releases"))
    assert await house.index(collection) == {
        ("targets", "v1"): digest(1),
        ("targets/ada", "dev-1"): digest(4),
        ("targets/ada", "v2"): digest(4),
        **{("targets/releases", name): digest(4) for name in ("dev-1", "v2", "latest")},
    }
    # below ada, only what is within her paths
    carl = Key.make()
    await house.publish(collection, publisher.delegate("targets/ada/carl", [carl], paths=["dev-2", "latest"]))
    more = {name: (digest(5), 5) for name in ("dev-1", "dev-2.1", "latest")}
    await house.publish(collection, publisher.sign(more, "targets/ada/carl"))
    assert {key for key in await house.index(collection) if key[0] == "targets/ada/carl"} == {
        ("targets/ada/carl", "dev-2.1")
    }
    keys = await house.rooms.query("SELECT role, key_id, has_signed FROM trust_delegations")
    assert {(role, key) for role, key, has_signed in keys if has_signed and role.startswith("targets/")} == {
        ("targets/ada", ada.id),
        ("targets/ada/carl", carl.id),
        ("targets/releases", ada.id),
        ("targets/releases", bob.id),
    }
    # ada may sign no longer: her file is there and stands for nothing, nor does what is below it
    await house.publish(collection, publisher.withdraw("targets/ada"))
    assert {role for role, _ in await house.index(collection)} == {"targets", "targets/releases"}
    assert (await house.trust.get(collection, "targets/ada")).version
    # back with another key, she has signed nothing; with her own, what was signed
    await house.publish(collection, publisher.delegate("targets/ada", [Key.make()]))
    assert {role for role, _ in await house.index(collection)} == {"targets", "targets/releases"}
    await house.publish(collection, publisher.delegate("targets/ada", [ada], paths=["v"]))
    assert {key for key in await house.index(collection) if key[0] == "targets/ada"} == {("targets/ada", "v2")}


async def test_targets_by_keys_that_the_root_lists_no_more_count_no_more(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    old = publisher.targets_keys
    publisher.targets_keys = [Key.make()]
    publisher._list_keys()
    await house.publish(collection, publisher.write("root"))
    assert await house.index(collection) == {}
    assert old != publisher.targets_keys
    await house.publish(collection, publisher.write("targets"))
    assert await house.index(collection) == {("targets", "v1"): digest(1)}


async def test_what_was_forgotten_stays_so_until_it_is_signed_for_another_digest(house: House):
    collection, publisher = await house.begin(v1=digest(1), v2=digest(1))
    await house.rooms.change("UPDATE trust_targets SET forgotten_at = 1, signed_at = 1")
    await house.publish(collection, publisher.sign({"v2": (digest(2), 5), "v3": (digest(3), 5)}))
    await house.publish(collection, publisher.rotate_targets())
    rows = await house.rooms.query("SELECT name, forgotten_at, signed_at = 1 FROM trust_targets ORDER BY name")
    assert [(name, forgotten, bool(old)) for name, forgotten, old in rows] == [
        ("v1", 1, True),
        ("v2", None, False),
        ("v3", None, False),
    ]


async def test_who_waits_for_signatures_is_told_in_the_same_unit(house: House):
    told = []

    async def signed_now(tx, repository, digests):
        told.append((repository, list(digests)))
        if len(told) == 2:
            raise RuntimeError("nothing of this stays")

    waiting = House(house.rooms, house.passphrases, signed=signed_now)
    collection, publisher = await waiting.begin(v1=digest(1), v2=digest(1))
    assert told == [(collection.repository, [digest(1)])]
    with pytest.raises(RuntimeError):
        await waiting.publish(collection, publisher.sign({"v3": (digest(3), 5)}))
    assert await waiting.version(collection, "timestamp") == 1
    assert await waiting.index(collection) == {("targets", "v1"): digest(1), ("targets", "v2"): digest(1)}
    await waiting.publish(collection, publisher.sign({"v4": (digest(1), 5)}))
    await waiting.publish(collection, {})
    assert told[2:] == [(collection.repository, [digest(1), digest(3)])]


async def test_ends_are_those_of_the_chain(house: House):
    collection, publisher = await house.begin()
    ada = Key.make()
    publisher.delegate("targets/ada", [ada])
    publisher.roles["targets"]["expires"] = "2999-01-01T00:00:00Z"
    publisher.roles["targets/ada"]["expires"] = "3999-01-01T00:00:00.5+01:00"
    await house.publish(collection, publisher.write("targets", "targets/ada"))
    ends = dict(await house.rooms.query("SELECT role, expires_at FROM trust_roles"))
    root = signed((await house.trust.get(collection, "root")).content)["expires"]
    assert ends["targets"] == ends["targets/ada"] == ends["root"]
    assert root.startswith("20")
    publisher.root["expires"] = "3500-01-01T00:00:00Z"
    await house.publish(collection, publisher.write("root"))
    ends = dict(await house.rooms.query("SELECT role, expires_at FROM trust_roles"))
    assert ends["targets"] == ends["targets/ada"] == 32472144000000 < ends["root"]


# --- deleting -------------------------------------------------------------------------------------------------


async def test_deleting(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    ada = await house.trust.get_key(collection, "timestamp")
    other, _ = await house.begin("acme/app2", v1=digest(1))
    assert await house.trust.delete(collection, by=ADA)
    assert not await house.trust.delete(collection, by=ADA)
    (event,) = await Events(house.rooms.database).list_events(Filter(actor=ADA.id), limit=10)
    assert (event.type, event.object.id) == ("DELETE", collection.gun)
    for table in ("trust_files", "trust_roles", "trust_targets", "trust_delegations"):
        assert {row[0] for row in await house.rooms.query(f"SELECT gun FROM {table}")} == {other.gun}
    changes = await house.trust.list_changes(after=0, records=100, collection=collection, age=0)
    assert [(one.category, one.version) for one in changes] == [("update", 1), ("deletion", 0)]
    assert changes[1].sha256 == ""
    # it may begin again from version 1; its keys signed already, so there are new ones
    publisher = await house.publisher(collection)
    assert publisher.timestamp != ada.to_json()
    await house.publish(collection, publisher.first({"v1": (digest(2), 5)}))
    assert await house.walk(collection) == {"targets": {"v1": digest(2)}}


async def test_a_repository_may_have_collections_of_several_names(house: House):
    collection, publisher = await house.begin(v1=digest(1))
    alias = Collection(collection.repository, "registry.test/acme/app")
    second = await house.publisher(alias)
    assert second.timestamp != publisher.timestamp
    await house.publish(alias, second.first({"v1": (digest(2), 5)}))
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}
    assert await house.walk(alias) == {"targets": {"v1": digest(2)}}
    assert await house.trust.delete_all(collection.repository, by=ADA) == [collection.gun, alias.gun]
    assert await house.rooms.count("trust_files") == 0
    assert len(await Events(house.rooms.database).list_events(Filter(actor=ADA.id), limit=10)) == 2


async def test_who_takes_a_name_finds_nothing_of_the_one_that_had_it(house: House):
    collection, _ = await house.begin(v1=digest(1))
    await house.rooms.repositories.rename("acme/app", parse_repository_name("acme/old"))
    assert await house.walk(collection) == {"targets": {"v1": digest(1)}}  # by its old name
    successor, _ = await house.begin(v1=digest(2))
    assert successor.gun == collection.gun
    assert await house.walk(successor) == {"targets": {"v1": digest(2)}}
    changes = await house.trust.list_changes(after=0, records=100, collection=successor, age=0)
    assert len(changes) == 1
    root = await house.trust.get(collection, "root")
    with pytest.raises(FileUnknown):
        await house.trust.get_by_hash(successor, "root", root.sha256)
    assert sha256_of(signed((await house.files(successor))["snapshot"])["meta"]["root"]) != root.sha256


async def test_a_key_signs_for_one_role_alone(house: House):
    collection = await house.collection()
    publisher = await house.publisher(collection)
    publisher.snapshot = publisher.timestamp
    publisher._list_keys()
    with pytest.raises(RuleBroken) as caught:
        await house.publish(collection, publisher.first())
    assert caught.value.name == "ErrBadHierarchy"


async def test_a_key_signs_for_one_collection_alone(house: House):
    """Who lists the server's key of another collection gets nothing signed that its clients would take."""
    victim, theirs = await house.begin(v1=digest(1))
    collection = await house.collection("evil/app")
    publisher = await house.publisher(collection)
    own_timestamp = publisher.timestamp
    publisher.timestamp = theirs.timestamp
    publisher._list_keys()
    with pytest.raises(RuleBroken) as caught:
        await house.publish(collection, publisher.first())
    assert caught.value.name == "ErrBadRoot"
    publisher.timestamp, publisher.snapshot = own_timestamp, theirs.snapshot
    publisher._list_keys()
    with pytest.raises(RuleBroken) as caught:
        await house.publish(collection, publisher.write("root", "targets", raise_version=False))
    assert caught.value.name == "ErrBadHierarchy"
    assert await house.walk(victim) == {"targets": {"v1": digest(1)}}
