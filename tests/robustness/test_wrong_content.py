"""A wrong digest, a wrong size, a connection that is cut: nothing of it is visible, and nothing stays."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.client import Answer, Client
from tests.support.images import digest_of, make_image
from tests.support.invariants import find_violations
from tests.support.pusher import reported_offset
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.app import Application

LARGE = random.Random(11).randbytes(3_000_000)
OTHER = digest_of(b"something else")
STREAM = {"Content-Type": "application/octet-stream"}

Body = Callable[[bytes], bytes | Iterator[bytes]]


def whole(data: bytes) -> bytes:
    """With a length."""
    return data


def in_chunks(data: bytes) -> Iterator[bytes]:
    """Without one."""
    return (data[begin : begin + 70_000] for begin in range(0, len(data), 70_000))


@pytest.fixture
def repository(two_workers: Server) -> str:
    name = f"admin/r{os.urandom(8).hex()}"
    two_workers.make_repository(name)
    return name


@pytest.fixture
def client(two_workers: Server) -> Client:
    return Client(two_workers)


def files(server: Server) -> set[Path]:
    """What is in the storage, unfinished files too."""
    return {path for path in (server.directory / "blobs").rglob("*") if path.is_file()}


def sweep(server: Server) -> None:
    """Delete everything that is due; then nothing breaks a rule."""

    async def work(application: Application) -> None:
        while (await application.sweeper.sweep()).objects:
            pass
        assert await find_violations(application.database, application.storage) == []

    server.do(work)


@pytest.fixture
def leaves_nothing(two_workers: Server) -> Iterator[None]:
    """After the test the storage holds what it held before; what the test before it left half-done, may go."""
    before = files(two_workers)
    yield

    def is_clean() -> bool:
        sweep(two_workers)
        return files(two_workers) <= before

    wait_until(is_clean)


def assert_invisible(client: Client, repository: str, *digests: str) -> None:
    for digest in digests:
        for method in ("GET", "HEAD"):
            client.call(method, f"/v2/{repository}/blobs/{digest}").expect(404)
    mounted = f"/v2/{repository}/blobs/uploads/?mount={quote(digests[0])}&from={repository}"
    location = client.call("POST", mounted).expect(202).headers["location"]
    client.call("DELETE", location).expect(204)


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("size", [10, 65_537, len(LARGE)])
@pytest.mark.parametrize("body", [whole, in_chunks])
class TestWrongDigest:
    def test_of_a_single_post(self, client: Client, repository: str, body: Body, size: int) -> None:
        data = LARGE[:size]
        path = f"/v2/{repository}/blobs/uploads/?digest={quote(OTHER)}"
        refused = client.call("POST", path, body(data), STREAM)
        self.assert_refused(refused, data)
        assert_invisible(client, repository, OTHER, digest_of(data))

    def test_of_a_put_with_all(self, client: Client, repository: str, body: Body, size: int) -> None:
        data = LARGE[:size]
        location = client.start_upload(repository)
        refused = client.call("PUT", f"{location}?digest={quote(OTHER)}", body(data), STREAM)
        self.assert_refused(refused, data)
        assert_invisible(client, repository, OTHER, digest_of(data))
        client.call("GET", location).expect(404)

    def test_of_a_put_after_patches(self, client: Client, repository: str, body: Body, size: int) -> None:
        data = LARGE[:size]
        location = client.start_upload(repository)
        client.call("PATCH", location, body(data[: size // 2]), STREAM).expect(202)
        client.call("PATCH", location, body(data[size // 2 :]), STREAM).expect(202)
        refused = client.call("PUT", f"{location}?digest={quote(OTHER)}", b"")
        self.assert_refused(refused, data)
        assert_invisible(client, repository, OTHER, digest_of(data))
        client.call("GET", location).expect(404)

    @staticmethod
    def assert_refused(refused: Answer, data: bytes) -> None:
        assert refused.expect(400).codes == ["DIGEST_INVALID"]
        assert refused.json["errors"][0]["detail"] == {"computed": digest_of(data), "provided": OTHER}


@pytest.mark.usefixtures("leaves_nothing")
def test_a_wrong_sha512_is_refused_although_the_session_counted_sha256(client: Client, repository: str) -> None:
    wrong = digest_of(b"other", "sha512")
    location = client.start_upload(repository)
    client.call("PATCH", location, LARGE, STREAM).expect(202)
    assert client.call("PUT", f"{location}?digest={wrong}", b"").expect(400).codes == ["DIGEST_INVALID"]
    assert_invisible(client, repository, wrong, digest_of(LARGE, "sha512"), digest_of(LARGE))


@pytest.mark.usefixtures("leaves_nothing")
def test_a_size_that_disagrees_with_its_range_is_refused(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    headers = {**STREAM, "Content-Range": "0-2999998"}
    assert client.call("PATCH", location, LARGE, headers).expect(400).codes == ["SIZE_INVALID"]
    assert reported_offset(client.call("GET", location).expect(204)) == 0
    client.call("DELETE", location).expect(204)
    assert_invisible(client, repository, digest_of(LARGE))


@pytest.mark.usefixtures("leaves_nothing")
def test_bytes_missing_at_the_end_are_a_wrong_digest(client: Client, repository: str) -> None:
    location = client.start_upload(repository)
    client.call("PATCH", location, LARGE[:-1], STREAM).expect(202)
    client.call("PUT", f"{location}?digest={quote(digest_of(LARGE))}", b"").expect(400)
    assert_invisible(client, repository, digest_of(LARGE), digest_of(LARGE[:-1]))


def test_a_manifest_of_another_digest_is_not_stored(client: Client, repository: str) -> None:
    image = make_image()
    for blob in image.blobs:
        client.push_blob(repository, blob)
    assert client.put_manifest(repository, image, OTHER).expect(400).codes == ["DIGEST_INVALID"]
    client.get_manifest(repository, OTHER).expect(404)
    client.get_manifest(repository, image.digest).expect(404)


# --- connections that are cut ------------------------------------------------------------------------------------


def begin(client: Client, method: str, path: str, body: bytes, *, chunked: bool) -> socket.socket:
    """Send the head of a request and two thirds of its body."""
    connection = client.connect()
    connection.putrequest(method, path)
    repository = path.removeprefix("/v2/").partition("/blobs/")[0]
    connection.putheader("Authorization", f"Bearer {client.token(f'repository:{repository}:pull,push,delete')}")
    connection.putheader("Content-Type", "application/octet-stream")
    part = body[: len(body) * 2 // 3]
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        connection.send(b"%x\r\n" % len(body))  # the chunk is cut, too
    else:
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
    connection.send(part)
    sock: socket.socket = connection.sock
    return sock


def end(sock: socket.socket) -> bytes:
    """Send no more; what the server still says."""
    sock.shutdown(socket.SHUT_WR)
    said = b""
    while piece := sock.recv(65536):
        said += piece
    sock.close()
    return said


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("how", [end, reset])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1000, len(LARGE)])
class TestCut:
    def test_a_single_post_leaves_nothing(
        self, client: Client, repository: str, how: Callable[[socket.socket], object], chunked: bool, size: int
    ) -> None:
        data = LARGE[:size]
        path = f"/v2/{repository}/blobs/uploads/?digest={quote(digest_of(data))}"
        how(begin(client, "POST", path, data, chunked=chunked))
        assert_invisible(client, repository, digest_of(data))

    def test_a_put_makes_no_blob_and_the_session_can_be_cancelled(
        self, client: Client, repository: str, how: Callable[[socket.socket], object], chunked: bool, size: int
    ) -> None:
        data = LARGE[:size]
        location = client.start_upload(repository)
        how(begin(client, "PUT", f"{location}?digest={quote(digest_of(data))}", data, chunked=chunked))
        assert_invisible(client, repository, digest_of(data), digest_of(data[: size * 2 // 3]))
        wait_until(lambda: client.call("DELETE", location).expect(204, 409).status == 204)
        client.call("GET", location).expect(404)

    def test_a_patch_keeps_a_beginning_that_can_be_cancelled(
        self, client: Client, repository: str, how: Callable[[socket.socket], object], chunked: bool, size: int
    ) -> None:
        data = LARGE[:size]
        location = client.start_upload(repository)
        how(begin(client, "PATCH", location, data, chunked=chunked))
        assert reported_offset(client.call("GET", location).expect(204)) <= size * 2 // 3
        assert_invisible(client, repository, digest_of(data), digest_of(data[: size * 2 // 3]))
        wait_until(lambda: client.call("DELETE", location).expect(204, 409).status == 204)
        client.call("GET", location).expect(404)
