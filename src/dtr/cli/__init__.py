"""The command ``dtr``: it parses arguments, calls rooms and prints."""

from __future__ import annotations

from dtr import cycles


def main() -> None:
    """Run the command."""
    cycles.put_off()
    from dtr.cli.commands import cli

    cli(prog_name="dtr")
