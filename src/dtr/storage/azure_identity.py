"""
What the machine is at Azure (a managed identity), instead of a key that has to be kept secret.

A virtual machine asks the metadata service of its host for an access token, which goes with every request ("Use
managed identities for Azure resources on an Azure VM to acquire an access token", Microsoft Learn). It is good for
hours, and renewed before its end.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from dtr.storage.errors import AccessDenied, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.storage.web import Web

MACHINE = "machine"
"""The identity that a machine has of its own; one that was assigned to it has a client id."""
METADATA = "http://169.254.169.254"
"""The metadata service of the host, which only the machine itself reaches."""

_PATH = "/metadata/identity/oauth2/token"
_VERSION = "2018-02-01"
_RESOURCE = "https://storage.azure.com/"
_MARGIN_SECONDS = 300
"""So long before its end a token is renewed, or after three quarters of its life."""


class _Token(msgspec.Struct):
    """The answer to a request for a token."""

    access_token: str
    expires_in: float


class Identity:
    """The access tokens of an identity, one after the other; who needs one while it is renewed waits."""

    def __init__(self, name: str, web: Web, metadata: str = METADATA) -> None:
        """`name` is MACHINE or the client id of an identity; `web` uses no proxy."""
        self._query = {"api-version": _VERSION, "resource": _RESOURCE}
        if name != MACHINE:
            self._query["client_id"] = name
        self._web = web
        self._metadata = metadata
        self._token = ""
        self._renew_at = self._ends_at = 0.0
        self._renewing = asyncio.Lock()

    async def token(self) -> str:
        """A token that is good now. Raises AccessDenied, StorageUnavailable."""
        if time.time() >= self._renew_at:
            async with self._renewing:
                if time.time() >= self._renew_at:
                    await self._renew()
        return self._token

    def forget(self) -> None:
        """The service does not take the token: the next request asks for another one."""
        self._renew_at = self._ends_at = 0.0

    async def close(self) -> None:
        """Let go of the connections."""
        await self._web.close()

    async def _renew(self) -> None:
        asked_at = time.time()
        try:
            got = await self._ask()
        except StorageUnavailable:
            if asked_at >= self._ends_at:
                raise
            return  # the old one is still good, and the next request tries again
        self._token = got.access_token
        self._ends_at = asked_at + got.expires_in
        self._renew_at = self._ends_at - min(_MARGIN_SECONDS, got.expires_in / 4)

    async def _ask(self) -> _Token:
        async def headers() -> Mapping[str, str]:
            return {"Metadata": "true"}

        async with await self._web.send(
            "GET", f"{self._metadata}{_PATH}?{urlencode(self._query)}", headers
        ) as answer:
            content, status = await self._web.read(answer), answer.status
        if status in {400, 401, 403, 404}:
            raise AccessDenied(f"the machine has no such identity at Azure: its metadata service answers {status}")
        if status != 200:
            raise StorageUnavailable(f"the metadata service of the machine answers {status}")
        try:
            return msgspec.json.decode(content, type=_Token, strict=False)  # the seconds are a text
        except msgspec.DecodeError:
            raise StorageUnavailable("the metadata service of the machine answers without a token") from None
