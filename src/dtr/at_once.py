"""Doing the same for many things, some at a time; a failure is raised as it is, in no group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")


async def at_once(
    work: Callable[[T], Awaitable[None]], things: Iterable[T] | AsyncIterator[T], number: int
) -> None:
    """Do it for all, `number` at a time; the first failure stops the others, and is raised."""
    waiting = things if isinstance(things, AsyncIterator) else _each(things)
    asking = asyncio.Lock()

    async def one_after_another() -> None:
        while True:
            async with asking:
                try:
                    one = await anext(waiting)
                except StopAsyncIteration:
                    return
            await work(one)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(one_after_another())
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None


def first_failure(failure: BaseException) -> BaseException:
    """What is in a group of failures, and the groups in it, first."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


async def _each(things: Iterable[T]) -> AsyncIterator[T]:
    for one in things:
        yield one
