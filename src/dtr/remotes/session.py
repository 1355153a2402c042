"""
Requests to one registry: greeted, authorized, along redirections, and patient with who is busy.

Credentials go to the registry itself, and to the token service that it names: never where a redirection leads.
That may be another host (a signed address of a storage), but never one without TLS when the registry has it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from dtr.outbound import OutboundError, find_fault
from dtr.remotes.answers import BUSY, read_beginning, refusal, retry_after
from dtr.remotes.authorization import Authorization
from dtr.remotes.errors import RemoteBroken, RemoteUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aiohttp import ClientResponse

    from dtr.outbound import Client
    from dtr.remotes.remote import Remote

_MOST_REDIRECTIONS = 5
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})


class Session:
    """Requests to the registry of a remote. Several may go on at once."""

    def __init__(
        self,
        client: Client,
        remote: Remote,
        headers: Mapping[str, str],
        *,
        patience: float,
        silence_seconds: float,
    ) -> None:
        """`patience`: seconds, in all, that are waited because the remote is busy."""
        self.authorization = Authorization(client, remote, headers)
        self.silence_seconds = silence_seconds
        self._client = client
        self._url = remote.url
        self._headers = headers
        self._patience = patience
        self._is_greeted = False
        self._greeting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def ask(
        self,
        method: str,
        url: str,
        scopes: Iterable[str],
        headers: Mapping[str, str] | None = None,
        *,
        data: Any = None,
        repeatable: bool = True,
    ) -> AsyncIterator[ClientResponse]:
        """
        The answer to a request that needs a token for `scopes`; what is busy is asked again for a while.

        One whose body can be sent only once is not `repeatable`. Raises RemoteError.
        """
        await self.greet()
        is_renewed = not repeatable
        waits = 0
        while True:
            async with self._follow(method, url, scopes, headers or {}, data) as response:
                if response.status == 401 and not is_renewed and self._learn(response):
                    is_renewed = True
                    self.authorization.forget()
                    continue
                pause = retry_after(response.headers)
                if pause is None:
                    pause = 2.0**waits
                if response.status not in BUSY or not repeatable or pause > self._patience:
                    yield response
                    return
            self._patience -= pause
            waits += 1
            await asyncio.sleep(pause)

    async def greet(self) -> None:
        """Ask once whether it is a registry, and how it wants to be asked. Raises RemoteError."""
        async with self._greeting:
            if self._is_greeted:
                return
            async with self._request("GET", f"{self._url}/v2/", self._headers, None) as response:
                if response.status in _REDIRECTIONS:
                    raise RemoteBroken("the registry is at another address: the remote redirects")
                if response.status == 401:
                    if not self._learn(response):
                        raise RemoteBroken("the remote wants to be authorized in a way that is not known")
                elif response.status == 404:
                    raise RemoteBroken("the remote is no registry: it has no /v2/")
                else:
                    await self.expect(response, 200)
            self._is_greeted = True

    async def expect(self, response: ClientResponse, *statuses: int) -> None:
        """Raise the RemoteError that another status than these means."""
        if response.status not in statuses:
            content = await read_beginning(response)
            raise refusal(response, content, "the remote", self.authorization.redact)

    def is_own(self, url: str) -> bool:
        """Whether an address is one of the registry itself."""
        return _origin(url) == _origin(self._url)

    def _learn(self, response: ClientResponse) -> bool:
        own = self.is_own(str(response.url))
        return own and self.authorization.learn(response.headers.getall("WWW-Authenticate", []))

    @contextlib.asynccontextmanager
    async def _follow(
        self, method: str, url: str, scopes: Iterable[str], headers: Mapping[str, str], data: Any
    ) -> AsyncIterator[ClientResponse]:
        for _ in range(_MOST_REDIRECTIONS + 1):
            sent = {**self._headers, **headers}
            if self.is_own(url) and (value := await self.authorization.header(scopes)) is not None:
                sent["Authorization"] = value
            async with self._request(method, url, sent, data) as response:
                place = response.headers.get("Location")
                if method not in {"GET", "HEAD"} or response.status not in _REDIRECTIONS or place is None:
                    yield response
                    return
                url = lead(url, place)
        raise RemoteBroken(f"the remote redirects more than {_MOST_REDIRECTIONS} times")

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], data: Any
    ) -> AsyncIterator[ClientResponse]:
        try:
            async with self._client.request(method, url, headers=headers, data=data) as response:
                yield response
        except OutboundError as error:
            raise RemoteUnreachable(f"the remote: {error}") from error
        except TimeoutError as error:
            raise RemoteUnreachable("the remote did not answer in time") from error


def lead(url: str, place: str) -> str:
    """Where an answer of `url` leads. Raises RemoteBroken: to no address, or to one without TLS."""
    try:
        target = urljoin(url, place)
    except ValueError:
        target = ""
    # A signed address may be longer than one that people type.
    is_address = target.isascii() and target.isprintable() and " " not in target
    if (
        not is_address
        or find_fault(target.partition("?")[0])
        or (url.startswith("https:") and not target.startswith("https:"))
    ):
        raise RemoteBroken("the remote leads to what is no address, or to one without TLS")
    return target


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
