"""Enforcement on both databases: what counts as signed, by whom, and what each pull costs."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.plans import make_tables
from tests.support.rooms import GUN, Counter, Rooms, annotated

from dtr.db import DatabaseUnavailable
from dtr.enforcement import (
    REGISTRY,
    Enforcement,
    EnforcementExceptionUnknown,
    EnforcementPolicyInvalid,
    EnforcementPolicyUnknown,
    Policy,
    PolicyException,
    PullRefused,
    Scope,
)
from dtr.enforcement import refusals as told
from dtr.enforcement.evidence import _statement
from dtr.events import Actor, Events, Filter

ADA = Actor("user", "id of ada", "ada")
IMAGE = make_image()
KEY = "1" * 64


class Place:
    """A repository with images, and enforcement as one process knows it."""

    def __init__(self, rooms: Rooms, repository: int, namespace: str) -> None:
        self.rooms, self.repository, self.namespace = rooms, repository, namespace
        self.enforcement = Enforcement(rooms.database)

    async def push(self, image: Image = IMAGE, *tags: str) -> str:
        return await self.rooms.push(self.repository, image, *(tags or ("latest",)))

    async def enforce(self, scope: Scope | None = None, **more: Any) -> Policy:
        scope = scope or Scope(repository=self.repository)
        return await self.enforcement.put(Policy(scope=scope, **{"mode": "enforce", **more}), by=ADA)

    async def may_pull(self, digest: str, reference: str = "latest", by: Actor = ADA) -> bool:
        try:
            await self.enforcement.check(self.repository, self.namespace, reference, digest, who=by)
        except PullRefused:
            return False
        return True

    async def sign(self, digest: str, role: str = "targets", tag: str = "latest", gun: str = GUN) -> None:
        await self.rooms.sign(self.repository, tag, digest, role=role, gun=gun)

    async def let_key_sign(self, key: str, role: str = "targets", gun: str = GUN, *, really: bool = True) -> None:
        await self.rooms.change(
            "INSERT INTO trust_delegations (repository_id, gun, role, key_id, public_key_id, has_signed)"
            " VALUES (:repository, :gun, :role, :key, :key, :really)",
            repository=self.repository,
            gun=gun,
            role=role,
            key=key,
            really=really,
        )

    async def prove(self, digest: str, identity: str, *, namespace: str | None = None, **columns: Any) -> str:
        """A verified signature by an identity; the digest of the manifest that has it."""
        signature = await self.push(make_artifact("application/x.signature", digest.encode()), "sig")
        await self.rooms.change(
            "INSERT INTO signing_identities"
            " (id, namespace_id, name, kind, content, subject, fingerprint, created_at)"
            " VALUES (:id, :namespace, :id, 'key', '', '', :fingerprint, 1) ON CONFLICT DO NOTHING",
            id=identity,
            namespace=namespace,
            fingerprint=columns.pop("fingerprint", ""),
        )
        row = {
            "repository_id": self.repository,
            "subject": digest,
            "manifest": signature,
            "number": 0,
            "tag": None,
            "kind": "signature",
            "problem": "",
        } | {name: value for name, value in columns.items() if name != "valid_until"}
        await self.rooms.change(
            "INSERT INTO signatures (repository_id, subject, manifest, number, tag, kind, format, predicate_type,"
            " signer, problem, objection, checked_at)"
            " VALUES (:repository_id, :subject, :manifest, :number, :tag, :kind, '', '', '', :problem, '', 1)",
            **row,
        )
        await self.rooms.change(
            "INSERT INTO signature_proofs (repository_id, subject, manifest, number, identity_id, valid_until)"
            " VALUES (:repository, :subject, :manifest, 0, :identity, :until)",
            repository=self.repository,
            subject=digest,
            manifest=signature,
            identity=identity,
            until=columns.get("valid_until"),
        )
        return signature


@pytest.fixture
async def place(rooms: Rooms) -> Place:
    repository = await rooms.make_repository()
    return Place(rooms, repository, (await rooms.accounts.get("acme")).id)


async def test_without_a_policy_nothing_is_asked(place: Place):
    digest = await place.push()
    await place.enforce(mode="off")
    other = await place.rooms.make_repository("other/app")
    await place.enforce(Scope(repository=other))
    counter = Counter().watch(place.rooms.database)
    assert not place.enforcement.concerns(place.repository, place.namespace)
    assert await place.may_pull(digest)
    assert (counter.reads, counter.units) == (0, 0)


async def test_a_pull_that_a_policy_concerns_costs_one_query(place: Place):
    digest = await place.push()
    for scope in (REGISTRY, Scope(namespace=place.namespace), Scope(repository=place.repository)):
        await place.enforce(scope)
        exception = PolicyException(kind="tag", value="else-*", reason="r")
        await place.enforcement.add_exception(scope, exception, by=ADA)
    await place.sign(digest)
    counter = Counter().watch(place.rooms.database)
    assert await place.may_pull(digest)
    assert (counter.reads, counter.units) == (1, 0)


@pytest.mark.parametrize("where", ["registry", "namespace", "repository"])
async def test_a_policy_holds_in_its_scope_alone(place: Place, where: str):
    digest = await place.push()
    scope = {
        "registry": REGISTRY,
        "namespace": Scope(namespace=place.namespace),
        "repository": Scope(repository=place.repository),
    }[where]
    await place.enforce(scope)
    assert not await place.may_pull(digest)
    beside = await place.rooms.make_repository("acme/beside")
    outside = await place.rooms.make_repository("other/app")
    assert place.enforcement.concerns(beside, place.namespace) is (where != "repository")
    assert place.enforcement.concerns(outside, (await place.rooms.accounts.get("other")).id) is (
        where == "registry"
    )


async def test_content_trust_counts_as_long_as_it_holds(place: Place):
    digest = await place.push()
    await place.enforce()
    await place.sign(f"sha256:{'0' * 64}")
    assert not await place.may_pull(digest)
    await place.sign(digest, role="targets/releases", gun="another.example.com/acme/app")
    assert await place.may_pull(digest)
    await place.rooms.change("UPDATE trust_targets SET forgotten_at = 1")
    assert not await place.may_pull(digest)
    await place.rooms.change("UPDATE trust_targets SET forgotten_at = NULL")
    assert await place.may_pull(digest)
    await place.rooms.change("UPDATE trust_roles SET expires_at = 1")
    assert not await place.may_pull(digest)


async def test_another_repository_signs_nothing_here(place: Place):
    digest = await place.push()
    await place.enforce()
    other = await place.rooms.make_repository("acme/other")
    await place.rooms.sign(other, "latest", digest)
    assert not await place.may_pull(digest)


async def test_roles_and_keys_that_signed_are_signers(place: Place):
    digest = await place.push()
    await place.sign(digest, role="targets/releases")
    await place.let_key_sign(KEY, role="targets/releases")
    await place.let_key_sign("2" * 64, role="targets/releases", really=False)
    for signer, enough in {
        "role:targets/releases": True,
        "role:targets": False,
        f"key:{KEY}": True,
        f"key:{'2' * 64}": False,
    }.items():
        await place.enforce(signers=(signer,))
        assert await place.may_pull(digest) is enough, signer


async def test_identities_count_when_their_signature_holds(place: Place):
    digest = await place.push()
    await place.enforce()
    await place.prove(digest, "here", namespace=place.namespace)
    assert await place.may_pull(digest)
    for signer, enough in {
        "identity:acme/here": True,
        "identity:here": False,
        "identity:acme/else": False,
    }.items():
        await place.enforce(signers=(signer,))
        assert await place.may_pull(digest) is enough
    await place.enforce()
    for change, undo in (
        ("signature_proofs SET valid_until = 1", "signature_proofs SET valid_until = NULL"),
        ("signatures SET problem = 'broken'", "signatures SET problem = ''"),
        ("signatures SET kind = 'attestation'", "signatures SET kind = 'signature'"),
        ("signatures SET tag = 'gone'", "signatures SET tag = 'sig'"),
    ):
        await place.rooms.change(f"UPDATE {change}")
        assert not await place.may_pull(digest), change
        await place.rooms.change(f"UPDATE {undo}")
        assert await place.may_pull(digest), undo
    await place.rooms.change("DELETE FROM signing_identities")
    assert not await place.may_pull(digest)


async def test_an_identity_of_another_namespace_does_not_count(place: Place):
    digest = await place.push()
    await place.enforce()
    await place.rooms.make_repository("other/app")
    await place.prove(digest, "there", namespace=(await place.rooms.accounts.get("other")).id)
    assert not await place.may_pull(digest)
    await place.rooms.change("UPDATE signing_identities SET namespace_id = NULL")
    assert await place.may_pull(digest)
    await place.enforce(signers=("identity:there",))
    assert await place.may_pull(digest)


async def test_a_signed_index_vouches_for_what_it_lists(place: Place):
    image, stranger = make_image(layers=2), make_image(layers=3)
    index = make_index(make_index(image))
    digest = await place.push(index)
    unsigned = await place.push(make_index(image, stranger), "unsigned")
    await place.enforce()
    child, nested = (str(one) for one in (image.digest, index.children[0].digest))
    assert not await place.may_pull(child)
    await place.sign(digest)
    assert await place.may_pull(digest)
    assert await place.may_pull(nested)
    assert await place.may_pull(child)
    assert not await place.may_pull(unsigned)
    assert not await place.may_pull(str(stranger.digest))


async def test_a_member_of_each_team_has_to_sign(place: Place):
    accounts = place.rooms.accounts
    digest = await place.push()
    for team in ("dev", "security"):
        await accounts.organizations.create_team("acme", team)
    members = {"ann": ["dev"], "bob": ["security"], "eve": [], "joe": ["dev", "security"]}
    for number, (name, its) in enumerate(members.items()):
        await accounts.create_user(name, "password of " + name)
        for team in its:
            await accounts.organizations.put_team_member("acme", team, name)
        await place.rooms.change(
            "INSERT INTO public_keys (account_id, id, public_key, created_at) VALUES (:account, :id, '', 1)",
            account=(await accounts.get(name)).id,
            id=str(number) * 64,
        )
    teams = await place.enforcement.find_teams(["acme/dev", "acme/security"])
    await place.enforce(teams=teams)

    async def signed_by(*names: str, really: bool = True) -> bool:
        await place.rooms.change("DELETE FROM trust_delegations")
        for name in names:
            await place.sign(digest, role=f"targets/{name}")
            await place.let_key_sign(str(list(members).index(name)) * 64, f"targets/{name}", really=really)
        return await place.may_pull(digest)

    assert not await signed_by("ann")
    assert not await signed_by("bob", "eve")
    assert await signed_by("ann", "bob")
    assert await signed_by("joe")
    assert not await signed_by("joe", really=False)
    assert await signed_by("joe", "eve")
    await place.rooms.change("UPDATE accounts SET is_active = :no WHERE name = 'joe'", no=False)
    assert not await place.may_pull(digest)
    assert await signed_by("ann", "bob")
    await accounts.organizations.delete_team("acme", "dev")
    assert not await place.may_pull(digest)
    assert [one.name for one in (await place.enforcement.get(Scope(repository=place.repository))).teams] == [
        "",
        "acme/security",
    ]


async def test_a_signature_of_another_kind_is_its_keys_owners_too(place: Place):
    accounts = place.rooms.accounts
    digest = await place.push()
    await accounts.organizations.create_team("acme", "dev")
    await accounts.create_user("ann", "password of ann")
    await accounts.organizations.put_team_member("acme", "dev", "ann")
    await place.enforce(teams=await place.enforcement.find_teams(["acme/dev"]))
    await place.prove(digest, "key-of-ann", fingerprint=KEY)
    assert not await place.may_pull(digest)
    await place.rooms.change(
        "INSERT INTO public_keys (account_id, id, public_key, created_at) VALUES (:account, :id, '', 1)",
        account=(await accounts.get("ann")).id,
        id=KEY,
    )
    assert await place.may_pull(digest)
    await place.enforce(signers=(f"key:{KEY}",))
    assert await place.may_pull(digest)
    # What an authority vouches for was not signed with the key of the authority.
    await place.rooms.change("UPDATE signing_identities SET kind = 'certificate'")
    assert not await place.may_pull(digest)


async def test_signatures_can_be_pulled_and_what_only_looks_like_one_cannot(place: Place):
    digest = await place.push()
    await place.enforce()
    notation = make_artifact("application/vnd.cncf.notary.signature", b"{}", subject=IMAGE)
    assert await place.may_pull(await place.push(notation, "notation"))
    disguised = make_image(layers=2, subject=IMAGE)
    pushed = await place.push(disguised, f"{digest.replace(':', '-')}.sig")
    assert not await place.may_pull(pushed)
    # cosign's older signatures have an image's config: those that were read and understood.
    old = await place.push(annotated(IMAGE, like="cosign"), "old")
    assert not await place.may_pull(old)
    proof = (
        "INSERT INTO signatures (repository_id, subject, manifest, number, kind, format, predicate_type, signer,"
        " problem, objection, checked_at)"
        " VALUES (:repository, :subject, :manifest, :number, 'signature', :format, '', '', :problem, '', 1)"
    )
    row = {"repository": place.repository, "subject": digest, "manifest": old}
    await place.rooms.change(proof, **row, number=0, problem="", format="cosign")
    assert await place.may_pull(old)
    for number, (form, problem) in enumerate((("", "its payload cannot be read"), ("cose", "")), 1):
        await place.rooms.change(proof, **row, number=number, problem=problem, format=form)
        assert not await place.may_pull(old)
        await place.rooms.change("DELETE FROM signatures WHERE number = :number", number=number)


async def test_exceptions_by_tag_digest_and_account(place: Place):
    image = make_image(layers=2)
    index = make_index(image)
    digest = await place.push(index, "dev-1", "candidate")
    await place.enforce()
    scope = Scope(repository=place.repository)
    robot = Actor("robot", (await place.rooms.accounts.get("acme")).id, "acme+scanner")
    for kind, value, who in (("tag", "dev-*", ADA), ("digest", digest, ADA), ("account", robot.id, robot)):
        assert not await place.may_pull(digest, "candidate", who)
        exception = PolicyException(kind=kind, value=value, reason="because")  # type: ignore[arg-type]
        made = await place.enforcement.add_exception(scope, exception, by=ADA)
        assert (made.author, made.reason, made.created_at > 0) == ("ada", "because", True)
        assert made.name == ("acme" if kind == "account" else value)
        assert (await place.enforcement.get(scope)).exceptions == (made,)
        assert await place.may_pull(digest, "candidate", who)
        assert await place.may_pull(str(image.digest), str(image.digest), who)
        assert await place.may_pull(digest, "candidate", ADA) is (kind != "account")
        await place.enforcement.put(Policy(scope=scope, mode="enforce", signers=("role:targets",)), by=ADA)
        assert await place.may_pull(digest, "candidate", who)
        await place.enforcement.delete_exception(scope, made.id, by=ADA)
    assert not await place.may_pull(digest, "candidate", robot)
    with pytest.raises(EnforcementExceptionUnknown):
        await place.enforcement.delete_exception(scope, made.id, by=ADA)


async def test_tags_are_judged_many_at_once_by_all_policies_that_are_on(place: Place):
    bad, good = await place.push(IMAGE, "bad", "dev-1"), await place.push(make_image(layers=2), "good")
    names = ["bad", "dev-1", "good", "none"]
    assert not place.enforcement.is_on
    assert await place.enforcement.judge(place.repository, names) == {}
    await place.enforce(Scope(namespace=place.namespace))
    assert place.enforcement.is_on
    await place.sign(good, tag="good")
    counter = Counter().watch(place.rooms.database)
    judged = await place.enforcement.judge(place.repository, names)
    assert (counter.reads, counter.units) == (2, 0)
    assert {name: one.verdict.refuses for name, one in judged.items()} == {
        "bad": True, "dev-1": True, "good": False,
    }  # fmt: skip
    assert (judged["bad"].digest, judged["bad"].tag) == (bad, "bad")
    (objection,) = judged["bad"].verdict.objections
    assert [one.kind for one in objection.wants] == ["signature"]
    exception = PolicyException(kind="digest", value=bad, reason="because")
    await place.enforcement.add_exception(Scope(namespace=place.namespace), exception, by=ADA)
    await place.enforce(mode="report", signers=("role:targets/qa",))
    judged = await place.enforcement.judge(place.repository, names)
    assert not any(one.verdict.refuses for one in judged.values())
    (objection,) = judged["good"].verdict.objections
    assert [(one.kind, one.names) for one in objection.wants] == [("signer", ("role:targets/qa",))]
    elsewhere = await place.rooms.make_repository("other/app")
    assert await place.enforcement.judge(elsewhere, names) == {}


async def test_an_exception_of_a_tag_ends_when_the_tag_moves(place: Place):
    digest = await place.push(IMAGE, "dev-1")
    await place.enforce()
    scope = Scope(repository=place.repository)
    await place.enforcement.add_exception(scope, PolicyException(kind="tag", value="dev-*", reason="r"), by=ADA)
    assert await place.may_pull(digest, digest)
    await place.push(annotated(IMAGE, n="2"), "dev-1")
    assert not await place.may_pull(digest, digest)


async def test_policies_are_kept_changed_and_removed_with_what_they_are_about(place: Place):
    scope = Scope(repository=place.repository)
    enforcement = place.enforcement
    with pytest.raises(EnforcementPolicyUnknown):
        await enforcement.get(scope)
    with pytest.raises(EnforcementPolicyUnknown):
        await enforcement.delete(scope)
    with pytest.raises(EnforcementPolicyUnknown):
        await enforcement.add_exception(scope, PolicyException(kind="tag", value="*", reason="r"))
    made = await place.enforce(signers=("role:targets",))
    assert await enforcement.get(scope) == made
    with pytest.raises(EnforcementPolicyInvalid):
        await enforcement.put(replace(made, signers=("nobody",)))
    with pytest.raises(EnforcementPolicyInvalid):
        await enforcement.find_teams(["acme/none"])
    with pytest.raises(EnforcementPolicyInvalid):
        await enforcement.find_teams(["none"])
    exception = PolicyException(kind="account", value="nobody", reason="r")
    with pytest.raises(EnforcementPolicyInvalid):
        await enforcement.add_exception(scope, exception)
    with pytest.raises(EnforcementPolicyUnknown):
        await place.enforce(Scope(namespace="no account"))
    await enforcement.delete(scope, by=ADA)
    assert not enforcement.concerns(place.repository, place.namespace)
    await place.enforce(Scope(namespace=place.namespace))
    await place.rooms.change("DELETE FROM accounts WHERE name = 'none'")
    assert await place.rooms.count("enforcement_policies") == 1


async def test_another_process_learns_of_a_change(place: Place):
    peer = Enforcement(place.rooms.another().database)
    await peer.refresh()
    assert not peer.concerns(place.repository, place.namespace)
    await place.enforce(Scope(namespace=place.namespace))
    await peer.refresh()
    assert peer.concerns(place.repository, place.namespace)
    counter = Counter().watch(peer._database)
    await peer.refresh()
    assert counter.reads == 1


async def test_objections_are_told_together(place: Place):
    digest = await place.push()
    await place.enforce(mode="report", signers=("role:targets",))
    await place.enforce(REGISTRY)
    heard: list[str] = []
    place.enforcement.observe = heard.append
    assert [await place.may_pull(digest) for _ in range(3)] == [False] * 3
    await place.enforce(REGISTRY, mode="report")
    assert await place.may_pull(digest)
    assert heard == ["enforce"] * 3 + ["report"]
    await place.enforcement.refusals.flush()
    events = await Events(place.rooms.database).list_events(Filter(type="FAIL", object_type="pull"), limit=10)
    shown = {
        (one.target.id if one.target else "", json.loads(one.object.content)["mode"]): one.times for one in events
    }
    assert shown == {
        ("registry", "enforce"): 3,
        ("registry", "report"): 1,
        (f"repository:{place.repository}", "report"): 4,
    }
    assert {(one.object.id, one.object.name, one.actor.name, one.repository) for one in events} == {
        (digest, "latest", "ada", "acme/app")
    }


async def test_refusals_take_bounded_memory(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(told, "_CAPACITY", 5)
    digest = await place.push()
    await place.enforce()
    for number in range(20):
        assert not await place.may_pull(digest, f"tag-{number}")
    await place.enforcement.refusals.flush()
    assert await place.rooms.query("SELECT count(*) FROM events WHERE object_type = 'pull'") == [(5,)]


async def test_a_report_judges_the_tags_of_a_scope_before_anything_is_refused(place: Place):
    rooms, enforcement = place.rooms, place.enforcement
    signed = await place.push(IMAGE, "a", "b")
    await place.push(annotated(IMAGE, n="2"), "c")
    await place.sign(signed, tag="a")
    other = await rooms.make_repository("acme/other")
    await rooms.push(other, IMAGE, "latest")
    elsewhere = await rooms.make_repository("else/app")
    await rooms.push(elsewhere, IMAGE, "latest")

    async def report(scope: Scope, proposed: Policy | None = None, **page: Any) -> dict[str, bool]:
        found = await enforcement.report(scope, proposed, **{"limit": 100, **page})
        return {f"{one.path}:{one.tag}": one.verdict.refuses for one in found}

    own = Scope(repository=place.repository)
    assert await report(own) == {"acme/app:a": False, "acme/app:b": False, "acme/app:c": False}
    proposed = Policy(scope=own, mode="report")
    assert await report(own, proposed) == {"acme/app:a": False, "acme/app:b": False, "acme/app:c": True}
    of_key = replace(proposed, signers=(f"key:{KEY}",))
    assert await report(own, of_key) == {"acme/app:a": True, "acme/app:b": True, "acme/app:c": True}
    namespace = Scope(namespace=place.namespace)
    assert list(await report(namespace, Policy(scope=namespace), start=("acme/app", "c"))) == [
        "acme/app:c",
        "acme/other:latest",
    ]
    assert await report(REGISTRY, Policy(), start=("acme/other", "m"), limit=1) == {"else/app:latest": True}
    await place.enforce(own, mode="off")
    assert (await report(own))["acme/app:c"]
    counter = Counter().watch(rooms.database)
    assert len(await report(REGISTRY, Policy())) == 5
    assert (counter.reads, counter.units) == (2, 0)
    assert not enforcement.concerns(place.repository, place.namespace)


async def test_what_is_known_of_a_manifest_is_found_by_indexes_alone(tmp_path: Path):
    """SQLite's planner, which knows no numbers: each table is searched by all that is known of its rows."""
    file = tmp_path / "metadata.db"
    await make_tables(f"sqlite:///{file}")
    statement = _statement(many=False, with_teams=True, with_tags=True)
    parameters = {"repository": 1, "digest": f"sha256:{'0' * 64}", "teams": ["one"]}
    text, values = statement.prepare("sqlite", parameters)
    with closing(sqlite3.connect(file)) as connection:
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    searched = [step for step in steps if step.startswith("SEARCH")]
    assert not [step for step in searched if step.endswith("(repository_id=?)")]
    made = {"covers", "trusted", "proven", "keys", "json_each"}
    assert {step.split()[1] for step in steps if step.startswith("SCAN")} <= made


