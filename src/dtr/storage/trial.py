"""A trial of a storage, step by step: for people who have to find out which right or address is wrong."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from dtr.storage.driver import new_location
from dtr.storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dtr.storage.driver import Driver

Name: TypeAlias = Literal["open", "write", "read", "list", "sign", "delete", "rest"]
State: TypeAlias = Literal["good", "failed", "absent", "skipped"]

_NEEDS: dict[Name, Name] = {"read": "write", "list": "write", "sign": "write", "delete": "write", "rest": "delete"}
"""What a step is not tried without."""
_STEPS: tuple[Name, ...] = ("write", "read", "list", "sign", "delete", "rest")
_SIGNED_SECONDS = 60
_TO_CLEAN_UP_SECONDS = 5.0


class Step(Struct, frozen=True):
    """
    One step: what was tried, and how it went.

    `failed` says why in `text`; `absent` is what the storage does not offer and nobody needs; `skipped` was not
    tried, as an earlier step failed. `milliseconds` is how long it took.
    """

    name: Name
    state: State
    text: str = ""
    milliseconds: int = 0


async def try_steps(open_driver: Callable[[], Driver], *, patience: float) -> list[Step]:
    """
    Open a storage, and write, read, list, sign and delete a small object in it; `patience` in seconds, for all.

    The last step, `rest`, is what its kind needs besides: a place for parts to wait, large objects. Nothing of
    the trial stays, unless it cannot be deleted.
    """
    started = time.monotonic()
    try:
        driver = open_driver()
    except StorageError as error:
        return [Step("open", "failed", str(error), _since(started)), *_skipped(_STEPS)]
    steps = [Step("open", "good", milliseconds=_since(started))]
    try:
        steps += await _Trial(driver, started + patience).run()
    finally:
        await driver.close()
    return steps


class _Trial:
    """The steps in an open storage, all of them before `ends_at`."""

    def __init__(self, driver: Driver, ends_at: float) -> None:
        self._driver = driver
        self._ends_at = ends_at
        self._location, self._data = new_location(), uuid.uuid4().bytes

    async def run(self) -> list[Step]:
        doing: dict[Name, Callable[[], Awaitable[bool]]] = {
            "write": self._write,
            "read": self._read,
            "list": self._list,
            "sign": self._sign,
            "delete": self._delete,
            "rest": self._rest,
        }
        steps: dict[Name, Step] = {}
        for name in _STEPS:
            needed = _NEEDS.get(name)
            if needed is not None and steps[needed].state != "good":
                steps[name] = Step(name, "skipped")
            else:
                steps[name] = await self._try(name, doing[name])
        if steps["write"].state == "failed":  # what came of it is not known
            with suppress(StorageError, TimeoutError):
                async with asyncio.timeout(_TO_CLEAN_UP_SECONDS):
                    await self._driver.delete(self._location)
        return list(steps.values())

    async def _try(self, name: Name, step: Callable[[], Awaitable[bool]]) -> Step:
        started = time.monotonic()
        left = self._ends_at - started
        try:
            async with asyncio.timeout(left):
                is_offered = await step()
        except StorageError as error:
            return Step(name, "failed", str(error), _since(started))
        except TimeoutError:
            return Step(name, "failed", f"no answer within {max(0.0, left):.0f} s", _since(started))
        return Step(name, "good" if is_offered else "absent", milliseconds=_since(started))

    async def _write(self) -> bool:
        await self._driver.put_small(self._location, self._data)
        return True

    async def _read(self) -> bool:
        async with aclosing(self._driver.open(self._location)) as pieces:
            if b"".join([piece async for piece in pieces]) != self._data:
                raise StorageError("it gives back other bytes than were stored")
        return True

    async def _list(self) -> bool:
        async with aclosing(self._driver.list(self._location)) as found:
            async for one in found:
                if one.location == self._location and one.size == len(self._data):
                    return True
        raise StorageError("what was just written is not in the list of its objects")

    async def _sign(self) -> bool:
        return await self._driver.sign(self._location, _SIGNED_SECONDS) is not None

    async def _delete(self) -> bool:
        await self._driver.delete(self._location)
        return True

    async def _rest(self) -> bool:
        await self._driver.check()
        return True


def _skipped(names: tuple[Name, ...]) -> list[Step]:
    return [Step(name, "skipped") for name in names]


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
