"""Lengths of time as Go writes them, and DTR with it: ``90s``, ``1h30m``, ``720h``."""

from __future__ import annotations

import re

_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_MILLISECONDS = {
    "ns": 1e-6,
    "us": 1e-3,
    "µs": 1e-3,
    "μs": 1e-3,
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
}
_LARGEST = 2**63 - 1
_LONGEST_TEXT = 100


def to_milliseconds(duration: str) -> int:
    """A length of time in milliseconds; empty is 0. Raises ValueError, which says what it is to be."""
    if duration in {"", "0"}:
        return 0
    parts = _PART.findall(duration) if len(duration) <= _LONGEST_TEXT else []
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError("is a duration such as 720h or 1h30m")
    total = sum(float(number) * _MILLISECONDS[unit] for number, unit in parts)
    if total > _LARGEST:
        raise ValueError("is too long")
    return round(total)


def to_duration(milliseconds: int) -> str:
    """The same the other way; 0 is empty."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)
