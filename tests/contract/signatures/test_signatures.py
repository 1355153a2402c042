"""Signatures on both databases: read when they come, kept, and gone with what they depend on."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import signing
from tests.support.fulcio import Fulcio
from tests.support.images import Image, make_image, make_index
from tests.support.rooms import Counter, Rooms
from tests.support.signing import (
    BUNDLE,
    DAY,
    DSSE,
    SIMPLE_SIGNING,
    Notation,
    artifact,
    bundle,
    bundle_signature,
    cosign_layer,
    cosign_signature,
    make_key,
    make_signer,
    notation_signature,
    public_pem,
    signature_tag,
    statement,
)

from dtr.events import Actor
from dtr.oci import parse_repository_name
from dtr.policies import PromotionPolicy, Promotions, parse_rules
from dtr.registry import Origin
from dtr.signatures import (
    Identities,
    Identity,
    IdentityInvalid,
    IdentityUnknown,
    Signatures,
    Sigstore,
    Summary,
)
from dtr.storage import Memory

ADA = Actor("user", "id of ada", "ada")
KEY = make_key()
NOW = dt.datetime.now(dt.UTC)


class World:
    """Rooms, with the signatures that are verified by the jobs that wait."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.identities = Identities(rooms.database)
        self.signatures = Signatures(rooms.database, rooms.storage)
        self.promotions = Promotions(rooms.database, rooms.tag_reader, rooms.promotion)
        rooms.tag_reader._signers = self.signatures.verified_by

    async def jobs(self, action: str = "verify_signatures") -> list[dict[str, str]]:
        """The parameters of those that wait, which then do not any more."""
        rows = await self.rooms.query(
            "SELECT parameters FROM jobs WHERE action = :action AND status = 'waiting' ORDER BY id", action=action
        )
        await self.rooms.change("UPDATE jobs SET status = 'done' WHERE action = :action", action=action)
        return [json.loads(row[0]) for row in rows]

    async def work(self) -> int:
        """Verify what is to be verified; how many jobs there were."""
        jobs = await self.jobs()
        for one in jobs:
            if "manifest" in one:
                await self.signatures.verify(int(one["repository"]), one["manifest"])
            else:
                repository = int(one["repository"]) if "repository" in one else None
                async for _ in self.signatures.verify_all(namespace=one.get("namespace"), repository=repository):
                    pass
        return len(jobs)

    async def promote(self) -> list[str]:
        return [
            outcome.text for one in await self.jobs("promote") async for outcome in self.promotions.work_off(one)
        ]

    async def account(self, name: str) -> str:
        return str((await self.rooms.query("SELECT id FROM accounts WHERE name = :name", name=name))[0][0])

    async def trust(self, key: Any = KEY, name: str = "release", *, namespace: str | None = "acme") -> Identity:
        """Register a key, or certificates, in a namespace or for the registry, and verify."""
        content = key if isinstance(key, str) else public_pem(key)
        made = await self.identities.put(
            Identity(
                name=name,
                namespace_id=await self.account(namespace) if namespace else None,
                kind="certificate" if "CERTIFICATE" in content else "key",
                content=content,
            ),
            by=ADA,
        )
        await self.work()
        return made

    async def push(self, repository: int, image: Image, *tags: str) -> str:
        digest = await self.rooms.push(repository, image, *tags)
        await self.work()
        return str(digest)

    async def signers(self, repository: int, image: Image) -> set[str]:
        found = await self.signatures.verified_by(repository, [image.digest])
        assert found.keys() <= {image.digest}
        return set(found.get(image.digest, ()))

    async def problems(self, repository: int, image: Image) -> list[str]:
        found = await self.signatures.list_signatures(repository, image.digest, limit=100)
        return [one.problem or one.objection for one in found]


@pytest.fixture
async def world(database_url: str):
    shared = Memory()
    made = Rooms(database_url, lambda: Memory(shared))
    yield World(made)
    await made.close()


@pytest.fixture
async def repository(world: World) -> int:
    return await world.rooms.make_repository()


def by_tag(image: Image, key: Any = KEY, digest: str = "") -> Image:
    return cosign_signature(cosign_layer(key, digest or image.digest))


# --- every way to sign ----------------------------------------------------------------------------------------


