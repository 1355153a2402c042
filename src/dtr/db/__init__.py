"""
The metadata database: connections, units of work, tables and their migrations.

`open_database` gives a `Database`; `Statement` is what it runs. What the rows mean is known elsewhere.
"""

from __future__ import annotations

from dtr.db.database import Database, Reader, Transaction
from dtr.db.each import each, each_row, in_rows
from dtr.db.errors import (
    ConstraintViolated,
    DatabaseBusy,
    DatabaseError,
    DatabaseFull,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaNewer,
    SchemaOutdated,
)
from dtr.db.statement import Row, Statement, array_of, in_list, in_query, now, read_array

__all__ = [
    "ConstraintViolated",
    "Database",
    "DatabaseBusy",
    "DatabaseError",
    "DatabaseFull",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "Reader",
    "Row",
    "SchemaNewer",
    "SchemaOutdated",
    "Statement",
    "Transaction",
    "array_of",
    "each",
    "each_row",
    "in_list",
    "in_query",
    "in_rows",
    "now",
    "open_database",
    "read_array",
]


def open_database(url: str, *, size: int = 10) -> Database:
    """
    The database at ``sqlite:///path`` or ``postgresql://user:password@host,host/name``.

    `size` bounds the connections to PostgreSQL. Raises ValueError for another kind of address, DatabaseError.
    """
    if url.startswith("sqlite:///"):
        from pathlib import Path

        from dtr.db.sqlite import SQLite

        return SQLite(Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        from dtr.db.postgresql import PostgreSQL

        return PostgreSQL(url, size=size)
    raise ValueError("a database address begins with sqlite:/// or postgresql://")
