"""
Grants: which level teams and users have on a repository, or on a whole namespace.

A team is granted something of its own organisation only, and so is a robot. Single users are granted what belongs
to organisations and to other users alike. One that has a grant and gets another one has the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct
from sqlalchemy import BigInteger, Text, and_, bindparam, delete, exists, func, or_, select, union_all
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import (
    NotAnOrganization,
    NotGrantable,
    PlaceUnknown,
    TeamElsewhere,
    TeamUnknown,
    UserUnknown,
)
from dtr.accounts.lists import pattern_of
from dtr.accounts.permissions import Level
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, AccountKind, account_of, findable
from dtr.db import ConstraintViolated, Statement
from dtr.db.schema import (
    accounts,
    namespace_grants,
    namespace_user_grants,
    repositories,
    repository_grants,
    repository_user_grants,
    team_members,
    teams,
)
from dtr.events import SYSTEM, Actor, Event, Object, record

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select, Table

    from dtr.db import Database, Row, Transaction
    from dtr.events import EventType

# --- what is granted ------------------------------------------------------------------------------------------


class Place(Struct, frozen=True):
    """A repository, or (`repository_id` None) a whole namespace, and the account that owns it."""

    path: str
    repository_id: int | None
    owner_id: str
    owner: str
    owner_kind: AccountKind

    @property
    def id(self) -> int | str:
        """What the tables of grants know it by."""
        return self.owner_id if self.repository_id is None else self.repository_id

    def require_organization(self) -> None:
        """Raise NotAnOrganization for what a user owns."""
        if self.owner_kind != "organization":
            raise NotAnOrganization(self.path)


class GrantedTeam(Struct, frozen=True):
    """A team, and whether the account that asked is in it."""

    id: str
    name: str
    has_asker: bool


TeamGrant: TypeAlias = tuple[GrantedTeam, Level]
UserGrant: TypeAlias = tuple[Account, Level]

_repository = select(
    repositories.c.path, repositories.c.id, accounts.c.id, accounts.c.name, accounts.c.kind
).join_from(repositories, accounts, repositories.c.namespace_id == accounts.c.id)
_REPOSITORY = Statement(
    lambda: _repository.where(repositories.c.path == bindparam("repository"), repositories.c.deleted_at.is_(None))
)
_REPOSITORY_BY_ID = Statement(
    lambda: _repository.where(
        repositories.c.id == bindparam("repository", type_=BigInteger), repositories.c.deleted_at.is_(None)
    )
)
_NAMESPACE = Statement(
    lambda: select(accounts.c.name, accounts.c.id, accounts.c.kind).where(
        accounts.c.name == bindparam("name"), accounts.c.kind != "robot"
    )
)
_STAY = Statement(  # the repository does not change its owner while something is granted
    lambda: (
        select(repositories.c.namespace_id)
        .where(repositories.c.id == bindparam("repository", type_=BigInteger))
        .with_for_update(read=True)
    )
)

# --- to whom --------------------------------------------------------------------------------------------------

_is_asker = exists(
    select(1)
    .where(team_members.c.team_id == teams.c.id, team_members.c.user_id == bindparam("asker", type_=Text))
    .correlate(teams)
)
_TEAM = Statement(
    lambda: (
        select(teams.c.id, teams.c.name, _is_asker, teams.c.organization_id)
        .where(
            or_(
                and_(teams.c.organization_id == bindparam("organization"), teams.c.name == bindparam("team")),
                teams.c.id == bindparam("team"),
            )
        )
        .order_by(teams.c.name != bindparam("team"))  # a name before an id that looks like it
        .limit(1)
    )
)
_USER = Statement(
    lambda: select(*ACCOUNT_COLUMNS).where(
        or_(accounts.c.name == bindparam("user"), accounts.c.id == bindparam("user")),
        accounts.c.kind != "organization",
    )
)


class _Grants:
    """The statements over one of the tables of grants."""

    def __init__(self, table: Table, place: str, grantee: str) -> None:
        where = (table.c[place] == bindparam("place"), table.c[grantee] == bindparam("grantee"))
        self.find = Statement(select(table.c.level).where(*where).with_for_update())
        self.put = Statement(
            insert(table)
            .values({place: bindparam("place"), grantee: bindparam("grantee"), "level": bindparam("level")})
            .on_conflict_do_update(index_elements=[place, grantee], set_={"level": bindparam("level")})
        )
        self.delete = Statement(delete(table).where(*where))
        of_place = table.c[place] == bindparam("place")
        if grantee == "team_id":
            found: Select[Any] = select(teams.c.id, teams.c.name, _is_asker, table.c.level).join_from(
                table, teams, table.c.team_id == teams.c.id
            )
            name: ColumnElement[str] = teams.c.name
        else:
            found = select(*ACCOUNT_COLUMNS, table.c.level).join_from(
                table, accounts, table.c.user_id == accounts.c.id
            )
            name = accounts.c.name
        self.get = Statement(found.where(of_place, table.c[grantee] == bindparam("grantee")))
        self.page = Statement(
            found.where(of_place, name >= bindparam("start"))
            .order_by(name)
            .limit(bindparam("limit", type_=BigInteger))
        )
        self.count = Statement(select(func.count()).select_from(table).where(of_place))


_ON_REPOSITORY_TO_TEAM = _Grants(repository_grants, "repository_id", "team_id")
_ON_NAMESPACE_TO_TEAM = _Grants(namespace_grants, "namespace_id", "team_id")
_ON_REPOSITORY_TO_USER = _Grants(repository_user_grants, "repository_id", "user_id")
_ON_NAMESPACE_TO_USER = _Grants(namespace_user_grants, "namespace_id", "user_id")

_of_team = and_(
    repository_grants.c.team_id == bindparam("team"),
    repository_grants.c.repository_id == repositories.c.id,
    repositories.c.deleted_at.is_(None),
)
_page_of_team = (
    select(repositories.c.id, repositories.c.path, repository_grants.c.level)
    .where(_of_team, repositories.c.path >= bindparam("start"))
    .order_by(repositories.c.path)
    .limit(bindparam("limit", type_=BigInteger))
)
_PAGE_OF_TEAM = Statement(_page_of_team)
# Paths are lower-case already.
_FOUND_OF_TEAM = Statement(
    lambda: _page_of_team.where(repositories.c.path.like(bindparam("pattern"), escape="\\"))
)
_of_user = union_all(
    select(accounts.c.name.label("path"), namespace_user_grants.c.level)
    .join_from(namespace_user_grants, accounts, accounts.c.id == namespace_user_grants.c.namespace_id)
    .where(namespace_user_grants.c.user_id == bindparam("user")),
    select(repositories.c.path, repository_user_grants.c.level)
    .join_from(repository_user_grants, repositories, repositories.c.id == repository_user_grants.c.repository_id)
    .where(repository_user_grants.c.user_id == bindparam("user"), repositories.c.deleted_at.is_(None)),
).subquery("of_user")
_PAGE_OF_USER = Statement(
    lambda: (
        select(_of_user.c.path, _of_user.c.level)
        .where(_of_user.c.path >= bindparam("start"))
        .order_by(_of_user.c.path)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_COUNT_OF_USER = Statement(lambda: select(func.count()).select_from(_of_user))
_COUNT_OF_TEAM = Statement(lambda: select(func.count(repositories.c.id)).where(_of_team))


class Grants:
    """All grants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def on(self, where: int | str) -> Place:
        """The repository of this id or path, or the namespace of this name. Raises PlaceUnknown."""
        if isinstance(where, int):
            row = await self._database.fetch_one(_REPOSITORY_BY_ID, repository=where)
        elif "/" in where:
            row = await self._database.fetch_one(_REPOSITORY, repository=findable(where))
        else:
            row = await self._database.fetch_one(_NAMESPACE, name=findable(where))
            if row is not None:
                return Place(row[0], None, row[1], row[0], row[2])
        if row is None:
            raise PlaceUnknown(str(where))
        return Place(*row)

    async def find_team(self, place: Place, team: str, asker: str | None = None) -> GrantedTeam:
        """
        The team of this name or id in the organisation that owns a place.

        Raises NotAnOrganization, TeamUnknown, TeamElsewhere (to whoever knows its id).
        """
        place.require_organization()
        return await self._find_team(self._database, place, team, asker)

    async def set_team(self, place: Place, team: str, level: Level, *, by: Actor = SYSTEM) -> None:
        """
        Give a team a level; NONE takes the grant away.

        Raises NotAnOrganization, TeamUnknown, TeamElsewhere, NotGrantable (the place has another owner meanwhile).
        """
        place.require_organization()

        async def work(tx: Transaction) -> None:
            found = await self._find_team(tx, place, team)
            to = Object("team", found.id, f"{place.owner}/{found.name}")
            await self._change(tx, _to_teams(place), place, to, level, by)

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # the team is gone meanwhile
            raise TeamUnknown(place.owner, team) from None

    async def set_user(self, place: Place, user: str, level: Level, *, by: Actor = SYSTEM) -> None:
        """
        Give a user (by name or id), or a robot of the organisation that owns the place, a level; NONE takes it.

        Raises UserUnknown, NotGrantable.
        """

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_USER, user=findable(user))
            if row is None:
                raise UserUnknown(user)
            found = account_of(row)
            if found.kind == "robot" and found.organization_id != place.owner_id:
                raise NotGrantable("a robot is granted what belongs to its own organization only")
            to = Object("account", found.id, found.name)
            await self._change(tx, _to_users(place), place, to, level, by)

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # the user is gone meanwhile
            raise UserUnknown(user) from None

    async def list_teams(
        self, place: Place, *, asker: str | None = None, start: str = "", limit: int
    ) -> list[TeamGrant]:
        """At most `limit` teams that were granted something, from the name `start` on, by name."""
        rows = await self._database.fetch_all(
            _to_teams(place).page, place=place.id, asker=asker or "", start=start, limit=limit
        )
        return [_team_grant(row) for row in rows]

    async def get_team(self, place: Place, team: GrantedTeam, *, asker: str | None = None) -> TeamGrant | None:
        """What a team was granted; None: nothing."""
        row = await self._database.fetch_one(
            _to_teams(place).get, place=place.id, grantee=team.id, asker=asker or ""
        )
        return _team_grant(row) if row else None

    async def list_users(self, place: Place, *, start: str = "", limit: int) -> list[UserGrant]:
        """At most `limit` users and robots that were granted something, from the name `start` on, by name."""
        rows = await self._database.fetch_all(_to_users(place).page, place=place.id, start=start, limit=limit)
        return [(account_of(row), Level.of(row[-1])) for row in rows]

    async def count_teams(self, place: Place) -> int:
        """How many teams were granted something."""
        return await self._count(_to_teams(place).count, place=place.id)

    async def count_users(self, place: Place) -> int:
        """How many users and robots were granted something."""
        return await self._count(_to_users(place).count, place=place.id)

    async def list_of_team(
        self, team: GrantedTeam, *, contains: str = "", start: str = "", limit: int
    ) -> list[tuple[int, str, Level]]:
        """
        At most `limit` repositories that a team was granted, by path: ids, paths and levels.

        `contains`: a part of the path, in whatever case.
        """
        pattern = {"pattern": pattern_of(contains)} if contains else {}
        statement = _FOUND_OF_TEAM if contains else _PAGE_OF_TEAM
        rows = await self._database.fetch_all(statement, team=team.id, start=start, limit=limit, **pattern)
        return [(row[0], row[1], Level.of(row[2])) for row in rows]

    async def count_of_team(self, team: GrantedTeam) -> int:
        """How many repositories a team was granted."""
        return await self._count(_COUNT_OF_TEAM, team=team.id)

    async def list_of_user(self, user: Account, *, start: str = "", limit: int) -> list[tuple[str, Level]]:
        """At most `limit` namespaces and repositories on which a user or robot was granted something, by path."""
        rows = await self._database.fetch_all(_PAGE_OF_USER, user=user.id, start=start, limit=limit)
        return [(path, Level.of(level)) for path, level in rows]

    async def count_of_user(self, user: Account) -> int:
        """How many `list_of_user` lists in the end."""
        return await self._count(_COUNT_OF_USER, user=user.id)

    async def _count(self, statement: Statement, **parameters: Any) -> int:
        row = await self._database.fetch_one(statement, **parameters)
        return int(row[0]) if row else 0

    @staticmethod
    async def _find_team(
        reader: Database | Transaction, place: Place, team: str, asker: str | None = None
    ) -> GrantedTeam:
        row = await reader.fetch_one(_TEAM, organization=place.owner_id, team=findable(team), asker=asker or "")
        if row is None:
            raise TeamUnknown(place.owner, team)
        if row[3] != place.owner_id:
            raise TeamElsewhere(f"{place.owner} has no team of this id")
        return GrantedTeam(row[0], row[1], bool(row[2]))

    @staticmethod
    async def _change(tx: Transaction, table: _Grants, place: Place, to: Object, level: Level, by: Actor) -> None:
        if place.repository_id is not None:
            row = await tx.fetch_one(_STAY, repository=place.repository_id)
            if row is None or row[0] != place.owner_id:
                raise NotGrantable(f"{place.path} does not belong to {place.owner} any more")
        row = await tx.fetch_one(table.find, place=place.id, grantee=to.id)
        before = Level.of(row[0] if row else None)
        if level is before:
            return
        kind: EventType = "UPDATE" if before and level else "CREATE" if level else "DELETE"
        if level:
            await tx.execute(table.put, place=place.id, grantee=to.id, level=level.label)
        else:
            await tx.execute(table.delete, place=place.id, grantee=to.id)
        granted = Object("grant", f"{place.id}:{to.id}", place.path, (level or before).label)
        await record(
            tx,
            Event(
                type=kind,
                actor=by,
                object=granted,
                target=to,
                repository="" if place.repository_id is None else place.path,
                repository_id=place.repository_id,
            ),
        )


def _to_teams(place: Place) -> _Grants:
    return _ON_NAMESPACE_TO_TEAM if place.repository_id is None else _ON_REPOSITORY_TO_TEAM


def _to_users(place: Place) -> _Grants:
    return _ON_NAMESPACE_TO_USER if place.repository_id is None else _ON_REPOSITORY_TO_USER


def _team_grant(row: Row) -> TeamGrant:
    number, name, has_asker, level = row
    return GrantedTeam(number, name, bool(has_asker)), Level.of(level)
