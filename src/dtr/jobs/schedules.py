"""
When crons run: six fields (second, minute, hour, day of month, month, day of week), ``@daily``, ``@every 1h30m``.

All in UTC, as DTR's. `cronsim` does the counting; what it does not know is translated here.
"""

from __future__ import annotations

import datetime as dt

from dtr.durations import to_milliseconds
from dtr.jobs.errors import JobInvalid

NICKNAMES = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
"""What some schedules are called, and their fields."""
_EVERY = "@every "
"""A duration follows: DTR's library counts from when the schedule was made, and then from each run."""
_SHORTEST_MS, _LONGEST_MS = 1_000, 366 * 86_400_000


def next_run(schedule: str, after: int) -> int:
    """The first moment behind `after` (milliseconds since 1970, both) that `schedule` names. Raises JobInvalid."""
    from cronsim import CronSim, CronSimError

    text = NICKNAMES.get(schedule.strip(), schedule).replace("?", "*")
    if text.startswith(_EVERY):
        return after + _interval(text.removeprefix(_EVERY))
    if len(text) > 200 or len(text.split()) != 6:
        words = ", ".join(NICKNAMES)
        problem = f"has six fields, from seconds to days of the week, or is one of {words}, @every 1h30m"
        raise JobInvalid("schedule", problem)
    moment = dt.datetime.fromtimestamp(after / 1000, dt.UTC)
    try:
        found = next(CronSim(text, moment))
    except (CronSimError, StopIteration, OverflowError):
        raise JobInvalid("schedule", "names no moment to come") from None
    return round(found.timestamp() * 1000)


def _interval(text: str) -> int:
    try:
        length = to_milliseconds(text)
    except ValueError as error:
        raise JobInvalid("schedule", str(error)) from None
    if not _SHORTEST_MS <= length <= _LONGEST_MS:
        raise JobInvalid("schedule", "repeats every second at most, and once a year at least")
    return length
