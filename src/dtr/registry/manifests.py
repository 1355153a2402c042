"""
Manifests and tags.

OCI distribution specification 1.1: "Pulling manifests", "Pushing manifests", "Content management", "Listing
referrers".

A manifest is stored and served byte for byte; its columns are an index over the bytes. What it names must be in
the repository when it comes, and stays there as long as it does. What a tag, a parent or a subject lets go gets
a date of review in the same transaction.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    String,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, each, in_list, now
from dtr.db.schema import (
    blobs,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
    trust_targets,
)
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.oci import may_hold_signatures
from dtr.registry._tags import DELETE_TAGS, FORGET_PULLS, claim_tags, let_go, remove_tags, tags_by_name
from dtr.registry.errors import (
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryUnknown,
    TagImmutable,
    TagSigned,
)
from dtr.registry.usage import count_push, touch
from dtr.trust.index import signed_among

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.oci import Digest, Manifest
    from dtr.registry.lifetimes import Lifetimes

_LARGEST_NOTES = 16 * 1024
"""Characters of the annotations that the row of a manifest repeats."""
_hold = bindparam("hold", type_=BigInteger)
_lease = bindparam("lease", type_=BigInteger)
_repository = bindparam("repository", type_=BigInteger)
_live_at_path = and_(repositories.c.path == bindparam("path"), repositories.c.deleted_at.is_(None))
_due = and_(manifests.c.review_at.is_not(None), manifests.c.review_at < now() + _lease)
_columns = (
    manifests.c.repository_id,
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.payload,
    repositories.c.namespace_id,
)

_BY_TAG = Statement(
    lambda: (
        select(*_columns)
        .join_from(repositories, tags, tags.c.repository_id == repositories.c.id)
        .join(
            manifests,
            and_(manifests.c.repository_id == tags.c.repository_id, manifests.c.digest == tags.c.manifest),
        )
        .where(_live_at_path, tags.c.name == bindparam("reference"))
    )
)
_BY_DIGEST = Statement(
    lambda: (
        select(*_columns, _due)
        .join_from(repositories, manifests, manifests.c.repository_id == repositories.c.id)
        .where(_live_at_path, manifests.c.digest == bindparam("reference"))
    )
)
_RENEW = Statement(
    lambda: (
        update(manifests)
        .where(
            manifests.c.repository_id == _repository,
            manifests.c.digest == bindparam("which"),
            manifests.c.review_at.is_not(None),
        )
        .values(review_at=now() + _hold)
    )
)

# --- putting --------------------------------------------------------------------------------------------------

_LOCK_TAGS = Statement(tags_by_name.with_for_update)
_LOCK_MANIFESTS = Statement(
    lambda: (
        select(manifests.c.digest)
        .where(in_list(manifests.c.digest, "digests", within=(manifests.c.repository_id, _repository)))
        .order_by(manifests.c.digest)
        .with_for_update(key_share=True)  # FOR NO KEY UPDATE
    )
)
_LOCK_LINKS = Statement(
    lambda: (
        select(repository_blobs.c.digest)
        .join(blobs, blobs.c.digest == repository_blobs.c.digest)
        .where(
            in_list(repository_blobs.c.digest, "digests", within=(repository_blobs.c.repository_id, _repository)),
            blobs.c.state == "present",
        )
        .order_by(repository_blobs.c.digest)
        .with_for_update(read=True, key_share=True, of=repository_blobs)
    )
)
_new = (
    insert(manifests)
    .values(
        repository_id=_repository,
        digest=bindparam("digest"),
        media_type=bindparam("media_type"),
        artifact_type=bindparam("artifact_type"),
        subject=bindparam("subject"),
        config_digest=bindparam("config_digest"),
        config_media_type=bindparam("config_media_type"),
        annotations=bindparam("annotations"),
        content_size=bindparam("content_size"),
        platforms=bindparam("platforms"),
        payload=bindparam("payload"),
        author=bindparam("author"),
        created_at=now(),
        review_at=now() + _hold,  # NULL hold: a tag holds it
    )
)  # fmt: skip
_is_later = and_(
    manifests.c.review_at.is_not(None),
    _new.excluded.review_at.is_not(None),
    manifests.c.review_at < _new.excluded.review_at,
)
_PUT = Statement(
    lambda: _new.on_conflict_do_update(
        index_elements=["repository_id", "digest"],
        set_={
            # Only ever later; NULL stays: something holds it.
            "review_at": case((_is_later, _new.excluded.review_at), else_=manifests.c.review_at),
            "payload": _new.excluded.payload,
        },
        # Bytes that are not those of the digest are damage, which a push heals.
        where=or_(_is_later, manifests.c.payload != _new.excluded.payload),
    ).returning(manifests.c.created_at == now())
)
_PUT_REFERENCES = Statement(
    lambda: (
        insert(manifest_references)
        .from_select(
            ["repository_id", "manifest", "kind", "target"],
            union_all(
                *(
                    select(
                        _repository,
                        bindparam("digest", type_=manifest_references.c.manifest.type),
                        literal(kind, manifest_references.c.kind.type),
                        targets.c.value,
                    ).where(true())
                    for kind, targets in (("blob", each("blobs")), ("manifest", each("children")))
                )
            ),
        )
        .on_conflict_do_nothing()
    )
)
# --- deleting -------------------------------------------------------------------------------------------------

_tags_of = (
    select(tags.c.name)
    .where(tags.c.repository_id == _repository, tags.c.manifest == bindparam("digest"))
    .order_by(tags.c.name)
)
_LOCK_TAGS_OF = Statement(_tags_of.with_for_update)
_HOLD = Statement(  # FOR SHARE: pushes go on, and nobody publishes signatures until this deletion is decided
    lambda: select(repositories.c.id).where(repositories.c.id == _repository).with_for_update(read=True)
)
_references_of = select(manifest_references.c.target).where(
    manifest_references.c.repository_id == _repository, manifest_references.c.manifest == bindparam("digest")
)
_related = _references_of.where(manifest_references.c.kind == "manifest").union(
    select(manifests.c.digest).where(
        manifests.c.repository_id == _repository, manifests.c.subject == bindparam("digest")
    )
)
_RELATED = Statement(_related)
_LOCK_RELATED = Statement(
    lambda: (
        select(manifests.c.digest)
        .where(in_list(manifests.c.digest, "digests", within=(manifests.c.repository_id, _repository)))
        .order_by(manifests.c.digest)
        .with_for_update()
    )
)
_parents = (
    select(manifest_references.c.manifest)
    .where(
        manifest_references.c.repository_id == _repository,
        manifest_references.c.kind == "manifest",
        manifest_references.c.target == bindparam("digest"),
    )
    .limit(1)
)
_signed = (  # names of tags under which content trust has the manifest, or which lead to it here
    select(trust_targets.c.name)
    .where(
        trust_targets.c.repository_id == _repository,
        trust_targets.c.forgotten_at.is_(None),
        or_(
            trust_targets.c.digest == bindparam("digest"),
            trust_targets.c.name.in_(_tags_of.order_by(None)),
        ),
    )
    .limit(1)
)
_AROUND = Statement(  # what each is, and its name or digest
    lambda: union_all(
        *(
            select(literal(what, String), query.subquery().c[0])
            for what, query in {
                "tag": _tags_of.order_by(None),
                "related": _related,
                "parent": _parents,
                "signed": _signed,
                "blob": _references_of.where(manifest_references.c.kind == "blob"),
            }.items()
        )
    )
)
_DELETE = Statement(
    lambda: delete(manifests).where(
        manifests.c.repository_id == _repository, manifests.c.digest == bindparam("digest")
    )
)
_LOCK_LINKS_TO_LET_GO = Statement(
    lambda: (
        select(repository_blobs.c.digest)
        .where(
            in_list(repository_blobs.c.digest, "digests", within=(repository_blobs.c.repository_id, _repository))
        )
        .order_by(repository_blobs.c.digest)
        .with_for_update(key_share=True)
    )
)
_LET_LINKS_GO = Statement(
    lambda: (
        update(repository_blobs)
        .where(
            in_list(repository_blobs.c.digest, "digests", within=(repository_blobs.c.repository_id, _repository)),
            or_(repository_blobs.c.review_at.is_(None), repository_blobs.c.review_at < now() + _hold),
        )
        .values(review_at=now() + _hold)
    )
)

# --- listing --------------------------------------------------------------------------------------------------

# A statement of its own: a planner that does not know the number takes every repository for an average one, and
# would rather sort all tags of a large one than walk along the index.
_FIND_REPOSITORY = Statement(lambda: select(repositories.c.id).where(_live_at_path))
_LIST_TAGS = Statement(
    lambda: (
        select(tags.c.name)
        .where(tags.c.repository_id == _repository, tags.c.name > bindparam("after"))
        .order_by(tags.c.name)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_referrers = (
    select(
        manifests.c.media_type,
        manifests.c.digest,
        func.length(manifests.c.payload),
        manifests.c.artifact_type,
        manifests.c.annotations,
    )
    .where(
        manifests.c.repository_id == _repository,
        manifests.c.subject == bindparam("subject"),
        manifests.c.digest > bindparam("after"),
    )
    .order_by(manifests.c.digest)
    .limit(bindparam("limit", type_=BigInteger))
)
_REFERRERS = Statement(_referrers)
_REFERRERS_OF_TYPE = Statement(lambda: _referrers.where(manifests.c.artifact_type == bindparam("artifact_type")))


class StoredManifest(Struct, frozen=True):
    """A manifest as it was pushed."""

    repository: int
    digest: str
    media_type: str
    payload: bytes
    namespace: str | None
    """Id of the account that owns the repository."""


class Referrer(Struct, frozen=True):
    """A manifest that has another one as its subject; `size` in bytes, of the manifest itself."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None
    annotations: dict[str, str]


