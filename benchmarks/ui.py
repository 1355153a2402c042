"""
Time, queries and sizes of the web interface's pages at a size: `python -m benchmarks.ui`.

Measured as the API's operations are (`benchmarks.api`): whole requests in this process, over a database of 100,000
repositories, one of them with 100,000 tags, and 10,000 users. The sizes of pages are as they are sent; those of
the assets, which a browser keeps, are with gzip.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.api import PUBLIC, Case, Measured, Subject, measure
from benchmarks.seed import HUGE, seed
from dtr.http.ui import STATIC

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGES: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("repositories", "admin", "/repositories", {}),
    ("repositories", "plain", "/repositories", {}),
    ("repositories, a part of a name", "plain", "/repositories", {"q": "web"}),
    ("repositories, last pushed first", "plain", "/repositories", {"sort": "pushed"}),
    ("a repository's overview", "admin", f"/repositories/{HUGE}/info", {}),
    ("100,000 tags", "admin", f"/repositories/{HUGE}/tags", {}),
    ("100,000 tags, a part of a name", "admin", f"/repositories/{HUGE}/tags", {"q": "99"}),
    (
        "100,000 tags, by version, 100 rows",
        "admin",
        f"/repositories/{HUGE}/tags",
        {"sort": "version"} | {"size": "100"},
    ),
    ("a tag", "admin", f"/repositories/{HUGE}/tags/build-050000", {}),
    ("permissions", "admin", f"/repositories/{PUBLIC.path(2)}/permissions", {}),
    ("activity", "admin", f"/repositories/{HUGE}/activity", {}),
    ("policies", "admin", f"/repositories/{HUGE}/policies", {}),
    ("search", "plain", "/search", {"q": "shop"}),
    ("users", "admin", "/users", {}),
    ("users, a part of a name", "admin", "/users", {"q": "999"}),
    ("organisations", "admin", "/orgs", {}),
    ("members of an organisation", "admin", "/orgs/org-002/users", {}),
    ("system", "admin", "/system", {}),
    ("events", "admin", "/system/settings/events", {}),
    ("jobs", "admin", "/system/settings/jobs", {}),
)
"""What is measured: a title, who looks, path and parameters."""
CASES = tuple(Case(*page) for page in PAGES)
_PASSWORD = "benchmark"


class Visitors(Subject):
    """The application, and who looks at its pages."""

    async def prepare(self, users: Sequence[str]) -> None:
        """Log in those who look."""
        await self.application.backends.begin()
        self._sessions = {}
        for name in users:
            accounts = self.application.accounts
            await accounts.set_password(name, _PASSWORD)
            login = await accounts.logins.authenticate_password(name, _PASSWORD, "127.0.0.1")
            self._sessions[name] = await accounts.sessions.create(login, "127.0.0.1")

    def headers(self, case: Case) -> list[tuple[bytes, bytes]]:
        """The browser's cookie."""
        return [(b"cookie", f"__Host-session={self._sessions[case.user]}".encode())]


async def run(url: str, directory: Path, options: argparse.Namespace) -> dict[Case, tuple[Measured, int]]:
    """Measure all pages over a database, which is filled when it is empty."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    subject = Visitors(url, directory)
    try:
        if await subject.application.database.revision() is None:
            print(f"filled in {await seed(url, PUBLIC):.0f} s", flush=True)
        await subject.prepare(["admin", "plain"])
        found = {}
        for case in CASES:
            if options.only in case.title:
                measured = await measure(subject, case, rounds=options.rounds, requests=options.requests)
                found[case] = (measured, subject.bytes)
        return found
    finally:
        await subject.close()


def show_assets() -> None:
    """Print what a browser loads once."""
    names = json.loads((STATIC / "manifest.json").read_text(encoding="utf-8"))
    for name, file in names.items():
        plain, packed = (STATIC / file).stat().st_size, (STATIC / f"{file}.gz").stat().st_size
        print(f"| {name} | {plain / 1000:.1f} kB | {packed / 1000:.1f} kB |")


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each page is measured")
    parser.add_argument("--requests", type=int, default=20, help="how many requests a round has")
    parser.add_argument("--only", default="", help="pages whose title contains this text")
    parser.add_argument("--sqlite", type=Path, help="keep the SQLite database in this directory")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database, or one that was filled before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as temporary:
        directory = Path(temporary)
        place = (options.sqlite or directory / "sqlite").absolute()
        targets = {"SQLite": f"sqlite:///{place}/metadata.db"}
        if options.postgresql:
            targets["PostgreSQL"] = options.postgresql
        results = {name: asyncio.run(run(url, directory / name, options)) for name, url in targets.items()}
    print("| page | as |" + "".join(f" {name}: median | p95 | passed | queries |" for name in results) + " HTML |")
    print("| --- | --- |" + " --- | --- | --- | --- |" * len(results) + " --- |")
    (first, *_) = results.values()
    for case, (_, size) in first.items():
        words = [
            f"{one.median:.1f} ms | {one.p95:.1f} ms | {one.passed:.1f} ms | {one.queries}"
            for one, _ in (found[case] for found in results.values())
        ]
        print(f"| {case.title} | {case.user} | {' | '.join(words)} | {size / 1000:.1f} kB |")
    show_assets()


if __name__ == "__main__":
    main()
