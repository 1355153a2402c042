"""
The safeguards of collection, one by one: who meets whom, statement by statement.

Each scenario is two things at the same time on PostgreSQL (SQLite lets one come after the other): the second
runs before each statement and commit of the first. As it is, no such order breaks a rule. With one safeguard taken
away, some order does: so none of them is there for nothing, and the scenarios see what they are to see.

Some orders need the first to run between two statements of the second: those are the thorough half, which
`make thorough` runs. `DTR_ALL_SCHEDULES=1` switches twice.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select, literal, select, true
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.invariants import find_violations
from tests.support.rooms import Rooms, make_body
from tests.support.schedules import Actor, Died, Outcome, Schedules

from dtr.db import Statement
from dtr.oci import Digest
from dtr.registry import (
    BlobReferenced,
    BlobUnknown,
    Lifetimes,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    UploadUnknown,
    _tags,
    blobs,
    collector,
    manifests,
    promote,
    sweeper,
)
from dtr.registry.promote import Origin
from dtr.storage import Memory, Storages

HOUR = 3_600_000
LIFETIMES = Lifetimes(
    lease=24 * HOUR, slack=12 * HOUR, untagged_after=7 * 24 * HOUR, delete_delay=24 * HOUR, upload_ttl=24 * HOUR
)
LONG = 30 * 24 * HOUR
"""After that everything is due."""
REFUSALS = (
    BlobReferenced,
    BlobUnknown,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    UploadUnknown,
)
"""What somebody may be told when another one was first."""

Work = Callable[["World"], Coroutine[Any, Any, Any]]


@dataclass
class World:
    """Three repositories, one of them in another namespace, and what the scenario puts there."""

    rooms: Rooms
    here: int
    there: int
    beyond: int
    things: dict[str, Any] = field(default_factory=dict)

    async def due(self) -> None:
        """Everything that waits for its review is due."""
        await self.rooms.pass_time(LONG)

    async def whole(self, path: str, *images: Image) -> None:
        """These images are there, with all that they need."""
        for image in images:
            assert (await self.rooms.manifests.get(path, image.digest)).payload == image.payload
            for content in image.blobs:
                assert await self.rooms.read(path, Digest.of(content)) == content
            await self.whole(path, *image.children)


@dataclass(frozen=True)
class Scenario:
    prepare: Work
    first: Work
    second: Work
    after: Callable[[World, Outcome, Outcome], Awaitable[None]] | None = None
    sparse: bool = False


PLAIN, OTHER = make_image(layers=1, size=10), make_image(layers=1, size=10)
INDEX = make_index(PLAIN)
SIGNATURE = make_artifact("application/x-signature", b"signature", subject=PLAIN)
CIRCLE = replace(INDEX, payload=json.dumps(json.loads(INDEX.payload) | {"subject": PLAIN.descriptor}).encode())
_TWO = sorted((PLAIN.digest, SIGNATURE.digest))
INDEX_OF_TWO = next(  # its lock comes between those of its children
    one
    for number in range(1_000_000)
    if _TWO[0] < (one := make_index(PLAIN, SIGNATURE, annotations={"n": str(number)})).digest < _TWO[1]
)
CONTENT = b"layer"


async def collect(world: World) -> Any:
    """What the worker does, as long as there is something to do."""
    while (await world.rooms.collector.collect()).went_on:
        pass


async def sweep(world: World) -> Any:
    await world.rooms.sweeper.sweep()


async def push_blobs(world: World, image: Image = PLAIN) -> None:
    for content in image.blobs:
        await world.rooms.push_blob(world.here, content)


async def _blobs_are_due(world: World) -> None:
    await push_blobs(world)
    await world.due()


async def _a_blob_is_due(world: World) -> None:
    await world.rooms.push_blob(world.here, CONTENT)
    world.things["blob"] = await world.rooms.blobs.get("acme/here", Digest.of(CONTENT))
    await world.due()


async def _an_image_is_due(world: World) -> None:
    await world.rooms.push(world.here, PLAIN)
    await world.due()


async def _is_tagged(world: World) -> None:
    await world.rooms.push(world.here, PLAIN, "latest")
    await world.rooms.push(world.here, OTHER)


async def _blobs_of_two(world: World) -> None:
    await push_blobs(world)
    await push_blobs(world, OTHER)


async def _a_circle_is_due(world: World) -> None:
    await world.rooms.push(world.here, PLAIN)
    await world.rooms.put(world.here, CIRCLE)
    await world.due()


async def _a_subject(world: World) -> None:
    await world.rooms.push(world.here, PLAIN, "latest")
    for content in SIGNATURE.blobs:
        await world.rooms.push_blob(world.here, content)


async def _a_hollow_image(world: World) -> None:
    await world.rooms.put(world.here, PLAIN, "latest")


async def _an_upload_has_expired(world: World) -> None:
    upload = await world.rooms.uploads.start(world.here)
    world.things["upload"] = await world.rooms.uploads.append(upload, make_body(CONTENT))


async def _shared_and_due(world: World) -> None:
    for number in (world.here, world.there):
        await world.rooms.push_blob(number, CONTENT)
    await world.due()


async def _nothing(world: World) -> None:
    pass


async def _has_settled(world: World) -> None:
    """The links of an image have been judged, and wait for no review."""
    await world.rooms.push(world.here, PLAIN, "latest")
    await world.due()
    await collect(world)


async def _has_lost_its_tag(world: World) -> None:
    await _has_settled(world)
    await world.rooms.manifests.delete_tag(world.here, "latest")
    await world.due()


async def push(world: World) -> Any:
    await world.rooms.push(world.here, PLAIN, "latest")


async def _is_beyond(world: World) -> None:
    await world.rooms.push(world.beyond, PLAIN, "latest")


async def _is_signed(world: World) -> None:
    await world.rooms.push(world.here, PLAIN, "latest")
    await world.rooms.push(world.here, SIGNATURE)


async def put(world: World) -> Any:
    return await world.rooms.put(world.here, PLAIN, "latest")


async def put_with_another_tag(world: World) -> Any:
    return await world.rooms.put(world.here, PLAIN, "another")


async def put_other(world: World) -> Any:
    return await world.rooms.put(world.here, OTHER, "latest")


async def put_index(world: World) -> Any:
    return await world.rooms.put(world.here, INDEX, "index")


async def mount(world: World) -> Any:
    return await world.rooms.blobs.mount(world.things["blob"], world.there)


async def ask_for_blob(world: World) -> Any:
    return await world.rooms.blobs.get("acme/here", Digest.of(CONTENT), promise=True)


async def ask_for_manifest(world: World) -> Any:
    return await world.rooms.manifests.get("acme/here", PLAIN.digest)


async def push_content(world: World) -> Any:
    return await world.rooms.push_blob(world.here, CONTENT)


async def push_content_there(world: World) -> Any:
    return await world.rooms.push_blob(world.there, CONTENT)


async def delete_tag(world: World) -> Any:
    await world.rooms.manifests.delete_tag(world.here, "latest")


async def delete_image(world: World) -> Any:
    await world.rooms.manifests.delete(world.here, PLAIN.digest)


async def delete_a_blob(world: World) -> Any:
    await world.rooms.blobs.delete(world.here, Digest.of(PLAIN.blobs[0]))


async def promote_it(world: World) -> Any:
    origin = Origin("acme/here", "latest")
    await world.rooms.promotion.promote(world.here, PLAIN.digest, world.there, "promoted", origin)


async def promote_here(world: World) -> Any:
    origin = Origin("beta/beyond", "latest")
    await world.rooms.promotion.promote(world.beyond, PLAIN.digest, world.here, "promoted", origin)


async def promote_there(world: World) -> Any:
    origin = Origin("beta/beyond", "latest")
    await world.rooms.promotion.promote(world.beyond, PLAIN.digest, world.there, "promoted", origin)


async def put_index_of_two(world: World) -> Any:
    return await world.rooms.put(world.here, INDEX_OF_TWO, "index")


async def finish(world: World) -> Any:
    # As long as the request takes, the session would not expire; this is one whose process stood still.
    return await world.rooms.uploads.finish(world.things["upload"], Digest.of(CONTENT), make_body(b""))


async def expire(world: World) -> Any:
    await world.rooms.expire_uploads()
    await sweep(world)


async def tag_the_circle(world: World) -> Any:
    return await world.rooms.put(world.here, CIRCLE, "latest")


async def put_signature_long_ago(world: World) -> Any:
    """It comes while its subject is being deleted, which takes longer than anything is promised."""
    await world.rooms.put(world.here, SIGNATURE)
    await world.rooms.change(
        "UPDATE manifests SET review_at = 0 WHERE digest = :digest AND review_at > 0", digest=SIGNATURE.digest
    )
    await world.rooms.collector.collect()


async def push_a_layer_long_ago(world: World) -> Any:
    digest = await world.rooms.push_blob(world.here, PLAIN.blobs[0])
    await world.rooms.change(
        "UPDATE repository_blobs SET review_at = 0 WHERE digest = :digest AND review_at > 0", digest=digest
    )
    await world.rooms.collector.collect()


async def _put_is_whole(world: World, first: Outcome, _second: Outcome) -> None:
    if first.error is None:
        await world.whole("acme/here", PLAIN)


async def _was_pushed(world: World, first: Outcome, _second: Outcome) -> None:
    assert first.error is None, first.error
    await world.whole("acme/here", PLAIN)


async def _is_named(world: World, _first: Outcome, _second: Outcome) -> None:
    rows = await world.rooms.query("SELECT location FROM uploads UNION SELECT location FROM gc_objects")
    begun = {f"default:{path}" for path in world.rooms.storage.driver("default")._uploads}
    assert begun <= {row[0] for row in rows}, "nobody would ever delete the bytes"


async def _index_is_whole(world: World, first: Outcome, _second: Outcome) -> None:
    if first.error is None:
        await world.whole("acme/here", INDEX)


async def _mounted(world: World, first: Outcome, _second: Outcome) -> None:
    if first.result:
        assert await world.rooms.read("acme/there", Digest.of(CONTENT)) == CONTENT


async def _blob_is_promised(world: World, first: Outcome, _second: Outcome) -> None:
    if first.error is None:
        assert await world.rooms.read("acme/here", Digest.of(CONTENT)) == CONTENT


async def _manifest_is_promised(world: World, first: Outcome, _second: Outcome) -> None:
    if first.error is None:
        assert await world.rooms.manifests.get("acme/here", PLAIN.digest)


async def _pushed(world: World, first: Outcome, _second: Outcome) -> None:
    assert first.error is None
    assert await world.rooms.read("acme/here", Digest.of(CONTENT)) == CONTENT


async def _promoted(world: World, first: Outcome, _second: Outcome) -> None:
    if first.error is None:
        await world.whole("acme/there", PLAIN)


async def _circle_is_whole(world: World, first: Outcome, _second: Outcome) -> None:
    if first.error is None:
        await world.whole("acme/here", CIRCLE)


SCENARIOS = {
    "an image is pushed": Scenario(_nothing, push, collect, _was_pushed),
    "an image is deleted": Scenario(_has_settled, delete_image, collect),
    "an image goes": Scenario(_has_lost_its_tag, collect, push_content),
    "a manifest comes while its blobs are judged": Scenario(_blobs_are_due, put, collect, _put_is_whole),
    "a blob is mounted while its last link goes": Scenario(_a_blob_is_due, mount, collect, _mounted),
    "a blob is promised while it is judged": Scenario(_a_blob_is_due, ask_for_blob, collect, _blob_is_promised),
    "a manifest is promised while it is judged": Scenario(
        _an_image_is_due, ask_for_manifest, collect, _manifest_is_promised
    ),
    "an index comes while its child is judged": Scenario(_an_image_is_due, put_index, collect, _index_is_whole),
    "a manifest is tagged while it is judged": Scenario(_an_image_is_due, put, collect, _put_is_whole),
    "an index is tagged while its circle is judged": Scenario(
        _a_circle_is_due, tag_the_circle, collect, _circle_is_whole
    ),
    "a blob comes again while it goes": Scenario(_a_blob_is_due, push_content, collect, _pushed),
    "a blob comes elsewhere while it goes": Scenario(_a_blob_is_due, push_content_there, collect),
    "two collectors meet": Scenario(_shared_and_due, collect, collect),
    "two pushes make the same tag": Scenario(_blobs_of_two, put, put_other),
    "a tag is moved and deleted": Scenario(_is_tagged, put_other, delete_tag),
    "a manifest is put and deleted": Scenario(_is_tagged, put, delete_image),
    "a manifest gets a tag and is deleted": Scenario(_is_tagged, put_with_another_tag, delete_image),
    "an index comes while its child is deleted": Scenario(_is_tagged, put_index, delete_image, _index_is_whole),
    "a manifest comes while a blob is deleted": Scenario(_blobs_of_two, put, delete_a_blob, _put_is_whole),
    "an image is promoted while it is judged": Scenario(_an_image_is_due, promote_it, collect, _promoted),
    "an image is promoted and deleted": Scenario(_is_tagged, promote_it, delete_image, _promoted),
    "an image is promoted to two repositories": Scenario(_is_beyond, promote_here, promote_there),
    "an index of two comes while one is deleted": Scenario(_is_signed, put_index_of_two, delete_image),
    "an upload expires": Scenario(_an_upload_has_expired, expire, collect, _is_named),
    "an upload ends and expires": Scenario(_an_upload_has_expired, finish, expire),
    "a referrer is judged while its subject goes": Scenario(_a_subject, delete_image, put_signature_long_ago),
    "a link is judged while its manifest is deleted": Scenario(
        _a_hollow_image, delete_image, push_a_layer_long_ago, sparse=True
    ),
}


class Lab:
    """Runs scenarios, each from the same beginning."""

    def __init__(self, plain: Rooms, sparse: Rooms, connection: Any) -> None:
        self._rooms = {
            is_sparse: (rooms, Schedules(rooms.database, connection))
            for is_sparse, rooms in ((False, plain), (True, sparse))
        }
        self._connection = connection
        self.storage = plain.storage

    async def explore(self, scenario: Scenario, *, both_ways: bool, twice: bool = False) -> int:
        """Try the orders; how many. Raises AssertionError for the first that breaks a rule."""
        lengths = [one.steps for one in await self._try(scenario, [])]
        await self._try(scenario, [(1, 10_000)])
        tried = 2
        for number in (0, 1) if both_ways else (0,):
            for steps in range(1, lengths[number] + 1):
                turns = [[(number, steps), (1 - number, 10_000)]]
                if twice:
                    turns += [[(number, steps), (1 - number, more)] for more in range(1, lengths[1 - number])]
                for one in turns:
                    await self._try(scenario, one)
                    tried += 1
        return tried

    async def crash(self, scenario: Scenario) -> int:
        """Let the process of the first die before each of its statements and its commits; how many there are."""
        steps = 0
        while True:
            outcomes = await self._try(scenario, [], dies_before=steps)
            if outcomes[0].error is None or not isinstance(outcomes[0].error, Died):
                return steps
            steps += 1

    async def _try(
        self, scenario: Scenario, turns: list[tuple[int, int]], *, dies_before: int | None = None
    ) -> list[Outcome]:
        rooms, order = self._rooms[scenario.sparse]
        world = await self._begin(rooms)
        await scenario.prepare(world)
        actors = [
            Actor(lambda: scenario.first(world), dies_before=dies_before),
            Actor(lambda: scenario.second(world)),
        ]
        outcomes = await order.run(actors, turns)
        for work, outcome in zip((scenario.first, scenario.second), outcomes, strict=True):
            if outcome.error is not None and not isinstance(outcome.error, (*REFUSALS, Died)):
                raise AssertionError(f"{turns}: {work.__name__} raised {outcome.error!r}") from outcome.error
            if work in {collect, sweep}:
                assert not outcome.has_waited, f"{turns}: {work.__name__} waited for a lock"
        violations = await find_violations(rooms.database, rooms.storage, sparse=scenario.sparse)
        assert not violations, f"{turns}: {violations}"
        if scenario.after is not None:
            try:
                await scenario.after(world, *outcomes)
            except (BlobUnknown, ManifestUnknown) as error:
                raise AssertionError(f"{turns}: {error!r}") from error
        return outcomes

    async def _begin(self, rooms: Rooms) -> World:
        await self._connection.execute(
            "DELETE FROM tag_origins; DELETE FROM tags; DELETE FROM manifests; DELETE FROM repository_blobs;"
            "DELETE FROM blobs; DELETE FROM uploads; DELETE FROM gc_objects; DELETE FROM usage_deltas;"
            "DELETE FROM usage; DELETE FROM events"
        )
        rows = await self._connection.fetch("SELECT id FROM repositories ORDER BY path")
        memory = rooms.storage.driver("default")
        memory._objects.clear()
        memory._uploads.clear()
        return World(rooms, *(row[0] for row in rows))


@pytest.fixture
async def lab(make_database_url: Callable[[str], Awaitable[str]]) -> AsyncIterator[Lab]:
    url = await make_database_url("postgresql")
    shared = Memory()
    plain = Rooms(url, lambda: Memory(shared), lifetimes=LIFETIMES)
    sparse = plain.another(sparse_manifests=True)
    for path in ("acme/here", "acme/there", "beta/beyond"):
        await plain.make_repository(path)
    connection = await asyncpg.connect(url)
    yield Lab(plain, sparse, connection)
    await connection.close()
    await plain.close()


@pytest.mark.parametrize("both_ways", [False, pytest.param(True, marks=pytest.mark.thorough)])
async def test_no_meeting_breaks_a_rule(lab: Lab, both_ways: bool):
    twice = bool(os.environ.get("DTR_ALL_SCHEDULES"))
    tried = {name: await lab.explore(one, both_ways=both_ways, twice=twice) for name, one in SCENARIOS.items()}
    print(f"{sum(tried.values())} schedules: {tried}")
    assert all(number >= 4 for number in tried.values()), tried


async def test_no_death_breaks_a_rule(lab: Lab):
    died = 0
    for name in (
        "a manifest comes while its blobs are judged",
        "two collectors meet",
        "a manifest is put and deleted",
        "an image is promoted and deleted",
        "an upload ends and expires",
    ):
        died += await lab.crash(SCENARIOS[name])
    print(f"died {died} times")
    assert died > 30


# --- each safeguard taken away --------------------------------------------------------------------------------


def changed(statement: Statement, **lock: Any) -> Statement:
    """The same query with another lock; without any: none at all."""
    query: Select[Any] = statement.clause._clone()  # type: ignore[assignment]
    if lock:
        query._for_update_arg = copy.copy(query._for_update_arg)
        for name, value in lock.items():
            setattr(query._for_update_arg, name, value)
    else:
        assert query._for_update_arg is not None
        query._for_update_arg = None
    return Statement(query)


def unlock(*places: tuple[Any, str]) -> Callable[[pytest.MonkeyPatch], None]:
    """Take the locks off statements."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        for module, name in places:
            patch.setattr(module, name, changed(getattr(module, name)))

    return broken


