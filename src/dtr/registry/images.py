"""
What people see of tags and manifests: what something is, for which systems, how it was built, who pushed it.

A page of tags costs a few queries, however long it is. Manifests are parsed when they are shown; what their
configs say comes from `ImageConfigs`, and only for a config that the repository holds.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace
from sqlalchemy import BigInteger, and_, bindparam, case, cast, func, select

from dtr.db import Statement, in_list
from dtr.db.schema import manifest_references, manifests, pulls, repository_blobs, tag_origins, tags
from dtr.oci import ManifestInvalid, ManifestUnsupported, artifact_kind, parse_manifest
from dtr.oci.media_types import IMAGE_CONFIGS, INDEXES
from dtr.registry.errors import ManifestUnknown
from dtr.registry.image_configs import ImageConfig
from dtr.registry.promote import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dtr.db import Database, Row
    from dtr.oci import ArtifactKind, Descriptor, Manifest
    from dtr.registry.image_configs import ImageConfigs, Runtime

_PARSED_IN_LISTS = 16 * 1024
_ABOUT = "vnd.docker.reference.digest"
"""The annotation by which builders say to which image of an index what is attested belongs."""
_ANY_SIZE = 2**31
"""Bytes of a manifest that is looked into: in a list a large one shows less."""
_PARSE_IN_LOOP = 256 * 1024
_MOST_CHILDREN = 1000
_MOST_TAGS = 1000
"""Tags of one manifest that are shown."""

_repository = bindparam("repository", type_=BigInteger)
_limit = bindparam("limit", type_=BigInteger)

_all_tags = (
    select(
        tags.c.name,
        tags.c.manifest,
        tags.c.author,
        tags.c.created_at,
        tags.c.updated_at,
        pulls.c.pulls,
        pulls.c.last_pulled_at,
        tag_origins.c.source_repository,
        tag_origins.c.source_tag,
        tag_origins.c.policy_id,
    )
    .outerjoin(pulls, and_(pulls.c.repository_id == tags.c.repository_id, pulls.c.reference == tags.c.name))
    .outerjoin(
        tag_origins,
        and_(
            tag_origins.c.repository_id == tags.c.repository_id,
            tag_origins.c.name == tags.c.name,
            # Else the tag was moved since.
            tag_origins.c.manifest == tags.c.manifest,
            tag_origins.c.moved_at == tags.c.updated_at,
        ),
    )
)
_NAMED_TAGS = Statement(
    lambda: _all_tags.where(in_list(tags.c.name, "names", within=(tags.c.repository_id, _repository)))
)
_tags = _all_tags.where(tags.c.repository_id == _repository)
_LIST_TAGS = Statement(lambda: _tags.where(tags.c.name >= bindparam("start")).order_by(tags.c.name).limit(_limit))
_NEWEST_TAGS = Statement(lambda: _tags.order_by(tags.c.updated_at.desc(), tags.c.name.desc()).limit(_limit))
_FIND_TAG = Statement(lambda: _tags.where(tags.c.name == bindparam("tag")))
_TAGS_OF = Statement(
    lambda: _tags.where(tags.c.manifest == bindparam("digest")).order_by(tags.c.name).limit(_MOST_TAGS)
)
_COUNT_TAGS = Statement(lambda: select(func.count()).select_from(tags).where(tags.c.repository_id == _repository))

_manifests = (
    select(
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.artifact_type,
        manifests.c.config_digest,
        manifests.c.config_media_type,
        manifests.c.annotations,
        manifests.c.content_size,
        manifests.c.author,
        manifests.c.created_at,
        case((func.length(manifests.c.payload) <= bindparam("largest", type_=BigInteger), manifests.c.payload)),
        repository_blobs.c.digest.is_not(None),
        pulls.c.pulls,
        pulls.c.last_pulled_at,
    )
    .outerjoin(
        repository_blobs,
        and_(
            repository_blobs.c.repository_id == manifests.c.repository_id,
            repository_blobs.c.digest == manifests.c.config_digest,
        ),
    )
    .outerjoin(
        pulls, and_(pulls.c.repository_id == manifests.c.repository_id, pulls.c.reference == manifests.c.digest)
    )
)
_FIND_MANIFESTS = Statement(
    lambda: _manifests.where(
        in_list(manifests.c.digest, "digests", within=(manifests.c.repository_id, _repository))
    )
)
_LIST_MANIFESTS = Statement(
    lambda: (
        _manifests.where(manifests.c.repository_id == _repository, manifests.c.digest >= bindparam("start"))
        .order_by(manifests.c.digest)
        .limit(_limit)
    )
)
_PAYLOAD = Statement(
    lambda: select(manifests.c.payload).where(
        manifests.c.repository_id == _repository, manifests.c.digest == bindparam("digest")
    )
)
_COUNT_MANIFESTS = Statement(
    lambda: select(func.count()).select_from(manifests).where(manifests.c.repository_id == _repository)
)
_SIZES_OF_INDEXES = Statement(
    lambda: (
        select(manifest_references.c.manifest, cast(func.sum(manifests.c.content_size), BigInteger))
        .join(
            manifests,
            and_(
                manifests.c.repository_id == manifest_references.c.repository_id,
                manifests.c.digest == manifest_references.c.target,
            ),
        )
        .where(
            in_list(
                manifest_references.c.manifest,
                "digests",
                within=(manifest_references.c.repository_id, _repository),
            ),
            manifest_references.c.kind == "manifest",
        )
        .group_by(manifest_references.c.manifest)
    )
)


class Line(Struct, frozen=True, kw_only=True):
    """A step of how an image was built, with the layer that it made (None: none)."""

    text: str
    layer: Descriptor | None


class Platform(Struct, frozen=True, kw_only=True):
    """What an index says of one of its manifests; empty: it does not say."""

    digest: str
    media_type: str
    os: str = ""
    os_version: str = ""
    architecture: str = ""
    variant: str = ""
    is_image: bool = True
    """False: it belongs to an image, as what is attested of it does."""
    about: str = ""
    """Digest of that image."""


class ManifestRecord(Struct, frozen=True, kw_only=True):
    """
    A manifest. Moments in milliseconds since 1970 UTC; `created_at` None: the repository does not hold it.

    `size` is of what it names, in bytes: config and layers of an image, all of that of the images of an index.
    """

    digest: str
    media_type: str
    kind: ArtifactKind
    artifact_type: str | None = None
    config_digest: str | None = None
    config_media_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    author: str = ""
    created_at: int | None = None
    config: ImageConfig = field(default_factory=ImageConfig)
    has_config: bool = False
    """The repository holds its config."""
    lines: tuple[Line, ...] = ()
    platforms: tuple[Platform, ...] = ()
    """Of an index."""
    pulls: int = 0
    last_pulled_at: int | None = None

    @property
    def is_index(self) -> bool:
        """Whether it is an index or manifest list."""
        return self.media_type in INDEXES


class TagRecord(Struct, frozen=True, kw_only=True):
    """A tag, and what it names. Moments in milliseconds since 1970 UTC."""

    name: str
    author: str
    created_at: int
    updated_at: int
    manifest: ManifestRecord
    pulls: int
    last_pulled_at: int | None
    origin: Origin | None = None
    """Where it was promoted from; None: it was pushed."""


class Images:
    """The tags and manifests of all repositories, as people see them."""

    def __init__(self, database: Database, configs: ImageConfigs) -> None:
        self._database = database
        self._configs = configs

    async def list_tags(self, repository: int, *, start: str = "", limit: int) -> list[TagRecord]:
        """At most `limit` tags from the name `start` on, in the order of their bytes."""
        rows = await self._database.fetch_all(_LIST_TAGS, repository=repository, start=start, limit=limit)
        return await self._tags(repository, rows, _PARSED_IN_LISTS)

    async def list_newest(self, repository: int, *, limit: int) -> list[TagRecord]:
        """At most `limit` of the tags that were moved last, the newest first."""
        rows = await self._database.fetch_all(_NEWEST_TAGS, repository=repository, limit=limit)
        return await self._tags(repository, rows, _PARSED_IN_LISTS)

    async def list_named(self, repository: int, names: Sequence[str]) -> list[TagRecord]:
        """The tags of these names, in the order of the names; those that there are not are missing."""
        rows = await self._database.fetch_all(_NAMED_TAGS, repository=repository, names=sorted(set(names)))
        found = {one.name: one for one in await self._tags(repository, rows, _PARSED_IN_LISTS)}
        return [found[name] for name in names if name in found]

    async def count_tags(self, repository: int) -> int:
        """How many tags there are."""
        return await self._count(_COUNT_TAGS, repository)

    async def get_tag(self, repository: int, tag: str) -> TagRecord:
        """The tag of this name. Raises ManifestUnknown."""
        rows = await self._database.fetch_all(_FIND_TAG, repository=repository, tag=tag)
        found = await self._tags(repository, rows, _ANY_SIZE)
        if not found:
            raise ManifestUnknown(tag)
        return found[0]

    async def list_tags_of(self, repository: int, digest: str) -> list[TagRecord]:
        """
        The tags that name a manifest, by name; of a large one less is known, unless one tag alone names it.

        Raises ManifestUnknown when there is no such manifest.
        """
        rows = await self._database.fetch_all(_TAGS_OF, repository=repository, digest=digest)
        found = await self._tags(repository, rows, _ANY_SIZE if len(rows) == 1 else _PARSED_IN_LISTS)
        if not found:
            await self.get_manifest(repository, digest)
        return found

    async def list_manifests(self, repository: int, *, start: str = "", limit: int) -> list[ManifestRecord]:
        """At most `limit` manifests from the digest `start` on, by digest."""
        rows = await self._database.fetch_all(
            _LIST_MANIFESTS, repository=repository, start=start, limit=limit, largest=_PARSED_IN_LISTS
        )
        return list((await self._describe(repository, rows)).values())

    async def count_manifests(self, repository: int) -> int:
        """How many manifests there are."""
        return await self._count(_COUNT_MANIFESTS, repository)

    async def get_manifest(self, repository: int, digest: str) -> ManifestRecord:
        """The manifest of this digest. Raises ManifestUnknown."""
        found = await self._find(repository, [digest], _ANY_SIZE)
        if digest not in found:
            raise ManifestUnknown(digest)
        return found[digest]

    async def find_many(self, repository: int, digests: Iterable[str]) -> dict[str, ManifestRecord]:
        """The manifests of these digests that there are, by digest; of large ones less is known."""
        return await self._find(repository, sorted(set(digests)), _PARSED_IN_LISTS)

    async def get_payload(self, repository: int, digest: str) -> bytes:
        """The bytes of a manifest, as they were pushed. Raises ManifestUnknown."""
        row = await self._database.fetch_one(_PAYLOAD, repository=repository, digest=digest)
        if row is None:
            raise ManifestUnknown(digest)
        return bytes(row[0])

    async def get_runtime(self, manifest: ManifestRecord) -> Runtime | None:
        """How containers of an image run; None: it is none, or its repository does not hold its config."""
        if (
            manifest.config_digest is None
            or manifest.config_media_type not in IMAGE_CONFIGS
            or not manifest.has_config
        ):
            return None
        return await self._configs.get_runtime(manifest.config_digest)

    async def list_children(self, repository: int, index: ManifestRecord) -> list[ManifestRecord]:
        """
        The manifests of an index, in its order, for the systems that it names.

        A child that the repository does not hold has no moment of creation; an empty index is its own only child.
        """
        named = index.platforms[:_MOST_CHILDREN]
        found = await self._find(repository, sorted({one.digest for one in named}), _PARSED_IN_LISTS)
        return [_child(one, found.get(one.digest)) for one in named] or [index]

    async def _count(self, statement: Statement, repository: int) -> int:
        row = await self._database.fetch_one(statement, repository=repository)
        return int(row[0]) if row else 0

    async def _tags(self, repository: int, rows: Sequence[Row], largest: int) -> list[TagRecord]:
        named = await self._find(repository, sorted({row[1] for row in rows}), largest)
        return [
            TagRecord(
                name=name,
                author=author,
                created_at=created_at,
                updated_at=updated_at,
                manifest=named[digest],
                pulls=pulled or 0,
                last_pulled_at=pulled_at,
                origin=Origin(*origin) if origin[0] is not None else None,
            )
            for name, digest, author, created_at, updated_at, pulled, pulled_at, *origin in rows
            if digest in named  # it may have gone between the two queries
        ]

    async def _find(self, repository: int, digests: list[str], largest: int) -> dict[str, ManifestRecord]:
        if not digests:
            return {}
        rows = await self._database.fetch_all(
            _FIND_MANIFESTS, repository=repository, digests=digests, largest=largest
        )
        return await self._describe(repository, rows)

    async def _describe(self, repository: int, rows: Sequence[Row]) -> dict[str, ManifestRecord]:
        """The records of rows of manifests, by digest, in their order."""
        configs = await self._configs.get_many(
            config
            for _, _, _, config, config_type, *_, is_held, _, _ in rows
            if is_held and config_type in IMAGE_CONFIGS
        )
        indexes = [row[0] for row in rows if row[1] in INDEXES]
        sizes: dict[str, int] = {}
        if indexes:
            found = await self._database.fetch_all(_SIZES_OF_INDEXES, repository=repository, digests=indexes)
            sizes = {row[0]: row[1] for row in found}
        if sum(len(row[9] or b"") for row in rows) > _PARSE_IN_LOOP:
            return await asyncio.to_thread(_records, rows, configs, sizes)
        return _records(rows, configs, sizes)


def _records(
    rows: Iterable[Row], configs: Mapping[str, ImageConfig], sizes: Mapping[str, int]
) -> dict[str, ManifestRecord]:
    return {row[0]: _record(row, configs, sizes) for row in rows}


def _record(row: Row, configs: Mapping[str, ImageConfig], sizes: Mapping[str, int]) -> ManifestRecord:
    (
        digest,
        media_type,
        artifact_type,
        config_digest,
        config_type,
        notes,
        size,
        author,
        created_at,
        payload,
        is_held,
        pulled,
        pulled_at,
    ) = row
    parsed = _parse(payload, media_type)
    annotations = dict(parsed.annotations) if parsed else json.loads(notes) if notes else {}
    config = configs.get(config_digest, ImageConfig()) if is_held else ImageConfig()
    return ManifestRecord(
        digest=digest,
        media_type=media_type,
        kind=artifact_kind(
            media_type,
            artifact_type=artifact_type,
            config=config_type,
            layers=(layer.media_type for layer in parsed.layers) if parsed else (),
            annotations=annotations,
        ),
        artifact_type=artifact_type,
        config_digest=config_digest,
        config_media_type=config_type,
        annotations=annotations,
        size=sizes.get(digest, 0) if media_type in INDEXES else size,
        author=author,
        created_at=created_at,
        config=config,
        has_config=is_held,
        lines=build_lines(config, parsed.layers) if parsed else (),
        platforms=tuple(_platform(child) for child in parsed.children) if parsed else (),
        pulls=pulled or 0,
        last_pulled_at=pulled_at,
    )


def _parse(payload: bytes | None, media_type: str) -> Manifest | None:
    """None: too large for a list, or (the database is damaged) none."""
    if payload is None:
        return None
    try:
        return parse_manifest(bytes(payload), media_type)
    except (ManifestInvalid, ManifestUnsupported):
        return None


def _platform(child: Descriptor) -> Platform:
    given = child.platform or {}

    def text(name: str) -> str:
        value = given.get(name)
        return value[:100] if isinstance(value, str) else ""

    return Platform(
        digest=child.digest,
        media_type=child.media_type,
        os=text("os"),
        os_version=text("os.version"),
        architecture=text("architecture"),
        variant=text("variant"),
        is_image=child.is_image,
        about="" if child.is_image else child.annotations.get(_ABOUT, ""),
    )


def _child(named: Platform, found: ManifestRecord | None) -> ManifestRecord:
    """A manifest of an index: what the index says of it, by which clients choose, and what it says of itself."""
    record = found or ManifestRecord(
        digest=named.digest, media_type=named.media_type, kind=artifact_kind(named.media_type)
    )
    config = record.config
    return replace(
        record,
        config=replace(
            config,
            os=named.os or config.os,
            os_version=named.os_version or config.os_version,
            architecture=named.architecture or config.architecture,
            variant=named.variant or config.variant,
        ),
    )


# --- how an image was built -----------------------------------------------------------------------------------

_NO_OPERATION = re.compile(r"^/bin/sh -c #\(nop\)\s*")
_SHELL = re.compile(r"^(?:\|[0-9]+ (?:\S+=\S*\s)*)?/bin/sh -c\s*")
_BUILDKIT = re.compile(r"\s*# buildkit\s*$")


def build_lines(config: ImageConfig, layers: Sequence[Descriptor]) -> tuple[Line, ...]:
    """
    The lines of a Dockerfile that might have made the image, as far as its config tells, with its layers.

    A layer that no step tells of comes last, without a text.
    """
    left = iter(layers)
    lines = [
        Line(text=dockerfile_line(step.created_by), layer=None if step.is_empty else next(left, None))
        for step in config.history
    ]
    return (*lines, *(Line(text="", layer=layer) for layer in left))


def dockerfile_line(created_by: str) -> str:
    """The instruction behind a step of a history: builders write down the command that they ran."""
    text = _BUILDKIT.sub("", created_by.strip())
    if _NO_OPERATION.match(text):
        return _NO_OPERATION.sub("", text)
    without_shell = _SHELL.sub("", text)
    return f"RUN {without_shell}" if without_shell != text else text.replace("RUN /bin/sh -c ", "RUN ", 1)
