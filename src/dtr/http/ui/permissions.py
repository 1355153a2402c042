"""``/repositories/{ns}/{repo}/permissions``: who can do what on a repository, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtr.accounts import Operation, may
from dtr.http.api import reasons
from dtr.http.ui import grants
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

_PLACE = "/repositories/{namespace}/{repo:path}/permissions"
LEVELS = ("admin", "read-write", "read-only", "none")


@pages.get(_PLACE)
async def show_permissions(visit: Visit) -> Response:
    """All who have access, by grant or by person; for who may not see that the own reasons."""
    account = visit.require_login()
    repo = await visit.repository()
    if not repo.may("SEE_TEAM_ACCESS"):
        own = await visit.call(reasons.get_repository_access, path=repo.path, username=account.name)
        return visit.page("permissions/own.html", repo=repo, person=own)
    contains, by = visit.query.get("q", "")[:1_000], visit.query.get("by", "")
    level = visit.query.get("level", "")
    if by == "person":
        listing: Any = await visit.listing(
            reasons.list_repository_access,
            path=repo.path,
            contains=contains,
            level=level if level in LEVELS else None,
            count=True,
        )
    else:
        by = "grant"
        listing = await visit.listing(
            reasons.list_repository_grants, path=repo.path, contains=contains, count=True
        )
    who, person, problems = visit.query.get("who", "").strip()[:200], None, Problems()
    if who:
        try:
            person = await visit.submit(
                reasons.get_repository_access, path=repo.path, username=who, fields={"NO_SUCH_USER": "who"}
            )
        except Refused as refused:
            problems = refused.problems
    return visit.page(
        "permissions/list.html",
        repo=repo,
        by=by,
        listing=listing,
        q=contains,
        level=level,
        who=who,
        person=person,
        found=problems,
        manages_namespace=may(repo.facts, Operation.MANAGE_NAMESPACE_ACCESS),
    )


@pages.get(f"{_PLACE}/new")
async def new_grant(visit: Visit) -> Response:
    """The form to give somebody access."""
    visit.require_login()
    repo = await visit.repository()
    await visit.caller.require_on(repo.path, Operation.MANAGE_TEAM_ACCESS)
    of_team = repo.record.namespace_type == "organization" and visit.query.get("kind") != "user"
    kind = "team" if of_team else "user"
    form = {"kind": kind, "name": visit.query.get("name", "")[:200], "level": "read-only"}
    return visit.page("permissions/new.html", repo=repo, form=form)


@pages.post(f"{_PLACE}/new", f"{_PLACE}/change")
async def change_grant(visit: Visit) -> Response:
    """Give a level on the repository, or another one; `none` takes it away."""
    visit.require_login()
    repo = await visit.repository()
    await visit.caller.require_on(repo.path, Operation.MANAGE_TEAM_ACCESS)
    form = await grants.typed(visit, "kind", "name")
    try:
        before = await grants.change(visit, form["kind"], form["name"], form["level"], repo.path)
    except Refused as refused:
        return visit.refuse("permissions/new.html", refused, repo=repo, form=form)
    undo = (f"{repo.url}/permissions/change", {**form, "level": before}) if before != form["level"] else None
    return await _after(visit, repo, grants.said(visit, form["name"], form["level"], repo.path), undo)


async def _after(visit: Visit, repo: Repository, said: str, undo: tuple[str, dict[str, str]] | None) -> Response:
    """Lead back to the list as it was; who took away the own access, to where it is not needed."""
    facts = (await visit.caller.standing(repo.path)).facts
    if not may(facts, Operation.SEE):
        return visit.redirect("/repositories", said)
    back = visit.back
    to = back if back.partition("?")[0] == f"{repo.url}/permissions" else f"{repo.url}/permissions"
    return visit.redirect(to, said, undo=undo if may(facts, Operation.MANAGE_TEAM_ACCESS) else None)
