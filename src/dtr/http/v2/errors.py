"""
What each error is on the wire: OCI distribution specification 1.1, "Error Codes".

`answer` turns an exception of the rooms into an `Answer`; what is not in the table is not meant for clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from dtr.db import DatabaseBusy, DatabaseFull, DatabaseRefused, DatabaseUnavailable
from dtr.enforcement import PullRefused
from dtr.mirrors import UpstreamFailed
from dtr.oci import (
    ContentRangeInvalid,
    DigestInvalid,
    DigestUnsupported,
    ManifestInvalid,
    ManifestUnsupported,
    NameInvalid,
    RangeNotSatisfiable,
    ReferenceInvalid,
)
from dtr.registry import (
    BlobReferenced,
    BlobTooLarge,
    BlobUnknown,
    BodyFailed,
    DigestMismatch,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryUnknown,
    TagImmutable,
    TagSigned,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
)
from dtr.storage import StorageError, StorageFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.http.types import Header

_LONGEST_WARNING = 2000
"""Of the 4096 bytes of all warnings that the specification allows."""
_UNQUOTABLE = {ord('"'): "'", ord("\\"): "/", **dict.fromkeys((*range(32), 127), " ")}
"""What clients do not all understand in a quoted text, even when it is escaped."""
_RETRY = ((b"retry-after", b"5"),)
_NO_DATABASE = "the registry's database does not answer"


class Refused(Exception):
    """A request that this layer refuses by itself."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        detail: Any = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers


class Answer(Struct, frozen=True):
    """An error as it is sent."""

    status: int
    code: str
    message: str
    detail: Any = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    more: tuple[tuple[str, str, Any], ...] = field(default=())
    """Further errors of the same request: code, message, detail."""

    def body(self) -> bytes:
        """The error body as JSON."""
        errors = [
            {"code": code, "message": message} | ({} if detail is None else {"detail": detail})
            for code, message, detail in ((self.code, self.message, self.detail), *self.more)
        ]
        return msgspec.json.encode({"errors": errors}, enc_hook=str)

    def warning(self) -> Header:
        """The message as a header, where there is no body: section "Warnings" of the specification."""
        text = self.message[:_LONGEST_WARNING].translate(_UNQUOTABLE)
        return (b"warning", f'299 - "{text}"'.encode("ascii", "replace"))


def _incomplete(error: ManifestIncomplete) -> Answer:
    lacking = (*error.blobs, *error.manifests)
    first, *others = [
        ("MANIFEST_BLOB_UNKNOWN", f"{digest} is not in this repository", {"digest": digest}) for digest in lacking
    ]
    return Answer(404, *first, more=tuple(others))


_TABLE: dict[type[Exception], Callable[[Any], Answer]] = {
    Refused: lambda e: Answer(e.status, e.code, e.message, e.detail, e.headers),
    NameInvalid: lambda e: Answer(400, "NAME_INVALID", str(e)),
    ReferenceInvalid: lambda e: Answer(400, "TAG_INVALID", str(e)),
    DigestUnsupported: lambda e: Answer(400, "DIGEST_INVALID", str(e)),
    DigestInvalid: lambda e: Answer(400, "DIGEST_INVALID", str(e)),
    ContentRangeInvalid: lambda e: Answer(400, "BLOB_UPLOAD_INVALID", str(e)),
    RangeNotSatisfiable: lambda e: Answer(
        416, "RANGE_INVALID", str(e), headers=((b"content-range", b"bytes */%d" % e.size),)
    ),
    ManifestInvalid: lambda e: Answer(400, "MANIFEST_INVALID", str(e)),
    ManifestUnsupported: lambda e: Answer(400, "MANIFEST_INVALID", str(e)),
    ManifestIncomplete: _incomplete,
    ManifestUnknown: lambda e: Answer(404, "MANIFEST_UNKNOWN", "manifest unknown", {"reference": e.reference}),
    PullRefused: lambda e: Answer(403, "DENIED", str(e), {"reference": e.reference, "digest": e.digest}),
    ManifestReferenced: lambda e: Answer(
        405, "UNSUPPORTED", f"manifest is part of the index {e.index}; delete that first", {"index": e.index}
    ),
    TagSigned: lambda e: Answer(
        409, "TAG_IN_NOTARY", f"{e}: its signatures have to be removed before", {"tag": e.tag}
    ),
    # In words of its own: with the specification's alone, docker tries again for a minute.
    RepositoryUnknown: lambda e: Answer(
        404, "NAME_UNKNOWN", f"repository {e.path} does not exist", {"name": e.path}
    ),
    BlobUnknown: lambda e: Answer(404, "BLOB_UNKNOWN", "blob unknown to registry", {"digest": e.digest}),
    BlobReferenced: lambda e: Answer(
        405,
        "UNSUPPORTED",
        f"blob is part of the manifest {e.manifest}; delete that first",
        {"manifest": e.manifest},
    ),
    DigestMismatch: lambda e: Answer(
        400,
        "DIGEST_INVALID",
        "provided digest did not match uploaded content",
        {"computed": e.actual, "provided": e.expected},
    ),
    UpstreamFailed: lambda e: Answer(
        429 if e.is_busy else 503,
        "TOOMANYREQUESTS" if e.is_busy else "UNAVAILABLE",
        str(e),
        headers=((b"retry-after", b"%d" % e.retry_after),),
    ),
    UploadUnknown: lambda _: Answer(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
    UploadOutOfOrder: lambda e: Answer(
        416, "RANGE_INVALID", str(e), headers=((b"range", upload_range(e.offset)),)
    ),
    UploadOccupied: lambda e: Answer(409, "BLOB_UPLOAD_INVALID", str(e)),
    BlobTooLarge: lambda e: Answer(413, "SIZE_INVALID", str(e)),
    BodyFailed: lambda e: Answer(400, "BLOB_UPLOAD_INVALID", str(e)),
    StorageFull: lambda _: Answer(507, "TOOMANYREQUESTS", "the registry's storage is full"),
    StorageError: lambda _: Answer(503, "UNAVAILABLE", "the registry's storage does not answer", headers=_RETRY),
    DatabaseFull: lambda _: Answer(507, "TOOMANYREQUESTS", "the registry's database is full"),
    DatabaseBusy: lambda _: Answer(503, "UNAVAILABLE", "the registry is busy", headers=_RETRY),
    DatabaseUnavailable: lambda _: Answer(503, "UNAVAILABLE", _NO_DATABASE, headers=_RETRY),
    DatabaseRefused: lambda _: Answer(503, "UNAVAILABLE", _NO_DATABASE, headers=_RETRY),
}


def answer(error: Exception) -> Answer | None:
    """What a client is told about `error`; None: nothing but that something went wrong."""
    for kind in type(error).__mro__:
        known = _TABLE.get(kind)
        if known is not None:
            return known(error)
    return None


def immutable(error: TagImmutable, repository: str) -> Answer:
    """DTR's own words for it; `repository` with the registry's host."""
    reason = "is an immutable repository" if error.pattern is None else f"has immutable tags {error.pattern}"
    return Answer(409, "UNKNOWN", f"tag={error.tag} cannot be overwritten because {repository} {reason}")


def upload_range(offset: int) -> bytes:
    """The header `Range` of an upload: inclusive, hence 0-0 also for none."""
    return b"0-%d" % max(0, offset - 1)
