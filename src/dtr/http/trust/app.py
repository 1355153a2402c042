"""
The notary server's HTTP API: notary-v1, section 2. A plain ASGI application, before the registry's.

What it serves are the bytes that were stored. Success is 200 and nothing else; clients follow no redirect on
metadata, and read no more than the first bytes of an error.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from contextlib import nullcontext
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import msgspec
from msgspec import Struct

from dtr.accounts.visibility import asking
from dtr.http.trust.access import FOLLOW, MANAGE, READ, SIGN, Access
from dtr.http.trust.errors import Refused, body_of, refusal
from dtr.http.trust.request import Request, respond
from dtr.http.trust.routes import Route, clean, find_route
from dtr.http.trust.upload import read_files, receive_update
from dtr.signer import SignerError
from dtr.tuf import is_role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dtr.accounts import Accounts, Tokens
    from dtr.cluster import Health
    from dtr.http.front import Facts
    from dtr.http.hosts import Hosts
    from dtr.http.trust.routes import Operation
    from dtr.http.types import Header, Receive, Scope, Send
    from dtr.settings import LiveSettings
    from dtr.trust import Change, File, Trust
    from dtr.tuf import PublicKey

_JSON = (b"content-type", b"application/json")
_ERROR = (b"content-type", b"application/json; charset=utf-8")
_CHECKS = {"metadata": "DB operational", "trust": "Trust operational"}
"""The checks of a notary server, by what they are here."""
_METHODS = frozenset({"GET", "POST", "PUT", "HEAD", "DELETE"})
_INDEXED_DIGITS = 64
"""Files are known by their SHA-256; the longer hashes that a path may have lead nowhere."""
_LARGEST_VERSION = 2**53
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_MOST_CHANGES = 1_000
_USUAL_CHANGES = 100
_LARGE = 1024 * 1024
_INT32 = range(-(2**31), 2**31)


class Options(Struct, frozen=True, kw_only=True):
    """What an operator decides about this API. Ages in seconds, sizes in bytes."""

    service: str = "dtr"
    current_age: int = 300
    """So long caches may keep what is asked for by its role."""
    consistent_age: int = 2_592_000
    """So long what is asked for by its hash or version."""
    update_limit: int = 16 * 1024 * 1024
    changes_after: int = 60
    """So old changes are when they are listed."""


class TrustAPI:
    """The ASGI application."""

    def __init__(
        self,
        *,
        trust: Trust,
        tokens: Tokens,
        accounts: Accounts,
        settings: LiveSettings,
        hosts: Hosts,
        health: Health,
        options: Options,
    ) -> None:
        self._trust = trust
        self._accounts = accounts
        self._access = Access(tokens, accounts, settings, hosts, service=options.service)
        self._health_of_rooms = health
        self._options = options
        self._large = asyncio.Lock()
        """Who has it publishes what is large: what was read of it takes many times its size."""
        self._handlers: dict[Operation, Callable[[Request], Awaitable[None]]] = {
            "UpdateTUF": self._update,
            "GetRoleByHash": self._get_by_hash,
            "GetRoleByVersion": self._get_by_version,
            "GetRole": self._get,
            "GetKey": self._get_key,
            "RotateKey": self._rotate_key,
            "DeleteTUF": self._delete,
            "Changefeed": self._changes,
            "GlobalChangefeed": self._all_changes,
            "Health": self._health,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = scope["method"], scope["path"]
        route = find_route(method, path)
        request = Request(scope, receive, send, route or Route("Other"), dict(scope["headers"]))
        facts: Facts | None = scope.get("dtr.facts")
        if facts is not None:
            facts.route = ROUTES[request.route.operation]
        try:
            if clean(path) != path:
                await _move(request, clean(path))
            elif route is None:
                await self._nothing(request)
            else:
                if route.gun:
                    self._access.locate(request)
                    if facts is not None:
                        facts.repository = request.path
                await self._handlers[route.operation](request)
        except Exception as error:
            refused = refusal(error, request.route.operation)
            if refused is None or request.is_answered:
                raise
            if facts is not None and (refused.status >= 500 or isinstance(error, SignerError)):
                facts.reason = str(error)
            await respond(request, refused.status, body_of(refused), (*refused.headers, _ERROR))

    async def _nothing(self, request: Request) -> None:
        if request.scope["method"] not in _METHODS:
            await respond(request, 405, b"")
            return
        await self._access.require_catalog(request)
        raise Refused(404, "METADATA_NOT_FOUND", "there is no such endpoint")

    async def _health(self, request: Request) -> None:
        found = await self._health_of_rooms.look()
        wrong = {name: found[kind] for kind, name in _CHECKS.items() if kind in found}
        await respond(request, 503 if wrong else 200, msgspec.json.encode(wrong), (_JSON, _NO_STORE))

    # --- files -----------------------------------------------------------------------------------------------

    async def _update(self, request: Request) -> None:
        collection, _ = await self._access.collection(request, SIGN)
        content_type = request.headers.get(b"content-type", b"")
        upload = await receive_update(request.scope, request.receive, content_type, self._options.update_limit)
        async with self._large if upload.size > _LARGE else nullcontext():
            await self._trust.publish(collection, await read_files(upload), by=request.actor)
        await respond(request, 200, b"")

    async def _get(self, request: Request) -> None:
        collection, is_public = await self._access.collection(request, READ)
        found = await self._trust.get(collection, _role(request))
        await self._serve(request, found, is_public=is_public, age=self._options.current_age, is_current=True)

    async def _get_by_hash(self, request: Request) -> None:
        collection, is_public = await self._access.collection(request, READ)
        arguments = request.route.arguments
        if len(arguments["hash"]) != _INDEXED_DIGITS:
            raise _missing()
        found = await self._trust.get_by_hash(collection, _role(request), arguments["hash"].lower())
        await self._serve(request, found, is_public=is_public, age=self._options.consistent_age)

    async def _get_by_version(self, request: Request) -> None:
        collection, is_public = await self._access.collection(request, READ)
        arguments = request.route.arguments
        version = int(arguments["version"])
        if version > _LARGEST_VERSION:
            raise _missing()
        found = await self._trust.get_by_version(collection, _role(request), version)
        await self._serve(request, found, is_public=is_public, age=self._options.consistent_age)

    @staticmethod
    async def _serve(
        request: Request, found: File, *, is_public: bool, age: int, is_current: bool = False
    ) -> None:
        stored = dt.datetime.fromtimestamp(found.created_at / 1000, dt.UTC)
        headers = [
            _JSON,
            (b"last-modified", format_datetime(stored, usegmt=True).encode()),
            *_caching(age, is_public=is_public, is_current=is_current),
        ]
        await respond(request, 200, found.content, headers)

    # --- keys, and the whole collection ------------------------------------------------------------------------

    async def _get_key(self, request: Request) -> None:
        collection, _ = await self._access.collection(request, SIGN)
        key = await self._trust.get_key(collection, request.route.arguments["role"])
        await _answer_key(request, key)

    async def _rotate_key(self, request: Request) -> None:
        collection, _ = await self._access.collection(request, MANAGE)
        key = await self._trust.rotate_key(collection, request.route.arguments["role"], by=request.actor)
        await _answer_key(request, key)

    async def _delete(self, request: Request) -> None:
        collection, _ = await self._access.collection(request, MANAGE)
        await self._trust.delete(collection, by=request.actor)
        await respond(request, 200, b"")

    # --- changes -----------------------------------------------------------------------------------------------

    async def _changes(self, request: Request) -> None:
        collection, _ = await self._access.collection(request, FOLLOW)
        after, records = _window(request)
        found = await self._trust.list_changes(
            after=after, records=records, collection=collection, age=self._options.changes_after * 1000
        )
        await _answer_changes(request, found)

    async def _all_changes(self, request: Request) -> None:
        await self._access.require_catalog(request)
        after, records = _window(request)
        claims = request.claims
        # Who sees every repository is also told of those that are not there any more.
        is_unbound = claims.scope is None and await self._accounts.standings.view(claims.account_id) == "all"
        found = await self._trust.list_changes(
            after=after,
            records=records,
            readable_by=None if is_unbound else asking(claims.account_id, claims.scope),
            age=self._options.changes_after * 1000,
        )
        await _answer_changes(request, found)


_NO_STORE: Header = (b"cache-control", b"no-store")
ROUTES: dict[str, str] = {
    "UpdateTUF": "trust_update",
    "GetRoleByHash": "trust_by_hash",
    "GetRoleByVersion": "trust_by_version",
    "GetRole": "trust_role",
    "GetKey": "trust_key",
    "RotateKey": "trust_new_key",
    "DeleteTUF": "trust_delete",
    "Changefeed": "trust_changes",
    "GlobalChangefeed": "trust_changes",
    "Health": "trust_health",
    "Other": "other",
}


def _role(request: Request) -> str:
    """The role in the path, which may also be what no role is called. Raises Refused."""
    role = request.route.arguments["role"]
    if not is_role(role):
        raise _missing()
    return role


def _missing() -> Refused:
    return Refused(404, "METADATA_NOT_FOUND", "there is no such metadata", {})


def _caching(age: int, *, is_public: bool, is_current: bool) -> list[Header]:
    """
    What caches may do with a file (section 2.2), for so many seconds.

    Shared ones may keep only what everybody may read.
    """
    if not age:
        return [(b"cache-control", b"max-age=0, no-cache, no-store"), (b"pragma", b"no-cache")]
    value = f"public, max-age={age}, s-maxage={age}" if is_public else f"private, max-age={age}"
    return [(b"cache-control", f"{value}, must-revalidate".encode() if is_current else value.encode())]


async def _move(request: Request, path: str) -> None:
    """Send to the path without what means nothing in it."""
    query = request.scope["query_string"].decode("latin-1")
    target = quote(path, safe="/:@!$&'()*+,;=~-._") + (f"?{query}" if query else "")
    await respond(request, 301, b"", ((b"location", target.encode("latin-1")),))


async def _answer_key(request: Request, key: PublicKey) -> None:
    await respond(request, 200, msgspec.json.encode(key.to_json()), (_JSON, _NO_STORE))


async def _answer_changes(request: Request, changes: list[Change]) -> None:
    records = [
        {
            "ID": str(one.id),
            "CreatedAt": _rfc3339(one.created_at),
            "GUN": one.gun,
            "Version": one.version,
            "SHA256": one.sha256,
            "Category": one.category,
        }
        for one in changes
    ]
    body = msgspec.json.encode({"count": len(records), "records": records})
    await respond(request, 200, body, (_JSON, _NO_STORE))


def _rfc3339(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _window(request: Request) -> tuple[int, int]:
    """
    The parameters `change_id` and `records` (section 2.6): behind which change, and how many.

    0 stands for the usual number; more than a thousand are never given at once. Raises Refused.
    """
    try:
        query = parse_qs(request.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise Refused(400, "INVALID_PARAMETERS", "the query cannot be read") from None
    records = _integer(query, "records", None)
    if records not in _INT32:
        raise Refused(400, "INVALID_PARAMETERS", "records is not a number of 32 bits")
    return _integer(query, "change_id", 0), max(-_MOST_CHANGES, min(records or _USUAL_CHANGES, _MOST_CHANGES))


def _integer(query: dict[str, Any], name: str, default: int | None) -> int:
    text = query.get(name, [""])[0]
    if not text and default is not None:
        return default
    if _INTEGER.fullmatch(text) is None:
        raise Refused(400, "INVALID_PARAMETERS", f"{name} is not an integer")
    return int(text)
