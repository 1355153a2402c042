"""
Who calls an operation of the API, and what they may.

Every call accepts Basic credentials (a password or an access token), an access token or a session as a bearer, or
a browser's session in its cookie. Without any, the caller is anonymous; wrong ones are refused, never taken for
none.

A browser sends the cookie with whatever page made it send a request. So a request that comes with the cookie, and
changes something, has to repeat a token that only pages of ours can read, and must not say that it comes from
elsewhere. Foreign pages cannot write an `Authorization` header, so it needs no token; but a browser that was given
name and password once sends them by itself, with the forms of foreign pages, too: so those must not come from
elsewhere.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from dtr.accounts import Facts, Operation, csrf_token, is_session_secret, may
from dtr.events import Actor
from dtr.http.api.errors import ApiError, Moved

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
        """Let through who may do it on the repository at `path`; its id. Raises as `stand_on` does."""
        return (await self.stand_on(path, operation))[0]

    async def stand_on(self, path: str, operation: Operation) -> tuple[int, Facts]:
        """
        Let through who may do it on the repository at `path`; its id, and how the caller stands to it.

        Raises ApiError: NO_SUCH_REPOSITORY also for one that the caller must not know of (and `Moved`, when it
        had this name), NOT_AUTHENTICATED, NOT_AUTHORIZED.
        """
        standing = await self.standing(path)
        if standing.repository_id is not None and may(standing.facts, operation):
            return standing.repository_id, standing.facts
        redirect = standing.redirect
        if redirect is not None and may(redirect.standing.facts, Operation.SEE):
            raise Moved(path, redirect.path)
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
        owner = await self._accounts.get(namespace)
        standing = await self.standing(f"{owner.name}/")
        if not may(standing.facts, operation):
            raise ApiError("NOT_AUTHORIZED")
        return owner


CSRF_COOKIE = "csrftoken"
"""The cookie that a page of ours reads, to repeat it in the header `X-CSRF-Token`."""
_CSRF_HEADER = "x-csrf-token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def session_cookie(request: Request) -> str:
    """
    The name of the session's cookie.

    With TLS it is one that a browser takes only from this very host, over TLS (``__Host-``, RFC 6265bis).
    """
    return "__Host-session" if request.url.scheme == "https" else "session"


def address_of(request: Request) -> str:
    """The address that a request came from; empty: unknown."""
    return request.client.host if request.client else ""


def refuse_foreign(request: Request) -> None:
    """
    Refuse a request that a page of another origin made a browser send. Raises ApiError: CSRF_TOKEN_INVALID.

    Neighbours count as others: who has another host of the same domain, or another port, is not us.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site not in {None, "same-origin", "none"}:
        raise ApiError("CSRF_TOKEN_INVALID", "the request comes from another site")
    # Browsers that say nothing about the site say where the page is from, with what changes something.
    if site is None and origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise ApiError("CSRF_TOKEN_INVALID", "the request comes from another site")


async def identify(request: Request) -> Caller:
    """Who sent a request. Raises ApiError, AccountError, DatabaseError."""
    accounts: Accounts = request.app.state.rooms.accounts
    address = address_of(request)
    header, cookie = request.headers.get("authorization"), request.cookies.get(session_cookie(request))
    login = None
    if header is not None:
        if request.method not in _SAFE and header[:6].lower() == "basic ":
            refuse_foreign(request)
        login = await _authenticate(accounts, header, address)
    elif cookie is not None and is_session_secret(cookie):  # others on this host may have one of this name, too
        login = await accounts.sessions.find(cookie)
        if request.method not in _SAFE:
            refuse_foreign(request)
            given = request.headers.get(_CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode("latin-1"), csrf_token(cookie).encode()):
                raise ApiError("CSRF_TOKEN_INVALID")
    facts = request.scope.get("dtr.facts")
    if facts is not None and login is not None:
        facts.identify(login.account.name)
    return Caller(accounts, login, address)


async def _authenticate(accounts: Accounts, header: str, address: str) -> Login:
    """Who sends this header `Authorization`. Raises ApiError, AccountError."""
    scheme, _, value = header.partition(" ")
    scheme, value = scheme.lower(), value.strip()
    if scheme == "basic":
        return await accounts.logins.authenticate(*_basic(value), address)
    if scheme == "sessiontoken" or (scheme == "bearer" and is_session_secret(value)):
        return await accounts.sessions.find(value)
    if scheme == "bearer":
        return await accounts.logins.authenticate_token(value, "access", address)
    raise ApiError("NOT_AUTHENTICATED", "the scheme is Basic, Bearer or SessionToken")


def _basic(value: str) -> tuple[str, str]:
    """Name and password (RFC 7617)."""
    try:
        name, colon, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        colon = ""
    if not colon:
        raise ApiError("NOT_AUTHENTICATED", "the credentials cannot be read")
    return name, secret


CallerDep = Annotated[Caller, Depends(identify)]
