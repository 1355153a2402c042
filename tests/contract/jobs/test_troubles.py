"""What goes wrong with workers and their jobs, on both databases: nothing is lost, and nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.jobs import change, ended, fails, has, until, waits, works

from dtr.db import Database, DatabaseBusy, DatabaseUnavailable, Statement
from dtr.jobs import Crons, JobFilter, JobRequest, Jobs, Place, Run, Worker
from dtr.jobs import queue as queue_module
from dtr.jobs import worker as worker_module
from dtr.jobs import workers as workers_module
from dtr.jobs.listing import listing


async def said(jobs: Jobs, job: str) -> list[str]:
    return [json.loads(line)["msg"] for _, line in await jobs.logs(job, limit=100)]


def make_worker(database: Database, name: str = "00000000000b", **actions: Any) -> Worker:
    """One that does what it is told, step by step."""
    return Worker(database, Crons(database), actions, worker=name, node="here")


class Stubborn:
    """An action that does not let itself be cancelled, until it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, _run: Run) -> None:
        while not self.released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.released.wait()


async def test_a_job_that_ignores_its_deadline_is_given_up_and_tried_again(jobs: Jobs, start: Callable[..., Any]):
    stubborn = Stubborn()
    start(stubborn=stubborn)
    request = JobRequest(action="stubborn", deadline=50, stop_timeout=50, retries=1)
    job = await ended(jobs, (await jobs.submit(request)).id)
    assert (job.status, await said(jobs, job.id)) == ("errored", ["the job does not stop"])
    assert [one.retry_from for one in await jobs.list_jobs()] == [job.id, ""]
    stubborn.released.set()


async def test_what_was_cancelled_is_not_tried_again_though_it_does_not_stop_or_fails(
    jobs: Jobs, start: Callable[..., Any]
):
    stubborn = Stubborn()

    async def breaks(_run: Run) -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            raise ValueError("while it was cleaning up") from None

    start(stubborn=stubborn, breaks=breaks)
    for action, status in (("stubborn", "errored"), ("breaks", "canceled")):
        job = await jobs.submit(JobRequest(action=action, stop_timeout=50, retries=3))
        await has(jobs, job.id, "running")
        await jobs.cancel(job.id)
        assert (await ended(jobs, job.id)).status == status
    assert await jobs.count() == 2
    stubborn.released.set()


async def test_a_cancellation_holds_though_the_worker_stops_before_it_sees_it(
    jobs: Jobs, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker_module, "_WATCH", 60)
    task = start(waits=waits)
    job = await jobs.submit(JobRequest(action="waits"))
    await has(jobs, job.id, "running")
    await jobs.cancel(job.id)
    assert (await jobs.get(job.id)).status == "cancel_request"
    task.cancel()
    await asyncio.wait([task])
    assert (await jobs.get(job.id)).status == "canceled"


async def test_an_action_that_something_of_its_own_cancels_has_failed(jobs: Jobs, start: Callable[..., Any]):
    async def breaks(_run: Run) -> None:
        inner = asyncio.create_task(asyncio.sleep(600))
        inner.cancel()
        await inner

    start(breaks=breaks)
    job = await ended(jobs, (await jobs.submit(JobRequest(action="breaks"))).id)
    assert (job.status, await said(jobs, job.id)) == ("errored", ["the action was cancelled from within"])