async def test_signatures_of_every_kind_are_found_and_verified(world: World, repository: int) -> None:
    rooms = world.rooms
    signer = make_signer()
    image, other = make_image(), make_image()
    await world.push(repository, image, "v1")
    await world.push(repository, other, "v2")
    await world.trust(KEY, "cosign")
    await world.trust(signer.root_pem, "notation", namespace=None)
    assert await world.signers(repository, image) == set()
    await world.push(repository, by_tag(image), signature_tag(image.digest))
    assert await world.signers(repository, image) == {"acme/cosign"}
    await world.push(repository, notation_signature(Notation(signer, image.digest).jws(), image))
    await world.push(repository, notation_signature(Notation(signer, image.digest).cose(), image))
    await world.push(repository, cosign_signature(cosign_layer(KEY, image.digest), subject=image))
    await world.push(repository, bundle_signature(KEY, image))
    await world.push(repository, bundle_signature(KEY, image, predicate_type="https://slsa.dev/provenance/v1"))
    found = await world.signatures.list_signatures(repository, image.digest, limit=100)
    assert sorted((one.kind, one.format, one.tag is None, [who.name for who in one.proofs]) for one in found) == [
        ("attestation", "bundle", True, ["acme/cosign"]),
        ("signature", "bundle", True, ["acme/cosign"]),
        ("signature", "cose", True, ["notation"]),
        ("signature", "cosign", False, ["acme/cosign"]),
        ("signature", "cosign", True, ["acme/cosign"]),
        ("signature", "jws", True, ["notation"]),
    ]
    assert await world.signatures.verified_by(repository, [image.digest, other.digest]) == {
        image.digest: frozenset({"acme/cosign", "notation"})
    }
    assert await world.signatures.summaries(repository, [image.digest, other.digest]) == {
        image.digest: Summary(5, 1, ("acme/cosign", "notation"))
    }
    pages = [one.id for start in found for one in await world.signatures.list_signatures(
        repository, image.digest, start=start.id, limit=1
    )]  # fmt: skip
    assert pages == [one.id for one in found] == sorted(pages)
    counter = Counter().watch(rooms.database)
    await world.signatures.verified_by(repository, [image.digest, other.digest])
    await world.signatures.summaries(repository, [image.digest, other.digest])
    assert counter.seen == (2, 0)
    # One is read with four questions, and written with seven statements; one tells the repository's summary.
    (holder,) = {one.manifest for one in found if one.format == "jws"}
    counter.reset()
    await world.signatures.verify(repository, holder)
    assert (counter.statements, counter.seen) == (7, (4, 1))


async def test_one_key_of_many_layers(world: World, repository: int) -> None:
    """cosign writes each further signature into the one manifest."""
    image, keys = make_image(), [make_key(kind) for kind in ("P-256", "ed25519", "P-384")]
    await world.push(repository, image, "v1")
    layers = [cosign_layer(key, image.digest) for key in keys]
    for number, key in enumerate(keys):
        await world.trust(key, f"key {number}")
        await world.push(repository, cosign_signature(*layers[: number + 1]), signature_tag(image.digest))
    assert await world.signers(repository, image) == {"acme/key 0", "acme/key 1", "acme/key 2"}
    # Those of before are there still, and do not count: the tag names the last.
    assert len(await world.signatures.list_signatures(repository, image.digest, limit=100)) == 3
    await world.push(repository, cosign_signature(layers[1]), signature_tag(image.digest))
    assert await world.signers(repository, image) == {"acme/key 1"}


