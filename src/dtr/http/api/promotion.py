"""``…/promotionPolicies`` and ``…/tags/{tag}/promotion``: what a tag names gets a tag in another repository."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated

from fastapi import Query, Response
from msgspec.structs import replace
from pydantic import Field

from dtr.accounts import Operation
from dtr.events import Filter
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.events import event_page
from dtr.http.api.models import Form, Record, moment
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
from dtr.http.api.repositories import ON_REPOSITORY, PathDep, require_writable
from dtr.http.api.rooms import RoomsDep
from dtr.oci import NameInvalid, OciError, Tag, parse_reference, parse_repository_name
from dtr.policies import PromotionPolicy, PromotionPolicyUnknown
from dtr.registry import ManifestIncomplete, ManifestUnknown, Origin, TagImmutable, TooManyManifests

if TYPE_CHECKING:
    from dtr.events import Recorded
    from dtr.http.api.caller import Caller
    from dtr.policies import JudgedPromotion

_NONE = 0
"""No repository has this id."""
_ID = "^[ -~]{0,100}$"

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}", tags=["repositories"])


class PromotionRecord(Record):
    """Where a tag was promoted from."""

    promotion_policy_id: str = Field(alias="promotionPolicyID", description="Empty: somebody did it by hand.")
    string: str = Field(description="Repository and tag in one, `namespace/name:tag`.")
    source_repository: str = Field(description="What it was called then.")
    source_tag: str = Field(description="What it was called there.")

    @classmethod
    def of(cls, origin: Origin) -> PromotionRecord:
        """The record of where a tag is from."""
        return cls(
            promotion_policy_id=origin.policy,
            string=f"{origin.repository}:{origin.tag}",
            source_repository=origin.repository,
            source_tag=origin.tag,
        )


class PromotionForm(Form):
    """Where a tag is to be promoted to."""

    target_repository: str = Field(description="`namespace/name`; it may be the same.")
    target_tag: str = Field(description="What it is to be called there.")


@router.post(
    "/tags/{tag}/promotion",
    status_code=201,
    summary="Promote a tag",
    responses=errors(
        "INVALID_TAG_NAME", *ON_REPOSITORY, "NO_SUCH_TAG", "READ_ONLY", "TAG_IMMUTABLE", "NOT_PROMOTABLE"
    ),
)
async def create_repo_tag_promotion(
    path: PathDep, tag: str, form: PromotionForm, caller: CallerDep, rooms: RoomsDep
) -> PromotionRecord:
    """
    For those who were granted reading here and writing there.

    The target gets the image, or the index with all its images, and the signatures and other artifacts that refer
    to them. It counts as a push there.
    """
    source = await caller.require_on(path, Operation.PROMOTE_FROM)
    target = await _require_on_target(caller, form.target_repository, Operation.PROMOTE_TO)
    require_writable(rooms)
    name, wanted = _tag(tag), _tag(form.target_tag)
    if wanted is None:
        raise ApiError("INVALID_TAG_NAME", form.target_tag[:255])
    if name is None:
        raise ApiError("NO_SUCH_TAG", tag[:255])
    origin = Origin(path, name)
    try:
        digest = (await rooms.images.get_tag(source, name)).manifest.digest
        await rooms.promotion.promote(source, digest, target, wanted, origin, by=caller.actor)
    except ManifestUnknown:
        raise ApiError("NO_SUCH_TAG", name) from None
    except TagImmutable as error:
        raise ApiError("TAG_IMMUTABLE", str(error)) from None
    except (ManifestIncomplete, TooManyManifests) as error:
        raise ApiError("NOT_PROMOTABLE", str(error)) from None
    return PromotionRecord.of(origin)


_TEMPLATE = (
    "The name of the tag in the target. `%n` is that of the tag in the source; the time of the push, in UTC, is"
    " written with `%A %a %w %d %B %b %m %Y %y %H %I %p %M %S %f %Z %j %W`, as strftime does."
)


class PromotionPolicyRecord(Record):
    """A promotion policy."""

    id: str
    enabled: bool
    rules: list[RuleRecord] = Field(description=RULES)
    source_repository: str = Field(description="Whose tags it promotes.")
    target_repository: str = Field(description="Where it promotes them to.")
    tag_template: str = Field(description=_TEMPLATE)
    last_promoted_at: dt.datetime = Field(description="The year 1: never.")
    last_failed_at: dt.datetime = Field(description="When a tag could not be promoted; the year 1: never.")
    last_failure: str = Field(description="Which tag that was, and why.")
    last_job: str = Field(description="Id of the job that did either last, as far as jobs are kept.")
    waiting: int = Field(description="For so many tags it waits for a scan or a signature.")

    @classmethod
    def of(cls, policy: PromotionPolicy, waiting: int = 0) -> PromotionPolicyRecord:
        """The record of a policy."""
        return cls(
            id=policy.id,
            enabled=policy.enabled,
            rules=rule_records(policy.rules),
            source_repository=policy.source_path,
            target_repository=policy.target_path,
            tag_template=policy.template,
            last_promoted_at=moment(policy.last_promoted_at),
            last_failed_at=moment(policy.last_failed_at),
            last_failure=policy.last_failure,
            last_job=policy.last_job,
            waiting=waiting,
        )


class PromotionPolicyForm(Form):
    """A promotion policy as it is to be."""

    enabled: bool = True
    rules: list[RuleForm] = Field(default_factory=list, description=f"{RULES} Without any, every tag is meant.")
    target_repository: str = Field(description="`namespace/name`.")
    tag_template: str = Field("%n", description=_TEMPLATE)


class PromotionTrial(PromotionPolicyForm):
    """A promotion policy to be tried out."""

    target_repository: str = Field(
        "", description="`namespace/name`; without one, what is there already is not looked at."
    )


class PromotionPolicyChanges(Form):
    """What is to be different; what is missing or null stays."""

    enabled: bool | None = None
    rules: list[RuleForm] | None = Field(None, description=RULES)
    target_repository: str | None = Field(None, description="`namespace/name`.")
    tag_template: str | None = Field(None, description=_TEMPLATE)


class PromotedTag(Record):
    """A tag that would be promoted."""

    name: str
    digest: str
    target_tag: str = Field(description="What it would be called in the target.")


class JudgedPromotionRecord(JudgedRecord):
    """A tag, what the rules say of it, and what would become of it."""

    promote: bool = Field(description="It would be promoted.")
    target_tag: str | None = Field(description="Null: the template gives no name that a tag may have.")
    blocked: bool = Field(description="The target has such a tag, which cannot be overwritten.")

    @classmethod
    def of(cls, judged: JudgedPromotion) -> JudgedPromotionRecord:
        """The record of a decision."""
        return cls(
            **judged_fields(judged.tag, judged.decision, judged.found),
            promote=judged.promotes,
            target_tag=judged.name,
            blocked=judged.is_blocked,
        )


class WaitingTag(Record):
    """A tag for which a policy waits."""

    name: str
    digest: str
    waits_for: str = Field(description="`scan` or `signature`.")
    since: dt.datetime = Field(description="When it began to wait.")


class PromotedRecord(Record):
    """A promotion that was done, or that failed."""

    id: str
    at: dt.datetime = Field(description="When.")
    actor: str = Field(description="Id of the account, or of the policy, that did it.")
    actor_name: str = Field(description="What it was called; empty: it was a policy.")
    promotion_policy_id: str = Field(alias="promotionPolicyID", description="Empty: somebody did it by hand.")
    tag: str = Field(description="In the source.")
    digest: str
    target: str = Field(
        description="The tag that it got, with its repository: `namespace/name:tag`; if it failed, the repository."
    )
    error: str = Field(description="Why it failed; empty: it did not.")

    @classmethod
    def of(cls, event: Recorded) -> PromotedRecord:
        """The record of an event about a promotion."""
        target = event.target
        has_failed = event.type == "FAIL"
        return cls(
            id=str(event.id),
            at=moment(event.published_at),
            actor=event.actor.id,
            actor_name="" if event.object.id else event.actor.name,
            promotion_policy_id=event.object.id,
            tag=event.object.name,
            digest=event.object.content,
            target=target.name if target else "",
            error=target.content if target and has_failed else "",
        )


@router.get(
    "/promotionPolicies",
    summary="Promotion policies of a repository",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY),
)
async def list_promotion_policies(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    source: Annotated[bool, Query(description="Those that promote from here; false: to here.")] = True,
) -> list[PromotionPolicyRecord]:
    """For whoever was granted something on the repository, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    found = await policy_page(page, response, rooms.promotions.list_policies, repository, as_target=not source)
    waiting = await rooms.promotions.pushes.count_waiting(one.id for one in found)
    return [PromotionPolicyRecord.of(one, waiting.get(one.id, 0)) for one in found]


