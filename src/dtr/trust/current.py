"""What the current files of a collection come to: the rows of the index. No I/O."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct, field

from dtr.oci import OciError, Tag, parse_reference
from dtr.tuf import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    CertificateInvalid,
    TufError,
    ancestors_of,
    is_targets,
    read_root,
    read_targets,
)
from dtr.tuf.keys import ED25519

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dtr.tuf import Authority, Envelope, FileMeta, PublicKey, Targets

_ED25519_DER = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410)."""
_MILLISECOND = 10**6
"""Nanoseconds."""


class Key(Struct, frozen=True):
    """A key that may sign for a role; `public_key_id` is the SHA-256 of its DER form, as accounts know it."""

    role: str
    key_id: str
    public_key_id: str
    has_signed: bool
    """Its signature is on the role's current file."""


class Current(Struct, frozen=True):
    """What the files of some roles come to."""

    roles: set[str]
    """Those that were looked at."""
    targets: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """By role and tag: the digest and length of a manifest."""
    keys: list[Key] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    """
    By role that counts: when clients stop to accept it, for itself or one above it; milliseconds since 1970 UTC.
    """


def affected(changed: Iterable[str], roles: Iterable[str]) -> set[str]:
    """Those of the roles whose standing, or keys, may be others when the files of `changed` are others."""
    given = set(changed)
    if ROOT in given:
        return set(roles) - {ROOT}
    return {role for role in roles if is_targets(role) and not given.isdisjoint({role, *ancestors_of(role)})}


def read_current(files: Mapping[str, Envelope], roles: set[str]) -> Current:
    """
    What the files come to as far as `roles` are concerned; those above them have to be there, too.

    From ``targets`` down: a delegation counts if its parent does and lists it, and enough of the keys that are
    listed there have signed its file (notary-v1, 3.5, 3.7). Ends are noted, not enforced. Targets with names that
    no tag can have are nothing to a registry.
    """
    current = Current(roles)
    root = read_root(files[ROOT])
    for role in {SNAPSHOT, TIMESTAMP} & roles:
        authority = root.authorities[role]
        current.keys.extend(_keys(role, authority, files[role].signers(authority)))
    needed = roles.union(*map(ancestors_of, roles))
    waiting = [_Step(TARGETS, root.authorities[TARGETS], ("",), root.expires_at)]
    while waiting:
        step = waiting.pop()
        if step.role not in needed or step.role not in files:
            continue
        says, signers = _read(files[step.role], step)
        if step.role in roles:
            current.keys.extend(_keys(step.role, step.authority, signers))
        if says is None:
            continue
        end = min(step.end, says.expires_at)
        if step.role in roles:
            current.ends[step.role] = end // _MILLISECOND
            for name, meta in says.targets.items():
                if name.startswith(step.paths) and _is_tag(name):
                    current.targets[step.role, name] = (_digest(meta), meta.length)
        for below in says.delegations.values():
            # A role signs what begins with one of its paths, of which only those within its parent's count.
            paths = tuple(path for path in below.paths if path.startswith(step.paths))
            waiting.append(_Step(below.name, below.authority, paths, end))
    return current


class _Step(Struct, frozen=True):
    """A role on the way, and what those above it say of it."""

    role: str
    authority: Authority
    paths: tuple[str, ...]
    end: int
    """The first end of those above, in nanoseconds since 1970 UTC."""


def _read(file: Envelope, step: _Step) -> tuple[Targets | None, frozenset[str]]:
    """What a role's file says, None if it does not count; and which of the role's keys have signed it."""
    signers: frozenset[str] = frozenset()
    try:
        signers = file.signers(step.authority)
        says = read_targets(file, step.role)
    except TufError:
        return None, signers
    return (says if len(signers) >= step.authority.threshold else None), signers


def _keys(role: str, authority: Authority, signers: frozenset[str]) -> list[Key]:
    """A key that is not what it is declared to be signs nothing."""
    return [
        Key(role, key.id, _public_key_id(key), key_id in signers)
        for key_id, key in sorted(authority.keys.items())
        if key.id == key_id
    ]


def _public_key_id(key: PublicKey) -> str:
    """The SHA-256 of the key's DER form (SubjectPublicKeyInfo); empty when it is broken, and verifies nothing."""
    try:
        bare = key.bare
    except CertificateInvalid:
        return ""
    der = _ED25519_DER + bare.public if bare.type == ED25519 else bare.public
    return hashlib.sha256(der).hexdigest()


def _is_tag(name: str) -> bool:
    try:
        return isinstance(parse_reference(name), Tag)
    except OciError:
        return False


def _digest(meta: FileMeta) -> str:
    if meta.sha256 is not None:
        return f"sha256:{meta.sha256.hex()}"
    assert meta.sha512 is not None
    return f"sha512:{meta.sha512.hex()}"
