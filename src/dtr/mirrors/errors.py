"""What mirrors refuse, and what goes wrong in a transfer."""

from __future__ import annotations


class MirrorError(Exception):
    """Base of this package's errors."""


class TransferFailed(MirrorError):
    """An image cannot be transferred as it is; to try again helps only when one side has changed."""


class BlobShort(MirrorError):
    """The bytes of a blob ended before its size; what came is kept."""
