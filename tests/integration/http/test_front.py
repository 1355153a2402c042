"""What is done for every request, whatever answers it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable

import pytest
from tests.support.wire import Opened, Peer, Site, answer, chunked, request, start, wait_until

from dtr.http.bodies import BodyTooLarge, read_body
from dtr.http.front import Facts, Front
from dtr.http.v2.body import RequestBody
from dtr.registry import BlobTooLarge

Connect = Callable[..., Peer]
BIG = os.urandom(3_000_000)
pytestmark = pytest.mark.parametrize("loop_kind", ["uvloop"], indirect=True)


@pytest.fixture
def facts(site: Site) -> list[Facts]:
    """Of the requests that were answered. The front is before the site's application."""
    return put_front(site)


def put_front(site: Site, routes=None, **options) -> list[Facts]:
    noted: list[Facts] = []
    running = []
    site.app = Front(
        routes or {},
        site._serve,
        finished=lambda _, facts: (noted.append(facts), running.pop())[0],
        started=lambda: running.append(1),
        **options,
    )
    return noted


def the_only(facts: list[Facts]) -> Facts:
    wait_until(lambda: facts)
    (one,) = facts
    return one


# --- who answers ---


def test_a_path_with_a_text_within_has_an_application_of_its_own(site: Site, connect: Connect) -> None:
    def named(name: str):
        async def application(_scope, _receive, send) -> None:
            body = name.encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return application

    routes = {"v2": named("registry"), "/whole/path": named("whole"), "whole": named("first")}
    put_front(site, routes, within={"v2": ("/_mark/", named("within"))})
    for path, name in (
        ("/v2/", b"registry"),
        ("/v2/a/_mark/x", b"within"),
        ("/v2/_mark/", b"within"),
        ("/v2/a/_mark", b"registry"),
        ("/whole/path", b"whole"),
        ("/whole/a/_mark/x", b"first"),
    ):
        assert connect(site).ask(request("GET", path)).body == name, path


# --- bytes are counted ---


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("path", ["/file", "/plain"])
@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_the_bytes_of_a_body_are_counted(
    site: Site, connect: Connect, facts: list[Facts], framing: str, path: str, size: int
) -> None:
    data = BIG[:size]
    if framing == "chunked":
        whole = request("PUT", path, chunked(data), Transfer_Encoding="chunked")
    else:
        whole = request("PUT", path, data)
    got = connect(site).ask(whole)
    assert got.status == 201
    one = the_only(facts)
    assert one.bytes_in == size
    assert one.bytes_out == len(got.body)
    assert one.status == 201
    assert one.seconds > 0


def test_the_bytes_of_a_body_that_was_cut_are_counted(site: Site, connect: Connect, facts: list[Facts]) -> None:
    connect(site).send(request("PUT", "/file", BIG)[:-1_000_000]).finish_writing().read_all()
    assert 1_500_000 < the_only(facts).bytes_in < 2_000_001


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}])
@pytest.mark.parametrize("size", [1, 60_000])
def test_the_bytes_of_a_body_that_is_taken_again_are_counted_once(
    site: Site, connect: Connect, facts: list[Facts], size: int, headers: dict[str, str]
) -> None:
    """As the last request of an upload does with a small body: the server has given it, and has it no more."""

    async def again(scope, receive, send) -> None:
        body = RequestBody(scope, receive)
        taken = [await body.read(), await body.read(), b"".join([piece async for piece in body.pieces()])]
        for _ in range(2):
            with tempfile.TemporaryFile() as stored:
                hasher = hashlib.sha256()
                assert await body.into_file(Opened(stored.fileno()), hasher, size) == size
                taken.append(os.pread(stored.fileno(), size + 1, 0))
                assert hasher.digest() == hashlib.sha256(taken[-1]).digest()
                with pytest.raises(BlobTooLarge):
                    await body.into_file(Opened(stored.fileno()), hasher, size - 1)
        assert taken == [BIG[:size]] * 5
        await answer(send, 201)

    site.routes["/again"] = again
    peer = connect(site)
    for _ in range(2):
        peer.send(request("PUT", "/again", BIG[:size], **headers))
        assert [peer.answer().status for _ in range(1 + len(headers))] == [100, 201][1 - len(headers) :]
    wait_until(lambda: len(facts) == 2)
    assert [(one.status, one.bytes_in) for one in facts] == [(201, size)] * 2


