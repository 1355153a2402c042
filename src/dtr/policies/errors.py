"""What the policies refuse."""

from __future__ import annotations


class PolicyError(Exception):
    """Base of this package's errors."""


class PolicyUnknown(PolicyError):
    """The repository has no such policy."""


class PromotionPolicyUnknown(PolicyUnknown):
    """It has no such promotion policy."""


class PolicyInvalid(PolicyError):
    """A policy cannot be like that."""
