"""
Tokens that open an account beside its password.

Access tokens are carried by people and robots, refresh tokens are what log-ins of clients leave behind. A client
that logged in with an access token leaves a refresh token that is its child: it is good for the same, and ends
with its parent, however that ends.

A token is stored as its SHA-256: it has 256 bits, nobody guesses it, and it needs no slow hash.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Boolean,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import AccountUnknown, TokenUnknown, TokenUnusable
from dtr.accounts.permissions import Action, TokenScope
from dtr.accounts.records import findable, require_proof
from dtr.db import ConstraintViolated, Statement, in_list, now
from dtr.db.schema import accounts, tokens
from dtr.events import SYSTEM, Actor, Event, Object, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, FromClause

    from dtr.accounts.accounts import Accounts
    from dtr.accounts.records import Account
    from dtr.db import Database, Row, Transaction
    from dtr.events import EventType

TokenKind: TypeAlias = Literal["access", "refresh"]

TOKEN_KINDS: tuple[TokenKind, ...] = ("access", "refresh")
PREFIXES: dict[TokenKind, str] = {"access": "dtra_", "refresh": "dtrr_"}
_LONGEST_LABEL = 1_000
_LOOKED_AT_ONCE = 1_000
_LATEST = 253_402_300_799_999
"""The last millisecond that RFC 3339 can write."""
_DIGITS = 18
"""A number of fewer is one that every database has."""

# --- which tokens open their accounts -------------------------------------------------------------------------

PARENTS = tokens.alias("parent")
"""To be joined by `IS_CHILD_OF` where a token is looked for."""
IS_CHILD_OF: ColumnElement[bool] = tokens.c.parent_id == PARENTS.c.id


def _is_good(which: FromClause) -> ColumnElement[bool]:
    return and_(which.c.is_active.is_(True), or_(which.c.expires_at.is_(None), which.c.expires_at > now()))


OPENS: ColumnElement[bool] = and_(_is_good(tokens), or_(tokens.c.parent_id.is_(None), _is_good(PARENTS)))
"""Whether a token opens its account now."""
SCOPE: ColumnElement[str] = func.coalesce(tokens.c.scope, PARENTS.c.scope)
EXPIRES_AT: ColumnElement[int] = func.coalesce(tokens.c.expires_at, PARENTS.c.expires_at)


def opens(parameter: str) -> ColumnElement[bool]:
    """Whether the token whose id is this parameter opens its account now; an empty id is no token, and does."""
    token = bindparam(parameter, type_=Text())
    found = select(tokens.c.id).outerjoin_from(tokens, PARENTS, IS_CHILD_OF).where(tokens.c.id == token, OPENS)
    return or_(token == "", exists(found))


# --- statements -----------------------------------------------------------------------------------------------

_INSERT = Statement(
    lambda: (
        insert(tokens)
        .values(
            id=bindparam("id"),
            account_id=bindparam("account"),
            parent_id=bindparam("parent"),
            kind=bindparam("kind"),
            label=bindparam("label"),
            is_active=True,
            created_at=now(),
            expires_at=bindparam("expires_at", type_=BigInteger),
            creator_user_agent=bindparam("user_agent"),
            scope=bindparam("scope"),
        )
        .on_conflict_do_nothing()  # the unit of work is run again
    )
)
_EXPIRES_LATER = Statement(
    lambda: select(bindparam("expires_at", type_=BigInteger) > now())  # by the clock that it will expire by
)
_columns = (
    tokens.c.id,
    accounts.c.id,
    accounts.c.name,
    tokens.c.kind,
    tokens.c.label,
    tokens.c.is_active,
    tokens.c.created_at,
    tokens.c.last_used_at,
    EXPIRES_AT,
    tokens.c.creator_user_agent,
    SCOPE,
    tokens.c.last_used_address,
)
_tokens = (
    select(*_columns)
    .join_from(tokens, accounts, tokens.c.account_id == accounts.c.id)
    .outerjoin(PARENTS, IS_CHILD_OF)
)
_of_account = tokens.c.account_id == bindparam("account", type_=Text())
_of_kinds = in_list(tokens.c.kind, "kinds")
_page = (
    _tokens.where(tokens.c.id >= bindparam("start"), _of_kinds)
    .order_by(tokens.c.id)
    .limit(bindparam("limit", type_=BigInteger))
)
_count = select(func.count()).select_from(tokens).where(_of_kinds)
_newest_start = tuple_(bindparam("start_at", type_=BigInteger), bindparam("start_id", type_=Text))
_newest = (
    _tokens.where(_of_account, _of_kinds, tuple_(tokens.c.created_at, tokens.c.id) <= _newest_start)
    .order_by(tokens.c.created_at.desc(), tokens.c.id.desc())
    .limit(bindparam("limit", type_=BigInteger))
)
_FIND = Statement(lambda: _tokens.where(tokens.c.id == bindparam("id")))
_LIST = Statement(_page)
_LIST_OF_ACCOUNT = Statement(lambda: _page.where(_of_account))
_LIST_NEWEST = Statement(_newest)
_COUNT = Statement(_count)
_COUNT_OF_ACCOUNT = Statement(lambda: _count.where(_of_account))
_UPDATE = Statement(
    lambda: (
        update(tokens)
        .where(tokens.c.id == bindparam("which"))
        .values(
            label=func.coalesce(bindparam("label", type_=Text), tokens.c.label),
            is_active=func.coalesce(bindparam("active", type_=Boolean), tokens.c.is_active),
        )
    )
)
_DELETE = Statement(lambda: delete(tokens).where(tokens.c.id == bindparam("which")))
_last_used_at = func.coalesce(tokens.c.last_used_at, tokens.c.created_at)
_DELETE_UNUSED = Statement(
    lambda: delete(tokens).where(
        tokens.c.id == bindparam("which"), _last_used_at < bindparam("before", type_=BigInteger)
    )
)


class AccessToken(Struct, frozen=True, kw_only=True):
    """
    What is known of a token; times in milliseconds since 1970.

    `id` is its hash, `account` the name of the account that it opens; `scope` None: it is good for everything.
    """

    id: str
    account_id: str
    account: str
    kind: TokenKind
    label: str
    is_active: bool
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    user_agent: str
    """Of the client that made it."""
    scope: TokenScope | None
    last_used_address: str = ""
    """From where it was used last; empty: it was not."""

    @property
    def marker(self) -> str:
        """What names the token as the first one of a page that begins with the newest."""
        return f"{self.created_at}:{self.id}"

    def event(self, happened: EventType, by: Actor, content: str = "") -> Event:
        """What happened to the token."""
        return Event(
            type=happened,
            actor=by,
            object=Object("token", self.id, self.label, content),
            target=Object("account", self.account_id, self.account),
        )


class AccessTokens:
    """The tokens of all accounts."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    async def create(
        self,
        name: str,
        label: str,
        *,
        kind: TokenKind = "access",
        scope: TokenScope | None = None,
        expires_at: int | None = None,
        parent: str | None = None,
        proof: str = "",
        user_agent: str = "",
        by: Actor = SYSTEM,
    ) -> str:
        """
        A new secret that opens the account of a user or robot; it is not kept.

        `parent` is the id of the token that a client logged in with, `proof` the hash that its password fitted.
        Raises AccountUnknown, TokenUnusable; BadCredentials when it does no longer.
        """
        account = await self._accounts.get(name)
        if account.kind == "organization":
            raise AccountUnknown(name)
        _check_label(label)
        if expires_at is not None and expires_at > _LATEST:
            raise TokenUnusable("a token expires before the year 10000")
        secret = PREFIXES[kind] + secrets.token_urlsafe(32)
        token = token_id(secret)

        async def work(tx: Transaction) -> None:
            if proof:
                await require_proof(tx, account.id, proof)
            if expires_at is not None:
                row = await tx.fetch_one(_EXPIRES_LATER, expires_at=expires_at)
                if row is None or not row[0]:
                    raise TokenUnusable("a token expires in the future")
            made = await tx.execute(
                _INSERT,
                id=token,
                account=account.id,
                parent=parent,
                kind=kind,
                label=label,
                expires_at=expires_at,
                user_agent=user_agent[:500],
                scope=write_scope(scope),
            )
            if made and kind == "access":
                what, whose = Object("token", token, label), Object("account", account.id, account.name)
                await record(tx, Event(type="CREATE", actor=by, object=what, target=whose))
            elif made:
                what = Object("session", token, account.name, user_agent[:500])
                await record(tx, Event(type="LOGIN", actor=by, object=what))

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # the account, or the parent, is gone meanwhile
            raise AccountUnknown(name) from None
        return secret

    async def find(self, token: str) -> AccessToken | None:
        """The token of this id."""
        row = await self._database.fetch_one(_FIND, id=findable(token))
        return _token(row) if row else None

    async def list_tokens(
        self,
        name: str | None = None,
        *,
        kinds: Sequence[TokenKind] = ("access",),
        start: str = "",
        limit: int = 10_000,
    ) -> list[AccessToken]:
        """
        At most `limit` tokens from the id `start` on, by id: of one account, or (None) of all.

        Raises AccountUnknown.
        """
        parameters: dict[str, Any] = {"kinds": list(kinds), "start": start, "limit": limit}
        if name is None:
            rows = await self._database.fetch_all(_LIST, **parameters)
        else:
            account = await self._accounts.get(name)
            rows = await self._database.fetch_all(_LIST_OF_ACCOUNT, account=account.id, **parameters)
        return [_token(row) for row in rows]

    async def list_newest(
        self, name: str, *, kinds: Sequence[TokenKind] = ("access",), start: str = "", limit: int
    ) -> list[AccessToken]:
        """
        At most `limit` tokens of an account, the newest first, from the one with the `marker` `start` on.

        Raises AccountUnknown.
        """
        account = await self._accounts.get(name)
        moment, _, token = start.partition(":")
        rows = await self._database.fetch_all(
            _LIST_NEWEST,
            account=account.id,
            kinds=list(kinds),
            start_at=int(moment) if moment.isdecimal() and len(moment) < _DIGITS else _LATEST,
            start_id=findable(token),
            limit=limit,
        )
        return [_token(row) for row in rows]

    async def count_tokens(self, name: str | None = None, *, kinds: Sequence[TokenKind] = ("access",)) -> int:
        """How many tokens `list_tokens` lists in the end. Raises AccountUnknown."""
        if name is None:
            row = await self._database.fetch_one(_COUNT, kinds=list(kinds))
        else:
            account = await self._accounts.get(name)
            row = await self._database.fetch_one(_COUNT_OF_ACCOUNT, account=account.id, kinds=list(kinds))
        return int(row[0]) if row else 0

    async def update(
        self, token: str, *, label: str | None = None, active: bool | None = None, by: Actor = SYSTEM
    ) -> AccessToken:
        """
        Rename a token, switch it off or on again; None: it stays as it is. What it is good for never changes.

        Raises TokenUnknown, TokenUnusable.
        """
        if label is not None:
            _check_label(label)

        async def work(tx: Transaction) -> AccessToken:
            row = await tx.fetch_one(_FIND, id=findable(token))
            if row is None:
                raise TokenUnknown(token)
            before = _token(row)
            await tx.execute(_UPDATE, which=token, label=label, active=active)
            row = await tx.fetch_one(_FIND, id=token)
            if row is None:
                raise TokenUnknown(token)
            after = _token(row)
            if after != before:
                await record(tx, after.event("UPDATE", by, "active" if after.is_active else "inactive"))
            return after

        return await self._database.unit(work)

    async def delete(self, name: str, token: str, *, by: Actor = SYSTEM) -> bool:
        """End a token of an account by its id; whether it was there. Raises AccountUnknown."""
        account = await self._accounts.get(name)

        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one(_FIND, id=findable(token))
            if row is None or _token(row).account_id != account.id or not await tx.execute(_DELETE, which=token):
                return False
            await record(tx, _token(row).event("DELETE", by))
            return True

        return await self._database.unit(work)

    async def delete_used_before(
        self,
        name: str | None = None,
        *,
        kinds: Sequence[TokenKind] = TOKEN_KINDS,
        before: int,
        by: Actor = SYSTEM,
    ) -> int:
        """
        End the tokens of one account, or (None) of all, that were last used (or else made) before a moment.

        How many; those that go on being used meanwhile may stay. Raises AccountUnknown.
        """
        deleted, start = 0, ""
        while True:  # in bounded steps, however many there are
            found = await self.list_tokens(name, kinds=kinds, start=start, limit=_LOOKED_AT_ONCE)
            unused = [one for one in found if (one.last_used_at or one.created_at) < before]

            async def work(tx: Transaction, unused: list[AccessToken] = unused) -> int:
                number = 0
                for one in unused:
                    if await tx.execute(_DELETE_UNUSED, which=one.id, before=before):
                        number += 1
                        await record(tx, one.event("DELETE", by))
                return number

            deleted += await self._database.unit(work) if unused else 0
            if len(found) < _LOOKED_AT_ONCE:
                return deleted
            start = f"{found[-1].id}~"  # behind this one, and before all behind it


