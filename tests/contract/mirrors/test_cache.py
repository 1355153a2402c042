"""Caches on both databases: what is fetched and when, what is served meanwhile, what goes wrong there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import digest_of, make_image, make_index
from tests.support.rooms import Rooms
from tests.support.upstream import Scripted

from dtr.mirrors import Cache, Upstream, UpstreamFailed, UpstreamInvalid, Upstreams, UpstreamUnknown
from dtr.oci import Digest, Tag, parse_reference, parse_repository_name
from dtr.outbound import Addresses, Outside
from dtr.registry import (
    BlobUnknown,
    ManifestIncomplete,
    Manifests,
    ManifestUnknown,
    Origin,
    Promotion,
    TagImmutable,
    TagOfCache,
)
from dtr.remotes import Remote, Remotes
from dtr.storage import FileSystem, Memory, Storages

IMAGE = make_image(layers=2, size=300_000)
LAYER = IMAGE.blobs[1]
LATEST = Tag("latest")


class Caches:
    """A process with a cache, and its upstream."""

    def __init__(self, rooms: Rooms, scripted: Scripted) -> None:
        self.rooms = rooms
        self.upstream = scripted
        self.is_read_only = False
        self.upstreams = Upstreams(rooms.database)
        self.cache = Cache(
            rooms.database,
            self.upstreams,
            remotes=Remotes(Outside(Addresses(("127.0.0.0/8",)))),
            definitions=self,
            repositories=rooms.repositories,
            uploads=rooms.uploads,
            manifests=Manifests(rooms.database, rooms.lifetimes, sparse_manifests=True, fills_caches=True),
            configs=rooms.image_configs,
            is_read_only=lambda: self.is_read_only,
        )

    async def remote(self, number: str, path: str) -> Remote:
        """The stored remote, whatever its number."""
        return Remote(host=self.upstream.url, repository=path)

    async def make(self, path: str = "acme/cache", remote_path: str = "library/app", **more: Any) -> int:
        repository = await self.rooms.make_repository(path)
        await self.upstreams.put(Upstream(repository=repository, remote="r", remote_path=remote_path, **more))
        return repository

    async def get(self, reference: str, path: str = "acme/cache") -> bytes:
        """A manifest as the registry's API gets it."""
        wanted = parse_reference(reference)
        try:
            found = await self.rooms.manifests.get(path, reference)
        except ManifestUnknown:
            try:
                repository = await self.rooms.manifests.find_repository(path)
            except Exception:
                source = await self.upstreams.source_for(path)
                if source is None:
                    raise ManifestUnknown(reference) from None
                await self.cache.fetch_into(path, source, wanted)
            else:
                await self.cache.fetch(repository, wanted)
        else:
            if not isinstance(wanted, Tag) or not await self.cache.check(found, wanted):
                return found.payload
        return (await self.rooms.manifests.get(path, reference)).payload

    async def read(self, content: bytes, path: str = "acme/cache", start: int = 0) -> bytes:
        """A blob as it is followed."""
        wanted = await self.cache.find_blob(path, Digest.of(content))
        download = await self.cache.fetch_blob(wanted)
        if download is None:
            return await self.rooms.read(path, wanted.digest)
        try:
            return b"".join([piece async for piece in download.follow(start)])
        finally:
            download.leave()

    async def forget(self) -> None:
        """Let the time pass in which a process does not look again."""
        self.cache._believed._until.clear()
        self.cache._absent._until.clear()
        self.cache._resting.clear()


@pytest.fixture
def scripted():
    registry = Scripted()
    yield registry
    registry.close()


@pytest.fixture
async def caches(database_url: str, tmp_path: Path, scripted: Scripted):
    rooms = Rooms(database_url, lambda: FileSystem(tmp_path), inline_limit=1000)
    await rooms.change(
        "INSERT INTO remotes (id, name, host, username, ca, skip_tls_verification, created_at, updated_at)"
        " VALUES ('r', 'r', '', '', '', :no, 0, 0)",
        no=False,
    )
    made = Caches(rooms, scripted)
    yield made
    await made.cache.close()
    await rooms.close()


async def test_what_is_asked_for_is_fetched_once_and_stored(caches: Caches):
    await caches.make()
    caches.upstream.push("library/app", IMAGE, "latest")
    assert await caches.get("latest") == IMAGE.payload
    for content in IMAGE.blobs[1:]:
        assert await caches.read(content) == content
        assert await caches.rooms.read("acme/cache", digest_of(content)) == content
    asked = list(caches.upstream.asked)
    assert len(asked) == 3
    assert await caches.get("latest") == IMAGE.payload
    assert await caches.get(IMAGE.digest) == IMAGE.payload
    assert caches.upstream.asked == asked


