"""What the tests with real clients share, and a loud word when the conformance suite cannot run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.tools import find_go_program

if TYPE_CHECKING:
    from collections.abc import Callable

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
    left_out = [item for item in items if item.path == HERE / "test_conformance.py"]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        config.stash[CONFORMANCE].append("DID NOT RUN: with Go 1.24 or later, scripts/prepare-tests builds it")


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
