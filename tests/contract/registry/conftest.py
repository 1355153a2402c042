"""Rooms over every combination of database and storage that a test asks for."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.disk import SmallDisk, small_disk
from tests.support.rooms import Rooms
from tests.support.s3 import ACCESS_KEY, SECRET_KEY

from dtr.db import open_database
from dtr.db.migrate import migrate
from dtr.db.schema import metadata
from dtr.storage import S3, Driver, FileSystem, Memory, S3Settings


class SharedFiles(FileSystem):
    """Files as on a mount that other hosts have, too."""

    def _is_local(self, device: int) -> bool:
        return False


def storage_opener(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Driver]:
    """A function that opens the storage once more, as another process would."""
    if kind == "memory":
        shared = Memory()
        return lambda: Memory(shared)
    if kind in {"filesystem", "shared files", "small disk"}:
        if kind == "small disk":
            request.getfixturevalue("disk")
        root = tmp_path / "disk" / "blobs"
        root.mkdir(parents=True)
        return lambda: SharedFiles(root) if kind == "shared files" else FileSystem(root)
    server = request.getfixturevalue("s3_server")
    settings = S3Settings(
        bucket="blobs",
        endpoint=server.endpoint,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        root_directory=tmp_path.name,
        path_style=True,
    )
    return lambda: S3(settings)


@pytest.fixture
def fresh_database_urls(tmp_path: Path, postgresql_cluster: Any) -> Callable[[str], str]:
    """A function that gives, to tests without a loop of their own, the address of an empty database of a kind."""
    made: dict[str, str] = {}

    def fresh(kind: str) -> str:
        url = made.get(kind)
        if url is None:
            url = f"sqlite:///{tmp_path}/template.db" if kind == "sqlite" else postgresql_cluster.create()
            asyncio.run(_migrate(url))
            made[kind] = url
        elif kind == "postgresql":
            asyncio.run(_empty(url))
        if kind == "sqlite":
            copy = tmp_path / f"{uuid.uuid4().hex}.db"
            shutil.copyfile(url.removeprefix("sqlite:///"), copy)
            return f"sqlite:///{copy}"
        return url

    return fresh


async def _empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    names = [table.name for table in reversed(metadata.sorted_tables)]
    await connection.execute(";".join(f"DELETE FROM {name}" for name in names))
    await connection.close()


async def _migrate(url: str) -> None:
    database = open_database(url)
    await migrate(database, url)
    await database.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 8 MiB, below the storage "small disk"."""
    with small_disk(tmp_path / "disk", mib=8) as made:
        yield made


@pytest.fixture
async def make_rooms(
    database_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Callable[..., Rooms]]:
    """A function that makes rooms over an empty database and an empty storage; both databases."""
    made: list[Rooms] = []

    def make(kind: str = "memory", **options: Any) -> Rooms:
        rooms = Rooms(database_url, storage_opener(kind, request, tmp_path), **options)
        made.append(rooms)
        return rooms

    yield make
    for rooms in made:
        await rooms.close()


@pytest.fixture
def rooms(make_rooms: Callable[..., Rooms]) -> Rooms:
    """Rooms over memory, on both databases."""
    return make_rooms()


@pytest.fixture(params=["memory", "filesystem"])
def stored(request: pytest.FixtureRequest, make_rooms: Callable[..., Rooms]) -> Rooms:
    """Rooms over memory and over files, on both databases."""
    return make_rooms(request.param)
