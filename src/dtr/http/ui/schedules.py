"""
Lengths of time and schedules, in the visitor's words.

A schedule that is too unusual for a sentence has none: it is shown as it stands, with the next time that it names.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

from babel import Locale
from babel.dates import get_day_names, get_month_names
from babel.lists import format_list
from babel.units import format_unit

from dtr.durations import to_milliseconds
from dtr.jobs.schedules import NICKNAMES

if TYPE_CHECKING:
    from dtr.http.ui.words import Words

_UNITS = (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000))
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def duration(words: Words, milliseconds: float, *, short: bool = False) -> str:
    """A length of time in its two largest units: ``1 hour, 30 minutes``; `short`: ``1 hr, 30 min``."""
    locale = Locale.parse(words.code)
    if milliseconds < 1_000:
        return _unit(round(milliseconds / 1_000, 1), "second", locale, short=short)
    rest, parts = round(milliseconds / 1_000) * 1_000, []
    for name, unit in _UNITS:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(_unit(count, name, locale, short=short))
        elif parts:
            break
    return str(format_list(parts[:2], style="unit", locale=locale))


def _unit(count: float, name: str, locale: Locale, *, short: bool) -> str:
    text = str(format_unit(count, f"duration-{name}", "short" if short else "long", locale=locale))
    # Some languages have no other words for it: then the name of the unit is in the text.
    return text if name not in text or locale.language == "en" else _unit(count, name, locale, short=True)


def in_words(words: Words, schedule: str) -> str:
    """When a schedule repeats, as a sentence without its full stop; empty: it is too unusual for that."""
    text = schedule.strip()
    if text.startswith("@every "):
        try:
            length = to_milliseconds(text.removeprefix("@every ").strip())
        except ValueError:
            return ""
        return words("Every {duration}", duration=duration(words, length))
    fields = NICKNAMES.get(text, text).replace("?", "*").lower().split()
    return _of_fields(words, fields) if len(fields) == 6 else ""


def _of_fields(words: Words, fields: list[str]) -> str:
    second, minute, hour, day, month, weekday = fields
    if not second.isdecimal():
        return ""
    if day == month == weekday == "*":
        return _within_a_day(words, int(second), minute, hour)
    if not (minute.isdecimal() and hour.isdecimal()):
        return ""
    moment = f"{int(hour):02}:{int(minute):02}" + (f":{int(second):02}" if int(second) else "")
    locale = Locale.parse(words.code)
    if day == month == "*":
        days = _weekdays(weekday)
        names = get_day_names("wide", locale=locale)
        # Babel counts days from Monday, schedules from Sunday.
        told = format_list([names[(one - 1) % 7] for one in days], locale=locale) if days else ""
        return words("Every week on {days} at {time} UTC", days=told, time=moment) if told else ""
    if weekday == "*" and day.isdecimal():
        if month == "*":
            return words("Every month on day {day} at {time} UTC", day=int(day), time=moment)
        if month.isdecimal() and 1 <= int(month) <= 12:
            name = get_month_names("wide", locale=locale)[int(month)]
            return words("Every year in {month} on day {day} at {time} UTC", month=name, day=int(day), time=moment)
    return ""


def _within_a_day(words: Words, second: int, minute: str, hour: str) -> str:
    step = re.fullmatch(r"(?:\*|0)/([0-9]+)", minute)
    if step and hour == "*":
        return words("Every {duration}", duration=duration(words, int(step[1]) * 60_000))
    if minute == hour == "*":
        return words("Every {duration}", duration=duration(words, 60_000))
    if not minute.isdecimal():
        return ""
    moment = f"{int(minute):02}" + (f":{second:02}" if second else "")
    if hour == "*":
        past = duration(words, int(minute) * 60_000 + second * 1_000)
        return words("Every hour, {minutes} past it", minutes=past) if moment != "00" else words("Every hour")
    step = re.fullmatch(r"(?:\*|0)/([0-9]+)", hour)
    if step:
        every = duration(words, int(step[1]) * 3_600_000)
        past = duration(words, int(minute) * 60_000 + second * 1_000)
        if moment == "00":
            return words("Every {duration}, on the hour", duration=every)
        return words("Every {duration}, {minutes} past the hour", duration=every, minutes=past)
    if hour.isdecimal():
        return words("Every day at {time} UTC", time=f"{int(hour):02}:{moment}")
    return ""


def _weekdays(text: str) -> list[int]:
    """The days of a field, from Sunday 0; none: it is more than a list of days."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = [_weekday(first), _weekday(last) if dash else _weekday(first)]
        if None in ends:
            return []
        begin, end = (one for one in ends if one is not None)
        found += range(begin, end + 1) if begin <= end else [*range(begin, 7), *range(end + 1)]
    return sorted({one % 7 for one in found}, key=lambda one: (one - 1) % 7)


def _weekday(text: str) -> int | None:
    if text in _DAYS:
        return _DAYS.index(text)
    return int(text) if text.isdecimal() and int(text) <= 7 else None


def moment_of(text: str) -> dt.datetime | None:
    """What a field for date and time holds, in UTC; None: nothing."""
    if not text:
        return None
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
