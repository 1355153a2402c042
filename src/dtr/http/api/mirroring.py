"""
``…/mirroringPolicies``, ``…/pushMirroringPolicies``, ``…/pollMirroringPolicies``, ``…/tags/{tag}/pushMirroring``.

A policy has a remote of its own, given with it as DTR took it, or one that others share (`remoteID`). Credentials
are never answered. They are for the repository that they were given for: whoever has them sent elsewhere gives
them again.
"""

from __future__ import annotations

import asyncio
import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Query, Response
from msgspec.structs import replace
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, RemoteRepositoryName, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.policies import (
    RULES,
    Explain,
    InitialEvaluation,
    JudgedRecord,
    Newest,
    RuleForm,
    RuleRecord,
    judged_fields,
    page_of_tags,
    policy_page,
    read_rules,
    refused_as,
    rule_records,
)
from dtr.http.api.remotes import (
    AuthToken,
    ExplainCheck,
    Password,
    RemoteCA,
    RemoteCheckRecord,
    RemoteHost,
    SkipVerification,
    check_remote,
    remote_refusal,
    require_usable,
)
from dtr.http.api.repositories import ON_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.jobs import CronUnknown
from dtr.mirrors import POLL, STATUS_CODES, MirroringPolicy, MirroringPolicyUnknown
from dtr.oci import OciError, Tag, parse_reference
from dtr.policies import Answer, decide, found_in
from dtr.registry import ManifestUnknown
from dtr.remotes import Definition, RemoteError, add, replace_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dtr.db import Transaction
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms
    from dtr.mirrors import Direction, MirroredTag, Mirroring
    from dtr.mirrors.policies import PutRemote
    from dtr.policies.rules import TagFacts
    from dtr.registry.images import TagRecord
    from dtr.remotes import Prepared, Remote

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}", tags=["repositories"])

_TEMPLATE = (
    "The name of the tag at the other side. `%n` is that of the tag; the time, in UTC, is written with"
    " `%A %a %w %d %B %b %m %Y %y %H %I %p %M %S %f %Z %j %W`, as strftime does."
)
_LIST_SECONDS, _LIST_PATIENCE, _MOST_TAGS = 60.0, 5.0, 10_000
_CODES = "; ".join(f"`{code}`: {text}" for code, text in STATUS_CODES.items())
_ON_REMOTE = ("INVALID_REMOTE", "NO_SUCH_REMOTE", "REMOTE_REGISTRY_INVALID_PERMISSIONS", "REMOTE_REGISTRY_FAILED")
_INVALID = {"push": "INVALID_PUSH_MIRRORING_POLICY", "poll": "INVALID_POLL_MIRRORING_POLICY"}
_UNKNOWN = {"push": "NO_SUCH_PUSH_MIRRORING_POLICY", "poll": "NO_SUCH_POLL_MIRRORING_POLICY"}

_RemoteID = Annotated[
    str, Field(alias="remoteID", description="A stored remote that several share, instead of the fields of one.")
]
_Username = Annotated[
    str, Field(description="As whom the remote is asked; empty, and without a token: as nobody.")
]
_Rules = Annotated[
    list[RuleForm],
    Field(description=f"{RULES} Those of a poll ask for `tag` alone. Without any, every tag is meant."),
]
_Template = Annotated[str, Field(description=_TEMPLATE)]
_Referrers = Annotated[
    bool, Field(description="With what refers to the image: signatures, attestations and other artifacts.")
]
_Deletions = Annotated[
    bool,
    Field(
        description="Delete at the target what was deleted at the source; but if more than a quarter of the tags"
        " are gone at once, only by a run that is told so."
    ),
]
_Schedule = Annotated[
    str,
    Field(
        description="When it works beside pushes, as crons have it, once a minute at most; empty: with the action"
        " `poll_mirror`, every half an hour."
    ),
]


class MirroringStatusRecord(Record):
    """How the work of a policy ended last."""

    code: str = Field(description=f"Empty: it has not worked yet. {_CODES}.")
    detail: str = Field(description="What it did, or what went wrong; may be empty.")
    timestamp: dt.datetime = Field(description="The year 1: never.")
    job: str = Field(description="Id of the job that did it, as far as jobs are kept.")


