"""
Names of roles.

A collection has four: root, targets, snapshot and timestamp. Targets may be delegated: to ``targets/<name>``,
which may delegate in turn. An entry for a delegation stands in the file of its direct parent.
"""

from __future__ import annotations

import re

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
BASE_ROLES = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)

_LONGEST = 255
_DELEGATION = re.compile(r"targets(?:/[-a-z0-9_]+)+")


def is_role(name: str) -> bool:
    """Whether this is the name of a role: one of the four, or of a delegation."""
    return name in BASE_ROLES or is_delegation(name)


def is_delegation(name: str) -> bool:
    """Whether this is the name of a delegation: lower-case letters, digits, ``-``, ``_``; 255 bytes at most."""
    return len(name) <= _LONGEST and _DELEGATION.fullmatch(name) is not None


def is_targets(name: str) -> bool:
    """Whether the role's file holds targets."""
    return name == TARGETS or is_delegation(name)


def parent_of(delegation: str) -> str:
    """The role whose file has the entry of a delegation."""
    return delegation.rpartition("/")[0]


def ancestors_of(role: str) -> list[str]:
    """The roles above one that holds targets, from ``targets`` down; none above that one."""
    parts = role.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def by_depth(role: str) -> tuple[int, str]:
    """Sorts roles that hold targets as they are checked: fewest parts first, then by name."""
    return role.count("/"), role
