"""Layers as files: who gets them, as what, and what is written down. On each storage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.backends import BACKENDS, run_server
from tests.support.images import Image, descriptor, digest_of, make_artifact, make_image, make_index
from tests.support.signing import artifact
from tests.support.wire import wait_until

WHERE = "/api/v0/repositories/acme/app"
IMAGE = make_image()
SBOM = make_artifact("application/spdx+json", b'{"spdxVersion": "SPDX-2.3"}', subject=IMAGE)
SMALLEST = make_artifact("application/spdx+json", b"{}", subject=IMAGE)
LARGE = make_artifact("application/vnd.acme.data", os.urandom(3_000_000), subject=IMAGE)


@pytest.fixture(scope="module", params=BACKENDS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with run_server(request.param, request, tmp_path_factory, {}, workers=1) as server:
        api = Api(server)
        api.make_users("will", "rita", "sam")
        api.make_organization("acme", members=("will", "rita"))
        for team, user, level in (("writers", "will", "read-write"), ("readers", "rita", "read-only")):
            api.make_team(f"acme/{team}", user)
            api.grant(f"acme/{team}", level)
        for path in ("acme/app", "acme/other"):
            api.make_repository(path)
        client = api.as_("will").client
        client.push("acme/app", IMAGE, "1.0")
        client.push("acme/app", make_index(IMAGE), "all")
        for one in (SBOM, SMALLEST, LARGE):
            client.push("acme/app", one)
        yield api


def file_of(image: Image, number: int = -1) -> str:
    return f"{WHERE}/manifests/{image.digest}/files/{digest_of(image.blobs[number])}"


def titled(title: str, media_type: str = "application/octet-stream") -> Image:
    """An artifact whose file is called so."""
    annotations = {"org.opencontainers.image.title": title} if title else {}
    return artifact([(media_type, title.encode("utf-8", "surrogatepass") + b"!", annotations)])


@pytest.mark.parametrize("image", [SBOM, LARGE], ids=["small", "large"])
def test_whoever_may_pull_gets_the_bytes_as_a_file_that_no_browser_shows(api: Api, image: Image) -> None:
    content = image.blobs[-1]
    answer = api.as_("rita").get(file_of(image)).expect(200)
    assert answer.body == content
    headers = answer.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith('attachment; filename="')
    assert headers["content-length"] == str(len(content))
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["docker-content-digest"] == digest_of(content)
    head = api.as_("rita").call("HEAD", file_of(image))
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")


def test_a_pull_of_it_is_written_down_with_who_pulled(api: Api) -> None:
    api.as_("rita").call("HEAD", file_of(SMALLEST)).expect(200)
    api.as_("rita").get(file_of(SBOM)).expect(200)

    def pulled() -> list[tuple[str, str]]:
        found = api.admin.get(f"{WHERE}/events", eventType="GET").expect(200).json["events"]
        return [(one["object"]["id"], one["actorName"]) for one in found]

    wait_until(lambda: (SBOM.digest, "rita") in pulled())
    assert (SMALLEST.digest, "rita") not in pulled()


def test_who_may_not_pull_gets_nothing(api: Api) -> None:
    assert api.as_("sam").get(file_of(SBOM)).expect(404).codes == ["NO_SUCH_REPOSITORY"]
    api.anonymous.get(file_of(SBOM)).expect(401)
    path = file_of(SBOM).replace("acme/app", "acme/other")
    assert api.as_("rita").get(path).expect(404).codes == ["NO_SUCH_REF"]


def test_only_layers_that_the_manifest_names_are_given(api: Api) -> None:
    rita = api.as_("rita")
    blob = digest_of(SBOM.blobs[-1])
    assert rita.get(f"{WHERE}/manifests/1.0/files/{blob}").expect(404).codes == ["NO_SUCH_FILE"]  # another one's
    assert rita.get(f"{WHERE}/manifests/1.0/files/{digest_of(IMAGE.blobs[0])}").expect(404).codes == [
        "NO_SUCH_FILE"
    ]  # the config
    assert rita.get(f"{WHERE}/manifests/all/files/{blob}").expect(404).codes == ["NO_SUCH_FILE"]
    assert rita.get(f"{WHERE}/manifests/1.0/files/none").expect(404).codes == ["NO_SUCH_FILE"]
    assert rita.get(f"{WHERE}/manifests/none/files/{blob}").expect(404).codes == ["NO_SUCH_REF"]
    assert rita.get(f"{WHERE}/manifests/1.0/files/{digest_of(IMAGE.blobs[1])}").expect(200).body == IMAGE.blobs[1]


def test_what_has_to_be_signed_is_not_given_and_what_describes_it_is(api: Api) -> None:
    api.admin.put(f"{WHERE}/enforcement", {"mode": "enforce"}).expect(200)
    try:
        for user in ("rita", "will", "admin"):  # also who may push: a file is no part of a push
            layer = f"{WHERE}/manifests/1.0/files/{digest_of(IMAGE.blobs[1])}"
            refused = api.as_(user).get(layer).expect(403)
            assert refused.codes == ["PULL_REFUSED"]
            assert "wants a signature of the image" in refused.json["errors"][0]["detail"]
        api.as_("rita").get(file_of(SBOM)).expect(200)
    finally:
        api.admin.delete(f"{WHERE}/enforcement").expect(204)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (titled("report.spdx.json"), 'filename="report.spdx.json"'),
        (titled("../../etc/passwd"), 'filename="passwd"'),
        (titled("C:\\windows\\a.txt"), 'filename="a.txt"'),
        (titled('x"; filename="evil.exe'), 'filename="x; filename=evil.exe"'),
        (titled("a\r\nSet-Cookie: b"), 'filename="aSet-Cookie b"'),
        (titled("exe\u202egnp.txt"), 'filename="exegnp.txt"'),
        (titled(".."), 'filename="'),
        (titled("n" * 5_000), f'filename="{"n" * 120}"'),
        (titled("報告.json"), "filename=\"__.json\"; filename*=UTF-8''%E5%A0%B1%E5%91%8A.json"),
        (titled("", "application/vnd.in-toto+json"), f'filename="{digest_of(b"!")[7:19]}.json"'),
        (titled("", "application/vnd.oci.image.layer.v1.tar+gzip"), f'filename="{digest_of(b"!")[7:19]}.tar.gz"'),
    ],
    ids=str,
)  # fmt: skip
def test_a_file_is_called_as_its_title_says_if_files_can_be(api: Api, image: Image, name: str) -> None:
    api.as_("will").client.push("acme/app", image)
    answer = api.as_("rita").get(file_of(image)).expect(200)
    assert answer.headers["content-disposition"].startswith(f"attachment; {name}")
    assert "set-cookie" not in answer.headers


def test_a_layer_that_is_elsewhere_is_not_here(api: Api) -> None:
    foreign: dict[str, Any] = descriptor(
        "application/vnd.oci.image.layer.nondistributable.v1.tar", b"elsewhere", urls=["https://else.example/l"]
    )
    document = json.loads(IMAGE.payload)
    document["layers"].append(foreign)
    image = Image(json.dumps(document).encode(), IMAGE.media_type, IMAGE.blobs)
    api.as_("will").client.push("acme/app", image)
    assert api.as_("rita").get(f"{WHERE}/manifests/{image.digest}/files/{foreign['digest']}").expect(
        404
    ).codes == ["NO_SUCH_FILE"]
