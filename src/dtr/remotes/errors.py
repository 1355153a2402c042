"""What goes wrong with other registries. Messages are for users; no secret is in them."""

from __future__ import annotations


class RemoteError(Exception):
    """
    Base of what a request to another registry ends with.

    `retry_after`: seconds after which the remote wants to be asked again; None: it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RemoteUnreachable(RemoteError):
    """No answer: no address that may be reached, no connection, no trust, or silence."""


class RemoteDenied(RemoteError):
    """The credentials are wrong (401), or good for less (403)."""


class RemoteUnknown(RemoteError):
    """The repository, manifest or blob is not there (404)."""


class RemoteBusy(RemoteError):
    """The remote wants to be left alone for a while (429), or cannot answer now (502, 503, 504)."""


class RemoteRefused(RemoteError):
    """The remote does not take or do that (other statuses); trying again does not help."""


class RemoteBroken(RemoteError):
    """What the remote answered is not what it has to be: a wrong digest, a wrong length, no registry at all."""


class DefinitionError(Exception):
    """Base of what is wrong with a stored remote."""


class DefinitionUnknown(DefinitionError):
    """There is no such stored remote."""


class DefinitionInvalid(DefinitionError):
    """A remote cannot be like that; the message says why."""


class DefinitionTaken(DefinitionError):
    """There is a remote of this name in the same place."""


class DefinitionInUse(DefinitionError):
    """Policies use the stored remote."""