@pytest.mark.parametrize("limit", [3])
async def test_what_is_wrong_with_one_is_said(
    world: World, repository: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, other = make_image(), make_image()
    for one in (image, other):
        await world.push(repository, one, f"tag-{one.digest[7:20]}")
    await world.trust()
    # A signature of another image, tagged and referring to this one: somebody copied it.
    copied = by_tag(other)
    await world.push(repository, copied, signature_tag(image.digest))
    await world.push(repository, bundle_signature(KEY, image, digest=other.digest))
    assert await world.signers(repository, image) == set()
    assert await world.problems(repository, image) == ["it is a signature of something else"] * 2
    # The same manifest, as the signature that it is.
    await world.push(repository, copied, signature_tag(other.digest))
    assert await world.signers(repository, other) == {"acme/release"}
    # Bytes that were changed, and others' keys.
    payload, notes = cosign_layer(KEY, image.digest)
    tampered = artifact(
        [(SIMPLE_SIGNING, payload.replace(b"localhost", b"elsewhere"), notes), (SIMPLE_SIGNING, b"{", notes)]
    )
    await world.push(repository, tampered, signature_tag(image.digest))
    assert "critical is missing" not in await world.problems(repository, image)
    found = await world.signatures.list_signatures(repository, image.digest, limit=100)
    assert sorted(one.problem for one in found if one.tag) == ["", "the payload is not JSON"]
    # More layers than are read, and what is no signature at all.
    monkeypatch.setattr("dtr.signatures.signatures._MOST_LAYERS", limit)
    monkeypatch.setattr("dtr.signatures.signatures._MOST_BYTES", 3000)
    many = artifact([
        *[(SIMPLE_SIGNING, *cosign_layer(KEY, image.digest))] * limit,
        ("application/octet-stream", b"x" * 3000, {}),
        (SIMPLE_SIGNING, *cosign_layer(KEY, image.digest)),
    ])  # fmt: skip
    await world.push(repository, many, signature_tag(image.digest))
    assert await world.signers(repository, image) == {"acme/release"}
    assert "it has more layers than are read" in await world.problems(repository, image)
    monkeypatch.undo()
    monkeypatch.setattr("dtr.signatures.signatures._MOST_SECONDS", 0.0)
    await world.push(repository, by_tag(image), signature_tag(image.digest))
    assert "to verify all of its manifest takes too long" in await world.problems(repository, image)
    assert await world.signers(repository, image) == set()
    monkeypatch.undo()
    image_like = make_image(size=10)
    await world.push(repository, image_like, signature_tag(image.digest))
    assert await world.signers(repository, image) == set()
    assert "it is no signature of a kind that is known" in await world.problems(repository, image)


async def test_an_attestation_does_not_sign(world: World, repository: int) -> None:
    image = make_image()
    await world.push(repository, image, "v1")
    await world.trust()
    envelope = json.dumps(signing.dsse(KEY, statement(image.digest, "https://slsa.dev/provenance/v1"))).encode()
    await world.push(repository, artifact([(DSSE, envelope, {})]), signature_tag(image.digest, "att"))
    assert await world.signers(repository, image) == set()
    assert (await world.signatures.summaries(repository, [image.digest]))[image.digest] == Summary(0, 1, ())
    (found,) = await world.signatures.list_signatures(repository, image.digest, limit=10)
    assert (found.kind, found.predicate_type) == ("attestation", "https://slsa.dev/provenance/v1")
    assert [one.name for one in found.proofs] == ["acme/release"]


async def test_who_logged_in_signs_without_a_key(world: World, repository: int, tmp_path: Path) -> None:
    image, fulcio, issuer = make_image(), Fulcio(), "https://accounts.example"
    await world.push(repository, image, "v1")
    (tmp_path / "trusted_root.json").write_text(fulcio.trust_root)
    content = fulcio.bundle(statement(image.digest), email="ada@acme.example", issuer=issuer)
    await world.push(repository, artifact([(BUNDLE, content, {})], subject=image, artifactType=BUNDLE))
    ada = Identity(
        name="ada",
        namespace_id=await world.account("acme"),
        kind="keyless",
        content=issuer,
        subject="ada@acme.example",
    )
    with pytest.raises(IdentityInvalid, match="no trust root"):
        await world.identities.put(ada)
    rooms = world.rooms
    world.identities = Identities(rooms.database, takes_keyless=True)
    world.signatures = Signatures(rooms.database, rooms.storage, sigstore=Sigstore(tmp_path / "trusted_root.json"))
    await world.identities.put(ada)
    await world.work()
    assert await world.signers(repository, image) == {"acme/ada"}
    (found,) = await world.signatures.list_signatures(repository, image.digest, limit=2)
    assert (found.signer, found.proofs[0].valid_until) == ("ada@acme.example", None)


# --- what ends with what --------------------------------------------------------------------------------------


async def test_a_signature_ends_with_its_tag_its_manifest_and_its_identity(world: World, repository: int) -> None:
    rooms, image = world.rooms, make_image()
    await world.push(repository, image, "v1")
    await world.push(repository, by_tag(image), signature_tag(image.digest))
    referrer = bundle_signature(other := make_key(), image)
    await world.push(repository, referrer)
    assert await world.signers(repository, image) == set()
    await world.trust()
    await world.trust(other, "other", namespace=None)
    assert await world.signers(repository, image) == {"acme/release", "other"}
    await rooms.manifests.delete_tag(repository, signature_tag(image.digest))
    assert await world.signers(repository, image) == {"other"}
    await rooms.manifests.delete(repository, referrer.digest)
    assert await world.signers(repository, image) == set()
    await world.push(repository, by_tag(image), signature_tag(image.digest))
    assert await world.signers(repository, image) == {"acme/release"}
    await world.identities.delete(await world.account("acme"), "release")
    assert await world.signers(repository, image) == set()
    with pytest.raises(IdentityUnknown):
        await world.identities.delete(await world.account("acme"), "release")
    assert await rooms.count("signature_proofs") == 0


async def test_another_key_of_the_same_identity_counts_at_once(world: World, repository: int) -> None:
    image, new = make_image(), make_key()
    await world.push(repository, image, "v1")
    await world.push(repository, by_tag(image), signature_tag(image.digest))
    before = await world.trust()
    acme = await world.account("acme")
    after = await world.identities.put(
        Identity(name="release", namespace_id=acme, kind="key", content=public_pem(new))
    )
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert after.fingerprint != before.fingerprint
    assert await world.signers(repository, image) == set()
    await world.push(repository, cosign_signature(cosign_layer(new, image.digest)), signature_tag(image.digest))
    assert await world.signers(repository, image) == {"acme/release"}


async def test_certificates_end(world: World, repository: int) -> None:
    signer, image = make_signer(ends=NOW + DAY), make_image()
    await world.push(repository, image, "v1")
    await world.trust(signer.root_pem)
    await world.push(repository, notation_signature(Notation(signer, image.digest).cose(), image))
    assert await world.signers(repository, image) == {"acme/release"}
    await world.rooms.change("UPDATE signature_proofs SET valid_until = valid_until - 90000000")
    assert await world.signers(repository, image) == set()


async def test_where_the_repository_is_decides_whose_count(world: World, repository: int) -> None:
    rooms, image = world.rooms, make_image()
    await rooms.make_repository("other/app")
    mine = make_key()
    await world.trust(KEY, "release")
    await world.trust(mine, "release", namespace="other")
    await world.push(repository, image, "v1")
    await world.push(repository, bundle_signature(KEY, image))
    await world.push(repository, bundle_signature(mine, image))
    assert await world.signers(repository, image) == {"acme/release"}
    await rooms.repositories.rename("acme/app", parse_repository_name("other/moved"))
    assert await world.signers(repository, image) == set()
    assert await world.work() == 1
    assert await world.signers(repository, image) == {"other/release"}


async def test_a_new_identity_finds_what_was_there_before(world: World, repository: int) -> None:
    """Also what nobody verified yet: say, for it came before signatures were."""
    rooms = world.rooms
    elsewhere = await rooms.make_repository("other/app")
    image, index = make_image(), make_index(make_image(), make_image())
    for one in (image, index):
        for place in (repository, elsewhere):
            await rooms.push(place, one, f"tag-{one.digest[7:20]}")
            await rooms.push(place, by_tag(one), signature_tag(one.digest))
            await rooms.push(place, bundle_signature(KEY, one))
    await world.jobs()  # they are lost
    await world.trust()
    assert await world.signers(repository, image) == await world.signers(repository, index) == {"acme/release"}
    assert await world.signers(elsewhere, image) == set()
    await world.trust(name="all", namespace=None)
    assert await world.signers(elsewhere, image) == {"all"}
    assert await world.signers(repository, image) == {"acme/release", "all"}


async def test_identities_change_while_one_is_verified(world: World, repository: int) -> None:
    """Whatever the order: in the end counts what is registered in the end."""
    image = make_image()
    await world.push(repository, image, "v1")
    holder = bundle_signature(KEY, image)
    await world.rooms.push(repository, holder)
    acme = await world.account("acme")
    release = Identity(name="release", namespace_id=acme, kind="key", content=public_pem(KEY))
    for number in range(6):
        await asyncio.gather(
            world.signatures.verify(repository, holder.digest),
            world.identities.put(release) if number % 2 == 0 else world.identities.delete(acme, "release"),
            world.signatures.verify(repository, holder.digest),
        )
        await world.work()
        assert await world.signers(repository, image) == ({"acme/release"} if number % 2 == 0 else set())


async def test_identities_are_listed_and_bounded(world: World, repository: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("dtr.signatures.identities._MOST_IDENTITIES", 3)
    acme = await world.account("acme")
    for name in ("c", "a", "b"):
        await world.trust(name=name)
    assert [one.qualified_name for one in await world.identities.list_identities(acme, limit=10)] == [
        "acme/a",
        "acme/b",
        "acme/c",
    ]
    assert [one.name for one in await world.identities.list_identities(acme, start="b", limit=1)] == ["b"]
    assert (await world.identities.count(acme), await world.identities.count(None)) == (3, 0)
    assert await world.identities.list_identities(None, limit=10) == []
    with pytest.raises(IdentityInvalid, match="at most 3"):
        await world.trust(name="d")
    await world.trust(name="a")  # is there
    with pytest.raises(IdentityInvalid, match="no trust root"):
        await world.identities.put(
            Identity(name="x", kind="keyless", content="https://accounts.example", subject="ada@example")
        )
    with pytest.raises(IdentityUnknown):
        await world.identities.get(None, "a")


# --- what follows from it -------------------------------------------------------------------------------------


async def test_promotions_wait_for_whom_they_want_and_carry_what_was_signed(world: World, repository: int) -> None:
    rooms, image = world.rooms, make_image()
    target = await rooms.make_repository("acme/prod")
    signer, eve = make_signer(), make_key()
    await world.trust(signer.root_pem)
    await world.trust(eve, "eve")
    policy = PromotionPolicy(
        id="",
        source=repository,
        source_path="acme/app",
        target=target,
        target_path="acme/prod",
        enabled=True,
        rules=parse_rules([{"field": "signed_by", "operator": "eq", "values": ["acme/release"]}]),
    )
    await world.promotions.create(policy, evaluate=False, by=ADA)
    await rooms.push(repository, image, "v1")
    await world.promote()
    await world.push(repository, by_tag(image, eve), signature_tag(image.digest))
    await world.promote()
    assert await rooms.manifests.list_tags(target, limit=10) == []
    await rooms.push(repository, notation_signature(Notation(signer, image.digest).jws(), image))
    await world.promote()  # that it was pushed is not enough
    assert await rooms.manifests.list_tags(target, limit=10) == []
    await world.work()
    await world.promote()
    await world.work()
    assert await rooms.manifests.list_tags(target, limit=10) == [signature_tag(image.digest), "v1"]
    assert await world.signers(target, image) == {"acme/release", "acme/eve"}
    # What is signed later follows, and is verified there.
    await world.push(repository, bundle_signature(other := make_key(), image))
    await world.promote()
    await world.work()
    await world.trust(other, "other")
    assert await world.signers(target, image) == {"acme/release", "acme/eve", "acme/other"}


async def test_promotion_by_hand_carries_them(world: World, repository: int) -> None:
    rooms, index = world.rooms, make_index(make_image(), make_image())
    target = await rooms.make_repository("acme/prod")
    await world.trust()
    await world.push(repository, index, "v1")
    child = index.children[0]
    await world.push(repository, by_tag(index), signature_tag(index.digest))
    await world.push(repository, bundle_signature(KEY, child))
    await rooms.promotion.promote(repository, index.digest, target, "v1", Origin("acme/app", "v1"))
    assert await world.work() == 2
    assert await world.signers(target, index) == await world.signers(target, child) == {"acme/release"}


async def test_verifying_again_by_hand(world: World, repository: int) -> None:
    image = make_image()
    await world.rooms.push(repository, image, "v1")
    await world.rooms.push(repository, by_tag(image), signature_tag(image.digest))
    await world.rooms.push(repository, artifact([(BUNDLE, bundle(KEY, statement(image.digest)), {})],
                                                subject=image, artifactType=BUNDLE))  # fmt: skip
    await world.jobs()
    await world.trust()
    await world.rooms.change("DELETE FROM signatures")
    await world.signatures.verify_of(repository, image.digest)
    assert await world.signers(repository, image) == {"acme/release"}
    assert len(await world.signatures.list_signatures(repository, image.digest, limit=10)) == 2
    await world.signatures.verify(repository, "sha256:" + "0" * 64)
    await world.signatures.verify(12345, image.digest)
