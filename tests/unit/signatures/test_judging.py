"""Whose a signature is: every format, every kind of key, and whatever is wrong with one."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings
from tests.support import signing
from tests.support.signing import (
    BUNDLE,
    DAY,
    DSSE,
    SIMPLE_SIGNING,
    Notation,
    Signer,
    bundle,
    cosign_layer,
    dsse,
    make_authority,
    make_key,
    make_signer,
    pem,
    public_pem,
    simple_payload,
    statement,
)

from dtr.signatures import Identity, IdentityInvalid
from dtr.signatures.envelopes import read_signature
from dtr.signatures.errors import SignatureInvalid
from dtr.signatures.identities import checked
from dtr.signatures.judging import Judge, Judgement

pytestmark = [
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
]
DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
NOW = dt.datetime.now(dt.UTC)
KEYS = ["P-256", "P-384", "P-521", "ed25519", "rsa2048"]


def key_of(key: Any, name: str = "release") -> Identity:
    return checked(Identity(id=f"id of {name}", name=name, kind="key", content=public_pem(key)))


def authority(certificates: str, subject: str = "") -> Identity:
    given = Identity(id="id of acme", name="acme", kind="certificate", content=certificates, subject=subject)
    return checked(given)


def judge(
    layer: tuple[str, dict[str, str], bytes],
    *identities: Identity,
    digest: str = DIGEST,
    moment: dt.datetime = NOW,
) -> Judgement:
    signature = read_signature(*layer)
    assert signature is not None
    return Judge(identities).judge(signature, digest, moment)


def cosign(key: Any, digest: str = DIGEST, **notes: str) -> tuple[str, dict[str, str], bytes]:
    payload, annotations = cosign_layer(key, digest, **notes)
    return SIMPLE_SIGNING, annotations, payload


def bundled(key: Any, digest: str = DIGEST, **more: Any) -> tuple[str, dict[str, str], bytes]:
    return BUNDLE, {}, bundle(key, statement(digest), **more)


def jws(envelope: Notation) -> tuple[str, dict[str, str], bytes]:
    return "application/jose+json", {}, envelope.jws()


def cose(envelope: Notation) -> tuple[str, dict[str, str], bytes]:
    return "application/cose", {}, envelope.cose()


def proven(judgement: Judgement) -> list[str]:
    return [one.identity for one in judgement.proofs]


# --- keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("make", [cosign, bundled])
def test_a_signature_is_that_of_its_key_alone(make: Callable[..., Any], kind: str) -> None:
    key, other = make_key(kind), make_key()
    layer = make(key)
    assert proven(judge(layer, key_of(other, "other"), key_of(key))) == ["id of release"]
    assert judge(layer, key_of(other)) == Judgement()
    assert judge(layer, key_of(key), digest=OTHER).problem == "it is a signature of something else"


@pytest.mark.parametrize("kind", ["P-384", "P-521"])
def test_a_large_curve_signs_with_its_own_hash_or_with_sha256(kind: str) -> None:
    key = make_key(kind)
    payload = simple_payload(DIGEST)
    for hash_, holds in (
        (hashes.SHA256(), True),
        (signing._HASHES[key.curve.key_size], True),
        (hashes.SHA1(), False),
    ):
        notes = {
            "dev.cosignproject.cosign/signature": base64.b64encode(signing.sign(key, payload, hash_)).decode()
        }
        assert bool(judge((SIMPLE_SIGNING, notes, payload), key_of(key)).proofs) is holds


def test_ed25519_signs_the_text_or_its_hash() -> None:
    key, payload = make_key("ed25519"), simple_payload(DIGEST)
    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, payload)
    secret = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    signature = bindings.crypto_sign_ed25519ph_final_create(state, secret)
    notes = {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}
    assert judge((SIMPLE_SIGNING, notes, payload), key_of(key)).proofs
    assert not judge((SIMPLE_SIGNING, notes, payload), key_of(make_key("ed25519"))).proofs
    assert not judge((SIMPLE_SIGNING, notes, payload + b" "), key_of(key)).proofs


def test_what_was_changed_behind_the_signature_is_nobodys() -> None:
    key = make_key()
    kind, notes, payload = cosign(key)
    changed = payload.replace(b"localhost", b"elsewhere")
    assert judge((kind, notes, changed), key_of(key)) == Judgement()
    document = json.loads(bundled(key)[2])
    document["dsseEnvelope"]["payload"] = base64.b64encode(statement(DIGEST, "https://slsa.dev/x")).decode()
    assert judge((BUNDLE, {}, json.dumps(document).encode()), key_of(key)) == Judgement()


def test_an_attestation_is_none_of_an_images_signatures() -> None:
    key = make_key()
    for media_type, content in (
        (BUNDLE, bundle(key, statement(DIGEST, "https://slsa.dev/provenance/v1"))),
        (DSSE, json.dumps(dsse(key, statement(DIGEST, "https://slsa.dev/provenance/v1"))).encode()),
        (DSSE, json.dumps(dsse(key, statement(DIGEST))).encode()),
    ):
        found = read_signature(media_type, {}, content)
        assert found is not None
        assert found.kind == "attestation"
        assert proven(Judge((key_of(key),)).judge(found, DIGEST, NOW)) == ["id of release"]
    found = read_signature(BUNDLE, {}, bundle(key, statement(DIGEST)))
    assert found is not None
    assert found.kind == "signature"


def test_several_may_have_signed_an_envelope() -> None:
    one, two = make_key(), make_key("ed25519")
    payload = statement(DIGEST)
    envelope = dsse(one, payload)
    envelope["signatures"] += dsse(two, payload)["signatures"]
    layer = (DSSE, {}, json.dumps(envelope).encode())
    assert proven(judge(layer, key_of(two, "two"), key_of(one, "one"))) == ["id of two", "id of one"]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (rsa.generate_private_key(65537, 1024), "2048 to 8192 bits"),
        (ec.generate_private_key(ec.SECP256K1()), "P-256, P-384 or P-521"),
    ],
)
def test_weak_and_strange_keys_are_not_registered(key: Any, reason: str) -> None:
    with pytest.raises(IdentityInvalid, match=reason):
        key_of(key)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content": "hello"}, "not a public key in PEM"),
        ({"content": "é"}, "ASCII"),
        ({"content": "x" * 70_000}, "at most"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"subject": "CN=x"}, "no subject"),
        ({"kind": "certificate"}, "not certificates"),
        ({"kind": "certificate", "content": pem(make_authority().chain[0]), "subject": "nonsense"}, "RFC 4514"),
        ({"kind": "keyless"}, "https://"),
        ({"kind": "keyless", "content": "https://accounts.example"}, "has a subject"),
    ],
)
def test_what_is_no_identity_is_refused(changes: dict[str, Any], reason: str) -> None:
    fine = {"name": "release", "kind": "key", "content": public_pem(make_key())}
    with pytest.raises(IdentityInvalid, match=reason):
        checked(Identity(**{**fine, **changes}))


# --- certificates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "rsa2048", "rsa3072"])
@pytest.mark.parametrize("make", [jws, cose])
def test_notations_envelopes_are_those_of_an_authority(make: Callable[..., Any], kind: str) -> None:
    signer = make_signer(kind)
    judgement = judge(make(Notation(signer, DIGEST)), authority(signer.root_pem))
    assert proven(judgement) == ["id of acme"]
    until = int(min(one.not_valid_after_utc for one in signer.chain).timestamp() * 1000)
    assert judgement.proofs[0].until == until
    assert judge(make(Notation(signer, DIGEST)), authority(make_authority().root_pem)) == Judgement()
    assert judge(make(Notation(signer, OTHER)), authority(signer.root_pem)).problem
    # The bare key is not enough: Notation signs with certificates.
    assert judge(make(Notation(signer, DIGEST)), key_of(signer.key)) == Judgement()


@pytest.mark.parametrize("make", [jws, cose])
def test_a_signature_ends_when_its_signer_wanted_or_its_certificate_does(make: Callable[..., Any]) -> None:
    signer = make_signer(ends=NOW + 20 * DAY)
    trusted = authority(signer.root_pem)
    expiry = (NOW + 10 * DAY).replace(microsecond=0)
    layer = make(Notation(signer, DIGEST, expiry=expiry))
    assert judge(layer, trusted).proofs[0].until == int(expiry.timestamp() * 1000)
    assert "wanted it to end" in judge(layer, trusted, moment=NOW + 11 * DAY).problem
    forever = make(Notation(signer, DIGEST))
    late = judge(forever, trusted, moment=NOW + 21 * DAY)
    assert not late.proofs
    assert "is not valid now" in late.objection
    assert "is not valid now" in judge(forever, trusted, moment=NOW - 2 * DAY).objection


@pytest.mark.parametrize("make", [jws, cose])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scheme": "notary.x509.signingAuthority"}, "scheme"),
        ({"critical": ("io.cncf.notary.verificationPlugin",)}, "not understood"),
        ({"content_type": "application/json"}, "none of Notation's"),
        ({"chain": ()}, "1 to 10 certificates"),
    ],
)
def test_envelopes_that_demand_more_are_refused(
    make: Callable[..., Any], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SignatureInvalid, match=reason):
        read_signature(*make(Notation(make_signer(), DIGEST).but(**changes)))


@pytest.mark.parametrize("make", [jws, cose])
@pytest.mark.parametrize("zone", [dt.UTC, dt.timezone(dt.timedelta(hours=23))])
def test_moments_are_those_of_this_calendar(make: Callable[..., Any], zone: dt.tzinfo) -> None:
    for moment in (dt.datetime(1, 1, 1, tzinfo=zone), dt.datetime(1969, 12, 31, tzinfo=zone)):
        with pytest.raises(SignatureInvalid):
            read_signature(*make(Notation(make_signer(), DIGEST, expiry=moment)))


@pytest.mark.parametrize("make", [jws, cose])
def test_the_key_decides_on_the_algorithm(make: Callable[..., Any]) -> None:
    signer = make_signer("P-384")
    judgement = judge(make(Notation(signer, DIGEST, algorithm="ES256")), authority(signer.root_pem))
    assert judgement.objection == "its algorithm is 'ES256', its key is for ES384"
    edwards = Signer(make_key(), make_signer("ed25519").chain)
    objected = judge(make(Notation(edwards, DIGEST)), authority(edwards.root_pem))
    assert "does not sign so" in objected.objection


@pytest.mark.parametrize("make", [jws, cose])
def test_the_certificate_of_another_does_not_help(make: Callable[..., Any]) -> None:
    root = make_authority()
    mine, theirs = make_signer(root=root), make_signer(root=root)
    judgement = judge(make(Notation(mine, DIGEST, chain=theirs.chain)), authority(root.root_pem))
    assert judgement.objection == "it was not made with the key of its certificate"


def test_only_who_is_wanted_counts() -> None:
    signer = make_signer(name="release")
    layer = jws(Notation(signer, DIGEST))
    for subject, counts in (
        ("CN=release", True),
        ("CN=release,O=Acme,C=NZ", True),
        ("CN=other", False),
        ("CN=release,O=Other", False),
        ("OU=release", False),
    ):
        assert bool(judge(layer, authority(signer.root_pem, subject)).proofs) is counts, subject


def test_a_chain_may_be_long_and_end_before_the_root() -> None:
    root = make_authority("root")
    between = make_authority("between", below=root, path_length=0)
    signer = make_signer(root=between)
    assert proven(judge(jws(Notation(signer, DIGEST)), authority(root.root_pem))) == ["id of acme"]
    assert proven(judge(jws(Notation(signer, DIGEST)), authority(pem(between.chain[0])))) == ["id of acme"]
    short = Notation(signer, DIGEST, chain=signer.chain[:2])
    assert proven(judge(jws(short), authority(root.root_pem))) == ["id of acme"]
    # The signer's own certificate may be registered, and then no other of its authority counts.
    assert proven(judge(jws(short), authority(pem(signer.chain[0])))) == ["id of acme"]
    assert judge(jws(Notation(make_signer(root=between), DIGEST)), authority(pem(signer.chain[0]))) == Judgement()


def forged() -> Signer:
    """Issued by somebody whose certificate is no authority's."""
    ordinary = make_signer()
    key = make_key()
    leaf = signing.make_certificate(key, signing.make_name("x"), ordinary.key, ordinary.chain[0].subject)
    return Signer(key, (leaf, *ordinary.chain))


