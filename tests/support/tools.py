"""Other programs: where they are, and how they are run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def find_go_program(name: str) -> str | None:
    """A program that Go builds: from PATH, or from where `go install` puts it."""
    places = [os.environ.get("PATH", os.defpath), str(Path("~/go/bin").expanduser())]
    if shutil.which("go"):
        asked = subprocess.run(["go", "env", "GOBIN", "GOPATH"], capture_output=True, text=True, check=True)
        own, paths = asked.stdout.splitlines()
        places += [own, *(f"{path}/bin" for path in paths.split(os.pathsep))]
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))


class Finished(subprocess.CompletedProcess[str]):
    """What a command has left behind."""

    @property
    def text(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr


def run(
    *command: str | Path,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    fails: bool = False,
    seconds: float = 180,
) -> Finished:
    """
    Run a command to its end; `environment` is put over the one of the tests.

    It has to succeed, or with `fails` to fail: everything else fails the test with what the command said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=stdin,
        env={**os.environ, **(environment or {})},
        cwd=directory,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    finished = Finished(words, done.returncode, done.stdout, done.stderr)
    assert bool(finished.returncode) is fails, (
        f"{' '.join(words)} ended with {finished.returncode}\n{finished.text}"
    )
    return finished
