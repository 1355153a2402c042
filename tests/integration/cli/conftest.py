"""The command over data of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.commands import Commands, RemoteCommands
from tests.support.server import Server


@pytest.fixture
def dtr(database_url: str, tmp_path: Path) -> Commands:
    """The command over empty tables, on both databases."""
    commands = Commands(Server(tmp_path / "dtr", {"database.url": database_url}))
    commands.server.directory.mkdir()
    return commands


@pytest.fixture(scope="package")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server that the tests of the remote commands share."""
    shared = Server(tmp_path_factory.mktemp("registry") / "dtr").start()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def admin(registry: Server, tmp_path_factory: pytest.TempPathFactory) -> RemoteCommands:
    """The command of somebody who is logged in as the administrator."""
    return RemoteCommands(registry, tmp_path_factory.mktemp("admin")).log_in()


@pytest.fixture
def logged_in(registry: Server, tmp_path: Path) -> Callable[[str], RemoteCommands]:
    """A function that gives the command of a user, who is made when missing."""

    def log_in(user: str) -> RemoteCommands:
        return RemoteCommands(registry, tmp_path / user).log_in(user)

    return log_in
