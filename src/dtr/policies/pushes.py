"""
What policies had to do with pushes: that each is told, and that each policy does what it does once.

A push asks its repository, whose row it locks against changes of the key, whether policies want to know. Whoever
makes the first policy locks the same row for itself (`lock_sources`): it waits for pushes that did not see it, and
those that come later do.

A policy keeps a row for each tag with the push that it last had to do with. It is written in the transaction of
what the policy does (`claim`): a job that runs twice, for its worker was killed, or two that run at the same time,
do it once. When a rule waits, the row says so, with all that is needed to go on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, and_, bindparam, case, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import mirroring_policies, policy_tags, promotion_policies, repositories, tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.db import Database, Transaction

_repository = bindparam("repository", type_=BigInteger)

# --- that they are told ---------------------------------------------------------------------------------------

_row = select(repositories.c.id).where(repositories.c.id == _repository)
_LOCK = Statement(_row.with_for_update)
_SHARE = Statement(lambda: _row.with_for_update(read=True, key_share=True))
_TELL = Statement(
    lambda: (
        update(repositories)
        .where(repositories.c.id == _repository)
        .values(
            has_policies=or_(
                exists().where(promotion_policies.c.source_id == repositories.c.id),
                exists().where(
                    mirroring_policies.c.repository_id == repositories.c.id,
                    mirroring_policies.c.direction == "push",
                ),
            )
        )
    )
)


async def lock_sources(tx: Transaction, source: int, *others: int) -> None:
    """
    First in a unit that makes a policy of `source`: no push is under way there that does not know of it.

    `others` are repositories that the policy names: all are locked in the order of their ids.
    """
    for repository in sorted({source, *others}):
        await tx.fetch_one(_LOCK if repository == source else _SHARE, repository=repository)


async def tell(tx: Transaction, source: int) -> None:
    """When a policy was made or removed: write down whether pushes to `source` have to be told."""
    await tx.fetch_one(_LOCK, repository=source)  # who makes another one at this moment is waited for, and seen
    await tx.execute(_TELL, repository=source)


# --- that they do it once -------------------------------------------------------------------------------------

_new = insert(policy_tags).values(
    policy_id=bindparam("policy"),
    tag=bindparam("tag"),
    repository_id=_repository,
    digest=bindparam("digest"),
    # What is shown covers all pushes of the same manifest until now.
    moment=case((bindparam("is_shown", type_=Boolean), now()), else_=bindparam("moment", type_=BigInteger)),
    chain=bindparam("chain"),
    state=bindparam("state"),
    waits_for=bindparam("waits_for"),
    updated_at=now(),
)
_CLAIM = Statement(
    lambda: _new.on_conflict_do_update(
        index_elements=["policy_id", "tag"],
        set_={
            one: _new.excluded[one] for one in ("digest", "moment", "chain", "state", "waits_for", "updated_at")
        },
        where=or_(
            policy_tags.c.state == "waits",
            policy_tags.c.digest != _new.excluded.digest,
            policy_tags.c.moment < bindparam("since", type_=BigInteger),
        ),
    )
)
_OF_DIGEST = Statement(
    lambda: (
        select(
            policy_tags.c.policy_id,
            policy_tags.c.tag,
            policy_tags.c.moment,
            policy_tags.c.chain,
            policy_tags.c.state,
        )
        .where(policy_tags.c.repository_id == _repository, policy_tags.c.digest == bindparam("digest"))
        .order_by(policy_tags.c.policy_id, policy_tags.c.tag)
    )
)
_still_named = and_(
    tags.c.repository_id == policy_tags.c.repository_id,
    tags.c.name == policy_tags.c.tag,
    tags.c.manifest == policy_tags.c.digest,
)
_WAITING = Statement(
    lambda: (
        select(policy_tags.c.tag, policy_tags.c.digest, policy_tags.c.waits_for, policy_tags.c.updated_at)
        .join(tags, _still_named)
        .where(
            policy_tags.c.policy_id == bindparam("policy"),
            policy_tags.c.state == "waits",
            policy_tags.c.tag >= bindparam("start"),
        )
        .order_by(policy_tags.c.tag)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_COUNT_WAITING = Statement(
    lambda: (
        select(policy_tags.c.policy_id, func.count())
        .join(tags, _still_named)
        .where(in_list(policy_tags.c.policy_id, "policies"), policy_tags.c.state == "waits")
        .group_by(policy_tags.c.policy_id)
    )
)
_FORGET_POLICY = Statement(lambda: delete(policy_tags).where(policy_tags.c.policy_id == bindparam("which")))
_FORGET_GONE = Statement(
    lambda: delete(policy_tags).where(
        ~exists().where(tags.c.repository_id == policy_tags.c.repository_id, tags.c.name == policy_tags.c.tag)
    )
)


class Push(Struct, frozen=True, kw_only=True):
    """A tag that was pushed, or is shown to a policy. Moments in milliseconds since 1970 UTC."""

    repository: int
    tag: str
    digest: str
    moment: int
    chain: tuple[str, ...] = ()
    """What the image came through by promotion (`dtr.registry.step`)."""
    shown_since: int | None = None
    """None: it was pushed. Else it is shown: what the policy did with the same manifest since then counts."""
    job: str = ""
    """The id of the job in which policies see it; empty: that is not known."""


class Waiting(Struct, frozen=True):
    """A tag for which a policy waits, since a moment (milliseconds since 1970 UTC)."""

    tag: str
    digest: str
    waits_for: str
    since: int


class Seen(Struct, frozen=True):
    """What a policy had to do with a push."""

    policy: str
    push: Push
    is_waiting: bool


async def claim(tx: Transaction, policy: str, push: Push, *, waits_for: str = "") -> bool:
    """
    Write down that a policy does now what it does with a push, or what it waits for; whether it is to do it.

    False: it has done so before, or had to do with a later push of the same manifest.
    """
    changed = await tx.execute(
        _CLAIM,
        policy=policy,
        tag=push.tag,
        repository=push.repository,
        digest=push.digest,
        moment=push.moment,
        is_shown=push.shown_since is not None,
        since=push.moment if push.shown_since is None else push.shown_since,
        chain=json.dumps(push.chain),
        state="waits" if waits_for else "done",
        waits_for=waits_for,
    )
    return changed > 0


async def forget_policy(tx: Transaction, policy: str) -> None:
    """In the unit that removes a policy."""
    await tx.execute(_FORGET_POLICY, which=policy)


class Pushes:
    """What policies of all repositories had to do with pushes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_digest(self, repository: int, digest: str) -> list[Seen]:
        """By policy and tag: those about tags that named the manifest of a digest."""
        rows = await self._database.fetch_all(_OF_DIGEST, repository=repository, digest=digest)
        return [
            Seen(
                policy,
                Push(repository=repository, tag=tag, digest=digest, moment=moment, chain=tuple(json.loads(chain))),
                state == "waits",
            )
            for policy, tag, moment, chain, state in rows
        ]

    async def list_waiting(self, policy: str, *, start: str = "", limit: int) -> list[Waiting]:
        """At most `limit` tags, from the name `start` on, for which a policy waits."""
        rows = await self._database.fetch_all(_WAITING, policy=policy, start=start, limit=limit)
        return [Waiting(*row) for row in rows]

    async def count_waiting(self, policies: Iterable[str]) -> dict[str, int]:
        """For how many tags each of the policies waits; those that wait for none are missing."""
        rows = await self._database.fetch_all(_COUNT_WAITING, policies=sorted(policies))
        return {row[0]: row[1] for row in rows}

    async def forget_gone(self) -> int:
        """Delete the rows of tags that are gone; how many."""
        return await self._database.unit(lambda tx: tx.execute(_FORGET_GONE))
