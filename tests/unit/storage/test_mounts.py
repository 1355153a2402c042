"""Which NFS export a directory is in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtr.storage.mounts import Export, is_local, nfs_export

MOUNTS = r"""21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:50 / /srv rw shared:2 - nfs4 filer.example.com:/export/images rw,vers=4.2,addr=10.0.0.9
31 30 8:2 / /srv/local rw - ext4 /dev/sdb1 rw
32 21 0:51 / /mnt/with\040space rw,noatime shared:3 master:1 - nfs 10.0.0.8:/a\040b rw,vers=3
33 21 0:52 / /six rw - nfs4 [fd00::7]:/v6 rw
34 21 0:53 / /over rw - nfs4 old:/old rw
35 34 8:3 / /over rw - xfs /dev/sdc1 rw
36 21 0:54 / /bare rw - nfs4 localhost:relative rw
what is no mount
"""


@pytest.mark.parametrize(
    ("directory", "export"),
    [
        ("/srv/dtr/blobs", Export("filer.example.com", "/export/images")),
        ("/srv", Export("filer.example.com", "/export/images")),
        ("/srvother", None),
        ("/srv/local/blobs", None),
        ("/mnt/with space/x", Export("10.0.0.8", "/a b")),
        ("/six/x", Export("fd00::7", "/v6")),
        ("/over/x", None),  # what was mounted later hides what was there
        ("/bare", None),
        ("/var/lib/dtr", None),
    ],
)
def test_the_export_of_a_directory(directory: str, export: Export | None):
    assert nfs_export(Path(directory), MOUNTS) == export


def test_this_system_answers(tmp_path: Path):
    assert nfs_export(tmp_path) is None


@pytest.mark.parametrize(
    ("number", "local"),
    [
        ((8, 1), True),
        ((8, 3), True),
        ((0, 50), False),  # NFS
        ((0, 99), False),  # nothing says what it is
        ((8, 10), False),
        ((9, 0), False),  # mounted twice, and known as something else
    ],
)
def test_which_devices_are_of_this_machine_alone(number: tuple[int, int], local: bool):
    twice = "40 21 9:0 / /a rw - ext4 /dev/md0 rw\n41 21 9:0 / /b rw - cluster /dev/md0 rw\n"
    assert is_local(os.makedev(*number), MOUNTS + twice) is local
