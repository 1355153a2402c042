"""The client of other registries, and Debian's docker-registry with TLS by its own authority and a user."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from tests.contract.remotes.conftest import pieces_of
from tests.support.distribution import USER, USER_PASSWORD, DockerRegistry
from tests.support.images import OCI_INDEX, Image, digest_of, make_image

from dtr.remotes import (
    Permissions,
    Remote,
    RemoteDenied,
    RemoteRefused,
    RemoteRepository,
    Remotes,
    RemoteUnknown,
    RemoteUnreachable,
)


def remote(registry: DockerRegistry, repository: str = "acme/app", **more: Any) -> Remote:
    given = {"username": USER, "password": USER_PASSWORD, "ca": registry.ca, **more}
    return Remote(host=registry.url, repository=repository, **given)


async def push(repository: RemoteRepository, image: Image, *tags: str) -> None:
    for child in image.children:
        await push(repository, child)
    for blob in image.blobs:
        await repository.write_blob(digest_of(blob), len(blob), pieces_of(blob))
    for reference in tags or (image.digest,):
        await repository.put_manifest(reference, image.payload, image.media_type)


async def test_an_image_goes_there_and_comes_back(docker_registry: DockerRegistry, remotes: Remotes):
    image = make_image(layers=3, size=700_000)
    async with remotes.connect(remote(docker_registry)) as there:
        assert there.name == f"127.0.0.1:{docker_registry.port}/acme/app"
        assert await there.head_manifest("v1") is None
        assert not await there.has_blob(digest_of(image.blobs[0]))
        await push(there, image, "v1", "v2")
        found = await there.head_manifest("v1")
        assert found is not None
        assert (found.digest, found.media_type, found.size) == (image.digest, image.media_type, len(image.payload))
        for reference in ("v1", image.digest):
            manifest = await there.get_manifest(reference)
            assert (manifest.content, manifest.media_type) == (image.payload, image.media_type)
        for blob in image.blobs:
            assert await there.has_blob(digest_of(blob))
            pieces = [piece async for piece in there.read_blob(digest_of(blob), len(blob))]
            assert b"".join(pieces) == blob
            assert max(map(len, pieces)) <= 1024 * 1024
        rest = [piece async for piece in there.read_blob(digest_of(image.blobs[1]), len(image.blobs[1]), 500_000)]
        assert b"".join(rest) == image.blobs[1][500_000:]
        assert [tag async for tag in there.tags()] == ["v1", "v2"]
    async with remotes.connect(remote(docker_registry, "acme/other")) as other:
        assert await other.mount_blob(digest_of(image.blobs[0]), "acme/app")
        assert not await other.mount_blob(digest_of(os.urandom(9)), "acme/app")
        assert await other.has_blob(digest_of(image.blobs[0]))
        with pytest.raises(RemoteRefused, match=r"400 .MANIFEST_BLOB_UNKNOWN|MANIFEST_INVALID"):
            await other.put_manifest("v1", image.payload, image.media_type)  # its layers are not there
        with pytest.raises(RemoteUnknown):
            await other.get_manifest("v1")


async def test_blobs_of_all_sizes(docker_registry: DockerRegistry, remotes: Remotes):
    """In one request, in two, and nothing at all."""
    async with remotes.connect(remote(docker_registry)) as there:
        for size in (0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000):
            blob = os.urandom(size)
            await there.write_blob(digest_of(blob), size, pieces_of(blob))
            assert b"".join([piece async for piece in there.read_blob(digest_of(blob), size)]) == blob


async def test_manifests_are_deleted_where_that_can_be_done(docker_registry: DockerRegistry, remotes: Remotes):
    image = make_image()
    async with remotes.connect(remote(docker_registry, "acme/deleted")) as there:
        await push(there, image, "v1")
        assert not await there.delete_manifest("v1")  # no tags, says this one
        assert await there.delete_manifest(image.digest)
        assert await there.delete_manifest(image.digest)  # it is gone
        assert await there.head_manifest(image.digest) is None


async def test_referrers_by_the_tag_that_replaces_the_list(docker_registry: DockerRegistry, remotes: Remotes):
    image = make_image()
    signature = make_image(subject=image)
    index = Image(
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [signature.descriptor]}).encode(),
        OCI_INDEX,
        children=(signature,),
    )
    async with remotes.connect(remote(docker_registry, "acme/signed")) as there:
        await push(there, image, "v1")
        assert await there.referrers(image.digest) == []
        await push(there, index, image.digest.replace(":", "-"))
        assert [one.digest for one in await there.referrers(image.digest)] == [signature.digest]


async def test_what_may_be_done_there_leaves_no_trace(docker_registry: DockerRegistry, remotes: Remotes):
    async with remotes.connect(remote(docker_registry, "acme/untouched")) as there:
        assert await there.permissions() == Permissions(read=True, write=True)
        assert await there.kind() == "registry"
    data: Path = docker_registry.directory / "data"
    uploads = [one for name in ("data", "startedat") for one in data.rglob(f"untouched/_uploads/*/{name}")]
    assert uploads == []  # it is cancelled: none that is open
    assert any(data.rglob("untouched/_uploads")), "it was tried out"


@pytest.mark.parametrize(
    "wrong", [{"password": "wrong"}, {"username": "", "password": ""}, {"token": "wrong"}], ids=str
)
async def test_wrong_credentials(docker_registry: DockerRegistry, remotes: Remotes, wrong: dict[str, str]):
    async with remotes.connect(remote(docker_registry, **wrong)) as there:
        for work in (there.permissions, lambda: there.head_manifest("v1"), lambda: there.get_manifest("v1")):
            with pytest.raises(RemoteDenied):
                await work()


async def test_a_registry_whose_authority_is_not_trusted(
    docker_registry: DockerRegistry, remotes: Remotes, certificate: Any
):
    for ca in ("", certificate.authority.read_text()):
        async with remotes.connect(remote(docker_registry, ca=ca)) as there:
            with pytest.raises(RemoteUnreachable, match="certificate of the host is not trusted"):
                await there.permissions()
    async with remotes.connect(remote(docker_registry, ca="", skip_tls_verification=True)) as there:
        assert await there.permissions() == Permissions(read=True, write=True)


async def test_a_registry_that_dies_in_the_middle_of_a_layer(
    tmp_path: Path, remotes: Remotes, monkeypatch: pytest.MonkeyPatch
):
    """Reading goes on where it was, when the registry is there again; what was sent is sent anew."""
    registry = DockerRegistry(tmp_path / "registry").start()
    blob = os.urandom(6_000_000)
    asked: list[int] = []

    async def read(offset: int) -> Any:
        asked.append(offset)
        async for piece in pieces_of(blob)(offset):
            yield piece
            offset += len(piece)
            if offset == 4_000_000 and len(asked) == 1:
                registry.kill()
                registry.start()

    try:
        async with remotes.connect(Remote(host=registry.url, repository="acme/app")) as there:
            await there.write_blob(digest_of(blob), len(blob), read)
            assert asked == [0, 0]  # it does not know such an upload any more
            received = bytearray()
            async for piece in there.read_blob(digest_of(blob), len(blob)):
                if len(received) < 2_000_000 <= len(received) + len(piece):
                    registry.kill()
                    registry.start()
                received += piece
            assert received == blob
    finally:
        registry.kill()


async def test_a_transfer_holds_little(docker_registry: DockerRegistry, remotes: Remotes):
    """Twice 1 MiB at the most, for blobs of any size, in both directions."""
    piece, count = os.urandom(1024 * 1024), 16
    size, digest = count * len(piece), digest_of(piece * count)

    async def read(offset: int) -> Any:
        assert offset == 0
        for _ in range(count):
            yield piece

    async with remotes.connect(remote(docker_registry, "acme/large")) as there:
        assert not await there.has_blob(digest)  # what is imported and kept for good is
        tracemalloc.start()
        try:
            await there.write_blob(digest, size, read)
            assert sum([len(one) async for one in there.read_blob(digest, size)]) == size
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * 1024 * 1024, peak
