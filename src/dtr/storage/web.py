"""
HTTP for drivers that speak to their store by themselves: TLS, proxies, time limits, and another attempt.

What happens on the way becomes StorageUnavailable; what an answer means is the driver's to say.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass
from weakref import WeakSet

import aiohttp
from yarl import URL

from dtr.storage.driver import PIECE_SIZE
from dtr.storage.errors import StorageError, StorageUnavailable
from dtr.storage.lending import Answer, LendingConnector
from dtr.storage.spool import Spool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

Body: TypeAlias = bytes | io.BytesIO | Spool
"""What a request may carry; it can be sent again."""

_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_ATTEMPTS = 3
_FIRST_PAUSE = 0.25
_CONNECTIONS = 64
_BUFFER = 256 * 1024
"""From twice so many bytes of an answer that nobody read yet, the other side waits."""
_LONGEST_ANSWER = 32 * 1024 * 1024
"""Of those that are read whole: pages of listings."""


class Web:
    """The connections to one store, at most 64 at a time."""

    def __init__(
        self, store: str, *, verify: bool | str = True, time_limit: float = 60, proxies: bool = True
    ) -> None:
        """
        `store` is what it is called in errors.

        `verify` is whether to check the server's certificate, or the authorities to trust: the path of a file, or
        the certificates themselves (PEM). `time_limit`, in seconds, holds for every request with all its attempts,
        and begins anew with every piece that is sent or read. Without `proxies`, those of the environment are not
        used.
        """
        self._store = store
        self._verify = verify
        self._time_limit = time_limit
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()

    async def send(
        self,
        method: str,
        url: str,
        headers: Callable[[], Awaitable[Mapping[str, str]]],
        data: Body = b"",
        *,
        again: frozenset[int] = _AGAIN,
    ) -> aiohttp.ClientResponse:
        """
        The answer, of whatever status, as far as its head; the caller closes it (``async with``).

        `url` is sent as it is, encoded by the caller. `headers` is asked before each attempt, since signatures and
        tokens are of the moment. Answers of the statuses `again`, and connections that fail, lead to another
        attempt, a few times.
        """
        proxy, size = _proxy_of(url) if self._proxies else None, size_of(data)
        length = {"Content-Length": str(size)} if size or method in {"PUT", "POST"} else {}
        async with self.limited() as limit:
            for attempt in range(_ATTEMPTS):
                is_last = attempt == _ATTEMPTS - 1
                try:
                    answer = await self._open().request(
                        method,
                        URL(url, encoded=True),
                        headers={**await headers(), **length},
                        data=self._sent(data, limit) if size else None,
                        proxy=proxy,
                        allow_redirects=False,
                    )
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    if is_last:
                        raise
                else:
                    if is_last or answer.status not in again:
                        return answer
                    answer.close()
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError  # the last attempt returns or raises

    async def read(self, answer: aiohttp.ClientResponse) -> bytes:
        """What is left of a short answer, whole."""
        read = bytearray()
        async for piece in self.pieces(answer):
            read += piece
            if len(read) > _LONGEST_ANSWER:
                raise StorageError(f"{self._store} gives an answer that does not end")
        return bytes(read)

    async def pieces(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """What is left of an answer. Raises StorageUnavailable when it breaks off."""
        while True:
            async with self.limited():
                piece = await answer.content.read(PIECE_SIZE)
            if not piece:
                return
            yield piece

    def content(self, answer: aiohttp.ClientResponse, location: str) -> Answer:
        """The same of an answer that is the object at `location`, or a part of it."""
        return Answer(answer, location, self.limited, self._time_limit)

    @asynccontextmanager
    async def limited(self) -> AsyncGenerator[asyncio.Timeout, None]:
        """What must end within the time limit; errors of connections become storage's own."""
        try:
            async with asyncio.timeout(self._time_limit) as limit:
                yield limit
        except TimeoutError as error:
            raise StorageUnavailable(f"no answer from {self._store} within {self._time_limit:g} s") from error
        except aiohttp.ClientHttpProxyError as error:
            raise StorageUnavailable(f"the proxy on the way to {self._store} answers {error.status}") from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error.__cause__, StorageError):  # of the body that was to be sent
                raise error.__cause__ from None
            raise StorageUnavailable(f"{self._store}: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        """Let go of the connections. May be repeated."""
        if self._session is not None:
            await self._session.close()
            # Requests that were given up on leave connections that wait until the last byte is gone.
            for made in list(self._sockets):
                with suppress(OSError):
                    made.shutdown(socket.SHUT_RDWR)
            for _ in range(3):  # rounds of the loop, in which it hears of that and closes them
                await asyncio.sleep(0)

    def _open(self) -> aiohttp.ClientSession:
        """The session, made by the first request."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=LendingConnector(limit=_CONNECTIONS, ssl=self._trusted(), socket_factory=self._socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                read_bufsize=_BUFFER,
                headers={"Accept-Encoding": "identity", "User-Agent": "dtr"},
                skip_auto_headers={"Content-Type"},
            )
        return self._session

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """
        A socket of a connection that ends when the other side does not take what was sent to it.

        Otherwise one that is closed would stay until it has: with a server that has stopped, for ever.
        """
        family, kind, protocol, _, _ = info
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._time_limit * 1000))
        self._sockets.add(made)
        return made

    def _trusted(self) -> ssl.SSLContext:
        verify = self._verify
        if isinstance(verify, bool):
            context = ssl.create_default_context()
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            return context
        try:
            if "-----BEGIN" in verify:
                return ssl.create_default_context(cadata=verify)
            return ssl.create_default_context(cafile=verify)
        except (OSError, ValueError) as error:
            source = "what is given" if "-----BEGIN" in verify else verify
            raise StorageError(f"no certificates of authorities can be read from {source}: {error}") from error

    async def _sent(self, data: Body, limit: asyncio.Timeout) -> AsyncIterator[bytes | bytearray]:
        """The body, piece by piece."""
        if isinstance(data, Spool):
            async for piece in data:
                self._begin_anew(limit)
                yield piece
        else:
            view = memoryview(data.getbuffer() if isinstance(data, io.BytesIO) else data)
            for start in range(0, len(view), _BUFFER):
                self._begin_anew(limit)
                yield bytes(view[start : start + _BUFFER])

    def _begin_anew(self, limit: asyncio.Timeout) -> None:
        with suppress(RuntimeError):  # the answer came before the body had gone
            limit.reschedule(asyncio.get_running_loop().time() + self._time_limit)


def size_of(data: Body) -> int:
    """How many bytes a body has."""
    return data.getbuffer().nbytes if isinstance(data, io.BytesIO) else len(data)


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL; unlike aiohttp's own way, without a thread and `.netrc`."""
    parts, proxies = urlsplit(url), getproxies_environment()
    if proxy_bypass(parts.netloc):
        return None
    return proxies.get(parts.scheme, proxies.get("all"))
