"""
Sessions: what a log-in with a password opens for a browser, or for a script that does not want to send it again.

A session ends after its lifetime. One that is used shortly before its end lives on for a whole lifetime from then.
A user has so many sessions at once; one more, and that which was used least recently ends. A new password,
deactivation and deletion end all of them.

A session's secret has 256 bits, and its SHA-256 is what is stored. The token that a browser repeats to show that a
request comes from its own page (`csrf_token`) follows from the secret, so that nothing has to be kept for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, Text, bindparam, case, delete, func, select, true, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.access_tokens import token_id
from dtr.accounts.errors import SessionUnknown
from dtr.accounts.lists import pattern_of
from dtr.accounts.logins import Login
from dtr.accounts.records import ACCOUNT_COLUMNS, account_of, findable, require_proof
from dtr.db import DatabaseError, Statement, now
from dtr.db.schema import accounts, sessions
from dtr.events import SYSTEM, Actor, Event, Object, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement

    from dtr.db import Database, Row, Transaction

_PREFIX = "dtrs_"
_MINUTE = 60_000
_NOTED_EVERY_MS = _MINUTE
_SWEPT_AT_ONCE = 1_000

_INSERT = Statement(
    lambda: (
        insert(sessions)
        .values(
            id=bindparam("id"),
            account_id=bindparam("account"),
            created_at=now(),
            last_used_at=now(),
            expires_at=now() + bindparam("lifetime", type_=BigInteger),
            address=bindparam("address"),
            user_agent=bindparam("user_agent"),
        )
        .on_conflict_do_nothing()  # the unit of work is run again
    )
)
_others = (
    select(sessions.c.id)
    .where(sessions.c.account_id == bindparam("account"), sessions.c.id != bindparam("id"))
    .order_by(sessions.c.last_used_at.desc(), sessions.c.created_at.desc(), sessions.c.id)
    .offset(bindparam("others", type_=BigInteger))
)
_END_LEAST_RECENTLY_USED = Statement(lambda: delete(sessions).where(sessions.c.id.in_(_others)))
_expired = (
    select(sessions.c.id)
    .where(sessions.c.expires_at <= now())
    .limit(_SWEPT_AT_ONCE)
    .with_for_update(skip_locked=True)
)
_SWEEP = Statement(lambda: delete(sessions).where(sessions.c.id.in_(_expired)))
_is_renewed = sessions.c.expires_at <= now() + bindparam("renewal", type_=BigInteger)
_FIND = Statement(
    lambda: (
        select(*ACCOUNT_COLUMNS, sessions.c.last_used_at < now() - _NOTED_EVERY_MS, _is_renewed)
        .join_from(sessions, accounts, sessions.c.account_id == accounts.c.id)
        .where(sessions.c.id == bindparam("id"), sessions.c.expires_at > now(), accounts.c.is_active.is_(True))
    )
)
_USE = Statement(
    lambda: (
        update(sessions)
        .where(sessions.c.id == bindparam("which"), sessions.c.expires_at > now())
        .values(
            last_used_at=now(),
            expires_at=case(
                (_is_renewed, now() + bindparam("lifetime", type_=BigInteger)), else_=sessions.c.expires_at
            ),
        )
    )
)
_END = Statement(lambda: delete(sessions).where(sessions.c.id == bindparam("which")))
END_ALL = Statement(lambda: delete(sessions).where(sessions.c.account_id == bindparam("account")))
"""Ends the sessions of an account."""
_OPEN_COLUMNS = (
    sessions.c.id,
    accounts.c.id,
    accounts.c.name,
    sessions.c.created_at,
    sessions.c.last_used_at,
    sessions.c.expires_at,
    sessions.c.address,
    sessions.c.user_agent,
)
_is_open = sessions.c.expires_at > now()
_FIND_OPEN = Statement(
    lambda: (
        select(*_OPEN_COLUMNS)
        .join_from(sessions, accounts, sessions.c.account_id == accounts.c.id)
        .where(sessions.c.id == bindparam("id"), _is_open)
    )
)
_LATEST = 253_402_300_799_999
_DIGITS = 18
"""A number of fewer is one that every database has."""


@cache
def _open_sessions(*, of_account: bool, contains: bool) -> tuple[Statement, Statement]:
    """Of one account or of all, of those whose names contain something: a page, and how many there are."""
    of: ColumnElement[bool] = sessions.c.account_id == bindparam("account", type_=Text) if of_account else true()
    like = accounts.c.folded.like(bindparam("pattern", type_=Text), escape="\\") if contains else true()
    start = tuple_(bindparam("start_at", type_=BigInteger), bindparam("start_id", type_=Text))
    joined = (sessions, accounts, sessions.c.account_id == accounts.c.id)
    page = (
        select(*_OPEN_COLUMNS)
        .join_from(*joined)
        .where(of, like, _is_open, tuple_(sessions.c.last_used_at, sessions.c.id) <= start)
        .order_by(sessions.c.last_used_at.desc(), sessions.c.id.desc())
        .limit(bindparam("limit", type_=BigInteger))
    )
    return Statement(page), Statement(select(func.count()).join_from(*joined).where(of, like, _is_open))


class SessionRules(Struct, frozen=True, kw_only=True):
    """How long sessions live, and how many there are; times in milliseconds."""

    lifetime: int = 60 * _MINUTE
    renewal: int = 20 * _MINUTE
    """One that is used in its last so many milliseconds is renewed; 0: none is."""
    per_user: int = 10
    """0: any number."""


class OpenSession(Struct, frozen=True, kw_only=True):
    """A session of a user, which is not over; times in milliseconds since 1970."""

    id: str
    account_id: str
    account: str
    """The name of the user."""
    created_at: int
    last_used_at: int
    """To the minute."""
    expires_at: int
    address: str
    """From where it was opened."""
    user_agent: str
    """Of the client that opened it."""

    @property
    def marker(self) -> str:
        """What names the session as the first one of a page."""
        return f"{self.last_used_at}:{self.id}"


class Sessions:
    """The sessions of all users."""

    def __init__(self, database: Database, rules: Callable[[], SessionRules] = SessionRules) -> None:
        """`rules` gives those of the moment."""
        self._database = database
        self._rules = rules

    async def create(self, login: Login, address: str, *, user_agent: str = "") -> str:
        """
        A session for somebody who just logged in with a password; its secret.

        Raises BadCredentials when the password changed, or the account ended, since.
        """
        account, rules = login.account, self._rules()
        secret = _PREFIX + secrets.token_urlsafe(32)
        made = token_id(secret)

        async def work(tx: Transaction) -> None:
            await require_proof(tx, account.id, login.proof)
            await tx.execute(_SWEEP)
            if not await tx.execute(
                _INSERT,
                id=made,
                account=account.id,
                lifetime=rules.lifetime,
                address=address,
                user_agent=user_agent[:500],
            ):
                return
            if rules.per_user:
                await tx.execute(_END_LEAST_RECENTLY_USED, account=account.id, id=made, others=rules.per_user - 1)
            await record(
                tx,
                Event(
                    type="LOGIN",
                    actor=account.acting(address),
                    object=Object("session", made, account.name, user_agent[:500]),
                ),
            )

        await self._database.unit(work)
        return secret

    async def find(self, secret: str) -> Login:
        """Who has the session with this secret, which is used hereby. Raises SessionUnknown."""
        session, rules = token_id(secret), self._rules()
        row = await self._database.fetch_one(_FIND, id=session, renewal=rules.renewal)
        if row is None:
            raise SessionUnknown
        *_, is_to_be_noted, is_renewed = row
        if is_to_be_noted or is_renewed:

            async def work(tx: Transaction) -> None:
                await tx.execute(_USE, which=session, renewal=rules.renewal, lifetime=rules.lifetime)

            with contextlib.suppress(DatabaseError):  # a full disk does not end a session
                await self._database.unit(work, durable=False)
        return Login(account_of(row), "session", session=session)

    async def end(self, login: Login, *, by: Actor = SYSTEM) -> None:
        """End the session of a log-in; if that was none, or is over, nothing happens."""

        async def work(tx: Transaction) -> None:
            if await tx.execute(_END, which=login.session):
                what = Object("session", login.session, login.account.name)
                await record(tx, Event(type="DELETE", actor=by, object=what))

        await self._database.unit(work)

    async def list_open(
        self, account: str | None = None, *, contains: str = "", start: str = "", limit: int
    ) -> list[OpenSession]:
        """
        At most `limit` sessions, that which was used last first, from the one with the `marker` `start` on.

        Those of the account of this id, or (None) of all accounts whose names contain something.
        """
        page, _ = _open_sessions(of_account=account is not None, contains=bool(contains))
        moment, _, session = start.partition(":")
        rows = await self._database.fetch_all(
            page,
            account=account or "",
            pattern=pattern_of(contains),
            start_at=int(moment) if moment.isdecimal() and len(moment) < _DIGITS else _LATEST,
            start_id=findable(session),
            limit=limit,
        )
        return [_open(row) for row in rows]

    async def count_open(self, account: str | None = None, *, contains: str = "") -> int:
        """How many sessions `list_open` lists in the end."""
        _, count = _open_sessions(of_account=account is not None, contains=bool(contains))
        row = await self._database.fetch_one(count, account=account or "", pattern=pattern_of(contains))
        return int(row[0]) if row else 0

    async def find_open(self, session: str) -> OpenSession | None:
        """The session of this id, if it is not over."""
        row = await self._database.fetch_one(_FIND_OPEN, id=findable(session))
        return _open(row) if row else None

    async def end_open(self, *found: OpenSession, by: Actor = SYSTEM) -> int:
        """End sessions of users; how many were not over yet."""

        async def work(tx: Transaction) -> int:
            number = 0
            for one in sorted(found, key=lambda session: session.id):
                if await tx.execute(_END, which=one.id):
                    number += 1
                    what = Object("session", one.id, one.account)
                    await record(tx, Event(type="DELETE", actor=by, object=what))
            return number

        return await self._database.unit(work)


def _open(row: Row) -> OpenSession:
    number, account_id, account, created_at, last_used_at, expires_at, address, user_agent = row
    return OpenSession(
        id=number,
        account_id=account_id,
        account=account,
        created_at=created_at,
        last_used_at=last_used_at,
        expires_at=expires_at,
        address=address,
        user_agent=user_agent,
    )


def is_session_secret(text: str) -> bool:
    """Whether a text looks like the secret of a session."""
    return text.startswith(_PREFIX)


def csrf_token(secret: str) -> str:
    """What a page of ours repeats in each request that changes something: others do not know it."""
    return hashlib.sha256(f"csrf:{secret}".encode("utf-8", "surrogatepass")).hexdigest()
