"""`dtr doctor` on good data and on each fault: what it finds, what it advises, and its exit status."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import time_machine
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.ports import free_port
from tests.support.s3 import S3Server
from tests.support.server import DTR, Server
from tests.support.signer import make_pair

from dtr.app import Application
from dtr.backends import Definition
from dtr.config import load
from dtr.doctor import examine
from dtr.pki import ensure_certificate

MakeServer = Callable[..., Server]


class Report:
    """What the doctor said: for each subject the verdicts, the texts and the advice."""

    def __init__(self, server: Server, *prefix: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DTR_")}
        run = subprocess.run(
            [*prefix, DTR, "doctor"],
            env={**environment, **server.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd="/",
        )
        assert not run.stderr, run.stderr
        self.text = run.stdout
        self.status = run.returncode
        self.lines: list[tuple[str, str, str]] = []
        self.advice: dict[str, str] = {}
        for line in run.stdout.splitlines():
            if line.startswith(" "):
                self.advice[self.lines[-1][1]] = line.strip().removeprefix("-> ")
            else:
                verdict, subject, text = line.split(maxsplit=2)
                self.lines.append((verdict, subject, text))

    @property
    def bad(self) -> dict[str, str]:
        """What was found, by subject."""
        return {subject: text for verdict, subject, text in self.lines if verdict == "FAIL"}

    def expect_good(self) -> None:
        assert self.bad == {}, self.text
        assert self.status == 0
        assert {subject for _, subject, _ in self.lines} == {
            "database",
            "clock",
            "storage",
            "certificate",
            "signer",
            "space",
        }

    def expect_bad(self, subject: str, text: str, advice: str) -> None:
        """Just this, and with a remedy."""
        assert set(self.bad) == {subject}, self.text
        assert text in self.bad[subject]
        assert advice in self.advice[subject]
        assert self.status == 1


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with current tables."""
    server = Server(tmp_path_factory.mktemp("migrated") / "dtr")
    server.cli("migrate")
    return server.directory / "metadata.db"


@pytest.fixture
def make_data(make_server: MakeServer, migrated: Path) -> Callable[..., Server]:
    """A function that makes the data of a server that does not run."""

    def make(settings: dict[str, Any] | None = None, *, database: str = "sqlite") -> Server:
        server = make_server(settings, database=database, start=False)
        (server.directory / "blobs").mkdir(parents=True)
        if database == "sqlite":
            shutil.copyfile(migrated, server.directory / "metadata.db")
        return server

    return make


