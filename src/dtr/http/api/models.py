"""What the API's records share: names in camelCase, moments in RFC 3339, and the record of an account."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from dtr.accounts import Account

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PARTS = f"^{_PART}(?:/{_PART})*$"

NEVER = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
"""How DTR writes a moment that has not come."""


# What the rooms check and refuse with codes of their own is only described here.
AccountName = Annotated[str, Field(json_schema_extra={"pattern": f"^{_PART}$", "minLength": 1, "maxLength": 100})]
"""Of an account or a team."""
RepositoryName = Annotated[str, Field(json_schema_extra={"pattern": _PARTS, "minLength": 1, "maxLength": 253})]
"""Within a namespace; with that it has at most 255 characters."""
RemoteRepositoryName = Annotated[
    str,
    Field(
        description="The repository there, as that registry calls it.",
        json_schema_extra={"pattern": _PARTS, "minLength": 1, "maxLength": 255},
    ),
]
Password = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 1024})]


class Record(BaseModel):
    """Something that the API answers."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, defer_build=True)


class Form(BaseModel):
    """
    Something that the API is given; what it does not know it leaves aside, as DTR did.

    Its texts are Unicode without NUL: a database keeps no others.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, strict=True, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _has_text(cls, given: Any) -> Any:
        waiting = [given]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str) and _NO_TEXT.search(one):
                raise ValueError("text has no NUL, and no half of a pair of surrogates")
            if isinstance(one, dict):
                waiting += (*one, *one.values())
            elif isinstance(one, list):
                waiting += one
        return given


def moment(milliseconds: int | None) -> dt.datetime:
    """A moment of the database, milliseconds since 1970 UTC; None is `NEVER`."""
    if milliseconds is None:
        return NEVER
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)


class AccountRecord(Record):
    """A user, an organization or a robot of one."""

    name: str = Field(description="Its name, which is a namespace.")
    id: str
    full_name: str
    is_org: bool
    is_admin: bool | None = Field(None, description="Users: administers the whole system.")
    is_active: bool | None = Field(None, description="Users: may log in.")
    is_imported: bool | None = Field(None, description="Users: came from a directory service.")
    is_auditor: bool | None = Field(None, description="Users: sees everything, and changes nothing.")
    members_count: int | None = Field(None, description="Organizations: how many members it has.")
    teams_count: int | None = Field(None, description="Organizations: how many teams it has.")

    @classmethod
    def of(cls, account: Account, *, members: int | None = None, teams: int | None = None) -> Self:
        """The record of an account; `members` and `teams` of an organization."""
        if account.kind == "organization":
            return cls(
                name=account.name,
                id=account.id,
                full_name=account.full_name,
                is_org=True,
                members_count=members or 0,
                teams_count=teams or 0,
            )
        return cls(
            name=account.name,
            id=account.id,
            full_name=account.full_name,
            is_org=False,
            is_admin=account.is_admin,
            is_active=account.is_active,
            is_imported=account.is_imported,
            is_auditor=account.is_auditor,
        )
