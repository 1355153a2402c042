"""A queue, and workers in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from dtr.db import Database
from dtr.jobs import Action, Crons, Jobs, Worker


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
async def start(database: Database) -> AsyncIterator[Callable[..., Worker]]:
    """A function that starts a worker with the actions that it is given."""
    tasks: list[asyncio.Task[None]] = []

    def begin(
        name: str = "0123456789ab",
        *,
        concurrency: int = 8,
        at_most: Mapping[str, int] | None = None,
        **actions: Action,
    ) -> asyncio.Task[None]:
        worker = Worker(
            database,
            Crons(database),
            actions,
            worker=name,
            node="here",
            concurrency=concurrency,
            at_most=at_most,
        )
        task = asyncio.create_task(worker.run())
        tasks.append(task)
        return task

    yield begin
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
