"""``…/promotionPolicies`` and ``…/tags/{tag}/promotion``: what a tag names gets a tag in another repository."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.paging import PageDep
from dtr.http.api.policies import (
    RULES,
    InitialEvaluation,
    RuleForm,
    RuleRecord,
    policy_page,
    read_rules,
    refused_as,
    rule_records,
)
from dtr.http.api.repositories import ON_REPOSITORY, PathDep, require_writable
from dtr.http.api.rooms import RoomsDep
from dtr.oci import NameInvalid, OciError, Tag, parse_reference, parse_repository_name
from dtr.policies import PromotionPolicy
from dtr.registry import ManifestIncomplete, ManifestUnknown, Origin, TagImmutable, TooManyManifests

if TYPE_CHECKING:
    from dtr.http.api.caller import Caller

router = APIRouter(prefix="/api/v0/repositories/{namespace}/{reponame:path}", tags=["repositories"])


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

    @classmethod
    def of(cls, policy: PromotionPolicy) -> PromotionPolicyRecord:
        """The record of a policy."""
        return cls(
            id=policy.id,
            enabled=policy.enabled,
            rules=rule_records(policy.rules),
            source_repository=policy.source_path,
            target_repository=policy.target_path,
            tag_template=policy.template,
            last_promoted_at=moment(policy.last_promoted_at),
        )


class PromotionPolicyForm(Form):
    """A promotion policy as it is to be."""

    enabled: bool = True
    rules: list[RuleForm] = Field(default_factory=list, description=f"{RULES} Without any, every tag is meant.")
    target_repository: str = Field(description="`namespace/name`.")
    tag_template: str = Field("%n", description=_TEMPLATE)


class PromotionPolicyChanges(Form):
    """What is to be different; what is missing or null stays."""

    enabled: bool | None = None
    rules: list[RuleForm] | None = Field(None, description=RULES)
    target_repository: str | None = Field(None, description="`namespace/name`.")
    tag_template: str | None = Field(None, description=_TEMPLATE)


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
    return [PromotionPolicyRecord.of(one) for one in found]


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
        policy = PromotionPolicy(
            id="",
            source=source,
            source_path=path,
            target=target,
            target_path=form.target_repository,
            enabled=form.enabled,
            rules=read_rules(form.rules),
            template=form.tag_template,
        )
        made = await rooms.promotions.create(policy, evaluate=initial_evaluation, by=caller.actor)
    return PromotionPolicyRecord.of(made)


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
    return PromotionPolicyRecord.of(await rooms.promotions.get(repository, promotionpolicyid))


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
