"""
The API's description for people, with a form for each operation that calls it: ``/docs/api``.

Everybody may read it. A call is made here, in the name of who looks (their session, with or without the token that
a page of ours repeats) or of nobody, and its answer is shown; the API itself decides what becomes of it.
"""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode

from msgspec import Struct

from dtr.http.api.caller import session_cookie
from dtr.http.api.errors import ApiError
from dtr.http.ui.described import Description, kind_of, prose
from dtr.http.ui.pages import Pages

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.rooms import Rooms
    from dtr.http.types import ASGIApp, Message
    from dtr.http.ui.described import Operation
    from dtr.http.ui.visit import Visit

pages = Pages()

PLACE = "/docs/api"
_LONGEST = 64 * 1024
"""So much of an answer is shown."""
_SECONDS = 20.0
_HIDDEN = {b"set-cookie", b"content-length"}
"""Headers of an answer that concern the browser, which does not get it."""


@cache
def _describe() -> Description:
    from dtr.http.api.app import document

    return Description(document())


async def _description() -> Description:
    return await asyncio.to_thread(_describe)  # the first time it takes a moment


# --- reading --------------------------------------------------------------------------------------------------


@pages.get(PLACE)
async def show_api(visit: Visit) -> Response:
    """What holds for all operations, and the groups; or the operations with some words."""
    api, text = await _description(), visit.query.get("q", "")[:200].strip()
    return visit.page(
        "docs/api.html",
        api=api,
        text=text,
        found=api.find(text) if text else [],
        groups=[(name, told, len(api.of_group(name))) for name, told in api.groups.items()],
        prose=prose,
        origin=_origin(visit),
    )


@pages.get(f"{PLACE}/records")
async def list_records(visit: Visit) -> Response:
    """What bodies and answers are made of."""
    return visit.page("docs/records.html", api=await _description())


@pages.get(f"{PLACE}/records/{{name}}")
async def show_record(visit: Visit) -> Response:
    """A record and its fields."""
    api, name = await _description(), visit.values["name"]
    if name not in api.records:
        raise ApiError("NO_SUCH_OPERATION", name[:100])
    schema = api.records[name]
    return visit.page(
        "docs/record.html", name=name, schema=schema, fields=api.fields(schema), prose=prose, kind_of=kind_of
    )


@pages.get(f"{PLACE}/{{group}}")
async def show_group(visit: Visit) -> Response:
    """The operations of a group."""
    api, group = await _description(), visit.values["group"]
    if group not in api.groups:
        raise ApiError("NO_SUCH_OPERATION", group[:100])
    return visit.page(
        "docs/group.html", group=group, text=api.groups[group], operations=api.of_group(group), prose=prose
    )


@pages.get(f"{PLACE}/{{group}}/{{operation}}")
async def show_operation(visit: Visit) -> Response:
    """One operation, and the form that calls it."""
    api, operation = await _operation(visit)
    return _page(
        visit, api, operation, {"body": api.example(operation), "as": "you" if visit.account else "nobody"}
    )


async def _operation(visit: Visit) -> tuple[Description, Operation]:
    api = await _description()
    operation = api.operations.get(visit.values["operation"])
    if operation is None or operation.group != visit.values["group"]:
        raise ApiError("NO_SUCH_OPERATION", visit.values["operation"][:100])
    return api, operation


def _origin(visit: Visit) -> str:
    return f"{visit.request.url.scheme}://{visit.host}"


def _page(
    visit: Visit, api: Description, operation: Operation, typed: dict[str, str], called: Called | None = None
) -> Response:
    return visit.page(
        "docs/operation.html",
        operation=operation,
        places=[
            (place, [one for one in operation.parameters if one.place == place])
            for place in ("path", "query", "header", "cookie")
        ],
        fields=[] if operation.body is None else api.fields(operation.body),
        curl=api.curl(_origin(visit), operation),
        typed=typed,
        called=called,
        prose=prose,
        kind_of=kind_of,
    )


# --- trying it out --------------------------------------------------------------------------------------------


class Called(Struct, frozen=True):
    """A call and what was answered."""

    method: str
    target: str
    status: int
    milliseconds: int
    headers: list[tuple[str, str]]
    body: str
    is_cut: bool


