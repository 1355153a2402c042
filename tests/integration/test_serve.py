"""`dtr serve` as its operators meet it: real process trees that start, refuse to start, drain, crash and end."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from cryptography import x509
from tests.support.client import Client
from tests.support.images import digest_of
from tests.support.ports import free_port
from tests.support.server import DTR, PASSWORD, Server, clean_environment, wait_for_end
from tests.support.wire import Peer, request, wait_until

from dtr.db.migrate import HEAD
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from tests.conftest import Cluster

MakeServer = Callable[..., Server]
BIG = os.urandom(8_000_000)


def refusal(server: Server, *options: str, status: int = 1) -> str:
    """What a start that must fail says. A traceback is no message."""
    done = server.cli("serve", *options, check=False)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert "is ready" not in done.stdout
    return done.stderr


def ask(port: int, path: str, headers: dict[str, str] | None = None, *, method: str = "GET"):
    """A request by plain HTTP: status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


def files_below(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file())


# --- the first start ---


def test_the_first_start_makes_an_authority_and_a_certificate(make_server: MakeServer) -> None:
    server = make_server(
        {"tls.names": "registry.example.org,192.0.2.7", "external_address": "[2001:db8::1]:443"}, makes_tables=True
    )
    (certificate, _) = x509.load_pem_x509_certificates((server.directory / "tls/server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {
        "localhost",
        "registry.example.org",
        socket.gethostname().lower(),
    } <= set(names.get_values_for_type(x509.DNSName))
    addresses = {str(one) for one in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1", "192.0.2.7", "2001:db8::1"} <= addresses
    for key in ("ca-key.pem", "server-key.pem"):
        assert stat.S_IMODE((server.directory / "tls" / key).stat().st_mode) == 0o600
    assert Client(server, None).send("GET", "/_ping").status == 200  # with TLS that trusts the authority alone


def test_the_certificate_stays_over_a_restart(make_server: MakeServer) -> None:
    server = make_server()
    before = (server.directory / "tls/server.pem").read_bytes()
    server.restart()
    assert (server.directory / "tls/server.pem").read_bytes() == before


def test_the_first_account_has_the_password_of_the_environment(make_server: MakeServer) -> None:
    server = make_server(makes_tables=True)
    assert Client(server, "admin", PASSWORD).token()
    assert PASSWORD not in server.greeting
    assert "password" not in server.greeting
    assert PASSWORD not in server.log


def test_a_password_that_is_made_up_is_shown_once(make_server: MakeServer) -> None:
    server = make_server(start=False)
    del server.environment["DTR_ADMIN_PASSWORD"]
    server.start()
    (password,) = re.findall(r"^ +password +(\S{16,})$", server.greeting, re.MULTILINE)
    assert Client(server, "admin", password).token()
    server.restart()
    assert Client(server, "admin", password).token()
    assert "    password" not in server.greeting
    assert password not in server.greeting
    assert server.stop() == 0
    for file in (server.log_file, *files_below(server.directory)):
        assert password.encode() not in file.read_bytes(), file


def test_a_start_that_fails_keeps_no_password_to_itself(make_server: MakeServer) -> None:
    server = make_server(start=False)
    del server.environment["DTR_ADMIN_PASSWORD"]
    with socket.create_server(("127.0.0.1", server.port)):
        refusal(server)
    server.start()
    (password,) = re.findall(r"^ +password +(\S{16,})$", server.greeting, re.MULTILINE)
    assert Client(server, "admin", password).token()


def test_a_password_of_the_environment_that_is_none_is_refused(make_server: MakeServer) -> None:
    server = make_server(start=False)
    server.environment["DTR_ADMIN_PASSWORD"] = "x" * 2000
    assert "DTR_ADMIN_PASSWORD" in refusal(server)


def test_what_makes_the_tables_is_not_in_the_memory_of_the_server(make_server: MakeServer) -> None:
    server = make_server(makes_tables=True)
    first = anonymous_mib(server.pid)
    server.restart()
    assert first < anonymous_mib(server.pid) + 8  # it is 18 MiB


def test_a_worker_has_the_pages_in_memory_when_somebody_asked_for_one(tmp_path: Path) -> None:
    with contextlib.closing(Server(tmp_path / "dtr", is_forked=False)) as server:
        (worker,) = server.start().worker_pids
        maps = Path(f"/proc/{worker}/maps")
        at_first = anonymous_mib(worker)
        assert "markupsafe" not in maps.read_text()
        Client(server).send("GET", "/login").expect(200)
        assert "markupsafe" in maps.read_text()
        assert anonymous_mib(worker) > at_first + 10


def anonymous_mib(pid: int) -> float:
    (kib,) = re.findall(r"^RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kib) / 1024


def test_tables_that_cannot_be_made_end_the_start(make_server: MakeServer) -> None:
    server = make_server(start=False)
    server.directory.mkdir()
    with contextlib.closing(sqlite3.connect(server.directory / "metadata.db")) as database:
        database.execute("CREATE TABLE accounts (somebody_elses TEXT)")
    done = server.cli("serve", check=False)
    assert done.returncode == 1
    assert "is ready" not in done.stdout
    *logged, said = done.stderr.splitlines()
    assert "metadata.db" in said
    assert "table accounts already exists" in said
    assert any("tables not made" in line for line in logged)


def test_a_later_password_of_the_environment_changes_nothing(make_server: MakeServer) -> None:
    server = make_server()
    server.environment["DTR_ADMIN_PASSWORD"] = "another-password"
    server.restart()
    assert Client(server, "admin", PASSWORD).token()


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "localhost:{port}"),
        ({"external_address": "registry.example.org"}, "registry.example.org"),
        ({"https_address": "127.0.0.2:{port}"}, "127.0.0.2:{port}"),
        ({"https_address": "0.0.0.0:{port}"}, "localhost:{port}"),
    ],
)
def test_the_greeting_names_the_address_and_three_commands(
    make_server: MakeServer, settings: dict[str, str], address: str
) -> None:
    server = make_server(start=False)
    for name, value in settings.items():
        server.environment[f"DTR_{name.upper()}"] = value.format(port=server.port)
    server.start()
    address = address.format(port=server.port)
    wait_until(lambda: "/ca" in server.greeting)
    assert f"https://{address}/" in server.greeting
    for command in ("docker login", "docker tag", "docker push", "docker pull"):
        assert re.search(f"{command} .*{re.escape(address)}", server.greeting)


