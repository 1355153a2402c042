"""
Enforcement: pulls only of what is signed, by whom it has to be.

`Enforcement` keeps the policies and answers each pull; the rules alone are in `dtr.enforcement.rules`.
"""

from __future__ import annotations

from dtr.enforcement.enforcement import Enforcement, JudgedTag
from dtr.enforcement.errors import (
    EnforcementError,
    EnforcementExceptionUnknown,
    EnforcementPolicyInvalid,
    EnforcementPolicyUnknown,
    PullRefused,
)
from dtr.enforcement.rules import REGISTRY, Objection, Policy, PolicyException, Scope, Team, Verdict

__all__ = [
    "REGISTRY",
    "Enforcement",
    "EnforcementError",
    "EnforcementExceptionUnknown",
    "EnforcementPolicyInvalid",
    "EnforcementPolicyUnknown",
    "JudgedTag",
    "Objection",
    "Policy",
    "PolicyException",
    "PullRefused",
    "Scope",
    "Team",
    "Verdict",
]
