"""Rows from a list parameter, so that one statement writes or matches any number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, bindparam, cast, column, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnClause, ColumnElement, TableValuedAlias
    from sqlalchemy.sql.compiler import SQLCompiler


def each(parameter: str) -> TableValuedAlias:
    """A table with the texts of a list parameter in its only column, `value`."""
    # On PostgreSQL the column of a function is called like its alias.
    return _Each(parameter).table_valued("value", name="value")


class _Each(FunctionElement[str]):
    name = "each"
    type = Text()
    inherit_cache = False

    def __init__(self, parameter: str) -> None:
        super().__init__()
        self.parameter = parameter


@compiles(_Each, "postgresql")
def _postgresql(element: _Each, compiler: SQLCompiler, **options: Any) -> str:
    return f"unnest({compiler.process(bindparam(element.parameter, type_=ARRAY(Text())), **options)})"


@compiles(_Each, "sqlite")
def _sqlite(element: _Each, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(bindparam(element.parameter, type_=Text()), **options)})"


def each_row(parameter: str, *columns: ColumnElement[Any]) -> TableValuedAlias:
    """
    A table with the rows of a parameter, a JSON array of arrays, in the columns named like `columns`.

    Two lists of the same length would be no table to SQLite, but a join that goes through one for each of the
    other. On SQLite a statement gives away the lock of the interpreter and has to get it back from the event loop:
    one that writes many rows is cheaper than many. Numbers are in columns of the type BigInteger.
    """
    named = [column(one.name, BigInteger if isinstance(one.type, BigInteger) else Text) for one in columns]
    return _EachRow(parameter, named).table_valued(*named, name=parameter)


class _EachRow(FunctionElement[str]):
    name = "each_row"
    type = Text()
    inherit_cache = False

    def __init__(self, parameter: str, columns: list[ColumnClause[Any]]) -> None:
        super().__init__()
        self.parameter = parameter
        self.columns_of_rows = columns


@compiles(_EachRow, "postgresql")
def _row_postgresql(element: _EachRow, compiler: SQLCompiler, **options: Any) -> str:
    parts = (
        f"CAST(row ->> {number} AS {'BIGINT' if isinstance(one.type, BigInteger) else 'TEXT'}) AS {one.name}"
        for number, one in enumerate(element.columns_of_rows)
    )
    rows = compiler.process(bindparam(element.parameter, type_=Text()), **options)
    return f"(SELECT {', '.join(parts)} FROM json_array_elements(CAST({rows} AS JSON)) AS given(row))"  # noqa: S608 - compiled parts


@compiles(_EachRow, "sqlite")
def _row_sqlite(element: _EachRow, compiler: SQLCompiler, **options: Any) -> str:
    parts = (f"value ->> {number} AS {one.name}" for number, one in enumerate(element.columns_of_rows))
    rows = compiler.process(bindparam(element.parameter, type_=Text()), **options)
    return f"(SELECT {', '.join(parts)} FROM json_each({rows}))"  # noqa: S608 - compiled parts


def in_rows(columns: Sequence[ColumnElement[Any]], rows: TableValuedAlias) -> ColumnElement[bool]:
    """
    The condition that `columns`, one of them a text, are a row of `rows`, which has its columns in the same order.

    SQLite compares all of a row as its first column, and looks for none of another type in an index: it would read
    all rows with the same number. Texts on both sides it compares as they are; hence the texts come first.
    """
    both = sorted(zip(columns, rows.c, strict=True), key=lambda pair: not isinstance(pair[0].type, Text))
    (_, first), *more = both
    return tuple_(*(one for one, _ in both)).in_(select(cast(first, Text), *(one for _, one in more)))
