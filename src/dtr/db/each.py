"""Rows from a list parameter, so that one statement writes or matches any number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam
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
