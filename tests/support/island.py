"""A host of the tests' own: a network and files below /etc that nobody else sees."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "192.0.2.10"
"""The host's only address but loopback: of the range for documentation, and of this network namespace alone."""
_START = """
ip link set lo up
ip address add "$1/32" dev lo
mkdir -p /etc/docker
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/docker" /etc/docker
echo ready
exec sleep infinity
"""


class Island:
    """
    Network and mount namespace; programs run there behind `prefix`.

    There, the given names lead to `ADDRESS`, which docker takes for no loopback address: nobody may be lenient
    about certificates. `certs` is its ``/etc/docker/certs.d``.
    """

    def __init__(self, directory: Path, names: tuple[str, ...], holder: int) -> None:
        self.names = names
        self.certs = directory / "docker" / "certs.d"
        self.prefix = ("nsenter", f"--target={holder}", "--net", "--mount")


@contextmanager
def island(directory: Path, *names: str) -> Iterator[Island]:
    """The host, until the end of the block."""
    (directory / "docker" / "certs.d").mkdir(parents=True)
    (directory / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {' '.join(names)}\n")
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-ec", _START, "sh", ADDRESS, directory],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n", "no namespaces: the tests with docker run as root"
        yield Island(directory, names, holder.pid)
    finally:
        holder.kill()
        holder.wait(60)
        holder.stdout.close()
