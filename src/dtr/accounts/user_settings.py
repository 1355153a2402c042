"""Settings of single users: what concerns them, and nobody else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import UserSettingsInvalid, UserUnknown
from dtr.db import ConstraintViolated, Statement
from dtr.db.schema import user_settings
from dtr.events import SYSTEM, Actor, Event, record

if TYPE_CHECKING:
    from dtr.accounts.records import Account
    from dtr.db import Database, Transaction

LANGUAGES = ("en", "ja")
"""Those of the user interface, by their codes (ISO 639)."""

_FIND = Statement(
    lambda: select(user_settings.c.language, user_settings.c.content_cache).where(
        user_settings.c.account_id == bindparam("account")
    )
)
_PUT = Statement(
    lambda: (
        insert(user_settings)
        .values(
            account_id=bindparam("account"),
            language=bindparam("language"),
            content_cache=bindparam("content_cache"),
        )
        .on_conflict_do_update(
            index_elements=["account_id"],
            set_={"language": bindparam("language"), "content_cache": bindparam("content_cache")},
        )
    )
)


class UserSettings(Struct, frozen=True):
    """What a user has chosen; empty: nothing, so that the browser's language counts, and no cache is asked."""

    language: str = ""
    content_cache: str = ""


class AllUserSettings:
    """The settings of all users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, account: Account) -> UserSettings:
        """What a user has chosen."""
        row = await self._database.fetch_one(_FIND, account=account.id)
        return UserSettings(row[0] or "", row[1] or "") if row else UserSettings()

    async def update(
        self,
        account: Account,
        *,
        language: str | None = None,
        content_cache: str | None = None,
        by: Actor = SYSTEM,
    ) -> UserSettings:
        """
        Change of a user's settings what is not None; how they are then.

        Raises UserSettingsInvalid, UserUnknown.
        """
        if language and language not in LANGUAGES:
            raise UserSettingsInvalid(f"the language is one of {', '.join(LANGUAGES)}, or empty")
        if content_cache:
            raise UserSettingsInvalid("there is no content cache of this id")

        async def work(tx: Transaction) -> UserSettings:
            row = await tx.fetch_one(_FIND, account=account.id)
            before = UserSettings(row[0] or "", row[1] or "") if row else UserSettings()
            after = UserSettings(
                before.language if language is None else language,
                before.content_cache if content_cache is None else content_cache,
            )
            if after == before:
                return before
            await tx.execute(
                _PUT,
                account=account.id,
                language=after.language or None,
                content_cache=after.content_cache or None,
            )
            content = json.dumps({"language": after.language, "content_cache": after.content_cache})
            await record(tx, Event(type="UPDATE", actor=by, object=account.as_object(content)))
            return after

        try:
            return await self._database.unit(work)
        except ConstraintViolated:  # the user is gone meanwhile
            raise UserUnknown(account.name) from None
