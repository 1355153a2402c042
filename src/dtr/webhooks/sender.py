"""
Sending a request to an address that a user gave.

A name is resolved once, and each address is looked at in the moment in which the connection to that very address
is made (`Addresses`): what a name server says later changes nothing, and a redirection is a new connection. Where
a proxy stands between, it connects; then what the name leads to here is looked at before.

What is answered is read no further than is shown, and neither decompressed nor interpreted. Errors say nothing of
what is behind an address that is not allowed: nor whether there is one.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import os
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from dtr.webhooks.errors import WebhookInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import ClientResponse
    from aiohttp.abc import AbstractResolver

    from dtr.webhooks.addresses import Addresses

SECONDS = 10.0
_MOST_REDIRECTIONS = 3
_MOST_READ = 4096
_SHOWN = 1024
_REDIRECTIONS = frozenset({301, 302, 307, 308})
_LONGEST_ENDPOINT = 2048
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]+[0-9A-Fa-f:.]*")
_UNREACHABLE = "the host has no address, or none that webhooks may be sent to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Where something is sent: an address, and whose certificates are trusted there."""

    endpoint: str
    tls_cert: str = ""
    """PEM: the server's certificate or an authority's; empty: the authorities of the system."""
    skip_tls_verification: bool = False
    """Any certificate will do, and so will none."""

    async def check(self) -> None:
        """Raise WebhookInvalid for an address or certificate that is none."""
        try:
            parts = urlsplit(self.endpoint)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
            parts = urlsplit("")
        # What is neither name nor address, programs read in different ways.
        if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host or "") or port == 0:
            raise WebhookInvalid("an endpoint is https://HOST[:PORT]/…")
        if len(self.endpoint) > _LONGEST_ENDPOINT or not (self.endpoint.isascii() and self.endpoint.isprintable()):
            raise WebhookInvalid(f"an endpoint has at most {_LONGEST_ENDPOINT} characters, all of them ASCII")
        if " " in self.endpoint or "@" in parts.netloc:
            raise WebhookInvalid("an endpoint has no spaces, and no user or password")
        if parts.scheme == "http" and not self.skip_tls_verification:
            raise WebhookInvalid("an endpoint without TLS needs skipTLSVerification")
        if self.tls_cert:
            try:
                await asyncio.to_thread(_trusting, self.tls_cert)
            except (ssl.SSLError, ValueError):
                raise WebhookInvalid("the certificate is not one in PEM") from None


@dataclass(frozen=True, slots=True)
class Answer:
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

    def __init__(
        self,
        addresses: Addresses,
        *,
        proxy_of: Callable[[str], str | None] = lambda _url: None,
        resolver: AbstractResolver | None = None,
        seconds: float = SECONDS,
    ) -> None:
        """`proxy_of` says through which proxy a URL is reached; None: directly. `resolver` None: the system's."""
        self._addresses = addresses
        self._proxy_of = proxy_of
        self._resolver = resolver
        self._seconds = seconds
        self._trusted: ssl.SSLContext | None = None

    async def send(self, receiver: Receiver, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send it with POST; what came of it, whatever it was."""
        started = time.monotonic()
        status, text, error = None, "", ""
        try:
            async with asyncio.timeout(self._seconds):
                status, text = await self._send(receiver, body, headers)
            if not 200 <= status < 300:
                error = f"the receiver answered {status}"
        except TimeoutError:
            error = f"there was no answer in {self._seconds:g} seconds"
        except _Refused as refused:
            error = str(refused)
        return Answer(status, text, error, round((time.monotonic() - started) * 1000))

    async def _send(self, receiver: Receiver, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        # Its import takes a while, and the loop has other things to do.
        aiohttp: Any = await asyncio.to_thread(importlib.import_module, "aiohttp")
        context = await self._context(receiver)
        url = receiver.endpoint
        for _ in range(_MOST_REDIRECTIONS + 1):
            proxy = self._proxy_of(url)
            if proxy is not None:
                await self._look_ahead(url)
            denied: list[str] = []
            connector = aiohttp.TCPConnector(
                ssl=context,
                resolver=self._resolver,
                use_dns_cache=False,
                force_close=True,
                socket_factory=None if proxy else self._guard(denied),
            )
            try:
                async with (
                    aiohttp.ClientSession(
                        connector=connector,
                        connector_owner=True,
                        cookie_jar=aiohttp.DummyCookieJar(),
                        auto_decompress=False,
                        trust_env=False,
                        timeout=aiohttp.ClientTimeout(total=None),
                    ) as session,
                    session.post(
                        url,
                        data=body,
                        headers={**headers, "Accept-Encoding": "identity"},
                        allow_redirects=False,
                        proxy=proxy,
                    ) as response,
                ):
                    place = response.headers.get("Location")
                    if response.status not in _REDIRECTIONS or place is None:
                        return response.status, await _beginning(response)
                    url = _redirected(url, place)
            except aiohttp.ClientConnectorCertificateError as error:
                reason = getattr(error.certificate_error, "verify_message", "") or "it does not fit"
                raise _Refused(f"the receiver's certificate is not trusted: {reason}") from None
            except aiohttp.ClientSSLError:
                raise _Refused("there was no TLS connection") from None
            except aiohttp.ClientConnectorDNSError:
                raise _Refused(_UNREACHABLE) from None
            except aiohttp.ClientHttpProxyError as error:
                raise _Refused(f"the proxy answered {error.status}") from None
            except ValueError:
                raise _Refused("the address, or that of the proxy, is not one") from None
            except (aiohttp.ClientError, OSError) as error:
                if denied:
                    raise _Refused(_UNREACHABLE) from None
                number = getattr(getattr(error, "os_error", error), "errno", None)
                reason = os.strerror(number) if number else "the receiver did not speak HTTP, or went away"
                raise _Refused(f"the request failed: {reason}") from None
        raise _Refused(f"it was redirected more than {_MOST_REDIRECTIONS} times")

    def _guard(self, denied: list[str]) -> Callable[[Any], socket.socket]:
        """What makes the socket for an address, unless that is not allowed."""

        def make(found: Any) -> socket.socket:
            family, kind, protocol, _, where = found
            if not self._addresses.allows(where[0]):
                denied.append(where[0])
                raise PermissionError(0, _UNREACHABLE)
            return socket.socket(family, kind, protocol)

        return make

    async def _look_ahead(self, url: str) -> None:
        """Refuse what is not allowed, before a proxy is asked; it may know names that are unknown here."""
        host = urlsplit(url).hostname or ""
        try:
            found = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                return
            found = [str(one[4][0]) for one in infos]
        if not all(map(self._addresses.allows, found)):
            raise _Refused(_UNREACHABLE)

    async def _context(self, receiver: Receiver) -> ssl.SSLContext | bool:
        """How TLS is spoken with a receiver."""
        if receiver.skip_tls_verification:
            return False
        if receiver.tls_cert:
            return await asyncio.to_thread(_trusting, receiver.tls_cert)
        if self._trusted is None:
            self._trusted = await asyncio.to_thread(ssl.create_default_context)
        return self._trusted


def _trusting(certificate: str) -> ssl.SSLContext:
    """TLS with whoever has this certificate, or one by it. Raises ssl.SSLError, ValueError."""
    context = ssl.create_default_context(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority's
    return context


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
