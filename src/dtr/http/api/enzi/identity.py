"""
Logging in and out, and who one is: ``/enzi/v0/id``, ``/auth/login`` and ``/basic_info``.

Browsers get their session as a cookie that no script can read, and beside it the token that they repeat in the
header `X-CSRF-Token` of each request that changes something. Scripts get it in the answer.
"""

from __future__ import annotations

from fastapi import Request, Response  # noqa: TC002 - operations need them
from pydantic import Field, ValidationError

from dtr import __version__
from dtr.accounts import csrf_token
from dtr.http.api.caller import CSRF_COOKIE, CallerDep, address_of, refuse_foreign, session_cookie
from dtr.http.api.enzi.records import Route
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import AccountRecord, Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep

router = Router(tags=["enzi"], route_class=Route)

_MEANS = {"password": "Password", "token": "AccessToken", "session": "Session"}


class Credentials(Form):
    """A name and a password; access tokens open no sessions."""

    username: str
    password: str


class SessionRecord(Record):
    """Who logged in, and the session that was opened."""

    account: AccountRecord
    session_token: str = Field(description="For the header `Authorization: SessionToken …` or `Bearer …`.")


class AuthToken(Record):
    """A session for scripts."""

    auth_token: str = Field(alias="auth_token", description="For the header `Authorization: Bearer …`.")


class BasicInfo(Record):
    """Who calls, and how that is known."""

    current_version: str = Field(alias="CurrentVersion", description="The version of the program.")
    user: AccountRecord = Field(alias="User")
    is_admin: bool = Field(alias="IsAdmin", description="Administers the whole system.")
    authn_method: str = Field(alias="AuthnMethod", description="`Password`, `AccessToken` or `Session`.")


@router.post("/enzi/v0/id/login", summary="Log in", responses=errors("CSRF_TOKEN_INVALID"))
async def log_in(form: Credentials, request: Request, rooms: RoomsDep, response: Response) -> SessionRecord:
    """For everybody who has a password. Opens a session, and gives a browser its cookies."""
    refuse_foreign(request)
    account, secret = await _open_session(form, request, rooms)
    secure = request.url.scheme == "https"
    response.set_cookie(session_cookie(request), secret, secure=secure, httponly=True, samesite="lax")
    response.set_cookie(CSRF_COOKIE, csrf_token(secret), secure=secure, samesite="lax")
    return SessionRecord(account=account, session_token=secret)


@router.post("/enzi/v0/id/logout", status_code=204, summary="Log out")
async def log_out(caller: CallerDep, request: Request, rooms: RoomsDep, response: Response) -> None:
    """For any user. Ends the session that the request came with, if it came with one."""
    caller.user()
    if caller.login is not None:
        await rooms.accounts.sessions.end(caller.login, by=caller.actor)
    secure = request.url.scheme == "https"
    response.delete_cookie(session_cookie(request), secure=secure, httponly=True, samesite="lax")
    response.delete_cookie(CSRF_COOKIE, secure=secure, samesite="lax")


@router.get("/enzi/v0/id", summary="Who am I")
async def get_identity(caller: CallerDep) -> AccountRecord:
    """For any user."""
    return AccountRecord.of(caller.user())


@router.post(
    "/auth/login",
    summary="Log in, for scripts",
    openapi_extra={
        "requestBody": {"required": True, "content": {"*/*": {"schema": Credentials.model_json_schema()}}}
    },
    responses=errors("INVALID_JSON"),
)
async def log_in_script(request: Request, rooms: RoomsDep) -> AuthToken:
    """
    For everybody who has a password. Opens a session without cookies.

    The body is JSON whatever its type says: scripts were written so.
    """
    try:
        form = Credentials.model_validate_json(await request.body())
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise ApiError("INVALID_JSON", problems) from None
    _, secret = await _open_session(form, request, rooms)
    return AuthToken(auth_token=secret)


@router.get("/basic_info", summary="Who am I, and how is that known")
async def get_basic_info(caller: CallerDep) -> BasicInfo:
    """For any user."""
    account = caller.user()
    means = caller.login.means if caller.login else "password"
    return BasicInfo(
        current_version=__version__,
        user=AccountRecord.of(account),
        is_admin=account.is_admin,
        authn_method=_MEANS[means],
    )


async def _open_session(form: Credentials, request: Request, rooms: RoomsDep) -> tuple[AccountRecord, str]:
    """Raises BadCredentials, TooManyAttempts."""
    address = address_of(request)
    login = await rooms.accounts.logins.authenticate_password(form.username, form.password, address)
    secret = await rooms.accounts.sessions.create(login, address, user_agent=request.headers.get("user-agent", ""))
    return AccountRecord.of(login.account), secret
