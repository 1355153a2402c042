"""What is built when it is first wanted."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from dtr.app import preload
from dtr.http import ui
from dtr.http.lazy import Lazy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dtr.http.types import ASGIApp, Message, Receive, Scope, Send


class Builder:
    """Builds an application that answers with how often something was built; `failures` times it cannot."""

    def __init__(self, failures: int = 0) -> None:
        self.built = 0
        self._failures = failures

    def __call__(self) -> ASGIApp:
        self.built += 1
        if self.built <= self._failures:
            raise OSError("no assets")
        built = self.built

        async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"number": built})

        return application


async def ask(lazy: Lazy) -> int:
    """The number that it answers."""
    told: list[int] = []

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    async def send(message: Message) -> None:
        told.append(message["number"])

    await lazy({"type": "http"}, receive, send)
    (number,) = told
    return number


async def test_nothing_is_built_before_the_first_request() -> None:
    builder = Builder()
    lazy = Lazy(builder)
    assert builder.built == 0
    assert await ask(lazy) == 1


async def test_requests_that_come_together_have_it_built_once() -> None:
    builder = Builder()
    lazy = Lazy(builder)
    assert await asyncio.gather(*(ask(lazy) for _ in range(8))) == [1] * 8
    assert await ask(lazy) == 1
    assert builder.built == 1


async def test_what_could_not_be_built_is_tried_again() -> None:
    lazy = Lazy(Builder(failures=2))
    for _ in range(2):
        with pytest.raises(OSError, match="no assets"):
            await ask(lazy)
    assert await ask(lazy) == 3


@pytest.mark.parametrize("failures", [0, 1])
async def test_cycles_are_looked_for_as_before_when_it_is_built(failures: int) -> None:
    before = gc.get_threshold()
    at: list[Any] = []
    builder = Builder(failures)

    def build() -> ASGIApp:
        at.append(gc.get_threshold())
        return builder()

    lazy = Lazy(build)
    try:
        await asyncio.gather(ask(lazy), return_exceptions=True)
        assert at[0][0] > before[0]
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    def read() -> list[str]:
        preload(["api"])
        return [
            f"{one.message}: {one.__dict__['reason']}" for one in caplog.records if one.levelno == logging.ERROR
        ]

    return read


def test_assets_that_are_there_are_nothing_to_talk_about(said: Callable[[], list[str]]) -> None:
    assert said() == []


def test_a_start_says_that_there_are_no_assets(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ui, "STATIC", tmp_path)
    (line,) = said()
    assert line.startswith("pages have no assets: ")
    assert str(tmp_path / "manifest.json") in line


def test_a_start_says_that_a_file_of_the_assets_is_missing(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ui, "STATIC", tmp_path)
    (tmp_path / "manifest.json").write_text('{"app.js": "app-1.js", "app.css": "app-2.css"}')
    (tmp_path / "app-1.js").touch()
    (line,) = said()
    assert str(tmp_path / "app-2.css") in line


def test_a_start_says_that_the_list_of_assets_is_cut(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ui, "STATIC", tmp_path)
    (tmp_path / "manifest.json").write_text('{"app.js": ')
    (line,) = said()
    assert line.startswith("pages have no assets: ")
