"""The API's application: its routers, what holds for every operation, and how it refuses."""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from dtr import __version__
from dtr.http.api import (
    access,
    accounts,
    docs,
    enforcement,
    enzi,
    events,
    files,
    holdings,
    jobs,
    listings,
    manifests,
    meta,
    mirroring,
    promotion,
    pruning,
    reasons,
    remotes,
    repositories,
    robots,
    search,
    sessions,
    settings,
    signatures,
    storages,
    system,
    tags,
    tokens,
    trust,
    upstreams,
    webhooks,
)
from dtr.http.api.errors import EXCEPTIONS, ApiError, Moved, refusal
from dtr.http.api.openapi import describe
from dtr.http.api.paths import Paths
from dtr.http.bodies import BodyTooLarge, bounded

if TYPE_CHECKING:
    from dtr.http.api.operations import Operation
    from dtr.http.api.rooms import Rooms
    from dtr.http.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("dtr.api")

_LARGEST_BODY = 1024 * 1024
ROUTERS = (
    *enzi.ROUTERS,
    access.router,
    reasons.grants_router,
    reasons.namespace_router,
    reasons.router,
    listings.accounts_router,
    accounts.router,
    holdings.router,
    events.router,
    jobs.router,
    promotion.router,
    pruning.router,
    files.router,
    manifests.router,
    meta.router,
    mirroring.router,
    remotes.registry_router,
    remotes.router,
    upstreams.namespace_router,
    upstreams.router,
    enforcement.registry_router,
    enforcement.namespace_router,
    enforcement.router,
    repositories.accounts_router,
    repositories.router,
    repositories.one_router,
    signatures.repository_router,
    signatures.router,
    tags.router,
    tags.counts_router,
    listings.router,
    search.router,
    search.docker_router,
    sessions.router,
    settings.router,
    storages.settings_router,
    storages.router,
    system.router,
    robots.router,
    tokens.router,
    trust.router,
    webhooks.accounts_router,
    webhooks.repository_router,
    webhooks.router,
)


def _paths() -> Paths:
    return Paths(route for router in ROUTERS for route in router.routes)


@cache
def document() -> dict[str, Any]:
    """The API described in OpenAPI. Takes a moment, the first time."""
    return describe([one.build() for one in _paths().operations])


def build(rooms: Rooms) -> ASGIApp:
    """The application over `rooms`."""
    app = FastAPI(title="dtr", version=__version__, openapi_url=None, redirect_slashes=False)
    app.state.rooms = rooms
    paths = _paths()
    app.router.routes[:] = [_Found(), *docs.routes(document)]
    for kind in EXCEPTIONS:
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_form)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_middleware(_Guard, paths=paths)
    return app


class _Found(BaseRoute):
    """Whatever operation `_Guard` found: the framework looks through no list of its own."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it found one."""
        return (Match.FULL if "dtr.operation" in scope else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it answer."""
        operation: Operation = scope["dtr.operation"]
        await operation.route.app(scope, receive, send)


class _Guard:
    """What holds for every operation: how it is found, what goes in and out, an answer to every failure."""

    def __init__(self, app: ASGIApp, paths: Paths) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the framework's own start and end
            await self._app(scope, receive, send)
            return
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.route = "api"
        if scope["path"].startswith("/enzi/"):  # scripts write its addresses with and without the last slash
            scope = {**scope, "path": scope["path"].rstrip("/")}
        head = scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET", "dtr.is_head": True}
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = message.get("headers", ())
                if not any(name == b"cache-control" for name, _ in headers):
                    message = {**message, "headers": [*headers, (b"cache-control", b"no-store")]}
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            found = self._find(scope)
            if isinstance(found, ApiError):
                await _answer(found)(scope, receive, watched)
            else:
                await self._app({**scope, **found}, bounded(receive, _LARGEST_BODY), watched)
        except Exception:
            if started:
                raise
            _log.exception("operation failed", extra={"request_id": facts.id if facts else ""})
            await _answer(ApiError("INTERNAL_ERROR"))(scope, receive, watched)

    def _find(self, scope: Scope) -> Scope | ApiError:
        """What says which operation is meant, and on what; or why the request is not given to one."""
        found = self._paths.find(scope["path"])
        if found is None:  # the documents, or nothing
            return {}
        path, values = found
        if "\0" in scope["path"]:  # nothing is called so, and no database takes it for text
            return ApiError("NO_SUCH_OPERATION", scope["path"])
        operation = path.operations.get(scope["method"])
        if operation is None:
            return ApiError("NOT_ALLOWED", None, {"Allow": path.allowed})
        if b"%00" in scope["query_string"]:  # what no database takes for text
            return ApiError("INVALID_PARAMETERS", "text has no NUL")
        headers = _joined(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if length != b"0" or b"transfer-encoding" in headers:
            given = headers.get(b"content-type", b"").decode("latin-1")
            if not operation.takes(given):
                return ApiError("UNSUPPORTED_MEDIA_TYPE", given)
            if int(length) > _LARGEST_BODY:
                return ApiError("TOO_LARGE")
        accepted = headers.get(b"accept", b"*/*").decode("latin-1")
        if not operation.gives(accepted):
            return ApiError("NOT_ACCEPTABLE", accepted)
        parameters = dict(zip(operation.parameters, values, strict=True))
        return {"dtr.operation": operation, "path_params": parameters}


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers; what is said several times is one list (RFC 9110, section 5.3)."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b"," + value if name in joined else value
    return joined


class _Refusal(JSONResponse):
    """What a client sent may come back in it, also what is no text: half a pair of surrogates."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def _answer(error: ApiError, *, to_script: bool = False) -> JSONResponse:
    headers = dict(error.headers)
    if error.status == 401:
        # A browser asks people for a password when a page's script is answered with a challenge that it knows.
        headers["WWW-Authenticate"] = f'{"SessionToken" if to_script else "Basic"} realm="dtr"'
    return _Refusal(error.document, error.status, headers)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    refused = refusal(error)
    if isinstance(error, Moved) and request.method == "GET":
        query = f"?{request.url.query}" if request.url.query else ""
        refused = error.to(f"{quote(request.scope['path'])}{query}")
    if refused is None:  # registered only for what `refusal` knows
        raise error
    facts = request.scope.get("dtr.facts")
    if facts is not None and refused.status >= 500:
        facts.reason = str(error)
    return _answer(refused, to_script=request.headers.get("sec-fetch-mode", "navigate") != "navigate")


async def _refuse_form(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    problems: list[dict[str, Any]] = [
        {"field": ".".join(str(part) for part in one["loc"][1:]), "message": one["msg"]} for one in found
    ]
    in_body = any(one["loc"][0] == "body" for one in found)
    return _answer(ApiError("INVALID_JSON" if in_body else "INVALID_PARAMETERS", problems))


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """No such path, or a body that cannot be read."""
    if isinstance(error, HTTPException) and error.status_code == 404:
        return _answer(ApiError("NO_SUCH_OPERATION", request.url.path))
    if isinstance(error, HTTPException) and error.status_code == 405:  # of a document
        return _answer(ApiError("NOT_ALLOWED", None, error.headers))
    if isinstance(error.__cause__, BodyTooLarge):
        return _answer(ApiError("TOO_LARGE"))
    return _answer(ApiError("INVALID_JSON", getattr(error, "detail", None)))
