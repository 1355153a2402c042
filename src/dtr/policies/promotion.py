"""
Promotion policies: a tag that is pushed gets a name in another repository, when all rules of a policy mean it.

Each push of a tag queues a job in its own transaction, and that shows the tag to the policies of the repository. A
promotion is a push in its target, whose policies see it in turn; a chain never comes to the same tag twice, and
has an end. A tag that was moved before its job ran is left to the job of its next push.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Boolean, bindparam, delete, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import promotion_policies, repositories
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.jobs import JobRequest, submit
from dtr.policies.errors import PolicyInvalid, PromotionPolicyUnknown
from dtr.policies.pruning import facts_of
from dtr.policies.rules import Answer, decide, parse_rules, write_rules
from dtr.policies.templates import name_of
from dtr.registry import (
    PROMOTE,
    ManifestIncomplete,
    ManifestUnknown,
    Origin,
    RepositoryUnknown,
    TagImmutable,
    TooManyManifests,
    step,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from dtr.db import Database, Row, Transaction
    from dtr.policies.rules import Rule
    from dtr.registry import Images, Promotion
    from dtr.registry.images import TagRecord

_PAGE = 500
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
    )
    .join_from(promotion_policies, _source, _source.c.id == promotion_policies.c.source_id)
    .join(_target, _target.c.id == promotion_policies.c.target_id)
    .where(_source.c.deleted_at.is_(None), _target.c.deleted_at.is_(None))
)
_page = (
    _policies.where(_id >= bindparam("start")).order_by(_id).limit(bindparam("limit", type_=BigInteger))
)  # fmt: skip
_LIST_FROM = Statement(_page.where(promotion_policies.c.source_id == _repository))
_LIST_TO = Statement(_page.where(promotion_policies.c.target_id == _repository))
_concerns = or_(promotion_policies.c.source_id == _repository, promotion_policies.c.target_id == _repository)
_GET = Statement(_policies.where(_id == bindparam("id"), _concerns))
_INSERT = Statement(
    insert(promotion_policies).values(
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
    update(promotion_policies)
    .where(_id == bindparam("which"))
    .values(
        target_id=bindparam("target", type_=BigInteger),
        enabled=bindparam("enabled", type_=Boolean),
        rules=bindparam("rules"),
        tag_template=bindparam("tag_template"),
    )
)
_DELETE = Statement(
    delete(promotion_policies)
    .where(_id == bindparam("which"), _concerns)
    .returning(promotion_policies.c.source_id)
)
_TELL = Statement(  # whether pushes have to be told
    update(repositories)
    .where(repositories.c.id == bindparam("source", type_=BigInteger))
    .values(has_policies=exists().where(promotion_policies.c.source_id == repositories.c.id))
)
_PROMOTED = Statement(update(promotion_policies).where(_id == bindparam("which")).values(last_promoted_at=now()))
_NOW = Statement(select(now()))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionPolicy:
    """A policy. `last_promoted_at` in milliseconds since 1970 UTC; None: never."""

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a tag by a policy."""

    text: str
    failed: bool = False


