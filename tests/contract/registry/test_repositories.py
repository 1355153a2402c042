"""Repositories: made in a namespace, changed, deleted; what a deleted one held is nobody's at once."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.images import make_artifact, make_image
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, SlowBody, make_body

from dtr.oci import Digest, NameInvalid, RepositoryName, parse_repository_name
from dtr.registry import (
    BlobUnknown,
    InvalidSettings,
    ManifestUnknown,
    NamespaceUnknown,
    RepositoryExists,
    RepositoryUnknown,
    Settings,
    UploadUnknown,
)


async def test_a_repository_is_found_with_its_settings(rooms: Rooms):
    settings = Settings(
        visibility="public", short_description="an app", long_description="# App", scan_on_push=True, tag_limit=7
    )
    number = await rooms.make_repository(
        "acme/app", **{name: getattr(settings, name) for name in settings.__slots__}
    )
    found = await rooms.repositories.get("acme/app")
    assert (found.id, found.path, found.settings) == (number, "acme/app", settings)


@pytest.mark.parametrize("path", ["acme/app", "acme/a/b/c", "acme/" + "x" * 250])
async def test_names_of_two_parts_and_more_are_taken(rooms: Rooms, path: str):
    await rooms.make_repository(path)
    assert (await rooms.repositories.get(path)).path == path


async def test_a_name_of_one_part_is_refused_and_the_message_says_why(rooms: Rooms):
    await rooms.make_repository("acme/app")
    with pytest.raises(NameInvalid, match="namespace"):
        await rooms.repositories.create(parse_repository_name("acme"), Settings())
    with pytest.raises(NameInvalid, match="namespace"):
        await rooms.repositories.create(RepositoryName("acme/"), Settings())
    assert await rooms.count("repositories") == 1


async def test_a_namespace_that_is_not_there_is_refused(rooms: Rooms):
    with pytest.raises(NamespaceUnknown):
        await rooms.repositories.create(parse_repository_name("nobody/app"), Settings())


async def test_a_taken_name_is_refused(rooms: Rooms):
    await rooms.make_repository("acme/app")
    with pytest.raises(RepositoryExists):
        await rooms.make_repository("acme/app")


async def test_of_many_who_make_one_name_at_once_one_succeeds(rooms: Rooms):
    await rooms.make_repository("acme/other")
    hosts = [rooms, rooms.another(), rooms.another()]
    name = parse_repository_name("acme/app")
    outcomes = await asyncio.gather(
        *(hosts[n % 3].repositories.create(name, Settings()) for n in range(9)), return_exceptions=True
    )
    assert sum(isinstance(one, int) for one in outcomes) == 1
    assert sum(isinstance(one, RepositoryExists) for one in outcomes) == 8


@pytest.mark.parametrize(
    "settings",
    [
        {"tag_limit": 1, "immutable_tags": True},
        {"tag_limit": -1},
        {"tag_limit": 2**31},
        {"visibility": "secret"},
    ],
)
async def test_settings_that_do_not_go_together_are_refused(rooms: Rooms, settings):
    await rooms.make_repository("acme/app")
    with pytest.raises(InvalidSettings):
        await rooms.make_repository("acme/other", **settings)
    with pytest.raises(InvalidSettings):
        await rooms.repositories.update("acme/app", **settings)
    assert (await rooms.repositories.get("acme/app")).settings == Settings()


async def test_settings_change_one_by_one(rooms: Rooms):
    await rooms.make_repository("acme/app", tag_limit=3)
    await rooms.repositories.update("acme/app", visibility="public")
    changed = await rooms.repositories.update("acme/app", tag_limit=0, immutable_tags=True)
    assert changed == await rooms.repositories.get("acme/app")
    assert changed.settings == Settings(visibility="public", immutable_tags=True)
    with pytest.raises(RepositoryUnknown):
        await rooms.repositories.update("acme/other", visibility="public")


async def test_changes_at_once_are_all_kept(rooms: Rooms):
    await rooms.make_repository("acme/app")
    host = rooms.another()
    changes = {
        "visibility": "public",
        "short_description": "short",
        "long_description": "long",
        "scan_on_push": True,
        "tag_limit": 5,
    }
    await asyncio.gather(
        *(
            (rooms, host)[n % 2].repositories.update("acme/app", **{name: value})
            for n, (name, value) in enumerate(changes.items())
        )
    )
    assert (await rooms.repositories.get("acme/app")).settings == Settings(**changes)


async def test_repositories_are_listed_by_path_in_pages(rooms: Rooms):
    paths = ["acme/B".lower(), "acme/a-b", "acme/a.b", "acme/a/b", "acme/a_b", "acme/ab", "beta/x"]
    for path in paths:
        await rooms.make_repository(path)
    await rooms.make_repository("acme/gone")
    await rooms.repositories.delete("acme/gone")
    seen: list[str] = []
    while page := await rooms.repositories.list_repositories(after=seen[-1] if seen else "", limit=2):
        assert len(page) <= 2
        seen += [one.path for one in page]
    assert seen == sorted(paths)


async def test_deleting_what_is_not_there_is_refused(rooms: Rooms):
    await rooms.make_repository("acme/app")
    with pytest.raises(RepositoryUnknown):
        await rooms.repositories.delete("acme/other")
    await rooms.repositories.delete("acme/app")
    with pytest.raises(RepositoryUnknown):
        await rooms.repositories.delete("acme/app")


async def test_what_a_deleted_repository_held_is_invisible_at_once(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, "latest")
    await rooms.push(repository, make_artifact("application/x-sbom", subject=image))
    blob = await rooms.blobs.get("acme/app", Digest.of(image.blobs[0]))
    await rooms.repositories.delete("acme/app")
    for attempt, error in (
        (rooms.repositories.get("acme/app"), RepositoryUnknown),
        (rooms.blobs.get("acme/app", blob.digest), BlobUnknown),
        (rooms.blobs.get("acme/app", blob.digest, promise=True), BlobUnknown),
        (rooms.manifests.get("acme/app", "latest"), ManifestUnknown),
        (rooms.manifests.get("acme/app", digest), ManifestUnknown),
        (rooms.manifests.list_tags("acme/app", limit=10), RepositoryUnknown),
        (rooms.manifests.list_referrers("acme/app", digest, limit=10), RepositoryUnknown),
        (rooms.manifests.list_referrers("acme/app", digest, artifact_type="x", limit=10), RepositoryUnknown),
    ):
        with pytest.raises(error):
            await attempt
    await assert_invariants(rooms)


async def test_the_name_of_a_deleted_repository_is_free_at_once_and_the_new_one_is_empty(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    await rooms.push(repository, image, "latest")
    await rooms.repositories.delete("acme/app")
    again = await rooms.make_repository()
    assert again != repository
    assert await rooms.manifests.list_tags("acme/app", limit=10) == []
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", Digest.of(image.blobs[0]))
    await rooms.push(again, image, "latest")
    assert (await rooms.manifests.get("acme/app", "latest")).payload == image.payload
    await assert_invariants(rooms)


async def test_a_push_under_way_to_a_deleted_repository_ends_with_a_clear_error(stored: Rooms):
    repository = await stored.make_repository()
    other = await stored.make_repository("acme/other")
    image = make_image()
    await stored.push(other, image)
    source = await stored.blobs.get("acme/other", Digest.of(image.blobs[0]))
    begun = await stored.uploads.start(repository, None)
    begun = await stored.uploads.append(begun, make_body(b"some"))
    small = await stored.uploads.start(repository, None)
    slow = SlowBody()
    running = asyncio.create_task(stored.uploads.append(small, slow.body))
    await slow.send(b"more")
    await stored.repositories.delete("acme/app")
    slow.end()
    for attempt, error in (
        (running, UploadUnknown),
        (stored.uploads.append(begun, make_body(b"more")), UploadUnknown),
        (stored.uploads.finish(begun, Digest.of(b"some"), make_body()), UploadUnknown),
        (stored.uploads.finish(small, Digest.of(b"x"), make_body(b"x")), UploadUnknown),
        (stored.uploads.start(repository, None), RepositoryUnknown),
        (stored.uploads.store(repository, None, Digest.of(b"x"), make_body(b"x")), RepositoryUnknown),
        (stored.blobs.mount(source, repository), RepositoryUnknown),
        (stored.put(repository, image, "latest"), RepositoryUnknown),
    ):
        with pytest.raises(error):
            await attempt
    await assert_invariants(stored)
    await stored.expire_uploads()
    await stored.sweeper.sweep()
    assert await stored.count("uploads") == 0
    assert len(await stored.locations()) == await stored.count("blobs")


async def test_a_repository_deleted_between_completion_and_commit_takes_no_blob(stored: Rooms):
    repository = await stored.make_repository()
    upload = await stored.uploads.start(repository, None)
    slow = SlowBody(length=4)
    running = asyncio.create_task(stored.uploads.finish(upload, Digest.of(b"some"), slow.body))
    await slow.begun()
    await stored.repositories.delete("acme/app")
    await slow.send(b"some")
    slow.end()
    with pytest.raises(UploadUnknown):
        await running
    assert await stored.count("repository_blobs") == 0
    await assert_invariants(stored)


async def test_a_blob_is_not_mounted_from_a_deleted_repository(rooms: Rooms):
    repository = await rooms.make_repository()
    digest = await rooms.push_blob(repository, b"content")
    await rooms.make_repository("acme/other")
    await rooms.repositories.delete("acme/app")
    with pytest.raises(BlobUnknown):
        await rooms.blobs.get("acme/app", digest)


async def test_finding_a_repository_is_one_read(rooms: Rooms):
    await rooms.make_repository()
    counter = Counter().watch(rooms.database)
    await rooms.repositories.get("acme/app")
    assert counter.seen == (1, 0)
