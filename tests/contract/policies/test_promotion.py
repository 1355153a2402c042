"""Promotion policies on both databases: what a push leads to, once, and where a chain ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import asdict
from tests.support.images import make_image
from tests.support.rooms import Counter, Rooms, annotated

from dtr.events import Actor
from dtr.policies import Outcome, PolicyInvalid, PromotionPolicy, PromotionPolicyUnknown, Promotions, parse_rules
from dtr.registry import ManifestUnknown, Origin, Promotion

ADA = Actor("user", "id of ada", "ada")
IMAGE = make_image()
OTHER = make_image()


@pytest.fixture
def promotions(rooms: Rooms) -> Promotions:
    return Promotions(rooms.database, rooms.tag_reader, Promotion(rooms.database, rooms.lifetimes))


def rule(field: str, operator: str, *values: str) -> dict[str, Any]:
    return {"field": field, "operator": operator, "values": list(values)}


async def make(
    promotions: Promotions, source: int, target: int, *rules: dict[str, Any], **more: Any
) -> PromotionPolicy:
    policy = PromotionPolicy(
        id="",
        source=source,
        source_path="acme/source",
        target=target,
        target_path="acme/target",
        enabled=more.pop("enabled", True),
        rules=parse_rules(list(rules)),
        template=more.pop("template", "%n"),
    )
    return await promotions.create(policy, evaluate=more.pop("evaluate", False), by=ADA)


async def waiting(rooms: Rooms) -> list[dict[str, str]]:
    """The parameters of the jobs that wait."""
    rows = await rooms.query(
        "SELECT parameters FROM jobs WHERE action = 'promote' AND status = 'waiting' ORDER BY id"
    )
    return [json.loads(row[0]) for row in rows]


async def work(rooms: Rooms, promotions: Promotions) -> list[Outcome]:
    """Work all jobs off, also those that come of it."""
    outcomes: list[Outcome] = []
    for _ in range(100):
        jobs = await waiting(rooms)
        if not jobs:
            return outcomes
        await rooms.change("UPDATE jobs SET status = 'done'")
        for parameters in jobs:
            outcomes += [one async for one in promotions.work_off(parameters, job="the job")]
    raise AssertionError("the chain has no end")


async def names(rooms: Rooms, repository: int) -> list[str]:
    return await rooms.manifests.list_tags(repository, limit=100)


async def test_a_push_is_promoted_by_the_policies_that_mean_it(rooms: Rooms, promotions: Promotions):
    dev, prod, test = [await rooms.make_repository(path) for path in ("acme/dev", "acme/prod", "acme/test")]
    await rooms.push(dev, IMAGE, "early")
    await make(promotions, dev, prod, rule("tag", "sw", "v"), template="%n-ok")
    await make(promotions, dev, test)
    await make(promotions, dev, test, template="never", enabled=False)
    await rooms.put(dev, IMAGE, "v1", "latest")
    assert len(await waiting(rooms)) == 2
    outcomes = await work(rooms, promotions)
    assert (len(outcomes), any(one.failed for one in outcomes)) == (4, False)
    assert (await names(rooms, prod), await names(rooms, test)) == (["v1-ok"], ["latest", "v1"])
    tag = await rooms.images.get_tag(prod, "v1-ok")
    (policy,) = await promotions.list_policies(prod, as_target=True, limit=9)
    assert (tag.manifest.digest, tag.origin) == (IMAGE.digest, Origin("acme/dev", "v1", policy.id))
    assert policy.last_promoted_at is not None
    rows = await rooms.query(
        "SELECT actor, actor_type FROM events WHERE object_type = 'tag' AND object_id = 'v1-ok'"
    )
    assert rows == [(policy.id, "policy")]


async def test_a_push_is_told_in_its_own_transaction_and_only_where_somebody_listens(
    rooms: Rooms, promotions: Promotions
):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE)
    counter = Counter().watch(rooms.database)
    await rooms.put(dev, IMAGE, "v1")
    alone = counter.statements
    policy = await make(promotions, dev, prod)
    assert await waiting(rooms) == []
    counter.reset()
    await rooms.put(dev, IMAGE, "v1")
    assert (counter.units, len(await waiting(rooms))) == (1, 1)
    assert counter.statements > alone
    await rooms.repositories.update("acme/dev", immutable_tags=True)
    with pytest.raises(Exception, match="cannot be overwritten"):
        await rooms.push(dev, OTHER, "v1")
    assert len(await waiting(rooms)) == 1  # nothing was pushed, nothing is told
    await rooms.put(dev, IMAGE)  # no tag
    assert len(await waiting(rooms)) == 1
    assert await promotions.delete(prod, policy.id, by=ADA)  # from the target's side, too
    assert not await promotions.delete(dev, policy.id, by=ADA)
    counter.reset()
    await rooms.put(dev, IMAGE, "v1")
    assert counter.statements == alone
    assert len(await waiting(rooms)) == 1


async def test_policies_of_the_target_go_on_and_a_circle_ends(rooms: Rooms, promotions: Promotions):
    one, two, three = [await rooms.make_repository(f"acme/{name}") for name in ("one", "two", "three")]
    await make(promotions, one, two)
    await make(promotions, two, three, template="%n-x")
    await make(promotions, three, one, template="v1")
    await rooms.push(one, IMAGE, "v1")
    outcomes = await work(rooms, promotions)
    assert [await names(rooms, which) for which in (one, two, three)] == [["v1"], ["v1"], ["v1-x"]]
    assert [" not promoted, it comes from there" in outcome.text for outcome in outcomes] == [False, False, True]


async def test_a_circle_of_ever_new_names_ends_as_well(rooms: Rooms, promotions: Promotions):
    one, two = await rooms.make_repository("acme/one"), await rooms.make_repository("acme/two")
    await make(promotions, one, two, template="%nx")
    await make(promotions, two, one, template="%nx")
    await rooms.push(one, IMAGE, "v")
    assert len(await work(rooms, promotions)) == 17
    assert len(await names(rooms, one)) + len(await names(rooms, two)) == 17


async def test_a_tag_that_was_moved_is_left_to_its_next_push(rooms: Rooms, promotions: Promotions):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await make(promotions, dev, prod)
    await rooms.push(dev, IMAGE, "v1")
    await rooms.push(dev, OTHER, "v1")
    outcomes = await work(rooms, promotions)
    assert sum("does not name" in one.text for one in outcomes) == 1
    assert (await rooms.images.get_tag(prod, "v1")).manifest.digest == OTHER.digest
    with pytest.raises(ManifestUnknown):  # moved between the look and the lock
        await Promotion(rooms.database, rooms.lifetimes).promote(
            dev, IMAGE.digest, prod, "v1", Origin("acme/dev", "v1"), while_named=True
        )


async def test_a_job_that_runs_again_gives_the_same_name(rooms: Rooms, promotions: Promotions):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await make(promotions, dev, prod, template="%n-%Y%m%d%H%M%S%f")
    await rooms.push(dev, IMAGE, "v1")
    (parameters,) = await waiting(rooms)
    for _ in range(2):
        assert [one.failed async for one in promotions.work_off(parameters)] == [False]
        await asyncio.sleep(0.003)
    assert len(await names(rooms, prod)) == 1


async def test_what_fails_is_said_and_the_others_go_on(rooms: Rooms, promotions: Promotions):
    dev, prod = (
        await rooms.make_repository("acme/dev"),
        await rooms.make_repository("acme/prod", immutable_tags=True),
    )
    await rooms.push(prod, OTHER, "v1")
    fixed = await make(promotions, dev, prod)
    long = await make(promotions, dev, prod, template="x" * 126 + "-%n")
    await make(promotions, dev, prod, template="%n-ok")
    await make(promotions, dev, prod, rule("vulnerability_critical", "eq", "0"), template="scanned")
    await rooms.push(dev, IMAGE, "v1")
    outcomes = await work(rooms, promotions)
    assert sorted(one.failed for one in outcomes) == [False, False, True, True]
    assert sum("waits for a scan" in one.text for one in outcomes) == 1
    assert await names(rooms, prod) == ["v1", "v1-ok"]
    rows = await rooms.query(
        "SELECT actor, repository, object_name, target_content FROM events WHERE type = 'FAIL'"
    )
    assert {(row[0], row[1], row[2]) for row in rows} == {
        (fixed.id, "acme/dev", "v1"),
        (long.id, "acme/dev", "v1"),
    }
    assert any("tag v1 cannot be overwritten" in row[3] for row in rows)
    failed = await promotions.get(dev, fixed.id)
    assert (failed.last_promoted_at, failed.last_job) == (None, "the job")
    assert failed.last_failed_at is not None
    assert failed.last_failure.startswith("tag v1: not promoted to acme/prod:v1: ")
    assert [
        (one.last_failure, one.last_job, one.last_promoted_at is None)
        for one in await promotions.list_policies(dev, limit=9)
        if one.template == "%n-ok"
    ] == [("", "the job", False)]


async def test_all_tags_are_shown_when_that_is_wanted(rooms: Rooms, promotions: Promotions):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "v1", "v2", "latest")
    policy = await make(promotions, dev, prod, rule("tag", "sw", "v"), evaluate=True)
    await work(rooms, promotions)
    assert await names(rooms, prod) == ["v1", "v2"]
    await promotions.change(
        PromotionPolicy(**asdict(policy) | {"template": "%n-new"}),
        evaluate=True,
        by=ADA,
    )
    await rooms.put(dev, annotated(IMAGE, n="3"), "v3")
    await work(rooms, promotions)
    assert await names(rooms, prod) == ["v1", "v1-new", "v2", "v2-new", "v3-new"]
    assert [
        one.text async for one in promotions.work_off({"repository": str(dev), "moment": "0", "policy": "x"})
    ] == ["policy x is not there any more"]
    assert [one.failed async for one in promotions.work_off({"repository": "x"})] == [True]


async def test_a_target_that_went_takes_nothing(rooms: Rooms, promotions: Promotions):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await make(promotions, dev, prod)
    await rooms.repositories.delete("acme/prod")
    await rooms.push(dev, IMAGE, "v1")
    assert await work(rooms, promotions) == []
    await rooms.collect_all()
    assert await rooms.count("promotion_policies") == 0


async def test_what_cannot_be_is_refused(rooms: Rooms, promotions: Promotions):
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    for target, template in ((dev, "%n"), (prod, ""), (prod, "no name"), (prod, "%"), (prod, "x" * 257)):
        with pytest.raises(PolicyInvalid):
            await make(promotions, dev, target, template=template)
    made = await make(promotions, dev, prod)
    other = await rooms.make_repository("acme/other")
    for repository, policy in ((other, made.id), (dev, "x")):
        with pytest.raises(PromotionPolicyUnknown):
            await promotions.get(repository, policy)
    rows = await rooms.query("SELECT type, actor_name FROM events WHERE object_type = 'promotion_policy'")
    assert rows == [("CREATE", "ada")]


async def test_the_newest_alone_are_judged_as_all_would_be(rooms: Rooms, promotions: Promotions):
    dev, prod = [await rooms.make_repository(path) for path in ("acme/dev", "acme/prod")]
    await rooms.push(dev, IMAGE, "v1", "v2", "v3")
    for number, tag in enumerate(("v2", "v3", "v1")):
        await rooms.change("UPDATE tags SET updated_at = :at WHERE name = :tag", at=number, tag=tag)
    meant = await make(promotions, dev, prod, rule("tag", "ew", "1"), template="%n-ok")
    newest = [one async for one in promotions.judge(meant, newest=2)]
    assert [(one.tag.name, one.name, one.promotes, one.found) for one in newest] == [
        ("v1", "v1-ok", True, ()),
        ("v3", "v3-ok", False, ("v3",)),
    ]
    assert sorted(newest, key=lambda one: one.tag.name) == [
        one async for one in promotions.judge(meant) if one.tag.name != "v2"
    ]


async def test_there_are_as_many_policies_as_are_obeyed_also_when_they_are_made_at_once(
    rooms: Rooms, promotions: Promotions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dtr.policies.promotion._MOST_POLICIES", 2)
    source, target = await rooms.make_repository("acme/source"), await rooms.make_repository("acme/target")
    made = await asyncio.gather(*(make(promotions, source, target) for _ in range(6)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["PolicyInvalid"] * 4 + ["PromotionPolicy"] * 2
    assert len(await promotions.list_policies(source, limit=9)) == 2
