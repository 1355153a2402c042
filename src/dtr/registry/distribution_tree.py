"""
The tree in which Docker's distribution keeps a registry, in whatever storage.

It is what `docker-registry`, DTR up to 2.5 and Harbor write (distribution, ``registry/storage/paths.go``)::

    docker/registry/v2/repositories/NAME/_layers/ALGORITHM/HEX/link
                                        /_manifests/revisions/ALGORITHM/HEX/link
                                        /_manifests/tags/TAG/current/link
                                        /_manifests/tags/TAG/index/ALGORITHM/HEX/link
                                        /_uploads/ID/…
                       blobs/ALGORITHM/HE/HEX/data

A link is a small object with a digest in it. What a repository has is what it has links to; the blobs are those of
all. A manifest is a blob, too. Here the tree is only read.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec import Struct, field

from dtr.oci import Digest, OciError
from dtr.storage import ObjectMissing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dtr.storage import Driver, Stored

ROOT = "docker/registry/v2/"
_PORTION = 1000
"""So many links of a repository are in memory at once."""
_LONGEST_LINK = 1024
_ENTRY = re.compile(r"(?P<repository>.+?)/_(?P<kind>layers|manifests/revisions|manifests/tags)/(?P<rest>.+)/link")
_BLOB = re.compile(r"blobs/[a-z0-9]+/[0-9a-f]{2}/[0-9a-f]+/data")


class LinkBroken(Exception):
    """A link has no digest in it."""


class Portion(Struct):
    """
    Some of what the tree says of one repository.

    Those of a repository follow each other: first its layers, then its manifests, then its tags.
    """

    repository: str
    layers: list[Digest] = field(default_factory=list)
    manifests: list[Digest] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Links that say nothing, by their place in the repository."""

    def __len__(self) -> int:
        return len(self.layers) + len(self.manifests) + len(self.tags) + len(self.broken)


class DistributionTree:
    """The tree behind `prefix`, a full location ``NAME:`` or ``NAME:DIRECTORY/``."""

    def __init__(self, storage: Driver, prefix: str) -> None:
        """Nothing is read yet."""
        self._storage = storage
        self._root = prefix + ROOT
        self._repositories = f"{self._root}repositories/"

    def blob(self, digest: str) -> str:
        """The location of a blob."""
        algorithm, _, digits = digest.partition(":")
        return f"{self._root}blobs/{algorithm}/{digits[:2]}/{digits}/data"

    async def is_there(self) -> bool:
        """Whether there is anything of a tree. Raises StorageError."""
        return await self._holds(self._root)

    async def has_repositories(self) -> bool:
        """Whether anything says what repositories have. Raises StorageError."""
        return await self._holds(self._repositories)

    async def _holds(self, prefix: str) -> bool:
        async with aclosing(self._storage.list(prefix)) as found:
            return await anext(found, None) is not None

    async def portions(self) -> AsyncGenerator[Portion, None]:
        """All links, in the order in which they lie. Raises StorageError."""
        portion: Portion | None = None
        async with aclosing(self._storage.list(self._repositories)) as found:
            async for stored in found:
                entry = _ENTRY.fullmatch(stored.location, len(self._repositories))
                # Whose repository's: of one that is called `a/b`, no link lies between two of `a`.
                if entry is None or (entry["kind"] == "manifests/tags" and not entry["rest"].endswith("/current")):
                    continue
                if portion is not None and (portion.repository != entry["repository"] or len(portion) >= _PORTION):
                    yield portion
                    portion = None
                if portion is None:
                    portion = Portion(entry["repository"])
                _add(portion, entry["kind"], entry["rest"], stored)
        if portion is not None:
            yield portion

    async def count(self) -> int:
        """How many links `portions` has altogether. Raises StorageError."""
        total = 0
        async with aclosing(self.portions()) as portions:
            async for portion in portions:
                total += len(portion)
        return total

    async def tagged(self, repository: str, tag: str) -> Digest:
        """What a tag names. Raises ObjectMissing, LinkBroken."""
        location = f"{self._repositories}{repository}/_manifests/tags/{tag}/current/link"
        text = (await self._read(location, _LONGEST_LINK)).decode("ascii", "replace").strip()
        try:
            return Digest.parse(text)
        except OciError:
            raise LinkBroken(f"{text[:100]!r} is no digest") from None

    async def has_manifest(self, repository: str, digest: str) -> bool:
        """Whether a repository has a manifest."""
        return await self._has(repository, "_manifests/revisions", digest)

    async def has_layer(self, repository: str, digest: str) -> bool:
        """Whether a repository has a blob."""
        return await self._has(repository, "_layers", digest)

    async def size(self, digest: str) -> int:
        """The size of a blob in bytes. Raises ObjectMissing."""
        return await self._storage.stat(self.blob(digest))

    async def read(self, digest: str, limit: int) -> bytes:
        """The first `limit` bytes of a blob. Raises ObjectMissing."""
        return await self._read(self.blob(digest), limit)

    async def _has(self, repository: str, kind: str, digest: str) -> bool:
        algorithm, _, digits = digest.partition(":")
        try:
            return (
                await self._storage.stat(f"{self._repositories}{repository}/{kind}/{algorithm}/{digits}/link") > 0
            )
        except ObjectMissing:
            return False

    async def _read(self, location: str, limit: int) -> bytes:
        async with aclosing(self._storage.open(location, 0, limit)) as pieces:
            return b"".join([piece async for piece in pieces])


def tree_of(location: str) -> str | None:
    """What stands before the tree that a location may be the blob of; None: it cannot be one."""
    prefix, root, rest = location.partition(ROOT)
    return prefix if root and _BLOB.fullmatch(rest) else None


def _add(portion: Portion, kind: str, rest: str, stored: Stored) -> None:
    if kind == "manifests/tags":
        portion.tags.append(rest.removesuffix("/current"))
        return
    try:
        digest = Digest.parse(rest.replace("/", ":"))
    except OciError:
        portion.broken.append(f"{kind}/{rest}")
        return
    # Its name says what is in it; one of another size was cut off, or is none.
    if stored.size != len(digest):
        portion.broken.append(f"{kind}/{rest}")
    elif kind == "layers":
        portion.layers.append(digest)
    else:
        portion.manifests.append(digest)
