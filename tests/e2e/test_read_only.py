"""docker and a registry that is read-only: it says so to whoever pushes, and gives what there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tests.support.server import PASSWORD
from tests.support.workers import wait_for_workers

if TYPE_CHECKING:
    from tests.support.engine import Docker
    from tests.support.server import Server


@pytest.fixture
def after(server: Server, repository: str) -> Iterator[None]:
    yield
    set_read_only(server, repository, on=False)


def set_read_only(server: Server, repository: str, *, on: bool) -> None:
    server.do(lambda application: application.live.change({"readOnlyRegistry": on}))
    begin = f"/v2/{repository}/blobs/uploads/"
    wait_for_workers(server, lambda client: (client.call("POST", begin).status == 202) is not on)


@pytest.mark.usefixtures("after")
def test_pushes_are_refused_in_words_and_pulls_go_on(docker: Docker, server: Server, repository: str) -> None:
    image, other = f"{server.address}/{repository}:v1", f"{server.address}/{repository}:v2"
    docker.login(server.address, "admin", PASSWORD)
    docker.build(image)
    docker.push(image)
    docker("tag", image, other)
    set_read_only(server, repository, on=True)
    assert "the registry is read-only" in docker("push", other, fails=True).text
    docker.forget(image)
    docker("pull", image)
    set_read_only(server, repository, on=False)
    docker.push(other)
