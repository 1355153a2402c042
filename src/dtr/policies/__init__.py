"""
Policies: what is to happen with tags by itself.

`rules` is the language in which they say which tags they mean, `Pruning` the tags that go.
"""

from __future__ import annotations

from dtr.policies.errors import PolicyError, PolicyInvalid, PolicyUnknown
from dtr.policies.pruning import Judged, Pruning, PruningPolicy
from dtr.policies.rules import FIELDS, parse_rules

__all__ = [
    "FIELDS",
    "Judged",
    "PolicyError",
    "PolicyInvalid",
    "PolicyUnknown",
    "Pruning",
    "PruningPolicy",
    "parse_rules",
]
