"""
The ids of upload sessions that are not written down before their first bytes come.

Such an id says how long it is good, and is authenticated: every process that has the key knows that one of them
gave it out, and for which repository. It is a UUID of version 8 (RFC 9562, section 5.8):

    eeeeeeee-rrrr-8rrr-vrrr-mmmmmmmmmmmm

`e` is the second of its end since 1970; `r` and two bits of `v` are chance (46 bits); `m` is the beginning of an
HMAC-SHA-256 over the repository and all that precedes. They are in the order of their ends.

48 bits are enough: the right to push is asked for with each request, and who forged an id would have no more than
anybody with that right who asks for one.
"""

from __future__ import annotations

import hmac
import os

_VERSION = "8"
_VARIANTS = "89ab"


def make_id(key: bytes, repository: int, until: int) -> str:
    """A new id for an upload to the repository that has to begin before `until`, in seconds since 1970."""
    chance = os.urandom(6).hex()
    variant = _VARIANTS[int(chance[7], 16) & 3]
    head = f"{until:08x}-{chance[:4]}-{_VERSION}{chance[4:7]}-{variant}{chance[8:11]}"
    return f"{head}-{_code(key, repository, head)}"


def is_made(upload: str) -> bool:
    """Whether an id, a UUID, has the form of those that `make_id` makes."""
    return upload[14:15] == _VERSION


def is_good(key: bytes, repository: int, upload: str, at: float) -> bool:
    """Whether `make_id` made it, with this key and for this repository, and its end comes after `at`."""
    head, _, code = upload.rpartition("-")
    return hmac.compare_digest(_code(key, repository, head), code) and int(head[:8], 16) > at


def first_id(since: float) -> str:
    """What all ids that end before this second are less than, and no other."""
    return f"{int(since):08x}"


def _code(key: bytes, repository: int, head: str) -> str:
    return hmac.digest(key, f"{repository}:{head}".encode(), "sha256")[:6].hex()
