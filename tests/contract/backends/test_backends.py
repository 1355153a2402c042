"""The storages of an installation, on both databases: nothing that is stored may be lost sight of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.images import make_image
from tests.support.rooms import Rooms, SlowBody, make_body

from dtr.backends import (
    BackendChanged,
    BackendInUse,
    BackendRefused,
    Backends,
    BackendUnknown,
    Definition,
    NamespaceUnknown,
    Own,
    PlaceChanged,
    Usage,
    backends,
)
from dtr.cluster import Health
from dtr.db import Statement
from dtr.events import Actor
from dtr.http.operations import _document
from dtr.oci import Digest
from dtr.registry import UploadOccupied
from dtr.storage import FileSystem, Memory, ObjectMissing, Redirect, StorageUnavailable
from dtr.storage.definitions import FileSystemStorage, S3Storage
from dtr.vault import Vault

ADA = Actor("user", "1", "ada", "192.0.2.1")
SECRET = "wJalrXUtnFEMI/K7MDENG"


class Host:
    """The rooms of a process, and its backends; `root` is what its settings say of the default storage."""

    def __init__(self, rooms: Rooms, root: Path, directory: Path, **own: Any) -> None:
        self.rooms = rooms
        self.storages = rooms.storage
        self.backends = Backends(
            rooms.database,
            Vault(directory / "secret.key"),
            rooms.storage,
            Own("filesystem", FileSystemStorage(root=root), **own),
            spool_directory=directory,
        )

    async def put(self, name: str, root: Path, *, changed_at: int | None = None, **changes: Any) -> None:
        root.mkdir(exist_ok=True)
        definition = Definition(driver="filesystem", parameters={"root": str(root)}, **changes)
        await self.backends.put(name, definition, changed_at=changed_at)

    async def settle(self) -> None:
        """So much time passes that every process knows where new blobs go."""
        await self.rooms.change("UPDATE storages SET used_until = 0")


@pytest.fixture
async def make_host(database_url: str, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Host]]]:
    made: list[Rooms] = []

    async def make(root: str = "blobs", *, begins: bool = True, **own: Any) -> Host:
        place = tmp_path / root
        place.mkdir(exist_ok=True)
        rooms = Rooms(database_url, lambda: FileSystem(place))
        made.append(rooms)
        host = Host(rooms, place, tmp_path, **own)
        if begins:
            await host.backends.begin()
        return host

    yield make
    for rooms in made:
        await rooms.close()


@pytest.fixture
async def host(make_host: Callable[..., Awaitable[Host]]) -> Host:
    return await make_host()


async def test_at_first_there_is_what_the_settings_describe(make_host, tmp_path):
    host = await make_host(redirect_seconds=60)
    (only,) = await host.backends.list_storages()
    assert (only.name, only.driver, only.is_default, only.is_from_settings) == (
        "default",
        "filesystem",
        True,
        True,
    )
    assert only.parameters == {"root": str(tmp_path / "blobs")}
    assert only.place == (tmp_path / "blobs").as_uri()
    assert host.storages.names == ("default",)
    assert (await host.storages.prepare("default:x")).redirect == Redirect(60)
    # Settings that change while there is one place take effect.
    host = await make_host(redirect_seconds=None)
    assert (await host.storages.prepare("default:x")).redirect is None
    assert (await host.backends.get("default")).redirect_seconds is None


async def test_a_storage_is_added_used_and_taken_away(host, tmp_path, monkeypatch):
    await host.put("fast-1", tmp_path / "fast", redirect_seconds=30, redirect_except=("10.0.0.0/8",))
    assert host.storages.names == ("default", "fast-1")
    added = await host.backends.get("fast-1")
    assert not added.is_default
    assert not added.is_from_settings
    assert (added.redirect_seconds, added.redirect_except) == (30, ("10.0.0.0/8",))
    repository = await host.rooms.make_repository()
    first = await host.rooms.push_blob(repository, b"one" * 100_000)
    await host.backends.make_default("fast-1")
    second = await host.rooms.push_blob(repository, b"two" * 100_000)
    places = [(await host.rooms.blobs.get("acme/app", digest)).location for digest in (first, second)]
    assert [place.partition(":")[0] for place in places] == ["default", "fast-1"]
    assert await host.rooms.read("acme/app", first) == b"one" * 100_000
    assert await host.rooms.read("acme/app", second) == b"two" * 100_000
    assert await host.backends.usage("fast-1") == Usage(1, 300_000, 0, 0)
    with pytest.raises(BackendInUse, match="default one"):
        await host.backends.delete("fast-1")
    third = await host.rooms.push_blob(repository, b"tri" * 100_000)
    monkeypatch.setattr(backends, "_COUNTED_AT_ONCE", 1)
    assert await host.backends.usage("fast-1") == Usage(2, 600_000, 0, 0)
    await host.rooms.blobs.delete(repository, third)
    await host.backends.make_default("default")
    with pytest.raises(BackendInUse, match="a moment ago"):
        await host.backends.delete("fast-1")
    await host.settle()
    with pytest.raises(BackendInUse, match="in it"):
        await host.backends.delete("fast-1")
    await host.rooms.blobs.delete(repository, second)
    with pytest.raises(BackendInUse, match="in it"):
        await host.backends.delete("fast-1")
    assert await host.backends.usage("fast-1") == Usage(0, 0, 0, 2)
    await host.rooms.make_due()
    await host.rooms.sweeper.sweep()
    await host.backends.delete("fast-1")
    assert host.storages.names == ("default",)
    with pytest.raises(BackendUnknown):
        await host.backends.get("fast-1")
    with pytest.raises(BackendInUse):
        await host.backends.delete("default")


async def test_what_does_not_work_is_not_saved(host, tmp_path):
    file = tmp_path / "file"
    file.write_text("no directory")
    for name, driver, parameters, match in (
        ("Fast", "filesystem", {"root": "/tmp"}, "name"),
        ("x" * 33, "filesystem", {"root": "/tmp"}, "name"),
        ("fast", "tape", {}, "driver"),
        ("fast", "memory", {}, "memory"),
        ("fast", "filesystem", {}, "root"),
        ("fast", "filesystem", {"root": "/tmp", "colour": "red"}, "colour"),
        ("fast", "filesystem", {"root": str(file)}, "is not there"),
        ("fast", "s3", {"region": "x"}, "bucket"),
    ):
        with pytest.raises(BackendRefused, match=match):
            await host.backends.put(name, Definition(driver=driver, parameters=parameters))
    good = {"root": str(tmp_path)}
    for changes in ({"redirect_seconds": 5}, {"redirect_except": ("somewhere",)}):
        with pytest.raises(BackendRefused, match=next(iter(changes))):
            await host.backends.put("fast", Definition(driver="filesystem", parameters=good, **changes))
    with pytest.raises(BackendInUse, match="default is at"):
        await host.put("fast", tmp_path / "blobs")
    assert [one.name for one in await host.backends.list_storages()] == ["default"]
    await host.backends.check("default")
    (tmp_path / "blobs").rmdir()
    (tmp_path / "blobs").write_text("")
    with pytest.raises(BackendRefused, match="storage default"):
        await host.backends.check("default")


async def test_a_trial_says_how_far_one_gets_and_saves_nothing(host, tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "file").write_bytes(b"")

    async def steps(root: Path) -> dict[str, str]:
        definition = Definition(driver="filesystem", parameters={"root": str(root)})
        trial = await host.backends.try_out("new", definition)
        assert trial.place == root.as_uri()
        assert all(bool(step.text) == (step.state == "failed") for step in trial.steps)
        return {step.name: step.state for step in trial.steps}

    names = ("open", "write", "read", "list", "sign", "delete", "rest")
    assert await steps(tmp_path / "place") == dict.fromkeys(names, "good") | {"sign": "absent"}
    assert [path for path in (tmp_path / "place").rglob("*") if path.is_file()] == []
    states = await steps(tmp_path / "file")
    assert states.pop("write" if states["open"] == "good" else "open") == "failed"
    assert set(states.values()) <= {"good", "skipped"}
    assert "skipped" in states.values()
    assert {one.name for one in await host.backends.list_storages()} == {"default"}
    assert (await host.backends.try_out("default")).steps[1].state == "good"
    with pytest.raises(BackendUnknown):
        await host.backends.try_out("nowhere")
    with pytest.raises(BackendRefused, match="root: is needed"):
        await host.backends.try_out("new", Definition(driver="filesystem", parameters={}))


async def test_who_looked_at_a_storage_before_somebody_else_changed_it_changes_nothing(host, tmp_path):
    await host.put("second", tmp_path / "place", changed_at=0)
    looked = (await host.backends.get("second")).changed_at
    for known in (0, looked + 1):
        with pytest.raises(BackendChanged):
            await host.put("second", tmp_path / "elsewhere", changed_at=known)
    with pytest.raises(BackendChanged):
        await host.put("third", tmp_path / "elsewhere", changed_at=looked)
    assert (await host.backends.get("second")).place == (tmp_path / "place").as_uri()
    await host.put("second", tmp_path / "elsewhere", changed_at=looked)
    assert (await host.backends.get("second")).place == (tmp_path / "elsewhere").as_uri()


async def test_a_storage_with_something_in_it_stays_where_it_is(host, tmp_path):
    await host.put("fast", tmp_path / "fast")
    await host.backends.make_default("fast")
    with pytest.raises(BackendInUse, match="default one"):
        await host.put("fast", tmp_path / "elsewhere")
    repository = await host.rooms.make_repository()
    upload = await host.rooms.uploads.start(repository)
    await host.backends.make_default("default")
    await host.settle()
    with pytest.raises(BackendInUse, match="in it"):
        await host.put("fast", tmp_path / "elsewhere")
    await host.put("fast", tmp_path / "fast", redirect_seconds=20)
    assert (await host.storages.prepare("fast:x")).redirect == Redirect(20)
    await host.rooms.uploads.cancel(upload)
    await host.rooms.make_due()
    await host.rooms.sweeper.sweep()
    await host.rooms.make_due()
    await host.rooms.sweeper.sweep()
    await host.put("fast", tmp_path / "elsewhere")
    assert host.storages.driver("fast")._root == str(tmp_path / "elsewhere")


async def test_namespaces_are_assigned_and_an_upload_stays_where_it_began(host, tmp_path):
    rooms = host.rooms
    await host.put("fast", tmp_path / "fast")
    acme, beta = await rooms.make_repository("acme/app"), await rooms.make_repository("beta/app")
    ((namespace,),) = await rooms.query("SELECT id FROM accounts WHERE name = 'acme'")
    await host.backends.assign(namespace, "fast", by=ADA)
    assert [(one.namespace, one.storage) for one in await host.backends.assignments()] == [("acme", "fast")]
    begun = await rooms.uploads.append(await rooms.uploads.start(acme), make_body(b"begun, "))
    other = await rooms.uploads.start(beta)
    assert begun.state.location.startswith("fast:")
    assert other.state.location.startswith("default:")
    with pytest.raises(BackendInUse, match="assigned"):
        await host.backends.delete("fast")
    await host.backends.unassign(namespace)
    await host.backends.unassign(namespace)
    assert (await rooms.uploads.start(acme)).state.location.startswith("default:")
    digest = Digest.of(b"begun, ended")
    await rooms.uploads.finish(begun, digest, make_body(b"ended"))
    assert (await rooms.blobs.get("acme/app", digest)).location == begun.state.location
    assert await rooms.read("acme/app", digest) == b"begun, ended"
    for wrong, name in (("nobody", "fast"), (namespace, "nowhere")):
        with pytest.raises((NamespaceUnknown, BackendUnknown)):
            await host.backends.assign(wrong, name)
    with pytest.raises(BackendUnknown):
        await host.backends.make_default("nowhere")


async def test_uploads_go_on_in_storages_of_different_kinds_at_once(host, make_host, tmp_path):
    """With files the lock is the turn, without them the lease in the row is, whichever storage is the default."""
    rooms, elsewhere = host.rooms, (await make_host()).rooms
    shared = Memory()
    for one in (rooms, elsewhere):
        await one.storage.put("plain", Memory(shared))
    repository = await rooms.make_repository()
    for name, turns in (("default", 0), ("plain", 1)):
        rooms.storage.default = name
        upload = await rooms.uploads.append(await rooms.uploads.start(repository), make_body(b"a" * 70_000))
        assert upload.state.location.startswith(f"{name}:")
        slow = SlowBody()
        writing = asyncio.create_task(rooms.uploads.append(upload, slow.body))
        await slow.begun()
        ((held,),) = await rooms.query("SELECT count(*) FROM uploads WHERE writer != ''")
        assert held == turns
        with pytest.raises(UploadOccupied):
            await elsewhere.uploads.append(await elsewhere.uploads.get(repository, upload.id), make_body(b"c"))
        await slow.send(b"b")
        slow.end()
        await writing
        digest = Digest.of(b"a" * 70_000 + b"bc")
        there = await elsewhere.uploads.get(repository, upload.id)
        await elsewhere.uploads.finish(there, digest, make_body(b"c"))
        assert (await rooms.blobs.get("acme/app", digest)).location == upload.state.location
        await rooms.blobs.delete(repository, digest)


async def test_other_processes_follow(make_host, tmp_path):
    host, other = await make_host(), await make_host()
    await host.put("fast", tmp_path / "fast")
    await host.backends.make_default("fast")
    repository = await host.rooms.make_repository()
    digest = await host.rooms.push_blob(repository, b"x" * 100_000)
    # A storage that was added a moment ago is no missing blob: whoever meets its name learns of it.
    assert other.storages.names == ("default",)
    assert await other.rooms.read("acme/app", digest) == b"x" * 100_000
    with pytest.raises(StorageUnavailable, match="nowhere"):
        await other.storages.stat("nowhere:x")
    # What nobody asks for is heard of all the same.
    following = asyncio.create_task(other.backends.keep_fresh())
    await host.put("later", tmp_path / "later")
    async with asyncio.timeout(60):
        while other.storages.names != ("default", "fast", "later"):
            await asyncio.sleep(0.05)
    assert other.storages.default == "fast"
    await host.backends.delete("later")
    async with asyncio.timeout(60):
        while "later" in other.storages.names:
            await asyncio.sleep(0.05)
    following.cancel()


async def test_a_driver_that_is_replaced_ends_what_it_has_begun(host, tmp_path, monkeypatch):
    closed = []
    close = FileSystem.close

    async def noted(self: FileSystem) -> None:
        closed.append(self)
        await close(self)

    await host.put("fast", tmp_path / "fast")
    monkeypatch.setattr(FileSystem, "close", noted)
    before = host.storages.driver("fast")
    content = bytes(3_000_000)
    await host.storages.put_small("fast:a", content)
    pieces = host.storages.open("fast:a")
    received = await anext(pieces)
    await host.rooms.change("UPDATE storages SET parameters = :p WHERE name = 'fast'", p='{"root": "/tmp"}')
    await host.backends.put(
        "default", Definition(driver="filesystem", parameters={"root": str(tmp_path / "blobs")})
    )
    assert host.storages.driver("fast") is not before
    assert before not in closed
    received += b"".join([piece async for piece in pieces])
    assert received == content
    assert before in closed


async def test_the_default_is_as_it_was_set_while_running_whatever_the_settings_say_later(make_host, tmp_path):
    host = await make_host()
    await host.put("default", tmp_path / "blobs", redirect_seconds=99)
    assert not (await host.backends.get("default")).is_from_settings
    later = await make_host("elsewhere")
    assert (await later.storages.prepare("default:x")).redirect == Redirect(99)
    await later.storages.put_small("default:a", b"content")
    assert (tmp_path / "blobs" / "a").read_bytes() == b"content"


# --- the settings file names another place --------------------------------------------------------------------


async def test_settings_that_name_another_place_do_not_lose_what_is_stored(make_host, tmp_path):
    host = await make_host()
    repository = await host.rooms.make_repository()
    await host.rooms.push(repository, make_image(), "latest")
    with pytest.raises(PlaceChanged, match="not at the new place") as refused:
        await make_host("elsewhere")
    assert (tmp_path / "elsewhere").as_uri() in str(refused.value)
    assert (await host.backends.get("default")).place == (tmp_path / "blobs").as_uri()
    # Nor does a process that follows use the wrong place.
    astray = await make_host("elsewhere", begins=False)
    await astray.backends.refresh()
    with pytest.raises(StorageUnavailable):
        await astray.storages.stat("default:x")
    # With everything copied by hand it is the same storage.
    (tmp_path / "elsewhere").rmdir()
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    moved = await make_host("elsewhere")
    assert (await moved.backends.get("default")).place == (tmp_path / "elsewhere").as_uri()
    digests = await moved.rooms.query("SELECT digest FROM blobs")
    assert digests
    for (digest,) in digests:
        assert await moved.rooms.read("acme/app", digest)


async def test_a_copy_that_is_not_complete_is_refused(make_host, tmp_path):
    host = await make_host()
    repository = await host.rooms.make_repository()
    for number in range(3):
        await host.rooms.push_blob(repository, b"%d" % number * 100_000)
    files = [one for one in (tmp_path / "blobs").rglob("*") if one.is_file()]
    files[0].write_bytes(b"short")
    (tmp_path / "blobs").rename(tmp_path / "copy")
    with pytest.raises(PlaceChanged, match="1 of 3"):
        await make_host("copy")


async def test_an_empty_storage_may_be_anywhere(make_host, tmp_path):
    await make_host()
    host = await make_host("elsewhere")
    assert (await host.backends.get("default")).place == (tmp_path / "elsewhere").as_uri()


# --- secrets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(s3_server):
    parameters = {
        key.removeprefix("storage.s3."): value == "true" if value in {"true", "false"} else value
        for key, value in s3_server.settings.items()
        if key.startswith("storage.s3.")
    }

    def define(**changes: Any) -> Definition:
        given = {key: value for key, value in {**parameters, **changes}.items() if value != "kept"}
        return Definition(driver="s3", parameters=given)

    return define


async def test_secrets_are_sealed_kept_and_bound_to_their_place(host, make_host, s3):
    await host.backends.put("cloud", s3(), by=ADA)
    found = await host.backends.get("cloud")
    assert found.secrets == ("secret_key",)
    assert "secret_key" not in found.parameters
    everything = repr(found) + repr(await host.rooms.query("SELECT * FROM storages"))
    everything += repr(await host.rooms.query("SELECT * FROM events"))
    assert s3().parameters["secret_key"] not in everything
    other = await make_host()
    await other.storages.put_small(location := other.storages.new_location().replace("default", "cloud"), b"x")
    assert await other.storages.stat(location) == 1
    await host.backends.put("cloud", s3(secret_key="kept", verify=False))
    assert await host.storages.stat(location) == 1
    for wrong in (s3(secret_key=SECRET), s3(access_key="nobody", secret_key=SECRET), s3(secret_key=None)):
        with pytest.raises(BackendRefused) as refused:
            await host.backends.put("cloud", wrong)
        assert SECRET not in str(refused.value)
    with pytest.raises(BackendRefused, match="given again"):
        await host.backends.put("cloud", s3(secret_key="kept", endpoint="http://127.0.0.1:9"))
    await host.backends.check("cloud")
    await host.storages.delete(location)
    for definition, state in ((None, "good"), (s3(secret_key="kept"), "good"), (s3(secret_key=SECRET), "failed")):
        trial = await host.backends.try_out("cloud", definition)
        assert {step.name: step.state for step in trial.steps}["write"] == state
        assert SECRET not in repr(trial)


async def test_secrets_that_went_over_tls_do_not_go_without_it(host, s3):
    await host.backends.put("cloud", s3())
    to_tls = "UPDATE storages SET parameters = replace(parameters, 'http://', 'https://') WHERE name = 'cloud'"
    await host.rooms.change(to_tls)
    assert (await host.backends.get("cloud")).parameters["endpoint"].startswith("https://")
    for refusing in (host.backends.put, host.backends.try_out):
        with pytest.raises(BackendRefused, match="without TLS, secret_key must be given again"):
            await refusing("cloud", s3(secret_key="kept"))
    await host.backends.put("cloud", s3())
    await host.backends.put("cloud", s3(secret_key="kept"))


async def test_a_lost_key_of_the_secrets_takes_one_storage_away_not_the_others(
    host, make_host, s3, tmp_path, caplog
):
    await host.backends.put("cloud", s3())
    (tmp_path / "secret.key").unlink()
    other = await make_host()
    assert other.storages.names == ("default",)
    assert "storage not opened" in caplog.messages
    with pytest.raises(StorageUnavailable, match="cloud"):
        await other.storages.stat("cloud:x")
    with pytest.raises(ObjectMissing):
        await other.storages.stat("default:x")


async def test_health_names_the_storage_and_only_without_the_default_one_is_a_host_of_no_use(host, tmp_path):
    await host.put("fast", tmp_path / "fast")
    (tmp_path / "fast").rmdir()
    wrong = await Health(host.rooms.database, host.storages, None).look()
    assert wrong == {"storage fast": "the storage fast does not answer"}
    assert _document(wrong) == ({"Error": "the storage fast does not answer", "Healthy": True}, 200)
    await host.backends.make_default("fast")
    wrong = await Health(host.rooms.database, host.storages, None).look()
    assert wrong == {"storage": "the storage fast does not answer"}
    assert _document(wrong)[1] == 503


async def test_changes_are_events(host, tmp_path):
    await host.put("fast", tmp_path / "fast")
    await host.backends.make_default("fast", by=ADA)
    await host.backends.make_default("default", by=ADA)
    await host.settle()
    await host.backends.delete("fast", by=ADA)
    rows = await host.rooms.database.fetch_all(
        Statement(
            text("SELECT type, actor_name, object_name FROM events WHERE object_type = 'storage' ORDER BY id")
        )
    )
    assert [tuple(row) for row in rows] == [
        ("CREATE", "", "fast"),
        ("UPDATE", "ada", "fast"),
        ("UPDATE", "ada", "default"),
        ("DELETE", "ada", "fast"),
    ]


async def test_two_who_add_the_same_storage_leave_one(make_host, tmp_path):
    hosts = [await make_host() for _ in range(2)]
    (tmp_path / "fast").mkdir()
    definition = Definition(driver="filesystem", parameters={"root": str(tmp_path / "fast")})
    await asyncio.gather(*(one.backends.put("fast", definition) for one in hosts))
    assert [one.name for one in await hosts[0].backends.list_storages()] == ["default", "fast"]
    results = await asyncio.gather(
        *(one.backends.put(f"again-{number}", Definition(driver="filesystem", parameters={"root": str(tmp_path)}))
          for number, one in enumerate(hosts)),
        return_exceptions=True,
    )  # fmt: skip
    assert sorted(type(one).__name__ for one in results) == ["Backend", "BackendInUse"]


def test_places_are_the_same_however_they_are_written():
    assert (
        S3Storage(bucket="b", endpoint="https://S3.example/").place
        == S3Storage(bucket="b", endpoint="http://s3.example", prefix="/").place
    )
    assert S3Storage(bucket="b").place != S3Storage(bucket="b", prefix="x").place
