"""nginx in front, as `dtr nginx` runs it: clients see what they see without it, and the files leave through it."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.client import Answer, Client
from tests.support.nginx import BEHIND, Nginx, run_nginx
from tests.support.server import DTR, Server, wait_for_end
from tests.support.tools import run
from tests.support.wire import wait_until

from dtr.app import Application
from dtr.backends import Definition
from dtr.pki import ensure_certificate, ensure_client_certificate

LARGE = os.urandom(3_000_000)
DIGEST = f"sha256:{hashlib.sha256(LARGE).hexdigest()}"
HUGE = os.urandom(24_000_000)
"""More than the buffers on the way hold."""
HUGE_DIGEST = f"sha256:{hashlib.sha256(HUGE).hexdigest()}"
SMALL = b"small enough for the database"
SMALL_DIGEST = f"sha256:{hashlib.sha256(SMALL).hexdigest()}"
REPOSITORY = "admin/files"
BLOB = f"/v2/{REPOSITORY}/blobs/{DIGEST}"
SECURITY = ("x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy")
ITS_OWN = {"server", "date", "connection", "x-request-id", "keep-alive"}
"""Headers that differ from answer to answer."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers behind nginx."""
    settings = BEHIND | {"registry.manifest_limit": 100_000}
    shared = Server(tmp_path_factory.mktemp("shared") / "dtr", settings, workers=2).start()
    shared.make_repository(REPOSITORY)
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def nginx(server: Server) -> Iterator[Nginx]:
    with run_nginx(server) as running:
        client = Client(running)
        for blob in (LARGE, HUGE, SMALL):
            client.push_blob(REPOSITORY, blob)
        yield running


@pytest.fixture(scope="module")
def client(nginx: Nginx) -> Client:
    return Client(nginx)


@pytest.fixture
def token(client: Client) -> str:
    """One that is good for a while: the tests of this module may take longer than tokens last."""
    return client.token(f"repository:{REPOSITORY}:pull,push")


