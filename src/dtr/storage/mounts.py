"""What is mounted where (proc(5), ``/proc/self/mountinfo``)."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from msgspec import Struct

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_LOCAL = frozenset({"ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs"})
_EXPORT = re.compile(r"(?:\[([^\]]+)\]|([^:/\[]+)):(/.*)")


class Export(Struct, frozen=True):
    """What an NFS server exports."""

    host: str
    path: str


def is_local(device: int, mounts: str | None = None) -> bool:
    """
    Whether the file system on `device` (`os.stat_result.st_dev`) is known to be of this machine alone.

    Then its names and sizes change only here, and closing a file sends nothing anywhere. `mounts` as for
    `nfs_export`.
    """
    if mounts is None:
        mounts = _read_mounts()
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [
        behind.split(" ")[0]
        for before, separator, behind in (line.partition(" - ") for line in mounts.splitlines())
        if separator and before.split(" ")[2:3] == [number]
    ]
    return bool(kinds) and _LOCAL.issuperset(kinds)


def nfs_export(directory: Path, mounts: str | None = None) -> Export | None:
    """
    The export that a directory is in; None: it is on no NFS mount, or the system does not say.

    `mounts` is the content of ``mountinfo``, by default this system's. Reads a file, and touches no mount: one
    whose server is away would make it wait.
    """
    if mounts is None:
        mounts = _read_mounts()
    kind = source = ""
    longest = -1
    for line in mounts.splitlines():
        before, separator, behind = line.partition(" - ")
        fields, described = before.split(" "), behind.split(" ")
        if not separator or len(fields) < 5 or len(described) < 2:
            continue
        point = PurePosixPath(_unescaped(fields[4]))
        if PurePosixPath(directory).is_relative_to(point) and len(point.parts) >= longest:  # the last hides others
            longest = len(point.parts)
            kind, source = described[0], _unescaped(described[1])
    match = _EXPORT.fullmatch(source) if kind in {"nfs", "nfs4"} else None
    return Export(match[1] or match[2], match[3]) if match else None


def _read_mounts() -> str:
    """``mountinfo``; empty when the system does not say."""
    try:
        return _MOUNTS.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
