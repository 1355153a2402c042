"""An upload that was cut goes on from the offset that its status reports, wherever the next request lands."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.client import Client
from tests.support.images import digest_of
from tests.support.pusher import end_leases, reported_offset
from tests.support.server import Server, wait_for_end
from tests.support.wire import wait_until

FIRST = 300_000
"""Acknowledged before anything breaks."""
SENT = 2_000_000
"""Sent by the request that is cut."""
CONTENT = random.Random(7).randbytes(3_500_000)


class CutPatch:
    """A PATCH whose body does not come to its end: `SENT` bytes of it were sent."""

    def __init__(self, client: Client, location: str, start: int, *, chunked: bool) -> None:
        path = client.server.directory / "blobs"
        before = {one: one.stat().st_size for one in path.rglob("*.part")} if path.exists() else {}
        self._connection = client.connect()
        self._connection.putrequest("PATCH", location)
        repository = location.removeprefix("/v2/").partition("/blobs/")[0]
        token = client.token(f"repository:{repository}:pull,push,delete")
        self._connection.putheader("Authorization", f"Bearer {token}")
        self._connection.putheader("Content-Type", "application/octet-stream")
        piece = CONTENT[start : start + SENT]
        if chunked:
            self._connection.putheader("Transfer-Encoding", "chunked")
            self._connection.endheaders()
            self._connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._connection.putheader("Content-Length", str(len(CONTENT) - start))
            self._connection.endheaders()
            self._connection.send(piece)
        self._arrived = lambda: any(
            one.stat().st_size > before.get(one, 0) for one in path.rglob("*.part") if one.exists()
        )

    @property
    def local_port(self) -> int:
        return int(self._connection.sock.getsockname()[1])

    def wait_until_it_arrives(self) -> None:
        """Until the server has written some of it to a file."""
        wait_until(self._arrived)

    def close(self) -> None:
        """As a client that ends; the server takes what is under way."""
        sock = self._connection.sock
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):  # with unread bytes, closing would be a reset
            pass
        self._connection.close()

    def reset(self) -> None:
        """As a client whose machine says that it knows nothing of the connection."""
        linger = struct.pack("ii", 1, 0)
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()


def start(client: Client, repository: str) -> str:
    """A new upload with `FIRST` bytes."""
    location = client.start_upload(repository)
    assert append(client, location, 0, FIRST) == FIRST
    return location


def append(client: Client, location: str, begin: int, end: int) -> int:
    headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{begin}-{end - 1}"}
    return reported_offset(client.call("PATCH", location, CONTENT[begin:end], headers).expect(202))


def offset_of(client: Client, location: str) -> int:
    return reported_offset(client.call("GET", location).expect(204))


def finish(client: Client, location: str, begin: int) -> None:
    """The rest, and the digest."""
    if begin < len(CONTENT):
        append(client, location, begin, len(CONTENT))
    client.call("PUT", f"{location}?digest={quote(digest_of(CONTENT))}", b"").expect(201)


def assert_whole(client: Client, repository: str) -> None:
    assert client.get_blob(repository, digest_of(CONTENT)).expect(200).body == CONTENT


def client_beside(server: Server, worker: int) -> Client:
    """A client whose connection goes to another worker than this one."""
    deadline = time.monotonic() + 60  # the other one may have to begin first
    while time.monotonic() < deadline:
        client = Client(server)
        client.send("GET", "/v2/").expect(401)
        if server.worker_of(client.local_port) != worker:
            return client
        client.close()
    raise AssertionError("all connections go to one worker")


@pytest.fixture
def repository(two_workers: Server) -> str:
    name = f"admin/r{os.urandom(8).hex()}"
    two_workers.make_repository(name)
    return name


@pytest.mark.parametrize("chunked", [True, False])
def test_after_the_client_went_away_another_worker_goes_on_with_all_that_came(
    two_workers: Server, repository: str, chunked: bool
) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    cut = CutPatch(client, location, FIRST, chunked=chunked)
    other = client_beside(two_workers, two_workers.worker_of(cut.local_port))
    cut.close()
    wait_until(lambda: offset_of(other, location) == FIRST + SENT)
    finish(other, location, FIRST + SENT)
    assert_whole(client, repository)


def test_after_a_reset_another_worker_goes_on_from_the_reported_offset(
    two_workers: Server, repository: str
) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    cut = CutPatch(client, location, FIRST, chunked=False)
    other = client_beside(two_workers, two_workers.worker_of(cut.local_port))
    cut.wait_until_it_arrives()
    cut.reset()
    wait_until(lambda: offset_of(other, location) > FIRST)
    offset = offset_of(other, location)
    assert offset <= FIRST + SENT
    wait_until(
        lambda: not is_occupied(other, location)
    )  # how far it came is known a moment before the file is free
    finish(other, location, offset)
    assert_whole(client, repository)


def test_after_its_worker_died_an_upload_goes_on_at_the_other(two_workers: Server, repository: str) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    cut = CutPatch(client, location, FIRST, chunked=True)
    victim = two_workers.worker_of(cut.local_port)
    other = client_beside(two_workers, victim)
    cut.wait_until_it_arrives()
    os.kill(victim, signal.SIGKILL)
    wait_for_end(victim)
    offset = offset_of(other, location)
    assert offset >= FIRST
    finish(other, location, offset)
    assert_whole(other, repository)
    cut.reset()


@pytest.mark.parametrize("last", [True, False])
def test_who_goes_on_before_the_cut_was_noticed_waits_for_it(
    two_workers: Server, repository: str, last: bool
) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    cut = CutPatch(client, location, FIRST, chunked=True)
    cut.wait_until_it_arrives()
    noticed = threading.Timer(0.2, cut.close)
    noticed.start()
    begin, end = FIRST + SENT, len(CONTENT)
    if last:
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{begin}-{end - 1}"}
        path = f"{location}?digest={quote(digest_of(CONTENT))}"
        client.call("PUT", path, CONTENT[begin:], headers).expect(201)
    else:
        append(client, location, begin, end)
        finish(client, location, end)
    noticed.join()
    assert_whole(client, repository)


def test_an_upload_that_another_request_has_for_long_is_refused(two_workers: Server, repository: str) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    cut = CutPatch(client, location, FIRST, chunked=True)
    cut.wait_until_it_arrives()
    assert is_occupied(client, location)
    cut.close()
    finish(client, location, FIRST + SENT)
    assert_whole(client, repository)


def test_after_the_whole_server_died_an_upload_goes_on(two_workers: Server, repository: str) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    cut = CutPatch(client, location, FIRST, chunked=True)
    cut.wait_until_it_arrives()
    two_workers.kill()
    cut.reset()
    two_workers.start()
    offset = offset_of(client, location)
    assert offset >= FIRST
    finish(client, location, offset)
    assert_whole(client, repository)


def test_an_upload_whose_last_request_was_not_answered_is_finished_by_asking_again(
    two_workers: Server, repository: str
) -> None:
    """The server died after the bytes got their name in the storage, and before the database knew the blob."""
    client = Client(two_workers)
    location = client.start_upload(repository)
    append(client, location, 0, len(CONTENT))
    part = next(
        path for path in (two_workers.directory / "blobs").rglob("*.part") if path.stat().st_size == len(CONTENT)
    )
    part.rename(part.with_suffix(""))
    assert offset_of(client, location) == len(CONTENT)
    finish(client, location, len(CONTENT))
    assert_whole(client, repository)


def test_a_gap_or_an_overlap_is_refused_with_the_right_offset(two_workers: Server, repository: str) -> None:
    client = Client(two_workers)
    location = start(client, repository)
    for begin in (FIRST - 1, FIRST + 1, 0):
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{begin}-{begin + 999}"}
        answer = client.call("PATCH", location, CONTENT[begin : begin + 1000], headers).expect(416)
        assert reported_offset(answer) == FIRST
    finish(client, location, FIRST)
    assert_whole(client, repository)


# --- other hosts -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["directory", "bucket"])
def hosts(request: pytest.FixtureRequest, make_server: Callable[..., Server], tmp_path: Path) -> list[Server]:
    """Two process trees that share a PostgreSQL and a storage, and nothing else."""
    if request.param != "directory":
        kind = "s3" if request.param == "bucket" else request.param
        store = request.getfixturevalue(f"{kind}_server")
        settings = {**store.settings, f"storage.{kind}.prefix": os.urandom(8).hex()}
    else:
        (tmp_path / "shared").mkdir()
        settings = {"storage.filesystem.root": str(tmp_path / "shared")}
    first = make_server(settings, database="postgresql")
    url = first.environment["DTR_DATABASE__URL"]
    second = make_server({**settings, "database.url": url})
    first.make_repository("admin/app")
    return [first, second]


@pytest.mark.parametrize("hosts", ["directory", "bucket", "azure", "gcs", "swift"], indirect=True)
def test_an_upload_goes_on_at_another_host(hosts: list[Server]) -> None:
    first, second = (Client(host) for host in hosts)
    location = first.start_upload("admin/app")
    append(first, location, 0, FIRST)
    assert offset_of(second, location) == FIRST
    append(second, location, FIRST, FIRST + SENT)
    assert offset_of(first, location) == FIRST + SENT
    append(first, location, FIRST + SENT, FIRST + SENT + 1000)
    finish(second, location, FIRST + SENT + 1000)
    assert_whole(first, "admin/app")
    assert_whole(second, "admin/app")


def test_after_the_client_went_away_another_host_goes_on_from_the_reported_offset(hosts: list[Server]) -> None:
    first, second = (Client(host) for host in hosts)
    location = start(first, "admin/app")
    CutPatch(first, location, FIRST, chunked=True).close()
    wait_until(lambda: offset_of(second, location) > FIRST)
    offset = offset_of(second, location)
    assert offset <= FIRST + SENT
    finish(second, location, offset)
    assert_whole(first, "admin/app")


def test_after_a_host_died_another_goes_on(hosts: list[Server]) -> None:
    first, second = (Client(host) for host in hosts)
    location = start(first, "admin/app")
    cut = CutPatch(first, location, FIRST, chunked=True)
    wait_until(lambda: is_occupied(second, location))
    hosts[0].kill()
    cut.reset()
    end_leases(hosts[1])
    offset = offset_of(second, location)
    assert offset >= FIRST
    finish(second, location, offset)
    assert_whole(second, "admin/app")
    hosts[0].start()
    assert_whole(first, "admin/app")


def is_occupied(client: Client, location: str) -> bool:
    """Whether another request writes to the upload; asked with one that is out of order, so it changes nothing."""
    headers = {"Content-Type": "application/octet-stream", "Content-Range": "1-1"}
    return client.call("PATCH", location, b"x", headers).expect(409, 416).status == 409
