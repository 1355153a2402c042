"""A real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

_PROGRAM = "/usr/bin/chromium"
_QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--no-first-run",
]
"""It is to talk to nobody but the server."""
SECONDS = 60
"""Until a test gives up waiting for a page."""


@contextmanager
def run_chromium() -> Iterator[Browser]:
    """
    A running Chromium.

    While it runs, no other event loop can in this thread: tests with one are in other modules.
    """
    expect.set_options(timeout=1000 * SECONDS)
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_PROGRAM, args=[*_QUIET, *sandbox], timeout=1000 * SECONDS
        )
        try:
            yield browser
        finally:
            browser.close()