def token_id(secret: str) -> str:
    """What a secret is stored as."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def scope_of_login(account: Account, column: str | None) -> TokenScope | None:
    """What a log-in with a token is good for; robots have no business outside of their organisation."""
    if column is None and account.kind == "robot":
        return TokenScope((f"{account.name.partition('+')[0]}/*",), frozenset(Action))
    return read_scope(column)


def read_scope(text: str | None) -> TokenScope | None:
    """The scope of a row's column."""
    return None if text is None else TokenScope.of(json.loads(text))


def write_scope(scope: TokenScope | None) -> str | None:
    """The column of a scope."""
    return None if scope is None else json.dumps(scope.document)


def _check_label(label: str) -> None:
    if len(label) > _LONGEST_LABEL or "\0" in label:
        raise TokenUnusable(f"a label has at most {_LONGEST_LABEL} characters, and no NUL")


def _token(row: Row) -> AccessToken:
    number, account_id, account, kind, label, is_active, created_at, last_used_at, expires_at, agent, *rest = row
    scope, last_used_address = rest
    return AccessToken(
        id=number,
        account_id=account_id,
        account=account,
        kind=kind,
        label=label,
        is_active=bool(is_active),
        created_at=created_at,
        last_used_at=last_used_at,
        expires_at=expires_at,
        user_agent=agent,
        scope=read_scope(scope),
        last_used_address=last_used_address,
    )
