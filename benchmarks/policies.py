"""
Policies over many tags: `python -m benchmarks.policies sqlite:////tmp/x/metadata.db`.

A repository of 100,000 tags with 100 pruning policies, all of which are worked off together, and then shown tag by
tag to a promotion policy, as when one is made. Their rules look at everything that is known without a scan, and
mean no tag in the end: it is the evaluation that is measured, not what comes of it. Time, queries, and the memory
that the process needed beyond what it had. An empty database is filled first (`benchmarks.seed`).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from benchmarks.seed import HUGE, Shape, seed
from dtr.app import Application
from dtr.config import load
from dtr.policies import PromotionPolicy, PruningPolicy, parse_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = (
    {"field": "tag", "operator": "sw", "values": ["build-"]},
    {"field": "updated_at_duration", "operator": "bf", "values": ["1h"]},
    {"field": "platform", "operator": "oo", "values": ["linux/amd64", "linux/arm64"]},
    {"any": [
        {"field": "tag", "operator": "c", "values": ["7"]},
        {"not": {"field": "size", "operator": "gt", "values": ["1000000000000"]}},
    ]},
    {"field": "last_pulled_at_duration", "operator": "bf", "values": ["1h"]},
)  # fmt: skip
"""What holds for most tags."""
_LAST = (
    {"field": "tag", "operator": "ew", "values": ["-never"]},
    {"field": "label", "operator": "eq", "values": ["none=such"]},
    {"field": "updated_at", "operator": "bf", "values": ["1980-01-01T00:00:00Z"]},
    {"field": "signed", "operator": "eq", "values": ["true"]},
)
"""And what does for none."""


def rules(number: int) -> list[dict[str, Any]]:
    """The rules of a policy."""
    return [_FIRST[number % len(_FIRST)], _FIRST[(number + 1) % len(_FIRST)], _LAST[number % len(_LAST)]]


class Meter:
    """What something takes."""

    def __init__(self, application: Application) -> None:
        self._queries = {"read": 0, "write": 0}
        application.database.observe = self._count

    def _count(self, operation: str, _seconds: float) -> None:
        self._queries[operation] += 1

    def start(self) -> None:
        """From now on."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is the present one then
        self._memory = memory("VmRSS")
        self._queries.update(read=0, write=0)
        self._started, self._cpu = perf_counter(), process_time()

    def __str__(self) -> str:
        seconds, cpu = perf_counter() - self._started, process_time() - self._cpu
        grown = memory("VmHWM") - self._memory
        reads, writes = self._queries.values()
        return f"{seconds:.1f} s, {cpu:.1f} s CPU, {reads} queries, {writes} units of work, {grown:.0f} MiB more"


def memory(name: str) -> float:
    """Memory of this process in MiB: what it has, or what it had at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


async def measure(url: str, *, tags: int, policies: int) -> None:
    """Everything, one after the other."""
    with tempfile.TemporaryDirectory(prefix="dtr-policies-") as directory:
        environment = {"DTR_DATA_DIR": directory, "DTR_DATABASE__URL": url}
        if url.startswith("sqlite:///"):
            environment = {"DTR_DATA_DIR": str(Path(url.removeprefix("sqlite:///")).parent)}
        application = Application(load(None, environment, {}).settings)
        if await application.database.revision() is None:
            shape = Shape(2, tags + 1, tags, users=10, organizations=10, teams=10, events=0)
            print(f"filled in {await seed(url, shape):.0f} s", flush=True)
        try:
            await work_off(application, policies)
        finally:
            await application.close()


async def work_off(application: Application, number: int) -> None:
    """Let policies look at all tags."""
    repository = (await application.repositories.get(HUGE)).id
    meter = Meter(application)
    policies = list(pruning_policies(repository, number))
    meter.start()
    done = await application.pruning.prune(policies)
    print(f"{len(done)} pruning policies: {meter}", flush=True)
    assert not any(one.deleted for one in done)

    target = PromotionPolicy(
        id="",
        source=repository,
        source_path=HUGE,
        target=repository + 1,
        target_path="",
        enabled=True,
        rules=parse_rules(rules(0)),
    )
    made = await application.promotions.create(target, evaluate=False)
    meter.start()
    shown = 0
    parameters = {"repository": str(repository), "policy": made.id, "moment": "1"}
    async for _ in application.promotions.work_off(parameters):
        shown += 1
    print(f"a promotion policy, {shown} tags: {meter}", flush=True)
    await application.promotions.delete(repository, made.id)


def pruning_policies(repository: int, number: int) -> Iterator[PruningPolicy]:
    """So many; every other one keeps some."""
    for one in range(number):
        yield PruningPolicy(
            id=f"{one}",
            repository=repository,
            enabled=True,
            rules=parse_rules(rules(one)),
            keep=10 * (one % 2),
        )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="sqlite:///… or postgresql://…, empty or filled by this before")
    parser.add_argument("--tags", type=int, default=100_000)
    parser.add_argument("--policies", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(measure(options.database, tags=options.tags, policies=options.policies))


if __name__ == "__main__":
    main()
