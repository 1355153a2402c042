"""
The front of every process: which application answers a path, and what is done for every request.

Each request gets an id, a line in the log, a count in the metrics, the security headers, and an answer even when
the application fails. Behind a trusted proxy the client's address, scheme and host are the ones it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import os
import re
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Struct

from dtr.http.bodies import ANSWER, IS_GONE, MISDIRECTED, REACHABLE, ClientGone
from dtr.http.limits import TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from dtr.http.bodies import AnswerAtOnce, IsGone
    from dtr.http.limits import Limits
    from dtr.http.types import ASGIApp, Header, Message, Receive, Scope, Send

_log = logging.getLogger("dtr.http")

# One line each: some proxies refuse folded headers.
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer, but for those that an application gives itself."""
HSTS = (b"strict-transport-security", b"max-age=31536000")
"""A further one of every answer over TLS."""
_OWN_LINES = b"".join(b"%b: %b\r\n" % one for one in SECURITY)
_OWN_LINES_OF_TLS = _OWN_LINES + b"%b: %b\r\n" % HSTS
_REACHABLE = REACHABLE.lower().encode()
_HOST = re.compile(rb"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?:?")


class Facts(Struct):
    """What is known of a request, for log and metrics; applications fill it in as ``scope["dtr.facts"]``."""

    id: str
    remote: str
    route: str = "other"
    actor: str = ""
    repository: str = ""
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    reason: str = ""
    """Why it was not served, for the operator: what the database or the storage said."""
    limits: Limits | None = None

    def identify(self, account: str) -> None:
        """Note who sends the request, once that is known. Raises TooManyRequests."""
        self.actor = account
        if self.limits is not None:
            self.limits.count_account(account)

    def transferring(self) -> AbstractContextManager[None]:
        """As long as a blob is on its way. Raises TooManyRequests when it is entered."""
        return _NOTHING if self.limits is None else self.limits.transfer(self.remote, self.actor)


_NOTHING = contextlib.nullcontext()
Finished: TypeAlias = "Callable[[Scope, Facts], None]"


