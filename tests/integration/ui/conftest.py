"""For each module of tests a server whose pages are looked at, without a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.api import Api
from tests.support.backends import run_server
from tests.support.site import Site


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The pages of a server; a module says ``BACKEND`` and ``SETTINGS`` as those of the API's tests do."""
    kind = getattr(request.module, "BACKEND", "sqlite")
    settings = {"trusted_proxies": "127.0.0.1/32", **getattr(request.module, "SETTINGS", {})}
    with run_server(kind, request, tmp_path_factory, settings, workers=1) as server:
        yield Site(Api(server))
