"""The official conformance suite of the OCI distribution specification, as a user with a password, over TLS."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.server import PASSWORD
from tests.support.tools import find_go_program

if TYPE_CHECKING:
    from tests.support.nginx import Nginx
    from tests.support.server import Server

RUNS = {"1.1": ("1.1", False, 690), "dev": ("dev", False, 790), "sparse": ("1.1", True, 725)}
"""The version of the specification, whether sparse manifests are pushed, and how many tests pass at least."""
NOT_ASKED = {"1.1": {"blob-post-cancel"}, "dev": set[str](), "sparse": {"blob-post-cancel"}}
"""Tests that the version leaves out."""
NO_RANGE = "range 500-0"
"""A range that ends before it begins: RFC 9110 wants it ignored, which the suite counts as skipped."""


def settings_for(run: str) -> dict[str, object]:
    """What a server has to be told to be ready for a run."""
    return {"registry.sparse_manifests": RUNS[run][1]}


def run_conformance(run: str, server: Server, directory: Path, front: Server | Nginx | None = None) -> str:
    """
    Run it against a server, or what is in front of that; how many tests there were.

    It has to find no failure, and to skip nothing but what the run leaves out.
    """
    program = find_go_program("conformance")
    assert program, "the conformance suite is missing: scripts/prepare-tests builds it with Go 1.24 or later"
    version, sparse, least = RUNS[run]
    front = front or server
    server.make_user("tester")
    for number in (1, 2):
        server.make_repository(f"tester/repo{number}")
    finished = subprocess.run(
        [program],
        env={
            "PATH": os.defpath,
            "HOME": str(directory),
            # It checks the certificate whatever OCI_TLS says.
            "SSL_CERT_FILE": str(front.ca),
            "OCI_REGISTRY": f"127.0.0.1:{front.port}",
            "OCI_TLS": "insecure",
            "OCI_VERSION": version,
            "OCI_DATA_SPARSE": str(sparse).lower(),
            "OCI_REPO1": "tester/repo1",
            "OCI_REPO2": "tester/repo2",
            "OCI_USERNAME": "tester",
            "OCI_PASSWORD": PASSWORD,
            "OCI_RESULTS_DIR": str(directory / "results"),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(finished.stdout, finished.stderr)
    cases = list(ET.parse(directory / "results" / "junit.xml").iter("testcase"))
    names = {
        status: [case.attrib["name"] for case in cases if case.attrib["status"] == status]
        for status in ("passed", "skipped", "failure", "error")
    }
    assert names["failure"] == []
    assert names["error"] == []
    assert finished.returncode == 0
    assert {name.rpartition("/")[2] for name in names["skipped"]} == {NO_RANGE} | NOT_ASKED[run]
    assert sum(map(len, names.values())) == len(cases)
    assert len(names["passed"]) >= least
    assert "Traceback" not in server.log
    return ", ".join(f"{len(found)} {status}" for status, found in names.items())