class MirroredTagsRecord(Record):
    """Numbers of tags that a policy knows."""

    mirrored: int = Field(0, description="They are at the target.")
    failed: int = Field(0, description="They are tried again.")
    waiting: int = Field(0, description="For a scan or a signature.")
    skipped: int = Field(0, description="They were there before the policy.")


class MirroringPolicyRecord(Record):
    """A mirroring policy."""

    id: str
    mirroring_type: Literal["push", "poll"] = Field(description="`push`: to the remote; `poll`: from there.")
    enabled: bool
    local_repository: str = Field(description="The repository here.")
    remote_id: _RemoteID
    remote_host: RemoteHost
    remote_repository: RemoteRepositoryName
    username: _Username
    remote_ca: RemoteCA
    skip_tls_verification: SkipVerification
    rules: list[RuleRecord] = Field(description=RULES)
    tag_template: _Template
    with_referrers: _Referrers
    with_deletions: _Deletions
    schedule: _Schedule
    last_mirrored_at: dt.datetime = Field(description="When a tag was mirrored; the year 1: never.")
    last_status: MirroringStatusRecord
    tags: MirroredTagsRecord = Field(description="What became of tags, as far as it knows them.")
    next_run: dt.datetime = Field(
        description="When it works next, beside pushes; the year 1: that is not planned."
    )

    @classmethod
    def of(
        cls, policy: MirroringPolicy, remote: Definition, tags: Mapping[str, int], common_run: int | None
    ) -> MirroringPolicyRecord:
        """
        The record of a policy and its remote, with numbers of its tags by status.

        `common_run` is when those work that have no schedule of their own, milliseconds since 1970 UTC.
        """
        return cls(
            id=policy.id,
            mirroring_type=policy.direction,
            enabled=policy.enabled,
            local_repository=policy.path,
            remote_id="" if remote.name is None else remote.id,
            remote_host=remote.host,
            remote_repository=policy.remote_repository,
            username=remote.username,
            remote_ca=remote.ca,
            skip_tls_verification=remote.skip_tls_verification,
            rules=rule_records(policy.rules),
            tag_template=policy.template,
            with_referrers=policy.referrers,
            with_deletions=policy.deletions,
            schedule=policy.schedule,
            last_mirrored_at=moment(policy.last_mirrored_at),
            last_status=MirroringStatusRecord(
                code=policy.status.code,
                detail=policy.status.detail,
                timestamp=moment(policy.status.moment),
                job=policy.status.job,
            ),
            tags=MirroredTagsRecord(**tags),
            next_run=moment(policy.next_run if policy.schedule else common_run),
        )


class _RemoteFields(Form):
    """Another registry: a stored one, or its host and as whom it is asked."""

    remote_id: _RemoteID = ""
    remote_host: RemoteHost = ""
    remote_repository: RemoteRepositoryName
    username: _Username = ""
    password: Password = ""
    auth_token: AuthToken = ""
    remote_ca: RemoteCA = ""
    skip_tls_verification: SkipVerification = False


class MirroringPolicyForm(_RemoteFields):
    """A mirroring policy as it is to be."""

    enabled: bool = True
    rules: _Rules = Field(default_factory=list)
    tag_template: _Template = "%n"
    with_referrers: _Referrers = False
    with_deletions: _Deletions = False
    schedule: _Schedule = ""


class MirroringPolicyChanges(Form):
    """What is to be different; what is missing or null stays."""

    remote_id: str | None = Field(None, alias="remoteID", description="Another stored remote.")
    remote_host: str | None = Field(None, description="Another registry, with its credentials.")
    remote_repository: str | None = Field(None, description="Another repository there, with its credentials.")
    username: str | None = Field(None, description="As whom the remote is asked.")
    password: str | None = Field(None, description="Empty: there is none any more.")
    auth_token: str | None = Field(None, description="Empty: there is none any more.")
    remote_ca: str | None = Field(None, alias="remoteCA", description="In PEM; empty: what the system trusts.")
    skip_tls_verification: bool | None = Field(
        None, alias="skipTLSVerification", description="Whatever the registry shows is trusted."
    )
    enabled: bool | None = None
    rules: list[RuleForm] | None = Field(None, description=RULES)
    tag_template: str | None = Field(None, description=_TEMPLATE)
    with_referrers: bool | None = None
    with_deletions: bool | None = None
    schedule: str | None = Field(None, description="As crons have it; empty: with all others.")


