"""Signatures through the API: cosign's and Notation's own libraries sign what a server holds, and it verifies."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.images import Image, make_image
from tests.support.rooms import annotated
from tests.support.server import PASSWORD
from tests.support.signing import (
    Notation,
    Signer,
    cosign_layer,
    cosign_signature,
    make_key,
    make_signer,
    notation_signature,
    private_pem,
    public_pem,
    signature_tag,
)
from tests.support.tools import Finished, find_go_program, run

SETTINGS = {"mirroring.allowed_networks": "127.0.0.1/32"}
IMAGE = make_image()
KEYS = {kind: make_key(kind) for kind in ("P-256", "P-384", "ed25519", "rsa3072")}
SIGNERS: dict[str, Signer] = {kind: make_signer(kind) for kind in ("P-256", "rsa2048")}


class World:
    def __init__(self, api: Api) -> None:
        self.api = api
        self.admin, self.owner = api.admin, api.as_("ada")
        self.pusher = Client(api.server, "admin")

    def push(self, image: Image, *tags: str, path: str = "acme/app") -> str:
        for tag in tags or (image.digest,):
            self.pusher.push(path, image, tag)
        return image.digest

    def trust(self, name: str, content: str, namespace: str | None = "acme", **more: Any) -> dict[str, Any]:
        kind = "certificate" if "CERTIFICATE" in content else "key"
        who = self.owner if namespace else self.admin
        form = {"kind": kind, "content": content, **more}
        return who.put(f"/api/v0/signingIdentities/{quote(name)}", form, namespace=namespace).expect(200).json

    def signatures(self, reference: str, path: str = "acme/app") -> list[dict[str, Any]]:
        """Without when they were last looked at: a job may do so at any moment."""
        found = self.owner.get(f"/api/v0/repositories/{path}/signatures/{reference}").expect(200).json
        return [{name: value for name, value in one.items() if name != "checkedAt"} for one in found]

    def wait(self, reference: str, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The signatures, when the jobs came so far."""
        end = time.monotonic() + 60
        while not condition(found := self.signatures(reference)):
            assert time.monotonic() < end, found
            time.sleep(0.1)
        return found

    def tag(self, name: str, path: str = "acme/app") -> dict[str, Any]:
        (found,) = self.owner.get(f"/api/v0/repositories/{path}/tags/{name}").expect(200).json
        return found

    def verified(self, name: str, *expected: str, path: str = "acme/app") -> None:
        """Wait until these are whose signatures a tag has: a job finds it out."""
        end = time.monotonic() + 60
        while (found := self.tag(name, path).get("signatures", {}).get("verifiedBy")) != sorted(expected):
            assert time.monotonic() < end, (found, expected, self.signatures(name, path))
            time.sleep(0.1)


@pytest.fixture(scope="module")
def world(api: Api) -> World:
    api.make_users("ada", "bob", "eve")
    api.make_organization("acme", owners=("ada",), members=("bob",))
    for path in ("acme/app", "acme/prod", "acme/other"):
        api.make_repository(path)
    return World(api)


def program(
    world: World, name: str, *words: str, environment: dict[str, str] | None = None, **how: Any
) -> Finished:
    """Run what signs, as the administrator."""
    found = find_go_program(name)
    assert found is not None, f"{name} is built by scripts/prepare-tests"
    prefix = name.partition("-")[0].upper()
    access = {f"{prefix}_USERNAME": "admin", f"{prefix}_PASSWORD": PASSWORD}
    given = {**access, "SSL_CERT_FILE": str(world.api.server.ca), **(environment or {})}
    return run(found, *words, environment=given, **how)


# --- what signs -----------------------------------------------------------------------------------------------


