"""
The storages of an installation, in the database for all, and open in each process.

What is stored is known by full locations, ``NAME:PATH``; so a name must lead to the same objects for ever. A
storage with anything in it can get other keys, and never another place. The storage `DEFAULT` is the one that the
settings file describes, until it is described while the program runs; where it was is remembered, lest a changed
line in that file make every tag lead nowhere.

A process follows the revision of all this (`dtr.db.revisions`). Secrets are sealed. They are for one place:
whoever names another, or leaves TLS, has to give them again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, Integer, Text, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.backends.errors import (
    BackendChanged,
    BackendInUse,
    BackendRefused,
    BackendUnknown,
    NamespaceUnknown,
    PlaceChanged,
)
from dtr.db import ConstraintViolated, DatabaseBusy, Statement, now
from dtr.db.revisions import Revision
from dtr.db.schema import accounts, blobs, gc_objects, namespace_storages, storages, uploads
from dtr.events import SYSTEM, Event, Object, record
from dtr.storage import ObjectMissing, StorageError
from dtr.storage.definitions import (
    DEFAULT,
    NAME,
    DefinitionInvalid,
    Parameters,
    checked_networks,
    open_driver,
    parameters_of,
    plain_and_secret,
    redirect_of,
)
from dtr.storage.trial import try_steps
from dtr.vault import VaultError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy import Column

    from dtr.db import Database, Transaction
    from dtr.events import Actor, EventType
    from dtr.storage import Driver, Redirect, Storages
    from dtr.storage.trial import Step
    from dtr.vault import Vault

_log = logging.getLogger("dtr.backends")

_RETRY_SECONDS = 15.0
"""A storage that could not be opened is tried again after so long."""
_PATIENCE_SECONDS = 30.0
"""A storage that was not written, read and deleted from by then does not work."""
_SETTLED_MS = 10_000
"""So long after new blobs stopped going to a storage, every process knows that they do."""
_COUNTED_AT_ONCE = 10_000
_LOOKED_FOR = 25
"""So many of the newest blobs, and as many others, are looked for at another place."""
_SHORTEST_REDIRECT, _LONGEST_REDIRECT = 10, 3600

_which = bindparam("which", type_=Text)
_rows = select(
    storages.c.name,
    storages.c.driver,
    storages.c.parameters,
    storages.c.secrets,
    storages.c.place,
    storages.c.redirect_seconds,
    storages.c.redirect_except,
    storages.c.is_default,
    storages.c.used_until,
    storages.c.created_at,
    storages.c.changed_at,
)
_LIST = Statement(lambda: _rows.order_by(storages.c.name))
_GET = Statement(lambda: _rows.where(storages.c.name == _which))
_AT_PLACE = Statement(
    lambda: select(storages.c.name).where(
        storages.c.place == bindparam("place", type_=Text), storages.c.name != _which
    )
)
_described = {
    "driver": bindparam("driver", type_=Text),
    "parameters": bindparam("parameters", type_=Text),
    "secrets": bindparam("secrets", type_=Text),
    "place": bindparam("place", type_=Text),
    "redirect_seconds": bindparam("redirect_seconds", type_=Integer),
    "redirect_except": bindparam("redirect_except", type_=Text),
    "changed_at": now(),
}
_INSERT = Statement(
    lambda: insert(storages).values(
        name=_which,
        is_default=bindparam("is_default", type_=Boolean),
        used_until=0,
        created_at=now(),
        **_described,
    )
)
_UPDATE = Statement(lambda: update(storages).where(storages.c.name == _which).values(**_described))
_DELETE = Statement(lambda: delete(storages).where(storages.c.name == _which))
_HAS_DEFAULT = Statement(lambda: select(storages.c.name).where(storages.c.is_default))
_END_DEFAULT = Statement(
    lambda: (
        update(storages)
        .where(storages.c.is_default, storages.c.name != _which)
        .values(is_default=False, used_until=now(), changed_at=now())
    )
)
_MAKE_DEFAULT = Statement(
    lambda: update(storages).where(storages.c.name == _which).values(is_default=True, changed_at=now())
)
_ASSIGNMENTS = Statement(
    lambda: (
        select(namespace_storages.c.namespace_id, accounts.c.name, namespace_storages.c.storage)
        .join_from(namespace_storages, accounts, accounts.c.id == namespace_storages.c.namespace_id)
        .order_by(accounts.c.name)
    )
)
_namespace = bindparam("namespace", type_=Text)
_NAME_OF = Statement(lambda: select(accounts.c.name).where(accounts.c.id == _namespace))
_ASSIGNED = Statement(
    lambda: select(namespace_storages.c.storage).where(namespace_storages.c.namespace_id == _namespace)
)
_IS_ASSIGNED = Statement(
    lambda: select(namespace_storages.c.namespace_id).where(namespace_storages.c.storage == _which).limit(1)
)
_ASSIGN = Statement(
    lambda: (
        insert(namespace_storages)
        .values(namespace_id=_namespace, storage=bindparam("storage", type_=Text))
        .on_conflict_do_update(index_elements=["namespace_id"], set_={"storage": bindparam("storage", type_=Text)})
    )
)
_UNASSIGN = Statement(lambda: delete(namespace_storages).where(namespace_storages.c.namespace_id == _namespace))
_USED = Statement(lambda: update(storages).where(storages.c.name == _which).values(used_until=now()))
_NOW = Statement(lambda: select(now()))
_from, _to = bindparam("begin", type_=Text), bindparam("end", type_=Text)
_HOLDS = Statement(
    lambda: (
        select(blobs.c.location)
        .where(blobs.c.location >= _from, blobs.c.location < _to)
        .union_all(
            select(uploads.c.location).where(uploads.c.location >= _from, uploads.c.location < _to),
            select(gc_objects.c.location).where(gc_objects.c.location >= _from, gc_objects.c.location < _to),
        )
        .limit(1)
    )
)
_blobs_of = select(blobs.c.location, blobs.c.size).where(
    blobs.c.location >= _from, blobs.c.location < _to, blobs.c.state == "present"
)
_NEWEST_BLOBS = Statement(lambda: _blobs_of.order_by(blobs.c.location.desc()).limit(_LOOKED_FOR))
_SOME_BLOBS = Statement(lambda: _blobs_of.order_by(blobs.c.digest).limit(_LOOKED_FOR))


def _portion(locations: Column[str], sizes: Column[int]) -> Statement:
    """How many of the next locations there are, their bytes, and the last of them."""
    some = (
        select(locations.label("location"), sizes.label("size"))
        .where(locations > bindparam("after", type_=Text), locations < _to)
        .order_by(locations)
        .limit(bindparam("limit", type_=BigInteger))
        .subquery()
    )
    return Statement(select(func.count(), func.coalesce(func.sum(some.c.size), 0), func.max(some.c.location)))


_COUNTED = tuple(
    _portion(table.c.location, size)
    for table, size in ((blobs, blobs.c.size), (uploads, uploads.c.offset), (gc_objects, gc_objects.c.size))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A storage as someone describes it."""

    driver: str
    """One of `dtr.storage.definitions.KINDS`."""
    parameters: Mapping[str, Any] = field(repr=False)
    """As JSON has them, with the secrets. A secret that is not named stays as it is; None or "" is none."""
    redirect_seconds: int | None = None
    """Reading clients are sent to signed addresses that are good for so long; None: they are not."""
    redirect_except: tuple[str, ...] = ()
    """Networks of clients who are not."""


