"""
Uploads to stores that take them in parts.

A store wants parts of a known length, not too many of them, and not too short ones; the requests of clients are
of any length and end anywhere. So bytes wait in a file (`dtr.storage.spool`) until there are enough of them for a
part, which is sent while the next one fills; an upload holds pieces of them in memory only. What a request leaves
that is too short for a part is the *tail*: up to 64 KiB of it travel in the state, because a row carries that more
cheaply than two requests to the store; a longer one is an object ``<location>.tail.<random>``, so that megabytes
never go through the database. Each is written once, under a name of its own: a request that was given up on and
still arrives cannot change the tail that a later state names. An upload without any part is one object, stored
when it is completed.

What a store keeps of an unfinished upload under a name of its own is *put aside*, at
``<location>.<kind>.<random>``: tails, and, in stores whose parts are objects, parts
(``<location>.part.<random>``).
"""

from __future__ import annotations

import asyncio
import io
import re
import uuid
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dtr.storage.driver import Pieces, Stored, UploadState, check_location, probe
from dtr.storage.errors import Interrupted, ObjectMissing, StorageError
from dtr.storage.spool import SPOOL_PIECE, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

    from dtr.storage.driver import Fetched
    from dtr.storage.lending import Answer

_LONGEST_TAIL_IN_STATE = 64 * 1024
_ASIDE = re.compile(r"\.(?:tail|part)\.[0-9a-f]{32}\Z")


