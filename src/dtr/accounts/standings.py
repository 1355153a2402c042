"""
How accounts stand to repositories.

What `may` decides upon is read here, and what of a list somebody sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Text, and_, bindparam, case, exists, func, or_, select

from dtr.accounts.permissions import Action, Facts, Level
from dtr.db import Statement, each, in_list
from dtr.db.schema import (
    accounts,
    blobs,
    namespace_grants,
    namespace_user_grants,
    organization_members,
    repositories,
    repository_blobs,
    repository_grants,
    repository_user_grants,
    team_members,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.accounts.permissions import TokenScope
    from dtr.db import Database

_HOLDERS_LOOKED_AT = 100

_me = bindparam("account", type_=Text)
_asker = accounts.alias("asker")
_owner = accounts.alias("owner")


def _level(column: ColumnElement[str]) -> ColumnElement[int]:
    return case({level.label: int(level) for level in Level if level}, value=column, else_=0)


_repository_level = (
    select(func.max(_level(repository_grants.c.level)))
    .join_from(repository_grants, team_members, repository_grants.c.team_id == team_members.c.team_id)
    .where(repository_grants.c.repository_id == repositories.c.id, team_members.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_own_repository_level = (
    select(_level(repository_user_grants.c.level))
    .where(
        repository_user_grants.c.repository_id == repositories.c.id,
        repository_user_grants.c.user_id == _asker.c.id,
    )
    .scalar_subquery()
)
_namespace_level = (
    select(func.max(_level(namespace_grants.c.level)))
    .join_from(namespace_grants, team_members, namespace_grants.c.team_id == team_members.c.team_id)
    .where(namespace_grants.c.namespace_id == _owner.c.id, team_members.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_own_namespace_level = (
    select(_level(namespace_user_grants.c.level))
    .where(namespace_user_grants.c.namespace_id == _owner.c.id, namespace_user_grants.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_STANDINGS = Statement(
    select(
        _owner.c.name,
        repositories.c.path,
        repositories.c.id,
        repositories.c.visibility,
        _asker.c.id,
        _asker.c.is_admin,
        _asker.c.is_auditor,
        or_(_owner.c.id == _asker.c.id, func.coalesce(organization_members.c.is_admin, False)),
        _repository_level,
        _own_repository_level,
        _namespace_level,
        _own_namespace_level,
    )
    .select_from(_owner)
    .outerjoin(
        repositories,
        and_(
            in_list(repositories.c.path, "paths"),
            # No index serves this form: the one over paths is to be used, whatever the size of the namespace.
            repositories.c.namespace_id.concat("") == _owner.c.id,
            repositories.c.deleted_at.is_(None),
        ),
    )
    .outerjoin(_asker, and_(_asker.c.id == _me, _asker.c.is_active.is_(True)))
    .outerjoin(
        organization_members,
        and_(
            organization_members.c.organization_id == _owner.c.id,
            organization_members.c.user_id == _asker.c.id,
        ),
    )
    .where(in_list(_owner.c.name, "namespaces"))
)

# --- lists ----------------------------------------------------------------------------------------------------

_prefixes = each("scope_prefixes")
_begins = func.substr(repositories.c.path, 1, func.length(_prefixes.c.value)) == _prefixes.c.value
_WAYS_OF_ACCESS: tuple[tuple[ColumnElement[bool], ...], ...] = (
    (
        organization_members.c.organization_id == repositories.c.namespace_id,
        organization_members.c.user_id == _asker.c.id,
        organization_members.c.is_admin.is_(True),
    ),
    (
        repository_grants.c.repository_id == repositories.c.id,
        repository_grants.c.team_id == team_members.c.team_id,
        team_members.c.user_id == _asker.c.id,
    ),
    (
        namespace_grants.c.namespace_id == repositories.c.namespace_id,
        namespace_grants.c.team_id == team_members.c.team_id,
        team_members.c.user_id == _asker.c.id,
    ),
    (
        repository_user_grants.c.repository_id == repositories.c.id,
        repository_user_grants.c.user_id == _asker.c.id,
    ),
    (
        namespace_user_grants.c.namespace_id == repositories.c.namespace_id,
        namespace_user_grants.c.user_id == _asker.c.id,
    ),
)


def _readable(*, by_auditors: bool) -> ColumnElement[bool]:
    """
    The rule of `may` for lists, as a condition on `repositories`: who may see, or (not `by_auditors`) pull.

    A test holds the two together. What is inside of a subquery is correlated by name: SQLAlchemy itself looks at
    the next enclosing query only.
    """
    in_scope = or_(
        bindparam("unscoped", type_=Boolean),
        in_list(repositories.c.path, "scope_paths"),
        exists(select(1).select_from(_prefixes).where(_begins).correlate(repositories)),
    )
    everywhere = (_asker.c.is_admin, _asker.c.is_auditor) if by_auditors else (_asker.c.is_admin,)
    return or_(
        repositories.c.visibility == "public",
        and_(
            in_scope,
            exists().where(
                _asker.c.id == _me,
                _asker.c.is_active.is_(True),
                or_(
                    *(column.is_(True) for column in everywhere),
                    repositories.c.namespace_id == _asker.c.id,
                    *(
                        exists().where(*conditions).correlate(repositories, _asker)
                        for conditions in _WAYS_OF_ACCESS
                    ),
                ),
            ),
        ),
    )


VISIBLE = _readable(by_auditors=True)
"""A condition on `repositories`, for statements with the parameters of `asking`."""
_PULLABLE = _readable(by_auditors=False)


def asking(account: str | None, scope: TokenScope | None = None) -> dict[str, Any]:
    """The parameters of `VISIBLE`: an account's id (None: anonymous), and what the token it showed is good for."""
    reads = scope is not None and Action.PULL in scope.actions
    return {
        "account": account or "",
        "unscoped": scope is None,
        "scope_paths": scope.paths if scope and reads else [],
        "scope_prefixes": scope.prefixes if scope and reads else [],
    }