class MirroringPolicyID(Form):
    """A policy that is to be deleted."""

    id: str


class MirroredTagRecord(Record):
    """What became of a tag at the source of a policy."""

    tag: str = Field(description="At the source: here for a push, there for a poll.")
    target_tag: str = Field(description="What it is called at the target.")
    remote_repository: str = Field(description="With its registry.")
    digest: str = Field(description="What the tag named when it was tried last.")
    status: Literal["mirrored", "failed", "waiting", "skipped"] = Field(
        description="`waiting`: for what a rule asks; `skipped`: it was there before the policy."
    )
    detail: str = Field(description="Why it failed, or what it waits for; else empty.")
    attempted_at: dt.datetime
    mirrored_at: dt.datetime = Field(description="The year 1: never.")

    @classmethod
    def of(cls, tag: MirroredTag) -> MirroredTagRecord:
        """The record of a tag."""
        return cls(
            tag=tag.tag,
            target_tag=tag.target_tag,
            remote_repository=tag.remote,
            digest=tag.digest,
            status=tag.status,
            detail=tag.detail,
            attempted_at=moment(tag.attempted_at),
            mirrored_at=moment(tag.mirrored_at),
        )


class MirroringRecord(Record):
    """How a tag was mirrored."""

    mirroring_policy_id: str = Field(alias="mirroringPolicyID", description="Empty: somebody did it by hand.")
    digest: str
    remote_repository: str = Field(description="With its registry.")
    remote_tag: str

    @classmethod
    def of(cls, mirroring: Mirroring) -> MirroringRecord:
        """The record of how a tag was mirrored."""
        return cls(
            mirroring_policy_id=mirroring.policy,
            digest=mirroring.digest,
            remote_repository=mirroring.remote,
            remote_tag=mirroring.remote_tag,
        )


class PushMirroringForm(_RemoteFields):
    """Where a tag is to be mirrored to."""

    remote_tag: str = Field(
        description="What it is to be called there.",
        json_schema_extra={"pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"},
    )


class JudgedMirroringRecord(JudgedRecord):
    """A tag, what the rules say of it, and what it would be called at the other side."""

    mirror: bool = Field(description="It would be mirrored.")
    target_tag: str | None = Field(description="Null: the template gives no name that a tag may have.")


class PolledTagRecord(Record):
    """A tag at the remote, and what the rules say of it."""

    name: str
    mirror: bool = Field(description="It would be mirrored.")
    target_tag: str | None = Field(description="Null: the template gives no name that a tag may have.")


# --- both directions ------------------------------------------------------------------------------------------


