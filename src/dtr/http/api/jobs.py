"""
``/api/v0/jobs``, ``crons``, ``action_configs``, ``workers``: work in the background.

DTR's lists of jobs are paged by `start`, an offset, and `limit`. What changes something is for administrators;
auditors look.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, field_validator

from dtr.accounts import Operation
from dtr.durations import to_duration
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, NEXT
from dtr.http.api.rooms import RoomsDep
from dtr.jobs import (
    Cause,
    JobFilter,
    JobInvalid,
    JobRequest,
    JobUnknown,
    Level,
    ParameterKind,
    Place,
    State,
    duration,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dtr.http.api.rooms import Rooms
    from dtr.jobs import Cron, Job, WorkerRecord

router = Router(prefix="/api/v0", tags=["jobs"], responses=errors("NOT_AUTHORIZED"))

_MOST_LINES = 10_000
_LOOK_SECONDS = 0.5
_Capacity = Annotated[dict[str, int], Field(description="What it needs of the capacity of its worker.")]
_Parameters = Annotated[dict[str, str], Field(description="Go before those that the action is configured with.")]
_Configured = Annotated[
    dict[str, str], Field(description="What jobs with this action have, unless they say otherwise.")
]
_Deadline = Annotated[str, Field(description="It is stopped when it takes longer: `90s`, `1h30m`; empty: never.")]
_StopTimeout = Annotated[str, Field(description="It is given up so long after it was told to stop.")]
_Retries = Annotated[int, Field(description="How often it is tried again when it fails.")]


class JobRecord(Record):
    """A job."""

    id: str
    action: str
    status: Literal[
        "waiting",
        "running",
        "done",
        "canceled",
        "errored",
        "cancel_request",
        "worker_dead",
        "worker_shutdown",
        "worker_resurrection",
    ] = Field(
        description="`done`, `errored`, `canceled`: it ended. In all others it goes on: `worker_dead`,"
        " `worker_shutdown`: its worker is gone, and it waits for another one; `worker_resurrection`: its worker,"
        " held for dead, is there again, and stops it first. Whoever waits for the end waits for `endedAt`."
    )
    worker_id: str = Field(alias="workerID", description="Empty: nobody claimed it yet.")
    scheduled_at: dt.datetime
    started_at: dt.datetime | None = Field(description="When it was, for the last time; null: it never was.")
    ended_at: dt.datetime | None = Field(
        description="null: it waits or runs, whatever `status` says of its worker."
    )
    cause: Cause = Field(
        description="Why there is it: an account asked for it, or somebody who may run commands on the server; its"
        " action has a schedule; one that failed is tried again; something happened."
    )
    caused_by: str = Field(description="Name of the account that asked for it; empty: none did.")
    last_updated: dt.datetime = Field(description="When something was heard of it last.")
    retries_left: int = Field(description="How often it is tried again.")
    retries_total: int = Field(description="How often it would have been, when it was made.")
    retry_from_id: str = Field(
        alias="retryFromID", description="The first job that failed; empty: it is the first."
    )
    capacity_map: _Capacity
    parameters: _Parameters
    deadline: _Deadline
    stop_timeout: _StopTimeout
    progress: ProgressRecord | None = Field(description="How far it is; null: it did not say.")
    result: dict[str, int] = Field(
        description="What it came to, in numbers by name; empty: it did not end, or its action says nothing."
    )

    @classmethod
    def of(cls, job: Job) -> JobRecord:
        """The record of a job."""
        return cls(
            id=job.id,
            action=job.action,
            status=job.status,
            worker_id=job.worker,
            scheduled_at=moment(job.scheduled_at),
            started_at=None if job.started_at is None else moment(job.started_at),
            ended_at=None if job.ended_at is None else moment(job.ended_at),
            cause=job.cause,
            caused_by=job.caused_by,
            last_updated=moment(job.updated_at),
            retries_left=job.retries_left,
            retries_total=job.retries_total,
            retry_from_id=job.retry_from,
            capacity_map=job.capacity,
            parameters=job.parameters,
            deadline=to_duration(job.deadline),
            stop_timeout=to_duration(job.stop_timeout),
            progress=None if job.done is None else ProgressRecord(done=job.done, total=job.total, unit=job.unit),
            result=job.result,
        )


class ProgressRecord(Record):
    """How far something is, in `unit`."""

    done: int = Field(description="How many are done.")
    total: int | None = Field(description="null: nobody knows.")
    unit: str = Field(description="Of what.")


class JobsRecord(Record):
    """Some jobs."""

    jobs: list[JobRecord]


class CountsRecord(Record):
    """How many jobs there are by state; 10,000 may be more."""

    waiting: int = Field(description="For their time, for a worker, or for another one.")
    running: int = Field(description="Also those that are to stop.")
    done: int = Field(description="Ended well.")
    errored: int = Field(description="Failed.")
    canceled: int = Field(description="Somebody stopped them.")


class LineRecord(Record):
    """A line of a job's log."""

    line_num: int = Field(description="From 0.")
    data: str = Field(description="JSON: `level`, `msg`, `time`.")


