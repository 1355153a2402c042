"""
Objects as files below one directory: a disk, or an NFS mount shared by several hosts.

An unfinished upload is the file ``<location>.part``; `complete` makes it durable and renames it in its
directory. A reader, a listing and nginx therefore never see half an object, also after a crash, and nothing
is copied.

No file work happens on the event loop. System calls cannot be interrupted: when a time limit or a
cancellation ends the wait for one, its thread goes on, and the descriptor is closed after it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import stat
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dtr.storage.driver import PIECE_SIZE, Blocks, Stored, UploadState, check_location, probe
from dtr.storage.errors import (
    Interrupted,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UploadBusy,
    of_system,
)
from dtr.storage.mounts import is_local

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

_Errors: TypeAlias = "list[StorageError | None]"
_Entries: TypeAlias = "list[Stored | str]"
_Files: TypeAlias = "list[Stored]"
_Batch: TypeAlias = "list[_Small]"

_PARTIAL = ".part"
_LARGEST_BATCH = 256  # descriptors open at once
_SYNC_THREADS = 4  # more do not make a disk faster
_MOST_VISITED = 500
_VISIT_SECONDS = 0.05
_KEPT_DIRECTORIES = 8
_SYNC_FILE_RANGE_WRITE = 2  # <linux/fs.h>


class _Small(Struct, frozen=True):
    """An object waiting for the batching thread, and who waits for it."""

    location: str
    data: bytes
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class FileSystem:
    """
    A driver over the files below `root`, a directory that exists.

    `time_limit` is in seconds and holds for every single read, write or sync; `threads` bounds the system
    calls at once.
    """

    def __init__(self, root: str | os.PathLike[str], *, time_limit: float = 60, threads: int = 8) -> None:
        """Remember where; nothing is touched yet."""
        self._root = os.path.abspath(root)  # noqa: PTH100 - paths are joined as strings in hot code
        self._time_limit = time_limit
        self._pool = ThreadPoolExecutor(threads, "storage")
        self._sync_pool = ThreadPoolExecutor(_SYNC_THREADS, "storage-sync")
        self._waiting: queue.SimpleQueue[_Small | None] = queue.SimpleQueue()
        self._batcher: threading.Thread | None = None
        self._devices: dict[int, bool] = {}
        """Of devices, whether they are local."""
        self._durable: OrderedDict[str, int] = OrderedDict()
        """
        Directories whose names are durable, up to the root, with descriptors of them.

        While one is open, no other directory has its number: one that was removed and made again is told apart.
        """
        self._durable_lock = threading.Lock()

    async def create_upload(self, location: str) -> UploadState:
        """See `Driver`; the file is made by the first write."""
        check_location(location)
        return UploadState(location)

    async def write(self, state: UploadState, body: AsyncIterator[bytes]) -> UploadState:
        """See `Driver`. What was written is not durable before `complete`."""
        file = await self._open(self._open_to_append, state)
        offset = state.offset
        blocks = Blocks(body, PIECE_SIZE)
        try:
            async with aclosing(aiter(blocks)) as pieces:
                async for block in pieces:
                    piece = block.read()
                    await file.call(self._write_all, file.descriptor, piece, state.location)
                    offset += len(piece)
        except StorageFull:
            with suppress(OSError):
                await file.call(os.ftruncate, file.descriptor, state.offset)  # others need the room
            raise
        finally:
            await file.close()
        reached = msgspec.structs.replace(state, offset=offset)
        if blocks.failure is not None:
            raise Interrupted(reached) from blocks.failure
        return reached

    async def complete(self, state: UploadState) -> None:
        """See `Driver`."""
        await self._call(self._complete, state)

    async def complete_current(self, state: UploadState) -> tuple[int, bool]:
        """See `LocalFiles`."""
        completing = self._pool.submit(self._complete_current, state)
        try:
            return await self._result(completing)
        except BaseException:
            completing.add_done_callback(_close_completed)
            raise

    async def abort(self, state: UploadState) -> None:
        """See `Driver`."""
        await self._call(self._remove, state.location, (_PARTIAL, ""))

    async def put_small(self, location: str, data: bytes) -> None:
        """See `Driver`; what arrives at the same time shares the cost of being made durable."""
        check_location(location)
        if self._batcher is None:
            self._batcher = threading.Thread(target=self._store_batches, name="storage-batch", daemon=True)
            self._batcher.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.put(_Small(location, data, loop, done))
        try:
            async with asyncio.timeout(self._time_limit):
                await done
        except TimeoutError:
            raise self._too_late() from None

    async def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Driver`; an object that is deleted meanwhile is still read to its end."""
        file = await self._open(self.open_reader, location)
        left = length
        try:
            while left is None or left > 0:
                wanted = PIECE_SIZE if left is None else min(left, PIECE_SIZE)
                piece = await file.call(self._read_at, file.descriptor, wanted, offset, location)
                if not piece:
                    return
                yield piece
                offset += len(piece)
                left = None if left is None else left - len(piece)
        finally:
            await file.close()

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        return await self._call(self._stat, location)

    async def delete(self, location: str) -> None:
        """See `Driver`; directories left empty go, too."""
        await self._call(self._remove, location, ("",))

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        async with aclosing(self._walk(prefix, unfinished=False)) as entries:
            async for entry in entries:
                yield entry

    async def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        async with aclosing(self._walk("", unfinished=True)) as entries:
            async for entry in entries:
                yield replace(entry, location=entry.location.removesuffix(_PARTIAL))

    async def sign(self, location: str, ttl: int) -> str | None:  # noqa: ARG002 - the interface's
        """Nothing: files have no URL of their own."""
        return None

    async def check(self) -> None:
        """See `Driver`."""
        await probe(self)

    async def close(self) -> None:
        """See `Driver`. Small objects already waiting are stored first."""
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            self._waiting.put(None)
            await asyncio.to_thread(batcher.join, self._time_limit)
        self._pool.shutdown(wait=False)
        self._sync_pool.shutdown(wait=False)
        with self._durable_lock:
            while self._durable:
                os.close(self._durable.popitem()[1])

    def open_reader(self, location: str) -> int:
        """See `LocalFiles`."""
        with self._translated(location):
            return os.open(self._path(location), os.O_RDONLY | os.O_CLOEXEC)

    def open_writer(self, state: UploadState) -> int:
        """See `LocalFiles`."""
        path = self._path(state.location)
        with self._translated(state.location):
            try:
                descriptor = self._open_upload(path + _PARTIAL, state)
            except FileNotFoundError:
                # Completed, by somebody who died before the caller's database knew: it is the same file.
                descriptor = self._open_upload(path, state)
            descriptor = self._locked(descriptor, state)
            if not state.offset and os.path.exists(path):  # noqa: PTH110
                # Completed at this moment: what was opened is a new file, which must not take its place.
                os.close(descriptor)
                os.unlink(path + _PARTIAL)  # noqa: PTH108
                raise UploadBusy(state.location)
            return descriptor

    def is_current(self, descriptor: int, state: UploadState) -> bool:
        """
        See `LocalFiles`.

        What was acknowledged is in the file, so no more was than it has bytes; and whoever ended the upload took
        away its name. Of what other hosts do, the cache of a network file system may not know yet.
        """
        path = self._path(state.location) + _PARTIAL
        with self._translated(state.location):
            status = os.fstat(descriptor)
            if status.st_size != state.offset or not self._is_local(status.st_dev):
                return False
            try:
                named = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:
                return False
            if not os.path.samestat(status, named):
                return False
            os.lseek(descriptor, state.offset, os.SEEK_SET)
            return True

    def position(self, descriptor: int, state: UploadState) -> None:
        """See `LocalFiles`."""
        with self._translated(state.location):
            status = os.fstat(descriptor)
            # Shorter: a crash of the machine took bytes that were never synced. No name: aborted meanwhile.
            if status.st_size < state.offset or status.st_nlink == 0:
                raise ObjectMissing(state.location)
            if status.st_size > state.offset:
                os.ftruncate(descriptor, state.offset)
            os.lseek(descriptor, state.offset, os.SEEK_SET)

    def is_local(self, descriptor: int, state: UploadState) -> bool:
        """See `LocalFiles`."""
        with self._translated(state.location):
            return self._is_local(os.fstat(descriptor).st_dev)

    def begin_sync(self, descriptor: int, state: UploadState, size: int) -> None:
        """See `LocalFiles`. What goes wrong, the sync at the end tells."""
        begin = _sync_file_range()
        if begin is not None:
            begin(descriptor, state.offset, size, _SYNC_FILE_RANGE_WRITE)

    def _is_local(self, device: int) -> bool:
        known = self._devices.get(device)
        if known is None:
            known = self._devices[device] = is_local(device)
        return known

    @staticmethod
    def _locked(descriptor: int, state: UploadState) -> int:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UploadBusy(state.location) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _open_to_append(self, state: UploadState) -> int:
        with self._translated(state.location):
            # Nobody looks again before the cut: never an object.
            descriptor = self._locked(self._open_upload(self._path(state.location) + _PARTIAL, state), state)
        try:
            self.position(descriptor, state)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _complete_current(self, state: UploadState) -> tuple[int, bool]:
        descriptor = self.open_writer(state)
        try:
            is_current = self.is_current(descriptor, state)
            if is_current:
                path = self._path(state.location)
                with self._translated(state.location):
                    self._publish_opened(descriptor, path)
                    self._sync_directories([path])
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, is_current

    def _complete(self, state: UploadState) -> None:
        path = self._path(state.location)
        try:
            with self._translated(state.location):
                self._publish_upload(state, path)
        except ObjectMissing:
            # An earlier attempt has perhaps done it; or does it now, if nobody waited for it any more.
            if self._stat(state.location) != state.offset:
                raise
            self._sync_object(state, path)
        with self._translated(state.location):
            self._sync_directories([path])

    def _sync_object(self, state: UploadState, path: str) -> None:
        """Bytes may have come after that attempt."""
        with self._translated(state.location):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def _publish_upload(self, state: UploadState, path: str) -> None:
        # Without the lock: whoever completes may have it.
        descriptor = self._open_upload(path + _PARTIAL, state)
        try:
            self.position(descriptor, state)
            self._publish_opened(descriptor, path)
        finally:
            os.close(descriptor)

    @staticmethod
    def _publish_opened(descriptor: int, path: str) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError:
            # The kernel tells a lost write once: the next sync would succeed over the hole. The upload is lost.
            with suppress(OSError):
                os.unlink(path + _PARTIAL)  # noqa: PTH108
            raise
        os.rename(path + _PARTIAL, path)  # noqa: PTH104

    def _remove(self, location: str, endings: Iterable[str]) -> None:
        path = self._path(location)
        with self._translated(location):
            for ending in endings:
                with suppress(FileNotFoundError, NotADirectoryError):
                    os.unlink(path + ending)  # noqa: PTH108
            # Whoever creates a file there at this moment makes the directories again.
            with suppress(OSError):
                while (path := os.path.dirname(path)) != self._root:  # noqa: PTH120
                    os.rmdir(path)  # noqa: PTH106

    def _stat(self, location: str) -> int:
        with self._translated(location):
            status = os.stat(self._path(location))  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            raise ObjectMissing(location)
        return status.st_size

    async def _walk(self, prefix: str, *, unfinished: bool) -> AsyncGenerator[Stored, None]:
        # A stack of what is still to be visited instead of recursion.
        to_visit: _Entries = [""]
        while to_visit:
            for stored in await self._call(self._visit, to_visit, prefix, unfinished):
                yield stored

    def _visit(self, to_visit: _Entries, prefix: str, unfinished: bool) -> _Files:
        """The next files, maybe of many directories: a hop to a thread costs more than a small one."""
        found: _Files = []
        enough_at = time.monotonic() + _VISIT_SECONDS
        while to_visit and len(found) < _MOST_VISITED and time.monotonic() < enough_at:
            entry = to_visit.pop()
            if isinstance(entry, Stored):
                found.append(entry)
            else:
                to_visit.extend(reversed(self._scan(entry, prefix, unfinished)))
        return found

    def _scan(self, directory: str, prefix: str, unfinished: bool) -> _Entries:
        """Files and directories (with a final slash) directly in `directory` that can match, in order."""
        found: dict[str, Stored | str] = {}
        with (
            self._translated(directory),
            suppress(FileNotFoundError),
            os.scandir(os.path.join(self._root, directory)) as entries,  # noqa: PTH118
        ):
            for entry in entries:
                name = directory + entry.name
                if entry.is_dir():
                    name += "/"
                    if name.startswith(prefix) or prefix.startswith(name):
                        found[name] = name
                elif name.startswith(prefix) and name.endswith(_PARTIAL) is unfinished:
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        status = entry.stat()
                        modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                        found[name] = Stored(name, status.st_size, modified_at)
        self._require_root()
        return [found[name] for name in sorted(found)]

    def _write_all(self, descriptor: int, data: bytes | bytearray, location: str) -> None:
        with self._translated(location), memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(descriptor, view[written:])

    def _read_at(self, descriptor: int, size: int, offset: int, location: str) -> bytes:
        with self._translated(location):
            return os.pread(descriptor, size, offset)

    def _close(self, descriptor: int) -> None:
        with self._translated(""):
            os.close(descriptor)

    def _open_upload(self, path: str, state: UploadState) -> int:
        """Open the file of an upload; one without bytes need not have a file yet."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC) if state.offset else self._create(path)

    def _create(self, path: str) -> int:
        """Open a file to write, and make the directories above it, below the root."""
        while True:
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                # A missing root is a mount that is not there: never fill the directory below it.
                self._require_root()
            # Another host may remove them again while they are empty: then once more.
            with suppress(FileNotFoundError):
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120

    def _sync_directories(self, paths: Iterable[str]) -> None:
        """Make the names of these files durable, and those of their directories up to the root."""
        synced: set[str] = set()
        for directory in {os.path.dirname(path) for path in paths}:  # noqa: PTH120
            self._sync_directory(directory, synced)

    def _sync_directory(self, directory: str, synced: set[str]) -> None:
        """Sync one, and those above it unless its own name is durable; `synced` are done already."""
        if directory in synced:
            return
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            synced.add(directory)
            if directory != self._root and not self._has_durable_name(directory, descriptor):
                self._sync_directory(os.path.dirname(directory), synced)  # noqa: PTH120
                self._keep_durable(directory, descriptor)
        finally:
            os.close(descriptor)

    def _has_durable_name(self, directory: str, descriptor: int) -> bool:
        with self._durable_lock:
            kept = self._durable.get(directory)
            return kept is not None and os.path.sameopenfile(kept, descriptor)

    def _keep_durable(self, directory: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not self._is_local(status.st_dev):
            return  # another host may give the number of one that is gone to another one
        kept = os.dup(descriptor)
        with self._durable_lock:
            before = self._durable.pop(directory, None)
            self._durable[directory] = kept
            if before is None and len(self._durable) > _KEPT_DIRECTORIES:
                before = self._durable.popitem(last=False)[1]
        if before is not None:
            os.close(before)

    def _store_batches(self) -> None:
        """The batching thread: everything that waits is one batch."""
        going = True
        while going:
            batch: _Batch = []
            with suppress(queue.Empty):
                item = self._waiting.get()
                while item is not None:
                    batch.append(item)
                    if len(batch) == _LARGEST_BATCH:
                        break
                    item = self._waiting.get_nowait()
                going = item is not None
            results = self._store_batch(batch)
            for loop in {small.loop for small in batch}:
                mine = [
                    (small.done, error) for small, error in zip(batch, results, strict=True) if small.loop is loop
                ]
                with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                    loop.call_soon_threadsafe(_resolve, mine)

    def _store_batch(self, batch: _Batch) -> _Errors:
        """Store a batch; for each object what went wrong, if anything did."""
        results = [self._attempt(small.location, partial(self._write_small, small)) for small in batch]
        written = [(index, result) for index, result in enumerate(results) if isinstance(result, int)]

        def publish(numbered: tuple[int, int]) -> StorageError | None:
            index, descriptor = numbered
            location = batch[index].location
            return self._attempt(location, partial(self._publish_small, descriptor, self._path(location)))

        # One alone is not worth a hop to another thread.
        published = map(publish, written) if len(written) == 1 else self._sync_pool.map(publish, written)
        errors = [result if isinstance(result, StorageError) else None for result in results]
        for (index, _), error in zip(written, published, strict=True):
            errors[index] = error
        stored = [self._path(small.location) for small, error in zip(batch, errors, strict=True) if error is None]
        not_durable = self._attempt("", partial(self._sync_directories, stored))
        for index, small in enumerate(batch):
            errors[index] = errors[index] or not_durable
            if errors[index] is not None:
                with suppress(StorageError, ValueError):
                    self._remove(small.location, (_PARTIAL, "") if not_durable else (_PARTIAL,))
        return errors

    def _attempt(self, location: str, action: Callable[[], T]) -> T | StorageError:
        """What `action` returns, or the StorageError that it raises: one failure must not end the batch."""
        try:
            with self._translated(location):
                return action()
        except StorageError as error:
            return error

    def _write_small(self, small: _Small) -> int:
        descriptor = self._create(self._path(small.location) + _PARTIAL)
        try:
            os.ftruncate(descriptor, 0)
            self._write_all(descriptor, small.data, small.location)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)  # the rest of the batch needs the room
            os.close(descriptor)
            raise
        return descriptor

    @staticmethod
    def _publish_small(descriptor: int, path: str) -> None:
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(path + _PARTIAL, path)  # noqa: PTH104

    def _path(self, location: str) -> str:
        check_location(location)
        return f"{self._root}/{location}"

    def _require_root(self) -> None:
        if not os.path.isdir(self._root):  # noqa: PTH112
            raise StorageUnavailable(f"the storage directory {self._root} is not there")

    @contextmanager
    def _translated(self, location: str) -> Iterator[None]:
        """Turn errors of the operating system into storage's own."""
        try:
            yield
        except OSError as error:
            reason = f"{error.strerror} ({location or self._root})"
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
                self._require_root()
                raise ObjectMissing(location) from error
            raise of_system(error, reason) from error

    def _too_late(self) -> StorageUnavailable:
        return StorageUnavailable(f"no answer from {self._root} within {self._time_limit:g} s")

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._result(self._pool.submit(function, *args, **kwargs))

    async def _open(self, function: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> _OpenFile:
        opening = self._pool.submit(function, *args, **kwargs)
        try:
            return _OpenFile(self, await self._result(opening))
        except BaseException:
            opening.add_done_callback(_close_opened)
            raise

    async def _result(self, future: Future[T]) -> T:
        """Wait for a thread no longer than the time limit; it goes on when nobody waits."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        future.add_done_callback(partial(_tell, loop, waiting))
        limit = loop.call_later(self._time_limit, lambda: _settle(waiting, None, self._too_late()))
        try:
            return await waiting
        finally:
            limit.cancel()


class _OpenFile:
    """A descriptor that threads use one after another, closed when the last of them is done with it."""

    def __init__(self, owner: FileSystem, descriptor: int) -> None:
        self.descriptor = descriptor
        self._owner = owner
        self._last: Future[Any] | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._last = future = self._owner._pool.submit(function, *args, **kwargs)  # noqa: SLF001
        return await self._owner._result(future)  # noqa: SLF001

    async def close(self) -> None:
        if self._last is None or self._last.done():
            # In a thread, because NFS sends what is still unwritten when a file is closed.
            await self._owner._call(self._owner._close, self.descriptor)  # noqa: SLF001
        else:
            self._last.add_done_callback(lambda _: os.close(self.descriptor))


def _close_opened(opening: Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _close_completed(completing: Future[tuple[int, bool]]) -> None:
    if not completing.cancelled() and completing.exception() is None:
        os.close(completing.result()[0])


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2), which `os` does not have; None: neither has the system."""
    import ctypes

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def _tell(loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[T], future: Future[T]) -> None:
    """Let who waits have the outcome of a thread."""
    with suppress(RuntimeError):  # the loop is closed
        if future.cancelled():
            loop.call_soon_threadsafe(waiting.cancel)
        elif (error := future.exception()) is not None:
            loop.call_soon_threadsafe(_settle, waiting, None, error)
        else:
            loop.call_soon_threadsafe(_settle, waiting, future.result(), None)


def _settle(waiting: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if waiting.done():  # cancelled, or too late
        return
    if error is None:
        waiting.set_result(result)
    else:
        waiting.set_exception(error)


def _resolve(outcomes: list[tuple[asyncio.Future[None], StorageError | None]]) -> None:
    for done, error in outcomes:
        _settle(done, None, error)
