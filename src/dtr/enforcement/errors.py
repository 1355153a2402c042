"""What enforcement refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtr.enforcement.rules import Verdict


class EnforcementError(Exception):
    """The base of this room's errors."""


class EnforcementPolicyUnknown(EnforcementError):
    """The repository, the namespace or the registry has no policy of its own."""


class EnforcementPolicyInvalid(EnforcementError):
    """A policy or an exception cannot be like that; the text says why."""


class EnforcementExceptionUnknown(EnforcementError):
    """The policy has no such exception."""

    def __init__(self, exception: str) -> None:
        super().__init__(exception)
        self.exception = exception


class PullRefused(EnforcementError):
    """A manifest is not handed out: what policies ask for is missing. The text is for the person who pulls."""

    def __init__(self, reference: str, digest: str, verdict: Verdict) -> None:
        super().__init__(f"{reference} must not be pulled: {verdict.text}")
        self.reference = reference
        self.digest = digest
        self.verdict = verdict
