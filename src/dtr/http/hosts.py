"""The names by which clients know this server; collections of content trust begin with one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.settings import LiveSettings


class Hosts:
    """
    The address that a client uses, the one that the settings say clients use, and further `names`.

    Each is ``HOST[:PORT]``, and compared as it is written: the name of a collection is signed into it.
    """

    def __init__(self, live: LiveSettings, names: Iterable[str] = ()) -> None:
        self._live = live
        self._names = frozenset(names)

    def of(self, host: str) -> frozenset[str]:
        """All of them, for a client that uses `host`."""
        usual = self._live.current.dtr_host
        return self._names | {host, usual} if usual else self._names | {host}

    def split(self, name: str, host: str) -> tuple[str, str]:
        """
        Server and path of a name, for a client that uses `host`.

        The server is empty when the name begins with none of this server: then all of it is a path.
        """
        first, slash, rest = name.partition("/")
        return (first, rest) if slash and first in self.of(host) else ("", name)