class Backend(Struct, frozen=True, kw_only=True):
    """A storage of the installation. Moments in milliseconds since 1970 UTC."""

    name: str
    driver: str
    parameters: Mapping[str, Any]
    """As JSON has them, without secrets and what is as by default."""
    secrets: tuple[str, ...]
    """The names of the secrets that it has."""
    place: str
    """Where its objects are, for people to read."""
    redirect_seconds: int | None
    redirect_except: tuple[str, ...]
    is_default: bool
    """New blobs go there, unless their namespace is assigned to another one."""
    is_from_settings: bool
    """The settings file describes it, as nobody did while the program ran."""
    is_open: bool
    """This process could open it."""
    created_at: int
    changed_at: int


class Trial(Struct, frozen=True):
    """How it went to try a storage: where that is, for people to read, and step by step."""

    place: str
    steps: tuple[Step, ...]


class Usage(Struct, frozen=True):
    """What a storage has: blobs and their bytes, unfinished uploads, objects that wait to be deleted."""

    blobs: int = 0
    bytes: int = 0
    uploads: int = 0
    deletions: int = 0


class Assignment(Struct, frozen=True):
    """New blobs of a namespace go to a storage."""

    namespace_id: str
    namespace: str
    storage: str


class Own(Struct, frozen=True):
    """What the settings say of the storage `DEFAULT`."""

    driver: str
    parameters: Parameters
    redirect_seconds: int | None = None
    redirect_except: tuple[str, ...] = ()


