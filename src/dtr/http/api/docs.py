"""
The API's description for programs: ``/api/v0/openapi.json``. Everybody may read it.

For people it is among the pages, at ``/docs/api``, which is made from the same document.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request

PAGE = "/docs/api"


def routes(describe: Callable[[], dict[str, Any]]) -> list[Route]:
    """The routes of what `describe` makes: once, in a thread, as it takes a moment."""
    text = lru_cache(1)(lambda: json.dumps(describe(), separators=(",", ":")))

    async def get_document(_request: Request) -> Response:
        return Response(await asyncio.to_thread(text), media_type="application/json")

    async def get_page(_request: Request) -> Response:
        return RedirectResponse(PAGE, 308)

    return [Route("/api/v0/openapi.json", get_document), Route("/api/v0/docs", get_page)]
