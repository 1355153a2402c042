"""``dtr serve``, and what an operator does beside it: ``migrate``, ``doctor``, ``fsck``, ``import-storage``."""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure, printable, run, run_with, with_settings

if TYPE_CHECKING:
    from dtr.app import Application
    from dtr.config import Loaded
    from dtr.registry.importing import Import


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


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes: a number, maybe with K, M, G or T for powers of 1024."""
    if value is None:
        return None
    number, power = value[:-1], "KMGT".find(value[-1:].upper()) + 1
    if not power:
        number = value
    if not number.isdecimal() or not int(number):
        raise click.BadParameter("it is a number of bytes above 0, maybe with K, M, G or T")
    return int(number) << 10 * power


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    from dtr.durations import to_milliseconds

    try:
        return None if value is None else to_milliseconds(value) / 1000
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@with_settings()
@click.option(
    "--verify", "--content", "content", is_flag=True, help="Read every blob and compare it with its digest."
)
@click.option(
    "--repair", is_flag=True, help="Bring back what is lost, or note that it is; queue what is left over."
)
@click.option("--rate", metavar="SIZE", callback=_size, help="Read at most so much a second: 50M.")
@click.option(
    "--time", "seconds", metavar="TIME", callback=_seconds, help="Read for so long: 2h. The rest goes on."
)
@click.option("--after", metavar="LOCATION", default="", help="Read only blobs that come after this location.")
@click.option("--resume", is_flag=True, help="Read on from where the last one with --resume stopped.")
@click.option("--quarantine", is_flag=True, help="Only list the damaged objects that are kept for a month.")
def fsck(loaded: Loaded, quarantine: bool, seconds: float | None, **how: Any) -> None:
    """
    Compare the metadata with the storages.

    A server may run meanwhile. Exit status 1 when there is damage. Nothing is deleted. --repair looks everywhere
    for content that was lost; marks what it does not find as missing, so that the next push brings it again; keeps
    damaged objects for a month; and leaves objects that nobody names to the running server, which deletes them a
    day later.
    """
    if quarantine:
        run_with(loaded, _list_quarantine)
        return
    damage = 0

    async def work(application: Application) -> None:
        nonlocal damage
        from dtr.registry.fsck import Audit

        check = application.audit()
        ends_at = None if seconds is None else time.monotonic() + seconds
        audit = Audit(**how, is_over=lambda: ends_at is not None and time.monotonic() > ends_at)
        async for finding in check.run(audit):
            damage += finding.is_damage
            click.echo(f"{'DAMAGE' if finding.is_damage else 'note  '}  {finding.text}")
        click.echo(f"{check.counted}; {damage} damaged")

    run_with(loaded, work)
    if damage:
        sys.exit(1)


async def _list_quarantine(application: Application) -> None:
    async for one in application.audit().quarantined():
        until = dt.datetime.fromtimestamp(one.until / 1000, dt.UTC).isoformat(timespec="seconds")
        click.echo(f"{one.location}  {one.size} bytes  until {until}  {one.damage}")


@click.command("import-storage")
@with_settings()
@click.option("--storage", metavar="NAME", default="default", help="The storage in which the tree lies.")
@click.option("--prefix", metavar="PATH", default="", help="What stands before docker/registry/v2 in it.")
@click.option(
    "--map", "maps", metavar="OLD=NEW", multiple=True, help="What a repository or namespace is called here."
)
@click.option("--namespace", metavar="NAME", default="", help="Where repositories go whose names have one part.")
@click.option("--create-namespaces", is_flag=True, help="Make organisations for namespaces that are not there.")
@click.option("--visibility", type=click.Choice(["private", "public"]), default="private", help="Of what is made.")
@click.option(
    "--verify", is_flag=True, help="Read every blob, and compare it with its digest, before it is taken."
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and tell what would come of it.")
@click.option("--dtr-backup", metavar="FILE", type=click.Path(dir_okay=False), help="Look into a backup of DTR.")
def import_storage(loaded: Loaded, maps: tuple[str, ...], dtr_backup: str | None, **plan: Any) -> None:
    """
    Take over what another registry left in a storage.

    It was docker-registry, Harbor, or a DTR up to 2.5. Not a byte is copied: blobs stay where they are, and are
    dtr's from then on. So the other registry must be stopped or read-only. A server of dtr may run meanwhile. What
    cannot be taken is told, and harms nothing else; run again, it goes on where it was. Exit status 1 when there
    was a problem.
    """
    from dtr.registry.importing import ImportPlan, parse_names

    if dtr_backup is not None:
        _look_into(Path(dtr_backup))
    problems = 0

    async def work(application: Application) -> None:
        nonlocal problems
        import asyncio

        if plan["create_namespaces"] and await application.accounts.is_empty():
            # The first start makes an administrator only when there is nobody.
            raise Failure("there are no accounts yet: let `dtr serve` start once, which makes the first")
        importing = application.importing(ImportPlan(**plan, names=parse_names(maps)))
        watching = asyncio.create_task(_watch(importing)) if sys.stderr.isatty() else None
        try:
            await importing.run(lambda text: click.echo(f"problem  {printable(text)}"))
        finally:
            if watching is not None:
                watching.cancel()
                click.echo("\r\033[K", nl=False, err=True)
        problems = importing.counted["problems"]
        click.echo(importing.report)

    run_with(loaded, work)
    if problems:
        sys.exit(1)


def _look_into(backup: Path) -> None:
    """Say what is in a backup of DTR. Raises Failure: that is all that can be done with it."""
    from dtr.registry import RegistryError
    from dtr.registry.dtr_backup import look_into

    try:
        found = look_into(backup)
    except RegistryError as error:
        raise Failure(f"{backup}: {error}") from None
    except OSError as error:
        raise Failure(f"{backup}: {error.strerror}") from None
    for line in found.lines:
        click.echo(printable(line))
    raise Failure(
        "what the tables of such a backup mean is not documented: nothing is imported. Let that DTR run, perhaps"
        " restored from the backup, and pull and push its images, or let a mirroring policy poll them"
    )


async def _watch(importing: Import) -> None:
    """Show each second how far it is."""
    import asyncio

    while True:
        of = "" if importing.total is None else f" of {importing.total}"
        click.echo(f"\r\033[K{importing.done}{of} links", nl=False, err=True)
        await asyncio.sleep(1)