class Backends:
    """All storages of the installation, and those that this process has open."""

    def __init__(
        self, database: Database, vault: Vault, opened: Storages, own: Own, *, spool_directory: Path
    ) -> None:
        """`opened` has the storage that the settings describe; it is kept as the database says from then on."""
        self._database = database
        self._vault = vault
        self._storages = opened
        self._own = own
        self._spool_directory = spool_directory
        self._revision = Revision(database, "storages", self._read, is_due=self._is_time_to_retry)
        self._known: dict[str, _Row] = {}
        self._failed: set[str] = set()
        self._retry_at = 0.0
        opened.refresh = self.refresh

    # --- asking ---

    async def list_storages(self) -> list[Backend]:
        """All storages, by name."""
        return [self._backend(_Row(*row)) for row in await self._database.fetch_all(_LIST)]

    async def get(self, name: str) -> Backend:
        """One of them. Raises BackendUnknown."""
        return self._backend(await self._row(name))

    async def assignments(self) -> list[Assignment]:
        """Which namespaces are assigned to which storages, by the names of the namespaces."""
        return [Assignment(*row) for row in await self._database.fetch_all(_ASSIGNMENTS)]

    async def usage(self, name: str) -> Usage:
        """What a storage has; it is counted, a portion at a time. Nothing, of one that there is not."""
        span = _span(name)
        numbers, sizes = [], []
        for statement in _COUNTED:
            number = size = 0
            after: str | None = span["begin"]
            while after is not None:
                row = await self._database.fetch_one(
                    statement, after=after, end=span["end"], limit=_COUNTED_AT_ONCE
                )
                assert row is not None
                number, size, after = number + row[0], size + row[1], row[2]
                await asyncio.sleep(0)  # others have their turn
            numbers.append(int(number))
            sizes.append(int(size))
        return Usage(numbers[0], sizes[0], *numbers[1:])

    async def check(self, name: str) -> None:
        """Write, read and delete a small object in a storage. Raises BackendUnknown, BackendRefused."""
        await self._row(name)
        await self.refresh()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._storages.check(name)
        except StorageError as error:
            raise BackendRefused(str(error)) from error
        except TimeoutError:
            raise BackendRefused(_too_late(name)) from None

    async def try_out(self, name: str, definition: Definition | None = None) -> Trial:
        """
        Try a storage that is described so, step by step; nothing is saved.

        Secrets that are not given are those of the storage of that name; without a definition it is that one.
        Raises BackendUnknown; BackendRefused: it cannot be described so; VaultError.
        """
        if definition is None:
            row = await self._row(name)
            try:
                parameters = await asyncio.to_thread(self._parameters, row)
            except DefinitionInvalid as error:
                raise BackendRefused(str(error)) from None
        else:
            parameters = (await self._describe(name, definition)).parameters
        secrets = plain_and_secret(parameters)[1]
        steps = await try_steps(lambda: parameters.open(self._spool_directory), patience=_PATIENCE_SECONDS)
        return Trial(parameters.place, tuple(replace(step, text=_without(step.text, secrets)) for step in steps))

    # --- changing ---

    async def put(
        self, name: str, definition: Definition, *, changed_at: int | None = None, by: Actor = SYSTEM
    ) -> Backend:
        """
        Add a storage, or describe one anew. It is tried out first: written to, read and deleted from.

        `changed_at` is when it was changed last, as who describes it knows it; 0: there was none.

        Raises BackendRefused; BackendInUse: it would be another place, and something is or will be in this one, or
        another storage is there; BackendChanged: it was changed at another time; VaultError.
        """
        prepared = await self._prepare(name, definition)

        async def work(tx: Transaction) -> None:
            await self._revision.count_up(tx)  # first: whoever else changes storages waits here
            found = await tx.fetch_one(_GET, which=name)
            before = _Row(*found) if found else None
            if changed_at is not None and changed_at != (before.changed_at if before else 0):
                raise BackendChanged(name)
            if (before.secrets if before else None) != prepared.known:
                raise DatabaseBusy("the storage was described anew at this moment")
            other = await tx.fetch_one(_AT_PLACE, place=prepared.parameters.place, which=name)
            if other is not None:
                raise BackendInUse(f"the storage {other[0]} is at {prepared.parameters.place} already")
            if before is not None and before.place != prepared.parameters.place:
                await _require_unused(tx, before, f"cannot be at another place than {before.place}")
            values = {
                "which": name,
                "driver": definition.driver,
                "parameters": json.dumps(prepared.plain),
                "secrets": prepared.sealed,
                "place": prepared.parameters.place,
                "redirect_seconds": definition.redirect_seconds,
                "redirect_except": json.dumps(definition.redirect_except),
            }
            if before is None:
                await tx.execute(_INSERT, is_default=False, **values)
            else:
                await tx.execute(_UPDATE, **values)
            await _note(tx, "UPDATE" if before else "CREATE", name, {"place": prepared.parameters.place}, by)

        await self._database.unit(work)
        await self.refresh()
        return await self.get(name)

    async def delete(self, name: str, *, by: Actor = SYSTEM) -> None:
        """
        Take a storage away that has nothing in it. Raises BackendUnknown, BackendInUse.

        Not so `DEFAULT`: the settings describe it.
        """
        if name == DEFAULT:
            raise BackendInUse(f"the storage {DEFAULT} cannot be removed: the settings describe it")

        async def work(tx: Transaction) -> None:
            await self._revision.count_up(tx)
            found = await tx.fetch_one(_GET, which=name)
            if found is None:
                raise BackendUnknown(name)
            await _require_unused(tx, _Row(*found), "cannot be removed")
            await tx.execute(_DELETE, which=name)
            await _note(tx, "DELETE", name, {}, by)

        await self._database.unit(work)
        await self.refresh()

    async def make_default(self, name: str, *, by: Actor = SYSTEM) -> None:
        """Let new blobs go there, unless their namespace is assigned to another one. Raises BackendUnknown."""

        async def work(tx: Transaction) -> None:
            await self._revision.count_up(tx)
            found = await tx.fetch_one(_GET, which=name)
            if found is None:
                raise BackendUnknown(name)
            if _Row(*found).is_default:
                return
            await tx.execute(_END_DEFAULT, which=name)
            await tx.execute(_MAKE_DEFAULT, which=name)
            await _note(tx, "UPDATE", name, {"is_default": True}, by)

        await self._database.unit(work)
        await self.refresh()

    async def assign(self, namespace_id: str, name: str, *, by: Actor = SYSTEM) -> None:
        """Let new blobs of a namespace go to a storage. Raises NamespaceUnknown, BackendUnknown."""
        await self._assign(namespace_id, name, by)

    async def unassign(self, namespace_id: str, *, by: Actor = SYSTEM) -> None:
        """Let new blobs of a namespace go to the default storage. Raises NamespaceUnknown."""
        await self._assign(namespace_id, None, by)

    async def _assign(self, namespace_id: str, name: str | None, by: Actor) -> None:
        async def work(tx: Transaction) -> None:
            await self._revision.count_up(tx)
            account = await tx.fetch_one(_NAME_OF, namespace=namespace_id)
            if account is None:
                raise NamespaceUnknown(namespace_id)
            if name is not None and await tx.fetch_one(_GET, which=name) is None:
                raise BackendUnknown(name)
            before = await tx.fetch_one(_ASSIGNED, namespace=namespace_id)
            if (before[0] if before else None) == name:
                return
            if before is not None:
                await tx.execute(_USED, which=before[0])
            if name is None:
                await tx.execute(_UNASSIGN, namespace=namespace_id)
            else:
                await tx.execute(_ASSIGN, namespace=namespace_id, storage=name)
            about = Object("account", namespace_id, account[0])
            await _note(tx, "UPDATE", name or DEFAULT, {"assigned": name is not None}, by, about)

        try:
            await self._database.unit(work)
        except ConstraintViolated:
            raise NamespaceUnknown(namespace_id) from None
        await self.refresh()

    # --- following ---

    async def begin(self) -> None:
        """
        Remember where the storage is that the settings describe, when the program starts. Raises PlaceChanged.

        When it was somewhere else, blobs are looked for where it is now: all those that are looked for have to be
        there.
        """
        own = self._own

        async def work(tx: Transaction) -> bool:
            await self._revision.count_up(tx)
            found = await tx.fetch_one(_GET, which=DEFAULT)
            values = {
                "which": DEFAULT,
                "driver": own.driver,
                "parameters": None,
                "secrets": None,
                "place": own.parameters.place,
                "redirect_seconds": own.redirect_seconds,
                "redirect_except": json.dumps(own.redirect_except),
            }
            if found is None:
                await tx.execute(_INSERT, is_default=await tx.fetch_one(_HAS_DEFAULT) is None, **values)
            elif _Row(*found).parameters is None:
                await tx.execute(_UPDATE, **values)
            return True

        found = await self._database.fetch_one(_GET, which=DEFAULT)
        if found is not None:
            row = _Row(*found)
            if row.parameters is not None or self._is_as_settings_say(row):
                await self.refresh()
                return
            if row.place != own.parameters.place:
                await self._require_blobs(row)
        await self._database.unit(work)
        await self.refresh()

    async def refresh(self) -> None:
        """Know and have open what there is now. Raises DatabaseError."""
        await self._revision.refresh()

    async def _read(self) -> None:
        rows = {one[0]: _Row(*one) for one in await self._database.fetch_all(_LIST)}
        assigned = {one[0]: one[2] for one in await self._database.fetch_all(_ASSIGNMENTS)}
        if rows:
            await self._take_over(rows, assigned)
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _is_time_to_retry(self) -> bool:
        return bool(self._failed) and time.monotonic() >= self._retry_at

    async def keep_fresh(self) -> None:
        """Follow the changes of other processes, until cancelled."""
        await self._revision.follow(lambda error: _log.warning("storages not read", extra={"reason": str(error)}))

    async def _take_over(self, rows: dict[str, _Row], assigned: dict[str, str]) -> None:
        """Have these storages open, and no others."""
        for name, row in rows.items():
            try:
                driver = await self._driver(row)
            except (StorageError, VaultError, DefinitionInvalid, PlaceChanged) as error:
                if name not in self._failed:
                    _log.error("storage not opened", extra={"storage": name, "reason": str(error)})
                self._failed.add(name)
                continue
            await self._storages.put(name, driver, row.redirect)
            self._failed.discard(name)
            self._known[name] = row
        for name in self._storages.names:
            if name not in rows:
                await self._storages.remove(name)
                self._known.pop(name, None)
        self._failed &= rows.keys()
        self._storages.assigned = assigned
        self._storages.default = next((name for name, row in rows.items() if row.is_default), DEFAULT)

    async def _driver(self, row: _Row) -> Driver:
        """The driver of a storage: the one that is open, when it is described in the same way."""
        known = self._known.get(row.name)
        is_open = row.name in self._storages.names
        if row.parameters is None:
            if row.place != self._own.parameters.place and (known is None or known.place != row.place):
                await self._require_blobs(row)
            if is_open and (known is None or known.parameters is None):
                return self._storages.driver(row.name)
            return self._own.parameters.open(self._spool_directory)
        if is_open and known is not None and known.description == row.description:
            return self._storages.driver(row.name)
        secrets = await asyncio.to_thread(self._secrets, row)
        return open_driver(
            row.driver, {**json.loads(row.parameters), **secrets}, spool_directory=self._spool_directory
        )

    async def _require_blobs(self, row: _Row) -> None:
        """Raise PlaceChanged when blobs of the storage are not where the settings say that it is."""
        wrong = await self._look_for_blobs()
        if wrong:
            if row.name in self._storages.names:
                await self._storages.remove(row.name)
            raise PlaceChanged(
                f"the settings say that the storage is {self._own.parameters.place}; it was {row.place}, and "
                f"{wrong}. Let them name the old place again. To move: describe the new place as a storage of its "
                "own (`dtr storage set`), and migrate (`dtr storage migrate`); or copy everything before the "
                "settings are changed"
            )

    async def _look_for_blobs(self) -> str:
        """Look for blobs of `DEFAULT` where the settings say that it is; what is wrong, empty: all were there."""
        span = _span(DEFAULT)
        found = {
            *await self._database.fetch_all(_NEWEST_BLOBS, **span),
            *await self._database.fetch_all(_SOME_BLOBS, **span),
        }
        missing = 0
        driver = self._own.parameters.open(self._spool_directory)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for location, size in found:
                    try:
                        missing += await driver.stat(location.partition(":")[2]) != size
                    except ObjectMissing:
                        missing += 1
        except StorageError as error:
            return f"the new place cannot be asked for the blobs: {error}"
        except TimeoutError:
            return f"the new place cannot be asked for the blobs: {_too_late(DEFAULT)}"
        finally:
            await driver.close()
        return f"{missing} of {len(found)} blobs that were looked for are not at the new place" if missing else ""

    # --- inside ---

    async def _row(self, name: str) -> _Row:
        found = await self._database.fetch_one(_GET, which=name)
        if found is None:
            raise BackendUnknown(name)
        return _Row(*found)

    def _is_as_settings_say(self, row: _Row) -> bool:
        own = self._own
        return (row.driver, row.place, row.redirect_seconds, row.redirect_except) == (
            own.driver,
            own.parameters.place,
            own.redirect_seconds,
            json.dumps(own.redirect_except),
        )

    def _backend(self, row: _Row) -> Backend:
        own = plain_and_secret(self._own.parameters)[1]
        secrets = own if row.parameters is None else json.loads(row.secrets or "{}")
        return Backend(
            name=row.name,
            driver=row.driver,
            parameters=self._plain(row),
            secrets=tuple(sorted(secrets)),
            place=row.place,
            redirect_seconds=row.redirect_seconds,
            redirect_except=tuple(json.loads(row.redirect_except)),
            is_default=bool(row.is_default),
            is_from_settings=row.parameters is None,
            is_open=row.name in self._storages.names and row.name not in self._failed,
            created_at=row.created_at,
            changed_at=row.changed_at,
        )

    def _plain(self, row: _Row) -> dict[str, Any]:
        """The parameters of a storage, as JSON has them, without its secrets."""
        return plain_and_secret(self._own.parameters)[0] if row.parameters is None else json.loads(row.parameters)

    async def _prepare(self, name: str, definition: Definition) -> _Prepared:
        """Check a definition, try it out, and seal its secrets. Raises BackendRefused, VaultError."""
        described = await self._describe(name, definition)
        plain, secrets = plain_and_secret(described.parameters)
        await self._try(name, described.parameters, secrets)
        sealed = await asyncio.to_thread(self._seal, name, secrets)
        return _Prepared(described.parameters, plain, sealed, described.known)

    async def _describe(self, name: str, definition: Definition) -> _Described:
        """Check a definition, completed with the secrets that are kept. Raises BackendRefused, VaultError."""
        if re.fullmatch(NAME, name) is None:
            raise BackendRefused("the name of a storage has at most 32 small letters, digits and '-'")
        if definition.driver == "memory":
            raise BackendRefused("driver: what is in the memory of one process is no storage for others")
        found = await self._database.fetch_one(_GET, which=name)
        before = _Row(*found) if found else None
        known = await asyncio.to_thread(self._secrets, before) if before else {}
        given = {key: value for key, value in definition.parameters.items() if value is not None and value != ""}
        kept = {
            key: value
            for key, value in known.items()
            if key not in definition.parameters and before is not None and before.driver == definition.driver
        }
        try:
            parameters = parameters_of(definition.driver, {**given, **kept})
            checked_networks(definition.redirect_except)
            _check_redirect(definition)
            if kept and before is not None and before.place != parameters.place:
                raise BackendRefused(f"for another place, {', '.join(sorted(kept))} must be given again")
            if kept and before is not None and _is_without_tls(given) and not _is_without_tls(self._plain(before)):
                raise BackendRefused(f"without TLS, {', '.join(sorted(kept))} must be given again")
        except DefinitionInvalid as error:
            raise BackendRefused(_without(str(error), kept)) from None
        except ValueError as error:
            raise BackendRefused(f"redirect_except: {error}") from None
        return _Described(parameters, before.secrets if before else None)

    async def _try(self, name: str, parameters: Parameters, secrets: Mapping[str, str]) -> None:
        try:
            driver = parameters.open(self._spool_directory)
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await driver.check()
            finally:
                await driver.close()
        except StorageError as error:
            raise BackendRefused(_without(str(error), secrets)) from None
        except TimeoutError:
            raise BackendRefused(_too_late(name)) from None

    def _seal(self, name: str, secrets: Mapping[str, str]) -> str | None:
        if not secrets:
            return None
        return json.dumps({key: self._vault.seal(value, _purpose(name, key)) for key, value in secrets.items()})

    def _parameters(self, row: _Row) -> Parameters:
        """The parameters of a storage, with its secrets. For a thread. Raises VaultError, DefinitionInvalid."""
        if row.parameters is None:
            return self._own.parameters
        return parameters_of(row.driver, {**json.loads(row.parameters), **self._secrets(row)})

    def _secrets(self, row: _Row) -> dict[str, str]:
        """The secrets of a storage. For a thread. Raises VaultError."""
        if row.parameters is None:
            return plain_and_secret(self._own.parameters)[1]
        sealed = json.loads(row.secrets or "{}")
        return {key: self._vault.open(value, _purpose(row.name, key)) for key, value in sealed.items()}


