"""
Signatures of today: cosign's and Notation's, which are artifacts in the registry.

What refers to an image is read when it comes, and verified with what a namespace, or the whole registry,
registered as identities; what came of it is kept, and answers with one query whose signatures an image has.
"""

from __future__ import annotations

from dtr.signatures.errors import (
    IdentityInvalid,
    IdentityUnknown,
    SignatureInvalid,
    SignaturesError,
    TrustRootInvalid,
)
from dtr.signatures.identities import Identities, Identity, IdentityKind
from dtr.signatures.keyless import Sigstore
from dtr.signatures.signatures import ProvenBy, SignatureRecord, Signatures, Summary

__all__ = [
    "Identities",
    "Identity",
    "IdentityInvalid",
    "IdentityKind",
    "IdentityUnknown",
    "ProvenBy",
    "SignatureInvalid",
    "SignatureRecord",
    "Signatures",
    "SignaturesError",
    "Sigstore",
    "Summary",
    "TrustRootInvalid",
]
