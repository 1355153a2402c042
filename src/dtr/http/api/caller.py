"""
Who calls an operation of the API, and what they may.

Every call accepts Basic credentials (a password or an access token), or an access token as a bearer. Without any,
the caller is anonymous; wrong ones are refused, never taken for none.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from dtr.accounts import Facts, Operation, may
from dtr.events import Actor
from dtr.http.api.errors import ApiError

if TYPE_CHECKING:
    from dtr.accounts import Account, Accounts, Login, Standing, TokenScope


class Caller:
    """Who sent a request."""

    def __init__(self, accounts: Accounts, login: Login | None, address: str) -> None:
        self._accounts = accounts
        self.login = login
        self.address = address

    @property
    def account(self) -> Account | None:
        """The account; None: anonymous."""
        return self.login.account if self.login else None

    @property
    def account_id(self) -> str | None:
        """Its id."""
        return self.login.account.id if self.login else None

    @property
    def scope(self) -> TokenScope | None:
        """What the token that was shown is good for; None: everything."""
        return self.login.scope if self.login else None

    @property
    def actor(self) -> Actor:
        """The caller, for events."""
        account = self.account
        return account.acting(self.address) if account else Actor("anonymous", address=self.address)

    @property
    def facts(self) -> Facts:
        """What is known without looking at a repository or namespace."""
        account = self.account
        return Facts(
            is_user=account is not None,
            is_system_admin=account is not None and account.is_admin,
            is_auditor=account is not None and account.is_auditor,
            actions=frozenset() if self.scope else None,
        )

    def user(self) -> Account:
        """The account. Raises ApiError: NOT_AUTHENTICATED."""
        account = self.account
        if account is None:
            raise ApiError("NOT_AUTHENTICATED")
        return account

    def may(self, operation: Operation) -> bool:
        """Whether the caller may do what concerns no repository or namespace."""
        return may(self.facts, operation)

    def require(self, operation: Operation) -> Account:
        """
        Let through who may do what concerns no repository; the account.

        Raises ApiError: NOT_AUTHENTICATED, NOT_AUTHORIZED.
        """
        account = self.user()
        if not self.may(operation):
            raise ApiError("NOT_AUTHORIZED")
        return account

    async def standing(self, path: str) -> Standing:
        """How the caller stands to a repository, or, at ``namespace/``, to a namespace."""
        return await self._accounts.standings.find(self.account_id, path, scope=self.scope)

    async def require_on(self, path: str, operation: Operation) -> int:
        """
        Let through who may do it on the repository at `path`; its id.

        Raises ApiError: NO_SUCH_REPOSITORY also for one that the caller must not know of, NOT_AUTHENTICATED,
        NOT_AUTHORIZED.
        """
        standing = await self.standing(path)
        if standing.repository_id is not None and may(standing.facts, operation):
            return standing.repository_id
        if standing.repository_id is not None and self.account is not None and may(standing.facts, Operation.SEE):
            raise ApiError("NOT_AUTHORIZED")
        if self.account is None:
            raise ApiError("NOT_AUTHENTICATED")
        raise ApiError("NO_SUCH_REPOSITORY", path)

    async def require_in(self, namespace: str, operation: Operation) -> Account:
        """
        Let through who may do it in the namespace; the account that owns it.

        Raises ApiError: NO_SUCH_ACCOUNT, NOT_AUTHENTICATED, NOT_AUTHORIZED.
        """
        self.user()
        standing = await self.standing(f"{namespace}/")
        owner = await self._accounts.get(namespace)
        if not may(standing.facts, operation):
            raise ApiError("NOT_AUTHORIZED")
        return owner


async def _identify(request: Request) -> Caller:
    accounts: Accounts = request.app.state.rooms.accounts
    address = request.client.host if request.client else ""
    login = None
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "basic":
            login = await accounts.logins.authenticate(*_basic(value), address)
        elif scheme.lower() == "bearer":
            login = await accounts.logins.authenticate_token(value.strip(), "access", address)
        else:
            raise ApiError("NOT_AUTHENTICATED", "the scheme is Basic or Bearer")
    facts = request.scope.get("dtr.facts")
    if facts is not None and login is not None:
        facts.actor = login.account.name
    return Caller(accounts, login, address)


def _basic(value: str) -> tuple[str, str]:
    """Name and password (RFC 7617)."""
    try:
        name, colon, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        colon = ""
    if not colon:
        raise ApiError("NOT_AUTHENTICATED", "the credentials cannot be read")
    return name, secret


CallerDep = Annotated[Caller, Depends(_identify)]
