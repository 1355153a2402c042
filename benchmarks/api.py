"""
Time and queries of the API at a size: `python -m benchmarks.api`.

Requests go through the whole application in this process, from the parsed request to the last byte of the answer,
without a network. Two times are measured: the CPU time of this process and of the database's, which is the
server's own time whatever else runs on the machine, and the time that passed, which is only right on a quiet one.
Every request is repeated in several rounds; of a round there are median and 95th percentile, and the round with
the least median is reported. The database is filled first (`benchmarks.seed`), unless it is filled already.
PostgreSQL has to run on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter, process_time_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy import text

from benchmarks.seed import HUGE, Shape, seed
from dtr.app import Application
from dtr.config import load
from dtr.db import Statement
from dtr.metrics import Metrics, prepare

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from dtr.http.front import Front

_BACKENDS = Statement(
    text("SELECT pid FROM pg_stat_activity WHERE application_name = 'dtr' AND datname = current_database()")
)
PUBLIC = Shape()
PRIVATE = Shape(tags=0, huge_tags=0, events=0, public=0)
"""Nothing is public: what somebody does not see is everywhere."""


@dataclass(frozen=True, eq=False)
class Case:
    """A request, by somebody; `everything_private`: where nothing is public."""

    title: str
    user: str
    path: str
    query: dict[str, Any]
    everything_private: bool = False


@cache
def cases() -> tuple[Case, ...]:
    """What is measured, in the order of the table."""
    repositories = "/api/v0/repositories"
    page = {"pageSize": 25}
    deep = PUBLIC.path(50_002)
    tags = f"{repositories}/{HUGE}/tags"
    index = "/api/v0/index"
    some = PUBLIC.path(2)
    found = [
        Case("repositories, first page", "admin", repositories, page),
        Case("repositories, deep page", "admin", repositories, page | {"pageStart": deep}),
        Case("repositories, counted", "admin", repositories, page | {"count": "true"}),
        Case("repositories, first page", "plain", repositories, page),
        Case("repositories, deep page", "plain", repositories, page | {"pageStart": deep}),
        Case("repositories, counted", "plain", repositories, page | {"count": "true"}),
        Case("repositories, none public", "plain", repositories, page, everything_private=True),
        Case(
            "repositories, none public, counted", "plain", repositories, {"count": "true"}, everything_private=True
        ),
        Case("repositories, none public", "lonely", repositories, page, everything_private=True),
        Case("repositories of 10,000 in a namespace", "admin", f"{repositories}/big", page | {"count": "true"}),
        Case("repositories of 10,000 in a namespace", "owner", f"{repositories}/big", page | {"count": "true"}),
        Case("repositories of 10,000 in a namespace", "plain", f"{repositories}/big", page | {"count": "true"}),
        Case("a repository", "plain", f"{repositories}/{some}", {}),
        Case("100,000 tags, first page", "admin", tags, page),
        Case("100,000 tags, deep page", "admin", tags, page | {"pageStart": "build-050000"}),
        Case("100,000 tags, with manifests", "admin", tags, page | {"includeManifests": "true"}),
        Case("100,000 tags, counted", "admin", tags, page | {"count": "true"}),
        Case("autocomplete, a common word", "plain", f"{index}/autocomplete", {"query": "web"}),
        Case("autocomplete, a rare word", "plain", f"{index}/autocomplete", {"query": "shop-77"}),
        Case("autocomplete, of a description", "plain", f"{index}/autocomplete", {"query": "pipeline"}),
        Case("autocomplete, one letter", "plain", f"{index}/autocomplete", {"query": "w"}),
        Case("autocomplete, nothing fits", "plain", f"{index}/autocomplete", {"query": "zzzz"}),
        Case("autocomplete, a common word", "admin", f"{index}/autocomplete", {"query": "web"}),
        Case("autocomplete, of a description", "admin", f"{index}/autocomplete", {"query": "pipeline"}),
        Case("autocomplete, nothing to be seen fits", "lonely", f"{index}/autocomplete", {"query": "web"}, True),
        Case("docker search", "", f"{index}/dockersearch", {"q": "gateway"}),
        Case("accounts, first page", "plain", "/enzi/v0/accounts/", {"limit": 25}),
        Case("accounts, by full name", "plain", "/enzi/v0/accounts/", {"limit": 25, "order": "fullName"}),
        Case("accounts, a part of a name", "plain", "/enzi/v0/accounts/", {"limit": 25, "contains": "9999"}),
        Case("members of a team", "admin", "/enzi/v0/accounts/org-002/teams/team-0/members", {}),
        Case("level on a repository", "admin", f"/api/v0/accounts/plain/repositoryAccess/{some}", {}),
        Case("events", "admin", "/api/v0/events", page),
        Case("events of a repository", "admin", f"{repositories}/{HUGE}/events", page),
        Case(
            "a token with 10 scopes",
            "plain",
            "/auth/token",
            {
                "service": "dtr",
                "scope": " ".join(f"repository:{PUBLIC.path(one)}:pull,push" for one in range(2, 12)),
            },
        ),
    ]
    listed = f"{index}/repositories"
    counted = page | {"count": "true"}
    for user in ("admin", "plain"):
        found += [
            Case("list by the last push", user, listed, counted | {"sort": "pushed"}),
            Case("list with a common word", user, listed, counted | {"query": "web", "sort": "size"}),
            Case(
                "list with all filters",
                user,
                listed,
                counted | {"query": "web", "type": "image", "signed": "false"},
            ),
            Case("accounts with repositories", user, f"{index}/owners", {"limit": 100}),
            Case("images by tag", user, f"{index}/images", {"query": f"{HUGE}:build-0"}),
            Case("images by a digest", user, f"{index}/images", {"query": "sha256:0123456"}),
        ]
    return tuple(found)


class Subject:
    """The application over a filled database, and who calls it."""

    def __init__(self, url: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        environment = {"DTR_DATA_DIR": str(directory), "DTR_DATABASE__URL": url}
        if url.startswith("sqlite:///"):
            environment = {"DTR_DATA_DIR": str(Path(url.removeprefix("sqlite:///")).parent)}
        self.application = Application(load(None, environment, {}).settings)
        metrics = directory / "metrics"
        prepare(metrics)
        self._front: Front = self.application.front(None, Metrics(metrics))
        self.queries = 0
        self.bytes = 0
        """Those of the last answer's body."""
        self._backends: list[Path] = []
        self._count_queries()
        self._tokens: dict[str, str] = {"": ""}

    def _count_queries(self) -> None:
        observe = self.application.database.observe

        def counted(kind: str, seconds: float) -> None:
            self.queries += kind == "read"
            if observe is not None:
                observe(kind, seconds)

        self.application.database.observe = counted

    async def prepare(self, users: Sequence[str]) -> None:
        """Make access tokens for those who call."""
        await self.application.tokens.keys.refresh()
        for name in users:
            self._tokens[name] = await self.application.accounts.tokens.create(name, "benchmark")

    async def find_database(self) -> None:
        """Learn which processes of PostgreSQL work for this one."""
        if self.application.database.dialect == "postgresql":
            rows = await self.application.database.fetch_all(_BACKENDS)
            self._backends = [Path(f"/proc/{row[0]}/schedstat") for row in rows]

    def _cpu(self) -> float:
        """Milliseconds of CPU time so far, of this process and the database's."""
        nanoseconds = process_time_ns() + sum(int(one.read_text().split()[0]) for one in self._backends)
        return nanoseconds / 1e6

    def headers(self, case: Case) -> list[tuple[bytes, bytes]]:
        """Those of a request that say who calls, and for what."""
        headers = [(b"accept", b"application/json")]
        if case.user:
            credentials = base64.b64encode(f"{case.user}:{self._tokens[case.user]}".encode())
            headers.append((b"authorization", b"Basic " + credentials))
        return headers

    async def call(self, case: Case) -> tuple[float, float, int]:
        """Milliseconds of CPU, those that passed, and queries. Raises AssertionError when it is refused."""
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "https", "path": case.path,
            "raw_path": case.path.encode(), "query_string": urlencode(case.query).encode(), "root_path": "",
            "headers": [(b"host", b"localhost"), *self.headers(case)],
            "client": ("127.0.0.1", 1), "server": ("localhost", 443), "extensions": {},
            "asgi": {"version": "3.0"},
        }  # fmt: skip
        status = self.bytes = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            self.bytes += len(message.get("body", b""))

        self.queries = 0
        cpu, started = self._cpu(), perf_counter()
        await self._front(scope, receive, send)
        passed, cpu = (perf_counter() - started) * 1000, self._cpu() - cpu
        assert status == 200, f"{case.title} as {case.user or 'nobody'}: {status}"
        return cpu, passed, self.queries

    async def close(self) -> None:
        """Give back what it has."""
        await self.application.close()


