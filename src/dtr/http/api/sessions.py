"""
``/api/v0/sessions``: the sessions of users, which a log-in with a password opened.

Their settings are those of the account service (``/enzi/v0/config/sessions``).
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Operation, UserUnknown
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import Account, OpenSession
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/sessions", tags=["sessions"])

_ENDED_AT_ONCE = 1_000
_USERNAME = Query(description="The user whose sessions are meant; others' are for administrators.")


class OpenSessionRecord(Record):
    """A session that is not over."""

    id: str
    username: str = Field(description="Whose it is.")
    created_at: dt.datetime = Field(description="When it was opened.")
    last_used: dt.datetime = Field(description="To the minute.")
    expires_at: dt.datetime = Field(description="When it ends, if it is not used any more.")
    address: str = Field(description="The address that it was opened from.")
    user_agent: str = Field(description="What the client that opened it called itself.")
    is_current: bool = Field(description="The one that this request came with.")

    @classmethod
    def of(cls, session: OpenSession, caller: Caller) -> OpenSessionRecord:
        """The record of a session."""
        return cls(
            id=session.id,
            username=session.account,
            created_at=moment(session.created_at),
            last_used=moment(session.last_used_at),
            expires_at=moment(session.expires_at),
            address=session.address,
            user_agent=session.user_agent,
            is_current=caller.login is not None and caller.login.session == session.id,
        )


class Ended(Record):
    """How many sessions were ended."""

    ended: int = Field(description="How many sessions were open until now.")


@router.get("", summary="Sessions", responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER"))
async def list_sessions(
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    username: Annotated[str | None, _USERNAME] = None,
    contains: Annotated[
        str, Query(max_length=1_000, description="A part of the user's name or full name, in whatever case.")
    ] = "",
) -> list[OpenSessionRecord]:
    """
    The caller's own, those of `username`, or, for administrators who name nobody, those of all users.

    That which was used last comes first.
    """
    whose = await _whose(caller, rooms, username, Operation.SEE_SYSTEM)
    account = whose.id if whose else None
    found = await rooms.accounts.sessions.list_open(account, contains=contains, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.accounts.sessions.count_open(account, contains=contains))
    return [OpenSessionRecord.of(one, caller) for one in page.cut(response, found, lambda one: one.marker)]


@router.delete("", summary="End the sessions of a user", responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER"))
async def delete_sessions(
    caller: CallerDep, rooms: RoomsDep, username: Annotated[str | None, _USERNAME] = None
) -> Ended:
    """The caller's own, or those of `username`. The one that the request came with stays."""
    account = caller.require(Operation.MANAGE_OWN_SETTINGS)
    whose = await _whose(caller, rooms, username or account.name, Operation.ADMINISTER) or account
    kept = caller.login.session if caller.login else ""
    found = await rooms.accounts.sessions.list_open(whose.id, limit=_ENDED_AT_ONCE)
    ended = await rooms.accounts.sessions.end_open(*(one for one in found if one.id != kept), by=caller.actor)
    return Ended(ended=ended)


@router.delete("/{session}", summary="End a session", responses=errors("NOT_AUTHORIZED", "NO_SUCH_SESSION"))
async def delete_session(session: str, caller: CallerDep, rooms: RoomsDep) -> Ended:
    """One of the caller's, or, for administrators, anybody's. Another one's looks like none."""
    account = caller.require(Operation.MANAGE_OWN_SETTINGS)
    found = await rooms.accounts.sessions.find_open(session)
    if found is None or (found.account_id != account.id and not caller.may(Operation.ADMINISTER)):
        raise ApiError("NO_SUCH_SESSION", session)
    if not await rooms.accounts.sessions.end_open(found, by=caller.actor):
        raise ApiError("NO_SUCH_SESSION", session)
    return Ended(ended=1)


async def _whose(caller: Caller, rooms: Rooms, username: str | None, of_others: Operation) -> Account | None:
    """The account whose sessions are meant; None: those of all. Raises ApiError, UserUnknown."""
    account = caller.require(Operation.MANAGE_OWN_SETTINGS)
    if username is None:
        return None if caller.may(of_others) else account
    if username in {account.name, account.id}:
        return account
    caller.require(of_others)
    found = await rooms.accounts.find(username)
    if found is None or found.kind != "user":
        raise UserUnknown(username)
    return found
