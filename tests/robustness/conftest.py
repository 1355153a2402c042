"""Servers that several tests of a file share: starting one takes longer than most of what they try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.server import Server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def two_workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers, on both databases."""
    settings = {}
    if request.param == "postgresql":
        settings["database.url"] = request.getfixturevalue("postgresql_cluster").create(tables=True)
    server = Server(tmp_path_factory.mktemp("two_workers") / "dtr", settings, workers=2)
    yield server.start()
    server.close()