def too_deep() -> Signer:
    root = make_authority("root", path_length=0)
    return make_signer(root=make_authority("between", below=root))


def not_issued() -> Signer:
    """The chain says who issued it, but nobody did."""
    root, other = make_authority("root"), make_authority("root")
    return Signer((made := make_signer(root=other)).key, (made.chain[0], root.chain[0]))


@pytest.mark.parametrize(
    ("signer", "reason"),
    [
        (make_signer(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "not for signing code"),
        (make_signer(signs=False), "not for signatures"),
        (make_signer(more=(x509.NameConstraints([x509.DNSName("a.example")], None),)), "critical extension"),
        (make_signer(begins=NOW - 3 * DAY, ends=NOW - DAY), "not valid now"),
        (make_signer(root=make_authority(begins=NOW - 3 * DAY, ends=NOW - DAY)), "not valid now"),
        (make_authority(), "an authority's"),
        (forged(), "no authority's"),
        (too_deep(), "more authorities than it may"),
        (not_issued(), "not issued by the next one"),
    ],
)
@pytest.mark.parametrize("make", [jws, cose])
def test_a_chain_that_is_not_good_for_signing_counts_for_nobody(
    make: Callable[..., Any], signer: Signer, reason: str
) -> None:
    judgement = judge(make(Notation(signer, DIGEST)), authority(signer.root_pem))
    assert not judgement.proofs
    assert reason in judgement.objection


def test_cosign_and_bundles_come_with_certificates_too() -> None:
    signer = make_signer()
    notes = {
        "dev.sigstore.cosign/certificate": pem(signer.chain[0]),
        "dev.sigstore.cosign/chain": "".join(map(pem, signer.chain[1:])),
    }
    trusted = authority(signer.root_pem)
    for layer in (cosign(signer.key, **notes), bundled(signer.key, chain=signer.chain)):
        assert proven(judge(layer, trusted)) == ["id of acme"]
        assert proven(judge(layer, key_of(signer.key))) == ["id of release"]
        assert judge(layer, authority(make_authority().root_pem)) == Judgement()
    found = read_signature(*cosign(signer.key, **notes))
    assert found is not None
    assert found.signer == "CN=release,O=Acme,ST=Otago,C=NZ"


# --- hostile content ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ((SIMPLE_SIGNING, {}, simple_payload(DIGEST)), "not base64"),
        ((SIMPLE_SIGNING, {"dev.cosignproject.cosign/signature": "%"}, simple_payload(DIGEST)), "not base64"),
        ((SIMPLE_SIGNING, {}, simple_payload(DIGEST, critical={"type": "atomic"})), "not that of an image's"),
        ((SIMPLE_SIGNING, {}, b"[]"), "no object"),
        ((SIMPLE_SIGNING, {}, b'{"critical": {}, "critical": {}}'), "given twice"),
        ((SIMPLE_SIGNING, {}, b"[" * 100_000), "nested too deeply"),
        ((SIMPLE_SIGNING, {}, b"\xff"), "not JSON"),
        ((DSSE, {}, json.dumps({**dsse(make_key(), b"{}"), "signatures": []}).encode()), "1 to 10 signatures"),
        ((DSSE, {}, json.dumps(dsse(make_key(), b"{}", "text/plain")).encode()), "no statement"),
        ((DSSE, {}, json.dumps(dsse(make_key(), b'{"_type": "x"}')).encode()), "known version"),
        ((BUNDLE, {}, b'{"messageSignature": {}}'), "has a statement"),
        (("application/jose+json", {}, b'{"protected": "e30", "payload": "e30", "header": {}}'), "x5c"),
        (("application/cose", {}, b"\x81" * 1000 + b"\x01"), "not CBOR"),
        (("application/cose", {}, cbor2.dumps(cbor2.CBORTag(35, "(a+)+"))), "not CBOR"),
        (("application/cose", {}, cbor2.dumps(cbor2.CBORTag(18, [b"", {}, b""]))), "COSE_Sign1"),
        (("application/cose", {}, cbor2.dumps([b"", {}, b"", b""])), "COSE_Sign1"),
        (
            ("application/cose", {}, cbor2.dumps(cbor2.CBORTag(18, [b"\xa0", {33: [b"x"]}, b"{}", b"x"]))),
            "cannot be read",
        ),
    ],
)
def test_what_cannot_be_read_says_why(layer: tuple[str, dict[str, str], bytes], reason: str) -> None:
    with pytest.raises(SignatureInvalid, match=reason):
        read_signature(*layer)


