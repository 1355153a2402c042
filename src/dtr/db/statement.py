"""
Statements: defined once with SQLAlchemy Core, compiled once per database to text, run by the bare driver.

Building and compiling a statement for each request costs 180 us, running a compiled one through SQLAlchemy
23 us, the driver alone 6 us; hence a statement is a module constant. It is built when it first runs: a process
has 740 of them, and needs few.

    _FIND = Statement(lambda: select(accounts.c.id).where(accounts.c.name == bindparam("name")))
    row = await database.fetch_one(_FIND, name="ada")

What the two databases say differently is here as well: `in_list`, `in_query`, `array_of` and `now`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec
from sqlalchemy import BigInteger, ClauseElement, ColumnElement, Text, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.sql.compiler import SQLCompiler

Dialect: TypeAlias = Literal["sqlite", "postgresql"]
Row: TypeAlias = "Sequence[Any]"
"""A row: its columns by position, in the order of the statement."""


class Statement:
    """A statement and its texts; parameters are given by name."""

    __slots__ = ("_given", "_texts", "is_remembered")

    def __init__(self, clause: ClauseElement | Callable[[], ClauseElement], *, remembered: bool = False) -> None:
        """
        Keep the clause, or what builds it; it is compiled when it first runs.

        What one that is `remembered` reads, only by `Reader.fetch_one`, changes seldom (`dtr.db.seldom`).
        """
        self._given = clause
        self.is_remembered = remembered
        self._texts: dict[Dialect, tuple[str, tuple[tuple[str, Any], ...]]] = {}

    @property
    def clause(self) -> ClauseElement:
        """What it says; built anew each time, where a function builds it."""
        return self._given if isinstance(self._given, ClauseElement) else self._given()

    def text(self, dialect: Dialect) -> str:
        """The SQL text for a database."""
        return self._compiled(dialect)[0]

    def prepare(self, dialect: Dialect, parameters: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The SQL text and the values in its order. Raises KeyError for a parameter that is missing."""
        text, places = self._texts.get(dialect) or self._compiled(dialect)
        values = [parameters[name] if default is _REQUIRED else default for name, default in places]
        if dialect == "sqlite" and list in map(type, values):
            values = [_json(value) if type(value) is list else value for value in values]
        return text, values

    def _compiled(self, dialect: Dialect) -> tuple[str, tuple[tuple[str, Any], ...]]:
        compiled = cast("SQLCompiler", self.clause.compile(dialect=_dialect(dialect)))
        literals = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        order = compiled.positiontup or []
        places = tuple((name, literals.get(name, _REQUIRED)) for name in order)
        self._texts[dialect] = (str(compiled), places)
        return self._texts[dialect]


_REQUIRED = object()
_encode = msgspec.json.Encoder(enc_hook=str.__str__).encode  # names and digests are their own kinds of str


def _json(values: list[Any]) -> str:
    """A list as SQLite reads one: with each request, so not by the standard library, which takes 2 us."""
    try:
        return _encode(values).decode()
    except UnicodeEncodeError:  # half a pair of surrogates, which nothing is named by
        return json.dumps(values)


def _dialect(name: Dialect) -> Any:
    if name == "sqlite":
        from sqlalchemy.dialects.sqlite import pysqlite

        return pysqlite.dialect(paramstyle="qmark")
    from sqlalchemy.dialects.postgresql import asyncpg

    return asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy types its dialects in part


class in_list(ColumnElement[bool]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """``column IN (all values of the list parameter)``: one text whatever the number of values."""

    inherit_cache = False

    def __init__(
        self,
        column: ColumnElement[Any],
        parameter: str,
        *,
        within: tuple[ColumnElement[Any], ColumnElement[Any]] | None = None,
    ) -> None:
        """
        Compare `column` with the values of the list given as `parameter`.

        `within` is for a column that is the second one of an index: the first one, and what it is equal to. Both
        are looked for together, value by value. Two conditions instead would let PostgreSQL, in the plan that it
        keeps for all parameters, read all rows that have the first value: as many as a repository has tags, as it
        believes, which is few, on the average.
        """
        self.column = column
        self.parameter = parameter
        self.within = within


@compiles(in_list, "postgresql")
def _in_list_postgresql(element: in_list, compiler: SQLCompiler, **options: Any) -> str:
    item = BigInteger() if isinstance(element.column.type, BigInteger) else Text()
    values = compiler.process(bindparam(element.parameter, type_=ARRAY(item)), **options)
    column = compiler.process(element.column, **options)
    if element.within is None:
        return f"{column} = ANY({values})"
    first, value = (compiler.process(one, **options) for one in element.within)
    # A query that makes rows is not taken apart: it becomes the outer side of a loop over the index.
    return f"({first}, {column}) IN (SELECT {value}, unnest({values}))"


@compiles(in_list, "sqlite")
def _in_list_sqlite(element: in_list, compiler: SQLCompiler, **options: Any) -> str:
    first = ""
    if element.within is not None:
        first, value = (compiler.process(one, **options) for one in element.within)
        first = f"{first} = {value} AND "
    column = compiler.process(element.column, **options)
    values = compiler.process(bindparam(element.parameter, type_=Text()), **options)
    return f"{first}{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 - compiled parts, no values


class in_query(ColumnElement[bool]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """``column IN (query)`` for a correlated query of few rows: each of them is looked for in an index."""

    inherit_cache = False

    def __init__(self, column: ColumnElement[Any], query: Select[Any]) -> None:
        """Compare `column` with the only column of `query`."""
        self.column = column
        self.query = query.scalar_subquery()


@compiles(in_query, "postgresql")
def _in_query_postgresql(element: in_query, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.column, **options)
    return f"{column} = ANY(ARRAY{compiler.process(element.query, **options)})"


@compiles(in_query, "sqlite")
def _in_query_sqlite(element: in_query, compiler: SQLCompiler, **options: Any) -> str:
    return f"{compiler.process(element.column, **options)} IN {compiler.process(element.query, **options)}"


class array_of(ColumnElement[Any]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """
    All rows of a correlated query of one column of texts, in their order, as one value; see `read_array`.

    A query for each row of another table that takes the first rows by an index: a join has no such bound.
    """

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        """The rows of `query`; its column has a name."""
        self.name_of_column = query.selected_columns[0].name
        self.query = query.scalar_subquery()


@compiles(array_of, "postgresql")
def _array_of_postgresql(element: array_of, compiler: SQLCompiler, **options: Any) -> str:
    return f"ARRAY{compiler.process(element.query, **options)}"


@compiles(array_of, "sqlite")
def _array_of_sqlite(element: array_of, compiler: SQLCompiler, **options: Any) -> str:
    query = compiler.process(element.query, **options)
    return f"(SELECT json_group_array({element.name_of_column}) FROM {query})"  # noqa: S608 - compiled parts


def read_array(value: str | list[str]) -> list[str]:
    """What a database gives for an `array_of`."""
    found: list[str] = json.loads(value) if isinstance(value, str) else value
    return found


class now(FunctionElement[int]):  # noqa: N801 - reads like SQLAlchemy's own functions
    """
    The database's clock, in milliseconds since 1970 UTC: one clock for all processes and hosts.

    On PostgreSQL it is the start of the transaction, which the planner may compare with an index.
    """

    name = "now"
    type = BigInteger()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(extract(epoch FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
