"""A Docker engine for the pages that use one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.engine import Engine, run_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running Docker engine."""
    with run_engine() as running:
        yield running
