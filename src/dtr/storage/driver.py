"""
Bytes by key: the interface that every storage driver fulfils.

A driver knows locations and bytes; it knows nothing of repositories, digests or SQL. The rules:

* A location is final and used once. Every upload goes to a fresh one (`new_location`), so nothing is copied
  at the end, and concurrent uploads of the same content never meet. Which location holds which blob is the
  caller's knowledge.
* An object appears at its location whole, by `complete` or `put_small`, or not at all; both return when it is
  durable.
* What a driver must remember of an unfinished upload is in `UploadState`, a value that the caller keeps in
  its own database. Any process on any host continues from it. The caller also sees to it that one request at a
  time writes to an upload.
* Continuing from an older state is always possible until the newer one has been used: what was stored beyond
  it is dropped.
"""

from __future__ import annotations

import io
import time
import uuid
from contextlib import aclosing
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import msgspec
from msgspec import Struct

from dtr.storage.errors import StorageError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

PIECE_SIZE = 1024 * 1024
"""`Driver.open` yields at most so many bytes at once."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A stored part of an unfinished upload, as the store names it; `size` in bytes."""

    name: str
    etag: str
    size: int


class UploadState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far an upload came: `offset` bytes of `location`; the other fields are the driver's own."""

    location: str
    offset: int = 0
    session: str = ""
    """The store's name of the upload, for example the upload id of S3."""
    parts: tuple[Part, ...] = ()
    tail: bytes = b""
    """The last bytes, when they are too few for a part and few enough for a database row."""
    tail_location: str = ""
    """Where the last bytes are, when they are too few for a part and too many for a database row."""
    stale_location: str = ""
    """The tail of the state before this one: garbage as soon as this state is used."""

    def encode(self) -> str:
        """The state as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """The state from its JSON. Raises msgspec.DecodeError."""
        return msgspec.json.decode(text, type=cls)


class Stored(Struct, frozen=True):
    """An object as a listing shows it: `size` in bytes, `modified_at` in UTC."""

    location: str
    size: int
    modified_at: datetime


class Driver(Protocol):
    """A store of bytes. Every method may raise any `StorageError`; the ones worth telling apart are named."""

    async def create_upload(self, location: str) -> UploadState:
        """Begin an upload that will end at `location`. Nothing is stored before its first bytes."""

    async def write(self, state: UploadState, body: AsyncIterator[bytes]) -> UploadState:
        """
        Append `body`, of any length, to the upload.

        Raises Interrupted, with the state reached, when the body itself fails; ObjectMissing when the upload
        is gone; UploadBusy. After every error but the first, and after a cancellation, `state` is still good
        unless the upload is gone.
        """

    async def complete(self, state: UploadState) -> None:
        """
        Make the upload the object at its location, durably. May be repeated.

        Raises ObjectMissing when the upload is gone, also by an earlier attempt in which the store lost bytes.
        """

    async def abort(self, state: UploadState) -> None:
        """Remove all traces of the upload, even an object that `complete` made of it. May be repeated."""

    async def put_small(self, location: str, data: bytes) -> None:
        """Store an object in one go, durably."""

    def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """
        The bytes from `offset`, at most `length` of them; none when `offset` is at or beyond the end.

        Close it (`contextlib.aclosing`) when it may not be read to its end. Iterating raises ObjectMissing,
        and StorageError rather than end early.
        """

    async def stat(self, location: str) -> int:
        """The size in bytes. Raises ObjectMissing."""

    async def delete(self, location: str) -> None:
        """Remove the object; a missing one is a success."""

    def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """
        All objects whose location begins with `prefix`, ordered by location.

        Unfinished uploads are not objects.
        """

    def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """
        What is stored of unfinished uploads, by the locations at which they would end; some perhaps repeatedly.

        `modified_at` is when the last bytes came, or, where that is not known, when the upload began.
        """

    async def sign(self, location: str, ttl: int) -> str | None:
        """A URL that anyone may GET the object from for `ttl` seconds; None when there is none."""

    async def check(self) -> None:
        """Write, read and delete a small object. Raises StorageError with the reason."""

    async def close(self) -> None:
        """Let go of connections and threads. May be repeated; the driver is not used afterwards."""


@runtime_checkable
class LocalFiles(Protocol):
    """
    What a driver with real files offers besides, for threads that move bytes between socket and file.

    The methods that are no coroutines make a few system calls and block for as long as these take. The caller
    closes the descriptor.
    """

    def open_reader(self, location: str) -> int:
        """A descriptor to read the object. Raises ObjectMissing."""

    def open_writer(self, state: UploadState) -> int:
        """
        A locked descriptor of the upload's bytes; the lock ends when it is closed.

        Whoever has it asks `is_current`, or else looks again how far the upload came, and then calls `position`.
        Raises UploadBusy while another descriptor has the lock, ObjectMissing.
        """

    def is_current(self, descriptor: int, state: UploadState) -> bool:
        """
        Whether it is certain that nobody went on with the upload between `state` and the lock.

        Then the descriptor is ready to append.
        """

    def position(self, descriptor: int, state: UploadState) -> None:
        """
        Make the descriptor ready to append: what lies beyond `state.offset` is dropped.

        The new state is ``msgspec.structs.replace(state, offset=...)``. Raises ObjectMissing when fewer than
        `state.offset` bytes are there, or the upload is gone.
        """

    def is_local(self, descriptor: int, state: UploadState) -> bool:
        """Whether closing it is certain to take no time, and not to fail, even after writing."""

    def begin_sync(self, descriptor: int, state: UploadState, size: int) -> None:
        """
        Let `size` bytes that came since `state` be on their way to the disk, without waiting for it.

        `complete` then has less to wait for.
        """

    async def complete_current(self, state: UploadState) -> tuple[int, bool]:
        """
        `open_writer`, and `complete` if `is_current`: the descriptor, and whether it is completed.

        Raises what these raise. It takes one hop to a thread instead of three.
        """


class Lent(Protocol):
    """
    The rest of an object, in a socket that does not block: for a thread that moves bytes from there to elsewhere.

    One thread at a time uses it, and none when what it was fetched in has ended.
    """

    first: bytes
    """What had arrived: it comes before what the socket gives."""
    left: int
    """So many bytes were not received yet."""
    patience: float
    """How many seconds the store may take for the next byte."""
    socket: socket.socket

    def receive(self, buffer: memoryview) -> int:
        """
        Some of the bytes; how many, at least one.

        Raises BlockingIOError when none is there, and StorageUnavailable when no more come, before the end.
        """

    def expect(self, size: int) -> None:
        """Let the socket be ready only when so many bytes are there, or all that come."""

    def late(self) -> StorageError:
        """What to raise when the store was waited for in vain."""


class Fetched(Protocol):
    """An object, or a part of it, of which the first byte may not have arrived yet."""

    size: int | None
    """So many bytes; None: they end where the store says."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """
        The bytes, in pieces.

        Iterating raises StorageError rather than end before `size`.
        """

    async def lend(self) -> Lent | None:
        """Let a thread take the bytes instead; None: they have to be iterated over. Raises StorageError."""


@runtime_checkable
class RemoteObjects(Protocol):
    """What a driver offers besides, whose objects come from a server: `Driver.open` in two steps."""

    def fetch(
        self, location: str, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[Fetched]:
        """See `Driver.open`; entering raises ObjectMissing."""


def new_location() -> str:
    """A location that was never used: ``YYYYMMDD/HHMM/<32 hexadecimal digits>``, in UTC."""
    return f"{_minute(int(time.time()) // 60)}/{uuid.uuid4().hex}"


@lru_cache(maxsize=2)
def _minute(number: int) -> str:
    return time.strftime("%Y%m%d/%H%M", time.gmtime(number * 60))


def check_location(location: str) -> None:
    """Raise ValueError for what is no location: an empty, ``.`` or ``..`` part, or a NUL."""
    if "\0" in location or any(part in {"", ".", ".."} for part in location.split("/")):
        message = f"not a storage location: {location!r}"
        raise ValueError(message)


async def probe(driver: Driver) -> None:
    """Write, read and delete a small object. Raises StorageError when any of it fails."""
    location, data = new_location(), uuid.uuid4().bytes
    await driver.put_small(location, data)
    try:
        async with aclosing(driver.open(location)) as pieces:
            if b"".join([piece async for piece in pieces]) != data:
                raise StorageError("storage gives back other bytes than were stored")
    finally:
        await driver.delete(location)


class Pieces:
    """Pieces of an object as what was fetched (`Fetched`); they cannot be lent."""

    def __init__(self, first: bytes = b"", rest: AsyncIterator[bytes] | None = None) -> None:
        """`first` is the first of them, `rest` gives the others, if there are any."""
        self.size = len(first) if rest is None else None
        self._first = first
        self._rest = rest

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """See `Fetched`."""
        if self._first:
            yield self._first
        if self._rest is not None:
            async for piece in self._rest:
                yield piece

    async def lend(self) -> None:
        """See `Fetched`."""


class Blocks:
    """
    A body cut into blocks of exactly `size` bytes; only the last is shorter, and none is empty.

    Each block is a file at its beginning, and all are the same one, filled again: whoever is given one is done
    with it before asking for the next.

    A body that fails ends the blocks: what came before is still delivered, and `failure` says what happened.
    A cancellation passes through.
    """

    def __init__(self, body: AsyncIterator[bytes], size: int) -> None:
        """Nothing is read yet."""
        self.failure: Exception | None = None
        self._body = body
        self._size = size

    async def __aiter__(self) -> AsyncGenerator[io.BytesIO, None]:
        block = io.BytesIO()
        try:
            async for piece in self._body:
                view = memoryview(piece)
                while (room := self._size - block.tell()) <= len(view):
                    block.write(view[:room])
                    view = view[room:]
                    yield _rewound(block)
                    block.seek(0)
                block.write(view)
        except Exception as failure:  # noqa: BLE001 - whatever the body raises is handed to the caller
            self.failure = failure
        if block.tell():
            yield _rewound(block)


def _rewound(block: io.BytesIO) -> io.BytesIO:
    """The file at its beginning, cut where it was: it was perhaps longer the time before."""
    block.truncate()
    block.seek(0)
    return block
