"""Repositories: making, finding, changing and deleting them. Who may do so is not decided here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from sqlalchemy import BigInteger, Boolean, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import accounts, repositories
from dtr.oci import NameInvalid
from dtr.registry.errors import InvalidSettings, NamespaceUnknown, RepositoryExists, RepositoryUnknown

if TYPE_CHECKING:
    from dtr.db import Database, Row, Transaction
    from dtr.oci import RepositoryName

Visibility: TypeAlias = Literal["public", "private"]

_MOST_TAGS = 1_000_000
"""As a limit: a push to a repository that has one walks over as many."""

_FIND_NAMESPACE = Statement(select(accounts.c.id).where(accounts.c.name == bindparam("namespace")))
_INSERT = Statement(
    insert(repositories)
    .values(
        namespace_id=bindparam("namespace"),
        path=bindparam("path"),
        visibility=bindparam("visibility"),
        short_description=bindparam("short_description"),
        long_description=bindparam("long_description"),
        scan_on_push=bindparam("scan_on_push", type_=Boolean),
        immutable_tags=bindparam("immutable_tags", type_=Boolean),
        tag_limit=bindparam("tag_limit"),
        created_at=now(),
    )
    .on_conflict_do_nothing(index_elements=["path"], index_where=repositories.c.deleted_at.is_(None))
    .returning(repositories.c.id)
)
_columns = (
    repositories.c.id,
    repositories.c.path,
    repositories.c.visibility,
    repositories.c.short_description,
    repositories.c.long_description,
    repositories.c.scan_on_push,
    repositories.c.immutable_tags,
    repositories.c.tag_limit,
)
_FIND = Statement(
    select(*_columns).where(repositories.c.path == bindparam("path"), repositories.c.deleted_at.is_(None))
)
_LIST = Statement(
    select(*_columns)
    .where(repositories.c.path > bindparam("after"), repositories.c.deleted_at.is_(None))
    .order_by(repositories.c.path)
    .limit(bindparam("limit", type_=BigInteger))
)
_LOCK = Statement(
    select(*_columns)
    .where(repositories.c.path == bindparam("path"), repositories.c.deleted_at.is_(None))
    .with_for_update(key_share=True)  # FOR NO KEY UPDATE: pushes go on
)
_UPDATE = Statement(
    update(repositories)
    .where(repositories.c.id == bindparam("repository"))
    .values(
        visibility=bindparam("visibility"),
        short_description=bindparam("short_description"),
        long_description=bindparam("long_description"),
        scan_on_push=bindparam("scan_on_push", type_=Boolean),
        immutable_tags=bindparam("immutable_tags", type_=Boolean),
        tag_limit=bindparam("tag_limit"),
    )
)
_DELETE = Statement(
    update(repositories)
    .where(repositories.c.path == bindparam("which"), repositories.c.deleted_at.is_(None))
    .values(deleted_at=now())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the owner of a repository decides. `tag_limit` 0: no limit."""

    visibility: Visibility = "private"
    short_description: str = ""
    long_description: str = ""
    scan_on_push: bool = False
    immutable_tags: bool = False
    tag_limit: int = 0

    def check(self) -> None:
        """Raise InvalidSettings for what does not go together."""
        if self.visibility not in {"public", "private"}:
            raise InvalidSettings("the visibility is public or private")
        if not 0 <= self.tag_limit <= _MOST_TAGS:
            raise InvalidSettings(f"a tag limit is 0 (none) to {_MOST_TAGS}")
        if self.tag_limit and self.immutable_tags:
            raise InvalidSettings("a tag limit needs tags that may go: it cannot be set on immutable tags")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository."""

    id: int
    path: str
    settings: Settings


class Repositories:
    """All repositories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: RepositoryName, settings: Settings) -> int:
        """
        Make a repository; its id. The namespace must be there.

        Raises NameInvalid, NamespaceUnknown, RepositoryExists, InvalidSettings.
        """
        if not name.rest:
            raise NameInvalid(name, "a repository is in a namespace: <namespace>/<name>")
        settings.check()

        async def work(tx: Transaction) -> int:
            namespace = await tx.fetch_one(_FIND_NAMESPACE, namespace=name.namespace)
            if namespace is None:
                raise NamespaceUnknown(name.namespace)
            row = await tx.fetch_one(_INSERT, namespace=namespace[0], path=str(name), **_parameters(settings))
            if row is None:
                raise RepositoryExists(name)
            return int(row[0])

        return await self._database.unit(work)

    async def get(self, path: str) -> Repository:
        """The repository at `path`. Raises RepositoryUnknown."""
        row = await self._database.fetch_one(_FIND, path=path)
        if row is None:
            raise RepositoryUnknown(path)
        return _repository(row)

    async def list_repositories(self, *, after: str = "", limit: int) -> list[Repository]:
        """At most `limit` repositories behind the path `after`, by path."""
        return [_repository(row) for row in await self._database.fetch_all(_LIST, after=after, limit=limit)]

    async def update(self, path: str, **changes: object) -> Repository:
        """Change some of the settings (the fields of `Settings`). Raises RepositoryUnknown, InvalidSettings."""

        async def work(tx: Transaction) -> Repository:
            row = await tx.fetch_one(_LOCK, path=path)
            if row is None:
                raise RepositoryUnknown(path)
            before = _repository(row)
            after = replace(before, settings=replace(before.settings, **changes))  # type: ignore[arg-type]  # names checked by dataclass
            after.settings.check()
            await tx.execute(_UPDATE, repository=after.id, **_parameters(after.settings))
            return after

        return await self._database.unit(work)

    async def delete(self, path: str) -> None:
        """
        Delete a repository. Its name is free at once, its content is collected later.

        Raises RepositoryUnknown.
        """

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_DELETE, which=path):
                raise RepositoryUnknown(path)

        await self._database.unit(work)


def _parameters(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def _repository(row: Row) -> Repository:
    number, path, visibility, short, long, scan_on_push, immutable_tags, tag_limit = row
    return Repository(
        number,
        path,
        Settings(
            visibility=visibility,
            short_description=short,
            long_description=long,
            scan_on_push=bool(scan_on_push),
            immutable_tags=bool(immutable_tags),
            tag_limit=tag_limit,
        ),
    )
