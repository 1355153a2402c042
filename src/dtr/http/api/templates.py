"""
Templates of paths, of the API and of the pages: ``/repositories/{namespace}/{repo:path}/tags``.

``{name}`` is within a part of a path, ``{name:path}`` is one part or several: names of repositories have slashes.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"\{(\w+(?::path)?)\}")


def pattern(template: str) -> re.Pattern[str]:
    """What fits it as a whole; each of its names is a group."""
    fixed, *rest = _NAME.split(template)
    found = re.escape(fixed)
    for name, fixed in zip(rest[::2], rest[1::2], strict=True):
        is_long = name.endswith(":path")
        found += f"(?P<{name.removesuffix(':path')}>{'.*' if is_long else '[^/]+'}){re.escape(fixed)}"
    return re.compile(found, re.DOTALL)  # a line break is a character like others


def names(template: str) -> list[str]:
    """The names in it, in their order."""
    return [one.removesuffix(":path") for one in _NAME.findall(template)]


def rank(template: str) -> tuple[tuple[int, str], ...]:
    """
    What is equal for templates that the same paths fit.

    It sorts what is fixed before what varies, and longer before shorter: the first that fits is the most specific.
    """
    parts = (
        (2, "") if one.endswith(":path}") else (1, "") if one[:1] == "{" else (0, one)
        for one in template.split("/")
    )
    return (*parts, (3, ""))
