"""
Users and organisations.

Names of accounts are namespaces, hence the first part of repository names.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Boolean, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.access_tokens import AccessTokens
from dtr.accounts.errors import AccountInUse, AccountUnknown, NameTaken
from dtr.accounts.grants import Grants
from dtr.accounts.logins import Logins
from dtr.accounts.organizations import Organizations
from dtr.accounts.passwords import Passwords
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, AccountKind, account_of, check_name, findable
from dtr.accounts.standings import Standings
from dtr.db import ConstraintViolated, Statement, now
from dtr.db.schema import accounts, repositories, tokens, usage, usage_deltas

if TYPE_CHECKING:
    from dtr.db import Database, Transaction

_INSERT = Statement(
    insert(accounts)
    .values(
        id=bindparam("id"),
        name=bindparam("name"),
        kind=bindparam("kind"),
        full_name=bindparam("full_name"),
        is_admin=bindparam("is_admin", type_=Boolean),
        is_active=True,
        is_imported=False,
        password_hash=bindparam("password_hash"),
        created_at=now(),
    )
    .on_conflict_do_nothing(index_elements=["name"])
)
_FIND = Statement(select(*ACCOUNT_COLUMNS).where(accounts.c.name == bindparam("name")))
_LIST = Statement(
    select(*ACCOUNT_COLUMNS)
    .where(accounts.c.name > bindparam("after"))
    .order_by(accounts.c.name)
    .limit(bindparam("limit", type_=BigInteger))
)
_COUNT = Statement(select(func.count()).select_from(select(accounts.c.id).limit(1).subquery()))
_SET_PASSWORD = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(password_hash=bindparam("password_hash"))
)
_SET_ACTIVE = Statement(
    update(accounts)
    .where(accounts.c.id == bindparam("which"))
    .values(is_active=bindparam("active", type_=Boolean))
)
_SET_ADMIN = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(is_admin=bindparam("admin", type_=Boolean))
)
_DELETE = Statement(delete(accounts).where(accounts.c.id == bindparam("which")))
_FORGET_USAGE = tuple(
    Statement(delete(table).where(table.c.scope == bindparam("scope"))) for table in (usage_deltas, usage)
)
_OWNS_REPOSITORIES = Statement(
    select(repositories.c.id)
    .where(repositories.c.namespace_id == bindparam("id"), repositories.c.deleted_at.is_(None))
    .limit(1)
)
_END_TOKENS = Statement(
    delete(tokens).where(tokens.c.account_id == bindparam("account"), tokens.c.kind == bindparam("kind"))
)


class Accounts:
    """All accounts, and what belongs to them."""

    def __init__(self, database: Database, passwords: Passwords | None = None) -> None:
        self._database = database
        self._passwords = passwords or Passwords()
        self.logins = Logins(database, self._passwords)
        self.tokens = AccessTokens(database, self)
        self.organizations = Organizations(database, self)
        self.grants = Grants(database, self.organizations)
        self.standings = Standings(database)

    async def create_user(
        self, name: str, password: str | None, *, full_name: str = "", is_admin: bool = False
    ) -> str:
        """Make a user; its id. Raises AccountNameInvalid, NameTaken, PasswordInvalid."""
        hashed = None if password is None else await self._passwords.hash(password)
        return await self._create(name, "user", full_name, is_admin=is_admin, password_hash=hashed)

    async def create_organization(self, name: str, *, full_name: str = "") -> str:
        """Make an organisation; its id. Raises AccountNameInvalid, NameTaken."""
        return await self._create(name, "organization", full_name, is_admin=False, password_hash=None)

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        row = await self._database.fetch_one(_FIND, name=findable(name))
        return account_of(row) if row else None

    async def get(self, name: str, kind: AccountKind | None = None) -> Account:
        """The account of this name (and kind). Raises AccountUnknown."""
        found = await self.find(name)
        if found is None or kind not in {None, found.kind}:
            raise AccountUnknown(name)
        return found

    async def list_accounts(self, *, after: str = "", limit: int) -> list[Account]:
        """At most `limit` accounts behind the name `after`, by name."""
        return [account_of(row) for row in await self._database.fetch_all(_LIST, after=after, limit=limit)]

    async def is_empty(self) -> bool:
        """Whether there is no account at all: the first start."""
        row = await self._database.fetch_one(_COUNT)
        return row is None or row[0] == 0

    async def set_password(self, name: str, password: str) -> None:
        """Give a user a new password; what log-ins left behind ends. Raises AccountUnknown, PasswordInvalid."""
        user = await self.get(name, "user")
        hashed = await self._passwords.hash(password)

        async def work(tx: Transaction) -> None:
            await tx.execute(_SET_PASSWORD, which=user.id, password_hash=hashed)
            await tx.execute(_END_TOKENS, account=user.id, kind="refresh")

        await self._database.unit(work)

    async def set_active(self, name: str, active: bool) -> None:
        """Let a user log in, or no longer. Raises AccountUnknown."""
        user = await self.get(name, "user")

        async def work(tx: Transaction) -> None:
            await tx.execute(_SET_ACTIVE, which=user.id, active=active)
            if not active:
                await tx.execute(_END_TOKENS, account=user.id, kind="refresh")

        await self._database.unit(work)

    async def set_admin(self, name: str, admin: bool) -> None:
        """Make a user a system administrator, or no longer. Raises AccountUnknown."""
        user = await self.get(name, "user")

        async def work(tx: Transaction) -> None:
            await tx.execute(_SET_ADMIN, which=user.id, admin=admin)

        await self._database.unit(work)

    async def delete(self, name: str) -> None:
        """Remove an account, its teams, grants and tokens. Raises AccountUnknown, AccountInUse."""
        account = await self.get(name)

        async def work(tx: Transaction) -> None:
            if await tx.fetch_one(_OWNS_REPOSITORIES, id=account.id):
                raise AccountInUse(name)
            await tx.execute(_DELETE, which=account.id)
            for statement in _FORGET_USAGE:
                await tx.execute(statement, scope=f"namespace:{account.id}")

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # a repository was made meanwhile
            raise AccountInUse(name) from None

    async def _create(
        self, name: str, kind: AccountKind, full_name: str, *, is_admin: bool, password_hash: str | None
    ) -> str:
        check_name(name)
        made = str(uuid.uuid4())

        async def work(tx: Transaction) -> None:
            if not await tx.execute(
                _INSERT,
                id=made,
                name=name,
                kind=kind,
                full_name=full_name,
                is_admin=is_admin,
                password_hash=password_hash,
            ):
                raise NameTaken(name)

        await self._database.unit(work)
        return made
