"""Programs that the tests need and that no Debian package has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def find_go_program(name: str) -> str | None:
    """A program that Go builds: from PATH, or from where `go install` puts it."""
    places = [os.environ.get("PATH", os.defpath), str(Path("~/go/bin").expanduser())]
    if shutil.which("go"):
        asked = subprocess.run(["go", "env", "GOBIN", "GOPATH"], capture_output=True, text=True, check=True)
        own, paths = asked.stdout.splitlines()
        places += [own, *(f"{path}/bin" for path in paths.split(os.pathsep))]
    return shutil.which(name, path=os.pathsep.join(place for place in places if place))
