"""``/api/v0/index`` and what ``docker search`` asks: relevance and rights are the room's, this is what is sent."""

from __future__ import annotations

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.server import PASSWORD

AUTOCOMPLETE = "/api/v0/index/autocomplete"
DOCKER = "/api/v0/index/dockersearch"


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    api.make_users("ada", "bob")
    api.make_organization("acme", members=("bob",))
    api.make_repository("acme/shop", visibility="public", short_description="Sells things")
    api.make_repository("acme/shop2")
    api.make_repository("ada/workshop")
    api.make_team("acme/devs", "bob")
    api.grant("acme/devs", "read-only", repository="acme/shop2")


def paths(document: dict) -> list[str]:
    return [f"{one['namespace']}/{one['name']}" for one in document["repositoryResults"]]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, ["acme/shop"]),
        ("ada", ["acme/shop", "ada/workshop"]),
        ("bob", ["acme/shop", "acme/shop2"]),
        ("admin", ["acme/shop", "acme/shop2", "ada/workshop"]),
    ],
)
def test_everybody_finds_what_they_may_see(api: Api, user: str | None, expected: list[str]):
    caller = api.as_(user)
    assert paths(caller.get(AUTOCOMPLETE, query="shop").expect(200).json) == expected
    document = caller.get(DOCKER, q="shop").expect(200).json
    assert [one["name"] for one in document["results"]] == expected
    assert document["num_results"] == len(expected)
    assert document["query"] == "shop"
    first = document["results"][0]
    assert first["description"] == "Sells things"
    assert first["star_count"] == 0
    assert first["is_official"] is first["is_trusted"] is False


def test_repositories_are_whole_records_as_lists_have_them(api: Api):
    ada = api.as_("ada")
    found = ada.get(AUTOCOMPLETE, query="shop", namespace="acme").expect(200).json["repositoryResults"]
    assert found == ada.get("/api/v0/repositories/acme").expect(200).json["repositories"]


def test_accounts_are_for_those_who_are_logged_in(api: Api):
    found = api.as_("ada").get(AUTOCOMPLETE, query="acm").expect(200).json
    assert [(one["name"], one["isOrg"], one["membersCount"]) for one in found["accountResults"]] == [
        ("acme", True, 1)
    ]
    assert api.anonymous.get(AUTOCOMPLETE, query="ac").expect(200).json["accountResults"] == []


def test_what_is_left_out_is_empty(api: Api):
    found = api.admin.get(AUTOCOMPLETE, query="a", includeRepositories=False).expect(200).json
    assert found["repositoryResults"] == []
    assert {"acme", "ada", "admin"} <= {one["name"] for one in found["accountResults"]}
    found = api.admin.get(AUTOCOMPLETE, query="a", includeAccounts=False, limit=2).expect(200).json
    assert found["accountResults"] == []
    assert len(found["repositoryResults"]) == 2


def test_what_cannot_be_asked_is_refused(api: Api):
    assert api.admin.get(AUTOCOMPLETE).expect(400).codes == ["INVALID_PARAMETERS"]
    assert api.admin.get(AUTOCOMPLETE, query="a", limit=0).expect(400).codes == ["INVALID_PARAMETERS"]
    assert api.admin.get(AUTOCOMPLETE, query="a", namespace="nobody").expect(404).codes == ["NO_SUCH_ACCOUNT"]
    assert api.admin.get(DOCKER).expect(400).codes == ["INVALID_PARAMETERS"]


@pytest.mark.parametrize("text", ['"', 'a"b', "%", "'; --", "🙂🙂🙂", "x" * 256, "NEAR(a b)", "-"])
def test_no_text_is_too_much(api: Api, text: str):
    api.admin.get(AUTOCOMPLETE, query=text).expect(200)
    api.admin.get(DOCKER, q=text).expect(200)


def test_docker_may_show_the_token_that_it_was_given(api: Api):
    client = Client(api.server, "bob", PASSWORD)

    def search(token: str) -> list[str]:
        answer = client.send("GET", "/v1/search?q=shop&n=10", headers={"Authorization": f"Bearer {token}"})
        return [one["name"] for one in answer.expect(200).json["results"]]

    assert search(client.token("registry:catalog:search")) == ["acme/shop", "acme/shop2"]
    answer = client.send("GET", "/v1/search?q=shop", headers={"Authorization": "Bearer a.b.c"})
    assert answer.expect(401).codes == ["NOT_AUTHENTICATED"]
