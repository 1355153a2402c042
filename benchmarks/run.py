"""
`make bench`: dtr and another registry side by side, in turn, on the same files.

The other one is Debian's docker-registry, or with `--peer` a newer one of the same project.

Every scenario runs on one and then on the other, as often as `--rounds` says; medians are compared. Needs curl,
wrk, skopeo and the other registry; crane, where it is here, is a client more.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scenarios import Content, scenarios
from benchmarks.servers import DockerRegistry, Dtr, stop_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios import Measured, Scenario
    from benchmarks.servers import Server


_DEBIAN = "docker-registry"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each scenario runs on each")
    parser.add_argument("--seconds", type=int, default=4, help="how long a rate is measured")
    parser.add_argument("--big-mib", type=int, default=1024, help="size of the large layer")
    parser.add_argument("--tags", type=int, default=10_000, help="number of tags of the repository")
    parser.add_argument("--only", default="", help="scenarios whose name contains this text; several: a,b")
    parser.add_argument("--workers", type=int, help="worker processes of dtr (default: its own)")
    parser.add_argument("--database", help="address of a migrated database for dtr (default: SQLite)")
    parser.add_argument("--peer", default=_DEBIAN, help="program of the other registry, of distribution 2 or 3")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    options = parser.parse_args()
    for program in ("curl", "wrk", "skopeo", options.peer):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: scripts/prepare-tests installs it")
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as directory:
        measure(Path(directory), options)


def measure(directory: Path, options: argparse.Namespace) -> None:
    """Run everything in `directory`."""
    content = Content(directory, big_mib=options.big_mib, tags=options.tags)
    ours = Dtr(directory / "dtr", workers=options.workers, database=options.database)
    ours.start()
    peer = DockerRegistry(
        directory / "registry",
        ours.directory / "tls/server.pem",
        ours.directory / "tls/server-key.pem",
        options.peer,
    )
    peer.start()
    try:
        for server in (peer, ours):
            server.prepare()
            content.push_to(server)
        wanted = [part.strip() for part in options.only.split(",") if part.strip()]
        rows = []
        print_head()
        for scenario in scenarios(content, seconds=options.seconds):
            if wanted and not any(part in scenario.name for part in wanted):
                continue
            theirs, mine = in_turn(scenario, (peer, ours), options.rounds)
            # The goals were set against Debian's.
            aimed = scenario if options.peer == _DEBIAN else replace(scenario, goal=None)
            rows.append(compare(aimed, theirs, mine))
            print_row(rows[-1])
    finally:
        stop_all((ours, peer))
    if options.json:
        document = {"date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}", "machine": machine(), "results": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def in_turn(scenario: Scenario, servers: Sequence[Server], rounds: int) -> list[list[Measured]]:
    """The results of each server; what disturbs the machine hits both alike."""
    found: list[list[Measured]] = [[] for _ in servers]
    for _ in range(rounds):
        for server, results in zip(servers, found, strict=True):
            results.append(scenario.run(server))
    return found


def compare(scenario: Scenario, theirs: list[Measured], mine: list[Measured]) -> dict[str, Any]:
    """Medians, and how many times better ours is."""

    def median(results: list[Measured]) -> float:
        return statistics.median(one.value for one in results)

    def cpu(results: list[Measured]) -> float | None:
        known = [one.cpu for one in results if one.cpu is not None]
        return statistics.median(known) if known else None

    peer, ours = median(theirs), median(mine)
    ratio = peer / ours if scenario.less_is_better else ours / peer
    peer_cpu, our_cpu = cpu(theirs), cpu(mine)
    return {
        "name": scenario.name,
        "unit": scenario.unit,
        "cpu_unit": scenario.cpu_unit,
        "docker_registry": peer,
        "dtr": ours,
        "ratio": ratio,
        "goal": scenario.goal,
        "docker_registry_cpu": peer_cpu,
        "dtr_cpu": our_cpu,
        "cpu_ratio": peer_cpu / our_cpu if peer_cpu and our_cpu else None,
    }


_COLUMNS = "{:<56} {:>8} {:>11} {:>11} {:>8} {:>7}  {:>6} {:>10} {:>10} {:>8}"


def print_head() -> None:
    """What the columns are."""
    print(machine())
    head = ("", "unit", "registry", "dtr", "better", "goal", "CPU", "registry", "dtr", "better")
    print(_COLUMNS.format(*head))


def print_row(row: dict[str, Any]) -> None:
    """A line of the table."""
    absolute = row["unit"] in {"s", "MiB"} and row["cpu_unit"] == ""
    goal = "-" if row["goal"] is None else f"{row['goal']:g} {row['unit']}" if absolute else f"{row['goal']:g}x"
    print(
        _COLUMNS.format(
            row["name"],
            row["unit"],
            number(row["docker_registry"]),
            number(row["dtr"]),
            f"{row['ratio']:.2f}x",
            goal,
            row["cpu_unit"],
            number(row["docker_registry_cpu"]),
            number(row["dtr_cpu"]),
            f"{row['cpu_ratio']:.2f}x" if row["cpu_ratio"] else "-",
        ),
        flush=True,
    )


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """What it runs on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