class _Row(NamedTuple):
    """A storage as the database has it."""

    name: str
    driver: str
    parameters: str | None
    secrets: str | None
    place: str
    redirect_seconds: int | None
    redirect_except: str
    is_default: bool
    used_until: int
    created_at: int
    changed_at: int

    @property
    def description(self) -> tuple[object, ...]:
        """What the driver depends on."""
        return self.driver, self.parameters, self.secrets, self.place

    @property
    def redirect(self) -> Redirect | None:
        """Whether reading clients are sent there."""
        return redirect_of(self.redirect_seconds, json.loads(self.redirect_except))


class _Described(NamedTuple):
    """A definition that can be."""

    parameters: Parameters
    known: str | None
    """The sealed secrets that the storage has."""


class _Prepared(NamedTuple):
    """A definition that was tried out."""

    parameters: Parameters
    plain: dict[str, Any]
    sealed: str | None
    known: str | None
    """The sealed secrets that the storage had then."""


async def _require_unused(tx: Transaction, row: _Row, change: str) -> None:
    """
    Raise BackendInUse when something is in the storage, or may still go there.

    A process that does not know yet that new blobs go elsewhere writes the location down before the first byte.
    """
    subject = f"the storage {row.name} {change}"
    if row.is_default:
        raise BackendInUse(f"{subject}: it is the default one, new blobs go there")
    if await tx.fetch_one(_IS_ASSIGNED, which=row.name) is not None:
        raise BackendInUse(f"{subject}: namespaces are assigned to it")
    moment = await tx.fetch_one(_NOW)
    if moment is not None and row.used_until > moment[0] - _SETTLED_MS:
        raise BackendInUse(f"{subject} yet: new blobs went there a moment ago; try it again in some seconds")
    if await tx.fetch_one(_HOLDS, **_span(row.name)) is not None:
        raise BackendInUse(f"{subject}: there are blobs, uploads or objects that wait to be deleted in it")


