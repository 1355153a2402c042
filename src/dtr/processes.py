"""
The process tree of ``dtr serve``: a parent that binds the addresses and looks after its workers.

Each worker has sockets of its own for the same addresses (``SO_REUSEPORT``), so the kernel spreads connections
over them. The parent keeps all of them open: what waits for a worker that died is answered by its successor.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

_log = logging.getLogger("dtr.processes")
_BACKLOG = 2048
_MOST_DESCRIPTORS = 65_536
_CRASHED_SOON_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_CRASHES = 5
"""So many crashes soon after the start end the tree: starting again and again hides what is wrong."""


class Worker(Protocol):
    """What a process of the tree does until it is told to end by SIGTERM."""

    def __call__(self, number: int, parent: int, ready: Callable[[], None], /) -> None:
        """`parent` is a descriptor that ends when the parent does; `ready` is to be called when it serves."""


class AddressInUse(Exception):
    """Somebody else listens there."""


class WorkersFailed(Exception):
    """The workers crash as soon as they are started."""


class Address(Struct, frozen=True):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def allow_descriptors() -> None:
    """Let this process, and those that it starts, have as many descriptors as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bind(address: Address, count: int) -> list[socket.socket]:
    """
    `count` sockets that listen on one address; port 0 is the same free port for all.

    Raises AddressInUse, OSError.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    port = address.port
    if port:
        # Sockets that share a port would share it with another server of the same user, too.
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, port))
                probe.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise AddressInUse(f"another program listens on {address}") from error
                raise
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            one = socket.socket(family)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.bind((address.host, port))
            port = one.getsockname()[1]
            one.listen(_BACKLOG)
            one.setblocking(False)
            os.set_inheritable(one.fileno(), True)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def run(
    worker: Worker, count: int, *, ready: Callable[[], None], stopping: Callable[[], None], patience: float
) -> None:
    """
    Run `count` workers until SIGTERM or SIGINT, starting those again that die; then wait for their end.

    When all serve for the first time, `ready` is called; when they are told to end, `stopping`. Who has not ended
    after `patience` seconds is killed. Raises WorkersFailed.
    """
    _Tree(worker, count, ready, stopping, patience).run()


class _Tree:
    def __init__(
        self,
        worker: Worker,
        count: int,
        ready: Callable[[], None],
        stopping: Callable[[], None],
        patience: float,
    ) -> None:
        self._worker = worker
        self._count = count
        self._ready = ready
        self._stopping = stopping
        self._patience = patience
        self._children: dict[int, tuple[int, float]] = {}
        self._was_told = False  # by a signal
        self._deadline: float | None = None  # for the workers to end
        self._alive, self._parent = os.pipe()  # the writing end lives and dies with the parent
        self._news, self._tell = os.pipe()
        os.set_blocking(self._news, False)
        self._crashes = 0

    def run(self) -> None:
        wake, woken = os.pipe()
        for end in (wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, self._note)
        signal.signal(signal.SIGCHLD, _nothing)
        serving = 0
        for number in range(self._count):
            self._start(number)
        try:
            while self._children:
                readable, _, _ = select.select([wake, self._news], [], [], 1)
                if wake in readable:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                if self._news in readable:
                    with contextlib.suppress(BlockingIOError):
                        before, serving = serving, serving + len(os.read(self._news, 4096))
                        if before < self._count <= serving and not self._was_told:
                            self._ready()
                if self._was_told and self._deadline is None:
                    self._stop()
                self._reap()
                if self._deadline is not None and time.monotonic() > self._deadline and self._children:
                    _log.error("workers did not end and are killed", extra={"workers": len(self._children)})
                    self._signal_all(signal.SIGKILL)
        finally:
            self._signal_all(signal.SIGKILL)  # only after an error of our own are there any left
        if self._crashes >= _CRASHES:
            raise WorkersFailed("the workers end as soon as they are started; the log says why")

    def _start(self, number: int) -> None:
        # A signal in the middle would find a child that still has our handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        child = os.fork()
        if child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._children[child] = (number, time.monotonic())
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for one in _SIGNALS:
                signal.signal(one, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._parent)
            self._worker(number, self._alive, lambda: (os.write(self._tell, b"."), None)[1])
            status = 0
        except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
            _log.exception("worker failed")
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        while self._children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                return
            number, started = self._children.pop(child)
            if self._was_told:
                continue
            code = os.waitstatus_to_exitcode(status)
            _log.error("worker %d (process %d) ended with %d and is started again", number, child, code)
            if time.monotonic() - started < _CRASHED_SOON_SECONDS:
                self._crashes += 1
                if self._crashes >= _CRASHES:
                    self._was_told = True
                    self._stop()
                    continue
                time.sleep(0.2 * self._crashes)
            else:
                self._crashes = 0
            self._start(number)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._was_told = True

    def _stop(self) -> None:
        self._deadline = time.monotonic() + self._patience
        self._stopping()
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for child in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Wake the parent: a child ended."""


def close(sockets: Sequence[socket.socket]) -> None:
    """Close them all."""
    for one in sockets:
        one.close()
