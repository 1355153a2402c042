"""Lists over HTTP: OCI distribution specification 1.1, "Listing tags"; distribution's catalog."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import pytest
from tests.support.backends import new_repository
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.server import Server

NEEDS_NO_BLOBS = True


def follow(client: Client, path: str, key: str) -> list[list[str]]:
    """The pages from this one on."""
    pages = []
    while path:
        answer = client.call("GET", path).expect(200)
        pages.append(answer.json[key])
        link = answer.headers.get("link", "")
        match = re.fullmatch(r'<(/[^<>]*)>; rel="next"', link)
        assert bool(match) == bool(link)
        path = match[1] if match else ""
    return pages


def everything(client: Client, path: str, key: str) -> list[str]:
    """The entries of all pages."""
    return [one for page in follow(client, path, key) for one in page]


TAGS = sorted(["latest", "v1", "v1.0", "v10", "v2", "A", "Z", "_a", "a", "a-b", "a.b", "aa", "0", "00"])


@pytest.fixture
def tagged(client: Client, repository: str) -> str:
    """A repository with `TAGS`."""
    image = make_image()
    client.push(repository, image)
    for tag in reversed(TAGS):
        client.put_manifest(repository, image, tag).expect(201)
    return repository


def test_tags_are_listed_in_the_order_of_their_bytes(client: Client, tagged: str) -> None:
    answer = client.call("GET", f"/v2/{tagged}/tags/list").expect(200)
    assert answer.json == {"name": tagged, "tags": TAGS}
    assert answer.headers["content-type"] == "application/json"
    assert "link" not in answer.headers


def test_a_repository_without_tags_has_an_empty_list(client: Client, repository: str) -> None:
    assert client.call("GET", f"/v2/{repository}/tags/list").expect(200).json == {"name": repository, "tags": []}


def test_following_the_links_gives_every_tag_once(client: Client, tagged: str) -> None:
    for size in (1, 3, len(TAGS) - 1, len(TAGS), len(TAGS) + 1):
        pages = follow(client, f"/v2/{tagged}/tags/list?n={size}", "tags")
        assert [tag for page in pages for tag in page] == TAGS
        assert all(len(page) == size for page in pages[:-1])
        assert pages[-1]


def test_a_page_begins_behind_the_last_one_given(client: Client, tagged: str) -> None:
    for last in (TAGS[0], TAGS[5], "a-a", "never-there", TAGS[-1], "zzz"):
        answer = client.call("GET", f"/v2/{tagged}/tags/list?last={last}").expect(200)
        assert answer.json["tags"] == [tag for tag in TAGS if tag > last]


def test_no_entries_are_given_when_none_are_wanted(client: Client, tagged: str) -> None:
    answer = client.call("GET", f"/v2/{tagged}/tags/list?n=0").expect(200)
    assert answer.json["tags"] == []
    assert "link" not in answer.headers


def test_more_than_there_are_may_be_wanted(client: Client, tagged: str) -> None:
    for size in (10**6, 10**17):
        answer = client.call("GET", f"/v2/{tagged}/tags/list?n={size}").expect(200)
        assert answer.json["tags"] == TAGS
        assert "link" not in answer.headers


@pytest.mark.parametrize(
    "query", ["n=-1", "n=", "n=x", "n=1.5", "n=%D9%A1", "n=" + 30 * "9", "last=%00", "last=a%0Ab"]
)
def test_a_page_that_cannot_be_is_refused(client: Client, repository: str, query: str) -> None:
    answer = client.call("GET", f"/v2/{repository}/tags/list?{query}").expect(400)
    assert answer.codes == ["PAGINATION_NUMBER_INVALID"]
    assert client.call("GET", f"/v2/_catalog?{query}").expect(400).codes == ["PAGINATION_NUMBER_INVALID"]


def test_pages_have_a_largest_size(make_server: Callable[..., Server]) -> None:
    server = make_server({"registry.page_size": 2})
    server.make_repository("admin/r")
    client = Client(server)
    image = make_image()
    client.push("admin/r", image, "one")
    for tag in ("two", "three"):
        client.put_manifest("admin/r", image, tag).expect(201)
    for query in ("", "?n=100"):
        pages = follow(client, f"/v2/admin/r/tags/list{query}", "tags")
        assert pages == [["one", "three"], ["two"]]


def test_the_catalog_names_repositories_in_order_page_by_page(registry: Server, client: Client) -> None:
    made = sorted(new_repository(registry) for _ in range(3))
    whole = everything(client, "/v2/_catalog", "repositories")
    assert [name for name in whole if name in made] == made
    assert whole == sorted(set(whole))
    assert everything(client, "/v2/_catalog?n=7", "repositories") == whole
    behind = client.call("GET", f"/v2/_catalog?n=1&last={made[0]}").expect(200).json["repositories"]
    assert behind[0] > made[0]


def test_the_catalog_gives_nothing_when_nothing_is_wanted(client: Client, repository: str) -> None:
    answer = client.call("GET", "/v2/_catalog?n=0").expect(200)
    assert answer.json == {"repositories": []}
    assert "link" not in answer.headers


def test_head_of_a_list_has_the_headers_of_get(client: Client, tagged: str) -> None:
    for path in (f"/v2/{tagged}/tags/list?n=2", "/v2/_catalog?n=1"):
        head, get = client.call("HEAD", path).expect(200), client.call("GET", path).expect(200)
        assert head.body == b""
        assert {k: v for k, v in head.headers.items() if k not in {"date", "x-request-id"}} == {
            k: v for k, v in get.headers.items() if k not in {"date", "x-request-id"}
        }


def test_a_link_leads_on_also_from_deep_names(registry: Server, client: Client) -> None:
    path = f"admin/{uuid.uuid4().hex}/tags/list/x"
    registry.make_repository(path)
    image = make_image()
    client.push(path, image, "one")
    client.put_manifest(path, image, "two").expect(201)
    assert everything(client, f"/v2/{path}/tags/list?n=1", "tags") == ["one", "two"]
