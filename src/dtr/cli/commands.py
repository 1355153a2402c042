"""The command `dtr`, with all that it can do."""

from __future__ import annotations

import click

from dtr import __version__
from dtr.cli.account import account
from dtr.cli.config import config
from dtr.cli.nginx import nginx
from dtr.cli.remote import COMMANDS as REMOTE
from dtr.cli.remote import completion
from dtr.cli.repository import repository
from dtr.cli.server import doctor, fsck, import_storage, migrate, serve
from dtr.cli.signer import signer
from dtr.cli.storage import storage

LOCAL = (serve, nginx, migrate, doctor, fsck, import_storage, config, storage, account, repository, signer)


class _Sections(click.Group):
    """A group whose help tells apart what works here and what asks a server."""

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - as click calls it
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the commands, by section."""
        for title, commands in (
            ("On the machine of the registry, on its own data", LOCAL),
            ("On a server, from anywhere, as the user who logged in", REMOTE),
            ("Anywhere", (completion,)),
        ):
            with formatter.section(title):
                limit = formatter.width - 6 - max(len(name) for name in self.commands)
                formatter.write_dl([(str(one.name), one.get_short_help_str(limit)) for one in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """
    An open re-implementation of Docker Trusted Registry.

    On the machine of the registry, settings come from a file (--config), then from variables DTR_… of the
    environment, then from options; `dtr config show` prints them all. From anywhere else, `dtr login` comes first.
    Exit status: 0 done; 1 failed, or something is wrong; 2 wrong usage.
    """


for command in (*LOCAL, *REMOTE, completion):
    cli.add_command(command)
