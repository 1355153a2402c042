"""``dtr config``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dtr.cli._common import with_settings

if TYPE_CHECKING:
    from dtr.config import Loaded


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command("show")
@with_settings()
def show(loaded: Loaded) -> None:
    """
    Print every setting.

    A line each: name, value (secrets masked), and where it came from.
    """
    rows = list(loaded.rows())
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"{name:<{width}}  {value}  ({source})")
