"""
The API's description, for programs and for people: ``/api/v0/openapi.json`` and ``/api/v0/docs``.

Everybody may read it. The page is made here from the document, and needs nothing from elsewhere: its style and its
script are files beside this one, which the policy of the page allows, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from dtr.http.api.docs.page import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_FILES = {"docs.css": "text/css", "docs.js": "text/javascript"}


def routes(describe: Callable[[], dict[str, Any]]) -> list[Route]:
    """The routes of what `describe` makes: once, in a thread, as it takes a moment."""
    document = lru_cache(1)(describe)
    text = lru_cache(1)(lambda: json.dumps(document(), separators=(",", ":")))
    page = lru_cache(8)(lambda address: render(document(), address))

    async def get_document(_request: Request) -> Response:
        return Response(await asyncio.to_thread(text), media_type="application/json")

    async def get_page(request: Request) -> Response:
        content = await asyncio.to_thread(page, f"{request.url.scheme}://{request.url.netloc}")
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        return Response(content, media_type="text/html", headers=headers)

    async def get_file(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        content = resources.files(__name__).joinpath(name).read_bytes()
        return Response(content, media_type=_FILES[name], headers={"Cache-Control": "no-cache"})

    return [
        Route("/api/v0/openapi.json", get_document),
        Route("/api/v0/docs", get_page),
        *(Route(f"/api/v0/docs/{name}", get_file) for name in _FILES),
    ]
