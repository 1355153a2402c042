"""Pruning on both databases: what goes, what stays, and what happens to what is moved meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.images import make_artifact, make_image
from tests.support.rooms import Counter, Rooms, annotated

from dtr.db import Database, Statement
from dtr.events import Actor
from dtr.jobs import Jobs
from dtr.oci import companions
from dtr.policies import PolicyInvalid, PolicyUnknown, Pruning, PruningPolicy, PruningResult, parse_rules
from dtr.registry import Manifests

ADA = Actor("user", "id of ada", "ada")
IMAGE = make_image()


def rule(field: str, operator: str, *values: str) -> dict[str, Any]:
    return {"field": field, "operator": operator, "values": list(values)}


def policy(repository: int, *rules: dict[str, Any], **more: Any) -> PruningPolicy:
    return PruningPolicy(
        id="", repository=repository, enabled=more.pop("enabled", True), rules=parse_rules(list(rules)), **more
    )


@pytest.fixture
def pruning(rooms: Rooms) -> Pruning:
    return Pruning(rooms.database, rooms.tag_reader, rooms.manifests)


async def prune(pruning: Pruning, policy: PruningPolicy) -> int:
    """How many tags it deletes."""
    (done,) = await pruning.prune([policy])
    return done.deleted


async def push(rooms: Rooms, repository: int, *tags: str) -> None:
    """Each tag names a manifest of its own; the later ones are newer."""
    await rooms.push(repository, IMAGE)
    for number, tag in enumerate(tags):
        await rooms.put(repository, annotated(IMAGE, n=tag), tag)
        ago = (len(tags) - number) * 60_000
        await rooms.change("UPDATE tags SET updated_at = updated_at - :ago WHERE name = :tag", ago=ago, tag=tag)


async def names(rooms: Rooms, path: str = "acme/app") -> list[str]:
    return await rooms.manifests.list_tags(path, limit=10_000)


async def test_the_tags_that_the_rules_mean_go_and_no_others(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    other = await rooms.make_repository("acme/other")
    for number in (repository, other):
        await push(rooms, number, "dev-1", "dev-2", "1.0", "latest")
    made = await pruning.create(policy(repository, rule("tag", "sw", "dev-")), only_future=False, by=ADA)
    assert made.last_pruned_at is None
    assert await prune(pruning, made) == 2
    assert await names(rooms) == ["1.0", "latest"]
    assert len(await names(rooms, "acme/other")) == 4
    assert (await pruning.get(repository, made.id)).last_pruned_at is not None
    assert await prune(pruning, made) == 0


async def test_what_was_pruned_is_collected_and_the_events_name_the_policy(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, "dev-1", "1.0")
    made = await pruning.create(policy(repository, rule("tag", "sw", "dev-")), only_future=False)
    await prune(pruning, made)
    await rooms.collect_all()
    assert await rooms.count("manifests") == 1
    rows = await rooms.query(
        "SELECT actor, actor_type, object_id FROM events WHERE type = 'DELETE' AND object_type = 'tag'"
    )
    assert rows == [(made.id, "policy", "dev-1")]


async def test_so_many_of_the_newest_stay(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, "b", "c", "a", "d", "other")
    meant = policy(repository, rule("tag", "noo", "other"), keep=2)
    assert {one.tag.name: one.goes async for one in pruning.judge(meant)} == {
        "a": False, "b": True, "c": True, "d": False, "other": False,
    }  # fmt: skip
    await prune(pruning, await pruning.create(meant, only_future=False))
    assert await names(rooms) == ["a", "d", "other"]


async def test_only_tags_that_come_later_when_it_is_told_so(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, "dev-1", "dev-2")
    made = await pruning.create(policy(repository, rule("tag", "sw", "dev-")), only_future=True)
    assert await prune(pruning, made) == 0
    await rooms.put(repository, annotated(IMAGE, n="new"), "dev-2", "dev-3")
    assert await prune(pruning, made) == 2
    assert await names(rooms) == ["dev-1"]
    changed = await pruning.change(made, only_future=False)
    assert await prune(pruning, changed) == 1


async def test_age_pulls_labels_and_platforms_count(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, "old", "pulled", "new")
    await rooms.change("UPDATE tags SET updated_at = updated_at - 2592000000 WHERE name <> 'new'")
    await rooms.change(
        "INSERT INTO pulls (repository_id, reference, pulls, last_pulled_at)"
        " SELECT repository_id, name, 1, updated_at + 2505600000 FROM tags WHERE name = 'pulled'"
    )
    stale = [rule("updated_at_duration", "bf", "168h"), rule("last_pulled_at_duration", "bf", "168h")]
    going = [one.tag.name async for one in pruning.judge(policy(repository, *stale)) if one.goes]
    assert going == ["old"]
    on_linux = policy(repository, rule("platform", "eq", "linux/amd64"), {"not": rule("tag", "eq", "new")})
    assert [one.tag.name async for one in pruning.judge(on_linux) if one.goes] == ["old", "pulled"]


async def test_a_rule_about_what_a_scan_finds_deletes_nothing_before_there_is_one(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, "1.0")
    meant = policy(repository, rule("tag", "eq", "1.0"), rule("vulnerability_critical", "gte", "0"))
    (judged,) = [one async for one in pruning.judge(meant)]
    assert (judged.goes, judged.decision.answer.value, judged.decision.decided_by) == (False, "waits", 1)


async def test_a_tag_that_moves_between_decision_and_deletion_stays(
    rooms: Rooms, pruning: Pruning, monkeypatch: pytest.MonkeyPatch
):
    repository = await rooms.make_repository()
    await push(rooms, repository, "dev-1", "dev-2")
    made = await pruning.create(policy(repository, rule("tag", "sw", "dev-")), only_future=False)
    delete = rooms.manifests.delete_tags

    async def moved_first(*given: Any, **how: Any) -> set[str]:
        await rooms.put(repository, annotated(IMAGE, n="fresh"), "dev-1")
        return await delete(*given, **how)

    monkeypatch.setattr(rooms.manifests, "delete_tags", moved_first)
    assert await prune(pruning, made) == 1
    assert await names(rooms) == ["dev-1"]


async def test_many_tags_go_in_pages(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await rooms.push(repository, IMAGE, *(f"dev-{number}" for number in range(1200)), "keep")
    made = await pruning.create(policy(repository, rule("tag", "sw", "dev-")), only_future=False)
    assert await prune(pruning, made) == 1200
    assert await names(rooms) == ["keep"]


async def test_policies_are_kept_changed_listed_and_deleted(rooms: Rooms, pruning: Pruning, database: Database):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    rules = [rule("tag", "sw", "dev-"), {"any": [rule("signed", "eq", "false"), rule("size", "gt", "10")]}]
    first = await pruning.create(policy(repository, *rules, keep=3), only_future=False, by=ADA)
    second = await pruning.create(policy(repository, *rules, enabled=False), only_future=False, by=ADA)
    assert await pruning.list_policies(repository, limit=10) == sorted([first, second], key=lambda one: one.id)
    assert [rule_.document for rule_ in (await pruning.get(repository, first.id)).rules] == rules
    assert [one.policy.id async for one in pruning.work_off()] == [first.id]
    first = await pruning.get(repository, first.id)
    jobs = await Jobs(rooms.database).list_jobs()
    assert [(one.action, one.parameters) for one in jobs] == [("tag_prune", {"repository": str(repository)})]
    for unknown in (pruning.get(other, first.id), pruning.get(repository, "nothing")):
        with pytest.raises(PolicyUnknown):
            await unknown
    assert not await pruning.delete(other, first.id)
    assert await pruning.delete(repository, first.id, by=ADA)
    with pytest.raises(PolicyUnknown):
        await pruning.change(first, only_future=False)
    happened = await rooms.query(
        "SELECT type, actor_name FROM events WHERE object_type = 'pruning_policy' ORDER BY id"
    )
    assert happened == [("CREATE", "ada"), ("CREATE", "ada"), ("DELETE", "ada")]
    await rooms.repositories.delete("acme/app")
    await rooms.collect_all()
    rows = await rooms.database.fetch_all(Statement(text("SELECT count(*) FROM pruning_policies")))
    assert rows[0][0] == 0


async def test_policies_of_deleted_repositories_rest(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await pruning.create(policy(repository, rule("tag", "sw", "dev-")), only_future=False)
    await rooms.repositories.delete("acme/app")
    assert [one async for one in pruning.work_off()] == []


@pytest.mark.parametrize("more", [{"keep": -1}, {"keep": 100_001}])
async def test_a_policy_that_cannot_be_is_refused(rooms: Rooms, pruning: Pruning, more: dict[str, Any]):
    repository = await rooms.make_repository()
    with pytest.raises(PolicyInvalid):
        await pruning.create(policy(repository, rule("tag", "eq", "x"), **more), only_future=False)


async def test_a_policy_without_rules_would_delete_everything_and_is_refused(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    with pytest.raises(PolicyInvalid):
        await pruning.create(policy(repository), only_future=False)


async def test_rules_are_stored_as_they_are_written(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await pruning.create(policy(repository, rule("label", "eq", "träger=ü")), only_future=False)
    ((stored,),) = await rooms.query("SELECT rules FROM pruning_policies")
    assert json.loads(stored) == [rule("label", "eq", "träger=ü")]


# --- what stays all the same ----------------------------------------------------------------------------------


async def test_signed_and_immutable_tags_stay_and_that_is_said(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository(immutable_patterns=("dev-release*",))
    await push(rooms, repository, "dev-1", "dev-2", "dev-3", "dev-4", "dev-release")
    for tag, by_tag in (("dev-1", False), ("dev-2", True)):
        image = annotated(IMAGE, n=tag)
        artifact = make_artifact("application/vnd.cncf.notary.signature", b"s", subject=None if by_tag else image)
        await rooms.push(repository, artifact, *([companions(image.digest)[1]] if by_tag else []))
    meant = policy(repository, rule("tag", "sw", "dev-"), keep=1)
    assert {one.tag.name: (one.goes, one.kept) async for one in pruning.judge(meant)} == {
        "dev-1": (False, "signed"),
        "dev-2": (False, "signed"),
        "dev-3": (True, ""),
        "dev-4": (False, "newest"),  # those that stay anyway are not among the newest
        "dev-release": (False, "protected"),
    }
    (done,) = await pruning.prune([await pruning.create(meant, only_future=False)])
    assert (done.deleted, done.signed, done.protected) == (1, 2, 1)
    assert done.text.endswith(
        "deleted 1 tags; of those that stay, 1 are the newest, 2 are signed, 1 are immutable"
    )
    asks = policy(repository, rule("signed", "eq", "true"), rule("tag", "sw", "dev-"))
    assert await prune(pruning, await pruning.create(asks, only_future=False)) == 2
    assert [one for one in await names(rooms) if one.startswith("dev")] == ["dev-4", "dev-release"]


async def test_tags_in_content_trust_stay_also_when_the_rules_ask_for_signatures(
    rooms: Rooms, pruning: Pruning, monkeypatch: pytest.MonkeyPatch
):
    repository = await rooms.make_repository()
    await push(rooms, repository, "dev-1", "dev-2", "dev-3", "dev-4")
    await rooms.sign(repository, "dev-1", annotated(IMAGE, n="dev-1").digest)
    await rooms.sign(repository, "dev-2", IMAGE.digest)  # it was moved since
    for wanted, meant in (("true", "dev-1"), ("false", "dev-2")):
        asks = policy(repository, rule("signed", "eq", wanted), rule("tag", "eq", meant))
        assert [(one.goes, one.kept) async for one in pruning.judge(asks) if one.tag.name == meant] == [
            (False, "signed")
        ]
    always = policy(repository, {"any": [rule("signed", "eq", one) for one in ("true", "false")]})
    always = await pruning.create(always, only_future=False)

    async def delete_tags(repository: int, names: Any, **how: Any) -> Any:
        await rooms.sign(repository, "dev-3", IMAGE.digest)  # between the decision and the deletion
        return await Manifests.delete_tags(rooms.manifests, repository, names, **how)

    monkeypatch.setattr(rooms.manifests, "delete_tags", delete_tags)
    (done,) = await pruning.prune([always])
    assert (done.deleted, done.signed) == (1, 3)
    assert await names(rooms) == ["dev-1", "dev-2", "dev-3"]
    await rooms.signed.forget(repository, "dev-1")
    assert await prune(pruning, always) == 1
    assert await names(rooms) == ["dev-2", "dev-3"]


async def test_what_refers_to_an_image_by_its_tag_is_judged_when_the_image_is_gone(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await rooms.push(repository, IMAGE, "v1")
    own, others = companions(IMAGE.digest)[2], companions(make_image().digest)[2]
    for tag in (own, others):
        await rooms.push(repository, make_artifact("application/x", tag.encode()), tag)
    everything = await pruning.create(policy(repository, rule("tag", "noo", "v1")), only_future=False)
    assert await prune(pruning, everything) == 1
    assert await names(rooms) == sorted([own, "v1"])
    await rooms.manifests.delete(repository, IMAGE.digest)
    assert await prune(pruning, everything) == 1


async def test_policies_of_a_repository_are_worked_off_in_one_pass_each_for_itself(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, *(f"a{number}" for number in range(5)), *(f"b{number}" for number in range(5)))
    made = [
        await pruning.create(policy(repository, rule("tag", "sw", "a"), keep=3), only_future=False),
        await pruning.create(policy(repository, rule("tag", "ew", "0"), keep=1), only_future=False),
        await pruning.create(policy(repository, rule("vulnerability_all", "gt", "0")), only_future=False),
        await pruning.create(policy(repository, rule("tag", "c", ""), enabled=False), only_future=False),
    ]
    counter = Counter().watch(rooms.database)
    done = {one.policy.id: one async for one in pruning.work_off(repository)}
    assert [done[one.id].deleted for one in made[:3]] in ([2, 0, 0], [1, 1, 0])  # both mean a0
    assert await names(rooms) == ["a2", "a3", "a4", "b0", "b1", "b2", "b3", "b4"]
    counter.reset()  # from now on it knows the configs of images
    assert len([one async for one in pruning.work_off(repository)]) == 3
    reads, _ = counter.seen
    assert (await pruning.get(repository, made[2].id)).last.waiting == 8
    assert done[made[2].id].text.endswith("10 wait for a scan")
    assert made[3].id not in done
    for one in (made[0], made[2]):
        await pruning.delete(repository, one.id)
    counter.reset()
    assert len([one async for one in pruning.work_off(repository)]) == 1
    assert counter.reads == reads


async def test_what_came_of_the_work_is_kept_with_the_policy(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository(immutable_patterns=("dev-4",))
    await push(rooms, repository, "dev-1", "dev-2", "dev-3", "dev-4", "1.0")
    signed = annotated(IMAGE, n="dev-1")
    await rooms.push(repository, make_artifact("application/vnd.cncf.notary.signature", b"s", subject=signed))
    meant = policy(repository, rule("tag", "sw", "dev-"), keep=1, enabled=False)
    made = await pruning.create(meant, only_future=False)
    assert (made.last, made.last_job) == (PruningResult(), "")
    await pruning.start(made, by=ADA)
    (queued,) = await rooms.query("SELECT id, parameters FROM jobs WHERE action = 'tag_prune'")
    assert [one async for one in pruning.work_off(repository)] == []  # it is switched off
    which = json.loads(queued[1])["policy"]
    (done,) = [one async for one in pruning.work_off(repository, policy=which, job=queued[0])]
    kept = await pruning.get(repository, made.id)
    assert kept.last == PruningResult(waiting=0, deleted=1, newest=1, signed=1, protected=1)
    assert (done.deleted, kept.last_job) == (1, queued[0])
    assert await names(rooms) == ["1.0", "dev-1", "dev-3", "dev-4"]


async def test_the_newest_alone_are_judged_as_all_would_be(rooms: Rooms, pruning: Pruning):
    repository = await rooms.make_repository()
    await push(rooms, repository, "a", "b", "other", "c", "d")
    signature = companions(annotated(IMAGE, n="d").digest)[1]
    await rooms.put(repository, annotated(IMAGE, n="signature"), signature)  # is none of the tags
    meant = policy(repository, rule("tag", "noo", "other"), keep=1)
    all_of_them = {one.tag.name: one async for one in pruning.judge(meant)}
    newest = [one async for one in pruning.judge(meant, newest=4)]
    assert [(one.tag.name, one.goes, one.kept, one.found) for one in newest] == [
        ("d", False, "signed", ()),
        ("c", False, "newest", ()),
        ("other", False, "", ("other",)),
        ("b", True, "", ()),
    ]
    assert newest == [all_of_them[one.tag.name] for one in newest]


async def test_there_are_as_many_policies_as_are_obeyed_also_when_they_are_made_at_once(
    rooms: Rooms, pruning: Pruning, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dtr.policies.pruning._MOST_POLICIES", 2)
    repository = await rooms.make_repository()
    wanted = policy(repository, rule("tag", "sw", "dev-"))
    made = await asyncio.gather(
        *(pruning.create(wanted, only_future=False) for _ in range(6)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["PolicyInvalid"] * 4 + ["PruningPolicy"] * 2
    assert len(await pruning.list_policies(repository, limit=9)) == 2
