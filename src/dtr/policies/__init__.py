"""
Policies: what is to happen with tags by itself.

`rules` is the language in which they say which tags they mean, `Pruning` the tags that go, `Promotions`
those that get a name elsewhere.
"""

from __future__ import annotations

from dtr.policies.errors import PolicyError, PolicyInvalid, PolicyUnknown, PromotionPolicyUnknown
from dtr.policies.promotion import Outcome, PromotionPolicy, Promotions
from dtr.policies.pruning import Judged, Pruning, PruningPolicy
from dtr.policies.rules import FIELDS, parse_rules

__all__ = [
    "FIELDS",
    "Judged",
    "Outcome",
    "PolicyError",
    "PolicyInvalid",
    "PolicyUnknown",
    "PromotionPolicy",
    "PromotionPolicyUnknown",
    "Promotions",
    "Pruning",
    "PruningPolicy",
    "parse_rules",
]
