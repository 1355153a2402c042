"""Ids of uploads that are not written down: nobody else can make them, and they are in the order of their ends."""

from __future__ import annotations

import uuid

import pytest

from dtr.registry._upload_ids import first_id, is_good, is_made, make_id

KEY, OTHER = b"k" * 32, b"o" * 32
END = 1_900_000_000


def test_an_id_is_good_for_its_repository_until_its_end():
    made = make_id(KEY, 7, END)
    assert is_made(made)
    assert is_good(KEY, 7, made, END - 1)
    assert not is_good(KEY, 7, made, END)
    assert not is_good(KEY, 8, made, END - 1)
    assert not is_good(OTHER, 7, made, END - 1)


def test_it_is_a_uuid_of_version_8_and_never_the_same():
    made = {make_id(KEY, 7, END) for _ in range(1000)}
    assert len(made) == 1000
    assert {(one.version, one.variant) for one in map(uuid.UUID, made)} == {(8, uuid.RFC_4122)}
    assert all(str(uuid.UUID(one)) == one for one in made)
    assert {one[19] for one in made} == set("89ab")


@pytest.mark.parametrize("place", [place for place in range(36) if place not in {8, 13, 18, 23}])
def test_no_digit_of_it_can_be_changed(place: int):
    made = make_id(KEY, 7, END)
    for digit in "0123456789abcdef":
        changed = made[:place] + digit + made[place + 1 :]
        assert changed == made or not (is_made(changed) and is_good(KEY, 7, changed, 0))


def test_others_are_not_taken_for_one():
    for other in (str(uuid.uuid4()), "", "nothing", "8" * 14):
        assert not is_made(other)


def test_what_ends_before_a_second_comes_before_its_first_id():
    before, at = make_id(KEY, 7, END - 1), make_id(KEY, 7, END)
    assert before < first_id(END) <= at
    assert before < first_id(END + 0.9) <= at