def test_the_bytes_of_a_file_are_counted(site: Site, connect: Connect, facts: list[Facts]) -> None:
    site.blob.write_bytes(BIG)
    connect(site).ask(request("GET", "/blob?5-2000000"))
    assert the_only(facts).bytes_out == 2_000_000


def test_of_a_file_that_was_cut_the_bytes_that_were_sent_are_counted(
    site: Site, connect: Connect, facts: list[Facts]
) -> None:
    with site.blob.open("wb") as file:
        file.truncate(1 << 32)
    peer = connect(site).send(request("GET", "/blob"))
    for _ in range(100):
        assert peer.receive()
    peer.reset()
    assert 0 < the_only(facts).bytes_out < 1 << 32


# --- bodies that nobody reads ---


@pytest.mark.parametrize("status", [401, 404, 413])
@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_refusal_that_leaves_the_body_unread_counts_as_what_it_is(
    site: Site, connect: Connect, facts: list[Facts], status: int, size: int
) -> None:
    for whole in (
        request("PUT", f"/early?{status}", BIG[:size]),
        request("PUT", f"/early?{status}", chunked(BIG[:size]), Transfer_Encoding="chunked"),
    ):
        facts.clear()
        assert connect(site).ask(whole).status == status
        one = the_only(facts)
        assert (one.status, one.bytes_in) == (status, 0)


def test_a_body_over_its_limit_counts_as_what_it_is(site: Site, connect: Connect, facts: list[Facts]) -> None:
    async def limited(scope, receive, send) -> None:
        try:
            await read_body(scope, receive, 1000)
        except BodyTooLarge:
            await answer(send, 413)

    site.routes["/limited"] = limited
    for path in ("/limited", "/file?limit=1000"):
        for whole in (
            request("PUT", path, BIG),
            request("PUT", path, chunked(BIG, 500), Transfer_Encoding="chunked"),
            request("PUT", path, BIG[:1001]),
        ):
            facts.clear()
            assert connect(site).ask(whole).status == 413
            assert the_only(facts).status == 413


def test_a_client_that_goes_away_is_no_error(site: Site, connect: Connect, facts: list[Facts]) -> None:
    gate = asyncio.Event()

    async def late(scope, receive, send) -> None:
        await gate.wait()
        for _ in range(1000):
            await answer(send, 200, b"x" * 100_000)
            raise AssertionError("nobody is there to answer")

    site.routes["/late"] = late
    peer = connect(site).send(request("GET", "/late"))
    wait_until(lambda: site.tasks)
    peer.reset()
    wait_until(lambda: site.connections == 0)
    site.call(gate.set)
    assert the_only(facts).status == 200


def test_an_application_is_told_to_stop_when_its_client_goes_away(
    site: Site, connect: Connect, facts: list[Facts]
) -> None:
    sent = []

    async def endless(scope, receive, send) -> None:
        await start(send, 200, 1 << 40)
        while True:
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            sent.append(1)

    site.routes["/endless"] = endless
    peer = connect(site).send(request("GET", "/endless"))
    peer.receive(1000)
    peer.reset()
    assert the_only(facts).status == 200
    assert sent


# --- applications that fail ---


def test_an_application_that_fails_is_answered_for(
    site: Site, connect: Connect, facts: list[Facts], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope, receive, send) -> None:
        raise ValueError("an inner secret")

    site.routes["/broken"] = broken
    peer = connect(site)
    for whole in (request("GET", "/broken"), request("PUT", "/broken", BIG)):
        facts.clear()
        caplog.clear()
        got = peer.ask(whole)
        assert got.status == 500
        assert got.json == {"errors": [{"code": "UNKNOWN", "message": "internal server error"}]}
        one = the_only(facts)
        assert one.status == 500
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.request_id == one.id == got.headers["x-request-id"]
        assert record.exc_info
    caplog.clear()


