"""Teams of an organisation: who is in them, what they were granted, and their names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec import Struct

from dtr.accounts import MemberQuery, MemberUnknown, Operation
from dtr.http.api import access, repositories
from dtr.http.api.enzi import members, teams
from dtr.http.api.enzi.records import MembershipForm
from dtr.http.api.errors import ApiError
from dtr.http.ui import grants
from dtr.http.ui.organizations import (
    Organization,
    add_people,
    after,
    organization,
)
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.enzi.records import TeamRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

_FIELDS = {"INVALID_TEAM_NAME": "name", "TEAM_EXISTS": "name"}


class Team(Struct, frozen=True):
    """The team that a page is about."""

    organization: Organization
    record: TeamRecord
    has_visitor: bool
    leads: bool
    """The visitor may edit it, and who is in it."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.record.name

    @property
    def url(self) -> str:
        """The address of its pages, without a slash at the end."""
        return f"{self.organization.url}/teams/{quote(self.name)}"

    @property
    def sees_repositories(self) -> bool:
        """What it was granted concerns who is in it, and owners."""
        return self.has_visitor or self.organization.manages_members or self.organization.sees_system


async def find_team(visit: Visit) -> Team:
    """
    The team of the address, whose parts are called `org` and `team`: its name, or ``id:`` and its id.

    Raises ApiError.
    """
    org = await organization(visit)
    wanted = visit.values["team"].removeprefix("id:")
    record = await visit.call(teams.get_team, org=org.name, team=wanted)
    account = visit.require_login()
    membership = None
    with contextlib.suppress(MemberUnknown):
        membership = await visit.call(teams.get_team_member, org=org.name, team=record.id, user=account.name)
    return Team(
        organization=org,
        record=record,
        has_visitor=membership is not None,
        leads=org.manages_members or (membership is not None and membership.is_admin and org.facts.is_member),
    )


@pages.get("/orgs/{org}/teams")
async def list_teams(visit: Visit) -> Response:
    """The organisation's teams."""
    org = await organization(visit)
    contains = visit.query.get("q", "")[:1_000]
    listing = await visit.listing(teams.list_teams, org=org.name, contains=contains)
    account = visit.require_login()
    own = await visit.listing(members.list_teams_of_member, start="", size=100, org=org.name, user=account.name)
    roles = {one.team.name: one.is_admin for one in own.records.member_teams}
    return visit.page("organizations/teams.html", org=org, listing=listing, q=contains, roles=roles)


@pages.get("/orgs/{org}/teams/new")
async def new_team(visit: Visit) -> Response:
    """The form for one."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    return visit.page("organizations/team_new.html", org=org, form={"name": "", "description": ""})


@pages.post("/orgs/{org}/teams/new")
async def create_team(visit: Visit) -> Response:
    """Make one."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form = {name: await visit.text(name) for name in ("name", "description")}
    try:
        made = await visit.submit(teams.create_team, form=teams.TeamForm, data=form, fields=_FIELDS, org=org.name)
    except Refused as refused:
        return visit.refuse("organizations/team_new.html", refused, org=org, form=form)
    said = visit._("The team {team} is there now.", team=made.name)
    return visit.redirect(f"{org.url}/teams/{quote(made.name)}/users", said)


@pages.get(
    "/orgs/{org}/teams/id:{team}",
    "/orgs/{org}/teams/id:{team}/users",
    "/orgs/{org}/teams/id:{team}/repos",
    "/orgs/{org}/teams/id:{team}/settings",
)
async def find_by_id(visit: Visit) -> Response:
    """DTR's addresses named teams by their ids."""
    team = await find_team(visit)
    page = visit.path.rpartition("/")[2]
    return visit.redirect(f"{team.url}/{page if page in {'repos', 'settings'} else 'users'}", status=308)


@pages.get("/orgs/{org}/teams/{team}")
async def show_team(visit: Visit) -> Response:
    """Its first page."""
    return visit.redirect(f"{(await find_team(visit)).url}/users", status=302)


# --- people -----------------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/teams/{team}/users")
async def list_people(visit: Visit) -> Response:
    """Who is in it."""
    team = await find_team(visit)
    contains, start = visit.query.get("q", "")[:1_000], visit.query.get("start", "")[:1_024]
    listing = await visit.listing(
        teams.list_team_members,
        org=team.organization.name,
        team=team.record.id,
        query=MemberQuery(order="name", contains=contains, start=start),
    )
    return visit.page("organizations/team_people.html", team=team, listing=listing, q=contains)


