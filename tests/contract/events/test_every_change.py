"""
Every change leaves an event by whoever made it, and no secret with it.

The rooms are walked over: a method that changes something takes `by`, and is called here; one that writes and
takes none is listed with the reason why it leaves no event.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.docs.pages import DOCS, codes_in, tables_of
from tests.support.images import Image, make_artifact, make_image
from tests.support.keys import KeyPair
from tests.support.notary import Publisher
from tests.support.registry_double import RegistryDouble
from tests.support.rooms import Rooms, annotated
from tests.support.signing import make_key, public_pem
from tests.support.trees import Tree

import dtr
from dtr.accounts import Level, token_id
from dtr.backends import Backends, Own
from dtr.backends import Definition as StorageDefinition
from dtr.db import ConstraintViolated, Database, Statement
from dtr.enforcement import Enforcement, PolicyException, Scope
from dtr.enforcement import Policy as EnforcementPolicy
from dtr.events import Actor, Events, Filter
from dtr.jobs import Crons, JobRequest, Jobs, Workers
from dtr.mirrors import (
    Local,
    MirroringPolicies,
    MirroringPolicy,
    Place,
    Transfer,
    Upstream,
    Upstreams,
)
from dtr.oci import Digest, parse_manifest, parse_repository_name
from dtr.outbound import Addresses, Outside
from dtr.policies import PromotionPolicy, Promotions, Pruning, PruningPolicy, parse_rules
from dtr.registry import Origin, Pins, Promotion, Settings
from dtr.registry.importing import Import, ImportPlan
from dtr.remotes import Definition, Definitions, Remote
from dtr.settings import LiveSettings
from dtr.signatures import Identities, Identity
from dtr.signer import LocalSigner
from dtr.storage import Memory
from dtr.storage.definitions import FileSystemStorage
from dtr.trust import Collection, Trust
from dtr.tuf import Envelope
from dtr.vault import Vault
from dtr.webhooks import Deliveries, Receiver, Sender, Webhook, Webhooks
from dtr.webhooks.deliveries import queue

OTHERS = {"cli", "db", "http", "oci", "storage"}
PACKAGES = [one.name for one in pkgutil.iter_modules(dtr.__path__) if one.ispkg and one.name not in OTHERS]
SECRET = "a secret that nobody may read"

SILENT = {
    "Sessions.create": "the log-in before it is the event",
    "Sessions.find": "notes that it was used",
    "Throttle.failed": "the event is of the account that somebody tried",
    "Throttle.succeeded": "counts back",
    "Blobs.mount": "the manifest that needs the blob is the event",
    "Blobs.mark_missing": "nobody does it",
    "Uploads.start": "the manifest that needs the blob is the event",
    "Uploads.append": "the same",
    "Uploads.finish": "the same",
    "Uploads.store": "the same",
    "Uploads.cancel": "nothing had come of it",
    "Pulls.flush": "writes events",
    "Refusals.flush": "the same",
    "Usage.fold": "adds up what is counted",
    "Usage.forget_days": "forgets days that are not kept",
    "Sweeper.sweep": "deletes what nobody sees any more",
    "Collector.collect": "leaves events of its own: see test_pushes.py",
    "ImageConfigs.get_many": "keeps what it read",
    "Fsck.run": "mends what the storage lost",
    "Migration.run": "what is in the blobs stays; that new ones go elsewhere is an event",
    "Migration.adopt": "the same",
    "Crons.ensure": "what the program comes with",
    "Crons.queue_due": "does what an event before said",
    "Jobs.prune": "forgets, by the settings",
    "MirroringPolicies.queue_due": "does what an event before said",
    "MirroringPolicies.queue_all": "the same",
    "MirroringPolicies.forget_remote": "what was mirrored by hand is the event",
    "MirroringPolicies.forget_remotes": "forgets what was mirrored by hand",
    "Signatures.verify": "keeps what it read",
    "OldFiles.forget": "forgets files that newer ones took the place of",
    "PushMirror.work": "each tag that is mirrored is an event",
    "Pruning.prune": "the deletion of each tag is the event",
    "Pushes.forget_gone": "forgets what is about tags that are gone",
    "Deliveries.forget": "forgets what was sent",
    "Worker.run": "runs what was queued",
    "Backends.begin": "remembers what the settings say",
    "Replicas.leave": "a process ends",
    "Replicas.keep_reporting": "a process lives",
    "Follower.claim": "reads events",
    "Follower.advance": "the same",
    "Follower.release": "the same",
    "Retention.compact": "forgets, by the settings",
    "Retention.forget": "leaves an event of each token; sessions end by themselves",
}


def _methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    for package in PACKAGES:
        found = importlib.import_module(f"dtr.{package}")
        for module in pkgutil.iter_modules(found.__path__, f"dtr.{package}."):
            for name, kind in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(kind) and kind.__module__ == module.name and not name.startswith("_"):
                    for method, function in vars(kind).items():
                        if inspect.isfunction(function) and not method.startswith("_"):
                            yield f"{name}.{method}", function


METHODS = dict(_methods())
CHANGES = {
    name
    for name, one in METHODS.items()
    if inspect.iscoroutinefunction(one) and "by" in inspect.signature(one).parameters
}
WRITERS = {name for name, one in METHODS.items() if re.search(r"\.unit\(", inspect.getsource(one))}


def test_whoever_writes_leaves_an_event_or_has_a_reason():
    assert sorted(WRITERS - CHANGES - SILENT.keys()) == []
    assert sorted(SILENT.keys() & CHANGES) == []
    assert sorted(SILENT.keys() - METHODS.keys()) == []


@pytest.fixture
async def rooms(database_url: str) -> AsyncIterator[Rooms]:
    made = Rooms(database_url, Memory)
    yield made
    await made.close()


class Scenario:
    """Calls every method that changes something, and looks for its event."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.called: set[str] = set()
        self.by = Actor("user", "", "somebody", "192.0.2.9")

    async def does(self, method: str, call: Callable[..., Awaitable[Any]], *given: Any, **named: Any) -> Any:
        """Call `method` as an actor of its own: there is an event by that one then."""
        actor = Actor("user", f"id {len(self.called)}", f"who {len(self.called)}", "192.0.2.9")
        result = await call(*given, **named, by=actor)
        found = await Events(self.database).list_events(Filter(actor=actor.id), limit=100)
        assert found, f"{method} leaves no event"
        assert {one.actor for one in found} == {actor}
        self.called.add(method)
        return result


