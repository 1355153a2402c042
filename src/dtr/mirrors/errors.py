"""What mirrors refuse, and what goes wrong in a transfer."""

from __future__ import annotations


class MirrorError(Exception):
    """Base of this package's errors."""


class MirroringPolicyUnknown(MirrorError):
    """The repository has no such mirroring policy."""


class TransferFailed(MirrorError):
    """An image cannot be transferred as it is; to try again helps only when one side has changed."""


class MirroringFailed(MirrorError):
    """
    The work of a policy failed.

    `retry_after`: seconds that the remote wants to be left alone; `is_lasting`: another attempt would fail, too.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, is_lasting: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_lasting = is_lasting


class BlobShort(MirrorError):
    """The bytes of a blob ended before its size; what came is kept."""


class UpstreamUnknown(MirrorError):
    """The repository or namespace has no upstream."""


class UpstreamInvalid(MirrorError):
    """An upstream cannot be like that; the message says why."""


class UpstreamFailed(MirrorError):
    """
    What is asked for is not here, and cannot be fetched now.

    `is_busy`: the upstream wants to be asked less. `retry_after` in seconds.
    """

    def __init__(self, reason: str, *, retry_after: int, is_busy: bool = False) -> None:
        super().__init__(f"it is not here, and cannot be fetched: {reason}")
        self.reason = reason
        self.retry_after = retry_after
        self.is_busy = is_busy
