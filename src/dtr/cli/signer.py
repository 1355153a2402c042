"""``dtr signer``: the signer as a component of its own, its certificates and its passphrases."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dtr.cli._common import Failure, require_database, run, with_settings

if TYPE_CHECKING:
    from dtr.config import Loaded
    from dtr.signer import Rotation

_SHOWN = 10


@click.group()
def signer() -> None:
    """
    Run a signer of its own for content trust.

    It keeps the keys of timestamps and snapshots, instead of the servers.
    """


@signer.command()
@with_settings("signer__address", "signer__certificate", "signer__key", "signer__client_ca")
@click.option("--address", "signer__address", metavar="HOST:PORT", help="Where to answer (default: 0.0.0.0:7899).")
@click.option("--cert", "signer__certificate", metavar="FILE", help="Its certificate (PEM; default: its own).")
@click.option("--key", "signer__key", metavar="FILE", help="The private key of the certificate (PEM).")
@click.option("--client-ca", "signer__client_ca", metavar="FILE", help="The authority of those who may ask (PEM).")
def serve(loaded: Loaded) -> None:
    """
    Run a signer until it gets SIGTERM or SIGINT.

    It answers servers (dtr's `trust.signer`, or a stock notary-server) with gRPC over mutual TLS. By default its
    keys are in a SQLite file in the data directory; on PostgreSQL the tables are made by `dtr migrate`.
    """
    from dtr.serve_signer import SignerNotStarted, serve

    try:
        serve(loaded.settings)
    except SignerNotStarted as error:
        raise Failure(str(error)) from None


@signer.command()
@with_settings()
@click.option("--name", "names", multiple=True, metavar="HOST", help="A name of the signer; may be repeated.")
def certificates(loaded: Loaded, names: tuple[str, ...]) -> None:
    """
    Make the certificates of both sides.

    One is the signer's, the other one is for the servers that ask it. They are by an authority of their own, in
    `signer-tls` in the data directory, and are renewed when the command runs again. The three files that it
    names at the end go to the servers.
    """
    from dtr.serve_signer import certificates

    known = loaded.settings.signer
    settings = loaded.settings.model_copy(
        update={"signer": known.model_copy(update={"names": (*known.names, *names)})}
    )
    try:
        own, client = certificates(settings)
    except OSError as error:
        raise Failure(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from None
    click.echo(f"the signer's certificate  {own.chain}")
    click.echo("for the servers:")
    for setting, file in (("ca", client.authority), ("certificate", client.chain), ("key", client.key)):
        click.echo(f"    trust.signer.{setting:<12} {file}")


@signer.command("rotate-passphrase")
@with_settings()
@click.option("--keep-file", is_flag=True, help="Use the passphrase that the file has first, and leave the file.")
def rotate_passphrase(loaded: Loaded, keep_file: bool) -> None:
    """
    Encrypt all keys with a new passphrase.

    The old one is forgotten. A signer, or a server that signs by itself, may run meanwhile. Cut off, it is run
    again. Where several hosts share a database, put a line with a new alias and passphrase first in the file of
    each, then run this with --keep-file. Exit status 1 when a key could not be opened: it stays as it is, with its
    passphrase.
    """
    from dtr.db import open_database
    from dtr.db.migrate import check
    from dtr.signer import LocalSigner, SignerError

    settings = loaded.settings
    require_database(settings)

    async def work() -> Rotation:
        database = open_database(settings.database_url)
        try:
            await check(database)
            return await LocalSigner(database, settings.passphrase_file).rotate_passphrase(make=not keep_file)
        finally:
            await database.close()

    try:
        rotation = run(work())
    except SignerError as error:
        raise Failure(str(error)) from None
    click.echo(f"{rotation.keys} keys are encrypted with {rotation.alias} now")
    if rotation.unused:
        click.echo(f"{'no longer needed' if keep_file else 'forgotten'}: {', '.join(rotation.unused)}")
    for reason in list(rotation.failed.values())[:_SHOWN]:
        click.echo(f"FAIL  {reason}", err=True)
    if rotation.failed:
        click.echo(f"keys that could not be opened: {len(rotation.failed)}", err=True)
        sys.exit(1)
