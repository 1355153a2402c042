"""The page of the API's description."""

from __future__ import annotations

from typing import Any


def render(document: dict[str, Any], address: str) -> str:
    """The page."""
    return address + str(document["openapi"])