_of_namespace = repositories.c.namespace_id == bindparam("namespace", type_=Text)
_visible_page = (
    select(repositories.c.id, repositories.c.path)
    .where(repositories.c.path > bindparam("after"), repositories.c.deleted_at.is_(None), VISIBLE)
    .order_by(repositories.c.path)
    .limit(bindparam("limit", type_=BigInteger))
)
_visible_count = select(func.count(repositories.c.id)).where(repositories.c.deleted_at.is_(None), VISIBLE)
_LIST_VISIBLE = Statement(_visible_page)
_LIST_VISIBLE_IN_NAMESPACE = Statement(_visible_page.where(_of_namespace))
_COUNT_VISIBLE = Statement(_visible_count)
_COUNT_VISIBLE_IN_NAMESPACE = Statement(_visible_count.where(_of_namespace))
_holders = (
    select(repository_blobs.c.repository_id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(repository_blobs.c.digest == bindparam("digest"), blobs.c.state == "present")
    .limit(_HOLDERS_LOOKED_AT)
    .subquery()
)
_PULLABLE_HOLDER = Statement(
    select(repositories.c.path)
    .join_from(_holders, repositories, repositories.c.id == _holders.c.repository_id)
    .where(repositories.c.deleted_at.is_(None), _PULLABLE)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands to a repository; None: there is no such repository."""

    repository_id: int | None
    facts: Facts


class Standings:
    """Answers how somebody stands to something. Whoever shows a token with a `scope` has the rights in both."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, account: str | None, path: str, *, scope: TokenScope | None = None) -> Standing:
        """How an account (None: anonymous) stands to a repository."""
        return (await self.find_all(account, [path], scope=scope))[path]

    async def find_all(
        self, account: str | None, paths: Iterable[str], *, scope: TokenScope | None = None
    ) -> dict[str, Standing]:
        """The same for several, in one query."""
        wanted = list(paths)
        rows = await self._database.fetch_all(
            _STANDINGS,
            account=account or "",
            paths=wanted,
            namespaces=sorted({path.partition("/")[0] for path in wanted}),
        )
        found: dict[str, Standing] = {}
        namespaces: dict[str, Facts] = {}
        for namespace, path, repository, visibility, asker, is_admin, is_auditor, owns, *granted in rows:
            levels = [Level(level or 0) for level in granted]
            facts = Facts(
                is_user=asker is not None,
                is_system_admin=bool(is_admin),
                is_auditor=bool(is_auditor),
                owns_namespace=asker is not None and bool(owns),
                namespace_level=max(levels[2:]),
            )
            namespaces[namespace] = facts
            if path is not None:
                facts = replace(facts, repository_level=max(levels[:2]), is_public=visibility == "public")
                found[path] = Standing(repository, facts)
        nothing = Facts()
        standings = {
            path: found.get(path) or Standing(None, namespaces.get(path.partition("/")[0], nothing))
            for path in wanted
        }
        if scope is None:
            return standings
        return {
            path: Standing(standing.repository_id, replace(standing.facts, actions=scope.on(path)))
            for path, standing in standings.items()
        }

    async def list_visible(
        self,
        account: str | None,
        *,
        scope: TokenScope | None = None,
        namespace: str | None = None,
        after: str = "",
        limit: int,
    ) -> list[tuple[int, str]]:
        """
        At most `limit` repositories behind the path `after` that the account may see: ids and paths, by path.

        `namespace` is the id of the account whose repositories are meant; None: all.
        """
        parameters = {"after": after, "limit": limit, **asking(account, scope)}
        if namespace is None:
            rows = await self._database.fetch_all(_LIST_VISIBLE, **parameters)
        else:
            rows = await self._database.fetch_all(_LIST_VISIBLE_IN_NAMESPACE, namespace=namespace, **parameters)
        return [(row[0], row[1]) for row in rows]

    async def count_visible(
        self, account: str | None, *, scope: TokenScope | None = None, namespace: str | None = None
    ) -> int:
        """How many `list_visible` lists in the end."""
        parameters = asking(account, scope)
        if namespace is None:
            row = await self._database.fetch_one(_COUNT_VISIBLE, **parameters)
        else:
            row = await self._database.fetch_one(_COUNT_VISIBLE_IN_NAMESPACE, namespace=namespace, **parameters)
        return int(row[0]) if row else 0

    async def find_pullable_holder(self, account: str | None, digest: str) -> str | None:
        """The path of a repository with this blob that the account may pull from, if one is found quickly."""
        row = await self._database.fetch_one(_PULLABLE_HOLDER, digest=digest, **asking(account))
        return row[0] if row else None
