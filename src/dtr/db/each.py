"""Rows from a list parameter, so that one statement writes or matches any number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, bindparam, column
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
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


def each_pair(numbers: str, texts: str) -> TableValuedAlias:
    """A table with the pairs of two list parameters of the same length, in its columns `number` and `text`."""
    return _EachPair(numbers, texts).table_valued(column("number", BigInteger), column("text", Text), name="pair")


class _EachPair(FunctionElement[str]):
    name = "each_pair"
    type = Text()
    inherit_cache = False

    def __init__(self, numbers: str, texts: str) -> None:
        super().__init__()
        self.numbers = numbers
        self.texts = texts


@compiles(_EachPair, "postgresql")
def _pair_postgresql(element: _EachPair, compiler: SQLCompiler, **options: Any) -> str:
    numbers = compiler.process(bindparam(element.numbers, type_=ARRAY(BigInteger())), **options)
    texts = compiler.process(bindparam(element.texts, type_=ARRAY(Text())), **options)
    return f"(SELECT * FROM unnest({numbers}, {texts}) AS given(number, text))"  # noqa: S608 - compiled parts


@compiles(_EachPair, "sqlite")
def _pair_sqlite(element: _EachPair, compiler: SQLCompiler, **options: Any) -> str:
    numbers = compiler.process(bindparam(element.numbers, type_=Text()), **options)
    texts = compiler.process(bindparam(element.texts, type_=Text()), **options)
    # The limit keeps it a table of its own: else SQLite looks for rows by the numbers alone, then at the texts.
    return (
        "(SELECT numbers.value AS number, texts.value AS text"  # noqa: S608 - compiled parts
        f" FROM json_each({numbers}) AS numbers JOIN json_each({texts}) AS texts ON texts.key = numbers.key"
        " LIMIT -1)"
    )


def each_row(parameter: str, *columns: ColumnElement[Any]) -> TableValuedAlias:
    """
    A table with the rows of a parameter, a JSON array of arrays, in the columns named like `columns`.

    On SQLite a statement gives away the lock of the interpreter and has to get it back from the event loop: one
    that writes many rows is cheaper than many. Numbers are in columns of the type BigInteger.
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
