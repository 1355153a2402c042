"""
Public keys of collections: their ids, and the signatures that they verify.

A key is ``{"keytype": T, "keyval": {"private": null, "public": base64}}``, and its id the SHA-256 of the canonical
JSON of exactly that, `private` included. What is signed is hashed with SHA-256, but for Ed25519, which takes it as
it is.

| key type              | public                                      | methods            |
|-----------------------|---------------------------------------------|--------------------|
| ecdsa, ecdsa-x509     | DER (SubjectPublicKeyInfo), or certificates | ecdsa              |
| rsa, rsa-x509         | the same, of 2,048 bits or more             | rsapss, rsapkcs1v15 |
| ed25519               | 32 bytes                                    | eddsa              |

Keys of other types are kept, and verify nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from dtr.tuf import canonical
from dtr.tuf.certificates import check_strength, read_bundle
from dtr.tuf.errors import CertificateInvalid, MetadataInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

ECDSA, ECDSA_X509, RSA, RSA_X509, ED25519 = "ecdsa", "ecdsa-x509", "rsa", "rsa-x509", "ed25519"
_BARE_TYPES = {ECDSA_X509: ECDSA, RSA_X509: RSA}
_CURVES = frozenset({"secp224r1", "secp256r1", "secp384r1", "secp521r1"})
_SMALLEST_RSA = 2048
_PSS_SALT = 32


@dataclass(frozen=True)
class PublicKey:
    """A public key: `type` is its keytype, `public` the decoded bytes, whose form depends on the type."""

    type: str
    public: bytes

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """A key as metadata files hold it; a private half is not looked at. Raises MetadataInvalid."""
        inner = value.get("keyval") if isinstance(value, dict) else None
        kind = value.get("keytype") if isinstance(value, dict) else None
        public = inner.get("public") if isinstance(inner, dict) else None
        if not isinstance(kind, str) or not isinstance(public, str):
            raise MetadataInvalid("a key is not of the form {keytype, keyval: {public}}")
        try:
            return cls(kind, base64.b64decode(public, validate=True))
        except (binascii.Error, ValueError):
            raise MetadataInvalid("the public part of a key is not base64") from None

    def to_json(self) -> dict[str, Any]:
        """The key as metadata files hold it, and as clients that ask for a key are answered."""
        return {
            "keytype": self.type,
            "keyval": {"private": None, "public": base64.b64encode(self.public).decode()},
        }

    @cached_property
    def id(self) -> str:
        """The key's id: 64 hexadecimal digits."""
        return hashlib.sha256(canonical.encode(self.to_json())).hexdigest()

    @property
    def is_certificate(self) -> bool:
        """Whether `public` holds certificates."""
        return self.type in _BARE_TYPES

    @property
    def bare(self) -> PublicKey:
        """The key in the certificate, or itself: whose id clients file it under. Raises CertificateInvalid."""
        if not self.is_certificate:
            return self
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        loaded = self._loaded
        if loaded is None:
            raise CertificateInvalid("the certificate's key is not of the key's type")
        return PublicKey(
            _BARE_TYPES[self.type], loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )

    def verifies(self, method: str, signature: bytes, message: bytes) -> bool:
        """
        Whether this key made the signature by this method.

        False for whatever cannot be: unknown types and methods, keys that are broken or too weak.
        """
        loaded = self._loaded
        if loaded is None:
            return False
        kind = _BARE_TYPES.get(self.type, self.type)
        match kind, method.lower():
            case "ecdsa", "ecdsa":
                return _verify_ecdsa(loaded, signature, message)
            case "rsa", "rsapss":
                return _verify_rsa(loaded, signature, message, pss=True)
            case "rsa", "rsapkcs1v15":
                return _verify_rsa(loaded, signature, message, pss=False)
            case "ed25519", "eddsa":
                return _verify_ed25519(loaded, signature, message)
        return False

    @cached_property
    def _loaded(self) -> Any:
        """The key of `cryptography`, or None: it is broken, weak, or not what its type says."""
        from cryptography.exceptions import UnsupportedAlgorithm

        try:
            return self._load()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None

    def _load(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        if self.type == ED25519:
            return Ed25519PublicKey.from_public_bytes(self.public)
        key: PublicKeyTypes
        if self.is_certificate:
            certificate = read_bundle(self.public)[0]
            check_strength(certificate)
            key = certificate.public_key()
        elif self.type in {ECDSA, RSA}:
            key = load_der_public_key(self.public)
        else:
            return None
        if _BARE_TYPES.get(self.type, self.type) == ECDSA:
            return key if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES else None
        return key if isinstance(key, RSAPublicKey) and key.key_size >= _SMALLEST_RSA else None


def _verify_ecdsa(key: EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """The signature is r and s, each of the curve's whole size: not ASN.1."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA as SCHEME
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    size = (key.key_size + 7) // 8
    if len(signature) != 2 * size:
        return False
    r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    try:
        key.verify(encode_dss_signature(r, s), message, SCHEME(SHA256()))
    except InvalidSignature:
        return False
    return True


def _verify_rsa(key: RSAPublicKey, signature: bytes, message: bytes, *, pss: bool) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    padding = PSS(MGF1(SHA256()), _PSS_SALT) if pss else PKCS1v15()
    try:
        key.verify(signature, message, padding, SHA256())
    except InvalidSignature:
        return False
    return True


def _verify_ed25519(key: Any, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
