"""
Blobs on their way from another registry: fetched once, stored, and read meanwhile by everybody who waits for them.

The bytes go into a file: that of the upload where the storage has files, else a temporary one. Readers follow in
that file, each at its own pace, so that a download needs the memory of a piece, whatever the size of the blob and
however many read. The last byte is given only when the blob is stored, hence has the right digest: a reader of
something else gets less than was announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from typing import TYPE_CHECKING

from dtr.shielded import in_thread
from dtr.storage import StorageFull, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from dtr.oci import Digest
    from dtr.registry import File, Hasher

_PIECE = 256 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Download:
    """
    A blob of `size` bytes that is being fetched; also the `Body` that `Uploads` is given.

    Whoever reads has joined before (`join`), and leaves in the end (`leave`).
    """

    source: Callable[[], AsyncGenerator[bytes, None]]
    """Begins to fetch; set before it is given to `Uploads`."""

    def __init__(self, digest: Digest, size: int, directory: Path | None = None) -> None:
        """Temporary files are in `directory`."""
        self.digest = digest
        self.size = size
        self.length: int | None = size
        self._directory = directory
        self._file: int | None = None
        self._readers = 0
        self._arrived = 0
        self._is_stored = False
        self.failure: Exception | None = None
        """Why it was not stored, once it is over."""
        self._changed = asyncio.Event()

    async def run(self, store: Callable[[], Awaitable[object]]) -> None:
        """Have it fetched and stored. How that ends is told to those who read."""
        self.join()
        try:
            await store()
            self._is_stored = True
        except Exception as error:  # noqa: BLE001 - it is raised by those who wait
            self.failure = error
        finally:
            if not self._is_stored and self.failure is None:
                self.failure = StorageUnavailable("the download was given up")
            self._tell()
            self.leave()

    # --- for those who read ---

    def join(self) -> None:
        """Keep what has come readable."""
        self._readers += 1

    def leave(self) -> None:
        """The end of `join`."""
        self._readers -= 1
        if not self._readers and self._file is not None:
            os.close(self._file)
            self._file = None

    async def wait(self, count: int | None = None) -> None:
        """Until it is stored, or `count` of its bytes can be read. Raises what the download failed with."""
        while not self._is_stored:
            if self.failure is not None:
                raise self.failure
            if count is not None and self._readable >= count:
                return
            await self._changed.wait()

    async def follow(self, offset: int = 0, count: int | None = None) -> AsyncGenerator[bytes, None]:
        """
        `count` bytes from `offset` on, as they come; None: all.

        Raises what the download failed with.
        """
        end = self.size if count is None else offset + count
        while offset < end:
            await self.wait(offset + 1)
            assert self._file is not None
            length = min(end, self._readable, offset + _PIECE) - offset
            piece = await asyncio.to_thread(os.pread, self._file, length, offset)
            if not piece:
                raise OSError(f"the download of {self.digest} is shorter than what came")
            offset += len(piece)
            yield piece

    @property
    def _readable(self) -> int:
        return self.size if self._is_stored else min(self._arrived, self.size - 1)

    # --- for `Uploads` ---

    async def read(self) -> bytes:
        """See `Body`. Nobody follows what is small."""
        return b"".join([piece async for piece in self.source()])

    async def into_file(self, file: File, hasher: Hasher, limit: int | None) -> int:
        """See `Body`."""
        del limit  # the size was compared with it
        descriptor = await in_thread(file.open)
        self._file = os.dup(descriptor)
        async with contextlib.aclosing(self.source()) as pieces:
            async for piece in pieces:
                await in_thread(_write, descriptor, piece, hasher)
                self._come(piece)
        return self._arrived

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """See `Body`."""
        self._file = await asyncio.to_thread(_temporary, self._directory)
        async with contextlib.aclosing(self.source()) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(_write, self._file, piece)
                self._come(piece)
                yield piece

    def _come(self, piece: bytes) -> None:
        self._arrived += len(piece)
        self._tell()

    def _tell(self) -> None:
        """Wake those who wait."""
        self._changed.set()
        self._changed = asyncio.Event()


def _write(descriptor: int, piece: bytes, hasher: Hasher | None = None) -> None:
    """Write at the descriptor's position, and tell the hasher what was written. Raises StorageError."""
    done = 0
    with memoryview(piece) as view:
        while done < len(view):
            try:
                count = os.write(descriptor, view[done:])
            except OSError as error:
                raise _refused(error) from error
            if hasher is not None:
                hasher.update(view[done : done + count])
            done += count


def _temporary(directory: Path | None) -> int:
    """A file without a name. Raises StorageError."""
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise _refused(error) from error


def _refused(error: OSError) -> StorageUnavailable | StorageFull:
    return (StorageFull if error.errno in _FULL else StorageUnavailable)(str(error))
