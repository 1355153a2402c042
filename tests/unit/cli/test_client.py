"""The client of the API: which server is meant, what goes into a path, and how refusals are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import httpx2
import pytest

from dtr.cli._common import Failure
from dtr.cli.remote.client import Access, Refused, Remote, Trust, server_name
from dtr.cli.remote.moments import Moment

Handler = Callable[[httpx2.Request], httpx2.Response]


def remote(handler: Handler) -> Remote:
    made = Remote(Access(server="registry.example.org", user="ann", secret="a secret"))
    made._http = httpx2.Client(base_url=made.access.url, transport=httpx2.MockTransport(handler))
    return made


def refusing(code: str, status: int = 404, detail: Any = None) -> Remote:
    document = {"errors": [{"code": code, "message": "What it says.", "detail": detail}]}
    return remote(lambda _request: httpx2.Response(status, json=document))


@pytest.mark.parametrize(
    ("given", "name", "url"),
    [
        ("registry.example.org", "registry.example.org", "https://registry.example.org"),
        ("https://Registry.Example.org/", "registry.example.org", "https://registry.example.org"),
        ("registry.example.org:443", "registry.example.org", "https://registry.example.org"),
        ("registry.example.org:5443", "registry.example.org:5443", "https://registry.example.org:5443"),
        ("[::1]:5443", "[::1]:5443", "https://[::1]:5443"),
        ("http://localhost:5080", "http://localhost:5080", "http://localhost:5080"),
    ],
)
def test_a_server_is_meant_by_its_name_or_address(given: str, name: str, url: str) -> None:
    assert server_name(given) == name
    assert Access(server=name).url == url


@pytest.mark.parametrize("given", ["", "ftp://x", "https://x/path", "user@x", "x:port", "x:99999", "[::1"])
def test_what_is_no_server_is_refused(given: str) -> None:
    with pytest.raises(Failure, match="is no server"):
        server_name(given)


def test_names_are_quoted_in_paths() -> None:
    asked: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path.decode())
        return httpx2.Response(200, json={})

    remote(handler).call(
        "GET",
        "/api/{repository}/x/{tag}",
        {"repository": "acme/a b/c", "tag": "1?x#y%2F"},
        query={"a": None, "b": 1},
    )
    assert asked == ["/api/acme/a%20b/c/x/1%3Fx%23y%252F?b=1"]


@pytest.mark.parametrize("name", ["../accounts/acme", "acme/..", ".", "acme//app", "/acme", ""])
def test_a_name_does_not_lead_elsewhere(name: str) -> None:
    with pytest.raises(Failure, match="is no repository"):
        refusing("INTERNAL_ERROR").call("DELETE", "/api/v0/repositories/{repository}", {"repository": name})


@pytest.mark.parametrize(
    ("code", "names", "said"),
    [
        (
            "NO_SUCH_REPOSITORY",
            {"repository": "acme/app"},
            "there is no repository acme/app, or you may not see it",
        ),
        ("REPOSITORY_EXISTS", {"namespace": "acme", "name": "x"}, "there is a repository acme/x already"),
        ("NOT_AUTHENTICATED", {}, "`dtr login registry.example.org` gets new ones"),
        ("NOT_AUTHORIZED", {}, "ann may not do that on registry.example.org"),
        ("NO_SUCH_TAG", {}, "what it says: more"),
        ("SOMETHING_NEW", {}, "what it says: more"),
    ],
)
def test_a_refusal_says_what_to_do(code: str, names: dict[str, str], said: str) -> None:
    path = "/x" + "".join(f"/{{{name}}}" for name in names)
    with pytest.raises(Refused) as caught:
        refusing(code, detail="more").call("GET", path, names)
    assert said in caught.value.message
    assert caught.value.code == code


def test_a_sentence_of_the_server_is_told_as_it_is() -> None:
    with pytest.raises(Refused) as caught:
        refusing("NO_SUCH_TEAM", detail="acme has no team x").call("GET", "/x")
    assert caught.value.message == "acme has no team x"


def test_a_refusal_names_the_fields_that_are_wrong() -> None:
    detail = [{"field": "tagLimit", "message": "is too large"}, {"field": "name", "message": "is missing"}]
    with pytest.raises(Refused, match="what it says: tagLimit: is too large; name: is missing"):
        refusing("INVALID_JSON", 400, detail).call("POST", "/x", body={})


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(502, text="<html>Bad Gateway</html>"),
        httpx2.Response(404, json={"errors": []}),
        httpx2.Response(500, json=["x"]),
        httpx2.Response(200, text="<html>"),
    ],
    ids=["a proxy", "no errors", "other JSON", "a page"],
)
def test_what_is_no_dtr_is_told(answer: httpx2.Response) -> None:
    with pytest.raises(Failure, match="not as dtr does"):
        remote(lambda _request: answer).call("GET", "/x")


def pages(*, total: int, asked: list[dict[str, str]], is_enzi: bool) -> Handler:
    def handler(request: httpx2.Request) -> httpx2.Response:
        query = dict(request.url.params)
        asked.append(query)
        start = int(query.get("start" if is_enzi else "pageStart", 0))
        size = int(query["limit" if is_enzi else "pageSize"])
        records = [{"name": str(number)} for number in range(start, min(start + size, total))]
        following = str(start + size) if start + size < total else ""
        if is_enzi:
            return httpx2.Response(200, json={"accounts": records, "nextPageStart": following})
        headers = {"X-Next-Page-Start": following} if following else {}
        return httpx2.Response(200, json=records, headers=headers)

    return handler


@pytest.mark.parametrize("is_enzi", [False, True])
def test_a_list_is_read_page_by_page_as_it_is_needed(is_enzi: bool) -> None:
    asked: list[dict[str, str]] = []
    path, key = ("/enzi/v0/accounts", "accounts") if is_enzi else ("/api/v0/api_tokens", None)
    client = remote(pages(total=2500, asked=asked, is_enzi=is_enzi))
    assert [one["name"] for one in client.records(path, key=key)] == [str(number) for number in range(2500)]
    assert len(asked) == 3
    asked.clear()
    assert next(client.records(path, key=key)) == {"name": "0"}
    assert len(asked) == 1
    asked.clear()
    assert len(list(client.records(path, key=key, limit=5))) == 5
    assert [one["limit" if is_enzi else "pageSize"] for one in asked] == ["5"]


def test_secrets_are_in_no_representation() -> None:
    assert "a secret" not in repr(Access(server="x", user="ann", secret="a secret"))


def test_an_authority_that_is_none_is_told() -> None:
    with pytest.raises(Failure, match="is not PEM"):
        Trust(ca="nonsense").context()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2026-12-24", "2026-12-24T00:00:00Z"),
        ("2026-12-24T18:00:00+02:00", "2026-12-24T16:00:00Z"),
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
    ],
)
def test_moments_are_read(given: str, read: str) -> None:
    assert Moment(ahead=True).convert(given, None, None) == read


def test_durations_lie_ahead_or_behind() -> None:
    behind, ahead = (Moment(ahead=ahead).convert("2d", None, None) for ahead in (False, True))
    assert behind < ahead
    for wrong in ("2x", "tomorrow", "999999w", ""):
        with pytest.raises(click.BadParameter):
            Moment(ahead=True).convert(wrong, None, None)


def test_a_body_is_json() -> None:
    seen: list[Any] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.headers["content-type"], json.loads(request.content)))
        return httpx2.Response(204)

    assert remote(handler).call("POST", "/x", body={"a": 1}) is None
    assert seen == [("application/json", {"a": 1})]
