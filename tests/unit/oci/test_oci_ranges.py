"""Ranges of bytes: RFC 9110, section 14, and `Content-Range` of uploads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark
from lark import Lark

from dtr.oci import ContentRangeInvalid, OciError, RangeNotSatisfiable, parse_content_range, parse_range

# RFC 9110, section 14.1.1, for one range of bytes.
GRAMMAR = Lark(
    r"""
    start: "bytes=" (INT "-" [INT] | "-" INT)
    INT: /[0-9]{1,18}/
    """
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", range(10)),
        ("bytes=0-0", range(1)),
        ("bytes=90-99", range(90, 100)),
        ("bytes=90-", range(90, 100)),
        ("bytes=0-", range(100)),
        ("bytes=99-200", range(99, 100)),
        ("bytes=5-999999999999999999", range(5, 100)),
        ("bytes=-1", range(99, 100)),
        ("bytes=-100", range(100)),
        ("bytes=-1000", range(100)),
        ("Bytes=1-2", range(1, 3)),
        ("  bytes= 1-2\t", range(1, 3)),
    ],
)
def test_a_range_is_the_positions_that_it_asks_for(header: str, expected: range):
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes=0-1, 3-4",
        "items=0-1",
        "bytes 0-1",
        "bytes=0x1-2",
        "bytes=+1-2",
        "bytes=--1",
        "bytes=1--2",
        "bytes=1 - 2",
        "bytes=\u0660-\u0669",
        "byte\u017f=0-1",
        "bytes=0-" + "9" * 5000,
        "bytes=" + "9" * 5000 + "-",
        "\0",
    ],
)
def test_a_range_that_is_not_understood_is_ignored(header: str):
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=999999999999999999-", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str):
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, 100)
    assert caught.value.size == 100


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-0"])
def test_nothing_has_no_first_byte(header: str):
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 0)


def test_the_last_bytes_of_nothing_are_all_of_it():
    assert parse_range("bytes=-5", 0) is None


@given(st.integers(1, 10**15), st.data())
@settings(max_examples=200, deadline=None)
def test_a_written_range_is_read_as_the_same(size: int, data: st.DataObject):
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    assert parse_range(f"bytes={start}-{stop - 1}", size) == range(start, stop)
    assert parse_range(f"bytes={start}-", size) == range(start, size)
    assert parse_range(f"bytes=-{size - start}", size) == range(start, size)


@given(
    from_lark(GRAMMAR) | st.text("bytes=0123456789-, \n", max_size=40) | st.text(max_size=40),
    st.integers(0, 10**6),
)
@settings(max_examples=400, deadline=None)
def test_any_header_gives_a_part_of_the_bytes_or_nothing_or_is_refused(header: str, size: int):
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if found is not None:
        assert 0 <= found.start < found.stop <= size
        assert found.step == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0-99", (0, 99)),
        ("100-100", (100, 100)),
        ("bytes 0-99/100", (0, 99)),
        ("bytes 0-99/*", (0, 99)),
        ("bytes=0-99", (0, 99)),
        (" 0-99 ", (0, 99)),
        ("0-99/100", (0, 99)),
    ],
)
def test_the_place_of_a_chunk_is_its_first_and_last_position(header: str, expected: tuple[int, int]):
    assert parse_content_range(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        "-",
        "0",
        "0-",
        "-9",
        "9-0",
        "a-b",
        "0-9-9",
        "0-9,10-19",
        "bytes */100",
        "0-9/",
        "0 - 9",
        "-1-9",
        "1" * 5000 + "-2",
    ],
)
def test_what_is_no_place_of_a_chunk_is_refused(header: str):
    with pytest.raises(ContentRangeInvalid):
        parse_content_range(header)


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
@settings(max_examples=100, deadline=None)
def test_a_written_place_is_read_as_the_same(one: int, other: int):
    first, last = sorted((one, other))
    assert parse_content_range(f"{first}-{last}") == (first, last)


@given(st.text("bytes 0123456789-/*\n", max_size=40) | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_content_range_is_a_place_or_an_error_of_this_package(header: str):
    try:
        first, last = parse_content_range(header)
    except OciError:
        return
    assert 0 <= first <= last
