"""
The official conformance suite of the OCI distribution specification, on the embedded default.

Behind nginx, and on every storage, it runs in `test_backends`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.conformance import RUNS, run_conformance, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.server import Server


@pytest.mark.parametrize("run", RUNS)
def test_the_conformance_suite_finds_no_failure(
    run: str, make_server: Callable[..., Server], tmp_path: Path, say: Callable[[str], None]
) -> None:
    server = make_server(settings_for(run), workers=2)
    say(f"{run}, embedded: {run_conformance(run, server, tmp_path)}")
