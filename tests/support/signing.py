"""Signatures as cosign and Notation make them, with keys and certificates of our own, ready to be pushed."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import dataclass, replace
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.images import EMPTY, OCI_CONFIG, OCI_MANIFEST, Image, descriptor

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
NOTATION = "application/vnd.cncf.notary.signature"
NOTATION_PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
SIGN = "https://sigstore.dev/cosign/sign/v1"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
DAY = dt.timedelta(days=1)

CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_RSA_KEYS: dict[int, rsa.RSAPrivateKey] = {}


def make_key(kind: str = "P-256") -> Any:
    """A private key: P-256, P-384, P-521, ed25519, or rsa and its bits; RSA keys are made once."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        bits = int(kind[3:])
        if bits not in _RSA_KEYS:
            _RSA_KEYS[bits] = rsa.generate_private_key(65537, bits)
        return _RSA_KEYS[bits]
    return ec.generate_private_key(CURVES[kind])


def public_pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def sign(key: Any, message: bytes, hash_: hashes.HashAlgorithm | None = None) -> bytes:
    """As cosign does."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(message, ec.ECDSA(hash_ or hashes.SHA256()))


# --- certificates ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    """A key, and the certificates from it to an authority's."""

    key: Any
    chain: tuple[x509.Certificate, ...]

    @property
    def root_pem(self) -> str:
        return pem(self.chain[-1])

    @property
    def chain_pem(self) -> str:
        return "".join(map(pem, self.chain))


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def make_name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "NZ"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Otago"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def make_certificate(
    key: Any,
    name: x509.Name,
    issuer_key: Any,
    issuer: x509.Name,
    *,
    authority: bool = False,
    path_length: int | None = None,
    begins: dt.datetime | None = None,
    ends: dt.datetime | None = None,
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    signs: bool = True,
    more: tuple[x509.ExtensionType, ...] = (),
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins or now - DAY)
        .not_valid_after(ends or now + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signs and not authority,
                content_commitment=False,
                key_encipherment=not signs,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if purposes and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=True)
    hash_ = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, hash_)


def make_signer(kind: str = "P-256", name: str = "release", *, root: Signer | None = None, **leaf: Any) -> Signer:
    """A signer with a certificate, which an authority issued: a new one, or `root` (with itself as its chain)."""
    authority = root or make_authority()
    key = make_key(kind)
    certificate = make_certificate(key, make_name(name), authority.key, authority.chain[0].subject, **leaf)
    return Signer(key, (certificate, *authority.chain))


def make_authority(name: str = "Acme root", *, below: Signer | None = None, **more: Any) -> Signer:
    """An authority: its own root, or issued by another one."""
    key = make_key()
    issuer_key, issuer = (below.key, below.chain[0].subject) if below else (key, make_name(name))
    certificate = make_certificate(key, make_name(name), issuer_key, issuer, authority=True, **more)
    return Signer(key, (certificate, *(below.chain if below else ())))


# --- cosign ---------------------------------------------------------------------------------------------------


def simple_payload(digest: str, **more: Any) -> bytes:
    document = {
        "critical": {
            "identity": {"docker-reference": "localhost/acme/app"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    return json.dumps({**document, **more}).encode()


def cosign_layer(key: Any, digest: str, **annotations: str) -> tuple[bytes, dict[str, str]]:
    """A payload, and the annotations that it has in the manifest."""
    payload = simple_payload(digest)
    signature = base64.b64encode(sign(key, payload)).decode()
    return payload, {"dev.cosignproject.cosign/signature": signature, **annotations}


def cosign_signature(*layers: tuple[bytes, dict[str, str]], subject: Image | None = None) -> Image:
    """What cosign pushes with the tag `sha256-….sig`, or with a subject as a referrer."""
    more = {"artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json"} if subject else {}
    return artifact(
        [(SIMPLE_SIGNING, *one) for one in layers], config_type=OCI_CONFIG, subject=subject, **more
    )  # fmt: skip


def signature_tag(digest: str, kind: str = "sig") -> str:
    return f"{digest.replace(':', '-')}.{kind}"


def statement(digest: str, predicate_type: str = SIGN, predicate: Any = None) -> bytes:
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}, "annotations": {}}],
            "predicateType": predicate_type,
            "predicate": predicate or {},
        }
    ).encode()


def dsse(key: Any, payload: bytes, payload_type: str = "application/vnd.in-toto+json") -> dict[str, Any]:
    message = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"sig": base64.b64encode(sign(key, message)).decode()}],
    }


