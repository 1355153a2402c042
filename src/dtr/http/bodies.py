"""
Bodies of requests and answers, small and large.

A large body goes between socket and file. Where the server offers it (`dtr.http.protocol`), threads do that by
themselves; elsewhere the bytes come through the application, in pieces. So does what a store on the network gives:
from its socket to that of the client, or in pieces.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol

from dtr.shielded import in_thread
from dtr.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from dtr.http.types import Header, Message, Receive, Scope, Send
    from dtr.storage.driver import Fetched, Lent

RECEIVE_FILE = "dtr.receive_file"
SEND_FILE = "dtr.send_file"
SEND_LENT = "dtr.send_lent"
ANSWER = "dtr.answer"
IS_GONE = "dtr.is_gone"
IS_ENDING = "dtr.is_ending"
"""Names of the server's extensions, in ``scope["extensions"]``."""
MISDIRECTED = "dtr.misdirected"
"""One without a call: the request came in the clear to an address of TLS."""
REACHABLE = "X-Dtr-Files"
"""
The header in which nginx in front tells the names of the storages whose files it can send, separated by commas.

From a trusted proxy it is believed, and becomes a list in the scope, under the same name.
"""
ACCOUNT = "X-Dtr-Account"
"""Nginx is told by it whose transfer a file is, where transfers are limited."""
FILES = "/.files/"
"""
Where nginx finds these files: what follows is the storage's name, a slash, and the location within it.

It is told by ``X-Accel-Redirect``; a client that asks for such a path gets nothing.
"""
_WRITE_SIZE = 1024 * 1024
_READ_SIZE = 256 * 1024


class ClientGone(Exception):
    """Nobody takes the answer any more."""


class BodyError(Exception):
    """Base: a body that did not come as it should; `written` bytes of it were taken."""

    def __init__(self, written: int, reason: str = "") -> None:
        super().__init__(reason)
        self.written = written


class BodyCut(BodyError):
    """The client went away, or was too slow."""


class BodyTooLarge(BodyError):
    """There is more of it than is taken."""


class BodyMalformed(BodyError):
    """Its framing is broken."""


class BodyWriteFailed(BodyError):
    """The file did not take it; `error` says why."""

    def __init__(self, written: int, error: OSError) -> None:
        super().__init__(written, str(error))
        self.error = error


class Hasher(Protocol):
    """What is told all bytes that were written, in order."""

    def update(self, data: bytes | memoryview, /) -> None:
        """The next bytes."""


class File(Protocol):
    """A file that a body is written to. Threads call it."""

    def open(self) -> int:
        """Its descriptor, at the position where the body belongs. Raises what keeps it from being written."""

    def arrived(self, size: int) -> None:
        """The last of `size` bytes was written."""


class ReceiveFile(Protocol):
    """The extension `RECEIVE_FILE`: the request's body to a file; how many bytes."""

    async def __call__(self, file: File, *, hasher: Hasher, limit: int | None) -> int:
        """
        Raises `BodyError`; file and hasher then agree on the bytes that were written.

        The file is opened before anything is taken. Raises what that raised: then it may be called again.
        """


class SendFile(Protocol):
    """The extension `SEND_FILE`: the answer's body from a file, after its start was sent."""

    async def __call__(self, descriptor: int, offset: int, count: int) -> int:
        """
        How many bytes the client got: less than `count` when it went away.

        Raises OSError when the file cannot be read, or is shorter; the connection is then cut.
        """


class SendLent(Protocol):
    """The extension `SEND_LENT`: the answer's body from a store's socket, after its start was sent."""

    async def __call__(self, lent: Lent) -> int:
        """
        How many bytes the client got: less than there are when it went away.

        Raises StorageError when the store does not give them all; the connection is then cut.
        """


class AnswerAtOnce(Protocol):
    """
    The extension `ANSWER`: a whole small answer, in one call instead of two messages that are awaited.

    It saves a small request a tenth of its time.
    """

    def __call__(
        self, status: int, headers: Iterable[Header], body: bytes, *, more: bytes = ..., length: int | None = ...
    ) -> bool:
        """
        Whether it was written; False: not now, the answer has to be sent as messages.

        The headers have names in lower case, and say nothing of the framing; `more` are further ones as they are
        on the wire. HEAD gets no body; `length` is that of a body that was not fetched for it. Raises RuntimeError
        for a header that would end early.
        """


class IsGone(Protocol):
    """The extension `IS_GONE`: whether the client went away."""

    def __call__(self) -> bool:
        """Once it did, it stays so."""


class IsEnding(Protocol):
    """The extension `IS_ENDING`: whether the server ends, and an answer without an end should."""

    def __call__(self) -> bool:
        """Once it does, it stays so."""


