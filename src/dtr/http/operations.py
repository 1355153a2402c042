"""
What operators and their tools ask for: ``/_ping``, ``/health``, ``/metrics``, ``/ca``.

``/_ping`` and ``/health`` are DTR's: 200 and ``{"Error":"","Healthy":true}``, or 503 and what is wrong, in words
that give nothing away. Without the signer of content trust, and without a storage to which new blobs do not go,
images still come and go: that is told, and no reason for a balancer to send requests elsewhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from dtr.cluster import Health
    from dtr.http.types import ASGIApp, Header, Receive, Scope, Send


class Operations:
    """The ASGI application of everything that has no other."""

    def __init__(
        self,
        health: Health,
        *,
        authority: Path | None,
        metrics: Callable[[], Awaitable[bytes]],
        pages: ASGIApp | None = None,
    ) -> None:
        """`pages` tell people that there is nothing at an address; programs get a document, and without it all."""
        self._health = health
        self._pages = pages
        self._authority = authority
        self._render = metrics
        self._handlers = {
            "/_ping": self._ping,
            "/health": self._report,
            "/metrics": self._metrics,
            "/ca": self._ca,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises TooManyRequests."""
        path = scope["path"]
        handler = self._handlers.get(path)
        if handler is None:
            if self._pages is not None and _is_for_people(scope):
                facts = scope.get("dtr.facts")
                if facts is not None and facts.limits is not None:
                    facts.limits.count_address(facts.remote)
                await self._pages(scope, receive, send)
                return
            await _answer(scope, send, 404, _errors("NOT_FOUND", "there is nothing here"))
            return
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.route = path.removeprefix("/")
        if scope["method"] not in {"GET", "HEAD"}:
            refusal = _errors("NOT_ALLOWED", "the method is not allowed here")
            await _answer(scope, send, 405, refusal, headers=((b"allow", b"GET, HEAD"),))
            return
        await handler(scope, send)

    async def _ping(self, scope: Scope, send: Send) -> None:
        wrong = await self._health.look()
        document, status = _document(wrong)
        await _answer(scope, send, status, document)

    async def _report(self, scope: Scope, send: Send) -> None:
        wrong = await self._health.look()
        document, status = _document(wrong)
        checks = dict.fromkeys(("metadata", "storage", "trust"), "") | wrong
        await _answer(scope, send, status, {**document, "Checks": checks})

    async def _metrics(self, scope: Scope, send: Send) -> None:
        # They tell who uses the registry how much; whoever scrapes them is on the inside.
        if not _is_inside(scope):
            await _answer(scope, send, 403, _errors("NOT_AUTHORIZED", "metrics are for private networks"))
            return
        body = await self._render()
        await _answer(scope, send, 200, body, b"text/plain; version=0.0.4; charset=utf-8")

    async def _ca(self, scope: Scope, send: Send) -> None:
        if self._authority is None:
            await _answer(scope, send, 404, _errors("NOT_FOUND", "the certificate is by a public authority"))
            return
        body = await asyncio.to_thread(self._authority.read_bytes)
        await _answer(scope, send, 200, body, b"application/x-pem-file")


def _document(wrong: dict[str, str]) -> tuple[dict[str, Any], int]:
    """DTR's document about health, and its status."""
    is_healthy = not wrong.keys() & {"metadata", "storage"}
    return {"Error": ", ".join(wrong.values()), "Healthy": is_healthy}, 200 if is_healthy else 503


def _is_for_people(scope: Scope) -> bool:
    """Whether a browser asks for a page: it takes HTML, which programs do not say."""
    accepted = (value for name, value in scope["headers"] if name == b"accept")
    return scope["method"] in {"GET", "HEAD"} and any(b"text/html" in value for value in accepted)


def _is_inside(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        return client is None or ipaddress.ip_address(client[0]).is_private
    except ValueError:  # a unix socket
        return True


def _errors(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


async def _answer(
    scope: Scope,
    send: Send,
    status: int,
    content: dict[str, Any] | bytes,
    kind: bytes = b"application/json",
    headers: Iterable[Header] = (),
) -> None:
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
