"""
What a path of the notary protocol asks for: one table, read from above (notary-v1, section 2.1).

The name of a collection (its GUN) is whatever stands before ``/_trust/``, slashes and colons included. Names of
operations are those of the notary server's metrics.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping

Operation: TypeAlias = Literal[
    "UpdateTUF",
    "GetRoleByHash",
    "GetRoleByVersion",
    "GetRole",
    "GetKey",
    "RotateKey",
    "DeleteTUF",
    "Changefeed",
    "GlobalChangefeed",
    "Health",
    "Other",
]

MARK = "/_trust/"
"""In every path but that of the health: no part of a repository's name begins with an underscore."""
HEALTH = "/_notary_server/health"

_LONGEST_PATH = 2048
"""A collection's name and a role's have 255 characters each."""
_GUN = r"/v2/(?P<gun>[^*]+)/_trust"
_ROLE = r"(?P<role>root|targets(?:/[^/\s]+)*|snapshot|timestamp)"
_HASH = r"(?P<hash>[a-fA-F0-9]{64}|[a-fA-F0-9]{96}|[a-fA-F0-9]{128})"
_KEY = r"(?P<role>snapshot|timestamp)\.key"
_TABLE: tuple[tuple[str, re.Pattern[str], Operation], ...] = (
    ("POST", re.compile(rf"{_GUN}/tuf/"), "UpdateTUF"),
    ("GET", re.compile(rf"{_GUN}/tuf/{_ROLE}\.{_HASH}\.json"), "GetRoleByHash"),
    ("GET", re.compile(rf"{_GUN}/tuf/(?P<version>[0-9]+)\.{_ROLE}\.json"), "GetRoleByVersion"),
    ("GET", re.compile(rf"{_GUN}/tuf/{_ROLE}\.json"), "GetRole"),
    ("GET", re.compile(rf"{_GUN}/tuf/{_KEY}"), "GetKey"),
    ("POST", re.compile(rf"{_GUN}/tuf/{_KEY}"), "RotateKey"),
    ("DELETE", re.compile(rf"{_GUN}/tuf/"), "DeleteTUF"),
    ("GET", re.compile(rf"{_GUN}/changefeed"), "Changefeed"),
    ("GET", re.compile(r"/v2/_trust/changefeed"), "GlobalChangefeed"),
    ("GET", re.compile(re.escape(HEALTH)), "Health"),
)


class Route(Struct, frozen=True):
    """What is asked for, of which collection, and what else the path says: `role`, `hash`, `version`."""

    operation: Operation
    gun: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


def find_route(method: str, path: str) -> Route | None:
    """What is asked for; None: nothing that there is."""
    if len(path) > _LONGEST_PATH:
        return None
    for wanted, pattern, operation in _TABLE:
        match = pattern.fullmatch(path) if method == wanted else None
        if match is not None:
            found = match.groupdict()
            return Route(operation, found.pop("gun", ""), found)
    return None


def clean(path: str) -> str:
    """The path without empty parts and parts of dots; a slash at its end stays."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return f"{cleaned}/" if path.endswith("/") and cleaned != "/" else cleaned
