"""docker search finds what its user may see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.server import PASSWORD

if TYPE_CHECKING:
    from tests.support.engine import Docker
    from tests.support.server import Server


@pytest.fixture(scope="module", autouse=True)
def world(server: Server) -> None:
    server.make_user("finder")
    server.make_repository("finder/paper1", visibility="private", short_description="Mine")
    server.make_repository("admin/paper2", visibility="public", short_description="For all")
    server.make_repository("admin/paper3", visibility="private")


def found(docker: Docker, server: Server, term: str) -> dict[str, str]:
    """Descriptions by name."""
    answer = docker("search", "--format", "{{.Name}}|{{.Description}}", f"{server.address}/{term}")
    rows = [line.partition("|") for line in answer.text.splitlines() if "|" in line]
    return {name: description for name, _, description in rows}


def test_without_a_log_in_public_repositories_are_found(docker: Docker, server: Server) -> None:
    assert found(docker, server, "paper") == {"admin/paper2": "For all"}


def test_after_a_log_in_also_those_that_its_user_may_see(docker: Docker, server: Server) -> None:
    docker.login(server.address, "finder", PASSWORD)
    assert found(docker, server, "paper") == {"admin/paper2": "For all", "finder/paper1": "Mine"}
    assert found(docker, server, "paper1") == {"finder/paper1": "Mine"}
    assert found(docker, server, "admin/paper") == {"admin/paper2": "For all"}


def test_an_access_token_finds_as_the_password_does(docker: Docker, server: Server) -> None:
    token = server.cli("account", "token", "finder", "--label", "search").stdout.strip()
    docker.login(server.address, "finder", token)
    assert found(docker, server, "paper") == {"admin/paper2": "For all", "finder/paper1": "Mine"}
