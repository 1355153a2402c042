"""The certificates that dtr makes, and what the doctor says of certificates."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import socket
import ssl
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import time_machine
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dtr.pki import Certificate, ensure_certificate, ensure_client_certificate, examine, server_context

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def certificate_in(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


def names_of(file: Path) -> set[str]:
    names = certificate_in(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def shake_hands(server: Certificate, trusted: str, name: str) -> None:
    """A client that trusts the authorities in the text `trusted` connects to `name`. Raises ssl.SSLError."""
    client_context = ssl.create_default_context(cadata=trusted)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    other = server_context(server).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for end in (client, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() in {"TLSv1.2", "TLSv1.3"}
    assert client.getpeercert()


# --- what dtr makes -----------------------------------------------------------------------------------------


def test_clients_that_trust_the_authority_connect_by_every_name(tmp_path: Path):
    made = ensure_certificate(
        tmp_path / "tls", ["registry.example.org", "*.apps.example.org", "192.0.2.7", "2001:DB8::7"]
    )
    assert made.authority is not None
    trusted = made.authority.read_text()
    for name in (
        "localhost",
        "127.0.0.1",
        "::1",
        "registry.example.org",
        "a.apps.example.org",
        "192.0.2.7",
        "2001:db8::7",
        socket.gethostname(),
    ):
        shake_hands(made, trusted, name)
    for name in ("example.org", "apps.example.org", "a.b.apps.example.org", "192.0.2.8"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(made, trusted, name)


def test_clients_that_trust_another_authority_do_not_connect(tmp_path: Path):
    made = ensure_certificate(tmp_path / "one", [])
    other = ensure_certificate(tmp_path / "other", [])
    assert other.authority is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(made, other.authority.read_text(), "localhost")


def test_keys_are_for_the_owner_only(tmp_path: Path):
    directory = tmp_path / "deep" / "tls"
    ensure_certificate(directory, [])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("server-key.pem", "ca-key.pem"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert not list(directory.glob("*.new"))


def test_an_authority_signs_and_a_server_does_not(tmp_path: Path):
    made = ensure_certificate(tmp_path, [])
    authority, server = certificate_in(tmp_path / "ca.pem"), certificate_in(made.chain)
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert authority.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert server.not_valid_after_utc - server.not_valid_before_utc <= 398 * DAY  # browsers refuse more


def test_a_second_start_changes_nothing(tmp_path: Path):
    ensure_certificate(tmp_path, ["b.example.org", "a.example.org"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    ensure_certificate(tmp_path, ["a.example.org", "B.example.org"])
    ensure_certificate(tmp_path, [])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_new_name_renews_the_server_certificate_and_keeps_the_authority(tmp_path: Path):
    made = ensure_certificate(tmp_path, ["a.example.org"])
    authority = (tmp_path / "ca.pem").read_text()
    ensure_certificate(tmp_path, ["a.example.org", "b.example.org"])
    assert {"a.example.org", "b.example.org"} <= names_of(made.chain)
    assert (tmp_path / "ca.pem").read_text() == authority
    shake_hands(made, authority, "b.example.org")


def test_a_certificate_is_renewed_in_time_and_not_sooner(tmp_path: Path):
    with time_machine.travel(NOW) as clock:
        made = ensure_certificate(tmp_path, [])
        first, authority = certificate_in(made.chain), (tmp_path / "ca.pem").read_bytes()
        clock.move_to(NOW + 360 * DAY)
        ensure_certificate(tmp_path, [])
        assert certificate_in(made.chain) == first
        clock.move_to(NOW + 368 * DAY)
        ensure_certificate(tmp_path, [])
        renewed = certificate_in(made.chain)
        assert renewed.not_valid_after_utc > first.not_valid_after_utc + 360 * DAY
        assert renewed.public_key() != first.public_key()
        assert (tmp_path / "ca.pem").read_bytes() == authority


def test_the_authority_outlives_what_it_signed_and_keeps_its_name_and_key(tmp_path: Path):
    with time_machine.travel(NOW) as clock:
        made = ensure_certificate(tmp_path, [])
        assert made.authority is not None
        key = (tmp_path / "ca-key.pem").read_bytes()
        first = certificate_in(made.authority)
        for year in range(1, 13):
            clock.move_to(NOW + year * 365 * DAY)
            ensure_certificate(tmp_path, [])
            authority = certificate_in(made.authority)
            assert authority.not_valid_after_utc >= certificate_in(made.chain).not_valid_after_utc
            assert examine(made, ["localhost"], dt.datetime.now(dt.UTC)) == []
            assert (tmp_path / "ca-key.pem").read_bytes() == key
        assert authority != first
        assert authority.subject == first.subject


def test_a_client_with_the_old_authority_connects_to_a_server_with_the_renewed_one(tmp_path: Path):
    # The clock of TLS is the real one: the first authority is made in the past.
    with time_machine.travel(dt.datetime.now(dt.UTC) - 3600 * DAY):
        made = ensure_certificate(tmp_path, [])
        assert made.authority is not None
        old = made.authority.read_text()
    ensure_certificate(tmp_path, [])
    new = made.authority.read_text()
    assert new != old
    for trusted in (old, new, old + new):
        shake_hands(made, trusted, "localhost")


@pytest.mark.parametrize("name", ["server.pem", "server-key.pem", "server.json", "ca.pem"])
def test_a_lost_file_is_made_again_and_the_authority_stays_trusted(tmp_path: Path, name: str):
    made = ensure_certificate(tmp_path, [])
    assert made.authority is not None
    old = made.authority.read_text()
    (tmp_path / name).unlink()
    ensure_certificate(tmp_path, [])
    for trusted in (old, made.authority.read_text()):
        shake_hands(made, trusted, "localhost")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"names": 1}', '{"names": [[]], "until": "x"}', "\0"])
def test_a_damaged_note_costs_a_new_certificate_only(tmp_path: Path, text: str):
    made = ensure_certificate(tmp_path, [])
    authority, first = (tmp_path / "ca.pem").read_text(), made.chain.read_bytes()
    (tmp_path / "server.json").write_text(text)
    ensure_certificate(tmp_path, [])
    assert made.chain.read_bytes() != first
    assert (tmp_path / "ca.pem").read_text() == authority
    shake_hands(made, authority, "localhost")


def test_a_crash_while_renewing_is_made_good_by_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = ensure_certificate(tmp_path, ["a.example.org"])
    replace = Path.replace
    for fatal in ("server.pem", "server.json"):

        def crash(self: Path, target: Path, fatal: str = fatal) -> Path:
            if target.name == fatal:
                raise KeyboardInterrupt
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash)
            with pytest.raises(KeyboardInterrupt):
                ensure_certificate(tmp_path, ["b.example.org"])
        ensure_certificate(tmp_path, ["a.example.org"])
        shake_hands(made, (tmp_path / "ca.pem").read_text(), "a.example.org")


def test_a_client_gets_a_certificate_that_is_good_for_nothing_else(tmp_path: Path):
    server = ensure_certificate(tmp_path, [])
    before = server.chain.read_bytes()
    client = ensure_client_certificate(tmp_path)
    assert client.authority == server.authority
    assert server.chain.read_bytes() == before
    extensions = certificate_in(client.chain).extensions
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert stat.S_IMODE(client.key.stat().st_mode) == 0o600
    now = dt.datetime.now(dt.UTC)
    assert examine(client, (), now, "client") == []
    (found,) = examine(client, (), now + 380 * DAY, "client")
    assert (found.serious, found.text) == (False, "the certificate expires in 16 days")
    assert examine(client, (), now + 400 * DAY, "client")[0].serious
    kept = client.chain.read_bytes()
    assert ensure_client_certificate(tmp_path) == client
    assert client.chain.read_bytes() == kept
    # One by an authority that is no more is made anew.
    for name in ("ca.pem", "ca-key.pem"):
        (tmp_path / name).unlink()
    ensure_certificate(tmp_path, [])
    ensure_client_certificate(tmp_path)
    assert client.chain.read_bytes() != kept
    certificate_in(client.chain).verify_directly_issued_by(certificate_in(tmp_path / "ca.pem"))


def test_another_authority_in_its_place_gets_a_certificate_of_its_own(tmp_path: Path):
    made, other = ensure_certificate(tmp_path / "one", []), ensure_certificate(tmp_path / "other", [])
    assert made.authority is not None
    assert other.authority is not None
    for name in ("ca.pem", "ca-key.pem"):
        (tmp_path / "one" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    ensure_certificate(tmp_path / "one", [])
    shake_hands(made, other.authority.read_text(), "localhost")


@pytest.mark.parametrize("damage", ["ca.pem", "ca-key.pem", "foreign key", "rsa key"])
def test_a_damaged_authority_is_an_error_and_nothing_of_it_is_overwritten(tmp_path: Path, damage: str):
    ensure_certificate(tmp_path, [])
    if damage == "foreign key":
        (tmp_path / "ca-key.pem").write_bytes(pem_of_key(ec.generate_private_key(ec.SECP256R1())))
    elif damage == "rsa key":
        (tmp_path / "ca-key.pem").write_bytes(pem_of_key(rsa.generate_private_key(65537, 2048)))
    else:
        (tmp_path / damage).write_text("damaged")
    before = {name: (tmp_path / name).read_bytes() for name in ("ca.pem", "ca-key.pem")}
    with pytest.raises(OSError, match="damaged") as caught:
        ensure_certificate(tmp_path, ["new.example.org"])
    assert Path(caught.value.filename).parent == tmp_path
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_processes_that_start_together_make_one_certificate(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=ensure_certificate, args=(tmp_path, ["a.example.org"])) for _ in range(6)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(60)
        assert one.exitcode == 0
    made = Certificate(tmp_path / "server.pem", tmp_path / "server-key.pem", tmp_path / "ca.pem")
    shake_hands(made, (tmp_path / "ca.pem").read_text(), "a.example.org")


# --- what the doctor says -----------------------------------------------------------------------------------


def pem_of_key(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """An authority of the tests, which signs anything."""

    def __init__(self, name: str = "Test CA", days: Sequence[int] = (-10, 1000), parent: Authority | None = None):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.parent = parent
        self.certificate = self._sign(name, self.key.public_key(), days, None)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        days: Sequence[int],
        alternative: Iterable[x509.GeneralName] | None,
        issuer: Authority | None = None,
    ) -> x509.Certificate:
        issuer = issuer or self.parent or self
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is self and alternative is None else issuer.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + days[0] * DAY)
            .not_valid_after(NOW + days[1] * DAY)
        )
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        return builder.sign(issuer.key, hashes.SHA256())

    def server(self, names: Iterable[str] = ("registry.example.org",), days: Sequence[int] = (-10, 300)):
        """A key, and a certificate for DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = [x509.DNSName(name) for name in names]
        return key, self._sign("server", key.public_key(), days, alternative, self)


