"""
Certificates of keys: RFC 5280, and what notary v1 asks of them.

A root key is a self-signed certificate of the collection's name (its GUN): a leaf, which is not a CA, first, and
intermediates, if any, behind it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dtr.tuf.errors import CertificateInvalid

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from dtr.tuf.times import Nanoseconds

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_MOST_CERTIFICATES = 16
_SMALLEST_RSA = 2048
_DAY = 24 * 60 * 60 * 10**9
_WEAK_HASHES = frozenset({"md2", "md5", "sha1"})


def read_bundle(content: bytes) -> list[Certificate]:
    """The certificates of a PEM text, which holds nothing else. Raises CertificateInvalid."""
    from cryptography.x509 import load_pem_x509_certificates

    labels = _BLOCK.findall(content)
    if not labels or set(labels) != {b"CERTIFICATE"} or len(labels) > _MOST_CERTIFICATES:
        raise CertificateInvalid(f"not a PEM text of 1 to {_MOST_CERTIFICATES} certificates")
    try:
        return load_pem_x509_certificates(content)
    except ValueError:
        raise CertificateInvalid("a certificate cannot be read") from None


def root_certificate(content: bytes) -> Certificate:
    """
    The leaf of a root key: the first of the bundle, and the only one that is not a CA.

    Raises CertificateInvalid.
    """
    found = read_bundle(content)
    leaf, *others = found
    if _is_ca(leaf) or not all(_is_ca(one) for one in others):
        raise CertificateInvalid("the bundle does not begin with its only leaf certificate")
    return leaf


def check_root_certificate(certificate: Certificate, gun: str) -> None:
    """
    Whether a leaf may vouch for the collection: named after it, and strong. Raises CertificateInvalid.

    A common name that ends in ``*`` is for all collections whose names begin with what is before it.
    """
    name = common_name(certificate)
    wild = name.endswith("*")
    if not (gun.startswith(name.rstrip("*")) if wild else name == gun):
        raise CertificateInvalid("the certificate is for another collection")
    check_strength(certificate)


def check_validity(certificate: Certificate, now: Nanoseconds) -> None:
    """Whether the certificate is valid; it may be so only since tomorrow. Raises CertificateInvalid."""
    from dtr.tuf.times import nanoseconds

    try:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError:
        raise CertificateInvalid("the validity of a certificate cannot be read") from None
    if not nanoseconds(begin) - _DAY <= now <= nanoseconds(end):
        raise CertificateInvalid("the certificate is expired, or not yet valid")


def check_strength(certificate: Certificate) -> None:
    """No SHA-1 or older, no RSA keys below 2,048 bits. Raises CertificateInvalid."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        algorithm = certificate.signature_hash_algorithm
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateInvalid("the certificate's key or signature is of an unknown kind") from None
    if algorithm is not None and algorithm.name in _WEAK_HASHES:
        raise CertificateInvalid(f"the certificate is signed with {algorithm.name}")
    if isinstance(key, RSAPublicKey) and key.key_size < _SMALLEST_RSA:
        raise CertificateInvalid(f"the certificate's RSA key is shorter than {_SMALLEST_RSA} bits")


def common_name(certificate: Certificate) -> str:
    """The last common name of the subject; empty if there is none. Raises CertificateInvalid."""
    from cryptography.x509.oid import NameOID

    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        raise CertificateInvalid("the subject of a certificate cannot be read") from None
    value = names[-1].value if names else ""
    return value if isinstance(value, str) else ""


def _is_ca(certificate: Certificate) -> bool:
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return False
    except ValueError:
        raise CertificateInvalid("the extensions of a certificate cannot be read") from None
