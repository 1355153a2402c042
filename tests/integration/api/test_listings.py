"""``/api/v0/index``: lists with filters, images by name and digest, and pinned repositories, as they are sent."""

from __future__ import annotations

import datetime as dt
import json
import time

import pytest
from tests.support.api import Api
from tests.support.images import Image, make_artifact, make_image

LIST = "/api/v0/index/repositories"
IMAGES = "/api/v0/index/images"
NAMESPACES = "/api/v0/index/namespaces"


@pytest.fixture(scope="module", autouse=True)
def image(api: Api) -> Image:
    api.make_users("ada", "bob", "carl")
    api.make_organization("acme", members=("bob",))
    for path in ("acme/shop", "acme/shop-admin", "ada/workshop"):
        api.make_repository(path, visibility="public" if path == "acme/shop" else "private")
    api.make_team("acme/devs", "bob")
    api.grant("acme/devs", "read-only", repository="acme/shop-admin")
    made, chart = make_image(layers=2), make_artifact("application/vnd.cncf.helm.config.v1+json")
    admin = api.as_("admin").client
    for tag in ("1.0", "1.1"):
        admin.push("acme/shop", made, tag)
    admin.push("acme/shop-admin", made, "1.0")
    admin.push("ada/workshop", chart, "3")
    deadline = time.monotonic() + 60
    while not api.as_("admin").get(LIST, type="helm chart").expect(200).json["repositories"]:
        assert time.monotonic() < deadline, "usage is added up within seconds"
        time.sleep(0.2)
    return made


def paths(api: Api, user: str | None, **query: object) -> list[str]:
    found = api.as_(user).get(LIST, **query).expect(200).json["repositories"]
    return [f"{one['repository']['namespace']}/{one['repository']['name']}" for one in found]


def test_a_list_says_what_each_repository_holds(api: Api, image: Image):
    answer = api.as_("bob").get(LIST, sort="pushed", count="true").expect(200)
    first, second = answer.json["repositories"]
    assert answer.headers["x-resource-count"] == "2"
    assert (first["repository"]["name"], second["repository"]["name"]) == ("shop-admin", "shop")
    assert second["tags"] == 2
    latest = second["latestTag"]
    assert (latest["name"], latest["digest"], latest["type"]) == ("1.1", str(image.digest), "image")
    assert (latest["author"], latest["signed"]) == ("admin", False)
    assert second["repository"]["yourAccess"] == "read-only"


def test_filters_and_pages(api: Api):
    assert paths(api, None) == ["acme/shop"]
    assert paths(api, "admin", type="helm chart") == ["ada/workshop"]
    assert paths(api, "admin", namespace="acme", visibility="private") == ["acme/shop-admin"]
    assert paths(api, "admin", query="ORKSH") == ["ada/workshop"]
    assert paths(api, "admin", notPushedFor=1) == []
    assert len(paths(api, "admin", pushedWithin=1)) == 3
    first = api.as_("admin").get(LIST, sort="pushed", pageSize=2).expect(200)
    rest = paths(api, "admin", sort="pushed", pageSize=2, pageStart=first.headers["x-next-page-start"])
    assert rest == ["acme/shop"]
    api.as_("admin").get(LIST, namespace="nobody").expect(404)
    assert paths(api, None, namespace="nobody") == []


def test_repositories_by_their_paths_and_their_owners(api: Api):
    wanted = ["ada/workshop", "acme/shop", "no/such", "acme", ""]
    answer = api.as_("bob").get(f"{LIST}/named?" + "&".join(f"repository={one}" for one in wanted)).expect(200)
    assert [one["repository"]["name"] for one in answer.json["repositories"]] == ["shop"]
    owners = "/api/v0/index/owners"
    assert api.as_(None).get(owners).expect(200).json == {
        "owners": [{"name": "acme", "repositories": 1}],
        "total": 1,
    }
    assert api.as_("admin").get(owners).expect(200).json == {
        "owners": [{"name": "acme", "repositories": 2}, {"name": "ada", "repositories": 1}],
        "total": 3,
    }
    most = api.as_("admin").get(owners, limit=1).expect(200).json
    assert most == {"owners": [{"name": "acme", "repositories": 2}], "total": 3}


