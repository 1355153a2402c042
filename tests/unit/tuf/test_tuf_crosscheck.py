"""
The rules beside those of an independent library of today's TUF, where the formats allow.

What can be compared: canonical JSON (test_tuf_canonical), single signatures, thresholds, hashes and lengths of
files, and which new root follows an old one. The same keys sign the same story in both formats.

What cannot: key ids (hashes of other objects there), certificates as root keys, prefixes as paths, snapshots
without versions, fractions of moments, and files that a server makes. That library has none of these.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import event, given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey
from tests.support.notary import Key, Publisher, meta_of, moment, now, seal
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from dtr.tuf import Authority, Envelope, FileMeta, PublicKey, RuleBroken, SignaturesMissing, check_update

GUN = "dtr.example/alice/app"
SCHEMES = {
    "ecdsa": "ecdsa-sha2-nistp256",
    "rsapss": "rsassa-pss-sha256",
    "rsapkcs1v15": "rsa-pkcs1v15-sha256",
    "eddsa": "ed25519",
}
METHODS = {"ecdsa": ["ecdsa"], "rsa": ["rsapss", "rsapkcs1v15"], "ed25519": ["eddsa"]}


def ours(key: Key) -> PublicKey:
    return PublicKey.from_json(key.json)


def theirs(key: Key, method: str, key_id: str | None = None) -> SSlibKey:
    return SSlibKey.from_crypto(key.private.public_key(), key_id or key.id, SCHEMES[method])


def translated(method: str, signature: bytes) -> bytes:
    """Theirs are ASN.1 where ours are two numbers."""
    if method != "ecdsa":
        return signature
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def they_verify(key: SSlibKey, method: str, signature: bytes, message: bytes) -> bool:
    try:
        key.verify_signature(Signature(key.keyid, translated(method, signature).hex()), message)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True


@cache
def key_of(kind: str, number: int = 0) -> Key:
    return Key.make(kind) if kind != "rsa" else Key.make("rsa", bits=2048 + 1024 * number)


@pytest.mark.parametrize("kind", METHODS)
@given(message=st.binary(max_size=40), flip=st.none() | st.integers(0, 2**16), other=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_same_signatures_are_good(kind: str, message: bytes, flip: int | None, *, other: bool) -> None:
    signer, key = key_of(kind, 0), key_of(kind, 1 if other else 0)
    for method in METHODS[kind]:
        signature = bytearray(base64.b64decode(signer.sign(message, method)["sig"]))
        if flip is not None:
            signature[flip // 8 % len(signature)] ^= 1 << flip % 8
        found = ours(key).verifies(method, bytes(signature), message)
        assert found == they_verify(theirs(key, method), method, bytes(signature), message)
        assert found == (flip is None and not other)


KINDS = st.sampled_from(["ecdsa", "rsa", "ed25519"])


@given(
    kinds=st.lists(KINDS, min_size=1, max_size=4),
    threshold=st.integers(1, 4),
    states=st.lists(st.sampled_from(["good", "bad", "none"]), min_size=4, max_size=4),
    strangers=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_the_same_thresholds_are_reached(
    kinds: list[str], threshold: int, states: list[str], strangers: int
) -> None:
    """Keys of a role sign well, badly or not at all, and strangers sign, too."""
    payload: Any = {"_type": "Targets", "version": 1}
    message = json.dumps(payload, separators=(",", ":")).encode()
    keys = {}
    for kind in kinds:
        key = Key.make(kind) if kind != "rsa" else key_of("rsa")
        keys[key.id] = key
    signatures = []
    for key, state in zip(keys.values(), states, strict=False):
        if state != "none":
            signatures.append(key.sign(message if state == "good" else b"other"))
    signatures += [Key.make().sign(message) for _ in range(strangers)]
    file = Envelope.parse(json.dumps({"signed": payload, "signatures": signatures}).encode())
    try:
        file.check_signatures(Authority({one: ours(key) for one, key in keys.items()}, threshold))
        found = True
    except SignaturesMissing:
        found = False
    root = Root(
        keys={one: theirs(key, METHODS[key.type][0]) for one, key in keys.items()},
        roles={
            "targets": Role(list(keys), threshold),
            **{name: Role([], 1) for name in ("root", "snapshot", "timestamp")},
        },
    )
    given_ = {
        one["keyid"]: Signature(one["keyid"], translated(one["method"], base64.b64decode(one["sig"])).hex())
        for one in signatures
    }
    assert found == bool(root.get_verification_result("targets", message, given_))
    event(f"reached: {found}")


@given(
    content=st.binary(max_size=30), length=st.integers(-1, 1), algorithm=st.sampled_from(["", "sha256", "sha512"])
)
@settings(max_examples=60, deadline=None)
def test_the_same_files_are_those_that_were_meant(content: bytes, length: int, algorithm: str) -> None:
    """A length, or one of the two hashes, may be that of another file."""
    meta = meta_of(content)
    meta["length"] = max(0, meta["length"] + length)
    if algorithm:
        meta["hashes"][algorithm] = meta_of(content + b"x")["hashes"][algorithm]
    hexadecimal = {name: base64.b64decode(value).hex() for name, value in meta["hashes"].items()}
    try:
        MetaFile(1, meta["length"], hexadecimal).verify_length_and_hashes(content)
        expected = True
    except LengthOrHashMismatchError:
        expected = False
    assert FileMeta.from_json(meta, "it").matches(content) == expected


# --- which root follows another -----------------------------------------------------------------------------


@cache
def pool() -> list[Key]:
    return [Key.certified(GUN) for _ in range(4)]


def our_root(version: int, listed: list[int], threshold: int, signers: list[int]) -> bytes:
    keys = [pool()[one] for one in listed]
    publisher = Publisher(GUN, Key.make().json, Key.make().json, root_keys=keys)
    publisher.root["version"] = version
    publisher.root["roles"]["root"]["threshold"] = threshold
    return seal(publisher.root, [pool()[one] for one in signers])


def their_root(version: int, listed: list[int], threshold: int, signers: list[int]) -> bytes:
    root = Root(version=version, expires=dt.datetime.now(dt.UTC) + dt.timedelta(days=1), consistent_snapshot=False)
    keys = [theirs(pool()[one], "ecdsa") for one in listed]
    for key in keys:
        root.add_key(key, "root")
    for name in ("targets", "snapshot", "timestamp"):
        root.add_key(keys[0], name)
    root.roles["root"].threshold = threshold
    metadata = Metadata(root)
    for one in signers:
        metadata.sign(CryptoSigner(pool()[one].private, theirs(pool()[one], "ecdsa")), append=True)
    return metadata.to_bytes()


SOME = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)


@given(old=SOME, new=SOME, signers=st.lists(st.integers(0, 3), max_size=4, unique=True), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_same_roots_follow_each_other(
    old: list[int], new: list[int], signers: list[int], data: st.DataObject
) -> None:
    """Any thresholds, and any of four keys as the signers of the next root; versions that follow, or do not."""
    before = data.draw(st.integers(1, len(old)), label="threshold of the old root")
    after = data.draw(st.integers(1, 3), label="threshold of the new root")
    version = data.draw(st.sampled_from([2, 2, 2, 3]), label="version of the new root")
    refused = None
    try:
        check_update(
            GUN,
            {"root": Envelope.parse(our_root(version, new, after, signers))},
            {"root": our_root(1, old, before, old), "snapshot": SNAPSHOT},
            now(),
        )
    except RuleBroken as error:
        refused = error.name
    trusted = TrustedMetadataSet(their_root(1, old, before, old), EnvelopeType.METADATA)
    try:
        trusted.update_root(their_root(version, new, after, signers))
        expected = True
    except RepositoryError:
        expected = False
    assert refused == (None if expected else "ErrBadRoot")
    event(f"follows: {expected}")


SNAPSHOT = seal(
    {
        "_type": "Snapshot",
        "expires": moment(now() + dt.timedelta(days=1)),
        "meta": {"root": meta_of(b""), "targets": meta_of(b"")},
        "version": 1,
    },
    [],
)
