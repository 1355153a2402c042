"""
Keeping the live settings: in the database for all, in memory for each process.

Whoever changes one counts up a revision; every process asks for it each second, and reads the settings again when
it is another one. The process that changed something has it at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, now
from dtr.db.schema import revisions, settings
from dtr.events import SYSTEM, Event, Object, record
from dtr.settings.values import Values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.db import Database, Reader, Transaction
    from dtr.events import Actor

_log = logging.getLogger("dtr.settings")

_POLL_SECONDS = 1.0
_PLACE = re.compile(r"(.*) - at `\$(?:\.([^`]*))?`", re.DOTALL)

_REVISION = Statement(select(revisions.c.value).where(revisions.c.name == "settings"))
_NEXT_REVISION = Statement(
    insert(revisions)
    .values(name="settings", value=1)
    .on_conflict_do_update(index_elements=["name"], set_={"value": revisions.c.value + 1})
    .returning(revisions.c.value)
)
_READ = Statement(select(settings.c.name, settings.c.value))
_row = insert(settings).values(name=bindparam("name"), value=bindparam("value"), updated_at=now())
_WRITE = Statement(
    _row.on_conflict_do_update(
        index_elements=["name"], set_={"value": _row.excluded.value, "updated_at": _row.excluded.updated_at}
    )
)


class SettingsInvalid(Exception):
    """Settings cannot have these values; `problems` says why, by name."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in problems.items()))
        self.problems = dict(problems)


class SettingsChanged(Exception):
    """Settings have other values than who changes them expected; `values` has those, by name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(f"{', '.join(sorted(values))}: changed meanwhile")
        self.values = dict(values)


class LiveSettings:
    """The live settings as this process knows them. `current` is read where they are obeyed, each time."""

    def __init__(self, database: Database, defaults: Values | None = None) -> None:
        """`defaults` are the values of what is not stored."""
        self._database = database
        self._defaults: dict[str, Any] = msgspec.to_builtins(defaults or Values())
        self._revision = 0
        self._reading = asyncio.Lock()
        self.current = defaults or Values()

    async def refresh(self) -> Values:
        """What holds now, read when it is not known yet. Raises DatabaseError."""
        async with self._reading:  # one after the other: what was read before replaces nothing that was read later
            row = await self._database.fetch_one(_REVISION)
            revision = int(row[0]) if row else 0
            if revision != self._revision:
                # Should they change in between, they are newer than the revision, and are read once more.
                current = _convert(self._defaults | await _stored(self._database))
                self._revision, self.current = revision, current
            return self.current

    async def keep_fresh(self) -> None:
        """Follow the changes of other processes, until cancelled."""
        failed = False
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self.refresh()
                failed = False
            except (DatabaseError, SettingsInvalid) as error:
                if not failed:  # what was known last goes on to hold
                    _log.warning("settings not read", extra={"reason": str(error)})
                failed = True

    async def change(
        self, changes: Mapping[str, Any], *, expected: Mapping[str, Any] | None = None, by: Actor = SYSTEM
    ) -> Values:
        """
        Set some of them, by the names of the API, all or none; what holds then.

        `expected` are values that have to hold before. Raises SettingsInvalid; SettingsChanged: they do not;
        DatabaseError.
        """
        expected = expected or {}
        unknown = (changes.keys() | expected.keys()) - self._defaults.keys()
        if unknown:
            raise SettingsInvalid(dict.fromkeys(sorted(unknown), "there is no such setting"))

        async def work(tx: Transaction) -> None:
            await tx.fetch_one(_NEXT_REVISION)  # first: whoever else changes settings waits here
            before = self._defaults | await _stored(tx)
            other = {name: before[name] for name, value in expected.items() if before[name] != value}
            if other:
                raise SettingsChanged(other)
            after = msgspec.to_builtins(_convert(before | dict(changes)))
            changed = [name for name in sorted(changes) if after[name] != before[name]]
            values = {name: _json(after[name]) for name in changed}
            await tx.execute_many(_WRITE, [{"name": name, "value": text} for name, text in values.items()])
            await record(
                tx,
                *(
                    Event(
                        type="UPDATE",
                        actor=by,
                        object=Object("setting", name, name, _json(before[name])),
                        target=Object("setting", name, name, values[name]),
                    )
                    for name in changed
                ),
            )

        await self._database.unit(work)
        return await self.refresh()


async def _stored(reader: Reader) -> dict[str, Any]:
    return {name: msgspec.json.decode(value) for name, value in await reader.fetch_all(_READ)}


def _convert(values: Mapping[str, Any]) -> Values:
    """Check the types and bounds; what a newer version has stored besides is left aside."""
    try:
        return msgspec.convert(values, Values)
    except msgspec.ValidationError as error:
        match = _PLACE.fullmatch(str(error))
        text, name = (match[1], match[2] or "") if match else (str(error), "")
        if not name:
            name, _, text = text.rpartition(": ")
        raise SettingsInvalid({name: text.replace("`", "")}) from None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
