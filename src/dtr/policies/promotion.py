"""
Promotion policies: a tag that is pushed gets a name in another repository, when all rules of a policy mean it.

Each push of a tag queues a job in its own transaction, and that shows the tag to the policies of the repository. A
promotion is a push in its target, whose policies see it in turn; a chain never comes to the same tag twice, and
has an end. A tag that was moved before its job ran is left to the job of its next push.

A rule may wait, for a scan or for a signature: the policy goes on when that has come. What refers to an image that
was promoted, and is pushed later, follows it.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, bindparam, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import promotion_policies, repositories, tags
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.jobs import JobRequest, submit
from dtr.oci import companion_of
from dtr.policies.errors import PolicyInvalid, PromotionPolicyUnknown
from dtr.policies.pushes import Push, Pushes, claim, forget_policy, lock_sources, tell
from dtr.policies.rules import Answer, decide_once, found_in, parse_rules, write_rules
from dtr.policies.templates import name_of
from dtr.registry import (
    PROMOTE,
    ManifestIncomplete,
    ManifestUnknown,
    Origin,
    RepositoryUnknown,
    TagImmutable,
    TooManyManifests,
    immutable_pattern,
    read_patterns,
    step,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.policies.rules import Decision, Rule, TagFacts
    from dtr.policies.tags import TagReader
    from dtr.registry import Promotion
    from dtr.registry.images import TagRecord

_MOST_POLICIES = 100
_LONGEST_TEMPLATE = 256
_LONGEST_CHAIN = 16
"""Of promotions that follow from each other: names with a time in them never come twice."""

_repository = bindparam("repository", type_=BigInteger)
_id = promotion_policies.c.id
_source = repositories.alias("source")
_target = repositories.alias("target")
_policies = (
    select(
        _id,
        _source.c.id,
        _source.c.path,
        _target.c.id,
        _target.c.path,
        promotion_policies.c.enabled,
        promotion_policies.c.rules,
        promotion_policies.c.tag_template,
        promotion_policies.c.last_promoted_at,
        promotion_policies.c.last_failed_at,
        promotion_policies.c.last_failure,
        promotion_policies.c.last_job,
    )
    .join_from(promotion_policies, _source, _source.c.id == promotion_policies.c.source_id)
    .join(_target, _target.c.id == promotion_policies.c.target_id)
    .where(_source.c.deleted_at.is_(None), _target.c.deleted_at.is_(None))
)
_page = (
    _policies.where(_id >= bindparam("start")).order_by(_id).limit(bindparam("limit", type_=BigInteger))
)  # fmt: skip
_LIST_FROM = Statement(lambda: _page.where(promotion_policies.c.source_id == _repository))
_LIST_TO = Statement(lambda: _page.where(promotion_policies.c.target_id == _repository))
_concerns = or_(promotion_policies.c.source_id == _repository, promotion_policies.c.target_id == _repository)
_GET = Statement(lambda: _policies.where(_id == bindparam("id"), _concerns))
_INSERT = Statement(
    lambda: insert(promotion_policies).values(
        id=bindparam("id"),
        source_id=bindparam("source", type_=BigInteger),
        target_id=bindparam("target", type_=BigInteger),
        enabled=bindparam("enabled", type_=Boolean),
        rules=bindparam("rules"),
        tag_template=bindparam("tag_template"),
        created_at=now(),
    )
)
_UPDATE = Statement(
    lambda: (
        update(promotion_policies)
        .where(_id == bindparam("which"))
        .values(
            target_id=bindparam("target", type_=BigInteger),
            enabled=bindparam("enabled", type_=Boolean),
            rules=bindparam("rules"),
            tag_template=bindparam("tag_template"),
        )
    )
)
_DELETE = Statement(
    lambda: (
        delete(promotion_policies)
        .where(_id == bindparam("which"), _concerns)
        .returning(promotion_policies.c.source_id)
    )
)
_PROMOTED = Statement(
    lambda: (
        update(promotion_policies)
        .where(_id == bindparam("which"))
        .values(last_promoted_at=now(), last_job=bindparam("job"))
    )
)
_FAILED = Statement(
    lambda: (
        update(promotion_policies)
        .where(_id == bindparam("which"))
        .values(last_failed_at=now(), last_failure=bindparam("failure"), last_job=bindparam("job"))
    )
)
_NOW = Statement(lambda: select(now()))
_TARGET = Statement(
    lambda: select(repositories.c.immutable_tags, repositories.c.immutable_patterns).where(
        repositories.c.id == _repository, repositories.c.deleted_at.is_(None)
    )
)
_THERE = Statement(
    lambda: select(tags.c.name, tags.c.manifest).where(
        in_list(tags.c.name, "names", within=(tags.c.repository_id, _repository))
    )
)


class PromotionPolicy(Struct, frozen=True, kw_only=True):
    """A policy. `last_promoted_at` and `last_failed_at` in milliseconds since 1970 UTC; None: never."""

    id: str
    source: int
    source_path: str
    target: int
    target_path: str
    enabled: bool
    rules: tuple[Rule, ...]
    """Without any, every tag is meant."""
    template: str = "%n"
    last_promoted_at: int | None = None
    last_failed_at: int | None = None
    last_failure: str = ""
    """Which tag could not be promoted then, and why."""
    last_job: str = ""
    """The id of the job that promoted a tag or failed to, last."""

    @property
    def actor(self) -> Actor:
        """The policy as the one who pushes."""
        return Actor("policy", self.id, "promotion")

    def check(self) -> None:
        """Raise PolicyInvalid for what no policy can be."""
        if self.source == self.target:
            raise PolicyInvalid("a repository is not promoted to itself")
        if len(self.template) > _LONGEST_TEMPLATE or name_of(self.template, "x", 0) is None:
            raise PolicyInvalid("tagTemplate gives no name that a tag may have")


class Outcome(Struct, frozen=True):
    """What became of a tag by a policy."""

    text: str
    failed: bool = False


class JudgedPromotion(Struct, frozen=True):
    """A tag, what the rules say of it, and what it would be called in the target."""

    tag: TagRecord
    decision: Decision
    name: str | None
    """None: the template gives no name that a tag may have."""
    is_blocked: bool = False
    """The target has a tag of that name, which names something else and cannot be overwritten."""
    found: tuple[str, ...] = ()
    """What the tag has of what the rule that decided asks for (`found_in`)."""

    @property
    def promotes(self) -> bool:
        """Whether it would be promoted."""
        return self.decision.answer is Answer.YES and self.name is not None and not self.is_blocked


class _DoneBefore(Exception):
    """The policy has done so for this push."""


class Promotions:
    """The promotion policies of all repositories. Who may make them is not decided here."""

    def __init__(self, database: Database, reader: TagReader, promotion: Promotion) -> None:
        self._database = database
        self._reader = reader
        self._promotion = promotion
        self.pushes = Pushes(database)

    async def list_policies(
        self, repository: int, *, as_target: bool = False, start: str = "", limit: int
    ) -> list[PromotionPolicy]:
        """At most `limit` policies from the id `start` on, by id, of a repository as their source or target."""
        rows = await self._database.fetch_all(
            _LIST_TO if as_target else _LIST_FROM, repository=repository, start=start, limit=limit
        )
        return [_policy(row) for row in rows]

    async def get(self, repository: int, policy: str) -> PromotionPolicy:
        """A policy that has the repository as its source or target. Raises PromotionPolicyUnknown."""
        row = await self._database.fetch_one(_GET, repository=repository, id=policy)
        if row is None:
            raise PromotionPolicyUnknown(policy)
        return _policy(row)

    async def create(self, policy: PromotionPolicy, *, evaluate: bool, by: Actor = SYSTEM) -> PromotionPolicy:
        """Make a policy, whose id is new; with `evaluate` all tags are shown to it. Raises PolicyInvalid."""
        policy.check()
        made = replace(policy, id=str(uuid.uuid4()))

        async def work(tx: Transaction) -> None:
            await lock_sources(tx, made.source, made.target)
            before = await tx.fetch_all(_LIST_FROM, repository=made.source, start="", limit=_MOST_POLICIES)
            if len(before) == _MOST_POLICIES:
                raise PolicyInvalid(f"a repository has {_MOST_POLICIES} promotion policies at most")
            await tx.execute(_INSERT, id=made.id, source=made.source, **_parameters(made))
            await tell(tx, made.source)
            await _note(tx, "CREATE", made, by, evaluate=evaluate)

        await self._database.unit(work)
        return made

    async def change(self, policy: PromotionPolicy, *, evaluate: bool, by: Actor = SYSTEM) -> None:
        """Change a policy to what is given; not its source. Raises PromotionPolicyUnknown, PolicyInvalid."""
        policy.check()

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_UPDATE, which=policy.id, **_parameters(policy)):
                raise PromotionPolicyUnknown(policy.id)
            await _note(tx, "UPDATE", policy, by, evaluate=evaluate)

        await self._database.unit(work)

    async def delete(self, repository: int, policy: str, *, by: Actor = SYSTEM) -> bool:
        """Remove a policy that has the repository as its source or target; whether it was there."""

        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one(_DELETE, repository=repository, which=policy)
            if row is None:
                return False
            await forget_policy(tx, policy)
            await tell(tx, row[0])
            what = Object("promotion_policy", policy, policy)
            await record(tx, Event(type="DELETE", actor=by, object=what, repository_id=row[0]))
            return True

        return await self._database.unit(work)

    # --- trying them out ---

    async def judge(self, policy: PromotionPolicy, *, newest: int = 0) -> AsyncIterator[JudgedPromotion]:
        """
        What would happen to each tag of the source, if it were pushed now, by name.

        With `newest` to so many of the newest alone, the newest first.
        """
        row = await self._database.fetch_one(_NOW)
        moment = int(row[0]) if row else 0
        async for page in self._pages(policy.source, newest):
            judged = [_judge(policy, tag, facts, moment) for tag, facts in page if companion_of(tag.name) is None]
            names = {one.name for one in judged if one.name is not None and one.decision.answer is Answer.YES}
            fixed = await self._fixed(policy.target, names)
            for one in judged:
                is_blocked = one.name in fixed and fixed[one.name] != one.tag.manifest.digest
                yield replace(one, is_blocked=is_blocked) if is_blocked else one

    async def _pages(self, source: int, newest: int) -> AsyncIterator[list[tuple[TagRecord, TagFacts]]]:
        if newest:
            yield await self._reader.newest(source, newest)
            return
        async for page in self._reader.pages(source):
            yield page

    async def _fixed(self, target: int, names: set[str]) -> dict[str, str]:
        """Those of the names that are tags of the target that cannot be overwritten, and what they name."""
        row = await self._database.fetch_one(_TARGET, repository=target)
        if row is None or not names:
            return {}
        patterns = read_patterns(row[1])
        fixed = sorted(one for one in names if row[0] or immutable_pattern(patterns, one) is not None)
        rows = await self._database.fetch_all(_THERE, repository=target, names=fixed) if fixed else []
        return {row[0]: row[1] for row in rows}

    # --- working them off ---

    async def work_off(self, parameters: Mapping[str, str], *, job: str = "") -> AsyncIterator[Outcome]:
        """
        Do what the parameters of a job say, whose id is `job`.

        `repository` is its id. With `known`, the digest of a manifest, something has become known about that, or
        refers to it now. Else `moment` (milliseconds since 1970: names are made with it, so that a job that is run
        again gives the same ones), and of a push `tag`, `digest` and `chain`, or `policy`, to which all tags are
        shown but for those with which it had to do since the moment `since`.
        """
        try:
            repository = int(parameters["repository"])
            moment, since = (int(parameters.get(name, "0")) for name in ("moment", "since"))
            chain = tuple(json.loads(parameters.get("chain", "[]")))
            tag, digest, policy, known = (
                parameters.get(name, "") for name in ("tag", "digest", "policy", "known")
            )
        except (KeyError, ValueError) as error:
            yield Outcome(f"this is neither a push nor a policy: {error}", failed=True)
            return
        if policy:
            outcomes = self._show_all(repository, policy, moment, since, job)
        elif known or companion_of(tag):
            outcomes = self._go_on(repository, known or companion_of(tag) or "", job)
        else:
            push = Push(repository=repository, tag=tag, digest=digest, moment=moment, chain=chain, job=job)
            outcomes = self._show(push)
        async for outcome in outcomes:
            yield outcome

    async def _show(self, push: Push) -> AsyncIterator[Outcome]:
        found = await self._find(push)
        if found is None:
            yield Outcome(f"tag {push.tag} does not name {push.digest} any more")
            return
        for policy in await self.list_policies(push.repository, limit=_MOST_POLICIES):
            if policy.enabled:
                yield await self._apply(policy, push, *found)

    async def _show_all(
        self, repository: int, wanted: str, moment: int, since: int, job: str
    ) -> AsyncIterator[Outcome]:
        try:
            policy = await self.get(repository, wanted)
        except PromotionPolicyUnknown:
            yield Outcome(f"policy {wanted} is not there any more")
            return
        async for tag, facts in self._reader.read(policy.source):
            if companion_of(tag.name) is None:
                push = Push(
                    repository=policy.source,
                    tag=tag.name,
                    digest=tag.manifest.digest,
                    moment=moment,
                    shown_since=since,
                    job=job,
                )
                yield await self._apply(policy, push, tag, facts)

    async def _go_on(self, repository: int, digest: str, job: str) -> AsyncIterator[Outcome]:
        """Where policies waited for what is known now about a manifest; and where it went, what refers to it."""
        policies = {one.id: one for one in await self.list_policies(repository, limit=_MOST_POLICIES)}
        followed = set[int]()
        for seen in await self.pushes.of_digest(repository, digest):
            policy = policies.get(seen.policy)
            if policy is None or not policy.enabled:
                continue
            if not seen.is_waiting:
                if policy.target not in followed:
                    followed.add(policy.target)
                    yield await self._follow(policy, seen.push)
                continue
            found = await self._find(seen.push)
            if found is not None:
                yield await self._apply(policy, replace(seen.push, job=job), *found)

    async def _find(self, push: Push) -> tuple[TagRecord, TagFacts] | None:
        """The tag, as long as it names what was pushed."""
        try:
            found = await self._reader.get(push.repository, push.tag)
        except ManifestUnknown:
            return None
        return found if found[0].manifest.digest == push.digest else None

    async def _apply(self, policy: PromotionPolicy, push: Push, tag: TagRecord, facts: TagFacts) -> Outcome:
        """Promote the tag, if the policy means it."""
        decision = decide_once(policy.rules, facts, push.moment)
        if decision.answer is Answer.WAITS:
            waits_for = decision.waits_for
            if not await self._database.unit(lambda tx: claim(tx, policy.id, push, waits_for=waits_for)):
                return _said(policy, tag, "was promoted before")
            # It may have come just before it was written down that somebody waits.
            found = await self._find(push)
            if found is None:
                return _said(policy, tag, "not promoted, it was moved meanwhile")
            decision = decide_once(policy.rules, found[1], push.moment)
        if decision.answer is Answer.WAITS:
            return _said(policy, tag, f"not promoted, rule {decision.decided_by} waits for a {decision.waits_for}")
        if decision.answer is Answer.NO:
            return _said(policy, tag, f"not promoted, rule {decision.decided_by} does not hold")
        return await self._promote(policy, push, tag)

    async def _promote(self, policy: PromotionPolicy, push: Push, tag: TagRecord) -> Outcome:
        async def first(tx: Transaction) -> None:
            if not await claim(tx, policy.id, push):
                raise _DoneBefore

        name = name_of(policy.template, tag.name, push.moment)
        if name is None:
            return await self._fail(policy, push, f"{policy.template} gives no name that a tag may have")
        if step(policy.target, name) in push.chain or len(push.chain) >= _LONGEST_CHAIN:
            return _said(policy, tag, f"not promoted, it comes from there, or through {_LONGEST_CHAIN} promotions")
        try:
            await self._promotion.promote(
                policy.source,
                push.digest,
                policy.target,
                name,
                Origin(policy.source_path, tag.name, policy.id),
                while_named=True,
                chain=(*push.chain, step(policy.source, tag.name)),
                before=first,
                by=policy.actor,
            )
        except _DoneBefore:
            return _said(policy, tag, "was promoted before")
        except ManifestUnknown:
            return _said(policy, tag, "not promoted, it was moved meanwhile")
        except (TagImmutable, ManifestIncomplete, TooManyManifests, RepositoryUnknown) as error:
            return await self._fail(policy, push, f"not promoted to {policy.target_path}:{name}: {error}")
        await self._database.unit(lambda tx: tx.execute(_PROMOTED, which=policy.id, job=push.job))
        return _said(policy, tag, f"promoted to {policy.target_path}:{name}")

    async def _follow(self, policy: PromotionPolicy, push: Push) -> Outcome:
        """Let what refers to an image that was promoted follow it."""
        said = f"policy {policy.id}: what refers to {push.digest}"
        try:
            carried = await self._promotion.carry(
                policy.source,
                push.digest,
                policy.target,
                Origin(policy.source_path, push.tag, policy.id),
                chain=(*push.chain, step(policy.source, push.tag)),
                by=policy.actor,
            )
        except ManifestUnknown:
            return Outcome(f"{said} does not follow it to {policy.target_path}: it is there no more")
        except (ManifestIncomplete, TooManyManifests, RepositoryUnknown) as error:
            return Outcome(f"{said} does not follow it to {policy.target_path}: {error}", failed=True)
        return Outcome(f"{said} follows it to {policy.target_path}: {carried} new")

    async def _fail(self, policy: PromotionPolicy, push: Push, text: str) -> Outcome:
        """Write an event, once for a push; the outcome."""
        event = Event(
            type="FAIL",
            actor=policy.actor,
            object=Object("promotion", policy.id, push.tag, push.digest),
            target=Object("promotion_policy", policy.id, policy.target_path, text),
            repository_id=policy.source,
        )

        async def work(tx: Transaction) -> None:
            if await claim(tx, policy.id, push):
                await tx.execute(_FAILED, which=policy.id, job=push.job, failure=f"tag {push.tag}: {text}")
                await record(tx, event)

        await self._database.unit(work)
        return Outcome(f"policy {policy.id}, tag {push.tag}: {text}", failed=True)


def _judge(policy: PromotionPolicy, tag: TagRecord, facts: TagFacts, moment: int) -> JudgedPromotion:
    decision = decide_once(policy.rules, facts, moment)
    name = name_of(policy.template, tag.name, moment)
    return JudgedPromotion(tag, decision, name, found=found_in(policy.rules, decision, facts))


def _said(policy: PromotionPolicy, tag: TagRecord, text: str) -> Outcome:
    return Outcome(f"policy {policy.id}, tag {tag.name}: {text}")


async def _note(tx: Transaction, kind: str, policy: PromotionPolicy, by: Actor, *, evaluate: bool) -> None:
    """Write an event, and queue the job that shows all tags to the policy."""
    await record(
        tx,
        Event(
            type="CREATE" if kind == "CREATE" else "UPDATE",
            actor=by,
            object=Object("promotion_policy", policy.id, policy.id, write_rules(policy.rules)),
            target=Object("repository", str(policy.target), policy.target_path),
            repository_id=policy.source,
        ),
    )
    if policy.enabled and evaluate:
        row = await tx.fetch_one(_NOW)
        assert row is not None
        moment = str(row[0])
        parameters = {"repository": str(policy.source), "policy": policy.id, "moment": moment}
        if kind == "UPDATE":
            parameters["since"] = moment  # what the policy did as it was before does not count
        await submit(tx, JobRequest(action=PROMOTE, parameters=parameters))


def _parameters(policy: PromotionPolicy) -> dict[str, object]:
    return {
        "target": policy.target,
        "enabled": policy.enabled,
        "rules": write_rules(policy.rules),
        "tag_template": policy.template,
    }


def _policy(row: Row) -> PromotionPolicy:
    found, source, source_path, target, target_path, enabled, rules, template, *last = row
    last_promoted_at, last_failed_at, last_failure, last_job = last
    return PromotionPolicy(
        id=found,
        source=source,
        source_path=source_path,
        target=target,
        target_path=target_path,
        enabled=bool(enabled),
        rules=parse_rules(json.loads(rules)),
        template=template,
        last_promoted_at=last_promoted_at,
        last_failed_at=last_failed_at,
        last_failure=last_failure,
        last_job=last_job,
    )