async def test_what_the_database_does_not_take_waits(place: Place, monkeypatch: pytest.MonkeyPatch):
    digest = await place.push()
    await place.enforce()
    assert not await place.may_pull(digest)
    refusals, unit = place.enforcement.refusals, place.rooms.database.unit

    async def fails(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("not now")

    monkeypatch.setattr(place.rooms.database, "unit", fails)
    with pytest.raises(DatabaseUnavailable):
        await refusals.flush()
    assert not await place.may_pull(digest)
    monkeypatch.setattr(place.rooms.database, "unit", unit)
    await refusals.close()
    assert await place.rooms.query("SELECT times FROM events WHERE object_type = 'pull'") == [(2,)]


async def test_the_log_says_how_many_refusals_are_lost_in_the_end(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(told, "_CAPACITY", 2)
    digest = await place.push()
    await place.enforce()

    async def fails(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("not now")

    monkeypatch.setattr(place.rooms.database, "unit", fails)
    for tag in ("a", "a", "a", "b", "c", "d"):  # two too many
        assert not await place.may_pull(digest, tag)
    with caplog.at_level(logging.WARNING, "dtr.enforcement"):
        await place.enforcement.refusals.close()
    (line,) = (one for one in caplog.records if one.message == "refusals lost")
    assert line.__dict__["pulls"] == 6
