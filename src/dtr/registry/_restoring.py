"""
Bringing lost blobs back, if their content is still somewhere.

It may be in the database, under a tombstone, in the tree of another registry, in another storage, or at the
registry that it came from. Nothing is believed: what is found is read and hashed before a blob gets it.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import blob_contents, blobs, gc_objects, repository_blobs
from dtr.oci import Digest
from dtr.registry._links import bury, link
from dtr.registry._objects import digest_of, give_object, take_back
from dtr.registry.distribution_tree import ROOT, DistributionTree, tree_of
from dtr.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any, TypeAlias

    from dtr.db import Database, Transaction
    from dtr.registry.lifetimes import Lifetimes
    from dtr.registry.pace import Pace
    from dtr.storage import Storages

    Refetch: TypeAlias = Callable[[int, str, int], Awaitable[str | None]]
    """Brings a blob, by repository, digest and size, from where that repository came; from where, or None."""

_MOST_CANDIDATES = 20
_MOST_REPOSITORIES = 20
_MOST_TREES = 100

_CONTENT = Statement(lambda: select(blob_contents.c.content).where(blob_contents.c.digest == bindparam("digest")))
_LOCK = Statement(
    lambda: (
        select(blobs.c.location, blobs.c.size, blobs.c.state)
        .where(blobs.c.digest == bindparam("digest"))
        .with_for_update(key_share=True)
    )
)
_KEEP_INLINE = Statement(
    lambda: (
        update(blobs)
        .where(blobs.c.digest == bindparam("which"), blobs.c.state == "missing")
        .values(location=None, size=bindparam("new_size", type_=BigInteger), state="present")
    )
)
_TOMBSTONES = Statement(
    lambda: (
        select(gc_objects.c.location)
        .where(
            gc_objects.c.size == bindparam("size", type_=BigInteger),
            gc_objects.c.driver_state.is_(None),
            gc_objects.c.attempts == 0,
        )
        .order_by(gc_objects.c.location)
        .limit(_MOST_CANDIDATES)
    )
)
_IN_TREES = Statement(
    lambda: (
        select(blobs.c.location)
        .where(blobs.c.location.contains(f"{ROOT}blobs/", autoescape=True))
        .order_by(blobs.c.location)
        .limit(_MOST_TREES)
    )
)
_HOLDERS = Statement(
    lambda: (
        select(repository_blobs.c.repository_id)
        .where(repository_blobs.c.digest == bindparam("digest"))
        .order_by(repository_blobs.c.repository_id)
        .limit(_MOST_REPOSITORIES)
    )
)
_IS_THERE = Statement(
    lambda: select(blobs.c.digest).where(blobs.c.digest == bindparam("digest"), blobs.c.state == "present")
)
_MAKE = Statement(
    lambda: (
        insert(blobs)
        .values(
            digest=bindparam("digest"),
            size=bindparam("size", type_=BigInteger),
            location=bindparam("location"),
            state="present",
            created_at=now(),
        )
        .on_conflict_do_nothing()
        .returning(blobs.c.digest)
    )
)
_NAMED = Statement(lambda: select(blobs.c.digest).where(blobs.c.location == bindparam("location")))


class Restorer:
    """Looks for what was lost, and gives it back."""

    def __init__(
        self,
        database: Database,
        storage: Storages,
        lifetimes: Lifetimes,
        pace: Pace,
        refetch: Refetch | None = None,
    ) -> None:
        """It reads as fast as `pace` allows."""
        self._database = database
        self._storage = storage
        self._lifetimes = lifetimes
        self._pace = pace
        self._refetch = refetch
        self._trees: set[str] = set()
        self._knows_trees = False

    def note(self, location: str) -> None:
        """An object was seen that is perhaps the blob of a tree."""
        prefix = tree_of(location)
        if prefix is not None and len(self._trees) < _MOST_TREES:
            self._trees.add(prefix)

    async def restore(self, digest: str, size: int, location: str | None) -> str | None:
        """
        Give a blob that is marked as missing, and was at `location`, its content back.

        From where, in words; None: it is nowhere. What cannot be read is nowhere.
        """
        if await self._restore_inline(digest, size):
            return "is whole in the database"
        delay = self._lifetimes.delete_delay

        async def give(found: str, tx: Transaction) -> bool:
            return await give_object(tx, digest, found, size, delete_delay=delay)

        found = await self._find(digest, size, location, give)
        if found is not None:
            return found
        for (repository,) in await self._database.fetch_all(_HOLDERS, digest=digest):
            came = await self._fetch(repository, digest, size)
            if came is not None:
                return came
        return None

    async def restore_row(self, repository: int, digest: str, size: int) -> str | None:
        """The same for a blob that has no row any more, and that a repository needs."""

        async def give(found: str, tx: Transaction) -> bool:
            return await self._make(tx, repository, digest, found, size)

        return await self._find(digest, size, None, give) or await self._fetch(repository, digest, size)

    async def _restore_inline(self, digest: str, size: int) -> bool:
        row = await self._database.fetch_one(_CONTENT, digest=digest)
        if row is None or len(row[0]) != size or Digest.of(row[0], digest.partition(":")[0]) != digest:
            return False

        async def work(tx: Transaction) -> bool:
            blob = await tx.fetch_one(_LOCK, digest=digest)
            if blob is None or not await tx.execute(_KEEP_INLINE, which=digest, new_size=size):
                return False
            if blob[0] is not None:
                await bury(tx, blob[0], size=blob[1], delay=self._lifetimes.delete_delay)
            return True

        return await self._database.unit(work)

    async def _find(
        self,
        digest: str,
        size: int,
        location: str | None,
        give: Callable[[str, Transaction], Coroutine[Any, Any, bool]],
    ) -> str | None:
        """Look for an object with this content that `give`, a unit of work, takes; where it was."""
        for candidate in await self._candidates(digest, size, location):
            with contextlib.suppress(StorageError, _BeingDeleted):
                if (
                    await self._storage.stat(candidate) == size
                    and await digest_of(self._storage, candidate, digest.partition(":")[0], self._pace) == digest
                    and await self._database.unit(partial(give, candidate))
                ):
                    return f"was found at {candidate}"
        return None

    async def _candidates(self, digest: str, size: int, location: str | None) -> list[str]:
        candidates = [row[0] for row in await self._database.fetch_all(_TOMBSTONES, size=size)]
        if not self._knows_trees:
            self._knows_trees = True
            for (known,) in await self._database.fetch_all(_IN_TREES):
                self.note(known)
        trees = {*self._trees, *(f"{name}:" for name in self._storage.names)}
        candidates += [DistributionTree(self._storage, tree).blob(digest) for tree in sorted(trees)]
        if location is not None:
            name, _, path = location.partition(":")
            candidates += [f"{other}:{path}" for other in self._storage.names if other != name]
        return list(dict.fromkeys(one for one in candidates if one != location))

    async def _fetch(self, repository: int, digest: str, size: int) -> str | None:
        came = None if self._refetch is None else await self._refetch(repository, digest, size)
        if came is None or await self._database.fetch_one(_IS_THERE, digest=digest) is None:
            return None
        return f"was fetched from {came}"

    async def _make(self, tx: Transaction, repository: int, digest: str, location: str, size: int) -> bool:
        if await tx.fetch_one(_NAMED, location=location) is not None:
            return False
        if await tx.fetch_one(_MAKE, digest=digest, size=size, location=location) is None:
            return False  # somebody brought it
        if await take_back(tx, [location], hashed=True):
            raise _BeingDeleted
        await link(tx, repository, digest, size=size, hold=self._lifetimes.hold, is_new=True)
        return True


class _BeingDeleted(Exception):
    """The object is just being deleted: the unit of work is rolled back."""
