"""Rules as rows of a form and as sentences: nothing is lost on the way to a form and back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dtr.http.api.policies import JudgedRecord, rule_records
from dtr.http.ui import rules
from dtr.http.ui.problems import Problems
from dtr.http.ui.words import LANGUAGES, words_of
from dtr.policies import FIELDS, parse_rules
from dtr.policies.rules import TagFacts, decide

NOW = 1_800_000_000_000
VALUES = {
    "name": st.sampled_from(["1.", "dev-", "latest", "<b>&amp;</b>"]),
    "names": st.sampled_from(["MIT", "stage=production", "linux/amd64"]),
    "number": st.integers(0, 10**9 - 1).map(str),
    "size": st.sampled_from(["0", "1", "1000", "1500000", "2000000000"]),
    "moment": st.sampled_from(["2020-01-01T00:00:00+00:00", "2027-01-15T08:00:01+00:00"]),
    "age": st.sampled_from(["1s", "90s", "1h30m", "720h", "168h"]),
    "truth": st.sampled_from(["true", "false"]),
}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(FIELDS)))
    operator = draw(st.sampled_from(FIELDS[name]))
    value = VALUES[rules.FIELDS[name][0]]
    values = draw(st.lists(value, min_size=1, max_size=7 if operator in rules.LISTS else 1, unique=True))
    return {"field": name, "operator": operator, "values": values}


documents = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.builds(lambda found: {"any": found}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda found: {"all": found}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda found: {"not": found}, inner),
    ),
    max_leaves=6,
)
tags = st.builds(
    TagFacts,
    name=st.sampled_from(["1.0", "dev-1", "latest"]),
    updated_at=st.integers(0, 2_000_000).map(lambda ago: NOW - ago * 1000),
    last_pulled_at=st.none() | st.integers(0, 2_000_000).map(lambda ago: NOW - ago * 1000),
    size=st.sampled_from([0, 1, 1000, 1_500_000]),
    platforms=st.sampled_from([frozenset[str](), frozenset({"linux/amd64"})]),
    labels=st.sampled_from([{}, {"stage": "production"}]),
    is_signed=st.sampled_from([True, False, None]),
    signed_by=st.sampled_from([frozenset[str](), frozenset({"MIT"})]),
    more_may_sign=st.booleans(),
)


def fields_of(rows: list[rules.Item], place: str = "rules") -> dict[str, str]:
    """What a browser would send of them."""
    found: dict[str, str] = {}
    for number, item in enumerate(rows):
        here = f"{place}.{number}"
        if isinstance(item, rules.Group):
            found[f"{here}.group"] = item.kind
            found.update(fields_of(item.rows, here))
        else:
            found |= {f"{here}.field": item.field, f"{here}.operator": item.operator, f"{here}.value": item.value}
            found |= {f"{here}.unit": item.unit} if item.unit else {}
    return found


@given(st.lists(documents, max_size=3), st.lists(tags, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_rules_that_went_through_a_form_mean_the_same(given_rules: list[Any], some: list[TagFacts]):
    parsed = parse_rules(given_rules)
    rows = rules.rows_of(rule_records(parsed))
    problems = Problems()
    rules.check(rows, problems, words_of("en"))
    assert not problems
    assert rules.read_rows(fields_of(rows)) == rows
    back = parse_rules(rules.documents_of(rows))
    for tag in some:
        before, after = decide(parsed, tag, NOW), decide(back, tag, NOW)
        assert (before.answer, before.decided_by) == (after.answer, after.decided_by)


@given(st.lists(documents, min_size=1, max_size=3), st.sampled_from(sorted(LANGUAGES)))
@settings(max_examples=150, deadline=None)
def test_every_rule_is_a_sentence_and_what_is_foreign_in_it_is_no_html(given_rules: list[Any], language: str):
    words = words_of(language)
    rows = rules.rows_of(rule_records(parse_rules(given_rules)))
    sentences = rules.sentences(rows, words)
    assert len(sentences) == len(rows)
    assert all(sentences)
    for one in (*sentences, rules.joined(rows, words)):
        assert "{" not in one
        assert "<b>" not in one


def judged(document: Any, tag: TagFacts, found: list[str] | None = None) -> str:
    parsed = parse_rules([document])
    decision = decide(parsed, tag, NOW)
    record = JudgedRecord(
        name=tag.name,
        digest="",
        answer=decision.answer.value,
        decided_by=decision.decided_by,
        waits_for=decision.waits_for,
        found=list(parsed[0].found_in(tag)) if found is None else found,
    )
    return rules.reason(rules.rows_of(rule_records(parsed)), record, words_of("en")).striptags()


def rule(field: str, operator: str, *values: str) -> dict[str, Any]:
    return {"field": field, "operator": operator, "values": list(values)}


TAG = TagFacts(name="debug", updated_at=NOW, size=5_000_000, labels={"stage": "test"})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (rule("tag", "sw", "2."), "The tag name does not start with 2."),
        ({"not": rule("tag", "sw", "de")}, "The tag name starts with de"),
        (rule("tag", "oo", "a", "b", "c"), "The tag name is not one of a, b or c"),
        (rule("signed", "eq", "true"), "It is not signed"),
        (rule("size", "lt", "1000"), "Here 5 MB. Rule: the size is less than 1 kB"),
        (rule("label", "eq", "stage=production"), "Here stage=test. Rule: a label is stage=production"),
        (rule("platform", "eq", "linux/arm64"), "Not so: a platform is linux/arm64"),
        (rule("vulnerability_critical", "eq", "0"), "Not scanned yet: decided after the scan."),
        (
            {"any": [rule("tag", "eq", "a"), rule("platform", "sw", "linux/")]},
            "Not so: (the tag name is a or a platform starts with linux/)",
        ),
        (rule("tag", "c", "debug"), "All rules hold."),
    ],
)
def test_the_reason_is_said(document: Any, said: str):
    assert judged(document, TAG) == said


@pytest.mark.parametrize(("operator", "said"), [("bf", "longer ago than"), ("af", "within the last")])
def test_how_long_ago_it_was_is_said(operator: str, said: str):
    pulled = replace(TAG, updated_at=0, last_pulled_at=NOW - 700_000_000 * (1 if operator == "bf" else 9))
    reason = judged(rule("last_pulled_at_duration", operator, "336h"), pulled)
    assert re.fullmatch(rf"It was .+\. Rule: the last pull is {said} 2 weeks", reason)


def test_long_lists_are_cut_in_sentences():
    rows = rules.rows_of(rule_records(parse_rules([rule("tag", "oo", *(f"v{number}" for number in range(900)))])))
    assert (
        rules.joined(rows, words_of("en")).striptags() == "the tag name is one of v0, v1, v2, v3, v4 and 895 more"
    )


@pytest.mark.parametrize(
    ("action", "after"),
    [
        ("add:", [0, [1, 2], "new"]),
        ("add:1", [0, [1, 2, "new"]]),
        ("remove:0", [[1, 2]]),
        ("remove:1.0", [0, [2]]),
        ("remove:1", [0]),
        ("remove:7", [0, [1, 2]]),
        ("remove:", [0, [1, 2]]),
        ("add:0", [0, [1, 2]]),  # that is no group
        ("add:1.9", [0, [1, 2]]),
        ("remove:x.y", [0, [1, 2]]),
    ],
)
def test_buttons_change_rows(action: str, after: list[Any]):
    rows: list[rules.Item] = [
        rules.Row(value="0"),
        rules.Group("none", [rules.Row(value="1"), rules.Row(value="2")]),
    ]

    def shape(items: list[rules.Item]) -> list[Any]:
        return [
            shape(one.rows) if isinstance(one, rules.Group) else int(one.value) if one.value else "new"
            for one in items
        ]

    assert rules.change(rows, action)
    assert shape(rows) == after


def test_there_are_as_many_rows_as_a_policy_can_have():
    rows: list[rules.Item] = []
    for _ in range(200):
        rules.change(rows, "add:")
    assert rules.count(rows) == rules.MOST_ROWS
    assert not rules.change(rows, "save")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"rules.0.field": "tag", "rules.0.operator": "sw", "rules.0.value": " "}, "rules.0.value"),
        ({"rules.0.field": "size", "rules.0.operator": "gt", "rules.0.value": "-1"}, "rules.0.value"),
        ({"rules.0.field": "size", "rules.0.operator": "gt", "rules.0.value": "1e9"}, "rules.0.value"),
        ({"rules.0.field": "size", "rules.0.operator": "gt", "rules.0.value": "٣"}, "rules.0.value"),
        ({"rules.0.field": "updated_at", "rules.0.operator": "bf", "rules.0.value": "tomorrow"}, "rules.0.value"),
        ({"rules.3.group": "any"}, "rules.0.group"),
        ({"rules.0.group": "none", "rules.0.5.field": "tag"}, "rules.0.0.value"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(fields: dict[str, str], place: str):
    problems = Problems()
    rules.check(rules.read_rows(fields), problems, words_of("en"))
    assert list(problems.fields) == [place]


def test_what_no_form_sends_becomes_a_row_that_can_be_mended():
    rows = rules.read_rows(
        {
            "rules.0.field": "no such field",
            "rules.0.operator": "no such",
            "rules.1.field": "size",
            "rules.1.operator": "sw",
            "rules.1.unit": "parsec",
            "rules.x.field": "tag",
            "rules.99999999999999999999.field": "signed",
        }
    )
    assert json.dumps([(one.field, one.operator, one.unit) for one in rows if isinstance(one, rules.Row)]) == (
        '[["tag", "eq", ""], ["size", "lte", "MB"], ["signed", "eq", ""]]'
    )
