"""
The web interface: pages for people, made on the server.

A page is a function of a `Visit`. It calls the operations of the API in process, so that it may do what they may,
and refuses what they refuse; there is nothing here that a program cannot do as well. Pages work without script;
what the script adds is in `web/js/`.
"""

from __future__ import annotations

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

__all__ = ["PLACES"]
