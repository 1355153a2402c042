"""Trees as Docker's distribution stores them, written by hand: also those that no registry would write."""

from __future__ import annotations

from tests.support.images import Image, digest_of

from dtr.storage import Driver

ROOT = "docker/registry/v2"


class Tree:
    """A tree in a storage, behind `prefix`."""

    def __init__(self, storage: Driver, prefix: str = "") -> None:
        self._storage = storage
        self.root = prefix + ROOT

    async def write(self, path: str, content: bytes | str) -> str:
        """An object below the root; its location."""
        location = f"{self.root}/{path}"
        await self._storage.put_small(location, content.encode() if isinstance(content, str) else content)
        return location

    def blob_path(self, digest: str) -> str:
        algorithm, _, digits = digest.partition(":")
        return f"{self.root}/blobs/{algorithm}/{digits[:2]}/{digits}/data"

    async def blob(self, content: bytes, algorithm: str = "sha256") -> str:
        """A blob without a link; its digest."""
        digest = digest_of(content, algorithm)
        await self._storage.put_small(self.blob_path(digest), content)
        return digest

    async def layer(self, repository: str, content: bytes) -> str:
        """A blob that a repository has; its digest."""
        digest = await self.blob(content)
        await self.link(repository, "_layers", digest)
        return digest

    async def link(self, repository: str, kind: str, digest: str, content: str | None = None) -> str:
        """A link below `_layers` or `_manifests/revisions`; its location."""
        path = f"repositories/{repository}/{kind}/{digest.replace(':', '/')}/link"
        return await self.write(path, digest if content is None else content)

    async def image(self, repository: str, image: Image, *tags: str) -> str:
        """All of an image, and tags that name it; the digest of its manifest."""
        for content in image.blobs:
            await self.layer(repository, content)
        for child in image.children:
            await self.image(repository, child)
        return await self.manifest(repository, image.payload, *tags)

    async def manifest(self, repository: str, payload: bytes, *tags: str) -> str:
        """A manifest alone; its digest."""
        digest = await self.blob(payload)
        await self.link(repository, "_manifests/revisions", digest)
        for tag in tags:
            await self.tag(repository, tag, digest)
        return digest

    async def tag(self, repository: str, tag: str, digest: str) -> None:
        place = f"repositories/{repository}/_manifests/tags/{tag}"
        await self.write(f"{place}/current/link", digest)
        if digest.startswith("sha256:"):
            await self.write(f"{place}/index/{digest.replace(':', '/')}/link", digest)
