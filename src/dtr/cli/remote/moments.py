"""Moments as they are given on the command line: ``90d``, ``12h``, ``2026-12-24``, ``2026-12-24T18:00:00Z``."""

from __future__ import annotations

import datetime as dt
import re

import click

_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Moment(click.ParamType[str]):
    """A moment, or how far away it is; the command gets it in RFC 3339. `ahead`: durations lie in the future."""

    name = "time"

    def __init__(self, *, ahead: bool) -> None:
        self._sign = 1 if ahead else -1

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it. A moment without an offset is one in UTC."""
        duration = _DURATION.fullmatch(value)
        try:
            if duration:
                away = dt.timedelta(seconds=int(duration[1]) * _SECONDS[duration[2]])
                found = dt.datetime.now(dt.UTC) + self._sign * away
            else:
                found = dt.datetime.fromisoformat(value)
                found = found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: 90m, 12h, 30d, 2026-12-24 or 2026-12-24T18:00:00Z", param, ctx)
        return found.isoformat(timespec="seconds").replace("+00:00", "Z")
