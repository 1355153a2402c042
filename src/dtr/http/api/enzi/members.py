"""``/enzi/v0/accounts/{org}/members``: who is in an organization; and in which organizations a user is."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Query, Response
from pydantic import Field

from dtr.accounts import MemberFilter, MemberOrder, MemberQuery, Operation, may
from dtr.http.api.caller import CallerDep
from dtr.http.api.enzi.records import (
    LONGEST_TEXT,
    List,
    MemberRecord,
    MembershipForm,
    Route,
    TeamRecord,
    account_records,
    member_record,
)
from dtr.http.api.enzi.rights import joined, own, owned
from dtr.http.api.errors import errors
from dtr.http.api.models import AccountRecord, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import ListDep
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import Member
    from dtr.http.api.paging import Page
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/enzi/v0/accounts", tags=["enzi"], route_class=Route)

_READ = errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")


def _query(
    page: ListDep,
    which: Annotated[MemberFilter, Query(alias="filter", description="Which members.")] = "all",
    order: Annotated[
        MemberOrder, Query(description="By what they are listed; `start` is an id, or a name.")
    ] = "id",
    contains: Annotated[
        str, Query(max_length=LONGEST_TEXT, description="A part of name or full name, in whatever case.")
    ] = "",
) -> MemberQuery:
    return MemberQuery(filter=which, order=order, contains=contains, start=page.start)


QueryDep = Annotated[MemberQuery, Depends(_query)]
"""Which members are asked for, and in which order."""


class TeamOfMember(Record):
    """A team that a member is in."""

    name: str
    is_admin: bool = Field(description="May edit the team and its members.")


class ListedMember(MemberRecord):
    """A member on a page."""

    teams: list[TeamOfMember] | None = Field(
        None, description="With `details`: the member's teams in the organization, by name."
    )
    last_login: dt.datetime | None = Field(
        None,
        description="With `details`, for owners of the organization, administrators and auditors: when the member"
        " logged in last, to the minute; missing: never.",
    )


class MemberList(List):
    """A page of members."""

    members: list[ListedMember]
    resource_count: int = Field(description="How many members there are, whatever was asked for.")

    @classmethod
    async def of(
        cls,
        rooms: Rooms,
        found: list[Member],
        page: Page,
        query: MemberQuery,
        count: int,
        *,
        teams_in: str | None = None,
        with_logins: bool = False,
    ) -> MemberList:
        """The page of the members that were `found`; with their teams in the organization of the id `teams_in`."""
        shown = found[: page.size]
        teams = {}
        if teams_in is not None:
            teams = await rooms.accounts.organizations.teams_of(teams_in, [one.account.id for one in shown])
        details = await rooms.accounts.details(one.account for one in shown) if with_logins else {}
        logins = {number: one.last_login_at for number, one in details.items()}
        return cls(
            members=[
                ListedMember(
                    **dict(member_record(one)),
                    teams=[TeamOfMember(name=name, is_admin=is_admin) for name, is_admin in teams[one.account.id]]
                    if teams
                    else None,
                    last_login=None if (at := logins.get(one.account.id)) is None else moment(at),
                )
                for one in shown
            ],
            resource_count=count,
            next_page_start=query.marker(found[page.size].account) if len(found) > page.size else "",
        )


class MemberOrganization(Record):
    """An organization that a user is in."""

    org: AccountRecord
    is_admin: bool = Field(description="The user is an owner of it.")


class MemberOrganizationList(List):
    """A page of organizations."""

    member_orgs: list[MemberOrganization]


class MemberTeam(Record):
    """A team that a user is in."""

    team: TeamRecord
    is_admin: bool = Field(description="The user may edit the team and its members.")


class MemberTeamList(List):
    """A page of teams."""

    member_teams: list[MemberTeam]


@router.get("/{user}/organizations", summary="A user's organizations", responses=_READ)
async def list_organizations_of_user(
    user: str, page: ListDep, query: QueryDep, caller: CallerDep, rooms: RoomsDep, response: Response
) -> MemberOrganizationList:
    """For the user itself, and for administrators. The filter `admins` lists those that the user owns."""
    account = await own(caller, rooms.accounts, user, Operation.SEE_SYSTEM, "user")
    found = await rooms.accounts.organizations.list_organizations(account.id, query, limit=page.limit)
    shown = found[: page.size]
    records = await account_records(rooms.accounts, [one.account for one in shown])
    listed = MemberOrganizationList(
        member_orgs=[
            MemberOrganization(org=record, is_admin=one.is_admin)
            for record, one in zip(records, shown, strict=True)
        ],
        next_page_start=query.marker(found[page.size].account) if len(found) > page.size else "",
    )
    listed.told(response)
    return listed


@router.get("/{org}/members", summary="An organization's members", responses=_READ)
async def list_members(
    org: str,
    page: ListDep,
    query: QueryDep,
    caller: CallerDep,
    rooms: RoomsDep,
    response: Response,
    details: Annotated[bool, Query(description="With the teams of each, and its last log-in.")] = False,
) -> MemberList:
    """For its members, and for administrators."""
    organization = await joined(caller, rooms.accounts, org)
    organizations = rooms.accounts.organizations
    found = await organizations.list_members(organization.id, query, limit=page.limit)
    size = (await organizations.sizes([organization]))[organization.id]
    facts = (await caller.standing(f"{organization.name}/")).facts
    owns = may(facts, Operation.MANAGE_ORGANIZATION) or caller.may(Operation.SEE_SYSTEM)
    listed = await MemberList.of(
        rooms,
        found,
        page,
        query,
        size.members,
        teams_in=organization.id if details else None,
        with_logins=details and owns,
    )
    listed.told(response, size.members)
    return listed


@router.get(
    "/{org}/members/{user}",
    summary="A member of an organization",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_MEMBER"),
)
async def get_member(org: str, user: str, caller: CallerDep, rooms: RoomsDep) -> MemberRecord:
    """For the user itself, for members of the organization, and for administrators."""
    organization = await joined(caller, rooms.accounts, org, user=user)
    return member_record(await rooms.accounts.organizations.get_member(organization.id, user))


@router.put("/{org}/members/{user}", summary="Put a user into an organization", responses=_READ)
async def put_member(
    org: str, user: str, caller: CallerDep, rooms: RoomsDep, form: MembershipForm | None = None
) -> MemberRecord:
    """For owners of the organization, and for administrators."""
    organization = await owned(caller, rooms.accounts, org)
    organizations = rooms.accounts.organizations
    await organizations.put_member(
        organization.id, user, is_admin=form.is_admin if form else None, by=caller.actor
    )
    return member_record(await organizations.get_member(organization.id, user))


@router.delete(
    "/{org}/members/{user}", status_code=204, summary="Take a user out of an organization", responses=_READ
)
async def delete_member(org: str, user: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For owners of the organization, and for administrators. The user leaves its teams, too."""
    organization = await owned(caller, rooms.accounts, org)
    await rooms.accounts.organizations.remove_member(organization.id, user, by=caller.actor)


@router.get("/{org}/members/{user}/teams", summary="The teams that a member is in", responses=_READ)
async def list_teams_of_member(
    org: str, user: str, page: ListDep, caller: CallerDep, rooms: RoomsDep, response: Response
) -> MemberTeamList:
    """For members of the organization, and for administrators. In the order of ids."""
    organization = await joined(caller, rooms.accounts, org, user=user)
    found = await rooms.accounts.organizations.list_teams_of(
        organization.id, user, start=page.start, limit=page.limit
    )
    listed = MemberTeamList(
        member_teams=[
            MemberTeam(team=TeamRecord.of(team), is_admin=is_admin) for team, is_admin in found[: page.size]
        ],
        next_page_start=found[page.size][0].id if len(found) > page.size else "",
    )
    listed.told(response)
    return listed