class CronRecord(Record):
    """A schedule; all times are in UTC."""

    id: str
    action: str
    schedule: str = Field(description="Second, minute, hour, day, month, day of week; or `@daily` and the like.")
    next_run: dt.datetime = Field(description="When the next job is made.")
    retries: _Retries
    capacity_map: _Capacity
    parameters: _Parameters
    deadline: _Deadline
    stop_timeout: _StopTimeout

    @classmethod
    def of(cls, cron: Cron) -> CronRecord:
        """The record of a schedule."""
        return cls(
            id=cron.id,
            action=cron.request.action,
            schedule=cron.schedule,
            next_run=moment(cron.next_run),
            retries=cron.request.retries,
            capacity_map=dict(cron.request.capacity),
            parameters=dict(cron.request.parameters),
            deadline=to_duration(cron.request.deadline),
            stop_timeout=to_duration(cron.request.stop_timeout),
        )


class CronsRecord(Record):
    """All schedules."""

    crons: list[CronRecord]


class ActionConfigRecord(Record):
    """What parameters an action has when a job does not say."""

    id: str
    action: str
    parameters: _Configured


class ActionConfigsRecord(Record):
    """Those of all actions that were configured."""

    action_configs: list[ActionConfigRecord]


class WorkerRecord_(Record):  # noqa: N801 - the room's record has the name
    """What runs jobs: one in every replica that has the component `jobrunner`."""

    id: str
    status: Literal["alive", "dead", "shutdown"]
    capacity_map: dict[str, int] = Field(description="What its jobs share.")
    heartbeat_expiration: dt.datetime = Field(description="When it is held for dead, if it gives no sign of life.")
    node: str
    places: int = Field(description="How many jobs it runs at a time.")
    running: dict[str, int] = Field(description="How many it runs now, by action.")
    used_capacity: dict[str, int] = Field(description="What of its capacity these need.")

    @classmethod
    def of(cls, worker: WorkerRecord) -> WorkerRecord_:
        """The record of a worker."""
        return cls(
            id=worker.id,
            status=worker.status,
            capacity_map=worker.capacity,
            heartbeat_expiration=moment(worker.heartbeat_until),
            node=worker.node,
            places=worker.places,
            running=worker.running,
            used_capacity=worker.used,
        )


class WorkersRecord(Record):
    """All workers."""

    workers: list[WorkerRecord_]


class ParameterRecord(Record):
    """A parameter of an action."""

    name: str
    kind: ParameterKind = Field(
        description="`flag`: `true` or not there; `number`: a whole number; `duration`: such as `1h30m`."
    )


class ActionRecord(Record):
    """What a job can do."""

    action: str
    description: str
    parameters: list[ParameterRecord]


class ActionsRecord(Record):
    """All that jobs can do."""

    actions: list[ActionRecord]


class _Work(Form):
    action: str = Field(description="What is to be done.")
    parameters: _Parameters = Field(default_factory=dict)
    retries: _Retries = 0
    capacity_map: _Capacity = Field(default_factory=dict)
    deadline: _Deadline = ""
    stop_timeout: _StopTimeout = ""

    @field_validator("parameters", "capacity_map", mode="before")
    @classmethod
    def _none_are_empty(cls, given: object) -> object:
        """Clients in Go send null for a map without entries."""
        return {} if given is None else given

    def request(self, rooms: Rooms, scheduled_at: int | None = None) -> JobRequest:
        """What is asked for. Raises JobInvalid."""
        if self.action not in rooms.actions:
            raise JobInvalid("action", f"is one of {', '.join(sorted(rooms.actions))}")
        return JobRequest(
            action=self.action,
            parameters=self.parameters,
            retries=self.retries,
            capacity=self.capacity_map,
            deadline=duration("deadline", self.deadline),
            stop_timeout=duration("stopTimeout", self.stop_timeout),
            scheduled_at=scheduled_at,
        )


