"""Keys, their ids, signatures and certificates."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support.notary import SHA1_CERTIFICATE, Json, Key, now

from dtr.tuf import Authority, CertificateInvalid, Envelope, MetadataInvalid, PublicKey, SignaturesMissing
from dtr.tuf.certificates import check_root_certificate, check_validity, root_certificate
from dtr.tuf.times import nanoseconds

MESSAGE = b'{"_type":"Timestamp"}'
KINDS = ("ecdsa", "ecdsa-x509", "rsa", "rsa-x509", "ed25519")
METHODS = {
    "ecdsa": ("ecdsa",),
    "rsa": ("rsapss", "rsapkcs1v15"),
    "ed25519": ("eddsa",),
}
TIMESTAMP = (
    b'{"signed":{"_type":"Timestamp","expires":"2026-12-08T08:24:23.90040679Z","meta":{"snapshot":{"hashes":{'
    b'"sha256":"F3Ru0FhPDXSgp1aiie8Eh7XeICNJj0QF4SqcPCVg818=","sha512":"ZuS2Pr4iEGsj7klIT42ojI+U8PFBj65i6rrsMutz'
    b'GWrEj2dAbkZ4/AKE9CWpS4V1Wsfup03AtyKy0ZWSCtQZbA=="},"length":683}},"version":1},"signatures":[{"keyid":'
    b'"29bb43989a44554865d0f608a081d0a18e1e4d8aca588ac5576389b60e722277","method":"ecdsa","sig":"vJo2jY1lL4IBXEiY'
    b'TraClLvgRFzSnMfodIiUepHaEh2g/3u3JIuLb+RFsZbaQ3TYLEjLXswXhw7y6hKnqqRerA=="}]}'
)
"""A file and a key of a reference server."""
TIMESTAMP_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsV92oQHZWq2BJuCV13mtZAu0rsFBluOspTHaFdTLtD1YTaTum674EndPF0ivoPUPHGyD"
    "QdaoQq6tyP4U+6SGMw=="
)
TIMESTAMP_KEY_ID = "29bb43989a44554865d0f608a081d0a18e1e4d8aca588ac5576389b60e722277"


def public(key: Key) -> PublicKey:
    return PublicKey.from_json(key.json)


def make(kind: str) -> Key:
    bare = kind.removesuffix("-x509")
    return Key.make(bare) if bare == kind else Key.certified("dtr.example/a/b", bare)


def raw(signature: Json) -> bytes:
    return base64.b64decode(signature["sig"])


def test_the_file_of_a_reference_server_verifies_with_its_key() -> None:
    digest = "6cd88c78d74f72d97f2651dfb149c96fb69978fb4601146d8c6afaec4ecc09eb"
    assert (len(TIMESTAMP), hashlib.sha256(TIMESTAMP).hexdigest()) == (494, digest)
    key = PublicKey("ecdsa", base64.b64decode(TIMESTAMP_KEY))
    assert key.id == TIMESTAMP_KEY_ID
    file = Envelope.parse(TIMESTAMP)
    message = "b22fd3825f055eaeefc0c6adc31a651847e25552103edc06e20f452a9accf77e"
    assert hashlib.sha256(file.message).hexdigest() == message
    assert file.signers(Authority({key.id: key}, 1)) == {key.id}


def test_a_key_is_known_by_the_hash_of_its_canonical_form() -> None:
    value = {
        "keytype": "ecdsa",
        "keyval": {
            "public": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXpua8eG6roxjD+YYbiJ84fEY2p9bkdu7NUc3399sDl8F0qn1zFhI"
            "aWQ/8P/lX6RutANyDZh4nZLpdJWuUs0cIg==",
            "private": None,
        },
    }
    key = PublicKey.from_json(value)
    assert key.id == "c23f7a6241ed615a6594a91a6e9b804e6d2d3cfeda56b8171c5c4bf26a3a4122"
    assert key.to_json() == value
    assert PublicKey.from_json({**value, "keyval": {**value["keyval"], "private": "c2VjcmV0"}}).id == key.id


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_verify_by_their_key_method_and_message_alone(kind: str) -> None:
    pair, other = make(kind), Key.make("rsa", bits=3072) if kind.startswith("rsa") else make(kind)
    key, bare = public(pair), kind.removesuffix("-x509")
    for method in METHODS[bare]:
        signature = raw(pair.sign(MESSAGE, method))
        assert key.verifies(method, signature, MESSAGE)
        assert key.verifies(method.upper(), signature, MESSAGE)
        assert not key.verifies(method, signature, MESSAGE + b" ")
        assert not key.verifies(method, raw(other.sign(MESSAGE, method)), MESSAGE)
        for broken in (b"", signature[:-1], signature + b"\0", b"\0" * len(signature), signature[::-1]):
            assert not key.verifies(method, broken, MESSAGE)
        for wrong in {"ecdsa", "rsapss", "rsapkcs1v15", "eddsa", "none", "", "pycrypto-pkcs#1 pss"} - {method}:
            assert not key.verifies(wrong, signature, MESSAGE)


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda one: one.name)
def test_other_curves_verify_with_numbers_of_their_size(curve: ec.EllipticCurve) -> None:
    pair = Key.make(curve=curve)
    signature = raw(pair.sign(MESSAGE))
    assert len(signature) == 2 * ((curve.key_size + 7) // 8)
    assert public(pair).verifies("ecdsa", signature, MESSAGE)


def test_ecdsa_in_asn1_is_no_signature() -> None:
    pair = Key.make()
    der = pair.private.sign(MESSAGE, ec.ECDSA(SHA256()))
    r, s = decode_dss_signature(der)
    assert not public(pair).verifies("ecdsa", der, MESSAGE)
    assert public(pair).verifies("ecdsa", r.to_bytes(32) + s.to_bytes(32), MESSAGE)
    assert not public(pair).verifies("ecdsa", r.to_bytes(33) + s.to_bytes(33), MESSAGE)
    assert not public(pair).verifies("ecdsa", r.to_bytes(32) + s.to_bytes(34), MESSAGE)


def test_pss_with_another_salt_is_no_signature() -> None:
    pair = Key.make("rsa")
    scheme = padding.PSS(padding.MGF1(SHA256()), 20)
    assert not public(pair).verifies("rsapss", pair.private.sign(MESSAGE, scheme, SHA256()), MESSAGE)


def test_keys_that_are_weak_or_not_what_their_type_says_verify_nothing() -> None:
    small = rsa.generate_private_key(65537, 1024)
    weak = Key("rsa", small.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), small)
    elsewhere = Key.make(curve=ec.SECP256K1())
    good, certified = Key.make(), Key.certified("a")
    for pair, kind in [
        (weak, "rsa"),
        (elsewhere, "ecdsa"),
        (good, "rsa"),
        (good, "ecdsa-x509"),
        (good, "ed25519"),
        (good, "ECDSA"),
        (certified, "ecdsa"),
        (certified, "rsa-x509"),
    ]:
        signature = pair.sign(MESSAGE)
        key = PublicKey(kind, pair.public)
        assert not key.verifies(signature["method"], raw(signature), MESSAGE), kind
        assert len(key.id) == 64
    for kind in (*KINDS, "unknown"):
        assert not PublicKey(kind, b"").verifies("ecdsa", b"\0" * 64, MESSAGE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"keytype": "ecdsa"},
        {"keytype": "ecdsa", "keyval": None},
        {"keytype": "ecdsa", "keyval": {"private": None}},
        {"keytype": 1, "keyval": {"public": "AA=="}},
        {"keytype": "ecdsa", "keyval": {"public": 1}},
        {"keytype": "ecdsa", "keyval": {"public": "!"}},
        {"keytype": "ecdsa", "keyval": {"public": "AAA"}},
        {"keytype": "ecdsa", "keyval": {"public": "é"}},
    ],
    ids=json.dumps,
)
def test_what_is_no_key_is_refused(value: object) -> None:
    with pytest.raises(MetadataInvalid):
        PublicKey.from_json(value)


def test_keys_of_unknown_types_are_kept() -> None:
    value = {"keytype": "quantum", "keyval": {"private": None, "public": "AAAA"}}
    assert PublicKey.from_json(value).to_json() == value


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_certificate_has_the_key_in_it(kind: str) -> None:
    pair = Key.certified("dtr.example/a/b", kind)
    der = pair.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    bare = PublicKey(kind, der)
    assert public(pair).bare == bare
    assert bare.id != public(pair).id
    assert bare.bare == bare
    with pytest.raises(CertificateInvalid):
        _ = PublicKey(f"{kind}-x509", der).bare


# --- certificates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gun", "good"),
    [
        ("dtr.example/a/b", "dtr.example/a/b", True),
        ("dtr.example/a/b", "dtr.example/a/bc", False),
        ("dtr.example/a/b", "dtr.example/a", False),
        ("dtr.example/a/*", "dtr.example/a/b", True),
        ("dtr.example/a/**", "dtr.example/a/b", True),
        ("dtr.example/a*", "dtr.example/ab/c", True),
        ("*", "dtr.example/a/b", True),
        ("dtr.example/*/b", "dtr.example/a/b", False),
        ("*/b", "dtr.example/a/b", False),
        ("DTR.example/a/b", "dtr.example/a/b", False),
        ("other/*", "dtr.example/a/b", False),
    ],
)
def test_a_root_certificate_is_for_the_collections_it_names(name: str, gun: str, good: bool) -> None:
    certificate = root_certificate(Key.certified(name).public)
    if good:
        check_root_certificate(certificate, gun)
    else:
        with pytest.raises(CertificateInvalid, match="another collection"):
            check_root_certificate(certificate, gun)


def test_a_root_certificate_is_a_leaf_before_authorities() -> None:
    leaf, authority = Key.certified("a").public, Key.certified("ca", is_ca=True).public
    assert root_certificate(leaf) == root_certificate(leaf + authority) == root_certificate(leaf + authority * 2)
    for content in (authority, authority + leaf, leaf + leaf, leaf + authority + leaf):
        with pytest.raises(CertificateInvalid, match="leaf"):
            root_certificate(content)


@pytest.mark.parametrize("damage", ["empty", "text", "der", "key", "cut", "many", "base64"])
def test_what_is_no_bundle_is_refused(damage: str) -> None:
    pair = Key.certified("a")
    content = {
        "empty": b"",
        "text": b"certificate",
        "der": base64.b64decode(b"".join(pair.public.splitlines()[1:-1])),
        "key": pair.public + pair.public_pem.encode(),
        "cut": pair.public[:-60] + b"-----END CERTIFICATE-----\n",
        "many": pair.public + Key.certified("ca", is_ca=True).public * 16,
        "base64": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    }[damage]
    with pytest.raises(CertificateInvalid):
        root_certificate(content)


def test_a_certificate_is_valid_from_the_day_before_it_begins_to_its_end() -> None:
    begin, end = dt.datetime(2026, 1, 10, 12, tzinfo=dt.UTC), dt.datetime(2026, 2, 10, 12, tzinfo=dt.UTC)
    certificate = root_certificate(Key.certified("a", begin=begin, end=end).public)
    second, day = dt.timedelta(seconds=1), dt.timedelta(days=1)
    for moment in (begin - day, begin, end):
        check_validity(certificate, nanoseconds(moment))
    for moment in (begin - day - second, end + second):
        with pytest.raises(CertificateInvalid, match="expired"):
            check_validity(certificate, nanoseconds(moment))


def test_certificates_signed_with_sha1_or_with_short_keys_do_not_count() -> None:
    with pytest.raises(CertificateInvalid, match="sha1"):
        check_root_certificate(root_certificate(SHA1_CERTIFICATE), "dtr.example/a/b")
    assert PublicKey("ecdsa-x509", SHA1_CERTIFICATE)._loaded is None
    small = Key.certified("dtr.example/a/b", "rsa", bits=1024)
    with pytest.raises(CertificateInvalid, match="2048"):
        check_root_certificate(root_certificate(small.public), "dtr.example/a/b")
    assert not public(small).verifies("rsapss", raw(small.sign(MESSAGE)), MESSAGE)


def test_an_expired_certificate_of_a_delegate_still_verifies() -> None:
    begin = now() - dt.timedelta(days=30)
    pair = Key.certified("bob", begin=begin, end=begin + dt.timedelta(days=1))
    assert public(pair).verifies("ecdsa", raw(pair.sign(MESSAGE)), MESSAGE)


# --- enough signatures --------------------------------------------------------------------------------------


def envelope(*signatures: Json) -> Envelope:
    content = {"signed": json.loads(MESSAGE), "signatures": list(signatures)}
    return Envelope.parse(json.dumps(content).encode())


def authority(threshold: int, *pairs: Key) -> Authority:
    return Authority({pair.id: public(pair) for pair in pairs}, threshold)


def test_distinct_keys_of_the_role_count() -> None:
    first, second, stranger = Key.make(), Key.make("ed25519"), Key.make()
    role = authority(2, first, second)
    one, other, strange = first.sign(MESSAGE), second.sign(MESSAGE), stranger.sign(MESSAGE)
    envelope(one, other).check_signatures(role)
    envelope(strange, one, one, other).check_signatures(role)
    bad = {**other, "sig": base64.b64encode(b"\0" * 64).decode()}
    envelope(bad, one, {**other, "method": "unknown"}, other).check_signatures(role)
    for given in ([], [one], [one, one], [one, strange], [one, bad], [one, {**other, "method": "ecdsa"}]):
        with pytest.raises(SignaturesMissing):
            envelope(*given).check_signatures(role)


def test_a_threshold_below_1_is_never_reached() -> None:
    key = Key.make()
    for threshold in (0, -1):
        with pytest.raises(SignaturesMissing, match="below 1"):
            envelope(key.sign(MESSAGE)).check_signatures(authority(threshold, key))


def test_a_key_with_another_id_than_declared_is_an_error_once_it_signs() -> None:
    good, pretender = Key.make(), Key.make()
    role = Authority({good.id: public(good), "0" * 64: public(pretender)}, 1)
    envelope(good.sign(MESSAGE)).check_signatures(role)
    with pytest.raises(SignaturesMissing, match="another id"):
        envelope(good.sign(MESSAGE), {**pretender.sign(MESSAGE), "keyid": "0" * 64}).check_signatures(role)