def test_a_greeting_that_nobody_reads_hinders_nothing(make_server: MakeServer) -> None:
    server = make_server(start=False)
    reading, writing = os.pipe()
    os.close(reading)
    with server.log_file.open("a") as log:
        server.process = subprocess.Popen(
            [DTR, "serve"],
            env={**clean_environment(), **server.environment},
            stdout=writing,
            stderr=log,
            text=True,
        )
    os.close(writing)
    wait_until(lambda: server.ca.exists() and _answers(server.port))
    assert Client(server, None).send("GET", "/_ping").status == 200
    time.sleep(1)  # it greets when all workers answer
    assert server.stop() == 0


def _answers(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host, port)) == 0


# --- refused starts ---


def test_a_second_start_on_the_same_data_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    second = Server(server.directory)
    message = refusal(second)
    assert "runs already" in message
    assert str(server.directory) in message
    assert Client(server).call("GET", "/v2/").status == 200


@pytest.mark.parametrize("which", ["https_address", "http_address"])
def test_an_address_that_is_in_use_is_named(make_server: MakeServer, which: str) -> None:
    server = make_server(start=False)
    port = server.port if which == "https_address" else server.http_port
    with socket.create_server(("127.0.0.1", port), reuse_port=True):
        message = refusal(server)
    assert f"127.0.0.1:{port}" in message
    assert "listens" in message
    server.start()


def test_an_address_that_is_not_of_this_machine_is_named(make_server: MakeServer) -> None:
    server = make_server({"http_address": "192.0.2.77:8080"}, start=False)
    assert "http_address 192.0.2.77:8080" in refusal(server)
    server.environment["DTR_HTTP_ADDRESS"] = "no-such-host.invalid:8080"
    assert "http_address no-such-host.invalid:8080" in refusal(server)


