"""
Private keys: made, signed with, and as bytes for the keystore. No I/O.

As bytes they are what notary v1 keeps (section 5.2), so that a keystore can move: ECDSA in DER (SEC 1), Ed25519
the public half (32 bytes), the seed (32) and the public half again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dtr.signer.errors import AlgorithmUnsupported, RequestRefused, SignerFailed
from dtr.signer.signer import ALGORITHMS
from dtr.tuf import PublicKey, Signature, TufError, canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_TYPES = {"timestamp": "Timestamp", "snapshot": "Snapshot"}
"""What a key of a role may sign, by its `_type`. Keys of all other roles are the clients'."""
_LONGEST_GUN = 255
_COORDINATE_BYTES = 32
_HALF_BYTES = 32


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key, of which nothing secret is shown."""

    public: PublicKey
    _key: EllipticCurvePrivateKey | Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, algorithm: str) -> PrivateKey:
        """A new key. Raises AlgorithmUnsupported."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        if algorithm == "ecdsa":
            return cls._of(ec.generate_private_key(ec.SECP256R1()))
        if algorithm == "ed25519":
            return cls._of(ed25519.Ed25519PrivateKey.generate())
        raise AlgorithmUnsupported(algorithm)

    @classmethod
    def load(cls, algorithm: str, content: bytes) -> PrivateKey:
        """The key of what `dump` gave. Raises SignerFailed."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.hazmat.primitives.serialization import load_der_private_key

        try:
            if algorithm == "ed25519" and len(content) == 3 * _HALF_BYTES:
                seed = content[_HALF_BYTES : 2 * _HALF_BYTES]
                return cls._of(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
            if algorithm == "ecdsa":
                key = load_der_private_key(content, None)
                if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
                    return cls._of(key)
        except (ValueError, TypeError):  # what the library says may tell of the key
            pass
        raise SignerFailed(f"what is kept is no private key of the algorithm {algorithm}")

    @classmethod
    def _of(cls, key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        half = key.public_key()
        if isinstance(key, EllipticCurvePrivateKey):
            public = PublicKey("ecdsa", half.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        else:
            public = PublicKey("ed25519", half.public_bytes(Encoding.Raw, PublicFormat.Raw))
        return cls(public, key)

    def dump(self) -> bytes:
        """The key as bytes: a secret."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if isinstance(self._key, EllipticCurvePrivateKey):
            return self._key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return self.public.public + self._key.private_bytes_raw() + self.public.public

    def sign(self, content: bytes) -> Signature:
        """A signature of `content` (section 3.4): ECDSA over its SHA-256 as r || s, Ed25519 as it is."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self._key.sign(content, ec.ECDSA(SHA256())))
            made = r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)
            return Signature(self.public.id, "ecdsa", made)
        return Signature(self.public.id, "eddsa", self._key.sign(content))


def check_request(gun: str, role: str, algorithm: str) -> None:
    """Whether the signer makes such a key. Raises AlgorithmUnsupported, RequestRefused."""
    if algorithm not in ALGORITHMS:
        raise AlgorithmUnsupported(algorithm)
    if role not in _TYPES:
        raise RequestRefused(f"the signer makes keys of timestamps and snapshots, not of {role[:64]!r}")
    if not 0 < len(gun.encode()) <= _LONGEST_GUN or not gun.isprintable():
        raise RequestRefused("a collection has a name of at most 255 bytes")


def check_content(role: str, content: bytes) -> None:
    """
    Whether a key of this role may sign this: the canonical JSON of a Timestamp or a Snapshot.

    Whoever reaches the signer cannot have anything else signed, such as a root or targets. Raises
    RequestRefused.
    """
    try:
        value = canonical.decode(content)
        is_canonical = canonical.encode(value) == content
    except TufError:
        is_canonical = False
    if not is_canonical:
        raise RequestRefused("what is to be signed is not in canonical JSON")
    if not isinstance(value, dict) or value.get("_type") != _TYPES.get(role):
        raise RequestRefused(f"what is to be signed is no {_TYPES.get(role)}: the key is one for {role}")
