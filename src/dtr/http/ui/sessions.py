"""The sessions of everybody: ``/system/settings/sessions``. Those of one user are with the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import Operation
from dtr.http.api import sessions
from dtr.http.ui.pages import Pages
from dtr.http.ui.people import client_name
from dtr.http.ui.problems import Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()

PLACE = "/system/settings/sessions"


@pages.get(PLACE)
async def list_sessions(visit: Visit) -> Response:
    """Who is logged in with a password, the latest use first."""
    visit.caller.require(Operation.SEE_SYSTEM)  # others would see their own here
    listing = await visit.listing(sessions.list_sessions, count=True, contains=visit.query.get("q", "")[:1_000])
    return visit.page("sessions/list.html", listing=listing, client_name=client_name)


@pages.post(f"{PLACE}/end")
async def end_session(visit: Visit) -> Response:
    """End one session; whoever uses it has to log in again."""
    visit.caller.require(Operation.ADMINISTER)  # everybody may end their own, but not here
    username = await visit.text("username")
    try:
        await visit.submit(sessions.delete_session, session=await visit.text("session"))
    except Refused as refused:  # it ended meanwhile
        return visit.redirect(PLACE, " ".join([*refused.problems.general, *refused.problems.fields.values()]))
    return visit.redirect(PLACE, visit._("The session of {name} is ended.", name=username))
