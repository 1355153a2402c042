"""What the jobs refuse."""

from __future__ import annotations


class JobsError(Exception):
    """Base of this package's errors."""


class JobUnknown(JobsError):
    """There is no such job."""


class JobOpen(JobsError):
    """The job did not end yet."""


class CronUnknown(JobsError):
    """The action has no schedule."""


class ActionConfigUnknown(JobsError):
    """The action has no parameters of its own."""


class WorkerUnknown(JobsError):
    """There is no such worker."""


class JobInvalid(JobsError):
    """A job cannot be like that; `field` is what it cannot have."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
