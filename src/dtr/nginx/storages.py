"""Which storages have files that nginx can send: the database says it, or, until it does, the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sqlalchemy import select

from dtr.db import Statement, open_database
from dtr.db.schema import storages
from dtr.storage.definitions import DEFAULT

if TYPE_CHECKING:
    from dtr.config import Settings
    from dtr.db import Database

_SQLITE = "sqlite:///"
_LIST = Statement(
    lambda: select(storages.c.name, storages.c.driver, storages.c.place, storages.c.parameters.is_(None)).order_by(
        storages.c.name
    )
)


class FileStorages:
    """Their roots by name, as `refresh` found them last."""

    def __init__(self, settings: Settings) -> None:
        """Begin with what the settings say."""
        self._database: Database | None = None
        self.roots = _own(settings)

    async def refresh(self, settings: Settings) -> bool:
        """Look again; whether something is different. Raises DatabaseError."""
        before = self.roots
        rows = await self._rows(settings)
        if rows:
            found = {
                name: Path(unquote(urlsplit(place).path))
                for name, driver, place, _ in rows
                if driver == "filesystem"
            }
            is_own = any(name == DEFAULT and is_of_settings for name, _, _, is_of_settings in rows)
            found = found | _own(settings) if is_own else found
        else:
            found = _own(settings)
        self.roots = found
        return found != before

    async def _rows(self, settings: Settings) -> list[tuple[str, str, str, bool]]:
        if self._database is None:
            if _lacks_database(settings.database_url):
                return []
            self._database = open_database(settings.database_url, size=1)
        return [(*row,) for row in await self._database.fetch_all(_LIST)]

    async def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            await self._database.close()


def _lacks_database(url: str) -> bool:
    """Whether there is no file to open: opening would make one."""
    return url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists()


def _own(settings: Settings) -> dict[str, Path]:
    """The storage that the settings describe, if it has files."""
    return {DEFAULT: settings.blob_directory} if settings.storage.driver == "filesystem" else {}
