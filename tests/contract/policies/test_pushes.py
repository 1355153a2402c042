"""Policies and pushes on both databases: each push is told, what is done is done once, and who waits goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg
import pytest
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.rooms import Rooms, annotated
from tests.support.schedules import Actor, Schedules

from dtr.db import Statement
from dtr.oci import companions
from dtr.policies import Findings, Outcome, PromotionPolicy, Promotions, TagReader, parse_rules, promotion, pushes
from dtr.registry import ManifestUnknown, Origin, Promotion, show_again, show_signed
from dtr.storage import Memory

IMAGE = make_image()
OTHER = make_image()
SIGNED = {"field": "signed", "operator": "eq", "values": ["true"]}
SAFE = {"field": "vulnerability_critical", "operator": "eq", "values": ["0"]}


def promotions_of(rooms: Rooms, reader: TagReader | None = None) -> Promotions:
    return Promotions(rooms.database, reader or rooms.tag_reader, Promotion(rooms.database, rooms.lifetimes))


async def make(
    promotions: Promotions, source: int, target: int, *rules: Any, evaluate: bool = False, **more: Any
) -> PromotionPolicy:
    policy = PromotionPolicy(
        id="",
        source=source,
        source_path=f"acme/{source}",
        target=target,
        target_path=f"acme/{target}",
        enabled=True,
        rules=parse_rules(list(rules)),
        **more,
    )
    return await promotions.create(policy, evaluate=evaluate)


async def jobs(rooms: Rooms) -> list[dict[str, str]]:
    """The parameters of the jobs that wait, which are taken."""
    rows = await rooms.query(
        "SELECT parameters FROM jobs WHERE action = 'promote' AND status = 'waiting' ORDER BY scheduled_at, id"
    )
    await rooms.change("UPDATE jobs SET status = 'done' WHERE action = 'promote'")
    return [json.loads(row[0]) for row in rows]


async def work(rooms: Rooms, promotions: Promotions) -> list[Outcome]:
    """Work all jobs off, also those that come of it."""
    outcomes: list[Outcome] = []
    while found := await jobs(rooms):
        for parameters in found:
            outcomes += [one async for one in promotions.work_off(parameters)]
    return outcomes


async def names(rooms: Rooms, repository: int) -> list[str]:
    return await rooms.manifests.list_tags(repository, limit=100)


async def times(rooms: Rooms, kind: str = "CREATE") -> int:
    """How often something was promoted, or failed to be."""
    sql = "SELECT count(*) FROM events WHERE object_type = 'promotion' AND type = :kind"
    return int((await rooms.query(sql, kind=kind))[0][0])


async def twice(rooms: Rooms) -> list[Any]:
    """Policies and tags that were promoted more than once."""
    return await rooms.query(
        "SELECT object_id, object_name FROM events WHERE object_type = 'promotion'"
        " GROUP BY object_id, object_name HAVING count(*) > 1"
    )


def signature(subject: Image, content: bytes = b"signed") -> Image:
    return make_artifact("application/vnd.dev.cosign.artifact.sig.v1+json", content, subject=subject)


# --- told -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def lab(make_database_url: Callable[[str], Awaitable[str]]):
    """Rooms on PostgreSQL, and what makes two of their units meet."""
    shared = Memory()
    url = await make_database_url("postgresql")
    rooms = Rooms(url, lambda: Memory(shared))
    connection = await asyncpg.connect(url)
    yield rooms, Schedules(rooms.database, connection)
    await connection.close()
    await rooms.close()


async def meetings(rooms: Rooms, schedules: Schedules, *, evaluate: bool) -> list[str]:
    """Let a push meet the making of the first policy in every order with one switch; the tags that it missed."""
    promotions = promotions_of(rooms)
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE)
    missed = []
    for steps in range(100):
        tag = f"v{steps}"
        actors = [
            Actor(partial(rooms.put, dev, annotated(IMAGE, n=tag), tag)),
            Actor(partial(make, promotions, dev, prod, evaluate=evaluate)),
        ]
        push, policy = await schedules.run(actors, [(0, steps), (1, 1000)])
        assert (push.error, policy.error) == (None, None)
        await work(rooms, promotions)
        is_over = push.steps <= steps
        came_first = is_over or policy.has_waited
        if tag not in await names(rooms, prod) and (evaluate or not came_first):
            missed.append(tag)
        await promotions.delete(dev, policy.result.id)
        if is_over:
            assert await twice(rooms) == []
            return missed
    raise AssertionError("a push has no end")


@pytest.mark.parametrize("evaluate", [True, False])
async def test_a_push_at_the_moment_in_which_a_policy_is_made_is_told(
    lab: tuple[Rooms, Schedules], evaluate: bool
):
    assert await meetings(*lab, evaluate=evaluate) == []


async def test_without_the_lock_it_would_not_be(lab: tuple[Rooms, Schedules], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pushes, "_LOCK", Statement(pushes._row))
    assert await meetings(*lab, evaluate=False)


async def test_policies_that_are_made_to_and_fro_do_not_wait_for_each_other(lab: tuple[Rooms, Schedules]):
    rooms, schedules = lab
    promotions = promotions_of(rooms)
    one, two = await rooms.make_repository("acme/one"), await rooms.make_repository("acme/two")
    for steps in range(12):
        actors = [Actor(lambda: make(promotions, one, two)), Actor(lambda: make(promotions, two, one))]
        assert [done.error for done in await schedules.run(actors, [(0, steps), (1, 1000)])] == [None, None]


# --- once -----------------------------------------------------------------------------------------------------


async def test_two_workers_with_the_same_job_promote_once(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    both = [promotions_of(rooms), promotions_of(rooms.another())]
    await make(both[0], dev, prod, template="%n-%Y%m%d%H%M%S%f")
    for number in range(8):
        await rooms.push(dev, annotated(IMAGE, n=str(number)), "v1")
        (parameters,) = await jobs(rooms)

        async def run(promotions: Promotions, given: dict[str, str] = parameters) -> list[str]:
            return [one.text async for one in promotions.work_off(given)]

        texts = sorted(text for one in await asyncio.gather(*map(run, both)) for text in one)
        assert sum("promoted to" in one for one in texts) == 1
        assert sum("was promoted before" in one for one in texts) == 1
    assert (await times(rooms), len(await names(rooms, prod))) == (8, 8)


async def test_a_worker_that_dies_at_any_moment_leaves_no_promotion_out_and_does_none_twice(rooms: Rooms):
    dev, prod, full = [
        await rooms.make_repository(path, immutable_tags=path == "acme/full")
        for path in ("acme/dev", "acme/prod", "acme/full")
    ]
    await rooms.push(full, OTHER, "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9")
    promotions = promotions_of(rooms)
    await make(promotions, dev, prod)
    await make(promotions, dev, full)  # fails
    await make(promotions, dev, prod, SIGNED, template="%n-signed")  # waits
    unit = rooms.database.unit
    for deaths in range(10):
        await rooms.push(dev, annotated(IMAGE, n=str(deaths)), f"v{deaths}")
        left = deaths

        async def mortal(work: Any, **how: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            result = await unit(work, **how)
            if left == 0:
                raise KeyboardInterrupt  # it is committed, and nobody heard of it
            left -= 1
            return result

        (parameters,) = await jobs(rooms)
        rooms.database.unit = mortal  # type: ignore[method-assign]
        try:
            assert [one async for one in promotions.work_off(parameters)]
        except KeyboardInterrupt:
            has_died = True
        else:
            has_died = False
        rooms.database.unit = unit  # type: ignore[method-assign]
        assert len([one async for one in promotions.work_off(parameters)]) == 3
        assert await work(rooms, promotions) == []
        tags = [f"v{number}" for number in range(deaths + 1)]
        assert await names(rooms, prod) == tags
        assert (await times(rooms), await times(rooms, "FAIL")) == (len(tags), len(tags))
    assert not has_died  # the last one lived to its end
    (waiting,) = (await promotions.pushes.count_waiting(await ids(rooms))).values()
    assert waiting == 10


async def ids(rooms: Rooms) -> list[str]:
    return [row[0] for row in await rooms.query("SELECT id FROM promotion_policies")]


# --- waiting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["referrer", "tag"])
async def test_who_wants_a_signature_waits_for_it(rooms: Rooms, by: str):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    promotions = promotions_of(rooms)
    policy = await make(promotions, dev, prod, SIGNED)
    await make(promotions, dev, prod, template="%n-any")
    await rooms.push(dev, IMAGE, "v1", "v2")
    await rooms.push(dev, OTHER, "w1")
    outcomes = await work(rooms, promotions)
    assert sum("rule 0 waits for a signature" in one.text for one in outcomes) == 3
    assert await promotions.pushes.count_waiting([policy.id]) == {policy.id: 3}
    listed = await promotions.pushes.list_waiting(policy.id, start="v2", limit=9)
    assert [(one.tag, one.digest, one.waits_for) for one in listed] == [
        ("v2", IMAGE.digest, "signature"),
        ("w1", OTHER.digest, "signature"),
    ]
    for content in (b"signed", b"signed again"):
        if by == "referrer":
            await rooms.push(dev, signature(IMAGE, content))
        else:
            await rooms.push(dev, make_artifact("application/x", content), companions(IMAGE.digest)[1])
        await work(rooms, promotions)
        assert [one for one in await names(rooms, prod) if one[0] in "vw"] == [
            "v1",
            "v1-any",
            "v2",
            "v2-any",
            "w1-any",
        ]
        assert await times(rooms) == 5  # each once, whatever comes later
    assert await promotions.pushes.count_waiting([policy.id]) == {policy.id: 1}


async def test_what_is_signed_from_the_beginning_need_not_wait(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    promotions = promotions_of(rooms)
    await make(promotions, dev, prod, SIGNED)
    await rooms.push(dev, signature(IMAGE))
    await rooms.push(dev, IMAGE, "v1")
    await work(rooms, promotions)
    assert await names(rooms, prod) == ["v1"]


async def test_a_signature_that_comes_while_it_is_written_down_that_somebody_waits_is_seen(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    promotions = promotions_of(rooms)
    await make(promotions, dev, prod, SIGNED)
    await rooms.push(dev, IMAGE, "v1")
    (push,) = await jobs(rooms)
    claim, find = promotion.claim, promotions._find

    async def late(given: Any) -> Any:
        found = await find(given)
        if not await rooms.query("SELECT 1 FROM manifests WHERE subject IS NOT NULL"):
            await rooms.push(dev, signature(IMAGE))
            (known,) = await jobs(rooms)
            assert [one async for one in promotions.work_off(known)] == []  # nobody waits yet
        return found

    monkeypatch.setattr(promotions, "_find", late)
    assert claim is pushes.claim
    assert ["promoted to" in one.text async for one in promotions.work_off(push)] == [True]


async def test_who_wants_a_scan_waits_for_it_and_a_tag_that_moved_is_forgotten(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    found: dict[str, Findings] = {}
    asked: list[int] = []

    async def scans(repository: int, digests: Any) -> dict[str, Findings]:
        asked.append(repository)
        return {one: found[one] for one in digests if one in found}

    promotions = promotions_of(rooms, TagReader(rooms.database, rooms.images, scans=scans))
    policy = await make(promotions, dev, prod, SAFE, template="%n-safe")
    bad = annotated(IMAGE, n="bad")
    await rooms.push(dev, IMAGE, "good", "moved")
    await rooms.push(dev, bad, "bad")
    outcomes = await work(rooms, promotions)
    assert sum("rule 0 waits for a scan" in one.text for one in outcomes) == 3
    await rooms.push(dev, OTHER, "moved")
    await rooms.manifests.delete_tag(dev, "moved")
    assert await promotions.pushes.count_waiting([policy.id]) == {policy.id: 2}
    found |= {IMAGE.digest: Findings(minor=3), bad.digest: Findings(critical=1)}
    for digest in found:
        await rooms.database.unit(lambda tx, digest=digest: show_again(tx, dev, digest))
    outcomes = await work(rooms, promotions)
    assert sorted(one.text.partition(": ")[2] for one in outcomes if "bad" in one.text) == [
        "not promoted, rule 0 does not hold"
    ]
    assert (await names(rooms, prod), await times(rooms)) == (["good-safe"], 1)
    assert set(asked) == {dev}
    assert await rooms.count("policy_tags") == 3
    assert await promotions.pushes.forget_gone() == 1
    await promotions.delete(dev, policy.id)
    assert await rooms.count("policy_tags") == 0


async def test_content_trust_says_which_tags_are_signed(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")

    promotions = promotions_of(rooms, rooms.tag_reader)
    await make(promotions, dev, prod, SIGNED)
    await rooms.sign(dev, "before", IMAGE.digest)
    await rooms.sign(dev, "moved", OTHER.digest)
    await rooms.push(dev, IMAGE, "before", "later", "moved", "never")
    await work(rooms, promotions)
    assert await names(rooms, prod) == ["before"]
    # What waits goes on when it is signed, which is told in the unit of work that signs.
    await rooms.sign(dev, "later", IMAGE.digest)
    await rooms.database.unit(lambda tx: show_signed(tx, dev, [IMAGE.digest, OTHER.digest]))
    await work(rooms, promotions)
    assert await names(rooms, prod) == ["before", "later"]


async def test_nobody_is_told_of_signatures_where_there_are_no_policies(rooms: Rooms):
    repository = await rooms.make_repository("acme/dev")
    await rooms.push(repository, IMAGE, "v1")
    await rooms.database.unit(lambda tx: show_signed(tx, repository, [IMAGE.digest]))
    await rooms.database.unit(lambda tx: show_signed(tx, repository + 1000, [IMAGE.digest]))
    assert await rooms.count("jobs") == 0


# --- what belongs to an image ---------------------------------------------------------------------------------


async def test_what_refers_to_an_image_by_tag_comes_with_it_and_is_no_image_of_its_own(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    index = make_index(IMAGE, OTHER)
    fallback, sig, att, sbom = companions(index.digest)
    of_child = companions(IMAGE.digest)[1]
    await rooms.push(dev, index)
    for tag in (fallback, sig, att, sbom, of_child):
        await rooms.push(dev, make_artifact("application/x", tag.encode()), tag)
    promotions = promotions_of(rooms)
    await make(promotions, dev, prod, template="%n-ok")
    await rooms.put(dev, index, "v1")
    await work(rooms, promotions)
    assert await names(rooms, prod) == sorted([fallback, sig, att, sbom, of_child, "v1-ok"])
    assert await times(rooms) == 1  # the companions are none of their own
    for tag in (sig, of_child):
        theirs, ours = [await rooms.manifests.get(path, tag) for path in ("acme/dev", "acme/prod")]
        assert theirs.payload == ours.payload
    await rooms.manifests.delete(dev, index.digest)
    await rooms.collect_all()
    assert await rooms.findings() == []


async def test_what_refers_to_an_image_later_follows_it_along_a_chain(rooms: Rooms):
    dev, test, prod = [await rooms.make_repository(f"acme/{name}") for name in ("dev", "test", "prod")]
    promotions = promotions_of(rooms)
    await make(promotions, dev, test)
    await make(promotions, test, prod, SIGNED)
    await rooms.push(dev, IMAGE, "v1")
    await work(rooms, promotions)
    assert (await names(rooms, test), await names(rooms, prod)) == (["v1"], [])
    late = signature(IMAGE)
    await rooms.push(dev, late)
    outcomes = await work(rooms, promotions)
    assert any("follows it" in one.text for one in outcomes)
    assert await names(rooms, prod) == ["v1"]
    for path in ("acme/test", "acme/prod"):
        found = await rooms.manifests.list_referrers(path, IMAGE.digest, limit=9)
        assert [one.digest for one in found] == [late.digest]
    tag = companions(IMAGE.digest)[2]
    for content in (b"one", b"two"):  # cosign replaces what it has
        attestation = make_artifact("application/x", content)
        await rooms.push(dev, attestation, tag)
        await work(rooms, promotions)
        assert (await rooms.manifests.get("acme/prod", tag)).digest == attestation.digest
    assert await times(rooms) == 2


async def test_a_signature_that_was_made_in_the_target_stays(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    promotions = promotions_of(rooms)
    await make(promotions, dev, prod)
    tag = companions(IMAGE.digest)[1]
    here, there = make_artifact("application/x", b"here"), make_artifact("application/x", b"there")
    await rooms.push(prod, there, tag)
    await rooms.push(dev, here, tag)
    await rooms.push(dev, IMAGE, "v1")
    await work(rooms, promotions)
    assert (await rooms.manifests.get("acme/prod", tag)).digest == there.digest
    assert await names(rooms, prod) == sorted([tag, "v1"])


async def test_nothing_follows_to_where_the_image_is_not(rooms: Rooms):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "v1")
    tag = companions(IMAGE.digest)[1]
    await rooms.push(dev, make_artifact("application/x", b"signed"), tag)
    copies = Promotion(rooms.database, rooms.lifetimes)
    with pytest.raises(ManifestUnknown):
        await copies.carry(dev, IMAGE.digest, prod, Origin("acme/dev", "v1"), by=promotion.SYSTEM)
    assert await names(rooms, prod) == []


# --- trying out -----------------------------------------------------------------------------------------------


async def test_trying_out_says_what_would_become_of_each_tag(rooms: Rooms):
    dev = await rooms.make_repository("acme/dev")
    prod = await rooms.make_repository("acme/prod", immutable_patterns=("v*",))
    await rooms.push(prod, IMAGE, "v1", "w1")
    await rooms.push(prod, OTHER, "v2", "w2")
    await rooms.push(dev, IMAGE, "v1", "v2", "w2", "other", companions(IMAGE.digest)[1])
    promotions = promotions_of(rooms)
    rule = {"field": "tag", "operator": "noo", "values": ["other"]}
    wanted = PromotionPolicy(
        id="", source=dev, source_path="", target=prod, target_path="", enabled=True, rules=parse_rules([rule])
    )
    found = {one.tag.name: (one.promotes, one.name, one.is_blocked) async for one in promotions.judge(wanted)}
    assert found == {
        "other": (False, "other", False),
        "v1": (True, "v1", False),  # it names the same already
        "v2": (False, "v2", True),
        "w2": (True, "w2", False),
    }