class JobForm(_Work):
    """A job to be done."""

    scheduled_at: str = Field("", description="When (RFC 3339); empty: now.")


class CronForm(_Work):
    """A schedule for an action, which has one at most."""

    schedule: str = Field(description="Second, minute, hour, day, month, day of week; or `@daily` and the like.")


class ActionConfigForm(Form):
    """Parameters of an action."""

    action: str
    parameters: _Configured = Field(default_factory=dict)


class CapacityForm(Form):
    """How much a worker does at once."""

    capacity_map: dict[str, int] = Field(description="What jobs with a `capacityMap` share; others need none.")


# --- actions --------------------------------------------------------------------------------------------------


@router.get("/actions", summary="List what jobs can do")
async def list_actions(caller: CallerDep, rooms: RoomsDep) -> ActionsRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return ActionsRecord(
        actions=[
            ActionRecord(
                action=name,
                description=one.text,
                parameters=[ParameterRecord(name=name, kind=kind) for name, kind in one.parameters.items()],
            )
            for name, one in rooms.actions.items()
        ]
    )


# --- jobs -----------------------------------------------------------------------------------------------------


_ActionQuery = Annotated[str, Query(max_length=64, description="Only those with this action.")]
_WorkerQuery = Annotated[str, Query(max_length=64, description="Only those of this worker.")]