def test_cosign_signs_and_is_verified(world: World, tmp_path: Path) -> None:
    image = annotated(IMAGE, made="for cosign")
    digest = world.push(image, "cosigned")
    reference = f"localhost:{world.api.server.port}/acme/app@{digest}"
    for kind, key in KEYS.items():
        world.trust(f"cosign {kind}", public_pem(key))
        (tmp_path / kind).write_text(private_pem(key))
    for kind, way in (
        ("P-256", "tag"),
        ("rsa3072", "tag"),
        ("ed25519", "referrer"),
        ("P-384", "bundle"),
        ("ed25519", "bundle"),
    ):
        program(world, "cosign-sign", reference, str(tmp_path / kind), way)
    pure = {"COSIGN_PURE_ED25519": "1"}
    program(world, "cosign-sign", reference, str(tmp_path / "ed25519"), "referrer", environment=pure)
    world.verified("cosigned", *(f"acme/cosign {kind}" for kind in KEYS))
    found = world.wait("cosigned", lambda found: sum(one["format"] == "bundle" for one in found) == 2)
    assert {one["format"] for one in found} == {"bundle", "cosign"}
    assert {(one["kind"], one["state"]) for one in found} == {("signature", "verified")}, found
    # Another image, to which somebody gave the same signatures.
    other = annotated(IMAGE, made="by somebody else")
    world.push(other, "copied")
    raw = world.pusher.get_manifest("acme/app", signature_tag(digest)).expect(200)
    stolen = Image(raw.body, raw.headers["content-type"])
    world.pusher.put_manifest("acme/app", stolen, signature_tag(other.digest)).expect(201)
    found = world.wait("copied", bool)
    assert {(one["state"], one["reason"]) for one in found} == {("invalid", "it is a signature of something else")}
    assert world.tag("copied")["signatures"]["verifiedBy"] == []


def test_notation_signs_and_is_verified(world: World, tmp_path: Path) -> None:
    digest = world.push(annotated(IMAGE, made="for notation"), "notated")
    reference = f"localhost:{world.api.server.port}/acme/app@{digest}"
    for kind, signer in SIGNERS.items():
        world.trust(f"notation {kind}", signer.root_pem, subject="O=Acme,CN=release")
        (tmp_path / f"{kind}.key").write_text(private_pem(signer.key))
        (tmp_path / f"{kind}.chain").write_text(signer.chain_pem)
        for envelope in ("jws", "cose"):
            files = (str(tmp_path / f"{kind}.key"), str(tmp_path / f"{kind}.chain"))
            program(world, "notation-sign", reference, *files, envelope)
    expiry = {"NOTATION_EXPIRY": "1h"}
    program(world, "notation-sign", reference, *files, "jws", environment=expiry)
    world.verified("notated", *(f"acme/notation {kind}" for kind in SIGNERS))
    found = world.wait("notated", lambda found: len(found) == 5)
    assert sorted((one["format"], one["state"]) for one in found) == (
        [("cose", "verified")] * 2 + [("jws", "verified")] * 3
    )
    assert all(one["signer"] == "CN=release,O=Acme,ST=Otago,C=NZ" and one["signedAt"] for one in found)
    ends = sorted(one["verifiedBy"][0]["validUntil"] for one in found)
    assert ends[0] < ends[1]  # the one that was to end within the hour


# --- what follows ---------------------------------------------------------------------------------------------


def test_promotion_carries_signatures_and_the_other_side_verifies_them(world: World) -> None:
    image, signer = annotated(IMAGE, made="to be promoted"), make_signer()
    digest = world.push(image, "promoted")
    world.trust("by hand", signer.root_pem)
    world.trust("global", public_pem(KEYS["P-256"]), namespace=None)
    world.push(cosign_signature(cosign_layer(KEYS["P-256"], digest)), signature_tag(digest))
    world.push(notation_signature(Notation(signer, digest).cose(), image))
    world.owner.post(
        "/api/v0/repositories/acme/app/tags/promoted/promotion",
        {"targetRepository": "acme/prod", "targetTag": "live"},
    ).expect(201)
    world.verified("live", "acme/by hand", "acme/cosign P-256", "global", path="acme/prod")
    world.admin.delete("/api/v0/signingIdentities/global").expect(204)
    world.owner.delete("/api/v0/signingIdentities/by%20hand", namespace="acme").expect(204)
    world.verified("live", "acme/cosign P-256", path="acme/prod")


