"""Repositories that a push makes, where the operator allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.server import PASSWORD, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engine import Docker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose operator allows it."""
    shared = Server(
        tmp_path_factory.mktemp("shared") / "dtr", {"registry.create_on_push": True}, workers=2
    ).start()
    shared.make_user("maker")
    yield shared
    shared.close()


@pytest.fixture
def docker(docker: Docker, server: Server) -> Docker:
    """The docker command of a user."""
    docker.login(server.address, "maker", PASSWORD)
    return docker


def test_a_push_makes_a_private_repository_in_the_own_namespace(docker: Docker, server: Server) -> None:
    image = f"{server.address}/maker/fresh:v1"
    built = docker.build(image)
    docker.push(image)
    docker.forget(image)
    docker("pull", image)
    assert docker.id(image) == built
    assert "maker/fresh\tprivate" in server.cli("repository", "list").stdout


def test_a_push_makes_no_repository_for_somebody_else(docker: Docker, server: Server) -> None:
    image = f"{server.address}/admin/fresh:v1"
    docker.build(image)
    assert "denied" in docker("push", image, fails=True).text
    assert "admin/fresh" not in server.cli("repository", "list").stdout
