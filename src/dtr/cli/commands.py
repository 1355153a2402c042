"""The command `dtr`, with all that it can do: a command is imported when it runs, or when the help lists it."""

from __future__ import annotations

from importlib import import_module

import click

from dtr import __version__

_SECTIONS = {
    "On the machine of the registry, on its own data": {
        "serve": "server",
        "nginx": "nginx",
        "migrate": "server",
        "doctor": "server",
        "fsck": "server",
        "import-storage": "server",
        "config": "config",
        "storage": "storage",
        "account": "account",
        "repository": "repository",
        "signer": "signer",
    },
    "On a server, from anywhere, as the user who logged in": {
        "login": "remote.login",
        "logout": "remote.login",
        "repo": "remote.repositories",
        "tag": "remote.repositories",
        "trust": "remote.trust",
        "enforce": "remote.enforcement",
        "user": "remote.accounts",
        "org": "remote.accounts",
        "team": "remote.accounts",
        "token": "remote.tokens",
        "robot": "remote.robots",
        "event": "remote.events",
        "search": "remote.system",
        "settings": "remote.system",
        "status": "remote.system",
    },
    "Anywhere": {"completion": "remote.completion"},
}
"""The commands, and in which module below `dtr.cli` each of them is, by section of the help."""
MODULES = {name: module for names in _SECTIONS.values() for name, module in names.items()}


class _Sections(click.Group):
    """A group whose help tells apart what works here and what asks a server."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """The names of all."""
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """A command; None: there is none of this name."""
        if cmd_name not in MODULES:
            return None
        module = import_module(f"dtr.cli.{MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, by section."""
        limit = formatter.width - 6 - max(map(len, MODULES))
        for title, names in _SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, one.get_short_help_str(limit)) for name, one in commands if one])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """
    An open re-implementation of Docker Trusted Registry.

    On the machine of the registry, settings come from a file (--config), then from variables DTR_… of the
    environment, then from options; `dtr config show` prints them all. From anywhere else, `dtr login` comes first.
    Exit status: 0 done; 1 failed, or something is wrong; 2 wrong usage.
    """