async def _content_trust(did: Scenario, collection: Collection, key_file: Path) -> None:
    trust = Trust(did.database, LocalSigner(did.database, key_file.with_name("passphrases")))

    async def publication() -> list[tuple[str, Envelope]]:
        keys = [(await trust.get_key(collection, role)).to_json() for role in ("timestamp", "snapshot")]
        files = Publisher(collection.gun, *keys).first()
        return [(role, Envelope.parse(content)) for role, content in files.items()]

    await did.does("Trust.publish", trust.publish, collection, await publication())
    await did.does("Trust.rotate_key", trust.rotate_key, collection, "timestamp")
    await did.does("Trust.delete", trust.delete, collection)
    await trust.publish(collection, await publication())
    await did.does("Trust.delete_all", trust.delete_all, collection.repository)


async def _everything(rooms: Rooms, did: Scenario, key_file: Path) -> list[str]:
    """All the changes; the secrets that were made."""
    database, accounts = rooms.database, rooms.accounts
    # accounts
    await did.does("Accounts.create_organization", accounts.create_organization, "acme")
    for user in ("ada", "bob"):
        await did.does("Accounts.create_user", accounts.create_user, user, SECRET, is_admin=user == "ada")
    await did.does("Accounts.set_password", accounts.set_password, "ada", f"{SECRET} 2")
    await did.does("Accounts.update", accounts.update, "ada", full_name="Ada")
    organizations = accounts.organizations
    await did.does("Organizations.put_member", organizations.put_member, "acme", "ada", is_admin=True)
    await did.does("Organizations.create_team", organizations.create_team, "acme", "devs")
    await did.does("Organizations.update_team", organizations.update_team, "acme", "devs", description="new")
    await did.does("Organizations.put_team_member", organizations.put_team_member, "acme", "devs", "ada")
    tokens = accounts.tokens
    one = await did.does("AccessTokens.create", tokens.create, "ada", "label")
    (known,) = await tokens.list_tokens("ada", limit=9)
    await did.does("AccessTokens.update", tokens.update, known.id, label="other")
    await did.does("AccessTokens.delete", tokens.delete, "ada", known.id)
    another = await tokens.create("ada", "label")
    await did.does("AccessTokens.delete_used_before", tokens.delete_used_before, "ada", before=2**50)
    acme = await accounts.get("acme")
    robots = accounts.robots
    await did.does("Robots.create", robots.create, acme, "ci")
    await did.does("Robots.update", robots.update, acme, "ci", description="new")
    await did.does("Robots.delete", robots.delete, acme, "ci")
    key, keys = KeyPair(), accounts.public_keys
    await did.does("PublicKeys.create", keys.create, "ada", key.pem)
    await did.does("PublicKeys.update", keys.update, "ada", key.id, label="new")
    await did.does("PublicKeys.delete", keys.delete, "ada", key.id)
    ada = await accounts.get("ada")
    await did.does("AllUserSettings.update", accounts.user_settings.update, ada, language="ja")
    login = await accounts.logins.authenticate_password("ada", f"{SECRET} 2", "192.0.2.1")
    session = await accounts.sessions.create(login, "192.0.2.1")
    found = await accounts.sessions.find(session)
    await did.does("Sessions.end", accounts.sessions.end, found)
    other = token_id(await accounts.sessions.create(login, "192.0.2.1"))
    opened = await accounts.sessions.find_open(other)
    assert opened is not None
    await did.does("Sessions.end_open", accounts.sessions.end_open, opened)
    # repositories
    repositories = rooms.repositories
    number = await did.does(
        "Repositories.create", repositories.create, parse_repository_name("acme/app"), Settings()
    )
    pins = Pins(database)
    await did.does("Pins.pin", pins.pin, ada, number)
    await did.does("Pins.unpin", pins.unpin, ada, number)
    await did.does("Repositories.update", repositories.update, "acme/app", short_description="new")
    await did.does("Repositories.set_scan_on_push", repositories.set_scan_on_push, scan_on_push=True)
    await did.does("Repositories.rename", repositories.rename, "acme/app", parse_repository_name("acme/tool"))
    place = await accounts.grants.on("acme/tool")
    await did.does("Grants.set_team", accounts.grants.set_team, place, "devs", Level.WRITE)
    await did.does("Grants.set_user", accounts.grants.set_user, place, "bob", Level.READ)
    # images
    image = make_image()
    spare = await rooms.push_blob(number, b"spare")
    for content in image.blobs:
        await rooms.push_blob(number, content)

    async def put(what: Image, *tags: str) -> None:
        manifest, digest = parse_manifest(what.payload, what.media_type), Digest.of(what.payload)
        await did.does("Manifests.put", rooms.manifests.put, number, manifest, what.payload, digest, tags)

    await put(image)
    await put(image, "v1")
    await put(annotated(image, n="2"), "v1", "v2", "v3")
    await did.does("Manifests.delete_tag", rooms.manifests.delete_tag, number, "v1")
    await did.does("Manifests.delete_tags", rooms.manifests.delete_tags, number, ["v2", "none"])
    await rooms.sign(number, "v3", image.digest)
    await did.does("TrustIndex.forget", rooms.signed.forget, number, "v3")
    promotion = Promotion(database, rooms.lifetimes)
    target = await rooms.make_repository("acme/promoted")
    origin = Origin("acme/tool", "v1")
    await did.does("Promotion.promote", promotion.promote, number, image.digest, target, "promoted", origin)
    await rooms.push(number, make_artifact("application/x.signature", b"signed", subject=image))
    await did.does("Promotion.carry", promotion.carry, number, image.digest, target, origin)
    await _transfers(rooms, did, number, image)
    await Tree(rooms.storage.driver("default")).image("acme/old", image, "v1")
    importing = Import(
        database, rooms.storage, accounts=accounts, repositories=rooms.repositories, manifests=rooms.manifests,
        lifetimes=rooms.lifetimes, manifest_limit=10_000, plan=ImportPlan(),
    )  # fmt: skip
    await did.does("Import.run", importing.run, print)
    await did.does("Manifests.delete", rooms.manifests.delete, number, image.digest)
    await did.does("Blobs.delete", rooms.blobs.delete, number, spare)
    pruning = Pruning(database, rooms.tag_reader, rooms.manifests)
    rules = parse_rules([{"field": "tag", "operator": "eq", "values": ["old"]}])
    policy = PruningPolicy(id="", repository=number, enabled=True, rules=rules)
    policy = await did.does("Pruning.create", pruning.create, policy, only_future=False)
    await did.does("Pruning.change", pruning.change, policy, only_future=True)
    await did.does("Pruning.start", pruning.start, policy)
    await did.does("Pruning.delete", pruning.delete, number, policy.id)
    promotions = Promotions(database, rooms.tag_reader, promotion)
    policy = PromotionPolicy(
        id="", source=number, source_path="acme/tool", target=target, target_path="", enabled=True, rules=rules
    )
    policy = await did.does("Promotions.create", promotions.create, policy, evaluate=False)
    await did.does("Promotions.change", promotions.change, policy, evaluate=True)
    await did.does("Promotions.delete", promotions.delete, number, policy.id)
    vault = Vault(key_file)
    definitions, upstreams = Definitions(database, vault), Upstreams(database)
    remote = Definition(name="hub", host="registry.example", username="bot")
    remote = await did.does("Definitions.create", definitions.create, remote, password=SECRET, token=SECRET)
    remote = await did.does("Definitions.change", definitions.change, remote, password=SECRET)
    cached = await rooms.make_repository("acme/cached")
    upstream = Upstream(repository=cached, remote=remote.id, remote_path="library/app")
    upstream = await did.does("Upstreams.put", upstreams.put, upstream)
    await did.does("Upstreams.delete", upstreams.delete, upstream)
    enforcement, scope = Enforcement(database), Scope(repository=cached)
    await did.does("Enforcement.put", enforcement.put, EnforcementPolicy(scope=scope, mode="report"))
    exception = PolicyException(kind="tag", value="dev-*", reason="for developers")
    exception = await did.does("Enforcement.add_exception", enforcement.add_exception, scope, exception)
    await did.does("Enforcement.delete_exception", enforcement.delete_exception, scope, exception.id)
    await did.does("Enforcement.delete", enforcement.delete, scope)
    identities = Identities(database)
    key = public_pem(make_key())
    await did.does("Identities.put", identities.put, Identity(name="release", kind="key", content=key))
    await did.does("Identities.delete", identities.delete, None, "release")
    await _content_trust(did, Collection(cached, "dtr.test/acme/cached"), key_file)
    await _mirroring(rooms, did, number, remote.id)
    await did.does("Definitions.delete", definitions.delete, remote.id)
    webhooks, deliveries = (
        Webhooks(database, vault),
        Deliveries(database, vault, Sender(Outside(Addresses())), str),
    )
    hidden = "a-path-that-is-a-secret"
    receiver = Receiver(endpoint=f"https://receiver.example/{hidden}")
    webhook = Webhook(type="TAG_PUSH", repository_id=number, receiver=receiver)
    webhook = await did.does("Webhooks.create", webhooks.create, webhook, secret=SECRET)
    webhook = await did.does("Webhooks.change", webhooks.change, webhook.id, name="pushes", secret=SECRET)
    queued = await database.unit(lambda tx: queue(tx, webhook.id, "{}"))
    await did.does("Deliveries.redeliver", deliveries.redeliver, webhook, queued)
    await did.does("Webhooks.delete", webhooks.delete, webhook.id)
    await did.does("Repositories.delete", repositories.delete, "acme/tool")
    await rooms.make_repository("acme/more")
    await did.does("Repositories.delete_all", repositories.delete_all, acme.id)
    # the installation
    live = LiveSettings(database)
    await did.does("LiveSettings.change", live.change, {"readOnlyRegistry": True})
    await _storages(rooms, did, key_file)
    jobs, crons = Jobs(database), Crons(database)
    job = await did.does("Jobs.submit", jobs.submit, JobRequest(action="sleep"))
    await did.does("Jobs.cancel", jobs.cancel, job.id)
    await did.does("Jobs.try_again", jobs.try_again, job.id)
    await did.does("Jobs.delete", jobs.delete, job.id)
    await did.does("Jobs.put_config", jobs.put_config, "sleep", {"seconds": "1"})
    await did.does("Jobs.delete_config", jobs.delete_config, "sleep")
    await did.does("Crons.put", crons.put, "0 0 * * * *", JobRequest(action="sleep"))
    await did.does("Crons.delete", crons.delete, "sleep")
    sql = "INSERT INTO workers (id, node, status, session, heartbeat_until) VALUES ('w', '', 'alive', '', 0)"
    await rooms.change(sql)
    await did.does("Workers.set_capacity", Workers(database).set_capacity, "w", {"scan": 1})
    # what goes
    await did.does("Organizations.remove_team_member", organizations.remove_team_member, "acme", "devs", "ada")
    await did.does("Organizations.delete_team", organizations.delete_team, "acme", "devs")
    await did.does("Organizations.remove_member", organizations.remove_member, "acme", "ada")
    await did.does("Accounts.delete", accounts.delete, "bob")
    return [SECRET, hidden, one, another, session]


