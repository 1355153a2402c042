"""Requests to the API that are made to hurt: each is refused in bounded time and memory, and none is a failure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from tests.robustness.test_memory import watched
from tests.support.api import Api
from tests.support.client import Answer, Client
from tests.support.server import Server
from tests.support.wire import Peer
from tests.support.wire import request as bytes_of

MIB = 1024 * 1024
TOKENS = "/api/v0/api_tokens"
"""A list, and where to post to."""
NAMES = {
    "a NUL": "acme\0",
    "homoglyphs": "аcme",  # noqa: RUF001 - the first letter is Cyrillic
    "full width": "ａｃｍｅ",  # noqa: RUF001
    "right to left": "acme\u202egpj.exe",
    "zero width": "ac\u200bme",
    "combining": "acme" + "\u0301" * 200,
    "a surrogate": "acme\ud800",
    "beyond the first plane": "acme😀",
    "a line": "acme\r\nX-Injected: yes",
    "SQL": "acme' OR '1'='1'; DROP TABLE accounts; --",
    "a pattern": "%_*[a-z]?",
    "the way up": "../../../../etc/passwd",
    "the way up, encoded": "..%2f..%2fetc%2fpasswd",
    "backslashes": "..\\..\\windows",
    "a scheme": "file:///etc/passwd",
    "a template": "{{7*7}}${7*7}<%= 7*7 %>",
    "markup": "<script>alert(1)</script>",
    "a number": "-1e999",
    "a long one": "a" * 4000,
    "nothing": "",
    "white space": " \t ",
    "dots": "..",
}


@pytest.fixture(scope="module")
def api(two_workers: Server) -> Api:
    """The API, and some names that are there."""
    api = Api(two_workers)
    api.make_organization("acme", owners=("admin",))
    api.make_team("acme/devs", "admin")
    api.make_repository("acme/app")
    return api


@pytest.fixture(scope="module")
def headers(api: Api) -> dict[str, str]:
    """Of an administrator: what is refused is not refused for want of rights."""
    token = api.admin.post("/api/v0/api_tokens", {"tokenLabel": "hostile"}).expect(200).json["token"]
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(autouse=True)
def _no_failure_inside(api: Api) -> Iterator[None]:
    """Whatever was asked, nothing that the program did not expect came of it."""
    before = len(api.server.log)
    yield
    after = api.server.log[before:]
    assert "Traceback" not in after, after[:5000]


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    client = Client(api.server)
    yield client
    client.close()


@pytest.fixture(scope="module")
def operations(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation of the API."""
    document = api.anonymous.get("/api/v0/openapi.json").expect(200).json
    return [
        (method.upper(), path, resolved(operation, document))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def resolved(part: Any, document: dict[str, Any], depth: int = 0) -> Any:
    """A part of the document without references."""
    if isinstance(part, dict):
        if "$ref" in part and depth < 8:
            target: Any = document
            for step in part["$ref"].split("/")[1:]:
                target = target[step]
            return resolved(target, document, depth + 1)
        return {name: resolved(value, document, depth) for name, value in part.items() if name != "responses"}
    if isinstance(part, list):
        return [resolved(one, document, depth) for one in part]
    return part


def example(schema: dict[str, Any], text: str, depth: int = 0) -> Any:
    """A value of a schema, all of whose texts are `text`."""
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return example(schema[word][0], text, depth)
    kind = schema.get("type")
    if kind == "object" and depth < 8:
        return {name: example(one, text, depth + 1) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), text, depth + 1)]
    return {"boolean": True, "integer": 1, "number": 1.5, "null": None}.get(kind or "", text)


