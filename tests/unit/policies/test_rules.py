"""The rules of policies, against the words of their documentation and the laws of their logic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtr.policies.rules import (
    FIELDS,
    Answer,
    Findings,
    RuleInvalid,
    TagFacts,
    decide,
    needs_scan,
    parse_rules,
)

HOUR = 3_600_000
NOW = 1_800_000_000_000
TAG = TagFacts(
    name="1.4-alpine",
    updated_at=NOW - 12 * HOUR,
    last_pulled_at=NOW - 2 * HOUR,
    size=5_000,
    platforms=frozenset({"linux/amd64", "linux/arm/v7"}),
    labels={"stage": "production"},
    is_signed=True,
    findings=Findings(1, 2, 3, frozenset({"MIT", "GPL-3.0"}), frozenset({"openssl", "zlib"})),
)
UNKNOWN = replace(TAG, findings=None)
UNTOUCHED = replace(TAG, last_pulled_at=None)


def rule(field: str, operator: str, *values: str) -> dict[str, Any]:
    return {"field": field, "operator": operator, "values": list(values)}


def answer(document: Any, tag: TagFacts = TAG) -> Answer:
    return decide(parse_rules([document]), tag, NOW).answer


# --- fields and operators -------------------------------------------------------------------------------------

YES = [
    rule("tag", "eq", "1.4-alpine"),
    rule("tag", "sw", "1."),
    rule("tag", "ew", "alpine"),
    rule("tag", "c", "4-al"),
    rule("tag", "oo", "latest", "1.4-alpine"),
    rule("tag", "noo", "latest", "1.4"),
    rule("component.name", "oo", "openssl", "bash"),
    rule("component.name", "noo", "bash"),
    rule("component.name", "sw", "open"),
    rule("license.name", "oo", "GPL-3.0"),
    rule("license.name", "noo", "Apache-2.0"),
    rule("vulnerability_all", "eq", "6"),
    rule("vulnerability_critical", "gte", "1"),
    rule("vulnerability_critical", "lt", "2"),
    rule("vulnerability_major", "neq", "0"),
    rule("vulnerability_minor", "lte", "3"),
    rule("vulnerability_minor", "gt", "2"),
    rule("updated_at", "bf", "2030-01-01T00:00:00Z"),
    rule("updated_at", "af", "2020-01-01"),
    rule("updated_at_duration", "bf", "11h"),
    rule("updated_at_duration", "af", "13h"),
    rule("last_pulled_at_duration", "af", "3h"),
    rule("last_pulled_at", "bf", "2030-01-01T00:00:00+02:00"),
    rule("size", "gte", "5000"),
    rule("platform", "oo", "linux/arm/v7"),
    rule("platform", "sw", "linux/"),
    rule("platform", "noo", "windows/amd64"),
    rule("label", "eq", "stage=production"),
    rule("label", "sw", "stage="),
    rule("signed", "eq", "true"),
]
NO = [
    rule("tag", "eq", "1.4"),
    rule("tag", "sw", "alpine"),
    rule("tag", "ew", "1.4"),
    rule("tag", "c", "debian"),
    rule("tag", "oo", "latest"),
    rule("tag", "noo", "1.4-alpine"),
    rule("component.name", "noo", "openssl"),
    rule("license.name", "oo", "Apache-2.0"),
    rule("vulnerability_critical", "eq", "0"),
    rule("vulnerability_all", "gt", "6"),
    rule("updated_at", "af", "2030-01-01T00:00:00Z"),
    rule("updated_at_duration", "bf", "13h"),
    rule("last_pulled_at_duration", "bf", "3h"),
    rule("size", "lt", "5000"),
    rule("platform", "oo", "windows/amd64"),
    rule("label", "eq", "stage=test"),
    rule("signed", "eq", "false"),
]


@pytest.mark.parametrize("document", YES, ids=str)
def test_it_holds(document: dict[str, Any]):
    assert answer(document) is Answer.YES


@pytest.mark.parametrize("document", NO, ids=str)
def test_it_does_not_hold(document: dict[str, Any]):
    assert answer(document) is Answer.NO


def test_every_operator_of_every_field_is_tried():
    tried = {(one["field"], one["operator"]) for one in (*YES, *NO)}
    # Those of texts, and of numbers, are the same for all.
    texts = {operator for field, operator in tried if field == "tag"}
    numbers = {operator for field, operator in tried if field.startswith("vulnerability")}
    assert texts == set(FIELDS["tag"])
    assert numbers == set(FIELDS["size"])
    assert {field for field, _ in tried} == set(FIELDS)


def test_what_was_never_pulled_was_pulled_before_every_moment():
    assert answer(rule("last_pulled_at_duration", "bf", "720h"), UNTOUCHED) is Answer.YES
    assert answer(rule("last_pulled_at", "af", "2000-01-01"), UNTOUCHED) is Answer.NO


def test_what_only_a_scan_knows_waits_for_it():
    for document in (rule("vulnerability_critical", "eq", "0"), rule("license.name", "noo", "GPL-3.0")):
        assert answer(document, UNKNOWN) is Answer.WAITS
        assert needs_scan(parse_rules([{"not": document}]))
    assert not needs_scan(parse_rules([rule("tag", "eq", "latest")]))


# --- putting together -----------------------------------------------------------------------------------------


def test_a_list_holds_when_all_do_and_says_who_decided():
    yes, no, waits = (
        rule("tag", "c", "alpine"),
        rule("signed", "eq", "false"),
        rule("vulnerability_all", "eq", "0"),
    )
    cases = {
        (): (Answer.YES, None),
        (0,): (Answer.YES, None),
        (0, 1): (Answer.NO, 1),
        (2, 0): (Answer.WAITS, 0),
        (2, 1): (Answer.NO, 1),  # a scan would change nothing
        (0, 2, 2): (Answer.WAITS, 1),
    }
    for chosen, (expected, by) in cases.items():
        decision = decide(parse_rules([(yes, no, waits)[number] for number in chosen]), UNKNOWN, NOW)
        assert (decision.answer, decision.decided_by) == (expected, by), chosen


simple = st.sampled_from([*YES, *NO])


def some(rules: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(rules, min_size=1, max_size=3)


documents = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda one: {"not": one}, inner),
        st.builds(lambda kind, many: {kind: many}, st.sampled_from(["any", "all"]), some(inner)),
    ),
    max_leaves=8,
)  # fmt: skip
tags = st.sampled_from([TAG, UNKNOWN, UNTOUCHED])


@given(documents)
@settings(max_examples=300, deadline=None)
def test_what_is_read_is_written_as_it_was(document: dict[str, Any]):
    (parsed,) = parse_rules([document])
    assert parsed.document == document


@given(st.lists(documents, min_size=1, max_size=3), tags)
@settings(max_examples=300, deadline=None)
def test_not_any_is_all_not(inner: list[dict[str, Any]], tag: TagFacts):
    assert answer({"not": {"any": inner}}, tag) is answer({"all": [{"not": one} for one in inner]}, tag)
    assert answer({"not": {"not": inner[0]}}, tag) is answer(inner[0], tag)
    assert answer({"all": inner}, tag) is decide(parse_rules(inner), tag, NOW).answer


@given(documents)
@settings(max_examples=300, deadline=None)
def test_a_scan_never_changes_an_answer_that_did_not_wait(document: dict[str, Any]):
    before = answer(document, UNKNOWN)
    for findings in (TAG.findings, Findings()):
        after = answer(document, replace(TAG, findings=findings))
        assert after is not Answer.WAITS
        assert before in {Answer.WAITS, after}


# --- what is no rule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({}, "rules are a list"),
        (["tag"], "rules[0] is an object"),
        ([rule("colour", "eq", "red")], "rules[0].field"),
        ([rule("tag", "gt", "1")], "rules[0].operator"),
        ([rule("tag", "eq")], "rules[0].values"),
        ([rule("tag", "eq", "a", "b")], "rules[0].values"),
        ([{"field": "tag", "operator": "eq", "values": [1]}], "rules[0].values"),
        ([rule("size", "gt", "many")], "rules[0].values"),
        ([rule("size", "gt", "-1")], "rules[0].values"),
        ([rule("updated_at", "bf", "yesterday")], "rules[0].values"),
        ([rule("updated_at_duration", "bf", "7d")], "rules[0].values"),
        ([rule("signed", "eq", "maybe")], "rules[0].values"),
        ([{"any": []}], "rules[0].any"),
        ([{"all": [{"not": rule("tag", "xx", "1")}]}], "rules[0].all[0].not.operator"),
        ([rule("tag", "eq", "x" * 1001)], "rules[0].values"),
        ([rule("tag", "eq", "x")] * 101, "100 rules"),
    ],
    ids=str,
)
def test_what_is_no_rule_is_refused_by_its_place(document: Any, place: str):
    with pytest.raises(RuleInvalid) as refused:
        parse_rules(document)
    assert place in str(refused.value)


def test_groups_have_a_depth():
    document: dict[str, Any] = rule("tag", "eq", "x")
    for _ in range(1000):
        document = {"not": document}
    with pytest.raises(RuleInvalid, match="too deep"):
        parse_rules([document])
