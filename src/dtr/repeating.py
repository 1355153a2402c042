"""Doing the same again and again beside everything else, also after it failed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def repeat(
    work: Callable[[], Awaitable[object]],
    *,
    seconds: float,
    tell: Callable[[Exception], None],
    failures: tuple[type[Exception], ...] = (Exception,),
    first_after: float | None = None,
) -> None:
    """
    Do it with a pause of so many `seconds` before each time (before the first one `first_after`), until cancelled.

    A failure (what `work` raises of `failures`) ends nothing; `tell` is told of the first one in a row.
    """
    pause, has_failed = seconds if first_after is None else first_after, False
    while True:
        await asyncio.sleep(pause)
        pause = seconds
        try:
            await work()
        except failures as error:
            if not has_failed:
                tell(error)
            has_failed = True
        else:
            has_failed = False
