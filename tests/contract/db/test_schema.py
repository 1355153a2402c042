"""The tables: those that the revisions make are those that the program knows, and are written down here."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tests.support.schema import dump_postgresql, dump_sqlite

from dtr.db.postgresql import Hosts
from dtr.db.schema import metadata

DIALECTS = ["sqlite", "postgresql"]
RENEW = "RENEW_SCHEMA"


async def run(url: str, action):
    """What `action` gives on a connection of SQLAlchemy; committed."""
    if url.startswith("sqlite"):
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            return action(connection)
    async_engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=Hosts(url).connect, poolclass=NullPool
    )
    async with async_engine.begin() as connection:
        return await connection.run_sync(action)


async def dump(url: str) -> str:
    if url.startswith("sqlite"):
        return dump_sqlite(Path(url.removeprefix("sqlite:///")))
    return await dump_postgresql(url)


@pytest.mark.parametrize("kind", DIALECTS)
async def test_nothing_is_left_to_migrate(kind: str, make_database_url):
    url = await make_database_url(kind)
    options = {"include_object": is_compared}
    left = await run(url, lambda one: compare_metadata(MigrationContext.configure(one, opts=options), metadata))
    assert left == []


def is_compared(_item, name: str, kind: str, *_) -> bool:
    """What Alembic does not know: indexes of texts, and computed columns."""
    return "_texts" not in name and (kind, name) != ("column", "name")


def words(text: str) -> dict[str, list[str]]:
    """The words of each statement by its first line: Alembic orders the constraints of a table in its own way."""
    statements = text.split("\n\n")
    return {one.partition("\n")[0]: sorted(re.findall(r"[\w.]+", one)) for one in statements}


@pytest.mark.parametrize("kind", DIALECTS)
async def test_the_migrated_tables_are_those_of_the_metadata(kind: str, make_database_url, empty_database_url):
    migrated = words(await dump(await make_database_url(kind)))
    made_url = await empty_database_url(kind)
    await run(made_url, metadata.create_all)
    made = words(await dump(made_url))
    for statement in set(migrated) - set(made):
        assert "alembic_version" in statement
        del migrated[statement]
    assert migrated == made


@pytest.mark.parametrize("kind", DIALECTS)
async def test_the_tables_are_those_that_are_written_down(kind: str, make_database_url):
    path = Path(__file__).with_name(f"schema-{kind}.sql")
    actual = await dump(await make_database_url(kind))
    if RENEW in os.environ:
        path.write_text(actual)
    expected = path.read_text()
    difference = difflib.unified_diff(
        expected.splitlines(), actual.splitlines(), path.name, "database", lineterm=""
    )
    assert actual == expected, (
        "\n".join(difference) + f"\nif that is meant: {RENEW}=1 pytest {Path(__file__).name} writes it down anew"
    )
