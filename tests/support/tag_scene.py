"""A repository with tags of every kind, for the pages that show them."""

from __future__ import annotations

import json

from tests.support.api import Api
from tests.support.images import (
    Image,
    descriptor,
    make_artifact,
    make_built_image,
    make_image,
    make_index,
    make_tar,
)
from tests.support.signing import (
    artifact,
    cosign_layer,
    cosign_signature,
    make_key,
    public_pem,
    signature_tag,
    statement,
)

from dtr.app import Application

HOSTILE = "<script>alert(1)</script>\u202e<img src=x onerror=alert(2)>"
LONG = "feature-PAY-4711-retry-with-exponential-backoff-and-jitter-for-acquirer-timeouts-" + "x" * 47
KNOWN, STRANGE = make_key(), make_key()
CHART = "application/vnd.cncf.helm.config.v1+json"
_BASE = make_tar("base", b"b" * 30_000)


def config(**more: object) -> dict[str, object]:
    """The config of an image, with what makes pages hard to write."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {
            "Entrypoint": ["/app"],
            "Cmd": ["--serve", HOSTILE],
            "User": "1000",
            "Env": ["PATH=/usr/bin", f"EVIL={HOSTILE}", "LONG=" + "y" * 2_000],
            "Labels": {"org.acme.evil": HOSTILE, "org.opencontainers.image.source": "https://code.example/app"},
            "ExposedPorts": {"8080/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/srv",
            **more,
        },
        "history": [
            {"created_by": "/bin/sh -c #(nop) ADD file:base in / "},
            {"created_by": f"ENV EVIL={HOSTILE}", "empty_layer": True},
            {"created_by": "RUN /bin/sh -c apt-get update && apt-get install -y " + "package-" * 40},
        ],
    }


IMAGE = make_built_image(config(), _BASE, make_tar("b", b"b"), annotations={"org.acme.note": HOSTILE})
NEXT = make_built_image(
    config(Env=["PATH=/usr/bin", "MODE=new"], Labels={}, User="0"), _BASE, make_tar("c", b"c" * 9_000)
)
ARM = make_built_image({"architecture": "arm64", "variant": "v8", "os": "linux"}, make_tar("arm", b"a"))
SBOM = make_artifact("application/spdx+json", b"{}", subject=IMAGE)


def built_index() -> Image:
    """An index as BuildKit makes it: two images, and what is attested of the first."""
    attested = artifact(
        [("application/vnd.in-toto+json", b"{}", {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"})]
    )
    unknown = {"os": "unknown", "architecture": "unknown"}
    manifests = [
        descriptor(IMAGE.media_type, IMAGE.payload, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(
            ARM.media_type, ARM.payload, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}
        ),
        descriptor(
            attested.media_type,
            attested.payload,
            platform=unknown,
            annotations={"vnd.docker.reference.digest": IMAGE.digest},
        ),
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    return Image(json.dumps(document).encode(), media_type, (), (IMAGE, ARM, attested))


INDEX = built_index()


def furnish_tags(api: Api) -> None:
    """
    Make ``acme/app`` with tags of all kinds, ``acme/live`` to copy to, and ``acme/empty``.

    `writer` pushes to all of them, `reader` reads them, `keeper` administers them, `stranger` sees none.
    """
    api.make_users("writer", "reader", "keeper", "stranger")
    api.make_organization("acme")
    for team, level in (("writers", "read-write"), ("readers", "read-only"), ("keepers", "admin")):
        api.make_team(f"acme/{team}", team.removesuffix("s"))
        api.grant(f"acme/{team}", level)
    for path in ("acme/app", "acme/live", "acme/empty"):
        api.make_repository(path)
    client = api.as_("writer").client
    for tag in ("2.14.3", "2.14", "latest"):
        client.push("acme/app", INDEX, tag)
    images = {
        "2.14.2": IMAGE,
        "2.14.10": NEXT,
        "2.14.0-rc.2": make_image(),
        LONG: make_image(),
        "trusted": make_image(),
        "moved": make_image(),
        "chart-2.14": make_built_image(b"{}", make_tar("c", b"c"), config=descriptor(CHART, b"{}")),
        "notes": make_artifact("application/vnd.acme.notes", HOSTILE.encode()),
        "old": make_index(make_image()),
    }
    for tag, image in images.items():
        client.push("acme/app", image, tag)
    identity = {"kind": "key", "content": public_pem(KNOWN)}
    api.admin.put("/api/v0/signingIdentities/release", identity, namespace="acme").expect(200)
    signed = ((KNOWN, IMAGE), (STRANGE, images["2.14.0-rc.2"]))
    for key, image in signed:
        client.push("acme/app", cosign_signature(cosign_layer(key, image.digest)), signature_tag(image.digest))
    client.push("acme/app", SBOM, SBOM.digest)
    about = statement(IMAGE.digest, "https://spdx.dev/Document")
    attestation = artifact([("application/vnd.dsse.envelope.v1+json", about, {})])
    client.push("acme/app", attestation, signature_tag(IMAGE.digest, "att"))
    api.sign("acme/app", "trusted", images["trusted"].digest, role="targets/hanako")
    api.sign("acme/app", "moved", IMAGE.digest)

    async def verify(application: Application) -> None:
        number = (await application.repositories.get("acme/app")).id
        async for _ in application.signatures.verify_all(repository=number):
            pass

    api.server.do(verify)
    long_ago = 100 * 86_400_000
    api.change("UPDATE tags SET updated_at = updated_at - :ago WHERE name IN ('old', 'notes')", ago=long_ago)
    api.change("UPDATE tags SET updated_at = updated_at - 9 * 86400000 WHERE name LIKE '2.14.0%'")
