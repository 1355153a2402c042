"""What holds for every operation: methods, media types, sizes, bodies and paths of all kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient
from tests.support.api import Api
from tests.support.contract import operations, ours

from dtr.http.api.app import build

FEATURES = "/api/v0/meta/features"
JSON = {"Content-Type": "application/json"}
WITH_BODY = [
    one
    for one in operations(ours())
    if "application/json" in one.described.get("requestBody", {}).get("content", {})
]
TAKES_YAML = {"/api/v0/admin/settings/registry", "/api/v0/admin/settings/registry/simple"}
METHODS = {"GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"}


def _path(template: str) -> str:
    """Something that fits."""
    return template.replace("{", "x").replace("}", "")


# --- methods and paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ours()["paths"])
def test_a_method_that_is_not_there_gets_those_that_are(api: Api, template: str):
    there = {method.upper() for method in ours()["paths"][template]}
    expected = ", ".join(sorted(there | {"HEAD"} if "GET" in there else there))
    tags = {"GET", "DELETE"} if template.endswith("/tags/delete") else set()  # which may be a tag, too
    for method in METHODS - there - tags:
        answer = api.admin.call(method, _path(template))
        assert (answer.status, answer.codes) == (405, ["NOT_ALLOWED"]), method
        assert answer.headers["allow"] == expected


def test_head_is_get_without_a_body(api: Api):
    get, head = (api.admin.call(method, FEATURES) for method in ("GET", "HEAD"))
    assert get.status == head.status == 200
    assert head.body == b""
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))
    assert api.anonymous.call("HEAD", FEATURES).status == 401


@pytest.mark.parametrize("path", ["/api/v0/nothing", "/api/v0/", "/api", "/enzi/v0/nothing", "/api/v0/docs/../x"])
def test_what_is_not_there_is_said_in_the_same_form(api: Api, path: str):
    answer = api.admin.get(path).expect(404)
    assert answer.codes == ["NO_SUCH_OPERATION"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "name",
    ["%00", "%ff%fe", "%2e%2e", "%2F", "a%2Fb", "x" * 5000, "%f0%9f%90%b3", "%0d%0aSet-Cookie:x=1", "a b%20", "'"],
)
def test_strange_paths_find_nothing(api: Api, name: str):
    for template in ours()["paths"]:
        if "{" in template:
            path = "/".join(name if "{" in part else part for part in template.split("/")).replace(" ", "%20")
            answer = api.admin.call("GET", path)
            assert answer.status < 500, path
            assert answer.status < 400 or answer.codes
            assert "set-cookie" not in answer.headers


def test_a_line_break_is_a_character_of_a_name(api: Api):
    assert api.admin.get("/api/v0/repositories/acme/a%0Ab/tags").expect(404).codes == ["NO_SUCH_REPOSITORY"]
    assert api.admin.get(f"{FEATURES}%0A").expect(404).codes == ["NO_SUCH_OPERATION"]


# --- what goes in, and what comes out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/html, application/json;q=0.5", "Application/JSON", ""]
)
def test_who_accepts_json_gets_it(api: Api, accept: str):
    answer = api.admin.call("GET", FEATURES, headers={"Accept": accept}).expect(200)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "application/json;q=0", "image/*", "nonsense"])
def test_who_does_not_accept_json_is_told_so(api: Api, accept: str):
    answer = api.admin.call("GET", FEATURES, headers={"Accept": accept}).expect(406)
    assert answer.codes == ["NOT_ACCEPTABLE"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda one: one.name)
def test_a_body_has_to_be_of_a_type_that_is_described(api: Api, operation, kind: str):
    """JSON, but for the registry's configuration: that may be YAML, which comes with any type of text."""
    headers = {"Content-Type": kind} if kind else {}
    answer = api.admin.client.send(operation.method, _path(operation.path), b"{}", headers)
    if kind in operation.described["requestBody"]["content"]:
        assert operation.path in TAKES_YAML
        assert (answer.status, answer.codes) == (401, ["NOT_AUTHENTICATED"])
    else:
        assert (answer.status, answer.codes) == (415, ["UNSUPPORTED_MEDIA_TYPE"])


def test_without_a_body_there_is_no_type_to_give(api: Api):
    headers = {"Content-Length": "0", "Authorization": api.admin.client.basic()}
    assert api.admin.client.send("GET", FEATURES, None, {**headers, "Content-Type": "text/plain"}).status == 200


