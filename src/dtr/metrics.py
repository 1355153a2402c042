"""
The metrics, all named here, in the text format of Prometheus.

A request is counted in plain dictionaries: the counters of the client library cost a third of a small request.
Each worker saves what it counted once a second, to a file of its own; whoever is asked gives the sum of all
files. What a worker counted before it died stays in the sum.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from prometheus_client import Metric

    from dtr.http.front import Facts
    from dtr.http.types import Scope

_log = logging.getLogger("dtr.metrics")

_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600)
_LABELS = [*map(str, _BOUNDS), "+Inf"]
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
_SAVE_SECONDS = 1.0
_NOTARY = {
    "trust_update": "UpdateTUF",
    "trust_by_hash": "GetRoleByHash",
    "trust_by_version": "GetRoleByVersion",
    "trust_role": "GetRole",
    "trust_key": "GetKey",
    "trust_new_key": "RotateKey",
    "trust_delete": "DeleteTUF",
    "trust_changes": "Changefeed",
}
"""Routes of content trust, and what a notary server calls them (notary-v1, section 2.1)."""


class Times(msgspec.Struct):
    """How long something took: `total` in seconds, and how often it was at most each bound, and longer."""

    total: float = 0.0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))

    def add(self, seconds: float) -> None:
        """Once more."""
        self.total += seconds
        self.counts[bisect_left(_BOUNDS, seconds)] += 1

    def join(self, other: Times) -> None:
        """Add what another process counted."""
        self.total += other.total
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]


class Transfer(msgspec.Struct):
    """Bytes of bodies."""

    bytes_in: int = 0
    bytes_out: int = 0


class Counted(msgspec.Struct):
    """What a process counted."""

    requests: dict[str, int] = {}
    """By route, method and status, separated by spaces."""
    seconds: dict[str, Times] = {}
    """By route."""
    database: dict[str, Times] = {}
    """By "read" (a statement) and "write" (a unit of work)."""
    storage: dict[str, Times] = {}
    """By operation of the driver."""
    jobs: dict[str, Times] = {}
    """By action and how they ended, separated by a space."""
    objections: dict[str, int] = {}
    """By what became of the pull."""
    transfers: dict[str, Transfer] = {}
    """By route."""
    running: int = 0

    def join(self, other: Counted) -> None:
        """Add what another process counted."""
        for key, count in other.requests.items():
            self.requests[key] = self.requests.get(key, 0) + count
        for key, count in other.objections.items():
            self.objections[key] = self.objections.get(key, 0) + count
        for known, given in (
            (self.seconds, other.seconds),
            (self.database, other.database),
            (self.storage, other.storage),
            (self.jobs, other.jobs),
        ):
            for key, times in given.items():
                known.setdefault(key, Times()).join(times)
        for key, its in other.transfers.items():
            mine = self.transfers.setdefault(key, Transfer())
            mine.bytes_in += its.bytes_in
            mine.bytes_out += its.bytes_out
        self.running += other.running


_Key: TypeAlias = tuple[str, str, int]
Queue: TypeAlias = "Mapping[str, tuple[int, float, int]]"
"""By action: how many jobs wait, for how many seconds the first of them does, how many run."""


def prepare(directory: Path) -> None:
    """Empty the place where the workers save; before they are started."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in directory.iterdir():
        stale.unlink()


