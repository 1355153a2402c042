"""
Stored remotes: other registries, and as whom they are asked.

One with a name is shared by policies, of a namespace or of the whole registry; one without belongs to a single
policy, comes with it, and goes with it. Passwords and tokens are sealed, and never answered. They are for one
host: whoever names another has to give them again, so that nobody sends the secrets of others where they like.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, Text, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import ConstraintViolated, Statement, in_list, now
from dtr.db.schema import accounts, mirroring_policies, remotes, repositories, upstreams
from dtr.events import SYSTEM, Event, Object, record
from dtr.remotes.errors import DefinitionInUse, DefinitionInvalid, DefinitionTaken, DefinitionUnknown
from dtr.remotes.remote import Remote, check_access, check_host, registry_url

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor, EventType
    from dtr.vault import Vault

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9])?")
_MOST_DEFINITIONS = 1_000
"""In a namespace, and of the whole registry."""

_id = bindparam("id", type_=Text)
_which = bindparam("which", type_=Text)
_namespace = bindparam("namespace", type_=Text)
_definitions = select(
    remotes.c.id,
    remotes.c.name,
    remotes.c.repository_id,
    remotes.c.namespace_id,
    func.coalesce(accounts.c.name, ""),
    remotes.c.host,
    remotes.c.username,
    remotes.c.ca,
    remotes.c.skip_tls_verification,
    remotes.c.created_at,
    remotes.c.updated_at,
    remotes.c.password,
    remotes.c.token,
).outerjoin_from(remotes, accounts, accounts.c.id == remotes.c.namespace_id)
_GET = Statement(lambda: _definitions.where(remotes.c.id == _id))
_GET_MANY = Statement(lambda: _definitions.where(in_list(remotes.c.id, "ids")))
_LOCK = Statement(lambda: _definitions.where(remotes.c.id == _id).with_for_update(of=remotes))
_of_namespace = remotes.c.namespace_id == _namespace
_of_registry = remotes.c.namespace_id.is_(None) & remotes.c.name.is_not(None)
_page = (
    _definitions.where(remotes.c.name >= bindparam("start", type_=Text))
    .order_by(remotes.c.name)
    .limit(bindparam("limit", type_=BigInteger))
)
_LIST_OF_NAMESPACE = Statement(lambda: _page.where(_of_namespace))
_LIST_OF_REGISTRY = Statement(lambda: _page.where(_of_registry))
_COUNT_OF_NAMESPACE = Statement(lambda: select(func.count()).select_from(remotes).where(_of_namespace))
_COUNT_OF_REGISTRY = Statement(lambda: select(func.count()).select_from(remotes).where(_of_registry))
_values = {
    "name": bindparam("name", type_=Text),
    "host": bindparam("host"),
    "username": bindparam("username"),
    "password": bindparam("password", type_=Text),
    "token": bindparam("token", type_=Text),
    "ca": bindparam("ca"),
    "skip_tls_verification": bindparam("skip_tls_verification", type_=Boolean),
    "updated_at": now(),
}
_INSERT = Statement(
    lambda: insert(remotes).values(
        id=_id,
        repository_id=bindparam("repository", type_=BigInteger),
        namespace_id=_namespace,
        created_at=now(),
        **_values,
    )
)
_UPDATE = Statement(lambda: update(remotes).where(remotes.c.id == _which).values(**_values))
_DELETE = Statement(lambda: delete(remotes).where(remotes.c.id == _which))
_DROP = Statement(lambda: delete(remotes).where(remotes.c.id == _which, remotes.c.name.is_(None)))
_USES = Statement(
    lambda: (
        select(upstreams.c.id)
        .outerjoin_from(upstreams, repositories, repositories.c.id == upstreams.c.repository_id)
        .where(upstreams.c.remote_id == _id, repositories.c.deleted_at.is_(None))
        .union_all(
            select(mirroring_policies.c.id)
            .join_from(mirroring_policies, repositories, repositories.c.id == mirroring_policies.c.repository_id)
            .where(mirroring_policies.c.remote_id == _id, repositories.c.deleted_at.is_(None))
        )
        .limit(1)
    )
)


class Definition(Struct, frozen=True, kw_only=True):
    """A stored remote, without its secrets. Moments in milliseconds since 1970 UTC."""

    id: str = ""
    """Empty: it is to be made."""
    name: str | None = None
    """None: it belongs to a single policy."""
    repository_id: int | None = None
    """That policy's repository, with which it goes; for one without a name."""
    namespace_id: str | None = None
    """The account whose policies may use it; None: only who administers the registry may."""
    namespace: str = ""
    """What that account is called now."""
    host: str
    username: str = ""
    ca: str = ""
    """PEM: the server's certificate or an authority's; empty: the authorities of the system."""
    skip_tls_verification: bool = False
    has_password: bool = False
    has_token: bool = False
    created_at: int = 0
    updated_at: int = 0

    def at(self, repository: str, *, password: str = "", token: str = "") -> Remote:
        """A repository there, with the secrets that it takes to get there."""
        return Remote(
            host=self.host,
            repository=repository,
            username=self.username,
            password=password,
            token=token,
            ca=self.ca,
            skip_tls_verification=self.skip_tls_verification,
        )

    def as_object(self, content: str = "") -> Object:
        """The remote as what an event is about."""
        return Object("remote", self.id, self.name or self.host, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A remote that can be written in a unit of work: it was checked, and its secrets are sealed."""

    definition: Definition
    is_new: bool
    password: str | None = field(repr=False)
    """Sealed; empty: none, None: as it was."""
    token: str | None = field(repr=False)

    @property
    def id(self) -> str:
        """Of the remote."""
        return self.definition.id


class Definitions:
    """All stored remotes. Who may use and change them is not decided here."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def list_definitions(self, namespace: str | None, *, start: str = "", limit: int) -> list[Definition]:
        """
        At most `limit` remotes from the name `start` on, by name, of a namespace (the id of its account).

        None: those of the whole registry.
        """
        statement = _LIST_OF_REGISTRY if namespace is None else _LIST_OF_NAMESPACE
        given = {} if namespace is None else {"namespace": namespace}
        return [
            _definition(row)
            for row in await self._database.fetch_all(statement, **given, start=start, limit=limit)
        ]

    async def count(self, namespace: str | None) -> int:
        """How many `list_definitions` lists in the end."""
        statement, given = _counting(namespace)
        row = await self._database.fetch_one(statement, **given)
        return int(row[0]) if row else 0

    async def get(self, definition: str) -> Definition:
        """A remote by its id. Raises DefinitionUnknown."""
        row = await self._database.fetch_one(_GET, id=definition)
        if row is None:
            raise DefinitionUnknown(definition)
        return _definition(row)

    async def get_many(self, definitions: Iterable[str]) -> dict[str, Definition]:
        """Those of the remotes that are there, by id; one query."""
        rows = await self._database.fetch_all(_GET_MANY, ids=sorted(set(definitions)))
        return {row[0]: _definition(row) for row in rows}

    async def remote(self, definition: str, repository: str) -> Remote:
        """A repository at a remote, with what it takes to get there. Raises DefinitionUnknown, VaultError."""
        row = await self._database.fetch_one(_GET, id=definition)
        if row is None:
            raise DefinitionUnknown(definition)
        found, (password, token) = _definition(row), row[-2:]
        opened = await asyncio.to_thread(self._open, found.id, password, token)
        return found.at(repository, password=opened[0], token=opened[1])

    async def prepare(
        self, definition: Definition, *, password: str | None = None, token: str | None = None
    ) -> Prepared:
        """
        Check a remote, and seal its secrets: one without an id is a new one, and gets one.

        A secret that is None stays as it is, an empty one is none. Raises DefinitionInvalid, VaultError.
        """
        return await asyncio.to_thread(self._prepare, definition, password, token)

    async def create(
        self, definition: Definition, *, password: str = "", token: str = "", by: Actor = SYSTEM
    ) -> Definition:
        """Make a remote with a name. Raises DefinitionInvalid, DefinitionTaken, VaultError."""
        prepared = await self.prepare(replace(definition, id=""), password=password, token=token)
        statement, given = _counting(definition.namespace_id)

        async def work(tx: Transaction) -> Definition:
            row = await tx.fetch_one(statement, **given)
            if row is not None and row[0] >= _MOST_DEFINITIONS:
                raise DefinitionInvalid(f"there are at most {_MOST_DEFINITIONS} remotes in one place")
            await add(tx, prepared)
            made = _definition(await tx.fetch_one(_GET, id=prepared.id))
            await _note(tx, "CREATE", made, by)
            return made

        return await self._unit(work, definition)

    async def change(
        self,
        definition: Definition,
        *,
        password: str | None = None,
        token: str | None = None,
        by: Actor = SYSTEM,
    ) -> Definition:
        """
        Change a remote to what is given, but for whose it is; a secret that is None stays, an empty one goes.

        Raises DefinitionUnknown, DefinitionInvalid (also for secrets that would go to another host),
        DefinitionTaken, VaultError.
        """
        prepared = await self.prepare(definition, password=password, token=token)

        async def work(tx: Transaction) -> Definition:
            await replace_with(tx, prepared)
            made = _definition(await tx.fetch_one(_GET, id=prepared.id))
            await _note(tx, "UPDATE", made, by)
            return made

        return await self._unit(work, definition)

    async def delete(self, definition: str, *, by: Actor = SYSTEM) -> None:
        """Remove a remote. Raises DefinitionUnknown, DefinitionInUse."""

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_LOCK, id=definition)  # who is about to use it waits, or was first
            if row is None:
                raise DefinitionUnknown(definition)
            if await tx.fetch_one(_USES, id=definition) is not None:
                raise DefinitionInUse
            await tx.execute(_DELETE, which=definition)
            await _note(tx, "DELETE", _definition(row), by)

        await self._database.unit(work)

    async def _unit(
        self, work: Callable[[Transaction], Coroutine[Any, Any, Definition]], definition: Definition
    ) -> Definition:
        try:
            return await self._database.unit(work)
        except ConstraintViolated:
            raise DefinitionTaken(definition.name or "") from None

    def _prepare(self, definition: Definition, password: str | None, token: str | None) -> Prepared:
        is_new = not definition.id
        made = replace(definition, id=definition.id or str(uuid.uuid4()))
        if made.name is not None and _NAME.fullmatch(made.name) is None:
            raise DefinitionInvalid("a name has at most 100 letters, digits, spaces, '.', '_' and '-'")
        check_host(made.host)
        check_access(made.username, password or "", token or "", made.ca)
        if is_new:
            password, token = password or "", token or ""
        return Prepared(
            definition=made,
            is_new=is_new,
            password=password and self._vault.seal(password, _purpose(made.id)),
            token=token and self._vault.seal(token, _purpose(made.id)),
        )

    def _open(self, definition: str, *sealed: str | None) -> tuple[str, ...]:
        return tuple(self._vault.open(one, _purpose(definition)) if one else "" for one in sealed)


