"""``/users/{name}/access``: with whom a user shares all of the own repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import Operation
from dtr.http.api import reasons
from dtr.http.ui import grants
from dtr.http.ui.pages import Pages
from dtr.http.ui.people import find_person
from dtr.http.ui.problems import Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()


@pages.get("/users/{name}/access")
async def list_access(visit: Visit) -> Response:
    """What was granted on the whole namespace."""
    person = await find_person(visit)
    contains = visit.query.get("q", "")[:1_000]
    listing = await visit.listing(
        reasons.list_namespace_grants, namespace=person.name, contains=contains, count=True
    )
    gives = await visit.may_in(person.name, "MANAGE_NAMESPACE_ACCESS")
    return visit.page("permissions/sharing.html", person=person, listing=listing, q=contains, gives=gives)


@pages.get("/users/{name}/access/new")
async def new_access(visit: Visit) -> Response:
    """The form for a grant."""
    person = await find_person(visit)
    await visit.caller.require_in(person.name, Operation.MANAGE_NAMESPACE_ACCESS)
    return visit.page("permissions/sharing_new.html", person=person, form={"name": "", "level": "read-only"})


@pages.post("/users/{name}/access/new", "/users/{name}/access/change")
async def change_access(visit: Visit) -> Response:
    """Give a level on the whole namespace, or another one; `none` takes it away."""
    person = await find_person(visit)
    await visit.caller.require_in(person.name, Operation.MANAGE_NAMESPACE_ACCESS)
    form = await grants.typed(visit, "name")
    try:
        before = await grants.change(visit, "user", form["name"], form["level"], person.name)
    except Refused as refused:
        return visit.refuse("permissions/sharing_new.html", refused, person=person, form=form)
    said = grants.said(visit, form["name"], form["level"], person.name)
    undo = (f"{person.url}/access/change", {**form, "level": before}) if before != form["level"] else None
    if not await visit.may_in(person.name, "MANAGE_NAMESPACE_ACCESS"):  # whoever took away the own access
        return visit.redirect("/repositories", said)
    here = f"{person.url}/access"
    return visit.redirect(visit.back if visit.back.partition("?")[0] == here else here, said, undo=undo)