def test_what_is_no_signature_is_none() -> None:
    assert read_signature("application/vnd.oci.image.layer.v1.tar", {}, b"") is None


_SIGNER = make_signer()
_SAMPLES = {
    SIMPLE_SIGNING: cosign(_SIGNER.key)[2],
    DSSE: json.dumps(dsse(_SIGNER.key, statement(DIGEST))).encode(),
    BUNDLE: bundled(_SIGNER.key, chain=_SIGNER.chain)[2],
    "application/jose+json": Notation(_SIGNER, DIGEST).jws(),
    "application/cose": Notation(_SIGNER, DIGEST).cose(),
}
_NOTES = cosign(_SIGNER.key)[1]
_EVERYBODY = Judge((key_of(_SIGNER.key), authority(_SIGNER.root_pem)))


@pytest.mark.parametrize("media_type", sorted(_SAMPLES))
@given(data=st.data())
def test_whatever_is_changed_proves_nothing_else(media_type: str, data: st.DataObject) -> None:
    sample = bytearray(_SAMPLES[media_type])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(sample) - 1))
        sample[place] = data.draw(st.integers(0, 255))
    try:
        signature = read_signature(media_type, _NOTES, bytes(sample))
    except SignatureInvalid:
        return
    assert signature is not None
    if Judge.judge(_EVERYBODY, signature, DIGEST, NOW).proofs:  # then it says what it said before
        assert signature.subjects == {DIGEST}
    assert not Judge.judge(_EVERYBODY, signature, OTHER, NOW).proofs


@given(content=st.binary(max_size=200))
def test_no_bytes_do_harm(content: bytes) -> None:
    for media_type in _SAMPLES:
        with pytest.raises(SignatureInvalid):
            read_signature(media_type, _NOTES, content)
