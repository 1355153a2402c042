"""
What people call a manifest: an image, an index, a Helm chart, a signature or else.

Nothing says so in one place: it follows from the media type of the manifest, its artifact type (OCI image
specification 1.1, "Guidelines for Artifact Usage"), its config, or, for what is older than artifact types, its
layers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from dtr.oci import media_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ArtifactKind: TypeAlias = Literal[
    "image", "index", "helm chart", "sbom", "signature", "attestation", "plugin", "app", "wasm", "artifact"
]
"""`app` is a bundle for Docker App (CNAB); `artifact` is anything else."""

_COMPANION = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.(?:sig|att|sbom))?")

_CNAB = "application/vnd.cnab."
_BEGINNINGS: tuple[tuple[str, ArtifactKind], ...] = (
    ("application/vnd.cncf.helm.", "helm chart"),
    ("application/vnd.docker.plugin.", "plugin"),
    (_CNAB, "app"),
    ("application/vnd.wasm.", "wasm"),
    ("application/vnd.module.wasm.", "wasm"),
    ("application/wasm", "wasm"),
    ("application/spdx", "sbom"),
    ("text/spdx", "sbom"),
    ("application/vnd.cyclonedx", "sbom"),
    ("application/vnd.syft", "sbom"),
    ("application/vnd.dev.cosign.artifact.sbom.", "sbom"),
    ("application/vnd.cncf.notary.signature", "signature"),
    ("application/vnd.dev.cosign.artifact.sig.", "signature"),
    ("application/vnd.dev.cosign.simplesigning.", "signature"),
    ("application/vnd.dev.sigstore.bundle", "signature"),
    ("application/vnd.in-toto", "attestation"),
    ("application/vnd.dsse.envelope.", "attestation"),
)
"""How the media types begin that tell."""
SIGNATURES = tuple(beginning for beginning, kind in _BEGINNINGS if kind == "signature")
"""Those of signatures; a bundle may be an attestation instead."""
ATTESTATIONS = tuple(beginning for beginning, kind in _BEGINNINGS if kind == "attestation")
_COSIGN_SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
"""Since its version 3, cosign signs an image by a statement, too: that it was signed."""


def artifact_kind(
    media_type: str,
    *,
    artifact_type: str | None = None,
    config: str | None = None,
    layers: Iterable[str] = (),
    annotations: Mapping[str, str] | None = None,
) -> ArtifactKind:
    """What a manifest of this media type is; `config` and `layers` are media types, as far as they are known."""
    notes = annotations or {}
    if artifact_type and artifact_type.startswith("application/vnd.dev.sigstore.bundle"):
        is_statement = notes.get("dev.sigstore.bundle.content") == "dsse-envelope"
        is_signature = notes.get("dev.sigstore.bundle.predicateType") == _COSIGN_SIGNATURE
        return "attestation" if is_statement and not is_signature else "signature"
    known = _known(artifact_type)
    if media_type in media_types.INDEXES:
        is_bundle = notes.get("org.opencontainers.artifactType", "").startswith(_CNAB)
        return known or ("app" if is_bundle or "io.cnab.runtime_version" in notes else "index")
    first = next(iter(layers), None)
    known = known or _known(config) or _known(first)
    if known is not None:
        return known
    return "image" if config in media_types.IMAGE_CONFIGS and not _is_other(artifact_type, config) else "artifact"


def _known(media_type: str | None) -> ArtifactKind | None:
    if media_type is None:
        return None
    return next((kind for beginning, kind in _BEGINNINGS if media_type.startswith(beginning)), None)


def _is_other(artifact_type: str | None, config: str | None) -> bool:
    """Whether the manifest says that it is something of its own, which only looks like an image."""
    return artifact_type is not None and artifact_type != config


def companions(digest: str) -> tuple[str, ...]:
    """
    Tags of what refers to the manifest of a digest, for clients that do not use referrers.

    The first is that of the OCI distribution specification 1.1, "Referrers Tag Schema", with an index of them; the
    others are cosign's, of a signature (the second), attestations and a bill of materials.
    """
    stem = digest.replace(":", "-", 1)
    return (stem, f"{stem}.sig", f"{stem}.att", f"{stem}.sbom")


def may_hold_signatures(artifact_type: str | None) -> bool:
    """Whether a manifest of this type holds signatures, of an image or of what is attested of it."""
    return artifact_type is not None and artifact_type.startswith(SIGNATURES + ATTESTATIONS)


def is_signature_tag(tag: str) -> bool:
    """Whether cosign gives this tag to what holds signatures, or attestations, of a manifest."""
    return tag.endswith((".sig", ".att")) and _COMPANION.fullmatch(tag) is not None


def companion_of(tag: str) -> str | None:
    """The digest of the manifest that what has this tag refers to; None: it is a tag like others."""
    found = _COMPANION.fullmatch(tag)
    return f"{found[1]}:{found[2]}" if found else None
