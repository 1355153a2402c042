"""
The collector: takes away manifests, blobs and repositories that nothing holds any more.

It runs while pushes run, and never takes what an acknowledged push relies on. Whatever lost its last holder has a
date of review (`review_at`); the collector takes what is due, locks it, looks in a later statement whether
something holds it, and either clears the date or deletes it. It never waits for a lock, so it stops nobody; what
somebody else has locked, it looks at again later. Bytes go later still, through tombstones (`Sweeper`).

What holds what: a tag holds its manifest, an index its children, a subject its referrers, a manifest its blobs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct, field
from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from dtr.db import Statement, each_row, in_list, in_rows, now
from dtr.db.schema import (
    blobs,
    gc_objects,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
    uploads,
    usage_deltas,
)
from dtr.events import Actor, Event, Object, record
from dtr.registry.lifetimes import HOUR
from dtr.registry.usage import forget, of_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sqlalchemy import ColumnElement

    from dtr.db import Database, Row, Transaction
    from dtr.db.statement import Dialect
    from dtr.registry.lifetimes import Lifetimes

_log = logging.getLogger("dtr.collector")

_MINUTE = 60_000
_FURTHEST = 1000
"""So many holders of holders are looked at for one manifest."""
_SHORTEST_SLEEP, _LONGEST_SLEEP = 1.0, 60.0
_FIRST_BATCH = {"sqlite": 50, "postgresql": 200}
"""Rows in a unit; then as many as fit into its time, by half to ten times as many."""
_UNIT_SECONDS = {"sqlite": 0.008, "postgresql": 0.1}
"""SQLite has one writer, for which pushes wait; on PostgreSQL they wait for the same rows alone."""

Pair = tuple[int, str]
"""A repository and a digest in it."""

_pair = each_row("pairs", column("number", BigInteger), column("text", Text))
_limit = bindparam("limit", type_=BigInteger)
_due = now() + bindparam("ahead", type_=BigInteger)
_hold = bindparam("hold", type_=BigInteger)
_pause = bindparam("pause", type_=BigInteger)
_parent = manifests.alias("parent")


def _is_pair(table: Any) -> Any:
    """The condition that a row with `repository_id` and `digest` is one of the pairs that are given."""
    return in_rows((table.c.repository_id, table.c.digest), _pair)


def _is_tagged(repository: ColumnElement[int], digest: ColumnElement[str]) -> ColumnElement[bool]:
    """The condition that a manifest has a tag; of its row an index is all that is read."""
    return select(tags.c.name).where(tags.c.repository_id == repository, tags.c.manifest == digest).exists()


_WAITING = Statement(  # a look that writes nothing, as most rounds have nothing to do
    lambda: select(
        exists().where(repositories.c.deleted_at.is_not(None)),
        exists().where(manifests.c.review_at <= now() + bindparam("ahead_of_manifests", type_=BigInteger)),
    )
)

# Repositories to which somebody uploads: what is missing to a push under way may be what is looked at.
_BUSY = Statement(
    lambda: (
        select(uploads.c.repository_id)
        .where(
            in_list(uploads.c.repository_id, "repositories"),
            uploads.c.expires_at > now() + bindparam("active", type_=BigInteger),
        )
        .distinct()
    )
)

# --- manifests ------------------------------------------------------------------------------------------------

_DUE_MANIFESTS = Statement(
    lambda: (
        select(manifests.c.repository_id, manifests.c.digest)
        .where(manifests.c.review_at <= _due)
        .order_by(manifests.c.review_at, manifests.c.repository_id, manifests.c.digest)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )
)
_TAGGED = Statement(
    lambda: select(_pair.c.number, _pair.c.text).where(_is_tagged(_pair.c.number, _pair.c.text)).select_from(_pair)
)
_holders = union_all(
    select(
        _pair.c.number.label("repository"),
        _pair.c.text.label("held"),
        manifest_references.c.manifest.label("holder"),
    ).join_from(
        _pair,
        manifest_references,
        and_(
            manifest_references.c.repository_id == _pair.c.number,
            manifest_references.c.kind == "manifest",
            manifest_references.c.target == _pair.c.text,
        ),
    ),
    select(_pair.c.number, _pair.c.text, _parent.c.digest)
    .join_from(
        _pair,
        manifests,
        and_(manifests.c.repository_id == _pair.c.number, manifests.c.digest == _pair.c.text),
    )
    .join(
        _parent,
        and_(_parent.c.repository_id == manifests.c.repository_id, _parent.c.digest == manifests.c.subject),
    ),
)
_HOLDERS = Statement(_holders)
_KEPT = Statement(  # those that something outside of the group holds for sure
    lambda: select(manifests.c.repository_id, manifests.c.digest).where(
        _is_pair(manifests),
        or_(manifests.c.review_at > _due, _is_tagged(manifests.c.repository_id, manifests.c.digest)),
    )
)
_LOCK_A_HOLDER = Statement(
    lambda: (
        select(manifests.c.digest)
        .where(_is_pair(manifests))
        .limit(1)
        .with_for_update(read=True, key_share=True, skip_locked=True)
    )
)
_lock_manifests = (
    select(manifests.c.repository_id, manifests.c.digest)
    .where(_is_pair(manifests))
    .order_by(manifests.c.repository_id, manifests.c.digest)
)
_LOCK_TO_DELETE = Statement(lambda: _lock_manifests.with_for_update(skip_locked=True))
_LOCK_TO_LET_GO = Statement(lambda: _lock_manifests.with_for_update(key_share=True, skip_locked=True))
_CLEAR_MANIFESTS = Statement(lambda: update(manifests).where(_is_pair(manifests)).values(review_at=None))
_POSTPONE_MANIFESTS = Statement(
    lambda: update(manifests).where(_is_pair(manifests)).values(review_at=now() + _pause)
)
_HELD_MANIFESTS = Statement(  # by a manifest: what of it is there
    lambda: union(
        select(_pair.c.number, _pair.c.text, manifests.c.digest)
        .join_from(
            _pair,
            manifest_references,
            and_(
                manifest_references.c.repository_id == _pair.c.number,
                manifest_references.c.manifest == _pair.c.text,
                manifest_references.c.kind == "manifest",
            ),
        )
        .join(
            manifests,
            and_(manifests.c.repository_id == _pair.c.number, manifests.c.digest == manifest_references.c.target),
        ),
        select(_pair.c.number, _pair.c.text, manifests.c.digest).join_from(
            _pair,
            manifests,
            and_(manifests.c.repository_id == _pair.c.number, manifests.c.subject == _pair.c.text),
        ),
    )
)
_HELD_LINKS = Statement(
    lambda: (
        select(_pair.c.number, _pair.c.text, repository_blobs.c.digest)
        .join_from(
            _pair,
            manifest_references,
            and_(
                manifest_references.c.repository_id == _pair.c.number,
                manifest_references.c.manifest == _pair.c.text,
                manifest_references.c.kind == "blob",
            ),
        )
        .join(
            repository_blobs,
            and_(
                repository_blobs.c.repository_id == _pair.c.number,
                repository_blobs.c.digest == manifest_references.c.target,
            ),
        )
    )
)
_DELETE_MANIFESTS = Statement(lambda: delete(manifests).where(_is_pair(manifests)))
_LET_MANIFESTS_GO = Statement(
    lambda: (
        update(manifests)
        .where(_is_pair(manifests), or_(manifests.c.review_at.is_(None), manifests.c.review_at < now() + _hold))
        .values(review_at=now() + _hold)
    )
)

# --- links and blobs ------------------------------------------------------------------------------------------

_DUE_LINKS = Statement(
    lambda: (
        select(repository_blobs.c.review_at, repository_blobs.c.repository_id, repository_blobs.c.digest)
        .where(
            repository_blobs.c.review_at <= _due,
            tuple_(repository_blobs.c.review_at, repository_blobs.c.repository_id, repository_blobs.c.digest)
            > tuple_(
                bindparam("after_date", type_=BigInteger),
                bindparam("after_repository", type_=BigInteger),
                bindparam("after_digest"),
            ),
        )
        .order_by(repository_blobs.c.review_at, repository_blobs.c.repository_id, repository_blobs.c.digest)
        .limit(_limit)
    )
)
_LOCK_BLOBS = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.size)
        .where(in_list(blobs.c.digest, "digests"))
        .order_by(blobs.c.digest)
        .with_for_update(skip_locked=True)
    )
)
_lock_links = (
    select(repository_blobs.c.repository_id, repository_blobs.c.digest)
    .where(_is_pair(repository_blobs))
    .order_by(repository_blobs.c.digest, repository_blobs.c.repository_id)
)
_LOCK_LINKS_TO_DELETE = Statement(
    lambda: _lock_links.add_columns(repository_blobs.c.review_at <= _due).with_for_update(skip_locked=True)
)
_LOCK_LINKS_TO_LET_GO = Statement(lambda: _lock_links.with_for_update(key_share=True, skip_locked=True))
_uses = and_(
    manifest_references.c.repository_id == _pair.c.number,
    manifest_references.c.kind == "blob",
    manifest_references.c.target == _pair.c.text,
)
_USED_LINKS = Statement(
    lambda: select(_pair.c.number, _pair.c.text).select_from(_pair).where(exists().where(_uses))
)
_a_user = (
    select(manifests.c.digest)
    .join(
        manifest_references,
        and_(
            manifest_references.c.repository_id == manifests.c.repository_id,
            manifest_references.c.manifest == manifests.c.digest,
        ),
    )
    .where(_uses)
    .limit(1)
    .with_for_update(read=True, key_share=True, of=manifests, skip_locked=True)
    .correlate(_pair)
    .lateral("a_user")
)
_LOCK_USERS = Statement(lambda: select(_pair.c.number, _pair.c.text).select_from(_pair).join(_a_user, true()))
_CLEAR_LINKS = Statement(lambda: update(repository_blobs).where(_is_pair(repository_blobs)).values(review_at=None))
_POSTPONE_LINKS = Statement(
    lambda: update(repository_blobs).where(_is_pair(repository_blobs)).values(review_at=now() + _pause)
)
_LET_LINKS_GO = Statement(
    lambda: (
        update(repository_blobs)
        .where(
            _is_pair(repository_blobs),
            or_(repository_blobs.c.review_at.is_(None), repository_blobs.c.review_at < now() + _hold),
        )
        .values(review_at=now() + _hold)
    )
)
_DELETE_LINKS = Statement(lambda: delete(repository_blobs).where(_is_pair(repository_blobs)))
_other_link = repository_blobs.alias("other_link")
_other = repositories.alias("other")
_LAST_OF_NAMESPACE = Statement(  # a namespace counts a blob once, in however many of its repositories it is
    lambda: (
        select(repositories.c.namespace_id, _pair.c.text)
        .distinct()
        .join_from(_pair, repositories, repositories.c.id == _pair.c.number)
        .where(
            repositories.c.namespace_id.is_not(None),
            ~exists().where(
                _other_link.c.digest == _pair.c.text,
                _other_link.c.repository_id == _other.c.id,
                _other.c.namespace_id == repositories.c.namespace_id,
            ),
        )
    )
)
_counted = each_row("counts", usage_deltas.c.scope, usage_deltas.c.bytes)
_COUNT = Statement(
    lambda: insert(usage_deltas).from_select(["scope", "bytes"], select(_counted.c.scope, _counted.c.bytes))
)
_DELETE_BLOBS = Statement(
    lambda: (
        delete(blobs)
        .where(
            in_list(blobs.c.digest, "digests"),
            not_(exists().where(repository_blobs.c.digest == blobs.c.digest)),
        )
        .returning(blobs.c.size, blobs.c.location)
    )
)
_buried = each_row("objects", gc_objects.c.location, gc_objects.c.size)
_BURY = Statement(
    lambda: (
        upsert(gc_objects)
        .from_select(
            ["location", "size", "delete_after"],
            select(_buried.c.location, _buried.c.size, now() + bindparam("delay", type_=BigInteger)).where(true()),
        )
        .on_conflict_do_nothing()
    )
)

_is_free = and_(
    repository_blobs.c.review_at <= _due,
    ~exists().where(
        manifest_references.c.repository_id == repository_blobs.c.repository_id,
        manifest_references.c.kind == "blob",
        manifest_references.c.target == repository_blobs.c.digest,
    ),
)
# Not the column as it is: SQLite would walk through all links in its order, instead of those that are due.
_due_digest = repository_blobs.c.digest.concat(literal_column("''"))
_free = select(_due_digest.label("digest")).where(_is_free).distinct().subquery("free")
_freed = (
    select(func.count(), cast(func.coalesce(func.sum(blobs.c.size), 0), BigInteger))
    .join_from(_free, blobs, blobs.c.digest == _free.c.digest)
    .where(
        ~exists(
            select(repository_blobs.c.digest)
            .where(repository_blobs.c.digest == _free.c.digest, func.coalesce(~_is_free, true()))
            .correlate(_free)
        )
    )
    .subquery("freed")
)
_COUNT_DUE = Statement(
    lambda: select(
        select(func.count())
        .select_from(manifests)
        .where(manifests.c.review_at <= now() + bindparam("ahead_of_manifests", type_=BigInteger))
        .scalar_subquery(),
        select(func.count())
        .select_from(repository_blobs)
        .where(repository_blobs.c.review_at <= _due)
        .scalar_subquery(),
        select(func.count())
        .select_from(repositories)
        .where(repositories.c.deleted_at.is_not(None))
        .scalar_subquery(),
    )
)
_COUNT_FREE = Statement(lambda: select(*_freed.c))

# --- deleted repositories -------------------------------------------------------------------------------------

_repository = bindparam("repository", type_=BigInteger)
_DELETED_REPOSITORY = Statement(
    lambda: (
        select(repositories.c.id)
        .where(repositories.c.deleted_at.is_not(None), repositories.c.id > bindparam("after", type_=BigInteger))
        .order_by(repositories.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
)
_END_UPLOADS = Statement(
    lambda: (
        update(uploads)
        .where(uploads.c.repository_id == _repository, uploads.c.expires_at > 0)
        .values(expires_at=0)
    )
)
_ITS_TAGS = Statement(
    lambda: (
        select(tags.c.name)
        .where(tags.c.repository_id == _repository)
        .order_by(tags.c.name)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )
)
_DELETE_TAGS = Statement(
    lambda: delete(tags).where(in_list(tags.c.name, "names", within=(tags.c.repository_id, _repository)))
)
_ITS_MANIFESTS = Statement(
    lambda: (
        select(manifests.c.repository_id, manifests.c.digest)
        .where(manifests.c.repository_id == _repository)
        .order_by(manifests.c.digest)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )
)
_ITS_LINKS = Statement(
    lambda: (
        select(repository_blobs.c.repository_id, repository_blobs.c.digest)
        .where(
            repository_blobs.c.repository_id == _repository,
            or_(repository_blobs.c.review_at.is_(None), repository_blobs.c.review_at > 0),
        )
        .order_by(repository_blobs.c.digest)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )
)
_LINKS_ARE_DUE = Statement(lambda: update(repository_blobs).where(_is_pair(repository_blobs)).values(review_at=0))
_IS_EMPTY = Statement(
    lambda: select(
        *(
            ~exists().where(table.c.repository_id == _repository)
            for table in (tags, manifests, repository_blobs, uploads)
        )
    )
)
_DELETE_REPOSITORY = Statement(lambda: delete(repositories).where(repositories.c.id == _repository))


class Collected(Struct, frozen=True):
    """What was done: rows, and `size` in bytes of the blobs that are gone."""

    repositories: int = 0
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    size: int = 0
    kept: int = 0
    """Looked at, and held by something."""
    postponed: int = 0
    """To be looked at again later."""

    def __add__(self, other: Collected) -> Collected:
        return Collected(*(getattr(self, one) + getattr(other, one) for one in self.__struct_fields__))

    @property
    def went_on(self) -> bool:
        """Whether there is less to do than before."""
        return bool(self.repositories or self.manifests or self.links or self.kept)

    @property
    def did_something(self) -> bool:
        """Whether there is probably more to do at once."""
        return any(getattr(self, one) for one in self.__struct_fields__)


_Marker = tuple[int, int, str]
_BEGIN: _Marker = (-1, -1, "")


class _Batch:
    """How many rows the next unit takes, so that it lasts about as long as it may, whatever they cost now."""

    def __init__(self, dialect: Dialect) -> None:
        """On SQLite the time of the processor counts: a unit has a thread to itself. A busy host shortens none."""
        self.rows = _FIRST_BATCH[dialect]
        self.clock = time.thread_time if dialect == "sqlite" else time.monotonic
        self._seconds = _UNIT_SECONDS[dialect]
        self._fewest, self._most = self.rows // 2, self.rows * 10

    def learn(self, rows: int, seconds: float) -> None:
        """A unit of so many rows took so long."""
        if rows >= self.rows or seconds > self._seconds:  # few rows in little time say nothing
            fitting = rows * self._seconds / max(seconds, 1e-6)
            self.rows = round(min(max((self.rows + fitting) / 2, self._fewest), self._most))


class Collector:
    """
    Reviews what is due, in small units of work. Several may run at the same time.

    Its units are not durable: what a loss of power undoes is found again. What they bury does not get lost before
    its object: the sweeper's claim is durable, and with it everything that was committed before.
    """

    def __init__(self, database: Database, lifetimes: Lifetimes) -> None:
        self._database = database
        self._lifetimes = lifetimes
        self._manifests, self._links = _Batch(database.dialect), _Batch(database.dialect)
        self._active = max(lifetimes.upload_ttl - HOUR, 0)
        self._deleted_behind = -1
        self._links_behind = _BEGIN

    async def run(self, is_on: Callable[[], bool] = lambda: True) -> None:
        """Collect until cancelled, while it is on."""
        pause = _SHORTEST_SLEEP
        while True:
            if not is_on():
                await asyncio.sleep(_SHORTEST_SLEEP)
                continue
            try:
                collected = await self.collect()
            except Exception:  # noqa: BLE001 - it goes on, whatever it was
                _log.exception("collection failed")
                collected = Collected()
            if collected.did_something:
                _log.info(
                    "collected",
                    extra={
                        "manifests": collected.manifests,
                        "links": collected.links,
                        "blobs": collected.blobs,
                        "bytes": collected.size,
                        "kept": collected.kept,
                        "postponed": collected.postponed,
                    },
                )
                pause = 0
            else:
                pause = min(max(pause * 2, _SHORTEST_SLEEP), _LONGEST_SLEEP)
            await asyncio.sleep(pause)

    async def collect(self, *, grace: int | None = None) -> Collected:
        """One batch of everything that is due; with `grace`, of what was let go so many milliseconds ago."""
        total = Collected()
        ahead_of_manifests = self._ahead(self._lifetimes.hold_manifest, grace)
        waiting = await self._database.fetch_one(_WAITING, ahead_of_manifests=ahead_of_manifests)
        if waiting is not None and waiting[0]:
            total += await self._empty_repository()
        if waiting is not None and waiting[1]:
            total += await self._review_manifests(ahead_of_manifests)
        return total + await self._review_links(self._ahead(self._lifetimes.hold, grace))

    @staticmethod
    def _ahead(hold: int, grace: int | None) -> int:
        """How many milliseconds before its time something is due that was let go `hold` before that."""
        return 0 if grace is None else max(0, hold - grace)

    async def count_due(self, grace: int | None = None) -> Collected:
        """How many manifests, links and deleted repositories a collection would look at."""
        row = await self._database.fetch_one(
            _COUNT_DUE,
            ahead=self._ahead(self._lifetimes.hold, grace),
            ahead_of_manifests=self._ahead(self._lifetimes.hold_manifest, grace),
        )
        return Collected() if row is None else Collected(manifests=row[0], links=row[1], repositories=row[2])

    async def count_free(self, grace: int | None = None) -> Collected:
        """The blobs that would go at once, and their bytes; what due manifests hold is not among them."""
        row = await self._database.fetch_one(_COUNT_FREE, ahead=self._ahead(self._lifetimes.hold, grace))
        return Collected() if row is None else Collected(blobs=row[0], size=row[1])

    # --- deleted repositories ---

    async def _empty_repository(self) -> Collected:
        async def work(tx: Transaction) -> tuple[int, Collected]:
            row = await tx.fetch_one(_DELETED_REPOSITORY, after=self._deleted_behind)
            if row is None:  # from the start again
                row = await tx.fetch_one(_DELETED_REPOSITORY, after=-1)
            return (-1, Collected()) if row is None else (row[0], await self._empty(tx, row[0]))

        self._deleted_behind, collected = await self._database.unit(work, durable=False)
        return collected

    async def _empty(self, tx: Transaction, repository: int) -> Collected:
        """
        Take a batch out of a deleted repository, whose row is locked, hence to which nobody pushes.

        Nobody was promised anything in it: its links are due at once.
        """
        await tx.execute(_END_UPLOADS, repository=repository)  # the sweeper's, from now on
        names = [row[0] for row in await tx.fetch_all(_ITS_TAGS, repository=repository, limit=self._links.rows)]
        if names:
            await tx.execute(_DELETE_TAGS, repository=repository, names=names)
            return Collected(repositories=1)
        gone = await tx.fetch_all(_ITS_MANIFESTS, repository=repository, limit=self._links.rows)
        if gone:
            await tx.execute(_DELETE_MANIFESTS, **_pairs(gone))
            return Collected(repositories=1, manifests=len(gone))
        links = await tx.fetch_all(_ITS_LINKS, repository=repository, limit=self._links.rows)
        if links:
            await tx.execute(_LINKS_ARE_DUE, **_pairs(links))
            return Collected(repositories=1)
        empty = await tx.fetch_one(_IS_EMPTY, repository=repository)
        if empty is not None and all(empty):
            await tx.execute(_DELETE_REPOSITORY, repository=repository)
            await forget(tx, of_repository(repository))
            return Collected(repositories=1)
        return Collected()

    # --- manifests ---

    async def _review_manifests(self, ahead: int) -> Collected:
        async def work(tx: Transaction) -> Collected:
            began = self._manifests.clock()
            rows = await tx.fetch_all(_DUE_MANIFESTS, ahead=ahead, limit=self._manifests.rows)
            if not rows:
                return Collected()
            due = [(row[0], row[1]) for row in rows]
            idle, busy = await self._part_busy(tx, due)
            await _execute(tx, _POSTPONE_MANIFESTS, busy, pause=HOUR)
            tagged = await _fetch_pairs(tx, _TAGGED, idle)
            await _execute(tx, _CLEAR_MANIFESTS, sorted(tagged))
            untagged = [pair for pair in idle if pair not in tagged]
            holders = await _fetch_related(tx, _HOLDERS, untagged)
            deleted, postponed, kept = [], len(busy), len(tagged)
            free = [pair for pair in untagged if pair not in holders]
            for pair in untagged:
                if pair in holders and pair not in deleted:
                    verdict = await self._judge(tx, pair, holders[pair], ahead)
                    deleted += verdict.group
                    kept += verdict.is_kept
                    postponed += verdict.is_postponed
            gone, later = await self._delete(tx, [pair for pair in free if pair not in deleted])
            await _execute(tx, _POSTPONE_MANIFESTS, later, pause=_MINUTE)
            self._manifests.learn(len(due), self._manifests.clock() - began)
            return Collected(manifests=len(gone) + len(deleted), kept=kept, postponed=postponed + len(later))

        return await self._database.unit(work, durable=False)

    async def _judge(self, tx: Transaction, pair: Pair, holders: set[str], ahead: int) -> _Verdict:
        """Decide about a manifest that other manifests hold, by whether anything holds one of them in the end."""
        repository, _ = pair
        group = {pair}
        front = {(repository, holder) for holder in holders}
        while front:
            if await _fetch_pairs(tx, _KEPT, sorted(front), ahead=ahead):
                # Only under the lock of a holder: when that is about to go, it lets this one go after us.
                held = await tx.fetch_one(_LOCK_A_HOLDER, **_pairs([(repository, one) for one in sorted(holders)]))
                if held is None:
                    await _execute(tx, _POSTPONE_MANIFESTS, [pair], pause=_MINUTE)
                    return _Verdict(is_postponed=True)
                await _execute(tx, _CLEAR_MANIFESTS, [pair])
                return _Verdict(is_kept=True)
            group |= front
            if len(group) > _FURTHEST:
                await _execute(tx, _POSTPONE_MANIFESTS, [pair], pause=HOUR)
                return _Verdict(is_postponed=True)
            above = await _fetch_related(tx, _HOLDERS, sorted(front))
            front = {(one[0], holder) for one, found in above.items() for holder in found} - group
        return await self._delete_group(tx, pair, sorted(group), ahead)

    async def _delete_group(self, tx: Transaction, pair: Pair, group: list[Pair], ahead: int) -> _Verdict:
        """Delete manifests that only hold each other, which is looked at again under their locks."""
        locked = await _fetch_pairs(tx, _LOCK_TO_DELETE, group)
        if len(locked) == len(group):
            kept = await _fetch_pairs(tx, _KEPT, group, ahead=ahead)
            holders = await _fetch_related(tx, _HOLDERS, group)
            outside = {(one[0], holder) for one, found in holders.items() for holder in found} - set(group)
            if not kept and not outside:
                gone, _ = await self._delete(tx, group, together=True)
                if gone:
                    return _Verdict(group=gone)
        await _execute(tx, _POSTPONE_MANIFESTS, [pair], pause=_MINUTE)
        return _Verdict(is_postponed=True)

    async def _delete(
        self, tx: Transaction, doomed: list[Pair], *, together: bool = False
    ) -> tuple[list[Pair], list[Pair]]:
        """
        Delete manifests, which are locked, and let go what they hold; which of them, and which of them not.

        Not those that hold something that somebody else has locked; `together`: then none of them.
        """
        if not doomed:
            return [], []
        children = await _fetch_related(tx, _HELD_MANIFESTS, doomed)
        links = await _fetch_related(tx, _HELD_LINKS, doomed)
        group = set(doomed)
        children = {
            one: {held for held in found if (one[0], held) not in group} for one, found in children.items()
        }
        locked_children = await _fetch_pairs(tx, _LOCK_TO_LET_GO, _flat(children))
        locked_links = await _fetch_pairs(tx, _LOCK_LINKS_TO_LET_GO, _flat(links))
        later = {
            one
            for held, locked in ((children, locked_children), (links, locked_links))
            for one, found in held.items()
            if any((one[0], digest) not in locked for digest in found)
        }
        if later and together:
            return [], doomed
        gone = [one for one in doomed if one not in later]
        await _execute(tx, _DELETE_MANIFESTS, gone)
        await record(tx, *(_deleted(repository, digest) for repository, digest in gone))
        let_go = [{one: found for one, found in held.items() if one not in later} for held in (children, links)]
        await _execute(tx, _LET_MANIFESTS_GO, _flat(let_go[0]), hold=self._lifetimes.hold)
        await _execute(tx, _LET_LINKS_GO, _flat(let_go[1]), hold=self._lifetimes.hold)
        return gone, sorted(later)

    # --- links and blobs ---

    async def _review_links(self, ahead: int) -> Collected:
        # Behind the last row: walking over one's own dead index entries again takes ever longer.
        due = await self._due_links(self._links_behind, ahead) or await self._due_links(_BEGIN, ahead)
        if not due:
            self._links_behind = _BEGIN
            return Collected()

        async def work(tx: Transaction) -> Collected:
            began = self._links.clock()
            collected = await self._unlink(tx, [(row[1], row[2]) for row in due], ahead)
            self._links.learn(len(due), self._links.clock() - began)
            return collected

        collected = await self._database.unit(work, durable=False)
        date, repository, digest = due[-1]
        self._links_behind = (date, repository, digest)
        return collected

    async def _due_links(self, behind: _Marker, ahead: int) -> list[Row]:
        date, repository, digest = behind
        return await self._database.fetch_all(
            _DUE_LINKS,
            ahead=ahead,
            after_date=date,
            after_repository=repository,
            after_digest=digest,
            limit=self._links.rows,
        )

    async def _unlink(self, tx: Transaction, due: list[Pair], ahead: int) -> Collected:
        digests = sorted({digest for _, digest in due})
        sizes = {row[0]: row[1] for row in await tx.fetch_all(_LOCK_BLOBS, digests=digests)}
        candidates = [pair for pair in due if pair[1] in sizes]
        rows: list[Row] = []
        if candidates:
            rows = await tx.fetch_all(_LOCK_LINKS_TO_DELETE, ahead=ahead, **_pairs(candidates))
        # Somebody may have renewed one meanwhile, and was promised more than what postponing would leave.
        locked, busy = await self._part_busy(tx, [(row[0], row[1]) for row in rows if row[2]])
        await _execute(tx, _POSTPONE_LINKS, busy, pause=HOUR)
        used = await _fetch_pairs(tx, _USED_LINKS, locked)
        kept = used
        if used and self._database.dialect == "postgresql":
            kept = await _fetch_pairs(tx, _LOCK_USERS, sorted(used))
        await _execute(tx, _CLEAR_LINKS, sorted(kept))
        later = sorted(used - kept)
        await _execute(tx, _POSTPONE_LINKS, later, pause=_MINUTE)
        unused = [pair for pair in locked if pair not in used]
        gone = await self._drop(tx, unused, sizes) if unused else Collected()
        return gone + Collected(kept=len(kept), postponed=len(busy) + len(later))

    async def _drop(self, tx: Transaction, unused: list[Pair], sizes: dict[str, int]) -> Collected:
        """Delete links, the blobs that have none left, and count down."""
        await tx.execute(_DELETE_LINKS, **_pairs(unused))
        counts: defaultdict[str, int] = defaultdict(int)
        for repository, digest in unused:
            counts[f"repository:{repository}"] -= sizes[digest]
        for namespace, digest in await tx.fetch_all(_LAST_OF_NAMESPACE, **_pairs(unused)):
            counts[f"namespace:{namespace}"] -= sizes[digest]
        freed = await tx.fetch_all(_DELETE_BLOBS, digests=sorted({digest for _, digest in unused}))
        size = sum(row[0] for row in freed)
        counts["*"] -= size
        await tx.execute(_COUNT, counts=json.dumps([one for one in sorted(counts.items()) if one[1]]))
        objects = sorted((row[1], row[0]) for row in freed if row[1] is not None)
        await tx.execute(_BURY, objects=json.dumps(objects), delay=self._lifetimes.delete_delay)
        return Collected(links=len(unused), blobs=len(freed), size=size)

    async def _part_busy(self, tx: Transaction, pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Those in repositories to which nobody uploads, and the others: a push of days does not fail either."""
        among = sorted({repository for repository, _ in pairs})
        busy = {row[0] for row in await tx.fetch_all(_BUSY, repositories=among, active=self._active)}
        return [one for one in pairs if one[0] not in busy], [one for one in pairs if one[0] in busy]