@router.get("/jobs", summary="List jobs, the latest first")
async def list_jobs(
    response: Response,
    caller: CallerDep,
    rooms: RoomsDep,
    action: _ActionQuery = "any",
    worker: _WorkerQuery = "any",
    running: Annotated[str, Query(max_length=8, description="`true`: only those that run.")] = "any",
    state: Annotated[
        State | None,
        Query(description="Only those that are in this state; those that wait for another worker are waiting."),
    ] = None,
    tries_of: Annotated[
        str,
        Query(alias="triesOf", max_length=64, description="Only this job, and those that tried the same again."),
    ] = "",
    start: Annotated[int, Query(ge=0, le=2**31, description="How many to leave out.")] = 0,
    page_start: Annotated[
        str,
        Query(alias="pageStart", max_length=100, description="First job of the page, from X-Next-Page-Start."),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most jobs on the page.")] = 10,
) -> JobsRecord:
    """For administrators and auditors. `X-Resource-Count` says how many there are."""
    caller.require(Operation.SEE_SYSTEM)
    if running.lower() in {"true", "t", "1"}:
        state = "running"
    wanted = JobFilter(action=_named(action), worker=_named(worker), state=state, tries_of=tries_of)
    place = _place(page_start) if page_start else None
    found = await rooms.jobs.list_jobs(wanted, place=place, start=start, limit=limit + 1)
    if len(found) > limit:
        response.headers[NEXT] = f"{found[limit].scheduled_at}.{found[limit].id}"
    response.headers[COUNT] = str(await rooms.jobs.count(wanted))
    return JobsRecord(jobs=[JobRecord.of(one) for one in found[:limit]])


def _named(text: str) -> str:
    return "" if text == "any" else text


def _place(text: str) -> Place:
    """Raises ApiError."""
    moment, _, job = text.partition(".")
    if not re.fullmatch(r"-?[0-9]{1,18}", moment, re.ASCII):
        raise ApiError("INVALID_PARAMETERS", [{"field": "pageStart", "message": "is what an answer said"}])
    return Place(int(moment), job)


@router.get("/jobs/counts", summary="Count jobs by state")
async def get_job_counts(
    caller: CallerDep, rooms: RoomsDep, action: _ActionQuery = "any", worker: _WorkerQuery = "any"
) -> CountsRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    counted = await rooms.jobs.counts(JobFilter(action=_named(action), worker=_named(worker)))
    return CountsRecord(**counted)


@router.post("/jobs", status_code=202, summary="Queue a job", responses=errors("INVALID_JOB"))
async def submit_job(form: JobForm, caller: CallerDep, rooms: RoomsDep) -> JobRecord:
    """For administrators. It runs as soon as a worker is free, or at its time."""
    caller.require(Operation.ADMINISTER)
    request = form.request(rooms, _moment(form.scheduled_at))
    return JobRecord.of(await rooms.jobs.submit(request, by=caller.actor))


def _moment(text: str) -> int | None:
    if not text:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
        milliseconds = round((found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise JobInvalid("scheduledAt", "is a moment (RFC 3339)") from None
    return milliseconds


@router.get("/jobs/{jobID}", summary="A job", responses=errors("NO_SUCH_JOB"))
async def get_job(jobID: str, caller: CallerDep, rooms: RoomsDep) -> JobRecord:  # noqa: N803 - DTR's word
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return JobRecord.of(await rooms.jobs.get(jobID))


@router.delete(
    "/jobs/{jobID}", status_code=204, summary="Cancel and remove a job", responses=errors("NO_SUCH_JOB")
)
async def delete_job(jobID: str, caller: CallerDep, rooms: RoomsDep) -> None:  # noqa: N803 - the same
    """For administrators. Its log goes with it."""
    caller.require(Operation.ADMINISTER)
    await rooms.jobs.delete(jobID, by=caller.actor)


@router.post("/jobs/{jobID}/cancel", status_code=204, summary="Cancel a job", responses=errors("NO_SUCH_JOB"))
async def cancel_job(jobID: str, caller: CallerDep, rooms: RoomsDep) -> None:  # noqa: N803 - the same
    """For administrators. One that ended stays as it is."""
    caller.require(Operation.ADMINISTER)
    await rooms.jobs.cancel(jobID, by=caller.actor)


@router.post(
    "/jobs/{jobID}/retry",
    status_code=202,
    summary="Try a job again",
    responses=errors("NO_SUCH_JOB", "JOB_NOT_ENDED"),
)
async def try_job_again(jobID: str, caller: CallerDep, rooms: RoomsDep) -> JobRecord:  # noqa: N803 - the same
    """For administrators. One that ended, however it did: what it was to do is queued once more."""
    caller.require(Operation.ADMINISTER)
    return JobRecord.of(await rooms.jobs.try_again(jobID, by=caller.actor))


@router.get(
    "/jobs/{jobID}/logs",
    summary="The log of a job",
    response_model=list[LineRecord],
    responses=errors("NO_SUCH_JOB"),
)
async def get_job_logs(
    jobID: str,  # noqa: N803 - the same
    caller: CallerDep,
    rooms: RoomsDep,
    stream: Annotated[bool, Query(description="Go on with a record a line, until the job ends.")] = False,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1, description="The first line.")] = 0,
    limit: Annotated[int, Query(ge=0, le=_MOST_LINES, description="Most lines; 0: as many as there may be.")] = 0,
    tail: Annotated[
        int, Query(ge=0, le=_MOST_LINES, description="The last so many lines; 0: from `offset` on.")
    ] = 0,
    level: Annotated[Level, Query(description="Only lines that are as serious, or more.")] = "info",
) -> list[LineRecord] | Response:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    if stream:
        await rooms.jobs.get(jobID)
        return StreamingResponse(_lines(rooms, jobID, offset, level), media_type="application/x-ndjson")
    if tail:
        found = await rooms.jobs.last_lines(jobID, limit=tail, level=level)
    else:
        found = await rooms.jobs.logs(jobID, offset=offset, limit=limit or _MOST_LINES, level=level)
    return [LineRecord(line_num=number, data=data) for number, data in found]


async def _lines(rooms: Rooms, job: str, offset: int, level: Level) -> AsyncIterator[bytes]:
    with contextlib.suppress(JobUnknown):  # deleted meanwhile, and its log with it
        while True:
            ended = (await rooms.jobs.get(job)).ended_at is not None  # before its log is read: then that is whole
            while found := await rooms.jobs.logs(job, offset=offset, limit=_MOST_LINES, level=level):
                offset = found[-1][0] + 1
                yield b"".join(
                    json.dumps({"lineNum": number, "data": data}).encode() + b"\n" for number, data in found
                )
            if ended:
                return
            await asyncio.sleep(_LOOK_SECONDS)


# --- schedules ------------------------------------------------------------------------------------------------


@router.get("/crons", summary="List schedules")
async def list_crons(caller: CallerDep, rooms: RoomsDep) -> CronsRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return CronsRecord(crons=[CronRecord.of(one) for one in await rooms.crons.list_crons()])


@router.post("/crons", status_code=202, summary="Give an action a schedule", responses=errors("INVALID_JOB"))
async def put_cron(form: CronForm, caller: CallerDep, rooms: RoomsDep) -> CronRecord:
    """For administrators. It takes the place of the one that the action had."""
    caller.require(Operation.ADMINISTER)
    return CronRecord.of(await rooms.crons.put(form.schedule, form.request(rooms), by=caller.actor))


@router.get("/crons/{action}", summary="The schedule of an action", responses=errors("NO_SUCH_CRON"))
async def get_cron(action: str, caller: CallerDep, rooms: RoomsDep) -> CronRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return CronRecord.of(await rooms.crons.get(action))


@router.delete(
    "/crons/{action}", status_code=204, summary="Take a schedule away", responses=errors("NO_SUCH_CRON")
)
async def delete_cron(action: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators. Jobs that it queued go on."""
    caller.require(Operation.ADMINISTER)
    await rooms.crons.delete(action, by=caller.actor)


# --- parameters of actions ------------------------------------------------------------------------------------


@router.get("/action_configs", summary="List parameters of actions")
async def list_action_configs(caller: CallerDep, rooms: RoomsDep) -> ActionConfigsRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    found = await rooms.jobs.list_configs()
    return ActionConfigsRecord(
        action_configs=[
            ActionConfigRecord(id=made, action=action, parameters=parameters) for action, made, parameters in found
        ]
    )


@router.post("/action_configs", status_code=202, summary="Configure an action", responses=errors("INVALID_JOB"))
async def put_action_config(form: ActionConfigForm, caller: CallerDep, rooms: RoomsDep) -> ActionConfigRecord:
    """For administrators. Jobs that begin from now on have these parameters, where they do not say otherwise."""
    caller.require(Operation.ADMINISTER)
    if form.action not in rooms.actions:
        raise JobInvalid("action", f"is one of {', '.join(sorted(rooms.actions))}")
    made = await rooms.jobs.put_config(form.action, form.parameters, by=caller.actor)
    return ActionConfigRecord(id=made, action=form.action, parameters=form.parameters)


@router.get(
    "/action_configs/{action}", summary="Parameters of an action", responses=errors("NO_SUCH_ACTION_CONFIG")
)
async def get_action_config(action: str, caller: CallerDep, rooms: RoomsDep) -> ActionConfigRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    made, parameters = await rooms.jobs.get_config(action)
    return ActionConfigRecord(id=made, action=action, parameters=parameters)


@router.delete(
    "/action_configs/{action}",
    status_code=204,
    summary="Let an action have its defaults",
    responses=errors("NO_SUCH_ACTION_CONFIG"),
)
async def delete_action_config(action: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators."""
    caller.require(Operation.ADMINISTER)
    await rooms.jobs.delete_config(action, by=caller.actor)


# --- workers --------------------------------------------------------------------------------------------------


@router.get("/workers", summary="List workers")
async def list_workers(caller: CallerDep, rooms: RoomsDep) -> WorkersRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return WorkersRecord(workers=[WorkerRecord_.of(one) for one in await rooms.workers.list_workers()])


@router.post(
    "/workers/{id}/capacity",
    status_code=202,
    response_class=Response,
    summary="Say what a worker may do",
    responses=errors("NO_SUCH_WORKER"),
)
async def set_worker_capacity(
    id: str,  # noqa: A002 - DTR's word
    form: CapacityForm,
    caller: CallerDep,
    rooms: RoomsDep,
) -> Response:
    """For administrators. It holds from the next job on."""
    caller.require(Operation.ADMINISTER)
    await rooms.workers.set_capacity(id, form.capacity_map, by=caller.actor)
    return Response(status_code=202)
