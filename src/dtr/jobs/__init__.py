"""
Jobs: work in the background, in a queue that the whole installation shares.

`Jobs` is the queue, `Crons` queues by schedule, `Worker` claims and runs; what an action does is given to the
worker by name. `submit` queues a job in the transaction of what caused it.
"""

from __future__ import annotations

from dtr.jobs.crons import Cron, Crons
from dtr.jobs.errors import ActionConfigUnknown, CronUnknown, JobInvalid, JobsError, JobUnknown, WorkerUnknown
from dtr.jobs.job import Job, JobRequest, Status, duration
from dtr.jobs.queue import Jobs, submit
from dtr.jobs.worker import Action, JobFailed, Run, Worker
from dtr.jobs.workers import WorkerRecord, Workers

__all__ = [
    "Action",
    "ActionConfigUnknown",
    "Cron",
    "CronUnknown",
    "Crons",
    "Job",
    "JobFailed",
    "JobInvalid",
    "JobRequest",
    "JobUnknown",
    "Jobs",
    "JobsError",
    "Run",
    "Status",
    "Worker",
    "WorkerRecord",
    "WorkerUnknown",
    "Workers",
    "duration",
    "submit",
]
