"""
Logging in: who somebody is, by a password or a token.

Sessions, which a password opens, are in `dtr.accounts.sessions`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlalchemy import bindparam, or_, select, update

from dtr.accounts.access_tokens import (
    EXPIRES_AT,
    IS_CHILD_OF,
    OPENS,
    PARENTS,
    PREFIXES,
    SCOPE,
    scope_of_login,
    token_id,
)
from dtr.accounts.errors import BadCredentials
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, account_of, findable
from dtr.accounts.throttle import Throttle
from dtr.db import DatabaseError, Statement, now
from dtr.db.schema import accounts, tokens
from dtr.events import Actor, Event, Object

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dtr.accounts.access_tokens import TokenKind
    from dtr.accounts.passwords import Passwords
    from dtr.accounts.permissions import TokenScope
    from dtr.db import Database, Row, Transaction

_TOUCH_MS = 60_000
_FIRST = len(ACCOUNT_COLUMNS)
"""The place of the first column behind those of the account."""

_FIND_SECRET = Statement(
    lambda: select(
        *ACCOUNT_COLUMNS,
        accounts.c.password_hash,
        or_(accounts.c.last_login_at.is_(None), accounts.c.last_login_at < now() - _TOUCH_MS),
    ).where(accounts.c.name == bindparam("name"))
)
_NOTE_LOGIN = Statement(
    lambda: update(accounts).where(accounts.c.id == bindparam("which")).values(last_login_at=now())
)
_FIND_BY_TOKEN = Statement(
    lambda: (
        select(
            *ACCOUNT_COLUMNS,
            tokens.c.kind,
            SCOPE,
            EXPIRES_AT,
            or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < now() - _TOUCH_MS),
        )
        .join_from(tokens, accounts, tokens.c.account_id == accounts.c.id)
        .outerjoin(PARENTS, IS_CHILD_OF)
        .where(tokens.c.id == bindparam("id"), OPENS)
    )
)
_TOUCH = Statement(
    lambda: (
        update(tokens)
        .where(tokens.c.id == bindparam("which"))
        .values(last_used_at=now(), last_used_address=bindparam("address"))
    )
)
_RENEW_HASH = Statement(
    lambda: (
        update(accounts)
        .where(accounts.c.id == bindparam("which"), accounts.c.password_hash == bindparam("old"))
        .values(password_hash=bindparam("new"))
    )
)


@dataclass(frozen=True, slots=True)
class Login:
    """Who somebody is, how that is known, and what the token that was shown is good for (None: everything)."""

    account: Account
    means: Literal["password", "token", "session"]
    scope: TokenScope | None = None
    token: str = ""
    """The id of the token; empty: none was shown."""
    expires_at: int | None = None
    """When the token expires, in milliseconds since 1970; None: it does not."""
    session: str = ""
    """The id of the session; empty: it was none."""
    proof: str = field(default="", repr=False, compare=False)
    """The stored hash that the password fits; empty: no password was shown."""


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
            found = await self._check_token(secret, "access", address)
            if found is not None and found.account.name == name:
                return found
        return await self.authenticate_password(name, secret, address)

    async def authenticate_password(self, name: str, password: str, address: str) -> Login:
        """The user who gives this name and password; as for `authenticate`, but no token takes its place."""
        async with self._throttle.turn(address):
            noteworthy = await self._throttle.check(name, address)
            row = await self._database.fetch_one(_FIND_SECRET, name=findable(name))
            login = await self._check_password(row, password)
            if login is None:
                await self._throttle.failed(name, address, _failure(row, address))
                raise BadCredentials
            if noteworthy:
                await self._note(self._throttle.succeeded(name, address))
        if row is not None and row[_FIRST + 1]:
            await self._note(self._note_login(login.account))
        return login

    async def authenticate_token(self, secret: str, kind: TokenKind, address: str) -> Login:
        """The user whose token this is; as for `authenticate`. Raises BadCredentials, TooManyAttempts."""
        found = await self._check_token(secret, kind, address)
        if found is None:
            await self._throttle.check(None, address)
            await self._throttle.failed(None, address, _failure(None, address))
            raise BadCredentials
        return found

    @staticmethod
    async def _note(writing: Awaitable[None]) -> None:
        """Write down something about a right log-in, which it stays when that fails, on a full disk."""
        with contextlib.suppress(DatabaseError):
            await writing

    async def _check_password(self, row: Row | None, password: str) -> Login | None:
        stored: str | None = row[_FIRST] if row else None
        right, outdated = await self._passwords.verify(stored, password)
        if row is None or stored is None or not right:
            return None
        found = account_of(row)
        if found.kind != "user" or not found.is_active:
            return None
        proof = await self._renew_hash(found, stored, password) if outdated else stored
        return Login(found, "password", proof=proof)

    async def _note_login(self, account: Account) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_NOTE_LOGIN, which=account.id)

        await self._database.unit(work, durable=False)

    async def _renew_hash(self, account: Account, old: str, password: str) -> str:
        """Store a hash at today's cost; which one is stored then. The password is right also when that fails."""
        new = await self._passwords.hash(password)

        async def work(tx: Transaction) -> int:
            return await tx.execute(_RENEW_HASH, which=account.id, old=old, new=new)

        with contextlib.suppress(DatabaseError):
            return new if await self._database.unit(work) else old
        return old

    async def _check_token(self, secret: str, kind: TokenKind, address: str) -> Login | None:
        token = token_id(secret)
        row = await self._database.fetch_one(_FIND_BY_TOKEN, id=token)
        if row is None or row[_FIRST] != kind:
            return None
        found = account_of(row)
        if not found.is_active:
            return None
        _, scope, expires_at, is_to_be_noted = row[_FIRST:]
        if is_to_be_noted:

            async def work(tx: Transaction) -> None:
                await tx.execute(_TOUCH, which=token, address=address)

            await self._note(self._database.unit(work))
        return Login(found, "token", scope_of_login(found, scope), token, expires_at)


def _failure(row: Row | None, address: str) -> Event:
    """A wrong log-in. What is the name of no account is not told: some type their password in its place."""
    found = account_of(row) if row else None
    return Event(
        type="FAIL",
        actor=Actor("anonymous", address=address),
        object=found.as_object("log-in") if found else Object("account", "", "", "log-in"),
    )
