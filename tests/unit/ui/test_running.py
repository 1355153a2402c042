"""How many jobs run, as pages tell it: when it is asked for anew, and when a page does not wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dtr.http.ui import running
from dtr.http.ui.running import Running


@dataclass
class Looker:
    """A visit of somebody who may see the system, or not; and the database, in which so many jobs run."""

    count: int = 0
    sees: bool = True
    is_partial: bool = False
    method: str = "GET"
    asked: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    @property
    def request(self) -> Any:
        return SimpleNamespace(method=self.method)

    def may(self, right: str) -> bool:
        assert right == "SEE_SYSTEM"
        return self.sees

    async def listing(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        await self.answers.wait()
        return SimpleNamespace(count=self.count)


async def look(jobs: Running, visit: Looker, method: str = "GET") -> int:
    visit.method = method
    await jobs.look(visit)  # type: ignore[arg-type]
    return jobs.count


async def test_who_looks_meanwhile_is_told_the_same_and_who_changes_something_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "_GOOD_FOR_SECONDS", 600)
    monkeypatch.setattr(running, "_PATIENCE_SECONDS", 60)
    jobs, visit = Running(), Looker(count=1)
    assert await look(jobs, visit) == 1
    visit.count = 2
    assert await look(jobs, visit) == 1
    assert visit.asked == 1
    await look(jobs, visit, "POST")
    assert await look(jobs, visit) == 2
    assert visit.asked == 2


async def test_nobody_asks_for_who_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Running()
    for visit in (Looker(count=1, sees=False), Looker(count=1, is_partial=True)):
        assert await look(jobs, visit) == 0
        assert visit.asked == 0


async def test_a_page_does_not_wait_long_for_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_PATIENCE_SECONDS", 0.01)
    jobs, visit = Running(), Looker(count=1)
    visit.answers.clear()
    assert await look(jobs, visit) == 0
    assert await look(jobs, visit) == 0
    assert visit.asked == 1
    visit.answers.set()
    monkeypatch.setattr(running, "_PATIENCE_SECONDS", 60)
    assert await look(jobs, visit) == 1
