"""``/api/v0/repositories/{namespace}/{reponame}/manifests``: what a repository holds, tagged or not."""

from __future__ import annotations

import contextlib
import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING

from fastapi import Response  # noqa: TC002 - operations need it
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.repositories import FROM_REPOSITORY, ON_REPOSITORY, PathDep, require_writable
from dtr.http.api.rooms import RoomsDep
from dtr.oci import ArtifactKind, Digest, OciError, ReferenceInvalid, parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dtr.http.api.rooms import Rooms
    from dtr.registry.attachments import Attachment
    from dtr.registry.image_configs import Runtime
    from dtr.registry.images import Line, ManifestRecord, Platform

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/manifests", tags=["repositories"])


class DockerfileLine(Record):
    """A step of how an image was built, as its config tells it."""

    line: str = Field(description="The instruction; empty: the config tells nothing of this layer.")
    layer_digest: str = Field(description="The layer that it made; empty: none.")
    size: int = Field(description="Bytes of the layer, as it was pushed.")
    is_empty: bool = Field(description="It made no layer.")
    media_type: str | None = None
    urls: list[str] | None = Field(None, description="Where a layer that is not kept here comes from.")

    @classmethod
    def of(cls, line: Line) -> DockerfileLine:
        """The record of a line."""
        layer = line.layer
        if layer is None:
            return cls(line=line.text, layer_digest="", size=0, is_empty=True)
        return cls(
            line=line.text,
            layer_digest=layer.digest,
            size=layer.size,
            is_empty=False,
            media_type=layer.media_type,
            urls=list(layer.urls) or None,
        )


class PlatformRecord(Record):
    """What an index says of one of its manifests."""

    digest: str
    os: str
    os_version: str
    architecture: str
    variant: str
    is_image: bool = Field(description="False: it is for no system, and belongs to an image: an attestation.")

    @classmethod
    def of(cls, platform: Platform) -> PlatformRecord:
        """The record of a platform."""
        return cls(
            digest=platform.digest,
            os=platform.os,
            os_version=platform.os_version,
            architecture=platform.architecture,
            variant=platform.variant,
            is_image=platform.is_image,
        )


class ManifestView(Record):
    """A manifest."""

    digest: str
    media_type: str
    type: ArtifactKind = Field(description="What it is; `app` is a bundle of Docker App (CNAB).")
    os: str = Field(description="Empty: of no system, or its config does not say.")
    os_version: str
    architecture: str
    variant: str = Field(description="Of the architecture.")
    size: int = Field(description="Bytes of config and layers; of an index: of all its images.")
    author: str = Field(description="Name of the account that pushed it; empty: not known.")
    created_at: dt.datetime = Field(
        description="When it was pushed; the year 1: an index names it, it is not here."
    )
    config_digest: str | None = None
    config_media_type: str | None = None
    artifact_type: str | None = Field(None, description="As it says itself; missing: it does not.")
    annotations: dict[str, str]
    labels: dict[str, str] = Field(description="Of the image's config.")
    platforms: list[PlatformRecord] | None = Field(None, description="Of an index: its manifests.")
    dockerfile: list[DockerfileLine] | None = Field(
        None, description="How the image was built, with its layers. Large ones are left out of lists."
    )
    pulls: int = Field(description="How often it was pulled by its digest.")
    last_pulled_at: dt.datetime = Field(description="By its digest; the year 1: never.")

    @classmethod
    def of(cls, manifest: ManifestRecord, *, dockerfile: bool = True) -> ManifestView:
        """The record of a manifest."""
        config, config_type = manifest.config, manifest.config_media_type
        return cls(
            digest=manifest.digest,
            media_type=manifest.media_type,
            type=manifest.kind,
            os=config.os,
            os_version=config.os_version,
            architecture=config.architecture,
            variant=config.variant,
            size=manifest.size,
            author=manifest.author,
            created_at=moment(manifest.created_at),
            config_digest=manifest.config_digest,
            config_media_type=config_type,
            artifact_type=None if manifest.artifact_type == config_type else manifest.artifact_type,
            annotations=dict(manifest.annotations),
            labels=dict(config.labels),
            platforms=[PlatformRecord.of(one) for one in manifest.platforms] if manifest.is_index else None,
            dockerfile=[DockerfileLine.of(one) for one in manifest.lines]
            if dockerfile and not manifest.is_index
            else None,
            pulls=manifest.pulls,
            last_pulled_at=moment(manifest.last_pulled_at),
        )


