"""Mirrors over both databases, and a registry that they mirror to and from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.mirrors import Mirrors
from tests.support.registry_double import RegistryDouble
from tests.support.rooms import Rooms


@pytest.fixture
def registry() -> RegistryDouble:
    return RegistryDouble()


@pytest.fixture
def mirrors(rooms: Rooms, registry: RegistryDouble, tmp_path: Path) -> Mirrors:
    return Mirrors(rooms, registry, tmp_path / "secret.key")
