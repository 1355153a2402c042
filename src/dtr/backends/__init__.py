"""
The storages of an installation: which there are, where new blobs go, and following changes of that.

`Backends` keeps them in the database, and this process's `dtr.storage.Storages` as the database says.
"""

from __future__ import annotations

from dtr.backends.backends import Assignment, Backend, Backends, Definition, Own, Trial, Usage
from dtr.backends.errors import (
    BackendChanged,
    BackendError,
    BackendInUse,
    BackendRefused,
    BackendUnknown,
    NamespaceUnknown,
    PlaceChanged,
)
from dtr.storage.definitions import DEFAULT

__all__ = [
    "DEFAULT",
    "Assignment",
    "Backend",
    "BackendChanged",
    "BackendError",
    "BackendInUse",
    "BackendRefused",
    "BackendUnknown",
    "Backends",
    "Definition",
    "NamespaceUnknown",
    "Own",
    "PlaceChanged",
    "Trial",
    "Usage",
]
