"""``/api/v0/repositories/{namespace}/{reponame}/tags``: tags, and what they name."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from itertools import islice, product
from typing import TYPE_CHECKING, Annotated

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Operation, may
from dtr.events import ActorType  # noqa: TC001 - records need it
from dtr.http.api.caller import CallerDep
from dtr.http.api.enforcement import EnforcementObjection
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.events import start_of
from dtr.http.api.manifests import MOST_RECORDS, ManifestView, which_tell_lines
from dtr.http.api.mirroring import MirroringRecord
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, NEXT, PageDep
from dtr.http.api.promotion import PromotionRecord
from dtr.http.api.repositories import (
    FROM_REPOSITORY,
    ON_REPOSITORY,
    DomainDep,
    PathDep,
    TakesDomain,
    require_writable,
)
from dtr.http.api.rooms import RoomsDep
from dtr.http.api.signatures import SignaturesOfTag
from dtr.oci import Digest, OciError, Tag, parse_reference
from dtr.policies.tag_search import UNPULLED_DAYS, FoundTag, Order, TagFilter, Trait
from dtr.registry import ManifestUnknown
from dtr.trust.index import is_signed_as

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtr.enforcement import JudgedTag
    from dtr.events.tag_history import TagChange
    from dtr.http.api.paging import Page
    from dtr.http.api.rooms import Rooms
    from dtr.oci import Reference
    from dtr.policies.tag_search import Aliases
    from dtr.registry.images import ManifestRecord, TagRecord
    from dtr.signatures import Summary
    from dtr.trust.index import TargetSignature

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/tags", tags=["repositories"])
counts_router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/tagCounts", tags=["repositories"])

_MOST_ALIASES = 20
_BATCH, _MOST_BATCHES = 500, 10
"""Tags of which policies are asked at once, and how often for a page of those whose pulls are refused."""
_TRAITS = (
    "`signed`: in content trust for what it names, or by an identity. `unverified`: only by others."
    " `mismatched`: in content trust for something else. `unsigned`: by nobody. `multiPlatform`: for several"
    f" systems. `unpulled`: not for {UNPULLED_DAYS} days, and as old."
)
_Text = Annotated[
    str,
    Query(
        max_length=1024,
        description="A part of the tag, whatever its case; or how a digest begins, of what it names or of an image"
        " in that.",
    ),
]
_Attached = Annotated[
    bool, Query(description="Also tags that only hold what is attached to an image: `sha256-….sig`.")
]


class TrustSignature(Record):
    """That a role of a collection of content trust signs something under the name of a tag."""

    gun: str = Field(description="The collection: an address of the registry, and the repository's name there.")
    role: str = Field(description="`targets`, `targets/releases`, or that of one who signs: `targets/NAME`.")
    signer: str = Field(description="The name in the role; empty: it is no single one's.")
    digest: str
    signed_at: dt.datetime = Field(description="Since when the role signs this digest under this name.")

    @classmethod
    def of(cls, signature: TargetSignature) -> TrustSignature:
        """The record of a signature."""
        return cls(
            gun=signature.gun,
            role=signature.role,
            signer=signature.signer,
            digest=signature.digest,
            signed_at=moment(signature.signed_at),
        )


class TagView(Record):
    """A tag, and the manifest that it names, or one of those in the index that it names."""

    name: str
    digest: str = Field(description="What the tag names: an image, an index or another artifact.")
    author: str = Field(description="Name of the account that pushed it last; empty: not known.")
    created_at: dt.datetime = Field(description="When the tag came to be.")
    updated_at: dt.datetime = Field(description="When it was made to name what it names now.")
    in_notary: bool = Field(description="Content trust has a tag of this name. So it cannot be deleted.")
    hash_mismatch: bool = Field(description="Content trust has it for something else than it names here.")
    trust: list[TrustSignature] | None = Field(
        None, description="Who signed what under this name in content trust. Missing: nobody."
    )
    signatures: SignaturesOfTag | None = Field(
        None, description="Of what it names, as artifacts: cosign's and Notation's. Missing: there are none."
    )
    refused: list[EnforcementObjection] | None = Field(
        None,
        description="What policies miss, because of which pulls of it are refused to all whom they do not except."
        " Missing: they are not.",
    )
    pulls: int = Field(description="How often it was pulled by this name.")
    last_pulled_at: dt.datetime = Field(description="By this name; the year 1: never.")
    manifest: ManifestView
    aliases: list[str] | None = Field(
        None,
        description="Other tags that name the same, up to 20, the highest version first. Missing: not asked for.",
    )
    alias_count: int | None = Field(None, description="How many there are of them. Missing: not asked for.")
    promotion: PromotionRecord | None = Field(
        None, description="Missing: it was pushed, or the caller sees no more here than everybody."
    )
    mirroring: MirroringRecord | None = Field(
        None,
        description="How what it names was mirrored last, from or to another registry. Missing: it was not, or the"
        " caller sees no more here than everybody.",
    )

    @classmethod
    def of(
        cls,
        tag: TagRecord,
        manifest: ManifestRecord | None = None,
        *,
        dockerfile: bool = True,
        signatures: Sequence[TargetSignature] = (),
        artifacts: Summary | None = None,
        aliases: Aliases | None = None,
        origin: bool,
        mirroring: MirroringRecord | None,
        judged: JudgedTag | None = None,
    ) -> TagView:
        """
        The record of a tag, with `manifest` of the index that it names.

        `signatures` are those of its name in content trust, `artifacts` those of what it names; `aliases` are all
        tags that name the same, this one among them.
        `origin` says whether the caller may know where it comes from; `mirroring` of whoever may. `judged` is what
        policies say of a pull.
        """
        return cls(
            name=tag.name,
            digest=tag.manifest.digest,
            author=tag.author,
            created_at=moment(tag.created_at),
            updated_at=moment(tag.updated_at),
            in_notary=bool(signatures),
            hash_mismatch=bool(signatures) and not is_signed_as(signatures, tag.manifest.digest),
            trust=[TrustSignature.of(one) for one in signatures] or None,
            signatures=SignaturesOfTag.of(artifacts) if artifacts else None,
            pulls=tag.pulls,
            last_pulled_at=moment(tag.last_pulled_at),
            manifest=ManifestView.of(manifest or tag.manifest, dockerfile=dockerfile),
            aliases=[one for one in aliases.names if one != tag.name][:_MOST_ALIASES] if aliases else None,
            alias_count=aliases.total - 1 if aliases else None,
            promotion=PromotionRecord.of(tag.origin) if tag.origin and origin else None,
            mirroring=mirroring,
            refused=_objections(judged) or None if judged else None,
        )


def _objections(judged: JudgedTag) -> list[EnforcementObjection]:
    """Those because of which a pull is refused."""
    return [EnforcementObjection.of(one) for one in judged.verdict.objections if one.policy.mode == "enforce"]


class TagCountsRecord(Record):
    """How many tags are what."""

    total: int = Field(description="Those that `q` and `attached` leave.")
    signed: int = Field(description="In content trust for what they name, or signed by an identity.")
    unverified: int = Field(description="Signed only by others.")
    mismatched: int = Field(description="In content trust for something else.")
    unsigned: int = Field(description="Signed by nobody.")
    multi_platform: int = Field(description="For several systems.")
    unpulled: int = Field(description=f"Not pulled for {UNPULLED_DAYS} days, and as old.")
    attached: int = Field(
        description="Those that only hold what is attached to an image, whether they were asked for or not."
    )


class TagChangeRecord(Record):
    """Something that happened to a tag."""

    id: str
    at: dt.datetime = Field(description="When.")
    digest: str = Field(description="What it named from then on; empty: it was deleted.")
    before: str = Field(description="What it named until then; empty: it was new.")
    is_here: bool = Field(description="The repository holds what it named from then on.")
    actor: str = Field(description="Id of the account, or of the policy, that did it; empty where there is none.")
    actor_name: str = Field(description="What it was called.")
    actor_type: ActorType

    @classmethod
    def of(cls, change: TagChange, *, is_here: bool) -> TagChangeRecord:
        """The record of a change."""
        return cls(
            id=str(change.id),
            at=moment(change.at),
            digest=change.digest,
            before=change.before,
            is_here=is_here,
            actor=change.actor.id,
            actor_name=change.actor.name,
            actor_type=change.actor.type,
        )


class TagNames(Form):
    """Which tags are meant."""

    tags: list[str] = Field(min_length=1, max_length=1000)


class DeletedTag(Record):
    """What became of a tag."""

    name: str
    deleted: bool = Field(description="False: there was no such tag, or it is signed.")
    in_notary: bool = Field(description="It stays: it is signed in content trust.")


@router.get(
    "",
    summary="Tags of a repository",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY),
)
async def list_repo_tags(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    domain: DomainDep = "",
    include_manifests: Annotated[
        bool, Query(alias="includeManifests", description="Say of each manifest how it was built, too.")
    ] = False,
    q: _Text = "",
    show: Annotated[list[Trait] | None, Query(description=f"Only tags that are all of this. {_TRAITS}")] = None,
    sort: Annotated[
        Order,
        Query(
            description="`name`: in the order of their bytes. `newest`: first those that were moved last."
            " `version`: highest first. `size`: largest first. `pulled`: first those that were pulled last."
        ),
    ] = "name",
    attached: _Attached = True,
    with_aliases: Annotated[
        bool, Query(alias="withAliases", description="Say of each which other tags name the same.")
    ] = False,
    refused: Annotated[
        bool,
        Query(
            description="Only tags of which policies refuse pulls now. They are looked for one by one, so they are"
            " not counted, and a page may have few or none while there are more."
        ),
    ] = False,
) -> list[TagView]:
    """A tag of an index is one record here. The page starts with a name, or in other orders with what it says."""
    repository, facts = await caller.stand_on(path, Operation.SEE_TAGS)
    page = page.at_most(MOST_RECORDS)
    wanted = TagFilter(text=q, traits=frozenset(show or ()), attached=attached)
    if page.wants_count and not refused:
        response.headers[COUNT] = str(await rooms.tag_search.total(repository, wanted))
    if refused:
        names = await _find_refused(rooms, repository, wanted, sort, page, response)
        shown = await rooms.images.list_named(repository, names)
    elif sort == "name" and wanted == TagFilter(attached=True):
        tags = await rooms.images.list_tags(repository, start=page.start, limit=page.limit)
        shown = page.cut(response, tags, lambda one: one.name)
    else:
        found = await _find_tags(rooms, repository, wanted, sort, page.start, page.limit)
        names = [one.name for one in page.cut(response, found, lambda one: one.place)]
        shown = await rooms.images.list_named(repository, names)
    aliases: dict[str, Aliases] = {}
    if with_aliases:
        named = {one.manifest.digest for one in shown}
        aliases = await rooms.tag_search.aliases(repository, named, most=_MOST_ALIASES + 1)
    origin = may(facts, Operation.LIST_POLICIES)
    mirrored = await _mirrored(rooms, repository, shown) if origin else {}
    signed = await _signatures(rooms, repository, shown, domain)
    artifacts = await rooms.signatures.summaries(repository, (one.manifest.digest for one in shown))
    judged = await rooms.enforcement.judge(repository, (one.name for one in shown))
    return [
        TagView.of(
            one,
            judged=judged.get(one.name),
            dockerfile=include_manifests and tells,
            signatures=signed.get(one.name, ()),
            artifacts=artifacts.get(one.manifest.digest),
            aliases=aliases.get(one.manifest.digest),
            origin=origin,
            mirroring=mirrored.get(one.name),
        )
        for one, tells in zip(shown, which_tell_lines(one.manifest for one in shown), strict=True)
    ]


async def _find_tags(
    rooms: Rooms, repository: int, wanted: TagFilter, sort: Order, start: str, limit: int
) -> list[FoundTag]:
    """Raises ApiError: there is no such place to start with."""
    try:
        return await rooms.tag_search.find(repository, wanted, sort, start=start, limit=limit)
    except ValueError as error:
        raise ApiError("INVALID_PARAMETERS", [{"field": "pageStart", "message": str(error)}]) from None


async def _find_refused(
    rooms: Rooms, repository: int, wanted: TagFilter, sort: Order, page: Page, response: Response
) -> list[str]:
    """The names of a page's tags, of those whose pulls policies refuse; the header says where the next begins."""
    names: list[str] = []
    start, most = page.start, page.limit - 1
    for _ in range(_MOST_BATCHES):
        found = await _find_tags(rooms, repository, wanted, sort, start, _BATCH + 1)
        judged = await rooms.enforcement.judge(repository, (one.name for one in found[:_BATCH]))
        if not judged:  # nothing is asked of pulls here
            return names
        for one in found[:_BATCH]:
            if one.name in judged and judged[one.name].verdict.refuses:
                if len(names) == most:
                    response.headers[NEXT] = one.place
                    return names
                names.append(one.name)
        if len(found) <= _BATCH:
            return names
        start = found[_BATCH].place
    response.headers[NEXT] = start
    return names


