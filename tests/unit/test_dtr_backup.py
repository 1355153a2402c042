"""Backups of DTR are looked into, whatever they are, and refused."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from dtr.registry import dtr_backup
from dtr.registry.dtr_backup import look_into
from dtr.registry.importing import ImportRefused

ROOT = "dtr-backup-v2.7.5"


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> bytes:
    """A header and its content, padded."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def write(tmp_path: Path, *members: bytes, end: bytes = bytes(1024)) -> Path:
    path = tmp_path / "backup.tar"
    path.write_bytes(b"".join(members) + end)
    return path


def test_what_is_known_of_a_backup_is_told(tmp_path: Path):
    document = json.dumps({"id": "x", "digest": "sha256:00"}).encode()
    lines = b'{"name": "a"}\n{"namespace": "b"}\n'
    path = write(
        tmp_path,
        member(f"{ROOT}/rethink/properties/0", b"\xff\xfe"),
        member(f"{ROOT}/rethink/blobs/0", document),
        member(f"./{ROOT}/rethink/blobs/1", b"[" + document + b"]"),
        member(f"{ROOT}/rethink/tags/0", lines),
        member(f"{ROOT}/rethink/manifests/0", b"x" * (1024 * 1024 + 1)),
        member(f"{ROOT}/", kind=tarfile.DIRTYPE),
        member("something/else", b"1"),
    )
    found = look_into(path)
    assert found.lines == [
        "a backup of DTR 2.7.5",
        f"table blobs: 2 files of {2 * len(document) + 2} bytes: 2 JSON with the fields digest, id",
        "table manifests: 1 files of 1048577 bytes: 1 too large to be looked at",
        "table properties: 1 files of 2 bytes: 1 no JSON",
        f"table tags: 1 files of {len(lines)} bytes: 1 JSON with the fields name, namespace",
        "it has no table blob_links, repositories",
        "2 other members",
    ]


def test_archives_of_others_are_read_the_same(tmp_path: Path):
    """Also with the headers that tarfile writes for long names and times."""
    path = tmp_path / "backup.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in (f"{ROOT}/rethink/tags/0", "x/" * 200 + "long"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 2, 1.5
            archive.addfile(info, io.BytesIO(b"{}"))
    assert look_into(path).tables["tags"].kinds == {"JSON": 1}


@pytest.mark.parametrize(
    "name",
    [
        f"../{ROOT}/rethink/blobs/0",
        f"/{ROOT}/rethink/blobs/0",
        f"{ROOT}/rethink/../blobs/0",
        f"{ROOT}/rethink/blobs/0/..",
        "dtr-backup-v/rethink/blobs/0",
    ],
)
def test_paths_that_lead_elsewhere_are_nothing(tmp_path: Path, name: str):
    with pytest.raises(ImportRefused, match="no tables of DTR"):
        look_into(write(tmp_path, member(name, b"{}")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_nothing(tmp_path: Path, kind: bytes):
    secret = tmp_path / "secret"
    secret.write_text('{"password": "x"}')
    with pytest.raises(ImportRefused, match="no tables of DTR"):
        look_into(write(tmp_path, member(f"{ROOT}/rethink/blobs/0", kind=kind, linkname=str(secret))))


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\x1f\x8b" + bytes(2000), b"PK" + bytes(600)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "backup.tar"
    path.write_bytes(content)
    with pytest.raises(ImportRefused, match="no tar archive"):
        look_into(path)


def test_an_archive_that_ends_early_is_refused(tmp_path: Path):
    path = write(tmp_path, member(f"{ROOT}/rethink/blobs/0", b"{}" * 1000)[:1024], end=b"")
    with pytest.raises(ImportRefused, match="ends in the middle"):
        look_into(path)


def test_headers_that_say_to_be_huge_cost_nothing(tmp_path: Path):
    path = tmp_path / "backup.tar"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.seek(2**30, 1)  # a hole
        file.write(member(f"{ROOT}/rethink/tags/0", b"{}") + bytes(1024))
    tracemalloc.start()
    try:
        assert look_into(path).tables.keys() == {"tags"}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


def test_endless_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dtr_backup, "_MOST_MEMBERS", 100)
    with pytest.raises(ImportRefused, match="more than 100 members"):
        look_into(write(tmp_path, *(member(f"{ROOT}/rethink/t{'_' * (one % 60)}/0", b"{}") for one in range(101))))


def test_deep_and_wide_documents_are_bounded(tmp_path: Path):
    deep = b"[" * 100_000
    wide = json.dumps({f"field{number}" * 50: 1 for number in range(1000)}).encode()
    found = look_into(write(tmp_path, member(f"{ROOT}/rethink/a/0", deep), member(f"{ROOT}/rethink/b/0", wide)))
    assert found.tables["a"].kinds == {"no JSON": 1}
    assert len(found.tables["b"].fields) == 50
    assert max(map(len, found.tables["b"].fields)) == 100
