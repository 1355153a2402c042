"""Several clients push the same blob at once: all succeed, and it is stored once."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text
from tests.support.client import Client
from tests.support.images import digest_of
from tests.support.invariants import find_violations
from tests.support.s3 import S3Server
from tests.support.server import Server

from dtr.app import Application
from dtr.db import Statement

CLIENTS = 8
PIECE = 100_000
INLINE = 16 * 1024
"""Blobs up to this size that come in one piece are kept in the database."""


def post(client: Client, repository: str, data: bytes) -> None:
    """One request for all."""
    path = f"/v2/{repository}/blobs/uploads/?digest={quote(digest_of(data))}"
    client.call("POST", path, data, {"Content-Type": "application/octet-stream"}).expect(201)


def put(client: Client, repository: str, data: bytes) -> None:
    client.push_blob(repository, data)


def patch(client: Client, repository: str, data: bytes) -> None:
    """A stream of unknown length, as docker sends it."""
    location = client.start_upload(repository)
    pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
    client.call("PATCH", location, pieces, {"Content-Type": "application/octet-stream"}).expect(202)
    client.call("PUT", f"{location}?digest={quote(digest_of(data))}", b"").expect(201)


def push_at_once(
    server: Server, way: Callable[[Client, str, bytes], None], repositories: list[str], data: bytes
) -> None:
    """`CLIENTS` push it to the repositories in turn; their last step before the first byte is common."""
    clients = [Client(server) for _ in range(CLIENTS)]
    together = threading.Barrier(CLIENTS)
    errors: list[BaseException] = []

    def push(client: Client, repository: str) -> None:
        try:
            client.token(f"repository:{repository}:pull,push,delete")
            together.wait(60)
            way(client, repository, data)
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=push, args=(client, repositories[number % len(repositories)]))
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []


_HELD = Statement(text("SELECT location FROM blobs WHERE location IS NOT NULL UNION SELECT location FROM uploads"))


def stored(server: Server) -> list[int]:
    """Sizes of the objects after everything that is due was deleted."""

    async def sweep(application: Application) -> list[int]:
        patience = time.monotonic() + 60
        while True:
            await application.sweeper.sweep()
            assert await find_violations(application.database, application.storage) == []
            held = {row[0] for row in await application.database.fetch_all(_HELD)}
            objects = [one async for one in application.storage.list()]
            if all(one.location in held for one in objects) or time.monotonic() > patience:
                return [one.size for one in objects]
            await asyncio.sleep(0.05)  # the server's own sweeper is about to delete it

    return server.do(sweep)


def rows(server: Server, data: bytes) -> int:
    """How many blobs the database knows with these bytes."""

    async def count(application: Application) -> int:
        statement = Statement(text("SELECT count(*) FROM blobs WHERE digest = :digest"))
        row = await application.database.fetch_one(statement, digest=digest_of(data))
        assert row is not None
        return int(row[0])

    return server.do(count)


@pytest.mark.parametrize("way", [post, put, patch])
@pytest.mark.parametrize("size", [1000, 50_000, 3_000_000])
def test_one_blob_pushed_by_many_at_once_is_stored_once(
    two_workers: Server, way: Callable[[Client, str, bytes], None], size: int
) -> None:
    objects = len(stored(two_workers))
    data = os.urandom(size)
    name = f"{way.__name__}-{size}"
    repositories = [f"admin/{name}-{number}" for number in range(CLIENTS)]
    for repository in repositories:
        two_workers.make_repository(repository)
    push_at_once(two_workers, way, repositories, data)
    client = Client(two_workers)
    for repository in repositories:
        assert client.get_blob(repository, digest_of(data)).expect(200).body == data
    in_one_piece = way is not patch
    is_row = in_one_piece and size <= INLINE
    assert len(stored(two_workers)) == objects + (0 if is_row else 1)
    assert rows(two_workers, data) == 1
    for repository in repositories:
        assert client.get_blob(repository, digest_of(data)).expect(200).body == data


def test_one_blob_pushed_by_many_at_once_to_one_repository_is_stored_once(two_workers: Server) -> None:
    before = len(stored(two_workers))
    data = os.urandom(2_000_000)
    two_workers.make_repository("admin/one")
    push_at_once(two_workers, patch, ["admin/one"], data)
    assert Client(two_workers).get_blob("admin/one", digest_of(data)).expect(200).body == data
    assert len(stored(two_workers)) == before + 1


def test_one_blob_pushed_by_many_at_once_is_one_object_of_a_bucket(
    make_server: Callable[..., Server], s3_server: S3Server
) -> None:
    server = make_server({**s3_server.settings, "storage.s3.prefix": "two-pushers"}, workers=2)
    data = os.urandom(6_000_000)
    repositories = ["admin/a", "admin/b"]
    for repository in repositories:
        server.make_repository(repository)
    push_at_once(server, patch, repositories, data)
    assert stored(server) == [len(data)]
    for repository in repositories:
        assert Client(server).get_blob(repository, digest_of(data)).expect(200).body == data


def test_one_image_pushed_by_many_at_once_is_whole(two_workers: Server) -> None:
    from tests.support.images import make_image

    image = make_image(layers=3, size=200_000)
    two_workers.make_repository("admin/image")
    clients = [Client(two_workers) for _ in range(CLIENTS)]
    errors: list[BaseException] = []

    def push(client: Client) -> None:
        try:
            client.push("admin/image", image, "latest")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    clients[0].assert_whole("admin/image", image, "latest")
    stored(two_workers)


def test_the_same_tag_pushed_by_many_at_once_names_one_of_the_images(two_workers: Server) -> None:
    from tests.support.images import Image, make_image

    two_workers.make_repository("admin/tag")
    images = [make_image() for _ in range(CLIENTS)]
    clients = [Client(two_workers) for _ in range(CLIENTS)]
    for client, image in zip(clients, images, strict=True):
        for blob in image.blobs:
            client.push_blob("admin/tag", blob)
    statuses: list[Any] = []

    def push(client: Client, image: Image) -> None:
        statuses.extend(client.put_manifest("admin/tag", image, "latest").status for _ in range(5))

    threads = [threading.Thread(target=push, args=pair) for pair in zip(clients, images, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert statuses == [201] * 5 * CLIENTS
    named = clients[0].get_manifest("admin/tag", "latest").expect(200)
    assert named.headers["docker-content-digest"] in {image.digest for image in images}
    for image in images:
        clients[0].assert_whole("admin/tag", image)
    stored(two_workers)
