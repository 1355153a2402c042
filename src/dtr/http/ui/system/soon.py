"""What may take a while: a page shows it when it is there at once, and is otherwise asked for again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


async def soon(work: Coroutine[Any, Any, T], seconds: float) -> T | None:
    """What `work` gives within so many seconds, or raises; None: it goes on, and nobody waits for it."""
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if done:
        return task.result()
    task.add_done_callback(_forget)
    return None


def _forget(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()  # seen: else the loop would complain