def test_a_body_has_a_bounded_size(api: Api):
    operation = WITH_BODY[0]
    headers = {"Authorization": api.admin.client.basic(), **JSON}
    large = json.dumps({"name": "x" * 1024 * 1024}).encode()
    announced = api.admin.client.send(operation.method, _path(operation.path), large, headers)
    assert (announced.status, announced.codes) == (413, ["TOO_LARGE"])

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    chunked = api.admin.client.send(operation.method, _path(operation.path), pieces(), headers)
    assert (chunked.status, chunked.codes) == (413, ["TOO_LARGE"])


BROKEN = {
    "nothing": b" ",
    "no JSON": b"{name: 1}",
    "half of it": b'{"name": "a',
    "no text": b'\xff\xfe{"name": "a"}',
    "latin-1": '{"name": "\u00e4"}'.encode("latin-1"),
    "a list": b"[1, 2]",
    "a number": b"12",
    "null": b"null",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"name":' * 20_000 + b"1" + b"}" * 20_000,
    "a large number": b'{"name": ' + b"9" * 10_000 + b"}",
}
ODD = {
    "NaN": b'{"name": NaN, "limit": NaN, "tagLimit": NaN}',
    "infinity": b'{"name": Infinity, "tagLimit": -Infinity}',
    "an exponent": b'{"name": 1e999, "tagLimit": 1e999}',
    "more than 64 bits": b'{"name": "x", "tagLimit": 18446744073709551616, "lifetimeMinutes": 1e30}',
    "a key twice": b'{"name": "a", "name": "B C"}',
    "a key that is odd": b'{"__proto__": 1, "name": {"$gt": ""}, "\\u0000": 1, "": 2}',
    "half a pair": b'{"name": "\\ud800", "\\udfff": 1, "password": "\\udc00"}',
    "NUL": b'{"name": "a\\u0000b", "fullName": "\\u0000", "password": "\\u0000"}',
    "a mark of order": b'\xef\xbb\xbf{"name": "a b"}',
}


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda one: one.name)
def test_no_body_makes_the_server_fail(api: Api, operation):
    for what, body in (BROKEN | ODD).items():
        headers = {"Authorization": api.admin.client.basic(), **JSON}
        answer = api.admin.client.send(operation.method, _path(operation.path), body, headers)
        assert answer.status < 500, what
        if what in BROKEN and (what != "null" or operation.described["requestBody"].get("required")):
            refused = [["INVALID_JSON"]]
            if operation.path in TAKES_YAML:  # as YAML it may be a text, or a table of odd names
                refused.append(["INVALID_STORAGE"])
            assert answer.status == 400, what
            assert answer.codes in refused, what


def test_no_parameter_makes_the_server_fail(api: Api):
    for operation in operations(ours()):
        for name in operation.parameters("query"):
            for value in ("", "\0", "\ud800", "x" * 3000, "-1", "9" * 30, "1e5", "'; --", "%", "\u202e"):
                query = {name: value.encode("utf-8", "surrogatepass")}
                answer = api.admin.call(operation.method, _path(operation.path), **query)
                assert answer.status < 500, (operation.name, name, value)


# --- every answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", FEATURES), ("GET", "/api/v0/nothing"), ("PUT", FEATURES), ("HEAD", FEATURES)]
)
def test_no_answer_is_kept_by_others(api: Api, method: str, path: str):
    headers = api.admin.call(method, path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_wrong_credentials_are_refused_everywhere(api: Api, elsewhere: dict[str, str]):
    for header in ("Basic", "Basic !", "Basic bm9jb2xvbg==", "Bearer x", "Digest x", "x"):
        answer = api.anonymous.call("GET", FEATURES, headers={"Authorization": header, **elsewhere}).expect(401)
        assert answer.codes == ["NOT_AUTHENTICATED"]
        assert answer.headers["www-authenticate"].startswith("Basic ")


def test_a_failure_of_the_server_says_nothing_of_its_inside():
    client = TestClient(build(SimpleNamespace()), raise_server_exceptions=False)  # type: ignore[arg-type]
    answer = client.get(FEATURES)
    assert answer.status_code == 500
    assert answer.json()["errors"][0]["code"] == "INTERNAL_ERROR"
    assert answer.json()["errors"][0]["detail"] is None
    assert "accounts" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
