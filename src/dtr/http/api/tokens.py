"""
``/api/v0/api_tokens``: access tokens, which open an account beside its password.

Who shows a token that has a scope makes and sees none.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Header, Query, Response
from pydantic import BeforeValidator, Field, Strict

from dtr.accounts import TOKEN_KINDS, Action, Operation, TokenScope, TokenUnknown, UserUnknown, token_id
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import AccessToken, Account, TokenKind
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/api_tokens", tags=["api_tokens"])

_KINDS: dict[str, tuple[TokenKind, ...]] = {
    "user": ("access",),
    "auto": ("refresh",),
    "": TOKEN_KINDS,
}
"""What is kept, by how it was made; empty: however it was made."""


def _text(given: object) -> object:
    if not isinstance(given, str):
        raise ValueError("a moment is text (RFC 3339)")  # noqa: TRY004 - what the framework takes for a refusal
    return given


Moment = Annotated[dt.datetime, Strict(False), BeforeValidator(_text)]
"""A moment in a form; JSON has no type for it."""
_USERNAME = Query(description="The user whose tokens are meant; others' are for administrators.")


class ScopeRecord(Record):
    """What a token is good for: these actions, on repositories that one of the patterns matches."""

    repositories: list[str] = Field(
        min_length=1, description="Paths (`acme/app`), or beginnings and a star (`acme/*`, `acme/ci-*`, `*`)."
    )
    actions: list[Literal["pull", "push", "delete", "admin"]] = Field(min_length=1)

    @classmethod
    def of(cls, scope: TokenScope) -> ScopeRecord:
        """The record of a scope."""
        return cls.model_validate(scope.document)

    @property
    def scope(self) -> TokenScope:
        """The scope of the record. Raises ApiError: INVALID_TOKEN_SCOPE."""
        try:
            return TokenScope(tuple(self.repositories), frozenset(Action(one) for one in self.actions))
        except ValueError as error:
            raise ApiError("INVALID_TOKEN_SCOPE", str(error)) from None


class TokenRecord(Record):
    """An access token, or what a client that logged in keeps. The secret itself is not kept here."""

    hashed_token: str = Field(description="Its id.")
    token_label: str
    is_active: bool
    created_at: dt.datetime
    last_used: dt.datetime = Field(description="To the minute; the year 1: never.")
    generated_by: str = Field(description="`user`, or `auto`: left behind by a client that logged in.")
    last_used_from: str = Field(description="The address that it was used from last; empty: never.")
    creator_ua: str = Field(description="What the client that made it called itself.")
    username: str = Field(description="The account that it opens.")
    expires_at: dt.datetime | None = Field(description="From then on it opens nothing; null: never.")
    scope: ScopeRecord | None = Field(description="What it is good for; null: for all that the account may.")

    @classmethod
    def of(cls, token: AccessToken) -> TokenRecord:
        """The record of a token."""
        return cls(**_fields(token))


class NewTokenRecord(TokenRecord):
    """A token that was just made."""

    token: str = Field(description="The secret. It is told now, and never again.")


class TokenForm(Form):
    """A token to be made."""

    token_label: str = Field("", description="What it is for.")
    expires_at: Moment | None = Field(None, description="From then on it opens nothing.")
    scope: ScopeRecord | None = Field(None, description="What it is good for; null: all that the account may.")


class TokenChange(Form):
    """What of a token can be changed; what is missing stays."""

    token_label: str | None = None
    is_active: bool | None = None


class Deleted(Record):
    """How many were deleted."""

    deleted: int = Field(description="How many tokens are gone.")


@router.get("", summary="Access tokens", responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER"))
async def list_tokens(
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    username: Annotated[str | None, _USERNAME] = None,
    generatedby: Annotated[
        Literal["auto", "user", ""], Query(description="How they were made; empty: however.")
    ] = "",
    order: Annotated[
        Literal["id", "newest"], Query(description="`newest` is for the tokens of one account.")
    ] = "id",
) -> list[TokenRecord]:
    """
    The caller's own, those of `username`, or, for administrators who name nobody, those of all accounts.

    What clients that logged in keep is among them.
    """
    whose = await _whose(caller, rooms, username, Operation.SEE_SYSTEM)
    kinds, tokens = _KINDS[generatedby], rooms.accounts.tokens
    if page.wants_count:
        response.headers[COUNT] = str(await tokens.count_tokens(whose, kinds=kinds))
    if order == "newest":
        newest = await tokens.list_newest(
            whose or caller.user().name, kinds=kinds, start=page.start, limit=page.limit
        )
        return [TokenRecord.of(one) for one in page.cut(response, newest, lambda one: one.marker)]
    found = await tokens.list_tokens(whose, kinds=kinds, start=page.start, limit=page.limit)
    return [TokenRecord.of(one) for one in page.cut(response, found, lambda one: one.id)]


@router.post(
    "",
    summary="Make an access token",
    responses=errors("INVALID_TOKEN", "INVALID_TOKEN_SCOPE", "NOT_AUTHORIZED", "NO_SUCH_USER"),
)
async def create_token(
    form: TokenForm,
    caller: CallerDep,
    rooms: RoomsDep,
    username: Annotated[str | None, _USERNAME] = None,
    user_agent: Annotated[str, Header(include_in_schema=False)] = "",
) -> NewTokenRecord:
    """For the caller, or, by an administrator, for another user."""
    account = caller.require(Operation.MANAGE_OWN_TOKENS)
    if username is not None and username != account.name:
        caller.require(Operation.MANAGE_OTHERS_TOKENS)
        account = await _user(rooms, username)
    return await make_token(rooms, caller, account, form, user_agent)


@router.delete("", summary="Delete tokens that are not used", responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER"))
async def delete_tokens(
    caller: CallerDep,
    rooms: RoomsDep,
    username: Annotated[str | None, _USERNAME] = None,
    usedbefore: Annotated[
        str | None,
        Query(
            description="A date, or a moment (RFC 3339): those that were last used before it.",
            json_schema_extra={"anyOf": [{"type": "string", "format": one} for one in ("date", "date-time")]},
        ),
    ] = None,
    generatedby: Annotated[
        Literal["auto", "user", ""], Query(description="How they were made; empty: however.")
    ] = "auto",
) -> Deleted:
    """
    Of `username`; else the caller's own, and, when an administrator calls, those of all accounts.

    A token that was never used counts as used when it was made. Without a date, all of them go.
    """
    whose = await _whose(caller, rooms, username, Operation.MANAGE_OTHERS_TOKENS)
    before = _FOREVER if usedbefore is None else _moment(usedbefore)
    number = await rooms.accounts.tokens.delete_used_before(
        whose, kinds=_KINDS[generatedby], before=before, by=caller.actor
    )
    return Deleted(deleted=number)


@router.get("/{hashedtoken}", summary="An access token", responses=errors("NOT_AUTHORIZED", "NO_SUCH_API_TOKEN"))
async def get_token(hashedtoken: str, caller: CallerDep, rooms: RoomsDep) -> TokenRecord:
    """One of the caller's, or, for administrators, anybody's."""
    return TokenRecord.of(await _token(caller, rooms, hashedtoken, Operation.SEE_SYSTEM))


@router.patch(
    "/{hashedtoken}",
    summary="Rename an access token, switch it off or on",
    responses=errors("INVALID_TOKEN", "NOT_AUTHORIZED", "NO_SUCH_API_TOKEN"),
)
async def update_token(hashedtoken: str, form: TokenChange, caller: CallerDep, rooms: RoomsDep) -> TokenRecord:
    """A token that is not active opens nothing, from this moment on, until it is active again."""
    found = await _token(caller, rooms, hashedtoken, Operation.MANAGE_OTHERS_TOKENS)
    changed = await rooms.accounts.tokens.update(
        found.id, label=form.token_label, active=form.is_active, by=caller.actor
    )
    return TokenRecord.of(changed)


@router.delete(
    "/{hashedtoken}", summary="Delete an access token", responses=errors("NOT_AUTHORIZED", "NO_SUCH_API_TOKEN")
)
async def delete_token(hashedtoken: str, caller: CallerDep, rooms: RoomsDep) -> Deleted:
    """It opens nothing from this moment on, and neither does what was left behind by log-ins with it."""
    found = await _token(caller, rooms, hashedtoken, Operation.MANAGE_OTHERS_TOKENS)
    if not await rooms.accounts.tokens.delete(found.account, found.id, by=caller.actor):
        raise TokenUnknown(found.id)
    return Deleted(deleted=1)


async def make_token(
    rooms: Rooms, caller: Caller, account: Account, form: TokenForm, user_agent: str
) -> NewTokenRecord:
    """Make a token that opens `account`, and give its record with the secret."""
    secret = await rooms.accounts.tokens.create(
        account.name,
        form.token_label,
        scope=form.scope.scope if form.scope else None,
        expires_at=milliseconds(form.expires_at) if form.expires_at else None,
        user_agent="".join(char for char in user_agent if char.isprintable()),
        by=caller.actor,
    )
    made = await rooms.accounts.tokens.find(token_id(secret))
    if made is None:
        raise TokenUnknown(token_id(secret))
    return NewTokenRecord(token=secret, **_fields(made))


def _fields(token: AccessToken) -> dict[str, object]:
    return {
        "hashed_token": token.id,
        "token_label": token.label,
        "is_active": token.is_active,
        "created_at": moment(token.created_at),
        "last_used": moment(token.last_used_at),
        "last_used_from": token.last_used_address,
        "generated_by": "user" if token.kind == "access" else "auto",
        "creator_ua": token.user_agent,
        "username": token.account,
        "expires_at": None if token.expires_at is None else moment(token.expires_at),
        "scope": None if token.scope is None else ScopeRecord.of(token.scope),
    }


async def _whose(caller: Caller, rooms: Rooms, username: str | None, of_others: Operation) -> str | None:
    """
    The name of the account whose tokens are meant; None: those of all.

    Raises ApiError, UserUnknown.
    """
    account = caller.require(Operation.MANAGE_OWN_TOKENS)
    if username is None:
        return None if caller.may(of_others) else account.name
    if username == account.name:
        return username
    caller.require(of_others)
    return (await _user(rooms, username)).name


async def _user(rooms: Rooms, username: str) -> Account:
    found = await rooms.accounts.find(username)
    if found is None or found.kind == "organization":
        raise UserUnknown(username)
    return found


async def _token(caller: Caller, rooms: Rooms, token: str, of_others: Operation) -> AccessToken:
    """A token that the caller has to do with; another one's looks like none. Raises ApiError."""
    account = caller.require(Operation.MANAGE_OWN_TOKENS)
    found = await rooms.accounts.tokens.find(token)
    if found is None or (found.account_id != account.id and not caller.may(of_others)):
        raise ApiError("NO_SUCH_API_TOKEN", token)
    return found


_FOREVER = 1 << 62
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def milliseconds(when: dt.datetime) -> int:
    """Milliseconds since 1970; a moment without a zone is one of UTC."""
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return (when - _EPOCH) // dt.timedelta(milliseconds=1)


def _moment(text: str) -> int:
    """A date or moment in milliseconds since 1970. Raises ApiError: INVALID_PARAMETERS."""
    try:
        return milliseconds(dt.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        problem = {"field": "usedbefore", "message": "neither a date nor a moment (RFC 3339)"}
        raise ApiError("INVALID_PARAMETERS", [problem]) from None
