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
import signal
import ssl
import sys
from typing import TYPE_CHECKING

import uvloop

from dtr import logs, metrics, processes
from dtr.app import Application, background, preload
from dtr.config import split_address
from dtr.db import DatabaseError, SchemaNewer, SchemaOutdated
from dtr.http.server import Listener, Server
from dtr.pki import Certificate, ensure_certificate, server_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dtr.config import Settings

_log = logging.getLogger("dtr.serve")

_PASSWORD_BYTES = 16


class ServeError(Exception):
    """The server cannot start; the message says why."""


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT. Raises ServeError."""
    logs.configure(settings.log.level, settings.log.format)
    try:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = _claim(settings)
        certificate = _certificate(settings)
        context = server_context(certificate) if certificate else None
        metrics.prepare(_metrics_directory(settings))
        password = asyncio.run(_prepare(settings, environment))
        https = _bind(settings.https_address, settings.workers)
        http = _bind(settings.http_address, settings.workers)
        preload(settings.components)
    except (DatabaseError, processes.AddressInUse) as error:
        raise ServeError(str(error)) from error
    except (OSError, ssl.SSLError) as error:
        raise ServeError(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error

    def worker(number: int, parent: int, ready: Callable[[], None]) -> None:
        sockets = [(one[number], tls) for one, tls in ((https, context), (http, None)) if one]
        for one in (*https, *http):
            if all(one is not mine for mine, _ in sockets):
                one.close()
        jobs = number == 0 and "jobrunner" in settings.components
        _run(settings, sockets, certificate, parent, ready, jobs=jobs)

    try:
        processes.run(worker, settings.workers, lambda: _greet(settings, https, http, password))
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


def _certificate(settings: Settings) -> Certificate | None:
    if settings.https_address is None:
        return None
    if settings.tls.certificate is not None and settings.tls.key is not None:
        return Certificate(settings.tls.certificate, settings.tls.key, settings.tls.ca)
    names = list(settings.tls.names)
    if settings.external_address:
        names.append(settings.external_address.rpartition(":")[0] or settings.external_address)
    host, _ = split_address(settings.https_address)
    if host not in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        names.append(host)
    return ensure_certificate(settings.data_dir / "tls", names)


async def _prepare(settings: Settings, environment: Mapping[str, str]) -> str | None:
    """Tables, keys and the first account; the password that was made up for it, if one was."""
    from dtr.db.migrate import check, migrate

    application = Application(settings)
    try:
        if settings.database.url is None:
            await migrate(application.database, settings.database_url)
        else:
            try:
                await check(application.database)
            except SchemaNewer:
                raise
            except SchemaOutdated as error:
                raise ServeError(str(error)) from error
        given = environment.get("DTR_ADMIN_PASSWORD")
        password = given or secrets.token_urlsafe(_PASSWORD_BYTES)
        made = await application.ensure_admin(password)
        await application.tokens.keys.refresh()
        return password if made and not given else None
    finally:
        await application.close()


def _metrics_directory(settings: Settings) -> Path:
    return settings.data_dir / "run" / "metrics"


def _bind(address: str | None, count: int) -> list[socket.socket]:
    if address is None:
        return []
    host, port = split_address(address)
    return processes.bind(processes.Address(host, port), count)


def _run(
    settings: Settings,
    sockets: list[tuple[socket.socket, ssl.SSLContext | None]],
    certificate: Certificate | None,
    parent: int,
    ready: Callable[[], None],
    *,
    jobs: bool,
) -> None:
    """One worker."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # The end of the parent, however it came, is the end of its workers.
        loop.add_reader(parent, stop.set)
        application = Application(settings)
        counted = metrics.Metrics(_metrics_directory(settings))
        front = application.front(certificate, counted)
        server = Server(front, [Listener(one, tls) for one, tls in sockets], drain_seconds=settings.drain_seconds)
        await application.tokens.keys.refresh()
        saving = asyncio.create_task(counted.keep_saved())
        side = asyncio.create_task(background(application, stop)) if jobs else None
        try:
            await server.run(stop, ready)
        finally:
            loop.remove_reader(parent)
            saving.cancel()
            await counted.save()
            if side is not None:
                await side
            await application.close()

    uvloop.run(main())


def _greet(
    settings: Settings, https: list[socket.socket], http: list[socket.socket], password: str | None
) -> None:
    """The address to open, and three commands to try."""
    listening = (https or http)[0]
    port = listening.getsockname()[1]
    scheme = "https" if https else "http"
    address = settings.external_address or f"localhost:{port}"
    lines = [f"dtr is ready: {scheme}://{address}/"]
    if password is not None:
        lines += [
            "",
            "A first account was made (this is shown once):",
            "    user      admin",
            f"    password  {password}",
        ]
    lines += [
        "",
        "Try it:",
        f"    docker login {address} -u admin",
        f"    docker tag hello-world {address}/admin/hello && docker push {address}/admin/hello",
        f"    docker pull {address}/admin/hello",
        "",
        "A repository must exist before it is pushed to:",
        f"    dtr repository create --data-dir {settings.data_dir} admin/hello",
    ]
    if https and settings.tls.certificate is None:
        lines += ["", f"The certificate is by an authority of its own: curl -k {scheme}://{address}/ca"]
    with contextlib.suppress(OSError):  # nobody reads the output
        print("\n".join(lines), flush=True)  # noqa: T201 - it is for the operator
        sys.stdout.flush()
