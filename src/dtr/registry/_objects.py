"""
What units of work share: letting blobs have objects that are there already, maybe with a tombstone.

A tombstone is taken back only while no sweeper has begun to delete, which is decided under its lock.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, delete, select, update

from dtr.db import Statement, in_list
from dtr.db.schema import blob_contents, blobs, gc_objects
from dtr.registry._links import bury

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from dtr.db import Transaction
    from dtr.registry.pace import Pace
    from dtr.storage import Storages

_LOCK_TOMBSTONES = Statement(
    lambda: (
        select(
            gc_objects.c.location,
            gc_objects.c.attempts,
            gc_objects.c.driver_state,
            gc_objects.c.damage.is_not(None),
        )
        .where(in_list(gc_objects.c.location, "locations"))
        .order_by(gc_objects.c.location)
        .with_for_update()
    )
)
_TAKE_BACK = Statement(lambda: delete(gc_objects).where(in_list(gc_objects.c.location, "locations")))
_LOCK_BLOB = Statement(
    lambda: (
        select(blobs.c.location, blobs.c.size, blobs.c.state)
        .where(blobs.c.digest == bindparam("digest"))
        .with_for_update(key_share=True)  # FOR NO KEY UPDATE
    )
)
_NAMED = Statement(lambda: select(blobs.c.digest).where(blobs.c.location == bindparam("location")))
_GIVE = Statement(
    lambda: (
        update(blobs)
        .where(blobs.c.digest == bindparam("which"))
        .values(
            location=bindparam("new_location"),
            size=bindparam("new_size", type_=BigInteger),
            state=bindparam("new_state"),
        )
    )
)
_DROP_CONTENT = Statement(lambda: delete(blob_contents).where(blob_contents.c.digest == bindparam("digest")))
_NOTE_DAMAGE = Statement(
    lambda: (
        update(gc_objects).where(gc_objects.c.location == bindparam("which")).values(damage=bindparam("damage"))
    )
)


async def take_back(tx: Transaction, locations: Iterable[str], *, hashed: bool) -> set[str]:
    """
    Take away the tombstones of those objects; which of them cannot be had, for they are being deleted.

    Those in quarantine cannot be had either, unless they were `hashed`. Others may not leave new tombstones
    meanwhile: the caller has the locks on the rows that name the objects.
    """
    found = await tx.fetch_all(_LOCK_TOMBSTONES, locations=sorted(locations))
    lost = {
        location
        for location, attempts, driver_state, is_damaged in found
        if attempts or driver_state is not None or (is_damaged and not hashed)
    }
    free = sorted({row[0] for row in found} - lost)
    if free:
        await tx.execute(_TAKE_BACK, locations=free)
    return lost


async def give_object(tx: Transaction, digest: str, location: str, size: int, *, delete_delay: int) -> bool:
    """
    Let a blob that is marked as missing have the object of `size` bytes at `location`, which was hashed.

    The one that it had before goes after `delete_delay` milliseconds. False: it is missing no more, or the object
    is another's, or being deleted.
    """
    row = await tx.fetch_one(_LOCK_BLOB, digest=digest)
    if row is None or row[2] != "missing":
        return False
    before, its_size, _ = row
    if before != location and await tx.fetch_one(_NAMED, location=location) is not None:
        return False
    if await take_back(tx, [location], hashed=True):
        return False
    await tx.execute(_GIVE, which=digest, new_location=location, new_size=size, new_state="present")
    await tx.execute(_DROP_CONTENT, digest=digest)
    if before is not None and before != location:
        await bury(tx, before, size=its_size, delay=delete_delay)
    return True


async def put_in_quarantine(
    tx: Transaction, digest: str, location: str, size: int, damage: str, *, delay: int
) -> bool:
    """
    Take the damaged object of `size` bytes from a blob, which is missing from now on; `damage` says what it is.

    It goes `delay` milliseconds later. False: the blob has another object by now.
    """
    row = await tx.fetch_one(_LOCK_BLOB, digest=digest)
    if row is None or row[0] != location:
        return False
    await tx.execute(_GIVE, which=digest, new_location=None, new_size=row[1], new_state="missing")
    await bury(tx, location, size=size, delay=delay)
    await tx.execute(_NOTE_DAMAGE, which=location, damage=damage)
    return True


async def digest_of(storage: Storages, location: str, algorithm: str, pace: Pace | None = None) -> str:
    """The digest of an object, which is read as fast as `pace` allows. Raises StorageError."""
    hasher = hashlib.new(algorithm)
    pieces: AsyncGenerator[bytes, None]
    async with aclosing(storage.open(location)) as pieces:
        async for piece in pieces:
            await asyncio.to_thread(hasher.update, piece)
            if pace is not None:
                await pace.take(len(piece))
    return f"{algorithm}:{hasher.hexdigest()}"
