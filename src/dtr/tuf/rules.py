"""
The rules of notary v1: what an update must be, what the server adds to it, and when it signs anew.

Nothing here reads or stores anything. A collection is a mapping of its current files by role: root, snapshot,
timestamp, targets and all delegations of them that the snapshot names. An update is checked against it
(`check_update`), then the server's own files are drafted, signed by whoever has the keys, and sealed; what is
stored together is `CheckedUpdate.files` and those. Each rule stands beside the code that enforces it.

"To load" a file is to verify it: the signatures, by the keys that its parent in force lists; the structure; a
version of 1 or more; and, unless it comes from storage, that it is not expired.

Nobody checks here whether names of targets are within the paths of a delegation, whether versions but those of the
root have gaps, or whether all delegations exist: clients do. That versions rise, who stores the files sees to, in
the transaction that does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from dtr.tuf import canonical
from dtr.tuf.certificates import check_root_certificate, check_validity, root_certificate
from dtr.tuf.errors import (
    CertificateInvalid,
    Malformed,
    MetadataInvalid,
    NotCanonical,
    RuleBroken,
    SignaturesMissing,
    StoredBroken,
)
from dtr.tuf.metadata import (
    Authority,
    Envelope,
    FileMeta,
    Root,
    Signature,
    Targets,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)
from dtr.tuf.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, ancestors_of, by_depth, is_targets, parent_of
from dtr.tuf.times import Nanoseconds, nanoseconds, write_moment

Files: TypeAlias = Mapping[str, bytes]
"""Current files by role."""

SNAPSHOT_LIFETIME = dt.timedelta(days=3 * 365)
TIMESTAMP_LIFETIME = dt.timedelta(days=14)

_BROKEN = (NotCanonical, Malformed, MetadataInvalid, SignaturesMissing, CertificateInvalid)


class Draft(Struct, frozen=True):
    """A file that the server makes, to be signed with all of `authority.keys` that the signer has."""

    role: str
    version: int
    signed: bytes
    """The canonical form, which is signed, and goes into the file as it is."""
    authority: Authority
    too_few: RuleBroken
    """What it means if the signer has too few of the keys."""

    def seal(self, signatures: Iterable[Signature]) -> bytes:
        """
        The file, with these signatures.

        Raises RuleBroken: `too_few`, or ErrValidation for a signature that does not verify.
        """
        given = list(signatures)
        if len({one.key_id for one in given} & self.authority.keys.keys()) < max(self.authority.threshold, 1):
            raise self.too_few
        inner = b",".join(canonical.encode(one.to_json()) for one in given)
        content = b'{"signed":' + self.signed + b',"signatures":[' + inner + b"]}"
        try:
            Envelope.parse(content).check_signatures(self.authority)
        except _BROKEN as error:
            raise RuleBroken("ErrValidation", f"the {self.role} made by the server: {error}") from None
        return content


class CheckedUpdate(Struct, frozen=True):
    """
    An update that keeps the rules.

    Beside its own files, a timestamp has to be made, and a snapshot if it has none.
    """

    files: Mapping[str, Envelope]
    """What came and is to be stored, as it is: without a timestamp."""
    root: Root
    """The root in force: of this update, or the stored one."""
    root_file: Envelope
    """Its file."""
    previous_meta: Mapping[str, Any]
    """What the stored snapshot says; empty if there is none, or none has to be made."""
    previous_snapshot: int
    """The version of the stored snapshot; 0 if there is none, or none has to be made."""
    previous_timestamp: int
    """The version of the stored timestamp; 0 if there is none."""

    @property
    def snapshot(self) -> bytes | None:
        """The snapshot that came; None: the server has to make one."""
        found = self.files.get(SNAPSHOT)
        return None if found is None else found.content

    def draft_snapshot(self, now: dt.datetime) -> Draft:
        """
        The snapshot that the server makes.

        What the previous one says, but for the root in force and the targets and delegations of this update.
        Entries of delegations that are no more stay. Raises RuleBroken.
        """
        metas = {role: file.meta for role, file in self.files.items() if is_targets(role)}
        metas[ROOT] = self.root_file.meta
        return _draft_snapshot(self.previous_meta, metas, self.previous_snapshot + 1, self.root, now)

    def draft_timestamp(self, snapshot: bytes, now: dt.datetime) -> Draft:
        """The timestamp of a snapshot: always made. Raises RuleBroken."""
        return _draft_timestamp(snapshot, self.previous_timestamp + 1, self.root, now)


class Renewal(Struct, frozen=True):
    """What of a collection the server has to make anew without an update."""

    root: Root
    root_file: Envelope
    snapshot_content: bytes
    snapshot_meta: Mapping[str, Any]
    snapshot_version: int
    timestamp_version: int
    snapshot_is_due: bool
    """The snapshot expires within the time asked for, or has."""
    snapshot_is_expired: bool
    """
    The snapshot has expired: if the signer lacks its keys, nothing can be served.

    Before that, one that clients made is left to them (`snapshot_is_due` without the keys is no error).
    """
    timestamp_is_due: bool
    """The timestamp expires within the time asked for, or has."""

    def draft_snapshot(self, now: dt.datetime) -> Draft:
        """The next snapshot: as it was, with the root in force. Raises RuleBroken."""
        metas = {ROOT: self.root_file.meta}
        return _draft_snapshot(self.snapshot_meta, metas, self.snapshot_version + 1, self.root, now)

    def draft_timestamp(self, now: dt.datetime, snapshot: bytes | None = None) -> Draft:
        """The next timestamp, of the snapshot that was made anew (None: of the stored one). Raises RuleBroken."""
        content = self.snapshot_content if snapshot is None else snapshot
        return _draft_timestamp(content, self.timestamp_version + 1, self.root, now)


def check_update(gun: str, parts: Mapping[str, Envelope], stored: Files, now: dt.datetime) -> CheckedUpdate:
    """
    Check an update of a collection: files by role, of which a timestamp is dropped.

    `stored` needs to hold whatever is current: root, snapshot, timestamp, targets and delegations. Raises
    RuleBroken, of which only the first one found is told, and StoredBroken.
    """
    moment = nanoseconds(now)
    parts = {role: part for role, part in parts.items() if role != TIMESTAMP}
    root_file, root = _root_in_force(gun, parts.get(ROOT), stored.get(ROOT), moment)
    loaded = _load_all_targets(root, parts, stored, moment)
    covered = {ROOT: root_file, **{role: file for role, (file, _) in loaded.items()}}
    previous: tuple[Mapping[str, Any], int] = ({}, 0)
    if SNAPSHOT in parts:
        _check_snapshot(parts[SNAPSHOT], root, covered, moment)
    else:
        previous = _previous_snapshot(stored.get(SNAPSHOT), parts)
    return CheckedUpdate(
        files=parts,
        root=root,
        root_file=root_file,
        previous_meta=previous[0],
        previous_snapshot=previous[1],
        previous_timestamp=_previous_timestamp(stored.get(TIMESTAMP)),
    )


def stored_root(gun: str, content: bytes) -> Root:
    """The root that is stored; whether it is expired is no matter. Raises StoredBroken."""
    return _load_stored_root(gun, content)[1]


def what_to_renew(gun: str, stored: Files, now: dt.datetime, early: dt.timedelta) -> Renewal | None:
    """
    What has to be signed anew when a timestamp, or a snapshot by its role, is fetched; None: nothing.

    `stored` needs to hold root, snapshot and timestamp. A snapshot that is expired is made anew, with the same
    `meta` but for the root; then, or if it is expired itself, the timestamp. `early`: so long before it expires a
    file counts as expired already, for clients whose clocks are fast.

    This needs a root that is valid and not expired, with a certificate that is so, too. Raises StoredBroken.
    """
    moment = nanoseconds(now)
    soon = moment + early // dt.timedelta(microseconds=1) * 1000
    try:
        timestamp_file = Envelope.parse(stored[TIMESTAMP])
        snapshot_file = Envelope.parse(stored[SNAPSHOT])
        timestamp, snapshot = read_timestamp(timestamp_file), read_snapshot(snapshot_file)
        if not timestamp.snapshot.matches(stored[SNAPSHOT]):
            raise MetadataInvalid("the timestamp is of another snapshot")
        snapshot_is_due, timestamp_is_due = snapshot.expires_at < soon, timestamp.expires_at < soon
        if not (snapshot_is_due or timestamp_is_due):
            return None
        root_file = Envelope.parse(stored[ROOT])
        root = _load_root(gun, root_file, None, moment)
    except KeyError as error:
        raise StoredBroken(f"there is no {error.args[0]}") from None
    except _BROKEN as error:
        raise StoredBroken(str(error)) from None
    return Renewal(
        root=root,
        root_file=root_file,
        snapshot_content=stored[SNAPSHOT],
        snapshot_meta=snapshot_file.signed["meta"],
        snapshot_version=snapshot.version,
        timestamp_version=timestamp.version,
        snapshot_is_due=snapshot_is_due,
        snapshot_is_expired=snapshot.expires_at < moment,
        timestamp_is_due=timestamp_is_due,
    )


# --- root ---------------------------------------------------------------------------------------------------


def _root_in_force(
    gun: str, part: Envelope | None, content: bytes | None, now: Nanoseconds
) -> tuple[Envelope, Root]:
    """
    Rules 1 to 3: the root of the update, or else the stored one.

    The stored root is loaded first; whether it is expired is no matter. A new root has its version, or the next
    one; if there is none, 1 or 2. One with the same version passes here, and is refused by storage if it is
    another.
    """
    stored = None if content is None else _load_stored_root(gun, content)
    if part is None:
        if stored is None:
            raise RuleBroken("ErrValidation", "there is no root, neither stored nor in the update")
        return stored
    current = 1 if stored is None else stored[1].version
    if not current <= part.version <= current + 1:
        raise RuleBroken("ErrBadRoot", f"version {part.version} of the root does not follow {current}")
    try:
        return part, _load_root(gun, part, None if stored is None else stored[1], now)
    except _BROKEN as error:
        raise RuleBroken("ErrBadRoot", f"root: {error}") from None


def _load_stored_root(gun: str, content: bytes) -> tuple[Envelope, Root]:
    try:
        file = Envelope.parse(content)
        return file, _load_root(gun, file, None, None)
    except _BROKEN as error:
        raise StoredBroken(f"the stored root: {error}") from None


def _load_root(gun: str, file: Envelope, previous: Root | None, now: Nanoseconds | None) -> Root:
    """
    A root that vouches for itself and is vouched for by the one before it; `now` None: expired or not.

    1. Structure (see `read_root`).
    2. Of the keys of the root role, those count that are certificates of this collection: strong, and valid now.
       There has to be one.
    3. If there is a previous root: enough of its certificates signed this one, by its threshold. They may be
       expired.
    4. Enough of its own certificates signed it, by its own threshold.
    5. It is not expired.

    So a root with new keys is signed twice. Raises the errors of `_BROKEN`.
    """
    root = read_root(file)
    own = _certified(gun, root.authorities[ROOT], now)
    if previous is not None:
        try:
            file.check_signatures(_certified(gun, previous.authorities[ROOT], None))
        except SignaturesMissing as error:
            raise SignaturesMissing(f"by the previous root: {error}") from None
    file.check_signatures(own)
    _check_expiry(root.expires_at, now)
    return root


def _certified(gun: str, authority: Authority, now: Nanoseconds | None) -> Authority:
    """Those keys of a root that are certificates for the collection. Raises CertificateInvalid: there are none."""
    kept = {}
    reason = "none of the root's keys is a certificate"
    for key_id, key in authority.keys.items():
        try:
            certificate = root_certificate(key.public)
            check_root_certificate(certificate, gun)
            if now is not None:
                check_validity(certificate, now)
        except CertificateInvalid as error:
            reason = str(error)
            continue
        kept[key_id] = key
    if not kept:
        raise CertificateInvalid(f"no valid certificate of a root key: {reason}")
    return Authority(kept, authority.threshold)


# --- targets ------------------------------------------------------------------------------------------------


def _load_all_targets(
    root: Root, parts: Mapping[str, Envelope], stored: Files, now: Nanoseconds
) -> dict[str, tuple[Envelope, Targets]]:
    """
    Rule 4: targets and delegations of the update, fewest parts of the name first, and their ancestors.

    So a parent of the same update is there before its child and wins over the stored one. Ancestors that are not
    in the update come from storage, from the top down, expired or not; what is not there either, a child will
    miss.
    """
    loaded: dict[str, tuple[Envelope, Targets]] = {}
    for role in sorted(filter(is_targets, parts), key=by_depth):
        for ancestor in ancestors_of(role):
            if ancestor not in loaded and ancestor in stored:
                loaded[ancestor] = _load_targets(root, ancestor, _stored(ancestor, stored), loaded, None)
        loaded[role] = _load_targets(root, role, parts[role], loaded, now)
    return loaded


def _load_targets(
    root: Root,
    role: str,
    file: Envelope,
    loaded: Mapping[str, tuple[Envelope, Targets]],
    now: Nanoseconds | None,
) -> tuple[Envelope, Targets]:
    """
    A file of targets or of a delegation, by the keys that root or its parent lists; `now` None: expired or not.

    An entry of the direct parent that is loaded has to be there. Any failure is ErrBadTargets.
    """
    try:
        file.check_signatures(_authority_of(root, role, loaded))
        targets = read_targets(file, role)
        _check_expiry(targets.expires_at, now)
    except _BROKEN as error:
        raise RuleBroken("ErrBadTargets", f"{role}: {error}") from None
    return file, targets


def _authority_of(root: Root, role: str, loaded: Mapping[str, tuple[Envelope, Targets]]) -> Authority:
    if role == TARGETS:
        return root.authorities[TARGETS]
    parent = loaded.get(parent_of(role))
    entry = None if parent is None else parent[1].delegations.get(role)
    if entry is None:
        raise MetadataInvalid("the role above does not delegate to it")
    return entry.authority


# --- snapshot and timestamp ---------------------------------------------------------------------------------


def _check_snapshot(file: Envelope, root: Root, covered: Mapping[str, Envelope], now: Nanoseconds) -> None:
    """
    Rule 5: a snapshot that came, signed by the root's keys for it, with root and targets in it.

    All that rules 1 to 4 have loaded, of the update or from storage, has to be what it says: root, targets and
    delegations. Any failure is ErrBadSnapshot.
    """
    try:
        file.check_signatures(root.authorities[SNAPSHOT])
        snapshot = read_snapshot(file)
        _check_expiry(snapshot.expires_at, now)
        for role, other in covered.items():
            meta = snapshot.meta.get(role)
            if meta is None:
                raise MetadataInvalid(f"there is no {role} in it")
            if not meta.matches(other.content):
                raise MetadataInvalid(f"its length or hashes of {role} are those of another file")
    except _BROKEN as error:
        raise RuleBroken("ErrBadSnapshot", f"snapshot: {error}") from None


def _previous_snapshot(content: bytes | None, parts: Mapping[str, Envelope]) -> tuple[Mapping[str, Any], int]:
    """
    Rule 6: what a snapshot that is made begins with: `meta` and version of the previous one, if there is one.

    Its signatures need not verify: the key may have been rotated just now. If it is broken, or there is none and
    the update has no targets either, this is ErrValidation.
    """
    if content is None:
        if TARGETS not in parts:
            raise RuleBroken("ErrValidation", "there are no targets, neither stored nor in the update")
        return {}, 0
    try:
        file = Envelope.parse(content)
        snapshot = read_snapshot(file)
    except _BROKEN as error:
        raise RuleBroken("ErrValidation", f"the stored snapshot: {error}") from None
    return file.signed["meta"], snapshot.version


def _previous_timestamp(content: bytes | None) -> int:
    """Rule 7: the version that the next timestamp follows, even if its key is not the root's any more."""
    if content is None:
        return 0
    try:
        return read_timestamp(Envelope.parse(content)).version
    except _BROKEN as error:
        raise RuleBroken("ErrValidation", f"the stored timestamp: {error}") from None