def under_root(script: str, *arguments: str) -> tuple[str, ...]:
    """A prefix that runs a program after a shell script, in a mount table of its own."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh", *arguments)


def change(server: Server, command: str) -> None:
    """Run SQL on the database."""
    url = load(None, server.environment, {}).settings.database_url
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute(command)
        connection.close()
        return

    async def work() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(command)
        await connection.close()

    asyncio.run(work())


# --- good data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_server_that_runs_is_found_good(make_server: MakeServer, database: str):
    Report(make_server(database=database)).expect_good()


def test_the_doctor_leaves_nothing_behind(make_data: Callable[..., Server]):
    server = make_data()
    before = {path for path in server.directory.rglob("*") if "metadata.db" not in path.name}
    Report(server).expect_good()
    assert {path for path in server.directory.rglob("*") if "metadata.db" not in path.name} == before


def test_blobs_in_s3_are_found_good(make_data: Callable[..., Server], s3_server: S3Server):
    report = Report(make_data(s3_server.settings))
    report.expect_good()
    assert ("ok", "storage", "s3: wrote, read and deleted a small object") in report.lines


# --- the signer ---------------------------------------------------------------------------------------------


def test_passphrases_that_were_lost_are_missed(make_data: Callable[..., Server]):
    server = make_data()

    async def work(application: Application) -> None:
        await application.signer.create_key("localhost/admin/app", "timestamp", "ecdsa")

    server.do(work)
    file = server.directory / "signer.passphrases"
    file.chmod(0o644)
    report = Report(server)
    report.expect_good()
    assert report.advice == {"signer": f"chmod 600 {file}"}
    file.rename(file.with_suffix(".away"))
    Report(server).expect_bad("signer", f"{file} has no passphrase", f"restore {file}")
    assert not file.exists()


def test_a_signer_that_is_not_there_is_missed(make_data: Callable[..., Server], tmp_path: Path):
    pair = make_pair(tmp_path / "signer-tls")
    settings = {
        "trust.signer.address": f"localhost:{free_port()}",
        "trust.signer.ca": pair.server.authority,
        "trust.signer.certificate": pair.client.chain,
        "trust.signer.key": pair.client.key,
    }
    Report(make_data(settings)).expect_bad("signer", "does not answer", "check trust.signer")


# --- the database -------------------------------------------------------------------------------------------


def test_where_there_is_no_data_nothing_is_made_and_the_advice_is_to_start(make_server: MakeServer):
    server = make_server(start=False)
    Report(server).expect_bad("database", f"there is no {server.directory}/metadata.db", "`dtr serve`")
    assert not server.directory.exists()


def test_before_the_first_start_the_storage_directory_may_be_missing(make_data: Callable[..., Server]):
    server = make_data()
    (server.directory / "blobs").rmdir()
    report = Report(server)
    assert ("ok", "storage", f"`dtr serve` will make {server.directory}/blobs") in report.lines
    assert report.status == 0
    assert not (server.directory / "blobs").exists()


def test_a_database_that_nobody_serves(make_data: Callable[..., Server]):
    address = f"127.0.0.1:{free_port()}"
    report = Report(make_data({"database.url": f"postgresql://dtr:open-sesame@{address}/dtr"}, database="none"))
    report.expect_bad("database", "Connect call failed", "check database.url, the server and the network")
    assert "open-sesame" not in report.text


def test_a_database_that_the_server_does_not_have(make_data: Callable[..., Server], postgresql_cluster: Any):
    report = Report(make_data({"database.url": postgresql_cluster.url("missing")}, database="none"))
    report.expect_bad("database", 'database "missing" does not exist', "check database.url")


def test_a_file_that_is_no_database(make_data: Callable[..., Server]):
    server = make_data()
    for file in server.directory.glob("metadata.db*"):
        file.unlink()
    (server.directory / "metadata.db").write_bytes(b"no database at all" * 1000)
    Report(server).expect_bad("database", "file is not a database", "check the file, its owner and its mode")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_tables_of_an_older_version_and_the_advice_helps(make_data: Callable[..., Server], database: str):
    server = make_data(database=database)
    if database == "sqlite":
        for file in server.directory.glob("metadata.db*"):
            file.unlink()
        (server.directory / "metadata.db").touch()
    else:
        change(server, "DROP SCHEMA public CASCADE")
        change(server, "CREATE SCHEMA public")
    Report(server).expect_bad("database", "the tables are of revision None", "run `dtr migrate`")
    server.cli("migrate")
    Report(server).expect_good()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_data_of_a_newer_version(make_data: Callable[..., Server], database: str):
    server = make_data(database=database)
    change(server, "UPDATE alembic_version SET version_num = '9999'")
    Report(server).expect_bad(
        "database", "the data is of a newer version", "start the version that wrote the data"
    )


async def test_a_clock_that_differs_from_that_of_the_database(make_data: Callable[..., Server]):
    settings = load(None, make_data().environment, {}).settings
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)):
        found = {one.subject: one for one in await examine(settings)}
    assert not found["clock"].good
    # Some seconds may pass between the two looks.
    assert re.fullmatch(r"differs by (9\d|10\d) s from the database's", found["clock"].text)
    assert "synchronise the clocks" in found["clock"].advice


# --- the storage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_a_storage_directory_that_is_gone_is_not_made_anew(
    make_data: Callable[..., Server], tmp_path: Path, named: bool
):
    place = tmp_path / "mount"
    server = make_data({"storage.filesystem.root": place} if named else {})
    gone = place if named else server.directory / "blobs"
    change(server, "INSERT INTO blobs VALUES ('sha256:0', 1, 'location', 'present', 0)")
    shutil.rmtree(gone, ignore_errors=True)
    Report(server).expect_bad("storage", f"there is no directory {gone}", "mount or restore it")
    assert not gone.exists()


def test_a_storage_that_was_added_while_running(make_data: Callable[..., Server], tmp_path: Path):
    server = make_data()
    fast = tmp_path / "fast"
    fast.mkdir()

    async def add(application: Application) -> None:
        await application.backends.begin()
        definition = Definition(driver="filesystem", parameters={"root": str(fast)})
        await application.backends.put("fast", definition)

    server.do(add)
    assert ("ok", "storage", "fast, filesystem: wrote, read and deleted a small object") in Report(server).lines
    fast.rmdir()
    Report(server).expect_bad(
        "storage", f"storage fast: the storage directory {fast} is not there", "its credentials"
    )


def test_a_storage_directory_that_is_read_only(make_data: Callable[..., Server]):
    server = make_data()
    blobs = server.directory / "blobs"
    script = f"mount --bind '{blobs}' '{blobs}'; mount -o remount,ro,bind '{blobs}'"
    report = Report(server, *under_root(script))
    report.expect_bad("storage", "Read-only file system", f"check the owner and the mode of {blobs}")


def test_a_storage_without_room(make_data: Callable[..., Server]):
    server = make_data()
    blobs = server.directory / "blobs"
    script = f"mount -t tmpfs -o size=64k tmpfs '{blobs}'; head -c 65536 /dev/zero > '{blobs}/full'"
    report = Report(server, *under_root(script))
    assert set(report.bad) == {"storage", "space"}
    assert "make room" in report.advice["storage"]
    assert f"0.0 GiB of 0.0 GiB free in {blobs}" in report.bad["space"]
    assert "make room" in report.advice["space"]
    assert report.status == 1


def test_a_bucket_with_other_credentials(make_data: Callable[..., Server], s3_server: S3Server):
    server = make_data({**s3_server.settings, "storage.s3.secret_key": "open-sesame"})
    report = Report(server)
    report.expect_bad("storage", "", "check the settings in storage, the credentials and the network")
    assert "open-sesame" not in report.text


def test_a_bucket_that_is_not_there(make_data: Callable[..., Server], s3_server: S3Server):
    server = make_data({**s3_server.settings, "storage.s3.bucket": "missing"})
    Report(server).expect_bad("storage", "", "check the settings in storage, the credentials and the network")


# --- certificates -------------------------------------------------------------------------------------------


def own_certificate(directory: Path, days: tuple[int, int]) -> dict[str, str]:
    """Settings with a certificate of the operator's own, valid between two days from now."""
    directory.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.example.org")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("registry.example.org")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "chain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").touch(0o600)
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return {"tls.certificate": f"{directory}/chain.pem", "tls.key": f"{directory}/key.pem"}