def body_of(operation: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of an operation's body of JSON."""
    content = operation.get("requestBody", {}).get("content", {})
    schema: dict[str, Any] | None = content.get("application/json", {}).get("schema")
    return schema


def ask(method: str, path: str, headers: dict[str, str], **more: str) -> bytes:
    """The bytes of a request without its body."""
    return bytes_of(method, path, b"", **headers, **more)


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def processor_seconds(server: Server) -> float:
    """What the workers have taken of the processors."""
    ticks = 0
    for pid in server.worker_pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def assert_refused(answer: Answer, what: object) -> None:
    """It is an answer of the API that blames the client."""
    assert 400 <= answer.status < 500, f"{what}: {answer.status} {answer.body[:300]!r}"
    assert answer.codes


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none_are_refused_or_taken_as_they_are(
    api: Api, client: Client, headers: dict[str, str], operations: list[tuple[str, str, dict[str, Any]]], name: str
) -> None:
    text, place = NAMES[name], list(NAMES).index(name)
    for method, path, operation in operations[place % 3 :: 3]:  # each meets a third of the names
        if path.endswith(("/login", "/changePassword", "/tryLogin")) or (method == "DELETE" and "{" not in path):
            continue  # wrong log-ins slow down, and these are tested elsewhere
        where, given = path, []
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path":
                where = where.replace(f"{{{parameter['name']}}}", encoded(text))
            elif parameter["in"] == "query" and parameter["schema"].get("type") not in {"boolean", "integer"}:
                given.append((parameter["name"], text.encode("utf-8", "surrogatepass")))
        schema = body_of(operation)
        body = None if schema is None else json.dumps(example(schema, text)).encode()
        sent = headers if body is None else {**headers, "Content-Type": "application/json"}
        answer = client.send(method, f"{where}?{urlencode(given)}", body, sent)
        assert answer.status < 500, f"{method} {where} {body!r}: {answer.status} {answer.body[:500]!r}"
        assert "x-injected" not in answer.headers
        if answer.status >= 400 and answer.body:
            assert answer.codes
    for account, one in ((True, "/enzi/v0/accounts"), (False, "/api/v0/repositories/acme")):
        form = {"name": text, "isOrg": account}
        answer = client.send(
            "POST", one, json.dumps(form).encode(), {**headers, "Content-Type": "application/json"}
        )
        assert_refused(answer, f"{one} {text!r}")
    client.send("GET", TOKENS, headers=headers).expect(200)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"[" * 500_000 + b"]" * 500_000,
        b'{"name":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"name":"a","x":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"name":' + b"9" * 1_000_000 + b"}",
        b'{"name":"' + b"\\ud800" * 150_000 + b'"}',
        b'{"name":1e999999999}',
        b"{" + b",".join(b'"%d":1' % number for number in range(90_000)) + b"}",
        b'{"name":"a\x00"}',
        b"\xff\xfe{\x00}\x00",
        b"\x00" * 1_000_000,
        b"NaN",
        b"null",
        b"",
    ],
    ids=lambda body: f"{body[:12]!r}*{len(body)}",
)
def test_bodies_that_are_no_form_are_refused(
    api: Api,
    client: Client,
    headers: dict[str, str],
    operations: list[tuple[str, str, dict[str, Any]]],
    body: bytes,
) -> None:
    targets = [
        ("POST", TOKENS),
        ("POST", "/api/v0/repositories/acme"),
        ("POST", "/enzi/v0/accounts"),
        ("PATCH", "/enzi/v0/accounts"),
        ("POST", "/api/v0/meta/settings"),
        ("PUT", "/api/v0/repositories/acme/app/teamAccess/devs"),
    ]
    with watched(api.server) as memory:
        for method, path in targets:
            started = processor_seconds(api.server)
            answer = client.send(method, path, body, {**headers, "Content-Type": "application/json"})
            assert answer.status < 500, f"{method} {path}: {answer.body[:300]!r}"
            if path not in {TOKENS, "/api/v0/meta/settings"}:  # these need nothing
                assert_refused(answer, (method, path))
            assert processor_seconds(api.server) - started < 5
        assert memory.growth < 64 * MIB


@pytest.mark.parametrize("path", [TOKENS, "/enzi/v0/accounts"])
def test_a_body_of_a_hundred_mebibytes_is_refused_without_being_taken(
    api: Api, client: Client, headers: dict[str, str], path: str
) -> None:
    piece = b" " * MIB
    with watched(api.server) as memory:
        with Peer(api.server.port, api.server.tls) as peer:
            head = ask("POST", path, headers, Content_Length=str(100 * MIB), Content_Type="application/json")
            answer = peer.send(head + piece).answer()
            assert (answer.status, answer.closes) == (413, True)
        chunked = client.send("POST", path, iter([piece] * 100), {**headers, "Content-Type": "application/json"})
        assert (chunked.status, chunked.codes) == (413, ["TOO_LARGE"])
        assert memory.growth < 24 * MIB


