"""A request's body as the rooms take it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dtr.http.bodies import (
    BodyCut,
    BodyMalformed,
    BodyTooLarge,
    BodyWriteFailed,
    content_length,
    read_body,
    receive_to_file,
    stream_body,
)
from dtr.registry import SMALL, BlobTooLarge, BodyFailed
from dtr.storage import StorageFull, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dtr.http.types import Message, Receive, Scope
    from dtr.registry import File, Hasher

_READ: Scope = {"headers": []}
"""Of a body that was read: no thread gets it from the socket any more."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RequestBody:
    """A `Body` over ASGI."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self.length = content_length(scope)

    async def read(self) -> bytes:
        """See `Body`."""
        try:
            data = await read_body(self._scope, self._receive, SMALL)
        except (BodyCut, BodyMalformed) as error:
            raise BodyFailed(0) from error
        except BodyTooLarge:
            raise BlobTooLarge(SMALL) from None
        self._scope, self._receive = _READ, _repeating(data)
        return data

    async def into_file(self, file: File, hasher: Hasher, limit: int | None) -> int:
        """See `Body`."""
        try:
            return await receive_to_file(self._scope, self._receive, file, hasher=hasher, limit=limit)
        except (BodyCut, BodyMalformed) as error:
            raise BodyFailed(error.written) from error
        except BodyTooLarge:
            raise BlobTooLarge(limit or 0) from None
        except BodyWriteFailed as error:
            if error.error.errno in _FULL:
                raise StorageFull(str(error.error)) from error
            raise StorageUnavailable(str(error.error)) from error

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `Body`."""
        written = 0
        try:
            async for piece in stream_body(self._receive, None):
                written += len(piece)
                yield piece
        except (BodyCut, BodyMalformed) as error:
            raise BodyFailed(written) from error


def _repeating(data: bytes) -> Receive:
    """What gives a body that was read, as often as it is wanted."""

    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    return receive
