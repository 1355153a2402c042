"""
The certificates that dtr makes itself: an authority of its own, and certificates by it for servers and clients.

They are made once and kept in a directory; a certificate is renewed when it gets old or a name is missing. The
authority outlives every certificate that it signs: it is renewed in time, with the same name and key, so that
whoever trusts the old one trusts the new certificates as well until the old one ends. A start that needs none of
them loads no cryptography.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import ipaddress
import itertools
import json
import os
import socket
import ssl
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

T = TypeVar("T")
Use: TypeAlias = Literal["server", "client"]
"""What a certificate is good for, and the name of its files."""

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 397  # browsers refuse more
_RENEW_DAYS = 30
_DAMAGED = (
    "damaged ({}): restore it, or remove ca.pem and ca-key.pem for a new authority, which clients have to trust"
)


class Certificate(Struct, frozen=True):
    """Files in PEM: the certificate with its chain, its key, and the authority to trust (None: a public one)."""

    chain: Path
    key: Path
    authority: Path | None


class Finding(Struct, frozen=True):
    """Something about a certificate; `serious`: clients will refuse it."""

    serious: bool
    text: str


class Details(Struct, frozen=True):
    """What is in a certificate, for people to read."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    """What it is good for."""
    begins_at: dt.datetime
    ends_at: dt.datetime
    fingerprint: str
    """SHA-256 of its DER form, in hexadecimal digits."""
    key: str
    """The kind of its key: ``RSA 2048``, ``EC secp256r1``, ``Ed25519``."""


def describe(file: Path) -> list[Details]:
    """The certificates in a file, in its order. Raises OSError, ValueError."""
    from cryptography import x509

    return [_details(one) for one in x509.load_pem_x509_certificates(file.read_bytes())]


def _details(certificate: x509.Certificate) -> Details:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        kind = f"RSA {key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        kind = f"EC {key.curve.name}"
    else:
        kind = type(key).__name__.removesuffix("PublicKey")
    return Details(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=tuple(_names_in(certificate)),
        begins_at=certificate.not_valid_before_utc,
        ends_at=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        key=kind,
    )


def ensure_certificate(directory: Path, names: Iterable[str]) -> Certificate:
    """
    The server certificate in `directory`, good for this host and for `names`; made or renewed when necessary.

    Safe when several processes do it at once. Raises OSError.
    """
    return _ensure(directory, "server", ("localhost", "127.0.0.1", "::1", *_own_names(), *names))


def ensure_client_certificate(directory: Path) -> Certificate:
    """
    A client's certificate by the authority in `directory`; made or renewed when necessary.

    It is for those who are let in because of the authority alone: it names nobody. Raises OSError.
    """
    return _ensure(directory, "client", ())


def _ensure(directory: Path, use: Use, names: Iterable[str]) -> Certificate:
    wanted = sorted({_normal(name) for name in names})
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory):
        if not _is_good(directory, use, wanted):
            # Without the note, whatever a crash leaves behind is made anew.
            _note(directory, use).unlink(missing_ok=True)
            authority, authority_key = _authority(directory)
            _issue(directory, use, wanted, authority, authority_key)
    return Certificate(directory / f"{use}.pem", directory / f"{use}-key.pem", directory / "ca.pem")


def _note(directory: Path, use: Use) -> Path:
    """The file that says what a certificate is good for, names and end, and the digest of its authority."""
    return directory / f"{use}.json"


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """What a server needs for TLS 1.2 and later. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate.chain, certificate.key)
    return context