def test_mirroring_carries_signatures_and_the_other_side_verifies_them(world: World) -> None:
    """The other side is another repository of the server."""
    image, signer, key = annotated(IMAGE, made="to be mirrored"), make_signer(), make_key()
    digest = world.push(image, "mirrored")
    world.trust("mirrored authority", signer.root_pem)
    world.trust("mirrored key", public_pem(key))
    world.push(cosign_signature(cosign_layer(key, digest)), signature_tag(digest))
    world.push(notation_signature(Notation(signer, digest).jws(), image))
    server = world.api.server
    policy = {
        "remoteHost": f"https://127.0.0.1:{server.port}",
        "remoteRepository": "acme/other",
        "remoteCA": server.ca.read_text(),
        "username": "admin",
        "password": PASSWORD,
        "enabled": True,
        "withReferrers": True,
        "rules": [{"field": "signed_by", "operator": "eq", "values": ["acme/mirrored key"]}],
    }
    path = "/api/v0/repositories/acme/app/pushMirroringPolicies"
    world.verified("mirrored", "acme/mirrored authority", "acme/mirrored key")
    world.admin.post(path, policy, initialEvaluation=True).expect(201)
    end = time.monotonic() + 60
    while world.owner.get("/api/v0/repositories/acme/other/tags/mirrored").status != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    world.verified("mirrored", "acme/mirrored authority", "acme/mirrored key", path="acme/other")


def test_identities_are_managed_by_owners_and_seen_by_members(world: World) -> None:
    pem = public_pem(KEYS["P-384"])
    form = {"kind": "key", "content": pem.replace("\n", "\r\n")}
    path = "/api/v0/signingIdentities/mine"
    made = world.owner.put(path, form, namespace="acme").expect(200).json
    assert (made["content"], made["namespace"], made["name"]) == (pem, "acme", "mine")
    bob, eve = world.api.as_("bob"), world.api.as_("eve")
    assert bob.get(path, namespace="acme").expect(200).json == made
    assert made in bob.get("/api/v0/signingIdentities", namespace="acme", count=True).expect(200).json
    assert bob.put(path, form, namespace="acme").expect(403).codes == ["NOT_AUTHORIZED"]
    assert eve.get(path, namespace="acme").expect(403).codes == ["NOT_AUTHORIZED"]
    assert world.owner.put(path, form).expect(403).codes == ["NOT_AUTHORIZED"]
    assert world.api.anonymous.get("/api/v0/signingIdentities").status == 401
    eve.get("/api/v0/signingIdentities").expect(200)
    own = eve.put(path, form, namespace="eve").expect(200).json
    assert own["namespace"] == "eve"
    pages = list(bob.pages("/api/v0/signingIdentities", 1, namespace="acme"))
    assert [one["name"] for page in pages for one in page] == sorted(one["name"] for page in pages for one in page)
    for wrong, status in (
        ({"kind": "key", "content": "hello"}, 400),
        ({"kind": "certificate", "content": pem}, 400),
        ({"kind": "keyless", "content": "https://accounts.example", "subject": "ada@example"}, 400),
    ):
        refused = world.owner.put(path, wrong, namespace="acme").expect(status)
        assert refused.codes == ["INVALID_SIGNING_IDENTITY"]
    assert world.owner.get("/api/v0/signingIdentities/nobody", namespace="acme").expect(404).codes == [
        "NO_SUCH_SIGNING_IDENTITY"
    ]
    world.owner.delete(path, namespace="acme").expect(204)
    world.owner.delete(path, namespace="acme").expect(204)


def test_signatures_are_listed_and_verified_again(world: World) -> None:
    digest = world.push(annotated(IMAGE, made="to be verified"), "again")
    layers = [cosign_layer(make_key(), digest) for _ in range(3)]
    world.push(cosign_signature(*layers), signature_tag(digest))
    path = "/api/v0/repositories/acme/app/signatures"
    world.owner.post(f"{path}/again").expect(204)
    found = world.signatures("again")
    assert [one["state"] for one in found] == ["unknown"] * 3
    assert world.signatures(digest) == found
    pages = list(world.owner.pages(f"{path}/again", 2))
    assert [[one["id"] for one in page] for page in pages] == [
        [one["id"] for one in found[:2]],
        [found[2]["id"]],
    ]
    assert world.owner.get(f"{path}/none").expect(404).codes == ["NO_SUCH_REF"]
    assert world.owner.get(f"{path}/-").expect(404).codes == ["NO_SUCH_REF"]
    assert world.api.as_("eve").get(f"{path}/again").expect(404).codes == ["NO_SUCH_REPOSITORY"]
    (tag,) = [
        one
        for one in world.owner.get("/api/v0/repositories/acme/app/tags", pageSize=100).expect(200).json
        if one["name"] == "again"
    ]
    assert tag["signatures"] == {"signatures": 3, "attestations": 0, "verifiedBy": []}
