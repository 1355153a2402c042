"""
Tokens that open an account beside its password.

Access tokens are carried by people and robots, refresh tokens are what log-ins of clients leave behind.

A token is stored as its SHA-256: it has 256 bits, nobody guesses it, and it needs no slow hash.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.permissions import Action, TokenScope
from dtr.db import Statement, now
from dtr.db.schema import tokens

if TYPE_CHECKING:
    from dtr.accounts.accounts import Accounts
    from dtr.db import Database, Transaction

TokenKind: TypeAlias = Literal["access", "refresh"]

PREFIXES: dict[TokenKind, str] = {"access": "dtra_", "refresh": "dtrr_"}

_INSERT_TOKEN = Statement(
    insert(tokens).values(
        id=bindparam("id"),
        account_id=bindparam("account"),
        kind=bindparam("kind"),
        label=bindparam("label"),
        is_active=True,
        created_at=now(),
        generated_by=bindparam("generated_by"),
        creator_user_agent=bindparam("user_agent"),
    )
)
_LIST_TOKENS = Statement(
    select(tokens.c.id, tokens.c.label, tokens.c.is_active, tokens.c.created_at, tokens.c.last_used_at)
    .where(tokens.c.account_id == bindparam("account"), tokens.c.kind == "access")
    .order_by(tokens.c.created_at, tokens.c.id)
)
_DELETE_TOKEN = Statement(
    delete(tokens).where(tokens.c.account_id == bindparam("account"), tokens.c.id == bindparam("id"))
)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is known of an access token; times in milliseconds since 1970."""

    id: str
    label: str
    is_active: bool
    created_at: int
    last_used_at: int | None


class AccessTokens:
    """The tokens of all accounts."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    async def create(
        self, name: str, label: str, *, kind: TokenKind = "access", generated_by: str = "", user_agent: str = ""
    ) -> str:
        """A new secret that opens the account; it is not kept. Raises AccountUnknown."""
        user = await self._accounts.get(name, "user")
        secret = PREFIXES[kind] + secrets.token_urlsafe(32)

        async def work(tx: Transaction) -> None:
            await tx.execute(
                _INSERT_TOKEN,
                id=token_id(secret),
                account=user.id,
                kind=kind,
                label=label,
                generated_by=generated_by or name,
                user_agent=user_agent[:500],
            )

        await self._database.unit(work)
        return secret

    async def list_tokens(self, name: str) -> list[AccessToken]:
        """The access tokens of a user, oldest first. Raises AccountUnknown."""
        user = await self._accounts.get(name, "user")
        rows = await self._database.fetch_all(_LIST_TOKENS, account=user.id)
        return [AccessToken(row[0], row[1], bool(row[2]), row[3], row[4]) for row in rows]

    async def delete(self, name: str, token: str) -> bool:
        """End a token by its id; whether it was there. Raises AccountUnknown."""
        user = await self._accounts.get(name, "user")

        async def work(tx: Transaction) -> bool:
            return await tx.execute(_DELETE_TOKEN, account=user.id, id=token) > 0

        return await self._database.unit(work)


def token_id(secret: str) -> str:
    """What a secret is stored as."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def read_scope(text: str | None) -> TokenScope | None:
    """The scope of a row's column."""
    if text is None:
        return None
    document = json.loads(text)
    return TokenScope(tuple(document["repositories"]), frozenset(Action(one) for one in document["actions"]))


def write_scope(scope: TokenScope | None) -> str | None:
    """The column of a scope."""
    if scope is None:
        return None
    actions = sorted(action.value for action in scope.actions)
    return json.dumps({"repositories": list(scope.repositories), "actions": actions})
