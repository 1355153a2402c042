"""Canonical JSON: the bytes that are signed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from dtr.tuf import Malformed, NotCanonical
from dtr.tuf.canonical import LARGEST, LARGEST_INTEGER, decode, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INTEGERS = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": [True, False, None]}, '{"a":[true,false,null],"b":1}'),
        ({}, "{}"),
        ([], "[]"),
        ([{}, []], "[{},[]]"),
        ('a "quoted" \\ text', '"a \\"quoted\\" \\\\ text"'),
        ("<>&\u2028\t\n\x00\x7f/é", '"<>&\u2028\t\n\x00\x7f/é"'),
        # The order is that of UTF-8's bytes: a character beyond the plane of 16 bits comes last.
        ({"\U00010000": 1, "\uffff": 2, "Z": 3, "a": 4}, '{"Z":3,"a":4,"\uffff":2,"\U00010000":1}'),
        (1.0, "1"),
        (1e2, "100"),
        (-0.0, "0"),
        (-7, "-7"),
        (LARGEST_INTEGER, "9007199254740992"),
        ("\ud800", '"\ufffd"'),
        ({"\udfff": 1}, '{"\ufffd":1}'),
    ],
)
def test_values_have_one_form(value: object, written: str) -> None:
    assert encode(value) == written.encode()


@pytest.mark.parametrize(
    "value",
    [0.5, -1.5, math.nan, math.inf, -math.inf, LARGEST_INTEGER + 1, -LARGEST_INTEGER - 1, 1e300, b"x", {1}],
)
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises(NotCanonical):
        encode({"inside": [value]})


def test_nesting_without_end_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotCanonical, match="deep"):
        encode(deep)


@given(VALUES)
@example({"": "\x7f", "é": "\U0001f600", '"': "\\"})
@settings(max_examples=80, deadline=None)
def test_an_independent_encoder_writes_the_same(value: object) -> None:
    assert encode(value) == encode_canonical(value).encode()


NUMBERS = INTEGERS | INTEGERS.map(float)


@given(st.recursive(NUMBERS | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner)))
@example(1e2)
@example([0, -1.0, {"": 2.0**53, ",1.5": ":1e5"}])
@settings(max_examples=60, deadline=None)
def test_whole_numbers_are_written_as_integers_whatever_their_type(value: object) -> None:
    assert encode(value) == encode_canonical(whole(value)).encode()


def whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value)
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    return [whole(one) for one in value] if isinstance(value, list) else value


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_members_order_and_escapes_of_a_file_do_not_matter(value: object) -> None:
    plain = decode(json.dumps(value).encode())
    spaced = decode(json.dumps(value, indent=3, ensure_ascii=False).encode())
    assert encode(plain) == encode(spaced) == encode(value)


def test_of_names_given_twice_the_last_one_counts() -> None:
    assert encode(decode(b'{"a":1,"b":{"c":1,"c":2},"a":3}')) == b'{"a":3,"b":{"c":2}}'


def test_names_given_twice_can_be_refused() -> None:
    for text in (b'{"a":1,"a":1}', b'[{"b":{"c":1,"c":2}}]'):
        with pytest.raises(Malformed, match="twice"):
            decode(text, unique=True)
    assert decode(b'{"a":{"a":1},"b":{"a":1}}', unique=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}{}",
        b"{'a':1}",
        b'{"a":NaN}',
        b"[Infinity,-Infinity]",
        b"\xff\xfe",
        b'"\xed\xa0\x80"',
        b'"\x01"',
        b"\xef\xbb\xbf{}",
        b"1" * 5000,
        b"[" * 65 + b"]" * 65,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000,
        b" " * (LARGEST + 1),
    ],
    ids=lambda content: content[:12].decode(errors="replace"),
)
def test_what_is_no_json_within_bounds_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        decode(content)


def test_what_is_within_bounds_is_read() -> None:
    deep = b"[" * 64 + b"]" * 64
    assert encode(decode(deep)) == deep


@given(st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_read_or_malformed(content: bytes) -> None:
    try:
        decode(content)
    except Malformed:
        return
