"""
Storage: bytes by key.

The interface is `Driver`. Each kind of storage fulfils it, and so does `Storages`: several of them, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from dtr.storage.observed import Observed
from dtr.storage.storages import Storages

if TYPE_CHECKING:
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
    "Observed",
    "Part",
    "S3Settings",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "Storages",
    "Stored",
    "UploadBusy",
    "UploadState",
    "new_location",
]


def __getattr__(name: str) -> Any:
    # Its library takes longer to load than all the others together.
    if name in {"S3", "S3Settings"}:
        from dtr.storage import s3

        return getattr(s3, name)
    raise AttributeError(name)
