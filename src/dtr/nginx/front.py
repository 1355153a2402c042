"""
The life of nginx: it is started when its configuration is good, follows what changes, and ends in order.

dtr stays its parent. The settings, the certificates and the storages are looked at again and again; when
something is different, nginx is told to read a configuration that was checked before. It then starts new workers,
and the old ones end when their last answer is complete, so no connection is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import grp
import logging
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections import deque
from typing import TYPE_CHECKING

from dtr import cycles, logs
from dtr.certificates import changed_at, web_certificate
from dtr.config import ConfigError, split_address
from dtr.db import DatabaseError
from dtr.nginx.configuration import Configuration, addresses_of
from dtr.nginx.errors import NginxFailed
from dtr.nginx.storages import FileStorages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dtr.config import Loaded, Settings

_log = logging.getLogger("dtr.nginx")

_VERSION = re.compile(r"nginx/(\d+(?:\.\d+)*)")
_LINE = re.compile(r"(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d|nginx:) \[(\w+)\] (?:\d+#\d+: )?(.*)")
_LEVELS = {"info": logging.INFO, "notice": logging.INFO, "warn": logging.WARNING}
_START_SECONDS = 15.0
"""nginx itself tries for some seconds to get an address that is in use."""
_LOOK_SECONDS = 2.0
"""How often what is in the database is looked at."""
_POLL_SECONDS = 0.1
_CUT_SECONDS = 5.0
"""So long nginx may take to end when it was told to do so at once."""
_PR_SET_PDEATHSIG = 1


def run(loaded: Loaded) -> None:
    """Run until SIGTERM or SIGINT. Raises NginxFailed."""
    settings = loaded.settings
    logs.configure(settings.log.level, settings.log.format)
    directory = settings.data_dir.absolute() / "nginx"
    try:
        settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        # The workers may be another user's: they get into theirs alone.
        (directory / "temporary").mkdir(mode=0o755, parents=True, exist_ok=True)
        with _claimed(directory):
            cycles.settle()
            asyncio.run(_Front(loaded, directory).run())
    except OSError as error:
        raise NginxFailed(f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")) from error


class _Front:
    """nginx, as long as it runs."""

    def __init__(self, loaded: Loaded, directory: Path) -> None:
        self._loaded = loaded
        self._directory = directory
        self._file = directory / "nginx.conf"
        self._pid_file = directory / "nginx.pid"
        self._program = _find_program(loaded.settings.nginx.program)
        self._version = _version_of(self._program)
        self._storages = FileStorages(loaded.settings)
        self._state: object = None  # what the configuration in use was made of
        self._said: deque[str] = deque(maxlen=5)

    async def run(self) -> None:
        """Start it, follow what changes, end it. Raises NginxFailed, OSError."""
        stop, look = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, look.set)
        try:
            with contextlib.suppress(DatabaseError):  # it is asked again soon
                await self._storages.refresh(self._loaded.settings)
            await asyncio.to_thread(self._renew)
            process = await self._start()
            listening = asyncio.create_task(self._listen(process))
            ended = asyncio.create_task(_ended(process))
            following = asyncio.create_task(self._follow(process, look))
            stopped = asyncio.create_task(stop.wait())
            try:
                await self._until_ready(process)
                _greet(self._loaded.settings)
                await asyncio.wait((ended, stopped, following), return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()
                if not stop.is_set():
                    raise NginxFailed(f"nginx ended with {process.returncode}")
            finally:
                following.cancel()
                stopped.cancel()
                await self._end(process)
                await listening
        finally:
            await self._storages.close()

    async def _start(self) -> asyncio.subprocess.Process:
        self._pid_file.unlink(missing_ok=True)
        # In a group of its own: what a terminal sends to all reaches it in order, through us.
        return await asyncio.create_subprocess_exec(
            *self._command(self._file, "-g", "daemon off;"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
            preexec_fn=_end_with_parent,
        )

    def _command(self, file: Path, *more: str) -> list[str]:
        return [self._program, "-p", str(self._directory), "-e", "stderr", "-c", str(file), *more]

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        """Wait until it listens: then it writes the file with its number. Raises NginxFailed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while process.returncode is None:
                    if self._pid_file.exists() and self._pid_file.read_text().strip():
                        return
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.1)  # for its last words
        raise NginxFailed(f"nginx does not start: {'; '.join(dict.fromkeys(self._said)) or 'it says nothing'}")

    async def _follow(self, process: asyncio.subprocess.Process, look: asyncio.Event) -> None:
        """Tell nginx what is different. What is wrong is logged once, and what it has goes on to hold."""
        problem = ""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await look.wait()
            try:
                is_due = look.is_set() or loop.time() > looked_at + self._loaded.settings.tls.reload_seconds
                if is_due:
                    look.clear()
                    looked_at = loop.time()
                    self._loaded = await asyncio.to_thread(self._loaded.again)
                has_changed = await self._storages.refresh(self._loaded.settings)
                if (is_due or has_changed) and await asyncio.to_thread(self._renew):
                    process.send_signal(signal.SIGHUP)
                    _log.info("nginx reloaded", extra={"file": str(self._file)})
                problem = ""
            except (ConfigError, NginxFailed, DatabaseError, OSError) as error:
                if str(error) != problem:
                    _log.error("nginx not reloaded", extra={"reason": str(error)})
                problem = str(error)

    def _renew(self) -> bool:
        """Write the configuration when it, or a file that it names, is different; whether it is. For a thread."""
        settings = self._loaded.settings
        certificate = web_certificate(settings)
        client_ca = settings.nginx.client_ca if settings.nginx.client_certificates != "off" else None
        text = Configuration(
            settings=settings.nginx,
            clients=settings.limits,
            upstreams=addresses_of(settings.nginx, settings.http_address if settings.http_serves else None),
            certificate=certificate,
            storages=self._storages.roots,
            directory=self._directory,
            user=_user(settings),
            external_port=_external_port(settings),
            version=self._version,
        ).text()
        state = text, changed_at(certificate), client_ca and client_ca.stat().st_mtime_ns
        if state == self._state:
            return False
        if certificate.authority is not None:
            # A copy, since it is the workers that read it: the directory of the keys is closed to them.
            shutil.copyfile(certificate.authority, self._directory / "ca.pem")
        fresh = self._directory / "nginx.conf.new"
        fresh.write_text(text)
        self._check(fresh)
        fresh.replace(self._file)
        self._state = state
        return True

    def _check(self, file: Path) -> None:
        """Let nginx look at a configuration. Raises NginxFailed."""
        done = subprocess.run(
            self._command(file, "-t", "-q"), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = [match[2] for match in map(_LINE.match, done.stderr.splitlines()) if match]
            raise NginxFailed(f"nginx refuses its configuration: {'; '.join(words) or done.stderr.strip()}")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand what nginx says on to the log."""
        assert process.stderr is not None
        async for line in process.stderr:
            match = _LINE.match(line.decode(errors="replace").strip())
            level, text = (match[1], match[2]) if match else ("error", line.decode(errors="replace").strip())
            self._said.append(text)
            _log.log(_LEVELS.get(level, logging.ERROR), "nginx says", extra={"reason": text})

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Let running answers end, then cut what is left."""
        for number, seconds in (
            (signal.SIGQUIT, self._loaded.settings.drain_seconds),
            (signal.SIGTERM, _CUT_SECONDS),
        ):
            if process.returncode is None:
                process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(_ended(process), seconds)
        with contextlib.suppress(ProcessLookupError):  # of a master that was killed, the workers live on
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of the master; `wait` waits for its workers as well, which have the same output."""
    while process.returncode is None:  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """Nobody else runs an nginx here. Raises NginxFailed."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NginxFailed(f"`dtr nginx` runs already on {directory.parent}") from None
        yield


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """In the child, before it becomes nginx: it shall not outlive us, however we end."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _find_program(name: str) -> str:
    # Debian keeps it where only administrators look.
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise NginxFailed(f"there is no program {name}: install nginx (Debian: nginx-light), or set nginx.program")
    return found


def _version_of(program: str) -> tuple[int, ...]:
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    match = _VERSION.search(done.stderr + done.stdout)
    if match is None:
        raise NginxFailed(f"{program} does not say which nginx it is")
    return tuple(int(part) for part in match[1].split("."))


def _user(settings: Settings) -> str | None:
    """Whom the workers run as, with the group. Raises NginxFailed."""
    if os.geteuid() != 0:
        return None
    try:
        if settings.nginx.user is not None:
            user = pwd.getpwnam(settings.nginx.user)
        else:
            user = pwd.getpwuid(settings.data_dir.stat().st_uid)
        return f"{user.pw_name} {grp.getgrgid(user.pw_gid).gr_name}"
    except KeyError:
        who = settings.nginx.user or f"the owner of {settings.data_dir}"
        raise NginxFailed(f"{who} is no user of this host with a group: set nginx.user") from None


def _external_port(settings: Settings) -> int:
    if settings.external_address is None:
        return split_address(settings.nginx.https_address)[1]
    _, _, port = settings.external_address.rpartition("]")[2].partition(":")
    return int(port or 443)


def _greet(settings: Settings) -> None:
    address = settings.external_address or settings.nginx.https_address
    with contextlib.suppress(OSError):  # nobody reads the output
        print(f"dtr is ready: nginx at https://{address}/", flush=True)  # noqa: T201 - it is for the operator