async def test_of_an_index_only_what_is_used_is_fetched(caches: Caches):
    child, other = make_image(), make_image()
    index = make_index(child, other)
    repository = await caches.make()
    caches.upstream.push("library/app", index, "latest")
    assert await caches.get("latest") == index.payload
    assert await caches.get(child.digest) == child.payload
    assert {row[0] for row in await caches.rooms.query("SELECT digest FROM manifests")} == {
        index.digest,
        child.digest,
    }
    assert caches.upstream.count(other.digest) == 0
    # That it is not whole is no damage; what the index names is kept with it.
    assert not [text for is_damage, text in await caches.rooms.findings() if is_damage]
    await caches.rooms.collect_all()
    assert await caches.rooms.count("manifests") == 2
    await caches.rooms.manifests.delete_tags(repository, ["latest"])
    await caches.rooms.collect_all()
    assert await caches.rooms.count("manifests") == 0


async def test_a_name_in_a_namespace_becomes_a_repository_when_the_upstream_has_it(caches: Caches):
    rooms = caches.rooms
    own = await rooms.make_repository("hub/own")
    owner = await rooms.accounts.get("hub")
    await caches.upstreams.put(
        Upstream(namespace=owner.id, remote="r", remote_path="library", visibility="public")
    )
    caches.upstream.push("library/app", IMAGE, "latest")
    caches.upstream.push("library/own", IMAGE, "latest")
    assert caches.upstreams.visibility_in("hub") == "public"
    with pytest.raises(ManifestUnknown):
        await caches.get("latest", "hub/none")
    with pytest.raises(ManifestUnknown):  # somebody made it
        await caches.get("latest", "hub/own")
    with pytest.raises(ManifestUnknown):
        await caches.get("latest", "other/app")
    assert await caches.get("latest", "hub/app") == IMAGE.payload
    assert await caches.read(LAYER, "hub/app") == LAYER
    made = await rooms.repositories.get("hub/app")
    assert made.settings.visibility == "public"
    assert caches.upstreams.concerns("hub/app", made.id)
    with pytest.raises(BlobUnknown):
        await caches.cache.find_blob("hub/own", Digest.of(LAYER))
    assert not await rooms.query("SELECT 1 FROM repositories WHERE path = 'hub/none'")
    assert await caches.upstreams.source_of(own) is None


async def test_many_who_ask_at_once_cause_one_request(caches: Caches):
    await caches.make()
    caches.upstream.push("library/app", IMAGE, "latest")
    caches.upstream.delay = lambda: threading.Event().wait(0.2)
    assert await asyncio.gather(*(caches.get("latest") for _ in range(16))) == [IMAGE.payload] * 16
    assert await asyncio.gather(*(caches.read(LAYER) for _ in range(16))) == [LAYER] * 16
    assert len(caches.upstream.asked) == 2


async def test_a_repository_that_was_renamed_and_the_one_at_its_old_name_each_get_what_they_ask_for(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
):
    rooms = caches.rooms
    await rooms.make_repository("hub/own")
    owner = await rooms.accounts.get("hub")
    await caches.upstreams.put(Upstream(namespace=owner.id, remote="r", remote_path="library"))
    caches.upstream.push("library/app", IMAGE, "1")
    assert await caches.get("1", "hub/app") == IMAGE.payload
    await rooms.repositories.rename("hub/app", parse_repository_name("hub/old"))
    later = make_image()
    caches.upstream.push("library/app", later, "2")
    answers = threading.Event()
    caches.upstream.delay = lambda: answers.wait(60)
    get, wanted = caches.cache._get, 0

    async def counted(*given: Any) -> Any:
        nonlocal wanted
        wanted += 1
        return await get(*given)

    monkeypatch.setattr(caches.cache, "_get", counted)
    paths = ("hub/old", "hub/app", "hub/old", "hub/app")
    asking = asyncio.gather(*(caches.get("2", path) for path in paths))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while wanted < 2:  # for each repository, of which the second waits for the request of the first
                await asyncio.sleep(0.01)
    answers.set()
    assert await asking == [later.payload] * 4
    assert caches.upstream.asked.count("GET manifests library/app 2") == 1


