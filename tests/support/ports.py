"""Loopback ports."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_given: set[int] = set()
_lowest_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def free_port() -> int:
    """
    A loopback port that nobody listens on.

    It is below those that the kernel gives to clients: a connection that somebody opens meanwhile cannot take it.
    """
    while True:
        port = random.SystemRandom().randrange(10_240, _lowest_of_clients)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
