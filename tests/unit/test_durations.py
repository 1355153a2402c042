"""Lengths of time are written as in Go."""

from __future__ import annotations

import pytest

from dtr.durations import to_duration, to_milliseconds


@pytest.mark.parametrize(
    ("duration", "expected"),
    [("", 0), ("0", 0), ("720h", 720 * 3_600_000), ("1h30m", 5_400_000), ("1.5h", 5_400_000), ("90s1ms", 90_001)],
)
def test_durations_are_those_of_go(duration: str, expected: int) -> None:
    assert to_milliseconds(duration) == expected


@pytest.mark.parametrize("duration", ["7d", "-1h", "h", "1", "1 h", "1h ", "99999999999999999h", "1h" * 60])
def test_other_texts_are_no_durations(duration: str) -> None:
    with pytest.raises(ValueError, match=r"duration|too long"):
        to_milliseconds(duration)


@pytest.mark.parametrize("milliseconds", [0, 1, 250, 90_000, 90_001, 5_400_000, 720 * 3_600_000])
def test_what_is_written_is_read_as_the_same(milliseconds: int) -> None:
    assert to_milliseconds(to_duration(milliseconds)) == milliseconds
