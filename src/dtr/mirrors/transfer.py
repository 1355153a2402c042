"""
Images from a repository of ours to one of another registry, and back.

An image is its manifest, the manifests of an index, their configs and layers; on wish also what refers to any of
them (signatures, attestations, bills of materials), by the referrers API, its tag schema, or cosign's tags. Only
what the other side lacks is sent, children before parents, so that each side is whole at every moment. What was
transferred stays when something fails, and the next attempt goes on from there.

OCI distribution specification 1.1, "Pull", "Push", "Listing Referrers" with its "Referrers Tag Schema".
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from dtr.at_once import at_once
from dtr.mirrors.errors import TransferFailed
from dtr.mirrors.local import read_manifest
from dtr.oci import OciError, companions, parse_manifest
from dtr.oci.media_types import OCI_INDEX
from dtr.registry import ManifestIncomplete
from dtr.remotes import RemoteUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import TypeAlias

    from dtr.events import Actor
    from dtr.mirrors.local import Local, Place
    from dtr.oci import Descriptor, Digest
    from dtr.registry import Manifests, Referrer, StoredManifest
    from dtr.remotes import RemoteRepository

    Mounts: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]


_MOST_MANIFESTS = 10_000
"""An index of 1,000 manifests, each with some that refer to it."""
_DEEPEST = 8
_AT_ONCE = 4
"""Blobs of an image that are under way."""
_ATTEMPTS = 3
"""To store a manifest, whose blobs may have gone while others were fetched."""
_PAGE = 100


class Transfer:
    """
    Transfers images.

    Its methods raise RemoteError, OciError, RegistryError, StorageError, and TransferFailed for what is no whole
    image.
    """

    def __init__(self, local: Local, manifests: Manifests) -> None:
        self.local = local
        self._manifests = manifests

    async def fetch(
        self,
        remote: RemoteRepository,
        place: Place,
        reference: str,
        tags: Sequence[str] = (),
        *,
        referrers: bool = False,
        chain: Sequence[str] = (),
        by: Actor,
    ) -> Digest:
        """Bring what a tag or digest names there into the repository, and let `tags` name it; its digest."""
        top = await remote.get_manifest(reference)
        for attempt in range(1, _ATTEMPTS + 1):
            fetching = _Fetching(self.local, remote, place, by)
            await fetching.parts(top.content, top.media_type, 0)
            if referrers:
                await fetching.referrers()
            try:
                return await self.local.store_manifest(
                    place, top.content, top.media_type, tags, chain=chain, by=by
                )
            except ManifestIncomplete:  # what was here at first went while others were fetched
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("not reached")

    async def fetch_referrers(self, remote: RemoteRepository, place: Place, digest: str, *, by: Actor) -> None:
        """Bring what refers by now to an image that is here."""
        fetching = _Fetching(self.local, remote, place, by)
        stored = await self.local.find_manifest(place, digest)
        if stored is not None:
            await fetching.look_into(stored)
            await fetching.referrers()

    async def send(
        self,
        remote: RemoteRepository,
        place: Place,
        digest: str,
        tag: str,
        *,
        referrers: bool = False,
        mounts: Mounts | None = None,
    ) -> None:
        """
        Bring what has `digest` here to the remote, and let `tag` name it there.

        `mounts` says which other repositories of the remote may have a blob.
        """
        sending = _Sending(self.local, self._manifests, remote, place, mounts)
        await sending.tag(tag, await sending.stored(digest), is_whole=referrers)
        if referrers:
            await sending.referrers()


class _Under(Struct, kw_only=True):
    """An image under way."""

    seen: set[str] = field(default_factory=set)
    """The digests of its manifests, and of what refers to them."""

    def visit(self, digest: str) -> bool:
        """Whether a manifest was not seen before. Raises TransferFailed."""
        if digest in self.seen:
            return False
        if len(self.seen) == _MOST_MANIFESTS:
            raise TransferFailed(f"more than {_MOST_MANIFESTS} manifests belong to the image")
        self.seen.add(digest)
        return True

    async def for_each_seen(self, work: Callable[[str], Awaitable[None]]) -> None:
        """Do it for each manifest that was seen, and for those that are seen meanwhile."""
        done: set[str] = set()
        while waiting := sorted(self.seen - done):
            for digest in waiting:
                await work(digest)
            done.update(waiting)


class _Fetching(_Under):
    """An image under way from there to here."""

    local: Local
    remote: RemoteRepository
    place: Place
    by: Actor

    async def parts(self, content: bytes, media_type: str, depth: int) -> None:
        """Bring what a manifest names."""
        digest, manifest = await asyncio.to_thread(read_manifest, content, media_type)
        self.visit(digest)
        for child in manifest.children:
            if self.visit(child.digest):
                await self.manifest(child.digest, depth + 1)
        await at_once(self.blob, _distinct(manifest.blobs), _AT_ONCE)

    async def manifest(self, digest: str, depth: int) -> None:
        """Bring a manifest without a tag, unless it is here: then so is what it names."""
        if depth > _DEEPEST:
            raise TransferFailed(f"indexes are nested deeper than {_DEEPEST}")
        if (present := await self.local.find_manifest(self.place, digest)) is not None:
            await self.look_into(present)
            return
        try:
            found = await self.remote.get_manifest(digest)
        except RemoteUnknown:
            raise TransferFailed(f"manifest {digest} is named there, but is not there") from None
        await self.parts(found.content, found.media_type, depth)
        await self.local.store_manifest(self.place, found.content, found.media_type, by=self.by)

    async def look_into(self, present: StoredManifest) -> None:
        """Go over the manifests of an index that is here: something new may refer to them."""
        self.visit(present.digest)
        _, manifest = await asyncio.to_thread(read_manifest, present.payload, present.media_type)
        for child in manifest.children:
            if self.visit(child.digest) and (found := await self.local.find_manifest(self.place, child.digest)):
                await self.look_into(found)

    async def blob(self, blob: Descriptor) -> None:
        """Bring a blob, unless it is here."""
        await self.local.store_blob(
            self.place,
            blob.digest,
            blob.size,
            lambda offset: self.remote.read_blob(blob.digest, blob.size, offset),
        )

    async def referrers(self) -> None:
        """Bring what refers to what was seen, and what refers to that."""
        await self.for_each_seen(self._referrers_of)

    async def _referrers_of(self, digest: str) -> None:
        for referrer in await self.remote.referrers(digest):
            if self.visit(referrer.digest):
                await self.manifest(referrer.digest, 1)
        for tag in companions(digest)[1:]:  # the first is written or read as a list of referrers
            found = await self.remote.head_manifest(tag)
            present = await self.local.find_manifest(self.place, tag) if found else None
            if found is not None and (present is None or present.digest != found.digest):
                read = await self.remote.get_manifest(tag)
                await self.parts(read.content, read.media_type, 0)
                await self.local.store_manifest(self.place, read.content, read.media_type, [tag], by=self.by)


class _Sending(_Under):
    """An image under way from here to there."""

    local: Local
    manifests: Manifests
    remote: RemoteRepository
    place: Place
    mounts: Mounts | None

    async def stored(self, digest: str) -> StoredManifest:
        """A manifest of ours. Raises TransferFailed."""
        found = await self.local.find_manifest(self.place, digest)
        if found is None:
            raise TransferFailed(f"manifest {digest} is not here")
        return found

    async def tag(self, tag: str, stored: StoredManifest, *, is_whole: bool = True) -> None:
        """Let a tag there name a manifest; with `is_whole` its parts are looked at also when it does."""
        named = await self.remote.head_manifest(tag)
        is_there = named is not None and named.digest == stored.digest
        if not is_there or is_whole:
            await self.parts(stored, 0, is_there=is_there)
        if not is_there:
            await self.remote.put_manifest(tag, stored.payload, stored.media_type)

    async def parts(self, stored: StoredManifest, depth: int, *, is_there: bool) -> None:
        """Send what a manifest names; one that is there is whole, and only looked into."""
        if depth > _DEEPEST:
            raise TransferFailed(f"indexes are nested deeper than {_DEEPEST}")
        self.visit(stored.digest)
        _, manifest = await asyncio.to_thread(read_manifest, stored.payload, stored.media_type)
        for child in manifest.children:
            if self.visit(child.digest):
                await self.manifest(child.digest, depth + 1, is_there=is_there)
        if not is_there:
            await at_once(self.blob, _distinct(manifest.blobs), _AT_ONCE)

    async def manifest(self, digest: str, depth: int, *, is_there: bool = False) -> None:
        """Send a manifest without a tag."""
        stored = await self.stored(digest)
        is_there = is_there or await self.remote.head_manifest(digest) is not None
        await self.parts(stored, depth, is_there=is_there)
        if not is_there:
            await self.remote.put_manifest(digest, stored.payload, stored.media_type)

    async def blob(self, blob: Descriptor) -> None:
        """Send a blob, unless it is there, or another repository there has it."""
        if await self.remote.has_blob(blob.digest):
            return
        for source in await self.mounts(blob.digest) if self.mounts else ():
            if await self.remote.mount_blob(blob.digest, source):
                return
        found = await self.local.find_blob(self.place, blob.digest)
        if found is None:
            raise TransferFailed(f"blob {blob.digest} is not here")
        await self.remote.write_blob(blob.digest, found.size, lambda offset: self.local.read_blob(found, offset))

    async def referrers(self) -> None:
        """Send what refers to what was seen, and what refers to that."""
        await self.for_each_seen(self._referrers_of)

    async def _referrers_of(self, digest: str) -> None:
        ours: list[Referrer] = []
        page: list[Referrer] | None = None
        while page is None or len(page) == _PAGE:
            after = ours[-1].digest if ours else ""
            page = await self.manifests.list_referrers(self.place.id, digest, after=after, limit=_PAGE)
            ours += page
        for one in ours:
            if self.visit(one.digest):
                await self.manifest(one.digest, 1)
        if ours:
            await self._list(digest, ours)
        for tag in companions(digest)[1:]:  # the first is written or read as a list of referrers
            if (stored := await self.local.find_manifest(self.place, tag)) is not None:
                await self.tag(tag, stored)

    async def _list(self, subject: str, ours: Sequence[Referrer]) -> None:
        """Where the remote does not list referrers by itself, write the index of the tag schema."""
        listed = {one.digest for one in await self.remote.referrers(subject)}
        lacking = [one for one in ours if one.digest not in listed]
        if not lacking:
            return
        tag = subject.replace(":", "-", 1)
        try:
            present = descriptors_in((await self.remote.get_manifest(tag)).content)
        except RemoteUnknown:
            present = []
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [*present, *(_descriptor(one) for one in lacking)],
        }
        await self.remote.put_manifest(tag, json.dumps(index).encode(), OCI_INDEX)


def descriptors_in(index: bytes) -> list[Any]:
    """The descriptors of an index, as they are written there; of what is none: nothing."""
    try:
        parse_manifest(index)
    except OciError:
        return []
    found: list[Any] | None = json.loads(index).get("manifests")
    return found or []


def _descriptor(referrer: Referrer) -> dict[str, Any]:
    made: dict[str, Any] = {"mediaType": referrer.media_type, "digest": referrer.digest, "size": referrer.size}
    if referrer.artifact_type:
        made["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        made["annotations"] = referrer.annotations
    return made


def _distinct(blobs: Iterable[Descriptor]) -> list[Descriptor]:
    return list({blob.digest: blob for blob in blobs}.values())
