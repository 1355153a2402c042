"""Repositories that users pinned, to find them at once. Whether they may see them is not decided here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, and_, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import ConstraintViolated, Statement, now
from dtr.db.schema import pinned_repositories, repositories
from dtr.events import SYSTEM, Actor, Event, record
from dtr.registry.errors import RegistryError, RepositoryUnknown

if TYPE_CHECKING:
    from dtr.accounts import Account
    from dtr.db import Database, Transaction

MOST = 50
"""So many a user may pin."""

_pin = pinned_repositories.c
_repository = bindparam("repository", type_=BigInteger)
_mine = _pin.account_id == bindparam("account")
_LIST = Statement(
    lambda: (
        select(_pin.repository_id)
        .join(repositories, and_(repositories.c.id == _pin.repository_id, repositories.c.deleted_at.is_(None)))
        .where(_mine)
        .order_by(_pin.created_at.desc(), _pin.repository_id)
    )
)
_COUNT = Statement(lambda: select(func.count()).select_from(pinned_repositories).where(_mine))
_IS_PINNED = Statement(lambda: select(_pin.repository_id).where(_mine, _pin.repository_id == _repository))
_PATH = Statement(
    lambda: select(repositories.c.path).where(
        repositories.c.id == _repository, repositories.c.deleted_at.is_(None)
    )
)
_PIN = Statement(
    lambda: (
        insert(pinned_repositories)
        .values(account_id=bindparam("account"), repository_id=_repository, created_at=now())
        .on_conflict_do_nothing(index_elements=["account_id", "repository_id"])
    )
)
_UNPIN = Statement(lambda: delete(pinned_repositories).where(_mine, _pin.repository_id == _repository))


class TooManyPins(RegistryError):
    """Somebody pinned as many repositories as can be."""

    def __init__(self) -> None:
        super().__init__(f"at most {MOST} repositories can be pinned")


class Pins:
    """The pinned repositories of all users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_pinned(self, account: Account) -> list[int]:
        """The ids of the repositories that a user pinned, the last one first; those that are gone are missing."""
        return [row[0] for row in await self._database.fetch_all(_LIST, account=account.id)]

    async def is_pinned(self, account: Account, repository: int) -> bool:
        """Whether a user pinned a repository."""
        return await self._database.fetch_one(_IS_PINNED, account=account.id, repository=repository) is not None

    async def pin(self, account: Account, repository: int, *, by: Actor = SYSTEM) -> None:
        """Pin a repository, if it is not. Raises RepositoryUnknown, TooManyPins."""

        async def work(tx: Transaction) -> None:
            path = await tx.fetch_one(_PATH, repository=repository)
            if path is None:
                raise RepositoryUnknown(str(repository))
            if not await tx.execute(_PIN, account=account.id, repository=repository):
                return
            count = await tx.fetch_one(_COUNT, account=account.id)
            if count is not None and count[0] > MOST:
                raise TooManyPins
            await record(tx, _event(account, path[0], by, is_pinned=True))

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # it went meanwhile, or the account did
            raise RepositoryUnknown(str(repository)) from None

    async def unpin(self, account: Account, repository: int, *, by: Actor = SYSTEM) -> None:
        """Let a repository be no longer pinned. Raises RepositoryUnknown."""

        async def work(tx: Transaction) -> None:
            path = await tx.fetch_one(_PATH, repository=repository)
            if path is None:
                raise RepositoryUnknown(str(repository))
            if await tx.execute(_UNPIN, account=account.id, repository=repository):
                await record(tx, _event(account, path[0], by, is_pinned=False))

        await self._database.unit(work)


def _event(account: Account, path: str, by: Actor, *, is_pinned: bool) -> Event:
    content = json.dumps({"repository": path, "pinned": is_pinned})
    return Event(type="UPDATE", actor=by, object=account.as_object(content))