@counts_router.get("", summary="How many tags are what", responses=errors(*FROM_REPOSITORY))
async def get_repo_tag_counts(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, q: _Text = "", attached: _Attached = True
) -> TagCountsRecord:
    """For those who may list them."""
    repository = await caller.require_on(path, Operation.SEE_TAGS)
    counts = await rooms.tag_search.count(repository, TagFilter(text=q, attached=attached))
    traits = counts.traits
    return TagCountsRecord(
        total=counts.total,
        signed=traits["signed"],
        unverified=traits["unverified"],
        mismatched=traits["mismatched"],
        unsigned=traits["unsigned"],
        multi_platform=traits["multiPlatform"],
        unpulled=traits["unpulled"],
        attached=counts.attached,
    )


@router.get(
    "/{tag}/history",
    summary="What a tag named",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY, "NO_SUCH_TAG"),
)
async def list_tag_history(
    path: PathDep, tag: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[TagChangeRecord]:
    """
    The newest change first, as far back as events are kept; the page starts with an id.

    For those who see the events of the repository. Also of a tag that was deleted: it may have been there before.
    """
    repository = await caller.require_on(path, Operation.SEE_EVENTS)
    if not is_tag(tag):
        raise ApiError("NO_SUCH_TAG", tag[:255])
    page = page.at_most(MOST_RECORDS)
    found = await rooms.tag_history.list_changes(repository, tag, start=start_of(page), limit=page.limit)
    shown = page.cut(response, found, lambda one: str(one.id))
    here = await rooms.images.find_many(repository, (one.digest for one in shown if one.digest))
    return [TagChangeRecord.of(one, is_here=one.digest in here) for one in shown]


@router.get(
    "/{reference}",
    summary="A tag, with all its manifests",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY, "NO_SUCH_REF"),
)
async def list_repo_tag(
    path: PathDep,
    reference: str,
    caller: CallerDep,
    rooms: RoomsDep,
    domain: DomainDep = "",
    os: Annotated[str | None, Query(description="Only what is for this operating system.")] = None,
    arch: Annotated[str | None, Query(description="Only what is for this architecture.")] = None,
) -> list[TagView]:
    """One record for an image, one for each manifest of an index; with a digest, of every tag that names it."""
    repository, facts = await caller.stand_on(path, Operation.SEE_TAGS)
    named = _reference(reference)
    images = rooms.images
    if isinstance(named, Digest):
        tags = await images.list_tags_of(repository, named)
    else:
        tags = [await images.get_tag(repository, named)]
    if not tags:
        return []
    manifest = tags[0].manifest  # the same for all
    parts = await images.list_children(repository, manifest) if manifest.is_index else [manifest]
    origin = may(facts, Operation.LIST_POLICIES)
    mirrored = await _mirrored(rooms, repository, tags) if origin else {}
    signed = await _signatures(rooms, repository, tags, domain)
    artifacts = await rooms.signatures.summaries(repository, [manifest.digest])
    judged = await rooms.enforcement.judge(repository, (tag.name for tag in tags))
    wanted = [one for one in parts if os in {None, one.config.os} and arch in {None, one.config.architecture}]
    pairs = list(islice(product(tags, wanted), MOST_RECORDS))
    return [
        TagView.of(
            tag,
            part,
            judged=judged.get(tag.name),
            dockerfile=tells,
            signatures=signed.get(tag.name, ()),
            artifacts=artifacts.get(manifest.digest),
            origin=origin,
            mirroring=mirrored.get(tag.name),
        )
        for (tag, part), tells in zip(pairs, which_tell_lines(part for _, part in pairs), strict=True)
    ]


