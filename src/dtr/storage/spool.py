"""
Bytes that wait on the local disk until there are enough of them to be sent.

A store may want pieces that are larger than what a transfer may hold in memory. They wait in a file without a
name, which is gone with whoever has it open, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from dtr.storage.errors import StorageUnavailable, of_system

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

SPOOL_PIECE = 256 * 1024
"""Bytes that are read from a spool at once."""
_MANY = 64
"""Pieces that are copied together before they are written."""


class Spool:
    """
    Bytes in the order in which they were added, to be read as often as need be, always from the beginning.

    Up to `in_memory` bytes stay in memory; more are in a file below `directory`, which the threads of `threads`
    write and read. Every call may raise StorageFull and StorageUnavailable. One at a time uses it.

    `len`, `tell`, `seek`, `read` and the iteration are what the S3 client asks of a body: it learns the length,
    goes back to the beginning for another attempt, and iterates.

    `on_piece`, when it is set, is called before each piece that is read.
    """

    def __init__(self, directory: str, threads: ThreadPoolExecutor, in_memory: int) -> None:
        """Begin empty; the file is made by the first bytes that need it."""
        self._directory = directory
        self._threads = threads
        self._in_memory = in_memory
        self._memory = b""
        self._file: IO[bytes] | None = None
        self._size = 0
        self._last: Future[Any] | None = None
        self.on_piece: Callable[[], None] | None = None

    def __len__(self) -> int:
        """How many bytes there are."""
        return self._size

    @property
    def short(self) -> bytes | None:
        """All bytes when they are few enough to be in memory."""
        return self._memory if self._size <= self._in_memory else None

    async def add(self, *pieces: bytes | memoryview) -> None:
        """Append these bytes."""
        size = self._size + sum(map(len, pieces))
        if size <= self._in_memory:
            self._memory = b"".join((self._memory, *pieces))
        else:
            await self._call(self._write, pieces)
        self._size = size

    def clear(self) -> None:
        """Begin anew, in the same file."""
        self._size, self._memory = 0, b""

    async def __aiter__(self) -> AsyncGenerator[bytes | bytearray, None]:
        """All bytes, in pieces."""
        if self.short is not None:
            yield self.short
            return
        for offset in range(0, self._size, SPOOL_PIECE):
            if self.on_piece is not None:
                self.on_piece()
            size = min(SPOOL_PIECE, self._size - offset)
            at_once = self._read_at_once(offset, size)
            yield await self._call(self._read, offset, size) if at_once is None else at_once

    def read(self, size: int = -1) -> bytes:
        """Nothing: the client looks whether there is such a method, and iterates."""
        raise NotImplementedError

    def seek(self, offset: int) -> int:
        """Go to the beginning, where every iteration begins."""
        return offset

    def tell(self) -> int:
        """The beginning."""
        return 0

    def close(self) -> None:
        """Give the room back, as soon as no thread is at it any more."""
        if self._last is not None:
            self._last.add_done_callback(self._let_go)

    def _let_go(self, _: Future[Any]) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        with self._translated():
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115 - closed by `close`
            if self._memory:
                _write_at(self._file.fileno(), 0, [self._memory])
                self._memory = b""
            _write_at(self._file.fileno(), self._size, pieces)

    def _read_at_once(self, offset: int, size: int) -> bytearray | None:
        """Bytes that are in the system's memory, as those of a moment ago are: a thread would cost more."""
        buffer = bytearray(size)
        try:
            read = os.preadv(self._file.fileno(), [buffer], offset, os.RWF_NOWAIT) if self._file else 0
        except OSError:  # not there, or a file system that cannot say
            return None
        return buffer if read == size else None

    def _read(self, offset: int, size: int) -> bytes:
        with self._translated():
            piece = os.pread(self._file.fileno(), size, offset) if self._file else b""
        if len(piece) != size:
            raise StorageUnavailable(f"a file in {self._directory} lost bytes that were written to it")
        return piece

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        future = self._threads.submit(function, *args, **kwargs)
        self._last = future
        return await asyncio.wrap_future(future)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the operating system into storage's own."""
        try:
            yield
        except OSError as error:
            raise of_system(error, f"{error.strerror} (parts of uploads wait in {self._directory})") from error


def _write_at(descriptor: int, offset: int, pieces: Sequence[bytes | memoryview]) -> None:
    left = [memoryview(b"".join(pieces))] if len(pieces) > _MANY else [memoryview(one) for one in pieces]
    while left:
        written = os.pwritev(descriptor, left, offset)
        offset += written
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]