@router.post(
    "/promotionPolicies",
    status_code=201,
    summary="Make a promotion policy",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY, "INVALID_PROMOTION_POLICY"),
)
async def create_promotion_policy(
    path: PathDep,
    form: PromotionPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> PromotionPolicyRecord:
    """For administrators of both repositories. From then on it sees every push of a tag to this one."""
    source = await caller.require_on(path, Operation.EDIT_POLICIES)
    target = await _require_on_target(caller, form.target_repository, Operation.EDIT_POLICIES)
    with refused_as("INVALID_PROMOTION_POLICY"):
        policy = _policy(source, path, target, form)
        made = await rooms.promotions.create(policy, evaluate=initial_evaluation, by=caller.actor)
    return PromotionPolicyRecord.of(made)


@router.post(
    "/promotionPolicies/test",
    summary="Try a promotion policy out",
    response_model=list[PromotedTag] | list[JudgedPromotionRecord],
    responses=errors(*ON_REPOSITORY, "INVALID_PROMOTION_POLICY"),
)
async def try_promotion_policy(
    path: PathDep,
    form: PromotionTrial,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    explain: Explain = False,
    newest: Newest = 0,
) -> list[PromotedTag] | list[JudgedPromotionRecord]:
    """
    For administrators of both repositories, of which the target may be missing.

    The answer lists the tags that would be promoted if they were pushed now, by name; none is.
    """
    source = await caller.require_on(path, Operation.EDIT_POLICIES)
    target = _NONE
    if form.target_repository:
        target = await _require_on_target(caller, form.target_repository, Operation.EDIT_POLICIES)
    with refused_as("INVALID_PROMOTION_POLICY"):
        policy = _policy(source, path, target, form)
        policy.check()
    judged = (one async for one in rooms.promotions.judge(policy, newest=newest) if explain or one.promotes)
    shown = await page_of_tags(page, response, judged, lambda one: one.tag.name, newest=newest)
    if explain:
        return [JudgedPromotionRecord.of(one) for one in shown]
    return [
        PromotedTag(name=one.tag.name, digest=one.tag.manifest.digest, target_tag=one.name or "") for one in shown
    ]


@router.get("/promotions", summary="What was promoted from a repository", responses=errors(*ON_REPOSITORY))
async def list_promotions(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    policy: Annotated[str, Query(pattern=_ID, description="Only what the policy with this id did.")] = "",
) -> list[PromotedRecord]:
    """
    For administrators of the repository, and auditors: also what failed, newest first, as far as events are kept.

    The page starts with an id.
    """
    repository = await caller.require_on(path, Operation.SEE_ALL_EVENTS)
    wanted = Filter(repository_id=repository, object_type="promotion", actor=policy or None)
    return [PromotedRecord.of(one) for one in await event_page(rooms, wanted, page, response)]


@router.get(
    "/promotionPolicies/{promotionpolicyid}/waiting",
    summary="The tags for which a promotion policy waits",
    responses=errors(*ON_REPOSITORY, "NO_SUCH_PROMOTION_POLICY"),
)
async def list_waiting_tags(
    path: PathDep, promotionpolicyid: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[WaitingTag]:
    """For administrators of its source, which the path names, and auditors. By name."""
    repository = await caller.require_on(path, Operation.SEE_ALL_EVENTS)
    policy = await rooms.promotions.get(repository, promotionpolicyid)
    if policy.source != repository:
        raise PromotionPolicyUnknown(promotionpolicyid)
    pushes = rooms.promotions.pushes
    if page.wants_count:
        response.headers[COUNT] = str((await pushes.count_waiting([policy.id])).get(policy.id, 0))
    found = await pushes.list_waiting(policy.id, start=page.start, limit=page.limit)
    return [
        WaitingTag(name=one.tag, digest=one.digest, waits_for=one.waits_for, since=moment(one.since))
        for one in page.cut(response, found, lambda one: one.tag)
    ]


@router.get(
    "/promotionPolicies/{promotionpolicyid}",
    summary="A promotion policy",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY, "NO_SUCH_PROMOTION_POLICY"),
)
async def get_promotion_policy(
    path: PathDep, promotionpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> PromotionPolicyRecord:
    """For whoever was granted something on its source or its target, which the path names, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    policy = await rooms.promotions.get(repository, promotionpolicyid)
    waiting = await rooms.promotions.pushes.count_waiting([policy.id])
    return PromotionPolicyRecord.of(policy, waiting.get(policy.id, 0))


@router.put(
    "/promotionPolicies/{promotionpolicyid}",
    summary="Change a promotion policy",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY, "INVALID_PROMOTION_POLICY", "NO_SUCH_PROMOTION_POLICY"),
)
async def update_promotion_policy(
    path: PathDep,
    promotionpolicyid: str,
    form: PromotionPolicyChanges,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> PromotionPolicyRecord:
    """For administrators of its source, of its target, and of the target that it is to have."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    present = await rooms.promotions.get(repository, promotionpolicyid)
    for other in {present.source_path, present.target_path} - {path}:
        await caller.require_on(other, Operation.EDIT_POLICIES)
    target, target_path = present.target, present.target_path
    if form.target_repository is not None:
        target_path = form.target_repository
        target = await _require_on_target(caller, target_path, Operation.EDIT_POLICIES)
    with refused_as("INVALID_PROMOTION_POLICY"):
        policy = replace(
            present,
            target=target,
            target_path=target_path,
            enabled=present.enabled if form.enabled is None else form.enabled,
            rules=present.rules if form.rules is None else read_rules(form.rules),
            template=present.template if form.tag_template is None else form.tag_template,
        )
        await rooms.promotions.change(policy, evaluate=initial_evaluation, by=caller.actor)
    return PromotionPolicyRecord.of(policy)


@router.delete(
    "/promotionPolicies/{promotionpolicyid}",
    status_code=204,
    summary="Delete a promotion policy",
    responses=errors(*ON_REPOSITORY),
)
async def delete_promotion_policy(
    path: PathDep, promotionpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """For administrators of its source or its target, which the path names; also when there is no such policy."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await rooms.promotions.delete(repository, promotionpolicyid, by=caller.actor)


def _policy(source: int, path: str, target: int, form: PromotionPolicyForm) -> PromotionPolicy:
    """The policy of a form, without an id. Raises PolicyInvalid."""
    return PromotionPolicy(
        id="",
        source=source,
        source_path=path,
        target=target,
        target_path=form.target_repository,
        enabled=form.enabled,
        rules=read_rules(form.rules),
        template=form.tag_template,
    )


async def _require_on_target(caller: Caller, path: str, operation: Operation) -> int:
    """Let through who may do it on the repository that a form names; its id. Raises ApiError."""
    try:
        return await caller.require_on(parse_repository_name(path), operation)
    except NameInvalid:
        raise ApiError("NO_SUCH_REPOSITORY", path[:255]) from None


def _tag(text: str) -> Tag | None:
    """The tag of this name; None: no tag may be called so."""
    try:
        found = parse_reference(text)
    except OciError:
        return None
    return found if isinstance(found, Tag) else None