def test_settings_that_name_another_storage_lose_no_blob(make_server: MakeServer, tmp_path: Path) -> None:
    """The program does not start where blobs would be missing, and takes over what was copied by hand."""
    server = make_server()
    server.make_repository("admin/app")
    digest = Client(server).push_blob("admin/app", BIG)
    assert server.stop() == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    server.environment["DTR_STORAGE__FILESYSTEM__ROOT"] = str(elsewhere)
    message = refusal(server)
    assert str(elsewhere) in message
    assert "1 of 1 blobs" in message
    assert "dtr storage migrate" in message
    del server.environment["DTR_STORAGE__FILESYSTEM__ROOT"]
    server.start()
    assert Client(server).get_blob("admin/app", digest).expect(200).body == BIG
    assert server.stop() == 0
    shutil.copytree(server.directory / "blobs", elsewhere, dirs_exist_ok=True)
    server.environment["DTR_STORAGE__FILESYSTEM__ROOT"] = str(elsewhere)
    server.start()
    (server.directory / "blobs").rename(server.directory / "old")
    assert Client(server).get_blob("admin/app", digest).expect(200).body == BIG


def test_data_of_a_newer_version_are_refused_on_sqlite(make_server: MakeServer) -> None:
    server = make_server()
    assert server.stop() == 0
    with contextlib.closing(sqlite3.connect(server.directory / "metadata.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    message = refusal(server)
    assert "newer version" in message
    assert "9999" in message


def test_data_of_a_newer_version_are_refused_on_postgresql(make_server: MakeServer, psql: Psql) -> None:
    server = make_server(database="postgresql", start=False)
    psql(server, "UPDATE alembic_version SET version_num = '9999'")
    assert "newer version" in refusal(server)


def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(
    make_server: MakeServer, postgresql_cluster: Cluster
) -> None:
    server = make_server({"database.url": postgresql_cluster.create()}, start=False)
    assert "dtr migrate" in refusal(server)
    assert HEAD in server.cli("migrate").stdout
    server.start()


Psql = Callable[[Server, str], None]


@pytest.fixture
def psql(postgresql_cluster: Cluster) -> Psql:
    """A function that runs a command in a server's database."""

    def run(server: Server, command: str) -> None:
        subprocess.run(
            [str(postgresql_cluster._bin / "psql"), "-q", "-c", command, server.environment["DTR_DATABASE__URL"]],
            check=True,
        )

    return run


def test_a_database_that_is_not_there_is_named_without_its_password(make_server: MakeServer) -> None:
    url = f"postgresql://dtr:a-secret@127.0.0.1:{free_port()}/dtr"
    message = refusal(make_server({"database.url": url}, start=False))
    assert "database" in message
    assert "127.0.0.1" in message
    assert "a-secret" not in message


def test_a_database_that_is_none_is_refused(make_server: MakeServer) -> None:
    server = make_server(start=False)
    server.directory.mkdir()
    (server.directory / "metadata.db").write_bytes(b"this is no database" * 1000)
    assert "metadata.db" in refusal(server)


def test_a_data_directory_that_is_a_file_is_named(make_server: MakeServer) -> None:
    server = make_server(start=False)
    server.directory.write_text("in the way")
    assert str(server.directory) in refusal(server)


def test_a_data_directory_that_cannot_be_read_is_named(make_server: MakeServer) -> None:
    server = make_server(start=False)
    server.directory.mkdir()
    server.directory.chmod(0)
    drop = "-dac_override,-dac_read_search"  # what makes root read everything
    done = subprocess.run(
        ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", DTR, "serve"],
        env={**clean_environment(), **server.environment},
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        timeout=60,
    )
    server.directory.chmod(0o750)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert str(server.directory) in done.stderr
    assert "ermission denied" in done.stderr


WRONG = {
    "DTR_WORKERS": ("many", "workers"),
    "DTR_DRAIN_SECONDS": ("-1", "drain_seconds"),
    "DTR_HTTPS_ADDRESS": ("localhost", "https_address"),
    "DTR_COMPONENTS": ("registry,cooking", "components"),
    "DTR_DATABASE__URL": ("mysql://user:a-secret@localhost/x", "database.url"),
    "DTR_STORAGE__DRIVER": ("floppy", "storage.driver"),
    "DTR_TLS__CERTIFICATE": ("/nowhere/cert.pem", "tls"),
    "DTR_TRUSTED_PROXIES": ("everybody", "trusted_proxies"),
    "DTR_AUTH__TOKEN_SECONDS": ("100000", "auth.token_seconds"),
    "DTR_WORKER": ("2", "workers"),
    "DTR_REGISTRY__MANIFEST_LIMITS": ("2", "registry.manifest_limit"),
}


@pytest.mark.parametrize(("variable", "value", "name"), [(key, *rest) for key, rest in WRONG.items()])
def test_a_wrong_setting_is_named(make_server: MakeServer, variable: str, value: str, name: str) -> None:
    server = make_server(start=False)
    server.environment[variable] = value
    message = refusal(server)
    assert name in message
    assert "a-secret" not in message


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("dtr.toml", "workers = 'x'", ["dtr.toml", "workers"]),
        ("dtr.toml", "[registry]\nmanifest_limits = 5", ["dtr.toml", "registry.manifest_limit"]),
        ("dtr.toml", "workers = ", ["dtr.toml", "TOML"]),
        ("dtr.yaml", "registry: {delete: perhaps}", ["dtr.yaml", "registry.delete"]),
        ("dtr.yaml", "a: [", ["dtr.yaml", "YAML"]),
        ("dtr.yaml", "- a\n- b", ["dtr.yaml"]),
        ("dtr.ini", "workers = 5", [".toml"]),
    ],
)
def test_a_wrong_settings_file_is_named(
    make_server: MakeServer, tmp_path: Path, file: str, content: str, names: list[str]
) -> None:
    (tmp_path / file).write_text(content)
    server = make_server(start=False)
    del server.environment["DTR_WORKERS"]
    message = refusal(server, "--config", str(tmp_path / file))
    assert all(name in message for name in names), message


