"""``…/tags/{tag}/promotion``: what a tag names gets a tag in another repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record
from dtr.http.api.repositories import ON_REPOSITORY, PathDep, require_writable
from dtr.http.api.rooms import RoomsDep
from dtr.oci import NameInvalid, OciError, Tag, parse_reference, parse_repository_name
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
