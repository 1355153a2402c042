"""What other registries answer: bodies up to a limit, and errors by status."""

from __future__ import annotations

import datetime as dt
import json
import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from dtr.remotes.errors import (
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    RemoteUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import ClientResponse

LARGEST_ERROR = 8 * 1024
_SHOWN = 300
_LONGEST_WAIT = 86_400.0
BUSY = frozenset({429, 502, 503, 504})


async def read_limited(response: ClientResponse, limit: int) -> bytes:
    """The body of an answer. Raises RemoteBroken: it has more than `limit` bytes."""
    read = bytearray()
    while piece := await response.content.readany():
        read += piece
        if len(read) > limit:
            raise RemoteBroken(f"the remote answers with more than {limit} bytes")
    return bytes(read)


async def read_beginning(response: ClientResponse) -> bytes:
    """How the body of a refusal begins."""
    read = bytearray()
    while len(read) < LARGEST_ERROR and (piece := await response.content.read(LARGEST_ERROR - len(read))):
        read += piece
    return bytes(read)


def refusal(
    response: ClientResponse, content: bytes, who: str, redact: Callable[[str], str] = lambda text: text
) -> RemoteError:
    """The error that an answer means; `who` answered."""
    status = response.status
    reason = _reason(content)
    text = redact(f"{who} answered {status}" + (f" ({reason})" if reason else ""))
    if status in {401, 403}:
        return RemoteDenied(text)
    if status == 404:
        return RemoteUnknown(text)
    if status in BUSY:
        return RemoteBusy(text, retry_after=retry_after(response.headers))
    if 400 <= status < 500:
        return RemoteRefused(text)
    return RemoteBroken(text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """
    The seconds that a server wants to be left alone; None: it does not say.

    ``Retry-After`` as seconds or date (RFC 9110 section 10.2.3), else Docker Hub's ``RateLimit-Remaining:
    0;w=SECONDS``: when nothing is left, some comes back over the whole window.
    """
    given = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", given):
        return min(float(given), _LONGEST_WAIT)
    if given:
        try:
            moment = parsedate_to_datetime(given)
        except (ValueError, OverflowError):  # numbers may be as long as a header
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return min(max((moment - dt.datetime.now(dt.UTC)).total_seconds(), 0.0), _LONGEST_WAIT)
    left = re.fullmatch(r"(\d{1,9})\s*;\s*w=(\d{1,9})", headers.get("RateLimit-Remaining", "").strip())
    if left is not None and left[1] == "0":
        return min(float(left[2]) / 6, _LONGEST_WAIT)
    return None


def _reason(content: bytes) -> str:
    """The first error of a body as the distribution specification has it, "Error Codes"; empty: there is none."""
    try:
        document = json.loads(content)
        first = document["errors"][0]
        found = [first[key] for key in ("code", "message") if isinstance(first.get(key), str) and first[key]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    text = ": ".join(found)
    return "".join(one if one.isprintable() else "\ufffd" for one in text[:_SHOWN])
