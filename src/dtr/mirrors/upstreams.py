"""
Upstreams: which repositories are caches, and of what.

A repository, or a whole namespace, may have an upstream: a repository of another registry, or a part of that. What
is asked for and is not here is fetched from there (`cache`). A name in such a namespace that no repository has
becomes one when the upstream has it; a repository that somebody made there is an ordinary one.

Each process keeps in memory which repositories and namespaces are concerned, so that a request for an ordinary one
costs nothing, and follows their revision (`dtr.db.revisions`).
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Integer, Text, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.revisions import Revision
from dtr.db.schema import (
    accounts,
    cached_repositories,
    cached_tags,
    manifests,
    remotes,
    repositories,
    tags,
    upstreams,
)
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.mirrors.errors import UpstreamInvalid, UpstreamUnknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.registry.repositories import Visibility

_log = logging.getLogger("dtr.cache")

_LONGEST_PATH = 255
_MOST_PATTERNS = 100
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9._*?-]{0,127}")
_PATH = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
_LONGEST_TIME = 10 * 365 * 86_400_000

_repository = bindparam("repository", type_=BigInteger)
_namespace = bindparam("namespace", type_=Text)
_columns = (
    upstreams.c.id,
    upstreams.c.repository_id,
    upstreams.c.namespace_id,
    upstreams.c.remote_id,
    upstreams.c.remote_path,
    upstreams.c.tag_patterns,
    upstreams.c.visibility,
    upstreams.c.max_age,
    upstreams.c.keep_for,
)
_of = select(*_columns)
_OF_REPOSITORY = Statement(lambda: _of.where(upstreams.c.repository_id == _repository))
_OF_NAMESPACE = Statement(lambda: _of.where(upstreams.c.namespace_id == _namespace))
_SOURCE_OF_REPOSITORY = Statement(
    lambda: (
        select(*_columns, cached_repositories.c.remote_path)
        .join_from(cached_repositories, upstreams, upstreams.c.id == cached_repositories.c.upstream_id)
        .join(repositories, repositories.c.id == cached_repositories.c.repository_id)
        .where(cached_repositories.c.repository_id == _repository, repositories.c.deleted_at.is_(None))
    )
)
_SOURCE_OF_NAMESPACE = Statement(
    lambda: (
        select(*_columns)
        .join_from(upstreams, accounts, accounts.c.id == upstreams.c.namespace_id)
        .where(accounts.c.name == bindparam("name"))
    )
)
_settings = {
    "remote_id": bindparam("remote"),
    "remote_path": bindparam("remote_path"),
    "tag_patterns": bindparam("tag_patterns"),
    "visibility": bindparam("visibility"),
    "max_age": bindparam("max_age", type_=BigInteger),
    "keep_for": bindparam("keep_for", type_=BigInteger),
}
_INSERT = Statement(
    lambda: insert(upstreams).values(
        id=bindparam("id"), repository_id=_repository, namespace_id=_namespace, created_at=now(), **_settings
    )
)
_UPDATE = Statement(lambda: update(upstreams).where(upstreams.c.id == bindparam("which")).values(**_settings))
_DELETE = Statement(lambda: delete(upstreams).where(upstreams.c.id == bindparam("which")))
_LOCK_REPOSITORY = Statement(  # pushes wait, so that it is known whether it is empty
    lambda: (
        select(repositories.c.path)
        .where(repositories.c.id == _repository, repositories.c.deleted_at.is_(None))
        .with_for_update()
    )
)
_HAS_CONTENT = Statement(
    lambda: select(repositories.c.id).where(
        repositories.c.id == _repository,
        or_(
            exists().where(tags.c.repository_id == repositories.c.id),
            exists().where(manifests.c.repository_id == repositories.c.id),
        ),
    )
)
_WAS_CACHE = Statement(
    lambda: select(cached_repositories.c.repository_id).where(cached_repositories.c.repository_id == _repository)
)
_cached = insert(cached_repositories).values(
    repository_id=_repository, upstream_id=bindparam("upstream"), remote_path=bindparam("remote_path")
)
_FILL = Statement(
    lambda: _cached.on_conflict_do_update(
        index_elements=["repository_id"],
        set_={"upstream_id": _cached.excluded.upstream_id, "remote_path": _cached.excluded.remote_path},
    )
)
_MOVE = Statement(  # what the namespace's repositories are called at the remote: another beginning
    lambda: (
        update(cached_repositories)
        .where(cached_repositories.c.upstream_id == bindparam("upstream"))
        .values(
            remote_path=bindparam("prefix", type_=Text).concat(
                func.substr(cached_repositories.c.remote_path, bindparam("rest", type_=Integer))
            )
        )
    )
)
_CHECK_AGAIN = Statement(
    lambda: (
        update(cached_tags)
        .where(
            exists().where(
                cached_repositories.c.repository_id == cached_tags.c.repository_id,
                cached_repositories.c.upstream_id == bindparam("upstream"),
            )
        )
        .values(checked_at=0)
    )
)
_HAS_REMOTE = Statement(lambda: select(remotes.c.id).where(remotes.c.id == bindparam("remote")))
_ALL_NAMESPACES = Statement(
    lambda: select(accounts.c.name, upstreams.c.visibility).join_from(
        upstreams, accounts, accounts.c.id == upstreams.c.namespace_id
    )
)
_ALL_REPOSITORIES = Statement(
    lambda: select(cached_repositories.c.repository_id).where(cached_repositories.c.upstream_id.is_not(None))
)


class Upstream(Struct, frozen=True, kw_only=True):
    """
    What a repository (its id) or a namespace (the id of its account) is filled from. Times in milliseconds.

    `remote_path` is a repository at the remote; of a namespace it stands before the names that are asked for, and
    may be empty.
    """

    id: str = ""
    repository: int | None = None
    namespace: str | None = None
    remote: str
    """Id of the stored remote."""
    remote_path: str = ""
    tag_patterns: tuple[str, ...] = ()
    """Tags that are fetched, ``*`` and ``?`` stand for characters; without any, all."""
    visibility: Visibility = "private"
    """Of repositories that come to be in the namespace."""
    max_age: int = 3_600_000
    """So long a tag is believed before the upstream is asked for it again."""
    keep_for: int | None = 30 * 86_400_000
    """A tag that was not pulled for so long goes; None: none does."""

    @property
    def actor(self) -> Actor:
        """The upstream as the one who pushes, and deletes."""
        return Actor("policy", self.id, "cache")

    def check(self) -> None:
        """Raise UpstreamInvalid for what no upstream can be."""
        path = self.remote_path
        if len(path) > _LONGEST_PATH or not (
            _PATH.fullmatch(path) if self.namespace is None else not path or _PATH.fullmatch(path)
        ):
            raise UpstreamInvalid("remoteRepository is no name of a repository")
        if self.visibility not in {"public", "private"}:
            raise UpstreamInvalid("visibility is public or private")
        if not 0 <= self.max_age <= _LONGEST_TIME or not 0 < (self.keep_for or 1) <= _LONGEST_TIME:
            raise UpstreamInvalid("times are ten years at most")
        if len(self.tag_patterns) > _MOST_PATTERNS:
            raise UpstreamInvalid(f"there are at most {_MOST_PATTERNS} patterns of tags")
        for pattern in self.tag_patterns:
            if _PATTERN.fullmatch(pattern) is None:
                raise UpstreamInvalid(f"{pattern[:200]!r} is no pattern of tags: * is anything, ? one character")

    def fetches(self, tag: str) -> bool:
        """Whether a tag of this name is fetched."""
        return not self.tag_patterns or any(fnmatchcase(tag, one) for one in self.tag_patterns)

    @property
    def prefix(self) -> str:
        """What stands before the names of the namespace at the remote."""
        return f"{self.remote_path}/" if self.remote_path else ""


class Source(Struct, frozen=True):
    """Where a repository is filled from: `path` is that of a repository at the upstream's remote."""

    upstream: Upstream
    path: str


