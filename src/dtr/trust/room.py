"""The room of the notary server: see the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.events import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any, TypeAlias

    from dtr.db import Database, Transaction
    from dtr.events import Actor
    from dtr.signer import Signer
    from dtr.trust.files import Change, Collection, File, Published
    from dtr.tuf import PublicKey

    Signed: TypeAlias = Callable[[Transaction, int, Sequence[str]], Awaitable[None]]
    """Told, in the unit of work of a publication: in a repository these digests are signed now and were not."""


class Trust:
    """
    All collections.

    Whether there is a repository, and who may do what, the caller has asked. Every method lets the errors of the
    signer (`SignerError`) and of the database through.
    """

    def __init__(
        self, database: Database, signer: Signer, *, key_algorithm: str = "ecdsa", signed: Signed | None = None
    ) -> None:
        """`key_algorithm`: of keys that the signer makes, ``ecdsa`` or ``ed25519``."""
        self._database = database
        self._signer = signer
        self._algorithm = key_algorithm
        self._signed = signed

    async def publish(
        self, collection: Collection, parts: Sequence[tuple[str, bytes]], *, by: Actor = SYSTEM
    ) -> Published:
        """
        Check an update (role and bytes of each file, in any order; timestamps are dropped) and store it, whole.

        Raises RuleBroken, StoredBroken (section 4.1), VersionConflict, RepositoryGone.
        """
        raise NotImplementedError

    async def get(self, collection: Collection, role: str) -> File:
        """
        The current file of a role. Timestamp and snapshot are made anew when they expire (section 4.3).

        Raises FileUnknown, CannotSign, StoredBroken.
        """
        raise NotImplementedError

    async def get_by_hash(self, collection: Collection, role: str, sha256: str) -> File:
        """The file of a role with this SHA-256, hexadecimal. Raises FileUnknown."""
        raise NotImplementedError

    async def get_by_version(self, collection: Collection, role: str, version: int) -> File:
        """The file of a role with this version. Raises FileUnknown."""
        raise NotImplementedError

    async def get_key(self, collection: Collection, role: str) -> PublicKey:
        """
        The key with which the server signs ``timestamp`` or ``snapshot`` (section 2.5).

        The one that the root lists, when the signer has it; else one that signed nothing yet. Raises StoredBroken.
        """
        raise NotImplementedError

    async def rotate_key(self, collection: Collection, role: str, *, by: Actor = SYSTEM) -> PublicKey:
        """
        A key that signed nothing yet; it signs when a root that lists it was published.

        Raises RepositoryGone.
        """
        raise NotImplementedError

    async def delete(self, collection: Collection, *, by: Actor = SYSTEM) -> bool:
        """Delete all files of a collection; False: there were none. Its keys stay with the signer."""
        raise NotImplementedError

    async def delete_all(self, repository: int, *, by: Actor = SYSTEM) -> list[str]:
        """Delete the collections of a repository, whatever their GUNs; those GUNs."""
        raise NotImplementedError

    async def list_changes(
        self,
        *,
        after: int,
        records: int,
        collection: Collection | None = None,
        readable_by: dict[str, Any] | None = None,
        age: int = 60_000,
    ) -> list[Change]:
        """
        Changes, oldest first (section 2.6, 6): of one collection, or of all.

        `records` of them behind the id `after`; as many before it when that is negative, from the newest when
        `after` is negative. `readable_by` (the parameters of `dtr.accounts.visibility.asking`) leaves out those
        of repositories that somebody cannot see. Changes younger than `age` milliseconds are not told yet: on
        PostgreSQL one with a lower id may come after one with a higher.
        """
        raise NotImplementedError
