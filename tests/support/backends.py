"""Servers on each combination of database and storage that tests of the interfaces run on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from tests.support.server import Server

from dtr.app import Application
from dtr.oci import parse_repository_name
from dtr.registry import Settings

BACKENDS = ("sqlite", "postgresql", "s3")
"""The embedded default; PostgreSQL with files; SQLite with blobs in S3."""


@contextmanager
def run_server(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    settings: Mapping[str, object] | None = None,
    *,
    workers: int = 1,
) -> Iterator[Server]:
    """A running server of this kind, with databases and buckets of the session's servers."""
    given = dict(settings or {})
    if kind == "postgresql":
        given["database.url"] = request.getfixturevalue("postgresql_cluster").create(tables=True)
    if kind == "s3":
        given |= request.getfixturevalue("s3_server").settings | {"storage.s3.prefix": f"{uuid.uuid4().hex}/"}
    server = Server(tmp_path_factory.mktemp(kind) / "dtr", given, workers=workers)
    if kind == "postgresql":
        server.directory.mkdir()
    try:
        yield server.start()
    finally:
        server.close()


_POOL = 100
_spare: dict[str, list[str]] = {}


def new_repository(server: Server, **settings: object) -> str:
    """
    The path of a new repository of the administrator, private unless `settings` say otherwise.

    Plain ones are made in advance, many at a time: that is quicker.
    """
    if settings:
        path = f"admin/r{uuid.uuid4().hex[:12]}"
        server.make_repository(path, **settings)
        return path
    spare = _spare.setdefault(str(server.directory), [])
    if not spare:
        spare += [f"admin/r{uuid.uuid4().hex[:12]}" for _ in range(_POOL)]

        async def make(application: Application) -> None:
            for one in spare:
                await application.repositories.create(parse_repository_name(one), Settings())

        server.do(make)
    return spare.pop()
