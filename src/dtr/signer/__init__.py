"""
The signer: holds the private keys of timestamps and of snapshots that the server makes, and signs with them.

It is a component of its own, behind gRPC with mutual TLS, or in the process of the server. Both fulfil `Signer`.
"""

from __future__ import annotations

from dtr.signer.errors import (
    AlgorithmUnsupported,
    KeyUnknown,
    RequestRefused,
    SignerError,
    SignerFailed,
    SignerUnavailable,
)
from dtr.signer.local import LocalSigner, Rotation
from dtr.signer.remote import RemoteSigner
from dtr.signer.signer import ALGORITHMS, Signer

__all__ = [
    "ALGORITHMS",
    "AlgorithmUnsupported",
    "KeyUnknown",
    "LocalSigner",
    "RemoteSigner",
    "RequestRefused",
    "Rotation",
    "Signer",
    "SignerError",
    "SignerFailed",
    "SignerUnavailable",
]
