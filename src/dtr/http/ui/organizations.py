"""Organisations: the list, one's members, repositories, and what was granted on its namespace."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from dtr.accounts import AccountError, MemberQuery, Operation, may
from dtr.http.api import listings, reasons, repositories, robots
from dtr.http.api.enzi import accounts, members, teams
from dtr.http.api.enzi.records import MembershipForm
from dtr.http.api.errors import ApiError
from dtr.http.api.paging import Page
from dtr.http.ui import grants
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response

    from dtr.accounts import Facts
    from dtr.http.api.enzi.members import MemberList
    from dtr.http.api.models import AccountRecord
    from dtr.http.ui.visit import Listing, Visit

pages = Pages()

MOST_NAMES = 500
"""So many people are added at once."""
_SUGGESTED = 8
_LONGEST_UNDO = 1_200
"""Characters: the cookie that carries it has an end."""


class Organization(Struct, frozen=True):
    """The organisation that a page is about."""

    record: AccountRecord
    facts: Facts
    """How the visitor stands to its namespace."""
    sees_system: bool

    @property
    def name(self) -> str:
        """What it is called."""
        return self.record.name

    @property
    def url(self) -> str:
        """The address of its pages, without a slash at the end."""
        return f"/orgs/{quote(self.name)}"

    def may(self, operation: str) -> bool:
        """Whether the visitor may do in its namespace what the `Operation` of this name is."""
        return may(self.facts, Operation[operation])

    @property
    def sees_members(self) -> bool:
        """Members see who else is one, and the teams; so does who may see everything."""
        return self.facts.is_member or self.may("MANAGE_ORGANIZATION") or self.sees_system

    @property
    def manages_members(self) -> bool:
        """Puts people and teams in and takes them out."""
        return self.may("MANAGE_ORGANIZATION")

    @property
    def sees_robots(self) -> bool:
        """Robots are the business of owners."""
        return self.may("MANAGE_ORGANIZATION") or self.sees_system

    @property
    def start(self) -> str:
        """The first of its pages that the visitor may see."""
        return f"{self.url}/users" if self.sees_members else f"{self.url}/repos"


async def organization(visit: Visit) -> Organization:
    """
    The organisation of the address, whose part is called `org`.

    Raises ApiError: NOT_AUTHENTICATED; NO_SUCH_ACCOUNT also for a user.
    """
    visit.require_login()
    record = await visit.call(accounts.get_account, account=visit.values["org"])
    if not record.is_org:
        raise ApiError("NO_SUCH_ACCOUNT", visit.values["org"][:255])
    standing = await visit.caller.standing(f"{record.name}/")
    return Organization(record, standing.facts, visit.may("SEE_SYSTEM"))


# --- the list ---------------------------------------------------------------------------------------------------


@pages.get("/orgs")
async def list_organizations(visit: Visit) -> Response:
    """All organisations, or those of the visitor, with what the visitor is in them."""
    account = visit.require_login()
    contains, start = visit.query.get("q", "")[:1_000], visit.query.get("start", "")[:1_024]
    mine = visit.query.get("show") == "mine"
    listing: Listing[Any]
    if mine:
        own = listing = await visit.listing(
            members.list_organizations_of_user,
            user=account.name,
            query=MemberQuery(order="name", contains=contains, start=start),
        )
        listed = [one.org for one in own.records.member_orgs]
    else:
        listing = await visit.listing(accounts.list_accounts, which="orgs", contains=contains, counted=True)
        listed = listing.records.accounts
        # Both lists are by name: what the visitor is in of those on the page is among the next ones of the other.
        own = await visit.listing(
            members.list_organizations_of_user,
            user=account.name,
            query=MemberQuery(order="name", contains=contains, start=listed[0].name if listed else ""),
        )
    return visit.page(
        "organizations/list.html",
        organizations=listed,
        listing=listing,
        roles={one.org.name: one.is_admin for one in own.records.member_orgs},
        q=contains,
        mine=mine,
        count=None if mine else listing.records.found_count,
    )


@pages.get("/orgs/new")
async def new_organization(visit: Visit) -> Response:
    """The form for one."""
    visit.caller.require(Operation.CREATE_ACCOUNTS)
    return visit.page("organizations/new.html", form={"name": "", "full_name": "", "owner": ""})


@pages.post("/orgs/new")
async def create_organization(visit: Visit) -> Response:
    """Make one; the owner has to be there before."""
    visit.caller.require(Operation.CREATE_ACCOUNTS)
    form = {name: await visit.text(name) for name in ("name", "full_name", "owner")}
    try:
        if form["owner"]:
            owner = await visit.submit(
                accounts.get_account, account=form["owner"], fields={"NO_SUCH_ACCOUNT": "owner"}
            )
            if owner.is_org or "+" in owner.name:
                raise Refused(Problems(fields={"owner": visit._("This is no user.")}))
        made = await visit.submit(
            accounts.create_account,
            form=accounts.AccountForm,
            data={"name": form["name"], "fullName": form["full_name"], "isOrg": True},
            fields={"INVALID_ACCOUNT_NAME": "name", "ACCOUNT_EXISTS": "name", "fullName": "full_name"},
        )
        if form["owner"]:
            await visit.submit(
                members.put_member,
                org=made.name,
                user=form["owner"],
                form=MembershipForm,
                data={"isAdmin": True},
                fields={"NO_SUCH_ACCOUNT": "owner"},
            )
    except Refused as refused:
        return visit.refuse("organizations/new.html", refused, form=form)
    return visit.redirect(
        f"/orgs/{quote(made.name)}/users", visit._("{organization} is there now.", organization=made.name)
    )


@pages.get("/orgs/{org}")
async def show_organization(visit: Visit) -> Response:
    """Its first page."""
    return visit.redirect((await organization(visit)).start, status=302)


# --- members ----------------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/users")
async def list_members(visit: Visit) -> Response:
    """Who is in it, as what, and in which teams."""
    org = await organization(visit)
    contains, owners = visit.query.get("q", ""), visit.query.get("show") == "owners"
    query = MemberQuery(
        filter="admins" if owners else "all",
        order="name",
        contains=contains,
        start=visit.query.get("start", "")[:1024],
    )
    listing: Listing[MemberList] = await visit.listing(
        members.list_members, org=org.name, query=query, details=True
    )
    return visit.page(
        "organizations/members.html",
        org=org,
        listing=listing,
        q=contains,
        owners=owners,
        shows_logins=org.manages_members or org.sees_system,
    )


@pages.get("/orgs/{org}/users/new")
async def new_members(visit: Visit) -> Response:
    """The form for one and for many."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    return visit.page(
        "organizations/add_people.html", org=org, team=None, form={"name": "", "names": "", "role": "member"}
    )


