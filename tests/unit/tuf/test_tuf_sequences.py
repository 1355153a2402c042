"""
Random histories of a collection: good updates, damaged ones, and time that goes by.

After every step a client that knows nothing of the rules' code walks the current files, and finds what was
published, no more and no less. A damaged update changes nothing, and the same without the damage goes through.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.collection import Collection, VersionTaken, version
from tests.support.notary import Json, Key, Publisher, meta_of, moment, now, seal, walk

from dtr.tuf import Malformed, RuleBroken

if TYPE_CHECKING:
    from collections.abc import Callable

GUN = "dtr.example/alice/app"
DAY = dt.timedelta(days=1)
CHOICE = st.integers(0, 10**6)
TAGS = st.sampled_from(["latest", "v1", "v<2>", "é"])
DIGESTS = st.sampled_from([f"sha256:{one * 64}" for one in "abc"])
NAMES = st.sampled_from(["a", "b"])


class History(RuleBasedStateMachine):
    """What was published, and what the collection makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.collection = Collection(GUN)
        self.publisher = self.collection.publisher()
        self.elapsed = dt.timedelta(0)
        self.published = {"targets"}
        self.trusted: bytes | None = None
        self.collection.publish(self.publisher.first())

    # what can happen

    @rule(name=TAGS, digest=DIGESTS, choice=CHOICE)
    def sign(self, name: str, digest: str, choice: int) -> None:
        role = self.role(choice)
        self.publish(self.publisher.sign({name: (digest, 500)}, role))
        self.published.add(role)

    @rule(name=TAGS, digest=DIGESTS)
    def sign_everywhere(self, name: str, digest: str) -> None:
        roles = self.roles()
        self.publish(self.publisher.sign({name: (digest, 500)}, *roles))
        self.published |= set(roles)

    @rule(choice=CHOICE)
    def revoke(self, choice: int) -> None:
        role = self.role(choice)
        tags = self.publisher.roles[role]["targets"]
        if tags:
            self.publish(self.publisher.revoke(sorted(tags)[choice % len(tags)], role))
            self.published.add(role)

    @rule(name=NAMES, choice=CHOICE, both=st.booleans(), kind=st.sampled_from(["ecdsa", "ed25519", "rsa"]))
    def delegate(self, name: str, choice: int, kind: str, *, both: bool) -> None:
        """A delegation, new or with other keys; its own file, if there was one, is signed by those at once."""
        parent = self.role(choice)
        if parent.count("/") > 1:
            return
        role = f"{parent}/{name}"
        parts = self.publisher.delegate(role, [Key.make(kind), Key.certified("bob")], threshold=1 + both)
        if role in self.published:
            parts |= self.publisher.write(role)
        self.publish(parts)
        self.published.add(parent)

    @rule(choice=CHOICE)
    def withdraw(self, choice: int) -> None:
        role = self.role(choice)
        if role != "targets":
            self.publish(self.publisher.withdraw(role))
            self.published.add(role.rpartition("/")[0])

    @rule(times=st.integers(1, 2))
    def rotate_root(self, times: int) -> None:
        for _ in range(times):
            self.publish(self.publisher.rotate_root())

    @rule()
    def rotate_targets(self) -> None:
        self.publish(self.publisher.rotate_targets())

    @rule()
    def rotate_timestamp(self) -> None:
        key = Key.make("ed25519")
        self.collection.held.append(key)
        self.publish(self.publisher.rotate_server_key("timestamp", key.json))

    @rule()
    def move_snapshot(self) -> None:
        """From the server to the client, and back."""
        if isinstance(self.publisher.snapshot, Key):
            key = Key.make()
            self.collection.held.append(key)
            self.publish(self.publisher.rotate_server_key("snapshot", key.json))
        else:
            self.publisher.snapshot_version = version(self.collection.files["snapshot"])
            self.publisher.files = {**self.collection.files, **self.publisher.files}
            self.publish(self.publisher.rotate_server_key("snapshot", Key.make()))

    @rule()
    def publish_nothing(self) -> None:
        self.publish(self.publisher.write())

    @rule(days=st.integers(1, 20))
    @precondition(lambda self: self.elapsed < 200 * DAY)
    def wait(self, days: int) -> None:
        self.elapsed += days * DAY
        due = json.loads(self.collection.files["timestamp"])["signed"]["expires"]
        made = self.collection.renew(now() + self.elapsed, dt.timedelta(0))
        expired = dt.datetime.fromisoformat(due) < now() + self.elapsed
        assert made == (["timestamp"] if expired else [])

    @rule(choice=CHOICE, damage=CHOICE, everything=st.booleans())
    def damage(self, choice: int, damage: int, *, everything: bool) -> None:
        parts = self.publisher.write(*(self.roles() if everything else [self.role(choice)]))
        if choice % 3 == 0:
            parts |= self.publisher.write("root")
            parts |= {role: self.publisher.files[role] for role in parts}
        role = sorted(parts)[choice % len(parts)]
        damaged = DAMAGES[damage % len(DAMAGES)](self, role, parts)
        if damaged is not None:
            before = dict(self.collection.files)
            with pytest.raises((RuleBroken, Malformed, VersionTaken)):
                self.collection.publish({**parts, **damaged}, now() + self.elapsed)
            assert self.collection.files == before
        self.publish(parts)
        self.published |= parts.keys() - {"root", "snapshot"}

    # what has to hold

    @invariant()
    def a_client_finds_what_was_published(self) -> None:
        found = walk(GUN, self.collection.files, trusted=self.trusted, when=now() + self.elapsed)
        assert found == self.expected()

    def expected(self) -> dict[str, dict[str, str]]:
        roles = [role for role in self.roles() if self.is_reached(role)]
        return {
            role: {
                name: f"sha256:{found['hashes']['sha256']}"
                for name, found in hexadecimal(self.publisher.roles[role]["targets"]).items()
            }
            for role in roles
        }

    def is_reached(self, role: str) -> bool:
        parent = role.rpartition("/")[0]
        return role in self.published and (not parent or self.is_reached(parent))

    def publish(self, parts: dict[str, bytes]) -> None:
        self.trusted = self.collection.files["root"]
        made = self.collection.publish(parts, now() + self.elapsed)
        assert {role: made[role] for role in parts} == parts

    def roles(self) -> list[str]:
        """Those to which is delegated, parents first."""
        found = ["targets"]
        for role in found:
            found += [entry["name"] for entry in self.publisher.roles[role]["delegations"]["roles"]]
        return found

    def role(self, choice: int) -> str:
        """One of them whose parent was published."""
        roles = [role for role in self.roles() if role == "targets" or self.is_reached(role.rpartition("/")[0])]
        return roles[choice % len(roles)]


