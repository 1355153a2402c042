"""Which NFS export a directory is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtr.storage.mounts import Export, nfs_export

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