class _Verdict(Struct, frozen=True, kw_only=True):
    group: list[Pair] = field(default_factory=list)
    is_kept: bool = False
    is_postponed: bool = False


def _pairs(rows: Iterable[Row | Pair]) -> dict[str, Any]:
    """The parameters of a statement over pairs."""
    return {"pairs": json.dumps([(row[0], row[1]) for row in rows])}


def _flat(related: dict[Pair, set[str]]) -> list[Pair]:
    return sorted({(one[0], digest) for one, found in related.items() for digest in found})


def _deleted(repository: int, digest: str) -> Event:
    actor = Actor("system", name="collector")
    return Event(type="DELETE", actor=actor, object=Object("manifest", digest), repository_id=repository)


async def _execute(tx: Transaction, statement: Statement, pairs: list[Pair], **parameters: Any) -> None:
    if pairs:
        await tx.execute(statement, **_pairs(pairs), **parameters)


async def _fetch_pairs(tx: Transaction, statement: Statement, pairs: list[Pair], **parameters: Any) -> set[Pair]:
    if not pairs:
        return set()
    return {(row[0], row[1]) for row in await tx.fetch_all(statement, **_pairs(pairs), **parameters)}


async def _fetch_related(tx: Transaction, statement: Statement, pairs: list[Pair]) -> dict[Pair, set[str]]:
    """Digests by pair."""
    found: defaultdict[Pair, set[str]] = defaultdict(set)
    if pairs:
        for repository, digest, related in await tx.fetch_all(statement, **_pairs(pairs)):
            found[repository, digest].add(related)
    return dict(found)
