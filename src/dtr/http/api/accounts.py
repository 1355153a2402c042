"""``/api/v0/accounts``: what belongs to an account, beside what the account service has (``/enzi/v0``)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from dtr.http.api.caller import CallerDep
from dtr.http.api.models import Record

router = APIRouter(prefix="/api/v0/accounts", tags=["accounts"])


class Language(Record):
    """The language of the user interface."""

    language: str


@router.get("/language", summary="The caller's language")
async def get_language(caller: CallerDep, accept_language: Annotated[str | None, Header()] = None) -> Language:
    """What the account has chosen, or else the browser."""
    caller.user()
    wanted = (accept_language or "").strip().lower()
    return Language(language="ja" if wanted.startswith("ja") else "en")
