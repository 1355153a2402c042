"""
Which repositories a user can do something on, and why: `reasons`, asked the other way round.

That others are public, and that administrators and auditors see everything, is said elsewhere: it would be a list
of all repositories. A page is put together from an ordered, indexed piece of each namespace, so that it costs what
is on it; a second query finds the reasons of what is on it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy import BigInteger, Text, bindparam, case, func, literal_column, or_, select, true, union, union_all

from dtr.accounts.lists import pattern_of
from dtr.accounts.permissions import Level
from dtr.accounts.reasons import Reason
from dtr.accounts.visibility import GRANTED, PATH_NOT_INDEXED, SPACES
from dtr.db import Statement, in_list, in_query
from dtr.db.schema import (
    accounts,
    namespace_grants,
    namespace_user_grants,
    organization_members,
    repositories,
    repository_grants,
    repository_user_grants,
    team_members,
    teams,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from dtr.accounts.reasons import ReasonKind
    from dtr.accounts.records import Account
    from dtr.db import Database

_me = bindparam("account", type_=Text)
_limit = bindparam("limit", type_=BigInteger)
_start = bindparam("start", type_=Text)
_there = repositories.c.deleted_at.is_(None)
# Paths are lower-case.
_fits = repositories.c.path.like(bindparam("pattern", type_=Text), escape="\\")
_BEHIND_SLASH = "0"
"""The character that follows the slash."""

_owner = accounts.alias("owner")
_spaces = SPACES.subquery("spaces")
_first = _owner.c.name.concat("/")
# What belongs to an account has a path that begins with its name: so the index over paths is used, whatever the
# databases think of how many repositories a namespace has.
_found = repositories.alias("found")
_counted = (
    select(func.count())
    .select_from(repositories)
    .where(_there, or_(repositories.c.namespace_id.in_(SPACES), repositories.c.id.in_(GRANTED)))
)


@cache
def page_statement(*, contains: bool) -> Statement:
    """
    At most `limit` repositories that the `account` has access to, ids and paths, by path, from `start` on.

    `contains`: those whose path is like the `pattern`.
    """
    of_space = (
        select(repositories.c.id)
        .where(
            _there,
            repositories.c.path >= case((_start > _first, _start), else_=_first),
            repositories.c.path < _owner.c.name.concat(_BEHIND_SLASH),
            _fits if contains else true(),
        )
        .order_by(repositories.c.path)
        .limit(_limit)
        .correlate(_owner)
    )
    page = union(
        select(_found.c.id, _found.c.path)
        .select_from(_spaces)
        .join(_owner, _owner.c.id == _spaces.c.namespace_id)
        .join(_found, in_query(_found.c.id, of_space)),
        select(repositories.c.id, repositories.c.path).where(
            _there, _start <= PATH_NOT_INDEXED, repositories.c.id.in_(GRANTED), _fits if contains else true()
        ),
    ).subquery("page")
    return Statement(select(page.c.id, page.c.path).order_by(page.c.path).limit(_limit))


_COUNT = Statement(_counted)
_COUNT_FITTING = Statement(lambda: _counted.where(_fits))


def _because(kind: ReasonKind, on: str, team: ColumnElement[str], level: ColumnElement[str]) -> Select[Any]:
    return select(repositories.c.id, literal_column(f"'{kind}'"), literal_column(f"'{on}'"), team, level).where(
        in_list(repositories.c.id, "ids")
    )


_no_team: ColumnElement[str] = literal_column("''")
_admin: ColumnElement[str] = literal_column(f"'{Level.ADMIN.label}'")
_REASONS = Statement(
    lambda: union_all(
        _because("owner", "namespace", _no_team, _admin).where(repositories.c.namespace_id == _me),
        _because("owner", "namespace", _no_team, _admin)
        .join(organization_members, organization_members.c.organization_id == repositories.c.namespace_id)
        .where(organization_members.c.user_id == _me, organization_members.c.is_admin.is_(True)),
        _because("team", "namespace", teams.c.name, namespace_grants.c.level)
        .join(namespace_grants, namespace_grants.c.namespace_id == repositories.c.namespace_id)
        .join(teams, teams.c.id == namespace_grants.c.team_id)
        .join(team_members, team_members.c.team_id == teams.c.id)
        .where(team_members.c.user_id == _me),
        _because("user", "namespace", _no_team, namespace_user_grants.c.level)
        .join(namespace_user_grants, namespace_user_grants.c.namespace_id == repositories.c.namespace_id)
        .where(namespace_user_grants.c.user_id == _me),
        _because("team", "repository", teams.c.name, repository_grants.c.level)
        .join(repository_grants, repository_grants.c.repository_id == repositories.c.id)
        .join(teams, teams.c.id == repository_grants.c.team_id)
        .join(team_members, team_members.c.team_id == teams.c.id)
        .where(team_members.c.user_id == _me),
        _because("user", "repository", _no_team, repository_user_grants.c.level)
        .join(repository_user_grants, repository_user_grants.c.repository_id == repositories.c.id)
        .where(repository_user_grants.c.user_id == _me),
    )
)


class Holding(Struct, frozen=True):
    """A repository that a user can do something on, and why; the strongest reason comes first."""

    repository_id: int
    path: str
    reasons: tuple[Reason, ...]

    @property
    def level(self) -> Level:
        """The highest of all."""
        return max((one.level for one in self.reasons), default=Level.NONE)


class Holdings:
    """What users have access to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_of(self, account: Account, *, contains: str = "", start: str = "", limit: int) -> list[Holding]:
        """
        At most `limit` repositories that an account has access to, by path, from the path `start` on.

        `contains`: a part of the path, in whatever case; empty: any.
        """
        rows = await self._database.fetch_all(
            page_statement(contains=bool(contains)),
            account=account.id,
            start=start,
            limit=limit,
            **_pattern(contains),
        )
        ids = [row[0] for row in rows]
        found: dict[int, list[Reason]] = defaultdict(list)
        if ids:
            for number, kind, on, team, level in await self._database.fetch_all(
                _REASONS, account=account.id, ids=ids
            ):
                found[number].append(Reason(kind, Level.of(level), on, team))
        return [
            Holding(number, path, tuple(sorted(found[number], key=lambda one: (-one.level, one.kind, one.team))))
            for number, path in rows
        ]

    async def count_of(self, account: Account, *, contains: str = "") -> int:
        """How many `list_of` lists in the end."""
        row = await self._database.fetch_one(
            _COUNT_FITTING if contains else _COUNT, account=account.id, **_pattern(contains)
        )
        return int(row[0]) if row else 0


def _pattern(contains: str) -> dict[str, str]:
    return {"pattern": pattern_of(contains)} if contains else {}
