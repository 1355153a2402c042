"""What every test may ask for: empty databases with current tables, on both systems, and running servers."""

from __future__ import annotations

import asyncio
import collections
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import settings
from tests.support.azurite import AzureServer, run_azure_server
from tests.support.forks import run_dtr
from tests.support.gcs import GCSServer, run_gcs_server
from tests.support.ports import free_port
from tests.support.s3 import S3Server, run_s3_server
from tests.support.server import Server, clean_environment
from tests.support.swift import SwiftServer, run_swift_server

from dtr.db import Database, open_database
from dtr.db.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from playwright.sync_api import Browser


# Nothing takes a certain time: an example may wait for the processor, and so may the making of it.
settings.register_profile("dtr", deadline=None)
settings.load_profile("dtr")

_MOST_USES = 50
"""Of one database: what was deleted in it stays in its files."""
_LEAVE_IT_ALONE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_FILLED = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    AND relname <> 'alembic_version' AND pg_relation_size(oid) > 0
"""
_SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL"
_SHAPE = """
    SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
           (SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE c.relnamespace = 'public'::regnamespace AND NOT a.attisdropped),
           (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_trigger),
           (SELECT count(*) FROM pg_statistic s JOIN pg_class c ON c.oid = s.starelid
            WHERE c.relnamespace = 'public'::regnamespace),
           (SELECT string_agg(version_num, ',') FROM alembic_version),
           (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
            WHERE d.datname = current_database()),
           pg_database_size(current_database()) / 30000000
