"""What most rooms are tested with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.rooms import Rooms

from dtr.storage import Memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def rooms(database_url: str) -> AsyncIterator[Rooms]:
    """The rooms of a process over an empty database, and over a storage that others may share with it."""
    shared = Memory()
    made = Rooms(database_url, lambda: Memory(shared))
    yield made
    await made.close()
