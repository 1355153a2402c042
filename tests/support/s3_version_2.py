"""
A store that knows signatures of version 2 alone, with as much of S3 as it takes to see that they are right.

Amazon S3 API reference, "Signing and authenticating REST requests" (version 2): the HMAC-SHA1 of method, MD5,
type, date (or expiry), ``x-amz-`` headers and path, in the header ``Authorization: AWS KEY:SIGNATURE`` or in the
query.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

KEY, SECRET = "AKIA", "secret"


def _is_signed(request: web.Request) -> bool:
    if "Signature" in request.query:
        key, signature, date = (request.query[one] for one in ("AWSAccessKeyId", "Signature", "Expires"))
        if int(date) < time.time():
            return False
    else:
        key, _, signature = request.headers.get("Authorization", "").removeprefix("AWS ").partition(":")
        date = "" if "x-amz-date" in request.headers else request.headers.get("Date", "")
    amazon = sorted(
        (name.lower(), value) for name, value in request.headers.items() if name[:6].lower() == "x-amz-"
    )
    text = "\n".join(
        [
            request.method,
            request.headers.get("Content-MD5", ""),
            request.headers.get("Content-Type", ""),
            date,
            *(f"{name}:{value}" for name, value in amazon),
            re.sub(r"^/[^/]+\Z", r"\g<0>/", request.raw_path.partition("?")[0]),  # of a bucket, with the slash
        ]
    )
    right = base64.b64encode(hmac.digest(SECRET.encode(), text.encode(), "sha1")).decode()
    return key == KEY and hmac.compare_digest(right, signature)


@asynccontextmanager
async def store_of_version_2() -> AsyncIterator[str]:
    """The address of such a store; its objects are those of one test."""
    objects: dict[str, bytes] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        if not _is_signed(request):
            code = "<Error><Code>SignatureDoesNotMatch</Code></Error>"
            return web.Response(status=403, text=code, content_type="application/xml")
        _, _, key = request.path.lstrip("/").partition("/")
        if request.method == "PUT":
            objects[key] = await request.read()
            return web.Response(headers={"ETag": '"etag"'})
        if request.method == "DELETE":
            objects.pop(key, None)
            return web.Response(status=204)
        if not key:
            found = "".join(
                f"<Contents><Key>{one}</Key><Size>{len(content)}</Size>"
                "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
                for one, content in objects.items()
            )
            listing = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
            return web.Response(text=listing, content_type="application/xml")
        content, asked = objects[key], request.http_range
        if asked.start is None:
            return web.Response(body=content)
        part = content[asked]
        place = f"bytes {asked.start}-{asked.start + len(part) - 1}/{len(content)}"
        return web.Response(status=206, body=part, headers={"Content-Range": place})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
