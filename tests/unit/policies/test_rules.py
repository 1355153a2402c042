"""The rules of policies, against the words of their documentation and the laws of their logic."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dtr.policies.rules import (
    FIELDS,
    Answer,
    Findings,
    RuleInvalid,
    TagFacts,
    asks_for,
    decide,
    decide_once,
    found_in,
    needs_scan,
    parse_rules,
    write_rules,
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
    signed_by=frozenset({"acme/release"}),
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
    rule("signed_by", "eq", "acme/release"),
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
    rule("signed_by", "eq", "release"),
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


def test_what_was_never_pulled_counts_from_its_push():
    fresh = replace(TAG, last_pulled_at=NOW - 900 * HOUR)  # and pushed twelve hours ago
    for tag in (UNTOUCHED, fresh):
        assert answer(rule("last_pulled_at_duration", "bf", "11h"), tag) is Answer.YES
        assert answer(rule("last_pulled_at_duration", "bf", "13h"), tag) is Answer.NO
        assert answer(rule("last_pulled_at_duration", "af", "13h"), tag) is Answer.NO
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
tags = st.builds(
    replace,
    st.sampled_from([TAG, UNTOUCHED]),
    findings=st.sampled_from([None, TAG.findings, Findings()]),
    is_signed=st.sampled_from([None, False, True]),
    signed_by=st.sampled_from([frozenset(), TAG.signed_by]),
)


@given(st.lists(documents, max_size=3))
@settings(max_examples=300, deadline=None)
def test_what_is_read_is_written_as_it_was(written: list[dict[str, Any]]):
    rules = parse_rules(written)
    assert [one.document for one in rules] == written
    assert parse_rules(json.loads(write_rules(rules))) == rules


@given(st.lists(documents, min_size=1, max_size=3), tags)
@settings(max_examples=300, deadline=None)
def test_not_any_is_all_not(inner: list[dict[str, Any]], tag: TagFacts):
    assert answer({"not": {"any": inner}}, tag) is answer({"all": [{"not": one} for one in inner]}, tag)
    assert answer({"not": {"not": inner[0]}}, tag) is answer(inner[0], tag)
    assert answer({"all": inner}, tag) is decide(parse_rules(inner), tag, NOW).answer


@given(st.lists(documents, min_size=1, max_size=3), tags, st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_the_order_of_rules_and_their_repetition_mean_nothing(inner: list[Any], tag: TagFacts, random: Any):
    other = [*inner, random.choice(inner)]
    random.shuffle(other)
    for kind in ("any", "all"):
        assert answer({kind: inner}, tag) is answer({kind: other}, tag)
    assert answer({"any": [{"all": inner}, *inner]}, tag) is answer({"any": inner}, tag)  # absorption


@given(documents, tags)
@settings(max_examples=300, deadline=None)
def test_what_becomes_known_never_changes_an_answer_that_did_not_wait(document: dict[str, Any], tag: TagFacts):
    before = answer(document, tag)
    findings = [TAG.findings, Findings()] if tag.findings is None else [tag.findings]
    signed = [True, False] if tag.is_signed is None else [tag.is_signed]
    for found, is_signed in itertools.product(findings, signed):
        after = answer(document, replace(tag, findings=found, is_signed=is_signed))
        assert after is not Answer.WAITS
        assert before in {Answer.WAITS, after}


@given(st.lists(documents, min_size=1, max_size=3), tags)
@settings(max_examples=300, deadline=None)
def test_who_waits_says_for_what_is_not_known(inner: list[dict[str, Any]], tag: TagFacts):
    decision = decide(parse_rules(inner), tag, NOW)
    unknown = {"scan": tag.findings is None, "signature": tag.is_signed is None, "": True}
    assert (decision.answer is Answer.WAITS) is bool(decision.waits_for)
    assert unknown[decision.waits_for]


@given(st.lists(documents, min_size=1, max_size=3), tags)
@settings(max_examples=300, deadline=None)
def test_once_is_a_no_only_where_no_signature_would_help(inner: list[dict[str, Any]], tag: TagFacts):
    rules, now = parse_rules(inner), decide(parse_rules(inner), tag, NOW)
    once = decide_once(rules, tag, NOW)
    if once.answer is not now.answer:
        assert (now.answer, once.answer) == (Answer.NO, Answer.WAITS)
        assert asks_for(rules, "signed_by") or (asks_for(rules, "signed") and not tag.is_signed)
    if once.answer is Answer.NO and tag.findings is not None:
        for more in (frozenset(), {"release"}, {"acme/release"}, {"release", "acme/release"}):
            signed = replace(tag, is_signed=True, signed_by=tag.signed_by | more)
            assert decide(rules, signed, NOW).answer is Answer.NO


def test_a_signature_is_waited_for_where_it_decides():
    unsigned = replace(TAG, is_signed=False)
    wanted, unwanted = parse_rules([rule("signed", "eq", "true")]), parse_rules([rule("signed", "eq", "false")])
    once = decide_once(wanted, unsigned, NOW)
    assert (once.answer, once.decided_by, once.waits_for) == (Answer.WAITS, 0, "signature")
    assert decide(wanted, unsigned, NOW).answer is Answer.NO
    assert decide_once(unwanted, unsigned, NOW).answer is Answer.YES
    other = parse_rules([rule("tag", "eq", "other"), rule("signed", "eq", "true")])
    assert decide_once(other, unsigned, NOW).answer is Answer.NO  # a signature would not help
    assert (asks_for(other, "signed"), asks_for(other, "size")) == (True, False)
    assert asks_for(parse_rules([{"not": rule("size", "gt", "1")}]), "size")


def test_whose_signature_it_is_is_waited_for_as_long_as_more_may_sign():
    by_ada = replace(TAG, signed_by=frozenset({"acme/ada"}))
    for wanted, once, always in (
        (rule("signed_by", "eq", "acme/ada"), Answer.YES, Answer.YES),
        (rule("signed_by", "oo", "acme/eve", "acme/ada"), Answer.YES, Answer.YES),
        (rule("signed_by", "sw", "acme/"), Answer.YES, Answer.YES),
        (rule("signed_by", "eq", "acme/eve"), Answer.WAITS, Answer.NO),
        (rule("signed_by", "noo", "acme/eve"), Answer.YES, Answer.YES),
        (rule("signed_by", "noo", "acme/ada"), Answer.NO, Answer.NO),  # nothing takes that away
        ({"not": rule("signed_by", "eq", "acme/ada")}, Answer.NO, Answer.NO),
        ({"all": [rule("signed_by", "eq", "acme/ada"), rule("signed_by", "eq", "eve")]}, Answer.WAITS, Answer.NO),
    ):
        rules = parse_rules([wanted])
        assert (decide_once(rules, by_ada, NOW).answer, decide(rules, by_ada, NOW).answer) == (once, always), (
            wanted
        )
    waiting = decide_once(parse_rules([rule("signed_by", "eq", "acme/eve")]), by_ada, NOW)
    assert (waiting.decided_by, waiting.waits_for) == (0, "signature")
    assert asks_for(parse_rules([rule("signed_by", "eq", "x")]), "signed", "signed_by")


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


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (rule("tag", "eq", "x"), ["1.4-alpine"]),
        (rule("vulnerability_critical", "eq", "0"), ["1"]),
        (rule("vulnerability_all", "lt", "6"), ["6"]),
        (rule("license.name", "oo", "Apache-2.0"), ["GPL-3.0", "MIT"]),
        (rule("size", "gt", "9999"), ["5000"]),
        (rule("platform", "eq", "windows/amd64"), ["linux/amd64", "linux/arm/v7"]),
        (rule("label", "eq", "stage=test"), ["stage=production"]),
        (rule("signed", "eq", "false"), ["true"]),
        (rule("signed_by", "eq", "acme/ci"), ["acme/release"]),
        (rule("updated_at", "bf", "2020-01-01T00:00:00Z"), ["2027-01-14T20:00:00+00:00"]),
        (rule("last_pulled_at_duration", "bf", "720h"), ["2027-01-15T06:00:00+00:00"]),
        (rule("last_pulled_at", "af", "2030-01-01T00:00:00Z"), ["2027-01-15T06:00:00+00:00"]),
        ({"not": rule("tag", "sw", "1.")}, ["1.4-alpine"]),
        ({"any": [rule("tag", "eq", "a"), rule("tag", "eq", "b")]}, []),
    ],
)
def test_what_decided_is_shown(document: Any, found: list[str]):
    rules = parse_rules([rule("tag", "c", "alpine"), document])
    decision = decide(rules, TAG, NOW)
    assert (decision.answer, decision.decided_by) == (Answer.NO, 1)
    assert list(found_in(rules, decision, TAG)) == found


def test_what_is_not_known_or_does_not_matter_is_not_shown():
    rules = parse_rules([rule("vulnerability_all", "lt", "6")])
    assert found_in(rules, decide(rules, UNKNOWN, NOW), UNKNOWN) == ()
    rules = parse_rules([rule("tag", "c", "alpine")])
    assert found_in(rules, decide(rules, TAG, NOW), TAG) == ()
    rules = parse_rules([rule("last_pulled_at", "af", "2020-01-01T00:00:00Z")])
    assert found_in(rules, decide(rules, UNTOUCHED, NOW), UNTOUCHED) == ()
    rules = parse_rules([rule("last_pulled_at_duration", "bf", "720h")])  # of what nobody pulled the push counts
    assert found_in(rules, decide(rules, UNTOUCHED, NOW), UNTOUCHED) == ("2027-01-14T20:00:00+00:00",)


def test_little_of_much_is_shown():
    much = replace(TAG, labels={f"{number:02}": "x" * 500 for number in range(50)})
    rules = parse_rules([rule("label", "eq", "none")])
    shown = found_in(rules, decide(rules, much, NOW), much)
    assert [(one[:3], len(one)) for one in shown] == [(f"{number:02}=", 200) for number in range(10)]