async def add(tx: Transaction, prepared: Prepared) -> None:
    """In a unit of work: write a new remote. Raises ConstraintViolated: its name is taken."""
    await tx.execute(
        _INSERT,
        id=prepared.id,
        repository=prepared.definition.repository_id,
        namespace=prepared.definition.namespace_id,
        **_parameters(prepared, prepared.password, prepared.token),
    )


async def replace_with(tx: Transaction, prepared: Prepared) -> None:
    """
    In a unit of work: change a remote to what was prepared, but for whose it is.

    Raises DefinitionUnknown; DefinitionInvalid: a secret that was not given again would go to another host, or
    without TLS.
    """
    row = await tx.fetch_one(_LOCK, id=prepared.id)
    if row is None:
        raise DefinitionUnknown(prepared.id)
    before, (password, token) = _definition(row), row[-2:]
    if registry_url(before.host) != registry_url(prepared.definition.host) and (
        (password and prepared.password is None) or (token and prepared.token is None)
    ):
        raise DefinitionInvalid("for another host, the password and the token have to be given again")
    kept = prepared.password is None and bool(password)
    if (kept or prepared.password) and not prepared.definition.username:
        raise DefinitionInvalid("a password belongs to a user name")
    await tx.execute(
        _UPDATE,
        which=prepared.id,
        **_parameters(
            prepared,
            password if prepared.password is None else prepared.password,
            token if prepared.token is None else prepared.token,
        ),
    )


