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
from dtr.storage.storages import Redirect, Storages

if TYPE_CHECKING:
    from dtr.storage.azure import Azure, AzureSettings
    from dtr.storage.gcs import GCS, GCSSettings
    from dtr.storage.s3 import S3, S3Settings
    from dtr.storage.swift import Swift, SwiftSettings

__all__ = [
    "GCS",
    "S3",
    "AccessDenied",
    "Azure",
    "AzureSettings",
    "Driver",
    "FileSystem",
    "GCSSettings",
    "Interrupted",
    "LocalFiles",
    "Memory",
    "ObjectMissing",
    "Part",
    "Redirect",
    "S3Settings",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "Storages",
    "Stored",
    "Swift",
    "SwiftSettings",
    "UploadBusy",
    "UploadState",
    "new_location",
]


_LATER = {"Azure": "azure", "GCS": "gcs", "S3": "s3", "Swift": "swift"}
"""In which modules the drivers are, and their settings, whose libraries take long to load."""


def __getattr__(name: str) -> Any:
    driver = name.removesuffix("Settings")
    if driver in _LATER:
        return getattr(import_module(f"dtr.storage.{_LATER[driver]}"), name)
    raise AttributeError(name)
