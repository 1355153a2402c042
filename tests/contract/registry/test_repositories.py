"""Repositories: made in a namespace, changed, deleted; what a deleted one held is nobody's at once."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import bindparam, delete
from tests.support.grants import grant_team
from tests.support.images import make_artifact, make_image
from tests.support.invariants import assert_invariants
from tests.support.rooms import Counter, Rooms, SlowBody, make_body

from dtr.accounts import AccountInUse, Action, Level, Operation, TokenScope, may
from dtr.db import Statement, Transaction
from dtr.db.schema import repositories
from dtr.events import Actor
from dtr.oci import Digest, NameInvalid, RepositoryName, parse_repository_name
from dtr.registry import (
    BlobUnknown,
    InvalidSettings,
    ManifestUnknown,
    NamespaceUnknown,
    RepositoryExists,
    RepositoryUnknown,
    Settings,
    TagImmutable,
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
    begun = await stored.uploads.start(repository)
    begun = await stored.uploads.append(begun, make_body(b"some"))
    small = await stored.uploads.start(repository)
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
        (stored.uploads.start(repository), RepositoryUnknown),
        (stored.uploads.store(repository, Digest.of(b"x"), make_body(b"x")), RepositoryUnknown),
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
    upload = await stored.uploads.start(repository)
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


# --- immutable tags, events -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"immutable_patterns": ("v*",), "tag_limit": 1},
        {"immutable_patterns": ("",)},
        {"immutable_patterns": ("v[0-9]",)},
        {"immutable_patterns": ("a/b",)},
        {"immutable_patterns": ("x" * 129,)},
        {"immutable_patterns": tuple(f"v{n}" for n in range(101))},
        {"short_description": "x" * 1001},
        {"long_description": "nul: \0"},
        {"short_description": "half: \ud800"},
    ],
)
async def test_patterns_and_descriptions_that_cannot_be_are_refused(rooms: Rooms, settings):
    with pytest.raises(InvalidSettings):
        await rooms.make_repository("acme/app", **settings)


async def test_tags_that_a_pattern_matches_are_not_overwritten_but_may_be_deleted(rooms: Rooms):
    repository = await rooms.make_repository(immutable_patterns=("v*", "release-?"))
    first, second = make_image(), make_image()
    await rooms.push(repository, first, "v1", "release-1", "release-10", "latest")
    await rooms.push(repository, second)
    await rooms.put(repository, first, "v1")  # the same again is no overwriting
    for tag, pattern in (("v1", "v*"), ("release-1", "release-?")):
        with pytest.raises(TagImmutable) as caught:
            await rooms.put(repository, second, "latest", tag)
        assert (caught.value.tag, caught.value.pattern) == (tag, pattern)
    assert (await rooms.manifests.get("acme/app", "latest")).digest == first.digest
    await rooms.put(repository, second, "latest", "release-10")
    deleted = await rooms.manifests.delete_tags(repository, ["v1", "nothing"])
    assert (deleted.gone, deleted.signed) == ({"v1"}, frozenset())
    await rooms.put(repository, second, "v1")
    assert (await rooms.manifests.get("acme/app", "v1")).digest == second.digest
    await assert_invariants(rooms)


async def test_many_tags_are_deleted_together_with_what_was_counted_of_them(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, *(f"v{n}" for n in range(100)))
    for reference in ("v1", "v99", digest):
        await rooms.change(
            "INSERT INTO pulls (repository_id, reference, pulls, last_pulled_at) VALUES (:repository, :tag, 7, 1)",
            repository=repository,
            tag=reference,
        )
    counter = Counter().watch(rooms.database)
    deleted = await rooms.manifests.delete_tags(repository, [f"v{n}" for n in range(200)])
    assert deleted.gone == {f"v{n}" for n in range(100)}
    assert counter.units == 1
    assert counter.statements - 100 <= 6  # an event for each
    assert await rooms.query("SELECT reference FROM pulls") == [(digest,)]
    assert (await rooms.manifests.get("acme/app", digest)).payload == image.payload
    await assert_invariants(rooms)


async def events_of(rooms: Rooms) -> list[tuple]:
    return await rooms.query(
        "SELECT type, actor_name, repository, object_name, target_name FROM events"
        " WHERE object_type = 'repository' ORDER BY id"
    )


async def test_every_change_of_a_repository_is_an_event(rooms: Rooms):
    ada = Actor("user", "1", "ada", "192.0.2.7")
    await rooms.make_repository("acme/other")
    name = parse_repository_name("acme/app")
    await rooms.repositories.create(name, Settings(), by=ada)
    await rooms.repositories.update("acme/app", by=ada, tag_limit=3, long_description="a long story")
    await rooms.repositories.update("acme/app", by=ada, tag_limit=3)  # changes nothing
    await rooms.repositories.rename("acme/app", parse_repository_name("acme/web"), by=ada)
    await rooms.repositories.set_scan_on_push(True, by=ada)
    await rooms.repositories.delete("acme/web", by=ada)
    assert (await events_of(rooms))[1:] == [
        ("CREATE", "ada", "acme/app", "acme/app", None),
        ("UPDATE", "ada", "acme/app", "acme/app", None),
        ("UPDATE", "ada", "acme/app", "acme/app", "acme/web"),
        ("UPDATE", "ada", "", "*", None),
        ("DELETE", "ada", "acme/web", "acme/web", None),
    ]
    assert await rooms.query(
        "SELECT object_content FROM events WHERE type = 'UPDATE' AND target_id IS NULL ORDER BY id"
    ) == [('{"long_description": null, "tag_limit": 3}',), ('{"scan_on_push": true}',)]


async def test_the_scan_mode_of_all_repositories_changes_at_once(rooms: Rooms):
    for n in range(3):
        await rooms.make_repository(f"acme/app{n}", scan_on_push=n == 1)
    await rooms.repositories.set_scan_on_push(True)
    await rooms.make_repository("acme/later")
    found = await rooms.repositories.list_repositories(limit=10)
    assert [one.settings.scan_on_push for one in found] == [True, True, True, False]


async def test_all_repositories_of_an_account_go_and_then_the_account(rooms: Rooms):
    for n in range(205):
        await rooms.make_repository(f"acme/app{n}")
    repository = await rooms.make_repository("acme/content")
    await rooms.push(repository, make_image(), "latest")
    await rooms.make_repository("other/app")
    account = await rooms.accounts.get("acme")
    with pytest.raises(AccountInUse):
        await rooms.accounts.delete("acme")
    assert await rooms.repositories.delete_all(account.id) == 206
    assert [one.path for one in await rooms.repositories.list_repositories(limit=500)] == ["other/app"]
    await rooms.accounts.delete("acme")
    assert await rooms.query("SELECT count(*) FROM repositories WHERE namespace_id IS NULL") == [(206,)]
    assert f"namespace:{account.id}" not in await rooms.usage()
    await assert_invariants(rooms)
    # Nobody looks for an owner when the content goes.
    await rooms.manifests.delete(repository, (await rooms.query("SELECT digest FROM manifests"))[0][0])
    for (digest,) in await rooms.query("SELECT digest FROM repository_blobs"):
        await rooms.blobs.delete(repository, digest)
    assert await rooms.usage() == {}
    await assert_invariants(rooms)


# --- renaming -------------------------------------------------------------------------------------------------


async def rename(rooms: Rooms, path: str, new_path: str) -> None:
    await rooms.repositories.rename(path, parse_repository_name(new_path))


async def find(rooms: Rooms, path: str) -> str | None:
    """Where the name leads to, when it is not the repository's own."""
    name = await rooms.accounts.standings.find_name(path)
    return None if name == path else name


