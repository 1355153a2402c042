"""
Keys and certificates: what is accepted, and whether a signature is one of theirs. No I/O.

A key decides with which algorithms it is used: nothing that a signature says of itself chooses another one. For
cosign and DSSE that is ECDSA with SHA-256 or the hash that belongs to the curve (RFC 5656, section 6.2.1), RSA
with PKCS #1 v1.5 and SHA-256, Ed25519 and Ed25519ph; for Notation the one algorithm that the Notary Project's
signature specification has for a key ("Signature Algorithm Requirements").

A chain of certificates is ordered, the signer's first. It is trusted when one in it, or what issued its last, is a
certificate that was registered. There is no timestamping authority here, and a signer's clock is the signer's
word: so all certificates of the chain have to be valid at the moment in which it is asked, and a signature counts
no longer than they do. Revocation lists are not asked for: whoever revokes takes the identity away.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from dtr.signatures.errors import IdentityInvalid, SignatureInvalid

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Sequence

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
PublicKey: TypeAlias = "ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey"

_SMALLEST_RSA, _LARGEST_RSA = 2048, 8192
_LONGEST_PEM = 64 * 1024
_LONGEST_CHAIN = 10
"""Certificates of a signature, and of an identity."""
_CURVES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""The hash that belongs to a curve."""
_NOTATION_RSA = {
    2048: ("PS256", hashes.SHA256()),
    3072: ("PS384", hashes.SHA384()),
    4096: ("PS512", hashes.SHA512()),
}
_NOTATION_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_UNDERSTOOD = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }
)
"""Those that may be critical: a certificate with another critical one is of no use (RFC 5280, section 4.2)."""
_WEAK = (hashes.MD5, hashes.SHA1)
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
# What others put into certificates is no news for the operator.
warnings.filterwarnings("ignore", category=CryptographyDeprecationWarning, module="dtr.signatures")
warnings.filterwarnings("ignore", "Attribute's length", UserWarning, "dtr.signatures")


class Trusted(Struct, frozen=True):
    """A chain that ends at a registered certificate; `until` in milliseconds since 1970 UTC."""

    leaf: x509.Certificate
    until: int


# --- keys -----------------------------------------------------------------------------------------------------


def read_key(pem: str) -> PublicKey:
    """A public key given as PEM. Raises IdentityInvalid."""
    try:
        return _accepted(load_pem_public_key(_ascii(pem)))
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityInvalid("not a public key in PEM") from None
    except SignatureInvalid as error:
        raise IdentityInvalid(str(error)) from None


def normal_pem(key: PublicKey) -> str:
    """A key as PEM in its usual form."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def fingerprint(key: PublicKey) -> str:
    """The SHA-256 of a key's DER form, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def is_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (of ECDSA in DER) is the key's over `message`, as cosign and DSSE sign."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return any(
            _holds(partial(key.verify, signature, message, ec.ECDSA(_CURVES[curve])))
            for curve in {"secp256r1", key.curve.name}
        )
    if isinstance(key, rsa.RSAPublicKey):
        return _holds(partial(key.verify, signature, message, padding.PKCS1v15(), hashes.SHA256()))
    return _holds(partial(key.verify, signature, message)) or _is_signed_ph(key, signature, message)


