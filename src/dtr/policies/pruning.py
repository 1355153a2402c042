"""
Pruning: tags that go by themselves.

A policy belongs to a repository. The tags that all its rules mean are deleted, but for so many of the newest of
them as it keeps; what they named is collected later, when nothing else holds it. Policies are worked off now and
then, and when one was made or changed; those of a repository together, each as if the others were not there. A tag
that was moved between the decision and the deletion stays.

Some stay whatever the rules say, and do not count among the newest: those that an immutable pattern of the
repository matches, those that content trust names, and those that are signed otherwise, unless a rule of the
policy is about signatures.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import pruning_policies, repositories
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.jobs import JobRequest, submit
from dtr.policies.errors import PolicyInvalid, PolicyUnknown
from dtr.policies.pushes import lock_sources
from dtr.policies.rules import Answer, Decision, asks_for, decide, found_in, parse_rules, write_rules
from dtr.registry import immutable_pattern, read_patterns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dtr.db import Database, Row, Transaction
    from dtr.policies.rules import Rule, TagFacts
    from dtr.policies.tags import TagReader
    from dtr.registry import Manifests
    from dtr.registry.images import TagRecord

ACTION = "tag_prune"
"""The job that works policies off: those of the repository with the id in the parameter `repository`, or all."""

_PAGE = 500
_BATCH = 100
_DECIDED_IN_LOOP = 1000
"""Decisions; more are made in a thread."""
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
    pruning_policies.c.waiting,
    pruning_policies.c.deleted,
    pruning_policies.c.newest,
    pruning_policies.c.signed,
    pruning_policies.c.protected,
    pruning_policies.c.last_job,
)
_INSERT = Statement(
    lambda: insert(pruning_policies).values(
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
    lambda: (
        update(pruning_policies)
        .where(pruning_policies.c.id == bindparam("which"))
        .values(
            enabled=bindparam("enabled", type_=Boolean),
            rules=bindparam("rules"),
            keep=bindparam("keep"),
            since=bindparam("since", type_=BigInteger),
        )
    )
)
_NOW = Statement(lambda: select(now()))
_of_repository = select(*_columns).where(pruning_policies.c.repository_id == _repository)
_LIST = Statement(
    lambda: (
        _of_repository.where(pruning_policies.c.id >= bindparam("start"))
        .order_by(pruning_policies.c.id)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_GET = Statement(lambda: _of_repository.where(pruning_policies.c.id == bindparam("id")))
_LOCK = Statement(lambda: _of_repository.where(pruning_policies.c.id == bindparam("id")).with_for_update())
_DELETE = Statement(
    lambda: delete(pruning_policies).where(
        pruning_policies.c.repository_id == _repository, pruning_policies.c.id == bindparam("which")
    )
)
_PRUNED = Statement(
    lambda: (
        update(pruning_policies)
        .where(pruning_policies.c.id == bindparam("which"))
        .values(
            last_pruned_at=now(),
            waiting=bindparam("waiting_now"),
            deleted=bindparam("deleted_now"),
            newest=bindparam("newest_now"),
            signed=bindparam("signed_now"),
            protected=bindparam("protected_now"),
            last_job=bindparam("job"),
        )
    )
)
_ACTIVE = Statement(
    lambda: (
        select(pruning_policies.c.repository_id)
        .join(repositories, repositories.c.id == pruning_policies.c.repository_id)
        .where(
            pruning_policies.c.enabled.is_(True),
            repositories.c.deleted_at.is_(None),
            pruning_policies.c.repository_id > bindparam("after", type_=BigInteger),
        )
        .distinct()
        .order_by(pruning_policies.c.repository_id)
        .limit(_PAGE)
    )
)
_PATTERNS = Statement(lambda: select(repositories.c.immutable_patterns).where(repositories.c.id == _repository))

Exemption: TypeAlias = Literal["", "newest", "signed", "protected"]
"""Why a tag stays that the rules mean; empty: nothing keeps it."""


class PruningResult(Struct, frozen=True):
    """What came of a policy's work: numbers of tags."""

    waiting: int = 0
    """For a scan."""
    deleted: int = 0
    newest: int = 0
    """Stayed, for they are the newest."""
    signed: int = 0
    """Stayed, for they are signed."""
    protected: int = 0
    """Stayed, for they are immutable."""


class PruningPolicy(Struct, frozen=True, kw_only=True):
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
    last: PruningResult = field(default_factory=PruningResult)
    """What came of it then."""
    last_job: str = ""
    """The id of the job that did it."""

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


class Judged(Struct, frozen=True):
    """A tag, what the rules say of it, and why it stays all the same."""

    tag: TagRecord
    decision: Decision
    kept: Exemption = ""
    found: tuple[str, ...] = ()
    """What the tag has of what the rule that decided asks for (`found_in`), when it is for people."""

    @property
    def goes(self) -> bool:
        """Whether it is deleted."""
        return self.decision.answer is Answer.YES and not self.kept


