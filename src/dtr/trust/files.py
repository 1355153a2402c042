"""What the room of content trust is asked about, and what it gives: collections, their files and their history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from dtr.db import Transaction

    Signed: TypeAlias = Callable[[Transaction, int, Sequence[str]], Awaitable[None]]
    """
    Told, in the unit of work of a change: in a repository these digests are signed now and were not.

    None of them: something is not signed any more.
    """


class Collection(Struct, frozen=True):
    """
    The trust data of a repository under one name of the server.

    `gun` is ``<host[:port]>/<path>`` (notary-v1, section 1.1). The number of the repository is part of what a
    collection is known by: one that takes a name that another repository had finds nothing there.
    """

    repository: int
    gun: str


class File(Struct, frozen=True):
    """A signed file, byte for byte as it was stored; `created_at` in milliseconds since 1970 UTC."""

    role: str
    version: int
    sha256: str
    """Hexadecimal."""
    content: bytes
    created_at: int


class Change(Struct, frozen=True):
    """
    What happened to a collection (section 2.6).

    `version` and `sha256` are those of the timestamp that was stored; 0 and empty for a deletion.
    """

    id: int
    created_at: int
    """Milliseconds since 1970 UTC."""
    gun: str
    version: int
    sha256: str
    category: Literal["update", "deletion"]


class Published(Struct, frozen=True):
    """What an update did. Tags by name, each once, whichever role they are of."""

    version: int
    """Of the timestamp."""
    roles: tuple[str, ...]
    """Whose files were given and stored."""
    signed: tuple[str, ...]
    """Tags that are signed now and were not, or for another digest."""
    revoked: tuple[str, ...]
    """Tags that no role signs any more."""
