"""What a client meets when the storage has its say: vanished objects, redirects."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.backends import new_repository, run_server
from tests.support.client import Client
from tests.support.images import digest_of
from tests.support.s3 import S3Server
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.app import Application
from dtr.backends import Definition


def objects(server: Server, request: pytest.FixtureRequest) -> set[Path]:
    """The files of all objects, wherever the server keeps them."""
    root = server.directory / "blobs"
    if "DTR_STORAGE__DRIVER" in server.environment:
        s3: S3Server = request.getfixturevalue("s3_server")
        root = s3.directory / "blobs" / server.environment["DTR_STORAGE__S3__PREFIX"]
    return {path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")}


@pytest.mark.parametrize("size", [20_000, 300_000])
def test_a_vanished_object_is_an_honest_404_and_a_push_heals_it(
    request: pytest.FixtureRequest, registry: Server, client: Client, repository: str, size: int
) -> None:
    before = objects(registry, request)
    data = os.urandom(size)
    digest = client.push_blob(repository, data)
    for made in objects(registry, request) - before:
        made.unlink()
    assert client.get_blob(repository, digest).expect(404).codes == ["BLOB_UNKNOWN"]
    client.call("HEAD", f"/v2/{repository}/blobs/{digest}").expect(404)  # so a client sends it again
    client.push_blob(repository, data)
    assert client.get_blob(repository, digest).expect(200).body == data


def test_a_vanished_object_is_not_mounted_elsewhere(
    request: pytest.FixtureRequest, registry: Server, client: Client, repository: str
) -> None:
    before = objects(registry, request)
    digest = client.push_blob(repository, os.urandom(20_000))
    for made in objects(registry, request) - before:
        made.unlink()
    client.get_blob(repository, digest).expect(404)
    for origin in ("", f"&from={repository}"):
        client.call("POST", f"/v2/{new_repository(registry)}/blobs/uploads/?mount={digest}{origin}").expect(202)


def test_a_damaged_object_is_never_taken_for_whole(
    request: pytest.FixtureRequest, registry: Server, repository: str
) -> None:
    """What was sent before it was noticed cannot be taken back; the connection breaks."""
    before = objects(registry, request)
    client = Client(registry)
    digest = client.push_blob(repository, os.urandom(300_000))
    for made in objects(registry, request) - before:
        os.truncate(made, 100_000)
    try:
        answer = client.get_blob(repository, digest)
    except (http.client.HTTPException, OSError):
        pass
    else:
        assert answer.status >= 500
    client.close()
    Client(registry).call("GET", f"/v2/{repository}/tags/list").expect(200)


def test_a_storage_that_is_away_is_not_taken_for_missing_blobs(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.make_repository("admin/r")
    client = Client(server)
    data = os.urandom(20_000)
    digest = client.push_blob("admin/r", data)
    blobs = server.directory / "blobs"
    blobs.rename(server.directory / "away")
    answer = client.get_blob("admin/r", digest).expect(503)
    assert answer.codes == ["UNAVAILABLE"]
    assert int(answer.headers["retry-after"]) > 0
    more = os.urandom(20_000)
    assert client.call("POST", f"/v2/admin/r/blobs/uploads/?digest={digest_of(more)}", more).status == 503
    wait_until(lambda: '"reason":"storage default: the storage directory' in server.log)  # for the operator alone
    (server.directory / "away").rename(blobs)
    assert client.get_blob("admin/r", digest).expect(200).body == data


# --- redirects --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redirecting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that sends pulls to its S3 storage."""
    with run_server("s3", request, tmp_path_factory, {"storage.redirect_seconds": 60}) as running:
        running.make_repository("admin/private")
        running.make_user("stranger")
        yield running


def fetch(method: str, address: str, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request(method, f"{parts.path}?{parts.query}", headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


@pytest.mark.parametrize("size", [20_000, 300_000])
def test_a_pull_is_sent_to_the_storage_with_an_address_that_ends(redirecting: Server, size: int) -> None:
    client, data = Client(redirecting), os.urandom(size)
    digest = client.push_blob("admin/private", data)
    answer = client.get_blob("admin/private", digest).expect(307)
    address = answer.headers["location"]
    assert answer.body == b""
    assert answer.headers["cache-control"] == "no-store"
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["60"]
    assert fetch("GET", address, {}) == (200, data)
    assert fetch("GET", address, {"Range": "bytes=10-19"}) == (206, data[10:20])


def test_the_address_is_for_reading_only(redirecting: Server) -> None:
    client, data = Client(redirecting), os.urandom(20_000)
    digest = client.push_blob("admin/private", data)
    address = client.get_blob("admin/private", digest).headers["location"]
    assert fetch("DELETE", address, {})[0] == 403
    assert fetch("PUT", address, {})[0] == 403
    assert fetch("GET", address, {}) == (200, data)


def test_who_cannot_reach_the_storage_is_not_sent_there(redirecting: Server) -> None:
    client, data = Client(redirecting), os.urandom(20_000)
    digest = client.push_blob("admin/private", data)

    async def change(application: Application, networks: tuple[str, ...]) -> None:
        backends = application.backends
        found = await backends.get("default")
        definition = Definition(
            driver=found.driver, parameters=found.parameters, redirect_seconds=60, redirect_except=networks
        )
        await backends.put("default", definition)

    def is_sent() -> bool:
        return client.get_blob("admin/private", digest).status == 307

    assert is_sent()
    assert client.call("HEAD", f"/v2/admin/private/blobs/{digest}").expect(200).body == b""
    redirecting.do(lambda application: change(application, ("10.0.0.0/8", "127.0.0.0/8")))
    wait_until(lambda: not is_sent())  # a running server follows
    assert client.get_blob("admin/private", digest).expect(200).body == data
    redirecting.do(lambda application: change(application, ("10.0.0.0/8",)))
    wait_until(is_sent)


def test_a_small_blob_comes_from_the_database(redirecting: Server) -> None:
    client = Client(redirecting)
    digest = client.push_blob("admin/private", b"some content")
    assert client.get_blob("admin/private", digest).expect(200).body == b"some content"
    part = client.call("GET", f"/v2/admin/private/blobs/{digest}", headers={"Range": "bytes=5-6"}).expect(206)
    assert part.body == b"co"


def test_head_is_answered_without_redirect(redirecting: Server) -> None:
    client = Client(redirecting)
    digest = client.push_blob("admin/private", b"some content")
    answer = client.call("HEAD", f"/v2/admin/private/blobs/{digest}").expect(200)
    assert answer.headers["content-length"] == "12"
    assert "location" not in answer.headers


def test_whoever_may_not_pull_gets_no_address(redirecting: Server) -> None:
    digest = Client(redirecting).push_blob("admin/private", b"secret")
    for user in ("stranger", None):
        answer = Client(redirecting, user).get_blob("admin/private", digest).expect(401)
        assert "location" not in answer.headers
    assert Client(redirecting).get_blob("admin/private", digest_of(b"other")).expect(404)