class Pruned(Struct):
    """What a policy did: numbers of tags."""

    policy: PruningPolicy
    deleted: int = 0
    signed: int = 0
    protected: int = 0
    waiting: int = 0
    newest: list[tuple[int, str, str]] = field(default_factory=list)
    """A heap of those that it keeps: when each was moved, its name, and the digest that it names."""
    doomed: dict[str, str] = field(default_factory=dict)
    """What is to go next: names, with digests."""

    def see(self, judged: Judged) -> None:
        """Take note of a tag; of those that it means the oldest is one too many as soon as it has enough."""
        if judged.decision.answer is Answer.NO:
            return
        self.waiting += judged.decision.answer is Answer.WAITS
        self.signed += judged.kept == "signed"
        self.protected += judged.kept == "protected"
        if judged.goes:
            one = (judged.tag.updated_at, judged.tag.name, judged.tag.manifest.digest)
            if len(self.newest) < self.policy.keep:
                heapq.heappush(self.newest, one)
            else:
                _, name, digest = heapq.heappushpop(self.newest, one) if self.newest else one
                self.doomed[name] = digest

    @property
    def text(self) -> str:
        """The same for people."""
        stays = [
            f"{number} {why}"
            for number, why in (
                (len(self.newest), "are the newest"),
                (self.signed, "are signed"),
                (self.protected, "are immutable"),
                (self.waiting, "wait for a scan"),
            )
            if number
        ]
        said = f"policy {self.policy.id} of repository {self.policy.repository} deleted {self.deleted} tags"
        return f"{said}; of those that stay, {', '.join(stays)}" if stays else said


class Pruning:
    """The pruning policies of all repositories. Who may make them is not decided here."""

    def __init__(self, database: Database, reader: TagReader, manifests: Manifests) -> None:
        self._database = database
        self._reader = reader
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
        made = replace(policy, id=str(uuid.uuid4()))

        async def work(tx: Transaction) -> PruningPolicy:
            await lock_sources(tx, made.repository)  # who makes another one at this moment counts this one
            before = await tx.fetch_all(_LIST, repository=made.repository, start="", limit=_MOST_POLICIES)
            if len(before) == _MOST_POLICIES:
                raise PolicyInvalid(f"a repository has {_MOST_POLICIES} pruning policies at most")
            written = replace(made, since=await _clock(tx) if only_future else 0)
            await tx.execute(_INSERT, id=written.id, repository=written.repository, **_parameters(written))
            await _note(tx, "CREATE", written, by)
            return written

        return await self._database.unit(work)

    async def change(
        self, policy: PruningPolicy, *, only_future: bool | None, by: Actor = SYSTEM
    ) -> PruningPolicy:
        """
        Change a policy to what is given; with None for `only_future` it means the tags that it says (`since`).

        Raises PolicyUnknown, PolicyInvalid.
        """
        policy.check()

        async def work(tx: Transaction) -> PruningPolicy:
            if await tx.fetch_one(_LOCK, repository=policy.repository, id=policy.id) is None:
                raise PolicyUnknown(policy.id)
            since = policy.since if only_future is None else await _clock(tx) if only_future else 0
            written = replace(policy, since=since)
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

    async def judge(self, policy: PruningPolicy, *, newest: int = 0) -> AsyncIterator[Judged]:
        """
        What would happen to each tag of the repository, by name.

        With `newest` to so many of the newest alone, the newest first.
        """
        moment, patterns = await self._now(), await self._patterns(policy.repository)
        if newest:
            left = policy.keep
            for tag, facts in await self._reader.newest(policy.repository, newest):
                judged = _judge(policy, tag, facts, moment, patterns)
                is_kept, left = judged.goes and left > 0, left - judged.goes
                yield _shown(policy, judged, facts, is_kept=is_kept)
            return
        kept = frozenset[str]()
        if policy.keep:
            tally = Pruned(policy)
            async for page in self._reader.pages(policy.repository):
                await _see([tally], page, moment, patterns)
                tally.doomed.clear()
            kept = frozenset(name for _, name, _ in tally.newest)
        async for tag, facts in self._reader.read(policy.repository):
            judged = _judge(policy, tag, facts, moment, patterns)
            yield _shown(policy, judged, facts, is_kept=judged.goes and tag.name in kept)

    async def start(self, policy: PruningPolicy, *, by: Actor = SYSTEM) -> None:
        """Queue the policy's work, also when it is switched off."""
        number = str(policy.repository)
        about = Object("pruning_policy", policy.id, policy.id, "run")
        parameters = {"repository": number, "policy": policy.id}

        async def work(tx: Transaction) -> None:
            await submit(
                tx, JobRequest(action=ACTION, parameters=parameters, unique_key=f"{ACTION}:{number}:{policy.id}")
            )
            await record(tx, Event(type="UPDATE", actor=by, object=about, repository_id=policy.repository))

        await self._database.unit(work)

    async def prune(self, policies: Sequence[PruningPolicy], *, job: str = "") -> list[Pruned]:
        """Delete what each of these policies of one repository means, in small units of work."""
        done = [Pruned(policy) for policy in policies]
        if not done:
            return done
        moment, patterns = await self._now(), await self._patterns(policies[0].repository)
        async for page in self._reader.pages(policies[0].repository):
            await _see(done, page, moment, patterns)
            for one in done:
                if len(one.doomed) >= _BATCH:
                    await self._delete(one)
        for one in done:
            await self._delete(one)
            await self._write_down(one, job)
        return done

    async def work_off(
        self, repository: int | None = None, *, policy: str = "", job: str = ""
    ) -> AsyncIterator[Pruned]:
        """
        Let the policies that are switched on do their work, of a repository (by its id), or of all.

        With `policy` that one of the repository alone, whether it is switched on or not. `job` is the id of the
        job that does it.
        """
        if repository is not None:
            found = await self.list_policies(repository, limit=_MOST_POLICIES)
            meant = [one for one in found if (one.id == policy if policy else one.enabled)]
            for done in await self.prune(meant, job=job):
                yield done
            return
        after = 0
        while rows := await self._database.fetch_all(_ACTIVE, after=after):
            for (after,) in rows:
                async for done in self.work_off(after, job=job):
                    yield done

    async def _delete(self, done: Pruned) -> None:
        """Delete what is to go next."""
        names = list(done.doomed)
        for start in range(0, len(names), _BATCH):
            batch = {name: done.doomed[name] for name in names[start : start + _BATCH]}
            deleted = await self._manifests.delete_tags(
                done.policy.repository, batch, by=done.policy.actor, unless_moved=batch
            )
            done.deleted += len(deleted.gone)
            done.signed += len(deleted.signed)  # since the page was read
        done.doomed.clear()

    async def _write_down(self, done: Pruned, job: str) -> None:
        numbers = {
            "waiting_now": done.waiting,
            "deleted_now": done.deleted,
            "newest_now": len(done.newest),
            "signed_now": done.signed,
            "protected_now": done.protected,
        }
        await self._database.unit(lambda tx: tx.execute(_PRUNED, which=done.policy.id, job=job, **numbers))

    async def _now(self) -> int:
        row = await self._database.fetch_one(_NOW)
        return int(row[0]) if row else 0

    async def _patterns(self, repository: int) -> tuple[str, ...]:
        row = await self._database.fetch_one(_PATTERNS, repository=repository)
        return read_patterns(row[0]) if row else ()


