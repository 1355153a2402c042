"""
The access tokens of an account at a cloud (OAuth 2.0, RFC 6749), one after the other.

A token is good for an hour or more, and renewed before its end. While there is no new one, the old one is used as
long as it is good.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from dtr.storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_MARGIN_SECONDS = 240
"""So long before its end a token is renewed, or after three quarters of its life."""


class Granted(msgspec.Struct):
    """A token, as a token service answers: good for `expires_in` seconds."""

    access_token: str
    expires_in: float


class AccessTokens:
    """The tokens that `ask` gets, which raises AccessDenied or StorageUnavailable."""

    def __init__(self, ask: Callable[[], Awaitable[Granted]]) -> None:
        self._ask = ask
        self._token = ""
        self._renew_at = self._ends_at = 0.0
        self._renewing = asyncio.Lock()

    async def get(self) -> str:
        """
        A token that is good now; whoever needs one while it is renewed waits for the new one.

        Raises AccessDenied, StorageUnavailable.
        """
        if time.time() >= self._renew_at:
            async with self._renewing:
                if time.time() >= self._renew_at:
                    await self._renew()
        return self._token

    def forget(self, token: str) -> None:
        """Do not use this token any more: the store does not take it."""
        if token == self._token:
            self._renew_at = self._ends_at = 0.0

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
