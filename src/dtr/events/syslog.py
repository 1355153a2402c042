"""
Sending events to a syslog server: RFC 5424, with the event as structured data.

Over UDP (RFC 5426) and to the socket of the host each message is a datagram, and nobody says whether it arrived.
Over TCP the messages are counted in octets (RFC 6587, section 3.4.1), and count as sent when the server's host has
acknowledged them and the connection was still there a moment later. What was not is sent again.

A server that does not answer delays its messages and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import logging
import random
import re
import socket
import struct
import termios
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from dtr.db import DatabaseError
from dtr.events.follower import BATCH, Follower

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dtr.db import Database
    from dtr.events.history import Recorded

_log = logging.getLogger("dtr.events")

FACILITIES = {
    "user": 1,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "authpriv": 10,
    "audit": 13,
    **{f"local{number}": 16 + number for number in range(8)},
}
"""RFC 5424, section 6.2.1; facilities that make no sense here are left out."""
_WARNING, _NOTICE, _INFORMATIONAL = 4, 5, 6
_SEVERITIES = {"FAIL": _WARNING, "GET": _INFORMATIONAL, "LOGIN": _INFORMATIONAL}
_DATA_ID = "dtr@32473"
"""Without a number of its own for private enterprises (RFC 5424, section 7.2.2) that for examples (RFC 5612)."""
_LONGEST_VALUE = 1000
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NO_HOST_NAME = re.compile("[^!-~]")

_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 0.9
"""A server that dies has taken what it was sent, and not looked at it: the end of its connection says so soon."""
_SEND_SECONDS = 10.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class _Connection(Protocol):
    async def send(self, messages: Sequence[bytes]) -> None:
        """Send them. Raises OSError."""

    def check(self) -> None:
        """Raise OSError when the other end is known to be gone."""


class Syslog:
    """Sends the events to a server, when no other process does."""

    def __init__(self, database: Database, address: str, facility: str, *, holder: str = "") -> None:
        """
        `address`: ``udp://HOST:PORT``, ``tcp://HOST:PORT`` or ``unix:///PATH``; `facility`: of `FACILITIES`.

        `holder`: that of the `Follower`.
        """
        self._follower = Follower(database, "syslog", holder)
        self._address = address
        self._facility = FACILITIES[facility]
        self._host = _NO_HOST_NAME.sub("", socket.gethostname())[:255] or "-"
        self._pause = 0.0

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except Exception as error:  # noqa: BLE001 - it goes on, whatever it was
                    if not self._pause:
                        reason = str(error) or type(error).__name__
                        _log.warning("events not forwarded", extra={"reason": reason})
                    self._pause = min(max(self._pause * 2, _SHORTEST_PAUSE), _LONGEST_PAUSE)
                # Not all processes at the same time.
                await asyncio.sleep((self._pause or _POLL_SECONDS) * random.uniform(0.75, 1.25))  # noqa: S311
        finally:
            with contextlib.suppress(DatabaseError):  # then it ends by itself
                await self._follower.release()

    async def _follow(self) -> None:
        """Send as long as this is ours to do. Raises OSError, DatabaseError."""
        if not await self._follower.claim():
            return
        sent: deque[tuple[float, int]] = deque()
        async with _connect(self._address) as connection:
            while True:
                found = await self._follower.fetch()
                if found:
                    await connection.send([message(one, self._facility, self._host) for one in found])
                sent.append((time.monotonic(), self._follower.position))
                if len(found) < BATCH:
                    await asyncio.sleep(_POLL_SECONDS)
                connection.check()
                settled = None
                while sent and sent[0][0] <= time.monotonic() - _SETTLE_SECONDS:
                    settled = sent.popleft()[1]
                if settled is not None and not await self._follower.advance(settled):
                    return
                if self._pause and found:
                    self._pause = 0.0
                    _log.info("events forwarded again")


def message(event: Recorded, facility: int, host: str) -> bytes:
    """An event as a message of syslog, without the framing."""
    severity = _SEVERITIES.get(event.type, _NOTICE)
    moment = dt.datetime.fromtimestamp(event.published_at / 1000, dt.UTC)
    sides = [("object", event.object)] + ([("target", event.target)] if event.target else [])
    values = {
        "id": str(event.id),
        "type": event.type,
        "actor": event.actor.id,
        "actorName": event.actor.name,
        "actorType": event.actor.type,
        "remoteAddress": event.actor.address,
        "repository": event.repository,
    } | {
        f"{side}{name.title()}": value
        for side, thing in sides
        for name, value in (
            ("type", thing.kind),
            ("id", thing.id),
            ("name", thing.name),
            ("content", thing.content),
        )
    }
    data = "".join(f' {name}="{_escaped(value)}"' for name, value in values.items() if value)
    who = event.actor.name or event.actor.type
    what = " ".join(filter(None, (event.object.kind, event.repository, event.object.name or event.object.id)))
    head = (
        f"<{facility * 8 + severity}>1 {moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z {host} dtr -"
    )
    text = _CONTROLS.sub("?", f"{who} {event.type} {what}"[:_LONGEST_VALUE])
    return f"{head} {event.object.kind}.{event.type} [{_DATA_ID}{data}] {text}".encode()


def _escaped(value: str) -> str:
    """A value of structured data (RFC 5424, section 6.3.3), in one line."""
    return re.sub(r'(["\\\]])', r"\\\1", _CONTROLS.sub("?", value[:_LONGEST_VALUE]))


@contextlib.asynccontextmanager
async def _connect(address: str) -> AsyncIterator[_Connection]:
    """A connection to the server. Raises OSError."""
    parts = urlsplit(address)
    if parts.scheme == "tcp":
        async with asyncio.timeout(_SEND_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            yield _Stream(reader, writer)
        finally:
            writer.close()
        return
    where: Any
    if parts.scheme == "unix":
        family, where = int(socket.AF_UNIX), parts.path
    else:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)
        family, where = int(found[0][0]), found[0][4]
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.connect(where)
        yield _Datagrams(opened)


class _Datagrams:
    """A message is a datagram."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    async def send(self, messages: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_SEND_SECONDS):
            for one in messages:
                await loop.sock_sendall(self._socket, one)

    def check(self) -> None:
        """An earlier datagram may have been refused: there is nobody at the address."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, "the syslog server is not there")


class _Stream:
    """The messages follow each other in a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._socket: socket.socket = writer.get_extra_info("socket")

    async def send(self, messages: Sequence[bytes]) -> None:
        self.check()
        self._writer.write(b"".join(b"%d %b" % (len(one), one) for one in messages))
        async with asyncio.timeout(_SEND_SECONDS):
            await self._writer.drain()
            while self._unacknowledged():
                await asyncio.sleep(0.01)
                self.check()

    def check(self) -> None:
        if self._reader.at_eof() or self._writer.is_closing():
            raise ConnectionResetError("the syslog server closed the connection")

    def _unacknowledged(self) -> int:
        """Bytes that the other host has not said it has."""
        waiting = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", waiting)[0]) + self._writer.transport.get_write_buffer_size()