class ContainerRecord(Record):
    """How containers of an image run, as its config says; what is empty it does not say."""

    created: str = Field(description="When the image was built, as it says itself.")
    author: str = Field(description="Who built the image, as it says itself.")
    user: str = Field(description="As whom the process runs: `USER[:GROUP]`, names or numbers.")
    working_dir: str = Field(description="In which directory it starts.")
    stop_signal: str = Field(description="What asks it to end: `SIGTERM`.")
    entrypoint: list[str] = Field(description="The command, with arguments that stay.")
    cmd: list[str] = Field(
        description="Arguments that others may take the place of; without entrypoint the command."
    )
    shell: list[str] = Field(description="What runs commands that are given as one text.")
    env: list[str] = Field(description="`NAME=value` each.")
    exposed_ports: list[str] = Field(description="`80/tcp`.")
    volumes: list[str] = Field(description="Directories that are kept outside of the container's layers.")

    @classmethod
    def of(cls, runtime: Runtime) -> ContainerRecord:
        """The record of how containers run."""
        return cls(
            created=runtime.created,
            author=runtime.author,
            user=runtime.user,
            working_dir=runtime.working_dir,
            stop_signal=runtime.stop_signal,
            entrypoint=list(runtime.entrypoint),
            cmd=list(runtime.cmd),
            shell=list(runtime.shell),
            env=list(runtime.env),
            exposed_ports=list(runtime.ports),
            volumes=list(runtime.volumes),
        )


class ManifestDetail(Record):
    """A manifest, and what is in it."""

    manifest: ManifestView
    container: ContainerRecord | None = Field(
        None, description="Missing: it is no image, or its config is not here."
    )
    content: str | None = Field(
        None, description="The manifest as it was pushed. Missing: it is large, or no text."
    )
    tags: list[str] = Field(description="Tags that name it, up to 20, the highest version first.")
    tag_count: int = Field(description="How many tags name it.")


class FileRecord(Record):
    """A layer of an artifact."""

    digest: str
    media_type: str
    size: int = Field(description="Bytes.")
    title: str | None = Field(None, description="The name that its file had.")
    predicate_type: str | None = Field(None, description="What is attested in it.")


class AttachmentRecord(Record):
    """An artifact that belongs to an image."""

    digest: str
    subject: str = Field(
        description="Digest of what it belongs to: the manifest, one of its images, or another artifact."
    )
    tag: str | None = Field(
        None, description="The tag by which it is found; missing: it is a referrer, or in the index."
    )
    type: ArtifactKind = Field(description="What it is, by its media types.")
    media_type: str
    artifact_type: str | None = None
    size: int = Field(description="Bytes of its layers and config.")
    author: str = Field(description="Name of the account that pushed it; empty: not known.")
    created_at: dt.datetime
    annotations: dict[str, str]
    files: list[FileRecord] = Field(description="Its layers; of a large one none.")

    @classmethod
    def of(cls, attachment: Attachment) -> AttachmentRecord:
        """The record of an attachment."""
        manifest = attachment.manifest
        layers = [line.layer for line in manifest.lines if line.layer is not None]
        return cls(
            digest=manifest.digest,
            subject=attachment.subject,
            tag=attachment.tag or None,
            type=manifest.kind,
            media_type=manifest.media_type,
            artifact_type=manifest.artifact_type,
            size=manifest.size,
            author=manifest.author,
            created_at=moment(manifest.created_at),
            annotations=dict(manifest.annotations),
            files=[
                FileRecord(
                    digest=layer.digest,
                    media_type=layer.media_type,
                    size=layer.size,
                    title=layer.annotations.get("org.opencontainers.image.title"),
                    predicate_type=layer.annotations.get("in-toto.io/predicate-type")
                    or layer.annotations.get("predicateType"),
                )
                for layer in layers[:MOST_FILES]
            ],
        )


class AttachmentList(Record):
    """What is attached to an image."""

    attachments: list[AttachmentRecord]
    is_all: bool = Field(description="False: there is more than is listed here.")


