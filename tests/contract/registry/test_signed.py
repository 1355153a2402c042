"""What content trust names cannot be deleted, on both databases: tags, manifests, repositories."""

from __future__ import annotations

import pytest
from tests.support.images import make_image, make_index
from tests.support.rooms import GUN, Counter, Rooms, annotated

from dtr.events import Actor, Events, Filter
from dtr.registry import ManifestUnknown, RepositorySigned, TagSigned
from dtr.trust.index import TargetSignature, is_signed_as

IMAGE, OTHER = make_image(), make_image()
ADA = Actor("user", "id of an administrator", "ada")
ELSEWHERE = "old.test:8443/acme/app"


@pytest.fixture
async def app(rooms: Rooms) -> int:
    """A repository with the tags `signed`, `moved` (in content trust for another image) and `plain`."""
    number = await rooms.make_repository("acme/app")
    await rooms.push(number, IMAGE, "signed")
    await rooms.push(number, OTHER, "moved", "plain")
    await rooms.sign(number, "signed", IMAGE.digest, role="targets/alice")
    await rooms.sign(number, "moved", IMAGE.digest)
    return number


async def tags_of(rooms: Rooms, repository: int) -> list[str]:
    return await rooms.manifests.list_tags(repository, limit=100)


async def test_signed_tags_stay_whatever_they_name_now(rooms: Rooms, app: int):
    for tag in ("signed", "moved"):
        with pytest.raises(TagSigned, match=tag):
            await rooms.manifests.delete_tag(app, tag)
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.delete_tag(app, "nothing")
    counter = Counter().watch(rooms.database)
    deleted = await rooms.manifests.delete_tags(app, ["signed", "moved", "plain", "nothing"])
    assert (deleted.gone, deleted.signed) == ({"plain"}, {"signed", "moved"})
    assert (counter.units, counter.statements) == (1, 9)  # one says that the summary is another
    assert await tags_of(rooms, app) == ["moved", "signed"]


async def test_signed_tags_are_moved_by_pushes(rooms: Rooms, app: int):
    await rooms.put(app, OTHER, "signed")
    found = await rooms.signed.signed(app, {"signed": OTHER.digest, "moved": OTHER.digest, "plain": OTHER.digest})
    assert found == {"signed": False, "moved": False}
    assert await rooms.signed.signed(app, {"signed": IMAGE.digest}) == {"signed": True}


async def test_manifests_to_which_content_trust_leads_stay(rooms: Rooms, app: int):
    with pytest.raises(TagSigned):  # its tag `signed` is signed for it
        await rooms.manifests.delete(app, IMAGE.digest)
    with pytest.raises(TagSigned, match="moved"):  # its tag `moved` is signed, for the other
        await rooms.manifests.delete(app, OTHER.digest)
    await rooms.put(app, OTHER, "signed")
    with pytest.raises(TagSigned):  # no tag names it here, and clients of content trust pull it
        await rooms.manifests.delete(app, IMAGE.digest)
    free = annotated(OTHER, free="yes")
    await rooms.put(app, free, "free")
    await rooms.manifests.delete(app, free.digest)
    assert await tags_of(rooms, app) == ["moved", "plain", "signed"]


async def test_a_signed_index_stays(rooms: Rooms, app: int):
    index = make_index(annotated(IMAGE, child="yes"))
    await rooms.push(app, index, "index")
    await rooms.sign(app, "index", index.digest)
    with pytest.raises(TagSigned):
        await rooms.manifests.delete(app, index.digest)


async def test_a_tag_limit_leaves_signed_tags_and_does_not_count_them(rooms: Rooms, app: int):
    await rooms.repositories.update("acme/app", tag_limit=1)
    await rooms.put(app, IMAGE, "newer")
    assert await tags_of(rooms, app) == ["moved", "newer", "signed"]


async def test_names_of_other_repositories_do_not_count(rooms: Rooms, app: int):
    other = await rooms.make_repository("acme/other")
    await rooms.push(other, IMAGE, "signed")
    assert (await rooms.manifests.delete_tags(other, ["signed"])).gone == {"signed"}
    await rooms.manifests.delete(other, IMAGE.digest)
    await rooms.repositories.delete("acme/other")
    assert await tags_of(rooms, app) == ["moved", "plain", "signed"]


