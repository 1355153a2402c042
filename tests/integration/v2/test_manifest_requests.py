"""Manifests over HTTP: OCI distribution specification 1.1, "Pulling manifests", "Pushing", "Deleting"."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from tests.support.backends import new_repository
from tests.support.client import Answer, Client, local
from tests.support.images import (
    EMPTY,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Image,
    descriptor,
    digest_of,
    make_artifact,
    make_image,
    make_index,
)
from tests.support.server import Server

NEEDS_NO_BLOBS = True


def put(
    client: Client, repository: str, payload: bytes, media_type: str = OCI_MANIFEST, reference: str | None = None
) -> Answer:
    path = f"/v2/{repository}/manifests/{reference or digest_of(payload)}"
    return client.call("PUT", path, payload, {"Content-Type": media_type})


def manifest_of(*layers: bytes, config: bytes = EMPTY, **more: object) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor(OCI_LAYER, one) for one in layers],
            **more,
        }
    ).encode()


# --- pulling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_an_image_comes_back_byte_for_byte_by_tag_and_by_digest(
    client: Client, repository: str, docker: bool
) -> None:
    image = make_image(layers=3, docker=docker)
    client.push(repository, image, "v1")
    for reference in ("v1", image.digest):
        answer = client.get_manifest(repository, reference).expect(200)
        assert answer.body == image.payload
        assert answer.headers["content-type"] == image.media_type
        assert answer.headers["docker-content-digest"] == image.digest
        assert answer.headers["content-length"] == str(len(image.payload))


@pytest.mark.parametrize("docker", [False, True], ids=["index", "docker list"])
def test_an_index_comes_back_byte_for_byte_with_its_images(client: Client, repository: str, docker: bool) -> None:
    index = make_index(make_image(docker=docker), make_image(docker=docker), docker=docker)
    client.push(repository, index, "multi")
    client.assert_whole(repository, index, "multi")
    assert client.get_manifest(repository, "multi").headers["content-type"] == index.media_type


def test_whitespace_and_order_of_keys_are_kept(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    payload = (
        b'\n{ "layers" : [],\t"x-unknown": 1.50e2, "config":%b ,\r\n"mediaType":"%b", "schemaVersion":2}\n\n'
        % (json.dumps(descriptor(OCI_CONFIG, EMPTY), indent=3).encode(), OCI_MANIFEST.encode())
    )
    put(client, repository, payload).expect(201)
    assert client.get_manifest(repository, digest_of(payload)).body == payload


@pytest.mark.parametrize(
    "artifact",
    [
        make_artifact("application/vnd.cncf.helm.config.v1+json", b"a chart"),
        make_artifact("application/spdx+json", b'{"spdxVersion":"SPDX-2.3"}'),
        make_artifact("application/vnd.dev.cosign.artifact.sig.v1+json", b"a signature"),
        make_artifact("application/vnd.wasm.config.v0+json", b"\0asm\1\0\0\0"),
    ],
    ids=["helm", "sbom", "signature", "wasm"],
)
def test_artifacts_of_any_type_are_kept_byte_for_byte(client: Client, repository: str, artifact: Image) -> None:
    client.push(repository, artifact, "artifact")
    client.assert_whole(repository, artifact, "artifact")


def test_a_helm_chart_as_helm_pushes_it_is_kept(client: Client, repository: str) -> None:
    """Without `artifactType`, with a config of its own type."""
    config, chart = b'{"name":"chart","version":"1.0.0"}', os.urandom(200)
    payload = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor("application/vnd.cncf.helm.config.v1+json", config),
            "layers": [descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", chart)],
        }
    ).encode()
    for blob in (config, chart):
        client.push_blob(repository, blob)
    put(client, repository, payload, reference="1.0.0").expect(201)
    answer = client.get_manifest(repository, "1.0.0").expect(200)
    assert answer.body == payload
    assert answer.headers["content-type"] == OCI_MANIFEST


def test_head_of_a_manifest_has_the_headers_of_get_and_no_body(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image, "v1")
    for reference in ("v1", image.digest):
        path = f"/v2/{repository}/manifests/{reference}"
        head, get = client.call("HEAD", path).expect(200), client.call("GET", path).expect(200)
        assert head.body == b""
        volatile = {"date", "x-request-id"}
        assert {k: v for k, v in head.headers.items() if k not in volatile} == {
            k: v for k, v in get.headers.items() if k not in volatile
        }


def test_if_none_match_spares_the_manifest(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image, "v1")
    path = f"/v2/{repository}/manifests/v1"
    tag = client.call("HEAD", path).headers["etag"]
    answer = client.call("GET", path, headers={"If-None-Match": tag}).expect(304)
    assert (answer.body, answer.headers["etag"]) == (b"", tag)
    client.push(repository, make_image(), "v1")
    client.call("GET", path, headers={"If-None-Match": tag}).expect(200)


@pytest.mark.parametrize("reference", ["never", digest_of(b"never")])
def test_a_manifest_that_is_not_there_is_unknown(client: Client, repository: str, reference: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        answer = client.call(method, f"/v2/{repository}/manifests/{reference}").expect(404)
        assert method == "HEAD" or answer.codes == ["MANIFEST_UNKNOWN"]


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (".hidden", "TAG_INVALID"),
        ("-dash", "TAG_INVALID"),
        (129 * "t", "TAG_INVALID"),
        ("a%20b", "TAG_INVALID"),
        ("%C3%A4", "TAG_INVALID"),
        ("a%00b", "TAG_INVALID"),
        ("sha256:abc", "DIGEST_INVALID"),
        ("sha256:" + 64 * "X", "DIGEST_INVALID"),
        ("md5:" + 32 * "0", "DIGEST_INVALID"),
        ("a:b", "DIGEST_INVALID"),
    ],
)
def test_what_is_neither_tag_nor_digest_is_refused(
    client: Client, repository: str, reference: str, code: str
) -> None:
    path = f"/v2/{repository}/manifests/{reference}"
    for method, body in (("GET", None), ("DELETE", None), ("PUT", b"{}")):
        assert client.call(method, path, body).expect(400).codes == [code]


def test_a_tag_may_have_128_characters_of_all_kinds(client: Client, repository: str) -> None:
    tag = ("_Aa0.-" * 22)[:128]
    image = make_image()
    client.push(repository, image, tag)
    client.assert_whole(repository, image, tag)


# --- pushing ----------------------------------------------------------------------------------------------------


def test_a_push_answers_with_place_and_digest(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image)
    answer = client.put_manifest(repository, image, "v1").expect(201)
    assert answer.headers["docker-content-digest"] == image.digest
    assert local(answer.headers["location"]) == f"/v2/{repository}/manifests/{image.digest}"
    assert client.call("GET", local(answer.headers["location"])).body == image.payload


def test_a_push_by_a_wrong_digest_leaves_nothing(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    payload, other = manifest_of(), digest_of(b"other")
    answer = put(client, repository, payload, reference=other).expect(400)
    assert answer.codes == ["DIGEST_INVALID"]
    for digest in (digest_of(payload), other):
        assert client.get_manifest(repository, digest).status == 404


def test_a_manifest_may_be_pushed_by_sha512(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    payload = manifest_of()
    digest = digest_of(payload, "sha512")
    answer = put(client, repository, payload, reference=digest).expect(201)
    assert answer.headers["docker-content-digest"] == digest
    answer = client.get_manifest(repository, digest).expect(200)
    assert (answer.body, answer.headers["docker-content-digest"]) == (payload, digest)


def test_a_manifest_may_name_its_blobs_by_sha512(client: Client, repository: str) -> None:
    data = os.urandom(100)
    digest = digest_of(data, "sha512")
    client.call("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data).expect(201)
    client.push_blob(repository, EMPTY)
    layer = {"mediaType": OCI_LAYER, "digest": digest, "size": len(data)}
    payload = manifest_of(layers=[layer])
    put(client, repository, payload, reference="v1").expect(201)
    assert client.get_manifest(repository, "v1").body == payload


def test_a_tag_moves_to_what_was_pushed_last(client: Client, repository: str) -> None:
    first, second = make_image(), make_image()
    client.push(repository, first, "latest")
    client.push(repository, second, "latest")
    client.assert_whole(repository, second, "latest")
    client.assert_whole(repository, first)


def test_the_same_manifest_may_be_pushed_again(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image, "v1")
    for reference in ("v1", "v2", image.digest):
        client.put_manifest(repository, image, reference).expect(201)
    for reference in ("v1", "v2"):
        client.assert_whole(repository, image, reference)


def test_a_push_by_digest_may_set_several_tags(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image)
    path = f"/v2/{repository}/manifests/{image.digest}?tag=one&tag=two"
    client.call("PUT", path, image.payload, {"Content-Type": image.media_type}).expect(201)
    for tag in ("one", "two"):
        client.assert_whole(repository, image, tag)


@pytest.mark.parametrize("tag", ["", "not%20a%20tag", digest_of(b"x")])
def test_a_further_tag_has_to_be_a_tag(client: Client, repository: str, tag: str) -> None:
    image = make_image()
    client.push(repository, image)
    path = f"/v2/{repository}/manifests/{image.digest}?tag={tag}"
    answer = client.call("PUT", path, image.payload, {"Content-Type": image.media_type}).expect(400)
    assert answer.codes == ["TAG_INVALID"]


def test_all_missing_blobs_are_listed(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    answer = put(client, repository, manifest_of(b"one", b"two", b"three"), reference="v1").expect(404)
    assert set(answer.codes) == {"MANIFEST_BLOB_UNKNOWN"}
    listed = {one["detail"]["digest"] for one in answer.json["errors"]}
    assert listed == {digest_of(one) for one in (b"one", b"two", b"three")}
    assert client.get_manifest(repository, "v1").status == 404


def test_all_missing_images_of_an_index_are_listed(client: Client, repository: str) -> None:
    there, missing = make_image(), [make_image(), make_image()]
    client.push(repository, there)
    index = make_index(there, *missing)
    answer = client.put_manifest(repository, index, "multi").expect(404)
    assert {one["detail"]["digest"] for one in answer.json["errors"]} == {one.digest for one in missing}


def test_what_another_repository_holds_does_not_count(registry: Server, client: Client, repository: str) -> None:
    image = make_image()
    client.push(new_repository(registry), image)
    answer = client.put_manifest(repository, image, "v1").expect(404)
    assert set(answer.codes) == {"MANIFEST_BLOB_UNKNOWN"}


def test_a_foreign_layer_need_not_be_there(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    foreign = {
        **descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"at the vendor's"),
        "urls": ["https://vendor.example/layer"],
    }
    put(client, repository, manifest_of(layers=[foreign]), reference="windows").expect(201)


def test_a_layer_with_urls_that_is_not_foreign_has_to_be_there(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    layer = {**descriptor(OCI_LAYER, b"elsewhere"), "urls": ["https://vendor.example/layer"]}
    assert put(client, repository, manifest_of(layers=[layer])).expect(404).codes == ["MANIFEST_BLOB_UNKNOWN"]


def test_sparse_manifests_are_taken_when_allowed(make_server: Callable[..., Server]) -> None:
    server = make_server({"registry.sparse_manifests": "true"})
    server.make_repository("admin/sparse")
    client = Client(server)
    index = make_index(make_image(), make_image())
    client.put_manifest("admin/sparse", index, "multi").expect(201)
    assert client.get_manifest("admin/sparse", "multi").body == index.payload
    put(client, "admin/sparse", manifest_of(b"missing"), reference="image").expect(201)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ],
)
def test_schema_1_is_refused_with_a_way_out(client: Client, repository: str, media_type: str) -> None:
    payload = json.dumps({"schemaVersion": 1, "name": repository, "tag": "v1", "fsLayers": [], "history": []})
    answer = put(client, repository, payload.encode(), media_type, "v1").expect(400)
    assert answer.codes == ["MANIFEST_INVALID"]
    assert "schema 1" in answer.json["errors"][0]["message"]
    assert "Docker 1.10" in answer.json["errors"][0]["message"]


@pytest.mark.parametrize(
    ("payload", "media_type"),
    [
        (b"", OCI_MANIFEST),
        (b"{}", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b"null", OCI_MANIFEST),
        (b"{", OCI_MANIFEST),
        (b"\xff\xfe{}", OCI_MANIFEST),
        (b'{"schemaVersion":2}', OCI_MANIFEST),
        (b'{"schemaVersion":2}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":{}}', OCI_INDEX),
        (b'{"schemaVersion":3,"manifests":[]}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[]}', OCI_MANIFEST),
        (b'{"schemaVersion":2,"manifests":[],"config":{}}', OCI_INDEX),
        (b'{"schemaVersion":2,"schemaVersion":2,"manifests":[]}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"mediaType":"%b"}' % OCI_MANIFEST.encode(), OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[]}', "application/zip"),
        (b'{"schemaVersion":2,"manifests":[],"mediaType":"application/zip"}', "application/zip"),
        (b'{"schemaVersion":2,"manifests":[],"x":' + 2000 * b"[" + 2000 * b"]" + b"}", OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"x":' + 200_000 * b"[", OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"x":NaN}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"subject":"x"}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"annotations":{"a":1}}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"annotations":{"a":"\\ud800"}}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[],"artifactType":"a\\u0000b"}', OCI_INDEX),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(client: Client, repository: str, payload: bytes, media_type: str) -> None:
    answer = put(client, repository, payload, media_type, "v1").expect(400)
    assert answer.codes == ["MANIFEST_INVALID"]
    assert client.get_manifest(repository, "v1").status == 404


@pytest.mark.parametrize(
    "text", ["a\\u0000b", "\\ud800", "\\u00e4", "x" * 300], ids=["nul", "surrogate", "umlaut", "long"]
)
def test_a_config_type_that_is_none_is_refused(client: Client, repository: str, text: str) -> None:
    client.push_blob(repository, EMPTY)
    config = json.dumps(descriptor("TYPE", EMPTY)).replace("TYPE", text)
    payload = f'{{"schemaVersion":2,"artifactType":"a/b","config":{config},"layers":[]}}'
    assert put(client, repository, payload.encode(), reference="v1").expect(400).codes == ["MANIFEST_INVALID"]


def test_annotations_may_hold_any_text(client: Client, repository: str) -> None:
    subject = make_image()
    client.push(repository, subject)
    annotations = {"umlaut": "ä", "sign": "\U0001f433", "": "", "quote": '"\\', "line": "\r\n"}
    artifact = make_artifact("text/plain", b"content", subject=subject, annotations=annotations)
    client.push(repository, artifact)
    listed = client.call("GET", f"/v2/{repository}/referrers/{subject.digest}").json["manifests"]
    assert listed[0]["annotations"] == annotations


def test_a_manifest_beyond_the_limit_is_refused_however_it_comes(make_server: Callable[..., Server]) -> None:
    server = make_server({"registry.manifest_limit": 5000})
    server.make_repository("admin/r")
    client = Client(server)
    client.push_blob("admin/r", EMPTY)
    path, headers = "/v2/admin/r/manifests/v1", {"Content-Type": OCI_MANIFEST}
    room = 5000 - len(manifest_of(annotations={"filler": ""}))
    largest = manifest_of(annotations={"filler": room * "x"})
    assert len(largest) == 5000
    for large in (largest + b" ", largest + 2_000_000 * b" "):
        for body in (large, iter([large[:3000], large[3000:]])):
            answer = client.call("PUT", path, body, headers).expect(413)
            assert answer.codes == ["MANIFEST_INVALID"]
            assert answer.json["errors"][0]["detail"] == {"limit": 5000}
    assert client.get_manifest("admin/r", "v1").status == 404
    client.call("PUT", path, largest, headers).expect(201)


def test_a_manifest_of_almost_4_mib_is_taken(client: Client, repository: str) -> None:
    client.push_blob(repository, EMPTY)
    payload = manifest_of(annotations={"filler": 4_100_000 * "x"})
    put(client, repository, payload, reference="large").expect(201)
    assert client.get_manifest(repository, "large").expect(200).body == payload


# --- deleting ---------------------------------------------------------------------------------------------------


def test_deleting_a_tag_leaves_the_manifest(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image, "v1")
    client.call("DELETE", f"/v2/{repository}/manifests/v1").expect(202)
    assert client.get_manifest(repository, "v1").expect(404).codes == ["MANIFEST_UNKNOWN"]
    client.assert_whole(repository, image)


def test_deleting_a_manifest_takes_its_tags_along(client: Client, repository: str) -> None:
    image = make_image()
    for tag in ("v1", "v2"):
        client.push(repository, image, tag)
    client.call("DELETE", f"/v2/{repository}/manifests/{image.digest}").expect(202)
    for reference in ("v1", "v2", image.digest):
        assert client.get_manifest(repository, reference).status == 404
    assert client.call("GET", f"/v2/{repository}/tags/list").json["tags"] == []


def test_an_image_that_an_index_needs_is_not_deleted(client: Client, repository: str) -> None:
    child = make_image()
    index = make_index(child)
    client.push(repository, index, "multi")
    answer = client.call("DELETE", f"/v2/{repository}/manifests/{child.digest}").expect(405)
    assert answer.codes == ["UNSUPPORTED"]
    assert index.digest in answer.json["errors"][0]["message"]
    client.call("DELETE", f"/v2/{repository}/manifests/{index.digest}").expect(202)
    client.call("DELETE", f"/v2/{repository}/manifests/{child.digest}").expect(202)
