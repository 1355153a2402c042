"""
Bearer tokens: short-lived JSON Web Tokens (RFC 7519), signed with ES256.

The keys are in the database. A new one is published (`SigningKeys.jwks`) before it signs and stays published
until the last token that it signed has expired, so that it may change without anybody noticing. Verifying costs
100 us and more; a token that was verified is remembered until it expires.

What a token grants was true when it was issued: for reading that is good enough for its life, at most five
minutes, as long as the name is that of the same repository. Whoever changes something is asked again.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field
from sqlalchemy import BigInteger, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import TokenExpired, TokenInvalid
from dtr.accounts.permissions import TokenScope
from dtr.db import Statement, now
from dtr.db.schema import signing_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from joserfc.jwk import ECKey

    from dtr.db import Database, Transaction

_ALGORITHM = "ES256"
_DAY = 86_400_000
_PUBLISHED_BEFORE_MS = 600_000
"""So long a key is known everywhere before it signs."""
_LOOK_AGAIN_SECONDS = 60.0
_UNKNOWN_KEY_PAUSE_SECONDS = 1.0
_REMEMBERED = 8_192
_LONGEST_TOKEN = 16_384
_LONGEST_REMEMBERED = 2_048
"""Longer tokens, for many repositories, are verified each time: their number times their size is memory."""
_LEEWAY_SECONDS = 5

_LIST = Statement(
    lambda: (
        select(
            signing_keys.c.id,
            signing_keys.c.private_key,
            signing_keys.c.signs_from - now(),
            now() - signing_keys.c.created_at,
        )
        .where(signing_keys.c.expires_at > now())
        .order_by(signing_keys.c.signs_from, signing_keys.c.id)
    )
)
_INSERT = Statement(
    lambda: insert(signing_keys).values(
        id=bindparam("id"),
        private_key=bindparam("private_key"),
        created_at=now(),
        signs_from=now() + bindparam("delay", type_=BigInteger),
        expires_at=now() + bindparam("life", type_=BigInteger),
    )
)
_FORGET = Statement(lambda: delete(signing_keys).where(signing_keys.c.expires_at <= now()))


class Claims(Struct, frozen=True):
    """What a verified token says; `account_id` None: anonymous. Time in seconds since 1970."""

    account_id: str | None
    account_name: str
    access: Mapping[str, frozenset[str]]
    """Actions by repository."""
    catalog: bool
    expires_at: float
    scope: TokenScope | None = None
    """What the log-in was good for, whatever this token grants; None: everything."""
    shown: str = ""
    """The id of the access or refresh token of the log-in; empty: it was a password, or none."""
    repositories: Mapping[str, int] = field(default_factory=dict)
    """Which repository had the name that `access` has; missing: there was none."""
    collections: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Actions on collections of content trust, by their whole name, which begins with the registry's address."""


class _Key(Struct, frozen=True):
    id: str
    key: ECKey
    signs_from: float
    """By this process's clock that is never set."""


