"""
Mirroring policies: which tags of a repository are brought to another registry (push), or come from there (poll).

What became of each tag is kept with the policy: so a poll finds what it has without looking, and people see why
one is not there. A policy points to a stored remote, its own or one that several share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, and_, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, in_list, now
from dtr.db.schema import (
    manifests,
    mirrored_tags,
    mirroring_policies,
    remotes,
    repositories,
    repository_blobs,
    upstreams,
)
from dtr.events import SYSTEM, Actor, Event, Object, record
from dtr.jobs import JobInvalid, JobRequest, submit
from dtr.jobs.schedules import next_run
from dtr.mirrors.errors import MirroringPolicyUnknown
from dtr.oci import NameInvalid, companion_of, parse_repository_name
from dtr.policies import Answer, PolicyInvalid, decide, lock_sources, name_of, parse_rules, tell, write_rules
from dtr.policies.rules import Group, TagFacts
from dtr.remotes import drop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.policies.rules import Rule

    PutRemote: TypeAlias = Callable[[Transaction], Awaitable[str]]
    """Stores the remote of a policy in the transaction of the policy; its id."""

_log = logging.getLogger("dtr.mirrors")

Direction: TypeAlias = Literal["push", "poll"]
TagStatus: TypeAlias = Literal["mirrored", "failed", "waiting", "skipped"]
"""`waiting`: for what a rule asks. `skipped`: it was there before the policy, which means what comes after it."""

PUSH, POLL = "push_mirror_tag", "poll_mirror"
"""
The jobs. `PUSH` with a tag mirrors it, without one it shows all tags to a policy; `POLL` is for the policy in the
parameter `policy`, or queues one for each.
"""
SCHEDULE = "0 */30 * * * *"
"""When those work that have no schedule of their own, unless an administrator says otherwise."""
RETRIES = {PUSH: 12, POLL: 3}
_MOST_POLICIES = 100
_LONGEST_TEMPLATE = 256
_SHORTEST_PERIOD = 60_000
_DAY = 86_400_000
_LOOK_SECONDS = 5.0
_PAGE = 500

_repository = bindparam("repository", type_=BigInteger)
_id = mirroring_policies.c.id
_columns = (
    _id,
    mirroring_policies.c.direction,
    repositories.c.id,
    repositories.c.path,
    mirroring_policies.c.remote_id,
    mirroring_policies.c.remote_repository,
    mirroring_policies.c.enabled,
    mirroring_policies.c.rules,
    mirroring_policies.c.tag_template,
    mirroring_policies.c.with_referrers,
    mirroring_policies.c.with_deletions,
    mirroring_policies.c.schedule,
    mirroring_policies.c.skips_present,
    mirroring_policies.c.last_mirrored_at,
    mirroring_policies.c.status_code,
    mirroring_policies.c.status_detail,
    mirroring_policies.c.status_at,
    mirroring_policies.c.last_job,
    mirroring_policies.c.next_run,
)
_policies = (
    select(*_columns)
    .join(repositories, repositories.c.id == mirroring_policies.c.repository_id)
    .where(repositories.c.deleted_at.is_(None))
)
_is_meant = or_(bindparam("direction") == "", mirroring_policies.c.direction == bindparam("direction"))
_LIST = Statement(
    lambda: (
        _policies.where(mirroring_policies.c.repository_id == _repository, _is_meant, _id >= bindparam("start"))
        .order_by(_id)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_GET = Statement(lambda: _policies.where(_id == bindparam("id")))
_ENABLED = Statement(
    lambda: (
        _policies.where(mirroring_policies.c.enabled.is_(True), _id > bindparam("after"))
        .order_by(_id)
        .limit(_PAGE)
    )
)
_written = {
    "remote_id": bindparam("remote"),
    "remote_repository": bindparam("remote_repository"),
    "enabled": bindparam("enabled", type_=Boolean),
    "rules": bindparam("rules"),
    "tag_template": bindparam("tag_template"),
    "with_referrers": bindparam("with_referrers", type_=Boolean),
    "with_deletions": bindparam("with_deletions", type_=Boolean),
    "schedule": bindparam("schedule"),
    "next_run": bindparam("next_run", type_=BigInteger),
    "skips_present": bindparam("skips_present", type_=Boolean),
}
_INSERT = Statement(
    lambda: insert(mirroring_policies).values(
        id=bindparam("id"),
        repository_id=_repository,
        direction=bindparam("direction"),
        created_at=now(),
        **_written,
    )
)
_UPDATE = Statement(lambda: update(mirroring_policies).where(_id == bindparam("which")).values(**_written))
_DELETE = Statement(
    lambda: (
        delete(mirroring_policies)
        .where(mirroring_policies.c.repository_id == _repository, in_list(_id, "ids"), _is_meant)
        .returning(_id, mirroring_policies.c.remote_id)
    )
)
_FORGET = Statement(
    lambda: delete(mirrored_tags).where(
        mirrored_tags.c.repository_id == _repository, in_list(mirrored_tags.c.policy_id, "ids")
    )
)
_NOW = Statement(lambda: select(now()))
_ENDED = Statement(
    lambda: (
        update(mirroring_policies)
        .where(_id == bindparam("which"))
        .values(
            status_code=bindparam("code"),
            status_detail=bindparam("detail"),
            status_at=now(),
            last_job=bindparam("job"),
            skips_present=and_(mirroring_policies.c.skips_present, bindparam("still_skips", type_=Boolean)),
        )
    )
)
_MIRRORED = Statement(
    lambda: (update(mirroring_policies).where(_id == bindparam("which")).values(last_mirrored_at=now()))
)  # fmt: skip
_DUE = Statement(
    lambda: (
        select(
            _id, mirroring_policies.c.direction, mirroring_policies.c.schedule, mirroring_policies.c.enabled, now()
        )
        .where(mirroring_policies.c.next_run <= now())
        .order_by(mirroring_policies.c.next_run)
        .limit(100)
        .with_for_update(skip_locked=True)
    )
)
_ADVANCE = Statement(
    lambda: (
        update(mirroring_policies)
        .where(_id == bindparam("which"))
        .values(next_run=bindparam("next_run", type_=BigInteger))
    )
)
_MOUNTS = Statement(  # repositories of the same remote, to which one of ours with the blob is mirrored
    lambda: (
        select(mirroring_policies.c.remote_repository)
        .join(repository_blobs, repository_blobs.c.repository_id == mirroring_policies.c.repository_id)
        .where(
            repository_blobs.c.digest == bindparam("digest"),
            mirroring_policies.c.direction == "push",
            mirroring_policies.c.remote_id == bindparam("remote"),
            mirroring_policies.c.remote_repository != bindparam("remote_repository"),
            mirroring_policies.c.last_mirrored_at.is_not(None),
        )
        .distinct()
        .limit(3)
    )
)
_of_nobody = delete(remotes).where(
    remotes.c.name.is_(None),
    ~exists().where(mirroring_policies.c.remote_id == remotes.c.id),
    ~exists().where(upstreams.c.remote_id == remotes.c.id),
)
_FORGET_REMOTE = Statement(lambda: _of_nobody.where(remotes.c.id == bindparam("which")))
_FORGET_REMOTES = Statement(lambda: _of_nobody.where(remotes.c.created_at < now() - _DAY))

# --- tags -----------------------------------------------------------------------------------------------------

_policy = bindparam("policy", type_=mirrored_tags.c.policy_id.type)
_tag_columns = (
    mirrored_tags.c.tag,
    mirrored_tags.c.target_tag,
    mirrored_tags.c.remote,
    mirrored_tags.c.digest,
    mirrored_tags.c.status,
    mirrored_tags.c.detail,
    mirrored_tags.c.attempted_at,
    mirrored_tags.c.mirrored_at,
)
_of_policy = select(*_tag_columns).where(
    mirrored_tags.c.repository_id == _repository, mirrored_tags.c.policy_id == _policy
)
_has_status = or_(bindparam("status") == "", mirrored_tags.c.status == bindparam("status"))
_TAGS = Statement(
    lambda: (
        _of_policy.where(mirrored_tags.c.tag >= bindparam("start"), _has_status)
        .order_by(mirrored_tags.c.tag)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_COUNT_TAGS = Statement(
    lambda: (
        select(func.count())
        .select_from(mirrored_tags)
        .where(mirrored_tags.c.repository_id == _repository, mirrored_tags.c.policy_id == _policy, _has_status)
    )
)
_COUNT_BY_STATUS = Statement(
    lambda: (
        select(mirrored_tags.c.policy_id, mirrored_tags.c.status, func.count())
        .where(mirrored_tags.c.repository_id == _repository, in_list(mirrored_tags.c.policy_id, "policies"))
        .group_by(mirrored_tags.c.policy_id, mirrored_tags.c.status)
    )
)
_FIND_TAG = Statement(lambda: _of_policy.where(mirrored_tags.c.tag == bindparam("tag")))
_OF_DIGEST = Statement(
    lambda: (
        select(mirrored_tags.c.policy_id, *_tag_columns)
        .where(
            mirrored_tags.c.repository_id == _repository,
            mirrored_tags.c.digest == bindparam("digest"),
            mirrored_tags.c.direction == "push",
        )
        .order_by(mirrored_tags.c.policy_id, mirrored_tags.c.tag)
    )
)
_ANY_WAITS = Statement(lambda: _of_policy.where(mirrored_tags.c.status == "waiting").limit(1))
_REFERRED_SINCE = Statement(  # tags of images to which something refers that came after they were mirrored
    lambda: (
        select(mirrored_tags.c.tag)
        .join(
            manifests,
            and_(
                manifests.c.repository_id == mirrored_tags.c.repository_id,
                manifests.c.subject == mirrored_tags.c.digest,
                manifests.c.created_at > mirrored_tags.c.mirrored_at,
            ),
        )
        .where(
            mirrored_tags.c.repository_id == _repository,
            mirrored_tags.c.policy_id == _policy,
            mirrored_tags.c.status == "mirrored",
        )
        .distinct()
    )
)
_noted = insert(mirrored_tags).values(
    repository_id=_repository,
    policy_id=_policy,
    tag=bindparam("tag"),
    direction=bindparam("direction"),
    target_tag=bindparam("target_tag"),
    remote=bindparam("remote"),
    digest=bindparam("digest"),
    status=bindparam("status"),
    detail=bindparam("detail"),
    attempted_at=now(),
    mirrored_at=bindparam("mirrored_at", type_=BigInteger),
)
_NOTE_TAG = Statement(
    lambda: _noted.on_conflict_do_update(
        index_elements=["repository_id", "policy_id", "tag"],
        set_={
            **{
                name: _noted.excluded[name]
                for name in ("target_tag", "remote", "digest", "status", "detail", "attempted_at")
            },
            "mirrored_at": func.coalesce(_noted.excluded.mirrored_at, mirrored_tags.c.mirrored_at),
        },
    )
)
_DROP_TAGS = Statement(
    lambda: delete(mirrored_tags).where(
        mirrored_tags.c.repository_id == _repository,
        mirrored_tags.c.policy_id == _policy,
        in_list(mirrored_tags.c.tag, "tags"),
    )
)
_POLLED = Statement(  # what came from a remote
    lambda: select(mirrored_tags.c.target_tag, mirrored_tags.c.digest).where(
        mirrored_tags.c.repository_id == _repository,
        mirrored_tags.c.direction == "poll",
        mirrored_tags.c.status == "mirrored",
        mirrored_tags.c.remote == bindparam("remote"),
    )
)
_shown = (
    mirrored_tags.c.policy_id,
    mirrored_tags.c.tag,
    mirrored_tags.c.target_tag,
    mirrored_tags.c.remote,
    mirrored_tags.c.digest,
    mirrored_tags.c.direction,
)
_is_shown = and_(
    mirrored_tags.c.repository_id == _repository,
    mirrored_tags.c.status == "mirrored",
)
_OF_TAGS = Statement(
    lambda: (
        select(*_shown, mirrored_tags.c.mirrored_at)
        .where(
            _is_shown,
            or_(
                and_(mirrored_tags.c.direction == "push", in_list(mirrored_tags.c.tag, "names")),
                and_(mirrored_tags.c.direction == "poll", in_list(mirrored_tags.c.target_tag, "names")),
            ),
        )
        .order_by(mirrored_tags.c.mirrored_at)
    )
)


class Status(Struct, frozen=True):
    """How a policy's last work ended; `moment` in milliseconds since 1970 UTC, None: it has not worked yet."""

    code: str = ""
    """``SUCCESS``, or what was wrong."""
    detail: str = ""
    moment: int | None = None
    job: str = ""
    """The id of the job that did it."""


