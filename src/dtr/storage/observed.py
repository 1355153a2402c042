"""How long storage takes, told for each operation, whatever the driver."""

from __future__ import annotations

from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from dtr.storage.driver import LocalFiles

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from dtr.storage.driver import Driver, Stored, UploadState

T = TypeVar("T")


class Observed:
    """
    A driver around another one, whose operations it times.

    It offers `LocalFiles` when the other does. These calls are the other's own, and what threads move through
    its descriptors is not seen here.

    `observe` is called after each operation, also a failed one, with its name and the seconds it took:
    ``create``, ``write`` (as long as the body takes), ``complete``, ``abort``, ``put_small``, ``open`` (until
    the first bytes are there: the rest goes at the pace of who reads), ``stat``, ``delete``, ``list`` (until
    the first object is known, for the same reason), ``sign``.
    """

    def __init__(self, driver: Driver, observe: Callable[[str, float], None] | None = None) -> None:
        """Begin to observe; None: nobody is told until `observe` is set."""
        self.observe = observe
        self._driver = driver
        if isinstance(driver, LocalFiles):
            self.open_reader = driver.open_reader
            self.open_writer = driver.open_writer
            self.position = driver.position

    async def create_upload(self, location: str) -> UploadState:
        """See `Driver`."""
        return await self._timed("create", self._driver.create_upload(location))

    async def write(self, state: UploadState, body: AsyncIterator[bytes]) -> UploadState:
        """See `Driver`."""
        return await self._timed("write", self._driver.write(state, body))

    async def complete(self, state: UploadState) -> None:
        """See `Driver`."""
        await self._timed("complete", self._driver.complete(state))

    async def abort(self, state: UploadState) -> None:
        """See `Driver`."""
        await self._timed("abort", self._driver.abort(state))

    async def put_small(self, location: str, data: bytes) -> None:
        """See `Driver`."""
        await self._timed("put_small", self._driver.put_small(location, data))

    def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Driver`."""
        return self._timed_begin("open", self._driver.open(location, offset, length))

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        return await self._timed("stat", self._driver.stat(location))

    async def delete(self, location: str) -> None:
        """See `Driver`."""
        await self._timed("delete", self._driver.delete(location))

    def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        return self._timed_begin("list", self._driver.list(prefix))

    def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        return self._timed_begin("list", self._driver.list_uploads())

    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`."""
        return await self._timed("sign", self._driver.sign(location, ttl))

    async def check(self) -> None:
        """See `Driver`; not observed."""
        await self._driver.check()

    async def close(self) -> None:
        """See `Driver`; not observed."""
        await self._driver.close()

    async def _timed(self, operation: str, doing: Awaitable[T]) -> T:
        started = perf_counter()
        try:
            return await doing
        finally:
            if self.observe is not None:
                self.observe(operation, perf_counter() - started)

    async def _timed_begin(self, operation: str, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        async with aclosing(items):
            try:
                first = await self._timed(operation, anext(items))
            except StopAsyncIteration:
                return
            yield first
            async for item in items:
                yield item