class PartSizes(Struct, frozen=True):
    """
    How many bytes the parts of an upload have, the last one apart.

    A part has `usual` bytes as long as the object is short, and from `growth` such parts on 1/`growth` of what is
    stored before it, so that the `most` parts that a store takes make the longest object it has: n parts more
    make an object e**(n/growth) times as long. `longest` is what the store takes at once.

    A request may end with a shorter part, from `shortest` on (what the store takes), as long as half of the parts
    are left for the rest.
    """

    usual: int
    most: int
    growth: int
    shortest: int = 1
    longest: int = 5 * 1024**3

    def full(self, offset: int) -> int:
        """The size of a part that begins at `offset`, when there is no end of the bytes in sight."""
        return min(self.longest, max(self.usual, offset // self.growth))

    def enough(self, state: UploadState) -> int:
        """From how many bytes on a part is worth it that is the end of a request."""
        return self.shortest if len(state.parts) < self.most // 2 else self.full(state.offset)


class Parted(ABC):
    """
    `write`, `complete`, `abort` and the listings of `Driver` for a store whose uploads are made of parts.

    A driver says how such a store puts an object, takes a part, makes an object of parts and drops them, and
    lists. Of `UploadState`, `session` and the contents of `parts` are the driver's own.
    """

    def __init__(self, sizes: PartSizes, *, spool_directory: str, threads: int) -> None:
        """Parts wait below `spool_directory`, served by so many `threads`; nothing is made yet."""
        self._sizes = sizes
        self._spool_directory = spool_directory
        self._threads = ThreadPoolExecutor(threads, "storage-spool")

    # --- What a driver says ---------------------------------------------------------------------------------

    @abstractmethod
    async def _put(self, location: str, data: Spool | io.BytesIO) -> None:
        """Store an object of these bytes in one go, durably."""

    @abstractmethod
    async def _add_part(self, state: UploadState, data: Spool) -> UploadState:
        """
        Store the next part, of at least one byte; the state with it in `parts`.

        `offset` is the caller's to move. A part that this stores must not be mistaken for one that another call
        with the same state stored: `_join_parts` takes the one that the state names or raises ObjectMissing.
        """

    @abstractmethod
    async def _join_parts(self, state: UploadState) -> None:
        """
        Make the object of the parts, durably.

        Raises ObjectMissing when one is gone, or when they were joined before (perhaps).
        """

    @abstractmethod
    async def _drop_parts(self, state: UploadState) -> None:
        """
        Remove what is stored of the parts of an upload that is given up.

        Also those that `state` does not know, of a request which did not live to save its own. What has a name
        of `aside` is removed by the caller.
        """

    @abstractmethod
    def _list_everything(self, prefix: str) -> AsyncGenerator[Stored, None]:
        """All objects whose location begins with `prefix`, ordered by location; also what is put aside."""

    @abstractmethod
    def _ask(self, location: str, offset: int, length: int | None) -> AbstractAsyncContextManager[Answer | None]:
        """See `RemoteObjects.fetch`; at least one byte is asked for, and the answer is None when none is there."""

    @abstractmethod
    async def stat(self, location: str) -> int:
        """See `Driver`."""

    @abstractmethod
    async def delete(self, location: str) -> None:
        """See `Driver`; also for what is put aside."""

    @abstractmethod
    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`."""

    # --- What follows from it -------------------------------------------------------------------------------

    async def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Driver`; an object that is deleted or replaced meanwhile may end in a StorageError."""
        async with self.fetch(location, offset, length) as fetched:
            async for piece in fetched:
                yield piece

    @asynccontextmanager
    async def fetch(
        self, location: str, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[Fetched, None]:
        """See `RemoteObjects`."""
        if length == 0:
            await self.stat(location)
            yield Pieces()
            return
        async with self._ask(location, offset, length) as answer:
            if answer is None:
                yield Pieces()
            else:
                async with answer.opened():
                    yield answer

    async def create_upload(self, location: str) -> UploadState:
        """See `Driver`; the store hears of it when the first part is full."""
        check_location(location)
        return UploadState(location)

    async def write(self, state: UploadState, body: AsyncIterator[bytes]) -> UploadState:
        """See `Driver`."""
        if state.stale_location:
            with suppress(StorageError):  # swept by complete or abort
                await self.delete(state.stale_location)
        with self._spool() as one, self._spool() as other:
            part, spare = one, other
            await self._recall_tail(state, part)
            before_tail = msgspec.structs.replace(
                state,
                offset=state.offset - len(part),
                tail=b"",
                tail_location="",
                stale_location=state.tail_location,
            )
            gathered = _Gathered(body)
            async with _Sending(self._append, before_tail) as sending, aclosing(aiter(gathered)) as handfuls:
                async for handful in handfuls:
                    left = handful
                    while sum(map(len, left)) >= (room := self._sizes.full(sending.offset) - len(part)):
                        fitting, left = _cut(left, room)
                        await part.add(*fitting)
                        await sending.begin(part)
                        part, spare = spare, part
                        part.clear()
                    await part.add(*left)
                reached = await sending.end()
            if part.short is None and len(part) >= self._sizes.enough(reached):
                reached = await self._append(reached, part)
            else:
                reached = await self._keep_tail(reached, part)
        if gathered.failure is not None:
            raise Interrupted(reached) from gathered.failure
        return reached

    async def complete(self, state: UploadState) -> None:
        """See `Driver`."""
        try:
            with self._spool() as tail:
                await self._recall_tail(state, tail)
                if sum(part.size for part in state.parts) + len(tail) != state.offset:
                    raise ObjectMissing(state.location)
                if not state.parts:
                    await self._put(state.location, tail)
                else:
                    before = msgspec.structs.replace(state, offset=state.offset - len(tail))
                    await self._join_parts(await self._append(before, tail) if tail else state)
        except ObjectMissing:
            # The answer to an earlier attempt was perhaps lost.
            if await self.stat(state.location) != state.offset:
                raise ObjectMissing(state.location) from None
        if state.tail_location or state.stale_location:  # otherwise a listing is not worth it
            with suppress(StorageError):  # only rubbish is left; the object stands
                await self._drop_aside(f"{state.location}.tail.")

    async def abort(self, state: UploadState) -> None:
        """See `Driver`; parts still under way may be stored later, so a sweep may call it once more."""
        await self._drop_parts(state)
        await self._drop_aside(f"{state.location}.")
        await self.delete(state.location)

    async def put_small(self, location: str, data: bytes) -> None:
        """See `Driver`."""
        check_location(location)
        await self._put(location, io.BytesIO(data))

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        async with aclosing(self._list_everything(prefix)) as everything:
            async for stored in everything:
                if upload_of(stored.location) is None:
                    yield stored

    async def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`; what is put aside."""
        async with aclosing(self._list_everything("")) as everything:
            async for stored in everything:
                location = upload_of(stored.location)
                if location is not None:
                    yield replace(stored, location=location)

    async def check(self) -> None:
        """See `Driver`; parts of uploads need a place to wait, too."""
        with self._spool() as spool:
            await spool.add(bytes(_LONGEST_TAIL_IN_STATE + 1))
        await probe(self)

    async def close(self) -> None:
        """See `Driver`; a driver with connections closes these as well."""
        self._threads.shutdown(wait=False)

    # --- Parts and tails ------------------------------------------------------------------------------------

    @contextmanager
    def _spool(self) -> Iterator[Spool]:
        """Where bytes wait; as many as fit into a state are not worth a file."""
        spool = Spool(self._spool_directory, self._threads, _LONGEST_TAIL_IN_STATE)
        try:
            yield spool
        finally:
            spool.close()

    async def _append(self, state: UploadState, data: Spool) -> UploadState:
        """Store a part; the state beyond it."""
        most = self._sizes.most
        if len(state.parts) >= most:
            raise StorageError(f"{state.location} is too long, or came in too many pieces: {most} parts")
        added = await self._add_part(state, data)
        return msgspec.structs.replace(added, offset=state.offset + len(data))

    async def _keep_tail(self, state: UploadState, tail: Spool) -> UploadState:
        offset = state.offset + len(tail)
        if tail.short is not None:
            return msgspec.structs.replace(state, offset=offset, tail=tail.short)
        tail_location = aside(state.location, "tail")
        await self._put(tail_location, tail)
        return msgspec.structs.replace(state, offset=offset, tail_location=tail_location)

    async def _recall_tail(self, state: UploadState, tail: Spool) -> None:
        await tail.add(state.tail)
        if state.tail_location:
            async with aclosing(self.open(state.tail_location)) as pieces:
                async for piece in pieces:
                    await tail.add(piece)

    async def _drop_aside(self, prefix: str) -> None:
        """Delete what is put aside below this prefix; not other objects whose names begin alike."""
        async with aclosing(self._list_everything(prefix)) as found:
            async for stored in found:
                if upload_of(stored.location) is not None:
                    await self.delete(stored.location)


class _Gathered:
    """
    A body in handfuls of its pieces, each worth a write; nothing is copied.

    A body that fails ends them: what came before is still delivered, and `failure` says what happened. A
    cancellation passes through.
    """

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self.failure: Exception | None = None
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[list[memoryview], None]:
        handful: list[memoryview] = []
        size = 0
        try:
            async for piece in self._body:
                handful.append(memoryview(piece))
                size += len(piece)
                if size >= SPOOL_PIECE:
                    yield handful
                    handful, size = [], 0
        except Exception as failure:  # noqa: BLE001 - whatever the body raises is handed to the caller
            self.failure = failure
        if handful:
            yield handful


def _cut(pieces: list[memoryview], size: int) -> tuple[list[memoryview], list[memoryview]]:
    """The first `size` bytes of these pieces, and the rest."""
    for number, piece in enumerate(pieces):
        if size <= len(piece):
            return [*pieces[:number], piece[:size]], [piece[size:], *pieces[number + 1 :]]
        size -= len(piece)
    return pieces, []


class _Sending:
    """
    The parts of an upload on their way to the store, one at a time, while the next one fills.

    At the end of the block nothing is under way any more, whatever ended it.
    """

    def __init__(
        self, append: Callable[[UploadState, Spool], Coroutine[Any, Any, UploadState]], state: UploadState
    ) -> None:
        self.offset = state.offset
        """Where the next part begins."""
        self._append = append
        self._reached = state
        self._under_way: asyncio.Task[UploadState] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def begin(self, part: Spool) -> None:
        """Send a part, once the one before is stored; `part` is in use until the next `begin` or `end`."""
        state = await self.end()
        self._under_way = asyncio.create_task(self._append(state, part))
        self.offset += len(part)

    async def end(self) -> UploadState:
        """The state with all parts, once they are stored. Raises what became of the last."""
        if self._under_way is not None:
            self._reached, self._under_way = await self._under_way, None
        return self._reached


def aside(location: str, kind: Literal["tail", "part"]) -> str:
    """A location, never used before, for something of the upload that will end at `location`."""
    return f"{location}.{kind}.{uuid.uuid4().hex}"


def upload_of(location: str) -> str | None:
    """Where the upload will end whose part or tail this is; None when it is an object of its own."""
    found = _ASIDE.search(location)
    return None if found is None else location[: found.start()]
