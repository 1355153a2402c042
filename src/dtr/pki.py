"""
The certificates that dtr makes itself: an authority of its own, and a server certificate by it.

Both are made once and kept in a directory; the server certificate is renewed when it gets old or a name is
missing. A start that needs neither loads no cryptography.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import ipaddress
import json
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 397  # browsers refuse more
_RENEW_DAYS = 30


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM: the certificate with its chain, its key, and the authority to trust (None: a public one)."""

    chain: Path
    key: Path
    authority: Path | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a certificate; `serious`: clients will refuse it."""

    serious: bool
    text: str


def ensure_certificate(directory: Path, names: Iterable[str]) -> Certificate:
    """
    The server certificate in `directory`, good for this host and for `names`; made or renewed when necessary.

    Safe when several processes do it at once.
    """
    wanted = sorted({"localhost", "127.0.0.1", "::1", *_own_names(), *names})
    made = Certificate(directory / "server.pem", directory / "server-key.pem", directory / "ca.pem")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory):
        if not _is_good(directory, wanted):
            authority, authority_key = _authority(directory)
            _issue(directory, wanted, authority, authority_key)
    return made


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """What a server needs for TLS 1.2 and later. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate.chain, certificate.key)
    return context


def examine(certificate: Certificate, names: Iterable[str], now: dt.datetime) -> list[Finding]:
    """What clients that use `names` would not like about a certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        parsed = x509.load_pem_x509_certificates(certificate.chain.read_bytes())[0]
        key = load_pem_private_key(certificate.key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        return [Finding(True, f"the certificate or its key cannot be read: {error}")]
    found = []
    if parsed.public_key() != key.public_key():
        found.append(Finding(True, f"{certificate.key} is not the key of {certificate.chain}"))
    if now < parsed.not_valid_before_utc:
        found.append(Finding(True, f"the certificate is not valid before {parsed.not_valid_before_utc:%Y-%m-%d}"))
    if now > parsed.not_valid_after_utc:
        found.append(Finding(True, f"the certificate expired on {parsed.not_valid_after_utc:%Y-%m-%d}"))
    elif (left := (parsed.not_valid_after_utc - now).days) < _RENEW_DAYS:
        found.append(Finding(False, f"the certificate expires in {left} days"))
    known = _names_in(parsed)
    found += [
        Finding(True, f"the certificate is not valid for {name}")
        for name in names
        if not any(_matches(name, one) for one in known)
    ]
    return found


def _own_names() -> set[str]:
    own = socket.gethostname().lower()
    return {own} if own.replace("-", "").replace(".", "").isalnum() else set()


def _matches(name: str, pattern: str) -> bool:
    """RFC 9525: a star stands for one whole label, the first."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return name.lower() == pattern.lower()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_good(directory: Path, wanted: Sequence[str]) -> bool:
    """Whether the note beside the certificate says that it is for these names and for long enough."""
    try:
        note = json.loads((directory / "server.json").read_text(encoding="utf-8"))
        until = dt.datetime.fromisoformat(note["until"])
        there = all((directory / name).exists() for name in ("server.pem", "server-key.pem", "ca.pem"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    left = until - dt.datetime.now(dt.UTC)
    return there and set(wanted) <= set(note["names"]) and left > dt.timedelta(days=_RENEW_DAYS)


def _authority(directory: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import NameOID

    certificate_file, key_file = directory / "ca.pem", directory / "ca-key.pem"
    if certificate_file.exists() and key_file.exists():
        loaded = load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(certificate_file.read_bytes()), loaded
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"dtr {socket.gethostname()} CA"[:64])])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, _pem_of_key(key), 0o600)
    _write(certificate_file, _pem(certificate), 0o644)
    return certificate, key


def _issue(
    directory: Path, names: Sequence[str], authority: x509.Certificate, authority_key: EllipticCurvePrivateKey
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(days=_SERVER_DAYS)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dtr")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    _write(directory / "server-key.pem", _pem_of_key(key), 0o600)
    _write(directory / "server.pem", _pem(certificate) + _pem(authority), 0o644)
    note = json.dumps({"names": list(names), "until": until.isoformat()})
    _write(directory / "server.json", note.encode(), 0o644)


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_in(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _pem_of_key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    temporary = file.with_name(f"{file.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    temporary.replace(file)
