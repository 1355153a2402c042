"""Loopback ports."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

_lowest_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def free_port() -> int:
    """
    A loopback port that nobody listens on, and that no other process of the tests is given while this one runs.

    So a server may be started later, and again, without losing it to another server that was quicker. It is below
    those that the kernel gives to clients: a connection that somebody opens meanwhile cannot take it.
    """
    while True:
        port = random.SystemRandom().randrange(10_240, _lowest_of_clients)
        if not _take(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


_given: set[int] = set()


def _take(port: int) -> bool:
    """Lock the byte of this port in a file that all processes of the tests have open; whether it was free."""
    if port in _given:
        return False
    try:
        # The process loses it when it ends, however it ends; forks do not inherit it.
        fcntl.lockf(_ports(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _given.add(port)
    return True


@cache
def _ports() -> IO[bytes]:
    return (Path(tempfile.gettempdir()) / f"dtr-ports-{os.getuid()}").open("ab")
