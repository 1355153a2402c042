"""Takes the package's dependencies from `requirements/core.in`, where they are written down once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Dependencies(MetadataHookInterface):
    """Fills the dynamic field `dependencies`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Read the unpinned requirements; the lock file beside them is for deployments and tests."""
        lines = (Path(self.root) / "requirements" / "core.in").read_text(encoding="utf-8").splitlines()
        metadata["dependencies"] = [line for line in lines if line and not line.startswith("#")]
