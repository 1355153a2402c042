"""Blobs over HTTP: OCI distribution specification 1.1, "Pulling blobs" and "Deleting blobs"; RFC 9110, ranges."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from tests.support.client import Answer, Client
from tests.support.images import digest_of, make_image
from tests.support.server import Server

SIZES = (1000, 300_000)
"""What is sent in one piece, and what goes from the file to the socket by itself."""


@pytest.fixture(params=SIZES, ids=["small", "large"])
def blob(request: pytest.FixtureRequest, client: Client, repository: str) -> tuple[str, bytes]:
    data = os.urandom(request.param)
    digest = client.push_blob(repository, data)
    return f"/v2/{repository}/blobs/{digest}", data


def test_a_blob_comes_back_whole(client: Client, blob: tuple[str, bytes]) -> None:
    path, data = blob
    answer = client.call("GET", path).expect(200)
    assert answer.body == data
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["docker-content-digest"] == digest_of(data)
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-range" not in answer.headers


def test_head_of_a_blob_has_the_headers_of_get_and_no_body(client: Client, blob: tuple[str, bytes]) -> None:
    path, _ = blob
    head, get = client.call("HEAD", path).expect(200), client.call("GET", path).expect(200)
    assert head.body == b""
    assert comparable(head) == comparable(get)


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=0-99", slice(0, 100)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=500-", slice(500, None)),
        ("bytes=-1", slice(-1, None)),
        ("bytes=-100", slice(-100, None)),
        ("bytes=900-100000000", slice(900, None)),
        ("bytes=-100000000", slice(0, None)),
        ("BYTES=5-9", slice(5, 10)),
    ],
)
def test_a_range_gives_exactly_its_bytes(
    client: Client, blob: tuple[str, bytes], wanted: str, part: slice
) -> None:
    path, data = blob
    answer = client.call("GET", path, headers={"Range": wanted}).expect(206)
    assert answer.body == data[part]
    first, last, _ = part.indices(len(data))
    assert answer.headers["content-range"] == f"bytes {first}-{last - 1}/{len(data)}"
    assert answer.headers["content-length"] == str(last - first)


def test_ranges_one_after_the_other_make_the_whole(client: Client, blob: tuple[str, bytes]) -> None:
    path, data = blob
    step = len(data) // 7
    parts = [
        client.call("GET", path, headers={"Range": f"bytes={start}-{start + step - 1}"}).expect(206).body
        for start in range(0, len(data), step)
    ]
    assert b"".join(parts) == data


@pytest.mark.parametrize("wanted", ["bytes={size}-", "bytes={size}-{size}", "bytes=-0", "bytes=99999999999-"])
def test_a_range_behind_the_end_is_refused_with_the_size(
    client: Client, blob: tuple[str, bytes], wanted: str
) -> None:
    path, data = blob
    answer = client.call("GET", path, headers={"Range": wanted.format(size=len(data))}).expect(416)
    assert answer.headers["content-range"] == f"bytes */{len(data)}"
    assert answer.codes == ["RANGE_INVALID"]


@pytest.mark.parametrize(
    "wanted", ["bytes=9-5", "bytes=0-1,5-6", "lines=0-3", "bytes=a-b", "bytes=-", "0-5", "bytes 0-5"]
)
def test_a_range_that_is_not_understood_is_ignored(client: Client, blob: tuple[str, bytes], wanted: str) -> None:
    path, data = blob
    assert client.call("GET", path, headers={"Range": wanted}).expect(200).body == data


def test_a_range_is_nothing_to_head(client: Client, blob: tuple[str, bytes]) -> None:
    path, data = blob
    answer = client.call("HEAD", path, headers={"Range": "bytes=0-9"}).expect(200)
    assert answer.headers["content-length"] == str(len(data))


def test_if_none_match_spares_the_bytes(client: Client, blob: tuple[str, bytes]) -> None:
    path, _ = blob
    tag = client.call("HEAD", path).headers["etag"]
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = client.call("GET", path, headers={"If-None-Match": condition}).expect(304)
        assert answer.body == b""
        assert answer.headers["etag"] == tag
        assert "content-length" not in answer.headers
    assert client.call("GET", path, headers={"If-None-Match": '"other"'}).status == 200


def test_if_none_match_goes_before_a_range(client: Client, blob: tuple[str, bytes]) -> None:
    path, _ = blob
    tag = client.call("HEAD", path).headers["etag"]
    client.call("GET", path, headers={"If-None-Match": tag, "Range": "bytes=0-1"}).expect(304)


def test_if_range_gives_the_part_only_of_the_same_content(client: Client, blob: tuple[str, bytes]) -> None:
    path, data = blob
    tag = client.call("HEAD", path).headers["etag"]
    part = client.call("GET", path, headers={"Range": "bytes=0-1", "If-Range": tag}).expect(206)
    assert part.body == data[:2]
    for condition in ('"other"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        whole = client.call("GET", path, headers={"Range": "bytes=0-1", "If-Range": condition}).expect(200)
        assert whole.body == data


def test_the_empty_blob_can_be_pulled_but_has_no_range(client: Client, repository: str) -> None:
    path = f"/v2/{repository}/blobs/{client.push_blob(repository, b'')}"
    assert client.call("GET", path).expect(200).body == b""
    assert client.call("HEAD", path).expect(200).headers["content-length"] == "0"
    assert (
        client.call("GET", path, headers={"Range": "bytes=0-"}).expect(416).headers["content-range"] == "bytes */0"
    )


def test_a_blob_that_is_nowhere_is_unknown(client: Client, repository: str) -> None:
    answer = client.get_blob(repository, digest_of(b"nowhere")).expect(404)
    assert answer.codes == ["BLOB_UNKNOWN"]
    assert client.call("HEAD", f"/v2/{repository}/blobs/{digest_of(b'nowhere')}").expect(404).body == b""


def test_a_blob_of_another_repository_is_unknown(registry: Server, client: Client, repository: str) -> None:
    registry.make_repository(f"{repository}-other")
    digest = client.push_blob(repository, b"held elsewhere")
    answer = client.get_blob(f"{repository}-other", digest).expect(404)
    assert answer.codes == ["BLOB_UNKNOWN"]


@pytest.mark.parametrize(
    "digest", ["sha256:short", "md5:" + 32 * "0", "latest", "sha256:" + 64 * "G", "sha256:" + 64 * "A"]
)
def test_what_is_no_digest_is_refused_as_such(client: Client, repository: str, digest: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.call(method, f"/v2/{repository}/blobs/{digest}").expect(400)
        assert answer.codes == ["DIGEST_INVALID"]


def test_a_digest_may_be_percent_encoded(client: Client, repository: str) -> None:
    digest = client.push_blob(repository, b"content")
    path = f"/v2/{repository}/blobs/{digest.replace(':', '%3A')}"
    assert client.call("GET", path).expect(200).body == b"content"


def test_a_deleted_blob_is_unknown(client: Client, repository: str) -> None:
    digest = client.push_blob(repository, b"goes")
    path = f"/v2/{repository}/blobs/{digest}"
    client.call("DELETE", path).expect(202)
    assert client.call("GET", path).expect(404).codes == ["BLOB_UNKNOWN"]
    assert client.call("DELETE", path).expect(404).codes == ["BLOB_UNKNOWN"]


def test_deleting_from_one_repository_leaves_the_blob_to_another(
    registry: Server, client: Client, repository: str
) -> None:
    registry.make_repository(f"{repository}-other")
    for one in (repository, f"{repository}-other"):
        digest = client.push_blob(one, b"shared")
    client.call("DELETE", f"/v2/{repository}/blobs/{digest}").expect(202)
    assert client.get_blob(f"{repository}-other", digest).expect(200).body == b"shared"


def test_a_blob_that_a_manifest_needs_is_not_deleted(client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image, "v1")
    answer = client.call("DELETE", f"/v2/{repository}/blobs/{digest_of(image.blobs[1])}").expect(405)
    assert answer.codes == ["UNSUPPORTED"]
    assert image.digest in answer.json["errors"][0]["message"]
    client.assert_whole(repository, image, "v1")


def test_a_blob_by_sha512_is_found_by_sha512(client: Client, repository: str) -> None:
    digest = digest_of(b"long digest", "sha512")
    location = client.start_upload(repository)
    answer = client.call("PUT", f"{location}?digest={digest}", b"long digest").expect(201)
    assert answer.headers["docker-content-digest"] == digest
    assert client.get_blob(repository, digest).expect(200).body == b"long digest"
    assert client.get_blob(repository, digest_of(b"long digest")).status == 404


def test_deletion_can_be_switched_off(make_server: Callable[..., Server]) -> None:
    server = make_server({"registry.delete": "false"})
    server.make_repository("admin/kept")
    client = Client(server)
    image = make_image()
    client.push("admin/kept", image, "v1")
    for path in (f"blobs/{digest_of(image.blobs[0])}", "manifests/v1", f"manifests/{image.digest}"):
        assert client.call("DELETE", f"/v2/admin/kept/{path}").expect(405).codes == ["UNSUPPORTED"]
    client.assert_whole("admin/kept", image, "v1")


def comparable(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