@pages.post(f"{PLACE}/{{group}}/{{operation}}")
async def call_operation(visit: Visit) -> Response:
    """Call the operation as the form says; who would delete something is asked before."""
    api, operation = await _operation(visit)
    form = await visit.form()
    typed = {name: value for name, value in form.items() if isinstance(value, str) and name != "csrf_token"}
    path = operation.path
    for one in operation.parameters:
        if one.place == "path":
            path = path.replace(f"{{{one.name}}}", quote(typed.get(f"path.{one.name}", ""), safe="/"))
    query = [
        (one.name, value)
        for one in operation.parameters
        if one.place == "query" and (value := typed.get(f"query.{one.name}", ""))
    ]
    target = f"{path}?{urlencode(query)}" if query else path
    if operation.method == "DELETE" and typed.get("sure") != "yes":
        return visit.confirm(
            visit._("Send {request}?", request=f"DELETE {target}"),
            verb=visit._("Send the request"),
            text=visit._("This is the registry's API, and no trial of it: what it deletes is gone."),
            fields={**typed, "sure": "yes"},
            back=operation.url,
        )
    called = await _call(visit, operation, path, query, typed)
    return _page(visit, api, operation, typed, called)


async def _call(
    visit: Visit, operation: Operation, path: str, query: list[tuple[str, str]], typed: dict[str, str]
) -> Called:
    headers = [(b"host", visit.request.url.netloc.encode()), (b"accept", b"*/*")]
    if typed.get("as") != "nobody" and visit.csrf_value:
        name = session_cookie(visit.request)
        headers.append((b"cookie", f"{name}={visit.request.cookies[name]}".encode("latin-1")))
        if typed.get("as") != "no-token":
            headers.append((b"x-csrf-token", visit.csrf_value.encode()))
    sent = b""
    if operation.body is not None:
        sent = typed.get("body", "").encode()
        headers += [(b"content-type", operation.media_type.encode()), (b"content-length", b"%d" % len(sent))]
    encoded = urlencode(query)
    scope = {
        **{
            key: visit.request.scope[key] for key in ("type", "asgi", "http_version", "scheme", "client", "server")
        },
        "method": operation.method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": encoded.encode(),
        "headers": headers,
    }
    began = time.perf_counter()
    status, given, body, is_cut = await _ask(_api_of(visit.rooms), scope, sent)
    return Called(
        method=operation.method,
        target=f"{path}?{encoded}" if encoded else path,
        status=status,
        milliseconds=round((time.perf_counter() - began) * 1_000),
        headers=[
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in given if name not in _HIDDEN
        ],
        body=_shown(body),
        is_cut=is_cut,
    )


@cache
def _builder() -> list[tuple[Rooms, ASGIApp]]:
    return []


def _api_of(rooms: Rooms) -> ASGIApp:
    """The API over the rooms of the pages; built when it is first called from here."""
    from dtr.http.api.app import build

    built = _builder()
    for known, app in built:
        if known is rooms:
            return app
    app = build(rooms)
    built[:] = [(rooms, app)]
    return app


async def _ask(
    app: ASGIApp, scope: dict[str, Any], sent: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
    """Status, headers and the beginning of the body of an answer, and whether it goes on."""
    status, headers, body = 0, [], bytearray()
    is_sent = False
    enough = asyncio.Event()

    async def receive() -> Message:
        nonlocal is_sent
        if is_sent:
            await enough.wait()
            return {"type": "http.disconnect"}
        is_sent = True
        return {"type": "http.request", "body": sent, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", ()))
            return
        body.extend(message.get("body", b""))
        if len(body) > _LONGEST:
            enough.set()

    task = asyncio.ensure_future(app(scope, receive, send))
    waiting = asyncio.ensure_future(enough.wait())
    await asyncio.wait({task, waiting}, timeout=_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    is_cut = not task.done() or len(body) > _LONGEST
    if not task.done():  # a stream, or more than is shown
        task.cancel()
        await asyncio.wait({task})
    elif task.exception() is not None:
        raise ApiError("INTERNAL_ERROR")
    return status, headers, bytes(body[:_LONGEST]), is_cut


def _shown(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)[: 2 * _LONGEST]
    except ValueError:
        return text