class MirroringPolicy(Struct, frozen=True, kw_only=True):
    """A policy. Moments in milliseconds since 1970 UTC; `last_mirrored_at` None: never."""

    direction: Direction
    repository: int
    path: str
    remote: str
    """Id of the stored remote."""
    remote_repository: str
    id: str = ""
    enabled: bool = True
    rules: tuple[Rule, ...] = ()
    """Without any, every tag is meant. Those of a poll ask for the tag alone: the image is not here yet."""
    template: str = "%n"
    """The name of the tag at the other side."""
    referrers: bool = False
    """With what refers to the image: signatures, attestations."""
    deletions: bool = False
    """Deletes at its target what was deleted at its source."""
    schedule: str = ""
    """When it works beside pushes, as crons have it; empty: with all others."""
    skips_present: bool = False
    """Of a poll: what it finds the first time is noted only."""
    last_mirrored_at: int | None = None
    status: Status = field(default_factory=Status)
    next_run: int | None = None
    """When it works next by its own schedule; None: it has none, or that has no next time."""

    @property
    def actor(self) -> Actor:
        """The policy as the one who pushes."""
        return Actor("policy", self.id, f"{self.direction} mirroring")

    def check(self) -> None:
        """Raise PolicyInvalid for what no policy can be."""
        if len(self.template) > _LONGEST_TEMPLATE or name_of(self.template, "x", 0) is None:
            raise PolicyInvalid("tagTemplate gives no name that a tag may have")
        if self.direction == "poll" and not _fields(self.rules) <= {"tag"}:
            raise PolicyInvalid("the rules of a poll ask for the tag alone: the image is not here yet")
        try:
            parse_repository_name(self.remote_repository)
        except NameInvalid as error:
            raise PolicyInvalid(f"remoteRepository: {error}") from None
        self.run_after(0)

    def means(self, tag: str, moment: int) -> bool:
        """Whether a poll means a tag there, of which nothing is known but its name."""
        return decide(self.rules, TagFacts(name=tag, updated_at=moment), moment).answer is Answer.YES

    def target_of(self, tag: str, moment: int) -> str | None:
        """
        What a tag is called at the other side; None: the template gives no name that a tag may have.

        What refers to an image is found by its tag: that stays what it is.
        """
        return tag if companion_of(tag) else name_of(self.template, tag, moment)

    def run_after(self, moment: int) -> int | None:
        """When its own schedule has it work next, milliseconds since 1970 UTC both. Raises PolicyInvalid."""
        if not self.schedule:
            return None
        try:
            first = next_run(self.schedule, moment)
            if next_run(self.schedule, first) - first < _SHORTEST_PERIOD:
                raise PolicyInvalid("the schedule names more than one moment in a minute")
        except JobInvalid as error:
            raise PolicyInvalid(str(error)) from None
        return first