def write(
    directory: Path,
    key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate],
    authority: x509.Certificate | None = None,
) -> Certificate:
    made = Certificate(
        directory / "chain.pem", directory / "key.pem", directory / "authority.pem" if authority else None
    )
    made.chain.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
    made.key.touch(0o600)
    made.key.write_bytes(pem_of_key(key))
    if made.authority is not None and authority is not None:
        made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return made


def found(certificate: Certificate, *names: str, now: dt.datetime = NOW) -> list[tuple[bool, str]]:
    return [(one.serious, one.text) for one in examine(certificate, names or ["registry.example.org"], now)]


def test_a_good_certificate_has_no_findings(tmp_path: Path):
    root = Authority()
    key, server = root.server()
    assert found(write(tmp_path, key, [server])) == []
    assert found(write(tmp_path, key, [server], root.certificate)) == []
    assert found(write(tmp_path, key, [server, root.certificate], root.certificate)) == []
    between = Authority("Intermediate CA", parent=root)
    key, server = between.server()
    assert found(write(tmp_path, key, [server, between.certificate], root.certificate)) == []


def test_the_certificate_that_dtr_makes_has_no_findings(tmp_path: Path):
    made = ensure_certificate(tmp_path, ["registry.example.org", "2001:db8::1"])
    names = ["localhost", "REGISTRY.example.org", "127.0.0.1", "2001:DB8:0::1", "0:0::1"]
    assert examine(made, names, dt.datetime.now(dt.UTC)) == []


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ((-400, -1), (True, "the certificate expired on 2025-12-31")),
        ((1, 300), (True, "the certificate is not valid before 2026-01-02")),
        ((-10, 29), (False, "the certificate expires in 29 days")),
        ((-10, 0), (False, "the certificate expires in 0 days")),
    ],
)
def test_the_time_of_a_certificate(tmp_path: Path, days: Sequence[int], expected: tuple[bool, str]):
    key, server = Authority().server(days=days)
    assert found(write(tmp_path, key, [server])) == [expected]


