"""
The files of a collection, and what each of them says.

An `Envelope` is a file as it came: its bytes, which alone are stored and served, and what was read from them. The
four kinds of `signed` are read from it when the rules ask for them; members that nobody knows stay in the bytes.
Writers in Go leave out what is empty, or write null: so do we take it.

File metas hold hashes in base64; in URLs, and here as `hex`, they are hexadecimal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias

from msgspec import Struct

from dtr.tuf import canonical
from dtr.tuf.errors import Malformed, MetadataInvalid, SignaturesMissing
from dtr.tuf.keys import PublicKey
from dtr.tuf.roles import BASE_ROLES, ROOT, SNAPSHOT, TARGETS, is_delegation, parent_of
from dtr.tuf.times import Nanoseconds, read_moment

Keys: TypeAlias = Mapping[str, PublicKey]
"""Keys by the ids that a file declares for them."""

_MOST_SIGNATURES = 256
_BEYOND_INTEGERS = 2**63
_ENVELOPE_NAMES = frozenset({"signed", "signatures"})
_SIGNATURE_NAMES = frozenset({"keyid", "method", "sig"})


class Signature(Struct, frozen=True):
    """A signature by the key `key_id`; `content` in the encoding of `method`: r || s, 64 bytes, or RSA's."""

    key_id: str
    method: str
    content: bytes

    def to_json(self) -> dict[str, str]:
        """As an envelope holds it."""
        return {"keyid": self.key_id, "method": self.method, "sig": base64.b64encode(self.content).decode()}


