"""
The metrics, all named here, in the text format of Prometheus.

Several workers count in files that they share by mapping them into memory; whoever is asked gives the sum.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from dtr.http.front import Facts
    from dtr.http.types import Scope

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600)
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


def prepare(directory: Path) -> None:
    """Say where the workers count together; before anything is counted, and before they are started."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for stale in directory.glob("*.db"):
        stale.unlink()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


class Metrics:
    """What a process counts. Made in the process that counts, after `prepare`."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = CollectorRegistry()
        self._requests = Counter(
            "dtr_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "dtr_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._bytes = Counter("dtr_transfer_bytes", "Bytes of bodies.", ["direction"], registry=registry)
        self._running = Gauge(
            "dtr_requests_running", "Requests under way.", registry=registry, multiprocess_mode="livesum"
        )
        self._database = Histogram(
            "dtr_database_seconds", "Time of a statement that reads, or of a unit of work.", ["operation"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._storage = Histogram(
            "dtr_storage_seconds", "Time of an operation of the storage.", ["operation"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        self._in = self._bytes.labels("in")
        self._out = self._bytes.labels("out")
        self._database_children = {kind: self._database.labels(kind) for kind in ("read", "write")}
        self._storage_children: dict[str, Any] = {}

    def request_started(self) -> None:
        """A request is under way."""
        self._running.inc()

    def request_finished(self, scope: Scope, facts: Facts) -> None:
        """A request was answered."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        key = (facts.route, method, facts.status)
        children = self._children.get(key)
        if children is None:
            children = (
                self._requests.labels(facts.route, method, str(facts.status)),
                self._seconds.labels(facts.route),
            )
            self._children[key] = children
        children[0].inc()
        children[1].observe(facts.seconds)
        if facts.bytes_in:
            self._in.inc(facts.bytes_in)
        if facts.bytes_out:
            self._out.inc(facts.bytes_out)
        self._running.dec()

    def database_used(self, operation: str, seconds: float) -> None:
        """The database was read or written."""
        self._database_children[operation].observe(seconds)

    def storage_used(self, operation: str, seconds: float) -> None:
        """The storage did something."""
        child = self._storage_children.get(operation)
        if child is None:
            child = self._storage_children[operation] = self._storage.labels(operation)
        child.observe(seconds)


def render() -> bytes:
    """The sums over all workers."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library types its public face only
    return generate_latest(registry)
