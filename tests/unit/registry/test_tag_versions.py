"""The order of tags as versions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr.registry.versions import version_key

ASCENDING = [
    "3f2a91c",  # the hash of a commit is no version
    "build-9",
    "build-10",
    "latest",
    "Main",
    "0.9",
    "1",
    "1.0-alpha",
    "1.0-beta2",
    "1.0-beta10",
    "1.0-rc1",
    "1.0-alpine",
    "1.0-alpine3.9",
    "1.0-alpine3.18",
    "1.0",
    "1.0.0",
    "v1.0.1",
    "1.2.0rc1",
    "1.2.0",
    "6.0.8",
    "6.0.10",
    "2026-11-5",
    "2026-11-28",
    "20261128",
]


def test_tags_are_ordered_as_versions():
    shuffled = random.Random(7).sample(ASCENDING, len(ASCENDING))
    assert sorted(shuffled, key=version_key) == ASCENDING


@pytest.mark.parametrize("same", [("1.2", "v1.2"), ("1.2", "V01.02"), ("Main", "main")])
def test_what_says_the_same_is_equal(same: tuple[str, str]):
    assert version_key(same[0]) == version_key(same[1])


@given(st.lists(st.integers(0, 10**40), min_size=1, max_size=4), st.lists(st.integers(0, 10**40), min_size=1))
def test_numbers_compare_as_numbers(first: list[int], second: list[int]):
    one, two = (version_key(".".join(map(str, numbers))) for numbers in (first, second))
    assert (one < two, one == two) == (first < second, first == second)


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_every_tag_has_a_key_that_databases_can_keep(tag: str):
    key = version_key(tag)
    assert key
    assert key.isascii()
    assert key.isprintable()
    assert len(key) <= 2 * 128 + 2