async def _note(
    tx: Transaction, kind: EventType, name: str, content: Mapping[str, Any], by: Actor, about: Object | None = None
) -> None:
    await record(
        tx, Event(type=kind, actor=by, object=Object("storage", name, name, json.dumps(content)), target=about)
    )


def _check_redirect(definition: Definition) -> None:
    seconds = definition.redirect_seconds
    if seconds is not None and not _SHORTEST_REDIRECT <= seconds <= _LONGEST_REDIRECT:
        raise BackendRefused(f"redirect_seconds: is from {_SHORTEST_REDIRECT} to {_LONGEST_REDIRECT}")


def _is_without_tls(parameters: Mapping[str, Any]) -> bool:
    """Whether what goes to a storage of these parameters can be read on the way, secrets with it."""
    return any(str(parameters.get(name, "")).startswith("http://") for name in ("endpoint", "auth_url"))


def _span(name: str) -> dict[str, str]:
    """The full locations of a storage: from `begin` to before `end`."""
    return {"begin": f"{name}:", "end": f"{name};"}


def _purpose(name: str, parameter: str) -> str:
    """What a secret of a storage is sealed for."""
    return f"storage {name} {parameter}"


def _too_late(name: str) -> str:
    return f"the storage {name} did not answer within {_PATIENCE_SECONDS:.0f} s"


def _without(text: str, secrets: Mapping[str, str]) -> str:
    """The text with no secret in it, whatever a server or a library put there."""
    for secret in secrets.values():
        text = text.replace(secret, "********")
    return text
