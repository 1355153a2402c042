"""A blob on its way to another registry: distribution specification 1.1, "Pushing a blob in chunks"."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from dtr.remotes.errors import (
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    RemoteUnknown,
    RemoteUnreachable,
)
from dtr.remotes.session import lead

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from aiohttp import ClientResponse

    from dtr.remotes.session import Session

PIECE = 1024 * 1024
"""The most bytes of a blob that are held at a time."""
ATTEMPTS = 4
"""So often in a row a blob is gone on with without a byte of progress."""

_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_SENT = 128 * 1024
"""So many bytes are handed over at a time: a slow connection takes them before it counts as silent."""
_IN_ONE_PIECE = 256 * 1024
"""A blob of so many bytes is sent with the request that ends its upload."""
_OFFSET = re.compile(r"(?:bytes[= ])?0-(\d{1,19})")


class Upload:
    """Of a blob of `size` bytes; `read` gives them from an offset on."""

    def __init__(
        self,
        session: Session,
        base: str,
        scopes: tuple[str, ...],
        digest: str,
        size: int,
        read: Callable[[int], AsyncIterator[bytes]],
    ) -> None:
        """`base` is the address of the repository, with a slash at its end."""
        self._session = session
        self._base = base
        self._scopes = scopes
        self._digest = digest
        self._size = size
        self._read = read
        self._location = ""  # where it goes on; empty: nowhere yet
        self._offset = 0
        self._is_known = True  # how far it has come
        self._is_again = False

    async def run(self) -> None:
        """
        Send it, however often that breaks, as long as it goes on.

        Raises RemoteError, and what `read` raises; what has come is given up then.
        """
        failures = reached = 0
        try:
            while True:
                try:
                    if self._location and not self._is_known:
                        await self._look()
                        if self._offset > reached:
                            failures, reached = 0, self._offset
                    await self._attempt()
                except (RemoteUnreachable, RemoteDenied, RemoteUnknown, RemoteBusy) as error:
                    self._is_known = False
                    self._is_again = True
                    failures += 1
                    pause = max(pause_after(failures), error.retry_after or 0)
                    # A token or the upload may have expired: that is healed by beginning anew, once.
                    lasts = isinstance(error, RemoteDenied | RemoteUnknown) and failures > 1
                    if failures >= ATTEMPTS or lasts or pause > _LONGEST_PAUSE:
                        raise
                    await asyncio.sleep(pause)
                else:
                    return
        except Exception:
            if self._location:
                await cancel(self._session, self._location, self._scopes)
            raise

    async def _attempt(self) -> None:
        """Send what is missing, and end the upload."""
        if not self._location:
            if self._is_again and await self._is_there():  # only the answer got lost
                return
            await self._begin()
        tail = b""
        if self._offset == 0 and self._size <= _IN_ONE_PIECE:
            async with contextlib.aclosing(self._pieces()) as pieces:
                tail = b"".join([piece async for piece in pieces])
        elif self._offset < self._size:
            await self._send()
        await self._end(tail)

    async def _is_there(self) -> bool:
        async with self._session.ask("HEAD", f"{self._base}blobs/{self._digest}", self._scopes) as response:
            return response.status == 200

    async def _begin(self) -> None:
        async with self._session.ask("POST", f"{self._base}blobs/uploads/", self._scopes) as response:
            await self._session.expect(response, 202)
            self._go_on_at(response)
        self._offset = 0

    async def _send(self) -> None:
        """All that is missing, in one request, whose body comes as it is read."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._size - self._offset),
            "Content-Range": f"{self._offset}-{self._size - 1}",
        }
        failure: list[Exception] = []
        loop, silence = asyncio.get_running_loop(), self._session.silence_seconds

        try:
            async with asyncio.timeout(silence) as watch:

                async def body() -> AsyncGenerator[bytes, None]:
                    try:
                        async with contextlib.aclosing(self._pieces()) as pieces:
                            async for piece in pieces:
                                watch.reschedule(loop.time() + silence)
                                yield piece
                        watch.reschedule(loop.time() + silence)
                    except Exception as error:
                        failure.append(error)
                        raise

                async with self._session.ask(
                    "PATCH", self._location, self._scopes, headers, data=body(), repeatable=False
                ) as response:
                    await self._session.expect(response, 202, 201, 204)
                    self._go_on_at(response)
        except TimeoutError:
            raise RemoteUnreachable("the remote did not take what it was sent in time") from None
        except RemoteUnreachable:
            if failure:
                raise failure[0] from None
            raise
        self._offset = self._size

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """What is missing, in pieces. Raises what `read` raises, and ValueError: it gives too few or too many."""
        missing = self._size - self._offset
        source = self._read(self._offset)
        try:
            async for part in source:
                missing -= len(part)
                if missing < 0:
                    break
                for begin in range(0, len(part), _SENT):
                    yield part[begin : begin + _SENT]
        finally:
            if (close := getattr(source, "aclose", None)) is not None:
                await close()
        if missing:
            raise ValueError(f"there are other than {self._size} bytes of {self._digest}")

    async def _end(self, tail: bytes) -> None:
        separator = "&" if "?" in self._location else "?"
        url = f"{self._location}{separator}digest={quote(self._digest, safe=':')}"
        headers = {"Content-Type": "application/octet-stream"}
        async with self._session.ask("PUT", url, self._scopes, headers, data=tail, repeatable=False) as response:
            await self._session.expect(response, 200, 201, 202, 204)
        self._location = ""

    async def _look(self) -> None:
        """Find out how far it has come; an upload that is not there any more begins anew. Raises RemoteError."""
        try:
            async with self._session.ask("GET", self._location, self._scopes) as response:
                await self._session.expect(response, 200, 204)
                found = _OFFSET.fullmatch(response.headers.get("Range", ""))
                # 0-0 is nothing, or one byte: some cannot say it better.
                offset = int(found[1]) + 1 if found is not None and 0 < int(found[1]) < self._size else 0
                if offset:
                    self._go_on_at(response)
        except (RemoteUnknown, RemoteRefused):
            offset = 0
        if not offset:
            await cancel(self._session, self._location, self._scopes)
            self._location = ""
        self._offset = offset
        self._is_known = True

    def _go_on_at(self, response: ClientResponse) -> None:
        place = response.headers.get("Location")
        if place is not None:
            self._location = lead(str(response.url), place)
        elif not self._location:
            raise RemoteBroken("the remote does not say where the upload goes on")


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return _PAUSE * 2.0 ** (failures - 1)


async def cancel(session: Session, location: str, scopes: tuple[str, ...]) -> None:
    """End an upload without a blob, if the remote lets us."""
    with contextlib.suppress(RemoteError):
        async with session.ask("DELETE", location, scopes):
            pass
