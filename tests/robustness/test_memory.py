"""Memory stays flat: transfers cost their buffers, whatever their size."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.support.client import Client
from tests.support.s3 import S3Server
from tests.support.server import Server

pytestmark = pytest.mark.alone

MIB = 1024 * 1024
LAYER = int(os.environ.get("DTR_TEST_LAYER_MIB", "512")) * MIB
"""Bytes of the one large layer: many times what it may cost."""
TRANSFER = 32 * MIB
"""Bytes of each of many transfers."""
PUSHES, PULLS, SLOW_PULLS = 32, 24, 8
BUFFERS = 2 * MIB
"""What one transfer may cost."""
FIXED = 24 * MIB
"""What the program may take besides: threads, caches, fragments."""
PART = 5 * MIB
"""What a bucket is sent at once: S3 takes no smaller parts. It is not held in memory."""
BLOCK = random.Random(17).randbytes(MIB)
PATIENCE = 180
"""Seconds for all transfers together, on a busy machine."""


class Memory:
    """The anonymous memory of a server's processes, looked at all the time."""

    def __init__(self, server: Server) -> None:
        self._pids = [server.pid, *server.worker_pids]
        self._end = threading.Event()
        self._before = self._now()
        self._most = self._before

    @property
    def growth(self) -> int:
        """Most bytes above what it was at the beginning."""
        return max(self._most, self._now()) - self._before

    def watch(self) -> None:
        while not self._end.wait(0.02):
            self._most = max(self._most, self._now())

    def stop(self) -> None:
        self._end.set()

    def _now(self) -> int:
        total = 0
        for pid in self._pids:
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.partition("RssAnon:")[2].split()[0]) * 1024
        return total