# --- settings and addresses ---


@pytest.mark.parametrize("file", ["dtr.toml", "dtr.yaml"])
def test_settings_come_from_a_file(make_server: MakeServer, tmp_path: Path, file: str) -> None:
    content = {
        "dtr.toml": "external_address = 'from.file'\n[registry]\nmanifest_limit = 1234\n",
        "dtr.yaml": "external_address: from.file\nregistry:\n  manifest_limit: 1234\n",
    }[file]
    (tmp_path / file).write_text(content)
    server = make_server(start=False).start(options=("--config", str(tmp_path / file)))
    assert "https://from.file/" in server.greeting
    client = Client(server)
    server.make_repository("admin/a")
    answer = client.call("PUT", "/v2/admin/a/manifests/x", b" " * 1235, {"Content-Type": "application/json"})
    assert answer.status == 413
    assert "1234" in answer.body.decode()


def test_ipv6_is_served(make_server: MakeServer) -> None:
    server = make_server(start=False)
    server.environment["DTR_HTTPS_ADDRESS"] = f"[::1]:{server.port}"
    server.environment["DTR_HTTP_ADDRESS"] = f"[::]:{server.http_port}"
    server.start()
    connection = http.client.HTTPSConnection("::1", server.port, context=server.tls, timeout=30)
    connection.request("GET", "/v2/")
    response = connection.getresponse()
    assert response.status == 401
    assert f"https://[::1]:{server.port}/auth/token" in response.headers["WWW-Authenticate"]
    connection.close()
    status, headers, _ = ask(server.http_port, "/v2/", {"Host": "[::1]:80"})  # by IPv4: :: is for both
    assert (status, headers["location"]) == (308, f"https://[::1]:{server.port}/v2/")


