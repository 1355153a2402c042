"""What the tests with real clients share, and a loud word when the conformance suite cannot run."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.containers import Containers
from tests.support.engine import Docker, Engine, run_engine
from tests.support.go_clients import GoClients
from tests.support.server import PASSWORD
from tests.support.tools import find_go_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.server import Server

HERE = Path(__file__).parent
CONFORMANCE = pytest.StashKey[list[str]]()
"""What is said about the conformance suite at the end of the run, one line each."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CONFORMANCE] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Mark these tests, and leave out the conformance suite where it cannot be built.

    Where the continuous integration runs nothing is left out: there the test fails.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("e2e")
    if os.environ.get("CI") == "true" or find_go_program("conformance"):
        return
    left_out = [item for item in items if item.name.startswith("test_the_conformance_suite")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[CONFORMANCE].append("DID NOT RUN: with Go 1.24 or later, scripts/prepare-tests builds it")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run beside others, tell the process that shows what was said."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["conformance"] = session.config.stash[CONFORMANCE]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    said = node.config.stash[CONFORMANCE]
    said += [line for line in getattr(node, "workeroutput", {}).get("conformance", ()) if line not in said]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[CONFORMANCE]
    if lines:
        bad = any("DID NOT RUN" in line for line in lines)
        terminalreporter.section("OCI conformance suite", red=bad, bold=True)
        for line in lines:
            terminalreporter.line(line, red=bad, bold=bad)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something about conformance at the end of the run."""
    return request.config.stash[CONFORMANCE].append


@pytest.fixture(autouse=True)
def _no_failure_inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a client did, the server that the tests share failed nowhere."""
    yield
    if "server" in request.fixturenames:
        log = request.getfixturevalue("server").log
        assert "Traceback" not in log, log


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running Docker engine."""
    with run_engine() as running:
        yield running


@pytest.fixture
def docker(engine: Engine, tmp_path: Path) -> Docker:
    """The docker command, not logged in anywhere."""
    return Docker(engine, tmp_path / "docker")


@pytest.fixture
def docker_of(engine: Engine, server: Server, tmp_path: Path) -> Callable[[str], Docker]:
    """A function that gives the docker command of a user who is logged in at the module's server."""

    def make(user: str, password: str = PASSWORD) -> Docker:
        command = Docker(engine, tmp_path / f"docker-{user}")
        command.login(server.address, user, password)
        return command

    return make


@pytest.fixture
def containers(server: Server, tmp_path: Path) -> Containers:
    """skopeo, podman and buildah of the administrator of the module's server."""
    return Containers(server, tmp_path / "containers")


@pytest.fixture
def containers_of(server: Server, tmp_path: Path) -> Callable[[str | None], Containers]:
    """A function that gives skopeo, podman and buildah of a user of the module's server; None: anonymous."""
    return lambda user: Containers(server, tmp_path / f"containers-{user}", user)


@pytest.fixture
def go_clients(server: Server, tmp_path: Path) -> GoClients:
    """crane, oras and regctl of the administrator of the module's server."""
    return GoClients(server, tmp_path / "go-clients").log_in()


@pytest.fixture
def repository(server: Server) -> str:
    """A new private repository of the administrator."""
    path = f"admin/r{uuid.uuid4().hex[:12]}"
    server.make_repository(path)
    return path
