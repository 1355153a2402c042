"""
Starting: what has to be true before the first request, and the words that greet the operator.

The parent prepares (data directory, tables, certificate, first account) and binds; the workers serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import ssl
import sys
from typing import TYPE_CHECKING

import uvloop

from dtr import cycles, logs, metrics, processes
from dtr.accounts import PasswordInvalid
from dtr.app import Application, background, preload, request_limits
from dtr.backends import PlaceChanged
from dtr.certificates import changed_at, web_certificate
from dtr.config import split_address
from dtr.db import DatabaseError, SchemaOutdated, open_database
from dtr.http.server import Listener, Server
from dtr.pki import server_context
from dtr.signatures import TrustRootInvalid
from dtr.storage import StorageError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dtr.config import Settings
    from dtr.http.limits import Limits
    from dtr.pki import Certificate

_log = logging.getLogger("dtr.serve")

_PASSWORD_BYTES = 16
_CLEANING_SECONDS = 30.0
"""So long a worker may take to end after its requests did."""
_LOCAL = frozenset({"0.0.0.0", "::", "127.0.0.1", "::1", "localhost"})  # noqa: S104 - compared, not bound


class ServeError(Exception):
    """The server cannot start; the message says why."""


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT. Raises ServeError."""
    logs.configure(settings.log.level, settings.log.format)
    processes.allow_descriptors()
    try:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = _claim(settings)
        certificate = None if settings.https_address is None else web_certificate(settings)
        context = _context(certificate) if certificate else None
        metrics.prepare(_metrics_directory(settings))
        https = _bind("https_address", settings.https_address, settings.workers)
        http = _bind("http_address", settings.http_address, settings.workers)
        # Nothing that can fail comes between making a password up and showing it.
        password = _prepared(settings, environment)
        if password is not None:
            _print(
                "A first account was made (this is shown once):",
                "    user      admin",
                f"    password  {password}",
                "",
            )
        limits = request_limits(settings)
        preload(settings.components)
        cycles.settle()
    except processes.AddressInUse as error:
        raise ServeError(str(error)) from error
    except (PlaceChanged, StorageError) as error:
        raise ServeError(str(error)) from error
    except DatabaseError as error:
        where = "" if settings.database.url else f" {settings.data_dir / 'metadata.db'}"
        raise ServeError(f"the metadata database{where}: {error}") from error
    except TrustRootInvalid as error:
        raise ServeError(f"signatures.trust_root: {error}") from error
    except OSError as error:
        raise ServeError(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error

    def worker(number: int, parent: int, ready: Callable[[], None]) -> None:
        sockets = [(one[number], tls) for one, tls in ((https, context), (http, None)) if one]
        for one in (*https, *http):
            if all(one is not mine for mine, _ in sockets):
                one.close()
        jobs = number == 0 and "jobrunner" in settings.components
        if limits is not None:
            limits.begin(number)
        _run(settings, sockets, certificate, limits, parent, ready, jobs=jobs, reports=number == 0)

    try:
        processes.run(
            worker,
            settings.workers,
            ready=lambda: _greet(settings, https, http),
            stopping=lambda: processes.close((*https, *http)),
            patience=settings.drain_seconds + _CLEANING_SECONDS,
        )
    except processes.WorkersFailed as error:
        raise ServeError(str(error)) from error
    finally:
        os.close(lock)


def _claim(settings: Settings) -> int:
    """Nobody else may use the data directory; the lock ends with the last process that has it."""
    file = settings.data_dir / "dtr.lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ServeError(f"dtr runs already on {settings.data_dir.absolute()}") from None
    return descriptor


def _context(certificate: Certificate) -> ssl.SSLContext:
    try:
        return server_context(certificate)
    except (OSError, ssl.SSLError) as error:
        files = f"certificate {certificate.chain} with key {certificate.key}"
        raise ServeError(f"{files}: {error.strerror or error}") from error


def _prepared(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """See `_prepare`; tables of SQLite that are not there, or old, are made first."""
    try:
        return asyncio.run(_prepare(settings, environment))
    except SchemaOutdated as error:
        if settings.database.url is not None:
            raise ServeError(str(error)) from error
    _in_a_process(lambda: asyncio.run(_make_tables(settings)))
    return asyncio.run(_prepare(settings, environment))


async def _make_tables(settings: Settings) -> None:
    from dtr.db.migrate import migrate

    database = open_database(settings.database_url)
    try:
        await migrate(database, settings.database_url)
    finally:
        await database.close()


def _in_a_process(work: Callable[[], None]) -> None:
    """
    Do something in a process of its own, with which goes what it imported: 18 MiB, for the tables.

    Raises DatabaseError. Of what else is raised there, the log has the traceback.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except DatabaseError as error:
            os.write(tell, str(error).encode())
        except BaseException as error:  # noqa: BLE001 - nothing may return into the parent's code
            _log.exception("tables not made")
            os.write(tell, repr(error).encode())
        finally:
            logging.shutdown()
            os._exit(status)
    os.close(tell)
    with open(told, encoding="utf-8", errors="replace") as said:  # noqa: PTH123 - a descriptor
        reason = said.read()
    _, ended = os.waitpid(child, 0)
    if ended:
        raise DatabaseError(reason or "whoever made the tables was killed")


async def _prepare(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """
    Keys and the first account; the password that was made up for it, if one was.

    Raises SchemaOutdated, before anything was changed, DatabaseError, ServeError.
    """
    from dtr.db.migrate import check

    application = Application(settings)
    try:
        await check(application.database)
        if _keeps_blobs(settings):
            await application.backends.begin()
        await application.tokens.keys.refresh()
        given = environment.get("DTR_ADMIN_PASSWORD")
        password = given or secrets.token_urlsafe(_PASSWORD_BYTES)
        try:
            made = await application.ensure_admin(password)
        except PasswordInvalid as error:
            raise ServeError(f"DTR_ADMIN_PASSWORD: {error}") from None
        return password if made and not given else None
    finally:
        await application.close()


def _keeps_blobs(settings: Settings) -> bool:
    """Whether this process tree has to do with storages: what only gives out tokens need not be told of them."""
    return set(settings.components) != {"garant"}


def _metrics_directory(settings: Settings) -> Path:
    return settings.data_dir / "run" / "metrics"


def _bind(setting: str, address: str | None, count: int) -> list[socket.socket]:
    if address is None:
        return []
    host, port = split_address(address)
    try:
        return processes.bind(processes.Address(host, port), count)
    except OSError as error:
        raise ServeError(f"{setting} {address}: {error.strerror or error}") from error


def _run(
    settings: Settings,
    sockets: list[tuple[socket.socket, ssl.SSLContext | None]],
    certificate: Certificate | None,
    limits: Limits | None,
    parent: int,
    ready: Callable[[], None],
    *,
    jobs: bool,
    reports: bool,
) -> None:
    """One worker; `jobs`: it works in the background, too; `reports`: it says that the replica is there."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

        def orphaned() -> None:
            """The end of the parent, however it came, is the end of its workers."""
            loop.remove_reader(parent)  # the end of a pipe can be read again and again
            stop.set()

        loop.add_reader(parent, orphaned)
        application = Application(settings)
        counted = metrics.Metrics(_metrics_directory(settings))
        front = application.front(certificate, counted, limits)
        server = Server(front, [Listener(one, tls) for one, tls in sockets], drain_seconds=settings.drain_seconds)
        await application.tokens.keys.refresh()
        await application.live.refresh()
        if _keeps_blobs(settings):
            await application.backends.refresh()
        await application.upstreams.refresh()
        await application.enforcement.refresh()
        beside = [
            asyncio.create_task(work)
            for work in (
                counted.keep_saved(),
                application.live.keep_fresh(),
                application.upstreams.keep_fresh(),
                application.enforcement.keep_fresh(),
                application.enforcement.refusals.run(),
                application.pulls.run(),
            )
        ]
        if _keeps_blobs(settings):
            beside.append(asyncio.create_task(application.backends.keep_fresh()))
        if reports:
            beside.append(asyncio.create_task(application.replicas.keep_reporting()))
        context = next((tls for _, tls in sockets if tls is not None), None)
        if certificate is not None and context is not None:
            beside.append(asyncio.create_task(_keep_certificate(settings, certificate, context)))
        side = asyncio.create_task(background(application, stop)) if jobs else None
        try:
            await server.run(stop, ready)
        finally:
            loop.remove_reader(parent)
            for one in beside:
                one.cancel()
            await counted.save()
            if reports:
                with contextlib.suppress(DatabaseError):
                    await application.replicas.leave()
            if side is not None:
                await side
            await application.close()

    uvloop.run(main())


async def _keep_certificate(settings: Settings, certificate: Certificate, context: ssl.SSLContext) -> None:
    """Take over a certificate that was renewed, by its owner or, in time, by dtr itself."""
    known = changed_at(certificate)
    while True:
        await asyncio.sleep(settings.tls.reload_seconds)
        try:
            await asyncio.to_thread(web_certificate, settings)
            newest = changed_at(certificate)
            if newest == known:
                continue
            server_context(certificate)  # when half of it is there, the one in use stays
            context.load_cert_chain(certificate.chain, certificate.key)
            known = newest
        except (OSError, ssl.SSLError) as error:
            _log.error("certificate not reloaded", extra={"reason": str(error)})
        else:
            _log.info("certificate reloaded", extra={"file": str(certificate.chain)})


def _greet(settings: Settings, https: list[socket.socket], http: list[socket.socket]) -> None:
    """The address to open, and three commands to try."""
    listening = (https or http)[0]
    port = listening.getsockname()[1]
    scheme = "https" if https else "http"
    host, _ = split_address(settings.https_address or settings.http_address or "")
    name = "localhost" if host in _LOCAL else f"[{host}]" if ":" in host else host
    address = settings.external_address or f"{name}:{port}"
    lines = [
        f"dtr is ready: {scheme}://{address}/",
        "",
        "Try it, after making a repository:",
        f"    {_program()} repository create --data-dir {settings.data_dir} admin/hello",
        f"    docker login {address} -u admin",
        f"    docker tag hello-world {address}/admin/hello && docker push {address}/admin/hello",
        f"    docker pull {address}/admin/hello",
    ]
    if https and settings.tls.certificate is None:
        lines += ["", f"The certificate is by an authority of its own: curl -k {scheme}://{address}/ca"]
    _print(*lines)


def _program() -> str:
    """What to type for this program."""
    return "dtr" if shutil.which("dtr") else sys.argv[0]


def _print(*lines: str) -> None:
    try:
        print(*lines, sep="\n", flush=True)  # noqa: T201 - it is for the operator
    except OSError:  # nobody reads the output; at the end Python tries once more, and would fail
        with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 - a device
            os.dup2(nothing.fileno(), sys.stdout.fileno())