class FileMeta(Struct, frozen=True):
    """What one file says of another, or of a target: `length` in bytes, and one hash or two."""

    length: int
    sha256: bytes | None
    sha512: bytes | None = None

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Of these bytes."""
        return cls(len(content), hashlib.sha256(content).digest(), hashlib.sha512(content).digest())

    @classmethod
    def from_json(cls, value: Any, what: str) -> Self:
        """
        Read one. Unknown algorithms are ignored; a known one has to be there. Raises MetadataInvalid.

        `what` names it in messages.
        """
        if not isinstance(value, dict):
            raise MetadataInvalid(f"{what} has no length and hashes")
        length = value.get("length", 0)
        if type(length) is not int or not 0 <= length <= canonical.LARGEST_INTEGER:
            raise MetadataInvalid(f"the length of {what} is not a number of bytes")
        hashes = value.get("hashes")
        if not isinstance(hashes, dict):
            raise MetadataInvalid(f"{what} has no hashes")
        sha256, sha512 = _hash(hashes, "sha256", 32, what), _hash(hashes, "sha512", 64, what)
        if sha256 is None and sha512 is None:
            raise MetadataInvalid(f"{what} has no hash that is known: neither sha256 nor sha512")
        return cls(length, sha256, sha512)

    def to_json(self) -> dict[str, Any]:
        """As files hold it."""
        found = {"sha256": self.sha256, "sha512": self.sha512}
        hashes = {name: base64.b64encode(value).decode() for name, value in found.items() if value is not None}
        return {"hashes": hashes, "length": self.length}

    @property
    def hex(self) -> str:
        """The SHA-256 in 64 hexadecimal digits; empty when there is none."""
        return "" if self.sha256 is None else self.sha256.hex()

    def matches(self, content: bytes) -> bool:
        """Whether these bytes have this length and these hashes."""
        return (
            len(content) == self.length
            and self.sha256 in {None, hashlib.sha256(content).digest()}
            and self.sha512 in {None, hashlib.sha512(content).digest()}
        )


class Authority(Struct, frozen=True):
    """Who signs for a role: so many (`threshold`) of these keys."""

    keys: Keys
    threshold: int


class Delegation(Struct, frozen=True):
    """An entry of a targets file for a role below it. `paths` are prefixes of names of targets."""

    name: str
    authority: Authority
    paths: tuple[str, ...]


class Root(Struct, frozen=True):
    """The keys of a collection: who signs for each of the four roles."""

    version: int
    expires_at: Nanoseconds
    authorities: Mapping[str, Authority]


class Targets(Struct, frozen=True):
    """What is signed, by name, and to whom that is delegated, by the name of the role."""

    version: int
    expires_at: Nanoseconds
    targets: Mapping[str, FileMeta]
    delegations: Mapping[str, Delegation]


class Snapshot(Struct, frozen=True):
    """The current files of root and of all that holds targets, by role."""

    version: int
    expires_at: Nanoseconds
    meta: Mapping[str, FileMeta]


class Timestamp(Struct, frozen=True):
    """The current snapshot."""

    version: int
    expires_at: Nanoseconds
    snapshot: FileMeta


@dataclass(frozen=True)
class Envelope:
    """A metadata file: its bytes, the object that is signed, and the signatures."""

    content: bytes
    signed: Mapping[str, Any]
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """
        Read a file. What it lacks is no matter here; what it has, has to be of its type. Raises Malformed.

        Names that are given twice are refused anywhere, although the canonical form could be made of the last of
        them: clients in Go join such objects, so they would see more than what was signed.
        """
        document = canonical.decode(content, unique=True)
        if not isinstance(document, dict):
            raise Malformed("the file is not a JSON object")
        _check_case(document, _ENVELOPE_NAMES)
        signed = document.get("signed")
        if signed is None:
            signed = {}
        if not isinstance(signed, dict):
            raise Malformed("what is signed is not an object")
        if not isinstance(signed.get("_type"), str | None):
            raise Malformed("_type is not a text")
        version = signed.get("version")
        if version is not None and (type(version) is not int or abs(version) >= _BEYOND_INTEGERS):
            raise Malformed("version is not an integer of 64 bits")
        try:
            if signed.get("expires") is not None:
                _expiry(signed)
        except MetadataInvalid as error:
            raise Malformed(str(error)) from None
        return cls(content, signed, _signatures(document.get("signatures")))

    @cached_property
    def message(self) -> bytes:
        """What the signatures are of: the canonical form of `signed`. Raises NotCanonical."""
        return canonical.encode(self.signed)

    @cached_property
    def meta(self) -> FileMeta:
        """What a snapshot or timestamp says of this file."""
        return FileMeta.of(self.content)

    @property
    def version(self) -> int:
        """The version, 0 when there is none."""
        found: int | None = self.signed.get("version")
        return found or 0

    def signers(self, authority: Authority) -> frozenset[str]:
        """
        The keys of a role whose signatures verify. Raises NotCanonical, SignaturesMissing.

        Signatures by others are skipped, as are bad ones and those of unknown methods. A key that has another id
        than the file that lists it declares is not skipped: that is SignaturesMissing.
        """
        message = self.message
        valid: set[str] = set()
        for signature in self.signatures:
            key = authority.keys.get(signature.key_id)
            if key is None or signature.key_id in valid:
                continue
            if key.id != signature.key_id:
                raise SignaturesMissing(f"the key {signature.key_id[:64]} has another id than declared")
            if key.verifies(signature.method, signature.content, message):
                valid.add(signature.key_id)
        return frozenset(valid)

    def check_signatures(self, authority: Authority) -> None:
        """Whether enough keys of the role signed this. Raises NotCanonical, SignaturesMissing."""
        if not self.signatures:
            raise SignaturesMissing("the file is not signed")
        if authority.threshold < 1:
            raise SignaturesMissing("the role's threshold is below 1")
        found = len(self.signers(authority))
        if found < authority.threshold:
            raise SignaturesMissing(
                f"{found} valid signatures by the role's keys, of {authority.threshold} needed"
            )


def read_root(envelope: Envelope) -> Root:
    """
    What a root says.

    All four roles, thresholds of 1 and more, and the keys they list. Raises MetadataInvalid.
    """
    signed = envelope.signed
    version, expires_at = _common(envelope, "Root")
    keys = _keys(_object(signed, "keys"))
    roles = _object(signed, "roles")
    authorities = {}
    for name in BASE_ROLES:
        if not isinstance(roles.get(name), dict):
            raise MetadataInvalid(f"the root has no role {name}")
        authorities[name] = _authority(roles[name], keys, name)
    return Root(version, expires_at, authorities)


def read_targets(envelope: Envelope, role: str) -> Targets:
    """
    What a file of targets, or of a delegation of them, says. Raises MetadataInvalid.

    Entries of delegations name direct children, thresholds of 1 and more, and keys that are there.
    """
    version, expires_at = _common(envelope, "Targets")
    targets = {
        name: FileMeta.from_json(value, "a target") for name, value in _object(envelope.signed, "targets").items()
    }
    below = _object(envelope.signed, "delegations")
    keys = _keys(_object(below, "keys"))
    delegations: dict[str, Delegation] = {}
    for entry in _list(below, "roles"):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not is_delegation(name) or parent_of(name) != role:
            raise MetadataInvalid("an entry of delegations is not for a role directly below")
        found = Delegation(name, _authority(entry, keys, name), _texts(entry, "paths"))
        delegations.setdefault(name, found)
    return Targets(version, expires_at, targets, delegations)


def read_snapshot(envelope: Envelope) -> Snapshot:
    """What a snapshot says; it has sha256 of all files, root and targets among them. Raises MetadataInvalid."""
    version, expires_at = _common(envelope, "Snapshot")
    meta = {name: _file_meta(value, name) for name, value in _object(envelope.signed, "meta").items()}
    for name in (ROOT, TARGETS):
        if name not in meta:
            raise MetadataInvalid(f"the snapshot has no {name}")
    return Snapshot(version, expires_at, meta)


def read_timestamp(envelope: Envelope) -> Timestamp:
    """What a timestamp says; it has the sha256 of the snapshot. Raises MetadataInvalid."""
    version, expires_at = _common(envelope, "Timestamp")
    meta = _object(envelope.signed, "meta")
    if SNAPSHOT not in meta:
        raise MetadataInvalid("the timestamp has no snapshot")
    return Timestamp(version, expires_at, _file_meta(meta[SNAPSHOT], SNAPSHOT))


def _common(envelope: Envelope, kind: str) -> tuple[int, Nanoseconds]:
    signed = envelope.signed
    if signed.get("_type") != kind:
        raise MetadataInvalid(f"_type is not {kind}")
    if not 1 <= envelope.version <= canonical.LARGEST_INTEGER:
        raise MetadataInvalid("version is not 1 or more")
    return envelope.version, _expiry(signed)


def _expiry(signed: Mapping[str, Any]) -> Nanoseconds:
    text = signed.get("expires")
    if not isinstance(text, str):
        raise MetadataInvalid("expires is not a moment by RFC 3339")
    return read_moment(text)


def _signatures(value: Any) -> tuple[Signature, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed("signatures are not a list")
    if len(value) > _MOST_SIGNATURES:
        raise Malformed(f"more than {_MOST_SIGNATURES} signatures")
    return tuple(_signature(one) for one in value)


def _signature(value: Any) -> Signature:
    if not isinstance(value, dict):
        raise Malformed("a signature is not an object")
    _check_case(value, _SIGNATURE_NAMES)
    texts = [value.get(name) for name in ("keyid", "method", "sig")]
    if not all(isinstance(one, str | None) for one in texts):
        raise Malformed("a signature is not made of texts")
    key_id, method, content = (one or "" for one in texts)
    try:
        return Signature(key_id, method.lower(), base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError):
        raise Malformed("a signature is not base64") from None


def _check_case(value: Mapping[str, Any], known: frozenset[str]) -> None:
    """
    Names that differ from a known one in case only are refused: readers in Go would take them for it.

    Only what is not signed has to be checked so: of the rest, the signature is of the names, too.
    """
    for name in value.keys() - known:
        if name.casefold() in known:
            raise Malformed(f"a name differs from {name.casefold()} in case only")


def _object(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise MetadataInvalid(f"{name} is not an object")
    return found


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise MetadataInvalid(f"{name} is not a list")
    return found


def _texts(value: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = _list(value, name)
    if not all(isinstance(one, str) for one in found):
        raise MetadataInvalid(f"{name} are not texts")
    return tuple(found)


def _keys(value: Mapping[str, Any]) -> dict[str, PublicKey]:
    return {key_id: PublicKey.from_json(key) for key_id, key in value.items()}


def _authority(value: Mapping[str, Any], keys: Keys, role: str) -> Authority:
    threshold = value.get("threshold", 0)
    if type(threshold) is not int or threshold < 1:
        raise MetadataInvalid(f"the threshold of {role} is below 1")
    listed = _texts(value, "keyids")
    if not keys.keys() >= set(listed):
        raise MetadataInvalid(f"a key of {role} is not among the keys")
    return Authority({key_id: keys[key_id] for key_id in listed}, threshold)


def _file_meta(value: Any, role: str) -> FileMeta:
    found = FileMeta.from_json(value, role[:64])
    if found.sha256 is None:
        raise MetadataInvalid(f"{role[:64]} has no sha256")
    return found


def _hash(hashes: Mapping[str, Any], name: str, size: int, what: str) -> bytes | None:
    value = hashes.get(name)
    if value is None:
        return None
    try:
        found = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != size:
        raise MetadataInvalid(f"the {name} of {what} is not {size} bytes in base64")
    return found
