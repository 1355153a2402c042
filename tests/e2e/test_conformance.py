"""The official conformance suite of the OCI distribution specification, as a user with a password, over TLS."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.server import PASSWORD
from tests.support.tools import find_go_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.server import Server

RUNS = {"1.1": ("1.1", False, 690), "dev": ("dev", False, 790), "sparse": ("1.1", True, 725)}
"""The version of the specification, whether sparse manifests are pushed, and how many tests pass at least."""
NOT_ASKED = {"1.1": {"blob-post-cancel"}, "dev": set[str](), "sparse": {"blob-post-cancel"}}
"""Tests that the version leaves out."""
NO_RANGE = "range 500-0"
"""A range that ends before it begins: RFC 9110 wants it ignored, which the suite counts as skipped."""


@pytest.mark.parametrize("deployment", ["embedded", "postgresql and s3"])
@pytest.mark.parametrize("run", RUNS)
def test_the_conformance_suite_finds_no_failure(
    run: str,
    deployment: str,
    make_server: Callable[..., Server],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    say: Callable[[str], None],
) -> None:
    program = find_go_program("conformance")
    assert program, "the conformance suite is missing: scripts/prepare-tests builds it with Go 1.24 or later"
    version, sparse, least = RUNS[run]
    settings: dict[str, object] = {"registry.sparse_manifests": sparse}
    if deployment == "embedded":
        server = make_server(settings, workers=2)
    else:
        s3 = request.getfixturevalue("s3_server")
        server = make_server(settings | s3.settings, workers=2, database="postgresql")
    server.make_user("tester")
    for number in (1, 2):
        server.make_repository(f"tester/repo{number}")

    finished = subprocess.run(
        [program],
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            # It checks the certificate whatever OCI_TLS says.
            "SSL_CERT_FILE": str(server.ca),
            "OCI_REGISTRY": f"127.0.0.1:{server.port}",
            "OCI_TLS": "insecure",
            "OCI_VERSION": version,
            "OCI_DATA_SPARSE": str(sparse).lower(),
            "OCI_REPO1": "tester/repo1",
            "OCI_REPO2": "tester/repo2",
            "OCI_USERNAME": "tester",
            "OCI_PASSWORD": PASSWORD,
            "OCI_RESULTS_DIR": str(tmp_path / "results"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(finished.stdout, finished.stderr)
    cases = list(ET.parse(tmp_path / "results" / "junit.xml").iter("testcase"))
    names = {
        status: [case.attrib["name"] for case in cases if case.attrib["status"] == status]
        for status in ("passed", "skipped", "failure", "error")
    }
    counts = ", ".join(f"{len(found)} {status}" for status, found in names.items())
    say(f"{run}, {deployment}: {counts}")
    assert names["failure"] == []
    assert names["error"] == []
    assert finished.returncode == 0
    assert {name.rpartition("/")[2] for name in names["skipped"]} == {NO_RANGE} | NOT_ASKED[run]
    assert sum(map(len, names.values())) == len(cases)
    assert len(names["passed"]) >= least
    assert "Traceback" not in server.log
