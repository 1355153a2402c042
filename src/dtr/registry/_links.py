"""
What units of work share: linking a blob to a repository, and counting what that costs.

A link is inserted and deleted only under the lock of its blob's row, so "nobody else links this blob" can be
decided and the counts are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, each, in_list, now
from dtr.db.schema import blobs, gc_objects, repositories, repository_blobs, usage_deltas
from dtr.registry.lifetimes import DAY

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Exists

    from dtr.db import Transaction

REPEAT = DAY
"""After how many milliseconds an upload is aborted once more: a request that was cancelled may still arrive."""

_hold = bindparam("hold", type_=BigInteger)

_INSERT = Statement(
    lambda: (
        insert(repository_blobs)
        .values(repository_id=bindparam("repository"), digest=bindparam("digest"), review_at=now() + _hold)
        .on_conflict_do_nothing()
        .returning(repository_blobs.c.repository_id)
    )
)
_EXTEND = Statement(  # NULL stays NULL: something holds it
    lambda: (
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == bindparam("repository"),
            repository_blobs.c.digest == bindparam("linked"),
            repository_blobs.c.review_at < now() + _hold,
        )
        .values(review_at=now() + _hold)
    )
)

_size = bindparam("size", type_=BigInteger)
_mine = repositories.alias("mine")
_sibling = repositories.alias("sibling")
_digests = each("digests")


def _in_sibling(digest: ColumnElement[str]) -> Exists:
    """Another repository of the namespace has the blob."""
    return exists().where(
        repository_blobs.c.digest == digest,
        repository_blobs.c.repository_id == _sibling.c.id,
        _sibling.c.namespace_id == _mine.c.namespace_id,
        _sibling.c.id != _mine.c.id,
    )


_COUNT = Statement(
    lambda: insert(usage_deltas).from_select(
        ["scope", "bytes"],
        union_all(
            select(bindparam("scope", type_=Text), _size),
            # A namespace counts a blob once, in however many of its repositories it is.
            select(literal("namespace:") + _mine.c.namespace_id, _size).where(
                _mine.c.id == bindparam("repository"),
                _mine.c.namespace_id.is_not(None),
                ~_in_sibling(bindparam("digest")),
            ),
            select(literal("*"), _size).where(bindparam("whole_registry", type_=Boolean)),
        ),
    )
)

_INSERT_ALL = Statement(
    lambda: (
        insert(repository_blobs)
        .from_select(
            ["repository_id", "digest", "review_at"],
            select(bindparam("repository", type_=BigInteger), _digests.c.value, now() + _hold)
            .where(true())
            .order_by(_digests.c.value),
        )
        .on_conflict_do_nothing()
        .returning(repository_blobs.c.digest)
    )
)
_EXTEND_ALL = Statement(
    lambda: (
        update(repository_blobs)
        .where(
            repository_blobs.c.repository_id == bindparam("repository"),
            in_list(repository_blobs.c.digest, "digests"),
            repository_blobs.c.review_at < now() + _hold,
        )
        .values(review_at=now() + _hold)
    )
)
_sum = cast(func.coalesce(func.sum(blobs.c.size), 0), BigInteger)
_COUNT_ALL = Statement(
    lambda: insert(usage_deltas).from_select(
        ["scope", "bytes"],
        union_all(
            select(bindparam("scope", type_=Text), _sum).where(in_list(blobs.c.digest, "digests")),
            select(literal("namespace:") + _mine.c.namespace_id, _sum)
            .join_from(_mine, blobs, in_list(blobs.c.digest, "digests"))
            .where(
                _mine.c.id == bindparam("repository"),
                _mine.c.namespace_id.is_not(None),
                ~_in_sibling(blobs.c.digest),
            )
            .group_by(_mine.c.namespace_id),
        ),
    )
)

_DELETE = Statement(
    lambda: delete(repository_blobs).where(
        repository_blobs.c.repository_id == bindparam("repository"),
        repository_blobs.c.digest == bindparam("digest"),
    )
)
_DELETE_BLOB = Statement(
    lambda: (
        delete(blobs)
        .where(blobs.c.digest == bindparam("digest"), ~exists().where(repository_blobs.c.digest == blobs.c.digest))
        .returning(blobs.c.location)
    )
)
_BURY = Statement(
    lambda: (
        insert(gc_objects)
        .values(
            location=bindparam("location"),
            driver_state=bindparam("driver_state"),
            size=bindparam("size"),
            delete_after=now() + bindparam("delay", type_=BigInteger),
            repeat_after=now() + bindparam("repeat", type_=BigInteger),
        )
        .on_conflict_do_nothing()
    )
)


async def link(tx: Transaction, repository: int, digest: str, *, size: int, hold: int, is_new: bool) -> None:
    """
    Make `repository` hold the blob for at least `hold` milliseconds.

    The caller has the lock on the row of the blob, of `size` bytes; `is_new`: it made the row just now.
    """
    if await tx.fetch_one(_INSERT, repository=repository, digest=digest, hold=hold):
        await tx.execute(
            _COUNT,
            scope=f"repository:{repository}",
            repository=repository,
            digest=digest,
            size=size,
            whole_registry=is_new,
        )
    else:
        await tx.execute(_EXTEND, repository=repository, linked=digest, hold=hold)


async def link_all(tx: Transaction, repository: int, digests: list[str], *, hold: int) -> None:
    """
    The same for blobs that other repositories have, of sorted digests, in a few statements.

    The caller has the locks on their rows.
    """
    rows = await tx.fetch_all(_INSERT_ALL, repository=repository, digests=digests, hold=hold)
    new = sorted(row[0] for row in rows)
    if new:
        await tx.execute(_COUNT_ALL, scope=f"repository:{repository}", repository=repository, digests=new)
    if len(new) < len(digests):
        await tx.execute(_EXTEND_ALL, repository=repository, digests=digests, hold=hold)


async def unlink(tx: Transaction, repository: int, digest: str, *, size: int, delete_delay: int) -> None:
    """
    Take the blob from `repository`, and away altogether when this was its last link.

    The caller has the locks on the row of the blob, of `size` bytes, and on the link. The object is deleted
    at the store after `delete_delay` milliseconds.
    """
    await tx.execute(_DELETE, repository=repository, digest=digest)
    gone = await tx.fetch_one(_DELETE_BLOB, digest=digest)
    await tx.execute(
        _COUNT,
        scope=f"repository:{repository}",
        repository=repository,
        digest=digest,
        size=-size,
        whole_registry=gone is not None,
    )
    if gone is not None and gone[0] is not None:
        await bury(tx, gone[0], size=size, delay=delete_delay)


async def bury(
    tx: Transaction, location: str, *, size: int, delay: int = 0, driver_state: str | None = None
) -> None:
    """
    Leave a tombstone: the object of `size` bytes at `location` goes `delay` milliseconds from now.

    `driver_state` is of an unfinished upload, which is to be aborted. A request that was cancelled may still
    reach a store later; hence its deletion is repeated.
    """
    repeat = REPEAT if driver_state is not None else None
    await tx.execute(_BURY, location=location, driver_state=driver_state, size=size, delay=delay, repeat=repeat)