"""


class Cluster:
    """A PostgreSQL server of the tests' own, on loopback, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        newest = max(Path("/usr/lib/postgresql").iterdir(), key=lambda one: int(one.name))
        self._bin = newest / "bin"
        self.directory = directory
        self.port = free_port()
        self._template = ""
        self._clean: list[str] = []
        self._uses: collections.Counter[str] = collections.Counter()
        self._shape: tuple[Any, ...] | None = None

    def start(self) -> None:
        data = self.directory / "data"
        if not data.exists():
            self.directory.chmod(0o755)
            if os.getuid() == 0:
                shutil.chown(self.directory, "postgres", "postgres")
            self._run(
                "initdb",
                "-D",
                str(data),
                "-U",
                "dtr",
                "--auth=trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            )
        self._server = subprocess.Popen(
            [
                *self._as_postgres(), f"{self._bin}/postgres", "-D", str(data), "-p", str(self.port),
                "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}",
                "-c", "max_connections=200", "-c", "fsync=off", "-c", "full_page_writes=off",
                # Its launcher would look at a thousand databases once a minute.
                "-c", "autovacuum=off",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while subprocess.run(
            [f"{self._bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert self._server.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL did not become ready"
            time.sleep(0.05)

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends the connections, `immediate` is a crash."""
        # By a signal: pg_ctl needs the path, and another run of pytest may have closed its parents again.
        self._server.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self._server.wait(120)

    def create(self, *, tables: bool = False) -> str:
        """A new empty database, with current tables or without; its address."""
        name = f"t{uuid.uuid4().hex}"
        if not tables:
            self._create(name)
            return self.url(name)
        if not self._template:
            template = f"t{uuid.uuid4().hex}"  # one that could not be made hinders no other
            self._create(template)
            run_dtr(["migrate"], {**clean_environment(), "DTR_DATABASE__URL": self.url(template)})
            self._template = template
        self._create(name, "-T", self._template)
        return self.url(name)

    def lend(self) -> str:
        """An empty database with current tables, for one test; its address."""
        return self._clean.pop() if self._clean else self.create(tables=True)

    async def take_back(self, url: str) -> None:
        """Empty it for another test: that costs a tenth of a new one. What a test did more to, is left alone."""
        name = url.rpartition("/")[2]
        self._uses[name] += 1
        try:
            shape = await _empty(url)
            # Not that of the first one that comes back: a test may have made tables of its own in it.
            self._shape = self._shape or await _empty(self.url(self._template))
        except (asyncpg.PostgresError, OSError):  # the server does not take it any more
            return
        if shape == self._shape and self._uses[name] < _MOST_USES:
            self._clean.append(url)

    def _create(self, name: str, *options: str) -> None:
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "dtr", *options, name)

    def url(self, name: str) -> str:
        return f"postgresql://dtr@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_postgres(), f"{self._bin}/{program}", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )

    @staticmethod
    def _as_postgres() -> list[str]:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []


async def _empty(url: str) -> tuple[Any, ...]:
    """Delete all rows of a database; what it looks like."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(60):
            while await connection.fetchval(_LEAVE_IT_ALONE):  # until they have gone: one may be in its commit
                await asyncio.sleep(0.005)
        await connection.execute("SET lock_timeout = '5s'; SET session_replication_role = replica")
        for (table,) in await connection.fetch(_FILLED):
            await connection.execute(f'DELETE FROM "{table}"')
        for (sequence,) in await connection.fetch(_SEQUENCES):
            await connection.execute(f'ALTER SEQUENCE "{sequence}" RESTART')
        return tuple(await connection.fetchrow(_SHAPE))
    finally:
        await connection.close()


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    # Not below pytest's own directory, whose mode every session sets back: the server is not root.
    with tempfile.TemporaryDirectory(prefix="dtr-postgresql-") as directory:
        cluster = Cluster(Path(directory))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster]:
    """A running PostgreSQL server."""
    with run_cluster() as running:
        yield running


@pytest.fixture
def own_postgresql() -> Iterator[Cluster]:
    """A running PostgreSQL server that the test may stop and start."""
    with run_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {}


@pytest.fixture
async def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], object]:
    """A function that makes an empty database, without tables, of the given kind, and gives its address."""

    async def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.db"
        cluster: Cluster = request.getfixturevalue("postgresql_cluster")
        name = f"t{uuid.uuid4().hex}"
        await _execute(cluster.url("postgres"), f"CREATE DATABASE {name}")
        return cluster.url(name)

    return make


@pytest.fixture
async def make_database_url(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    _templates: dict[str, str],
) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """A function that makes an empty database with current tables, of the given kind, and gives its address."""

    async def make(kind: str) -> str:
        if kind == "sqlite":
            if kind not in _templates:
                template = tmp_path_factory.mktemp("sqlite") / "template.db"
                await _migrate(f"sqlite:///{template}")
                _templates[kind] = str(template)
            copy = tmp_path / "metadata.db"
            shutil.copyfile(_templates[kind], copy)
            return f"sqlite:///{copy}"
        cluster: Cluster = request.getfixturevalue("postgresql_cluster")
        lent.append((cluster, cluster.lend()))
        return lent[-1][1]

    lent: list[tuple[Cluster, str]] = []
    yield make
    for cluster, url in lent:
        await cluster.take_back(url)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, make_database_url: Callable[[str], Awaitable[str]]) -> str:
    """The address of an empty database with current tables; each test runs on SQLite and on PostgreSQL."""
    return await make_database_url(request.param)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, empty database with current tables; each test runs on SQLite and on PostgreSQL."""
    opened = open_database(database_url)
    yield opened
    await opened.close()


async def _migrate(url: str) -> None:
    database = open_database(url)
    await migrate(database, url)
    await database.close()


async def _execute(url: str, command: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(command)
    await connection.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    """A running Swift."""
    with run_swift_server(tmp_path_factory.mktemp("swift")) as running:
        yield running


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """A running server that stands for Microsoft Azure."""
    with run_azure_server(tmp_path_factory.mktemp("azure")) as running:
        yield running


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GCSServer]:
    """A running server that stands for Google Cloud Storage."""
    with run_gcs_server(tmp_path_factory.mktemp("gcs")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running browser, for the tests of a module, none of which has an event loop of its own."""
    from tests.support.chromium import run_chromium

    with run_chromium() as running:
        yield running


@pytest.fixture
def make_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts a server on data of its own: ``make_server(settings, workers=1)``."""
    made: list[Server] = []

    def make(
        settings: Mapping[str, object] | None = None,
        *,
        workers: int = 1,
        database: str = "sqlite",
        start: bool = True,
        makes_tables: bool = False,
    ) -> Server:
        given = dict(settings or {})
        if database == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgresql_cluster")
            given["database.url"] = cluster.create(tables=True)
        server = Server(tmp_path / f"dtr{len(made)}", given, workers=workers, makes_tables=makes_tables)
        made.append(server)
        if database == "postgresql":
            server.directory.mkdir()
        return server.start() if start else server

    yield make
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of a module share, on its embedded default with two workers."""
    shared = Server(tmp_path_factory.mktemp("shared") / "dtr", workers=2).start()
    yield shared
    shared.close()
