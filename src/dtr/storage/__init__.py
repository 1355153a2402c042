"""Storage: bytes by key. The interface is `Driver`; `FileSystem`, `Memory` and `S3` fulfil it."""

from __future__ import annotations

from dtr.storage.driver import Driver, LocalFiles, Part, Stored, UploadState, new_location
from dtr.storage.errors import (
    AccessDenied,
    Interrupted,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UploadBusy,
)
from dtr.storage.filesystem import FileSystem
from dtr.storage.memory import Memory
from dtr.storage.s3 import S3, S3Settings

__all__ = [
    "S3",
    "AccessDenied",
    "Driver",
    "FileSystem",
    "Interrupted",
    "LocalFiles",
    "Memory",
    "ObjectMissing",
    "Part",
    "S3Settings",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "Stored",
    "UploadBusy",
    "UploadState",
    "new_location",
]
