"""
One server for each module of tests of the API, on the embedded default.

A module that says ``BACKEND = "postgresql"`` runs on that; one that says ``SETTINGS = {…}`` has these.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator

import pytest
from tests.support.api import Api
from tests.support.backends import run_server


@pytest.fixture(scope="module")
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API of a server with two workers; it believes `X-Forwarded-For` (see `elsewhere`)."""
    kind = getattr(request.module, "BACKEND", "sqlite")
    settings = {"trusted_proxies": "127.0.0.1/32", **getattr(request.module, "SETTINGS", {})}
    with run_server(kind, request, tmp_path_factory, settings, workers=2) as server:
        yield Api(server)


@pytest.fixture
def elsewhere() -> dict[str, str]:
    """Headers of a request from an address of its own: wrong log-ins of one test slow down no other."""
    return {"X-Forwarded-For": str(ipaddress.IPv4Address(random.randrange(1 << 24, 1 << 31)))}
