"""
`dtr` as a fork of a process that has imported everything already.

Importing is most of what a start costs, 2 s of processor time; the tests start hundreds. What a fork runs is the
program's own `main`, with arguments, environment and files of its own. Tests of the start itself, and of memory,
run the real command.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

_LONGEST_REQUEST = 200_000
_PRELOADED = ("dtr.cli.commands", "dtr.serve", "dtr.doctor", "dtr.http.api.app", "dtr.http.ui.app")


class Fork:
    """A running `dtr`, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int | IO[str],
        stdout: int | IO[str],
        stderr: int | IO[str],
        cwd: str = "/",
    ) -> None:
        """The files are open ones; `stdout` may be `subprocess.PIPE`, and is then read as text."""
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        read, write = os.pipe()
        given = [write]
        if stdout == subprocess.PIPE:
            end, stdout = os.pipe()
            self.stdout = os.fdopen(end)
            given.append(stdout)
        files = [one if isinstance(one, int) else one.fileno() for one in (stdin, stdout, stderr)]
        try:
            request = {"arguments": list(arguments), "environment": dict(environment), "cwd": cwd}
            socket.send_fds(_parent(), [json.dumps(request).encode()], [*files, write])
        finally:
            for one in given:
                os.close(one)
        self._news = os.fdopen(read)
        self._reading = threading.Lock()
        # Not select, which knows no more than a thousand descriptors: a long run of tests has more.
        self._has_news = select.poll()
        self._has_news.register(self._news, select.POLLIN)
        self.pid = int(self._news.readline())

    def poll(self) -> int | None:
        """The exit status, negative after a signal; None: it still runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self._look(0.2 if deadline is None else min(0.2, deadline - time.monotonic()))) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("dtr", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, seconds: float) -> int | None:
        with self._reading:
            if self.returncode is None and self._has_news.poll(1000 * max(seconds, 0)):
                self.returncode = int(self._news.readline() or -signal.SIGKILL)
                self._news.close()
            return self.returncode


def run_dtr(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: str = "",
    timeout: float = 120,
    check: bool = True,
    cwd: str = "/",
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does. Raises CalledProcessError, TimeoutExpired."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+", newline="")) for _ in range(3)]
        files[0].write(stdin)
        files[0].flush()
        files[0].seek(0)
        fork = Fork(arguments, environment, stdin=files[0], stdout=files[1], stderr=files[2], cwd=cwd)
        try:
            status = fork.wait(timeout)
        except BaseException:
            fork.kill()
            fork.wait(60)
            raise
        for one in files:
            one.seek(0)
        result = subprocess.CompletedProcess(["dtr", *arguments], status, files[1].read(), files[2].read())
    if check:
        result.check_returncode()
    return result


def command_directory() -> Path:
    """A directory with the command `dtr` for shells; what it runs is a fork as well, in another session."""
    _parent()
    return _directory()


@cache
def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="dtr-command-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = directory / "dtr"
    command.write_text(f"#!{sys.executable} -ISE\n{_COMMAND}")
    command.chmod(0o755)
    return directory


_COMMAND = """
import json, os, signal, socket, sys
read, write = os.pipe()
parent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
parent.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket"))
request = {"arguments": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}
pid = 0
early = []
def forward(number, _frame):
    os.kill(pid, number) if pid else early.append(number)
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(one, forward)
socket.send_fds(parent, [json.dumps(request).encode()], [0, 1, 2, write])
os.close(write)
news = os.fdopen(read)
pid = int(news.readline())
for number in early:
    os.kill(pid, number)
status = int(news.readline() or -9)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if status != -9 else None
    os.kill(os.getpid(), -status)
sys.stdout = None
os._exit(status)
"""


@cache
def _parent() -> socket.socket:
    """The way to the process that forks, which ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    commands = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    commands.bind(str(_directory() / "socket"))
    commands.listen()
    with its, commands:
        files = [its.fileno(), commands.fileno()]
        parent = subprocess.Popen([sys.executable, __file__, *map(str, files)], pass_fds=files, cwd="/")

    def end() -> None:
        ours.close()
        parent.wait(60)

    atexit.register(end)
    return ours


def _fork_on_request(control: socket.socket, commands: socket.socket) -> list[str]:
    """Fork whenever told to; returns in each fork, with its arguments, and never here."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    news: dict[int, int] = {}  # the descriptors that are told, by process
    while True:
        readable, _, _ = select.select([control, commands, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    told = news.pop(ended[0])
                    with contextlib.suppress(BrokenPipeError):  # who asked for it is gone
                        os.write(told, f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
                    os.close(told)
        for source in (control, commands):
            if source not in readable:
                continue
            asking = source if source is control else source.accept()[0]
            message, files, _, _ = socket.recv_fds(asking, _LONGEST_REQUEST, 4)
            if source is commands:
                asking.close()
            if not message:
                if source is control:
                    os._exit(0)
                continue
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (control.detach(), commands.detach(), woken, wake, files[3], *news.values()):
                    os.close(one)
                return _begin(json.loads(message), files[:3])
            news[pid] = files[3]
            with contextlib.suppress(BrokenPipeError):
                os.write(files[3], f"{pid}\n".encode())
            for one in files[:3]:
                os.close(one)


def _begin(request: dict[str, object], files: list[int]) -> list[str]:
    """Take over files, environment and directory of a request; its arguments."""
    sys.stdout.flush()
    for number, one in enumerate(files):
        os.dup2(one, number)
        os.close(one)
    environment, arguments = request["environment"], request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(environment)
    return arguments


def _main() -> NoReturn:
    sys.path.pop(0)  # of this file: its neighbours have names of others
    for module in _PRELOADED:
        __import__(module)
    for module in set(sys.modules["dtr.cli.commands"].MODULES.values()):
        __import__(f"dtr.cli.{module}")
    assert "prometheus_client" not in sys.modules  # it looks at the environment when it is imported
    assert threading.active_count() == 1  # forks would not have the others
    gc.collect()
    gc.freeze()
    control, commands = (socket.socket(fileno=int(one)) for one in sys.argv[1:3])
    arguments = _fork_on_request(control, commands)
    from dtr.cli import main

    sys.argv = [str(Path(sys.executable).with_name("dtr")), *arguments]
    main()
    sys.exit(0)


if __name__ == "__main__":
    _main()
