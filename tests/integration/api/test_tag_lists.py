"""``…/tags`` with filters and orders, ``…/tagCounts``, ``…/tags/{tag}/history``, ``…/manifests/{reference}``."""

from __future__ import annotations

import json

import pytest
from tests.support.api import Api
from tests.support.images import make_artifact, make_built_image, make_image, make_index, make_tar

WHERE = "/api/v0/repositories/acme/app"
IMAGE = make_built_image(
    {"os": "linux", "architecture": "amd64", "config": {"Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}}},
    make_tar("a", b"a"),
)
INDEX = make_index(make_image(), make_image())
SBOM = make_artifact("application/spdx+json", b"{}", subject=IMAGE)


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    api.make_users("writer", "stranger")
    api.make_organization("acme")
    api.make_team("acme/writers", "writer")
    api.make_repository("acme/app")
    api.grant("acme/writers", "read-write")
    client = api.as_("writer").client
    for tag, image in (("1.9", IMAGE), ("1.10", INDEX), ("latest", INDEX), ("edge", make_image())):
        client.push("acme/app", image, tag)
    client.push("acme/app", make_image(), IMAGE.digest.replace(":", "-") + ".sbom")
    client.push("acme/app", SBOM, SBOM.digest)


def names(api: Api, **query: object) -> list[str]:
    answer = api.as_("writer").get(f"{WHERE}/tags", attached=False, **query)
    return [one["name"] for one in answer.expect(200).json]


def test_tags_are_ordered_filtered_and_counted(api: Api):
    assert names(api, sort="version")[:2] == ["1.10", "1.9"]
    assert names(api, sort="newest")[0] == "edge"
    assert names(api) == ["1.10", "1.9", "edge", "latest"]
    assert names(api, q="1.") == ["1.10", "1.9"]
    assert names(api, q=IMAGE.digest[:20]) == ["1.9"]
    both = api.as_("writer").get(f"{WHERE}/tags?show=multiPlatform&show=unsigned").expect(200).json
    assert [one["name"] for one in both] == ["1.10", "latest"]
    answer = api.as_("writer").get(f"{WHERE}/tags", attached=False, show="multiPlatform", count=True, pageSize=1)
    assert answer.headers["x-resource-count"] == "2"
    assert len(answer.expect(200).json) == 1
    assert api.as_("writer").get(f"{WHERE}/tagCounts", attached=False).expect(200).json == {
        "total": 4, "signed": 0, "unverified": 0, "mismatched": 0, "unsigned": 4, "multiPlatform": 2,
        "unpulled": 0, "attached": 1,
    }  # fmt: skip


@pytest.mark.parametrize("sort", ["name", "newest", "version", "size", "pulled"])
def test_the_header_leads_through_all_pages(api: Api, sort: str):
    everything, start = [], ""
    while True:
        answer = api.as_("writer").get(f"{WHERE}/tags", sort=sort, attached=False, pageSize=2, pageStart=start)
        everything += [one["name"] for one in answer.expect(200).json]
        start = answer.headers.get("x-next-page-start", "")
        if not start:
            break
    assert everything == names(api, sort=sort)


def test_what_is_no_place_trait_or_order_is_refused(api: Api):
    for query in ({"sort": "size", "pageStart": "x"}, {"sort": "age"}, {"show": "fresh"}):
        api.as_("writer").get(f"{WHERE}/tags", **query).expect(400, "INVALID_PARAMETERS")
    api.as_("writer").get(f"{WHERE}/tags/v1/history", pageStart="x").expect(400, "INVALID_PARAMETERS")


def test_aliases_are_said_when_they_are_asked_for(api: Api):
    found = api.as_("writer").get(f"{WHERE}/tags", withAliases=True, attached=False).expect(200).json
    assert {one["name"]: one["aliases"] for one in found} == {
        "1.10": ["latest"], "latest": ["1.10"], "1.9": [], "edge": [],
    }  # fmt: skip
    assert {one["name"]: one["aliasCount"] for one in found} == {"1.10": 1, "latest": 1, "1.9": 0, "edge": 0}
    assert all(
        "aliases" not in one and "aliasCount" not in one
        for one in api.as_("writer").get(f"{WHERE}/tags").expect(200).json
    )


def test_a_manifest_is_shown_as_it_was_pushed_with_how_its_containers_run(api: Api):
    for reference in ("1.9", IMAGE.digest):
        found = api.as_("writer").get(f"{WHERE}/manifests/{reference}").expect(200).json
        assert found["content"] == IMAGE.payload.decode()
        assert found["manifest"]["digest"] == IMAGE.digest
        assert (found["tags"], found["tagCount"]) == (["1.9"], 1)
        assert (found["container"]["env"], found["container"]["exposedPorts"]) == (["A=b"], ["80/tcp"])
    index = api.as_("writer").get(f"{WHERE}/manifests/latest").expect(200).json
    assert "container" not in index
    assert (index["tags"], index["tagCount"]) == (["1.10", "latest"], 2)
    assert [one["isImage"] for one in index["manifest"]["platforms"]] == [True, True]
    for wrong in ("nothing", "sha256:" + "0" * 64, "-"):
        api.as_("writer").get(f"{WHERE}/manifests/{wrong}").expect(404, "NO_SUCH_REF")


def test_a_large_manifest_is_shown_without_its_text(api: Api):
    large = make_built_image({"os": "linux"}, make_tar("a", b"a"), annotations={"x": "y" * 1_100_000})
    api.as_("writer").client.push("acme/app", large, large.digest)
    found = api.as_("writer").get(f"{WHERE}/manifests/{large.digest}").expect(200).json
    assert "content" not in found
    assert found["manifest"]["digest"] == large.digest


def test_what_is_attached_is_listed(api: Api):
    found = api.as_("writer").get(f"{WHERE}/manifests/1.9/attachments").expect(200).json
    assert found["isAll"] is True
    assert {(one["type"], one["subject"], one.get("tag", "")[-4:]) for one in found["attachments"]} == {
        ("sbom", IMAGE.digest, ""), ("image", IMAGE.digest, "sbom"),
    }  # fmt: skip
    sbom = next(one for one in found["attachments"] if one["type"] == "sbom")
    assert (sbom["digest"], len(sbom["files"])) == (SBOM.digest, len(json.loads(SBOM.payload)["layers"]))
    api.as_("writer").get(f"{WHERE}/manifests/nothing/attachments").expect(404, "NO_SUCH_REF")


def test_the_history_of_a_tag(api: Api):
    client = api.as_("writer").client
    first, second = make_image(), make_image()
    client.push("acme/app", first, "moving")
    client.push("acme/app", second, "moving")
    api.as_("writer").delete(f"{WHERE}/tags/moving").expect(204)
    found = api.as_("writer").get(f"{WHERE}/tags/moving/history").expect(200).json
    assert [(one["before"], one["digest"], one["actorName"], one["isHere"]) for one in found] == [
        (second.digest, "", "writer", False),
        (first.digest, second.digest, "writer", True),
        ("", first.digest, "writer", True),
    ]
    page = api.as_("writer").get(f"{WHERE}/tags/moving/history", pageSize=1)
    assert page.headers["x-next-page-start"] == found[1]["id"]
    assert api.as_("writer").get(f"{WHERE}/tags/never/history").expect(200).json == []
    api.as_("writer").get(f"{WHERE}/tags/-/history").expect(404, "NO_SUCH_TAG")
