"""What was acknowledged survives the sudden death of every process; what was not is nowhere half visible."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.client import Client
from tests.support.commands import Commands
from tests.support.invariants import find_violations
from tests.support.pusher import Pusher, end_leases, pushing
from tests.support.s3 import S3Server
from tests.support.server import Server, wait_for_end
from tests.support.wire import wait_until

from dtr.app import Application
from dtr.db import Statement

pytestmark = pytest.mark.e2e

CLIENTS = 4


def make_pushers(server: Server, seed: int, **how: Any) -> list[Pusher]:
    pushers: list[Pusher] = []
    for number in range(CLIENTS):
        server.make_repository(f"admin/r{number}")
        pushers.append(Pusher(server, f"admin/r{number}", f"{seed}/{number}", others=pushers, **how))
    return pushers


def find_damage(server: Server) -> list[str]:
    """What breaks a rule in database and storage."""
    return server.do(lambda application: find_violations(application.database, application.storage))


def find_unknown_files(server: Server) -> list[str]:
    """Unfinished files that no row names: nobody would ever delete them."""

    async def find(application: Application) -> list[str]:
        tables = ("uploads", "blobs", "gc_objects")
        query = " UNION ".join(f"SELECT location FROM {table}" for table in tables)
        known = {row[0] for row in await application.database.fetch_all(Statement(text(query)))}
        root = server.directory / "blobs"
        files = [f"default:{path.relative_to(root)}" for path in root.rglob("*.part")]
        return [name for name in files if name.removesuffix(".part") not in known]

    return server.do(find)


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("DTR_TEST_SEED") or random.randrange(2**32))
    print(f"DTR_TEST_SEED={chosen} repeats the choices")
    return chosen


@pytest.mark.parametrize(
    ("database", "storage", "rounds"),
    [("sqlite", "filesystem", 12), ("postgresql", "filesystem", 12), ("sqlite", "s3", 4), ("postgresql", "s3", 4)],
)
def test_nothing_acknowledged_is_lost_when_all_processes_are_killed_at_random_moments(
    make_server: Callable[..., Server],
    request: pytest.FixtureRequest,
    seed: int,
    database: str,
    storage: str,
    rounds: int,
) -> None:
    settings: dict[str, Any] = {}
    if storage == "s3":
        s3: S3Server = request.getfixturevalue("s3_server")
        settings = {**s3.settings, "storage.s3.prefix": f"kill-{database}"}
    server = make_server(settings, database=database, workers=2)
    pushers = make_pushers(server, seed)
    moments = random.Random(seed)
    for _ in range(rounds):
        with pushing(pushers, until_lost=True) as wait_for:
            wait_for(moments.randrange(3, 30))
            time.sleep(moments.uniform(0, 0.05))  # the moment, not a wait for something
            server.kill()
        server.start()
        end_leases(server)
        client = Client(server)
        for pusher in pushers:
            pusher.check(client)
        client.close()
    # They go on with what was interrupted last, and everything together is whole.
    lost = [pusher.lost for pusher in pushers]
    with pushing(pushers) as wait_for:
        wait_for(20)
    assert [pusher.lost for pusher in pushers] == lost
    assert sum(pusher.ledger.resumed for pusher in pushers) > 0
    assert any(pusher.ledger.tags for pusher in pushers)
    check_everything(server, pushers)
    assert find_unknown_files(server) == []


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_clients_of_one_worker_are_not_disturbed_by_the_death_of_the_other(
    make_server: Callable[..., Server], seed: int, database: str
) -> None:
    server = make_server(database=database, workers=2)
    pushers = make_pushers(server, seed)
    for round_ in range(2):
        for pusher in pushers:
            pusher.client.call("GET", "/v2/").expect(200)  # it has a connection
        workers = [server.worker_of(pusher.client.local_port) for pusher in pushers]
        victim = workers[round_]
        before = [pusher.lost for pusher in pushers]
        with pushing(pushers) as wait_for:
            wait_for(5)
            os.kill(victim, signal.SIGKILL)
            wait_for_end(victim)
            wait_for(20)  # all go on
        for pusher, worker, lost in zip(pushers, workers, before, strict=True):
            assert pusher.lost == lost or worker == victim
        # A process that has ended is a child until its parent has noticed.
        wait_until(lambda gone=victim: len(set(server.worker_pids) - {gone}) == 2)
    check_everything(server, pushers)


def test_nothing_acknowledged_is_lost_when_postgresql_crashes(
    make_server: Callable[..., Server], own_postgresql: Any, seed: int
) -> None:
    server = make_server({"database.url": own_postgresql.create()}, workers=2, start=False)
    server.cli("migrate")
    server.start()
    # How far an upload came is not synced: PostgreSQL may lose the last of it, and no client loses more than that.
    pushers = make_pushers(server, seed, patient=True, forgiving=True)
    for _ in range(3):
        with pushing(pushers) as wait_for:
            wait_for(10)
            own_postgresql.stop("immediate")
            client = Client(server)
            refused = client.send("GET", "/auth/token", headers={"Authorization": client.basic()}).expect(503)
            assert "retry-after" in refused.headers
            own_postgresql.start()
            wait_for(10)
        client = Client(server)
        for pusher in pushers:
            pusher.check(client)
        client.close()
    assert [pusher.lost for pusher in pushers] == [0] * CLIENTS  # the connections to the clients stay
    assert server.log.count("worker failed") == 0
    check_everything(server, pushers, forgetful=True)


def check_everything(server: Server, pushers: list[Pusher], *, forgetful: bool = False) -> None:
    """`forgetful`: rows of uploads may be lost, not their bytes; a later day's audit finds what stayed."""
    client = Client(server)
    for pusher in pushers:
        pusher.check(client, everything=True)
    commands = Commands(server)
    assert "; 0 damaged" in commands("fsck", "--content")
    assert server.stop() == 0
    if forgetful:
        grow_old(server.directory / "blobs")
        assert "; 0 damaged" in commands("fsck", "--repair")
        assert find_unknown_files(server) == []
    assert find_damage(server) == []


def grow_old(directory: Path) -> None:
    """Let two days pass for the files: what is younger than one, the audit leaves alone."""
    then = time.time() - 2 * 24 * 3600
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
