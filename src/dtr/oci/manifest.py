"""
Reading manifests.

OCI image specification 1.1, "Image Manifest" and "Image Index"; Docker image manifest version 2, schema 2.

What the registry relies on is checked strictly; everything else is left alone, because the bytes are what is
stored and served. Keys that are given twice are refused, for parsers disagree on which one counts: an image
that a scanner read would not be the one that runs. So are keys that differ from a known one in case only, which
clients written in Go take for the known one.

What is kept beside the bytes, in columns and lists of referrers, is text that every database and encoder can
hold: no NUL, no half of a surrogate pair.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from dtr.oci import media_types
from dtr.oci.digest import Digest
from dtr.oci.errors import DigestInvalid, ManifestInvalid, ManifestUnsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 2**63 - 1
_DEEPEST = 64
_LONGEST_TYPE = 255
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_MANIFEST_KEYS = frozenset(
    {
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
        "fsLayers",
    }
)
_DESCRIPTOR_KEYS = frozenset(
    {"mediaType", "artifactType", "digest", "size", "urls", "data", "platform", "annotations"}
)


class Descriptor(Struct, frozen=True):
    """What a manifest says of something that it names; `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    artifact_type: str | None = None
    platform: Mapping[str, Any] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether an index has it as an image, and not as something that belongs to one."""
        given = self.platform or {}
        is_unknown = given.get("os") == "unknown" and given.get("architecture") == "unknown"
        return not is_unknown and self.artifact_type is None

    @property
    def is_foreign(self) -> bool:
        """Whether the content is fetched from elsewhere and need not be in the registry."""
        return bool(self.urls) and (
            self.media_type == media_types.FOREIGN_LAYER
            or self.media_type.startswith(media_types.NONDISTRIBUTABLE)
        )


class Manifest(Struct, frozen=True):
    """What the registry needs to know of a manifest."""

    media_type: str
    kind: Literal["image", "index"]
    artifact_type: str | None
    """As it appears in a list of referrers: its own, or else the media type of the config."""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """What has to be in the repository: config and layers, but for foreign layers."""
        config = () if self.config is None else (self.config,)
        return (*config, *(layer for layer in self.layers if not layer.is_foreign))

    @property
    def size(self) -> int:
        """Bytes of all that it names, each once."""
        config = () if self.config is None else (self.config,)
        sizes = {one.digest: one.size for one in (*config, *self.layers, *self.children)}
        total: int = sum(sizes.values())
        return min(total, _LARGEST)

    @property
    def platforms(self) -> int:
        """How many images for a system that it says an index has; what is attested of them is for none."""
        return len({one.digest for one in self.children if one.is_image})


def parse_manifest(payload: bytes, content_type: str | None = None) -> Manifest:
    """
    Read a manifest that was sent as `content_type`.

    Raises ManifestInvalid, ManifestUnsupported (schema 1, unknown kinds).
    """
    document = _load(payload)
    _check_case(document, _MANIFEST_KEYS, "the manifest")
    media_type = _media_type(document, content_type)
    if not _has_version(document, 2):
        raise ManifestInvalid("schemaVersion is not 2")
    annotations = _annotations(document.get("annotations"), "annotations")
    subject = None
    if document.get("subject") is not None:
        subject = _descriptor(document["subject"], "subject")
    artifact_type = _type(document.get("artifactType"), "artifactType")
    if media_type in media_types.INDEXES:
        if "layers" in document or "config" in document:
            raise ManifestInvalid("an index has neither config nor layers")
        children = _descriptors(document, "manifests")
        return Manifest(
            media_type, "index", artifact_type, children=children, subject=subject, annotations=annotations
        )
    if "manifests" in document:
        raise ManifestInvalid("an image manifest has no manifests")
    config = _descriptor(document.get("config"), "config")
    layers = _descriptors(document, "layers")
    return Manifest(
        media_type,
        "image",
        artifact_type or config.media_type,
        config=config,
        layers=layers,
        subject=subject,
        annotations=annotations,
    )


def _load(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except ManifestInvalid:
        raise
    except RecursionError:
        raise ManifestInvalid("the manifest is nested too deeply") from None
    except ValueError:
        raise ManifestInvalid("the manifest is not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise ManifestInvalid("the manifest is not a JSON object")
    _check_depth(document)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ManifestInvalid("a key is given twice")
    return made


def _no_constant(_name: str) -> None:
    raise ManifestInvalid("the manifest is not JSON: NaN and Infinity are no numbers")


def _check_case(value: dict[str, Any], known: frozenset[str], where: str) -> None:
    if value.keys() <= known:
        return
    folded = {key.casefold(): key for key in known}
    for key in value.keys() - known:
        meant = folded.get(key.casefold())
        if meant is not None:
            raise ManifestInvalid(f"{where} has a key that differs from {meant} in case only")


def _check_depth(document: dict[str, Any]) -> None:
    """Those who read it later may have less room to recurse than we had."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ManifestInvalid("the manifest is nested too deeply")


def _has_version(document: dict[str, Any], version: int) -> bool:
    found = document.get("schemaVersion")
    return type(found) is int and found == version


def _media_type(document: dict[str, Any], content_type: str | None) -> str:
    """The media type, about which body and header may not disagree."""
    inside = _type(document.get("mediaType"), "mediaType")
    outside = content_type.partition(";")[0].strip().lower() if content_type else ""
    if (
        _has_version(document, 1)
        or "fsLayers" in document
        or outside in media_types.SCHEMA_1
        or inside in media_types.SCHEMA_1
    ):
        raise ManifestUnsupported(
            "image manifests of schema 1 are not supported: push with a client of Docker 1.10 or later"
        )
    known = media_types.MANIFESTS | media_types.INDEXES
    if inside is not None:
        if inside not in known:
            raise ManifestUnsupported(f"manifests of the type {inside} are not supported")
        if outside in known and outside != inside:
            raise ManifestInvalid("mediaType and Content-Type disagree")
        return inside
    if outside in known:
        return outside
    if outside not in {"", "application/json", "application/octet-stream", "text/plain"}:
        raise ManifestUnsupported(f"manifests of the type {outside[:_LONGEST_TYPE]} are not supported")
    return media_types.OCI_INDEX if "manifests" in document else media_types.OCI_MANIFEST


def _descriptors(document: dict[str, Any], where: str) -> tuple[Descriptor, ...]:
    value = document.get(where)
    if value is None and where in document:
        return ()  # so clients in Go write a list that they never filled
    if not isinstance(value, list):
        raise ManifestInvalid(f"{where} is not a list")
    return tuple(_descriptor(one, f"{where}[{position}]") for position, one in enumerate(value))


def _descriptor(value: Any, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{where} is not a descriptor")
    _check_case(value, _DESCRIPTOR_KEYS, where)
    media_type = _type(value.get("mediaType"), f"{where}.mediaType")
    if media_type is None:
        raise ManifestInvalid(f"{where}.mediaType is missing")
    size = value.get("size")
    if type(size) is not int or not 0 <= size <= _LARGEST:
        raise ManifestInvalid(f"{where}.size is not a number of bytes")
    digest = value.get("digest")
    try:
        parsed = Digest.parse(digest) if isinstance(digest, str) else None
    except DigestInvalid as error:
        raise ManifestInvalid(f"{where}.digest: {error}") from None
    if parsed is None:
        raise ManifestInvalid(f"{where}.digest is missing")
    urls = value.get("urls")
    if urls is None:
        urls = []
    if not isinstance(urls, list) or not all(isinstance(one, str) for one in urls):
        raise ManifestInvalid(f"{where}.urls is not a list of texts")
    if "data" in value:
        _check_data(value["data"], parsed, size, where)
    platform = value.get("platform")
    if platform is not None and not isinstance(platform, dict):
        raise ManifestInvalid(f"{where}.platform is not an object")
    return Descriptor(
        media_type,
        parsed,
        size,
        tuple(urls),
        _type(value.get("artifactType"), f"{where}.artifactType"),
        platform,
        _annotations(value.get("annotations"), f"{where}.annotations"),
    )


def _check_data(data: Any, digest: Digest, size: int, where: str) -> None:
    """Image specification, "Descriptors": embedded content must be what the descriptor says."""
    if data is None:
        return
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError):
        content = None
    if content is None or len(content) != size or Digest.of(content, digest.algorithm) != digest:
        raise ManifestInvalid(f"{where}.data is not the content of that digest and size")


def _type(value: Any, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TYPE or not (value.isascii() and value.isprintable()):
        raise ManifestInvalid(f"{where} is not a media type")
    return value


def _annotations(value: Any, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ManifestInvalid(f"{where} are not texts by name")
    if any(_UNSTORABLE.search(text) for pair in value.items() for text in pair):
        raise ManifestInvalid(f"{where} hold a NUL or half of a surrogate pair")
    return value
