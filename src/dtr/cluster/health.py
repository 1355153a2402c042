"""Health: whether database, storages and signer answer this process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from sqlalchemy import select

from dtr.db import DatabaseError, Statement, now
from dtr.signer import SignerError
from dtr.storage import StorageError

if TYPE_CHECKING:
    from dtr.db import Database
    from dtr.signer import Signer
    from dtr.storage import Storages

_ASK = Statement(lambda: select(now()))
_PATIENCE_SECONDS = 10.0
_GOOD_FOR_SECONDS = 5.0
"""So long an answer is given again: nobody wears out the storage by asking."""


class Component(Struct, frozen=True):
    """Something that the installation needs, and how it is with that."""

    kind: Literal["metadata", "storage", "trust"]
    name: str
    """Of a storage; else empty."""
    wrong: str
    """In words that give nothing away; empty: nothing."""


class Health:
    """Looks when it is asked, and not too often."""

    def __init__(self, database: Database, storage: Storages, signer: Signer | None) -> None:
        """`signer` is None where nothing is signed."""
        self._database = database
        self._storage = storage
        self._signer = signer
        self._looking = asyncio.Lock()
        self._looked_at = -_GOOD_FOR_SECONDS
        self._wrong: dict[str, str] = {}

    async def look(self) -> dict[str, str]:
        """
        What is wrong, by what it concerns, in words that give nothing away.

        That is `metadata`; `storage`, the default one, where new blobs go; ``storage NAME``, another one; `trust`.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at < _GOOD_FOR_SECONDS:
                return self._wrong
            names = self._storage.names
            database, signer, *storages = await asyncio.gather(
                self._has_database(), self._has_signer(), *(self._has_storage(name) for name in names)
            )
            wrong = {}
            if not database:
                wrong["metadata"] = "the metadata database does not answer"
            for name, answers in zip(names, storages, strict=True):
                if name == self._storage.default and not answers:
                    wrong["storage"] = f"the storage {name} does not answer"
                elif not answers:
                    wrong[f"storage {name}"] = f"the storage {name} does not answer"
            if self._storage.default not in names:
                wrong["storage"] = f"the storage {self._storage.default} is not open"
            if not signer:
                wrong["trust"] = "the signer of content trust does not sign"
            self._wrong = wrong
            self._looked_at = time.monotonic()
            return wrong

    async def components(self) -> list[Component]:
        """Everything that is looked at, and how it is."""
        wrong = await self.look()
        components = [Component("metadata", "", wrong.get("metadata", ""))]
        default = self._storage.default
        for name in sorted({*self._storage.names, default}):
            text = wrong.get("storage" if name == default else f"storage {name}", "")
            components.append(Component("storage", name, text))
        if self._signer is not None:
            components.append(Component("trust", "", wrong.get("trust", "")))
        return components

    async def _has_database(self) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._database.fetch_one(_ASK)
        except (DatabaseError, TimeoutError):
            return False
        return True

    async def _has_signer(self) -> bool:
        if self._signer is None:
            return True
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._signer.check()
        except (SignerError, TimeoutError):
            return False
        except DatabaseError:  # that of the signer in this process, of which `_has_database` speaks
            return True
        return True

    async def _has_storage(self, name: str) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._storage.check(name)
        except (StorageError, TimeoutError):
            return False
        return True
