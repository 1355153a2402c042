"""A registry on each backend, and for each test a repository of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.support.backends import BACKENDS, new_repository, run_server
from tests.support.client import Client
from tests.support.server import Server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module that says ``NEEDS_NO_BLOBS`` runs on both databases, but not on each storage."""
    if "registry" in metafunc.fixturenames:
        backends = BACKENDS[:2] if getattr(metafunc.module, "NEEDS_NO_BLOBS", False) else BACKENDS
        metafunc.parametrize("registry", backends, indirect=True, scope="session")


@pytest.fixture(scope="session")
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers, on each backend in turn."""
    with run_server(request.param, request, tmp_path_factory, workers=2) as running:
        yield running


@pytest.fixture(scope="session")
def standard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the embedded default, for what does not depend on the backend."""
    with run_server("sqlite", request, tmp_path_factory, workers=2) as running:
        yield running


@pytest.fixture(scope="session")
def client(registry: Server) -> Iterator[Client]:
    """The administrator, at the registry of each backend."""
    made = Client(registry)
    yield made
    made.close()


@pytest.fixture
def repository(registry: Server) -> str:
    """The path of a new private repository of the administrator."""
    return new_repository(registry)


@pytest.fixture(scope="session")
def admin(standard: Server) -> Iterator[Client]:
    """The administrator, at the server of the embedded default."""
    made = Client(standard)
    yield made
    made.close()


@pytest.fixture
def home(standard: Server) -> str:
    """The path of a new private repository of the administrator on the server of the embedded default."""
    return new_repository(standard)


@pytest.fixture
def as_user() -> Iterator[Callable[..., Client]]:
    """A function that makes a client for a user: ``as_user(server, name)``, None: anonymous."""
    made: list[Client] = []

    def make(server: Server, name: str | None, **how: str) -> Client:
        made.append(Client(server, name, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()
