"""
The order of tags as versions.

A tag that begins like a version (``1.2.3``, ``v2``, ``2.0-rc1``, ``3-alpine``) is compared number by number, so
``6.0.10`` is above ``6.0.8``. Of the same numbers a pre-release is below the release, and a variant of the release
(``1.2-alpine``) between them; what has more numbers is above (``1.2.0`` above ``1.2``). Tags that are no versions
are below all that are, and compare their own numbers as numbers, too.

The key is text that databases compare by bytes.
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"[vV]?(?P<numbers>[0-9]+(?:\.[0-9]+)*)(?P<rest>.*)", re.DOTALL)
_SEPARATED = re.compile(r"[-_.]")
_PRE_RELEASE = re.compile(
    r"[-_.]?(?:a|alpha|b|beta|c|cr|rc|dev|pre|preview|m|milestone|snapshot|nightly|canary|ea)(?:[-_.]?[0-9]|[-_.]|$)",
    re.IGNORECASE,
)
_PART = re.compile(r"[0-9]+|[^0-9]+")

_OTHER, _IS_VERSION = "0", "1"
_PRE, _VARIANT, _RELEASE, _MORE = "1", "2", "3", "4"
"""What may stand behind a number, in ascending order."""
_LONGEST = 78


def version_key(tag: str) -> str:
    """The key of a tag; the highest version has the greatest."""
    found = _VERSION.fullmatch(tag)
    if found is None:
        return f"{_OTHER}{_natural(tag)}"
    numbers, rest = found["numbers"], found["rest"]
    is_pre = _PRE_RELEASE.match(rest) is not None
    if rest and _SEPARATED.match(rest) is None and not (is_pre and "." in numbers):  # the hash of a commit, or so
        return f"{_OTHER}{_natural(tag)}"
    key = _MORE.join(map(_number, numbers.split(".")))
    if not rest:
        return f"{_IS_VERSION}{key}{_RELEASE}"
    return f"{_IS_VERSION}{key}{_PRE if is_pre else _VARIANT}{_natural(rest)}"


def _natural(text: str) -> str:
    """Text in which numbers compare as such."""
    return "".join(_number(one) if one[0].isdecimal() else one.lower() for one in _PART.findall(text))


def _number(digits: str) -> str:
    """Digits behind a character that says how many there are: none of more than 78 is told apart by its length."""
    digits = digits.lstrip("0")
    return chr(ord("0") + min(len(digits), _LONGEST)) + digits
