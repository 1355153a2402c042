"""``/enzi/v0/accounts/{user}/memberTeams``: in which teams a user is, whatever their organizations."""

from __future__ import annotations

from fastapi import Response  # noqa: TC002 - operations need it
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.enzi.records import List, Route, TeamRecord
from dtr.http.api.enzi.rights import own
from dtr.http.api.errors import errors
from dtr.http.api.models import Record
from dtr.http.api.operations import Router
from dtr.http.api.paging import ListDep
from dtr.http.api.rooms import RoomsDep

router = Router(prefix="/enzi/v0/accounts", tags=["enzi"], route_class=Route)


class UserTeam(Record):
    """A team that a user is in."""

    org_name: str = Field(description="The name of its organization.")
    team: TeamRecord
    is_admin: bool = Field(description="The user may edit the team and its members.")


class UserTeamList(List):
    """A page of teams."""

    member_teams: list[UserTeam]


@router.get(
    "/{user}/memberTeams",
    summary="The teams that a user is in",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"),
)
async def list_teams_of_user(
    user: str, page: ListDep, caller: CallerDep, rooms: RoomsDep, response: Response
) -> UserTeamList:
    """For the user itself, and for administrators. By the names of the organization and of the team."""
    account = await own(caller, rooms.accounts, user, Operation.SEE_SYSTEM, "user")
    found = await rooms.accounts.organizations.list_all_teams_of(account.id, start=page.start, limit=page.limit)
    names = [f"{organization}/{team.name}" for organization, team, _ in found]
    listed = UserTeamList(
        member_teams=[
            UserTeam(org_name=organization, team=TeamRecord.of(team), is_admin=is_admin)
            for organization, team, is_admin in found[: page.size]
        ],
        next_page_start=names[page.size] if len(found) > page.size else "",
    )
    listed.told(response)
    return listed