@pages.get("/orgs/{org}/teams/{team}/users/new")
async def new_people(visit: Visit) -> Response:
    """The form for one and for many."""
    team = await _led(visit)
    return visit.page(
        "organizations/add_people.html",
        org=team.organization,
        team=team,
        form={"name": "", "names": "", "role": "member"},
    )


@pages.post("/orgs/{org}/teams/{team}/users/new")
async def add_to_team(visit: Visit) -> Response:
    """Put people in: each by itself, so that some may be refused."""
    team = await _led(visit)

    async def add(name: str, *, is_admin: bool | None) -> None:
        await visit.submit(
            teams.put_team_member,
            org=team.organization.name,
            team=team.record.id,
            user=name,
            form=MembershipForm,
            data={"isAdmin": is_admin},
            fields={"NO_SUCH_ACCOUNT": "name"},
        )

    return await add_people(visit, team.organization, team, add, f"{team.url}/users")


@pages.post("/orgs/{org}/teams/{team}/users/role")
async def change_person(visit: Visit) -> Response:
    """Let somebody edit the team or not; also put back who was taken out."""
    team = await find_team(visit)
    name, role = await visit.text("name"), await visit.text("role")
    await visit.call(
        teams.put_team_member,
        org=team.organization.name,
        team=team.record.id,
        user=name,
        form=MembershipForm(is_admin=role == "admin"),
    )
    said = (
        visit._("{name} manages the team {team} now.", name=name, team=team.name)
        if role == "admin"
        else visit._("{name} is in the team {team} now.", name=name, team=team.name)
    )
    undo = (f"{team.url}/users/role", {"name": name, "role": "member" if role == "admin" else "admin"})
    return after(visit, team.organization, f"{team.url}/users", said, undo)


@pages.post("/orgs/{org}/teams/{team}/users/remove")
async def remove_person(visit: Visit) -> Response:
    """Take somebody out of it; in the organisation the person stays."""
    team = await find_team(visit)
    name = await visit.text("name")
    where = {"org": team.organization.name, "team": team.record.id, "user": name}
    member = await visit.call(teams.get_team_member, **where)
    await visit.call(teams.delete_team_member, **where)
    said = visit._("{name} left the team {team}.", name=name, team=team.name)
    undo = (f"{team.url}/users/role", {"name": name, "role": "admin" if member.is_admin else "member"})
    return after(visit, team.organization, f"{team.url}/users", said, undo)


async def _led(visit: Visit) -> Team:
    """The team of the address, when the visitor may edit it. Raises ApiError."""
    team = await find_team(visit)
    if not team.leads:
        raise ApiError("NOT_AUTHORIZED")
    return team


# --- repositories -----------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/teams/{team}/repos")
async def list_repositories(visit: Visit) -> Response:
    """What it was granted."""
    team = await find_team(visit)
    org = team.organization
    contains = visit.query.get("q", "")[:255]
    listing = await visit.listing(
        access.list_team_repository_access,
        orgname=org.name,
        teamname=team.record.id,
        contains=contains,
        count=not contains,
    )
    on_everything = "none"
    if org.may("SEE_NAMESPACE_ACCESS"):
        on_everything = await grants.find_level(visit, "team", team.name, org.name)
    return visit.page(
        "organizations/team_repositories.html",
        team=team,
        listing=listing,
        q=contains,
        on_everything=on_everything,
    )


@pages.get("/orgs/{org}/teams/{team}/repos/new")
async def new_repository(visit: Visit) -> Response:
    """The form to give it a repository, one that is there or a new one."""
    team = await _granting(visit)
    form = {"how": "existing", "name": "", "level": "read-only", "visibility": "private"}
    return visit.page("organizations/team_repository_new.html", team=team, form=form)