class Promotions:
    """The promotion policies of all repositories. Who may make them is not decided here."""

    def __init__(self, database: Database, images: Images, promotion: Promotion) -> None:
        self._database = database
        self._images = images
        self._promotion = promotion

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
        if len(await self.list_policies(policy.source, limit=_MOST_POLICIES)) == _MOST_POLICIES:
            raise PolicyInvalid(f"a repository has {_MOST_POLICIES} promotion policies at most")
        made = replace(policy, id=str(uuid.uuid4()))

        async def work(tx: Transaction) -> None:
            await tx.execute(_INSERT, id=made.id, source=made.source, **_parameters(made))
            await tx.execute(_TELL, source=made.source)
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
            await tx.execute(_TELL, source=row[0])
            what = Object("promotion_policy", policy, policy)
            await record(tx, Event(type="DELETE", actor=by, object=what, repository_id=row[0]))
            return True

        return await self._database.unit(work)

    # --- working them off ---

    async def work_off(self, parameters: Mapping[str, str]) -> AsyncIterator[Outcome]:
        """
        Do what the parameters of a job say.

        Always `repository` (its id) and `moment` (milliseconds since 1970: names are made with it, so that a job
        that is run again gives the same ones); of a push `tag`, `digest` and `chain`, else `policy`, to which all
        tags are shown.
        """
        try:
            repository, moment = int(parameters["repository"]), int(parameters["moment"])
            chain = json.loads(parameters.get("chain", "[]"))
            tag, digest, policy = (parameters.get(name, "") for name in ("tag", "digest", "policy"))
        except (KeyError, ValueError) as error:
            yield Outcome(f"this is neither a push nor a policy: {error}", failed=True)
            return
        if policy:
            outcomes = self._show_all(repository, policy, moment)
        else:
            outcomes = self._show(repository, tag, digest, chain, moment)
        async for outcome in outcomes:
            yield outcome

    async def _show(
        self, repository: int, name: str, digest: str, chain: Sequence[str], moment: int
    ) -> AsyncIterator[Outcome]:
        try:
            tag = await self._images.get_tag(repository, name)
        except ManifestUnknown:
            tag = None
        if tag is None or tag.manifest.digest != digest:
            yield Outcome(f"tag {name} does not name {digest} any more")
            return
        for policy in await self.list_policies(repository, limit=_MOST_POLICIES):
            if policy.enabled:
                yield await self._apply(policy, tag, chain, moment)

    async def _show_all(self, repository: int, wanted: str, moment: int) -> AsyncIterator[Outcome]:
        try:
            policy = await self.get(repository, wanted)
        except PromotionPolicyUnknown:
            yield Outcome(f"policy {wanted} is not there any more")
            return
        start = ""
        while page := await self._images.list_tags(policy.source, start=start, limit=_PAGE):
            for tag in page:
                yield await self._apply(policy, tag, (), moment)
            start = page[-1].name + "\x01"  # no name has it: whatever comes next begins behind

    async def _apply(self, policy: PromotionPolicy, tag: TagRecord, chain: Sequence[str], moment: int) -> Outcome:
        """Promote the tag, if the policy means it."""
        said = f"policy {policy.id}, tag {tag.name}"
        decision = decide(policy.rules, facts_of(tag), moment)
        if decision.answer is Answer.WAITS:
            return Outcome(f"{said}: not promoted, a rule waits for a scan")
        if decision.answer is Answer.NO:
            return Outcome(f"{said}: not promoted, rule {decision.decided_by} does not hold")
        name = name_of(policy.template, tag.name, moment)
        if name is None:
            return await self._fail(policy, tag, f"{said}: {policy.template} gives no name that a tag may have")
        if step(policy.target, name) in chain or len(chain) >= _LONGEST_CHAIN:
            return Outcome(f"{said}: not promoted, it comes from there, or through {_LONGEST_CHAIN} promotions")
        try:
            await self._promotion.promote(
                policy.source,
                tag.manifest.digest,
                policy.target,
                name,
                Origin(policy.source_path, tag.name, policy.id),
                while_named=True,
                chain=(*chain, step(policy.source, tag.name)),
                by=policy.actor,
            )
        except ManifestUnknown:
            return Outcome(f"{said}: not promoted, it was moved meanwhile")
        except (TagImmutable, ManifestIncomplete, TooManyManifests, RepositoryUnknown) as error:
            return await self._fail(policy, tag, f"{said}: not promoted to {policy.target_path}:{name}: {error}")
        await self._database.unit(lambda tx: tx.execute(_PROMOTED, which=policy.id))
        return Outcome(f"{said}: promoted to {policy.target_path}:{name}")

    async def _fail(self, policy: PromotionPolicy, tag: TagRecord, text: str) -> Outcome:
        """Write an event; the outcome."""
        event = Event(
            type="FAIL",
            actor=policy.actor,
            object=Object("tag", tag.name, tag.name, tag.manifest.digest),
            target=Object("promotion_policy", policy.id, policy.id, text),
            repository_id=policy.source,
        )
        await self._database.unit(lambda tx: record(tx, event))
        return Outcome(text, failed=True)


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
        parameters = {"repository": str(policy.source), "policy": policy.id, "moment": str(row[0])}
        await submit(tx, JobRequest(action=PROMOTE, parameters=parameters))


def _parameters(policy: PromotionPolicy) -> dict[str, object]:
    return {
        "target": policy.target,
        "enabled": policy.enabled,
        "rules": write_rules(policy.rules),
        "tag_template": policy.template,
    }


def _policy(row: Row) -> PromotionPolicy:
    found, source, source_path, target, target_path, enabled, rules, template, last_promoted_at = row
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
    )
