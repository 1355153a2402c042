"""
Looking for parts of words: what the two databases have for it, and what they are given.

SQLite has a table of texts, which triggers keep equal to the repositories. PostgreSQL has an extension, pg_trgm,
which comes with it, but must be made in the database: where the role may not, searching walks over all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import BigInteger, ColumnElement, Text, bindparam, literal_column, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from dtr.db.statement import Statement

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

SQLITE_TEXTS = (
    "CREATE VIRTUAL TABLE repository_texts USING fts5(path, folded, tokenize = 'trigram')",
    """
    CREATE TRIGGER repository_texts_insert AFTER INSERT ON repositories WHEN new.deleted_at IS NULL BEGIN
        INSERT INTO repository_texts (rowid, path, folded)
        VALUES (iif(new.visibility = 'public', -new.id, new.id), new.path, new.folded);
    END
    """,
    """
    CREATE TRIGGER repository_texts_update AFTER UPDATE ON repositories
    WHEN old.path <> new.path OR old.folded <> new.folded OR old.visibility <> new.visibility
        OR (old.deleted_at IS NULL) <> (new.deleted_at IS NULL)
    BEGIN
        DELETE FROM repository_texts WHERE rowid IN (old.id, -old.id);
        INSERT INTO repository_texts (rowid, path, folded)
        SELECT iif(new.visibility = 'public', -new.id, new.id), new.path, new.folded WHERE new.deleted_at IS NULL;
    END
    """,
    """
    CREATE TRIGGER repository_texts_delete AFTER DELETE ON repositories BEGIN
        DELETE FROM repository_texts WHERE rowid IN (old.id, -old.id);
    END
    """,
)
POSTGRESQL_TEXTS = """
DO $$ BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX IF NOT EXISTS ix_repositories_texts_public ON repositories
        USING gin (path gin_trgm_ops, folded gin_trgm_ops) WHERE deleted_at IS NULL AND visibility = 'public';
    CREATE INDEX IF NOT EXISTS ix_repositories_texts_private ON repositories
        USING gin (path gin_trgm_ops, folded gin_trgm_ops) WHERE deleted_at IS NULL AND visibility = 'private';
    CREATE INDEX IF NOT EXISTS ix_accounts_texts ON accounts USING gin (folded gin_trgm_ops);
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    NULL;
END $$
"""
"""May be run again, when the extension can be made at last."""
HAS_TEXTS = Statement(lambda: text("SELECT 1 WHERE to_regclass('ix_repositories_texts_public') IS NOT NULL"))
"""Whether PostgreSQL has the indexes: a row, or none."""


class behind_slash(FunctionElement[str]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """What of a column stands behind its first slash."""

    type = Text()
    inherit_cache = True

    def __init__(self, column: str) -> None:
        """Take the column of this name."""
        super().__init__(literal_column(column))


@compiles(behind_slash, "postgresql")
def _behind_slash_postgresql(element: behind_slash, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return f"substr({column}, strpos({column}, '/') + 1)"


@compiles(behind_slash, "sqlite")
def _behind_slash_sqlite(element: behind_slash, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return f"substr({column}, instr({column}, '/') + 1)"


class has_text(ColumnElement[bool]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """
    A condition on `repositories`: it is among `limit` of those whose column has a text of three letters or more.

    Which of them is left to the database: it looks for no more. Parameters are what `text_parameters` gives.
    """

    inherit_cache = False

    def __init__(self, column: Literal["path", "folded"], visibility: Literal["public", "private"]) -> None:
        """Look among all that are public, or all that are not."""
        self.column = column
        self.visibility = visibility


@compiles(has_text, "postgresql")
def _has_text_postgresql(element: has_text, compiler: SQLCompiler, **options: Any) -> str:
    pattern = compiler.process(bindparam("pattern", type_=Text), **options)
    limit = compiler.process(bindparam("limit", type_=BigInteger), **options)
    # MATERIALIZED: the planner must not hope that a few rows of the table will do.
    return (
        "repositories.id = ANY(ARRAY(WITH found AS MATERIALIZED (SELECT id FROM repositories"  # noqa: S608
        f" WHERE deleted_at IS NULL AND visibility = '{element.visibility}'"
        f" AND {element.column} LIKE {pattern}) SELECT id FROM found LIMIT {limit}))"
    )


@compiles(has_text, "sqlite")
def _has_text_sqlite(element: has_text, compiler: SQLCompiler, **options: Any) -> str:
    phrase = compiler.process(bindparam(f"{element.column}_phrase", type_=Text), **options)
    limit = compiler.process(bindparam("limit", type_=BigInteger), **options)
    part = "< 0" if element.visibility == "public" else "> 0"
    return (
        "repositories.id IN (SELECT abs(rowid) FROM repository_texts"  # noqa: S608 - compiled parts, no values
        f" WHERE repository_texts MATCH {phrase} AND rowid {part} LIMIT {limit})"
    )


class says(ColumnElement[bool]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """
    A condition: the repository of this id has a text of three letters or more in its path or its description.

    Parameters are what `text_parameters` gives.
    """

    inherit_cache = False

    def __init__(self, number: ColumnElement[int]) -> None:
        """Look whether the repository with this `number` is among them."""
        self.number = number


@compiles(says, "postgresql")
def _says_postgresql(element: says, compiler: SQLCompiler, **options: Any) -> str:
    pattern = compiler.process(bindparam("pattern", type_=Text), **options)
    # Put together before: the planner must not look into the text of each repository that is asked about. Each
    # index has those of one visibility.
    found = " || ".join(
        "ARRAY(SELECT repositories.id FROM repositories WHERE deleted_at IS NULL"  # noqa: S608 - compiled parts
        f" AND visibility = '{one}' AND (path LIKE {pattern} OR folded LIKE {pattern}))"
        for one in ("public", "private")
    )
    return f"{compiler.process(element.number, **options)} = ANY({found})"


@compiles(says, "sqlite")
def _says_sqlite(element: says, compiler: SQLCompiler, **options: Any) -> str:
    phrase = compiler.process(bindparam("any_phrase", type_=Text), **options)
    return (
        f"{compiler.process(element.number, **options)} IN (SELECT abs(rowid) FROM repository_texts"  # noqa: S608
        f" WHERE repository_texts MATCH {phrase})"
    )


def text_parameters(part: str) -> dict[str, str]:
    """The parameters of `has_text`; `pattern` is one for ``LIKE``, whose escape is the backslash."""
    quoted = part.replace('"', '""')
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return {
        "pattern": f"%{escaped}%",
        "any_phrase": f'"{quoted}"',
        "path_phrase": f'path : "{quoted}"',
        "folded_phrase": f'folded : "{quoted}"',
    }
