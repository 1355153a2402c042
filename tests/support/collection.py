"""A collection as the server of notary v1 keeps it, in memory: the rules of `dtr.tuf`, keys, and nothing else."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tests.support.notary import Key, Publisher, now

from dtr.tuf import SNAPSHOT, TIMESTAMP, CheckedUpdate, Envelope, Signature, check_update, what_to_renew

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from dtr.tuf import Draft


class VersionTaken(Exception):
    """What is stored is as new, or newer."""


class Collection:
    """`files` are the current ones by role; `held` are the server's keys, of which some may be taken away."""

    def __init__(self, gun: str) -> None:
        self.gun = gun
        self.files: dict[str, bytes] = {}
        self.timestamp_key = Key.make()
        self.snapshot_key = Key.make("ed25519")
        self.held = [self.timestamp_key, self.snapshot_key]

    def publisher(self, *, holds_snapshot: bool = False) -> Publisher:
        """Someone who publishes it, and may hold the key of snapshots."""
        snapshot = Key.make() if holds_snapshot else self.snapshot_key.json
        return Publisher(self.gun, self.timestamp_key.json, snapshot)

    def check(self, parts: Mapping[str, bytes], when: dt.datetime | None = None) -> CheckedUpdate:
        """What the rules say of an update: raises RuleBroken, StoredBroken."""
        files = {role: Envelope.parse(content) for role, content in parts.items()}
        return check_update(self.gun, files, self.files, when or now())

    def publish(self, parts: Mapping[str, bytes], when: dt.datetime | None = None) -> dict[str, bytes]:
        """Check an update, make what is to be made, keep all; what was kept. Raises VersionTaken, too."""
        when = when or now()
        checked = self.check(parts, when)
        made = {role: file.content for role, file in checked.files.items()}
        snapshot = checked.snapshot
        if snapshot is None:
            snapshot = self.seal(checked.draft_snapshot(when))
        made[SNAPSHOT] = snapshot
        made[TIMESTAMP] = self.seal(checked.draft_timestamp(snapshot, when))
        for role, content in made.items():
            if role in self.files and version(content) <= version(self.files[role]):
                raise VersionTaken(role)
        self.files |= made
        return made

    def renew(self, when: dt.datetime, early: dt.timedelta) -> list[str]:
        """Make anew what is due; which roles."""
        renewal = what_to_renew(self.gun, self.files, when, early)
        if renewal is None:
            return []
        made = {}
        if renewal.snapshot_is_due:
            made[SNAPSHOT] = self.seal(renewal.draft_snapshot(when))
        made[TIMESTAMP] = self.seal(renewal.draft_timestamp(when, made.get(SNAPSHOT)))
        self.files |= made
        return sorted(made)

    def seal(self, draft: Draft) -> bytes:
        """The file, signed with what is held of its keys."""
        signatures = [key.sign(draft.signed) for key in self.held if key.id in draft.authority.keys]
        return draft.seal(
            Signature(one["keyid"], one["method"], base64.b64decode(one["sig"])) for one in signatures
        )


def version(content: bytes) -> int:
    """Of a file."""
    return Envelope.parse(content).version
