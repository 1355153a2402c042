"""Jobs on both databases: queued, claimed, run, cancelled, tried again, taken over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import text
from tests.support.jobs import change, ended, fails, has, until, waits, works

from dtr.db import Database, Statement, Transaction, open_database
from dtr.events import Actor
from dtr.jobs import (
    STATES,
    ActionConfigUnknown,
    Crons,
    CronUnknown,
    JobFailed,
    JobFilter,
    JobInvalid,
    JobOpen,
    JobRequest,
    Jobs,
    JobUnknown,
    Place,
    Run,
    Worker,
    Workers,
    WorkerUnknown,
    submit,
)
from dtr.jobs import worker as worker_module

HOUR = 3_600_000
LATER = 4_102_444_800_000
"""In the year 2100."""

# --- running --------------------------------------------------------------------------------------------------


async def test_a_job_runs_once_and_tells_what_it_did(jobs: Jobs, start: Callable[..., Worker]):
    start(works=works)
    queued = await jobs.submit(JobRequest(action="works", parameters={"depth": "all"}))
    assert (queued.status, queued.worker, queued.parameters) == ("waiting", "", {"depth": "all"})
    job = await ended(jobs, queued.id)
    assert (job.status, job.worker, job.done, job.total, job.unit) == ("done", "0123456789ab", 1, 2, "steps")
    (number, line), *others = await jobs.logs(job.id, limit=100)
    assert (number, json.loads(line)["msg"], json.loads(line)["level"], others) == (0, "working", "info", [])


async def test_a_job_says_what_it_came_to_when_it_ends_and_its_next_attempt_anew(
    jobs: Jobs, start: Callable[..., Worker]
):
    async def counts(run: Run) -> None:
        run.report({"bytes": 1})
        run.report({"bytes": 2**40, "blobs": 3})
        if run.parameters["fails"]:
            raise JobFailed("it cannot be done")

    start(counts=counts)
    for fails_ in ("", "yes"):
        queued = await jobs.submit(JobRequest(action="counts", parameters={"fails": fails_}))
        assert queued.result == {}
        assert (await ended(jobs, queued.id)).result == {"bytes": 2**40, "blobs": 3}


async def test_a_job_waits_for_its_time_and_for_somebody_who_can_do_it(jobs: Jobs, start: Callable[..., Worker]):
    start(works=works)
    later = await jobs.submit(JobRequest(action="works", scheduled_at=int(time.time() * 1000) + 3_600_000))
    foreign = await jobs.submit(JobRequest(action="elsewhere"))
    first = await jobs.submit(JobRequest(action="works"))
    await ended(jobs, first.id)
    assert (await jobs.get(later.id)).status == (await jobs.get(foreign.id)).status == "waiting"


async def test_what_is_queued_with_its_cause_goes_with_it(jobs: Jobs, database: Database):
    async def work(tx: Transaction) -> None:
        await submit(tx, JobRequest(action="works"))
        raise KeyError

    with pytest.raises(KeyError):
        await database.unit(work)
    assert await jobs.count() == 0


async def test_one_job_with_a_key_waits_at_a_time(jobs: Jobs, database: Database, start: Callable[..., Worker]):
    request = JobRequest(action="works", unique_key="scan:1")
    made = [await database.unit(lambda tx: submit(tx, request)) for _ in range(3)]
    assert [one is None for one in made] == [False, True, True]
    start(works=works)
    await ended(jobs, made[0] or "")
    assert await database.unit(lambda tx: submit(tx, request)) is not None


async def test_a_job_starts_at_once_though_another_process_queued_it(
    database: Database, database_url: str, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker_module, "_WATCH", 600.0)  # it does not look by itself
    other = open_database(database_url)
    moments: dict[str, float] = {}

    async def notes(run: Run) -> None:
        moments[run.job] = time.monotonic()

    start(notes=notes)
    queue = Jobs(other)
    await ended(queue, (await queue.submit(JobRequest(action="notes"))).id)
    delays = []
    for _ in range(9):
        job = await queue.submit(JobRequest(action="notes"))
        began = time.monotonic()
        await ended(queue, job.id)
        delays.append(moments[job.id] - began)
    await other.close()
    assert sorted(delays)[len(delays) // 2] < 0.5, delays


async def test_several_workers_do_every_job_once(jobs: Jobs, start: Callable[..., Worker]):
    seen: Counter[str] = Counter()

    async def counts(run: Run) -> None:
        seen[run.job] += 1
        await asyncio.sleep(0.001)

    for number in range(3):
        start(f"{number:012x}", counts=counts)
    made = [(await jobs.submit(JobRequest(action="counts"))).id for _ in range(60)]
    for job in made:
        assert (await ended(jobs, job)).status == "done"
    assert seen == Counter(made)


# --- failing --------------------------------------------------------------------------------------------------


async def test_a_job_that_fails_says_why(jobs: Jobs, start: Callable[..., Worker]):
    async def breaks(_run: Run) -> None:
        raise ZeroDivisionError("nothing to divide by")

    start(fails=fails, breaks=breaks)
    for action, message in (("fails", "it cannot be done"), ("breaks", "ZeroDivisionError: nothing to divide by")):
        job = await ended(jobs, (await jobs.submit(JobRequest(action=action))).id)
        assert job.status == "errored"
        assert json.loads((await jobs.logs(job.id, limit=1))[0][1])["msg"] == message


async def test_a_job_with_retries_is_queued_again_and_points_to_the_first(
    jobs: Jobs, database: Database, start: Callable[..., Worker]
):
    start(fails=fails)
    first = await ended(jobs, (await jobs.submit(JobRequest(action="fails", retries=2))).id)
    assert (first.retries_left, first.retries_total, first.retry_from) == (2, 2, "")
    for _ in range(2):
        await change(database, "now", "waiting")
        await until(lambda: _none_open(jobs))
    tried = await jobs.list_jobs(limit=10)
    assert sorted((one.retries_left, one.retry_from) for one in tried) == [(0, first.id), (1, first.id), (2, "")]
    assert {one.status for one in tried} == {"errored"}


async def test_a_failure_says_when_to_try_again_and_when_not_to(jobs: Jobs, start: Callable[..., Worker]):
    async def busy(_run: Run) -> None:
        raise JobFailed("the other side is busy", retry_after=90)

    async def hopeless(_run: Run) -> None:
        raise JobFailed("it will never do", is_lasting=True)

    start(busy=busy, hopeless=hopeless)
    began = time.time() * 1000
    await ended(jobs, (await jobs.submit(JobRequest(action="busy", retries=2))).id)
    await ended(jobs, (await jobs.submit(JobRequest(action="hopeless", retries=2))).id)
    retry = (await jobs.list_jobs(JobFilter(action="busy"), limit=1))[0]
    assert (retry.status, retry.retries_left) == ("waiting", 1)
    assert retry.scheduled_at >= began + 90_000
    assert await jobs.count(JobFilter(action="hopeless")) == 1


async def _none_open(jobs: Jobs) -> bool:
    return not any(one.status in {"waiting", "running"} and one.scheduled_at < time.time() * 1000
                   for one in await jobs.list_jobs(limit=100))  # fmt: skip


async def test_a_job_that_takes_too_long_is_stopped(jobs: Jobs, start: Callable[..., Worker]):
    start(waits=waits)
    job = await ended(jobs, (await jobs.submit(JobRequest(action="waits", deadline=100))).id)
    assert job.status == "errored"
    assert "its time" in (await jobs.logs(job.id, limit=10))[-1][1]


async def test_a_job_that_does_not_stop_is_given_up(jobs: Jobs, start: Callable[..., Worker]):
    released = asyncio.Event()

    async def stubborn(_run: Run) -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    start(stubborn=stubborn)
    job = await jobs.submit(JobRequest(action="stubborn", stop_timeout=50))
    await has(jobs, job.id, "running")
    await jobs.cancel(job.id)
    assert (await ended(jobs, job.id)).status == "errored"
    released.set()


# --- cancelling -----------------------------------------------------------------------------------------------


async def test_a_job_can_be_cancelled_before_and_while_it_runs(jobs: Jobs, start: Callable[..., Worker]):
    waiting = await jobs.submit(JobRequest(action="waits"))
    await jobs.cancel(waiting.id)
    assert (await jobs.get(waiting.id)).status == "canceled"
    start(waits=waits)
    running = await jobs.submit(JobRequest(action="waits"))
    await has(jobs, running.id, "running")
    await jobs.cancel(running.id)
    assert (await ended(jobs, running.id)).status == "canceled"
    await jobs.cancel(running.id)
    assert (await jobs.get(running.id)).status == "canceled"


async def test_a_deleted_job_is_stopped_and_gone(jobs: Jobs, start: Callable[..., Worker]):
    stopped = asyncio.Event()

    async def tells(run: Run) -> None:
        run.log("begun")
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()

    start(tells=tells)
    job = await jobs.submit(JobRequest(action="tells"))
    await has(jobs, job.id, "running")
    await jobs.delete(job.id)
    async with asyncio.timeout(60):
        await stopped.wait()
    for gone in (jobs.get(job.id), jobs.delete(job.id), jobs.cancel(job.id), jobs.logs(job.id, limit=1)):
        with pytest.raises(JobUnknown):
            await gone


# --- workers --------------------------------------------------------------------------------------------------


async def _vanish(worker: Worker) -> None:
    for one in worker._running.values():
        one.task.cancel()
    worker._running.clear()


async def test_what_a_dead_worker_ran_goes_on_elsewhere(
    jobs: Jobs, database: Database, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
):
    begun: list[str] = []

    async def slow(_run: Run) -> None:
        begun.append("slow")
        await asyncio.sleep(0.2 if len(begun) > 1 else 600)

    killed = start("00000000000a", slow=slow)
    job = await jobs.submit(JobRequest(action="slow"))
    await has(jobs, job.id, "running")
    async with asyncio.timeout(60):
        while not begun:  # the worker hears of its claim after the database has it
            await asyncio.sleep(0.01)
    monkeypatch.setattr(Worker, "_shut_down", _vanish)  # as when its process is killed
    killed.cancel()
    await asyncio.wait([killed])
    monkeypatch.undo()
    assert (await jobs.get(job.id)).status == "running"
    await change(database, "kill", "00000000000a")  # its last heartbeat is over
    start("00000000000b", slow=slow)
    found = await ended(jobs, job.id)
    assert (found.status, found.worker) == ("done", "00000000000b")
    assert len(begun) == 2


async def test_a_worker_that_was_held_for_dead_stops_what_others_took_over(
    jobs: Jobs, database: Database, start: Callable[..., Worker]
):
    stopped: list[str] = []

    async def slow(run: Run) -> None:
        try:
            await asyncio.sleep(600 if not stopped else 0)
        except asyncio.CancelledError:
            stopped.append(run.job)
            raise

    start("00000000000a", slow=slow)
    job = await jobs.submit(JobRequest(action="slow"))
    await has(jobs, job.id, "running")

    async def is_taken_over() -> bool:  # unless a heartbeat came first: then nobody has noticed
        await change(database, "kill", "00000000000a")
        return (await jobs.get(job.id)).status != "running"

    await until(is_taken_over)
    assert (await ended(jobs, job.id)).status == "done"  # it lives again with its next heartbeat
    assert stopped == [job.id]


async def test_a_worker_that_stops_leaves_its_jobs_to_others(jobs: Jobs, start: Callable[..., Worker]):
    seconds = [600, 0]

    async def slow(_run: Run) -> None:
        await asyncio.sleep(seconds.pop(0))

    first = start("00000000000a", slow=slow)
    job = await jobs.submit(JobRequest(action="slow"))
    await has(jobs, job.id, "running")
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert (await jobs.get(job.id)).status == "worker_shutdown"
    start("00000000000b", slow=slow)
    found = await ended(jobs, job.id)
    assert (found.status, found.worker) == ("done", "00000000000b")


async def test_a_worker_takes_no_more_than_its_capacity(
    jobs: Jobs, database: Database, start: Callable[..., Worker]
):
    busy = peak = 0

    async def scans(_run: Run) -> None:
        nonlocal busy, peak
        busy += 1
        peak = max(peak, busy)
        await asyncio.sleep(0.05)
        busy -= 1

    start("00000000000a", scans=scans, works=works)
    workers = Workers(database)
    await until(workers.list_workers)
    scan = JobRequest(action="scans", capacity={"scan": 1})
    made = [(await jobs.submit(scan)).id for _ in range(5)]
    # Many that do not fit do not stand in the way of one that does.
    assert (await ended(jobs, (await jobs.submit(JobRequest(action="works"))).id)).status == "done"
    assert {(await jobs.get(one)).status for one in made} == {"waiting"}
    await workers.set_capacity("00000000000a", {"scan": 2})
    for one in made:
        await ended(jobs, one)
    assert peak == 2
    (known,) = await workers.list_workers()
    assert (known.id, known.status, known.capacity, known.node) == ("00000000000a", "alive", {"scan": 2}, "here")
    with pytest.raises(WorkerUnknown):
        await workers.set_capacity("nobody", {})


async def test_a_job_may_need_nothing_of_a_capacity_that_its_worker_has_not(
    jobs: Jobs, start: Callable[..., Worker]
):
    start(works=works)
    job = await jobs.submit(JobRequest(action="works", capacity={"scan": 0}))
    assert (await ended(jobs, job.id)).status == "done"
    assert (await ended(jobs, (await jobs.submit(JobRequest(action="works"))).id)).status == "done"


async def test_what_waits_for_others_leaves_places_for_the_rest(jobs: Jobs, start: Callable[..., Worker]):
    busy = peak = 0
    gate = asyncio.Event()

    async def calls(_run: Run) -> None:
        nonlocal busy, peak
        busy += 1
        peak = max(peak, busy)
        await gate.wait()
        busy -= 1

    made = [(await jobs.submit(JobRequest(action="calls"))).id for _ in range(60)]
    start(concurrency=4, at_most={"calls": 3}, calls=calls, works=works)
    quick = await jobs.submit(JobRequest(action="works"))  # behind all of them
    assert (await ended(jobs, quick.id)).status == "done"
    assert busy == 3
    gate.set()
    for one in made:
        assert (await ended(jobs, one)).status == "done"
    assert peak == 3


# --- lists, parameters, schedules -----------------------------------------------------------------------------


async def test_jobs_are_listed_latest_first_by_action_worker_and_state(jobs: Jobs, start: Callable[..., Worker]):
    made = [
        (await jobs.submit(JobRequest(action=action, scheduled_at=number + 1))).id
        for number, action in enumerate(["one", "two", "one", "two"])
    ]
    assert [one.id for one in await jobs.list_jobs()] == made[::-1]
    assert [one.id for one in await jobs.list_jobs(start=1, limit=2)] == [made[2], made[1]]
    assert [one.id for one in await jobs.list_jobs(JobFilter(action="one"))] == [made[2], made[0]]
    assert (await jobs.count(), await jobs.count(JobFilter(action="two"))) == (4, 2)
    assert await jobs.count(JobFilter(state="running")) == 0
    start(one=waits)
    await has(jobs, made[0], "running")
    await has(jobs, made[2], "running")
    assert {one.id for one in await jobs.list_jobs(JobFilter(state="running"))} == {made[0], made[2]}
    assert len(await jobs.list_jobs(JobFilter(worker="0123456789ab"))) == 2


async def test_a_page_of_jobs_begins_at_a_place(jobs: Jobs):
    made = [(await jobs.submit(JobRequest(action="one", scheduled_at=moment))).id for moment in (5, 7, 7, 7, 9)]
    listed = await jobs.list_jobs()
    assert [one.scheduled_at for one in listed] == [9, 7, 7, 7, 5]
    assert {one.id for one in listed} == set(made)
    for number, one in enumerate(listed):
        place = Place(one.scheduled_at, one.id)
        assert await jobs.list_jobs(place=place, limit=2) == listed[number : number + 2]
        assert await jobs.list_jobs(JobFilter(action="one"), place=place) == listed[number:]
        assert await jobs.list_jobs(JobFilter(action="two"), place=place) == []


async def test_jobs_are_counted_and_listed_by_state(jobs: Jobs, start: Callable[..., Worker]):
    made = {
        action: (await jobs.submit(JobRequest(action=action))).id for action in ("works", "fails", "waits", "one")
    }
    await jobs.cancel(made["one"])
    later = await jobs.submit(JobRequest(action="works", scheduled_at=LATER))
    start(works=works, fails=fails, waits=waits)
    for action in ("works", "fails"):
        await ended(jobs, made[action])
    await has(jobs, made["waits"], "running")
    wanted = {
        "waiting": later.id,
        "running": made["waits"],
        "done": made["works"],
        "errored": made["fails"],
        "canceled": made["one"],
    }
    assert await jobs.counts() == dict.fromkeys(STATES, 1)
    for name, job in wanted.items():
        found = JobFilter(state=name)
        assert [one.id for one in await jobs.list_jobs(found)] == [job]
        assert await jobs.count(found) == 1
    assert await jobs.counts(JobFilter(action="works", state="errored")) == {
        **dict.fromkeys(STATES, 0),
        "waiting": 1,
        "done": 1,
    }
    assert await jobs.counts(JobFilter(worker="0123456789ab")) == {
        **dict.fromkeys(STATES, 1),
        "waiting": 0,
        "canceled": 0,
    }
    with pytest.raises(ValueError, match="no such state"):
        JobFilter(state="gone")


async def test_a_job_says_why_there_is_it_and_when_it_ran(jobs: Jobs, start: Callable[..., Worker]):
    ada = Actor("user", "1", "ada")
    asked = await jobs.submit(JobRequest(action="fails", retries=1), by=ada)
    assert (asked.cause, asked.caused_by, asked.started_at, asked.ended_at) == ("account", "ada", None, None)
    assert (await jobs.submit(JobRequest(action="later", scheduled_at=LATER))).cause == "command"
    start(fails=fails)
    over = await ended(jobs, asked.id)
    assert over.started_at is not None
    assert over.ended_at is not None
    assert asked.scheduled_at <= over.started_at <= over.ended_at
    (retry,) = [one for one in await jobs.list_jobs(JobFilter(tries_of=asked.id)) if one.id != asked.id]
    assert (retry.cause, retry.caused_by) == ("retry", "")


async def test_what_ended_can_be_tried_again_and_its_tries_are_found(jobs: Jobs, start: Callable[..., Worker]):
    request = JobRequest(
        action="fails", parameters={"a": "1"}, capacity={"nothing": 0}, deadline=60_000, stop_timeout=5_000
    )
    first = await jobs.submit(request)
    with pytest.raises(JobOpen):
        await jobs.try_again(first.id)
    start(fails=fails)
    await ended(jobs, first.id)
    second = await jobs.try_again(first.id, by=Actor("user", "1", "ada"))
    assert (second.retry_from, second.cause, second.caused_by) == (first.id, "account", "ada")
    assert (second.parameters, second.capacity, second.deadline, second.stop_timeout) == (
        first.parameters, first.capacity, 60_000, 5_000,
    )  # fmt: skip
    await ended(jobs, second.id)
    third = await jobs.try_again(second.id)
    assert third.retry_from == first.id
    await jobs.submit(request)
    tries = await jobs.list_jobs(JobFilter(tries_of=first.id))
    assert {one.id for one in tries} == {first.id, second.id, third.id}
    with pytest.raises(JobUnknown):
        await jobs.try_again("nothing")


async def test_logs_are_read_from_the_end_and_by_what_is_serious(jobs: Jobs, start: Callable[..., Worker]):
    async def talks(run: Run) -> None:
        for number in range(6):
            run.log(f"line {number}", "warning" if number == 1 else "error" if number == 4 else "info")

    job = await jobs.submit(JobRequest(action="talks"))
    assert await jobs.last_lines(job.id, limit=10) == []
    start(talks=talks)
    await ended(jobs, job.id)

    def numbers(lines: list[tuple[int, str]]) -> list[int]:
        return [number for number, _ in lines]

    assert numbers(await jobs.last_lines(job.id, limit=2)) == [4, 5]
    assert numbers(await jobs.last_lines(job.id, limit=9, level="warning")) == [1, 4]
    assert numbers(await jobs.logs(job.id, limit=9, level="error")) == [4]
    assert numbers(await jobs.logs(job.id, limit=9, level="warning", offset=2)) == [4]
    with pytest.raises(JobUnknown):
        await jobs.last_lines("nothing", limit=1)


async def test_a_worker_says_what_it_runs_and_how_much_it_could(
    jobs: Jobs, start: Callable[..., Worker], database: Database
):
    workers = Workers(database)
    start(concurrency=3, waits=waits)
    await until(workers.list_workers)
    await workers.set_capacity("0123456789ab", {"scan": 5})
    made = [await jobs.submit(JobRequest(action="waits", capacity={"scan": 2})) for _ in range(2)]
    for one in made:
        await has(jobs, one.id, "running")
    (worker,) = await workers.list_workers()
    assert (worker.places, worker.running, worker.used) == (3, {"waits": 2}, {"scan": 4})


async def test_old_jobs_go_with_their_logs_and_those_that_did_not_end_stay(
    jobs: Jobs, database: Database, start: Callable[..., Worker]
):
    start(works=works)
    moment = round(time.time() * 1000)
    for age in (9, 8, 3, 2, 1):
        await ended(jobs, (await jobs.submit(JobRequest(action="works", scheduled_at=moment - age * HOUR))).id)
    waiting = await jobs.submit(JobRequest(action="other", scheduled_at=1))
    assert await jobs.prune(max_age=5 * HOUR, keep=None) == 2
    assert await jobs.prune(max_age=None, keep=1) == 2
    assert [one.scheduled_at for one in await jobs.list_jobs()] == [moment - HOUR, 1]
    assert (await jobs.get(waiting.id)).status == "waiting"
    rows = await database.fetch_all(Statement(text("SELECT DISTINCT job FROM job_logs")))
    assert len(rows) == 1


async def test_parameters_of_a_job_go_before_those_of_its_action(jobs: Jobs, start: Callable[..., Worker]):
    given: list[dict[str, str]] = []

    async def reads(run: Run) -> None:
        given.append(dict(run.parameters))

    made = await jobs.put_config("reads", {"depth": "all", "mode": "fast"})
    assert await jobs.put_config("reads", {"depth": "all", "mode": "slow"}) == made
    assert await jobs.get_config("reads") == (made, {"depth": "all", "mode": "slow"})
    assert await jobs.list_configs() == [("reads", made, {"depth": "all", "mode": "slow"})]
    start(reads=reads)
    await ended(jobs, (await jobs.submit(JobRequest(action="reads", parameters={"depth": "1"}))).id)
    await jobs.delete_config("reads")
    await ended(jobs, (await jobs.submit(JobRequest(action="reads"))).id)
    assert given == [{"depth": "1", "mode": "slow"}, {}]
    for missing in (jobs.get_config("reads"), jobs.delete_config("reads")):
        with pytest.raises(ActionConfigUnknown):
            await missing


async def test_a_schedule_queues_one_job_when_its_time_comes(
    jobs: Jobs, database: Database, start: Callable[..., Worker]
):
    crons = Crons(database)
    hour = (time.gmtime().tm_hour + 12) % 24  # that does not come meanwhile
    cron = await crons.put(f"0 0 {hour} * * *", JobRequest(action="works", parameters={"depth": "all"}, retries=1))
    assert time.gmtime(cron.next_run / 1000)[3:6] == (hour, 0, 0)
    assert cron.next_run > time.time() * 1000
    assert await crons.queue_due() == 0
    for expected in (1, 0):  # while one waits, no other is queued
        await change(database, "due", "works")
        assert await crons.queue_due() == expected
    assert (await crons.get("works")).next_run == cron.next_run
    start(works=works)
    (job,) = await jobs.list_jobs()
    assert (job.parameters, job.retries_total) == ({"depth": "all"}, 1)
    assert (await ended(jobs, job.id)).status == "done"
    again = await crons.put("@hourly", JobRequest(action="works"))
    assert (again.id, [one.schedule for one in await crons.list_crons()]) == (cron.id, ["@hourly"])
    await crons.ensure("@daily", JobRequest(action="works"))
    assert (await crons.get("works")).schedule == "@hourly"
    await crons.delete("works")
    for missing in (crons.get("works"), crons.delete("works")):
        with pytest.raises(CronUnknown):
            await missing


async def test_a_schedule_that_names_no_moment_is_refused(database: Database):
    with pytest.raises(JobInvalid) as refused:
        await Crons(database).put("0 0 0 30 2 *", JobRequest(action="works"))
    assert refused.value.field == "schedule"


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("action", JobRequest(action="No Action")),
        ("retries", JobRequest(action="works", retries=-1)),
        ("capacityMap", JobRequest(action="works", capacity={"scan": -1})),
        ("deadline", JobRequest(action="works", deadline=-1)),
    ],
)
async def test_a_job_that_cannot_be_is_refused(jobs: Jobs, field: str, request_: JobRequest):
    with pytest.raises(JobInvalid) as refused:
        await jobs.submit(request_)
    assert refused.value.field == field