async def _storages(rooms: Rooms, did: Scenario, key_file: Path) -> None:
    here = Own("filesystem", FileSystemStorage(root=key_file.parent / "blobs"))
    backends = Backends(rooms.database, Vault(key_file), rooms.storage, here, spool_directory=key_file.parent)
    await backends.begin()
    ((namespace,),) = await rooms.query("SELECT id FROM accounts WHERE name = 'acme'")
    added = StorageDefinition(driver="filesystem", parameters={"root": str(key_file.parent)})
    await did.does("Backends.put", backends.put, "other", added)
    await did.does("Backends.assign", backends.assign, namespace, "other")
    await did.does("Backends.unassign", backends.unassign, namespace)
    await did.does("Backends.make_default", backends.make_default, "other")
    await backends.make_default("default")
    await rooms.change("UPDATE storages SET used_until = 0")
    await did.does("Backends.delete", backends.delete, "other")


async def _transfers(rooms: Rooms, did: Scenario, number: int, image: Image) -> None:
    """Images that come from another registry."""
    local = Local(
        rooms.database, rooms.storage, blobs=rooms.blobs, uploads=rooms.uploads, manifests=rooms.manifests
    )
    place, registry = Place(number, "acme/tool"), RegistryDouble()
    transfer = Transfer(local, rooms.manifests)
    stored = (place, image.payload, image.media_type, ["stored"])
    await did.does("Local.store_manifest", local.store_manifest, *stored)
    await did.does("Local.delete_tags", local.delete_tags, place, {"stored": image.digest})
    registry.push("registry.example/app", annotated(image, n="3"), "1")
    digest = registry.push("registry.example/app", make_artifact("text/x-note", subject=image))
    async with registry.connect(Remote(host="registry.example", repository="app")) as there:
        await did.does("Transfer.fetch", transfer.fetch, there, place, "1", ["fetched"])
        await did.does("Transfer.fetch_referrers", transfer.fetch_referrers, there, place, image.digest)
    await rooms.manifests.delete(number, digest)