def ask_dtr(server: Server, method: str, path: str, headers: dict[str, str]) -> Answer:
    """What dtr itself answers to a proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    connection.request(method, path, headers={"X-Forwarded-Proto": "https", **headers})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


def ask(nginx: Nginx, method: str, path: str, headers: dict[str, str], **how: object) -> Answer:
    """What nginx answers, with every header that it has: one that is there twice fails the test."""
    connection = http.client.HTTPSConnection("localhost", nginx.port, context=nginx.tls, timeout=30)
    connection.request(method, path, headers=headers, **how)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    names = [name.lower() for name, _ in answer.getheaders()]
    assert len(set(names)) == len(names), names
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


# --- answers are the same ---


@pytest.mark.parametrize("digest", [DIGEST, SMALL_DIGEST, f"sha256:{'0' * 64}"], ids=["file", "row", "none"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"Range": "bytes=5-9"},
        {"Range": "bytes=-4"},
        {"Range": "bytes=2000000-"},
        {"Range": "bytes=0-99999999"},
        {"Range": "bytes=99999999-"},
        {"Range": "bytes=500-0"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=0-100000", "If-Range": f'"{DIGEST}"'},
        {"Range": "bytes=0-100000", "If-Range": '"another"'},
        {"Range": "bytes=0-100000", "If-Range": "Sat, 28 Nov 2099 00:00:00 GMT"},
        {"If-None-Match": f'"{DIGEST}"'},
        {"If-None-Match": '"another"'},
        {"If-None-Match": "*"},
        {"If-Match": '"another"'},
        {"If-Match": f'"{DIGEST}"'},
        {"If-Modified-Since": "Sat, 28 Nov 2099 00:00:00 GMT"},
        {"If-Unmodified-Since": "Sat, 28 Nov 1999 00:00:00 GMT"},
    ],
    ids=lambda one: "-".join(one) + (f" {one['Range']}" if "Range" in one else "") or "plain",
)
def test_a_blob_is_answered_as_dtr_itself_does(
    server: Server, nginx: Nginx, token: str, digest: str, method: str, conditions: dict[str, str]
) -> None:
    path, headers = f"/v2/{REPOSITORY}/blobs/{digest}", {"Authorization": f"Bearer {token}", **conditions}
    own, seen = ask_dtr(server, method, path, headers), ask(nginx, method, path, headers)
    assert seen.status == own.status
    assert seen.body == own.body
    own_headers, seen_headers = (
        {name: value for name, value in one.headers.items() if name not in ITS_OWN} for one in (own, seen)
    )
    assert seen_headers == own_headers
    assert "x-request-id" in seen.headers


def test_dtr_names_the_file_only_to_a_proxy_that_can_send_it(server: Server, nginx: Nginx, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "X-Dtr-Files": "other,default"}
    answer = ask_dtr(server, "GET", BLOB, headers).expect(200)
    assert answer.headers["x-accel-redirect"].startswith("/.files/default/")
    assert answer.body == b""
    for names in ("other", "", "defaul"):
        answer = ask_dtr(server, "GET", BLOB, {**headers, "X-Dtr-Files": names}).expect(200)
        assert answer.body == LARGE
        assert "x-accel-redirect" not in answer.headers
    # Nothing is named to those who may not read it.
    assert "x-accel-redirect" not in ask_dtr(server, "GET", BLOB, {"X-Dtr-Files": "default"}).expect(401).headers


def test_no_stranger_is_told_where_a_file_is(make_server: Callable[..., Server]) -> None:
    server = make_server({"http_serves": True, "trusted_proxies": "192.0.2.0/24"})
    server.make_repository(REPOSITORY)
    client = Client(server)
    client.push_blob(REPOSITORY, LARGE)
    answer = client.call("GET", BLOB, headers={"X-Dtr-Files": "default"}).expect(200)
    assert answer.body == LARGE
    assert "x-accel-redirect" not in answer.headers


def test_a_pull_goes_on_while_dtr_stands_still(server: Server, nginx: Nginx, token: str) -> None:
    with begun_pull(nginx, token) as answer:
        for pid in (server.pid, *server.worker_pids):
            os.kill(pid, signal.SIGSTOP)
        try:
            assert hashlib.sha256(answer.read()).hexdigest() == HUGE_DIGEST.partition(":")[2]
        finally:
            for pid in (*server.worker_pids, server.pid):
                os.kill(pid, signal.SIGCONT)


def test_the_files_are_not_to_be_had_by_their_place(server: Server, nginx: Nginx, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    answer = ask_dtr(server, "GET", BLOB, {**headers, "X-Dtr-Files": "default"})
    place = answer.headers["x-accel-redirect"]
    for path in (
        place,
        f"/{place}",
        place.replace("/.files", "/x/../.files"),
        place.replace("/.files", "/%2efiles"),
        place.replace("/.files/", "/.files//"),
        "/.files/default/../../secret.key",
        "/.files/default%2f..%2f..%2fsecret.key",
        "/.files/default/..%2f..%2fsecret.key",
    ):
        answer = ask(nginx, "GET", path, {**headers, "X-Dtr-Files": "default", "X-Accel-Redirect": place})
        # To the log-in, when what is left of the path is the first page.
        led = answer.headers.get("location", "")
        assert answer.status in {400, 404} or (answer.status, led.partition("?")[0]) == (303, "/login"), path
        assert len(answer.body) < 2000 or answer.body.endswith(b"</html>")


def test_what_nginx_cannot_read_dtr_sends(server: Server, nginx: Nginx, client: Client, tmp_path: Path) -> None:
    """Links are not followed by nginx: whoever can make one in a storage must not get at other files by it."""
    content = os.urandom(200_000)
    digest = client.push_blob(REPOSITORY, content)
    file = file_of(server, content)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert client.get_blob(REPOSITORY, digest).expect(200).body == content
    answer = client.call("GET", f"/v2/{REPOSITORY}/blobs/{digest}", headers={"Range": "bytes=3-9"})
    assert answer.expect(206).body == content[3:10]
    nginx.wait_for_log("symbolic links")
    assert "Traceback" not in server.log


def test_a_file_that_is_gone_is_told_as_without_nginx(server: Server, nginx: Nginx, client: Client) -> None:
    content = os.urandom(200_000)
    digest = client.push_blob(REPOSITORY, content)
    file_of(server, content).unlink()
    assert client.get_blob(REPOSITORY, digest).expect(404).codes == ["BLOB_UNKNOWN"]
    # It is known to be missing now: whoever pushes is not told that it is there, and brings it again.
    client.call("HEAD", f"/v2/{REPOSITORY}/blobs/{digest}").expect(404)
    client.push_blob(REPOSITORY, content)
    assert client.get_blob(REPOSITORY, digest).expect(200).body == content


def test_a_file_of_another_size_is_not_named(make_server: Callable[..., Server]) -> None:
    server = make_server(BEHIND)
    server.make_repository(REPOSITORY)
    with run_nginx(server) as nginx:
        client = Client(nginx)
        client.push_blob(REPOSITORY, LARGE)
        os.truncate(file_of(server, LARGE), 150_000)
        answer = client.get_blob(REPOSITORY, DIGEST)
        assert (answer.status, answer.codes) == (500, ["UNKNOWN"])


def test_every_answer_has_the_security_headers_once(server: Server, nginx: Nginx, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    for path, status in (
        (BLOB, 200),
        (f"/v2/{REPOSITORY}/tags/list", 200),
        ("/v2/", 200),
        ("/api/v0/meta/features", 401),
        ("/", 303),
        ("/login", 200),
        ("/_ping", 200),
        ("/ca", 200),
        ("/nginx_status", 200),
        ("/metrics", 404),
        ("/nothing", 404),
    ):
        answer = ask(nginx, "GET", path, headers)  # none of them is there twice
        assert answer.status == status, path
        assert {*SECURITY, "strict-transport-security"} <= answer.headers.keys(), path
    plain = run("curl", "--silent", "--include", f"http://localhost:{nginx.http_port}/v2/").stdout.lower()
    assert all(plain.count(f"{name}:") == 1 for name in SECURITY)
    assert "strict-transport-security" not in plain


def test_what_only_operators_ask_for(server: Server, nginx: Nginx) -> None:
    assert json.loads(ask(nginx, "GET", "/_ping", {}).expect(200).body)["Healthy"] is True
    assert ask(nginx, "GET", "/ca", {}).expect(200).body == nginx.ca.read_bytes()
    assert ask(nginx, "GET", "/nginx_status", {}).expect(200).body.startswith(b"Active connections: ")
    plain = f"http://localhost:{nginx.http_port}"
    for path in ("_ping", "ca", "health"):
        assert run("curl", "--silent", "--fail", f"{plain}/{path}").stdout
    # Anything else in the clear is sent to HTTPS, also at the address of HTTPS, which docker tries so on loopback.
    for url in (plain, f"http://localhost:{nginx.port}"):
        head = run("curl", "--silent", "--head", f"{url}/v2/a/b?c=d").stdout.lower()
        assert head.startswith("http/1.1 308")
        assert f"location: https://localhost:{nginx.port}/v2/a/b?c=d" in head


def test_clients_are_who_nginx_saw(server: Server, nginx: Nginx, token: str) -> None:
    """What they say of themselves counts for nothing."""
    lies = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    challenge = ask(nginx, "GET", "/v2/", lies).expect(401).headers["www-authenticate"]
    assert f'realm="https://localhost:{nginx.port}/auth/token"' in challenge
    path = f"/v2/{REPOSITORY}/blobs/sha256:{'a' * 64}"
    ask(nginx, "GET", path, {**lies, "Authorization": f"Bearer {token}"}).expect(404)
    wait_until(lambda: path in server.log)
    (line,) = [line for line in server.log.splitlines() if path in line]
    assert json.loads(line)["remote"] == "127.0.0.1"


# --- bodies ---


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_layers_are_pushed_and_pulled(
    nginx: Nginx, client: Client, tmp_path: Path, protocol: str, framing: str
) -> None:
    layer = tmp_path / "layer"
    layer.write_bytes(os.urandom(9_000_000))
    digest = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
    headers = ["--header", f"Authorization: Bearer {client.token(f'repository:{REPOSITORY}:pull,push')}"]
    url = f"https://localhost:{nginx.port}"
    common = ["curl", "--silent", "--show-error", "--fail", "--cacert", nginx.ca, protocol, *headers]
    upload = client.start_upload(REPOSITORY)
    # From a pipe curl does not know the length.
    begin = ["sh", "-c", 'exec "$@" <"$0"', layer] if framing == "chunked" else []
    done = run(
        *begin, *common, "--request", "PATCH", "--header", "Expect: 100-continue", "--write-out",
        "%{http_version}", "--upload-file", "-" if framing == "chunked" else layer, f"{url}{upload}",
    )  # fmt: skip
    assert done.stdout == {"--http1.1": "1.1", "--http2": "2"}[protocol]
    client.call("PUT", f"{upload}?digest={digest}").expect(201)
    run(*common, "--output", tmp_path / "pulled", f"{url}/v2/{REPOSITORY}/blobs/{digest}")
    assert (tmp_path / "pulled").read_bytes() == layer.read_bytes()


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_a_refusal_reaches_a_client_that_still_sends(
    nginx: Nginx, client: Client, tmp_path: Path, protocol: str
) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(6_000_000))
    common = ["curl", "--silent", "--show-error", "--cacert", nginx.ca, protocol, "--header", "Expect:"]
    url = f"https://localhost:{nginx.port}/v2/{REPOSITORY}"
    for more in ([], ["--header", "Transfer-Encoding: chunked"] if protocol == "--http1.1" else []):
        out = ["--output", tmp_path / "answer", "--write-out", "%{http_code}", *more]
        status = run(
            *common, *out, "--request", "POST", "--data-binary", f"@{body}", f"{url}/blobs/uploads/"
        ).stdout
        assert status == "401"
        allowed = ["--header", f"Authorization: Bearer {client.token(f'repository:{REPOSITORY}:pull,push')}"]
        status = run(*common, *out, *allowed, "--upload-file", body, f"{url}/manifests/v1").stdout
        assert status == "413"
        assert "a manifest has at most 100000 bytes" in (tmp_path / "answer").read_text()


def test_heads_have_a_bound(nginx: Nginx) -> None:
    answer = ask(nginx, "GET", "/v2/", {f"X-Much-{number}": "x" * 7000 for number in range(8)})
    assert answer.status == 401
    assert ask(nginx, "GET", "/v2/", {"X-Much": "x" * 20_000}).status == 400
    assert ask(nginx, "GET", f"/v2/{'x' * 20_000}", {}).status == 414
    assert ask(nginx, "GET", "/v2/", {f"X-Much-{number}": "x" * 7000 for number in range(20)}).status == 400


# --- slow clients ---


@contextmanager
def begun_pull(nginx: Nginx, token: str) -> Iterator[http.client.HTTPResponse]:
    """A pull of something huge, whose client has not read more than the head."""
    connection = http.client.HTTPSConnection("localhost", nginx.port, context=nginx.tls, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.request(
        "GET", f"/v2/{REPOSITORY}/blobs/{HUGE_DIGEST}", headers={"Authorization": f"Bearer {token}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    try:
        yield answer
    finally:
        connection.close()


class Dripper(threading.Thread):
    """A client that sends a head or a body byte by byte, until it is cut; `seconds` says when that was."""

    def __init__(self, nginx: Nginx, head: bytes, drip: bytes) -> None:
        super().__init__(daemon=True)
        self.seconds = 0.0
        self._drip = drip
        self._socket = nginx.tls.wrap_socket(
            socket.create_connection(("localhost", nginx.port)), server_hostname="localhost"
        )
        self._socket.sendall(head)
        self._began = time.monotonic()

    def run(self) -> None:
        self._socket.settimeout(0.5)
        try:
            while self.seconds < 100:
                self.seconds = time.monotonic() - self._began
                self._socket.sendall(self._drip)
                try:
                    if not self._socket.recv(1000):
                        break
                except TimeoutError:
                    pass
        except OSError:
            pass
        self._socket.close()


@pytest.fixture(scope="module", autouse=True)
def drippers(nginx: Nginx, client: Client) -> dict[str, Dripper]:
    """They begin before everything else, and last for as long as they can: nobody waits for them but one test."""
    token = client.token(f"repository:{REPOSITORY}:pull,push")
    bearer = f"Authorization: Bearer {token}\r\nHost: localhost:{nginx.port}\r\n".encode()
    upload = client.start_upload(REPOSITORY).encode()
    made = {
        "head": Dripper(nginx, b"GET /v2/ HTTP/1.1\r\nX-Slow: ", b"x"),
        "layer": Dripper(
            nginx, b"PATCH %b HTTP/1.1\r\n%bContent-Length: 5000000\r\n\r\n" % (upload, bearer), b"x"
        ),
        "form": Dripper(
            nginx, b"POST /auth/token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Host: localhost\r\nContent-Length: 5000\r\n\r\n", b"x"
        ),
        "nothing": Dripper(nginx, b"", b""),
    }  # fmt: skip
    for one in made.values():
        one.start()
    return made


# --- its life ---


def file_of(server: Server, content: bytes) -> Path:
    """The file of a blob in the storage of the server."""
    files = [one for one in (server.directory / "blobs").rglob("*") if one.is_file() and not one.is_symlink()]
    (found,) = [one for one in files if one.stat().st_size == len(content) and one.read_bytes() == content]
    return found


def workers_of(nginx: Nginx) -> set[int]:
    """The processes that serve; none yet in the moment after it began to listen."""
    return {int(one) for one in Path(f"/proc/{nginx.pid}/task/{nginx.pid}/children").read_text().split()}


def test_reloads_drop_no_connection(server: Server, nginx: Nginx, client: Client, token: str) -> None:
    """Neither a download under way, nor requests one after the other, at whose end a connection may be closed."""
    stop = threading.Event()
    failures: list[object] = []
    served = 0

    def keep_asking() -> None:
        nonlocal served
        mine = Client(nginx)
        while not stop.is_set():
            try:
                mine.call("GET", f"/v2/{REPOSITORY}/tags/list").expect(200)
                served += 1
            except BaseException as error:
                failures.append(error)
        mine.close()

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    with begun_pull(nginx, token) as answer:
        for one in threads:
            one.start()
        content, deadline = b"", time.monotonic() + 60
        while len(content) < 10_000_000 or (served <= 20 and time.monotonic() < deadline):
            os.utime(nginx.directory / "tls" / "server.pem")
            nginx.reload()
            content += answer.read(2_000_000 if len(content) < 10_000_000 else 100_000)
        stop.set()
        for one in threads:
            one.join()
        content += answer.read()
    assert content == HUGE
    assert failures == []
    assert served > 20


def test_a_change_of_settings_and_certificate_is_taken_over(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "nginx.yaml"
    file.write_text("tls: {reload_seconds: 60}\n")
    made = Nginx(server, directory=tmp_path / "nginx")
    nginx = made.start("--config", str(file))
    try:
        before, old = ssl.get_server_certificate(("localhost", nginx.port)), workers_of(nginx)
        # A new certificate of their own: the file says where it is.
        new = ensure_certificate(tmp_path / "own", ())
        authority = new.authority
        assert authority is not None
        file.write_text(f"tls: {{certificate: {new.chain}, key: {new.key}, ca: {authority}}}\n")
        nginx.reload()
        wait_until(lambda: not old & workers_of(nginx))  # for a moment those of before take connections, too
        assert ssl.get_server_certificate(("localhost", nginx.port)) != before
        assert run("curl", "--silent", "--cacert", authority, f"https://localhost:{nginx.port}/ca").stdout == (
            authority.read_text()
        )
        # What is wrong is told, and what was right goes on.
        for content, reason in (
            ("nginx: {program: [}", "is not YAML"),
            ("nginx: {client_certificates: on}", "nginx.client_ca is needed"),
            (
                f"tls: {{certificate: {new.chain}, key: {tmp_path / 'other-key.pem'}}}",
                "nginx refuses its configuration",
            ),
        ):
            (tmp_path / "other-key.pem").write_text(server_key(server))
            file.write_text(content)
            nginx.process.send_signal(signal.SIGHUP)
            nginx.wait_for_log(reason)
            run("curl", "--silent", "--fail", "--cacert", authority, f"https://localhost:{nginx.port}/_ping")
        assert nginx.log.count("nginx reloaded") == 1
    finally:
        nginx.close()


def test_client_certificates_are_asked_for(server: Server, tmp_path: Path) -> None:
    client, stranger = (ensure_client_certificate(tmp_path / name) for name in ("clients", "strangers"))
    settings = {"nginx.client_ca": client.authority, "nginx.client_certificates": "on"}
    with run_nginx(server, settings=settings, directory=tmp_path / "nginx") as nginx:
        url, curl = f"https://localhost:{nginx.port}/v2/", ["curl", "--silent", "--cacert", str(nginx.ca)]
        answer = run(*curl, "--include", url).stdout
        assert answer.startswith("HTTP/2 400")
        assert '"code":"UNAUTHORIZED"' in answer
        assert answer.lower().count("strict-transport-security") == 1
        known, unknown = (["--cert", str(one.chain), "--key", str(one.key)] for one in (client, stranger))
        status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
        assert run(*curl, *known, *status, url).stdout == "401"  # nginx lets it in; then comes dtr
        assert run(*curl, *unknown, *status, url).stdout == "400"
        nginx._settings["nginx.client_certificates"] = "optional"
        nginx.stop()
        nginx.start()
        assert [run(*curl, *one, *status, url).stdout for one in ([], known, unknown)] == ["401", "401", "400"]


def test_one_of_two_hosts_may_fail(make_server: Callable[..., Server]) -> None:
    first = make_server(BEHIND)
    shared = {
        "database.url": f"sqlite:///{first.directory}/metadata.db",
        "storage.filesystem.root": first.directory / "blobs",
    }
    second = Server(first.directory.with_name("second"), BEHIND | shared)
    second.directory.mkdir()
    second.start()
    try:
        with run_nginx(first, second) as nginx:
            client = Client(nginx)
            first.kill()
            assert {client.send("GET", "/v2/").status for _ in range(20)} == {401}
            second.kill()
            answer = client.send("GET", "/v2/")
            assert (answer.status, answer.codes) == (503, ["UNAVAILABLE"])
            assert answer.headers["retry-after"] == "5"
            assert {*SECURITY, "strict-transport-security"} <= answer.headers.keys()
            first.start()
            wait_until(lambda: client.send("GET", "/v2/").status == 401)
    finally:
        second.close()


def test_a_new_storage_of_files_is_sent_from_soon(
    server: Server, nginx: Nginx, client: Client, tmp_path: Path
) -> None:
    before = nginx.log.count("nginx reloaded")

    async def add(application: Application) -> None:
        await application.backends.begin()
        definition = Definition(driver="filesystem", parameters={"root": str(tmp_path / "archive")})
        await application.backends.put("archive", definition)
        await application.backends.make_default("archive")

    (tmp_path / "archive").mkdir()
    server.do(add)
    nginx.wait_for_log("nginx reloaded", before + 1)
    # Every process of dtr hears of it within about a second, too; until then it stores where it did before.
    content, digest = b"", ""

    def is_stored_there() -> bool:
        nonlocal content, digest
        content = os.urandom(300_000)
        digest = client.push_blob(REPOSITORY, content)
        return any(one.is_file() and one.read_bytes() == content for one in (tmp_path / "archive").rglob("*"))

    wait_until(is_stored_there)
    headers = {
        "Authorization": f"Bearer {client.token(f'repository:{REPOSITORY}:pull,push')}",
        "X-Dtr-Files": "archive",
    }
    answer = ask_dtr(server, "GET", f"/v2/{REPOSITORY}/blobs/{digest}", headers)
    assert answer.headers["x-accel-redirect"].startswith("/.files/archive/")
    assert client.get_blob(REPOSITORY, digest).expect(200).body == content
    assert "archive" in (nginx.directory / "nginx" / "nginx.conf").read_text()


def test_it_ends_in_order(server: Server, token: str, tmp_path: Path) -> None:
    own = run_nginx(server, settings={"drain_seconds": 60}, directory=tmp_path)
    with own as nginx, begun_pull(nginx, token) as answer:
        began = time.monotonic()
        nginx.process.terminate()

        def lets_in() -> bool:
            with socket.socket() as somebody:
                return somebody.connect_ex(("127.0.0.1", nginx.port)) == 0

        wait_until(lambda: not lets_in())  # nobody new
        assert answer.read() == HUGE
        assert nginx.process.wait(60) == 0
        assert time.monotonic() - began < 45  # it has not waited for longer than for its clients


def test_its_end_has_a_bound(server: Server, token: str, tmp_path: Path) -> None:
    own = run_nginx(server, settings={"drain_seconds": 1}, directory=tmp_path)
    with own as nginx, begun_pull(nginx, token):
        began = time.monotonic()
        assert nginx.stop() == 0
        assert 1 <= time.monotonic() - began < 10


def test_nginx_and_dtr_do_not_outlive_each_other(server: Server, tmp_path: Path) -> None:
    with run_nginx(server, directory=tmp_path) as nginx:
        master = nginx.pid
        nginx.close()
        wait_for_end(master)
        nginx.start()
        master = nginx.pid
        wait_until(lambda: workers_of(nginx))
        workers = workers_of(nginx)
        os.kill(master, signal.SIGKILL)
        assert nginx.process.wait(20) == 1
        for worker in workers:
            wait_for_end(worker)


def test_what_keeps_it_from_starting_is_told(server: Server, nginx: Nginx, tmp_path: Path) -> None:
    def refusal(**changes: object) -> str:
        own = {f"DTR_{name.upper()}": str(value) for name, value in changes.items()}
        return run(DTR, "nginx", environment={**nginx.environment, **own}, fails=True).stderr

    assert "runs already" in refusal()
    elsewhere = {"data_dir": tmp_path / "other"}
    assert "there is no program nowhere" in refusal(**elsewhere, nginx__program="nowhere")
    assert "Address already in use" in refusal(**elsewhere)
    assert "nginx.upstreams" in refusal(**elsewhere, nginx__upstreams="", http_serves="false")
    odd = tmp_path / "a $name"
    odd.mkdir()
    assert "cannot be told the path" in refusal(data_dir=odd)


# --- and at the end ---


def test_slow_clients_are_cut(drippers: dict[str, Dripper]) -> None:
    for one in drippers.values():
        one.join(110)
    seconds = {name: round(one.seconds) for name, one in drippers.items()}
    assert seconds.pop("nothing") <= 65  # the time for a first request is nginx's own
    assert all(25 <= one <= 45 for one in seconds.values()), seconds


def server_key(server: Server) -> str:
    return (server.directory / "tls" / "server-key.pem").read_text()
