"""Logging in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.responses import Response

from dtr.accounts import BadCredentials, TooManyAttempts
from dtr.http.api import accounts as settings
from dtr.http.api.caller import CSRF_COOKIE, Caller, session_cookie
from dtr.http.api.enzi import accounts, identity
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems
from dtr.http.ui.visit import own_address
from dtr.http.ui.words import LANGUAGES

if TYPE_CHECKING:
    from dtr.http.ui.visit import Visit

pages = Pages()

_YEAR = 365 * 86_400
_DAY = 86_400
_SHOWN_IN_SECONDS = 90


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
    given = (await visit.form()).get("password", "")
    password = given if isinstance(given, str) else ""
    try:
        return await open_session(visit, username, password, target)
    except (BadCredentials, ValidationError):  # of the latter is what can be no text
        problems = Problems(general=[visit._("The user name or the password is not right.")])
        return visit.page("login.html", 401, target=target, ended=False, username=username, problems=problems)
    except TooManyAttempts as error:
        problems = Problems(general=[_again_in(visit, int(error.retry_after))])
        refused = visit.page("login.html", 429, target=target, ended=False, username=username, problems=problems)
        refused.headers["retry-after"] = str(int(error.retry_after))
        return refused


def _again_in(visit: Visit, seconds: int) -> str:
    """When an attempt is looked at again."""
    if seconds <= _SHOWN_IN_SECONDS:
        return visit.n_(
            "Too many wrong log-ins. Try again in {n} second.",
            "Too many wrong log-ins. Try again in {n} seconds.",
            seconds,
        )
    return visit.n_(
        "Too many wrong log-ins. Try again in {n} minute.",
        "Too many wrong log-ins. Try again in {n} minutes.",
        -(-seconds // 60),
    )


async def open_session(visit: Visit, username: str, password: str, target: str, said: str = "") -> Response:
    """
    Open a session of its own, which the browser gets with the answer that leads to `target`.

    The one that it has ends. Raises BadCredentials, TooManyAttempts.
    """
    opened = Response()
    credentials = identity.Credentials(username=username, password=password)
    record = await identity.log_in(credentials, visit.request, visit.rooms, opened)
    if visit.account is not None:
        await identity.log_out(visit.caller, visit.request, visit.rooms, Response())
    login = await visit.rooms.accounts.sessions.find(record.session_token)
    caller = Caller(visit.rooms.accounts, login, visit.caller.address)
    chosen = await visit.call(settings.get_user_settings, caller=caller, username=record.account.id)
    if chosen.language in LANGUAGES:
        visit.set_cookie("language", chosen.language, _YEAR)
    details = await visit.call(accounts.get_account, caller=caller, account=record.account.id, details=True)
    if details.password_is_own:
        visit.set_cookie("advice", "", 0)
    elif visit.request.cookies.get("advice") != "later":
        visit.set_cookie("advice", "password", _DAY)
    response = visit.redirect(target, said)
    response.raw_headers.extend(pair for pair in opened.raw_headers if pair[0] == b"set-cookie")
    return response


@pages.post("/logout")
async def log_out(visit: Visit) -> Response:
    """End the session, and forget it."""
    if visit.request.cookies.get("advice") == "password":
        visit.set_cookie("advice", "", 0)
    response = visit.redirect("/login")
    if visit.account is not None:
        await identity.log_out(visit.caller, visit.request, visit.rooms, response)
    else:
        response.delete_cookie(session_cookie(visit.request))
        response.delete_cookie(CSRF_COOKIE)
    return response