async def _mirroring(rooms: Rooms, did: Scenario, number: int, remote: str) -> None:
    """Policies of mirroring, and a tag that is mirrored by hand."""
    policies = MirroringPolicies(rooms.database)

    async def put(_tx: Any) -> str:
        return remote

    policy = MirroringPolicy(
        direction="push", repository=number, path="acme/tool", remote="", remote_repository="a/b"
    )
    policy = await did.does("MirroringPolicies.create", policies.create, policy, put, evaluate=True)
    await did.does("MirroringPolicies.change", policies.change, policy, put, evaluate=False)
    await did.does("MirroringPolicies.start", policies.start, policy)
    by_hand = (number, "v1", "sha256:0", put, "a/b", "v1")
    await did.does("MirroringPolicies.push_by_hand", policies.push_by_hand, *by_hand)
    await did.does("MirroringPolicies.delete", policies.delete, number, [policy.id])


async def test_every_change_leaves_an_event_and_no_secret_in_it(rooms: Rooms, tmp_path: Path):
    did = Scenario(rooms.database)
    secrets = await _everything(rooms, did, tmp_path / "secret.key")
    assert sorted(CHANGES - did.called) == []
    rows = await rooms.query("SELECT * FROM events")
    words = "\n".join(str(value) for row in rows for value in row)
    assert len(rows) > len(CHANGES)
    for secret in secrets:
        assert secret not in words
    assert "argon2" not in words
    documented = {
        (codes_in(row[0])[0], kind)
        for row in tables_of(DOCS / "reference" / "events.md")[2]
        for kind in codes_in(row[1])
    }
    seen = await rooms.query("SELECT DISTINCT object_type, type FROM events")
    assert sorted(set(seen) - documented) == []


