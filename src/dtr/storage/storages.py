"""
Several storages as one.

Each has a name. What is stored is known by a full location, ``NAME:PATH``: the name of the storage, and the
location that its driver is given. Whoever has a full location need not know how many storages there are, nor of
which kind.

Storages come and go while the program runs. One that was replaced or taken away goes on with what it has begun,
and is closed afterwards.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dtr.storage.driver import LocalFiles, Pieces, RemoteObjects
from dtr.storage.driver import new_location as new_path
from dtr.storage.errors import Interrupted, ObjectMissing, StorageError, StorageUnavailable, UploadBusy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from dtr.storage.driver import Driver, Fetched, Stored, UploadState

T = TypeVar("T")


class Redirect(Struct, frozen=True):
    """Reading clients are sent to signed addresses of the storage that are good for so many `seconds`."""

    seconds: int
    excepted: tuple[IPv4Network | IPv6Network, ...] = ()
    """But not those in these networks, who cannot reach it."""


class Opened:
    """One of them: its driver, whom it redirects, and how many operations of it run."""

    __slots__ = ("driver", "files", "is_retired", "name", "redirect", "remote", "running")

    def __init__(self, name: str, driver: Driver, redirect: Redirect | None = None) -> None:
        self.name = name
        self.driver = driver
        self.redirect = redirect
        self.files = driver if isinstance(driver, LocalFiles) else None
        self.remote = driver if isinstance(driver, RemoteObjects) else None
        self.running = 0
        self.is_retired = False

    @property
    def has_files(self) -> bool:
        """Whether it has real files."""
        return self.files is not None


class Storages:
    """
    A driver over full locations, which hands each call to the storage that the location names.

    It fulfils `Driver`, and `LocalFiles` for locations of which `has_files` is true. States and listings have full
    locations; errors name the storage. Every operation with a location in a storage that nobody knows asks
    `refresh` once, for another process may just have added it, and then raises StorageUnavailable: what is there
    is not missing.

    `observe` is called after each operation, also a failed one, with the storage's name, the operation's, and the
    seconds it took: ``create``, ``write`` (as long as the body takes), ``complete``, ``abort``, ``put_small``,
    ``open`` (until the store has begun to answer: the rest goes at the pace of who reads), ``stat``, ``delete``,
    ``list`` (until the first object is known, for the same reason), ``sign``. What threads move through
    descriptors of `LocalFiles` is not seen here.
    """

    def __init__(self, drivers: Mapping[str, Driver], default: str, *, redirect: Redirect | None = None) -> None:
        """Begin with these; `default` names the one for what is assigned to none, `redirect` is its."""
        self.observe: Callable[[str, str, float], None] | None = None
        self.refresh: Callable[[], Awaitable[object]] | None = None
        """Learns of storages that were added elsewhere, and calls `put`."""
        self.default = default
        self.assigned: Mapping[str, str] = {}
        """The storages of namespaces, by the namespaces' ids."""
        self._known = {name: Opened(name, driver) for name, driver in drivers.items()}
        if redirect is not None:
            self._known[default].redirect = redirect

    # --- which there are ---

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all, in the order of full locations."""
        return tuple(sorted(self._known, key=lambda name: f"{name}:"))

    def driver(self, name: str) -> Driver:
        """The driver of one, which takes locations without a name. Raises StorageUnavailable."""
        return self._storage(name).driver

    async def put(self, name: str, driver: Driver, redirect: Redirect | None = None) -> None:
        """Add one, or give it another driver; the one before is closed when nothing of it runs any more."""
        before = self._known.get(name)
        if before is not None and before.driver is driver:
            before.redirect = redirect
            return
        self._known[name] = Opened(name, driver, redirect)
        if before is not None:
            await self._retire(before)

    async def remove(self, name: str) -> None:
        """Take one away."""
        await self._retire(self._known.pop(name))

    def new_location(self, namespace_id: str | None = None) -> str:
        """A full location that was never used, in the storage of that namespace, or else in the default one."""
        return f"{self.assigned.get(namespace_id or '', self.default)}:{new_path()}"

    async def prepare(self, location: str) -> Opened:
        """The storage of this location, which is known then. Raises StorageUnavailable."""
        name = location.partition(":")[0]
        return self._known.get(name) or await self._find(name)

    # --- LocalFiles ---

    def has_files(self, location: str) -> bool:
        """Whether the storage of this location has real files. Raises StorageUnavailable when it is not known."""
        return self._storage(location.partition(":")[0]).files is not None

    def open_reader(self, location: str) -> int:
        """See `LocalFiles`."""
        name, _, path = location.partition(":")
        files = self._files(name)
        try:
            return files.open_reader(path)
        except StorageError as error:
            raise _named(error, name) from error.__cause__

    def open_writer(self, state: UploadState) -> int:
        """See `LocalFiles`."""
        name, inner = _split(state)
        files = self._files(name)
        try:
            return files.open_writer(inner)
        except StorageError as error:
            raise _named(error, name) from error.__cause__

    def position(self, descriptor: int, state: UploadState) -> None:
        """See `LocalFiles`."""
        name, inner = _split(state)
        files = self._files(name)
        try:
            files.position(descriptor, inner)
        except StorageError as error:
            raise _named(error, name) from error.__cause__

    def is_current(self, descriptor: int, state: UploadState) -> bool:
        """See `LocalFiles`."""
        name, inner = _split(state)
        files = self._files(name)
        try:
            return files.is_current(descriptor, inner)
        except StorageError as error:
            raise _named(error, name) from error.__cause__

    def is_local(self, descriptor: int, state: UploadState) -> bool:
        """See `LocalFiles`."""
        name, inner = _split(state)
        files = self._files(name)
        try:
            return files.is_local(descriptor, inner)
        except StorageError as error:
            raise _named(error, name) from error.__cause__

    def begin_sync(self, descriptor: int, state: UploadState, size: int) -> None:
        """See `LocalFiles`."""
        name, inner = _split(state)
        self._files(name).begin_sync(descriptor, inner, size)

    async def complete_current(self, state: UploadState) -> tuple[int, bool]:
        """See `LocalFiles`."""
        name, inner = _split(state)
        storage = await self._find(name)
        return await self._timed(storage, "complete", self._files(name).complete_current(inner))

    # --- Driver ---

    async def create_upload(self, location: str) -> UploadState:
        """See `Driver`."""
        name, _, path = location.partition(":")
        storage = await self._find(name)
        return _joined(name, await self._timed(storage, "create", storage.driver.create_upload(path)))

    async def write(self, state: UploadState, body: AsyncIterator[bytes]) -> UploadState:
        """See `Driver`."""
        name, inner = _split(state)
        storage = await self._find(name)
        return _joined(name, await self._timed(storage, "write", storage.driver.write(inner, body)))

    async def complete(self, state: UploadState) -> None:
        """See `Driver`."""
        name, inner = _split(state)
        storage = await self._find(name)
        await self._timed(storage, "complete", storage.driver.complete(inner))

    async def abort(self, state: UploadState) -> None:
        """See `Driver`."""
        name, inner = _split(state)
        storage = await self._find(name)
        await self._timed(storage, "abort", storage.driver.abort(inner))

    async def put_small(self, location: str, data: bytes) -> None:
        """See `Driver`."""
        name, _, path = location.partition(":")
        storage = await self._find(name)
        await self._timed(storage, "put_small", storage.driver.put_small(path, data))

    def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Driver`."""
        name, _, path = location.partition(":")
        return self._timed_begin(name, "open", lambda driver: driver.open(path, offset, length))

    @asynccontextmanager
    async def fetch(
        self, location: str, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[Fetched, None]:
        """See `RemoteObjects`; observed as ``open``."""
        name, _, path = location.partition(":")
        storage = await self._find(name)
        if storage.remote is None:
            async with aclosing(self.open(location, offset, length)) as pieces:
                yield Pieces(await anext(pieces, b""), pieces)
            return
        started = perf_counter()
        storage.running += 1
        try:
            async with AsyncExitStack() as stack:
                try:
                    fetched = await stack.enter_async_context(storage.remote.fetch(path, offset, length))
                finally:
                    if self.observe is not None:
                        self.observe(name, "open", perf_counter() - started)
                yield fetched
        except StorageError as error:
            raise _named(error, name) from error.__cause__
        finally:
            storage.running -= 1
            if storage.is_retired:
                await self._ended(storage)

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        name, _, path = location.partition(":")
        storage = await self._find(name)
        return await self._timed(storage, "stat", storage.driver.stat(path))

    async def is_missing(self, location: str) -> bool:
        """
        Whether nothing is there, by the storages as they are now.

        Another process may have given the name to another storage a moment ago: who is about to write down that
        an object is lost asks here before.
        """
        if self.refresh is not None:
            await self.refresh()
        try:
            await self.stat(location)
        except ObjectMissing:
            return True
        return False

    async def delete(self, location: str) -> None:
        """See `Driver`."""
        name, _, path = location.partition(":")
        storage = await self._find(name)
        await self._timed(storage, "delete", storage.driver.delete(path))

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """
        See `Driver`; the storages one after the other: a name ends with what no name has in it.

        ``NAME:`` lists one storage alone. One that fails ends the listing, for what it has is not known.
        """
        for name in self.names:
            begin = f"{name}:"
            if begin.startswith(prefix):
                within = ""
            elif prefix.startswith(begin):
                within = prefix.removeprefix(begin)
            else:
                continue
            async with aclosing(self._timed_begin(name, "list", partial(_list, prefix=within))) as listed:
                async for stored in listed:
                    yield replace(stored, location=begin + stored.location)

    async def list_uploads(self, name: str | None = None) -> AsyncGenerator[Stored, None]:
        """See `Driver`; of all storages, or of the one that is named."""
        for one in self.names if name is None else (name,):
            async with aclosing(self._timed_begin(one, "list", _list_uploads)) as listed:
                async for stored in listed:
                    yield replace(stored, location=f"{one}:{stored.location}")

    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`."""
        name, _, path = location.partition(":")
        storage = await self._find(name)
        return await self._timed(storage, "sign", storage.driver.sign(path, ttl))

    async def check(self, name: str | None = None) -> None:
        """See `Driver`; of all storages, or of the one that is named. Not observed."""
        for one in self.names if name is None else (name,):
            try:
                await (await self._find(one)).driver.check()
            except StorageError as error:
                raise _named(error, one) from error.__cause__

    async def close(self) -> None:
        """See `Driver`; of all storages."""
        for storage in self._known.values():
            await storage.driver.close()

    # --- inside ---

    def _storage(self, name: str) -> Opened:
        storage = self._known.get(name)
        if storage is None:
            raise StorageUnavailable(f"there is no storage called {name!r}")
        return storage

    async def _find(self, name: str) -> Opened:
        storage = self._known.get(name)
        if storage is None:
            if self.refresh is not None:
                await self.refresh()
            storage = self._storage(name)
        return storage

    def _files(self, name: str) -> LocalFiles:
        storage = self._known.get(name)
        if storage is None or storage.files is None:
            raise StorageUnavailable(f"there is no storage with files that is called {name!r}")
        return storage.files

    async def _retire(self, storage: Opened) -> None:
        storage.is_retired = True
        await self._ended(storage)

    async def _ended(self, storage: Opened) -> None:
        if not storage.running:
            await storage.driver.close()

    async def _timed(self, storage: Opened, operation: str, doing: Awaitable[T]) -> T:
        started = perf_counter()
        storage.running += 1
        try:
            return await doing
        except StorageError as error:
            raise _named(error, storage.name) from error.__cause__
        finally:
            storage.running -= 1
            if self.observe is not None:
                self.observe(storage.name, operation, perf_counter() - started)
            if storage.is_retired:
                await self._ended(storage)

    async def _timed_begin(
        self, name: str, operation: str, begin: Callable[[Driver], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        storage = self._known.get(name) or await self._find(name)
        started = perf_counter()
        storage.running += 1
        try:
            async with aclosing(begin(storage.driver)) as items:
                try:
                    first = await anext(items)
                except StopAsyncIteration:
                    return
                finally:
                    if self.observe is not None:
                        self.observe(storage.name, operation, perf_counter() - started)
                yield first
                async for item in items:
                    yield item
        except StorageError as error:
            raise _named(error, storage.name) from error.__cause__
        finally:
            storage.running -= 1
            if storage.is_retired:
                await self._ended(storage)


def _list(driver: Driver, prefix: str) -> AsyncGenerator[Stored, None]:
    return driver.list(prefix)


def _list_uploads(driver: Driver) -> AsyncGenerator[Stored, None]:
    return driver.list_uploads()


def _split(state: UploadState) -> tuple[str, UploadState]:
    """The storage's name, and the state as its driver knows it."""
    name, _, path = state.location.partition(":")
    return name, msgspec.structs.replace(state, location=path)


def _joined(name: str, state: UploadState) -> UploadState:
    return msgspec.structs.replace(state, location=f"{name}:{state.location}")


def _named(error: StorageError, name: str) -> StorageError:
    """The same error, of a storage with a name."""
    if isinstance(error, ObjectMissing | UploadBusy):
        return type(error)(f"{name}:{error.location}")
    if isinstance(error, Interrupted):
        return Interrupted(_joined(name, error.state))
    return type(error)(f"storage {name}: {error}")
