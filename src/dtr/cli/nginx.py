"""``dtr nginx``: nginx in front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dtr.cli._common import Failure, with_settings

if TYPE_CHECKING:
    from dtr.config import Loaded


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


@click.command()
@with_settings("nginx__https_address", "nginx__http_address", "nginx__upstreams")
@click.option(
    "--https-address",
    "nginx__https_address",
    metavar="HOST:PORT",
    help="Where TLS is served (default: 0.0.0.0:443).",
)
@click.option(
    "--http-address",
    "nginx__http_address",
    metavar="HOST:PORT",
    help="Where plain HTTP is redirected (default: 80).",
)
@click.option(
    "--upstreams",
    "nginx__upstreams",
    metavar="HOST:PORT,...",
    callback=_names,
    help="Where dtr serves plain HTTP.",
)
def nginx(loaded: Loaded) -> None:
    """
    Run nginx in front of dtr until it gets SIGTERM or SIGINT.

    Its configuration is made from the settings, in `nginx` in the data directory. It follows what changes: the
    settings file, the certificates, and the storages. SIGHUP makes it look at once.
    """
    from dtr.nginx import NginxFailed, run

    try:
        run(loaded)
    except NginxFailed as error:
        raise Failure(str(error)) from None