@contextmanager
def watched(server: Server) -> Iterator[Memory]:
    memory = Memory(server)
    watcher = threading.Thread(target=memory.watch)
    watcher.start()
    try:
        yield memory
    finally:
        memory.stop()
        watcher.join()


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has done everything once, so that what is imported late is there."""
    server = Server(tmp_path_factory.mktemp("memory") / "dtr", workers=2, is_forked=False).start()
    server.make_repository("admin/app")
    seen = set()
    while len(seen) < 2:
        client = Client(server)
        digest = client.push_blob("admin/app", os.urandom(2 * MIB))
        client.get_blob("admin/app", digest).expect(200)
        client.send("GET", "/api/v0/meta/features").expect(401)
        seen.add(server.worker_of(client.local_port))
        client.close()
    yield server
    server.close()
    shutil.rmtree(server.directory)  # pytest would keep these gigabytes


def blocks(size: int) -> Iterator[bytes]:
    """Bytes that are never in memory all at once; no two blocks are the same."""
    for number in range(size // MIB):
        yield number.to_bytes(8, "big") + BLOCK[8:]


@cache
def _hash_of_blocks(size: int) -> hashlib._Hash:
    hasher = hashlib.sha256()
    for block in blocks(size):
        hasher.update(block)
    return hasher


def digest_of_blocks(size: int, ending: bytes) -> str:
    whole = _hash_of_blocks(size).copy()
    whole.update(ending)
    return f"sha256:{whole.hexdigest()}"


def push(client: Client, size: int, ending: bytes, pause: Callable[[], object], *, chunked: bool) -> str:
    """Send blocks and an ending in one request, with a pause in the middle; the digest."""
    digest = digest_of_blocks(size, ending)
    connection = client.connect()
    connection.timeout = PATIENCE
    location = client.start_upload("admin/app")
    if chunked:
        connection.putrequest("PATCH", location)
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putrequest("PUT", f"{location}?digest={quote(digest)}")
        connection.putheader("Content-Length", str(size + len(ending)))
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Authorization", f"Bearer {client.token('repository:admin/app:pull,push,delete')}")
    connection.endheaders()
    for number, block in enumerate(chain(blocks(size), (ending,))):
        if number == size // MIB // 2:
            pause()
        connection.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
    if chunked:
        connection.send(b"0\r\n\r\n")
    expect(connection, 202 if chunked else 201)
    if chunked:
        client.call("PUT", f"{location}?digest={quote(digest)}", b"").expect(201)
    connection.close()
    return digest


def pull(client: Client, digest: str, pause_at: int, pause: Callable[[], object]) -> None:
    """Read a blob, with a pause after some bytes, and compare its digest."""
    connection = client.connect()
    connection.timeout = PATIENCE
    token = client.token("repository:admin/app:pull,push,delete")
    connection.request("GET", f"/v2/admin/app/blobs/{digest}", headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    assert response.status == 200
    hasher = hashlib.sha256()
    received = 0
    while piece := response.read(256 * 1024):
        hasher.update(piece)
        if received <= pause_at < received + len(piece):
            pause()
        received += len(piece)
    assert f"sha256:{hasher.hexdigest()}" == digest
    connection.close()


def expect(connection: http.client.HTTPSConnection, status: int) -> None:
    response = connection.getresponse()
    content = response.read()
    assert response.status == status, content[:500]


def test_one_large_layer_costs_no_more_than_its_buffers(warm: Server) -> None:
    with watched(warm) as memory:
        digest = push(Client(warm), LAYER, b"large", lambda: None, chunked=True)
        pushed = memory.growth
        pull(Client(warm), digest, -1, lambda: None)
        print(
            f"growth with one layer: {pushed / MIB:.1f} MiB pushed, {memory.growth / MIB:.1f} MiB pulled as well"
        )
        assert memory.growth <= 2 * BUFFERS + FIXED


def test_many_transfers_at_once_cost_no_more_than_their_buffers(warm: Server) -> None:
    stored = push(Client(warm), TRANSFER, b"stored", lambda: None, chunked=False)
    count = PUSHES + PULLS + SLOW_PULLS
    all_under_way, go_on = threading.Barrier(count + 1), threading.Event()
    errors: list[BaseException] = []

    def pause() -> None:
        all_under_way.wait(PATIENCE)
        assert go_on.wait(PATIENCE)

    def run(transfer: Callable[[], object]) -> None:
        try:
            transfer()
        except BaseException as error:
            errors.append(error)
            all_under_way.abort()

    transfers: list[Callable[[], object]] = []
    for number in range(PUSHES):
        ending, chunked = b"push %d" % number, number % 2 == 0
        transfers.append(lambda e=ending, c=chunked: push(Client(warm), TRANSFER, e, pause, chunked=c))
    transfers += [lambda: pull(Client(warm), stored, TRANSFER // 2, pause)] * PULLS
    transfers += [lambda: pull(Client(warm), stored, 0, pause)] * SLOW_PULLS
    with watched(warm) as memory:
        threads = [threading.Thread(target=run, args=(transfer,)) for transfer in transfers]
        for thread in threads:
            thread.start()
        try:
            all_under_way.wait(PATIENCE)  # each of them has moved some bytes and waits
        except threading.BrokenBarrierError:
            errors.append(AssertionError("they were not all under way at once"))
        go_on.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert errors == []
        print(f"growth with {count} transfers: {memory.growth / MIB:.1f} MiB")
        assert memory.growth <= count * BUFFERS + FIXED


def test_many_layers_for_a_bucket_cost_no_more_than_their_buffers(
    make_server: Callable[..., Server], s3_server: S3Server
) -> None:
    server = make_server({**s3_server.settings, "storage.s3.prefix": "memory"}, workers=1)
    server.make_repository("admin/app")
    Client(server).push_blob("admin/app", os.urandom(PART + MIB))
    count = 24
    with watched(server) as memory, ThreadPoolExecutor(count) as threads:
        pushes = [
            threads.submit(push, Client(server), 6 * PART, b"%d" % number, lambda: None, chunked=number % 2 == 0)
            for number in range(count)
        ]
        assert len({pushed.result() for pushed in pushes}) == count
        print(f"growth with {count} layers for a bucket: {memory.growth / MIB:.1f} MiB")
        assert memory.growth <= count * BUFFERS + FIXED