async def run(rooms: Rooms, sql: str) -> None:
    await rooms.database.unit(lambda tx: tx.fetch_all(Statement(text(sql))))


async def test_no_event_without_its_change(rooms: Rooms):
    """When the last statement of a unit fails, its event, nothing of the change stays."""
    number = await rooms.make_repository()
    digest = await rooms.push(number, make_image(), "v1")
    tables = ("accounts", "tags", "manifests", "repositories", "settings", "tokens", "usage_deltas", "events")
    before = {table: await rooms.count(table) for table in tables}
    await run(rooms, "CREATE UNIQUE INDEX one_event ON events (address) WHERE address = 'full'")
    full = Actor("user", "x", "x", "full")
    await rooms.accounts.create_organization("first", by=full)
    before["accounts"] += 1
    before["events"] += 1
    for change in (
        lambda: rooms.accounts.create_organization("second", by=full),
        lambda: rooms.accounts.update("first", full_name="First", by=full),
        lambda: rooms.repositories.create(parse_repository_name("acme/other"), Settings(), by=full),
        lambda: rooms.repositories.delete("acme/app", by=full),
        lambda: rooms.manifests.delete_tag(number, "v1", by=full),
        lambda: rooms.manifests.delete(number, digest, by=full),
        lambda: LiveSettings(rooms.database).change({"readOnlyRegistry": True}, by=full),
    ):
        with pytest.raises(ConstraintViolated):
            await change()
    assert {table: await rooms.count(table) for table in tables} == before
    assert await rooms.query("SELECT count(*) FROM repositories WHERE deleted_at IS NULL") == [(1,)]
    assert await rooms.query("SELECT full_name FROM accounts WHERE name = 'first'") == [("",)]
