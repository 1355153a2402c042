"""The revisions give the tables that the program uses, and nothing newer is touched."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text

from dtr.db import SchemaNewer, SchemaOutdated, open_database
from dtr.db.migrate import HEAD, check, known_revisions, migrate


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
