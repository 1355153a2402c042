"""Syslog servers that a test can kill and start again."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from pathlib import Path

from tests.support.ports import free_port

_MESSAGE = re.compile(
    r"<(?P<pri>[0-9]{1,3})>1 (?P<time>\S+) (?P<host>\S+) dtr - (?P<id>\S+) "
    r"\[dtr@32473(?P<data>(?: \w+=\"(?:[^\"\\\]]|\\.)*\")*)\] (?P<text>.*)",
    re.DOTALL,
)


def parse(message: bytes) -> dict[str, str]:
    """The parts of a message (RFC 5424), structured data among them."""
    match = _MESSAGE.fullmatch(message.decode())
    assert match, message
    data = re.findall(r' (\w+)="((?:[^"\\\]]|\\.)*)"', match["data"])
    return {
        **{name: re.sub(r'\\(["\\\]])', r"\1", value) for name, value in data},
        "pri": match["pri"],
        "time": match["time"],
        "msgid": match["id"],
        "text": match["text"],
    }


class SyslogServer:
    """Takes messages: `kind` is ``tcp``, ``udp`` or ``unix``. What was received stays when it is killed."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.received: list[bytes] = []
        self._where: tuple[str, int] | str
        if kind == "unix":
            self._where = str(directory / "log")
            self.address = f"unix://{self._where}"
        else:
            self._where = ("127.0.0.1", free_port())
            self.address = f"{kind}://127.0.0.1:{self._where[1]}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def ids(self) -> list[int]:
        return [int(parse(one)["id"]) for one in list(self.received)]

    def start(self) -> SyslogServer:
        family = socket.AF_UNIX if self.kind == "unix" else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM if self.kind == "tcp" else socket.SOCK_DGRAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.kind == "unix":
            Path(str(self._where)).unlink(missing_ok=True)
        listening.bind(self._where)
        self._open = [listening]
        if self.kind == "tcp":
            listening.listen()
            self._run(self._accept, listening)
        else:
            self._run(self._receive, listening)
        return self

    def kill(self) -> None:
        """As the end of the process does: all sockets are closed."""
        deadline = time.monotonic() + 60
        while True:
            for one in list(self._open):  # again, with a connection that has just been accepted
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            if not any(thread.is_alive() for thread in list(self._threads)):
                break
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self._threads = []

    def _run(self, what: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                self._open.append(accepted)
                self._run(self._read, accepted)

    def _read(self, accepted: socket.socket) -> None:
        """Octet counting (RFC 6587, section 3.4.1)."""
        data = b""
        with contextlib.suppress(OSError):
            while piece := accepted.recv(65536):
                data += piece
                while match := re.match(rb"([1-9][0-9]*) ", data):
                    end = match.end() + int(match[1])
                    if len(data) < end:
                        break
                    self.received.append(data[match.end() : end])
                    data = data[end:]

    def _receive(self, bound: socket.socket) -> None:
        bound.settimeout(0.05)
        while bound.fileno() >= 0:
            try:
                self.received.append(bound.recv(65536))
            except TimeoutError:
                pass
            except OSError:
                return
