"""The formats of the OCI and Docker specifications: digests, names, manifests, ranges. No I/O."""

from __future__ import annotations

from dtr.oci.artifacts import (
    ATTESTATIONS,
    SIGNATURES,
    ArtifactKind,
    artifact_kind,
    companion_of,
    companions,
    is_signature_tag,
    may_hold_signatures,
)
from dtr.oci.digest import Digest
from dtr.oci.errors import (
    ContentRangeInvalid,
    DigestInvalid,
    DigestUnsupported,
    ManifestInvalid,
    ManifestUnsupported,
    NameInvalid,
    OciError,
    RangeNotSatisfiable,
    ReferenceInvalid,
)
from dtr.oci.manifest import Descriptor, Manifest, parse_manifest
from dtr.oci.ranges import parse_content_range, parse_range
from dtr.oci.reference import Reference, RepositoryName, Tag, parse_reference, parse_repository_name

__all__ = [
    "ATTESTATIONS",
    "SIGNATURES",
    "ArtifactKind",
    "ContentRangeInvalid",
    "Descriptor",
    "Digest",
    "DigestInvalid",
    "DigestUnsupported",
    "Manifest",
    "ManifestInvalid",
    "ManifestUnsupported",
    "NameInvalid",
    "OciError",
    "RangeNotSatisfiable",
    "Reference",
    "ReferenceInvalid",
    "RepositoryName",
    "Tag",
    "artifact_kind",
    "companion_of",
    "companions",
    "is_signature_tag",
    "may_hold_signatures",
    "parse_content_range",
    "parse_manifest",
    "parse_range",
    "parse_reference",
    "parse_repository_name",
]