def test_plain_http_is_redirected_but_for_what_has_to_be_plain(make_server: MakeServer) -> None:
    server = make_server()
    for method in ("GET", "POST"):
        status, headers, _ = ask(server.http_port, "/v2/?a=b", method=method)
        assert (status, headers["location"]) == (308, f"https://127.0.0.1:{server.port}/v2/?a=b")
    for host in ("evil.example/@", "a b", "x\tSet-Cookie:y"):
        with Peer(server.http_port) as peer:
            answer = peer.ask(request("GET", "/v2/", Host=host))
            assert answer.headers["location"] == f"https://localhost:{server.port}/v2/"
    assert ask(server.http_port, "/_ping")[0] == 200
    assert ask(server.http_port, "/health")[0] == 200
    assert ask(server.http_port, "/metrics")[0] == 308


def test_plain_http_at_the_address_of_tls_is_sent_to_tls(make_server: MakeServer) -> None:
    server = make_server()
    for whole in (
        request("GET", "/v2/?a=b", Host=server.address),
        request("PUT", "/v2/", BIG, Host=server.address),
    ):
        with Peer(server.port) as peer:
            answer = peer.ask(whole)
            assert answer.status == 308
            assert answer.headers["location"].startswith(f"https://{server.address}/v2/")
            assert "www-authenticate" not in answer.headers


def test_plain_http_is_served_when_a_proxy_is_in_front(make_server: MakeServer) -> None:
    server = make_server({"http_serves": "true", "trusted_proxies": "127.0.0.1"})
    assert ask(server.http_port, "/v2/")[0] == 401
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "registry.example.org"}
    status, headers, _ = ask(server.http_port, "/v2/", forwarded)
    assert status == 401
    assert "https://registry.example.org/auth/token" in headers["www-authenticate"]


def test_plain_http_alone_is_served(make_server: MakeServer) -> None:
    server = make_server({"http_serves": "true"}, start=False)
    server.environment["DTR_HTTPS_ADDRESS"] = ""
    server.start()
    assert ask(server.http_port, "/v2/")[0] == 401
    assert f"http://localhost:{server.http_port}/" in server.greeting
    assert not (server.directory / "tls").exists()


def test_the_authority_is_served_on_both_addresses(make_server: MakeServer) -> None:
    server = make_server()
    authority = server.ca.read_bytes()
    assert authority.startswith(b"-----BEGIN CERTIFICATE-----")
    status, _, body = ask(server.http_port, "/ca")
    assert (status, body) == (200, authority)
    assert Client(server, None).send("GET", "/ca").body == authority


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Settings with a certificate of the operator's own."""
    made = ensure_certificate(tmp_path / "own", ["localhost"])
    return {"tls.certificate": str(made.chain), "tls.key": str(made.key)}


def test_a_certificate_of_ones_own_is_used(make_server: MakeServer, own: dict[str, str], tmp_path: Path) -> None:
    server = make_server(own)
    context = ssl.create_default_context(cafile=tmp_path / "own/ca.pem")
    with Peer(server.port, context) as peer:
        assert peer.ask(request("GET", "/_ping")).status == 200
        assert peer.ask(request("GET", "/ca")).status == 404
    assert not (server.directory / "tls").exists()
    assert "/ca" not in server.greeting


def test_the_authority_of_ones_own_certificate_is_served(
    make_server: MakeServer, own: dict[str, str], tmp_path: Path
) -> None:
    server = make_server({**own, "tls.ca": str(tmp_path / "own/ca.pem")})
    assert ask(server.http_port, "/ca")[2] == (tmp_path / "own/ca.pem").read_bytes()


@pytest.mark.parametrize("damage", ["certificate", "key", "pair", "missing", "empty"])
def test_a_certificate_that_cannot_be_used_is_named(
    make_server: MakeServer, own: dict[str, str], tmp_path: Path, damage: str
) -> None:
    broken = Path(own["tls.key"] if damage == "key" else own["tls.certificate"])
    if damage == "pair":
        own["tls.key"] = str(ensure_certificate(tmp_path / "other", ["localhost"]).key)
    elif damage == "missing":
        broken.unlink()
    else:
        broken.write_bytes(b"" if damage == "empty" else b"-----BEGIN CERTIFICATE-----\nnothing\n")
    message = refusal(make_server(own, start=False))
    assert str(broken) in message