class Upstreams:
    """The upstreams of all repositories and namespaces. Who may make them is not decided here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revision = Revision(database, "upstreams", self._read)
        self._namespaces: Mapping[str, Visibility] = {}
        self._repositories: frozenset[int] = frozenset()

    # --- what is asked with every request ---

    def concerns(self, path: str, repository: int | None) -> bool:
        """
        Whether the repository at `path` may be a cache; None: its number is not known, or there is none.

        False is certain, but for what changed within the last second in another process: who would refuse
        something for it looks again (`refresh`).
        """
        if repository is None and self._repositories:
            return True
        return repository in self._repositories or path.partition("/")[0] in self._namespaces

    def visibility_in(self, namespace: str) -> Visibility | None:
        """Of repositories that come to be in the namespace; None: it has no upstream."""
        return self._namespaces.get(namespace)

    async def refresh(self) -> None:
        """Read what is kept in memory, when it is not known yet. Raises DatabaseError."""
        await self._revision.refresh()

    async def _read(self) -> None:
        namespaces = dict(map(tuple, await self._database.fetch_all(_ALL_NAMESPACES)))
        numbers = frozenset(row[0] for row in await self._database.fetch_all(_ALL_REPOSITORIES))
        self._namespaces, self._repositories = namespaces, numbers

    async def keep_fresh(self) -> None:
        """Follow the changes of other processes, until cancelled."""
        await self._revision.follow(lambda error: _log.warning("upstreams not read", extra={"reason": str(error)}))

    # --- for the cache ---

    async def source_of(self, repository: int) -> Source | None:
        """Where a repository is filled from; None: it is no cache."""
        row = await self._database.fetch_one(_SOURCE_OF_REPOSITORY, repository=repository)
        return None if row is None else Source(_upstream(row[:-1]), row[-1])

    async def source_for(self, path: str) -> Source | None:
        """Where a repository that is not there would be filled from; None: there is no upstream for it."""
        namespace, _, name = path.partition("/")
        row = await self._database.fetch_one(_SOURCE_OF_NAMESPACE, name=namespace)
        if row is None:
            return None
        upstream = _upstream(row)
        return Source(upstream, upstream.prefix + name)

    async def fill(self, tx: Transaction, repository: int, source: Source) -> None:
        """In a unit of work: let a new repository be filled from there."""
        await tx.execute(_FILL, repository=repository, upstream=source.upstream.id, remote_path=source.path)
        await self._revision.count_up(tx)

    # --- managing them ---

    async def of_repository(self, repository: int) -> Upstream:
        """The upstream that a repository has itself. Raises UpstreamUnknown."""
        return await self._get(_OF_REPOSITORY, repository=repository)

    async def of_namespace(self, namespace: str) -> Upstream:
        """The upstream of a namespace (the id of its account). Raises UpstreamUnknown."""
        return await self._get(_OF_NAMESPACE, namespace=namespace)

    async def put(self, upstream: Upstream, *, by: Actor = SYSTEM) -> Upstream:
        """
        Let the repository or namespace have this upstream; its id is that of the one before, if there was one.

        Tags that were fetched are checked again. Raises UpstreamInvalid, also for a repository that has images of
        its own.
        """
        upstream.check()

        async def work(tx: Transaction) -> Upstream:
            if await tx.fetch_one(_HAS_REMOTE, remote=upstream.remote) is None:
                raise UpstreamInvalid("there is no such remote")
            repository = upstream.repository
            if repository is not None:
                if await tx.fetch_one(_LOCK_REPOSITORY, repository=repository) is None:
                    raise UpstreamInvalid("there is no such repository")
                was_cache = await tx.fetch_one(_WAS_CACHE, repository=repository)
                if was_cache is None and await tx.fetch_one(_HAS_CONTENT, repository=repository) is not None:
                    raise UpstreamInvalid("the repository has images of its own")
                before = await tx.fetch_one(_OF_REPOSITORY, repository=repository)
            else:
                before = await tx.fetch_one(_OF_NAMESPACE, namespace=upstream.namespace)
            parameters = {
                "remote": upstream.remote,
                "remote_path": upstream.remote_path,
                "tag_patterns": json.dumps(upstream.tag_patterns),
                "visibility": upstream.visibility,
                "max_age": upstream.max_age,
                "keep_for": upstream.keep_for,
            }
            made = replace(upstream, id=before[0] if before else str(uuid.uuid4()))
            if before is None:
                await tx.execute(
                    _INSERT, id=made.id, repository=repository, namespace=made.namespace, **parameters
                )
            else:
                await tx.execute(_UPDATE, which=made.id, **parameters)
                await tx.execute(_CHECK_AGAIN, upstream=made.id)
                if repository is None:
                    rest = len(_upstream(before).prefix) + 1
                    await tx.execute(_MOVE, upstream=made.id, prefix=made.prefix, rest=rest)
            if repository is not None:
                await tx.execute(_FILL, repository=repository, upstream=made.id, remote_path=made.remote_path)
            await self._revision.count_up(tx)
            await record(tx, _event("UPDATE" if before else "CREATE", made, by))
            return made

        made = await self._database.unit(work)
        await self.refresh()
        return made

    async def delete(self, upstream: Upstream, *, by: Actor = SYSTEM) -> None:
        """
        Remove an upstream. What was fetched stays: the repositories are ordinary ones from then on.

        Raises UpstreamUnknown.
        """

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_DELETE, which=upstream.id):
                raise UpstreamUnknown(upstream.id)
            await self._revision.count_up(tx)
            await record(tx, _event("DELETE", upstream, by))

        await self._database.unit(work)
        await self.refresh()

    async def _get(self, statement: Statement, **parameters: object) -> Upstream:
        row = await self._database.fetch_one(statement, **parameters)
        if row is None:
            raise UpstreamUnknown
        return _upstream(row)


def _event(kind: Literal["CREATE", "UPDATE", "DELETE"], upstream: Upstream, by: Actor) -> Event:
    content = "" if kind == "DELETE" else json.dumps({"remote": upstream.remote, "path": upstream.remote_path})
    return Event(
        type=kind,
        actor=by,
        object=Object("upstream", upstream.id, upstream.remote_path, content),
        target=None if upstream.namespace is None else Object("account", upstream.namespace),
        repository_id=upstream.repository,
    )


def _upstream(row: Row) -> Upstream:
    number, repository, namespace, remote, path, patterns, visibility, max_age, keep_for = row
    return Upstream(
        id=number,
        repository=repository,
        namespace=namespace,
        remote=remote,
        remote_path=path,
        tag_patterns=tuple(json.loads(patterns)),
        visibility=visibility,
        max_age=max_age,
        keep_for=keep_for,
    )
