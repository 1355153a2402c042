"""When schedules come next, in UTC."""

from __future__ import annotations

import datetime as dt

import pytest

from dtr.jobs import JobInvalid
from dtr.jobs.schedules import next_run


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("57 54 3 * * *", "2026-11-27T03:54:56", "2026-11-27T03:54:57"),  # the first field is seconds
        ("57 54 3 * * *", "2026-11-27T03:54:57", "2026-11-28T03:54:57"),
        ("*/10 * * * * *", "2026-11-27T12:00:01", "2026-11-27T12:00:10"),
        ("0 0 1 * * 6", "2026-11-27T12:00:00", "2026-11-28T01:00:00"),  # Saturday
        ("0 0 1 * * SAT", "2026-11-27T12:00:00", "2026-11-28T01:00:00"),
        ("0 0 1 ? * SUN", "2026-11-27T12:00:00", "2026-11-29T01:00:00"),
        ("0 0 0 29 2 *", "2026-11-27T12:00:00", "2028-02-29T00:00:00"),
        ("0 0 9-17/4 1,15 * *", "2026-11-15T09:30:00", "2026-11-15T13:00:00"),
        ("@yearly", "2026-11-27T12:00:00", "2027-01-01T00:00:00"),
        ("@annually", "2026-11-27T12:00:00", "2027-01-01T00:00:00"),
        ("@monthly", "2026-11-27T12:00:00", "2026-12-01T00:00:00"),
        ("@weekly", "2026-11-27T12:00:00", "2026-11-29T00:00:00"),
        ("@daily", "2026-11-27T12:00:00", "2026-11-28T00:00:00"),
        (" @midnight ", "2026-11-27T12:00:00", "2026-11-28T00:00:00"),
        ("@hourly", "2026-11-27T12:00:00", "2026-11-27T13:00:00"),
        ("@every 1h30m", "2026-11-27T12:00:00", "2026-11-27T13:30:00"),
        # Europe's clocks are set back that night: UTC's are not.
        ("0 30 2 * * *", "2026-10-25T01:00:00", "2026-10-25T02:30:00"),
    ],
)
def test_the_next_moment(schedule: str, after: str, expected: str):
    assert next_run(schedule, milliseconds(after)) == milliseconds(expected)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "* * * * *",
        "0 0 3 * * * *",
        "@often",
        "@every",
        "@every 3 days",
        "@every 1ms",
        "@every 100000h",
        "61 * * * * *",
        "0 0 24 * * *",
        "0 0 0 30 2 *",
        "-1 * * * * *",
        "0 0 0 * * MOON",
        "x" * 300,
    ],
)
def test_what_names_no_moment_is_refused(schedule: str):
    with pytest.raises(JobInvalid) as refused:
        next_run(schedule, milliseconds("2026-11-27T12:00:00"))
    assert refused.value.field == "schedule"


def milliseconds(moment: str) -> int:
    return round(dt.datetime.fromisoformat(f"{moment}+00:00").timestamp() * 1000)
