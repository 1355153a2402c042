"""
Bearer tokens in requests, for the protocols that get them from the token service: the registry's and the notary's.

A client shows a token; without a good one it is told where to get one, and for what ("Docker Registry v2
authentication" of the distribution project; RFC 6750, section 3).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from dtr.accounts import TokenExpired, TokenInvalid
from dtr.events import Actor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.accounts import Claims, Tokens
    from dtr.http.front import Facts
    from dtr.http.types import Header, Scope

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
_LONGEST_REMEMBERED = 2048


class Unverified(Exception):
    """There is no token, or it is not good; `reason` is RFC 6750's word for the challenge, if there is one."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class Bearer:
    """Verifies tokens, and says where to get others."""

    def __init__(self, tokens: Tokens, *, service: str) -> None:
        self._tokens = tokens
        self._service = service

    async def verify(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Claims:
        """What the token of a request says; who asks is noted for the log. Raises Unverified."""
        header = headers.get(b"authorization", b"")
        token = _token_in_known(header) if len(header) <= _LONGEST_REMEMBERED else _token_in(header)
        if token is None:
            raise Unverified("authentication required")
        try:
            claims = await self._tokens.verify(token)
        except TokenExpired:
            raise Unverified("the token has expired", "invalid_token") from None
        except TokenInvalid:
            raise Unverified("the token is not valid", "invalid_token") from None
        facts: Facts | None = scope.get("dtr.facts")
        if facts is not None:
            facts.identify(claims.account_name)
        return claims

    def challenge(
        self, scope: Scope, headers: Mapping[bytes, bytes], wanted: str | None, reason: str | None = None
    ) -> Header:
        """The header that sends for a token with the scope `wanted`, which is made of checked names only."""
        realm = f"{scope.get('scheme', 'https')}://{host_of(headers)}/auth/token"
        parts = [f'Bearer realm="{realm}"', f'service="{self._service}"']
        if wanted:
            parts.append(f'scope="{wanted}"')
        if reason:
            parts.append(f'error="{reason}"')
        return (b"www-authenticate", ",".join(parts).encode())


def _token_in(header: bytes) -> str | None:
    """The token that a header shows; None: it shows something else."""
    scheme, _, token = header.partition(b" ")
    return token.strip().decode("ascii", "replace") if scheme.lower() == b"bearer" else None


_token_in_known = lru_cache(1024)(_token_in)  # a token is in many requests, and its hash is half of looking for it


def host_of(headers: Mapping[bytes, bytes]) -> str:
    """The registry's address as the client uses it; what could break out of a header is not repeated."""
    host = headers.get(b"host", b"").decode("latin-1")
    return host if _HOST.fullmatch(host) else "localhost"


def actor_of(claims: Claims, scope: Scope) -> Actor:
    """Who sent a request with such a token, for events."""
    client = scope.get("client")
    address = client[0] if client else ""
    return _actor(claims.account_id, claims.account_name, address)


@lru_cache(4096)
def _actor(account_id: str | None, name: str, address: str) -> Actor:
    if account_id is None:
        return Actor("anonymous", address=address)
    return Actor("robot" if "+" in name else "user", account_id, name, address)
