"""Files, what they say, names of roles, and moments."""

from __future__ import annotations

import copy
import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.notary import Json, Key, Publisher, meta_of, target

from dtr.tuf import (
    Envelope,
    FileMeta,
    Malformed,
    MetadataInvalid,
    ancestors_of,
    is_delegation,
    is_role,
    is_targets,
    parent_of,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)
from dtr.tuf.roles import by_depth
from dtr.tuf.times import nanoseconds, read_moment, write_moment

if TYPE_CHECKING:
    from collections.abc import Callable

GUN = "dtr.example/alice/app"
SHA512 = meta_of(b"")["hashes"]["sha512"]


def file(signed: object, signatures: object = ()) -> bytes:
    return json.dumps({"signed": signed, "signatures": signatures}).encode()


def parse(signed: object) -> Envelope:
    return Envelope.parse(file(signed))


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    made = Publisher(GUN, Key.make().json, Key.make())
    made.first({"latest": (f"sha256:{'a' * 64}", 500)})
    made.delegate("targets/releases", [Key.make(), Key.make("ed25519")], ["v", ""], 2)
    return made


# --- envelopes ----------------------------------------------------------------------------------------------


def test_a_file_keeps_its_bytes_and_says_what_is_signed(publisher: Publisher) -> None:
    content = publisher.files["targets"]
    found = Envelope.parse(content)
    assert found.content == content
    assert found.version == 2
    assert [one.key_id for one in found.signatures] == [publisher.targets_keys[0].id]
    assert found.message == json.dumps(found.signed, sort_keys=True, separators=(",", ":")).encode()
    assert found.meta == FileMeta.from_json(meta_of(content), "it")


@pytest.mark.parametrize(
    "content",
    [
        file({}),
        file({}, None),
        file({"_type": None, "expires": None, "version": None}, [{}]),
        file({"version": -1, "expires": "0001-01-01T00:00:00Z", "more": 0.5}, [{"keyid": None, "sig": None}]),
        b'{"signed":{},"unknown":{"signed":1.5}}',
        b"{}",
        b'{"signed":null,"signatures":null}',
    ],
    ids=lambda one: one.decode(),
)
def test_what_a_file_lacks_is_no_matter_at_first(content: bytes) -> None:
    assert Envelope.parse(content).content == content


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"null",
        b'{"signed":[]}',
        b'{"signed":"text"}',
        b'{"signed":{},"signatures":{}}',
        b'{"signed":{},"Signed":{}}',
        b'{"signed":{},"SIGNATURES":[]}',
        '{"\u017figned":{}}'.encode(),
        b'{"signed":{},"signatures":[{"sig":"","SIG":""}]}',
        '{"signed":{},"signatures":[{"\u212aeyid":""}]}'.encode(),
        b'{"signed":{},"signed":{}}',
        b'{"signed":{"targets":{"evil":{}},"targets":{}}}',
        b'{"signed":{"targets":{"a":{"length":1,"length":2}}}}',
        file({"_type": 1}),
        file({"version": "1"}),
        file({"version": 1.0}),
        file({"version": True}),
        file({"version": 2**63}),
        file({"expires": 1}),
        file({"expires": "tomorrow"}),
        file({}, ["text"]),
        file({}, [{"keyid": 1}]),
        file({}, [{"method": []}]),
        file({}, [{"sig": "no base64"}]),
        file({}, [{}] * 257),
    ],
    ids=lambda one: one[:60].decode("ascii", "replace"),
)
def test_what_is_no_file_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        Envelope.parse(content)


