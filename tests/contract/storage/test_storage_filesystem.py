"""What files promise besides: no half object on a full or a failing disk, and descriptors for threads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from tests.support.disk import small_disk
from tests.support.storage import MIB, body, locations, read, upload
from tests.support.wire import wait_until

from dtr.storage import (
    AccessDenied,
    FileSystem,
    LocalFiles,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UploadBusy,
    UploadState,
    new_location,
)


@pytest.fixture
async def driver(tmp_path):
    opened = FileSystem(tmp_path)
    yield opened
    await opened.close()


# --- descriptors --------------------------------------------------------------------------------------------


async def test_a_descriptor_for_threads_is_locked_cut_and_positioned(driver):
    assert isinstance(driver, LocalFiles)
    state = await driver.write(await driver.create_upload(new_location()), body(b"0123456789"))
    state = msgspec.structs.replace(state, offset=4)
    descriptor = driver.open_writer(state)
    with pytest.raises(UploadBusy):
        await driver.write(state, body(b"x"))
    driver.position(descriptor, state)
    os.write(descriptor, b"abc")
    os.close(descriptor)
    state = msgspec.structs.replace(state, offset=7)
    await driver.complete(state)
    descriptor = driver.open_reader(state.location)
    assert os.read(descriptor, 100) == b"0123abc"
    os.close(descriptor)


async def test_descriptors_of_what_is_missing_are_not_made(driver, tmp_path):
    with pytest.raises(ObjectMissing):
        driver.open_reader(new_location())
    with pytest.raises(ObjectMissing):
        driver.open_writer(UploadState(new_location(), offset=1))
    assert list(tmp_path.iterdir()) == []


async def test_a_descriptor_is_not_positioned_beyond_what_is_there_or_in_what_was_aborted(driver):
    state = await driver.write(await driver.create_upload(new_location()), body(b"0123456789"))
    descriptor = driver.open_writer(state)
    with pytest.raises(ObjectMissing):  # as after a crash that took bytes
        driver.position(descriptor, msgspec.structs.replace(state, offset=11))
    driver.position(descriptor, state)
    await driver.abort(state)
    with pytest.raises(ObjectMissing):
        driver.position(descriptor, state)
    os.close(descriptor)


async def test_an_upload_that_nobody_went_on_with_is_current_and_ready_to_append(driver):
    for content in (b"", b"0123456789"):
        state = await driver.create_upload(new_location())
        if content:
            state = await driver.write(state, body(content))
        descriptor = driver.open_writer(state)
        assert driver.is_current(descriptor, state)
        os.write(descriptor, b"abc")
        os.close(descriptor)
        await driver.complete(msgspec.structs.replace(state, offset=len(content) + 3))
        assert await read(driver, state.location) == content + b"abc"


@pytest.mark.parametrize("meanwhile", ["longer", "shorter", "completed", "aborted", "made anew"])
async def test_an_upload_that_somebody_went_on_with_is_not_current(driver, tmp_path, meanwhile):
    state = await driver.write(await driver.create_upload(new_location()), body(b"0123456789"))
    part = tmp_path / f"{state.location}.part"
    opened = os.open(part, os.O_RDWR)  # and before it is locked:
    if meanwhile == "longer":
        await driver.write(state, body(b"more"))
    elif meanwhile == "shorter":
        os.truncate(part, 9)
    elif meanwhile == "completed":
        await driver.complete(state)
    else:
        await driver.abort(state)
        if meanwhile == "made anew":
            part.parent.mkdir(parents=True)
            part.write_bytes(b"9876543210")
    assert not driver.is_current(opened, state)
    os.close(opened)
    if meanwhile in {"longer", "shorter", "completed"}:  # it is still found
        opened = driver.open_writer(state)
        assert not driver.is_current(opened, state)
        os.close(opened)


async def test_what_another_host_may_change_is_never_current(driver, monkeypatch):
    monkeypatch.setattr("dtr.storage.filesystem.is_local", lambda device: False)
    state = await driver.write(await driver.create_upload(new_location()), body(b"0123456789"))
    descriptor = driver.open_writer(state)
    assert not driver.is_current(descriptor, state)
    assert not driver.is_local(descriptor, state)
    os.close(descriptor)
    descriptor, completed = await driver.complete_current(state)
    assert not completed
    assert await locations(driver) == []
    os.close(descriptor)


async def test_an_upload_is_locked_and_completed_in_one_go(driver):
    state = await driver.write(await driver.create_upload(new_location()), body(b"whole"))
    descriptor, completed = await driver.complete_current(state)
    assert completed
    assert driver.is_local(descriptor, state)
    assert await read(driver, state.location) == b"whole"
    with pytest.raises(UploadBusy):
        driver.open_writer(state)
    os.close(descriptor)


@pytest.mark.parametrize("meanwhile", ["longer", "completed"])
async def test_an_upload_that_somebody_went_on_with_is_locked_and_not_completed(driver, meanwhile):
    state = await driver.write(await driver.create_upload(new_location()), body(b"begin"))
    if meanwhile == "longer":
        await driver.write(state, body(b" and more"))
    else:
        await driver.complete(state)
    before = await locations(driver)
    descriptor, completed = await driver.complete_current(state)
    assert not completed
    assert await locations(driver) == before
    with pytest.raises(UploadBusy):
        await driver.complete_current(state)
    os.close(descriptor)


async def test_completing_in_one_go_that_is_too_slow_gives_its_lock_back(driver, tmp_path, slow_sync):
    state = await driver.write(await driver.create_upload(new_location()), body(b"whole"))
    hasty = FileSystem(tmp_path, time_limit=0.2)
    with pytest.raises(StorageUnavailable, match=r"within 0\.2 s"):
        await hasty.complete_current(state)
    await asyncio.to_thread(wait_until, lambda: slow_sync.begun)
    with pytest.raises(UploadBusy):
        driver.open_writer(state)
    slow_sync.set()
    async with asyncio.timeout(60):
        while True:
            try:
                descriptor = driver.open_writer(state)
            except UploadBusy:
                await asyncio.sleep(0.01)
            else:
                break
    os.close(descriptor)
    assert await read(driver, state.location) == b"whole"
    await hasty.close()


async def test_what_is_on_its_way_to_the_disk_early_is_the_same(driver):
    content = os.urandom(MIB + 5)
    state = await driver.create_upload(new_location())
    descriptor = driver.open_writer(state)
    os.write(descriptor, content)
    driver.begin_sync(descriptor, state, len(content))
    os.close(descriptor)
    await driver.complete(msgspec.structs.replace(state, offset=len(content)))
    assert await read(driver, state.location) == content


# --- a disk that is full ------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


async def test_a_body_that_does_not_fit_leaves_its_room_and_what_was_there_before(disk):
    driver = FileSystem(disk.path)
    before = os.urandom(MIB)
    state = await driver.write(await driver.create_upload(new_location()), body(before))
    with pytest.raises(StorageFull):
        await driver.write(state, body(*[bytes(MIB)] * 16))
    assert await locations(driver) == []
    await driver.put_small(new_location(), bytes(4 * MIB))
    await driver.complete(await driver.write(state, body(b"end")))
    assert await read(driver, state.location) == before + b"end"
    await driver.close()


async def test_a_small_object_that_does_not_fit_leaves_nothing_and_harms_no_other(disk):
    driver = FileSystem(disk.path)
    fits = [new_location() for _ in range(8)]
    results = await asyncio.gather(
        *(driver.put_small(location, location.encode()) for location in fits[:4]),
        driver.put_small(new_location(), bytes(9 * MIB)),
        *(driver.put_small(location, location.encode()) for location in fits[4:]),
        return_exceptions=True,
    )
    assert isinstance(results.pop(4), StorageFull)
    assert results == [None] * 8
    assert await locations(driver) == sorted(fits)
    assert [path.name for path in disk.path.rglob("*.part")] == []
    await driver.close()


async def test_a_full_disk_works_again_once_there_is_room(disk):
    driver = FileSystem(disk.path)
    state = await driver.write(await driver.create_upload(new_location()), body(b"before "))
    location = new_location()
    disk.fill()
    with pytest.raises(StorageFull):
        await driver.write(state, body(bytes(MIB)))
    with pytest.raises(StorageFull):
        await driver.put_small(location, bytes(MIB))
    assert await locations(driver) == ["filler"]
    disk.make_room()
    await driver.complete(await driver.write(state, body(b"and after")))
    await driver.put_small(location, b"small")
    assert await read(driver, state.location) == b"before and after"
    assert await read(driver, location) == b"small"
    await driver.close()


# --- a disk, or an NFS server, that fails --------------------------------------------------------------------


class Faults:
    """Makes system calls on files below a directory fail, from the call number `after` on."""

    def __init__(self, monkeypatch, root):
        self._monkeypatch = monkeypatch
        self._root = str(root)

    def inject(self, name, number, *, after=0):
        real = getattr(os, name)
        calls = 0

        def call(target, *args, **kwargs):
            nonlocal calls
            path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else target
            if not str(path).startswith(self._root):
                return real(target, *args, **kwargs)
            calls += 1
            if calls <= after:
                return real(target, *args, **kwargs)
            if name == "close":
                real(target)  # gone all the same, as on Linux
            raise OSError(number, os.strerror(number))

        self._monkeypatch.setattr(os, name, call)

    def lift(self):
        self._monkeypatch.undo()


@pytest.fixture
def faults(monkeypatch, tmp_path):
    return Faults(monkeypatch, tmp_path)


ERRORS = [
    (errno.ESTALE, StorageUnavailable),
    (errno.EIO, StorageUnavailable),
    (errno.ETIMEDOUT, StorageUnavailable),
    (errno.EDQUOT, StorageFull),
    (errno.ENOSPC, StorageFull),
    (errno.EACCES, AccessDenied),
    (errno.EROFS, AccessDenied),
]


@pytest.mark.parametrize(("number", "error"), ERRORS)
async def test_a_write_that_fails_leaves_the_upload_as_it_was(driver, faults, number, error):
    before = os.urandom(MIB + 5)
    state = await driver.write(await driver.create_upload(new_location()), body(before))
    faults.inject("write", number, after=2)
    with pytest.raises(error):
        await driver.write(state, body(bytes(4 * MIB)))
    faults.lift()
    assert await locations(driver) == []
    state = await driver.write(state, body(b"again"))
    await driver.complete(state)
    assert await read(driver, state.location) == before + b"again"


@pytest.mark.parametrize(("number", "error"), ERRORS)
async def test_a_sync_that_fails_loses_the_upload_and_never_acknowledges_it(driver, faults, number, error):
    state = await driver.write(await driver.create_upload(new_location()), body(bytes(MIB)))
    faults.inject("fdatasync", number)
    with pytest.raises(error):
        await driver.complete(state)
    faults.lift()
    # The kernel reports a lost write once only; so the next sync proves nothing.
    with pytest.raises(ObjectMissing):
        await driver.complete(state)
    assert await locations(driver) == []


@pytest.mark.parametrize("call", ["open", "write", "fdatasync", "fsync", "close", "rename"])
@pytest.mark.parametrize(("number", "error"), ERRORS)
async def test_a_small_object_that_fails_leaves_nothing(driver, faults, tmp_path, call, number, error):
    location = new_location()
    faults.inject(call, number)
    with pytest.raises(error):
        await driver.put_small(location, b"small")
    faults.lift()
    assert await locations(driver) == []
    assert list(tmp_path.iterdir()) == []
    await driver.put_small(location, b"again")
    assert await read(driver, location) == b"again"


@pytest.mark.parametrize("call", ["open", "fstat", "rename", "fsync", "close"])
async def test_a_complete_that_fails_elsewhere_can_be_repeated(driver, faults, call):
    state = await driver.write(await driver.create_upload(new_location()), body(b"whole"))
    faults.inject(call, errno.EIO)
    with pytest.raises(StorageUnavailable):
        await driver.complete(state)
    faults.lift()
    await driver.complete(state)
    assert await read(driver, state.location) == b"whole"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
async def test_a_read_that_fails_never_ends_early(driver, faults, number):
    location = await upload(driver, bytes(3 * MIB))
    faults.inject("pread", number, after=1)
    with pytest.raises(StorageUnavailable):
        await read(driver, location)


@pytest.mark.parametrize("call", ["unlink", "open", "stat", "scandir"])
async def test_what_a_stale_handle_hides_is_not_missing(driver, faults, call):
    location = await upload(driver, b"there")
    faults.inject(call, errno.ESTALE)
    with pytest.raises(StorageUnavailable):
        await {
            "unlink": lambda: driver.delete(location),
            "open": lambda: read(driver, location),
            "stat": lambda: driver.stat(location),
            "scandir": lambda: locations(driver),
        }[call]()
    faults.lift()
    assert await read(driver, location) == b"there"


async def test_a_close_that_fails_fails_the_write(driver, faults):
    state = await driver.create_upload(new_location())
    faults.inject("close", errno.EDQUOT)  # as NFS does, which sends the bytes then
    with pytest.raises(StorageFull):
        await driver.write(state, body(b"lost"))


class SlowSync(threading.Event):
    """Syncs take until it is set."""

    begun = 0


@pytest.fixture
def slow_sync(monkeypatch):
    go_on = SlowSync()
    real = os.fdatasync

    def sync(descriptor):
        go_on.begun += 1
        assert go_on.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    yield go_on
    go_on.set()


async def test_a_slow_sync_delays_nobody_else(driver, slow_sync):
    state = await driver.write(await driver.create_upload(new_location()), body(b"slow"))
    completing = asyncio.create_task(driver.complete(state))
    putting = asyncio.create_task(driver.put_small("small", b"slow, too"))
    other = await driver.write(await driver.create_upload(new_location()), body(b"quick"))
    assert other.offset == 5
    assert await locations(driver) == []
    assert not completing.done()
    assert not putting.done()
    slow_sync.set()
    await asyncio.gather(completing, putting)
    assert await locations(driver) == sorted([state.location, "small"])


async def test_a_sync_that_is_too_slow_is_unavailable_and_can_be_repeated(driver, tmp_path, slow_sync):
    state = await driver.write(await driver.create_upload(new_location()), body(b"whole"))
    hasty = FileSystem(tmp_path, time_limit=0.2)
    for action in (hasty.complete(state), hasty.put_small("small", b"small")):
        with pytest.raises(StorageUnavailable, match=r"within 0\.2 s"):
            await action
    assert await locations(driver) == []
    slow_sync.set()
    await driver.complete(state)
    await driver.put_small("small", b"small")
    assert await read(driver, state.location) == b"whole"
    assert await read(driver, "small") == b"small"
    await hasty.close()


async def test_a_missing_root_is_unavailable_and_is_not_made(tmp_path):
    driver = FileSystem(tmp_path / "unmounted")
    for action in (driver.check(), driver.stat(new_location()), locations(driver), upload(driver, b"x")):
        with pytest.raises(StorageUnavailable):
            await action
    assert list(tmp_path.iterdir()) == []
    await driver.close()


async def test_a_system_call_that_hangs_is_unavailable_in_bounded_time(driver, tmp_path):
    state = await driver.create_upload(new_location())
    os.mkfifo(tmp_path / "pipe")  # opening it waits for a writer, as a dead NFS server makes one wait
    driver._time_limit = 0.3
    with pytest.raises(StorageUnavailable):
        await read(driver, "pipe")
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))
    driver._time_limit = 60
    await driver.write(state, body(b"others go on"))


# --- crashes, and many at once ------------------------------------------------------------------------------


KILLED = """
import asyncio, sys
from dtr.storage import FileSystem, new_location

