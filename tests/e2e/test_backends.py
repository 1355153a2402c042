"""Every kind of storage behind nginx: what comes in goes out as it was, and leaves the store when it is over."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from tests.support.client import Client, local
from tests.support.conformance import run_conformance, settings_for
from tests.support.images import digest_of, make_image
from tests.support.nginx import BEHIND, Nginx, run_nginx
from tests.support.server import PASSWORD, Server

from dtr.db import Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.engine import Docker

    from dtr.app import Application

STORES = {
    "filesystem": "dev",
    "s3": "1.1",
    "azure": "dev",
    "swift": "sparse",
    "gcs": "dev",
}
"""The kinds of storage, and the run of the conformance suite on each."""
ON_POSTGRESQL = {"s3", "swift"}


@dataclass
class Deployment:
    """A server on a kind of storage, and nginx in front of it."""

    kind: str
    server: Server
    nginx: Nginx

    def objects(self) -> dict[str, int]:
        """What is in the store: sizes by location."""

        async def work(application: Application) -> dict[str, int]:
            return {one.location: one.size async for one in application.storage.list()}

        return self.server.do(work)

    def left_of(self, before: dict[str, int], count: int) -> list[int]:
        """
        Sizes of the objects beside those of `before`, after everything that is due went.

        So many are to be left: of others the server's own sweeper may have taken some, which then go at once.
        """
        deadline = time.monotonic() + 60
        while True:
            self.server.do(collect)
            left = [size for location, size in self.objects().items() if location not in before]
            if len(left) <= count or time.monotonic() > deadline:
                return sorted(left)
            time.sleep(0.05)


@pytest.fixture(scope="module", params=STORES)
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    kind: str = request.param
    settings: dict[str, Any] = BEHIND | settings_for(STORES[kind])
    if kind != "filesystem":
        settings |= request.getfixturevalue(f"{kind}_server").settings
        settings[f"storage.{kind}.prefix"] = f"{uuid.uuid4().hex}/"
    if kind in ON_POSTGRESQL:
        settings["database.url"] = request.getfixturevalue("postgresql_cluster").create(tables=True)
    server = Server(tmp_path_factory.mktemp(kind) / "dtr", settings, workers=2)
    if kind in ON_POSTGRESQL:
        server.directory.mkdir()
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        yield Deployment(kind, server, stack.enter_context(run_nginx(server)))


def test_what_is_pushed_is_pulled_mounted_and_goes_at_the_end(deployment: Deployment) -> None:
    server, client = deployment.server, Client(deployment.nginx)
    for name in ("admin/one", "admin/two"):
        server.make_repository(name)
    before = deployment.objects()
    image = make_image(layers=2, size=5_500_000)
    client.push("admin/one", image, "v1")
    # A layer whose length nobody knows, in two parts.
    chunked = os.urandom(7_000_000)
    upload = client.start_upload("admin/one")
    half = len(chunked) // 2
    for part in (chunked[:half], chunked[half:]):
        pieces = (part[start : start + 32_768] for start in range(0, len(part), 32_768))
        upload = local(client.call("PATCH", upload, pieces).expect(202).headers["location"])
    client.call("PUT", f"{upload}?digest={digest_of(chunked)}").expect(201)
    client.assert_whole("admin/one", image, "v1")
    for data in (*image.blobs, chunked):
        path = f"/v2/admin/one/blobs/{digest_of(data)}"
        assert client.call("GET", path).expect(200).body == data
        answer = client.call("GET", path, headers={"Range": f"bytes=10-{len(data) - 50}"}).expect(206)
        assert answer.body == data[10:-49]
        assert client.call("HEAD", path).expect(200).headers["content-length"] == str(len(data))

    for blob in image.blobs:
        client.call("POST", f"/v2/admin/two/blobs/uploads/?mount={digest_of(blob)}&from=admin/one").expect(201)
    client.put_manifest("admin/two", image, "v1").expect(201)
    stored = [size for location, size in deployment.objects().items() if location not in before]
    large = sorted(len(one) for one in image.blobs if len(one) > 16 * 1024)
    assert sorted(stored) == sorted([*large, len(chunked)])  # nothing is stored twice, and small ones are rows

    # An upload that is given up leaves nothing, nor does what is deleted. What was mounted elsewhere stays.
    given_up = client.start_upload("admin/one")
    client.call("PATCH", given_up, os.urandom(6_000_000)).expect(202)
    client.call("DELETE", given_up).expect(204)
    client.call("DELETE", f"/v2/admin/one/manifests/{image.digest}").expect(202)
    assert deployment.left_of(before, len(large)) == large
    client.call("HEAD", f"/v2/admin/one/blobs/{digest_of(chunked)}").expect(404)
    client.assert_whole("admin/two", image, "v1")
    client.call("DELETE", f"/v2/admin/two/manifests/{image.digest}").expect(202)
    assert deployment.left_of(before, 0) == []
    client.close()


async def collect(application: Application) -> None:
    """Let the time of everything come, and collect it: rows, then objects."""
    await application.backends.refresh()
    busy = True
    while busy:
        for column in ("repository_blobs.review_at", "gc_objects.delete_after", "gc_objects.repeat_after"):
            table, _, name = column.partition(".")
            statement = Statement(text(f"UPDATE {table} SET {name} = 0 WHERE {name} > 0"))
            await application.database.unit(lambda tx, statement=statement: tx.execute(statement))
        collected = await application.collector.collect()
        swept = await application.sweeper.sweep()
        busy = bool(collected.went_on or swept.objects or swept.uploads)


def test_docker_pushes_and_pulls(deployment: Deployment, docker: Docker) -> None:
    deployment.server.make_repository("admin/docker")
    docker.login(deployment.nginx.address, "admin", PASSWORD)
    image = f"{deployment.nginx.address}/admin/docker:v1"
    built = docker.build(image, files={"small": os.urandom(1000), "large": os.urandom(8_000_000)})
    docker.push(image)
    docker.forget(image)
    docker("pull", image)
    assert docker.id(image) == built


def test_the_conformance_suite_finds_no_failure(
    deployment: Deployment, tmp_path: Path, say: Callable[[str], None]
) -> None:
    run = STORES[deployment.kind]
    counts = run_conformance(run, deployment.server, tmp_path, deployment.nginx)
    say(f"{run}, {deployment.kind} behind nginx: {counts}")
