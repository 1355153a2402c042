"""``dtr serve``, and what an operator does beside it: ``migrate``, ``doctor``, ``fsck``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure, run, run_with, with_settings

if TYPE_CHECKING:
    from dtr.app import Application
    from dtr.config import Loaded


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


@click.command()
@with_settings("https_address", "http_address", "workers", "components")
@click.option("--https-address", metavar="HOST:PORT", help="Where TLS is served (default: 0.0.0.0:5443).")
@click.option("--http-address", metavar="HOST:PORT", help="Where plain HTTP is redirected (or served).")
@click.option("--workers", type=int, help="Worker processes (default: one a processor, at most 4).")
@click.option("--components", metavar="NAME,...", callback=_names, help="Which components run (default: all).")
def serve(loaded: Loaded) -> None:
    """
    Run dtr until it gets SIGTERM or SIGINT.

    The first start makes the tables, an own authority with a certificate, and the user `admin` with the password
    in DTR_ADMIN_PASSWORD or a random one that is printed once. On PostgreSQL the tables are made by `dtr migrate`.
    """
    from dtr.serve import ServeError, serve

    try:
        serve(loaded.settings, os.environ)
    except ServeError as error:
        raise Failure(str(error)) from None


@click.command()
@with_settings()
def migrate(loaded: Loaded) -> None:
    """Bring the tables of the metadata database up to date."""
    from dtr.db import open_database
    from dtr.db.migrate import HEAD
    from dtr.db.migrate import migrate as bring_up

    settings = loaded.settings

    async def work() -> None:
        if settings.database.url is None:
            settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        database = open_database(settings.database_url)
        try:
            before = await database.revision()
            await bring_up(database, settings.database_url)
        finally:
            await database.close()
        click.echo(f"revision {HEAD}" + (" already" if before == HEAD else f", was {before or 'empty'}"))

    run(work())


@click.command()
@with_settings()
def doctor(loaded: Loaded) -> None:
    """
    Look for what is wrong, and say what to do.

    Checks database, storage (writes, reads and deletes), certificates, clock and free space. Exit status 1 when
    one of them is bad.
    """
    import asyncio

    from dtr.doctor import examine

    findings = asyncio.run(examine(loaded.settings))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.good else 'FAIL'}  {finding.subject:<12} {finding.text}")
        if finding.advice:
            click.echo(f"                    -> {finding.advice}")
    if not all(finding.good for finding in findings):
        sys.exit(1)


@click.command()
@with_settings()
@click.option("--content", is_flag=True, help="Read every blob and compare it with its digest.")
@click.option("--repair", is_flag=True, help="Note what was found: missing blobs, objects that nobody names.")
def fsck(loaded: Loaded, **how: Any) -> None:
    """
    Compare the metadata with the storage.

    A server may run meanwhile. Exit status 1 when there is damage. Nothing is deleted: --repair marks damaged
    blobs as missing, so that the next push brings them again, and leaves objects that nobody names to the running
    server, which deletes them a day later.
    """
    damage = 0

    async def work(application: Application) -> None:
        nonlocal damage
        check = application.audit()
        async for finding in check.run(**how):
            damage += finding.is_damage
            click.echo(f"{'DAMAGE' if finding.is_damage else 'note  '}  {finding.text}")
        click.echo(f"{check.counted}; {damage} damaged")

    run_with(loaded, work)
    if damage:
        sys.exit(1)
