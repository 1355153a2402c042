"""
Organisations: who belongs to one, and its teams.

A member is an owner (`is_admin`) or not; who is in a team is in its organisation, too. A member of a team may have
`is_admin` there: such a member edits the team and who is in it, which is no right on repositories.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import (
    AccountNameInvalid,
    AccountUnknown,
    MemberUnknown,
    TeamNameInvalid,
    TeamNameTaken,
    TeamUnknown,
)
from dtr.accounts.lists import MemberQuery, pattern_of
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, account_of, check_name, findable, new_id
from dtr.db import ConstraintViolated, Statement, in_list
from dtr.db.schema import accounts, organization_members, team_members, teams
from dtr.events import SYSTEM, Event, Object, record

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from sqlalchemy import ColumnElement, Table

    from dtr.accounts.accounts import Accounts
    from dtr.accounts.lists import MemberFilter, MemberOrder
    from dtr.db import Database, Transaction
    from dtr.events import Actor, EventType

_is_admin = bindparam("is_admin", type_=Boolean)
_limit = bindparam("limit", type_=BigInteger)
_in_organization = (
    organization_members.c.organization_id == bindparam("organization"),
    organization_members.c.user_id == bindparam("user"),
)
_in_team = (team_members.c.team_id == bindparam("team"), team_members.c.user_id == bindparam("user"))

# --- members of an organisation -------------------------------------------------------------------------------

_add_member = insert(organization_members).values(
    organization_id=bindparam("organization"), user_id=bindparam("user"), is_admin=_is_admin
)
_ADD_MEMBER = Statement(_add_member.on_conflict_do_nothing)
# The update changes nothing: it locks the row, so that nobody is put into a team while leaving.
_HOLD_MEMBER = Statement(
    lambda: _add_member.on_conflict_do_update(
        index_elements=["organization_id", "user_id"], set_={"is_admin": organization_members.c.is_admin}
    )
)
_CHANGE_MEMBER = Statement(
    lambda: (
        update(organization_members)
        .where(
            organization_members.c.organization_id == bindparam("which"),
            organization_members.c.user_id == bindparam("who"),
            organization_members.c.is_admin != bindparam("admin", type_=Boolean),
        )
        .values(is_admin=bindparam("admin", type_=Boolean))
    )
)
_REMOVE_MEMBER = Statement(lambda: delete(organization_members).where(*_in_organization))
_REMOVE_FROM_TEAMS = Statement(
    lambda: delete(team_members).where(
        team_members.c.user_id == bindparam("user"),
        team_members.c.team_id.in_(select(teams.c.id).where(teams.c.organization_id == bindparam("organization"))),
    )
)
_FIND_MEMBER = Statement(lambda: select(organization_members.c.is_admin).where(*_in_organization))

# --- teams ----------------------------------------------------------------------------------------------------

_counted = team_members.alias("counted")  # not the members that a statement around it is about
_members_of_team = (
    select(func.count()).select_from(_counted).where(_counted.c.team_id == teams.c.id).scalar_subquery()
)
_TEAM_COLUMNS = (teams.c.id, teams.c.organization_id, teams.c.name, teams.c.description, _members_of_team)
_INSERT_TEAM = Statement(
    lambda: (
        insert(teams)
        .values(
            id=bindparam("id"),
            organization_id=bindparam("organization"),
            name=bindparam("name"),
            description=bindparam("description"),
        )
        .on_conflict_do_nothing(index_elements=["organization_id", "name"])
    )
)
_FIND_TEAM = Statement(
    lambda: (
        select(*_TEAM_COLUMNS, accounts.c.name)
        .join_from(teams, accounts, teams.c.organization_id == accounts.c.id)
        .where(
            or_(accounts.c.name == bindparam("organization"), accounts.c.id == bindparam("organization")),
            or_(teams.c.name == bindparam("team"), teams.c.id == bindparam("team")),
        )
    )
)
_TEAM_ITSELF = Statement(lambda: select(*_TEAM_COLUMNS).where(teams.c.id == bindparam("id")))
_LOCK_TEAM = Statement(
    lambda: select(*_TEAM_COLUMNS).where(teams.c.id == bindparam("id")).with_for_update(of=teams, key_share=True)
)
_list_teams = (
    select(*_TEAM_COLUMNS)
    .where(teams.c.organization_id == bindparam("organization"), teams.c.name >= bindparam("start"))
    .order_by(teams.c.name)
    .limit(_limit)
)
_LIST_TEAMS = Statement(_list_teams)
# Names of teams are lower-case already.
_FIND_TEAMS = Statement(lambda: _list_teams.where(teams.c.name.like(bindparam("pattern"), escape="\\")))
_CHANGE_TEAM = Statement(
    lambda: (
        update(teams)
        .where(teams.c.id == bindparam("which"))
        .values(name=bindparam("new_name"), description=bindparam("new_description"))
    )
)
_DELETE_TEAM = Statement(lambda: delete(teams).where(teams.c.id == bindparam("team")))
_ADD_TEAM_MEMBER = Statement(
    lambda: (
        insert(team_members)
        .values(team_id=bindparam("team"), user_id=bindparam("user"), is_admin=_is_admin)
        .on_conflict_do_nothing()
    )
)
_CHANGE_TEAM_MEMBER = Statement(
    lambda: (
        update(team_members)
        .where(
            team_members.c.team_id == bindparam("which"),
            team_members.c.user_id == bindparam("who"),
            team_members.c.is_admin != bindparam("admin", type_=Boolean),
        )
        .values(is_admin=bindparam("admin", type_=Boolean))
    )
)
_REMOVE_TEAM_MEMBER = Statement(lambda: delete(team_members).where(*_in_team))
_FIND_TEAM_MEMBER = Statement(lambda: select(team_members.c.is_admin).where(*_in_team))
_TEAMS_OF = Statement(
    lambda: (
        select(*_TEAM_COLUMNS, team_members.c.is_admin)
        .join_from(team_members, teams, team_members.c.team_id == teams.c.id)
        .where(
            team_members.c.user_id == bindparam("user"),
            teams.c.organization_id == bindparam("organization"),
            teams.c.id >= bindparam("start"),
        )
        .order_by(teams.c.id)
        .limit(_limit)
    )
)

_ALL_TEAMS_OF = Statement(
    lambda: (
        select(*_TEAM_COLUMNS, team_members.c.is_admin, accounts.c.name)
        .join_from(team_members, teams, team_members.c.team_id == teams.c.id)
        .join(accounts, accounts.c.id == teams.c.organization_id)
        .where(
            team_members.c.user_id == bindparam("user"),
            tuple_(accounts.c.name, teams.c.name) >= tuple_(bindparam("organization"), bindparam("team")),
        )
        .order_by(accounts.c.name, teams.c.name)
        .limit(_limit)
    )
)
_TEAMS_OF_ALL = Statement(
    lambda: (
        select(team_members.c.user_id, teams.c.name, team_members.c.is_admin)
        .join_from(team_members, teams, team_members.c.team_id == teams.c.id)
        # No index serves this form: a large team is not to be read for the few members that are asked about.
        .where(
            in_list(team_members.c.user_id, "users"),
            teams.c.organization_id.concat("") == bindparam("organization"),
        )
        .order_by(teams.c.name)
    )
)

# --- how many, and lists of members -----------------------------------------------------------------------------


def _number(table: Table, column: ColumnElement[str], name: str) -> ColumnElement[int]:
    return select(func.count()).select_from(table).where(column == accounts.c.id).scalar_subquery().label(name)


_SIZES = Statement(
    lambda: select(
        accounts.c.id,
        _number(organization_members, organization_members.c.organization_id, "members"),
        _number(teams, teams.c.organization_id, "teams"),
    ).where(in_list(accounts.c.id, "organizations"))
)


class _Membership:
    """Reading one side of the members of organisations or teams: the accounts in `listed`, of one `group`."""

    def __init__(
        self, listed: ColumnElement[str], group: ColumnElement[str], is_admin: ColumnElement[bool]
    ) -> None:
        self._listed = listed
        self._group = group
        self._is_admin = is_admin
        self._statements: dict[tuple[MemberFilter, MemberOrder, bool], Statement] = {}

    def statement(self, which: MemberFilter, order: MemberOrder, *, contains: bool) -> Statement:
        """A page of them; its parameters are `group`, `start`, `limit`, and `pattern` for what it `contains`."""
        key = (which, order, contains)
        if key not in self._statements:
            by = self._listed if order == "id" else accounts.c.name
            found = (
                select(*ACCOUNT_COLUMNS, self._is_admin)
                .join_from(self._listed.table, accounts, self._listed == accounts.c.id)
                .where(self._group == bindparam("group"), by >= bindparam("start"))
                .order_by(by)
                .limit(_limit)
            )
            if which != "all":
                found = found.where(self._is_admin.is_(which == "admins"))
            if contains:
                found = found.where(accounts.c.folded.like(bindparam("pattern"), escape="\\"))
            self._statements[key] = Statement(found)
        return self._statements[key]


_in = organization_members.c
_OF_ORGANIZATION = _Membership(_in.user_id, _in.organization_id, _in.is_admin)
_OF_USER = _Membership(_in.organization_id, _in.user_id, _in.is_admin)
_OF_TEAM = _Membership(team_members.c.user_id, team_members.c.team_id, team_members.c.is_admin)


class Member(Struct, frozen=True):
    """A user in an organisation or team; or an organisation that a user is in."""

    account: Account
    is_admin: bool


class Team(Struct, frozen=True):
    """A team, with the number of its members."""

    id: str
    organization_id: str
    name: str
    description: str
    members: int = 0


class Size(Struct, frozen=True):
    """How many members and teams an organisation has."""

    members: int
    teams: int


class Organizations:
    """The members and teams of all organisations. Where a name is wanted, an id does as well."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    # --- members ---

    async def put_member(
        self, organization: str, user: str, *, is_admin: bool | None = None, by: Actor = SYSTEM
    ) -> None:
        """
        Make a user a member of an organisation, `is_admin`: an owner. Raises AccountUnknown.

        None leaves a member as it is; a new one is no owner then.
        """
        group = await self._accounts.get(organization, "organization")
        who = await self._accounts.get(user, "user")

        async def work(tx: Transaction) -> None:
            if await tx.execute(_ADD_MEMBER, organization=group.id, user=who.id, is_admin=bool(is_admin)):
                await record(tx, _member_event("CREATE", group, who, by, is_admin=bool(is_admin)))
            elif is_admin is not None and await tx.execute(
                _CHANGE_MEMBER, which=group.id, who=who.id, admin=is_admin
            ):
                await record(tx, _member_event("UPDATE", group, who, by, is_admin=is_admin))

        await self._put(work, group, who)

    async def remove_member(self, organization: str, user: str, *, by: Actor = SYSTEM) -> None:
        """Take a user out of an organisation and its teams. Raises AccountUnknown."""
        group = await self._accounts.get(organization, "organization")
        who = await self._accounts.get(user, "user")

        async def work(tx: Transaction) -> None:
            if await tx.execute(_REMOVE_MEMBER, organization=group.id, user=who.id):
                await record(tx, _member_event("DELETE", group, who, by))
            await tx.execute(_REMOVE_FROM_TEAMS, organization=group.id, user=who.id)

        await self._database.unit(work)

    async def find_membership(self, organization_id: str, user_id: str) -> bool | None:
        """Whether a user, by id, is an owner of an organisation; None: no member of it."""
        row = await self._database.fetch_one(_FIND_MEMBER, organization=organization_id, user=user_id)
        return bool(row[0]) if row else None

    async def get_member(self, organization: str, user: str) -> Member:
        """A member of an organisation. Raises AccountUnknown, MemberUnknown."""
        group = await self._accounts.get(organization, "organization")
        who = await self._accounts.get(user, "user")
        is_admin = await self.find_membership(group.id, who.id)
        if is_admin is None:
            raise MemberUnknown(who.name, group.name)
        return Member(who, is_admin)

    async def list_members(
        self, organization: str, query: MemberQuery | None = None, *, limit: int
    ) -> list[Member]:
        """At most `limit` members of an organisation. Raises AccountUnknown."""
        group = await self._accounts.get(organization, "organization")
        return await self._list(_OF_ORGANIZATION, group.id, query, limit)

    async def list_organizations(self, user: str, query: MemberQuery | None = None, *, limit: int) -> list[Member]:
        """At most `limit` organisations that a user is in. Raises AccountUnknown."""
        who = await self._accounts.get(user, "user")
        return await self._list(_OF_USER, who.id, query, limit)

    async def sizes(self, organizations: Iterable[Account]) -> dict[str, Size]:
        """How large organisations are, by id, in one query; other accounts are left aside."""
        ids = [one.id for one in organizations if one.kind == "organization"]
        rows = await self._database.fetch_all(_SIZES, organizations=ids) if ids else []
        return {row[0]: Size(int(row[1]), int(row[2])) for row in rows}

    # --- teams ---

    async def create_team(self, organization: str, team: str, *, description: str = "", by: Actor = SYSTEM) -> str:
        """Make a team of an organisation; its id. Raises AccountUnknown, TeamNameInvalid, TeamNameTaken."""
        _check_team_name(team)
        group = await self._accounts.get(organization, "organization")
        made = Team(new_id(), group.id, team, description)

        async def work(tx: Transaction) -> None:
            if await tx.execute(
                _INSERT_TEAM, id=made.id, organization=group.id, name=team, description=description
            ):
                await record(tx, _team_event("CREATE", group.name, made, by))
            elif not await tx.fetch_one(_TEAM_ITSELF, id=made.id):  # not made when the unit ran before
                raise TeamNameTaken(team)

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # the organisation ended meanwhile
            raise AccountUnknown(organization) from None
        return made.id

    async def get_team(self, organization: str, team: str) -> Team:
        """A team of an organisation. Raises TeamUnknown."""
        return (await self._find_team(organization, team))[0]

    async def list_teams(
        self, organization: str, *, contains: str = "", start: str = "", limit: int
    ) -> list[Team]:
        """
        At most `limit` teams of an organisation, by name, from the name `start` on. Raises AccountUnknown.

        `contains`: a part of the name, in whatever case.
        """
        group = await self._accounts.get(organization, "organization")
        pattern = {"pattern": pattern_of(contains)} if contains else {}
        rows = await self._database.fetch_all(
            _FIND_TEAMS if contains else _LIST_TEAMS,
            organization=group.id,
            start=findable(start),
            limit=limit,
            **pattern,
        )
        return [Team(*row) for row in rows]

    async def teams_of(self, organization_id: str, users: Iterable[str]) -> dict[str, list[tuple[str, bool]]]:
        """
        The names of the teams of an organisation that users, by id, are in, in one query.

        With each comes whether the user administers it.
        """
        found: dict[str, list[tuple[str, bool]]] = {user: [] for user in users}
        if found:
            rows = await self._database.fetch_all(_TEAMS_OF_ALL, organization=organization_id, users=list(found))
            for user, name, is_admin in rows:
                found[user].append((name, bool(is_admin)))
        return found

    async def list_teams_of(
        self, organization: str, user: str, *, start: str = "", limit: int
    ) -> list[tuple[Team, bool]]:
        """
        At most `limit` teams of an organisation that a user is in, by id, from the id `start` on.

        With each comes whether the user administers it. Raises AccountUnknown.
        """
        group = await self._accounts.get(organization, "organization")
        who = await self._accounts.get(user, "user")
        rows = await self._database.fetch_all(
            _TEAMS_OF, organization=group.id, user=who.id, start=findable(start), limit=limit
        )
        return [(Team(*columns), bool(is_admin)) for *columns, is_admin in rows]

    async def list_all_teams_of(self, user: str, *, start: str = "", limit: int) -> list[tuple[str, Team, bool]]:
        """
        At most `limit` teams that a user is in, by ``organisation/team``, from `start` on, which is written so.

        With each comes the name of its organisation, and whether the user administers it. Raises AccountUnknown.
        """
        who = await self._accounts.get(user, "user")
        organization, _, team = start.partition("/")
        rows = await self._database.fetch_all(
            _ALL_TEAMS_OF,
            user=who.id,
            organization=findable(organization),
            team=findable(team),
            limit=limit,
        )
        return [(name, Team(*columns), bool(is_admin)) for *columns, is_admin, name in rows]

    async def update_team(
        self,
        organization: str,
        team: str,
        *,
        name: str | None = None,
        description: str | None = None,
        by: Actor = SYSTEM,
    ) -> Team:
        """
        Change of a team what is not None; how it is then.

        Raises TeamUnknown, TeamNameInvalid, TeamNameTaken.
        """
        if name is not None:
            _check_team_name(name)
        found, organization_name = await self._find_team(organization, team)

        async def work(tx: Transaction) -> Team:
            row = await tx.fetch_one(_LOCK_TEAM, id=found.id)
            if row is None:
                raise TeamUnknown(organization, team)
            before = Team(*row)
            after = replace(
                before,
                name=before.name if name is None else name,
                description=before.description if description is None else description,
            )
            if after != before:
                await tx.execute(
                    _CHANGE_TEAM, which=after.id, new_name=after.name, new_description=after.description
                )
                await record(tx, _team_event("UPDATE", organization_name, before, by, after))
            return after

        try:
            return await self._database.unit(work)
        except ConstraintViolated:
            raise TeamNameTaken(name or found.name) from None

    async def delete_team(self, organization: str, team: str, *, by: Actor = SYSTEM) -> None:
        """Remove a team and what it was granted. Raises TeamUnknown."""
        found, organization_name = await self._find_team(organization, team)

        async def work(tx: Transaction) -> None:
            if await tx.execute(_DELETE_TEAM, team=found.id):
                await record(tx, _team_event("DELETE", organization_name, found, by))

        await self._database.unit(work)

    # --- members of teams ---

    async def put_team_member(
        self, organization: str, team: str, user: str, *, is_admin: bool | None = None, by: Actor = SYSTEM
    ) -> None:
        """
        Put a user into a team, and thereby into the organisation; `is_admin`: may edit the team.

        None leaves a member as it is; a new one edits nothing then. Raises TeamUnknown, AccountUnknown.
        """
        found, _ = await self._find_team(organization, team)
        group = await self._accounts.get(found.organization_id, "organization")
        who = await self._accounts.get(user, "user")

        async def work(tx: Transaction) -> None:
            if await tx.execute(_ADD_MEMBER, organization=group.id, user=who.id, is_admin=False):
                await record(tx, _member_event("CREATE", group, who, by, is_admin=False))
            else:
                await tx.execute(_HOLD_MEMBER, organization=group.id, user=who.id, is_admin=False)
            if await tx.execute(_ADD_TEAM_MEMBER, team=found.id, user=who.id, is_admin=bool(is_admin)):
                await record(tx, _team_member_event("CREATE", group, found, who, by, is_admin=bool(is_admin)))
            elif is_admin is not None and await tx.execute(
                _CHANGE_TEAM_MEMBER, which=found.id, who=who.id, admin=is_admin
            ):
                await record(tx, _team_member_event("UPDATE", group, found, who, by, is_admin=is_admin))

        await self._put(work, group, who, found)

    async def remove_team_member(self, organization: str, team: str, user: str, *, by: Actor = SYSTEM) -> None:
        """Take a user out of a team. Raises TeamUnknown, AccountUnknown."""
        found, _ = await self._find_team(organization, team)
        group = await self._accounts.get(found.organization_id, "organization")
        who = await self._accounts.get(user, "user")

        async def work(tx: Transaction) -> None:
            if await tx.execute(_REMOVE_TEAM_MEMBER, team=found.id, user=who.id):
                await record(tx, _team_member_event("DELETE", group, found, who, by))

        await self._database.unit(work)

    async def find_team_membership(self, team_id: str, user_id: str) -> bool | None:
        """Whether a user, by id, administers a team; None: no member of it."""
        row = await self._database.fetch_one(_FIND_TEAM_MEMBER, team=team_id, user=user_id)
        return bool(row[0]) if row else None

    async def get_team_member(self, organization: str, team: str, user: str) -> Member:
        """A member of a team. Raises TeamUnknown, AccountUnknown, MemberUnknown."""
        found = await self.get_team(organization, team)
        who = await self._accounts.get(user, "user")
        is_admin = await self.find_team_membership(found.id, who.id)
        if is_admin is None:
            raise MemberUnknown(who.name, found.name)
        return Member(who, is_admin)

    async def list_team_members(
        self, organization: str, team: str, query: MemberQuery | None = None, *, limit: int
    ) -> list[Member]:
        """At most `limit` members of a team. Raises TeamUnknown."""
        found = await self.get_team(organization, team)
        return await self._list(_OF_TEAM, found.id, query, limit)

    # --- what these have in common ---

    async def _find_team(self, organization: str, team: str) -> tuple[Team, str]:
        """A team, and the name of its organisation. Raises TeamUnknown."""
        row = await self._database.fetch_one(_FIND_TEAM, organization=findable(organization), team=findable(team))
        if row is None:
            raise TeamUnknown(organization, team)
        *columns, name = row
        return Team(*columns), name

    async def _list(
        self, membership: _Membership, group: str, query: MemberQuery | None, limit: int
    ) -> list[Member]:
        query = query or MemberQuery()
        pattern = {"pattern": pattern_of(query.contains)} if query.contains else {}
        rows = await self._database.fetch_all(
            membership.statement(query.filter, query.order, contains=bool(pattern)),
            group=group,
            start=findable(query.start),
            limit=limit,
            **pattern,
        )
        return [Member(account_of(row), bool(row[-1])) for row in rows]

    async def _put(
        self,
        work: Callable[[Transaction], Coroutine[Any, Any, None]],
        group: Account,
        who: Account,
        team: Team | None = None,
    ) -> None:
        """Run a unit that puts somebody somewhere; what ended meanwhile is named."""
        try:
            await self._database.unit(work)
        except ConstraintViolated:
            await self._accounts.get(group.id, "organization")
            if team is not None:
                await self.get_team(group.id, team.id)
            raise AccountUnknown(who.name) from None


def _check_team_name(name: str) -> None:
    try:
        check_name(name)
    except AccountNameInvalid as error:
        raise TeamNameInvalid(str(error)) from None


def _member_event(kind: EventType, organization: Account, user: Account, by: Actor, **content: object) -> Event:
    what = Object("member", user.id, user.name, json.dumps(content) if content else "")
    return Event(type=kind, actor=by, object=what, target=organization.as_object())


def _team_event(kind: EventType, organization: str, team: Team, by: Actor, after: Team | None = None) -> Event:
    return Event(
        type=kind,
        actor=by,
        object=_team_object(organization, team),
        target=None if after is None else _team_object(organization, after),
    )


def _team_member_event(
    kind: EventType, organization: Account, team: Team, user: Account, by: Actor, **content: object
) -> Event:
    what = Object("team_member", user.id, user.name, json.dumps(content) if content else "")
    return Event(type=kind, actor=by, object=what, target=_team_object(organization.name, team))


def _team_object(organization: str, team: Team) -> Object:
    return Object("team", team.id, f"{organization}/{team.name}", team.description)
