"""``/enzi/v0/accounts/{org}/teams``: the teams of an organization, and who is in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from dtr.http.api.caller import CallerDep
from dtr.http.api.enzi.members import MemberList, QueryDep
from dtr.http.api.enzi.records import (
    LONGEST_TEXT,
    List,
    MemberRecord,
    MembershipForm,
    Route,
    TeamRecord,
    member_record,
)
from dtr.http.api.enzi.rights import joined, led, owned
from dtr.http.api.errors import errors
from dtr.http.api.models import AccountName, Form
from dtr.http.api.operations import Router
from dtr.http.api.paging import ListDep
from dtr.http.api.rooms import RoomsDep

router = Router(prefix="/enzi/v0/accounts/{org}/teams", tags=["enzi"], route_class=Route)

_READ = errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_TEAM")


class TeamList(List):
    """A page of teams."""

    teams: list[TeamRecord]
    resource_count: int = Field(description="How many teams there are.")


class TeamForm(Form):
    """A team to be made."""

    name: AccountName = Field(description="As names of accounts are.")
    description: str = Field("", max_length=LONGEST_TEXT)


class TeamChange(Form):
    """What of a team is to be changed; what is missing stays."""

    name: AccountName | None = None
    description: str | None = Field(None, max_length=LONGEST_TEXT)


@router.get("", summary="An organization's teams", responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"))
async def list_teams(
    org: str,
    page: ListDep,
    caller: CallerDep,
    rooms: RoomsDep,
    response: Response,
    contains: Annotated[
        str, Query(max_length=LONGEST_TEXT, description="A part of the name, in whatever case.")
    ] = "",
) -> TeamList:
    """For its members, and for administrators. In the order of names."""
    organization = await joined(caller, rooms.accounts, org)
    organizations = rooms.accounts.organizations
    found = await organizations.list_teams(organization.id, contains=contains, start=page.start, limit=page.limit)
    size = (await organizations.sizes([organization]))[organization.id]
    listed = TeamList(
        teams=[TeamRecord.of(one) for one in found[: page.size]],
        resource_count=size.teams,
        next_page_start=found[page.size].name if len(found) > page.size else "",
    )
    listed.told(response, size.teams)
    return listed


@router.post(
    "",
    status_code=201,
    summary="Make a team",
    responses=errors("INVALID_TEAM_NAME", "TEAM_EXISTS", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"),
)
async def create_team(org: str, form: TeamForm, caller: CallerDep, rooms: RoomsDep) -> TeamRecord:
    """For owners of the organization, and for administrators."""
    organization = await owned(caller, rooms.accounts, org)
    organizations = rooms.accounts.organizations
    made = await organizations.create_team(
        organization.id, form.name, description=form.description, by=caller.actor
    )
    return TeamRecord.of(await organizations.get_team(organization.id, made))


@router.get("/{team}", summary="A team", responses=_READ)
async def get_team(org: str, team: str, caller: CallerDep, rooms: RoomsDep) -> TeamRecord:
    """For members of the organization, and for administrators."""
    organization = await joined(caller, rooms.accounts, org)
    return TeamRecord.of(await rooms.accounts.organizations.get_team(organization.id, team))


@router.patch(
    "/{team}",
    summary="Change a team",
    responses=errors("INVALID_TEAM_NAME", "TEAM_EXISTS", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_TEAM"),
)
async def update_team(org: str, team: str, form: TeamChange, caller: CallerDep, rooms: RoomsDep) -> TeamRecord:
    """For who administers the team, for owners of the organization, and for administrators."""
    organization, found = await led(caller, rooms.accounts, org, team)
    changed = await rooms.accounts.organizations.update_team(
        organization.id, found.id, name=form.name, description=form.description, by=caller.actor
    )
    return TeamRecord.of(changed)


@router.delete("/{team}", status_code=204, summary="Remove a team", responses=_READ)
async def delete_team(org: str, team: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For owners of the organization, and for administrators. What it was granted ends with it."""
    organization = await owned(caller, rooms.accounts, org)
    await rooms.accounts.organizations.delete_team(organization.id, team, by=caller.actor)


@router.get("/{team}/members", summary="A team's members", responses=_READ)
async def list_team_members(
    org: str,
    team: str,
    page: ListDep,
    query: QueryDep,
    caller: CallerDep,
    rooms: RoomsDep,
    response: Response,
) -> MemberList:
    """For members of the organization, and for administrators."""
    organization = await joined(caller, rooms.accounts, org)
    organizations = rooms.accounts.organizations
    of = await organizations.get_team(organization.id, team)
    found = await organizations.list_team_members(organization.id, of.id, query, limit=page.limit)
    listed = await MemberList.of(rooms, found, page, query, of.members)
    listed.told(response, of.members)
    return listed


@router.get(
    "/{team}/members/{user}",
    summary="A member of a team",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_TEAM", "NO_SUCH_MEMBER"),
)
async def get_team_member(org: str, team: str, user: str, caller: CallerDep, rooms: RoomsDep) -> MemberRecord:
    """For members of the organization, and for administrators."""
    organization = await joined(caller, rooms.accounts, org)
    return member_record(await rooms.accounts.organizations.get_team_member(organization.id, team, user))


@router.put("/{team}/members/{user}", summary="Put a user into a team", responses=_READ)
async def put_team_member(
    org: str,
    team: str,
    user: str,
    caller: CallerDep,
    rooms: RoomsDep,
    form: MembershipForm | None = None,
) -> MemberRecord:
    """
    For who administers the team, for owners of the organization, and for administrators.

    Who was not in the organization is then.
    """
    organization, found = await led(caller, rooms.accounts, org, team)
    organizations = rooms.accounts.organizations
    await organizations.put_team_member(
        organization.id, found.id, user, is_admin=form.is_admin if form else None, by=caller.actor
    )
    return member_record(await organizations.get_team_member(organization.id, found.id, user))


@router.delete("/{team}/members/{user}", status_code=204, summary="Take a user out of a team", responses=_READ)
async def delete_team_member(org: str, team: str, user: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For who administers the team, for owners of the organization, and for administrators.

    The user stays in the organization.
    """
    organization, found = await led(caller, rooms.accounts, org, team)
    await rooms.accounts.organizations.remove_team_member(organization.id, found.id, user, by=caller.actor)
