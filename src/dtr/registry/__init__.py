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
    RepositoryChanged,
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
from dtr.registry.pins import Pins, TooManyPins
from dtr.registry.promote import Origin, Promotion
from dtr.registry.pulls import Pulls
from dtr.registry.repositories import Repositories, Repository, Settings, immutable_pattern, read_patterns
from dtr.registry.search import Search
from dtr.registry.summaries import KINDS, Details, LatestTag, RepositoryKind, RepositoryQuery, Summaries
from dtr.registry.sweeper import ALERT_AFTER, Sweeper, Swept
from dtr.registry.totals import Total, Totals
from dtr.registry.uploads import SMALL, Body, File, Hasher, Upload, Uploads
from dtr.registry.usage import WHOLE, Counts, Usage

__all__ = [
    "ALERT_AFTER",
    "KINDS",
    "PROMOTE",
    "SMALL",
    "VERIFY",
    "WHOLE",
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
    "Details",
    "DigestMismatch",
    "File",
    "Hasher",
    "ImageConfigs",
    "Images",
    "InvalidSettings",
    "LatestTag",
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
    "Pins",
    "Progress",
    "Promotion",
    "Pulls",
    "Referrer",
    "RegistryError",
    "Repositories",
    "Repository",
    "RepositoryChanged",
    "RepositoryExists",
    "RepositoryKind",
    "RepositoryQuery",
    "RepositorySigned",
    "RepositoryUnknown",
    "Search",
    "Settings",
    "StoredManifest",
    "Summaries",
    "Sweeper",
    "Swept",
    "TagImmutable",
    "TagOfCache",
    "TagSigned",
    "TooManyManifests",
    "TooManyPins",
    "Total",
    "Totals",
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
