"""
What the machine is at Azure (a managed identity), instead of a key that has to be kept secret.

A virtual machine asks the metadata service of its host for an access token, which goes with every request ("Use
managed identities for Azure resources on an Azure VM to acquire an access token", Microsoft Learn). It is good for
hours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from dtr.storage.access_tokens import Granted
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


class Identity:
    """An identity of this machine."""

    def __init__(self, name: str, web: Web, metadata: str = METADATA) -> None:
        """`name` is MACHINE or the client id of an identity; `web` uses no proxy."""
        self._query = {"api-version": _VERSION, "resource": _RESOURCE}
        if name != MACHINE:
            self._query["client_id"] = name
        self._web = web
        self._metadata = metadata

    async def ask(self) -> Granted:
        """A new token. Raises AccessDenied, StorageUnavailable."""

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
            return msgspec.json.decode(content, type=Granted, strict=False)  # the seconds are a text
        except msgspec.DecodeError:
            raise StorageUnavailable("the metadata service of the machine answers without a token") from None
