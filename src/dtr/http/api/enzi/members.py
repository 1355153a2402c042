"""``/enzi/v0/accounts/{org}/members``: who is in an organization; and in which organizations a user is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from dtr.accounts import MemberFilter, Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.enzi.records import (
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
from dtr.http.api.models import AccountRecord, Record
from dtr.http.api.paging import ListDep
from dtr.http.api.rooms import RoomsDep

router = APIRouter(prefix="/enzi/v0/accounts", tags=["enzi"], route_class=Route)

FilterDep = Annotated[MemberFilter, Query(alias="filter", description="Which members.")]
_READ = errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")


class MemberList(List):
    """A page of members."""

    members: list[MemberRecord]
    resource_count: int = Field(description="How many members there are, whatever was asked for.")


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
    user: str, page: ListDep, caller: CallerDep, rooms: RoomsDep, response: Response
) -> MemberOrganizationList:
    """For the user itself, and for administrators. In the order of ids."""
    account = await own(caller, rooms.accounts, user, Operation.SEE_SYSTEM, "user")
    found = await rooms.accounts.organizations.list_organizations(account.id, start=page.start, limit=page.limit)
    shown = found[: page.size]
    records = await account_records(rooms.accounts, [one.account for one in shown])
    listed = MemberOrganizationList(
        member_orgs=[
            MemberOrganization(org=record, is_admin=one.is_admin)
            for record, one in zip(records, shown, strict=True)
        ],
        next_page_start=found[page.size].account.id if len(found) > page.size else "",
    )
    listed.told(response)
    return listed


@router.get("/{org}/members", summary="An organization's members", responses=_READ)
async def list_members(
    org: str,
    page: ListDep,
    caller: CallerDep,
    rooms: RoomsDep,
    response: Response,
    which: FilterDep = "all",
) -> MemberList:
    """For its members, and for administrators. In the order of ids."""
    organization = await joined(caller, rooms.accounts, org)
    organizations = rooms.accounts.organizations
    found = await organizations.list_members(organization.id, which, start=page.start, limit=page.limit)
    size = (await organizations.sizes([organization]))[organization.id]
    listed = MemberList(
        members=[member_record(one) for one in found[: page.size]],
        resource_count=size.members,
        next_page_start=found[page.size].account.id if len(found) > page.size else "",
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
