"""A sigstore of our own: an authority of certificates for minutes, a log of these, and a log of signatures."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.signing import BUNDLE, dsse, make_name

_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_BEFORE = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCTS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Fulcio:
    """The authority and both logs."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    certificates_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    signatures_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    moment: dt.datetime = field(
        default_factory=lambda: dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(days=7)
    )
    """When somebody signs: the certificates of then are over now."""

    def __post_init__(self) -> None:
        self.root = (
            self._builder(make_name("fulcio"), self.root_key.public_key(), dt.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.root_key.public_key()), critical=False)
            .sign(self.root_key, hashes.SHA256())
        )

    @property
    def trust_root(self) -> str:
        """What operators get of it: `trusted_root.json`."""
        since = {"start": (self.moment - dt.timedelta(days=1)).isoformat().replace("+00:00", "Z")}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            return {
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(der(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": b64(hashlib.sha256(der(key)).digest())},
            }

        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.signatures_key)],
                "ctlogs": [log(self.certificates_key)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "Acme", "commonName": "fulcio"},
                        "uri": "https://fulcio.example",
                        "certChain": {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]},
                        "validFor": since,
                    }
                ],
                "timestampAuthorities": [],
            }
        )

    def bundle(self, statement: bytes, *, email: str, issuer: str) -> bytes:
        """What somebody signs who logged in there."""
        key = new_key()
        certificate = self._certify(key, email, issuer)
        envelope = dsse(key, statement)
        entry = self._log(envelope, statement, certificate)
        return json.dumps(
            {
                "mediaType": BUNDLE,
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                    "tlogEntries": [entry],
                },
                "dsseEnvelope": envelope,
            }
        ).encode()

    def _builder(self, subject: x509.Name, key: Any, length: dt.timedelta) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(make_name("fulcio"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.moment - dt.timedelta(minutes=1))
            .not_valid_after(self.moment + length)
        )

    def _certify(self, key: ec.EllipticCurvePrivateKey, email: str, issuer: str) -> x509.Certificate:
        utf8 = b"\x0c" + bytes([len(issuer)]) + issuer.encode()
        builder = (
            self._builder(x509.Name([]), key.public_key(), dt.timedelta(minutes=9))
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root_key.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_BEFORE, issuer.encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, utf8), critical=False)
        )
        before = builder.sign(self.root_key, hashes.SHA256()).tbs_certificate_bytes
        return builder.add_extension(
            x509.UnrecognizedExtension(_SCTS, self._timestamp(before)), critical=False
        ).sign(self.root_key, hashes.SHA256())

    def _timestamp(self, certificate: bytes) -> bytes:
        """RFC 6962, sections 3.2 and 3.3: the log promises to have a certificate."""
        moment = int(self.moment.timestamp() * 1000)
        issuer = hashlib.sha256(der(self.root_key)).digest()
        entry = issuer + len(certificate).to_bytes(3) + certificate
        signature = sign(self.certificates_key, struct.pack("!BBQH", 0, 0, moment, 1) + entry + b"\0\0")
        log = hashlib.sha256(der(self.certificates_key)).digest()
        one = b"\0" + log + moment.to_bytes(8) + b"\0\0" + b"\x04\x03" + len(signature).to_bytes(2) + signature
        inner = len(one).to_bytes(2) + one
        listed = len(inner).to_bytes(2) + inner
        return (
            b"\x04\x81" + bytes([len(listed)]) + listed
            if len(listed) > 127
            else b"\x04" + bytes([len(listed)]) + listed
        )

    def _log(self, envelope: dict[str, Any], payload: bytes, certificate: x509.Certificate) -> dict[str, Any]:
        """An entry, the only one of its log, with the proof that it is there."""
        body = _canonical(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(b"any").hexdigest()},
                    "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "signatures": [
                        {
                            "signature": one["sig"],
                            "verifier": b64(certificate.public_bytes(Encoding.PEM)),
                        }
                        for one in envelope["signatures"]
                    ],
                },
            }
        )
        log, moment = hashlib.sha256(der(self.signatures_key)).digest(), int(self.moment.timestamp())
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"log.example\n1\n{b64(root)}\n"
        signature = b64(log[:4] + sign(self.signatures_key, note.encode()))
        promise = _canonical({"body": b64(body), "integratedTime": moment, "logID": log.hex(), "logIndex": 0})
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(moment),
            "inclusionPromise": {"signedEntryTimestamp": b64(sign(self.signatures_key, promise))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.example {signature}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def _canonical(document: dict[str, Any]) -> bytes:
    """RFC 8785, for what is in it here."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )
