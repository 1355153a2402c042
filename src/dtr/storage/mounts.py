"""Which mounted file system a directory is in (proc(5), ``/proc/self/mountinfo``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_EXPORT = re.compile(r"(?:\[([^\]]+)\]|([^:/\[]+)):(/.*)")


@dataclass(frozen=True, slots=True)
class Export:
    """What an NFS server exports."""

    host: str
    path: str


def nfs_export(directory: Path, mounts: str | None = None) -> Export | None:
    """
    The export that a directory is in; None: it is on no NFS mount, or the system does not say.

    `mounts` is the content of ``mountinfo``, by default this system's. Reads a file, and touches no mount: one
    whose server is away would make it wait.
    """
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text()
        except (OSError, UnicodeDecodeError):
            return None
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


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