def content_length(scope: Scope) -> int | None:
    """How long the request's body is; None: unknown. A request without a body has length 0."""
    chunked = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
        if name == b"transfer-encoding":
            chunked = True
    return None if chunked else 0


async def stream_body(receive: Receive, limit: int | None = None) -> AsyncIterator[bytes]:
    """The body in pieces. Iterating raises BodyCut, BodyTooLarge."""
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyCut(total, "the client went away")
        piece = message.get("body", b"")
        total += len(piece)
        if limit is not None and total > limit:
            raise BodyTooLarge(total - len(piece), f"more than {limit} bytes")
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


def bounded(receive: Receive, most: int) -> Receive:
    """The same, of a body of at most `most` bytes; what comes then raises BodyTooLarge."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise BodyTooLarge(most)
        return message

    return counted


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """A body of at most `limit` bytes. Raises BodyCut, BodyTooLarge."""
    length = content_length(scope)
    if length is not None and length > limit:
        raise BodyTooLarge(0, f"more than {limit} bytes")
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):  # in one piece, as most are
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLarge(0, f"more than {limit} bytes")
        return body
    if message["type"] == "http.disconnect":
        raise BodyCut(0, "the client went away")
    pieces = [message.get("body", b"")]
    pieces.extend([piece async for piece in stream_body(receive, limit - len(pieces[0]))])
    return b"".join(pieces)


async def receive_to_file(
    scope: Scope, receive: Receive, file: File, *, hasher: Hasher, limit: int | None = None
) -> int:
    """
    Write the body to a file, at most `limit` bytes; how many.

    Raises `BodyError`; file and hasher then agree on the bytes that were written. Raises what opening the file
    raised: then it may be called again.
    """
    extension: ReceiveFile | None = (scope.get("extensions") or {}).get(RECEIVE_FILE)
    if extension is not None:
        return await _received_by(extension, scope, file, hasher, limit)
    descriptor = await in_thread(file.open)
    written = 0
    waiting: list[bytes] = []
    size = 0

    async def flush(*, is_last: bool = False) -> None:
        nonlocal written, size
        data = b"".join(waiting)
        waiting.clear()
        size = 0
        written += await in_thread(_write, descriptor, data, hasher, written, file if is_last else None)

    try:
        async for piece in stream_body(receive, limit):
            waiting.append(piece)
            size += len(piece)
            if size >= _WRITE_SIZE:
                await flush()
    except BodyError as error:
        if waiting:
            await flush()
        error.written = written
        raise
    await flush(is_last=True)
    return written


async def _received_by(extension: ReceiveFile, scope: Scope, file: File, hasher: Hasher, limit: int | None) -> int:
    written = 0
    try:
        written = await extension(file, hasher=hasher, limit=limit)
    except BodyError as error:
        written = error.written
        raise
    finally:
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.bytes_in += written
    return written


async def send_from_file(scope: Scope, send: Send, descriptor: int, offset: int, count: int) -> None:
    """The answer's body from a file, after its start. Raises OSError when the file is shorter."""
    extension: SendFile | None = (scope.get("extensions") or {}).get(SEND_FILE)
    if extension is not None:
        sent = await extension(descriptor, offset, count)
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.bytes_out += sent
        return
    while count:
        piece = await asyncio.to_thread(os.pread, descriptor, min(count, _READ_SIZE), offset)
        if not piece:
            raise OSError("the file is shorter than it should be")
        offset += len(piece)
        count -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": count > 0})


async def send_fetched(scope: Scope, send: Send, fetched: Fetched, count: int) -> None:
    """
    The answer's body of `count` bytes from a store, after its start.

    Raises StorageError when the store does not give them, OSError when it has fewer.
    """
    extension: SendLent | None = (scope.get("extensions") or {}).get(SEND_LENT)
    lent = None
    if extension is not None and count > _READ_SIZE and fetched.size == count:
        lent = await fetched.lend()
    if extension is not None and lent is not None:
        sent = 0
        try:
            sent = await extension(lent)
        except StorageError:
            sent = count - lent.left
            raise
        finally:
            facts = scope.get("dtr.facts")
            if facts is not None:
                facts.bytes_out += sent
        return
    async for piece in fetched:
        count -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if count:
        raise OSError("the object is shorter than it should be")
    await send({"type": "http.response.body"})


def _write(descriptor: int, data: bytes, hasher: Hasher, before: int, arrived: File | None) -> int:
    done = 0
    with memoryview(data) as view:
        while done < len(view):
            try:
                count = os.write(descriptor, view[done:])
            except OSError as error:
                raise BodyWriteFailed(before + done, error) from error
            hasher.update(view[done : done + count])
            done += count
    if arrived is not None:
        arrived.arrived(before + done)
    return done
