"""``…/tags`` and ``…/manifests``: records of what was pushed, and deleting it."""

from __future__ import annotations

import concurrent.futures
import json

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.images import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    Image,
    descriptor,
    digest_of,
    make_artifact,
    make_built_image,
    make_image,
    make_index,
    make_tar,
)

WHERE = "/api/v0/repositories/acme/app"
HELM = "application/vnd.cncf.helm.config.v1+json"
PLUGIN = "application/vnd.docker.plugin.v1+json"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def _windows() -> Image:
    config = json.dumps(
        {
            "os": "windows",
            "os.version": "10.0.1",
            "architecture": "amd64",
            "config": {"Labels": {"team": "web"}},
            "history": [
                {"created_by": "Apply image"},
                {"created_by": "cmd /S /C #(nop) ENV a=b", "empty_layer": True},
            ],
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, config),
        "layers": [descriptor(FOREIGN, b"elsewhere", urls=["https://example.com/base"])],
    }
    return Image(json.dumps(manifest).encode(), DOCKER_MANIFEST, (config,))


LINUX = make_built_image({"os": "linux", "architecture": "amd64"}, make_tar("a", b"a"))
ARM = make_built_image({"os": "linux", "architecture": "arm64", "variant": "v8"}, make_tar("b", b"b"))
WINDOWS = _windows()
INDEX = make_index(LINUX, ARM)
IMAGES = {
    "chart": make_built_image(b'{"name":"chart"}', config=descriptor(HELM, b'{"name":"chart"}')),
    "latest": LINUX,
    "multi": INDEX,
    "plugin": make_built_image(b"{}", make_tar("p", b"p"), config=descriptor(PLUGIN, b"{}")),
    "sbom": make_artifact("application/spdx+json", b"{}", subject=LINUX, annotations={"tool": "x"}),
    "windows": WINDOWS,
}


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    api.make_users("writer", "reader", "stranger")
    api.make_organization("acme")
    for team, level in (("writers", "read-write"), ("readers", "read-only")):
        api.make_team(f"acme/{team}", team.removesuffix("s"))
        api.grant(f"acme/{team}", level)
    for path in ("acme/app", "acme/deletable", "acme/limited"):
        api.make_repository(path, tag_limit=3 if path == "acme/limited" else 0)
    for tag, image in IMAGES.items():
        api.as_("writer").client.push("acme/app", image, tag)
    api.as_("writer").client.push("acme/app", LINUX, "also")


def test_tags_are_listed_with_what_they_are(api: Api):
    found = {one["name"]: one for one in api.as_("reader").get(f"{WHERE}/tags", pageSize=100).expect(200).json}
    assert list(found) == sorted([*IMAGES, "also"])
    assert {name: one["manifest"]["type"] for name, one in found.items()} == {
        "also": "image",
        "chart": "helm chart",
        "latest": "image",
        "multi": "index",
        "plugin": "plugin",
        "sbom": "sbom",
        "windows": "image",
    }
    assert all(one["author"] == one["manifest"]["author"] == "writer" for one in found.values())
    assert all("dockerfile" not in one["manifest"] for one in found.values())
    multi = found["multi"]["manifest"]
    assert [(one["os"], one["architecture"]) for one in multi["platforms"]] == [
        ("linux", "amd64"),
        ("linux", "arm64"),
    ]
    assert multi["size"] == sum(len(blob) for image in (LINUX, ARM) for blob in image.blobs)
    sbom = found["sbom"]["manifest"]
    assert (sbom["artifactType"], sbom["annotations"]) == ("application/spdx+json", {"tool": "x"})
    windows = found["windows"]["manifest"]
    assert (windows["os"], windows["osVersion"], windows["labels"]) == ("windows", "10.0.1", {"team": "web"})
    assert "artifactType" not in windows


