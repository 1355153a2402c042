"""
What storage can answer instead of bytes.

Drivers raise nothing else for what happens outside the program: errors of the operating system and of client
libraries are translated at the driver's border and kept as ``__cause__``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtr.storage.driver import UploadState

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class StorageError(Exception):
    """Storage could not do what was asked; the message says why."""


class ObjectMissing(StorageError):
    """There is no object, or no unfinished upload of that length, at `location`."""

    def __init__(self, location: str) -> None:
        super().__init__(f"nothing is stored at {location}")
        self.location = location


class StorageFull(StorageError):
    """No room, or no quota, is left."""


class StorageUnavailable(StorageError):
    """Storage does not answer, or too late, or that it is broken; a later attempt may succeed."""


class AccessDenied(StorageError):
    """Storage refuses our credentials, or its files are not ours to use."""


class UploadBusy(StorageError):
    """Another request is writing to this upload."""

    def __init__(self, location: str) -> None:
        super().__init__(f"another request writes to {location}")
        self.location = location


class Interrupted(StorageError):
    """The body given to `write` failed (``__cause__``); `state` is how far the upload came."""

    def __init__(self, state: UploadState) -> None:
        super().__init__(f"the body ended early, {state.offset} bytes of {state.location} are kept")
        self.state = state


def of_system(error: OSError, reason: str) -> StorageError:
    """What an error of the operating system means for storage."""
    if error.errno in _FULL:
        return StorageFull(reason)
    if error.errno in _DENIED:
        return AccessDenied(reason)
    return StorageUnavailable(reason)
