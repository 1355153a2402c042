"""What tests of storage drivers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server

from dtr.storage import S3Settings, new_location
from dtr.storage.driver import Driver

MIB = 1024 * 1024


def s3_settings(server: S3Server, **changes: Any) -> S3Settings:
    """Settings for a test server, with the smallest parts that there are."""
    values: dict[str, Any] = {
        "bucket": "blobs",
        "endpoint": server.endpoint,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "path_style": True,
        "time_limit": 20,
    }
    return S3Settings(**{**values, **changes})


async def body(*pieces: bytes, failure: Exception | None = None) -> AsyncIterator[bytes]:
    """A body of these pieces, which then fails or ends."""
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece
    if failure is not None:
        raise failure


async def read(driver: Driver, location: str, *window: int) -> bytes:
    async with aclosing(driver.open(location, *window)) as pieces:
        return b"".join([piece async for piece in pieces])


async def locations(driver: Driver, prefix: str = "") -> list[str]:
    async with aclosing(driver.list(prefix)) as found:
        return [stored.location async for stored in found]


async def upload(driver: Driver, *bodies: bytes) -> str:
    """An object written body by body; its location."""
    state = await driver.create_upload(new_location())
    for content in bodies:
        state = await driver.write(state, body(content))
    await driver.complete(state)
    return state.location