@router.delete(
    "/{tag}",
    summary="Delete a tag",
    status_code=204,
    dependencies=[TakesDomain],
    responses=errors(*ON_REPOSITORY, "NO_SUCH_TAG", "TAG_IN_NOTARY", "READ_ONLY"),
)
async def delete_repo_tag(path: PathDep, tag: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For those who may push. What it named stays until nothing names it any more, and a while after that.

    One that is signed in content trust stays until its signers remove it there, or an administrator of the
    repository has its signatures forgotten.
    """
    repository = await caller.require_on(path, Operation.DELETE_TAG)
    require_writable(rooms)
    if not is_tag(tag):
        raise ApiError("NO_SUCH_TAG", tag[:255])
    try:
        await rooms.manifests.delete_tag(repository, tag, by=caller.actor)
    except ManifestUnknown:
        raise ApiError("NO_SUCH_TAG", tag[:255]) from None


@router.post("/delete", summary="Delete many tags", responses=errors(*ON_REPOSITORY, "READ_ONLY"))
async def delete_repo_tags(path: PathDep, form: TagNames, caller: CallerDep, rooms: RoomsDep) -> list[DeletedTag]:
    """
    For those who may push. All together or, when something fails, none; the answer tells of each.

    Those that are signed in content trust stay.
    """
    repository = await caller.require_on(path, Operation.DELETE_TAG)
    require_writable(rooms)
    wanted = dict.fromkeys(form.tags)
    done = await rooms.manifests.delete_tags(repository, filter(is_tag, wanted), by=caller.actor)
    return [DeletedTag(name=name, deleted=name in done.gone, in_notary=name in done.signed) for name in wanted]


# The path of the operation above is also that of a tag, when one is called `delete`.


@router.get("/delete", include_in_schema=False)
async def list_tag_delete(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    domain: DomainDep = "",
    os: str | None = None,
    arch: str | None = None,
) -> list[TagView]:
    """The tag of this name."""
    return await list_repo_tag(path, "delete", caller, rooms, domain, os, arch)


@router.delete("/delete", include_in_schema=False, status_code=204)
async def delete_tag_delete(path: PathDep, caller: CallerDep, rooms: RoomsDep) -> None:
    """Delete the tag of this name."""
    await delete_repo_tag(path, "delete", caller, rooms)


async def _mirrored(rooms: Rooms, repository: int, tags: Sequence[TagRecord]) -> dict[str, MirroringRecord]:
    """How tags were mirrored, by name; one query."""
    found = await rooms.mirroring.of_tags(repository, {one.name: one.manifest.digest for one in tags})
    return {name: MirroringRecord.of(one) for name, one in found.items()}


async def _signatures(
    rooms: Rooms, repository: int, tags: Sequence[TagRecord], domain: str
) -> dict[str, list[TargetSignature]]:
    """Who signed tags in content trust, by name; one query. With `domain` only what is signed for that address."""
    found = await rooms.signed.signatures(repository, (one.name for one in tags))
    if not domain:
        return found
    return {name: [one for one in given if one.host == domain] for name, given in found.items()}


def _reference(text: str) -> Reference:
    try:
        return parse_reference(text)
    except OciError:
        raise ApiError("NO_SUCH_REF", text[:255]) from None


def is_tag(text: str) -> bool:
    """Whether a tag may be called so; nothing else can be looked for."""
    try:
        return isinstance(parse_reference(text), Tag)
    except OciError:
        return False
