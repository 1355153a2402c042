"""
Sending what receivers are told.

A receiver is at an address that a user gave, and is reached as `Outside` lets us. What is answered is read no
further than is shown, and neither decompressed nor interpreted.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from dtr.outbound import OutboundError, find_fault, trusting
from dtr.webhooks.errors import WebhookInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import ClientResponse

    from dtr.outbound import Client, Outside

SECONDS = 10.0
_MOST_REDIRECTIONS = 3
_MOST_READ = 4096
_SHOWN = 1024
_REDIRECTIONS = frozenset({301, 302, 307, 308})


class Receiver(Struct, frozen=True, kw_only=True):
    """Where something is sent: an address, and whose certificates are trusted there."""

    endpoint: str
    tls_cert: str = ""
    """PEM: the server's certificate or an authority's; empty: the authorities of the system."""
    skip_tls_verification: bool = False
    """Any certificate will do, and so will none."""

    async def check(self) -> None:
        """Raise WebhookInvalid for an address or certificate that is none."""
        fault = find_fault(self.endpoint)
        if fault:
            raise WebhookInvalid(f"an endpoint {fault}")
        if urlsplit(self.endpoint).scheme == "http" and not self.skip_tls_verification:
            raise WebhookInvalid("an endpoint without TLS needs skipTLSVerification")
        if self.tls_cert:
            try:
                await asyncio.to_thread(trusting, self.tls_cert)
            except (OSError, ValueError):
                raise WebhookInvalid("the certificate is not one in PEM") from None


class Answer(Struct, frozen=True):
    """What came of a request. `status` None: nothing was answered; `duration` in milliseconds."""

    status: int | None
    text: str
    error: str
    duration: int

    @property
    def is_taken(self) -> bool:
        """Whether the receiver took it."""
        return not self.error


class _Refused(Exception):
    """It is not sent there; the message says why."""


class Sender:
    """Sends what receivers are told."""

    def __init__(self, outside: Outside, *, seconds: float = SECONDS) -> None:
        self._outside = outside
        self._seconds = seconds

    async def send(self, receiver: Receiver, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send it with POST; what came of it, whatever it was."""
        started = time.monotonic()
        status, text, error = None, "", ""
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._outside.client(
                    certificate=receiver.tls_cert, skip_tls_verification=receiver.skip_tls_verification
                ) as client,
            ):
                status, text = await self._send(client, receiver.endpoint, body, headers)
            if not 200 <= status < 300:
                error = f"the receiver answered {status}"
        except TimeoutError:
            error = f"there was no answer in {self._seconds:g} seconds"
        except (_Refused, OutboundError) as refused:
            error = str(refused)
        return Answer(status, text, error, round((time.monotonic() - started) * 1000))

    @staticmethod
    async def _send(client: Client, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        for _ in range(_MOST_REDIRECTIONS + 1):
            async with client.request("POST", url, headers=headers, data=body) as response:
                place = response.headers.get("Location")
                if response.status not in _REDIRECTIONS or place is None:
                    return response.status, await _beginning(response)
                url = _redirected(url, place)
        raise _Refused(f"it was redirected more than {_MOST_REDIRECTIONS} times")


def _redirected(url: str, place: str) -> str:
    """Where a redirection leads. Raises _Refused for another host, and for one that gives TLS up."""
    try:
        target = urljoin(url, place)
        before, after = urlsplit(url), urlsplit(target)
        is_same = after.hostname == before.hostname
    except ValueError:
        raise _Refused("it was redirected to what is no address") from None
    if not is_same or after.scheme not in {before.scheme, "https"} or "@" in after.netloc:
        raise _Refused("it was redirected to another host, or to one without TLS")
    return target


async def _beginning(response: ClientResponse) -> str:
    """What an answer begins with, as far as it is shown."""
    read = bytearray()
    while len(read) < _MOST_READ and (piece := await response.content.read(_MOST_READ - len(read))):
        read += piece
    return bytes(read[:_SHOWN]).decode(errors="replace").replace("\0", "\ufffd")
