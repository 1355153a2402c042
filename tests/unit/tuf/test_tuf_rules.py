"""
Each rule of validation is broken alone, and gets the error that clients know it by.

Every case bends an update that was good before it: the same without the bend is checked, too.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest
from tests.support.bad_updates import (
    BAD_ROOTS,
    BAD_SNAPSHOTS,
    BAD_TARGETS,
    DIGEST,
    GUN,
    UPDATES,
    Scene,
    first,
    scene,
    set_role,
    with_root_key,
)
from tests.support.collection import version
from tests.support.notary import (
    SHA1_CERTIFICATE,
    YEAR,
    Json,
    Key,
    Publisher,
    canonical,
    meta_of,
    moment,
    now,
    seal,
    walk,
)

from dtr.tuf import RuleBroken, Signature, StoredBroken, what_to_renew

if TYPE_CHECKING:
    from collections.abc import Callable

DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)

# --- 1 to 3: root -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "bend", "message"), [row[1:] for row in BAD_ROOTS], ids=[row[0] for row in BAD_ROOTS]
)
def test_a_bad_root(update: str, bend: Callable[[Scene], object], message: str) -> None:
    one = scene(update)
    one.collection.check(one.parts)
    bend(one)
    one.refused("ErrBadRoot", message)


def test_a_certificate_signed_with_sha1_vouches_for_no_root() -> None:
    one = scene("root")
    with_root_key(one, Key("ecdsa-x509", SHA1_CERTIFICATE, Key.make().private))
    one.refused("ErrBadRoot", "sha1")


@pytest.mark.parametrize(
    "key",
    [
        lambda: Key.certified("dtr.example/alice/*"),
        lambda: Key.certified("*"),
        lambda: Key.certified(GUN, "rsa"),
        lambda: Key.certified(GUN, begin=now() + DAY - HOUR),
    ],
    ids=["for all of alice's", "for all", "rsa", "of tomorrow"],
)
def test_other_certificates_that_vouch_for_a_root(key: Callable[[], Key]) -> None:
    one = scene("root")
    with_root_key(one, key())
    one.collection.publish(one.parts)


@pytest.mark.parametrize(("number", "good"), [(0, False), (1, True), (2, True), (3, False)])
def test_the_first_root_has_version_1_or_2(number: int, *, good: bool) -> None:
    one = first()
    one.bend("root", lambda signed: signed.update(version=number))
    if good:
        one.collection.publish(one.parts)
    else:
        one.refused("ErrBadRoot", "does not follow 1")


def test_the_version_that_is_stored_passes_the_rules_and_is_left_to_storage() -> None:
    one = scene("none")
    one.parts = {"root": one.collection.files["root"]}
    assert one.collection.check(one.parts).root.version == 1


def test_the_first_root_is_for_its_own_collection() -> None:
    one = first()
    with_root_key(one, Key.certified("dtr.example/alice/other"))
    one.refused("ErrBadRoot", "another collection")


def test_without_any_root_nothing_is_valid() -> None:
    one = first()
    del one.parts["root"]
    one.refused("ErrValidation", "no root")
    one.parts = {}
    one.refused("ErrValidation", "no root")


def test_a_root_needs_so_many_of_the_previous_keys_as_the_previous_threshold_says() -> None:
    one = scene("none")
    keys = [*one.publisher.root_keys, Key.certified(GUN)]
    one.publisher.root_keys = keys
    one.publisher._list_keys()
    one.publisher.root["roles"]["root"]["threshold"] = 2
    one.collection.publish(one.publisher.write("root"))
    one.parts = one.publisher.write("root")
    one.bend("root", lambda signed: signed["roles"]["root"].update(threshold=1), keys=keys[:1])
    one.refused("ErrBadRoot", "by the previous root: 1 valid")
    one.bend("root", len, keys=keys)
    one.collection.publish(one.parts)


def test_a_previous_certificate_may_be_expired() -> None:
    one = first()
    begin = now() - 30 * DAY
    old = Key.certified(GUN, begin=begin, end=now() - DAY)
    one.publisher.root_keys = [old]
    one.publisher._list_keys()
    one.publisher.root["version"] = 0
    one.collection.publish(one.publisher.write("root", "targets"), begin + DAY)
    one.collection.publish(one.publisher.sign({"next": DIGEST}))
    root = one.collection.files["root"]
    one.collection.publish(one.publisher.rotate_root())
    walk(GUN, one.collection.files, trusted=root)


def test_a_stored_root_may_be_expired() -> None:
    one = scene("targets")
    one.collection.publish(one.parts, now() + 2 * YEAR)
    one.parts = one.publisher.write("targets/a")
    one.bend("targets/a", lambda signed: signed.update(expires=moment(now() + 30 * YEAR)))
    one.collection.publish(one.parts, now() + 20 * YEAR)


@pytest.mark.parametrize("damage", ["text", "signature", "structure", "name"])
def test_a_broken_stored_root_is_told_without_a_detail(damage: str) -> None:
    one = scene("targets")
    files = one.collection.files
    if damage == "text":
        files["root"] = b"{"
    elif damage == "signature":
        files["root"] = files["root"].replace(b'"version":1', b'"version":2')
    elif damage == "structure":
        files["root"] = seal({"_type": "Root"}, one.publisher.root_keys)
    else:
        files["root"] = Publisher("other/a/b", Key.make().json, Key.make().json).first()["root"]
    with pytest.raises(StoredBroken, match="stored root"):
        one.collection.publish(one.parts)


# --- 4: targets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", ["targets", "a", "b"])
@pytest.mark.parametrize(
    ("bend", "message"), [row[1:] for row in BAD_TARGETS], ids=[row[0] for row in BAD_TARGETS]
)
def test_bad_targets(update: str, bend: Callable[[Scene, str], object], message: str) -> None:
    role = {"targets": "targets", "a": "targets/a", "b": "targets/a/b"}[update]
    one = scene("none")
    one.publisher.roles[role]["targets"] = {}  # then the update has one
    one.parts = UPDATES[update](one.publisher)
    one.collection.check(one.parts)
    bend(one, role)
    one.refused("ErrBadTargets", f"^{role}: .*{message}")


def test_a_threshold_of_targets_that_is_not_reached() -> None:
    one = scene("all")
    keys = [*one.publisher.targets_keys, Key.make()]

    def change(signed: Json) -> None:
        signed["keys"][keys[1].id] = keys[1].json
        signed["roles"]["targets"] = {"keyids": [key.id for key in keys], "threshold": 2}

    one.bend("root", change)
    one.refused("ErrBadTargets", "^targets: 1 valid signatures by the role's keys, of 2")
    one.bend("targets", len, keys=keys)
    one.collection.publish(one.parts)


def test_a_threshold_of_a_delegation_that_is_not_reached() -> None:
    one = scene("all")
    one.bend("targets", lambda signed: signed["delegations"]["roles"][0].update(threshold=2))
    one.bend("targets/a", len, keys=one.signers("targets/a")[:1])
    one.refused("ErrBadTargets", "^targets/a: 1 valid")
    one.bend("targets/a", len)
    one.collection.publish(one.parts)


def test_keys_of_targets_are_those_of_the_root_of_the_same_update() -> None:
    one = scene("none")
    old = one.publisher.targets_keys
    one.parts = one.publisher.rotate_targets()
    one.collection.check(one.parts)
    one.bend("targets", len, keys=old)
    one.refused("ErrBadTargets", "^targets: 0 valid")


def test_a_key_of_a_delegation_under_another_id_than_its_own() -> None:
    one = scene("all")
    key = one.signers("targets/a")[0]

    def change(signed: Json) -> None:
        signed["delegations"]["keys"] = {"0" * 64: key.json}
        signed["delegations"]["roles"][0].update(keyids=["0" * 64])

    one.bend("targets", change)
    file = json.loads(one.parts["targets/a"])
    file["signatures"][0]["keyid"] = "0" * 64
    one.parts["targets/a"] = json.dumps(file).encode()
    one.refused("ErrBadTargets", "another id than declared")


def test_custom_data_is_verified_in_canonical_form_whatever_the_client_signed() -> None:
    """Clients sign custom data as it stands in a file of theirs: only if that is sorted, the signature is good."""
    one = scene("targets")
    unsorted = {"z": 1, "a": 2}

    def sign(custom: Json) -> None:
        signed = json.loads(one.parts["targets"])["signed"]
        signed["targets"]["next"]["custom"] = custom
        message = canonical(signed).replace(canonical(custom), json.dumps(custom, separators=(",", ":")).encode())
        one.parts["targets"] = seal(signed, one.signers("targets"), message=message)

    sign(unsorted)
    one.refused("ErrBadTargets", "0 valid")
    sign(dict(sorted(unsorted.items())))
    one.collection.publish(one.parts)


def test_a_delegation_that_nobody_knows() -> None:
    one = scene("a")
    one.publisher.roles["targets/x"] = {**one.publisher.roles["targets/a"], "version": 0}
    one.publisher.delegates["targets/x"] = one.publisher.delegates["targets/a"]
    one.parts |= one.publisher.write("targets/x")
    one.refused("ErrBadTargets", "^targets/x: .*does not delegate")


def test_of_several_bad_files_the_one_nearest_to_targets_is_told() -> None:
    one = scene("none")
    one.collection.publish(one.publisher.delegate("targets/b", [Key.make()]))
    one.parts = one.publisher.write("targets/a/b", "targets/b")
    for role in one.parts:
        one.bend(role, len, keys=[])
    one.refused("ErrBadTargets", "^targets/b: ")


def test_a_delegation_below_one_that_is_nowhere() -> None:
    one = scene("b")
    del one.collection.files["targets/a"]
    one.refused("ErrBadTargets", "^targets/a/b: .*does not delegate")


def test_a_delegation_without_any_targets() -> None:
    one = scene("a")
    del one.collection.files["targets"]
    one.refused("ErrBadTargets", "^targets/a: .*does not delegate")


def test_a_parent_of_the_same_update_wins_over_the_stored_one() -> None:
    one = scene("a")
    one.collection.check(one.parts)
    one.parts |= one.publisher.withdraw("targets/a")
    one.refused("ErrBadTargets", "^targets/a: .*does not delegate")
    one = scene("none")
    one.parts = one.publisher.delegate("targets/new", [Key.make()]) | one.publisher.write("targets/new")
    one.collection.publish(one.parts)
    assert "targets/new" in walk(GUN, one.collection.files)


def test_expired_is_what_lies_in_the_past() -> None:
    one = scene("targets")
    end = now() + DAY  # and 123 nanoseconds, see `moment`
    one.bend("targets", lambda signed: signed.update(expires=moment(end)))
    one.collection.check(one.parts, end)
    with pytest.raises(RuleBroken, match="expired"):
        one.collection.check(one.parts, end + dt.timedelta(microseconds=1))


def test_stored_parents_may_be_expired() -> None:
    one = scene("b")
    later = now() + 5 * YEAR
    one.bend("targets/a/b", lambda signed: signed.update(expires=moment(later + YEAR)))
    one.collection.publish(one.parts, later)


@pytest.mark.parametrize("role", ["targets", "targets/a"])
def test_a_stored_parent_that_is_not_signed_as_it_should_be(role: str) -> None:
    one = scene("b")
    signed = json.loads(one.collection.files[role])["signed"]
    one.collection.files[role] = seal(signed, [Key.make()])
    one.refused("ErrBadTargets", f"^{role}: 0 valid")


def test_a_stored_parent_that_cannot_be_read_is_told_without_a_detail() -> None:
    one = scene("b")
    one.collection.files["targets/a"] = b"[]"
    with pytest.raises(StoredBroken, match="stored targets/a"):
        one.collection.publish(one.parts)


# --- 5: a snapshot that came --------------------------------------------------------------------------------


@pytest.mark.parametrize("update", ["all", "b"])
@pytest.mark.parametrize(
    ("bend", "message"), [row[1:] for row in BAD_SNAPSHOTS], ids=[row[0] for row in BAD_SNAPSHOTS]
)
def test_a_bad_snapshot(update: str, bend: Callable[[Scene], object], message: str) -> None:
    """Of the update `b`, root, targets and targets/a come from storage: they count as well."""
    one = scene(update, holds_snapshot=True)
    one.collection.check(one.parts)
    bend(one)
    one.refused("ErrBadSnapshot", message)


@pytest.mark.parametrize("role", ["root", "targets", "targets/a", "targets/a/b"])
def test_a_snapshot_of_other_bytes_than_those_of_the_update(role: str) -> None:
    one = scene("all", holds_snapshot=True)
    one.parts[role] = one.parts[role].replace(b'{"signed"', b'{ "signed"')
    one.refused("ErrBadSnapshot", f"of {role} are those of another file")
    one.cover()
    one.collection.publish(one.parts)
    assert walk(GUN, one.collection.files)


def test_a_threshold_of_snapshots_that_is_not_reached() -> None:
    one = scene("all", holds_snapshot=True)
    other = Key.make()

    def change(signed: Json) -> None:
        signed["keys"][other.id] = other.json
        signed["roles"]["snapshot"]["keyids"].append(other.id)
        signed["roles"]["snapshot"]["threshold"] = 2

    one.bend("root", change)
    one.cover()
    one.refused("ErrBadSnapshot", "1 valid")
    one.bend("snapshot", len, keys=[*one.signers("snapshot"), other])
    one.collection.publish(one.parts)


def test_only_a_snapshot_is_an_update() -> None:
    one = scene("none", holds_snapshot=True)
    one.parts = one.publisher.write()
    assert list(one.parts) == ["snapshot"]
    assert one.collection.publish(one.parts).keys() == {"snapshot", "timestamp"}
    assert walk(GUN, one.collection.files)


def test_a_client_may_hold_the_key_that_the_server_held() -> None:
    one = scene("none")
    one.publisher.snapshot_version = version(one.collection.files["snapshot"])
    one.parts = one.publisher.rotate_server_key("snapshot", Key.make())
    assert "snapshot" in one.parts
    one.collection.publish(one.parts)
    assert walk(GUN, one.collection.files)


# --- 6: a snapshot that is made -----------------------------------------------------------------------------


def test_who_lacks_a_snapshot_and_its_key_is_told_so() -> None:
    one = scene("targets")
    one.collection.held = [one.collection.timestamp_key]
    assert one.refused("ErrBadHierarchy", "no snapshot").missing == "snapshot"
    one = scene("targets", holds_snapshot=True)
    del one.parts["snapshot"]
    assert one.refused("ErrBadHierarchy", "no snapshot").missing == "snapshot"


def test_a_snapshot_needs_as_many_keys_as_the_root_says() -> None:
    one = scene("root")
    other = Key.make()

    def change(signed: Json) -> None:
        signed["keys"][other.id] = other.json
        signed["roles"]["snapshot"]["keyids"].append(other.id)
        signed["roles"]["snapshot"]["threshold"] = 2

    one.bend("root", change)
    assert one.refused("ErrBadHierarchy", "no snapshot").missing == "snapshot"
    one.collection.held.append(other)
    one.collection.publish(one.parts)
    assert len(json.loads(one.collection.files["snapshot"])["signatures"]) == 2


def test_a_first_update_without_targets() -> None:
    one = first()
    del one.parts["targets"]
    one.refused("ErrValidation", "no targets")


@pytest.mark.parametrize("content", [b"", b"{}", seal({"_type": "Snapshot", "version": 1}, [])])
def test_a_broken_previous_snapshot(content: bytes) -> None:
    one = scene("targets")
    one.collection.files["snapshot"] = content
    one.refused("ErrValidation", "stored snapshot")


def test_a_broken_previous_snapshot_is_no_matter_when_another_comes() -> None:
    one = scene("targets", holds_snapshot=True)
    one.collection.files["snapshot"] = b"{}"
    assert one.collection.check(one.parts).snapshot == one.parts["snapshot"]


def test_what_is_in_a_snapshot_that_is_made() -> None:
    one = scene("all")
    files = one.collection.files
    before = json.loads(files["snapshot"])["signed"]
    before["meta"]["targets/gone"] = {**meta_of(b"gone"), "custom": {"kept": "as it was"}}
    one.collection.files["snapshot"] = seal(before, [Key.make()])  # whose key was rotated meanwhile
    one.parts = {role: one.parts[role] for role in ("root", "targets/a")}
    when = now()
    made = one.collection.publish(one.parts, when)
    signed = json.loads(made["snapshot"])["signed"]
    assert made["snapshot"].startswith(b'{"signed":' + canonical(signed) + b',"signatures":[{')
    assert signed["_type"] == "Snapshot"
    assert signed["version"] == before["version"] + 1
    assert dt.datetime.fromisoformat(signed["expires"]) == (when + 3 * YEAR).replace(microsecond=0)
    assert signed["meta"] == {
        **before["meta"],
        "root": meta_of(one.parts["root"]),
        "targets/a": meta_of(one.parts["targets/a"]),
    }
    assert walk(GUN, files)


def test_hashes_are_of_the_bytes_that_came() -> None:
    one = scene("targets")
    one.parts["targets"] = json.dumps({"more": 0.5, **json.loads(one.parts["targets"])}, indent=2).encode()
    made = one.collection.publish(one.parts)
    assert made["targets"] == one.parts["targets"]
    assert json.loads(made["snapshot"])["signed"]["meta"]["targets"] == meta_of(one.parts["targets"])


def test_an_update_of_nothing_makes_a_snapshot_and_a_timestamp() -> None:
    one = scene("none")
    before = {role: version(one.collection.files[role]) for role in ("snapshot", "timestamp")}
    made = one.collection.publish({})
    assert {role: version(content) for role, content in made.items()} == {
        role: number + 1 for role, number in before.items()
    }
    assert walk(GUN, one.collection.files)


# --- 7: the timestamp ---------------------------------------------------------------------------------------


def test_a_root_with_another_key_for_timestamps_than_the_server_s() -> None:
    one = scene("none")
    one.parts = one.publisher.rotate_server_key("timestamp", Key.make().json)
    one.refused("ErrBadRoot", "keys for timestamps")


def test_a_timestamp_needs_as_many_keys_as_the_root_says() -> None:
    one = scene("root")
    set_role("timestamp", threshold=2)(one)
    one.refused("ErrBadRoot", "keys for timestamps")


@pytest.mark.parametrize("content", [b"", b"{}", seal({"_type": "Timestamp", "version": 1}, [])])
def test_a_broken_previous_timestamp(content: bytes) -> None:
    one = scene("targets")
    one.collection.files["timestamp"] = content
    one.refused("ErrValidation", "stored timestamp")


def test_what_is_in_a_timestamp() -> None:
    one = scene("targets", holds_snapshot=True)
    before = version(one.collection.files["timestamp"])
    new = Key.make("ed25519")
    one.collection.held.append(new)
    one.parts = one.publisher.rotate_server_key("timestamp", new.json)
    when = now()
    made = one.collection.publish(one.parts, when)["timestamp"]
    signed = json.loads(made)["signed"]
    assert made.startswith(b'{"signed":' + canonical(signed) + b',"signatures":[{')
    assert signed == {
        "_type": "Timestamp",
        "expires": signed["expires"],
        "meta": {"snapshot": meta_of(one.parts["snapshot"])},
        "version": before + 1,
    }
    assert dt.datetime.fromisoformat(signed["expires"]) == (when + 14 * DAY).replace(microsecond=0)
    assert [one["keyid"] for one in json.loads(made)["signatures"]] == [new.id]


def test_a_timestamp_that_came_is_dropped() -> None:
    one = scene("targets")
    one.parts["timestamp"] = seal({"_type": "Timestamp", "version": 99}, [])
    assert one.collection.check(one.parts).files.keys() == {"targets"}
    made = one.collection.publish(one.parts)
    assert version(made["timestamp"]) == 4


def test_no_version_comes_after_the_last() -> None:
    one = scene("targets", holds_snapshot=True)
    one.bend("snapshot", lambda signed: signed.update(version=2**53))
    one.collection.publish(one.parts)
    key = one.collection.snapshot_key
    one.parts = one.publisher.write("root")
    one.bend(
        "root", lambda s: (s["keys"].update({key.id: key.json}), s["roles"]["snapshot"].update(keyids=[key.id]))
    )
    del one.parts["snapshot"]
    one.refused("ErrValidation", "cannot be made")


def test_a_signer_that_signs_wrongly_makes_no_files() -> None:
    one = scene("targets")
    draft = one.collection.check(one.parts).draft_snapshot(now())
    key = next(iter(draft.authority.keys))
    with pytest.raises(RuleBroken, match="snapshot made by the server") as caught:
        draft.seal([Signature(key, "eddsa", b"\0" * 64)])
    assert caught.value.name == "ErrValidation"
    with pytest.raises(RuleBroken) as caught:
        draft.seal([Signature("0" * 64, "eddsa", b"\0" * 64)])
    assert caught.value.name == "ErrBadHierarchy"


def test_messages_fit_into_the_body_that_clients_read() -> None:
    error = RuleBroken("ErrBadTargets", "é\0<" * 500)
    assert error.message.isascii()
    assert len(json.dumps(error.message)) < 700
    assert str(error) == error.message


# --- signing anew -------------------------------------------------------------------------------------------


def test_nothing_is_signed_anew_before_it_is_due() -> None:
    one = scene("none")
    made = now()
    assert one.collection.renew(made, HOUR) == []
    assert one.collection.renew(made + 13 * DAY, HOUR) == []


def test_a_timestamp_is_signed_anew_when_it_is_about_to_expire() -> None:
    one = scene("none")
    soon = now() + 14 * DAY - HOUR / 2
    assert one.collection.renew(soon, dt.timedelta(0)) == []
    before = dict(one.collection.files)
    assert one.collection.renew(soon, HOUR) == ["timestamp"]
    after = one.collection.files
    assert version(after["timestamp"]) == version(before["timestamp"]) + 1
    assert {**after, "timestamp": before["timestamp"]} == before
    assert walk(GUN, after, when=soon + 13 * DAY)
    assert one.collection.renew(soon, HOUR) == []


def test_an_expired_snapshot_is_made_anew_with_the_root_in_force() -> None:
    one = scene("none")
    files, held = one.collection.files, one.collection.held
    later = now() + 4 * YEAR
    before = json.loads(files["snapshot"])["signed"]
    files["snapshot"] = seal({**before, "meta": {**before["meta"], "root": meta_of(b"another")}}, held[1:])
    timestamp = json.loads(files["timestamp"])["signed"]
    files["timestamp"] = seal({**timestamp, "meta": {"snapshot": meta_of(files["snapshot"])}}, held[:1])
    assert one.collection.renew(later, HOUR) == ["snapshot", "timestamp"]
    after = json.loads(one.collection.files["snapshot"])["signed"]
    assert after["meta"] == {**before["meta"], "root": meta_of(one.collection.files["root"])}
    assert after["version"] == before["version"] + 1
    assert one.collection.renew(later, HOUR) == []


def test_a_snapshot_of_clients_is_theirs_until_it_has_expired() -> None:
    one = scene("none", holds_snapshot=True)
    files = one.collection.files
    end = dt.datetime.fromisoformat(json.loads(files["snapshot"])["signed"]["expires"][:19] + "+00:00")
    renewal = what_to_renew(GUN, files, end - HOUR / 2, HOUR)
    assert renewal is not None
    assert (renewal.snapshot_is_due, renewal.snapshot_is_expired) == (True, False)
    later = end + DAY
    renewal = what_to_renew(GUN, files, later, HOUR)
    assert renewal is not None
    assert (renewal.snapshot_is_due, renewal.snapshot_is_expired) == (True, True)
    with pytest.raises(RuleBroken):
        one.collection.seal(renewal.draft_snapshot(later))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda files: files.pop("root"), "no root"),
        (lambda files: files.pop("snapshot"), "no snapshot"),
        (lambda files: files.update(root=b"{}"), "_type"),
        (lambda files: files.update(snapshot=files["snapshot"] + b" "), "another snapshot"),
        (lambda files: files.update(timestamp=b""), "JSON"),
    ],
)
def test_nothing_is_signed_for_a_broken_collection(
    damage: Callable[[dict[str, bytes]], object], message: str
) -> None:
    one = scene("none")
    damage(one.collection.files)
    with pytest.raises(StoredBroken, match=message):
        one.collection.renew(now() + 15 * DAY, HOUR)


def test_nothing_is_signed_for_an_expired_root() -> None:
    one = scene("none")
    with pytest.raises(StoredBroken, match="expired"):
        one.collection.renew(now() + 10 * YEAR + DAY, HOUR)


def test_nothing_is_signed_for_a_root_whose_certificate_is_expired() -> None:
    one = first()
    one.publisher.root_keys = [Key.certified(GUN, end=now() + 10 * DAY)]
    one.publisher._list_keys()
    one.collection.publish(one.publisher.write("targets") | one.publisher.write("root"))
    assert one.collection.renew(now(), 14 * DAY + HOUR) == ["timestamp"]
    with pytest.raises(StoredBroken, match="certificate"):
        one.collection.renew(now() + 15 * DAY, HOUR)
