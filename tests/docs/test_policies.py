"""The page on the rules of policies says what the code does."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from tests.docs.pages import DOCS, blocks_of, codes_in, tables_of

from dtr.policies import FIELDS, parse_rules, rules
from dtr.policies.templates import CODES, expand

PAGE = DOCS / "reference" / "policies.md"
FIELD_ROWS, OPERATOR_ROWS, GROUP_ROWS, CODE_ROWS = tables_of(PAGE)
EARLY, LATE = dt.datetime(2015, 1, 4, tzinfo=dt.UTC), dt.datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)


def test_every_field_is_there_with_its_operators() -> None:
    written = {codes_in(row[0])[0]: tuple(codes_in(row[2])) for row in FIELD_ROWS}
    assert written == FIELDS
    assert list(written) == list(FIELDS)


def test_every_operator_is_there_with_the_number_of_its_values() -> None:
    written = {codes_in(row[0])[0]: row[2] for row in OPERATOR_ROWS}
    assert written.keys() == {one for operators in FIELDS.values() for one in operators}
    assert {one for one, values in written.items() if values != "one"} == set(rules._ON_LISTS)
    assert f"1 to {rules._MOST_VALUES}" in written["oo"]


def test_the_groups_and_bounds_are_those_of_the_code() -> None:
    rule = {"field": "tag", "operator": "eq", "values": ["x"]}
    for row in GROUP_ROWS:
        (group,) = codes_in(row[0])
        parse_rules([{group: rule if group == "not" else [rule]}])
    text = " ".join(PAGE.read_text().split())
    assert (
        f"at most {rules._MOST_RULES} rules, with those in groups, which are at most {rules._DEEPEST} deep" in text
    )
    assert f"at most {rules._LONGEST_VALUE} characters" in text


def test_the_examples_are_rules() -> None:
    examples = [json.loads(block.text) for block in blocks_of(PAGE) if block.language == "json"]
    assert len(examples) == 2
    for example in examples:
        assert parse_rules(example if isinstance(example, list) else [example])


@pytest.mark.parametrize("row", CODE_ROWS, ids=str)
def test_every_code_of_templates_gives_something_like_its_example(row: list[str]) -> None:
    (code,), (example,) = codes_in(row[0]), codes_in(row[2])
    assert code[1] in CODES + "%"
    found = {expand(code, "1.4", moment) for moment in (EARLY, LATE)}
    assert any(len(one) == len(example) and one.isdigit() == example.isdigit() for one in found), found


def test_all_codes_are_there() -> None:
    assert {codes_in(row[0])[0][1] for row in CODE_ROWS} == {*CODES, "%"}
