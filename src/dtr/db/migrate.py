"""
Bringing the tables up to date, with Alembic.

The revisions are in `dtr.db.migrations`. `HEAD` names the newest, so that a start on current tables compares
two strings and need not load Alembic.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from dtr.db.errors import SchemaNewer, SchemaOutdated
from dtr.db.statement import Statement
from dtr.db.texts import POSTGRESQL_TEXTS

if TYPE_CHECKING:
    from alembic.config import Config

    from dtr.db.database import Database, Transaction

HEAD = "0001"
# Hosts that start together wait for each other here; the lock goes with the transaction.
_LOCK = Statement(lambda: text("SELECT pg_advisory_xact_lock(hashtext('dtr migrations'))"))
_TEXTS = Statement(lambda: text(POSTGRESQL_TEXTS))


async def check(database: Database) -> None:
    """Raise SchemaOutdated or SchemaNewer when the tables are not those of this version."""
    revision = await database.revision()
    if revision == HEAD:
        return
    if revision is None or revision in known_revisions():
        raise SchemaOutdated(
            f"the tables are of revision {revision}, this version needs {HEAD}: run `dtr migrate`"
        )
    raise SchemaNewer(
        f"the data is of a newer version (its tables are of revision {revision}, this version knows {HEAD}): "
        "start the version that wrote it, or restore a backup"
    )


async def migrate(database: Database, url: str) -> None:
    """Bring the tables at `url` up to date; `database` is the same, open. Raises SchemaNewer."""
    try:
        await check(database)
    except SchemaOutdated:
        await _upgrade(url)
    if database.dialect == "postgresql":
        await database.unit(_make_texts)


async def _make_texts(tx: Transaction) -> None:
    await tx.fetch_all(_LOCK)
    await tx.fetch_all(_TEXTS)


def known_revisions() -> list[str]:
    """The revisions that this version knows, newest first."""
    from alembic.script import ScriptDirectory

    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]


def config() -> Config:
    """Alembic's configuration."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(resources.files("dtr.db") / "migrations"))
    made.set_main_option("path_separator", "os")
    return made


async def _upgrade(url: str) -> None:
    if url.startswith("sqlite"):
        import asyncio

        await asyncio.to_thread(_upgrade_sqlite, url.removeprefix("sqlite:///"))
        return
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from dtr.db.postgresql import Hosts

    engine = create_async_engine("postgresql+asyncpg://", async_creator=Hosts(url).connect, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.execute(text(_LOCK.text("postgresql")))
        await connection.run_sync(_run)
    await engine.dispose()


def _upgrade_sqlite(path: str) -> None:
    import sqlite3

    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    # Left to itself, the driver begins no transaction for a change of tables.
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        _run(connection)


def _run(connection: Any) -> None:
    from alembic import command

    alembic = config()
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, "head")
