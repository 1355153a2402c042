"""Mirroring at work, on both databases: what goes where, what stays, and what is said about it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.support.images import make_artifact, make_image, make_index
from tests.support.mirrors import ADA, Mirrors
from tests.support.registry_double import RegistryDouble
from tests.support.rooms import Rooms, annotated

from dtr.mirrors import MirroringFailed, MirroringPolicyUnknown, Place
from dtr.mirrors.policies import MirroredTag, note_tag
from dtr.policies import PolicyInvalid
from dtr.registry import Manifests, ManifestUnknown
from dtr.remotes import Definition, Remote, RemoteBusy, RemoteDenied, RemoteUnreachable, add

THERE = "registry.example/mirror/app"
IMAGE = make_image(layers=2)
OTHER = make_image()
NESTED = make_index(make_index(make_image()), make_image())
SIGNATURE = make_artifact("application/vnd.dev.sigstore.bundle.v0.3+json", b"signed", subject=IMAGE)


# --- push -----------------------------------------------------------------------------------------------------


async def test_a_push_goes_to_the_remote_when_the_rules_mean_it(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    policy = await mirrors.make(app, "push", ("tag", "sw", "1."), template="from-%n")
    await rooms.push(app, IMAGE, "1.0")
    await rooms.push(app, OTHER, "latest")
    await mirrors.work()
    there = registry.repositories[THERE]
    assert there.tags == {"from-1.0": IMAGE.digest}
    assert registry.holds_whole(THERE, "from-1.0")
    again = await mirrors.again(policy)
    assert again.last_mirrored_at is not None
    assert again.status.code == "SUCCESS"
    assert await mirrors.tags(policy) == {"1.0": ("mirrored", "")}
    assert await mirrors.happened("push_mirroring") == [("CREATE", "push_mirroring", "1.0", f"{THERE}:from-1.0")]
    shown = await mirrors.policies.of_tags(app, {"1.0": IMAGE.digest, "latest": OTHER.digest})
    assert {name: (one.policy, one.remote_tag) for name, one in shown.items()} == {"1.0": (policy.id, "from-1.0")}


async def test_only_what_is_missing_goes(rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors):
    app = await rooms.make_repository()
    await mirrors.make(app, "push")
    registry.push(THERE, IMAGE)
    await rooms.push(app, IMAGE)
    await rooms.push(app, annotated(IMAGE, n="2"), "1")
    await mirrors.work()
    assert registry.holds_whole(THERE, "1")
    assert registry.calls["write_blob"] == 0
    registry.calls.clear()
    await rooms.push(app, annotated(IMAGE, n="2"), "1")  # the same: one HEAD says so
    await mirrors.work()
    assert registry.calls == {"head_manifest": 1}


async def test_a_blob_that_another_repository_of_the_remote_has_is_mounted(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    one, two = await rooms.make_repository("acme/one"), await rooms.make_repository("acme/two")
    first = await mirrors.make(one, "push", there="mirror/one")
    second = await mirrors.make(two, "push", there="mirror/two")
    await rooms.change("UPDATE mirroring_policies SET remote_id = :remote", remote=first.remote)
    await rooms.push(one, IMAGE, "1")
    await mirrors.work()
    registry.calls.clear()
    await rooms.push(two, annotated(IMAGE, n="2"), "1")
    await mirrors.work()
    assert registry.holds_whole("registry.example/mirror/two", "1")
    assert (registry.calls["mount_blob"], registry.calls["write_blob"]) == (3, 0)
    assert (await mirrors.again(second)).status.code == "SUCCESS"


@pytest.mark.parametrize("lists_referrers", [True, False])
async def test_nested_indexes_go_whole_and_signatures_on_wish(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors, *, lists_referrers: bool
):
    registry.lists_referrers = lists_referrers
    app = await rooms.make_repository()
    policy = await mirrors.make(app, "push", referrers=True)
    await rooms.push(app, NESTED, "nested")
    await rooms.push(app, IMAGE, "signed")
    await rooms.push(app, SIGNATURE)
    await mirrors.work()
    assert registry.holds_whole(THERE, "nested")
    assert registry.holds_whole(THERE, SIGNATURE.digest)
    remote = Remote(host="https://registry.example", repository="mirror/app")
    async with registry.connect(remote) as there:
        assert [one.digest for one in await there.referrers(IMAGE.digest)] == [SIGNATURE.digest]
    # A signature that comes later follows its image; what else refers to it is found by the next look at all.
    later = make_artifact("application/vnd.cncf.notary.signature", b"later", subject=IMAGE)
    await rooms.push(app, later)
    await mirrors.work()
    assert registry.holds_whole(THERE, later.digest)
    cosign = IMAGE.digest.replace(":", "-") + ".sig"
    await rooms.push(app, OTHER, cosign)
    await mirrors.work()
    assert registry.repositories[THERE].tags[cosign] == OTHER.digest
    note = make_artifact("text/x-note", b"by the way", subject=IMAGE)
    await rooms.push(app, note)
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert registry.holds_whole(THERE, note.digest)
    assert await mirrors.policies.queue_all() == 0
    assert (await mirrors.again(policy)).status.code == "SUCCESS"


async def test_what_was_moved_meanwhile_is_left_to_its_next_push(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    await mirrors.make(app, "push")
    await rooms.push(app, IMAGE, "latest")
    await rooms.push(app, OTHER, "latest")
    await mirrors.work()
    there = registry.repositories[THERE]
    assert there.tags == {"latest": OTHER.digest}
    assert IMAGE.digest not in there.manifests


@pytest.mark.parametrize(
    ("error", "code", "is_lasting", "retry_after"),
    [
        (RemoteDenied("the remote answered 401"), "REMOTE_DENIED", True, None),
        (RemoteBusy("the remote answered 429", retry_after=90), "REMOTE_BUSY", False, 90),
        (RemoteUnreachable("the remote ended in the middle of a blob"), "REMOTE_UNREACHABLE", False, None),
    ],
)
async def test_a_failure_is_told_and_tried_again(
    rooms: Rooms,
    registry: RegistryDouble,
    mirrors: Mirrors,
    error: Any,
    code: str,
    is_lasting: bool,
    retry_after: Any,
):
    app = await rooms.make_repository()
    policy = await mirrors.make(app, "push")
    await rooms.push(app, IMAGE, "1")
    registry.fails = lambda call, _: error if call == "write_blob" else None
    await mirrors.run("1", *await _only(mirrors, rooms, "promote"), failing=False)
    job = await _only(mirrors, rooms, "push_mirror_tag")
    for _ in range(2):
        with pytest.raises(MirroringFailed) as failed:
            await mirrors.run("2", *job, failing=False)
        assert (failed.value.is_lasting, failed.value.retry_after) == (is_lasting, retry_after)
    again = await mirrors.again(policy)
    assert (again.status.code, again.status.detail, again.last_mirrored_at) == (code, str(error), None)
    assert again.status.job == "2"
    assert await mirrors.tags(policy) == {"1": ("failed", str(error))}
    assert [row[0] for row in await mirrors.happened("push_mirroring")] == ["FAIL"]  # once for both
    registry.fails = lambda _call, _argument: None
    await mirrors.run("3", *job, failing=False)
    assert registry.holds_whole(THERE, "1")
    assert await mirrors.tags(policy) == {"1": ("mirrored", "")}


async def _only(mirrors: Mirrors, rooms: Rooms, action: str) -> tuple[str, str]:
    """Action and parameters of the only job that waits; it waits no more."""
    queued = await mirrors.queued()
    assert [one[0] for one in queued] == [action]
    await rooms.change("UPDATE jobs SET status = 'done', unique_key = NULL")
    return action, json.dumps(queued[0][1])


async def test_a_new_policy_is_shown_all_tags_when_it_is_to_be(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    await rooms.push(app, IMAGE, "1")
    later = await mirrors.make(app, "push", evaluate=False)
    assert await mirrors.queued() == []
    await mirrors.policies.delete(app, [later.id])
    await mirrors.make(app, "push", evaluate=True)
    await mirrors.work()
    assert registry.repositories[THERE].tags == {"1": IMAGE.digest}


async def test_deletions_here_are_followed_within_a_safe_share(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    policy = await mirrors.make(app, "push", deletions=True)
    tags = [f"v{number}" for number in range(8)]
    for number, tag in enumerate(tags):
        await rooms.push(app, annotated(IMAGE, n=str(number)), tag)
    await mirrors.work()
    there = registry.repositories[THERE]
    assert sorted(there.tags) == tags
    await rooms.manifests.delete_tags(app, tags[:2])
    there.tags["v1"] = there.tags["v7"]  # somebody moved it: it is not ours any more
    assert await mirrors.policies.queue_all() == 1
    await mirrors.work()
    assert sorted(there.tags) == tags[1:]
    assert sorted(await mirrors.tags(policy)) == tags[2:]
    await rooms.manifests.delete_tags(app, tags[2:6])
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert sorted(there.tags) == tags[1:]
    assert (await mirrors.again(policy)).status.code == "TOO_MANY_DELETIONS"
    await mirrors.policies.start(policy, any_deletions=True, by=ADA)
    await mirrors.work()
    assert sorted(there.tags) == ["v1", "v6", "v7"]
    assert [row[0] for row in await mirrors.happened("push_mirroring")].count("DELETE") == 5


async def test_a_remote_that_cannot_delete_tags_is_told_of(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    registry.deletes_tags = False
    app = await rooms.make_repository()
    policy = await mirrors.make(app, "push", deletions=True)
    await rooms.push(app, IMAGE, "1")
    await mirrors.work()
    await rooms.manifests.delete_tags(app, ["1"])
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert (await mirrors.again(policy)).status.code == "REMOTE_REFUSED"


# --- poll -----------------------------------------------------------------------------------------------------


async def test_a_poll_brings_what_the_rules_mean_and_then_costs_a_head_a_tag(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    registry.push(THERE, IMAGE, "1.0")
    registry.push(THERE, NESTED, "1.1")
    registry.push(THERE, OTHER, "nightly")
    policy = await mirrors.make(app, "poll", ("tag", "sw", "1."), template="up-%n", evaluate=True)
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == ["up-1.0", "up-1.1"]
    assert (await rooms.manifests.get("acme/app", "up-1.0")).payload == IMAGE.payload
    assert await rooms.findings(content=True) == []
    again = await mirrors.again(policy)
    assert (again.status.code, again.status.detail) == ("SUCCESS", "2 tags mirrored, 0 failed")
    assert await mirrors.happened("poll_mirroring") == [
        ("CREATE", "poll_mirroring", "up-1.0", f"{THERE}:1.0"),
        ("CREATE", "poll_mirroring", "up-1.1", f"{THERE}:1.1"),
    ]
    assert (await rooms.images.get_tag(app, "up-1.0")).author == "poll mirroring"
    registry.calls.clear()
    assert await mirrors.policies.queue_all() == 1
    await mirrors.work()
    assert registry.calls == {"tags": 1, "head_manifest": 2}
    registry.push(THERE, OTHER, "1.0")
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert (await rooms.manifests.get("acme/app", "up-1.0")).digest == OTHER.digest


async def test_what_was_there_before_the_policy_is_skipped_when_it_is_to_be(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    registry.push(THERE, IMAGE, "old")
    policy = await mirrors.make(app, "poll", evaluate=False)
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == []
    assert await mirrors.tags(policy) == {"old": ("skipped", "")}
    registry.push(THERE, OTHER, "new")
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == ["new"]
    # To evaluate it after all brings the others.
    again = await mirrors.again(policy)

    async def same(_tx: Any) -> str:
        return again.remote

    await mirrors.policies.change(again, same, evaluate=True)
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == ["new", "old"]


async def test_what_was_deleted_or_pruned_here_does_not_come_back(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    registry.push(THERE, IMAGE, "1")
    policy = await mirrors.make(app, "poll", evaluate=True)
    await mirrors.work()
    await rooms.manifests.delete_tags(app, ["1"])
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == []
    await mirrors.policies.start(policy, everything=True)
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == ["1"]


async def test_an_immutable_tag_stays_is_told_of_once_and_the_others_come(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository(immutable_tags=True)
    await rooms.push(app, OTHER, "1")
    registry.push(THERE, IMAGE, "1")
    registry.push(THERE, NESTED, "2")
    policy = await mirrors.make(app, "poll", evaluate=True)
    for _ in range(2):
        log = await mirrors.work(failing=True)
        assert "failed: 1 tags could not be mirrored" in log
        await mirrors.policies.queue_all()
    assert (await rooms.manifests.get("acme/app", "1")).digest == OTHER.digest
    assert (await rooms.manifests.get("acme/app", "2")).digest == NESTED.digest
    again = await mirrors.again(policy)
    assert again.status.code == "FAILED"
    assert (await mirrors.tags(policy))["1"] == ("failed", "tag 1 cannot be overwritten")
    kinds = [row[0] for row in await mirrors.happened("poll_mirroring")]
    assert sorted(kinds) == ["CREATE", "FAIL"]


async def test_a_poll_that_breaks_off_goes_on_where_it_was(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    large = make_image(size=300_000)
    registry.push(THERE, large, "1")
    policy = await mirrors.make(app, "poll", evaluate=True)
    dead = RemoteUnreachable("the remote ended in the middle of a blob")
    registry.fails = lambda call, _: dead if call == "piece" and registry.calls["piece"] == 20 else None
    log = await mirrors.work(failing=True)
    assert log[-2:] == [f"1 of 1 tags of {THERE} are meant"] or any("middle of a blob" in line for line in log)
    assert (await mirrors.again(policy)).status.code == "REMOTE_UNREACHABLE"
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert (await rooms.manifests.get("acme/app", "1")).digest == large.digest
    pieces = sum(-(-len(blob) // 10_000) for blob in large.blobs)
    assert registry.calls["piece"] <= pieces + 2  # nothing came twice but the piece that did not come


async def test_deletions_there_are_followed_within_a_safe_share(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    tags = [f"v{number}" for number in range(8)]
    for number, tag in enumerate(tags):
        registry.push(THERE, annotated(IMAGE, n=str(number)), tag)
    policy = await mirrors.make(app, "poll", deletions=True, evaluate=True)
    await mirrors.work()
    there = registry.repositories[THERE]
    await rooms.push(app, OTHER, "v1")  # moved here since: it is not the mirror's any more
    del there.tags["v0"], there.tags["v1"]
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == tags[1:]
    there.tags.clear()
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == tags[1:]
    assert (await mirrors.again(policy)).status.code == "TOO_MANY_DELETIONS"
    await rooms.sign(app, "v7", annotated(IMAGE, n="7").digest)
    await mirrors.policies.start(policy, any_deletions=True)
    log = await mirrors.work()
    assert "tag v7: stays, though it is gone there: it is signed in content trust" in log
    assert await rooms.manifests.list_tags(app, limit=10) == ["v1", "v7"]


async def test_deletions_are_not_followed_unless_they_are_to_be(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    registry.push(THERE, IMAGE, "1")
    await mirrors.make(app, "poll", evaluate=True)
    await mirrors.work()
    registry.repositories[THERE].tags.clear()
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == ["1"]


async def test_what_came_from_a_remote_does_not_go_back_but_goes_on(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    registry.push(THERE, NESTED, "1")
    await mirrors.make(app, "push", template="back-%n")
    await mirrors.make(app, "push", there="elsewhere/app", evaluate=False)
    await mirrors.make(app, "poll", evaluate=True)
    log = await mirrors.work()
    assert any("not mirrored, it comes from" in line for line in log)
    assert registry.repositories[THERE].tags == {"1": NESTED.digest}
    assert registry.holds_whole("registry.example/elsewhere/app", "1")
    # Nor when all tags are shown.
    back = next(
        one for one in await mirrors.policies.list_policies(app, direction="push", limit=9) if one.template != "%n"
    )
    await mirrors.policies.start(back, everything=True)
    await mirrors.work()
    assert registry.repositories[THERE].tags == {"1": NESTED.digest}


async def test_an_image_that_is_not_whole_there_is_a_failure_of_its_tag(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    registry.push(THERE, NESTED, "broken")
    del registry.repositories[THERE].manifests[NESTED.children[1].digest]
    registry.push(THERE, IMAGE, "good")
    policy = await mirrors.make(app, "poll", evaluate=True)
    await mirrors.work(failing=True)
    assert await rooms.manifests.list_tags(app, limit=10) == ["good"]
    status, detail = (await mirrors.tags(policy))["broken"]
    assert (status, "is named there, but is not there" in detail) == ("failed", True)


async def test_signatures_come_on_wish(rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors):
    app = await rooms.make_repository()
    registry.push(THERE, IMAGE, "1")
    registry.push(THERE, SIGNATURE)
    cosign = IMAGE.digest.replace(":", "-") + ".sig"
    registry.push(THERE, make_artifact("application/vnd.dev.cosign.v1", b"cosign"), cosign)
    await mirrors.make(app, "poll", ("tag", "eq", "1"), referrers=True, template="up-%n", evaluate=True)
    await mirrors.work()
    assert await rooms.manifests.list_tags(app, limit=10) == [cosign, "up-1"]
    assert [one.digest for one in await rooms.manifests.list_referrers(app, IMAGE.digest, limit=9)] == [
        SIGNATURE.digest
    ]
    later = make_artifact("application/vnd.cncf.notary.signature", b"later", subject=IMAGE)
    registry.push(THERE, later)
    await mirrors.policies.queue_all()
    await mirrors.work()
    assert len(await rooms.manifests.list_referrers(app, IMAGE.digest, limit=9)) == 2


async def test_a_transfer_survives_that_what_was_here_goes_meanwhile(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
):
    app = await rooms.make_repository()
    registry.push(THERE, IMAGE, "1")
    put, lost = Manifests.put, []

    async def late(self: Manifests, *given: Any, **more: Any) -> None:
        if not lost:
            lost.append(await rooms.collect_all())
            assert await rooms.count("repository_blobs") == 0
        await put(self, *given, **more)

    monkeypatch.setattr(Manifests, "put", late)
    await mirrors.make(app, "poll", evaluate=True)
    await mirrors.work()
    assert (await rooms.manifests.get("acme/app", "1")).digest == IMAGE.digest


# --- policies -------------------------------------------------------------------------------------------------


async def test_policies_are_made_changed_and_deleted_with_their_remotes(rooms: Rooms, mirrors: Mirrors):
    app = await rooms.make_repository()
    has_policies = "SELECT has_policies FROM repositories"
    poll = await mirrors.make(app, "poll", evaluate=False)
    assert not (await rooms.query(has_policies))[0][0]
    push = await mirrors.make(app, "push")
    assert (await rooms.query(has_policies))[0][0]
    assert [one.id for one in await mirrors.policies.list_policies(app, direction="push", limit=9)] == [push.id]
    assert len(await mirrors.policies.list_policies(app, limit=9)) == 2
    assert await rooms.count("remotes") == 2
    with pytest.raises(MirroringPolicyUnknown):
        await mirrors.policies.get(push.id, direction="poll")
    with pytest.raises(MirroringPolicyUnknown):
        await mirrors.policies.get(push.id, repository=app + 1)
    assert await mirrors.policies.delete(app, [push.id, poll.id, "none"], direction="push", by=ADA) == {push.id}
    assert not (await rooms.query(has_policies))[0][0]
    assert await mirrors.policies.delete(app, [poll.id]) == {poll.id}
    assert await rooms.count("remotes") == 0
    assert "hunter2" not in str(await rooms.query("SELECT * FROM events"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"template": "no name"}, "tagTemplate"),
        ({"there": "NO"}, "remoteRepository"),
        ({"schedule": "now and then"}, "schedule"),
        ({"schedule": "* * * * * *"}, "more than one moment in a minute"),
    ],
)
async def test_what_no_policy_can_be(rooms: Rooms, mirrors: Mirrors, more: dict[str, str], reason: str):
    app = await rooms.make_repository()
    with pytest.raises(PolicyInvalid, match=reason):
        await mirrors.make(app, "push", **more)


async def test_rules_of_a_poll_ask_for_the_tag_alone(rooms: Rooms, mirrors: Mirrors):
    app = await rooms.make_repository()
    with pytest.raises(PolicyInvalid, match="the tag alone"):
        await mirrors.make(app, "poll", ("tag", "eq", "1"), ("size", "gt", "1"))


async def test_a_policy_with_a_schedule_of_its_own_works_by_it_alone(rooms: Rooms, mirrors: Mirrors):
    app = await rooms.make_repository()
    policy = await mirrors.make(app, "poll", schedule="0 0 3 * * *")
    await mirrors.work()
    assert await mirrors.policies.queue_all() == 0
    assert await mirrors.policies.queue_due() == 0
    await rooms.change("UPDATE mirroring_policies SET next_run = 1")
    assert await mirrors.policies.queue_due() == 1
    await rooms.change("UPDATE mirroring_policies SET next_run = 1")
    await mirrors.policies.queue_due()  # while it waits, it is not queued again
    assert [(action, given["policy"]) for action, given in await mirrors.queued()] == [("poll_mirror", policy.id)]
    next_run = (await mirrors.policies.get(policy.id)).next_run
    assert next_run is not None
    assert next_run % 86_400_000 == 3 * 3_600_000


async def test_tags_are_counted_and_listed_by_what_became_of_them(rooms: Rooms, mirrors: Mirrors):
    app = await rooms.make_repository()
    policy, other = [await mirrors.make(app, "push") for _ in range(2)]

    async def note(tx: Any) -> None:
        for tag, status in (("1", "mirrored"), ("2", "failed"), ("3", "mirrored"), ("4", "waiting")):
            noted = MirroredTag(tag=tag, target_tag=tag, remote="r/a", digest="sha256:0", status=status)  # type: ignore[arg-type]
            await note_tag(tx, app, policy.id, "push", noted)

    await rooms.database.unit(note)
    counted = await mirrors.policies.count_by_status(app, [policy.id, other.id])
    assert counted == {policy.id: {"mirrored": 2, "failed": 1, "waiting": 1}}
    listed = await mirrors.policies.list_tags(policy, status="mirrored", start="2", limit=9)
    assert [one.tag for one in listed] == ["3"]
    assert [
        await mirrors.policies.count_tags(policy, status=status) for status in ("mirrored", "skipped", None)
    ] == [2, 0, 4]


async def test_a_policy_that_was_switched_off_or_deleted_does_nothing(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    off = await mirrors.make(app, "push", enabled=False)
    gone = await mirrors.make(app, "push")
    await rooms.push(app, IMAGE, "1")
    await mirrors.run("1", *await _only(mirrors, rooms, "promote"), failing=False)
    assert [given["policy"] for _, given in await mirrors.queued()] == [gone.id]
    await mirrors.policies.delete(app, [gone.id])
    assert await mirrors.work() == [f"policy {gone.id} is not there any more"]
    await mirrors.policies.start(off)
    assert await mirrors.work() == [f"policy {off.id} is switched off"]
    assert registry.repositories.get(THERE) is None


async def test_a_tag_is_mirrored_by_hand_and_its_remote_is_forgotten(
    rooms: Rooms, registry: RegistryDouble, mirrors: Mirrors
):
    app = await rooms.make_repository()
    kept = await mirrors.make(app, "push", enabled=False)
    prepared = await mirrors.definitions.prepare(Definition(host="https://registry.example", repository_id=app))
    await rooms.push(app, IMAGE, "1")
    await mirrors.work()

    async def put(tx: Any) -> str:
        await add(tx, prepared)
        return prepared.id

    async def of_policy(_tx: Any) -> str:
        return kept.remote

    for where, remote in (("by/hand", put), ("by/mistake", of_policy)):
        await mirrors.policies.push_by_hand(app, "1", IMAGE.digest, remote, where, "2", by=ADA)
    await mirrors.work()
    assert registry.holds_whole("registry.example/by/hand", "2")
    assert registry.holds_whole("registry.example/by/mistake", "2")
    assert await rooms.query("SELECT id FROM remotes") == [(kept.remote,)]
    assert (await mirrors.again(kept)).id == kept.id
    (last,) = (await mirrors.policies.of_tags(app, {"1": IMAGE.digest})).values()
    assert (last.policy, last.remote_tag) == ("", "2")
    actors = await rooms.query("SELECT DISTINCT actor_name FROM events WHERE object_type = 'push_mirroring'")
    assert actors == [("ada",)]
    # One that never succeeds goes after a day.
    prepared = await mirrors.definitions.prepare(Definition(host="https://registry.example", repository_id=app))
    await mirrors.policies.push_by_hand(app, "1", IMAGE.digest, put, "by/hand", "3", by=ADA)
    assert await mirrors.policies.forget_remotes() == 0
    await rooms.change("UPDATE remotes SET created_at = 1")
    assert await mirrors.policies.forget_remotes() == 1


async def test_a_tag_that_is_gone_is_no_tag(rooms: Rooms, mirrors: Mirrors):
    app = await rooms.make_repository()
    await mirrors.make(app, "push")
    await rooms.push(app, IMAGE, "1")
    await rooms.manifests.delete_tags(app, ["1"])
    assert await mirrors.work() == []
    with pytest.raises(ManifestUnknown):
        await rooms.manifests.get("acme/app", "1")
    assert await mirrors.local.find_manifest(Place(app, "acme/app"), "1") is None


async def test_there_are_as_many_policies_as_are_obeyed_also_when_they_are_made_at_once(
    rooms: Rooms, mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dtr.mirrors.policies._MOST_POLICIES", 2)
    repository = await rooms.make_repository()
    made = await asyncio.gather(*(mirrors.make(repository, "push") for _ in range(6)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["MirroringPolicy"] * 2 + ["PolicyInvalid"] * 4
    assert len(await mirrors.policies.list_policies(repository, limit=9)) == 2
