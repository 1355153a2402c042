"""
Organisations: who belongs to one, and its teams.

A member is an owner (`is_admin`) or not; who is in a team is in its organisation, too. A member of a team may have
`is_admin` there: such a member edits the team and who is in it, which is no right on repositories.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import Boolean, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import NameTaken, TeamUnknown
from dtr.accounts.records import check_name, findable
from dtr.db import Statement
from dtr.db.schema import accounts, organization_members, team_members, teams

if TYPE_CHECKING:
    from dtr.accounts.accounts import Accounts
    from dtr.db import Database, Transaction

_PUT_MEMBER = Statement(
    insert(organization_members)
    .values(
        organization_id=bindparam("organization"),
        user_id=bindparam("user"),
        is_admin=bindparam("is_admin", type_=Boolean),
    )
    .on_conflict_do_update(
        index_elements=["organization_id", "user_id"], set_={"is_admin": bindparam("is_admin", type_=Boolean)}
    )
)
_ADD_MEMBER = Statement(
    insert(organization_members)
    .values(organization_id=bindparam("organization"), user_id=bindparam("user"), is_admin=False)
    # The update changes nothing: it locks the row, so that nobody is put into a team while leaving.
    .on_conflict_do_update(
        index_elements=["organization_id", "user_id"], set_={"is_admin": organization_members.c.is_admin}
    )
)
_REMOVE_MEMBER = Statement(
    delete(organization_members).where(
        organization_members.c.organization_id == bindparam("organization"),
        organization_members.c.user_id == bindparam("user"),
    )
)
_REMOVE_FROM_TEAMS = Statement(
    delete(team_members).where(
        team_members.c.user_id == bindparam("user"),
        team_members.c.team_id.in_(select(teams.c.id).where(teams.c.organization_id == bindparam("organization"))),
    )
)
_INSERT_TEAM = Statement(
    insert(teams)
    .values(
        id=bindparam("id"),
        organization_id=bindparam("organization"),
        name=bindparam("name"),
        description=bindparam("description"),
    )
    .on_conflict_do_nothing(index_elements=["organization_id", "name"])
)
_FIND_TEAM = Statement(
    select(teams.c.id, teams.c.organization_id)
    .join_from(teams, accounts, teams.c.organization_id == accounts.c.id)
    .where(accounts.c.name == bindparam("organization"), teams.c.name == bindparam("team"))
)
_DELETE_TEAM = Statement(delete(teams).where(teams.c.id == bindparam("team")))
_PUT_TEAM_MEMBER = Statement(
    insert(team_members)
    .values(team_id=bindparam("team"), user_id=bindparam("user"), is_admin=False)
    .on_conflict_do_nothing()
)
_REMOVE_TEAM_MEMBER = Statement(
    delete(team_members).where(
        team_members.c.team_id == bindparam("team"), team_members.c.user_id == bindparam("user")
    )
)


class Organizations:
    """The members and teams of all organisations."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    async def put_member(self, organization: str, user: str, *, is_admin: bool = False) -> None:
        """Make a user a member of an organisation, `is_admin`: an owner. Raises AccountUnknown."""
        organization_id = (await self._accounts.get(organization, "organization")).id
        user_id = (await self._accounts.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_PUT_MEMBER, organization=organization_id, user=user_id, is_admin=is_admin)

        await self._database.unit(work)

    async def remove_member(self, organization: str, user: str) -> None:
        """Take a user out of an organisation and its teams. Raises AccountUnknown."""
        organization_id = (await self._accounts.get(organization, "organization")).id
        user_id = (await self._accounts.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_REMOVE_MEMBER, organization=organization_id, user=user_id)
            await tx.execute(_REMOVE_FROM_TEAMS, organization=organization_id, user=user_id)

        await self._database.unit(work)

    async def create_team(self, organization: str, team: str, *, description: str = "") -> str:
        """Make a team of an organisation; its id. Raises AccountUnknown, AccountNameInvalid, NameTaken."""
        check_name(team)
        organization_id = (await self._accounts.get(organization, "organization")).id
        made = str(uuid.uuid4())

        async def work(tx: Transaction) -> None:
            if not await tx.execute(
                _INSERT_TEAM, id=made, organization=organization_id, name=team, description=description
            ):
                raise NameTaken(team)

        await self._database.unit(work)
        return made

    async def delete_team(self, organization: str, team: str) -> None:
        """Remove a team and what it was granted. Raises TeamUnknown."""
        team_id, _ = await self.team_ids(organization, team)

        async def work(tx: Transaction) -> None:
            await tx.execute(_DELETE_TEAM, team=team_id)

        await self._database.unit(work)

    async def put_team_member(self, organization: str, team: str, user: str) -> None:
        """Put a user into a team, and thereby into the organisation. Raises TeamUnknown, AccountUnknown."""
        team_id, organization_id = await self.team_ids(organization, team)
        user_id = (await self._accounts.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_ADD_MEMBER, organization=organization_id, user=user_id)
            await tx.execute(_PUT_TEAM_MEMBER, team=team_id, user=user_id)

        await self._database.unit(work)

    async def remove_team_member(self, organization: str, team: str, user: str) -> None:
        """Take a user out of a team. Raises TeamUnknown, AccountUnknown."""
        team_id, _ = await self.team_ids(organization, team)
        user_id = (await self._accounts.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_REMOVE_TEAM_MEMBER, team=team_id, user=user_id)

        await self._database.unit(work)

    async def team_ids(self, organization: str, team: str) -> tuple[str, str]:
        """The ids of a team and of its organisation. Raises TeamUnknown."""
        row = await self._database.fetch_one(_FIND_TEAM, organization=findable(organization), team=findable(team))
        if row is None:
            raise TeamUnknown(organization, team)
        return row[0], row[1]
