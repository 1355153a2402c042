"""
Storage: bytes by key.

The interface is `Driver`. Each kind of storage fulfils it, and so does `Storages`: several of them, by name.
"""

from __future__ import annotations

from importlib import import_module
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
from dtr.storage.storages import Redirect, Storages

if TYPE_CHECKING:
    from dtr.storage.azure import Azure, AzureSettings
    from dtr.storage.s3 import S3, S3Settings

__all__ = [
    "S3",
    "AccessDenied",
    "Azure",
    "AzureSettings",
    "Driver",
    "FileSystem",
    "Interrupted",
    "LocalFiles",
    "Memory",
    "ObjectMissing",
    "Observed",
    "Part",
    "Redirect",
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


_LATER = {"S3": "s3", "S3Settings": "s3", "Azure": "azure", "AzureSettings": "azure"}
"""In which modules the drivers are whose libraries take longer to load than all the others together."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"dtr.storage.{_LATER[name]}"), name)
    raise AttributeError(name)
