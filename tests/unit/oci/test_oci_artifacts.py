"""What people call a manifest, told by its media types."""

from __future__ import annotations

import pytest
from tests.support.images import DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

from dtr.oci import artifact_kind

EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
HELM = "application/vnd.cncf.helm.config.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.mark.parametrize(
    ("kind", "artifact_type", "config", "layers"),
    [
        ("image", OCI_CONFIG, OCI_CONFIG, (LAYER,)),
        ("image", None, DOCKER_CONFIG, ("application/vnd.docker.image.rootfs.diff.tar.gzip",)),
        ("image", None, OCI_CONFIG, ()),
        ("artifact", "application/vnd.acme.model.v1", OCI_CONFIG, (LAYER,)),
        ("artifact", "application/vnd.acme.model.v1", EMPTY, ("application/octet-stream",)),
        ("artifact", EMPTY, EMPTY, ("text/plain",)),
        ("helm chart", HELM, HELM, ("application/vnd.cncf.helm.chart.content.v1.tar+gzip",)),
        ("plugin", None, "application/vnd.docker.plugin.v1+json", (LAYER,)),
        ("app", None, "application/vnd.cnab.config.v1+json", ("application/json",)),
        ("wasm", None, "application/vnd.wasm.config.v0+json", ("application/wasm",)),
        ("wasm", None, OCI_CONFIG, ("application/wasm",)),
        ("sbom", "application/spdx+json", EMPTY, ("application/spdx+json",)),
        ("sbom", "application/vnd.cyclonedx+xml", EMPTY, ("application/octet-stream",)),
        ("sbom", EMPTY, EMPTY, ("text/spdx+json",)),
        ("signature", "application/vnd.cncf.notary.signature", EMPTY, ("application/jose+json",)),
        ("signature", OCI_CONFIG, OCI_CONFIG, ("application/vnd.dev.cosign.simplesigning.v1+json",)),
        ("signature", BUNDLE, EMPTY, (BUNDLE,)),
        ("attestation", OCI_CONFIG, OCI_CONFIG, ("application/vnd.dsse.envelope.v1+json",)),
        ("attestation", OCI_CONFIG, OCI_CONFIG, ("application/vnd.in-toto+json", "application/vnd.in-toto+json")),
    ],
)
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_what_a_manifest_is_follows_from_its_types(media_type, kind, artifact_type, config, layers):
    assert artifact_kind(media_type, artifact_type=artifact_type, config=config, layers=layers) == kind


@pytest.mark.parametrize(
    ("kind", "artifact_type", "annotations"),
    [
        ("index", None, {}),
        ("index", "application/vnd.acme.models.v1", {}),
        ("app", None, {"io.cnab.runtime_version": "v1.0.0"}),
        ("app", None, {"org.opencontainers.artifactType": "application/vnd.cnab.manifest.v1"}),
        ("app", "application/vnd.cnab.manifest.v1", {}),
        ("sbom", "application/spdx+json", {}),
    ],
)
@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_may_be_more_than_one(media_type, kind, artifact_type, annotations):
    assert artifact_kind(media_type, artifact_type=artifact_type, annotations=annotations) == kind


def test_a_bundle_of_sigstore_says_whether_it_signs_or_attests():
    notes = {"dev.sigstore.bundle.content": "dsse-envelope"}
    assert artifact_kind(OCI_MANIFEST, artifact_type=BUNDLE, annotations=notes) == "attestation"
    signs = notes | {"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"}
    assert artifact_kind(OCI_MANIFEST, artifact_type=BUNDLE, annotations=signs) == "signature"
    notes = {"dev.sigstore.bundle.content": "message-signature"}
    assert artifact_kind(OCI_MANIFEST, artifact_type=BUNDLE, annotations=notes) == "signature"