class Front:
    """An ASGI application over others."""

    def __init__(
        self,
        routes: Mapping[str, ASGIApp],
        others: ASGIApp,
        *,
        finished: Finished,
        started: Callable[[], None],
        within: Mapping[str, tuple[str, ASGIApp]] | None = None,
        https_port: int | None = None,
        trusted_proxies: Sequence[str] = (),
        plain: Sequence[str] = (),
        pages: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """
        `routes` are applications by the first part of the path; `others` gets what they do not answer.

        A key that begins with a slash is a whole path, which goes before. `within`, by the first part of the path,
        has a text and an application for the paths with that text anywhere.

        Plain HTTP is sent to `https_port`, but for the first parts in `plain`; None: it is served. What `others`
        answer is not counted for the `limits`. For the first parts in `pages` the application itself says that
        there were too many requests, which it finds as ``scope["dtr.refused"]``: to people, not to programs.
        """
        self._limits = limits
        self._routes = routes
        self._within = within or {}
        self._others = others
        self._started = started
        self._finished = finished
        self._https_port = https_port
        self._plain = frozenset(plain)
        self._pages = frozenset(pages)
        networks = tuple(ipaddress.ip_network(one) for one in trusted_proxies)
        self._is_proxy = lru_cache(1024)(lambda address: _is_in(address, networks)) if networks else None
        self._prefix = os.urandom(5).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        client = scope["client"]
        facts = Facts(f"{self._prefix}{next(self._numbers):06x}", client[0] if client else "", limits=self._limits)
        scope["dtr.facts"] = facts
        if self._is_proxy is not None and self._is_proxy(facts.remote):
            _believe(scope, facts)
        secure = scope["scheme"] == "https"
        self._started()
        started = perf_counter()
        extensions = scope.get("extensions") or {}
        is_gone: IsGone = extensions.get(IS_GONE, _never)

        async def counted() -> Message:
            message = await receive()
            facts.bytes_in += len(message.get("body", b""))
            return message

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
                headers = [*message["headers"], (b"x-request-id", facts.id.encode()), *SECURITY]
                if secure:
                    headers.append(HSTS)
                message = {**message, "headers": _without_repeats(headers)}
            else:
                facts.bytes_out += len(message.get("body", b""))
            if is_gone():
                raise ClientGone
            await send(message)

        if ANSWER in extensions:
            answer_at_once: AnswerAtOnce = extensions[ANSWER]
            is_head = scope["method"] == "HEAD"  # the scope holds what is made here, which must not hold the scope

            def answer(
                status: int,
                headers: Iterable[Header],
                body: bytes,
                *,
                more: bytes = b"",
                length: int | None = None,
            ) -> bool:
                if is_gone():
                    raise ClientGone
                own = _OWN_LINES_OF_TLS if secure else _OWN_LINES
                lines = b"%bx-request-id: %b\r\n%b" % (more, facts.id.encode(), own)
                if not answer_at_once(status, headers, body, more=lines, length=length):
                    return False
                facts.status = status
                facts.bytes_out += 0 if is_head else len(body)
                return True

            extensions[ANSWER] = answer

        first = scope["path"].partition("/")[2].partition("/")[0]
        try:
            if MISDIRECTED in extensions:
                await self._redirect(scope, observed, None)
            elif not secure and self._https_port is not None and first not in self._plain:
                await self._redirect(scope, observed, self._https_port)
            else:
                app = self._find(scope["path"], first)
                if self._limits is not None and app is not self._others:
                    try:
                        self._limits.count_address(facts.remote)
                    except TooManyRequests as error:
                        if first not in self._pages:
                            raise
                        scope["dtr.refused"] = error
                await app(scope, counted, observed)
        except ClientGone:
            pass
        except TooManyRequests as error:
            with contextlib.suppress(ClientGone):
                await _refuse(observed, first, error)
        except asyncio.CancelledError:
            # Nobody but the server cancels, when it ends and the request does not.
            _log.warning("request was cut", extra={"request_id": facts.id})
        except Exception as error:
            if facts.status:
                # The answer is under way: the server logs this, and cuts the connection. The client must not take
                # it for whole.
                error.add_note(f"request {facts.id}")
                raise
            _log.exception("request failed", extra={"request_id": facts.id})
            with contextlib.suppress(ClientGone):
                await _fail(observed)
        finally:
            facts.seconds = perf_counter() - started
            self._finished(scope, facts)

    def _find(self, path: str, first: str) -> ASGIApp:
        """What answers a path with this first part."""
        within = self._within.get(first)
        if within is not None and within[0] in path:
            return within[1]
        return self._routes.get(path) or self._routes.get(first, self._others)

    @staticmethod
    async def _redirect(scope: Scope, send: Send, https_port: int | None) -> None:
        """Send a client to the TLS address on `https_port`; None: on the port that it used."""
        match = _HOST.fullmatch(dict(scope["headers"]).get(b"host", b""))
        name = match[1].decode("ascii") if match else "localhost"
        if https_port is not None:
            port = "" if https_port == 443 else f":{https_port}"
        else:
            port = match[2].decode("ascii") if match and match[2] else ""
        path = scope.get("raw_path", b"/").decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        target = f"https://{name}{port}{path}{'?' + query if query else ''}"
        # 308 keeps the method; a client that sent a password in the clear is not helped by hiding that.
        await send(
            {
                "type": "http.response.start",
                "status": 308,
                "headers": [(b"location", target.encode("latin-1")), (b"content-length", b"0")],
            }
        )
        await send({"type": "http.response.body"})


def _never() -> bool:
    return False


async def _fail(send: Send) -> None:
    await _answer(send, 500, "UNKNOWN", "internal server error")


async def _refuse(send: Send, first: str, error: TooManyRequests) -> None:
    """In the words of the protocol that is asked for: the registry's, or DTR's."""
    code = "TOOMANYREQUESTS" if first in {"v2", "auth"} else "TOO_MANY_REQUESTS"
    await _answer(send, 429, code, str(error), (b"retry-after", b"%d" % error.retry_after))


async def _answer(send: Send, status: int, code: str, message: str, *headers: tuple[bytes, bytes]) -> None:
    body = msgspec.json.encode({"errors": [{"code": code, "message": message}]})
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _without_repeats(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An application's own header wins over the one that every answer gets."""
    if len({name for name, _ in headers}) == len(headers):
        return headers
    seen: set[bytes] = set()
    kept = []
    for name, value in headers:
        if name not in seen or name in {b"set-cookie", b"oci-tag", b"www-authenticate"}:
            kept.append((name, value))
        seen.add(name)
    return kept


def _is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a unix socket
        return False
    return any(parsed in network for network in networks)


def _believe(scope: Scope, facts: Facts) -> None:
    """Take over what a trusted proxy says of its client: the last address is the one that it saw itself."""
    headers = dict(scope["headers"])
    forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1").rpartition(",")[2].strip()
    try:
        facts.remote = str(ipaddress.ip_address(forwarded))
        scope["client"] = (facts.remote, 0)
    except ValueError:
        pass
    scheme = headers.get(b"x-forwarded-proto", b"").decode("latin-1").strip()
    if scheme in {"http", "https"}:
        scope["scheme"] = scheme
    if _REACHABLE in headers:
        scope[REACHABLE] = headers[_REACHABLE].decode("latin-1").split(",")
    host = headers.get(b"x-forwarded-host")
    if host is not None:
        scope["headers"] = [(name, host if name == b"host" else value) for name, value in scope["headers"]]