class SigningKeys:
    """The keys of the token service, as the database has them."""

    def __init__(self, database: Database, *, key_days: int = 30) -> None:
        """Every `key_days` a new key takes over."""
        self._database = database
        self._key_ms = key_days * _DAY
        self._keys: dict[str, _Key] = {}
        self._looked_at = -math.inf
        self._looking = asyncio.Lock()

    async def refresh(self, *, older_than: float = 0.0) -> None:
        """
        Look at the database, and make the next key when it is time.

        Nothing is done when the last look, by whomever, is not older than some seconds.
        """
        async with self._looking:
            moment = time.monotonic()
            if moment - self._looked_at < older_than:
                return
            self._looked_at = moment
            rows = await self._database.fetch_all(_LIST)
            if not rows:
                await self._make(delay=0)
                rows = await self._database.fetch_all(_LIST)
            elif min(row[3] for row in rows) > self._key_ms:
                await self._make(delay=_PUBLISHED_BEFORE_MS)
                rows = await self._database.fetch_all(_LIST)
            from joserfc.jwk import ECKey

            known = {key.id: key.key for key in self._keys.values()}
            self._keys = {
                row[0]: _Key(
                    row[0],
                    known.get(row[0]) or ECKey.import_key(msgspec.json.decode(row[1])),
                    moment + row[2] / 1000,
                )
                for row in rows
            }

    async def find(self, key_id: str) -> ECKey | None:
        """The key of this id, looked for in the database when it is not known here."""
        if key_id not in self._keys:
            await self.refresh(older_than=_UNKNOWN_KEY_PAUSE_SECONDS)
        found = self._keys.get(key_id)
        return found.key if found else None

    async def current(self) -> tuple[str, ECKey]:
        """The key that signs now, and its id."""
        await self.refresh(older_than=_LOOK_AGAIN_SECONDS if self._keys else 0.0)
        moment = time.monotonic()
        signing = [key for key in self._keys.values() if key.signs_from <= moment]
        chosen = max(signing or self._keys.values(), key=lambda key: (key.signs_from, key.id))
        return chosen.id, chosen.key

    async def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517), those to come included."""
        await self.current()
        return {
            "keys": [
                {**key.key.as_dict(private=False), "kid": key.id, "use": "sig", "alg": _ALGORITHM}
                for key in self._keys.values()
            ]
        }

    async def _make(self, *, delay: int) -> None:
        from joserfc.jwk import ECKey

        key = ECKey.generate_key("P-256", private=True)
        key_id = key.thumbprint()
        # It signs until its successor does, and is accepted for a day more.
        life = delay + self._key_ms + 2 * _DAY

        async def work(tx: Transaction) -> None:
            await tx.execute(_FORGET)
            await tx.execute(
                _INSERT,
                id=key_id,
                private_key=msgspec.json.encode(key.as_dict(private=True)).decode(),
                delay=delay,
                life=life,
            )

        await self._database.unit(work)


class Tokens:
    """Issues tokens and verifies them."""

    def __init__(self, keys: SigningKeys, *, service: str, life_seconds: int = 300) -> None:
        """`service` is the audience: the name of this registry for its clients."""
        self.keys = keys
        self.life_seconds = life_seconds
        self._service = service
        self._verified: dict[str, Claims] = {}

    async def issue(
        self,
        account_id: str | None,
        account_name: str,
        access: Mapping[str, frozenset[str]],
        *,
        repositories: Mapping[str, int] | None = None,
        aliases: Mapping[str, str] | None = None,
        catalog: bool = False,
        scope: TokenScope | None = None,
        shown: str = "",
        until: int | None = None,
    ) -> str:
        """
        A token that grants `access`: actions by the name that was asked for.

        `repositories` says which repository has a name at this moment: a token is good for no other that gets it.
        `aliases` says which of the names mean a repository of another name: those with the registry's address.
        `scope` and `shown` are those of `Claims`. The token ends at `until` (seconds since 1970) at the latest.
        """
        from joserfc import jwt

        key_id, key = await self.keys.current()
        moment = int(time.time())
        entries: list[dict[str, Any]] = [
            {"type": "repository", "name": name, "actions": sorted(actions)}
            | ({"repository": aliases[name]} if aliases and name in aliases else {})
            | ({"id": repositories[name]} if repositories and name in repositories else {})
            for name, actions in access.items()
        ]
        if catalog:
            entries.append({"type": "registry", "name": "catalog", "actions": ["*"]})
        expires_at = moment + self.life_seconds
        claims: dict[str, Any] = {
            "iss": self._service,
            "aud": self._service,
            "sub": account_name,
            "uid": account_id,
            "iat": moment,
            "nbf": moment - _LEEWAY_SECONDS,
            "exp": expires_at if until is None else min(expires_at, until),
            "jti": secrets.token_hex(8),
            "access": entries,
        }
        if scope is not None:
            claims["login_scope"] = scope.document
        if shown:
            claims["login_token"] = shown
        return jwt.encode({"alg": _ALGORITHM, "typ": "JWT", "kid": key_id}, claims, key)

    async def verify(self, token: str) -> Claims:
        """What the token says. Raises TokenInvalid, TokenExpired."""
        moment = time.time()
        claims = self._verified.get(token)
        if claims is None:
            claims = await self._verify(token)
            if len(token) <= _LONGEST_REMEMBERED:
                if len(self._verified) >= _REMEMBERED:
                    self._verified.pop(next(iter(self._verified)))
                self._verified[token] = claims
        if claims.expires_at <= moment:
            self._verified.pop(token, None)
            raise TokenExpired("the token has expired")
        return claims

    async def _verify(self, token: str) -> Claims:
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > _LONGEST_TOKEN:
            raise TokenInvalid("the token is too long")
        try:
            header = msgspec.json.decode(_base64(token.partition(".")[0]), type=dict[str, Any])
            key_id = header.get("kid")
        except (ValueError, RecursionError, msgspec.MsgspecError):
            raise TokenInvalid("not a token") from None
        key = await self.keys.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise TokenInvalid("signed with an unknown key")
        try:
            claims = jwt.decode(token, key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError, TypeError):
            raise TokenInvalid("not signed by us") from None
        return self._read(claims)

    def _read(self, claims: dict[str, Any]) -> Claims:
        """Signed by us, hence well formed; whether it is for us and for now is another question."""
        if claims.get("iss") != self._service or claims.get("aud") != self._service:
            raise TokenInvalid("a token for another service")
        if claims["nbf"] > time.time() + _LEEWAY_SECONDS:
            raise TokenInvalid("a token for later")
        access: dict[str, frozenset[str]] = {}
        repositories: dict[str, int] = {}
        collections: dict[str, frozenset[str]] = {}
        catalog = False
        for entry in claims["access"]:
            if entry["type"] == "repository":
                # An alias may look like the name of another repository, on which it grants nothing.
                if "repository" in entry:
                    collections[entry["name"]] = frozenset(entry["actions"])
                    continue
                access[entry["name"]] = frozenset(entry["actions"])
                if "id" in entry:
                    repositories[entry["name"]] = entry["id"]
            elif entry["name"] == "catalog":
                catalog = True
        return Claims(
            claims["uid"],
            claims["sub"],
            access,
            catalog,
            claims["exp"],
            TokenScope.of(claims["login_scope"]) if "login_scope" in claims else None,
            claims.get("login_token", ""),
            repositories,
            collections,
        )


def _base64(text: str) -> bytes:
    import base64

    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