class Metrics:
    """What a process counts; made in that process. `directory` was prepared."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / f"{os.getpid()}.json"
        self._counted = Counted()
        self._known: dict[_Key, tuple[str, Times, Transfer]] = {}
        self._saved = b""
        self._can_save = True
        self.queue: Callable[[], Awaitable[Queue]] | None = None
        """What is asked for the queue of jobs, whenever somebody wants to see it."""

    def request_started(self) -> None:
        """A request is under way."""
        self._counted.running += 1

    def request_finished(self, scope: Scope, facts: Facts) -> None:
        """A request was answered."""
        counted = self._counted
        key = (facts.route, scope["method"], facts.status)
        name, times, transfer = self._known.get(key) or self._know(key)
        counted.requests[name] = counted.requests.get(name, 0) + 1
        times.add(facts.seconds)
        transfer.bytes_in += facts.bytes_in
        transfer.bytes_out += facts.bytes_out
        counted.running -= 1

    def database_used(self, operation: str, seconds: float) -> None:
        """The database was read or written."""
        _add(self._counted.database, operation, seconds)

    def storage_used(self, storage: str, operation: str, seconds: float) -> None:
        """A storage did something."""
        _add(self._counted.storage, f"{storage} {operation}", seconds)

    def job_ended(self, action: str, outcome: str, seconds: float) -> None:
        """A job of this process ended."""
        _add(self._counted.jobs, f"{action} {outcome}", seconds)

    def pull_objected(self, mode: str) -> None:
        """A policy of enforcement objected to a pull, which was refused (``enforce``) or not (``report``)."""
        self._counted.objections[mode] = self._counted.objections.get(mode, 0) + 1

    async def keep_saved(self) -> None:
        """Save every second, until cancelled."""
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            await self.save()

    async def save(self) -> None:
        """Save what was counted, when that changed. What cannot be saved, on a full disk, is saved later."""
        content = msgspec.json.encode(self._counted)
        if content == self._saved:
            return
        try:
            await asyncio.to_thread(self._write, content)
        except OSError as error:
            if self._can_save:
                _log.warning("metrics not saved", extra={"reason": error.strerror})
            self._can_save = False
        else:
            self._can_save = True
            self._saved = content

    async def render(self) -> bytes:
        """The sums over all workers, and the queue of jobs."""
        await self.save()
        queue = await self.queue() if self.queue is not None else {}
        return await asyncio.to_thread(self._render, queue)

    def _know(self, key: _Key) -> tuple[str, Times, Transfer]:
        """What such a request is called, and where its time and its bytes are added."""
        route, method, status = key
        found = (
            f"{route} {method if method in _METHODS else 'other'} {status}",
            self._counted.seconds.setdefault(route, Times()),
            self._counted.transfers.setdefault(route, Transfer()),
        )
        if method in _METHODS:  # anybody can make up others
            self._known[key] = found
        return found

    def _write(self, content: bytes) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_bytes(content)
        temporary.replace(self._file)

    def _render(self, queue: Queue) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest

        total = Counted()
        for file in self._directory.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                one = msgspec.json.decode(file.read_bytes(), type=Counted)
                if not Path(f"/proc/{file.stem}").exists():
                    one.running = 0
                total.join(one)
        registry = CollectorRegistry()
        registry.register(_Sum(total, queue))
        return generate_latest(registry)


class _Sum:
    """A collector of prometheus_client."""

    def __init__(self, total: Counted, queue: Queue) -> None:
        self._total = total
        self._queue = queue

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        total = self._total
        requests = CounterMetricFamily("dtr_requests", "Requests answered.", labels=["route", "method", "status"])
        for name, count in total.requests.items():
            requests.add_metric(name.rsplit(" ", 2), count)
        yield requests
        transfers = CounterMetricFamily("dtr_transfer_bytes", "Bytes of bodies.", labels=["direction"])
        transfers.add_metric(["in"], sum(one.bytes_in for one in total.transfers.values()))
        transfers.add_metric(["out"], sum(one.bytes_out for one in total.transfers.values()))
        yield transfers
        yield from _of_notary(total)
        objections = CounterMetricFamily(
            "dtr_pulls_objected", "Pulls of what is not signed as policies want it.", labels=["mode"]
        )
        for mode in ("enforce", "report"):
            objections.add_metric([mode], total.objections.get(mode, 0))
        yield objections
        yield GaugeMetricFamily("dtr_requests_running", "Requests under way.", value=total.running)
        for number, name, text in (
            (0, "dtr_jobs_waiting", "Jobs whose time has come, and that nobody runs."),
            (1, "dtr_jobs_oldest_waiting_seconds", "For how long the first of them waits."),
            (2, "dtr_jobs_running", "Jobs that run."),
        ):
            gauge = GaugeMetricFamily(name, text, labels=["action"])
            for action, numbers in self._queue.items():
                gauge.add_metric([action], numbers[number])
            yield gauge
        for name, text, labels, by in (
            ("dtr_request_seconds", "Time to answer.", ["route"], total.seconds),
            (
                "dtr_database_seconds",
                "Time of a statement that reads, or of a unit of work.",
                ["operation"],
                total.database,
            ),
            (
                "dtr_storage_seconds",
                "Time of an operation of a storage.",
                ["storage", "operation"],
                total.storage,
            ),
            ("dtr_job_seconds", "Time of a job.", ["action", "outcome"], total.jobs),
        ):
            family = HistogramMetricFamily(name, text, labels=labels)
            for key, times in by.items():
                values = key.rsplit(" ", len(labels) - 1)
                family.add_metric(values, list(zip(_LABELS, _accumulated(times.counts), strict=True)), times.total)
            yield family


def _of_notary(total: Counted) -> Iterable[Metric]:
    """The requests of content trust under the names of a notary server, which others watch already."""
    from prometheus_client.core import CounterMetricFamily, SummaryMetricFamily

    requests = CounterMetricFamily(
        "notary_server_http_requests", "Requests answered.", labels=["operation", "method", "code"]
    )
    for name, count in total.requests.items():
        route, method, status = name.rsplit(" ", 2)
        if route in _NOTARY:
            requests.add_metric([_NOTARY[route], method.lower(), status], count)
    yield requests
    durations, sizes, answers = (
        SummaryMetricFamily(f"notary_server_http_{name}", text, labels=["operation"])
        for name, text in (
            ("request_duration_microseconds", "Time to answer."),
            ("request_size_bytes", "Bytes of the bodies of requests."),
            ("response_size_bytes", "Bytes of the bodies of answers."),
        )
    )
    for route, operation in _NOTARY.items():
        if route not in total.seconds:
            continue
        times, transfer = total.seconds[route], total.transfers.get(route, Transfer())
        count = sum(times.counts)
        durations.add_metric([operation], count, times.total * 1_000_000)
        sizes.add_metric([operation], count, transfer.bytes_in)
        answers.add_metric([operation], count, transfer.bytes_out)
    yield from (durations, sizes, answers)


def _add(times: dict[str, Times], key: str, seconds: float) -> None:
    one = times.get(key)
    if one is None:
        one = times[key] = Times()
    one.add(seconds)


def _accumulated(counts: list[int]) -> list[int]:
    return [sum(counts[: end + 1]) for end in range(len(counts))]
