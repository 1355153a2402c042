"""
What units of work share: letting tags name a manifest, as far as the repository's settings allow, and letting go.

A tag that is claimed is locked, new or not. The caller then locks the manifests (`Claim.old` among them) in the
order of their digests, and writes the one that the tags are to name; `Claim.settle` does the rest.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, delete, exists, not_, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, each_row, in_list, now
from dtr.db.schema import cached_repositories, manifests, pulls, repositories, tags, trust_targets
from dtr.events import Actor, Event, Object
from dtr.jobs import JobRequest, submit
from dtr.oci import is_signature_tag
from dtr.registry._verification import verify_soon
from dtr.registry.errors import RepositoryUnknown, TagImmutable, TagOfCache
from dtr.registry.repositories import immutable_pattern, read_patterns
from dtr.registry.usage import touch
from dtr.registry.versions import version_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dtr.db import Transaction

PROMOTE = "promote"
"""The job that shows a push to the policies of its repository."""

_NOW = Statement(lambda: select(now()))
_hold = bindparam("hold", type_=BigInteger)
_repository = bindparam("repository", type_=BigInteger)

_is_named = in_list(tags.c.name, "names", within=(tags.c.repository_id, _repository))

_settings = select(
    repositories.c.immutable_tags,
    repositories.c.tag_limit,
    repositories.c.immutable_patterns,
    repositories.c.has_policies,
    exists().where(
        cached_repositories.c.repository_id == repositories.c.id, cached_repositories.c.upstream_id.is_not(None)
    ),
).where(repositories.c.id == _repository, repositories.c.deleted_at.is_(None))
_REPOSITORY = Statement(lambda: _settings.with_for_update(read=True, key_share=True))
_REPOSITORY_ALONE = Statement(lambda: _settings.with_for_update(key_share=True))  # FOR NO KEY UPDATE
_given = each_row("given", tags.c.name, tags.c.version_key)
_CLAIM_TAGS = Statement(
    lambda: (
        insert(tags)
        .from_select(
            ["repository_id", "name", "version_key", "manifest", "author", "created_at", "updated_at"],
            select(
                _repository,
                _given.c.name,
                _given.c.version_key,
                bindparam("digest", type_=tags.c.manifest.type),
                bindparam("author", type_=tags.c.author.type),
                now(),
                now(),
            )
            # SQLite takes ON for a join's without it. Rows are locked in the order of the list.
            .where(true()),
        )
        # The update changes nothing: it locks the row that is there, and tells where it points.
        .on_conflict_do_update(index_elements=["repository_id", "name"], set_={"manifest": tags.c.manifest})
        .returning(tags.c.name, tags.c.manifest, tags.c.created_at == now())
    )
)
_MOVE_TAGS = Statement(
    lambda: (
        update(tags)
        .where(_is_named)
        .values(manifest=bindparam("digest"), author=bindparam("author_now"), updated_at=now())
    )
)
_SURPLUS_TAGS = Statement(
    lambda: (
        select(tags.c.name)
        .where(
            tags.c.repository_id == _repository,
            not_(in_list(tags.c.name, "names")),
            ~exists().where(  # those stay, and do not count
                trust_targets.c.repository_id == _repository,
                trust_targets.c.name == tags.c.name,
                trust_targets.c.forgotten_at.is_(None),
            ),
        )
        .order_by(tags.c.created_at.desc(), tags.c.name.desc())
        .offset(bindparam("kept", type_=BigInteger))
        .limit(1000)
    )
)
tags_by_name = select(tags.c.name, tags.c.manifest).where(_is_named).order_by(tags.c.name)
"""The tags of a repository that have one of `names`, and what they name."""
_LOCK_FREE_TAGS = Statement(lambda: tags_by_name.with_for_update(skip_locked=True))
_LET_GO = Statement(
    lambda: (
        update(manifests)
        .where(
            in_list(manifests.c.digest, "digests", within=(manifests.c.repository_id, _repository)),
            or_(manifests.c.review_at.is_(None), manifests.c.review_at < now() + _hold),
        )
        .values(review_at=now() + _hold)
    )
)
DELETE_TAGS = Statement(lambda: delete(tags).where(_is_named))
FORGET_PULLS = Statement(
    lambda: delete(pulls).where(
        in_list(pulls.c.reference, "references", within=(pulls.c.repository_id, _repository))
    )
)


class Claim(Struct, frozen=True, kw_only=True):
    """Tags of a repository that are locked, to name the manifest of a digest."""

    repository: int
    digest: str
    by: Actor
    found: Mapping[str, tuple[str, bool]]
    """By name: which manifest each names, and whether it is new."""
    surplus: Mapping[str, str]
    """Tags that have to go for them, and what they name."""
    has_policies: bool
    """Policies of the repository want to know."""

    @property
    def moved(self) -> dict[str, str]:
        """Those that name another manifest, and which."""
        return {name: before for name, (before, _) in self.found.items() if before != self.digest}

    @property
    def old(self) -> set[str]:
        """The digests of manifests that lose a tag."""
        return {*self.moved.values(), *self.surplus.values()} - {self.digest}

    @property
    def events(self) -> list[Event]:
        """What happens to the tags."""
        pushed = [
            _pushed(self.repository, name, *was, self.digest, self.by) for name, was in sorted(self.found.items())
        ]
        return pushed + [
            _pushed_out(self.repository, name, self.surplus[name], min(self.found), self.digest, self.by)
            for name in sorted(self.surplus)
        ]

    async def settle(
        self,
        tx: Transaction,
        *,
        hold: int,
        chain: Sequence[str] = (),
        subject: str | None = None,
        has_signatures: bool = False,
    ) -> None:
        """
        Let the tags name the manifest, which is there, remove the surplus, and queue what policies have to see.

        The locks on `old` are held; what nothing else holds stays for `hold` milliseconds. `chain` is what the
        image came through by promotion (`step`), `subject` the digest of what the manifest refers to;
        `has_signatures`: of that.
        """
        moved, old = self.moved, self.old
        if moved:
            await tx.execute(
                _MOVE_TAGS,
                repository=self.repository,
                names=sorted(moved),
                digest=self.digest,
                author_now=self.by.name,
            )
        if self.surplus:
            await remove_tags(tx, self.repository, sorted(self.surplus))
        if old:
            await let_go(tx, self.repository, sorted(old), hold=hold)
        if self.has_policies:
            row = await tx.fetch_one(_NOW)
            assert row is not None
            for name in sorted(self.found):
                push = {"tag": name, "digest": self.digest, "chain": json.dumps(chain), "moment": str(row[0])}
                parameters = {"repository": str(self.repository), **push}
                await submit(tx, JobRequest(action=PROMOTE, parameters=parameters))
            if subject is not None:
                await show_again(tx, self.repository, subject)
        if has_signatures or any(map(is_signature_tag, self.found)):
            await verify_soon(tx, self.repository, self.digest)


async def show_again(tx: Transaction, repository: int, digest: str) -> None:
    """Queue the job that goes on where policies waited for what is known now about a manifest."""
    parameters = {"repository": str(repository), "known": digest}
    await submit(tx, JobRequest(action=PROMOTE, parameters=parameters))


async def show_signed(tx: Transaction, repository: int, digests: Iterable[str]) -> None:
    """In the unit that signs manifests in content trust, or no longer: tell whoever wants to know."""
    settings = await tx.fetch_one(_REPOSITORY, repository=repository)
    if settings is None:
        return
    await touch(tx, repository)
    if settings[3]:
        for digest in sorted(set(digests)):
            await show_again(tx, repository, digest)


def step(repository: int, tag: str) -> str:
    """A tag in a chain of promotions."""
    return f"{repository}:{tag}"


async def claim_tags(
    tx: Transaction, repository: int, names: list[str], digest: str, by: Actor, *, fills_caches: bool = False
) -> Claim:
    """
    Lock the tags of these sorted names, which are to name `digest`; without names, the repository alone.

    Those of caches are for those who fill them. Raises RepositoryUnknown, TagImmutable, TagOfCache.
    """
    settings = await tx.fetch_one(_REPOSITORY, repository=repository)
    if settings is not None and settings[1] and names:
        # One at a time, so that each counts the tags of those before it.
        settings = await tx.fetch_one(_REPOSITORY_ALONE, repository=repository)
    if settings is None:
        raise RepositoryUnknown(str(repository))
    immutable, tag_limit, patterns, has_policies, is_cache = settings
    if is_cache and names and not fills_caches:
        raise TagOfCache(names[0])
    found = await _claim(tx, repository, names, digest, by.name) if names else {}
    moved = [name for name, (before, _) in found.items() if before != digest]
    if moved:
        _check_immutability(moved, bool(immutable), patterns)
    surplus = await _surplus(tx, repository, names, tag_limit) if tag_limit and names else {}
    return Claim(
        repository=repository,
        digest=digest,
        by=by,
        found=found,
        surplus=surplus,
        has_policies=bool(has_policies),
    )


async def remove_tags(tx: Transaction, repository: int, names: list[str]) -> None:
    """Delete tags, and how often they were pulled: one that is called so later begins anew."""
    await tx.execute(DELETE_TAGS, repository=repository, names=names)
    await tx.execute(FORGET_PULLS, repository=repository, references=names)
    await touch(tx, repository)


async def let_go(tx: Transaction, repository: int, digests: list[str], *, hold: int) -> None:
    """Have manifests, whose locks the caller has, reviewed when `hold` milliseconds are over."""
    await tx.execute(_LET_GO, repository=repository, digests=digests, hold=hold)


async def _claim(
    tx: Transaction, repository: int, names: list[str], digest: str, author: str
) -> dict[str, tuple[str, bool]]:
    """Lock the tags, new or not; by name, which manifest each names, and whether it is new."""
    given = json.dumps([[name, version_key(name)] for name in names])
    rows = await tx.fetch_all(_CLAIM_TAGS, repository=repository, given=given, digest=digest, author=author)
    return {name: (manifest, bool(is_new) and manifest == digest) for name, manifest, is_new in rows}


def _check_immutability(moved: Iterable[str], immutable: bool, patterns: str) -> None:
    """Raise TagImmutable when one of the tags, which are there, must not go elsewhere."""
    if immutable:
        raise TagImmutable(min(moved))
    known = read_patterns(patterns)
    for tag in sorted(moved):
        pattern = immutable_pattern(known, tag)
        if pattern is not None:
            raise TagImmutable(tag, pattern)


async def _surplus(tx: Transaction, repository: int, names: list[str], tag_limit: int) -> dict[str, str]:
    """
    The oldest tags beyond the limit, locked, and what they name; never one of `names`, nor one that is signed.

    Others have locked a tag to delete it; to wait for them would be against the order of locks.
    """
    rows = await tx.fetch_all(
        _SURPLUS_TAGS, repository=repository, names=names, kept=max(0, tag_limit - len(names))
    )
    if not rows:
        return {}
    locked = await tx.fetch_all(_LOCK_FREE_TAGS, repository=repository, names=sorted(row[0] for row in rows))
    return {row[0]: row[1] for row in locked}


def _pushed(repository: int, tag: str, before: str, is_new: bool, digest: str, by: Actor) -> Event:
    """A tag was pushed. When it named another manifest, the object is the tag `before`, the target the tag now."""
    return Event(
        type="CREATE" if is_new else "UPDATE",
        actor=by,
        object=Object("tag", tag, tag, before),
        target=Object("tag", tag, tag, digest) if before != digest else None,
        repository_id=repository,
    )


def _pushed_out(repository: int, tag: str, digest: str, pushed: str, its_digest: str, by: Actor) -> Event:
    """The tag limit took a tag: not who pushed did, but the rule; the target is the tag that was one too many."""
    return Event(
        type="DELETE",
        actor=Actor("policy", "tag-limit", "tag limit", by.address),
        object=Object("tag", tag, tag, digest),
        target=Object("tag", pushed, pushed, its_digest),
        repository_id=repository,
    )
