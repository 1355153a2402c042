"""Logging in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import BadCredentials, TooManyAttempts
from dtr.http.api.caller import CSRF_COOKIE, session_cookie
from dtr.http.api.enzi import identity
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems
from dtr.http.ui.visit import own_address

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()


@pages.get("/login")
async def show_login(visit: Visit) -> Response:
    """The form; who is logged in goes on."""
    target = own_address(visit.query.get("next", "/repositories"))
    if visit.account is not None:
        return visit.redirect(target)
    return visit.page("login.html", target=target, ended="ended" in visit.query, username="")


@pages.post("/login")
async def log_in(visit: Visit) -> Response:
    """Open a session. What is wrong is the same text for every cause."""
    username, target = await visit.text("username"), own_address(await visit.text("next") or "/repositories")
    form = await visit.form()
    password = form.get("password", "")
    credentials = identity.Credentials(username=username, password=password if isinstance(password, str) else "")
    problems = Problems()
    response = visit.redirect(target)
    try:
        await identity.log_in(credentials, visit.request, visit.rooms, response)
    except BadCredentials:
        problems.add("", visit._("The user name or the password is not right."))
        return visit.page("login.html", 401, target=target, ended=False, username=username, problems=problems)
    except TooManyAttempts as error:
        text = visit.n_(
            "Too many wrong log-ins. Try again in {n} second.",
            "Too many wrong log-ins. Try again in {n} seconds.",
            int(error.retry_after),
        )
        problems.add("", text)
        refused = visit.page("login.html", 429, target=target, ended=False, username=username, problems=problems)
        refused.headers["retry-after"] = str(int(error.retry_after))
        return refused
    return response


@pages.post("/logout")
async def log_out(visit: Visit) -> Response:
    """End the session, and forget it."""
    response = visit.redirect("/login")
    if visit.account is not None:
        await identity.log_out(visit.caller, visit.request, visit.rooms, response)
    else:
        response.delete_cookie(session_cookie(visit.request))
        response.delete_cookie(CSRF_COOKIE)
    return response