# --- the end ---


class Busy:
    """A slow push and a slow pull, both in the middle."""

    def __init__(self, server: Server) -> None:
        self.client = Client(server)
        server.make_repository("admin/busy")
        self.blob = os.urandom(40_000_000)
        self.digest = self.client.push_blob("admin/busy", self.blob)
        self.location = self.client.start_upload("admin/busy")
        authorization = f"Bearer {self.client.token('repository:admin/busy:pull,push,delete')}"
        self.push = Peer(server.port, server.tls)
        self.push.send(request("PATCH", self.location, Transfer_Encoding="chunked", Authorization=authorization))
        self.push.send(b"%x\r\n" % len(BIG) + BIG[:5_000_000])
        wait_until(lambda: self._has_arrived(server))
        self.pull = Peer(server.port, server.tls, buffer=65536)
        self.pull.send(request("GET", f"/v2/admin/busy/blobs/{self.digest}", Authorization=authorization))
        self.first = self.pull.receive(1000)
        server.clients += [self.push, self.pull]

    @staticmethod
    def _has_arrived(server: Server) -> bool:
        """Whether the server has all that was sent: what is on its way when it ends is lost."""
        parts = (server.directory / "blobs").rglob("*.part")
        return [one.stat().st_size for one in parts] == [5_000_000]

    def finish_push(self) -> None:
        answer = self.push.send(BIG[5_000_000:] + b"\r\n0\r\n\r\n").answer()
        assert answer.status == 202
        assert answer.headers["range"] == f"0-{len(BIG) - 1}"
        assert answer.closes

    def finish_pull(self) -> None:
        self.pull.unread(self.first)
        answer = self.pull.answer()
        assert digest_of(answer.body) == self.digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_before_the_end(make_server: MakeServer, number: signal.Signals) -> None:
    server = make_server({"drain_seconds": 60}, workers=2)
    running = Busy(server)
    server.process.send_signal(number)
    wait_until(lambda: not _answers(server.port))
    wait_until(lambda: not _answers(server.http_port))
    running.finish_push()
    running.finish_pull()
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log
    server.start()
    answer = running.client.call("PUT", f"{running.location}?digest={digest_of(BIG)}")
    assert answer.status == 201
    assert running.client.get_blob("admin/busy", digest_of(BIG)).body == BIG


def test_what_does_not_finish_in_time_is_cut(make_server: MakeServer) -> None:
    server = make_server({"drain_seconds": 1})
    running = Busy(server)
    assert server.stop() == 0
    assert running.push.read_all() == b""
    _, _, body = (running.first + running.pull.read_all()).partition(b"\r\n\r\n")
    assert len(body) < len(running.blob)
    assert "Traceback" not in server.log
    assert "requests are cut" in server.log
    server.start()
    # What arrived is kept: the client goes on from there.
    offset = running.client.call("GET", running.location).expect(204).headers["range"]
    assert offset == "0-4999999"
    headers = {"Content-Type": "application/octet-stream"}
    running.client.call("PATCH", running.location, BIG[5_000_000:], headers).expect(202)
    assert running.client.call("PUT", f"{running.location}?digest={digest_of(BIG)}").status == 201


def test_an_idle_server_ends_at_once(make_server: MakeServer) -> None:
    server = make_server({"drain_seconds": 300}, workers=2)
    with Peer(server.port, server.tls) as peer:
        peer.ask(request("GET", "/_ping"))
        assert server.stop(seconds=30) == 0


# --- crashes ---


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(make_server: MakeServer) -> None:
    server = make_server(workers=3)
    running = Busy(server)
    used = {server.worker_of(peer.socket.getsockname()[1]) for peer in (running.push, running.pull)}
    victim = next(worker for worker in server.worker_pids if worker not in used)
    os.kill(victim, signal.SIGKILL)
    running.push.send(BIG[5_000_000:] + b"\r\n0\r\n\r\n")
    assert running.push.answer().status == 202
    running.finish_pull()
    wait_until(lambda: len(server.worker_pids) == 3 and victim not in server.worker_pids)
    wait_until(lambda: "is started again" in server.log)
    for _ in range(20):  # whatever worker has them
        with Peer(server.port, server.tls) as peer:
            assert peer.ask(request("GET", "/_ping")).status == 200
    assert server.stop() == 0


