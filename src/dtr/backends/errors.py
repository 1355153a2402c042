"""What goes wrong with the storages of an installation."""

from __future__ import annotations


class BackendError(Exception):
    """Something is wrong with a storage of the installation; the message says what, and has no secret in it."""


class BackendUnknown(BackendError):
    """There is no such storage."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no storage called {name!r}")
        self.name = name


class BackendRefused(BackendError):
    """A storage cannot be described so, or does not work: nothing was changed."""


class BackendInUse(BackendError):
    """What is in the storage, or is meant to go there, forbids this change."""


class BackendChanged(BackendError):
    """Somebody else changed the storage, made it or took it away, since who changes it now looked at it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the storage {name} was changed meanwhile")
        self.name = name


class NamespaceUnknown(BackendError):
    """There is no account with this id."""


class PlaceChanged(BackendError):
    """The settings describe another place than the one where the blobs are: serving it would lose them."""