async def test_a_renamed_repository_keeps_everything_and_its_old_names_lead_to_it(rooms: Rooms):
    repository = await rooms.make_repository("acme/app", tag_limit=7)
    image = make_image()
    await rooms.push(repository, image, "latest")
    before = await rooms.usage()
    renamed = await rooms.repositories.rename("acme/app", parse_repository_name("acme/web/ui"))
    assert (renamed.id, renamed.path, renamed.settings.tag_limit) == (repository, "acme/web/ui", 7)
    assert (await rooms.manifests.get("acme/web/ui", "latest")).payload == image.payload
    with pytest.raises(RepositoryUnknown):
        await rooms.repositories.get("acme/app")
    await rename(rooms, "acme/web/ui", "acme/web")
    assert await find(rooms, "acme/app") == await find(rooms, "acme/web/ui") == "acme/web"
    assert await find(rooms, "acme/web") is None
    assert await rooms.usage() == before
    await assert_invariants(rooms)


async def test_a_redirect_ends_when_the_name_is_taken_and_with_the_repository(rooms: Rooms):
    await rooms.make_repository("acme/a")
    await rename(rooms, "acme/a", "acme/b")
    await rooms.make_repository("acme/a")
    assert await find(rooms, "acme/a") is None
    await rename(rooms, "acme/b", "acme/c")
    await rename(rooms, "acme/a", "acme/b")  # takes the name from a redirect
    assert await find(rooms, "acme/b") is None
    assert await find(rooms, "acme/a") == "acme/b"
    await rename(rooms, "acme/b", "acme/a")  # and back
    assert await find(rooms, "acme/b") == "acme/a"
    await rooms.repositories.delete("acme/a")
    assert await find(rooms, "acme/b") is None
    assert await rooms.query("SELECT path FROM repository_redirects") == []


