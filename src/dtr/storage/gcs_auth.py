"""
Who dtr is at Google: a service account by its key, or, without one, whatever the machine is.

A service account signs a statement about itself with its key (RFC 7523; Google, "Using OAuth 2.0 for server to
server applications") and gets an access token for it; a machine at Google asks its metadata server. Tokens are
good for an hour.
"""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode, urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dtr.storage.access_tokens import Granted
from dtr.storage.errors import AccessDenied, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dtr.storage.web import Web

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_STATEMENT_SECONDS = 3600
"""The longest that Google takes."""
_MACHINE_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"


class KeyInvalid(StorageError):
    """What is given is not the key of a service account; the message says why, and repeats nothing of it."""


class _KeyFile(msgspec.Struct):
    """The key of a service account, as Google gives it out: a JSON text."""

    type: str = ""
    client_email: str = ""
    private_key: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


class _Refusal(msgspec.Struct):
    """The answer of a token service that gives none."""

    error: str = ""
    error_description: str = ""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """An account of a program, which has a key instead of a password."""

    email: str
    token_uri: str
    key: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """The account of a key file. Raises KeyInvalid."""
        try:
            file = msgspec.json.decode(text, type=_KeyFile)
        except (msgspec.DecodeError, UnicodeError):
            raise KeyInvalid("is not the JSON text of a service account's key") from None
        if file.type != "service_account":
            raise KeyInvalid("is not the key of a service account: its `type` is another one")
        for name in ("client_email", "private_key"):
            if not getattr(file, name):
                raise KeyInvalid(f"has no `{name}`: it is not the whole key of a service account")
        if urlsplit(file.token_uri).scheme not in {"https", "http"}:
            raise KeyInvalid("has a `token_uri` that is no address")
        try:
            key = load_pem_private_key(file.private_key.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyInvalid("has a `private_key` that is damaged, or has a password") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyInvalid("has a `private_key` that is not of RSA")
        return cls(file.client_email, file.token_uri, key)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The account of the key in this file. Raises KeyInvalid."""
        try:
            text = path.read_bytes()
        except OSError as error:
            raise KeyInvalid(f"the key cannot be read from {path}: {error.strerror}") from error
        try:
            return cls.parse(text)
        except KeyInvalid as error:
            raise KeyInvalid(f"{path} {error}") from None

    def sign(self, data: bytes) -> bytes:
        """The signature by the account's key: RSA with SHA-256. It takes about a millisecond."""
        return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def statement(self, now: int) -> str:
        """A signed statement, made at `now`, that asks for a token: a JWT."""
        claims = {
            "iss": self.email,
            "scope": _SCOPE,
            "aud": self.token_uri,
            "iat": now,
            "exp": now + _STATEMENT_SECONDS,
        }
        signed = f"{_encoded({'alg': 'RS256', 'typ': 'JWT'})}.{_encoded(claims)}"
        return f"{signed}.{_base64url(self.sign(signed.encode()))}"


class TokenService:
    """What gives access tokens to an account, or to this machine."""

    def __init__(self, account: ServiceAccount | None, web: Web, machine: str) -> None:
        """`machine` is the address of the metadata server, which is asked when there is no account."""
        self._account = account
        self._web = web
        self._machine = machine

    async def ask(self) -> Granted:
        """A new token. Raises AccessDenied, StorageUnavailable."""
        return await (self._ask_machine() if self._account is None else self._ask_service(self._account))

    async def _ask_service(self, account: ServiceAccount) -> Granted:
        statement = await asyncio.to_thread(account.statement, int(time.time()))
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": statement}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", account.token_uri, headers, urlencode(form).encode())

    async def _ask_machine(self) -> Granted:
        try:
            return await self._ask("GET", self._machine + _MACHINE_PATH, {"Metadata-Flavor": "Google"})
        except StorageUnavailable as error:
            raise StorageUnavailable(
                f"there is no key, and this machine is not known at Google: {error}"
            ) from error

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], data: bytes = b"") -> Granted:
        async def given() -> Mapping[str, str]:
            return headers

        async with await self._web.send(method, url, given, data) as answer:
            content, status = await self._web.read(answer), answer.status
        if status == 200:
            try:
                return msgspec.json.decode(content, type=Granted)
            except msgspec.DecodeError:
                raise StorageUnavailable("Google's token service gives an answer that holds no token") from None
        try:
            refusal = msgspec.json.decode(content, type=_Refusal)
        except (msgspec.DecodeError, UnicodeError):
            refusal = _Refusal()
        reason = refusal.error_description or refusal.error or f"it answers {status}"
        if status in {400, 401, 403}:
            raise AccessDenied(f"Google's token service gives no token: {reason}")
        raise StorageUnavailable(f"Google's token service gives no token: {reason}")


def _encoded(value: object) -> str:
    return _base64url(msgspec.json.encode(value))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