async def _see(
    done: Sequence[Pruned], page: list[tuple[TagRecord, TagFacts]], moment: int, patterns: tuple[str, ...]
) -> None:
    def see() -> None:
        for one in done:
            for tag, facts in page:
                one.see(_judge(one.policy, tag, facts, moment, patterns))

    if len(done) * len(page) > _DECIDED_IN_LOOP:
        await asyncio.to_thread(see)
    else:
        see()


def _judge(
    policy: PruningPolicy, tag: TagRecord, facts: TagFacts, moment: int, patterns: tuple[str, ...]
) -> Judged:
    """What a policy means to do with a tag, but for the newest."""
    if tag.updated_at < policy.since:
        return Judged(tag, Decision(Answer.NO, None))
    decision = decide(policy.rules, facts, moment)
    if decision.answer is not Answer.YES:
        return Judged(tag, decision)
    if immutable_pattern(patterns, tag.name) is not None:
        return Judged(tag, decision, "protected")
    # Tags in content trust cannot be deleted, whatever the rules say of signatures.
    is_kept = facts.in_trust or (facts.is_signed and not asks_for(policy.rules, "signed", "signed_by"))
    return Judged(tag, decision, "signed" if is_kept else "")


def _shown(policy: PruningPolicy, judged: Judged, facts: TagFacts, *, is_kept: bool) -> Judged:
    """For people: with whether it stays as one of the newest, and what the tag has of what decided."""
    return replace(
        judged,
        kept="newest" if is_kept else judged.kept,
        found=found_in(policy.rules, judged.decision, facts),
    )


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
    made, repository, enabled, rules, keep, since, last_pruned_at, *numbers, last_job = row
    return PruningPolicy(
        id=made,
        repository=repository,
        enabled=bool(enabled),
        rules=parse_rules(json.loads(rules)),
        keep=keep,
        since=since,
        last_pruned_at=last_pruned_at,
        last=PruningResult(*numbers),
        last_job=last_job,
    )
