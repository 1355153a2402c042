"""``/enzi/v0/config``: how the account service works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.settings import Values

router = Router(prefix="/enzi/v0/config", tags=["enzi"])

_LIFETIME = "So many minutes after the log-in a session ends; at least 10."
_RENEWAL = "One that is used in its last so many minutes lives on; at most the lifetime less 5; 0: none does."
_YEAR = 365 * 24 * 60
_LIMIT = "One more, and the session of the user that was used least recently ends; 0: any number."


class SessionSettings(Record):
    """How long sessions live, and how many a user has."""

    lifetime_minutes: int = Field(description=_LIFETIME)
    renewal_threshold_minutes: int = Field(description=_RENEWAL)
    per_user_limit: int = Field(description=_LIMIT)

    @classmethod
    def of(cls, values: Values) -> SessionSettings:
        """The record of the settings."""
        return cls(
            lifetime_minutes=values.session_lifetime_minutes,
            renewal_threshold_minutes=values.session_renewal_threshold_minutes,
            per_user_limit=values.sessions_per_user,
        )


class SessionSettingsForm(Form):
    """What of the settings is to be changed; what is missing stays."""

    lifetime_minutes: int | None = Field(
        None, description=_LIFETIME, json_schema_extra={"minimum": 10, "maximum": _YEAR}
    )
    renewal_threshold_minutes: int | None = Field(
        None, description=_RENEWAL, json_schema_extra={"minimum": 0, "maximum": _YEAR}
    )
    per_user_limit: int | None = Field(
        None, description=_LIMIT, json_schema_extra={"minimum": 0, "maximum": 2**31}
    )
    expected: SessionSettings | None = Field(
        None, description="What has to hold before; else nothing is changed (`SETTINGS_CHANGED`)."
    )


@router.get("/sessions", summary="The settings of sessions", responses=errors("NOT_AUTHORIZED"))
async def get_session_settings(caller: CallerDep, rooms: RoomsDep) -> SessionSettings:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return SessionSettings.of(await rooms.live.refresh())


@router.put(
    "/sessions",
    summary="Change the settings of sessions",
    responses=errors("INVALID_SETTINGS", "SETTINGS_CHANGED", "NOT_AUTHORIZED"),
)
async def update_session_settings(
    form: SessionSettingsForm, caller: CallerDep, rooms: RoomsDep
) -> SessionSettings:
    """For administrators. Sessions that are open keep the end that they have."""
    caller.require(Operation.ADMINISTER)
    changes = {name: value for name, value in _settings(form).items() if value is not None}
    expected = _settings(form.expected) if form.expected else None
    return SessionSettings.of(await rooms.live.change(changes, expected=expected, by=caller.actor))


def _settings(given: SessionSettings | SessionSettingsForm) -> dict[str, int | None]:
    """By the names that the room has for them."""
    return {
        "sessionLifetimeMinutes": given.lifetime_minutes,
        "sessionRenewalThresholdMinutes": given.renewal_threshold_minutes,
        "sessionsPerUser": given.per_user_limit,
    }