async def drop(tx: Transaction, definition: str) -> None:
    """In a unit of work: remove the remote of a single policy, that goes with it; one with a name stays."""
    await tx.execute(_DROP, which=definition)


def _parameters(prepared: Prepared, password: str | None, token: str | None) -> dict[str, object]:
    made = prepared.definition
    return {
        "name": made.name,
        "host": made.host,
        "username": made.username,
        "password": password or None,
        "token": token or None,
        "ca": made.ca,
        "skip_tls_verification": made.skip_tls_verification,
    }


def _purpose(definition: str) -> str:
    """What the secrets of a remote are sealed for."""
    return f"remote {definition}"


def _counting(namespace: str | None) -> tuple[Statement, dict[str, object]]:
    return (_COUNT_OF_REGISTRY, {}) if namespace is None else (_COUNT_OF_NAMESPACE, {"namespace": namespace})


def _definition(row: Row | None) -> Definition:
    assert row is not None
    (
        made, name, repository, namespace_id, namespace, host, username, ca, skips, created_at, updated_at,
        password, token,
    ) = row  # fmt: skip
    return Definition(
        id=made,
        name=name,
        repository_id=repository,
        namespace_id=namespace_id,
        namespace=namespace,
        host=host,
        username=username,
        ca=ca,
        skip_tls_verification=bool(skips),
        has_password=password is not None,
        has_token=token is not None,
        created_at=created_at,
        updated_at=updated_at,
    )


async def _note(tx: Transaction, kind: EventType, definition: Definition, by: Actor) -> None:
    content = json.dumps({"host": definition.host, "username": definition.username})
    target = None
    if definition.namespace_id is not None:
        target = Object("account", definition.namespace_id, definition.namespace)
    about = definition.as_object("" if kind == "DELETE" else content)
    await record(tx, Event(type=kind, actor=by, object=about, target=target))
