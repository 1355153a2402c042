"""What a job is, and the words that say how it is with one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct, field
from sqlalchemy import literal_column, or_

from dtr.db.schema import jobs
from dtr.durations import to_milliseconds
from dtr.jobs.errors import JobInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from dtr.db import Row

Status: TypeAlias = Literal[
    "waiting",  # nobody claimed it yet
    "running",
    "done",
    "errored",
    "cancel_request",  # its worker is to stop it
    "canceled",
    "worker_dead",  # its worker is gone: somebody else may claim it
    "worker_shutdown",  # the same, but the worker stopped in good order
    "worker_resurrection",  # its worker, held for dead, is there again: it stops it, for somebody to claim it
]
Cause: TypeAlias = Literal[
    "account",  # somebody asked for it
    "command",  # somebody who may run commands on the server did
    "schedule",
    "retry",  # one that failed is tried again
    "event",  # something that happened, as a push
]
Level: TypeAlias = Literal["info", "warning", "error"]
"""How serious a line of a log is, the least serious first."""
CLAIMABLE: tuple[Status, ...] = ("waiting", "worker_dead", "worker_shutdown")
RUNNING: tuple[Status, ...] = ("running", "cancel_request", "worker_resurrection")


def is_one_of(states: tuple[Status, ...]) -> ColumnElement[bool]:
    """The condition that a job is in one of these states."""
    return or_(*(jobs.c.status == state for state in states))


def unindexed(column: ColumnElement[str]) -> ColumnElement[str]:
    """A column of jobs that are open: SQLite would choose its index, and walk through all that ever ended."""
    return column.concat(literal_column("''"))


JOB_COLUMNS = (
    jobs.c.id,
    jobs.c.action,
    jobs.c.status,
    jobs.c.worker,
    jobs.c.scheduled_at,
    jobs.c.updated_at,
    jobs.c.retries_left,
    jobs.c.retries_total,
    jobs.c.retry_from,
    jobs.c.capacity,
    jobs.c.parameters,
    jobs.c.deadline,
    jobs.c.stop_timeout,
    jobs.c.done,
    jobs.c.total,
    jobs.c.unit,
    jobs.c.result,
    jobs.c.started_at,
    jobs.c.ended_at,
    jobs.c.cause,
    jobs.c.caused_by,
)
"""What `Job.of` reads, in its order."""

_LONGEST = 365 * 24 * 3_600_000
_EARLIEST, _LATEST = -62_135_596_800_000, 253_402_300_799_999
"""The years 1 to 9999, which RFC 3339 can write."""
_MOST_RETRIES = 100
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class JobRequest(Struct, frozen=True, kw_only=True):
    """What is to be done. Times in milliseconds; `deadline` and `stop_timeout` 0: none."""

    action: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0
    capacity: Mapping[str, int] = field(default_factory=dict)
    deadline: int = 0
    stop_timeout: int = 0
    scheduled_at: int | None = None
    """Milliseconds since 1970; None: now."""
    unique_key: str | None = None
    """While a job with it waits, another one is not queued."""

    def check(self) -> None:
        """Raise JobInvalid for values that a job cannot have."""
        if _NAME.fullmatch(self.action) is None:
            raise JobInvalid("action", "is a name of lower-case letters, digits and _")
        if not 0 <= self.retries <= _MOST_RETRIES:
            raise JobInvalid("retries", f"are 0 to {_MOST_RETRIES}")
        if self.scheduled_at is not None and not _EARLIEST <= self.scheduled_at <= _LATEST:
            raise JobInvalid("scheduledAt", "is in the years 1 to 9999")
        if any(not 0 <= number < 2**63 for number in self.capacity.values()):
            raise JobInvalid("capacityMap", "has numbers that are not negative")
        for name, value in (("deadline", self.deadline), ("stopTimeout", self.stop_timeout)):
            if not 0 <= value <= _LONGEST:
                raise JobInvalid(name, "is a year at most")


ParameterKind: TypeAlias = Literal["text", "flag", "number", "duration"]


class ActionDescription(Struct, frozen=True):
    """What an action does, and of what kind its parameters are, by name."""

    text: str
    parameters: Mapping[str, ParameterKind]


class Job(Struct, frozen=True):
    """A job as it is now. Times in milliseconds since 1970, lengths of time in milliseconds."""

    id: str
    action: str
    status: Status
    worker: str
    scheduled_at: int
    updated_at: int
    retries_left: int
    retries_total: int
    retry_from: str
    capacity: dict[str, int]
    parameters: dict[str, str]
    deadline: int
    stop_timeout: int
    done: int | None
    total: int | None
    unit: str
    result: dict[str, int]
    """What it came to, in numbers by name, as its action says."""
    started_at: int | None
    """When it was, for the last time; None: it never was."""
    ended_at: int | None
    """None: it waits or runs."""
    cause: Cause
    caused_by: str
    """The name of the account that made it; empty: none did."""

    @classmethod
    def of(cls, row: Row) -> Job:
        """The job of a row of `JOB_COLUMNS`."""
        values = list(row)
        for number in (9, 10, 16):
            values[number] = json.loads(values[number])
        return cls(*values)


def duration(field: str, text: str) -> int:
    """A length of time (``90s``, ``1h30m``) in milliseconds; empty is 0. Raises JobInvalid, for `field`."""
    try:
        return to_milliseconds(text)
    except ValueError as error:
        raise JobInvalid(field, str(error)) from None


def canonical(mapping: Mapping[str, object]) -> str:
    """A mapping as it is stored: equal ones are equal texts."""
    return json.dumps(dict(mapping), sort_keys=True, separators=(",", ":"))
