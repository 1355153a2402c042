"""Which storages have files that nginx can send: the one of the settings, and those in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.storage.definitions import DEFAULT

if TYPE_CHECKING:
    from pathlib import Path

    from dtr.config import Settings


class FileStorages:
    """Their roots by name, as `refresh` found them last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.roots: dict[str, Path] = _of_settings(settings)

    async def refresh(self) -> bool:
        """Look again; whether something is different. Raises DatabaseError."""
        return False

    async def close(self) -> None:
        """Let go of the database."""


def _of_settings(settings: Settings) -> dict[str, Path]:
    return {DEFAULT: settings.blob_directory} if settings.storage.driver == "filesystem" else {}
