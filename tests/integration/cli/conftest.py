"""The command over data of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.commands import Commands
from tests.support.server import Server


@pytest.fixture
def dtr(database_url: str, tmp_path: Path) -> Commands:
    """The command over empty tables, on both databases."""
    commands = Commands(Server(tmp_path / "dtr", {"database.url": database_url}))
    commands.server.directory.mkdir()
    return commands
