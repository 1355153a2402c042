"""The command ``dtr``: it parses arguments, calls rooms and prints."""

from __future__ import annotations

import gc

_OBJECTS = 250_000
"""So many new objects until Python looks for cycles; importing all of dtr makes 200,000, and nearly all stay."""


def main() -> None:
    """Run the command."""
    gc.set_threshold(_OBJECTS)  # by default it looks each 700: a quarter of the time of a start
    from dtr.cli.commands import cli

    cli(prog_name="dtr")