def test_pulls_of_the_last_days_are_told_when_asked_for(api: Api):
    began = dt.datetime.now(dt.UTC).date()
    api.as_("admin").client.get_manifest("acme/shop", "1.0").expect(200)
    deadline = time.monotonic() + 60
    while True:
        (shop,) = api.as_(None).get(LIST, recentPulls="true").expect(200).json["repositories"]
        if any(shop["recentPulls"]) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert sorted(shop["recentPulls"]) == [0] * 13 + [1]
    passed = (dt.datetime.now(dt.UTC).date() - began).days
    assert 1 in shop["recentPulls"][-1 - passed :]  # the last day, unless a day ended meanwhile
    assert "recentPulls" not in api.as_(None).get(LIST).expect(200).json["repositories"][0]


def found(api: Api, user: str | None, query: str) -> list[str]:
    images = api.as_(user).get(IMAGES, query=query).expect(200).json["images"]
    return [f"{one['namespace']}/{one['repository']}:{one['tag']}" for one in images]


def test_images_are_found_by_name_and_digest(api: Api, image: Image):
    both = ["acme/shop:1.0", "acme/shop:1.1"]
    assert found(api, None, "shop:1") == both
    assert found(api, "admin", "shop:1.0") == ["acme/shop:1.0", "acme/shop-admin:1.0"]
    assert found(api, None, f"registry.example:8443/acme/shop:1.1@{image.digest}") == ["acme/shop:1.0"]
    assert found(api, None, "registry.example:8443/acme/shop:1.1") == ["acme/shop:1.1"]
    digits = str(image.digest).partition(":")[2]
    for text in (str(image.digest), digits, digits[:12].upper(), f"sha256:{digits[:7]}"):
        assert found(api, None, text) == ["acme/shop:1.0"], text
        assert found(api, "bob", text) == ["acme/shop:1.0", "acme/shop-admin:1.0"], text
    assert found(api, None, json.loads(image.payload)["config"]["digest"][7:19]) == ["acme/shop:1.0"]
    assert found(api, "carl", "workshop:3") == []
    for nothing in ("shop", ":", "shop:9", "ffffffffffff", "\x01:1", "a:b/c"):
        assert found(api, None, nothing) == [], nothing


def test_namespaces_are_those_of_new_repositories(api: Api):
    assert api.as_("ada").get(NAMESPACES).expect(200).json == {"namespaces": ["ada"]}
    everywhere = api.as_("admin").get(NAMESPACES).expect(200).json["namespaces"]
    assert everywhere[0] == "admin"
    assert {"acme", "ada", "bob"} <= set(everywhere)
    assert api.as_("admin").get(NAMESPACES, query="cme").expect(200).json == {"namespaces": ["acme"]}
    api.grant("acme/devs", "admin")
    assert api.as_("bob").get(NAMESPACES).expect(200).json == {"namespaces": ["bob", "acme"]}
    api.as_(None).get(NAMESPACES).expect(401)


def test_pinned_repositories_are_the_users_own(api: Api):
    pins = "/api/v0/accounts/carl/pinnedRepositories"
    carl = api.as_("carl")
    carl.put(f"{pins}/acme/shop").expect(204)
    carl.put(f"{pins}/ada/workshop").expect(404)
    assert carl.get(f"{pins}/acme/shop").expect(200).json == {"pinned": True}
    carl.get(f"{pins}/ada/workshop").expect(404)
    (one,) = carl.get(pins).expect(200).json["repositories"]
    assert one["repository"]["name"] == "shop"
    api.as_("admin").patch("/api/v0/repositories/acme/shop", {"visibility": "private"}).expect(200)
    assert carl.get(pins).expect(200).json["repositories"] == []
    api.as_("admin").patch("/api/v0/repositories/acme/shop", {"visibility": "public"}).expect(200)
    carl.delete(f"{pins}/acme/shop").expect(204)
    assert carl.get(f"{pins}/acme/shop").expect(200).json == {"pinned": False}
    assert carl.get(pins).expect(200).json["repositories"] == []
