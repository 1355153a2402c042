"""
Jobs and their logs: ``/system/settings/jobs``.

Auditors look; administrators stop, try again and delete. The log of a job that runs comes as server-sent events
(HTML Living Standard, section 9.2): each message has the number of its last line as its id, so who lost the
connection goes on behind it. A process keeps so many streams open; whoever comes later asks again every few
seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from msgspec import Struct
from starlette.responses import Response, StreamingResponse

from dtr.accounts import Operation
from dtr.durations import to_milliseconds
from dtr.http.api import jobs as api
from dtr.http.api import settings
from dtr.http.bodies import IS_ENDING
from dtr.http.ui.following import Followers
from dtr.http.ui.job_words import (
    COUNTS,
    LABELS,
    PARTS,
    RESULTS,
    SIZES,
    TITLES,
)
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Refused
from dtr.http.ui.schedules import duration, in_words
from dtr.jobs import STATES, JobUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dtr.http.bodies import IsEnding
    from dtr.http.ui.following import Look
    from dtr.http.ui.visit import Visit
    from dtr.jobs import Level

pages = Pages()

JOBS = "/system/settings/jobs"
LEVELS: tuple[Level, ...] = ("info", "warning", "error")
LINES = (100, 500, 2_000)
"""How many of the last lines of a log are shown."""
MOST_STREAMS = 200
_BATCH, _BATCH_SECONDS = 200, 0.1
"""Lines in a message, and how long it is to the next one at least."""
_COMMENT_SECONDS = 15.0
_ENDING_SECONDS = 1.0
"""How often a stream looks whether the server ends."""
_STREAM_SECONDS = 60.0
"""The browser asks again then: who has no session any more, or lost the right, sees no more of the log."""
_MOST_POLLED = 1_000
_SOON_MS = 5_000
"""A job that runs for less says nothing about when it will be done."""


# --- lists ----------------------------------------------------------------------------------------------------


@pages.get(JOBS)
async def list_jobs(visit: Visit) -> Response:
    """Jobs, filtered by what the address says, and how busy the workers are."""
    state = visit.query.get("state", "")
    if visit.query.get("running", "").lower() in {"true", "t", "1"}:  # as DTR's address had it
        state = "running"
    state = state if state in STATES else ""
    action, worker = (visit.query.get(name, "")[:64] or "any" for name in ("action", "worker"))
    listing = await visit.listing(
        api.list_jobs,
        action=action,
        worker=worker,
        state=state or None,
        page_start=visit.query.get("start", ""),
        limit=visit.size,
    )
    return visit.page(
        "jobs/list.html",
        listing=listing,
        jobs=listing.records.jobs,
        counts=await visit.call(api.get_job_counts, action=action, worker=worker),
        state=state,
        action=action,
        worker=worker,
        actions=await _titles(visit),
        workers=(await visit.call(api.list_workers)).workers,
        kept=await _kept(visit),
        show=Show(visit),
    )


async def _kept(visit: Visit) -> str:
    """How long jobs that ended are kept, in words."""
    found = await visit.call(settings.get_settings)
    age, count = found.job_history_max_age, found.job_history_to_keep
    if not found.job_history_compaction_enabled or not (age or count):
        return visit._("Jobs that ended are kept, but for those that something queued which happened: for a day.")
    told, number = duration(visit.words, to_milliseconds(age)) if age else "", visit.words.number(count)
    if age and count:
        return visit._("Jobs older than {age} are deleted, and all but the newest {n}.", age=told, n=number)
    if age:
        return visit._("Jobs older than {age} are deleted.", age=told)
    return visit._("All jobs but the newest {n} are deleted.", n=number)


async def _titles(visit: Visit) -> list[tuple[str, str]]:
    """The actions and what they are called, by that."""
    listed = (await visit.call(api.list_actions)).actions
    pairs = [(one.action, title(visit, one.action)) for one in listed if one.action != "tag_pruning"]
    return sorted(pairs, key=lambda pair: pair[1].casefold())


def title(visit: Visit, action: str) -> str:
    """What an action is called."""
    return visit._(TITLES.get(action, action))


class Show(Struct, frozen=True):
    """How jobs are told, for templates."""

    visit: Visit

    def title(self, action: str) -> str:
        """What an action is called."""
        return title(self.visit, action)

    def took(self, job: api.JobRecord) -> str:
        """How long it took, or runs already; empty: it never ran."""
        if job.started_at is None:
            return ""
        length = (job.ended_at or _now()) - job.started_at
        return duration(self.visit.words, max(length.total_seconds(), 0.1) * 1_000, short=True)

    def is_open(self, job: api.JobRecord) -> bool:
        """Whether it waits or runs."""
        return job.ended_at is None

    def is_later(self, job: api.JobRecord) -> bool:
        """Whether it waits for its time."""
        return job.status == "waiting" and job.scheduled_at > _now()

    def percent(self, job: api.JobRecord) -> int | None:
        """How much of it is done, in percent."""
        progress = job.progress
        if progress is None or not progress.total:
            return None
        return min(100 * progress.done // progress.total, 100)

    def progress(self, job: api.JobRecord) -> str:
        """How far it is, in words; empty: it did not say."""
        progress, words = job.progress, self.visit.words
        if progress is None:
            return ""
        tell = words.size if progress.unit in SIZES else words.number
        if progress.total is None:
            return str(words(COUNTS.get(progress.unit, "{done}"), done=tell(progress.done)))
        text = PARTS.get(progress.unit, "{done} / {total}")
        return str(words(text, done=tell(progress.done), total=tell(progress.total)))

    def left(self, job: api.JobRecord) -> str:
        """About how long it will still take; empty: nobody knows."""
        progress = job.progress
        if job.status != "running" or progress is None or not progress.total or job.started_at is None:
            return ""
        ran = (_now() - job.started_at).total_seconds() * 1_000
        if ran < _SOON_MS or not progress.done or progress.done >= progress.total:
            return ""
        rest = ran / progress.done * (progress.total - progress.done)
        unit = next((one for one in (3_600_000, 60_000) if rest > 2 * one), 1_000)
        return duration(self.visit.words, max(rest // unit, 1) * unit, short=True)

    def result(self, job: api.JobRecord) -> list[tuple[str, str]]:
        """What it came to: names and numbers."""
        words = self.visit.words
        return [
            (self.visit._(RESULTS.get(name, name)), words.size(value) if name in SIZES else words.number(value))
            for name, value in job.result.items()
        ]

    def schedule(self, text: str) -> str:
        """A schedule in words; empty: as it stands."""
        return str(in_words(self.visit.words, text))

    def parameters(self, given: Mapping[str, str]) -> list[tuple[str, str]]:
        """Labels and values."""
        return [(self.visit._(LABELS.get(name, name)), value) for name, value in given.items()]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# --- one job --------------------------------------------------------------------------------------------------


@pages.get(f"{JOBS}/{{job}}")
async def show_job(visit: Visit) -> Response:
    """A job: how far it is, what it was given, its other tries, and the end of its log."""
    job = await visit.call(api.get_job, jobID=visit.values["job"])
    level, count = _level(visit), _line_count(visit)
    # How it is with it was read before its log: the log of one that ended is whole then.
    lines = await visit.call(api.get_job_logs, jobID=job.id, tail=count, level=level)
    assert isinstance(lines, list)
    tries = await visit.call(api.list_jobs, tries_of=job.retry_from_id or job.id, limit=20)
    return visit.page(
        "jobs/job.html",
        job=job,
        lines=[Line.of(one) for one in lines],
        last=lines[-1].line_num if lines else -1,
        level=level,
        levels=LEVELS,
        count=count,
        counts=LINES,
        streams=followers.has_room,
        tries=tries.jobs if len(tries.jobs) > 1 else [],
        show=Show(visit),
    )


def _level(visit: Visit) -> Level:
    given = visit.query.get("level", "")
    return next((one for one in LEVELS if one == given), "info")


def _line_count(visit: Visit) -> int:
    given = visit.query.get("lines", "")
    return int(given) if given in map(str, LINES) else LINES[0]


class Line(Struct, frozen=True):
    """A line of a log, as it is shown."""

    number: int
    """From 1."""
    level: str
    time: str
    text: str

    @classmethod
    def of(cls, record: api.LineRecord) -> Line:
        """The line of a record."""
        data = json.loads(record.data)
        moment = str(data["time"])
        return cls(record.line_num + 1, str(data["level"]), moment[11:19], str(data["msg"]))


@pages.get(f"{JOBS}/{{job}}/cancel")
async def ask_cancel(visit: Visit) -> Response:
    """Ask whether the job is to stop."""
    visit.caller.require(Operation.ADMINISTER)
    job = await visit.call(api.get_job, jobID=visit.values["job"])
    return visit.confirm(
        visit._("Stop {job}?", job=title(visit, job.action)),
        verb=visit._("Stop the job"),
        text=visit._("What it has done stays done. Nothing is left half done; the rest can be done another time."),
        back=f"{JOBS}/{job.id}",
    )


@pages.post(f"{JOBS}/{{job}}/cancel")
async def cancel_job(visit: Visit) -> Response:
    """Stop the job, or do not let it begin."""
    job = visit.values["job"]
    await visit.call(api.cancel_job, jobID=job)
    return visit.redirect(f"{JOBS}/{quote(job)}", visit._("The job is told to stop."))


@pages.post(f"{JOBS}/retry", f"{JOBS}/{{job}}/retry")
async def retry_job(visit: Visit) -> Response:
    """Do the same once more; a list has one form for all, whose button says which."""
    visit.caller.require(Operation.ADMINISTER)
    job = visit.values.get("job") or await visit.text("job")
    try:
        made = await visit.submit(api.try_job_again, jobID=job)
    except Refused as refused:  # it runs already: somebody else was faster
        return visit.redirect(f"{JOBS}/{quote(job)}" if job else JOBS, " ".join(refused.problems.general))
    return visit.redirect(f"{JOBS}/{made.id}", visit._("It is tried again: this is the new job."))


@pages.get(f"{JOBS}/{{job}}/delete")
async def ask_delete(visit: Visit) -> Response:
    """Ask whether the job and its log are to go."""
    visit.caller.require(Operation.ADMINISTER)
    job = await visit.call(api.get_job, jobID=visit.values["job"])
    items = [visit._("Its log goes with it, for good.")]
    if job.ended_at is None:
        items.insert(0, visit._("It is stopped first."))
    return visit.confirm(
        visit._("Delete the job {job}, {id}?", job=title(visit, job.action), id=job.id[:8]),
        verb=visit._("Delete the job"),
        text=visit._("What it has done stays done."),
        items=items,
        back=f"{JOBS}/{job.id}",
    )


@pages.post(f"{JOBS}/{{job}}/delete")
async def delete_job(visit: Visit) -> Response:
    """Remove a job and its log."""
    await visit.call(api.delete_job, jobID=visit.values["job"])
    return visit.redirect(JOBS, visit._("The job is deleted."))


# --- the log --------------------------------------------------------------------------------------------------


followers = Followers(MOST_STREAMS)


@pages.get(f"{JOBS}/{{job}}/log")
async def follow_log(visit: Visit) -> Response:
    """What the log has more than the page: as a stream, or, when there are too many of these, once."""
    visit.keeps_page = True
    job = await visit.call(api.get_job, jobID=visit.values["job"])
    given = visit.request.headers.get("last-event-id") or visit.query.get("after", "-1")
    after = int(given) if re.fullmatch(r"-1|[0-9]{1,9}", given, re.ASCII) else -1
    level = _level(visit)
    polls = "poll" in visit.query
    if followers.has_room and not polls and "text/event-stream" in visit.request.headers.get("accept", ""):
        headers = {"X-Accel-Buffering": "no"}
        return visit.answer(
            StreamingResponse(
                _stream(visit, job.id, after, level), media_type="text/event-stream", headers=headers
            )
        )
    lines = await visit.call(api.get_job_logs, jobID=job.id, offset=after + 1, limit=_MOST_POLLED, level=level)
    assert isinstance(lines, list)
    after = lines[-1].line_num if lines else after
    goes_on = job.ended_at is None or len(lines) == _MOST_POLLED
    address = f"{visit.path}?{urlencode({'after': after, 'level': level, 'poll': 1})}" if goes_on else ""
    return visit.page(
        "jobs/_more.html",
        job=job,
        lines=[Line.of(one) for one in lines],
        state=True,
        poll=address,
        show=Show(visit),
    )


async def _stream(visit: Visit, job_id: str, after: int, level: Level) -> AsyncIterator[bytes]:
    """The messages of a log: its lines, how it is with the job whenever that changes, and at last its end."""
    began = said = time.monotonic()
    seen: Look | None = None
    told: object = None
    is_behind = False
    is_ending: IsEnding = visit.request.scope.get("extensions", {}).get(IS_ENDING, bool)
    async with followers.follow(visit, job_id) as watch:
        while time.monotonic() - began < _STREAM_SECONDS:
            await watch.wait(seen, 0 if is_behind else _ENDING_SECONDS)
            if watch.is_gone:
                break
            if watch.is_over or is_ending():  # the browser asks again
                return
            look = watch.look
            if look is None or (look is seen and not is_behind):
                if time.monotonic() - said >= _COMMENT_SECONDS:
                    said = time.monotonic()
                    yield b":\n\n"
                continue
            seen, job = look, look.job
            lines: list[api.LineRecord] | Response = []
            if look.last > after:
                with contextlib.suppress(JobUnknown):
                    lines = await visit.call(
                        api.get_job_logs, jobID=job_id, offset=after + 1, limit=_BATCH, level=level
                    )
            assert isinstance(lines, list)
            is_behind = len(lines) == _BATCH
            # What a level leaves out is not asked for again.
            after = lines[-1].line_num if lines else max(after, look.last)
            state = (job.status, job.progress, job.worker_id, job.result)
            if lines or state != told:
                shown = visit.page(
                    "jobs/_more.html",
                    job=job,
                    lines=[Line.of(one) for one in lines],
                    state=state != told,
                    poll=None,
                    show=Show(visit),
                )
                told, said = state, time.monotonic()
                yield _message(bytes(shown.body), after)
            if job.ended_at is not None and not is_behind:
                break
            await asyncio.sleep(_BATCH_SECONDS)
        else:
            return
    yield b"event: end\ndata: end\n\n"  # it ended, or it is gone


def _message(html: bytes, number: int) -> bytes:
    """One message of a stream; whatever breaks lines breaks them in it, too."""
    lines = html.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip().split(b"\n")
    head = b"id: %d\n" % number if number >= 0 else b""
    return head + b"".join(b"data: %s\n" % line for line in lines) + b"\n"


@pages.get(f"{JOBS}/{{job}}/log.txt")
async def download_log(visit: Visit) -> Response:
    """The whole log as a file of text."""
    job = await visit.call(api.get_job, jobID=visit.values["job"])
    name = f"{job.action}-{job.id[:8]}.log"

    async def text() -> AsyncIterator[str]:
        offset = 0
        while True:
            lines = await visit.call(api.get_job_logs, jobID=job.id, offset=offset, limit=_MOST_POLLED)
            assert isinstance(lines, list)
            for one in lines:
                data = json.loads(one.data)
                yield f"{data['time']} {data['level']} {data['msg']}\n"
            if len(lines) < _MOST_POLLED:
                return
            offset = lines[-1].line_num + 1

    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return visit.answer(StreamingResponse(text(), media_type="text/plain; charset=utf-8", headers=headers))