async def test_two_processes_may_fetch_the_same(caches: Caches):
    await caches.make()
    caches.upstream.push("library/app", IMAGE, "latest")
    peer = Caches(caches.rooms.another(), caches.upstream)
    caches.upstream.delay = lambda: threading.Event().wait(0.2)
    assert await asyncio.gather(caches.get("latest"), peer.get("latest")) == [IMAGE.payload] * 2
    assert await asyncio.gather(caches.read(LAYER), peer.read(LAYER)) == [LAYER] * 2
    assert await caches.rooms.read("acme/cache", digest_of(LAYER)) == LAYER
    await peer.cache.close()


@pytest.mark.parametrize("kind", ["files", "memory"])
async def test_bytes_are_given_on_as_they_come(caches: Caches, scripted: Scripted, kind: str, tmp_path: Path):
    if kind == "memory":
        shared = Memory()
        caches = Caches(caches.rooms.another(), scripted)
        caches.rooms.uploads._storage = caches.rooms.storage = Storages({"default": shared}, "default")
    await caches.make()
    gate = scripted.gates[digest_of(LAYER)] = threading.Event()
    scripted.push("library/app", IMAGE, "latest")
    await caches.get("latest")
    wanted = await caches.cache.find_blob("acme/cache", Digest.of(LAYER))
    download = await caches.cache.fetch_blob(wanted)
    other = await caches.cache.fetch_blob(wanted)
    assert download is not None
    assert other is download
    received = b""
    async with contextlib.aclosing(download.follow()) as pieces:
        async for piece in pieces:
            received += piece
            if len(received) == len(LAYER) // 2:
                gate.set()  # the upstream sends the rest only after we have the first half
    assert received == LAYER
    # A range is given from what has come, and read when everything is over, too.
    assert b"".join([piece async for piece in other.follow(1000, 70_000)]) == LAYER[1000:71_000]
    download.leave()
    other.leave()
    assert download._file is None
    assert scripted.count("blobs") == 1
    await caches.cache.close()


async def test_a_download_goes_on_when_nobody_waits(caches: Caches):
    await caches.make()
    gate = caches.upstream.gates[digest_of(LAYER)] = threading.Event()
    caches.upstream.push("library/app", IMAGE, "latest")
    await caches.get("latest")
    reading = asyncio.create_task(caches.read(LAYER))
    while not caches.upstream.count("blobs"):
        await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait([reading])
    gate.set()
    async with asyncio.timeout(60):
        while caches.cache._downloads:
            await asyncio.sleep(0.01)
    assert await caches.rooms.read("acme/cache", digest_of(LAYER)) == LAYER


async def test_a_connection_that_breaks_goes_on(caches: Caches):
    await caches.make()
    caches.upstream.cut.add(digest_of(LAYER))
    caches.upstream.push("library/app", IMAGE, "latest")
    await caches.get("latest")
    assert await caches.read(LAYER) == LAYER


async def test_wrong_content_is_given_to_nobody_as_whole_and_not_stored(caches: Caches):
    await caches.make()
    caches.upstream.push("library/app", IMAGE, "latest")
    await caches.get("latest")
    caches.upstream.blobs[digest_of(LAYER)] = LAYER[:-1] + b"?"
    wanted = await caches.cache.find_blob("acme/cache", Digest.of(LAYER))
    download = await caches.cache.fetch_blob(wanted)
    assert download is not None
    received = []

    async def follow() -> None:
        received.extend([piece async for piece in download.follow()])

    with pytest.raises(UpstreamFailed):
        await follow()
    download.leave()
    assert sum(map(len, received)) < len(LAYER)
    with pytest.raises(BlobUnknown):
        await caches.rooms.read("acme/cache", digest_of(LAYER))
    other = make_image()
    caches.upstream.manifests["library/app", other.digest] = (IMAGE.payload, IMAGE.media_type)
    with pytest.raises(UpstreamFailed):
        await caches.get(other.digest)
    assert await caches.rooms.count("manifests") == 1
    assert await caches.rooms.count("uploads") == 0


