"""
``…/manifests/{reference}/files/{digest}``: a layer as a file to keep, for browsers and scripts without a client.

What may be pulled may be fetched here, and nothing else: the rights are those of a pull, policies about signatures
are asked, and it is counted and written down as one. Whoever may push chose the bytes, so no browser is to show or
run them: they are a file of no type to be saved (RFC 6266), in a sandbox.
"""

from __future__ import annotations

from contextlib import ExitStack, aclosing
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.operations import Router
from dtr.http.api.repositories import FROM_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.oci import OciError, parse_manifest, parse_reference
from dtr.registry import BlobUnknown
from dtr.storage import ObjectMissing, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.types import Receive, Scope, Send

    from dtr.http.api.rooms import Rooms
    from dtr.oci import Descriptor
    from dtr.registry import Blob

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/manifests", tags=["repositories"])

_TITLE = "org.opencontainers.image.title"
_LONGEST_NAME = 120
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
"""What a file cannot be called on some system, or would end the name in the header."""
_ENDINGS = (
    ("json", ".json"),
    ("tar+gzip", ".tar.gz"),
    ("tar.gzip", ".tar.gz"),
    ("tar+zstd", ".tar.zst"),
    ("tar", ".tar"),
    ("xml", ".xml"),
    ("yaml", ".yaml"),
    ("plain", ".txt"),
)
"""By how a media type ends, what the name of a file ends with that has none."""
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes of the layer.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get(
    "/{reference}/files/{digest}",
    summary="A layer, as a file",
    response_class=StreamingResponse,
    responses={
        **_BYTES,
        **errors(*FROM_REPOSITORY, "NO_SUCH_REF", "NO_SUCH_FILE", "PULL_REFUSED", "STORAGE_UNAVAILABLE"),
    },
)
async def get_manifest_file(
    path: PathDep, reference: str, digest: str, caller: CallerDep, rooms: RoomsDep, request: Request
) -> Response:
    """
    One of the layers that a tag or digest names: a bill of materials, an attestation, a chart.

    For who may pull, as a pull of the manifest. The file is called as its title says.
    """
    repository = await caller.require_on(path, Operation.PULL)
    try:
        named = parse_reference(reference)
    except OciError:
        raise ApiError("NO_SUCH_REF", reference[:255]) from None
    found = await rooms.manifests.get(path, named)
    if found.repository != repository:  # another one has got the name since
        raise ApiError("NO_SUCH_REPOSITORY", path)
    if rooms.enforcement.concerns(repository, found.namespace):
        await rooms.enforcement.check(repository, found.namespace, reference, found.digest, who=caller.actor)
    layers = parse_manifest(found.payload, found.media_type).layers
    layer = next((one for one in layers if one.digest == digest), None)
    if layer is None:
        raise ApiError("NO_SUCH_FILE", digest[:255])
    try:
        blob = await rooms.blobs.get(path, layer.digest, content=True)
    except BlobUnknown:
        raise ApiError("NO_SUCH_FILE", digest[:255]) from None
    if blob.repository != repository:
        raise ApiError("NO_SUCH_REPOSITORY", path)
    headers = {
        **_SAFE,
        "Content-Disposition": _disposition(file_name(layer)),
        "Content-Length": str(blob.size),
        "Docker-Content-Digest": layer.digest,
    }
    if request.method == "HEAD" or request.scope.get("dtr.is_head"):
        return Response(headers=headers, media_type="application/octet-stream")
    facts = request.scope.get("dtr.facts")
    with ExitStack() as transfer:  # one of those that are counted, until the last byte is sent
        if facts is not None:
            transfer.enter_context(facts.transferring())
        pieces = await _open(rooms, blob)
        rooms.pulls.add(repository, reference, found.digest, by=caller.actor)
        return _File(pieces, transfer.pop_all(), headers)


class _File(StreamingResponse):
    """The answer with the bytes of a layer; when it ends, however it does, `transfer` ends."""

    def __init__(self, pieces: AsyncIterator[bytes], transfer: ExitStack, headers: dict[str, str]) -> None:
        super().__init__(pieces, headers=headers, media_type="application/octet-stream")
        self._transfer = transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._transfer:
            await super().__call__(scope, receive, send)


async def _open(rooms: Rooms, blob: Blob) -> AsyncIterator[bytes]:
    """The bytes of a blob, of which the first are there. Raises ApiError: they are not, or nobody knows."""
    if blob.location is None:
        content = blob.content or b""
        if len(content) != blob.size:
            raise OSError(f"blob {blob.digest} is not whole in the database")
        return _whole(content)
    pieces = rooms.storage.open(blob.location)
    try:
        first = await anext(pieces, b"")
    except ObjectMissing:
        raise ApiError("NO_SUCH_FILE", blob.digest) from None
    except StorageError as error:
        raise ApiError("STORAGE_UNAVAILABLE", str(error), {"Retry-After": "5"}) from error
    return _rest(first, pieces, blob)


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _rest(first: bytes, pieces: AsyncGenerator[bytes, None], blob: Blob) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        sent = len(first)
        yield first
        async for piece in pieces:
            sent += len(piece)
            yield piece
    if sent != blob.size:
        raise OSError(f"the object at {blob.location} has another size than its blob")


def file_name(layer: Descriptor) -> str:
    """
    What the file of a layer is called: as its title says, without a path and whatever a file cannot be called.

    Without a title it is the beginning of the digest, and an ending by the media type.
    """
    title = PurePosixPath(layer.annotations.get(_TITLE, "").replace("\\", "/")).name
    name = "".join(one for one in title if one.isprintable() and one not in _NOT_IN_NAMES).strip(" .")
    if name:
        return name[:_LONGEST_NAME]
    kind = layer.media_type.partition(";")[0]
    ending = next((ending for part, ending in _ENDINGS if kind.endswith(part)), ".bin")
    return f"{layer.digest.partition(':')[2][:12]}{ending}"


def _disposition(name: str) -> str:
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