def hexadecimal(targets: Json) -> Json:
    return {
        name: {"hashes": {"sha256": base64.b64decode(meta["hashes"]["sha256"]).hex()}}
        for name, meta in targets.items()
    }


# --- damages: each makes an update that must not pass; None: not of this one --------------------------------

Parts = dict[str, bytes]


def signed_again(history: History, role: str, content: bytes, **changes: object) -> bytes:
    signed = json.loads(content)["signed"] | changes
    return seal(signed, signers(history.publisher, role))


def signers(publisher: Publisher, role: str) -> list[Key]:
    if role == "snapshot":
        assert isinstance(publisher.snapshot, Key)
        return [publisher.snapshot]
    return publisher.signers_of(role)


def by_a_stranger(_: History, role: str, parts: Parts) -> Parts:
    return {role: seal(json.loads(parts[role])["signed"], [Key.certified(GUN), Key.make()])}


def by_nobody(_: History, role: str, parts: Parts) -> Parts:
    return {role: seal(json.loads(parts[role])["signed"], [])}


def changed_after_signing(_: History, role: str, parts: Parts) -> Parts:
    return {role: parts[role].replace(b'"version":', b'"version":1', 1)}


def cut(history: History, role: str, parts: Parts) -> Parts:
    return {role: parts[role][: len(parts[role]) // 2]}


def expired(history: History, role: str, parts: Parts) -> Parts:
    return {role: signed_again(history, role, parts[role], expires=moment(now() + history.elapsed - DAY))}


def old_version(history: History, role: str, parts: Parts) -> Parts | None:
    """The one that is stored: good in itself, but storage refuses it; a snapshot is not of this update."""
    stored = history.collection.files.get(role)
    return None if stored is None else {role: stored}


def version_zero(history: History, role: str, parts: Parts) -> Parts:
    return {role: signed_again(history, role, parts[role], version=0)}


def far_version_of_root(history: History, _: str, parts: Parts) -> Parts | None:
    if "root" not in parts:
        return None
    number = version(parts["root"]) + 1
    return {"root": signed_again(history, "root", parts["root"], version=number)}


def another_type(history: History, role: str, parts: Parts) -> Parts:
    return {role: signed_again(history, role, parts[role], _type="Timestamp")}


def swapped(history: History, role: str, parts: Parts) -> Parts:
    """The file of another role."""
    other = "root" if role != "root" else "targets"
    return {role: history.publisher.files[other]}


def stale_snapshot(history: History, _: str, parts: Parts) -> Parts | None:
    """A good signature, of files that are not those of the update."""
    covered = sorted(parts.keys() - {"snapshot"})
    if "snapshot" not in parts or not covered:
        return None
    signed = json.loads(parts["snapshot"])["signed"]
    signed["meta"][covered[0]] = meta_of(parts[covered[0]] + b" ")
    return {"snapshot": seal(signed, signers(history.publisher, "snapshot"))}


def with_a_name_twice(_: History, role: str, parts: Parts) -> Parts:
    """The signature is good, for the last of the two counts; but readers in Go would join objects."""
    return {role: parts[role].replace(b'{"signed":{', b'{"signed":{"version":99,', 1)}


DAMAGES: list[Callable[[History, str, Parts], Parts | None]] = [
    by_a_stranger,
    by_nobody,
    changed_after_signing,
    cut,
    expired,
    old_version,
    version_zero,
    far_version_of_root,
    another_type,
    swapped,
    stale_snapshot,
    with_a_name_twice,
]

TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
