"""
Starting the signer as a component of its own: ``dtr signer serve``.

One process over a database, with nothing else of the program: signing takes microseconds. It shares nothing with
the servers but the certificates; its database may be another one, and should be when they must not read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

from dtr import cycles, logs
from dtr.config import split_address
from dtr.db import DatabaseError, open_database
from dtr.db.migrate import check, migrate
from dtr.pki import Certificate, ensure_certificate, ensure_client_certificate
from dtr.signer import LocalSigner, SignerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dtr.config import Settings
    from dtr.signer.service import Service

_log = logging.getLogger("dtr.signer")

_ALL = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_LOOK_SECONDS = 86_400.0
"""How often the certificates that the signer made itself are renewed, when it is time."""


class SignerNotStarted(Exception):
    """The signer cannot start; the message says why."""


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises SignerNotStarted."""
    logs.configure(settings.log.level, settings.log.format)
    with _explained():
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        asyncio.run(_serve(settings))


def certificates(settings: Settings) -> tuple[Certificate, Certificate]:
    """
    The signer's certificate, and the one that servers show to it; made or renewed when necessary.

    They are by an authority that does nothing else: whoever has a certificate by it may have something signed.
    Raises OSError.
    """
    names = list(settings.signer.names)
    host, _ = split_address(settings.signer.address)
    if host not in _ALL:
        names.append(host)
    return ensure_certificate(_directory(settings), names), ensure_client_certificate(_directory(settings))


def _directory(settings: Settings) -> Path:
    return settings.data_dir / "signer-tls"


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database = open_database(settings.database_url, size=settings.database.pool_size)
    try:
        if settings.database.url is None:
            await migrate(database, settings.database_url)
        else:
            await check(database)
        signer = LocalSigner(database, settings.passphrase_file)
        await signer.check()
        service, given = _service(settings, signer)
        await service.start()
        renewing = None if given else asyncio.create_task(_keep_certificates(settings))
        cycles.settle()
        print(f"dtr is ready: signer at {settings.signer.address}", flush=True)  # noqa: T201 - for the operator
        await stop.wait()
        if renewing is not None:
            renewing.cancel()
        _log.info("draining", extra={"seconds": settings.drain_seconds})
        await service.stop(settings.drain_seconds)
    finally:
        await database.close()


def _service(settings: Settings, signer: LocalSigner) -> tuple[Service, bool]:
    """The service, bound, and whether its certificates were given. Raises OSError."""
    from dtr.signer.service import Credentials, Service

    given = settings.signer
    if given.certificate is not None and given.key is not None and given.client_ca is not None:
        return Service(signer, given.address, Credentials(given.certificate, given.key, given.client_ca)), True
    own, _ = certificates(settings)
    assert own.authority is not None
    return Service(signer, given.address, Credentials(own.chain, own.key, own.authority)), False


async def _keep_certificates(settings: Settings) -> None:
    """Renew our own certificates in time; the service takes them for the next connections."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            await asyncio.to_thread(certificates, settings)
        except OSError as error:
            _log.error("certificate not reloaded", extra={"reason": str(error)})


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        raise SignerNotStarted(f"the signer's database: {error}") from error
    except SignerError as error:
        raise SignerNotStarted(str(error)) from error
    except OSError as error:
        raise SignerNotStarted(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error
