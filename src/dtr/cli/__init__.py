"""The command ``dtr``: it parses arguments, calls rooms and prints."""

from __future__ import annotations

from dtr.cli.main import main

__all__ = ["main"]