def test_the_time_of_the_authorities(tmp_path: Path):
    root = Authority(days=(-400, -1))
    between = Authority("Intermediate CA", days=(-400, 5), parent=root)
    key, server = between.server()
    assert found(write(tmp_path, key, [server, between.certificate], root.certificate)) == [
        (False, "its authority CN=Intermediate CA expires in 5 days"),
        (True, "its authority CN=Test CA expired on 2025-12-31"),
    ]


def test_another_key(tmp_path: Path):
    root = Authority()
    _, server = root.server()
    key, _ = root.server()
    made = write(tmp_path, key, [server])
    assert found(made) == [(True, f"{made.key} is not the key of {made.chain}")]


def test_a_key_that_everybody_can_read(tmp_path: Path):
    key, server = Authority().server()
    made = write(tmp_path, key, [server])
    made.key.chmod(0o644)
    assert found(made) == [(False, f"everybody on this host can read {made.key}")]
    made.key.chmod(0o640)
    assert found(made) == []


def test_a_chain_out_of_order(tmp_path: Path):
    root = Authority()
    between = Authority("Intermediate CA", parent=root)
    key, server = between.server()
    made = write(tmp_path, key, [server, root.certificate, between.certificate])
    ((serious, text), *_) = found(made)
    assert serious
    assert text == "the chain is out of order: CN=Test CA did not sign CN=server"


