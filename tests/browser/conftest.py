"""A real Chromium, and for each module of tests a server to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.support.api import Api
from tests.support.backends import run_server
from tests.support.site import Site

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chromium: Browser
) -> Iterator[Site]:
    """The pages of a server; a module says ``BACKEND`` and ``SETTINGS`` as those of the API's tests do."""
    kind = getattr(request.module, "BACKEND", "sqlite")
    settings = getattr(request.module, "SETTINGS", {})
    with run_server(kind, request, tmp_path_factory, settings, workers=1) as server:
        yield Site(Api(server), chromium)