def test_slow_bodies_hold_up_nobody(api: Api, client: Client, headers: dict[str, str]) -> None:
    head = ask("POST", TOKENS, headers, Content_Length="1000000", Content_Type="application/json")
    with ExitStack() as connections:
        peers = [connections.enter_context(Peer(api.server.port, api.server.tls)) for _ in range(64)]
        for peer in peers:
            peer.send(head + b'{"tokenLabel": ')
        seconds = []
        for number in range(40):
            peers[number].send(b" ")
            started = time.monotonic()
            client.send("GET", TOKENS, headers=headers).expect(200)
            seconds.append(time.monotonic() - started)
        # As quick as ever, whatever else the machine does once; a body may take half a minute for its next bytes.
        assert sorted(seconds)[len(seconds) // 2] < 2
        assert max(seconds) < 20
    client.send("GET", "/health").expect(200)


@pytest.mark.parametrize("count", [1000, 5000, 50_000])
def test_thousands_of_parameters_are_refused_or_not_looked_at(
    api: Api, client: Client, headers: dict[str, str], count: int
) -> None:
    for query in ("&".join(f"x{number}={number}" for number in range(count)), "&".join(["pageSize=1"] * count)):
        with Peer(api.server.port, api.server.tls) as peer:
            answer = peer.send(ask("GET", f"{TOKENS}?{query}", headers)).answer()
        assert answer.status < 500
        assert answer.status in {200, 400, 414, 431}
        assert count < 50_000 or answer.status != 200
    client.send("GET", TOKENS, headers=headers).expect(200)


def test_floods_of_headers_are_refused(api: Api, client: Client, headers: dict[str, str]) -> None:
    floods: list[dict[str, str]] = [
        {f"X-{number}": "x" for number in range(20_000)},
        {"Cookie": "; ".join(f"session={number}" for number in range(20_000))},
        {"Accept": ", ".join(["application/json;q=0.1"] * 20_000)},
        {"X-Long": "x" * MIB},
    ]
    with watched(api.server) as memory:
        for flood in floods:
            with Peer(api.server.port, api.server.tls) as peer:
                answer = peer.send(ask("GET", TOKENS, headers, **flood)).answer()
            assert answer.status in {400, 406, 431}, next(iter(flood))
        assert memory.growth < 24 * MIB
    client.send("GET", TOKENS, headers=headers).expect(200)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v0/../../etc/passwd",
        "/api/v0/..%2f..%2fetc/passwd",
        "/api/v0/docs/../../../etc/passwd",
        "/api/v0/docs/%2e%2e%2fapp.py",
        "/static/%2e%2e%2fapp.py",
        "/static/manifest.json%00.css",
        "/enzi/v0/%2e%2e/%2e%2e/v2/",
        "/api/v0//repositories",
        "/api/v0/repositories/acme/app%2f..%2f..%2fsecret",
        "/api/v0/repositories/acme/app/../other",
        "/api/v0/repositories/%ff%fe",
        "/api/v0/repositories/acme/app/tags/%00",
    ],
)
def test_paths_lead_nowhere_else(api: Api, headers: dict[str, str], path: str) -> None:
    with Peer(api.server.port, api.server.tls) as peer:
        answer = peer.send(ask("GET", path, headers)).answer()
    assert answer.status in {400, 404}, answer.body[:300]
    assert b"root:" not in answer.body


def test_nobody_learns_which_accounts_and_private_repositories_there_are(api: Api) -> None:
    """Whoever is not logged in cannot tell what is hidden from what is not there."""
    api.make_users("hidden")
    api.make_repository("hidden/app")
    names = ("hidden", "missing")
    for path in (
        "/api/v0/repositories/{}?count=true",
        "/api/v0/index/autocomplete?query=app&namespace={}",
        "/api/v0/index/autocomplete?query={}",
        "/api/v0/index/repositories?count=true&namespace={}",
        "/api/v0/index/repositories?count=true&query={}",
        "/api/v0/index/repositories/named?repository={}/app",
        "/api/v0/index/images?query={}/app:1",
        "/api/v0/index/namespaces?query={}",
        "/api/v0/accounts/{}/pinnedRepositories",
        "/api/v0/repositories/{}/app",
        "/api/v0/repositories/{}/app/tags",
        "/api/v0/repositories/{}/app/events",
        "/api/v0/accounts/{}/settings",
        "/api/v0/accounts/{}/repositoryAccess/hidden/app",
        "/api/v0/repositoryNamespaces/{}/teamAccess",
        "/enzi/v0/accounts/{}",
        "/enzi/v0/accounts/{}/publicKeys",
        "/enzi/v0/accounts/{}/organizations",
    ):
        there, missing = (api.anonymous.get(path.format(name)) for name in names)
        assert there.status == missing.status, path
        assert there.body == missing.body, path
        assert there.headers.get("x-resource-count") == missing.headers.get("x-resource-count")