def test_an_authority_that_signed_nothing_of_it(tmp_path: Path):
    key, server = Authority().server()
    made = write(tmp_path, key, [server], Authority("Another CA").certificate)
    assert found(made) == [(True, "the authority that clients are given did not sign CN=server")]
    # The same name is not the same key.
    made = write(tmp_path, key, [server], Authority().certificate)
    assert found(made) == [(True, "the authority that clients are given did not sign CN=server")]


def test_a_certificate_without_names(tmp_path: Path):
    key, server = Authority().server(names=())
    assert found(write(tmp_path, key, [server])) == [
        (True, "the certificate names no host (subjectAltName)"),
        (True, "the certificate is not valid for registry.example.org"),
    ]


@pytest.mark.parametrize(
    ("given", "asked", "good"),
    [
        ("registry.example.org", "registry.example.org", True),
        ("registry.example.org", "Registry.Example.ORG", True),
        ("Registry.Example.org", "registry.example.org", True),
        ("registry.example.org", "example.org", False),
        ("example.org", "registry.example.org", False),
        ("*.example.org", "registry.example.org", True),
        ("*.example.org", "REGISTRY.EXAMPLE.ORG", True),
        ("*.Example.org", "registry.example.org", True),
        ("*.example.org", "a.registry.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("*.example.org", "*.example.org", True),
        ("192.0.2.1", "192.0.2.1", False),  # an address has to be given as one
        ("*.0.2.1", "192.0.2.1", False),
    ],
)
def test_the_names_of_a_certificate(tmp_path: Path, given: str, asked: str, good: bool):
    key, server = Authority().server(names=[given, "another.example.net"])
    expected = [] if good else [(True, f"the certificate is not valid for {asked}")]
    assert found(write(tmp_path, key, [server]), asked) == expected


@pytest.mark.parametrize("name", ["chain.pem", "key.pem", "authority.pem"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str):
    root = Authority()
    key, server = root.server()
    made = write(tmp_path, key, [server], root.certificate)
    for content in (b"", b"damaged", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        (tmp_path / name).write_bytes(content)
        ((serious, text),) = found(made)
        assert serious
        assert "is not in PEM" in text
    (tmp_path / name).unlink()
    assert found(made) == [(True, f"{tmp_path / name} cannot be read: No such file or directory")]


def test_a_key_with_a_password_is_of_no_use(tmp_path: Path):
    key, server = Authority().server()
    made = write(tmp_path, key, [server])
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    ((serious, _),) = found(made)
    assert serious
