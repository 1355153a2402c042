"""How records are printed for people and for scripts."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import sys

import pytest

from dtr.cli._common import printable
from dtr.cli.remote.output import Column, Output, exact, fitted, sized, told

NOW = dt.datetime(2026, 11, 27, 12, 0, 0, tzinfo=dt.UTC)
COLUMNS = (
    Column("NAME", "name"),
    Column("SIZE", "size", "size"),
    Column("PUSHED", "pushedAt", "time"),
    Column("ACTIVE", "isActive"),
)
RECORDS = [
    {"name": "app", "size": 12_345_678, "pushedAt": "2026-11-27T09:00:00Z", "isActive": True, "more": [1]},
    {"name": "naïve", "size": 5, "pushedAt": "0001-01-01T00:00:00Z", "isActive": False},
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_widest_columns_give_way() -> None:
    assert fitted([10, 60, 20], 50) == [10, 20, 20]
    assert fitted([10, 60, 20], 33) == [10, 11, 12]
    assert fitted([10, 20], 50) == [10, 20]
    assert fitted([10, 60], 3) == [4, 4]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"), (-3, "now"), (-30, "30 seconds ago"), (-60, "1 minute ago"), (-3599, "59 minutes ago"),
        (-3600, "1 hour ago"), (-86_400, "1 day ago"), (-13 * 86_400, "1 week ago"), (-40 * 86_400, "1 month ago"),
        (-360 * 86_400, "11 months ago"), (-370 * 86_400, "1 year ago"), (-800 * 86_400, "2 years ago"),
        (90, "in 1 minute"), (3 * 86_400 + 1, "in 3 days"),
    ],
)  # fmt: skip
def test_times_are_told_as_people_do(seconds: int, words: str) -> None:
    assert told((NOW + dt.timedelta(seconds=seconds)).isoformat(), NOW) == words


def test_a_moment_that_has_not_come_is_never() -> None:
    assert told("0001-01-01T00:00:00Z", NOW) == "never"
    assert exact("0001-01-01T00:00:00Z") == ""


def test_for_scripts_times_are_in_utc() -> None:
    assert exact("2026-11-27T14:00:00.123+02:00") == "2026-11-27T12:00:00+00:00"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (123_456_789, "123 MB"),
     (5_000_000_000, "5.0 GB"), (7_200_000_000_000, "7.2 TB")],
)  # fmt: skip
def test_sizes_are_told_as_people_do(number: int, text: str) -> None:
    assert sized(number) == text


def test_what_would_move_a_terminal_is_not_printed() -> None:
    assert printable("a\x1b[2Jb\tc\nd\x9be") == "a\ufffd[2Jb c d\ufffde"
    assert printable("Müller 日本 ✓") == "Müller 日本 ✓"


def test_scripts_get_lines_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    Output().listing(RECORDS, COLUMNS)
    assert capsys.readouterr().out == "app\t12345678\t2026-11-27T09:00:00+00:00\tyes\nnaïve\t5\t\tno\n"


def test_json_is_what_the_api_gave_one_record_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).listing(RECORDS, COLUMNS)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == RECORDS


def test_quiet_prints_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Output(names_only=True).listing(RECORDS, COLUMNS)
    assert capsys.readouterr().out == "app\nnaïve\n"


def test_a_terminal_gets_a_table_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    wide = {**RECORDS[1], "name": "x" * 60}
    Output().listing([RECORDS[0], wide], COLUMNS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "PUSHED", "ACTIVE"]
    assert len(lines) == 3
    assert all(len(line) <= 40 for line in lines)
    assert "…" in lines[2]
    assert "12.3 MB" in lines[1]


def test_a_long_list_is_shown_before_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    shown: list[int] = []

    def coming() -> object:
        for number in range(1001):
            shown.append(terminal.getvalue().count("\n"))
            yield {"name": f"r{number}"}

    Output().listing(coming(), (Column("NAME", "name"),))  # type: ignore[arg-type]
    assert shown[499] == 0
    assert shown[501] == 501
    assert terminal.getvalue().count("\n") == 1002
    assert terminal.getvalue().count("NAME") == 1


def test_a_record_has_a_line_for_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    Output().record({"name": "app", "size": 3, "isActive": True}, COLUMNS)
    assert capsys.readouterr().out == "Name:   app\nSize:   3\nActive: yes\n"
