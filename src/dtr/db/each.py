"""Rows from a list parameter, so that one statement writes or matches any number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, bindparam, column
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy import TableValuedAlias
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
    return (
        "(SELECT numbers.value AS number, texts.value AS text"  # noqa: S608 - compiled parts
        f" FROM json_each({numbers}) AS numbers JOIN json_each({texts}) AS texts ON texts.key = numbers.key)"
    )