def test_a_tag_of_an_image_is_one_record_with_every_field(api: Api):
    (tag,) = api.as_("reader").get(f"{WHERE}/tags/windows", domain="dtr.example.com").expect(200).json
    assert tag == {
        "name": "windows",
        "digest": WINDOWS.digest,
        "author": "writer",
        "createdAt": tag["createdAt"],
        "updatedAt": tag["createdAt"],
        "inNotary": False,
        "hashMismatch": False,
        "pulls": 0,
        "lastPulledAt": "0001-01-01T00:00:00Z",
        "manifest": {
            "digest": WINDOWS.digest,
            "mediaType": DOCKER_MANIFEST,
            "type": "image",
            "os": "windows",
            "osVersion": "10.0.1",
            "architecture": "amd64",
            "variant": "",
            "size": len(WINDOWS.blobs[0]) + len(b"elsewhere"),
            "author": "writer",
            "createdAt": tag["manifest"]["createdAt"],
            "configDigest": digest_of(WINDOWS.blobs[0]),
            "configMediaType": DOCKER_CONFIG,
            "annotations": {},
            "labels": {"team": "web"},
            "dockerfile": [
                {
                    "line": "Apply image",
                    "layerDigest": digest_of(b"elsewhere"),
                    "size": 9,
                    "isEmpty": False,
                    "mediaType": FOREIGN,
                    "urls": ["https://example.com/base"],
                },
                {"line": "cmd /S /C #(nop) ENV a=b", "layerDigest": "", "size": 0, "isEmpty": True},
            ],
            "pulls": 0,
            "lastPulledAt": "0001-01-01T00:00:00Z",
        },
    }


def test_a_tag_of_an_index_is_a_record_for_each_system(api: Api):
    found = api.as_("reader").get(f"{WHERE}/tags/multi").expect(200).json
    assert [(one["digest"], one["manifest"]["digest"]) for one in found] == [
        (INDEX.digest, LINUX.digest),
        (INDEX.digest, ARM.digest),
    ]
    assert [one["manifest"]["variant"] for one in found] == ["", "v8"]
    assert all(one["manifest"]["dockerfile"] for one in found)
    (arm,) = api.as_("reader").get(f"{WHERE}/tags/multi", os="linux", arch="arm64").expect(200).json
    assert arm["manifest"]["digest"] == ARM.digest
    assert api.as_("reader").get(f"{WHERE}/tags/multi", os="plan9").expect(200).json == []


def test_a_digest_has_every_tag_that_names_it(api: Api):
    found = api.as_("reader").get(f"{WHERE}/tags/{LINUX.digest}").expect(200).json
    assert [one["name"] for one in found] == ["also", "latest"]
    assert api.as_("reader").get(f"{WHERE}/tags/{ARM.digest}").expect(200).json == []
    assert len(api.as_("reader").get(f"{WHERE}/tags/{INDEX.digest}").expect(200).json) == 2


def test_what_many_tags_name_is_not_told_of_in_full_with_each(api: Api):
    api.make_repository("acme/bombs")
    client, reader = api.as_("writer").client, api.as_("reader")
    history = [{"created_by": str(number), "empty_layer": True} for number in range(1000)]
    steps = make_built_image({"os": "linux", "history": history})
    lines = make_built_image({"os": "plan9"}, *1000 * [b"x"])
    for image, name in ((steps, "steps"), (lines, "lines")):
        for blob in set(image.blobs):
            client.push_blob("acme/bombs", blob)
        for number in range(40):
            client.put_manifest("acme/bombs", image, f"{name}{number}").expect(201)
    where = "/api/v0/repositories/acme/bombs"
    for image, told in ((steps, 30), (lines, 0)):
        found = reader.get(f"{where}/tags/{image.digest}").expect(200).json
        assert [len(one["manifest"].get("dockerfile") or ()) for one in found] == (
            told * [1000] + (40 - told) * [0]
        )
    listed = reader.get(f"{where}/tags", pageSize=100, includeManifests=True).expect(200).json
    assert sum(len(one["manifest"].get("dockerfile") or ()) for one in listed) == 30_000
    assert (
        sum(len(one.get("dockerfile") or ()) for one in reader.get(f"{where}/manifests").expect(200).json) == 1000
    )
    assert len(reader.get(f"{where}/manifests/{lines.digest}").expect(200).json["manifest"]["dockerfile"]) == 1000


