"""
Updates of a collection that break one rule each, whoever checks them.

Each row bends an update that was good before: its name, the bend, and what its refusal says. For bad roots the
update is named, too; that of targets is of the role that the bend is given; that of snapshots has all the files.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.support.collection import Collection
from tests.support.notary import Json, Key, Publisher, meta_of, moment, now, seal

from dtr.tuf import RuleBroken

if TYPE_CHECKING:
    from collections.abc import Callable

GUN = "dtr.example/alice/app"
DAY = dt.timedelta(days=1)
DIGEST = (f"sha256:{'a' * 64}", 500)


@dataclass
class Scene:
    """A collection with two delegations, one below the other, and the next update of it, which is good."""

    collection: Collection
    publisher: Publisher
    parts: dict[str, bytes]

    def bend(self, role: str, change: Callable[[Json], object], *, keys: list[Key] | None = None) -> None:
        """Sign a part again after a change, by those who should or by `keys`."""
        signed = json.loads(self.parts[role])["signed"]
        change(signed)
        self.parts[role] = seal(signed, self.signers(role) if keys is None else keys)

    def signers(self, role: str) -> list[Key]:
        """Who signs for a role."""
        if role == "snapshot":
            assert isinstance(self.publisher.snapshot, Key)
            return [self.publisher.snapshot]
        return self.publisher.signers_of(role)

    def cover(self) -> None:
        """Make a snapshot again, of what is to be uploaded."""
        self.publisher.files |= self.parts
        meta = self.publisher.snapshot_of(self.publisher.files)
        self.parts["snapshot"] = seal(meta, self.signers("snapshot"))

    def refused(self, name: str, message: str) -> RuleBroken:
        """The update is refused with this error, and a message in which `message` is found."""
        with pytest.raises(RuleBroken, match=message) as caught:
            self.collection.publish(self.parts)
        assert caught.value.name == name
        return caught.value


UPDATES: dict[str, Callable[[Publisher], dict[str, bytes]]] = {
    "root": lambda one: one.write("root"),
    "rotation": lambda one: one.rotate_root(),
    "targets": lambda one: one.sign({"next": DIGEST}),
    "a": lambda one: one.sign({"next": DIGEST}, "targets/a"),
    "b": lambda one: one.sign({"next": DIGEST}, "targets/a/b"),
    "all": lambda one: one.write("root", "targets", "targets/a", "targets/a/b"),
    "none": lambda _: {},
}


def scene(update: str, *, holds_snapshot: bool = False) -> Scene:
    """`update` is one of UPDATES; `holds_snapshot`: the publisher makes snapshots."""
    collection = Collection(GUN)
    publisher = collection.publisher(holds_snapshot=holds_snapshot)
    collection.publish(publisher.first({"latest": DIGEST}))
    collection.publish(publisher.delegate("targets/a", [Key.make(), Key.certified("bob")]))
    collection.publish(publisher.delegate("targets/a/b", [Key.make("ed25519")]) | publisher.write("targets/a/b"))
    return Scene(collection, publisher, UPDATES[update](publisher))


def first(*, holds_snapshot: bool = False) -> Scene:
    """Nothing is stored yet."""
    collection = Collection(GUN)
    publisher = collection.publisher(holds_snapshot=holds_snapshot)
    return Scene(collection, publisher, publisher.first({"latest": DIGEST}))


def with_root_key(one: Scene, key: Key) -> None:
    """The root lists another root key, and is signed by it and the one before."""
    before = one.publisher.root_keys

    def change(signed: Json) -> None:
        signed["keys"][key.id] = key.json
        signed["roles"]["root"]["keyids"] = [key.id]

    one.bend("root", change, keys=[*before, key])


def set_role(role: str, **values: object) -> Callable[[Scene], None]:
    return lambda one: one.bend("root", lambda signed: signed["roles"][role].update(values))


def keep_old_signature(one: Scene) -> None:
    """Of the two signatures, only that of the retired key."""
    file = json.loads(one.parts["root"])
    new = one.publisher.root_keys[0].id
    file["signatures"] = [signature for signature in file["signatures"] if signature["keyid"] != new]
    one.parts["root"] = json.dumps(file).encode()


def two_leaves() -> Key:
    one, other = Key.certified(GUN), Key.certified(GUN)
    return Key(one.type, one.public + other.public, one.private)


def replace(one: Scene, role: str, before: bytes, after: bytes) -> None:
    content = one.parts[role]
    assert content.count(before) == 1
    one.parts[role] = content.replace(before, after)


BAD_ROOTS: list[tuple[str, str, Callable[[Scene], object], str]] = [
    (
        "a version left out",
        "root",
        lambda one: one.bend("root", lambda s: s.update(version=s["version"] + 1)),
        "follow",
    ),
    (
        "a version before",
        "root",
        lambda one: one.bend("root", lambda s: s.update(version=s["version"] - 2)),
        "follow",
    ),
    ("no version", "root", lambda one: one.bend("root", lambda s: s.pop("version")), "follow"),
    ("another type", "root", lambda one: one.bend("root", lambda s: s.update(_type="Targets")), "_type"),
    *[
        (
            f"no role {role}",
            "root",
            lambda one, role=role: one.bend("root", lambda s: s["roles"].pop(role)),
            "no role",
        )
        for role in ("root", "targets", "snapshot", "timestamp")
    ],
    *[
        (f"threshold 0 of {role}", "root", set_role(role, threshold=0), f"threshold of {role}")
        for role in ("root", "targets", "snapshot", "timestamp")
    ],
    ("a threshold out of reach", "root", set_role("root", threshold=2), "of 2 needed"),
    ("a key that is not there", "root", set_role("targets", keyids=["0" * 64]), "not among the keys"),
    ("no signature", "root", lambda one: one.bend("root", len, keys=[]), "not signed"),
    ("a stranger's signature", "root", lambda one: one.bend("root", len, keys=[Key.certified(GUN)]), "0 valid"),
    (
        "a targets key's signature",
        "root",
        lambda one: one.bend("root", len, keys=one.publisher.targets_keys),
        "0 valid",
    ),
    (
        "a change after signing",
        "root",
        lambda one: replace(one, "root", b'"version":2', b'"version":1'),
        "0 valid",
    ),
    (
        "a number that is no integer",
        "root",
        lambda one: one.bend("root", lambda s: s.update(custom=0.5)),
        "fraction",
    ),
    ("expired", "root", lambda one: one.bend("root", lambda s: s.update(expires=moment(now() - DAY))), "expired"),
    ("no expiry", "root", lambda one: one.bend("root", lambda s: s.pop("expires")), "RFC 3339"),
    ("bare root key", "root", lambda one: with_root_key(one, Key.make()), "certificate"),
    (
        "of another collection",
        "root",
        lambda one: with_root_key(one, Key.certified(f"{GUN}2")),
        "another collection",
    ),
    (
        "of other collections",
        "root",
        lambda one: with_root_key(one, Key.certified("dtr.example/bob/*")),
        "another collection",
    ),
    ("an authority", "root", lambda one: with_root_key(one, Key.certified(GUN, is_ca=True)), "leaf"),
    ("short RSA", "root", lambda one: with_root_key(one, Key.certified(GUN, "rsa", bits=1024)), "2048 bits"),
    (
        "expired certificate",
        "root",
        lambda one: with_root_key(one, Key.certified(GUN, begin=now() - 2 * DAY, end=now() - DAY)),
        "expired",
    ),
    (
        "certificate of the day after tomorrow",
        "root",
        lambda one: with_root_key(one, Key.certified(GUN, begin=now() + 2 * DAY)),
        "not yet valid",
    ),
    ("two leaves", "root", lambda one: with_root_key(one, two_leaves()), "leaf"),
    (
        "rotated without the old key",
        "rotation",
        lambda one: one.bend("root", len, keys=one.publisher.root_keys),
        "by the previous root: 0 valid",
    ),
    ("rotated without the new key", "rotation", keep_old_signature, "^root: 0 valid"),
]


def entry(name: str, *keys: str, threshold: int = 1) -> Callable[[Json], object]:
    added = {"name": name, "keyids": list(keys), "threshold": threshold, "paths": [""]}
    return lambda signed: signed["delegations"]["roles"].append(added)


BAD_TARGETS: list[tuple[str, Callable[[Scene, str], object], str]] = [
    ("another type", lambda one, role: one.bend(role, lambda s: s.update(_type="Snapshot")), "_type"),
    ("version 0", lambda one, role: one.bend(role, lambda s: s.update(version=0)), "version"),
    ("expired", lambda one, role: one.bend(role, lambda s: s.update(expires=moment(now() - DAY))), "expired"),
    ("no signature", lambda one, role: one.bend(role, len, keys=[]), "not signed"),
    ("a stranger's signature", lambda one, role: one.bend(role, len, keys=[Key.make()]), "0 valid"),
    ("the root's signature", lambda one, role: one.bend(role, len, keys=one.publisher.root_keys), "0 valid"),
    (
        "a change after signing",
        lambda one, role: replace(one, role, b'"length":500}}', b'"length":501}}'),
        "0 valid",
    ),
    (
        "no hash of a target",
        lambda one, role: one.bend(role, lambda s: s["targets"].update(v={"length": 1})),
        "hashes",
    ),
    ("a number that is no integer", lambda one, role: one.bend(role, lambda s: s.update(custom=1.5)), "fraction"),
    ("an entry for another's child", lambda one, role: one.bend(role, entry("targets/x/y/z")), "directly below"),
    ("an entry for root", lambda one, role: one.bend(role, entry("root")), "directly below"),
    ("an entry with threshold 0", lambda one, role: one.bend(role, entry(f"{role}/c", threshold=0)), "threshold"),
    (
        "an entry with a missing key",
        lambda one, role: one.bend(role, entry(f"{role}/c", "0" * 64)),
        "among the keys",
    ),
]


def drop_hash(role: str) -> Callable[[Scene], None]:
    return lambda one: one.bend("snapshot", lambda signed: signed["meta"][role]["hashes"].pop("sha256"))


def claim(role: str, content: bytes) -> Callable[[Scene], None]:
    return lambda one: one.bend("snapshot", lambda signed: signed["meta"].update({role: meta_of(content)}))


BAD_SNAPSHOTS: list[tuple[str, Callable[[Scene], object], str]] = [
    ("another type", lambda one: one.bend("snapshot", lambda s: s.update(_type="Timestamp")), "_type"),
    ("version 0", lambda one: one.bend("snapshot", lambda s: s.update(version=0)), "version"),
    ("expired", lambda one: one.bend("snapshot", lambda s: s.update(expires=moment(now() - DAY))), "expired"),
    ("no signature", lambda one: one.bend("snapshot", len, keys=[]), "not signed"),
    ("a stranger's signature", lambda one: one.bend("snapshot", len, keys=[Key.make()]), "0 valid"),
    (
        "a targets key's signature",
        lambda one: one.bend("snapshot", len, keys=one.publisher.targets_keys),
        "0 valid",
    ),
    ("a number that is no integer", lambda one: one.bend("snapshot", lambda s: s.update(custom=0.1)), "fraction"),
    ("no files", lambda one: one.bend("snapshot", lambda s: s.pop("meta")), "no root"),
    *[
        (f"no {role}", lambda one, role=role: one.bend("snapshot", lambda s: s["meta"].pop(role)), f"no {role}")
        for role in ("root", "targets", "targets/a", "targets/a/b")
    ],
    *[(f"no sha256 of {role}", drop_hash(role), "sha256") for role in ("root", "targets")],
    *[
        (f"another {role}", claim(role, b"another"), f"of {role} are those of another file")
        for role in ("root", "targets", "targets/a", "targets/a/b")
    ],
    *[
        (
            f"another size of {role}",
            lambda one, role=role: one.bend("snapshot", lambda s: s["meta"][role].update(length=7)),
            f"of {role} are those of another file",
        )
        for role in ("root", "targets", "targets/a", "targets/a/b")
    ],
    (
        "another sha512",
        lambda one: one.bend(
            "snapshot",
            lambda s: s["meta"]["root"]["hashes"].update(
                meta_of(b"")["hashes"] | {"sha256": s["meta"]["root"]["hashes"]["sha256"]}
            ),
        ),
        "of root are those of another file",
    ),
]
