"""What operators call on the machine of the registry: against real data, and when something is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import Client
from tests.support.commands import Commands
from tests.support.images import digest_of, make_image
from tests.support.ports import free_port
from tests.support.s3 import S3Server
from tests.support.server import Server
from tests.support.trees import Tree

from dtr.db.migrate import HEAD
from dtr.storage import FileSystem

# --- migrate ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Commands:
    """The command over an empty database, without tables."""
    if request.param == "sqlite":
        sqlite3.connect(tmp_path / "empty.db").close()
        (tmp_path / "empty.db").touch()
        url = f"sqlite:///{tmp_path}/empty.db"
    else:
        url = request.getfixturevalue("postgresql_cluster").create()
    return Commands(Server(tmp_path / "dtr", {"database.url": url}))


def test_migrate_makes_the_tables_once(empty: Commands) -> None:
    assert empty("migrate") == f"revision {HEAD}, was empty\n"
    assert empty("migrate") == f"revision {HEAD} already\n"
    assert empty("account", "list") == ""


def test_migrate_makes_the_data_directory(tmp_path: Path) -> None:
    dtr = Commands(Server(tmp_path / "not" / "there" / "dtr"))
    dtr("migrate")
    assert (dtr.server.directory / "metadata.db").exists()


def test_data_of_a_newer_version_is_left_alone(dtr: Commands) -> None:
    from sqlalchemy import text

    from dtr.db import Statement

    async def pretend(application: Any) -> None:
        async def work(tx: Any) -> None:
            await tx.execute(Statement(text("UPDATE alembic_version SET version_num = '9999'")))

        await application.database.unit(work)

    dtr.server.do(pretend)
    for command in (("migrate",), ("account", "list"), ("fsck",)):
        assert "newer version" in dtr.fail(*command)
    assert "newer version" in dtr.run("doctor").stdout


def test_commands_ask_for_a_migration_of_an_empty_database(empty: Commands) -> None:
    for command in (("account", "list"), ("repository", "list"), ("fsck",)):
        assert "dtr migrate" in empty.fail(*command), command


def test_a_missing_database_file_is_not_made_by_looking(tmp_path: Path) -> None:
    place = tmp_path / "wrong.db"
    dtr = Commands(Server(tmp_path / "dtr", {"database.url": f"sqlite:///{place}"}))
    assert "there is no data" in dtr.fail("account", "list")
    assert not place.exists()


# --- when something is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("account", "list"), ("migrate",), ("fsck",), ("repository", "list")])
def test_a_database_server_that_is_not_there_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    dtr = Commands(
        Server(tmp_path / "dtr", {"database.url": f"postgresql://dtr:hush@127.0.0.1:{free_port()}/dtr"})
    )
    assert "hush" not in dtr.fail(*command)


def test_a_database_that_is_not_there_is_named(tmp_path: Path, postgresql_cluster: Any) -> None:
    dtr = Commands(Server(tmp_path / "dtr", {"database.url": postgresql_cluster.url("nowhere")}))
    assert "nowhere" in dtr.fail("account", "list")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://dtr:hush@127.0.0.1:port/dtr",
        "postgresql://dtr:hu/hush@127.0.0.1/dtr",
        "postgresql://dtr:hush@[::1/dtr",
        "postgresql://dtr:hush@127.0.0.1:1/dtr?sslmode=nonsense",
        "mysql://dtr:hush@127.0.0.1/dtr",
        "sqlite:////proc/nowhere/metadata.db",
    ],
)
def test_a_wrong_address_of_the_database_is_one_line(tmp_path: Path, url: str) -> None:
    dtr = Commands(Server(tmp_path / "dtr", {"database.url": url}))
    for command in (("account", "list"), ("migrate",)):
        assert "hush" not in dtr.fail(*command)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    dtr = Commands(Server(tmp_path / "dtr"))
    dtr.server.directory.mkdir()
    (dtr.server.directory / "metadata.db").write_bytes(b"this is no database" * 1000)
    dtr.fail("account", "list")
    dtr.fail("migrate")
    assert "FAIL  database" in dtr.run("doctor").stdout


def test_a_data_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dtr = Commands(Server(tmp_path / "file" / "dtr"))
    for command in (("migrate",), ("account", "list")):
        assert str(tmp_path / "file") in dtr.fail(*command)


def test_an_unknown_setting_is_one_line_that_names_it(tmp_path: Path) -> None:
    dtr = Commands(Server(tmp_path / "dtr", {"registry.manifest_limt": 3}))
    for command in (("migrate",), ("account", "list"), ("serve",), ("config", "show"), ("doctor",), ("fsck",)):
        assert "registry.manifest_limit" in dtr.fail(*command)


def test_a_settings_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    dtr = Commands(Server(tmp_path / "dtr"))
    assert "nowhere.toml" in dtr.fail("config", "show", "--config", str(tmp_path / "nowhere.toml"))


# --- config show -------------------------------------------------------------------------------------------------


def test_config_show_prints_each_setting_with_its_source_and_masks_secrets(tmp_path: Path) -> None:
    from dtr.config import names

    file = tmp_path / "dtr.toml"
    file.write_text('[storage.s3]\nsecret_key = "hush-hush"\naccess_key = "known"\n[registry]\npage_size = 7\n')
    dtr = Commands(Server(tmp_path / "dtr", {"database.url": "postgresql://dtr:hush@db.example.com/dtr"}))
    shown = dtr("config", "show", "--config", str(file), "--data-dir", "/elsewhere")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.splitlines()}
    assert set(rows) == set(names())
    assert rows["registry.page_size"] == f"7  (file {file})"
    assert rows["data_dir"] == '"/elsewhere"  (option --data-dir)'
    assert rows["drain_seconds"] == "30  (default)"
    assert rows["https_address"].endswith("(environment DTR_HTTPS_ADDRESS)")
    assert rows["storage.s3.access_key"].startswith('"known"')
    assert "db.example.com" in rows["database.url"]
    assert "hush" not in shown


# --- doctor ------------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_wrong_with_good_data(dtr: Commands) -> None:
    output = dtr.run("doctor").stdout
    lines = {line.split()[1]: line for line in output.splitlines() if not line.startswith(" ")}
    assert {"database", "clock", "storage", "certificate", "space"} <= set(lines), output
    for subject in ("database", "clock", "storage", "certificate"):
        assert lines[subject].startswith("ok"), output


@pytest.mark.parametrize(("key", "result"), [(None, "ok  "), ("wrong-secret-key", "FAIL")])
def test_doctor_looks_at_a_bucket(dtr: Commands, s3_server: S3Server, key: str | None, result: str) -> None:
    given = s3_server.settings | ({"storage.s3.secret_key": key} if key else {})
    ran = Commands(
        Server(dtr.server.directory, {"database.url": dtr.server.environment["DTR_DATABASE__URL"], **given})
    ).run("doctor")
    assert f"{result}  storage" in ran.stdout
    assert "wrong-secret-key" not in ran.output


def test_doctor_says_what_to_do_when_there_is_no_data(tmp_path: Path) -> None:
    result = Commands(Server(tmp_path / "dtr")).run("doctor")
    assert result.exit_code == 1
    assert "FAIL  database" in result.stdout
    assert "->" in result.stdout


def test_doctor_finds_a_database_that_does_not_answer(tmp_path: Path) -> None:
    url = f"postgresql://dtr@127.0.0.1:{free_port()}/dtr"
    result = Commands(Server(tmp_path / "dtr", {"database.url": url})).run("doctor")
    assert result.exit_code == 1
    assert "FAIL  database" in result.stdout
    assert "ok    storage" in result.stdout


def test_doctor_finds_a_storage_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = {"storage.filesystem.root": str(tmp_path / "file" / "blobs")}
    result = Commands(Server(tmp_path / "dtr", settings)).run("doctor")
    assert result.exit_code == 1
    assert "FAIL  storage" in result.stdout


# --- fsck --------------------------------------------------------------------------------------------------------


@dataclass
class Pushed:
    """An image on a running server, the command on it, and the files of its two layers."""

    dtr: Commands
    files: list[Path]
    client: Client


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {}
    if request.param == "postgresql":
        settings["database.url"] = request.getfixturevalue("postgresql_cluster").create(tables=True)
    server = Server(tmp_path_factory.mktemp("fsck") / "dtr", settings, workers=1)
    server.start().make_repository("admin/app")
    yield server
    server.close()


@pytest.fixture
def pushed(running: Server) -> Iterator[Pushed]:
    before = set(objects(running))
    image = make_image(layers=2, size=100_000)
    client = Client(running)
    client.push("admin/app", image, "v1")
    files = {digest_of(path.read_bytes()): path for path in objects(running) if path not in before}
    _, *layers = image.blobs  # the config is a row of the database
    yield Pushed(Commands(running), [files[digest_of(layer)] for layer in layers], client)
    for blob in layers:  # what the test damaged is whole for the next
        files[digest_of(blob)].write_bytes(blob)


def objects(server: Server) -> list[Path]:
    return [path for path in (server.directory / "blobs").rglob("*") if path.is_file()]


def test_fsck_counts_and_finds_nothing_wrong(pushed: Pushed) -> None:
    layers = len(objects(pushed.dtr.server))
    images = layers // 2
    expected = f"{layers + images} blobs, {layers} objects, {images} manifests; 0 damaged\n"
    assert pushed.dtr("fsck") == expected
    assert pushed.dtr("fsck", "--content") == expected


def test_fsck_finds_a_missing_object(pushed: Pushed) -> None:
    digest = digest_of(pushed.files[1].read_bytes())
    pushed.files[1].unlink()
    result = pushed.dtr.run("fsck")
    assert result.exit_code == 1
    assert f"DAMAGE  blob {digest} has no object" in result.stdout
    assert "; 1 damaged" in result.stdout


def test_fsck_finds_an_object_of_the_wrong_size(pushed: Pushed) -> None:
    os.truncate(pushed.files[1], 10)
    result = pushed.dtr.run("fsck")
    assert result.exit_code == 1
    assert "an object of 10 bytes instead of" in result.stdout


def test_fsck_finds_wrong_content_only_when_it_reads(pushed: Pushed) -> None:
    content = bytearray(pushed.files[0].read_bytes())
    content[5000] ^= 1
    pushed.files[0].write_bytes(content)
    assert "; 0 damaged" in pushed.dtr("fsck")
    result = pushed.dtr.run("fsck", "--content")
    assert result.exit_code == 1
    assert "other content" in result.stdout


def test_what_fsck_marked_as_missing_is_pushed_again(pushed: Pushed) -> None:
    data = pushed.files[1].read_bytes()
    path = f"/v2/admin/app/blobs/{digest_of(data)}"
    os.truncate(pushed.files[1], 10)
    assert pushed.dtr.run("fsck", "--repair").exit_code == 1
    pushed.client.call("GET", path).expect(404)
    pushed.client.call("HEAD", path).expect(404)
    pushed.client.push_blob("admin/app", data)
    assert pushed.client.call("GET", path).expect(200).body == data
    assert "; 0 damaged" in pushed.dtr("fsck", "--content")


def test_fsck_names_old_objects_that_belong_to_nothing(pushed: Pushed) -> None:
    stray = pushed.files[0].parent / "0123456789abcdef0123456789abcdef"
    shutil.copyfile(pushed.files[0], stray)
    assert "belongs to nothing" not in pushed.dtr("fsck")  # an upload may be about to name it
    os.utime(stray, (1_600_000_000, 1_600_000_000))
    assert f"{stray.name} of" in pushed.dtr("fsck")
    pushed.dtr("fsck", "--repair")
    assert "belongs to nothing" not in pushed.dtr("fsck")  # it has a tombstone now
    assert stray.exists()


def test_fsck_reads_a_part_and_keeps_what_is_damaged(pushed: Pushed) -> None:
    first, second = sorted(pushed.files)
    content = bytearray(first.read_bytes())
    content[5000] ^= 1
    first.write_bytes(content)
    location = f"default:{first.relative_to(pushed.dtr.server.directory / 'blobs')}"
    assert "; 0 damaged" in pushed.dtr("fsck", "--verify", "--after", location)
    assert "; blobs were read up to " in pushed.dtr("fsck", "--verify", "--time", "1ns", "--resume")
    damaged = pushed.dtr.run("fsck", "--verify", "--rate", "100M", "--repair", "--resume", "--time", "1h")
    assert damaged.exit_code == 1
    assert f"has an object with other content at {location}" in damaged.stdout
    (line,) = [one for one in pushed.dtr("fsck", "--quarantine").splitlines() if one.startswith(location)]
    assert f"{len(content)} bytes  until 20" in line
    assert line.endswith("has an object with other content")
    content[5000] ^= 1
    first.write_bytes(content)
    assert f"was missing, and was found at {location}" in pushed.dtr("fsck", "--repair")
    assert location not in pushed.dtr("fsck", "--quarantine")
    assert "; 0 damaged" in pushed.dtr("fsck", "--verify")
    assert second.exists()


@pytest.mark.parametrize("option", [("--rate", "0"), ("--rate", "x"), ("--rate", "M"), ("--time", "soon")])
def test_fsck_refuses_what_is_no_limit(dtr: Commands, option: tuple[str, str]) -> None:
    assert dtr.run("fsck", *option).exit_code == 2


# --- import-storage ----------------------------------------------------------------------------------------------


def test_an_import_tells_problems_by_its_status(running: Server) -> None:
    tree, dtr = Tree(FileSystem(running.directory / "blobs")), Commands(running)
    asyncio.run(tree.image("admin/good", make_image(), "v1"))
    asyncio.run(tree.image("nobody/bad", make_image(), "v1"))
    for options in (("--dry-run",), (), ()):
        ran = dtr.run("import-storage", *options)
        assert ran.exit_code == 1
        problem, report = ran.stdout.splitlines()
        assert problem == "problem  nobody/bad: there is no user or organisation nobody"
        assert report.endswith("; 1 problems")
    assert dtr("import-storage", "--map", "nobody=admin").endswith("; 0 problems\n")
    assert "admin/bad" in dtr("repository", "list")
    assert "there is no tree of a registry" in dtr.fail("import-storage", "--prefix", "elsewhere")
    assert "is not OLD=NEW" in dtr.fail("import-storage", "--map", "a")


def test_a_backup_of_dtr_is_looked_into_and_refused(running: Server, tmp_path: Path) -> None:
    backup, dtr = tmp_path / "backup.tar", Commands(running)
    assert "No such file" in dtr.fail("import-storage", "--dtr-backup", str(backup))
    backup.write_bytes(b"x" * 2000)
    assert "it is no tar archive" in dtr.fail("import-storage", "--dtr-backup", str(backup))
    with tarfile.open(backup, "w") as archive:
        archive.addfile(tarfile.TarInfo("dtr-backup-v2.7.5/rethink/blobs/0"))
    ran = dtr.run("import-storage", "--dtr-backup", str(backup))
    assert ran.exit_code == 1
    assert ran.stdout.startswith("a backup of DTR 2.7.5\ntable blobs: 1 files of 0 bytes")
    assert "nothing is imported" in ran.stderr
    assert "let a mirroring policy poll them" in ran.stderr


# --- serve -------------------------------------------------------------------------------------------------------


def refusal(server: Server, *arguments: str) -> str:
    """What a start that fails prints."""
    result = server.cli("serve", *arguments, check=False)
    assert result.returncode == 1, result
    assert result.stderr.startswith("dtr: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_a_second_start_on_the_same_data_is_refused(make_server: Callable[..., Server]) -> None:
    first = make_server()
    assert "runs already" in refusal(Server(first.directory))


def test_an_address_in_use_is_one_line(make_server: Callable[..., Server]) -> None:
    server = make_server(start=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.port))
        other.listen()
        assert f"127.0.0.1:{server.port}" in refusal(server)


def test_unknown_components_are_refused(make_server: Callable[..., Server]) -> None:
    assert "components" in refusal(make_server(start=False), "--components", "registry,nonsense")


def test_serve_does_not_touch_data_that_it_cannot_read(empty: Commands) -> None:
    assert "dtr migrate" in refusal(empty.server)
    empty.server.directory.mkdir(exist_ok=True)
    broken = Server(empty.server.directory.with_name("broken"))
    broken.directory.mkdir()
    (broken.directory / "metadata.db").write_bytes(b"this is no database" * 1000)
    refusal(broken)
    assert (broken.directory / "metadata.db").read_bytes() == b"this is no database" * 1000
