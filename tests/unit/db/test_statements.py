"""The statements of all rooms: each can be compiled, and says what it said where it was written."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import column, select

import dtr
from dtr.db import Statement, in_list
from dtr.oci import Digest

_MODULES = [
    one.name for one in pkgutil.walk_packages(dtr.__path__, "dtr.") if not one.name.startswith("dtr.db.migrations")
]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_each_statement_can_be_compiled(dialect: str) -> None:
    """One that is built when it first runs would else fail for the first who needs it."""
    known = [
        value
        for name in _MODULES
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, Statement)
    ]
    assert len(known) > 500
    for one in known:
        assert one.text(dialect)  # type: ignore[arg-type]


def test_what_a_statement_is_built_of_is_named_once() -> None:
    """A name that is given anew further down would change the statements above, which look it up when they run."""
    for file in Path(dtr.__path__[0]).rglob("*.py"):
        tree = ast.parse(file.read_bytes())
        given: Counter[str] = Counter()
        used: set[str] = set()
        for line in tree.body:
            if not isinstance(line, ast.Assign):
                continue
            targets = [one for target in line.targets for one in ast.walk(target)]
            given.update(one.id for one in targets if isinstance(one, ast.Name))
            for lazy in ast.walk(line.value):
                if isinstance(lazy, ast.Lambda):
                    used.update(one.id for one in ast.walk(lazy) if isinstance(one, ast.Name))
        assert not {name for name in used if given[name] > 1}, file


@pytest.mark.parametrize("values", [[], ["a", 'é"\n\0'], [1, None, 2.5, [True]], ["\ud800"], [Digest("sha256:1")]])
def test_a_list_is_given_to_sqlite_as_json(values: list[object]) -> None:
    statement = Statement(lambda: select(1).where(in_list(column("one"), "many")))
    assert json.loads(statement.prepare("sqlite", {"many": values})[1][-1]) == values
    assert statement.prepare("postgresql", {"many": values})[1][-1] is values


def test_what_is_no_list_of_texts_and_numbers_is_given_to_no_database() -> None:
    statement = Statement(lambda: select(1).where(in_list(column("one"), "many")))
    with pytest.raises(TypeError):
        statement.prepare("sqlite", {"many": [object()]})