@given(st.binary(max_size=60), st.integers(0, 10_000), st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_any_damage_is_read_or_malformed(publisher: Publisher, junk: bytes, start: int, length: int) -> None:
    content = publisher.files["root"]
    damaged = content[: start % len(content)] + junk + content[start % len(content) + length :]
    try:
        found = Envelope.parse(damaged)
        read_root(found)
    except (Malformed, MetadataInvalid):
        return
    assert found.content == damaged


# --- structure ----------------------------------------------------------------------------------------------


def test_the_four_kinds_say_what_was_written(publisher: Publisher) -> None:
    root = read_root(Envelope.parse(publisher.files["root"]))
    assert root.authorities.keys() == {"root", "targets", "snapshot", "timestamp"}
    assert list(root.authorities["targets"].keys) == [publisher.targets_keys[0].id]
    targets = read_targets(Envelope.parse(publisher.files["targets"]), "targets")
    assert targets.targets["latest"].hex == "a" * 64
    assert targets.targets["latest"].length == 500
    entry = targets.delegations["targets/releases"]
    assert (entry.paths, entry.authority.threshold, len(entry.authority.keys)) == (("v", ""), 2, 2)
    snapshot = read_snapshot(Envelope.parse(publisher.files["snapshot"]))
    assert snapshot.meta["root"].matches(publisher.files["root"])
    assert not snapshot.meta["root"].matches(publisher.files["root"] + b"\n")
    timestamp = read_timestamp(parse(timestamp_of(publisher)))
    assert timestamp.snapshot.matches(publisher.files["snapshot"])


def timestamp_of(publisher: Publisher) -> Json:
    meta = {"snapshot": meta_of(publisher.files["snapshot"])}
    return {"_type": "Timestamp", "expires": "2030-01-01T00:00:00Z", "meta": meta, "version": 1}


def signed_of(publisher: Publisher, role: str) -> Json:
    found: Json = timestamp_of(publisher) if role == "timestamp" else json.loads(publisher.files[role])["signed"]
    return found


def read(publisher: Publisher, role: str, bend: Callable[[Json], object]) -> object:
    signed = copy.deepcopy(signed_of(publisher, role))
    bend(signed)
    found = parse(signed)
    readers = {"root": read_root, "snapshot": read_snapshot, "timestamp": read_timestamp}
    return readers[role](found) if role in readers else read_targets(found, role)


ROLES = ("root", "targets", "snapshot", "timestamp")


@pytest.mark.parametrize("role", ROLES)
def test_type_version_and_expiry_have_to_be_there(publisher: Publisher, role: str) -> None:
    read(publisher, role, lambda signed: signed.update(unknown={"member": 1}))
    for wrong in (
        {"_type": "Other"},
        {"_type": role},
        {"version": 0},
        {"version": -1},
        {"version": 2**53 + 1},
        {"version": None},
        {"expires": None},
    ):
        with pytest.raises(MetadataInvalid):
            read(publisher, role, lambda signed, wrong=wrong: signed.update(wrong))


@pytest.mark.parametrize(
    ("role", "bend"),
    [
        *[("root", lambda signed, name=name: signed["roles"].pop(name)) for name in ROLES],
        ("root", lambda signed: signed["roles"].update(root=None)),
        ("root", lambda signed: signed["roles"]["targets"].update(threshold=0)),
        ("root", lambda signed: signed["roles"]["targets"].update(threshold=-1)),
        ("root", lambda signed: signed["roles"]["targets"].update(threshold="1")),
        ("root", lambda signed: signed["roles"]["targets"].update(threshold=True)),
        ("root", lambda signed: signed["roles"]["targets"].pop("threshold")),
        ("root", lambda signed: signed["roles"]["targets"].update(keyids="all")),
        ("root", lambda signed: signed["roles"]["targets"]["keyids"].append("0" * 64)),
        ("root", lambda signed: signed["keys"].clear()),
        ("root", lambda signed: signed.pop("keys")),
        ("root", lambda signed: signed.update(keys=[])),
        ("root", lambda signed: signed["keys"].update(other={"keytype": "ecdsa"})),
        ("root", lambda signed: signed.update(roles=None)),
        ("targets", lambda signed: signed.update(targets=[])),
        ("targets", lambda signed: signed["targets"].update(v1={})),
        ("targets", lambda signed: signed["targets"].update(v1=None)),
        ("targets", lambda signed: signed["targets"].update(v1={"length": 1, "hashes": {}})),
        ("targets", lambda signed: signed["targets"].update(v1={"length": 1, "hashes": {"md5": "AAAA"}})),
        ("targets", lambda signed: signed["targets"].update(v1={"length": 1, "hashes": {"sha256": "AAAA"}})),
        ("targets", lambda signed: signed["targets"].update(v1={"length": 1, "hashes": {"sha256": 1}})),
        ("targets", lambda signed: signed["targets"]["latest"].update(length=-1)),
        ("targets", lambda signed: signed["targets"]["latest"].update(length=1.5)),
        ("targets", lambda signed: signed["targets"]["latest"].update(length="1")),
        ("targets", lambda signed: signed["delegations"].update(keys=[])),
        ("targets", lambda signed: signed["delegations"].update(roles={})),
        ("targets", lambda signed: signed["delegations"]["roles"].append("targets/a")),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(name="targets")),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(name="targets/a/b")),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(name="other/a")),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(name="targets/UPPER")),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(threshold=0)),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(paths=[1])),
        ("targets", lambda signed: signed["delegations"]["roles"][0].update(keyids=[1])),
        ("targets", lambda signed: signed["delegations"]["keys"].popitem()),
        ("snapshot", lambda signed: signed["meta"].pop("root")),
        ("snapshot", lambda signed: signed["meta"].pop("targets")),
        ("snapshot", lambda signed: signed["meta"]["root"]["hashes"].pop("sha256")),
        ("snapshot", lambda signed: signed["meta"]["targets"]["hashes"].update(sha256="AAAA")),
        ("snapshot", lambda signed: signed["meta"]["targets"]["hashes"].update(sha512="AAAA")),
        ("snapshot", lambda signed: signed.update(meta=[])),
        ("timestamp", lambda signed: signed.update(meta={})),
        ("timestamp", lambda signed: signed["meta"]["snapshot"]["hashes"].pop("sha256")),
        ("timestamp", lambda signed: signed["meta"]["snapshot"].pop("hashes")),
    ],
)
def test_each_flaw_of_structure_is_refused(
    publisher: Publisher, role: str, bend: Callable[[Json], object]
) -> None:
    with pytest.raises(MetadataInvalid):
        read(publisher, role, bend)