async def test_names_that_are_taken_missing_or_none_are_refused(rooms: Rooms):
    await rooms.make_repository("acme/a")
    await rooms.make_repository("acme/b")
    for old, new, error in (
        ("acme/a", "acme/b", RepositoryExists),
        ("acme/x", "acme/c", RepositoryUnknown),
        ("acme/a", "nobody/a", NamespaceUnknown),
        ("acme/a", "acme", NameInvalid),
    ):
        with pytest.raises(error):
            await rename(rooms, old, new)
    await rename(rooms, "acme/a", "acme/a")
    assert await rooms.count("repository_redirects") == 0


async def test_of_many_who_rename_to_one_name_one_succeeds(rooms: Rooms):
    hosts = [rooms, rooms.another(), rooms.another()]
    for n in range(6):
        await rooms.make_repository(f"acme/app{n}")
    outcomes = await asyncio.gather(
        *(rename(hosts[n % 3], f"acme/app{n}", "acme/web") for n in range(6)), return_exceptions=True
    )
    assert sum(one is None for one in outcomes) == 1
    assert sum(isinstance(one, RepositoryExists) for one in outcomes) == 5
    assert await rooms.count("repository_redirects") == 1


async def test_what_teams_and_robots_were_granted_ends_in_another_namespace_and_of_users_stays(rooms: Rooms):
    repository = await rooms.make_repository("acme/app")
    await rooms.accounts.create_user("ada", None)
    await rooms.accounts.organizations.create_team("acme", "devs")
    await grant_team(rooms.accounts, "acme/app", "devs", Level.WRITE)
    robot = await rooms.accounts.robots.create(await rooms.accounts.get("acme"), "ci")
    for account in (await rooms.accounts.get("ada"), robot.account):
        await rooms.change(
            "INSERT INTO repository_user_grants (repository_id, user_id, level)"
            " VALUES (:repository, :id, 'admin')",
            repository=repository,
            id=account.id,
        )
    await rename(rooms, "acme/app", "acme/web")
    assert (await rooms.count("repository_grants"), await rooms.count("repository_user_grants")) == (1, 2)
    await rooms.accounts.create_organization("other")
    await rename(rooms, "acme/web", "other/web")
    assert await rooms.count("repository_grants") == 0
    assert await rooms.count("repository_user_grants") == 1
    assert (await rooms.repositories.get("other/web")).namespace_kind == "organization"


async def test_usage_of_namespaces_is_right_after_a_move_whatever_they_share(rooms: Rooms):
    moving, staying = await rooms.make_repository("acme/moving"), await rooms.make_repository("acme/staying")
    target = await rooms.make_repository("other/there")
    shared_here, shared_there, own = (make_image(size=1000) for _ in range(3))
    for repository, images in (
        (moving, (shared_here, shared_there, own)),
        (staying, (shared_here,)),
        (target, (shared_there,)),
    ):
        for image in images:
            await rooms.push(repository, image)
    await rename(rooms, "acme/moving", "other/moving")
    await assert_invariants(rooms)
    await rename(rooms, "other/moving", "acme/back")
    await assert_invariants(rooms)
    empty = await rooms.make_repository("acme/empty")
    await rename(rooms, "acme/empty", "other/empty")
    await rooms.push(empty, own)
    await assert_invariants(rooms)


async def test_usage_is_right_when_a_repository_moves_to_and_fro_during_pushes(rooms: Rooms):
    hosts = [rooms, rooms.another(), rooms.another()]
    moving, staying = await rooms.make_repository("acme/app"), await rooms.make_repository("acme/other")
    await rooms.make_repository("beta/x")
    images = [make_image() for _ in range(8)]

    async def push(host: Rooms, repository: int) -> None:
        for image in images:
            await host.push(repository, image, "latest")

    async def move() -> None:
        for _ in range(6):
            await rename(hosts[2], "acme/app", "beta/app")
            await asyncio.sleep(0.01)
            await rename(hosts[2], "beta/app", "acme/app")

    await asyncio.gather(push(hosts[0], moving), push(hosts[1], staying), push(hosts[1], moving), move())
    await assert_invariants(rooms)
    assert {one.path for one in await rooms.repositories.list_repositories(limit=9)} == {
        "acme/app",
        "acme/other",
        "beta/x",
    }