@dataclass(frozen=True)
class Measured:
    """Milliseconds of CPU and those that passed, and queries of a case."""

    median: float
    p95: float
    passed: float
    queries: int


async def measure(subject: Subject, case: Case, *, rounds: int, requests: int) -> Measured:
    """The best of some rounds."""
    await subject.call(case)
    found = []
    for _ in range(rounds):
        calls = []
        for _ in range(requests):
            await subject.find_database()  # one that was connected meanwhile may have done all the work
            calls.append(await subject.call(case))
        cpu, passed, queries = zip(*calls, strict=True)
        p95 = statistics.quantiles(cpu, n=20)[-1]
        found.append(Measured(statistics.median(cpu), p95, statistics.median(passed), max(queries)))
    return Measured(
        *min((one.median, one.p95) for one in found),
        min(one.passed for one in found),
        max(one.queries for one in found),
    )


async def run(urls: tuple[str, str], directory: Path, options: argparse.Namespace) -> dict[Case, Measured]:
    """Measure all cases over the two databases: as a company has them, and one where nothing is public."""
    found = {}
    for url, shape, private in zip(urls, (PUBLIC, PRIVATE), (False, True), strict=True):
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        subject = Subject(url, directory / ("private" if private else "public"))
        try:
            filled = await subject.application.database.revision() is not None
            if not filled:
                print(f"filled in {await seed(url, shape):.0f} s", flush=True)
            await subject.prepare(["admin", "plain", "owner", "lonely"])
            for case in cases():
                if case.everything_private is private and options.only in case.title:
                    found[case] = await measure(subject, case, rounds=options.rounds, requests=options.requests)
        finally:
            await subject.close()
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is measured")
    parser.add_argument("--requests", type=int, default=20, help="how many requests a round has")
    parser.add_argument("--only", default="", help="cases whose title contains this text")
    parser.add_argument("--sqlite", type=Path, help="keep the SQLite databases in this directory")
    parser.add_argument(
        "--postgresql", nargs=2, metavar="URL", help="two empty databases, or those that were filled before"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as temporary:
        directory = Path(temporary)
        place = (options.sqlite or directory / "sqlite").absolute()
        targets = {
            "SQLite": (f"sqlite:///{place}/public/metadata.db", f"sqlite:///{place}/private/metadata.db"),
            **({"PostgreSQL": tuple(options.postgresql)} if options.postgresql else {}),
        }
        results = {name: asyncio.run(run(urls, directory / name, options)) for name, urls in targets.items()}
    print("| | as |" + "".join(f" {name}: median | p95 | passed | queries |" for name in results))
    print("| --- | --- |" + " --- | --- | --- | --- |" * len(results))
    for case in cases():
        cells = [found[case] for found in results.values() if case in found]
        if cells:
            words = [
                f"{one.median:.1f} ms | {one.p95:.1f} ms | {one.passed:.1f} ms | {one.queries}" for one in cells
            ]
            print(f"| {case.title} | {case.user or 'nobody'} | {' | '.join(words)} |")


if __name__ == "__main__":
    main()