@pages.post("/orgs/{org}/teams/{team}/repos/new")
async def add_repository(visit: Visit) -> Response:
    """Give it a repository."""
    team = await _granting(visit)
    org = team.organization
    form = {name: await visit.text(name) for name in ("how", "name", "level", "visibility")}
    name = form["name"].removeprefix(f"{org.name}/")
    try:
        if not name:
            raise Refused(Problems(fields={"name": visit._("Fill in this field.")}))
        if form["level"] not in {"read-only", "read-write", "admin"}:
            raise Refused(Problems(fields={"level": visit._("Choose one of the values.")}))
        if form["how"] == "new":
            await visit.submit(
                repositories.create_repository,
                form=repositories.RepositoryForm,
                data={"name": name, "visibility": form["visibility"]},
                fields={"INVALID_REPOSITORY_NAME": "name", "REPOSITORY_EXISTS": "name"},
                namespace=org.name,
            )
        await grants.change(visit, "team", team.name, form["level"], f"{org.name}/{name}")
    except Refused as refused:
        return visit.refuse("organizations/team_repository_new.html", refused, team=team, form=form)
    said = grants.said(visit, team.name, form["level"], f"{org.name}/{name}")
    return visit.redirect(f"{team.url}/repos", said)


@pages.post("/orgs/{org}/teams/{team}/repos/change")
async def change_repository(visit: Visit) -> Response:
    """Give it another level on a repository; `none` takes it away."""
    team = await find_team(visit)
    if not team.sees_repositories:
        raise ApiError("NOT_AUTHORIZED")
    typed = await grants.typed(visit, "name")
    path, level = typed["name"], typed["level"]
    try:
        before = await grants.change(visit, "team", team.name, level, path)
    except Refused as refused:
        form = {"how": "existing", "name": path, "level": level, "visibility": "private"}
        return visit.refuse("organizations/team_repository_new.html", refused, team=team, form=form)
    undo = (f"{team.url}/repos/change", {"name": path, "level": before}) if before != level else None
    said = grants.said(visit, team.name, level, path)
    return after(visit, team.organization, f"{team.url}/repos", said, undo)


async def _granting(visit: Visit) -> Team:
    """The team of the address, when the visitor grants what belongs to its organisation. Raises ApiError."""
    team = await find_team(visit)
    if not (team.organization.may("CREATE_REPOSITORY") and team.sees_repositories):
        raise ApiError("NOT_AUTHORIZED")
    return team


# --- settings ---------------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/teams/{team}/settings")
async def show_settings(visit: Visit) -> Response:
    """Its name and description."""
    team = await _led(visit)
    form = {"name": team.name, "description": team.record.description}
    return visit.page("organizations/team_settings.html", team=team, form=form)


@pages.post("/orgs/{org}/teams/{team}/settings")
async def change_settings(visit: Visit) -> Response:
    """Change them."""
    team = await _led(visit)
    form = {name: await visit.text(name) for name in ("name", "description")}
    try:
        changed = await visit.submit(
            teams.update_team,
            form=teams.TeamChange,
            data=form,
            fields=_FIELDS,
            org=team.organization.name,
            team=team.record.id,
        )
    except Refused as refused:
        return visit.refuse("organizations/team_settings.html", refused, team=team, form=form)
    address = f"{team.organization.url}/teams/{quote(changed.name)}/settings"
    return visit.redirect(address, visit._("The team was changed."))


@pages.get("/orgs/{org}/teams/{team}/delete")
async def ask_to_delete(visit: Visit) -> Response:
    """Say what goes with it."""
    team = await find_team(visit)
    await visit.caller.require_in(team.organization.name, Operation.MANAGE_ORGANIZATION)
    count = (
        await visit.listing(
            access.list_team_repository_access,
            start="",
            size=1,
            count=True,
            orgname=team.organization.name,
            teamname=team.record.id,
        )
    ).count
    stay = visit.n_(
        "{n} person is in it, and stays in {organization}.",
        "{n} people are in it, and stay in {organization}.",
        team.record.members_count,
        organization=team.organization.name,
    )
    ends = visit.n_("Its access to {n} repository ends.", "Its access to {n} repositories ends.", count or 0)
    kept = visit._("Repositories stay. People keep what they were granted in other ways.")
    return visit.confirm(
        visit._("Delete the team {team}", team=team.name),
        verb=visit._("Delete the team"),
        text=f"{stay} {kept}",
        items=[ends],
        back=f"{team.url}/settings",
    )


@pages.post("/orgs/{org}/teams/{team}/delete")
async def delete_team(visit: Visit) -> Response:
    """Remove it, and what it was granted."""
    team = await find_team(visit)
    await visit.call(teams.delete_team, org=team.organization.name, team=team.record.id)
    return visit.redirect(
        f"{team.organization.url}/teams", visit._("The team {team} was deleted.", team=team.name)
    )
