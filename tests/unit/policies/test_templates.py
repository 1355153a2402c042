"""Names of tags by template: every code of the table, at a moment that tells them apart."""

from __future__ import annotations

import datetime as dt

import pytest

from dtr.policies.templates import expand

MOMENT = dt.datetime(2026, 3, 1, 15, 4, 5, 6789, dt.UTC)  # a Sunday


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("%n", "1.4"), ("%A", "Sunday"), ("%a", "Sun"), ("%w", "0"), ("%d", "01"), ("%B", "March"), ("%b", "Mar"),
        ("%m", "03"), ("%Y", "2026"), ("%y", "26"), ("%H", "15"), ("%I", "03"), ("%p", "PM"), ("%M", "04"),
        ("%S", "05"), ("%f", "006789"), ("%Z", "UTC"), ("%j", "060"), ("%W", "08"), ("%%", "%"),
        ("%n-%Y%m%d", "1.4-20260301"), ("stable", "stable"), ("%q", "%q"), ("100%", "100%"), ("", ""),
        ("%%n", "%n"),
    ],
)  # fmt: skip
def test_every_code(template: str, expected: str):
    assert expand(template, "1.4", MOMENT) == expected


def test_codes_in_the_tag_itself_are_no_codes():
    assert expand("%n", "%Y", MOMENT) == "%Y"
