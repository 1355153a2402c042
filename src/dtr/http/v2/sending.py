"""
How the bytes of a blob go out: this is decided in one place.

A small blob comes from the database. Any other one has an object in a storage, and then, in this order:

1. where the storage redirects, a client that may be sent there gets 307 and a signed address (GET only: HEAD is
   answered here, and who comes here may read the blob);
2. where the storage has files, nginx in front is told which one to send, when it said that it can
   (``X-Accel-Redirect``); without it the kernel sends the file;
3. otherwise the bytes are passed on as they come, by a thread between the two sockets where that can be.

An object that is not there makes its blob a missing one; a storage that does not answer does not.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from dtr.http.bodies import ACCOUNT, FILES, REACHABLE, send_fetched, send_from_file
from dtr.http.v2.request import not_modified, range_applies, respond, start_response
from dtr.oci import parse_range
from dtr.registry import SMALL, BlobUnknown
from dtr.storage import ObjectMissing, StorageUnavailable

if TYPE_CHECKING:
    from dtr.http.front import Facts
    from dtr.http.types import Header
    from dtr.http.v2.request import Request
    from dtr.oci import Digest
    from dtr.registry import Blob, Blobs
    from dtr.storage import Redirect, Storages

_NOT_OF_NGINX = frozenset({b"accept-ranges", b"content-range"})
"""What nginx says by itself of a file that it sends."""
_CONDITIONS = frozenset({b"if-match", b"if-unmodified-since"})
"""What nginx would obey, without knowing the digest, and dtr does not."""
_PLAIN_LOCATION = re.compile(r"[a-z0-9-]+:(?:[A-Za-z0-9_+-][A-Za-z0-9._+-]*/)*[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
"""A location that means the same in a URL: nothing to escape, and no part that begins with a dot."""


async def begin_blob(request: Request, digest: Digest, size: int) -> tuple[int, list[Header], int, int] | None:
    """
    How the answer with a blob of `size` begins: status and headers, where its bytes begin, and how many.

    None: no bytes are wanted, and the answer was sent. Raises RangeNotSatisfiable.
    """
    headers: list[Header] = [
        (b"content-type", b"application/octet-stream"),
        (b"docker-content-digest", digest.encode()),
        (b"etag", b'"%b"' % digest.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, max-age=31536000"),
    ]
    if not_modified(request, digest.encode()):
        await respond(request, 304, b"", headers[1:])
        return None
    status, offset, count = 200, 0, size
    wanted = request.headers.get(b"range")
    if wanted is not None and request.method == "GET" and range_applies(request, digest.encode()):
        part = parse_range(wanted.decode("latin-1"), size)
        if part is not None:
            status, offset, count = 206, part.start, part.stop - part.start
            headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, part.stop - 1, size)))
    if request.method == "HEAD":
        await respond(request, status, b"", headers, length=count)
        return None
    return status, headers, offset, count


class BlobSender:
    """Sends blobs to clients that may read them."""

    def __init__(self, storage: Storages, blobs: Blobs) -> None:
        self._storage = storage
        self._blobs = blobs

    async def send(self, request: Request, digest: Digest, blob: Blob) -> None:
        """Answer with a blob, or a part of it. Raises BlobUnknown, RangeNotSatisfiable, StorageError."""
        head = await begin_blob(request, digest, blob.size)
        if head is None:
            return
        status, headers, offset, count = head
        location = blob.location
        if location is None:
            data = blob.content or b""
            if len(data) != blob.size:
                raise OSError(f"blob {digest} is not whole in the database")
            await respond(request, status, data[offset : offset + count], headers)
            return
        storage = await self._storage.prepare(location)
        redirect = storage.redirect
        if redirect is not None and _may_redirect(request, redirect):
            address = await self._storage.sign(location, redirect.seconds)
            if address is not None:
                await respond(
                    request, 307, b"", ((b"location", address.encode()), (b"cache-control", b"no-store"))
                )
                return
        try:
            if storage.has_files:
                await self._send_file(request, location, blob.size, status, headers, offset, count)
            else:
                await self._send_fetched(request, location, status, headers, offset, count)
        except ObjectMissing:
            if not await self._storage.is_missing(location):
                raise StorageUnavailable("the storage was replaced at this moment") from None
            await self._blobs.mark_missing(blob)
            raise BlobUnknown(digest) from None

    async def _send_file(
        self,
        request: Request,
        location: str,
        size: int,
        status: int,
        headers: list[Header],
        offset: int,
        count: int,
    ) -> None:
        file = self._storage.open_reader(location)
        try:
            if count <= SMALL:
                data = os.pread(file, count, offset)
                if len(data) < count:
                    raise OSError(f"the object at {location} is shorter than its blob")
                await respond(request, status, data, headers)
            elif _may_hand_over(request, location, status):
                if os.fstat(file).st_size != size:
                    raise OSError(f"the object at {location} has another size than its blob")
                await _hand_over(request, location, headers, count)
            else:
                await start_response(request, status, [*headers, (b"content-length", b"%d" % count)])
                await send_from_file(request.scope, request.send, file, offset, count)
        finally:
            os.close(file)

    async def _send_fetched(
        self, request: Request, location: str, status: int, headers: list[Header], offset: int, count: int
    ) -> None:
        # The store has answered before the client is: a missing object is still an honest 404.
        async with self._storage.fetch(location, offset, count) as fetched:
            if fetched.size not in {None, count}:
                raise OSError(f"the object at {location} has another size than its blob")
            await start_response(request, status, [*headers, (b"content-length", b"%d" % count)])
            await send_fetched(request.scope, request.send, fetched, count)


def _may_hand_over(request: Request, location: str, status: int) -> bool:
    """Whether nginx is in front, reads the files of this storage, and would answer this request as dtr does."""
    storages: list[str] | None = request.scope.get(REACHABLE)
    if storages is None or location.partition(":")[0] not in storages:
        return False
    headers = request.headers
    if status != 206 and b"range" in headers:  # not followed, for a reason that nginx may not share
        return False
    return not _CONDITIONS & headers.keys() and _PLAIN_LOCATION.fullmatch(location) is not None


async def _hand_over(request: Request, location: str, headers: list[Header], count: int) -> None:
    """Let nginx send the file, or the part of it that the client wants: `count` bytes."""
    place = f"{FILES}{location.replace(':', '/', 1)}".encode()
    own = [(name, value) for name, value in headers if name not in _NOT_OF_NGINX]
    facts: Facts | None = request.scope.get("dtr.facts")
    if facts is not None:
        facts.bytes_out += count
        if facts.limits is not None and facts.actor:
            own.append((ACCOUNT.lower().encode(), facts.actor.encode()))
    await respond(request, 200, b"", [*own, (b"x-accel-redirect", place)])


def _may_redirect(request: Request, redirect: Redirect) -> bool:
    """Whether this client is one that reaches the storage; of a client without an address nobody knows."""
    if not redirect.excepted:
        return True
    client = request.scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return not any((mapped or address) in network for network in redirect.excepted)
