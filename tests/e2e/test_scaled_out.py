"""Several servers over one PostgreSQL and one S3: docker does not notice which of them answers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.server import PASSWORD, Server
from tests.support.wire import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cluster
    from tests.support.engine import Docker
    from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, postgresql_cluster: Cluster, s3_server: S3Server
) -> Iterator[tuple[Server, Server]]:
    """Two hosts with two workers each."""
    settings = {**s3_server.settings, "database.url": postgresql_cluster.create(tables=True)}
    both = [Server(tmp_path_factory.mktemp("host") / "dtr", settings, workers=2) for _ in range(2)]
    for one in both:
        one.start()
    yield both[0], both[1]
    for one in both:
        one.close()


@pytest.fixture
def docker_at(docker: Docker, servers: tuple[Server, Server]) -> Docker:
    """The docker command of the administrator, logged in at both."""
    for one in servers:
        docker.login(one.address, "admin", PASSWORD)
    return docker


def test_an_image_that_was_pushed_to_one_host_is_pulled_from_the_other(
    docker_at: Docker, servers: tuple[Server, Server]
) -> None:
    first, second = servers
    first.make_repository("admin/shared")
    image, elsewhere = (f"{one.address}/admin/shared:v1" for one in servers)
    built = docker_at.build(image, files={"small": os.urandom(1000), "large": os.urandom(25_000_000)})
    digest = docker_at.push(image)
    docker_at.forget(image)

    docker_at("pull", elsewhere)

    assert docker_at.id(elsewhere) == built
    assert docker_at("pull", elsewhere).stdout.count(digest) == 1
    assert Client(second).get_manifest("admin/shared", "v1").headers["docker-content-digest"] == digest


def test_layers_are_stored_once_whichever_host_they_come_through(
    docker_at: Docker, servers: tuple[Server, Server], s3_server: S3Server
) -> None:
    first, _ = servers
    images = []
    for number, host in enumerate(servers):
        first.make_repository(f"admin/twin{number}")
        images.append(f"{host.address}/admin/twin{number}:v1")
    docker_at.build(*images, files={"content": os.urandom(3_000_000)})
    before = _size(s3_server)
    assert docker_at.push(images[0]) == docker_at.push(images[1])

    def grown() -> int:
        # What was sent a second time is only an object to delete; the hosts' own sweepers may have begun.
        first.do(lambda application: application.sweeper.sweep())
        return _size(s3_server) - before

    wait_until(lambda: grown() < 2 * 3_000_000)
    assert grown() > 3_000_000


def test_a_user_who_is_made_at_one_host_logs_in_at_the_other(
    docker: Docker, servers: tuple[Server, Server]
) -> None:
    first, second = servers
    first.make_user("everywhere")
    docker.login(second.address, "everywhere", PASSWORD)
    second.cli("account", "deactivate", "everywhere")
    docker("login", first.address, "--username", "everywhere", "--password-stdin", stdin=PASSWORD, fails=True)


def _size(s3: S3Server) -> int:
    """Bytes of all objects."""
    total = 0
    for one in s3.directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it was just deleted
            total += one.stat().st_size if one.is_file() else 0
    return total
