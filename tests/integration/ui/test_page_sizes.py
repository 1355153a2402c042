"""What a page weighs at its worst: 25 rows, each as large as it can be."""

from __future__ import annotations

import json

import pytest
from tests.support.images import Image, descriptor, make_built_image, make_tar
from tests.support.policies import rule
from tests.support.server import PASSWORD
from tests.support.signing import (
    cosign_layer,
    cosign_signature,
    make_key,
    public_pem,
    signature_tag,
)
from tests.support.site import Shown, Site

from dtr.app import Application

SETTINGS = {"mirroring.allowed_networks": "127.0.0.0/8"}
MOST = 50_000
AUTHOR = "build-" + "a" * 94
SIGNER = "release-" + "s" * 56
KEY = make_key()
PLATFORMS = (
    ("amd64", ""),
    ("arm", "v6"),
    ("arm", "v7"),
    ("arm64", "v8"),
    ("386", ""),
    ("ppc64le", ""),
    ("s390x", ""),
)


def tag_name(number: int) -> str:
    """A name of 128 characters, as many as a tag can have."""
    return f"{number:03}-" + "n" * 124


def many_platforms() -> Image:
    """An index with images of all platforms that are common."""
    images = [
        make_built_image({"architecture": one, "variant": variant, "os": "linux"}, make_tar(one + variant, b"x"))
        for one, variant in PLATFORMS
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    manifests = [
        descriptor(
            image.media_type, image.payload, platform={"os": "linux", "architecture": one, "variant": variant}
        )
        for image, (one, variant) in zip(images, PLATFORMS, strict=True)
    ]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return Image(json.dumps(document).encode(), media_type, (), tuple(images))


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    """A repository with tags that have long names, many platforms, a long author and a long signer."""
    api = site.api
    api.make_users(AUTHOR, "reader")
    api.make_organization("acme", owners=(AUTHOR,), members=("reader",))
    for path in ("acme/app", "acme/prod"):
        api.make_repository(path)
    identity = {"kind": "key", "content": public_pem(KEY)}
    api.admin.put(f"/api/v0/signingIdentities/{SIGNER}", identity, namespace="acme").expect(200)
    client, index = api.as_(AUTHOR).client, many_platforms()
    for number in range(100):
        client.push("acme/app", index, tag_name(number))
    client.push("acme/app", cosign_signature(cosign_layer(KEY, index.digest)), signature_tag(index.digest))
    api.change(
        "INSERT INTO pulls (repository_id, reference, pulls, last_pulled_at)"
        " SELECT repository_id, name, 1, updated_at FROM tags"
    )

    async def verify(application: Application) -> None:
        number = (await application.repositories.get("acme/app")).id
        async for _ in application.signatures.verify_all(repository=number):
            pass

    api.server.do(verify)


def weight(shown: Shown) -> int:
    return len(shown.expect(200).answer.body)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_page_of_tags_with_the_longest_names(site: Site, language: str) -> None:
    visitor = site.as_("admin")
    shown = visitor.get(f"/repositories/acme/app/tags?lang={language}")
    rows = shown.all("#list tbody tr")
    assert len(rows) == 25
    row = rows[0].get_text(" ")
    assert tag_name(99) in row
    assert "s390x" in row
    assert SIGNER[:40] in row
    assert AUTHOR[:59] in row
    assert not shown.has("#list .dim")  # all were pulled
    assert weight(shown) <= MOST
    assert weight(visitor.get("/repositories/acme/app/tags?size=100")) <= 4 * MOST


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("kind", ["promotions", "pruning", "mirrors"])
def test_a_policys_form_with_25_rules_in_groups(site: Site, kind: str, language: str) -> None:
    fields = ("tag", "label", "platform", "signed_by", "license.name")
    rules = [rule(fields[number % 5], "sw", f"value-{number}") for number in range(25)]
    groups = [{"any": rules[first : first + 5]} for first in range(0, 25, 5)]
    kinds: dict[str, tuple[str, dict[str, object]]] = {
        "promotions": ("promotionPolicies", {"targetRepository": "acme/prod", "tagTemplate": "%n"}),
        "pruning": ("pruningPolicies", {}),
        "mirrors": (
            "pushMirroringPolicies",
            {
                "remoteHost": f"https://127.0.0.1:{site.server.port}",
                "skipTLSVerification": True,
                "remoteRepository": "acme/prod",
                "username": AUTHOR,
                "password": PASSWORD,
            },
        ),
    }
    name, more = kinds[kind]
    visitor = site.as_("admin")
    made = site.api.as_(AUTHOR).post(
        f"/api/v0/repositories/acme/app/{name}", {"enabled": False, "rules": groups, **more},
        **({} if kind == "pruning" else {"initialEvaluation": "false"}),
    ).expect(201).json  # fmt: skip
    shown = visitor.get(f"/repositories/acme/app/{kind}/{made['id']}/edit?lang={language}")
    assert len(shown.all("[name$='.value']")) == 25
    assert weight(shown) <= MOST
