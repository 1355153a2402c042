"""
The registry: repositories, blobs, upload sessions, manifests, tags.

It knows neither HTTP nor who may do what. It works on repositories by number where it changes something (the
caller has just asked whether that is allowed) and by path where it reads.
"""

from __future__ import annotations

from dtr.registry._tags import PROMOTE, show_again, show_signed, step
from dtr.registry._verification import VERIFY
from dtr.registry.blobs import Blob, Blobs
from dtr.registry.collector import Collector
from dtr.registry.errors import (
    BlobReferenced,
    BlobTooLarge,
    BlobUnknown,
    BodyFailed,
    DigestMismatch,
    InvalidSettings,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    NamespaceUnknown,
    RegistryError,
    RepositoryExists,
    RepositorySigned,
    RepositoryUnknown,
    TagImmutable,
    TagOfCache,
    TagSigned,
    TooManyManifests,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
    VisibilityInvalid,
)
from dtr.registry.image_configs import ImageConfigs
from dtr.registry.images import Images
from dtr.registry.lifetimes import Lifetimes
from dtr.registry.manifests import DeletedTags, Manifests, Referrer, StoredManifest
from dtr.registry.migration import Migration, MigrationFailed, Move, Progress
from dtr.registry.promote import Origin, Promotion
from dtr.registry.pulls import Pulls
from dtr.registry.repositories import Repositories, Repository, Settings, immutable_pattern, read_patterns
from dtr.registry.search import Search
from dtr.registry.sweeper import ALERT_AFTER, Sweeper, Swept
from dtr.registry.uploads import SMALL, Body, Hasher, Upload, Uploads
from dtr.registry.usage import Counts, Usage

__all__ = [
    "ALERT_AFTER",
    "PROMOTE",
    "SMALL",
    "VERIFY",
    "Blob",
    "BlobReferenced",
    "BlobTooLarge",
    "BlobUnknown",
    "Blobs",
    "Body",
    "BodyFailed",
    "Collector",
    "Counts",
    "DeletedTags",
    "DigestMismatch",
    "Hasher",
    "ImageConfigs",
    "Images",
    "InvalidSettings",
    "Lifetimes",
    "ManifestIncomplete",
    "ManifestReferenced",
    "ManifestUnknown",
    "Manifests",
    "Migration",
    "MigrationFailed",
    "Move",
    "NamespaceUnknown",
    "Origin",
    "Progress",
    "Promotion",
    "Pulls",
    "Referrer",
    "RegistryError",
    "Repositories",
    "Repository",
    "RepositoryExists",
    "RepositorySigned",
    "RepositoryUnknown",
    "Search",
    "Settings",
    "StoredManifest",
    "Sweeper",
    "Swept",
    "TagImmutable",
    "TagOfCache",
    "TagSigned",
    "TooManyManifests",
    "Upload",
    "UploadOccupied",
    "UploadOutOfOrder",
    "UploadUnknown",
    "Uploads",
    "Usage",
    "VisibilityInvalid",
    "immutable_pattern",
    "read_patterns",
    "show_again",
    "show_signed",
    "step",
]