async def test_how_a_job_ended_is_written_as_soon_as_the_database_takes_it(
    jobs: Jobs, database: Database, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    refused = 0
    report = Worker._report

    async def refuse(self: Worker, tx: Any, reports: Any) -> None:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise DatabaseUnavailable("for a moment")
        await report(self, tx, reports)

    monkeypatch.setattr(Worker, "_report", refuse)
    start(works=works)
    job = await ended(jobs, (await jobs.submit(JobRequest(action="works"))).id)
    assert (job.status, job.done, await said(jobs, job.id), refused) == ("done", 1, ["working"], 2)


class Unlucky:
    """An action that the database does not answer so many times."""

    def __init__(self, failures: int) -> None:
        self.left, self.begun = failures, 0

    async def __call__(self, run: Run) -> None:
        self.begun += 1
        if self.left:
            self.left -= 1
            raise DatabaseBusy("others hold the rows")
        run.log("working")


async def test_an_action_that_the_database_did_not_answer_begins_again(
    jobs: Jobs, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker_module, "_AGAIN_SECONDS", (0.01, 0.02))
    unlucky, luckless = Unlucky(2), Unlucky(100)
    start(unlucky=unlucky, luckless=luckless)
    job = await ended(jobs, (await jobs.submit(JobRequest(action="unlucky"))).id)
    again = [f"DatabaseBusy: others hold the rows; it begins again in {pause} s" for pause in (0.01, 0.02)]
    assert (job.status, await said(jobs, job.id)) == ("done", [*again, "working"])
    job = await ended(jobs, (await jobs.submit(JobRequest(action="luckless", retries=1))).id)
    assert (job.status, await said(jobs, job.id)) == ("errored", [*again, "DatabaseBusy: others hold the rows"])
    assert [one.retry_from for one in await jobs.list_jobs(JobFilter(action="luckless"))] == [job.id, ""]


async def test_a_job_that_waits_for_the_database_is_stopped_as_any_other(jobs: Jobs, start: Callable[..., Any]):
    unlucky = Unlucky(100)
    start(unlucky=unlucky)
    job = await jobs.submit(JobRequest(action="unlucky"))
    await until(lambda: jobs.logs(job.id, limit=1))
    await jobs.cancel(job.id)
    assert (await ended(jobs, job.id)).status == "canceled"


async def test_a_worker_that_cannot_renew_its_heartbeat_stops_its_jobs_before_others_take_them(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
):
    stopped = asyncio.Event()

    async def slow(_run: Run) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.set()

    for name, seconds in (("_BEAT", 0.05), ("_GUARD", 0.05), ("_FENCE", 600)):
        monkeypatch.setattr(worker_module, name, seconds)
    hangs = asyncio.Event()

    async def beat(_self: Worker) -> None:
        await hangs.wait()  # as a connection to a host that is gone

    worker = make_worker(database, slow=slow)
    monkeypatch.setattr(Worker, "_beat", beat)
    task = asyncio.create_task(worker.run())
    job = await jobs.submit(JobRequest(action="slow"))
    await has(jobs, job.id, "running")
    monkeypatch.setattr(worker_module, "_FENCE", 0.3)
    async with asyncio.timeout(60):
        await stopped.wait()
    found = await has(jobs, job.id, "worker_shutdown")  # the database did answer in the end
    await asyncio.sleep(0.2)
    assert (await jobs.get(job.id)).updated_at == found.updated_at  # and it claims nothing
    task.cancel()
    await asyncio.wait([task])


async def test_a_worker_that_was_held_for_dead_stops_its_jobs_before_anybody_claims_them(
    jobs: Jobs, database: Database
):
    stubborn = Stubborn()
    first, second = (make_worker(database, name, stubborn=stubborn) for name in ("00000000000a", "00000000000b"))
    for worker in (first, second):
        await worker._register()
    job = await jobs.submit(JobRequest(action="stubborn"))
    assert await first._claim() == 1
    running = first._running[job.id].task
    await change(database, "kill", "00000000000a")
    await second._take_over()
    assert (await jobs.get(job.id)).status == "worker_dead"
    await first._beat()
    assert (await jobs.get(job.id)).status == "worker_resurrection"
    assert await second._claim() == 0
    stubborn.released.set()  # only now it lets itself be stopped
    await first._look_after()
    await asyncio.wait([running])
    assert (await jobs.get(job.id)).status == "done"


async def test_what_kills_its_workers_has_failed_in_the_end(jobs: Jobs, database: Database):
    job = await jobs.submit(JobRequest(action="works", retries=1))
    worker = make_worker(database, works=works)
    for death in range(1, 6):
        assert (await jobs.get(job.id)).status == ("waiting" if death == 1 else "worker_dead")
        await change(database, "orphan", job.id)
        await worker._take_over()
    assert (await jobs.get(job.id)).status == "errored"
    assert await said(jobs, job.id) == ["5 workers died while they ran this job"]
    (retry, _) = await jobs.list_jobs()
    assert (retry.retry_from, retry.status) == (job.id, "waiting")


async def test_jobs_that_ran_beside_the_one_that_kills_its_workers_do_not_fail_with_it(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
):
    worker = Worker(database, Crons(database), {"waits": waits}, worker="0" * 12, node="here", concurrency=3)
    await worker._register()
    together = [(await jobs.submit(JobRequest(action="waits", scheduled_at=one))).id for one in range(1, 5)]
    for _ in range(2):
        for job in together:
            await change(database, "orphan", job)
        await worker._take_over()
    fresh = (await jobs.submit(JobRequest(action="waits"))).id
    # One of those at a time, which does not keep others waiting, though they come first.
    assert await worker._claim() == 2
    assert worker._running.keys() == {together[0], fresh}
    assert await worker._claim() == 0
    # Whoever runs for long is not what kills at once.
    monkeypatch.setattr(worker_module, "_PROBATION_SECONDS", 0)
    assert await worker._claim() == 1
    assert worker._running.keys() == {*together[:2], fresh}
    await worker._shut_down()


async def test_the_log_of_a_job_goes_on_where_its_first_worker_left_it(
    jobs: Jobs, database: Database, start: Callable[..., Any]
):
    task = start("00000000000a", waits=waits)
    job = await jobs.submit(JobRequest(action="waits"))
    await until(lambda: jobs.logs(job.id, limit=1))
    task.cancel()
    await asyncio.wait([task])
    start("00000000000b", waits=works)
    await ended(jobs, job.id)
    lines = await jobs.logs(job.id, limit=10)
    assert [number for number, _ in lines] == [0, 1, 2, 3]
    expected = ["waiting", "stopped: the worker stops", "goes on after worker 00000000000a", "working"]
    assert await said(jobs, job.id) == expected


async def test_many_jobs_that_end_together_are_written_down_each_as_it_ended(
    jobs: Jobs, start: Callable[..., Any]
):
    start(works=works, fails=fails, concurrency=8)
    made = [(await jobs.submit(JobRequest(action=action))).id for action in ("works", "fails") * 20]
    for number, job in enumerate(made):
        assert (await ended(jobs, job)).status == ("errored" if number % 2 else "done")
        assert await said(jobs, job) == ["it cannot be done" if number % 2 else "working"]


async def test_progress_is_news_of_a_job(jobs: Jobs, start: Callable[..., Any]):
    async def counts(run: Run) -> None:
        for number in range(600):
            run.progress(number, None, "steps")
            await asyncio.sleep(0.1)

    start(counts=counts)
    job = await jobs.submit(JobRequest(action="counts"))
    first = await has(jobs, job.id, "running")
    await until(lambda: _has_gone_on(jobs, first.id))
    later = await jobs.get(job.id)
    assert later.updated_at > first.updated_at
    assert (later.total, later.unit) == (None, "steps")


async def _has_gone_on(jobs: Jobs, job: str) -> bool:
    return ((await jobs.get(job)).done or 0) > 0


async def test_jobs_that_pass_are_forgotten_a_day_later(jobs: Jobs, database: Database, start: Callable[..., Any]):
    start(works=works, fails=fails)
    for action in ("works", "works", "fails"):
        await ended(jobs, (await jobs.submit(JobRequest(action=action))).id)
    waiting = await jobs.submit(JobRequest(action="passing", scheduled_at=1))
    kept = await ended(jobs, (await jobs.submit(JobRequest(action="fails"))).id)
    await change(database, "yesterday", "works")
    assert await queue_module.forget(database, ["passing", "works"]) == 2
    assert {one.id for one in await jobs.list_jobs(JobFilter(action="works"))} == set()
    assert (await jobs.get(waiting.id)).status == "waiting"
    assert (await jobs.get(kept.id)).status == "errored"


async def test_the_state_of_the_queue_is_told_by_action(jobs: Jobs, start: Callable[..., Any]):
    start(waits=waits)
    moment = round(time.time() * 1000)
    for hours in (-6, -3, 6):
        await jobs.submit(JobRequest(action="elsewhere", scheduled_at=moment + hours * 3_600_000))
    running = await jobs.submit(JobRequest(action="waits"))
    await has(jobs, running.id, "running")
    state = await jobs.state()
    assert state["waits"] == (0, 0.0, 1)
    waiting, seconds, busy = state["elsewhere"]
    assert (waiting, busy) == (2, 0)
    assert 5.9 < seconds / 3600 < 6.1


async def test_a_job_that_begins_while_its_worker_looks_after_others_is_left_alone(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
):
    worker = make_worker(database, waits=waits)
    await worker._register()
    await jobs.submit(JobRequest(action="waits"))
    assert await worker._claim() == 1
    fetch_all = database.fetch_all

    async def fetch(statement: Statement, /, **parameters: Any) -> Any:
        found = await fetch_all(statement, **parameters)
        if statement is worker_module._STATES:
            await jobs.submit(JobRequest(action="waits"))
            assert await worker._claim() == 1
        return found

    monkeypatch.setattr(database, "fetch_all", fetch)
    await worker._look_after()
    assert [one.reason for one in worker._running.values()] == ["", ""]
    monkeypatch.undo()
    await worker._shut_down()


async def test_what_was_claimed_in_the_moment_its_worker_stops_is_left_to_others(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
):
    committed, told = asyncio.Event(), asyncio.Event()
    unit = database.unit

    async def slowly(work: Any, /, **options: Any) -> Any:
        result = await unit(work, **options)
        if work.__qualname__ == "Worker._claim.<locals>.work":
            committed.set()
            await told.wait()
        return result

    worker = make_worker(database, waits=waits)
    monkeypatch.setattr(database, "unit", slowly)
    task = asyncio.create_task(worker.run())
    job = await jobs.submit(JobRequest(action="waits"))
    async with asyncio.timeout(60):
        await committed.wait()
    assert (await jobs.get(job.id)).status == "running"
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, told.set)
    await asyncio.wait([task])
    assert (await jobs.get(job.id)).status == "worker_shutdown"
    assert await said(jobs, job.id) == ["waiting", "stopped: the worker stops"]