def test_an_index_of_many_images_that_many_tags_name_has_a_thousand_records(api: Api):
    api.make_repository("acme/wide")
    client = api.as_("writer").client
    index = make_index(*(make_built_image({"os": "linux", "n": number}) for number in range(40)))
    client.push("acme/wide", index)
    for number in range(30):
        client.put_manifest("acme/wide", index, f"t{number}").expect(201)
    found = api.as_("reader").get(f"/api/v0/repositories/acme/wide/tags/{index.digest}").expect(200).json
    assert len(found) == 1000


@pytest.mark.parametrize("reference", ["nothing", "sha256:" + 64 * "0", "sha256:short", "-x", "a%20b", "x" * 200])
def test_what_is_not_there_has_no_record(api: Api, reference: str):
    assert api.as_("reader").get(f"{WHERE}/tags/{reference}").codes == ["NO_SUCH_REF"]


def test_lists_come_in_pages_that_begin_where_they_are_told_to(api: Api):
    reader = api.as_("reader")
    names = sorted([*IMAGES, "also"])
    pages = [[one["name"] for one in page] for page in reader.pages(f"{WHERE}/tags", 2, includeManifests=True)]
    assert [name for page in pages for name in page] == names
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    answer = reader.get(f"{WHERE}/tags", pageStart="m", pageSize=1, count=True)
    assert [one["name"] for one in answer.json] == ["multi"]
    assert answer.headers["x-resource-count"] == "7"
    digests = sorted({*(image.digest for image in IMAGES.values()), ARM.digest})
    pages = [[one["digest"] for one in page] for page in reader.pages(f"{WHERE}/manifests", 3)]
    assert [digest for page in pages for digest in page] == digests
    assert reader.get(f"{WHERE}/manifests", count=True).headers["x-resource-count"] == str(len(digests))


def test_who_sees_the_repository_sees_its_tags_and_who_may_push_deletes_them(api: Api):
    writer = api.as_("writer").client
    image = make_image()
    writer.push("acme/deletable", image, "v1")
    where = "/api/v0/repositories/acme/deletable"
    for method, path, body in (
        ("GET", f"{where}/tags", None),
        ("GET", f"{where}/tags/v1", None),
        ("GET", f"{where}/manifests", None),
        ("DELETE", f"{where}/tags/v1", None),
        ("POST", f"{where}/tags/delete", {"tags": ["v1"]}),
        ("DELETE", f"{where}/manifests/v1", None),
    ):
        assert api.anonymous.call(method, path, body).codes == ["NOT_AUTHENTICATED"]
        assert api.as_("stranger").call(method, path, body).codes == ["NO_SUCH_REPOSITORY"]
        answer = api.as_("reader").call(method, path, body)
        assert answer.status == 200 if method == "GET" else answer.codes == ["NOT_AUTHORIZED"]
    api.as_("writer").delete(f"{where}/tags/v1").expect(204)
    assert api.as_("writer").delete(f"{where}/tags/v1").codes == ["NO_SUCH_TAG"]
    assert api.as_("writer").delete(f"{where}/tags/-x").codes == ["NO_SUCH_TAG"]
    writer.get_manifest("acme/deletable", image.digest).expect(200)


def test_manifests_go_with_their_tags_unless_an_index_names_them(api: Api):
    api.make_repository("acme/manifests")
    writer, where = api.as_("writer"), "/api/v0/repositories/acme/manifests/manifests"
    image = make_image()
    index = make_index(image)
    writer.client.push("acme/manifests", image, "single")
    writer.client.push("acme/manifests", index, "multi")
    assert writer.delete(f"{where}/{image.digest}").codes == ["MANIFEST_REFERENCED"]
    writer.delete(f"{where}/multi").expect(204)
    writer.delete(f"{where}/{image.digest}").expect(204)
    assert writer.delete(f"{where}/{image.digest}").codes == ["NO_SUCH_REF"]
    assert writer.delete(f"{where}/sha256:short").codes == ["INVALID_DIGEST"]
    assert writer.delete(f"{where}/-x").codes == ["NO_SUCH_REF"]
    assert writer.get("/api/v0/repositories/acme/manifests/tags").json == []