def examine(
    certificate: Certificate, names: Iterable[str], now: dt.datetime, use: Use = "server"
) -> list[Finding]:
    """What those who see a certificate would not like about it at the time `now`: clients that use `names`."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        chain = x509.load_pem_x509_certificates(certificate.chain.read_bytes())
        key = load_pem_private_key(certificate.key.read_bytes(), None)
        trusted = []
        if certificate.authority is not None:
            trusted = x509.load_pem_x509_certificates(certificate.authority.read_bytes())
    except OSError as error:
        return [Finding(True, f"{error.filename} cannot be read: {error.strerror}")]
    except (ValueError, TypeError) as error:
        return [Finding(True, f"the certificate, its key or its authority is not in PEM: {error}")]
    found = []
    if chain[0].public_key() != key.public_key():
        found.append(Finding(True, f"{certificate.key} is not the key of {certificate.chain}"))
    if certificate.key.stat().st_mode & 0o007:
        found.append(Finding(False, f"everybody on this host can read {certificate.key}"))
    for one, issuer in itertools.pairwise(chain):  # RFC 8446, section 4.4.2
        if not _is_by(one, issuer):
            found.append(
                Finding(True, f"the chain is out of order: {_called(issuer)} did not sign {_called(one)}")
            )
    anchor = next((one for one in trusted if one == chain[-1] or _is_by(chain[-1], one)), None)
    if trusted and anchor is None:
        found.append(Finding(True, f"the authority that clients are given did not sign {_called(chain[-1])}"))
    found += _validity(chain[0], "the certificate", now)
    for one in dict.fromkeys([*chain[1:], anchor or chain[-1]]):
        if one != chain[0]:
            found += _validity(one, f"its authority {_called(one)}", now)
    known = _names_in(chain[0])
    if not known and use == "server":
        found.append(Finding(True, "the certificate names no host (subjectAltName)"))
    found += [
        Finding(True, f"the certificate is not valid for {name}")
        for name in names
        if not any(_matches(_normal(name), one) for one in known)
    ]
    return found


def _validity(certificate: x509.Certificate, subject: str, now: dt.datetime) -> list[Finding]:
    if now < certificate.not_valid_before_utc:
        return [Finding(True, f"{subject} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")]
    if now > certificate.not_valid_after_utc:
        return [Finding(True, f"{subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")]
    left = (certificate.not_valid_after_utc - now).days
    return [Finding(False, f"{subject} expires in {left} days")] if left < _RENEW_DAYS else []


def _is_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _called(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"number {certificate.serial_number:x}"


def _own_names() -> set[str]:
    own = socket.gethostname().lower()
    return {own} if own.isascii() and own.replace("-", "").replace(".", "").isalnum() else set()


def _normal(name: str) -> str:
    """The one way of writing a name or an address."""
    return str(ipaddress.ip_address(name)) if _is_address(name) else name.lower()


def _matches(name: str, pattern: str) -> bool:
    """RFC 9525: a star stands for one whole label, the first of a DNS name."""
    if pattern.startswith("*.") and not _is_address(name):
        label, _, rest = name.partition(".")
        return bool(label) and rest == pattern[2:]
    return name == pattern


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_good(directory: Path, use: Use, wanted: Sequence[str]) -> bool:
    """Whether the note beside the certificate says that it is for these names and for long enough."""
    try:
        note = json.loads(_note(directory, use).read_text(encoding="utf-8"))
        until = dt.datetime.fromisoformat(note["until"])
        return (
            all((directory / name).exists() for name in (f"{use}.pem", f"{use}-key.pem"))
            and set(wanted) <= set(note["names"])
            and until - dt.datetime.now(dt.UTC) > dt.timedelta(days=_RENEW_DAYS)
            and note["authority"] == _digest(directory / "ca.pem")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _authority(directory: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """The authority in `directory`, made or renewed when it is not good for as long as a server certificate is."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import NameOID

    def load_key(content: bytes) -> EllipticCurvePrivateKey:
        loaded = load_pem_private_key(content, None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError("not a key that dtr made")
        return loaded

    certificate_file, key_file = directory / "ca.pem", directory / "ca-key.pem"
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"dtr {socket.gethostname()} CA"[:64])])
    if key_file.exists():
        key, old = _load(key_file, load_key), None
        if certificate_file.exists():
            old = _load(certificate_file, x509.load_pem_x509_certificate)
            if old.public_key() != key.public_key():
                raise OSError(errno.EINVAL, _DAMAGED.format("not the key of ca.pem"), str(key_file))
            if old.not_valid_after_utc > now + dt.timedelta(days=_SERVER_DAYS):
                return old, key
            name = old.subject
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(key_file, _pem_of_key(key), 0o600)
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
    _write(certificate_file, _pem(certificate), 0o644)
    return certificate, key


def _load(file: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(file.read_bytes())
    except (ValueError, TypeError) as error:
        raise OSError(errno.EINVAL, _DAMAGED.format(error), str(file)) from None


def _issue(
    directory: Path,
    use: Use,
    names: Sequence[str],
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(days=_SERVER_DAYS)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if use == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dtr")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(one) for one in names])
        builder = builder.add_extension(alternatives, critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    _write(directory / f"{use}-key.pem", _pem_of_key(key), 0o600)
    _write(directory / f"{use}.pem", _pem(certificate) + _pem(authority), 0o644)
    note = json.dumps(
        {"names": list(names), "until": until.isoformat(), "authority": _digest(directory / "ca.pem")}
    )
    _write(_note(directory, use), note.encode(), 0o644)


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _names_in(certificate: x509.Certificate) -> list[str]:
    """What it is good for; an address that is given as a name is good for nothing."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *(name.lower() for name in names.get_values_for_type(x509.DNSName) if not _is_address(name)),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]


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
