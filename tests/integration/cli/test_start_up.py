"""What a start costs: what is looked for, imported and made before anybody asked for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = """
import gc, json, sys
import dtr.cli
sys.argv = ["dtr", "--version"]
try:
    dtr.cli.main()
except SystemExit:
    pass
collected = []
gc.callbacks.append(lambda phase, facts: collected.append(facts["generation"]) if phase == "start" else None)
import dtr.serve, dtr.http.v2, dtr.http.token, dtr.http.trust
found = {"importing": len(collected)}
from dtr import cycles
cycles.settle()
found |= {"settled": len(collected), "stays": gc.get_freeze_count(), "at": gc.get_threshold()}
made = [[] for _ in range(5000)]
print(json.dumps(found | {"later": len(collected)}))
"""


def python(program: str) -> Any:
    """What a program in a Python of its own prints last, as JSON."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DTR_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        cwd=Path("/"),
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_nobody_looks_for_cycles_while_a_server_is_imported() -> None:
    found = python(COLLECTIONS)
    assert found["importing"] == 0
    assert found["settled"] == 0
    assert found["stays"] > 100_000


def test_a_server_that_has_settled_looks_for_cycles_as_python_does_by_default() -> None:
    found = python(COLLECTIONS)
    assert found["at"] == python("import gc, json; print(json.dumps(gc.get_threshold()))")
    assert found["later"] >= 5


END = """
import sys
import dtr.cli

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("found")

Cycle()
if sys.argv[1:]:
    dtr.cli.main()
"""


@pytest.mark.parametrize(("arguments", "found"), [((), True), (("--version",), False)])
def test_the_end_of_a_command_does_not_look_for_cycles(arguments: tuple[str, ...], found: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", END, *arguments], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert ("found" in done.stdout) is found


IMPORTED = """
import json, sys
import dtr.cli.commands
before = {name for name in sys.modules if name.startswith("dtr.cli.")}
command = dtr.cli.commands.cli.get_command(None, "serve")
import dtr.serve
dtr.serve.preload(("registry", "garant", "api", "jobrunner"))
print(json.dumps({"command": command.name, "before": sorted(before), "all": sorted(sys.modules)}))
"""


def test_a_command_imports_no_other() -> None:
    found = python(IMPORTED)
    assert found["command"] == "serve"
    assert found["before"] == ["dtr.cli.commands"]
    assert {one for one in found["all"] if one.startswith("dtr.cli.")} == {
        "dtr.cli._common",
        "dtr.cli.commands",
        "dtr.cli.server",
    }


LATER = "fastapi jinja2 alembic grpc httpx aiobotocore asyncpg yaml dtr.registry.fsck dtr.registry.importing"


@pytest.mark.parametrize("later", LATER.split())
def test_a_server_that_starts_does_not_import_what_it_needs_later_or_never(later: str, started: set[str]) -> None:
    assert later not in started


@pytest.fixture(scope="module")
def started() -> set[str]:
    """What is imported when the workers of a server are forked."""
    return set(python(IMPORTED)["all"])
