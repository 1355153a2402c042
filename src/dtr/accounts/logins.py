"""Logging in: who somebody is, by a password or a token."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import bindparam, or_, select, update

from dtr.accounts.access_tokens import PREFIXES, read_scope, token_id
from dtr.accounts.errors import BadCredentials
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, account_of, findable
from dtr.accounts.throttle import Throttle
from dtr.db import DatabaseError, Statement, now
from dtr.db.schema import accounts, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dtr.accounts.access_tokens import TokenKind
    from dtr.accounts.passwords import Passwords
    from dtr.accounts.permissions import TokenScope
    from dtr.db import Database, Transaction

_TOUCH_MS = 60_000
_FIRST = len(ACCOUNT_COLUMNS)
"""The place of the first column behind those of the account."""

_FIND_SECRET = Statement(
    select(*ACCOUNT_COLUMNS, accounts.c.password_hash).where(accounts.c.name == bindparam("name"))
)
_FIND_BY_TOKEN = Statement(
    select(
        *ACCOUNT_COLUMNS,
        tokens.c.kind,
        tokens.c.scope,
        or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < now() - _TOUCH_MS),
    )
    .join_from(tokens, accounts, tokens.c.account_id == accounts.c.id)
    .where(
        tokens.c.id == bindparam("id"),
        tokens.c.is_active.is_(True),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now()),
    )
)
_TOUCH = Statement(update(tokens).where(tokens.c.id == bindparam("which")).values(last_used_at=now()))
_SET_PASSWORD = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(password_hash=bindparam("password_hash"))
)


@dataclass(frozen=True, slots=True)
class Login:
    """Who somebody is, how that is known, and what the token that was shown is good for (None: everything)."""

    account: Account
    means: Literal["password", "token", "session"]
    scope: TokenScope | None = None


class Logins:
    """Finds out who somebody is."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords
        self._throttle = Throttle(database)

    async def authenticate(self, name: str, secret: str, address: str) -> Login:
        """
        The user who gives this name and password, or access token, from `address`.

        A right token is not slowed down: nobody guesses it, so nobody can keep its owner out. Raises
        BadCredentials, TooManyAttempts.
        """
        if secret.startswith(PREFIXES["access"]):
            found = await self._check_token(secret, "access")
            if found is not None and found.account.name == name:
                return found
        async with self._throttle.turn(address):
            noteworthy = await self._throttle.check(name, address)
            account = await self._check_password(name, secret)
            if account is None:
                await self._throttle.failed(name, address)
                raise BadCredentials
            if noteworthy:
                await self._note(self._throttle.succeeded(name, address))
        return Login(account, "password")

    async def authenticate_token(self, secret: str, kind: TokenKind, address: str) -> Login:
        """The user whose token this is; as for `authenticate`. Raises BadCredentials, TooManyAttempts."""
        found = await self._check_token(secret, kind)
        if found is None:
            await self._throttle.check(None, address)
            await self._throttle.failed(None, address)
            raise BadCredentials
        return found

    @staticmethod
    async def _note(writing: Awaitable[None]) -> None:
        """Write down something about a right log-in, which it stays when that fails, on a full disk."""
        with contextlib.suppress(DatabaseError):
            await writing

    async def _check_password(self, name: str, secret: str) -> Account | None:
        row = await self._database.fetch_one(_FIND_SECRET, name=findable(name))
        right, outdated = await self._passwords.verify(row[_FIRST] if row else None, secret)
        if row is None or not right:
            return None
        found = account_of(row)
        if found.kind != "user" or not found.is_active:
            return None
        if outdated:
            hashed = await self._passwords.hash(secret)

            async def work(tx: Transaction) -> None:
                await tx.execute(_SET_PASSWORD, which=found.id, password_hash=hashed)

            await self._note(self._database.unit(work))
        return found

    async def _check_token(self, secret: str, kind: TokenKind) -> Login | None:
        token = token_id(secret)
        row = await self._database.fetch_one(_FIND_BY_TOKEN, id=token)
        if row is None or row[_FIRST] != kind:
            return None
        found = account_of(row)
        if not found.is_active:
            return None
        if row[_FIRST + 2]:

            async def work(tx: Transaction) -> None:
                await tx.execute(_TOUCH, which=token)

            await self._note(self._database.unit(work))
        return Login(found, "token", read_scope(row[_FIRST + 1]))
