"""The API's application: its routers, what holds for every operation, and how it refuses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from dtr import __version__
from dtr.http.api import accounts, meta
from dtr.http.api.errors import EXCEPTIONS, ApiError, refusal
from dtr.http.bodies import BodyTooLarge

if TYPE_CHECKING:
    from dtr.http.api.rooms import Rooms
    from dtr.http.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("dtr.api")

_LARGEST_BODY = 1024 * 1024
_ROUTERS = (accounts.router, meta.router)


def build(rooms: Rooms) -> ASGIApp:
    """The application over `rooms`."""
    app = FastAPI(
        title="dtr",
        version=__version__,
        openapi_url="/api/v0/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.rooms = rooms
    for router in _ROUTERS:
        app.include_router(router)
    for kind in EXCEPTIONS:
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_form)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_middleware(_Guard)
    return app


class _Guard:
    """What holds for every operation: JSON in and out, bodies of a bounded size, an answer to every failure."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the framework's own start and end
            await self._app(scope, receive, send)
            return
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.route = "api"
        started = False
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _LARGEST_BODY:
                raise BodyTooLarge(_LARGEST_BODY)
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        headers = dict(scope["headers"])
        try:
            wrong = _media_type_problem(headers)
            if wrong is not None:
                await _answer(wrong)(scope, receive, send)
                return
            await self._app(scope, bounded, watched)
        except Exception as error:
            if started:
                raise
            if not isinstance(error, BodyTooLarge):
                _log.exception("operation failed", extra={"request_id": facts.id if facts else ""})
            code = "TOO_LARGE" if isinstance(error, BodyTooLarge) else "INTERNAL_ERROR"
            await _answer(ApiError(code))(scope, receive, send)


def _media_type_problem(headers: dict[bytes, bytes]) -> ApiError | None:
    has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
    given = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if has_body and not (given == b"application/json" or given.endswith(b"+json")):
        return ApiError("UNSUPPORTED_MEDIA_TYPE", given.decode("latin-1"))
    accepted = headers.get(b"accept", b"*/*").lower()
    if not any(kind in accepted for kind in (b"*/*", b"application/json", b"application/*", b"text/")):
        return ApiError("NOT_ACCEPTABLE", accepted.decode("latin-1"))
    return None


def _answer(error: ApiError) -> JSONResponse:
    headers = {"Cache-Control": "no-store", **error.headers}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="dtr"'
    return JSONResponse(error.document, error.status, headers)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    refused = refusal(error)
    if refused is None:  # registered only for what `refusal` knows
        raise error
    facts = request.scope.get("dtr.facts")
    if facts is not None and refused.status >= 500:
        facts.reason = str(error)
    return _answer(refused)


async def _refuse_form(_request: Request, error: Exception) -> JSONResponse:
    problems: list[dict[str, Any]] = [
        {"field": ".".join(str(part) for part in one["loc"][1:]), "message": one["msg"]}
        for one in (error.errors() if isinstance(error, RequestValidationError) else [])
    ]
    in_body = isinstance(error, RequestValidationError) and any(one["loc"][0] == "body" for one in error.errors())
    return _answer(ApiError("INVALID_JSON" if in_body else "INVALID_PARAMETERS", problems))


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    """No such path, or not with this method: then the answer lists those of all routes that match."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        methods: set[str] = set()
        for route in request.app.routes:
            if route.matches(request.scope)[0] is not Match.NONE:
                methods |= set(getattr(route, "methods", None) or ())
        return _answer(ApiError("NOT_ALLOWED", None, {"Allow": ", ".join(sorted(methods))}))
    if status == 404:
        return _answer(ApiError("NO_SUCH_OPERATION", request.url.path))
    return _answer(ApiError("INVALID_JSON", getattr(error, "detail", None)))