def bundle(key: Any, payload: bytes, *, chain: tuple[x509.Certificate, ...] = ()) -> bytes:
    material: dict[str, Any] = {"publicKey": {"hint": "a hint"}}
    if chain:
        material = {
            "x509CertificateChain": {
                "certificates": [
                    {"rawBytes": base64.b64encode(one.public_bytes(Encoding.DER)).decode()} for one in chain
                ]
            }
        }
    return json.dumps(
        {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": dsse(key, payload)}
    ).encode()


def bundle_signature(
    key: Any, subject: Image, *, digest: str | None = None, predicate_type: str = SIGN, **more: Any
) -> Image:
    """What cosign pushes since its version 3."""
    payload = statement(digest or subject.digest, predicate_type)
    return artifact(
        [(BUNDLE, bundle(key, payload, **more), {})],
        subject=subject,
        artifactType=BUNDLE,
        annotations={
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": predicate_type,
        },
    )


# --- Notation -------------------------------------------------------------------------------------------------


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def notation_algorithm(key: Any) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return {2048: "PS256", 3072: "PS384", 4096: "PS512"}[key.key_size]
    return {256: "ES256", 384: "ES384", 521: "ES512"}[key.curve.key_size]


def notation_sign(key: Any, message: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        hash_ = {2048: hashes.SHA256(), 3072: hashes.SHA384(), 4096: hashes.SHA512()}[key.key_size]
        return key.sign(message, padding.PSS(mgf=padding.MGF1(hash_), salt_length=hash_.digest_size), hash_)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(_HASHES[key.curve.key_size])))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size) + s.to_bytes(size)


@dataclass(frozen=True)
class Notation:
    """An envelope to be made; what is not as it has to be is put in by `replace`."""

    signer: Signer
    digest: str
    algorithm: str = ""
    scheme: str = "notary.x509"
    content_type: str = NOTATION_PAYLOAD
    expiry: dt.datetime | None = None
    critical: tuple[str, ...] = ()
    chain: tuple[x509.Certificate, ...] | None = None

    @property
    def payload(self) -> bytes:
        return json.dumps(
            {"targetArtifact": {"mediaType": OCI_MANIFEST, "digest": self.digest, "size": 1}}
        ).encode()

    @property
    def _critical(self) -> list[str]:
        expiry = ["io.cncf.notary.expiry"] if self.expiry else []
        return ["io.cncf.notary.signingScheme", *expiry, *self.critical]

    @property
    def _ders(self) -> list[bytes]:
        chain = self.signer.chain if self.chain is None else self.chain
        return [one.public_bytes(Encoding.DER) for one in chain]

    def jws(self) -> bytes:
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        header = {
            "alg": self.algorithm or notation_algorithm(self.signer.key),
            "cty": self.content_type,
            "crit": self._critical,
            "io.cncf.notary.signingScheme": self.scheme,
            "io.cncf.notary.signingTime": now.isoformat(),
        }
        if self.expiry:
            header["io.cncf.notary.expiry"] = self.expiry.isoformat()
        protected, payload = b64url(json.dumps(header).encode()), b64url(self.payload)
        signature = notation_sign(self.signer.key, f"{protected}.{payload}".encode())
        return json.dumps(
            {
                "payload": payload,
                "protected": protected,
                "header": {"x5c": [base64.b64encode(one).decode() for one in self._ders]},
                "signature": b64url(signature),
            }
        ).encode()

    def cose(self) -> bytes:
        numbers = {"ES256": -7, "ES384": -35, "ES512": -36, "PS256": -37, "PS384": -38, "PS512": -39}
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        header: dict[Any, Any] = {
            1: numbers[self.algorithm or notation_algorithm(self.signer.key)],
            2: self._critical,
            3: self.content_type,
            "io.cncf.notary.signingScheme": self.scheme,
            "io.cncf.notary.signingTime": cbor2.CBORTag(1, int(now.timestamp())),
        }
        if self.expiry:
            header["io.cncf.notary.expiry"] = cbor2.CBORTag(1, int(self.expiry.timestamp()))
        protected = cbor2.dumps(header)
        signature = notation_sign(self.signer.key, cbor2.dumps(["Signature1", protected, b"", self.payload]))
        return cbor2.dumps(cbor2.CBORTag(18, [protected, {33: self._ders}, self.payload, signature]))

    def but(self, **changes: Any) -> Notation:
        return replace(self, **changes)


def notation_signature(envelope: bytes, subject: Image) -> Image:
    """What Notation pushes."""
    media_type = "application/jose+json" if envelope.startswith(b"{") else "application/cose"
    return artifact([(media_type, envelope, {})], config_type=NOTATION, subject=subject)


def artifact(
    layers: list[tuple[str, bytes, dict[str, str]]],
    *,
    config_type: str = EMPTY_TYPE,
    subject: Image | None = None,
    **more: Any,
) -> Image:
    """A manifest over layers with annotations; `more` goes into it."""
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config_type, EMPTY),
        "layers": [
            descriptor(media_type, content, annotations=notes) if notes else descriptor(media_type, content)
            for media_type, content, notes in layers
        ],
        **more,
    }
    if subject is not None:
        manifest["subject"] = subject.descriptor
    return Image(json.dumps(manifest).encode(), OCI_MANIFEST, (EMPTY, *(content for _, content, _ in layers)))
