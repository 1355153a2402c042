"""What the room of content trust refuses. A rule that an update breaks is `dtr.tuf`'s to name: `RuleBroken`."""

from __future__ import annotations


class TrustError(Exception):
    """Base of this package's errors."""


class FileUnknown(TrustError):
    """The collection has no such file, or there is no such collection."""

    def __init__(self, role: str) -> None:
        super().__init__(f"there is no such file of {role}")
        self.role = role


class VersionConflict(TrustError):
    """A file has a version that is stored already, or an older one: somebody else published meanwhile."""

    def __init__(self, role: str) -> None:
        super().__init__(f"a version of {role} that is the same or newer is stored")
        self.role = role


class RepositoryGone(TrustError):
    """The repository of the collection is not there any more."""

    def __init__(self, gun: str) -> None:
        super().__init__(f"the repository of {gun} is not there")
        self.gun = gun


class CannotSign(TrustError):
    """What has to be made anew cannot be: its key is not with the signer, or the root does not allow it."""
