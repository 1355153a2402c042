"""
Challenges: the header ``WWW-Authenticate``, RFC 9110 section 11.6.1. No I/O.

Several challenges may be in one header, and several parameters in each; both are separated by commas.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - a token of the grammar
_ITEM = re.compile(
    rf'[\s,]*(?P<name>{_TOKEN})(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))|(?=[\s,]|$))'
)
_ESCAPED = re.compile(r"\\(.)")


class Challenge(Struct, frozen=True):
    """How a server wants a request to be authorized; `scheme` and names of parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of these headers, in their order; what cannot be read ends its header."""
    found: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        position = 0
        begun = len(found)
        while match := _ITEM.match(header, position):
            position = match.end()
            name, quoted, plain = match["name"].lower(), match["quoted"], match["plain"]
            if quoted is None and plain is None:
                found.append((name, {}))
            elif len(found) > begun:
                found[-1][1].setdefault(name, _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain)
            else:
                break
    return [Challenge(scheme, parameters) for scheme, parameters in found]