async def test_a_repository_is_found_by_each_of_its_names_at_every_moment_of_renaming(rooms: Rooms):
    repository = await rooms.make_repository("acme/here", visibility="public")
    await rename(rooms, "acme/here", "acme/there")
    await rename(rooms, "acme/there", "acme/here")
    host = rooms.another()
    done = asyncio.Event()

    async def move() -> None:
        for _ in range(10):
            await rename(rooms, "acme/here", "acme/there")
            await rename(rooms, "acme/there", "acme/here")
        done.set()

    async def look(name: str) -> None:
        while not done.is_set():
            standing = await host.accounts.standings.find(None, name)
            found = standing.redirect.standing if standing.redirect else standing
            assert (found.repository_id, found.facts.is_public) == (repository, True)
            await asyncio.sleep(0)

    await asyncio.gather(move(), look("acme/here"), look("acme/there"))


async def test_rights_under_an_old_name_are_those_on_the_new_one_and_those_of_the_token(rooms: Rooms):
    repository = await rooms.make_repository("acme/old")
    await rooms.accounts.create_user("ada", None, is_admin=True)
    ada = (await rooms.accounts.get("ada")).id
    await rename(rooms, "acme/old", "acme/new")
    find_standing = rooms.accounts.standings.find
    found = (await find_standing(ada, "acme/old")).redirect
    assert found is not None
    assert (found.path, found.standing.repository_id, may(found.standing.facts, Operation.PULL)) == (
        "acme/new",
        repository,
        True,
    )
    for pattern, allowed in (("acme/new", True), ("acme/old", False), ("acme/*", True)):
        scope = TokenScope((pattern,), frozenset({Action.PULL}))
        found = (await find_standing(ada, "acme/old", scope=scope)).redirect
        assert found is not None
        assert may(found.standing.facts, Operation.PULL) is allowed, pattern
    anonymous = (await find_standing(None, "acme/old")).redirect
    assert anonymous is not None
    assert not may(anonymous.standing.facts, Operation.SEE)


async def test_many_repositories_are_one_read_without_what_is_long(rooms: Rooms):
    ids = [await rooms.make_repository(f"acme/app{n:02}", long_description="long") for n in range(50)]
    await rooms.repositories.delete("acme/app07")
    counter = Counter().watch(rooms.database)
    found = await rooms.repositories.get_many(reversed(ids))
    assert counter.seen == (1, 0)
    assert [one.path for one in found] == [f"acme/app{n:02}" for n in range(50) if n != 7]
    assert {one.settings.long_description for one in found} == {""}


async def test_the_id_of_a_repository_that_is_gone_is_never_given_again(rooms: Rooms):
    gone = await rooms.make_repository("acme/secret")
    await rooms.repositories.delete("acme/secret")

    async def collect(tx: Transaction) -> None:
        await tx.execute(Statement(delete(repositories).where(repositories.c.id == bindparam("id"))), id=gone)

    await rooms.database.unit(collect)
    assert await rooms.make_repository("acme/other") > gone  # events of the one are none of the other


async def test_another_repository_under_the_name_is_not_meant(rooms):
    """Somebody's rights were looked at on one repository; by then another one has its name."""
    await rooms.accounts.create_organization("acme")
    looked_at = await rooms.repositories.create(parse_repository_name("acme/meant"), Settings())
    await rooms.repositories.rename("acme/meant", parse_repository_name("acme/elsewhere"))
    await rooms.repositories.create(parse_repository_name("acme/meant"), Settings())
    for change in (
        rooms.repositories.get("acme/meant", number=looked_at),
        rooms.repositories.update("acme/meant", number=looked_at, visibility="public"),
        rooms.repositories.rename("acme/meant", parse_repository_name("acme/stolen"), number=looked_at),
        rooms.repositories.delete("acme/meant", number=looked_at),
    ):
        with pytest.raises(RepositoryUnknown):
            await change
    assert (await rooms.repositories.get("acme/meant")).settings.visibility == "private"
    assert (
        await rooms.repositories.update("acme/elsewhere", number=looked_at, tag_limit=3)
    ).settings.tag_limit == 3