class DeletedTags(Struct, frozen=True):
    """What became of tags that were to be deleted."""

    gone: frozenset[str]
    signed: frozenset[str]
    """They stay: content trust names them."""


class Manifests:
    """The manifests and tags of all repositories."""

    def __init__(
        self,
        database: Database,
        lifetimes: Lifetimes,
        *,
        sparse_manifests: bool = False,
        fills_caches: bool = False,
    ) -> None:
        """
        With `sparse_manifests` a manifest may name blobs and manifests that are not here.

        With `fills_caches` tags of caches are written, which are nobody else's.
        """
        self._database = database
        self._lifetimes = lifetimes
        self._sparse_manifests = sparse_manifests
        self._fills_caches = fills_caches

    async def get(self, path: str, reference: str) -> StoredManifest:
        """
        The manifest that a tag or digest names in the repository at `path`.

        One named by digest stays for one lease, for the client that will name it in an index. Raises
        ManifestUnknown.
        """
        if ":" not in reference:
            row = await self._database.fetch_one(_BY_TAG, path=path, reference=reference)
            if row is None:
                raise ManifestUnknown(reference)
            return StoredManifest(*row)
        while True:
            row = await self._database.fetch_one(
                _BY_DIGEST, path=path, reference=reference, lease=self._lifetimes.lease
            )
            if row is None:
                raise ManifestUnknown(reference)
            *found, due = row
            if not due or await self._renew(row[0], reference):
                return StoredManifest(*found)

    async def put(
        self,
        repository: int,
        manifest: Manifest,
        payload: bytes,
        digest: Digest,
        new_tags: tuple[str, ...],
        *,
        chain: tuple[str, ...] = (),
        moves: bool = True,
        by: Actor = SYSTEM,
    ) -> None:
        """
        Store `payload`, which reads as `manifest` and has `digest`; let `new_tags` name it.

        Its author is the name of `by`. With tags it is counted as a push, to which the image came through `chain`;
        the images of an index come without. Unless it `moves` tags, one that names something else stays.

        Raises RepositoryUnknown, ManifestIncomplete, TagImmutable.
        """
        names = sorted(set(new_tags))
        children = sorted({child.digest for child in manifest.children})
        needed = sorted({blob.digest for blob in manifest.blobs})
        subject = manifest.subject.digest if manifest.subject else None
        has_signatures = subject is not None and may_hold_signatures(manifest.artifact_type)
        hold = self._lifetimes.hold_manifest

        async def work(tx: Transaction) -> None:
            claim = await claim_tags(tx, repository, names, digest, by, fills_caches=self._fills_caches)
            if claim.moved and not moves:
                raise TagImmutable(min(claim.moved))
            # All manifests are locked in the order of their digests. This one, when it is new, by making it.
            others = sorted({*children, *claim.old} - {digest})
            here = bisect(others, digest)
            there = await _lock_manifests(tx, repository, others[:here])
            row = await tx.fetch_one(
                _PUT,
                repository=repository,
                digest=digest,
                media_type=manifest.media_type,
                artifact_type=manifest.artifact_type,
                subject=subject,
                config_digest=manifest.config.digest if manifest.config else None,
                config_media_type=manifest.config.media_type if manifest.config else None,
                annotations=_noted(manifest.annotations),
                content_size=manifest.size,
                platforms=manifest.platforms,
                payload=payload,
                author=by.name,
                hold=None if names else hold,
            )
            there |= await _lock_manifests(tx, repository, others[here:])
            linked = await tx.fetch_all(_LOCK_LINKS, repository=repository, digests=needed) if needed else []
            lacking_blobs = sorted(set(needed).difference(row[0] for row in linked))
            lacking = sorted(set(children) - there)
            if (lacking_blobs or lacking) and not self._sparse_manifests:
                raise ManifestIncomplete(lacking_blobs, lacking)
            await tx.execute(
                _PUT_REFERENCES, repository=repository, digest=digest, blobs=needed, children=children
            )
            await claim.settle(tx, hold=hold, chain=chain, subject=subject, has_signatures=has_signatures)
            happened = [made(repository, digest, manifest.media_type, by)] if row and row[0] else []
            await record(tx, *happened, *claim.events)
            if names:
                await count_push(tx, repository)

        await self._database.unit(work)

    async def delete_tag(self, repository: int, tag: str, *, by: Actor = SYSTEM) -> None:
        """Remove a tag; what it named stays until nothing holds it. Raises ManifestUnknown, TagSigned."""
        deleted = await self.delete_tags(repository, [tag], by=by)
        if deleted.signed:
            raise TagSigned(tag)
        if not deleted.gone:
            raise ManifestUnknown(tag)

    async def delete_tags(
        self,
        repository: int,
        names: Iterable[str],
        *,
        by: Actor = SYSTEM,
        unless_moved: Mapping[str, str] | None = None,
    ) -> DeletedTags:
        """
        Remove those of the tags that are there, all together, but for those that are signed in content trust.

        `unless_moved` says what each named when it was decided upon: one that names something else now stays.
        """
        wanted = sorted(set(names))

        async def work(tx: Transaction) -> DeletedTags:
            await tx.fetch_one(_HOLD, repository=repository)
            rows = await tx.fetch_all(_LOCK_TAGS, repository=repository, names=wanted)
            found = {row[0]: row[1] for row in rows}
            if unless_moved is not None:
                found = {name: digest for name, digest in found.items() if unless_moved.get(name) == digest}
            signed = await signed_among(tx, repository, sorted(found)) if found else set()
            found = {name: digest for name, digest in found.items() if name not in signed}
            if found:
                digests = sorted(set(found.values()))
                await tx.fetch_all(_LOCK_MANIFESTS, repository=repository, digests=digests)
                await remove_tags(tx, repository, sorted(found))
                await let_go(tx, repository, digests, hold=self._lifetimes.hold_manifest)
                await record(
                    tx, *(_gone(repository, Object("tag", tag, tag, found[tag]), by) for tag in sorted(found))
                )
            return DeletedTags(frozenset(found), frozenset(signed))

        return await self._database.unit(work)

    async def delete(self, repository: int, digest: str, *, by: Actor = SYSTEM) -> None:
        """
        Remove a manifest and the tags that name it.

        Raises ManifestUnknown, ManifestReferenced, TagSigned: content trust has one of the tags, or the manifest.
        """

        async def work(tx: Transaction) -> bool:
            await tx.fetch_one(_HOLD, repository=repository)
            tagged = [row[0] for row in await tx.fetch_all(_LOCK_TAGS_OF, repository=repository, digest=digest)]
            related = {row[0] for row in await tx.fetch_all(_RELATED, repository=repository, digest=digest)}
            rows = await tx.fetch_all(_LOCK_RELATED, repository=repository, digests=sorted({digest, *related}))
            locked = {row[0] for row in rows}
            if digest not in locked:
                raise ManifestUnknown(digest)
            around: dict[str, set[str]] = defaultdict(set)
            for what, name in await tx.fetch_all(_AROUND, repository=repository, digest=digest):
                around[what].add(name)
            # What came before the lock is not locked; to wait for it now would be against the order of locks.
            if around["tag"] != set(tagged) or not around["related"] <= related:
                return False
            if around["parent"]:
                raise ManifestReferenced(digest, around["parent"].pop())
            if around["signed"]:
                raise TagSigned(around["signed"].pop())
            targets = sorted(around["blob"])
            if tagged:
                await tx.execute(DELETE_TAGS, repository=repository, names=tagged)
                await touch(tx, repository)
            await tx.execute(FORGET_PULLS, repository=repository, references=[*tagged, digest])
            await tx.execute(_DELETE, repository=repository, digest=digest)
            if related:
                await let_go(tx, repository, sorted(locked - {digest}), hold=self._lifetimes.hold_manifest)
            if targets:
                await tx.fetch_all(_LOCK_LINKS_TO_LET_GO, repository=repository, digests=targets)
                await tx.execute(_LET_LINKS_GO, repository=repository, digests=targets, hold=self._lifetimes.hold)
            await record(
                tx,
                *(_gone(repository, Object("tag", name, name, digest), by) for name in tagged),
                _gone(repository, Object("manifest", digest), by),
            )
            return True

        while not await self._database.unit(work):
            pass

    async def list_tags(self, where: str | int, *, after: str = "", limit: int) -> list[str]:
        """At most `limit` names of tags behind `after`, in the order of their bytes. Raises RepositoryUnknown."""
        repository = await self.find_repository(where)
        rows = await self._database.fetch_all(_LIST_TAGS, repository=repository, after=after, limit=limit)
        return [row[0] for row in rows]

    async def list_referrers(
        self, where: str | int, subject: str, *, artifact_type: str | None = None, after: str = "", limit: int
    ) -> list[Referrer]:
        """At most `limit` referrers behind the digest `after`, by digest. Raises RepositoryUnknown."""
        parameters: dict[str, Any] = {
            "repository": await self.find_repository(where),
            "subject": subject,
            "after": after,
            "limit": limit,
        }
        if artifact_type is None:
            rows = await self._database.fetch_all(_REFERRERS, **parameters)
        else:
            rows = await self._database.fetch_all(_REFERRERS_OF_TYPE, **parameters, artifact_type=artifact_type)
        return [_referrer(row) for row in rows]

    async def find_repository(self, where: str | int) -> int:
        """The number of the repository at a path; a number is its own. Raises RepositoryUnknown."""
        if isinstance(where, int):
            return where
        row = await self._database.fetch_one(_FIND_REPOSITORY, path=where)
        if row is None:
            raise RepositoryUnknown(where)
        return int(row[0])

    async def _renew(self, repository: int, digest: str) -> bool:
        async def work(tx: Transaction) -> bool:
            changed = await tx.execute(
                _RENEW, repository=repository, which=digest, hold=self._lifetimes.hold_manifest
            )
            return changed > 0

        # Not changed: collected or held meanwhile; the next look tells which.
        return await self._database.unit(work)


