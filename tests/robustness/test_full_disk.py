"""A full disk: pushes are refused in words, nothing half-written stays, reading goes on; so does all with room."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.client import Answer, Client
from tests.support.commands import Commands
from tests.support.disk import SmallDisk, small_disk
from tests.support.images import digest_of, make_image
from tests.support.invariants import find_violations
from tests.support.pusher import reported_offset
from tests.support.server import PASSWORD, Server
from tests.support.wire import wait_until

from dtr.app import Application

MIB = 1024 * 1024
STREAM = {"Content-Type": "application/octet-stream"}
TOO_MUCH = random.Random(13).randbytes(30 * MIB)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", mib=24) as made:
        yield made


def free(disk: SmallDisk) -> int:
    status = os.statvfs(disk.path)
    return status.f_bavail * status.f_frsize


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[begin : begin + 100_000] for begin in range(0, len(data), 100_000))


def assert_full(answer: Answer, what: str) -> None:
    assert answer.expect(507).json["errors"][0]["message"] == f"the registry's {what} is full"


def sweep(server: Server) -> None:
    async def work(application: Application) -> None:
        while (await application.sweeper.sweep()).objects:
            pass

    server.do(work)


def assert_undamaged(server: Server) -> None:
    assert "; 0 damaged" in Commands(server)("fsck", "--content")
    violations = server.do(lambda application: find_violations(application.database, application.storage))
    assert violations == []


# --- the storage -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def full_storage(request: pytest.FixtureRequest, make_server: Callable[..., Server], disk: SmallDisk) -> Server:
    """A server whose blobs are on the small disk."""
    server = make_server({"storage.filesystem.root": str(disk.path)}, workers=2, database=request.param)
    server.make_repository("admin/app")
    return server


@pytest.mark.parametrize("chunked", [False, True])
def test_a_blob_that_does_not_fit_is_refused_and_its_room_is_given_back(
    full_storage: Server, disk: SmallDisk, chunked: bool
) -> None:
    client = Client(full_storage)
    image = make_image(size=200_000)
    client.push("admin/app", image, "v1")
    room = free(disk)
    path = f"/v2/admin/app/blobs/uploads/?digest={quote(digest_of(TOO_MUCH))}"
    body = pieces if chunked else bytes

    assert_full(client.call("POST", path, body(TOO_MUCH), STREAM), "storage")
    client.get_blob("admin/app", digest_of(TOO_MUCH)).expect(404)

    location = client.start_upload("admin/app")
    assert_full(client.call("PUT", f"{location}?digest={digest_of(TOO_MUCH)}", body(TOO_MUCH), STREAM), "storage")
    client.get_blob("admin/app", digest_of(TOO_MUCH)).expect(404)
    client.call("DELETE", location).expect(204)

    location = client.start_upload("admin/app")
    client.call("PATCH", location, TOO_MUCH[:MIB], STREAM).expect(202)
    assert_full(client.call("PATCH", location, body(TOO_MUCH[MIB:]), STREAM), "storage")
    assert reported_offset(client.call("GET", location).expect(204)) == MIB  # what was acknowledged stays
    assert free(disk) >= room - MIB - 64 * 1024
    client.call("DELETE", location).expect(204)

    sweep(full_storage)
    wait_until(lambda: free(disk) == room)
    client.assert_whole("admin/app", image, "v1")
    assert_undamaged(full_storage)


def test_on_a_full_disk_reading_goes_on_and_pushes_do_when_there_is_room(
    full_storage: Server, disk: SmallDisk
) -> None:
    client = Client(full_storage)
    image, next_image = make_image(layers=2, size=300_000), make_image(layers=2, size=300_000)
    client.push("admin/app", image, "v1")
    location = client.start_upload("admin/app")
    client.call("PATCH", location, TOO_MUCH[:MIB], STREAM).expect(202)
    started = client.start_upload("admin/app")
    workers = full_storage.worker_pids

    disk.fill()
    for size in (20_000, 65_537, MIB):
        data = TOO_MUCH[-size:]
        path = f"/v2/admin/app/blobs/uploads/?digest={quote(digest_of(data))}"
        assert_full(client.call("POST", path, data, STREAM), "storage")
        client.get_blob("admin/app", digest_of(data)).expect(404)
    assert Client(full_storage).push_blob("admin/app", b"small ones are rows of the database")
    assert_full(client.call("PATCH", location, TOO_MUCH[MIB : 2 * MIB], STREAM), "storage")
    assert_full(client.call("PATCH", started, TOO_MUCH[:20_000], STREAM), "storage")
    client.assert_whole("admin/app", image, "v1")
    Client(full_storage).assert_whole("admin/app", image)
    assert full_storage.worker_pids == workers

    disk.make_room()
    client.push("admin/app", next_image, "v2")
    client.assert_whole("admin/app", next_image, "v2")
    assert reported_offset(client.call("GET", location).expect(204)) == MIB
    client.call("PATCH", location, TOO_MUCH[MIB : 2 * MIB], STREAM).expect(202)
    client.call("PUT", f"{location}?digest={quote(digest_of(TOO_MUCH[: 2 * MIB]))}", b"").expect(201)
    assert client.get_blob("admin/app", digest_of(TOO_MUCH[: 2 * MIB])).expect(200).body == TOO_MUCH[: 2 * MIB]
    assert_undamaged(full_storage)


# --- the metadata ------------------------------------------------------------------------------------------------


@pytest.fixture
def full_database(make_server: Callable[..., Server], disk: SmallDisk) -> Server:
    """A server whose SQLite is on the small disk."""
    server = make_server({"database.url": f"sqlite:///{disk.path}/metadata.db"}, workers=2, start=False)
    server.directory.mkdir()
    server.cli("migrate")
    server.start().make_repository("admin/app")
    return server


def push_until_full(client: Client, repository: str) -> list[bytes]:
    """Push blobs until there is no room for their rows; those that were acknowledged."""
    pushed: list[bytes] = []
    while True:
        data = os.urandom(100)
        path = f"/v2/{repository}/blobs/uploads/?digest={quote(digest_of(data))}"
        answer = client.call("POST", path, data, STREAM)
        if answer.status == 507:
            client.get_blob(repository, digest_of(data)).expect(404)
            return pushed
        answer.expect(201)
        pushed.append(data)
        assert len(pushed) < 5000


def visit_every_route(client: Client) -> None:
    """What each route counts needs memory that is backed by files."""
    digest = digest_of(b"nothing")
    paths = (
        "/", "/_ping", "/health", "/metrics", "/ca", "/nothing", "/auth/token", "/auth/jwks.json", "/v2/",
        "/v2/_catalog", "/v2/admin/app/tags/list", f"/v2/admin/app/referrers/{digest}",
        f"/v2/admin/app/manifests/{digest}", f"/v2/admin/app/blobs/{digest}",
        f"/v2/admin/app/blobs/uploads/{digest}",
    )  # fmt: skip
    for path in paths:
        for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            for _ in range(4):  # several, so that each worker meets it
                client.close()
                assert client.send(method, path).status != 500, (method, path)


def assert_database_fills_and_goes_on(server: Server, disk: SmallDisk) -> None:
    client = Client(server)
    image = make_image(size=300_000)
    client.push("admin/app", image, "v1")
    server.make_user("ann")
    server.cli("repository", "update", "admin/app", "--visibility", "public")
    token = server.cli("account", "token", "ann").stdout.strip()
    workers = server.worker_pids

    disk.fill()
    pushed = push_until_full(client, "admin/app")
    # Asking for an upload writes nothing; its first bytes do.
    first = client.call("PATCH", client.start_upload("admin/app"), os.urandom(100), STREAM)
    assert first.status == 507
    assert first.json["errors"][0]["message"].endswith("is full")
    assert client.put_manifest("admin/app", image, "v2").status == 507
    assert client.call("DELETE", "/v2/admin/app/manifests/v1").status == 507
    client.assert_whole("admin/app", image, "v1")
    assert client.call("GET", "/v2/admin/app/tags/list").expect(200).json["tags"] == ["v1"]
    client.get_manifest("admin/app", "v2").expect(404)
    for user, secret in (("admin", PASSWORD), ("ann", PASSWORD), ("ann", token)):  # log-ins are possible, too
        fresh = Client(server, user, secret)
        fresh.assert_whole("admin/app", image, "v1")
    for data in pushed:
        assert fresh.get_blob("admin/app", digest_of(data)).expect(200).body == data
    visit_every_route(fresh)
    assert server.worker_pids == workers

    disk.make_room()
    next_image = make_image(layers=2, size=1000)
    client.push("admin/app", next_image, "v2")
    client.assert_whole("admin/app", next_image, "v2")
    for data in pushed:
        assert client.get_blob("admin/app", digest_of(data)).expect(200).body == data
    assert server.worker_pids == workers
    assert_undamaged(server)
    disk.fill()
    assert server.stop() == 0


def test_on_a_full_disk_of_the_database_reading_goes_on_and_writing_does_when_there_is_room(
    full_database: Server, disk: SmallDisk
) -> None:
    assert_database_fills_and_goes_on(full_database, disk)


def test_a_server_that_is_killed_on_a_full_disk_of_the_database_starts_when_there_is_room(
    full_database: Server, disk: SmallDisk
) -> None:
    client = Client(full_database)
    disk.fill()
    pushed = push_until_full(client, "admin/app")
    full_database.kill()
    disk.make_room()
    full_database.start()
    for data in pushed:
        assert client.get_blob("admin/app", digest_of(data)).expect(200).body == data
    client.push("admin/app", make_image(), "v1")
    assert_undamaged(full_database)


def test_with_everything_on_one_full_disk_no_worker_dies_and_it_goes_on_when_there_is_room(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """The embedded default: database, blobs and all else in the data directory."""
    with small_disk(tmp_path / "dtr0", mib=24) as disk:
        server = make_server(workers=2)
        server.make_repository("admin/app")
        assert_database_fills_and_goes_on(server, disk)
        server.close()
