"""What a connection is to those who read from it and write to it, and how long its peer may keep them waiting."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from dtr.http.protocol import Connection
    from dtr.http.steps import TLS

_SMALL = 64 * 1024


class Limits(Struct, frozen=True):
    """What a peer may take, in seconds and bytes per second."""

    stall_seconds: float = 60
    """Without a single byte."""
    grace_seconds: float = 30
    """On top of what the lowest rate allows."""
    lowest_rate: float = 1024
    head_seconds: float = 30
    """For the head of a request."""
    handshake_seconds: float = 10
    keep_alive_seconds: float = 75
    linger_seconds: float = 5
    """For a client to read an answer that came before its body was read."""

    def allowance(self, size: int) -> float:
        """How long `size` bytes may take."""
        return self.grace_seconds + size / self.lowest_rate


class Transport:
    """
    A connection's transport, as its protocol and the answers write to it.

    What is written in one turn of the loop goes out together: the head of an answer and its body would be two
    system calls, each of which may wake the client. It encrypts where there is TLS, and closes with care. What is
    written when it closes goes nowhere.
    """

    def __init__(self, protocol: Connection, raw: asyncio.Transport, tls: TLS | None) -> None:
        self._protocol = protocol
        self._raw = raw
        self._tls = tls
        self._closing = False
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self.is_paused = False

    def write(self, data: bytes) -> None:
        """Write, with what else is written in this turn."""
        if not data or self.is_closing():
            return
        if not self._unsent:
            self._protocol.loop.call_soon(self.flush)
        self._unsent.append(data)
        self._unsent_size += len(data)
        if self._unsent_size >= _SMALL:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Write what is whole, at once."""
        self.flush()
        if not self._closing:
            self._send(data)

    def flush(self) -> None:
        """Send what was written."""
        if not self._unsent:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent = []
        self._unsent_size = 0
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._raw.is_closing():
            return
        if self._tls is None:
            self._raw.write(data)
            return
        try:
            self._raw.write(self._tls.encrypt(memoryview(data)))
        except ssl.SSLError:
            self._raw.abort()

    def end_tls(self) -> None:
        """It was none."""
        self._tls = None

    def pause_reading(self) -> None:
        """Let nothing more arrive."""
        self.is_paused = True
        if not self.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        self.is_paused = False
        if self.is_closing():
            return
        if self._tls is None:
            self._raw.resume_reading()
        else:
            # First what the TLS object still holds: no event of the socket announces that, and more from the
            # socket would only pile up before it.
            self._protocol.loop.call_soon(self._protocol.decrypt)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closing or self._raw.is_closing()

    def close(self) -> None:
        """Send what was written, and close."""
        if not self.is_closing():
            self.flush()
            self._closing = True
            self._protocol.take_leave()

    def abort(self) -> None:
        """Close, whatever was written."""
        self._raw.abort()


class Flow:
    """Reading and writing as fast as the application and the client take it; no client is waited for for ever."""

    def __init__(self, protocol: Connection, transport: Transport, raw: asyncio.Transport, limits: Limits) -> None:
        self._protocol = protocol
        self._transport = transport
        self._raw = raw
        self._limits = limits
        self._reading_paused = False
        self._writable: asyncio.Event | None = None  # while writing is paused
        self.write_paused = False

    def pause_reading(self) -> None:
        """Let the client wait."""
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more of what it sends."""
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The client takes less than is written."""
        if not self.write_paused:
            self.write_paused = True
            self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written."""
        if self._writable is None:
            return
        try:
            async with asyncio.timeout(self._limits.allowance(self._raw.get_write_buffer_size())):
                await self._writable.wait()
        except TimeoutError:
            self._protocol.reset()
