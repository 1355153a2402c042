"""What may take a while: a page shows it when it is there at once, and is otherwise asked for again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin what goes on beside the rest of a page. Whether it fails may be of no interest in the end."""
    task = asyncio.create_task(work)
    task.add_done_callback(_see)
    return task


async def soon(task: asyncio.Task[T], seconds: float) -> T | None:
    """What a task gives within so many seconds, or raises; None: it goes on, and nobody waits for it."""
    done, _ = await asyncio.wait([task], timeout=seconds)
    return task.result() if done else None


def _see(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()  # else the loop would complain of one that nobody waited for
