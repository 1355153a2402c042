"""Another registry that is not there: repositories in memory, behind the interface of `RemoteRepository`."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from tests.support.images import Image

from dtr.oci import Descriptor, Digest, parse_manifest
from dtr.remotes import Permissions, Remote, RemoteError, RemoteManifest, RemoteUnknown


@dataclass
class Content:
    """What a repository has."""

    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


class RegistryDouble:
    """Registries by URL; `fails` says which call (its name and argument) raises what."""

    def __init__(self, *, lists_referrers: bool = True, deletes_tags: bool = True) -> None:
        self.repositories: dict[str, Content] = defaultdict(Content)
        """By ``HOST/NAME``."""
        self.calls: Counter[str] = Counter()
        self.fails: Callable[[str, str], RemoteError | None] = lambda _call, _argument: None
        self.lists_referrers = lists_referrers
        self.deletes_tags = deletes_tags

    @contextlib.asynccontextmanager
    async def connect(self, remote: Remote, **_options: float) -> AsyncIterator[RepositoryDouble]:
        yield RepositoryDouble(self, remote)

    def push(self, name: str, image: Image, *tags: str) -> Digest:
        """Put an image there, whole."""
        content = self.repositories[name]
        for blob in image.blobs:
            content.blobs[Digest.of(blob)] = blob
        for child in image.children:
            self.push(name, child)
        digest = Digest.of(image.payload)
        content.manifests[digest] = (image.payload, image.media_type)
        content.tags.update(dict.fromkeys(tags, digest))
        return digest

    def holds_whole(self, name: str, reference: str) -> bool:
        """Whether all that a tag or digest names is there, under its digest."""
        content = self.repositories[name]
        digest = content.tags.get(reference, reference)
        if digest not in content.manifests:
            return False
        payload, media_type = content.manifests[digest]
        manifest = parse_manifest(payload, media_type)
        return (
            Digest.of(payload) == digest
            and all(Digest.of(content.blobs.get(one.digest, b"?")) == one.digest for one in manifest.blobs)
            and all(self.holds_whole(name, child.digest) for child in manifest.children)
        )


class RepositoryDouble:
    """A repository of a double."""

    def __init__(self, registry: RegistryDouble, remote: Remote) -> None:
        self.remote = remote
        self.name = remote.full_name
        self._registry = registry
        self._content = registry.repositories[remote.full_name]

    def _call(self, call: str, argument: str = "") -> None:
        self._registry.calls[call] += 1
        failure = self._registry.fails(call, argument)
        if failure is not None:
            raise failure

    async def get_manifest(self, reference: str) -> RemoteManifest:
        self._call("get_manifest", reference)
        digest = self._content.tags.get(reference, reference)
        if digest not in self._content.manifests:
            raise RemoteUnknown(f"{reference} is not there")
        return RemoteManifest(*self._content.manifests[digest], Digest.parse(digest))

    async def head_manifest(self, reference: str) -> Descriptor | None:
        self._call("head_manifest", reference)
        digest = self._content.tags.get(reference, reference)
        if digest not in self._content.manifests:
            return None
        payload, media_type = self._content.manifests[digest]
        return Descriptor(media_type, Digest.parse(digest), len(payload))

    async def put_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        self._call("put_manifest", reference)
        manifest = parse_manifest(content, media_type)
        if not self._registry.lists_referrers and media_type.endswith("index.v1+json"):
            pass  # the index of the tag schema names what another one holds
        elif any(one.digest not in self._content.blobs for one in manifest.blobs) or any(
            one.digest not in self._content.manifests for one in manifest.children
        ):
            raise RemoteError(f"{reference} is not whole")
        digest = Digest.of(content)
        self._content.manifests[digest] = (content, media_type)
        if ":" not in reference:
            self._content.tags[reference] = digest

    async def delete_manifest(self, reference: str) -> bool:
        self._call("delete_manifest", reference)
        return self._registry.deletes_tags and self._content.tags.pop(reference, None) is not None

    async def has_blob(self, digest: str) -> bool:
        self._call("has_blob", digest)
        return digest in self._content.blobs

    async def read_blob(self, digest: str, size: int, offset: int = 0) -> AsyncIterator[bytes]:
        self._call("read_blob", digest)
        if digest not in self._content.blobs:
            raise RemoteUnknown(digest)
        content = self._content.blobs[digest]
        assert len(content) == size
        for start in range(offset, size, 10_000):
            self._call("piece", digest)
            yield content[start : start + 10_000]

    async def mount_blob(self, digest: str, source: str) -> bool:
        self._call("mount_blob", source)
        there = self._registry.repositories[replace(self.remote, repository=source).full_name].blobs
        if digest in there:
            self._content.blobs[digest] = there[digest]
        return digest in there

    async def write_blob(self, digest: str, size: int, read: Callable[[int], AsyncIterator[bytes]]) -> None:
        self._call("write_blob", digest)
        content = b"".join([piece async for piece in read(0)])
        assert (Digest.of(content), len(content)) == (digest, size)
        self._content.blobs[digest] = content

    async def tags(self) -> AsyncIterator[str]:
        self._call("tags")
        for tag in sorted(self._content.tags):
            yield tag

    async def referrers(self, digest: str) -> list[Descriptor]:
        self._call("referrers", digest)
        if not self._registry.lists_referrers:
            named = self._content.tags.get(digest.replace(":", "-", 1), "")
            listed = json.loads(self._content.manifests[named][0])["manifests"] if named else []
            return [Descriptor(one["mediaType"], Digest.parse(one["digest"]), one["size"]) for one in listed]
        found = []
        for other, (payload, media_type) in self._content.manifests.items():
            subject = parse_manifest(payload, media_type).subject
            if subject is not None and subject.digest == digest:
                found.append(Descriptor(media_type, Digest.parse(other), len(payload)))
        return found

    async def permissions(self) -> Permissions:
        self._call("permissions")
        return Permissions(read=True, write=True)
