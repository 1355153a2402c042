"""docker login and logout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.support.server import PASSWORD

if TYPE_CHECKING:
    from tests.support.engine import Docker
    from tests.support.server import Server


def test_the_right_password_logs_in(docker: Docker, server: Server) -> None:
    answer = docker("login", server.address, "--username", "admin", "--password-stdin", stdin=PASSWORD)
    assert "Login Succeeded" in answer.text


@pytest.mark.parametrize("user", ["admin", "nobody-of-this-name"])
def test_a_wrong_password_and_an_unknown_user_are_refused_alike(docker: Docker, server: Server, user: str) -> None:
    answer = docker("login", server.address, "--username", user, "--password-stdin", stdin="wrong", fails=True)
    assert "unauthorized" in answer.text.lower()
    assert "Login Succeeded" not in answer.text
    assert not (docker.directory / "config" / "config.json").exists()


def test_an_access_token_works_as_the_password(docker: Docker, server: Server, repository: str) -> None:
    token = server.cli("account", "token", "admin", "--label", "laptop").stdout.strip()
    docker.login(server.address, "admin", token)
    image = f"{server.address}/{repository}:v1"
    docker.build(image)
    docker.push(image)


def test_a_user_who_was_deactivated_no_longer_logs_in(docker: Docker, server: Server) -> None:
    server.make_user("leaver")
    docker.login(server.address, "leaver", PASSWORD)
    server.cli("account", "deactivate", "leaver")
    docker("login", server.address, "--username", "leaver", "--password-stdin", stdin=PASSWORD, fails=True)


def test_a_log_out_ends_what_the_log_in_allowed(docker: Docker, server: Server, repository: str) -> None:
    image = f"{server.address}/{repository}:v1"
    docker.build(image)
    docker.login(server.address, "admin", PASSWORD)
    docker.push(image)
    docker.forget(image)

    docker("logout", server.address)

    config = json.loads((docker.directory / "config" / "config.json").read_text())
    assert server.address not in config.get("auths", {})
    assert "denied" in docker("pull", image, fails=True).text
