"""
Policies: what is to happen with tags by itself.

`rules` is the language in which they say which tags they mean, `TagReader` reads what rules ask about. `Pruning`
are the tags that go, `Promotions` those that get a name elsewhere. `pushes` is what all policies that see pushes
share.
"""

from __future__ import annotations

from dtr.policies.errors import PolicyError, PolicyInvalid, PolicyUnknown, PromotionPolicyUnknown
from dtr.policies.promotion import JudgedPromotion, Outcome, PromotionPolicy, Promotions
from dtr.policies.pruning import Judged, Pruned, Pruning, PruningPolicy, PruningResult
from dtr.policies.pushes import Push, Pushes, Seen, Waiting, claim, forget_policy, lock_sources, tell
from dtr.policies.rules import FIELDS, Answer, Findings, decide, decide_once, found_in, parse_rules, write_rules
from dtr.policies.tags import TagReader
from dtr.policies.templates import name_of

__all__ = [
    "FIELDS",
    "Answer",
    "Findings",
    "Judged",
    "JudgedPromotion",
    "Outcome",
    "PolicyError",
    "PolicyInvalid",
    "PolicyUnknown",
    "PromotionPolicy",
    "PromotionPolicyUnknown",
    "Promotions",
    "Pruned",
    "Pruning",
    "PruningPolicy",
    "PruningResult",
    "Push",
    "Pushes",
    "Seen",
    "TagReader",
    "Waiting",
    "claim",
    "decide",
    "decide_once",
    "forget_policy",
    "found_in",
    "lock_sources",
    "name_of",
    "parse_rules",
    "tell",
    "write_rules",
]