async def _lock_manifests(tx: Transaction, repository: int, digests: list[str]) -> set[str]:
    """Lock those that are there; which."""
    if not digests:
        return set()
    return {row[0] for row in await tx.fetch_all(_LOCK_MANIFESTS, repository=repository, digests=digests)}


def made(repository: int, digest: str, media_type: str, by: Actor) -> Event:
    """A manifest came to be."""
    return Event(
        type="CREATE",
        actor=by,
        object=Object("manifest", digest, content=media_type),
        repository_id=repository,
    )


def _noted(annotations: Mapping[str, str]) -> str | None:
    """
    The annotations as JSON, for the row; None: there are none.

    Lists read a thousand rows. So the longest are left out, until the others are within `_LARGEST_NOTES`.
    """
    text = json.dumps(dict(annotations)) if annotations else None
    if text is None or len(text) <= _LARGEST_NOTES:
        return text
    left, kept = _LARGEST_NOTES - len("{}"), {}
    for name in sorted(annotations, key=lambda one: len(one) + len(annotations[one])):
        left -= len(json.dumps({name: annotations[name]}))
        if left < 0:
            break
        kept[name] = annotations[name]
    return json.dumps(kept) if kept else None


def _gone(repository: int, what: Object, by: Actor) -> Event:
    return Event(type="DELETE", actor=by, object=what, repository_id=repository)


def _referrer(row: Row) -> Referrer:
    media_type, digest, size, artifact_type, annotations = row
    return Referrer(media_type, digest, size, artifact_type, json.loads(annotations) if annotations else {})
