"""Finding tags, on both databases."""

from __future__ import annotations

import itertools
import random
from typing import Any, get_args

import pytest
from tests.support.images import make_image, make_index
from tests.support.rooms import Rooms
from tests.support.signing import cosign_layer, cosign_signature, make_key, public_pem, signature_tag

from dtr.oci import companions
from dtr.policies.tag_search import Aliases, Order, TagFilter, TagSearch, Trait
from dtr.registry import Origin
from dtr.registry.versions import version_key
from dtr.signatures import Identities, Identity, Signatures

DAY = 86_400_000
KNOWN, STRANGE = make_key(), make_key()


class World:
    """A repository with tags of all kinds."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.search = TagSearch(rooms.database)
        self.digests: dict[str, str] = {}

    async def make(self) -> None:
        rooms = self.rooms
        self.repository = repository = await rooms.make_repository()
        identities = Identities(rooms.database)
        await identities.put(Identity(name="ci", kind="key", content=public_pem(KNOWN)))
        one = make_image()
        images = {
            "1.10": one,
            "1.9": make_image(),
            "latest": one,
            "1.10-rc1": make_image(),
            "multi": make_index(make_image(), make_image()),
            "single": make_index(make_image()),
            "Trusted_1": make_image(),
            "moved": make_image(),
            "old": make_image(),
        }
        for name, image in images.items():
            self.digests[name] = await rooms.push(repository, image, name)
        await rooms.sign(repository, "Trusted_1", self.digests["Trusted_1"])
        await rooms.sign(repository, "moved", self.digests["old"])
        for name, key in (("1.9", KNOWN), ("1.10-rc1", STRANGE)):
            digest = self.digests[name]
            await rooms.push(repository, cosign_signature(cosign_layer(key, digest)), signature_tag(digest))
        signatures = Signatures(rooms.database, rooms.storage)
        async for _ in signatures.verify_all(repository=repository):
            pass
        await rooms.change(
            "UPDATE tags SET updated_at = updated_at - :long WHERE name LIKE '%1.%'", long=100 * DAY
        )

    async def names(self, order: Order = "name", *traits: Trait, **wanted: Any) -> list[str]:
        filter_ = TagFilter(traits=frozenset(traits), **wanted)
        found = await self.search.find(self.repository, filter_, order, limit=100)
        return [one.name for one in found]


@pytest.fixture
async def world(rooms: Rooms) -> World:
    made = World(rooms)
    await made.make()
    return made


async def test_tags_are_found_by_what_they_are(world: World):
    assert await world.names("name", "signed") == ["1.9", "Trusted_1"]
    assert await world.names("name", "unverified") == ["1.10-rc1"]
    assert await world.names("name", "mismatched") == ["moved"]
    assert await world.names("name", "unsigned") == ["1.10", "latest", "moved", "multi", "old", "single"]
    assert await world.names("name", "multiPlatform") == ["multi"]
    assert await world.names("name", "unsigned", "mismatched") == ["moved"]
    assert await world.names("name", "signed", "multiPlatform") == []
    counts = await world.search.count(world.repository, TagFilter())
    assert (counts.total, counts.attached) == (9, 2)
    assert counts.traits == {
        "signed": 2, "unverified": 1, "mismatched": 1, "unsigned": 6, "multiPlatform": 1, "unpulled": 3,
    }  # fmt: skip
    both = await world.search.count(world.repository, TagFilter(traits=frozenset({"unsigned", "mismatched"})))
    assert (both.total, both.traits) == (1, counts.traits)


async def test_a_signature_that_is_forgotten_or_revoked_counts_no_longer(world: World):
    await world.rooms.signed.forget(world.repository, "Trusted_1")
    await Identities(world.rooms.database).delete(None, "ci")
    assert await world.names("name", "signed") == []
    assert await world.names("name", "unverified") == ["1.10-rc1", "1.9"]


async def test_the_role_that_clients_follow_decides(world: World):
    other = world.digests["old"]
    await world.rooms.sign(world.repository, "Trusted_1", other, role="targets/releases")
    assert await world.names("name", "signed") == ["1.9"]
    assert await world.names("name", "mismatched") == ["Trusted_1", "moved"]
    await world.rooms.sign(world.repository, "Trusted_1", world.digests["Trusted_1"], gun="elsewhere/acme/app")
    assert await world.names("name", "signed") == ["1.9", "Trusted_1"]


async def test_what_was_pulled_lately_by_name_or_digest_is_not_unpulled(world: World):
    assert await world.names("version", "unpulled") == ["1.10", "1.10-rc1", "1.9"]
    for reference, age in (("1.10", 10), (world.digests["1.9"], 10), ("1.10-rc1", 91)):
        await world.rooms.change(
            "INSERT INTO pulls (repository_id, reference, pulls, last_pulled_at)"
            " SELECT repository_id, :reference, 1, max(updated_at) - :age FROM tags GROUP BY repository_id",
            reference=reference, age=age * DAY,
        )  # fmt: skip
    assert await world.names("version", "unpulled") == ["1.10-rc1"]
    assert (await world.names("pulled"))[:3] == ["1.9", "1.10", "1.10-rc1"]


TEXTS = {
    "1.1": ["1.10", "1.10-rc1"],
    "RUSTED_1": ["Trusted_1"],
    "_": ["Trusted_1"],
    "%": [],
    "\\": [],
    "'": [],
    "dtr.test/acme/app:multi": ["multi"],
    " latest ": ["latest"],
}


async def test_tags_are_found_by_a_part_of_their_names(world: World):
    for text, found in TEXTS.items():
        assert await world.names(text=text) == found
        assert (await world.search.count(world.repository, TagFilter(text=text))).total == len(found)
        assert await world.search.total(world.repository, TagFilter(text=text)) == len(found)


async def test_tags_are_found_by_a_part_of_a_digest(world: World):
    digest = world.digests["1.10"]
    for text in (digest, digest[:20], digest[7:19], digest[7:19].upper(), f"dtr.test/acme/app@{digest}"):
        assert await world.names(text=text) == ["1.10", "latest"]
    rows = await world.rooms.query(
        "SELECT target FROM manifest_references WHERE kind = 'manifest' AND manifest = :index",
        index=world.digests["multi"],
    )
    assert await world.names(text=rows[0][0][7:20]) == ["multi"]
    assert await world.names(text="sha256:" + "0" * 64) == []


async def test_attached_artifacts_are_left_out_unless_they_are_asked_for(world: World):
    tags = sorted(signature_tag(world.digests[name]) for name in ("1.9", "1.10-rc1"))
    assert not set(tags) & set(await world.names())
    assert set(tags) < set(await world.names(attached=True))
    assert await world.names(attached=True, text="sha256-") == tags
    counts = await world.search.count(world.repository, TagFilter(attached=True))
    assert (counts.total, counts.attached) == (11, 2)


async def test_only_companions_are_attached(rooms: Rooms):
    repository = await rooms.make_repository()
    stem = companions("sha256:" + "ab" * 32)
    others = ["sha256-abc", "sha256-" + "z" * 64, stem[0] + ".jpg", stem[0] + "x", "sha256-" + "a" * 65]
    await rooms.push(repository, make_image(), *stem, *others)
    found = await TagSearch(rooms.database).find(repository, TagFilter(), "name", limit=100)
    assert [one.name for one in found] == sorted(others)


async def test_orders(world: World):
    assert (await world.names("version"))[:3] == ["1.10", "1.10-rc1", "1.9"]
    newest = await world.names("newest")
    moments = await world.rooms.query("SELECT name, updated_at FROM tags ORDER BY updated_at DESC, name DESC")
    assert newest == [name for name, _ in moments if not name.startswith("sha256-")]
    sizes = {
        one.name: one.manifest.size for one in await world.rooms.images.list_tags(world.repository, limit=100)
    }
    largest = await world.names("size")
    assert [sizes[name] for name in largest] == sorted((sizes[name] for name in largest), reverse=True)
    assert largest[0] == "multi"


async def test_pages_have_every_tag_once(world: World):
    for order, size in itertools.product(get_args(Order), (1, 2, 4)):
        everything = await world.names(order, attached=True)
        pages, start = [], ""
        while True:
            found = await world.search.find(
                world.repository, TagFilter(attached=True), order, start=start, limit=size + 1
            )
            pages.append([one.name for one in found[:size]])
            if len(found) <= size:
                break
            start = found[size].place
        assert list(itertools.chain(*pages)) == everything


@pytest.mark.parametrize("order", ["newest", "size", "pulled"])
@pytest.mark.parametrize("start", ["x", "/x", "1e3/x", "-1/x", f"{2**63}/x", "٣/x"])
async def test_what_is_no_place_is_refused(order: Order, start: str):
    nobody_is_asked: Any = None
    with pytest.raises(ValueError, match="no place"):
        await TagSearch(nobody_is_asked).find(1, TagFilter(), order, start=start, limit=1)


def test_unknown_traits_are_refused():
    with pytest.raises(ValueError, match="no such trait"):
        TagFilter(traits=frozenset({"fresh"}))  # type: ignore[arg-type]


async def test_aliases_are_listed_by_version_bounded_and_counted(rooms: Rooms):
    repository = await rooms.make_repository()
    names = ["2", "2.1", "2.1.0", "latest", "edge"]
    digest = await rooms.push(repository, make_image(), *random.Random(3).sample(names, len(names)))
    other = await rooms.push(repository, make_image(), "3")
    search = TagSearch(rooms.database)
    nothing = "sha256:" + "0" * 64
    assert await search.aliases(repository, [digest, other, nothing], most=3) == {
        digest: Aliases(["2.1.0", "2.1", "2"], 5),
        other: Aliases(["3"], 1),
        nothing: Aliases([], 0),
    }
    assert await search.aliases(repository, [], most=3) == {}


async def test_every_way_in_gives_a_tag_its_key(rooms: Rooms):
    """A push, a push over a tag, a promotion."""
    source, target = await rooms.make_repository("acme/app"), await rooms.make_repository("acme/live")
    digest = await rooms.push(source, make_image(), "1.0", "1.1")
    await rooms.push(source, make_image(), "1.0")
    await rooms.promotion.promote(source, digest, target, "v2", Origin("acme/app", "1.1"))
    rows = await rooms.query("SELECT name, version_key FROM tags")
    assert len(rows) == 3
    assert all(key == version_key(name) for name, key in rows)