async def test_a_job_that_is_stopped_before_its_first_step_is_left_to_others(jobs: Jobs, database: Database):
    worker = make_worker(database, waits=waits)
    await worker._register()
    job = await jobs.submit(JobRequest(action="waits"))
    start = worker._start

    def start_and_stop(row: Any) -> None:
        start(row)
        worker._stop_all(worker_module._LOST)

    worker._start = start_and_stop  # type: ignore[method-assign] # as the guard's turn comes first
    assert await worker._claim() == 1
    await has(jobs, job.id, "worker_shutdown")
    await worker._shut_down()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_asked_all_the_time_looks_at_open_jobs_alone(database: Database):
    asked = [worker_module._IS_ANY_CLAIMABLE, worker_module._CLAIMABLE_JOBS, worker_module._IS_ANYTHING_LEFT]
    asked += [queue_module._STATE, workers_module._RUNNING]
    for state in ("waiting", "running"):
        for action in ("", "works"):
            asked.append(listing(JobFilter(action=action, state=state), None)[0])
    for statement in asked:
        assert await _walked(database, statement) == ["ix_jobs_open"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_list_walks_along_the_index_of_what_it_shows(database: Database):
    place = Place(1, "")
    for state in ("done", "errored", "canceled"):
        assert await _walked(database, listing(JobFilter(state=state), place)[0]) == ["ix_jobs_ended"]
    assert await _walked(database, listing(JobFilter(), place)[0]) == ["ix_jobs_scheduled_at"]
    assert await _walked(database, listing(JobFilter(action="works"), place)[0]) == ["ix_jobs_action"]
    tries = await _walked(database, listing(JobFilter(tries_of="1"), None)[0])
    assert "ix_jobs_retry_from" in tries
    assert "ix_jobs_scheduled_at" not in tries


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_serious_in_a_log_is_found_without_the_rest(database: Database):
    for level in ("warning", "error"):
        for statement in (queue_module._LOGS[level], queue_module._LAST_LINES[level]):
            explained = Statement(text(f"EXPLAIN QUERY PLAN {statement.text('sqlite').replace('?', 'NULL')}"))
            plan = [row[3] for row in await database.fetch_all(explained)]
            assert any("INDEX ix_job_logs_trouble" in line for line in plan), plan


async def _walked(database: Database, statement: Statement) -> list[str]:
    """The indexes of jobs that a statement goes along, on SQLite."""
    explained = Statement(text(f"EXPLAIN QUERY PLAN {statement.text('sqlite').replace('?', 'NULL')}"))
    plan = [row[3] for row in await database.fetch_all(explained)]
    return [found[1] for line in plan if (found := re.search(r"jobs USING .*?INDEX (\w+)", line))]
