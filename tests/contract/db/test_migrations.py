"""The revisions give the tables that the program uses, and nothing newer is touched."""

from __future__ import annotations

import re

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from dtr.db import SchemaNewer, SchemaOutdated, open_database
from dtr.db.migrate import HEAD, check, known_revisions, migrate
from dtr.db.schema import metadata


def test_head_is_the_newest_revision():
    assert known_revisions()[0] == HEAD


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_migrating_twice_is_migrating_once(kind: str, empty_database_url):
    url = await empty_database_url(kind)
    database = open_database(url)
    assert await database.revision() is None
    with pytest.raises(SchemaOutdated):
        await check(database)
    await migrate(database, url)
    await migrate(database, url)
    await check(database)
    await database.close()


async def test_the_migrated_tables_are_those_of_the_schema(empty_database_url):
    url = await empty_database_url("sqlite")
    database = open_database(url)
    await migrate(database, url)
    await database.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = {
            row[0]: row[1]
            for row in connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        }
    engine.dispose()
    fresh = create_engine("sqlite://")
    metadata.create_all(fresh)
    with fresh.connect() as connection:
        for name, sql in connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")):
            # Alembic orders the constraints of a table in its own way.
            assert sorted(re.findall(r"\w+", made[name])) == sorted(re.findall(r"\w+", sql)), name
    fresh.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_data_of_a_newer_version_is_refused(kind: str, empty_database_url):
    url = await empty_database_url(kind)
    database = open_database(url)
    await migrate(database, url)
    await database.close()
    if kind == "sqlite":
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
    else:
        import asyncpg

        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await connection.close()
    database = open_database(url)
    with pytest.raises(SchemaNewer, match="newer version"):
        await migrate(database, url)
    await database.close()