async def test_a_tag_is_asked_for_again_after_a_time(caches: Caches):
    repository = await caches.make(max_age=60_000)
    caches.upstream.push("library/app", IMAGE, "latest")
    newer = make_image()
    await caches.get("latest")
    caches.upstream.push("library/app", newer, "latest")
    await caches.forget()
    assert await caches.get("latest") == IMAGE.payload
    assert caches.upstream.count("HEAD") == 0
    await caches.rooms.change("UPDATE cached_tags SET checked_at = checked_at - 61000")
    assert await caches.get("latest") == IMAGE.payload  # this process looked a moment ago
    await caches.forget()
    assert await caches.get("latest") == newer.payload
    await caches.rooms.change("UPDATE cached_tags SET checked_at = checked_at - 61000")
    await caches.forget()
    assert await caches.get("latest") == newer.payload  # a HEAD says that it is the same
    assert [one.split()[0] for one in caches.upstream.asked] == ["GET", "HEAD", "GET", "HEAD"]
    # What is deleted there goes here.
    caches.upstream.manifests.clear()
    await caches.rooms.change("UPDATE cached_tags SET checked_at = 0")
    await caches.forget()
    with pytest.raises(ManifestUnknown):
        await caches.get("latest")
    assert await caches.rooms.manifests.list_tags(repository, limit=10) == []


@pytest.mark.parametrize("status", [401, 429, 500, 503, 0])
async def test_what_is_here_is_served_whatever_the_upstream_says(caches: Caches, status: int):
    await caches.make(max_age=0)
    caches.upstream.push("library/app", IMAGE, "latest")
    await caches.get("latest")
    await caches.read(LAYER)
    caches.upstream.asked.clear()
    if status == 0:
        caches.upstream.close()
    else:
        caches.upstream.status = status
        caches.upstream.headers = {"Retry-After": "100"}
    await caches.forget()
    assert await caches.get("latest") == IMAGE.payload
    assert await caches.rooms.read("acme/cache", digest_of(LAYER)) == LAYER
    expected = ManifestUnknown if status == 401 else UpstreamFailed
    with pytest.raises(expected) as raised:
        await caches.get("other")
    asked = len(caches.upstream.asked)
    with pytest.raises(expected):
        await caches.get("other")
    assert status == 500 or len(caches.upstream.asked) == asked  # it is left alone
    if isinstance(raised.value, UpstreamFailed):
        assert raised.value.is_busy == (status in {429, 503})
        assert raised.value.retry_after >= (90 if status == 429 else 10)


async def test_what_is_not_there_is_remembered_for_a_moment(caches: Caches):
    await caches.make()
    for _ in range(3):
        with pytest.raises(ManifestUnknown):
            await caches.get("none")
    assert len(caches.upstream.asked) == 1
    caches.upstream.push("library/app", IMAGE, "none")
    await caches.forget()
    assert await caches.get("none") == IMAGE.payload


async def test_only_tags_of_the_patterns_are_fetched(caches: Caches):
    index = make_index(make_image())
    await caches.make(tag_patterns=("v?.*",))
    caches.upstream.push("library/app", IMAGE, "latest")
    caches.upstream.push("library/app", index, "v1.0")
    for reference in ("latest", IMAGE.digest):
        with pytest.raises(ManifestUnknown):
            await caches.get(reference)
    assert caches.upstream.asked == []
    assert await caches.get("v1.0") == index.payload
    assert await caches.get(index.children[0].digest) == index.children[0].payload


async def test_nothing_is_fetched_while_the_registry_is_read_only(caches: Caches):
    await caches.make(max_age=0)
    caches.upstream.push("library/app", IMAGE, "latest", "other")
    await caches.get("latest")
    caches.is_read_only = True
    await caches.forget()
    assert await caches.get("latest") == IMAGE.payload
    with pytest.raises(UpstreamFailed):
        await caches.get("other")
    with pytest.raises(UpstreamFailed):
        await caches.read(LAYER)
    assert len(caches.upstream.asked) == 1


async def test_a_blob_is_fetched_only_when_a_manifest_names_it(caches: Caches):
    await caches.make()
    caches.upstream.push("library/app", IMAGE, "latest")
    with pytest.raises(BlobUnknown):
        await caches.read(LAYER)
    assert caches.upstream.asked == []


async def test_what_nobody_pulled_for_long_goes(caches: Caches):
    day = 86_400_000
    repository = await caches.make(keep_for=10 * day)
    await caches.make("acme/forever", keep_for=None)
    caches.upstream.push("library/app", IMAGE, "old", "new", "used")
    for tag in ("old", "new", "used"):
        await caches.get(tag)
    await caches.get("old", "acme/forever")
    await caches.rooms.change(
        "UPDATE tags SET updated_at = updated_at - CAST(:age AS BIGINT) WHERE name <> 'new'", age=11 * day
    )
    await caches.rooms.change(
        "INSERT INTO pulls (repository_id, reference, pulls, last_pulled_at)"
        " SELECT repository_id, name, 1, updated_at + CAST(:age AS BIGINT) FROM tags WHERE name = 'used'",
        age=2 * day,
    )
    assert [one async for one in caches.cache.expire()] == [("acme/cache", {"old"})]
    assert await caches.rooms.manifests.list_tags(repository, limit=10) == ["new", "used"]
    assert [one async for one in caches.cache.expire()] == []


