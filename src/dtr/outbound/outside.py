"""
Requests to hosts that users name.

A name is resolved once for a connection, and each address is looked at in the moment in which the connection to
that very address is made (`Addresses`): what a name server says later changes nothing. Where a proxy stands
between, it connects; then what the name leads to here is looked at before. Redirections are answers: who follows
one makes a new request. Nothing is decompressed, and there are no cookies.

Errors say nothing of what is behind an address that is not allowed: nor whether there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import os
import re
import socket
import ssl
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dtr.outbound.errors import AddressInvalid, AddressRefused, CertificateUntrusted, ConnectionFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp import ClientResponse, ClientSession
    from aiohttp.abc import AbstractResolver

    from dtr.outbound.addresses import Addresses

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]+[0-9A-Fa-f:.]*")
_LONGEST_URL = 2048
_WAITING = 64 * 1024
"""From twice so many bytes of an answer that nobody read yet, the other side waits."""

_denied: ContextVar[list[str]] = ContextVar("denied")
"""The addresses that the request of this context was not let to."""


class Outside:
    """The way out for one purpose: to which addresses, and through which proxies."""

    def __init__(
        self,
        addresses: Addresses,
        *,
        proxy_of: Callable[[str], str | None] = lambda _url: None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`proxy_of` says through which proxy a URL is reached; None: directly. `resolver` None: the system's."""
        self.addresses = addresses
        self.proxy_of = proxy_of
        self.resolver = resolver
        self._trusted: ssl.SSLContext | None = None

    @contextlib.asynccontextmanager
    async def client(
        self,
        *,
        certificate: str = "",
        skip_tls_verification: bool = False,
        connect_seconds: float | None = None,
        silence_seconds: float | None = None,
        connections: int = 4,
    ) -> AsyncIterator[Client]:
        """
        A client that keeps its connections until the end of the block.

        `certificate`: the server's in PEM, or an authority's; empty: the authorities of the system are trusted.
        With `skip_tls_verification` whatever a server shows is trusted. There are at most so many `connections` to
        each host; an answer may pause for `silence_seconds`. Raises ssl.SSLError, ValueError: no certificate.
        """
        # Its import takes a while, and the loop has other things to do.
        aiohttp: Any = await asyncio.to_thread(importlib.import_module, "aiohttp")
        context: ssl.SSLContext | bool
        if skip_tls_verification:
            context = False
        elif certificate:
            context = await asyncio.to_thread(trusting, certificate)
        else:
            if self._trusted is None:
                self._trusted = await asyncio.to_thread(ssl.create_default_context)
            context = self._trusted

        def session(guard: Callable[[Any], socket.socket] | None) -> ClientSession:
            made: ClientSession = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=context,
                    resolver=self.resolver,
                    use_dns_cache=False,
                    limit_per_host=connections,
                    socket_factory=guard,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=silence_seconds),
                read_bufsize=_WAITING,
            )
            return made

        async with session(self._guard) as direct, session(None) as proxied:
            yield Client(self, direct, proxied)

    def _guard(self, found: Any) -> socket.socket:
        """The socket for an address that was found, unless that is not allowed."""
        family, kind, protocol, _, where = found
        if not self.addresses.allows(where[0]):
            _denied.get().append(where[0])
            raise PermissionError(0, "the address is not allowed")
        return socket.socket(family, kind, protocol)

    async def look_ahead(self, url: str) -> None:
        """
        Raise AddressRefused for what is not allowed, before a proxy is asked.

        That may know names that are unknown here.
        """
        host = urlsplit(url).hostname or ""
        try:
            found = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                return
            found = [str(one[4][0]) for one in infos]
        if not all(map(self.addresses.allows, found)):
            raise AddressRefused


class Client:
    """Connections to the outside, made by `Outside.client`. Several requests may go on at once."""

    def __init__(self, outside: Outside, direct: ClientSession, proxied: ClientSession) -> None:
        self._outside = outside
        self._direct = direct
        self._proxied = proxied

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: Any = None
    ) -> AsyncIterator[ClientResponse]:
        """
        The answer to one request, whatever its status; its body is read within the block.

        The URL is sent as it is: to write a signed one in another way would break the signature.

        Raises OutboundError, also for what breaks while the body is read, and TimeoutError.
        """
        import aiohttp
        from yarl import URL

        denied: list[str] = []
        token = _denied.set(denied)
        try:
            proxy = self._outside.proxy_of(url)
            if proxy is not None:
                await self._outside.look_ahead(url)
            session = self._direct if proxy is None else self._proxied
            response = await session.request(
                method,
                URL(url, encoded=True),
                data=data,
                headers={**headers, "Accept-Encoding": "identity"},
                allow_redirects=False,
                proxy=proxy,
            )
        except TimeoutError:
            raise
        except aiohttp.ClientConnectorCertificateError as error:
            reason = getattr(error.certificate_error, "verify_message", "") or "it does not fit"
            raise CertificateUntrusted(f"the certificate of the host is not trusted: {reason}") from None
        except aiohttp.ClientSSLError:
            raise ConnectionFailed("there was no TLS connection") from None
        except aiohttp.ClientConnectorDNSError:
            raise AddressRefused from None
        except aiohttp.ClientHttpProxyError as error:
            raise ConnectionFailed(f"the proxy answered {error.status}") from None
        except ValueError:
            raise AddressInvalid from None
        except (aiohttp.ClientError, OSError) as error:
            if denied:
                raise AddressRefused from None
            raise _failed(error) from error
        finally:
            _denied.reset(token)
        async with response:
            try:
                yield response
            except TimeoutError:  # also aiohttp's own
                raise
            except aiohttp.ClientError as error:
                raise _failed(error) from error


def _failed(error: Exception) -> ConnectionFailed:
    number = getattr(getattr(error, "os_error", error), "errno", None)
    reason = os.strerror(number) if number else "the host did not speak HTTP, or went away"
    return ConnectionFailed(f"the request failed: {reason}")


def trusting(certificate: str) -> ssl.SSLContext:
    """TLS with whoever has this certificate (PEM), or one by it. Raises ssl.SSLError, ValueError."""
    context = ssl.create_default_context(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority's
    return context


def find_fault(url: str) -> str:
    """
    Why a URL may not be asked for; empty: it may.

    What is neither name nor address, programs read in different ways; so it has to be one or the other.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is https://HOST[:PORT]/…"
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host or "") or port == 0:
        return "is https://HOST[:PORT]/…"
    if len(url) > _LONGEST_URL or not (url.isascii() and url.isprintable()):
        return f"has at most {_LONGEST_URL} characters, all of them ASCII"
    if " " in url or "@" in parts.netloc:
        return "has no spaces, and no user or password"
    return ""
