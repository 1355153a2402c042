"""Uploads over HTTP: OCI distribution specification 1.1, "Pushing blobs"."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest
from tests.support.backends import new_repository
from tests.support.client import Answer, Client, local
from tests.support.images import digest_of
from tests.support.server import Server

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def chunk(client: Client, location: str, data: bytes, start: int, **headers: str) -> Answer:
    sent = {"Content-Range": f"{start}-{start + len(data) - 1}", "Content-Type": "application/octet-stream"}
    return client.call("PATCH", location, data, {**sent, **headers})


def finish(client: Client, location: str, data: bytes, body: bytes = b"", **headers: str) -> Answer:
    return client.call("PUT", f"{location}?digest={digest_of(data)}", body, headers)


def test_an_upload_begins_with_a_place_and_nothing_received(client: Client, repository: str) -> None:
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/").expect(202)
    upload = answer.headers["docker-upload-uuid"]
    assert local(answer.headers["location"]) == f"/v2/{repository}/blobs/uploads/{upload}"
    assert answer.headers["range"] == "0-0"
    assert answer.headers["content-length"] == "0"
    assert "oci-chunk-min-length" not in answer.headers


def test_an_upload_may_be_asked_for_without_the_last_slash(client: Client, repository: str) -> None:
    client.call("POST", f"/v2/{repository}/blobs/uploads").expect(202)


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 6_000_000])
def test_post_then_put_makes_a_blob(client: Client, repository: str, size: int) -> None:
    data = os.urandom(size)
    answer = finish(client, client.start_upload(repository), data, data).expect(201)
    assert local(answer.headers["location"]) == f"/v2/{repository}/blobs/{digest_of(data)}"
    assert answer.headers["docker-content-digest"] == digest_of(data)
    assert client.call("GET", local(answer.headers["location"])).expect(200).body == data


@pytest.mark.parametrize("size", [0, 1000, 70_000])
def test_a_single_post_makes_a_blob(client: Client, repository: str, size: int) -> None:
    data = os.urandom(size)
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}", data).expect(201)
    assert local(answer.headers["location"]) == f"/v2/{repository}/blobs/{digest_of(data)}"
    assert client.get_blob(repository, digest_of(data)).expect(200).body == data


def test_a_single_post_with_a_wrong_digest_leaves_nothing(client: Client, repository: str) -> None:
    digest = digest_of(b"announced")
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", b"sent").expect(400)
    assert answer.codes == ["DIGEST_INVALID"]
    for one in (digest, digest_of(b"sent")):
        assert client.get_blob(repository, one).status == 404


@pytest.mark.parametrize("sizes", [(10, 20, 5), (1, 1), (100_000, 7, 100_000), (3_000_000, 6_000_000, 1)])
def test_chunks_make_a_blob(client: Client, repository: str, sizes: tuple[int, ...]) -> None:
    location, data = client.start_upload(repository), b""
    for size in sizes:
        more = os.urandom(size)
        answer = chunk(client, location, more, len(data)).expect(202)
        data += more
        assert answer.headers["range"] == f"0-{len(data) - 1}"
        location = local(answer.headers["location"])
    finish(client, location, data).expect(201)
    assert client.get_blob(repository, digest_of(data)).expect(200).body == data


@pytest.mark.parametrize("size", [10, 100_000])
def test_the_last_chunk_may_come_with_put(client: Client, repository: str, size: int) -> None:
    location = client.start_upload(repository)
    first, last = os.urandom(size), os.urandom(size)
    chunk(client, location, first, 0).expect(202)
    finish(client, location, first + last, last, **{"Content-Range": f"{size}-{2 * size - 1}"}).expect(201)
    assert client.get_blob(repository, digest_of(first + last)).expect(200).body == first + last


def test_a_body_in_chunks_of_http_needs_no_length(client: Client, repository: str) -> None:
    """As dockerd sends layers."""
    pieces = [os.urandom(size) for size in (1, 50_000, 300_000)]

    def stream() -> Iterator[bytes]:
        yield from pieces

    location = client.start_upload(repository)
    answer = client.call("PATCH", location, stream()).expect(202)
    data = b"".join(pieces)
    assert answer.headers["range"] == f"0-{len(data) - 1}"
    finish(client, location, data).expect(201)
    assert client.get_blob(repository, digest_of(data)).expect(200).body == data


def test_patches_without_content_range_go_on_at_the_end(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    client.call("PATCH", location, b"one, ").expect(202)
    client.call("PATCH", location, b"two").expect(202)
    finish(client, location, b"one, two").expect(201)


@pytest.mark.parametrize("start", [0, 4, 6, 1000])
def test_a_chunk_out_of_order_is_refused_with_what_is_there(client: Client, repository: str, start: int) -> None:
    location = client.start_upload(repository)
    chunk(client, location, b"12345", 0).expect(202)
    answer = chunk(client, location, b"abc", start).expect(416)
    assert answer.headers["range"] == "0-4"
    assert answer.codes == ["RANGE_INVALID"]
    chunk(client, location, b"67", 5).expect(202)
    finish(client, location, b"1234567").expect(201)


def test_a_first_chunk_that_begins_later_is_refused(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    assert chunk(client, location, b"abc", 3).expect(416).headers["range"] == "0-0"
    assert (
        finish(client, location, b"abc", b"abc", **{"Content-Range": "3-5"}).expect(416).headers["range"] == "0-0"
    )


def test_a_put_out_of_order_is_refused_and_the_upload_goes_on(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    chunk(client, location, b"12345", 0).expect(202)
    refused = finish(client, location, b"12345abc", b"abc", **{"Content-Range": "9-11"}).expect(416)
    assert refused.headers["range"] == "0-4"
    finish(client, location, b"12345").expect(201)


@pytest.mark.parametrize("header", ["0-", "-5", "five", "4-2", "0-2 3-4", "bytes", "0-" + 30 * "9"])
def test_a_content_range_that_cannot_be_read_is_refused(client: Client, repository: str, header: str) -> None:
    location = client.start_upload(repository)
    answer = client.call("PATCH", location, b"abc", {"Content-Range": header}).expect(400)
    assert answer.codes == ["BLOB_UPLOAD_INVALID"]


def test_content_range_and_length_have_to_agree(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    answer = client.call("PATCH", location, b"abc", {"Content-Range": "0-9"}).expect(400)
    assert answer.codes == ["SIZE_INVALID"]
    chunk(client, location, b"abc", 0).expect(202)


@pytest.mark.parametrize("header", ["bytes 0-2/3", "bytes 0-2/*", "bytes=0-2"])
def test_content_range_as_http_writes_it_is_understood(client: Client, repository: str, header: str) -> None:
    location = client.start_upload(repository)
    client.call("PATCH", location, b"abc", {"Content-Range": header}).expect(202)


def test_the_status_tells_how_far_it_came(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    for data, expected in ((b"", "0-0"), (b"x", "0-0"), (b"yz", "0-2")):
        if data:
            client.call("PATCH", location, data).expect(202)
        for method in ("GET", "HEAD"):
            answer = client.call(method, location).expect(204)
            assert answer.headers["range"] == expected
            assert local(answer.headers["location"]) == location
            assert answer.headers["docker-upload-uuid"] == location.rpartition("/")[2]


def test_a_cancelled_upload_is_gone(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    client.call("PATCH", location, b"abc").expect(202)
    client.call("DELETE", location).expect(204)
    for method, path in (
        ("GET", location),
        ("PATCH", location),
        ("PUT", f"{location}?digest={digest_of(b'abc')}"),
        ("DELETE", location),
    ):
        assert client.call(method, path, b"" if method in {"PATCH", "PUT"} else None).codes == [
            "BLOB_UPLOAD_UNKNOWN"
        ]


def test_a_finished_upload_is_gone(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    finish(client, location, b"abc", b"abc").expect(201)
    assert client.call("GET", location).expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"]


@pytest.mark.parametrize("upload", [UNKNOWN, "nothing", "%00", "..", 300 * "a"])
def test_an_unknown_upload_is_unknown(client: Client, repository: str, upload: str) -> None:
    answer = client.call("PATCH", f"/v2/{repository}/blobs/uploads/{upload}", b"abc").expect(404)
    assert answer.codes == ["BLOB_UPLOAD_UNKNOWN"]


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_wrong_digest_ends_the_upload_and_leaves_nothing(client: Client, repository: str, size: int) -> None:
    data, announced = os.urandom(size), digest_of(b"something else")
    location = client.start_upload(repository)
    answer = client.call("PUT", f"{location}?digest={announced}", data).expect(400)
    assert answer.codes == ["DIGEST_INVALID"]
    for digest in (announced, digest_of(data)):
        assert client.get_blob(repository, digest).status == 404
    assert client.call("GET", location).status == 404


@pytest.mark.parametrize("query", ["", "?digest=", "?digest=sha256:abc", "?digest=md5:" + 32 * "0"])
def test_finishing_needs_a_digest(client: Client, repository: str, query: str) -> None:
    location = client.start_upload(repository)
    answer = client.call("PUT", location + query, b"abc").expect(400)
    assert answer.codes == ["DIGEST_INVALID"]
    finish(client, location, b"abc", b"abc").expect(201)


@pytest.mark.parametrize("size", [100, 200_000])
def test_an_upload_by_sha512_is_checked_by_sha512(client: Client, repository: str, size: int) -> None:
    data = os.urandom(size)
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?digest-algorithm=sha512").expect(202)
    location = local(answer.headers["location"])
    chunk(client, location, data, 0).expect(202)
    client.call("PUT", f"{location}?digest={digest_of(data, 'sha512')}").expect(201)
    assert client.get_blob(repository, digest_of(data, "sha512")).expect(200).body == data


def test_an_algorithm_that_nobody_knows_is_refused(client: Client, repository: str) -> None:
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?digest-algorithm=md5").expect(400)
    assert answer.codes == ["DIGEST_INVALID"]


def test_the_same_blob_may_be_pushed_again(client: Client, repository: str) -> None:
    for _ in range(2):
        digest = client.push_blob(repository, b"twice")
    assert client.get_blob(repository, digest).expect(200).body == b"twice"


def test_an_upload_belongs_to_its_repository(registry: Server, client: Client, repository: str) -> None:
    other = new_repository(registry)
    upload = client.start_upload(repository).rpartition("/")[2]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        path = f"/v2/{other}/blobs/uploads/{upload}?digest={digest_of(b'')}"
        assert client.call(method, path, b"" if method in {"PATCH", "PUT"} else None).expect(404).codes == [
            "BLOB_UPLOAD_UNKNOWN"
        ]
    client.call("GET", f"/v2/{repository}/blobs/uploads/{upload}").expect(204)


def test_the_least_size_of_chunks_is_announced(make_server: Callable[..., Server]) -> None:
    server = make_server({"registry.chunk_minimum": 4096})
    server.make_repository("admin/r")
    answer = Client(server).call("POST", "/v2/admin/r/blobs/uploads/").expect(202)
    assert answer.headers["oci-chunk-min-length"] == "4096"


def test_a_blob_beyond_the_limit_is_refused_however_it_comes(make_server: Callable[..., Server]) -> None:
    server = make_server({"registry.blob_limit": 100_000})
    server.make_repository("admin/r")
    client = Client(server)
    large = os.urandom(100_001)
    location = client.start_upload("admin/r")
    assert finish(client, location, large, large).expect(413).codes == ["SIZE_INVALID"]
    location = client.start_upload("admin/r")
    assert chunk(client, location, large, 0).expect(413).codes == ["SIZE_INVALID"]
    location = client.start_upload("admin/r")
    client.call("PATCH", location, large[:60_000]).expect(202)
    assert client.call("PATCH", location, iter([large[60_000:]])).expect(413).codes == ["SIZE_INVALID"]
    assert client.get_blob("admin/r", digest_of(large)).status == 404
    client.push_blob("admin/r", large[:100_000])


def test_ids_of_uploads_cannot_be_guessed(client: Client, repository: str) -> None:
    found = {client.start_upload(repository).rpartition("/")[2] for _ in range(10)}
    assert len(found) == 10
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one) for one in found
    )
    known = found.pop()
    for place in (0, 9, 15, 20, 35):
        changed = known[:place] + ("1" if known[place] == "0" else "0") + known[place + 1 :]
        answer = client.call("PATCH", f"/v2/{repository}/blobs/uploads/{changed}", b"abc").expect(404)
        assert answer.codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_an_upload_that_did_not_begin_is_cancelled_like_any_other(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    client.call("GET", location).expect(204)
    client.call("DELETE", location).expect(204)
    for method, path in (
        ("GET", location),
        ("PATCH", location),
        ("PUT", f"{location}?digest={digest_of(b'abc')}"),
        ("DELETE", location),
    ):
        assert client.call(method, path, b"abc" if method in {"PATCH", "PUT"} else None).codes == [
            "BLOB_UPLOAD_UNKNOWN"
        ]
