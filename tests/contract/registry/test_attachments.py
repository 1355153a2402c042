"""What is attached to images, and what tags named, on both databases."""

from __future__ import annotations

import json

from tests.support.images import Image, descriptor, make_artifact, make_image
from tests.support.rooms import Rooms
from tests.support.signing import signature_tag

from dtr.events import Actor
from dtr.events.tag_history import TagHistory
from dtr.oci import Digest, parse_manifest
from dtr.registry import Origin
from dtr.registry.attachments import MOST, Attachments

SBOM, SIGNATURE = "application/spdx+json", "application/vnd.cncf.notary.signature"


def make_built(image: Image) -> tuple[Image, Image]:
    """An index as BuildKit makes it, and what is attested of its only image."""
    attested = make_artifact("application/vnd.in-toto+json", b"{}", subject=None)
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **descriptor(image.media_type, image.payload),
                "platform": {"os": "linux", "architecture": "amd64"},
            },
            {
                **descriptor(attested.media_type, attested.payload),
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.digest": image.digest},
            },
        ],
    }
    index = Image(json.dumps(document).encode(), document["mediaType"], (), (image, attested))
    return index, attested


async def found(rooms: Rooms, repository: int, image: Image) -> tuple[set[tuple[str, str, str]], bool]:
    attachments = Attachments(rooms.database, rooms.images)
    record = await rooms.images.get_manifest(repository, image.digest)
    listed, is_all = await attachments.find(repository, record)
    return {(one.manifest.kind, one.subject, one.tag) for one in listed}, is_all


async def test_what_refers_to_an_image_is_found_with_what_refers_to_that(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    sbom = make_artifact(SBOM, b"{}", subject=image)
    signed = make_artifact(SIGNATURE, b"sig", subject=sbom)
    for one in (image, sbom, signed):
        await rooms.push(repository, one)
    tag = signature_tag(image.digest)
    await rooms.push(repository, make_artifact("application/vnd.dev.cosign.simplesigning.v1+json", b"x"), tag)
    assert await found(rooms, repository, image) == (
        {("sbom", image.digest, ""), ("signature", sbom.digest, ""), ("signature", image.digest, tag)},
        True,
    )
    assert await found(rooms, repository, signed) == (set(), True)


async def test_what_is_attested_of_the_image_of_an_index_belongs_to_the_image(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    index, attested = make_built(image)
    await rooms.push(repository, index, "built")
    await rooms.push(repository, make_artifact(SBOM, b"{}", subject=image))
    await rooms.push(repository, make_artifact(SIGNATURE, b"s", subject=attested))
    assert (await found(rooms, repository, index))[0] == {
        ("attestation", image.digest, ""), ("sbom", image.digest, ""), ("signature", attested.digest, ""),
    }  # fmt: skip
    record = await rooms.images.get_manifest(repository, index.digest)
    assert [(one.is_image, one.about) for one in record.platforms] == [(True, ""), (False, image.digest)]
    assert await rooms.query("SELECT platforms FROM manifests WHERE digest = :digest", digest=index.digest) == [
        (1,)
    ]


async def test_what_is_too_much_is_left_out_and_that_is_said(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    await rooms.push(repository, image)
    await rooms.push(repository, make_artifact("x/y", b""))
    for number in range(MOST + 5):
        await rooms.put(repository, make_artifact("x/y", b"", subject=image, annotations={"n": str(number)}))
    listed, is_all = await Attachments(rooms.database, rooms.images).find(
        repository, await rooms.images.get_manifest(repository, image.digest)
    )
    assert (len(listed), len({one.manifest.digest for one in listed}), is_all) == (MOST, MOST, False)


async def test_nothing_of_another_repository_is_attached(rooms: Rooms):
    here, there = await rooms.make_repository("acme/app"), await rooms.make_repository("acme/other")
    image = make_image()
    await rooms.push(here, image)
    await rooms.push(there, image)
    await rooms.push(there, make_artifact(SBOM, b"{}", subject=image))
    assert await found(rooms, here, image) == (set(), True)


async def test_the_history_of_a_tag_says_what_it_named_by_whom(rooms: Rooms):
    repository, other = await rooms.make_repository("acme/app"), await rooms.make_repository("acme/other")
    first = await rooms.push(repository, make_image(), "v1", author="ada")
    second = await rooms.push(repository, make_image(), "v1", author="bob")
    await rooms.manifests.put(*await again(rooms, repository, "v1"), by=Actor("user", "id of ada", "ada"))
    await rooms.manifests.delete_tag(repository, "v1", by=Actor("policy", "p1", "old ones"))
    third = await rooms.push(other, make_image(), "v2", author="bob")
    await rooms.push(repository, make_image(), "v10", author="bob")
    await rooms.promotion.promote(other, third, repository, "v1", Origin("acme/other", "v2"))
    history = TagHistory(rooms.database)
    changes = await history.list_changes(repository, "v1", limit=10)
    assert [(one.before, one.digest, one.actor.name) for one in changes] == [
        ("", third, ""),
        (second, "", "old ones"),
        (second, second, "ada"),
        (first, second, "bob"),
        ("", first, "ada"),
    ]
    assert [one.id for one in changes] == sorted((one.id for one in changes), reverse=True)
    page = await history.list_changes(repository, "v1", start=changes[2].id, limit=2)
    assert page == changes[2:4]
    assert await history.list_changes(other, "v1", limit=10) == []


async def again(rooms: Rooms, repository: int, tag: str):
    """What a push of what a tag names is made with."""
    named = (await rooms.images.get_tag(repository, tag)).manifest
    payload = await rooms.images.get_payload(repository, named.digest)
    return repository, parse_manifest(payload, named.media_type), payload, Digest.parse(named.digest), (tag,)
