"""How the API says that a host may not be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import Operation

if TYPE_CHECKING:
    from dtr.http.api.caller import Caller


def with_setting(text: str, setting: str, caller: Caller) -> str:
    """What is said of an address that is not allowed; who sees the settings is told which one allows it."""
    if not caller.may(Operation.SEE_SYSTEM):
        return text
    return f"{text}; the setting {setting} allows networks that are not public"
