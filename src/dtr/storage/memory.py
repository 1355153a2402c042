"""Objects in the memory of this process: for tests, and for a registry that may forget everything."""

from __future__ import annotations

import uuid
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from dtr.storage.driver import PIECE_SIZE, Blocks, Part, Stored, UploadState, check_location, probe
from dtr.storage.errors import Interrupted, ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


class Memory:
    """
    A driver that keeps bytes in dictionaries; `peer` is another one to share them with.

    Every write adds a part of its own to the upload and changes none that is there, so that each state names
    exactly the bytes that it stands for.
    """

    def __init__(self, peer: Memory | None = None) -> None:
        """Begin empty, or as a second door to the objects of `peer`."""
        self._objects: dict[str, tuple[bytes, datetime]] = {} if peer is None else peer._objects  # noqa: SLF001
        self._uploads: dict[str, dict[str, bytes]] = {} if peer is None else peer._uploads  # noqa: SLF001
        self._begun: dict[str, datetime] = {} if peer is None else peer._begun  # noqa: SLF001

    async def create_upload(self, location: str) -> UploadState:
        """See `Driver`."""
        check_location(location)
        return UploadState(location)

    async def write(self, state: UploadState, body: AsyncIterator[bytes]) -> UploadState:
        """See `Driver`."""
        self._parts(state)
        content = bytearray()
        blocks = Blocks(body, PIECE_SIZE)
        async with aclosing(aiter(blocks)) as pieces:
            async for block in pieces:
                content += block.read()
        part = Part(uuid.uuid4().hex, "", len(content))
        self._uploads.setdefault(state.location, {})[part.name] = bytes(content)
        self._begun[state.location] = datetime.now(UTC)
        reached = msgspec.structs.replace(state, offset=state.offset + part.size, parts=(*state.parts, part))
        if blocks.failure is not None:
            raise Interrupted(reached) from blocks.failure
        return reached

    async def complete(self, state: UploadState) -> None:
        """See `Driver`."""
        stored = self._objects.get(state.location)
        if stored is not None and len(stored[0]) == state.offset:
            return
        await self.put_small(state.location, b"".join(self._parts(state)))
        self._forget(state.location)

    async def abort(self, state: UploadState) -> None:
        """See `Driver`."""
        self._forget(state.location)
        self._objects.pop(state.location, None)

    async def put_small(self, location: str, data: bytes) -> None:
        """See `Driver`."""
        check_location(location)
        self._objects[location] = (bytes(data), datetime.now(UTC))

    async def open(self, location: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Driver`."""
        content = self._object(location)
        end = len(content) if length is None else min(len(content), offset + length)
        for start in range(offset, end, PIECE_SIZE):
            yield content[start : min(start + PIECE_SIZE, end)]

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        return len(self._object(location))

    async def delete(self, location: str) -> None:
        """See `Driver`."""
        self._objects.pop(location, None)

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        for location in sorted(self._objects):
            stored = self._objects.get(location)
            if stored is not None and location.startswith(prefix):
                yield Stored(location, len(stored[0]), stored[1])

    async def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`."""
        for location in sorted(self._uploads):
            parts = self._uploads.get(location, {})
            yield Stored(location, sum(map(len, parts.values())), self._begun.get(location, datetime.now(UTC)))

    async def sign(self, location: str, ttl: int) -> str | None:  # noqa: ARG002 - the interface's
        """Nothing: no one else reaches this memory."""
        return None

    async def check(self) -> None:
        """See `Driver`."""
        await probe(self)

    async def close(self) -> None:
        """Nothing to let go of; a peer may still use the objects."""

    def _forget(self, upload: str) -> None:
        self._uploads.pop(upload, None)
        self._begun.pop(upload, None)

    def _object(self, location: str) -> bytes:
        try:
            return self._objects[location][0]
        except KeyError:
            raise ObjectMissing(location) from None

    def _parts(self, state: UploadState) -> tuple[bytes, ...]:
        """The bytes of the upload, part by part. Raises ObjectMissing when some are not there."""
        stored = self._uploads.get(state.location, {})
        parts = tuple(stored[part.name] for part in state.parts if part.name in stored)
        if sum(map(len, parts)) != state.offset:
            raise ObjectMissing(state.location)
        return parts
