"""
The web interface: pages for people, made on the server.

A page is a function of a `Visit`. It calls the operations of the API in process, so that it may do what they may,
and refuses what they refuse; there is nothing here that a program cannot do as well. Pages work without script;
what the script adds is in `web/js/`.
"""

from __future__ import annotations

import json
from pathlib import Path

STATIC = Path(__file__).with_name("static")
"""The files that pages refer to, and `manifest.json`: by what name each is there."""
PLACES = (
    "",
    "account",
    "docs",
    "login",
    "logout",
    "orgs",
    "repositories",
    "search",
    "static",
    "system",
    "users",
    "welcome",
)
"""The first parts of the paths that it answers."""


def check() -> None:
    """Whether the files are there that pages need. Raises OSError or ValueError: they are not, or not whole."""
    for name in json.loads((STATIC / "manifest.json").read_text(encoding="utf-8")).values():
        (STATIC / name).stat()


__all__ = ["PLACES", "STATIC", "check"]
