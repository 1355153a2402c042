"""The command `dtr`, with all that it can do."""

from __future__ import annotations

import click

from dtr import __version__
from dtr.cli.account import account
from dtr.cli.config import config
from dtr.cli.repository import repository
from dtr.cli.server import doctor, fsck, migrate, serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """
    An open re-implementation of Docker Trusted Registry.

    Settings come from a file (--config), then from variables DTR_… of the environment, then from options;
    `dtr config show` prints them all. Exit status: 0 done; 1 failed, or something is wrong; 2 wrong usage.
    """


for command in (serve, migrate, doctor, fsck, config, account, repository):
    cli.add_command(command)


def main() -> None:
    """Run the command."""
    cli(prog_name="dtr")
