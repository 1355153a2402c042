"""
How accounts stand to repositories.

What `may` decides upon is read here, and what of a list somebody sees (`visibility`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from dtr.accounts.access_tokens import opens
from dtr.accounts.lists import pattern_of
from dtr.accounts.permissions import Facts, Level, Operation, may
from dtr.accounts.visibility import MANAGED, PULLABLE, WHO, asking, bounds, count_statement, page_statement
from dtr.db import Statement, in_list
from dtr.db.schema import (
    accounts,
    blobs,
    namespace_grants,
    namespace_user_grants,
    organization_members,
    repositories,
    repository_blobs,
    repository_grants,
    repository_redirects,
    repository_user_grants,
    team_members,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.accounts.permissions import TokenScope
    from dtr.accounts.visibility import View
    from dtr.db import Database, Row

_HOLDERS_LOOKED_AT = 100
_RENAMES_FOLLOWED = 4
"""A repository may be renamed while it is looked for; so often it is looked for again."""

_me = bindparam("account", type_=Text)
_asker = accounts.alias("asker")
_owner = accounts.alias("owner")


def level_of(column: ColumnElement[str]) -> ColumnElement[int]:
    """The level that a column of labels says, as a number."""
    # Literals: this is asked with every push, and to bind two dozen values would take a tenth of it.
    ranks: dict[Any, Any] = {
        literal_column(f"'{level.label}'"): literal_column(str(int(level))) for level in Level if level
    }
    return case(ranks, value=column, else_=literal_column("0"))


_repository_level = (
    select(func.max(level_of(repository_grants.c.level)))
    .join_from(repository_grants, team_members, repository_grants.c.team_id == team_members.c.team_id)
    .where(repository_grants.c.repository_id == repositories.c.id, team_members.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_own_repository_level = (
    select(level_of(repository_user_grants.c.level))
    .where(
        repository_user_grants.c.repository_id == repositories.c.id,
        repository_user_grants.c.user_id == _asker.c.id,
    )
    .scalar_subquery()
)
_namespace_level = (
    select(func.max(level_of(namespace_grants.c.level)))
    .join_from(namespace_grants, team_members, namespace_grants.c.team_id == team_members.c.team_id)
    .where(namespace_grants.c.namespace_id == _owner.c.id, team_members.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_own_namespace_level = (
    select(level_of(namespace_user_grants.c.level))
    .where(namespace_user_grants.c.namespace_id == _owner.c.id, namespace_user_grants.c.user_id == _asker.c.id)
    .scalar_subquery()
)


def _standings(
    has_path: ColumnElement[bool], has_namespace: ColumnElement[bool], *, remembered: bool = False
) -> Statement:
    """How `account` stands to the repositories and the namespaces that the conditions choose."""
    return Statement(
        select(
            _owner.c.name,
            repositories.c.path,
            repositories.c.id,
            repositories.c.visibility,
            _asker.c.id,
            _asker.c.is_admin,
            _asker.c.is_auditor,
            or_(_owner.c.id == _asker.c.id, func.coalesce(organization_members.c.is_admin, False)),
            organization_members.c.user_id.is_not(None),
            _repository_level,
            _own_repository_level,
            _namespace_level,
            _own_namespace_level,
        )
        .select_from(_owner)
        .outerjoin(
            repositories,
            and_(
                has_path,
                # No index serves this form: the one over paths is to be used, whatever the size of the namespace.
                repositories.c.namespace_id.concat("") == _owner.c.id,
                repositories.c.deleted_at.is_(None),
            ),
        )
        .outerjoin(_asker, and_(_asker.c.id == _me, _asker.c.is_active.is_(True), opens("token")))
        .outerjoin(
            organization_members,
            and_(
                organization_members.c.organization_id == _owner.c.id,
                organization_members.c.user_id == _asker.c.id,
            ),
        )
        .where(has_namespace, _owner.c.kind != "robot"),
        remembered=remembered,
    )


_STANDINGS = _standings(in_list(repositories.c.path, "paths"), in_list(_owner.c.name, "namespaces"))
_STANDING = _standings(
    repositories.c.path == bindparam("path"), _owner.c.name == bindparam("namespace"), remembered=True
)
_NAMES = Statement(  # of what was renamed: names that lead to a repository, and its own
    lambda: (
        select(repository_redirects.c.path, repositories.c.path)
        .join(repositories, repositories.c.id == repository_redirects.c.repository_id)
        .where(in_list(repository_redirects.c.path, "paths"), repositories.c.deleted_at.is_(None))
        .union_all(
            select(repositories.c.path, repositories.c.path).where(
                in_list(repositories.c.path, "paths"),
                repositories.c.deleted_at.is_(None),
                exists().where(repository_redirects.c.repository_id == repositories.c.id),
            )
        )
    )
)
_holders = (
    select(repository_blobs.c.repository_id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(repository_blobs.c.digest == bindparam("digest"), blobs.c.state == "present")
    .limit(_HOLDERS_LOOKED_AT)
    .subquery()
)
_PULLABLE_HOLDER = Statement(
    lambda: (
        select(repositories.c.path, repositories.c.id)
        .join_from(_holders, repositories, repositories.c.id == _holders.c.repository_id)
        .where(repositories.c.deleted_at.is_(None), PULLABLE)
        .limit(1)
    )
)


_namespaces = (
    select(accounts.c.name)
    .where(accounts.c.kind != "robot", accounts.c.folded.like(bindparam("pattern"), escape="\\"))
    .order_by(accounts.c.id != _me, accounts.c.kind, accounts.c.name)
    .limit(bindparam("limit", type_=BigInteger))
)
_ALL_NAMESPACES = Statement(_namespaces)
_MANAGED_NAMESPACES = Statement(lambda: _namespaces.where(accounts.c.id.in_(MANAGED)))


class Standing(Struct, frozen=True):
    """How an account stands to a repository; None: there is no such repository."""

    repository_id: int | None
    facts: Facts
    redirect: Redirect | None = None
    """Which repository was called so before. Whoever may not see it must not be told."""


class Redirect(Struct, frozen=True):
    """What a repository that had another name is called now, and how the account stands to it."""

    path: str
    standing: Standing


class Standings:
    """Answers how somebody stands to something. Whoever shows a token with a `scope` has the rights in both."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, account: str | None, path: str, *, scope: TokenScope | None = None, token: str = ""
    ) -> Standing:
        """
        How an account (None: anonymous) stands to a repository.

        `token` is the id of an access or refresh token by which the account is known: when that opens nothing any
        more, whoever asks is anonymous.
        """
        namespace = path.partition("/")[0]
        row = await self._database.fetch_one(
            _STANDING, account=account or "", token=token, path=path, namespace=namespace
        )
        if row is not None and row[1] is not None:
            return _standing(row, scope)
        return (await self.find_all(account, [path], scope=scope, token=token))[path]

    async def find_all(
        self, account: str | None, paths: Iterable[str], *, scope: TokenScope | None = None, token: str = ""
    ) -> dict[str, Standing]:
        """The same for several, in one query; names that no repository has take one more, or two."""
        wanted = list(paths)
        found, namespaces = await self._look(account, wanted, scope, token)
        redirects: dict[str, Redirect] = {}
        missing = [path for path in wanted if path not in found and "/" in path.removesuffix("/")]
        for _ in range(_RENAMES_FOLLOWED):
            names = dict(map(tuple, await self._database.fetch_all(_NAMES, paths=missing))) if missing else {}
            if not names:
                break
            there, _ = await self._look(account, sorted(set(names.values())), scope, token)
            for path, name in names.items():
                if name == path and name in there:  # it got its name back between two of the queries
                    found[path] = there[name]
                elif name in there:
                    redirects[path] = Redirect(name, there[name])
            missing = [path for path, name in names.items() if name not in there]
        nothing = Facts()
        return {
            path: found.get(path)
            or Standing(
                None,
                replace(
                    namespaces.get(path.partition("/")[0], nothing), actions=scope.on(path) if scope else None
                ),
                redirects.get(path),
            )
            for path in wanted
        }

    async def find_name(self, path: str) -> str | None:
        """
        What the repository is called now that is or was called so; None: it was never renamed, or there is none.

        One small query, which asks for no rights.
        """
        row = await self._database.fetch_one(_NAMES, paths=[path])
        return row[1] if row else None

    async def _look(
        self, account: str | None, paths: list[str], scope: TokenScope | None, token: str
    ) -> tuple[dict[str, Standing], dict[str, Facts]]:
        """How the account stands to the repositories that are there, and to the namespaces."""
        rows = await self._database.fetch_all(
            _STANDINGS,
            account=account or "",
            token=token,
            paths=paths,
            namespaces=sorted({path.partition("/")[0] for path in paths}),
        )
        found = {row[1]: _standing(row, scope) for row in rows if row[1] is not None}
        namespaces = {row[0]: _facts(row) for row in rows}
        return found, namespaces

    async def list_visible(
        self,
        account: str | None,
        *,
        scope: TokenScope | None = None,
        namespace: str | None = None,
        start: str = "",
        after: str = "",
        limit: int,
    ) -> list[tuple[int, str]]:
        """
        At most `limit` repositories that the account may see, ids and paths, by path.

        They begin with the path `start`, or behind the path `after`. `namespace` is the id of the account whose
        repositories are meant; None: all. Takes two queries.
        """
        view = await self.view(account)
        rows = await self._database.fetch_all(
            page_statement(view, in_namespace=namespace is not None),
            namespace=namespace,
            limit=limit,
            **asking(account, scope),
            **bounds(scope, start=start, after=after),
        )
        return [(row[0], row[1]) for row in rows]

    async def count_visible(
        self, account: str | None, *, scope: TokenScope | None = None, namespace: str | None = None
    ) -> int:
        """How many `list_visible` lists in the end. Takes two queries."""
        view = await self.view(account)
        row = await self._database.fetch_one(
            count_statement(view, in_namespace=namespace is not None, scoped=scope is not None),
            namespace=namespace,
            **asking(account, scope),
            **bounds(scope),
        )
        return int(row[0]) if row else 0

    async def list_managed(
        self, account: str, *, contains: str = "", scope: TokenScope | None = None, limit: int
    ) -> list[str]:
        """
        At most `limit` names of namespaces in which the account may make repositories.

        Its own comes first, then organisations, then users. `contains` is a part of their names. Three queries.
        """
        row = await self._database.fetch_one(WHO, account=account)
        if row is None:
            return []
        rows = await self._database.fetch_all(
            _ALL_NAMESPACES if row[0] else _MANAGED_NAMESPACES,
            account=account,
            pattern=pattern_of(contains),
            limit=limit,
        )
        names = [row[0] for row in rows]
        standings = await self.find_all(account, [f"{name}/" for name in names], scope=scope)
        return [name for name in names if may(standings[f"{name}/"].facts, Operation.CREATE_REPOSITORY)]

    async def view(self, account: str | None) -> View:
        """What kind of view somebody has of all the repositories."""
        row = await self._database.fetch_one(WHO, account=account) if account else None
        if row is None:
            return "public"
        return "all" if row[0] or row[1] else "some"

    async def find_pullable_holder(
        self, account: str | None, digest: str, *, scope: TokenScope | None = None
    ) -> tuple[str, int] | None:
        """Path and id of a repository with this blob that the account may pull from, if one is found quickly."""
        row = await self._database.fetch_one(_PULLABLE_HOLDER, digest=digest, **asking(account, scope))
        return (row[0], row[1]) if row else None


@lru_cache(1024)  # a push asks several times, and gets the same row
def _standing(row: Row, scope: TokenScope | None) -> Standing:
    """What a row says of its repository."""
    _, path, repository, visibility, *_ = row
    return Standing(
        repository,
        _facts(
            row,
            repository_level=Level(max(row[9] or 0, row[10] or 0)),
            is_public=visibility == "public",
            actions=scope.on(path) if scope else None,
        ),
    )


def _facts(row: Row, **of_repository: Any) -> Facts:
    """What a row says of its namespace, with what is known `of_repository`."""
    asker, is_admin, is_auditor, owns, is_member, _, _, of_teams, own = row[4:]
    return Facts(
        is_user=asker is not None,
        is_system_admin=bool(is_admin),
        is_auditor=bool(is_auditor),
        owns_namespace=asker is not None and bool(owns),
        is_member=bool(is_member),
        namespace_level=Level(max(of_teams or 0, own or 0)),
        **of_repository,
    )