async def test_repositories_with_signed_tags_stay(rooms: Rooms, app: int):
    with pytest.raises(RepositorySigned, match="acme/app"):
        await rooms.repositories.delete("acme/app")
    await rooms.make_repository("acme/before")
    namespace = (await rooms.accounts.get("acme")).id
    with pytest.raises(RepositorySigned, match="acme/app"):
        await rooms.repositories.delete_all(namespace)
    assert {one.path for one in await rooms.repositories.list_repositories(limit=9)} == {"acme/app", "acme/before"}
    assert await rooms.query("SELECT count(*) FROM events WHERE type = 'DELETE'") == [(0,)]
    for tag in ("signed", "moved"):
        assert await rooms.signed.forget(app, tag)
    assert await rooms.repositories.delete_all(namespace) == 2


async def test_what_is_forgotten_counts_no_longer_until_it_is_signed_anew(rooms: Rooms, app: int):
    await rooms.sign(app, "signed", OTHER.digest, role="targets/bob", gun=ELSEWHERE)
    assert await rooms.signed.forget(app, "signed", by=ADA)
    assert not await rooms.signed.forget(app, "signed", by=ADA), "it is forgotten"
    assert not await rooms.signed.forget(app, "plain", by=ADA), "it was never signed"
    assert await rooms.signed.signatures(app, ["signed"]) == {}
    found = await Events(rooms.database).list_events(Filter(actor=ADA.id), limit=9)
    assert {(one.type, one.object.kind, one.object.name, one.object.content, one.actor) for one in found} == {
        ("DELETE", "trust_tag", "signed", digest, ADA) for digest in (IMAGE.digest, OTHER.digest)
    }
    assert (await rooms.manifests.delete_tags(app, ["signed"])).gone == {"signed"}
    await rooms.sign(app, "signed", IMAGE.digest, role="targets/releases")
    assert [one.role for one in (await rooms.signed.signatures(app, ["signed"]))["signed"]] == ["targets/releases"]


async def test_of_many_signatures_those_that_clients_follow_are_shown(rooms: Rooms, app: int):
    for number in range(60):
        await rooms.sign(app, "plain", IMAGE.digest, role=f"targets/a{number}")
    await rooms.sign(app, "plain", OTHER.digest, role="targets/releases")
    found = await rooms.signed.signatures(app, ["plain", "signed"])
    assert [len(found[name]) for name in ("plain", "signed")] == [50, 1]
    assert found["plain"][-1].role == "targets/releases"
    assert await rooms.signed.signed(app, {"plain": OTHER.digest}) == {"plain": True}


async def test_collections_are_listed_with_their_roles(rooms: Rooms, app: int):
    await rooms.sign(app, "signed", IMAGE.digest, role="targets/releases", gun=ELSEWHERE)
    await rooms.signed.forget(app, "moved", by=ADA)
    counter = Counter().watch(rooms.database)
    found = await rooms.signed.list_collections(app)
    assert counter.seen == (2, 0)
    assert {
        (one.gun, role.name, role.version, role.tags, role.forgotten) for one in found for role in one.roles
    } == {
        (GUN, "targets", 1, 1, 1),
        (GUN, "targets/alice", 1, 1, 0),
        (GUN, "timestamp", 1, 0, 0),
        (ELSEWHERE, "targets/releases", 1, 1, 0),
        (ELSEWHERE, "timestamp", 1, 0, 0),
    }


@pytest.mark.parametrize(
    ("roles", "leads"),
    [
        ({"targets": "a"}, "a"),
        ({"targets": "b"}, ""),
        ({"targets/releases": "a", "targets": "b"}, "a"),
        ({"targets/releases": "b", "targets": "a"}, ""),
        ({"targets/releases": "b", "targets/alice": "a"}, ""),
        ({"targets/alice": "a", "targets/bob": "b"}, "a"),
    ],
)
def test_clients_follow_releases_then_targets(roles: dict[str, str], leads: str):
    found = [
        TargetSignature(tag="v1", gun=GUN, role=role, digest=digest, signed_at=1) for role, digest in roles.items()
    ]
    assert is_signed_as(found, "a") is (leads == "a")


def test_one_collection_that_leads_there_is_enough():
    found = [
        TargetSignature(tag="v1", gun=gun, role="targets", digest=digest, signed_at=1)
        for gun, digest in ((GUN, "a"), (ELSEWHERE, "b"))
    ]
    assert is_signed_as(found, "a")
    assert is_signed_as(found, "b")
    assert not is_signed_as(found, "c")
    assert [one.host for one in found] == ["dtr.test", "old.test:8443"]
