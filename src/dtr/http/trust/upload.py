"""
The body of an update: a form of files, each named after its role (notary-v1, section 2.3).

Names hold slashes, the order is any, and there may be no file at all. The bytes of a part are what is stored.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dtr.http.bodies import BodyError, BodyTooLarge, content_length, stream_body
from dtr.http.trust.errors import Refused, rejected
from dtr.tuf import Envelope, Malformed, is_role

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

    from dtr.http.types import Receive, Scope

# It would log what clients get wrong, which they are told.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

_KINDS = frozenset({b"multipart/form-data", b"multipart/mixed"})
_LONGEST_BOUNDARY = 70
_MOST_PARTS = 1_000
_LONGEST_SHOWN = 255
_READ_IN_LOOP = 64 * 1024
"""Larger updates are read in a thread."""


class Upload(Struct, frozen=True):
    """What came of an update: `size` in bytes."""

    files: tuple[tuple[str | None, bytes], ...]
    """Name (None: there is none) and bytes of each, in their order."""
    size: int
    flaw: Refused | None
    """What is wrong behind them."""


async def receive_update(scope: Scope, receive: Receive, content_type: bytes, limit: int) -> Upload:
    """Take a body of at most `limit` bytes. Raises Refused for one that is no form at all."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind not in _KINDS or not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise Refused(400, "MALFORMED_UPLOAD", "the update is not multipart/form-data with a boundary")
    if (content_length(scope) or 0) > limit:
        raise _too_large(limit)
    form = _Form(boundary)
    size = 0
    flaw = None
    try:
        async for piece in stream_body(receive, limit):
            size += len(piece)
            if size > _READ_IN_LOOP:
                await asyncio.to_thread(form.write, piece)
            else:
                form.write(piece)
            if len(form.files) > _MOST_PARTS:
                raise rejected("MALFORMED_UPLOAD", f"the update has more than {_MOST_PARTS} files")
    except BodyTooLarge:
        flaw = _too_large(limit)
    except (BodyError, FormParserError):
        flaw = _malformed()
    if flaw is None and not form.is_complete:
        flaw = _malformed()
    return Upload(tuple(form.files), size, flaw)


async def read_files(upload: Upload) -> list[tuple[str, Envelope]]:
    """Role and file of each part. Raises Refused, for the first that is wrong."""
    if upload.size > _READ_IN_LOOP:
        found = await asyncio.to_thread(_read_all, upload)
    else:
        found = _read_all(upload)
    if upload.flaw is not None:
        raise upload.flaw
    return found


def _read_all(upload: Upload) -> list[tuple[str, Envelope]]:
    return [_read(name, content) for name, content in upload.files]


def _read(name: str | None, content: bytes) -> tuple[str, Envelope]:
    if not name:
        raise Refused(400, "NO_FILENAME", "a file of the update has no name")
    role = name.removesuffix(".json")
    if not is_role(role):
        raise Refused(400, "INVALID_ROLE", "a file of the update is not named after a role", role[:_LONGEST_SHOWN])
    try:
        return role, Envelope.parse(content)
    except Malformed as error:
        raise Refused(400, "MALFORMED_JSON", str(error)) from None


def _malformed() -> Refused:
    return Refused(400, "MALFORMED_UPLOAD", "the update is not a form, or did not arrive whole")


def _too_large(limit: int) -> Refused:
    return rejected("MALFORMED_UPLOAD", f"the update is larger than {limit} bytes")


class _Form:
    """What the parser says, put together to files."""

    def __init__(self, boundary: bytes) -> None:
        self.is_complete = False
        self._name = b""
        self._value = b""
        self._file: str | None = None
        self._content: list[bytes] = []
        self.files: list[tuple[str | None, bytes]] = []
        """Those that are complete; the name is None when there is none."""
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_part_data": self._on_data,
            "on_part_end": self._finish,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def write(self, piece: bytes) -> None:
        """The next bytes of the body. Raises FormParserError."""
        self._parser.write(piece)

    def _begin(self) -> None:
        self._file = None
        self._content = []
        self._name = self._value = b""

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._file = options.get(b"filename", b"").decode("latin-1")
        self._name = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _finish(self) -> None:
        self.files.append((self._file, b"".join(self._content)))
        self._content = []

    def _end(self) -> None:
        self.is_complete = True
