"""Pulls of layers that are in S3 and go through dtr: whole, in parts, many at once, and when the store dies."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.client import Client
from tests.support.s3 import S3Server, run_s3_server
from tests.support.server import Server

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Server]:
    directory = tmp_path / "store"
    directory.mkdir()
    with run_s3_server(directory, "--keep-alive") as running:
        yield running


@pytest.fixture
def over_store(make_server: Callable[..., Server], store: S3Server) -> Server:
    server = make_server(store.settings)
    server.make_repository("admin/r")
    return server


@contextmanager
def begun(client: Client, digest: str) -> Iterator[http.client.HTTPResponse]:
    """The answer to a pull, of which nothing was read yet."""
    connection = client.connect()
    token = client.token("repository:admin/r:pull")
    connection.request("GET", f"/v2/admin/r/blobs/{digest}", headers={"Authorization": f"Bearer {token}"})
    with closing(connection), connection.getresponse() as answer:
        yield answer


def read_until_cut(answer: http.client.HTTPResponse) -> bytes:
    """What comes before the connection ends, however it does."""
    got = bytearray()
    with suppress(OSError, http.client.IncompleteRead):
        while piece := answer.read(MIB):
            got += piece
    return bytes(got)


def test_a_layer_comes_whole_and_in_parts_and_its_bytes_are_logged(over_store: Server) -> None:
    client, data = Client(over_store), os.urandom(12 * MIB)
    digest = client.push_blob("admin/r", data)
    path = f"/v2/admin/r/blobs/{digest}"

    def pull() -> None:
        for _ in range(2):
            assert client.get_blob("admin/r", digest).expect(200).body == data
        for part in ("1000-9000000", "5-", f"-{3 * MIB}"):
            first, _, last = part.partition("-")
            wanted = data[int(first) : int(last or len(data)) + 1] if first else data[-int(last) :]
            assert client.call("GET", path, headers={"Range": f"bytes={part}"}).expect(206).body == wanted
        assert client.call("GET", path, headers={"Range": f"bytes={len(data)}-"}).expect(416).body != data
        head = client.call("HEAD", path).expect(200)
        assert head.headers["content-length"] == str(len(data))

    lines = [line for line in over_store.requests_of(pull) if line["path"] == path]
    sizes = [line["bytes_out"] for line in lines if line["status"] in {200, 206}]
    assert sizes == [len(data), len(data), 8_999_001, len(data) - 5, 3 * MIB, 0]


def test_a_store_that_dies_is_never_taken_for_the_end(over_store: Server, store: S3Server) -> None:
    client, data = Client(over_store), os.urandom(64 * MIB)
    digest = client.push_blob("admin/r", data)

    def pull() -> None:
        with begun(client, digest) as answer:
            got = answer.read(MIB)
            store.kill()
            got += read_until_cut(answer)
        assert len(got) < len(data)
        assert data.startswith(got)
        client.get_blob("admin/r", digest).expect(503)
        store.start()
        assert client.get_blob("admin/r", digest).expect(200).body == data

    lines = [line for line in over_store.requests_of(pull) if digest in line["path"]]
    assert sorted(line["status"] for line in lines) == [200, 200, 503]
    cut, whole = sorted(line["bytes_out"] for line in lines if line["status"] == 200)
    assert 0 < cut < whole == len(data)


def test_many_pulls_at_once_go_on_beside_those_that_stand_still(over_store: Server) -> None:
    client, data, other = Client(over_store), os.urandom(24 * MIB), os.urandom(4 * MIB)
    digest, moving = (client.push_blob("admin/r", one) for one in (data, other))

    def pull(_: int) -> bool:
        with begun(client, moving) as answer:
            return answer.read() == other

    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        # More than there are threads.
        standing = [stack.enter_context(begun(client, digest)) for _ in range(24)]
        assert all(threads.map(pull, range(40)))
        for answer in standing:
            assert answer.read() == data
