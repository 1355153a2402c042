"""``/api/v0/accounts``: what belongs to an account, beside what the account service has (``/enzi/v0``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Header
from pydantic import Field

from dtr.accounts import Operation, UserUnknown
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import Account, UserSettings
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/accounts", tags=["accounts"])


class Language(Record):
    """The language of the user interface."""

    language: str


class UserSettingsRecord(Record):
    """What a user has chosen."""

    content_cache_uuid: str = Field(
        alias="ContentCacheUUID", description="The content cache to pull from; empty: none."
    )
    language: str = Field(description="The language of the user interface; empty: that of the browser.")

    @classmethod
    def of(cls, settings: UserSettings) -> UserSettingsRecord:
        """The record of the settings."""
        return cls(content_cache_uuid=settings.content_cache, language=settings.language)


class UserSettingsForm(Form):
    """What of the settings is to be changed; what is missing stays."""

    content_cache_uuid: str | None = Field(None, alias="contentCacheUUID", description="Empty: none.")
    language: str | None = Field(
        None,
        description="`en`, `ja`, or empty: that of the browser.",
        json_schema_extra={"enum": ["en", "ja", ""]},
    )


@router.get("/language", summary="The caller's language")
async def get_language(
    caller: CallerDep, rooms: RoomsDep, accept_language: Annotated[str | None, Header()] = None
) -> Language:
    """What the account has chosen, or else the browser."""
    chosen = (await rooms.accounts.user_settings.get(caller.user())).language
    wanted = (accept_language or "").strip().lower()
    return Language(language=chosen or ("ja" if wanted.startswith("ja") else "en"))


@router.get(
    "/{username}/settings", summary="A user's settings", responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER")
)
async def get_user_settings(username: str, caller: CallerDep, rooms: RoomsDep) -> UserSettingsRecord:
    """For the user, and for administrators."""
    user = await find_user(caller, rooms, username, Operation.SEE_SYSTEM)
    return UserSettingsRecord.of(await rooms.accounts.user_settings.get(user))


@router.patch(
    "/{username}/settings",
    summary="Change a user's settings",
    responses=errors("INVALID_USER_SETTINGS", "NOT_AUTHORIZED", "NO_SUCH_USER"),
)
async def update_user_settings(
    username: str, form: UserSettingsForm, caller: CallerDep, rooms: RoomsDep
) -> UserSettingsRecord:
    """By the user, and by administrators."""
    user = await find_user(caller, rooms, username, Operation.ADMINISTER)
    changed = await rooms.accounts.user_settings.update(
        user, language=form.language, content_cache=form.content_cache_uuid, by=caller.actor
    )
    return UserSettingsRecord.of(changed)


async def find_user(caller: Caller, rooms: Rooms, username: str, of_others: Operation) -> Account:
    """The user, when that is the caller, or the caller has to do with others. Raises ApiError, UserUnknown."""
    account = caller.require(Operation.MANAGE_OWN_SETTINGS)
    if username in {account.name, account.id}:
        return account
    caller.require(of_others)
    found = await rooms.accounts.find(username)
    if found is None or found.kind != "user":
        raise UserUnknown(username)
    return found
