"""What tests of storage drivers share."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server

from dtr.storage import S3Settings, new_location
from dtr.storage.driver import Driver

MIB = 1024 * 1024
PART = 5 * MIB
"""The size of a part of a short object; the suite opens every driver that cuts uploads into parts with this."""


class StorageServer(Protocol):
    """A server that a driver talks to, as its own process; what is stored outlives it."""

    @property
    def endpoint(self) -> str:
        """Its address, a URL; it keeps it when it is started again."""

    def start(self) -> None:
        """Returns when it answers."""

    def kill(self) -> None:
        """SIGKILL."""

    def pause(self) -> None:
        """SIGSTOP; it has stopped when this returns."""

    def resume(self) -> None:
        """SIGCONT."""


@dataclass
class Store:
    """
    A kind of storage as the contract suite meets it, with a place that nothing else uses.

    `open_driver` opens it as another host would. With a server it takes changes of the usual settings: `endpoint`
    (a URL), `time_limit` (seconds), `verify` (whether the server's certificate is checked), `ca_bundle` (the path
    of authorities to trust instead of the usual ones), `spool_directory`, and the driver's own.
    """

    open_driver: Callable[..., Driver]
    server: StorageServer | None = None
    wrong_keys: tuple[Mapping[str, Any], ...] = ()
    """Changes, each of them with credentials that are refused."""
    missing_place: Mapping[str, Any] = field(default_factory=dict)
    """Changes with a bucket or container that does not exist."""
    missing_name: str = "no-such-bucket"
    """Its name, which the errors tell."""
    signed_methods: frozenset[str] = frozenset({"GET"})
    """What a signed URL allows, with whatever method it came; the others are refused."""
    opened: list[Driver] = field(default_factory=list)

    def open(self, **changes: Any) -> Driver:
        driver = self.open_driver(**changes)
        self.opened.append(driver)
        return driver

    async def close(self) -> None:
        for driver in self.opened:
            await driver.close()


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


async def left_of_uploads(driver: Driver) -> set[str]:
    """The locations of unfinished uploads."""
    async with aclosing(driver.list_uploads()) as found:
        return {stored.location async for stored in found}


async def upload(driver: Driver, *bodies: bytes) -> str:
    """An object written body by body; its location."""
    state = await driver.create_upload(new_location())
    for content in bodies:
        state = await driver.write(state, body(content))
    await driver.complete(state)
    return state.location


def curl(*arguments: str) -> tuple[int, bytes]:
    """The status and the body that the real client gets."""
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "-w", "\n%{http_code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, check=True, timeout=90)
    content, _, status = done.stdout.rpartition(b"\n")
    return int(status), content
