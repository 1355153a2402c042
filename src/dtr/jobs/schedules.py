"""
When crons run: six fields (second, minute, hour, day of month, month, day of week), or a word such as ``@daily``.

All in UTC, as DTR's. `cronsim` does the counting; what it does not know is translated here.
"""

from __future__ import annotations

import datetime as dt

from dtr.jobs.errors import JobInvalid

_WORDS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}


def next_run(schedule: str, after: int) -> int:
    """The first moment behind `after` (milliseconds since 1970, both) that `schedule` names. Raises JobInvalid."""
    from cronsim import CronSim, CronSimError

    text = _WORDS.get(schedule.strip(), schedule).replace("?", "*")
    if len(text) > 200 or len(text.split()) != 6:
        words = ", ".join(_WORDS)
        raise JobInvalid("schedule", f"has six fields, from seconds to days of the week, or is one of {words}")
    moment = dt.datetime.fromtimestamp(after / 1000, dt.UTC)
    try:
        found = next(CronSim(text, moment))
    except (CronSimError, StopIteration, OverflowError):
        raise JobInvalid("schedule", "names no moment to come") from None
    return round(found.timestamp() * 1000)
