"""
Names of tags in a target: a template with codes for the source's tag and the time.

DTR's codes, with the meaning that C's `strftime` gives them; what is no code stays as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt

_CODE = re.compile(r"%([nAawdBbmYyHIpMSfZjW%])")


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