def _is_signed_ph(key: ed25519.Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Ed25519ph (RFC 8032, section 5.1), by which newer ones of cosign sign; cryptography has it not."""
    from nacl import bindings
    from nacl.exceptions import CryptoError

    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, message)
    try:
        return bool(bindings.crypto_sign_ed25519ph_final_verify(state, signature, key.public_bytes_raw()))
    except (CryptoError, TypeError, ValueError):
        return False


def is_signed_by_notation(key: PublicKey, algorithm: str, signature: bytes, message: bytes) -> bool:
    """
    Whether `signature` (of ECDSA r and s, as JWS and COSE write them) is the key's over `message`.

    `algorithm` is what the envelope says; raises SignatureInvalid when the key is not for that.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        _require_algorithm(_NOTATION_CURVES[key.curve.name], algorithm)
        size = (key.curve.key_size + 7) // 8
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        if not r or not s:
            return False
        hash_ = _CURVES[key.curve.name]
        return _holds(partial(key.verify, encode_dss_signature(r, s), message, ec.ECDSA(hash_)))
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _NOTATION_RSA:
        name, hash_ = _NOTATION_RSA[key.key_size]
        _require_algorithm(name, algorithm)
        salted = padding.PSS(mgf=padding.MGF1(hash_), salt_length=hash_.digest_size)
        return _holds(partial(key.verify, signature, message, salted, hash_))
    raise SignatureInvalid("a key of this kind does not sign so")


def _require_algorithm(wanted: str, given: str) -> None:
    if wanted != given:
        raise SignatureInvalid(f"its algorithm is {given[:20]!r}, its key is for {wanted}")


def _holds(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True


def _accepted(key: object) -> PublicKey:
    """Raises SignatureInvalid for kinds and sizes that are not."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise SignatureInvalid("the curve of a key is P-256, P-384 or P-521")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not _SMALLEST_RSA <= key.key_size <= _LARGEST_RSA:
            raise SignatureInvalid(f"an RSA key has {_SMALLEST_RSA} to {_LARGEST_RSA} bits")
        return key
    raise SignatureInvalid("a key is an ECDSA, RSA or Ed25519 key")


def _ascii(pem: str) -> bytes:
    if len(pem) > _LONGEST_PEM:
        raise IdentityInvalid(f"PEM has at most {_LONGEST_PEM} characters")
    try:
        return pem.encode("ascii")
    except UnicodeEncodeError:
        raise IdentityInvalid("PEM is ASCII") from None


# --- certificates ---------------------------------------------------------------------------------------------


def read_certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """Certificates to be trusted, given as PEM: of authorities, or of a signer itself. Raises IdentityInvalid."""
    found = _certificates(pem)
    if len(found) > _LONGEST_CHAIN:
        raise IdentityInvalid(f"an identity has at most {_LONGEST_CHAIN} certificates")
    try:
        for one in read_chain(one.public_bytes(Encoding.DER) for one in found):
            key_of(one)
    except SignatureInvalid as error:
        raise IdentityInvalid(str(error)) from None
    return found


def _certificates(pem: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(_ascii(pem)))
    except (ValueError, x509.InvalidVersion):
        raise IdentityInvalid("not certificates in PEM") from None


def read_chain(ders: Iterable[bytes]) -> tuple[x509.Certificate, ...]:
    """The certificates of a signature, the signer's first. Raises SignatureInvalid."""
    chain = tuple(ders)
    if not 0 < len(chain) <= _LONGEST_CHAIN:
        raise SignatureInvalid(f"it has 1 to {_LONGEST_CHAIN} certificates")
    try:
        found = tuple(x509.load_der_x509_certificate(one) for one in chain)
        for one in found:
            _read_whole(one)
    except _UNREADABLE:
        raise SignatureInvalid("a certificate of it cannot be read") from None
    return found


def _read_whole(certificate: x509.Certificate) -> None:
    """Read what the library would read when it is asked for: whoever asks later needs not expect that it fails."""
    certificate.public_key()
    _ = (
        certificate.issuer,
        certificate.subject,
        certificate.extensions,
        certificate.signature_hash_algorithm,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def read_pem_chain(pem: str) -> tuple[x509.Certificate, ...]:
    """The same for PEM. Raises SignatureInvalid."""
    try:
        found = _certificates(pem)
    except IdentityInvalid:
        raise SignatureInvalid("a certificate of it cannot be read") from None
    return read_chain(one.public_bytes(Encoding.DER) for one in found)


def key_of(certificate: x509.Certificate) -> PublicKey:
    """The key of a certificate. Raises SignatureInvalid for what is not accepted."""
    try:
        return _accepted(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureInvalid("the key of a certificate cannot be read") from None


def name_of(certificate: x509.Certificate) -> str:
    """Whom a certificate is of, as RFC 4514 writes it; without a subject, by its alternative names."""
    try:
        text = certificate.subject.rfc4514_string()
        names = None if text else _extension(certificate, x509.SubjectAlternativeName)
    except (ValueError, SignatureInvalid):
        return ""
    return text or ", ".join(str(one.value) for one in names or ())


def read_subject(text: str) -> x509.Name:
    """A subject as RFC 4514 writes it. Raises IdentityInvalid."""
    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError:
        raise IdentityInvalid("subject is a name like CN=release,O=Acme (RFC 4514)") from None


def is_subject(certificate: x509.Certificate, wanted: x509.Name) -> bool:
    """Whether a certificate is of whoever is wanted: it has all these attributes (others may be there, too)."""
    has = {(one.oid, one.value) for one in certificate.subject}
    return all((one.oid, one.value) in has for one in wanted)


def trust(
    chain: Sequence[x509.Certificate], registered: Sequence[x509.Certificate], moment: dt.datetime
) -> Trusted | None:
    """
    The chain as far as a registered certificate; None: it does not come to one.

    Raises SignatureInvalid for a chain that does, but is not good for a signature at `moment`.
    """
    path = _path(chain, registered)
    if path is None:
        return None
    _check_signer(path[0])
    for above, (one, issuer) in enumerate(pairwise(path)):
        _check_authority(issuer, above)
        _check_issued(one, issuer)
    for one in path:
        _check_one(one, moment)
    until = min(one.not_valid_after_utc for one in path)
    return Trusted(path[0], int(until.timestamp() * 1000))


def _path(
    chain: Sequence[x509.Certificate], registered: Sequence[x509.Certificate]
) -> tuple[x509.Certificate, ...] | None:
    for number, one in enumerate(chain):
        if one in registered:
            return tuple(chain[: number + 1])
    last = chain[-1]
    for authority in registered:
        if authority.subject == last.issuer and _is_issued(last, authority):
            return (*chain, authority)
    return None


def _check_signer(certificate: x509.Certificate) -> None:
    """Notary Project, "Certificate Requirements", codesigning leaf certificates."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise SignatureInvalid("the signer's certificate is an authority's")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise SignatureInvalid("the signer's certificate is not for signatures")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise SignatureInvalid("the signer's certificate is not for signing code")


def _check_authority(certificate: x509.Certificate, below: int) -> None:
    """That it may issue certificates, with `below` authorities between it and the signer (RFC 5280, 6.1.4)."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise SignatureInvalid("a certificate is issued by one that is no authority's")
    if constraints.path_length is not None and constraints.path_length < below:
        raise SignatureInvalid("an authority issued more authorities than it may")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise SignatureInvalid("an authority's certificate is not for issuing certificates")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    if isinstance(certificate.signature_hash_algorithm, _WEAK):
        raise SignatureInvalid("a certificate is signed with MD5 or SHA-1")
    if not _is_issued(certificate, issuer):
        raise SignatureInvalid("a certificate is not issued by the next one")


def _is_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_one(certificate: x509.Certificate, moment: dt.datetime) -> None:
    key_of(certificate)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise SignatureInvalid(f"the certificate of {name_of(certificate)[:200]} is not valid now")
    for extension in _extensions(certificate):
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise SignatureInvalid(f"a certificate has the critical extension {extension.oid.dotted_string}")


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm):
        raise SignatureInvalid("the extensions of a certificate cannot be read") from None


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return _extensions(certificate).get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
