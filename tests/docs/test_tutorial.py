"""The tutorial, command by command, with a real Docker."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import DOCS, ROOT, follow
from tests.support.engine import Engine
from tests.support.ports import free_port


def test_the_tutorial_works_as_it_is_printed(tmp_path: Path, engine: Engine) -> None:
    # As in a clone whose environment is made already.
    for name in ("Makefile", "requirements", "scripts", "pyproject.toml", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(ROOT / ".venv" / "bin")
    (tmp_path / ".venv" / "run.stamp").touch()

    def admin_password() -> str:
        found = re.search(r"password +(\S+)", (tmp_path / "server-a.log").read_text())
        assert found
        return found[1]

    port = free_port()
    follow(
        DOCS / "tutorial" / "first-push.md",
        tmp_path,
        environment={"ADDRESS": f"127.0.0.1:{port}", "DOCKER_HOST": engine.host, "DOCKER_BUILDKIT": "0"},
        replaced={"localhost:5443": f"localhost:{port}"},
        answers=[admin_password, "alice-password", "alice-password", "alice-password"],
    )