def test_many_tags_are_deleted_at_once_and_the_answer_tells_of_each(api: Api):
    writer, where = api.as_("writer"), "/api/v0/repositories/acme/deletable/tags"
    image = make_image()
    for tag in ("a", "b", "delete"):
        writer.client.push("acme/deletable", image, tag)
    answer = writer.post(f"{where}/delete", {"tags": ["a", "b", "c", "no tag", "a"]}).expect(200)
    assert answer.json == [
        {"name": "a", "deleted": True, "inNotary": False},
        {"name": "b", "deleted": True, "inNotary": False},
        {"name": "c", "deleted": False, "inNotary": False},
        {"name": "no tag", "deleted": False, "inNotary": False},
    ]
    # A tag of this name is one like others.
    assert writer.get(f"{where}/delete").expect(200).json[0]["name"] == "delete"
    writer.delete(f"{where}/delete").expect(204)
    assert writer.get(where).json == []
    for form in ({"tags": []}, {"tags": ["x"] * 1001}, {}):
        assert writer.post(f"{where}/delete", form).codes == ["INVALID_JSON"]


def test_pushes_of_immutable_tags_are_refused_in_the_words_of_dtr(api: Api):
    api.make_repository("acme/fixed", immutable_tags=True)
    api.make_repository("acme/patterns", immutable_patterns=("v*",))
    client = api.as_("writer").client
    for path, reason in (
        ("acme/fixed", "is an immutable repository"),
        ("acme/patterns", "has immutable tags v*"),
    ):
        client.push(path, make_image(), "v1")
        other = make_image()
        client.push(path, other)
        answer = client.put_manifest(path, other, "v1").expect(409)
        host = f"localhost:{api.server.port}"
        message = f"tag=v1 cannot be overwritten because {host}/{path} {reason}"
        error = answer.json["errors"][0]
        assert (error["code"], error["message"]) == ("UNKNOWN", message)
        api.as_("writer").delete(f"/api/v0/repositories/{path}/tags/v1").expect(204)
        client.put_manifest(path, other, "v1").expect(201)


def test_sixteen_pushers_do_not_get_over_a_tag_limit(api: Api):
    client = api.as_("writer").client
    images = [make_image() for _ in range(4)]
    for image in images:
        client.push("acme/limited", image)

    def push(number: int) -> list[str]:
        pusher = Client(api.server, "writer")
        tags = [f"t{number}-{n}" for n in range(4)]
        for n, tag in enumerate(tags):
            pusher.put_manifest("acme/limited", images[n], tag).expect(201)
        pusher.close()
        return tags

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        pushed = [tag for tags in pool.map(push, range(16)) for tag in tags]
    answer = api.admin.get("/api/v0/repositories/acme/limited/tags", count=True, pageSize=100)
    left = {one["name"] for one in answer.json}
    assert answer.headers["x-resource-count"] == "3"
    assert left < set(pushed)
    assert api.admin.get("/api/v0/repositories/acme/limited").json["pushes"] == 64


def test_a_repository_deleted_during_pushes_is_whole_or_gone(api: Api):
    api.make_repository("acme/doomed")
    images = [make_image(layers=2) for _ in range(6)]

    def push(image: Image) -> None:
        pusher = Client(api.server, "admin")
        try:
            for blob in image.blobs:
                location = pusher.call("POST", "/v2/acme/doomed/blobs/uploads/")
                if location.status != 202:
                    location.expect(401, 404)
                    return
                where = location.headers["location"].partition("/v2/")[2]
                done = pusher.call("PUT", f"/v2/{where}?digest={digest_of(blob)}", blob)
                if done.status != 201:
                    done.expect(401, 404)
                    return
            pusher.put_manifest("acme/doomed", image, "latest").expect(201, 401, 404)
        finally:
            pusher.close()

    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        running = [pool.submit(push, image) for image in images]
        deleted = pool.submit(lambda: Api(api.server).admin.delete("/api/v0/repositories/acme/doomed"))
        for one in running:
            one.result()
    deleted.result().expect(204)
    assert api.admin.get("/api/v0/repositories/acme/doomed/tags").codes == ["NO_SUCH_REPOSITORY"]
    api.make_repository("acme/doomed")
    assert api.admin.get("/api/v0/repositories/acme/doomed/tags").json == []