class MirroredTag(Struct, frozen=True, kw_only=True):
    """What became of a tag at the source of a policy. Moments in milliseconds since 1970 UTC."""

    tag: str
    target_tag: str
    remote: str
    """The remote repository (`Remote.full_name`)."""
    digest: str
    """What the tag named when it was tried last."""
    status: TagStatus
    detail: str = ""
    attempted_at: int = 0
    mirrored_at: int | None = None


class Mirroring(Struct, frozen=True):
    """How a tag of ours was mirrored last: by which policy (empty: by hand), from or to where."""

    policy: str
    remote: str
    remote_tag: str
    digest: str


class MirroringPolicies:
    """The mirroring policies of all repositories. Who may make them, and for which remote, is not decided here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_policies(
        self, repository: int, *, direction: Direction | None = None, start: str = "", limit: int
    ) -> list[MirroringPolicy]:
        """At most `limit` policies from the id `start` on, by id; `direction` None: of both."""
        rows = await self._database.fetch_all(
            _LIST, repository=repository, direction=direction or "", start=start, limit=limit
        )
        return [_read(row) for row in rows]

    async def get(
        self, policy: str, *, repository: int | None = None, direction: Direction | None = None
    ) -> MirroringPolicy:
        """A policy, of a repository and direction if these are given. Raises MirroringPolicyUnknown."""
        row = await self._database.fetch_one(_GET, id=policy)
        found = None if row is None else _read(row)
        if found is None or repository not in {None, found.repository} or direction not in {None, found.direction}:
            raise MirroringPolicyUnknown(policy)
        return found

    async def enabled(self) -> AsyncIterator[MirroringPolicy]:
        """The policies that are switched on, of all repositories."""
        after = ""
        while rows := await self._database.fetch_all(_ENABLED, after=after):
            for row in rows:
                yield _read(row)
            after = rows[-1][0]

    async def create(
        self, policy: MirroringPolicy, put_remote: PutRemote, *, evaluate: bool, by: Actor = SYSTEM
    ) -> MirroringPolicy:
        """
        Make a policy, whose id is new, with the remote that `put_remote` stores or finds.

        With `evaluate` it works at once on all tags; else it means those to come. Raises PolicyInvalid.
        """
        policy.check()
        is_poll = policy.direction == "poll"
        made = replace(policy, id=str(uuid.uuid4()), skips_present=is_poll and not evaluate)

        async def work(tx: Transaction) -> MirroringPolicy:
            await lock_sources(tx, made.repository)
            before = await tx.fetch_all(
                _LIST, repository=made.repository, direction="", start="", limit=_MOST_POLICIES
            )
            if len(before) == _MOST_POLICIES:
                raise PolicyInvalid(f"a repository has {_MOST_POLICIES} mirroring policies at most")
            written = replace(made, remote=await put_remote(tx))
            moment = await _clock(tx)
            await tx.execute(
                _INSERT,
                id=written.id,
                repository=written.repository,
                direction=written.direction,
                **_parameters(written, moment),
            )
            await tell(tx, written.repository)
            await _note(tx, "CREATE", written, by)
            if written.enabled and (evaluate or is_poll):  # a poll that skips what is there has to see it now
                await queue(tx, written, moment)
            return written

        return await self._database.unit(work)

    async def change(
        self, policy: MirroringPolicy, put_remote: PutRemote, *, evaluate: bool, by: Actor = SYSTEM
    ) -> MirroringPolicy:
        """
        Change a policy to what is given, and its remote to the one that `put_remote` stores or finds.

        With `evaluate` it works at once on all tags. Raises MirroringPolicyUnknown, PolicyInvalid.
        """
        policy.check()
        wanted = replace(policy, skips_present=policy.skips_present and not evaluate)

        async def work(tx: Transaction) -> MirroringPolicy:
            await lock_sources(tx, wanted.repository)
            written = replace(wanted, remote=await put_remote(tx))
            moment = await _clock(tx)
            if not await tx.execute(_UPDATE, which=written.id, **_parameters(written, moment)):
                raise MirroringPolicyUnknown(written.id)
            if written.remote != wanted.remote:
                await drop(tx, wanted.remote)
            await tell(tx, written.repository)
            await _note(tx, "UPDATE", written, by)
            if written.enabled and evaluate:
                await queue(tx, written, moment, everything=True)
            return written

        return await self._database.unit(work)

    async def delete(
        self,
        repository: int,
        policies: Iterable[str],
        *,
        direction: Direction | None = None,
        by: Actor = SYSTEM,
    ) -> set[str]:
        """Remove those of the policies that are there, with what is known of their tags; which."""
        wanted = sorted(set(policies))

        async def work(tx: Transaction) -> set[str]:
            await lock_sources(tx, repository)
            rows = await tx.fetch_all(_DELETE, repository=repository, ids=wanted, direction=direction or "")
            if not rows:
                return set()
            gone = sorted(row[0] for row in rows)
            await tx.execute(_FORGET, repository=repository, ids=gone)
            for remote in sorted({row[1] for row in rows}):
                await drop(tx, remote)
            await tell(tx, repository)
            await record(
                tx,
                *(
                    Event(
                        type="DELETE",
                        actor=by,
                        object=Object("mirroring_policy", one, one),
                        repository_id=repository,
                    )
                    for one in gone
                ),
            )
            return set(gone)

        return await self._database.unit(work)

    async def start(
        self, policy: MirroringPolicy, *, everything: bool = False, any_deletions: bool = False, by: Actor = SYSTEM
    ) -> None:
        """
        Queue the policy's work.

        `everything`: also tags that did not change since they were mirrored. `any_deletions`: however many tags
        are gone at the source, they go at the target.
        """

        async def work(tx: Transaction) -> None:
            moment = await _clock(tx)
            await queue(tx, policy, moment, everything=everything, any_deletions=any_deletions)
            await record(
                tx,
                Event(
                    type="UPDATE",
                    actor=by,
                    object=Object("mirroring_policy", policy.id, policy.id, "run"),
                    repository_id=policy.repository,
                ),
            )

        await self._database.unit(work)

    async def push_by_hand(
        self,
        repository: int,
        tag: str,
        digest: str,
        put_remote: PutRemote,
        remote_repository: str,
        remote_tag: str,
        *,
        by: Actor = SYSTEM,
    ) -> None:
        """Queue the transfer of what a tag names to the remote that `put_remote` stores or finds."""

        async def work(tx: Transaction) -> None:
            parameters = {
                "repository": str(repository),
                "tag": tag,
                "digest": digest,
                "remote": await put_remote(tx),
                "remoteRepository": remote_repository,
                "remoteTag": remote_tag,
                "by": json.dumps([by.type, by.id, by.name, by.address]),
            }
            made = await submit(tx, JobRequest(action=PUSH, parameters=parameters, retries=RETRIES[PUSH]))
            about = Object("job", made or "", PUSH, digest)
            await record(tx, Event(type="CREATE", actor=by, object=about, repository_id=repository))

        await self._database.unit(work)

    async def now(self) -> int:
        """The moment, in milliseconds since 1970 UTC, as the database has it."""
        row = await self._database.fetch_one(_NOW)
        return int(row[0]) if row else 0

    async def forget_remote(self, remote: str) -> None:
        """Delete the remote of what was mirrored by hand, if nothing else has it."""
        await self._database.unit(lambda tx: tx.execute(_FORGET_REMOTE, which=remote))

    async def forget_remotes(self) -> int:
        """Delete remotes of what was mirrored by hand, and was given up; how many."""
        return await self._database.unit(lambda tx: tx.execute(_FORGET_REMOTES))

    async def queue_due(self) -> int:
        """
        Queue the work of those whose own schedule says so; how many.

        However late it is, it is queued once; while it waits, it is not queued again.
        """

        async def work(tx: Transaction) -> int:
            rows = await tx.fetch_all(_DUE)
            for policy, direction, schedule, enabled, moment in rows:
                try:
                    following = next_run(schedule, moment)
                except JobInvalid:  # there is no next time
                    following = None
                await tx.execute(_ADVANCE, which=policy, next_run=following)
                if enabled:
                    await _submit(tx, direction, policy, {"moment": str(moment)})
            return len(rows)

        return await self._database.unit(work)

    async def keep_schedules(self) -> None:
        """Queue what is due by schedules of their own, until cancelled."""
        while True:
            try:
                await self.queue_due()
            except DatabaseError as error:
                _log.warning("schedules of mirrors not kept", extra={"reason": str(error)})
            await asyncio.sleep(_LOOK_SECONDS)

    async def queue_all(self) -> int:
        """
        Queue the work of all that have no schedule of their own; how many.

        Polls, and pushes that follow deletions or whose tags wait for something.
        """
        queued = 0
        async for policy in self.enabled():
            if policy.schedule or (policy.direction == "push" and not await self._has_work(policy)):
                continue

            async def work(tx: Transaction, policy: MirroringPolicy = policy) -> None:
                await queue(tx, policy, await _clock(tx))

            await self._database.unit(work)
            queued += 1
        return queued

    async def _has_work(self, policy: MirroringPolicy) -> bool:
        if policy.deletions or (policy.referrers and await self.referred_since(policy)):
            return True
        row = await self._database.fetch_one(_ANY_WAITS, repository=policy.repository, policy=policy.id)
        return row is not None

    async def mounts(self, policy: MirroringPolicy, digest: str) -> list[str]:
        """Other repositories of the same remote that may have a blob."""
        rows = await self._database.fetch_all(
            _MOUNTS, digest=digest, remote=policy.remote, remote_repository=policy.remote_repository
        )
        return [row[0] for row in rows]

    # --- tags ---

    async def list_tags(
        self, policy: MirroringPolicy, *, status: TagStatus | None = None, start: str = "", limit: int
    ) -> list[MirroredTag]:
        """At most `limit` of the tags that a policy knows, from the one called `start` on, by name."""
        rows = await self._database.fetch_all(
            _TAGS,
            repository=policy.repository,
            policy=policy.id,
            status=status or "",
            start=start,
            limit=limit,
        )
        return [_read_tag(row) for row in rows]

    async def count_tags(self, policy: MirroringPolicy, *, status: TagStatus | None = None) -> int:
        """How many `list_tags` lists in the end."""
        row = await self._database.fetch_one(
            _COUNT_TAGS, repository=policy.repository, policy=policy.id, status=status or ""
        )
        return int(row[0]) if row else 0

    async def count_by_status(self, repository: int, policies: Iterable[str]) -> dict[str, dict[str, int]]:
        """How many tags of each of the policies are in each status; what is not there is missing. One query."""
        rows = await self._database.fetch_all(_COUNT_BY_STATUS, repository=repository, policies=sorted(policies))
        found: dict[str, dict[str, int]] = {}
        for policy, status, count in rows:
            found.setdefault(policy, {})[status] = count
        return found

    async def known_tags(self, policy: MirroringPolicy) -> dict[str, MirroredTag]:
        """All tags that a policy knows, by name."""
        found: dict[str, MirroredTag] = {}
        start = ""
        while page := await self.list_tags(policy, start=start, limit=_PAGE):
            found.update((one.tag, one) for one in page)
            start = page[-1].tag + "\x01"  # no name has it: whatever comes next begins behind
        return found

    async def of_digest(self, repository: int, digest: str) -> list[tuple[str, MirroredTag]]:
        """Tags that named a manifest, each with the id of the policy that had to do with it; by policy and tag."""
        rows = await self._database.fetch_all(_OF_DIGEST, repository=repository, digest=digest)
        return [(row[0], _read_tag(row[1:])) for row in rows]

    async def referred_since(self, policy: MirroringPolicy) -> set[str]:
        """Tags to whose image something refers that was pushed after it was mirrored."""
        rows = await self._database.fetch_all(_REFERRED_SINCE, repository=policy.repository, policy=policy.id)
        return {row[0] for row in rows}

    async def polled(self, repository: int, remote: str) -> dict[str, str]:
        """Tags of ours that came from a remote repository, and what they named then."""
        rows = await self._database.fetch_all(_POLLED, repository=repository, remote=remote)
        return dict(map(tuple, rows))

    async def of_tags(self, repository: int, named: Mapping[str, str]) -> dict[str, Mirroring]:
        """How those of the tags were mirrored last that name still what they named then; one query."""
        if not named:
            return {}
        rows = await self._database.fetch_all(_OF_TAGS, repository=repository, names=sorted(named))
        found: dict[str, Mirroring] = {}
        for policy, tag, target, remote, digest, direction, _ in rows:
            ours, theirs = (tag, target) if direction == "push" else (target, tag)
            if named.get(ours) == digest:
                found[ours] = Mirroring(policy, remote, theirs, digest)
        return found


# --- what the work writes down --------------------------------------------------------------------------------


async def note_tag(tx: Transaction, repository: int, policy: str, direction: Direction, tag: MirroredTag) -> bool:
    """Write down what became of a tag, now; whether that is news."""
    before = await tx.fetch_one(_FIND_TAG, repository=repository, policy=policy, tag=tag.tag)
    await tx.execute(
        _NOTE_TAG,
        repository=repository,
        policy=policy,
        direction=direction,
        tag=tag.tag,
        target_tag=tag.target_tag,
        remote=tag.remote,
        digest=tag.digest,
        status=tag.status,
        detail=tag.detail,
        mirrored_at=await _clock(tx) if tag.status == "mirrored" else None,
    )
    known = None if before is None else _read_tag(before)
    return known is None or (known.digest, known.status, known.detail) != (tag.digest, tag.status, tag.detail)


async def drop_tags(tx: Transaction, policy: MirroringPolicy, tags: Iterable[str]) -> None:
    """Forget tags of a policy, which are gone on both sides."""
    await tx.execute(_DROP_TAGS, repository=policy.repository, policy=policy.id, tags=sorted(tags))


async def note_mirrored(tx: Transaction, policy: str) -> None:
    """A policy mirrored something just now."""
    await tx.execute(_MIRRORED, which=policy)


async def note_end(
    tx: Transaction, policy: str, code: str, detail: str, *, job: str, saw_all: bool = False
) -> None:
    """
    How a policy's work in a job ended.

    `saw_all`: from now on every tag is a new one, if what was there is skipped.
    """
    await tx.execute(_ENDED, which=policy, code=code, detail=detail, job=job, still_skips=not saw_all)


async def queue(
    tx: Transaction,
    policy: MirroringPolicy,
    moment: int,
    *,
    everything: bool = False,
    any_deletions: bool = False,
) -> None:
    """Queue the work of a policy on all tags; names are made with `moment`, also when it is tried again."""
    parameters = {"moment": str(moment)}
    if everything:
        parameters["everything"] = "true"
    if any_deletions:
        parameters["anyDeletions"] = "true"
    await _submit(tx, policy.direction, policy.id, parameters)


async def _submit(tx: Transaction, direction: Direction, policy: str, parameters: dict[str, str]) -> None:
    action = PUSH if direction == "push" else POLL
    wishes = ":".join(sorted(parameters.keys() - {"moment"}))
    await submit(
        tx,
        JobRequest(
            action=action,
            parameters={"policy": policy, **parameters},
            retries=RETRIES[action],
            unique_key=f"{action}:{policy}:{wishes}",
        ),
    )


def _fields(rules: Iterable[Rule]) -> set[str]:
    """What rules ask for."""
    return {name for rule in rules for name in (_fields(rule.rules) if isinstance(rule, Group) else {rule.field})}


async def _clock(tx: Transaction) -> int:
    row = await tx.fetch_one(_NOW)
    assert row is not None
    return int(row[0])


async def _note(tx: Transaction, kind: Literal["CREATE", "UPDATE"], policy: MirroringPolicy, by: Actor) -> None:
    target = Object("remote", policy.remote, policy.remote_repository)
    await record(
        tx,
        Event(
            type=kind,
            actor=by,
            object=Object("mirroring_policy", policy.id, policy.direction, write_rules(policy.rules)),
            target=target,
            repository_id=policy.repository,
        ),
    )


def _parameters(policy: MirroringPolicy, moment: int) -> dict[str, object]:
    return {
        "remote": policy.remote,
        "remote_repository": policy.remote_repository,
        "enabled": policy.enabled,
        "rules": write_rules(policy.rules),
        "tag_template": policy.template,
        "with_referrers": policy.referrers,
        "with_deletions": policy.deletions,
        "schedule": policy.schedule,
        "next_run": policy.run_after(moment),
        "skips_present": policy.skips_present,
    }


def _read(row: Row) -> MirroringPolicy:
    (
        found,
        direction,
        repository,
        path,
        remote,
        remote_repository,
        enabled,
        rules,
        template,
        referrers,
        deletions,
        schedule,
        skips_present,
        last_mirrored_at,
        *status,
        following,
    ) = row
    return MirroringPolicy(
        id=found,
        direction=direction,
        repository=repository,
        path=path,
        remote=remote,
        remote_repository=remote_repository,
        enabled=bool(enabled),
        rules=parse_rules(json.loads(rules)),
        template=template,
        referrers=bool(referrers),
        deletions=bool(deletions),
        schedule=schedule,
        skips_present=bool(skips_present),
        last_mirrored_at=last_mirrored_at,
        status=Status(*status),
        next_run=following,
    )


def _read_tag(row: Row) -> MirroredTag:
    tag, target_tag, remote, digest, status, detail, attempted_at, mirrored_at = row
    return MirroredTag(
        tag=tag,
        target_tag=target_tag,
        remote=remote,
        digest=digest,
        status=status,
        detail=detail,
        attempted_at=attempted_at,
        mirrored_at=mirrored_at,
    )