@pages.post("/orgs/{org}/users/new")
async def add_members(visit: Visit) -> Response:
    """Put people in: each by itself, so that some may be refused."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)

    async def add(name: str, *, is_admin: bool | None) -> None:
        await visit.submit(
            members.put_member,
            org=org.name,
            user=name,
            form=MembershipForm,
            data={"isAdmin": is_admin},
            fields={"NO_SUCH_ACCOUNT": "name"},
        )

    return await add_people(visit, org, None, add, f"{org.url}/users")


async def add_people(
    visit: Visit, org: Organization, team: object, add: Callable[..., Awaitable[None]], to: str
) -> Response:
    """
    Put the people of a form somewhere, by `add`; who is refused stays in the form, with the reason.

    Somebody who is there already keeps the role, unless a higher one is wanted.
    """
    form = {name: await visit.text(name) for name in ("name", "names", "role")}
    names = list(dict.fromkeys(re.findall(r"[^\s,;]+", f"{form['name']} {form['names']}")))
    problems = Problems()
    if not names:
        problems.add("name", visit._("Type the name of a user."))
    if len(names) > MOST_NAMES:
        problems.add(
            "names",
            visit.n_("At most {n} name at once.", "At most {n} names at once.", MOST_NAMES),
        )
    done: list[str] = []
    failed: list[tuple[str, str]] = []
    if not problems:
        for name in names:
            try:
                await add(name, is_admin=True if form["role"] == "admin" else None)
            except Refused as refused:
                failed.append((name, "; ".join([*refused.problems.fields.values(), *refused.problems.general])))
            else:
                done.append(name)
    if problems or failed:
        if len(names) == 1 and failed:
            problems.add("name", failed[0][1])
            failed = []
        elif failed:
            form |= {"name": "", "names": "\n".join(name for name, _ in failed)}
        return visit.page(
            "organizations/add_people.html",
            422,
            org=org,
            team=team,
            form=form,
            problems=problems,
            done=done,
            failed=failed,
        )
    said = (
        visit._("{name} is in {group} now.", name=done[0], group=getattr(team, "name", org.name))
        if len(done) == 1
        else visit.n_("{n} person is there now.", "{n} people are there now.", len(done))
    )
    return visit.redirect(to, said)


@pages.post("/orgs/{org}/users/role")
async def change_member(visit: Visit) -> Response:
    """Make a member an owner, or an owner a member; or put back who was taken out, with the teams."""
    org = await organization(visit)
    name, role = await visit.text("name"), await visit.text("role")
    await visit.call(members.put_member, org=org.name, user=name, form=MembershipForm(is_admin=role == "admin"))
    for team in (await visit.text("teams")).split():
        await visit.call(
            teams.put_team_member,
            org=org.name,
            team=team.removesuffix("*"),
            user=name,
            form=MembershipForm(is_admin=team.endswith("*")),
        )
    said = (
        visit._("{name} is an owner of {organization} now.", name=name, organization=org.name)
        if role == "admin"
        else visit._("{name} is a member of {organization} now.", name=name, organization=org.name)
    )
    undo = None
    if not await visit.text("teams"):
        undo = (f"{org.url}/users/role", {"name": name, "role": "member" if role == "admin" else "admin"})
    return after(visit, org, f"{org.url}/users", said, undo)


@pages.post("/orgs/{org}/users/remove")
async def remove_member(visit: Visit) -> Response:
    """Take somebody out, and remember for a moment how to undo it."""
    org = await organization(visit)
    name = await visit.text("name")
    member = await visit.call(members.get_member, org=org.name, user=name)
    of = await visit.listing(members.list_teams_of_member, start="", size=100, org=org.name, user=name)
    await visit.call(members.delete_member, org=org.name, user=name)
    left = " ".join(f"{one.team.name}{'*' if one.is_admin else ''}" for one in of.records.member_teams)
    undo = None
    if not of.next and len(left) < _LONGEST_UNDO:
        fields = {"name": name, "role": "admin" if member.is_admin else "member", "teams": left}
        undo = (f"{org.url}/users/role", fields)
    said = visit._("{name} left {organization} and its teams.", name=name, organization=org.name)
    return after(visit, org, f"{org.url}/users", said, undo)


def after(
    visit: Visit, org: Organization, to: str, said: str, undo: tuple[str, dict[str, str]] | None = None
) -> Response:
    """Lead back to the list as it was, or to `to`."""
    back = visit.back
    return visit.redirect(back if back.startswith(f"{org.url}/") else to, said, undo=undo)


# --- repositories -----------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/repos")
async def list_repositories(visit: Visit) -> Response:
    """Its repositories that the visitor may see."""
    org = await organization(visit)
    contains = visit.query.get("q", "")[:256]
    listing = await visit.listing(listings.search_repositories, namespace=org.name, query=contains, count=True)
    return visit.page("organizations/repositories.html", org=org, listing=listing, q=contains)


# --- access to everything ---------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/access")
async def list_access(visit: Visit) -> Response:
    """What was granted on the whole namespace."""
    org = await organization(visit)
    contains = visit.query.get("q", "")[:1_000]
    listing = await visit.listing(reasons.list_namespace_grants, namespace=org.name, contains=contains, count=True)
    return visit.page("organizations/access.html", org=org, listing=listing, q=contains)


@pages.get("/orgs/{org}/access/new")
async def new_access(visit: Visit) -> Response:
    """The form for a grant."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_NAMESPACE_ACCESS)
    return visit.page(
        "organizations/access_new.html", org=org, form={"kind": "team", "name": "", "level": "read-only"}
    )