def test_a_worker_that_is_told_to_end_is_replaced(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    (victim, _) = server.worker_pids
    os.kill(victim, signal.SIGTERM)
    wait_until(lambda: len(server.worker_pids) == 2 and victim not in server.worker_pids)
    assert Client(server).call("GET", "/v2/").status == 200


def test_workers_do_not_outlive_their_parent(make_server: MakeServer) -> None:
    server = make_server(workers=3)
    workers = server.worker_pids
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(10)
    for worker in workers:
        wait_for_end(worker)
    server.start()
    assert Client(server).call("GET", "/v2/").status == 200


def test_orphans_finish_what_they_do(make_server: MakeServer) -> None:
    server = make_server({"drain_seconds": 60})
    running = Busy(server)
    workers = server.worker_pids
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait(10)
    spent = _cpu_seconds(workers[0])
    time.sleep(0.5)  # while it waits it does nothing
    assert _cpu_seconds(workers[0]) - spent < 0.4
    running.finish_push()
    running.finish_pull()
    wait_for_end(workers[0])


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_workers_that_crash_again_and_again_end_the_server(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    killed: set[int] = set()

    def kill_the_new_ones() -> bool:
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            for worker in set(server.worker_pids) - killed:
                killed.add(worker)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        return server.process.poll() is not None

    wait_until(kill_the_new_ones)
    assert server.process.returncode == 1
    assert len(killed) < 20
    assert "workers end as soon as they are started" in server.log.splitlines()[-1]
    server.start()


# --- several workers, several trees ---


def test_who_only_connects_takes_no_files_from_the_others(make_server: MakeServer) -> None:
    server = make_server({"http_serves": "true"}, start=False)
    server.start(prefix=("prlimit", "--nofile=100:300"))
    idle = [
        socket.create_connection(("127.0.0.1", port))
        for _ in range(300)
        for port in (server.port, server.http_port)
    ]
    server.clients += idle
    server.cli("repository", "create", "admin/app")
    client = Client(server)
    digest = client.push_blob("admin/app", BIG)
    assert client.get_blob("admin/app", digest).expect(200).body == BIG
    assert len(list(Path(f"/proc/{server.worker_pids[0]}/fd").iterdir())) < 200
    assert "too many connections" in server.log
    assert "Too many open files" not in server.log


def test_workers_share_the_connections(make_server: MakeServer) -> None:
    server = make_server(workers=2)
    peers = [Peer(server.port, server.tls) for _ in range(40)]
    server.clients += peers
    for peer in peers:
        assert peer.ask(request("GET", "/_ping")).status == 200
    counts = [server.worker_of(peer.socket.getsockname()[1]) for peer in peers]
    assert set(counts) == set(server.worker_pids)


def test_components_may_run_in_trees_of_their_own(make_server: MakeServer, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blobs = {"storage.filesystem.root": str(tmp_path / "blobs")}
    registry = make_server({"components": "registry", **blobs}, database="postgresql")
    shared = {**blobs, "database.url": registry.environment["DTR_DATABASE__URL"]}
    garant = make_server({"components": "garant", **shared})
    other = make_server({"components": "registry,jobrunner", **shared}, workers=2)
    registry.make_repository("admin/a")
    client = Client(garant)
    assert client.send("GET", "/v2/").status == 404
    token = client.token("repository:admin/a:pull,push")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
    first, second = Client(registry), Client(other)
    assert first.send("GET", "/auth/token").status == 404
    location = first.send("POST", "/v2/admin/a/blobs/uploads/", b"", headers).expect(202).headers["location"]
    first.send("PATCH", location, BIG[:5_000_000], headers).expect(202)
    second.send("PATCH", location, BIG[5_000_000:], headers).expect(202)
    first.send("PUT", f"{location}?digest={digest_of(BIG)}", b"", headers).expect(201)
    for one in (first, second):
        assert one.send("GET", f"/v2/admin/a/blobs/{digest_of(BIG)}", headers=headers).body == BIG


def test_the_components_option_chooses_them(make_server: MakeServer) -> None:
    server = make_server(start=False).start(options=("--components", "garant"))
    client = Client(server)
    assert client.token()
    assert client.send("GET", "/v2/").status == 404


# --- secrets ---


def test_no_secret_is_written_anywhere(make_server: MakeServer) -> None:
    server = make_server({"log.level": "debug", "http_serves": "true"})
    server.make_user("jane", "the-password-of-jane")
    server.make_repository("jane/a")

    def post(client: Client, form: dict[str, str]):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return client.send("POST", "/auth/token", urlencode(form).encode(), kind)

    secrets = [PASSWORD, "the-password-of-jane", "a-wrong-password"]
    for user, password in (("admin", PASSWORD), ("jane", "the-password-of-jane"), ("jane", "a-wrong-password")):
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        secrets.append(basic)
        client = Client(server, user, password)
        client.send("GET", "/auth/token?service=dtr", headers={"Authorization": f"Basic {basic}"})
        client.send("GET", "/v2/", headers={"Authorization": f"Basic {basic}"})
        common = {"service": "dtr", "client_id": "test"}
        login = {**common, "grant_type": "password", "access_type": "offline"}
        answer = post(client, {**login, "username": user, "password": password})
        if answer.status == 200:
            again = {**common, "grant_type": "refresh_token", "refresh_token": answer.json["refresh_token"]}
            for one in (answer, post(client, again).expect(200)):
                secrets += [value for name, value in one.json.items() if name.endswith("token")]
    jane = Client(server, "jane", "the-password-of-jane")
    jane.push_blob("jane/a", BIG)
    secrets += jane._tokens.values()
    damaged = secrets[-1][:-4] + "AAAA"
    secrets.append(damaged)
    jane.send("GET", "/v2/jane/a/tags/list", headers={"Authorization": f"Bearer {damaged}"})
    jane.send("GET", f"/v2/?access_token={damaged}&password={PASSWORD}")
    ask(server.http_port, f"/v2/?password={PASSWORD}", {"Authorization": f"Bearer {damaged}"})
    assert server.stop() == 0
    log = server.log
    assert log.count('"path"') > 10
    for secret in secrets:
        assert secret not in log
        assert secret not in server.greeting
    for line in log.splitlines():
        json.loads(line)


def test_settings_with_secrets_are_not_logged(make_server: MakeServer, postgresql_cluster: Cluster) -> None:
    url = postgresql_cluster.create().replace("dtr@", "dtr:the-password-of-the-database@")
    server = make_server({"database.url": url, "log.level": "debug"}, start=False)
    server.cli("migrate")
    server.start()
    assert Client(server).call("GET", "/v2/").status == 200
    os.kill(server.worker_pids[0], signal.SIGTERM)
    assert server.stop() == 0
    assert "the-password-of-the-database" not in server.log + server.greeting


# --- what takes long ---


@pytest.fixture(scope="module", autouse=True)
def vain_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A start with a database that takes connections and never answers; it waits beside the other tests."""
    server = Server(tmp_path_factory.mktemp("vain") / "dtr")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server.environment["DTR_DATABASE__URL"] = (
            f"postgresql://dtr:a-secret@127.0.0.1:{silent.getsockname()[1]}/d"
        )
        environment = {**clean_environment(), **server.environment}
        with subprocess.Popen([DTR, "serve"], env=environment, stderr=subprocess.PIPE, text=True) as process:
            yield process
            process.kill()


def test_a_database_that_never_answers_ends_the_start(vain_start: subprocess.Popen[str]) -> None:
    _, message = vain_start.communicate(timeout=120)
    assert vain_start.returncode == 1
    assert "metadata database" in message
    assert "Traceback" not in message
    assert "a-secret" not in message