async def endless():
    while True:
        await asyncio.sleep(0.001)
        yield bytes(65536)

async def main():
    driver = FileSystem(sys.argv[1])
    state = await driver.create_upload(new_location())
    upload = asyncio.create_task(driver.write(state, endless()))
    while True:
        location = new_location()
        await driver.put_small(location, location.encode() * 100)
        print(location, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged_and_shows_nothing_half_written(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [process.stdout.readline().strip() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split("\n")[:-1]
    driver = FileSystem(tmp_path)
    found = await locations(driver)
    assert set(acknowledged) <= set(found)
    for location in found:
        assert await read(driver, location) == location.encode() * 100
    await driver.close()


async def test_small_objects_that_arrive_together_share_directory_syncs(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    driver = FileSystem(tmp_path)
    await asyncio.gather(*(driver.put_small(f"day/minute/{i}", b"x" * i) for i in range(200)))
    # Three directories a batch: two batches, when the first had already begun.
    assert 0 < len(synced) <= 30
    assert len(await locations(driver)) == 200
    await driver.close()


@pytest.fixture
def synced(monkeypatch):
    """Which directories were synced, in order."""
    paths = []
    real = os.fsync

    def sync(descriptor):
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return paths


async def finish(driver, location):
    await driver.complete(await driver.write(await driver.create_upload(location), body(b"x")))


async def test_only_a_directory_that_is_new_has_its_name_synced(driver, tmp_path, synced):
    await finish(driver, "day/minute/1")
    assert synced == [f"{tmp_path}/day/minute", f"{tmp_path}/day", f"{tmp_path}"]
    synced.clear()
    await finish(driver, "day/minute/2")
    await driver.put_small("day/minute/3", b"x")
    assert synced == [f"{tmp_path}/day/minute"] * 2
    synced.clear()
    await finish(driver, "day/next/4")
    assert synced == [f"{tmp_path}/day/next", f"{tmp_path}/day"]


async def test_a_directory_that_was_removed_and_made_again_is_new(driver, tmp_path, synced):
    for _ in range(3):
        await finish(driver, "day/minute/1")
        assert synced == [f"{tmp_path}/day/minute", f"{tmp_path}/day", f"{tmp_path}"]
        synced.clear()
        await driver.delete("day/minute/1")
        assert list(tmp_path.iterdir()) == []


async def test_where_other_hosts_make_directories_all_are_synced_each_time(driver, tmp_path, synced, monkeypatch):
    monkeypatch.setattr("dtr.storage.filesystem.is_local", lambda device: False)
    for name in ("1", "2"):
        await finish(driver, f"day/minute/{name}")
        assert synced == [f"{tmp_path}/day/minute", f"{tmp_path}/day", f"{tmp_path}"]
        synced.clear()


async def test_a_directory_whose_name_could_not_be_synced_is_not_taken_for_durable(
    driver, tmp_path, synced, monkeypatch
):
    noting = os.fsync

    def fail_at_day(descriptor):
        noting(descriptor)
        if synced[-1] == f"{tmp_path}/day":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail_at_day)
        with pytest.raises(StorageUnavailable):
            await finish(driver, "day/minute/1")
    synced.clear()
    await finish(driver, "day/minute/2")
    assert synced == [f"{tmp_path}/day/minute", f"{tmp_path}/day", f"{tmp_path}"]


async def test_few_descriptors_of_directories_are_kept_and_none_in_the_end(tmp_path):
    def count():
        opened = 0
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the one that lists them
                opened += str(entry.readlink()).startswith(f"{tmp_path}")
        return opened

    driver = FileSystem(tmp_path)
    for minute in range(40):
        await finish(driver, f"day/{minute}/1")
    assert 0 < count() <= 10
    await driver.close()
    assert count() == 0


async def test_one_failed_small_object_does_not_fail_its_batch(tmp_path):
    driver = FileSystem(tmp_path)
    await driver.put_small("file", b"")
    results = await asyncio.gather(
        driver.put_small("good", b"1"),
        driver.put_small("file/below", b"2"),
        driver.put_small("fine", b"3"),
        return_exceptions=True,
    )
    assert [isinstance(result, StorageError) for result in results] == [False, True, False]
    assert await locations(driver) == ["file", "fine", "good"]
    await driver.close()