def _draft_snapshot(
    previous: Mapping[str, Any], metas: Mapping[str, FileMeta], version: int, root: Root, now: dt.datetime
) -> Draft:
    """Hashes are of the bytes that are or will be stored. Too few keys: the clients should have sent one."""
    meta = {**previous, **{role: found.to_json() for role, found in metas.items()}}
    too_few = RuleBroken(
        "ErrBadHierarchy",
        "the update has no snapshot, and the server does not hold the collection's keys for it",
        missing=SNAPSHOT,
    )
    return _draft(SNAPSHOT, "Snapshot", meta, version, now + SNAPSHOT_LIFETIME, root, too_few)


def _draft_timestamp(snapshot: bytes, version: int, root: Root, now: dt.datetime) -> Draft:
    """Too few keys: the root lists others than the server gave for it."""
    meta = {SNAPSHOT: FileMeta.of(snapshot).to_json()}
    too_few = RuleBroken("ErrBadRoot", "the server does not hold the root's keys for timestamps")
    return _draft(TIMESTAMP, "Timestamp", meta, version, now + TIMESTAMP_LIFETIME, root, too_few)


def _draft(
    role: str,
    kind: str,
    meta: Mapping[str, Any],
    version: int,
    expires: dt.datetime,
    root: Root,
    too_few: RuleBroken,
) -> Draft:
    signed = {"_type": kind, "expires": write_moment(expires), "meta": dict(meta), "version": version}
    try:
        return Draft(role, version, canonical.encode(signed), root.authorities[role], too_few)
    except NotCanonical as error:
        raise RuleBroken("ErrValidation", f"the {role} cannot be made: {error}") from None


# --- common -------------------------------------------------------------------------------------------------


def _stored(role: str, stored: Files) -> Envelope:
    try:
        return Envelope.parse(stored[role])
    except Malformed as error:
        raise StoredBroken(f"the stored {role}: {error}") from None


def _check_expiry(expires_at: Nanoseconds, now: Nanoseconds | None) -> None:
    """Expired is what lies strictly in the past."""
    if now is not None and expires_at < now:
        raise MetadataInvalid("it is expired")
