"""
Pruning: tags that go by themselves.

A policy belongs to a repository. The tags that all its rules mean are deleted, but for so many of the newest of
them as it keeps; what they named is collected later, when nothing else holds it. Policies are worked off now and
then, and when one was made or changed. A tag that was moved between the decision and the deletion stays.
"""

from __future__ import annotations

import heapq
import json
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Boolean, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import pruning_policies, repositories
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.jobs import JobRequest, submit
from dtr.policies.errors import PolicyInvalid, PolicyUnknown
from dtr.policies.rules import Answer, Decision, TagFacts, decide, parse_rules, write_rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dtr.db import Database, Row, Transaction
    from dtr.policies.rules import Rule
    from dtr.registry import Images, Manifests
    from dtr.registry.images import TagRecord

ACTION = "tag_prune"
"""The job that works policies off: those of the repository with the id in the parameter `repository`, or all."""

_PAGE = 500
_BATCH = 100
_MOST_KEPT = 100_000
_MOST_POLICIES = 100

_repository = bindparam("repository", type_=BigInteger)
_columns = (
    pruning_policies.c.id,
    pruning_policies.c.repository_id,
    pruning_policies.c.enabled,
    pruning_policies.c.rules,
    pruning_policies.c.keep,
    pruning_policies.c.since,
    pruning_policies.c.last_pruned_at,
)
_INSERT = Statement(
    insert(pruning_policies).values(
        id=bindparam("id"),
        repository_id=_repository,
        enabled=bindparam("enabled", type_=Boolean),
        rules=bindparam("rules"),
        keep=bindparam("keep"),
        since=bindparam("since", type_=BigInteger),
        created_at=now(),
    )
)
_UPDATE = Statement(
    update(pruning_policies)
    .where(pruning_policies.c.id == bindparam("which"))
    .values(
        enabled=bindparam("enabled", type_=Boolean),
        rules=bindparam("rules"),
        keep=bindparam("keep"),
        since=bindparam("since", type_=BigInteger),
    )
)
_NOW = Statement(select(now()))
_of_repository = select(*_columns).where(pruning_policies.c.repository_id == _repository)
_LIST = Statement(
    _of_repository.where(pruning_policies.c.id >= bindparam("start"))
    .order_by(pruning_policies.c.id)
    .limit(bindparam("limit", type_=BigInteger))
)
_GET = Statement(_of_repository.where(pruning_policies.c.id == bindparam("id")))
_LOCK = Statement(_of_repository.where(pruning_policies.c.id == bindparam("id")).with_for_update())
_DELETE = Statement(
    delete(pruning_policies).where(
        pruning_policies.c.repository_id == _repository, pruning_policies.c.id == bindparam("which")
    )
)
_PRUNED = Statement(
    update(pruning_policies).where(pruning_policies.c.id == bindparam("which")).values(last_pruned_at=now())
)
_ACTIVE = Statement(
    select(*_columns)
    .join(repositories, repositories.c.id == pruning_policies.c.repository_id)
    .where(
        pruning_policies.c.enabled.is_(True),
        repositories.c.deleted_at.is_(None),
        pruning_policies.c.id > bindparam("after"),
    )
    .order_by(pruning_policies.c.id)
    .limit(_PAGE)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPolicy:
    """A policy. Moments in milliseconds since 1970 UTC; `last_pruned_at` None: never."""

    id: str
    repository: int
    enabled: bool
    rules: tuple[Rule, ...]
    keep: int = 0
    """So many of the newest tags that the rules mean stay."""
    since: int = 0
    """Tags that were last moved before are not meant; 0: all are."""
    last_pruned_at: int | None = None

    @property
    def actor(self) -> Actor:
        """The policy as the one who deletes."""
        return Actor("policy", self.id, "pruning")

    def check(self) -> None:
        """Raise PolicyInvalid for what no policy can be."""
        if not self.rules:
            raise PolicyInvalid("a pruning policy has rules: without any, it would delete every tag")
        if not 0 <= self.keep <= _MOST_KEPT:
            raise PolicyInvalid(f"a pruning policy keeps 0 to {_MOST_KEPT} tags")


@dataclass(frozen=True, slots=True)
class Judged:
    """A tag, what the rules say of it, and whether it goes."""

    tag: TagRecord
    decision: Decision
    goes: bool


class Pruning:
    """The pruning policies of all repositories. Who may make them is not decided here."""

    def __init__(self, database: Database, images: Images, manifests: Manifests) -> None:
        self._database = database
        self._images = images
        self._manifests = manifests

    async def list_policies(self, repository: int, *, start: str = "", limit: int) -> list[PruningPolicy]:
        """At most `limit` policies of a repository from the id `start` on, by id."""
        rows = await self._database.fetch_all(_LIST, repository=repository, start=start, limit=limit)
        return [_policy(row) for row in rows]

    async def get(self, repository: int, policy: str) -> PruningPolicy:
        """A policy of a repository. Raises PolicyUnknown."""
        row = await self._database.fetch_one(_GET, repository=repository, id=policy)
        if row is None:
            raise PolicyUnknown(policy)
        return _policy(row)

    async def create(self, policy: PruningPolicy, *, only_future: bool, by: Actor = SYSTEM) -> PruningPolicy:
        """
        Make a policy, whose id is new; with `only_future` it means tags that are moved from now on.

        Raises PolicyInvalid.
        """
        policy.check()
        if len(await self.list_policies(policy.repository, limit=_MOST_POLICIES)) == _MOST_POLICIES:
            raise PolicyInvalid(f"a repository has {_MOST_POLICIES} pruning policies at most")
        made = replace(policy, id=str(uuid.uuid4()))

        async def work(tx: Transaction) -> PruningPolicy:
            written = replace(made, since=await _clock(tx) if only_future else 0)
            await tx.execute(_INSERT, id=written.id, repository=written.repository, **_parameters(written))
            await _note(tx, "CREATE", written, by)
            return written

        return await self._database.unit(work)

    async def change(self, policy: PruningPolicy, *, only_future: bool, by: Actor = SYSTEM) -> PruningPolicy:
        """Change a policy to what is given. Raises PolicyUnknown, PolicyInvalid."""
        policy.check()

        async def work(tx: Transaction) -> PruningPolicy:
            if await tx.fetch_one(_LOCK, repository=policy.repository, id=policy.id) is None:
                raise PolicyUnknown(policy.id)
            written = replace(policy, since=await _clock(tx) if only_future else 0)
            await tx.execute(_UPDATE, which=policy.id, **_parameters(written))
            await _note(tx, "UPDATE", written, by)
            return written

        return await self._database.unit(work)

    async def delete(self, repository: int, policy: str, *, by: Actor = SYSTEM) -> bool:
        """Remove a policy; whether it was there."""

        async def work(tx: Transaction) -> bool:
            if not await tx.execute(_DELETE, repository=repository, which=policy):
                return False
            gone = Event(
                type="DELETE", actor=by, object=Object("pruning_policy", policy, policy), repository_id=repository
            )
            await record(tx, gone)
            return True

        return await self._database.unit(work)

    # --- working them off ---

    async def judge(self, policy: PruningPolicy) -> AsyncIterator[Judged]:
        """What would happen to each tag of the repository, by name."""
        row = await self._database.fetch_one(_NOW)
        moment = int(row[0]) if row else 0
        kept = await self._kept(policy, moment) if policy.keep else frozenset()
        async for tag in self._tags(policy.repository):
            decision = _decide(policy, tag, moment)
            yield Judged(tag, decision, decision.answer is Answer.YES and tag.name not in kept)

    async def prune(self, policy: PruningPolicy) -> int:
        """Delete what a policy means, in small units of work; how many tags."""
        deleted, doomed = 0, dict[str, str]()
        async for judged in self.judge(policy):
            if judged.goes:
                doomed[judged.tag.name] = judged.tag.manifest.digest
            if len(doomed) == _BATCH:
                deleted += await self._delete(policy, doomed)
                doomed = {}
        deleted += await self._delete(policy, doomed)

        async def work(tx: Transaction) -> None:
            await tx.execute(_PRUNED, which=policy.id)

        await self._database.unit(work)
        return deleted

    async def active(self) -> AsyncIterator[PruningPolicy]:
        """The policies that are switched on, of all repositories."""
        after = ""
        while rows := await self._database.fetch_all(_ACTIVE, after=after):
            for row in rows:
                yield _policy(row)
            after = rows[-1][0]

    async def _delete(self, policy: PruningPolicy, doomed: dict[str, str]) -> int:
        if not doomed:
            return 0
        gone = await self._manifests.delete_tags(policy.repository, doomed, by=policy.actor, unless_moved=doomed)
        return len(gone)

    async def _kept(self, policy: PruningPolicy, moment: int) -> frozenset[str]:
        """The names of the newest of those that the rules mean."""
        newest: list[tuple[int, str]] = []
        async for tag in self._tags(policy.repository):
            if _decide(policy, tag, moment).answer is Answer.YES:
                push = heapq.heappush if len(newest) < policy.keep else heapq.heappushpop
                push(newest, (tag.updated_at, tag.name))
        return frozenset(name for _, name in newest)

    async def _tags(self, repository: int) -> AsyncIterator[TagRecord]:
        start = ""
        while page := await self._images.list_tags(repository, start=start, limit=_PAGE):
            for tag in page:
                yield tag
            start = page[-1].name + "\x01"  # no name has it: whatever comes next begins behind


def facts_of(tag: TagRecord) -> TagFacts:
    """What rules ask about a tag. There are neither scans nor signatures yet."""
    manifest = tag.manifest
    platforms = (
        {"/".join(filter(None, (one.os, one.architecture, one.variant))) for one in manifest.platforms}
        if manifest.platforms
        else {"/".join(filter(None, (manifest.config.os, manifest.config.architecture, manifest.config.variant)))}
    )
    pulled = [one for one in (tag.last_pulled_at, manifest.last_pulled_at) if one is not None]
    return TagFacts(
        name=tag.name,
        updated_at=tag.updated_at,
        last_pulled_at=max(pulled, default=None),
        size=manifest.size,
        platforms=frozenset(platforms - {""}),
        labels=manifest.config.labels,
    )


def _decide(policy: PruningPolicy, tag: TagRecord, moment: int) -> Decision:
    if tag.updated_at < policy.since:
        return Decision(Answer.NO, None)
    return decide(policy.rules, facts_of(tag), moment)


async def _clock(tx: Transaction) -> int:
    row = await tx.fetch_one(_NOW)
    assert row is not None
    return int(row[0])


async def _note(tx: Transaction, kind: str, policy: PruningPolicy, by: Actor) -> None:
    """Write an event, and queue the job that works the policy off."""
    text = _parameters(policy)["rules"]
    await record(
        tx,
        Event(
            type="CREATE" if kind == "CREATE" else "UPDATE",
            actor=by,
            object=Object("pruning_policy", policy.id, policy.id, str(text)),
            repository_id=policy.repository,
        ),
    )
    if policy.enabled:
        number = str(policy.repository)
        await submit(
            tx, JobRequest(action=ACTION, parameters={"repository": number}, unique_key=f"{ACTION}:{number}")
        )


def _parameters(policy: PruningPolicy) -> dict[str, object]:
    return {
        "enabled": policy.enabled,
        "rules": write_rules(policy.rules),
        "keep": policy.keep,
        "since": policy.since,
    }


def _policy(row: Row) -> PruningPolicy:
    made, repository, enabled, rules, keep, since, last_pruned_at = row
    return PruningPolicy(
        id=made,
        repository=repository,
        enabled=bool(enabled),
        rules=parse_rules(json.loads(rules)),
        keep=keep,
        since=since,
        last_pruned_at=last_pruned_at,
    )