@router.get(
    "",
    summary="Manifests of a repository",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY),
)
async def list_repo_manifests(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[ManifestView]:
    """By digest, with and without tags; the page starts with a digest."""
    repository = await caller.require_on(path, Operation.SEE_TAGS)
    page = page.at_most(MOST_RECORDS)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.images.count_manifests(repository))
    found = await rooms.images.list_manifests(repository, start=page.start, limit=page.limit)
    shown = page.cut(response, found, lambda one: one.digest)
    return [
        ManifestView.of(one, dockerfile=tells) for one, tells in zip(shown, which_tell_lines(shown), strict=True)
    ]


@router.get(
    "/{reference}",
    summary="A manifest",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY, "NO_SUCH_REF"),
)
async def get_repo_manifest(path: PathDep, reference: str, caller: CallerDep, rooms: RoomsDep) -> ManifestDetail:
    """What a tag or digest names, as it was pushed, how its containers run, and which tags name it."""
    repository = await caller.require_on(path, Operation.SEE_TAGS)
    manifest = await _find(rooms, repository, reference)
    payload = await rooms.images.get_payload(repository, manifest.digest)
    runtime = await rooms.images.get_runtime(manifest)
    found = await rooms.tag_search.aliases(repository, [manifest.digest], most=_MOST_TAGS)
    tags = found[manifest.digest]
    content = None
    if len(payload) <= _LARGEST_CONTENT:
        with contextlib.suppress(UnicodeDecodeError):
            content = payload.decode()
    return ManifestDetail(
        manifest=ManifestView.of(manifest),
        container=ContainerRecord.of(runtime) if runtime else None,
        content=content,
        tags=tags.names,
        tag_count=tags.total,
    )


@router.get(
    "/{reference}/attachments",
    summary="What is attached to an image",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY, "NO_SUCH_REF"),
)
async def list_attachments(path: PathDep, reference: str, caller: CallerDep, rooms: RoomsDep) -> AttachmentList:
    """
    Signatures, bills of materials, attestations and other artifacts that refer to what a tag or digest names.

    Of an index also those of its images; and those of the artifacts themselves. At most 200. Whose signatures
    were verified is not said here, but in the list of signatures.
    """
    repository = await caller.require_on(path, Operation.SEE_TAGS)
    manifest = await _find(rooms, repository, reference)
    found, is_all = await rooms.attachments.find(repository, manifest)
    return AttachmentList(attachments=[AttachmentRecord.of(one) for one in found], is_all=is_all)


def which_tell_lines(manifests: Iterable[ManifestRecord]) -> Iterator[bool]:
    """Of each manifest in a list, whether there is room for its lines."""
    left = _MOST_LINES
    for one in manifests:
        left -= len(one.lines)
        yield left >= 0


async def _find(rooms: Rooms, repository: int, reference: str) -> ManifestRecord:
    """What a tag or digest names. Raises ApiError, ManifestUnknown."""
    try:
        named = parse_reference(reference)
    except OciError:
        raise ApiError("NO_SUCH_REF", reference[:255]) from None
    if isinstance(named, Digest):
        return await rooms.images.get_manifest(repository, str(named))
    return (await rooms.images.get_tag(repository, named)).manifest


@router.delete(
    "/{reference}",
    summary="Delete a manifest",
    status_code=204,
    responses=errors(
        "INVALID_DIGEST", *ON_REPOSITORY, "NO_SUCH_REF", "MANIFEST_REFERENCED", "TAG_IN_NOTARY", "READ_ONLY"
    ),
)
async def delete_repo_manifest(path: PathDep, reference: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For those who may push. One that an index names stays as long as the index.

    All tags that name it go with it; its layers are collected later, when nothing else needs them. One to which
    content trust leads stays.
    """
    repository = await caller.require_on(path, Operation.DELETE_MANIFEST)
    require_writable(rooms)
    try:
        named = parse_reference(reference)
    except ReferenceInvalid:
        raise ApiError("NO_SUCH_REF", reference[:255]) from None
    if not isinstance(named, Digest):
        tagged = await rooms.images.get_tag(repository, named)
        named = Digest.parse(tagged.manifest.digest)
    await rooms.manifests.delete(repository, named, by=caller.actor)


_LARGEST_CONTENT = 1024 * 1024
MOST_FILES = 100
"""Layers of an attached artifact."""
MOST_RECORDS = 1000
"""Manifests, or tags, on a page: they are large."""
_MOST_LINES = 30_000
"""Lines of Dockerfiles in a list. A manifest of 4 MiB has fewer."""
_MOST_TAGS = 20
