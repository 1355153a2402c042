"""Metrics: what one worker counts, and the sum over all."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dtr.http.front import Facts
from dtr.metrics import Metrics, prepare


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare(tmp_path / "metrics")
    return tmp_path / "metrics"


async def sums(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples by name and labels, as Prometheus reads them."""
    text = (await metrics.render()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def count(metrics: Metrics, route: str = "blobs", method: str = "GET", status: int = 200, **facts: Any) -> None:
    metrics.request_started()
    metrics.request_finished({"method": method}, Facts("id", "", route=route, status=status, **facts))


async def test_requests_are_counted_by_route_method_and_status(directory: Path):
    metrics = Metrics(directory)
    for status in (200, 200, 404):
        count(metrics, status=status, bytes_in=10, bytes_out=100, seconds=0.02)
    metrics.request_started()
    found = await sums(metrics)
    labels = (("method", "GET"), ("route", "blobs"))
    assert found["dtr_requests_total", (*labels, ("status", "200"))] == 2
    assert found["dtr_requests_total", (*labels, ("status", "404"))] == 1
    assert found["dtr_transfer_bytes_total", (("direction", "in"),)] == 30
    assert found["dtr_transfer_bytes_total", (("direction", "out"),)] == 300
    assert found["dtr_requests_running", ()] == 1
    assert found["dtr_request_seconds_count", (("route", "blobs"),)] == 3
    assert found["dtr_request_seconds_sum", (("route", "blobs"),)] == pytest.approx(0.06)
    assert found["dtr_request_seconds_bucket", (("le", "0.01"), ("route", "blobs"))] == 0
    assert found["dtr_request_seconds_bucket", (("le", "0.05"), ("route", "blobs"))] == 3
    assert found["dtr_request_seconds_bucket", (("le", "+Inf"), ("route", "blobs"))] == 3


async def test_times_of_database_and_storage_are_counted_by_operation(directory: Path):
    metrics = Metrics(directory)
    metrics.database_used("read", 0.001)
    metrics.database_used("write", 1000)
    metrics.storage_used("default", "open", 0.2)
    found = await sums(metrics)
    assert found["dtr_database_seconds_bucket", (("le", "0.001"), ("operation", "read"))] == 1
    assert found["dtr_database_seconds_bucket", (("le", "600"), ("operation", "write"))] == 0
    assert found["dtr_database_seconds_bucket", (("le", "+Inf"), ("operation", "write"))] == 1
    assert found["dtr_storage_seconds_sum", (("operation", "open"), ("storage", "default"))] == pytest.approx(0.2)


async def test_methods_that_clients_make_up_are_one(directory: Path):
    metrics = Metrics(directory)
    for number in range(100):
        count(metrics, method=f"MADE-UP{number}")
    found = await sums(metrics)
    made_up = [key for key in found if key[0] == "dtr_requests_total"]
    assert made_up == [("dtr_requests_total", (("method", "other"), ("route", "blobs"), ("status", "200")))]
    assert found[made_up[0]] == 100


async def test_any_route_can_be_read_by_prometheus(directory: Path):
    metrics = Metrics(directory)
    for route in ("with space", "", 'quote"', "line\nbreak", "back\\slash"):
        count(metrics, route=route)
        found = await sums(metrics)
        assert found["dtr_requests_total", (("method", "GET"), ("route", route), ("status", "200"))] == 1


def work(directory: Path, saved: Any, end: Any) -> None:
    """A worker: counts, saves, and lives until it may end."""
    metrics = Metrics(directory)
    count(metrics)
    metrics.request_started()
    asyncio.run(metrics.save())
    saved.release()
    end.acquire()


async def test_the_sum_is_over_all_workers_and_keeps_what_the_dead_counted(directory: Path):
    context = multiprocessing.get_context("fork")
    saved, end = context.Semaphore(0), context.Semaphore(0)
    workers = [context.Process(target=work, args=(directory, saved, end)) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in workers:
            assert await asyncio.to_thread(saved.acquire, timeout=60)
        metrics = Metrics(directory)
        count(metrics)
        total = ("dtr_requests_total", (("method", "GET"), ("route", "blobs"), ("status", "200")))
        found = await sums(metrics)
        assert (found[total], found["dtr_requests_running", ()]) == (4, 3)
        pid = workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(workers[0].join, 60)
        found = await sums(metrics)
        assert (found[total], found["dtr_requests_running", ()]) == (4, 2)
    finally:
        for _ in workers:
            end.release()
        for worker in workers:
            await asyncio.to_thread(worker.join, 60)


async def test_jobs_are_counted_by_action_and_outcome_and_the_queue_is_asked_for(directory: Path):
    async def queue() -> dict[str, tuple[int, float, int]]:
        return {"fsck": (0, 0.0, 1), "sleep": (3, 12.5, 0)}

    metrics = Metrics(directory)
    metrics.job_ended("sleep", "done", 0.02)
    metrics.job_ended("sleep", "errored", 2)
    metrics.queue = queue
    found = await sums(metrics)
    for outcome, seconds in (("done", 0.02), ("errored", 2)):
        labels = (("action", "sleep"), ("outcome", outcome))
        assert found["dtr_job_seconds_count", labels] == 1
        assert found["dtr_job_seconds_sum", labels] == pytest.approx(seconds)
    gauges = ("dtr_jobs_waiting", "dtr_jobs_oldest_waiting_seconds", "dtr_jobs_running")
    assert [found[name, (("action", "sleep"),)] for name in gauges] == [3, 12.5, 0]
    assert [found[name, (("action", "fsck"),)] for name in gauges] == [0, 0, 1]


async def test_a_new_start_counts_from_nothing(directory: Path):
    metrics = Metrics(directory)
    count(metrics)
    await metrics.save()
    prepare(directory)
    assert list(directory.iterdir()) == []


async def test_what_is_counted_is_saved_once_a_second(directory: Path):
    metrics = Metrics(directory)
    count(metrics)
    task = asyncio.create_task(metrics.keep_saved())
    async with asyncio.timeout(60):
        while not list(directory.glob("*.json")):
            await asyncio.sleep(0.01)
    task.cancel()
    assert list(directory.iterdir()) == [directory / f"{os.getpid()}.json"]