@pages.post("/orgs/{org}/access/new", "/orgs/{org}/access/change")
async def change_access(visit: Visit) -> Response:
    """Give a level on the whole namespace, or another one; `none` takes it away."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_NAMESPACE_ACCESS)
    form = await grants.typed(visit, "kind", "name")
    try:
        before = await grants.change(visit, form["kind"], form["name"], form["level"], org.name)
    except Refused as refused:
        return visit.refuse("organizations/access_new.html", refused, org=org, form=form)
    undo = (f"{org.url}/access/change", {**form, "level": before}) if before != form["level"] else None
    said = grants.said(visit, form["name"], form["level"], org.name)
    return after(visit, org, f"{org.url}/access", said, undo)


# --- suggestions ------------------------------------------------------------------------------------------------


@pages.get("/search/suggest")
async def suggest(visit: Visit) -> Response:
    """Names for what is being typed, for the list of a field; only with script."""
    visit.require_login()
    if not visit.is_partial:
        return visit.redirect("/orgs")
    typed = visit.query.get(visit.query.get("field", "name"), "").strip()[:100]
    space = visit.query.get("in", "")[:255]
    match visit.query.get("kind", "user"):
        case "team":
            found = await _teams_like(visit, space, typed)
        case "any":
            found = await _teams_like(visit, space, typed) + await _people_like(visit, space, typed)
        case "repository":
            found = await _repositories_like(visit, space, typed)
        case _:
            found = await _people_like(visit, space, typed)
    return visit.page("organizations/suggestions.html", found=found)


async def _people_like(visit: Visit, space: str, typed: str) -> list[tuple[str, str]]:
    if not typed:
        return []
    page = Page("", _SUGGESTED, wants_count=False)
    people = await visit.call(accounts.list_accounts, which="active-users", contains=typed, page=page)
    found = [(one.name, one.full_name) for one in people.accounts]
    if space and await visit.may_in(space, "MANAGE_ORGANIZATION"):
        name = typed.removeprefix(f"{space}+")
        with contextlib.suppress(ApiError, AccountError):  # a personal namespace has no robots
            listed = await visit.call(robots.list_robots, orgname=space, page=replace(page, start=name))
            found += [(one.name, one.description) for one in listed if one.short_name.startswith(name)]
    return found[:_SUGGESTED]


async def _teams_like(visit: Visit, space: str, typed: str) -> list[tuple[str, str]]:
    with contextlib.suppress(ApiError, AccountError):  # not for everybody
        page = Page("", _SUGGESTED, wants_count=False)
        some = await visit.call(teams.list_teams, org=space, contains=typed, page=page)
        return [(one.name, one.description) for one in some.teams]
    return []


async def _repositories_like(visit: Visit, space: str, typed: str) -> list[tuple[str, str]]:
    path = f"{space}/{typed}"
    with contextlib.suppress(ApiError, AccountError):
        page = Page(path, _SUGGESTED, wants_count=False)
        some = await visit.call(repositories.list_namespace_repositories, namespace=space, page=page)
        return [
            (one.name, one.short_description)
            for one in some.repositories
            if f"{one.namespace}/{one.name}".startswith(path)
        ]
    return []
