"""Ranges of bytes: RFC 9110, section 14, and the uploads of the OCI distribution specification 1.1."""

from __future__ import annotations

import re

from dtr.oci.errors import ContentRangeInvalid, RangeNotSatisfiable

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE | re.ASCII)
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?[ ]*([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")


def parse_range(header: str, size: int) -> range | None:
    """
    The positions that a header `Range` asks for, of `size` bytes.

    None: it has to be ignored (another unit, several ranges, not understood; RFC 9110, section 14.2). Raises
    RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        length = int(last)
        if length == 0:
            raise RangeNotSatisfiable(size)
        # The last bytes of nothing are all of it, which no Content-Range can say.
        return range(max(size - length, 0), size) if size else None
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return range(start, min(int(last) + 1, size) if last else size)


def parse_content_range(header: str) -> tuple[int, int]:
    """
    The first and last position of a chunk: ``0-99``.

    What some clients send, ``bytes 0-99/*``, is understood, too. Raises ContentRangeInvalid.
    """
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise ContentRangeInvalid
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ContentRangeInvalid
    return first, last