async def test_a_cache_becomes_an_ordinary_repository_and_keeps_what_it_has(caches: Caches):
    repository = await caches.make()
    caches.upstream.push("library/app", IMAGE, "latest", "other")
    await caches.get("latest")
    await caches.upstreams.delete(await caches.upstreams.of_repository(repository))
    assert not caches.upstreams.concerns("acme/cache", repository)
    assert await caches.get("latest") == IMAGE.payload
    with pytest.raises(ManifestUnknown):
        await caches.get("other")
    with pytest.raises(UpstreamUnknown):
        await caches.upstreams.of_repository(repository)
    assert not [text for is_damage, text in await caches.rooms.findings() if is_damage]


async def test_others_see_changes_of_upstreams(caches: Caches):
    peer = Upstreams(caches.rooms.database)
    repository = await caches.make()
    assert not peer.concerns("acme/cache", repository)
    await peer.refresh()
    assert peer.concerns("acme/cache", repository)
    assert not peer.concerns("acme/other", repository + 1)
    assert peer.concerns("acme/other", None)


async def test_an_upstream_of_a_namespace_moves_with_its_repositories(caches: Caches):
    await caches.rooms.make_repository("hub/own")
    owner = await caches.rooms.accounts.get("hub")
    first = await caches.upstreams.put(Upstream(namespace=owner.id, remote="r", remote_path="old/place"))
    for name in ("old/place/app", "new/app", "app"):
        caches.upstream.push(name, IMAGE, name.partition("/")[0])
    await caches.get("old", "hub/app")
    second = await caches.upstreams.put(Upstream(namespace=owner.id, remote="r", remote_path="new"))
    assert second.id == first.id
    assert await caches.get("new", "hub/app") == IMAGE.payload
    await caches.upstreams.put(Upstream(namespace=owner.id, remote="r"))
    await caches.forget()
    assert await caches.get("app", "hub/app") == IMAGE.payload


async def test_nobody_else_writes_tags_of_a_cache(caches: Caches):
    rooms = caches.rooms
    repository = await caches.make()
    image = make_image()
    with pytest.raises(TagOfCache, match="cache"):
        await rooms.push(repository, image, "mine")
    own = await rooms.make_repository("acme/own")
    await rooms.push(own, image, "mine")
    promotion = Promotion(rooms.database, rooms.lifetimes)
    with pytest.raises(TagImmutable):
        await promotion.promote(own, image.digest, repository, "mine", Origin("acme/own", "mine"))
    assert await rooms.manifests.list_tags(repository, limit=10) == []
    # What is fetched can be promoted elsewhere, when all of it is here.
    caches.upstream.push("library/app", IMAGE, "latest")
    await caches.get("latest")
    with pytest.raises(ManifestIncomplete):
        await promotion.promote(repository, IMAGE.digest, own, "theirs", Origin("acme/cache", "latest"))
    for content in IMAGE.blobs:
        download = await caches.cache.fetch_blob(await caches.cache.find_blob("acme/cache", Digest.of(content)))
        assert download is not None
        await download.wait()
        download.leave()
    await promotion.promote(repository, IMAGE.digest, own, "theirs", Origin("acme/cache", "latest"))
    assert await rooms.manifests.list_tags(own, limit=10) == ["mine", "theirs"]


async def test_what_no_upstream_can_be(caches: Caches):
    repository = await caches.rooms.make_repository()
    await caches.rooms.push(repository, make_image(), "mine")
    for wrong in (
        {"remote_path": "a"},  # it has images of its own
        {"remote_path": ""},
        {"remote_path": "UPPER"},
        {"remote_path": "a", "visibility": "secret"},
        {"remote_path": "a", "max_age": -1},
        {"remote_path": "a", "keep_for": -1},
        {"remote_path": "a", "tag_patterns": ("[a]",)},
        {"remote_path": "a", "tag_patterns": ("a",) * 101},
    ):
        with pytest.raises(UpstreamInvalid):
            await caches.upstreams.put(Upstream(repository=repository, remote="r", **wrong))
    assert await caches.rooms.count("upstreams") == 0
