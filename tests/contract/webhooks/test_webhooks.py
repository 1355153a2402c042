"""Webhooks on both databases: what is told to whom, once, and what becomes of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.images import make_image
from tests.support.receiver import Receiver as Server
from tests.support.receiver import Reply, receiving
from tests.support.rooms import Rooms, annotated

from dtr.db import Database
from dtr.events import Actor, Object, Recorded
from dtr.events.event import Event, record
from dtr.jobs import Crons, Worker
from dtr.jobs.worker import Action
from dtr.oci import parse_repository_name
from dtr.outbound import Addresses, Outside
from dtr.registry.promote import Origin, Promotion
from dtr.vault import Vault, VaultError
from dtr.webhooks import (
    RETRIES,
    TYPES,
    Deliveries,
    Delivery,
    DeliveryFailed,
    DeliveryUnknown,
    Dispatcher,
    Receiver,
    Sender,
    Webhook,
    WebhookInvalid,
    Webhooks,
    WebhookUnknown,
    deliveries,
    dispatcher,
)
from dtr.webhooks.payloads import sample

ADA = Actor("user", "id of ada", "ada")
IMAGE = make_image()
DAY = 86_400_000


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "keys" / "secret.key")


@pytest.fixture
def server() -> Iterator[Server]:
    with receiving() as made:
        yield made


class World:
    """The rooms, and what a jobrunner does, step by step. `subscribe` makes webhooks that are a second old."""

    def __init__(self, rooms: Rooms, vault: Vault, server: Server) -> None:
        self.rooms = rooms
        self.server = server
        self.webhooks = Webhooks(rooms.database, vault)
        sender = Sender(Outside(Addresses(["127.0.0.0/8"])), seconds=60)
        self.deliveries = Deliveries(rooms.database, vault, sender, lambda: "r.example")
        self.dispatcher = self.another_dispatcher()

    def another_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.rooms.database,
            self.deliveries,
            repositories=self.rooms.repositories,
            configs=self.rooms.image_configs,
            usage=self.rooms.usage_counts,
            host=lambda: "r.example",
        )

    async def subscribe(self, kind: str, secret: str = "", **more: Any) -> Webhook:
        receiver = Receiver(endpoint=self.server.url(f"/{kind}"), skip_tls_verification=True)
        webhook = Webhook(type=kind, receiver=receiver, **more)
        made = await self.webhooks.create(webhook, secret=secret, by=ADA)
        await self.rooms.change("UPDATE webhooks SET created_at = created_at - 1000 WHERE id = :id", id=made.id)
        return made

    async def begin(self) -> None:
        """Follow from here on."""
        assert await self.dispatcher._follower.claim()

    async def follow(self) -> None:
        found = await self.dispatcher._follower.fetch()
        assert await self.dispatcher._tell(found)

    async def waiting(self) -> list[str]:
        """The deliveries of the jobs that wait, in the order in which they were queued."""
        rows = await self.rooms.query(
            "SELECT d.id FROM jobs JOIN webhook_deliveries d ON jobs.unique_key = 'webhook:' || d.id"
            " WHERE jobs.action = 'webhook' AND jobs.status = 'waiting' ORDER BY d.event_id, d.webhook_id"
        )
        return [row[0] for row in rows]

    async def deliver(self) -> list[Any]:
        """What is sent for all that waits, and what the server got."""
        for one in await self.waiting():
            await self.deliveries.deliver(one)
        return [one.json for one in self.server.received]

    async def the_delivery(self, webhook: Webhook) -> Delivery:
        (found,) = await self.deliveries.list_deliveries(webhook.id, limit=10)
        return found


@pytest.fixture
async def world(rooms: Rooms, vault: Vault, server: Server) -> World:
    made = World(rooms, vault, server)
    await made.begin()
    return made


# --- subscriptions --------------------------------------------------------------------------------------------


async def test_each_list_has_its_own(world: World):
    rooms = world.rooms
    app = await rooms.make_repository("acme/app", visibility="public")
    tool = await rooms.make_repository("acme/tool")
    acme = await rooms.accounts.get("acme")
    of_app = await world.subscribe("TAG_PUSH", repository_id=app)
    of_tool = await world.subscribe("TAG_PULL", repository_id=tool)
    of_acme = await world.subscribe("REPO_EVENT", namespace_id=acme.id)
    of_all = await world.subscribe("TAG_PUSH")
    assert (of_app.key, of_acme.key, of_all.key) == ("acme/app", "acme", "")

    async def ids(**which: Any) -> set[str]:
        found = await world.webhooks.list_webhooks(**which, limit=10)
        assert found == sorted(found, key=lambda one: (one.created_at, one.id))
        assert await world.webhooks.count(**which) == len(found)
        return {one.id for one in found}

    assert await ids() == {of_app.id, of_tool.id, of_acme.id, of_all.id}
    assert await ids(everywhere=True) == {of_all.id}
    assert await ids(author=ADA.id) == {of_app.id, of_acme.id, of_all.id}  # acme/tool is not hers to see any more
    assert await ids(author="another") == set()
    assert await ids(repository=app) == {of_app.id}
    assert await ids(namespace=acme.id) == {of_acme.id}
    assert await ids(kind="TAG_PUSH") == {of_app.id, of_all.id}
    first, second = sorted([of_app.id, of_all.id])
    page = await world.webhooks.list_webhooks(kind="TAG_PUSH", start=second, limit=1)
    assert [one.id for one in page] == [second] != [first]
    await world.webhooks.delete(of_app.id)
    with pytest.raises(WebhookUnknown):
        await world.webhooks.get(of_app.id)
    with pytest.raises(WebhookUnknown):
        await world.webhooks.delete(of_app.id)


async def test_what_no_webhook_can_be(world: World):
    app = await world.rooms.make_repository("acme/app")
    receiver = Receiver(endpoint="https://r.example/")
    for webhook, secret in (
        (Webhook(type="NOTHING", receiver=receiver), ""),
        (Webhook(type="SCANNER_UPDATE_COMPLETED", receiver=receiver, repository_id=app), ""),
        (Webhook(type="TAG_PUSH", receiver=receiver, format="xml"), ""),  # type: ignore[arg-type]
        (Webhook(type="TAG_PUSH", receiver=receiver, name="n" * 201), ""),
        (Webhook(type="TAG_PUSH", receiver=receiver), "s" * 1001),
        (Webhook(type="TAG_PUSH", receiver=replace(receiver, tls_cert="c" * 20_001)), ""),
        (Webhook(type="TAG_PUSH", receiver=Receiver(endpoint="http://r.example/")), ""),
        (Webhook(type="TAG_PUSH", receiver=receiver, repository_id=99), ""),
    ):
        with pytest.raises(WebhookInvalid):
            await world.webhooks.create(webhook, secret=secret)
    assert await world.rooms.count("webhooks") == 0
    await world.rooms.change(
        "INSERT INTO webhooks (id, type, author_id, name, endpoint, format, tls_cert, skip_tls_verification,"
        " is_active, created_at) SELECT 'w' || line, 'TAG_PUSH', '', '', '', 'dtr', '', :no, :yes, 0 FROM"
        " (WITH RECURSIVE n(line) AS (SELECT 1 UNION ALL SELECT line + 1 FROM n WHERE line < 100)"
        " SELECT line FROM n) AS lines",
        no=False,
        yes=True,
    )
    with pytest.raises(WebhookInvalid, match="at most 100"):
        await world.webhooks.create(Webhook(type="TAG_PUSH", receiver=receiver))
    await world.webhooks.create(Webhook(type="TAG_PULL", receiver=receiver))


async def test_secrets_are_kept_sealed(world: World, vault: Vault, tmp_path: Path):
    made = await world.subscribe("TAG_PUSH", secret="open sesame")
    assert made.has_secret
    ((stored,),) = await world.rooms.query("SELECT secret FROM webhooks")
    assert "sesame" not in stored
    assert vault.open(stored, f"webhook {made.id}") == "open sesame"
    with pytest.raises(VaultError):
        vault.open(stored, "webhook another")
    with pytest.raises(VaultError):
        Vault(tmp_path / "another.key").open(stored, f"webhook {made.id}")
    key = tmp_path / "keys" / "secret.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert list(key.parent.iterdir()) == [key]
    key.write_text("short")
    with pytest.raises(VaultError, match="not a key"):
        Vault(key).open(stored, f"webhook {made.id}")
    changed = await world.webhooks.change(made.id, secret="")
    assert not changed.has_secret
    again = await world.webhooks.change(made.id, secret=None)
    assert not again.has_secret


async def test_what_two_change_at_once_is_both_changed(world: World):
    made = await world.subscribe("TAG_PUSH")
    before = await world.rooms.count("events")
    assert await world.webhooks.change(made.id, name="", is_active=True) == await world.webhooks.get(made.id)
    assert await world.rooms.count("events") == before  # nothing was changed
    await asyncio.gather(
        world.webhooks.change(made.id, is_active=False), world.webhooks.change(made.id, name="builds")
    )
    found = await world.webhooks.get(made.id)
    assert (found.is_active, found.name) == (False, "builds")
    with pytest.raises(WebhookInvalid, match="without TLS"):
        await world.webhooks.change(made.id, skip_tls_verification=False)
    with pytest.raises(WebhookUnknown):
        await world.webhooks.change("none", name="x")


# --- what is told ---------------------------------------------------------------------------------------------


async def test_a_push_is_told_as_documented(world: World):
    repository = await world.rooms.make_repository("acme/app")
    push = await world.subscribe("TAG_PUSH", secret="open sesame", repository_id=repository)
    await world.subscribe("MANIFEST_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    assert len(await world.waiting()) == 2
    told = {one["type"]: one for one in await world.deliver()}
    tag, manifest = told["TAG_PUSH"], told["MANIFEST_PUSH"]
    (config,) = (json.loads(blob) for blob in IMAGE.blobs if blob.startswith(b"{"))
    facts = {
        "namespace": "acme",
        "repository": "app",
        "digest": IMAGE.digest,
        "os": config["os"],
        "architecture": config["architecture"],
        "author": "ada",
    }
    assert tag == {
        "type": "TAG_PUSH",
        "createdAt": tag["createdAt"],
        "location": "/repositories/acme/app/tags/latest",
        "contents": {
            **facts,
            "tag": "latest",
            "imageName": "r.example/acme/app:latest",
            "pushedAt": tag["createdAt"],
        },
    }
    assert tag["createdAt"].endswith("Z")
    assert manifest["contents"] == {**facts, "imageName": f"r.example/acme/app@{IMAGE.digest}"}
    received = next(one for one in world.server.received if one.path == "/TAG_PUSH")
    signature = hmac.new(b"open sesame", received.body, hashlib.sha256).hexdigest()
    assert received.headers["x-dtr-signature-256"] == f"sha256={signature}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-dtr-event"] == "TAG_PUSH"
    delivery = await world.the_delivery(push)
    assert (delivery.id, delivery.status, delivery.attempts) == (
        received.headers["x-dtr-delivery"],
        "delivered",
        1,
    )
    assert (delivery.status_code, delivery.answer, delivery.error) == (200, "thanks", "")
    assert (await world.webhooks.get(push.id)).last_successful_at is not None
    unsigned = next(one for one in world.server.received if one.path == "/MANIFEST_PUSH")
    assert "x-dtr-signature-256" not in unsigned.headers


async def test_cloudevents(world: World):
    repository = await world.rooms.make_repository("acme/app")
    await world.subscribe("TAG_DELETE", repository_id=repository, format="cloudevents")
    await world.rooms.push(repository, IMAGE, "latest")
    await world.rooms.manifests.delete_tag(repository, "latest", by=ADA)
    await world.follow()
    (told,) = await world.deliver()
    assert {name: told[name] for name in ("specversion", "type", "source", "subject", "datacontenttype")} == {
        "specversion": "1.0",
        "type": "dtr.tag_delete",
        "source": "https://r.example",
        "subject": "repositories/acme/app/tags/latest",
        "datacontenttype": "application/json",
    }
    ((event,),) = await world.rooms.query("SELECT event_id FROM webhook_deliveries")
    assert told["id"] == f"{event}-tag_delete"
    assert told["data"]["deletedAt"] == told["time"]
    (received,) = world.server.received
    assert received.headers["content-type"] == "application/cloudevents+json; charset=utf-8"


async def test_a_tag_that_moves_and_is_pulled_and_deleted(world: World):
    repository = await world.rooms.make_repository("acme/app")
    other = annotated(IMAGE, n="2")
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    for kind in ("TAG_PUSH", "TAG_PULL", "MANIFEST_PULL", "TAG_DELETE"):
        await world.subscribe(kind, repository_id=repository)
    await world.rooms.put(repository, other, "latest")
    pulled = Event(
        type="GET", actor=ADA, object=Object("tag", "latest", "latest", other.digest), repository_id=repository
    )
    await world.rooms.database.unit(lambda tx: record(tx, pulled))
    await world.rooms.manifests.delete_tag(repository, "latest", by=ADA)
    await world.follow()
    told = await world.deliver()
    assert sorted(one["type"] for one in told) == ["MANIFEST_PULL", "TAG_DELETE", "TAG_PULL", "TAG_PUSH"]
    assert {one["contents"]["digest"] for one in told} == {other.digest}
    assert {name for one in told for name in one["contents"] if name.endswith("At")} == {
        "pushedAt",
        "pulledAt",
        "deletedAt",
    }


async def test_a_promotion_is_told_at_the_source(world: World):
    rooms = world.rooms
    dev, prod = await rooms.make_repository("acme/dev"), await rooms.make_repository("acme/prod")
    await rooms.push(dev, IMAGE, "latest")
    await world.subscribe("PROMOTION", repository_id=dev)
    await world.subscribe("TAG_PUSH", repository_id=prod)
    promotion = Promotion(rooms.database, rooms.lifetimes)
    await promotion.promote(dev, IMAGE.digest, prod, "1.0", Origin("acme/dev", "latest", "a policy"), by=ADA)
    await world.follow()
    told = {one["type"]: one["contents"] for one in await world.deliver()}
    assert told.keys() == {"PROMOTION", "TAG_PUSH"}
    promoted = told["PROMOTION"]
    assert (promoted["imageName"], promoted["digest"]) == ("r.example/acme/dev:latest", IMAGE.digest)
    assert (promoted["promotionPolicyID"], promoted["author"]) == ("a policy", "ada")
    assert promoted["target"] == {
        "namespace": "acme",
        "repository": "prod",
        "tag": "1.0",
        "imageName": "r.example/acme/prod:1.0",
    }
    assert "promotedAt" in promoted


@pytest.mark.parametrize("kind", ["push_mirroring", "poll_mirroring"])
async def test_mirroring_is_told_with_the_other_registry(world: World, kind: Any):
    repository = await world.rooms.make_repository("acme/app")
    await world.rooms.push(repository, IMAGE, "latest")
    await world.subscribe(kind.upper(), repository_id=repository)
    mirrored = Event(
        type="CREATE",
        actor=Actor("policy", "p1", "mirroring"),
        object=Object(kind, "p1", "latest", IMAGE.digest),
        target=Object("tag", "v1", "r.example:5000/team/a/app:v1", IMAGE.digest),
        repository_id=repository,
    )
    await world.rooms.database.unit(lambda tx: record(tx, mirrored))
    await world.follow()
    (told,) = await world.deliver()
    contents = told["contents"]
    assert (told["type"], told["location"]) == (kind.upper(), "/repositories/acme/app/tags/latest")
    assert (contents["imageName"], contents["mirroringPolicyID"]) == ("r.example/acme/app:latest", "p1")
    assert contents["remote"] == {
        "host": "r.example:5000",
        "namespace": "team",
        "repository": "a/app",
        "tag": "v1",
        "imageName": "r.example:5000/team/a/app:v1",
    }
    assert contents["mirroredAt"] == told["createdAt"]


async def test_what_is_told_as_several_types_is_several_cloudevents(world: World):
    """The receiver of both keeps what has another `source` and `id` (CloudEvents 1.0, `id`)."""
    await world.rooms.make_repository("acme/first")
    await world.follow()
    for kind in ("REPO_EVENT", "REPO_CREATED"):
        await world.subscribe(kind, format="cloudevents")
    await world.rooms.make_repository("acme/app")
    await world.follow()
    told = await world.deliver()
    assert len({(one["source"], one["id"]) for one in told}) == len(told) == 2


async def test_repositories_are_told_to_their_namespace(world: World):
    await world.rooms.make_repository("acme/first")
    acme = await world.rooms.accounts.get("acme")
    await world.follow()
    each = await world.subscribe("REPO_EVENT", namespace_id=acme.id)
    created = await world.subscribe("REPO_CREATED")
    await world.rooms.make_repository("acme/app", short_description="it")
    await world.rooms.make_repository("other/app")
    await world.rooms.repositories.update("acme/app", by=ADA, visibility="public")
    await world.follow()
    await world.rooms.repositories.delete("acme/app", by=ADA)
    await world.rooms.collect_all()  # the repository itself has gone when its end is told
    assert await world.rooms.query("SELECT id FROM repositories WHERE path = 'acme/app'") == []
    await world.follow()
    told = await world.deliver()
    of_acme = [one["contents"] for one in told if one["type"] == "REPO_EVENT"]
    assert [one["event"] for one in of_acme] == ["REPO_CREATED", "REPO_UPDATED", "REPO_DELETED"]
    assert of_acme[0]["data"]["shortDescription"] == "it"
    assert of_acme[1]["data"]["visibility"] == "public"
    assert of_acme[2]["data"] is None
    assert {one["namespace"] for one in of_acme} == {"acme"}
    everywhere = [one["contents"]["namespace"] for one in told if one["type"] == "REPO_CREATED"]
    assert everywhere == ["acme", "other"]
    assert {each.key, created.key} == {"acme", ""}


async def test_the_webhooks_of_a_repository_go_with_it_and_tell_its_end(world: World):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("REPO_DELETED", repository_id=repository)
    await world.rooms.repositories.delete("acme/app", by=ADA)
    with pytest.raises(WebhookUnknown):
        await world.webhooks.get(made.id)  # at once
    again = await world.rooms.make_repository("acme/app")
    assert again != repository
    await world.rooms.collect_all()
    await world.follow()
    assert [one["type"] for one in await world.deliver()] == ["REPO_DELETED"]
    assert await world.webhooks.count() == 0
    await world.deliveries.forget()
    assert await world.rooms.count("webhooks") == 1
    await world.rooms.change("UPDATE webhooks SET deleted_at = deleted_at - :ago", ago=2 * DAY)
    await world.deliveries.forget()
    assert (await world.rooms.count("webhooks"), await world.rooms.count("webhook_deliveries")) == (0, 0)


async def test_a_webhook_follows_its_repository_to_another_name(world: World):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.repositories.rename("acme/app", parse_repository_name("acme/renamed"))
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    (told,) = await world.deliver()
    assert told["contents"]["repository"] == "renamed"
    assert (await world.webhooks.get(made.id)).key == "acme/renamed"


async def test_nothing_is_told_of_before_or_when_it_is_inactive(world: World):
    repository = await world.rooms.make_repository("acme/app")
    await world.rooms.push(repository, IMAGE, "before")
    await world.rooms.change("UPDATE events SET published_at = published_at - 60000")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.follow()
    assert await world.waiting() == []
    await world.rooms.put(repository, IMAGE, "queued")
    await world.follow()
    off = await world.webhooks.change(made.id, is_active=False)
    await world.rooms.put(repository, IMAGE, "never")
    await world.follow()
    assert len(await world.waiting()) == 1
    assert await world.deliver() == []
    assert (await world.the_delivery(made)).error == "the webhook is inactive"
    await world.webhooks.change(off.id, is_active=True)
    await world.rooms.put(repository, IMAGE, "after")
    await world.follow()
    assert len(await world.waiting()) == 2


SAMPLES = {
    "SCAN_COMPLETED": {"tag", "imageName", "scanSummary"},
    "SCAN_FAILED": {"tag", "imageName", "error"},
    "PROMOTION": {"target", "promotionPolicyID", "promotedAt"},
    "PUSH_MIRRORING": {"remote", "mirroringPolicyID", "mirroredAt"},
    "POLL_MIRRORING": {"remote", "mirroringPolicyID", "mirroredAt"},
    "REPO_UPDATED": {"event", "author", "data"},
}
"""What the contents of a sample have beside the place."""


async def test_samples_are_of_every_type():
    for kind in TYPES.keys() - {"SCANNER_UPDATE_COMPLETED"}:
        told = json.loads(sample(kind, "dtr", 0, "r.example"))
        contents = told["contents"]
        assert (told["type"], contents["namespace"], contents["repository"]) == (kind, "foo", "bar")
        assert contents.keys() >= SAMPLES.get(kind, set()), kind
        if kind.startswith("REPO_"):
            assert contents["event"] == ("REPO_CREATED" if kind == "REPO_EVENT" else kind)
        as_event = json.loads(sample(kind, "cloudevents", 0, "r.example"))
        assert as_event["data"] == contents
    updated = json.loads(sample("SCANNER_UPDATE_COMPLETED", "dtr", 0, ""))["contents"]
    assert updated.keys() == {
        "scanner_version",
        "scanner_updated_at",
        "db_version",
        "db_updated_at",
        "success",
        "replicas",
    }


# --- once, and at least once ----------------------------------------------------------------------------------


async def test_each_event_is_queued_once_whoever_follows(world: World, monkeypatch: pytest.MonkeyPatch):
    """The one who follows dies at each point, others take over and begin where it was written down last."""
    monkeypatch.setattr(dispatcher, "_PORTION", 2)
    repository = await world.rooms.make_repository("acme/app")
    await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE)
    for number in range(5):
        await world.rooms.put(repository, IMAGE, f"v{number}")
    dead = await world.dispatcher._follower.fetch()
    assert len(dead) >= 5  # it got them, and died
    for _ in range(3):
        await world.rooms.change("UPDATE event_cursors SET held_until = 0")
        successor = world.another_dispatcher()
        assert await successor._follower.claim()
        found = await successor._follower.fetch()
        assert await successor._tell(found)
        # What it wrote down may lie behind, for events that are committed late.
        await world.rooms.change("UPDATE event_cursors SET position = 0")
    assert not await world.dispatcher._tell(dead)  # it was not dead after all
    assert len(await world.waiting()) == 5
    assert len(set(await world.rooms.query("SELECT event_id FROM webhook_deliveries"))) == 5
    ((jobs,),) = await world.rooms.query("SELECT count(*) FROM jobs WHERE action = 'webhook'")
    assert jobs == 5


async def test_a_worker_that_is_killed_while_it_sends(world: World, database: Database):
    """Another one sends it again: the receiver gets it twice under one id, and there is one job."""
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    world.server.reply = lambda _: Reply(seconds=600 if len(world.server.received) == 1 else 0)

    async def deliver(run: Any) -> None:
        await world.deliveries.deliver(run.parameters["delivery"])

    actions: dict[str, Action] = {"webhook": deliver}
    crons = Crons(world.rooms.database)
    dying = Worker(world.rooms.database, crons, actions, worker="00000000000a", node="a")
    dying._beat = asyncio.Event().wait  # type: ignore[method-assign, assignment] # else it may live again
    first = asyncio.create_task(dying.run())
    await asyncio.to_thread(world.server.wait, 1)
    await world.rooms.change("UPDATE workers SET heartbeat_until = 0")
    second = asyncio.create_task(
        Worker(world.rooms.database, crons, actions, worker="00000000000b", node="b").run()
    )
    try:
        await asyncio.to_thread(world.server.wait, 2)
        async with asyncio.timeout(60):
            while (await world.the_delivery(made)).status != "delivered":
                await asyncio.sleep(0.05)
    finally:
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    ids = {one.headers["x-dtr-delivery"] for one in world.server.received}
    assert (len(world.server.received), len(ids)) == (2, 1)
    ((jobs,),) = await world.rooms.query("SELECT count(*) FROM jobs WHERE action = 'webhook'")
    assert jobs == 1


async def test_what_was_delivered_is_not_sent_again(world: World):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    await world.deliver()
    assert await world.deliveries.deliver((await world.the_delivery(made)).id) == "it was delivered"
    assert len(world.server.received) == 1
    assert await world.deliveries.deliver("none") == "the webhook was deleted"


async def test_redelivery(world: World):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    await world.deliver()
    first = await world.the_delivery(made)
    second = await world.deliveries.redeliver(made, first.id, by=ADA)
    third = await world.deliveries.redeliver(made, second.id, by=ADA)
    assert (second.repeats, third.repeats, second.status) == (first.id, first.id, "waiting")
    assert await world.deliveries.deliver(second.id) == "delivered: the receiver answered 200"
    one, two = world.server.received
    assert (one.body, one.headers["x-dtr-delivery"]) == (two.body, two.headers["x-dtr-delivery"])
    assert await world.deliveries.count(made.id) == 3
    page = await world.deliveries.list_deliveries(made.id, limit=2)
    rest = await world.deliveries.list_deliveries(made.id, start=page[1].id, limit=10)
    assert {one.id for one in (page[0], *rest)} == {first.id, second.id, third.id}
    assert len(rest) == 2
    with pytest.raises(DeliveryUnknown):
        await world.deliveries.redeliver(made, "none")
    off = await world.webhooks.change(made.id, is_active=False)
    with pytest.raises(WebhookInvalid):
        await world.deliveries.redeliver(off, first.id)


# --- failures -------------------------------------------------------------------------------------------------


async def test_failures_are_written_down_and_end_in_silence(world: World):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", secret="open sesame", repository_id=repository)
    world.server.reply = lambda _: Reply(503, b"busy")
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    (delivery,) = await world.waiting()
    with pytest.raises(DeliveryFailed, match="503"):
        await world.deliveries.deliver(delivery)
    with pytest.raises(DeliveryFailed):
        await world.deliveries.deliver(delivery)
    failed = await world.the_delivery(made)
    assert (failed.status, failed.attempts, failed.status_code, failed.answer) == ("failed", 2, 503, "busy")
    seen = await world.webhooks.get(made.id)
    assert (seen.is_active, seen.last_error) == (True, "the receiver answered 503")
    assert seen.failing_since is not None
    await world.rooms.change("UPDATE webhooks SET failing_since = failing_since - :ago", ago=3 * DAY + 1000)
    with pytest.raises(DeliveryFailed):
        await world.deliveries.deliver(delivery)
    # It may be the first delivery since one that failed three days ago: it is tried as often as can be.
    assert (await world.webhooks.get(made.id)).is_active
    await world.rooms.change("UPDATE webhook_deliveries SET attempts = :all", all=RETRIES)
    with pytest.raises(DeliveryFailed):
        await world.deliveries.deliver(delivery)
    seen = await world.webhooks.get(made.id)
    assert not seen.is_active
    rows = await world.rooms.query(
        "SELECT actor_type, object_id, object_content FROM events WHERE type = 'FAIL' AND object_type = 'webhook'"
    )
    assert [(row[0], row[1]) for row in rows] == [("system", made.id)]
    assert json.loads(rows[0][2])["error"] == "the receiver answered 503"
    again = await world.webhooks.change(seen.id, is_active=True)
    assert (again.is_active, again.failing_since) == (True, None)
    world.server.reply = lambda _: Reply()
    await world.deliveries.deliver(delivery)
    assert (await world.webhooks.get(made.id)).last_error == ""


async def test_receivers_that_hang_keep_nobody_busy(world: World, monkeypatch: pytest.MonkeyPatch):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE, *"abcd")
    await world.follow()
    first, *others = await world.waiting()
    assert len(others) == 3
    usual, world.deliveries._sender._seconds = world.deliveries._sender._seconds, 1.0
    world.server.reply = lambda _: Reply(seconds=600)
    monkeypatch.setattr(deliveries, "_REST_SECONDS", 600.0)
    with pytest.raises(DeliveryFailed, match="no answer in"):
        await world.deliveries.deliver(first)
    for one in others:
        with pytest.raises(DeliveryFailed, match="a moment ago"):
            await world.deliveries.deliver(one)
    assert len(await asyncio.to_thread(world.server.wait, 1)) == 1
    world.deliveries._rests._until[made.id] = 0.0  # the time is over
    results = await asyncio.gather(*map(world.deliveries.deliver, others), return_exceptions=True)
    assert sorted("a moment ago" in str(one) for one in results) == [False, True, True]  # one tries it
    assert len(await asyncio.to_thread(world.server.wait, 2)) == 2
    world.server.reply = lambda _: Reply()
    world.deliveries._sender._seconds = usual
    world.deliveries._rests._until[made.id] = 0.0
    for one in (first, *others):
        await world.deliveries.deliver(one)
    found = await world.deliveries.list_deliveries(made.id, limit=10)
    assert {one.status for one in found} == {"delivered"}


async def test_a_lost_key_is_said(world: World, tmp_path: Path):
    repository = await world.rooms.make_repository("acme/app")
    await world.subscribe("TAG_PUSH", secret="open sesame", repository_id=repository)
    (tmp_path / "keys" / "secret.key").write_text("00" * 32)
    world.deliveries = Deliveries(
        world.rooms.database, Vault(tmp_path / "keys" / "secret.key"), Sender(Outside(Addresses())), lambda: ""
    )
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    (delivery,) = await world.waiting()
    with pytest.raises(DeliveryFailed, match="not the key"):
        await world.deliveries.deliver(delivery)
    assert world.server.received == []


async def test_the_log_is_kept_for_a_while(world: World):
    repository = await world.rooms.make_repository("acme/app")
    made = await world.subscribe("TAG_PUSH", repository_id=repository)
    await world.rooms.push(repository, IMAGE, "latest")
    await world.follow()
    first = await world.the_delivery(made)
    for _ in range(120):
        await world.deliveries.redeliver(made, first.id)
    assert await world.deliveries.forget() == 0  # all are new
    await world.rooms.change("UPDATE webhook_deliveries SET created_at = created_at - 7200000")
    assert await world.deliveries.forget() == 21
    assert await world.deliveries.count(made.id) == 100
    await world.rooms.change("UPDATE webhook_deliveries SET created_at = created_at - :ago", ago=31 * DAY)
    assert await world.deliveries.forget() == 100


def test_an_event_without_a_repository_is_told_to_nobody():
    from dtr.webhooks.payloads import types_of

    everywhere = Recorded(1, 0, "UPDATE", ADA, None, "", Object("repository", "", "*", "{}"), None)
    assert types_of(everywhere) == ()
