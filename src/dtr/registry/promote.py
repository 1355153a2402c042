"""
Promotion: what a tag names in one repository gets a tag in another.

No bytes are copied: the target gets links to the blobs, and the manifests. An index comes with all its manifests,
and each manifest with what refers to it (signatures, attestations, bills of materials), which has no tag there.
All of it commits together, or nothing. What refers to them by a tag (`companions`) gets that tag in the target,
too, and before the image does: who checks signatures finds them with it. A tag of that kind that did not come from
here stays as it is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from sqlalchemy import BigInteger, and_, bindparam, case, exists, select, true, union_all
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import blobs, manifest_references, manifests, repositories, repository_blobs, tag_origins, tags
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.oci import companions, may_hold_signatures
from dtr.registry._links import link_all
from dtr.registry._tags import claim_tags, show_again, tags_by_name
from dtr.registry._verification import verify_soon
from dtr.registry.errors import ManifestIncomplete, ManifestUnknown, TagImmutable, TooManyManifests
from dtr.registry.manifests import made
from dtr.registry.usage import count_push

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from dtr.db import Database, Row, Transaction
    from dtr.registry.lifetimes import Lifetimes

_T = TypeVar("_T")

_MOST_MANIFESTS = 10_000
"""An index of 1,000 manifests, each with some that refer to it."""

_hold = bindparam("hold", type_=BigInteger)
_source = bindparam("source", type_=BigInteger)
_target = bindparam("target", type_=BigInteger)
_LOCK_TAG = Statement(
    lambda: (
        select(tags.c.manifest)
        .where(tags.c.repository_id == _source, tags.c.name == bindparam("tag"))
        .with_for_update(read=True)
    )
)
_NEIGHBOURS = Statement(
    lambda: (
        select(manifests.c.digest)
        .join(
            manifest_references,
            and_(
                manifest_references.c.repository_id == manifests.c.repository_id,
                manifest_references.c.kind == "manifest",
                manifest_references.c.target == manifests.c.digest,
            ),
        )
        .where(manifests.c.repository_id == _source, in_list(manifest_references.c.manifest, "digests"))
        .union(
            select(manifests.c.digest).where(
                manifests.c.repository_id == _source, in_list(manifests.c.subject, "digests")
            )
        )
        .limit(_MOST_MANIFESTS + 1)
    )
)
_LOCK_SOURCE = Statement(
    lambda: (
        select(manifests.c.digest)
        .where(manifests.c.repository_id == _source, in_list(manifests.c.digest, "digests"))
        .order_by(manifests.c.digest)
        .with_for_update(read=True, key_share=True)
    )
)
_copied = (
    manifests.c.media_type,
    manifests.c.artifact_type,
    manifests.c.subject,
    manifests.c.config_digest,
    manifests.c.config_media_type,
    manifests.c.annotations,
    manifests.c.content_size,
    manifests.c.platforms,
    manifests.c.payload,
)
_given = union_all(
    select(
        _target.label("repository_id"),
        manifests.c.digest,
        *_copied,
        bindparam("author", type_=manifests.c.author.type).label("author"),
        now().label("created_at"),
        # NULL: the tag holds it.
        case((manifests.c.digest != bindparam("root"), now() + _hold)).label("review_at"),
    ).where(manifests.c.repository_id == _source, in_list(manifests.c.digest, "digests")),
    # Those that lose a tag conflict with themselves: so all are locked in the order of their digests.
    select(
        manifests.c.repository_id,
        manifests.c.digest,
        *_copied,
        manifests.c.author,
        manifests.c.created_at,
        manifests.c.review_at,
    ).where(manifests.c.repository_id == _target, in_list(manifests.c.digest, "old")),
).subquery("given")
_new = insert(manifests).from_select(list(_given.c.keys()), select(_given).where(true()).order_by(_given.c.digest))
_COPY = Statement(
    lambda: _new.on_conflict_do_update(
        index_elements=["repository_id", "digest"],
        set_={"review_at": _new.excluded.review_at},
        # Only ever later; NULL stays: something holds it.
        where=and_(
            manifests.c.review_at.is_not(None),
            _new.excluded.review_at.is_not(None),
            manifests.c.review_at < _new.excluded.review_at,
        ),
    ).returning(
        manifests.c.digest, manifests.c.media_type, manifests.c.created_at == now(), manifests.c.artifact_type
    )
)
_REFERENCES = Statement(
    lambda: (
        select(manifest_references.c.kind, manifest_references.c.target)
        .where(manifest_references.c.repository_id == _source, in_list(manifest_references.c.manifest, "digests"))
        .distinct()
    )
)
_LOCK_BLOBS = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.size)
        .where(
            in_list(blobs.c.digest, "digests"),
            blobs.c.state == "present",
            # Who may have the manifest may have what the repository holds, and nothing else that it names.
            exists().where(
                repository_blobs.c.repository_id == _source, repository_blobs.c.digest == blobs.c.digest
            ),
        )
        .order_by(blobs.c.digest)
        .with_for_update(key_share=True, of=blobs)  # FOR NO KEY UPDATE
    )
)
_COPY_REFERENCES = Statement(
    lambda: (
        insert(manifest_references)
        .from_select(
            ["repository_id", "manifest", "kind", "target"],
            select(
                _target, manifest_references.c.manifest, manifest_references.c.kind, manifest_references.c.target
            ).where(
                manifest_references.c.repository_id == _source, in_list(manifest_references.c.manifest, "digests")
            ),
        )
        .on_conflict_do_nothing()
    )
)
_origin = insert(tag_origins).from_select(
    ["repository_id", "name", "manifest", "moved_at", "source_repository", "source_tag", "policy_id"],
    select(
        tags.c.repository_id,
        tags.c.name,
        tags.c.manifest,
        tags.c.updated_at,
        bindparam("source_repository", type_=tag_origins.c.source_repository.type),
        bindparam("source_tag", type_=tag_origins.c.source_tag.type),
        bindparam("policy_id", type_=tag_origins.c.policy_id.type),
    ).where(tags.c.repository_id == _target, tags.c.name == bindparam("tag")),
)
_TELL_ORIGIN = Statement(
    lambda: _origin.on_conflict_do_update(
        index_elements=["repository_id", "name"],
        set_={
            one: _origin.excluded[one]
            for one in ("manifest", "moved_at", "source_repository", "source_tag", "policy_id")
        },
    )
)
_HOLDS = Statement(
    lambda: select(manifests.c.digest).where(
        manifests.c.repository_id == _target, manifests.c.digest == bindparam("digest")
    )
)
_TAGS_BY_NAME = Statement(tags_by_name)
_CARRIED = Statement(  # tags that name what they were promoted to name, from a repository that was called so
    lambda: tags_by_name.join(
        tag_origins,
        and_(
            tag_origins.c.repository_id == tags.c.repository_id,
            tag_origins.c.name == tags.c.name,
            tag_origins.c.manifest == tags.c.manifest,
            tag_origins.c.moved_at == tags.c.updated_at,
        ),
    ).where(tag_origins.c.source_repository == bindparam("path", type_=tag_origins.c.source_repository.type))
)
_PATH = Statement(lambda: select(repositories.c.path).where(repositories.c.id == _target))


class Origin(Struct, frozen=True):
    """Where a tag was promoted from."""

    repository: str
    """What it was called then."""
    tag: str
    policy: str = ""
    """Id of the policy that did it; empty: somebody did by hand."""


class Promotion:
    """Promotes from repository to repository. Who may is not decided here."""

    def __init__(self, database: Database, lifetimes: Lifetimes, *, sparse_manifests: bool = False) -> None:
        """With `sparse_manifests` a manifest may name blobs and manifests that are not there."""
        self._database = database
        self._lifetimes = lifetimes
        self._sparse_manifests = sparse_manifests

    async def promote(
        self,
        source: int,
        digest: str,
        target: int,
        tag: str,
        origin: Origin,
        *,
        while_named: bool = False,
        chain: Sequence[str] = (),
        before: Callable[[Transaction], Awaitable[None]] | None = None,
        by: Actor = SYSTEM,
    ) -> None:
        """
        Let `tag` of the repository `target` name what has `digest` in the repository `source`.

        With `while_named` only as long as the tag of the origin names it. It counts as a push, to which the image
        came through `chain`. `before` is the first in the transaction, and stops it by what it raises. Raises
        RepositoryUnknown, ManifestUnknown, ManifestIncomplete, TooManyManifests, TagImmutable.
        """
        await self._carry_companions(source, digest, target, origin, chain=chain, by=by)
        await self._give(
            source, digest, target, tag, origin, while_named=while_named, chain=chain, before=before, by=by
        )

    async def carry(
        self, source: int, digest: str, target: int, origin: Origin, *, chain: Sequence[str] = (), by: Actor
    ) -> int:
        """
        Let the target, which has what has `digest` already, have what refers to it now; how much was new.

        Policies of the target that waited for it go on. Raises as `promote` does; ManifestUnknown also when the
        target does not have it any more.
        """
        if await self._database.fetch_one(_HOLDS, target=target, digest=digest) is None:
            raise ManifestUnknown(digest)
        carried = await self._carry_companions(source, digest, target, origin, chain=chain, by=by)

        async def work(tx: Transaction) -> int:
            claim = await claim_tags(tx, target, [], digest, by)
            rows = await self._copy(tx, source, target, digest, tagged=False, old=set(), by=by)
            new = sorted((made_digest, media_type) for made_digest, media_type, is_new, _ in rows if is_new)
            if any(made_digest == digest for made_digest, _ in new):
                raise ManifestUnknown(digest)
            await record(tx, *(made(target, *one, by) for one in new))
            if new and claim.has_policies:
                await show_again(tx, target, digest)
            return len(new)

        return carried + await self._unit(work)

    async def _carry_companions(
        self, source: int, digest: str, target: int, origin: Origin, *, chain: Sequence[str], by: Actor
    ) -> int:
        """Let the target have the companions of what belongs to a manifest; how many were new."""
        digests = await _reachable(self._database.fetch_all, source, digest)
        names = sorted({name for one in digests for name in companions(one)})
        here = await self._database.fetch_all(_TAGS_BY_NAME, repository=source, names=names)
        if not here:
            return 0
        names = [row[0] for row in here]
        there = {row[0]: row[1] for row in await self._database.fetch_all(
            _TAGS_BY_NAME, repository=target, names=names
        )}  # fmt: skip
        ours = {row[0] for row in await self._database.fetch_all(
            _CARRIED, repository=target, names=names, path=origin.repository
        )}  # fmt: skip
        carried = 0
        for name, companion in here:
            if there.get(name) == companion or (name in there and name not in ours):
                continue
            # It moved or went meanwhile, or may not be replaced there.
            with contextlib.suppress(ManifestUnknown, TagImmutable):
                its_origin = Origin(origin.repository, name, origin.policy)
                await self._give(
                    source, companion, target, name, its_origin, while_named=True, chain=chain, told=False, by=by
                )
                carried += 1
        return carried

    async def _give(
        self,
        source: int,
        digest: str,
        target: int,
        tag: str,
        origin: Origin,
        *,
        while_named: bool,
        chain: Sequence[str],
        before: Callable[[Transaction], Awaitable[None]] | None = None,
        told: bool = True,
        by: Actor,
    ) -> None:
        """Promote to a single tag; with `told` it is an event at the source, too."""

        async def work(tx: Transaction) -> None:
            if before is not None:
                await before(tx)
            is_first = (source, origin.tag) < (target, tag)  # tags are locked in the order of their keys
            if while_named and is_first:
                await _lock_tag(tx, source, origin.tag, digest)
            claim = await claim_tags(tx, target, [tag], digest, by)
            if while_named and not is_first:
                await _lock_tag(tx, source, origin.tag, digest)
            rows = await self._copy(tx, source, target, digest, tagged=True, old=claim.old, by=by)
            await claim.settle(tx, hold=self._lifetimes.hold_manifest, chain=chain)
            await tx.execute(
                _TELL_ORIGIN,
                target=target,
                tag=tag,
                source_repository=origin.repository,
                source_tag=origin.tag,
                policy_id=origin.policy,
            )
            new = sorted((made_digest, media_type) for made_digest, media_type, is_new, _ in rows if is_new)
            row = await tx.fetch_one(_PATH, target=target)
            promoted = [_promoted(source, origin, digest, tag, row[0] if row else "", by)] if told else []
            await record(tx, *(made(target, *one, by) for one in new), *claim.events, *promoted)
            await count_push(tx, target)

        await self._unit(work)

    async def _unit(self, work: Callable[[Transaction], Coroutine[Any, Any, _T]]) -> _T:
        while True:
            try:
                return await self._database.unit(work)
            except _SourceChanged:
                continue

    async def _copy(
        self, tx: Transaction, source: int, target: int, digest: str, *, tagged: bool, old: set[str], by: Actor
    ) -> list[Row]:
        """
        Let the target have a manifest (with `tagged`, a tag holds it) and what belongs to it, blobs included.

        Returns a row for each that is new or stays longer: its digest, its media type, whether it is new (its
        signatures are verified soon), its artifact type. Those of
        the target that are `old`, for they lose a tag, are locked, too.
        """
        digests = await _reachable(tx.fetch_all, source, digest)
        # Manifests are locked in the order of their keys: the lower repository's before the higher one's.
        if source < target:
            await _lock_source(tx, source, digest, digests)
        rows = await tx.fetch_all(
            _COPY,
            source=source,
            target=target,
            digests=digests,
            old=sorted(old.difference(digests)),
            root=digest if tagged else "",
            author=by.name,
            hold=self._lifetimes.hold_manifest,
        )
        if source >= target:
            await _lock_source(tx, source, digest, digests)
        await self._copy_references(tx, source, target, digests)
        for copied, _, is_new, artifact_type in sorted(rows, key=lambda row: row[0]):
            if is_new and may_hold_signatures(artifact_type):
                await verify_soon(tx, target, copied)
        return rows

    async def _copy_references(self, tx: Transaction, source: int, target: int, digests: list[str]) -> None:
        """Let the target hold what the manifests name. Raises ManifestIncomplete."""
        named = await tx.fetch_all(_REFERENCES, source=source, digests=digests)
        needed = sorted({name for kind, name in named if kind == "blob"})
        held = {row[0]: row[1] for row in await tx.fetch_all(_LOCK_BLOBS, source=source, digests=needed)}
        lacking_blobs = sorted(set(needed).difference(held))
        lacking = sorted({name for kind, name in named if kind == "manifest"}.difference(digests))
        if (lacking_blobs or lacking) and not self._sparse_manifests:
            raise ManifestIncomplete(lacking_blobs, lacking)
        await link_all(tx, target, sorted(held), hold=self._lifetimes.hold)
        await tx.execute(_COPY_REFERENCES, source=source, target=target, digests=digests)


def _promoted(source: int, origin: Origin, digest: str, tag: str, path: str, by: Actor) -> Event:
    """What happened at the source, beside the push to the target: the target is that tag, with its repository."""
    return Event(
        type="CREATE",
        actor=by,
        object=Object("promotion", origin.policy, origin.tag, digest),
        target=Object("tag", tag, f"{path}:{tag}", digest),
        repository_id=source,
    )


class _SourceChanged(Exception):
    """Manifests went before they were locked: the unit of work is rolled back, and begins anew."""


async def _lock_tag(tx: Transaction, repository: int, tag: str, digest: str) -> None:
    """Keep the tag from moving away from `digest`. Raises ManifestUnknown: it does not name it."""
    row = await tx.fetch_one(_LOCK_TAG, source=repository, tag=tag)
    if row is None or row[0] != digest:
        raise ManifestUnknown(tag)


async def _reachable(fetch_all: Callable[..., Awaitable[list[Row]]], repository: int, digest: str) -> list[str]:
    """The manifest, its children, and what refers to any of them, by digest. Raises TooManyManifests."""
    found, latest = {digest}, {digest}
    while latest:
        rows = await fetch_all(_NEIGHBOURS, source=repository, digests=sorted(latest))
        latest = {row[0] for row in rows} - found
        found |= latest
        if len(found) > _MOST_MANIFESTS:
            raise TooManyManifests(digest, _MOST_MANIFESTS)
    return sorted(found)


async def _lock_source(tx: Transaction, repository: int, digest: str, digests: list[str]) -> None:
    """Keep `digest` and all `digests`, hence what they name. Raises ManifestUnknown, _SourceChanged."""
    locked = {row[0] for row in await tx.fetch_all(_LOCK_SOURCE, source=repository, digests=digests)}
    if digest not in locked:
        raise ManifestUnknown(digest)
    if len(locked) < len(digests):
        raise _SourceChanged
