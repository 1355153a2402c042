"""
Moments in metadata: RFC 3339, with up to nine digits of a second's fraction and any offset.

They are read for comparison only, as whole nanoseconds since 1970 (UTC), and never written anew: what is stored is
what was signed.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TypeAlias

from dtr.tuf.errors import MetadataInvalid

Nanoseconds: TypeAlias = int

_SECOND = 10**9
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,64}))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)


def nanoseconds(moment: dt.datetime) -> Nanoseconds:
    """A moment with a time zone, to compare with what files say."""
    return (moment - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def read_moment(text: str) -> Nanoseconds:
    """The moment of an RFC 3339 text. Raises MetadataInvalid."""
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        day, fraction, sign, hours, minutes = found.groups()
        seconds = (dt.datetime.fromisoformat(f"{day}+00:00") - _EPOCH) // dt.timedelta(seconds=1)
    except ValueError:
        raise MetadataInvalid("expires is not a moment by RFC 3339") from None
    if sign is not None:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * _SECOND + int((fraction or "0")[:9].ljust(9, "0"))


def write_moment(moment: dt.datetime) -> str:
    """A moment in UTC, to the second."""
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
