"""
Repositories: making, finding, changing, renaming and deleting them. Who may do so is not decided here.

A repository that was renamed is found under its old names, too, as long as nothing else is called so: pulls go on
(`Standings` follows the redirects). It keeps its number, hence its content.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import asdict, replace
from sqlalchemy import (
    BigInteger,
    Boolean,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts import folded
from dtr.db import ConstraintViolated, Statement, in_list, now
from dtr.db.schema import (
    accounts,
    blobs,
    repositories,
    repository_blobs,
    repository_grants,
    repository_redirects,
    repository_user_grants,
    usage_deltas,
)
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.oci import NameInvalid
from dtr.registry import summaries
from dtr.registry._verification import verify_soon
from dtr.registry.errors import (
    InvalidSettings,
    NamespaceUnknown,
    RepositoryChanged,
    RepositoryExists,
    RepositorySigned,
    RepositoryUnknown,
    VisibilityInvalid,
)
from dtr.trust import end
from dtr.trust.index import first_signed, first_signed_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from sqlalchemy import Select

    from dtr.db import Database, Row, Transaction
    from dtr.oci import RepositoryName

Visibility: TypeAlias = Literal["public", "private"]

_MOST_TAGS = 1_000_000
"""As a limit: a push to a repository that has one walks over as many."""
_MOST_PATTERNS = 100
_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9._*?-]{0,127}")
_LONGEST_SHORT, _LONGEST_LONG = 1_000, 500_000
"""Characters of a description."""
_BATCH = 100

_repository = bindparam("repository", type_=BigInteger)
_live = repositories.c.deleted_at.is_(None)
_at_path = (repositories.c.path == bindparam("path"), _live)

_FIND_NAMESPACE = Statement(lambda: select(accounts.c.id).where(accounts.c.name == bindparam("namespace")))
_settings = {
    "visibility": bindparam("visibility"),
    "short_description": bindparam("short_description"),
    "long_description": bindparam("long_description"),
    "folded": bindparam("folded"),
    "scan_on_push": bindparam("scan_on_push", type_=Boolean),
    "immutable_tags": bindparam("immutable_tags", type_=Boolean),
    "immutable_patterns": bindparam("immutable_patterns"),
    "tag_limit": bindparam("tag_limit"),
}
_INSERT = Statement(
    lambda: (
        insert(repositories)
        .values(namespace_id=bindparam("namespace"), path=bindparam("path"), created_at=now(), **_settings)
        .on_conflict_do_nothing(index_elements=["path"], index_where=repositories.c.deleted_at.is_(None))
        .returning(repositories.c.id)
    )
)
_columns = (
    repositories.c.id,
    repositories.c.path,
    repositories.c.created_at,
    repositories.c.visibility,
    repositories.c.short_description,
    repositories.c.long_description,
    repositories.c.scan_on_push,
    repositories.c.immutable_tags,
    repositories.c.immutable_patterns,
    repositories.c.tag_limit,
    accounts.c.kind,
)
_owned = select(*_columns).join_from(repositories, accounts, accounts.c.id == repositories.c.namespace_id)
_FIND = Statement(lambda: _owned.where(*_at_path))
_without_readme = [literal("") if one is repositories.c.long_description else one for one in _columns]
_FIND_MANY = Statement(
    lambda: (
        _owned.with_only_columns(*_without_readme, maintain_column_froms=True)
        .where(in_list(repositories.c.id, "ids"), _live)
        .order_by(repositories.c.path)
    )
)
_LIST = Statement(
    lambda: (
        _owned.where(repositories.c.path > bindparam("after"), _live)
        .order_by(repositories.c.path)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_LOCK = Statement(  # FOR NO KEY UPDATE: pushes go on
    lambda: _owned.where(*_at_path).with_for_update(key_share=True, of=repositories)
)
_UPDATE = Statement(lambda: update(repositories).where(repositories.c.id == _repository).values(**_settings))
_TOGGLE_SCANS = Statement(
    lambda: (
        update(repositories)
        .where(_live, repositories.c.scan_on_push != bindparam("wanted", type_=Boolean))
        .values(scan_on_push=bindparam("scan_on_push", type_=Boolean))
    )
)

# --- renaming -------------------------------------------------------------------------------------------------

_END_REDIRECT = Statement(
    lambda: delete(repository_redirects).where(repository_redirects.c.path == bindparam("path"))
)
_redirect = insert(repository_redirects).values(
    path=bindparam("path"), repository_id=_repository, created_at=now()
)
_REDIRECT = Statement(
    lambda: _redirect.on_conflict_do_update(
        index_elements=["path"], set_={"repository_id": _redirect.excluded.repository_id, "created_at": now()}
    )
)
_LOCK_ITS_BLOBS = Statement(
    lambda: (
        select(blobs.c.digest)
        .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
        .where(repository_blobs.c.repository_id == _repository)
        .order_by(blobs.c.digest)
        .with_for_update(key_share=True, of=blobs)
    )
)
_COUNT_ITS_BLOBS = Statement(
    lambda: (
        select(func.count()).select_from(repository_blobs).where(repository_blobs.c.repository_id == _repository)
    )
)
_LOCK_ALONE = Statement(  # FOR UPDATE: nothing is linked meanwhile
    lambda: select(repositories.c.id).where(*_at_path).with_for_update()
)
_MOVE = Statement(
    lambda: (
        update(repositories)
        .where(repositories.c.id == _repository)
        .values(path=bindparam("new_path"), namespace_id=bindparam("new_namespace"))
    )
)
_END_TEAM_GRANTS = Statement(
    lambda: delete(repository_grants).where(repository_grants.c.repository_id == _repository)
)
_END_ROBOT_GRANTS = Statement(
    lambda: delete(repository_user_grants).where(
        repository_user_grants.c.repository_id == _repository,
        repository_user_grants.c.user_id.in_(select(accounts.c.id).where(accounts.c.kind == "robot")),
    )
)
_other_link, _other = repository_blobs.alias("other_link"), repositories.alias("other")


def _own_bytes(namespace: str, sign: int) -> Select[str, int]:
    """What a namespace (the parameter of this name) has or would have through this repository alone."""
    scope = bindparam(namespace, type_=Text)
    return (
        select(literal("namespace:") + scope, cast(sign * func.sum(blobs.c.size), BigInteger))
        .join_from(repository_blobs, blobs, blobs.c.digest == repository_blobs.c.digest)
        .where(
            repository_blobs.c.repository_id == _repository,
            ~exists()
            .where(
                _other_link.c.digest == repository_blobs.c.digest,
                _other_link.c.repository_id == _other.c.id,
                _other.c.id != _repository,
                _other.c.namespace_id == scope,
            )
            .correlate(repository_blobs),
        )
        .having(func.count() > 0)
    )


_MOVE_USAGE = Statement(
    lambda: insert(usage_deltas).from_select(
        ["scope", "bytes"], union_all(_own_bytes("old_namespace", -1), _own_bytes("new_namespace", 1))
    )
)
_NAMESPACE_OF = Statement(lambda: select(repositories.c.namespace_id).where(repositories.c.id == _repository))

# --- deleting -------------------------------------------------------------------------------------------------

_DELETE = Statement(
    lambda: (
        update(repositories)
        .where(in_list(repositories.c.id, "ids"), _live)
        .values(deleted_at=now())
        .returning(repositories.c.id, repositories.c.path)
    )
)
_END_REDIRECTS_TO = Statement(
    lambda: delete(repository_redirects).where(in_list(repository_redirects.c.repository_id, "ids"))
)
_ID = Statement(lambda: select(repositories.c.id).where(*_at_path))
_SOME_OF_NAMESPACE = Statement(
    lambda: (
        select(repositories.c.id)
        .where(repositories.c.namespace_id == bindparam("namespace"), _live)
        .order_by(repositories.c.id)
        .limit(_BATCH)
    )
)


class Settings(Struct, frozen=True, kw_only=True):
    """
    What the owner of a repository decides. `tag_limit` 0: no limit.

    Tags that a pattern of `immutable_patterns` matches cannot be overwritten, as all with `immutable_tags`; ``*``
    stands for any characters, ``?`` for one. They can be deleted, as in DTR.
    """

    visibility: Visibility = "private"
    short_description: str = ""
    long_description: str = ""
    scan_on_push: bool = False
    immutable_tags: bool = False
    immutable_patterns: tuple[str, ...] = ()
    tag_limit: int = 0

    def check(self) -> None:
        """Raise InvalidSettings for what does not go together."""
        if self.visibility not in {"public", "private"}:
            raise VisibilityInvalid("the visibility is public or private")
        if not 0 <= self.tag_limit <= _MOST_TAGS:
            raise InvalidSettings(f"a tag limit is 0 (none) to {_MOST_TAGS}")
        if self.tag_limit and (self.immutable_tags or self.immutable_patterns):
            raise InvalidSettings("a tag limit needs tags that may go: it cannot be set on immutable tags")
        if len(self.immutable_patterns) > _MOST_PATTERNS:
            raise InvalidSettings(f"there are at most {_MOST_PATTERNS} patterns of immutable tags")
        for pattern in self.immutable_patterns:
            if _PATTERN.fullmatch(pattern) is None:
                raise InvalidSettings(f"{pattern[:200]!r} is no pattern of tags: * is anything, ? one character")
        if len(self.short_description) > _LONGEST_SHORT or len(self.long_description) > _LONGEST_LONG:
            raise InvalidSettings(f"descriptions have at most {_LONGEST_SHORT} and {_LONGEST_LONG} characters")
        if not (_is_text(self.short_description) and _is_text(self.long_description)):
            raise InvalidSettings("descriptions are text: without NUL, and without half a pair of surrogates")


class Repository(Struct, frozen=True):
    """A repository; `created_at` in milliseconds since 1970 UTC."""

    id: int
    path: str
    settings: Settings
    created_at: int
    namespace_kind: Literal["user", "organization"]

    @property
    def namespace(self) -> str:
        """The name of the account that owns it."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """What it is called in its namespace."""
        return self.path.partition("/")[2]


class Repositories:
    """
    All repositories.

    Where a method takes a `number` beside a path, it means that repository alone: another one that has got the
    name since somebody's rights were looked at is RepositoryUnknown.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: RepositoryName,
        settings: Settings,
        *,
        also: Callable[[Transaction, int], Awaitable[None]] | None = None,
        by: Actor = SYSTEM,
    ) -> int:
        """
        Make a repository; its id. The namespace must be there. A redirect from this name ends.

        `also` is done in the same unit of work. Raises NameInvalid, NamespaceUnknown, RepositoryExists,
        InvalidSettings.
        """
        _check_name(name)
        settings.check()

        async def work(tx: Transaction) -> int:
            namespace = await tx.fetch_one(_FIND_NAMESPACE, namespace=name.namespace)
            if namespace is None:
                raise NamespaceUnknown(name.namespace)
            row = await tx.fetch_one(_INSERT, namespace=namespace[0], path=str(name), **_parameters(settings))
            if row is None:
                raise RepositoryExists(name)
            await summaries.add(tx, row[0])
            await tx.execute(_END_REDIRECT, path=str(name))
            await record(tx, _event("CREATE", by, row[0], name, settings.visibility))
            if also is not None:
                await also(tx, row[0])
            return int(row[0])

        return await self._database.unit(work)

    async def get(self, path: str, *, number: int | None = None) -> Repository:
        """The repository at `path`. Raises RepositoryUnknown."""
        row = await self._database.fetch_one(_FIND, path=path)
        if row is None or number not in {None, row[0]}:
            raise RepositoryUnknown(path)
        return _read(row)

    async def get_many(self, ids: Iterable[int]) -> list[Repository]:
        """Those of the repositories that are there, by path, without their long descriptions; one query."""
        return [_read(row) for row in await self._database.fetch_all(_FIND_MANY, ids=list(ids))]

    async def list_repositories(self, *, after: str = "", limit: int) -> list[Repository]:
        """At most `limit` repositories behind the path `after`, by path."""
        return [_read(row) for row in await self._database.fetch_all(_LIST, after=after, limit=limit)]

    async def update(
        self,
        path: str,
        *,
        number: int | None = None,
        expected: Mapping[str, object] | None = None,
        by: Actor = SYSTEM,
        **changes: object,
    ) -> Repository:
        """
        Change some of the settings (the fields of `Settings`).

        `expected` are values that settings have to have before. Raises RepositoryUnknown, InvalidSettings,
        RepositoryChanged.
        """

        async def work(tx: Transaction) -> Repository:
            row = await tx.fetch_one(_LOCK, path=path)
            if row is None or number not in {None, row[0]}:
                raise RepositoryUnknown(path)
            before = _read(row)
            present = {name: getattr(before.settings, name) for name in expected or ()}
            if expected and (others := {name: one for name, one in present.items() if one != expected[name]}):
                raise RepositoryChanged(path, others)
            after = replace(before, settings=replace(before.settings, **changes))
            after.settings.check()
            if after != before:
                await tx.execute(_UPDATE, repository=after.id, **_parameters(after.settings))
                await summaries.change(tx, after.id, after.settings.visibility)
                await record(tx, _event("UPDATE", by, after.id, path, _difference(before, after)))
            return after

        return await self._database.unit(work)

    async def set_scan_on_push(self, scan_on_push: bool, *, by: Actor = SYSTEM) -> None:
        """Let images of all repositories be scanned when they are pushed, or no longer."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_TOGGLE_SCANS, wanted=scan_on_push, scan_on_push=scan_on_push)
            content = json.dumps({"scan_on_push": scan_on_push})
            await record(tx, Event(type="UPDATE", actor=by, object=Object("repository", "", "*", content)))

        await self._database.unit(work)

    async def rename(
        self, path: str, name: RepositoryName, *, number: int | None = None, by: Actor = SYSTEM
    ) -> Repository:
        """
        Give a repository another name, maybe in another namespace; what it is then.

        Its old name leads to it until another repository takes it. In another namespace, what teams and robots
        of the old one were granted on it ends; what single users were granted stays. Raises NameInvalid,
        RepositoryUnknown, NamespaceUnknown, RepositoryExists.
        """
        _check_name(name)
        if name == path:
            return await self.get(path, number=number)

        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one(_ID, path=path)
            if row is None or number not in {None, row[0]}:
                raise RepositoryUnknown(path)
            repository = row[0]
            namespace = await tx.fetch_one(_FIND_NAMESPACE, namespace=name.namespace)
            if namespace is None:
                raise NamespaceUnknown(name.namespace)
            leaves = name.namespace != path.partition("/")[0]
            # Blobs are locked before the repository, as those who link one do. Whoever holds the locks of all
            # decides alone whether other repositories of a namespace have them, too.
            held = await tx.fetch_all(_LOCK_ITS_BLOBS, repository=repository) if leaves else []
            locked = await tx.fetch_one(_LOCK_ALONE, path=path)
            if locked is None or locked[0] != repository:
                raise RepositoryUnknown(path)
            if await tx.fetch_one(_ID, path=str(name)):
                raise RepositoryExists(name)
            if leaves:
                linked = await tx.fetch_one(_COUNT_ITS_BLOBS, repository=repository)
                if linked is None or linked[0] != len(held):
                    return False  # one came before the lock
                old = await tx.fetch_one(_NAMESPACE_OF, repository=repository)
                assert old is not None
                await tx.execute(
                    _MOVE_USAGE, repository=repository, old_namespace=old[0], new_namespace=namespace[0]
                )
                await tx.execute(_END_TEAM_GRANTS, repository=repository)
                await tx.execute(_END_ROBOT_GRANTS, repository=repository)
            await tx.execute(_MOVE, repository=repository, new_path=str(name), new_namespace=namespace[0])
            await summaries.move(tx, repository, str(name), namespace[0])
            await tx.execute(_END_REDIRECT, path=str(name))
            await tx.execute(_REDIRECT, path=path, repository=repository)
            if leaves:  # there, the signatures of others count
                await verify_soon(tx, repository)
            await record(tx, _event("UPDATE", by, repository, path, "", new_path=name))
            return True

        try:
            while not await self._database.unit(work):
                pass
        except ConstraintViolated:  # somebody took the name meanwhile
            raise RepositoryExists(name) from None
        return await self.get(name)

    async def delete(self, path: str, *, number: int | None = None, by: Actor = SYSTEM) -> None:
        """
        Delete a repository. Its name is free at once, its content is collected later.

        Raises RepositoryUnknown, RepositorySigned.
        """

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_ID, path=path)
            if row is None or number not in {None, row[0]} or not await _delete(tx, [row[0]], by):
                raise RepositoryUnknown(path)

        await self._database.unit(work)

    async def delete_all(self, namespace: str, *, by: Actor = SYSTEM) -> int:
        """
        Delete the repositories of an account, by its id; how many. Each goes with its event, or stays.

        Raises RepositorySigned, and deletes none when one of them is signed already.
        """

        async def look(tx: Transaction) -> None:
            signed = await first_signed_of(tx, namespace)
            if signed is not None:
                raise RepositorySigned(signed)

        async def work(tx: Transaction) -> int:
            rows = await tx.fetch_all(_SOME_OF_NAMESPACE, namespace=namespace)
            return await _delete(tx, [row[0] for row in rows], by) if rows else 0

        await self._database.unit(look)
        total = 0
        while done := await self._database.unit(work):
            total += done
        return total


def immutable_pattern(patterns: Iterable[str], tag: str) -> str | None:
    """The pattern, if there is one, because of which a tag cannot be overwritten."""
    return next((pattern for pattern in patterns if fnmatchcase(tag, pattern)), None)


def read_patterns(text: str) -> tuple[str, ...]:
    """The patterns of the column `immutable_patterns`."""
    return () if text == "[]" else tuple(json.loads(text))


async def _delete(tx: Transaction, ids: list[int], by: Actor) -> int:
    """
    Mark repositories as deleted; how many.

    Whoever publishes signatures shares the row, which is changed here before the look for them. Raises
    RepositorySigned.
    """
    gone = await tx.fetch_all(_DELETE, ids=ids)
    signed = await first_signed(tx, [row[0] for row in gone])
    if signed is not None:
        raise RepositorySigned(next(path for number, path in gone if number == signed))
    await end(tx, [row[0] for row in gone], by)  # collections without tags, or whose tags are forgotten
    await tx.execute(_END_REDIRECTS_TO, ids=[row[0] for row in gone])
    await summaries.remove(tx, [row[0] for row in gone])
    await record(tx, *(_event("DELETE", by, number, path, "") for number, path in gone))
    return len(gone)


def _event(
    kind: Literal["CREATE", "UPDATE", "DELETE"],
    by: Actor,
    repository: int,
    path: str,
    content: str,
    *,
    new_path: str | None = None,
) -> Event:
    number = str(repository)
    return Event(
        type=kind,
        actor=by,
        object=Object("repository", number, path, content),
        target=Object("repository", number, new_path) if new_path else None,
        repository=path,
        repository_id=repository,
    )


def _difference(before: Repository, after: Repository) -> str:
    """The settings that changed, as JSON; of descriptions only that they did."""
    old, new = asdict(before.settings), asdict(after.settings)
    return json.dumps(
        {name: None if name.endswith("_description") else new[name] for name in new if new[name] != old[name]}
    )


def _check_name(name: RepositoryName) -> None:
    if not name.rest:
        raise NameInvalid(name, "a repository is in a namespace: <namespace>/<name>")


def _is_text(text: str) -> bool:
    """Whether both databases can hold it."""
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _parameters(settings: Settings) -> dict[str, object]:
    patterns = json.dumps(settings.immutable_patterns)
    return asdict(settings) | {"immutable_patterns": patterns, "folded": folded(settings.short_description)}


def _read(row: Row) -> Repository:
    number, path, created_at, visibility, short, long, scan_on_push, immutable, patterns, tag_limit, kind = row
    return Repository(
        number,
        path,
        Settings(
            visibility=visibility,
            short_description=short,
            long_description=long,
            scan_on_push=bool(scan_on_push),
            immutable_tags=bool(immutable),
            immutable_patterns=read_patterns(patterns),
            tag_limit=tag_limit,
        ),
        created_at,
        kind,
    )
