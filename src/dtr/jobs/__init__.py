"""
Jobs: work in the background, in a queue that the whole installation shares.

`Jobs` is the queue, `Crons` queues by schedule, `Worker` claims and runs; what an action does is given to the
worker by name. `submit` queues a job in the transaction of what caused it.
"""

from __future__ import annotations

from dtr.jobs.crons import Cron, Crons
from dtr.jobs.errors import (
    ActionConfigUnknown,
    CronUnknown,
    JobInvalid,
    JobOpen,
    JobsError,
    JobUnknown,
    WorkerUnknown,
)
from dtr.jobs.job import ActionDescription, Cause, Job, JobRequest, Level, ParameterKind, Status, duration
from dtr.jobs.listing import STATES, JobFilter, Place, State
from dtr.jobs.queue import Jobs, submit
from dtr.jobs.worker import Action, JobFailed, Run, Worker
from dtr.jobs.workers import WorkerRecord, Workers

__all__ = [
    "STATES",
    "Action",
    "ActionConfigUnknown",
    "ActionDescription",
    "Cause",
    "Cron",
    "CronUnknown",
    "Crons",
    "Job",
    "JobFailed",
    "JobFilter",
    "JobInvalid",
    "JobOpen",
    "JobRequest",
    "JobUnknown",
    "Jobs",
    "JobsError",
    "Level",
    "ParameterKind",
    "Place",
    "Run",
    "State",
    "Status",
    "Worker",
    "WorkerRecord",
    "WorkerUnknown",
    "Workers",
    "duration",
    "submit",
]