@router.get("/mirroringPolicies", summary="Mirroring policies of a repository", responses=errors(*ON_REPOSITORY))
async def list_repo_mirroring_policies(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[MirroringPolicyRecord]:
    """Those to other registries and from there. For whoever was granted something on it, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    return await _records(rooms, await policy_page(page, response, rooms.mirroring.list_policies, repository))


@router.delete(
    "/mirroringPolicies", status_code=204, summary="Delete mirroring policies", responses=errors(*ON_REPOSITORY)
)
async def delete_repo_mirroring_policies(
    path: PathDep, form: list[MirroringPolicyID], caller: CallerDep, rooms: RoomsDep
) -> None:
    """For administrators of the repository; those that are not there are left aside."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await rooms.mirroring.delete(repository, (one.id for one in form), by=caller.actor)


@router.get(
    "/mirroringPolicies/{mirroringpolicyid}/tags",
    summary="What became of the tags of a mirroring policy",
    responses=errors(*ON_REPOSITORY, "NO_SUCH_MIRRORING_POLICY"),
)
async def list_mirrored_tags(
    path: PathDep,
    mirroringpolicyid: str,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    status: Annotated[
        Literal["mirrored", "failed", "waiting", "skipped"] | None, Query(description="Only those.")
    ] = None,
) -> list[MirroredTagRecord]:
    """For whoever was granted something on the repository, and auditors. By the name of the tag at the source."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    policy = await rooms.mirroring.get(mirroringpolicyid, repository=repository)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.mirroring.count_tags(policy, status=status))
    found = await rooms.mirroring.list_tags(policy, status=status, start=page.start, limit=page.limit)
    return [MirroredTagRecord.of(one) for one in page.cut(response, found, lambda one: one.tag)]


@router.post(
    "/mirroringPolicies/{mirroringpolicyid}/run",
    status_code=202,
    summary="Have a mirroring policy work now",
    responses=errors(*ON_REPOSITORY, "NO_SUCH_MIRRORING_POLICY"),
)
async def run_mirroring_policy(
    path: PathDep,
    mirroringpolicyid: str,
    caller: CallerDep,
    rooms: RoomsDep,
    everything: Annotated[bool, Query(description="Also tags that are what they were when mirrored.")] = False,
    any_deletions: Annotated[
        bool, Query(alias="anyDeletions", description="However many tags are gone at the source, follow.")
    ] = False,
) -> None:
    """For administrators of the repository. A job does it; `lastStatus` says how it ended."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    policy = await rooms.mirroring.get(mirroringpolicyid, repository=repository)
    await rooms.mirroring.start(policy, everything=everything, any_deletions=any_deletions, by=caller.actor)


@router.post(
    "/mirroringPolicies/{mirroringpolicyid}/check",
    summary="Try the remote of a mirroring policy out",
    responses=errors(
        *ON_REPOSITORY,
        "NO_SUCH_MIRRORING_POLICY",
        "INVALID_REMOTE",
        "REMOTE_REGISTRY_INVALID_PERMISSIONS",
        "REMOTE_REGISTRY_FAILED",
    ),
)
async def check_mirroring_policy(
    path: PathDep, mirroringpolicyid: str, caller: CallerDep, rooms: RoomsDep, explain: ExplainCheck = False
) -> RemoteCheckRecord:
    """For administrators of the repository: with the credentials that are kept. It leaves nothing there."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    policy = await rooms.mirroring.get(mirroringpolicyid, repository=repository)
    remote = await rooms.definitions.remote(policy.remote, policy.remote_repository)
    return await check_remote(caller, rooms, remote, explain=explain)


# --- push -----------------------------------------------------------------------------------------------------


@router.get(
    "/pushMirroringPolicies", summary="Push mirroring policies of a repository", responses=errors(*ON_REPOSITORY)
)
async def list_repo_push_mirroring_policies(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[MirroringPolicyRecord]:
    """For whoever was granted something on the repository, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    found = await policy_page(page, response, rooms.mirroring.list_policies, repository, direction="push")
    return await _records(rooms, found)


@router.post(
    "/pushMirroringPolicies",
    status_code=201,
    summary="Make a push mirroring policy",
    responses=errors(*ON_REPOSITORY, *_ON_REMOTE, _INVALID["push"]),
)
async def create_repo_push_mirroring_policy(
    path: PathDep,
    form: MirroringPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> MirroringPolicyRecord:
    """For administrators of the repository, with credentials that may write there. It sees every push to come."""
    return await _create(rooms, caller, path, "push", form, evaluate=initial_evaluation)


@router.post(
    "/pushMirroringPolicies/test",
    summary="Try a push mirroring policy out",
    responses=errors(*ON_REPOSITORY, _INVALID["push"]),
)
async def try_push_mirroring_policy(
    path: PathDep,
    form: MirroringPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    explain: Explain = False,
    newest: Newest = 0,
) -> list[JudgedMirroringRecord]:
    """
    For administrators of the repository.

    The answer lists the tags that would be mirrored if they were pushed now, by name; the remote is not asked.
    """
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    with refused_as(_INVALID["push"]):
        policy = _policy(repository, path, "push", form)
        policy.check()
    now = await rooms.mirroring.now()

    async def judged() -> AsyncIterator[JudgedMirroringRecord]:
        async for tag, facts in _tags(rooms, repository, newest):
            decision = decide(policy.rules, facts, now)
            mirrors = decision.answer is Answer.YES
            if explain or mirrors:
                yield JudgedMirroringRecord(
                    **judged_fields(tag, decision, found_in(policy.rules, decision, facts)),
                    mirror=mirrors,
                    target_tag=policy.target_of(tag.name, now),
                )

    return await page_of_tags(page, response, judged(), lambda one: one.name, newest=newest)


@router.get(
    "/pushMirroringPolicies/{pushmirroringpolicyid}",
    summary="A push mirroring policy",
    responses=errors(*ON_REPOSITORY, _UNKNOWN["push"]),
)
async def get_repo_push_mirroring_policy(
    path: PathDep, pushmirroringpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> MirroringPolicyRecord:
    """For whoever was granted something on the repository, and auditors."""
    return await _get(rooms, caller, path, "push", pushmirroringpolicyid)


@router.put(
    "/pushMirroringPolicies/{pushmirroringpolicyid}",
    summary="Change a push mirroring policy",
    responses=errors(*ON_REPOSITORY, *_ON_REMOTE, _INVALID["push"], _UNKNOWN["push"]),
)
async def update_repo_push_mirroring_policy(
    path: PathDep,
    pushmirroringpolicyid: str,
    form: MirroringPolicyChanges,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> MirroringPolicyRecord:
    """For administrators of the repository, with credentials that may write there, if these are to be others."""
    return await _change(rooms, caller, path, "push", pushmirroringpolicyid, form, evaluate=initial_evaluation)


@router.delete(
    "/pushMirroringPolicies/{pushmirroringpolicyid}",
    status_code=204,
    summary="Delete a push mirroring policy",
    responses=errors(*ON_REPOSITORY),
)
async def delete_repo_push_mirroring_policy(
    path: PathDep, pushmirroringpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """For administrators of the repository; also when there is no such policy."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await rooms.mirroring.delete(repository, [pushmirroringpolicyid], direction="push", by=caller.actor)


@router.post(
    "/tags/{tag}/pushMirroring",
    status_code=201,
    summary="Mirror a tag to another registry",
    responses=errors("INVALID_TAG_NAME", *ON_REPOSITORY, "NO_SUCH_TAG", *_ON_REMOTE),
)
async def create_repo_tag_push_mirroring(
    path: PathDep, tag: str, form: PushMirroringForm, caller: CallerDep, rooms: RoomsDep
) -> MirroringRecord:
    """
    For those who were granted reading here, with credentials that may write there.

    A job does it; the record of the tag says so when it is done.
    """
    repository = await caller.require_on(path, Operation.MIRROR_TAG)
    if not _is_tag(form.remote_tag):
        raise ApiError("INVALID_TAG_NAME", form.remote_tag[:255])
    try:
        digest = (await rooms.images.get_tag(repository, tag)).manifest.digest if _is_tag(tag) else None
    except ManifestUnknown:
        digest = None
    if digest is None:
        raise ApiError("NO_SUCH_TAG", tag[:255])
    put, remote = await _new_remote(rooms, caller, repository, path, form)
    await _require_at(rooms, caller, remote, "push")
    await rooms.mirroring.push_by_hand(
        repository, tag, digest, put, form.remote_repository, form.remote_tag, by=caller.actor
    )
    return MirroringRecord(
        mirroring_policy_id="", digest=digest, remote_repository=remote.full_name, remote_tag=form.remote_tag
    )


# --- poll -----------------------------------------------------------------------------------------------------


@router.get(
    "/pollMirroringPolicies", summary="Poll mirroring policies of a repository", responses=errors(*ON_REPOSITORY)
)
async def list_repo_poll_mirroring_policies(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[MirroringPolicyRecord]:
    """For whoever was granted something on the repository, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    found = await policy_page(page, response, rooms.mirroring.list_policies, repository, direction="poll")
    return await _records(rooms, found)


@router.post(
    "/pollMirroringPolicies",
    status_code=201,
    summary="Make a poll mirroring policy",
    responses=errors(*ON_REPOSITORY, *_ON_REMOTE, _INVALID["poll"]),
)
async def create_repo_poll_mirroring_policy(
    path: PathDep,
    form: MirroringPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> MirroringPolicyRecord:
    """For administrators of the repository, with credentials that may read there."""
    return await _create(rooms, caller, path, "poll", form, evaluate=initial_evaluation)


@router.post(
    "/pollMirroringPolicies/test",
    summary="Try a poll mirroring policy out",
    responses=errors(*ON_REPOSITORY, *_ON_REMOTE, _INVALID["poll"], _UNKNOWN["poll"]),
)
async def try_poll_mirroring_policy(
    path: PathDep,
    form: MirroringPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    explain: Explain = False,
    like: Annotated[
        str,
        Query(
            description="Id of a policy whose credentials are used when the form has its remote, and none itself."
        ),
    ] = "",
) -> list[PolledTagRecord]:
    """For administrators of the repository. The answer lists the tags at the remote that would be mirrored."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    with refused_as(_INVALID["poll"]):
        policy = _policy(repository, path, "poll", form)
        policy.check()
    remote = await _kept_remote(rooms, repository, form, like) if like else None
    if remote is None:
        _, remote = await _new_remote(rooms, caller, repository, path, form)
    names = await _remote_tags(rooms, caller, remote)
    now = await rooms.mirroring.now()

    async def judged() -> AsyncIterator[PolledTagRecord]:
        for name in names:
            mirrors = policy.means(name, now)
            if explain or mirrors:
                yield PolledTagRecord(name=name, mirror=mirrors, target_tag=policy.target_of(name, now))

    return await page_of_tags(page, response, judged(), lambda one: one.name)


@router.get(
    "/pollMirroringPolicies/{pollmirroringpolicyid}",
    summary="A poll mirroring policy",
    responses=errors(*ON_REPOSITORY, _UNKNOWN["poll"]),
)
async def get_repo_poll_mirroring_policy(
    path: PathDep, pollmirroringpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> MirroringPolicyRecord:
    """For whoever was granted something on the repository, and auditors."""
    return await _get(rooms, caller, path, "poll", pollmirroringpolicyid)


@router.put(
    "/pollMirroringPolicies/{pollmirroringpolicyid}",
    summary="Change a poll mirroring policy",
    responses=errors(*ON_REPOSITORY, *_ON_REMOTE, _INVALID["poll"], _UNKNOWN["poll"]),
)
async def update_repo_poll_mirroring_policy(
    path: PathDep,
    pollmirroringpolicyid: str,
    form: MirroringPolicyChanges,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = False,
) -> MirroringPolicyRecord:
    """For administrators of the repository, with credentials that may read there, if these are to be others."""
    return await _change(rooms, caller, path, "poll", pollmirroringpolicyid, form, evaluate=initial_evaluation)


@router.delete(
    "/pollMirroringPolicies/{pollmirroringpolicyid}",
    status_code=204,
    summary="Delete a poll mirroring policy",
    responses=errors(*ON_REPOSITORY),
)
async def delete_repo_poll_mirroring_policy(
    path: PathDep, pollmirroringpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """For administrators of the repository; also when there is no such policy."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await rooms.mirroring.delete(repository, [pollmirroringpolicyid], direction="poll", by=caller.actor)


# --- what they share ------------------------------------------------------------------------------------------


async def _records(rooms: Rooms, found: list[MirroringPolicy]) -> list[MirroringPolicyRecord]:
    if not found:
        return []
    remotes = await rooms.definitions.get_many(one.remote for one in found)
    tags = await rooms.mirroring.count_by_status(found[0].repository, (one.id for one in found))
    following = await _common_run(rooms)
    return [
        MirroringPolicyRecord.of(one, remotes[one.remote], tags.get(one.id, {}), following)
        for one in found
        if one.remote in remotes
    ]


async def _record(rooms: Rooms, policy: MirroringPolicy) -> MirroringPolicyRecord:
    """The record of a policy. Raises DefinitionUnknown."""
    tags = await rooms.mirroring.count_by_status(policy.repository, [policy.id])
    remote = await rooms.definitions.get(policy.remote)
    return MirroringPolicyRecord.of(policy, remote, tags.get(policy.id, {}), await _common_run(rooms))


async def _common_run(rooms: Rooms) -> int | None:
    """When those work next that have no schedule of their own, milliseconds since 1970 UTC; None: not planned."""
    try:
        return (await rooms.crons.get(POLL)).next_run
    except CronUnknown:
        return None


async def _tags(rooms: Rooms, repository: int, newest: int) -> AsyncIterator[tuple[TagRecord, TagFacts]]:
    """All tags of a repository, by name, or so many of the newest, the newest first."""
    if newest:
        for one in await rooms.tag_reader.newest(repository, newest):
            yield one
        return
    async for one in rooms.tag_reader.read(repository):
        yield one


async def _find(rooms: Rooms, repository: int, direction: Direction, policy: str) -> MirroringPolicy:
    try:
        return await rooms.mirroring.get(policy, repository=repository, direction=direction)
    except MirroringPolicyUnknown:
        raise ApiError(_UNKNOWN[direction], policy[:255]) from None


async def _get(
    rooms: Rooms, caller: Caller, path: str, direction: Direction, policy: str
) -> MirroringPolicyRecord:
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    found = await _find(rooms, repository, direction, policy)
    return await _record(rooms, found)


async def _create(
    rooms: Rooms, caller: Caller, path: str, direction: Direction, form: MirroringPolicyForm, *, evaluate: bool
) -> MirroringPolicyRecord:
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    with refused_as(_INVALID[direction]):
        policy = _policy(repository, path, direction, form)
        policy.check()
    put, remote = await _new_remote(rooms, caller, repository, path, form)
    await _require_at(rooms, caller, remote, direction)
    with refused_as(_INVALID[direction]):
        made = await rooms.mirroring.create(policy, put, evaluate=evaluate, by=caller.actor)
    return await _record(rooms, made)


async def _change(
    rooms: Rooms,
    caller: Caller,
    path: str,
    direction: Direction,
    which: str,
    form: MirroringPolicyChanges,
    *,
    evaluate: bool,
) -> MirroringPolicyRecord:
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    present = await _find(rooms, repository, direction, which)
    with refused_as(_INVALID[direction]):
        given: dict[str, Any] = {
            "remote_repository": form.remote_repository,
            "enabled": form.enabled,
            "rules": None if form.rules is None else read_rules(form.rules),
            "template": form.tag_template,
            "referrers": form.with_referrers,
            "deletions": form.with_deletions,
            "schedule": form.schedule,
        }
        policy = replace(present, **{name: value for name, value in given.items() if value is not None})
        policy.check()
    put, remote = await _changed_remote(rooms, caller, present, policy, form)
    if remote is not None:
        await _require_at(rooms, caller, remote, direction)
    with refused_as(_INVALID[direction]):
        made = await rooms.mirroring.change(policy, put, evaluate=evaluate, by=caller.actor)
    return await _record(rooms, made)


def _policy(repository: int, path: str, direction: Direction, form: MirroringPolicyForm) -> MirroringPolicy:
    """The policy of a form, without its remote. Raises PolicyInvalid."""
    return MirroringPolicy(
        direction=direction,
        repository=repository,
        path=path,
        remote="",
        remote_repository=form.remote_repository,
        enabled=form.enabled,
        rules=read_rules(form.rules),
        template=form.tag_template,
        referrers=form.with_referrers,
        deletions=form.with_deletions,
        schedule=form.schedule,
    )


async def _new_remote(
    rooms: Rooms, caller: Caller, repository: int, path: str, form: _RemoteFields
) -> tuple[PutRemote, Remote]:
    """What stores or names the remote of a form, and the remote itself. Raises ApiError, DefinitionInvalid."""
    if form.remote_id:
        return await _shared(rooms, caller, path, form.remote_id, form.remote_repository)
    made = Definition(
        repository_id=repository,
        host=form.remote_host,
        username=form.username,
        ca=form.remote_ca,
        skip_tls_verification=form.skip_tls_verification,
    )
    prepared = await rooms.definitions.prepare(made, password=form.password, token=form.auth_token)
    remote = made.at(form.remote_repository, password=form.password, token=form.auth_token)
    return _adding(prepared), remote


async def _kept_remote(rooms: Rooms, repository: int, form: _RemoteFields, like: str) -> Remote | None:
    """The remote of a policy, with its credentials; None: the form has another one, or credentials of its own."""
    present = await _find(rooms, repository, "poll", like)
    definition = await rooms.definitions.get(present.remote)
    has = (definition.host, definition.username, definition.ca, definition.skip_tls_verification)
    wants = (form.remote_host, form.username, form.remote_ca, form.skip_tls_verification)
    is_same = form.remote_repository == present.remote_repository and (
        form.remote_id == definition.id if form.remote_id else has == wants
    )
    if not is_same or form.password or form.auth_token:
        return None
    return await rooms.definitions.remote(present.remote, present.remote_repository)


async def _changed_remote(
    rooms: Rooms, caller: Caller, present: MirroringPolicy, policy: MirroringPolicy, form: MirroringPolicyChanges
) -> tuple[PutRemote, Remote | None]:
    """What stores or names the remote that a policy is to have, and the remote itself; None: it is the same."""
    if form.remote_id:
        return await _shared(rooms, caller, policy.path, form.remote_id, policy.remote_repository)
    before = await rooms.definitions.get(present.remote)
    given: dict[str, Any] = {
        "host": form.remote_host,
        "username": form.username,
        "ca": form.remote_ca,
        "skip_tls_verification": form.skip_tls_verification,
    }
    differences = {
        name: value for name, value in given.items() if value is not None and value != getattr(before, name)
    }
    secrets = {"password": form.password, "token": form.auth_token}
    has_moved = policy.remote_repository != present.remote_repository
    if not (differences or has_moved or any(one is not None for one in secrets.values())):
        return _naming(present.remote), None
    if before.name is not None:
        if not differences and not any(one is not None for one in secrets.values()):
            return await _shared(rooms, caller, policy.path, before.id, policy.remote_repository)
        made = replace(Definition(repository_id=present.repository, host=""), **differences)
        prepared = await rooms.definitions.prepare(made, password=form.password or "", token=form.auth_token or "")
        return _adding(prepared), made.at(
            policy.remote_repository, password=form.password or "", token=form.auth_token or ""
        )
    lacks = (before.has_password and form.password is None) or (before.has_token and form.auth_token is None)
    if (differences or has_moved) and lacks:  # else whoever administers the repository sends them where he likes
        raise ApiError("INVALID_REMOTE", "for another remote, the password and the token have to be given again")
    made = replace(before, **differences)
    prepared = await rooms.definitions.prepare(made, password=form.password, token=form.auth_token)
    kept = await rooms.definitions.remote(before.id, policy.remote_repository)
    remote = made.at(
        policy.remote_repository,
        password=kept.password if form.password is None else form.password,
        token=kept.token if form.auth_token is None else form.auth_token,
    )

    async def put(tx: Transaction) -> str:
        await replace_with(tx, prepared)
        return prepared.id

    return put, remote


async def _shared(
    rooms: Rooms, caller: Caller, path: str, remote: str, repository: str
) -> tuple[PutRemote, Remote]:
    found = await require_usable(caller, rooms, remote, path)
    return _naming(found.id), await rooms.definitions.remote(found.id, repository)


def _naming(remote: str) -> PutRemote:
    async def put(_tx: Transaction) -> str:
        return remote

    return put


def _adding(prepared: Prepared) -> PutRemote:
    async def put(tx: Transaction) -> str:
        await add(tx, prepared)
        return prepared.id

    return put


async def _require_at(rooms: Rooms, caller: Caller, remote: Remote, direction: Direction) -> None:
    """Let through who may do there what the direction does. Raises ApiError, DefinitionInvalid."""
    permissions = (await check_remote(caller, rooms, remote)).permissions
    if not (permissions.write if direction == "push" else permissions.read):
        raise ApiError("REMOTE_REGISTRY_INVALID_PERMISSIONS", remote.full_name)


async def _remote_tags(rooms: Rooms, caller: Caller, remote: Remote) -> list[str]:
    """The tags at a remote, by name. Raises ApiError, DefinitionInvalid."""
    names: list[str] = []
    try:
        async with (
            asyncio.timeout(_LIST_SECONDS),
            rooms.remotes.connect(remote, patience=_LIST_PATIENCE) as there,
        ):
            async for name in there.tags():
                names.append(name)
                if len(names) == _MOST_TAGS:
                    break
    except RemoteError as error:
        raise remote_refusal(error, caller) from error
    except TimeoutError:
        raise ApiError("REMOTE_REGISTRY_FAILED", "the remote did not answer in time") from None
    return sorted(names)


def _is_tag(text: str) -> bool:
    try:
        return isinstance(parse_reference(text), Tag)
    except OciError:
        return False