def test_what_go_leaves_out_is_empty(publisher: Publisher) -> None:
    def bend(signed: Json) -> None:
        signed.update(targets=None, delegations={"keys": None, "roles": None})

    found = read_targets(parse({**signed_of(publisher, "targets"), "delegations": None}), "targets")
    assert not found.delegations
    read(publisher, "targets", bend)
    without_length = {"v1": {"hashes": target(f"sha256:{'b' * 64}", 1)["hashes"]}}
    assert read_targets(parse({**signed_of(publisher, "targets"), "targets": without_length}), "targets")


def test_one_known_hash_is_enough_for_a_target(publisher: Publisher) -> None:
    hashes = {"sha512": SHA512, "md5": "AAAA"}
    signed = {**signed_of(publisher, "targets"), "targets": {"v1": {"length": 0, "hashes": hashes}}}
    meta = read_targets(parse(signed), "targets").targets["v1"]
    assert meta.sha256 is None
    assert meta.hex == ""
    assert meta.matches(b"")
    assert not meta.matches(b"x")
    assert meta.to_json() == {"length": 0, "hashes": {"sha512": SHA512}}


def test_of_two_entries_for_a_delegation_the_first_counts(publisher: Publisher) -> None:
    signed = copy.deepcopy(signed_of(publisher, "targets"))
    first = signed["delegations"]["roles"][0]
    signed["delegations"]["roles"].append({**first, "threshold": 1, "paths": []})
    assert read_targets(parse(signed), "targets").delegations[first["name"]].authority.threshold == 2


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["targets/a", "targets/a/b-c_d/0", "targets/" + "a" * 247])
def test_names_of_delegations(name: str) -> None:
    assert is_delegation(name)
    assert is_role(name)
    assert is_targets(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "targets/",
        "targets//a",
        "targets/a/",
        "targets/.",
        "targets/../root",
        "targets/a.b",
        "targets/A",
        "targets/a b",
        "targets/é",
        "targets/a\n",
        "/targets/a",
        "Targets/a",
        "targetsa",
        "root/a",
        "timestamp/a",
        "targets/" + "a" * 248,
    ],
)
def test_what_is_no_name_of_a_role(name: str) -> None:
    assert not is_role(name)
    assert not is_targets(name)


def test_the_four_roles_and_their_order() -> None:
    assert all(map(is_role, ROLES))
    assert [role for role in ROLES if is_targets(role)] == ["targets"]
    assert parent_of("targets/a/b") == "targets/a"
    assert ancestors_of("targets/a/b") == ["targets", "targets/a"]
    assert ancestors_of("targets") == []
    roles = ["targets/b", "targets/a/z", "targets", "targets/a", "targets/b/a"]
    assert sorted(roles, key=by_depth) == ["targets", "targets/a", "targets/b", "targets/a/z", "targets/b/a"]


# --- moments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-12-08T08:24:23.90040679Z", 1796718263_900406790),
        ("2026-12-08T08:24:23Z", 1796718263_000000000),
        ("2026-12-08T10:24:23.000000001+02:00", 1796718263_000000001),
        ("2026-12-08T07:54:23-00:30", 1796718263_000000000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("0001-01-01T00:00:00+23:59", -62135683140_000000000),
        ("9999-12-31T23:59:59.9999999999Z", 253402300799_999999999),
    ],
)
def test_moments_are_read_to_the_nanosecond(text: str, same: int) -> None:
    assert read_moment(text) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-12-08",
        "2026-12-08T08:24:23",
        "2026-12-08 08:24:23Z",
        "2026-12-08t08:24:23z",
        "2026-12-08T08:24Z",
        "2026-12-08T08:24:23,5Z",
        "2026-12-08T08:24:23.Z",
        "2026-12-08T08:24:60Z",
        "2026-13-08T08:24:23Z",
        "2026-02-29T08:24:23Z",
        "0000-01-01T00:00:00Z",
        "2026-12-08T08:24:23+24:00",
        "2026-12-08T08:24:23+0200",
        "2026-12-08T08:24:23Z\n",
        "\uff12026-12-08T08:24:23Z",
    ],
)
def test_other_moments_are_refused(text: str) -> None:
    with pytest.raises(MetadataInvalid):
        read_moment(text)


@given(st.datetimes(timezones=st.just(dt.UTC)))
@settings(max_examples=60, deadline=None)
def test_moments_are_those_of_the_standard_library(utc: dt.datetime) -> None:
    assert read_moment(utc.isoformat().replace("+00:00", "Z")) == nanoseconds(utc)
    assert read_moment(write_moment(utc)) == nanoseconds(utc.replace(microsecond=0))