def test_an_own_certificate_that_expired(make_data: Callable[..., Server], tmp_path: Path):
    report = Report(make_data(own_certificate(tmp_path / "own", (-100, -3))))
    report.expect_bad("certificate", "the certificate expired on", "into the files of tls.certificate and tls.key")


def test_an_own_certificate_that_expires_soon_is_told_but_not_bad(
    make_data: Callable[..., Server], tmp_path: Path
):
    report = Report(make_data(own_certificate(tmp_path / "own", (-100, 10))))
    report.expect_good()
    assert ("ok", "certificate", "the certificate expires in 9 days") in report.lines
    assert "tls.certificate" in report.advice["certificate"]


def test_an_own_certificate_for_another_name(make_data: Callable[..., Server], tmp_path: Path):
    settings = own_certificate(tmp_path / "own", (-1, 100))
    Report(make_data({**settings, "external_address": "registry.example.org:443"})).expect_good()
    report = Report(make_data({**settings, "external_address": "registry.example.net:443"}))
    report.expect_bad("certificate", "is not valid for registry.example.net", "tls.certificate")


def test_an_own_certificate_that_is_not_there(make_data: Callable[..., Server], tmp_path: Path):
    settings = {"tls.certificate": f"{tmp_path}/missing.pem", "tls.key": f"{tmp_path}/key.pem"}
    Report(make_data(settings)).expect_bad(
        "certificate", f"{tmp_path}/missing.pem cannot be read", "tls.certificate"
    )


def test_the_certificate_that_dtr_made_is_renewed_by_a_start(make_data: Callable[..., Server]):
    server = make_data()
    with time_machine.travel(dt.datetime.now(dt.UTC) - dt.timedelta(days=500)):
        ensure_certificate(server.directory / "tls", [])
    Report(server).expect_bad(
        "certificate", "the certificate expired on", "restart: dtr renews what it made itself"
    )
    server.start()
    Report(server).expect_good()


def test_without_tls_no_certificate_is_needed(make_data: Callable[..., Server]):
    server = make_data({"https_address": "", "http_serves": "true"})
    report = Report(server)
    report.expect_good()
    assert ("ok", "certificate", "none needed: TLS is done elsewhere") in report.lines
