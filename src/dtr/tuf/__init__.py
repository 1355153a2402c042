"""
Notary v1, the dialect of TUF that Docker Content Trust speaks: files of collections, and their rules. No I/O.

A collection (known by its GUN) is a set of signed files, one for each role: `root` says whose keys count;
`targets` and its delegations what is signed; `snapshot` which of their files are current; `timestamp` which
snapshot is.
"""

from __future__ import annotations

from dtr.tuf.errors import (
    CertificateInvalid,
    Malformed,
    MetadataInvalid,
    NotCanonical,
    RuleBroken,
    RuleName,
    SignaturesMissing,
    StoredBroken,
    TufError,
)
from dtr.tuf.keys import ED25519, PublicKey
from dtr.tuf.metadata import (
    Authority,
    Delegation,
    Envelope,
    FileMeta,
    Root,
    Signature,
    Snapshot,
    Targets,
    Timestamp,
    read_root,
    read_snapshot,
    read_targets,
    read_timestamp,
)
from dtr.tuf.roles import (
    BASE_ROLES,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    ancestors_of,
    is_delegation,
    is_role,
    is_targets,
    parent_of,
)
from dtr.tuf.rules import CheckedUpdate, Draft, Renewal, check_update, stored_root, what_to_renew

__all__ = [
    "BASE_ROLES",
    "ED25519",
    "ROOT",
    "SNAPSHOT",
    "TARGETS",
    "TIMESTAMP",
    "Authority",
    "CertificateInvalid",
    "CheckedUpdate",
    "Delegation",
    "Draft",
    "Envelope",
    "FileMeta",
    "Malformed",
    "MetadataInvalid",
    "NotCanonical",
    "PublicKey",
    "Renewal",
    "Root",
    "RuleBroken",
    "RuleName",
    "Signature",
    "SignaturesMissing",
    "Snapshot",
    "StoredBroken",
    "Targets",
    "Timestamp",
    "TufError",
    "ancestors_of",
    "check_update",
    "is_delegation",
    "is_role",
    "is_targets",
    "parent_of",
    "read_root",
    "read_snapshot",
    "read_targets",
    "read_timestamp",
    "stored_root",
    "what_to_renew",
]
