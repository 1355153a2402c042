"""
Keeping the live settings: in the database for all, in memory for each process.

A process follows their revision (`dtr.db.revisions`): it has what others changed within a second, and what itself
changed at once.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, now
from dtr.db.revisions import Revision
from dtr.db.schema import settings
from dtr.events import SYSTEM, Event, Object, record
from dtr.settings.values import Values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.db import Database, Reader, Transaction
    from dtr.events import Actor

_log = logging.getLogger("dtr.settings")

_PLACE = re.compile(r"(.*) - at `\$(?:\.([^`]*))?`", re.DOTALL)

_READ = Statement(lambda: select(settings.c.name, settings.c.value))
_row = insert(settings).values(name=bindparam("name"), value=bindparam("value"), updated_at=now())
_WRITE = Statement(
    lambda: _row.on_conflict_do_update(
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
        self._revision = Revision(database, "settings", self._read)
        self.current = defaults or Values()

    async def refresh(self) -> Values:
        """What holds now, read when it is not known yet. Raises DatabaseError, SettingsInvalid."""
        await self._revision.refresh()
        return self.current

    async def _read(self) -> None:
        self.current = _convert(self._defaults | await _stored(self._database))

    async def keep_fresh(self) -> None:
        """Follow the changes of other processes, until cancelled."""
        await self._revision.follow(
            lambda error: _log.warning("settings not read", extra={"reason": str(error)}),
            failures=(DatabaseError, SettingsInvalid),
        )

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
            await self._revision.count_up(tx)  # first: whoever else changes settings waits here
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
