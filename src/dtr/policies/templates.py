"""
Names of tags in a target: a template with codes for the source's tag and the time.

DTR's codes, with the meaning that C's `strftime` gives them; what is no code stays as it is.
"""

from __future__ import annotations

import datetime as dt
import re

from dtr.oci import OciError, Tag, parse_reference

CODES = "nAawdBbmYyHIpMSfZjW"
_CODE = re.compile(rf"%([{CODES}%])")


def expand(template: str, tag: str, moment: dt.datetime) -> str:
    """The name that `template` gives to the tag at a moment, in its time zone. It may be no valid name."""

    def replaced(match: re.Match[str]) -> str:
        code = match[1]
        if code == "n":
            return tag
        if code == "Z":
            return moment.tzname() or ""
        return moment.strftime(f"%{code}")

    return _CODE.sub(replaced, template)


def name_of(template: str, tag: str, moment: int) -> str | None:
    """The name that a template gives to a tag at a moment, milliseconds since 1970 UTC; None: no tag's."""
    name = expand(template, tag, dt.datetime.fromtimestamp(moment / 1000, dt.UTC))
    try:
        return name if isinstance(parse_reference(name), Tag) else None
    except OciError:
        return None