def wait(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let the collector wait for locks."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setattr(collector, name, changed(getattr(collector, name), skip_locked=False))

    return broken


def _renewal_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    query = collector._lock_links.add_columns(literal(True)).with_for_update(skip_locked=True)
    patch.setattr(collector, "_LOCK_LINKS_TO_DELETE", Statement(query))


def _busy_links_are_postponed_without_a_lock(patch: pytest.MonkeyPatch) -> None:
    unlink = collector.Collector._unlink

    async def broken(self: Any, tx: Any, due: list[Any], ahead: int) -> Any:
        idle, busy = await self._part_busy(tx, due)
        await collector._execute(tx, collector._POSTPONE_LINKS, busy, pause=HOUR)
        return await unlink(self, tx, idle, ahead)

    patch.setattr(collector.Collector, "_unlink", broken)


def _use_is_looked_at_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    fetch, seen = collector._fetch_pairs, dict[str, Any]()
    due_links = collector.Collector._due_links

    async def early(self: Any, behind: Any, ahead: int) -> Any:
        due = await due_links(self, behind, ahead)
        seen["used"] = await fetch(self._database, collector._USED_LINKS, [(row[1], row[2]) for row in due])
        return due

    async def remembered(tx: Any, statement: Statement, pairs: Any, **parameters: Any) -> Any:
        if statement is collector._USED_LINKS:
            return seen["used"] & set(pairs)
        return await fetch(tx, statement, pairs, **parameters)

    patch.setattr(collector.Collector, "_due_links", early)
    patch.setattr(collector, "_fetch_pairs", remembered)


def _tags_are_looked_at_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    due = changed(collector._DUE_MANIFESTS)
    lock = Statement(collector._lock_manifests.with_for_update(skip_locked=True))
    fetch, seen = collector._fetch_pairs, dict[str, Any]()
    review = collector.Collector._review_manifests

    class Early:
        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        async def fetch_all(self, statement: Statement, **parameters: Any) -> Any:
            if statement is not collector._DUE_MANIFESTS:
                return await self._tx.fetch_all(statement, **parameters)
            found = [(row[0], row[1]) for row in await self._tx.fetch_all(due, **parameters)]
            seen["tagged"] = await fetch(self._tx, collector._TAGGED, found)
            return sorted(await fetch(self._tx, lock, found))

    async def remembered(tx: Any, statement: Statement, pairs: Any, **parameters: Any) -> Any:
        if statement is collector._TAGGED:
            return seen["tagged"] & set(pairs)
        return await fetch(tx, statement, pairs, **parameters)

    async def broken(self: Any, ahead: int) -> Any:
        unit = self._database.unit
        patch.setattr(self._database, "unit", lambda work, **how: unit(lambda tx: work(Early(tx)), **how))
        try:
            return await review(self, ahead)
        finally:
            patch.setattr(self._database, "unit", unit)

    patch.setattr(collector, "_fetch_pairs", remembered)
    patch.setattr(collector.Collector, "_review_manifests", broken)


def _tags_are_not_claimed(patch: pytest.MonkeyPatch) -> None:
    before = Statement(
        select(_tags.tags.c.name, _tags.tags.c.manifest, literal(False)).where(
            _tags.tags.c.repository_id == _tags._repository, _tags.in_list(_tags.tags.c.name, "names")
        )
    )
    upsert = _tags._CLAIM_TAGS.clause._clone()  # type: ignore[attr-defined]

    async def broken(tx: Any, repository: int, names: list[str], digest: str, author: str) -> Any:
        found = await tx.fetch_all(before, repository=repository, names=names)
        await tx.fetch_all(Statement(upsert), repository=repository, names=names, digest=digest, author=author)
        there = {name: (manifest, False) for name, manifest, _ in found}
        return {name: there.get(name, (digest, True)) for name in names}

    patch.setattr(_tags, "_claim", broken)
    move = _tags._MOVE_TAGS
    settle = _tags.Claim.settle

    async def overwrite(self: Any, tx: Any, **how: Any) -> None:
        await tx.execute(
            move,
            repository=self.repository,
            names=sorted(self.found),
            digest=self.digest,
            author_now=self.by.name,
        )
        await settle(self, tx, **how)

    patch.setattr(_tags.Claim, "settle", overwrite)


def overlook(what: str, first_look: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let who deletes a manifest see at the second of two looks no more than the first one saw."""

    class Overlooks:
        def __init__(self, tx: Any) -> None:
            self._tx = tx
            self._seen: set[str] = set()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        async def fetch_all(self, statement: Statement, **given: Any) -> Any:
            rows = await self._tx.fetch_all(statement, **given)
            if statement is getattr(manifests, first_look):
                self._seen = {row[0] for row in rows}
            if statement is manifests._AROUND:
                return [row for row in rows if row[0] != what or row[1] in self._seen]
            return rows

    def broken(patch: pytest.MonkeyPatch) -> None:
        delete = manifests.Manifests.delete

        async def hasty(self: Any, *arguments: Any, **parameters: Any) -> None:
            unit = self._database.unit
            patch.setattr(self._database, "unit", lambda work, **how: unit(lambda tx: work(Overlooks(tx)), **how))
            try:
                await delete(self, *arguments, **parameters)
            finally:
                patch.setattr(self._database, "unit", unit)

        patch.setattr(manifests.Manifests, "delete", hasty)

    return broken


def _manifests_are_locked_in_the_other_order(patch: pytest.MonkeyPatch) -> None:
    query = manifests._LOCK_RELATED.clause._clone()  # type: ignore[attr-defined]
    patch.setattr(
        manifests, "_LOCK_RELATED", Statement(query.order_by(None).order_by(manifests.manifests.c.digest.desc()))
    )


def _links_are_locked_before_manifests(patch: pytest.MonkeyPatch) -> None:
    claim = manifests.claim_tags

    async def broken(tx: Any, repository: int, *arguments: Any, **parameters: Any) -> Any:
        for content in PLAIN.blobs:
            await tx.fetch_all(
                manifests._LOCK_LINKS_TO_LET_GO, repository=repository, digests=[str(Digest.of(content))]
            )
        return await claim(tx, repository, *arguments, **parameters)

    patch.setattr(manifests, "claim_tags", broken)


def _nobody_renews(patch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> bool:
        return True

    patch.setattr(blobs.Blobs, "_renew", broken)


def _manifests_are_not_renewed(patch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> bool:
        return True

    patch.setattr(manifests.Manifests, "_renew", broken)


def _nothing_is_promised(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lifetimes, "hold", property(lambda _: 0))


def _let_go_without_a_date(patch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        pass

    patch.setattr(_tags, "let_go", broken)
    patch.setattr(manifests, "let_go", broken)


def never(module: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let a statement that changes rows of pairs, ids or a repository change nothing."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, name, Statement(getattr(module, name).clause.where(~true())))

    return broken


def _blobs_go_without_a_tombstone(patch: pytest.MonkeyPatch) -> None:
    drop = collector.Collector._drop

    class Forgetful:
        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        async def execute(self, statement: Statement, **parameters: Any) -> int:
            return 0 if statement is collector._BURY else await self._tx.execute(statement, **parameters)

    async def broken(self: Any, tx: Any, *arguments: Any) -> Any:
        return await drop(self, Forgetful(tx), *arguments)

    patch.setattr(collector.Collector, "_drop", broken)


def _uploads_go_without_a_tombstone(patch: pytest.MonkeyPatch) -> None:
    async def broken(tx: Any) -> int:
        ids = [row[0] for row in await tx.fetch_all(sweeper._EXPIRED)]
        return await tx.execute(sweeper._DELETE_UPLOADS, ids=ids)

    patch.setattr(sweeper, "_give_up", broken)


def _locations_are_used_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Storages, "new_location", lambda *_: "default:20260101/0000/always-the-same")


SAFEGUARDS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "who is told that a blob is there has it for a lease": (
        "a blob is promised while it is judged",
        _nobody_renews,
    ),
    "so with manifests": ("a manifest is promised while it is judged", _manifests_are_not_renewed),
    "what was uploaded stays for a lease": ("an image is pushed", _nothing_is_promised),
    "who takes a tag away sets the date": ("a tag is moved and deleted", _let_go_without_a_date),
    "who deletes a manifest sets the dates of its links": (
        "an image is deleted",
        never(manifests, "_LET_LINKS_GO"),
    ),
    "so does the collector": ("an image goes", never(collector, "_LET_LINKS_GO")),
    "a blob leaves a tombstone": ("a blob comes elsewhere while it goes", _blobs_go_without_a_tombstone),
    "an upload leaves a tombstone": ("an upload expires", _uploads_go_without_a_tombstone),
    "a location is used once": ("a blob comes again while it goes", _locations_are_used_again),
    "who puts a manifest locks its links": (
        "a manifest comes while its blobs are judged",
        unlock((manifests, "_LOCK_LINKS")),
    ),
    "links are judged after they were locked": (
        "a manifest comes while its blobs are judged",
        _use_is_looked_at_before_the_lock,
    ),
    "links are judged under their lock": (
        "a manifest comes while its blobs are judged",
        unlock((collector, "_LOCK_LINKS_TO_DELETE")),
    ),
    "a link that was renewed is let alone": ("a blob is promised while it is judged", _renewal_is_not_noticed),
    "what is postponed is locked": ("a blob comes again while it goes", _busy_links_are_postponed_without_a_lock),
    "who mounts locks the blob": ("a blob is mounted while its last link goes", unlock((blobs, "_LOCK_BLOB"))),
    "who takes links away locks the blobs": (
        "a blob is mounted while its last link goes",
        unlock((collector, "_LOCK_BLOBS")),
    ),
    "the collector does not wait for blobs": ("a blob is mounted while its last link goes", wait("_LOCK_BLOBS")),
    "the collector does not wait for links": (
        "a manifest comes while its blobs are judged",
        wait("_LOCK_LINKS_TO_DELETE"),
    ),
    "the collector does not wait for manifests": (
        "a manifest is tagged while it is judged",
        wait("_DUE_MANIFESTS"),
    ),
    "manifests are judged under their lock": (
        "a manifest is promised while it is judged",
        unlock((collector, "_DUE_MANIFESTS")),
    ),
    "manifests are judged after they were locked": (
        "a manifest is tagged while it is judged",
        _tags_are_looked_at_before_the_lock,
    ),
    "who puts an index locks its children": (
        "an index comes while its child is judged",
        unlock((manifests, "_LOCK_MANIFESTS")),
    ),
    "a tag is claimed": ("two pushes make the same tag", _tags_are_not_claimed),
    "who deletes a tag locks it": ("a tag is moved and deleted", unlock((manifests, "_LOCK_TAGS"))),
    "who deletes a manifest looks for new tags": (
        "a manifest gets a tag and is deleted",
        overlook("tag", "_LOCK_TAGS_OF"),
    ),
    "who deletes a manifest locks it": (
        "an index comes while its child is deleted",
        unlock((manifests, "_LOCK_RELATED")),
    ),
    "who deletes a blob locks its link": (
        "a manifest comes while a blob is deleted",
        unlock((blobs, "_LOCK_LINK_TO_DELETE")),
    ),
    "who promotes locks the blobs": (
        "an image is promoted to two repositories",
        unlock((promote, "_LOCK_BLOBS")),
    ),
    "who promotes locks the manifests": ("an image is promoted and deleted", unlock((promote, "_LOCK_SOURCE"))),
    "expired uploads are locked": ("an upload ends and expires", unlock((sweeper, "_EXPIRED"))),
    "a holder counts when it can be locked": (
        "a referrer is judged while its subject goes",
        unlock((collector, "_LOCK_A_HOLDER")),
    ),
    "who deletes a subject looks for new referrers": (
        "a referrer is judged while its subject goes",
        overlook("related", "_RELATED"),
    ),
    "a user of a link counts when it can be locked": (
        "a link is judged while its manifest is deleted",
        lambda patch: patch.setattr(collector, "_LOCK_USERS", collector._USED_LINKS),
    ),
    "manifests are locked in one order": (
        "an index of two comes while one is deleted",
        _manifests_are_locked_in_the_other_order,
    ),
    "manifests are locked before links": (
        "a manifest is put and deleted",
        _links_are_locked_before_manifests,
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("safeguard", SAFEGUARDS)
async def test_without_a_safeguard_some_meeting_breaks_a_rule(
    lab: Lab, safeguard: str, monkeypatch: pytest.MonkeyPatch
):
    scenario, take_away = SAFEGUARDS[safeguard]
    take_away(monkeypatch)
    with pytest.raises(AssertionError) as found:
        await lab.explore(SCENARIOS[scenario], both_ways=True)
    print(str(found.value).partition("\n")[0])


async def test_objects_that_go_before_their_rows_are_missed_after_a_crash(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    drop = collector.Collector._drop

    async def broken(self: Any, tx: Any, unused: Any, sizes: Any) -> Any:
        lab.storage.driver("default")._objects.clear()  # all that there is goes in this scenario
        return await drop(self, tx, unused, sizes)

    monkeypatch.setattr(collector.Collector, "_drop", broken)
    with pytest.raises(AssertionError, match="a blob has an object"):
        await lab.crash(
            replace(SCENARIOS["a blob comes again while it goes"], first=collect, second=_nothing, after=None)
        )


async def test_a_look_at_the_next_holder_alone_never_frees_a_circle(rooms: Rooms, monkeypatch: pytest.MonkeyPatch):
    async def broken(self: Any, tx: Any, pair: Any, *_: Any) -> Any:
        await collector._execute(tx, collector._CLEAR_MANIFESTS, [pair])
        return collector._Verdict(is_kept=True)

    repository = await rooms.make_repository()
    await rooms.push(repository, PLAIN)
    await rooms.put(repository, CIRCLE)
    with monkeypatch.context() as patch:
        patch.setattr(collector.Collector, "_judge", broken)
        await rooms.collect_all()
        assert await rooms.count("manifests") == 2
    await rooms.change("UPDATE manifests SET review_at = 0")
    await rooms.collect_all()
    assert await rooms.count("manifests") == 0
