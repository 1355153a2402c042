"""
Who can do what on a repository, and why: what `standings` answers for one account, told of everybody.

An account may have several reasons; the highest level counts. Accounts that are not active have none, as they may
do nothing; what everybody may on a public repository is no reason of an account's own. A test holds this and `may`
together.

Lists take two queries, whatever they have: one for the page, one for the reasons of those on it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from dtr.accounts.lists import pattern_of
from dtr.accounts.permissions import Facts, Level
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, account_of, findable
from dtr.accounts.standings import level_of
from dtr.db import Statement, in_list
from dtr.db.schema import (
    accounts,
    namespace_grants,
    namespace_user_grants,
    organization_members,
    repository_grants,
    repository_user_grants,
    team_members,
    teams,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CompoundSelect, Select, Table

    from dtr.accounts.grants import Place
    from dtr.db import Database

ReasonKind: TypeAlias = Literal["administrator", "auditor", "owner", "team", "user"]
Reach: TypeAlias = Literal["registry", "namespace", "repository"]
"""What something was granted on, or belongs to."""
GranteeKind: TypeAlias = Literal["team", "user", "robot"]

_KINDS: tuple[ReasonKind, ...] = ("administrator", "owner", "user", "team", "auditor")
_GRANTEES: tuple[GranteeKind, ...] = ("team", "user", "robot")
_REACHES: tuple[Reach, ...] = ("repository", "namespace", "registry")


class Reason(Struct, frozen=True):
    """
    Where access of an account comes from.

    `administrator` and `auditor` are those of the whole registry, `owner` of the namespace; `team` and `user` are
    grants, to a team that the account is in or to itself, on the repository or on its namespace. An auditor's
    level is NONE: it sees everything, and that is none.
    """

    kind: ReasonKind
    level: Level
    on: Reach
    team: str = ""
    """The name of the team."""


class Person(Struct, frozen=True):
    """An account, and why it can do something on a repository; the strongest reason comes first."""

    account: Account
    reasons: tuple[Reason, ...]
    is_public: bool
    """The repository is: everybody reads it."""

    @property
    def marker(self) -> str:
        """What names the account as the first of a page."""
        return f"{int(max((reason.level for reason in self.reasons), default=Level.NONE))}/{self.account.name}"

    @property
    def facts(self) -> Facts:
        """What `may` decides upon; whether the account is a member of the organisation is not among it."""
        levels: dict[str, Level] = defaultdict(lambda: Level.NONE)
        for reason in self.reasons:
            if reason.kind in {"team", "user"}:
                levels[reason.on] = max(levels[reason.on], reason.level)
        kinds = {reason.kind for reason in self.reasons}
        return Facts(
            is_user=self.account.is_active,
            is_system_admin="administrator" in kinds,
            is_auditor="auditor" in kinds,
            owns_namespace="owner" in kinds,
            repository_level=levels["repository"],
            namespace_level=levels["namespace"],
            is_public=self.is_public,
        )


class Grant(Struct, frozen=True):
    """What a team, a user or a robot was granted on a repository, or on its namespace."""

    kind: GranteeKind
    id: str
    name: str
    full_name: str
    """Of a user; what a robot or a team is for."""
    level: Level
    on: Reach
    is_active: bool
    """A user or robot that is not cannot use it."""
    members: int
    """Of a team."""

    @property
    def marker(self) -> str:
        """What names it as the first of a page."""
        return f"{_GRANTEES.index(self.kind)}/{self.name}/{_REACHES.index(self.on)}"


class Numbers(Struct, frozen=True):
    """How many have access without a grant."""

    administrators: int
    auditors: int
    owners: int


# --- where access comes from ------------------------------------------------------------------------------------

_owner = bindparam("owner", type_=Text)
_repository = bindparam("repository", type_=BigInteger)
_system = bindparam("system", type_=Boolean)
_limit = bindparam("limit", type_=BigInteger)
_ADMIN: ColumnElement[int] = literal_column(str(int(Level.ADMIN)))
_NONE: ColumnElement[int] = literal_column(str(int(Level.NONE)))


def _source(
    user: ColumnElement[str],
    level: ColumnElement[int],
    kind: ReasonKind,
    on: Reach,
    team: ColumnElement[str] | None = None,
) -> Select[Any]:
    """Accounts that have access in one way."""
    columns: list[ColumnElement[Any]] = [
        user.label("user_id"),
        level.label("rank"),
        literal_column(f"'{kind}'").label("kind"),
        literal_column(f"'{on}'").label("reach"),
        (literal_column("''") if team is None else team).label("team_id"),
    ]
    return select(*columns)


def _ways(*, of_users: bool) -> CompoundSelect[Any]:
    """All ways in which somebody has access; `of_users`: the accounts of the list `users` alone."""

    def only(user: ColumnElement[str]) -> ColumnElement[bool]:
        return in_list(user, "users") if of_users else true()

    found = [
        _source(accounts.c.id, _ADMIN, "administrator", "registry").where(
            _system, accounts.c.is_admin.is_(True), accounts.c.kind == "user", only(accounts.c.id)
        ),
        _source(accounts.c.id, _NONE, "auditor", "registry").where(
            _system, accounts.c.is_auditor.is_(True), only(accounts.c.id)
        ),
        _source(accounts.c.id, _ADMIN, "owner", "namespace").where(
            accounts.c.id == _owner, accounts.c.kind == "user", only(accounts.c.id)
        ),
        _source(organization_members.c.user_id, _ADMIN, "owner", "namespace").where(
            organization_members.c.organization_id == _owner,
            organization_members.c.is_admin.is_(True),
            only(organization_members.c.user_id),
        ),
    ]
    places: tuple[tuple[Reach, Table, Table, str, ColumnElement[Any]], ...] = (
        ("repository", repository_grants, repository_user_grants, "repository_id", _repository),
        ("namespace", namespace_grants, namespace_user_grants, "namespace_id", _owner),
    )
    for on, to_teams, to_users, place, wanted in places:
        found += [
            _source(team_members.c.user_id, level_of(to_teams.c.level), "team", on, to_teams.c.team_id)
            .join_from(to_teams, team_members, to_teams.c.team_id == team_members.c.team_id)
            .where(to_teams.c[place] == wanted, only(team_members.c.user_id)),
            _source(to_users.c.user_id, level_of(to_users.c.level), "user", on).where(
                to_users.c[place] == wanted, only(to_users.c.user_id)
            ),
        ]
    return union_all(*found)


_on_repository, _on_namespace = repository_grants.c.repository_id, namespace_grants.c.namespace_id
_all_ways = _ways(of_users=False).subquery("ways")
_highest = (
    select(_all_ways.c.user_id, func.max(_all_ways.c.rank).label("rank"))
    .group_by(_all_ways.c.user_id)
    .subquery("highest")
)
_their_ways = _ways(of_users=True).subquery("ways")
_REASONS = Statement(
    lambda: select(
        _their_ways.c.user_id, _their_ways.c.kind, _their_ways.c.rank, _their_ways.c.reach, teams.c.name
    ).select_from(_their_ways.outerjoin(teams, teams.c.id == _their_ways.c.team_id))
)


@cache
def _people(*, contains: bool, ranked: bool, starts: bool) -> Statement:
    """
    How many have access, and a page of them: the highest levels first, then by name.

    `ranked`: of one level alone. There is always a row: where nobody is on the page, its account is NULL.
    """
    rank = _highest.c.rank
    matched = (
        select(_highest.c.user_id, rank, accounts.c.name)
        .join_from(_highest, accounts, accounts.c.id == _highest.c.user_id)
        .where(
            accounts.c.is_active.is_(True),
            accounts.c.folded.like(bindparam("pattern"), escape="\\") if contains else true(),
            rank == bindparam("rank", type_=Integer) if ranked else true(),
        )
        .cte("matched")
    )
    here = or_(
        matched.c.rank < bindparam("start_rank", type_=Integer),
        and_(matched.c.rank == bindparam("start_rank", type_=Integer), matched.c.name >= bindparam("start")),
    )
    # What is sorted is only what it is sorted by.
    page = (
        select(matched)
        .where(here if starts else true())
        .order_by(matched.c.rank.desc(), matched.c.name)
        .limit(_limit)
        .subquery("page")
    )
    total = select(func.count().label("number")).select_from(matched).subquery("total")
    return Statement(
        select(*ACCOUNT_COLUMNS, total.c.number)
        .select_from(total.outerjoin(page, true()).outerjoin(accounts, accounts.c.id == page.c.user_id))
        .order_by(page.c.rank.desc(), page.c.name)
    )


def _active(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(func.count()).select_from(accounts).where(accounts.c.is_active.is_(True), *conditions)


_NUMBERS = Statement(
    lambda: select(
        _active(accounts.c.is_admin.is_(True), accounts.c.kind == "user").scalar_subquery(),
        _active(accounts.c.is_auditor.is_(True)).scalar_subquery(),
        _active(
            accounts.c.id == organization_members.c.user_id,
            organization_members.c.organization_id == _owner,
            organization_members.c.is_admin.is_(True),
        ).scalar_subquery(),
    )
)

# --- what was granted -------------------------------------------------------------------------------------------


def _to_teams(grants: Table, where: ColumnElement[bool], on: Reach) -> Select[Any]:
    return (
        select(
            literal_column("0").label("kind"),
            teams.c.id.label("id"),
            teams.c.name.label("name"),
            teams.c.description.label("full_name"),
            grants.c.level.label("level"),
            literal_column(str(_REACHES.index(on))).label("reach"),
            true().label("is_active"),
            teams.c.name.label("folded"),
        )
        .join_from(grants, teams, teams.c.id == grants.c.team_id)
        .where(where)
    )


def _to_users(grants: Table, where: ColumnElement[bool], on: Reach) -> Select[Any]:
    return (
        select(
            literal_column("CASE accounts.kind WHEN 'robot' THEN 2 ELSE 1 END").label("kind"),
            accounts.c.id,
            accounts.c.name,
            accounts.c.full_name,
            grants.c.level,
            literal_column(str(_REACHES.index(on))),
            accounts.c.is_active,
            accounts.c.folded,
        )
        .join_from(grants, accounts, accounts.c.id == grants.c.user_id)
        .where(where)
    )


_granted = union_all(
    _to_teams(repository_grants, _on_repository == _repository, "repository"),
    _to_teams(namespace_grants, _on_namespace == _owner, "namespace"),
    _to_users(repository_user_grants, repository_user_grants.c.repository_id == _repository, "repository"),
    _to_users(namespace_user_grants, namespace_user_grants.c.namespace_id == _owner, "namespace"),
).subquery("granted")
_members = (
    select(func.count()).select_from(team_members).where(team_members.c.team_id == _granted.c.id).scalar_subquery()
)


@cache
def _grants(*, contains: bool, starts: bool, counted: bool) -> Statement:
    """Teams first, then users, then robots; each by name, what is granted on the repository itself first."""
    order = (_granted.c.kind, _granted.c.name, _granted.c.reach)
    start = tuple_(
        bindparam("start_kind", type_=Integer), bindparam("start"), bindparam("start_reach", type_=Integer)
    )
    found = (
        select(*((func.count(),) if counted else (*_granted.c, _members)))
        .select_from(_granted)
        .where(
            _granted.c.folded.like(bindparam("pattern"), escape="\\") if contains else true(),
            tuple_(*order) >= start if starts else true(),
        )
    )
    return Statement(found if counted else found.order_by(*order).limit(_limit))


class Reasons:
    """Why somebody can do something on a repository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_people(
        self,
        place: Place,
        *,
        is_public: bool,
        level: Level | None = None,
        contains: str = "",
        system: bool = True,
        start: str = "",
        limit: int,
    ) -> tuple[list[Person], int]:
        """
        At most `limit` users and robots that can do something on a repository, from the marker `start` on.

        With them comes how many there are in all. Those of the highest level come first, then it is by name.
        `level`: of that one alone, where NONE is what an auditor has; `contains`: a part of name or full name;
        not `system`: without what administrators and auditors have as such.
        """
        parameters: dict[str, Any] = {
            "owner": place.owner_id,
            "repository": place.repository_id,
            "system": system,
        }
        if level is not None:
            parameters["rank"] = int(level)
        if contains:
            parameters["pattern"] = pattern_of(contains)
        if start:
            rank, _, name = start.partition("/")
            parameters |= {"start_rank": int(rank) if rank in {"0", "1", "2", "3"} else 0, "start": findable(name)}
        statement = _people(contains=bool(contains), ranked=level is not None, starts=bool(start))
        rows = await self._database.fetch_all(statement, limit=limit, **parameters)
        found = [account_of(row) for row in rows if row[0] is not None]
        people = await self._with_reasons(place, found, is_public, system=system)
        return people, int(rows[0][-1])

    async def explain(self, place: Place, account: Account, *, is_public: bool) -> Person:
        """All reasons of one account; one that is not active has none."""
        (person,) = await self._with_reasons(place, [account], is_public, system=True)
        return person if account.is_active else Person(account, (), is_public)

    async def numbers(self, place: Place) -> Numbers:
        """How many have access as administrators, as auditors and, of an organisation, as owners."""
        row = await self._database.fetch_one(_NUMBERS, owner=place.owner_id)
        return Numbers(*map(int, row or (0, 0, 0)))

    async def list_grants(self, place: Place, *, contains: str = "", start: str = "", limit: int) -> list[Grant]:
        """
        At most `limit` of what was granted on a repository and its namespace, from the marker `start` on.

        On a place that is a namespace: what was granted on that.
        """
        parameters: dict[str, Any] = {"owner": place.owner_id, "repository": place.repository_id}
        if contains:
            parameters["pattern"] = pattern_of(contains)
        if start:
            kind, _, rest = start.partition("/")
            name, _, reach = rest.rpartition("/")
            parameters |= {
                "start_kind": int(kind) if kind in {"0", "1", "2"} else 0,
                "start": findable(name),
                "start_reach": int(reach) if reach in {"0", "1"} else 0,
            }
        statement = _grants(contains=bool(contains), starts=bool(start), counted=False)
        rows = await self._database.fetch_all(statement, limit=limit, **parameters)
        return [
            Grant(
                kind=_GRANTEES[kind],
                id=number,
                name=name,
                full_name=full_name,
                level=Level.of(level),
                on=_REACHES[reach],
                is_active=bool(is_active),
                members=int(members) if kind == 0 else 0,
            )
            for kind, number, name, full_name, level, reach, is_active, _, members in rows
        ]

    async def count_grants(self, place: Place, *, contains: str = "") -> int:
        """How many `list_grants` lists in the end."""
        parameters: dict[str, Any] = {"pattern": pattern_of(contains)} if contains else {}
        row = await self._database.fetch_one(
            _grants(contains=bool(contains), starts=False, counted=True),
            owner=place.owner_id,
            repository=place.repository_id,
            **parameters,
        )
        return int(row[0]) if row else 0

    async def _with_reasons(
        self, place: Place, people: Sequence[Account], is_public: bool, *, system: bool
    ) -> list[Person]:
        if not people:
            return []
        rows = await self._database.fetch_all(
            _REASONS,
            owner=place.owner_id,
            repository=place.repository_id,
            system=system,
            users=[one.id for one in people],
        )
        reasons: dict[str, list[Reason]] = defaultdict(list)
        for user, kind, rank, reach, team in rows:
            reasons[user].append(Reason(kind, Level(rank), reach, team or ""))
        return [Person(one, tuple(sorted(reasons[one.id], key=_place)), is_public) for one in people]


def _place(reason: Reason) -> tuple[int, int, int, str]:
    """Sorts the strongest first, and of those the one that says most."""
    return -reason.level, _KINDS.index(reason.kind), _REACHES.index(reason.on), reason.team
