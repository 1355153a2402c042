"""A disk that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = 4096


class SmallDisk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no room at all."""
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(_BLOCK))
            except OSError:
                pass
        assert os.statvfs(self.path).f_bavail == 0

    def set_read_only(self, value: bool) -> None:
        """As a kernel does that found errors on it."""
        mode = "ro" if value else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", self.path], check=True)

    def make_room(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(path: Path, mib: int = 8) -> Iterator[SmallDisk]:
    """A disk in memory of this size, mounted at a new directory `path`; mounting takes root."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", path], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
