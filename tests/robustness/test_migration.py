"""Blobs move from store to store while clients push and pull, and every process is killed: nothing is lost."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from tests.support.azurite import AzureServer
from tests.support.client import Client
from tests.support.commands import Commands
from tests.support.invariants import find_violations
from tests.support.pusher import Pusher, end_leases, pushing
from tests.support.s3 import S3Server
from tests.support.server import Server

from dtr.app import Application

pytestmark = pytest.mark.e2e

CLIENTS = 1
BLOBS = int(os.environ.get("DTR_TEST_MIGRATION_BLOBS", "40"))
"""There are so many before the first migration; a long proof says more."""
SIZE, LARGE = 300_000, 12_000_000
_ORDER = ("s3", "azure", "files")


def describe(server: Server, name: str, settings: dict[str, str]) -> None:
    driver, secrets = settings["storage.driver"], {"secret_key", "account_key"}
    arguments = ["storage", "set", name, "--driver", driver]
    for key, value in settings.items():
        parameter = key.removeprefix(f"storage.{driver}.")
        if parameter == key:
            continue
        if parameter in secrets:
            file = server.directory.with_name(f"{name}.{parameter}")
            file.write_text(value)
            value = f"@{file}"  # noqa: PLW2901 - the secret itself is no argument
        arguments.append(f"{parameter}={value}")
    server.cli(*arguments)


def ask(server: Server, sql: str, *values: str) -> int:
    """A number from the database, past the program."""
    with closing(sqlite3.connect(server.directory / "metadata.db", timeout=30)) as connection, connection:
        row = connection.execute(sql, values).fetchone()
    return int(row[0]) if row else 0


def left_at(server: Server, storage: str) -> int:
    between = "SELECT count(*) FROM blobs WHERE location >= ? AND location < ?"
    return ask(server, between, f"{storage}:", f"{storage};")


def wait_for_jobs(server: Server, number: int) -> None:
    deadline = time.monotonic() + 90
    while ask(server, "SELECT count(*) FROM jobs WHERE action = 'storage_migrate' AND status = 'done'") < number:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.1)


async def find_damage(application: Application) -> list[str]:
    """What breaks a rule in the database and all storages."""
    await application.backends.refresh()
    assert application.storage.names == ("azure", "default", "files", "s3")
    return await find_violations(application.database, application.storage)


def pull(client: Client, pushers: list[Pusher], choices: random.Random) -> None:
    """Some of what was acknowledged."""
    for pusher in pushers:
        blobs = dict(pusher.ledger.blobs)
        for digest in choices.sample(sorted(blobs), min(20, len(blobs))):
            assert client.get_blob(pusher.repository, digest).expect(200).body == blobs[digest]


def test_files_to_s3_to_azure_to_files(
    make_server: Callable[..., Server], s3_server: S3Server, azure_server: AzureServer
) -> None:
    seed = int(os.environ.get("DTR_TEST_SEED") or random.randrange(2**32))
    print(f"DTR_TEST_SEED={seed} repeats the choices")
    server = make_server({"registry.delete_delay_seconds": 3600}, workers=2)
    places: dict[str, dict[str, str]] = {
        "s3": {**s3_server.settings, "storage.s3.prefix": "migration"},
        "azure": {**azure_server.settings, "storage.azure.prefix": "migration"},
        "files": {"storage.driver": "filesystem", "storage.filesystem.root": str(server.directory / "again")},
    }
    (server.directory / "again").mkdir()
    for name, settings in places.items():
        describe(server, name, settings)
    pushers: list[Pusher] = []
    for number in range(CLIENTS):
        server.make_repository(f"admin/r{number}")
        pushers.append(Pusher(server, f"admin/r{number}", f"{seed}/{number}", others=pushers))
    contents = random.Random(seed)
    for _ in range(BLOBS):
        pushers[0].put(contents.randbytes(SIZE))
    pushers[0].put(contents.randbytes(LARGE))
    before = "default"
    for number, target in enumerate(_ORDER, start=1):
        rate = str(BLOBS * SIZE // 2)
        with pushing(pushers, until_lost=True) as wait_for:
            wait_for(contents.randrange(5, 20))
            many = left_at(server, before)
            assert many >= BLOBS
            server.cli("storage", "migrate", "--from", before, "--to", target, "--rate", rate, "--detach")
            deadline = time.monotonic() + 60
            while not 0 < left_at(server, before) < many - BLOBS // 4:
                assert time.monotonic() < deadline, server.log
                time.sleep(0.01)
            server.kill()  # in the middle of it
        assert left_at(server, before) > 0
        # The time passes after which a worker is dead, and an upload of which no client has heard not waited for.
        ask(server, "UPDATE workers SET heartbeat_until = 0")
        ask(server, "UPDATE uploads SET expires_at = expires_at - 120000")
        server.start()
        end_leases(server)
        client = Client(server)
        for pusher in pushers:
            pusher.check(client)
        with pushing(pushers) as wait_for:
            pull(client, pushers, contents)
            wait_for(10)
            wait_for_jobs(server, number)
            pull(client, pushers, contents)
        client.close()
        assert left_at(server, before) == 0
        before = target
    client = Client(server)
    for pusher in pushers:
        pusher.check(client, everything=True)
    client.close()
    assert "; 0 damaged" in Commands(server)("fsck", "--content")
    assert server.stop() == 0
    assert server.do(find_damage) == []
