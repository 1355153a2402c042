"""
Which jobs are listed and counted, and how the statements for that look.

The latest come first: by the time for which a job was made, and its id. A page begins at a job (`Place`), or, as
DTR has it, behind a number of them. Conditions that nobody asked for are not in the statement, for the sake of the
indexes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from msgspec import Struct
from sqlalchemy import BigInteger, Text, bindparam, func, literal, literal_column, select, tuple_, union_all

from dtr.db import Statement
from dtr.db.schema import jobs
from dtr.jobs.job import CLAIMABLE, JOB_COLUMNS, RUNNING, is_one_of, unindexed

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

State: TypeAlias = Literal["waiting", "running", "done", "errored", "canceled"]
"""How it is with a job, without the reasons why it waits."""
STATES: tuple[State, ...] = get_args(State)
MOST_COUNTED = 10_000
"""`Jobs.counts` counts no further."""


class Place(NamedTuple):
    """Where a page begins: at this job."""

    scheduled_at: int
    id: str


class JobFilter(Struct, frozen=True, kw_only=True):
    """Which jobs are meant; empty: whatever it is."""

    action: str = ""
    worker: str = ""
    state: State | None = None
    tries_of: str = ""
    """The id of a job: it, and those that tried the same once more."""

    def __post_init__(self) -> None:
        """Raise ValueError for a state that there is not: it goes into statements."""
        if self.state not in {None, *STATES}:
            raise ValueError("there is no such state")


ALL = JobFilter()


def listing(wanted: JobFilter, place: Place | None) -> tuple[Statement, dict[str, Any]]:
    """The statement of a list, and its parameters beside `start` and `limit`."""
    given: dict[str, Any] = _given(wanted)
    names = frozenset(given)
    if place is not None:
        given |= {"place_at": place.scheduled_at, "place_id": place.id}
    return _listing(names, wanted.state, from_place=place is not None), given


def count(wanted: JobFilter) -> tuple[Statement, dict[str, Any]]:
    """The statement of a count, and its parameters."""
    given = _given(wanted)
    return _count(frozenset(given), wanted.state), given


def counts(wanted: JobFilter) -> tuple[Statement, dict[str, Any]]:
    """The statement of a count by state, in the order of `STATES`, and its parameters."""
    given = _given(wanted)
    return _counts(frozenset(given)), given


def _given(wanted: JobFilter) -> dict[str, str]:
    asked = {"action": wanted.action, "worker": wanted.worker, "tries_of": wanted.tries_of}
    return {name: value for name, value in asked.items() if value}


@lru_cache(maxsize=128)
def _listing(names: frozenset[str], state: State | None, *, from_place: bool) -> Statement:
    conditions = _conditions(names, state)
    if from_place:
        place = tuple_(bindparam("place_at", type_=BigInteger), bindparam("place_id", type_=Text))
        conditions.append(tuple_(jobs.c.scheduled_at, jobs.c.id) <= place)
    return Statement(
        select(*JOB_COLUMNS)
        .where(*conditions)
        .order_by(jobs.c.scheduled_at.desc(), jobs.c.id.desc())
        .offset(bindparam("start", type_=BigInteger))
        .limit(bindparam("limit", type_=BigInteger))
    )


@lru_cache(maxsize=64)
def _count(names: frozenset[str], state: State | None) -> Statement:
    return Statement(select(func.count()).select_from(jobs).where(*_conditions(names, state)))


@lru_cache(maxsize=16)
def _counts(names: frozenset[str]) -> Statement:
    return Statement(
        select(
            *(
                select(func.count())
                .select_from(
                    select(literal(1))
                    .select_from(jobs)
                    .where(*_conditions(names, state))
                    .limit(MOST_COUNTED)
                    .subquery(state)
                )
                .scalar_subquery()
                for state in STATES
            )
        )
    )


def _conditions(names: frozenset[str], state: State | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    is_open = state in {"waiting", "running"}
    if "action" in names:
        action = unindexed(jobs.c.action) if is_open else jobs.c.action
        conditions.append(action == bindparam("action", type_=Text))
    if "worker" in names:
        conditions.append(jobs.c.worker == bindparam("worker", type_=Text))
    if "tries_of" in names:
        first = bindparam("tries_of", type_=Text)
        others = (jobs.c.retry_from != literal_column("''")) & (jobs.c.retry_from == first)
        tries = union_all(select(jobs.c.id).where(jobs.c.id == first), select(jobs.c.id).where(others))
        conditions.append(jobs.c.id.in_(tries))
    if is_open:
        statuses = CLAIMABLE if state == "waiting" else RUNNING
        conditions += [jobs.c.ended_at.is_(None), is_one_of(statuses)]
    elif state is not None:
        # Not a parameter: a planner that sees the word knows whether it is a rare one.
        conditions += [jobs.c.ended_at.is_not(None), jobs.c.status == literal_column(f"'{state}'")]
    return conditions