def test_an_application_that_fails_in_its_answer_cuts_the_connection(
    site: Site, connect: Connect, facts: list[Facts], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(scope, receive, send) -> None:
        await start(send, 200, 100)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("in the middle")

    site.routes["/broken"] = broken
    peer = connect(site)
    got = peer.ask(request("GET", "/broken"))
    assert (got.status, got.body, got.is_whole) == (200, b"half", False)
    assert peer.is_ended()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info
    assert the_only(facts).id in "".join(record.exc_info[1].__notes__)
    caplog.clear()


# --- headers ---


def test_a_whole_path_goes_before_its_first_part(site: Site, connect: Connect) -> None:
    def named(name: bytes):
        async def application(_scope, _receive, send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
            await send({"type": "http.response.body", "body": name})

        return application

    put_front(site, routes={"auth": named(b"a"), "/auth/login": named(b"b"), "/info": named(b"c")})
    asked = {
        path: connect(site).ask(request("GET", path)).body for path in ("/auth", "/auth/login", "/auth/login/")
    }
    assert asked == {"/auth": b"a", "/auth/login": b"b", "/auth/login/": b"a"}
    assert connect(site).ask(request("GET", "/info?x")).body == b"c"


def test_every_answer_has_an_id_and_the_security_headers(
    site: Site, connect: Connect, facts: list[Facts], scheme: str
) -> None:
    got = connect(site).ask(request("GET", "/"))
    assert got.headers["x-request-id"] == the_only(facts).id
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert ("strict-transport-security" in got.headers) == (scheme == "tls")


def test_ids_of_requests_do_not_repeat(site: Site, connect: Connect, facts: list[Facts]) -> None:
    peer = connect(site)
    ids = [peer.ask(request("GET", "/")).headers["x-request-id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch("[0-9a-f]{16,}", one) for one in ids)


def test_an_application_may_set_a_security_header_itself(site: Site, connect: Connect, facts: list[Facts]) -> None:
    async def own(scope, receive, send) -> None:
        headers = [(b"content-length", b"0"), (b"content-security-policy", b"default-src 'self'")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    site.routes["/own"] = own
    assert connect(site).ask(request("GET", "/own")).headers["content-security-policy"] == "default-src 'self'"


# --- redirection ---

HOSTS = {
    "localhost": "localhost",
    "localhost:8080": "localhost",
    "registry.example.org": "registry.example.org",
    "registry.example.org:80": "registry.example.org",
    "192.0.2.7:80": "192.0.2.7",
    "[2001:db8::1]": "[2001:db8::1]",
    "[2001:db8::1]:80": "[2001:db8::1]",
    "": "localhost",
    "a/b": "localhost",
    "user@evil.example": "localhost",
    "evil.example#": "localhost",
    "evil.example?x": "localhost",
    "a b": "localhost",
    "a\tb": "localhost",
    "h\xe9": "localhost",
    ":80": "localhost",
    "[::1": "localhost",
    "2001:db8::1": "localhost",
    "a\\b": "localhost",
    "<script>": "localhost",
}


@pytest.mark.parametrize("scheme", ["plain"], indirect=True)
@pytest.mark.parametrize(("host", "name"), HOSTS.items())
def test_plain_http_is_sent_to_https_on_the_same_host(site: Site, connect: Connect, host: str, name: str) -> None:
    put_front(site, https_port=5443)
    got = connect(site).ask(request("GET", "/v2/a%20b/?x=1&y=%0d%0aX-Evil:1", Host=host))
    assert got.status == 308
    assert got.headers["location"] == f"https://{name}:5443/v2/a%20b/?x=1&y=%0d%0aX-Evil:1"
    assert "x-evil" not in got.headers


@pytest.mark.parametrize("scheme", ["plain"], indirect=True)
def test_the_usual_port_is_left_out(site: Site, connect: Connect) -> None:
    put_front(site, https_port=443)
    peer = connect(site)
    assert peer.ask(request("GET", "/")).headers["location"] == "https://localhost/"
    assert peer.ask(request("GET", "//evil.example/")).headers["location"] == "https://localhost//evil.example/"


@pytest.mark.parametrize("scheme", ["plain"], indirect=True)
def test_an_upload_is_sent_to_https_with_its_method(site: Site, connect: Connect) -> None:
    put_front(site, https_port=5443)
    got = connect(site).ask(request("PUT", "/file", BIG))
    assert got.status == 308
    assert got.closes


@pytest.mark.parametrize("scheme", ["plain"], indirect=True)
def test_some_paths_are_served_plainly(site: Site, connect: Connect) -> None:
    put_front(site, https_port=5443, plain=("early",))
    assert connect(site).ask(request("GET", "/early?204")).status == 204
    assert connect(site).ask(request("GET", "/earlier")).status == 308


@pytest.mark.parametrize("scheme", ["tls"], indirect=True)
def test_https_is_never_redirected(site: Site, connect: Connect) -> None:
    put_front(site, https_port=5443)
    assert connect(site).ask(request("GET", "/")).body == b"hello"


@pytest.mark.parametrize("port", [None, 5443])
def test_plain_http_at_an_address_of_tls_is_sent_to_tls_on_the_same_port(site: Site, port: int | None) -> None:
    put_front(site, https_port=port, plain=("ca",))
    for method, body in (("GET", b""), ("PUT", BIG)):
        with Peer(site.tls_port) as peer:
            got = peer.ask(request(method, "/ca?a=b", body, Host=f"localhost:{site.tls_port}"))
            assert got.status == 308
            assert got.headers["location"] == f"https://localhost:{site.tls_port}/ca?a=b"


# --- proxies ---


async def tell(scope, receive, send) -> None:
    seen = {"client": scope["client"][0], "scheme": scope["scheme"]}
    seen["host"] = dict(scope["headers"])[b"host"].decode("latin-1")
    await answer(send, 200, json.dumps(seen).encode())


FORWARDED = {
    "X_Forwarded_For": "203.0.113.9, 198.51.100.7",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "registry.example.org",
}


@pytest.mark.parametrize("scheme", ["plain"], indirect=True)
@pytest.mark.parametrize("networks", [["127.0.0.1"], ["192.0.2.0/24", "127.0.0.0/8"]])
def test_a_trusted_proxy_speaks_for_its_client(site: Site, connect: Connect, networks: list[str]) -> None:
    facts = put_front(site, trusted_proxies=networks, https_port=5443)
    site.routes["/tell"] = tell
    got = connect(site).ask(request("GET", "/tell", **FORWARDED))
    assert got.json == {"client": "198.51.100.7", "scheme": "https", "host": "registry.example.org"}
    assert "strict-transport-security" in got.headers
    assert the_only(facts).remote == "198.51.100.7"


@pytest.mark.parametrize("networks", [[], ["192.0.2.0/24"]])
def test_nobody_else_does(site: Site, connect: Connect, networks: list[str], scheme: str) -> None:
    facts = put_front(site, trusted_proxies=networks)
    site.routes["/tell"] = tell
    got = connect(site).ask(request("GET", "/tell", **FORWARDED))
    assert got.json == {
        "client": "127.0.0.1",
        "scheme": "http" if scheme == "plain" else "https",
        "host": "localhost",
    }
    assert the_only(facts).remote == "127.0.0.1"


@pytest.mark.parametrize("scheme", ["plain"], indirect=True)
@pytest.mark.parametrize("value", ["", "unknown", "198.51.100.7:1234", "x" * 5000, "[::1]", "198.51.100.7,"])
def test_nonsense_of_a_proxy_is_passed_over(site: Site, connect: Connect, value: str) -> None:
    facts = put_front(site, trusted_proxies=["127.0.0.1"])
    site.routes["/tell"] = tell
    got = connect(site).ask(request("GET", "/tell", X_Forwarded_For=value, X_Forwarded_Proto=value))
    assert got.json["client"] == "127.0.0.1"
    assert got.json["scheme"] == "http"
    assert the_only(facts).remote == "127.0.0.1"
